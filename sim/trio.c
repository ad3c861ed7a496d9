/* A site of three nodes that keep its shards together: faults, checks, a run. See trio.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "base/assert.h"
#include "sim/trio_int.h"

#define REPAIR_NS (30 * NS_PER_MS)
#define LOOK_NS (50 * NS_PER_MS)
#define LATE_PER_MILLION 12000u

void trio_fail(struct trio *w, const char *promise, const char *fmt, ...)
{
    va_list args;
    char *failure = w->all->failure;
    const size_t size = sizeof w->all->failure;
    if (!trio_good(w))
        return;
    int used = snprintf(failure, size, "%s: %.3f s: ", promise, (double)sched->now_ns / 1e9);
    if (w->all->site_count > 1)
        used += snprintf(failure + used, size - (size_t)used, "site %u: ", w->number);
    va_start(args, fmt);
    (void)vsnprintf(failure + used, size - (size_t)used, fmt, args); /* cut */
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
        trio_cause_see(w, k->shard, r->payload);
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
    trio_cause_check(w, shard);
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
    for (unsigned i = 0; i < TRIO_NODES; i++)
        if (w->nodes[i].loop != NULL && !w->nodes[i].broken)
            trio_node_keep(&w->nodes[i]);
    for (unsigned k = 0; k < w->shard_count; k++)
        if (trio_leader(w, k, NULL) != NULL)
            trio_cause_check(w, k);
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

bool trio_three_in_sync(const struct trio *w)
{
    for (unsigned k = 0; k < w->shard_count; k++)
        if (w->net.records[k].in_sync_count < TRIO_NODES)
            return false;
    return true;
}

static bool core_has(const struct trio *w, const struct shard_record *r)
{
    unsigned count = 0;
    for (unsigned i = 0; i < r->in_sync_count; i++)
        count += r->in_sync[i] != w->out + 1;
    return count == TRIO_NODES - (w->out < TRIO_NODES);
}

bool trio_core_in_sync(const struct trio *w)
{
    for (unsigned k = 0; k < w->shard_count; k++)
        if (!core_has(w, &w->net.records[k]))
            return false;
    return true;
}

/* A disk may be lost only while all three copies count: that is what redundancy promises. */
static bool may_wipe(const struct trio *w)
{
    bool all = trio_three_in_sync(w);
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
    if (trio_faults(w->all))
        fault_happens(w, &w->nodes[trio_below(TRIO_NODES)]);
}

static void node_heal(struct trio_node *n)
{
    disk_set_room(n->machine.disk, DISK_ROOM);
    if (n->broken)
        trio_node_crash(n, false);
    if (n->loop == NULL)
        trio_node_start(n);
}

static void node_leave(struct trio *w, struct trio_node *n)
{
    bool hears = w->how != WORLD_BROKEN_CUT && w->how != WORLD_BROKEN_DEAF;
    bool speaks = w->how != WORLD_BROKEN_CUT && w->how != WORLD_BROKEN_MUTE;
    for (unsigned i = 0; i <= TRIO_NODES; i++)
        if (i != n->number) {
            w->cut[i][n->number] = !hears;
            w->cut[n->number][i] = !speaks;
        }
    if (w->how == WORLD_BROKEN_DOWN || w->how == WORLD_BROKEN_DARK)
        trio_node_crash(n, w->how == WORLD_BROKEN_DARK);
    else
        node_heal(n);
}

void trio_heal(struct trio *w)
{
    w->healed = true;
    sched_cancel(&w->fault);
    sched_cancel(&w->power);
    memset(w->cut, 0, sizeof w->cut);
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        struct trio_node *n = &w->nodes[i];
        sched_cancel(&n->restart);
        sched_cancel(&n->heal);
        if (i != w->out)
            node_heal(n);
        else
            node_leave(w, n);
    }
}

/* ---- a run ---- */

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

static const char *shard_unsettled(struct trio *w, unsigned shard)
{
    struct shard *leader = trio_leader(w, shard, NULL);
    if (leader == NULL)
        return "nobody leads";
    if (!core_has(w, &w->net.records[shard]))
        return "not all copies are in sync";
    if (shard_outbox_count(leader) > 0)
        return "the outbox is not empty";
    if (shard_waiting_count(leader) > 0)
        return "operations wait";
    uint64_t last = log_last(shard_log(leader));
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        struct shard *s = w->nodes[i].shards[shard];
        if (i == w->out)
            continue;
        if (s == NULL)
            return "a node is down";
        if (shard_is_copying(s))
            return "a copy is being made";
        if (log_last(shard_log(s)) != last || log_durable(shard_log(s)) != last)
            return "a journal has another end";
        if (shard_committed(s) != last || state_index(shard_state(s)) != last)
            return "a copy has not applied what is committed";
    }
    return NULL;
}

const char *trio_unsettled(struct trio *w)
{
    const char *why = trio_clients_idle(w) && trio_share_idle(w) ? NULL : "calls do not end";
    for (unsigned k = 0; k < w->shard_count && why == NULL; k++)
        why = shard_unsettled(w, k);
    return why;
}

/* Equal journals are compared as they are committed; here the states. */
void trio_check_digests(struct trio *w, const char *when)
{
    for (unsigned k = 0; k < w->shard_count && trio_good(w); k++) {
        struct digest first = digest_of(w->nodes[w->out == 0].shards[k]);
        for (unsigned i = 0; i < TRIO_NODES; i++) {
            if (i == w->out)
                continue;
            struct digest d = digest_of(w->nodes[i].shards[k]);
            trio_check_committed(&w->nodes[i], k);
            if (memcmp(&d, &first, sizeof d) != 0)
                trio_fail(w, "P4", "node %u has another state of shard %u %s", i, k, when);
        }
        if (w->all->site_count == 1 && w->shards[k].settled && /* else peers acknowledge more */
            memcmp(&first, &w->shards[k].digest, sizeof first) != 0)
            trio_fail(w, "P4", "shard %u is another one %s", k, when);
        if (w->out < TRIO_NODES)
            continue;
        w->shards[k].settled = true;
        memcpy(&w->shards[k].digest, &first, sizeof first);
    }
}

/* ---- beginning and ending ---- */

static void repair_run(struct sched_event *e)
{
    struct trio *w = CONTAINER_OF(e, struct trio, repair);
    for (unsigned k = 0; k < w->shard_count; k++) {
        struct shard *s = trio_leader(w, k, NULL);
        unsigned budget = 8;
        while (s != NULL && budget-- > 0 && shard_repair(s, w->number + 1, NULL, NULL) == 1)
            sched_note("repair", w->number, k);
    }
    sched_in(e, REPAIR_NS);
}

static void draw(struct trio *w)
{
    const uint64_t write_ns = UINT64_C(60000) << trio_below(8); /* up to 8 ms */
    const struct world_disk disk = {.write = {.base_ns = write_ns, .jitter_ns = write_ns},
                                    .read = {.base_ns = 50000, .jitter_ns = 20000},
                                    .sync = {.base_ns = write_ns, .jitter_ns = write_ns}};
    bool faults = w->all->options->faults;
    w->shard_count = 2 + (unsigned)trio_below(TRIO_SHARDS_MAX - 1);
    if (w->number > 0) /* it is the file system's */
        w->shard_count = w->all->sites[0]->shard_count;
    w->segment_bytes = (8 * KIB) << trio_below(5);
    w->checkpoint_bytes = (4 * KIB) << trio_below(7);
    w->delay_ns = NS_PER_MS / 5 + trio_below(20 * NS_PER_MS);
    w->loss_per_million = faults ? (uint32_t)trio_below(120000) : 0;
    w->repeat_per_million = faults ? (uint32_t)trio_below(120000) : 0;
    w->late_per_million = faults ? (uint32_t)trio_below(LATE_PER_MILLION) : 0;
    if (w->all->edit != NULL && w->all->edit->no_loss)
        w->loss_per_million = w->repeat_per_million = w->late_per_million = 0;
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        struct trio_node *n = &w->nodes[i];
        n->drift_ppm = (int64_t)trio_below(100000) - 50000;
        n->offset_ns = (int64_t)trio_below(10 * NS_PER_SEC) - (int64_t)(5 * NS_PER_SEC);
        n->restart.run = restart_run;
        n->heal.run = heal_run;
        trio_node_init(w, i, &disk);
    }
}

void trio_init(struct trio_world *all, unsigned number)
{
    struct trio *w = mem_calloc(1, sizeof *w);
    w->all = all;
    w->number = number;
    w->site = TRIO_SITE + number;
    w->out = TRIO_NODES;
    all->sites[number] = w;
    trio_carry_init(w);
    draw(w);
    w->fault.run = fault_run;
    w->power.run = power_run;
    w->look.run = look_run;
    w->repair.run = repair_run;
}

void trio_begin_faults(struct trio *w)
{
    sched_in(&w->look, LOOK_NS);
    if (w->all->site_count > 1)
        sched_in(&w->repair, REPAIR_NS);
    if (w->all->options->faults)
        sched_in(&w->fault, trio_below(3 * NS_PER_SEC));
}

void trio_deinit(struct trio *w)
{
    for (unsigned i = 0; i < TRIO_NODES; i++)
        trio_node_deinit(&w->nodes[i]);
    trio_carry_deinit(w);
    mem_free(w->causes.named);
}
