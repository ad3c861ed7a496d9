/* Rates of a link: see dash_rate.h. */
#include "client/dash_rate.h"

static const struct dash_rate_sample *sample(const struct dash_rate *r, uint32_t i)
{
    return &r->at[(r->first + i) % DASH_RATE_SAMPLES];
}

static void drop_first(struct dash_rate *r)
{
    r->first = (r->first + 1) % DASH_RATE_SAMPLES;
    r->count--;
}

void dash_rate_see(struct dash_rate *r, double now_s, double done, double to_go)
{
    if (r->count > 0 && done < sample(r, r->count - 1)->done)
        r->count = 0;
    /* One that is older than the window stays: the window begins with it. */
    while (r->count == DASH_RATE_SAMPLES ||
           (r->count > 1 && sample(r, 1)->at_s <= now_s - DASH_RATE_WINDOW_S))
        drop_first(r);
    r->at[(r->first + r->count++) % DASH_RATE_SAMPLES] =
        (struct dash_rate_sample){.at_s = now_s, .done = done, .to_go = to_go};
}

double dash_rate_per_s(const struct dash_rate *r)
{
    if (r->count < 2)
        return 0;
    const struct dash_rate_sample *first = sample(r, 0), *last = sample(r, r->count - 1);
    double seconds = last->at_s - first->at_s;
    return seconds > 0 ? (last->done - first->done) / seconds : 0;
}

double dash_rate_left_s(const struct dash_rate *r)
{
    if (r->count == 0)
        return -1;
    const struct dash_rate_sample *last = sample(r, r->count - 1), *most = last;
    if (last->to_go <= 0)
        return 0;
    /* Of equal ones the latest: while a link is cut nothing moves, and that says nothing. */
    for (uint32_t i = r->count; i-- > 0;)
        if (sample(r, i)->to_go > most->to_go)
            most = sample(r, i);
    double seconds = last->at_s - most->at_s;
    return seconds > 0 ? last->to_go * seconds / (most->to_go - last->to_go) : -1;
}
