/* A garbage pass before its time: an operator has asked for it (claudefs gc), or the daemon was
 * killed, and may be killed again before a pass would take anything by itself.
 *
 * The passes that come by themselves leave what was put in the last minutes, because who has put it
 * may be about to refer to it, and what was removed goes when all sites have confirmed that. Here
 * somebody waits, so first all that is done which lets more go:
 *
 *   mounts    each is asked to commit what it has put (PUSH_FLUSH). If all have, all that was put
 *             before and is not referred to is garbage; else only what is older than an interval.
 *   peers     what is dead goes as soon as it is stable; the others' words are waited for a while.
 *   versions  past versions whose time is over are dropped.
 *   pass      marks, sweeps, and writes segments anew that are not full any more.
 *
 * Failure path: what does not come in time is not waited for; the result says what stayed, and why.
 * One that nobody has asked for ends where not all mounts have committed. One runs at a time; who
 * asks meanwhile waits for the next, or for this one if it has not looked at the mounts yet. */
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "site/admin_int.h"
#include "site/past_int.h"

#define MOUNTS_NS (120u * NS_PER_SEC)
#define MOUNTS_TELL_TICKS 10u
#define PEERS_NS (30u * NS_PER_SEC)
#define DEAD_NS (5u * NS_PER_SEC) /* for repairs, and what is under way between shards */
#define VERSIONS_NS (60u * NS_PER_SEC)
#define PASS_NS (600u * NS_PER_SEC) /* for the one that is under way */
#define COLLECTS_PER_TICK 16u

enum step {
    STEP_NONE,
    STEP_START, /* mounts of the run before may still come back */
    STEP_MOUNTS,
    STEP_PEERS,
    STEP_VERSIONS,
    STEP_PASS
};
struct garbage {
    struct node *n;
    enum step step;
    uint64_t step_ns, step_tick; /* when it began */
    uint64_t runs;               /* begun so far */
    bool again;                  /* one more is wanted */
    bool asked;                  /* by an operator; else nobody waits for this one */
    uint64_t epoch;              /* of the store: what was put before */
    uint64_t wish;     /* of mounts, its number: drawn, so that no run gave it out before */
    uint64_t goal;     /* the stable point that is waited for */
    bool waited_twice; /* for the others: former versions are kept until all know that they went */
    bool settled, passing;
    char why[NODE_FLUSH_WHY]; /* not settled */
    uint64_t disk_before;
    struct gc_pass pass;
    json_t *result; /* of the last one that ended, or NULL */
};

static uint64_t disk_bytes(struct node *n)
{
    struct store_stats st;
    store_stats(n->store, &st);
    return st.file_bytes;
}

static void step_begin(struct garbage *g, enum step step)
{
    g->step = step;
    g->step_ns = loop_now_ns(g->n->loop);
    g->step_tick = g->n->tick_count;
}

static bool is_late(const struct garbage *g, uint64_t patience_ns)
{
    return loop_now_ns(g->n->loop) - g->step_ns > patience_ns;
}

static void run_begin(struct garbage *g, bool asked)
{
    g->runs++;
    g->again = false;
    g->asked = asked;
    g->disk_before = disk_bytes(g->n);
    step_begin(g, STEP_START);
}

/* ---- the result ---- */

static void add_site(void *ctx, site_id_t site)
{
    struct garbage *g = ctx;
    char name[160];
    node_site_name(g->n, site, name);
    (void)json_array_append_new(json_object_get(g->result, "waits_for"), json_string(name));
}

static void run_end(struct garbage *g, int rc, const char *why)
{
    struct node *n = g->n;
    const struct gc_pass *p = &g->pass;
    json_t *versions = node_past_json(n);
    json_decref(g->result);
    g->result = json_pack(
        "{s:I,s:s,s:s,s:I,s:I,s:I,s:I,s:O,s:I,s:I,s:o,s:[]}", "run", (json_int_t)g->runs, "state",
        rc == 0 ? "done" : "failed", "why", rc == 0 ? "" : why, "freed_chunks",
        (json_int_t)p->chunks, "freed_bytes", (json_int_t)p->bytes, "disk_before_bytes",
        (json_int_t)g->disk_before, "disk_after_bytes",
        n->store == NULL ? (json_int_t)g->disk_before : (json_int_t)disk_bytes(n), "versions_bytes",
        json_object_get(versions, "space_bytes"), "recent_chunks", (json_int_t)p->young_chunks,
        "recent_bytes", (json_int_t)p->young_bytes, "recent_why",
        json_bytes(slice_str(p->young_chunks > 0 ? g->why : "")), "waits_for");
    json_decref(versions);
    if (rc == 0 && g->goal > node_stable_hlc(n))
        node_stable_waits(n, g->goal, add_site, g);
    log_info(LOG_SITE, "garbage_early", "run=%llu asked=%d rc=%s chunks=%llu bytes=%llu",
             (unsigned long long)g->runs, g->asked, err_name(rc), (unsigned long long)p->chunks,
             (unsigned long long)p->bytes);
    g->step = STEP_NONE;
    g->passing = false;
    if (g->again && !n->stopping)
        run_begin(g, true);
}

static void pass_done(struct gc_pass *p, int rc, const char *why)
{
    struct garbage *g = CONTAINER_OF(p, struct garbage, pass);
    if (!g->n->stopping)
        run_end(g, rc, why);
}

/* ---- the steps ---- */

static void step_mounts(struct garbage *g)
{
    struct node *n = g->n;
    bool tell = (n->tick_count - g->step_tick) % MOUNTS_TELL_TICKS == 0;
    enum node_flush f = node_sessions_flush(n, g->wish, g->step_ns, tell, g->why);
    bool gives_way = g->again && !g->asked; /* who asks now is not to wait for this one */
    if (f == NODE_FLUSH_WAITS && !is_late(g, MOUNTS_NS) && !gives_way)
        return;
    g->settled = f == NODE_FLUSH_ALL;
    if (!g->settled && !g->asked) { /* it would take nothing: the next one comes by itself */
        run_end(g, ERR_AGAIN, g->why);
        return;
    }
    g->goal = node_dead_goal(n);
    g->waited_twice = false;
    step_begin(g, STEP_PEERS);
}

/* Removing goes on while this waits: so it waits for what was removed when it began. */
static void step_peers(struct garbage *g)
{
    struct node *n = g->n;
    node_stable_tick(n, true);
    bool stable = node_stable_hlc(n) >= g->goal, over = false;
    for (unsigned i = 0; i < COLLECTS_PER_TICK && stable && !over; i++)
        over = node_collect(n);
    if (!over && !is_late(g, stable ? DEAD_NS : PEERS_NS))
        return;
    step_begin(g, STEP_VERSIONS);
    (void)node_past_hurry(n, true); /* looked at again with the next tick */
}

static void step_pass(struct garbage *g)
{
    g->pass = (struct gc_pass){.done = pass_done, .asked = g->asked};
    int rc = node_gc_pass(g->n, &g->pass, g->settled ? g->epoch : 0);
    g->passing = rc == 0;
    if (rc != 0 && is_late(g, PASS_NS))
        run_end(g, rc, "another pass does not come to its end: see the daemon's log");
}

void node_garbage_tick(struct node *n)
{
    struct garbage *g = n->garbage;
    if (g == NULL || g->passing || n->stopping)
        return;
    switch (g->step) {
    case STEP_NONE:
        break;
    case STEP_START:
        if (n->lock_grace)
            break;
        g->epoch = store_epoch_advance(n->store);
        g->wish = random_u64() | 1; /* 0 says that a mount ends */
        step_begin(g, STEP_MOUNTS);
        step_mounts(g);
        break;
    case STEP_MOUNTS:
        step_mounts(g);
        break;
    case STEP_PEERS:
        step_peers(g);
        break;
    case STEP_VERSIONS:
        if (!node_past_hurry(n, false) && !is_late(g, VERSIONS_NS))
            break;
        if (node_past_goal(n) > node_stable_hlc(n) && !g->waited_twice) {
            g->waited_twice = true;
            g->goal = MAX(g->goal, node_past_goal(n));
            step_begin(g, STEP_PEERS);
            break;
        }
        step_begin(g, STEP_PASS);
        step_pass(g);
        break;
    case STEP_PASS:
        step_pass(g);
        break;
    }
}

/* ---- being asked ---- */

void admin_gc(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    struct garbage *g = n->garbage;
    (void)in;
    if (g == NULL || n->needs_snapshot || n->returning != NULL) {
        cb(ctx, ERR_BUSY,
           "the site is joining or coming back: what is garbage shows when it has its tree: see "
           "claudefs status");
        return;
    }
    if (g->step == STEP_NONE)
        run_begin(g, true);
    else if (g->step == STEP_START)
        g->asked = true;
    else
        g->again = true;
    admin_reply_json(cb, ctx,
                     json_pack("{s:I}", "run", (json_int_t)(g->runs + (g->again ? 1 : 0))));
}

void admin_gc_status(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    static const char *const names[] = {[STEP_NONE] = "idle",
                                        [STEP_START] = "starting",
                                        [STEP_MOUNTS] = "waiting for mounts",
                                        [STEP_PEERS] = "waiting for other sites",
                                        [STEP_VERSIONS] = "dropping former versions",
                                        [STEP_PASS] = "waiting for another pass"};
    const struct garbage *g = n->garbage;
    (void)in;
    const char *step = g == NULL ? "idle" : g->passing ? node_gc_phase(n) : names[g->step];
    json_t *result = g == NULL || g->result == NULL ? json_null() : json_incref(g->result);
    admin_reply_json(cb, ctx,
                     json_pack("{s:I,s:s,s:o}", "run",
                               (json_int_t)(g == NULL ? 0 : g->runs + g->again), "step", step,
                               "result", result));
}

void node_garbage_early(struct node *n)
{
    if (n->garbage != NULL && n->garbage->step == STEP_NONE && n->returning == NULL)
        run_begin(n->garbage, false);
}

void node_garbage_open(struct node *n)
{
    n->garbage = mem_calloc(1, sizeof *n->garbage);
    n->garbage->n = n;
}

void node_garbage_close(struct node *n)
{
    if (n->garbage == NULL)
        return;
    json_decref(n->garbage->result);
    mem_free(n->garbage);
    n->garbage = NULL;
}
