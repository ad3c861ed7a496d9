/* Telling the site what the kernel dropped, so that it stops sending invalidations of it.
 *
 * A forget must not undo the interest of a lookup that came later: the site sees the two in any
 * order. While a batch is out, its objects are hit in the clock, so replies that make one of them
 * known again, and cross it, fill no cache; what is known again afterwards is asked for once more,
 * and nothing that was known before that is believed (C2). */
#include <string.h>

#include "client/mount.h"
#include "client/worker.h"

#define BATCH_MAX 4096u
#define DELAY_NS (500u * NS_PER_MS)
#define DELAY_BACK_NS (2u * NS_PER_SEC) /* after a reconnect, when others wait for the site */

struct forgetter {
    struct mount *m;
    struct worker worker;
    struct oid batch[BATCH_MAX]; /* of its thread */
    /* Under its lock. */
    struct oid *oids;
    size_t count, cap;
    uint64_t not_before_ns; /* nothing is told; of the monotone clock */
};

/* Interest again: what the kernel and we have of it may be outdated. */
static void renew(struct forgetter *f, struct oid oid)
{
    struct conn_call call;
    conn_call_init(&call, RPC_GETATTR);
    call.req.oid = oid;
    conn_call_tell(f->m->conn, &call); /* gone: then there is nothing to be told about */
    conn_call_deinit(&call);
    /* Names under a directory, too: others may have changed them while the site did not tell. */
    const struct fs_inval v[] = {{.oid = oid, .content = true},
                                 {.oid = oid, .name = slice_str("*")}};
    mount_take_inval(f->m, &v[0]);
    notifier_push(f->m->notifier, 0, v, oid_is_dir(oid) ? 2 : 1);
}

/* The first `count` of the batch. */
static void send_batch(struct forgetter *f, size_t count)
{
    struct mount *m = f->m;
    struct oid *oids = f->batch;
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

static void forget_step(struct worker *w)
{
    struct forgetter *f = CONTAINER_OF(w, struct forgetter, worker);
    uint64_t now = clock_mono_ns(&clock_os);
    if (f->count == 0) {
        worker_sleep(w);
        return;
    }
    if (now < f->not_before_ns)
        worker_rest(w, f->not_before_ns - now);
    uint64_t until = clock_mono_ns(&clock_os) + DELAY_NS;
    while (!w->stopping && f->count < BATCH_MAX && worker_sleep_until(w, until))
        ; /* more will follow */
    size_t n = MIN(f->count, BATCH_MAX);
    f->count -= n;
    memcpy(f->batch, &f->oids[f->count], n * sizeof *f->batch);
    pthread_mutex_unlock(&w->lock);
    send_batch(f, n);
    pthread_mutex_lock(&w->lock);
}

int forgetter_new(struct mount *m, struct forgetter **ret)
{
    struct forgetter *f = mem_calloc(1, sizeof *f);
    f->m = m;
    int rc = worker_start(&f->worker, forget_step);
    if (rc != 0)
        mem_free(f);
    else
        *ret = f;
    return rc;
}

void forgetter_back(struct forgetter *f)
{
    pthread_mutex_lock(&f->worker.lock);
    f->not_before_ns = clock_mono_ns(&clock_os) + DELAY_BACK_NS;
    pthread_mutex_unlock(&f->worker.lock);
}

void forgetter_add(struct forgetter *f, struct oid oid)
{
    pthread_mutex_lock(&f->worker.lock);
    if (f->count == f->cap) {
        f->cap = MAX(256u, f->cap * 2);
        f->oids = mem_realloc(f->oids, f->cap * sizeof *f->oids);
    }
    f->oids[f->count++] = oid;
    if (f->count == 1 || f->count == BATCH_MAX)
        worker_wake(&f->worker);
    pthread_mutex_unlock(&f->worker.lock);
}

void forgetter_stop(struct forgetter *f)
{
    if (f == NULL)
        return;
    worker_stop(&f->worker);
}

void forgetter_free(struct forgetter *f)
{
    if (f == NULL)
        return;
    worker_free(&f->worker);
    mem_free(f->oids);
    mem_free(f);
}
