/* Telling the kernel to drop names, attributes and pages.
 *
 * A job is one push of the site (or a wish of our own). Its calls into the kernel may have to wait
 * for locks that are held by requests we are working on, so they run on threads of their own, as
 * many as are stuck, and a job that meets such a request is acknowledged at once (client/
 * inode_flight.h): names are then outdated by raising the epoch of all names, which needs no lock,
 * or, with an old kernel, a moment later (C3).
 *
 *   queued -> running -> done
 *      \________\__ conflict: epoch + ack by the acker, then on as before
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>

#include "base/assert.h"
#include "base/cond.h"
#include "base/log.h"
#include "client/mount.h"

#define THREADS_MAX 32u
#define NOTIFY_INC_EPOCH 8 /* FUSE_NOTIFY_INC_EPOCH: Linux 6.16 */
#define NOTIFY_PRUNE 9     /* FUSE_NOTIFY_PRUNE: Linux 6.18 */
#define KERNEL_DROPS_NS NS_PER_SEC
#define UNKNOWN_TRIES 8u
#define UNKNOWN_WAIT_NS (500u * 1000u)
#define MUTE_PATIENCE_NS NS_PER_SEC

enum item_kind {
    ITEM_ATTR,
    ITEM_PAGES, /* and attributes */
    ITEM_NAME,
    ITEM_NAMES, /* all of a directory */
    ITEM_ALL    /* pages and attributes of all inodes there are */
};
struct item {
    enum item_kind kind;
    struct inode *inode; /* referenced; the directory of a name */
    char *name;          /* owned */
};
struct job {
    uint64_t push_id; /* 0: nobody waits */
    struct item *items;
    size_t item_count;
    uint64_t *ids; /* whose locks are needed */
    struct flight_job flight;
    /* Under the notifier's lock. */
    bool conflict, queued_ack, acked, done;
    struct job *next, *next_ack;
};
struct notifier {
    struct mount *m;
    pthread_t acker;
    pthread_mutex_t lock; /* guards all below; after the flight tracker's lock */
    bool has_epoch;
    pthread_cond_t work, acks, idle;
    struct job *first, **last; /* to run */
    unsigned queued;           /* of them */
    struct job *ack_first;     /* in conflict: to acknowledge */
    pthread_t threads[THREADS_MAX];
    unsigned thread_count, free_count;
    bool stopping;
    /* The session's descriptor may be used while it hears: see notifier_mute(). */
    enum {
        KERNEL_AWAY, /* not there yet, or not any more: it knows nothing */
        KERNEL_HEARS,
        KERNEL_MUTED
    } kernel;
    unsigned telling;       /* threads that use it now */
    pthread_cond_t hearing; /* `kernel` or `telling` has changed */
};

/* ---- the kernel ---- */

/* Before each use of the session's descriptor. False: there is none, and nobody to be told
 * anything; kernel_leave() follows a true one only. While it is being closed one waits: what the
 * kernel still knows is not to be called forgotten. */
static bool kernel_enter(struct notifier *n)
{
    pthread_mutex_lock(&n->lock);
    while (n->kernel == KERNEL_MUTED)
        pthread_cond_wait(&n->hearing, &n->lock);
    bool hears = n->kernel == KERNEL_HEARS;
    n->telling += hears;
    pthread_mutex_unlock(&n->lock);
    return hears;
}

static void kernel_leave(struct notifier *n)
{
    pthread_mutex_lock(&n->lock);
    if (--n->telling == 0)
        pthread_cond_broadcast(&n->hearing);
    pthread_mutex_unlock(&n->lock);
}

/* A call may be stuck in the kernel until the mount is gone; it has the file by then, and does not
 * care for its number. So this waits for as long as a thread can take on its way there. */
void notifier_mute(struct notifier *n)
{
    uint64_t until = clock_mono_ns(&clock_os) + MUTE_PATIENCE_NS;
    pthread_mutex_lock(&n->lock);
    n->kernel = KERNEL_MUTED;
    while (n->telling > 0 && cond_wait_until(&n->hearing, &n->lock, until))
        ; /* another one is done */
    pthread_mutex_unlock(&n->lock);
}

void notifier_kernel_gone(struct notifier *n)
{
    pthread_mutex_lock(&n->lock);
    n->kernel = KERNEL_AWAY;
    pthread_cond_broadcast(&n->hearing);
    pthread_mutex_unlock(&n->lock);
}

static bool raise_epoch(struct notifier *n)
{
    struct fuse_out_header out = {.len = sizeof out, .error = NOTIFY_INC_EPOCH};
    struct iovec iov = {.iov_base = &out, .iov_len = sizeof out};
    if (!kernel_enter(n))
        return false;
    bool raised = writev(fuse_session_fd(n->m->session), &iov, 1) == (ssize_t)sizeof out;
    kernel_leave(n);
    return raised;
}

void notifier_probe(struct notifier *n)
{
    pthread_mutex_lock(&n->lock);
    n->kernel = KERNEL_HEARS;
    pthread_mutex_unlock(&n->lock);
    bool has_epoch = raise_epoch(n);
    pthread_mutex_lock(&n->lock);
    n->has_epoch = has_epoch;
    pthread_mutex_unlock(&n->lock);
    if (has_epoch)
        return;
    /* Without it a name can outlive its change by as long as the kernel may believe in it. */
    n->m->entry_timeout_s = n->m->entry_timeout_s > 1.0 ? 1.0 : n->m->entry_timeout_s;
    log_warn(LOG_CLIENT, "no_epoch", "this kernel is older than 6.16: names are believed for 1 s");
}

static void pause_ns(struct notifier *n, uint64_t ns)
{
    pthread_mutex_lock(&n->lock);
    (void)cond_wait_ns(&n->idle, &n->lock, ns); /* nobody signals: a pause */
    pthread_mutex_unlock(&n->lock);
}

enum told {
    TOLD,
    TOLD_UNKNOWN, /* the kernel does not know it, or not yet */
    TOLD_NOBODY   /* there is no kernel any more */
};
static enum told inval_inode(struct notifier *n, uint64_t id, off_t offset)
{
    if (!kernel_enter(n))
        return TOLD_NOBODY;
    int rc = fuse_lowlevel_notify_inval_inode(n->m->session, id, offset, 0);
    kernel_leave(n);
    return rc == -ENOENT ? TOLD_UNKNOWN : TOLD;
}

/* The kernel may not have made an inode of our last reply yet: it is then told again. */
static void tell_inode(struct notifier *n, struct inode *i, off_t offset)
{
    for (unsigned tries = 0; tries < UNKNOWN_TRIES; tries++) {
        if (inval_inode(n, i->id, offset) != TOLD_UNKNOWN ||
            inode_table_lookups(n->m->inodes, i->oid) == 0)
            return;
        pause_ns(n, UNKNOWN_WAIT_NS << tries);
    }
}

bool notifier_prune(struct notifier *n, const struct inode_ids *ids)
{
    /* As in linux/fuse.h of 6.18: fuse_notify_prune_out, then the node ids. */
    struct {
        uint32_t count, padding;
        uint64_t spare;
    } prune = {.count = (uint32_t)ids->count};
    size_t len = ids->count * sizeof ids->at[0];
    struct fuse_out_header out = {.len = (uint32_t)(sizeof out + sizeof prune + len),
                                  .error = NOTIFY_PRUNE};
    struct iovec iov[] = {{.iov_base = &out, .iov_len = sizeof out},
                          {.iov_base = &prune, .iov_len = sizeof prune},
                          {.iov_base = (void *)(uintptr_t)ids->at, .iov_len = len}};
    if (!kernel_enter(n))
        return false;
    bool asked = writev(fuse_session_fd(n->m->session), iov, len > 0 ? 3 : 2) == (ssize_t)out.len;
    kernel_leave(n);
    return asked;
}

static bool is_stopping(struct notifier *n)
{
    pthread_mutex_lock(&n->lock);
    bool stopping = n->stopping;
    pthread_mutex_unlock(&n->lock);
    return stopping;
}

/* Those that the kernel may not have made yet, as in tell_inode, all together; what it has dropped,
 * and has not told us of, is among them. */
static void tell_again(struct notifier *n, uint64_t *ids, size_t count)
{
    for (unsigned tries = 0; tries < UNKNOWN_TRIES && count > 0 && !is_stopping(n); tries++) {
        size_t kept = 0;
        pause_ns(n, UNKNOWN_WAIT_NS << tries);
        for (size_t k = 0; k < count; k++) {
            struct inode *i = inode_table_get(n->m->inodes, ids[k]);
            if (i != NULL && inval_inode(n, ids[k], 0) == TOLD_UNKNOWN)
                ids[kept++] = ids[k];
            inode_unref(n->m->inodes, i);
        }
        count = kept;
    }
}

/* A few at a time: nobody waits for this, and there may be many. */
static void tell_walk(struct notifier *n, enum inode_walk which)
{
    struct inode_ids ids;
    uint64_t *again = NULL;
    size_t again_count = 0, again_cap = 0, at = 0;
    bool more = true;
    while (more && !is_stopping(n)) {
        more = inode_table_ids(n->m->inodes, &at, which, &ids);
        for (size_t k = 0; k < ids.count; k++) {
            enum told told = inval_inode(n, ids.at[k], 0);
            more = more && told != TOLD_NOBODY;
            if (told != TOLD_UNKNOWN)
                continue;
            if (again_count == again_cap) {
                again_cap = MAX(64u, again_cap * 2);
                again = mem_realloc(again, again_cap * sizeof *again);
            }
            again[again_count++] = ids.at[k];
        }
    }
    tell_again(n, again, again_count);
    mem_free(again);
}

/* A working directory shows its attributes without a name: directories come first. Of the others
 * only what somebody has as a path (O_PATH) does; the kernel drops what nobody uses by itself when
 * the epoch was raised (Linux 6.18), and that may be nearly all of them: it is given time. */
static void tell_all(struct notifier *n)
{
    tell_walk(n, INODE_DIRS);
    for (uint64_t ns = 0; ns < KERNEL_DROPS_NS && !is_stopping(n); ns += KERNEL_DROPS_NS / 10)
        pause_ns(n, KERNEL_DROPS_NS / 10);
    tell_walk(n, INODE_NO_DIRS);
}

static void tell(struct notifier *n, const struct job *j, const struct item *item)
{
    pthread_mutex_lock(&n->lock);
    bool by_epoch = j->acked && n->has_epoch;
    pthread_mutex_unlock(&n->lock);
    switch (item->kind) {
    case ITEM_ATTR:
        tell_inode(n, item->inode, -1);
        break;
    case ITEM_PAGES:
        tell_inode(n, item->inode, 0);
        break;
    case ITEM_NAME:
        if (!by_epoch && kernel_enter(n)) { /* unknown to the kernel is fine */
            (void)fuse_lowlevel_notify_inval_entry(n->m->session, item->inode->id, item->name,
                                                   strlen(item->name));
            kernel_leave(n);
        }
        break;
    case ITEM_NAMES:
        if (!by_epoch)
            (void)raise_epoch(n); /* without it names age by themselves */
        break;
    case ITEM_ALL:
        tell_all(n);
        break;
    }
}

/* ---- jobs ---- */

static void job_free(struct notifier *n, struct job *j)
{
    for (size_t i = 0; i < j->item_count; i++) {
        inode_unref(n->m->inodes, j->items[i].inode);
        mem_free(j->items[i].name);
    }
    mem_free(j->items);
    mem_free(j->ids);
    mem_free(j);
}

/* From the flight tracker, with its lock held. */
static void on_conflict(void *ctx, struct flight_job *flight)
{
    struct notifier *n = ctx;
    struct job *j = CONTAINER_OF(flight, struct job, flight);
    pthread_mutex_lock(&n->lock);
    j->conflict = true;
    if (j->push_id != 0 && !j->queued_ack && !j->done) {
        j->queued_ack = true;
        j->next_ack = n->ack_first;
        n->ack_first = j;
        pthread_cond_signal(&n->acks);
    }
    pthread_mutex_unlock(&n->lock);
}

static bool has_names(const struct job *j)
{
    for (size_t i = 0; i < j->item_count; i++)
        if (j->items[i].kind == ITEM_NAME || j->items[i].kind == ITEM_NAMES)
            return true;
    return false;
}

static void *acker_main(void *arg)
{
    struct notifier *n = arg;
    pthread_mutex_lock(&n->lock);
    for (;;) {
        struct job *j = n->ack_first;
        if (j == NULL) {
            if (n->stopping)
                break;
            pthread_cond_wait(&n->acks, &n->lock);
            continue;
        }
        n->ack_first = j->next_ack;
        bool has_epoch = n->has_epoch;
        pthread_mutex_unlock(&n->lock);
        log_debug(LOG_CLIENT, "invalidated_early", "push=%llu", (unsigned long long)j->push_id);
        if (has_epoch && has_names(j))
            (void)raise_epoch(n); /* fails only when the mount is gone */
        conn_ack(n->m->conn, j->push_id);
        pthread_mutex_lock(&n->lock);
        j->acked = true;
        if (j->done) { /* dropping an inode takes other locks */
            pthread_mutex_unlock(&n->lock);
            job_free(n, j);
            pthread_mutex_lock(&n->lock);
        }
    }
    pthread_mutex_unlock(&n->lock);
    return NULL;
}

static void job_run(struct notifier *n, struct job *j)
{
    for (size_t i = 0; i < j->item_count; i++)
        tell(n, j, &j->items[i]);
    flight_job_remove(&n->m->flight, &j->flight);
    pthread_mutex_lock(&n->lock);
    bool mine = !j->queued_ack; /* else the acker does the rest */
    bool gone = mine || j->acked;
    j->done = true;
    pthread_mutex_unlock(&n->lock);
    if (mine && j->push_id != 0) {
        log_debug(LOG_CLIENT, "invalidated", "push=%llu", (unsigned long long)j->push_id);
        conn_ack(n->m->conn, j->push_id);
    }
    if (gone)
        job_free(n, j);
}

static void *worker_main(void *arg)
{
    struct notifier *n = arg;
    pthread_mutex_lock(&n->lock);
    for (;;) {
        struct job *j = n->first;
        if (j == NULL) {
            if (n->stopping)
                break;
            n->free_count++;
            pthread_cond_wait(&n->work, &n->lock);
            n->free_count--;
            continue;
        }
        n->first = j->next;
        n->queued--;
        if (n->first == NULL)
            n->last = &n->first;
        pthread_mutex_unlock(&n->lock);
        job_run(n, j);
        pthread_mutex_lock(&n->lock);
    }
    pthread_mutex_unlock(&n->lock);
    return NULL;
}

static void job_start(struct notifier *n, struct job *j)
{
    j->ids = mem_calloc(j->item_count + 1, sizeof *j->ids);
    for (size_t i = 0; i < j->item_count; i++)
        if (j->items[i].kind != ITEM_ATTR && j->items[i].kind != ITEM_ALL)
            j->ids[j->flight.id_count++] = j->items[i].inode->id;
    j->flight.ids = j->ids;
    flight_job_add(&n->m->flight, &j->flight);
    pthread_mutex_lock(&n->lock);
    *n->last = j;
    n->last = &j->next;
    n->queued++;
    if (n->queued > n->free_count && n->thread_count < THREADS_MAX &&
        pthread_create(&n->threads[n->thread_count], NULL, worker_main, n) == 0)
        n->thread_count++;
    pthread_cond_signal(&n->work);
    pthread_mutex_unlock(&n->lock);
}

static struct job *job_new(uint64_t push_id, size_t items)
{
    struct job *j = mem_calloc(1, sizeof *j);
    j->push_id = push_id;
    j->items = mem_calloc(items + 1, sizeof *j->items);
    return j;
}

void notifier_push(struct notifier *n, uint64_t id, const struct fs_inval *invals, uint32_t count)
{
    struct job *j = job_new(id, count);
    for (uint32_t k = 0; k < count; k++) {
        const struct fs_inval *v = &invals[k];
        struct inode *i = inode_table_find(n->m->inodes, v->oid);
        if (i == NULL)
            continue; /* the kernel never heard of it */
        struct item *item = &j->items[j->item_count++];
        *item = (struct item){.kind = v->content ? ITEM_PAGES : ITEM_ATTR, .inode = i};
        if (v->name.len == 1 && v->name.ptr[0] == '*') {
            item->kind = ITEM_NAMES;
        } else if (v->name.len > 0) {
            item->kind = ITEM_NAME;
            item->name = mem_printf("%.*s", (int)v->name.len, (const char *)v->name.ptr);
        }
    }
    job_start(n, j);
}

void notifier_pages(struct notifier *n, uint64_t ino)
{
    struct inode *i = inode_table_get(n->m->inodes, ino);
    if (i == NULL)
        return;
    struct job *j = job_new(0, 1);
    j->items[0] = (struct item){.kind = ITEM_PAGES, .inode = i};
    j->item_count = 1;
    job_start(n, j);
}

/* Who comes by a path asks for its names again from now on, and gets attributes and pages with
 * them: what is open is told of first, then the rest, which somebody may have as his working
 * directory. */
void notifier_everything(struct notifier *n, struct inode *const *first, size_t count)
{
    struct job *j = job_new(0, count);
    (void)raise_epoch(n); /* without it names age by themselves */
    for (size_t k = 0; k < count; k++)
        j->items[j->item_count++] =
            (struct item){.kind = ITEM_PAGES, .inode = inode_ref(n->m->inodes, first[k])};
    job_start(n, j);
    struct job *all = job_new(0, 1);
    all->items[0] = (struct item){.kind = ITEM_ALL};
    all->item_count = 1;
    job_start(n, all);
}

/* ---- start and end ---- */

int notifier_new(struct mount *m, struct notifier **ret)
{
    struct notifier *n = mem_calloc(1, sizeof *n);
    n->m = m;
    n->last = &n->first;
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->work, NULL);
    pthread_cond_init(&n->acks, NULL);
    pthread_cond_init(&n->idle, NULL);
    pthread_cond_init(&n->hearing, NULL);
    flight_init(&m->flight, on_conflict, n);
    int rc = err_from_errno(pthread_create(&n->acker, NULL, acker_main, n));
    if (rc != 0) {
        mem_free(n);
        return rc;
    }
    *ret = n;
    return 0;
}

void notifier_free(struct notifier *n)
{
    if (n == NULL)
        return;
    pthread_mutex_lock(&n->lock);
    n->stopping = true;
    pthread_cond_broadcast(&n->work);
    pthread_mutex_unlock(&n->lock);
    for (unsigned i = 0; i < n->thread_count; i++)
        pthread_join(n->threads[i], NULL);
    pthread_mutex_lock(&n->lock);
    pthread_cond_broadcast(&n->acks);
    pthread_mutex_unlock(&n->lock);
    pthread_join(n->acker, NULL);
    flight_deinit(&n->m->flight);
    pthread_cond_destroy(&n->hearing);
    pthread_cond_destroy(&n->idle);
    pthread_cond_destroy(&n->acks);
    pthread_cond_destroy(&n->work);
    pthread_mutex_destroy(&n->lock);
    mem_free(n);
}
