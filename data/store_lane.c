/* Changes of the index, and the lane: one pool job at a time for all that may block on it. */
#include "base/assert.h"
#include "data/store_int.h"

static void lane_kick(struct store *s);

/* ---- entries ---- */

static struct recent *recent_find(const struct store *s, const struct chunk_id *id)
{
    const uint64_t *value = id_map_get(&s->recent, id);
    return value == NULL ? NULL : (struct recent *)(uintptr_t)*value;
}

static void index_timer_arm(struct store *s)
{
    if (s->index_timer_on || s->close_settling)
        return;
    s->index_timer_on = true;
    loop_timer_start(s->loop, &s->index_timer, loop_now_ns(s->loop) + STORE_INDEX_DELAY_NS);
}

static void count_entry(struct store *s, const struct store_entry *e, bool add)
{
    if (e->segment == 0)
        return;
    uint64_t bytes = record_bytes(e->len);
    struct store_segment *seg = segment_find(s, e->segment);
    if (seg == NULL)
        return; /* its file is lost */
    s->chunks += add ? 1 : UINT64_MAX;
    s->live_bytes += add ? bytes : 0 - bytes;
    s->plain_bytes += add ? e->plain_len : 0 - (uint64_t)e->plain_len;
    seg->stat.live_count += add ? 1 : UINT64_MAX;
    seg->stat.live_bytes += add ? bytes : 0 - bytes;
    seg->stat.plain_bytes += add ? e->plain_len : 0 - (uint64_t)e->plain_len;
    segment_dirty(s, seg);
}

void entry_change(struct store *s,
                  const struct chunk_id *id,
                  const struct store_entry *old,
                  const struct store_entry *now)
{
    struct recent *r = recent_find(s, id);
    if (r != NULL) {
        ASSERT(r->entry.segment == old->segment && r->entry.offset == old->offset);
    } else {
        r = mem_calloc(1, sizeof *r);
        r->id = *id;
        id_map_set(&s->recent, id, (uint64_t)(uintptr_t)r);
    }
    count_entry(s, old, false);
    count_entry(s, now, true);
    r->entry = *now;
    r->change = ++s->change;
    if (now->segment != old->segment || now->offset != old->offset)
        (void)id_map_del(&s->damaged, id); /* whether it was there does not matter */
    uint64_t *inflight = id_map_get(&s->inflight, id);
    if (inflight != NULL)
        ((struct store_put *)(uintptr_t)*inflight)->old = *now;
    index_timer_arm(s);
}

void entry_touch(struct store *s, const struct chunk_id *id, const struct store_entry *entry)
{
    if (entry->epoch == s->epoch)
        return;
    struct store_entry now = *entry;
    now.epoch = s->epoch;
    entry_change(s, id, entry, &now);
}

bool entry_usable(const struct store *s, const struct chunk_id *id, const struct store_entry *e)
{
    return e->segment != 0 && id_map_get(&s->damaged, id) == NULL &&
           segment_find(s, e->segment) != NULL;
}

int lookup_now(struct store *s, const struct chunk_id *id, struct store_entry *ret)
{
    const struct recent *r = recent_find(s, id);
    if (r == NULL)
        return index_get(s->index, id, true, ret);
    *ret = r->entry;
    return 0;
}

void lookup_submit(struct store *s, struct store_lookup *lookup)
{
    lookup->next = NULL;
    *s->lane.lookups_last = lookup;
    s->lane.lookups_last = &lookup->next;
    lane_kick(s);
}

void scan_submit(struct store *s, struct scan *scan)
{
    scan->next = NULL;
    *s->lane.scans_last = scan;
    s->lane.scans_last = &scan->next;
    lane_kick(s);
}

void settle_submit(struct store *s, struct settle *settle)
{
    settle->next = s->lane.settles;
    s->lane.settles = settle;
    s->lane.write_wanted = true;
    lane_kick(s);
}

/* ---- jobs: on the pool ---- */

static struct store *store_of_job(struct pool_job *job)
{
    return CONTAINER_OF(job, struct store, lane.job);
}

static void lookup_work(struct pool_job *job)
{
    struct store *s = store_of_job(job);
    for (struct store_lookup *l = s->lane.job_lookups; l != NULL; l = l->next)
        l->rc = index_get(s->index, &l->id, false, &l->entry);
}

static void write_work(struct pool_job *job)
{
    struct store *s = store_of_job(job);
    s->lane.rc = index_write(s->index, s->lane.job_batch);
    if (s->lane.rc == 0 && (s->lane.job_flush || s->lane.job_flush_start))
        s->lane.rc = index_flush(s->index, s->lane.job_flush);
}

static bool scan_entry(void *ctx, const struct chunk_id *id, const struct store_entry *e)
{
    struct scan *scan = ctx;
    scan->after = *id;
    if (scan->want == NULL || scan->want(scan, id, e))
        scan->at[scan->count++] = (struct scanned){.id = *id, .entry = *e};
    if (++scan->seen < STORE_SCAN_ENTRIES)
        return true;
    scan->end = false;
    return false;
}

static void scan_work(struct pool_job *job)
{
    struct scan *scan = store_of_job(job)->lane.job_scan;
    scan->count = 0;
    scan->seen = 0;
    scan->end = true;
    struct chunk_id after = scan->after;
    scan->rc = index_scan(store_of_job(job)->index, chunk_id_is_hole(&after) ? NULL : &after,
                          scan_entry, scan);
}

/* ---- jobs: back on the loop ---- */

static void lookups_done(struct store *s)
{
    struct store_lookup *list = s->lane.job_lookups;
    s->lane.job_lookups = NULL;
    while (list != NULL) {
        struct store_lookup *l = list;
        list = l->next;
        const struct recent *r = recent_find(s, &l->id);
        if (r != NULL) { /* changed meanwhile */
            l->entry = r->entry;
            l->rc = 0;
        }
        l->done(l);
    }
}

static void recent_drop(struct store *s, uint64_t change)
{
    struct chunk_ids written = {0};
    size_t at = 0;
    const struct id_map_slot *slot;
    while ((slot = id_map_next(&s->recent, &at)) != NULL) {
        struct recent *r = (struct recent *)(uintptr_t)slot->value;
        if (r->change <= change)
            chunk_ids_add(&written, &slot->id);
    }
    for (size_t i = 0; i < written.count; i++) {
        struct recent *r = recent_find(s, &written.at[i]);
        (void)id_map_del(&s->recent, &written.at[i]); /* it was found above */
        mem_free(r);
    }
    chunk_ids_deinit(&written);
}

static void write_done(struct store *s)
{
    index_batch_free(s->lane.job_batch);
    s->lane.job_batch = NULL;
    s->index_rc = s->lane.rc;
    if (s->lane.rc == 0) {
        recent_drop(s, s->lane.job_change);
    } else {
        /* The stats are written again with the entries, at the next attempt. */
        for (size_t i = 0; i < s->segment_count; i++)
            segment_dirty(s, s->segments[i]);
    }
    if (s->recent.count > 0)
        index_timer_arm(s);
    struct settle *list = s->lane.job_settles;
    s->lane.job_settles = NULL;
    while (list != NULL) {
        struct settle *settle = list;
        list = settle->next;
        settle->done(settle, s->index_rc);
    }
}

static void lane_done(struct pool_job *job)
{
    struct store *s = store_of_job(job);
    enum lane_kind kind = s->lane.running;
    s->lane.last = kind;
    s->lane.running = LANE_IDLE;
    switch (kind) {
    case LANE_LOOKUP:
        lookups_done(s);
        break;
    case LANE_WRITE:
        write_done(s);
        break;
    case LANE_SCAN: {
        struct scan *scan = s->lane.job_scan;
        s->lane.job_scan = NULL;
        scan->done(scan, scan->rc);
        break;
    }
    case LANE_IDLE:
        UNREACHABLE();
    }
    lane_kick(s);
    close_kick(s);
}

/* ---- starting jobs ---- */

static void batch_meta(struct store *s, struct index_batch *b)
{
    struct index_meta meta = {.epoch = s->epoch, .next_segment = s->next_segment};
    memcpy(meta.store_id, s->store_id, sizeof meta.store_id);
    /* All groups that are on disk are in `recent` or written down already: covered. */
    if (s->active != NULL) {
        meta.segment = s->active->number;
        meta.offset = s->active->stat.end;
    } else {
        meta.segment = s->next.state != NEXT_NONE ? s->next.number : s->next_segment;
        meta.offset = STORE_BLOCK_BYTES;
    }
    index_batch_meta(b, &meta);
}

static void write_prepare(struct store *s)
{
    struct index_batch *b = index_batch_new();
    size_t at = 0;
    const struct id_map_slot *slot;
    while ((slot = id_map_next(&s->recent, &at)) != NULL) {
        const struct recent *r = (const struct recent *)(uintptr_t)slot->value;
        if (r->entry.segment != 0)
            index_batch_put(b, &r->id, &r->entry);
        else
            index_batch_delete(b, &r->id);
    }
    while (s->dirty != NULL) {
        struct store_segment *seg = s->dirty;
        s->dirty = seg->dirty_next;
        seg->dirty = false;
        index_batch_stat(b, seg->number, &seg->stat);
    }
    for (size_t i = 0; i < s->gone_count; i++)
        index_batch_stat_delete(b, s->gone[i]);
    s->gone_count = 0;
    if (!s->recovering)
        batch_meta(s, b);
    s->lane.job_batch = b;
    s->lane.job_change = s->change;
    s->lane.job_settles = s->lane.settles;
    s->lane.settles = NULL;
    s->lane.job_flush = false;
    for (const struct settle *settle = s->lane.job_settles; settle != NULL; settle = settle->next)
        s->lane.job_flush = s->lane.job_flush || settle->flush;
    s->lane.job_flush_start = s->unflushed_bytes >= STORE_UNFLUSHED_BYTES_MAX;
    if (s->lane.job_flush || s->lane.job_flush_start)
        s->unflushed_bytes = 0;
    s->lane.write_wanted = false;
}

int index_write_now(struct store *s, bool flush)
{
    ASSERT(s->lane.running == LANE_IDLE);
    write_prepare(s);
    int rc = index_write(s->index, s->lane.job_batch);
    index_batch_free(s->lane.job_batch);
    s->lane.job_batch = NULL;
    if (rc == 0)
        recent_drop(s, s->lane.job_change);
    if (rc == 0 && flush)
        rc = index_flush(s->index, true);
    return rc;
}

static void lookup_prepare(struct store *s)
{
    s->lane.job_lookups = s->lane.lookups;
    s->lane.lookups = NULL;
    s->lane.lookups_last = &s->lane.lookups;
}

static void scan_prepare(struct store *s)
{
    s->lane.job_scan = s->lane.scans;
    s->lane.scans = s->lane.job_scan->next;
    if (s->lane.scans == NULL)
        s->lane.scans_last = &s->lane.scans;
}

static bool lane_waits(const struct store *s, enum lane_kind kind)
{
    switch (kind) {
    case LANE_LOOKUP:
        return s->lane.lookups != NULL;
    case LANE_WRITE:
        return s->lane.write_wanted;
    case LANE_SCAN:
        return s->lane.scans != NULL;
    case LANE_IDLE:
        break;
    }
    return false;
}

/* Starts the next kind of work in turn, so that none starves. */
static void lane_kick(struct store *s)
{
    static const struct {
        void (*prepare)(struct store *s);
        void (*work)(struct pool_job *job);
    } kinds[] = {
        [LANE_LOOKUP] = {lookup_prepare, lookup_work},
        [LANE_WRITE] = {write_prepare, write_work},
        [LANE_SCAN] = {scan_prepare, scan_work},
    };
    if (s->lane.running != LANE_IDLE)
        return;
    for (unsigned i = 0; i < 3; i++) {
        enum lane_kind kind = (enum lane_kind)(1 + ((unsigned)s->lane.last + i) % 3);
        if (!lane_waits(s, kind))
            continue;
        kinds[kind].prepare(s);
        s->lane.running = kind;
        s->lane.job.work = kinds[kind].work;
        s->lane.job.done = lane_done;
        pool_submit(s->pool, s->loop, &s->lane.job);
        return;
    }
}

static void index_timer_fire(struct loop_timer *t)
{
    struct store *s = CONTAINER_OF(t, struct store, index_timer);
    s->index_timer_on = false;
    s->lane.write_wanted = true;
    lane_kick(s);
}

void lane_init(struct store *s)
{
    s->lane.lookups_last = &s->lane.lookups;
    s->lane.scans_last = &s->lane.scans;
    s->index_timer.fire = index_timer_fire;
}

void recent_free(struct store *s)
{
    recent_drop(s, UINT64_MAX);
    id_map_deinit(&s->recent);
}
