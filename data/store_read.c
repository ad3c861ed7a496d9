/* Gets and has. */
#include "base/assert.h"
#include "base/limits.h"
#include "data/store_int.h"

void chunk_buf_deinit(struct chunk_buf *b)
{
    mem_free(b->mem);
    *b = (struct chunk_buf){0};
}

void damage_found(struct store *s, const struct chunk_id *id)
{
    if (id_map_get(&s->damaged, id) != NULL)
        return;
    id_map_set(&s->damaged, id, 1);
    if (s->on_damaged != NULL)
        s->on_damaged(s->ctx, id);
}

/* ---- get ---- */

static void get_finish(struct store_get *get, int rc)
{
    struct store *s = get->store;
    get->rc = rc;
    get->next = NULL;
    *s->finished_gets_last = get;
    s->finished_gets_last = &get->next;
    finish_kick(s);
}

static void get_lookup(struct store_get *get);

struct span {
    uint32_t from, len;
};

static void read_submit(struct store_get *get)
{
    struct io_uring_sqe *sqe = loop_sqe(get->store->loop);
    io_uring_prep_read(sqe, get->segment->fd, get->into + get->got, get->want - get->got,
                       get->read_at + get->got);
    loop_sqe_bind(sqe, &get->req);
}

/* The bytes of the chunk that are asked for; `from` may be its end. */
static struct span range_of(const struct store_get *get)
{
    uint32_t len = get->lookup.entry.len;
    uint32_t from = get->len == 0 ? 0 : MIN(get->from, len);
    return (struct span){.from = from, .len = get->len == 0 ? len : MIN(get->len, len - from)};
}

/* What was read is the record that the index promised, whole; or the range of it. */
static bool read_good(struct store_get *get)
{
    const struct store_entry *e = &get->lookup.entry;
    struct span range = range_of(get);
    struct record r;
    const uint8_t *ptr = get->into + get->skip;
    get->chunk_len = e->len;
    if (get->len != 0) {
        get->buf.data = slice_of(ptr, range.len);
        return get->got >= get->skip + range.len;
    }
    if (get->got < get->skip + STORE_RECORD_HEADER_BYTES + e->len)
        return false;
    if (segment_record_decode(slice_of(ptr, get->got - get->skip), &r) != 0 ||
        !chunk_id_equal(&r.id, &get->id) || r.len != e->len ||
        !record_data_good(&r, ptr + STORE_RECORD_HEADER_BYTES))
        return false;
    get->buf.data = slice_of(ptr + STORE_RECORD_HEADER_BYTES, e->len);
    return true;
}

static void read_done(struct loop_req *req, int res, uint32_t cqe_flags)
{
    struct store_get *get = CONTAINER_OF(req, struct store_get, req);
    struct store *s = get->store;
    (void)cqe_flags;
    if (res == -EINTR || res == -EAGAIN) {
        read_submit(get);
        return;
    }
    if (res > 0) {
        get->got += (uint32_t)res;
        if (get->got < get->want && get->got % STORE_BLOCK_BYTES == 0) {
            read_submit(get); /* ends with 0 at the end of the file */
            return;
        }
    }
    segment_unref(s, get->segment);
    get->segment = NULL;
    if (res < 0 && res != -EIO) {
        get_finish(get, err_from_errno(-res));
        return;
    }
    if (read_good(get)) {
        if (get->len == 0) /* it was checked, so a disk that failed has come to itself */
            (void)id_map_del(&s->damaged, &get->id); /* whether it was there does not matter */
        get_finish(get, 0);
        return;
    }
    chunk_buf_deinit(&get->buf);
    if (get->into == get->room) { /* whoever shares it may have written to it */
        get->room = NULL;
        get_lookup(get);
        return;
    }
    /* A sector that cannot be read is damage as well. But is it still the record to be read? */
    struct store_entry now;
    int rc = lookup_now(s, &get->id, &now);
    if (rc == 0 &&
        (now.segment != get->lookup.entry.segment || now.offset != get->lookup.entry.offset) &&
        get->tries < STORE_READ_TRIES) {
        get_lookup(get);
        return;
    }
    damage_found(s, &get->id);
    get_finish(get, ERR_CORRUPT);
}

static void get_resolved(struct store_get *get, int rc)
{
    struct store *s = get->store;
    const struct store_entry *e = &get->lookup.entry;
    if (rc != 0 || e->segment == 0) {
        get_finish(get, rc != 0 ? rc : ERR_NOT_FOUND);
        return;
    }
    /* Whole it is read again: the disk may only have failed for a while. */
    if (get->len != 0 && id_map_get(&s->damaged, &get->id) != NULL) {
        get_finish(get, ERR_CORRUPT);
        return;
    }
    struct store_segment *seg = segment_find(s, e->segment);
    if (seg == NULL || e->len == 0 || e->len > LIMIT_CHUNK_SEALED_BYTES) {
        damage_found(s, &get->id);
        get_finish(get, ERR_CORRUPT);
        return;
    }
    rc = segment_ref(s, seg);
    if (rc != 0) {
        get_finish(get, rc);
        return;
    }
    struct span range = range_of(get);
    uint64_t at = e->offset, end = e->offset + STORE_RECORD_HEADER_BYTES + range.from + range.len;
    if (get->len != 0)
        at += STORE_RECORD_HEADER_BYTES + range.from;
    get->segment = seg;
    get->read_at = at / STORE_BLOCK_BYTES * STORE_BLOCK_BYTES;
    get->skip = (uint32_t)(at - get->read_at);
    get->want = (uint32_t)align_up(MAX(end, at + 1) - get->read_at, STORE_BLOCK_BYTES);
    get->got = 0;
    bool fits = get->room != NULL && get->want <= get->room_len &&
                (uintptr_t)get->room % STORE_ROOM_ALIGN == 0;
    if (!fits)
        get->buf.mem = mem_aligned(STORE_BLOCK_BYTES, get->want);
    get->into = fits ? get->room : get->buf.mem;
    get->req.done = read_done;
    read_submit(get);
}

static void get_looked_up(struct store_lookup *lookup)
{
    struct store_get *get = CONTAINER_OF(lookup, struct store_get, lookup);
    get_resolved(get, lookup->rc);
}

static void get_lookup(struct store_get *get)
{
    get->tries++;
    int rc = lookup_now(get->store, &get->id, &get->lookup.entry);
    if (rc != ERR_AGAIN) {
        get_resolved(get, rc);
        return;
    }
    get->lookup.id = get->id;
    get->lookup.done = get_looked_up;
    lookup_submit(get->store, &get->lookup);
}

void get_submit(struct store *s, struct store_get *get)
{
    get->store = s;
    get->segment = NULL;
    get->buf = (struct chunk_buf){0};
    get->tries = 0;
    s->get_count++;
    get_lookup(get);
}

int store_get(struct store *s, struct store_get *get)
{
    ASSERT(loop_here(s->loop));
    if (s->closing)
        return ERR_CLOSED;
    if (s->get_count >= s->queue_max)
        return ERR_LIMIT;
    s->gets++;
    get_submit(s, get);
    return 0;
}

/* ---- has ---- */

struct store_has_lookup {
    struct store_lookup lookup;
    struct store_has *has;
    uint32_t idx;
};

static void has_finish(struct store_has *has)
{
    struct store *s = has->store;
    mem_free(has->lookups);
    has->lookups = NULL;
    has->next = NULL;
    *s->finished_has_last = has;
    s->finished_has_last = &has->next;
    finish_kick(s);
}

static void has_answer(struct store_has *has, uint32_t idx, const struct store_entry *entry)
{
    const struct chunk_id *id = &has->ids[idx];
    has->present[idx] = entry_usable(has->store, id, entry);
    if (has->present[idx] && has->keep)
        entry_touch(has->store, id, entry);
}

static void has_looked_up(struct store_lookup *lookup)
{
    struct store_has_lookup *l = CONTAINER_OF(lookup, struct store_has_lookup, lookup);
    struct store_has *has = l->has;
    if (lookup->rc != 0)
        has->rc = lookup->rc;
    else
        has_answer(has, l->idx, &lookup->entry);
    if (--has->open == 0)
        has_finish(has);
}

/* Notes that the answer for ids[idx] takes the disk. */
static void has_defer(struct store_has *has, uint32_t idx, uint32_t *cap)
{
    if (has->open == *cap) {
        *cap = *cap == 0 ? 16 : *cap * 2;
        has->lookups = mem_realloc(has->lookups, *cap * sizeof *has->lookups);
    }
    has->lookups[has->open++] = (struct store_has_lookup){
        .lookup = {.id = has->ids[idx], .done = has_looked_up}, .has = has, .idx = idx};
}

int store_has(struct store *s, struct store_has *has)
{
    ASSERT(loop_here(s->loop));
    if (s->closing)
        return ERR_CLOSED;
    if (has->count == 0 || has->count > STORE_HAS_MAX)
        return ERR_INVALID;
    if (s->has_count >= s->queue_max)
        return ERR_LIMIT;
    s->has_count++;
    has->store = s;
    has->rc = 0;
    has->lookups = NULL;
    has->open = 0;
    uint32_t cap = 0;
    memset(has->present, 0, has->count * sizeof *has->present);
    for (uint32_t i = 0; i < has->count; i++) {
        struct store_entry entry = {0};
        int rc = chunk_id_is_hole(&has->ids[i]) ? 0 : lookup_now(s, &has->ids[i], &entry);
        if (rc == ERR_AGAIN)
            has_defer(has, i, &cap);
        else if (rc != 0)
            has->rc = rc;
        else
            has_answer(has, i, &entry);
    }
    uint32_t slow = has->open;
    for (uint32_t i = 0; i < slow; i++)
        lookup_submit(s, &has->lookups[i].lookup);
    if (slow == 0)
        has_finish(has);
    return 0;
}
