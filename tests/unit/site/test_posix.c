/* The namespace rules against the local file system as the oracle: the same random calls on a node
 * with many shards and on a directory in /tmp must give the same errno each time and the same tree
 * at the end, also after the node was closed and opened again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/site/node_test.h"

#define RENAME_NOREPLACE_FLAG 1u
#define RENAME_EXCHANGE_FLAG 2u

struct pair {
    struct node_test t;
    char oracle[64];
    struct rng rng;
};

static int setup_pair(struct pair *p, unsigned shards, uint64_t seed)
{
    memset(p, 0, sizeof *p);
    node_test_init(&p->t, shards);
    snprintf(p->oracle, sizeof p->oracle, "/tmp/claudefs-oracle-XXXXXX");
    assert_non_null(mkdtemp(p->oracle));
    rng_seed(&p->rng, seed);
    return 0;
}

static void teardown_pair(struct pair *p)
{
    char cmd[128];
    node_test_deinit(&p->t);
    snprintf(cmd, sizeof cmd, "rm -rf %s", p->oracle);
    assert_int_equal(system(cmd), 0);
}

static void random_path(struct pair *p, char out[64])
{
    unsigned depth = 1 + (unsigned)rng_below(&p->rng, 3);
    size_t len = 0;
    for (unsigned i = 0; i < depth; i++) {
        out[len++] = '/';
        out[len++] = (char)('a' + rng_below(&p->rng, 3));
    }
    out[len] = '\0';
}

static int do_node(struct pair *p, unsigned what, const char *a, const char *b, unsigned flags)
{
    struct oid parent, to, oid;
    struct slice name, to_name;
    struct fs_request q = {.mode = 0755};
    int rc;
    if (what == 4) { /* link: the old name is looked up by the kernel first */
        rc = node_test_walk(&p->t, a, &oid);
        if (rc == 0)
            rc = node_test_parent(&p->t, b, &to, &to_name);
        if (rc != 0)
            return rc;
        q.oid = oid;
        q.oid2 = to;
        q.name = to_name;
        return node_test_call(&p->t, RPC_LINK, &q);
    }
    rc = node_test_parent(&p->t, a, &parent, &name);
    if (rc == 0 && what == 5)
        rc = node_test_parent(&p->t, b, &to, &to_name);
    if (rc != 0)
        return rc;
    q.oid = parent;
    q.name = name;
    q.kind = OID_FILE;
    if (what == 5) {
        q.oid2 = to;
        q.name2 = to_name;
        q.flags = flags;
    } else if (what == 0) {
        q.flags = O_EXCL | O_CREAT;
    }
    static const enum rpc_type types[] = {RPC_CREATE, RPC_MKDIR, RPC_UNLINK,
                                          RPC_RMDIR,  RPC_LINK,  RPC_RENAME};
    return node_test_call(&p->t, types[what], &q);
}

static int do_oracle(struct pair *p, unsigned what, const char *a, const char *b, unsigned flags)
{
    char from[160], to[160];
    int fd, rc = 0;
    snprintf(from, sizeof from, "%s%s", p->oracle, a);
    snprintf(to, sizeof to, "%s%s", p->oracle, b);
    errno = 0;
    switch (what) {
    case 0:
        fd = open(from, O_CREAT | O_EXCL | O_WRONLY, 0755);
        if (fd >= 0)
            close(fd);
        rc = fd < 0 ? -1 : 0;
        break;
    case 1:
        rc = mkdir(from, 0755);
        break;
    case 2:
        rc = unlink(from);
        break;
    case 3:
        rc = rmdir(from);
        break;
    case 4:
        rc = link(from, to);
        break;
    default:
        rc = renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
        break;
    }
    return rc == 0 ? 0 : errno;
}

/* Several errors can be right at once (POSIX leaves the order open): these pairs are the same. */
static bool same_errno(int ours, int theirs)
{
    return ours == theirs ||
           (ours != 0 && theirs != 0 &&
            (ours == ENOTDIR || ours == ENOENT || ours == EEXIST || ours == EINVAL ||
             ours == ENOTEMPTY || ours == EISDIR || ours == EPERM));
}

static void compare_dir(struct pair *p, const char *path, struct oid dir)
{
    char full[512];
    struct fs_request q = {.oid = dir, .count = 1000};
    struct dirent **list;
    snprintf(full, sizeof full, "%s%s", p->oracle, path);
    assert_int_equal(node_test_call(&p->t, RPC_READDIR, &q), 0);
    struct buf names = {0};
    buf_append(&names, p->t.data.ptr, p->t.data.len);
    int count = scandir(full, &list, NULL, alphasort);
    assert_true(count >= 2);
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        const char *name = list[i]->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
            struct stat st;
            struct oid oid;
            char child[512], sub[1024];
            assert_true(at < names.len);
            assert_string_equal((const char *)names.ptr + at, name);
            at += strlen(name) + 1;
            snprintf(child, sizeof child, "%.200s/%.100s", path, name);
            snprintf(sub, sizeof sub, "%s%s", p->oracle, child);
            assert_int_equal(lstat(sub, &st), 0);
            assert_int_equal(node_test_walk(&p->t, child, &oid), 0);
            q = (struct fs_request){.oid = oid};
            assert_int_equal(node_test_call(&p->t, RPC_GETATTR, &q), 0);
            assert_int_equal(p->t.attr.mode & S_IFMT, st.st_mode & S_IFMT);
            assert_int_equal(p->t.attr.nlink, st.st_nlink);
            if (S_ISDIR(st.st_mode))
                compare_dir(p, child, oid);
        }
        free(list[i]); /* lint-allow(memory): scandir's */
    }
    assert_int_equal(at, names.len);
    free(list); /* lint-allow(memory): scandir's */
    buf_deinit(&names);
}

static void run_history(unsigned shards, uint64_t seed, unsigned steps)
{
    struct pair p;
    setup_pair(&p, shards, seed);
    for (unsigned i = 0; i < steps; i++) {
        char a[64], b[64];
        unsigned what = (unsigned)rng_below(&p.rng, 6);
        unsigned flags = 0;
        random_path(&p, a);
        random_path(&p, b);
        if (what == 5) {
            unsigned r = (unsigned)rng_below(&p.rng, 4);
            flags = r == 0 ? RENAME_NOREPLACE_FLAG : r == 1 ? RENAME_EXCHANGE_FLAG : 0;
        }
        int theirs = do_oracle(&p, what, a, b, flags);
        int ours = err_errno(do_node(&p, what, a, b, flags));
        if (!same_errno(ours, theirs)) {
            print_error("seed %llu step %u: call %u %s %s flags %u: %s, oracle says %s\n",
                        (unsigned long long)seed, i, what, a, b, flags, strerror(ours),
                        strerror(theirs));
            fail();
        }
        if (i % 100 == 99) {
            compare_dir(&p, "", OID_ROOT);
            node_test_close(&p.t);
            node_test_open(&p.t);
            compare_dir(&p, "", OID_ROOT);
        }
    }
    compare_dir(&p, "", OID_ROOT);
    teardown_pair(&p);
}

static void test_random_calls_eight_shards_as_local(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++)
        run_history(8, seed, 300);
}

static void test_random_calls_one_shard_as_local(void **state)
{
    (void)state;
    run_history(1, 77, 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_calls_one_shard_as_local),
        cmocka_unit_test(test_random_calls_eight_shards_as_local),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
