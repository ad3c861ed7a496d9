/* What open does with what is on disk: the index says up to where it knows the segments; what lies
 * behind is read, and the index told. All blocking, before the store is used. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "data/chunk.h"
#include "data/store_int.h"

#define RECENT_MAX 50000u /* changes held in memory while segments are read */

struct recovery {
    struct store *s;
    struct store_recovery *info;
    struct err_detail *detail;
    struct index_meta meta;
    bool known; /* the index has a position */
    uint8_t *bytes;
    size_t cap;
};

/* What must be true of the store for the file to be read. */
static int file_failed(const struct recovery *r, uint64_t number, const char *what, int rc)
{
    err_detail_set(r->detail, "chunk store %s: segment %016llx: %s: %s", r->s->dir,
                   (unsigned long long)number, what, err_text(rc));
    return rc;
}

static int file_size(int fd, uint64_t *ret)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_from_errno(errno);
    *ret = (uint64_t)st.st_size;
    return 0;
}

/* Reads [from, to) of the file into r->bytes; less if the file ends or a sector is bad: then the
 * rest is zeros, which read as "nothing here". */
static void read_range(struct recovery *r, int fd, uint64_t from, uint64_t to)
{
    size_t len = (size_t)align_up(to - from, STORE_BLOCK_BYTES);
    if (len > r->cap) {
        mem_free(r->bytes);
        r->bytes = mem_aligned(STORE_BLOCK_BYTES, len);
        r->cap = len;
    }
    memset(r->bytes, 0, len);
    for (size_t at = 0; at < len;) {
        ssize_t n = pread(fd, r->bytes + at, len - at, (off_t)(from + at));
        if (n == 0)
            break;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            r->info->damaged++;
            n = (ssize_t)MIN(len - at, 16 * (size_t)STORE_BLOCK_BYTES);
        }
        at += (size_t)n;
        if (at % STORE_BLOCK_BYTES != 0)
            break; /* the end of a file that was cut */
    }
    r->info->scanned_bytes += len;
}

/* ---- one segment ---- */

/* The index is told of a record. `always`: also if it knows the chunk elsewhere (a newer copy). */
static int learn(struct recovery *r,
                 const struct store_segment *seg,
                 const struct record_scan *scan,
                 bool always)
{
    struct store *s = r->s;
    struct store_entry old;
    struct store_entry now = {.segment = seg->number,
                              .epoch = scan->record.epoch,
                              .offset = (uint32_t)scan->offset,
                              .len = scan->record.len,
                              .plain_len = chunk_plain_len(slice_of(scan->data, scan->record.len))};
    int rc = lookup_now(s, &scan->record.id, &old);
    if (rc == ERR_AGAIN)
        rc = index_get(s->index, &scan->record.id, false, &old);
    if (rc != 0)
        return rc;
    s->epoch = MAX(s->epoch, now.epoch);
    if (old.segment == now.segment && old.offset == now.offset)
        return 0;
    if (!always && old.segment != 0 && segment_find(s, old.segment) != NULL)
        return 0;
    now.epoch = MAX(now.epoch, old.epoch);
    entry_change(s, &scan->record.id, &old, &now);
    r->info->chunks++;
    return 0;
}

/* Bad places of a segment; whether they are damage or a torn write is known at its end. */
struct bad {
    uint64_t offset;
    uint64_t len;
};
struct bads {
    struct bad *at;
    size_t count, cap;
};
static void bad_add(struct bads *b, uint64_t offset, uint64_t len)
{
    if (b->count == b->cap) {
        b->cap = b->cap == 0 ? 16 : b->cap * 2;
        b->at = mem_realloc(b->at, b->cap * sizeof *b->at);
    }
    b->at[b->count++] = (struct bad){.offset = offset, .len = len};
}

/* In the last segment, what is bad in or behind the last group was torn: it was never
 * acknowledged. All else was, and is damage. */
static void judge_bads(struct recovery *r,
                       const struct store_segment *seg,
                       const struct bads *b,
                       uint64_t last_group_at,
                       bool last)
{
    for (size_t i = 0; i < b->count; i++) {
        if (!last || b->at[i].offset < last_group_at) {
            r->info->damaged++;
            continue;
        }
        r->info->torn_bytes += b->at[i].len;
        (void)snprintf(r->info->torn_file, sizeof r->info->torn_file, "%016llx",
                       (unsigned long long)seg->number);
    }
}

static int scan_segment(struct recovery *r,
                        struct store_segment *seg,
                        int fd,
                        uint64_t from,
                        uint64_t size,
                        bool always,
                        bool last)
{
    struct bads bads = {0};
    uint64_t last_group_at = from;
    uint32_t group = 0;
    int rc = 0;
    read_range(r, fd, from, size);
    struct record_scan scan = {.bytes = slice_of(r->bytes, (size_t)(size - from)),
                               .base = from,
                               .number = seg->number,
                               .at = from};
    enum scan_kind kind;
    while (rc == 0 && (kind = record_scan_next(&scan)) != SCAN_END) {
        if (kind == SCAN_RECORD || kind == SCAN_BAD) {
            if (scan.record.group > group)
                last_group_at = scan.offset;
            group = MAX(group, scan.record.group);
        }
        if (kind == SCAN_RECORD) {
            rc = learn(r, seg, &scan, always);
            seg->stat.end = align_up(scan.at, STORE_BLOCK_BYTES);
        } else if (kind == SCAN_MORE) {
            bad_add(&bads, scan.offset, size - scan.offset);
            break;
        } else {
            bad_add(&bads, scan.offset, scan.at - scan.offset);
        }
    }
    judge_bads(r, seg, &bads, last_group_at, last);
    mem_free(bads.at);
    segment_dirty(r->s, seg);
    return rc;
}

/* ERR_BUSY: the file belongs to another store; else what is wrong with the header. */
static int check_header(struct recovery *r, const struct store_segment *seg, int fd)
{
    struct store *s = r->s;
    struct segment_header h;
    read_range(r, fd, 0, STORE_BLOCK_BYTES);
    int rc = segment_header_decode(slice_of(r->bytes, STORE_BLOCK_BYTES), &h);
    if (rc != 0)
        return rc;
    static const uint8_t none[sizeof s->store_id];
    if (memcmp(s->store_id, none, sizeof none) == 0)
        memcpy(s->store_id, h.store_id, sizeof s->store_id); /* the index was lost */
    bool ours = h.number == seg->number && memcmp(s->store_id, h.store_id, sizeof none) == 0;
    return ours ? 0 : ERR_BUSY;
}

static bool bytes_blank(const struct recovery *r)
{
    for (size_t i = 0; i < STORE_BLOCK_BYTES; i++) {
        if (r->bytes[i] != 0)
            return false;
    }
    return true;
}

/* A damaged header does no harm, as records name their segment themselves. A blank one is no damage
 * either: the process ended while it made the file. */
static int header_judge(struct recovery *r, const struct store_segment *seg, int fd)
{
    int rc = check_header(r, seg, fd);
    if (rc == 0)
        return 0;
    if (rc == ERR_BUSY || rc == ERR_VERSION)
        return file_failed(r, seg->number, "cannot be used", rc);
    if (!bytes_blank(r))
        r->info->damaged++;
    return 0;
}

static int load_segment(struct recovery *r, struct store_segment *seg, bool last)
{
    struct store *s = r->s;
    uint64_t size = 0;
    int rc = segment_open_file(s, seg->number, O_RDWR, &seg->fd);
    if (rc == 0)
        rc = file_size(seg->fd, &size);
    if (rc != 0)
        return file_failed(r, seg->number, "cannot be opened", rc);
    if (size > STORE_SEGMENT_BYTES_MAX)
        return file_failed(r, seg->number, "too large", ERR_CORRUPT);
    seg->file_bytes = size;
    if (seg->known && r->known && seg->number < r->meta.segment)
        return 0; /* all in it is covered */
    segment_dirty(s, seg);
    rc = header_judge(r, seg, seg->fd);
    /* What the index has of this segment counts only up to the position. */
    uint64_t from = STORE_BLOCK_BYTES;
    if (r->known && seg->known && seg->number == r->meta.segment)
        from = MAX(r->meta.offset, STORE_BLOCK_BYTES);
    bool always = !r->known || seg->number >= r->meta.segment;
    if (rc == 0 && from < size)
        rc = scan_segment(r, seg, seg->fd, from, size, always, last);
    /* Room that was set aside is given back: what comes now goes into a new segment. */
    uint64_t used = align_up(seg->stat.end, STORE_BLOCK_BYTES);
    if (rc == 0 && used < size && ftruncate(seg->fd, (off_t)used) == 0)
        seg->file_bytes = used;
    return rc;
}

/* ---- the set of segments ---- */

static int number_cmp(const void *a, const void *b)
{
    uint64_t x = 0;
    uint64_t y = 0;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

static int list_segments(struct store *s, uint64_t **ret, size_t *ret_count)
{
    char *path = mem_printf("%s/segments", s->dir);
    DIR *dir = opendir(path);
    int errnum = errno;
    mem_free(path);
    if (dir == NULL)
        return err_from_errno(errnum);
    uint64_t *numbers = NULL;
    size_t count = 0;
    size_t cap = 0;
    const struct dirent *e;
    while ((e = readdir(dir)) != NULL) {
        char *end = NULL;
        uint64_t number = strtoull(e->d_name, &end, 16);
        if (strlen(e->d_name) != 16 || *end != '\0' || number == 0)
            continue; /* not ours: leave it alone */
        if (count == cap) {
            cap = cap == 0 ? 64 : cap * 2;
            numbers = mem_realloc(numbers, cap * sizeof *numbers);
        }
        numbers[count++] = number;
    }
    (void)closedir(dir);
    if (count > 0)
        qsort(numbers, count, sizeof *numbers, number_cmp);
    *ret = numbers;
    *ret_count = count;
    return 0;
}

static void stat_loaded(void *ctx, uint64_t number, const struct segment_stat *stat)
{
    struct recovery *r = ctx;
    struct store *s = r->s;
    struct store_segment *seg = segment_find(s, number);
    if (seg != NULL) {
        seg->stat = *stat;
        seg->known = true;
        s->chunks += stat->live_count;
        s->live_bytes += stat->live_bytes;
        s->plain_bytes += stat->plain_bytes;
        return;
    }
    /* The file is gone. With nothing in it that is the end of a compaction; else it is lost. */
    r->info->damaged += stat->live_count;
    if (s->gone_count == s->gone_cap) {
        s->gone_cap = s->gone_cap == 0 ? 16 : s->gone_cap * 2;
        s->gone = mem_realloc(s->gone, s->gone_cap * sizeof *s->gone);
    }
    s->gone[s->gone_count++] = number;
}

static int load_segments(struct recovery *r)
{
    struct store *s = r->s;
    uint64_t *numbers = NULL;
    size_t count = 0;
    int rc = list_segments(s, &numbers, &count);
    for (size_t i = 0; i < count; i++)
        segment_insert(s, segment_new(numbers[i]));
    mem_free(numbers);
    if (rc == 0)
        rc = index_stats(s->index, stat_loaded, r);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct store_segment *seg = s->segments[i];
        bool last = i + 1 == count;
        rc = load_segment(r, seg, last);
        if (seg->fd >= 0)
            (void)close(seg->fd); /* nothing was written through it */
        seg->fd = -1;
        if (rc == 0 && s->recent.count > RECENT_MAX)
            rc = index_write_now(s, false);
        s->next_segment = MAX(s->next_segment, seg->number + 1);
    }
    r->info->segments = count;
    return rc;
}

int store_recover(struct store *s, struct store_recovery *info, struct err_detail *detail)
{
    struct recovery r = {.s = s, .info = info, .detail = detail};
    int rc = index_meta_get(s->index, &r.meta, &r.known);
    if (rc != 0)
        return rc;
    s->next_segment = 1;
    if (r.known) {
        s->next_segment = MAX(s->next_segment, r.meta.next_segment);
        s->epoch = r.meta.epoch;
        memcpy(s->store_id, r.meta.store_id, sizeof s->store_id);
    }
    s->recovering = true; /* the position stays where it is until all is read */
    rc = load_segments(&r);
    s->recovering = false;
    static const uint8_t none[sizeof s->store_id];
    if (rc == 0 && memcmp(s->store_id, none, sizeof none) == 0)
        random_bytes(s->store_id, sizeof s->store_id);
    s->epoch++;
    mem_free(r.bytes);
    if (rc == 0)
        rc = index_write_now(s, info->scanned_bytes > 0);
    return rc;
}
