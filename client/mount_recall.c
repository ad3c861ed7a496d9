/* Telling the site of kept attributes when it asks for them, because another mount waits for the
 * file.
 *
 * One thread does it, one file after the other: what it sends concerns a file that nobody else
 * could look at yet, so its answer depends on no other mount, and two mounts that wait for each
 * other's files both get on (C3). What cannot be set is kept for later and reported, and the push
 * acknowledged all the same: who waits sees the file as the site has it. */
#include "base/log.h"
#include "client/mount.h"
#include "client/worker.h"

struct recall {
    uint64_t push_id; /* 0: nobody waits */
    struct oid oid;
    struct recall *next;
};
struct recaller {
    struct mount *m;
    struct worker worker;
    struct recall *first, **last; /* under its lock */
};

static void run(struct recaller *r, const struct recall *w)
{
    struct mount *m = r->m;
    struct inode *i = inode_table_find(m->inodes, w->oid);
    if (i != NULL) {
        int rc = file_settle(i); /* kept for who closes or syncs the file */
        log_debug(LOG_CLIENT, "recalled", "push=%llu ino=%llu rc=%s",
                  (unsigned long long)w->push_id, (unsigned long long)i->id, err_name(rc));
    }
    inode_unref(m->inodes, i);
    if (w->push_id != 0)
        conn_ack(m->conn, w->push_id);
}

static void recall_step(struct worker *worker)
{
    struct recaller *r = CONTAINER_OF(worker, struct recaller, worker);
    struct recall *w = r->first;
    if (w == NULL) {
        worker_sleep(worker);
        return;
    }
    r->first = w->next;
    if (r->first == NULL)
        r->last = &r->first;
    pthread_mutex_unlock(&worker->lock);
    run(r, w);
    mem_free(w);
    pthread_mutex_lock(&worker->lock);
}

int recaller_new(struct mount *m, struct recaller **ret)
{
    struct recaller *r = mem_calloc(1, sizeof *r);
    r->m = m;
    r->last = &r->first;
    int rc = worker_start(&r->worker, recall_step);
    if (rc != 0)
        mem_free(r);
    else
        *ret = r;
    return rc;
}

void recaller_push(struct recaller *r, uint64_t push_id, struct oid oid)
{
    struct recall *w = mem_calloc(1, sizeof *w);
    w->push_id = push_id;
    w->oid = oid;
    pthread_mutex_lock(&r->worker.lock);
    *r->last = w;
    r->last = &w->next;
    worker_wake(&r->worker);
    pthread_mutex_unlock(&r->worker.lock);
}

void recaller_stop(struct recaller *r)
{
    if (r != NULL)
        worker_stop(&r->worker);
}

void recaller_free(struct recaller *r)
{
    if (r == NULL)
        return;
    worker_free(&r->worker);
    while (r->first != NULL) {
        struct recall *w = r->first;
        r->first = w->next;
        mem_free(w);
    }
    mem_free(r);
}
