/* The objects the kernel knows: node id -> inode.
 *
 * The node id is the object's inode number. Numbers of objects made at different sites may collide
 * (site/proto.h); the second one then gets a node id of its own with bit 63 set, which is also
 * shown as its st_ino. An inode lives while the kernel counts lookups of it or somebody holds a
 * reference.
 *
 * The kernel knows far more objects than are in use, so an inode is small; what is known of it
 * stands in a record of its own, which is there while somebody holds a reference and for a while
 * after that: those that were not referred to for longest lose it, beyond INODE_KNOWN_MAX. In the
 * same way the record of a file goes when nothing of the file is open, held or dirty.
 *
 *   kernel looks it up -> inode -> referenced: inode + known (+ file) -> inode + known -> inode
 *
 * Threads: any. */
#ifndef CLIENT_INODE_TABLE_H
#define CLIENT_INODE_TABLE_H

#include <pthread.h>

#include "client/inode_clock.h"
#include "client/inode_names.h"
#include "site/proto.h"

#define INODE_ROOT_ID UINT64_C(1)

/* Of objects that nobody refers to: 20 MB. */
#define INODE_KNOWN_MAX 65536u

struct file; /* client/fileio.h */
struct inode;
/* What is known of an object. */
struct inode_known {
    pthread_mutex_t lock;  /* guards all but the private fields */
    struct fs_attr attr;   /* last known */
    uint64_t attr_time;    /* inode_clock when it was asked for; 0: none */
    uint64_t attr_min;     /* answers asked for before this are outdated by a change of our own */
    uint64_t no_caps_time; /* inode_clock when it was known to have no capabilities; 0: unknown */
    struct file *file;     /* content and cache; made by the first open; owned by fileio */
    struct inode_names names; /* a directory's; through the functions below */
    uint32_t names_changing;  /* requests of ours that change them and are under way */
    /* Private; under the table's lock. */
    bool listed, used; /* in the ring; since the ring's hand came by */
    struct inode *inode;
    struct inode_known *next, *prev;
};
struct inode {
    /* Read-only. */
    uint64_t id; /* the kernel's node id, and st_ino */
    struct oid oid;
    /* Of who holds a reference: it does not change as long. */
    struct inode_known *known;
    /* Under known->lock. */
    union {
        uint64_t parent_id; /* a directory's parent as last looked up, 0 unknown; d_ino of ".." */
        struct dot
            pages_version; /* a file's: what the kernel's pages show, while it has no record */
    };
    uint32_t pages_generation; /* of the clock, when that was known */
    /* Private. */
    uint32_t refs;
    uint64_t lookups; /* counted by the kernel */
    struct inode *next;
    bool used; /* since the hand of inode_table_unused came by */
};
/* The kernel knows a hundred times more of them than are in use. */
_Static_assert(sizeof(struct inode) <= 80, "an inode is small");

struct inode_table;
/* `evicted` runs when an inode goes, without locks held; it must take the file away (known->file
 * NULL on return). */
struct inode_table *inode_table_new(void (*evicted)(void *ctx, struct inode *i), void *ctx);
/* `leaves` runs with the table's lock held when an inode goes: a reply from before that, which
 * makes it known again, may be older than what was known. Whose files' records go: `may_rest` runs
 * with the table's lock held when nobody refers to an inode that has one; true: it is taken away,
 * and given to `rested` without locks. */
struct inode_rest {
    void (*leaves)(void *ctx, struct oid oid); /* or NULL */
    bool (*may_rest)(void *ctx, struct inode *i);
    void (*rested)(void *ctx, struct file *f);
    void *ctx;
};
void inode_table_rest(struct inode_table *t, const struct inode_rest *rest);
/* `crowded` runs now and then, without the table's lock, while more than `limit` are known. */
void inode_table_limit(struct inode_table *t, size_t limit, void (*crowded)(void *ctx), void *ctx);
/* Evicts what is left; nobody may hold references. */
void inode_table_free(struct inode_table *t);
/* Finds or makes the inode of `oid` whose number is `ino`; adds to what the kernel counts. The
 * caller gets a reference. */
struct inode *
inode_table_enter(struct inode_table *t, struct oid oid, uint64_t ino, uint64_t lookups);
struct inode *inode_table_get(struct inode_table *t, uint64_t id);     /* NULL: unknown */
struct inode *inode_table_find(struct inode_table *t, struct oid oid); /* NULL: unknown */
/* The same of many; to be given back with inode_unref_each. */
void inode_table_find_each(struct inode_table *t,
                           const struct oid *oids,
                           size_t count,
                           struct inode **ret);
void inode_unref_each(struct inode_table *t, struct inode **inodes, size_t count);
struct inode *inode_ref(struct inode_table *t, struct inode *i);
void inode_unref(struct inode_table *t, struct inode *i); /* accepts NULL */
/* The kernel dropped `lookups` of its count; more than there are counts as all. */
void inode_table_forget(struct inode_table *t, uint64_t id, uint64_t lookups);
/* What the kernel counts now; 0 when it does not know the object (any more). */
uint64_t inode_table_lookups(struct inode_table *t, struct oid oid);
bool inode_table_has(struct inode_table *t, struct oid oid); /* by the kernel or a reference */
bool inode_table_referenced(struct inode_table *t);          /* anybody holds any of them */
size_t inode_table_count(struct inode_table *t);
#define INODE_IDS_MAX 512u
struct inode_ids {
    uint64_t at[INODE_IDS_MAX];
    size_t count;
};
enum inode_walk {
    INODE_DIRS,
    INODE_NO_DIRS /* all others */
};
/* Walks through them, a part at a time from *at (0 at first) on; false: that was the last part. An
 * inode that is there all the while is given once at least. */
bool inode_table_ids(struct inode_table *t,
                     size_t *at,
                     enum inode_walk which,
                     struct inode_ids *ret);
/* The same of those that were not used since this walk last came by, have no record of a file and
 * nobody refers to; false: it begins anew. */
bool inode_table_unused(struct inode_table *t, size_t *at, struct inode_ids *ret);

/* ---- attributes last told by the site ---- */
/* From a reply to a request sent after `since`. */
void inode_attr_store(struct inode *i, const struct fs_attr *a, uint64_t since);
/* From the reply to a request of ours that changed the object. */
void inode_attr_changed(struct inode *i,
                        struct inode_clock *clock,
                        const struct fs_attr *a,
                        uint64_t since);
/* True when what is known is still true. */
bool inode_attr_load(struct inode *i, struct inode_clock *clock, struct fs_attr *ret);
/* ---- names of a directory (client/inode_names.h) ---- */
/* True: the site would say that there is no such name. */
bool inode_name_lacks(struct inode_table *t,
                      struct inode *dir,
                      struct inode_clock *clock,
                      struct slice name);
/* Before and after a request that may make `name`, or take it away (`make` false). */
void inode_name_begin(struct inode_table *t, struct inode *dir, struct slice name, bool make);
enum name_end {
    NAME_UNKNOWN, /* there or not, and whose */
    NAME_MADE,    /* that of `oid` */
    NAME_GONE     /* not there any more */
};
void inode_name_end(
    struct inode_table *t, struct inode *dir, struct slice name, enum name_end how, struct oid oid);
/* The object of `name`, while the directory's names are listed here; none: not known. */
struct oid inode_name_oid(struct inode *dir, struct slice name);
/* All names of a directory, without asking the site; false: they are not known. What they say
 * holds at `*ret_since`, a time of the clock. */
bool inode_name_all(struct inode_table *t,
                    struct inode *dir,
                    struct inode_clock *clock,
                    struct names_copy *ret,
                    uint64_t *ret_since);
/* All names of a directory, as told by a request sent after `since`; empty after MKDIR. */
void inode_names_known(struct inode_table *t,
                       struct inode *dir,
                       uint64_t since,
                       const struct fs_entry *entries,
                       uint32_t count);

/* ---- */
/* This mount changed something whose new attributes it was not told. */
void inode_attr_drop(struct inode *i, struct inode_clock *clock);

#endif
