/* A shard that several nodes of a site keep: what it needs of the others, and what they tell it.
 *
 * Each node opens the shard with its own copy (journal, state) and a struct shard_peers. One leads,
 * as site/replica.h decides: it proposes, applies at once and answers what is committed. The others
 * follow: they append what they are sent and apply what is committed, nothing more; so their state
 * never has to be taken back. A node that leads no longer drops what is not committed: its state is
 * opened anew from the store, where there is no such thing (S1), and follows from there.
 *
 * site/README.md has the rules, N1 to N7.
 *
 * Threads: loop. */
#ifndef SITE_SHARD_PEERS_H
#define SITE_SHARD_PEERS_H

#include "site/shard.h"

struct replica;

/* Functions are called with the shard's id, never from within a call of another of them, and must
 * not call the shard. */
struct shard_peers {
    uint64_t node;                            /* this one; not 0 */
    uint64_t nodes[COORDINATOR_REPLICAS_MAX]; /* all that may keep a copy, this one included */
    uint32_t node_count;
    bool founder; /* may take a shard that nobody ever led */
    /* The directory is new and takes the place of one that was lost: its copy counts only after it
     * has been brought up to date, and `life` is above all lives of the lost one. */
    bool blank;
    uint64_t life;
    uint64_t lease_ns, beat_ns, silence_ns, answer_ns; /* 0: as in struct replica_config */

    void (*send)(void *ctx, shard_id_t shard, uint64_t node, struct slice bytes); /* may be lost */
    /* The coordinator's record is to be read, or replaced if its version is still the one that
     * `record` carries; shard_coordinator_says() later, or never. */
    void (*ask)(void *ctx, shard_id_t shard, uint64_t request);
    void (*swap)(void *ctx, shard_id_t shard, uint64_t request, const struct shard_record *record);
    /* Requests may be evaluated from now on: the core lets it serve, and what was found in the
     * outbox is delivered. This one may call the shard. */
    void (*serves)(void *ctx, shard_id_t shard);
    /* No more. Proposals that have not run `committed` run it right after this with
     * ERR_NOT_PRIMARY: they may be carried out or not. Everything that waits in the shard
     * (shard_wait_*) or holds a latch in it is forgotten without a word: it is the caller's again.
     */
    void (*leads_no_more)(void *ctx, shard_id_t shard);
    void *ctx;
};

/* `bytes` came from `node`; borrowed for the call. Authenticated by the transport; lost, late,
 * repeated and reordered ones are harmless. ERR_MALFORMED, ERR_TRUNCATED, ERR_PEER: refused,
 * nothing happened. */
int shard_peer_message(struct shard *s, uint64_t node, struct slice bytes) MUST_CHECK;
/* The answer to ask() or swap(): rc 0 (and the record as it is stored, for ask), ERR_STALE_BASE, or
 * why it is not known. */
void shard_coordinator_says(
    struct shard *s, uint64_t request, bool swapped, int rc, const struct shard_record *record);
/* A primary hands over: an in-sync replica takes over at once. */
void shard_resign(struct shard *s);
/* May requests be evaluated here, now? Always, for a shard that is kept alone. */
bool shard_serves(const struct shard *s);
uint64_t shard_primary(const struct shard *s); /* whom to ask; 0: not known */
uint64_t shard_epoch(const struct shard *s);   /* rises with each take-over */
/* As the one who leads: nothing is committed at or below this stamp any more, whoever leads, but
 * what is committed by now. What this node stamps from now on lies above it. */
uint64_t shard_promise(struct shard *s);
const struct replica *shard_replica(const struct shard *s);
/* A copy of the state is being fetched, or the journal does not reach it yet. */
bool shard_is_copying(const struct shard *s);

/* ---- messages that carry a copy of the state (shard_copy.c); pure ---- */
enum shard_copy_kind {
    SHARD_COPY_FETCH = 1, /* follower: page `page` of copy `id` */
    SHARD_COPY_PAGE,      /* primary */
    SHARD_COPY_GONE,      /* there is no such copy (any more) */
    SHARD_COPY_KIND_END
};
struct shard_copy_msg {
    uint8_t kind;
    bool last;      /* PAGE */
    uint64_t id;    /* drawn by the follower: its life */
    uint64_t page;  /* from 1 */
    uint64_t index; /* PAGE: the journal record that the state stands for */
    uint64_t first; /* PAGE: the journal is needed from here, at most index + 1 */
    uint32_t count; /* of pairs, checked */
    struct slice pairs;
};
void shard_copy_encode(struct buf *b, const struct shard_copy_msg *m);
int shard_copy_decode(struct slice s, struct shard_copy_msg *ret) MUST_CHECK; /* borrows */
/* The next pair of checked ones; *at begins as m->pairs. */
void shard_copy_next(struct slice *at, struct slice *ret_key, struct slice *ret_value);

#endif
