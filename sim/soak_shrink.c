/* The shortest history: leaves out faults and calls as long as the same promise is still broken. */
#include <string.h>

#include "sim/soak.h"

#define TRIES_MAX 150u

struct shrink {
    const struct soak_options *o;
    uint64_t seed;
    struct soak_edit best;
    struct soak_result result; /* of the best */
    unsigned tries;
    bool progress;
};

/* Failures count as the same when they name the same promise. */
static bool same(const char *a, const char *b)
{
    size_t len = strcspn(a, ":");
    return len > 0 && strncmp(a, b, len) == 0;
}

static bool try(struct shrink *s, const struct soak_edit *e)
{
    struct soak_job j;
    struct soak_result r;
    if (s->tries++ >= TRIES_MAX)
        return false;
    soak_start(&j, s->o, s->seed, e);
    soak_finish(&j, &r);
    if (!same(s->result.failure, r.failure))
        return false;
    s->best = *e;
    s->result = r;
    s->progress = true;
    return true;
}

static void without_events(struct shrink *s, uint32_t count)
{
    for (uint32_t size = count; size >= 1; size /= 2)
        for (uint32_t from = 0; from < count; from += size) {
            struct soak_edit e = s->best;
            bool news = false;
            for (uint32_t i = from; i < from + size && i < count; i++) {
                news |= !e.without[i];
                e.without[i] = true;
            }
            if (news)
                (void)try(s, &e); /* kept when it still fails */
        }
}

static void without_calls(struct shrink *s, unsigned site, uint64_t have)
{
    uint64_t low = 0, high = have;
    struct soak_edit e = s->best;
    e.operations[site] = 0;
    if (have == 0 || try(s, &e))
        return;
    while (low + 1 < high && s->tries < TRIES_MAX) {
        e = s->best;
        e.operations[site] = (low + high) / 2;
        if (try(s, &e))
            high = e.operations[site];
        else
            low = e.operations[site];
    }
}

void soak_shrink(const struct soak_options *o,
                 uint64_t seed,
                 struct soak_edit *e,
                 struct soak_result *ret)
{
    struct soak_size size;
    struct shrink s = {.o = o, .seed = seed, .best = *e, .result = *ret};
    struct soak_edit quiet = *e;
    soak_size(o, seed, e, ret, &size);
    quiet.no_loss = true;
    (void)try(&s, &quiet); /* kept when it still fails */
    quiet = s.best;
    quiet.no_core = true;
    if (!s.best.no_core)
        (void)try(&s, &quiet);
    /* With fewer calls some of the events are not needed any more, and the other way round. */
    do {
        s.progress = false;
        without_events(&s, size.events);
        for (unsigned i = 0; i < size.sites; i++)
            without_calls(&s, i, MIN(s.best.operations[i], size.operations[i]));
    } while (s.progress && s.tries < TRIES_MAX);
    *e = s.best;
    *ret = s.result;
}
