/* Private to site/: a site comes back under a new site id (node_return.c). */
#ifndef SITE_RETURN_INT_H
#define SITE_RETURN_INT_H

#include <jansson.h>

#include "base/limits.h"
#include "site/node_int.h"
#include "site/return_file.h"
#include "site/unsent.h"

/* What the site does that nobody else has; the node is open, settled, and nobody uses it. */
int return_collect(struct node *n, bool rolled_back, struct unsent *ret) MUST_CHECK;

enum return_stage {
    STAGE_WAIT,     /* for the others' tree, and the cut of the old id */
    STAGE_MOVES,    /* of directories that all know */
    STAGE_DIRS,     /* new ones */
    STAGE_NAMES,    /* of files */
    STAGE_FILES,    /* contents and attributes */
    STAGE_REMOVALS, /* of names */
    STAGE_RMDIRS,
    STAGE_ATTRS, /* of directories */
    STAGE_STORE, /* all that became of it reaches the disk */
    STAGE_END
};

struct returning {
    struct node *n;
    struct return_plan plan;
    bool loaded, brought; /* what was made already; what only this site knew of members */
    uint32_t bringing;    /* such operations on their way to the disk */
    bool hurries;         /* does not wait for the cut */
    struct buf bytes;     /* of the list; it borrows from them */
    struct unsent u;
    const uint64_t *cut; /* of the old id, by shard */
    enum return_stage stage;
    uint32_t at;       /* item of the stage */
    uint32_t tries;    /* of this item */
    bool issued;       /* a request is under way */
    bool moved;        /* STAGE_RMDIRS: something went in this pass */
    bool last_pass;    /* STAGE_RMDIRS: nothing went in the one before */
    uint64_t retry_ns; /* not before */
    uint64_t done, total, conflicts;
    int fd;                       /* of the progress file; -1 */
    uint64_t failed;              /* items that were passed over */
    bool frozen[SHARD_COUNT_MAX]; /* STAGE_STORE: its state was, since then */
    struct unsent_file *making_file, *bringing_file;
    struct unsent_dir *making_dir;
    struct {
        bool is_due; /* when what is being made is there: it is `other` */
        struct return_note note;
        uint8_t name[LIMIT_NAME_BYTES], other_name[LIMIT_NAME_BYTES];
    } pending;
    struct loop_defer again;
};

/* ---- return_apply.c: the machine ---- */
void return_step(struct returning *r);
/* Results of an item's evaluation: it is done; a request was issued, look again after it; < 0. */
enum {
    ITEM_DONE,
    ITEM_AGAIN
};
int return_issue(struct returning *r, enum rpc_type type, const struct fs_request *q);
/* Was the operation applied by anybody before the cut? Then there is nothing to do for it. After a
 * rollback, when no cut tells anything: had anybody had it? */
bool return_was_sent(const struct returning *r, struct dot d);
/* What a name means now; none: nothing. Error: it cannot be read. */
int return_lookup(struct returning *r, struct oid parent, struct slice name, struct oid *ret);
/* The name under which users see what has this one: another, where something else has won it (rule
 * 6), and a request by this name would be about that. Appended; ERR_NOT_FOUND: there is none. */
int return_visible(
    struct returning *r, struct oid oid, struct oid parent, struct slice stored, struct buf *ret);
/* The file in the tree as it is now; none: it has to be made. */
int return_target(struct returning *r, const struct unsent_file *f, struct oid *ret);
/* The directory, made with all above it where it is gone. ITEM_* or error; ERR_BUSY: this was asked
 * to make it. */
int return_dir(struct returning *r, struct oid oid, struct oid *ret);
bool return_dir_lives(struct returning *r, struct oid oid);
void return_note(struct returning *r, const struct return_note *note);
void return_mapped_file(struct returning *r, struct unsent_file *f, struct oid now);
/* The first conflict name of `name` that is free, or (ret_oid) means `placed`, or a file with the
 * same content. */
int return_free_name(struct returning *r,
                     struct oid parent,
                     struct slice name,
                     const struct unsent_file *f,
                     struct oid placed,
                     struct buf *ret,
                     struct oid *ret_oid);
bool return_same(struct returning *r, struct oid oid, const struct unsent_file *f);
/* Does the name mean what this site knew it to mean, unchanged? */
bool return_is_known(struct returning *r, const struct unsent_name *nm, struct oid there);
/* note (may be NULL): the record to add when it is made, with it as `other`. */
int return_make(struct returning *r,
                struct unsent_file *f,
                struct oid parent,
                struct slice name,
                const struct return_note *note);

/* The content of a file that is to be made again is brought here first, where it is not this
 * site's: others may have removed the file, and what it consists of. ITEM_DONE: it is here, or
 * (f->nowhere) no member has it, and the file has to stay away. */
int return_bring(struct returning *r, struct unsent_name *nm, struct unsent_file *f);

/* Takes a known file off a name that something else is to have: to the place it has here, or away.
 * *ret_gone false and ITEM_DONE: its place is taken. */
int return_clear(
    struct returning *r, struct oid there, struct oid parent, struct slice name, bool *ret_gone);

/* ---- return_place.c, return_attrs.c: items ---- */
int return_name_item(struct returning *r, struct unsent_name *nm);
int return_removal_item(struct returning *r, struct unsent_name *nm);
int return_file_item(struct returning *r, struct unsent_file *f);
int return_dir_attrs_item(struct returning *r, struct unsent_dir *d);

/* ---- node_return.c ---- */
void return_progress(struct returning *r, json_t *line /* taken */);
json_t *node_return_json(struct node *n); /* of status; null: the site is not coming back */
void return_finish(struct returning *r);  /* all is done and stored: the files go */

#endif
