/* The layers of a shard's state: active over frozen over store. Reading looks from the top down;
 * writing touches active only; freezing makes active the frozen layer, which a pool thread writes
 * into the store in one batch with the journal index. A failed write leaves the frozen layer where
 * it is; a failed read is remembered in `health`. */
#include "journal/state_int.h"

#include <string.h>

#include "base/plant.h"
#include "base/assert.h"

int state_open(struct state **ret, struct state_store *store)
{
    struct state *st = mem_calloc(1, sizeof *st);
    st->active = state_map_new();
    if (store != NULL) {
        st->has_store = true;
        st->store = *store;
        st->stored_index = store->ops->index(store->ctx);
        st->index = st->stored_index;
    }
    *ret = st;
    return 0;
}

void state_free(struct state *st)
{
    if (st == NULL)
        return;
    ASSERT_EQ(st->scans, 0);
    state_map_free(st->active);
    state_map_free(st->frozen);
    if (st->has_store)
        st->store.ops->close(st->store.ctx);
    buf_deinit(&st->value);
    mem_free(st);
}

void state_forget(struct state *st)
{
    ASSERT_EQ(st->scans, 0);
    state_map_free(st->active);
    state_map_free(st->frozen);
    st->active = state_map_new();
    st->frozen = NULL;
    st->index = st->stored_index;
}

static bool get_from_store(struct state *st, struct slice key, struct slice *ret_value)
{
    bool found = false;
    if (st->health != 0)
        return false;
    int rc = st->store.ops->get(st->store.ctx, key, &st->value, &found);
    if (rc != 0) {
        st->health = rc;
        return false;
    }
    if (found)
        *ret_value = buf_slice(&st->value);
    return found;
}

bool state_get(struct state *st, struct slice key, struct slice *ret_value)
{
    const struct state_map_rec *rec = state_map_find(st->active, key);
    if (rec == NULL && st->frozen != NULL)
        rec = state_map_get(st->frozen, key);
    if (rec == NULL)
        return st->has_store && get_from_store(st, key, ret_value);
    if (state_map_deleted(rec))
        return false;
    *ret_value = state_map_value(rec);
    return true;
}

static bool key_reserved(struct slice key)
{
    return key.len >= 2 && key.ptr[0] == 0xff && key.ptr[1] == 0xff;
}

void state_put(struct state *st, struct slice key, struct slice value)
{
    ASSERT_EQ(st->scans, 0);
    ASSERT(!key_reserved(key));
    state_map_put(st->active, key, value, false);
}

void state_del(struct state *st, struct slice key)
{
    ASSERT_EQ(st->scans, 0);
    ASSERT(!key_reserved(key));
    if (st->has_store)
        state_map_put(st->active, key, slice_of(NULL, 0), true);
    else
        state_map_remove(st->active, key);
}

int state_health(const struct state *st)
{
    return st->health;
}

void state_advance(struct state *st, uint64_t index)
{
    ASSERT(index >= st->index);
    st->index = index;
}

uint64_t state_index(const struct state *st)
{
    return st->index;
}

uint64_t state_stored_index(const struct state *st)
{
    return st->stored_index;
}

size_t state_active_bytes(const struct state *st)
{
    return state_map_bytes(st->active);
}

bool state_freeze(struct state *st)
{
    ASSERT_EQ(st->scans, 0);
    if (!st->has_store || st->frozen != NULL)
        return false;
    st->frozen = st->active;
    st->frozen_index = st->index;
    st->active = state_map_new();
    return true;
}

bool state_is_frozen(const struct state *st)
{
    return st->frozen != NULL;
}

uint64_t state_frozen_index(const struct state *st)
{
    return st->frozen_index;
}

static bool next_pair(void *ctx, struct slice *key, struct slice *value, bool *is_delete)
{
    struct state_map_cursor *cur = ctx;
    const struct state_map_rec *rec = state_map_at(cur);
    if (rec == NULL)
        return false;
    *key = state_map_key(rec);
    *is_delete = state_map_deleted(rec);
    *value = *is_delete ? slice_of(NULL, 0) : state_map_value(rec);
    state_map_next(cur);
    return true;
}

int state_write_frozen(struct state *st, struct err_detail *detail)
{
    ASSERT(st->has_store && st->frozen != NULL);
    struct state_map_cursor cur = state_map_seek(st->frozen, slice_of(NULL, 0));
    return st->store.ops->write(st->store.ctx, st->frozen_index + PLANTED(23), next_pair, &cur,
                                detail);
}

void state_thaw(struct state *st)
{
    ASSERT(st->frozen != NULL && st->scans == 0);
    state_map_free(st->frozen);
    st->frozen = NULL;
    st->stored_index = st->frozen_index;
}

struct state_iter {
    const struct state_store_ops *ops;
    void *iter;
};

struct state_iter *state_iter_new(struct state *st)
{
    if (!st->has_store)
        return NULL;
    struct state_iter *it = mem_calloc(1, sizeof *it);
    it->ops = st->store.ops;
    it->iter = st->store.ops->iter_new(st->store.ctx, slice_of(NULL, 0), slice_of(NULL, 0));
    return it;
}

bool state_iter_at(struct state_iter *it, struct slice *ret_key, struct slice *ret_value)
{
    return it->ops->iter_at(it->iter, ret_key, ret_value);
}

void state_iter_next(struct state_iter *it)
{
    it->ops->iter_next(it->iter);
}

int state_iter_free(struct state_iter *it)
{
    if (it == NULL)
        return 0;
    int rc = it->ops->iter_free(it->iter);
    mem_free(it);
    return rc;
}
