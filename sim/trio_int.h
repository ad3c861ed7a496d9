/* Private to sim/trio*.c. */
#ifndef SIM_TRIO_INT_H
#define SIM_TRIO_INT_H

#include "sim/disk.h"
#include "sim/ledger.h"
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
#define TRIO_SITE 9u /* id of the first site */
#define TRIO_SITES_MAX 3u
#define TRIO_REST_NS (100 * NS_PER_MS) /* between two looks whether resting is over */

struct trio;
struct trio_link;

struct trio_entry { /* a committed record as the checkers know it */
    uint64_t epoch, hash;
};
struct trio_shard { /* what is known of a shard, apart from its copies */
    struct trio_entry truth[TRIO_RECORDS_MAX + 1];
    uint64_t truth_last;
    uint64_t promised; /* highest stamp below which nothing may come */
    bool settled;      /* it was once, with this digest of its state */
    uint8_t digest[16];
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
struct trio_causes {                 /* trio_cause.c */
    struct vv have[TRIO_SHARDS_MAX]; /* committed in its home */
    struct dot *named;               /* by committed operations of peers, and not looked for yet */
    size_t count, cap;
};
/* One more client, in several sites' common directory, where anything may happen at any time; one
 * call at a time, so that what collides does so between sites. */
struct trio_sharer {
    struct sched_event event;
    uint64_t session, number;
    enum trio_phase phase;
    bool tried;
    enum trio_call call;
    uint64_t content; /* its number in the ledger */
    struct oid oid;
    struct dot dot; /* of the operation */
    struct shard_set parts;
    shard_id_t home;
    unsigned node;
    uint64_t start;
};
struct trio { /* a site */
    struct trio_world *all;
    unsigned number; /* in the world */
    site_id_t site;
    unsigned shard_count;
    struct trio_node nodes[TRIO_NODES];
    struct trio_shard shards[TRIO_SHARDS_MAX];
    struct trio_net net;
    bool cut[TRIO_NODES + 1][TRIO_NODES + 1];
    uint32_t loss_per_million, repeat_per_million, late_per_million;
    uint64_t delay_ns, segment_bytes, checkpoint_bytes, client_pause_ns;
    bool healed, closing; /* closing: clients finish, and begin nothing */
    bool resting;         /* they begin nothing for now */
    unsigned out; /* a node that is left broken while the others take over; TRIO_NODES: none */
    enum world_broken how;
    struct trio_dir dirs[TRIO_DIRS];
    struct trio_file files[TRIO_FILES];
    struct trio_client clients[TRIO_CLIENTS];
    struct trio_sharer sharer;
    struct trio_causes causes;
    bool moving; /* directories move one at a time */
    uint64_t contents, answered, changed /* by what was answered */, takeovers, conflicts;
    struct sched_event fault, power, look, repair;
};
struct trio_world {
    struct sched sched;
    const struct soak_options *options;
    const struct soak_edit *edit; /* NULL: nothing is left out */
    uint64_t seed, faults;        /* faults that happened so far, or would have */
    unsigned site_count;
    unsigned out; /* a site that is cut off while the others converge; TRIO_SITES_MAX: none */
    struct trio *sites[TRIO_SITES_MAX];
    struct ledger ledger;   /* of what is written in the common directory */
    struct oid common;      /* that directory */
    struct trio_link *link; /* between sites */
    char failure[400];
};
void trio_fail(struct trio *w, const char *promise, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static inline bool trio_good(const struct trio *w)
{
    return w->all->failure[0] == '\0';
}
/* A fault is about to happen: does it, or is it left out? */
static inline bool trio_faults(struct trio_world *all)
{
    uint64_t number = all->faults++;
    return all->edit == NULL || number >= WORLD_EVENTS_MAX || !all->edit->without[number];
}
static inline uint64_t trio_below(uint64_t n)
{
    return rng_below(&sched->rng, n);
}

/* trio_carry.c */
void trio_carry_init(struct trio *w);
void trio_carry_lose(struct trio *w, unsigned node); /* what is under way from it and to it */
void trio_carry_deinit(struct trio *w);              /* all that is */

/* trio_node.c */
void trio_node_init(struct trio *w, unsigned number, const struct world_disk *disk);
/* How much of the journals peers may need, as far as this node knows. */
void trio_node_keep(struct trio_node *n);
void trio_node_deinit(struct trio_node *n);
void trio_node_start(struct trio_node *n);
void trio_node_crash(struct trio_node *n, bool power);
void trio_node_wipe(struct trio_node *n); /* while it is down: a new disk */
bool trio_node_serves(const struct trio_node *n, unsigned shard);

/* trio.c: a site */
void trio_init(struct trio_world *all, unsigned number);
void trio_deinit(struct trio *w); /* its memory is freed when no event waits any more */
void trio_begin_faults(struct trio *w);
void trio_heal(struct trio *w); /* all but w->out, which is broken as w->how says */
bool trio_three_in_sync(const struct trio *w);
bool trio_core_in_sync(const struct trio *w); /* all but w->out are */
/* Why not all copies of all shards have all of the journal, with nothing on its way; NULL: they do.
 */
const char *trio_unsettled(struct trio *w);
/* P4: the copies' states. */
void trio_check_digests(struct trio *w, const char *when);
/* What nodes tell the checkers. */
struct shard *trio_leader(struct trio *w, unsigned shard, unsigned *ret_node); /* or NULL */
void trio_check_committed(struct trio_node *n, unsigned shard);
void trio_began_to_serve(struct trio_node *n, unsigned shard);

/* trio_client.c */
void trio_clients_init(struct trio *w);
void trio_clients_dropped(struct trio_node *n); /* it died: nobody hears of what it was told */
bool trio_clients_idle(const struct trio *w);

/* trio_model.c */
void trio_model_init(struct trio *w, struct oid root);
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
/* trio_build.c */
struct trio_eval { /* what a call is evaluated against; all of it is led */
    struct trio *w;
    struct op_builder *b;
    struct merge *at[TRIO_SHARDS_MAX];
    struct shard *shards[TRIO_SHARDS_MAX];
    int64_t now_ns;
    uint64_t hlc; /* above all that is shown; frames of site/rpc.h carry it to whoever proposes */
};
/* False: not all is led. */
bool trio_eval_begin(struct trio_eval *s, struct trio *w, struct op_builder *b);
struct merge *trio_merge_at(const struct trio_eval *s, struct oid oid);
void trio_add_perm(struct trio_eval *s, struct oid oid);
void trio_add_enter(struct trio_eval *s, struct oid oid, struct oid parent, struct slice name);
void trio_add_version(struct trio_eval *s, struct oid oid, struct slice content, struct dot base);
/* One of the names of a file; lives_on: it gets another one. ERR_EXISTS: something that lost the
 * name would have to be moved first. */
int trio_add_leave(
    struct trio_eval *s, struct oid file, struct oid parent, struct slice name, bool lives_on);
struct oid trio_add_birth(struct trio_eval *s, struct oid parent, struct slice name);
int trio_add_move(
    struct trio_eval *s, struct oid dir, struct oid from, struct oid to, struct slice name);
void trio_add_bury(struct trio_eval *s, struct oid dir, struct oid parent);
/* 0 and the operation of c->call against what leads, or ERR_AGAIN. The proposing node sees *ret_hlc
 * first. */
int trio_build(struct trio_client *c, struct op_builder *b, uint64_t *ret_hlc) MUST_CHECK;
unsigned trio_home_of(const struct trio_client *c); /* the shard that journals it */

/* trio_share.c */
void trio_share_init(struct trio *w);
void trio_share_dropped(struct trio_node *n);
bool trio_share_idle(const struct trio *w);
/* Makes a directory in the root, by a site that nothing happens to yet. */
struct oid trio_share_make(struct trio *w, struct slice name);
bool trio_share_knows(struct trio *w, struct oid dir);

/* trio_cause.c */
void trio_cause_see(struct trio *w, unsigned shard, struct slice payload); /* it is committed */
void trio_cause_check(struct trio *w, unsigned shard); /* it is led, all it has was seen */

/* trio_link.c: streams between sites */
void trio_link_init(struct trio_world *all);
void trio_link_deinit(struct trio_world *all); /* as trio_deinit */
void trio_link_heal(struct trio_world *all);
void trio_link_begin_faults(struct trio_world *all);
/* Why not all sites have the same, and know it; NULL: they have. */
const char *trio_link_unsettled(struct trio_world *all);

/* trio_tree.c */
void trio_check_sites(struct trio_world *all, const char *when); /* P4, P5, P6 */

/* trio_core.c: a part is healed first, and has to do without the rest. */
void trio_core(struct trio_world *all);

/* trio_world.c */
bool trio_run_until(struct trio_world *all, uint64_t until_ns); /* false: something failed */

#endif
