/* Past versions at a node: listed and restored by path, kept over garbage passes and restarts while
 * their time lasts, and dropped after it, by a clock that the test moves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "data/chunk.h"
#include "site/past_int.h"
#include "tests/unit/site/node_test.h"

#define DAY_NS (86400 * NS_PER_SEC)

struct fixture {
    struct node_test t;
};

static void begin(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    node_test_init_moved(&f->t, 4);
}

/* ---- what a user does ---- */

static int create(struct fixture *f, const char *path)
{
    struct fs_request q = {.kind = OID_FILE, .mode = 0640, .uid = 7, .gid = 8};
    assert_int_equal(node_test_parent(&f->t, path, &q.oid, &q.name), 0);
    return node_test_call(&f->t, RPC_CREATE, &q);
}

static void commit(struct fixture *f, const char *path, const struct content *content)
{
    struct fs_request q = {.has_content = true, .content = *content};
    if (node_test_walk(&f->t, path, &q.oid) == ERR_NOT_FOUND)
        assert_int_equal(create(f, path), 0);
    q.oid = f->t.attr.oid;
    q.base = f->t.attr.version;
    assert_int_equal(node_test_call(&f->t, RPC_COMMIT, &q), 0);
}

static void write_text(struct fixture *f, const char *path, const char *text)
{
    commit(
        f, path,
        &(struct content){.kind = CONTENT_INLINE, .size = strlen(text), .bytes = slice_str(text)});
}

static void at_name(struct fixture *f, enum rpc_type type, const char *path)
{
    struct fs_request q = {.mode = 0755};
    assert_int_equal(node_test_parent(&f->t, path, &q.oid, &q.name), 0);
    assert_int_equal(node_test_call(&f->t, type, &q), 0);
}

static void assert_text(struct fixture *f, const char *path, const char *want)
{
    struct fs_request q = {.mode = 0};
    assert_int_equal(node_test_walk(&f->t, path, &q.oid), 0);
    assert_int_equal(node_test_call(&f->t, RPC_CONTENT, &q), 0);
    assert_int_equal(f->t.data.len, strlen(want));
    assert_memory_equal(f->t.data.ptr, want, strlen(want));
}

/* ---- what an operator does ---- */

static int admin(struct fixture *f, json_t *request /* taken */, json_t **ret)
{
    char *text = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    int rc = node_test_call(&f->t, RPC_ADMIN, &(struct fs_request){.data = slice_str(text)});
    free(text);
    if (ret != NULL)
        *ret = rc == 0 ? json_loadb((const char *)f->t.data.ptr, f->t.data.len, 0, NULL) : NULL;
    return rc;
}

static json_t *versions_of(struct fixture *f, const char *path)
{
    json_t *shown = NULL;
    if (admin(f, json_pack("{s:s,s:s}", "verb", "journal.show", "path", path), &shown) != 0)
        return json_array();
    json_t *list = json_incref(json_object_get(shown, "versions"));
    json_decref(shown);
    return list;
}

/* "state:size ..." of the versions of a path. */
static const char *listed(struct fixture *f, const char *path, char out[256])
{
    json_t *list = versions_of(f, path), *v;
    size_t i, len = 0;
    out[0] = '\0';
    json_array_foreach (list, i, v)
        len += (size_t)snprintf(out + len, 256 - len, "%s:%d ",
                                json_string_value(json_object_get(v, "state")),
                                (int)json_integer_value(json_object_get(v, "size")));
    json_decref(list);
    return out;
}

static int restore(struct fixture *f, const char *path, size_t nth, const char *to)
{
    json_t *list = versions_of(f, path);
    json_t *q = json_pack("{s:s,s:s,s:O}", "verb", "restore", "path", path, "version",
                          json_object_get(json_array_get(list, nth), "version"));
    if (to != NULL)
        (void)json_object_set_new(q, "to", json_string(to));
    int rc = admin(f, q, NULL);
    json_decref(list);
    return rc;
}

static void test_overwritten_is_listed_and_restored(void **state)
{
    (void)state;
    struct fixture f;
    char text[256];
    begin(&f);
    write_text(&f, "/notes", "one");
    write_text(&f, "/notes", "second");
    assert_string_equal(listed(&f, "/notes", text), "current:6 replaced:3 ");
    assert_int_equal(restore(&f, "/notes", 1, "/copy"), 0);
    assert_text(&f, "/copy", "one");
    assert_int_equal(f.t.attr.mode & 07777, 0640);
    assert_int_equal(f.t.attr.uid, 7);
    assert_text(&f, "/notes", "second");
    assert_int_equal(restore(&f, "/notes", 1, NULL), 0);
    assert_text(&f, "/notes", "one");
    /* What was there has become a past version itself. */
    assert_string_equal(listed(&f, "/notes", text), "current:3 replaced:6 replaced:3 ");
    node_test_deinit(&f.t);
}

static void test_removed_comes_back_under_its_path_also_after_a_restart(void **state)
{
    (void)state;
    struct fixture f;
    char text[256];
    begin(&f);
    at_name(&f, RPC_MKDIR, "/d");
    at_name(&f, RPC_MKDIR, "/d/e");
    write_text(&f, "/d/e/x", "precious");
    at_name(&f, RPC_UNLINK, "/d/e/x");
    at_name(&f, RPC_RMDIR, "/d/e");
    at_name(&f, RPC_RMDIR, "/d");
    node_test_close(&f.t);
    node_test_open(&f.t);
    assert_string_equal(listed(&f, "/d/e/x", text), "removed:8 ");
    assert_int_equal(restore(&f, "/d/e/x", 0, NULL), 0);
    assert_text(&f, "/d/e/x", "precious");
    node_test_deinit(&f.t);
}

static void test_renamed_over_and_renamed_away_are_found(void **state)
{
    (void)state;
    struct fixture f;
    char text[256];
    begin(&f);
    write_text(&f, "/x", "one");
    write_text(&f, "/tmp", "second");
    struct fs_request q = {.name = slice_str("tmp"), .name2 = slice_str("x")};
    q.oid = q.oid2 = OID_ROOT;
    assert_int_equal(node_test_call(&f.t, RPC_RENAME, &q), 0);
    assert_string_equal(listed(&f, "/x", text), "current:6 removed:3 ");
    q.name = slice_str("x");
    q.name2 = slice_str("y");
    assert_int_equal(node_test_call(&f.t, RPC_RENAME, &q), 0);
    /* By the name it had: what was replaced there, and by the journal where it is now. */
    assert_string_equal(listed(&f, "/tmp", text), "");
    json_t *shown = NULL;
    assert_int_equal(
        admin(&f, json_pack("{s:s,s:s}", "verb", "journal.show", "path", "/tmp"), &shown), 0);
    assert_true(json_array_size(json_object_get(shown, "history")) >= 3);
    json_decref(shown);
    assert_int_equal(restore(&f, "/x", 0, NULL), 0);
    assert_text(&f, "/x", "one");
    assert_text(&f, "/y", "second");
    node_test_deinit(&f.t);
}

static void test_restore_refuses_with_a_reason(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    write_text(&f, "/x", "one");
    write_text(&f, "/x", "two");
    write_text(&f, "/there", "three");
    at_name(&f, RPC_MKDIR, "/dir");
    assert_int_equal(restore(&f, "/x", 1, "/there"), ERR_EXISTS);
    assert_text(&f, "/there", "three");
    assert_int_equal(restore(&f, "/x", 1, "/there/below"), ERR_NOT_DIR);
    assert_int_equal(restore(&f, "/x", 1, "relative"), ERR_INVALID);
    assert_int_equal(restore(&f, "/x", 1, "/a/../b"), ERR_INVALID);
    static const char *const bad[][2] = {
        {"/x", "nonsense"}, {"/x", "0:00000001:1"}, {"/never", "0:00000001:1"}, {"/", "0:1:1"}};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_not_equal(admin(&f,
                                   json_pack("{s:s,s:s,s:s}", "verb", "restore", "path", bad[i][0],
                                             "version", bad[i][1]),
                                   NULL),
                             0);
    /* Only the node itself may ask in this way. */
    at_name(&f, RPC_UNLINK, "/x");
    at_name(&f, RPC_MKDIR, "/x");
    assert_int_equal(admin(&f, json_pack("{s:s,s:s}", "verb", "restore", "path", "/x"), NULL),
                     ERR_IS_DIR);
    node_test_deinit(&f.t);
}

/* ---- space ---- */

static void chunk_put(void *ctx, int rc)
{
    assert_int_equal(rc, 0);
    *(bool *)ctx = true;
}

static void put_chunk(struct fixture *f, const char *plain, struct content *ret)
{
    struct pipeline *p = NULL;
    struct buf sealed = {.ptr = NULL};
    struct chunk_id id;
    assert_int_equal(pipeline_new(&p, &f->t.n->keys, CHUNK_CIPHER_AUTO), 0);
    assert_int_equal(chunk_seal(p, slice_str(plain), &sealed, &id), 0);
    pipeline_free(p);
    bool done = false;
    node_chunk_put(f->t.n, id.b, buf_slice(&sealed), chunk_put, &done);
    while (!done)
        assert_int_equal(node_test_call(&f->t, RPC_PING, &(struct fs_request){.mode = 0}), 0);
    buf_deinit(&sealed);
    *ret = (struct content){.kind = CONTENT_MANIFEST, .size = strlen(plain), .block_bytes = 65536};
    memcpy(ret->root, id.b, sizeof ret->root);
}

static uint64_t chunks(struct fixture *f)
{
    struct store_stats st;
    store_stats(f->t.n->store, &st);
    return st.chunks;
}

/* Gives a pass the occasion to begin, and lets it run to its end. */
static void garbage_turn(struct fixture *f)
{
    node_gc_tick(f->t.n);
    for (unsigned turn = 0; turn < 20 || !node_gc_idle(f->t.n); turn++)
        assert_int_equal(node_test_call(&f->t, RPC_SYNC, &(struct fs_request){.mode = 0}), 0);
}

/* Garbage passes, each as late as the last one demands; the loop turns while each runs. */
static void garbage_passes(struct fixture *f, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        f->t.ahead_ns += 700 * NS_PER_SEC;
        assert_int_equal(node_test_call(&f->t, RPC_PING, &(struct fs_request){.mode = 0}), 0);
        for (unsigned shard = 0; shard < 4; shard++)
            node_past_tick(f->t.n);
        garbage_turn(f);
    }
}

static void test_garbage_passes_keep_past_versions_until_their_time_is_over(void **state)
{
    (void)state;
    struct fixture f;
    struct content first, second;
    char text[256];
    json_t *st = NULL;
    begin(&f);
    put_chunk(&f, "first content", &first);
    put_chunk(&f, "second content, longer", &second);
    commit(&f, "/x", &first);
    commit(&f, "/x", &second);
    at_name(&f, RPC_UNLINK, "/x");
    garbage_passes(&f, 5);
    assert_int_equal(chunks(&f), 2);
    assert_int_equal(admin(&f, json_pack("{s:s}", "verb", "status"), &st), 0);
    json_t *past = json_object_get(st, "versions");
    assert_int_equal(json_integer_value(json_object_get(past, "keep_s")), 7 * 86400);
    assert_int_equal(json_integer_value(json_object_get(past, "count")), 2);
    assert_int_equal(json_integer_value(json_object_get(past, "content_bytes")), 35);
    assert_int_equal(json_integer_value(json_object_get(past, "space_bytes")), 35);
    json_decref(st);
    assert_int_equal(restore(&f, "/x", 1, NULL), 0);
    f.t.ahead_ns += 7 * DAY_NS;
    garbage_passes(&f, 5);
    assert_string_equal(listed(&f, "/x", text), "current:13 ");
    assert_int_equal(chunks(&f), 1);
    node_test_deinit(&f.t);
}

/* Many records are looked through now and then, not all the time; the setting takes effect at once.
 */
static void test_a_long_walk_is_followed_by_a_rest(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    for (int i = 0; i < 2500; i++) {
        write_text(&f, "/x", "one");
        at_name(&f, RPC_UNLINK, "/x");
    }
    const struct past_walk *w = &f.t.n->past->walks[shard_id(shard_of(f.t.n, OID_ROOT))];
    uint64_t rounds = w->rounds;
    for (unsigned i = 0; i < 1000; i++) /* the first may go by in a rest that the node has begun */
        node_past_tick(f.t.n);
    assert_in_range(w->rounds - rounds, 6, 16); /* 83 without rests */
    assert_int_equal(admin(&f, json_pack("{s:s,s:i}", "verb", "versions.keep", "keep_s", 60), NULL),
                     0);
    rounds = w->rounds;
    for (unsigned i = 0; i < 24; i++)
        node_past_tick(f.t.n);
    assert_true(w->rounds > rounds);
    node_test_deinit(&f.t);
}

static void test_keeping_nothing_drops_all_and_makes_no_more(void **state)
{
    (void)state;
    struct fixture f;
    char text[256];
    begin(&f);
    write_text(&f, "/x", "one");
    write_text(&f, "/x", "second");
    assert_int_equal(admin(&f, json_pack("{s:s,s:i}", "verb", "versions.keep", "keep_s", -1), NULL),
                     ERR_INVALID);
    assert_int_equal(admin(&f, json_pack("{s:s,s:i}", "verb", "versions.keep", "keep_s", 0), NULL),
                     0);
    garbage_passes(&f, 12);
    assert_string_equal(listed(&f, "/x", text), "current:6 ");
    write_text(&f, "/x", "third");
    assert_string_equal(listed(&f, "/x", text), "current:5 ");
    node_test_close(&f.t);
    node_test_open(&f.t);
    json_t *kept = NULL;
    assert_int_equal(admin(&f, json_pack("{s:s}", "verb", "versions.keep"), &kept), 0);
    assert_int_equal(json_integer_value(json_object_get(kept, "keep_s")), 0);
    json_decref(kept);
    node_test_deinit(&f.t);
}

static void setting_kept(void *ctx, int rc)
{
    assert_int_equal(rc, 0);
    *(bool *)ctx = true;
}

/* The setting is a register that any member writes, of whatever version: so large a period that
 * its milliseconds had no room in a number was a short one, and dropped all. */
static void test_a_period_beyond_all_bounds_keeps_versions(void **state)
{
    (void)state;
    struct fixture f;
    char text[256];
    bool kept = false;
    json_t *st = NULL;
    begin(&f);
    write_text(&f, "/x", "one");
    write_text(&f, "/x", "second");
    node_setting_set(f.t.n, "versions_s", UINT64_MAX / 1000 + 2, setting_kept, &kept);
    garbage_passes(&f, 1);
    assert_true(kept);
    f.t.ahead_ns += DAY_NS;
    garbage_passes(&f, 12);
    assert_string_equal(listed(&f, "/x", text), "current:6 replaced:3 ");
    assert_int_equal(admin(&f, json_pack("{s:s}", "verb", "versions.keep"), &st), 0);
    assert_true(json_integer_value(json_object_get(st, "keep_s")) > 99ll * 365 * 86400);
    json_decref(st);
    node_test_deinit(&f.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overwritten_is_listed_and_restored),
        cmocka_unit_test(test_removed_comes_back_under_its_path_also_after_a_restart),
        cmocka_unit_test(test_renamed_over_and_renamed_away_are_found),
        cmocka_unit_test(test_restore_refuses_with_a_reason),
        cmocka_unit_test(test_garbage_passes_keep_past_versions_until_their_time_is_over),
        cmocka_unit_test(test_a_long_walk_is_followed_by_a_rest),
        cmocka_unit_test(test_keeping_nothing_drops_all_and_makes_no_more),
        cmocka_unit_test(test_a_period_beyond_all_bounds_keeps_versions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
