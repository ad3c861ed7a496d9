/* Past versions: made at every site by the operations it applies, dated by when it learned of them,
 * thinned out, and dropped when their time is over. On one shard and on four. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "journal/merge_int.h"
#include "tests/unit/journal/merge_world.h"

#define HOUR_MS ((uint64_t)3600 * 1000)

static unsigned shards = 1;

struct found {
    char text[1024]; /* "data+" replaced, "data-" removed, newest first */
    uint64_t newest_hlc;
};

static bool add_past(void *ctx, const struct past *p)
{
    struct found *f = ctx;
    size_t len = strlen(f->text);
    if (f->newest_hlc == 0)
        f->newest_hlc = p->gone_hlc;
    (void)snprintf(f->text + len, sizeof f->text - len, "%.*s%c ", (int)p->content.bytes.len,
                   (const char *)p->content.bytes.ptr, p->why == PAST_REMOVED ? '-' : '+');
    return true;
}

static const char *past_of(struct world_site *s, struct oid oid, struct found *f)
{
    *f = (struct found){.newest_hlc = 0};
    assert_int_equal(merge_past(site_shard(s, oid), oid, add_past, f), 0);
    return f->text;
}

struct names {
    struct oid at[8];
    unsigned count;
};

static bool add_name(void *ctx, struct oid oid, uint64_t gone_hlc)
{
    struct names *n = ctx;
    assert_true(gone_hlc > 0 && n->count < ARRAY_COUNT(n->at));
    n->at[n->count++] = oid;
    return true;
}

static struct names names_of(struct world_site *s, struct oid parent, const char *name)
{
    struct names n = {.count = 0};
    assert_int_equal(merge_past_names(site_shard(s, parent), parent, slice_str(name), add_name, &n),
                     0);
    return n;
}

static void end(struct world *w)
{
    world_drain(w, false);
    world_check(w);
    world_free(w);
}

static void test_past_overwritten_and_removed_is_found_at_both_sites(void **state)
{
    (void)state;
    struct world *w = world_new(2, shards, 3);
    struct oid x = user_create(w->sites[0], OID_ROOT, "x", "one", 0);
    user_write(w->sites[0], OID_ROOT, "x", "two");
    world_drain(w, false);
    user_write(w->sites[1], OID_ROOT, "x", "three");
    user_remove(w->sites[1], OID_ROOT, "x");
    world_drain(w, false);
    for (unsigned i = 0; i < 2; i++) {
        struct found f;
        assert_string_equal(past_of(w->sites[i], x, &f), "three- two+ one+ ");
        struct names n = names_of(w->sites[i], OID_ROOT, "x");
        assert_int_equal(n.count, 1);
        assert_true(oid_equal(n.at[0], x));
        assert_int_equal(names_of(w->sites[i], OID_ROOT, "y").count, 0);
    }
    end(w);
}

static void test_past_same_bytes_and_nothing_are_not_kept(void **state)
{
    (void)state;
    struct found f;
    struct world *w = world_new(1, shards, 3);
    struct oid x = user_create(w->sites[0], OID_ROOT, "x", "", 0);
    user_write(w->sites[0], OID_ROOT, "x", "one");
    user_write(w->sites[0], OID_ROOT, "x", "one");
    assert_string_equal(past_of(w->sites[0], x, &f), "");
    user_write(w->sites[0], OID_ROOT, "x", "");
    assert_string_equal(past_of(w->sites[0], x, &f), "one+ ");
    user_remove(w->sites[0], OID_ROOT, "x");
    assert_string_equal(past_of(w->sites[0], x, &f), "one+ ");
    end(w);
}

static void test_past_a_second_name_keeps_the_file(void **state)
{
    (void)state;
    struct found f;
    struct world *w = world_new(1, shards, 3);
    struct oid x = user_create(w->sites[0], OID_ROOT, "x", "one", 0);
    user_link(w->sites[0], OID_ROOT, "x", OID_ROOT, "y");
    user_remove(w->sites[0], OID_ROOT, "x");
    assert_string_equal(past_of(w->sites[0], x, &f), "");
    assert_int_equal(names_of(w->sites[0], OID_ROOT, "x").count, 0);
    user_remove(w->sites[0], OID_ROOT, "y");
    assert_string_equal(past_of(w->sites[0], x, &f), "one- ");
    assert_int_equal(names_of(w->sites[0], OID_ROOT, "y").count, 1);
    end(w);
}

/* Editors write a new file and rename it over the old one: one name, many objects. */
static void test_past_renamed_over_is_found_by_name(void **state)
{
    (void)state;
    struct found f;
    struct world *w = world_new(2, shards, 3);
    struct oid x = user_create(w->sites[0], OID_ROOT, "x", "one", 0);
    (void)user_create(w->sites[0], OID_ROOT, "tmp", "two", 0);
    user_rename(w->sites[0], OID_ROOT, "tmp", OID_ROOT, "x");
    world_drain(w, false);
    struct names n = names_of(w->sites[1], OID_ROOT, "x");
    assert_int_equal(n.count, 1);
    assert_true(oid_equal(n.at[0], x));
    assert_string_equal(past_of(w->sites[1], x, &f), "one- ");
    end(w);
}

static void test_past_removed_directory_is_found_by_name(void **state)
{
    (void)state;
    struct found f;
    struct world *w = world_new(2, shards, 3);
    struct oid d = user_mkdir(w->sites[0], OID_ROOT, "d", 0);
    struct oid e = user_mkdir(w->sites[0], OID_ROOT, "e", 0);
    struct oid x = user_create(w->sites[0], d, "x", "one", 0);
    world_drain(w, false);
    user_remove(w->sites[0], d, "x");
    user_remove(w->sites[0], OID_ROOT, "d");
    user_rename(w->sites[0], OID_ROOT, "e", OID_ROOT, "f");
    world_drain(w, false);
    for (unsigned i = 0; i < 2; i++) {
        struct names n = names_of(w->sites[i], OID_ROOT, "d");
        assert_int_equal(n.count, 1);
        assert_true(oid_equal(n.at[0], d));
        n = names_of(w->sites[i], d, "x");
        assert_int_equal(n.count, 1);
        assert_true(oid_equal(n.at[0], x));
        assert_string_equal(past_of(w->sites[i], x, &f), "one- ");
        n = names_of(w->sites[i], OID_ROOT, "e");
        assert_int_equal(n.count, 1);
        assert_true(oid_equal(n.at[0], e));
    }
    end(w);
}

static void test_past_disabled_makes_no_records(void **state)
{
    (void)state;
    struct found f;
    struct world *w = world_new(1, shards, 3);
    for (unsigned i = 0; i < shards; i++)
        merge_past_enable(w->sites[0]->shards[i], false);
    struct oid x = user_create(w->sites[0], OID_ROOT, "x", "one", 0);
    user_write(w->sites[0], OID_ROOT, "x", "two");
    user_remove(w->sites[0], OID_ROOT, "x");
    assert_string_equal(past_of(w->sites[0], x, &f), "");
    assert_int_equal(names_of(w->sites[0], OID_ROOT, "x").count, 0);
    end(w);
}

/* ---- dropping ---- */

/* A whole round over all shards, in small steps. */
static void collect(
    struct world_site *s, uint64_t now_hlc, uint64_t keep_ms, uint64_t *ret_count, uint64_t *bytes)
{
    *ret_count = *bytes = 0;
    for (unsigned i = 0; i < shards; i++) {
        struct past_walk w = {.rounds = 0};
        for (unsigned steps = 0; w.rounds == 0; steps++) {
            assert_true(steps < 1000);
            const struct past_limits l = {.now_hlc = now_hlc, .keep_ms = keep_ms};
            assert_int_equal(merge_past_collect(s->shards[i], &w, &l, 3), 0);
        }
        *ret_count += w.counts;
        *bytes += w.sizes;
        past_walk_deinit(&w);
    }
}

static void test_past_collect_drops_after_the_period_only(void **state)
{
    (void)state;
    struct found f;
    uint64_t count, bytes;
    struct world *w = world_new(1, shards, 3);
    struct world_site *s = w->sites[0];
    struct oid x = user_create(s, OID_ROOT, "x", "one", 0);
    user_write(s, OID_ROOT, "x", "four");
    user_remove(s, OID_ROOT, "x");
    (void)past_of(s, x, &f);
    uint64_t gone = f.newest_hlc;
    collect(s, gone + (HOUR_MS << 16), HOUR_MS, &count, &bytes);
    assert_string_equal(past_of(s, x, &f), "four- one+ ");
    assert_int_equal(count, 2);
    assert_int_equal(bytes, 7);
    collect(s, gone + ((HOUR_MS + 1) << 16), HOUR_MS, &count, &bytes);
    assert_string_equal(past_of(s, x, &f), "");
    assert_int_equal(names_of(s, OID_ROOT, "x").count, 0);
    assert_int_equal(count, 0);
    end(w);
}

static void test_past_collect_thins_a_busy_file(void **state)
{
    (void)state;
    struct found f;
    uint64_t count, bytes;
    struct world *w = world_new(1, shards, 3);
    struct world_site *s = w->sites[0];
    char data[16];
    struct oid x = user_create(s, OID_ROOT, "x", "v0", 0);
    s->hlc += (2 * HOUR_MS) << 16;
    for (unsigned i = 1; i <= 40; i++) {
        (void)snprintf(data, sizeof data, "v%u", i);
        user_write(s, OID_ROOT, "x", data);
    }
    s->hlc += (5 * HOUR_MS) << 16;
    user_write(s, OID_ROOT, "x", "last");
    (void)past_of(s, x, &f);
    uint64_t now = f.newest_hlc;
    collect(s, now, 100 * HOUR_MS, &count, &bytes);
    /* The newest 16, and one for the hour in which all the others went. */
    assert_int_equal(count, PAST_NEWEST + 1);
    assert_int_equal(strncmp(past_of(s, x, &f), "v40+ v39+ v38+ ", 15), 0);
    collect(s, now, 100 * HOUR_MS, &count, &bytes);
    assert_int_equal(count, PAST_NEWEST + 1); /* and that is stable */
    end(w);
}

struct contents {
    uint64_t count, bytes;
};

static bool add_content(void *ctx, struct oid oid, const struct content *c)
{
    struct contents *k = ctx;
    assert_false(oid_is_none(oid));
    k->count++;
    k->bytes += c->size;
    return true;
}

static void test_past_contents_are_told_to_the_collector(void **state)
{
    (void)state;
    struct world *w = world_new(1, shards, 3);
    for (unsigned i = 0; i < 5; i++) {
        (void)user_create(w->sites[0], OID_ROOT, "x", "one", 0);
        user_remove(w->sites[0], OID_ROOT, "x");
    }
    struct contents k = {.count = 0};
    for (unsigned i = 0; i < shards; i++) {
        struct buf cursor = {.ptr = NULL};
        do
            assert_int_equal(
                merge_past_contents(w->sites[0]->shards[i], &cursor, 2, add_content, &k), 0);
        while (cursor.len > 0);
        buf_deinit(&cursor);
    }
    assert_int_equal(k.count, 5);
    assert_int_equal(k.bytes, 15);
    end(w);
}

static void test_past_damaged_record_is_an_error(void **state)
{
    (void)state;
    struct found f = {.newest_hlc = 0};
    struct world *w = world_new(1, shards, 3);
    struct world_site *s = w->sites[0];
    struct oid x = user_create(s, OID_ROOT, "x", "one", 0);
    struct state *st = s->states[oid_shard(x)];
    uint8_t key[39] = {KEY_PAST};
    memcpy(key + 1, x.b, sizeof x.b);
    state_put(st, slice_of(key, sizeof key), slice_str("?"));
    struct past_walk walk = {.rounds = 0};
    assert_int_equal(merge_past(site_shard(s, x), x, add_past, &f), ERR_CORRUPT);
    const struct past_limits l = {.now_hlc = 1, .keep_ms = 1};
    assert_int_equal(merge_past_collect(site_shard(s, x), &walk, &l, 100), ERR_CORRUPT);
    past_walk_deinit(&walk);
    state_del(st, slice_of(key, sizeof key));
    end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_past_overwritten_and_removed_is_found_at_both_sites),
        cmocka_unit_test(test_past_same_bytes_and_nothing_are_not_kept),
        cmocka_unit_test(test_past_a_second_name_keeps_the_file),
        cmocka_unit_test(test_past_renamed_over_is_found_by_name),
        cmocka_unit_test(test_past_removed_directory_is_found_by_name),
        cmocka_unit_test(test_past_disabled_makes_no_records),
        cmocka_unit_test(test_past_collect_drops_after_the_period_only),
        cmocka_unit_test(test_past_collect_thins_a_busy_file),
        cmocka_unit_test(test_past_contents_are_told_to_the_collector),
        cmocka_unit_test(test_past_damaged_record_is_an_error),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    shards = 4;
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
