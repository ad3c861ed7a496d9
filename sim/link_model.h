/* A link as numbers: when bytes that were read now come out at the other end. Pure: no I/O, no
 * clock; the caller gives the time and the seed. One thread.
 *
 * What is modelled is what a TCP connection over such a link shows to the programs at its ends:
 *  - latency one way, and jitter: a share of it drawn for each read. Bytes never overtake each
 * other.
 *  - bandwidth, of all connections of a direction together, behind a queue of so many bytes. A full
 *    queue takes nothing more: the sender is slowed down, as TCP slows it down.
 *  - loss: each packet of LINK_PACKET_BYTES may be lost. TCP sends it again: after a round trip if
 *    three packets behind it have told the sender, else after a time-out that doubles each time.
 * All behind it waits. After LINK_RETRIES_MAX time-outs the connection breaks.
 *  - a connection's first bytes come a round trip later: the handshake. */
#ifndef SIM_LINK_MODEL_H
#define SIM_LINK_MODEL_H

#include "base/clock.h"
#include "sim/link_line.h"

#define LINK_PACKET_BYTES 1448u
#define LINK_READ_MAX ((size_t)(64 * KIB)) /* bytes of one read */
#define LINK_QUEUE_BYTES MIB               /* unless set otherwise */
#define LINK_RTO_NS (200 * NS_PER_MS)      /* above the round trip, as Linux has it */
#define LINK_RTO_MAX_NS (120 * NS_PER_SEC)
#define LINK_RETRIES_MAX 15u

struct link_way {
    /* settings */
    uint64_t latency_ns, jitter_ns;
    uint64_t bandwidth; /* bytes a second; 0: no bound */
    uint64_t queue_bytes;
    uint64_t loss_ppm;
    uint64_t damage_bytes; /* 0: none */
    bool cut;
    /* read-only: counts of all time */
    uint64_t bytes; /* handed on */
    uint64_t packets_lost, bits_flipped;
    /* private */
    uint64_t free_ns;     /* when the wire has sent all that was given to it */
    uint64_t damage_left; /* bytes until the next flip */
};

struct link_model {
    struct link_way way[LINK_DIRECTIONS];
    uint64_t resets_ns; /* mean life of a connection; 0: for ever */
    bool refusing;      /* cut with resets */
    struct rng random;
};

/* One direction of one connection. */
struct link_stream {
    uint64_t last_ns; /* when the newest of its bytes comes out */
};

void link_model_init(struct link_model *m, uint64_t seed);
/* Carries out what concerns the numbers; the rest (connections, target, answers) is the caller's.
 */
void link_model_obey(struct link_model *m, const struct link_command *c);
bool link_model_is_cut(const struct link_model *m); /* in any direction */

/* A connection begins: nothing of it comes out before the handshake is through. */
void link_model_begin(const struct link_model *m,
                      uint64_t now_ns,
                      struct link_stream s[LINK_DIRECTIONS]);
/* How long it lives, in ns; UINT64_MAX: for ever. */
uint64_t link_model_life_ns(struct link_model *m);

/* How much may be read from senders of this direction now; 0: the queue is full, and
 * *ret_wait_ns says how long. */
size_t link_model_room(const struct link_model *m,
                       enum link_direction way,
                       uint64_t now_ns,
                       uint64_t *ret_wait_ns);
/* `len` bytes (0: an end or a break) go in now: when they come out. False: they never do, and at
 * *ret_due_ns the connection breaks. */
bool link_model_carry(struct link_model *m,
                      enum link_direction way,
                      struct link_stream *s,
                      uint64_t now_ns,
                      size_t len,
                      uint64_t *ret_due_ns);
/* These bytes come out: counts them and flips the bits that it is time to flip. */
void link_model_emit(struct link_model *m, enum link_direction way, uint8_t *bytes, size_t len);

#endif
