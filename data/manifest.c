/* Manifests: their shape, and reading: ranges, data and holes, walks. */
#include "data/manifest.h"

#include "base/assert.h"
#include "base/limits.h"
#include "data/manifest_int.h"

_Static_assert(MANIFEST_FANOUT == 1u << NODE_BITS, "an index is NODE_BITS of a block number");
_Static_assert(LIMIT_FILE_BYTES / MANIFEST_BLOCK_BYTES_MIN <=
                   (uint64_t)1 << (NODE_BITS * MANIFEST_HEIGHT_MAX),
               "the highest tree holds the largest file in the smallest blocks");
_Static_assert(MANIFEST_BLOCK_BYTES_MAX <= LIMIT_CHUNK_BYTES, "a block is a chunk");

int manifest_validate(const struct manifest *m)
{
    uint32_t bb = m->block_bytes;
    if (bb < MANIFEST_BLOCK_BYTES_MIN || bb > MANIFEST_BLOCK_BYTES_MAX || (bb & (bb - 1)) != 0)
        return ERR_INVALID;
    if (m->size > LIMIT_FILE_BYTES || (m->size == 0 && !chunk_id_is_hole(&m->root)))
        return ERR_INVALID;
    return 0;
}

uint32_t manifest_block_bytes(uint64_t size)
{
    if (size <= 4 * MIB)
        return 64 * KIB;
    return size <= 256 * MIB ? 1 * MIB : 4 * MIB;
}

uint64_t manifest_blocks(const struct manifest *m)
{
    return m->size / m->block_bytes + (m->size % m->block_bytes != 0);
}

unsigned manifest_height(const struct manifest *m)
{
    uint64_t blocks = manifest_blocks(m);
    unsigned height = 0;
    while (level_span(height) < blocks)
        height++;
    return height;
}

bool manifest_cut_block(const struct manifest *m,
                        uint64_t new_size,
                        uint64_t *ret_block,
                        uint32_t *ret_keep_bytes)
{
    if (new_size >= m->size || new_size % m->block_bytes == 0)
        return false;
    *ret_block = new_size / m->block_bytes;
    *ret_keep_bytes = (uint32_t)(new_size % m->block_bytes);
    return true;
}

/* ---- ranges ---- */

int manifest_lookup(struct node_cache *c,
                    const struct manifest *m,
                    uint64_t first,
                    size_t count,
                    struct chunk_id *ret_ids,
                    struct chunk_ids *missing)
{
    missing_begin(c, missing);
    int rc = manifest_validate(m);
    if (rc != 0)
        return rc;
    uint64_t blocks = manifest_blocks(m);
    memset(ret_ids, 0, count * sizeof *ret_ids);
    if (first >= blocks)
        return 0;
    count = (size_t)MIN(count, blocks - first);
    if (manifest_height(m) == 0) {
        if (count > 0)
            ret_ids[0] = m->root;
        return 0;
    }
    for (size_t at = 0; at < count;) {
        uint64_t block = first + at;
        unsigned from = block & (MANIFEST_FANOUT - 1);
        size_t n = MIN(MANIFEST_FANOUT - from, count - at);
        const struct node *node = NULL;
        rc = tree_node(c, m, 1, block >> NODE_BITS, &node, missing);
        if (rc != 0 && rc != ERR_AGAIN)
            return rc;
        for (unsigned i = 0; node != NULL && i < n; i++)
            ret_ids[at + i] = node_child(node, from + i).id;
        at += n;
    }
    return missing->count != 0 ? ERR_AGAIN : 0;
}

int manifest_data_blocks(struct node_cache *c,
                         const struct manifest *m,
                         uint64_t *ret_count,
                         struct chunk_ids *missing)
{
    missing_begin(c, missing);
    int rc = manifest_validate(m);
    if (rc != 0)
        return rc;
    struct subtree root;
    rc = tree_subtree(c, m, manifest_height(m), 0, &root, missing);
    if (rc == 0)
        *ret_count = root.blocks;
    return rc;
}

/* ---- data and holes ---- */

#define NOT_FOUND UINT64_MAX
struct seek {
    struct node_cache *c;
    struct chunk_ids *missing;
    uint64_t blocks; /* of the file */
    uint64_t from;
    enum manifest_seek what;
};

/* The first match in subtree (level, idx), which is `t`; NOT_FOUND when there is none. */
static int
seek_in(const struct seek *s, unsigned level, uint64_t idx, const struct subtree *t, uint64_t *ret)
{
    uint64_t start = idx << (NODE_BITS * level);
    uint64_t end = MIN(start + level_span(level), s->blocks);
    *ret = NOT_FOUND;
    if (end <= s->from || start >= s->blocks)
        return 0;
    uint64_t all = end - start;
    if (t->blocks > all)
        return ERR_MALFORMED;
    uint64_t matches = s->what == MANIFEST_SEEK_DATA ? t->blocks : all - t->blocks;
    if (matches == 0)
        return 0;
    if (matches == all) {
        *ret = MAX(start, s->from);
        return 0;
    }
    ASSERT(level > 0); /* one block is all or nothing */
    const struct node *n = NULL;
    int rc = node_load(s->c, &t->id, level, t->blocks, &n, s->missing);
    unsigned i = s->from > start ? (unsigned)((s->from - start) >> (NODE_BITS * (level - 1))) : 0;
    for (; rc == 0 && *ret == NOT_FOUND && i < MANIFEST_FANOUT; i++) {
        struct subtree child = node_child(n, i);
        rc = seek_in(s, level - 1, (idx << NODE_BITS) + i, &child, ret);
    }
    return rc;
}

int manifest_seek(struct node_cache *c,
                  const struct manifest *m,
                  uint64_t from,
                  enum manifest_seek what,
                  uint64_t *ret_block,
                  struct chunk_ids *missing)
{
    missing_begin(c, missing);
    int rc = manifest_validate(m);
    if (rc != 0)
        return rc;
    struct seek s = {
        .c = c, .missing = missing, .blocks = manifest_blocks(m), .from = from, .what = what};
    struct subtree root;
    unsigned height = manifest_height(m);
    rc = tree_subtree(c, m, height, 0, &root, missing);
    uint64_t found = NOT_FOUND;
    if (rc == 0)
        rc = seek_in(&s, height, 0, &root, &found);
    if (rc == 0)
        *ret_block = MIN(found, s.blocks);
    return rc;
}

/* ---- walks ---- */

struct walk {
    struct node_cache *c;
    const struct walk_fns *fns;
    struct chunk_ids *missing;
    uint64_t blocks;
    uint64_t *cursor;
    size_t ahead;
    bool stopped;
};

/* `n` lacks its child `from`: list the nodes that will be lacking next as well, so that one round
 * of fetching brings many. */
static void look_ahead(const struct walk *w, const struct node *n, unsigned from)
{
    for (unsigned i = from; i < n->count && w->missing->count < w->ahead; i++) {
        if (!chunk_id_is_hole(&n->ids[i]) && !node_cache_has(w->c, &n->ids[i]))
            missing_add(w->c, w->missing, &n->ids[i]);
    }
}

static int walk_in(struct walk *w, unsigned level, uint64_t idx, const struct chunk_id *id);

static int walk_children(struct walk *w, unsigned level, uint64_t idx, const struct chunk_id *id)
{
    const struct node *n = NULL;
    int rc = node_load(w->c, id, level, 0, &n, w->missing);
    if (rc != 0)
        return rc;
    uint64_t start = idx << (NODE_BITS * level);
    unsigned i =
        *w->cursor > start ? (unsigned)((*w->cursor - start) >> (NODE_BITS * (level - 1))) : 0;
    for (; i < n->count; i++) {
        rc = walk_in(w, level - 1, (idx << NODE_BITS) + i, &n->ids[i]);
        if (rc == ERR_AGAIN && level >= 2)
            look_ahead(w, n, i);
        if (rc != 0 || w->stopped)
            return rc;
    }
    if (w->fns->leave != NULL)
        w->fns->leave(w->fns->ctx, id, level);
    return 0;
}

/* Visits subtree (level, idx), `id`, from the cursor on; the cursor is not before it. */
static int walk_in(struct walk *w, unsigned level, uint64_t idx, const struct chunk_id *id)
{
    uint64_t start = idx << (NODE_BITS * level);
    uint64_t end = MIN(start + level_span(level), w->blocks);
    if (start >= w->blocks && !chunk_id_is_hole(id))
        return ERR_MALFORMED;
    if (end <= *w->cursor)
        return 0;
    enum manifest_visit visit = MANIFEST_VISIT_SKIP;
    if (!chunk_id_is_hole(id))
        visit = w->fns->enter(w->fns->ctx, id, level, start);
    if (visit == MANIFEST_VISIT_STOP) {
        w->stopped = true;
        return 0;
    }
    if (visit == MANIFEST_VISIT_GO && level > 0) {
        int rc = walk_children(w, level, idx, id);
        if (rc != 0 || w->stopped)
            return rc;
    }
    *w->cursor = end;
    return 0;
}

int manifest_walk_fns(struct node_cache *c,
                      const struct manifest *m,
                      uint64_t *cursor,
                      size_t ahead,
                      const struct walk_fns *fns,
                      struct chunk_ids *missing)
{
    missing_begin(c, missing);
    int rc = manifest_validate(m);
    if (rc != 0)
        return rc;
    struct walk w = {.c = c,
                     .fns = fns,
                     .missing = missing,
                     .blocks = manifest_blocks(m),
                     .cursor = cursor,
                     .ahead = ahead};
    return walk_in(&w, manifest_height(m), 0, &m->root);
}

int manifest_walk(struct node_cache *c,
                  const struct manifest *m,
                  uint64_t *cursor,
                  size_t ahead,
                  manifest_visit_fn fn,
                  void *ctx,
                  struct chunk_ids *missing)
{
    struct walk_fns fns = {.enter = fn, .ctx = ctx};
    return manifest_walk_fns(c, m, cursor, ahead, &fns, missing);
}
