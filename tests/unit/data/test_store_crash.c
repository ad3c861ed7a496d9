/* The chunk store and what goes wrong: kills at any moment, torn and damaged files, a lost index, a
 * full disk. What was acknowledged is there; what is there is right (P2, P8, D5, D6, D8).
 *
 * A kill is a child process (this program again, with arguments) that reports on a pipe what was
 * acknowledged, and leaves with _exit() in the middle of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/unit/data/store_world.h"

#define NUMBERS 4000u

/* ---- the child ---- */

struct child {
    struct world w;
    struct rng rng;
    uint64_t acks_left;
    struct store_compact compact;
    struct store_sweep sweep;
    struct slot {
        struct store_put put;
        struct buf data;
        uint64_t n;
        struct child *c;
    } slots[16];
};

static void child_put(struct slot *slot)
{
    struct child *c = slot->c;
    slot->n = rng_below(&c->rng, NUMBERS);
    buf_clear(&slot->data);
    chunk_bytes(slot->n, 0, &slot->data);
    slot->put.id = chunk_number(slot->n);
    slot->put.data = buf_slice(&slot->data);
    if (store_put(c->w.store, &slot->put) != 0)
        _exit(3);
}

static void child_acked(struct store_put *put, int rc)
{
    struct slot *slot = CONTAINER_OF(put, struct slot, put);
    if (rc != 0 || write(STDOUT_FILENO, &slot->n, sizeof slot->n) != (ssize_t)sizeof slot->n)
        _exit(4);
    if (slot->c->acks_left-- == 0)
        _exit(0); /* the kill */
    child_put(slot);
}

static void child_compacted(struct store_compact *compact, int rc)
{
    struct child *c = CONTAINER_OF(compact, struct child, compact);
    (void)rc; /* a segment that is in use is tried again */
    if (store_compact(c->w.store, compact) != 0)
        _exit(5);
}

static bool child_keeps(void *ctx, const struct chunk_id *id)
{
    uint64_t n;
    (void)ctx;
    memcpy(&n, id->b + 24, sizeof n);
    return n % 4 != 3; /* numbers the parent does not expect to stay */
}

static void child_swept(struct store_sweep *sweep, int rc)
{
    struct child *c = CONTAINER_OF(sweep, struct child, sweep);
    if (rc != 0)
        _exit(6);
    sweep->before = store_epoch_advance(c->w.store);
    if (store_sweep(c->w.store, sweep) != 0)
        _exit(7);
}

static int child_main(const char *dir, uint64_t seed)
{
    struct child *c = mem_calloc(1, sizeof *c);
    rng_seed(&c->rng, seed);
    world_init(&c->w, dir);
    c->w.segment_bytes = 256 * KIB;
    if (world_open(&c->w) != 0)
        _exit(8);
    c->acks_left = rng_below(&c->rng, 400);
    for (size_t i = 0; i < ARRAY_COUNT(c->slots); i++) {
        c->slots[i].c = c;
        c->slots[i].put.done = child_acked;
        child_put(&c->slots[i]);
    }
    c->compact.done = child_compacted;
    c->compact.live_percent = 80;
    if (store_compact(c->w.store, &c->compact) != 0)
        _exit(9);
    c->sweep = (struct store_sweep){
        .before = store_epoch(c->w.store), .keep = child_keeps, .done = child_swept};
    if (store_sweep(c->w.store, &c->sweep) != 0)
        _exit(10);
    loop_run(c->w.loop);
    return 11;
}

/* Runs a child until it dies; marks in `acked` what it acknowledged. */
static void run_child(const char *dir, uint64_t seed, bool *acked)
{
    int fds[2];
    char self[256] = {0};
    char seed_text[32];
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    (void)snprintf(seed_text, sizeof seed_text, "%llu", (unsigned long long)seed);
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)dup2(fds[1], STDOUT_FILENO);
        (void)close(fds[0]);
        (void)close(fds[1]);
        (void)execl(self, self, "child", dir, seed_text, (char *)NULL);
        _exit(99);
    }
    (void)close(fds[1]);
    uint64_t n;
    ssize_t len;
    while ((len = read(fds[0], &n, sizeof n)) == (ssize_t)sizeof n) {
        assert_true(n < NUMBERS);
        acked[n] = true;
    }
    assert_int_equal(len, 0);
    (void)close(fds[0]);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void check_all(struct world *w, const bool *acked, uint64_t *ret_found)
{
    *ret_found = 0;
    for (uint64_t n = 0; n < NUMBERS; n++) {
        int rc = world_get(w, n, 0); /* compares the bytes */
        assert_true(rc == 0 || rc == ERR_NOT_FOUND);
        if (acked[n] && n % 4 != 3)
            assert_int_equal(rc, 0);
        *ret_found += rc == 0;
    }
    assert_int_equal(*ret_found, world_stats(w).chunks);
}

static void test_kills_lose_nothing_acknowledged(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    w.segment_bytes = 256 * KIB;
    bool acked[NUMBERS] = {false};
    uint64_t learned = 0;
    for (uint64_t seed = 1; seed <= 16; seed++) {
        run_child(w.dir, seed, acked);
        if (seed % 3 == 0)
            continue; /* the next child recovers, and is killed again */
        assert_int_equal(world_open(&w), 0);
        assert_int_equal(w.recovery.damaged, 0);
        assert_false(w.recovery.index_rebuilt);
        learned += w.recovery.chunks;
        uint64_t found = 0;
        check_all(&w, acked, &found);
        assert_int_equal(world_scrub(&w, 1 * MIB).damaged, 0);
        world_close(&w);
    }
    assert_true(learned > 0); /* the kills did come before the index was written */
    world_deinit(&w);
}

/* ---- damage ---- */

static uint64_t size_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

static void change_byte(const char *path, uint64_t at, uint8_t bits)
{
    int fd = open(path, O_RDWR);
    uint8_t byte = 0;
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= bits;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    (void)close(fd);
}

/* The last segment's tail is cut or filled with junk, as by a torn write, with an index that knows
 * nothing of it: what is left is right, and the rest can be put again. */
static void test_torn_tails(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 5);
    for (unsigned round = 0; round < 12; round++) {
        struct world w;
        world_init(&w, NULL);
        assert_int_equal(world_open(&w), 0);
        world_put_many(&w, 0, 60, 3000);
        world_close(&w);
        char *index = mem_printf("%s/index", w.dir);
        remove_tree(index);
        mem_free(index);
        char *path = world_segment(&w, 0);
        uint64_t size = size_of(path);
        uint64_t cut = 4096 + rng_below(&rng, size - 4096);
        if (round % 3 == 0)
            assert_int_equal(truncate(path, (off_t)cut), 0);
        for (uint64_t at = cut; round % 3 == 1 && at < size; at += 1 + rng_below(&rng, 200))
            change_byte(path, at, (uint8_t)(1 + rng_below(&rng, 255)));
        if (round % 3 == 2)
            assert_int_equal(truncate(path, (off_t)(cut / 4096 * 4096)), 0);
        mem_free(path);
        assert_int_equal(world_open(&w), 0);
        uint64_t found = 0;
        for (uint64_t n = 0; n < 60; n++) {
            int rc = world_get(&w, n, 3000);
            assert_true(rc == 0 || rc == ERR_NOT_FOUND);
            found += rc == 0;
        }
        assert_true(found < 60);
        assert_int_equal(found, w.recovery.chunks);
        world_put_many(&w, 0, 60, 3000);
        for (uint64_t n = 0; n < 60; n++)
            assert_int_equal(world_get(&w, n, 3000), 0);
        world_close(&w);
        assert_int_equal(world_open(&w), 0);
        assert_int_equal(world_stats(&w).chunks, 60);
        world_deinit(&w);
    }
}

static void test_lost_index_is_rebuilt(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    assert_int_equal(world_open(&w), 0);
    world_put_many(&w, 0, 1000, 0);
    world_close(&w);
    char *index = mem_printf("%s/index", w.dir);
    remove_tree(index);
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(w.recovery.chunks, 1000);
    for (uint64_t n = 0; n < 1000; n += 3)
        assert_int_equal(world_get(&w, n, 0), 0);
    world_close(&w);
    /* And one that RocksDB calls corrupt. */
    char *current = mem_printf("%s/CURRENT", index);
    FILE *f = fopen(current, "w");
    assert_non_null(f);
    (void)fputs("junk", f);
    (void)fclose(f);
    assert_int_equal(world_open(&w), 0);
    assert_true(w.recovery.index_rebuilt);
    assert_int_equal(w.recovery.chunks, 1000);
    assert_int_equal(world_stats(&w).chunks, 1000);
    for (uint64_t n = 0; n < 1000; n += 3)
        assert_int_equal(world_get(&w, n, 0), 0);
    mem_free(current);
    mem_free(index);
    world_deinit(&w);
}

static void test_scrub_finds_flipped_bits_and_puts_repair(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    assert_int_equal(world_open(&w), 0);
    for (uint64_t n = 0; n < 100; n++)
        assert_int_equal(world_put(&w, n, 3000), 0); /* one block each, in order */
    char *path = world_segment(&w, 0);
    change_byte(path, 4096 + 10 * 4096 + 2000, 4); /* data of 10 */
    change_byte(path, 4096 + 20 * 4096 + 10, 1);   /* id in the header of 20 */
    change_byte(path, 4096 + 30 * 4096 + 4000, 1); /* padding behind 30 */
    struct store_scrub s = world_scrub(&w, 50000);
    assert_int_equal(s.chunks, 100);
    assert_int_equal(s.damaged, 2);
    assert_int_equal(world_damaged(&w), 2);
    for (uint64_t n = 10; n <= 20; n += 10) {
        struct chunk_id id = chunk_number(n);
        assert_non_null(id_map_get(&w.damaged, &id));
        assert_int_equal(world_get(&w, n, 3000), ERR_CORRUPT);
        assert_false(world_has(&w, n, false));
    }
    assert_int_equal(world_get(&w, 30, 3000), 0);
    assert_int_equal(world_stats(&w).damaged, 2);
    assert_int_equal(world_put(&w, 10, 3000), 0);
    assert_int_equal(world_put(&w, 20, 3000), 0);
    assert_int_equal(world_stats(&w).damaged, 0);
    assert_int_equal(world_get(&w, 10, 3000), 0);
    assert_int_equal(world_get(&w, 20, 3000), 0);
    assert_int_equal(world_scrub(&w, 1 * MIB).damaged, 0);
    world_close(&w);
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(world_get(&w, 10, 3000), 0);
    assert_int_equal(world_stats(&w).chunks, 100);
    /* Without a scrub, the get itself finds out. */
    change_byte(path, 4096 + 50 * 4096 + 2000, 4);
    assert_int_equal(world_get(&w, 50, 3000), ERR_CORRUPT);
    assert_int_equal(world_damaged(&w), 3);
    /* And that it is well again: the disk failed for a while. */
    assert_int_equal(world_get(&w, 50, 3000), ERR_CORRUPT);
    change_byte(path, 4096 + 50 * 4096 + 2000, 4);
    assert_false(world_has(&w, 50, false));
    assert_int_equal(world_get(&w, 50, 3000), 0);
    assert_true(world_has(&w, 50, false));
    assert_int_equal(world_stats(&w).damaged, 0);
    assert_int_equal(world_damaged(&w), 3); /* told once */
    mem_free(path);
    world_deinit(&w);
}

/* A damaged record that lives is never compacted away: its segment stays until it is repaired. */
static void test_compaction_keeps_damaged_segments(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    assert_int_equal(world_open(&w), 0);
    for (uint64_t n = 0; n < 600; n++)
        assert_int_equal(world_put(&w, n, 3000), 0);
    (void)world_sweep(&w, store_epoch_advance(w.store), 10, 0);
    char *path = world_segment(&w, 0);
    change_byte(path, 4096 + 10 * 4096 + 2000, 4);
    int rc = 0;
    bool refused = false;
    while (!world_compact(&w, &rc).nothing)
        refused = refused || rc == ERR_CORRUPT;
    assert_true(refused);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(world_get(&w, 10, 3000), ERR_CORRUPT);
    for (uint64_t n = 20; n < 600; n += 10)
        assert_int_equal(world_get(&w, n, 3000), 0);
    mem_free(path);
    world_deinit(&w);
}

static void test_lost_segment_is_damage_not_wrong_data(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    assert_int_equal(world_open(&w), 0);
    for (uint64_t n = 0; n < 600; n++)
        assert_int_equal(world_put(&w, n, 3000), 0);
    world_close(&w);
    char *path = world_segment(&w, 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(world_open(&w), 0);
    assert_true(w.recovery.damaged > 0);
    assert_int_equal(world_get(&w, 0, 3000), ERR_CORRUPT);
    assert_false(world_has(&w, 1, false));
    assert_int_equal(world_put(&w, 1, 3000), 0);
    assert_int_equal(world_get(&w, 1, 3000), 0);
    assert_int_equal(world_get(&w, 599, 3000), 0);
    /* A segment of another store is not taken for one of this. */
    struct world other;
    world_init(&other, NULL);
    assert_int_equal(world_open(&other), 0);
    assert_int_equal(world_put(&other, 5, 3000), 0);
    world_close(&other);
    world_close(&w);
    char *foreign = world_segment(&other, 0);
    char *as = mem_printf("%s/segments/00000000ffffffff", w.dir);
    assert_int_equal(rename(foreign, as), 0);
    assert_int_equal(world_open(&w), ERR_BUSY);
    assert_int_equal(unlink(as), 0);
    assert_int_equal(world_open(&w), 0);
    mem_free(as);
    mem_free(foreign);
    mem_free(path);
    world_deinit(&other);
    world_deinit(&w);
}

/* Puts /dev/full in the place of the active segment's descriptor. */
static void break_segment(const struct world *w)
{
    char *first = world_segment(w, 0);
    for (int fd = 0; fd < 256; fd++) {
        char link[64];
        char target[256] = {0};
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if (readlink(link, target, sizeof target - 1) < 0 || strcmp(target, first) != 0)
            continue;
        int full = open("/dev/full", O_RDWR);
        assert_true(full >= 0);
        assert_int_equal(dup2(full, fd), fd);
        (void)close(full);
    }
    mem_free(first);
}

/* A write that fails is reported to all who wait for it, and ends the segment; the next put goes to
 * a new one, and nothing that was acknowledged before is lost. */
static void test_failed_write(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    assert_int_equal(world_open(&w), 0);
    world_put_many(&w, 0, 20, 3000);
    break_segment(&w);
    assert_int_equal(world_put(&w, 20, 3000), ERR_NO_SPACE);
    assert_false(world_has(&w, 20, false));
    world_put_many(&w, 20, 40, 3000);
    for (uint64_t n = 20; n < 40; n++)
        assert_int_equal(world_get(&w, n, 3000), 0);
    world_close(&w);
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(w.recovery.damaged, 0);
    for (uint64_t n = 0; n < 40; n++)
        assert_int_equal(world_get(&w, n, 3000), 0);
    world_deinit(&w);
}

/* A small file system of its own: puts fail cleanly, reads go on, and garbage collection makes room
 * out of the reserve. */
static void test_full_disk(void **state)
{
    (void)state;
    char dir[] = "/tmp/cfs-full-XXXXXX";
    assert_non_null(mkdtemp(dir));
    if (geteuid() != 0 || mount("tmpfs", dir, "tmpfs", 0, "size=32m") != 0) {
        (void)rmdir(dir);
        print_message("skipped: cannot mount a tmpfs (%s)\n", strerror(errno));
        skip();
    }
    struct world w;
    char *store = mem_printf("%s/store", dir);
    world_init(&w, store);
    w.segment_bytes = 1 * MIB;
    w.reserve_bytes = 8 * MIB;
    assert_int_equal(world_open(&w), 0);
    uint64_t n = 0;
    int rc;
    while ((rc = world_put(&w, n, 60000)) == 0)
        n++;
    assert_int_equal(rc, ERR_NO_SPACE);
    assert_true(n > 100);
    for (uint64_t i = 0; i < n; i++)
        assert_int_equal(world_get(&w, i, 60000), 0);
    assert_int_equal(world_get(&w, n, 60000), ERR_NOT_FOUND);
    assert_int_equal(world_put(&w, n, 60000), ERR_NO_SPACE);
    assert_int_equal(world_put(&w, 0, 60000), 0); /* it is there */
    (void)world_sweep(&w, store_epoch_advance(w.store), 3, 0);
    for (;;) {
        struct store_compact c = world_compact(&w, &rc);
        assert_int_equal(rc, 0);
        if (c.nothing)
            break;
    }
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(world_put(&w, n + i, 60000), 0);
    for (uint64_t i = 0; i < n + 100; i++)
        assert_int_equal(world_get(&w, i, 60000), i % 3 == 0 || i >= n ? 0
                                                  : i == 0             ? 0
                                                                       : ERR_NOT_FOUND);
    world_close(&w);
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(world_get(&w, n, 60000), 0);
    world_deinit(&w);
    mem_free(store);
    assert_int_equal(umount(dir), 0);
    (void)rmdir(dir);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "child") == 0)
        return child_main(argv[2], strtoull(argv[3], NULL, 10));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kills_lose_nothing_acknowledged),
        cmocka_unit_test(test_torn_tails),
        cmocka_unit_test(test_lost_index_is_rebuilt),
        cmocka_unit_test(test_scrub_finds_flipped_bits_and_puts_repair),
        cmocka_unit_test(test_compaction_keeps_damaged_segments),
        cmocka_unit_test(test_lost_segment_is_damage_not_wrong_data),
        cmocka_unit_test(test_failed_write),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
