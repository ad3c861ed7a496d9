/* Prometheus text (format 0.0.4) from the status JSON. Every name is in docs/metrics.md. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/metrics.h"
#include "client/dash_int.h"

static void head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n", name, help);
    buf_printf(out, "# TYPE %s %s\n", name, type);
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* Names of sites have no character that a label must escape (site/settings.c). */
static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "";
}

static const struct row { /* one number of the whole site */
    const char *object, *key, *name, *type, *help;
} site_rows[] = {
    {NULL, "sessions", "claudefs_mounts", "gauge", "Mounts that have a session."},
    {NULL, "conflicts_open", "claudefs_conflicts_open", "gauge",
     "Conflicts that nobody has resolved."},
    {NULL, "repairs_pending", "claudefs_repairs_pending", "gauge",
     "Repairs issued in the last turn."},
    {"space", "logical_bytes", "claudefs_logical_bytes", "gauge",
     "Bytes that all files hold, before deduplication."},
    {"space", "inline_bytes", "claudefs_inline_bytes", "gauge",
     "Bytes of these in small files, which have no chunks."},
    {"space", "plain_bytes", "claudefs_chunk_plain_bytes", "gauge",
     "Bytes in the chunks held, after deduplication, before compression."},
    {"space", "chunks", "claudefs_chunks", "gauge", "Chunks in the store."},
    {"space", "live_bytes", "claudefs_chunk_live_bytes", "gauge",
     "Bytes of these chunks, after deduplication, compression and encryption."},
    {"space", "file_bytes", "claudefs_chunk_file_bytes", "gauge",
     "Bytes of the store's files, with what compaction will free."},
    {"space", "awaited_contents", "claudefs_awaited_contents", "gauge",
     "Contents that policy wants at this site and that are not all here."},
    {"space", "awaited_bytes", "claudefs_awaited_bytes", "gauge",
     "Bytes of these that are not here, as far as is known."},
    {"space", "free_bytes", "claudefs_free_bytes", "gauge", "Bytes that can still be stored."},
    {"space", "damaged", "claudefs_damaged_chunks", "gauge", "Chunks known to be damaged."},
};

static void put_site(struct buf *out, const json_t *status)
{
    for (size_t i = 0; i < ARRAY_COUNT(site_rows); i++) {
        const struct row *r = &site_rows[i];
        const json_t *o = r->object != NULL ? json_object_get(status, r->object) : status;
        head(out, r->name, r->type, r->help);
        buf_printf(out, "%s{site=\"%s\"} %.15g\n", r->name, text(status, "name"),
                   number(o, r->key));
    }
}

static const struct link_row { /* one number for each direction of each link */
    const char *in_key, *out_key, *name, *help;
} link_rows[] = {
    {"lag_in_s", "lag_out_s", "claudefs_lag_seconds",
     "Seconds that the receiving site is behind; in: this site is the receiver."},
    {"in_ops_to_go", "out_ops_to_go", "claudefs_operations_to_go", "Operations still to apply."},
    {"in_bytes_to_go", "out_bytes_to_go", "claudefs_bytes_to_go", "Bytes of these, estimated."},
    {"in_connected", "out_connected", "claudefs_stream_up", "1 when the stream is open."},
};

static double value(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_boolean(v) ? (double)json_is_true(v) : json_number_value(v);
}

static void put_links(struct buf *out, const json_t *status)
{
    const json_t *peers = json_object_get(status, "peers"), *p;
    const char *site = text(status, "name");
    size_t idx;
    for (size_t i = 0; i < ARRAY_COUNT(link_rows); i++) {
        const struct link_row *r = &link_rows[i];
        head(out, r->name, "gauge", r->help);
        json_array_foreach (peers, idx, p) {
            buf_printf(out, "%s{site=\"%s\",peer=\"%s\",direction=\"in\"} %.15g\n", r->name, site,
                       text(p, "name"), value(p, r->in_key));
            buf_printf(out, "%s{site=\"%s\",peer=\"%s\",direction=\"out\"} %.15g\n", r->name, site,
                       text(p, "name"), value(p, r->out_key));
        }
    }
    head(out, "claudefs_round_trip_seconds", "gauge", "Round trip to the peer.");
    json_array_foreach (peers, idx, p)
        buf_printf(out, "claudefs_round_trip_seconds{site=\"%s\",peer=\"%s\"} %.9g\n", site,
                   text(p, "name"), number(p, "rtt_ms") / 1e3);
    head(out, "claudefs_resync_in_seconds", "gauge",
         "Until journals are kept no longer for a peer that is away.");
    json_array_foreach (peers, idx, p)
        if (json_is_number(json_object_get(p, "resync_in_seconds")))
            buf_printf(out, "claudefs_resync_in_seconds{site=\"%s\",peer=\"%s\"} %.9g\n", site,
                       text(p, "name"), number(p, "resync_in_seconds"));
    head(out, "claudefs_journal_kept_bytes", "gauge",
         "Bytes of the journals that are kept for the peer.");
    json_array_foreach (peers, idx, p)
        buf_printf(out, "claudefs_journal_kept_bytes{site=\"%s\",peer=\"%s\"} %.15g\n", site,
                   text(p, "name"), number(p, "journal_kept_bytes"));
    head(out, "claudefs_clock_skew_seconds", "gauge", "The peer's clock minus this one.");
    json_array_foreach (peers, idx, p)
        if (json_is_number(json_object_get(p, "clock_ahead_ms")))
            buf_printf(out, "claudefs_clock_skew_seconds{site=\"%s\",peer=\"%s\"} %.9g\n", site,
                       text(p, "name"), number(p, "clock_ahead_ms") / 1e3);
}

static const struct shard_row {
    const char *key, *name, *help;
} shard_rows[] = {
    {"epoch", "claudefs_shard_epoch", "How often the shard has been taken over."},
    {"in_sync", "claudefs_shard_in_sync_nodes", "Nodes that have all of the shard's journal."},
    {"journal_bytes", "claudefs_journal_bytes", "Bytes of the shard's journal on disk."},
    {"durable", "claudefs_journal_index", "Index of the newest durable record."},
    {"outbox", "claudefs_shard_messages", "Messages to other shards under way."},
    {"waiting", "claudefs_shard_waiting_operations",
     "Operations of other sites that wait for what they build on."},
};

static void put_shards(struct buf *out, const json_t *status)
{
    const json_t *shards = json_object_get(status, "shards"), *s;
    size_t idx;
    for (size_t i = 0; i < ARRAY_COUNT(shard_rows); i++) {
        head(out, shard_rows[i].name, "gauge", shard_rows[i].help);
        json_array_foreach (shards, idx, s)
            buf_printf(out, "%s{site=\"%s\",shard=\"%d\"} %.15g\n", shard_rows[i].name,
                       text(status, "name"), (int)number(s, "id"), number(s, shard_rows[i].key));
    }
}

static void put_process(struct buf *out)
{
    struct rusage u;
    long pages = 0, total;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f != NULL && fscanf(f, "%ld %ld", &total, &pages) != 2)
        pages = 0;
    if (f != NULL)
        (void)fclose(f); /* only read */
    head(out, "process_resident_memory_bytes", "gauge", "Resident memory of the daemon.");
    buf_printf(out, "process_resident_memory_bytes %lld\n",
               (long long)pages * (long long)sysconf(_SC_PAGESIZE));
    if (getrusage(RUSAGE_SELF, &u) != 0)
        return;
    head(out, "process_cpu_seconds_total", "counter", "Processor time of the daemon.");
    buf_printf(out, "process_cpu_seconds_total %.6f\n",
               (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                   (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
}

void dash_metrics(const json_t *status, struct buf *out)
{
    head(out, "claudefs_up", "gauge", "1 when the site has told its status.");
    buf_printf(out, "claudefs_up %d\n", status != NULL);
    if (status != NULL) {
        put_site(out, status);
        put_links(out, status);
        put_shards(out, status);
    }
    put_process(out);
    metrics_to_text(out);
}
