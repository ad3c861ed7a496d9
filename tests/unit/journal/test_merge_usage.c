/* M10: how much the files hold: what shows counts, once, as long as it has a name; equal at all
 * sites, there after a restart, and counted anew where a state of before it was kept is opened.
 * (That sums agree with the files after random histories is checked by every other world.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "journal/merge_int.h"
#include "tests/unit/journal/merge_world.h"

static unsigned shards = 1;

static uint64_t held_by(struct world_site *s)
{
    uint64_t bytes = 0;
    for (unsigned k = 0; k < s->world->shard_count; k++) {
        struct merge_usage u;
        merge_usage(s->shards[k], &u);
        assert_int_equal(u.bytes, u.inline_bytes);
        bytes += u.bytes;
    }
    return bytes;
}

static void test_usage_follows_writes_and_names(void **state)
{
    (void)state;
    struct world *w = world_new(2, shards, 3);
    struct world_site *a = w->sites[0], *b = w->sites[1];
    assert_int_equal(held_by(a), 0);
    (void)user_create(a, OID_ROOT, "x", "12345", 0);
    assert_int_equal(held_by(a), 5);
    user_write(a, OID_ROOT, "x", "123");
    assert_int_equal(held_by(a), 3);
    user_link(a, OID_ROOT, "x", OID_ROOT, "y");
    assert_int_equal(held_by(a), 3);
    world_drain(w, false);
    assert_int_equal(held_by(b), 3);
    user_write(a, OID_ROOT, "x", "four"); /* both are kept: the loser becomes a file */
    user_write(b, OID_ROOT, "x", "longer");
    world_drain(w, false);
    assert_int_equal(held_by(a), 10);
    assert_int_equal(held_by(b), 10);
    user_remove(b, OID_ROOT, "x");
    world_drain(w, false);
    assert_int_equal(held_by(a), 10); /* y is left */
    user_remove(b, OID_ROOT, "y");
    world_drain(w, false);
    assert_int_equal(held_by(a), 4);
    world_check(w);
    world_free(w);
}

static void open_anew(struct world_site *s, unsigned shard)
{
    struct merge_config config = s->shards[shard]->config;
    merge_free(s->shards[shard]);
    assert_int_equal(merge_open(&s->shards[shard], &config), 0);
}

static void test_usage_is_there_after_a_restart(void **state)
{
    (void)state;
    struct world *w = world_new(1, shards, 3);
    struct world_site *s = w->sites[0];
    uint8_t key = KEY_USAGE;
    (void)user_create(s, OID_ROOT, "x", "12345", 0);
    (void)user_create(s, user_mkdir(s, OID_ROOT, "d", 0), "x", "1234567", 0);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned k = 0; k < shards; k++) {
            if (round == 1) /* as a state of before it was kept */
                state_del(s->states[k], slice_of(&key, 1));
            open_anew(s, k);
        }
        assert_int_equal(held_by(s), 12);
    }
    user_remove(s, OID_ROOT, "x");
    assert_int_equal(held_by(s), 7);
    struct slice value;
    assert_true(state_get(s->states[0], slice_of(&key, 1), &value));
    state_put(s->states[0], slice_of(&key, 1), slice_str("\x80"));
    struct merge_config config = s->shards[0]->config;
    struct merge *m;
    assert_int_equal(merge_open(&m, &config), ERR_CORRUPT);
    state_put(s->states[0], slice_of(&key, 1), slice_str("\x07\x07"));
    world_free(w);
}

static void test_usage_of_blocks_does_not_count_holes(void **state)
{
    (void)state;
    struct ver v = {
        .content = {.kind = CONTENT_MANIFEST, .size = 1000000, .block_bytes = 65536, .root = {1}}};
    struct ref r = {.parent = OID_ROOT};
    struct file_rec f = {.vers = &v, .ver_count = 1, .refs = &r, .ref_count = 1};
    assert_int_equal(file_usage(&f).bytes, 1000000); /* nobody has counted */
    assert_int_equal(file_usage(&f).inline_bytes, 0);
    v.content.data_blocks = 2;
    assert_int_equal(file_usage(&f).bytes, 131072);
    v.content.data_blocks = 16; /* the last one is not full */
    assert_int_equal(file_usage(&f).bytes, 1000000);
    v.content.root[0] = 0; /* one hole */
    assert_int_equal(file_usage(&f).bytes, 0);
    v.content.root[0] = 1;
    f.ref_count = 0;
    assert_int_equal(file_usage(&f).bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usage_follows_writes_and_names),
        cmocka_unit_test(test_usage_is_there_after_a_restart),
        cmocka_unit_test(test_usage_of_blocks_does_not_count_holes),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    shards = 4;
    return failed != 0 ? failed : cmocka_run_group_tests(tests, NULL, NULL);
}
