/* Lag and clock skew; see lag.h. */
#include "wan/lag.h"

#include <string.h>

#include "base/hlc.h"
#include "base/id.h"
#include "base/plant.h"

#define MARK_UNIT_NS (16 * NS_PER_MS) /* products of two ages are far from overflowing */
#define WRONG_SHARE 8u                /* of what would be wrong without a mark, to its gap */

void lag_init(struct lag *l, uint64_t now_ns, uint64_t before_ns)
{
    *l = (struct lag){.began_ns = now_ns, .start_ns = before_ns};
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

static void mark_drop(struct lag *l, uint32_t i)
{
    l->mark_count--;
    memmove(l->marks + i, l->marks + i + 1, (l->mark_count - i) * sizeof l->marks[0]);
}

static uint64_t apart_ns(uint64_t below_hlc, uint64_t hlc)
{
    return hlc > below_hlc ? (hlc_ms(hlc) - hlc_ms(below_hlc)) * NS_PER_MS : 0;
}

/* When the safe point was at hlc, which is between two marks: as long after the first as the
 * source's clock says, and as long before the second. Where its clock was set or stood still these
 * differ, and the earlier one is told: a lag is rather too large than too small. */
static uint64_t passed_ns(const struct lag_mark *below, const struct lag_mark *above, uint64_t hlc)
{
    uint64_t gap = above->at_ns - below->at_ns;
    uint64_t after = MIN(apart_ns(below->clock_hlc, hlc), gap);
    uint64_t before = MIN(apart_ns(hlc, above->clock_hlc), gap);
    return below->at_ns + MIN(after, gap - before);
}

/* The one without which least is wrong, or else the gap is smallest, for its age; the first and the
 * last stay. */
static void marks_thin(struct lag *l)
{
    uint64_t now = l->marks[l->mark_count - 1].at_ns, least_cost = 0, least_age = 0;
    uint32_t least = 0;
    for (uint32_t i = 1; i + 1 < l->mark_count; i++) {
        const struct lag_mark *m = &l->marks[i];
        uint64_t at = passed_ns(m - 1, m + 1, m->hlc), gap = m[1].at_ns - m[-1].at_ns;
        uint64_t wrong = MAX(at, m->at_ns) - MIN(at, m->at_ns);
        uint64_t cost = gap / MARK_UNIT_NS + WRONG_SHARE * (wrong / MARK_UNIT_NS);
        uint64_t age = (now - m->at_ns) / MARK_UNIT_NS + 1;
        if (least == 0 || cost * least_age < least_cost * age) {
            least = i;
            least_cost = cost;
            least_age = age;
        }
    }
    mark_drop(l, least);
}

/* What is applied has passed these. */
static void marks_pass(struct lag *l)
{
    uint64_t applied = lag_applied(l);
    while (l->mark_count > 1 && l->marks[1].hlc <= applied)
        mark_drop(l, 0);
}

/* What was said to be below a safe point need not be. */
static void marks_fall(struct lag *l, uint64_t below_hlc)
{
    l->applied_hlc = MIN(l->applied_hlc, below_hlc);
    for (uint32_t i = l->mark_count; i > 0; i--) {
        l->marks[i - 1].hlc = MIN(l->marks[i - 1].hlc, below_hlc);
        if (i < l->mark_count && l->marks[i - 1].hlc == l->marks[i].hlc)
            mark_drop(l, i - 1);
    }
}

void lag_hear(struct lag *l, uint64_t now_ns, uint64_t safe_hlc, uint64_t clock_hlc)
{
    if (safe_hlc == 0)
        return;
    struct lag_mark mark = {
        .hlc = safe_hlc, .clock_hlc = MAX(safe_hlc, clock_hlc), .at_ns = now_ns};
    const struct lag_mark *last = &l->marks[MAX(l->mark_count, 1u) - 1];
    if (l->mark_count > 0) {
        mark.at_ns = MAX(now_ns, last->at_ns);
        if (safe_hlc < last->hlc)
            marks_fall(l, safe_hlc - 1);
        else if (safe_hlc == last->hlc)
            l->mark_count--;
    }
    if (l->mark_count == LAG_MARKS_MAX)
        marks_thin(l);
    l->marks[l->mark_count++] = mark;
    marks_pass(l);
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
    marks_pass(l);
}

void lag_wait(struct lag *l, uint64_t hlc)
{
    l->waits_hlc = hlc;
}

uint64_t lag_applied(const struct lag *l)
{
    return l->waits_hlc != 0 ? MIN(l->applied_hlc, l->waits_hlc - 1) : l->applied_hlc;
}

static uint64_t since(uint64_t now_ns, uint64_t at_ns)
{
    return now_ns > at_ns ? now_ns - at_ns : 0;
}

uint64_t lag_ns(const struct lag *l, uint64_t now_ns)
{
    uint64_t applied = lag_applied(l);
    if (PLANTED(24))
        return 0;
    /* Before anything is applied only the wait itself is known. */
    if (hlc_ms(applied) == 0 || l->mark_count == 0)
        return since(now_ns, l->began_ns) + l->start_ns;
    uint32_t above = 0; /* the first mark that is not reached */
    while (above < l->mark_count && l->marks[above].hlc <= applied)
        above++;
    if (above == 0)
        return since(now_ns, l->marks[0].at_ns) + apart_ns(applied, l->marks[0].clock_hlc);
    const struct lag_mark *reached = &l->marks[above - 1];
    uint64_t silence = since(now_ns, reached->at_ns);
    if (above == l->mark_count)
        return l->up && silence <= LAG_FRESH_NS ? 0 : silence;
    return since(now_ns, passed_ns(reached, reached + 1, applied));
}

bool lag_is_by_clock(const struct lag *l)
{
    return l->mark_count > 0 && lag_applied(l) < l->marks[0].hlc;
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
