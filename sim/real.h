/* What people and their programs do, one call after the other: the workloads that are real
 * sequences. Each mount is at one of them at a time, and begins another when that is over, or when
 * something in it was not as expected because somebody else got between.
 *
 * - home: a file is saved as editors do (written beside it, mode set, renamed over it, the old
 *   one still open), mail is delivered (written in one directory, renamed into another), put into
 *   folders; directories are looked through, files removed
 * - build: sources are looked up, each object is written where it was, the program is written
 *   beside its name and renamed over it; now and then all objects are removed
 * - train: a checkpoint is written in growing pieces that are made of chunks, beside its name,
 *   and renamed over an old one; others open and read them
 * - rsync: a tree is walked: of each file a temporary one is made, written, given its times and
 *   mode, and renamed over the old one; times of the directory last, and what is too much is
 *   removed
 * - log: lines are appended to what is there; when it is large the file is renamed over the
 *   former one, one more line goes to it, and another is made */
#ifndef SIM_REAL_H
#define SIM_REAL_H

#include "site/proto.h"

#define REAL_DIRS 3u
#define REAL_SEEN 4u

struct mount;
enum real_call {
    REAL_NOTHING,
    REAL_ASIDE, /* directories to work in, closes of what a sequence has left open */
    REAL_STEP
};
struct real {
    enum real_call call;        /* under way */
    unsigned step;              /* of what it is at, counted from 1; 0: of nothing */
    unsigned variant;           /* of its kind: which sequence */
    unsigned number;            /* of the file it is about */
    unsigned round;             /* through the files of a sequence */
    uint64_t begun;             /* sequences so far */
    struct oid dirs[REAL_DIRS]; /* its own, and two that all who live here share; none: not known */
    bool dir_is_there[REAL_DIRS];
    struct oid dir;        /* where it is at work */
    struct oid to_dir;     /* and where it moves things to */
    bool among_all;        /* that is the root, and names are those that everybody uses */
    struct oid file, made; /* under its name; the one that takes its place. None: there is none */
    size_t size;           /* of what is in the mount's content: a log */
    struct {               /* of a listing */
        struct oid oid;
        char name[32];
    } seen[REAL_SEEN];
    unsigned seen_count;
};

/* Draws the next call. */
void real_next(struct mount *m);
/* Its answer; NULL: unknown. */
void real_done(struct mount *m, const struct fs_reply *r);

#endif
