/* What wan_chunk.c (chunks that this site lacks) and wan_pass.c (those that others get through it)
 * have in common: one request for a chunk, along one way. */
#ifndef WAN_WAN_CHUNK_INT_H
#define WAN_WAN_CHUNK_INT_H

#include "wan/msg.h"
#include "wan/wan_int.h"

struct chunk_answer {
    int rc;     /* 0: there is an answer; else the link to the first of the way was lost */
    int status; /* 200: the chunk; 404: nobody on the way has it; else why not now, or 0 */
    const struct chunk_id *id;
    const struct way *way;
    struct buf *bytes; /* the chunk, or what was said instead */
    const struct msg_absent *said;
    bool last; /* nobody else follows */
};
/* Somebody who waits for the answer. */
struct chunk_follower {
    struct chunk_follower *next;
    void (*over)(struct chunk_follower *f, const struct chunk_answer *a); /* once */
};
/* Asks the first of the way for it; who asks for the same along the same way follows one request.
 * False, and over() will not be called: there is no connection, or as many are under way as may
 * be. */
bool chunk_ask(struct wan_peer *first,
               const struct chunk_id *id,
               const struct way *way,
               enum chunk_purpose purpose,
               struct chunk_follower *f);
/* Would it be asked? first: one that is reached. */
bool chunk_ask_room(const struct wan_peer *first,
                    const struct chunk_id *id,
                    const struct way *way,
                    enum chunk_purpose purpose);
/* The chunk, as a copy if others want it, too. */
void chunk_answer_take(const struct chunk_answer *a, struct buf *to);

/* wan_chunk.c: a chunk is here that was asked for in another way. */
void wan_fetch_found(struct wan *w, const struct chunk_id *id, struct slice bytes);

#endif
