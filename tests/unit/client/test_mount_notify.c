/* What the kernel is told, and that it is not once the session is ending: the number
 * of its descriptor may be somebody else's by then. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>

#include "base/clock.h"
#include "client/mount.h"

#define DIRS 3000u

/* ---- a kernel: what the program itself defines goes before libfuse's ---- */

static struct kernel {
    pthread_mutex_t lock;
    pthread_cond_t told;
    unsigned inodes; /* times that it was told of one */
    int fds[2];      /* what is written to the session can be read from the first */
} kernel = {.lock = PTHREAD_MUTEX_INITIALIZER, .told = PTHREAD_COND_INITIALIZER};

int fuse_session_fd(struct fuse_session *se)
{
    (void)se;
    return kernel.fds[1];
}

int fuse_lowlevel_notify_inval_inode(struct fuse_session *se, fuse_ino_t ino, off_t off, off_t len)
{
    (void)se;
    (void)ino;
    (void)off;
    (void)len;
    pthread_mutex_lock(&kernel.lock);
    kernel.inodes++;
    pthread_cond_signal(&kernel.told);
    pthread_mutex_unlock(&kernel.lock);
    return 0;
}

static size_t written(void *ret, size_t cap)
{
    ssize_t n = read(kernel.fds[0], ret, cap);
    assert_true(n >= 0 || errno == EAGAIN);
    return n < 0 ? 0 : (size_t)n;
}

/* ---- a mount ---- */

static struct oid dir_of(uint32_t n)
{
    uint8_t hash[12] = {0};
    memcpy(hash, &n, sizeof n);
    return oid_dir(1, hash);
}

/* The site. While it hears that a directory was forgotten the kernel looks it up again; whether the
 * site had seen that lookup before is not known. */
static int site(void *ctx, struct conn_call *call)
{
    struct mount *m = ctx;
    call->reply = (struct fs_reply){.rc = 0};
    if (call->type != RPC_FORGET)
        return 0;
    struct oid oid = call->req.oids[0];
    inode_unref(m->inodes, inode_table_enter(m->inodes, oid, oid_ino(oid), 1));
    return 0;
}

static int setup(void **state)
{
    struct mount *m = mem_calloc(1, sizeof *m);
    kernel.inodes = 0;
    assert_int_equal(pipe2(kernel.fds, O_NONBLOCK | O_CLOEXEC), 0);
    m->session = (struct fuse_session *)m; /* there is one; only the kernel above is given it */
    m->conn = conn_open_local(site, m);
    inode_clock_init(&m->clock);
    m->inodes = inode_table_new(NULL, NULL);
    for (uint32_t i = 0; i < DIRS; i++) {
        struct oid oid = dir_of(i);
        inode_unref(m->inodes, inode_table_enter(m->inodes, oid, oid_ino(oid), 1));
    }
    assert_int_equal(inode_table_count(m->inodes), DIRS);
    assert_int_equal(notifier_new(m, &m->notifier), 0);
    notifier_probe(m->notifier); /* the mount is there */
    struct fuse_out_header out;
    assert_int_equal(written(&out, sizeof out), sizeof out);
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    struct mount *m = *state;
    notifier_free(m->notifier);
    inode_table_free(m->inodes);
    conn_free(m->conn);
    inode_clock_deinit(&m->clock);
    (void)close(kernel.fds[0]);
    (void)close(kernel.fds[1]);
    mem_free(m);
    return 0;
}

static void wait_told(unsigned count)
{
    pthread_mutex_lock(&kernel.lock);
    while (kernel.inodes < count)
        pthread_cond_wait(&kernel.told, &kernel.lock);
    pthread_mutex_unlock(&kernel.lock);
}

static void test_everything_is_told_of_all_directories(void **state)
{
    struct mount *m = *state;
    struct fuse_out_header out;
    notifier_everything(m->notifier, NULL, 0);
    wait_told(DIRS);
    assert_int_equal(written(&out, sizeof out), sizeof out); /* the epoch of all names */
    assert_int_equal(out.unique, 0);
}

static void test_prune_names_the_inodes(void **state)
{
    struct mount *m = *state;
    struct inode_ids ids = {.at = {7, 9}, .count = 2};
    uint64_t got[16];
    struct fuse_out_header out;
    assert_true(notifier_prune(m->notifier, &ids));
    size_t len = written(got, sizeof got);
    memcpy(&out, got, sizeof out);
    assert_int_equal(out.len, len);
    assert_memory_equal((uint8_t *)got + len - 16, ids.at, 16);
}

/* What others did in it meanwhile the site need not have told: nothing that the kernel has of it is
 * believed, its names neither (C10). */
static void test_directory_that_is_known_again_is_not_believed(void **state)
{
    struct mount *m = *state;
    struct fuse_out_header out = {0};
    assert_int_equal(forgetter_new(m, &m->forgetter), 0);
    inode_table_forget(m->inodes, oid_ino(dir_of(0)), 1);
    assert_false(inode_table_has(m->inodes, dir_of(0)));
    forgetter_add(m->forgetter, dir_of(0));
    wait_told(1);
    forgetter_free(m->forgetter);
    notifier_free(m->notifier); /* what was begun is over */
    m->notifier = NULL;
    assert_true(inode_table_has(m->inodes, dir_of(0)));
    assert_int_equal(kernel.inodes, 1);
    assert_int_equal(written(&out, sizeof out), sizeof out);
    assert_int_equal(out.error, 8); /* FUSE_NOTIFY_INC_EPOCH: names are asked for again */
}

static void test_nothing_is_told_from_when_the_session_ends(void **state)
{
    struct mount *m = *state;
    struct inode_ids ids = {.at = {7, 9}, .count = 2};
    uint8_t byte;
    notifier_mute(m->notifier);
    notifier_kernel_gone(m->notifier);
    assert_false(notifier_prune(m->notifier, &ids));
    notifier_everything(m->notifier, NULL, 0);
    struct inode_ids some;
    size_t at = 0;
    (void)inode_table_ids(m->inodes, &at, INODE_DIRS, &some);
    assert_true(some.count > 0);
    notifier_pages(m->notifier, some.at[0]);
    notifier_free(m->notifier); /* what was begun is over */
    m->notifier = NULL;
    assert_int_equal(kernel.inodes, 0);
    assert_int_equal(written(&byte, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_everything_is_told_of_all_directories, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_prune_names_the_inodes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directory_that_is_known_again_is_not_believed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_nothing_is_told_from_when_the_session_ends, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
