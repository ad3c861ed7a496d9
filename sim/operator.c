/* Commands to running nodes, and errands made of several. See operator.h. */
#include "sim/operator.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/assert.h"
#include "sim/world_int.h"

#define AGAIN_NS NS_PER_SEC
#define PATIENCE_NS (60 * NS_PER_SEC) /* with one command */

/* --- one command --- */

static void say(struct ask *a, enum rpc_type type, const struct fs_request *req)
{
    struct buf body = {0};
    fs_request_encode(req, &body);
    rpc_sim_send(&a->peer, (uint16_t)type, 1, buf_slice(&body), slice_of(NULL, 0));
    buf_deinit(&body);
}

static void answered(struct ask *a, int rc)
{
    if (a->answered)
        return;
    a->rc = rc;
    a->answered = true;
    if (a->done != NULL)
        a->done(a);
}

static void on_frame(struct rpc_peer *p, const struct rpc_frame *f)
{
    struct ask *a = CONTAINER_OF(p, struct ask, peer);
    struct op_arena arena = {0};
    struct fs_reply r;
    int rc = fs_reply_decode(f->body, &arena, &r);
    ASSERT(rc == 0);
    if (f->type == RPC_HELLO) {
        say(a, RPC_ADMIN, &a->req);
    } else {
        struct slice text = r.rc == 0 ? r.data : r.detail;
        buf_append(&a->answer, text.ptr, text.len);
        answered(a, r.rc);
    }
    op_arena_deinit(&arena);
}

static void on_closed(struct rpc_peer *p)
{
    answered(CONTAINER_OF(p, struct ask, peer), ERR_CLOSED);
}

bool ask_begin(struct ask *a, struct machine *m, const char *json)
{
    const struct fs_request hello = {.flags = HELLO_ADMIN};
    a->peer.frame = on_frame;
    a->peer.closed = on_closed;
    a->answered = false;
    buf_clear(&a->answer);
    a->req = (struct fs_request){.data = slice_str(json)};
    if (!rpc_sim_connect(m, &a->peer))
        return false;
    say(a, RPC_HELLO, &hello);
    return true;
}

char *ask_value(const struct ask *a, const char *key)
{
    json_t *o = json_loadb((const char *)a->answer.ptr, a->answer.len, 0, NULL);
    const char *text = json_string_value(json_object_get(o, key));
    ASSERT(text != NULL);
    char *copy = mem_strdup(text);
    json_decref(o);
    return copy;
}

void ask_end(struct ask *a)
{
    rpc_sim_leave(&a->peer);
    buf_deinit(&a->answer);
    a->answered = true;
}

/* --- errands --- */

enum stage {
    STAGE_BEGIN,
    STAGE_INVITE, /* of a join: asked for a token */
    STAGE_LAST    /* accept, or remove: asked for */
};
struct errand {
    struct world *world;
    struct sched_event event;
    struct ask ask;
    char *json;
    bool joins; /* else: removes */
    enum stage stage;
    unsigned site, by;
    uint64_t asked_ns;
    bool over;
    struct errand *next;
};

static void ask_done(struct ask *a)
{
    sched_in(&CONTAINER_OF(a, struct errand, ask)->event, 0); /* not from inside */
}

static void errand_again(struct errand *e)
{
    ask_end(&e->ask);
    e->stage = STAGE_BEGIN;
    e->by = (e->by + 1) % e->world->config.site_count;
    sched_in(&e->event, AGAIN_NS);
}

static void errand_ask(struct errand *e, unsigned at, char *json /* taken */, enum stage stage)
{
    struct world *w = e->world;
    ask_end(&e->ask);
    mem_free(e->json);
    e->json = json;
    e->stage = stage;
    e->asked_ns = sched->now_ns;
    e->ask = (struct ask){.done = ask_done};
    if (w->sites[at].node == NULL || !ask_begin(&e->ask, &w->sites[at].machine, json)) {
        errand_again(e);
        return;
    }
    sched_in(&e->event, PATIENCE_NS);
}

static void errand_begin(struct errand *e)
{
    struct world *w = e->world;
    if (e->by == e->site || !world_counts(w, e->by)) {
        errand_again(e);
    } else if (e->joins) {
        errand_ask(e, e->by, mem_strdup("{\"verb\":\"peer.invite\"}"), STAGE_INVITE);
    } else {
        w->removed[e->site] = true; /* from now on nothing of it has to last */
        errand_ask(
            e, e->by,
            mem_printf("{\"verb\":\"peer.remove\",\"name\":\"%s\"}", w->config.sites[e->site].name),
            STAGE_LAST);
    }
}

/* The answer to the first attempt was lost: that one of the same name has left. */
static bool was_done(const struct errand *e)
{
    static const char said[] = ": it was removed";
    const struct buf *b = &e->ask.answer;
    return e->stage == STAGE_LAST && e->ask.answered && e->ask.rc == ERR_NOT_FOUND &&
           memmem(b->ptr, b->len, said, sizeof said - 1) != NULL;
}

static void errand_run(struct sched_event *event)
{
    struct errand *e = CONTAINER_OF(event, struct errand, event);
    struct world *w = e->world;
    bool good = e->stage != STAGE_BEGIN && e->ask.answered && e->ask.rc == 0;
    sched_note("errand", (uint64_t)e->stage << 8 | e->site, (uint64_t)(int64_t)e->ask.rc);
    if (e->joins && world_has_joined(w, e->site)) {
        ask_end(&e->ask);
        e->over = true;
        world_joined(w, e->site);
    } else if (!e->joins && (good || was_done(e))) {
        ask_end(&e->ask);
        e->over = true;
    } else if (e->joins && w->sites[e->site].lost) {
        ask_end(&e->ask);
        process_crash(&w->sites[e->site], false);
        w->sites[e->site].lost = true;
        e->over = true;
    } else if (good && e->stage == STAGE_INVITE) {
        char *token = ask_value(&e->ask, "token");
        errand_ask(e, e->site, mem_printf("{\"verb\":\"peer.accept\",\"token\":\"%s\"}", token),
                   STAGE_LAST);
        mem_free(token);
    } else if (e->stage == STAGE_BEGIN) {
        errand_begin(e);
    } else {
        errand_again(e);
    }
}

static void errand_new(struct world *w, bool joins, unsigned site, unsigned by)
{
    struct errand *e = mem_calloc(1, sizeof *e);
    e->world = w;
    e->joins = joins;
    e->site = site;
    e->by = by;
    e->event.run = errand_run;
    e->next = w->errands;
    w->errands = e;
    sched_in(&e->event, 0);
}

void errand_join(struct world *w, unsigned site, unsigned by)
{
    errand_new(w, true, site, by);
}

void errand_remove(struct world *w, unsigned site, unsigned by)
{
    errand_new(w, false, site, by);
}

bool errands_done(const struct world *w)
{
    for (const struct errand *e = w->errands; e != NULL; e = e->next)
        if (!e->over && !w->out[e->site])
            return false;
    return true;
}

void errands_free(struct world *w)
{
    while (w->errands != NULL) {
        struct errand *e = w->errands;
        w->errands = e->next;
        sched_cancel(&e->event);
        ask_end(&e->ask);
        mem_free(e->json);
        mem_free(e);
    }
}
