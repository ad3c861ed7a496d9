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
#include "base/log.h"
#include "client/mount.h"
#include "client/worker.h"

#define KEEP_SHARE 8u                   /* one part of so many of the limit is made free */
#define PAUSE_NS_MIN (100u * NS_PER_MS) /* for forgets to arrive */
#define PAUSE_NS_MAX (60u * NS_PER_SEC)

struct pruner {
    struct mount *m;
    struct worker worker;
    /* Of its thread. */
    size_t at; /* where the hand is */
    uint64_t wait_ns;
};

static void crowded(void *ctx)
{
    struct pruner *p = ctx;
    pthread_mutex_lock(&p->worker.lock);
    worker_wake(&p->worker);
    pthread_mutex_unlock(&p->worker.lock);
}

/* Two rounds at most: what was used since the last one is let pass once. */
static size_t ask(struct pruner *p, size_t count)
{
    struct mount *m = p->m;
    struct inode_ids ids;
    size_t asked = 0;
    for (unsigned rounds = 0; asked < count && rounds < 2;) {
        rounds += !inode_table_unused(m->inodes, &p->at, &ids);
        ids.count = MIN(ids.count, count - asked);
        if (ids.count > 0 && !notifier_prune(m->notifier, &ids))
            break; /* the mount is ending */
        asked += ids.count;
    }
    return asked;
}

static void prune_step(struct worker *w)
{
    struct pruner *p = CONTAINER_OF(w, struct pruner, worker);
    struct inode_table *t = p->m->inodes;
    size_t max = (size_t)p->m->options.inodes_max, before = inode_table_count(t);
    if (before <= max) {
        p->wait_ns = PAUSE_NS_MIN;
        worker_sleep(w);
        return;
    }
    pthread_mutex_unlock(&w->lock);
    size_t asked = ask(p, before - (max - max / KEEP_SHARE));
    pthread_mutex_lock(&w->lock);
    worker_rest(w, p->wait_ns);
    size_t after = inode_table_count(t);
    log_debug(LOG_CLIENT, "pruned", "inodes=%zu asked=%zu then=%zu", before, asked, after);
    p->wait_ns = after < before ? PAUSE_NS_MIN : MIN(p->wait_ns * 2, PAUSE_NS_MAX);
}

struct pruner *pruner_new(struct mount *m)
{
    const struct inode_ids none = {.count = 0};
    if (!notifier_prune(m->notifier, &none)) {
        log_warn(LOG_CLIENT, "no_prune",
                 "this kernel is older than 6.18: it drops inodes when memory is short, whatever "
                 "'inodes' says");
        return NULL;
    }
    struct pruner *p = mem_calloc(1, sizeof *p);
    p->m = m;
    p->wait_ns = PAUSE_NS_MIN;
    int rc = worker_start(&p->worker, prune_step);
    if (rc != 0) {
        log_warn(LOG_CLIENT, "no_prune", "why=\"%s\": 'inodes' bounds nothing", err_text(rc));
        mem_free(p);
        return NULL;
    }
    inode_table_limit(m->inodes, (size_t)m->options.inodes_max, crowded, p);
    return p;
}

void pruner_free(struct pruner *p)
{
    if (p == NULL)
        return;
    inode_table_limit(p->m->inodes, 0, NULL, NULL);
    worker_free(&p->worker);
    mem_free(p);
}
