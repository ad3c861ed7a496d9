/* Numbers of a session's requests and up to which all replies have arrived.
 *
 * Every request that changes something takes the next number and gives it back when its reply has
 * arrived; "acked" is one less than the oldest number still out. Threads: any. */
#ifndef CLIENT_CONN_SEQ_H
#define CLIENT_CONN_SEQ_H

#include <pthread.h>

#include "base/util.h"

struct conn_number {                 /* one request; embed it or keep it on the stack */
    uint64_t number;                 /* read-only: from 1 */
    struct conn_number *prev, *next; /* private */
};
struct conn_seq {
    pthread_mutex_t lock;    /* private from here */
    uint64_t last;           /* given out last */
    struct conn_number head; /* ring of those out, oldest first */
};
void conn_seq_init(struct conn_seq *s);
void conn_seq_deinit(struct conn_seq *s);
void conn_seq_begin(struct conn_seq *s, struct conn_number *n);
void conn_seq_end(struct conn_seq *s, struct conn_number *n);
/* `to` takes the place of `from`: the request outlives its caller. */
void conn_seq_move(struct conn_seq *s, struct conn_number *from, struct conn_number *to);
uint64_t conn_seq_acked(struct conn_seq *s);

#endif
