/* The log from the outside: appending, group commit, reading, rolling over segments, trimming,
 * resetting, failing writes, readers on another thread. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/unit/journal/log_test.h"

#define SMALL (64u * KIB)

static void test_open_empty_directory_starts_at_one(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(fixture_open(&f), 0);
        assert_int_equal(f.info.first, 1);
        assert_int_equal(f.info.last, 0);
        assert_int_equal(f.info.torn_bytes, 0);
        assert_int_equal(log_last(f.log), 0);
        assert_int_equal(log_durable(f.log), 0);
        assert_int_equal(log_first(f.log), 1);
        assert_int_equal(log_bytes(f.log), SMALL);
        uint64_t next = 0;
        struct read_check c = {0};
        assert_int_equal(log_read(f.log, 1, 100, check_record, &c, &next), 0);
        assert_int_equal(next, 1);
        assert_int_equal(log_read(f.log, 0, 100, check_record, &c, &next), ERR_NOT_FOUND);
        fixture_close(&f);
    }
    fixture_deinit(&f);
}

/* Everything appended in one turn is one write; what comes while it is in flight is the next. */
static void hook_append_ten(struct log_fixture *f)
{
    for (int i = 0; i < 10 && f->durable_calls < 5; i++)
        append(f, 100);
}

static void test_append_group_commit_one_write_per_turn(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, MIB);
    assert_int_equal(fixture_open(&f), 0);
    for (int i = 0; i < 100; i++)
        append(&f, 200);
    assert_int_equal(log_durable(f.log), 0);
    flush(&f);
    assert_int_equal(f.durable_calls, 1);
    f.hook = hook_append_ten;
    append(&f, 100);
    f.target = 141 - 10; /* calls 2 to 4 append ten each */
    loop_run(f.loop);
    f.hook = NULL;
    assert_int_equal(f.durable_calls, 5);
    assert_int_equal(log_durable(f.log), 131);
    /* More than a megabyte is cut into several writes, in order. */
    uint64_t calls = f.durable_calls;
    for (int i = 0; i < 30; i++)
        append(&f, 100 * KIB);
    flush(&f);
    assert_int_equal(f.durable_calls, calls + 4); /* nine and a bit per segment */
    check_all_from(&f, 1, MIB);
    fixture_reopen(&f);
    assert_int_equal(f.info.last, 161);
    check_all_from(&f, 1, MIB);
    fixture_deinit(&f);
}

static void test_append_limits(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(try_append(&f, 0), ERR_INVALID);
    assert_int_equal(try_append(&f, LIMIT_RECORD_BYTES + 1), ERR_TOO_BIG);
    assert_int_equal(log_last(f.log), 0);
    /* Records far larger than a segment get one of their own. */
    append(&f, 1);
    append(&f, LIMIT_RECORD_BYTES);
    append(&f, 1);
    append(&f, 3 * MIB + 1);
    append(&f, SMALL);
    append(&f, 5000);
    flush(&f);
    check_all_from(&f, 1, 1);
    fixture_reopen(&f);
    assert_int_equal(f.info.last, 6);
    assert_int_equal(f.info.torn_bytes, 0);
    check_all_from(&f, 1, MIB);
    append(&f, 100);
    flush(&f);
    log_trim(f.log, 7);
    fixture_reopen(&f);
    check_all_from(&f, log_first(f.log), MIB);
    fixture_deinit(&f);
}

/* What is batched when the log is closed is written, without the loop ever running. */
static void test_close_writes_what_is_batched(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    assert_int_equal(fixture_open(&f), 0);
    for (int i = 0; i < 100; i++)
        append(&f, 3000);
    fixture_reopen(&f);
    assert_int_equal(f.durable_calls > 0, 1);
    assert_int_equal(f.info.last, 100);
    check_all_from(&f, 1, 10000);
    /* And with a write in flight. */
    append(&f, 10);
    f.target = 101;
    f.hook = hook_append_ten;
    f.durable_calls = 0;
    loop_run(f.loop);
    f.hook = NULL;
    append(&f, 20);
    fixture_reopen(&f);
    assert_int_equal(f.info.last, 112);
    check_all_from(&f, 1, 10000);
    fixture_deinit(&f);
}

static void test_read_bounds(void **state)
{
    (void)state;
    struct log_fixture f;
    uint64_t next;
    fixture_init(&f, SMALL);
    assert_int_equal(fixture_open(&f), 0);
    for (int i = 0; i < 200; i++)
        append(&f, 1000);
    flush(&f);
    for (int from_disk = 0; from_disk < 2; from_disk++) {
        struct read_check c = {.next = 50};
        assert_int_equal(log_read(f.log, 50, 1, check_record, &c, &next), 0);
        assert_int_equal(next, 51);
        c = (struct read_check){.next = 50};
        assert_int_equal(log_read(f.log, 50, 2500, check_record, &c, &next), 0);
        assert_int_equal(next, 52);
        c = (struct read_check){.next = 50};
        assert_int_equal(log_read(f.log, 50, 3000, check_record, &c, &next), 0);
        assert_int_equal(next, 53);
        c = (struct read_check){.next = 50, .stop_at = 60};
        assert_int_equal(log_read(f.log, 50, MIB, check_record, &c, &next), 0);
        assert_int_equal(next, 61);
        c = (struct read_check){.next = 200};
        assert_int_equal(log_read(f.log, 200, MIB, check_record, &c, &next), 0);
        assert_int_equal(next, 201);
        assert_int_equal(log_read(f.log, 201, MIB, check_record, &c, &next), 0);
        assert_int_equal(next, 201);
        fixture_reopen(&f); /* drops the memory tail */
    }
    fixture_deinit(&f);
}

/* A write so large that a reader loads it piece by piece, of which the first ends in a header: a
 * reader that begins at that very record gets it like any other. */
static void test_read_begins_anywhere_in_a_large_write(void **state)
{
    (void)state;
    enum {
        COUNT = 9000,
        BYTES = LOG_RECORD_HEADER + 8,
        PIECE = 256 * 1024
    };
    struct log_fixture f;
    uint64_t next;
    _Static_assert(PIECE % BYTES != 0 && PIECE % BYTES < LOG_RECORD_HEADER, "in a header");
    fixture_init(&f, 8 * MIB);
    assert_int_equal(fixture_open(&f), 0);
    for (int i = 0; i < COUNT; i++)
        append(&f, 8);
    flush(&f);
    assert_int_equal(f.durable_calls, 1); /* one write */
    for (int i = 0; i < 100; i++)         /* out of memory */
        append(&f, 60000);
    flush(&f);
    for (uint64_t from = 1; from <= COUNT; from++) {
        struct read_check c = {.next = from};
        if (from % 50 != 0 && from / 100 != PIECE / BYTES / 100)
            continue;
        assert_int_equal(log_read(f.log, from, 1, check_record, &c, &next), 0);
        assert_int_equal(next, from + 1);
    }
    fixture_deinit(&f);
}

/* Hundreds of segments' worth through a handful of files: recycled ones are full of old records,
 * which must never come back. */
static void test_trim_recycles_and_stale_records_stay_dead(void **state)
{
    (void)state;
    struct log_fixture f;
    struct rng rng;
    fixture_init(&f, SMALL);
    rng_seed(&rng, 5);
    assert_int_equal(fixture_open(&f), 0);
    for (int round = 0; round < 120; round++) {
        for (uint64_t n = rng_below(&rng, 40); n > 0; n--)
            append(&f, 1 + rng_below(&rng, 4000));
        flush(&f);
        if (rng_below(&rng, 2) == 0) {
            uint64_t keep = log_durable(f.log) - MIN(log_durable(f.log), rng_below(&rng, 60));
            uint64_t before = log_first(f.log);
            log_trim(f.log, keep);
            assert_true(log_first(f.log) <= MAX(keep, before));
        }
        uint64_t last = log_last(f.log), first = log_first(f.log);
        if (rng_below(&rng, 3) == 0) {
            fixture_reopen(&f);
            assert_int_equal(f.info.last, last);
            assert_int_equal(f.info.first, first);
            assert_int_equal(f.info.torn_bytes, 0);
        }
        check_all_from(&f, first, 1 + rng_below(&rng, 100000));
        assert_true(log_bytes(f.log) <= 8 * SMALL);
        uint64_t half = first + (last - first) / 2;
        assert_true(log_bytes_from(f.log, first) <= log_bytes(f.log));
        assert_true(log_bytes_from(f.log, half) <= log_bytes_from(f.log, first));
        assert_true(log_bytes_from(f.log, half) >= last + 1 - half); /* a byte each at least */
        assert_int_equal(log_bytes_from(f.log, last + 1), 0);
        if (first > 1) {
            uint64_t next;
            struct read_check c = {0};
            assert_int_equal(log_read(f.log, first - 1, 1, check_record, &c, &next), ERR_NOT_FOUND);
        }
    }
    assert_true(log_first(f.log) > 1000);
    /* Trimming everything keeps the last segment, and with it the count. */
    uint64_t last = log_last(f.log);
    log_trim(f.log, UINT64_MAX);
    assert_int_equal(log_bytes(f.log), SMALL);
    fixture_reopen(&f);
    assert_int_equal(f.info.last, last);
    append(&f, 7);
    flush(&f);
    fixture_reopen(&f);
    assert_int_equal(f.info.last, last + 1);
    fixture_deinit(&f);
}

static int count_files(const char *dir, const char *suffix)
{
    char *command = mem_printf("exit $(ls %s | grep -c '%s$')", dir, suffix);
    int rc = system(command);
    mem_free(command);
    assert_true(WIFEXITED(rc));
    return WEXITSTATUS(rc);
}

static void test_reset_starts_anew(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    assert_int_equal(fixture_open(&f), 0);
    uint64_t starts[] = {1000, 7, 8, UINT64_MAX / 2};
    for (size_t i = 0; i < ARRAY_COUNT(starts); i++) {
        for (int k = 0; k < 100; k++)
            append(&f, 1500);
        if (i != 1)
            flush(&f);
        append(&f, 99); /* not durable: the reset drops it */
        assert_int_equal(log_reset(f.log, starts[i]), 0);
        f.durable = 0; /* may go back here */
        assert_int_equal(log_first(f.log), starts[i]);
        assert_int_equal(log_last(f.log), starts[i] - 1);
        assert_int_equal(log_durable(f.log), starts[i] - 1);
        assert_int_equal(count_files(f.dir, "seg"), 1);
        if (i % 2 == 0) {
            fixture_reopen(&f);
            assert_int_equal(f.info.first, starts[i]);
            assert_int_equal(f.info.last, starts[i] - 1);
            assert_int_equal(f.info.torn_bytes, 0);
        }
        append(&f, 10);
        append(&f, 20);
        flush(&f);
        check_all_from(&f, starts[i], MIB);
        fixture_reopen(&f);
        assert_int_equal(f.info.last, starts[i] + 1);
        check_all_from(&f, starts[i], MIB);
    }
    fixture_deinit(&f);
}

/* The files the reset was about to remove are still there after a crash. */
static void test_reset_crash_before_removal(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    assert_int_equal(fixture_open(&f), 0);
    for (int k = 0; k < 200; k++)
        append(&f, 1500);
    flush(&f);
    char *command = mem_printf("mkdir %s/old && cp %s/*.seg %s/old", f.dir, f.dir, f.dir);
    assert_int_equal(system(command), 0);
    mem_free(command);
    assert_int_equal(log_reset(f.log, 5000), 0);
    fixture_close(&f);
    command = mem_printf("for s in %s/old/*; do test -e %s/${s##*/} || cp $s %s/; done", f.dir,
                         f.dir, f.dir);
    assert_int_equal(system(command), 0);
    mem_free(command);
    assert_true(count_files(f.dir, "seg") > 3);
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(f.info.first, 5000);
    assert_int_equal(f.info.last, 4999);
    assert_int_equal(count_files(f.dir, "seg"), 1);
    fixture_deinit(&f);
}

/* A failed and a short write end the log; the records before stay, and a reopen goes on. The limit
 * on file sizes makes the kernel refuse, or cut short, writes beyond it. */
static void test_failed_write_is_final(void **state)
{
    (void)state;
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    for (int way = 0; way < 2; way++) {
        struct log_fixture f;
        struct rlimit old, limit;
        fixture_init(&f, SMALL);
        assert_int_equal(fixture_open(&f), 0);
        append(&f, 100);
        flush(&f);
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
        limit = old;
        limit.rlim_cur = way == 0 ? 2 * LOG_BLOCK : 4 * LOG_BLOCK;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        append(&f, 5 * LOG_BLOCK);
        f.target = 2;
        loop_run(f.loop);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_int_equal(f.failed_calls, 1);
        assert_int_equal(f.failed_rc, way == 0 ? ERR_FILE_TOO_BIG : ERR_IO);
        assert_non_null(strstr(f.failed_detail.text, ".seg: writing"));
        assert_int_equal(log_durable(f.log), 1);
        assert_int_equal(try_append(&f, 10), ERR_FATAL);
        assert_int_equal(log_reset(f.log, 10), ERR_FATAL);
        check_all_from(&f, 1, MIB);
        fixture_reopen(&f);
        assert_int_equal(f.failed_calls, 1);
        assert_int_equal(f.info.last, 1);
        append(&f, 50);
        f.failed_calls = 0;
        flush(&f);
        check_all_from(&f, 1, MIB);
        fixture_deinit(&f);
    }
}

/* Disk damage below what was read into memory is told by log_read, too. */
static void test_read_reports_damage(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    assert_int_equal(fixture_open(&f), 0);
    for (int k = 0; k < 100; k++)
        append(&f, 1500);
    flush(&f);
    fixture_reopen(&f);
    char *path = mem_printf("%s/%020d.seg", f.dir, 1);
    int fd = open(path, O_RDWR);
    mem_free(path);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "\x55\xaa\x55", 3, 20000), 3);
    (void)close(fd);
    uint64_t next = 0;
    struct read_check c = {.next = 1};
    assert_int_equal(log_read(f.log, 1, MIB, check_record, &c, &next), 0);
    assert_true(next > 5 && next < 20);
    uint64_t bad = next;
    assert_int_equal(log_read(f.log, bad, MIB, check_record, &c, &next), ERR_CORRUPT);
    assert_int_equal(next, bad);
    /* The next segment is unharmed. */
    c = (struct read_check){.next = 60};
    assert_int_equal(log_read(f.log, 60, MIB, check_record, &c, &next), 0);
    assert_int_equal(next, 101);
    fixture_deinit(&f);
}

static void test_open_bad_places(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    f.config.dir = "/nonexistent/journal";
    assert_int_equal(fixture_open(&f), ERR_NOT_FOUND);
    assert_non_null(strstr(f.detail.text, "/nonexistent/journal"));
    f.config.dir = "/proc";
    assert_int_not_equal(fixture_open(&f), 0);
    assert_non_null(strstr(f.detail.text, "/proc"));
    f.config.dir = f.dir;
    f.config.segment_bytes = GIB;
    assert_int_equal(fixture_open(&f), ERR_INVALID);
    /* Two at a time would destroy each other's records. */
    f.config.segment_bytes = SMALL;
    assert_int_equal(fixture_open(&f), 0);
    struct log *other;
    assert_int_equal(log_open(&other, &f.config, &f.info, &f.detail), ERR_BUSY);
    assert_non_null(strstr(f.detail.text, f.dir));
    fixture_reopen(&f);
    fixture_deinit(&f);
}

/* ---- threads ---- */

struct reader_thread {
    struct log_fixture *f;
    pthread_t thread;
    uint64_t until;
    uint64_t read, restarts;
};

static void *reader_run(void *ctx)
{
    struct reader_thread *r = ctx;
    struct log *log = r->f->log;
    uint64_t next = 1;
    while (next <= r->until) {
        struct read_check c = {.next = next};
        uint64_t got = next;
        int rc = log_read(log, next, 20000, check_record, &c, &got);
        if (rc == ERR_NOT_FOUND) {
            next = log_first(log);
            r->restarts++;
            continue;
        }
        assert_int_equal(rc, 0);
        r->read += got - next;
        next = got;
    }
    return NULL;
}

static void hook_keep_going(struct log_fixture *f)
{
    while (log_last(f->log) < f->target && log_last(f->log) < f->durable + 40)
        append(f, 1 + log_last(f->log) * 97 % 3000);
    if (f->durable > 300)
        log_trim(f->log, f->durable - 300);
}

/* Two readers follow a writer that trims close behind itself and recycles: whatever they get is
 * right, and what they are too late for is reported as gone. */
static void test_read_from_other_threads(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    assert_int_equal(fixture_open(&f), 0);
    struct reader_thread readers[2];
    for (size_t i = 0; i < ARRAY_COUNT(readers); i++) {
        readers[i] = (struct reader_thread){.f = &f, .until = 6000};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, reader_run, &readers[i]), 0);
    }
    f.target = 6000;
    f.hook = hook_keep_going;
    append(&f, 1);
    loop_run(f.loop);
    for (size_t i = 0; i < ARRAY_COUNT(readers); i++) {
        assert_int_equal(pthread_join(readers[i].thread, NULL), 0);
        assert_true(readers[i].read > 0);
    }
    f.hook = NULL;
    fixture_deinit(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_empty_directory_starts_at_one),
        cmocka_unit_test(test_append_group_commit_one_write_per_turn),
        cmocka_unit_test(test_append_limits),
        cmocka_unit_test(test_close_writes_what_is_batched),
        cmocka_unit_test(test_read_bounds),
        cmocka_unit_test(test_read_begins_anywhere_in_a_large_write),
        cmocka_unit_test(test_trim_recycles_and_stale_records_stay_dead),
        cmocka_unit_test(test_reset_starts_anew),
        cmocka_unit_test(test_reset_crash_before_removal),
        cmocka_unit_test(test_failed_write_is_final),
        cmocka_unit_test(test_read_reports_damage),
        cmocka_unit_test(test_open_bad_places),
        cmocka_unit_test(test_read_from_other_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
