/* The conflict-resolution engine of one shard: an operation-based CRDT with causal delivery.
 * Executable specification: merge_model.py (DESIGN section 5); this is the same per shard.
 *
 * A core: no I/O of its own beyond struct state, no clock, no threads, no randomness. Same state
 * and same calls give the same bytes. State keys whose first byte is < 0x80 belong to the engine,
 * the others to the engine's owner.
 *
 * What is whole in the model is spread over shards here:
 *  - an entry slot (parent, name) and the directory index live in the shard of `parent`;
 *  - a file's versions, refs and registers live in the shard of its oid;
 *  - a directory's life, birth, registers and placement live in the shard of its oid;
 *  - the fold of all directory moves lives in shard 0.
 * Derived messages keep the index: shard 0 tells a directory's shard its position (POS), which
 * tells parents' shards what to show (PLACE; the receiver of a PLACE then sends the UNPLACE that
 * the message names, so the new name is there before the old one goes). They carry versions and are
 * idempotent; they are never shipped to peers, who derive their own. With one shard they are
 * handled inside the call. The owner delivers them at least once, in order per pair of shards.
 *
 * Directory index invariant: a birth places its directory at (parent, name) at once, in the shard
 * of `parent` (placement version 1), if that shard has never seen this oid there; the directory's
 * own shard assumes exactly that.
 *
 * Twins (same bytes, same rights, rule 6) are recognised among files whose home is the shard of the
 * parent: a function of oids alone, so the same at every site.
 *
 * Threads: the owner's loop. Errors: ERR_CORRUPT/ERR_IO when the state cannot be read. */
#ifndef JOURNAL_MERGE_H
#define JOURNAL_MERGE_H

#include "journal/op.h"
#include "journal/state.h"

struct merge;

/* ---- conflict records (rules 2, 3, 4, 5, 6, 8) ---- */
struct conflict {
    uint8_t id[8];           /* derived from what collided: the same at every site */
    uint8_t rule;            /* 2..8 */
    struct stamp stamp;      /* when the later side was stamped */
    struct oid oid;          /* the object that kept the name, or that it is about */
    struct oid other;        /* fork, loser of a name, replaced directory; or none */
    struct oid parent;       /* where */
    struct slice name;       /* the contested or last name */
    struct slice other_name; /* what the other side shows as now, or empty */
    site_id_t winner, loser; /* sites; 0 when it does not apply */
    struct stamp winner_stamp, loser_stamp;
    struct dot winner_dot, loser_dot;
    bool resolved;
};

/* What apply calls back, in order; all borrowed during the call; none may call into the engine
 * (M11). */
struct merge_events {
    /* Something that (parent, name) shows may have changed. name.len == 0: any name of parent. */
    void (*name_changed)(void *ctx, struct oid parent, struct slice name);
    void (*object_changed)(void *ctx, struct oid oid, bool content_changed);
    /* A file that had no name has one; before it is said that it changed. */
    void (*file_named)(void *ctx, struct oid oid);
    /* A register that is kept by its key (xattrs; in the root what is known of members). */
    void (*register_changed)(void *ctx, struct oid oid);
    void (*send)(void *ctx, shard_id_t to, struct slice derived);
    void (*conflict)(void *ctx, const struct conflict *c); /* new, after it was stored */
    void *ctx;
};

struct merge_config {
    shard_id_t shard;
    unsigned shard_count;
    site_id_t site;      /* this site: whose repairs are owed at once */
    struct state *state; /* borrowed */
    struct merge_events events;
    /* The name conflict names use for a site: 1..32 of [A-Za-z0-9_-], the same at every site. */
    void (*site_name)(void *ctx, site_id_t site, char out[33]);
    void *name_ctx;
};
int merge_open(struct merge **ret, const struct merge_config *config) MUST_CHECK;
void merge_free(struct merge *m);

/* ---- applying ---- */
/* True when every dot that the parts for this shard name has been applied here. When false,
 * *ret_missing (may be NULL) is one that has not. */
bool merge_ready(struct merge *m, const struct op *op, struct dot *ret_missing);
/* Applies the parts that belong to this shard. An op whose dot is covered already (merge_seen) is
 * skipped with 0. For home operations seq must be the next of its site (ERR_MALFORMED otherwise).
 * Requires merge_ready. */
int merge_apply(struct merge *m, const struct op *op) MUST_CHECK;
int merge_apply_derived(struct merge *m, struct slice derived) MUST_CHECK;
/* Highest seq of (home shard, site) applied here; for home == own shard this is the version vector
 * that is exchanged between sites. */
uint64_t merge_seen(struct merge *m, shard_id_t home, site_id_t site);
void merge_vv(struct merge *m, struct vv *ret); /* the own row */
uint64_t merge_hlc_max(struct merge *m);        /* highest stamp applied */

/* Sums over the files of this shard that have a name, of the content they show; holes do not count
 * where blocks were counted. */
struct merge_usage {
    uint64_t bytes;
    uint64_t inline_bytes; /* of them in the state itself: no chunks */
};
void merge_usage(const struct merge *m, struct merge_usage *ret);

/* ---- what users see ---- */
#define SHOWN_TWINS_MAX 16
struct shown {
    struct oid oid;
    struct slice stored; /* the stored name of the slot (differs for derived names) */
    struct stamp stamp;
    struct oid twins[SHOWN_TWINS_MAX]; /* further twins beyond this show under conflict names */
    uint32_t twin_count;
    bool contested; /* other candidates than oid and its twins exist in the slot */
    bool derived;   /* shown under a conflict name */
};
/* `name` as users write it; slices borrowed until the next call. ERR_NOT_FOUND. */
int merge_lookup(struct merge *m, struct oid parent, struct slice name, struct shown *ret)
    MUST_CHECK;
/* Visible names in bytewise order, those > after (empty: from the start); fn returns false to stop.
 * fn must not call into the engine. */
int merge_list(struct merge *m,
               struct oid parent,
               struct slice after,
               bool (*fn)(void *ctx, struct slice visible, const struct shown *s),
               void *ctx) MUST_CHECK;
bool merge_dir_empty(struct merge *m, struct oid dir);

struct file_view {
    struct dot version; /* the one that shows; none: nothing written here yet */
    struct stamp version_stamp;
    struct content content; /* inline bytes borrowed until the next call */
    int64_t mtime_ns, atime_ns, ctime_ns, btime_ns;
    /* borrowed; set-id bits already cleared if not valid (rule 9) */
    struct perm perm;
    uint32_t names;         /* distinct (parent, name) that point here = st_nlink */
    uint32_t version_count; /* > 1: a fork is owed */
    struct oid ref_parent;  /* lowest of its names, for paths; none without */
    struct slice ref_name;
};
/* ERR_NOT_FOUND */
int merge_file(struct merge *m, struct oid oid, struct file_view *ret) MUST_CHECK;
struct dir_view {
    bool alive;
    struct oid parent; /* current position; the root's is the root */
    struct slice name;
    struct birth birth; /* borrowed */
    struct perm perm;
    int64_t mtime_ns, atime_ns, ctime_ns, btime_ns;
    uint64_t entries; /* visible names inside, roughly: slots + index */
    uint32_t subdirs; /* st_nlink = 2 + subdirs */
};
int merge_dir(struct merge *m, struct oid oid, struct dir_view *ret) MUST_CHECK;
/* All (parent, name) of a file, for paths, settling and twins. */
int merge_refs(struct merge *m,
               struct oid oid,
               bool (*fn)(void *ctx, struct oid parent, struct slice name),
               void *ctx) MUST_CHECK;
/* The dot of an entry of oid under another name than (parent, name): what effect.stays of a leave
 * names when the file keeps that name. False: this is its last name. */
bool merge_ref_stays(
    struct merge *m, struct oid oid, struct oid parent, struct slice name, struct dot *ret);
/* ERR_NO_DATA when it is not set. */
int merge_reg(struct merge *m, struct oid oid, struct slice key, struct reg *ret) MUST_CHECK;
int merge_regs(struct merge *m,
               struct oid oid,
               uint8_t key_class,
               bool (*fn)(void *ctx, const struct reg *r),
               void *ctx) MUST_CHECK;

/* The directory of this shard with the lowest oid in [first, last]; ERR_NOT_FOUND. */
int merge_find_dir(struct merge *m, struct oid first, struct oid last, struct oid *ret) MUST_CHECK;

/* ---- building operations ---- */
struct op_builder {
    struct op_arena arena;
    struct effect *effects; /* in the arena */
    uint32_t count, cap;
};
void op_builder_init(struct op_builder *b); /* zeroed is valid too */
void op_builder_deinit(struct op_builder *b);
struct effect *op_builder_add(struct op_builder *b, enum effect_kind kind, struct oid oid);
/* The dots by which slot (parent, stored) holds oid, copied into the arena. */
const struct dot *build_slot_dots(struct merge *m,
                                  struct op_builder *b,
                                  struct oid parent,
                                  struct slice stored,
                                  struct oid oid,
                                  uint32_t *ret_count);
/* Life dots of a directory, for bury. */
const struct dot *
build_life_dots(struct merge *m, struct op_builder *b, struct oid dir, uint32_t *ret_count);
/* A leave of oid from a slot of this shard. `seen`: the showing version if this removes the last
 * name for good (the caller asked the file's shard), none otherwise. */
void build_leave(struct merge *m,
                 struct op_builder *b,
                 struct oid parent,
                 struct slice stored,
                 struct oid oid,
                 struct dot seen);
/* Rule 6: each loser of the slot keeps for good the name it shows, and so does each object that had
 * passed over `leaving` (visible name that goes away, may be empty). Adds leave + enter for files;
 * directories that need it are put into ret_dirs with the name each must be moved to (same parent),
 * because directory moves are issued through shard 0. Returns the number of effects added. */
struct settle_dirs {
    uint32_t count;
    struct {
        struct oid oid;
        struct slice name; /* in the builder's arena */
    } at[64];
};
uint32_t build_settle(struct merge *m,
                      struct op_builder *b,
                      struct oid parent,
                      struct slice stored,
                      struct slice leaving,
                      struct settle_dirs *ret_dirs);
/* The same with several names that go away, as in a rename over a name of the same directory. */
uint32_t build_settle_all(struct merge *m,
                          struct op_builder *b,
                          struct oid parent,
                          struct slice stored,
                          const struct slice *leaving,
                          uint32_t leaving_count,
                          struct settle_dirs *ret_dirs);
/* Shard 0: a move of a directory, with the move whose result the issuer saw (which tells moves of
 * two sites that did not know of each other from moves in a row). Everything is copied. `lineage`:
 * the birth of dir, and the births of `parent` and of all above it by birth. That chain ends at the
 * root, or below a birth parent that has been collected: a directory that is where it was born has
 * a live birth parent; one that moved away for good needs it no more. */
void build_move(struct merge *m,
                struct op_builder *b,
                struct oid dir,
                struct oid parent,
                struct slice name,
                const struct birth *lineage,
                uint32_t lineage_count);
/* The same for a move effect made by hand: fills e->dots. */
void build_saw(struct merge *m, struct op_builder *b, struct effect *e);
/* A set of REG_MTIME. A directory's mtime follows enter, leave and birth by itself; whoever moves
 * or buries a directory adds this for the parents, which those effects do not touch. */
void build_touch(struct op_builder *b, struct oid oid, int64_t mtime_ns);
/* The generation a mkdir of this name must use now (rule 7): one above the highest whose directory
 * is known here. */
uint32_t build_next_gen(struct merge *m, struct oid parent, struct slice name);

/* ---- repairs (rules 2, 3, 4) ---- */
/* Builds the next repair owed here: its own at once, another site's when it has waited since before
 * `due_before_hlc` for it (the owner computes 30 s x rank). False when nothing is due. The caller
 * stamps, journals and applies the operation, then asks again; *ret_next_hlc (may be NULL) = the
 * waiting repair with the lowest since-hlc that was not due, 0 when none. */
struct repair_due {
    uint64_t due_before_hlc; /* repairs of other sites noticed at or below this are taken over */
};
bool merge_repair(struct merge *m,
                  const struct repair_due *due,
                  struct op_builder *b,
                  uint64_t *ret_next_hlc);

/* Is any repair owed here, by whomever? */
bool merge_owes(struct merge *m);
/* The one that has been owed longest, and since when: a stamp of when it was noticed. False: none
 * is. */
bool merge_owed_oldest(const struct merge *m, struct oid *ret_oid, uint64_t *ret_since_hlc);
/* Is one owed that is this site's own, or of which that is not known before merge_repair has
 * looked? */
bool merge_owes_own(const struct merge *m);

/* ---- conflict log ---- */
int merge_conflicts(struct merge *m,
                    bool (*fn)(void *ctx, const struct conflict *c),
                    void *ctx) MUST_CHECK; /* newest first */
/* Adds a record for what this site alone has seen collide; its id is made here of rule and objects.
 * Like a record's `resolved` it reaches the disk with the state, not through the journal. *ret_new:
 * there was none. */
int merge_conflict_note(struct merge *m, struct conflict *c, bool *ret_new) MUST_CHECK;
int merge_conflict_resolved(struct merge *m, const uint8_t id[8], bool resolved) MUST_CHECK;

/* ---- causal stability ---- */
/* Drops buried directories and dead files with their versions, and folds the move log, at or below
 * the stable point, unless something unrepaired refers to them. `pinned` tells what must stay (open
 * files, retained versions). Does at most `budget` objects; returns how many were done with.
 *
 * stable_hlc must be such that (1) every operation with a stamp at or below it has been applied at
 * every member, and (2) every operation that has not been applied here yet was issued by a site
 * that had applied all those. The clock of a member's last vector alone is not enough: what counts
 * is min over members M of min over members O of the clock of O up to which M had O's stream when
 * M sent the last vector that has arrived here, in M's stream. (3) No shard of this site owes a
 * repair (merge_owes), nor is a part or derived message under way between its shards: a repair may
 * put something into a directory that looks dead and empty. */
uint32_t merge_collect(struct merge *m,
                       uint64_t stable_hlc,
                       uint32_t budget,
                       bool (*pinned)(void *ctx, struct oid oid),
                       void *ctx);

/* Is there something left at or below the stable point that merge_collect has not looked at? */
bool merge_collect_due(const struct merge *m, uint64_t stable_hlc);
/* Something is not pinned or owed any more: what had to stay is looked at again by the next
 * merge_collect, also when the stable point is the same. */
void merge_collect_again(struct merge *m);

/* The stable point at which everything that has died by now could go, whether it has gone or not;
 * 0: nothing was dead when the state was opened, and nothing has died since. */
uint64_t merge_collect_goal(const struct merge *m);

/* All contents this shard refers to (for garbage collection of chunks); fn returns false to stop.
 * Resumable: *cursor starts empty, is updated, and is empty again at the end. */
int merge_contents(struct merge *m,
                   struct buf *cursor,
                   uint32_t budget,
                   bool (*fn)(void *ctx, struct oid oid, const struct content *c),
                   void *ctx) MUST_CHECK;

/* Checks the shard's own invariants (fsck): fn gets a sentence for each violation. */
int merge_check(struct merge *m, void (*fn)(void *ctx, const char *what), void *ctx) MUST_CHECK;

/* `a.txt` -> `a.conflict-<site>-<8 hex of the oid>.txt`: never a conflict name of a conflict name;
 * the stem is cut (at a UTF-8 boundary) to fit 255 bytes; k > 0 adds `-k`. */
void conflict_name(
    struct slice name, const char *site_name, struct oid oid, uint32_t k, struct buf *ret);

#endif
