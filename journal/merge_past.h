/* Past versions: what a file held before it was overwritten or removed, and which object a name
 * meant before it went away. They let people look back and get things back for a while.
 *
 * A record is made when an operation replaces a version or removes a file's last name, in the shard
 * of the file; and when such a name or a directory's goes, in the shard of its parent. Records are
 * a site's own, as conflict records are: each site derives them from the operations it applies, and
 * drops them by its own clock. They travel to a new site in its snapshot.
 *
 * A record is dated by the highest stamp the shard had applied when it was made: what a site that
 * was away for long deletes here with an old stamp is kept as long as anything else.
 *
 * Space: a record takes some 100 bytes and its content, up to 8 KiB of it inline; chunks are kept
 * by the garbage collection (merge_past_contents). merge_past_collect drops what is older than the
 * owner's period, and thins out a file that is written all the time: of what was replaced it keeps
 * the newest PAST_NEWEST of each file, then one an hour, after a day one a day. Empty contents are
 * not kept.
 *
 * What is made of chunks is kept longer where that is needed: another site may know the version and
 * not what replaced or removed it, have no chunk of it, and give it a name by which it stays. So it
 * goes when all have applied that (the stable point of merge.h), and is recorded without a period,
 * too.
 *
 * Core, as merge.h. Threads: the owner's loop. */
#ifndef JOURNAL_MERGE_PAST_H
#define JOURNAL_MERGE_PAST_H

#include "journal/merge.h"

#define PAST_NEWEST 16u

enum past_why {
    PAST_REPLACED = 1, /* by another version */
    PAST_REMOVED = 2   /* with the last name */
};
struct past {
    struct oid oid;
    struct dot dot; /* of the version */
    struct stamp stamp;
    int64_t mtime_ns;
    struct content content;
    enum past_why why;
    struct stamp gone; /* of the operation that replaced or removed it */
    uint64_t gone_hlc; /* when this site learned of that */
    struct oid parent; /* a name it had then; none: it had none */
    struct slice name;
    struct slice perm; /* struct perm encoded, or empty: never set */
};

/* Whether new records are made (they are, from the start); of what has chunks they always are. */
void merge_past_enable(struct merge *m, bool enabled);
/* Past versions of a file, newest first; borrowed during fn, which must not call into the engine.
 */
int merge_past(struct merge *m,
               struct oid oid,
               bool (*fn)(void *ctx, const struct past *p),
               void *ctx) MUST_CHECK;
/* The objects that `name` in `parent` meant before it was removed, newest first. gone_hlc as in
 * struct past. */
int merge_past_names(struct merge *m,
                     struct oid parent,
                     struct slice name,
                     bool (*fn)(void *ctx, struct oid oid, uint64_t gone_hlc),
                     void *ctx) MUST_CHECK;
/* As merge_contents, of past versions. */
int merge_past_contents(struct merge *m,
                        struct buf *cursor,
                        uint32_t budget,
                        bool (*fn)(void *ctx, struct oid oid, const struct content *c),
                        void *ctx) MUST_CHECK;

/* A walk over all records of a shard that goes round for ever; zeroed is its start. */
struct past_walk {
    struct buf cursor;
    struct oid oid;         /* the file it is in */
    uint32_t kept;          /* of its replaced versions */
    uint64_t slot;          /* hour or day of the last one kept beyond PAST_NEWEST */
    uint64_t wait;          /* of this round: newest of what is only kept until it is stable */
    uint64_t waits;         /* of the last whole round: the stable point that would let it go */
    uint64_t count, bytes;  /* of this round: versions kept, and their sizes */
    uint64_t counts, sizes; /* of the last whole round */
    uint64_t rounds;
};
void past_walk_deinit(struct past_walk *w);
struct past_limits {
    uint64_t now_hlc, keep_ms;
    uint64_t stable_hlc; /* all members have applied what is stamped up to here */
};
/* Looks at up to `budget` records; drops those that went more than keep_ms before now_hlc (of what
 * has chunks, if that is stable), and what is one too many. */
int merge_past_collect(struct merge *m,
                       struct past_walk *w,
                       const struct past_limits *limits,
                       uint32_t budget) MUST_CHECK;

#endif
