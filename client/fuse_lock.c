/* Locks: the site decides, for all its mounts. A request that has to wait keeps no thread: it is
 * answered when the site grants it, or when the caller is interrupted.
 *
 *            queued                granted
 *  request ---------> waiting ---------------> answered 0
 *      |                 |  interrupt -> cancel -> answered EINTR (or 0: granted meanwhile)
 *      +-> answered at once
 *
 * Getting a lock makes the mount look at the file anew; before one is released what is dirty is
 * committed: so processes that lock see each other's data. */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

#include "client/fuse_ops.h"
#include "client/mount_locks.h"

#include "base/assert.h"
#include "base/cond.h"
#include "base/log.h"

#define TYPE_READ 0u
#define TYPE_WRITE 1u
#define TYPE_UNLOCK 2u
#define RELEASE_PATIENCE_NS (10u * NS_PER_MS)
#define SETTLE_SLICE_NS (20u * NS_PER_MS) /* between two looks whether the caller gives up */

struct lock_wait {
    struct mount *m;
    fuse_req_t req;
    struct inode *inode; /* referenced */
    struct fs_lock lock;
    bool flock;
    uint64_t handle; /* of the open file */
    uint64_t number; /* of the request at the site */
    /* Under the table's lock. */
    bool queued;      /* the site said that it waits: an end may be answered */
    bool ended;       /* granted or refused before that */
    bool cancelling;  /* a thread is asking the site to forget it */
    bool interrupted; /* the caller gave up before it was queued */
    bool given_up; /* and was told so: the site may have it, or take it yet; no request any more */
    int rc;        /* when ended */
    struct lock_wait *next;
};
struct lock_waits {
    struct mount *m;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t cancel;
    pthread_cond_t settled; /* one that was given up is out of the way */
    pthread_t canceller;    /* asks the site; interrupts must not wait */
    struct lock_wait *first;
    bool stopping;
};

/* ---- what is held ---- */

/* Lock held. */
static void wait_add(struct lock_waits *t, struct lock_wait *w)
{
    w->next = t->first;
    t->first = w;
}

static int ask(struct mount *m, struct lock_wait *w, uint32_t flags, uint32_t *ret_flags)
{
    struct conn_call call;
    conn_call_init(&call, RPC_LOCK);
    call.req.oid = w->inode->oid;
    call.req.lock = w->lock;
    call.req.flags = flags | (w->flock ? LOCK_FLOCK : 0);
    call.req.pid = w->lock.pid;
    pthread_mutex_lock(&m->lock_waits->lock);
    w->number = conn_call_number(m->conn, &call);
    if ((flags & LOCK_WAIT) != 0) /* the grant may come before the reply */
        wait_add(m->lock_waits, w);
    pthread_mutex_unlock(&m->lock_waits->lock);
    int rc = conn_call_run(m->conn, &call);
    *ret_flags = call.reply.flags;
    conn_call_deinit(&call);
    return rc;
}

static void note(struct mount *m, const struct lock_wait *w)
{
    const struct held_lock h = {
        .oid = w->inode->oid, .lock = w->lock, .flock = w->flock, .handle = w->handle};
    held_locks_set(&m->locks, &h);
}

/* We hold it now: what others committed before they let go is to be seen. */
static void granted(struct mount *m, const struct lock_wait *w)
{
    note(m, w);
    struct fs_attr a;
    inode_attr_drop(w->inode, &m->clock);
    if (op_attr(m, w->inode, &a) != 0)
        return; /* the next access says why */
    if (file_check(m->io, w->inode, a.version))
        notifier_pages(m->notifier, w->inode->id);
}

static void wait_free(struct lock_wait *w)
{
    op_unref(w->m, w->inode);
    mem_free(w);
}

/* Takes `w` off the list. Lock held. */
static void wait_remove(struct lock_waits *t, struct lock_wait *w)
{
    struct lock_wait **at = &t->first;
    while (*at != NULL && *at != w)
        at = &(*at)->next;
    if (*at != NULL)
        *at = w->next;
}

static void on_interrupt(fuse_req_t req, void *data)
{
    struct lock_wait *w = data;
    struct lock_waits *t = w->m->lock_waits;
    (void)req;
    pthread_mutex_lock(&t->lock);
    w->interrupted = true;
    pthread_cond_signal(&t->cancel);
    pthread_mutex_unlock(&t->lock);
}

static void wait_answer(struct lock_wait *w, int rc)
{
    fuse_req_interrupt_func(w->req, NULL, NULL);
    (void)fuse_reply_err(w->req, rc == ERR_CANCELLED ? EINTR : op_errno(rc)); /* may be gone */
    wait_free(w);
}

/* ---- requests ---- */

/* Lock held. */
static bool settles(const struct lock_waits *t, const struct lock_wait *w)
{
    for (const struct lock_wait *x = t->first; x != NULL; x = x->next)
        if (x->given_up && x->flock == w->flock && x->lock.owner == w->lock.owner &&
            oid_equal(x->inode->oid, w->inode->oid))
            return true;
    return false;
}

/* What this owner gave up is let go before he asks again, or the one would take the other's. False:
 * he gave up again. */
static bool settle(struct lock_waits *t, const struct lock_wait *w)
{
    bool interrupted = false;
    pthread_mutex_lock(&t->lock);
    while (settles(t, w) && !interrupted) {
        (void)cond_wait_ns(&t->settled, &t->lock, SETTLE_SLICE_NS);
        interrupted = fuse_req_interrupted(w->req) || fuse_session_exited(w->m->session);
    }
    pthread_mutex_unlock(&t->lock);
    return !interrupted;
}

/* The caller gave up while the site was away, which may have had his request all the same: he is
 * told, and the canceller sees to it. */
static void give_up(struct lock_wait *w, bool listed)
{
    struct lock_waits *t = w->m->lock_waits;
    fuse_req_t req = w->req;
    fuse_req_interrupt_func(req, NULL, NULL);
    pthread_mutex_lock(&t->lock);
    w->req = NULL;
    w->given_up = w->queued = w->interrupted = true;
    if (!listed)
        wait_add(t, w);
    pthread_cond_signal(&t->cancel);
    pthread_mutex_unlock(&t->lock);
    op_reply(req, ERR_CANCELLED);
}

/* Asks, waiting when `sleep`. Answers; takes `w`. */
static void set_lock(struct lock_wait *w, bool sleep)
{
    struct mount *m = w->m;
    struct lock_waits *t = m->lock_waits;
    fuse_req_t req = w->req;
    uint32_t flags = 0;
    if (!settle(t, w)) {
        wait_free(w);
        op_reply(req, ERR_CANCELLED);
        return;
    }
    if (!sleep) {
        int rc = ask(m, w, 0, &flags);
        /* close(2) does not wait for the kernel to tell us of the last close of an open file: its
         * lock may go in a moment. */
        if (rc == ERR_WOULD_BLOCK && held_locks_await(&m->locks, w->inode->oid, w->lock.owner,
                                                      w->flock, RELEASE_PATIENCE_NS))
            rc = ask(m, w, 0, &flags);
        if (rc == ERR_CANCELLED) {
            give_up(w, false);
            return;
        }
        if (rc == 0)
            granted(m, w);
        wait_free(w);
        op_reply(req, rc);
        return;
    }
    fuse_req_interrupt_func(req, on_interrupt, w);
    int rc = ask(m, w, LOCK_WAIT, &flags);
    conn_thread_interrupt(NULL, NULL);
    pthread_mutex_lock(&t->lock);
    bool waits = rc == 0 && (flags & REPLY_QUEUED) != 0 && !w->ended;
    bool gave_up = rc == ERR_CANCELLED && !w->ended;
    if (waits) {
        w->queued = true;
        if (w->interrupted)
            pthread_cond_signal(&t->cancel);
    } else if (!gave_up) {
        if (w->ended)
            rc = w->rc;
        wait_remove(t, w);
    }
    pthread_mutex_unlock(&t->lock);
    if (gave_up)
        give_up(w, true);
    if (waits || gave_up)
        return;
    if (rc == 0)
        granted(m, w);
    wait_answer(w, rc);
}

/* False: the caller gave up while the site was away. He has it still, as far as he knows, and so do
 * we: it goes with the file, or when he tries again. */
static bool unlock(struct lock_wait *w)
{
    struct mount *m = w->m;
    uint32_t flags;
    /* Errors of the commit are close's and fsync's to tell. */
    (void)file_flush(m->io, w->inode);
    int rc = ask(m, w, 0, &flags);
    bool over = rc != ERR_CANCELLED || fuse_session_exited(m->session); /* then nobody asks again */
    if (over)
        note(m, w);
    fuse_req_t req = w->req;
    wait_free(w);
    if (req != NULL)
        op_reply(req, rc);
    return over;
}

static struct lock_wait *wait_new(struct mount *m, fuse_req_t req, struct inode *i, bool flock)
{
    struct lock_wait *w = mem_calloc(1, sizeof *w);
    *w = (struct lock_wait){.m = m, .req = req, .inode = i, .flock = flock};
    return w;
}

static bool release(struct mount *m, struct inode *i, uint64_t owner, bool flock)
{
    if (!held_locks_has(&m->locks, i->oid, owner, flock))
        return true;
    struct lock_wait *w = wait_new(m, NULL, inode_ref(m->inodes, i), flock);
    w->lock = (struct fs_lock){.owner = owner, .end = UINT64_MAX, .type = TYPE_UNLOCK};
    return unlock(w);
}

void locks_release(struct mount *m, struct inode *i, uint64_t owner, bool flock)
{
    (void)release(m, i, owner, flock); /* what was interrupted goes with the file */
}

void locks_release_handle(struct mount *m, struct inode *i, uint64_t handle)
{
    uint64_t owner;
    while (held_locks_of_handle(&m->locks, i->oid, handle, &owner) && release(m, i, owner, false))
        ;
}

static void lock_of(const struct flock *l, uint64_t owner, struct fs_lock *ret)
{
    *ret = (struct fs_lock){.owner = owner,
                            .start = (uint64_t)l->l_start,
                            .end = l->l_len == 0 ? UINT64_MAX
                                                 : (uint64_t)l->l_start + (uint64_t)l->l_len - 1,
                            .pid = (uint32_t)l->l_pid,
                            .type = l->l_type == F_RDLCK   ? TYPE_READ
                                    : l->l_type == F_WRLCK ? TYPE_WRITE
                                                           : TYPE_UNLOCK};
}

void op_getlk(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi, struct flock *lock)
{
    struct mount *m = op_begin(req);
    struct inode *i = op_inode(req, m, id);
    if (i == NULL)
        return;
    struct conn_call call;
    conn_call_init(&call, RPC_LOCK_TEST);
    call.req.oid = i->oid;
    lock_of(lock, fi->lock_owner, &call.req.lock);
    int rc = conn_call_run(m->conn, &call);
    if (rc == 0) {
        const struct fs_lock *l = &call.reply.lock;
        struct flock out = {.l_type = F_UNLCK};
        if (call.reply.has_lock && l->type != TYPE_UNLOCK)
            out = (struct flock){.l_type = l->type == TYPE_READ ? F_RDLCK : F_WRLCK,
                                 .l_whence = SEEK_SET,
                                 .l_start = (off_t)l->start,
                                 .l_len = l->end >= INT64_MAX ? 0 : (off_t)(l->end - l->start + 1),
                                 .l_pid = (pid_t)l->pid};
        conn_thread_interrupt(NULL, NULL);
        (void)fuse_reply_lock(req, &out); /* the caller may be gone */
    } else {
        op_reply(req, rc);
    }
    conn_call_deinit(&call);
    op_unref(m, i);
}

void op_setlk(
    fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi, struct flock *lock, int wait)
{
    struct mount *m = op_begin(req);
    struct inode *i = op_inode(req, m, id);
    if (i == NULL)
        return;
    struct lock_wait *w = wait_new(m, req, i, false);
    w->handle = fi->fh;
    lock_of(lock, fi->lock_owner, &w->lock);
    if (w->lock.type == TYPE_UNLOCK)
        (void)unlock(w); /* he is told */
    else
        set_lock(w, wait != 0);
}

void op_flock(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi, int op)
{
    struct mount *m = op_begin(req);
    struct inode *i = op_inode(req, m, id);
    if (i == NULL)
        return;
    struct lock_wait *w = wait_new(m, req, i, true);
    int what = op & (LOCK_SH | LOCK_EX | LOCK_UN);
    /* Not the kernel's lock_owner: it is the address of its open file, which may be used again
     * before we hear of the release of the one before. */
    w->lock = (struct fs_lock){.owner = ((const struct open_file *)(uintptr_t)fi->fh)->id,
                               .end = UINT64_MAX,
                               .type = what == LOCK_SH   ? TYPE_READ
                                       : what == LOCK_EX ? TYPE_WRITE
                                                         : TYPE_UNLOCK};
    if (w->lock.type == TYPE_UNLOCK)
        (void)unlock(w); /* he is told */
    else
        set_lock(w, (op & LOCK_NB) == 0);
}

/* ---- the site's word, and the caller's ---- */

void lock_waits_granted(struct lock_waits *t, uint64_t number, int rc)
{
    pthread_mutex_lock(&t->lock);
    struct lock_wait *w = t->first;
    while (w != NULL && w->number != number)
        w = w->next;
    bool mine = false;
    if (w != NULL) {
        w->ended = true;
        w->rc = rc;
        mine = w->queued && !w->cancelling && !w->given_up;
        if (mine)
            wait_remove(t, w);
    }
    if (w != NULL && !mine)
        pthread_cond_signal(&t->cancel);
    pthread_mutex_unlock(&t->lock);
    if (!mine)
        return;
    if (rc == 0) /* the push thread may not ask the site: no look at the attributes here */
        note(w->m, w);
    wait_answer(w, rc);
}

/* The caller gave up, and the site has no such request to forget: it was granted, or a site that
 * started anew never heard of it. Nobody else sees `w` any more. */
static int after_all(struct lock_wait *w)
{
    uint32_t flags;
    return ask(w->m, w, 0, &flags) == 0 ? 0 : ERR_CANCELLED;
}

/* One that was given up, of which the site has nothing in line. `taken`: it may have granted it. If
 * its owner holds another lock of the file, this one goes with that. Returns with the lock held. */
static void let_go(struct lock_waits *t, struct lock_wait *w, bool taken)
{
    uint32_t flags;
    if (taken && !held_locks_has(&t->m->locks, w->inode->oid, w->lock.owner, w->flock)) {
        w->lock.type = TYPE_UNLOCK;
        (void)ask(t->m, w, 0, &flags); /* the site is gone, or has let it go */
    }
    pthread_mutex_lock(&t->lock);
    wait_remove(t, w);
    pthread_cond_broadcast(&t->settled);
    pthread_mutex_unlock(&t->lock);
    wait_free(w);
    pthread_mutex_lock(&t->lock);
}

/* The caller gave up: ask the site to forget the request. Lock held, and again on return. */
static void cancel_one(struct lock_waits *t, struct lock_wait *w)
{
    struct conn_call call;
    conn_call_init(&call, RPC_LOCK_CANCEL);
    call.req.oid = w->inode->oid;
    call.req.number2 = w->number; /* for good: see wait_again() */
    w->cancelling = true;
    pthread_mutex_unlock(&t->lock);
    int rc = conn_call_run(t->m->conn, &call);
    conn_call_deinit(&call);
    bool gone = rc == 0 || err_class(rc) == ERR_CLASS_GONE;
    if (w->given_up) {
        let_go(t, w, !gone);
        return;
    }
    pthread_mutex_lock(&t->lock);
    wait_remove(t, w);
    pthread_mutex_unlock(&t->lock);
    int result = gone ? ERR_CANCELLED : w->ended ? w->rc : after_all(w);
    if (result == 0)
        note(t->m, w);
    wait_answer(w, result);
    pthread_mutex_lock(&t->lock);
}

static void *canceller_main(void *arg)
{
    struct lock_waits *t = arg;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        struct lock_wait *w = t->first;
        while (w != NULL && !(w->queued && w->interrupted && !w->cancelling))
            w = w->next;
        if (w != NULL) {
            cancel_one(t, w);
        } else {
            if (t->stopping)
                break;
            pthread_cond_wait(&t->cancel, &t->lock);
        }
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* Asks again for what is held. */
static void reclaim(struct mount *m)
{
    size_t count;
    struct held_lock *held = held_locks_all(&m->locks, &count);
    for (size_t k = 0; k < count; k++) {
        struct conn_call call;
        conn_call_init(&call, RPC_LOCK);
        call.req.oid = held[k].oid;
        call.req.lock = held[k].lock;
        call.req.flags = LOCK_RECLAIM | (held[k].flock ? LOCK_FLOCK : 0);
        int rc = conn_call_run(m->conn, &call);
        conn_call_deinit(&call);
        if (rc == 0)
            continue;
        log_warn(LOG_CLIENT, "lock_lost", "rc=%s: %s", err_name(rc), err_text(rc));
        held[k].lock.type = TYPE_UNLOCK;
        held_locks_set(&m->locks, &held[k]);
    }
    mem_free(held);
}

/* One that waits stands in line again, under a new number, unless its caller gave up meanwhile:
 * then nobody would be there to take it. */
static void wait_again(struct lock_waits *t, const struct lock_wait *copy)
{
    struct conn_call call;
    conn_call_init(&call, RPC_LOCK_CANCEL);
    call.req.oid = copy->inode->oid;
    call.req.number2 = copy->number;
    conn_call_tell(t->m->conn, &call); /* the site may not know it any more */
    conn_call_deinit(&call);
    conn_call_init(&call, RPC_LOCK);
    call.req.oid = copy->inode->oid;
    call.req.lock = copy->lock;
    call.req.flags = LOCK_WAIT | (copy->flock ? LOCK_FLOCK : 0);
    pthread_mutex_lock(&t->lock);
    struct lock_wait *w = t->first;
    while (w != NULL && (w->number != copy->number || w->cancelling))
        w = w->next;
    uint64_t number = w == NULL ? 0 : conn_call_number(t->m->conn, &call);
    if (w != NULL)
        w->number = number;
    pthread_mutex_unlock(&t->lock);
    if (w != NULL) {
        int rc = conn_call_run(t->m->conn, &call);
        bool queued = rc == 0 && (call.reply.flags & REPLY_QUEUED) != 0;
        if (!queued && rc != ERR_UNREACHABLE && rc != ERR_CLOSED)
            lock_waits_granted(t, number, rc);
    }
    conn_call_deinit(&call);
}

void lock_waits_recover(struct lock_waits *t)
{
    reclaim(t->m);
    pthread_mutex_lock(&t->lock);
    size_t n = 0;
    for (const struct lock_wait *w = t->first; w != NULL; w = w->next)
        n++;
    struct lock_wait *waiting = mem_calloc(n + 1, sizeof *waiting);
    n = 0;
    for (const struct lock_wait *w = t->first; w != NULL; w = w->next) {
        if (!w->queued || w->ended || w->cancelling || w->given_up)
            continue;
        waiting[n] = *w;
        (void)inode_ref(t->m->inodes, w->inode);
        n++;
    }
    pthread_mutex_unlock(&t->lock);
    for (size_t k = 0; k < n; k++) {
        wait_again(t, &waiting[k]);
        op_unref(t->m, waiting[k].inode);
    }
    mem_free(waiting);
}

struct lock_waits *lock_waits_new(struct mount *m)
{
    struct lock_waits *t = mem_calloc(1, sizeof *t);
    t->m = m;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->cancel, NULL);
    pthread_cond_init(&t->settled, NULL);
    int rc = pthread_create(&t->canceller, NULL, canceller_main, t);
    ASSERT_EQ(rc, 0);
    return t;
}

void lock_waits_free(struct lock_waits *t)
{
    if (t == NULL)
        return;
    pthread_mutex_lock(&t->lock);
    t->stopping = true;
    pthread_cond_signal(&t->cancel);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->canceller, NULL);
    while (t->first != NULL) {
        struct lock_wait *w = t->first;
        t->first = w->next;
        wait_answer(w, ERR_CANCELLED);
    }
    pthread_cond_destroy(&t->settled);
    pthread_cond_destroy(&t->cancel);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}
