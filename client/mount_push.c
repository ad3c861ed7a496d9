/* What the site tells the mount: changes, granted locks, and that it is there again. */
#include "base/log.h"
#include "client/fuse_ops.h"
#include "client/mount_locks.h"

void mount_take_inval(struct mount *m, const struct fs_inval *v)
{
    /* First the clock: replies that are on their way now fill no cache (C2). */
    inode_clock_hit(&m->clock, v->oid);
    struct inode *i = v->content ? inode_table_find(m->inodes, v->oid) : NULL;
    if (i == NULL)
        return;
    file_invalidate(m->io, i);
    inode_unref(m->inodes, i);
}

void mount_push(void *ctx, uint16_t type, uint64_t id, const struct fs_reply *push)
{
    struct mount *m = ctx;
    switch (type) {
    case PUSH_INVALIDATE:
        log_debug(LOG_CLIENT, "invalidate", "push=%llu count=%u", (unsigned long long)id,
                  push->inval_count);
        for (uint32_t i = 0; i < push->inval_count; i++)
            mount_take_inval(m, &push->invals[i]);
        notifier_push(m->notifier, push->number2 != 0 ? push->number2 : id, push->invals,
                      push->inval_count);
        break;
    case PUSH_RECALL:
        for (uint32_t i = 0; i < push->inval_count; i++) {
            /* First the clock: a file that we are just being told of is not held any more. */
            inode_clock_hit(&m->clock, push->invals[i].oid);
            recaller_push(m->recaller, i + 1 == push->inval_count ? push->number2 : 0,
                          push->invals[i].oid);
        }
        break;
    case PUSH_FLUSH:
        flusher_push(m->flusher, push->number2);
        break;
    case PUSH_LOCK_GRANTED:
        lock_waits_granted(m->lock_waits, push->number2, push->rc);
        break;
    default: /* from a newer site */
        log_debug(LOG_CLIENT, "push_unknown", "type=%u", type);
        break;
    }
}

void mount_recover(void *ctx, bool new_session)
{
    struct mount *m = ctx;
    size_t count;
    /* With this nothing is believed any more that is known of names, attributes and contents. */
    inode_clock_hit_all(&m->clock);
    struct inode **files = fileio_files(m->io, &count);
    for (size_t i = 0; i < count; i++) {
        /* A site that started anew does not know what it held for us. */
        if (file_keep_end(files[i]))
            recaller_push(m->recaller, 0, files[i]->oid);
        file_reopen(m->io, files[i]);
    }
    lock_waits_recover(m->lock_waits);
    forgetter_back(m->forgetter);
    notifier_everything(m->notifier, files, count);
    inode_unref_each(m->inodes, files, count);
    mem_free(files);
    log_info(LOG_CLIENT, "recovered", "files=%zu inodes=%zu new_session=%d", count,
             inode_table_count(m->inodes), new_session);
}

void mount_lost(void *ctx, uint16_t type, struct oid oid, int rc)
{
    struct mount *m = ctx;
    log_error(LOG_CLIENT, "change_lost", "ino=%llu type=%u rc=%s: %s",
              (unsigned long long)oid_ino(oid), type, err_name(rc), err_text(rc));
    struct inode *i = inode_table_find(m->inodes, oid);
    if (i != NULL && (type == RPC_COMMIT || type == RPC_CREATE))
        file_lost(i, rc);
    inode_unref(m->inodes, i);
}

void mount_made_again(void *ctx, struct oid oid)
{
    struct mount *m = ctx;
    struct inode *i = inode_table_find(m->inodes, oid);
    file_made_again(m->io, i, oid);
    inode_unref(m->inodes, i);
}
