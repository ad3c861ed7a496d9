/* A client of each site in the directory that all sites share. See trio.h.
 *
 * It looks at what its site shows and does something that fits, so calls of several sites collide
 * in every way that the conflict rules know. Nobody knows beforehand what becomes of that; but each
 * content has a number in the ledger, and the trees of all sites have to be equal in the end.
 *
 * A call that was tried is repeated with its number, as other clients do it; where it does not fit
 * any more what is there by then, it is left. */
#include "base/assert.h"
#include "sim/trio_int.h"

#define SESSION (TRIO_CLIENTS + 1u)
#define AGAIN_NS (20 * NS_PER_MS)
#define DEPTH_MAX 4u

static struct trio *site_of(struct trio_sharer *c)
{
    return CONTAINER_OF(c, struct trio, sharer);
}

/* ---- looking ---- */

struct place { /* a name in the common directory or below */
    struct oid dir;
    bool known; /* that directory, in its own shard, which may hear of it after its parent's */
    uint8_t bytes[256];
    struct slice name; /* as it shows */
    bool there;
    struct shown shown; /* its slices are gone */
    uint8_t stored_bytes[256];
    struct slice stored;
};

struct pick {
    struct place *p;
    uint64_t seen;
};

static bool pick_one(void *ctx, struct slice visible, const struct shown *s)
{
    struct pick *k = ctx;
    (void)s;
    if (trio_below(++k->seen) == 0) {
        memcpy(k->p->bytes, visible.ptr, visible.len);
        k->p->name = slice_of(k->p->bytes, visible.len);
    }
    return true;
}

static void look_up(const struct trio_eval *s, struct place *p)
{
    struct dir_view v;
    p->known = merge_dir(trio_merge_at(s, p->dir), p->dir, &v) == 0 && v.alive;
    p->there = p->known && merge_lookup(trio_merge_at(s, p->dir), p->dir, p->name, &p->shown) == 0;
    if (!p->there)
        return;
    memcpy(p->stored_bytes, p->shown.stored.ptr, p->shown.stored.len);
    p->stored = slice_of(p->stored_bytes, p->shown.stored.len);
}

static void draw_place(const struct trio_eval *s, bool there, struct place *p)
{
    p->dir = s->w->all->common;
    for (unsigned i = 0; i < DEPTH_MAX; i++) {
        struct pick k = {.p = p};
        p->name = trio_name((unsigned)trio_below(TRIO_NAMES));
        if (there &&
            merge_list(trio_merge_at(s, p->dir), p->dir, slice_of(NULL, 0), pick_one, &k) != 0)
            trio_fail(s->w, "P6", "a directory cannot be listed");
        look_up(s, p);
        if (!p->there || !oid_is_dir(p->shown.oid) || trio_below(3) == 0)
            return;
        p->dir = p->shown.oid;
    }
    look_up(s, p);
}

/* ---- building ---- */

/* Somebody who has seen this content may replace it. */
static void given_up(const struct trio_eval *s, struct oid file)
{
    struct file_view v;
    struct ledger *l = &s->w->all->ledger;
    if (merge_file(trio_merge_at(s, file), file, &v) != 0)
        return;
    struct ledger_entry *e = ledger_get(l, ledger_number(l, &v.content));
    if (e != NULL)
        e->given_up = true;
}

static bool is_plain_file(const struct place *p)
{
    return p->there && !oid_is_dir(p->shown.oid) && p->shown.twin_count == 0;
}

static bool is_plain_dir(const struct place *p)
{
    return p->there && oid_is_dir(p->shown.oid) && !p->shown.derived && !p->shown.contested;
}

/* Is `dir` at or below `what`, or is that not known? */
static bool is_within(const struct trio_eval *s, struct oid dir, struct oid what)
{
    struct dir_view v;
    for (unsigned i = 0; i < 100 && !oid_equal(dir, what); i++) {
        if (oid_is_root(dir))
            return false;
        if (merge_dir(trio_merge_at(s, dir), dir, &v) != 0)
            return true;
        dir = v.parent;
    }
    return true;
}

static struct slice content(const struct trio_sharer *c, uint8_t out[LEDGER_HEAD_BYTES])
{
    ledger_write(c->content, out);
    return slice_of(out, LEDGER_HEAD_BYTES);
}

static bool build_create(struct trio_sharer *c, struct trio_eval *s)
{
    struct place to;
    uint8_t bytes[LEDGER_HEAD_BYTES];
    draw_place(s, false, &to);
    if (to.there || !to.known)
        return false;
    c->home = oid_shard(to.dir);
    if (c->call == TRIO_MKDIR) {
        c->oid = trio_add_birth(s, to.dir, to.name);
        return true;
    }
    c->oid = shard_new_oid(s->shards[c->home], OID_FILE);
    trio_add_version(s, c->oid, content(c, bytes), (struct dot){0});
    trio_add_perm(s, c->oid);
    trio_add_enter(s, c->oid, to.dir, to.name);
    return true;
}

static bool build_write(struct trio_sharer *c, struct trio_eval *s)
{
    struct place at;
    struct file_view v;
    uint8_t bytes[LEDGER_HEAD_BYTES];
    draw_place(s, true, &at);
    if (!is_plain_file(&at) || merge_file(trio_merge_at(s, at.shown.oid), at.shown.oid, &v) != 0)
        return false;
    struct dot base = v.version;
    given_up(s, at.shown.oid);
    c->home = oid_shard(at.shown.oid);
    trio_add_version(s, at.shown.oid, content(c, bytes), base);
    return true;
}

static bool build_unlink(struct trio_sharer *c, struct trio_eval *s)
{
    struct place at;
    draw_place(s, true, &at);
    if (!is_plain_file(&at))
        return false;
    given_up(s, at.shown.oid);
    c->home = oid_shard(at.dir);
    return trio_add_leave(s, at.shown.oid, at.dir, at.stored, false) == 0;
}

/* A link, or a rename, also over another file. */
static bool build_rename(struct trio_sharer *c, struct trio_eval *s)
{
    struct place from, to;
    draw_place(s, true, &from);
    draw_place(s, false, &to);
    bool over = c->call == TRIO_RENAME && is_plain_file(&to) && !to.shown.derived &&
                !to.shown.contested && !oid_equal(to.shown.oid, from.shown.oid);
    if (!is_plain_file(&from) || from.shown.derived || from.shown.contested || !to.known ||
        (to.there && !over))
        return false;
    c->home = oid_shard(to.dir);
    if (c->call == TRIO_RENAME &&
        trio_add_leave(s, from.shown.oid, from.dir, from.stored, true) != 0)
        return false;
    if (over) {
        given_up(s, to.shown.oid);
        if (trio_add_leave(s, to.shown.oid, to.dir, to.stored, false) != 0)
            return false;
    }
    trio_add_enter(s, from.shown.oid, to.dir, to.name);
    return true;
}

/* The directory itself, and where it goes, have to be known where they are. */
static bool build_dir(struct trio_sharer *c, struct trio_eval *s)
{
    struct place from, to;
    draw_place(s, true, &from);
    draw_place(s, false, &to);
    if (!is_plain_dir(&from) || !trio_share_knows(s->w, from.shown.oid))
        return false;
    if (c->call == TRIO_RMDIR) {
        if (!merge_dir_empty(trio_merge_at(s, from.shown.oid), from.shown.oid))
            return false;
        c->home = oid_shard(from.dir);
        trio_add_bury(s, from.shown.oid, from.dir);
        return true;
    }
    if (to.there || !to.known || is_within(s, to.dir, from.shown.oid))
        return false;
    c->home = 0;
    return trio_add_move(s, from.shown.oid, from.dir, to.dir, to.name) == 0;
}

static bool build(struct trio_sharer *c, struct trio_eval *s)
{
    switch (c->call) {
    case TRIO_CREATE:
    case TRIO_MKDIR:
        return build_create(c, s);
    case TRIO_WRITE:
        return build_write(c, s);
    case TRIO_UNLINK:
        return build_unlink(c, s);
    case TRIO_LINK:
    case TRIO_RENAME:
        return build_rename(c, s);
    case TRIO_RMDIR:
    case TRIO_MOVE:
        return build_dir(c, s);
    case TRIO_READ:
    case TRIO_CALLS:
        break;
    }
    UNREACHABLE();
}

/* ---- a call ---- */

static void again(struct trio_sharer *c)
{
    sched_in(&c->event, AGAIN_NS / 2 + trio_below(AGAIN_NS));
}

static void rest(struct trio_sharer *c)
{
    c->phase = TRIO_IDLE;
    sched_in(&c->event, trio_below(site_of(c)->client_pause_ns / 2 + 1));
}

/* N4: all shards that it is about have applied it. */
static void check_parts(struct trio_sharer *c)
{
    struct trio *w = site_of(c);
    for (unsigned i = 0; i < w->shard_count; i++) {
        struct shard *s = shard_set_has(&c->parts, (shard_id_t)i) ? trio_leader(w, i, NULL) : NULL;
        if (s != NULL && merge_seen(shard_merge(s), c->home, w->site) < c->dot.seq)
            trio_fail(w, "P1", "call %u in common is answered, and shard %u has not applied it",
                      c->call, i);
    }
}

static void answered(struct trio_sharer *c)
{
    struct ledger_entry *e = ledger_get(&site_of(c)->all->ledger, c->content);
    sched_note("answered in common", site_of(c)->number << 8 | c->call, c->number);
    if (c->call == TRIO_CREATE || c->call == TRIO_WRITE)
        e->acked = true;
    check_parts(c);
    site_of(c)->answered++;
    rest(c);
}

static void committed(void *ctx, int rc)
{
    struct trio_sharer *c = ctx;
    struct trio_node *n = &site_of(c)->nodes[c->node];
    if (n->end.mute || n->end.start != c->start)
        return;
    ASSERT(c->phase == TRIO_PROPOSED);
    if (rc == 0) {
        answered(c);
        return;
    }
    c->phase = TRIO_EVALUATE;
    again(c);
}

static void propose(struct trio_sharer *c, struct op_builder *b, uint64_t hlc)
{
    struct trio *w = site_of(c);
    struct shard *s = trio_leader(w, c->home, &c->node);
    struct proposal p = {.session = SESSION,
                         .number = c->number,
                         .result = c->oid,
                         .committed = committed,
                         .ctx = c};
    c->start = w->nodes[c->node].end.start;
    c->phase = TRIO_PROPOSED;
    c->tried = true;
    hlc_see(&w->nodes[c->node].hlc, hlc);
    shard_results_acked(s, SESSION, c->number - 1);
    struct op op;
    int rc = shard_propose(s, b, &p, &op);
    sched_note("propose in common", (uint64_t)c->call << 8 | c->node, (uint64_t)-rc);
    if (rc == 0) {
        c->dot = op.dot;
        op_shards(&op, &c->parts);
        return;
    }
    c->phase = TRIO_EVALUATE;
    again(c);
}

struct named {
    const struct trio_eval *s;
    shard_id_t home;
};

static bool is_committed(void *ctx, struct dot d)
{
    const struct named *n = ctx;
    struct vv durable;
    if (d.shard == n->home)
        return true; /* in the same journal, before it */
    shard_durable_vv(n->s->shards[d.shard], &durable);
    return vv_get(&durable, d.site) >= d.seq;
}

/* What a call has seen of other shards must not be lost with their leaders when it is committed. In
 * one node the order of commits sees to that; here who evaluates has to wait (S6). */
static bool is_safe(const struct trio_eval *s, shard_id_t home, const struct op_builder *b)
{
    struct named n = {.s = s, .home = home};
    const struct op op = {.effects = b->effects, .effect_count = b->count};
    return op_dots_applied(&op, is_committed, &n, NULL);
}

/* A call that was tried keeps its home: that shard knows whether it was carried out. */
static void evaluate(struct trio_sharer *c)
{
    struct trio *w = site_of(c);
    struct op_builder b = {0};
    struct trio_eval s;
    struct oid oid;
    int32_t result;
    shard_id_t home = c->home;
    if (!trio_eval_begin(&s, w, &b)) {
        again(c);
        return;
    }
    if (c->tried && shard_result(s.shards[home], SESSION, c->number, &result, &oid)) {
        answered(c);
        return;
    }
    op_builder_init(&b);
    bool fits = !c->tried && build(c, &s);
    if (fits && b.count > 0 && is_safe(&s, c->home, &b))
        propose(c, &b, s.hlc);
    else
        rest(c);
    op_builder_deinit(&b);
}

static void begin(struct trio_sharer *c)
{
    static const enum trio_call often[] = {
        TRIO_CREATE, TRIO_CREATE, TRIO_WRITE, TRIO_WRITE, TRIO_LINK, TRIO_UNLINK, TRIO_RENAME,
        TRIO_RENAME, TRIO_MKDIR,  TRIO_MKDIR, TRIO_RMDIR, TRIO_MOVE, TRIO_CREATE, TRIO_WRITE};
    struct trio *w = site_of(c);
    if (w->closing)
        return;
    if (w->resting) {
        sched_in(&c->event, TRIO_REST_NS);
        return;
    }
    c->call = often[trio_below(ARRAY_COUNT(often))];
    c->number++;
    c->tried = false;
    c->oid = (struct oid){{0}};
    c->content = ledger_new(&w->all->ledger, w->number, OID_ROOT);
    c->phase = TRIO_EVALUATE;
    evaluate(c);
}

static void sharer_run(struct sched_event *e)
{
    struct trio_sharer *c = CONTAINER_OF(e, struct trio_sharer, event);
    if (c->phase == TRIO_IDLE)
        begin(c);
    else if (c->phase == TRIO_EVALUATE)
        evaluate(c);
}

void trio_share_dropped(struct trio_node *n)
{
    struct trio_sharer *c = &n->world->sharer;
    if (c->phase == TRIO_PROPOSED && c->node == n->number) {
        c->phase = TRIO_EVALUATE;
        again(c);
    }
}

bool trio_share_idle(const struct trio *w)
{
    return w->sharer.phase == TRIO_IDLE;
}

void trio_share_init(struct trio *w)
{
    struct trio_sharer *c = &w->sharer;
    c->session = SESSION;
    c->event.run = sharer_run;
    sched_in(&c->event, trio_below(NS_PER_SEC));
}

/* ---- before anything happens ---- */

bool trio_share_knows(struct trio *w, struct oid dir)
{
    struct op_builder b = {0};
    struct trio_eval s;
    struct dir_view v;
    return trio_eval_begin(&s, w, &b) && merge_dir(trio_merge_at(&s, dir), dir, &v) == 0 && v.alive;
}

static void made(void *ctx, int rc)
{
    *(int *)ctx = rc;
}

struct oid trio_share_make(struct trio *w, struct slice name)
{
    struct oid oid = {{0}};
    for (unsigned i = 0; i < 100; i++) {
        struct op_builder b = {0};
        struct trio_eval s;
        int rc = 1;
        struct proposal p = {.committed = made, .ctx = &rc};
        if (!trio_run_until(w->all, sched->now_ns + 100 * NS_PER_MS))
            return oid;
        if (!trio_eval_begin(&s, w, &b))
            continue;
        op_builder_init(&b);
        oid = trio_add_birth(&s, OID_ROOT, name);
        int proposed = shard_propose(s.shards[0], &b, &p, NULL);
        op_builder_deinit(&b);
        while (proposed == 0 && rc == 1 && trio_run_until(w->all, sched->now_ns + NS_PER_MS))
            continue;
        if (proposed == 0 && rc == 0)
            return oid;
    }
    trio_fail(w, "setup", "no directory can be made");
    return oid;
}
