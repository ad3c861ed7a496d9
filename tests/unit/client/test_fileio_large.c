/* Large contents: blocks that are sealed while the file is written, and reading without a copy. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limits.h"
#include "tests/unit/client/fileio_world.h"

/* ---- reading without a copy ---- */

static void check_view(struct client *c,
                       struct open_file *h,
                       uint64_t at,
                       const uint8_t *want,
                       size_t len,
                       size_t size)
{
    struct file_view v;
    assert_int_equal(file_read_view(c->io, h, at, len, &v), 0);
    len = at >= size ? 0 : MIN(len, size - (size_t)at);
    for (int i = 0; i < v.count; i++) {
        assert_true(v.at[i].iov_len <= len);
        assert_memory_equal(v.at[i].iov_base, want + at, v.at[i].iov_len);
        at += v.at[i].iov_len;
        len -= v.at[i].iov_len;
    }
    assert_int_equal(len, 0);
    file_view_done(c->io, &v);
}

/* Views of blocks, of their ends that are zeros, of holes, past the end, of what is dirty. */
static void test_views_show_what_reads_show(void **state)
{
    struct fixture *x = *state;
    const size_t size = (7u << 20) + 12345;
    uint8_t *data = make_bytes(size, false);
    struct rng r;
    rng_seed(&r, 31);
    memset(data + 2 * MIB - 70000, 0, 140000);
    memset(data + 3 * MIB, 0, 2 * MIB + 100);
    struct open_file *h = open_nth(&x->a, 0);
    for (size_t at = 0; at < size; at += MIB)
        if (at != 3 * MIB && at != 4 * MIB)
            put(&x->a, h, at, data + at, MIN(MIB, size - at));
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(x->site.files[0].content.data_blocks, 6);
    done(&x->a, h);
    h = open_nth(&x->b, 0);
    for (unsigned i = 0; i < 200; i++) {
        size_t at = (size_t)rng_below(&r, size + 1000), len = 1 + (size_t)rng_below(&r, MIB);
        if (i % 3 == 0)
            len = 4096;
        check_view(&x->b, h, at, data, len, size);
        if (i == 150) {
            data[MIB] ^= 1;
            put(&x->b, h, MIB, data + MIB, 1);
        }
    }
    check_view(&x->b, h, MIB / 2, data, MIB, size);
    for (size_t at = 0; at < size; at += MIB)
        check_view(&x->b, h, at, data, MIB, size);
    done(&x->b, h);
    mem_free(data);
}

/* ---- sealing ahead ---- */

static void wait_puts(struct site *s, uint64_t count)
{
    pthread_mutex_lock(&s->lock);
    while (s->puts < count)
        pthread_cond_wait(&s->was_put, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static void fail_puts(struct site *s, int count)
{
    pthread_mutex_lock(&s->lock);
    s->fail_puts = count;
    pthread_mutex_unlock(&s->lock);
}

static void put_steps(struct client *c, struct open_file *h, const uint8_t *data, size_t len)
{
    for (size_t at = 0; at < len; at += 300000)
        put(c, h, at, data + at, MIN(300000, len - at));
}

static void put_requests(struct client *c, struct open_file *h, const uint8_t *data, size_t len)
{
    for (size_t at = 0; at < len; at += MIB)
        put_pages(c, h, at, data + at, MIN(MIB, len - at));
}

/* The blocks of a file that is written from its beginning are at the site before anybody commits;
 * the commit stores what was written again since, and nothing twice. */
static void test_blocks_are_stored_while_the_file_is_written(void **state)
{
    struct fixture *x = *state;
    const size_t len = (7u << 20) + 5000;
    uint8_t *data = make_bytes(len, false);
    struct open_file *h = open_nth(&x->a, 0);
    put_steps(&x->a, h, data, len);
    wait_puts(&x->site, 7);
    assert_int_equal(x->site.commits, 0);
    data[5 * MIB + 77] ^= 1;
    put(&x->a, h, 5 * MIB + 77, data + 5 * MIB + 77, 1);
    check(&x->a, h, 0, data, len);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(x->site.commits, 1);
    assert_int_equal(x->site.files[0].content.block_bytes, MIB);
    /* Two blocks and the manifest's one node, by whichever way. */
    assert_int_equal(x->site.puts + x->site.rides, 7 + 2 + 1);
    done(&x->a, h);
    h = open_nth(&x->b, 0);
    check(&x->b, h, 0, data, len);
    done(&x->b, h);
    mem_free(data);
}

/* Whatever is done to a file whose blocks are being sealed, in any order, it holds what it should
 * hold in the end. */
static void test_changes_of_what_is_sealed_ahead_are_kept(void **state)
{
    struct fixture *x = *state;
    const size_t room = 14u << 20;
    uint8_t *data = mem_alloc(room), *noise = make_bytes(room, false);
    struct rng r;
    rng_seed(&r, 77);
    for (unsigned round = 0; round < 12; round++) {
        struct open_file *h = open_nth(&x->a, 0);
        size_t len = (size_t)(6u << 20) + (size_t)rng_below(&r, 6u << 20), shift = round * 1000;
        assert_int_equal(file_truncate(x->a.io, h->inode, 0, 0), 0);
        memset(data, 0, room);
        memcpy(data, noise + shift, len);
        if (round % 2 == 0)
            put_steps(&x->a, h, data, len);
        else
            put_requests(&x->a, h, data, len);
        for (unsigned i = 0; i < 6; i++) {
            size_t at = (size_t)rng_below(&r, len), n = (size_t)rng_below(&r, len - at);
            switch (rng_below(&r, 4)) {
            case 0:
                memset(data + at, 0, n);
                assert_int_equal(file_zero(x->a.io, h->inode, at, at + n, false), 0);
                break;
            case 1:
                memset(data + at, 0, room - at);
                assert_int_equal(file_truncate(x->a.io, h->inode, at, 0), 0);
                assert_int_equal(file_extend(x->a.io, h->inode, len), 0);
                break;
            case 2:
                assert_int_equal(file_flush(x->a.io, h->inode), 0);
                break;
            default:
                memset(data + at, (int)i + 1, n);
                if (n <= MIB)
                    put_pages(&x->a, h, at, data + at, n);
                else
                    put(&x->a, h, at, data + at, n);
                break;
            }
        }
        check(&x->a, h, 0, data, len);
        done(&x->a, h);
        told(&x->b, 0);
        h = open_nth(&x->b, 0);
        check(&x->b, h, 0, data, len);
        done(&x->b, h);
    }
    mem_free(data);
    mem_free(noise);
}

/* Appended blocks that were sealed where they were to be, and land elsewhere. */
static void test_what_is_sealed_ahead_moves_with_the_end(void **state)
{
    struct fixture *x = *state;
    const size_t len = 7u << 20;
    uint8_t *data = make_bytes(len, false);
    struct open_file *ha = open_nth(&x->a, 0), *hb = open_nth(&x->b, 0);
    for (size_t at = 0; at < len; at += MIB) {
        struct slice piece = slice_of(data + at, MIB);
        assert_int_equal(file_write(x->a.io, ha->inode, 0, piece, FILE_WRITE_APPEND), 0);
    }
    wait_puts(&x->site, 4);
    assert_int_equal(file_write(x->b.io, hb->inode, 0, slice_str("first"), FILE_WRITE_APPEND), 0);
    assert_int_equal(file_flush(x->b.io, hb->inode), 0);
    assert_int_equal(file_flush(x->a.io, ha->inode), 0);
    assert_int_equal(x->site.stale, 1);
    told(&x->b, 0);
    check(&x->b, hb, 0, "first", 5);
    check(&x->b, hb, 5, data, len);
    done(&x->a, ha);
    done(&x->b, hb);
    mem_free(data);
}

/* Who syncs after each block gets it in one request, as before: nothing of it is sealed ahead. */
static void test_block_that_is_synced_at_once_rides_with_its_commit(void **state)
{
    struct fixture *x = *state;
    uint8_t *data = make_bytes(6 * MIB, false);
    struct open_file *h = open_nth(&x->a, 0);
    put_steps(&x->a, h, data, 6 * MIB);
    assert_int_equal(file_sync(x->a.io, h->inode), 0);
    assert_int_equal(x->site.files[0].content.block_bytes, MIB);
    for (size_t at = 0; at < 6 * MIB; at += MIB) {
        uint64_t before = x->site.requests;
        data[at] ^= 1;
        put(&x->a, h, at, data + at, MIB);
        assert_int_equal(file_sync(x->a.io, h->inode), 0);
        assert_int_equal(x->site.requests, before + 1);
    }
    check(&x->a, h, 0, data, 6 * MIB);
    done(&x->a, h);
    mem_free(data);
}

/* A put that fails while the program writes is nobody's error: the commit tries again. */
static void test_failure_of_sealing_ahead_is_the_commits(void **state)
{
    struct fixture *x = *state;
    const size_t len = 7u << 20;
    uint8_t *data = make_bytes(len, false);
    struct open_file *h = open_nth(&x->a, 0);
    fail_puts(&x->site, 3);
    put_steps(&x->a, h, data, len);
    wait_puts(&x->site, 6);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(file_error(h), 0);
    put_steps(&x->a, h, data + 1, len - 1);
    fail_puts(&x->site, 1000);
    put(&x->a, h, 10, data + 11, 1); /* two blocks that have to be stored again */
    put(&x->a, h, 3 * MIB, data + 3 * MIB + 1, 1);
    assert_int_equal(file_flush(x->a.io, h->inode), ERR_NO_SPACE);
    assert_int_equal(file_error(h), ERR_NO_SPACE);
    fail_puts(&x->site, 0);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    done(&x->a, h);
    told(&x->b, 0);
    h = open_nth(&x->b, 0);
    check(&x->b, h, 0, data + 1, len - 1);
    done(&x->b, h);
    mem_free(data);
}

/* A writer that does not stop is committed while it goes on, long before memory is short: what it
 * wrote first is given up, and it goes on in that memory. */
static void test_what_is_sealed_is_committed_while_the_writer_goes_on(void **state)
{
    struct fixture *x = *state;
    const size_t len = (40u << 20) + 1234;
    uint8_t *data = make_bytes(len, false);
    struct open_file *h = open_nth(&x->a, 0);
    put_requests(&x->a, h, data, len);
    pthread_mutex_lock(&x->site.lock);
    while (x->site.commits == 0)
        pthread_cond_wait(&x->site.was_put, &x->site.lock);
    pthread_mutex_unlock(&x->site.lock);
    check(&x->a, h, 0, data, len);
    data[MIB] ^= 1; /* of what is committed, and of what is not yet, perhaps */
    data[len - 1] ^= 1;
    put(&x->a, h, MIB, data + MIB, 1);
    put(&x->a, h, len - 1, data + len - 1, 1);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    check(&x->a, h, 0, data, len);
    done(&x->a, h);
    h = open_nth(&x->b, 0);
    check(&x->b, h, 0, data, len);
    done(&x->b, h);
    mem_free(data);
}

static uint64_t commits(struct site *s)
{
    pthread_mutex_lock(&s->lock);
    uint64_t count = s->commits;
    pthread_mutex_unlock(&s->lock);
    return count;
}

struct committer {
    struct client *c;
    struct open_file *h;
    atomic_bool done;
    int rc; /* the first failure */
};

static void *commit_all_the_time(void *arg)
{
    struct committer *k = arg;
    while (k->rc == 0 && !atomic_load(&k->done))
        k->rc = file_flush(k->c->io, k->h->inode);
    return NULL;
}

/* What decides about the size of blocks is looked at by who writes and counted by who commits. Runs
 * that are too short to be sealed ahead, so that each asks. */
static void test_file_is_changed_in_part_while_it_is_committed(void **state)
{
    struct fixture *x = *state;
    const size_t len = 6u << 20, run = 80u * 1024u;
    uint8_t *data = make_bytes(len, true);
    struct open_file *h = open_nth(&x->a, 0);
    struct committer k = {.c = &x->a, .h = h};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, commit_all_the_time, &k), 0);
    /* After so many commits it is cut into small blocks, of which nothing is counted: anew. */
    for (uint64_t i = 0, until = 0; until < 210; until += 7) {
        assert_int_equal(file_truncate(x->a.io, h->inode, 0, 0), 0);
        put(&x->a, h, 0, data, len);
        for (; commits(&x->site) < until; i++) {
            const size_t at = MIB / 2;
            data[at + i % run] ^= 1;
            put(&x->a, h, at, data + at, run);
        }
    }
    atomic_store(&k.done, true);
    pthread_join(thread, NULL);
    assert_int_equal(k.rc, 0);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    done(&x->a, h);
    h = open_nth(&x->b, 0);
    check(&x->b, h, 0, data, len);
    done(&x->b, h);
    mem_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_views_show_what_reads_show, setup, teardown),
        cmocka_unit_test_setup_teardown(test_blocks_are_stored_while_the_file_is_written, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_changes_of_what_is_sealed_ahead_are_kept, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_what_is_sealed_ahead_moves_with_the_end, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_block_that_is_synced_at_once_rides_with_its_commit,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_failure_of_sealing_ahead_is_the_commits, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_what_is_sealed_is_committed_while_the_writer_goes_on,
                                        setup_roomy, teardown),
        cmocka_unit_test_setup_teardown(test_file_is_changed_in_part_while_it_is_committed, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
