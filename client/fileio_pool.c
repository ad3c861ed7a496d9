/* Worker threads of the data path: batches that callers wait for, and read-ahead nobody waits for.
 */
#include "base/assert.h"
#include "client/fileio_int.h"

struct io_batch {
    int (*fn)(void *ctx, size_t idx);
    void *ctx;
    size_t count, next, running; /* items; the next to take; taken and not done */
    int rc;                      /* first error */
    pthread_cond_t done;
    struct io_batch *link;
};

static pthread_key_t pipeline_key;
static pthread_once_t pipeline_once = PTHREAD_ONCE_INIT;

struct thread_pipeline {
    const struct fileio *io;
    struct pipeline *p;
};

static void pipeline_gone(void *arg)
{
    struct thread_pipeline *t = arg;
    pipeline_free(t->p);
    mem_free(t);
}

static void pipeline_key_make(void)
{
    int rc = pthread_key_create(&pipeline_key, pipeline_gone);
    ASSERT_EQ(rc, 0);
}

struct pipeline *io_pipeline(struct fileio *io)
{
    pthread_once(&pipeline_once, pipeline_key_make);
    struct thread_pipeline *t = pthread_getspecific(pipeline_key);
    if (t != NULL && t->io == io)
        return t->p;
    if (t != NULL)
        pipeline_gone(t);
    t = mem_calloc(1, sizeof *t);
    int rc = pipeline_new(&t->p, &io->keys, CHUNK_CIPHER_AUTO);
    ASSERT_EQ(rc, 0); /* fileio_new has made one before: the libraries have all algorithms */
    t->io = io;
    rc = pthread_setspecific(pipeline_key, t);
    ASSERT_EQ(rc, 0);
    return t->p;
}

/* Runs items of `b` until none is left to take. Lock held. */
static void batch_help(struct fileio *io, struct io_batch *b)
{
    while (b->next < b->count && b->rc == 0) {
        size_t idx = b->next++;
        b->running++;
        pthread_mutex_unlock(&io->lock);
        int rc = b->fn(b->ctx, idx);
        pthread_mutex_lock(&io->lock);
        b->running--;
        if (rc != 0 && b->rc == 0)
            b->rc = rc;
    }
    if (b->running == 0)
        pthread_cond_signal(&b->done);
}

static bool batch_open(const struct io_batch *b)
{
    return b->next < b->count && b->rc == 0;
}

int io_each(struct fileio *io, size_t count, int (*fn)(void *ctx, size_t idx), void *ctx)
{
    if (count == 0)
        return 0;
    if (count == 1)
        return fn(ctx, 0);
    struct io_batch b = {.fn = fn, .ctx = ctx, .count = count};
    pthread_cond_init(&b.done, NULL);
    pthread_mutex_lock(&io->lock);
    b.link = io->batches;
    io->batches = &b;
    pthread_cond_broadcast(&io->work);
    batch_help(io, &b);
    while (b.running > 0)
        pthread_cond_wait(&b.done, &io->lock);
    struct io_batch **at = &io->batches;
    while (*at != &b)
        at = &(*at)->link;
    *at = b.link;
    pthread_mutex_unlock(&io->lock);
    pthread_cond_destroy(&b.done);
    return b.rc;
}

bool io_submit(struct fileio *io, struct io_task *t)
{
    pthread_mutex_lock(&io->lock);
    bool taken = io->task_count < AHEAD_TASKS_MAX && !io->stopping;
    if (taken) {
        t->next = NULL;
        *io->tasks_last = t;
        io->tasks_last = &t->next;
        io->task_count++;
        pthread_cond_signal(&io->work);
    }
    pthread_mutex_unlock(&io->lock);
    return taken;
}

static struct io_batch *find_batch(struct fileio *io)
{
    struct io_batch *b = io->batches;
    while (b != NULL && !batch_open(b))
        b = b->link;
    return b;
}

void *io_worker_main(void *arg)
{
    struct fileio *io = arg;
    pthread_mutex_lock(&io->lock);
    for (;;) {
        struct io_batch *b = find_batch(io);
        struct io_task *t = io->tasks;
        if (b != NULL) {
            batch_help(io, b);
        } else if (t != NULL) {
            io->tasks = t->next;
            if (io->tasks == NULL)
                io->tasks_last = &io->tasks;
            io->task_count--;
            pthread_mutex_unlock(&io->lock);
            t->run(t);
            pthread_mutex_lock(&io->lock);
        } else if (io->stopping) {
            break;
        } else {
            pthread_cond_wait(&io->work, &io->lock);
        }
    }
    pthread_mutex_unlock(&io->lock);
    return NULL;
}
