/* Private to site/: one request in progress, from its frame to its reply.
 *
 * A handler evaluates the request and returns
 *   CALL_DONE     the reply is filled in; it goes out when nothing holds it any more (durability,
 *                 deliveries, other mounts' acknowledgements of invalidations);
 *   CALL_PARKED   something it needs is latched or not durable: it was queued there and will be
 *                 evaluated again from the start;
 *   CALL_HELD     a shell took it over (chunk store, lock queue) and will finish it;
 *   < 0           the error that is the answer.
 * Threads: loop. */
#ifndef SITE_CALL_H
#define SITE_CALL_H

#include "site/proto.h"
#include "site/rpc.h"
#include "site/shard.h"

enum call_outcome {
    CALL_DONE = 0,
    CALL_PARKED = 1,
    CALL_HELD = 2
};
#define CALL_LATCHES_MAX 64u
#define CALL_SAW_MAX 4u

struct node;
struct call {
    struct node *n;
    struct rpc_conn *conn; /* referenced; NULL: made by the node itself */
    uint16_t type;
    uint64_t id;
    struct buf frame;  /* the request's bytes */
    struct slice bulk; /* in them */
    struct op_arena arena;
    struct fs_request req; /* borrows from frame and arena */
    struct op_builder b;
    struct fs_reply reply;
    struct buf keep[3];      /* bytes that the reply refers to */
    struct slice reply_bulk; /* in keep[0], which then goes out with it; or in what outlives us */
    unsigned holds;          /* the reply waits while > 0 */
    unsigned durable_holds;  /* of these: for the disk */
    bool evaluated;          /* the handler has returned CALL_DONE */
    bool foreign;            /* it has read what others did and what is not durable */
    bool told;               /* answered ahead of the disk */
    bool riders_stored;      /* the chunks that came with it are durable */
    int committed_rc;
    struct {
        struct shard *shard;
        uint64_t key;
    } latches[CALL_LATCHES_MAX];
    uint32_t latch_count;
    struct {
        struct shard *shard;
        uint64_t index;
    } saw[CALL_SAW_MAX]; /* what was looked at is as it is when this record is durable */
    uint32_t saw_count;
    struct shard_wait wait; /* parked */
    struct {
        struct shard_wait wait;
        struct shard *shard;          /* NULL: none */
    } words[2];                       /* parked: what other shards have to say */
    struct shard_wait *durable_waits; /* unused entries are freed with the call */
    struct oid touched[4];            /* what the request itself names: its own mount knows */
    uint32_t touched_count;
    struct oid twins[SHOWN_TWINS_MAX]; /* of the object that is changed by oid; posix_touch */
    struct {
        struct oid parent;
        struct slice name;
    } twin_refs[SHOWN_TWINS_MAX];
    uint32_t twin_count;
    int64_t now_ns;      /* one time for all that the request stamps */
    struct oid attr_oid; /* not none: its attributes are read when the reply goes out */
    struct oid awaited;  /* parked: whose hold is to end */
    struct call *prev_open, *next_open; /* of all of the node */
    struct call *next; /* run queue; parked: of those that wait for the end of a hold */
    void (*finished)(struct call *c, int rc); /* calls made by the node itself */
    void *user;
};

struct shard *node_shard(struct node *n, shard_id_t id);
struct shard *shard_of(struct node *n, struct oid oid);
struct merge *merge_of(struct node *n, struct oid oid);

/* ---- evaluation helpers (call.c): 0, CALL_PARKED, or an error ---- */
/* The name is needed to decide something that `home` will journal. */
int call_need_name(struct call *c, struct shard *home, struct oid parent, struct slice name);
int call_need_object(struct call *c, struct shard *home, struct oid oid);
/* Another mount keeps attributes of the object back: they are asked for (node_hold.c). */
int call_await_holder(struct call *c, struct oid oid);
/* What this request needs to know is on its way, and will be applied in one of these shards (second
 * may be NULL): CALL_PARKED, and evaluated again when something is. */
int call_await_word(struct call *c, struct shard *first, struct shard *second);
/* What was read of this key is told to the client: hold the reply until it is durable. */
void call_show(struct call *c, struct oid oid, struct slice name);
void call_hold_durable(struct call *c, struct shard *s, uint64_t index);
/* What was read of this key decides what is answered: an error waits until it is durable. */
void call_saw(struct call *c, struct oid oid, struct slice name);
void call_show_error(struct call *c);
/* May the reply go now, although the disk is not done? Only to who alone did all it shows (S14). */
bool call_may_go_ahead(const struct call *c);
/* Latches every name and object that the builder's effects change in shards other than home. */
int call_latch_effects(struct call *c, struct shard *home);
void call_latch(struct call *c, struct shard *s, uint64_t key);
/* Proposes the builder's effects in `home`; latches; the reply is held until all is done. */
int call_propose(struct call *c, struct shard *home, struct oid result, struct op *ret_op);
void call_hold(struct call *c);
void call_release(struct call *c);
/* Copies bytes so that they live as long as the call. */
struct slice call_keep(struct call *c, struct slice s);

/* ---- attributes (attr.c) ---- */
int attr_get(struct node *n, struct oid oid, struct fs_attr *ret);
/* Content as shown: an orphan's own, or the version's. Slices valid until the next engine call. */
int content_get(struct node *n,
                struct oid oid,
                struct content *ret,
                struct dot *ret_version,
                int64_t *ret_mtime);
bool orphan_get(struct node *n,
                struct oid oid,
                struct content *ret,
                struct dot *ret_version,
                int64_t *ret_mtime);
int call_reply_attr(struct call *c, struct oid oid); /* into the reply; holds until durable */
/* After names of files were changed by an operation of `home`: directories and oids of the reply.
 */
void call_reply_names(struct call *c, struct shard *home);

/* ---- POSIX ACLs in Linux xattr form (acl.c): pure ---- */
bool acl_valid(struct slice acl);
/* The child's access ACL and mode from the parent's default ACL. *mode in: requested, out: result.
 */
void acl_inherit(struct slice default_acl, uint16_t *mode, struct buf *ret_access);
void acl_chmod(struct slice acl, uint16_t mode, struct buf *ret);
/* Mode bits of an ACL; *ret_minimal: it says no more than a mode can. */
void acl_mode(struct slice acl, uint16_t *mode, bool *ret_minimal);

/* ---- handlers by type (posix_*.c, node_*.c) ---- */
int call_lookup(struct call *c);
int call_getattr(struct call *c);
int call_resolve_ino(struct call *c);
int call_setattr(struct call *c);
int call_create(struct call *c);
int call_mkdir(struct call *c);
int call_link(struct call *c);
int call_unlink(struct call *c);
int call_rmdir(struct call *c);
int call_rename(struct call *c);
int call_readdir(struct call *c);
int call_open(struct call *c);
int call_close(struct call *c);
int call_content(struct call *c);
int call_commit(struct call *c);
int call_restore(struct call *c);
int call_setxattr(struct call *c);
int call_getxattr(struct call *c);
int call_listxattr(struct call *c);
int call_removexattr(struct call *c);
int call_readlink(struct call *c);

/* Shared between the namespace handlers (posix_name.c). */
int call_dir_alive(struct call *c, struct oid dir, struct dir_view *ret);
/* `parent` names `oid`. Is that a directory whose own shard does not have it yet, or not any more?
 * Then a change is half way between the two, and is waited for: users see all of it or nothing. */
int call_whole(struct call *c, struct oid parent, struct oid oid);
int call_find(struct call *c,
              struct shard *home,
              struct oid parent,
              struct slice name,
              struct shown *ret); /* copies `stored` into the call; ERR_NOT_FOUND */
/* Effects that take a shown file (and its twins) from its slot. */
int call_leave(
    struct call *c, struct shard *home, struct oid parent, const struct shown *s, bool lives_on);
/* Settling; directories that must move first are moved by an operation of shard 0 and the call is
 * parked. `skip`: objects the operation itself takes away or moves: directories of these have gone
 * then. A file has left this name as well; one that is a loser here has another name there. */
int call_settle(struct call *c,
                struct shard *home,
                struct oid parent,
                struct slice stored,
                struct slice leaving,
                const struct oid *skip,
                uint32_t skip_count);
/* Births of `dir` and of everything above `target`, as a move needs them, in the builder's arena.
 */
int call_lineage(
    struct call *c, struct op_builder *b, struct oid dir, struct oid target, struct effect *e);

/* ---- the node's side (node_calls.c) ---- */
/* A request of the node's own; `finished` runs once, later. */
void node_issue(struct node *n,
                enum rpc_type type,
                const struct fs_request *req,
                void (*finished)(struct call *c, int rc),
                void *user);
void node_run_later(struct node *n, struct call *c);
struct call *node_call_new(struct node *n, uint16_t type); /* ends with node_call_finish */
void node_call_finish(struct call *c);
void node_call_ahead(struct call *c); /* answers; node_call_finish follows when it is durable */
void node_session_open(struct call *c, struct oid oid);
void node_session_close(struct call *c, struct oid oid);
bool node_object_open(struct node *n, struct oid oid);
/* Its session may keep attributes of the new file from now on, or not any longer (node_hold.c). */
void node_hold(struct call *c, struct oid oid);
void node_hold_end(struct call *c, struct oid oid);
bool node_held_elsewhere(const struct call *c, struct oid oid);
void node_session_interest(struct call *c, struct oid oid);

#endif
