/* Sites that are away for too long, and come back. See away.h.
 *
 *   member --away_cut--> cut off --time--> healed --wan.status says "removed"--> site.return
 *      ^                                                                             | agreed
 *      +-- DIR/return.json has gone -- applying, crashes <-- opened anew, new id <---+
 *
 * The daemon may die at any point of it: when it has ended and is not opened yet, at any call of
 * the disk until it has started (what a process does after its power went, its ghost does), and
 * at some moments of the first seconds under the new id. */
#include "sim/away.h"

#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "sim/lin.h"
#include "sim/operator.h"
#include "sim/world_int.h"
#include "site/node_return.h"

#define LOOK_NS NS_PER_SEC
#define CUT_NS (30 * NS_PER_SEC)      /* that somebody looks at a removal that does not end */
#define PATIENCE_NS (60 * NS_PER_SEC) /* with one command */
#define PREPARE_CALLS 160u            /* of the disk, about as many as a return takes */
#define CRASHES_MAX 3u
#define CRASH_WITHIN_NS (4 * NS_PER_SEC)
#define DOWN_NS (NS_PER_SEC / 2)
#define FORMER_MAX 64u

struct away_site {
    struct world *world;
    unsigned site;
    struct sched_event heal, look, crash;
    bool cut;
    struct ask ask;
    bool asks, status; /* a command is under way; it is wan.status */
    char *json;        /* it, if it is not one of those below; until it is answered */
    uint64_t asked_ns;
    uint64_t waits_ns; /* since when it waits for a cut; 0: it does not */
    unsigned crashes;  /* that are still to come, of this return */
};
struct away {
    struct away_site sites[WORLD_SITES_MAX];
    struct rng rng;
    site_id_t former[FORMER_MAX]; /* ids that were given up */
    unsigned former_count;
};

/* --- the operator --- */

static void command(struct away_site *s, unsigned at, const char *json, bool status)
{
    s->ask = (struct ask){.done = NULL};
    s->asks = ask_begin(&s->ask, &s->world->sites[at].machine, json);
    s->status = status;
    s->asked_ns = sched->now_ns;
}

/* What `claudefs status` says, as somebody reads it who knows the manual. */
static bool tells_to_return(const struct ask *a)
{
    json_t *o = json_loadb((const char *)a->answer.ptr, a->answer.len, 0, NULL);
    const char *state = json_string_value(json_object_get(o, "wan_state"));
    const char *error = json_string_value(json_object_get(o, "wan_error"));
    bool is =
        state != NULL && (strcmp(state, "removed") == 0 || strcmp(state, "rolled_back") == 0 ||
                          (error != NULL && strstr(error, "claudefs site return") != NULL));
    json_decref(o);
    return is;
}

/* Where to let the site come back that an operator has removed: it had let this one in, and there
 * nobody has heard of that. site_count: nowhere. */
static unsigned tells_to_readmit(const struct world *w, const struct ask *a)
{
    json_t *o = json_loadb((const char *)a->answer.ptr, a->answer.len, 0, NULL), *peer;
    unsigned at = w->config.site_count;
    size_t k;
    json_array_foreach (json_object_get(o, "peers"), k, peer) {
        const char *error = json_string_value(json_object_get(peer, "error"));
        const char *name = json_string_value(json_object_get(peer, "name"));
        for (unsigned i = 0; i < w->config.site_count && error != NULL && name != NULL; i++)
            if (strstr(error, "claudefs peer readmit of that one") != NULL &&
                strcmp(name, w->config.sites[i].name) == 0)
                at = i;
    }
    json_decref(o);
    return at;
}

static void readmit(struct away_site *s, unsigned at)
{
    struct world *w = s->world;
    unsigned gone = 0;
    while (gone < w->config.site_count && !w->removed[gone])
        gone++;
    if (gone == w->config.site_count || w->sites[at].node == NULL)
        return;
    mem_free(s->json);
    s->json = mem_printf("{\"verb\":\"peer.readmit\",\"name\":\"%s\"}", w->config.sites[gone].name);
    command(s, at, s->json, false);
}

static bool has_file(const struct world *w, unsigned site, const char *name)
{
    struct stat st;
    char *path = mem_printf("%s/%s", w->sites[site].dir, name);
    bool is = stat(path, &st) == 0;
    mem_free(path);
    return is;
}

static void rest_over(struct world *w, unsigned site)
{
    struct node *n = w->sites[site].node;
    for (unsigned i = 0; i < w->mount_count; i++)
        if (w->mounts[i].process == &w->sites[site] && w->mounts[i].own.rests)
            private_renew(&w->mounts[i], n);
}

static bool waits_for_cut(const struct world *w, unsigned site)
{
    for (unsigned k = 0; k < w->away->former_count && process_serves(&w->sites[site]); k++)
        if (!node_left(w->sites[site].node, w->away->former[k]))
            return true;
    return false;
}

/* A member that is gone for ever does not answer for one that leaves, and who remains may be too
 * few to give it up (site/quorum.h). Status shows the one as leaving and the other as unreachable;
 * whoever knows what became of that one removes it (site/README.md, "Coming back"). */
static void lost_remove(struct away_site *s)
{
    struct world *w = s->world;
    if (!waits_for_cut(w, s->site))
        s->waits_ns = 0;
    else if (s->waits_ns == 0)
        s->waits_ns = sched->now_ns;
    if (s->waits_ns == 0 || sched->now_ns - s->waits_ns < CUT_NS)
        return;
    for (unsigned i = 0; i < w->config.site_count; i++)
        if (w->sites[i].lost && w->joined[i] && !w->removed[i]) {
            w->removed[i] = true;
            errand_remove(w, i, s->site);
        }
}

static void look_run(struct sched_event *e)
{
    struct away_site *s = CONTAINER_OF(e, struct away_site, look);
    struct world *w = s->world;
    sched_in(&s->look, LOOK_NS);
    if (process_serves(&w->sites[s->site]) && !has_file(w, s->site, "return.json"))
        rest_over(w, s->site);
    lost_remove(s);
    bool patient = s->asks && !s->ask.answered && sched->now_ns - s->asked_ns < PATIENCE_NS;
    if (patient)
        return;
    bool told = s->asks && s->ask.answered && s->status && s->ask.rc == 0 && !w->removed[s->site];
    bool out = told && tells_to_return(&s->ask);
    unsigned at = told ? tells_to_readmit(w, &s->ask) : w->config.site_count;
    if (s->asks) {
        sched_note("operator", (uint64_t)!s->status << 8 | s->site, (uint64_t)(int64_t)s->ask.rc);
        ask_end(&s->ask);
    }
    s->asks = false;
    if (w->sites[s->site].node == NULL || !world_counts(w, s->site))
        return;
    if (out)
        command(s, s->site, "{\"verb\":\"site.return\"}", false);
    else if (at < w->config.site_count)
        readmit(s, at);
    else
        command(s, s->site, "{\"verb\":\"wan.status\"}", true);
}

/* --- away --- */

static void cut_all(struct world *w, unsigned a)
{
    for (unsigned k = 0; k < w->config.site_count; k++)
        if (k != a) {
            net_cut(a, k, away_is_cut(w, a, k));
            net_cut(k, a, away_is_cut(w, a, k));
        }
}

static void heal_run(struct sched_event *e)
{
    struct away_site *s = CONTAINER_OF(e, struct away_site, heal);
    s->cut = false;
    cut_all(s->world, s->site);
}

void away_cut(struct world *w, unsigned site, uint64_t for_ns)
{
    struct away_site *s = &w->away->sites[site];
    s->cut = true;
    cut_all(w, site);
    sched_in(&s->heal, for_ns);
}

bool away_is_cut(const struct world *w, unsigned a, unsigned b)
{
    return w->away != NULL && (w->away->sites[a].cut || w->away->sites[b].cut);
}

/* --- opened anew --- */

static void crash_run(struct sched_event *e)
{
    struct away_site *s = CONTAINER_OF(e, struct away_site, crash);
    struct world *w = s->world;
    struct rng *rng = &w->away->rng;
    if (s->crashes == 0) /* it may be back already, and what was done last not be synced */
        return;
    s->crashes--;
    process_crash(&w->sites[s->site], rng_below(rng, 3) > 0);
    sched_in(&w->restarts[s->site].event, rng_below(rng, DOWN_NS));
    sched_in(&s->crash, DOWN_NS + rng_below(rng, CRASH_WITHIN_NS));
}

bool away_reopens(struct world *w, unsigned site)
{
    struct process *p = &w->sites[site];
    if (w->away == NULL || p->node == NULL || process_serves(p) || !node_wants_reopen(p->node))
        return false;
    struct away_site *s = &w->away->sites[site];
    struct rng *rng = &w->away->rng;
    uint64_t how = rng_below(rng, 4);
    if (how == 0)
        process_crash(p, true);
    else
        process_close(p);
    if (how == 1)
        disk_power_off_in(p->machine.disk, &p->machine, 1 + (unsigned)rng_below(rng, PREPARE_CALLS),
                          false);
    s->crashes = (unsigned)rng_below(rng, CRASHES_MAX + 1);
    sched_in(&s->crash, rng_below(rng, CRASH_WITHIN_NS));
    sched_in(&w->restarts[site].event, 0);
    return true;
}

void away_started(struct world *w, unsigned site)
{
    site_id_t now = node_settings(w->sites[site].node)->site;
    if (w->away == NULL || now == w->ids[site])
        return;
    sched_note("returns", site, now);
    if (w->away->former_count < FORMER_MAX)
        w->away->former[w->away->former_count++] = w->ids[site];
    w->ids[site] = now;
    watch_new_id(w, site);
    lin_renewed(site);
    for (unsigned i = 0; i < w->mount_count; i++)
        if (w->mounts[i].process == &w->sites[site])
            w->mounts[i].own.rests = true;
}

/* --- looking --- */

const char *away_unrest(const struct world *w, unsigned *ret_site)
{
    for (unsigned i = 0; i < w->config.site_count && w->away != NULL; i++) {
        if (!world_counts(w, i))
            continue;
        *ret_site = i;
        if (w->away->sites[i].cut)
            return "is away";
        if (has_file(w, i, "return.json"))
            return "is coming back";
        if (w->away->sites[i].crashes > 0)
            return "is to die yet";
        for (unsigned k = 0; k < w->away->former_count; k++)
            if (w->sites[i].node == NULL || !node_left(w->sites[i].node, w->away->former[k]))
                return "waits for the cut of a site that was away";
    }
    return NULL;
}

void away_check(struct world *w)
{
    static const char *const files[] = {"return.json", "return.unsent", "return.progress",
                                        "joining", "wan_boot.json"};
    for (unsigned i = 0; i < w->config.site_count && w->away != NULL; i++) {
        for (size_t k = 0; k < ARRAY_COUNT(files) && world_counts(w, i); k++)
            if (has_file(w, i, files[k]))
                world_fail(w, "P5", "site %s is back, and its %s is left over",
                           w->config.sites[i].name, files[k]);
        if (world_counts(w, i))
            rest_over(w, i);
    }
}

/* --- life --- */

/* Sites leave by themselves, or one that lets another in is removed: that one may have to come
 * back, too. */
static bool has_operators(const struct world_config *c)
{
    bool joins = false, removes = false;
    for (uint32_t i = 0; i < c->event_count; i++) {
        joins = joins || c->events[i].kind == WORLD_JOIN;
        removes = removes || c->events[i].kind == WORLD_REMOVE;
    }
    return c->journal_age_s > 0 || (joins && removes);
}

void away_begin(struct world *w)
{
    if (!has_operators(&w->config))
        return;
    w->away = mem_calloc(1, sizeof *w->away);
    rng_seed(&w->away->rng, w->config.seed ^ 0xa3a7u);
    for (unsigned i = 0; i < w->config.site_count; i++) {
        struct away_site *s = &w->away->sites[i];
        s->world = w;
        s->site = i;
        s->heal.run = heal_run;
        s->look.run = look_run;
        s->crash.run = crash_run;
        sched_in(&s->look, LOOK_NS + i * NS_PER_MS);
    }
}

void away_free(struct world *w)
{
    for (unsigned i = 0; i < w->config.site_count && w->away != NULL; i++) {
        struct away_site *s = &w->away->sites[i];
        sched_cancel(&s->heal);
        sched_cancel(&s->look);
        sched_cancel(&s->crash);
        if (s->asks)
            ask_end(&s->ask);
        mem_free(s->json);
    }
    mem_free(w->away);
    w->away = NULL;
}
