/* See return_test.h. */
#include "tests/unit/site/return_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "site/settings.h"

void acknowledge(struct world *w, unsigned site, unsigned other)
{
    uint64_t index[SHARD_COUNT_MAX];
    for (unsigned i = 0; i < w->shards; i++)
        index[i] = log_durable(shard_log(w->sites[site].n->shards[i]));
    node_peer_acked(w->sites[site].n, node_site(w->sites[other].n), index);
    settle(w, site);
}

void carry_out_from(struct world *w,
                    const struct unsent *u,
                    const char *progress,
                    void (*look)(const char *dir))
{
    struct node *n = w->sites[STAYS].n;
    struct err_detail d = {{0}};
    struct buf list = {0};
    char plan[160], *path = mem_printf("%s/return.unsent", w->sites[STAYS].dir);
    unsent_encode(u, &list);
    snprintf(plan, sizeof plan,
             "{\"phase\":\"applying\",\"before\":%u,\"after\":%u,\"rolled_back\":false}",
             node_site(w->sites[BACK].n), node_site(n));
    assert_int_equal(dir_file_write(w->sites[STAYS].dir, "return.unsent", list.ptr, list.len, &d),
                     0);
    assert_int_equal(dir_file_write(w->sites[STAYS].dir, "return.json", plan, strlen(plan), &d), 0);
    if (progress != NULL)
        assert_int_equal(
            dir_file_write(w->sites[STAYS].dir, "return.progress", progress, strlen(progress), &d),
            0);
    assert_int_equal(node_return_open(n, &d), 0);
    if (node_cut(n, node_site(w->sites[BACK].n)) == NULL)
        n->returning->hurries = true; /* nobody has left here */
    for (unsigned rounds = 0; n->returning != NULL; rounds++) {
        assert_true(rounds < 5000 || n->returning->stage == STAGE_STORE); /* that takes a disk */
        if (look != NULL)
            look(w->sites[STAYS].dir);
        n->returning->retry_ns = 0; /* no test waits for that */
        node_return_tick(n);
        settle(w, STAYS);
    }
    assert_int_not_equal(access(path, F_OK), 0); /* nothing was passed over */
    mem_free(path);
    buf_deinit(&list);
}

void carry_out(struct world *w, const struct unsent *u)
{
    carry_out_from(w, u, NULL, NULL);
}

void comes_back(struct world *w)
{
    struct unsent u = {.dirs = NULL};
    settle(w, BACK);
    assert_int_equal(return_collect(w->sites[BACK].n, false, &u), 0);
    carry_out(w, &u);
    w->left[BACK] = true;
    check_equal(w, 0);
    unsent_deinit(&u);
}

void rename_in_root(struct node_test *t, struct slice from, const char *to)
{
    struct fs_request q = {.oid = OID_ROOT, .name = from, .oid2 = OID_ROOT, .name2 = slice_str(to)};
    assert_int_equal(node_test_call(t, RPC_RENAME, &q), 0);
}

struct oid at_path(struct world *w, unsigned site, const char *path)
{
    struct oid oid = {{0}};
    int rc = node_test_walk(&w->sites[site], path, &oid);
    assert_true(rc == 0 || rc == ERR_NOT_FOUND);
    return oid; /* none: nothing is there */
}
