/* Private to sim/trio*.c. */
#ifndef SIM_TRIO_INT_H
#define SIM_TRIO_INT_H

#include "sim/disk.h"
#include "sim/loop_sim.h"
#include "sim/trio.h"
#include "sim/trio_net.h"
#include "site/replica.h"
#include "site/shard_peers.h"

#define TRIO_RECORDS_MAX 40000u
#define TRIO_CLIENTS 8u
#define TRIO_DIRS 12u
#define TRIO_NAMES 5u
#define TRIO_FILES 48u
#define TRIO_SITE 9u

struct trio;

struct trio_entry { /* a committed record as the checkers know it */
    uint64_t epoch, hash;
};
struct trio_shard { /* what is known of a shard, apart from its copies */
    struct trio_entry truth[TRIO_RECORDS_MAX + 1];
    uint64_t truth_last;
    uint64_t promised; /* highest stamp below which nothing may come */
};
struct trio_node {
    struct trio *world;
    unsigned number;
    char dir[24];
    struct machine machine;
    struct clock clock;
    int64_t offset_ns, drift_ppm;
    struct loop *loop; /* NULL: it is down */
    struct pool *pool;
    struct hlc hlc;
    struct shard_peers peers;
    struct trio_end end;
    struct shard *shards[TRIO_SHARDS_MAX];
    uint64_t checked[TRIO_SHARDS_MAX]; /* committed records that were compared, in this run */
    bool broken;                       /* end.mute: it is dying */
    struct sched_event restart, heal;
};

/* ---- the model: what everybody must see of what nobody is changing ---- */

enum trio_kind {
    TRIO_NONE,
    TRIO_FILE,
    TRIO_DIR
};
struct trio_slot { /* a name in a directory */
    enum trio_kind kind;
    unsigned index;
    bool busy; /* somebody changes it */
};
struct trio_file {
    struct oid oid;
    uint64_t content; /* a number */
    unsigned links;   /* 0: it is not there */
    bool busy;
};
struct trio_dir {
    struct oid oid;
    bool alive, busy;
    unsigned parent, name; /* where it is */
    unsigned users;        /* calls that need it to stay */
    struct trio_slot slots[TRIO_NAMES];
};

enum trio_call {
    TRIO_CREATE,
    TRIO_WRITE,
    TRIO_LINK,
    TRIO_UNLINK,
    TRIO_RENAME,
    TRIO_MKDIR,
    TRIO_RMDIR,
    TRIO_MOVE, /* of a directory */
    TRIO_READ,
    TRIO_CALLS
};
enum trio_phase {
    TRIO_IDLE,
    TRIO_EVALUATE, /* when all that it needs are led */
    TRIO_PROPOSED, /* waits for its answer */
    TRIO_ANSWERED  /* until it shows everywhere, durably */
};
struct trio_client {
    struct trio *world;
    struct sched_event event;
    uint64_t session, number;
    enum trio_phase phase;
    bool tried; /* it may have been proposed */
    enum trio_call call;
    unsigned dir, name, to_dir, to_name; /* slots it is about */
    unsigned file, victim;               /* files; victim: TRIO_FILES is none */
    unsigned moved;                      /* the directory of mkdir, rmdir, move */
    uint64_t content;
    struct oid oid; /* of what is made */
    shard_id_t home;
    unsigned node; /* that it proposed at */
    uint64_t start;
};
struct trio {
    struct sched sched;
    const struct soak_options *options;
    unsigned shard_count;
    struct trio_node nodes[TRIO_NODES];
    struct trio_shard shards[TRIO_SHARDS_MAX];
    struct trio_net net;
    bool cut[TRIO_NODES + 1][TRIO_NODES + 1];
    uint32_t loss_per_million, repeat_per_million, late_per_million;
    uint64_t delay_ns, segment_bytes, checkpoint_bytes, client_pause_ns;
    bool healed, closing; /* closing: clients finish, and begin nothing */
    struct trio_dir dirs[TRIO_DIRS];
    struct trio_file files[TRIO_FILES];
    struct trio_client clients[TRIO_CLIENTS];
    bool moving; /* directories move one at a time */
    uint64_t contents, answered, takeovers;
    struct sched_event fault, power, look;
    char failure[400];
};
void trio_fail(struct trio *w, const char *promise, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static inline uint64_t trio_below(uint64_t n)
{
    return rng_below(&sched->rng, n);
}

/* trio_carry.c */
void trio_carry_init(struct trio *w);
void trio_carry_deinit(struct trio *w); /* what is under way is lost */

/* trio_node.c */
void trio_node_init(struct trio *w, unsigned number, const struct world_disk *disk);
void trio_node_deinit(struct trio_node *n);
void trio_node_start(struct trio_node *n);
void trio_node_crash(struct trio_node *n, bool power);
void trio_node_wipe(struct trio_node *n); /* while it is down: a new disk */
bool trio_node_serves(const struct trio_node *n, unsigned shard);

/* trio.c: what nodes tell the checkers */
struct shard *trio_leader(struct trio *w, unsigned shard, unsigned *ret_node); /* or NULL */
void trio_check_committed(struct trio_node *n, unsigned shard);
void trio_began_to_serve(struct trio_node *n, unsigned shard);

/* trio_client.c */
void trio_clients_init(struct trio *w);
void trio_clients_dropped(struct trio_node *n); /* it died: nobody hears of what it was told */
bool trio_clients_idle(const struct trio *w);

/* trio_model.c */
void trio_model_init(struct trio *w);
/* Draws a call that nobody else is in the way of, and keeps what it names. False: none this time.
 */
bool trio_model_draw(struct trio_client *c);
void trio_model_answered(struct trio_client *c); /* it is so now */
void trio_model_done(struct trio_client *c);     /* and what it names is free again */
/* Does it show at whoever leads, durably? */
bool trio_shows(struct trio_client *c);
void trio_check_answered(struct trio_client *c); /* right after its answer */
/* What nobody is changing must show. */
void trio_check_shard(struct trio *w, unsigned shard); /* at its leader, which has just begun */
void trio_check_one(struct trio *w, bool dir, unsigned index);
void trio_check_trees(struct trio *w); /* P6, in the end */
unsigned trio_shard_of(const struct trio *w, struct oid oid);
struct slice trio_name(unsigned name);
struct slice trio_content(uint64_t content, uint8_t out[8]);
/* trio_build.c: 0 and the operation of c->call against what leads, or ERR_AGAIN. */
int trio_build(struct trio_client *c, struct op_builder *b) MUST_CHECK;
unsigned trio_home_of(const struct trio_client *c); /* the shard that journals it */

#endif
