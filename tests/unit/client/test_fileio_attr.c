/* Attributes of a file that was just made: which are kept, what shows meanwhile, and with which
 * request they go. The site is a function that notes what it is asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/clock.h"
#include "client/fileio.h"

struct seen {
    uint16_t type;
    struct fs_request req; /* without what it points to */
};
struct fixture {
    struct conn *conn;
    struct inode_table *inodes;
    struct inode_clock clock;
    struct flight flight;
    struct fileio *io;
    struct inode *i;
    struct open_file *h;
    struct seen seen[16];
    unsigned count;
    int fail; /* so many changes fail, with `fail_rc` */
    int fail_rc;
    struct fs_attr attr; /* of the file, at the site */
};

static const struct fs_set tar = {
    .set = SET_KEPT, .mode = 0644, .uid = 7, .gid = 8, .atime_ns = 1, .mtime_ns = 1000000007};

static int answer(void *ctx, struct conn_call *call)
{
    struct fixture *f = ctx;
    call->reply = (struct fs_reply){.has_attr = true, .attr = f->attr};
    if (call->type != RPC_COMMIT && call->type != RPC_SETATTR)
        return call->type == RPC_CLOSE ? 0 : ERR_INVALID;
    assert_true(f->count < ARRAY_COUNT(f->seen));
    f->seen[f->count].type = call->type;
    f->seen[f->count++].req = call->req;
    if (f->fail > 0) {
        f->fail--;
        return f->fail_rc;
    }
    if (call->type == RPC_COMMIT)
        f->attr.version.seq++;
    call->reply.attr = f->attr;
    return 0;
}

static void on_evicted(void *ctx, struct inode *i)
{
    struct fixture *f = ctx;
    file_evict(f->io, i);
}

static void on_pages(void *ctx, struct inode *i)
{
    (void)ctx;
    (void)i;
}

static void on_conflict(void *ctx, struct flight_job *job)
{
    (void)ctx;
    (void)job;
}

/* The site has made the file. */
static void make(struct fixture *f)
{
    uint64_t since = inode_clock_now(&f->clock);
    const struct fs_reply r = {.has_attr = true,
                               .attr = f->attr,
                               .has_content = true,
                               .content = {.kind = CONTENT_INLINE}};
    f->i = inode_table_enter(f->inodes, f->attr.oid, oid_ino(f->attr.oid), 1);
    f->h = file_created(f->io, f->i, 0, &r, since);
    file_keep_begin(f->io, f->i, since);
}

static int setup(void **state)
{
    static const uint8_t key[32] = {1, 2, 3};
    struct fixture *f = mem_calloc(1, sizeof *f);
    f->attr = (struct fs_attr){.oid = oid_file(1, OID_FILE, 7, 1),
                               .mode = S_IFREG | 0600,
                               .uid = 1,
                               .gid = 2,
                               .nlink = 1,
                               .version = {.seq = 1, .site = 7, .shard = 1}};
    f->attr.ino = oid_ino(f->attr.oid);
    f->conn = conn_open_local(answer, f);
    inode_clock_init(&f->clock);
    flight_init(&f->flight, on_conflict, NULL);
    f->inodes = inode_table_new(on_evicted, f);
    struct fileio_config config = {.conn = f->conn,
                                   .clock = &clock_os,
                                   .inodes = f->inodes,
                                   .inode_clock = &f->clock,
                                   .flight = &f->flight,
                                   .fs_key = key,
                                   .memory_bytes = 32u << 20,
                                   .worker_count = 2,
                                   .commit_age_ms = 1000000,
                                   .pages_changed = on_pages,
                                   .ctx = f};
    assert_int_equal(fileio_new(&f->io, &config), 0);
    make(f);
    *state = f;
    return 0;
}

static void done(struct fixture *f)
{
    if (f->h == NULL)
        return;
    file_close(f->io, f->h);
    inode_table_forget(f->inodes, f->i->id, 1);
    inode_unref(f->inodes, f->i);
    f->h = NULL;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    done(f);
    assert_int_equal(fileio_sync_all(f->io), 0);
    fileio_stop(f->io);
    inode_table_free(f->inodes);
    fileio_free(f->io);
    flight_deinit(&f->flight);
    inode_clock_deinit(&f->clock);
    conn_free(f->conn);
    mem_free(f);
    return 0;
}

static void put(struct fixture *f, const char *text)
{
    assert_int_equal(file_write(f->io, f->i, 0, slice_str(text), 0), 0);
}

static bool keep(struct fixture *f, struct fs_set s)
{
    return file_keep(f->i, &f->attr, &s);
}

static void assert_sent(const struct fixture *f, unsigned at, const struct fs_set *s)
{
    const struct fs_request *r = &f->seen[at].req;
    bool commit = f->seen[at].type == RPC_COMMIT;
    const struct fs_set got = {.set = commit ? r->kept.set : r->set,
                               .mode = commit ? r->kept.mode : r->mode,
                               .uid = commit ? r->kept.uid : r->uid,
                               .gid = commit ? r->kept.gid : r->gid,
                               .mtime_ns = commit ? r->kept.mtime_ns : r->mtime_ns};
    assert_int_equal(got.set, s->set);
    if ((s->set & SET_MODE) != 0)
        assert_int_equal(got.mode, s->mode);
    if ((s->set & SET_UID) != 0)
        assert_int_equal(got.uid, s->uid);
    if ((s->set & SET_GID) != 0)
        assert_int_equal(got.gid, s->gid);
    if ((s->set & SET_MTIME) != 0)
        assert_true(got.mtime_ns == s->mtime_ns);
}

/* tar x: one request for content and attributes, the later of two settings counts. */
static void test_attributes_go_with_the_commit(void **state)
{
    struct fixture *f = *state;
    struct fs_attr a = f->attr;
    put(f, "new");
    assert_true(keep(f, (struct fs_set){.set = SET_MODE | SET_MTIME, .mode = 0777, .mtime_ns = 5}));
    assert_true(keep(f, tar));
    assert_int_equal(f->count, 0);
    assert_true(file_overlay(f->i, &a));
    assert_int_equal(a.mode, S_IFREG | 0644);
    assert_int_equal(a.uid, 7);
    assert_int_equal(a.gid, 8);
    assert_int_equal(a.size, 3);
    assert_true(a.atime_ns == 1 && a.mtime_ns == 1000000007 && a.ctime_ns > 1000000007);
    assert_int_equal(file_flush(f->io, f->i), 0);
    assert_int_equal(f->count, 1);
    assert_int_equal(f->seen[0].type, RPC_COMMIT);
    assert_sent(f, 0, &tar);
    assert_true(f->seen[0].req.kept.ctime_ns == a.ctime_ns);
    assert_false(file_overlay(f->i, &a));
    assert_false(file_is_dirty(f->i));
    assert_false(keep(f, tar)); /* it is not held any more */
    done(f);
    assert_int_equal(f->count, 1);
}

static void test_attributes_of_an_empty_file_go_at_close(void **state)
{
    struct fixture *f = *state;
    assert_true(keep(f, tar));
    assert_true(file_is_dirty(f->i)); /* so the flusher looks at it */
    done(f);
    assert_int_equal(f->count, 1);
    assert_int_equal(f->seen[0].type, RPC_SETATTR);
    assert_sent(f, 0, &tar);
}

/* A write is later than a time that was set before it. */
static void test_write_takes_the_time_that_was_set_away(void **state)
{
    struct fixture *f = *state;
    struct fs_attr a = f->attr;
    const struct fs_set rest = {.set = SET_KEPT & ~SET_MTIME, .mode = 0644, .uid = 7, .gid = 8};
    put(f, "new");
    assert_true(keep(f, tar));
    put(f, "more");
    assert_true(file_overlay(f->i, &a));
    assert_true(a.mtime_ns > 1000000007);
    assert_int_equal(file_flush(f->io, f->i), 0);
    assert_sent(f, 0, &rest);
    assert_true(f->seen[0].req.mtime_ns == a.mtime_ns);
}

/* Asked for by the site: the attributes alone, at once. The content follows later, and as it is
 * older than the time that was set, its commit says that again. */
static void test_settled_before_the_content(void **state)
{
    struct fixture *f = *state;
    const struct fs_set time = {.set = SET_MTIME, .mtime_ns = 1000000007};
    struct fs_attr a = f->attr;
    put(f, "new");
    assert_true(keep(f, tar));
    assert_int_equal(file_settle(f->i), 0);
    assert_int_equal(f->count, 1);
    assert_int_equal(f->seen[0].type, RPC_SETATTR);
    assert_sent(f, 0, &tar);
    assert_false(keep(f, tar));
    assert_true(file_overlay(f->i, &a));
    assert_true(a.mtime_ns == 1000000007);
    assert_int_equal(file_sync(f->io, f->i), 0);
    assert_int_equal(f->count, 2);
    assert_int_equal(f->seen[1].type, RPC_COMMIT);
    assert_sent(f, 1, &time);
    assert_int_equal(file_settle(f->i), 0); /* nothing more to say */
    assert_int_equal(f->count, 2);
}

static void test_what_is_not_kept(void **state)
{
    struct fixture *f = *state;
    struct fs_attr a = f->attr;
    assert_false(keep(f, (struct fs_set){.set = SET_MODE, .mode = 04755}));
    assert_false(keep(f, (struct fs_set){.set = SET_SIZE}));
    assert_false(keep(f, (struct fs_set){0}));
    a.has_acl = true;
    assert_false(file_keep(f->i, &a, &tar));
    a = f->attr;
    a.mode |= S_ISGID;
    assert_false(file_keep(f->i, &a, &tar));
    assert_false(file_overlay(f->i, &a));
    assert_true(keep(f, tar));
    assert_true(file_keep_end(f->i));
    assert_false(keep(f, tar));
    assert_true(file_is_dirty(f->i)); /* what was kept before goes its way */
}

/* Recalled, or the site was away, before the answer to CREATE was looked at. */
static void test_file_that_was_recalled_before_it_was_known(void **state)
{
    struct fixture *f = *state;
    uint64_t since = inode_clock_now(&f->clock);
    inode_clock_hit(&f->clock, f->attr.oid);
    file_keep_begin(f->io, f->i, since);
    assert_false(keep(f, tar));
}

static void test_failed_commit_keeps_them(void **state)
{
    struct fixture *f = *state;
    struct fs_attr a = f->attr;
    put(f, "new");
    assert_true(keep(f, tar));
    f->fail = 1;
    f->fail_rc = ERR_NO_SPACE;
    assert_int_equal(file_flush(f->io, f->i), ERR_NO_SPACE);
    assert_int_equal(file_error(f->h), ERR_NO_SPACE);
    assert_true(file_overlay(f->i, &a));
    assert_int_equal(a.mode, S_IFREG | 0644);
    assert_int_equal(file_flush(f->io, f->i), 0);
    assert_int_equal(f->count, 2);
    assert_sent(f, 1, &tar);
}

/* Set alone it fails: said once to the handle, tried again at the next flush. */
static void test_failed_setting_is_reported_and_tried_again(void **state)
{
    struct fixture *f = *state;
    assert_true(keep(f, tar));
    f->fail = 1;
    f->fail_rc = ERR_NO_SPACE;
    assert_int_equal(file_settle(f->i), ERR_NO_SPACE);
    assert_int_equal(file_error(f->h), ERR_NO_SPACE);
    assert_int_equal(file_error(f->h), 0);
    assert_int_equal(file_flush(f->io, f->i), 0);
    assert_int_equal(f->count, 2);
    assert_sent(f, 1, &tar);
    assert_false(file_is_dirty(f->i));
}

/* What can never succeed is dropped after it was reported. */
static void test_setting_of_a_file_that_is_gone(void **state)
{
    struct fixture *f = *state;
    assert_true(keep(f, tar));
    f->fail = 1;
    f->fail_rc = ERR_STALE;
    assert_int_equal(file_flush(f->io, f->i), ERR_STALE);
    assert_int_equal(file_error(f->h), ERR_STALE);
    assert_false(file_is_dirty(f->i));
    assert_int_equal(f->count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_attributes_go_with_the_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attributes_of_an_empty_file_go_at_close, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_write_takes_the_time_that_was_set_away, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_settled_before_the_content, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_that_was_recalled_before_it_was_known, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_failed_commit_keeps_them, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_setting_is_reported_and_tried_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_setting_of_a_file_that_is_gone, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
