/* The lower layers that are RocksDB in production, kept on the simulated disk.
 *
 * State of a shard: each write makes a new version, a sorted array that shares its pairs with the
 * one before; iterators keep the version they began with. A write is atomic and durable at once, as
 * a flushed RocksDB batch is. Index of the chunk store: written to freely, durable when flushed; a
 * crash goes back to the last flush, as RocksDB without its write-ahead log does. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "data/store_index.h"
#include "journal/state.h"
#include "sim/disk.h"
#include "sim/loop_sim.h"

static bool is_ghost(void)
{
    return machine_current != NULL && machine_current->ghost;
}

/* ---- the state ---- */

struct pair {
    uint32_t refs;
    uint32_t hash; /* of the key */
    uint32_t key_len, value_len;
    uint8_t bytes[]; /* key, value */
};
struct version {
    uint32_t refs;
    uint64_t index;
    size_t count;
    struct pair *pairs[];
};
struct slot {
    uint32_t hash, place; /* place: 1 + index of the pair; 0: empty */
};
struct state_twin {
    struct disk_blob *blob; /* its value: the durable version */
    struct version *now;
    struct slot *slots; /* the pairs of `now` by hash, open addressing; NULL: not made yet */
    size_t mask;
};
struct state_twin_iter {
    struct version *v;
    size_t at;
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

static void version_unref(void *value)
{
    struct version *v = value;
    if (v == NULL || --v->refs > 0)
        return;
    for (size_t i = 0; i < v->count; i++)
        pair_unref(v->pairs[i]);
    mem_free(v);
}

static size_t version_find(const struct version *v, struct slice key)
{
    size_t low = 0, high = v->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (slice_cmp(pair_key(v->pairs[mid]), key) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static uint32_t key_hash(struct slice key)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < key.len; i++)
        h = (h ^ key.ptr[i]) * 0x100000001b3u;
    return (uint32_t)(h ^ h >> 32);
}

static void slots_make(struct state_twin *t)
{
    size_t size = 64;
    while (size < 2 * t->now->count)
        size *= 2;
    t->slots = mem_calloc(size, sizeof t->slots[0]);
    t->mask = size - 1;
    for (size_t i = 0; i < t->now->count; i++) {
        uint32_t hash = t->now->pairs[i]->hash;
        size_t at = hash & t->mask;
        while (t->slots[at].place != 0)
            at = (at + 1) & t->mask;
        t->slots[at] = (struct slot){.hash = hash, .place = (uint32_t)i + 1};
    }
}

static const struct pair *pair_find(struct state_twin *t, struct slice key)
{
    uint32_t hash = key_hash(key);
    if (t->slots == NULL)
        slots_make(t);
    for (size_t at = hash & t->mask; t->slots[at].place != 0; at = (at + 1) & t->mask) {
        const struct pair *p = t->now->pairs[t->slots[at].place - 1];
        if (t->slots[at].hash == hash && slice_equal(pair_key(p), key))
            return p;
    }
    return NULL;
}

static int twin_get(void *ctx, struct slice key, struct buf *ret_value, bool *ret_found)
{
    struct state_twin *t = ctx;
    const struct pair *p = pair_find(t, key);
    *ret_found = p != NULL;
    if (p != NULL) {
        buf_clear(ret_value);
        buf_append(ret_value, p->bytes + p->key_len, p->value_len);
    }
    return 0;
}

static void *twin_iter_new(void *ctx, struct slice seek)
{
    struct state_twin *t = ctx;
    struct state_twin_iter *it = mem_calloc(1, sizeof *it);
    it->v = t->now;
    it->v->refs++;
    it->at = version_find(it->v, seek);
    return it;
}

static bool twin_iter_at(void *iter, struct slice *ret_key, struct slice *ret_value)
{
    struct state_twin_iter *it = iter;
    if (it->at >= it->v->count)
        return false;
    const struct pair *p = it->v->pairs[it->at];
    *ret_key = pair_key(p);
    *ret_value = slice_of(p->bytes + p->key_len, p->value_len);
    return true;
}

static void twin_iter_next(void *iter)
{
    struct state_twin_iter *it = iter;
    it->at++;
}

static int twin_iter_free(void *iter)
{
    struct state_twin_iter *it = iter;
    version_unref(it->v);
    mem_free(it);
    return 0;
}

static struct pair *pair_new(struct slice key, struct slice value)
{
    struct pair *p = mem_alloc(sizeof *p + key.len + value.len);
    p->refs = 0;
    p->hash = key_hash(key);
    p->key_len = (uint32_t)key.len;
    p->value_len = (uint32_t)value.len;
    memcpy(p->bytes, key.ptr, key.len);
    if (value.len > 0)
        memcpy(p->bytes + key.len, value.ptr, value.len);
    return p;
}

static struct version *version_grow(struct version *v, size_t *cap, struct pair *p)
{
    if (v->count == *cap) {
        *cap = *cap * 2 + 64;
        v = mem_realloc(v, sizeof *v + *cap * sizeof v->pairs[0]);
    }
    p->refs++;
    v->pairs[v->count++] = p;
    return v;
}

static int twin_write(void *ctx,
                      uint64_t index,
                      bool (*next)(void *, struct slice *, struct slice *, bool *),
                      void *nctx,
                      struct err_detail *detail)
{
    struct state_twin *t = ctx;
    const struct version *old = t->now;
    size_t cap = old->count + 64, at = 0;
    struct version *v = mem_alloc(sizeof *v + cap * sizeof v->pairs[0]);
    struct slice key, value;
    bool is_delete;
    (void)detail;
    *v = (struct version){.refs = 1, .index = index};
    while (next(nctx, &key, &value, &is_delete)) {
        while (at < old->count && slice_cmp(pair_key(old->pairs[at]), key) < 0)
            v = version_grow(v, &cap, old->pairs[at++]);
        if (at < old->count && slice_equal(pair_key(old->pairs[at]), key))
            at++;
        if (!is_delete)
            v = version_grow(v, &cap, pair_new(key, value));
    }
    while (at < old->count)
        v = version_grow(v, &cap, old->pairs[at++]);
    version_unref(t->now);
    t->now = v;
    mem_free(t->slots);
    t->slots = NULL;
    if (!is_ghost()) {
        v->refs++;
        version_unref(t->blob->value);
        t->blob->value = v;
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
    if (t->blob->value == NULL) {
        struct version *v = mem_calloc(1, sizeof *v);
        v->refs = 1;
        t->blob->value = v;
        t->blob->free = version_unref;
    }
    t->now = t->blob->value;
    t->now->refs++;
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
    if (wait && !is_ghost())
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
