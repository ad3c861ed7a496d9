/* What a site has done that nobody else has: the list that it keeps while it comes back under a new
 * site id (node_return.c). It is made from its journal and its state before they go, and says for
 * each thing that was touched what it was before, as far as it is known, and what it became; so it
 * can be carried out as a three-way merge on the others' tree.
 *
 * A core but for its memory. The file: magic "CFSUNSE1", msgpack [dirs, names, files, sent,
 * members, why members leave] (without the last ones before there were any), BLAKE2b-128 of all
 * before. Threads: any. */
#ifndef SITE_UNSENT_H
#define SITE_UNSENT_H

#include <uthash.h>

#include "journal/op.h"

/* A directory: one that was made, moved, removed or changed, or only a place where others are. */
struct unsent_dir {
    struct oid oid, parent; /* where it is; the root's parent is itself */
    struct slice name;
    bool alive, moved;
    struct dot last;         /* the last own operation that touched it; none: it is a place */
    struct slice perm;       /* struct perm encoded; empty: as it was born */
    struct stamp perm_stamp; /* when this site set it; none: it did not */
    const struct reg *regs;  /* extended attributes that were set or removed */
    uint32_t reg_count;
    struct oid now;    /* not in the file: which directory it is in the others' tree, if known */
    bool made;         /* not in the file: it was made there */
    bool entered;      /* not in the file: return_dir() is at it */
    UT_hash_handle hh; /* by oid */
};

struct unsent_known { /* what a name meant, as this site knew it */
    struct oid oid;
    struct dot version; /* that showed then; none: any */
};
struct unsent_name {
    struct oid parent;
    struct slice name;
    struct oid ours; /* what it means; none: nothing */
    const struct unsent_known *known;
    uint32_t known_count;
    struct dot last;  /* as above; none: the file is here as before */
    uint64_t order;   /* stamp of that operation */
    struct slice key; /* not in the file: parent and name */
    UT_hash_handle hh;
};

struct unsent_version { /* of a file, by this site */
    struct dot dot;
    uint64_t digest;
};
struct unsent_file {
    struct oid oid;
    bool there;         /* it has a name */
    bool born;          /* here */
    bool written;       /* version and content are this site's */
    struct dot base;    /* what it was written over first */
    struct dot version; /* what shows, or showed when the last name went */
    struct stamp stamp;
    struct content content;
    int64_t mtime_ns;
    const struct unsent_version *chain; /* versions on the way from base */
    uint32_t chain_count;
    struct dot last;
    struct slice perm;
    struct stamp perm_stamp;
    const struct reg *regs;
    uint32_t reg_count;
    struct oid
        now; /* not in the file: which file it is in the others' tree, if it was made there */
    bool brought, nowhere; /* not in the file: its content is here now; no site has it any more */
    UT_hash_handle hh;
};

struct unsent_member {
    site_id_t site;
    struct slice record; /* the value of its register (member_codec.h) */
    uint8_t why;         /* enum member_leaves; not in older lists */
    struct stamp left;   /* of the register that says so; none: it does not leave, or only answers
                            say that it does */
};

struct unsent {
    struct op_arena arena; /* all below */
    struct unsent_dir **dirs;
    struct unsent_name **names; /* in the order of the operations */
    struct unsent_file **files;
    uint32_t dir_count, dir_cap, name_count, name_cap, file_count, file_cap;
    struct unsent_dir *dir_hash;
    struct unsent_name *name_hash;
    struct unsent_file *file_hash;
    /* By shard: up to here somebody has had this site's operations; for one that was rolled back.
     * For others the cut counts: whoever had them may have left as well. */
    uint64_t sent[SHARD_COUNT_MAX];
    uint32_t sent_count;
    /* Members as this site knew them, without itself; some it may have known alone. */
    struct unsent_member *members;
    uint32_t member_count;
};
void unsent_deinit(struct unsent *w); /* accepts zeroed */
/* Found or made. `name` is copied. */
struct unsent_dir *unsent_dir(struct unsent *w, struct oid oid);
struct unsent_name *unsent_name(struct unsent *w, struct oid parent, struct slice name);
struct unsent_file *unsent_file(struct unsent *w, struct oid oid);
/* NULL: there is none. */
struct unsent_dir *unsent_dir_find(const struct unsent *w, struct oid oid);
struct unsent_name *unsent_name_find(const struct unsent *w, struct oid parent, struct slice name);
struct unsent_file *unsent_file_find(const struct unsent *w, struct oid oid);

uint64_t unsent_digest(const struct content *c); /* of a content, to tell it from others */
void unsent_encode(const struct unsent *w, struct buf *out);
/* Slices borrow from s. ERR_CORRUPT, ERR_MALFORMED, ERR_TRUNCATED; ret may be used for
 * unsent_deinit only then. */
int unsent_decode(struct slice s, struct unsent *ret) MUST_CHECK;

#endif
