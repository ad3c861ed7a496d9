/* Oids of files: never given twice, whatever is lost with a node; and given again to who had one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>

#include <cmocka.h>

#include "tests/unit/site/node_test.h"

static int make(struct node_test *t, const char *name, struct oid asked)
{
    struct fs_request q = {.oid = OID_ROOT,
                           .oid2 = asked,
                           .name = slice_str(name),
                           .kind = OID_FILE,
                           .mode = 0644,
                           .flags = O_CREAT | O_EXCL};
    return node_test_call(t, RPC_CREATE, &q);
}

static uint64_t number(const uint8_t *at, unsigned len)
{
    uint64_t n = 0;
    while (len-- > 0)
        n = n << 8 | *at++;
    return n;
}

static struct oid counted(struct oid like, uint64_t more)
{
    return oid_file(oid_shard(like), oid_kind(like), (site_id_t)number(like.b + 4, 4),
                    number(like.b + 8, 8) + more);
}

/* All that a node answered and did not write may be lost, and its sequence numbers are used again:
 * the counters of the next one must be higher by more than it may have answered so. */
static void test_the_next_epoch_leaves_room_for_what_may_be_lost(void **state)
{
    struct node_test t;
    (void)state;
    node_test_init(&t, 1);
    assert_int_equal(make(&t, "a", (struct oid){0}), 0);
    struct oid before = t.attr.oid;
    node_test_close(&t);
    node_test_open(&t);
    assert_int_equal(make(&t, "b", (struct oid){0}), 0);
    assert_true(oid_cmp(t.attr.oid, counted(before, 65000)) > 0);
    node_test_deinit(&t);
}

static void test_made_again_under_the_oid_it_had(void **state)
{
    struct node_test t;
    (void)state;
    node_test_init(&t, 1);
    assert_int_equal(make(&t, "a", (struct oid){0}), 0);
    struct oid first = t.attr.oid, lost = counted(first, 1000);
    assert_int_equal(make(&t, "lost", lost), ERR_INVALID); /* this node may still give it */
    node_test_close(&t);
    node_test_open(&t);
    assert_int_equal(make(&t, "lost", lost), 0);
    assert_true(oid_equal(t.attr.oid, lost));
    assert_int_equal(make(&t, "other", lost), ERR_EXISTS);
    assert_int_equal(make(&t, "other", first), ERR_EXISTS);
    struct oid foreign = oid_file(0, OID_FILE, (site_id_t)number(first.b + 4, 4) + 1, 1000);
    assert_int_equal(make(&t, "other", foreign), ERR_INVALID);
    assert_int_equal(make(&t, "other", counted(lost, (uint64_t)1 << 40)), ERR_INVALID);
    struct oid link = oid_file(0, OID_SYMLINK, (site_id_t)number(first.b + 4, 4), 1000);
    assert_int_equal(make(&t, "other", link), ERR_INVALID);
    struct oid found;
    assert_int_equal(node_test_walk(&t, "/other", &found), ERR_NOT_FOUND);
    node_test_deinit(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_next_epoch_leaves_room_for_what_may_be_lost),
        cmocka_unit_test(test_made_again_under_the_oid_it_had),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
