/* Private to site/: what members write into registers of the root directory, which every site reads
 * of every other. Core. Keys are the class and site ids, big endian; values are msgpack.
 *
 *   M site              [name, wan address, fingerprint, certificate (PEM), 0]: node_member.c
 *   R leaver            [why]: node_leave.c
 *   C leaver, answerer  [seq of each shard, who else leaves ...]: node_leave.c
 *   K site              [[member ...], [who of them leaves or has left ...]]: node_entry.c
 *   V site              [clock, seen, goal, seq of each shard]: node_stable.c
 *   S name              a number, 8 bytes, little endian: node_setting.c
 *
 * Encoders append. A decoder that returns false has found what this version cannot read; *ret is
 * undefined then. */
#ifndef SITE_MEMBER_CODEC_H
#define SITE_MEMBER_CODEC_H

#include "base/buf.h"
#include "journal/op.h"
#include "site/node.h"

enum {
    MEMBER_KEY_BYTES = 5,
    CUT_KEY_BYTES = 9
};

/* Of the classes M, R, K and V. */
void member_key(uint8_t key_class, site_id_t site, uint8_t out[MEMBER_KEY_BYTES]);
void member_encode(const struct member *m, struct buf *out);
bool member_decode(const struct reg *r, struct member *ret); /* its cert borrows from r */

void leaves_encode(enum member_leaves why, struct buf *out);
bool leaves_decode(const struct reg *r, site_id_t *ret_site, enum member_leaves *ret_why);

struct cut_answer {
    site_id_t leaver, from;
    uint64_t seqs[SHARD_COUNT_MAX]; /* of the leaver, by shard */
    site_id_t others[SITE_COUNT_MAX];
    uint32_t other_count;
};
void cut_key(site_id_t leaver, site_id_t from, uint8_t out[CUT_KEY_BYTES]);
void cut_encode(const struct cut_answer *a, unsigned shards, struct buf *out);
bool cut_decode(const struct reg *r, unsigned shards, struct cut_answer *ret);

struct known_members {
    site_id_t from;
    site_id_t sites[SITE_COUNT_MAX], leavers[SITE_COUNT_MAX];
    uint32_t count, leaver_count;
};
void knows_encode(const struct known_members *k, struct buf *out);
bool knows_decode(const struct reg *r, struct known_members *ret);

struct stable_word {
    site_id_t site;
    uint64_t clock, seen, goal;
    uint64_t seqs[SHARD_COUNT_MAX];
};
void stable_encode(const struct stable_word *w, unsigned shards, struct buf *out);
bool stable_decode(const struct reg *r, unsigned shards, struct stable_word *ret);

#define REG_SETTING 'S'
void setting_encode(uint64_t value, struct buf *out);
bool setting_decode(const struct reg *r, uint64_t *ret);

#endif
