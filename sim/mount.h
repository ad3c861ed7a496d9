/* A simulated mount: a session with its site's node, one call at a time, drawn from a workload.
 *
 * It behaves as the real one where the node can tell: exactly-once numbers, the same call again
 * after a lost connection, invalidations acknowledged, the version it read as the base of a write.
 * When its session is gone (it was away too long) the outcome of the call under way is unknown. */
#ifndef SIM_MOUNT_H
#define SIM_MOUNT_H

#include "base/limits.h"
#include "sim/ahead.h"
#include "sim/ledger.h"
#include "sim/private.h"
#include "sim/process.h"
#include "sim/real.h"
#include "sim/rpc_sim.h"
#include "site/proto.h"

#define MOUNT_DIRS 12u
#define MOUNT_FILES 12u
#define MOUNT_RING 3u
#define MOUNT_OPEN 5u
#define MOUNT_CLOSING 16u

struct mount_stats {
    uint64_t calls, failed, changes, latency_ns_sum, latency_ns_max, stale;
};
struct mount_dir {
    struct oid oid, parent;
    char name[24]; /* under which it was seen last; empty: not known */
};
struct mount_file {
    struct oid oid;
    struct dot version;
};
struct mount_open { /* a file that it has open: opens.h */
    struct oid oid;
    struct dot version;
    uint64_t wrote; /* number of what it wrote last, if the file had no name then; else 0 */
    bool nameless;  /* it wrote to it when it had no name, and none was seen since */
    uint64_t id;    /* of what tells the node so once more */
    unsigned told;  /* how often the node may have counted it */
    bool again;     /* the node has started since: it is to be told once more */
};
struct mount {
    struct process *process;
    struct ledger *ledger;
    const struct world_work *work;
    unsigned number; /* of the mount, in the world */
    struct rng rng;
    uint64_t until_ns, calls_left; /* UINT64_MAX: no bound */
    uint64_t zero_ns;              /* when the world's time began */
    unsigned burst;                /* calls of this burst so far */
    struct mount_stats stats;
    /* session */
    struct rpc_peer main, push;
    uint64_t session, next_number;
    bool joined;
    bool anew; /* the session that it had is no more */
    /* the call under way */
    bool busy;
    enum rpc_type type;
    struct fs_request req;
    struct buf body, bulk; /* bulk: chunks that go with it */
    uint8_t name[2][LIMIT_NAME_BYTES + 1], *content;
    uint64_t began_ns;
    uint64_t writes;           /* number of the content that is written, 0: none */
    uint64_t dooms[8];         /* contents that the call may replace or delete */
    struct oid doomed_oids[2]; /* and everything known of these */
    unsigned doom_count;
    /* what it knows */
    struct oid ring[MOUNT_RING];       /* what all sites move into each other; none: unknown */
    struct mount_dir dirs[MOUNT_DIRS]; /* the first one is where the workload lives */
    bool home_is_there;                /* somebody else made it */
    unsigned dir_count;
    struct mount_file files[MOUNT_FILES];
    unsigned file_count;
    struct mount_open open[MOUNT_OPEN];
    unsigned open_count;
    uint64_t opened;                   /* so many in its life */
    struct oid closing[MOUNT_CLOSING]; /* of the call under way */
    uint64_t node_crashes;             /* of the node that knows what is open */
    struct real real;                  /* what it is at, when it does something that people do */
    struct ahead ahead;                /* when it is not `-o sync` */
    struct private_dir own;
    struct mount *sibling; /* another one of the same site, or NULL */
    bool again;            /* the call under way was sent more than once */
    bool in_own;           /* the call under way is of the private model */
    struct sched_event next;
    char failure[200]; /* P3, or an answer that cannot be */
};

void mount_init(struct mount *m,
                struct process *p,
                struct ledger *l,
                const struct world_work *work,
                unsigned number);
void mount_start(struct mount *m);
/* Its site is about to be lost for ever: what it has asked for gets no answer, and may have been
 * done, and be known to other sites. */
void mount_site_goes(struct mount *m);
void mount_deinit(struct mount *m);
void mount_leave(struct mount *m); /* for good: nothing more is called */
/* It dies, and another one of the same name comes after a while. */
void mount_dies(struct mount *m, uint64_t back_ns);
/* It has joined, and what it keeps is there again: calls go on. */
void mount_resume(struct mount *m);
/* Nothing is under way and nothing more will be begun. */
bool mount_idle(const struct mount *m);
/* A request beside its calls. */
void mount_say(struct mount *m, enum rpc_type type, uint64_t id, const struct fs_request *req);
/* How long the call under way has been waiting for its answer. */
uint64_t mount_waits_ns(const struct mount *m);

#endif
