/* Upkeep of the chunk store: garbage passes (data/gc.h), compaction, and scrubbing with repair from
 * peers.
 *
 * All of it is a few small state machines on the loop; each does a bounded step and continues when
 * the store or a peer has answered. Manifest nodes come from the local store, else from a peer. */
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/plant.h"
#include "journal/merge_past.h"
#include "site/gc_last.h"
#include "site/node_int.h"
#include "site/settings.h"

#define NODE_CACHE_BYTES (32u * MIB)
#define SCRUB_STEP_BYTES (8u * MIB)
#define SCRUB_EVERY_TICKS 4u
#define MARK_BATCH 256u

struct fetch_one {
    void (*done)(struct fetch_one *f, int rc, struct buf *sealed);
    void *owner;
    struct upkeep *u;
    struct chunk_id id;
};
#define LIVE_PERCENT 50u       /* a segment with less is written anew */
#define LIVE_PERCENT_ASKED 90u /* when an operator waits for the room */
#define START_REST_NS (60u * NS_PER_SEC)

enum gc_phase {
    GC_IDLE,
    GC_MARK,
    GC_SWEEP,
    GC_COMPACT
};
struct upkeep {
    struct node *n;
    struct pipeline *pipeline;
    struct node_cache *cache;
    struct gc *gc;
    uint64_t opened_ns;
    bool early;           /* after a crash: a pass as soon as the mounts have said what they have */
    struct gc_pass *pass; /* somebody waits for this one, or NULL */
    enum gc_phase phase;
    unsigned shard; /* twice round: what is there now, past versions */
    struct buf cursor;
    struct manifest *marks;
    uint32_t mark_count, mark_at, mark_cap;
    struct gc_cursor mark_cursor;
    struct chunk_ids missing;
    struct oid *referred; /* contents that became referred to while the pass marks */
    uint32_t referred_count, referred_cap;
    bool marking;        /* an answer is awaited */
    bool mark_past;      /* the marks are of past versions */
    uint64_t past_bytes; /* that nothing else needs, as far as this pass has seen */
    struct store_sweep sweep;
    struct store_compact compact;
    struct store_scrub scrub;
    bool compacting, scrubbing; /* the store is at it */
    struct loop_defer step;
};

/* ---- one chunk, from here or from elsewhere ---- */

static void mark_got(struct fetch_one *one, int rc, struct buf *sealed);

static void fetch_got(void *ctx, int rc, struct buf *sealed)
{
    struct fetch_one *f = ctx;
    f->done(f, rc, sealed);
    mem_free(f);
}

static void fetch_got_local(void *ctx, int rc, struct buf *sealed)
{
    struct fetch_one *f = ctx;
    if (rc == ERR_NOT_FOUND || rc == ERR_CORRUPT) {
        if (f->done == mark_got) /* it needs no room: a pass makes some */
            node_chunk_fetch(f->u->n, f->id.b, fetch_got, f);
        else
            node_chunk_bring(f->u->n, f->id.b, fetch_got, f);
        return;
    }
    fetch_got(f, rc, sealed);
}

static void fetch_one(struct upkeep *u,
                      const struct chunk_id *id,
                      void *owner,
                      void (*done)(struct fetch_one *f, int rc, struct buf *sealed))
{
    struct fetch_one *f = mem_calloc(1, sizeof *f);
    f->u = u;
    f->id = *id;
    f->owner = owner;
    f->done = done;
    node_chunk_get_local(u->n, id->b, fetch_got_local, f);
}

static int keep_node(struct upkeep *u, const struct chunk_id *id, struct buf *sealed)
{
    struct buf plain = {0};
    int rc = chunk_open(u->pipeline, id, buf_slice(sealed), &plain);
    if (rc == 0)
        rc = node_cache_put(u->cache, id, buf_slice(&plain));
    buf_deinit(&plain);
    return rc;
}

/* ---- garbage ---- */

static void gc_step(struct upkeep *u);

/* rc: it could not be carried out to its end. */
static void pass_end(struct upkeep *u, int rc, const char *why)
{
    struct gc_pass *p = u->pass;
    u->pass = NULL;
    u->phase = GC_IDLE;
    if (p == NULL)
        return;
    p->chunks = u->sweep.chunks;
    p->bytes = u->sweep.bytes;
    p->young_chunks = u->sweep.young_chunks;
    p->young_bytes = u->sweep.young_bytes;
    p->done(p, rc, why);
}

static void pass_cancel(struct upkeep *u, int rc, const char *why)
{
    gc_cancel(u->gc);
    pass_end(u, rc, why);
}

static void compact_done(struct store_compact *c, int rc)
{
    struct upkeep *u = CONTAINER_OF(c, struct upkeep, compact);
    u->compacting = false;
    if (rc != 0)
        log_warn(LOG_DATA, "compaction_failed", "why=\"%s\"", err_text(rc));
    if (rc != 0 || c->nothing)
        pass_end(u, rc, "the store could not be made smaller");
    else
        gc_step(u);
}

static void sweep_done(struct store_sweep *s, int rc)
{
    struct upkeep *u = CONTAINER_OF(s, struct upkeep, sweep);
    gc_end(u->gc);
    log_info(LOG_DATA, "garbage_collected", "chunks=%llu bytes=%llu rc=%s",
             (unsigned long long)s->chunks, (unsigned long long)s->bytes, err_name(rc));
    if (rc != 0 && u->pass != NULL) {
        pass_end(u, rc, "the index of the chunks cannot be read or written: see claudefs fsck");
        return;
    }
    u->phase = GC_COMPACT;
    gc_step(u);
}

static bool mark_content(void *ctx, struct oid oid, const struct content *c)
{
    struct upkeep *u = ctx;
    (void)oid;
    if (c->kind != CONTENT_MANIFEST)
        return true;
    if (u->mark_count == u->mark_cap) {
        u->mark_cap = MAX(u->mark_cap * 2, MARK_BATCH);
        u->marks = mem_realloc(u->marks, u->mark_cap * sizeof u->marks[0]);
    }
    struct manifest *m = &u->marks[u->mark_count];
    m->root = chunk_id_of(c->root);
    m->size = c->size;
    m->block_bytes = c->block_bytes;
    if (!chunk_id_is_hole(&m->root) && manifest_validate(m) == 0)
        u->mark_count++;
    return u->mark_count < MARK_BATCH;
}

/* Orphans are ours alone: open and unlinked. */
static void mark_orphans(struct upkeep *u)
{
    struct oid oids[MARK_BATCH];
    uint32_t count = 0;
    do { /* all at once: the cursor of the shard is behind it */
        struct oid last = count > 0 ? oids[count - 1] : (struct oid){0};
        count = node_open_orphans(u->n, (shard_id_t)u->shard, count > 0 ? &last : NULL, oids,
                                  MARK_BATCH);
        for (uint32_t i = 0; i < count; i++) {
            struct content c;
            struct dot version;
            int64_t mtime;
            if (content_get(u->n, oids[i], &c, &version, &mtime) == 0)
                mark_content(u, oids[i], &c);
        }
    } while (count == MARK_BATCH);
}

static void mark_referred(struct upkeep *u)
{
    for (uint32_t i = 0; i < u->referred_count; i++) {
        struct content c;
        struct dot version;
        int64_t mtime;
        if (content_get(u->n, u->referred[i], &c, &version, &mtime) == 0)
            mark_content(u, u->referred[i], &c);
    }
    u->referred_count = 0;
}

/* What is there now, in all shards, then past versions, so that it shows what these need. */
static bool load_marks(struct upkeep *u)
{
    unsigned shards = PLANTED(29) ? 1 : u->n->settings.shard_count;
    u->mark_count = u->mark_at = 0;
    memset(&u->mark_cursor, 0, sizeof u->mark_cursor);
    mark_referred(u);
    while (u->mark_count == 0 && u->shard < 2 * shards) {
        struct merge *m = shard_merge(u->n->shards[u->shard % shards]);
        u->mark_past = u->shard >= shards;
        int rc = u->mark_past ? merge_past_contents(m, &u->cursor, MARK_BATCH, mark_content, u)
                              : merge_contents(m, &u->cursor, MARK_BATCH, mark_content, u);
        if (rc != 0)
            return false;
        if (u->cursor.len == 0) {
            if (!u->mark_past)
                mark_orphans(u);
            u->shard++;
        }
    }
    return true;
}

/* The manifest is done with, or cannot be followed. */
static void mark_next(struct upkeep *u)
{
    u->mark_at++;
    memset(&u->mark_cursor, 0, sizeof u->mark_cursor);
    node_cache_trim(u->cache, NODE_CACHE_BYTES);
}

static void mark_got(struct fetch_one *one, int rc, struct buf *sealed)
{
    struct upkeep *u = one->owner;
    if (rc == 0)
        rc = keep_node(u, &one->id, sealed);
    u->marking = false;
    char id[CHUNK_ID_TEXT_LEN + 1];
    chunk_id_to_text(&one->id, id);
    if (rc == ERR_NOT_FOUND && (u->mark_past || u->n->fetch != NULL)) {
        /* All members were asked: this content cannot be read any more, here or elsewhere (its site
         * was lost before anybody had it). Waiting for it would end garbage collection for ever. */
        if (!u->mark_past)
            log_warn(LOG_DATA, "content_lost", "chunk=%s why=\"no site has it\"", id);
        mark_next(u);
        rc = 0;
    }
    if (rc != 0) { /* not all can be walked now: nothing may be swept */
        log_info(LOG_DATA, "garbage_pass_cancelled", "chunk=%s why=\"%s\"", id, err_text(rc));
        pass_cancel(u, rc, "what a file consists of is at a site that cannot be asked now");
        return;
    }
    loop_defer(u->n->loop, &u->step);
}

static void mark_step(struct upkeep *u)
{
    if (u->mark_at == u->mark_count && !load_marks(u)) {
        pass_cancel(u, ERR_IO, "the state cannot be read: see claudefs fsck");
        return;
    }
    if (u->mark_count == 0) {
        node_past_space(u->n, u->past_bytes);
        u->phase = GC_SWEEP;
        return;
    }
    uint64_t before = gc_marked_blocks(u->gc);
    const struct manifest *m = &u->marks[u->mark_at];
    int rc = gc_mark_manifest(u->gc, u->cache, m, &u->mark_cursor, &u->missing);
    if (u->mark_past)
        u->past_bytes += (gc_marked_blocks(u->gc) - before) * MIN(m->size, m->block_bytes);
    if (rc == 0) {
        mark_next(u);
    } else if (rc == ERR_AGAIN && u->missing.count > 0) {
        u->marking = true;
        fetch_one(u, &u->missing.at[0], u, mark_got);
    } else if (rc != ERR_AGAIN) {
        log_warn(LOG_DATA, "garbage_pass_cancelled", "why=\"%s\"", err_text(rc));
        pass_cancel(u, rc, "what a file consists of cannot be read: see claudefs fsck");
    }
}

static bool gc_keep(void *ctx, const struct chunk_id *id)
{
    return gc_keeps(ctx, id) || PLANTED(70);
}

static void sweep_step(struct upkeep *u)
{
    u->sweep = (struct store_sweep){
        .before = gc_sweep_before(u->gc), .keep = gc_keep, .ctx = u->gc, .done = sweep_done};
    /* Also when nothing is old enough: who waits is told what stays. */
    bool looks = u->sweep.before > 0 || u->pass != NULL;
    int rc = looks ? store_sweep(u->n->store, &u->sweep) : 0;
    if (!looks || rc != 0) {
        gc_end(u->gc);
        pass_end(u, rc, "the store is busy");
    }
}

static void compact_step(struct upkeep *u)
{
    u->compact = (struct store_compact){
        .live_percent = u->pass != NULL && u->pass->asked ? LIVE_PERCENT_ASKED : LIVE_PERCENT,
        .done = compact_done};
    int rc = store_compact(u->n->store, &u->compact);
    u->compacting = rc == 0;
    if (rc != 0)
        pass_end(u, rc, "the store is busy");
}

static void gc_step(struct upkeep *u)
{
    if (u->n->stopping)
        return;
    if (u->phase == GC_MARK && !u->marking) {
        for (int i = 0; i < 64 && u->phase == GC_MARK && !u->marking; i++)
            mark_step(u);
        if (u->phase == GC_MARK && !u->marking)
            loop_defer(u->n->loop, &u->step);
        if (u->phase == GC_SWEEP)
            sweep_step(u);
    } else if (u->phase == GC_COMPACT && !u->compacting) {
        compact_step(u);
    }
}

static void upkeep_step(struct loop_defer *d)
{
    struct upkeep *u = CONTAINER_OF(d, struct upkeep, step);
    gc_step(u);
}

/* ---- scrubbing ---- */

static void repaired(struct fetch_one *one, int rc, struct buf *sealed)
{
    char id[CHUNK_ID_TEXT_LEN + 1];
    (void)sealed;
    chunk_id_to_text(&one->id, id);
    log_warn(LOG_DATA, "damaged_chunk", "id=%s repaired_from_peer=%s why=\"%s\"", id,
             rc == 0 ? "yes" : "no", err_text(rc));
    if (rc != 0 && rc != ERR_CLOSED)
        node_bring_again(one->u->n); /* if it is wanted here it is asked for again */
}

void node_chunk_damaged(void *ctx, const struct chunk_id *id)
{
    struct node *n = ctx;
    if (n->upkeep != NULL && !n->stopping)
        fetch_one(n->upkeep, id, n, repaired);
}

static void scrub_done(struct store_scrub *s, int rc)
{
    struct upkeep *u = CONTAINER_OF(s, struct upkeep, scrub);
    u->scrubbing = false;
    if (rc != 0)
        log_warn(LOG_DATA, "scrub_failed", "why=\"%s\"", err_text(rc));
}

/* regular: not before its time. */
static bool pass_begin(struct upkeep *u, bool regular)
{
    struct node *n = u->n;
    struct store_stats st;
    uint64_t now = loop_now_ns(n->loop), epoch = store_epoch(n->store) + 1;
    store_stats(n->store, &st);
    /* What the site brings back with it is referred to by a list only. */
    if (u->phase != GC_IDLE || n->needs_snapshot || n->returning != NULL)
        return false;
    int rc = regular ? gc_begin(u->gc, epoch, st.chunks, now, n->garbage_ns)
                     : gc_begin_extra(u->gc, epoch, st.chunks, now, n->garbage_ns);
    if (rc != 0)
        return false;
    (void)store_epoch_advance(n->store); /* to the value that gc_begin was given */
    u->phase = GC_MARK;
    u->shard = 0;
    u->past_bytes = 0;
    u->sweep = (struct store_sweep){.before = 0};
    buf_clear(&u->cursor);
    u->mark_count = u->mark_at = u->referred_count = 0;
    loop_defer(n->loop, &u->step);
    return true;
}

int node_gc_pass(struct node *n, struct gc_pass *p, uint64_t settled)
{
    struct upkeep *u = n->upkeep;
    if (u == NULL || !pass_begin(u, false))
        return ERR_BUSY;
    gc_settled(u->gc, settled);
    u->pass = p;
    return 0;
}

const char *node_gc_phase(const struct node *n)
{
    static const char *const names[] = {[GC_IDLE] = "idle",
                                        [GC_MARK] = "looking",
                                        [GC_SWEEP] = "deleting",
                                        [GC_COMPACT] = "moving"};
    return names[n->upkeep == NULL ? GC_IDLE : n->upkeep->phase];
}

void node_gc_tick(struct node *n)
{
    struct upkeep *u = n->upkeep;
    struct store_stats st;
    if (u == NULL || n->needs_snapshot)
        return;
    /* Mounts wait for a site that has just started. */
    if (loop_now_ns(n->loop) - u->opened_ns >= MIN(2 * n->garbage_ns, START_REST_NS)) {
        if (u->early)
            node_garbage_early(n);
        u->early = false;
        (void)pass_begin(u, true); /* false: it is not time yet */
    }
    store_stats(n->store, &st);
    if (!u->scrubbing && st.chunks > 0 && n->tick_count % SCRUB_EVERY_TICKS == 0) {
        u->scrub = (struct store_scrub){.budget_bytes = SCRUB_STEP_BYTES, .done = scrub_done};
        u->scrubbing = store_scrub(n->store, &u->scrub) == 0;
    }
}

bool node_gc_idle(const struct node *n)
{
    return n->upkeep == NULL || n->upkeep->phase == GC_IDLE;
}

/* A content became referred to while a pass marks: its chunks may be old. The engine tells it while
 * it is at work, so it is asked later; the pass does not end before. */
void node_gc_referred(struct node *n, struct oid oid)
{
    struct upkeep *u = n->upkeep;
    if (u == NULL || u->phase != GC_MARK)
        return;
    if (u->referred_count == u->referred_cap) {
        u->referred_cap = MAX(u->referred_cap * 2, MARK_BATCH);
        u->referred = mem_realloc(u->referred, u->referred_cap * sizeof u->referred[0]);
    }
    u->referred[u->referred_count++] = oid;
}

/* ---- from run to run ---- */

/* The last pass of a run that ended in order. The file is gone before anything is put: after a
 * crash there is none, and keeps may be forgotten. False: there is none that can be used. */
static bool last_pass_take(struct upkeep *u)
{
    struct node *n = u->n;
    uint8_t bytes[GC_LAST_BYTES];
    struct err_detail d = {{0}};
    struct gc_last_pass last;
    uint64_t now = loop_now_ns(n->loop);
    if (dir_file_read(n->dir, GC_LAST_FILE, bytes, sizeof bytes, &d) != 0)
        return false;
    if (dir_file_remove(n->dir, GC_LAST_FILE) != 0 ||
        !gc_last_decode(slice_of(bytes, sizeof bytes), &last) ||
        last.epoch >= store_epoch(n->store))
        return false; /* as after a crash */
    gc_resume(u->gc, last.epoch, now - MIN(last.age_ns, now));
    return true;
}

/* After a crash the start counts as the beginning of a pass. All that was put or kept, whether that
 * is known or not, was before; a pass that begins an interval later may take it (D7). A daemon that
 * is killed before that collects all the same if its mounts help (node_garbage.c). */
static void last_pass_is_start(struct upkeep *u)
{
    struct store_stats st;
    store_stats(u->n->store, &st);
    gc_resume(u->gc, store_epoch(u->n->store), u->opened_ns);
    u->early = st.chunks > 0;
}

/* All that was put and kept is on the disk. */
static void last_pass_put(const struct upkeep *u)
{
    struct node *n = u->n;
    struct gc_last_pass last;
    struct buf b = {0};
    struct err_detail d = {{0}};
    uint64_t begun_ns;
    if (!gc_last(u->gc, &last.epoch, &begun_ns))
        return;
    last.age_ns = loop_now_ns(n->loop) - begun_ns;
    gc_last_encode(&last, &b);
    if (dir_file_write(n->dir, GC_LAST_FILE, b.ptr, b.len, &d) != 0)
        log_warn(LOG_SITE, "garbage_pass_not_noted", "why=\"%s\"", d.text);
    buf_deinit(&b);
}

int node_upkeep_open(struct node *n)
{
    struct upkeep *u = mem_calloc(1, sizeof *u);
    u->n = n;
    u->step.run = upkeep_step;
    u->opened_ns = loop_now_ns(n->loop);
    n->upkeep = u;
    int rc = pipeline_new(&u->pipeline, &n->keys, CHUNK_CIPHER_AUTO);
    if (rc == 0)
        rc = node_cache_new(&u->cache);
    if (rc == 0)
        rc = gc_new(&u->gc);
    if (rc == 0 && !last_pass_take(u))
        last_pass_is_start(u);
    return rc;
}

void node_upkeep_close(struct node *n)
{
    struct upkeep *u = n->upkeep;
    if (u == NULL)
        return;
    n->upkeep = NULL;
    if (u->gc != NULL && gc_running(u->gc))
        pass_cancel(u, ERR_CLOSED, "the daemon ends");
    if (u->gc != NULL && n->store == NULL && !n->broken) /* the store is closed, and whole */
        last_pass_put(u);
    gc_free(u->gc);
    node_cache_free(u->cache);
    pipeline_free(u->pipeline);
    chunk_ids_deinit(&u->missing);
    mem_free(u->marks);
    mem_free(u->referred);
    buf_deinit(&u->cursor);
    mem_free(u);
}
