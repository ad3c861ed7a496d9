/* Attributes of new files, kept until the first commit.
 *
 * Unpacking sets owner, mode and times of each file between its last write and its close. A file
 * that this mount has just made nobody else can have looked at: the site holds it for us
 * (CREATE_HOLDS), so what is set is kept here and goes with the commit.
 *
 *   made -> may keep -> kept -> sent with COMMIT, or alone (closed empty, recalled, reconnected)
 *
 * The hold ends with whatever we send, so from then on nothing more is kept. What failed stays kept
 * until it is tried again, as content does. */
#include <sys/stat.h>

#include "base/log.h"
#include "client/fileio_int.h"

void file_keep_begin(struct fileio *io, struct inode *i, uint64_t since)
{
    struct file *f = file_of(io, i);
    if (!conn_holds(io->config.conn))
        return;
    pthread_mutex_lock(&f->lock);
    /* Recalled, or the site was away, before its answer was looked at: then it is not held. */
    f->may_keep = f->held == FILE_HELD && inode_clock_fresh(io->config.inode_clock, i->oid, since);
    pthread_mutex_unlock(&f->lock);
}

bool file_may_keep(struct inode *i)
{
    struct file *f = file_if_any(i);
    if (f == NULL)
        return false;
    pthread_mutex_lock(&f->lock);
    bool may = f->may_keep;
    pthread_mutex_unlock(&f->lock);
    return may;
}

static void merge(struct fs_set *to, const struct fs_set *s)
{
    if ((s->set & SET_MODE) != 0)
        to->mode = s->mode;
    if ((s->set & SET_UID) != 0)
        to->uid = s->uid;
    if ((s->set & SET_GID) != 0)
        to->gid = s->gid;
    if ((s->set & SET_ATIME) != 0)
        to->atime_ns = s->atime_ns;
    if ((s->set & SET_MTIME) != 0)
        to->mtime_ns = s->mtime_ns;
    to->set |= s->set;
}

bool file_keep(struct inode *i, const struct fs_attr *a, const struct fs_set *s)
{
    struct file *f = file_if_any(i);
    uint32_t modes = a->mode | ((s->set & SET_MODE) != 0 ? s->mode : 0);
    /* Set-id bits and ACLs have rules of their own, which the site knows. */
    if (f == NULL || !S_ISREG(a->mode) || a->has_acl || (modes & (S_ISUID | S_ISGID)) != 0 ||
        s->set == 0 || (s->set & ~SET_KEPT) != 0 || !conn_in_touch(f->io->config.conn))
        return false;
    pthread_mutex_lock(&f->lock);
    bool keep = f->may_keep && f->handles > 0;
    if (keep) {
        merge(&f->kept, s);
        f->kept.ctime_ns = (int64_t)clock_wall_ns(f->io->config.clock);
        file_account(f);
    }
    pthread_mutex_unlock(&f->lock);
    return keep;
}

bool file_keep_end(struct inode *i)
{
    struct file *f = file_if_any(i);
    if (f == NULL)
        return false;
    pthread_mutex_lock(&f->lock);
    f->may_keep = false;
    bool kept = f->kept.set != 0;
    pthread_mutex_unlock(&f->lock);
    return kept;
}

int file_settle(struct inode *i)
{
    struct file *f = file_if_any(i);
    bool durable = false;
    int rc = 0;
    if (f == NULL)
        return 0;
    pthread_mutex_lock(&f->lock);
    f->may_keep = false;
    while (f->kept_busy)
        pthread_cond_wait(&f->moved, &f->lock);
    if (f->kept.set != 0)
        rc = file_kept_send(f, &durable);
    pthread_mutex_unlock(&f->lock);
    return rc;
}

static int set_at_site(struct file *f, const struct fs_set *s, bool *durable)
{
    struct fileio *io = f->io;
    uint64_t since = inode_clock_now(io->config.inode_clock);
    struct conn_call call;
    conn_call_init(&call, RPC_SETATTR);
    call.req.oid = f->inode->oid;
    call.req.set = s->set;
    call.req.mode = s->mode;
    call.req.uid = s->uid;
    call.req.gid = s->gid;
    call.req.atime_ns = s->atime_ns;
    call.req.mtime_ns = s->mtime_ns;
    call.durable = *durable;
    int rc = conn_call_run(io->config.conn, &call);
    if (rc == 0 && call.reply.has_attr)
        inode_attr_changed(f->inode, io->config.inode_clock, &call.reply.attr, since);
    *durable = rc == 0 && (call.reply.flags & REPLY_AHEAD) == 0;
    conn_call_deinit(&call);
    return rc == ERR_NOT_FOUND ? ERR_STALE : rc;
}

int file_kept_send(struct file *f, bool *durable)
{
    struct fs_set s = f->kept;
    f->may_keep = false;
    f->kept_busy = true;
    pthread_mutex_unlock(&f->lock);
    int rc = set_at_site(f, &s, durable);
    pthread_mutex_lock(&f->lock);
    f->kept_busy = false;
    pthread_cond_broadcast(&f->moved);
    if (rc == 0) {
        /* Content that is older than the time that was set will be committed later than that was
         * sent: its commit says the time once more. */
        f->kept.set &= file_is_dirty_locked(f) ? SET_MTIME : 0;
    } else {
        log_error(LOG_CLIENT, "attributes_failed", "ino=%llu rc=%s: %s",
                  (unsigned long long)f->inode->id, err_name(rc), err_text(rc));
        f->error = rc;
        f->error_count++;
        if (file_gives_up(f, rc))
            f->kept.set = 0;
    }
    file_account(f);
    return rc;
}

int file_commit(struct file *f, struct commit *c, struct base **ret_base)
{
    pthread_mutex_lock(&f->lock);
    f->may_keep = false;
    while (f->kept_busy)
        pthread_cond_wait(&f->moved, &f->lock);
    c->kept = f->kept;
    f->kept_busy = true;
    pthread_mutex_unlock(&f->lock);
    int rc = content_commit(f->io, f->inode, c, ret_base);
    pthread_mutex_lock(&f->lock);
    if (rc == 0)
        f->kept.set = 0;
    f->kept_busy = false;
    pthread_cond_broadcast(&f->moved);
    pthread_mutex_unlock(&f->lock);
    return rc;
}
