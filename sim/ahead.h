/* A simulated mount that is not `-o sync`: changes are answered ahead of the disk (S14).
 *
 * What it keeps until the site says that it is durable, what of it is sent again to a node that has
 * started anew, in which order and as what, is the real mount's core (client/conn_ahead.h). Here is
 * what is around it: one call at a time, syncs, and power that goes, nodes and mounts that die just
 * when something is not durable yet, or when a sync was answered, or while it is made again.
 *
 *   call -> answered ahead: kept -> PUSH_DURABLE: gone
 *             \-> connection broken -> joined again -> all that is kept is sent again, in order
 *                                        -> the call under way, and those after it
 *
 * Draws come from a generator of its own: a world without such mounts is as it was. */
#ifndef SIM_AHEAD_H
#define SIM_AHEAD_H

#include "client/conn_ahead.h"
#include "sim/sched.h"

struct mount;
enum ahead_strike {
    AHEAD_STRIKE_POWER,   /* the node's power goes */
    AHEAD_STRIKE_PROCESS, /* its process dies */
    AHEAD_STRIKE_MOUNT,   /* the mount dies */
    AHEAD_STRIKE_BOTH     /* the mount, and the node's power: what was not synced is lost */
};
struct ahead {
    bool on;      /* read-only: it asks ahead */
    bool behind;  /* read-only: the site may lack what was answered, until it is made again */
    bool again;   /* read-only: that is being made */
    bool fsync;   /* read-only: the call under way is the commit of an fsync */
    bool renewed; /* private from here: the session is not the one of what is kept */
    struct rng rng;
    struct conn_seq seq;
    struct conn_ahead kept;
    struct conn_number number; /* of the call under way */
    bool numbered;
    struct ahead_entry *sent; /* it, while it may be answered ahead */
    uint64_t synced;          /* calls up to this one were durable when a sync was answered */
    struct ahead_entry e;     /* what is being made again */
    struct op_arena arena;
    bool was_there;       /* it had not been lost */
    struct fs_attr wrote; /* the file that was written again last */
    uint64_t done;        /* those before it were sent */
    struct {              /* the call under way meanwhile */
        unsigned type;
        struct fs_request req;
        uint64_t writes;
        bool in_own, again;
    } aside;
    uint64_t window_ns; /* within which a write becomes durable, about */
    enum ahead_strike strike;
    unsigned strikes_left;
    struct sched_event event;
};
void ahead_init(struct mount *m);
/* In a world that has such mounts: half of them are. */
void ahead_choose(struct mount *m, uint64_t seed, uint64_t window_ns);
void ahead_deinit(struct mount *m);
/* ---- calls ---- */
/* A sync instead of what the workload would draw. */
bool ahead_sync_next(struct mount *m);
/* The call's number, and whether it asks ahead: before it is encoded. */
void ahead_begin(struct mount *m);
void ahead_encoded(struct mount *m);
/* After all others have learned from the answer. */
void ahead_answered(struct mount *m, const struct fs_reply *r);
void ahead_no_answer(struct mount *m); /* none will come */
bool ahead_hurries(struct mount *m);   /* no pause before the next call */
/* ---- the session ---- */
void ahead_left(struct mount *m); /* the connection broke */
/* Joined: begins to make again what is kept; mount_resume() follows when that is done. */
void ahead_joined(struct mount *m, bool new_session);
void ahead_go_on(struct mount *m); /* what the node was not ready for, once more */
/* Is this the answer to what is being made again? */
bool ahead_frame(struct mount *m, uint64_t id, const struct fs_reply *r);
void ahead_told_durable(struct mount *m, struct slice numbers);
/* The mount dies: what is not durable may be lost from now on. */
void ahead_dies(struct mount *m);

#endif
