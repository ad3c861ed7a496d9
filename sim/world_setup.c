/* Making the sites and pairing them, as an operator would. */
#include <stdio.h>
#include <string.h>

#include "sim/operator.h"
#include "sim/world_int.h"

#define PAIR_NS (60 * NS_PER_SEC)

/* *ret: the value of `key` in the answer, mem_free; may be NULL. */
static int admin(struct world *w,
                 unsigned site,
                 const char *json,
                 const char *key,
                 char **ret,
                 struct err_detail *d)
{
    struct ask a = {.done = NULL};
    uint64_t until = sched->now_ns + PAIR_NS;
    if (!ask_begin(&a, &w->sites[site].machine, json))
        return ERR_UNREACHABLE;
    while (!a.answered && sched_step(until))
        continue;
    int rc = a.answered ? a.rc : ERR_TIMEOUT;
    if (rc != 0)
        err_detail_set(d, "%s: %s: %.*s", json, err_text(rc), (int)a.answer.len,
                       (const char *)a.answer.ptr);
    if (rc == 0 && ret != NULL)
        *ret = ask_value(&a, key);
    ask_end(&a);
    return rc;
}

/* By the first that it has a link to. */
static int pair(struct world *w, unsigned site, struct err_detail *d)
{
    char *token = NULL;
    unsigned by = 0;
    while (by + 1 < site && w->config.links[site][by].absent)
        by++;
    int rc = admin(w, by, "{\"verb\":\"peer.invite\"}", "token", &token, d);
    if (rc != 0)
        return rc;
    char *json = mem_printf("{\"verb\":\"peer.accept\",\"token\":\"%s\"}", token);
    rc = admin(w, site, json, NULL, NULL, d);
    mem_free(json);
    mem_free(token);
    return rc;
}

static int site_make(struct world *w, unsigned i, struct err_detail *d)
{
    const struct world_config *c = &w->config;
    struct site_settings s = {.shard_count = c->shards, .site = 0x51000001u + i};
    (void)snprintf(s.name, sizeof s.name, "%s", c->sites[i].name); /* as long */
    (void)snprintf(s.wan, sizeof s.wan, "10.0.0.%u:7000", i + 1);  /* fits */
    w->ids[i] = s.site;
    w->joined[i] = !c->sites[i].joins_late;
    process_init(&w->sites[i], i, &c->sites[i]);
    int rc = process_create(&w->sites[i], &s, d);
    return rc == 0 ? process_start(&w->sites[i], d) : rc;
}

int world_setup(struct world *w, struct err_detail *d)
{
    int rc = 0;
    net_quiet(true);
    for (unsigned i = 0; i < w->config.site_count && rc == 0; i++)
        rc = site_make(w, i, d);
    for (unsigned i = 1; i < w->config.site_count && rc == 0; i++)
        rc = w->joined[i] ? pair(w, i, d) : 0;
    for (unsigned i = 0; i < w->config.site_count && rc == 0 && w->config.no_versions; i++)
        if (w->joined[i])
            rc = admin(w, i, "{\"verb\":\"versions.keep\",\"keep_s\":0}", NULL, NULL, d);
    if (rc == 0 && w->config.journal_age_s > 0) {
        char *json =
            mem_printf("{\"verb\":\"journal.keep\",\"age_s\":%u}", w->config.journal_age_s);
        rc = admin(w, 0, json, NULL, NULL, d);
        mem_free(json);
    }
    uint64_t until = sched->now_ns + PAIR_NS;
    while (rc == 0 && !world_quiescent(w) && sched_step(until))
        continue;
    net_quiet(false);
    return rc;
}
