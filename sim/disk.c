/* The simulated file system: names, descriptors, faults. See disk.h. */
#include "sim/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "sim/disk_int.h"
#include "sim/loop_sim.h"

bool disk_calm, disk_power_went;
static struct disk *disks[DISKS_MAX];
static struct fd fds[FDS_MAX];
static int fds_used; /* all below are in use */

/* --- names --- */

static bool name_is(const struct disk *d, size_t i, uint64_t hash, const char *path)
{
    return i < d->name_count && d->names[i].hash == hash && strcmp(d->names[i].path, path) == 0;
}

/* Names move down when one before them goes: then the hint is wrong, and all are looked at. */
static size_t name_find(struct disk *d, const char *path)
{
    uint64_t hash = fnv1a(slice_str(path));
    uint32_t *hint = &d->name_hints[hash % DISK_NAME_HINTS];
    for (size_t back = 0; back < 4 && back <= *hint; back++)
        if (name_is(d, *hint - back, hash, path))
            return *hint - back;
    for (size_t i = 0; i < d->name_count; i++)
        if (name_is(d, i, hash, path)) {
            *hint = (uint32_t)i;
            return i;
        }
    return SIZE_MAX;
}

static struct inode *name_inode(struct disk *d, const char *path)
{
    size_t i = name_find(d, path);
    return i == SIZE_MAX ? NULL : d->names[i].inode;
}

/* Takes a reference of the inode; NULL removes the name. */
static void name_set(struct disk *d, const char *path, struct inode *inode)
{
    size_t i = name_find(d, path);
    if (inode != NULL)
        inode->refs++;
    if (i != SIZE_MAX) {
        disk_inode_unref(d->names[i].inode);
        d->names[i].inode = inode;
        if (inode == NULL) {
            mem_free(d->names[i].path);
            memmove(d->names + i, d->names + i + 1, (d->name_count - i - 1) * sizeof d->names[0]);
            d->name_count--;
        }
        return;
    }
    if (inode == NULL)
        return;
    if (d->name_count == d->name_cap) {
        d->name_cap = d->name_cap == 0 ? 64 : 2 * d->name_cap;
        d->names = mem_realloc(d->names, d->name_cap * sizeof d->names[0]);
    }
    uint64_t hash = fnv1a(slice_str(path));
    d->name_hints[hash % DISK_NAME_HINTS] = (uint32_t)d->name_count;
    d->names[d->name_count++] =
        (struct name){.path = mem_strdup(path), .hash = hash, .inode = inode};
}

static char *parent_of(const char *path)
{
    char *p = mem_strdup(path);
    *strrchr(p, '/') = '\0';
    return p;
}

static struct undo *undo_begin(struct disk *d, const char *path)
{
    struct undo *u = mem_calloc(1, sizeof *u);
    u->dir = parent_of(path);
    u->prev = d->undos;
    d->undos = u;
    return u;
}

static void undo_add(struct disk *d, struct undo *u, const char *path)
{
    struct inode *old = name_inode(d, path);
    if (old != NULL)
        old->refs++;
    u->at[u->count].path = mem_strdup(path);
    u->at[u->count++].old = old;
}

static void undo_free(struct undo *u)
{
    for (unsigned i = 0; i < u->count; i++) {
        mem_free(u->at[i].path);
        disk_inode_unref(u->at[i].old);
    }
    mem_free(u->dir);
    mem_free(u);
}

/* Newest first: those of `dir` (NULL: all) are settled; undone when their turn of the dice says
 * so, and then everything older of that directory stays. */
static void dir_settle(struct disk *d, const char *dir, size_t undo_count)
{
    for (struct undo **at = &d->undos; *at != NULL;) {
        struct undo *u = *at;
        if (strcmp(u->dir, dir) != 0) {
            at = &u->prev;
            continue;
        }
        if (undo_count > 0) {
            undo_count--;
            for (unsigned i = 0; i < u->count; i++)
                name_set(d, u->at[i].path, u->at[i].old);
        }
        *at = u->prev;
        undo_free(u);
    }
}

/* --- disks --- */

struct disk *disk_of_path(const char *path)
{
    for (unsigned i = 0; i < DISKS_MAX; i++) {
        size_t len = disks[i] != NULL ? strlen(disks[i]->root) : 0;
        if (len > 0 && strncmp(path, disks[i]->root, len) == 0 &&
            (path[len] == '\0' || path[len] == '/'))
            return disks[i];
    }
    return NULL;
}

static struct inode *inode_make(struct disk *d, bool dir)
{
    struct inode *n = mem_calloc(1, sizeof *n);
    n->dir = dir;
    n->number = ++d->number;
    return n;
}

struct disk *disk_new(const char *root, const struct world_disk *config)
{
    struct disk *d = mem_calloc(1, sizeof *d);
    d->root = mem_strdup(root);
    d->config = *config;
    for (unsigned i = 0; i < DISKS_MAX; i++)
        if (disks[i] == NULL) {
            disks[i] = d;
            return d;
        }
    UNREACHABLE();
}

static void fd_free(struct fd *f)
{
    fds_used = MIN(fds_used, (int)(f - fds));
    disk_inode_unref(f->inode);
    mem_free(f->path);
    memset(f, 0, sizeof *f);
}

void disk_free(struct disk *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; i < FDS_MAX; i++)
        if (fds[i].disk == d)
            fd_free(&fds[i]);
    while (d->undos != NULL) {
        struct undo *u = d->undos;
        d->undos = u->prev;
        undo_free(u);
    }
    while (d->name_count > 0)
        name_set(d, d->names[d->name_count - 1].path, NULL);
    while (d->blobs != NULL) {
        struct disk_blob *b = d->blobs;
        d->blobs = b->next;
        b->free(b->value);
        mem_free(b);
    }
    for (unsigned i = 0; i < DISKS_MAX; i++)
        if (disks[i] == d)
            disks[i] = NULL;
    mem_free(d->names);
    mem_free(d->root);
    mem_free(d);
}

static void page_crash(struct page *p)
{
    if (!p->dirty)
        return;
    switch (rng_below(&sched->rng, 3)) {
    case 0: /* it never got there */
        disk_bytes_clear(&p->cur);
        p->cur = p->stable;
        p->stable = (struct bytes){0};
        break;
    case 1: /* it is torn */
        for (size_t at = 0; at < PAGE && p->cur.at != NULL; at += SECTOR)
            if (rng_below(&sched->rng, 2) == 0) {
                uint8_t sector[SECTOR];
                disk_bytes_get(&p->stable, at, sector, SECTOR);
                disk_bytes_put(&p->cur, at, sector, SECTOR);
            }
        break;
    default: /* all of it is there */
        break;
    }
    disk_bytes_clear(&p->stable);
    p->dirty = false;
}

static void inode_crash(struct inode *n)
{
    for (size_t i = 0; n->dirty && i < n->page_count; i++)
        page_crash(&n->pages[i]);
    if (n->dirty && rng_below(&sched->rng, 2) == 0)
        n->size = n->stable_size;
    n->stable_size = n->size;
    n->dirty = false;
}

static void names_crash(struct disk *d)
{
    while (d->undos != NULL) {
        char *dir = mem_strdup(d->undos->dir);
        size_t count = 0;
        for (struct undo *u = d->undos; u != NULL; u = u->prev)
            count += strcmp(u->dir, dir) == 0;
        dir_settle(d, dir, rng_below(&sched->rng, count + 1));
        mem_free(dir);
    }
}

void disk_crash(struct disk *d, bool power)
{
    for (size_t i = 0; i < FDS_MAX; i++)
        if (fds[i].disk == d)
            fds[i].ghost = true;
    if (!power)
        return;
    names_crash(d);
    for (size_t i = 0; i < d->name_count; i++)
        inode_crash(d->names[i].inode);
}

void disk_power_off_in(struct disk *d, struct machine *m, unsigned calls, bool few)
{
    d->machine = m;
    d->power_calls = calls;
    d->power_few = few;
    d->power_off = false;
}

bool disk_power_is_off(const struct disk *d)
{
    return d->power_off;
}

bool disk_is_ghost(const struct disk *d)
{
    return d->power_off || (machine_current != NULL && machine_current->ghost);
}

/* A call that changes something begins. */
static void disk_step(struct disk *d, bool few)
{
    if (d->power_calls == 0 || disk_is_ghost(d) || (d->power_few && !few) || --d->power_calls > 0)
        return;
    if (d->machine->loop != NULL)
        loop_tear(d->machine->loop);
    disk_crash(d, true);
    d->power_off = disk_power_went = true;
    d->machine->ghost = true;
}

void disk_step_few(struct disk *d)
{
    disk_step(d, true);
}

void disk_set_room(struct disk *d, enum disk_room room)
{
    d->room = room;
}

void disk_set_failing(struct disk *d, unsigned calls, uint32_t count)
{
    d->failing = count > 0 ? calls : 0;
    d->failing_count = count;
}

bool disk_fails(struct disk *d, enum disk_call call)
{
    if ((d->failing & call) == 0 || disk_calm)
        return false;
    d->failures++;
    if (d->failing_count != UINT32_MAX && --d->failing_count == 0)
        d->failing = 0;
    return true;
}

bool disk_lacks_room(struct disk *d)
{
    d->failures += d->room == DISK_NO_ROOM_AT_ALL;
    return d->room == DISK_NO_ROOM_AT_ALL;
}

uint64_t disk_failures(const struct disk *d)
{
    return d->failures;
}

bool disk_is_bad(const struct disk *d)
{
    return d->room != DISK_ROOM || d->failing != 0;
}

bool disk_rot(struct disk *d, const char *part)
{
    size_t pages = 0, pick;
    for (int pass = 0; pass < 2; pass++) {
        pick = pass == 0 || pages == 0 ? 0 : rng_below(&sched->rng, pages);
        for (size_t i = 0; i < d->name_count; i++) {
            struct inode *n = d->names[i].inode;
            if (strstr(d->names[i].path, part) == NULL)
                continue;
            for (size_t k = 0; k < n->page_count; k++) {
                if (n->pages[k].cur.at == NULL || n->pages[k].dirty)
                    continue;
                if (pass == 0) {
                    pages++;
                } else if (pick-- == 0) {
                    disk_bytes_grow(&n->pages[k].cur, PAGE);
                    n->pages[k].cur.at[rng_below(&sched->rng, PAGE)] ^=
                        (uint8_t)(1u << rng_below(&sched->rng, 8));
                    return true;
                }
            }
        }
    }
    return false;
}

uint64_t disk_bytes(const struct disk *d)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < d->name_count; i++)
        bytes += d->names[i].inode->size;
    return bytes;
}

struct disk_blob *disk_blob(const char *path, bool make)
{
    struct disk *d = disk_of_path(path);
    ASSERT(d != NULL);
    struct disk_blob *b = d->blobs;
    while (b != NULL && strcmp(b->path, path) != 0)
        b = b->next;
    if (b != NULL || !make)
        return b;
    ASSERT(strlen(path) < sizeof b->path);
    b = mem_calloc(1, sizeof *b);
    memcpy(b->path, path, strlen(path) + 1);
    b->next = d->blobs;
    d->blobs = b;
    return b;
}

struct disk_blob *disk_blobs(struct disk *d)
{
    return d->blobs;
}

void disk_blobs_remove(const char *path_prefix)
{
    struct disk *d = disk_of_path(path_prefix);
    size_t len = strlen(path_prefix);
    for (struct disk_blob **at = &d->blobs; *at != NULL;) {
        struct disk_blob *b = *at;
        if (strncmp(b->path, path_prefix, len) != 0) {
            at = &b->next;
            continue;
        }
        *at = b->next;
        b->free(b->value);
        mem_free(b);
    }
}

/* --- descriptors --- */

static int fail(int num)
{
    errno = num;
    return -1;
}

bool disk_path_is(const char *path)
{
    return strncmp(path, DISK_PREFIX, sizeof DISK_PREFIX - 1) == 0;
}

bool disk_fd_is(int fd)
{
    return fd >= DISK_FD_BASE && fd < DISK_FD_BASE + FDS_MAX;
}

struct fd *disk_fd(int fd)
{
    struct fd *f = &fds[fd - DISK_FD_BASE];
    ASSERT(disk_fd_is(fd) && f->disk != NULL);
    return f;
}

static int fail_full(struct disk *d)
{
    d->failures++;
    return fail(ENOSPC);
}

/* "x/y/.." is x: the one form in which the product says "the folder of". */
static char *path_normal(const char *path)
{
    char *p = mem_strdup(path);
    size_t len = strlen(p);
    if (len > 3 && strcmp(p + len - 3, "/..") == 0) {
        p[len - 3] = '\0';
        *strrchr(p, '/') = '\0';
    }
    return p;
}

static int open_path(const char *path, int flags)
{
    struct disk *d = disk_of_path(path);
    if (d != NULL && (flags & (O_CREAT | O_TRUNC)) != 0)
        disk_step(d, true);
    if (d == NULL || disk_is_ghost(d)) /* it looks at names as they are and changes none */
        return fail(d == NULL ? ENOENT : EIO);
    struct inode *n = name_inode(d, path);
    if (n == NULL) {
        if ((flags & O_CREAT) == 0)
            return fail(ENOENT);
        if (d->room != DISK_ROOM)
            return fail_full(d);
        if (disk_fails(d, DISK_MAKE))
            return fail(EIO);
        undo_add(d, undo_begin(d, path), path);
        n = inode_make(d, false);
        name_set(d, path, n);
    } else if ((flags & O_EXCL) != 0) {
        return fail(EEXIST);
    } else if ((flags & O_DIRECTORY) != 0 && !n->dir) {
        return fail(ENOTDIR);
    }
    if ((flags & O_TRUNC) != 0)
        disk_inode_truncate(n, 0);
    for (int i = fds_used; i < FDS_MAX; i++) {
        if (fds[i].disk != NULL)
            continue;
        fds_used = i + 1;
        n->refs++;
        fds[i] = (struct fd){.disk = d, .inode = n, .path = mem_strdup(path)};
        return DISK_FD_BASE + i;
    }
    return fail(EMFILE);
}

int disk_open(const char *path, int flags)
{
    char *p = path_normal(path);
    int fd = open_path(p, flags);
    mem_free(p);
    return fd;
}

char *disk_fd_path(int dir_fd, const char *name)
{
    const struct fd *f = disk_fd(dir_fd);
    return strcmp(name, ".") == 0 ? mem_strdup(f->path) : mem_printf("%s/%s", f->path, name);
}

int disk_openat(int dir_fd, const char *name, int flags)
{
    char *path = disk_fd_path(dir_fd, name);
    int fd = disk_open(path, flags);
    mem_free(path);
    return fd;
}

int disk_close(int fd)
{
    fd_free(disk_fd(fd));
    return 0;
}

long disk_pread(int fd, void *to, size_t len, uint64_t offset)
{
    const struct fd *f = disk_fd(fd);
    if (!f->ghost && disk_fails(f->disk, DISK_READ))
        return fail(EIO);
    return (long)disk_inode_read(f->inode, offset, to, len);
}

/* A write that failed may have reached the disk all the same, some sectors of it. */
static int write_fails(struct fd *f, const uint8_t *from, size_t len, uint64_t offset)
{
    if (rng_below(&sched->rng, 2) == 0 && offset % SECTOR == 0)
        for (size_t at = 0; at < len; at += SECTOR)
            if (rng_below(&sched->rng, 2) == 0)
                disk_inode_write(f->inode, offset + at, from + at, MIN(SECTOR, len - at), false);
    return fail(EIO);
}

long disk_pwrite(int fd, const void *from, size_t len, uint64_t offset, bool dsync)
{
    struct fd *f = disk_fd(fd);
    disk_step(f->disk, false);
    if (f->ghost)
        return (long)len;
    if (f->disk->room != DISK_ROOM && offset + len > f->inode->size)
        return fail_full(f->disk);
    if (disk_fails(f->disk, DISK_WRITE))
        return write_fails(f, from, len, offset);
    if (sched_chance(f->disk->config.write_error_per_million))
        return fail(EIO);
    disk_inode_write(f->inode, offset, from, len, dsync && !f->disk->config.lie);
    return (long)len;
}

long disk_read(int fd, void *to, size_t len)
{
    struct fd *f = disk_fd(fd);
    long n = disk_pread(fd, to, len, f->pos);
    f->pos += (uint64_t)MAX(n, 0);
    return n;
}

long disk_write(int fd, const void *from, size_t len)
{
    struct fd *f = disk_fd(fd);
    long n = disk_pwrite(fd, from, len, f->pos, false);
    f->pos += (uint64_t)MAX(n, 0);
    return n;
}

long disk_seek(int fd, long at, int from)
{
    ASSERT(from == SEEK_SET && at >= 0);
    disk_fd(fd)->pos = (uint64_t)at;
    return at;
}

/* What could not be written is given up, as the kernel does: some of it is read as it was before,
 * and the next sync knows nothing of it. */
static void sync_fails(struct inode *n)
{
    for (size_t i = 0; n->dirty && i < n->page_count; i++) {
        struct page *p = &n->pages[i];
        if (!p->dirty || rng_below(&sched->rng, 2) == 0)
            continue;
        disk_bytes_clear(&p->cur);
        p->cur = p->stable;
        p->stable = (struct bytes){0};
        p->dirty = false;
    }
}

int disk_fsync(int fd)
{
    struct fd *f = disk_fd(fd);
    disk_step(f->disk, f->inode->dir);
    if (f->ghost || f->disk->config.lie)
        return 0;
    if (disk_fails(f->disk, DISK_SYNC)) {
        sync_fails(f->inode);
        return fail(EIO);
    }
    if (f->inode->dir)
        dir_settle(f->disk, f->path, 0);
    else
        disk_inode_sync(f->inode);
    return 0;
}

int disk_truncate(int fd, uint64_t size)
{
    struct fd *f = disk_fd(fd);
    disk_step(f->disk, true);
    if (!f->ghost)
        disk_inode_truncate(f->inode, size);
    return 0;
}

int disk_allocate(int fd, uint64_t offset, uint64_t len)
{
    struct fd *f = disk_fd(fd);
    disk_step(f->disk, true);
    if (f->ghost)
        return 0;
    if (f->disk->room != DISK_ROOM && offset + len > f->inode->size)
        return fail_full(f->disk);
    if (disk_fails(f->disk, DISK_MAKE))
        return fail(EIO);
    f->inode->dirty = true;
    f->inode->size = MAX(f->inode->size, offset + len);
    return 0;
}

static int stat_fill(const struct inode *n, struct stat *st)
{
    memset(st, 0, sizeof *st);
    st->st_mode = n->dir ? S_IFDIR | 0700 : S_IFREG | 0600;
    st->st_size = (off_t)n->size;
    st->st_ino = n->number;
    st->st_nlink = 1;
    st->st_blksize = (blksize_t)PAGE;
    st->st_blocks = (blkcnt_t)((n->size + SECTOR - 1) / SECTOR);
    return 0;
}

int disk_stat(const char *path, struct stat *st)
{
    struct disk *d = disk_of_path(path);
    const struct inode *n = d != NULL ? name_inode(d, path) : NULL;
    return n == NULL ? fail(ENOENT) : stat_fill(n, st);
}

int disk_fstat(int fd, struct stat *st)
{
    return stat_fill(disk_fd(fd)->inode, st);
}

int disk_mkdir(const char *path)
{
    struct disk *d = disk_of_path(path);
    if (d == NULL)
        return fail(ENOENT);
    if (name_inode(d, path) != NULL)
        return fail(EEXIST);
    disk_step(d, true);
    if (disk_is_ghost(d))
        return 0;
    struct inode *n = inode_make(d, true);
    name_set(d, path, n); /* directories are made once, at the start: taken as durable */
    return 0;
}

int disk_remove(const char *path, bool dir)
{
    struct disk *d = disk_of_path(path);
    const struct inode *n = d != NULL ? name_inode(d, path) : NULL;
    if (n == NULL)
        return fail(ENOENT);
    disk_step(d, true);
    if (disk_is_ghost(d))
        return 0;
    if (n->dir != dir)
        return fail(dir ? ENOTDIR : EISDIR);
    if (dir) { /* durable at once, as they are made; so what was in it has gone before */
        dir_settle(d, path, 0);
        disk_blobs_remove(path);
    } else {
        undo_add(d, undo_begin(d, path), path);
    }
    name_set(d, path, NULL);
    return 0;
}

int disk_rename(const char *from, const char *to)
{
    struct disk *d = disk_of_path(from);
    struct inode *n = d != NULL ? name_inode(d, from) : NULL;
    if (n == NULL)
        return fail(ENOENT);
    disk_step(d, true);
    if (disk_is_ghost(d))
        return 0;
    n = name_inode(d, from); /* power may just have gone */
    if (n == NULL)
        return fail(ENOENT);
    ASSERT(!n->dir);
    struct undo *u = undo_begin(d, to);
    undo_add(d, u, from);
    undo_add(d, u, to);
    name_set(d, to, n);
    name_set(d, from, NULL);
    return 0;
}

char **disk_list(const char *path, size_t *ret_count)
{
    const struct disk *d = disk_of_path(path);
    size_t len = strlen(path);
    char **list = mem_calloc((d != NULL ? d->name_count : 0) + 1, sizeof *list);
    *ret_count = 0;
    for (size_t i = 0; d != NULL && i < d->name_count; i++) {
        const char *p = d->names[i].path;
        if (strncmp(p, path, len) == 0 && p[len] == '/' && strchr(p + len + 1, '/') == NULL)
            list[(*ret_count)++] = mem_strdup(p + len + 1);
    }
    return list;
}

uint64_t disk_free_bytes(const char *path)
{
    const struct disk *d = disk_of_path(path);
    if (d == NULL || d->room != DISK_ROOM)
        return 0;
    uint64_t all = d->config.capacity_bytes != 0 ? d->config.capacity_bytes : 1024 * GIB;
    uint64_t used = disk_bytes(d);
    return all > used ? all - used : 0;
}
