/* Committing all that the mount has when the site asks for it (PUSH_FLUSH): a garbage pass is to
 * take what nobody is about to refer to. It may take long, so one thread does it; while it is at it
 * the same wish again is no news, and another number waits for its turn. */
#include "base/log.h"
#include "client/fuse_ops.h"
#include "client/worker.h"

struct flusher {
    struct mount *m;
    struct worker worker;
    /* Under its lock. */
    uint64_t wanted, done; /* numbers of pushes */
};

void flusher_tell(struct mount *m, uint64_t number, bool all)
{
    struct conn_call call;
    conn_call_init(&call, RPC_FLUSHED);
    call.req.number2 = number;
    call.req.flags = all ? 0 : FLUSHED_NOT;
    int rc = conn_call_run(m->conn, &call); /* not told: the site asks again, or does without */
    log_debug(LOG_CLIENT, "flushed", "number=%llu all=%d rc=%s", (unsigned long long)number, all,
              err_name(rc));
    conn_call_deinit(&call);
}

static void flush_step(struct worker *w)
{
    struct flusher *f = CONTAINER_OF(w, struct flusher, worker);
    uint64_t number = f->wanted;
    if (number == f->done) {
        worker_sleep(w);
        return;
    }
    pthread_mutex_unlock(&w->lock);
    int rc = fileio_sync_all(f->m->io);
    flusher_tell(f->m, number, rc == 0);
    pthread_mutex_lock(&w->lock);
    f->done = number;
}

int flusher_new(struct mount *m, struct flusher **ret)
{
    struct flusher *f = mem_calloc(1, sizeof *f);
    f->m = m;
    int rc = worker_start(&f->worker, flush_step);
    if (rc != 0)
        mem_free(f);
    else
        *ret = f;
    return rc;
}

void flusher_push(struct flusher *f, uint64_t number)
{
    pthread_mutex_lock(&f->worker.lock);
    f->wanted = number;
    worker_wake(&f->worker);
    pthread_mutex_unlock(&f->worker.lock);
}

void flusher_stop(struct flusher *f)
{
    if (f != NULL)
        worker_stop(&f->worker);
}

void flusher_free(struct flusher *f)
{
    if (f == NULL)
        return;
    worker_free(&f->worker);
    mem_free(f);
}
