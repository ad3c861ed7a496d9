#include "client/inode_flight.h"

#include "base/assert.h"

struct flight_count {
    uint64_t id;
    uint32_t count; /* requests in flight */
    struct flight_count *next;
};

void flight_init(struct flight *f, void (*conflict)(void *ctx, struct flight_job *job), void *ctx)
{
    *f = (struct flight){.conflict = conflict, .ctx = ctx};
    pthread_mutex_init(&f->lock, NULL);
}

void flight_deinit(struct flight *f)
{
    for (size_t s = 0; s < FLIGHT_SLOTS; s++)
        ASSERT(f->counts[s] == NULL);
    ASSERT(f->jobs == NULL);
    pthread_mutex_destroy(&f->lock);
}

static struct flight_count **find(struct flight *f, uint64_t id)
{
    uint64_t h = id * UINT64_C(0x9e3779b97f4a7c15);
    struct flight_count **at = &f->counts[(h >> 32) % FLIGHT_SLOTS];
    while (*at != NULL && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

static bool needs(const struct flight_job *job, uint64_t id)
{
    for (size_t i = 0; i < job->id_count; i++)
        if (job->ids[i] == id)
            return true;
    return false;
}

void flight_begin(struct flight *f, uint64_t id)
{
    pthread_mutex_lock(&f->lock);
    struct flight_count **at = find(f, id);
    if (*at == NULL) {
        *at = mem_calloc(1, sizeof **at);
        (*at)->id = id;
    }
    (*at)->count++;
    for (struct flight_job *job = f->jobs; job != NULL; job = job->next)
        if (needs(job, id))
            f->conflict(f->ctx, job);
    pthread_mutex_unlock(&f->lock);
}

void flight_end(struct flight *f, uint64_t id)
{
    pthread_mutex_lock(&f->lock);
    struct flight_count **at = find(f, id);
    ASSERT(*at != NULL && (*at)->count > 0);
    if (--(*at)->count == 0) {
        struct flight_count *gone = *at;
        *at = gone->next;
        mem_free(gone);
    }
    pthread_mutex_unlock(&f->lock);
}

void flight_job_add(struct flight *f, struct flight_job *job)
{
    pthread_mutex_lock(&f->lock);
    job->next = f->jobs;
    f->jobs = job;
    for (size_t i = 0; i < job->id_count; i++) {
        if (*find(f, job->ids[i]) != NULL) {
            f->conflict(f->ctx, job);
            break;
        }
    }
    pthread_mutex_unlock(&f->lock);
}

void flight_job_remove(struct flight *f, struct flight_job *job)
{
    pthread_mutex_lock(&f->lock);
    struct flight_job **at = &f->jobs;
    while (*at != job) {
        ASSERT(*at != NULL);
        at = &(*at)->next;
    }
    *at = job->next;
    pthread_mutex_unlock(&f->lock);
}
