/* Asking the kernel to drop inodes, when it knows more than the mount is to remember.
 *
 * Neither the kernel nor the mount would let go of one while there is memory. Beyond `inodes_max`
 * the kernel is asked to drop those that were not looked up for longest (roughly: a hand goes round
 * the inode table), down to seven eighths. It leaves alone what is in use: open, mapped, a working
 * directory, mounted upon, a directory with names in it. It needs no lock of a directory for that,
 * and waits for nothing, as when it reclaims memory; what it dropped comes back as forgets
 * (mount_forget.c).
 *
 *   more than the limit -> asked (512 at a time, never more than are too many) -> forgets
 *        ^------------------------ a while later, longer each time in vain ----/
 *
 * What is in use beyond the limit stays: the limit is for what is only remembered. */
#include <errno.h>

#include "base/assert.h"
#include "base/log.h"
#include "client/mount.h"

#define KEEP_SHARE 8u                   /* one part of so many of the limit is made free */
#define PAUSE_NS_MIN (100u * NS_PER_MS) /* for forgets to arrive */
#define PAUSE_NS_MAX (60u * NS_PER_SEC)

struct pruner {
    struct mount *m;
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;
    bool stopping;
};

static void crowded(void *ctx)
{
    struct pruner *p = ctx;
    pthread_mutex_lock(&p->lock);
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->lock);
}

/* Two rounds at most: what was used since the last one is let pass once. */
static size_t ask(struct pruner *p, size_t *at, size_t count)
{
    struct mount *m = p->m;
    struct inode_ids ids;
    size_t asked = 0;
    for (unsigned rounds = 0; asked < count && rounds < 2;) {
        rounds += !inode_table_unused(m->inodes, at, &ids);
        ids.count = MIN(ids.count, count - asked);
        if (ids.count > 0 && !notifier_prune(m->notifier, &ids))
            break; /* the mount is ending */
        asked += ids.count;
    }
    return asked;
}

static void pause_ns(struct pruner *p, uint64_t ns)
{
    uint64_t until = clock_wall_ns(&clock_os) + ns;
    struct timespec ts = {.tv_sec = (time_t)(until / NS_PER_SEC),
                          .tv_nsec = (long)(until % NS_PER_SEC)};
    while (!p->stopping && pthread_cond_timedwait(&p->work, &p->lock, &ts) != ETIMEDOUT)
        ;
}

static void *prune_main(void *arg)
{
    struct pruner *p = arg;
    struct inode_table *t = p->m->inodes;
    size_t max = (size_t)p->m->options.inodes_max, at = 0;
    uint64_t wait_ns = PAUSE_NS_MIN;
    pthread_mutex_lock(&p->lock);
    while (!p->stopping) {
        size_t before = inode_table_count(t);
        if (before <= max) {
            wait_ns = PAUSE_NS_MIN;
            pthread_cond_wait(&p->work, &p->lock);
            continue;
        }
        pthread_mutex_unlock(&p->lock);
        size_t asked = ask(p, &at, before - (max - max / KEEP_SHARE));
        pthread_mutex_lock(&p->lock);
        pause_ns(p, wait_ns);
        size_t after = inode_table_count(t);
        log_debug(LOG_CLIENT, "pruned", "inodes=%zu asked=%zu then=%zu", before, asked, after);
        wait_ns = after < before ? PAUSE_NS_MIN : MIN(wait_ns * 2, PAUSE_NS_MAX);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

int pruner_new(struct mount *m, struct pruner **ret)
{
    const struct inode_ids none = {.count = 0};
    if (!notifier_prune(m->notifier, &none)) {
        log_warn(LOG_CLIENT, "no_prune",
                 "this kernel is older than 6.18: it drops inodes when memory is short, whatever "
                 "'inodes' says");
        *ret = NULL;
        return 0;
    }
    struct pruner *p = mem_calloc(1, sizeof *p);
    p->m = m;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    int rc = err_from_errno(pthread_create(&p->thread, NULL, prune_main, p));
    if (rc != 0) {
        mem_free(p);
        return rc;
    }
    inode_table_limit(m->inodes, (size_t)m->options.inodes_max, crowded, p);
    *ret = p;
    return 0;
}

void pruner_free(struct pruner *p)
{
    if (p == NULL)
        return;
    inode_table_limit(p->m->inodes, 0, NULL, NULL);
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    mem_free(p);
}
