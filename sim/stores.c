/* The lower layers that are RocksDB in production, kept on the simulated disk.
 *
 * State of a shard: each write makes a new version, sorted pairs in leaves, and shares the leaves
 * that it does not touch with the one before; iterators keep the version they began with. A write
 * is atomic and durable at once, as a flushed RocksDB batch is. Index of the chunk store: written
 * to freely, durable when flushed; a crash goes back to the last flush, as RocksDB without its
 * write-ahead log does. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "data/store_index.h"
#include "journal/state.h"
#include "sim/disk_int.h"
#include "sim/loop_sim.h"

#define LEAF_PAIRS_MAX 128u

/* ---- the state ---- */

struct pair {
    uint32_t refs;
    uint32_t hash; /* of the key */
    bool rotten;   /* its checksum is wrong */
    uint32_t key_len, value_len;
    uint8_t bytes[]; /* key, value */
};
struct leaf {
    uint32_t refs, count; /* count > 0 */
    struct pair *pairs[];
};
struct version {
    uint32_t refs;
    uint64_t index;
    size_t count;
    struct leaf *leaves[];
};
struct state_twin {
    struct disk_blob *blob; /* its value: the durable version */
    struct disk *disk;
    struct version *now;
    /* The pairs of `now` by hash, borrowed: open addressing, NULL is empty. */
    struct state_slot {
        uint32_t hash; /* of the pair, which need not be looked at where it differs */
        struct pair *pair;
    } * slots;
    size_t slot_count, mask;
};
struct place { /* of a pair */
    size_t leaf, at;
};
struct state_twin_iter {
    struct disk *disk;
    struct version *v;
    struct place place;
    int rc;
};

static struct slice pair_key(const struct pair *p)
{
    return slice_of(p->bytes, p->key_len);
}

static void pair_unref(struct pair *p)
{
    if (--p->refs == 0)
        mem_free(p);
}

static void leaf_unref(struct leaf *l)
{
    if (--l->refs > 0)
        return;
    for (uint32_t i = 0; i < l->count; i++)
        pair_unref(l->pairs[i]);
    mem_free(l);
}

static void version_unref(void *value)
{
    struct version *v = value;
    if (v == NULL || --v->refs > 0)
        return;
    for (size_t i = 0; i < v->count; i++)
        leaf_unref(v->leaves[i]);
    mem_free(v);
}

/* The first pair that is not below the key; its leaf may be one too far. */
static struct place version_find(const struct version *v, struct slice key)
{
    size_t low = 0, high = v->count; /* the last leaf that begins at or below the key, plus 1 */
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (slice_cmp(pair_key(v->leaves[mid]->pairs[0]), key) <= 0)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == 0)
        return (struct place){.leaf = 0};
    const struct leaf *l = v->leaves[low - 1];
    size_t from = 0, to = l->count;
    while (from < to) {
        size_t mid = (from + to) / 2;
        if (slice_cmp(pair_key(l->pairs[mid]), key) < 0)
            from = mid + 1;
        else
            to = mid;
    }
    return from < l->count ? (struct place){.leaf = low - 1, .at = from}
                           : (struct place){.leaf = low};
}

static const struct pair *pair_at(const struct version *v, struct place p)
{
    return p.leaf < v->count ? v->leaves[p.leaf]->pairs[p.at] : NULL;
}

/* --- keys by hash --- */

static uint32_t key_hash(struct slice key)
{
    uint64_t h = fnv1a(key);
    return (uint32_t)(h ^ h >> 32);
}

/* Where the key is, or the empty slot in which it would be. */
static size_t slot_find(const struct state_twin *t, uint32_t hash, struct slice key)
{
    size_t at = hash & t->mask;
    while (t->slots[at].pair != NULL &&
           (t->slots[at].hash != hash || !slice_equal(pair_key(t->slots[at].pair), key)))
        at = (at + 1) & t->mask;
    return at;
}

static void slot_put(struct state_twin *t, struct pair *p)
{
    if (2 * (t->slot_count + 1) > t->mask) {
        struct state_slot *old = t->slots;
        size_t size = t->slots != NULL ? t->mask + 1 : 0;
        t->mask = MAX(2 * size, 64u) - 1;
        t->slots = mem_calloc(t->mask + 1, sizeof t->slots[0]);
        for (size_t i = 0; i < size; i++)
            if (old[i].pair != NULL)
                t->slots[slot_find(t, old[i].hash, pair_key(old[i].pair))] = old[i];
        mem_free(old);
    }
    size_t at = slot_find(t, p->hash, pair_key(p));
    t->slot_count += t->slots[at].pair == NULL;
    t->slots[at] = (struct state_slot){.hash = p->hash, .pair = p};
}

/* What follows without a gap moves up, so that it is found. */
static void slot_remove(struct state_twin *t, struct slice key)
{
    size_t gap = t->slots != NULL ? slot_find(t, key_hash(key), key) : 0;
    if (t->slots == NULL || t->slots[gap].pair == NULL)
        return;
    t->slot_count--;
    t->slots[gap].pair = NULL;
    for (size_t at = (gap + 1) & t->mask; t->slots[at].pair != NULL; at = (at + 1) & t->mask) {
        const struct state_slot s = t->slots[at];
        t->slots[at].pair = NULL;
        t->slots[slot_find(t, s.hash, pair_key(s.pair))] = s;
    }
}

static int twin_get(void *ctx, struct slice key, struct buf *ret_value, bool *ret_found)
{
    const struct state_twin *t = ctx;
    if (!disk_is_ghost(t->disk) && disk_fails(t->disk, DISK_READ))
        return ERR_IO;
    const struct pair *p =
        t->slots != NULL ? t->slots[slot_find(t, key_hash(key), key)].pair : NULL;
    if (p != NULL && p->rotten && !disk_is_ghost(t->disk) && !disk_calm)
        return ERR_CORRUPT;
    *ret_found = p != NULL;
    if (p != NULL) {
        buf_clear(ret_value);
        buf_append(ret_value, p->bytes + p->key_len, p->value_len);
    }
    return 0;
}

static void *twin_iter_new(void *ctx, struct slice seek, struct slice end)
{
    (void)end;
    struct state_twin *t = ctx;
    struct state_twin_iter *it = mem_calloc(1, sizeof *it);
    it->disk = t->disk;
    it->v = t->now;
    it->v->refs++;
    it->place = version_find(it->v, seek);
    it->rc = !disk_is_ghost(t->disk) && disk_fails(t->disk, DISK_READ) ? ERR_IO : 0;
    return it;
}

static bool twin_iter_at(void *iter, struct slice *ret_key, struct slice *ret_value)
{
    struct state_twin_iter *it = iter;
    const struct pair *p = it->rc != 0 ? NULL : pair_at(it->v, it->place);
    if (p != NULL && p->rotten && !disk_is_ghost(it->disk) && !disk_calm)
        it->rc = ERR_CORRUPT;
    if (p == NULL || it->rc != 0)
        return false;
    *ret_key = pair_key(p);
    *ret_value = slice_of(p->bytes + p->key_len, p->value_len);
    return true;
}

static void twin_iter_next(void *iter)
{
    struct state_twin_iter *it = iter;
    if (++it->place.at == it->v->leaves[it->place.leaf]->count)
        it->place = (struct place){.leaf = it->place.leaf + 1};
}

static int twin_iter_free(void *iter)
{
    struct state_twin_iter *it = iter;
    int rc = it->rc;
    version_unref(it->v);
    mem_free(it);
    return rc;
}

static struct pair *pair_new(struct slice key, struct slice value)
{
    struct pair *p = mem_alloc(sizeof *p + key.len + value.len);
    p->refs = 1;
    p->rotten = false;
    p->hash = key_hash(key);
    p->key_len = (uint32_t)key.len;
    p->value_len = (uint32_t)value.len;
    memcpy(p->bytes, key.ptr, key.len);
    if (value.len > 0)
        memcpy(p->bytes + key.len, value.ptr, value.len);
    return p;
}

/* A version that is being put together, leaf by leaf. */
struct build {
    struct state_twin *t;
    struct version *v;
    size_t cap;
    struct pair **pairs; /* of the leaves that are being changed */
    size_t pair_count, pair_cap;
};

static void build_leaf(struct build *b, struct leaf *l /* a reference, taken */)
{
    if (b->v->count == b->cap) {
        b->cap = b->cap * 2 + 64;
        b->v = mem_realloc(b->v, sizeof *b->v + b->cap * sizeof b->v->leaves[0]);
    }
    b->v->leaves[b->v->count++] = l;
}

static void build_pair(struct build *b, struct pair *p /* a reference, taken */)
{
    if (b->pair_count == b->pair_cap) {
        b->pair_cap = b->pair_cap * 2 + 64;
        b->pairs = mem_realloc(b->pairs, b->pair_cap * sizeof b->pairs[0]);
    }
    b->pairs[b->pair_count++] = p;
}

static void
build_old(struct build *b, const struct leaf *l, uint32_t *at, const struct slice *below)
{
    for (; *at < l->count; (*at)++) {
        struct pair *p = l->pairs[*at];
        if (below != NULL && slice_cmp(pair_key(p), *below) >= 0)
            return;
        p->refs++;
        build_pair(b, p);
    }
}

/* What was collected becomes leaves of equal size. */
static void build_cut(struct build *b)
{
    size_t pieces = (b->pair_count + LEAF_PAIRS_MAX - 1) / LEAF_PAIRS_MAX;
    for (size_t i = 0; i < pieces; i++) {
        size_t from = b->pair_count * i / pieces, to = b->pair_count * (i + 1) / pieces;
        struct leaf *l = mem_alloc(sizeof *l + (to - from) * sizeof l->pairs[0]);
        *l = (struct leaf){.refs = 1, .count = (uint32_t)(to - from)};
        memcpy(l->pairs, b->pairs + from, (to - from) * sizeof l->pairs[0]);
        build_leaf(b, l);
    }
    b->pair_count = 0;
}

struct change { /* of a write: the next one */
    bool (*next)(void *, struct slice *, struct slice *, bool *);
    void *ctx;
    struct slice key, value;
    bool is_delete, is_there;
};

static void change_step(struct change *c)
{
    c->is_there = c->next(c->ctx, &c->key, &c->value, &c->is_delete);
}

static void change_put(struct change *c, struct build *b)
{
    if (c->is_delete) {
        slot_remove(b->t, c->key);
    } else {
        struct pair *p = pair_new(c->key, c->value);
        slot_put(b->t, p);
        build_pair(b, p);
    }
    change_step(c);
}

/* The changes below `end` (NULL: all that are left) into a leaf. */
static void
leaf_change(struct build *b, const struct leaf *l, struct change *c, const struct slice *end)
{
    uint32_t at = 0;
    while (c->is_there && (end == NULL || slice_cmp(c->key, *end) < 0)) {
        build_old(b, l, &at, &c->key);
        if (at < l->count && slice_equal(pair_key(l->pairs[at]), c->key))
            at++;
        change_put(c, b);
    }
    build_old(b, l, &at, NULL);
    build_cut(b);
}

/* Flushing needs room, and a disk that takes it; then all of it is there or nothing. */
static int write_trouble(struct disk *d, struct err_detail *detail)
{
    int rc = disk_fails(d, DISK_WRITE) || disk_fails(d, DISK_SYNC) ? ERR_IO
             : disk_lacks_room(d)                                  ? ERR_NO_SPACE
                                                                   : 0;
    if (rc != 0)
        err_detail_set(detail, "the state cannot be written: %s", err_text(rc));
    return rc;
}

static int twin_write(void *ctx,
                      uint64_t index,
                      bool (*next)(void *, struct slice *, struct slice *, bool *),
                      void *nctx,
                      struct err_detail *detail)
{
    struct state_twin *t = ctx;
    const struct version *old = t->now;
    struct build b = {.t = t, .cap = old->count + 64};
    struct change c = {.next = next, .ctx = nctx};
    disk_step_few(t->disk);
    int rc = disk_is_ghost(t->disk) ? 0 : write_trouble(t->disk, detail);
    if (rc != 0)
        return rc;
    b.v = mem_alloc(sizeof *b.v + b.cap * sizeof b.v->leaves[0]);
    *b.v = (struct version){.refs = 1, .index = index};
    change_step(&c);
    for (size_t i = 0; i < old->count; i++) {
        struct leaf *l = old->leaves[i];
        bool last = i + 1 == old->count;
        struct slice end = last ? slice_of(NULL, 0) : pair_key(old->leaves[i + 1]->pairs[0]);
        if (c.is_there && (last || slice_cmp(c.key, end) < 0)) {
            leaf_change(&b, l, &c, last ? NULL : &end);
        } else {
            l->refs++;
            build_leaf(&b, l);
        }
    }
    while (c.is_there) /* there was nothing before */
        change_put(&c, &b);
    build_cut(&b);
    mem_free(b.pairs);
    version_unref(t->now);
    t->now = b.v;
    if (!disk_is_ghost(t->disk)) {
        b.v->refs++;
        version_unref(t->blob->value);
        t->blob->value = b.v;
    }
    return 0;
}

static uint64_t twin_index(void *ctx)
{
    return ((struct state_twin *)ctx)->now->index;
}

static void twin_close(void *ctx)
{
    struct state_twin *t = ctx;
    version_unref(t->now);
    mem_free(t->slots);
    mem_free(t);
}

bool stores_rot(struct disk *d)
{
    struct disk_blob *blobs = disk_blobs(d);
    size_t count = 0;
    for (int pass = 0; pass < 2; pass++) {
        size_t pick = pass == 0 || count == 0 ? 0 : rng_below(&sched->rng, count);
        for (struct disk_blob *b = blobs; b != NULL; b = b->next) {
            const struct version *v = b->value;
            if (strstr(b->path, "/state") == NULL)
                continue;
            for (size_t i = 0; v != NULL && i < v->count; i++) {
                if (pass == 0) {
                    count += v->leaves[i]->count;
                } else if (pick < v->leaves[i]->count) {
                    v->leaves[i]->pairs[pick]->rotten = true;
                    return true;
                } else {
                    pick -= v->leaves[i]->count;
                }
            }
        }
    }
    return false;
}

static const struct state_store_ops twin_ops = {.get = twin_get,
                                                .iter_new = twin_iter_new,
                                                .iter_at = twin_iter_at,
                                                .iter_next = twin_iter_next,
                                                .iter_free = twin_iter_free,
                                                .write = twin_write,
                                                .index = twin_index,
                                                .close = twin_close};

int state_store_rocks_open(struct state_store *ret,
                           const char *dir,
                           size_t cache_bytes,
                           struct err_detail *detail)
{
    (void)cache_bytes;
    (void)detail;
    struct state_twin *t = mem_calloc(1, sizeof *t);
    (void)disk_mkdir(dir); /* it may be there */
    t->blob = disk_blob(dir, true);
    t->disk = disk_of_path(dir);
    if (t->blob->value == NULL) {
        struct version *v = mem_calloc(1, sizeof *v);
        v->refs = 1;
        t->blob->value = v;
        t->blob->free = version_unref;
    }
    t->now = t->blob->value;
    t->now->refs++;
    for (size_t i = 0; i < t->now->count; i++)
        for (uint32_t k = 0; k < t->now->leaves[i]->count; k++)
            slot_put(t, t->now->leaves[i]->pairs[k]);
    *ret = (struct state_store){.ops = &twin_ops, .ctx = t};
    return 0;
}

/* ---- the chunk index ---- */

struct index_row {
    struct chunk_id id;
    struct store_entry entry;
};
struct index_stat_row {
    uint64_t segment;
    struct segment_stat stat;
};
struct table {
    struct index_row *rows; /* by id */
    size_t count, cap;
    struct index_stat_row *stats; /* by segment */
    size_t stat_count, stat_cap;
    struct index_meta meta;
    bool has_meta;
};
struct index {
    struct disk_blob *blob; /* its value: the table as flushed */
    struct disk *disk;
    struct table now;
};
struct index_change {
    enum {
        CHANGE_PUT,
        CHANGE_DELETE,
        CHANGE_STAT,
        CHANGE_STAT_DELETE,
        CHANGE_META
    } kind;
    struct index_row row;
    struct index_stat_row stat;
    struct index_meta meta;
};
struct index_batch {
    struct index_change *at;
    size_t count, cap;
};

static void table_deinit(struct table *t)
{
    mem_free(t->rows);
    mem_free(t->stats);
    memset(t, 0, sizeof *t);
}

static void table_free(void *value)
{
    table_deinit(value);
    mem_free(value);
}

static void table_copy(struct table *to, const struct table *from)
{
    table_deinit(to);
    *to = *from;
    to->cap = from->count;
    to->stat_cap = from->stat_count;
    to->rows = from->count > 0 ? mem_dup(from->rows, from->count * sizeof from->rows[0]) : NULL;
    to->stats = from->stat_count > 0
                    ? mem_dup(from->stats, from->stat_count * sizeof from->stats[0])
                    : NULL;
}

static size_t row_find(const struct table *t, const struct chunk_id *id, bool *ret_there)
{
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (memcmp(t->rows[mid].id.b, id->b, sizeof id->b) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *ret_there = low < t->count && memcmp(t->rows[low].id.b, id->b, sizeof id->b) == 0;
    return low;
}

static size_t stat_find(const struct table *t, uint64_t segment, bool *ret_there)
{
    size_t i = 0;
    while (i < t->stat_count && t->stats[i].segment < segment)
        i++;
    *ret_there = i < t->stat_count && t->stats[i].segment == segment;
    return i;
}

/* Room for one at `i` of `count` elements. */
static void *gap(void *array, size_t *cap, size_t count, size_t i, size_t size)
{
    if (count == *cap) {
        *cap = *cap * 2 + 16;
        array = mem_realloc(array, *cap * size);
    }
    memmove((char *)array + (i + 1) * size, (char *)array + i * size, (count - i) * size);
    return array;
}

static void change_apply(struct table *t, const struct index_change *c)
{
    bool there;
    size_t i = c->kind == CHANGE_PUT || c->kind == CHANGE_DELETE
                   ? row_find(t, &c->row.id, &there)
                   : stat_find(t, c->stat.segment, &there);
    switch (c->kind) {
    case CHANGE_PUT:
        if (!there) {
            t->rows = gap(t->rows, &t->cap, t->count, i, sizeof t->rows[0]);
            t->count++;
        }
        t->rows[i] = c->row;
        return;
    case CHANGE_DELETE:
        if (there) {
            t->count--;
            memmove(t->rows + i, t->rows + i + 1, (t->count - i) * sizeof t->rows[0]);
        }
        return;
    case CHANGE_STAT:
        if (!there) {
            t->stats = gap(t->stats, &t->stat_cap, t->stat_count, i, sizeof t->stats[0]);
            t->stat_count++;
        }
        t->stats[i] = c->stat;
        return;
    case CHANGE_STAT_DELETE:
        if (there) {
            t->stat_count--;
            memmove(t->stats + i, t->stats + i + 1, (t->stat_count - i) * sizeof t->stats[0]);
        }
        return;
    case CHANGE_META:
        t->meta = c->meta;
        t->has_meta = true;
        return;
    }
    UNREACHABLE();
}

int index_open(struct index **ret,
               const char *dir,
               size_t cache_bytes,
               bool *ret_rebuilt,
               struct err_detail *detail)
{
    (void)cache_bytes;
    (void)detail;
    struct index *x = mem_calloc(1, sizeof *x);
    (void)disk_mkdir(dir); /* it may be there */
    x->blob = disk_blob(dir, true);
    x->disk = disk_of_path(dir);
    if (x->blob->value == NULL) {
        x->blob->value = mem_calloc(1, sizeof(struct table));
        x->blob->free = table_free;
    }
    table_copy(&x->now, x->blob->value);
    *ret_rebuilt = false;
    *ret = x;
    return 0;
}

void index_close(struct index *x)
{
    if (x != NULL)
        table_deinit(&x->now);
    mem_free(x);
}

int index_get(struct index *x, const struct chunk_id *id, bool cached_only, struct store_entry *ret)
{
    bool there;
    size_t i = row_find(&x->now, id, &there);
    (void)cached_only;
    if (!disk_is_ghost(x->disk) && disk_fails(x->disk, DISK_READ))
        return ERR_IO;
    *ret = there ? x->now.rows[i].entry : (struct store_entry){0};
    return 0;
}

int index_meta_get(struct index *x, struct index_meta *ret, bool *ret_found)
{
    *ret_found = x->now.has_meta;
    if (x->now.has_meta)
        *ret = x->now.meta;
    return 0;
}

int index_stats(struct index *x,
                void (*fn)(void *ctx, uint64_t segment, const struct segment_stat *stat),
                void *ctx)
{
    for (size_t i = 0; i < x->now.stat_count; i++)
        fn(ctx, x->now.stats[i].segment, &x->now.stats[i].stat);
    return 0;
}

struct index_batch *index_batch_new(void)
{
    return mem_calloc(1, sizeof(struct index_batch));
}

void index_batch_free(struct index_batch *b)
{
    if (b != NULL)
        mem_free(b->at);
    mem_free(b);
}

static void batch_add(struct index_batch *b, struct index_change c)
{
    if (b->count == b->cap) {
        b->cap = b->cap * 2 + 16;
        b->at = mem_realloc(b->at, b->cap * sizeof b->at[0]);
    }
    b->at[b->count++] = c;
}

void index_batch_put(struct index_batch *b, const struct chunk_id *id, const struct store_entry *e)
{
    batch_add(b, (struct index_change){.kind = CHANGE_PUT, .row = {.id = *id, .entry = *e}});
}

void index_batch_delete(struct index_batch *b, const struct chunk_id *id)
{
    batch_add(b, (struct index_change){.kind = CHANGE_DELETE, .row = {.id = *id}});
}

void index_batch_stat(struct index_batch *b, uint64_t segment, const struct segment_stat *stat)
{
    batch_add(
        b, (struct index_change){.kind = CHANGE_STAT, .stat = {.segment = segment, .stat = *stat}});
}

void index_batch_stat_delete(struct index_batch *b, uint64_t segment)
{
    batch_add(b, (struct index_change){.kind = CHANGE_STAT_DELETE, .stat = {.segment = segment}});
}

void index_batch_meta(struct index_batch *b, const struct index_meta *meta)
{
    batch_add(b, (struct index_change){.kind = CHANGE_META, .meta = *meta});
}

int index_write(struct index *x, struct index_batch *b)
{
    for (size_t i = 0; i < b->count; i++)
        change_apply(&x->now, &b->at[i]);
    return 0;
}

int index_flush(struct index *x, bool wait)
{
    if (wait)
        disk_step_few(x->disk);
    int rc = wait && !disk_is_ghost(x->disk) ? write_trouble(x->disk, NULL) : 0;
    if (rc != 0)
        return rc;
    if (wait && !disk_is_ghost(x->disk))
        table_copy(x->blob->value, &x->now);
    return 0;
}

int index_scan(struct index *x,
               const struct chunk_id *after,
               bool (*fn)(void *ctx, const struct chunk_id *id, const struct store_entry *e),
               void *ctx)
{
    bool there = false;
    size_t i = after != NULL ? row_find(&x->now, after, &there) : 0;
    struct table copy = {0}; /* fn may write */
    table_copy(&copy, &x->now);
    for (i += there; i < copy.count; i++)
        if (!fn(ctx, &copy.rows[i].id, &copy.rows[i].entry))
            break;
    table_deinit(&copy);
    return 0;
}
