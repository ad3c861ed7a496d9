/* A site loses power while batches of a peer are being written: of each shard's journal some first
 * records are on the disk, of another one more or less of them. Whatever they are, the site that
 * comes back shows no operation of the peer without those committed before it (P7, S22), nothing
 * that it held before is missing, and with what the peer sends again all is as if nothing had
 * happened (P4). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/unit/site/federation_test.h"

enum {
    SHARDS = 4,
    STEPS = 60,
    OPS_MAX = 512,
    CRASHES = 10
};

/* What site 0 has committed and site 1 has not, in the order of the commits. */
struct sent {
    struct op_arena arena;
    struct sent_op {
        struct apply_item item;
        uint64_t hlc, seq;
        bool barrier;
    } ops[OPS_MAX];
    uint32_t count;
    struct vv had[SHARDS];
    struct apply_batch batches[OPS_MAX];
    struct apply_item items[OPS_MAX];
    uint32_t batch_count, done;
};

static bool take(void *ctx, const struct feed_item *item)
{
    struct sent *s = ctx;
    if (vv_get(&s->had[item->dot.shard], item->dot.site) >= item->dot.seq)
        return true;
    assert_true(s->count < OPS_MAX);
    s->ops[s->count++] =
        (struct sent_op){.item = {.shard = item->shard, .op = op_dup(&s->arena, item->op)},
                         .hlc = item->commit_hlc,
                         .seq = item->dot.seq,
                         .barrier = item->barrier};
    return true;
}

static int by_commit(const void *a, const void *b)
{
    const struct sent_op *x = a, *y = b;
    return x->hlc < y->hlc ? -1 : x->hlc > y->hlc;
}

static void gather(struct world *w, struct sent *s)
{
    struct feed_state f;
    settle(w, 0);
    node_feed_state(w->sites[0].n, &f);
    node_vvs(w->sites[1].n, s->had);
    for (unsigned i = 0; i < SHARDS; i++) {
        uint64_t next = f.first[i];
        while (next <= f.durable[i])
            assert_int_equal(
                node_feed_read(w->sites[0].n, (shard_id_t)i, next, MIB, take, s, &next), 0);
    }
    qsort(s->ops, s->count, sizeof s->ops[0], by_commit);
}

static struct sent *running;

static void applied(struct apply_batch *b, int rc, const struct err_detail *d)
{
    if (rc != 0)
        print_error("apply: %s\n", d->text);
    assert_int_equal(rc, 0);
    if (++running->done == running->batch_count)
        node_stop(b->node);
}

/* As the stream would bring it, and without waiting for the disk in between. */
static void apply_all(struct world *w, struct sent *s)
{
    for (uint32_t i = 0; i < s->count;) {
        struct apply_batch *b = &s->batches[s->batch_count++];
        uint32_t max = 1 + (uint32_t)rng_below(&w->rng, 12);
        b->peer = node_site(w->sites[0].n);
        b->items = &s->items[i];
        b->done = applied;
        while (i < s->count && b->item_count < max &&
               (b->item_count == 0 || (!s->ops[i].barrier && !s->ops[i - 1].barrier))) {
            s->items[i] = s->ops[i].item;
            b->item_count++;
            i++;
        }
    }
    running = s;
    for (uint32_t i = 0; i < s->batch_count; i++)
        node_apply(w->sites[1].n, &s->batches[i]);
    assert_int_equal(node_run(w->sites[1].n), 0);
    w->sites[1].n->stopping = false;
}

/* ---- power that goes ---- */

static void do_nothing(void *ctx, uint64_t index)
{
    (void)ctx;
    (void)index;
}

static void do_not_fail(void *ctx, int rc, const struct err_detail *d)
{
    (void)ctx;
    print_error("%s\n", d->text);
    assert_int_equal(rc, 0);
}

/* Of this shard's journal only the records up to `last` were on the disk. */
static void journal_lose(const char *dir, unsigned shard, uint64_t last)
{
    struct err_detail d = {{0}};
    struct log_recovery info;
    struct loop *loop;
    struct log *log;
    char path[128];
    snprintf(path, sizeof path, "%s/shard-%u/journal", dir, shard);
    assert_int_equal(loop_new(&loop, 16, &clock_os, &d), 0);
    struct log_config c = {
        .dir = path, .loop = loop, .on_durable = do_nothing, .on_failed = do_not_fail};
    assert_int_equal(log_open(&log, &c, &info, &d), 0);
    assert_true(last <= info.last);
    assert_int_equal(log_cut(log, last), 0);
    log_close(log);
    loop_free(loop);
}

static void copy_dir(const struct node_test *from, struct node_test *to)
{
    memset(to, 0, sizeof *to);
    snprintf(to->dir, sizeof to->dir, "/tmp/claudefs-node-XXXXXX");
    assert_non_null(mkdtemp(to->dir));
    node_test_copy(from, to->dir);
}

static void check_order(const struct sent *s, struct node *n, site_id_t origin)
{
    uint64_t had[SHARDS], first_lacked = UINT64_MAX, last_had = 0;
    for (unsigned i = 0; i < SHARDS; i++) {
        had[i] = merge_seen(shard_merge(n->shards[i]), (shard_id_t)i, origin);
        assert_true(had[i] >= vv_get(&s->had[i], origin));
    }
    for (uint32_t i = 0; i < s->count; i++) {
        const struct sent_op *o = &s->ops[i];
        if (o->seq <= had[o->item.shard])
            last_had = MAX(last_had, o->hlc);
        else
            first_lacked = MIN(first_lacked, o->hlc);
    }
    assert_true(last_had < first_lacked);
}

/* Goes on with what was left, and gets the rest again. */
static void check_converges(struct world *w, struct node_test *crashed, uint64_t seed)
{
    struct node_test before = w->sites[1];
    w->sites[1] = *crashed;
    memset(w->next, 0, sizeof w->next);
    drain(w);
    check_equal(w, seed);
    *crashed = w->sites[1];
    w->sites[1] = before;
}

static void run_seed(uint64_t seed)
{
    struct world w;
    struct sent *s = mem_calloc(1, sizeof *s);
    uint64_t base[SHARDS], last[SHARDS];
    struct oid oid;
    world_init(&w, 2, SHARDS, seed);
    drain(&w);
    for (unsigned i = 0; i < STEPS; i++)
        user_step(&w, 0);
    gather(&w, s);
    call_path(&w, 1, RPC_CREATE, "/here");
    settle(&w, 1);
    for (unsigned i = 0; i < SHARDS; i++)
        base[i] = log_last(shard_log(w.sites[1].n->shards[i]));
    apply_all(&w, s);
    settle(&w, 1);
    for (unsigned i = 0; i < CRASHES; i++) {
        struct node_test crashed;
        copy_dir(&w.sites[1], &crashed);
        for (unsigned k = 0; k < SHARDS; k++) {
            last[k] = log_last(shard_log(w.sites[1].n->shards[k]));
            journal_lose(crashed.dir, k, base[k] + rng_below(&w.rng, last[k] - base[k] + 1));
        }
        node_test_open(&crashed);
        check_order(s, crashed.n, node_site(w.sites[0].n));
        assert_int_equal(node_test_walk(&crashed, "/here", &oid), 0);
        if (i % 5 == 0)
            check_converges(&w, &crashed, seed);
        node_test_deinit(&crashed);
    }
    op_arena_deinit(&s->arena);
    mem_free(s);
    world_deinit(&w);
}

static void test_restart_after_a_split_batch_shows_no_effect_before_its_cause(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++)
        run_seed(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restart_after_a_split_batch_shows_no_effect_before_its_cause),
    };
    for (int i = 0; i < LOG_AREA_COUNT; i++)
        log_levels[i] = -1; /* before any thread */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
