/* Private to site/replica*.c. */
#ifndef SITE_REPLICA_INT_H
#define SITE_REPLICA_INT_H

#include "base/assert.h"
#include "base/plant.h"
#include "site/replica.h"

#define REPLICA_EPOCH_NONE UINT64_MAX /* of a record that is not known any more */

/* What the primary knows of another node. */
struct replica_peer {
    uint64_t node;
    uint64_t life, seq;                  /* of its last reply in this epoch; older ones are void */
    uint64_t next;                       /* to send */
    uint64_t match;                      /* on its disk and equal to ours up to here */
    uint64_t flight[REPLICA_FLIGHT_MAX]; /* last record of messages under way, ascending */
    uint32_t flight_count;
    uint64_t heard_ns, sent_ns, progress_ns, removed_ns;
    uint64_t back_from, back_ns; /* where the last refusal sent us back to, and when */
    uint64_t nack_seq;           /* of its last reply, if that was a refusal; else 0 */
    uint64_t pin;                /* a copy of the state was begun for it; 0: none */
    bool matched;                /* it has agreed to a place in this epoch */
    bool reading;                /* READ_LOG is under way */
    bool busy;                   /* it fetches a copy */
    bool lost;                   /* it lacks what it once had on disk: must leave the record */
};
/* A record that the primary keeps for sending: before the disk has it, nothing else could. */
struct replica_recent {
    uint64_t epoch;
    uint8_t *bytes;
    size_t len;
};
enum replica_swap_kind {
    REPLICA_SWAP_NONE,
    REPLICA_SWAP_CLAIM,
    REPLICA_SWAP_RENEW, /* the lease, the set, or both */
    REPLICA_SWAP_RELEASE
};

struct replica {
    struct replica_config cfg;
    enum replica_role role;
    uint64_t epoch;   /* highest seen; ours while we lead */
    uint64_t primary; /* of it; 0: not known */
    uint64_t life, seq;
    uint64_t now_ns, stamp;

    /* The journal. commit <= verified <= last, durable <= last, commit <= durable. */
    uint64_t last, durable, commit;
    uint64_t verified;       /* follower: equal to the primary's up to here */
    uint64_t primary_commit; /* follower: highest heard in this epoch */
    uint64_t base;           /* leading: last record that is not of this epoch */
    struct replica_run runs[REPLICA_EPOCHS_MAX];
    uint32_t run_count;
    uint64_t nack_seq; /* of our first refusal since something was taken; 0: none */
    bool blank, copying;
    uint64_t heard_ns; /* the primary of this epoch; 0: not yet */
    uint64_t rest_ns;  /* after a hand-over: let others go first until then */

    /* The coordinator: one request at a time. */
    struct shard_record known;
    bool known_any;
    uint64_t seen_ns; /* when this version was seen first */
    uint64_t request; /* number of the last one */
    bool asking;      /* it is under way */
    bool must_ask;    /* what is known may be wrong */
    uint64_t asked_ns, ask_at_ns;
    uint64_t heard_back_ns; /* when the last request that was answered was sent */
    enum replica_swap_kind swap;
    struct shard_record swap_record;

    /* Leading. */
    struct shard_record required; /* whose in_sync must have a record before it is committed: all
                                   * sets that the stored record may have by now */
    uint64_t swap_version;        /* highest version that a swap of ours expected */
    uint64_t lease_until_ns, renew_at_ns;
    uint64_t stamp_floor; /* what earlier primaries may have promised */
    uint64_t stamp_max;   /* what our record reserves */
    bool release;         /* the lease is to be given back */
    struct replica_peer peers[COORDINATOR_REPLICAS_MAX];
    uint32_t peer_count;
    struct replica_recent *recent; /* ring of recent_cap; of records recent_first and on */
    size_t recent_cap, recent_at, recent_count, recent_bytes;
    uint64_t recent_first;
};

/* replica.c */
struct replica_effect *replica_effect(struct replica_effects *out, enum replica_effect_kind kind);
void replica_send(struct replica *r,
                  struct replica_effects *out,
                  uint64_t node,
                  const struct replica_msg *m);
uint64_t replica_epoch_at(const struct replica *r, uint64_t index);  /* 0 at 0; NONE */
uint64_t replica_run_first(const struct replica *r, uint64_t index); /* of the run it is in */
void replica_run_add(struct replica *r, uint64_t index, uint64_t epoch);
bool replica_in_set(const struct shard_record *rec, uint64_t node);
void replica_epoch_adopt(struct replica *r, uint64_t epoch, uint64_t primary);
/* Up to `index`, if that is more than before. */
void replica_commit_to(struct replica *r, uint64_t index, struct replica_effects *out);

/* replica_record.c: the coordinator's record, leases */
void replica_coordinate(struct replica *r, struct replica_effects *out);
void replica_on_record(struct replica *r,
                       const struct replica_event *e,
                       struct replica_effects *out);
void replica_on_swapped(struct replica *r,
                        const struct replica_event *e,
                        struct replica_effects *out);
void replica_step_down(struct replica *r, struct replica_effects *out);

/* replica_lead.c: the primary */
void replica_lead(struct replica *r, struct replica_effects *out);
void replica_lead_end(struct replica *r);
void replica_lead_tick(struct replica *r, struct replica_effects *out);
void replica_lead_appended(struct replica *r, struct slice bytes, struct replica_effects *out);
void replica_lead_read(struct replica *r,
                       const struct replica_event *e,
                       struct replica_effects *out);
int replica_lead_reply(struct replica *r,
                       const struct replica_msg *m,
                       struct replica_effects *out) MUST_CHECK;
void replica_lead_progress(struct replica *r, struct replica_effects *out);
struct replica_peer *replica_peer(struct replica *r, uint64_t node); /* NULL: not one of ours */
/* The set that ought to be in the record; true: it differs from what is required now. */
bool replica_lead_set(struct replica *r, struct shard_record *rec);
/* Is somebody silent of whom only the coordinator's answer can say that it is not us? */
bool replica_lead_doubts(const struct replica *r);

/* replica_follow.c: everybody else */
int replica_follow_append(struct replica *r,
                          const struct replica_msg *m,
                          struct replica_effects *out) MUST_CHECK;
void replica_follow_reply(struct replica *r,
                          bool match,
                          uint64_t hint,
                          struct replica_effects *out);
void replica_follow_durable(struct replica *r, struct replica_effects *out);
void replica_follow_need_copy(struct replica *r,
                              const struct replica_msg *m,
                              struct replica_effects *out);
void replica_follow_copied(struct replica *r, const struct replica_event *e);

#endif
