/* Which batches are whole: while a site runs, and what is left of the journals after a crash. The
 * two are written apart; whatever was on the disks when power went, a restart keeps exactly what
 * counted (S21, S22). Then the records that carry the names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "site/parts.h"
#include "site/record.h"

enum {
    SHARDS = 4,
    RECORDS = 60,
    WRITES = 120
};

static void test_parts_durable_out_of_order_is_whole_in_order(void **state)
{
    struct parts *p = parts_new();
    struct parts_place at[2] = {{.shard = 1, .index = 7}, {.shard = 2, .index = 9}};
    struct parts_named named = {0};
    (void)state;
    assert_true(parts_whole(p, 0));
    assert_int_equal(parts_begin(p, 2, at[0]), 1);
    assert_int_equal(parts_begin(p, 1, at[1]), 2);
    assert_int_equal(parts_last(p), 2);
    assert_false(parts_durable(p, 2));
    assert_false(parts_whole(p, 2));
    parts_name(p, 2, &named);
    assert_int_equal(named.count, 1);
    assert_int_equal(named.at[0].shard, 2);
    assert_int_equal(named.at[0].index, 9);
    assert_false(parts_durable(p, 1));
    assert_true(parts_durable(p, 1));
    assert_true(parts_whole(p, 2));
    parts_name(p, 2, &named);
    assert_int_equal(named.count, 1); /* it needs no name any more */
    assert_int_equal(parts_begin(p, 1, at[0]), 3);
    assert_false(parts_whole(p, 3));
    parts_free(p);
}

static void test_parts_cut_follows_what_is_named(void **state)
{
    /* Shard 2 lost record 5, which 1 named, which 0 named. */
    const struct parts_need needs[] = {
        {.record = {.shard = 0, .index = 3}, .named = {.shard = 1, .index = 4}},
        {.record = {.shard = 1, .index = 4}, .named = {.shard = 2, .index = 5}},
        {.record = {.shard = 2, .index = 2}, .named = {.shard = 0, .index = 1}},
    };
    uint64_t last[] = {8, 9, 4};
    (void)state;
    parts_cut(needs, ARRAY_COUNT(needs), last);
    assert_int_equal(last[0], 2);
    assert_int_equal(last[1], 3);
    assert_int_equal(last[2], 4);
}

/* Four journals that grow as the site's do; the disk is behind by as much as it likes. */
struct rec {
    struct parts_named named;
    uint64_t batch; /* part of it */
    uint64_t after;
};
struct model {
    struct rng rng;
    struct parts *parts;
    struct rec recs[SHARDS][RECORDS + 1]; /* by index */
    uint64_t last[SHARDS], durable[SHARDS];
};

static struct rec *append(struct model *m, unsigned shard, uint64_t batch)
{
    uint64_t before = m->recs[shard][m->last[shard]].after;
    struct rec *r = &m->recs[shard][++m->last[shard]];
    *r = (struct rec){.after = MAX(before, batch)};
    return r;
}

static bool full(const struct model *m)
{
    for (unsigned i = 0; i < SHARDS; i++)
        if (m->last[i] == RECORDS)
            return true;
    return false;
}

static void batch_write(struct model *m)
{
    struct parts_place places[SHARDS];
    struct parts_named earlier = {0};
    uint32_t count = 0;
    for (unsigned i = 0; i < SHARDS; i++)
        if (rng_below(&m->rng, 2) == 0)
            places[count++] = (struct parts_place){.shard = (shard_id_t)i, .index = m->last[i] + 1};
    if (count == 0)
        return;
    parts_name(m->parts, parts_last(m->parts), &earlier);
    uint64_t batch = parts_begin(m->parts, count, places[rng_below(&m->rng, count)]);
    for (uint32_t i = 0; i < count; i++) {
        struct rec *r = append(m, places[i].shard, batch);
        r->batch = batch;
        r->named = earlier;
        if (count > 1)
            r->named.at[r->named.count++] = places[(i + 1) % count];
    }
}

static void message_write(struct model *m)
{
    unsigned from = (unsigned)rng_below(&m->rng, SHARDS), to = (unsigned)rng_below(&m->rng, SHARDS);
    uint64_t batch = m->recs[from][m->last[from]].after, had = m->recs[to][m->last[to]].after;
    struct rec *r = append(m, to, batch);
    if (batch > had)
        parts_name(m->parts, batch, &r->named);
}

static void disk_goes_on(struct model *m)
{
    unsigned i = (unsigned)rng_below(&m->rng, SHARDS);
    uint64_t to = m->durable[i] + rng_below(&m->rng, m->last[i] - m->durable[i] + 1);
    while (m->durable[i] < to) {
        uint64_t batch = m->recs[i][++m->durable[i]].batch;
        if (batch != 0)
            (void)parts_durable(m->parts, batch);
    }
}

static void check_restart(const struct model *m)
{
    struct parts_need needs[SHARDS * RECORDS * PARTS_NAMED_MAX];
    uint64_t last[SHARDS], counted[SHARDS];
    size_t count = 0;
    for (unsigned i = 0; i < SHARDS; i++) {
        last[i] = m->durable[i];
        counted[i] = 0;
        for (uint64_t k = 1; k <= m->durable[i]; k++) {
            const struct rec *r = &m->recs[i][k];
            for (uint32_t n = 0; n < r->named.count; n++)
                needs[count++] = (struct parts_need){.record = {.shard = (shard_id_t)i, .index = k},
                                                     .named = r->named.at[n]};
            if (parts_whole(m->parts, r->after))
                counted[i] = k;
        }
    }
    parts_cut(needs, count, last);
    for (unsigned i = 0; i < SHARDS; i++)
        assert_int_equal(last[i], counted[i]);
}

static void test_parts_cut_at_any_moment_keeps_what_counted(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 400; seed++) {
        struct model m = {.parts = parts_new()};
        rng_seed(&m.rng, seed);
        for (unsigned i = 0; i < WRITES && !full(&m); i++) {
            switch (rng_below(&m.rng, 4)) {
            case 0:
                batch_write(&m);
                break;
            case 1:
                message_write(&m);
                break;
            case 2:
                (void)append(&m, (unsigned)rng_below(&m.rng, SHARDS), 0);
                break;
            default:
                disk_goes_on(&m);
            }
            check_restart(&m);
        }
        parts_free(m.parts);
    }
}

/* ---- records ---- */

static void test_record_decode_of_the_version_before_names_nothing(void **state)
{
    /* REMOTE, stamp 5, peer 9, cursor 3, one operation of one byte; as it was before there were
     * names, and as it is without any. */
    static const uint8_t old[] = {2, 5, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3, 1, 1, 'x'};
    struct record r;
    struct buf b = {0};
    (void)state;
    assert_int_equal(record_decode(slice_of(old, sizeof old), &r), 0);
    assert_int_equal(r.type, RECORD_REMOTE);
    assert_int_equal(r.named.count, 0);
    assert_int_equal(r.cursor, 3);
    static const uint8_t op[] = {1, 'x'};
    record_remote(&b, &(struct record_head){.commit_hlc = 5}, 9, 3, 1, slice_of(op, sizeof op));
    assert_true(slice_equal(buf_slice(&b), slice_of(old, sizeof old)));
    buf_deinit(&b);
}

static void test_record_decode_names_come_back(void **state)
{
    struct record_head head = {
        .commit_hlc = 77,
        .named = {.count = 2,
                  .at = {{.shard = 3, .index = 1}, {.shard = 511, .index = UINT64_MAX}}}};
    struct record r;
    struct buf b = {0};
    (void)state;
    record_message(&b, RECORD_DERIVED, &head, 4, 12, slice_str("bytes"));
    assert_int_equal(record_decode(buf_slice(&b), &r), 0);
    assert_int_equal(r.type, RECORD_DERIVED);
    assert_int_equal(r.commit_hlc, 77);
    assert_int_equal(r.named.count, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(r.named.at[i].shard, head.named.at[i].shard);
        assert_true(r.named.at[i].index == head.named.at[i].index);
    }
    assert_int_equal(r.from, 4);
    assert_int_equal(r.message, 12);
    assert_true(slice_equal(r.body, slice_str("bytes")));
    for (size_t len = 0; len < b.len - 5; len++)
        assert_int_not_equal(record_decode(slice_of(b.ptr, len), &r), 0);
    b.ptr[9] = 0; /* how many names */
    assert_int_equal(record_decode(buf_slice(&b), &r), ERR_MALFORMED);
    b.ptr[9] = PARTS_NAMED_MAX + 1;
    assert_int_equal(record_decode(buf_slice(&b), &r), ERR_MALFORMED);
    buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_durable_out_of_order_is_whole_in_order),
        cmocka_unit_test(test_parts_cut_follows_what_is_named),
        cmocka_unit_test(test_parts_cut_at_any_moment_keeps_what_counted),
        cmocka_unit_test(test_record_decode_of_the_version_before_names_nothing),
        cmocka_unit_test(test_record_decode_names_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
