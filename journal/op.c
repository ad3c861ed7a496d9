/* Operations: comparing contents and rights, names, births, which shards an effect has parts in,
 * copying. */
#include "journal/op.h"

#include <sodium.h>

#include "base/assert.h"
#include "base/codec.h"
#include "base/limits.h"

#define BLOCK_BYTES_MIN (64u * KIB) /* of a manifest */

static bool all_zero(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] != 0)
            return false;
    return true;
}

/* Equal bytes as far as the records tell: two manifests of different block sizes count as
 * different, which costs a conflict name and never loses anything. */
bool content_equal(const struct content *a, const struct content *b)
{
    if (a->size != b->size || a->kind != b->kind)
        return false;
    if (a->kind == CONTENT_MANIFEST)
        return memcmp(a->root, b->root, sizeof a->root) == 0 && a->block_bytes == b->block_bytes;
    struct slice shorter = a->bytes.len < b->bytes.len ? a->bytes : b->bytes;
    struct slice longer = a->bytes.len < b->bytes.len ? b->bytes : a->bytes;
    return slice_equal(shorter, slice_of(longer.ptr, shorter.len)) &&
           all_zero(slice_of(longer.len == 0 ? NULL : longer.ptr + shorter.len,
                             longer.len - shorter.len));
}

bool content_valid(const struct content *c)
{
    if (c->size > LIMIT_FILE_BYTES)
        return false;
    if (c->kind == CONTENT_INLINE)
        return c->bytes.len <= c->size;
    return c->kind == CONTENT_MANIFEST && c->block_bytes >= BLOCK_BYTES_MIN &&
           c->block_bytes <= LIMIT_CHUNK_BYTES && (c->block_bytes & (c->block_bytes - 1)) == 0 &&
           c->data_blocks <= LIMIT_FILE_BYTES;
}

void perm_encode(const struct perm *p, struct buf *out)
{
    enc_varint(out, p->uid);
    enc_varint(out, p->gid);
    enc_u16(out, p->mode);
    enc_dot(out, p->setid_seen);
    enc_bytes(out, p->acl_access);
    enc_bytes(out, p->acl_default);
    enc_bytes(out, p->caps);
}

int perm_decode(struct slice s, struct perm *ret)
{
    struct dec d = dec_of(s);
    uint64_t uid = dec_varint(&d);
    uint64_t gid = dec_varint(&d);
    struct perm p = {.uid = (uint32_t)uid, .gid = (uint32_t)gid};
    p.mode = dec_u16(&d);
    p.setid_seen = dec_dot(&d);
    p.acl_access = dec_bytes(&d, LIMIT_XATTR_VALUE_BYTES);
    p.acl_default = dec_bytes(&d, LIMIT_XATTR_VALUE_BYTES);
    p.caps = dec_bytes(&d, LIMIT_XATTR_VALUE_BYTES);
    if (uid > UINT32_MAX || gid > UINT32_MAX || p.mode > 07777)
        dec_fail(&d, ERR_MALFORMED);
    int rc = dec_end(&d);
    if (rc == 0)
        *ret = p;
    return rc;
}

bool perm_same_rights(const struct perm *a, const struct perm *b)
{
    return a->uid == b->uid && a->gid == b->gid && a->mode == b->mode &&
           slice_equal(a->acl_access, b->acl_access) &&
           slice_equal(a->acl_default, b->acl_default) && slice_equal(a->caps, b->caps);
}

bool name_valid(struct slice name)
{
    if (name.len == 0 || name.len > LIMIT_NAME_BYTES)
        return false;
    if (name.ptr[0] == '.' && (name.len == 1 || (name.len == 2 && name.ptr[1] == '.')))
        return false;
    return memchr(name.ptr, '/', name.len) == NULL && memchr(name.ptr, 0, name.len) == NULL;
}

struct oid birth_oid(const struct birth *b, const uint8_t fs_key[32], unsigned shard_count)
{
    ASSERT(shard_count > 0 && shard_count <= SHARD_COUNT_MAX);
    struct buf text = {.ptr = NULL};
    enc_oid(&text, b->parent);
    enc_bytes(&text, b->name);
    enc_u32(&text, b->gen);
    enc_u32(&text, b->uid);
    enc_u32(&text, b->gid);
    enc_u16(&text, b->mode);
    uint8_t hash[16];
    int rc = crypto_generichash(hash, sizeof hash, text.ptr, text.len, fs_key, 32);
    ASSERT(rc == 0);
    buf_deinit(&text);
    unsigned spread = (unsigned)hash[12] << 8 | hash[13];
    struct oid o = oid_dir((shard_id_t)(spread % shard_count), hash);
    ASSERT(!oid_is_root(o));
    return o;
}

struct dots_walk {
    const struct op *op;
    bool (*applied)(void *ctx, struct dot d);
    void *ctx;
    struct dot *ret_missing;
};

static bool walk_dot(const struct dots_walk *w, struct dot d)
{
    if (dot_is_none(d) || dot_equal(d, w->op->dot) || w->applied(w->ctx, d))
        return true;
    if (w->ret_missing != NULL)
        *w->ret_missing = d;
    return false;
}

static bool walk_dots(const struct dots_walk *w, const struct dot *dots, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (!walk_dot(w, dots[i]))
            return false;
    return true;
}

bool op_dots_applied(const struct op *op,
                     bool (*applied)(void *ctx, struct dot d),
                     void *ctx,
                     struct dot *ret_missing)
{
    struct dots_walk w = {.op = op, .applied = applied, .ctx = ctx, .ret_missing = ret_missing};
    for (uint32_t i = 0; i < op->effect_count; i++) {
        const struct effect *e = &op->effects[i];
        if (!walk_dots(&w, e->dots, e->dot_count) || !walk_dots(&w, e->seen, e->seen_count) ||
            !walk_dot(&w, e->stays) || !walk_dot(&w, e->loser))
            return false;
    }
    return true;
}

void op_shards(const struct op *op, struct shard_set *ret)
{
    memset(ret, 0, sizeof *ret);
    shard_set_add(ret, op->dot.shard);
    for (uint32_t i = 0; i < op->effect_count; i++) {
        const struct effect *e = &op->effects[i];
        switch (e->kind) {
        case EFFECT_ENTER:
        case EFFECT_LEAVE:
            shard_set_add(ret, oid_shard(e->parent));
            shard_set_add(ret, oid_shard(e->oid));
            continue;
        case EFFECT_BIRTH:
            shard_set_add(ret, oid_shard(e->birth.parent));
            shard_set_add(ret, oid_shard(e->oid));
            continue;
        case EFFECT_MOVE:
            shard_set_add(ret, 0);
            continue;
        case EFFECT_VERSION:
        case EFFECT_FORK:
        case EFFECT_REVIVE:
        case EFFECT_BURY:
        case EFFECT_SET:
            shard_set_add(ret, oid_shard(e->oid));
            continue;
        case EFFECT_KIND_END:
            break;
        }
        UNREACHABLE();
    }
}

static const struct dot *dup_dots(struct op_arena *a, const struct dot *dots, uint32_t count)
{
    if (count == 0)
        return NULL;
    struct dot *copy = op_alloc(a, count * sizeof *copy);
    memcpy(copy, dots, count * sizeof *copy);
    return copy;
}

static void dup_reg(struct op_arena *a, struct reg *r)
{
    r->key = op_dup(a, r->key);
    r->value = op_dup(a, r->value);
}

static void effect_copy(const struct effect *e, struct op_arena *a, struct effect *ret)
{
    *ret = *e;
    ret->name = op_dup(a, e->name);
    ret->dots = dup_dots(a, e->dots, e->dot_count);
    ret->seen = dup_dots(a, e->seen, e->seen_count);
    ret->content.bytes = op_dup(a, e->content.bytes);
    dup_reg(a, &ret->set);
    ret->birth.name = op_dup(a, e->birth.name);
    if (e->reg_count > 0) {
        struct reg *regs = op_alloc(a, e->reg_count * sizeof *regs);
        for (uint32_t i = 0; i < e->reg_count; i++) {
            regs[i] = e->regs[i];
            dup_reg(a, &regs[i]);
        }
        ret->regs = regs;
    }
    if (e->lineage_count > 0) {
        struct birth *births = op_alloc(a, e->lineage_count * sizeof *births);
        for (uint32_t i = 0; i < e->lineage_count; i++) {
            births[i] = e->lineage[i];
            births[i].name = op_dup(a, e->lineage[i].name);
        }
        ret->lineage = births;
    }
}

void op_copy(const struct op *op, struct op_arena *arena, struct op *ret)
{
    *ret = *op;
    ret->effects = op_alloc(arena, op->effect_count * sizeof *ret->effects);
    for (uint32_t i = 0; i < op->effect_count; i++)
        effect_copy(&op->effects[i], arena, &ret->effects[i]);
}
