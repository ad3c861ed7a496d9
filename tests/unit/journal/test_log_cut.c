/* journal/log.h: cutting off what a replica has that its primary has not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/journal/log_test.h"

#define SMALL (8u * LOG_BLOCK)

struct seen {
    uint64_t first, last, epoch_from; /* records from there on are of epoch 9 */
};

static bool look(void *ctx, const struct log_record *record)
{
    struct seen *s = ctx;
    uint8_t expected[4096];
    assert_int_equal(record->index, s->last + 1);
    assert_int_equal(record->epoch, record->index >= s->epoch_from ? 9 : 3);
    record_fill(expected, record->index, record->payload.len);
    assert_memory_equal(expected, record->payload.ptr, record->payload.len);
    s->last = record->index;
    return true;
}

static void check(struct log_fixture *f, uint64_t first, uint64_t last, uint64_t epoch_from)
{
    struct seen s = {.first = first, .last = first - 1, .epoch_from = epoch_from};
    uint64_t next = first;
    while (next <= log_durable(f->log))
        assert_int_equal(log_read(f->log, next, MIB, look, &s, &next), 0);
    assert_int_equal(s.last, last);
    assert_int_equal(log_last(f->log), last);
}

static void fill(struct log_fixture *f, unsigned count, size_t len)
{
    for (unsigned i = 0; i < count; i++)
        append(f, len);
    flush(f);
}

/* From anywhere, whatever was written at once, and with other records after it. */
static void test_cut_at_every_place(void **state)
{
    (void)state;
    for (uint64_t last = 0; last <= 40; last++) {
        struct log_fixture f;
        fixture_init(&f, SMALL);
        assert_int_equal(fixture_open(&f), 0);
        fill(&f, 25, 1500);
        fill(&f, 15, 700);
        assert_int_equal(log_cut(f.log, last), 0);
        f.durable = last; /* goes back here */
        assert_int_equal(log_durable(f.log), last);
        check(&f, 1, last, UINT64_MAX);
        if (last % 2 == 0) {
            fixture_reopen(&f);
            assert_int_equal(f.info.torn_bytes, 0);
            check(&f, 1, last, UINT64_MAX);
        }
        log_epoch_set(f.log, 9);
        fill(&f, 30, 900);
        check(&f, 1, last + 30, last + 1);
        f.config.epoch = 9;
        fixture_reopen(&f);
        assert_int_equal(f.info.first, 1);
        check(&f, 1, last + 30, last + 1);
        fixture_deinit(&f);
    }
}

/* What is appended and not yet written is cut as well. */
static void test_cut_of_what_is_not_durable(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    assert_int_equal(fixture_open(&f), 0);
    fill(&f, 3, 100);
    append(&f, 200);
    append(&f, 300);
    f.target = UINT64_MAX;
    assert_int_equal(log_cut(f.log, 4), 0);
    assert_int_equal(log_durable(f.log), 4);
    fixture_reopen(&f);
    check(&f, 1, 4, UINT64_MAX);
    assert_int_equal(log_cut(f.log, 4), 0); /* nothing to do */
    fixture_deinit(&f);
}

static void shell(char *command) /* takes it */
{
    assert_int_equal(system(command), 0);
    mem_free(command);
}

/* The files that a cut was about to remove are still there after a crash. */
static void test_crash_before_files_are_removed(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    assert_int_equal(fixture_open(&f), 0);
    fill(&f, 60, 1500);
    shell(mem_printf("mkdir %s/old && cp %s/*.seg %s/old", f.dir, f.dir, f.dir));
    assert_int_equal(log_cut(f.log, 2), 0);
    f.durable = 2;
    log_epoch_set(f.log, 9);
    fill(&f, 30, 1500); /* goes on into segments behind the cut */
    fixture_close(&f);
    shell(mem_printf("for s in %s/old/*; do test -e %s/${s##*/} || cp $s %s/; done", f.dir, f.dir,
                     f.dir));
    f.config.epoch = 9;
    assert_int_equal(fixture_open(&f), 0);
    check(&f, 1, 32, 3);
    fixture_reopen(&f);
    check(&f, 1, 32, 3);
    assert_int_equal(log_cut(f.log, 10), 0); /* and once more */
    f.durable = 10;
    fixture_reopen(&f);
    check(&f, 1, 10, 3);
    fixture_deinit(&f);
}

/* Trimming goes past a cut. */
static void test_trim_behind_a_cut(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    assert_int_equal(fixture_open(&f), 0);
    fill(&f, 60, 1500);
    assert_int_equal(log_cut(f.log, 50), 0);
    f.durable = 50;
    fill(&f, 60, 1500);
    log_trim(f.log, 90);
    uint64_t first = log_first(f.log);
    assert_in_range(first, 51, 90);
    fixture_reopen(&f);
    assert_int_equal(f.info.first, first);
    check(&f, first, 110, UINT64_MAX);
    fixture_deinit(&f);
}

/* Without the records that the cut left there is no chain. */
static void test_lost_segment_before_a_cut_is_damage(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    assert_int_equal(fixture_open(&f), 0);
    fill(&f, 60, 1500);
    assert_int_equal(log_cut(f.log, 55), 0);
    fixture_close(&f);
    shell(mem_printf("rm $(ls %s/*.seg | sed -n 3p)", f.dir));
    assert_int_equal(fixture_open(&f), ERR_CORRUPT);
    loop_free(f.loop);
    scratch_remove(f.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_at_every_place),
        cmocka_unit_test(test_cut_of_what_is_not_durable),
        cmocka_unit_test(test_crash_before_files_are_removed),
        cmocka_unit_test(test_trim_behind_a_cut),
        cmocka_unit_test(test_lost_segment_before_a_cut_is_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
