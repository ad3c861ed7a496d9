/* A log on a loop of its own in a scratch directory, and records whose contents follow from their
 * index, so that any record read back can be checked by itself. */
#ifndef TESTS_UNIT_JOURNAL_LOG_TEST_H
#define TESTS_UNIT_JOURNAL_LOG_TEST_H

#include "base/limits.h"
#include "journal/log.h"
#include "journal/log_format_int.h"
#include "tests/unit/journal/journal_test.h"

struct log_fixture {
    char *dir;
    struct loop *loop;
    struct log *log;
    struct log_config config;
    struct log_recovery info;
    struct err_detail detail;
    uint64_t target;  /* stop the loop when this is durable */
    uint64_t durable; /* last reported */
    uint64_t durable_calls;
    int failed_rc, failed_calls;
    struct err_detail failed_detail;
    void (*hook)(struct log_fixture *f); /* runs in on_durable */
};

static inline void fixture_durable(void *ctx, uint64_t index)
{
    struct log_fixture *f = ctx;
    assert_true(index > f->durable);
    f->durable = index;
    f->durable_calls++;
    if (f->log != NULL)
        assert_int_equal(log_durable(f->log), index);
    if (f->hook != NULL)
        f->hook(f);
    if (index >= f->target)
        loop_stop(f->loop);
}

static inline void fixture_failed(void *ctx, int rc, const struct err_detail *detail)
{
    struct log_fixture *f = ctx;
    f->failed_rc = rc;
    f->failed_calls++;
    f->failed_detail = *detail;
    loop_stop(f->loop);
}

static inline void fixture_init_in(struct log_fixture *f, char *dir, uint64_t segment_bytes)
{
    *f = (struct log_fixture){.dir = dir};
    assert_int_equal(loop_new(&f->loop, 64, &clock_os, &f->detail), 0);
    f->config = (struct log_config){.dir = f->dir,
                                    .segment_bytes = segment_bytes,
                                    .epoch = 3,
                                    .loop = f->loop,
                                    .ctx = f,
                                    .on_durable = fixture_durable,
                                    .on_failed = fixture_failed};
}

static inline void fixture_init(struct log_fixture *f, uint64_t segment_bytes)
{
    fixture_init_in(f, scratch_new(), segment_bytes);
}

static inline int fixture_open(struct log_fixture *f)
{
    f->detail.text[0] = '\0';
    int rc = log_open(&f->log, &f->config, &f->info, &f->detail);
    if (rc == 0)
        f->durable = log_durable(f->log);
    return rc;
}

static inline void fixture_close(struct log_fixture *f)
{
    f->target = UINT64_MAX; /* nothing to stop: the loop is not running */
    log_close(f->log);
    f->log = NULL;
}

static inline void fixture_reopen(struct log_fixture *f)
{
    fixture_close(f);
    int rc = fixture_open(f);
    if (rc != 0)
        print_error("%s\n", f->detail.text);
    assert_int_equal(rc, 0);
}

static inline void fixture_deinit(struct log_fixture *f)
{
    fixture_close(f);
    loop_free(f->loop);
    scratch_remove(f->dir);
}

/* Contents of record `index` with length len; the length is in it as well. */
static inline void record_fill(uint8_t *out, uint64_t index, size_t len)
{
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(index * 131 + len * 31 + i * 7 + (i >> 8) + 1);
}

/* Appends one record of len bytes in up to three parts. */
static inline int try_append(struct log_fixture *f, size_t len)
{
    uint64_t index = 0, expected = log_last(f->log) + 1;
    uint8_t *data = mem_alloc(len + 1);
    record_fill(data, expected, len);
    struct slice parts[3] = {slice_of(data, len / 3), slice_of(NULL, 0),
                             slice_of(data + len / 3, len - len / 3)};
    int rc = log_append(f->log, parts, 3, &index);
    mem_free(data);
    if (rc == 0) {
        assert_int_equal(index, expected);
        assert_int_equal(log_last(f->log), expected);
    }
    return rc;
}

static inline void append(struct log_fixture *f, size_t len)
{
    assert_int_equal(try_append(f, len), 0);
}

/* Runs the loop until all that was appended is durable. */
static inline void flush(struct log_fixture *f)
{
    f->target = log_last(f->log);
    if (f->durable < f->target)
        loop_run(f->loop);
    assert_int_equal(f->failed_calls, 0);
    assert_int_equal(log_durable(f->log), f->target);
}

struct read_check {
    uint64_t next; /* index expected */
    uint64_t count;
    uint64_t stop_at; /* fn returns false there; 0 = never */
    size_t bytes;
};

static inline bool check_record(void *ctx, const struct log_record *record)
{
    struct read_check *c = ctx;
    uint8_t *want = mem_alloc(record->payload.len);
    assert_int_equal(record->index, c->next);
    record_fill(want, record->index, record->payload.len);
    assert_memory_equal(record->payload.ptr, want, record->payload.len);
    mem_free(want);
    c->next++;
    c->count++;
    c->bytes += record->payload.len;
    return record->index != c->stop_at;
}

/* Reads and checks everything from `from` on, in pieces. */
static inline void check_all_from(struct log_fixture *f, uint64_t from, size_t piece)
{
    uint64_t next = from;
    while (next <= log_durable(f->log)) {
        struct read_check c = {.next = next};
        assert_int_equal(log_read(f->log, next, piece, check_record, &c, &next), 0);
        assert_int_equal(next, c.next);
        assert_true(c.count > 0);
    }
    assert_int_equal(next, MAX(from, log_durable(f->log) + 1));
}

#endif
