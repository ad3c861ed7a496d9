/* The data path against a small site in memory: versions, stale bases, chunks. Two mounts of one
 * site, each with its own caches, change the same files; what both did must be there. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limits.h"
#include "client/fileio_int.h"
#include "tests/unit/client/fileio_world.h"

#define BIG (3u * 1024u * 1024u)

static void test_small_file_is_one_inline_commit(void **state)
{
    struct fixture *x = *state;
    struct open_file *h = open_nth(&x->a, 0);
    put(&x->a, h, 0, "hello ", 6);
    put(&x->a, h, 6, "world", 5);
    check(&x->a, h, 0, "hello world", 11);
    assert_int_equal(x->site.commits, 0);
    assert_true(file_is_dirty(h->inode));
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_false(file_is_dirty(h->inode));
    assert_int_equal(x->site.commits, 1);
    assert_int_equal(x->site.puts, 0);
    assert_int_equal(x->site.files[0].content.size, 11);
    done(&x->a, h);
    h = open_nth(&x->b, 0);
    check(&x->b, h, 0, "hello world", 11);
    done(&x->b, h);
}

static void test_large_file_round_trip(void **state)
{
    struct fixture *x = *state;
    uint8_t *data = mem_alloc(BIG);
    struct rng r;
    rng_seed(&r, 3);
    for (size_t i = 0; i < BIG; i++)
        data[i] = (uint8_t)rng_next(&r);
    struct open_file *h = open_nth(&x->a, 0);
    for (size_t at = 0; at < BIG; at += 100000)
        put(&x->a, h, at, data + at, MIN(100000, BIG - at));
    done(&x->a, h);
    assert_int_equal(x->site.files[0].content.kind, CONTENT_MANIFEST);
    h = open_nth(&x->b, 0);
    check(&x->b, h, 0, data, BIG);
    check(&x->b, h, 65530, data + 65530, 20);
    /* One byte in the middle: one block and its path in the manifest. */
    uint64_t before = x->site.puts;
    data[BIG / 2] ^= 1;
    put(&x->b, h, BIG / 2, data + BIG / 2, 1);
    assert_int_equal(file_flush(x->b.io, h->inode), 0);
    assert_true(x->site.puts - before <= 3);
    check(&x->b, h, 0, data, BIG);
    done(&x->b, h);
    mem_free(data);
}

/* Blocks and nodes of a small change travel with the commit: one request, and no question. */
static void test_small_change_of_large_file_is_one_request(void **state)
{
    struct fixture *x = *state;
    struct open_file *h = open_nth(&x->a, 0);
    uint8_t *big = mem_alloc(BIG);
    memset(big, 7, BIG);
    put(&x->a, h, 0, big, BIG);
    assert_int_equal(file_sync(x->a.io, h->inode), 0);
    uint64_t before = x->site.requests;
    put(&x->a, h, 1000000, "changed", 7);
    assert_int_equal(file_sync(x->a.io, h->inode), 0);
    assert_int_equal(x->site.requests, before + 1);
    assert_int_equal(x->site.rides, 2);
    put(&x->a, h, 10, "to be refused", 13);
    x->site.fail_commits = 1;
    assert_int_equal(file_sync(x->a.io, h->inode), ERR_NO_SPACE);
    assert_int_equal(file_sync(x->a.io, h->inode), 0);
    memcpy(big + 1000000, "changed", 7);
    memcpy(big + 10, "to be refused", 13);
    done(&x->a, h);
    h = open_nth(&x->b, 0);
    check(&x->b, h, 0, big, BIG);
    done(&x->b, h);
    mem_free(big);
}

/* Small changes of large blocks, until cutting the file anew has paid; its bytes and holes stay. */
static void test_file_that_is_changed_here_and_there_gets_small_blocks(void **state)
{
    struct fixture *x = *state;
    const size_t len = 6u << 20, hole = 2u << 20;
    struct open_file *h = open_nth(&x->a, 0);
    uint8_t *big = mem_calloc(len, 1);
    for (size_t i = 0; i < len; i++)
        big[i] = i < hole ? 0 : (uint8_t)(i * 7 + (i >> 16));
    put(&x->a, h, hole, big + hole, len - hole);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(x->site.files[0].content.block_bytes, MIB);
    for (size_t i = 0; i < 8; i++) {
        size_t at = hole + i * 500000;
        memcpy(big + at, "page", 4);
        put(&x->a, h, at, "page", 4);
        assert_int_equal(file_flush(x->a.io, h->inode), 0);
    }
    assert_int_equal(x->site.files[0].content.block_bytes, 64 * KIB);
    assert_int_equal(x->site.files[0].content.data_blocks, (len - hole) / (64 * KIB));
    done(&x->a, h);
    h = open_nth(&x->b, 0);
    check(&x->b, h, 0, big, len);
    /* Written anew as a whole, it is cut as any file of its length. */
    assert_int_equal(file_truncate(x->b.io, h->inode, 0, 0), 0);
    put(&x->b, h, 0, big, len);
    assert_int_equal(file_flush(x->b.io, h->inode), 0);
    assert_int_equal(x->site.files[0].content.block_bytes, MIB);
    done(&x->b, h);
    mem_free(big);
}

/* Who jumps about in a large file and reads a little gets a little, whatever its form, until most
 * of a chunk was wanted; nothing that is damaged is believed. */
static void reads_parts(struct fixture *x, bool compressible)
{
    const size_t len = 8u << 20;
    uint8_t *big = make_bytes(len, compressible);
    struct open_file *h = open_nth(&x->a, 0);
    assert_int_equal(file_truncate(x->a.io, h->inode, 0, 0), 0);
    put(&x->a, h, 0, big, len);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(x->site.files[0].content.block_bytes, MIB);
    done(&x->a, h);
    told(&x->b, 0);
    h = open_nth(&x->b, 0);
    uint64_t before = x->site.served;
    check(&x->b, h, 5000000, big + 5000000, 4096);
    check(&x->b, h, 3000000, big + 3000000, 4096);
    check(&x->b, h, 3 * MIB - 2048, big + 3 * MIB - 2048, 4096); /* over a border */
    check(&x->b, h, 16384 * 7 - 100, big + 16384 * 7 - 100, 200);
    assert_true(x->site.served - before < 200000);
    before = x->site.served;
    check(&x->b, h, 5000100, big + 5000100, 1000); /* of a part that is here */
    assert_int_equal(x->site.served, before);
    x->site.spoil = true;
    check(&x->b, h, 6000000, big + 6000000, 4096);
    check(&x->b, h, 1000, big + 1000, 4096);
    x->site.spoil = false;
    for (size_t at = 4 * MIB + 900000; at > 4 * MIB; at -= 30000)
        check(&x->b, h, at, big + at, 4096);
    before = x->site.served;
    check(&x->b, h, 4 * MIB + 7, big + 4 * MIB + 7, 900000);
    assert_int_equal(x->site.served, before); /* the whole chunk is here by now */
    done(&x->b, h);
    mem_free(big);
}

static void test_small_reads_here_and_there_fetch_parts(void **state)
{
    reads_parts(*state, false);
    reads_parts(*state, true);
}

static void test_sparse_file_begins_with_small_blocks(void **state)
{
    struct fixture *x = *state;
    struct open_file *h = open_nth(&x->a, 0);
    assert_int_equal(file_truncate(x->a.io, h->inode, 1u << 30, 0), 0);
    put(&x->a, h, 777u << 20, "superblock", 10);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(x->site.files[0].content.block_bytes, 64 * KIB);
    check(&x->a, h, 777u << 20, "superblock", 10);
    done(&x->a, h);
}

static void test_both_mounts_ranges_are_kept(void **state)
{
    struct fixture *x = *state;
    struct open_file *ha = open_nth(&x->a, 0), *hb = open_nth(&x->b, 0);
    uint8_t zeros[100000] = {0};
    put(&x->a, ha, 99999, "", 1);
    assert_int_equal(file_flush(x->a.io, ha->inode), 0);
    told(&x->b, 0);
    check(&x->b, hb, 0, zeros, sizeof zeros);
    put(&x->a, ha, 10, "from a", 6);
    put(&x->b, hb, 20, "from b", 6);
    put(&x->b, hb, 70000, "b again", 7);
    assert_int_equal(file_flush(x->a.io, ha->inode), 0);
    assert_int_equal(file_flush(x->b.io, hb->inode), 0);
    assert_int_equal(x->site.stale, 1);
    assert_int_equal(x->b.pages_changed, 1); /* the kernel there is told of a's bytes */
    check(&x->b, hb, 10, "from a", 6);
    told(&x->a, 0);
    check(&x->a, ha, 20, "from b", 6);
    check(&x->a, ha, 70000, "b again", 7);
    check(&x->a, ha, 10, "from a", 6);
    done(&x->a, ha);
    done(&x->b, hb);
}

static void test_appends_of_both_mounts_are_kept(void **state)
{
    struct fixture *x = *state;
    struct open_file *ha = open_nth(&x->a, 0), *hb = open_nth(&x->b, 0);
    struct slice a = slice_str("aaaa"), b = slice_str("bb");
    for (int i = 0; i < 10; i++) {
        assert_int_equal(file_write(x->a.io, ha->inode, 0, a, FILE_WRITE_APPEND), 0);
        assert_int_equal(file_write(x->b.io, hb->inode, 0, b, FILE_WRITE_APPEND), 0);
        assert_int_equal(file_flush(x->a.io, ha->inode), 0);
        assert_int_equal(file_flush(x->b.io, hb->inode), 0);
    }
    assert_int_equal(x->site.files[0].content.size, 60);
    unsigned as = 0, bs = 0;
    for (size_t i = 0; i < 60; i++) {
        as += x->site.files[0].content.bytes.ptr[i] == 'a';
        bs += x->site.files[0].content.bytes.ptr[i] == 'b';
    }
    assert_int_equal(as, 40);
    assert_int_equal(bs, 20);
    done(&x->a, ha);
    done(&x->b, hb);
}

static void test_failed_commit_is_reported_once_and_tried_again(void **state)
{
    struct fixture *x = *state;
    struct open_file *h = open_nth(&x->a, 0), *other = open_nth(&x->a, 0);
    put(&x->a, h, 0, "data", 4);
    x->site.fail_commits = 1;
    assert_int_equal(file_flush(x->a.io, h->inode), ERR_NO_SPACE);
    assert_int_equal(file_error(h), ERR_NO_SPACE);
    assert_int_equal(file_error(h), 0);
    assert_int_equal(file_error(other), ERR_NO_SPACE); /* each handle hears of it */
    check(&x->a, h, 0, "data", 4);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(x->site.files[0].content.size, 4);
    done(&x->a, h);
    done(&x->a, other);
}

static void test_cut_and_extend_reads_zeros(void **state)
{
    struct fixture *x = *state;
    struct open_file *h = open_nth(&x->a, 0);
    uint8_t *data = mem_alloc(300000), *zeros = mem_calloc(1, 300000);
    memset(data, 7, 300000);
    put(&x->a, h, 0, data, 300000);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(file_truncate(x->a.io, h->inode, 70001, 0), 0);
    assert_int_equal(file_truncate(x->a.io, h->inode, 290000, 0), 0);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(x->site.files[0].content.size, 290000);
    done(&x->a, h);
    h = open_nth(&x->b, 0);
    check(&x->b, h, 0, data, 70001);
    check(&x->b, h, 70001, zeros, 290000 - 70001);
    uint64_t at;
    assert_int_equal(file_seek(x->b.io, h->inode, 0, SEEK_HOLE, &at), 0);
    assert_int_equal(at, 131072); /* the cut block is data up to its end */
    assert_int_equal(file_seek(x->b.io, h->inode, 131072, SEEK_DATA, &at), ERR_NO_SUCH_OFFSET);
    done(&x->b, h);
    mem_free(data);
    mem_free(zeros);
}

static void test_clone_moves_no_bytes(void **state)
{
    struct fixture *x = *state;
    struct open_file *from = open_nth(&x->a, 0), *to = open_nth(&x->a, 1);
    uint8_t *data = mem_alloc(500000);
    struct rng r;
    rng_seed(&r, 9);
    for (size_t i = 0; i < 500000; i++)
        data[i] = (uint8_t)rng_next(&r);
    put(&x->a, from, 0, data, 500000);
    assert_int_equal(file_flush(x->a.io, from->inode), 0);
    size_t chunks = x->site.sealed_count;
    struct file_clone c = {.from = from->inode, .to = to->inode, .len = 1u << 30};
    uint64_t len;
    assert_int_equal(file_clone(x->a.io, &c, &len), 0);
    assert_int_equal(len, 500000);
    assert_int_equal(x->site.sealed_count, chunks);
    check(&x->a, to, 0, data, 500000);
    /* A part, from a block border to a block border; then something that has no borders. */
    c = (struct file_clone){.from = from->inode,
                            .to = to->inode,
                            .from_offset = 65536,
                            .to_offset = 131072,
                            .len = 65536 + 5};
    assert_int_equal(file_clone(x->a.io, &c, &len), 0);
    assert_int_equal(len, 65536);
    check(&x->a, to, 131072, data + 65536, 65536);
    check(&x->a, to, 0, data, 131072);
    c.from_offset = 1;
    assert_int_equal(file_clone(x->a.io, &c, &len), 0);
    assert_int_equal(len, 0);
    done(&x->a, from);
    done(&x->a, to);
    mem_free(data);
}

static bool is_under_way(void *ctx)
{
    return file_is_dirty(ctx);
}

/* Whoever wants all committed that was put (a garbage pass that is asked for) waits for a clone
 * from before it puts its first node. */
static void test_clone_is_under_way_when_its_nodes_are_put(void **state)
{
    struct fixture *x = *state;
    struct open_file *from = open_nth(&x->a, 0), *to = open_nth(&x->a, 1);
    uint8_t *data = make_bytes(500000, false);
    put(&x->a, from, 0, data, 500000);
    assert_int_equal(file_flush(x->a.io, from->inode), 0);
    x->site.at_put.fn = is_under_way;
    x->site.at_put.ctx = to->inode;
    struct file_clone c = {.from = from->inode, .to = to->inode, .len = 1u << 30};
    uint64_t len;
    assert_int_equal(file_clone(x->a.io, &c, &len), 0);
    c = (struct file_clone){.from = from->inode,
                            .to = to->inode,
                            .from_offset = 65536,
                            .to_offset = 131072,
                            .len = 65536};
    assert_int_equal(file_clone(x->a.io, &c, &len), 0);
    assert_int_equal(len, 65536);
    assert_true(x->site.at_put.yes > 0);
    assert_int_equal(x->site.at_put.no, 0);
    /* One that cannot put them leaves the file as it was. */
    x->site.at_put.fn = NULL;
    x->site.fail_puts = 1;
    c.to_offset = 196608;
    assert_int_equal(file_clone(x->a.io, &c, &len), ERR_NO_SPACE);
    assert_false(file_is_dirty(to->inode));
    check(&x->a, to, 196608, data + 196608, 65536);
    done(&x->a, from);
    done(&x->a, to);
    mem_free(data);
}

/* ---- many threads, two mounts ---- */

#define SLOTS 16u
#define SLOT_BYTES 8192u

struct worker {
    struct client *c;
    uint64_t seed;
    uint32_t slot; /* of the file, written by this worker alone */
    bool bad;
};

/* Fills its own slot of the file again and again, reads it back, flushes now and then. */
static void *work(void *arg)
{
    struct worker *w = arg;
    struct open_file *h = open_nth(w->c, 0);
    struct rng r;
    uint8_t data[SLOT_BYTES], got[SLOT_BYTES];
    rng_seed(&r, w->seed);
    for (unsigned i = 0; i < 40 && !w->bad; i++) {
        memset(data, (int)(rng_next(&r) | 1), sizeof data);
        uint64_t at = w->slot * SLOT_BYTES;
        size_t n;
        w->bad |= file_write(w->c->io, h->inode, at, slice_of(data, sizeof data), 0) != 0;
        w->bad |= file_read(w->c->io, h, at, got, sizeof got, &n) != 0 || n != sizeof got;
        w->bad |= memcmp(data, got, sizeof got) != 0;
        if (rng_below(&r, 3) == 0)
            w->bad |= file_flush(w->c->io, h->inode) != 0;
        w->bad |= file_read(w->c->io, h, at, got, sizeof got, &n) != 0;
        w->bad |= memcmp(data, got, sizeof got) != 0;
    }
    w->bad |= file_flush(w->c->io, h->inode) != 0;
    done(w->c, h);
    return NULL;
}

/* Closes wait for more of their kind; the end does not leave them behind. */
static void test_closes_that_wait_are_told_in_the_end(void **state)
{
    struct fixture *x = *state;
    struct open_file *h = open_nth(&x->a, 0);
    done(&x->a, h);
    fileio_stop(x->a.io);
    assert_int_equal(x->site.files[0].opens, 0);
}

/* Opens and closes file `n`; whether the kernel's pages of it were right. */
static bool pages_kept(struct client *c, uint64_t n)
{
    struct inode *i = inode_table_enter(c->inodes, oid_of(n), oid_ino(oid_of(n)), 1);
    struct open_file *h;
    bool keep;
    assert_int_equal(file_open(c->io, i, 0, &h, &keep), 0);
    file_close(c->io, h);
    inode_unref(c->inodes, i);
    return keep;
}

static bool has_record(struct client *c, uint64_t n)
{
    struct inode *i = inode_table_find(c->inodes, oid_of(n));
    bool has = i->known->file != NULL;
    inode_unref(c->inodes, i);
    return has;
}

/* Others were closed since: its record goes, but what the kernel's pages show is remembered, until
 * that changes or may have changed unseen. */
static void test_record_of_a_closed_file_goes_and_its_pages_stay(void **state)
{
    struct fixture *x = *state;
    struct client *c = &x->a;
    size_t count;
    c->io->config.idle_max = 1;
    assert_false(pages_kept(c, 0));
    assert_true(pages_kept(c, 0));
    assert_true(has_record(c, 0));
    (void)pages_kept(c, 1);
    assert_false(has_record(c, 0));
    io_send_closes(c->io);
    assert_true(pages_kept(c, 0));
    (void)pages_kept(c, 1);
    told(c, 0);
    assert_false(pages_kept(c, 0));
    (void)pages_kept(c, 1);
    inode_clock_hit_all(&c->clock); /* the site was away */
    assert_false(pages_kept(c, 0));
    assert_true(pages_kept(c, 0));
    struct inode **files = fileio_files(c->io, &count);
    assert_int_equal(count, 1);
    inode_unref_each(c->inodes, files, count);
    mem_free(files);
    for (uint64_t n = 0; n < 2; n++)
        inode_table_forget(c->inodes, oid_ino(oid_of(n)), 100);
}

/* What is dirty stays, whoever closes and forgets what. */
static void test_record_of_a_dirty_file_stays(void **state)
{
    struct fixture *x = *state;
    struct client *c = &x->a;
    c->io->config.idle_max = 1;
    (void)pages_kept(c, 0);
    (void)pages_kept(c, 1);
    struct inode *i = inode_table_find(c->inodes, oid_of(0));
    assert_int_equal(file_write(c->io, i, 0, slice_str("by path"), 0), 0);
    inode_unref(c->inodes, i);
    (void)pages_kept(c, 2);
    assert_true(has_record(c, 0));
    inode_table_forget(c->inodes, oid_ino(oid_of(0)), 100);
    assert_true(has_record(c, 0));
    assert_int_equal(fileio_sync_all(c->io), 0);
    assert_null(inode_table_find(c->inodes, oid_of(0)));
    struct open_file *h = open_nth(&x->b, 0);
    check(&x->b, h, 0, "by path", 7);
    done(&x->b, h);
    for (uint64_t n = 1; n < 3; n++)
        inode_table_forget(c->inodes, oid_ino(oid_of(n)), 100);
}

static void test_threads_of_two_mounts_keep_their_ranges(void **state)
{
    struct fixture *x = *state;
    pthread_t t[SLOTS];
    struct worker w[SLOTS];
    for (uint32_t i = 0; i < SLOTS; i++) {
        w[i] = (struct worker){.c = i % 2 == 0 ? &x->a : &x->b, .seed = i + 1, .slot = i};
        assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        pthread_join(t[i], NULL);
        assert_false(w[i].bad);
    }
    struct open_file *h = open_nth(&x->a, 0);
    told(&x->a, 0);
    uint8_t got[SLOT_BYTES];
    size_t n;
    for (uint32_t i = 0; i < SLOTS; i++) {
        assert_int_equal(file_read(x->a.io, h, i * SLOT_BYTES, got, sizeof got, &n), 0);
        assert_int_equal(n, sizeof got);
        assert_int_not_equal(got[0], 0);
        assert_int_equal(got[0], got[SLOT_BYTES - 1]);
    }
    done(&x->a, h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_small_file_is_one_inline_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_file_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_small_change_of_large_file_is_one_request, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_file_that_is_changed_here_and_there_gets_small_blocks,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_sparse_file_begins_with_small_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_small_reads_here_and_there_fetch_parts, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_both_mounts_ranges_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_appends_of_both_mounts_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_commit_is_reported_once_and_tried_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_cut_and_extend_reads_zeros, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clone_moves_no_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clone_is_under_way_when_its_nodes_are_put, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_closes_that_wait_are_told_in_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_record_of_a_closed_file_goes_and_its_pages_stay, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_record_of_a_dirty_file_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads_of_two_mounts_keep_their_ranges, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
