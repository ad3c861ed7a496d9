/* What walks the index: the sweep of garbage collection, and the scrub. */
#include "base/assert.h"
#include "data/store_int.h"

static struct scan *scan_new(struct store *s, void (*done)(struct scan *scan, int rc))
{
    struct scan *scan = mem_calloc(1, sizeof *scan);
    scan->store = s;
    scan->done = done;
    return scan;
}

/* ---- sweep ---- */

static bool sweep_wants(struct scan *scan, const struct chunk_id *id, const struct store_entry *e)
{
    const struct store_sweep *sweep = scan->store->sweep;
    if (sweep->keep(sweep->ctx, id))
        return false;
    if (e->epoch < sweep->before)
        return true;
    scan->young_chunks++;
    scan->young_bytes += record_bytes(e->len);
    return false;
}

static void sweep_finish(struct store *s, int rc)
{
    struct store_sweep *sweep = s->sweep;
    mem_free(s->sweep_scan);
    s->sweep_scan = NULL;
    s->sweep = NULL;
    sweep->done(sweep, rc);
    /* The caller of this runs close_kick. */
}

static void sweep_settled(struct settle *settle, int rc)
{
    sweep_finish(CONTAINER_OF(settle, struct store, sweep_settle), rc);
}

/* The entry was read a moment ago: what holds now? */
static void sweep_one(struct store *s, const struct scanned *found)
{
    static const struct store_entry none;
    struct store_sweep *sweep = s->sweep;
    struct store_entry now;
    if (id_map_get(&s->inflight, &found->id) != NULL)
        return; /* being put again */
    int rc = lookup_now(s, &found->id, &now);
    if (rc == ERR_AGAIN)
        now = found->entry; /* `recent` does not know it: unchanged since the scan (D6) */
    else if (rc != 0)
        return;
    if (now.segment == 0 || now.epoch >= sweep->before)
        return;
    entry_change(s, &found->id, &now, &none);
    sweep->chunks++;
    sweep->bytes += record_bytes(now.len);
}

static void sweep_scanned(struct scan *scan, int rc)
{
    struct store *s = scan->store;
    for (uint32_t i = 0; rc == 0 && i < scan->count; i++)
        sweep_one(s, &scan->at[i]);
    s->sweep->young_chunks = scan->young_chunks; /* of all scans so far */
    s->sweep->young_bytes = scan->young_bytes;
    if (rc != 0 || s->closing) {
        sweep_finish(s, rc != 0 ? rc : ERR_CLOSED);
    } else if (scan->end) {
        s->sweep_settle = (struct settle){.done = sweep_settled};
        settle_submit(s, &s->sweep_settle);
    } else {
        scan_submit(s, scan);
    }
}

/* What was put up to now is in the index: all of it is looked at. */
static void sweep_begin(struct settle *settle, int rc)
{
    struct store *s = CONTAINER_OF(settle, struct store, sweep_settle);
    if (rc != 0)
        sweep_finish(s, rc);
    else
        scan_submit(s, s->sweep_scan);
}

int store_sweep(struct store *s, struct store_sweep *sweep)
{
    ASSERT(loop_here(s->loop));
    if (s->closing)
        return ERR_CLOSED;
    if (s->sweep != NULL)
        return ERR_BUSY;
    sweep->store = s;
    sweep->chunks = sweep->bytes = sweep->young_chunks = sweep->young_bytes = 0;
    s->sweep = sweep;
    s->sweep_scan = scan_new(s, sweep_scanned);
    s->sweep_scan->want = sweep_wants;
    s->sweep_settle = (struct settle){.done = sweep_begin};
    settle_submit(s, &s->sweep_settle);
    return 0;
}

/* ---- scrub ---- */

static void scrub_next(struct store *s);

static void scrub_finish(struct store *s, int rc)
{
    struct store_scrub *scrub = s->scrub;
    mem_free(s->scrub_scan);
    s->scrub_scan = NULL;
    s->scrub = NULL;
    s->scrubbed_bytes += scrub->bytes;
    scrub->done(scrub, rc);
    close_kick(s);
}

static void scrub_got(struct store_get *get, int rc, struct chunk_buf *data)
{
    struct store *s = get->store;
    struct store_scrub *scrub = s->scrub;
    (void)data;
    s->scrub_after = get->id;
    s->scrub_idx++;
    if (rc == ERR_CORRUPT)
        scrub->damaged++;
    if (rc == 0 || rc == ERR_CORRUPT) {
        scrub->chunks++;
        scrub->bytes += record_bytes(get->lookup.entry.len);
        rc = 0;
    }
    if (rc != 0 && rc != ERR_NOT_FOUND)
        scrub_finish(s, rc);
    else if (s->closing)
        scrub_finish(s, ERR_CLOSED);
    else if (scrub->bytes >= scrub->budget_bytes)
        scrub_finish(s, 0);
    else
        scrub_next(s);
}

static void scrub_scanned(struct scan *scan, int rc)
{
    struct store *s = scan->store;
    s->scrub_idx = 0;
    if (rc != 0 || s->closing)
        scrub_finish(s, rc != 0 ? rc : ERR_CLOSED);
    else
        scrub_next(s);
}

static void scrub_next(struct store *s)
{
    struct scan *scan = s->scrub_scan;
    if (s->scrub_idx < scan->count) {
        s->scrub_get = (struct store_get){.id = scan->at[s->scrub_idx].id, .done = scrub_got};
        get_submit(s, &s->scrub_get);
    } else if (scan->end) {
        s->scrub->wrapped = true;
        s->scrub_after = CHUNK_ID_HOLE;
        scrub_finish(s, 0);
    } else {
        scan_submit(s, scan);
    }
}

static void scrub_begin(struct settle *settle, int rc)
{
    struct store *s = CONTAINER_OF(settle, struct store, scrub_settle);
    if (rc != 0)
        scrub_finish(s, rc);
    else
        scan_submit(s, s->scrub_scan);
}

int store_scrub(struct store *s, struct store_scrub *scrub)
{
    ASSERT(loop_here(s->loop));
    if (s->closing)
        return ERR_CLOSED;
    if (s->scrub != NULL)
        return ERR_BUSY;
    scrub->store = s;
    scrub->chunks = 0;
    scrub->bytes = 0;
    scrub->damaged = 0;
    scrub->wrapped = false;
    s->scrub = scrub;
    s->scrub_scan = scan_new(s, scrub_scanned);
    s->scrub_scan->after = s->scrub_after;
    s->scrub_settle = (struct settle){.done = scrub_begin};
    settle_submit(s, &s->scrub_settle);
    return 0;
}
