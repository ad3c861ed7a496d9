/* Reading a little of a large block: only the parts of its chunk that are asked for are fetched and
 * opened, each checked by its tag (data/chunk.h).
 *
 * Normal path: the head of the chunk is known, the parts are in the block cache or one request
 * brings them. A head that is not known comes with a first part that is where it is if the chunk is
 * not compressed. Whatever goes wrong here is left to the reading of the whole chunk, which is
 * checked by its id, is repaired from elsewhere, and reports. */
#include "base/assert.h"
#include "client/fileio_int.h"

#define GUESS_PART_BYTES (1u << CHUNK_PART_SHIFT_MIN)

/* A place in a block, and where its bytes go. */
struct want {
    struct fileio *io;
    const struct chunk_id *id;
    uint32_t from, to;
    uint8_t *out;
};

static int get(const struct want *w, struct chunk_range r, uint32_t flags, struct conn_call *call)
{
    conn_call_init(call, RPC_CHUNK_GET);
    memcpy(call->req.chunk, w->id->b, sizeof call->req.chunk);
    call->req.has_chunk = true;
    call->req.size = r.from;
    call->req.count = r.len;
    call->req.flags = flags;
    return conn_call_run(w->io->config.conn, call);
}

/* Opens parts [first, first + count), which `sealed` holds, into the block cache. */
static int open_parts(const struct want *w,
                      const struct chunk_head *h,
                      uint32_t first,
                      uint32_t count,
                      struct slice sealed)
{
    int rc = 0;
    for (uint32_t i = first; i < first + count && rc == 0; i++) {
        size_t len = chunk_part_plain_len(h, i), bytes = chunk_part_range(h, i, 1).len;
        uint8_t *plain = mem_alloc(len);
        rc = chunk_part_open(io_pipeline(w->io), w->id, h, i, slice_of(sealed.ptr, bytes), plain);
        if (rc == 0)
            block_cache_insert(w->io->blocks, w->id, i, plain, len);
        else
            mem_free(plain);
        sealed = slice_of(sealed.ptr + bytes, sealed.len - bytes);
    }
    return rc;
}

/* Where the parts are if the chunk is not compressed. */
static struct chunk_range guess_range(uint32_t first, uint32_t count)
{
    uint32_t step = GUESS_PART_BYTES + CHUNK_TAG_BYTES;
    return (struct chunk_range){.from = CHUNK_HEADER_BYTES + first * step, .len = count * step};
}

static int fetch_head(const struct want *w, struct chunk_head *ret)
{
    uint32_t first = w->from / GUESS_PART_BYTES, last = (w->to - 1) / GUESS_PART_BYTES;
    struct chunk_range guess = guess_range(first, last - first + 1);
    struct conn_call call;
    int rc = get(w, guess, CHUNK_GET_HEAD, &call);
    struct slice bulk = call.reply_bulk;
    size_t chunk_len = (size_t)call.reply.number2, head_len = MIN(chunk_len, CHUNK_HEAD_BYTES_MAX);
    if (rc == 0 && (chunk_len == 0 || bulk.len < head_len))
        rc = ERR_PEER;
    if (rc == 0)
        rc = chunk_head_decode(slice_of(bulk.ptr, head_len), chunk_len, ret);
    if (rc == 0) {
        head_cache_put(w->io->heads, w->id, ret);
        bool right = !ret->info.compressed && ret->info.part_bytes == GUESS_PART_BYTES &&
                     last < ret->info.part_count;
        struct chunk_range r = {0};
        if (right)
            r = chunk_part_range(ret, first, last - first + 1);
        if (right && r.len == bulk.len - head_len)
            rc = open_parts(w, ret, first, last - first + 1, slice_of(bulk.ptr + head_len, r.len));
    }
    conn_call_deinit(&call);
    return rc;
}

static int fetch_parts(const struct want *w, const struct chunk_head *h, uint32_t first, uint32_t n)
{
    struct chunk_range r = chunk_part_range(h, first, n);
    struct conn_call call;
    int rc = get(w, r, 0, &call);
    if (rc == 0 && call.reply_bulk.len != r.len)
        rc = ERR_PEER;
    if (rc == 0)
        rc = open_parts(w, h, first, n, call.reply_bulk);
    conn_call_deinit(&call);
    return rc;
}

/* Copies what is wanted from the parts in the cache; false: not all are there. */
static bool copy_parts(const struct want *w, const struct chunk_head *h, uint32_t end)
{
    uint32_t part_bytes = h->info.part_bytes;
    for (uint32_t i = w->from / part_bytes; i * part_bytes < end; i++) {
        struct block *b = block_cache_part(w->io->blocks, w->id, i);
        if (b == NULL)
            return false;
        uint32_t start = i * part_bytes;
        uint32_t from = MAX(start, w->from), to = MIN(start + part_bytes, end);
        memcpy(w->out + (from - w->from), b->data + (from - start), to - from);
        block_cache_unref(w->io->blocks, b);
    }
    memset(w->out + (end - w->from), 0, w->to - end);
    return true;
}

bool part_read(
    struct fileio *io, const struct chunk_id *id, uint32_t from, uint32_t to, uint8_t *out)
{
    struct want w = {.io = io, .id = id, .from = from, .to = to, .out = out};
    struct chunk_head h;
    int rc = head_cache_get(io->heads, id, &h) ? 0 : fetch_head(&w, &h);
    if (rc == 0 && h.info.part_count > 1) {
        uint32_t end = MAX(from, MIN(to, h.info.plain_len)); /* a block ends with zeros */
        uint32_t first = from / h.info.part_bytes;
        if (copy_parts(&w, &h, end))
            return true;
        uint32_t count = (end - 1) / h.info.part_bytes - first + 1;
        if (head_cache_often(io->heads, id, count))
            return false;
        rc = fetch_parts(&w, &h, first, count);
        if (rc == 0 && copy_parts(&w, &h, end))
            return true;
    }
    if (rc != 0)
        head_cache_drop(io->heads, id);
    return false;
}
