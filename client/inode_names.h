/* Which names a directory does not have: a question that need not go to the site.
 *
 * A directory that this mount made, or has listed in one go, is known whole: the hashes (keyed,
 * 64 bits) of its names. Every name this mount makes goes in before the request is sent and comes
 * out when its removal was answered, so what is not in the set is not there; the other way round
 * nothing is said. Changes by others are told by the site and hit the directory in the clock
 * (inode_clock.h): then nothing is known any more (C7). Threads: any; a set is guarded by its
 * inode's lock. */
#ifndef CLIENT_INODE_NAMES_H
#define CLIENT_INODE_NAMES_H

#include <pthread.h>

#include "base/buf.h"

#define INODE_NAMES_MAX (1u << 20) /* of one mount: 16 MiB at most */

struct names_budget {     /* shared by all sets of a mount */
    pthread_mutex_t lock; /* private; leaf */
    uint64_t used;        /* slots */
    uint8_t key[16];
};
void names_budget_init(struct names_budget *b);
void names_budget_deinit(struct names_budget *b);

/* Embed it; zeroed knows nothing; end with inode_names_drop. */
struct inode_names {
    uint64_t since; /* private from here; inode_clock when it was whole; 0: it is not */
    uint64_t *slots;
    uint32_t slot_count, count; /* count: with removed ones, which leave a mark */
};
/* Whole and empty, as told by a request sent after `since`. */
void inode_names_start(struct inode_names *n, struct names_budget *b, uint64_t since);
/* Nothing is known; nothing is held. */
void inode_names_drop(struct inode_names *n, struct names_budget *b);
void inode_names_add(struct inode_names *n, struct names_budget *b, struct slice name);
void inode_names_remove(struct inode_names *n, const struct names_budget *b, struct slice name);
/* The caller asks the clock whether `*ret_since` still holds. */
bool inode_names_lacks(const struct inode_names *n,
                       const struct names_budget *b,
                       struct slice name,
                       uint64_t *ret_since);

#endif
