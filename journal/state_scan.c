/* Ordered scans over the three layers: the smallest key of all layers is next, the uppermost layer
 * that has it says what it is, and deletion marks hide what is below. */
#include "journal/state_int.h"

#include <string.h>

#include "base/assert.h"

/* Behind state_scan.priv[0]. */
struct sources {
    struct state_map_cursor active, frozen;
    void *store;      /* iterator of the store, or NULL */
    bool store_moves; /* its current pair was delivered: move on before the next look */
};

/* The first key behind all that begin with `prefix`; empty: there is none. */
static void prefix_end(struct slice prefix, struct buf *ret)
{
    while (prefix.len > 0 && ((const uint8_t *)prefix.ptr)[prefix.len - 1] == 0xff)
        prefix.len--;
    buf_append(ret, prefix.ptr, prefix.len);
    if (prefix.len > 0)
        ret->ptr[prefix.len - 1]++;
}

void state_scan_begin(struct state *st,
                      struct state_scan *it,
                      struct slice prefix,
                      struct slice start)
{
    *it = (struct state_scan){.st = st};
    buf_append(&it->prefix, prefix.ptr, prefix.len);
    struct slice from = slice_cmp(start, prefix) > 0 ? start : prefix;
    struct sources *src = mem_calloc(1, sizeof *src);
    src->active = state_map_seek(st->active, from);
    if (st->frozen != NULL)
        src->frozen = state_map_seek(st->frozen, from);
    if (st->has_store && st->health == 0) {
        struct buf end = {0};
        prefix_end(prefix, &end);
        src->store = st->store.ops->iter_new(st->store.ctx, from, buf_slice(&end));
        buf_deinit(&end);
    }
    it->priv[0] = src;
    st->scans++;
}

static bool has_prefix(struct slice key, const struct buf *prefix)
{
    return key.len >= prefix->len &&
           (prefix->len == 0 || memcmp(key.ptr, prefix->ptr, prefix->len) == 0);
}

/* Looks at a layer in memory; false when it has nothing more with the prefix. */
static bool map_look(const struct state_scan *it,
                     const struct state_map_cursor *cur,
                     const struct state_map_rec **ret)
{
    *ret = state_map_at(cur);
    return *ret != NULL && has_prefix(state_map_key(*ret), &it->prefix);
}

static bool store_look(struct state_scan *it,
                       struct sources *src,
                       struct slice *ret_key,
                       struct slice *ret_value)
{
    if (src->store == NULL)
        return false;
    const struct state_store_ops *ops = it->st->store.ops;
    if (src->store_moves) {
        ops->iter_next(src->store);
        src->store_moves = false;
    }
    if (ops->iter_at(src->store, ret_key, ret_value) && has_prefix(*ret_key, &it->prefix))
        return true;
    /* The end may be a read error; asking for it ends the iterator. */
    int rc = ops->iter_free(src->store);
    src->store = NULL;
    if (rc != 0 && it->st->health == 0)
        it->st->health = rc;
    return false;
}

bool state_scan_next(struct state_scan *it)
{
    struct sources *src = it->priv[0];
    for (;;) {
        const struct state_map_rec *active, *frozen;
        struct slice key, value = slice_of(NULL, 0), store_key, store_value;
        bool has_active = map_look(it, &src->active, &active);
        bool has_frozen = map_look(it, &src->frozen, &frozen);
        bool has_store = store_look(it, src, &store_key, &store_value);
        bool deleted = false;
        int c;
        if (!has_active && !has_frozen && !has_store)
            return false;

        bool from_active = has_active, from_frozen = false, from_store = false;
        if (has_active)
            key = state_map_key(active);
        if (has_frozen) {
            c = from_active ? slice_cmp(state_map_key(frozen), key) : -1;
            from_active = from_active && c >= 0;
            from_frozen = c <= 0;
            if (c < 0)
                key = state_map_key(frozen);
        }
        if (has_store) {
            c = from_active || from_frozen ? slice_cmp(store_key, key) : -1;
            from_active = from_active && c >= 0;
            from_frozen = from_frozen && c >= 0;
            from_store = c <= 0;
            if (c < 0)
                key = store_key;
        }
        if (from_active || from_frozen) {
            const struct state_map_rec *rec = from_active ? active : frozen;
            deleted = state_map_deleted(rec);
            if (!deleted)
                value = state_map_value(rec);
        } else {
            value = store_value;
        }
        if (from_active)
            state_map_next(&src->active);
        if (from_frozen)
            state_map_next(&src->frozen);
        src->store_moves = from_store;
        if (deleted)
            continue;
        it->key = key;
        it->value = value;
        return true;
    }
}

void state_scan_end(struct state_scan *it)
{
    struct sources *src = it->priv[0];
    if (src == NULL)
        return;
    if (src->store != NULL) {
        int rc = it->st->store.ops->iter_free(src->store);
        if (rc != 0 && it->st->health == 0)
            it->st->health = rc;
    }
    mem_free(src);
    ASSERT(it->st->scans > 0);
    it->st->scans--;
    buf_deinit(&it->prefix);
    *it = (struct state_scan){0};
}
