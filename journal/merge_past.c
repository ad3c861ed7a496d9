/* Past versions (merge_past.h).
 *
 *   h oid ~gone_hlc dot              a version: newest first
 *   n parent name 00 ~gone_hlc oid   what a name meant; no value */
#include "journal/merge_past.h"

#include <endian.h>

#include "journal/merge_int.h"

enum {
    VERSION_KEY_BYTES = 1 + 16 + 8 + 2 + 4 + 8,
    PERM_PRESENT = 4,
    HOUR_MS = 3600 * 1000,
    DAY_MS = 24 * HOUR_MS
};

static void put_be(struct buf *b, uint64_t v, int bytes)
{
    v = htobe64(v << (64 - 8 * bytes));
    buf_append(b, &v, (size_t)bytes);
}

static uint64_t get_be(const uint8_t *at, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v = v << 8 | at[i];
    return v;
}

void merge_past_enable(struct merge *m, bool enabled)
{
    m->past_off = !enabled;
}

/* ---- making records ---- */

static void past_encode(const struct past *p, struct buf *out)
{
    enc_u8(out, (uint8_t)((unsigned)p->why | (p->perm.len > 0 ? PERM_PRESENT : 0u)));
    enc_stamp(out, p->stamp);
    enc_stamp(out, p->gone);
    enc_u64(out, (uint64_t)p->mtime_ns);
    enc_oid(out, p->parent);
    enc_bytes(out, p->name);
    content_encode(&p->content, out);
    if (p->perm.len > 0)
        enc_bytes(out, p->perm);
}

static int past_decode(struct slice key, struct slice value, struct past *ret)
{
    struct dec d = dec_of(value);
    struct past p = {.why = PAST_REPLACED};
    if (key.len != VERSION_KEY_BYTES)
        return ERR_CORRUPT;
    memcpy(p.oid.b, key.ptr + 1, sizeof p.oid.b);
    p.gone_hlc = ~get_be(key.ptr + 17, 8);
    p.dot.shard = (shard_id_t)get_be(key.ptr + 25, 2);
    p.dot.site = (site_id_t)get_be(key.ptr + 27, 4);
    p.dot.seq = get_be(key.ptr + 31, 8);
    uint8_t flags = dec_u8(&d);
    p.why = (flags & ~PERM_PRESENT) == PAST_REMOVED ? PAST_REMOVED : PAST_REPLACED;
    p.stamp = dec_stamp(&d);
    p.gone = dec_stamp(&d);
    p.mtime_ns = (int64_t)dec_u64(&d);
    p.parent = dec_oid(&d);
    p.name = dec_bytes(&d, LIMIT_NAME_BYTES);
    p.content = content_decode(&d);
    if (flags & PERM_PRESENT)
        p.perm = dec_bytes(&d, LIMIT_OP_BYTES);
    if ((flags & ~PERM_PRESENT) != p.why || dec_end(&d) != 0)
        return ERR_CORRUPT;
    *ret = p;
    return 0;
}

void past_version(struct merge *m,
                  const struct op *op,
                  const struct file_rec *f,
                  const struct ver *v,
                  enum past_why why)
{
    struct past p = {.stamp = v->stamp, .mtime_ns = v->mtime_ns, .content = v->content, .why = why};
    if (v->content.size == 0 || (m->past_off && v->content.kind != CONTENT_MANIFEST))
        return;
    p.gone = op->stamp;
    if (f->perm.present)
        p.perm = f->perm.value;
    if (f->ref_count > 0) {
        p.parent = f->refs[0].parent;
        p.name = f->refs[0].name;
    } else if (!stamp_is_none(f->last_stamp)) {
        p.parent = f->last_parent;
        p.name = f->last_name;
    }
    buf_clear(&m->value);
    past_encode(&p, &m->value);
    (void)key_oid(m, KEY_PAST, f->oid); /* it is m->key, which goes on */
    put_be(&m->key, ~m->hlc_max, 8);
    put_be(&m->key, v->dot.shard, 2);
    put_be(&m->key, v->dot.site, 4);
    put_be(&m->key, v->dot.seq, 8);
    work_put(m, buf_slice(&m->key), buf_slice(&m->value));
}

void past_name(struct merge *m, struct oid parent, struct slice name, struct oid oid)
{
    if (m->past_off)
        return;
    (void)key_name(m, KEY_PAST_NAME, parent, name); /* it is m->key, which goes on */
    enc_u8(&m->key, 0);
    put_be(&m->key, ~m->hlc_max, 8);
    enc_oid(&m->key, oid);
    work_put(m, buf_slice(&m->key), slice_of(NULL, 0));
}

/* Directories that a slot had and has no more. */
void past_slot(struct merge *m, const struct slot *s)
{
    for (uint32_t i = 0; i < s->before_count && s->before_dirs > 0; i++) {
        bool here = !oid_is_dir(s->before[i].oid);
        for (uint32_t k = 0; k < s->dir_count && !here; k++)
            here = oid_equal(s->dirs[k].oid, s->before[i].oid);
        if (!here)
            past_name(m, s->parent, s->name, s->before[i].oid);
    }
}

/* ---- reading ---- */

int merge_past(struct merge *m,
               struct oid oid,
               bool (*fn)(void *ctx, const struct past *p),
               void *ctx)
{
    struct state_scan it;
    struct past p;
    bool more = true;
    int rc = work_health(m);
    if (rc != 0)
        return rc;
    state_scan_begin(m->state, &it, key_oid(m, KEY_PAST, oid), slice_of(NULL, 0));
    while (more && rc == 0 && state_scan_next(&it)) {
        rc = past_decode(it.key, it.value, &p);
        if (rc == 0)
            more = fn(ctx, &p);
    }
    state_scan_end(&it);
    return rc != 0 ? rc : work_health(m);
}

int merge_past_names(struct merge *m,
                     struct oid parent,
                     struct slice name,
                     bool (*fn)(void *ctx, struct oid oid, uint64_t gone_hlc),
                     void *ctx)
{
    struct state_scan it;
    bool more = true;
    int rc = work_health(m);
    if (rc != 0)
        return rc;
    (void)key_name(m, KEY_PAST_NAME, parent, name); /* it is m->key, which goes on */
    enc_u8(&m->key, 0);
    size_t head = m->key.len;
    state_scan_begin(m->state, &it, buf_slice(&m->key), slice_of(NULL, 0));
    while (more && rc == 0 && state_scan_next(&it)) {
        struct oid oid;
        if (it.key.len != head + 8 + sizeof oid.b) {
            rc = ERR_CORRUPT;
            break;
        }
        memcpy(oid.b, it.key.ptr + head + 8, sizeof oid.b);
        more = fn(ctx, oid, ~get_be(it.key.ptr + head, 8));
    }
    state_scan_end(&it);
    return rc != 0 ? rc : work_health(m);
}

int merge_past_contents(struct merge *m,
                        struct buf *cursor,
                        uint32_t budget,
                        bool (*fn)(void *ctx, struct oid oid, const struct content *c),
                        void *ctx)
{
    uint8_t type = KEY_PAST;
    struct state_scan it;
    bool more = true, end = false;
    int rc = work_health(m);
    if (rc != 0)
        return rc;
    state_scan_begin(m->state, &it, slice_of(&type, 1), buf_slice(cursor));
    while (more && rc == 0 && budget > 0) {
        struct past p;
        end = !state_scan_next(&it);
        if (end)
            break;
        if (slice_equal(it.key, buf_slice(cursor)))
            continue;
        buf_clear(cursor);
        buf_append(cursor, it.key.ptr, it.key.len);
        rc = past_decode(it.key, it.value, &p);
        if (rc == 0)
            more = fn(ctx, p.oid, &p.content);
        budget--;
    }
    state_scan_end(&it);
    if (end)
        buf_clear(cursor);
    return rc != 0 ? rc : work_health(m);
}

/* ---- dropping ---- */

void past_walk_deinit(struct past_walk *w)
{
    buf_deinit(&w->cursor);
    *w = (struct past_walk){.count = 0};
}

static bool is_expired(uint64_t gone_hlc, const struct past_limits *l)
{
    return l->keep_ms == 0 /* whatever the clocks say */ ||
           (hlc_ms(l->now_hlc) > hlc_ms(gone_hlc) &&
            hlc_ms(l->now_hlc) - hlc_ms(gone_hlc) > l->keep_ms);
}

/* Versions of a file come newest first: beyond the newest few, the newest of each hour stays, and
 * after a day that of each day. What a removal left is not thinned: it is the last there was. */
static bool is_surplus(struct past_walk *w, const struct past *p, uint64_t now_hlc)
{
    if (!oid_equal(w->oid, p->oid)) {
        w->oid = p->oid;
        w->kept = 0;
        w->slot = UINT64_MAX;
    }
    if (p->why == PAST_REMOVED || w->kept++ < PAST_NEWEST)
        return false;
    uint64_t gone_ms = hlc_ms(p->gone_hlc);
    bool old = hlc_ms(now_hlc) > gone_ms + DAY_MS;
    uint64_t slot = gone_ms / (old ? DAY_MS : HOUR_MS) * 2 + old;
    bool surplus = slot == w->slot;
    w->slot = slot;
    return surplus;
}

static bool past_goes(struct past_walk *w,
                      const struct state_scan *it,
                      const struct past_limits *l,
                      int *ret_rc)
{
    struct past p;
    if (it->key.ptr[0] == KEY_PAST_NAME) {
        if (it->key.len < 1 + 16 + 1 + 1 + 8 + 16) {
            *ret_rc = ERR_CORRUPT;
            return false;
        }
        uint64_t gone = ~get_be(it->key.ptr + it->key.len - 24, 8);
        return is_expired(gone, l);
    }
    *ret_rc = past_decode(it->key, it->value, &p);
    if (*ret_rc != 0)
        return false;
    bool expired = is_expired(p.gone_hlc, l);
    bool waits = expired && p.content.kind == CONTENT_MANIFEST && p.gone_hlc > l->stable_hlc;
    if ((expired && !waits) || is_surplus(w, &p, l->now_hlc))
        return true;
    if (waits)
        w->wait = MAX(w->wait, p.gone_hlc);
    w->count++;
    w->bytes += p.content.size;
    return false;
}

/* The end of one kind of keys: on with the other, or a round is over. */
static void walk_on(struct past_walk *w, uint8_t type)
{
    buf_clear(&w->cursor);
    w->oid = OID_ROOT; /* no file has it */
    if (type == KEY_PAST) {
        enc_u8(&w->cursor, KEY_PAST_NAME);
        return;
    }
    w->waits = w->wait;
    w->wait = 0;
    w->counts = w->count;
    w->sizes = w->bytes;
    w->count = w->bytes = 0;
    w->rounds++;
}

int merge_past_collect(struct merge *m,
                       struct past_walk *w,
                       const struct past_limits *limits,
                       uint32_t budget)
{
    struct op_arena arena = {.head = NULL};
    struct slice *gone = NULL;
    uint32_t count = 0, cap = 0;
    uint8_t type = w->cursor.len > 0 ? w->cursor.ptr[0] : KEY_PAST;
    struct state_scan it;
    bool end = false;
    int rc = work_health(m);
    if (rc != 0)
        return rc;
    state_scan_begin(m->state, &it, slice_of(&type, 1), buf_slice(&w->cursor));
    while (rc == 0 && budget > 0 && !(end = !state_scan_next(&it))) {
        if (slice_equal(it.key, buf_slice(&w->cursor)))
            continue;
        buf_clear(&w->cursor);
        buf_append(&w->cursor, it.key.ptr, it.key.len);
        if (past_goes(w, &it, limits, &rc)) {
            gone = array_grow(&arena, gone, count, &cap, sizeof *gone);
            gone[count++] = op_dup(&arena, it.key);
        }
        budget--;
    }
    state_scan_end(&it);
    if (end)
        walk_on(w, type);
    rc = rc != 0 ? rc : work_health(m);
    for (uint32_t i = 0; i < count && rc == 0; i++)
        state_del(m->state, gone[i]);
    op_arena_deinit(&arena);
    return rc;
}
