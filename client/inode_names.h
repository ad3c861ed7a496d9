/* Which names a directory does not have, and which it has: questions that need not go to the site.
 *
 * A directory that this mount made, or has listed in one go, is known whole: the hashes (keyed,
 * 64 bits) of its names. Every name this mount makes goes in before the request is sent and comes
 * out when its removal was answered, so what is not in the set is not there; the other way round
 * nothing is said. Changes by others are told by the site and hit the directory in the clock
 * (inode_clock.h): then nothing is known any more (C7).
 *
 * Beside the hashes there is the list of the names, while they are few: a name goes in when it was
 * answered that it was made. An answer that does not say what became of a name ends the list, and
 * the next listing asks the site. The kernel has one change of a directory's names under way at a
 * time, so that answers come in the order of the changes. Threads: any; all of a directory is
 * guarded by its inode's lock. */
#ifndef CLIENT_INODE_NAMES_H
#define CLIENT_INODE_NAMES_H

#include <pthread.h>

#include "base/buf.h"
#include "base/id.h"

#define INODE_NAMES_MAX (1u << 20)         /* of one mount: 16 MiB at most */
#define INODE_LISTED_MAX 1024u             /* names of a directory that is listed */
#define INODE_LISTED_BYTES_MAX (16u << 20) /* of one mount */

struct names_budget {      /* shared by all sets of a mount */
    pthread_mutex_t lock;  /* private; leaf */
    uint64_t used;         /* slots */
    uint64_t listed_bytes; /* of lists */
    uint8_t key[16];
};
void names_budget_init(struct names_budget *b);
void names_budget_deinit(struct names_budget *b);

struct names_entry { /* private */
    struct oid oid;
    char *name; /* owned */
    size_t len;
};
/* Embed it; zeroed knows nothing; end with inode_names_drop. */
struct inode_names {
    uint64_t since; /* private from here; inode_clock when it was whole; 0: it is not */
    uint64_t *slots;
    uint32_t slot_count, count;  /* count: with removed ones, which leave a mark */
    bool listed;                 /* `entries` are all names */
    struct names_entry *entries; /* by name, bytewise */
    uint32_t entry_count, entry_cap;
};
/* Names as they were at a moment; end with names_copy_deinit. */
struct names_copy {
    uint32_t count;
    struct oid *oids; /* owned, and with them: */
    char **names;
};
void names_copy_deinit(struct names_copy *c); /* accepts zeroed; leaves it zeroed */
/* Whole and empty, as told by a request sent after `since`. */
void inode_names_start(struct inode_names *n, struct names_budget *b, uint64_t since);
/* Nothing is known; nothing is held. */
void inode_names_drop(struct inode_names *n, struct names_budget *b);
void inode_names_add(struct inode_names *n, struct names_budget *b, struct slice name);
void inode_names_remove(struct inode_names *n, struct names_budget *b, struct slice name);
/* In a list: `name`, which was added, is that of `oid` now. */
void inode_names_list(struct inode_names *n,
                      struct names_budget *b,
                      struct slice name,
                      struct oid oid);
/* Which names there are is not known any more. */
void inode_names_unlist(struct inode_names *n, struct names_budget *b);
/* What a list says of `name`; none: nothing. */
struct oid inode_names_oid(const struct inode_names *n, struct slice name);
/* False: there is no list. The caller asks the clock whether `*ret_since` still holds. */
bool inode_names_copy(const struct inode_names *n, struct names_copy *ret, uint64_t *ret_since);
/* The caller asks the clock whether `*ret_since` still holds. */
bool inode_names_lacks(const struct inode_names *n,
                       const struct names_budget *b,
                       struct slice name,
                       uint64_t *ret_since);

#endif
