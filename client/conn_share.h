/* Memory that one connection of a thread and its site have in common (site/rpc.h): large chunks are
 * sealed and read in it, and only said where they are. A thread has one request under way, so it
 * needs no more than one place. Threads: each its own. */
#ifndef CLIENT_CONN_SHARE_H
#define CLIENT_CONN_SHARE_H

#include "client/conn.h"

struct conn_share {
    uint64_t connect; /* which connection it was asked for on: the owner's count */
    uint8_t *ptr;     /* or NULL: it was not given */
    size_t len;
};
void conn_share_drop(struct conn_share *s); /* accepts zeroed */
/* Lets go of what there was, and asks. An error: the connection is broken. */
int conn_share_ask(struct conn_share *s, struct rpc_client *client, uint64_t session, uint64_t id)
    MUST_CHECK;
/* Does the call's bulk, or its answer's, go that way? Then the request says so, and *bulk is none.
 * NULL: there is none on this connection. */
void conn_share_request(const struct conn_share *s, struct conn_call *call, struct slice *bulk);
/* The answer's bulk, if it says that it lies there. ERR_PEER: not within it. */
int conn_share_reply(const struct conn_share *s, struct conn_call *call) MUST_CHECK;

#endif
