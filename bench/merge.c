/* Speed of the conflict-resolution engine on one core. Prints JSON lines
 * {"name","value","unit","limit","ratio"}; ratio is value / limit, so that 1 or more is on target.
 *
 *   in_order       a work load of one site: create, write, chmod, rename, unlink; nine of ten touch
 *                  what was used lately, the others anything
 *   random         the same with every file and directory equally likely: cold caches
 *   moves_N_deep   the same mixed with directory moves that arrive N moves too late
 *   healed         two sites worked apart; the second one's operations arrive all at once
 *
 * bench_merge [-n OPS] [-p PARTITION_OPS] [-d DIR] [-o ONLY] */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/codec.h"
#include "journal/merge.h"

enum {
    DIRS = 1000,      /* of the work load */
    RECENT_DIRS = 32, /* in use at a time */
    RECENT_FILES = 2000,
    DIR_WINDOW = 4096 /* operations before the directories in use shift by one */
};

/* ---- a generated history ---- */

struct history {
    struct op *ops;
    uint32_t count, cap;
    uint64_t effects;
    struct op_arena arena;
    site_id_t site;
    uint64_t hlc, rng;
    struct file { /* what lives, by place in the list */
        struct oid oid;
        struct oid parent;
        uint32_t number;
        struct dot entry, version;
    } * files;
    uint32_t file_count, file_cap;
    struct oid dirs[DIRS];
    struct birth births[DIRS];
    uint32_t dir_count;
    uint64_t seq;
    bool uniform; /* no locality */
};

static uint64_t draw(struct history *h)
{
    h->rng ^= h->rng << 13;
    h->rng ^= h->rng >> 7;
    h->rng ^= h->rng << 17;
    return h->rng >> 8;
}

static struct op *op_new(struct history *h, uint32_t effects)
{
    if (h->count == h->cap) {
        h->cap = h->cap == 0 ? 1024 : h->cap * 2;
        h->ops = mem_realloc(h->ops, h->cap * sizeof *h->ops);
    }
    struct op *op = &h->ops[h->count++];
    h->hlc++;
    *op = (struct op){.dot = {.site = h->site, .seq = ++h->seq},
                      .stamp = {.hlc = h->hlc, .site = h->site},
                      .time_ns = (int64_t)h->hlc,
                      .effects = op_alloc(&h->arena, effects * sizeof(struct effect)),
                      .effect_count = effects};
    h->effects += effects;
    return op;
}

static struct slice name_of(struct history *h, const char *prefix, uint32_t number)
{
    char text[64];
    int len = snprintf(text, sizeof text, "%s-%08u.dat", prefix, number);
    return op_dup(&h->arena, slice_of(text, (size_t)len));
}

static struct slice perm_of(struct history *h, uint16_t mode)
{
    struct perm p = {.uid = 1000, .gid = 1000, .mode = mode};
    struct buf b = {.ptr = NULL};
    perm_encode(&p, &b);
    struct slice s = op_dup(&h->arena, buf_slice(&b));
    buf_deinit(&b);
    return s;
}

static void set_perm(struct history *h, struct effect *e, struct oid oid)
{
    *e = (struct effect){.kind = EFFECT_SET, .oid = oid};
    e->set = (struct reg){.key = slice_str("p"), .present = true};
    e->set.value = perm_of(h, (uint16_t)(0600 + draw(h) % 64));
}

static void version(struct history *h, struct effect *e, const struct op *op, struct file *f)
{
    struct dot *base = op_alloc(&h->arena, sizeof *base);
    *base = f->version;
    *e = (struct effect){.kind = EFFECT_VERSION, .oid = f->oid, .mtime_ns = op->time_ns};
    e->dots = base;
    e->dot_count = dot_is_none(*base) ? 0 : 1;
    e->content = (struct content){
        .kind = CONTENT_MANIFEST, .size = draw(h) % (1 << 30), .block_bytes = 1 << 20};
    memcpy(e->content.root, &h->rng, sizeof h->rng);
    f->version = op->dot;
}

static void make_dir(struct history *h, struct oid parent)
{
    struct op *op = op_new(h, 2);
    struct birth b = {.parent = parent, .mode = 0755};
    static const uint8_t key[32] = {1};
    b.name = name_of(h, "dir", (uint32_t)h->seq);
    b.oid = birth_oid(&b, key, 1);
    op->effects[0] = (struct effect){.kind = EFFECT_BIRTH, .oid = b.oid, .birth = b};
    set_perm(h, &op->effects[1], b.oid);
    h->births[h->dir_count] = b;
    h->dirs[h->dir_count++] = b.oid;
}

static struct oid some_dir(struct history *h)
{
    uint64_t r = draw(h);
    if (h->uniform || h->dir_count < RECENT_DIRS || r % 10 == 0)
        return h->dirs[(r >> 8) % h->dir_count];
    return h->dirs[(h->seq / DIR_WINDOW + (r >> 8) % RECENT_DIRS) % h->dir_count];
}

static struct file *some_file(struct history *h)
{
    uint64_t r = draw(h);
    if (h->uniform || h->file_count < RECENT_FILES || r % 10 == 0)
        return &h->files[(r >> 8) % h->file_count];
    return &h->files[h->file_count - 1 - (r >> 8) % RECENT_FILES];
}

static void make_file(struct history *h)
{
    struct op *op = op_new(h, 3);
    if (h->file_count == h->file_cap) {
        h->file_cap = h->file_cap == 0 ? 1024 : h->file_cap * 2;
        h->files = mem_realloc(h->files, h->file_cap * sizeof *h->files);
    }
    struct file *f = &h->files[h->file_count++];
    *f = (struct file){.oid = oid_file(0, OID_FILE, h->site, h->seq), .parent = some_dir(h)};
    f->number = (uint32_t)h->seq;
    f->entry = op->dot;
    version(h, &op->effects[0], op, f);
    set_perm(h, &op->effects[1], f->oid);
    op->effects[2] = (struct effect){.kind = EFFECT_ENTER, .oid = f->oid, .parent = f->parent};
    op->effects[2].name = name_of(h, "file", f->number);
}

static void leave(struct history *h, struct effect *e, const struct file *f, bool final)
{
    struct dot *dots = op_alloc(&h->arena, 2 * sizeof *dots);
    dots[0] = f->entry;
    dots[1] = f->version;
    *e = (struct effect){.kind = EFFECT_LEAVE, .oid = f->oid, .parent = f->parent};
    e->name = name_of(h, "file", f->number);
    e->dots = dots;
    e->dot_count = 1;
    e->seen = dots + 1;
    e->seen_count = final ? 1 : 0;
}

static void work_step(struct history *h)
{
    uint64_t r = draw(h) % 100;
    if (h->file_count < 100 || r < 45) {
        make_file(h);
        return;
    }
    struct file *f = some_file(h);
    if (r < 70) {
        struct op *op = op_new(h, 1);
        version(h, &op->effects[0], op, f);
    } else if (r < 75) {
        set_perm(h, &op_new(h, 1)->effects[0], f->oid);
    } else if (r < 85) {
        struct op *op = op_new(h, 2);
        leave(h, &op->effects[0], f, false);
        f->parent = some_dir(h);
        f->number = (uint32_t)h->seq;
        f->entry = op->dot;
        op->effects[1] = (struct effect){.kind = EFFECT_ENTER, .oid = f->oid, .parent = f->parent};
        op->effects[1].name = name_of(h, "file", f->number);
    } else {
        leave(h, &op_new(h, 1)->effects[0], f, true);
        *f = h->files[--h->file_count];
    }
}

static void make_dirs(struct history *h)
{
    make_dir(h, OID_ROOT);
    while (h->dir_count < DIRS)
        make_dir(h, h->dir_count < 30 ? OID_ROOT : some_dir(h));
}

/* Births of a directory's chain, by walking what was generated. */
static uint32_t lineage(const struct history *h, struct oid dir, struct birth *at)
{
    uint32_t count = 0;
    while (!oid_is_root(dir))
        for (uint32_t i = 0; i < h->dir_count; i++)
            if (oid_equal(h->dirs[i], dir)) {
                at[count++] = h->births[i];
                dir = h->births[i].parent;
                break;
            }
    return count;
}

static void make_move(struct history *h)
{
    struct op *op = op_new(h, 1);
    struct birth births[64];
    struct oid dir = some_dir(h);
    struct oid to = some_dir(h);
    if (oid_equal(dir, to))
        to = OID_ROOT;
    uint32_t count = lineage(h, dir, births);
    count += lineage(h, to, births + count);
    struct birth *kept = op_alloc(&h->arena, count * sizeof *kept);
    memcpy(kept, births, count * sizeof *kept);
    op->effects[0] = (struct effect){.kind = EFFECT_MOVE, .oid = dir, .parent = to};
    op->effects[0].name = name_of(h, "moved", (uint32_t)h->seq);
    op->effects[0].lineage = kept;
    op->effects[0].lineage_count = count;
}

static void history_init(struct history *h, site_id_t site, uint64_t hlc)
{
    *h = (struct history){.site = site, .hlc = hlc, .rng = site * 88172645463325252u};
}

static void history_deinit(struct history *h)
{
    mem_free(h->ops);
    mem_free(h->files);
    op_arena_deinit(&h->arena);
}

/* ---- running ---- */

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

static void report(const char *name, const char *unit, double value, double limit)
{
    if (limit > 0)
        (void)printf("{\"name\":\"merge.%s\",\"value\":%.0f,\"unit\":\"%s\",\"limit\":%.0f,"
                     "\"ratio\":%.2f}\n",
                     name, value, unit, limit, value / limit);
    else
        (void)printf("{\"name\":\"merge.%s\",\"value\":%.0f,\"unit\":\"%s\",\"limit\":null,"
                     "\"ratio\":null}\n",
                     name, value, unit);
    (void)fflush(stdout);
}

static void report_both(const char *name, double ops, double effects, double s, double limit)
{
    char text[64];
    (void)snprintf(text, sizeof text, "%s.operations", name);
    report(text, "1/s", ops / s, 0);
    (void)snprintf(text, sizeof text, "%s.effects", name);
    report(text, "1/s", effects / s, limit);
}

static void
bench_in_order(const char *name, uint32_t count, bool uniform, const char *dir, double limit)
{
    struct history h;
    struct run r;
    history_init(&h, 2, 1000);
    h.uniform = uniform;
    make_dirs(&h);
    while (h.count < count)
        work_step(&h);
    run_open(&r, dir);
    double start = now();
    for (uint32_t i = 0; i < h.count; i++)
        run_apply(&r, &h.ops[i]);
    report_both(name, h.count, (double)h.effects, now() - start, limit);
    run_close(&r);
    history_deinit(&h);
}

/* Every second move is of another site, and arrives when `deep` moves with higher stamps have. */
static void bench_moves(const char *name, uint32_t count, uint32_t deep, bool mixed, double limit)
{
    struct history fast;
    struct history late;
    struct run r;
    history_init(&fast, 2, 1000);
    make_dirs(&fast);
    uint32_t built = fast.count;
    late = fast;
    late = (struct history){.site = 3, .rng = 99, .hlc = fast.hlc};
    late.dir_count = fast.dir_count;
    memcpy(late.dirs, fast.dirs, sizeof late.dirs);
    memcpy(late.births, fast.births, sizeof late.births);
    uint64_t effects = 0;
    while (fast.count - built < count) {
        if (mixed)
            for (int i = 0; i < 9; i++)
                work_step(&fast);
        make_move(&fast);
        late.hlc = fast.hlc;
        make_move(&late);
    }
    run_open(&r, NULL);
    uint32_t next = 0;
    uint32_t moves = 0;
    for (uint32_t i = 0; i < built; i++)
        run_apply(&r, &fast.ops[i]);
    double start = now();
    for (uint32_t i = built; i < fast.count; i++) {
        run_apply(&r, &fast.ops[i]);
        effects += fast.ops[i].effect_count;
        if (fast.ops[i].effects[0].kind != EFFECT_MOVE || ++moves <= deep)
            continue;
        run_apply(&r, &late.ops[next++]);
        effects++;
        /* Below what can still arrive everything is stable. */
        if (next % 256 == 0)
            (void)merge_collect(r.merge, late.ops[next - 1].stamp.hlc, 4096, NULL, NULL);
    }
    report_both(name, fast.count - built + next, (double)effects, now() - start, limit);
    run_close(&r);
    history_deinit(&fast);
    history_deinit(&late);
}

/* Both sides know the directories and half of the files; then each works alone. */
static void bench_healed(uint32_t count)
{
    struct history mine;
    struct history theirs;
    struct run r;
    history_init(&mine, 1, 1000);
    make_dirs(&mine);
    while (mine.count < DIRS + count / 10)
        work_step(&mine);
    uint32_t common = mine.count;
    history_init(&theirs, 2, mine.hlc);
    theirs.dir_count = mine.dir_count;
    memcpy(theirs.dirs, mine.dirs, sizeof theirs.dirs);
    memcpy(theirs.births, mine.births, sizeof theirs.births);
    theirs.file_count = theirs.file_cap = mine.file_count;
    theirs.files = mem_dup(mine.files, mine.file_count * sizeof *mine.files);
    while (mine.count < common + count)
        work_step(&mine);
    uint64_t before = theirs.effects;
    while (theirs.count < count)
        work_step(&theirs);
    run_open(&r, NULL);
    for (uint32_t i = 0; i < mine.count; i++)
        run_apply(&r, &mine.ops[i]);
    double start = now();
    for (uint32_t i = 0; i < theirs.count; i++)
        run_apply(&r, &theirs.ops[i]);
    double applied = now() - start;
    report_both("healed", theirs.count, (double)(theirs.effects - before), applied, 0);
    report("healed.seconds", "s", applied, 0);
    struct repair_due due = {.due_before_hlc = UINT64_MAX};
    struct op_builder b = {.effects = NULL};
    uint32_t repairs = 0;
    start = now();
    uint64_t hlc = MAX(mine.hlc, theirs.hlc);
    while (merge_repair(r.merge, &due, &b, NULL)) {
        struct op op = {.dot = {.site = 1, .seq = ++mine.seq},
                        .stamp = {.hlc = ++hlc, .site = 1},
                        .time_ns = (int64_t)hlc,
                        .effects = b.effects,
                        .effect_count = b.count};
        run_apply(&r, &op);
        op_builder_deinit(&b);
        repairs++;
    }
    op_builder_deinit(&b);
    report("healed.repairs", "1", repairs, 0);
    report("healed.repairs_rate", "1/s", repairs / (now() - start), 0);
    run_close(&r);
    history_deinit(&mine);
    history_deinit(&theirs);
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
