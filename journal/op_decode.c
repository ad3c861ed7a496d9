/* Reading operations: everything a peer or a disk can say is checked here, so that the engine may
 * take a decoded operation at its word. Counts are checked against the bytes that are left before
 * anything is allocated. */
#include "journal/op.h"

#include "base/limits.h"
#include "base/mp.h"

struct reader {
    struct mp mp;
    struct op_arena *arena;
    shard_id_t home;
};

static void fail(struct reader *r)
{
    mp_fail(&r->mp, ERR_MALFORMED);
}

static void expect(struct reader *r, bool cond)
{
    if (!cond)
        fail(r);
}

/* An array header; each element takes at least min_bytes. */
static uint32_t get_count(struct reader *r, uint32_t max, size_t min_bytes)
{
    uint32_t count = mp_get_array(&r->mp, max);
    if (r->mp.rc != 0)
        return 0;
    if (count > (size_t)(r->mp.end - r->mp.at) / min_bytes) {
        mp_fail(&r->mp, ERR_TRUNCATED);
        return 0;
    }
    return count;
}

static void expect_count(struct reader *r, uint32_t want)
{
    expect(r, mp_get_array(&r->mp, want) == want);
}

static struct dot get_dot(struct reader *r)
{
    struct dot d = {.shard = r->home};
    uint32_t count = mp_get_array(&r->mp, 3);
    expect(r, count >= 2);
    if (count == 3) {
        d.shard = (shard_id_t)mp_get_uint(&r->mp, SHARD_COUNT_MAX - 1);
        expect(r, d.shard != r->home); /* the one form for own dots leaves it out */
    }
    d.site = (site_id_t)mp_get_uint(&r->mp, UINT32_MAX);
    d.seq = mp_get_uint(&r->mp, UINT64_MAX);
    expect(r, d.site != 0 && d.seq != 0);
    return d;
}

static struct dot get_dot_or_none(struct reader *r)
{
    if (mp_peek(&r->mp) == MP_NIL) {
        mp_get_nil(&r->mp);
        return (struct dot){.seq = 0};
    }
    return get_dot(r);
}

static const struct dot *get_dots(struct reader *r, uint32_t *ret_count)
{
    uint32_t count = get_count(r, LIMIT_DOTS, 3);
    if (count == 0)
        return NULL;
    struct dot *dots = op_alloc(r->arena, count * sizeof *dots);
    for (uint32_t i = 0; i < count && r->mp.rc == 0; i++)
        dots[i] = get_dot(r);
    *ret_count = count;
    return dots;
}

static struct oid get_dir(struct reader *r)
{
    struct oid o = mp_get_oid(&r->mp);
    expect(r, oid_is_dir(o) && oid_shard(o) < SHARD_COUNT_MAX);
    return o;
}

static struct slice get_name(struct reader *r)
{
    struct slice name = mp_get_bin(&r->mp, LIMIT_NAME_BYTES);
    if (r->mp.rc == 0)
        expect(r, name_valid(name));
    return name;
}

static struct content get_content(struct reader *r)
{
    struct content c = {.kind = CONTENT_INLINE};
    uint32_t count = mp_get_array(&r->mp, 5);
    uint64_t kind = mp_get_uint(&r->mp, CONTENT_MANIFEST);
    c.size = mp_get_uint(&r->mp, LIMIT_FILE_BYTES);
    if (kind == CONTENT_INLINE) {
        expect(r, count == 3);
        c.bytes = mp_get_bin(&r->mp, LIMIT_INLINE_BYTES);
        expect(r, content_valid(&c));
        return c;
    }
    expect(r, (count == 4 || count == 5) && kind == CONTENT_MANIFEST);
    c.kind = CONTENT_MANIFEST;
    c.block_bytes = (uint32_t)mp_get_uint(&r->mp, LIMIT_CHUNK_BYTES);
    struct slice root = mp_get_bin_exact(&r->mp, sizeof c.root);
    if (r->mp.rc == 0)
        memcpy(c.root, root.ptr, sizeof c.root);
    if (count == 5)
        c.data_blocks = mp_get_uint(&r->mp, LIMIT_FILE_BYTES);
    expect(r, content_valid(&c));
    return c;
}

static void check_reg(struct reader *r, const struct reg *reg)
{
    if (r->mp.rc != 0)
        return;
    struct perm perm;
    switch (reg->key.len == 0 ? 0 : reg->key.ptr[0]) {
    case REG_PERM:
        expect(r, reg->key.len == 1 && reg->present);
        if (r->mp.rc == 0)
            expect(r, perm_decode(reg->value, &perm) == 0);
        return;
    case REG_ATIME:
    case REG_MTIME:
        expect(r, reg->key.len == 1 && reg->present && reg->value.len == 8);
        return;
    case REG_XATTR:
        expect(r, reg->key.len > 1 && memchr(reg->key.ptr, 0, reg->key.len) == NULL);
        return;
    default: /* the owner's own, see op.h */
        expect(r, reg->key.len > 1 && reg->key.ptr[0] >= 'A' && reg->key.ptr[0] <= 'Z');
    }
}

/* The key, then for a fork the stamp, then the value or nil. */
static struct reg get_reg(struct reader *r, bool stamped)
{
    struct reg reg = {.present = true};
    reg.key = mp_get_bin(&r->mp, 1 + LIMIT_XATTR_NAME_BYTES);
    if (stamped) {
        reg.stamp.hlc = mp_get_uint(&r->mp, UINT64_MAX);
        reg.stamp.site = (site_id_t)mp_get_uint(&r->mp, UINT32_MAX);
    }
    if (mp_peek(&r->mp) == MP_NIL) {
        mp_get_nil(&r->mp);
        reg.present = false;
    } else {
        reg.value = mp_get_bin(&r->mp, LIMIT_XATTR_VALUE_BYTES);
    }
    check_reg(r, &reg);
    return reg;
}

static void get_birth(struct reader *r, struct birth *b)
{
    b->parent = get_dir(r);
    b->name = get_name(r);
    b->gen = (uint32_t)mp_get_uint(&r->mp, UINT32_MAX);
    b->uid = (uint32_t)mp_get_uint(&r->mp, UINT32_MAX);
    b->gid = (uint32_t)mp_get_uint(&r->mp, UINT32_MAX);
    b->mode = (uint16_t)mp_get_uint(&r->mp, 07777);
    expect(r, oid_is_dir(b->oid) && !oid_is_root(b->oid) && !oid_equal(b->oid, b->parent));
}

static void get_move(struct reader *r, struct effect *e)
{
    expect(r, !oid_equal(e->oid, e->parent));
    uint32_t count = get_count(r, LIMIT_LINEAGE, 8);
    if (count == 0)
        return;
    struct birth *births = op_alloc(r->arena, count * sizeof *births);
    for (uint32_t i = 0; i < count && r->mp.rc == 0; i++) {
        expect_count(r, 7);
        births[i].oid = get_dir(r);
        get_birth(r, &births[i]);
    }
    e->lineage = births;
    e->lineage_count = count;
}

static void get_fork(struct reader *r, struct effect *e, uint32_t fields)
{
    e->loser = get_dot(r);
    e->loser_stamp = mp_get_stamp(&r->mp);
    if (fields == 5) {
        mp_get_nil(&r->mp);
        return;
    }
    e->to = mp_get_oid(&r->mp);
    expect(r, e->to.b[2] == e->oid.b[2] && oid_shard(e->to) == oid_shard(e->oid) &&
                  !oid_equal(e->to, e->oid));
    e->content = get_content(r);
    e->mtime_ns = mp_get_int(&r->mp);
    uint32_t count = get_count(r, LIMIT_EFFECTS, 4);
    if (count == 0)
        return;
    struct reg *regs = op_alloc(r->arena, count * sizeof *regs);
    for (uint32_t i = 0; i < count && r->mp.rc == 0; i++) {
        expect_count(r, 4);
        regs[i] = get_reg(r, true);
    }
    e->regs = regs;
    e->reg_count = count;
}

static void get_entry(struct reader *r, struct effect *e)
{
    e->parent = get_dir(r);
    e->name = get_name(r);
}

static uint32_t fields_of(enum effect_kind kind)
{
    static const uint8_t fields[EFFECT_KIND_END] = {
        [EFFECT_ENTER] = 4, [EFFECT_LEAVE] = 7, [EFFECT_VERSION] = 5,
        [EFFECT_FORK] = 8,  [EFFECT_BIRTH] = 8, [EFFECT_REVIVE] = 2,
        [EFFECT_BURY] = 3,  [EFFECT_MOVE] = 6,  [EFFECT_SET] = 4};
    return fields[kind];
}

static void get_payload(struct reader *r, struct effect *e, uint32_t fields)
{
    switch (e->kind) {
    case EFFECT_ENTER:
        get_entry(r, e);
        return;
    case EFFECT_LEAVE:
        get_entry(r, e);
        e->dots = get_dots(r, &e->dot_count);
        e->seen = get_dots(r, &e->seen_count);
        e->stays = get_dot_or_none(r);
        return;
    case EFFECT_VERSION:
        e->dots = get_dots(r, &e->dot_count);
        e->content = get_content(r);
        e->mtime_ns = mp_get_int(&r->mp);
        return;
    case EFFECT_FORK:
        get_fork(r, e, fields);
        return;
    case EFFECT_BIRTH:
        e->birth.oid = e->oid;
        get_birth(r, &e->birth);
        return;
    case EFFECT_REVIVE:
        return;
    case EFFECT_BURY:
        e->dots = get_dots(r, &e->dot_count);
        return;
    case EFFECT_MOVE:
        get_entry(r, e);
        e->dots = get_dots(r, &e->dot_count);
        get_move(r, e);
        return;
    case EFFECT_SET:
        e->set = get_reg(r, false);
        return;
    case EFFECT_KIND_END:
        break;
    }
    fail(r);
}

static void get_effect(struct reader *r, struct effect *e)
{
    uint32_t fields = mp_get_array(&r->mp, 8);
    uint64_t kind = mp_get_uint(&r->mp, EFFECT_KIND_END - 1);
    expect(r, kind >= EFFECT_ENTER);
    if (r->mp.rc != 0)
        return;
    e->kind = (enum effect_kind)kind;
    expect(r, fields == fields_of(e->kind) || (e->kind == EFFECT_FORK && fields == 5));
    e->oid = mp_get_oid(&r->mp);
    bool dir = oid_is_dir(e->oid);
    bool wants_dir = e->kind == EFFECT_BIRTH || e->kind == EFFECT_REVIVE ||
                     e->kind == EFFECT_BURY || e->kind == EFFECT_MOVE;
    if (e->kind != EFFECT_SET)
        expect(r, dir == wants_dir && !oid_is_root(e->oid));
    expect(r, oid_shard(e->oid) < SHARD_COUNT_MAX);
    if (r->mp.rc == 0)
        get_payload(r, e, fields);
}

static struct op get_head(struct reader *r)
{
    struct op op = {.effects = NULL};
    expect_count(r, 6);
    op.dot.shard = (shard_id_t)mp_get_uint(&r->mp, SHARD_COUNT_MAX - 1);
    op.dot.site = (site_id_t)mp_get_uint(&r->mp, UINT32_MAX);
    op.dot.seq = mp_get_uint(&r->mp, UINT64_MAX);
    op.stamp.hlc = mp_get_uint(&r->mp, UINT64_MAX);
    op.stamp.site = op.dot.site;
    op.time_ns = mp_get_int(&r->mp);
    expect(r, op.dot.site != 0 && op.dot.seq != 0);
    r->home = op.dot.shard;
    return op;
}

int op_decode_head(struct slice s, struct op *ret)
{
    if (s.len > LIMIT_OP_BYTES)
        return ERR_TOO_BIG;
    struct reader r = {.mp = mp_of(s)};
    struct op op = get_head(&r);
    if (r.mp.rc == 0)
        *ret = op;
    return r.mp.rc;
}

int op_decode(struct slice s, struct op_arena *arena, struct op *ret)
{
    if (s.len > LIMIT_OP_BYTES)
        return ERR_TOO_BIG;
    struct reader r = {.mp = mp_of(s), .arena = arena};
    struct op op = get_head(&r);
    uint32_t count = get_count(&r, LIMIT_EFFECTS, 3 + sizeof(struct oid));
    if (count > 0)
        op.effects = op_alloc(arena, count * sizeof *op.effects);
    op.effect_count = count;
    for (uint32_t i = 0; i < count && r.mp.rc == 0; i++)
        get_effect(&r, &op.effects[i]);
    int rc = mp_end(&r.mp);
    if (rc != 0)
        return rc;
    *ret = op;
    return 0;
}
