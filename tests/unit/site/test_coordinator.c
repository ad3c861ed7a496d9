/* site/coordinator.h on files: compare and swap, a damaged record, and one of the format before. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/codec.h"
#include "site/coordinator.h"

struct fixture {
    char dir[64];
    struct coordinator *c;
    struct err_detail d;
};

static void open_it(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    memcpy(f->dir, "/tmp/claudefs-coordinator-XXXXXX", 33);
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(coordinator_open_local(&f->c, f->dir, &f->d), 0);
}

static void close_it(struct fixture *f)
{
    coordinator_close(f->c);
    char *command = mem_printf("rm -r %s", f->dir);
    assert_int_equal(system(command), 0);
    mem_free(command);
}

static void file_put(const struct fixture *f, const struct buf *b)
{
    char *path = mem_printf("%s/coordinator/shard-003", f->dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, b->ptr, b->len), (ssize_t)b->len);
    (void)close(fd);
    mem_free(path);
}

static void test_swap_takes_the_expected_version_only(void **state)
{
    struct fixture f;
    struct shard_record r, got;
    (void)state;
    open_it(&f);
    assert_int_equal(coordinator_get(f.c, 3, &r, &f.d), 0);
    assert_int_equal(r.version, 0);
    r.epoch = 1;
    r.primary = 7;
    r.lease_ns = 5;
    r.stamp_max = 6;
    r.in_sync_count = 1;
    r.in_sync[0] = 7;
    assert_int_equal(coordinator_swap(f.c, 3, 0, &r, &f.d), 0);
    assert_int_equal(coordinator_swap(f.c, 3, 0, &r, &f.d), ERR_STALE_BASE);
    assert_int_equal(coordinator_get(f.c, 3, &got, &f.d), 0);
    r.version = 1;
    assert_memory_equal(&r, &got, sizeof r);
    assert_int_equal(coordinator_get(f.c, 4, &got, &f.d), 0);
    assert_int_equal(got.version, 0);
    close_it(&f);
}

static void test_damaged_record_is_told(void **state)
{
    struct fixture f;
    struct shard_record r = {0};
    (void)state;
    open_it(&f);
    for (size_t len = 0; len < 200; len += 7) {
        struct buf b = {0};
        for (size_t i = 0; i < len; i++)
            enc_u8(&b, (uint8_t) "CCR2"[i % 4]);
        file_put(&f, &b);
        buf_deinit(&b);
        assert_int_equal(coordinator_get(f.c, 3, &r, &f.d), ERR_CORRUPT);
        assert_non_null(strstr(f.d.text, "/coordinator/shard-003 is damaged: remove it"));
        assert_int_equal(r.version, 0);
    }
    close_it(&f);
}

/* Its field for the lease held a time of the wall clock: nothing that a new primary would wait for.
 */
static void test_record_of_the_format_before_is_read(void **state)
{
    struct fixture f;
    struct shard_record r;
    struct buf b = {0};
    uint64_t sum = 0xcbf29ce484222325ull;
    (void)state;
    open_it(&f);
    enc_raw(&b, "CCR1", 4);
    enc_u64(&b, 12);                         /* version */
    enc_u64(&b, 5);                          /* epoch */
    enc_u64(&b, 7);                          /* primary */
    enc_u64(&b, UINT64_C(1700000000) << 30); /* end of the lease */
    enc_u32(&b, 1);
    for (unsigned i = 0; i < COORDINATOR_REPLICAS_MAX; i++)
        enc_u64(&b, i == 0 ? 7 : 0);
    for (size_t i = 0; i < b.len; i++)
        sum = (sum ^ b.ptr[i]) * 0x100000001b3ull;
    enc_u64(&b, sum);
    file_put(&f, &b);
    buf_deinit(&b);
    assert_int_equal(coordinator_get(f.c, 3, &r, &f.d), 0);
    assert_int_equal(r.version, 12);
    assert_int_equal(r.epoch, 5);
    assert_int_equal(r.primary, 7);
    assert_int_equal(r.lease_ns, 0);
    assert_int_equal(r.stamp_max, 0);
    assert_int_equal(r.in_sync_count, 1);
    assert_int_equal(coordinator_swap(f.c, 3, 12, &r, &f.d), 0);
    assert_int_equal(coordinator_get(f.c, 3, &r, &f.d), 0);
    assert_int_equal(r.version, 13);
    close_it(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_swap_takes_the_expected_version_only),
        cmocka_unit_test(test_damaged_record_is_told),
        cmocka_unit_test(test_record_of_the_format_before_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
