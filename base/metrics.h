/* Metrics: counters, gauges and histograms in one registry, printed in Prometheus text form.
 *
 * Metrics are static objects, registered once, usually from one list per folder. Updates are
 * relaxed atomics. Histograms have fixed exponential buckets: upper bounds 1 us x 2^i for
 * i = 0..27 (about 134 s), values in nanoseconds. Threads: any. */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include <stdatomic.h>

#include "base/buf.h"

enum metric_kind {
    METRIC_COUNTER,
    METRIC_GAUGE,
    METRIC_HISTOGRAM
};
#define METRIC_BUCKET_COUNT 28
struct metric {
    const char *name;   /* claudefs_..., by Prometheus conventions */
    const char *labels; /* "peer=\"beta\"" or NULL; must outlive the metric */
    const char *help;   /* one sentence */
    enum metric_kind kind;
    _Atomic int64_t value;                             /* counter, gauge; sum in ns */
    _Atomic uint64_t buckets[METRIC_BUCKET_COUNT + 1]; /* histogram; last is +Inf */
    struct metric *next;                               /* registry */
    bool registered;
};
void metric_register(struct metric *m); /* once; idempotent */
void metric_unregister(struct metric *m);
static inline void metric_add(struct metric *m, int64_t by)
{
    atomic_fetch_add_explicit(&m->value, by, memory_order_relaxed);
}
static inline void metric_set(struct metric *m, int64_t v)
{
    atomic_store_explicit(&m->value, v, memory_order_relaxed);
}
static inline int64_t metric_get(const struct metric *m)
{
    return atomic_load_explicit(&m->value, memory_order_relaxed);
}
void metric_observe_ns(struct metric *m, uint64_t ns);
/* The value below which the share q (0..1) of observations lies, in ns; 0 when none. */
uint64_t metric_quantile_ns(const struct metric *m, double q);
uint64_t metric_count(const struct metric *m);
void metrics_to_text(struct buf *out); /* Prometheus text format 0.0.4 */

#endif
