/* Garbage passes of a node while people work: the store itself is tested in tests/unit/data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/node_test.h"

static void finished(struct call *c, int rc)
{
    struct node_test *t = c->user;
    t->rc = rc;
    t->done = true;
    node_stop(t->n);
}

/* A write while a pass marks: the engine tells of the new content while it is at work, and must not
 * be asked for it then. It was, and went on with memory that was not its own any more. */
static void test_write_while_a_pass_marks(void **state)
{
    struct node_test t;
    (void)state;
    node_test_init(&t, 2);
    struct fs_request q = {.oid = OID_ROOT, .name = slice_str("f"), .mode = 0644, .kind = OID_FILE};
    assert_int_equal(node_test_call(&t, RPC_CREATE, &q), 0);
    q = (struct fs_request){.oid = t.attr.oid, .base = t.attr.version, .has_content = true};
    q.content = (struct content){.kind = CONTENT_INLINE, .size = 3, .bytes = slice_str("abc")};
    t.done = false;
    node_issue(t.n, RPC_COMMIT, &q, finished, &t); /* evaluated in the next turn, */
    node_gc_tick(t.n);                             /* before the pass does its first step */
    assert_false(node_gc_idle(t.n));
    assert_int_equal(node_run(t.n), 0);
    t.n->stopping = false;
    assert_true(t.done);
    assert_int_equal(t.rc, 0);
    q = (struct fs_request){.oid = q.oid};
    assert_int_equal(node_test_call(&t, RPC_CONTENT, &q), 0);
    assert_int_equal(t.data.len, 3);
    assert_memory_equal(t.data.ptr, "abc", 3);
    node_test_deinit(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_while_a_pass_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
