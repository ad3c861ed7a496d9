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
    return n->loop != NULL && !n->dying && !n->broken && shard_serves(n->shards[shard]);
}

/* ---- what the shards ask for ---- */

static void peer_send(void *ctx, shard_id_t shard, uint64_t node, struct slice bytes)
{
    struct trio_node *n = ctx;
    if (!n->dying)
        trio_send(n, (unsigned)node - 1, TRIO_WORD_PEER, shard, 0, 0, RECORD_OP, bytes);
}

static void peer_ask(void *ctx, shard_id_t shard, uint64_t request)
{
    struct trio_node *n = ctx;
    if (!n->dying)
        trio_ask(n, shard, request, NULL);
}

static void
peer_swap(void *ctx, shard_id_t shard, uint64_t request, const struct shard_record *record)
{
    struct trio_node *n = ctx;
    if (!n->dying)
        trio_ask(n, shard, request, record);
}

static void peer_serves(void *ctx, shard_id_t shard)
{
    struct trio_node *n = ctx;
    sched_note("serves", n->number, shard);
    if (!n->dying)
        trio_began_to_serve(n, shard);
}

static void peer_leads_no_more(void *ctx, shard_id_t shard)
{
    struct trio_node *n = ctx;
    sched_note("leads no more", n->number, shard);
}

/* Whom to tell, as this node knows it; nobody: it is sent again. */
static void pass_on(struct trio_node *n,
                    enum trio_word word,
                    shard_id_t shard,
                    shard_id_t other,
                    uint64_t number,
                    enum record_type type,
                    struct slice bytes)
{
    uint64_t primary = n->dying ? 0 : shard_primary(n->shards[shard]);
    if (primary == 0)
        return;
    if (primary != n->number + 1)
        trio_send(n, (unsigned)primary - 1, word, shard, other, number, type, bytes);
    else if (word == TRIO_WORD_DELIVERED)
        shard_delivered(n->shards[shard], other, number);
    else if (shard_receive(n->shards[shard], &(struct shard_message){.from = other,
                                                                     .to = shard,
                                                                     .type = type,
                                                                     .number = number,
                                                                     .bytes = bytes}) != 0)
        sched_note("not received", n->number, number); /* it is sent again */
}

static int on_deliver(void *ctx, const struct shard_message *m)
{
    pass_on(ctx, TRIO_WORD_DELIVER, m->to, m->from, m->number, m->type, m->bytes);
    return 0;
}

static void on_delivered(void *ctx, shard_id_t from, shard_id_t to, uint64_t number)
{
    pass_on(ctx, TRIO_WORD_DELIVERED, from, to, number, RECORD_OP, slice_of(NULL, 0));
}

static bool on_applied(void *ctx, struct dot d)
{
    (void)ctx;
    (void)d;
    return true; /* there is no other site */
}
static void on_behalf(void *ctx, void *proposal)
{
    (void)ctx;
    (void)proposal;
}
static void on_name(void *ctx, struct oid parent, struct slice name)
{
    (void)ctx;
    (void)parent;
    (void)name;
}
static void on_object(void *ctx, struct oid oid, bool content)
{
    (void)ctx;
    (void)oid;
    (void)content;
}
static void on_conflict(void *ctx, const struct conflict *c)
{
    struct trio_node *n = ctx;
    if (!n->dying)
        trio_fail(n->world, "P1", "rule %u at a site that is alone", c->rule);
}
static void on_moved(void *ctx, shard_id_t shard)
{
    (void)ctx;
    (void)shard;
}

/* The daemon ends; somebody looks after it and starts it again. */
static void on_failed(void *ctx, shard_id_t shard, int rc, const char *what)
{
    struct trio_node *n = ctx;
    (void)what;
    if (n->dying || n->broken)
        return;
    sched_note("broken", n->number, (uint64_t)(-rc) << 8 | shard);
    n->broken = true;
    if (rc != ERR_NO_SPACE && rc != ERR_FATAL && rc != ERR_IO)
        trio_fail(n->world, "P9", "node %u: shard %u: %s: %s", n->number, shard, err_name(rc),
                  what);
}
static void site_name(void *ctx, site_id_t site, char out[33])
{
    (void)ctx;
    (void)snprintf(out, 33, "s%08x", site); /* fits */
}

/* ---- beginning and ending ---- */

static int start_one(struct trio_node *n, unsigned shard, struct err_detail *d)
{
    struct shard_config c = {.dir = n->dir,
                             .id = (shard_id_t)shard,
                             .shard_count = n->world->shard_count,
                             .site = TRIO_SITE,
                             .hlc = &n->hlc,
                             .clock = &n->clock,
                             .loop = n->loop,
                             .pool = n->pool,
                             .peers = &n->peers,
                             .segment_bytes = n->world->segment_bytes,
                             .checkpoint_bytes = n->world->checkpoint_bytes,
                             .events = {.deliver = on_deliver,
                                        .delivered = on_delivered,
                                        .applied = on_applied,
                                        .on_behalf = on_behalf,
                                        .name_changed = on_name,
                                        .object_changed = on_object,
                                        .conflict = on_conflict,
                                        .moved = on_moved,
                                        .failed = on_failed,
                                        .ctx = n},
                             .site_name = site_name};
    int rc = shard_open(&n->shards[shard], &c, d);
    if (rc == 0)
        rc = shard_start(n->shards[shard], d);
    if (rc == 0)
        shard_keep_from(n->shards[shard], UINT64_MAX);
    return rc;
}

void trio_node_start(struct trio_node *n)
{
    struct err_detail d = {{0}};
    ASSERT(n->loop == NULL);
    sched_note("start", n->number, 0);
    machine_current = &n->machine;
    n->dying = n->broken = false;
    n->hlc.last = 0;
    n->start++;
    memset(n->checked, 0, sizeof n->checked);
    int rc = loop_new(&n->loop, 64, &n->clock, &d);
    if (rc == 0)
        rc = pool_new(&n->pool, 1);
    for (unsigned i = 0; i < n->world->shard_count && rc == 0; i++)
        rc = start_one(n, i, &d);
    machine_current = NULL;
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
    n->dying = true;
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
    (void)snprintf(n->dir, sizeof n->dir, DISK_PREFIX "%u", number); /* fits */
    n->clock = (struct clock){.mono_ns = mono_ns, .wall_ns = wall_ns, .ctx = n};
    n->machine = (struct machine){.clock = &n->clock, .site = number};
    n->machine.disk = disk_new(n->dir, disk);
    n->peers = (struct shard_peers){.node = number + 1,
                                    .nodes = {1, 2, 3},
                                    .node_count = TRIO_NODES,
                                    .founder = number == 0,
                                    .lease_ns = 2 * NS_PER_SEC,
                                    .beat_ns = 100 * NS_PER_MS,
                                    .silence_ns = 600 * NS_PER_MS,
                                    .answer_ns = 400 * NS_PER_MS,
                                    .send = peer_send,
                                    .ask = peer_ask,
                                    .swap = peer_swap,
                                    .serves = peer_serves,
                                    .leads_no_more = peer_leads_no_more,
                                    .ctx = n};
    if (mkdir(n->dir, 0700) != 0)
        trio_fail(w, "setup", "%s cannot be made", n->dir);
}

void trio_node_deinit(struct trio_node *n)
{
    trio_node_crash(n, false);
    disk_free(n->machine.disk);
}
