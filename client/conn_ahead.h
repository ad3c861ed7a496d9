/* Requests that were answered ahead of the disk: kept until the site says that they are durable,
 * and sent again to a node that has started anew, in their order and under their numbers, before
 * any other call passes (C8).
 *
 *   begin -> end, answered as usual: gone
 *        \-> end, answered ahead: kept -> durable: gone
 *                                   \-> sent again by the owner -> answered again: gone, or kept
 *
 * What was made ahead is made again under the oid that it was given at first, and not held. A node
 * that starts anew gives new names to versions: what is sent again later says the new one
 * (conn_ahead_answered_again); so what is being sent again stays until its answer is there, though
 * the word that it is durable may be faster. Threads: any. */
#ifndef CLIENT_CONN_AHEAD_H
#define CLIENT_CONN_AHEAD_H

#include "client/conn_seq.h"
#include "site/proto.h"

#define CONN_AHEAD_MAX 1024u /* requests kept; more of them wait for the disk */

struct ahead_entry {
    struct conn_number number; /* read-only: taken over from the call when it is kept */
    uint64_t id;               /* read-only: that number, also before */
    uint16_t type;             /* read-only */
    struct oid oid;            /* read-only: what the request was about, or has made */
    struct dot version;        /* read-only: the file's, by the answer; none: it said none */
    struct buf body;           /* read-only: to be sent again */
    bool made;                 /* read-only: `oid` is what it has made */
    bool told, durable, again; /* private from here; again: it is being sent once more */
    struct ahead_entry *next;
};
struct conn_ahead {
    pthread_mutex_t lock; /* private from here */
    struct conn_seq *seq;
    struct ahead_entry *first, **last; /* by number, nearly: in the order of begin */
    unsigned count;
};
void conn_ahead_init(struct conn_ahead *a, struct conn_seq *seq);
/* Gives up what is left. */
void conn_ahead_deinit(struct conn_ahead *a);
/* May a change of this type be asked for ahead? Questions may always. */
bool conn_ahead_may(struct conn_ahead *a, uint16_t type);
/* Before it is sent; the body is copied. */
struct ahead_entry *conn_ahead_begin(
    struct conn_ahead *a, uint16_t type, struct oid oid, uint64_t number, struct slice body);
/* After the answer, or instead of it (NULL). True: it is kept, and has taken the number from
 * `number`. */
bool conn_ahead_end(struct conn_ahead *a,
                    struct ahead_entry *e,
                    const struct fs_reply *told,
                    struct conn_number *number);
/* Undoes a conn_ahead_end that kept it: the number is the call's again (*ret_numbered). False: it
 * is not there any more. */
bool conn_ahead_take_back(struct conn_ahead *a,
                          uint64_t id,
                          struct conn_number *number,
                          bool *ret_numbered);
void conn_ahead_durable(struct conn_ahead *a, uint64_t number);
/* The kept one with the lowest number above `after`, to be sent again: a copy, whose body
 * (initialized by the caller) is the caller's. It stays until conn_ahead_answered_again. False:
 * none. */
bool conn_ahead_next(struct conn_ahead *a, uint64_t after, struct ahead_entry *ret);
/* The one with this number was sent again, and the file is like this (NULL: that was not said): its
 * version may have got another name, which later kept commits are based on. `ahead`: it was
 * answered ahead of the disk once more, and is kept until it is durable; else it goes. */
void conn_ahead_answered_again(struct conn_ahead *a,
                               uint64_t number,
                               const struct fs_attr *attr,
                               bool ahead);
/* What became of one that was sent again. */
enum ahead_again {
    AHEAD_WAITS, /* the node is not ready: once more in a moment */
    AHEAD_LOST,  /* it cannot be made again, and is not kept any more */
    AHEAD_MADE   /* it is there, or there again; kept on if that was answered ahead */
};
/* `e` is a copy from conn_ahead_next; `rc` what the node said, `r` its answer if that is 0. */
enum ahead_again conn_ahead_sent_again(struct conn_ahead *a,
                                       const struct ahead_entry *e,
                                       int rc,
                                       const struct fs_reply *r);
/* Is the request that made this file among the kept ones? */
bool conn_ahead_makes(struct conn_ahead *a, struct oid oid);
bool conn_ahead_any(struct conn_ahead *a);

#endif
