/* The order in which the parts of a mount start and end. */
#include "client/fuse_ops.h"
#include "client/mount_locks.h"

#define COMMIT_AGE_MS 2000u
#define WORKERS                                                                                    \
    8u /* for two processors more than enough to seal; but they wait for the disk, too */
#define END_PATIENCE_NS (20u * NS_PER_SEC) /* for a site that is away when the mount ends */

static void evicted(void *ctx, struct inode *i)
{
    struct mount *m = ctx;
    if (m->io != NULL)
        file_evict(m->io, i);
    if (m->forgetter != NULL && !oid_is_root(i->oid))
        forgetter_add(m->forgetter, i->oid);
}

static void pages_changed(void *ctx, struct inode *i)
{
    struct mount *m = ctx;
    notifier_pages(m->notifier, i->id);
}

int mount_parts_start(struct mount *m, const struct conn_config *config, struct err_detail *d)
{
    const struct conn_events events = {.push = mount_push,
                                       .recover = mount_recover,
                                       .lost = mount_lost,
                                       .made_again = mount_made_again,
                                       .ctx = m};
    mem_retain((size_t)(m->options.cache_mb * MIB));
    inode_clock_init(&m->clock);
    held_locks_init(&m->locks);
    m->inodes = inode_table_new(evicted, m);
    /* The root is there for good. */
    inode_unref(m->inodes, inode_table_enter(m->inodes, OID_ROOT, INODE_ROOT_ID, 1));
    m->lock_waits = lock_waits_new(m);
    int rc = notifier_new(m, &m->notifier);
    if (rc == 0)
        rc = conn_open(&m->conn, config, &events, d);
    if (rc != 0)
        return rc;
    const struct fileio_config io = {.conn = m->conn,
                                     .clock = &clock_os,
                                     .inodes = m->inodes,
                                     .inode_clock = &m->clock,
                                     .flight = &m->flight,
                                     .fs_key = conn_fs_key(m->conn),
                                     .memory_bytes = (size_t)(m->options.cache_mb * MIB),
                                     .worker_count = WORKERS,
                                     .commit_age_ms = COMMIT_AGE_MS,
                                     .pages_changed = pages_changed,
                                     .ctx = m};
    rc = fileio_new(&m->io, &io);
    if (rc == 0)
        rc = recaller_new(m, &m->recaller);
    if (rc == 0)
        rc = flusher_new(m, &m->flusher);
    if (rc == 0)
        rc = forgetter_new(m, &m->forgetter);
    return rc == 0 ? conn_start(m->conn) : rc;
}

static bool out_of_patience(void *arg)
{
    return clock_mono_ns(&clock_os) > *(const uint64_t *)arg;
}

int mount_parts_end(struct mount *m)
{
    uint64_t until = clock_mono_ns(&clock_os) + END_PATIENCE_NS;
    int rc = 0;
    conn_thread_interrupt(out_of_patience, &until);
    if (m->io != NULL)
        rc = fileio_sync_all(m->io);
    if (rc == 0 && m->conn != NULL && conn_is_ahead(m->conn))
        rc = op_simple(m, RPC_SYNC, (struct oid){0});
    if (rc == 0 && m->io != NULL)
        flusher_tell(m, 0, true);
    conn_thread_interrupt(NULL, NULL);
    if (m->conn != NULL)
        conn_stop(m->conn);
    pruner_free(m->pruner);
    m->pruner = NULL;
    forgetter_stop(m->forgetter);
    recaller_stop(m->recaller);
    flusher_stop(m->flusher);
    if (m->io != NULL)
        fileio_stop(m->io);
    if (m->conn != NULL)
        conn_join(m->conn); /* what the site pushes goes to these: */
    lock_waits_free(m->lock_waits);
    m->lock_waits = NULL;
    notifier_free(m->notifier);
    forgetter_free(m->forgetter); /* nor is there a thread that lets go of an inode */
    m->forgetter = NULL;
    /* A forced end leaves open handles behind, of which the kernel will not speak again: what they
     * refer to goes with the process. */
    if (!inode_table_referenced(m->inodes)) {
        inode_table_free(m->inodes);
        fileio_free(m->io);
        session_free(m);
        conn_free(m->conn);
        flusher_free(m->flusher);
        m->flusher = NULL;
        recaller_free(m->recaller); /* the push thread is gone, which handed it work */
        m->recaller = NULL;
        held_locks_deinit(&m->locks);
        inode_clock_deinit(&m->clock);
    }
    return rc;
}
