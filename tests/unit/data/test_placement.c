/* Rendezvous placement: spread by weight, distinct domains, and that only what must moves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "data/placement.h"

#define CHUNKS 20000u

static struct chunk_id numbered(uint64_t n)
{
    struct chunk_id id = {{1}};
    memcpy(id.b + 1, &n, sizeof n);
    return id;
}

static bool holds(const uint32_t *idx, unsigned width, uint32_t target)
{
    for (unsigned i = 0; i < width; i++) {
        if (idx[i] == target)
            return true;
    }
    return false;
}

static void test_spread_follows_weight(void **state)
{
    (void)state;
    struct target targets[5];
    for (unsigned i = 0; i < 5; i++)
        targets[i] = (struct target){.id = 100 + i, .domain = i, .weight = 10 * (i + 1)};
    struct redundancy one = REDUNDANCY_SINGLE;
    uint64_t count[5] = {0};
    uint32_t idx[PLACEMENT_WIDTH_MAX];
    for (uint64_t n = 0; n < CHUNKS; n++) {
        struct chunk_id id = numbered(n);
        assert_int_equal(placement_pick(targets, 5, &one, &id, idx), 0);
        count[idx[0]]++;
    }
    for (uint64_t i = 0; i < 5; i++) {
        uint64_t want = CHUNKS * (i + 1) / 15;
        assert_in_range(count[i], want * 9 / 10, want * 11 / 10);
    }
}

static void test_parts_lie_in_distinct_domains(void **state)
{
    (void)state;
    struct target targets[12];
    for (unsigned i = 0; i < 12; i++)
        targets[i] = (struct target){.id = 7 * i + 1, .domain = i / 2, .weight = 1 + i % 3};
    assert_int_equal(placement_domains(targets, 12), 6);
    struct redundancy r = {.k = 4, .m = 2, .copies = 1};
    uint32_t idx[PLACEMENT_WIDTH_MAX];
    for (uint64_t n = 0; n < 2000; n++) {
        struct chunk_id id = numbered(n);
        assert_int_equal(placement_pick(targets, 12, &r, &id, idx), 0);
        unsigned domains = 0;
        for (unsigned i = 0; i < 6; i++)
            domains |= 1u << targets[idx[i]].domain;
        assert_int_equal(domains, 63);
    }
    /* More parts than domains: at most one more in any than in another, never twice on one. */
    r = (struct redundancy){.k = 6, .m = 2, .copies = 1};
    for (uint64_t n = 0; n < 2000; n++) {
        struct chunk_id id = numbered(n);
        assert_int_equal(placement_pick(targets, 12, &r, &id, idx), 0);
        unsigned used[6] = {0};
        for (unsigned i = 0; i < 8; i++) {
            assert_false(holds(idx, i, idx[i]));
            assert_true(++used[targets[idx[i]].domain] <= 2);
        }
    }
}

/* A target goes: chunks it did not hold stay where they are, part by part as a set; those it held
 * replace only that part; and the load spreads over all others. */
static void test_little_moves_when_a_target_goes(void **state)
{
    (void)state;
    struct target targets[8];
    for (unsigned i = 0; i < 8; i++)
        targets[i] = (struct target){.id = 1000 + i, .domain = i, .weight = 5};
    struct redundancy r = {.k = 1, .copies = 3};
    uint64_t gained[8] = {0};
    uint64_t moved = 0;
    for (uint64_t n = 0; n < CHUNKS; n++) {
        struct chunk_id id = numbered(n);
        uint32_t all[PLACEMENT_WIDTH_MAX];
        uint32_t rest[PLACEMENT_WIDTH_MAX];
        assert_int_equal(placement_pick(targets, 8, &r, &id, all), 0);
        assert_int_equal(placement_pick(targets, 7, &r, &id, rest), 0); /* without the last */
        for (unsigned i = 0; i < 3; i++) {
            assert_true(all[i] == 7 || holds(rest, 3, all[i]));
            if (!holds(all, 3, rest[i])) {
                gained[rest[i]]++;
                moved++;
            }
        }
        assert_int_equal(holds(all, 3, 7), !holds(all, 3, rest[0]) || !holds(all, 3, rest[1]) ||
                                               !holds(all, 3, rest[2]));
    }
    assert_in_range(moved, CHUNKS * 3 / 8 * 9 / 10, CHUNKS * 3 / 8 * 11 / 10);
    for (unsigned i = 0; i < 7; i++)
        assert_in_range(gained[i], moved / 7 * 8 / 10, moved / 7 * 12 / 10);
}

static void test_order_of_targets_does_not_matter(void **state)
{
    (void)state;
    struct target targets[6];
    struct target shuffled[6];
    for (unsigned i = 0; i < 6; i++)
        targets[i] = (struct target){.id = 50 + i, .domain = i / 2, .weight = 1 + i};
    for (unsigned i = 0; i < 6; i++)
        shuffled[i] = targets[(i * 5 + 2) % 6];
    struct redundancy r = {.k = 1, .copies = 4};
    for (uint64_t n = 0; n < 1000; n++) {
        struct chunk_id id = numbered(n);
        uint32_t a[PLACEMENT_WIDTH_MAX];
        uint32_t b[PLACEMENT_WIDTH_MAX];
        assert_int_equal(placement_pick(targets, 6, &r, &id, a), 0);
        assert_int_equal(placement_pick(shuffled, 6, &r, &id, b), 0);
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(targets[a[i]].id, shuffled[b[i]].id);
    }
}

static void test_redundancy(void **state)
{
    (void)state;
    struct redundancy wanted = {.k = 4, .m = 2, .copies = 1};
    static const struct {
        unsigned domains;
        struct redundancy fit;
    } cases[] = {{9, {4, 2, 1}}, {6, {4, 2, 1}}, {5, {3, 2, 1}}, {4, {2, 2, 1}},
                 {3, {1, 0, 3}}, {2, {1, 0, 2}}, {1, {1, 0, 1}}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct redundancy r = redundancy_fit(wanted, cases[i].domains);
        assert_memory_equal(&r, &cases[i].fit, sizeof r);
        assert_int_equal(redundancy_validate(&r), 0);
        assert_true(redundancy_width(&r) <= cases[i].domains);
    }
    wanted = (struct redundancy){.k = 1, .copies = 3};
    assert_int_equal(redundancy_fit(wanted, 2).copies, 2);
    assert_int_equal(redundancy_losses(&wanted), 2);
    static const struct redundancy bad[] = {{0, 0, 1}, {1, 0, 0},  {1, 1, 1}, {4, 0, 1},
                                            {4, 2, 2}, {30, 3, 1}, {1, 0, 33}};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(redundancy_validate(&bad[i]), ERR_CONFIG);
    struct target one = {.id = 1, .weight = 1};
    struct chunk_id id = numbered(1);
    uint32_t idx[PLACEMENT_WIDTH_MAX];
    assert_int_equal(placement_pick(&one, 1, &wanted, &id, idx), ERR_INVALID);
    struct redundancy single = REDUNDANCY_SINGLE;
    assert_int_equal(placement_pick(&one, 1, &single, &id, idx), 0);
    assert_int_equal(idx[0], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spread_follows_weight),
        cmocka_unit_test(test_parts_lie_in_distinct_domains),
        cmocka_unit_test(test_little_moves_when_a_target_goes),
        cmocka_unit_test(test_order_of_targets_does_not_matter),
        cmocka_unit_test(test_redundancy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
