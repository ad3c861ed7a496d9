#include "tests/unit/site/node_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void create(struct node_test *t, unsigned shards)
{
    struct err_detail d = {{0}};
    struct site_settings s = {.name = "alpha", .shard_count = shards};
    snprintf(t->dir, sizeof t->dir, "/tmp/claudefs-node-XXXXXX");
    assert_non_null(mkdtemp(t->dir));
    assert_int_equal(site_create(t->dir, &s, NULL, &d), 0);
    node_test_open(t);
}

void node_test_init(struct node_test *t, unsigned shards)
{
    node_test_init_at(t, shards, NULL);
}

void node_test_init_at(struct node_test *t, unsigned shards, const struct clock *clock)
{
    memset(t, 0, sizeof *t);
    t->clock = clock;
    create(t, shards);
}

static uint64_t moved_mono(void *ctx)
{
    return clock_mono_ns(&clock_os) + ((struct node_test *)ctx)->ahead_ns;
}

static uint64_t moved_wall(void *ctx)
{
    return clock_wall_ns(&clock_os) + ((struct node_test *)ctx)->ahead_ns;
}

void node_test_init_moved(struct node_test *t, unsigned shards)
{
    memset(t, 0, sizeof *t);
    t->moved = (struct clock){moved_mono, moved_wall, t};
    t->clock = &t->moved;
    create(t, shards);
}

void node_test_init_small(struct node_test *t, unsigned shards, uint64_t segment_bytes)
{
    memset(t, 0, sizeof *t);
    t->segment_bytes = segment_bytes;
    create(t, shards);
}

void node_test_open(struct node_test *t)
{
    struct err_detail d = {{0}};
    struct node_config nc = {.dir = t->dir,
                             .clock = t->clock != NULL ? t->clock : &clock_os,
                             .journal_segment_bytes = t->segment_bytes};
    int rc = node_open(&t->n, &nc, &d);
    if (rc != 0)
        print_error("%s\n", d.text);
    assert_int_equal(rc, 0);
    assert_int_equal(node_start(t->n, &d), 0);
}

void node_test_close(struct node_test *t)
{
    node_free(t->n);
    t->n = NULL;
}

void node_test_deinit(struct node_test *t)
{
    char cmd[128];
    if (t->n != NULL)
        node_test_close(t);
    buf_deinit(&t->data);
    snprintf(cmd, sizeof cmd, "rm -rf %s", t->dir);
    assert_int_equal(system(cmd), 0);
}

/* The loop stands still, but threads of the pool and of RocksDB may be at work: files come, go and
 * grow, and a copy may have some of before and some of after that. So one counts only if nothing
 * has changed from before it to after it. To close the node first, or to ask RocksDB for a
 * checkpoint, would write down what the process still has in memory. */
void node_test_copy(const struct node_test *t, const char *to)
{
    char *cmd = mem_printf(
        "look() { find %s ! -type d -printf '%%P %%i %%s %%T@\\n' 2>&1 | sort; }\n"
        "for try in $(seq 200); do\n"
        "    was=$(look)\n"
        "    rm -rf %s && cp -a %s %s 2>/dev/null && [ \"$was\" = \"$(look)\" ] && exit 0\n"
        "done\n"
        "exit 1\n",
        t->dir, to, t->dir, to);
    assert_int_equal(system(cmd), 0);
    mem_free(cmd);
}

static void finished(struct call *c, int rc)
{
    struct node_test *t = c->user;
    t->rc = rc;
    t->done = true;
    t->attr = c->reply.attr;
    buf_clear(&t->data);
    for (uint32_t i = 0; i < c->reply.entry_count; i++) {
        buf_append(&t->data, c->reply.entries[i].name.ptr, c->reply.entries[i].name.len);
        buf_append(&t->data, "", 1);
    }
    struct slice s = c->reply.has_content ? c->reply.content.bytes : c->reply.data;
    buf_append(&t->data, s.ptr, s.len);
    node_stop(t->n);
}

int node_test_call(struct node_test *t, enum rpc_type type, const struct fs_request *req)
{
    t->done = false;
    node_issue(t->n, type, req, finished, t);
    assert_int_equal(node_run(t->n), 0);
    assert_true(t->done);
    t->n->stopping = false; /* it only left its loop */
    return t->rc;
}

int node_test_walk(struct node_test *t, const char *path, struct oid *ret)
{
    struct oid at = OID_ROOT;
    while (*path == '/')
        path++;
    while (*path != '\0') {
        size_t len = strcspn(path, "/");
        struct fs_request q = {.oid = at, .name = slice_of(path, len)};
        int rc = node_test_call(t, RPC_LOOKUP, &q);
        if (rc != 0)
            return rc;
        at = t->attr.oid;
        path += len;
        while (*path == '/')
            path++;
    }
    *ret = at;
    return 0;
}

int node_test_parent(struct node_test *t, const char *path, struct oid *ret, struct slice *ret_name)
{
    const char *last = strrchr(path, '/');
    char dir[512];
    assert_non_null(last);
    memcpy(dir, path, (size_t)(last - path));
    dir[last - path] = '\0';
    *ret_name = slice_str(last + 1);
    int rc = node_test_walk(t, dir, ret);
    return rc == 0 && !oid_is_dir(*ret) ? ERR_NOT_DIR : rc;
}
