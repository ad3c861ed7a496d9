/* See unsent.h. */
#include "site/unsent.h"

#include <sodium.h>
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/mp.h"
#include "site/node.h"

static const char magic[8] = "CFSUNSE1";

enum {
    HASH_BYTES = 16,
    ITEMS_MAX = 1 << 26, /* of a kind */
    LISTS_SENT = 3,      /* what is behind so many lists came later */
    LISTS_MEMBERS = 4,
    LISTS_LEAVES = 5,
    LISTS = 6,
    FIELDS_DIR = 9,
    FIELDS_NAME = 6,
    FIELDS_FILE = 14
};

/* ---- finding ---- */

static void *list_add(void ***list, uint32_t *count, uint32_t *cap, void *item)
{
    if (*count == *cap) {
        *cap = MAX(2 * *cap, 64u);
        *list = mem_realloc(*list, *cap * sizeof **list);
    }
    (*list)[(*count)++] = item;
    return item;
}

struct unsent_dir *unsent_dir_find(const struct unsent *w, struct oid oid)
{
    struct unsent_dir *d = NULL;
    HASH_FIND(hh, w->dir_hash, oid.b, sizeof oid.b, d);
    return d;
}

struct unsent_dir *unsent_dir(struct unsent *w, struct oid oid)
{
    struct unsent_dir *d = unsent_dir_find(w, oid);
    if (d != NULL)
        return d;
    d = op_alloc(&w->arena, sizeof *d);
    d->oid = oid;
    HASH_ADD(hh, w->dir_hash, oid.b, sizeof d->oid.b, d);
    return list_add((void ***)&w->dirs, &w->dir_count, &w->dir_cap, d);
}

struct unsent_file *unsent_file_find(const struct unsent *w, struct oid oid)
{
    struct unsent_file *f = NULL;
    HASH_FIND(hh, w->file_hash, oid.b, sizeof oid.b, f);
    return f;
}

struct unsent_file *unsent_file(struct unsent *w, struct oid oid)
{
    struct unsent_file *f = unsent_file_find(w, oid);
    if (f != NULL)
        return f;
    f = op_alloc(&w->arena, sizeof *f);
    f->oid = oid;
    HASH_ADD(hh, w->file_hash, oid.b, sizeof f->oid.b, f);
    return list_add((void ***)&w->files, &w->file_count, &w->file_cap, f);
}

static struct slice name_key(struct oid parent, struct slice name, uint8_t *out)
{
    size_t len = MIN(name.len, (size_t)LIMIT_NAME_BYTES);
    memcpy(out, parent.b, sizeof parent.b);
    memcpy(out + sizeof parent.b, name.ptr, len);
    return slice_of(out, sizeof parent.b + len);
}

struct unsent_name *unsent_name_find(const struct unsent *w, struct oid parent, struct slice name)
{
    uint8_t bytes[sizeof parent.b + LIMIT_NAME_BYTES];
    struct unsent_name *n = NULL;
    struct slice key = name_key(parent, name, bytes);
    HASH_FIND(hh, w->name_hash, key.ptr, key.len, n);
    return n;
}

struct unsent_name *unsent_name(struct unsent *w, struct oid parent, struct slice name)
{
    uint8_t bytes[sizeof parent.b + LIMIT_NAME_BYTES];
    struct unsent_name *n = unsent_name_find(w, parent, name);
    if (n != NULL)
        return n;
    n = op_alloc(&w->arena, sizeof *n);
    n->parent = parent;
    n->key = op_dup(&w->arena, name_key(parent, name, bytes));
    n->name = slice_of(n->key.ptr + sizeof parent.b, n->key.len - sizeof parent.b);
    HASH_ADD_KEYPTR(hh, w->name_hash, n->key.ptr, n->key.len, n);
    return list_add((void ***)&w->names, &w->name_count, &w->name_cap, n);
}

void unsent_deinit(struct unsent *w)
{
    HASH_CLEAR(hh, w->dir_hash);
    HASH_CLEAR(hh, w->name_hash);
    HASH_CLEAR(hh, w->file_hash);
    mem_free(w->dirs);
    mem_free(w->names);
    mem_free(w->files);
    op_arena_deinit(&w->arena);
    memset(w, 0, sizeof *w);
}

uint64_t unsent_digest(const struct content *c)
{
    uint8_t hash[HASH_BYTES];
    crypto_generichash_state st;
    uint64_t head[3] = {(uint64_t)c->kind, c->size, c->block_bytes}, digest;
    int rc = crypto_generichash_init(&st, NULL, 0, sizeof hash);
    rc |= crypto_generichash_update(&st, (const uint8_t *)head, sizeof head);
    if (c->kind == CONTENT_MANIFEST)
        rc |= crypto_generichash_update(&st, c->root, sizeof c->root);
    else
        rc |= crypto_generichash_update(&st, c->bytes.ptr, c->bytes.len);
    rc |= crypto_generichash_final(&st, hash, sizeof hash);
    ASSERT(rc == 0);
    memcpy(&digest, hash, sizeof digest);
    return digest;
}

/* ---- writing ---- */

/* oid_valid refuses none, and a dot's fields may all be zero: both are written as nil then. */
static void put_oid(struct buf *b, struct oid o)
{
    if (oid_is_none(o))
        mp_nil(b);
    else
        mp_oid(b, o);
}

static void put_dot(struct buf *b, struct dot d)
{
    if (dot_is_none(d))
        mp_nil(b);
    else
        mp_dot(b, d);
}

static void put_stamp(struct buf *b, struct stamp s)
{
    if (s.site == 0)
        mp_nil(b);
    else
        mp_stamp(b, s);
}

static void put_regs(struct buf *b, const struct reg *regs, uint32_t count)
{
    mp_array(b, 4 * count);
    for (uint32_t i = 0; i < count; i++) {
        mp_bin(b, regs[i].key);
        put_stamp(b, regs[i].stamp);
        mp_bool(b, regs[i].present);
        mp_bin(b, regs[i].value);
    }
}

static void put_content(struct buf *b, const struct content *c)
{
    bool manifest = c->kind == CONTENT_MANIFEST;
    mp_array(b, 5);
    mp_uint(b, (uint64_t)c->kind);
    mp_uint(b, c->size);
    mp_uint(b, c->block_bytes);
    mp_uint(b, c->data_blocks);
    mp_bin(b, manifest ? slice_of(c->root, sizeof c->root) : c->bytes);
}

static void put_dir(struct buf *b, const struct unsent_dir *d)
{
    mp_array(b, FIELDS_DIR);
    mp_oid(b, d->oid);
    put_oid(b, d->parent);
    mp_bin(b, d->name);
    mp_bool(b, d->alive);
    mp_bool(b, d->moved);
    put_dot(b, d->last);
    mp_bin(b, d->perm);
    put_stamp(b, d->perm_stamp);
    put_regs(b, d->regs, d->reg_count);
}

static void put_name(struct buf *b, const struct unsent_name *n)
{
    mp_array(b, FIELDS_NAME);
    mp_oid(b, n->parent);
    mp_bin(b, n->name);
    put_oid(b, n->ours);
    mp_array(b, 2 * n->known_count);
    for (uint32_t i = 0; i < n->known_count; i++) {
        mp_oid(b, n->known[i].oid);
        put_dot(b, n->known[i].version);
    }
    put_dot(b, n->last);
    mp_uint(b, n->order);
}

static void put_file(struct buf *b, const struct unsent_file *f)
{
    mp_array(b, FIELDS_FILE);
    mp_oid(b, f->oid);
    mp_bool(b, f->there);
    mp_bool(b, f->born);
    mp_bool(b, f->written);
    put_dot(b, f->base);
    put_dot(b, f->version);
    put_stamp(b, f->stamp);
    put_content(b, &f->content);
    mp_int(b, f->mtime_ns);
    mp_array(b, 2 * f->chain_count);
    for (uint32_t i = 0; i < f->chain_count; i++) {
        mp_dot(b, f->chain[i].dot);
        mp_uint(b, f->chain[i].digest);
    }
    put_dot(b, f->last);
    mp_bin(b, f->perm);
    put_stamp(b, f->perm_stamp);
    put_regs(b, f->regs, f->reg_count);
}

void unsent_encode(const struct unsent *w, struct buf *out)
{
    uint8_t hash[HASH_BYTES];
    buf_append(out, magic, sizeof magic);
    mp_array(out, LISTS);
    mp_array(out, w->dir_count);
    for (uint32_t i = 0; i < w->dir_count; i++)
        put_dir(out, w->dirs[i]);
    mp_array(out, w->name_count);
    for (uint32_t i = 0; i < w->name_count; i++)
        put_name(out, w->names[i]);
    mp_array(out, w->file_count);
    for (uint32_t i = 0; i < w->file_count; i++)
        put_file(out, w->files[i]);
    mp_array(out, w->sent_count);
    for (uint32_t i = 0; i < w->sent_count; i++)
        mp_uint(out, w->sent[i]);
    mp_array(out, 2 * w->member_count);
    for (uint32_t i = 0; i < w->member_count; i++) {
        mp_uint(out, w->members[i].site);
        mp_bin(out, w->members[i].record);
    }
    mp_array(out, 2 * w->member_count);
    for (uint32_t i = 0; i < w->member_count; i++) {
        mp_uint(out, w->members[i].why);
        put_stamp(out, w->members[i].left);
    }
    int rc = crypto_generichash(hash, sizeof hash, out->ptr, out->len, NULL, 0);
    ASSERT(rc == 0);
    buf_append(out, hash, sizeof hash);
}

/* ---- reading ---- */

static bool get_nil(struct mp *in)
{
    if (mp_peek(in) != MP_NIL)
        return false;
    mp_get_nil(in);
    return true;
}

static struct oid get_oid(struct mp *in)
{
    return get_nil(in) ? (struct oid){{0}} : mp_get_oid(in);
}

static struct dot get_dot(struct mp *in)
{
    return get_nil(in) ? (struct dot){0} : mp_get_dot(in);
}

static struct stamp get_stamp(struct mp *in)
{
    return get_nil(in) ? (struct stamp){0} : mp_get_stamp(in);
}

static const struct reg *get_regs(struct unsent *w, struct mp *in, uint32_t *ret_count)
{
    uint32_t count = mp_get_array(in, ITEMS_MAX) / 4;
    if (in->rc != 0 || count > (size_t)(in->end - in->at))
        count = 0;
    struct reg *regs = op_alloc(&w->arena, (count + 1) * sizeof *regs);
    for (uint32_t i = 0; i < count; i++) {
        regs[i].key = mp_get_bin(in, 1 + LIMIT_XATTR_NAME_BYTES);
        regs[i].stamp = get_stamp(in);
        regs[i].present = mp_get_bool(in);
        regs[i].value = mp_get_bin(in, LIMIT_XATTR_VALUE_BYTES);
    }
    *ret_count = count;
    return regs;
}

static void get_content(struct mp *in, struct content *c)
{
    mp_get_array(in, 5);
    uint64_t kind = mp_get_uint(in, CONTENT_MANIFEST);
    c->size = mp_get_uint(in, LIMIT_FILE_BYTES);
    c->block_bytes = (uint32_t)mp_get_uint(in, LIMIT_CHUNK_BYTES);
    c->data_blocks = mp_get_uint(in, UINT64_MAX);
    if (kind == CONTENT_MANIFEST) {
        struct slice root = mp_get_bin_exact(in, sizeof c->root);
        if (in->rc == 0)
            memcpy(c->root, root.ptr, sizeof c->root);
    } else {
        c->bytes = mp_get_bin(in, LIMIT_INLINE_BYTES);
    }
    c->kind = (enum content_kind)kind;
}

static struct slice get_name(struct mp *in)
{
    struct slice name = mp_get_bin(in, LIMIT_NAME_BYTES);
    if (in->rc == 0 && name.len > 0 && !name_valid(name))
        mp_fail(in, ERR_MALFORMED);
    return in->rc == 0 ? name : slice_of(NULL, 0);
}

static void get_dir(struct unsent *w, struct mp *in)
{
    mp_get_array(in, FIELDS_DIR);
    struct oid oid = mp_get_oid(in);
    if (in->rc != 0)
        return;
    struct unsent_dir *d = unsent_dir(w, oid);
    d->parent = get_oid(in);
    d->name = get_name(in);
    d->alive = mp_get_bool(in);
    d->moved = mp_get_bool(in);
    d->last = get_dot(in);
    d->perm = mp_get_bin(in, LIMIT_OP_BYTES);
    d->perm_stamp = get_stamp(in);
    d->regs = get_regs(w, in, &d->reg_count);
}

static void get_one_name(struct unsent *w, struct mp *in)
{
    mp_get_array(in, FIELDS_NAME);
    struct oid parent = mp_get_oid(in);
    struct slice name = get_name(in);
    if (in->rc != 0)
        return;
    struct unsent_name *n = unsent_name(w, parent, name);
    n->ours = get_oid(in);
    uint32_t count = mp_get_array(in, ITEMS_MAX) / 2;
    if (in->rc != 0 || count > (size_t)(in->end - in->at))
        count = 0;
    struct unsent_known *known = op_alloc(&w->arena, (count + 1) * sizeof *known);
    for (uint32_t i = 0; i < count; i++) {
        known[i].oid = mp_get_oid(in);
        known[i].version = get_dot(in);
    }
    n->known = known;
    n->known_count = count;
    n->last = get_dot(in);
    n->order = mp_get_uint(in, UINT64_MAX);
}

static void get_file(struct unsent *w, struct mp *in)
{
    mp_get_array(in, FIELDS_FILE);
    struct oid oid = mp_get_oid(in);
    if (in->rc != 0)
        return;
    struct unsent_file *f = unsent_file(w, oid);
    f->there = mp_get_bool(in);
    f->born = mp_get_bool(in);
    f->written = mp_get_bool(in);
    f->base = get_dot(in);
    f->version = get_dot(in);
    f->stamp = get_stamp(in);
    get_content(in, &f->content);
    f->mtime_ns = mp_get_int(in);
    uint32_t count = mp_get_array(in, ITEMS_MAX) / 2;
    if (in->rc != 0 || count > (size_t)(in->end - in->at))
        count = 0;
    struct unsent_version *chain = op_alloc(&w->arena, (count + 1) * sizeof *chain);
    for (uint32_t i = 0; i < count; i++) {
        chain[i].dot = mp_get_dot(in);
        chain[i].digest = mp_get_uint(in, UINT64_MAX);
    }
    f->chain = chain;
    f->chain_count = count;
    f->last = get_dot(in);
    f->perm = mp_get_bin(in, LIMIT_OP_BYTES);
    f->perm_stamp = get_stamp(in);
    f->regs = get_regs(w, in, &f->reg_count);
}

static void get_members(struct unsent *w, struct mp *in)
{
    uint32_t count = mp_get_array(in, 2 * SITE_COUNT_MAX) / 2;
    w->members = op_alloc(&w->arena, (count + 1) * sizeof *w->members);
    for (uint32_t i = 0; i < count && in->rc == 0; i++) {
        w->members[i].site = (site_id_t)mp_get_uint(in, UINT32_MAX);
        w->members[i].record = mp_get_bin(in, LIMIT_XATTR_VALUE_BYTES);
        w->member_count++;
    }
}

static void get_leaves(struct unsent *w, struct mp *in)
{
    if (mp_get_array(in, 2 * SITE_COUNT_MAX) != 2 * w->member_count)
        mp_fail(in, ERR_MALFORMED);
    for (uint32_t i = 0; i < w->member_count && in->rc == 0; i++) {
        w->members[i].why = (uint8_t)mp_get_uint(in, LEAVES_AWAY);
        w->members[i].left = get_stamp(in);
    }
}

int unsent_decode(struct slice s, struct unsent *ret)
{
    uint8_t hash[HASH_BYTES];
    memset(ret, 0, sizeof *ret);
    if (s.len < sizeof magic + HASH_BYTES)
        return ERR_TRUNCATED;
    size_t len = s.len - HASH_BYTES;
    int rc = crypto_generichash(hash, sizeof hash, s.ptr, len, NULL, 0);
    ASSERT(rc == 0);
    if (memcmp(s.ptr, magic, sizeof magic) != 0 || memcmp(s.ptr + len, hash, sizeof hash) != 0)
        return ERR_CORRUPT;
    struct mp in = mp_of(slice_of(s.ptr + sizeof magic, len - sizeof magic));
    uint32_t lists = mp_get_array(&in, LISTS);
    for (uint32_t count = mp_get_array(&in, ITEMS_MAX); count > 0 && in.rc == 0; count--)
        get_dir(ret, &in);
    for (uint32_t count = mp_get_array(&in, ITEMS_MAX); count > 0 && in.rc == 0; count--)
        get_one_name(ret, &in);
    for (uint32_t count = mp_get_array(&in, ITEMS_MAX); count > 0 && in.rc == 0; count--)
        get_file(ret, &in);
    ret->sent_count = lists > LISTS_SENT ? mp_get_array(&in, SHARD_COUNT_MAX) : 0;
    for (uint32_t i = 0; i < ret->sent_count && in.rc == 0; i++)
        ret->sent[i] = mp_get_uint(&in, UINT64_MAX);
    if (lists > LISTS_MEMBERS)
        get_members(ret, &in);
    if (lists > LISTS_LEAVES)
        get_leaves(ret, &in);
    return mp_end(&in);
}
