/* Messages between the shards of a site when one of them refuses (S19), and when they may leave
 * (S2). A shard refuses because its journal can make no segment: this process gets no descriptor
 * while descriptors_end() holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "site/intake.h"
#include "site/shard_int.h"
#include "tests/unit/site/node_test.h"

#define SEGMENT_BYTES (256u * KIB)
#define FILES 3u

/* Files in a directory of shard `b`, and a directory of shard `a` where they get other names: that
 * is journaled in `a`, and `b` is told. */
struct fixture {
    struct node_test t;
    shard_id_t a, b;
    struct oid to; /* of shard a */
    struct oid files[FILES];
    struct rlimit limit;
};

static struct oid make(struct node_test *t, enum rpc_type type, struct oid parent, const char *name)
{
    struct fs_request q = {.oid = parent, .name = slice_str(name), .mode = 0755, .kind = OID_FILE};
    assert_int_equal(node_test_call(t, type, &q), 0);
    return t->attr.oid;
}

static void setup(struct fixture *f)
{
    char name[16];
    memset(f, 0, sizeof *f);
    node_test_init_small(&f->t, 2, SEGMENT_BYTES);
    loop_timer_stop(f->t.n->loop, &f->t.n->tick); /* the tests say when something is sent again */
    struct oid first = make(&f->t, RPC_MKDIR, OID_ROOT, "first"), other;
    f->b = oid_shard(first);
    unsigned i = 0;
    do {
        snprintf(name, sizeof name, "d%u", i++);
        other = make(&f->t, RPC_MKDIR, OID_ROOT, name);
    } while (oid_shard(other) == f->b);
    f->a = oid_shard(other);
    f->to = other;
    for (i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "f%u", i);
        f->files[i] = make(&f->t, RPC_CREATE, first, name);
        assert_int_equal(oid_shard(f->files[i]), f->b);
    }
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &f->limit), 0);
}

static void descriptors_end(struct fixture *f, bool end)
{
    struct rlimit none = {.rlim_cur = 0, .rlim_max = f->limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, end ? &none : &f->limit), 0);
}

/* Until the shard refuses the smallest record there is. */
static void fill(struct fixture *f)
{
    struct fs_request q = {.oid = f->files[0], .name = slice_str("user.x"), .data = slice_str("y")};
    descriptors_end(f, true);
    unsigned count = 0;
    while (node_test_call(&f->t, RPC_SETXATTR, &q) == 0)
        assert_true(count++ < 1000);
}

struct link {
    bool done;
    int rc;
};

static void link_finished(struct call *c, int rc)
{
    struct link *l = c->user;
    l->done = true;
    l->rc = rc;
}

static void link_begin(struct fixture *f, unsigned file, const char *name, struct link *l)
{
    struct fs_request q = {.oid = f->files[file], .oid2 = f->to, .name = slice_str(name)};
    *l = (struct link){.done = false};
    node_issue(f->t.n, RPC_LINK, &q, link_finished, l);
}

/* What was asked for before is durable, and then what that made for the other shard. */
static void turn(struct fixture *f)
{
    struct fs_request q = {0};
    assert_int_equal(node_test_call(&f->t, RPC_SYNC, &q), 0);
    assert_int_equal(node_test_call(&f->t, RPC_SYNC, &q), 0);
}

static uint32_t names_of(struct fixture *f, unsigned file)
{
    struct fs_request q = {.oid = f->files[file]};
    assert_int_equal(node_test_call(&f->t, RPC_GETATTR, &q), 0);
    return f->t.attr.nlink;
}

static void fsck_reply(void *ctx, int rc, const char *text)
{
    node_stop(ctx);
    assert_int_equal(rc, 0);
    if (strstr(text, "\"clean\":true") == NULL)
        print_error("fsck: %s\n", text);
    assert_non_null(strstr(text, "\"clean\":true"));
}

static void check_clean(struct fixture *f)
{
    struct node *n = f->t.n;
    node_fsck_online(n, false, false, fsck_reply, n);
    assert_int_equal(node_run(n), 0);
    n->stopping = false;
}

static uint64_t stamp_of_test(void *ctx)
{
    return node_hlc_stamp(ctx);
}

/* A peer's operation may name what was refused, and would wait for it while later ones of other
 * shards show (P7): so none goes by it. */
static void check_batch_waits(struct fixture *f)
{
    uint8_t key = REG_PERM;
    struct perm perm = {.mode = 0755};
    struct buf op = {0}, value = {0};
    struct err_detail d;
    perm_encode(&perm, &value);
    struct effect e = {.kind = EFFECT_SET, .oid = f->to};
    e.set.key = slice_of(&key, 1);
    e.set.value = buf_slice(&value);
    e.set.present = true;
    op_encode(&(struct op){.dot = {.site = 77, .shard = f->a, .seq = 1},
                           .stamp = {.hlc = 1, .site = 77},
                           .effects = &e,
                           .effect_count = 1},
              &op);
    struct apply_item item = {.shard = f->a, .op = buf_slice(&op)};
    uint64_t cursor[2] = {0};
    struct intake_site at = {.shards = f->t.n->shards,
                             .shard_count = 2,
                             .site = f->t.n->settings.site,
                             .stamp = stamp_of_test,
                             .ctx = f->t.n,
                             .parts = f->t.n->parts};
    struct intake_batch batch = {.peer = 77, .items = &item, .count = 1, .cursor = cursor};
    uint64_t last = log_last(shard_log(f->t.n->shards[f->a]));
    assert_int_equal(intake(&at, &batch, &d), ERR_AGAIN);
    assert_int_equal(batch.done, 0);
    assert_int_equal(log_last(shard_log(f->t.n->shards[f->a])), last);
    buf_deinit(&value);
    buf_deinit(&op);
}

/* A link's part is refused; then there is room, and the part of another link comes before the first
 * is sent again. Both must be known in the end, and the first is answered when it is. */
static void test_what_was_refused_is_not_passed(void **state)
{
    struct fixture f;
    struct link first, second;
    (void)state;
    setup(&f);
    fill(&f);
    link_begin(&f, 1, "one", &first);
    turn(&f);
    assert_false(first.done); /* or somebody would find the file with one name */
    assert_true(shard_messages_held(f.t.n->shards[f.a]));
    descriptors_end(&f, false);
    check_batch_waits(&f);
    link_begin(&f, 2, "two", &second);
    turn(&f);
    assert_false(second.done);
    for (unsigned i = 0; i < 2; i++)
        shard_resend(f.t.n->shards[i]); /* as the tick does */
    turn(&f);
    assert_true(first.done && second.done);
    assert_int_equal(first.rc, 0);
    assert_int_equal(second.rc, 0);
    assert_int_equal(names_of(&f, 1), 2);
    assert_int_equal(names_of(&f, 2), 2);
    assert_int_equal(shard_outbox_count(f.t.n->shards[f.a]), 0);
    assert_false(shard_messages_held(f.t.n->shards[f.a]));
    check_clean(&f);
    node_test_deinit(&f.t);
}

/* Sets the mode of a file of shard b by an operation of shard a; it is not durable yet. */
static void propose(struct fixture *f)
{
    struct op_builder b = {0};
    struct proposal none = {0};
    struct perm p = {.mode = 0600};
    struct buf value = {0};
    uint8_t key = REG_PERM;
    op_builder_init(&b);
    perm_encode(&p, &value);
    struct effect *e = op_builder_add(&b, EFFECT_SET, f->files[0]);
    e->set.key = slice_of(&key, 1);
    e->set.value = buf_slice(&value);
    e->set.present = true;
    assert_int_equal(shard_propose(f->t.n->shards[f->a], &b, &none, NULL), 0);
    op_builder_deinit(&b);
    buf_deinit(&value);
}

/* The node is closed while a message is held, and sends it after the start. */
static void test_what_was_refused_comes_after_a_restart(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    fill(&f);
    propose(&f);
    turn(&f);
    assert_int_equal(shard_outbox_count(f.t.n->shards[f.a]), 1);
    descriptors_end(&f, false);
    node_test_close(&f.t);
    node_test_open(&f.t);
    turn(&f);
    assert_int_equal(shard_outbox_count(f.t.n->shards[f.a]), 0);
    struct fs_request q = {.oid = f.files[0]};
    assert_int_equal(node_test_call(&f.t, RPC_GETATTR, &q), 0);
    assert_int_equal(f.t.attr.mode & 07777, 0600);
    check_clean(&f);
    node_test_deinit(&f.t);
}

/* What another shard has of this site's operations in shard a. */
static uint64_t known(struct fixture *f)
{
    return merge_seen(shard_merge(f->t.n->shards[f->b]), f->a, node_site(f->t.n));
}

/* A crash now would lose the operation, and its seq would be given again: nothing of it may be in
 * another shard's journal, also when the tick sends what is due (S2). */
static void test_what_is_not_durable_does_not_leave(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    turn(&f);
    struct shard *a = f.t.n->shards[f.a];
    uint64_t before = known(&f);
    propose(&f);
    shard_resend(a);
    assert_int_equal(known(&f), before);
    turn(&f);
    assert_true(known(&f) > before);
    assert_int_equal(shard_outbox_count(a), 0);
    node_test_deinit(&f.t);
}

/* Who waits for all messages made so far is not told by one of them that overtook the others. */
static void test_passed_when_all_before_are_delivered(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    struct shard *a = f.t.n->shards[f.a];
    assert_int_equal(shard_outbox_count(a), 0);
    propose(&f);
    propose(&f);
    assert_int_equal(shard_outbox_count(a), 2);
    struct outbox *o = &a->outbox[f.b];
    uint64_t second = o->numbers[o->count - 1];
    shard_outbox_note(a);
    shard_delivered(a, f.b, second);
    assert_false(shard_outbox_passed(a));
    shard_delivered(a, f.b, second - 1);
    assert_true(shard_outbox_passed(a));
    turn(&f);
    node_test_deinit(&f.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_refused_is_not_passed),
        cmocka_unit_test(test_what_was_refused_comes_after_a_restart),
        cmocka_unit_test(test_what_is_not_durable_does_not_leave),
        cmocka_unit_test(test_passed_when_all_before_are_delivered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
