/* Opening a log: find the segments, follow the chain of records through them, and decide what a
 * break means. Where a write was torn, nothing behind it can have been called durable: it is cut,
 * and zeroed so that its remains can never be taken for records again. Where something behind the
 * break proves that what is missing was durable (J3), the log is damaged, and nothing is changed.
 *
 * Blocking; before any thread but the caller's knows the log. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "journal/log_int.h"

struct numbers {
    uint64_t *at;
    size_t count, cap;
};
struct found { /* a .seg file */
    uint64_t number;
    uint64_t size; /* of the file now */
    bool headed;   /* header is valid and says `number` */
    bool blank;    /* its first block is all zeros */
    struct log_header header;
};
struct recovery {
    struct log *log;
    struct err_detail *detail;
    struct log_recovery info;
    struct found *found; /* ascending */
    size_t count;
    uint64_t number_max; /* over all names, free ones too */
    uint8_t *data;       /* the file that is looked at */
    size_t data_cap;
    uint64_t index;        /* expected next */
    size_t current;        /* the last segment that has a header and belongs to the chain */
    uint64_t break_offset; /* in it: where the chain ended */
    bool cut;              /* and what follows there has to be zeroed */
    uint64_t torn_bytes;   /* of it, that are known to be of the torn write */
};

static void numbers_add(struct numbers *n, uint64_t number)
{
    if (n->count == n->cap) {
        n->cap = n->cap == 0 ? 16 : 2 * n->cap;
        n->at = mem_realloc(n->at, n->cap * sizeof n->at[0]);
    }
    n->at[n->count++] = number;
}

static int number_cmp(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* Twenty digits and the suffix, nothing else. */
static bool name_parse(const char *name, const char *suffix, uint64_t *ret)
{
    uint64_t number = 0;
    if (strlen(name) != 20 + strlen(suffix) || strcmp(name + 20, suffix) != 0)
        return false;
    for (int i = 0; i < 20; i++) {
        if (name[i] < '0' || name[i] > '9' || number > (UINT64_MAX - 9) / 10)
            return false;
        number = number * 10 + (uint64_t)(name[i] - '0');
    }
    *ret = number;
    return number > 0 && number < UINT64_MAX / 2;
}

static int os_error(const struct recovery *r, const char *name, const char *what)
{
    return log_os_error(r->log, name, what, errno, r->detail);
}

static int damage(const struct recovery *r, uint64_t number, uint64_t offset, const char *what)
{
    char name[LOG_NAME_LEN];
    log_segment_name(number, name);
    err_detail_set(r->detail,
                   "%s/%s: offset %llu: %s: the journal is damaged: rebuild this replica from the "
                   "others, or restore the file",
                   r->log->dir, name, (unsigned long long)offset, what);
    return ERR_CORRUPT;
}

/* ---- what is there ---- */

static int list_dir(struct recovery *r, struct numbers *segments, struct numbers *frees)
{
    int fd = openat(r->log->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        int rc = os_error(r, ".", "list");
        if (fd >= 0)
            (void)close(fd);
        return rc;
    }
    errno = 0;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL; errno = 0) {
        uint64_t number;
        if (name_parse(entry->d_name, ".seg", &number))
            numbers_add(segments, number);
        else if (name_parse(entry->d_name, ".free", &number))
            numbers_add(frees, number);
        else
            continue;
        r->number_max = MAX(r->number_max, number);
    }
    int rc = errno != 0 ? os_error(r, ".", "list") : 0;
    (void)closedir(dir);
    if (segments->count > 0)
        qsort(segments->at, segments->count, sizeof segments->at[0], number_cmp);
    return rc;
}

static int file_size(const struct recovery *r, const char *name, uint64_t *ret)
{
    struct stat st;
    if (fstatat(r->log->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return os_error(r, name, "stat");
    *ret = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    return 0;
}

/* A process that was killed may have left writes in the kernel. They hold the lock of the file they
 * go to: whoever gets it knows that they are done. */
static void await_writes(int fd)
{
    while (flock(fd, LOCK_EX) != 0 && errno == EINTR)
        ;
}

static void await_free_writes(const struct recovery *r, const char *name)
{
    int fd = -1;
    if (log_file_open(r->log, name, O_RDONLY, &fd) != 0)
        return; /* the next use tells why */
    await_writes(fd);
    (void)close(fd);
}

/* Keeps free files of the right size up to the stock's bound. */
static int take_stock(struct recovery *r, const struct numbers *frees)
{
    for (size_t i = 0; i < frees->count; i++) {
        char name[LOG_NAME_LEN];
        uint64_t size;
        log_free_name(frees->at[i], name);
        await_free_writes(r, name);
        int rc = file_size(r, name, &size);
        if (rc != 0)
            return rc;
        if (size == r->log->segment_bytes && r->log->stock_count < LOG_STOCK_MAX)
            r->log->stock[r->log->stock_count++] = frees->at[i];
        else if (unlinkat(r->log->dir_fd, name, 0) != 0)
            return os_error(r, name, "remove");
    }
    return 0;
}

/* Reads the first len bytes of a segment into r->data; what the file lacks reads as absent. */
static int file_load(struct recovery *r, uint64_t number, uint64_t len, size_t *ret_len)
{
    char name[LOG_NAME_LEN];
    log_segment_name(number, name);
    int fd = -1;
    int rc = log_file_open(r->log, name, O_RDONLY, &fd);
    if (rc != 0)
        return log_os_error(r->log, name, "open", rc, r->detail);
    await_writes(fd);
    len = log_block_up(len);
    if (r->data_cap < len) {
        mem_free(r->data);
        r->data = mem_aligned(LOG_BLOCK, (size_t)len);
        r->data_cap = (size_t)len;
    }
    size_t got = 0;
    while (got < len) {
        ssize_t n = pread(fd, r->data + got, (size_t)len - got, (off_t)got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = os_error(r, name, "read");
            break;
        }
        got += (size_t)n;
        /* A read that ends inside a block has met the end of the file. */
        if (n == 0 || got % LOG_BLOCK != 0)
            break;
    }
    (void)close(fd);
    *ret_len = got;
    return rc;
}

static int read_header(struct recovery *r, struct found *f)
{
    char name[LOG_NAME_LEN];
    size_t got;
    log_segment_name(f->number, name);
    int rc = file_size(r, name, &f->size);
    if (rc == 0)
        rc = file_load(r, f->number, LOG_BLOCK, &got);
    if (rc != 0)
        return rc;
    memset(r->data + got, 0, LOG_BLOCK - got);
    f->blank = true;
    for (size_t i = 0; i < LOG_BLOCK && f->blank; i++)
        f->blank = r->data[i] == 0;
    rc = log_header_decode(r->data, &f->header);
    if (rc == ERR_VERSION) {
        err_detail_set(r->detail, "%s/%s: written by a later version of the program", r->log->dir,
                       name);
        return rc;
    }
    f->headed = rc == 0 && f->header.number == f->number;
    return 0;
}

/* Forgets what lies before the newest reset; its files may be there after a crash. */
static int drop_before_reset(struct recovery *r)
{
    size_t start = 0;
    for (size_t i = 0; i < r->count; i++)
        if (r->found[i].headed && (r->found[i].header.flags & LOG_HEADER_RESET) != 0)
            start = i;
    for (size_t i = 0; i < start; i++) {
        char name[LOG_NAME_LEN];
        log_segment_name(r->found[i].number, name);
        if (unlinkat(r->log->dir_fd, name, 0) != 0)
            return os_error(r, name, "remove");
    }
    r->count -= start;
    memmove(r->found, r->found + start, r->count * sizeof r->found[0]);
    return 0;
}

static int find_segments(struct recovery *r)
{
    struct numbers segments = {0}, frees = {0};
    int rc = list_dir(r, &segments, &frees);
    if (rc == 0)
        rc = take_stock(r, &frees);
    r->found = mem_calloc(segments.count + 1, sizeof r->found[0]);
    r->count = segments.count;
    for (size_t i = 0; rc == 0 && i < r->count; i++) {
        r->found[i].number = segments.at[i];
        rc = read_header(r, &r->found[i]);
    }
    mem_free(segments.at);
    mem_free(frees.at);
    return rc == 0 ? drop_before_reset(r) : rc;
}

/* ---- following the chain ---- */

static bool is_cut(const struct found *f)
{
    return f->headed && (f->header.flags & LOG_HEADER_CUT) != 0;
}

static int check_sequence(const struct recovery *r)
{
    if (!r->found[0].headed)
        return damage(r, r->found[0].number, 0, "the header of the first segment is not valid");
    for (size_t i = 1; i < r->count; i++) {
        /* What a cut took away may be gone; whether enough is there the chain tells. */
        if (r->found[i].number != r->found[i - 1].number + 1 && !is_cut(&r->found[i]))
            return damage(r, r->found[i - 1].number + 1, 0, "the segment is missing");
        if (r->found[i].headed && r->found[i].header.salt != r->found[0].header.salt)
            return damage(r, r->found[i].number, 0, "the segment belongs to another journal");
    }
    return 0;
}

static struct log_segment *segment_of(const struct found *f)
{
    struct log_segment *segment = log_segment_new(f->number);
    segment->first = f->header.first;
    segment->bytes = f->header.bytes;
    segment->recycled = (f->header.flags & LOG_HEADER_RECYCLED) != 0;
    segment->headed = true;
    return segment;
}

/* Follows the records of a segment whose header continues the chain. */
static int follow(struct recovery *r, size_t i)
{
    const struct found *f = &r->found[i];
    size_t got, bytes;
    int rc = file_load(r, f->number, MIN(f->size, f->header.bytes), &got);
    if (rc != 0)
        return rc;
    struct log_segment *segment = segment_of(f);
    struct log_chain chain = {
        .bytes = slice_of(r->data, got),
        .place = {.salt = r->log->salt, .number = f->number, .offset = LOG_BLOCK},
        .index = r->index,
        .end = LOG_BLOCK};
    struct log_record record;
    while (log_chain_next(&chain, &record, &bytes) == LOG_STEP_RECORD)
        log_segment_mark(segment, record.index, chain.place.offset - bytes);
    segment->end = log_block_up(chain.end);
    log_segment_add(r->log, segment);
    r->index = chain.index;
    r->current = i;
    r->break_offset = chain.place.offset;

    struct log_evidence evidence;
    log_evidence_find(&chain, segment->recycled, &evidence);
    if (log_break_is_damage(&chain, evidence.durable))
        return damage(r, f->number, chain.place.offset,
                      "a record is not valid, though later ones call it durable");
    /* Files are made in full size: what a shorter one lacks was cut off by somebody. */
    r->torn_bytes =
        evidence.end - chain.place.offset + (f->header.bytes - MIN(f->size, f->header.bytes));
    r->cut = r->torn_bytes > 0;
    return 0;
}

/* A segment behind the end of the chain: must be unused, or hold nothing but a torn write.
 * *ret_torn: there are remains to be zeroed. */
static int check_unused(struct recovery *r, size_t i, uint64_t *ret_torn)
{
    const struct found *f = &r->found[i];
    size_t got;
    if (f->headed) /* it was written when all before it was durable, and does not continue it */
        return damage(r, r->found[r->current].number, r->break_offset,
                      "records are missing before the next segment");
    int rc = file_load(r, f->number, MIN(f->size, LOG_SEGMENT_BYTES_MAX), &got);
    if (rc != 0)
        return rc;
    struct log_chain chain = {
        .bytes = slice_of(r->data, got),
        .place = {.salt = r->log->salt, .number = f->number, .offset = LOG_BLOCK},
        .index = r->index};
    struct log_evidence evidence;
    log_evidence_find(&chain, !f->blank, &evidence);
    if (evidence.durable >= r->index)
        return damage(r, f->number, 0, "the header is not valid, though records follow");
    *ret_torn = evidence.end > LOG_BLOCK ? evidence.end : 0;
    if (f->size < 2 * LOG_BLOCK) /* no segment is made that small: somebody cut it off */
        *ret_torn = 2 * LOG_BLOCK - f->size;
    return 0;
}

/* ---- making it whole ---- */

static int file_zero(struct recovery *r, uint64_t number, uint64_t from, uint64_t to, int *ret_fd)
{
    char name[LOG_NAME_LEN];
    int fd = -1;
    log_segment_name(number, name);
    int rc = log_file_open(r->log, name, O_RDWR, &fd);
    if (rc != 0)
        return log_os_error(r->log, name, "open for writing", rc, r->detail);
    /* Even with nothing to cut: what was read may have been in a cache only. */
    rc = log_file_zero(r->log, fd, from, to);
    if (rc != 0) {
        log_file_close(fd);
        return log_os_error(r->log, name, "clear the torn end", rc, r->detail);
    }
    *ret_fd = fd;
    return 0;
}

static void report_torn(struct recovery *r, uint64_t number, uint64_t bytes)
{
    if (bytes == 0)
        return;
    r->info.torn_bytes += bytes;
    log_segment_name(number, r->info.torn_file);
}

/* The first unused segment becomes the spare, others go. */
static int take_spare(struct recovery *r, size_t i, uint64_t torn)
{
    const struct found *f = &r->found[i];
    report_torn(r, f->number, torn);
    if (i == r->current + 1 && f->size == r->log->segment_bytes) {
        struct log_segment *segment = log_segment_new(f->number);
        segment->bytes = f->size;
        segment->recycled = !f->blank && torn == 0;
        r->log->spare = segment;
        return file_zero(r, f->number, torn > 0 ? 0 : f->size, f->size, &segment->fd);
    }
    char name[LOG_NAME_LEN];
    log_segment_name(f->number, name);
    if (unlinkat(r->log->dir_fd, name, 0) != 0)
        return os_error(r, name, "remove");
    return 0;
}

/* The log was cut before this segment: what lies at or above its first record does not count. */
static void follow_cut(struct recovery *r, const struct found *f)
{
    struct log *log = r->log;
    while (log->segment_count > 0 && log_segment_current(log)->first >= f->header.first)
        log_segment_free(log->segments[--log->segment_count]);
    r->index = f->header.first;
}

/* Does it continue what was found so far? */
static bool continues(const struct recovery *r, const struct found *f)
{
    return f->headed && (f->header.first == r->index || (is_cut(f) && f->header.first < r->index));
}

/* Files that a cut left behind: their names would stand between those that count. */
static int drop_cut(struct recovery *r)
{
    size_t counts = 0;
    for (size_t i = 0; i <= r->current; i++) {
        char name[LOG_NAME_LEN];
        if (counts < r->log->segment_count &&
            r->log->segments[counts]->number == r->found[i].number) {
            counts++;
            continue;
        }
        log_segment_name(r->found[i].number, name);
        if (unlinkat(r->log->dir_fd, name, 0) != 0)
            return os_error(r, name, "remove");
    }
    return 0;
}

static int follow_all(struct recovery *r)
{
    int rc = check_sequence(r);
    r->log->salt = r->found[0].header.salt;
    r->index = r->found[0].header.first;
    size_t i = 0;
    while (rc == 0 && i < r->count && continues(r, &r->found[i])) {
        /* The next segment's header was written when all of this one was durable. */
        if (i > 0 && r->break_offset % LOG_BLOCK != 0)
            return damage(r, r->found[i - 1].number, r->break_offset, "padding is not zero");
        if (is_cut(&r->found[i]))
            follow_cut(r, &r->found[i]);
        rc = follow(r, i++);
    }
    uint64_t *torn = mem_calloc(r->count + 1, sizeof *torn);
    for (size_t k = i; rc == 0 && k < r->count; k++)
        rc = check_unused(r, k, &torn[k]);
    /* All is checked: only now is anything changed, from the end, so that no gap can appear. */
    for (size_t k = r->count; rc == 0 && k-- > i;)
        rc = take_spare(r, k, torn[k]);
    mem_free(torn);
    return rc == 0 ? drop_cut(r) : rc;
}

static int make_whole(struct recovery *r)
{
    struct log *log = r->log;
    struct log_segment *segment = log_segment_current(log);
    const struct found *f = &r->found[r->current];
    uint64_t from = r->cut ? MIN(r->break_offset, f->size) : segment->bytes;
    report_torn(r, f->number, r->torn_bytes);
    return file_zero(r, segment->number, from, segment->bytes, &segment->fd);
}

static int make_new(struct recovery *r)
{
    struct log *log = r->log;
    struct log_segment *segment = NULL;
    log->salt = random_u64();
    int rc = log_segment_create(log, r->number_max + 1, log->segment_bytes, 1, &segment, r->detail);
    if (rc != 0)
        return rc;
    log_segment_add(log, segment);
    r->index = 1;
    return 0;
}

int log_recover(struct log *log, struct log_recovery *ret_info, struct err_detail *detail)
{
    struct recovery r = {.log = log, .detail = detail};
    int rc = log_direct_probe(log);
    if (rc != 0)
        return log_os_error(log, "probe", "cannot write in the directory", rc, detail);
    rc = find_segments(&r);
    if (rc == 0 && r.count == 0)
        rc = make_new(&r);
    else if (rc == 0 && (rc = follow_all(&r)) == 0)
        rc = make_whole(&r);
    if (rc == 0 && log_dir_sync(log) != 0)
        rc = os_error(&r, ".", "sync");
    if (rc == 0) {
        log->last = r.index - 1;
        log->offset = log_segment_current(log)->end;
        log->durable = log->last;
        log->first = log->segments[0]->first;
        r.info.first = log->segments[0]->first;
        r.info.last = log->last;
        *ret_info = r.info;
    }
    mem_free(r.found);
    mem_free(r.data);
    return rc;
}
