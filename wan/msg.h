/* The small messages of a stream between sites: msgpack arrays inside frames (wan/frame.h).
 * Decoders check every bound; trailing elements of a newer peer are skipped. A core. */
#ifndef WAN_MSG_H
#define WAN_MSG_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"

#define WAN_VERSION 2u /* 2: effects in columns (body.h) */
#define FS_ID_BYTES 16u

/* What tells file systems apart without showing the key: a keyed hash. */
void fs_id_make(const uint8_t fs_key[32], uint8_t ret[FS_ID_BYTES]);

/* Receiver, first frame: [version, fs_id, site, shard_count, [next by shard], [vector by shard],
 * wall_ns, hlc, [seq, hlc, seq, hlc, ...: the sender's last operation known here, by shard]];
 * a vector is [site, seq, site, seq, ...]. A peer of the version before says no last operations. */
struct msg_hello {
    uint32_t version;
    uint8_t fs_id[FS_ID_BYTES];
    site_id_t site;
    unsigned shard_count;
    uint64_t next[SHARD_COUNT_MAX]; /* first index wanted; 0: never had any */
    struct vv vvs[SHARD_COUNT_MAX]; /* durable at the receiver */
    uint64_t wall_ns, hlc;
    struct last_op last[SHARD_COUNT_MAX]; /* of the sender's, applied at the receiver */
    site_id_t to; /* whom all this is about, as the receiver knows the sender; 0: it does not say */
};
void msg_hello_encode(const struct msg_hello *h, struct buf *out);
int msg_hello_decode(struct slice s, struct msg_hello *ret) MUST_CHECK;

/* Sender, first frame: [version, site, [highest seq of yours that I have, by shard], wall_ns, hlc,
 * [seq, hlc, ...: your last operation known here, by shard]]. */
struct msg_welcome {
    uint32_t version;
    site_id_t site;
    unsigned shard_count;
    uint64_t yours[SHARD_COUNT_MAX];
    uint64_t wall_ns, hlc;
    struct last_op last[SHARD_COUNT_MAX]; /* of the receiver's, applied at the sender */
};
void msg_welcome_encode(const struct msg_welcome *w, struct buf *out);
int msg_welcome_decode(struct slice s, struct msg_welcome *ret) MUST_CHECK;

/* Sender, twice a second. Times are the sender's, but for echo_ns. */
struct msg_heartbeat {
    uint64_t sent_hlc, head_hlc;   /* see struct gateway_progress */
    uint64_t ops_sent, bytes_sent; /* since the stream began, all before this frame */
    uint64_t ops_to_go, bytes_to_go;
    uint64_t wall_ns;    /* when this was written */
    uint64_t echo_ns;    /* wall_ns of the last ack seen, or 0 */
    uint64_t echo_at_ns; /* the sender's wall clock when that ack came */
    uint64_t hlc;
    uint64_t safe_hlc; /* all up to here is committed, and nothing comes below it; no clock moves
                        * it. 0: not known */
};
void msg_heartbeat_encode(const struct msg_heartbeat *h, struct buf *out);
int msg_heartbeat_decode(struct slice s, struct msg_heartbeat *ret) MUST_CHECK;

/* Receiver, twice a second and when something became durable: what changed since the last. */
struct msg_ack {
    uint64_t wall_ns, hlc;
    uint64_t applied_hlc; /* everything the sender committed up to here is visible */
    uint32_t next_count;
    struct msg_ack_next {
        shard_id_t shard;
        uint64_t next;
    } next[SHARD_COUNT_MAX];
    uint32_t seq_count;
    struct dot *seqs; /* shard, site, highest seq durable; owned */
};
void msg_ack_encode(const struct msg_ack *a, struct buf *out);
/* ret->seqs is allocated: msg_ack_deinit, also of a zeroed one. Untouched on failure. */
int msg_ack_decode(struct slice s, unsigned shard_count, struct msg_ack *ret) MUST_CHECK;
void msg_ack_deinit(struct msg_ack *a);

/* Receiver: tell me the vector that covers everything committed at yours until you read this. */
void msg_probe_encode(uint64_t id, struct buf *out);
int msg_probe_decode(struct slice s, uint64_t *ret_id) MUST_CHECK;
void msg_probe_reply_encode(uint64_t id,
                            const struct vv *vvs,
                            unsigned shard_count,
                            struct buf *out);
/* vvs: room for shard_count. */
int msg_probe_reply_decode(struct slice s, unsigned shard_count, uint64_t *ret_id, struct vv *vvs)
    MUST_CHECK;

/* `POST /v1/return`, its body: [version, fs_id, id before, id now]; see wan_return.c. Who asks may
 * be a stranger. */
#define MSG_RETURN_VERSION 1u
#define MSG_RETURN_MAX 128u
struct msg_return {
    uint8_t fs_id[FS_ID_BYTES];
    site_id_t before, after; /* after: not 0, and another one */
};
void msg_return_encode(const struct msg_return *r, struct buf *out);
int msg_return_decode(struct slice s, struct msg_return *ret) MUST_CHECK;

/* Either: a code of base/err.h and a sentence. */
void msg_error_encode(int rc, const char *text, struct buf *out);
/* Always gives a negative code and a printable sentence, whatever came. */
int msg_error_decode(struct slice s, struct err_detail *d);

/* Why a site gives no chunk: an error, followed by who says so and [the members it has a link to],
 * who can be asked through it. Older programs say the error alone. */
struct msg_absent {
    int rc;
    site_id_t site; /* 0: it does not say */
    uint32_t link_count;
    site_id_t links[SITE_COUNT_MAX];
};
void msg_absent_encode(const struct msg_absent *a, const char *text, struct buf *out);
/* Whatever came: what cannot be read says ERR_PEER, and nobody. */
void msg_absent_decode(struct slice s, struct msg_absent *ret);

#endif
