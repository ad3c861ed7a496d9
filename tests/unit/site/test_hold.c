/* New files that a mount holds: others who need one recall it and wait for what ends the hold; what
 * the mount had kept comes with its commit. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "tests/unit/site/node_test.h"

#define A 11u
#define B 12u

struct world {
    struct node_test t;
    uint64_t number;
    struct fs_attr file; /* as it was made */
    /* What B asks. */
    bool done;
    int rc;
    struct fs_attr attr;
};

static void setup(struct world *w)
{
    memset(w, 0, sizeof *w);
    node_test_init(&w->t, 4);
    for (uint64_t id = A; id <= B; id++) {
        assert_int_equal(session_new(w->t.n->sessions, id, loop_now_ns(w->t.n->loop)), 0);
        session_connected(w->t.n->sessions, id);                   /* so that it does not expire */
        session_set_user(w->t.n->sessions, id, mem_calloc(1, 64)); /* no push connection */
    }
}

static void teardown(struct world *w)
{
    session_table_validate(w->t.n->sessions);
    node_test_deinit(&w->t);
}

/* Neither mount is one that does not answer. */
static void answer_pushes(struct world *w)
{
    for (uint64_t id = A; id <= B; id++)
        for (uint64_t push = 1; push < 100; push++)
            (void)session_acked(w->t.n->sessions, id, push); /* most are no push at all */
}

/* A request of A, to its end. */
static int a_does(struct world *w, enum rpc_type type, struct fs_request q)
{
    q.session = A;
    q.number = ++w->number;
    return node_test_call(&w->t, type, &q);
}

static void make(struct world *w, const char *name, uint32_t flags)
{
    struct fs_request q = {.oid = OID_ROOT,
                           .name = slice_str(name),
                           .kind = OID_FILE,
                           .mode = 0600,
                           .uid = 1,
                           .gid = 2,
                           .flags = (uint32_t)O_CREAT | flags};
    session_forget(w->t.n->sessions, B, OID_ROOT); /* else it would have to acknowledge this */
    assert_int_equal(a_does(w, RPC_CREATE, q), 0);
    w->file = w->t.attr;
    assert_int_equal(session_holder(w->t.n->sessions, w->file.oid), flags != 0 ? A : 0);
}

static void b_finished(struct call *c, int rc)
{
    struct world *w = c->user;
    w->done = true;
    w->rc = rc;
    w->attr = c->reply.attr;
}

/* A request of B is looked at, and may wait. */
static void b_asks(struct world *w, enum rpc_type type, struct fs_request q)
{
    q.session = B;
    q.number = ++w->number;
    w->done = false;
    node_issue(w->t.n, type, &q, b_finished, w);
    struct fs_request nothing = {0};
    assert_int_equal(a_does(w, RPC_PING, nothing), 0);
}

static void b_ends(struct world *w)
{
    const struct fs_request nothing = {0};
    while (!w->done) { /* its change may have to be acknowledged by A */
        assert_int_equal(a_does(w, RPC_PING, nothing), 0);
        answer_pushes(w);
    }
}

static struct fs_request commit_of(const struct world *w)
{
    return (struct fs_request){
        .oid = w->file.oid,
        .base = w->file.version,
        .has_content = true,
        .content = {.kind = CONTENT_INLINE, .size = 3, .bytes = slice_str("new")},
        .mtime_ns = w->file.mtime_ns + 5,
        .kept = {.set = SET_KEPT,
                 .mode = 0644,
                 .uid = 7,
                 .gid = 8,
                 .atime_ns = -1,
                 .mtime_ns = 1000000007,
                 .ctime_ns = w->file.ctime_ns + 9}};
}

static void assert_as_committed(const struct world *w, const struct fs_attr *a)
{
    assert_int_equal(a->mode, S_IFREG | 0644);
    assert_int_equal(a->uid, 7);
    assert_int_equal(a->gid, 8);
    assert_true(a->atime_ns == -1 && a->mtime_ns == 1000000007);
    assert_true(a->ctime_ns == w->file.ctime_ns + 9);
    assert_int_equal(a->size, 3);
}

/* What rides in a commit is what a SETATTR after it would have set, in one operation. */
static void test_attributes_ride_in_a_commit(void **state)
{
    struct world w;
    (void)state;
    setup(&w);
    make(&w, "f", CREATE_HOLDS);
    assert_int_equal(a_does(&w, RPC_COMMIT, commit_of(&w)), 0);
    assert_as_committed(&w, &w.t.attr);
    assert_int_equal(session_holder(w.t.n->sessions, w.file.oid), 0);
    /* A later version has a time of its own; rights stay. */
    struct fs_request q = commit_of(&w);
    q.base = w.t.attr.version;
    q.kept = (struct fs_set){0};
    assert_int_equal(a_does(&w, RPC_COMMIT, q), 0);
    assert_int_equal(w.t.attr.mode, S_IFREG | 0644);
    assert_true(w.t.attr.mtime_ns == w.file.mtime_ns + 5);
    teardown(&w);
}

static void test_attributes_of_a_file_without_a_name_ride_too(void **state)
{
    struct world w;
    (void)state;
    setup(&w);
    make(&w, "f", CREATE_HOLDS);
    struct fs_request unlink = {.oid = OID_ROOT, .name = slice_str("f")};
    assert_int_equal(a_does(&w, RPC_UNLINK, unlink), 0);
    assert_int_equal(a_does(&w, RPC_COMMIT, commit_of(&w)), 0);
    assert_int_equal(w.t.attr.mode, S_IFREG | 0644);
    assert_int_equal(w.t.attr.uid, 7);
    assert_int_equal(w.t.attr.nlink, 0);
    teardown(&w);
}

/* A set-id bit that somebody else set meanwhile goes with the owner, as with chown(2). */
static void test_owner_that_rides_takes_set_id_bits_away(void **state)
{
    struct world w;
    (void)state;
    setup(&w);
    make(&w, "f", 0);
    struct fs_request q = {.oid = w.file.oid, .set = SET_MODE, .mode = 06755};
    session_forget(w.t.n->sessions, A, w.file.oid); /* else it would have to acknowledge this */
    assert_int_equal(node_test_call(&w.t, RPC_SETATTR, &q), 0);
    struct fs_request c = commit_of(&w);
    c.kept.set = SET_UID;
    assert_int_equal(a_does(&w, RPC_COMMIT, c), 0);
    assert_int_equal(w.t.attr.mode, S_IFREG | 0755);
    assert_int_equal(w.t.attr.uid, 7);
    teardown(&w);
}

static void test_everything_that_looks_at_the_file_waits_for_the_commit(void **state)
{
    struct world w;
    (void)state;
    setup(&w);
    for (unsigned how = 0; how < 9; how++) {
        char name[8] = {'f', (char)('0' + how)}, other[8] = {'g', (char)('0' + how)};
        make(&w, name, CREATE_HOLDS);
        struct fs_request by_name = {.oid = OID_ROOT, .name = slice_str(name)};
        struct fs_request by_oid = {.oid = w.file.oid};
        switch (how) {
        case 0:
            b_asks(&w, RPC_LOOKUP, by_name);
            break;
        case 1:
            b_asks(&w, RPC_GETATTR, by_oid);
            break;
        case 2:
            b_asks(&w, RPC_OPEN, by_oid);
            break;
        case 3:
            b_asks(&w, RPC_CONTENT, by_oid);
            break;
        case 4:
            by_oid.set = SET_ATIME;
            by_oid.atime_ns = -1;
            b_asks(&w, RPC_SETATTR, by_oid);
            break;
        case 5:
            by_oid.oid2 = OID_ROOT;
            by_oid.name = slice_str(other);
            b_asks(&w, RPC_LINK, by_oid);
            break;
        case 6:
            by_name.kind = OID_FILE;
            by_name.flags = O_CREAT;
            b_asks(&w, RPC_CREATE, by_name);
            break;
        case 7:
            by_name.oid2 = OID_ROOT;
            by_name.name2 = slice_str(other);
            b_asks(&w, RPC_RENAME, by_name);
            break;
        case 8:
            b_asks(&w, RPC_UNLINK, by_name);
            break;
        }
        assert_false(w.done);
        assert_int_equal(session_has_open(w.t.n->sessions, B, w.file.oid), 0);
        uint64_t before = w.t.n->evaluations;
        assert_int_equal(a_does(&w, RPC_COMMIT, commit_of(&w)), 0);
        assert_true(w.t.n->evaluations - before <= 2); /* S24: woken by the event, once */
        b_ends(&w);
        assert_int_equal(w.rc, 0);
        if (how < 4 || how == 6)
            assert_as_committed(&w, &w.attr);
        assert_int_equal(session_has_open(w.t.n->sessions, B, w.file.oid), how == 2 || how == 6);
    }
    teardown(&w);
}

static void test_what_ends_a_hold(void **state)
{
    struct world w;
    (void)state;
    setup(&w);
    for (unsigned how = 0; how < 4; how++) {
        char name[8] = {'f', (char)('0' + how)};
        make(&w, name, CREATE_HOLDS);
        struct fs_request q = {.oid = w.file.oid};
        b_asks(&w, RPC_GETATTR, q);
        assert_false(w.done);
        uint64_t ack = how + 1; /* pushes of A are numbered */
        switch (how) {
        case 0: /* it has nothing to say */
            q = (struct fs_request){.number2 = ack};
            assert_int_equal(a_does(&w, RPC_INVAL_ACK, q), 0);
            break;
        case 1:
            q.set = SET_MODE;
            q.mode = 0644;
            assert_int_equal(a_does(&w, RPC_SETATTR, q), 0);
            break;
        case 2:
            assert_int_equal(a_does(&w, RPC_CLOSE, q), 0);
            break;
        case 3: {
            void *user = session_user(w.t.n->sessions, A);
            assert_int_equal(session_remove(w.t.n->sessions, A), 0);
            mem_free(user);
            break;
        }
        }
        b_ends(&w);
        assert_int_equal(w.rc, 0);
        assert_int_equal(w.attr.mode, S_IFREG | (how == 1 ? 0644 : 0600));
        assert_int_equal(session_holder(w.t.n->sessions, w.file.oid), 0);
    }
    teardown(&w);
}

/* A commit that fails ends nothing: the attributes are still kept. */
static void test_failed_commit_ends_no_hold(void **state)
{
    struct world w;
    (void)state;
    setup(&w);
    make(&w, "f", CREATE_HOLDS);
    struct fs_request q = {.oid = w.file.oid}, c = commit_of(&w);
    c.base.seq += 100;
    b_asks(&w, RPC_GETATTR, q);
    assert_int_equal(a_does(&w, RPC_COMMIT, c), ERR_STALE_BASE);
    assert_false(w.done);
    assert_int_equal(session_holder(w.t.n->sessions, w.file.oid), A);
    assert_int_equal(a_does(&w, RPC_COMMIT, commit_of(&w)), 0);
    b_ends(&w);
    assert_as_committed(&w, &w.attr);
    teardown(&w);
}

struct listed {
    struct world *w;
    unsigned with, without;
};

static void count_listed(struct call *c, int rc)
{
    struct listed *l = c->user;
    l->w->rc = rc;
    l->w->done = true;
    for (uint32_t i = 0; i < c->reply.entry_count; i++) {
        const struct fs_entry *e = &c->reply.entries[i];
        l->with += e->has_attr;
        l->without += !e->has_attr && !oid_is_none(e->attr.oid) && e->attr.ino != 0;
    }
}

/* Listing waits for nobody: others get the names of held files without attributes. */
static void test_listing_leaves_attributes_of_held_files_out(void **state)
{
    struct world w;
    (void)state;
    setup(&w);
    make(&w, "f", CREATE_HOLDS);
    make(&w, "g", 0);
    for (uint64_t id = A; id <= B; id++) {
        struct listed l = {.w = &w};
        struct fs_request q = {.oid = OID_ROOT, .session = id, .count = 10};
        w.done = false;
        node_issue(w.t.n, RPC_READDIR, &q, count_listed, &l);
        b_ends(&w);
        assert_int_equal(l.with, id == A ? 2 : 1);
        assert_int_equal(l.without, id == A ? 0 : 1);
    }
    teardown(&w);
}

/* Who made it, and the node itself, wait for nobody. */
static void test_own_requests_pass(void **state)
{
    struct world w;
    (void)state;
    setup(&w);
    make(&w, "f", CREATE_HOLDS);
    struct fs_request q = {.oid = w.file.oid};
    assert_int_equal(a_does(&w, RPC_GETATTR, q), 0);
    assert_int_equal(a_does(&w, RPC_OPEN, q), 0);
    assert_int_equal(node_test_call(&w.t, RPC_GETATTR, &q), 0);
    assert_int_equal(session_holder(w.t.n->sessions, w.file.oid), A);
    teardown(&w);
}

/* What waits when the node stops goes with it. */
static void test_node_stops_while_somebody_waits(void **state)
{
    struct world w;
    (void)state;
    setup(&w);
    make(&w, "f", CREATE_HOLDS);
    struct fs_request q = {.oid = w.file.oid};
    b_asks(&w, RPC_GETATTR, q);
    assert_false(w.done);
    teardown(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attributes_ride_in_a_commit),
        cmocka_unit_test(test_attributes_of_a_file_without_a_name_ride_too),
        cmocka_unit_test(test_owner_that_rides_takes_set_id_bits_away),
        cmocka_unit_test(test_everything_that_looks_at_the_file_waits_for_the_commit),
        cmocka_unit_test(test_what_ends_a_hold),
        cmocka_unit_test(test_failed_commit_ends_no_hold),
        cmocka_unit_test(test_listing_leaves_attributes_of_held_files_out),
        cmocka_unit_test(test_own_requests_pass),
        cmocka_unit_test(test_node_stops_while_somebody_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
