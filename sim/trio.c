/* A site of three nodes that keep its shards together: faults, checks, a run. See trio.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "base/assert.h"
#include "sim/trio_int.h"

#define FAULTS_NS_MAX (120 * NS_PER_SEC)
#define SETTLE_NS (60 * NS_PER_SEC)
#define LOOK_NS (50 * NS_PER_MS)
#define LATE_PER_MILLION 12000u

void trio_fail(struct trio *w, const char *promise, const char *fmt, ...)
{
    va_list args;
    if (w->failure[0] != '\0')
        return;
    int used = snprintf(w->failure, sizeof w->failure, "%s: %.3f s: ", promise,
                        (double)sched->now_ns / 1e9);
    va_start(args, fmt);
    (void)vsnprintf(w->failure + used, sizeof w->failure - (size_t)used, fmt, args); /* cut */
    va_end(args);
}

/* ---- what must hold ---- */

struct shard *trio_leader(struct trio *w, unsigned shard, unsigned *ret_node)
{
    struct shard *found = NULL;
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        if (!trio_node_serves(&w->nodes[i], shard))
            continue;
        if (found != NULL)
            trio_fail(w, "P1", "two nodes lead shard %u", shard);
        found = w->nodes[i].shards[shard];
        if (ret_node != NULL)
            *ret_node = i;
    }
    return found;
}

static uint64_t hash_of(struct slice s)
{
    static const uint8_t key[crypto_shorthash_KEYBYTES] = {3};
    uint64_t h;
    (void)crypto_shorthash((uint8_t *)&h, s.ptr, s.len, key);
    return h;
}

struct check {
    struct trio_node *n;
    unsigned shard;
    uint64_t to;
};

/* P2: what is committed once is what everybody commits, for ever. */
static bool check_record(void *ctx, const struct log_record *r)
{
    struct check *k = ctx;
    struct trio *w = k->n->world;
    struct trio_shard *s = &w->shards[k->shard];
    struct trio_entry e = {.epoch = r->epoch, .hash = hash_of(r->payload)};
    if (r->index > k->to)
        return false;
    ASSERT(r->index <= TRIO_RECORDS_MAX);
    if (r->index > s->truth_last) {
        s->truth[r->index] = e;
        s->truth_last = r->index;
    } else if (s->truth[r->index].epoch != 0 &&
               (e.epoch != s->truth[r->index].epoch || e.hash != s->truth[r->index].hash)) {
        trio_fail(w, "P2", "node %u has another record %llu of shard %u", k->n->number,
                  (unsigned long long)r->index, k->shard);
    }
    k->n->checked[k->shard] = r->index;
    return true;
}

void trio_check_committed(struct trio_node *n, unsigned shard)
{
    struct log *log = shard_log(n->shards[shard]);
    struct check k = {
        .n = n, .shard = shard, .to = MIN(shard_committed(n->shards[shard]), log_durable(log))};
    uint64_t next = MAX(n->checked[shard] + 1, log_first(log));
    int rc = 0;
    while (rc == 0 && next <= k.to && n->checked[shard] < k.to)
        rc = log_read(log, next, MIB, check_record, &k, &next);
    if (rc != 0)
        trio_fail(n->world, "P2", "node %u cannot read record %llu of shard %u: %s", n->number,
                  (unsigned long long)next, shard, err_name(rc));
}

void trio_began_to_serve(struct trio_node *n, unsigned shard)
{
    struct trio *w = n->world;
    w->takeovers++;
    if (shard_committed(n->shards[shard]) < w->shards[shard].truth_last)
        trio_fail(w, "P2", "node %u leads shard %u without record %llu", n->number, shard,
                  (unsigned long long)w->shards[shard].truth_last);
    trio_check_committed(n, shard);
    trio_check_shard(w, shard);
}

static void look_run(struct sched_event *e)
{
    struct trio *w = CONTAINER_OF(e, struct trio, look);
    for (unsigned i = 0; i < TRIO_NODES; i++)
        for (unsigned k = 0; k < w->shard_count; k++)
            if (w->nodes[i].loop != NULL && !w->nodes[i].broken) {
                trio_check_committed(&w->nodes[i], k);
                if (shard_is_copying(w->nodes[i].shards[k]))
                    sched_note("copying", i, k);
            }
    for (unsigned k = 0; k < w->shard_count; k++)
        (void)trio_leader(w, k, NULL);
    sched_in(e, LOOK_NS);
}

/* ---- faults ---- */

static void restart_run(struct sched_event *e)
{
    struct trio_node *n = CONTAINER_OF(e, struct trio_node, restart);
    disk_set_room(n->machine.disk, DISK_ROOM);
    if (n->loop == NULL)
        trio_node_start(n);
}

static void crash(struct trio_node *n, bool power)
{
    trio_node_crash(n, power);
    sched_in(&n->restart, trio_below(6 * NS_PER_SEC));
}

static void heal_run(struct sched_event *e)
{
    struct trio_node *n = CONTAINER_OF(e, struct trio_node, heal);
    for (unsigned i = 0; i <= TRIO_NODES; i++)
        n->world->cut[n->number][i] = n->world->cut[i][n->number] = false;
}

static void cut_some(struct trio *w, struct trio_node *n)
{
    unsigned other = (unsigned)trio_below(TRIO_NODES + 1), kind = (unsigned)trio_below(4);
    for (unsigned i = 0; i <= TRIO_NODES; i++)
        if (i != n->number && (kind == 0 || i == other)) {
            w->cut[n->number][i] = kind != 1;
            w->cut[i][n->number] = kind != 2;
        }
    sched_in(&n->heal, trio_below(8 * NS_PER_SEC));
}

static bool three_in_sync(const struct trio *w)
{
    for (unsigned k = 0; k < w->shard_count; k++)
        if (w->net.records[k].in_sync_count < TRIO_NODES)
            return false;
    return true;
}

/* A disk may be lost only while all three copies count: that is what redundancy promises. */
static bool may_wipe(const struct trio *w)
{
    bool all = three_in_sync(w);
    for (unsigned i = 0; i < TRIO_NODES && all; i++) {
        all = w->nodes[i].loop != NULL && !w->nodes[i].broken;
        for (unsigned k = 0; k < w->shard_count && all; k++)
            all = !replica_blank(shard_replica(w->nodes[i].shards[k])) &&
                  !shard_is_copying(w->nodes[i].shards[k]);
    }
    return all;
}

static void fault_happens(struct trio *w, struct trio_node *n)
{
    unsigned shard = (unsigned)trio_below(w->shard_count);
    switch (trio_below(10)) {
    case 0:
        crash(n, false);
        return;
    case 1:
        crash(n, true);
        return;
    case 2:
        sched_in(&w->power, 0);
        return;
    case 3:
        if (may_wipe(w)) {
            trio_node_crash(n, true);
            trio_node_wipe(n);
            sched_in(&n->restart, trio_below(6 * NS_PER_SEC));
        }
        return;
    case 4:
    case 5:
        if (n->loop != NULL && !n->broken)
            shard_resign(n->shards[shard]);
        return;
    case 6: /* full: it breaks when it needs space; somebody makes room and starts it again */
        disk_set_room(n->machine.disk, DISK_NO_ROOM);
        sched_in(&n->restart, 5 * NS_PER_SEC + trio_below(5 * NS_PER_SEC));
        return;
    default:
        cut_some(w, n);
    }
}

/* At several nodes at once, often at all. */
static void power_run(struct sched_event *e)
{
    struct trio *w = CONTAINER_OF(e, struct trio, power);
    for (unsigned i = 0; i < TRIO_NODES; i++)
        if (trio_below(8) > 0)
            crash(&w->nodes[i], true);
}

static void fault_run(struct sched_event *e)
{
    struct trio *w = CONTAINER_OF(e, struct trio, fault);
    sched_in(e, trio_below(3 * NS_PER_SEC));
    for (unsigned i = 0; i < TRIO_NODES; i++)
        if (w->nodes[i].broken && w->nodes[i].loop != NULL && trio_below(2) == 0)
            crash(&w->nodes[i], false);
    fault_happens(w, &w->nodes[trio_below(TRIO_NODES)]);
}

static void heal_all(struct trio *w)
{
    w->healed = true;
    sched_cancel(&w->fault);
    sched_cancel(&w->power);
    memset(w->cut, 0, sizeof w->cut);
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        struct trio_node *n = &w->nodes[i];
        sched_cancel(&n->restart);
        sched_cancel(&n->heal);
        disk_set_room(n->machine.disk, DISK_ROOM);
        if (n->broken)
            trio_node_crash(n, false);
        if (n->loop == NULL)
            trio_node_start(n);
    }
}

/* ---- a run ---- */

static bool run_until(struct trio *w, uint64_t until_ns)
{
    while (w->failure[0] == '\0' && sched_step(until_ns))
        continue;
    return w->failure[0] == '\0';
}

struct digest {
    uint8_t b[16];
};

static struct digest digest_of(struct shard *s)
{
    crypto_generichash_state h;
    struct state_scan it;
    struct digest d;
    (void)crypto_generichash_init(&h, NULL, 0, sizeof d.b);
    state_scan_begin(shard_state(s), &it, slice_of(NULL, 0), slice_of(NULL, 0));
    while (state_scan_next(&it)) {
        uint64_t lens[2] = {it.key.len, it.value.len};
        (void)crypto_generichash_update(&h, (const uint8_t *)lens, sizeof lens);
        (void)crypto_generichash_update(&h, it.key.ptr, it.key.len);
        (void)crypto_generichash_update(&h, it.value.ptr, it.value.len);
    }
    state_scan_end(&it);
    (void)crypto_generichash_final(&h, d.b, sizeof d.b);
    return d;
}

/* Why not all copies of a shard have all of the journal, with nothing on its way; NULL: they do. */
static const char *shard_unsettled(struct trio *w, unsigned shard)
{
    struct shard *leader = trio_leader(w, shard, NULL);
    if (leader == NULL)
        return "nobody leads";
    if (w->net.records[shard].in_sync_count < TRIO_NODES)
        return "not all copies are in sync";
    if (shard_outbox_count(leader) > 0)
        return "the outbox is not empty";
    if (shard_waiting_count(leader) > 0)
        return "operations wait";
    uint64_t last = log_last(shard_log(leader));
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        struct shard *s = w->nodes[i].shards[shard];
        if (shard_is_copying(s))
            return "a copy is being made";
        if (log_last(shard_log(s)) != last || log_durable(shard_log(s)) != last)
            return "a journal has another end";
        if (shard_committed(s) != last || state_index(shard_state(s)) != last)
            return "a copy has not applied what is committed";
    }
    return NULL;
}

static void wait_settled(struct trio *w, const char *when)
{
    const char *why = "";
    for (unsigned i = 0; i < 300 && why != NULL; i++) {
        if (!run_until(w, sched->now_ns + 100 * NS_PER_MS))
            return;
        why = trio_clients_idle(w) ? NULL : "calls do not end";
        for (unsigned k = 0; k < w->shard_count && why == NULL; k++)
            why = shard_unsettled(w, k);
    }
    if (why != NULL)
        trio_fail(w, "P4", "%s, %s", why, when);
}

/* P4: equal journals are compared as they are committed; here the states. */
static void check_digests(struct trio *w, struct digest *known, const char *when)
{
    for (unsigned k = 0; k < w->shard_count && w->failure[0] == '\0'; k++)
        for (unsigned i = 0; i < TRIO_NODES; i++) {
            struct digest d = digest_of(w->nodes[i].shards[k]);
            trio_check_committed(&w->nodes[i], k);
            if (i == 0 && known[k].b[0] == 0 && known[k].b[1] == 0)
                known[k] = d;
            if (memcmp(&d, &known[k], sizeof d) != 0)
                trio_fail(w, "P4", "node %u has another state of shard %u %s", i, k, when);
        }
}

/* All three take part again, and have the same shards once nobody calls any more. */
static void settle(struct trio *w, uint64_t *ret_ns)
{
    uint64_t began_ns = sched->now_ns, answered = w->answered;
    struct digest known[TRIO_SHARDS_MAX] = {{{0}}};
    heal_all(w);
    while (run_until(w, sched->now_ns + 100 * NS_PER_MS) &&
           (!three_in_sync(w) || w->answered == answered))
        if (sched->now_ns - began_ns > SETTLE_NS) {
            trio_fail(w, "P3", "not all in sync, %llu answers since all is well again",
                      (unsigned long long)(w->answered - answered));
            return;
        }
    *ret_ns = sched->now_ns - began_ns;
    w->closing = true;
    if (w->failure[0] == '\0')
        wait_settled(w, "in the end");
    if (w->failure[0] == '\0')
        check_digests(w, known, "in the end");
    if (w->failure[0] == '\0')
        trio_check_trees(w);
    /* And so it is on the disks. */
    for (unsigned i = 0; i < TRIO_NODES && w->failure[0] == '\0'; i++)
        trio_node_crash(&w->nodes[i], true);
    for (unsigned i = 0; i < TRIO_NODES && w->failure[0] == '\0'; i++)
        trio_node_start(&w->nodes[i]);
    if (w->failure[0] == '\0')
        wait_settled(w, "on the disks");
    if (w->failure[0] == '\0')
        check_digests(w, known, "on the disks");
    if (w->failure[0] == '\0')
        trio_check_trees(w);
}

static void draw(struct trio *w)
{
    const uint64_t write_ns = UINT64_C(60000) << trio_below(8); /* up to 8 ms */
    const struct world_disk disk = {.write = {.base_ns = write_ns, .jitter_ns = write_ns},
                                    .read = {.base_ns = 50000, .jitter_ns = 20000},
                                    .sync = {.base_ns = write_ns, .jitter_ns = write_ns}};
    bool faults = w->options->faults;
    w->shard_count = 2 + (unsigned)trio_below(TRIO_SHARDS_MAX - 1);
    w->segment_bytes = (8 * KIB) << trio_below(5);
    w->checkpoint_bytes = (4 * KIB) << trio_below(7);
    w->delay_ns = NS_PER_MS / 5 + trio_below(20 * NS_PER_MS);
    w->loss_per_million = faults ? (uint32_t)trio_below(120000) : 0;
    w->repeat_per_million = faults ? (uint32_t)trio_below(120000) : 0;
    w->late_per_million = faults ? (uint32_t)trio_below(LATE_PER_MILLION) : 0;
    trio_carry_init(w);
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        struct trio_node *n = &w->nodes[i];
        n->drift_ppm = (int64_t)trio_below(100000) - 50000;
        n->offset_ns = (int64_t)trio_below(10 * NS_PER_SEC) - (int64_t)(5 * NS_PER_SEC);
        n->restart.run = restart_run;
        n->heal.run = heal_run;
        trio_node_init(w, i, &disk);
    }
    w->fault.run = fault_run;
    w->power.run = power_run;
    w->look.run = look_run;
}

static void run(struct trio *w, struct soak_result *ret)
{
    uint64_t calls = MIN(w->options->operations, TRIO_RECORDS_MAX / 8);
    uint64_t work_ns = 10 * NS_PER_SEC + trio_below(60 * NS_PER_SEC);
    w->client_pause_ns = work_ns / MAX(calls, 1u) * TRIO_CLIENTS / 2;
    for (unsigned i = 0; i < TRIO_NODES && w->failure[0] == '\0'; i++)
        trio_node_start(&w->nodes[i]);
    trio_model_init(w);
    trio_clients_init(w);
    sched_in(&w->look, LOOK_NS);
    if (w->options->faults)
        sched_in(&w->fault, trio_below(3 * NS_PER_SEC));
    while (w->answered < calls && sched->now_ns < FAULTS_NS_MAX &&
           run_until(w, sched->now_ns + NS_PER_SEC))
        continue;
    if (w->failure[0] == '\0')
        settle(w, &ret->settle_ns);
}

void trio_run(const struct soak_options *o, uint64_t seed, bool trace, struct soak_result *ret)
{
    struct trio *w = mem_calloc(1, sizeof *w);
    memset(ret, 0, sizeof *ret);
    w->options = o;
    sched = &w->sched;
    sched_init(sched, seed);
    sched->trace = trace;
    draw(w);
    run(w, ret);
    (void)snprintf(ret->failure, sizeof ret->failure, "%s", w->failure); /* as long */
    ret->calls = w->answered;
    for (unsigned i = 0; i < w->shard_count; i++)
        ret->changes += w->shards[i].truth_last;
    ret->hash = sched->hash;
    ret->events = sched->events;
    ret->virtual_ns = sched->now_ns;
    for (unsigned i = 0; i < TRIO_NODES; i++)
        trio_node_deinit(&w->nodes[i]);
    trio_carry_deinit(w);
    sched_deinit(sched);
    sched = NULL;
    mem_free(w);
}
