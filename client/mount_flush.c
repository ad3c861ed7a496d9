/* Committing all that the mount has when the site asks for it (PUSH_FLUSH): a garbage pass is to
 * take what nobody is about to refer to. It may take long, so one thread does it; while it is at it
 * the same wish again is no news, and another number waits for its turn. */
#include "base/log.h"
#include "client/fuse_ops.h"

struct flusher {
    struct mount *m;
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;
    uint64_t wanted, done; /* numbers of pushes */
    bool stopping, joined;
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

static void *flusher_main(void *arg)
{
    struct flusher *f = arg;
    pthread_mutex_lock(&f->lock);
    while (!f->stopping) {
        uint64_t number = f->wanted;
        if (number == f->done) {
            pthread_cond_wait(&f->work, &f->lock);
            continue;
        }
        pthread_mutex_unlock(&f->lock);
        int rc = fileio_sync_all(f->m->io);
        flusher_tell(f->m, number, rc == 0);
        pthread_mutex_lock(&f->lock);
        f->done = number;
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

int flusher_new(struct mount *m, struct flusher **ret)
{
    struct flusher *f = mem_calloc(1, sizeof *f);
    f->m = m;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->work, NULL);
    int rc = err_from_errno(pthread_create(&f->thread, NULL, flusher_main, f));
    if (rc != 0) {
        mem_free(f);
        return rc;
    }
    *ret = f;
    return 0;
}

void flusher_push(struct flusher *f, uint64_t number)
{
    pthread_mutex_lock(&f->lock);
    f->wanted = number;
    pthread_cond_signal(&f->work);
    pthread_mutex_unlock(&f->lock);
}

void flusher_stop(struct flusher *f)
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

void flusher_free(struct flusher *f)
{
    if (f == NULL)
        return;
    flusher_stop(f);
    pthread_cond_destroy(&f->work);
    pthread_mutex_destroy(&f->lock);
    mem_free(f);
}
