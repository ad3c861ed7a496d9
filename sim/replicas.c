/* A site of three nodes that keep one journal: faults, clients, checks. See replicas.h.
 *
 * The order of the committed journal is the witness of linearizability: a write takes effect at its
 * index, a read at the index that its primary had committed. So it is enough that both come behind
 * everything that anybody was told of before they were asked for. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "sim/replicas_int.h"

#define FAULTS_NS_MAX (120 * NS_PER_SEC)
#define SETTLE_NS (60 * NS_PER_SEC)
#define LATE_PER_MILLION 12000u
#define POWER_ONE_IN 300u /* of the moments at which writes are answered */

void replicas_fail(struct replicas *w, const char *promise, const char *fmt, ...)
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

static uint64_t below(uint64_t n)
{
    return rng_below(&sched->rng, n);
}

/* ---- what must hold ---- */

/* P2: what is committed once is what everybody commits, for ever. */
static void check_committed(const struct replicas_node *n, uint64_t from, uint64_t to)
{
    struct replicas *w = n->world;
    for (uint64_t i = from; i <= to; i++) {
        const struct replicas_entry *e = &n->entries[i];
        if (i > w->truth_last) {
            w->truth[i] = *e;
            w->truth_last = i;
        } else if (e->id != w->truth[i].id || e->epoch != w->truth[i].epoch) {
            replicas_fail(w, "P2", "node %u has another record %llu", n->number,
                          (unsigned long long)i);
        }
    }
}

void replicas_committed(struct replicas_node *n, uint64_t index)
{
    struct replicas *w = n->world;
    unsigned kept = 0, had = w->op_count;
    check_committed(n, n->state.index + 1, index);
    for (unsigned i = 0; i < w->op_count; i++) {
        const struct replicas_op o = w->ops[i];
        if (o.node != n->number || o.index > index) {
            w->ops[kept++] = o;
            continue;
        }
        if (n->entries[o.index].id != o.id)
            replicas_fail(w, "P2", "an answered write is not in the journal");
        if (o.index <= o.floor)
            replicas_fail(w, "P1", "a write came before one that was answered earlier");
        w->acked = MAX(w->acked, o.index);
        w->answered++;
    }
    w->op_count = kept;
    /* The worst moment for power to go: somebody has just been told. */
    if (kept < had && w->options->faults && !w->healed && below(POWER_ONE_IN) == 0)
        sched_in(&w->power, 0);
}

void replicas_dropped(struct replicas_node *n)
{
    struct replicas *w = n->world;
    unsigned kept = 0;
    for (unsigned i = 0; i < w->op_count; i++)
        if (w->ops[i].node != n->number)
            w->ops[kept++] = w->ops[i];
    w->op_count = kept;
}

void replicas_began_to_serve(struct replicas_node *n)
{
    if (replica_commit(n->core) < n->world->truth_last)
        replicas_fail(n->world, "P2", "node %u serves without record %llu", n->number,
                      (unsigned long long)n->world->truth_last);
}

void replicas_check_one_serves(struct replicas *w)
{
    unsigned count = 0;
    for (unsigned i = 0; i < REPLICAS_NODES; i++)
        count += replicas_serves(&w->nodes[i]);
    if (count > 1)
        replicas_fail(w, "P1", "two nodes serve");
}

/* ---- clients ---- */

static void client_write(struct replicas *w, struct replicas_node *n)
{
    uint64_t stamp = replicas_stamp(n);
    if (w->op_count == REPLICAS_EVENTS_MAX || log_last(n->log) >= REPLICAS_RECORDS_MAX)
        return;
    if (stamp <= w->promised)
        replicas_fail(w, "P7", "node %u stamps below what was promised", n->number);
    /* The answer may come while it is appended. */
    struct replicas_op *o = &w->ops[w->op_count++];
    *o = (struct replicas_op){
        .id = ++w->ids, .index = log_last(n->log) + 1, .floor = w->acked, .node = n->number};
    (void)replicas_append(n, w->ids); /* 0: its node is broken, and has dropped it */
}

static void client_read(struct replicas *w, struct replicas_node *n)
{
    uint64_t reg = below(REPLICAS_REGISTERS), id = 0;
    if (replica_commit(n->core) < w->acked)
        replicas_fail(w, "P1", "node %u reads an old value", n->number);
    for (uint64_t i = n->state.index; i > 0 && id == 0; i--)
        id = w->truth[i].id % REPLICAS_REGISTERS == reg ? w->truth[i].id : 0;
    if (n->state.registers[reg] != id)
        replicas_fail(w, "P1", "node %u reads %llu, not %llu", n->number,
                      (unsigned long long)n->state.registers[reg], (unsigned long long)id);
    w->acked = MAX(w->acked, replica_commit(n->core));
    w->answered++;
    w->promised = MAX(w->promised, replica_promise(n->core, replicas_stamp(n)));
}

static void client_run(struct sched_event *e)
{
    struct replicas *w = CONTAINER_OF(e, struct replicas, client);
    struct replicas_node *n = &w->nodes[below(REPLICAS_NODES)];
    for (uint64_t i = below(5); i > 0 && replicas_serves(n); i--)
        if (below(3) > 0)
            client_write(w, n);
        else
            client_read(w, n);
    sched_in(e, below(2 * w->client_pause_ns + 1));
}

/* ---- faults ---- */

static void restart_run(struct sched_event *e)
{
    struct replicas_node *n = CONTAINER_OF(e, struct replicas_node, restart);
    disk_set_room(n->machine.disk, DISK_ROOM);
    if (n->loop == NULL)
        replicas_node_start(n);
}

static void crash(struct replicas_node *n, bool power)
{
    replicas_node_crash(n, power);
    sched_in(&n->restart, below(6 * NS_PER_SEC));
}

static void heal_run(struct sched_event *e)
{
    struct replicas_node *n = CONTAINER_OF(e, struct replicas_node, heal);
    for (unsigned i = 0; i <= REPLICAS_NODES; i++)
        n->world->cut[n->number][i] = n->world->cut[i][n->number] = false;
}

static void cut_some(struct replicas *w, struct replicas_node *n)
{
    unsigned other = (unsigned)below(REPLICAS_NODES + 1), kind = (unsigned)below(4);
    for (unsigned i = 0; i <= REPLICAS_NODES; i++)
        if (i != n->number && (kind == 0 || i == other)) {
            w->cut[n->number][i] = kind != 1;
            w->cut[i][n->number] = kind != 2;
        }
    sched_in(&n->heal, below(8 * NS_PER_SEC));
}

/* A disk may be lost only while all three copies count: that is what redundancy promises. */
static bool may_wipe(const struct replicas *w)
{
    bool all = w->record.in_sync_count == REPLICAS_NODES;
    for (unsigned i = 0; i < REPLICAS_NODES; i++)
        all = all && w->nodes[i].core != NULL && !w->nodes[i].broken &&
              !replica_blank(w->nodes[i].core) && !w->nodes[i].state.blank;
    return all;
}

static void fault_happens(struct replicas *w, struct replicas_node *n)
{
    switch (below(9)) {
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
            replicas_node_crash(n, true);
            replicas_node_wipe(n);
            sched_in(&n->restart, below(6 * NS_PER_SEC));
        }
        return;
    case 4:
        if (n->core != NULL)
            replicas_tell(n, (struct replica_event){.kind = REPLICA_RESIGN}, NULL);
        return;
    case 5: /* full: it breaks when it needs space; somebody makes room and starts it again */
        disk_set_room(n->machine.disk, DISK_NO_ROOM);
        sched_in(&n->restart, 5 * NS_PER_SEC + below(5 * NS_PER_SEC));
        return;
    default:
        cut_some(w, n);
    }
}

/* At several nodes at once, often at all. */
static void power_run(struct sched_event *e)
{
    struct replicas *w = CONTAINER_OF(e, struct replicas, power);
    for (unsigned i = 0; i < REPLICAS_NODES; i++)
        if (below(8) > 0)
            crash(&w->nodes[i], true);
}

static void fault_run(struct sched_event *e)
{
    struct replicas *w = CONTAINER_OF(e, struct replicas, fault);
    sched_in(e, below(3 * NS_PER_SEC));
    for (unsigned i = 0; i < REPLICAS_NODES; i++)
        if (w->nodes[i].broken && w->nodes[i].loop != NULL && below(2) == 0)
            crash(&w->nodes[i], false);
    fault_happens(w, &w->nodes[below(REPLICAS_NODES)]);
}

static void heal_all(struct replicas *w)
{
    w->healed = true;
    sched_cancel(&w->fault);
    sched_cancel(&w->power);
    memset(w->cut, 0, sizeof w->cut);
    for (unsigned i = 0; i < REPLICAS_NODES; i++) {
        struct replicas_node *n = &w->nodes[i];
        sched_cancel(&n->restart);
        sched_cancel(&n->heal);
        disk_set_room(n->machine.disk, DISK_ROOM);
        if (n->broken)
            replicas_node_crash(n, false);
        if (n->loop == NULL)
            replicas_node_start(n);
    }
}

/* ---- a run ---- */

static bool run_until(struct replicas *w, uint64_t until_ns)
{
    while (w->failure[0] == '\0' && sched_step(until_ns))
        continue;
    return w->failure[0] == '\0';
}

static bool settled(const struct replicas *w)
{
    unsigned serving = 0;
    bool equal = w->record.in_sync_count == REPLICAS_NODES && w->truth_last > 0;
    for (unsigned i = 0; i < REPLICAS_NODES; i++) {
        const struct replicas_node *n = &w->nodes[i];
        serving += replicas_serves(n);
        equal = equal && n->core != NULL && replica_commit(n->core) == w->truth_last &&
                log_last(n->log) == w->truth_last && !n->state.copying;
    }
    return serving == 1 && equal;
}

/* All three take part again, and have the same journal to its end once nobody writes any more. */
static void settle(struct replicas *w, uint64_t *ret_ns)
{
    uint64_t began_ns = sched->now_ns, answered = w->answered;
    heal_all(w);
    while (run_until(w, sched->now_ns + 100 * NS_PER_MS) &&
           (w->record.in_sync_count < REPLICAS_NODES || w->answered == answered))
        if (sched->now_ns - began_ns > SETTLE_NS) {
            replicas_fail(w, "P3", "%u of %u nodes in sync, %llu answers since all is well again",
                          w->record.in_sync_count, REPLICAS_NODES,
                          (unsigned long long)(w->answered - answered));
            return;
        }
    *ret_ns = sched->now_ns - began_ns;
    sched_cancel(&w->client);
    for (unsigned i = 0; i < 100 && !settled(w); i++)
        if (!run_until(w, sched->now_ns + 100 * NS_PER_MS))
            return;
    if (!settled(w))
        replicas_fail(w, "P4", "the copies are not equal in the end");
}

/* And so it is on the disks. */
static void check_disks(struct replicas *w)
{
    for (unsigned i = 0; i < REPLICAS_NODES && w->failure[0] == '\0'; i++) {
        struct replicas_node *n = &w->nodes[i];
        replicas_node_crash(n, true);
        memset(n->entries, 0, sizeof n->entries);
        replicas_node_start(n);
        if (n->core == NULL)
            return;
        if (log_last(n->log) < w->truth_last)
            replicas_fail(w, "P2", "node %u has lost what was committed", i);
        else
            check_committed(n, log_first(n->log), w->truth_last);
    }
}

static void draw(struct replicas *w)
{
    const uint64_t write_ns = UINT64_C(60000) << below(8); /* up to 8 ms */
    const struct world_disk disk = {.write = {.base_ns = write_ns, .jitter_ns = write_ns},
                                    .read = {.base_ns = 50000, .jitter_ns = 20000},
                                    .sync = {.base_ns = write_ns, .jitter_ns = write_ns}};
    bool faults = w->options->faults;
    w->segment_bytes = (32 * KIB) << below(4);
    w->delay_ns = NS_PER_MS / 5 + below(20 * NS_PER_MS);
    w->loss_per_million = faults ? (uint32_t)below(120000) : 0;
    w->repeat_per_million = faults ? (uint32_t)below(120000) : 0;
    w->late_per_million = faults ? (uint32_t)below(LATE_PER_MILLION) : 0;
    for (unsigned i = 0; i < REPLICAS_NODES; i++) {
        struct replicas_node *n = &w->nodes[i];
        n->drift_ppm = (int64_t)below(100000) - 50000;
        n->offset_ns = (int64_t)below(10 * NS_PER_SEC) - (int64_t)(5 * NS_PER_SEC);
        n->restart.run = restart_run;
        n->heal.run = heal_run;
        replicas_node_init(w, i, &disk);
    }
    w->client.run = client_run;
    w->fault.run = fault_run;
    w->power.run = power_run;
}

static void run(struct replicas *w, struct soak_result *ret)
{
    uint64_t calls = MIN(w->options->operations, REPLICAS_RECORDS_MAX / 2);
    uint64_t work_ns = 10 * NS_PER_SEC + below(60 * NS_PER_SEC);
    w->client_pause_ns = work_ns / MAX(calls, 1u) * 2 / REPLICAS_NODES;
    for (unsigned i = 0; i < REPLICAS_NODES && w->failure[0] == '\0'; i++)
        replicas_node_start(&w->nodes[i]);
    sched_in(&w->client, 0);
    if (w->options->faults)
        sched_in(&w->fault, below(3 * NS_PER_SEC));
    while (w->answered < calls && sched->now_ns < FAULTS_NS_MAX &&
           run_until(w, sched->now_ns + NS_PER_SEC))
        continue;
    if (w->failure[0] == '\0')
        settle(w, &ret->settle_ns);
    if (w->failure[0] == '\0')
        check_disks(w);
}

void replicas_run(const struct soak_options *o, uint64_t seed, bool trace, struct soak_result *ret)
{
    struct replicas *w = mem_calloc(1, sizeof *w);
    memset(ret, 0, sizeof *ret);
    w->options = o;
    sched = &w->sched;
    sched_init(sched, seed);
    sched->trace = trace;
    draw(w);
    run(w, ret);
    (void)snprintf(ret->failure, sizeof ret->failure, "%s", w->failure); /* as long */
    ret->calls = w->answered;
    ret->changes = w->truth_last;
    ret->hash = sched->hash;
    ret->events = sched->events;
    ret->virtual_ns = sched->now_ns;
    for (unsigned i = 0; i < REPLICAS_NODES; i++)
        replicas_node_deinit(&w->nodes[i]);
    replicas_net_deinit(w);
    sched_deinit(sched);
    sched = NULL;
    mem_free(w);
}
