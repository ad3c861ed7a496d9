/* One node of a site of several: the journal, the core, a state, and their ends. See replicas.h. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "sim/replicas_int.h"
#include "site/settings.h"

#define STATE_NAME "state"
#define SAVE_NS NS_PER_SEC
#define EPOCH_NS (UINT64_C(1700000000) * NS_PER_SEC)
#define READ_BYTES ((size_t)(32u * KIB))

/* ---- clocks ---- */

static uint64_t mono_ns(void *ctx)
{
    const struct replicas_node *n = ctx;
    int64_t now = (int64_t)sched->now_ns;
    return (uint64_t)(now + now * n->drift_ppm / 1000000 + (int64_t)NS_PER_SEC);
}

static uint64_t wall_ns(void *ctx)
{
    const struct replicas_node *n = ctx;
    return EPOCH_NS + (uint64_t)((int64_t)mono_ns(ctx) + n->offset_ns);
}

uint64_t replicas_now_ns(const struct replicas_node *n)
{
    return clock_mono_ns(&n->clock);
}

uint64_t replicas_stamp(struct replicas_node *n)
{
    n->hlc = MAX(n->hlc + 1, clock_wall_ns(&n->clock) / NS_PER_MS << 16);
    return n->hlc;
}

bool replicas_serves(const struct replicas_node *n)
{
    return n->core != NULL && !n->broken && replica_serves(n->core, replicas_now_ns(n));
}

/* ---- the disk ---- */

static void journal_dir(const struct replicas_node *n, char out[40])
{
    (void)snprintf(out, 40, "%s/journal", n->dir); /* fits */
}

static void node_broken(struct replicas_node *n)
{
    if (n->broken)
        return;
    n->broken = true;
    sched_note("broken", n->number, 0);
    replicas_tell(n, (struct replica_event){.kind = REPLICA_BROKEN}, NULL);
}

static void state_save(struct replicas_node *n)
{
    struct err_detail d;
    if (dir_file_write(n->dir, STATE_NAME, &n->state, sizeof n->state, &d) != 0)
        node_broken(n);
    else
        n->stored = n->state.index;
}

static void on_durable(void *ctx, uint64_t index)
{
    struct replicas_node *n = ctx;
    if (!n->dying && !n->broken)
        replicas_tell(n, (struct replica_event){.kind = REPLICA_DURABLE, .index = index}, NULL);
}

static void on_failed(void *ctx, int rc, const struct err_detail *d)
{
    struct replicas_node *n = ctx;
    (void)rc;
    (void)d;
    if (!n->dying)
        node_broken(n);
}

static uint64_t append(struct replicas_node *n, uint64_t epoch, struct slice payload)
{
    uint64_t index = 0;
    if (n->broken)
        return 0;
    log_epoch_set(n->log, epoch);
    if (log_append(n->log, &payload, 1, &index) != 0) {
        node_broken(n);
        return 0;
    }
    ASSERT(index <= REPLICAS_RECORDS_MAX && payload.len >= sizeof(uint64_t));
    n->entries[index].epoch = epoch;
    memcpy(&n->entries[index].id, payload.ptr, sizeof(uint64_t));
    return index;
}

/* Records of different sizes, so that they lie anywhere in their blocks. */
uint64_t replicas_append(struct replicas_node *n, uint64_t id)
{
    uint8_t *bytes = mem_calloc(1, 4096);
    size_t len = sizeof id + (size_t)(id * 97 % 1800);
    memcpy(bytes, &id, sizeof id);
    uint64_t index = append(n, replica_epoch(n->core), slice_of(bytes, len));
    if (index == 0)
        mem_free(bytes);
    else
        replicas_tell(n,
                      (struct replica_event){
                          .kind = REPLICA_APPENDED, .index = index, .bytes = slice_of(bytes, len)},
                      bytes);
    return index;
}

static bool collect(void *ctx, const struct log_record *record)
{
    return replica_records_add(ctx, record->epoch, record->payload);
}

static void read_log(struct replicas_node *n, const struct replica_effect *e)
{
    struct buf b = {0};
    uint64_t next;
    replica_records_begin(&b);
    int rc = log_read(n->log, e->index, READ_BYTES, collect, &b, &next);
    if (rc != 0 && rc != ERR_NOT_FOUND)
        replicas_fail(n->world, "P2", "node %u cannot read record %llu: %s", n->number,
                      (unsigned long long)e->index, err_name(rc));
    replicas_tell(n,
                  (struct replica_event){.kind = REPLICA_READ,
                                         .node = e->node,
                                         .index = e->index,
                                         .rc = rc,
                                         .bytes = buf_slice(&b)},
                  b.ptr);
}

/* ---- copies of the state ---- */

struct copy {
    struct sched_event event;
    struct replicas_node *to, *from;
    uint64_t start;
};

/* What was there is given up at the beginning: half a copy is none. */
static void copy_empty(struct replicas_node *n)
{
    uint64_t life = n->state.life;
    n->state = (struct replicas_state){.life = life, .blank = n->state.blank, .copying = 1};
    state_save(n);
    if (!n->broken && log_reset(n->log, 1) != 0)
        node_broken(n);
}

static void copy_done(struct sched_event *e)
{
    struct copy *c = CONTAINER_OF(e, struct copy, event);
    struct replicas_node *n = c->to, *from = c->from;
    struct replicas *w = n->world;
    if (n->core == NULL || n->start != c->start || n->broken) {
        mem_free(c);
        return;
    }
    struct replica_event done = {.kind = REPLICA_COPIED, .index = 1, .life = ++n->state.life};
    n->state.copying = 0;
    if (replicas_serves(from) && !w->cut[from->number][n->number]) {
        uint64_t index = from->state.index, back = rng_below(&sched->rng, 8);
        done.index = MAX(log_first(from->log), index + 1 - MIN(index, back));
        replicas_tell(from,
                      (struct replica_event){
                          .kind = REPLICA_SERVED, .node = n->number + 1, .index = done.index},
                      NULL);
        memcpy(n->state.registers, from->state.registers, sizeof n->state.registers);
        n->state.index = index;
        n->state.copying = done.index <= index;
        w->copies++;
    }
    sched_note("copied", n->number, done.index);
    state_save(n);
    if (!n->broken && log_reset(n->log, done.index) != 0)
        node_broken(n);
    replicas_tell(n, done, NULL);
    mem_free(c);
}

static void copy_begin(struct replicas_node *n, unsigned from)
{
    struct copy *c = mem_calloc(1, sizeof *c);
    c->to = n;
    c->from = &n->world->nodes[from];
    c->start = n->start;
    c->event.run = copy_done;
    copy_empty(n);
    sched_in(&c->event, 50 * NS_PER_MS + rng_below(&sched->rng, 2 * NS_PER_SEC));
}

/* ---- the core ---- */

static void apply(struct replicas_node *n, uint64_t index)
{
    for (; n->state.index < index; n->state.index++) {
        uint64_t id = n->entries[n->state.index + 1].id;
        n->state.registers[id % REPLICAS_REGISTERS] = id;
    }
}

static void effect(struct replicas_node *n, const struct replica_effect *e)
{
    sched_note("effect", (uint64_t)e->kind << 8 | n->number, e->index);
    switch (e->kind) {
    case REPLICA_SEND:
        replicas_message(n->world, n->number, (unsigned)e->node - 1, e->bytes);
        return;
    case REPLICA_APPEND:
        if (append(n, e->epoch, e->bytes) != e->index && !n->broken)
            replicas_fail(n->world, "P2", "node %u appends out of order", n->number);
        return;
    case REPLICA_CUT:
        if (!n->broken && log_cut(n->log, e->index) != 0)
            node_broken(n);
        return;
    case REPLICA_COMMIT:
        replicas_committed(n, e->index);
        apply(n, e->index);
        return;
    case REPLICA_READ_LOG:
        read_log(n, e);
        return;
    case REPLICA_ASK:
    case REPLICA_SWAP:
        replicas_ask(n, e);
        return;
    case REPLICA_LEAD:
        return;
    case REPLICA_SERVE:
        n->hlc = MAX(n->hlc, e->stamp);
        replicas_began_to_serve(n);
        return;
    case REPLICA_STEP_DOWN:
        replicas_dropped(n);
        return;
    case REPLICA_COPY:
        copy_begin(n, (unsigned)e->node - 1);
        return;
    }
}

static void tell_one(struct replicas_node *n, struct replica_event e)
{
    e.now_ns = replicas_now_ns(n);
    e.stamp = n->hlc;
    /* A cut or a reset may have taken back what was reported before it. */
    if (e.kind == REPLICA_DURABLE)
        e.index = log_durable(n->log);
    int rc = replica_step(n->core, &e, &n->effects);
    if (rc != 0)
        replicas_fail(n->world, "P9", "node %u refuses what a node sent: %s", n->number,
                      err_name(rc));
    for (uint32_t i = 0; i < n->effects.count; i++)
        effect(n, &n->effects.at[i]);
    replica_validate(n->core);
}

/* Effects lead to events: those wait until all effects before are carried out. */
void replicas_tell(struct replicas_node *n, struct replica_event e, uint8_t *bytes)
{
    ASSERT(n->event_count < REPLICAS_EVENTS_MAX);
    n->event_bytes[n->event_count] = bytes;
    n->events[n->event_count++] = e;
    if (n->telling)
        return;
    n->telling = true;
    for (unsigned i = 0; i < n->event_count; i++) {
        tell_one(n, n->events[i]);
        mem_free(n->event_bytes[i]);
    }
    n->event_count = 0;
    n->telling = false;
    replicas_check_one_serves(n->world);
}

static void on_tick(struct loop_timer *t)
{
    struct replicas_node *n = CONTAINER_OF(t, struct replicas_node, tick);
    replicas_tell(n, (struct replica_event){.kind = REPLICA_TICK}, NULL);
    bool whole = n->state.index > 0 && log_durable(n->log) >= n->state.index;
    bool marks = n->state.blank != replica_blank(n->core) || (n->state.copying && whole);
    if (!n->broken && (marks || replicas_now_ns(n) - n->saved_ns > SAVE_NS)) {
        n->saved_ns = replicas_now_ns(n);
        n->state.blank = replica_blank(n->core);
        n->state.copying = n->state.copying && !whole;
        state_save(n);
        if (!n->broken && !n->state.copying && n->stored > 0)
            log_trim(n->log, MIN(n->stored, replica_keep_from(n->core)));
    }
    loop_timer_start(n->loop, &n->tick,
                     MAX(replica_deadline_ns(n->core), replicas_now_ns(n) + NS_PER_MS));
}

/* ---- beginning and ending ---- */

struct loaded {
    struct replicas_node *node;
    struct replica_run runs[REPLICA_EPOCHS_MAX];
    uint32_t count;
};

static bool load(void *ctx, const struct log_record *record)
{
    struct loaded *l = ctx;
    struct replicas_entry *e = &l->node->entries[record->index];
    e->epoch = record->epoch;
    memcpy(&e->id, record->payload.ptr, sizeof e->id);
    if (l->count == 0 || l->runs[l->count - 1].epoch != record->epoch) {
        ASSERT(l->count < REPLICA_EPOCHS_MAX);
        l->runs[l->count++] = (struct replica_run){.first = record->index, .epoch = record->epoch};
    }
    return true;
}

static int journal_open(struct replicas_node *n, struct loaded *l, struct err_detail *d)
{
    char path[40];
    journal_dir(n, path);
    struct log_config c = {.dir = path,
                           .segment_bytes = n->world->segment_bytes,
                           .loop = n->loop,
                           .ctx = n,
                           .on_durable = on_durable,
                           .on_failed = on_failed};
    struct log_recovery info;
    int rc = log_open(&n->log, &c, &info, d);
    if (rc == 0 && (n->state.copying || n->state.index > log_last(n->log))) {
        n->state = (struct replicas_state){.life = n->state.life, .blank = 1};
        rc = log_reset(n->log, 1);
    }
    uint64_t next = rc == 0 ? log_first(n->log) : 1;
    l->node = n;
    while (rc == 0 && next <= log_last(n->log))
        rc = log_read(n->log, next, MIB, load, l, &next);
    return rc;
}

static struct replica *core_new(const struct replicas_node *n, const struct loaded *l)
{
    struct replica_config c = {.node = n->number + 1,
                               .nodes = {1, 2, 3},
                               .node_count = REPLICAS_NODES,
                               .life = n->state.life,
                               .founder = n->number == 0,
                               .blank = n->state.blank != 0,
                               .last = log_last(n->log),
                               .commit = n->state.index,
                               .runs = l->runs,
                               .run_count = l->count,
                               .lease_ns = 2 * NS_PER_SEC,
                               .beat_ns = 100 * NS_PER_MS,
                               .silence_ns = 600 * NS_PER_MS,
                               .answer_ns = 400 * NS_PER_MS};
    return replica_new(&c);
}

void replicas_node_start(struct replicas_node *n)
{
    struct err_detail d = {{0}};
    struct loaded *l = mem_calloc(1, sizeof *l);
    ASSERT(n->loop == NULL);
    sched_note("start", n->number, 0);
    machine_current = &n->machine;
    int rc = loop_new(&n->loop, 64, &n->clock, &d);
    if (dir_file_read(n->dir, STATE_NAME, &n->state, sizeof n->state, &d) != 0)
        memset(&n->state, 0, sizeof n->state);
    if (rc == 0)
        rc = journal_open(n, l, &d);
    machine_current = NULL;
    if (rc != 0) {
        replicas_fail(n->world, "P2", "node %u does not start: %s", n->number, d.text);
        mem_free(l);
        return;
    }
    n->dying = n->broken = false;
    n->hlc = 0;
    n->start++;
    n->state.life++;
    n->core = core_new(n, l);
    state_save(n); /* before anything is said in this life */
    n->tick.fire = on_tick;
    loop_timer_start(n->loop, &n->tick, replicas_now_ns(n) + NS_PER_MS);
    mem_free(l);
}

void replicas_node_crash(struct replicas_node *n, bool power)
{
    if (n->loop == NULL)
        return;
    sched_note("crash", n->number, power);
    replicas_dropped(n);
    n->dying = true;
    loop_lose(n->loop, power);
    disk_crash(n->machine.disk, power);
    n->machine.ghost = true;
    machine_current = &n->machine;
    loop_timer_stop(n->loop, &n->tick);
    log_close(n->log);
    loop_free(n->loop);
    machine_current = NULL;
    n->machine.ghost = false;
    replica_free(n->core);
    n->core = NULL;
    n->log = NULL;
    n->loop = NULL;
}

static void dir_empty(const char *path)
{
    size_t count;
    char **names = disk_list(path, &count);
    for (size_t i = 0; i < count; i++) {
        char *inner = mem_printf("%s/%s", path, names[i]);
        if (disk_remove(inner, false) != 0)
            dir_empty(inner);
        mem_free(inner);
        mem_free(names[i]);
    }
    mem_free(names);
}

void replicas_node_wipe(struct replicas_node *n)
{
    struct err_detail d;
    uint64_t life = n->state.life;
    ASSERT(n->loop == NULL);
    disk_set_room(n->machine.disk, DISK_ROOM);
    dir_empty(n->dir);
    /* Whoever puts a new disk in says so, and that the node is not in its first life. */
    n->state = (struct replicas_state){.life = life, .blank = 1};
    if (dir_file_write(n->dir, STATE_NAME, &n->state, sizeof n->state, &d) != 0)
        replicas_fail(n->world, "P9", "node %u: %s", n->number, d.text);
}

void replicas_node_init(struct replicas *w, unsigned number, const struct world_disk *disk)
{
    struct replicas_node *n = &w->nodes[number];
    char path[40];
    n->world = w;
    n->number = number;
    (void)snprintf(n->dir, sizeof n->dir, DISK_PREFIX "%u", number); /* fits */
    n->clock = (struct clock){.mono_ns = mono_ns, .wall_ns = wall_ns, .ctx = n};
    n->machine = (struct machine){.clock = &n->clock, .site = number};
    n->machine.disk = disk_new(n->dir, disk);
    journal_dir(n, path);
    if (mkdir(n->dir, 0700) != 0 || mkdir(path, 0700) != 0)
        replicas_fail(w, "setup", "%s cannot be made", path);
}

void replicas_node_deinit(struct replicas_node *n)
{
    replicas_node_crash(n, false);
    replica_effects_deinit(&n->effects);
    disk_free(n->machine.disk);
}
