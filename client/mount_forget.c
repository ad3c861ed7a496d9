/* Telling the site what the kernel dropped, so that it stops sending invalidations of it.
 *
 * A forget must not undo the interest of a lookup that came later: the site sees the two in any
 * order. While a batch is out, its objects are hit in the clock, so replies that make one of them
 * known again, and cross it, fill no cache; what is known again afterwards is asked for once more,
 * and nothing that was known before that is believed (C2). */
#include <errno.h>

#include "base/assert.h"
#include "client/mount.h"

#define BATCH_MAX 4096u
#define DELAY_NS (500u * NS_PER_MS)
#define DELAY_BACK_NS (2u * NS_PER_SEC) /* after a reconnect, when others wait for the site */

struct forgetter {
    struct mount *m;
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;
    struct oid *oids;
    size_t count, cap;
    uint64_t not_before_ns; /* nothing is told, of the wall clock */
    bool stopping, joined;
};

/* Interest again: what the kernel and we have of it may be outdated. */
static void renew(struct forgetter *f, struct oid oid)
{
    struct conn_call call;
    conn_call_init(&call, RPC_GETATTR);
    call.req.oid = oid;
    conn_call_tell(f->m->conn, &call); /* gone: then there is nothing to be told about */
    conn_call_deinit(&call);
    struct fs_inval v = {.oid = oid, .content = true};
    mount_take_inval(f->m, &v);
    notifier_push(f->m->notifier, 0, &v, 1);
}

static void send_batch(struct forgetter *f, struct oid *oids, size_t count)
{
    struct mount *m = f->m;
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        inode_clock_hit_forgotten(&m->clock, oids[i]);
        if (!inode_table_has(m->inodes, oids[i]))
            oids[kept++] = oids[i];
    }
    if (kept == 0)
        return;
    struct conn_call call;
    conn_call_init(&call, RPC_FORGET);
    call.req.oids = oids;
    call.req.oid_count = (uint32_t)kept;
    conn_call_tell(m->conn, &call); /* a site that did not hear it only tells too much */
    conn_call_deinit(&call);
    for (size_t i = 0; i < kept; i++) {
        inode_clock_hit_forgotten(&m->clock, oids[i]);
        if (inode_table_has(m->inodes, oids[i]))
            renew(f, oids[i]);
    }
}

/* Or until so many are there. Lock held. */
static void wait_until(struct forgetter *f, uint64_t until_ns, size_t count)
{
    struct timespec ts = {.tv_sec = (time_t)(until_ns / NS_PER_SEC),
                          .tv_nsec = (long)(until_ns % NS_PER_SEC)};
    while (!f->stopping && f->count < count &&
           pthread_cond_timedwait(&f->work, &f->lock, &ts) != ETIMEDOUT)
        ;
}

static void *forget_main(void *arg)
{
    struct forgetter *f = arg;
    struct oid *batch = mem_calloc(BATCH_MAX, sizeof *batch);
    pthread_mutex_lock(&f->lock);
    while (!f->stopping) {
        if (f->count == 0) {
            pthread_cond_wait(&f->work, &f->lock);
            continue;
        }
        uint64_t now = clock_wall_ns(&clock_os);
        if (now < f->not_before_ns)
            wait_until(f, MIN(f->not_before_ns, now + DELAY_BACK_NS), SIZE_MAX);
        if (f->count < BATCH_MAX) /* more will follow */
            wait_until(f, clock_wall_ns(&clock_os) + DELAY_NS, BATCH_MAX);
        size_t n = MIN(f->count, BATCH_MAX);
        f->count -= n;
        memcpy(batch, &f->oids[f->count], n * sizeof *batch);
        pthread_mutex_unlock(&f->lock);
        send_batch(f, batch, n);
        pthread_mutex_lock(&f->lock);
    }
    pthread_mutex_unlock(&f->lock);
    mem_free(batch);
    return NULL;
}

int forgetter_new(struct mount *m, struct forgetter **ret)
{
    struct forgetter *f = mem_calloc(1, sizeof *f);
    f->m = m;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->work, NULL);
    int rc = err_from_errno(pthread_create(&f->thread, NULL, forget_main, f));
    if (rc != 0) {
        mem_free(f);
        return rc;
    }
    *ret = f;
    return 0;
}

void forgetter_back(struct forgetter *f)
{
    pthread_mutex_lock(&f->lock);
    f->not_before_ns = clock_wall_ns(&clock_os) + DELAY_BACK_NS;
    pthread_mutex_unlock(&f->lock);
}

void forgetter_add(struct forgetter *f, struct oid oid)
{
    pthread_mutex_lock(&f->lock);
    if (f->count == f->cap) {
        f->cap = MAX(256u, f->cap * 2);
        f->oids = mem_realloc(f->oids, f->cap * sizeof *f->oids);
    }
    f->oids[f->count++] = oid;
    if (f->count == 1 || f->count == BATCH_MAX)
        pthread_cond_signal(&f->work);
    pthread_mutex_unlock(&f->lock);
}

void forgetter_stop(struct forgetter *f)
{
    if (f == NULL || f->joined)
        return;
    pthread_mutex_lock(&f->lock);
    f->stopping = true;
    pthread_cond_signal(&f->work);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    f->joined = true;
}

void forgetter_free(struct forgetter *f)
{
    if (f == NULL)
        return;
    forgetter_stop(f);
    pthread_cond_destroy(&f->work);
    pthread_mutex_destroy(&f->lock);
    mem_free(f->oids);
    mem_free(f);
}
