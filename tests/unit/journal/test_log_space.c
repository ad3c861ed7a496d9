/* A full disk: a tmpfs of a few segments, in a mount namespace of its own. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>

#include "tests/unit/journal/log_test.h"

#define SMALL (64u * KIB)

/* Mounts a tmpfs over the scratch directory; false, with the reason printed, when not allowed. */
static bool mount_small(const char *dir, const char *options)
{
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", dir, "tmpfs", 0, options) != 0) {
        print_message("skipped: mounting a tmpfs: %s\n", strerror(errno));
        return false;
    }
    return true;
}

static void test_full_disk_refuses_and_recovers(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    if (!mount_small(f.dir, "size=400k")) {
        fixture_deinit(&f);
        skip();
    }
    assert_int_equal(fixture_open(&f), 0);
    int rc = 0;
    while ((rc = try_append(&f, 5000)) == 0) {
        if (log_last(f.log) % 3 == 0)
            flush(&f);
    }
    assert_int_equal(rc, ERR_NO_SPACE);
    uint64_t last = log_last(f.log);
    assert_true(last > 50);
    /* Nothing happened: what was taken becomes durable, more is refused the same way. */
    flush(&f);
    assert_int_equal(try_append(&f, 5000), ERR_NO_SPACE);
    assert_int_equal(try_append(&f, 100 * KIB), ERR_NO_SPACE);
    assert_int_equal(log_last(f.log), last);
    check_all_from(&f, 1, MIB);
    /* A full disk can be opened. */
    fixture_reopen(&f);
    assert_int_equal(f.info.last, last);
    assert_int_equal(try_append(&f, 5000) == ERR_NO_SPACE || log_last(f.log) > last, 1);
    while (try_append(&f, 5000) == 0)
        ;
    flush(&f);
    /* Trimming makes room by recycling. */
    last = log_last(f.log);
    log_trim(f.log, last - 10);
    for (int i = 0; i < 5; i++)
        append(&f, 5000);
    flush(&f);
    /* So does an operator. */
    while (try_append(&f, 5000) == 0)
        ;
    assert_int_equal(mount(NULL, f.dir, NULL, MS_REMOUNT, "size=4m"), 0);
    last = log_last(f.log);
    for (int i = 0; i < 50; i++)
        append(&f, 5000);
    flush(&f);
    fixture_reopen(&f);
    assert_int_equal(f.info.last, last + 50);
    check_all_from(&f, f.info.first, MIB);
    fixture_close(&f);
    assert_int_equal(umount(f.dir), 0);
    fixture_deinit(&f);
}

static void test_open_new_on_a_full_disk(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    if (!mount_small(f.dir, "size=40k")) {
        fixture_deinit(&f);
        skip();
    }
    assert_int_equal(fixture_open(&f), ERR_NO_SPACE);
    assert_non_null(strstr(f.detail.text, f.dir));
    /* Nothing is left behind that would stand in the way later. */
    assert_int_equal(mount(NULL, f.dir, NULL, MS_REMOUNT, "size=4m"), 0);
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(f.info.last, 0);
    fixture_close(&f);
    assert_int_equal(umount(f.dir), 0);
    fixture_deinit(&f);
}

static void test_reset_without_space_changes_nothing(void **state)
{
    (void)state;
    struct log_fixture f;
    fixture_init(&f, SMALL);
    if (!mount_small(f.dir, "size=120k")) {
        fixture_deinit(&f);
        skip();
    }
    assert_int_equal(fixture_open(&f), 0);
    append(&f, 100);
    flush(&f);
    assert_int_equal(log_reset(f.log, 50), ERR_NO_SPACE);
    append(&f, 100);
    flush(&f);
    fixture_reopen(&f);
    assert_int_equal(f.info.last, 2);
    check_all_from(&f, 1, MIB);
    fixture_close(&f);
    assert_int_equal(umount(f.dir), 0);
    fixture_deinit(&f);
}

/* What was reserved is taken, whatever its size and wherever the segment ends; what was refused
 * would have been, and nothing has changed. */
static void test_reserve_says_what_append_would(void **state)
{
    (void)state;
    struct log_fixture f;
    struct rng rng;
    unsigned taken = 0, refused = 0;
    fixture_init(&f, SMALL);
    if (!mount_small(f.dir, "size=900k")) {
        fixture_deinit(&f);
        skip();
    }
    rng_seed(&rng, 7);
    assert_int_equal(fixture_open(&f), 0);
    while (refused < 5) {
        size_t len = 1 + rng_below(&rng, rng_below(&rng, 8) == 0 ? 100 * KIB : 5000);
        uint64_t last = log_last(f.log);
        int rc = log_reserve(f.log, len);
        assert_int_equal(log_last(f.log), last);
        if (rng_below(&rng, 4) == 0)
            continue; /* and then it was not needed */
        assert_int_equal(try_append(&f, rc == 0 ? len - rng_below(&rng, len) : len), rc);
        *(rc == 0 ? &taken : &refused) += 1;
        if (rng_below(&rng, 3) == 0)
            flush(&f);
    }
    assert_true(taken > 50);
    flush(&f);
    uint64_t last = log_last(f.log);
    fixture_reopen(&f);
    assert_int_equal(f.info.last, last);
    check_all_from(&f, 1, MIB);
    fixture_close(&f);
    assert_int_equal(umount(f.dir), 0);
    fixture_deinit(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_disk_refuses_and_recovers),
        cmocka_unit_test(test_open_new_on_a_full_disk),
        cmocka_unit_test(test_reset_without_space_changes_nothing),
        cmocka_unit_test(test_reserve_says_what_append_would),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
