/* See replica_world.h. */
#include "tests/unit/site/replica_world.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"

enum {
    INDEX_MAX = 6000,
    EVENTS_MAX = 8192,
    OPS_MAX = 512,
    LATER_MAX = 64,
    COORDINATOR = WORLD_NODES /* as a place in the network */
};
#define FAULTS_NS (60 * NS_PER_SEC)
#define HEAL_NS (40 * NS_PER_SEC)
#define MS NS_PER_MS

struct entry {
    uint64_t epoch, id;
};
enum what {
    DO_TICK,
    DO_MESSAGE,
    DO_REQUEST, /* at the coordinator */
    DO_ANSWER,
    DO_DISK,
    DO_COPY,
    DO_RESTART,
    DO_FAULT,
    DO_CLIENT,
    DO_CUT_END
};
struct event {
    uint64_t at_ns, order;
    enum what what;
    unsigned node, from, start; /* start: of the node, for what dies with it */
    uint64_t request, target;
    bool swap, answered;
    int rc;
    struct shard_record record;
    uint8_t *bytes;
    size_t len;
};
struct node {
    struct replica *core; /* NULL: it is down */
    struct replica_effects effects;
    struct replica_event later[LATER_MAX]; /* events that its effects led to */
    uint8_t *later_bytes[LATER_MAX];
    unsigned later_count, start;
    int64_t offset_ns, drift_ppm;
    uint64_t hlc;
    bool writing, copying;
    uint64_t writing_to;
    /* on disk, but for what is above durable */
    struct entry log[INDEX_MAX + 1];
    uint64_t first, last, durable, state, life;
    bool blank;
};
struct op {
    uint64_t id, index, floor;
    unsigned node;
};
struct world {
    struct rng rng;
    uint64_t now_ns, order;
    struct event heap[EVENTS_MAX];
    unsigned event_count;
    struct node nodes[WORLD_NODES];
    struct shard_record record;
    struct entry truth[INDEX_MAX + 1];
    uint64_t truth_last, acked, ids, promised;
    struct op ops[OPS_MAX];
    unsigned op_count;
    bool cut[WORLD_NODES + 1][WORLD_NODES + 1];
    bool healed;
    unsigned loss_percent, repeat_percent, late_percent;
    uint64_t delay_ns;
    struct replica_world_result *result;
};

static void fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct world *w, const char *fmt, ...)
{
    va_list args;
    if (w->result->failure[0] != '\0')
        return;
    int used = snprintf(w->result->failure, sizeof w->result->failure,
                        "%.3f s: ", (double)w->now_ns / 1e9);
    va_start(args, fmt);
    (void)vsnprintf(w->result->failure + used, sizeof w->result->failure - (size_t)used, fmt, args);
    va_end(args);
}

static uint64_t below(struct world *w, uint64_t n)
{
    return rng_below(&w->rng, n);
}

/* ---- time ---- */

static bool earlier(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void push(struct world *w, uint64_t in_ns, struct event e)
{
    ASSERT(w->event_count < EVENTS_MAX);
    unsigned i = w->event_count++;
    e.at_ns = w->now_ns + in_ns;
    e.order = ++w->order;
    for (; i > 0 && earlier(&e, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = e;
}

static struct event pop(struct world *w)
{
    struct event top = w->heap[0], e = w->heap[--w->event_count];
    unsigned i = 0, child;
    for (; (child = 2 * i + 1) < w->event_count; i = child) {
        if (child + 1 < w->event_count && earlier(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!earlier(&w->heap[child], &e))
            break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = e;
    return top;
}

static uint64_t local_ns(const struct world *w, unsigned n)
{
    const struct node *x = &w->nodes[n];
    int64_t now = (int64_t)w->now_ns;
    return (uint64_t)(now + now * x->drift_ppm / 1000000 + x->offset_ns);
}

static uint64_t stamp_of(struct world *w, unsigned n)
{
    struct node *x = &w->nodes[n];
    x->hlc = MAX(x->hlc + 1, local_ns(w, n) / MS << 16);
    return x->hlc;
}

/* ---- the network ---- */

static bool lost(struct world *w, unsigned from, unsigned to)
{
    return w->cut[from][to] || (!w->healed && below(w, 100) < w->loss_percent);
}

static uint64_t delay(struct world *w)
{
    if (!w->healed && below(w, 1000) < w->late_percent)
        return below(w, 8 * NS_PER_SEC);
    return MS / 2 + below(w, w->delay_ns);
}

static void transmit(struct world *w, unsigned from, unsigned to, struct event e)
{
    if (!lost(w, from, to))
        push(w, delay(w), e);
}

static void message(struct world *w, unsigned from, unsigned to, struct slice s)
{
    unsigned copies = !w->healed && below(w, 100) < w->repeat_percent ? 2 : 1;
    for (unsigned i = 0; i < copies; i++)
        if (!lost(w, from, to))
            push(w, delay(w),
                 (struct event){.what = DO_MESSAGE,
                                .node = to,
                                .from = from,
                                .bytes = mem_dup(s.ptr, s.len),
                                .len = s.len});
}

/* ---- what must hold ---- */

static void check_commit(struct world *w, unsigned n, uint64_t index)
{
    struct node *x = &w->nodes[n];
    for (uint64_t i = x->first; i <= index; i++) {
        if (i > w->truth_last) {
            w->truth[i] = x->log[i];
            w->truth_last = i;
            w->result->committed++;
        } else if (x->log[i].id != w->truth[i].id || x->log[i].epoch != w->truth[i].epoch) {
            fail(w, "node %u commits another record %llu", n, (unsigned long long)i);
        }
    }
    if (index > w->truth_last)
        fail(w, "node %u commits what it has not", n);
}

static void acknowledge(struct world *w, unsigned n, uint64_t index)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < w->op_count; i++) {
        const struct op o = w->ops[i];
        if (o.node != n || o.index > index) {
            w->ops[kept++] = o;
            continue;
        }
        if (w->nodes[n].log[o.index].id != o.id)
            fail(w, "an acknowledged write is not there");
        if (o.index <= o.floor)
            fail(w, "a write came before one that was acknowledged earlier");
        w->acked = MAX(w->acked, o.index);
        w->result->acknowledged++;
    }
    w->op_count = kept;
}

static void drop_ops(struct world *w, unsigned n)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < w->op_count; i++)
        if (w->ops[i].node != n)
            w->ops[kept++] = w->ops[i];
    w->op_count = kept;
}

static void check_serve(struct world *w, unsigned n)
{
    const struct node *x = &w->nodes[n];
    if (x->last < w->truth_last || replica_commit(x->core) < w->truth_last)
        fail(w, "node %u serves without record %llu", n, (unsigned long long)w->truth_last);
    w->result->takeovers++;
}

static void check_one_serves(struct world *w)
{
    unsigned count = 0;
    for (unsigned n = 0; n < WORLD_NODES; n++)
        count += w->nodes[n].core != NULL && replica_serves(w->nodes[n].core, local_ns(w, n));
    if (count > 1)
        fail(w, "two replicas serve");
}

/* ---- a node: its disk ---- */

static void disk_go(struct world *w, unsigned n)
{
    struct node *x = &w->nodes[n];
    if (x->writing || x->durable >= x->last)
        return;
    x->writing = true;
    x->writing_to = x->last;
    push(w, MS + below(w, 8 * MS), (struct event){.what = DO_DISK, .node = n, .start = x->start});
}

static void log_add(struct world *w, unsigned n, uint64_t epoch, struct slice payload)
{
    struct node *x = &w->nodes[n];
    ASSERT(x->last < INDEX_MAX && payload.len == sizeof(uint64_t));
    struct entry *e = &x->log[++x->last];
    e->epoch = epoch;
    memcpy(&e->id, payload.ptr, sizeof e->id);
    disk_go(w, n);
}

static void log_cut(struct world *w, unsigned n, uint64_t index)
{
    struct node *x = &w->nodes[n];
    if (index < x->state)
        fail(w, "node %u cuts below what its state holds", n);
    x->last = index;
    x->durable = MIN(x->durable, index);
    x->writing_to = MIN(x->writing_to, index);
}

/* ---- a node: its core ---- */

static void later(struct node *x, struct replica_event e, uint8_t *bytes)
{
    ASSERT(x->later_count < LATER_MAX);
    x->later_bytes[x->later_count] = bytes;
    x->later[x->later_count++] = e;
}

static void read_log(struct world *w, unsigned n, const struct replica_effect *e)
{
    struct node *x = &w->nodes[n];
    struct buf b = {0};
    struct replica_event done = {.kind = REPLICA_READ, .node = e->node, .index = e->index};
    (void)w;
    replica_records_begin(&b);
    if (e->index < x->first)
        done.rc = ERR_NOT_FOUND;
    for (uint64_t i = e->index; done.rc == 0 && i <= x->durable && i < e->index + 20; i++)
        if (!replica_records_add(&b, x->log[i].epoch, slice_of(&x->log[i].id, sizeof(uint64_t))))
            break;
    done.bytes = buf_slice(&b);
    later(x, done, b.ptr);
}

static void ask(struct world *w, unsigned n, const struct replica_effect *e)
{
    transmit(w, n, COORDINATOR,
             (struct event){.what = DO_REQUEST,
                            .node = n,
                            .start = w->nodes[n].start,
                            .request = e->request,
                            .swap = e->kind == REPLICA_SWAP,
                            .record = e->record});
}

static void effect(struct world *w, unsigned n, const struct replica_effect *e)
{
    struct node *x = &w->nodes[n];
    switch (e->kind) {
    case REPLICA_SEND:
        message(w, n, (unsigned)e->node - 1, e->bytes);
        return;
    case REPLICA_APPEND:
        ASSERT_EQ(e->index, x->last + 1);
        log_add(w, n, e->epoch, e->bytes);
        return;
    case REPLICA_CUT:
        log_cut(w, n, e->index);
        return;
    case REPLICA_COMMIT:
        check_commit(w, n, e->index);
        acknowledge(w, n, e->index);
        return;
    case REPLICA_READ_LOG:
        read_log(w, n, e);
        return;
    case REPLICA_ASK:
    case REPLICA_SWAP:
        ask(w, n, e);
        return;
    case REPLICA_LEAD:
        return;
    case REPLICA_SERVE:
        x->hlc = MAX(x->hlc, e->stamp);
        check_serve(w, n);
        return;
    case REPLICA_STEP_DOWN:
        drop_ops(w, n);
        return;
    case REPLICA_COPY:
        x->copying = true;
        x->first = 1;
        x->last = x->durable = x->state = x->writing_to = 0;
        push(w, 100 * MS + below(w, 2 * NS_PER_SEC),
             (struct event){
                 .what = DO_COPY, .node = n, .from = (unsigned)e->node - 1, .start = x->start});
        return;
    }
}

static void step(struct world *w, unsigned n, struct replica_event e)
{
    struct node *x = &w->nodes[n];
    later(x, e, NULL);
    for (unsigned i = 0; i < x->later_count; i++) {
        struct replica_event now = x->later[i];
        now.now_ns = local_ns(w, n);
        now.stamp = x->hlc;
        int rc = replica_step(x->core, &now, &x->effects);
        if (rc != 0)
            fail(w, "node %u refuses: %s", n, err_name(rc));
        for (uint32_t k = 0; k < x->effects.count; k++)
            effect(w, n, &x->effects.at[k]);
        mem_free(x->later_bytes[i]);
    }
    x->later_count = 0;
    replica_validate(x->core);
    x->blank = replica_blank(x->core);
    check_one_serves(w);
}

static void start(struct world *w, unsigned n)
{
    struct node *x = &w->nodes[n];
    struct replica_run runs[REPLICA_EPOCHS_MAX];
    uint32_t run_count = 0;
    if (x->copying || x->state > x->last) { /* half a copy */
        x->first = 1;
        x->last = x->state = 0;
        x->blank = true;
    }
    x->durable = x->last;
    x->copying = x->writing = false;
    x->hlc = 0;
    x->start++;
    for (uint64_t i = x->first; i <= x->last; i++)
        if (run_count == 0 || runs[run_count - 1].epoch != x->log[i].epoch)
            runs[run_count++] = (struct replica_run){.first = i, .epoch = x->log[i].epoch};
    struct replica_config c = {.node = n + 1,
                               .nodes = {1, 2, 3},
                               .node_count = WORLD_NODES,
                               .life = ++x->life,
                               .founder = n == 0,
                               .blank = x->blank,
                               .last = x->last,
                               .commit = x->state,
                               .runs = runs,
                               .run_count = run_count,
                               .lease_ns = 2 * NS_PER_SEC,
                               .beat_ns = 100 * MS,
                               .silence_ns = 600 * MS,
                               .answer_ns = 400 * MS};
    x->core = replica_new(&c);
    push(w, MS, (struct event){.what = DO_TICK, .node = n, .start = x->start});
}

/* Of what was under way to the disk, some beginning may be there. */
static void crash(struct world *w, unsigned n, bool wipe)
{
    struct node *x = &w->nodes[n];
    if (x->core == NULL)
        return;
    replica_free(x->core);
    x->core = NULL;
    drop_ops(w, n);
    x->last = x->durable + below(w, x->last - x->durable + 1);
    if (wipe) {
        x->first = 1;
        x->last = x->state = 0;
        x->blank = true;
    }
    w->result->crashes++;
    push(w, below(w, 6 * NS_PER_SEC), (struct event){.what = DO_RESTART, .node = n});
}

/* ---- what happens ---- */

static void on_tick(struct world *w, unsigned n)
{
    struct node *x = &w->nodes[n];
    step(w, n, (struct replica_event){.kind = REPLICA_TICK});
    if (below(w, 40) == 0)
        x->state = MAX(x->state, replica_commit(x->core)); /* written down */
    if (below(w, 40) == 0 && x->state > 0 && x->state <= x->durable)
        x->first = MAX(x->first, MIN(x->state, replica_keep_from(x->core)));
    uint64_t due = replica_deadline_ns(x->core) - local_ns(w, n);
    push(w, MIN(due, 50 * MS), (struct event){.what = DO_TICK, .node = n, .start = x->start});
}

static void on_request(struct world *w, struct event e)
{
    e.what = DO_ANSWER;
    if (e.swap && e.record.version == w->record.version) {
        if (e.record.in_sync_count < w->record.in_sync_count)
            w->result->removals++;
        w->record = e.record;
        w->record.version++;
    } else if (e.swap) {
        e.rc = ERR_STALE_BASE;
    } else {
        e.record = w->record;
    }
    transmit(w, COORDINATOR, e.node, e);
}

static void on_disk(struct world *w, unsigned n)
{
    struct node *x = &w->nodes[n];
    uint64_t to = x->writing_to;
    x->writing = false;
    if (to > x->durable) {
        x->durable = to;
        step(w, n, (struct replica_event){.kind = REPLICA_DURABLE, .index = to});
    }
    disk_go(w, n);
}

static void on_copy(struct world *w, unsigned n, unsigned from)
{
    struct node *x = &w->nodes[n], *y = &w->nodes[from];
    struct replica_event done = {.kind = REPLICA_COPIED, .index = 1, .life = ++x->life};
    x->copying = false;
    if (y->core != NULL && !y->copying && replica_role(y->core) == REPLICA_PRIMARY &&
        !w->cut[from][n]) {
        uint64_t commit = replica_commit(y->core);
        uint64_t keep = MAX(y->first, commit + 1 - MIN(commit, below(w, 8)));
        step(w, from, (struct replica_event){.kind = REPLICA_SERVED, .node = n + 1, .index = keep});
        x->state = commit;
        x->first = done.index = keep;
        x->last = x->durable = keep - 1;
        w->result->copies++;
    }
    step(w, n, done);
}

static void client_write(struct world *w, unsigned n)
{
    struct node *x = &w->nodes[n];
    uint64_t id = ++w->ids, stamp = stamp_of(w, n);
    if (x->last >= INDEX_MAX || w->op_count == OPS_MAX)
        return;
    if (stamp <= w->promised)
        fail(w, "node %u stamps below what was promised", n);
    log_add(w, n, replica_epoch(x->core), slice_of(&id, sizeof id));
    w->ops[w->op_count++] = (struct op){.id = id, .index = x->last, .floor = w->acked, .node = n};
    step(w, n,
         (struct replica_event){
             .kind = REPLICA_APPENDED, .index = x->last, .bytes = slice_of(&id, sizeof id)});
}

static void on_client(struct world *w)
{
    unsigned n = (unsigned)below(w, WORLD_NODES);
    struct node *x = &w->nodes[n];
    push(w, below(w, 40 * MS), (struct event){.what = DO_CLIENT});
    if (x->core == NULL || !replica_serves(x->core, local_ns(w, n)))
        return;
    for (uint64_t i = below(w, 4); i > 0; i--)
        if (replica_serves(x->core, local_ns(w, n)))
            client_write(w, n);
    if (!replica_serves(x->core, local_ns(w, n)))
        return;
    w->result->reads++;
    if (replica_commit(x->core) < w->acked)
        fail(w, "node %u reads an old value", n);
    w->acked = MAX(w->acked, replica_commit(x->core));
    w->promised = MAX(w->promised, replica_promise(x->core, stamp_of(w, n)));
}

/* A copy may be lost only while all others count: that is what redundancy promises. */
static bool may_wipe(const struct world *w)
{
    bool all = w->record.in_sync_count == WORLD_NODES;
    for (unsigned i = 0; i < WORLD_NODES; i++)
        all = all && w->nodes[i].core != NULL && !w->nodes[i].blank;
    return all;
}

static void cut_some(struct world *w, unsigned n)
{
    unsigned other = (unsigned)below(w, WORLD_NODES + 1), kind = (unsigned)below(w, 4);
    for (unsigned i = 0; i <= WORLD_NODES; i++)
        if (i != n && (kind == 0 || i == other)) {
            w->cut[n][i] = kind != 1;
            w->cut[i][n] = kind != 2;
        }
    push(w, below(w, 8 * NS_PER_SEC), (struct event){.what = DO_CUT_END, .node = n});
}

static void on_fault(struct world *w)
{
    unsigned n = (unsigned)below(w, WORLD_NODES);
    struct node *x = &w->nodes[n];
    if (w->healed)
        return;
    push(w, below(w, 3 * NS_PER_SEC), (struct event){.what = DO_FAULT});
    switch (below(w, 8)) {
    case 0:
    case 1:
        crash(w, n, false);
        return;
    case 2: /* loss of power everywhere */
        for (unsigned i = 0; i < WORLD_NODES && below(w, 2) == 0; i++)
            crash(w, i, false);
        return;
    case 3:
        if (may_wipe(w))
            crash(w, n, true);
        return;
    case 4:
        if (x->core != NULL)
            step(w, n, (struct replica_event){.kind = REPLICA_RESIGN});
        return;
    case 5:
        if (x->core != NULL && below(w, 3) == 0) {
            step(w, n, (struct replica_event){.kind = REPLICA_BROKEN});
            x->writing = true; /* for ever: until it starts again */
            x->start++;
            crash(w, n, false);
        }
        return;
    default:
        cut_some(w, n);
    }
}

static void run_event(struct world *w, struct event e)
{
    struct node *x = &w->nodes[e.node];
    bool same = x->core != NULL && e.start == x->start;
    switch (e.what) {
    case DO_TICK:
        if (same)
            on_tick(w, e.node);
        break;
    case DO_MESSAGE:
        if (x->core != NULL)
            step(w, e.node,
                 (struct replica_event){.kind = REPLICA_MESSAGE,
                                        .node = e.from + 1,
                                        .bytes = slice_of(e.bytes, e.len)});
        break;
    case DO_REQUEST:
        on_request(w, e);
        break;
    case DO_ANSWER:
        if (same)
            step(w, e.node,
                 (struct replica_event){.kind = e.swap ? REPLICA_SWAPPED : REPLICA_RECORD,
                                        .request = e.request,
                                        .rc = e.rc,
                                        .record = &e.record});
        break;
    case DO_DISK:
        if (same)
            on_disk(w, e.node);
        break;
    case DO_COPY:
        if (same)
            on_copy(w, e.node, e.from);
        break;
    case DO_RESTART:
        if (x->core == NULL)
            start(w, e.node);
        break;
    case DO_FAULT:
        on_fault(w);
        break;
    case DO_CLIENT:
        on_client(w);
        break;
    case DO_CUT_END:
        for (unsigned i = 0; i <= WORLD_NODES; i++)
            w->cut[e.node][i] = w->cut[i][e.node] = false;
        break;
    }
    mem_free(e.bytes);
}

static void run_until(struct world *w, uint64_t until_ns)
{
    while (w->result->failure[0] == '\0' && w->heap[0].at_ns <= until_ns) {
        struct event e = pop(w);
        w->now_ns = e.at_ns;
        run_event(w, e);
    }
}

/* ---- the liveness phase ---- */

static void heal(struct world *w)
{
    w->healed = true;
    memset(w->cut, 0, sizeof w->cut);
}

static void check_final(struct world *w)
{
    unsigned serving = 0;
    if (w->record.in_sync_count != WORLD_NODES)
        fail(w, "%u of %u in sync in the end", w->record.in_sync_count, WORLD_NODES);
    for (unsigned n = 0; n < WORLD_NODES; n++) {
        struct node *x = &w->nodes[n];
        if (x->core == NULL) {
            fail(w, "node %u is down", n);
            return;
        }
        serving += replica_serves(x->core, local_ns(w, n));
        if (x->last < w->truth_last || replica_commit(x->core) + 200 < w->truth_last)
            fail(w, "node %u is behind in the end", n);
        check_commit(w, n, replica_commit(x->core));
    }
    if (serving != 1)
        fail(w, "%u serve in the end", serving);
}

void replica_world_run(uint64_t seed, struct replica_world_result *ret)
{
    struct world *w = mem_calloc(1, sizeof *w);
    memset(ret, 0, sizeof *ret);
    w->result = ret;
    rng_seed(&w->rng, seed);
    w->loss_percent = (unsigned)below(w, 12);
    w->repeat_percent = (unsigned)below(w, 12);
    w->late_percent = (unsigned)below(w, 12); /* of a thousand */
    w->delay_ns = MS + below(w, 40 * MS);
    for (unsigned n = 0; n < WORLD_NODES; n++) {
        w->nodes[n].first = 1;
        w->nodes[n].drift_ppm = (int64_t)below(w, 100000) - 50000;
        w->nodes[n].offset_ns = (int64_t)below(w, 10 * NS_PER_SEC) + (int64_t)NS_PER_SEC;
        start(w, n);
    }
    push(w, below(w, 3 * NS_PER_SEC), (struct event){.what = DO_FAULT});
    push(w, 0, (struct event){.what = DO_CLIENT});
    run_until(w, FAULTS_NS);
    heal(w);
    run_until(w, FAULTS_NS + HEAL_NS);
    uint64_t acknowledged = ret->acknowledged;
    run_until(w, FAULTS_NS + HEAL_NS + 2 * NS_PER_SEC);
    if (ret->acknowledged == acknowledged)
        fail(w, "no write is acknowledged in the end");
    check_final(w);
    for (unsigned i = 0; i < w->event_count; i++)
        mem_free(w->heap[i].bytes);
    for (unsigned n = 0; n < WORLD_NODES; n++) {
        replica_free(w->nodes[n].core);
        replica_effects_deinit(&w->nodes[n].effects);
    }
    mem_free(w);
}
