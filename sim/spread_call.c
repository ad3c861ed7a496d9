/* One node and its targets: calls of the front, and looks past it. See spread.h. */
#include <string.h>

#include "base/assert.h"
#include "sim/spread_int.h"

#define CHUNK_BYTES_MIN 40u
#define CHUNK_BYTES_MORE 3000u
#define TRIES_MAX 3u

/* ---- chunks ---- */

static struct rng rng_of(uint32_t number, uint64_t what)
{
    struct rng r;
    rng_seed(&r, (what << 32 | number) ^ 0x5b7ead);
    return r;
}

struct chunk_id spread_chunk_id(uint32_t number)
{
    struct chunk_id id;
    struct rng r = rng_of(number, 1);
    for (unsigned i = 0; i < CHUNK_ID_BYTES; i += 8) {
        uint64_t word = rng_next(&r);
        memcpy(id.b + i, &word, sizeof word);
    }
    memcpy(id.b + CHUNK_ID_BYTES - sizeof number, &number, sizeof number);
    return id;
}

uint32_t spread_chunk_number(const struct chunk_id *id)
{
    uint32_t number;
    memcpy(&number, id->b + CHUNK_ID_BYTES - sizeof number, sizeof number);
    return number;
}

void spread_chunk_bytes(uint32_t number, struct buf *ret)
{
    struct rng r = rng_of(number, 2);
    size_t len = CHUNK_BYTES_MIN + rng_below(&r, CHUNK_BYTES_MORE);
    buf_clear(ret);
    buf_reserve(ret, len + 8);
    while (ret->len < len) {
        uint64_t word = rng_next(&r);
        buf_append(ret, &word, sizeof word);
    }
    ret->len = len;
}

/* ---- reads ---- */

static bool is_right(const struct spread_read *r, struct slice data)
{
    struct buf all = {0};
    spread_chunk_bytes(r->chunk, &all);
    struct slice want = buf_slice(&all);
    if (r->len > 0) {
        size_t from = MIN(r->from, want.len);
        want = slice_of(want.ptr + from, MIN(r->len, want.len - from));
    }
    bool right = slice_equal(want, data) && r->get.chunk_len == all.len;
    buf_deinit(&all);
    return right;
}

/* No copy is to spare, and a disk is bad. */
static bool may_be_gone(const struct spread *w)
{
    return spread_width(w, w->now) == 1 && spread_bad(w) != 0;
}

static void read_failed(struct spread_read *r, int rc)
{
    struct spread *w = r->world;
    if (w->chunks[r->chunk].live && !may_be_gone(w))
        spread_fail(
            w, "P2", "chunk %u cannot be read: %s; targets %x, before %x, bad %x, lay at %x",
            r->chunk, err_name(rc), w->now, w->before, spread_bad(w), w->chunks[r->chunk].where);
    r->done(r, rc);
}

static void read_ask(struct spread_read *r);

static void read_got(struct spread_read *r, int rc, const struct chunk_buf *data)
{
    struct spread *w = r->world;
    if (rc != 0 && r->tries < TRIES_MAX && (w->moves != r->moves_seen || w->old != NULL)) {
        read_ask(r);
    } else if (rc != 0) {
        read_failed(r, rc);
    } else if (is_right(r, data->data)) {
        r->done(r, 0);
    } else if (r->len > 0) { /* parts have tags: then the whole is read */
        r->from = r->len = 0;
        r->tries = 0;
        read_ask(r);
    } else {
        spread_fail(w, "P8", "chunk %u is read with wrong bytes", r->chunk);
    }
}

static void get_done(struct store_get *get, int rc, struct chunk_buf *data)
{
    struct spread_read *r = CONTAINER_OF(get, struct spread_read, get);
    struct spread_front *f = r->front;
    r->front = NULL;
    spread_front_leave(r->world, f);
    if (!r->world->dying)
        read_got(r, rc, data);
}

/* While chunks are being moved it is in its place by the list, or as it was before. */
static void read_ask(struct spread_read *r)
{
    struct spread *w = r->world;
    bool old = r->tries++ == 1 && w->old != NULL;
    r->moves_seen = w->moves;
    r->front = spread_front_use(old ? w->old : w->front);
    r->get = (struct store_get){
        .id = w->chunks[r->chunk].id, .from = r->from, .len = r->len, .done = get_done};
    int rc = front_get(r->front->front, &r->get);
    if (rc != 0)
        get_done(&r->get, rc, NULL);
}

void spread_read_begin(struct spread_read *r)
{
    ASSERT(r->world->loop != NULL);
    r->tries = 0;
    read_ask(r);
}

/* ---- puts ---- */

static void put_done(struct store_put *put, int rc)
{
    struct spread_put *p = CONTAINER_OF(put, struct spread_put, put);
    struct spread *w = p->world;
    struct spread_chunk *c = &w->chunks[p->chunk];
    struct spread_front *f = p->front;
    p->front = NULL;
    c->puts--;
    buf_deinit(&p->data);
    spread_front_leave(w, f);
    if (w->dying)
        return;
    if (rc == 0 && !c->live && !c->dropped) {
        c->live = true;
        c->damaged = false;
        c->put_moves = w->moves == p->moves_seen ? w->moves : UINT64_MAX;
        c->put_rots = w->rots;
        w->put_count++;
    }
    if (rc != 0 && w->upsets == p->upsets_seen && spread_bad(w) == 0)
        spread_fail(w, "P3", "chunk %u is refused: %s", p->chunk, err_name(rc));
    p->done(p, rc);
}

void spread_put_begin(struct spread_put *p)
{
    struct spread *w = p->world;
    spread_chunk_bytes(p->chunk, &p->data);
    w->chunks[p->chunk].puts++;
    p->upsets_seen = w->upsets;
    p->moves_seen = w->moves;
    p->front = spread_front_use(w->front);
    p->put = (struct store_put){
        .id = w->chunks[p->chunk].id, .data = buf_slice(&p->data), .done = put_done};
    int rc = front_put(p->front->front, &p->put);
    if (rc != 0)
        put_done(&p->put, rc);
}

/* ---- looks ---- */

static void look_over(struct spread_look *l)
{
    uint32_t mask = 0;
    for (unsigned i = 0; i < SPREAD_TARGETS; i++)
        mask |= (uint32_t)l->ones[i].present << i;
    l->done(l, mask);
}

static void look_one_done(struct store_has *has, int rc)
{
    struct spread_look_one *one = CONTAINER_OF(has, struct spread_look_one, has);
    struct spread_look *l = one->look;
    l->sure = l->sure && rc == 0;
    if (--l->open == 0 && !l->world->dying)
        look_over(l);
}

void spread_look_begin(struct spread_look *l)
{
    struct spread *w = l->world;
    uint32_t bad = spread_bad(w);
    l->sure = bad == 0;
    l->open = 0;
    for (unsigned i = 0; i < SPREAD_TARGETS; i++) {
        struct spread_target *t = &w->targets[i];
        struct spread_look_one *one = &l->ones[i];
        *one = (struct spread_look_one){.look = l};
        if (t->store == NULL || t->closing || (w->now & 1u << i) == 0)
            continue;
        one->has = (struct store_has){.ids = &w->chunks[l->chunk].id,
                                      .count = 1,
                                      .present = &one->present,
                                      .done = look_one_done};
        int rc = store_has(t->store, &one->has);
        l->sure = l->sure && rc == 0;
        l->open += rc == 0;
    }
    if (l->open == 0)
        look_over(l);
}
