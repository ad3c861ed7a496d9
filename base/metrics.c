/* Registry and text form. The registry keeps metrics of one name together, because the text format
 * demands it; registration is rare, so a sorted insert under a mutex is enough. */
#include "base/metrics.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include "base/assert.h"

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct metric *registry;

static uint64_t bucket_bound_ns(size_t i)
{
    return UINT64_C(1000) << i;
}

void metric_register(struct metric *m)
{
    ASSERT(m->name != NULL && m->help != NULL);
    (void)pthread_mutex_lock(&registry_lock);
    if (!m->registered) {
        struct metric **at = &registry;
        while (*at != NULL && strcmp((*at)->name, m->name) <= 0)
            at = &(*at)->next;
        m->next = *at;
        *at = m;
        m->registered = true;
    }
    (void)pthread_mutex_unlock(&registry_lock);
}

void metric_unregister(struct metric *m)
{
    (void)pthread_mutex_lock(&registry_lock);
    if (m->registered) {
        struct metric **at = &registry;
        while (*at != m)
            at = &(*at)->next;
        *at = m->next;
        m->next = NULL;
        m->registered = false;
    }
    (void)pthread_mutex_unlock(&registry_lock);
}

void metric_observe_ns(struct metric *m, uint64_t ns)
{
    size_t i = 0;
    if (ns > bucket_bound_ns(METRIC_BUCKET_COUNT - 1))
        i = METRIC_BUCKET_COUNT;
    else if (ns > bucket_bound_ns(0)) /* the smallest i with 2^i us >= ns */
        i = (size_t)(64 - __builtin_clzll((ns - 1) / 1000));
    atomic_fetch_add_explicit(&m->buckets[i], 1, memory_order_relaxed);
    metric_add(m, (int64_t)MIN(ns, (uint64_t)INT64_MAX));
}

static uint64_t bucket_get(const struct metric *m, size_t i)
{
    return atomic_load_explicit(&m->buckets[i], memory_order_relaxed);
}

uint64_t metric_count(const struct metric *m)
{
    uint64_t sum = 0;
    for (size_t i = 0; i <= METRIC_BUCKET_COUNT; i++)
        sum += bucket_get(m, i);
    return sum;
}

uint64_t metric_quantile_ns(const struct metric *m, double q)
{
    double rank = (double)metric_count(m) * q, below = 0;
    uint64_t low = 0;
    for (size_t i = 0; i < METRIC_BUCKET_COUNT; i++) {
        double here = (double)bucket_get(m, i);
        uint64_t high = bucket_bound_ns(i);
        if (here > 0 && below + here >= rank)
            return low + (uint64_t)((double)(high - low) * (rank - below) / here);
        below += here;
        low = high;
    }
    return metric_count(m) == 0 ? 0 : low;
}

/* Seconds with nanoseconds, without the rounding of floating point. */
#define SECONDS_FMT "%" PRIu64 ".%09" PRIu64
#define SECONDS_ARGS(ns) (ns) / NS_PER_SEC, (ns) % NS_PER_SEC

static void histogram_to_text(const struct metric *m, struct buf *out)
{
    const char *labels = m->labels == NULL ? "" : m->labels;
    const char *comma = m->labels == NULL ? "" : ",";
    uint64_t sum = 0;
    for (size_t i = 0; i < METRIC_BUCKET_COUNT; i++) {
        uint64_t bound = bucket_bound_ns(i);
        sum += bucket_get(m, i);
        buf_printf(out, "%s_bucket{%s%sle=\"" SECONDS_FMT "\"} %" PRIu64 "\n", m->name, labels,
                   comma, SECONDS_ARGS(bound), sum);
    }
    /* Taken from the same pass, so that count and +Inf agree while others observe. */
    sum += bucket_get(m, METRIC_BUCKET_COUNT);
    buf_printf(out, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", m->name, labels, comma, sum);
    const char *open = m->labels == NULL ? "" : "{", *close = m->labels == NULL ? "" : "}";
    uint64_t total = (uint64_t)metric_get(m);
    buf_printf(out, "%s_sum%s%s%s " SECONDS_FMT "\n", m->name, open, labels, close,
               SECONDS_ARGS(total));
    buf_printf(out, "%s_count%s%s%s %" PRIu64 "\n", m->name, open, labels, close, sum);
}

void metrics_to_text(struct buf *out)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    const char *last = "";
    (void)pthread_mutex_lock(&registry_lock);
    for (const struct metric *m = registry; m != NULL; m = m->next) {
        if (strcmp(last, m->name) != 0)
            buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name,
                       kinds[m->kind]);
        last = m->name;
        if (m->kind == METRIC_HISTOGRAM)
            histogram_to_text(m, out);
        else if (m->labels == NULL)
            buf_printf(out, "%s %" PRId64 "\n", m->name, metric_get(m));
        else
            buf_printf(out, "%s{%s} %" PRId64 "\n", m->name, m->labels, metric_get(m));
    }
    (void)pthread_mutex_unlock(&registry_lock);
}
