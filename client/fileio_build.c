/* New contents: what a dirty layer makes of a committed content.
 *
 * Small results are inline. Otherwise the blocks that changed are put together (a partly written
 * one from the layer and the committed bytes), stored in parallel, and the manifest gets their ids;
 * whole blocks of zeros become holes without being looked at. */
#include "base/assert.h"
#include "base/limits.h"
#include "client/fileio_int.h"

/* A change of at most so many bytes of blocks goes to the site with its commit. */
#define RIDE_BYTES_MAX (1u * MIB)
/* Less of a new file was written than this share of its length: it is sparse. */
#define SPARSE_SHARE 4u
_Static_assert(RIDE_BYTES_MAX < RIDERS_BYTES_MAX, "with room for the nodes above");

struct build {
    struct fileio *io;
    struct content_build *ask;
    struct base *base;
    const struct dirty_layer *layer;
    struct riders *riders;
    uint32_t block_bytes;
    const struct manifest *old; /* NULL: nothing of it is kept */
    struct spans changed;       /* block numbers that need a new chunk */
    struct spans holes;         /* block numbers that become holes */
    struct chunk_id *ids;       /* of the changed blocks, in order */
    uint64_t *blocks;           /* their numbers */
    size_t count;
    size_t *to_store; /* indexes of those to be stored now */
    size_t to_store_count;
    size_t late_count; /* of those that are being sealed */
};

/* All bytes of [from, to) as the layer over the base shows them. */
static int compose(
    struct fileio *io, struct base *b, const struct dirty_layer *l, struct span at, uint8_t *out)
{
    struct spans gaps = {0};
    int rc = 0;
    spans_add(&gaps, at.from, at.to);
    dirty_read(l, at.from, out, &gaps);
    for (size_t i = 0; rc == 0 && i < gaps.count; i++)
        rc = base_read(io, b, gaps.at[i].from, out + (gaps.at[i].from - at.from),
                       (size_t)(gaps.at[i].to - gaps.at[i].from), BASE_BLOCKS);
    spans_deinit(&gaps);
    return rc;
}

static int build_inline(struct fileio *io, struct content_build *ask)
{
    const struct dirty_layer *l = ask->layer;
    uint8_t *bytes = mem_alloc((size_t)l->size + 1);
    int rc = compose(io, ask->base, l, (struct span){.from = 0, .to = l->size}, bytes);
    if (rc != 0) {
        mem_free(bytes);
        return rc;
    }
    ask->content = (struct content){.kind = CONTENT_INLINE,
                                    .size = l->size,
                                    .bytes = slice_of(bytes, block_trim(bytes, (size_t)l->size))};
    return 0;
}

/* Zeroed bytes [from, to): whole blocks become holes, the rest of blocks at the ends change. */
static void mark_zeros(struct build *b, uint64_t from, uint64_t to)
{
    uint64_t bb = b->block_bytes, first = (from + bb - 1) / bb, last = to / bb;
    if (from >= to)
        return;
    if (from % bb != 0)
        spans_add(&b->changed, from / bb, from / bb + 1);
    if (to % bb != 0)
        spans_add(&b->changed, last, last + 1);
    if (first < last)
        spans_add(&b->holes, first, last);
}

/* Which blocks change, and how. Data wins over zeros. */
static void mark(struct build *b)
{
    const struct dirty_layer *l = b->layer;
    uint64_t bb = b->block_bytes, blocks = (l->size + bb - 1) / bb;
    for (size_t i = 0; i < l->zeros.count; i++) {
        /* What reaches the end of the file reaches the end of its last block. */
        uint64_t to = l->zeros.at[i].to >= l->size ? blocks * bb : l->zeros.at[i].to;
        mark_zeros(b, l->zeros.at[i].from, to);
    }
    uint64_t had = base_size(b->base);
    if (l->cut < had && b->old != NULL)
        mark_zeros(b, l->cut, (had + bb - 1) / bb * bb);
    if (b->old == NULL && b->base->content.kind == CONTENT_INLINE)
        spans_add(&b->changed, 0, 1); /* its bytes go into the first block */
    else if (b->old == NULL && l->cut > 0)
        spans_add(&b->changed, 0, blocks); /* cut into blocks anew */
    for (size_t i = 0; i < l->data.count; i++)
        spans_add(&b->changed, l->data.at[i].from / bb, (l->data.at[i].to + bb - 1) / bb);
    spans_remove(&b->changed, blocks, UINT64_MAX);
    spans_remove(&b->holes, blocks, UINT64_MAX);
    for (size_t i = 0; i < b->changed.count; i++)
        spans_remove(&b->holes, b->changed.at[i].from, b->changed.at[i].to);
}

_Static_assert(DIRTY_SEGMENT_BYTES == CHUNK_PIECE_BYTES, "segments are sealed where they lie");

static int store_block(void *ctx, size_t turn)
{
    struct build *b = ctx;
    struct chunk_pieces plain;
    size_t idx = b->to_store[turn];
    uint64_t from = b->blocks[idx] * b->block_bytes;
    uint64_t to = MIN(from + b->block_bytes, b->layer->size);
    plain.len = (size_t)(to - from);
    /* Who writes large blocks from end to end will hardly change them in part soon. */
    if (plain.len > CHUNK_PIECE_BYTES && dirty_pieces(b->layer, from, to, plain.at))
        return chunk_store(b->io, &plain, b->riders, &b->ids[idx]);
    uint8_t *data = mem_alloc(plain.len);
    int rc = compose(b->io, b->base, b->layer, (struct span){.from = from, .to = to}, data);
    chunk_pieces_of(slice_of(data, plain.len), &plain);
    if (rc == 0)
        rc = chunk_store(b->io, &plain, b->riders, &b->ids[idx]);
    if (rc == 0 && plain.len > 0)
        block_cache_insert(b->io->blocks, &b->ids[idx], BLOCK_WHOLE, data, plain.len);
    else
        mem_free(data);
    return rc;
}

/* What was sealed ahead has its id; what is to be stored goes to the front of `to_store`, what is
 * being sealed to its end. */
static void take_sealed(struct build *b)
{
    size_t late_from = b->count;
    pthread_mutex_lock(&b->ask->file->lock);
    for (size_t i = 0; i < b->count; i++) {
        enum seal_answer is = seal_look(b->ask->sealing, b->blocks[i], &b->ids[i]);
        if (is == SEAL_IS_NOT)
            b->to_store[b->to_store_count++] = i;
        else if (is == SEAL_IS_UNDER_WAY)
            b->to_store[--late_from] = i;
    }
    pthread_mutex_unlock(&b->ask->file->lock);
    b->late_count = b->count - late_from;
}

/* What was being sealed when the rest began is done by now; or failed, and is to be stored. */
static int store_late(struct build *b)
{
    size_t *late = &b->to_store[b->count - b->late_count], failed = 0;
    pthread_mutex_lock(&b->ask->file->lock);
    seal_settle(b->ask->file, b->ask->sealing);
    for (size_t i = 0; i < b->late_count; i++)
        if (seal_look(b->ask->sealing, b->blocks[late[i]], &b->ids[late[i]]) != SEAL_IS_DONE)
            late[failed++] = late[i];
    pthread_mutex_unlock(&b->ask->file->lock);
    memmove(b->to_store, late, failed * sizeof *late);
    return io_each(b->io, failed, store_block, b);
}

static int store_blocks(struct build *b)
{
    b->count = (size_t)spans_bytes(&b->changed);
    b->ids = mem_calloc(b->count + 1, sizeof *b->ids);
    b->blocks = mem_calloc(b->count + 1, sizeof *b->blocks);
    b->to_store = mem_calloc(b->count + 1, sizeof *b->to_store);
    size_t n = 0;
    for (size_t i = 0; i < b->changed.count; i++)
        for (uint64_t block = b->changed.at[i].from; block < b->changed.at[i].to; block++)
            b->blocks[n++] = block;
    ASSERT_EQ(n, b->count);
    b->ask->stored_bytes = n * b->block_bytes;
    if (seal_fits(b->ask->sealing, b->block_bytes))
        take_sealed(b);
    else
        for (; b->to_store_count < n; b->to_store_count++)
            b->to_store[b->to_store_count] = b->to_store_count;
    b->riders->open = (b->to_store_count + b->late_count) * b->block_bytes <= RIDE_BYTES_MAX &&
                      conn_takes_riders(b->io->config.conn);
    int rc = io_each(b->io, b->to_store_count, store_block, b);
    return rc == 0 && b->late_count > 0 ? store_late(b) : rc;
}

/* ---- the manifest ---- */

/* Nodes that an update made; they are put afterwards, not under the cache's lock. */
struct new_node {
    struct chunk_id id;
    struct buf sealed;
};
struct new_nodes {
    struct fileio *io;
    struct riders *riders;
    struct new_node *at;
    size_t count, cap;
};

static int node_made(void *ctx, const struct chunk_id *id, struct slice sealed)
{
    struct new_nodes *n = ctx;
    if (n->count == n->cap) {
        n->cap = MAX(8u, n->cap * 2);
        n->at = mem_realloc(n->at, n->cap * sizeof *n->at);
    }
    struct new_node *node = &n->at[n->count++];
    *node = (struct new_node){.id = *id};
    buf_append(&node->sealed, sealed.ptr, sealed.len);
    return 0;
}

static int node_put(void *ctx, size_t idx)
{
    const struct new_nodes *n = ctx;
    return chunk_send(n->io, &n->at[idx].id, buf_slice(&n->at[idx].sealed), n->riders);
}

static void nodes_clear(struct new_nodes *n)
{
    for (size_t i = 0; i < n->count; i++)
        buf_deinit(&n->at[i].sealed);
    n->count = 0;
}

struct update {
    const struct manifest *old;
    uint32_t block_bytes;
    uint64_t new_size;
    const struct manifest_extent *extents;
    size_t count;
    unsigned stripe;
    struct riders *riders;
};

static int update_run(struct fileio *io, const struct update *u, struct manifest *ret)
{
    struct new_nodes made = {.io = io, .riders = u->riders};
    struct chunk_ids missing = {0};
    struct pipeline *p = io_pipeline(io);
    int rc;
    do {
        nodes_clear(&made);
        node_lock(io, u->stripe);
        rc = manifest_update(io->stripes[u->stripe].nodes, p, u->old, u->block_bytes, u->new_size,
                             u->extents, u->count, node_made, &made, ret, &missing);
        node_unlock(io, u->stripe);
    } while (nodes_brought(io, u->stripe, &missing, &rc));
    if (rc == 0)
        rc = io_each(io, made.count, node_put, &made);
    nodes_clear(&made);
    mem_free(made.at);
    chunk_ids_deinit(&missing);
    return rc;
}

/* Runs of changed blocks and of holes, in ascending order. */
static struct manifest_extent *extents_of(const struct build *b, size_t *ret_count)
{
    size_t max = b->changed.count + b->holes.count, n = 0, c = 0, h = 0, id = 0;
    struct manifest_extent *e = mem_calloc(max + 1, sizeof *e);
    while (n < max) {
        bool changed = h == b->holes.count ||
                       (c < b->changed.count && b->changed.at[c].from < b->holes.at[h].from);
        const struct span *s = changed ? &b->changed.at[c++] : &b->holes.at[h++];
        e[n] =
            (struct manifest_extent){.kind = changed ? MANIFEST_EXTENT_IDS : MANIFEST_EXTENT_HOLE,
                                     .first = s->from,
                                     .count = s->to - s->from};
        if (changed) {
            e[n].ids = &b->ids[id];
            id += (size_t)(s->to - s->from);
        }
        n++;
    }
    *ret_count = n;
    return e;
}

/* With the number of blocks that are not holes, which stat tells. */
static int
content_of(struct fileio *io, unsigned stripe, const struct manifest *m, struct content *ret)
{
    struct chunk_ids missing = {0};
    int rc;
    *ret =
        (struct content){.kind = CONTENT_MANIFEST, .size = m->size, .block_bytes = m->block_bytes};
    memcpy(ret->root, m->root.b, sizeof ret->root);
    do {
        node_lock(io, stripe);
        rc = manifest_data_blocks(io->stripes[stripe].nodes, m, &ret->data_blocks, &missing);
        node_unlock(io, stripe);
    } while (nodes_brought(io, stripe, &missing, &rc));
    chunk_ids_deinit(&missing);
    return rc;
}

static int build_manifest(struct build *b, struct content *ret)
{
    struct manifest m;
    mark(b);
    int rc = store_blocks(b);
    if (rc == 0) {
        struct update u = {.old = b->old,
                           .block_bytes = b->block_bytes,
                           .new_size = b->layer->size,
                           .stripe = b->base->stripe,
                           .riders = b->riders};
        struct manifest_extent *extents = extents_of(b, &u.count);
        u.extents = extents;
        rc = update_run(b->io, &u, &m);
        mem_free(extents);
    }
    if (rc == 0)
        rc = content_of(b->io, b->base->stripe, &m, ret);
    spans_deinit(&b->changed);
    spans_deinit(&b->holes);
    mem_free(b->ids);
    mem_free(b->blocks);
    mem_free(b->to_store);
    return rc;
}

/* A file that is mostly hole will be written here and there, as disk images and databases are. */
static uint32_t block_bytes_new(const struct dirty_layer *l)
{
    uint64_t written = spans_bytes(&l->data);
    return manifest_block_bytes(written < l->size / SPARSE_SHARE ? written : l->size);
}

/* A base of blocks that the layer leaves something of. */
static bool keeps_blocks(const struct base *b, const struct dirty_layer *l)
{
    return b->content.kind == CONTENT_MANIFEST && l->cut > 0;
}

uint32_t content_block_bytes(const struct base *b, const struct dirty_layer *l, bool small_blocks)
{
    if (small_blocks)
        return MANIFEST_BLOCK_BYTES_MIN;
    return keeps_blocks(b, l) ? b->manifest.block_bytes : block_bytes_new(l);
}

int content_build(struct fileio *io, struct content_build *ask)
{
    struct base *b = ask->base;
    const struct dirty_layer *l = ask->layer;
    pthread_mutex_init(&ask->riders.lock, NULL);
    if (l->size > LIMIT_FILE_BYTES)
        return ERR_FILE_TOO_BIG;
    if (l->size <= LIMIT_INLINE_BYTES)
        return build_inline(io, ask);
    struct build build = {.io = io, .ask = ask, .base = b, .layer = l, .riders = &ask->riders};
    if (keeps_blocks(b, l) && !ask->small_blocks)
        build.old = &b->manifest;
    build.block_bytes = content_block_bytes(b, l, ask->small_blocks);
    return build_manifest(&build, &ask->content);
}

void content_build_deinit(struct content_build *b)
{
    if (b->content.kind == CONTENT_INLINE)
        mem_free((void *)(uintptr_t)b->content.bytes.ptr);
    buf_deinit(&b->riders.bulk);
    pthread_mutex_destroy(&b->riders.lock);
}

int content_splice(struct fileio *io, const struct content_splice *s, struct content *ret)
{
    struct manifest_extent e = {.kind = MANIFEST_EXTENT_FROM,
                                .first = s->to_block,
                                .count = s->block_count,
                                .from = &s->source->manifest,
                                .from_first = s->from_block};
    bool fresh = s->target->content.kind == CONTENT_INLINE;
    struct riders none = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct update u = {.old = fresh ? NULL : &s->target->manifest,
                       .block_bytes = s->source->manifest.block_bytes,
                       .new_size = s->new_size,
                       .extents = &e,
                       .count = 1,
                       .stripe = s->target->stripe,
                       .riders = &none};
    struct manifest m;
    int rc = update_run(io, &u, &m);
    return rc != 0 ? rc : content_of(io, s->target->stripe, &m, ret);
}
