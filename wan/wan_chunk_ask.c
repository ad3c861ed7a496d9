/* One request for a chunk: to a site that one has a link to, for itself or for one beyond it. Each
 * answer without a chunk tells whom its sender has links to: so ways are known to sites that one
 * has none to (way.h). A way is forgotten when somebody on it says that it has no link to the next
 * one. */
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "data/chunk.h"
#include "wan/wan_chunk_int.h"

_Static_assert(sizeof WAN_CHUNK_PATH + WAY_REQUEST_LEN <= H2_PATH_MAX,
               "a path has room for any way");
/* Streams of journals and snapshots are on the same connection. */
_Static_assert(WAN_FETCH_PER_PEER + WAN_PASS_PER_PEER + 2 <= WAN_SERVE_CHUNKS_MAX,
               "what one site asks for is served");

struct chunk_ask {
    struct wan_peer *first;
    struct chunk_ask *next; /* of the same peer */
    enum chunk_purpose purpose;
    struct chunk_id id;
    struct way way;
    struct chunk_follower *followers;
    int status;
    struct buf bytes;
};

/* --- ways --- */

static bool tells_of(const struct msg_absent *said, site_id_t site)
{
    for (uint32_t i = 0; i < said->link_count; i++)
        if (said->links[i] == site)
            return true;
    return false;
}

/* Is p's way of use, as far as is known here? */
static bool begins_well(const struct wan_peer *p)
{
    const struct wan_peer *first = wan_peer_by_site(p->wan, p->way.at[0]);
    return first != NULL && wan_peer_reached(first);
}

static void way_told(struct wan_peer *p, const struct way *along, const struct msg_absent *said)
{
    struct way new;
    bool over = p->way.count > 1 && p->way.at[p->way.count - 2] == said->site;
    if (!tells_of(said, p->member.site)) {
        if (over)
            p->way.count = 0;
        return;
    }
    if (way_beyond(along, said->site, p->member.site, &new) &&
        (over || p->way.count == 0 || new.count < p->way.count || !begins_well(p)))
        p->way = new;
}

static void ways_told(struct wan *w, const struct way *along, const struct msg_absent *said)
{
    struct wan_peer *p = wan_peer_by_site(w, way_last(along));
    if (p != NULL && along->count > 1 && said->rc == ERR_UNREACHABLE)
        p->way.count = 0;
    if (!way_has(along, said->site)) /* an older version says nothing of it */
        return;
    for (p = w->peers; p != NULL; p = p->next)
        way_told(p, along, said);
}

/* --- the request --- */

static void chunk_response(struct h2_stream *s, int status)
{
    struct chunk_ask *a = h2_stream_user(s);
    a->status = status;
}

static void chunk_data(struct h2_stream *s, const uint8_t *ptr, size_t len)
{
    struct chunk_ask *a = h2_stream_user(s);
    size_t max = a->status == 200 ? LIMIT_CHUNK_SEALED_BYTES : WAN_ERROR_BODY_MAX;
    h2_consume(s, len);
    a->first->chunk_ns = wan_now_ns(a->first->wan);
    if (a->status == 200 && a->bytes.len == 0) /* room for all of it at once, if it is honest */
        buf_reserve(&a->bytes, MAX(len, MIN(chunk_sealed_len(slice_of(ptr, len)), max)));
    if (a->bytes.len + len <= max)
        buf_append(&a->bytes, ptr, len);
    else
        a->status = 0; /* too long: no chunk, and no reason */
}

static void ask_unlink(struct chunk_ask *a)
{
    struct chunk_ask **at = &a->first->asks;
    while (*at != a)
        at = &(*at)->next;
    *at = a->next;
    a->first->ask_count[a->purpose]--;
}

static void chunk_closed(struct h2_stream *s, int rc)
{
    struct chunk_ask *a = h2_stream_user(s);
    struct wan *w = a->first->wan;
    struct msg_absent said = {.rc = ERR_PEER};
    if (rc == 0 && a->status == 200 && a->bytes.len == 0)
        a->status = 0;
    ask_unlink(a);
    if (rc == 0 && a->status != 200) {
        msg_absent_decode(buf_slice(&a->bytes), &said);
        ways_told(w, &a->way, &said);
    }
    struct chunk_answer answer = {.rc = rc,
                                  .status = a->status,
                                  .id = &a->id,
                                  .way = &a->way,
                                  .bytes = &a->bytes,
                                  .said = &said};
    if (rc == 0 && a->status == 200)
        wan_fetch_found(w, &a->id, buf_slice(&a->bytes));
    for (struct chunk_follower *f = a->followers, *next; f != NULL; f = next) {
        next = f->next;
        answer.last = next == NULL;
        f->over(f, &answer);
    }
    buf_deinit(&a->bytes);
    mem_free(a);
    if (w->stopping)
        return;
    wan_fetch_resume(w);
    wan_pass_resume(w);
}

static const struct h2_stream_events chunk_events = {
    .response = chunk_response, .data = chunk_data, .closed = chunk_closed};

static struct chunk_ask *
ask_find(const struct wan_peer *first, const struct chunk_id *id, const struct way *way)
{
    struct chunk_ask *a = first->asks;
    while (a != NULL && !(chunk_id_equal(&a->id, id) && way_equal(&a->way, way)))
        a = a->next;
    return a;
}

bool chunk_ask_room(const struct wan_peer *first,
                    const struct chunk_id *id,
                    const struct way *way,
                    enum chunk_purpose purpose)
{
    uint32_t max = purpose == CHUNK_OWN ? WAN_FETCH_PER_PEER : WAN_PASS_PER_PEER;
    return first->ask_count[purpose] < max || ask_find(first, id, way) != NULL;
}

static struct chunk_ask *ask_start(struct wan_peer *first,
                                   const struct chunk_id *id,
                                   const struct way *way,
                                   enum chunk_purpose purpose)
{
    char request[WAY_REQUEST_LEN + 1], path[H2_PATH_MAX];
    struct way beyond = {.count = way->count - 1};
    memcpy(beyond.at, way->at + 1, beyond.count * sizeof beyond.at[0]);
    way_request_print(id, &beyond, request);
    (void)snprintf(path, sizeof path, WAN_CHUNK_PATH "%s", request); /* fits */
    struct chunk_ask *a = mem_calloc(1, sizeof *a);
    struct h2_stream *s = h2_request(first->conn, "GET", path, &chunk_events, a);
    if (s == NULL) {
        mem_free(a);
        return NULL;
    }
    a->first = first;
    a->id = *id;
    a->way = *way;
    a->purpose = purpose;
    a->next = first->asks;
    first->asks = a;
    first->ask_count[purpose]++;
    h2_end(s);
    return a;
}

bool chunk_ask(struct wan_peer *first,
               const struct chunk_id *id,
               const struct way *way,
               enum chunk_purpose purpose,
               struct chunk_follower *f)
{
    if (!wan_peer_reached(first) || !chunk_ask_room(first, id, way, purpose))
        return false;
    struct chunk_ask *a = ask_find(first, id, way);
    if (a == NULL)
        a = ask_start(first, id, way, purpose);
    if (a == NULL)
        return false;
    f->next = a->followers;
    a->followers = f;
    return true;
}

void chunk_answer_take(const struct chunk_answer *a, struct buf *to)
{
    if (a->last)
        buf_move(to, a->bytes);
    else
        buf_append(to, a->bytes->ptr, a->bytes->len);
}
