/* What crashes and bad disks may leave behind. A log is written for real, with a copy of its files
 * after each group commit; then every write is torn in many ways by mixing the 512-byte sectors of
 * the copies before and after it, and the log must open with nothing acknowledged lost, go on, and
 * open again. Damage below what later records call durable must be told instead. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/unit/journal/log_test.h"

#define SEGMENT ((size_t)(32u * KIB))
#define SECTOR ((size_t)512)
#define FILES_MAX 16
#define COPIES_MAX 64

struct image {
    char name[40];
    uint8_t *data;
    size_t len;
};
struct copy { /* of the directory when `durable` had just been reported */
    uint64_t durable, first;
    struct image files[FILES_MAX];
    size_t count;
};
struct world {
    struct log_fixture f;
    struct copy copies[COPIES_MAX];
    size_t count;
    struct rng rng;
};

/* ---- copies ---- */

static void copy_take(struct world *w)
{
    assert_true(w->count < COPIES_MAX);
    struct copy *c = &w->copies[w->count++];
    *c = (struct copy){.durable = log_durable(w->f.log), .first = log_first(w->f.log)};
    DIR *dir = opendir(w->f.dir);
    assert_non_null(dir);
    for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
        if (strstr(e->d_name, ".seg") == NULL)
            continue;
        assert_true(c->count < FILES_MAX);
        struct image *image = &c->files[c->count++];
        struct stat st;
        int fd = openat(dirfd(dir), e->d_name, O_RDONLY);
        assert_true(fd >= 0 && fstat(fd, &st) == 0);
        (void)snprintf(image->name, sizeof image->name, "%.30s", e->d_name);
        image->len = (size_t)st.st_size;
        image->data = mem_alloc(image->len + 1);
        assert_int_equal(pread(fd, image->data, image->len, 0), (ssize_t)image->len);
        (void)close(fd);
    }
    (void)closedir(dir);
}

static void copy_free(struct copy *c)
{
    for (size_t i = 0; i < c->count; i++)
        mem_free(c->files[i].data);
}

static struct copy copy_dup(const struct copy *c)
{
    struct copy d = *c;
    for (size_t i = 0; i < d.count; i++)
        d.files[i].data = mem_dup(d.files[i].data, d.files[i].len);
    return d;
}

static const struct image *copy_find(const struct copy *c, const char *name)
{
    for (size_t i = 0; i < c->count; i++)
        if (strcmp(c->files[i].name, name) == 0)
            return &c->files[i];
    return NULL;
}

/* The scratch directory becomes the copy. */
static void copy_put(struct world *w, const struct copy *c)
{
    int dir = open(w->f.dir, O_RDONLY | O_DIRECTORY);
    DIR *list = opendir(w->f.dir);
    assert_true(dir >= 0 && list != NULL);
    for (const struct dirent *e; (e = readdir(list)) != NULL;)
        (void)unlinkat(dir, e->d_name, 0);
    (void)closedir(list);
    for (size_t i = 0; i < c->count; i++) {
        int fd = openat(dir, c->files[i].name, O_WRONLY | O_CREAT, 0600);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, c->files[i].data, c->files[i].len), (ssize_t)c->files[i].len);
        (void)close(fd);
    }
    (void)close(dir);
}

/* ---- the history ---- */

static void world_init(struct world *w, uint64_t seed)
{
    *w = (struct world){.count = 0};
    rng_seed(&w->rng, seed);
    fixture_init_in(&w->f, scratch_new_fast(), SEGMENT);
    w->f.config.no_sync = true; /* thousands of opens: the order of writes is what is tested */
    assert_int_equal(fixture_open(&w->f), 0);
}

/* A life before the copies, so that the files they show are recycled ones full of old records. */
static void live_before(struct world *w)
{
    for (int i = 0; i < 60; i++) {
        append(&w->f, 1 + rng_below(&w->rng, 9000));
        flush(&w->f);
        log_trim(w->f.log, log_durable(w->f.log));
    }
}

/* One append run may be two writes, when it goes on in the next segment: a copy after each. */
static void hook_copy(struct log_fixture *f)
{
    copy_take(CONTAINER_OF(f, struct world, f));
}

static void live(struct world *w, size_t writes)
{
    copy_take(w);
    w->f.hook = hook_copy;
    for (size_t i = 0; i < writes; i++) {
        for (uint64_t n = 1 + rng_below(&w->rng, 5); n > 0; n--)
            append(&w->f, 1 + rng_below(&w->rng, rng_below(&w->rng, 3) == 0 ? 6000 : 300));
        flush(&w->f);
    }
    w->f.hook = NULL;
    fixture_close(&w->f);
}

static void world_deinit(struct world *w)
{
    for (size_t i = 0; i < w->count; i++)
        copy_free(&w->copies[i]);
    fixture_deinit(&w->f);
}

/* ---- checking ---- */

/* Opens what a crash left; acknowledged records are there and right; the log goes on, and nothing
 * of the torn write ever comes back. */
static void check_crash(struct world *w, uint64_t acknowledged, uint64_t appended)
{
    struct log_fixture *f = &w->f;
    int rc = fixture_open(f);
    if (rc != 0)
        print_error("%s\n", f->detail.text);
    assert_int_equal(rc, 0);
    assert_in_range(f->info.last, acknowledged, appended);
    check_all_from(f, f->info.first, MIB);
    /* Crash again at once: opening what recovery left finds a clean log. */
    uint64_t last = f->info.last;
    fixture_reopen(f);
    assert_int_equal(f->info.last, last);
    assert_int_equal(f->info.torn_bytes, 0);
    /* Epochs differ, so a record of the torn write would be seen. */
    size_t lens[] = {5, 4000, 40, 5000};
    append(f, lens[rng_below(&w->rng, 4)]);
    flush(f);
    append(f, lens[rng_below(&w->rng, 4)]);
    flush(f);
    fixture_reopen(f);
    assert_int_equal(f->info.last, last + 2);
    assert_int_equal(f->info.torn_bytes, 0);
    check_all_from(f, f->info.first, MIB);
    fixture_close(f);
}

/* The sectors in which two copies differ, as places in the younger one. */
struct place {
    size_t file, offset;
};

static size_t
differences(const struct copy *before, const struct copy *after, struct place *ret, size_t max)
{
    size_t count = 0;
    for (size_t i = 0; i < after->count; i++) {
        const struct image *old = copy_find(before, after->files[i].name);
        if (old == NULL)
            continue;
        for (size_t at = 0; at < after->files[i].len; at += SECTOR) {
            if (memcmp(after->files[i].data + at, old->data + at, SECTOR) == 0)
                continue;
            assert_true(count < max);
            ret[count++] = (struct place){.file = i, .offset = at};
        }
    }
    return count;
}

enum tear {
    TEAR_FIRST,  /* only the first n sectors arrived */
    TEAR_LAST,   /* only the last n */
    TEAR_ONE,    /* all but number n */
    TEAR_RANDOM, /* any */
    TEAR_GARBAGE /* all, but number n holds noise */
};

static bool arrived(struct rng *rng, enum tear tear, size_t i, size_t n, size_t count)
{
    switch (tear) {
    case TEAR_FIRST:
        return i < n;
    case TEAR_LAST:
        return i >= count - n;
    case TEAR_ONE:
        return i != n;
    case TEAR_RANDOM:
        return rng_below(rng, 2) == 0;
    case TEAR_GARBAGE:
        return true;
    }
    return false;
}

static void tear_write(struct world *w,
                       const struct copy *before,
                       const struct copy *after,
                       enum tear tear,
                       size_t n,
                       const struct place *places,
                       size_t count)
{
    struct copy torn = copy_dup(after);
    for (size_t i = 0; i < count; i++) {
        uint8_t *at = torn.files[places[i].file].data + places[i].offset;
        const struct image *old = copy_find(before, torn.files[places[i].file].name);
        if (!arrived(&w->rng, tear, i, n, count))
            memcpy(at, old->data + places[i].offset, SECTOR);
        else if (tear == TEAR_GARBAGE && i == n)
            for (size_t k = 0; k < SECTOR; k++)
                at[k] = (uint8_t)rng_next(&w->rng);
    }
    copy_put(w, &torn);
    check_crash(w, before->durable, after->durable);
    copy_free(&torn);
}

static void tear_all(struct world *w)
{
    static struct place places[2 * SEGMENT / SECTOR];
    for (size_t i = 0; i + 1 < w->count; i++) {
        const struct copy *before = &w->copies[i], *after = &w->copies[i + 1];
        size_t count = differences(before, after, places, ARRAY_COUNT(places));
        for (size_t n = 0; n <= count; n++)
            tear_write(w, before, after, TEAR_FIRST, n, places, count);
        for (size_t n = 0; n < count; n += 1 + count / 8)
            tear_write(w, before, after, TEAR_LAST, n, places, count);
        for (size_t n = 0; n < count; n += 1 + count / 8)
            tear_write(w, before, after, TEAR_ONE, n, places, count);
        for (size_t n = 0; n < count; n += 1 + count / 8)
            tear_write(w, before, after, TEAR_GARBAGE, n, places, count);
        for (size_t n = 0; n < 4; n++)
            tear_write(w, before, after, TEAR_RANDOM, n, places, count);
    }
}

static void test_torn_writes_in_new_files(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 1);
    live(&w, 30);
    tear_all(&w);
    world_deinit(&w);
}

static void test_torn_writes_in_recycled_files(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 2);
    live_before(&w);
    live(&w, 30);
    tear_all(&w);
    world_deinit(&w);
}

/* ---- damage ---- */

/* End of the chain and start of the last write, found with the format's own walk. */
struct layout {
    size_t file;         /* that holds the last record */
    uint64_t end;        /* behind it */
    uint64_t last_write; /* offset of the last write in that file */
};

static int image_cmp(const void *a, const void *b)
{
    const struct image *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static struct layout layout_of(const struct copy *before, struct copy *c)
{
    struct layout layout = {0};
    qsort(c->files, c->count, sizeof c->files[0], image_cmp);
    for (size_t i = 0; i < c->count; i++) {
        struct log_header header;
        if (log_header_decode(c->files[i].data, &header) != 0)
            continue;
        struct log_chain chain = {
            .bytes = slice_of(c->files[i].data, c->files[i].len),
            .place = {.salt = header.salt, .number = header.number, .offset = LOG_BLOCK},
            .index = header.first};
        struct log_record record;
        size_t bytes;
        while (log_chain_next(&chain, &record, &bytes) == LOG_STEP_RECORD) {
            layout.file = i;
            layout.end = chain.place.offset;
            if (record.index == before->durable + 1)
                layout.last_write = chain.place.offset - bytes;
        }
    }
    assert_true(layout.last_write > 0 && layout.last_write % LOG_BLOCK == 0);
    return layout;
}

/* One flipped bit anywhere, and every record boundary and field within reach of the stride: below
 * the last write it is told, with the file's name; in the last write it may be cut; nowhere is a
 * wrong record served. */
static void test_flipped_bits(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 3);
    live(&w, 14);
    struct copy *last = &w.copies[w.count - 1];
    const struct copy *before = &w.copies[w.count - 2];
    struct layout layout = layout_of(before, last);
    copy_put(&w, last);
    for (size_t i = 0; i <= layout.file; i++) {
        struct image *image = &last->files[i];
        char *path = mem_printf("%s/%s", w.f.dir, image->name);
        for (size_t at = 0; at < image->len; at += 1 + rng_below(&w.rng, 40)) {
            uint8_t mask = (uint8_t)(1u << rng_below(&w.rng, 8));
            bool used = i < layout.file || at < layout.end;
            if (!used)
                break;
            image->data[at] ^= mask;
            copy_put(&w, last);
            int rc = fixture_open(&w.f);
            bool final = i == layout.file && at >= layout.last_write;
            if (rc == 0) {
                /* Unused rest of a full segment, or the last write. */
                assert_in_range(w.f.info.last, before->durable, last->durable);
                check_all_from(&w.f, 1, MIB);
                assert_true(final || w.f.info.last == last->durable);
                if (final)
                    assert_true(w.f.info.last < last->durable && w.f.info.torn_bytes > 0);
            } else {
                assert_int_equal(rc, ERR_CORRUPT);
                assert_false(final);
                assert_non_null(strstr(w.f.detail.text, ".seg: offset "));
            }
            if (i == 0 && at >= LOG_BLOCK && at < 2 * LOG_BLOCK) {
                assert_int_equal(rc, ERR_CORRUPT);
                assert_non_null(strstr(w.f.detail.text, path));
            }
            fixture_close(&w.f);
            image->data[at] ^= mask;
        }
        mem_free(path);
    }
    world_deinit(&w);
}

/* A file cut short at any sector: the last one is cut like a torn write as far as that can be, any
 * other is damage; opening never changes a damaged log. */
static void test_truncated_files(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 4);
    live(&w, 20);
    struct copy *last = &w.copies[w.count - 1];
    const struct copy *before = &w.copies[w.count - 2];
    struct layout layout = layout_of(before, last);
    assert_true(layout.file > 0);
    for (size_t i = 0; i <= layout.file; i++) {
        size_t len = last->files[i].len;
        for (size_t cut = 0; cut < len; cut += SECTOR) {
            struct copy torn = copy_dup(last);
            torn.files[i].len = cut;
            copy_put(&w, &torn);
            if (i == layout.file && cut >= layout.last_write) {
                check_crash(&w, before->durable, last->durable);
            } else {
                int rc = fixture_open(&w.f);
                if (rc == 0 && i < layout.file) {
                    assert_int_equal(w.f.info.last, last->durable);
                    check_all_from(&w.f, 1, MIB);
                } else if (rc == 0) {
                    /* Nothing behind the cut is left to prove the loss, but it is said. */
                    assert_true(w.f.info.torn_bytes > 0);
                    check_all_from(&w.f, 1, MIB);
                } else {
                    assert_int_equal(rc, ERR_CORRUPT);
                    assert_int_equal(fixture_open(&w.f), ERR_CORRUPT);
                }
                if (cut <= 2 * LOG_BLOCK && i < layout.file)
                    assert_int_equal(rc, ERR_CORRUPT);
                fixture_close(&w.f);
            }
            copy_free(&torn);
        }
    }
    world_deinit(&w);
}

static void test_missing_segments(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 5);
    live(&w, 25);
    struct copy *last = &w.copies[w.count - 1];
    struct layout layout = layout_of(&w.copies[w.count - 2], last);
    assert_true(layout.file >= 2);
    for (size_t i = 1; i < layout.file; i++) {
        struct copy torn = copy_dup(last);
        struct image gone = torn.files[i];
        torn.count--;
        memmove(&torn.files[i], &torn.files[i + 1], (torn.count - i) * sizeof gone);
        copy_put(&w, &torn);
        assert_int_equal(fixture_open(&w.f), ERR_CORRUPT);
        assert_non_null(strstr(w.f.detail.text, gone.name));
        assert_non_null(strstr(w.f.detail.text, "missing"));
        mem_free(gone.data);
        copy_free(&torn);
    }
    /* A segment of another log in its place. */
    struct copy foreign = copy_dup(last);
    struct log_header header;
    assert_int_equal(log_header_decode(foreign.files[1].data, &header), 0);
    header.salt++;
    log_header_encode(&header, foreign.files[1].data);
    copy_put(&w, &foreign);
    assert_int_equal(fixture_open(&w.f), ERR_CORRUPT);
    assert_non_null(strstr(w.f.detail.text, "another journal"));
    /* A later version. */
    foreign.files[1].data[8] = 2;
    copy_put(&w, &foreign);
    assert_int_equal(fixture_open(&w.f), ERR_CORRUPT);
    copy_free(&foreign);
    world_deinit(&w);
}

/* Names that are no segments, a directory with a segment's name, leftovers: ignored or told. */
static void test_strange_files(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 6);
    live(&w, 3);
    const char *harmless[] = {"1.seg",
                              "00000000000000000001.sog",
                              "lost+found",
                              "README",
                              "0000000000000000000x.seg",
                              "00000000000000000000.seg",
                              "99999999999999999999.seg"};
    int dir = open(w.f.dir, O_RDONLY | O_DIRECTORY);
    assert_true(dir >= 0);
    for (size_t i = 0; i < ARRAY_COUNT(harmless); i++)
        assert_int_equal(mkdirat(dir, harmless[i], 0700), 0);
    int fd = openat(dir, "00000000000000000099.free", O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    (void)close(fd);
    assert_int_equal(fixture_open(&w.f), 0);
    assert_int_equal(w.f.info.last, w.copies[w.count - 1].durable);
    /* A free file that was never finished is gone. */
    assert_int_equal(faccessat(dir, "00000000000000000099.free", F_OK, 0), -1);
    fixture_close(&w.f);
    assert_int_equal(mkdirat(dir, "00000000000000000009.seg", 0700), 0);
    assert_int_not_equal(fixture_open(&w.f), 0);
    assert_non_null(strstr(w.f.detail.text, "00000000000000000009.seg"));
    (void)close(dir);
    world_deinit(&w);
}

/* ---- a real death ---- */

static int report_fd;

static void hook_report(struct log_fixture *f)
{
    uint64_t durable = f->durable;
    if (write(report_fd, &durable, sizeof durable) != (ssize_t)sizeof durable)
        _exit(1);
    while (log_last(f->log) < durable + 20)
        append(f, 1 + log_last(f->log) * 131 % 5000);
    if (durable > 200)
        log_trim(f->log, durable - 200);
}

/* The child appends without end and says what is durable; it ends with the process. */
static void child_run(struct log_fixture *f)
{
    struct loop *loop;
    if (loop_new(&loop, 64, &clock_os, &f->detail) != 0)
        _exit(1);
    f->loop = f->config.loop = loop;
    f->hook = hook_report;
    f->target = UINT64_MAX;
    if (fixture_open(f) != 0)
        _exit(1);
    append(f, 1);
    loop_run(loop);
    _exit(1);
}

/* A process killed at any moment loses nothing that it has called durable; nor does the next one
 * on the same files. */
static void test_killed_process_loses_nothing(void **state)
{
    (void)state;
    struct log_fixture f;
    struct rng rng;
    fixture_init(&f, 2 * SEGMENT);
    rng_seed(&rng, 9);
    uint64_t acknowledged = 0;
    for (int round = 0; round < 12; round++) {
        int pipe_fds[2], status;
        assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            report_fd = pipe_fds[1];
            child_run(&f);
        }
        (void)close(pipe_fds[1]);
        for (uint64_t n = 1 + rng_below(&rng, 60); n > 0; n--)
            assert_int_equal(read(pipe_fds[0], &acknowledged, sizeof acknowledged),
                             sizeof acknowledged);
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        while (read(pipe_fds[0], &acknowledged, sizeof acknowledged) > 0)
            ;
        (void)close(pipe_fds[0]);
        assert_int_equal(fixture_open(&f), 0);
        assert_true(f.info.last >= acknowledged);
        check_all_from(&f, f.info.first, MIB);
        fixture_close(&f);
    }
    assert_true(acknowledged > 200);
    fixture_deinit(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torn_writes_in_new_files),
        cmocka_unit_test(test_torn_writes_in_recycled_files),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_truncated_files),
        cmocka_unit_test(test_missing_segments),
        cmocka_unit_test(test_strange_files),
        cmocka_unit_test(test_killed_process_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
