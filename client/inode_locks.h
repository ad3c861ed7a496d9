/* The locks that processes of this mount hold, as granted by the site: to release what an owner
 * holds without asking for nothing, and to ask for all again after a reconnect.
 *
 * POSIX record locks of one owner replace each other byte by byte; flock locks are whole. The site
 * decides conflicts; this table only remembers. Threads: any. */
#ifndef CLIENT_INODE_LOCKS_H
#define CLIENT_INODE_LOCKS_H

#include <pthread.h>

#include "site/proto.h"

struct held_lock {
    struct oid oid;
    struct fs_lock lock;
    bool flock;
    uint64_t handle;        /* the open file it was set through */
    struct held_lock *next; /* private */
};
struct held_locks {
    pthread_mutex_t lock; /* private from here */
    pthread_cond_t released;
    uint64_t releases; /* counted */
    struct held_lock *held;
};
void held_locks_init(struct held_locks *t);
void held_locks_deinit(struct held_locks *t);
/* The site granted this (type 2: it was released). */
void held_locks_set(struct held_locks *t, const struct held_lock *l);
bool held_locks_has(struct held_locks *t, struct oid oid, uint64_t owner, bool flock);
/* The owner of a record lock that was set through `handle`: what is left when an open file goes was
 * its own (F_OFD_SETLK). False: none. */
bool held_locks_of_handle(struct held_locks *t,
                          struct oid oid,
                          uint64_t handle,
                          uint64_t *ret_owner);
/* Somebody of this mount, other than `owner`, holds a lock of that kind on the file: waits until
 * any lock is released, for `ns` at most. False: it was not worth waiting. */
bool held_locks_await(
    struct held_locks *t, struct oid oid, uint64_t owner, bool flock, uint64_t ns);
/* All of the moment; free with mem_free. */
struct held_lock *held_locks_all(struct held_locks *t, size_t *ret_count);

#endif
