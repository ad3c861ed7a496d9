/* What a simulated loop asks of a disk: requests of io_uring, carried out when their time has come,
 * or torn when power goes first. */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "sim/disk_int.h"
#include "sim/sched.h"

static uint64_t delay_draw(const struct world_delay *d)
{
    uint64_t ns = d->base_ns + (d->jitter_ns > 0 ? rng_below(&sched->rng, d->jitter_ns) : 0);
    if (sched_chance(d->tail_per_million))
        ns += d->tail_ns;
    return ns;
}

uint64_t disk_begin(const struct io_uring_sqe *sqe, bool ghost)
{
    if (ghost || sqe->opcode == IORING_OP_NOP || !disk_fd_is(sqe->fd))
        return 0;
    const struct fd *f = disk_fd(sqe->fd);
    if (sqe->opcode == IORING_OP_READ)
        return delay_draw(&f->disk->config.read);
    if (sqe->opcode == IORING_OP_FSYNC)
        return delay_draw(&f->disk->config.sync);
    return delay_draw(&f->disk->config.write);
}

static int rename_end(const struct io_uring_sqe *sqe)
{
    char *from = disk_fd_path(sqe->fd, (const char *)(uintptr_t)sqe->addr);
    char *to = disk_fd_path((int)sqe->len, (const char *)(uintptr_t)sqe->off);
    int rc = disk_fd(sqe->fd)->ghost ? 0 : disk_rename(from, to);
    mem_free(from);
    mem_free(to);
    return rc;
}

int disk_end(const struct io_uring_sqe *sqe)
{
    long rc = -1;
    void *addr = (void *)(uintptr_t)sqe->addr;
    switch (sqe->opcode) {
    case IORING_OP_NOP:
        return 0;
    case IORING_OP_WRITE:
        rc = disk_pwrite(sqe->fd, addr, sqe->len, sqe->off,
                         ((unsigned)sqe->rw_flags & RWF_DSYNC) != 0);
        break;
    case IORING_OP_READ:
        rc = disk_pread(sqe->fd, addr, sqe->len, sqe->off);
        break;
    case IORING_OP_FSYNC:
        rc = disk_fsync(sqe->fd);
        break;
    case IORING_OP_FALLOCATE:
        rc = disk_allocate(sqe->fd, sqe->off, sqe->addr);
        break;
    case IORING_OP_RENAMEAT:
        rc = rename_end(sqe);
        break;
    default:
        UNREACHABLE();
    }
    return rc < 0 ? -errno : (int)rc;
}

void disk_tear(const struct io_uring_sqe *sqe)
{
    if (sqe->opcode != IORING_OP_WRITE || !disk_fd_is(sqe->fd))
        return;
    struct inode *n = disk_fd(sqe->fd)->inode;
    const uint8_t *from = (const uint8_t *)(uintptr_t)sqe->addr;
    uint64_t mode = rng_below(&sched->rng, 4); /* nothing, all, a prefix, any of the sectors */
    size_t stop = mode == 2 ? rng_below(&sched->rng, sqe->len + 1) : sqe->len;
    for (size_t at = 0; mode != 0 && at < stop; at += SECTOR)
        if (mode != 3 || rng_below(&sched->rng, 2) == 0)
            disk_inode_write(n, sqe->off + at, from + at, MIN(SECTOR, sqe->len - at), true);
}
