/* The objects the kernel knows: node id -> inode.
 *
 * The node id is the object's inode number. Numbers of objects made at different sites may collide
 * (site/proto.h); the second one then gets a node id of its own with bit 63 set, which is also
 * shown as its st_ino. An inode lives while the kernel counts lookups of it or somebody holds a
 * reference. Threads: any. */
#ifndef CLIENT_INODE_TABLE_H
#define CLIENT_INODE_TABLE_H

#include <pthread.h>

#include "client/inode_clock.h"
#include "client/inode_names.h"
#include "site/proto.h"

#define INODE_ROOT_ID UINT64_C(1)

struct file; /* client/fileio.h */
struct inode {
    /* Read-only. */
    uint64_t id; /* the kernel's node id, and st_ino */
    struct oid oid;
    /* Under `lock`. */
    pthread_mutex_t lock;
    struct fs_attr attr;   /* last known */
    uint64_t attr_time;    /* inode_clock when it was asked for; 0: none */
    uint64_t attr_min;     /* answers asked for before this are outdated by a change of our own */
    uint64_t no_caps_time; /* inode_clock when it was known to have no capabilities; 0: unknown */
    uint64_t parent_id; /* a directory's parent as last looked up, 0 unknown; for d_ino of ".." */
    struct file *file;  /* content and cache; made by the first open; owned by fileio */
    struct inode_names names; /* a directory's; through the functions below */
    uint32_t names_changing;  /* requests of ours that change them and are under way */
    /* Private. */
    uint64_t lookups; /* counted by the kernel */
    uint32_t refs;
    struct inode *next;
};

struct inode_table;
/* `evicted` runs when an inode goes, without locks held; it must take the file away (inode->file
 * NULL on return). */
struct inode_table *inode_table_new(void (*evicted)(void *ctx, struct inode *i), void *ctx);
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
bool inode_table_referenced(struct inode_table *t); /* anybody holds any of them */
size_t inode_table_count(struct inode_table *t);
/* All inodes of the moment, each with a reference for the caller; free the array with mem_free. */
struct inode **inode_table_all(struct inode_table *t, size_t *ret_count);

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
