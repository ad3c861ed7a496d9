/* Writing operations; op_decode.c reads exactly these forms. */
#include "journal/op.h"

#include "base/assert.h"
#include "base/limits.h"
#include "base/mp.h"

static void put_dot(struct buf *out, struct dot d, shard_id_t home)
{
    if (dot_is_none(d)) {
        mp_nil(out);
        return;
    }
    mp_array(out, d.shard == home ? 2 : 3);
    if (d.shard != home)
        mp_uint(out, d.shard);
    mp_uint(out, d.site);
    mp_uint(out, d.seq);
}

static void put_dots(struct buf *out, const struct dot *dots, uint32_t count, shard_id_t home)
{
    mp_array(out, count);
    for (uint32_t i = 0; i < count; i++)
        put_dot(out, dots[i], home);
}

static void put_content(struct buf *out, const struct content *c)
{
    switch (c->kind) {
    case CONTENT_INLINE:
        mp_array(out, 3);
        mp_uint(out, CONTENT_INLINE);
        mp_uint(out, c->size);
        mp_bin(out, c->bytes);
        return;
    case CONTENT_MANIFEST:
        mp_array(out, c->data_blocks != 0 ? 5 : 4);
        mp_uint(out, CONTENT_MANIFEST);
        mp_uint(out, c->size);
        mp_uint(out, c->block_bytes);
        mp_bin(out, slice_of(c->root, sizeof c->root));
        if (c->data_blocks != 0)
            mp_uint(out, c->data_blocks);
        return;
    }
    UNREACHABLE();
}

static void put_birth(struct buf *out, const struct birth *b)
{
    mp_oid(out, b->parent);
    mp_bin(out, b->name);
    mp_uint(out, b->gen);
    mp_uint(out, b->uid);
    mp_uint(out, b->gid);
    mp_uint(out, b->mode);
}

static void put_lineage(struct buf *out, const struct effect *e)
{
    mp_array(out, e->lineage_count);
    for (uint32_t i = 0; i < e->lineage_count; i++) {
        mp_array(out, 7);
        mp_oid(out, e->lineage[i].oid);
        put_birth(out, &e->lineage[i]);
    }
}

static void put_regs(struct buf *out, const struct effect *e)
{
    mp_array(out, e->reg_count);
    for (uint32_t i = 0; i < e->reg_count; i++) {
        const struct reg *r = &e->regs[i];
        mp_array(out, 4);
        mp_bin(out, r->key);
        mp_uint(out, r->stamp.hlc);
        mp_uint(out, r->stamp.site);
        if (r->present)
            mp_bin(out, r->value);
        else
            mp_nil(out);
    }
}

static void put_fork(struct buf *out, const struct effect *e, shard_id_t home)
{
    bool kept = !oid_is_none(e->to);
    put_dot(out, e->loser, home);
    mp_stamp(out, e->loser_stamp);
    if (!kept) {
        mp_nil(out);
        return;
    }
    mp_oid(out, e->to);
    put_content(out, &e->content);
    mp_int(out, e->mtime_ns);
    put_regs(out, e);
}

static uint32_t field_count(const struct effect *e)
{
    switch (e->kind) {
    case EFFECT_ENTER:
        return 4;
    case EFFECT_LEAVE:
        return 7;
    case EFFECT_VERSION:
        return 5;
    case EFFECT_FORK:
        return oid_is_none(e->to) ? 5 : 8;
    case EFFECT_BIRTH:
        return 8;
    case EFFECT_REVIVE:
        return 2;
    case EFFECT_BURY:
        return 3;
    case EFFECT_MOVE:
        return 6;
    case EFFECT_SET:
        return 4;
    case EFFECT_KIND_END:
        break;
    }
    UNREACHABLE();
}

static void put_effect(struct buf *out, const struct effect *e, shard_id_t home)
{
    mp_array(out, field_count(e));
    mp_uint(out, e->kind);
    mp_oid(out, e->oid);
    if (e->kind == EFFECT_ENTER || e->kind == EFFECT_LEAVE || e->kind == EFFECT_MOVE) {
        mp_oid(out, e->parent);
        mp_bin(out, e->name);
    }
    if (e->kind == EFFECT_LEAVE || e->kind == EFFECT_VERSION || e->kind == EFFECT_BURY ||
        e->kind == EFFECT_MOVE)
        put_dots(out, e->dots, e->dot_count, home);
    switch (e->kind) {
    case EFFECT_LEAVE:
        put_dots(out, e->seen, e->seen_count, home);
        put_dot(out, e->stays, home);
        return;
    case EFFECT_VERSION:
        put_content(out, &e->content);
        mp_int(out, e->mtime_ns);
        return;
    case EFFECT_FORK:
        put_fork(out, e, home);
        return;
    case EFFECT_BIRTH:
        ASSERT(oid_equal(e->oid, e->birth.oid));
        put_birth(out, &e->birth);
        return;
    case EFFECT_MOVE:
        put_lineage(out, e);
        return;
    case EFFECT_SET:
        mp_bin(out, e->set.key);
        if (e->set.present)
            mp_bin(out, e->set.value);
        else
            mp_nil(out);
        return;
    case EFFECT_ENTER:
    case EFFECT_REVIVE:
    case EFFECT_BURY:
        return;
    case EFFECT_KIND_END:
        break;
    }
    UNREACHABLE();
}

void op_encode(const struct op *op, struct buf *out)
{
    ASSERT(op->dot.site == op->stamp.site && !dot_is_none(op->dot));
    ASSERT(op->effect_count <= LIMIT_EFFECTS);
    mp_array(out, 6);
    mp_uint(out, op->dot.shard);
    mp_uint(out, op->dot.site);
    mp_uint(out, op->dot.seq);
    mp_uint(out, op->stamp.hlc);
    mp_int(out, op->time_ns);
    mp_array(out, op->effect_count);
    for (uint32_t i = 0; i < op->effect_count; i++)
        put_effect(out, &op->effects[i], op->dot.shard);
}
