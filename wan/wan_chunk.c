/* Chunks between sites: asking peers for what the node lacks.
 *
 * A fetch asks one peer at a time, the one with the shortest round trip first; "not here" and a
 * lost link both move on to the next. Those that there is no link to are asked through others, the
 * shortest way first (wan_chunk_ask.c), when these have answered, so that what is near is taken
 * from there. With no link or way at all it waits a while, because links come back in fractions of
 * a second; nobody tells when one between two others has, so all are asked again, once a second.
 * Requests for the same chunk share one fetch. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "wan/wan_chunk_int.h"

#define RESUME_TRIES 64u

/* Somebody on the loop who wants a chunk. */
struct want {
    struct wan_msg msg;    /* to the WAN thread */
    struct loop_msg reply; /* and back */
    struct want *next;
    struct chunk_id id;
    chunk_got_cb cb;
    void *cctx;
    int rc;
    struct buf bytes;
};
struct wan_fetch {
    struct wan *wan;
    struct wan_fetch *hash_next;
    struct wan_fetch *prev, *next; /* in the queue, while no peer is asked */
    struct chunk_id id;
    struct want *wants;
    struct {
        site_id_t site;
        bool absent;         /* it has said that it has it not */
    } asked[SITE_COUNT_MAX]; /* in this round */
    uint32_t asked_count;
    bool busy;                    /* one of them had no time for us */
    bool cut;                     /* another site has no link to one of them */
    bool asking;                  /* it follows a request, and is not in the queue */
    struct chunk_follower answer; /* of that */
    uint64_t began_ns, round_ns;
};

/* --- answers --- */

static void want_reply(struct loop_msg *msg)
{
    struct want *q = CONTAINER_OF(msg, struct want, reply);
    q->cb(q->cctx, q->rc, &q->bytes);
    buf_deinit(&q->bytes);
    mem_free(q);
}

static void want_answer(struct wan *w, struct want *q, int rc, struct buf *bytes)
{
    q->rc = rc;
    if (bytes != NULL)
        buf_move(&q->bytes, bytes);
    q->reply.run = want_reply;
    loop_post(w->loop, &q->reply);
}

static void queue_remove(struct wan_fetch *f)
{
    struct wan *w = f->wan;
    if (f->prev != NULL)
        f->prev->next = f->next;
    else
        w->fetches.first = f->next;
    if (f->next != NULL)
        f->next->prev = f->prev;
    else
        w->fetches.last = f->prev;
    f->prev = f->next = NULL;
}

static void queue_add(struct wan_fetch *f)
{
    struct wan *w = f->wan;
    f->prev = w->fetches.last;
    f->next = NULL;
    if (f->prev != NULL)
        f->prev->next = f;
    else
        w->fetches.first = f;
    w->fetches.last = f;
}

static struct wan_fetch **bucket(struct wan *w, const struct chunk_id *id)
{
    /* Ids are hashes, and keyed: their own bytes spread well. */
    return &w->fetches.buckets[((unsigned)id->b[0] << 8 | id->b[1]) % WAN_FETCH_BUCKETS];
}

static struct wan_fetch *fetch_find(struct wan *w, const struct chunk_id *id)
{
    struct wan_fetch *f = *bucket(w, id);
    while (f != NULL && !chunk_id_equal(&f->id, id))
        f = f->hash_next;
    return f;
}

static void fetch_forget(struct wan_fetch *f)
{
    struct wan_fetch **at = bucket(f->wan, &f->id);
    while (*at != f)
        at = &(*at)->hash_next;
    *at = f->hash_next;
    f->wan->fetches.count--;
    if (!f->asking)
        queue_remove(f);
}

/* bytes: the chunk, taken; none when there is an error. */
static void fetch_end(struct wan_fetch *f, int rc, struct buf *bytes)
{
    struct wan *w = f->wan;
    struct want *q = f->wants;
    fetch_forget(f);
    while (q != NULL) {
        struct want *next = q->next;
        struct buf copy = {0};
        if (rc == 0 && next != NULL) {
            buf_append(&copy, bytes->ptr, bytes->len);
            want_answer(w, q, 0, &copy);
        } else {
            want_answer(w, q, rc, rc == 0 ? bytes : NULL);
        }
        q = next;
    }
    mem_free(f);
}

/* --- asking --- */

static bool was_asked(const struct wan_fetch *f, site_id_t site)
{
    for (uint32_t i = 0; i < f->asked_count; i++)
        if (f->asked[i].site == site)
            return true;
    return false;
}

static bool is_absent(const struct wan_fetch *f, site_id_t site)
{
    for (uint32_t i = 0; i < f->asked_count; i++)
        if (f->asked[i].site == site)
            return f->asked[i].absent;
    return false;
}

static void asked_add(struct wan_fetch *f, site_id_t site, bool absent)
{
    uint32_t i = 0;
    while (i < f->asked_count && f->asked[i].site != site)
        i++;
    if (i == SITE_COUNT_MAX)
        return;
    if (i == f->asked_count)
        f->asked[f->asked_count++].absent = false;
    f->asked[i].site = site;
    f->asked[i].absent = f->asked[i].absent || absent;
}

/* Who is asked in order to reach p: itself, or the first of the way to it. NULL: none is known. */
static struct wan_peer *first_to(struct wan_peer *p)
{
    if (wan_peer_reached(p))
        return p;
    struct wan_peer *first = p->way.count > 1 ? wan_peer_by_site(p->wan, p->way.at[0]) : NULL;
    return first != NULL && wan_peer_reached(first) ? first : NULL;
}

static struct way way_to(const struct wan_peer *p, const struct wan_peer *first)
{
    return p == first ? (struct way){.count = 1, .at = {p->member.site}} : p->way;
}

static bool is_nearer(const struct wan_peer *p,
                      const struct wan_peer *first,
                      const struct wan_peer *than,
                      const struct wan_peer *its_first)
{
    uint32_t count = way_to(p, first).count, its_count = way_to(than, its_first).count;
    return count != its_count ? count < its_count
                              : h2_rtt_ns(first->conn) < h2_rtt_ns(its_first->conn);
}

enum later {
    LATER_NEVER, /* all were asked */
    LATER_LINK,  /* somebody left cannot be reached now */
    LATER_ROOM   /* somebody left has as many requests as may be */
};

/* The best peer to ask, or NULL and what there is to wait for. */
static struct wan_peer *peer_choose(const struct wan_fetch *f, enum later *ret_later)
{
    struct wan_peer *best = NULL, *best_first = NULL, *giver = f->wan->fetches.giver;
    *ret_later = LATER_NEVER;
    for (struct wan_peer *p = f->wan->peers; p != NULL; p = p->next) {
        if (was_asked(f, p->member.site) || !wan_peer_wanted(p))
            continue;
        struct wan_peer *first = first_to(p);
        if (first == NULL) {
            *ret_later = MAX(*ret_later, LATER_LINK);
            continue;
        }
        struct way way = way_to(p, first);
        if (!chunk_ask_room(first, &f->id, &way, CHUNK_OWN)) {
            *ret_later = LATER_ROOM;
        } else if (best == NULL || is_nearer(p, first, best, best_first)) {
            best = p;
            best_first = first;
        }
    }
    /* Who passes on what the last one gave has, most likely, not this one either: one request asks
     * both. */
    if (best != NULL && best == best_first && giver != NULL && giver != best &&
        wan_peer_wanted(giver) && !was_asked(f, giver->member.site) && first_to(giver) == best)
        return giver;
    return best;
}

static void fetch_refused(struct wan_fetch *f, const struct chunk_answer *a)
{
    const struct way *way = a->way;
    bool cut = a->status != 404 && way->count > 1 && a->said->rc == ERR_UNREACHABLE;
    uint32_t absent = a->status == 404 ? way->count : 0;
    /* Who has no link to the next one has looked for it, and so have those before. */
    for (uint32_t i = 0; cut && i < way->count && absent == 0; i++)
        absent = way->at[i] == a->said->site ? i + 1 : 0;
    for (uint32_t i = 0; i < absent; i++)
        asked_add(f, way->at[i], true);
    asked_add(f, way_last(way), false);
    f->cut = f->cut || cut;
    f->busy = f->busy || (a->status != 404 && !cut);
}

static void fetch_answered(struct chunk_follower *answer, const struct chunk_answer *a)
{
    struct wan_fetch *f = CONTAINER_OF(answer, struct wan_fetch, answer);
    struct wan *w = f->wan;
    f->asking = false;
    queue_add(f);
    if (a->rc != 0)
        return; /* a lost link may come back and is asked again */
    if (a->status != 200) {
        fetch_refused(f, a);
        return;
    }
    struct buf bytes = {0};
    chunk_answer_take(a, &bytes);
    w->fetches.giver = a->way->count > 1 ? wan_peer_by_site(w, way_last(a->way)) : NULL;
    fetch_end(f, 0, &bytes);
    buf_deinit(&bytes);
}

enum went {
    WENT_OFF,   /* a peer is being asked */
    WENT_WAITS, /* nobody can be asked now */
    WENT_ENDED  /* the fetch is gone */
};

/* Nobody has it, of all members; one that is paused was not asked. */
static int nobody_has(const struct wan_fetch *f)
{
    for (const struct wan_peer *p = f->wan->peers; p != NULL; p = p->next)
        if (!p->gone && !is_absent(f, p->member.site))
            return ERR_UNREACHABLE;
    return f->asked_count > 0 ? ERR_NOT_FOUND : ERR_UNREACHABLE;
}

static enum went fetch_go(struct wan_fetch *f)
{
    enum later later;
    struct wan_peer *p = peer_choose(f, &later);
    if (p == NULL && later == LATER_NEVER && (f->busy || !f->cut)) {
        fetch_end(f, f->busy ? ERR_AGAIN : nobody_has(f), NULL);
        return WENT_ENDED;
    }
    if (p == NULL)
        return WENT_WAITS;
    struct wan_peer *first = first_to(p);
    struct way way = way_to(p, first);
    f->answer.over = fetch_answered;
    if (!chunk_ask(first, &f->id, &way, CHUNK_OWN, &f->answer))
        return WENT_WAITS;
    queue_remove(f);
    f->asking = true;
    return WENT_OFF;
}

void wan_fetch_found(struct wan *w, const struct chunk_id *id, struct slice bytes)
{
    struct wan_fetch *f = fetch_find(w, id);
    if (f == NULL || f->asking)
        return;
    struct buf copy = {0};
    buf_append(&copy, bytes.ptr, bytes.len);
    fetch_end(f, 0, &copy);
    buf_deinit(&copy);
}

void wan_fetch_resume(struct wan *w)
{
    /* A few that wait for one particular peer must not hold up the rest; many mean that all are
     * busy. */
    uint32_t waiting = 0;
    for (struct wan_fetch *f = w->fetches.first, *next; f != NULL && waiting < RESUME_TRIES;
         f = next) {
        next = f->next;
        waiting += fetch_go(f) == WENT_WAITS;
    }
}

/* Who was waited for has not come, or is no member any more, which wakes nobody. */
void wan_fetch_tick(struct wan *w, uint64_t now_ns)
{
    for (struct wan_fetch *f = w->fetches.first, *next; f != NULL; f = next) {
        next = f->next;
        enum later later;
        if (now_ns - f->round_ns < WAN_FETCH_ROUND_NS)
            continue;
        f->round_ns = now_ns;
        if (peer_choose(f, &later) != NULL || later == LATER_ROOM)
            continue;
        if (now_ns - f->began_ns > WAN_FETCH_WAIT_NS) {
            fetch_end(f, ERR_UNREACHABLE, NULL);
            continue;
        }
        f->asked_count = 0;
        f->cut = f->busy = false;
        (void)fetch_go(f); /* whatever it did, it is in the right place */
    }
}

static struct wan_fetch *fetch_new(struct wan *w, struct want *q)
{
    struct wan_fetch *f = mem_calloc(1, sizeof *f);
    f->wan = w;
    f->began_ns = f->round_ns = wan_now_ns(w);
    f->id = q->id;
    f->wants = q;
    f->hash_next = *bucket(w, &f->id);
    *bucket(w, &f->id) = f;
    w->fetches.count++;
    queue_add(f);
    return f;
}

static void want_run(struct wan *w, struct wan_msg *m)
{
    struct want *q = CONTAINER_OF(m, struct want, msg);
    struct wan_fetch *f = fetch_find(w, &q->id);
    if (f != NULL) {
        q->next = f->wants;
        f->wants = q;
    } else if (w->stopping || w->fetches.count >= WAN_FETCH_WAITING_MAX) {
        want_answer(w, q, w->stopping ? ERR_CLOSED : ERR_LIMIT, NULL);
    } else {
        (void)fetch_go(fetch_new(w, q)); /* whatever it did, it is in the right place */
    }
}

static void want_drop(struct wan_msg *m)
{
    mem_free(CONTAINER_OF(m, struct want, msg));
}

void wan_chunk_fetch(void *fctx, const uint8_t id[32], chunk_got_cb cb, void *cctx)
{
    struct want *q = mem_calloc(1, sizeof *q);
    q->id = chunk_id_of(id);
    q->cb = cb;
    q->cctx = cctx;
    q->msg.run = want_run;
    q->msg.drop = want_drop;
    wan_push(fctx, &q->msg);
}

void wan_fetch_free(struct wan *w)
{
    /* All links are gone, so all fetches are in the queue. */
    while (w->fetches.first != NULL) {
        struct wan_fetch *f = w->fetches.first;
        fetch_forget(f);
        while (f->wants != NULL) {
            struct want *q = f->wants;
            f->wants = q->next;
            mem_free(q);
        }
        mem_free(f);
    }
}
