/* Insides of the conflict-resolution engine, shared by merge*.c only.
 *
 * Every public call works on a working set: records are read from the state into an arena, changed
 * there, and written back in one go at the end (work_finish). Nothing is written before all reads
 * of the call have succeeded. The working set and all slices in it live until the next call.
 *
 * State keys (first byte; oids and numbers big endian, so that scans are ordered):
 *   s parent name        slot: entries and index of one stored name; absent when empty
 *   c parent name        the slot has more than one object (empty value)
 *   g parent name        highest generation of a mkdir here
 *   f oid                file record            d oid   directory record
 *   x oid key            extended attribute     q oid   placement version of a directory, local
 *   v home               highest seq per site   r oid   repair owed, since when, local
 *   m stamp dot oid      directory move         b oid   birth, as shard 0 knows it
 *   p oid                position below the folded moves (shard 0)
 *   k order id, j id     conflict records, local
 *   z hlc kind oid       to look at when stable, local
 *   h n                  past versions and names (merge_past.c), local
 *   u                    sums over all files (merge_usage.c) */
#ifndef JOURNAL_MERGE_INT_H
#define JOURNAL_MERGE_INT_H

#include "base/assert.h"
#include "base/codec.h"
#include "base/limits.h"
#include "journal/merge.h"
#include "journal/merge_past.h"

enum key_type {
    KEY_SLOT = 's',
    KEY_CONTESTED = 'c',
    KEY_GENERATION = 'g',
    KEY_FILE = 'f',
    KEY_DIR = 'd',
    KEY_XATTR = 'x',
    KEY_PLACED = 'q',
    KEY_SEEN = 'v',
    KEY_REPAIR = 'r',
    KEY_MOVE = 'm',
    KEY_BIRTH = 'b',
    KEY_BASE = 'p',
    KEY_CONFLICT = 'k',
    KEY_CONFLICT_ID = 'j',
    KEY_STABLE = 'z',
    KEY_PAST = 'h',
    KEY_PAST_NAME = 'n',
    KEY_USAGE = 'u'
};

/* ---- records ---- */
struct when { /* a time that the highest stamp sets */
    struct stamp stamp;
    int64_t ns;
};
struct lww {            /* a register without its key */
    struct stamp stamp; /* hlc 0 and site 0: never set */
    bool present;
    struct slice value;
};
struct dots { /* a set of dots, in the order of dot_cmp; copied when it changes */
    const struct dot *at;
    uint32_t count;
};
struct ver {
    struct dot dot;
    struct stamp stamp;
    int64_t mtime_ns;
    struct content content;
};
struct ref {
    struct dot dot;
    struct oid parent;
    struct slice name;
};
struct file_rec {
    struct oid oid;
    struct file_rec *hash_next, *next;
    bool known;           /* was in the state, or something of it is now */
    bool dirty;           /* write it back */
    bool nameless;        /* when it was read; not of what this call makes */
    bool content_changed; /* in this call */
    bool rights_changed;
    bool born;        /* its first version or the fork that made it is here */
    bool owed;        /* a repair is queued */
    bool queued;      /* for merge_collect */
    struct ver *vers; /* by (stamp, dot): the one that shows is the last unseen */
    uint32_t ver_count, ver_cap;
    struct dots seen;  /* of vers: deleters of a last name knew them; unborn: any */
    struct dots early; /* unborn: replaced before the fork that brings them arrived */
    struct ref *refs;  /* by (parent, name, dot) */
    uint32_t ref_count, ref_cap;
    struct stamp last_stamp; /* the latest removal of a name; none: hlc 0 */
    struct oid last_parent;
    struct slice last_name;
    struct lww perm;
    struct when atime, mtime;  /* explicit; hlc 0: never */
    struct when ctime;         /* highest operation that touched it */
    struct when btime;         /* lowest */
    struct merge_usage before; /* what it counted for when it was read */
};
struct position {
    struct oid parent;
    struct slice name;
    struct stamp stamp;
    int64_t ns;
};
struct dir_rec {
    struct oid oid;
    struct dir_rec *hash_next, *next;
    bool known, dirty;
    bool has_birth;
    bool has_moved; /* moved is its position; else the birth is */
    bool owed;
    bool queued;
    struct birth birth;
    struct when born; /* lowest mkdir: stamp of the position at birth */
    struct dots life;
    struct stamp death; /* highest rmdir */
    struct lww perm;
    struct when atime, mtime, ctime;
    uint64_t entries;   /* objects in the slots inside */
    uint32_t subdirs;   /* of them directories */
    uint64_t contested; /* slots inside with more than one object */
    struct position moved;
    uint64_t pos_version;   /* of the last POS from shard 0; local */
    uint64_t place_version; /* of the last PLACE sent; local */
    uint64_t index_hlc;     /* clock when a directory last came or went inside; local */
    struct placement {      /* what the parents' shards have been told */
        bool alive;
        struct position pos;
        struct dots life;
    } told; /* not stored: derived when the record is read */
};
struct entry {
    struct dot dot;
    struct oid oid;
    struct stamp stamp;
};
struct indexed {
    struct oid oid;
    struct stamp stamp;
    const site_id_t *sites; /* that have live dots; ordered */
    uint32_t site_count;
};
struct cand { /* an object that wants a name */
    struct oid oid;
    struct stamp stamp;
};
struct slot {
    struct oid parent;
    struct slice name;
    struct slot *hash_next, *next;
    bool dirty;
    bool was_contested; /* when it was read */
    struct entry *entries;
    uint32_t entry_count, entry_cap;
    struct indexed *dirs;
    uint32_t dir_count, dir_cap;
    struct cand *before; /* objects when it was read, best first */
    uint32_t before_count, before_dirs;
};
struct placed {
    struct oid oid;
    struct placed *hash_next, *next;
    bool known, dirty;
    uint64_t version; /* of the last PLACE or UNPLACE handled; 1: the birth */
    bool here;        /* in the slot (parent, name) of this shard */
    struct oid parent;
    struct slice name;
};
struct xattr_rec {
    struct oid oid;
    struct slice key; /* with its class byte */
    struct xattr_rec *hash_next, *next;
    bool dirty;
    struct lww reg;
};

/* ---- derived messages ---- */
enum derived_kind {
    DERIVED_POS = 1,
    DERIVED_PLACE = 2,
    DERIVED_UNPLACE = 3
};
struct derived {
    struct derived *next;
    enum derived_kind kind;
    shard_id_t to;
    struct oid oid;
    uint64_t version;
    bool at_birth; /* POS: pos is not given */
    struct position pos;
    const site_id_t *sites; /* PLACE */
    uint32_t site_count;
    bool has_old; /* PLACE */
    struct oid old_parent;
    struct slice old_name;
};

/* ---- the working set ---- */
enum {
    WORK_BUCKETS = 16 /* operations are small; long ones walk a little */
};
struct work_put {
    struct work_put *next;
    struct slice key, value;
    bool is_delete;
};
struct work_conflict {
    struct work_conflict *next;
    struct conflict c;
};
struct work {
    struct op_arena arena;
    struct file_rec *files, *file_hash[WORK_BUCKETS];
    struct dir_rec *dirs, *dir_hash[WORK_BUCKETS];
    struct slot *slots, *slot_hash[WORK_BUCKETS];
    struct placed *placed, *placed_hash[WORK_BUCKETS];
    struct xattr_rec *xattrs, *xattr_hash[WORK_BUCKETS];
    struct work_put *puts, **puts_tail;
    struct derived *queue, **queue_tail; /* to handle here */
    struct derived *out, **out_tail;     /* to send */
    struct work_conflict *conflicts, **conflicts_tail;
};

/* ---- repairs owed ---- */
struct owed {
    struct oid oid;
    uint64_t since_hlc;
    enum owed_state {
        OWED_FRESH, /* whose it is has to be looked up */
        OWED_MINE,
        OWED_WAITING
    } state;
    struct owed *prev, *next; /* list of its state */
    struct owed *hash_next;
};
struct owed_list {
    struct owed *head, *tail;
};
struct owed_queue {
    struct owed_list lists[3];
    struct owed **table;
    uint32_t mask, count;
};

/* ---- names derived for losers, cached per directory ---- */
struct derived_name {
    struct slice visible, stored;
    struct oid oid;
    struct stamp stamp;
    const struct slice *passed;
    uint32_t passed_count;
};
enum {
    DERIVED_CACHE = 64
};
struct derived_names {
    bool valid;
    struct oid parent;
    uint64_t used;
    struct op_arena arena;
    struct derived_name *at; /* by visible */
    uint32_t count, cap;
    /* Stored names of slots that have changed since: their losers are looked up again, while no
     * name has passed another one. */
    struct slice *stale;
    uint32_t stale_count, stale_cap;
    uint32_t
        patched; /* slots looked up again since all were: what they had is still in the arena */
    bool passed_any;
};

struct fold;

struct merge {
    struct merge_config config;
    struct state *state;
    shard_id_t shard;
    int rc; /* sticky: what was read could not be trusted, or a write was half done */
    struct work work;
    struct vv *seen; /* per home shard */
    uint64_t hlc_max;
    uint64_t collect_from; /* nothing is queued with a lower clock */
    uint64_t collect_held; /* nor, of what had to stay, with a higher one; 0: nothing had to */
    bool collect_again;    /* what had to stay is looked at again, whatever the stable point */
    uint64_t collect_goal; /* a stable point here would let all that is dead go; 0: nothing is */
    uint64_t applied;      /* sum of all seen: grows with every operation */
    struct buf key, value;
    struct fold *fold; /* shard 0 */
    struct owed_queue owed;
    struct derived_names derived[DERIVED_CACHE];
    uint64_t derived_clock;
    bool contested_any; /* some slot of this shard may be contested */
    bool past_off;      /* no records of past versions are made */
    bool telling;       /* its events are called: they must not call back */
    struct merge_usage usage;
};

/* merge_rec.c: records to bytes and back, into the arena. Decoders return 0 or ERR_CORRUPT. */
void file_encode(const struct file_rec *f, struct buf *out);
int file_decode(struct slice s, struct op_arena *a, struct file_rec *ret) MUST_CHECK;
void dir_encode(const struct dir_rec *d, struct buf *out);
int dir_decode(struct slice s, struct op_arena *a, struct dir_rec *ret) MUST_CHECK;
void slot_encode(const struct slot *s, struct buf *out);
int slot_decode(struct slice s, struct op_arena *a, struct slot *ret) MUST_CHECK;
void placed_encode(const struct placed *p, struct buf *out);
int placed_decode(struct slice s, struct placed *ret) MUST_CHECK;
void lww_encode(const struct lww *r, struct buf *out);
int lww_decode(struct slice s, struct lww *ret) MUST_CHECK;
void position_encode(const struct position *p, struct buf *out);
int position_decode(struct slice s, struct position *ret) MUST_CHECK;
void birth_encode(const struct birth *b, struct buf *out);
int birth_decode(struct slice s, struct birth *ret) MUST_CHECK;
void derived_encode(const struct derived *d, struct buf *out);
int derived_decode(struct slice s, struct op_arena *a, struct derived *ret) MUST_CHECK;
void content_encode(const struct content *c, struct buf *out);
struct content content_decode(struct dec *d);
void conflict_encode(const struct conflict *c, struct buf *out);
int conflict_decode(struct slice s, struct conflict *ret) MUST_CHECK;

/* merge_set.c: small sets and registers. */
bool dots_has(const struct dots *s, struct dot d);
void dots_add(struct dots *s, struct op_arena *a, struct dot d);
void dots_drop(struct dots *s, struct op_arena *a, struct dot d);
void *array_grow(struct op_arena *a, void *at, uint32_t count, uint32_t *cap, size_t size);
void when_raise(struct when *w, struct stamp stamp, int64_t ns);
void when_lower(struct when *w, struct stamp stamp, int64_t ns);
bool lww_set(struct lww *r, const struct reg *value, struct op_arena *a); /* true: changed */
static inline bool stamp_is_none(struct stamp s)
{
    return s.hlc == 0 && s.site == 0;
}
/* Slots: entries are kept by (dot, oid), directories by oid. */
void slot_add_entry(struct slot *s, struct op_arena *a, const struct entry *e);
void slot_drop_entry(struct slot *s, struct oid oid, struct dot dot);
void slot_put_dir(struct slot *s, struct op_arena *a, const struct indexed *d);
void slot_drop_dir(struct slot *s, struct oid oid);
void file_add_ref(struct file_rec *f, struct op_arena *a, const struct ref *r);
bool file_drop_ref(struct file_rec *f, const struct ref *r); /* false: was not there */
void file_add_version(struct file_rec *f, struct op_arena *a, const struct ver *v);
bool file_drop_version(struct file_rec *f, struct dot dot);
/* The sites of a set of dots, each once, ascending. */
const site_id_t *dots_sites(const struct dots *s, struct op_arena *a, uint32_t *ret_count);
bool file_unseen(const struct file_rec *f, uint32_t i);
/* Versions that count, lowest first (rule 2, 3): all unseen ones, or all. */
uint32_t file_versions(const struct file_rec *f, struct op_arena *a, const struct ver ***ret);
const struct ver *file_shown(const struct file_rec *f); /* NULL: none */
uint32_t file_names(const struct file_rec *f);
void file_prune_seen(struct file_rec *f, struct op_arena *a);
bool file_owes_relink(const struct file_rec *f);
bool file_owes_fork(const struct file_rec *f);
bool file_is_dead(const struct file_rec *f); /* goes once all that touched it is stable */
bool dir_alive(const struct dir_rec *d);
bool dir_owes_revive(const struct dir_rec *d);
struct position dir_position(const struct dir_rec *d);

/* merge_usage.c */
struct merge_usage file_usage(const struct file_rec *f);
void usage_follow(struct merge *m); /* what the working set changes, into the state */
int usage_count(struct merge *m, struct merge_usage *ret) MUST_CHECK; /* reads all files */
int usage_load(struct merge *m) MUST_CHECK;

/* merge_work.c: the working set. All return records of the arena; a record that is not in the
 * state comes back empty with known = false. */
void work_begin(struct merge *m);
struct file_rec *work_file(struct merge *m, struct oid oid);
struct dir_rec *work_dir(struct merge *m, struct oid oid);
struct slot *work_slot(struct merge *m, struct oid parent, struct slice name);
struct placed *work_placed(struct merge *m, struct oid oid);
struct xattr_rec *work_xattr(struct merge *m, struct oid oid, struct slice key);
void work_put(struct merge *m, struct slice key, struct slice value); /* copied */
void work_del(struct merge *m, struct slice key);
int work_finish(struct merge *m) MUST_CHECK;
int work_health(struct merge *m) MUST_CHECK;
struct slice key_oid(struct merge *m, enum key_type type, struct oid oid); /* in m->key */
struct slice key_name(struct merge *m, enum key_type type, struct oid parent, struct slice name);
bool state_has(struct merge *m, struct slice key);

/* merge_place.c: derived messages. */
void place_birth(struct merge *m, const struct op *op, const struct effect *e);
void place_settle(struct merge *m); /* tells parents' shards, handles what stays here */
void place_send(struct merge *m, struct derived *d);
void dir_told(struct dir_rec *d); /* after reading */

/* merge_fold.c: directory moves, shard 0. */
int fold_open(struct merge *m) MUST_CHECK;
void fold_free(struct merge *m);
void fold_apply(struct merge *m, const struct op *op);
bool fold_seen_move(struct merge *m, struct oid oid, struct dot *ret);
uint32_t fold_collect(struct merge *m, uint64_t stable_hlc, uint32_t budget);
uint32_t fold_steps(const struct merge *m);                /* moves above the stable point */
bool fold_due(const struct merge *m, uint64_t stable_hlc); /* fold_collect would do something */
void fold_check(struct merge *m, void (*fn)(void *ctx, const char *what), void *ctx);

/* merge_name.c: who has which name. */
struct resolved {
    struct cand *cands; /* best first; cands[0] has the name */
    uint32_t count, dir_count;
    bool *twin; /* per cand */
};
/* Objects of a slot, best first, each once. */
uint32_t
slot_cands(const struct slot *s, struct op_arena *a, struct cand **ret, uint32_t *ret_dirs);
void slot_resolve(struct merge *m, const struct slot *s, struct resolved *ret);
const struct derived_names *derived_names(struct merge *m, struct oid parent);
/* The slot has changed, or what it shows of a file. */
void derived_forget(struct merge *m, struct oid parent, struct slice stored);
bool name_is_derived_form(struct slice name);

/* merge_repair.c */
void owed_load(struct merge *m);
void owed_touch(struct merge *m, struct oid oid, uint64_t since_hlc);
void owed_drop(struct merge *m, struct oid oid);
void owed_free(struct merge *m);
struct oid fork_oid(struct oid oid, struct dot loser);

/* merge_conflict.c */
void conflict_add(struct merge *m, struct conflict *c); /* copies; once per id */
void conflict_id(struct conflict *c, uint8_t rule, struct slice what);
void conflict_of_file(struct merge *m, const struct file_rec *f);
void conflict_of_slot(struct merge *m, const struct slot *s);
void conflict_of_relink(struct merge *m, const struct file_rec *f);
void conflict_of_revive(struct merge *m, const struct dir_rec *d);
void conflict_of_fork(struct merge *m, const struct op *op, const struct effect *e);
void conflict_of_rename(struct merge *m,
                        const struct op *op,
                        const struct effect *leave,
                        const struct file_rec *f,
                        struct stamp other);

/* merge_past.c: what is about to go. */
void past_version(struct merge *m,
                  const struct op *op,
                  const struct file_rec *f,
                  const struct ver *v,
                  enum past_why why);
void past_name(struct merge *m, struct oid parent, struct slice name, struct oid oid);
void past_slot(struct merge *m, const struct slot *s);

/* merge_view.c: all registers of an object, also removed attributes, in the arena. */
const struct reg *
regs_all(struct merge *m, struct op_arena *a, struct oid oid, uint32_t *ret_count);

/* merge_collect.c */
void collect_queue(struct merge *m, struct oid oid, uint64_t hlc);
void collect_load(struct merge *m);

#endif
