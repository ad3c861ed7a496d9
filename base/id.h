/* Identities: sites, shards, operations (dots), stamps, objects (oids), version vectors.
 *
 * Byte forms are big endian so that memcmp orders them like the struct compare functions; they
 * are used in state keys. Threads: any; all functions are pure. */
#ifndef BASE_ID_H
#define BASE_ID_H

#include <string.h>

#include "base/util.h"

typedef uint32_t site_id_t; /* random, non-zero */
typedef uint16_t shard_id_t;

#define SHARD_COUNT_MAX 256u
#define SITE_COUNT_MAX 64u

/* The unique name of an operation. seq counts an origin site's operations within one shard's
 * journal, from 1, without gaps. A zero dot (site 0) means "none". */
struct dot {
    uint64_t seq;
    site_id_t site;
    shard_id_t shard;
};
/* The total order that breaks ties: hybrid logical clock (48 bits of milliseconds since 1970, 16
 * bits of counter), then site. */
struct stamp {
    uint64_t hlc;
    site_id_t site;
};

static inline int dot_cmp(struct dot a, struct dot b)
{
    if (a.shard != b.shard)
        return a.shard < b.shard ? -1 : 1;
    if (a.site != b.site)
        return a.site < b.site ? -1 : 1;
    return a.seq < b.seq ? -1 : a.seq > b.seq;
}
static inline bool dot_equal(struct dot a, struct dot b)
{
    return a.seq == b.seq && a.site == b.site && a.shard == b.shard;
}
static inline bool dot_is_none(struct dot d)
{
    return d.site == 0;
}
static inline int stamp_cmp(struct stamp a, struct stamp b)
{
    if (a.hlc != b.hlc)
        return a.hlc < b.hlc ? -1 : 1;
    return a.site < b.site ? -1 : a.site > b.site;
}
static inline uint64_t hlc_ms(uint64_t hlc)
{
    return hlc >> 16;
}

/* What an object is; also the third byte of its oid. Directories are 2. */
enum oid_kind {
    OID_NONE = 0,
    OID_FILE = 1,
    OID_DIR = 2,
    OID_SYMLINK = 3,
    OID_FIFO = 4,
    OID_SOCKET = 5,
    OID_CHAR = 6,
    OID_BLOCK = 7,
    OID_KIND_COUNT
};

/* 16 bytes: shard (2, big endian), kind (1), zero (1), then for all but directories site_id (4) +
 * counter (8), both big endian; for directories 12 bytes of keyed hash of the birth. The root
 * directory is shard 0, kind 2, twelve zero bytes. */
struct oid {
    uint8_t b[16];
};

#define OID_ROOT ((struct oid){.b = {0, 0, OID_DIR}})

static inline shard_id_t oid_shard(struct oid o)
{
    return (shard_id_t)((unsigned)o.b[0] << 8 | o.b[1]);
}
static inline enum oid_kind oid_kind(struct oid o)
{
    return (enum oid_kind)o.b[2];
}
static inline bool oid_is_dir(struct oid o)
{
    return o.b[2] == OID_DIR;
}
static inline bool oid_is_none(struct oid o)
{
    return o.b[2] == OID_NONE;
}
static inline int oid_cmp(struct oid a, struct oid b)
{
    return memcmp(a.b, b.b, sizeof a.b);
}
static inline bool oid_equal(struct oid a, struct oid b)
{
    return oid_cmp(a, b) == 0;
}
static inline bool oid_is_root(struct oid o)
{
    return oid_equal(o, OID_ROOT);
}
struct oid oid_file(shard_id_t shard, enum oid_kind kind, site_id_t site, uint64_t counter);
struct oid oid_dir(shard_id_t shard, const uint8_t hash[12]);
/* The last four bytes as a number: what conflict names print as eight hex digits. */
uint32_t oid_short(struct oid o);
bool oid_valid(struct oid o); /* a known kind other than none, byte 3 zero */

#define OID_TEXT_LEN 32
void oid_to_text(struct oid o, char out[OID_TEXT_LEN + 1]);
int oid_from_text(const char *text, struct oid *ret) MUST_CHECK;
#define DOT_TEXT_LEN 48
void dot_to_text(struct dot d, char out[DOT_TEXT_LEN]); /* "3:9f00aa12:17" */
int dot_from_text(const char *text, struct dot *ret) MUST_CHECK;

/* The last operation of a site in a shard that somebody knows: its number, and the time in its
 * stamp, which tells it from another one with that number. seq 0: none is known. */
struct last_op {
    uint64_t seq, hlc;
};

/* Version vector: site -> highest seq applied, sorted by site, at most SITE_COUNT_MAX entries.
 * Plain data, copied by assignment. */
struct vv {
    uint32_t count;
    struct {
        site_id_t site;
        uint64_t seq;
    } at[SITE_COUNT_MAX];
};
uint64_t vv_get(const struct vv *v, site_id_t site); /* 0 when absent */
/* ERR_LIMIT when full; seq 0 removes the entry. */
int vv_set(struct vv *v, site_id_t site, uint64_t seq) MUST_CHECK;
bool vv_covers(const struct vv *a, const struct vv *b); /* a >= b everywhere */

#endif
