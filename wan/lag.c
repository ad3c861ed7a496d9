/* Lag and clock skew; see lag.h. */
#include "wan/lag.h"

#include "base/hlc.h"
#include "base/id.h"
#include "base/plant.h"

void lag_init(struct lag *l, uint64_t now_ns, uint64_t before_ns)
{
    *l = (struct lag){.heard_ns = now_ns, .began_ns = now_ns, .start_ns = before_ns};
}

void lag_up(struct lag *l)
{
    l->up = true;
    l->ops_total = l->bytes_total = l->ops_applied = l->bytes_applied = 0;
}

void lag_down(struct lag *l)
{
    l->up = false;
}

void lag_hear(struct lag *l, uint64_t now_ns, uint64_t head_hlc)
{
    l->heard_ns = MAX(l->heard_ns, now_ns);
    l->head_hlc = MAX(l->head_hlc, head_hlc);
}

void lag_hear_totals(struct lag *l, uint64_t ops, uint64_t bytes)
{
    l->ops_total = ops;
    l->bytes_total = bytes;
}

void lag_apply(struct lag *l, uint64_t hlc, uint64_t ops, uint64_t bytes)
{
    l->applied_hlc = MAX(l->applied_hlc, hlc);
    l->ops_applied += ops;
    l->bytes_applied += bytes;
}

void lag_wait(struct lag *l, uint64_t hlc)
{
    l->waits_hlc = hlc;
}

uint64_t lag_applied(const struct lag *l)
{
    return l->waits_hlc != 0 ? MIN(l->applied_hlc, l->waits_hlc) : l->applied_hlc;
}

uint64_t lag_ns(const struct lag *l, uint64_t now_ns)
{
    uint64_t head_ms = hlc_ms(l->head_hlc), applied_ms = hlc_ms(lag_applied(l));
    if (PLANTED(24))
        return 0;
    /* Before anything is applied only the wait itself is known. */
    if (applied_ms == 0)
        return l->start_ns + (now_ns > l->began_ns ? now_ns - l->began_ns : 0);
    uint64_t silence = now_ns > l->heard_ns ? now_ns - l->heard_ns : 0;
    if (l->up && silence <= LAG_FRESH_NS)
        silence = 0;
    return (head_ms > applied_ms ? (head_ms - applied_ms) * NS_PER_MS : 0) + silence;
}

static uint64_t left(uint64_t total, uint64_t done)
{
    return total > done ? total - done : 0;
}

uint64_t lag_ops(const struct lag *l)
{
    return left(l->ops_total, l->ops_applied);
}

uint64_t lag_bytes(const struct lag *l)
{
    return left(l->bytes_total, l->bytes_applied);
}

uint64_t delay_age(struct delay *d, uint64_t now_ns, uint64_t stamp_ns)
{
    static const uint64_t sane = (uint64_t)1 << 62;
    if (now_ns > sane || stamp_ns > sane)
        return 0;
    int64_t diff = (int64_t)now_ns - (int64_t)stamp_ns;
    if (!d->known || stamp_ns < d->stamp_ns) {
        *d = (struct delay){.known = true, .base_ns = {diff, diff}, .window_ns = now_ns};
    } else if (now_ns - d->window_ns > DELAY_WINDOW_NS) {
        d->base_ns[1] = d->base_ns[0];
        d->base_ns[0] = diff;
        d->window_ns = now_ns;
    }
    d->stamp_ns = stamp_ns;
    d->base_ns[0] = MIN(d->base_ns[0], diff);
    return (uint64_t)(diff - MIN(d->base_ns[0], d->base_ns[1]));
}

void skew_add(struct skew *s, uint64_t t1, uint64_t t2, uint64_t t3, uint64_t t4)
{
    static const uint64_t sane = (uint64_t)1 << 62;
    if (t4 < t1 || t3 < t2 || t1 > sane || t2 > sane || t3 > sane || t4 > sane)
        return;
    if (t4 - t1 < t3 - t2)
        return;
    int64_t there = (int64_t)t2 - (int64_t)t1, back = (int64_t)t3 - (int64_t)t4;
    s->samples[s->at].ahead_ns = there / 2 + back / 2;
    s->samples[s->at].rtt_ns = (t4 - t1) - (t3 - t2);
    s->at = (s->at + 1) % SKEW_SAMPLES;
    if (s->count < SKEW_SAMPLES)
        s->count++;
}

bool skew_get(const struct skew *s, int64_t *ret_ahead_ns, uint64_t *ret_rtt_ns)
{
    if (s->count == 0)
        return false;
    uint32_t best = 0;
    for (uint32_t i = 1; i < s->count; i++)
        best = s->samples[i].rtt_ns < s->samples[best].rtt_ns ? i : best;
    *ret_ahead_ns = s->samples[best].ahead_ns;
    *ret_rtt_ns = s->samples[best].rtt_ns;
    return true;
}
