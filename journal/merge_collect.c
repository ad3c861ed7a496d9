/* Causal stability: what no operation can refer to any more goes. Candidates are queued with the
 * clock at which they died (keys z) and looked at again when that is stable. What has to stay then
 * is queued behind the stable point, so that the next look does not begin with it again. */
#include "journal/merge_int.h"

enum {
    STABLE_KEY_BYTES = 1 + 8 + 16
};

static void stable_key(uint8_t out[STABLE_KEY_BYTES], uint64_t hlc, struct oid oid)
{
    out[0] = KEY_STABLE;
    for (int i = 8; i >= 1; i--, hlc >>= 8)
        out[i] = (uint8_t)hlc;
    memcpy(out + 9, oid.b, sizeof oid.b);
}

static void queue_put(struct merge *m, struct oid oid, uint64_t hlc)
{
    uint8_t key[STABLE_KEY_BYTES];
    stable_key(key, hlc, oid);
    work_put(m, slice_of(key, sizeof key), slice_of(NULL, 0));
    m->collect_from = MIN(m->collect_from, hlc);
}

void collect_queue(struct merge *m, struct oid oid, uint64_t hlc)
{
    queue_put(m, oid, hlc);
    m->collect_goal = MAX(m->collect_goal, hlc);
}

/* After opening: is anything queued? The highest clock there is serves for all of it. */
void collect_load(struct merge *m)
{
    uint8_t type = KEY_STABLE;
    struct state_scan it;
    state_scan_begin(m->state, &it, slice_of(&type, 1), slice_of(NULL, 0));
    if (state_scan_next(&it) || fold_steps(m) > 0)
        m->collect_goal = m->hlc_max;
    state_scan_end(&it);
}

uint64_t merge_collect_goal(const struct merge *m)
{
    return m->collect_goal;
}

bool merge_collect_due(const struct merge *m, uint64_t stable_hlc)
{
    return m->collect_from <= stable_hlc || m->collect_again || fold_due(m, stable_hlc);
}

void merge_collect_again(struct merge *m)
{
    m->collect_again = m->collect_held > 0;
}

struct collect {
    struct merge *m;
    uint64_t stable_hlc;
    bool (*pinned)(void *ctx, struct oid oid);
    void *ctx;
};

static bool is_pinned(const struct collect *c, struct oid oid)
{
    return c->pinned != NULL && c->pinned(c->ctx, oid);
}

static void drop_xattrs(struct merge *m, struct oid oid)
{
    struct state_scan it;
    state_scan_begin(m->state, &it, key_oid(m, KEY_XATTR, oid), slice_of(NULL, 0));
    while (state_scan_next(&it))
        work_del(m, it.key);
    state_scan_end(&it);
}

enum verdict {
    COLLECT_DONE,  /* dropped, or alive again */
    COLLECT_STAYS, /* owed or pinned: nobody knows how long */
    COLLECT_LATER  /* changed after it died: at *ret_hlc */
};

/* Versions that a deleter knew stay while their file lives on by another one: should that one be
 * deleted, too, at the same time as somebody links the file, all of them count again (rule 3), and
 * a site that had dropped them would differ. They go with the file. */
static enum verdict collect_file(const struct collect *c, struct oid oid, uint64_t *ret_hlc)
{
    struct file_rec *f = work_file(c->m, oid);
    if (!f->known)
        return COLLECT_DONE;
    *ret_hlc = f->ctime.stamp.hlc;
    if (f->ctime.stamp.hlc > c->stable_hlc)
        return COLLECT_LATER;
    if (f->owed || is_pinned(c, oid))
        return COLLECT_STAYS;
    if (file_is_dead(f)) {
        work_del(c->m, key_oid(c->m, KEY_FILE, oid));
        drop_xattrs(c->m, oid);
        return COLLECT_DONE;
    }
    f->queued = false;
    f->dirty = true;
    return COLLECT_DONE;
}

static enum verdict collect_dir(const struct collect *c, struct oid oid, uint64_t *ret_hlc)
{
    struct merge *m = c->m;
    struct placed *p = work_placed(m, oid);
    if (p->known && !p->here)
        work_del(m, key_oid(m, KEY_PLACED, oid));
    if (oid_shard(oid) != m->shard)
        return COLLECT_DONE;
    struct dir_rec *d = work_dir(m, oid);
    if (!d->known)
        return COLLECT_DONE;
    /* The last move out of it must be stable as well: were it undone, its directory would be here
     * again. */
    *ret_hlc = MAX(d->ctime.stamp.hlc, d->index_hlc);
    if (*ret_hlc > c->stable_hlc)
        return COLLECT_LATER;
    if (merge_owes(m) || is_pinned(c, oid))
        return COLLECT_STAYS;
    if (d->has_birth && !dir_alive(d) && d->entries == 0) {
        work_del(m, key_oid(m, KEY_DIR, oid));
        drop_xattrs(m, oid);
        return COLLECT_DONE;
    }
    d->queued = false;
    d->dirty = true;
    return COLLECT_DONE;
}

static uint64_t queue_hlc(struct slice key)
{
    uint64_t hlc = 0;
    for (int i = 1; i <= 8; i++)
        hlc = hlc << 8 | ((const uint8_t *)key.ptr)[i];
    return hlc;
}

/* Copies up to `budget` queue keys at or below `to`. They go from the queue after that, and the
 * next look begins behind them: in the store, deleted keys cost as much as others. */
static struct slice *
collect_keys(struct merge *m, struct op_arena *a, uint64_t to, uint32_t budget, uint32_t *ret_count)
{
    uint8_t type = KEY_STABLE;
    uint8_t start[STABLE_KEY_BYTES], end[STABLE_KEY_BYTES];
    struct oid first = {.b = {0}};
    struct oid last = {.b = {0}};
    struct slice *keys = NULL;
    uint32_t count = 0;
    uint32_t cap = 0;
    struct state_scan it;
    memset(last.b, 0xff, sizeof last.b);
    stable_key(start, m->collect_from, first);
    stable_key(end, to, last);
    state_scan_begin(m->state, &it, slice_of(&type, 1), slice_of(start, sizeof start));
    while (count < budget && state_scan_next(&it)) {
        if (it.key.len != sizeof end || slice_cmp(it.key, slice_of(end, sizeof end)) > 0)
            break;
        keys = array_grow(a, keys, count, &cap, sizeof *keys);
        keys[count++] = op_dup(a, it.key);
    }
    state_scan_end(&it);
    if (count == budget && budget > 0) {
        m->collect_from = queue_hlc(keys[count - 1]);
    } else if (budget > 0) {
        m->collect_from = MAX(m->collect_from, to + 1);
        m->collect_again = false;
    }
    *ret_count = count;
    return keys;
}

uint32_t merge_collect(struct merge *m,
                       uint64_t stable_hlc,
                       uint32_t budget,
                       bool (*pinned)(void *ctx, struct oid oid),
                       void *ctx)
{
    struct collect c = {.m = m, .stable_hlc = stable_hlc, .pinned = pinned, .ctx = ctx};
    struct op_arena arena = {.head = NULL};
    uint32_t dropped = 0;
    uint32_t count = 0;
    /* A key only says when it is worth a look; whether something may go says its record. */
    uint64_t to = m->collect_again ? MAX(stable_hlc, m->collect_held) : stable_hlc;
    if (work_health(m) != 0)
        return 0;
    work_begin(m);
    if (m->shard == 0)
        dropped += fold_collect(m, stable_hlc, budget);
    struct slice *keys = collect_keys(m, &arena, to, budget - dropped, &count);
    for (uint32_t i = 0; i < count; i++) {
        struct oid oid;
        memcpy(oid.b, keys[i].ptr + 9, sizeof oid.b);
        uint64_t hlc = 0;
        enum verdict v = oid_is_dir(oid) ? collect_dir(&c, oid, &hlc) : collect_file(&c, oid, &hlc);
        work_del(m, keys[i]);
        switch (v) {
        case COLLECT_DONE:
            dropped++;
            break;
        case COLLECT_STAYS: /* when the stable point has moved, or merge_collect_again */
            queue_put(m, oid, to + 1);
            m->collect_held = to + 1;
            break;
        case COLLECT_LATER: /* a directory waits for a stable point that others ask for */
            if (oid_is_dir(oid))
                queue_put(m, oid, hlc);
            else
                collect_queue(m, oid, hlc);
            break;
        }
    }
    op_arena_deinit(&arena);
    return work_finish(m) == 0 ? dropped : 0;
}

int merge_contents(struct merge *m,
                   struct buf *cursor,
                   uint32_t budget,
                   bool (*fn)(void *ctx, struct oid oid, const struct content *c),
                   void *ctx)
{
    uint8_t type = KEY_FILE;
    struct state_scan it;
    bool more = true;
    bool end = false;
    int rc = work_health(m);
    if (rc != 0)
        return rc;
    state_scan_begin(m->state, &it, slice_of(&type, 1), buf_slice(cursor));
    while (more && rc == 0 && budget > 0) {
        end = !state_scan_next(&it);
        if (end)
            break;
        if (slice_equal(it.key, buf_slice(cursor)))
            continue;
        struct file_rec f = {.known = false};
        work_begin(m);
        memcpy(f.oid.b, it.key.ptr + 1, MIN(it.key.len - 1, sizeof f.oid.b));
        buf_clear(cursor);
        buf_append(cursor, it.key.ptr, it.key.len);
        rc = file_decode(it.value, &m->work.arena, &f);
        for (uint32_t i = 0; more && rc == 0 && i < f.ver_count; i++)
            more = fn(ctx, f.oid, &f.vers[i].content);
        budget--;
    }
    state_scan_end(&it);
    if (end)
        buf_clear(cursor);
    return rc != 0 ? rc : work_health(m);
}
