/* Latency, queue, loss and damage of a link, in numbers. */
#include "sim/link_model.h"

#include <math.h>

#include "base/assert.h"

#define SLICE_NS (5 * NS_PER_MS) /* of the wire's time that one read may take */

void link_model_init(struct link_model *m, uint64_t seed)
{
    *m = (struct link_model){0};
    for (int i = 0; i < LINK_DIRECTIONS; i++)
        m->way[i].queue_bytes = LINK_QUEUE_BYTES;
    rng_seed(&m->random, seed);
}

static void damage_draw(struct link_model *m, struct link_way *w)
{
    w->damage_left = w->damage_bytes > 0 ? 1 + rng_below(&m->random, 2 * w->damage_bytes) : 0;
}

static void way_obey(struct link_model *m, struct link_way *w, const struct link_command *c)
{
    switch (c->verb) {
    case LINK_SET_LATENCY:
        w->latency_ns = c->value;
        return;
    case LINK_SET_JITTER:
        w->jitter_ns = c->value;
        return;
    case LINK_SET_BANDWIDTH:
        w->bandwidth = c->value;
        w->free_ns = 0; /* what is under way keeps its time; the wire is new */
        return;
    case LINK_SET_QUEUE:
        w->queue_bytes = c->value;
        return;
    case LINK_SET_LOSS:
        w->loss_ppm = c->value;
        return;
    case LINK_SET_DAMAGE:
        w->damage_bytes = c->value;
        damage_draw(m, w);
        return;
    case LINK_CUT_STALL:
        w->cut = true;
        return;
    case LINK_HEAL:
        w->cut = false;
        return;
    case LINK_SET_RESETS:
    case LINK_SET_TARGET:
    case LINK_CUT_RESET:
    case LINK_RESET:
    case LINK_STATS:
        return;
    }
    UNREACHABLE();
}

void link_model_obey(struct link_model *m, const struct link_command *c)
{
    for (int i = 0; i < LINK_DIRECTIONS; i++)
        if (c->way[i])
            way_obey(m, &m->way[i], c);
    if (c->verb == LINK_SET_RESETS)
        m->resets_ns = c->value;
    if (c->verb == LINK_CUT_RESET || c->verb == LINK_HEAL)
        m->refusing = c->verb == LINK_CUT_RESET;
}

bool link_model_is_cut(const struct link_model *m)
{
    return m->way[LINK_TO].cut || m->way[LINK_FROM].cut;
}

void link_model_begin(const struct link_model *m,
                      uint64_t now_ns,
                      struct link_stream s[LINK_DIRECTIONS])
{
    /* SYN, SYN with ACK, and the first bytes to the target; those of the target come after them. */
    uint64_t to = m->way[LINK_TO].latency_ns, from = m->way[LINK_FROM].latency_ns;
    s[LINK_TO].last_ns = now_ns + to + from + to;
    s[LINK_FROM].last_ns = s[LINK_TO].last_ns + from;
}

static double draw(struct link_model *m) /* in (0, 1] */
{
    return ((double)(rng_next(&m->random) >> 11) + 1.0) / 9007199254740992.0;
}

uint64_t link_model_life_ns(struct link_model *m)
{
    if (m->resets_ns == 0)
        return UINT64_MAX;
    return (uint64_t)((double)m->resets_ns * -log(draw(m)));
}

/* len bytes at the bandwidth, in ns, rounded up. */
static uint64_t wire_ns(const struct link_way *w, uint64_t len)
{
    return w->bandwidth == 0 ? 0 : (uint64_t)ceil((double)len * 1e9 / (double)w->bandwidth);
}

size_t link_model_room(const struct link_model *m,
                       enum link_direction way,
                       uint64_t now_ns,
                       uint64_t *ret_wait_ns)
{
    const struct link_way *w = &m->way[way];
    *ret_wait_ns = 0;
    if (w->bandwidth == 0)
        return LINK_READ_MAX;
    uint64_t waiting = w->free_ns > now_ns ? w->free_ns - now_ns : 0;
    uint64_t full = wire_ns(w, w->queue_bytes);
    if (waiting >= full && waiting > 0) {
        *ret_wait_ns = waiting - full + 1;
        return 0;
    }
    uint64_t slice = (uint64_t)((double)w->bandwidth * ((double)SLICE_NS / 1e9));
    return (size_t)MIN(MAX(slice, LINK_PACKET_BYTES), LINK_READ_MAX);
}

static bool lost(struct link_model *m, const struct link_way *w)
{
    return w->loss_ppm > 0 && rng_below(&m->random, 1000000) < w->loss_ppm;
}

/* How long what is behind a lost packet waits; false: TCP gives up. `behind`: packets that follow.
 */
static bool retransmit(struct link_model *m, struct link_way *w, uint64_t behind, uint64_t *ret_ns)
{
    uint64_t round_trip = m->way[LINK_TO].latency_ns + m->way[LINK_FROM].latency_ns;
    uint64_t timeout = round_trip + LINK_RTO_NS;
    *ret_ns = behind >= 3 ? round_trip : timeout;
    for (unsigned tries = 0; lost(m, w); tries++) {
        w->packets_lost++;
        if (tries == LINK_RETRIES_MAX)
            return false;
        *ret_ns += timeout;
        timeout = MIN(timeout * 2, LINK_RTO_MAX_NS);
    }
    return true;
}

bool link_model_carry(struct link_model *m,
                      enum link_direction way,
                      struct link_stream *s,
                      uint64_t now_ns,
                      size_t len,
                      uint64_t *ret_due_ns)
{
    struct link_way *w = &m->way[way];
    bool arrives = true;
    uint64_t stall_ns = 0;
    w->free_ns = MAX(w->free_ns, now_ns) + wire_ns(w, len);
    uint64_t packets = (len + LINK_PACKET_BYTES - 1) / LINK_PACKET_BYTES;
    for (uint64_t i = 0; i < packets && arrives && w->loss_ppm > 0; i++)
        if (lost(m, w)) {
            uint64_t wait_ns;
            w->packets_lost++;
            arrives = retransmit(m, w, packets - 1 - i, &wait_ns);
            stall_ns = MAX(stall_ns, wait_ns); /* those lost together are sent again together */
        }
    uint64_t due = w->free_ns + w->latency_ns + stall_ns;
    if (w->jitter_ns > 0)
        due += rng_below(&m->random, w->jitter_ns + 1);
    s->last_ns = MAX(s->last_ns, due);
    *ret_due_ns = s->last_ns;
    return arrives;
}

void link_model_emit(struct link_model *m, enum link_direction way, uint8_t *bytes, size_t len)
{
    struct link_way *w = &m->way[way];
    size_t at = 0;
    w->bytes += len;
    while (w->damage_bytes > 0 && w->damage_left <= len - at) {
        at += w->damage_left;
        ASSERT(at >= 1 && at <= len);
        bytes[at - 1] ^= (uint8_t)(1u << rng_below(&m->random, 8));
        w->bits_flipped++;
        damage_draw(m, w);
    }
    if (w->damage_bytes > 0)
        w->damage_left -= len - at;
}
