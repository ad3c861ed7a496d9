#include "client/conn_seq.h"

#include "base/assert.h"

void conn_seq_init(struct conn_seq *s)
{
    *s = (struct conn_seq){0};
    pthread_mutex_init(&s->lock, NULL);
    s->head.prev = s->head.next = &s->head;
}

void conn_seq_deinit(struct conn_seq *s)
{
    ASSERT(s->head.next == &s->head);
    pthread_mutex_destroy(&s->lock);
}

void conn_seq_begin(struct conn_seq *s, struct conn_number *n)
{
    pthread_mutex_lock(&s->lock);
    n->number = ++s->last;
    n->prev = s->head.prev;
    n->next = &s->head;
    n->prev->next = n;
    s->head.prev = n;
    pthread_mutex_unlock(&s->lock);
}

void conn_seq_end(struct conn_seq *s, struct conn_number *n)
{
    pthread_mutex_lock(&s->lock);
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->prev = n->next = NULL;
    pthread_mutex_unlock(&s->lock);
}

void conn_seq_move(struct conn_seq *s, struct conn_number *from, struct conn_number *to)
{
    pthread_mutex_lock(&s->lock);
    *to = *from;
    to->prev->next = to;
    to->next->prev = to;
    from->prev = from->next = NULL;
    pthread_mutex_unlock(&s->lock);
}

uint64_t conn_seq_acked(struct conn_seq *s)
{
    pthread_mutex_lock(&s->lock);
    uint64_t acked = s->head.next == &s->head ? s->last : s->head.next->number - 1;
    pthread_mutex_unlock(&s->lock);
    return acked;
}
