/* Attributes, when a site comes back: all that it said of its files and directories is there, and
 * no more than that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/codec.h"
#include "tests/unit/site/return_test.h"

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

/* A list in which one user has rights of its own; the rest is 0755 with this mask. */
static void acl_make(uint32_t user, uint16_t mask, struct buf *ret)
{
    const struct {
        uint16_t tag, perm;
        uint32_t id;
    } entries[] = {
        {1, 7, UINT32_MAX},     {2, 7, user},        {4, 5, UINT32_MAX},
        {16, mask, UINT32_MAX}, {32, 5, UINT32_MAX},
    };
    buf_clear(ret);
    enc_u32(ret, 2);
    for (unsigned i = 0; i < ARRAY_COUNT(entries); i++) {
        enc_u16(ret, entries[i].tag);
        enc_u16(ret, entries[i].perm);
        enc_u32(ret, entries[i].id);
    }
}

static void set(struct world *w, unsigned site, struct oid oid, const char *name, struct slice data)
{
    struct fs_request q = {.oid = oid, .name = slice_str(name), .data = data};
    assert_int_equal(node_test_call(&w->sites[site], RPC_SETXATTR, &q), 0);
}

static void check(struct world *w, const char *path, const char *name, struct slice data)
{
    struct node_test *t = &w->sites[STAYS];
    struct fs_request q = {.oid = at_path(w, STAYS, path), .name = slice_str(name), .size = 4096};
    assert_int_equal(node_test_call(t, RPC_GETXATTR, &q), 0);
    assert_true(slice_equal(buf_slice(&t->data), data));
}

/* One that all know, and one that is made; the lists are equally long, so each is taken for what it
 * is by its bytes only. */
static void test_both_lists_of_a_directory_are_brought(void **state)
{
    static const char *const paths[] = {"/d", "/e"};
    struct world w;
    struct buf access = {0}, fallback = {0};
    (void)state;
    acl_make(1000, 5, &access);
    acl_make(1001, 7, &fallback);
    world_init(&w, 2, 4, 1);
    call_path(&w, STAYS, RPC_MKDIR, "/d");
    drain(&w);
    acknowledge(&w, BACK, STAYS);
    call_path(&w, BACK, RPC_MKDIR, "/e");
    for (unsigned i = 0; i < 2; i++) {
        struct oid dir = at_path(&w, BACK, paths[i]);
        set(&w, BACK, dir, ACCESS, buf_slice(&access));
        set(&w, BACK, dir, DEFAULT, buf_slice(&fallback));
        set(&w, BACK, dir, "user.a", slice_str("x"));
    }
    comes_back(&w);
    for (unsigned i = 0; i < 2; i++) {
        check(&w, paths[i], ACCESS, buf_slice(&access));
        check(&w, paths[i], DEFAULT, buf_slice(&fallback));
        check(&w, paths[i], "user.a", slice_str("x"));
    }
    buf_deinit(&access);
    buf_deinit(&fallback);
    world_deinit(&w);
}

/* ---- privileges ---- */

#define CAPS "security.capability"

static void chmod_at(struct world *w, unsigned site, const char *path, uint32_t mode)
{
    struct fs_request q = {.oid = at_path(w, site, path), .set = SET_MODE, .mode = mode};
    assert_int_equal(node_test_call(&w->sites[site], RPC_SETATTR, &q), 0);
}

/* By somebody without the privilege to keep them. */
static void write_at(struct world *w, unsigned site, const char *path, const char *text)
{
    struct node_test *t = &w->sites[site];
    struct fs_request q = {.oid = at_path(w, site, path)};
    assert_int_equal(node_test_call(t, RPC_GETATTR, &q), 0);
    q.base = t->attr.version;
    q.flags = COMMIT_KILL_SETID;
    q.has_content = true;
    q.content.kind = CONTENT_INLINE;
    q.content.bytes = slice_str(text);
    q.content.size = q.content.bytes.len;
    assert_int_equal(node_test_call(t, RPC_COMMIT, &q), 0);
    assert_int_equal(t->rc, 0);
}

static void check_mode(struct world *w, const char *path, uint32_t mode)
{
    struct node_test *t = &w->sites[STAYS];
    struct fs_request q = {.oid = at_path(w, STAYS, path)};
    assert_int_equal(node_test_call(t, RPC_GETATTR, &q), 0);
    assert_int_equal(t->attr.mode & 07777, mode);
}

/* All know /f, with this mode, and what is in it. */
static void begin(struct world *w, uint32_t mode)
{
    world_init(w, 2, 4, 1);
    call_path(w, STAYS, RPC_CREATE, "/f");
    write_at(w, STAYS, "/f", "0");
    chmod_at(w, STAYS, "/f", mode);
    drain(w);
    acknowledge(w, BACK, STAYS);
}

static void test_privileges_are_brought(void **state)
{
    static const uint8_t caps[] = {1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    struct slice value = slice_of(caps, sizeof caps);
    struct world w;
    (void)state;
    begin(&w, 0755);
    call_path(&w, BACK, RPC_CREATE, "/g");
    write_at(&w, BACK, "/g", "1");
    chmod_at(&w, BACK, "/f", 06755);
    chmod_at(&w, BACK, "/g", 04755);
    set(&w, BACK, at_path(&w, BACK, "/f"), CAPS, value);
    set(&w, BACK, at_path(&w, BACK, "/g"), CAPS, value);
    comes_back(&w);
    check_mode(&w, "/f", 06755);
    check_mode(&w, "/g", 04755);
    check(&w, "/f", CAPS, value);
    check(&w, "/g", CAPS, value);
    world_deinit(&w);
}

static void test_privileges_that_a_write_ended_do_not_come_again(void **state)
{
    struct world w;
    (void)state;
    begin(&w, 0755);
    call_path(&w, BACK, RPC_CREATE, "/g");
    write_at(&w, BACK, "/g", "1");
    chmod_at(&w, BACK, "/f", 04755);
    chmod_at(&w, BACK, "/g", 04755);
    write_at(&w, BACK, "/f", "2");
    write_at(&w, BACK, "/g", "2");
    comes_back(&w);
    check_mode(&w, "/f", 0755);
    check_mode(&w, "/g", 0755);
    world_deinit(&w);
}

static void test_privileges_of_all_do_not_hold_for_what_was_written_while_away(void **state)
{
    struct world w;
    (void)state;
    begin(&w, 04755);
    write_at(&w, BACK, "/f", "1");
    comes_back(&w);
    check_mode(&w, "/f", 0755);
    world_deinit(&w);
}

static void test_privileges_do_not_hold_for_what_others_wrote_since(void **state)
{
    struct world w;
    (void)state;
    begin(&w, 0755);
    write_at(&w, STAYS, "/f", "1");
    chmod_at(&w, BACK, "/f", 04751);
    comes_back(&w);
    check_mode(&w, "/f", 0751);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_lists_of_a_directory_are_brought),
        cmocka_unit_test(test_privileges_are_brought),
        cmocka_unit_test(test_privileges_that_a_write_ended_do_not_come_again),
        cmocka_unit_test(test_privileges_of_all_do_not_hold_for_what_was_written_while_away),
        cmocka_unit_test(test_privileges_do_not_hold_for_what_others_wrote_since),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
