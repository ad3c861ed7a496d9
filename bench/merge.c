/* Speed of the conflict-resolution engine on one core, in processor time: neighbours on the machine
 * then disturb less. Each figure is taken in SLICES slices of its history, in turn with what it is
 * compared with; `limit` is the goal, of healed.operation what an operation takes in order.
 *
 *   in_order       a work load of one site (history.h)
 *   random         the same with every file and directory equally likely: cold caches
 *   moves_N_deep   the same mixed with directory moves that arrive N moves too late
 *   healed         two sites worked apart; the second one's operations arrive all at once
 *
 * bench_merge [-n OPS] [-p PARTITION_OPS] [-d DIR] [-o ONLY] */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "bench/common.h"
#include "bench/history.h"
#include "journal/merge.h"

enum {
    SLICES = 10
};

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* cannot fail with this clock */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void site_hex(void *ctx, site_id_t site, char out[33])
{
    (void)ctx;
    (void)snprintf(out, 33, "site%u", site);
}

struct run {
    struct state *state;
    struct merge *merge;
    uint64_t index;
    bool disk;
};

static void run_open(struct run *r, const char *dir)
{
    struct state_store store;
    struct err_detail detail = {.text = ""};
    *r = (struct run){.disk = dir != NULL};
    int rc = 0;
    if (r->disk)
        rc = state_store_rocks_open(&store, dir, 256 << 20, &detail);
    if (rc != 0)
        (void)fprintf(stderr, "bench_merge: %s\n", detail.text);
    ASSERT(rc == 0);
    rc = state_open(&r->state, r->disk ? &store : NULL);
    ASSERT(rc == 0);
    struct merge_config c = {.shard_count = 1, .site = 1, .state = r->state, .site_name = site_hex};
    rc = merge_open(&r->merge, &c);
    ASSERT(rc == 0);
}

static void run_close(struct run *r)
{
    merge_free(r->merge);
    state_free(r->state);
}

static void run_apply(struct run *r, const struct op *op)
{
    int rc = merge_apply(r->merge, op);
    ASSERT(rc == 0);
    state_advance(r->state, ++r->index);
    /* The writing down is on the same core here, so that nothing is left out. */
    if (r->disk && state_active_bytes(r->state) > 64 << 20 && state_freeze(r->state)) {
        rc = state_write_frozen(r->state, NULL);
        ASSERT(rc == 0);
        state_thaw(r->state);
    }
}

/* ---- figures ---- */

static void goal_print(const char *name, const struct samples *value, double goal)
{
    struct samples limit = {.count = 0};
    char *full = mem_printf("merge.%s", name);
    if (goal > 0)
        samples_add(&limit, goal);
    figure_print(full, "1/s", MORE_IS_BETTER, value, &limit);
    mem_free(full);
}

struct rates {
    struct samples ops, effects;
};

static void rates_add(struct rates *r, double ops, double effects, double s)
{
    samples_add(&r->ops, ops / s);
    samples_add(&r->effects, effects / s);
}

static void rates_print(const char *name, const struct rates *r, double goal)
{
    char *full = mem_printf("%s.operations", name);
    goal_print(full, &r->ops, 0);
    mem_free(full);
    full = mem_printf("%s.effects", name);
    goal_print(full, &r->effects, goal);
    mem_free(full);
}

/* Applies what the history has; the seconds it takes. */
static double apply_all(struct run *r, const struct history *h)
{
    double start = now();
    for (uint32_t i = 0; i < h->count; i++)
        run_apply(r, &h->ops[i]);
    return now() - start;
}

static void
bench_in_order(const char *name, uint32_t count, bool uniform, const char *dir, double goal)
{
    struct history h;
    struct run r;
    struct rates rates = {.ops = {.count = 0}};
    history_init(&h, 2, 1000);
    h.uniform = uniform;
    history_make_dirs(&h);
    run_open(&r, dir);
    (void)apply_all(&r, &h);
    for (uint32_t i = 0; i < SLICES; i++) {
        history_steps(&h, count / SLICES);
        rates_add(&rates, h.count, (double)h.effects, apply_all(&r, &h));
    }
    rates_print(name, &rates, goal);
    run_close(&r);
    history_deinit(&h);
}

/* Every second move is of another site, and arrives when `deep` moves with higher stamps have. */
static void bench_moves(const char *name, uint32_t count, uint32_t deep, bool mixed, double goal)
{
    struct history fast, late;
    struct run r;
    struct rates rates = {.ops = {.count = 0}};
    history_init(&fast, 2, 1000);
    history_make_dirs(&fast);
    run_open(&r, NULL);
    (void)apply_all(&r, &fast);
    history_fork(&fast, 3, &late);
    history_forget(&fast);
    while (fast.count < count) {
        for (int i = 0; i < 9 && mixed; i++)
            history_step(&fast);
        history_move(&fast);
        late.hlc = fast.hlc;
        history_move(&late);
    }
    uint32_t next = 0, moves = 0, ops = 0, effects = 0;
    double start = now();
    for (uint32_t i = 0; i < fast.count; i++) {
        run_apply(&r, &fast.ops[i]);
        ops++;
        effects += fast.ops[i].effect_count;
        if (fast.ops[i].effects[0].kind == EFFECT_MOVE && ++moves > deep) {
            run_apply(&r, &late.ops[next++]);
            ops++;
            effects++;
            /* Below what can still arrive everything is stable. */
            if (next % 256 == 0)
                (void)merge_collect(r.merge, late.ops[next - 1].stamp.hlc, 4096, NULL, NULL);
        }
        if ((i + 1) % (fast.count / SLICES) == 0 && moves > deep) {
            rates_add(&rates, ops, effects, now() - start);
            ops = effects = 0;
            start = now();
        }
    }
    rates_print(name, &rates, goal);
    run_close(&r);
    history_deinit(&late);
    history_deinit(&fast);
}

/* Repairs that are owed now, as operations of site 1; their count. */
static uint32_t repair_all(struct run *r, uint64_t seq, uint64_t hlc)
{
    struct repair_due due = {.due_before_hlc = UINT64_MAX};
    struct op_builder b = {.effects = NULL};
    uint32_t repairs = 0;
    while (merge_repair(r->merge, &due, &b, NULL)) {
        struct op op = {.dot = {.site = 1, .seq = ++seq},
                        .stamp = {.hlc = ++hlc, .site = 1},
                        .time_ns = (int64_t)hlc,
                        .effects = b.effects,
                        .effect_count = b.count};
        run_apply(r, &op);
        op_builder_deinit(&b);
        repairs++;
    }
    op_builder_deinit(&b);
    return repairs;
}

/* Both sites know the directories and some files; then each does `count` operations alone. One
 * engine has all of the first site's and gets the second's; another gets the first's in order,
 * slice by slice in turn, for comparison. */
static void bench_healed(uint32_t count)
{
    struct history mine, theirs, again;
    struct run healed, in_order;
    struct rates rates = {.ops = {.count = 0}};
    struct samples ns = {.count = 0}, in_order_ns = {.count = 0}, s = {.count = 0};
    run_open(&healed, NULL);
    run_open(&in_order, NULL);
    history_init(&mine, 1, 1000);
    history_make_dirs(&mine);
    while (mine.count < HISTORY_DIRS + count / SLICES)
        history_step(&mine);
    (void)apply_all(&healed, &mine);
    (void)apply_all(&in_order, &mine);
    history_fork(&mine, 2, &theirs);
    history_fork(&mine, 1, &again);
    again.seq = mine.seq;
    again.rng = mine.rng;
    double total = 0, repair_s;
    for (uint32_t i = 0; i < SLICES; i++) {
        history_steps(&mine, count / SLICES);
        (void)apply_all(&healed, &mine);
    }
    for (uint32_t i = 0; i < SLICES; i++) {
        history_steps(&again, count / SLICES);
        samples_add(&in_order_ns, apply_all(&in_order, &again) * 1e9 / again.count);
        history_steps(&theirs, count / SLICES);
        double took = apply_all(&healed, &theirs);
        samples_add(&ns, took * 1e9 / theirs.count);
        rates_add(&rates, theirs.count, (double)theirs.effects, took);
        total += took;
    }
    rates_print("healed", &rates, 0);
    figure_print("merge.healed.operation", "ns", LESS_IS_BETTER, &ns, &in_order_ns);
    double start = now();
    uint32_t repairs = repair_all(&healed, mine.seq, MAX(mine.hlc, theirs.hlc));
    repair_s = now() - start;
    samples_add(&s, total + repair_s);
    figure_print("merge.healed.seconds", "s", LESS_IS_BETTER, &s, NULL);
    struct samples value = {.v = {repairs}, .count = 1};
    figure_print("merge.healed.repairs", "1", LESS_IS_BETTER, &value, NULL);
    value.v[0] = repairs / repair_s;
    figure_print("merge.healed.repairs_rate", "1/s", MORE_IS_BETTER, &value, NULL);
    run_close(&healed);
    run_close(&in_order);
    history_deinit(&again);
    history_deinit(&theirs);
    history_deinit(&mine);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void bench_on_disk(uint32_t count, const char *base)
{
    char *dir = mem_printf("%s/bench-merge-XXXXXX", base);
    if (mkdtemp(dir) == NULL) {
        perror(dir);
        exit(1);
    }
    bench_in_order("in_order_rocksdb", count, false, dir, 150000);
    if (nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        perror(dir);
    mem_free(dir);
}

int main(int argc, char **argv)
{
    uint32_t count = 1000000;
    uint32_t partition = 1000000;
    const char *dir = "/tmp";
    const char *only = NULL;
    for (int c; (c = getopt(argc, argv, "n:p:d:o:")) != -1;) {
        if (c == 'n')
            count = (uint32_t)strtoul(optarg, NULL, 10);
        else if (c == 'p')
            partition = (uint32_t)strtoul(optarg, NULL, 10);
        else if (c == 'd')
            dir = optarg;
        else if (c == 'o')
            only = optarg;
        else
            return 2;
    }
    if (only == NULL || strcmp(only, "in_order") == 0)
        bench_in_order("in_order", count, false, NULL, 1000000);
    if (only == NULL || strcmp(only, "random") == 0)
        bench_in_order("random", count, true, NULL, 0);
    if (only == NULL || strcmp(only, "rocksdb") == 0)
        bench_on_disk(count, dir);
    if (only == NULL || strcmp(only, "moves") == 0) {
        bench_moves("moves_mixed_200_deep", count / 4, 200, true, 250000);
        bench_moves("moves_only_200_deep", count / 20, 200, false, 0);
        bench_moves("moves_only_1000_deep", count / 40, 1000, false, 0);
    }
    if (only == NULL || strcmp(only, "healed") == 0)
        bench_healed(partition);
    return 0;
}
