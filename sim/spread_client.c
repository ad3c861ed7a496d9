/* One node and its targets: clients, who put, read, ask for and drop chunks. See spread.h. */
#include "base/assert.h"
#include "sim/spread_int.h"

#define ANSWER_NS (20 * NS_PER_SEC)
#define NOBODY_HAS UINT32_C(1000000) /* chunks from here on are never put */

static void client_over(struct spread_client *c)
{
    struct spread *w = c->world;
    c->busy = false;
    w->answered++;
    sched_in(&c->event, 1 + spread_below(2 * w->think_ns + 1));
}

/* SPREAD_NONE: none was found. */
static uint32_t any_live(const struct spread *w)
{
    for (unsigned i = 0; i < 20 && w->count > 0; i++) {
        uint32_t n = (uint32_t)spread_below(w->count);
        if (w->chunks[n].live)
            return n;
    }
    return SPREAD_NONE;
}

/* ---- put ---- */

static void looked(struct spread_look *l, uint32_t mask)
{
    struct spread_client *c = CONTAINER_OF(l, struct spread_client, look);
    struct spread *w = c->world;
    if (l->sure && w->moves == c->moves_seen && w->upsets == c->upsets_seen)
        spread_check_put(w, l->chunk, c->list, mask);
    client_over(c);
}

static void put_done(struct spread_put *p, int rc)
{
    struct spread_client *c = CONTAINER_OF(p, struct spread_client, put);
    if (rc != 0) { /* it asks again until it is answered */
        c->busy = false;
        sched_in(&c->event, 50 * NS_PER_MS + spread_below(200 * NS_PER_MS));
        return;
    }
    c->owes = SPREAD_NONE;
    c->look.chunk = p->chunk;
    spread_look_begin(&c->look);
}

static void put(struct spread_client *c)
{
    c->put.chunk = c->owes;
    spread_put_begin(&c->put);
}

static void put_new(struct spread_client *c)
{
    struct spread *w = c->world;
    if (w->count == SPREAD_CHUNKS) {
        client_over(c);
        return;
    }
    w->chunks[w->count].id = spread_chunk_id(w->count);
    c->owes = w->count++;
    put(c);
}

/* ---- get ---- */

static void read_done(struct spread_read *r, int rc)
{
    (void)rc; /* one that may not fail was found out */
    client_over(CONTAINER_OF(r, struct spread_client, read));
}

static void read_some(struct spread_client *c, uint32_t chunk)
{
    bool whole = spread_below(2) == 0;
    c->read.chunk = chunk;
    c->read.from = whole ? 0 : (uint32_t)spread_below(40);
    c->read.len = whole ? 0 : 1 + (uint32_t)spread_below(2000);
    spread_read_begin(&c->read);
}

/* ---- has ---- */

static void has_answered(struct spread_client *c)
{
    struct spread *w = c->world;
    bool same = w->upsets == c->upsets_seen && w->moves == c->moves_seen;
    uint32_t there = SPREAD_NONE;
    for (uint32_t i = 0; i < c->has.count; i++) {
        uint32_t n = c->asked[i];
        if (n >= NOBODY_HAS) {
            if (c->present[i])
                spread_fail(w, "P8", "a chunk that nobody has put is said to be there");
            continue;
        }
        if (!c->present[i] && same && c->must[i] && w->chunks[n].live)
            spread_fail(w, "P2", "chunk %u is said to be missing", n);
        if (c->present[i] && w->chunks[n].live)
            there = n;
    }
    if (there == SPREAD_NONE || !same) {
        client_over(c);
        return;
    }
    c->look.chunk = there;
    spread_look_begin(&c->look);
}

static void has_done(struct store_has *has, int rc)
{
    struct spread_client *c = CONTAINER_OF(has, struct spread_client, has);
    struct spread *w = c->world;
    struct spread_front *f = c->front;
    c->front = NULL;
    spread_front_leave(w, f);
    if (w->dying)
        return;
    if (rc != 0 && w->upsets == c->upsets_seen && spread_bad(w) == 0)
        spread_fail(w, "P3", "a question for chunks is refused: %s", err_name(rc));
    if (rc != 0)
        client_over(c);
    else
        has_answered(c);
}

static void has(struct spread_client *c)
{
    struct spread *w = c->world;
    uint32_t count = 1 + (uint32_t)spread_below(SPREAD_ASKS);
    bool quiet = spread_rests(w) && spread_bad(w) == 0;
    for (uint32_t i = 0; i < count; i++) {
        bool none = w->count == 0 || spread_below(4) == 0;
        uint32_t n =
            none ? NOBODY_HAS + (uint32_t)spread_below(1000000) : (uint32_t)spread_below(w->count);
        c->asked[i] = n;
        c->ids[i] = none ? spread_chunk_id(n) : w->chunks[n].id;
        c->must[i] = !none && quiet && w->chunks[n].live;
    }
    c->front = spread_front_use(w->front);
    c->has = (struct store_has){.ids = c->ids,
                                .count = count,
                                .keep = spread_below(2) == 0,
                                .present = c->present,
                                .done = has_done};
    int rc = front_has(c->front->front, &c->has);
    if (rc != 0)
        has_done(&c->has, rc);
}

/* ---- one call after the other ---- */

static void begin(struct spread_client *c)
{
    struct spread *w = c->world;
    unsigned what = (unsigned)spread_below(20);
    uint32_t chunk = any_live(w);
    if (chunk == SPREAD_NONE || what < 8) {
        put_new(c);
    } else if (what < 10) {
        c->owes = chunk; /* it is there already */
        put(c);
    } else if (what < 17) {
        read_some(c, chunk);
    } else if (what < 19) {
        has(c);
    } else {
        w->chunks[chunk].live = false;
        w->chunks[chunk].dropped = true;
        client_over(c);
    }
}

static void client_next(struct sched_event *e)
{
    struct spread_client *c = CONTAINER_OF(e, struct spread_client, event);
    struct spread *w = c->world;
    if (w->loop == NULL || c->busy || (w->closing && c->owes == SPREAD_NONE))
        return;
    c->busy = true;
    c->began_ns = sched->now_ns;
    c->list = w->now;
    c->moves_seen = w->moves;
    c->upsets_seen = w->upsets;
    if (c->owes != SPREAD_NONE && w->chunks[c->owes].dropped)
        c->owes = SPREAD_NONE; /* another one did */
    if (c->owes == SPREAD_NONE)
        begin(c);
    else
        put(c);
}

void spread_clients_init(struct spread *w)
{
    for (unsigned i = 0; i < SPREAD_CLIENTS; i++) {
        struct spread_client *c = &w->clients[i];
        c->world = c->read.world = c->put.world = c->look.world = w;
        c->event.run = client_next;
        c->owes = SPREAD_NONE;
        c->read.done = read_done;
        c->put.done = put_done;
        c->look.done = looked;
    }
}

void spread_clients_dropped(struct spread *w)
{
    for (unsigned i = 0; i < SPREAD_CLIENTS; i++) {
        w->clients[i].busy = false;
        sched_cancel(&w->clients[i].event);
    }
}

void spread_clients_resume(struct spread *w)
{
    for (unsigned i = 0; i < SPREAD_CLIENTS; i++)
        sched_in(&w->clients[i].event, 1 + spread_below(w->think_ns + 1));
}

bool spread_clients_idle(const struct spread *w)
{
    for (unsigned i = 0; i < SPREAD_CLIENTS; i++)
        if (w->clients[i].busy || w->clients[i].owes != SPREAD_NONE)
            return false;
    return true;
}

void spread_clients_check(struct spread *w)
{
    for (unsigned i = 0; i < SPREAD_CLIENTS; i++)
        if (w->clients[i].busy && sched->now_ns - w->clients[i].began_ns > ANSWER_NS)
            spread_fail(w, "P3", "client %u waits for its answer", i);
}
