/* Arrival order does not matter (P4): any order of one history in which each operation comes after
 * those of its site before it, and after all that it names, gives the same state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/unit/journal/merge_world.h"

enum {
    SITES = 4,
    STEPS = 250,
    SHUFFLES = 6
};
static uint64_t seeds = 25;

static void letter(void *ctx, site_id_t site, char out[33])
{
    (void)ctx;
    out[0] = (char)site;
    out[1] = '\0';
}

/* A drained world with much unresolved concurrency on the way. */
static struct world *make_history(uint64_t seed)
{
    struct world *w = world_new(SITES, 1, seed);
    for (int n = 0; n < STEPS; n++) {
        struct world_site *s = w->sites[world_below(w, SITES)];
        user_step(s, seed % 2 == 0);
        if (world_below(w, 8) == 0)
            (void)site_pull(s, w->sites[world_below(w, SITES)], world_below(w, 30));
        if (world_below(w, 8) == 0)
            (void)site_repair(s, false);
    }
    world_drain(w, false);
    return w;
}

static bool applied(void *ctx, struct dot d)
{
    return merge_seen(ctx, d.shard, d.site) >= d.seq;
}

/* Applies the operations of a history in a random causal order. */
static void apply_shuffled(struct world *w, struct merge *m)
{
    const struct world_site *s = w->sites[0];
    bool *done = mem_calloc(s->stream_count, sizeof *done);
    for (uint32_t left = s->stream_count; left > 0;) {
        uint32_t i = world_below(w, s->stream_count);
        /* Prefer what the origin did late, so that orders differ much. */
        uint32_t tries = 0;
        for (;; i = (i + s->stream_count - 1) % s->stream_count) {
            const struct op *op = &s->stream[i]->op;
            WORLD_CHECK(w, tries++ <= s->stream_count);
            if (!done[i] && merge_seen(m, 0, op->dot.site) + 1 == op->dot.seq &&
                op_dots_applied(op, applied, m, NULL))
                break;
        }
        WORLD_CHECK(w, merge_ready(m, &s->stream[i]->op, NULL));
        int rc = merge_apply(m, &s->stream[i]->op);
        WORLD_CHECK(w, rc == 0);
        done[i] = true;
        left--;
    }
    mem_free(done);
}

static void on_violation(void *ctx, const char *what)
{
    world_fail(ctx, what, __FILE__, __LINE__);
}

static void check_shuffle(struct world *w, struct slice want)
{
    struct state *st;
    struct merge *m;
    struct buf got = {.ptr = NULL};
    int rc = state_open(&st, NULL);
    WORLD_CHECK(w, rc == 0);
    struct merge_config c = {.shard_count = 1, .site = 'Z', .state = st, .site_name = letter};
    rc = merge_open(&m, &c);
    WORLD_CHECK(w, rc == 0);
    apply_shuffled(w, m);
    state_dump(st, &got);
    WORLD_CHECK(w, slice_equal(buf_slice(&got), want));
    rc = merge_check(m, on_violation, w);
    WORLD_CHECK(w, rc == 0);
    merge_free(m);
    /* What is stored is all there is: an engine opened on it goes on the same. */
    rc = merge_open(&m, &c);
    WORLD_CHECK(w, rc == 0);
    rc = merge_check(m, on_violation, w);
    WORLD_CHECK(w, rc == 0);
    merge_free(m);
    state_free(st);
    buf_deinit(&got);
}

static void test_apply_in_any_causal_order_gives_the_same_state(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < seeds; seed++) {
        struct world *w = make_history(seed);
        struct buf want = {.ptr = NULL};
        state_dump(w->sites[0]->states[0], &want);
        for (int i = 0; i < SHUFFLES; i++)
            check_shuffle(w, buf_slice(&want));
        buf_deinit(&want);
        world_free(w);
    }
}

/* At the stable point all sites drop the same, and nothing that shows changes. */
static void test_collect_when_all_is_stable_changes_no_tree(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < seeds; seed++) {
        struct world *w = make_history(seed);
        struct buf before = {.ptr = NULL};
        struct buf after = {.ptr = NULL};
        for (unsigned i = 0; i < SITES; i++) {
            struct world_site *s = w->sites[i];
            site_tree(s, &before);
            while (merge_collect(s->shards[0], s->hlc, 1 + world_below(w, 20), NULL, NULL) > 0)
                continue;
            site_tree(s, &after);
            WORLD_CHECK(w, slice_equal(buf_slice(&before), buf_slice(&after)));
        }
        world_check(w);
        /* Life goes on, and a directory may get a name that a dropped one had. */
        for (int n = 0; n < 60; n++)
            user_step(w->sites[world_below(w, SITES)], true);
        world_drain(w, false);
        world_check(w);
        buf_deinit(&before);
        buf_deinit(&after);
        world_free(w);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_apply_in_any_causal_order_gives_the_same_state),
        cmocka_unit_test(test_collect_when_all_is_stable_changes_no_tree),
    };
    if (argc > 1)
        seeds = strtoull(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
