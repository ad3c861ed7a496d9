/* Metrics: the text form and the histogram arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "base/metrics.h"

static struct metric ops = {
    .name = "claudefs_ops_total", .help = "Operations.", .kind = METRIC_COUNTER};
static struct metric lag_a = {
    .name = "claudefs_lag", .labels = "peer=\"a\"", .help = "Lag.", .kind = METRIC_GAUGE};
static struct metric lag_b = {
    .name = "claudefs_lag", .labels = "peer=\"b\"", .help = "Lag.", .kind = METRIC_GAUGE};
static struct metric lat = {
    .name = "claudefs_op_seconds", .help = "Time of one.", .kind = METRIC_HISTOGRAM};

static char *text_of(void)
{
    struct buf b = {0};
    metrics_to_text(&b);
    buf_append(&b, "", 1);
    return (char *)b.ptr;
}

static void test_metrics_text_of_empty_registry_is_empty(void **state)
{
    (void)state;
    struct buf b = {0};
    metrics_to_text(&b);
    assert_int_equal(b.len, 0);
}

/* One name is one group with one head, in whatever order its metrics were registered. */
static void test_metrics_text_groups_by_name(void **state)
{
    (void)state;
    metric_register(&lag_a);
    metric_register(&ops);
    metric_register(&lag_b);
    metric_register(&lag_b); /* again: no effect */
    metric_add(&ops, 5);
    metric_set(&lag_a, -3);
    metric_set(&lag_b, 4);
    char *text = text_of();
    assert_string_equal(text, "# HELP claudefs_lag Lag.\n# TYPE claudefs_lag gauge\n"
                              "claudefs_lag{peer=\"a\"} -3\nclaudefs_lag{peer=\"b\"} 4\n"
                              "# HELP claudefs_ops_total Operations.\n"
                              "# TYPE claudefs_ops_total counter\nclaudefs_ops_total 5\n");
    mem_free(text);
    metric_unregister(&lag_a);
    metric_unregister(&lag_a);
    text = text_of();
    assert_null(strstr(text, "peer=\"a\""));
    assert_non_null(strstr(text, "peer=\"b\""));
    mem_free(text);
    metric_unregister(&lag_b);
    metric_unregister(&ops);
}

static void lat_reset(void)
{
    metric_set(&lat, 0);
    for (size_t i = 0; i <= METRIC_BUCKET_COUNT; i++)
        atomic_store(&lat.buckets[i], 0);
}

/* An observation equal to a bound belongs to that bucket ("le"), one above to the next. */
static void test_metrics_observe_picks_the_bucket(void **state)
{
    (void)state;
    for (size_t i = 0; i < METRIC_BUCKET_COUNT; i++) {
        uint64_t bound = UINT64_C(1000) << i;
        lat_reset();
        metric_observe_ns(&lat, bound);
        assert_int_equal(lat.buckets[i], 1);
        metric_observe_ns(&lat, bound + 1);
        assert_int_equal(lat.buckets[i + 1], 1);
    }
    lat_reset();
    metric_observe_ns(&lat, 0);
    assert_int_equal(lat.buckets[0], 1);
    metric_observe_ns(&lat, UINT64_MAX);
    assert_int_equal(lat.buckets[METRIC_BUCKET_COUNT], 1);
    assert_int_equal(metric_count(&lat), 2);
    lat_reset();
}

static void test_metrics_histogram_text_is_cumulative(void **state)
{
    (void)state;
    metric_register(&lat);
    metric_observe_ns(&lat, 500);
    metric_observe_ns(&lat, 1500);
    metric_observe_ns(&lat, 500 * NS_PER_SEC);
    char *text = text_of();
    assert_non_null(strstr(text, "# TYPE claudefs_op_seconds histogram\n"));
    assert_non_null(strstr(text, "claudefs_op_seconds_bucket{le=\"0.000001000\"} 1\n"));
    assert_non_null(strstr(text, "claudefs_op_seconds_bucket{le=\"0.000002000\"} 2\n"));
    assert_non_null(strstr(text, "claudefs_op_seconds_bucket{le=\"134.217728000\"} 2\n"));
    assert_non_null(strstr(text, "claudefs_op_seconds_bucket{le=\"+Inf\"} 3\n"));
    assert_non_null(strstr(text, "claudefs_op_seconds_sum 500.000002000\n"));
    assert_non_null(strstr(text, "claudefs_op_seconds_count 3\n"));
    mem_free(text);
    lat.labels = "op=\"read\"";
    text = text_of();
    assert_non_null(strstr(text, "_bucket{op=\"read\",le=\"+Inf\"} 3\n"));
    assert_non_null(strstr(text, "_count{op=\"read\"} 3\n"));
    mem_free(text);
    lat.labels = NULL;
    metric_unregister(&lat);
    lat_reset();
}

static void test_metrics_quantile_lies_in_the_right_bucket(void **state)
{
    (void)state;
    assert_int_equal(metric_quantile_ns(&lat, 0.5), 0);
    for (int i = 0; i < 99; i++)
        metric_observe_ns(&lat, 3000);
    metric_observe_ns(&lat, 900000);
    assert_in_range(metric_quantile_ns(&lat, 0.5), 2000, 4000);
    assert_in_range(metric_quantile_ns(&lat, 0.999), 512000, 1024000);
    assert_int_equal(metric_quantile_ns(&lat, 1.0), 1024000);
    metric_observe_ns(&lat, UINT64_MAX / 4); /* above all bounds: the last bound is all we know */
    assert_int_equal(metric_quantile_ns(&lat, 1.0), UINT64_C(1000) << 27);
    lat_reset();
}

static void *adder(void *arg)
{
    (void)arg;
    for (int i = 0; i < 5000; i++) {
        metric_add(&ops, 1);
        metric_observe_ns(&lat, 1500);
        if (i % 1000 == 0) {
            metric_register(&lat);
            mem_free(text_of());
        }
    }
    return NULL;
}

static void test_metrics_updates_of_threads_add_up(void **state)
{
    (void)state;
    pthread_t threads[4];
    metric_set(&ops, 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, adder, NULL), 0);
    for (size_t i = 0; i < 4; i++)
        (void)pthread_join(threads[i], NULL);
    assert_int_equal(metric_get(&ops), 20000);
    assert_int_equal(metric_count(&lat), 20000);
    metric_unregister(&lat);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics_text_of_empty_registry_is_empty),
        cmocka_unit_test(test_metrics_text_groups_by_name),
        cmocka_unit_test(test_metrics_observe_picks_the_bucket),
        cmocka_unit_test(test_metrics_histogram_text_is_cumulative),
        cmocka_unit_test(test_metrics_quantile_lies_in_the_right_bucket),
        cmocka_unit_test(test_metrics_updates_of_threads_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
