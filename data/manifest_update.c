/* Changing a manifest: the new tree is put together from subtrees of the old one, subtrees of other
 * manifests, and new ids. Runs twice over the same decisions: dry, to list the nodes that are
 * missing; and, when none is, for real. */
#include "base/assert.h"
#include "base/limits.h"
#include "data/manifest_int.h"

struct update {
    struct node_cache *c;
    struct pipeline *p;
    const struct manifest *old;
    uint64_t old_blocks, new_blocks;
    unsigned old_height;
    const struct manifest_extent *extents;
    size_t extent_count;
    manifest_put_fn put;
    void *ctx;
    struct chunk_ids *missing;
    bool dry;
};

/* A subtree of the new tree: where it is. */
struct place {
    unsigned level;
    uint64_t idx;
    uint64_t start, end; /* blocks; end is cut at the new size */
};

static struct place place_of(const struct update *u, unsigned level, uint64_t idx)
{
    uint64_t start = idx << (NODE_BITS * level);
    return (struct place){.level = level,
                          .idx = idx,
                          .start = start,
                          .end = MIN(start + level_span(level), u->new_blocks)};
}

enum cover {
    COVER_NONE,
    COVER_PART, /* or by more than one extent */
    COVER_WHOLE
};

static enum cover
cover_of(const struct update *u, const struct place *at, const struct manifest_extent **ret)
{
    size_t low = 0;
    size_t high = u->extent_count;
    while (low < high) { /* the first extent that ends behind the start */
        size_t mid = low + (high - low) / 2;
        if (u->extents[mid].first + u->extents[mid].count <= at->start)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == u->extent_count || u->extents[low].first >= at->end)
        return COVER_NONE;
    const struct manifest_extent *e = &u->extents[low];
    *ret = e;
    bool whole = e->first <= at->start && e->first + e->count >= at->end;
    return whole ? COVER_WHOLE : COVER_PART;
}

/* What a step found: the subtree, or that its children have to be looked at one by one. */
enum found {
    FOUND,
    DESCEND
};

/* A missing node is only noted in the dry run; what stands for it then does not matter. */
static int tolerate(const struct update *u, int rc)
{
    return rc == ERR_AGAIN && u->dry ? 0 : rc;
}

/* The place lies in a FROM extent that covers it. */
static int take_from(const struct update *u,
                     const struct place *at,
                     const struct manifest_extent *e,
                     struct subtree *ret,
                     enum found *ret_found)
{
    const struct manifest *src = e->from;
    uint64_t src_blocks = manifest_blocks(src);
    uint64_t src_start = e->from_first + (at->start - e->first);
    *ret = (struct subtree){.blocks = 0};
    *ret_found = FOUND;
    if (src_start >= src_blocks)
        return 0;
    *ret_found = DESCEND;
    if (at->level > manifest_height(src))
        return 0;
    uint64_t span = level_span(at->level);
    uint64_t src_idx = src_start >> (NODE_BITS * at->level);
    bool aligned = (src_start & (span - 1)) == 0;
    /* The source subtree is taken as it is: nothing in it may lie behind the extent or the end. */
    bool fits = at->end - at->start == span || src_start + (at->end - at->start) >= src_blocks;
    struct subtree low;
    struct subtree high = {.blocks = 0};
    int rc = tree_subtree(u->c, src, at->level, src_idx, &low, u->missing);
    if (rc == 0 && !aligned)
        rc = tree_subtree(u->c, src, at->level, src_idx + 1, &high, u->missing);
    if (rc != 0) {
        *ret_found = FOUND;
        return tolerate(u, rc);
    }
    if (low.blocks == 0 && high.blocks == 0) {
        *ret_found = FOUND;
    } else if (aligned && fits) {
        *ret = low;
        *ret_found = FOUND;
    }
    return 0;
}

/* The place lies in no extent; `parent` is the old node above it if the old tree has that level. */
static int take_old(const struct update *u,
                    const struct place *at,
                    const struct node *parent,
                    struct subtree *ret,
                    enum found *ret_found)
{
    *ret = (struct subtree){.blocks = 0};
    *ret_found = FOUND;
    if (at->start >= u->old_blocks)
        return 0;
    bool cut = u->old_blocks > at->end && at->end - at->start < level_span(at->level);
    if (cut || at->level > u->old_height) {
        ASSERT(at->level > 0);
        *ret_found = DESCEND;
        return 0;
    }
    if (at->level < u->old_height && parent != NULL) {
        *ret = node_child(parent, at->idx & (MANIFEST_FANOUT - 1));
        return 0;
    }
    return tolerate(u, tree_subtree(u->c, u->old, at->level, at->idx, ret, u->missing));
}

static int build(const struct update *u, const struct place *at, struct subtree *ret);

static int resolve(const struct update *u,
                   const struct place *at,
                   const struct node *parent,
                   struct subtree *ret)
{
    *ret = (struct subtree){.blocks = 0};
    if (at->start >= u->new_blocks)
        return 0;
    const struct manifest_extent *e = NULL;
    enum cover cover = cover_of(u, at, &e);
    enum found found = DESCEND;
    int rc = 0;
    if (cover == COVER_NONE) {
        rc = take_old(u, at, parent, ret, &found);
    } else if (cover == COVER_WHOLE) {
        switch (e->kind) {
        case MANIFEST_EXTENT_HOLE:
            found = FOUND;
            break;
        case MANIFEST_EXTENT_FROM:
            rc = take_from(u, at, e, ret, &found);
            break;
        case MANIFEST_EXTENT_IDS:
            if (at->level == 0) {
                ret->id = e->ids[at->start - e->first];
                ret->blocks = !chunk_id_is_hole(&ret->id);
                found = FOUND;
            }
            break;
        }
    }
    if (rc != 0 || found == FOUND)
        return rc;
    ASSERT(at->level > 0);
    return build(u, at, ret);
}

/* Seals a new node, hands it out, and keeps it in the cache for the next update. A node that the
 * old tree has at the same place is stored already. */
static int emit(const struct update *u,
                const struct place *at,
                const struct node *old_node,
                const struct subtree children[MANIFEST_FANOUT],
                struct subtree *ret)
{
    struct buf *plain = &u->c->plain;
    struct buf *sealed = &u->c->sealed;
    buf_clear(plain);
    buf_clear(sealed);
    node_encode(at->level, children, plain);
    int rc = chunk_hash(u->p, buf_slice(plain), &ret->id);
    if (rc != 0 || (old_node != NULL && chunk_id_equal(&old_node->id, &ret->id)))
        return rc;
    rc = chunk_seal_as(u->p, &ret->id, buf_slice(plain), sealed);
    if (rc == 0)
        rc = u->put(u->ctx, &ret->id, buf_slice(sealed));
    if (rc == 0)
        rc = node_cache_put(u->c, &ret->id, buf_slice(plain));
    return rc;
}

/* Makes the node at a place from its children. */
static int build(const struct update *u, const struct place *at, struct subtree *ret)
{
    struct subtree children[MANIFEST_FANOUT];
    const struct node *old_node = NULL;
    bool old_known = at->level > u->old_height || at->start >= u->old_blocks;
    ret->blocks = 0;
    for (unsigned i = 0; i < MANIFEST_FANOUT; i++) {
        struct place child = place_of(u, at->level - 1, (at->idx << NODE_BITS) + i);
        const struct manifest_extent *e = NULL;
        if (!old_known && child.start < u->new_blocks && cover_of(u, &child, &e) == COVER_NONE) {
            int rc = tree_node(u->c, u->old, at->level, at->idx, &old_node, u->missing);
            if (tolerate(u, rc) != 0)
                return rc;
            old_known = true;
        }
        int rc = resolve(u, &child, old_node, &children[i]);
        if (rc != 0)
            return rc;
        ret->blocks += children[i].blocks;
    }
    ret->id = CHUNK_ID_HOLE;
    if (ret->blocks == 0 || u->dry)
        return 0;
    return emit(u, at, old_node, children, ret);
}

static int check(const struct update *u, uint32_t block_bytes)
{
    uint64_t behind = 0;
    for (size_t i = 0; i < u->extent_count; i++) {
        const struct manifest_extent *e = &u->extents[i];
        if (e->count == 0 || e->first < behind || e->first >= u->new_blocks ||
            e->count > u->new_blocks - e->first)
            return ERR_INVALID;
        behind = e->first + e->count;
        if (e->kind != MANIFEST_EXTENT_FROM)
            continue;
        /* The bound keeps the sums of block numbers from overflowing. */
        if (manifest_validate(e->from) != 0 || e->from->block_bytes != block_bytes ||
            e->from_first > LIMIT_FILE_BYTES)
            return ERR_INVALID;
    }
    return 0;
}

int manifest_update(struct node_cache *c,
                    struct pipeline *p,
                    const struct manifest *old,
                    uint32_t block_bytes,
                    uint64_t new_size,
                    const struct manifest_extent *extents,
                    size_t extent_count,
                    manifest_put_fn put,
                    void *ctx,
                    struct manifest *ret,
                    struct chunk_ids *missing)
{
    missing_begin(c, missing);
    struct manifest empty = {.block_bytes = block_bytes};
    struct manifest result = {.block_bytes = block_bytes, .size = new_size};
    if (old == NULL)
        old = &empty;
    if (manifest_validate(old) != 0 || manifest_validate(&result) != 0 ||
        old->block_bytes != block_bytes)
        return ERR_INVALID;
    struct update u = {.c = c,
                       .p = p,
                       .old = old,
                       .old_blocks = manifest_blocks(old),
                       .new_blocks = manifest_blocks(&result),
                       .old_height = manifest_height(old),
                       .extents = extents,
                       .extent_count = extent_count,
                       .put = put,
                       .ctx = ctx,
                       .missing = missing,
                       .dry = true};
    int rc = check(&u, block_bytes);
    if (rc != 0)
        return rc;
    struct place top = place_of(&u, manifest_height(&result), 0);
    struct subtree root;
    rc = resolve(&u, &top, NULL, &root);
    if (rc != 0)
        return rc;
    if (missing->count != 0)
        return ERR_AGAIN;
    u.dry = false;
    rc = resolve(&u, &top, NULL, &root);
    if (rc != 0) {
        /* All nodes were there a moment ago. */
        return DEFEND(rc != ERR_AGAIN) ? rc : ERR_FATAL;
    }
    result.root = root.id;
    *ret = result;
    return 0;
}
