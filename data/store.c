/* The chunk store: open, close, finished requests, statistics. */
#include "data/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "data/store_int.h"

#define QUEUE_BYTES_DEFAULT (64u * MIB)
#define QUEUE_DEFAULT 4096u
#define CACHE_BYTES_DEFAULT (64u * MIB)

/* ---- finished requests ---- */

static void puts_finished(struct store *s)
{
    struct store_put *list = s->finished_puts;
    s->finished_puts = NULL;
    s->finished_puts_last = &s->finished_puts;
    while (list != NULL) {
        struct store_put *put = list;
        list = put->next;
        s->put_count--;
        s->queue_bytes -= put->data.len;
        put->done(put, put->rc);
    }
}

static void gets_finished(struct store *s)
{
    struct store_get *list = s->finished_gets;
    s->finished_gets = NULL;
    s->finished_gets_last = &s->finished_gets;
    while (list != NULL) {
        struct store_get *get = list;
        list = get->next;
        s->get_count--;
        struct chunk_buf buf = get->buf;
        get->buf = (struct chunk_buf){0};
        get->done(get, get->rc, &buf); /* may free get */
        chunk_buf_deinit(&buf);
    }
}

static void has_finished(struct store *s)
{
    struct store_has *list = s->finished_has;
    s->finished_has = NULL;
    s->finished_has_last = &s->finished_has;
    while (list != NULL) {
        struct store_has *has = list;
        list = has->next;
        s->has_count--;
        has->done(has, has->rc);
    }
}

static void finish_deferred(struct loop_defer *d)
{
    struct store *s = CONTAINER_OF(d, struct store, finish_defer);
    puts_finished(s);
    gets_finished(s);
    has_finished(s);
    close_kick(s);
}

/* ---- open ---- */

static int make_dir(const char *dir, struct err_detail *detail)
{
    if (mkdir(dir, 0700) == 0 || errno == EEXIST)
        return 0;
    int rc = err_from_errno(errno);
    err_detail_set(detail, "chunk store: cannot make %s: %s", dir, err_text(rc));
    return rc;
}

static int make_dirs(struct store *s, struct err_detail *detail)
{
    char *segments = mem_printf("%s/segments", s->dir);
    int rc = make_dir(s->dir, detail);
    if (rc == 0)
        rc = make_dir(segments, detail);
    if (rc == 0)
        rc = dir_sync(s->dir);
    char *parent = mem_printf("%s/..", s->dir);
    if (rc == 0)
        rc = dir_sync(parent);
    mem_free(parent);
    mem_free(segments);
    return rc;
}

static int lock_dir(struct store *s, struct err_detail *detail)
{
    char *path = mem_printf("%s/lock", s->dir);
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int errnum = errno;
    mem_free(path);
    if (s->lock_fd < 0) {
        err_detail_set(detail, "chunk store %s: cannot make the lock file", s->dir);
        return err_from_errno(errnum);
    }
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    err_detail_set(detail, "chunk store %s: another process uses it: stop that one first", s->dir);
    return ERR_BUSY;
}

/* Not every file system has O_DIRECT (tmpfs of older kernels): then the page cache it is. */
static bool direct_works(const struct store *s)
{
    char *path = mem_printf("%s/lock", s->dir);
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    mem_free(path);
    if (fd >= 0)
        (void)close(fd); /* nothing was written through it */
    return fd >= 0;
}

static int config_take(struct store *s, const struct store_config *c, struct err_detail *detail)
{
    s->lock_fd = -1;
    s->dir = mem_strdup(c->dir);
    s->segment_bytes = c->segment_bytes != 0 ? c->segment_bytes : STORE_SEGMENT_BYTES_DEFAULT;
    s->reserve_bytes = c->reserve_bytes != 0 ? c->reserve_bytes : 2 * s->segment_bytes;
    s->queue_bytes_max = c->queue_bytes_max != 0 ? c->queue_bytes_max : QUEUE_BYTES_DEFAULT;
    s->queue_max = c->queue_max != 0 ? c->queue_max : QUEUE_DEFAULT;
    s->no_sync = c->no_sync;
    s->loop = c->loop;
    s->pool = c->pool;
    s->ctx = c->ctx;
    s->on_damaged = c->on_damaged;
    if (s->segment_bytes % STORE_BLOCK_BYTES == 0 && s->segment_bytes >= 4 * STORE_BLOCK_BYTES &&
        s->segment_bytes <= STORE_SEGMENT_BYTES_MAX)
        return 0;
    err_detail_set(detail, "chunk store: segment size %llu: must be a multiple of %u, at most %llu",
                   (unsigned long long)s->segment_bytes, STORE_BLOCK_BYTES,
                   (unsigned long long)STORE_SEGMENT_BYTES_MAX);
    return ERR_CONFIG;
}

static void store_free(struct store *s)
{
    for (unsigned i = 0; i < 2; i++)
        mem_free(s->groups[i].buf);
    if (s->next.segment != NULL && s->next.segment->fd >= 0)
        (void)close(s->next.segment->fd); /* only its header was written */
    mem_free(s->next.segment);
    recent_free(s);
    index_close(s->index);
    segments_free(s);
    id_map_deinit(&s->damaged);
    id_map_deinit(&s->inflight);
    mem_free(s->gone);
    if (s->lock_fd >= 0)
        (void)close(s->lock_fd); /* releases the lock */
    mem_free(s->dir);
    mem_free(s);
}

static int open_index(struct store *s,
                      const struct store_config *config,
                      struct store_recovery *info,
                      struct err_detail *detail)
{
    char *path = mem_printf("%s/index", s->dir);
    size_t cache_bytes = config->cache_bytes != 0 ? config->cache_bytes : CACHE_BYTES_DEFAULT;
    int rc = index_open(&s->index, path, cache_bytes, &info->index_rebuilt, detail);
    mem_free(path);
    return rc;
}

int store_open(struct store **ret,
               const struct store_config *config,
               struct store_recovery *ret_info,
               struct err_detail *detail)
{
    struct store_recovery info = {0};
    struct store *s = mem_calloc(1, sizeof *s);
    err_detail_set(detail, "chunk store %s: cannot be opened", config->dir);
    write_init(s);
    lane_init(s);
    s->finished_puts_last = &s->finished_puts;
    s->finished_gets_last = &s->finished_gets;
    s->finished_has_last = &s->finished_has;
    s->finish_defer.run = finish_deferred;
    int rc = config_take(s, config, detail);
    if (rc == 0)
        rc = make_dirs(s, detail);
    if (rc == 0)
        rc = lock_dir(s, detail);
    if (rc == 0) {
        s->direct = direct_works(s);
        rc = open_index(s, config, &info, detail);
    }
    if (rc == 0)
        rc = store_recover(s, &info, detail);
    if (rc == 0)
        rc = free_bytes_of(s->dir, &s->free_bytes);
    if (rc != 0) {
        if (s->index_timer_on)
            loop_timer_stop(s->loop, &s->index_timer);
        store_free(s);
        return rc;
    }
    *ret = s;
    if (ret_info != NULL)
        *ret_info = info;
    return 0;
}

/* ---- close ---- */

/* Gives back the room that was set aside; what fails here, the next open does. */
static void trim_files(struct store *s)
{
    if (s->active != NULL)
        (void)!ftruncate(s->active->fd, (off_t)s->active->stat.end);
    if (s->next.segment != NULL) {
        char *path = segment_path(s->dir, s->next.segment->number);
        (void)unlink(path);
        mem_free(path);
    }
}

static void close_now(struct loop_defer *d)
{
    struct store *s = CONTAINER_OF(d, struct store, close_defer);
    trim_files(s);
    void (*closed)(void *ctx) = s->closed;
    void *ctx = s->closed_ctx;
    ASSERT(s->lane.running == LANE_IDLE && !s->index_timer_on);
    loop_undefer(s->loop, &s->write_defer);
    loop_undefer(s->loop, &s->finish_defer);
    store_free(s);
    closed(ctx);
}

static void close_settled(struct settle *settle, int rc)
{
    struct store *s = CONTAINER_OF(settle, struct store, close_settle);
    (void)rc; /* the segments hold everything: the next open reads what the index lacks */
    s->close_defer.run = close_now;
}

/* A tick of close: goes on when nothing is under way any more. */
void close_kick(struct store *s)
{
    if (!s->closing || s->put_count + s->get_count + s->has_count != 0 || s->writing ||
        s->sweep != NULL || s->scrub != NULL || s->compact != NULL ||
        s->next.state == NEXT_MAKING || s->lane.running != LANE_IDLE)
        return;
    if (!s->close_settling) {
        s->close_settling = true;
        /* This write is the last: another one that came due beside it would outlive the store. */
        if (s->index_timer_on)
            loop_timer_stop(s->loop, &s->index_timer);
        s->index_timer_on = false;
        s->close_settle = (struct settle){.flush = true, .done = close_settled};
        settle_submit(s, &s->close_settle);
    } else if (s->close_defer.run != NULL) {
        loop_defer(s->loop, &s->close_defer);
    }
}

void store_close(struct store *s, void (*closed)(void *ctx), void *ctx)
{
    ASSERT(loop_here(s->loop) && !s->closing);
    s->closing = true;
    s->closed = closed;
    s->closed_ctx = ctx;
    close_kick(s);
}

/* ---- statistics ---- */

void store_stats(const struct store *s, struct store_stats *ret)
{
    *ret = (struct store_stats){
        .chunks = s->chunks,
        .live_bytes = s->live_bytes,
        .plain_bytes = s->plain_bytes,
        .free_bytes = s->free_bytes > s->reserve_bytes ? s->free_bytes - s->reserve_bytes : 0,
        .segments = s->segment_count,
        .damaged = s->damaged.count,
        .epoch = s->epoch,
        .puts = s->puts,
        .dedups = s->dedups,
        .gets = s->gets,
        .groups = s->groups_written,
        .scrubbed_bytes = s->scrubbed_bytes,
        .compacted_bytes = s->compacted_bytes,
    };
    for (size_t i = 0; i < s->segment_count; i++)
        ret->file_bytes += s->segments[i]->file_bytes;
}

uint64_t store_epoch(const struct store *s)
{
    return s->epoch;
}

uint64_t store_epoch_advance(struct store *s)
{
    ASSERT(loop_here(s->loop));
    return ++s->epoch;
}
