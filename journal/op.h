/* Operations: what the journal holds and sites exchange. An operation is a list of effects (its
 * full consequence, never a request) under one dot and one stamp.
 *
 * An operation is journaled in exactly one shard, its home (dot.shard). Effects have parts that
 * belong to the shard of the parent directory or of the object; the home's outbox hands the whole
 * operation to every other shard that op_shards() names, and each applies only the parts that are
 * its own. Peers do the same from their own copy of the home's journal.
 *
 *   effect   part in shard of parent        part in shard of object          in shard 0
 *   enter    slot gains (dot, oid, stamp)   ref (dot, parent, name)
 *   leave    slot loses dots                refs lose dots; seen; last
 *   version                                 version replaces base
 *   fork                                    (object = oid and to: same shard)
 *   birth    generation of the name         life, birth constants
 *   revive                                  life
 *   bury                                    life loses dots
 *   move                                    (position arrives derived)       the fold
 *   set                                     register
 *
 * Memory: an op and all it points to live in one arena (struct op_arena) or are borrowed from the
 * encoded bytes. Threads: any; pure. */
#ifndef JOURNAL_OP_H
#define JOURNAL_OP_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"

enum effect_kind {
    EFFECT_ENTER = 1,
    EFFECT_LEAVE,
    EFFECT_VERSION,
    EFFECT_FORK,
    EFFECT_BIRTH,
    EFFECT_REVIVE,
    EFFECT_BURY,
    EFFECT_MOVE,
    EFFECT_SET,
    EFFECT_KIND_END
};

enum content_kind {
    CONTENT_INLINE = 1,  /* the bytes themselves; a symlink's target; a device's number (8, LE) */
    CONTENT_MANIFEST = 2 /* root of a manifest tree over chunks of block_bytes */
};
struct content {
    enum content_kind kind;
    uint64_t size;        /* of the file */
    uint32_t block_bytes; /* manifest: 64 KiB to 4 MiB, a power of two */
    uint8_t root[32];     /* manifest: chunk id of the root; all zero = one hole of `size` */
    uint64_t data_blocks; /* manifest: blocks that are not holes, for st_blocks; 0: not counted.
                             Follows from the root: not part of equality */
    struct slice bytes;   /* inline; len <= size: the rest reads as zeros */
};
bool content_equal(const struct content *a, const struct content *b);
/* Is it one that can be read? Inline bytes do not go beyond the file, a manifest's blocks have a
 * size that there is. What comes from disk or network is checked. */
bool content_valid(const struct content *c);

/* Registers: one-byte class, then for xattrs the name. */
#define REG_PERM 'p'   /* owner, group, mode, ACL: one register; value is struct perm encoded */
#define REG_ATIME 'a'  /* value: int64 ns, LE */
#define REG_MTIME 'm'  /* value: int64 ns, LE; explicit utimens and directories' changes */
#define REG_MEMBER 'M' /* of the root: who belongs to the federation; see site/node_member.c */
#define REG_LEAVES 'R' /* of the root: a site that leaves; see site/node_leave.c */
#define REG_CUT 'C'    /* of the root: a member's word for a leaver's cut */
#define REG_KNOWS 'K'  /* of the root: whom a member knows; see site/node_entry.c */
#define REG_STABLE 'V' /* of the root: how far a member has everything; see site/node_stable.c */
#define REG_XATTR 'x'  /* followed by the attribute's name; value: its bytes */
/* Classes 'A' to 'Z' are the engine's owner's; followed by a name of its choice. */
struct reg {
    struct slice key;
    struct stamp stamp;
    bool present; /* false: removed */
    struct slice value;
};

/* Owner, group, mode (with set-id bits), POSIX ACLs, file capabilities: one register (rule 9). */
struct perm {
    uint32_t uid, gid;
    uint16_t mode;           /* 07777 */
    struct dot setid_seen;   /* the version the set-id bits and caps hold for; none: any */
    struct slice acl_access; /* Linux xattr form, or empty */
    struct slice acl_default;
    struct slice caps; /* security.capability, or empty */
};
void perm_encode(const struct perm *p, struct buf *out);
int perm_decode(struct slice s, struct perm *ret) MUST_CHECK;      /* slices borrowed from s */
bool perm_same_rights(const struct perm *a, const struct perm *b); /* all but setid_seen */

struct birth { /* constants of a directory's oid */
    struct oid oid, parent;
    struct slice name;
    uint32_t gen;
    uint32_t uid, gid;
    uint16_t mode;
};
/* 12 bytes of BLAKE2b keyed with the file-system key over all fields but oid; the shard is taken
 * from the hash as well. */
struct oid birth_oid(const struct birth *b, const uint8_t fs_key[32], unsigned shard_count);

struct effect {
    enum effect_kind kind;
    struct oid oid;         /* the object: all kinds */
    struct oid parent;      /* enter, leave, move; birth: in .birth */
    struct slice name;      /* enter, leave, move */
    const struct dot *dots; /* leave: entry dots; version: base; bury: life dots; move: the
                             * move that gave the position the issuer saw, if any */
    uint32_t dot_count;
    const struct dot *seen; /* leave: version dots the deleter knew */
    uint32_t seen_count;
    struct dot stays;         /* leave: an entry of another name that the issuer knew stays; the
                               * object's shard applies it first. none: no such name, or it
                               * enters in this operation */
    struct content content;   /* version, fork */
    int64_t mtime_ns;         /* version, fork */
    struct dot loser;         /* fork */
    struct stamp loser_stamp; /* fork */
    struct oid to;            /* fork; none: the bytes equal the winner's, nothing is kept */
    const struct reg *regs;   /* fork: registers of the new file, with their stamps */
    uint32_t reg_count;
    struct reg set;              /* set; its stamp is the operation's */
    struct birth birth;          /* birth; birth.oid == oid */
    const struct birth *lineage; /* move: births of oid and of the target up to the root */
    uint32_t lineage_count;
};

struct op {
    struct dot dot;
    struct stamp stamp;
    int64_t time_ns; /* wall clock of the issuer: ctime, mtime of directories */
    struct effect *effects;
    uint32_t effect_count;
};

/* Bump allocator for decoded or built operations; zeroed is valid. */
struct op_arena {
    struct op_arena_block *head;
    size_t used;
};
void *op_alloc(struct op_arena *a, size_t len); /* zeroed, aligned to 8 */
struct slice op_dup(struct op_arena *a, struct slice s);
void op_arena_reset(struct op_arena *a); /* keeps one block */
void op_arena_deinit(struct op_arena *a);

/* msgpack: [shard, site, seq, hlc, time_ns, [effects]], each effect [kind, fields...]; dots in an
 * operation's own shard omit the shard. The stamp's site is the dot's site. */
void op_encode(const struct op *op, struct buf *out);
/* Decodes exactly one operation that fills `s`; slices borrow from s, arrays from the arena.
 * Everything is validated: kinds, oids, name rules (1..255 bytes, no '/', no NUL, not "." or ".."),
 * bounds of base/limits.h. ERR_MALFORMED, ERR_TRUNCATED, ERR_TOO_BIG. */
int op_decode(struct slice s, struct op_arena *arena, struct op *ret) MUST_CHECK;
/* Only dot, stamp and time: there are no effects in ret, and the rest is not looked at. */
int op_decode_head(struct slice s, struct op *ret) MUST_CHECK;
/* Deep copy into an arena. */
void op_copy(const struct op *op, struct op_arena *arena, struct op *ret);
bool name_valid(struct slice name);

/* True when `applied` says yes to every dot that any effect names, whatever its shard; its own dot
 * counts as applied. *ret_missing (may be NULL): the first that is not. A site commits an operation
 * of another site at its home only when the homes of all these dots have committed them: otherwise
 * its stream to a third site would not be causal, and an operation could be left half applied there
 * when the link breaks. */
bool op_dots_applied(const struct op *op,
                     bool (*applied)(void *ctx, struct dot d),
                     void *ctx,
                     struct dot *ret_missing);

/* The shards that hold a part of any effect, home included, as a bitmap. */
struct shard_set {
    uint64_t bits[SHARD_COUNT_MAX / 64];
};
void op_shards(const struct op *op, struct shard_set *ret);
static inline bool shard_set_has(const struct shard_set *s, shard_id_t shard)
{
    return s->bits[shard / 64] >> (shard % 64) & 1;
}
static inline void shard_set_add(struct shard_set *s, shard_id_t shard)
{
    s->bits[shard / 64] |= (uint64_t)1 << (shard % 64);
}

#endif
