/* Committed contents: chunks from and to the site, manifest nodes, reading by blocks. */
#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "client/fileio_int.h"

/* Below this asking whether the site has the chunk costs more than sending it. */
#define ASK_FIRST_BYTES (256u * KIB)
#define ABSENT_FEW 8u
#define ABSENT_ASK_EVERY 16u
#define SHARE_BYTES_MIN (16u * KIB) /* what is less goes through the socket as well */
#define ZEROS_BYTES (64u * 1024u)
/* Each block is a piece and what it lacks of zeros, which are cut at ZEROS_BYTES. */
_Static_assert(FILE_VIEW_BYTES_MAX / MANIFEST_BLOCK_BYTES_MIN + 2 <= FILE_VIEW_BLOCKS_MAX, "fits");
_Static_assert(3 * FILE_VIEW_BLOCKS_MAX + FILE_VIEW_BYTES_MAX / ZEROS_BYTES <= FILE_VIEW_PIECES_MAX,
               "fits");

/* ---- bases ---- */

int base_check(const struct content *c)
{
    if (c->size > LIMIT_FILE_BYTES)
        return ERR_MALFORMED;
    if (c->kind == CONTENT_INLINE)
        return c->bytes.len <= c->size ? 0 : ERR_MALFORMED;
    if (c->kind != CONTENT_MANIFEST)
        return ERR_MALFORMED;
    struct manifest m = {
        .root = chunk_id_of(c->root), .size = c->size, .block_bytes = c->block_bytes};
    return manifest_validate(&m) == 0 ? 0 : ERR_MALFORMED;
}

struct base *base_new(const struct inode *i, const struct content *c, struct dot version)
{
    struct base *b = mem_calloc(1, sizeof *b);
    b->refs = 1;
    b->stripe = (unsigned)(i->id % NODE_STRIPES);
    b->version = version;
    b->content = *c;
    if (c->kind == CONTENT_INLINE)
        b->content.bytes = slice_of(mem_dup(c->bytes.ptr, c->bytes.len), c->bytes.len);
    else
        b->manifest = (struct manifest){
            .root = chunk_id_of(c->root), .size = c->size, .block_bytes = c->block_bytes};
    return b;
}

struct base *base_ref(struct fileio *io, struct base *b)
{
    pthread_mutex_lock(&io->lock);
    b->refs++;
    pthread_mutex_unlock(&io->lock);
    return b;
}

void base_unref(struct fileio *io, struct base *b)
{
    if (b == NULL)
        return;
    pthread_mutex_lock(&io->lock);
    bool last = --b->refs == 0;
    pthread_mutex_unlock(&io->lock);
    if (!last)
        return;
    if (b->content.kind == CONTENT_INLINE)
        mem_free((void *)(uintptr_t)b->content.bytes.ptr);
    mem_free(b);
}

uint64_t base_size(const struct base *b)
{
    return b->content.size;
}

/* ---- chunks ---- */

/* Gets and opens one chunk into mem_alloc'ed memory. */
static int
chunk_fetch(struct fileio *io, const struct chunk_id *id, uint8_t **ret_data, size_t *ret_len)
{
    struct conn_call call;
    conn_call_init(&call, RPC_CHUNK_GET);
    memcpy(call.req.chunk, id->b, sizeof call.req.chunk);
    call.req.has_chunk = true;
    size_t share_len;
    call.into_share = conn_share(io->config.conn, &share_len) != NULL;
    int rc = conn_call_run(io->config.conn, &call);
    struct chunk_info info;
    if (rc == 0)
        rc = chunk_info_decode(call.reply_bulk, &info);
    if (rc == 0) {
        uint8_t *data = block_cache_room(io->blocks, info.plain_len);
        rc = chunk_open_into(io_pipeline(io), id, call.reply_bulk, data, info.plain_len, ret_len);
        if (rc == 0)
            *ret_data = data;
        else
            mem_free(data);
    }
    conn_call_deinit(&call);
    if (rc != 0 && rc != ERR_CLOSED && rc != ERR_CANCELLED) {
        char text[CHUNK_ID_TEXT_LEN + 1];
        chunk_id_to_text(id, text);
        log_error(LOG_CLIENT, "chunk_unreadable", "chunk=%s rc=%s", text, err_name(rc));
    }
    return rc == ERR_NOT_FOUND ? ERR_IO : rc;
}

/* A referenced, readable block. */
static int block_load(struct fileio *io, const struct chunk_id *id, struct block **ret)
{
    enum block_state state;
    struct block *b = block_cache_get(io->blocks, id, &state);
    int rc = 0;
    if (state == BLOCK_MISSING) {
        uint8_t *data = NULL;
        size_t len = 0;
        rc = chunk_fetch(io, id, &data, &len);
        block_cache_loaded(io->blocks, b, rc, data, len);
    } else if (state == BLOCK_LOADING) {
        rc = block_cache_wait(io->blocks, b);
    }
    if (rc != 0)
        block_cache_unref(io->blocks, b);
    else
        *ret = b;
    return rc;
}

static int chunk_put(struct fileio *io, const struct chunk_id *id, struct slice sealed)
{
    struct conn_call call;
    conn_call_init(&call, RPC_CHUNK_PUT);
    memcpy(call.req.chunk, id->b, sizeof call.req.chunk);
    call.req.has_chunk = true;
    call.bulk = sealed;
    int rc = conn_call_run(io->config.conn, &call);
    conn_call_deinit(&call);
    return rc;
}

static bool ride(struct riders *r, const struct chunk_id *id, struct slice sealed)
{
    pthread_mutex_lock(&r->lock);
    bool fits = r->open && r->count < RIDERS_MAX &&
                r->bulk.len + RIDER_HEAD_BYTES + sealed.len <= RIDERS_BYTES_MAX;
    if (fits) {
        rider_append(&r->bulk, id->b, sealed);
        r->count++;
    }
    pthread_mutex_unlock(&r->lock);
    return fits;
}

int chunk_send(struct fileio *io,
               const struct chunk_id *id,
               struct slice sealed,
               struct riders *riders)
{
    return ride(riders, id, sealed) ? 0 : chunk_put(io, id, sealed);
}

static bool site_has(struct fileio *io, const struct chunk_id *id)
{
    struct conn_call call;
    conn_call_init(&call, RPC_CHUNK_HAS);
    call.req.data = slice_of(id->b, sizeof id->b);
    int rc = conn_call_run(io->config.conn, &call);
    bool has = rc == 0 && call.reply.data.len == 1 && call.reply.data.ptr[0] == 1;
    conn_call_deinit(&call);
    return has;
}

/* Asking saves sending what the site has. Where it never has, only now and then. */
static bool worth_asking(struct fileio *io)
{
    pthread_mutex_lock(&io->lock);
    bool ask = io->absent < ABSENT_FEW || io->absent % ABSENT_ASK_EVERY == 0;
    io->absent += !ask;
    pthread_mutex_unlock(&io->lock);
    return ask;
}

static bool ask_site(struct fileio *io, const struct chunk_id *id)
{
    bool has = site_has(io, id);
    pthread_mutex_lock(&io->lock);
    io->absent = has ? 0 : io->absent + 1;
    pthread_mutex_unlock(&io->lock);
    return has;
}

/* Room for a chunk of so many bytes in the memory that the site sees, too; it never grows. */
static bool share_room(struct fileio *io, size_t plain_len, struct buf *ret)
{
    size_t len;
    uint8_t *share = plain_len < SHARE_BYTES_MIN ? NULL : conn_share(io->config.conn, &len);
    if (share == NULL || plain_len + CHUNK_OVERHEAD_BYTES_MAX > len)
        return false;
    *ret = (struct buf){.ptr = share, .cap = len};
    return true;
}

int chunk_store(struct fileio *io,
                struct chunk_pieces *plain,
                struct riders *riders,
                struct chunk_id *ret_id)
{
    struct pipeline *p = io_pipeline(io);
    struct buf own = {0}, shared, *sealed = &own;
    block_trim_pieces(plain);
    if (plain->len == 0) {
        *ret_id = CHUNK_ID_HOLE;
        return 0;
    }
    int rc = chunk_hash_pieces(p, plain, ret_id);
    bool ask = !riders->open && plain->len >= ASK_FIRST_BYTES && worth_asking(io);
    if (rc == 0 && !(ask && ask_site(io, ret_id))) {
        if (!riders->open && share_room(io, plain->len, &shared))
            sealed = &shared;
        rc = chunk_seal_pieces(p, ret_id, plain, sealed);
        if (rc == 0)
            rc = chunk_send(io, ret_id, buf_slice(sealed), riders);
    }
    buf_deinit(&own);
    return rc;
}

/* ---- manifest nodes ---- */

void node_lock(struct fileio *io, unsigned stripe)
{
    pthread_mutex_lock(&io->stripes[stripe].lock);
}

void node_unlock(struct fileio *io, unsigned stripe)
{
    pthread_mutex_unlock(&io->stripes[stripe].lock);
}

struct node_batch {
    struct fileio *io;
    unsigned stripe;
    const struct chunk_ids *ids;
};

static int node_load(void *ctx, size_t idx)
{
    const struct node_batch *b = ctx;
    uint8_t *data = NULL;
    size_t len = 0;
    int rc = chunk_fetch(b->io, &b->ids->at[idx], &data, &len);
    if (rc != 0)
        return rc;
    node_lock(b->io, b->stripe);
    rc = node_cache_put(b->io->stripes[b->stripe].nodes, &b->ids->at[idx], slice_of(data, len));
    node_unlock(b->io, b->stripe);
    mem_free(data);
    return rc;
}

bool nodes_brought(struct fileio *io, unsigned stripe, const struct chunk_ids *missing, int *rc)
{
    struct node_batch b = {.io = io, .stripe = stripe, .ids = missing};
    if (*rc != ERR_AGAIN)
        return false;
    *rc = io_each(io, missing->count, node_load, &b);
    return *rc == 0;
}

/* Ids of blocks [first, first + count). */
static int lookup(
    struct fileio *io, const struct base *b, uint64_t first, size_t count, struct chunk_id *ret_ids)
{
    const struct manifest *m = &b->manifest;
    unsigned stripe = b->stripe;
    struct chunk_ids missing = {0};
    int rc;
    do {
        node_lock(io, stripe);
        rc = manifest_lookup(io->stripes[stripe].nodes, m, first, count, ret_ids, &missing);
        if (rc == 0 && node_cache_bytes(io->stripes[stripe].nodes) > NODE_STRIPE_BYTES)
            node_cache_trim(io->stripes[stripe].nodes, NODE_STRIPE_BYTES / 2);
        node_unlock(io, stripe);
    } while (nodes_brought(io, stripe, &missing, &rc));
    chunk_ids_deinit(&missing);
    return rc;
}

/* ---- reading ---- */

struct read_batch {
    struct fileio *io;
    uint32_t block_bytes;
    uint64_t first; /* block of ids[0] */
    const struct chunk_id *ids;
    uint64_t from, to; /* bytes wanted */
    uint8_t *out;      /* out[0] is the byte at `from` */
    enum base_reading how;
};

static int read_block(void *ctx, size_t idx)
{
    const struct read_batch *b = ctx;
    uint64_t start = (b->first + idx) * b->block_bytes;
    uint64_t from = MAX(start, b->from), to = MIN(start + b->block_bytes, b->to);
    uint8_t *out = b->out + (from - b->from);
    if (chunk_id_is_hole(&b->ids[idx])) {
        memset(out, 0, (size_t)(to - from));
        return 0;
    }
    struct block *block;
    if (b->how == BASE_PARTS && !block_cache_has(b->io->blocks, &b->ids[idx]) &&
        part_read(b->io, &b->ids[idx], (uint32_t)(from - start), (uint32_t)(to - start), out))
        return 0;
    int rc = block_load(b->io, &b->ids[idx], &block);
    if (rc != 0)
        return rc;
    uint64_t end = MAX(from, MIN(to, start + block->len));
    if (end > from)
        memcpy(out, block->data + (from - start), (size_t)(end - from));
    memset(out + (end - from), 0, (size_t)(to - end));
    block_cache_unref(b->io->blocks, block);
    return 0;
}

/* In parallel if any of them has to be fetched. */
static int each_block(struct fileio *io,
                      const struct chunk_id *ids,
                      size_t count,
                      int (*fn)(void *ctx, size_t idx),
                      void *ctx)
{
    bool all_here = true;
    int rc = 0;
    for (size_t i = 0; i < count && all_here; i++)
        all_here = chunk_id_is_hole(&ids[i]) || block_cache_has(io->blocks, &ids[i]);
    if (!all_here)
        return io_each(io, count, fn, ctx);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = fn(ctx, i);
    return rc;
}

int base_read(struct fileio *io,
              struct base *b,
              uint64_t from,
              uint8_t *out,
              size_t len,
              enum base_reading how)
{
    if (b->content.kind == CONTENT_INLINE) {
        size_t have = from < b->content.bytes.len ? b->content.bytes.len - (size_t)from : 0;
        have = MIN(have, len);
        if (have > 0)
            memcpy(out, b->content.bytes.ptr + from, have);
        memset(out + have, 0, len - have);
        return 0;
    }
    uint64_t inside = from < b->manifest.size ? MIN(len, b->manifest.size - from) : 0;
    memset(out + inside, 0, len - (size_t)inside);
    if (inside == 0)
        return 0;
    uint32_t bb = b->manifest.block_bytes;
    uint64_t first = from / bb, last = (from + inside - 1) / bb;
    size_t count = (size_t)(last - first + 1);
    struct chunk_id few[16];
    struct chunk_id *ids = count <= ARRAY_COUNT(few) ? few : mem_calloc(count, sizeof *ids);
    int rc = lookup(io, b, first, count, ids);
    struct read_batch batch = {.io = io,
                               .block_bytes = bb,
                               .first = first,
                               .ids = ids,
                               .from = from,
                               .to = from + inside,
                               .out = out,
                               .how = how};
    if (rc == 0)
        rc = each_block(io, ids, count, read_block, &batch);
    if (ids != few)
        mem_free(ids);
    return rc;
}

/* ---- reading without a copy ---- */

struct view_batch {
    struct fileio *io;
    const struct chunk_id *ids;
    struct block *blocks[FILE_VIEW_BLOCKS_MAX]; /* NULL: a hole */
};

static int view_block(void *ctx, size_t idx)
{
    struct view_batch *b = ctx;
    return chunk_id_is_hole(&b->ids[idx]) ? 0 : block_load(b->io, &b->ids[idx], &b->blocks[idx]);
}

static void view_add(struct file_view *v, const uint8_t *ptr, size_t len)
{
    union {
        const uint8_t *in;
        void *out;
    } base = {.in = ptr}; /* who is given the view only reads it */
    if (len == 0)
        return;
    ASSERT((unsigned)v->count < FILE_VIEW_PIECES_MAX);
    v->at[v->count++] = (struct iovec){.iov_base = base.out, .iov_len = len};
}

static void view_add_zeros(struct file_view *v, size_t len)
{
    static const uint8_t zeros[ZEROS_BYTES];
    for (; len > 0; len -= MIN(len, ZEROS_BYTES))
        view_add(v, zeros, MIN(len, ZEROS_BYTES));
}

int base_view(struct fileio *io, struct base *b, uint64_t from, size_t len, struct file_view *v)
{
    ASSERT(len > 0 && len <= FILE_VIEW_BYTES_MAX && from + len <= b->manifest.size);
    uint32_t bb = b->manifest.block_bytes;
    uint64_t first = from / bb, last = (from + len - 1) / bb, end = from + len;
    size_t count = (size_t)(last - first + 1);
    struct chunk_id ids[FILE_VIEW_BLOCKS_MAX];
    ASSERT(count <= FILE_VIEW_BLOCKS_MAX);
    int rc = lookup(io, b, first, count, ids);
    struct view_batch batch = {.io = io, .ids = ids};
    if (rc == 0)
        rc = each_block(io, ids, count, view_block, &batch);
    for (size_t i = 0; i < count; i++) {
        uint64_t start = (first + i) * bb, at = MAX(start, from), to = MIN(start + bb, end);
        struct block *block = batch.blocks[i];
        if (block != NULL) {
            v->read_out |= rc == 0 && to - start >= block->len ? 1u << v->block_count : 0;
            v->blocks[v->block_count++] = block;
        }
        if (rc != 0)
            continue; /* the caller lets go of them */
        uint64_t there = block == NULL ? at : MAX(at, MIN(to, start + block->len));
        if (there > at)
            view_add(v, block->data + (at - start), (size_t)(there - at));
        view_add_zeros(v, (size_t)(to - there));
    }
    return rc;
}

struct ahead_task {
    struct io_task task;
    struct fileio *io;
    struct base *base;
    uint64_t block;
};

static void ahead_run(struct io_task *t)
{
    struct ahead_task *a = CONTAINER_OF(t, struct ahead_task, task);
    struct chunk_id id;
    struct block *b;
    /* Errors are met again, and reported, by who reads this block. */
    if (lookup(a->io, a->base, a->block, 1, &id) == 0 && !chunk_id_is_hole(&id) &&
        !block_cache_has(a->io->blocks, &id) && block_load(a->io, &id, &b) == 0)
        block_cache_unref(a->io->blocks, b);
    base_unref(a->io, a->base);
    mem_free(a);
}

void base_read_ahead(struct fileio *io, struct base *b, uint64_t from, uint64_t to)
{
    if (b->content.kind != CONTENT_MANIFEST)
        return;
    uint32_t bb = b->manifest.block_bytes;
    to = MIN(to, b->manifest.size);
    for (uint64_t block = (from + bb - 1) / bb; block * bb < to; block++) {
        struct ahead_task *a = mem_calloc(1, sizeof *a);
        *a = (struct ahead_task){
            .task.run = ahead_run, .io = io, .base = base_ref(io, b), .block = block};
        if (!io_submit(io, &a->task)) {
            base_unref(io, b);
            mem_free(a);
            return;
        }
    }
}
