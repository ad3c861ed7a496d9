/* The tree of the ordered map. Leaves are linked, so a cursor is a leaf and a position. Leaves join
 * a neighbour when both are small; inner nodes go when they are empty. Separators are short copies
 * of keys, owned by the inner node. Pure. */
#include "journal/state_map_int.h"

#include <string.h>

#include "base/assert.h"
#include "journal/state_map_recent_int.h"

#define DEPTH_MAX 48u
#define LEAF_SMALL 16u  /* try to join below this */
#define LEAF_JOINED 40u /* and only if the result leaves room */

struct state_map {
    void *root;     /* a leaf when depth is 0 */
    uint32_t depth; /* inner levels above the leaves */
    size_t count;
    struct state_map_recs recs;
    uint64_t shape;                  /* from 1; goes up when a leaf comes or goes */
    struct state_map_recent *recent; /* NULL: there is no more than one leaf yet */
};

/* The inner nodes passed on the way to a leaf, root first, and the child taken at each. */
struct path {
    struct state_map_inner *nodes[DEPTH_MAX];
    uint32_t idx[DEPTH_MAX];
};

static struct state_map_leaf *leaf_new(struct state_map *map)
{
    struct state_map_leaf *leaf = state_map_node_new(&map->recs, false);
    leaf->keys.count = 0;
    leaf->keys.prefix_len = 0;
    leaf->prev = leaf->next = NULL;
    return leaf;
}

static struct state_map_inner *inner_new(struct state_map *map)
{
    struct state_map_inner *inner = state_map_node_new(&map->recs, true);
    inner->keys.count = 0;
    inner->keys.prefix_len = 0;
    return inner;
}

struct state_map *state_map_new(void)
{
    struct state_map *map = mem_calloc(1, sizeof *map);
    map->root = leaf_new(map);
    map->shape = 1;
    return map;
}

void state_map_free(struct state_map *map)
{
    if (map == NULL)
        return;
    state_map_recs_deinit(&map->recs);
    mem_free(map->recent);
    mem_free(map);
}

size_t state_map_bytes(const struct state_map *map)
{
    return map->recs.bytes;
}

size_t state_map_count(const struct state_map *map)
{
    return map->count;
}

static uint32_t child_of(const struct state_map_inner *inner, struct slice key)
{
    bool equal;
    uint32_t idx = state_map_keys_find(&inner->keys, key, &equal);
    return idx + (equal ? 1 : 0);
}

static struct state_map_leaf *
descend(const struct state_map *map, struct slice key, struct path *ret_path)
{
    void *node = map->root;
    for (uint32_t level = 0; level < map->depth; level++) {
        struct state_map_inner *inner = node;
        uint32_t idx = child_of(inner, key);
        if (ret_path != NULL) {
            ret_path->nodes[level] = inner;
            ret_path->idx[level] = idx;
        }
        node = inner->children[idx];
    }
    return node;
}

const struct state_map_rec *state_map_get(const struct state_map *map, struct slice key)
{
    const struct state_map_leaf *leaf = descend(map, key, NULL);
    bool equal;
    uint32_t idx = state_map_keys_find(&leaf->keys, key, &equal);
    return equal ? leaf->keys.recs[idx] : NULL;
}

/* ---- keys used lately ---- */

static void recent_found(struct state_map *map, uint64_t hash, struct state_map_rec *rec)
{
    *state_map_found_at(map->recent, hash) = (struct state_map_found){.hash = hash, .rec = rec};
}

static void
recent_missed(struct state_map *map, uint64_t hash, struct slice key, struct state_map_leaf *leaf)
{
    if (key.len == 0 || key.len > RECENT_MISSED_BYTES)
        return;
    struct state_map_missed *m = state_map_missed_at(map->recent, hash);
    m->shape = map->shape;
    m->leaf = leaf;
    m->len = (uint32_t)key.len;
    memcpy(m->key, key.ptr, key.len);
}

const struct state_map_rec *state_map_find(struct state_map *map, struct slice key)
{
    if (map->recent == NULL)
        return state_map_get(map, key);
    uint64_t hash = state_map_hash(key);
    const struct state_map_found *f = state_map_found_at(map->recent, hash);
    if (state_map_found_is(f, hash, key))
        return f->rec;
    struct state_map_leaf *leaf = descend(map, key, NULL);
    bool equal;
    uint32_t idx = state_map_keys_find(&leaf->keys, key, &equal);
    if (equal)
        recent_found(map, hash, leaf->keys.recs[idx]);
    else
        recent_missed(map, hash, key, leaf);
    return equal ? leaf->keys.recs[idx] : NULL;
}

/* The record goes. */
static void recent_forget(struct state_map *map, struct slice key, const struct state_map_rec *rec)
{
    if (map->recent == NULL)
        return;
    struct state_map_found *f = state_map_found_at(map->recent, state_map_hash(key));
    if (f->rec == rec)
        f->rec = NULL;
}

/* The leaf where a key belongs that was missed a moment ago; NULL: that must be searched. */
static struct state_map_leaf *recent_leaf(struct state_map *map, uint64_t hash, struct slice key)
{
    const struct state_map_missed *m = state_map_missed_at(map->recent, hash);
    return m->shape == map->shape && state_map_missed_is(m, key) ? m->leaf : NULL;
}

/* ---- growing ---- */

/* The shortest key that is > low and <= high. */
static struct state_map_rec *
separator_new(struct state_map *map, struct slice low, struct slice high)
{
    size_t len = 0;
    while (len < low.len && low.ptr[len] == high.ptr[len])
        len++;
    ASSERT(len < high.len);
    return state_map_rec_new(&map->recs, slice_of(high.ptr, len + 1), 0);
}

static void
inner_insert(struct state_map_inner *inner, uint32_t at, struct state_map_rec *sep, void *right)
{
    size_t tail = inner->keys.count - at;
    memmove(&inner->children[at + 2], &inner->children[at + 1], tail * sizeof(void *));
    inner->children[at + 1] = right;
    state_map_keys_insert(&inner->keys, at, sep);
}

/* Splits a full inner node; the middle separator goes up. */
static struct state_map_inner *inner_split(struct state_map *map,
                                           struct state_map_inner *inner,
                                           uint32_t at,
                                           struct state_map_rec **ret_sep)
{
    struct state_map_inner *right = inner_new(map);
    *ret_sep = inner->keys.recs[at];
    memcpy(right->children, &inner->children[at + 1], (inner->keys.count - at) * sizeof(void *));
    state_map_keys_split(&inner->keys, at + 1, &right->keys);
    state_map_keys_remove(&inner->keys, at);
    return right;
}

/* Hangs `right` beside the child that `path` took at the lowest inner level, splitting upwards. */
static void
grow_up(struct state_map *map, struct path *path, struct state_map_rec *sep, void *right)
{
    for (uint32_t level = map->depth; level-- > 0;) {
        struct state_map_inner *inner = path->nodes[level];
        uint32_t at = path->idx[level];
        if (inner->keys.count < NODE_KEYS) {
            inner_insert(inner, at, sep, right);
            return;
        }
        /* In-order growth leaves full nodes behind, random growth half-full ones. */
        uint32_t cut = at == NODE_KEYS ? NODE_KEYS - 2 : NODE_KEYS / 2;
        struct state_map_rec *up;
        struct state_map_inner *split = inner_split(map, inner, cut, &up);
        if (at <= cut)
            inner_insert(inner, at, sep, right);
        else
            inner_insert(split, at - cut - 1, sep, right);
        sep = up;
        right = split;
    }
    struct state_map_inner *root = inner_new(map);
    root->children[0] = map->root;
    inner_insert(root, 0, sep, right);
    map->root = root;
    map->depth++;
    ASSERT(map->depth < DEPTH_MAX);
}

static void leaf_split_insert(struct state_map *map,
                              struct path *path,
                              struct state_map_leaf *leaf,
                              uint32_t at,
                              struct state_map_rec *rec)
{
    uint32_t cut = at == NODE_KEYS ? NODE_KEYS : state_map_keys_middle(&leaf->keys);
    struct state_map_leaf *right = leaf_new(map);
    map->shape++;
    right->prev = leaf;
    right->next = leaf->next;
    if (leaf->next != NULL)
        leaf->next->prev = right;
    leaf->next = right;
    state_map_keys_split(&leaf->keys, cut, &right->keys);
    if (at < cut)
        state_map_keys_insert(&leaf->keys, at, rec);
    else
        state_map_keys_insert(&right->keys, at - cut, rec);
    struct slice low = state_map_key(leaf->keys.recs[leaf->keys.count - 1]);
    struct slice high = state_map_key(right->keys.recs[0]);
    grow_up(map, path, separator_new(map, low, high), right);
}

static void rec_set(struct state_map_rec *rec, struct slice value, bool mark)
{
    rec->value_len = mark ? STATE_MAP_DELETED : (uint32_t)value.len;
    if (!mark && value.len > 0)
        memcpy((uint8_t *)(rec + 1) + rec->key_len, value.ptr, value.len);
}

/* Overwrites the value, unless it does not fit or much of the memory would lie idle. */
static bool rec_reuse(struct state_map_rec *rec, struct slice value, bool mark)
{
    size_t need = rec->key_len + (mark ? 0 : value.len);
    if (need > rec->capacity || rec->capacity - need > MAX(need, 64u))
        return false;
    rec_set(rec, value, mark);
    return true;
}

/* Makes the record that `at` is for: in the place of the key's old one, or between its neighbours.
 * path: only looked at when the leaf is full. */
static void leaf_put(struct state_map *map,
                     struct path *path,
                     struct state_map_leaf *leaf,
                     uint32_t at,
                     bool replace,
                     struct state_map_rec *rec)
{
    if (replace) {
        state_map_rec_free(&map->recs, leaf->keys.recs[at]);
        leaf->keys.recs[at] = rec;
        return;
    }
    map->count++;
    if (leaf->keys.count < NODE_KEYS)
        state_map_keys_insert(&leaf->keys, at, rec);
    else
        leaf_split_insert(map, path, leaf, at, rec);
}

void state_map_put(struct state_map *map, struct slice key, struct slice value, bool mark)
{
    struct path path;
    uint64_t hash = 0;
    struct state_map_leaf *leaf = NULL;
    bool equal;
    if (map->recent == NULL && map->depth > 0)
        map->recent = mem_calloc(1, sizeof *map->recent);
    if (map->recent != NULL) {
        hash = state_map_hash(key);
        const struct state_map_found *f = state_map_found_at(map->recent, hash);
        if (state_map_found_is(f, hash, key) && rec_reuse(f->rec, value, mark))
            return;
        leaf = recent_leaf(map, hash, key);
    }
    if (leaf == NULL || leaf->keys.count == NODE_KEYS)
        leaf = descend(map, key, &path);
    uint32_t at = state_map_keys_find(&leaf->keys, key, &equal);
    struct state_map_rec *rec = equal ? leaf->keys.recs[at] : NULL;
    if (!equal || !rec_reuse(rec, value, mark)) {
        rec = state_map_rec_new(&map->recs, key, mark ? 0 : value.len);
        rec_set(rec, value, mark);
        leaf_put(map, &path, leaf, at, equal, rec);
    }
    if (map->recent != NULL)
        recent_found(map, hash, rec);
}

/* ---- shrinking ---- */

/* Takes child `at` with the separator beside it out of the parent at `level` of the path. */
static void drop_child(struct state_map *map, struct path *path, uint32_t level, uint32_t at)
{
    struct state_map_inner *inner = path->nodes[level];
    if (inner->keys.count == 0) {
        ASSERT(level > 0); /* a root with a single child is replaced by the child below */
        drop_child(map, path, level - 1, path->idx[level - 1]);
        state_map_node_free(&map->recs, true, inner);
        return;
    }
    uint32_t sep = at > 0 ? at - 1 : 0;
    state_map_rec_free(&map->recs, inner->keys.recs[sep]);
    size_t tail = inner->keys.count - at;
    memmove(&inner->children[at], &inner->children[at + 1], tail * sizeof(void *));
    state_map_keys_remove(&inner->keys, sep);
}

static void shrink_root(struct state_map *map)
{
    while (map->depth > 0) {
        struct state_map_inner *root = map->root;
        if (root->keys.count > 0)
            return;
        map->root = root->children[0];
        map->depth--;
        state_map_node_free(&map->recs, true, root);
    }
}

static void
leaf_drop(struct state_map *map, struct path *path, uint32_t at, struct state_map_leaf *leaf)
{
    map->shape++;
    if (leaf->prev != NULL)
        leaf->prev->next = leaf->next;
    if (leaf->next != NULL)
        leaf->next->prev = leaf->prev;
    drop_child(map, path, map->depth - 1, at);
    state_map_node_free(&map->recs, false, leaf);
    shrink_root(map);
}

static void leaf_join(struct state_map *map, struct path *path, struct state_map_leaf *leaf)
{
    if (map->depth == 0)
        return;
    struct state_map_inner *parent = path->nodes[map->depth - 1];
    uint32_t at = path->idx[map->depth - 1];
    if (leaf->keys.count == 0) {
        leaf_drop(map, path, at, leaf);
        return;
    }
    if (leaf->keys.count >= LEAF_SMALL || at == parent->keys.count)
        return;
    struct state_map_leaf *right = parent->children[at + 1];
    if (leaf->keys.count + right->keys.count > LEAF_JOINED)
        return;
    state_map_keys_join(&leaf->keys, &right->keys);
    leaf_drop(map, path, at + 1, right);
}

void state_map_remove(struct state_map *map, struct slice key)
{
    struct path path;
    struct state_map_leaf *leaf = descend(map, key, &path);
    bool equal;
    uint32_t at = state_map_keys_find(&leaf->keys, key, &equal);
    if (!equal)
        return;
    struct state_map_rec *rec = leaf->keys.recs[at];
    state_map_keys_remove(&leaf->keys, at);
    recent_forget(map, key, rec);
    state_map_rec_free(&map->recs, rec);
    map->count--;
    leaf_join(map, &path, leaf);
}

/* ---- walking ---- */

struct state_map_cursor state_map_seek(const struct state_map *map, struct slice start)
{
    const struct state_map_leaf *leaf = descend(map, start, NULL);
    bool equal;
    uint32_t idx = state_map_keys_find(&leaf->keys, start, &equal);
    if (idx == leaf->keys.count) {
        leaf = leaf->next;
        idx = 0;
    }
    return (struct state_map_cursor){.leaf = leaf, .idx = idx};
}

const struct state_map_rec *state_map_at(const struct state_map_cursor *cur)
{
    return cur->leaf != NULL ? cur->leaf->keys.recs[cur->idx] : NULL;
}

void state_map_next(struct state_map_cursor *cur)
{
    ASSERT(cur->leaf != NULL);
    if (++cur->idx < cur->leaf->keys.count)
        return;
    cur->leaf = cur->leaf->next;
    cur->idx = 0;
}

/* ---- checking ---- */

static size_t validate_node(const struct state_map *map,
                            const void *node,
                            uint32_t depth,
                            const struct state_map_rec *low,
                            const struct state_map_rec *high)
{
    const struct state_map_keys *keys = node; /* the first member of both kinds */
    state_map_keys_validate(keys);
    if (keys->count > 0 && low != NULL)
        ASSERT(slice_cmp(state_map_key(keys->recs[0]), state_map_key(low)) >= 0);
    if (keys->count > 0 && high != NULL)
        ASSERT(slice_cmp(state_map_key(keys->recs[keys->count - 1]), state_map_key(high)) < 0);
    if (depth == 0) {
        ASSERT(keys->count > 0 || map->depth == 0);
        return keys->count;
    }
    const struct state_map_inner *inner = node;
    size_t count = 0;
    for (uint32_t i = 0; i <= keys->count; i++)
        count += validate_node(map, inner->children[i], depth - 1, i > 0 ? keys->recs[i - 1] : low,
                               i < keys->count ? keys->recs[i] : high);
    return count;
}

void state_map_validate(const struct state_map *map)
{
    ASSERT_EQ(validate_node(map, map->root, map->depth, NULL, NULL), map->count);
    struct state_map_cursor cur = state_map_seek(map, slice_of(NULL, 0));
    size_t count = 0;
    const struct state_map_rec *last = NULL;
    for (const struct state_map_rec *rec; (rec = state_map_at(&cur)) != NULL; count++) {
        if (last != NULL)
            ASSERT(slice_cmp(state_map_key(last), state_map_key(rec)) < 0);
        last = rec;
        state_map_next(&cur);
    }
    ASSERT_EQ(count, map->count);
    for (uint32_t i = 0; map->recent != NULL && i < RECENT_KEYS; i++) {
        const struct state_map_rec *rec = map->recent->found[i].rec;
        if (rec != NULL)
            ASSERT(state_map_get(map, state_map_key(rec)) == rec);
    }
}
