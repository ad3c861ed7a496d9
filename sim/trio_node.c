/* One node of a site of several: its copies of all shards, and their ends. See trio.h. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "sim/trio_int.h"
#include "site/settings.h"

#define EPOCH_NS (UINT64_C(1700000000) * NS_PER_SEC)
#define LIFE_OF_A_NEW_DISK (UINT64_C(1) << 32)

/* ---- clocks ---- */

static uint64_t mono_ns(void *ctx)
{
    const struct trio_node *n = ctx;
    int64_t now = (int64_t)sched->now_ns;
    return (uint64_t)(now + now * n->drift_ppm / 1000000 + (int64_t)NS_PER_SEC);
}

static uint64_t wall_ns(void *ctx)
{
    const struct trio_node *n = ctx;
    return EPOCH_NS + (uint64_t)((int64_t)mono_ns(ctx) + n->offset_ns);
}

bool trio_node_serves(const struct trio_node *n, unsigned shard)
{
    return n->loop != NULL && !n->end.mute && !n->broken && shard_serves(n->shards[shard]);
}

/* ---- what the shards tell ---- */

static struct trio_node *node_of(void *ctx)
{
    return CONTAINER_OF((struct trio_end *)ctx, struct trio_node, end);
}

static void peer_serves(void *ctx, shard_id_t shard)
{
    struct trio_node *n = node_of(ctx);
    sched_note("serves", n->number, shard);
    if (!n->end.mute)
        trio_began_to_serve(n, shard);
}

static void peer_leads_no_more(void *ctx, shard_id_t shard)
{
    struct trio_node *n = node_of(ctx);
    sched_note("leads no more", n->number, shard);
}

static void on_conflict(void *ctx, const struct conflict *c)
{
    struct trio_node *n = node_of(ctx);
    n->world->conflicts++;
    if (!n->end.mute && n->world->all->site_count == 1)
        trio_fail(n->world, "P1", "rule %u at a site that is alone", c->rule);
}
/* The daemon ends; somebody looks after it and starts it again. */
static void on_failed(void *ctx, shard_id_t shard, int rc, const char *what)
{
    struct trio_node *n = node_of(ctx);
    (void)what;
    if (n->end.mute || n->broken)
        return;
    sched_note("broken", n->number, (uint64_t)(-rc) << 8 | shard);
    n->broken = true;
    if (rc != ERR_NO_SPACE && rc != ERR_FATAL && rc != ERR_IO)
        trio_fail(n->world, "P9", "node %u: shard %u: %s: %s", n->number, shard, err_name(rc),
                  what);
}
/* ---- beginning and ending ---- */

static int start_one(struct trio_node *n, unsigned shard, struct err_detail *d)
{
    struct shard_config c = {.dir = n->dir,
                             .id = (shard_id_t)shard,
                             .shard_count = n->world->shard_count,
                             .site = n->world->site,
                             .hlc = &n->hlc,
                             .clock = &n->clock,
                             .loop = n->loop,
                             .pool = n->pool,
                             .peers = &n->peers,
                             .segment_bytes = n->world->segment_bytes,
                             .checkpoint_bytes = n->world->checkpoint_bytes,
                             .events = {.conflict = on_conflict, .failed = on_failed},
                             .site_name = trio_site_name};
    trio_end_events(&n->end, &c.events);
    int rc = shard_open(&n->shards[shard], &c, d);
    if (rc == 0)
        rc = shard_start(n->shards[shard], d);
    return rc;
}

void trio_node_start(struct trio_node *n)
{
    struct err_detail d = {{0}};
    ASSERT(n->loop == NULL);
    sched_note("start", n->number, 0);
    machine_current = &n->machine;
    n->end.mute = n->broken = false;
    n->hlc.last = 0;
    n->end.start++;
    memset(n->checked, 0, sizeof n->checked);
    int rc = loop_new(&n->loop, 64, &n->clock, &d);
    if (rc == 0)
        rc = pool_new(&n->pool, 1);
    for (unsigned i = 0; i < n->world->shard_count && rc == 0; i++)
        rc = start_one(n, i, &d);
    machine_current = NULL;
    if (rc == 0)
        trio_node_keep(n);
    if (rc != 0)
        trio_fail(n->world, "P2", "node %u does not start: %s: %s", n->number, err_name(rc),
                  d.text);
}

void trio_node_crash(struct trio_node *n, bool power)
{
    if (n->loop == NULL)
        return;
    sched_note("crash", n->number, power);
    trio_clients_dropped(n);
    trio_share_dropped(n);
    n->end.mute = true;
    loop_lose(n->loop, power);
    disk_crash(n->machine.disk, power);
    n->machine.ghost = true;
    machine_current = &n->machine;
    for (unsigned i = 0; i < n->world->shard_count; i++)
        if (n->shards[i] != NULL)
            shard_stop(n->shards[i]);
    pool_free(n->pool);
    loop_drain(n->loop);
    for (unsigned i = 0; i < n->world->shard_count; i++) {
        shard_close(n->shards[i]);
        n->shards[i] = NULL;
    }
    loop_free(n->loop);
    machine_current = NULL;
    n->machine.ghost = false;
    n->pool = NULL;
    n->loop = NULL;
}

void trio_node_keep(struct trio_node *n)
{
    const struct trio_world *all = n->world->all;
    for (unsigned i = 0; i < n->world->shard_count; i++) {
        uint64_t from = UINT64_MAX;
        struct shard *s = n->shards[i];
        for (unsigned k = 0; k < all->site_count; k++)
            if (k != n->world->number)
                from = MIN(from, shard_peer_ack(s, all->sites[k]->site) + 1);
        shard_keep_from(s, from);
    }
}

void trio_node_wipe(struct trio_node *n)
{
    ASSERT(n->loop == NULL);
    disk_set_room(n->machine.disk, DISK_ROOM);
    for (unsigned i = 0; i < n->world->shard_count; i++) {
        char *path = mem_printf("%s/shard-%u", n->dir, i);
        if (dir_remove(path) != 0)
            trio_fail(n->world, "setup", "%s cannot be removed", path);
        mem_free(path);
    }
    /* Whoever puts a new disk in says so, and that the node is not in its first life. */
    n->peers.blank = true;
    n->peers.life += LIFE_OF_A_NEW_DISK;
}

void trio_node_init(struct trio *w, unsigned number, const struct world_disk *disk)
{
    struct trio_node *n = &w->nodes[number];
    n->world = w;
    n->number = number;
    unsigned machine = w->number * TRIO_NODES + number;
    (void)snprintf(n->dir, sizeof n->dir, DISK_PREFIX "%u", machine); /* fits */
    n->clock = (struct clock){.mono_ns = mono_ns, .wall_ns = wall_ns, .ctx = n};
    n->machine = (struct machine){.clock = &n->clock, .site = machine};
    n->machine.disk = disk_new(n->dir, disk);
    n->peers = (struct shard_peers){.founder = number == 0,
                                    .lease_ns = 2 * NS_PER_SEC,
                                    .beat_ns = 100 * NS_PER_MS,
                                    .silence_ns = 600 * NS_PER_MS,
                                    .answer_ns = 400 * NS_PER_MS,
                                    .serves = peer_serves,
                                    .leads_no_more = peer_leads_no_more};
    trio_end_init(&n->end, &w->net, number, n->shards, &n->peers);
    if (mkdir(n->dir, 0700) != 0)
        trio_fail(w, "setup", "%s cannot be made", n->dir);
}

void trio_node_deinit(struct trio_node *n)
{
    trio_node_crash(n, false);
    disk_free(n->machine.disk);
}
