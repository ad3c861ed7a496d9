/* Telling the site of kept attributes when it asks for them, because another mount waits for the
 * file.
 *
 * One thread does it, one file after the other: what it sends concerns a file that nobody else
 * could look at yet, so its answer depends on no other mount, and two mounts that wait for each
 * other's files both get on (C3). What cannot be set is kept for later and reported, and the push
 * acknowledged all the same: who waits sees the file as the site has it. */
#include "base/log.h"
#include "client/mount.h"

struct recall {
    uint64_t push_id; /* 0: nobody waits */
    struct oid oid;
    struct recall *next;
};
struct recaller {
    struct mount *m;
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;
    struct recall *first, **last;
    bool stopping, joined;
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

static void *recall_main(void *arg)
{
    struct recaller *r = arg;
    pthread_mutex_lock(&r->lock);
    while (!r->stopping) {
        struct recall *w = r->first;
        if (w == NULL) {
            pthread_cond_wait(&r->work, &r->lock);
            continue;
        }
        r->first = w->next;
        if (r->first == NULL)
            r->last = &r->first;
        pthread_mutex_unlock(&r->lock);
        run(r, w);
        mem_free(w);
        pthread_mutex_lock(&r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

int recaller_new(struct mount *m, struct recaller **ret)
{
    struct recaller *r = mem_calloc(1, sizeof *r);
    r->m = m;
    r->last = &r->first;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->work, NULL);
    int rc = err_from_errno(pthread_create(&r->thread, NULL, recall_main, r));
    if (rc != 0) {
        mem_free(r);
        return rc;
    }
    *ret = r;
    return 0;
}

void recaller_push(struct recaller *r, uint64_t push_id, struct oid oid)
{
    struct recall *w = mem_calloc(1, sizeof *w);
    w->push_id = push_id;
    w->oid = oid;
    pthread_mutex_lock(&r->lock);
    *r->last = w;
    r->last = &w->next;
    pthread_cond_signal(&r->work);
    pthread_mutex_unlock(&r->lock);
}

void recaller_stop(struct recaller *r)
{
    if (r == NULL || r->joined)
        return;
    pthread_mutex_lock(&r->lock);
    r->stopping = true;
    pthread_cond_signal(&r->work);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    r->joined = true;
}

void recaller_free(struct recaller *r)
{
    if (r == NULL)
        return;
    recaller_stop(r);
    while (r->first != NULL) {
        struct recall *w = r->first;
        r->first = w->next;
        mem_free(w);
    }
    pthread_cond_destroy(&r->work);
    pthread_mutex_destroy(&r->lock);
    mem_free(r);
}
