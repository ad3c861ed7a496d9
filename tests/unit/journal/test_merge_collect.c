/* Causal stability: what waits to be dropped is looked at when it may have become possible, and
 * only then. (That what is dropped never is missed is checked by the worlds of test_merge_soak.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "tests/unit/journal/merge_world.h"

struct fixture {
    struct world *w;
    struct world_site *s;
    struct merge *m;
    struct oid held;
    uint32_t asked; /* whether something is pinned */
};

static bool pin_held(void *ctx, struct oid oid)
{
    struct fixture *f = ctx;
    f->asked++;
    return oid_equal(oid, f->held);
}

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    f->w = world_new(1, 1, 3);
    f->s = f->w->sites[0];
    f->m = f->s->shards[0];
    f->held = user_create(f->s, OID_ROOT, "held", "1", 0);
    (void)user_create(f->s, OID_ROOT, "free", "2", 0);
    user_remove(f->s, OID_ROOT, "held");
    user_remove(f->s, OID_ROOT, "free");
}

static bool is_there(const struct fixture *f)
{
    struct file_view v;
    return merge_file(f->m, f->held, &v) == 0;
}

/* What had to stay goes when its owner says that it need not any more, though the stable point
 * stands still; until then it is not looked at again. */
static void test_collect_looks_again_at_what_had_to_stay_when_told(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    uint64_t stable = f.s->hlc;
    assert_true(merge_collect_due(f.m, stable));
    assert_int_equal(merge_collect(f.m, stable, 100, pin_held, &f), 1);
    assert_false(merge_collect_due(f.m, stable));
    f.asked = 0;
    assert_int_equal(merge_collect(f.m, stable, 100, pin_held, &f), 0);
    assert_int_equal(f.asked, 0);
    for (uint32_t i = 1; i <= 3; i++) { /* it is held by somebody else as well */
        merge_collect_again(f.m);
        assert_true(merge_collect_due(f.m, stable));
        assert_int_equal(merge_collect(f.m, stable, 100, pin_held, &f), 0);
        assert_int_equal(f.asked, i);
        assert_false(merge_collect_due(f.m, stable));
    }
    assert_true(is_there(&f));
    merge_collect_again(f.m);
    assert_int_equal(merge_collect(f.m, stable, 100, NULL, NULL), 1);
    assert_false(is_there(&f));
    merge_collect_again(f.m);
    assert_int_equal(merge_collect(f.m, stable, 100, NULL, NULL), 0);
    assert_false(merge_collect_due(f.m, stable));
    world_free(f.w);
}

/* Looking again takes nothing that is not stable. */
static void test_collect_again_leaves_what_is_not_stable(void **state)
{
    struct fixture f;
    struct file_view v;
    (void)state;
    setup(&f);
    uint64_t stable = f.s->hlc;
    assert_int_equal(merge_collect(f.m, stable, 100, pin_held, &f), 1);
    struct oid late = user_create(f.s, OID_ROOT, "late", "3", 0);
    user_remove(f.s, OID_ROOT, "late");
    assert_true(f.s->hlc > stable);
    for (unsigned i = 0; i < 50; i++) { /* the clock under which the held one waits rises */
        merge_collect_again(f.m);
        assert_int_equal(merge_collect(f.m, stable, 100, pin_held, &f), 0);
    }
    assert_int_equal(merge_file(f.m, late, &v), 0);
    assert_true(merge_collect_due(f.m, f.s->hlc));
    assert_int_equal(merge_collect(f.m, f.s->hlc, 100, pin_held, &f), 1);
    assert_int_equal(merge_file(f.m, late, &v), ERR_NOT_FOUND);
    assert_true(is_there(&f));
    world_free(f.w);
}

/* A small budget comes to its end, too, and says when. */
static void test_collect_is_due_until_all_was_looked_at(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    for (unsigned i = 0; i < 20; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "%u", i);
        (void)user_create(f.s, OID_ROOT, name, "4", 0);
        user_remove(f.s, OID_ROOT, name);
    }
    uint32_t dropped = 0, turns = 0;
    while (merge_collect_due(f.m, f.s->hlc)) {
        dropped += merge_collect(f.m, f.s->hlc, 3, pin_held, &f);
        assert_true(++turns < 20);
    }
    assert_int_equal(dropped, 21);
    assert_true(turns >= 7 && is_there(&f));
    world_free(f.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_collect_looks_again_at_what_had_to_stay_when_told),
        cmocka_unit_test(test_collect_again_leaves_what_is_not_stable),
        cmocka_unit_test(test_collect_is_due_until_all_was_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
