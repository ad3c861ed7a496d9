/* Inode numbers: a 128-bit oid folded into 63 bits so that the way back is a short scan.
 *
 *   bit 62 = 1: directory   61..54 shard, 53..0 first bits of the oid's hash
 *   bit 62 = 0: any other   61..54 shard, 53..46 hash of the site, 45..2 counter, 1..0 kind
 *
 * Counters start at 1 and directories have bit 62, so nothing else becomes 0 or 1. Two objects of
 * different sites may share a number (one in 256 pairs of sites, equal counters): st_ino is then
 * the same, all operations go by oid. */
#include "site/proto.h"

#include "base/assert.h"

#define INO_ROOT UINT64_C(1)
#define INO_DIR (UINT64_C(1) << 62)
#define HASH_BITS 54u
#define COUNTER_BITS 44u
#define COUNTER_MASK ((UINT64_C(1) << COUNTER_BITS) - 1)

/* Two bits: devices, fifos and sockets are rare and share one value. */
enum kind_class {
    KIND_OTHER = 0,
    KIND_FILE = 2,
    KIND_SYMLINK = 3
};

static enum kind_class kind_class(enum oid_kind kind)
{
    if (kind == OID_FILE)
        return KIND_FILE;
    return kind == OID_SYMLINK ? KIND_SYMLINK : KIND_OTHER;
}

static uint64_t be_load(const uint8_t *at, size_t len)
{
    uint64_t v = 0;
    for (size_t i = 0; i < len; i++)
        v = v << 8 | at[i];
    return v;
}

static uint8_t site_hash(site_id_t site)
{
    uint32_t x = site; /* the finaliser of MurmurHash3 */
    x = (x ^ x >> 16) * 0x85ebca6bu;
    x = (x ^ x >> 13) * 0xc2b2ae35u;
    return (uint8_t)(x ^ x >> 16);
}

uint64_t oid_ino(struct oid o)
{
    if (oid_is_root(o))
        return INO_ROOT;
    uint64_t shard = (uint64_t)(oid_shard(o) % SHARD_COUNT_MAX) << HASH_BITS;
    if (oid_is_dir(o))
        return INO_DIR | shard | be_load(o.b + 4, 8) >> (64 - HASH_BITS);
    uint64_t site = site_hash((site_id_t)be_load(o.b + 4, 4));
    uint64_t counter = be_load(o.b + 8, 8) & COUNTER_MASK;
    return shard | site << (COUNTER_BITS + 2) | counter << 2 | (uint64_t)kind_class(oid_kind(o));
}

bool ino_dir_range(uint64_t ino, struct oid *ret_first, struct oid *ret_last)
{
    if (ino == INO_ROOT) {
        *ret_first = *ret_last = OID_ROOT;
        return true;
    }
    if ((ino & INO_DIR) == 0 || ino >> 63 != 0)
        return false;
    shard_id_t shard = (shard_id_t)(ino >> HASH_BITS & (SHARD_COUNT_MAX - 1));
    uint64_t hash = ino << (64 - HASH_BITS);
    uint64_t rest = (UINT64_C(1) << (64 - HASH_BITS)) - 1;
    uint8_t first[12] = {0}, last[12];
    for (size_t i = 0; i < 8; i++) {
        first[i] = (uint8_t)(hash >> (56 - 8 * i));
        last[i] = (uint8_t)((hash | rest) >> (56 - 8 * i));
    }
    last[8] = last[9] = last[10] = last[11] = UINT8_MAX;
    *ret_first = oid_dir(shard, first);
    *ret_last = oid_dir(shard, last);
    return true;
}

unsigned ino_file_oids(uint64_t ino, site_id_t site, struct oid ret[INO_OIDS_MAX])
{
    static const enum oid_kind others[] = {OID_FIFO, OID_SOCKET, OID_CHAR, OID_BLOCK};
    _Static_assert(ARRAY_COUNT(others) == INO_OIDS_MAX, "one candidate a kind");
    bool mine = (uint8_t)(ino >> (COUNTER_BITS + 2)) == site_hash(site);
    if (ino >> 62 != 0 || ino <= INO_ROOT || !mine)
        return 0;
    shard_id_t shard = (shard_id_t)(ino >> HASH_BITS & (SHARD_COUNT_MAX - 1));
    uint64_t counter = ino >> 2 & COUNTER_MASK;
    switch (ino & 3) {
    case KIND_FILE:
        ret[0] = oid_file(shard, OID_FILE, site, counter);
        return 1;
    case KIND_SYMLINK:
        ret[0] = oid_file(shard, OID_SYMLINK, site, counter);
        return 1;
    case KIND_OTHER:
        for (size_t i = 0; i < ARRAY_COUNT(others); i++)
            ret[i] = oid_file(shard, others[i], site, counter);
        return INO_OIDS_MAX;
    default:
        return 0;
    }
}
