/* Directory positions (rule 5): births, then all moves of all directories in stamp order, those
 * that would close a cycle skipped (Kleppmann, Mulligan, Gomes, Beresford 2021). Lives in shard 0.
 *
 * All moves above the stable point are in memory, ordered by (stamp, dot, oid). A move that arrives
 * in order costs one walk to the root; a late one undoes the moves behind it, and redoes them.
 * Directories are small integers, so that undo and redo touch only a few arrays.
 *
 * Durable are the moves (m), the births that moves carry (b), and the positions that collected
 * moves left behind (p). Current positions follow from them when the shard is opened. */
#include "journal/merge_int.h"
#include "base/plant.h"

enum {
    FOLD_ROOT = 0, /* the root's node */
    MOVE_KEY_BYTES = 1 + 12 + 14 + 16
};

struct fold_move {
    struct stamp stamp;
    struct dot dot;
    struct dot saw;    /* the move whose position the issuer saw; none: none */
    struct slice name; /* owned */
    int64_t ns;
    uint32_t node, parent;
    bool fresh; /* inserted by this call */
};
struct fold_step { /* one move in the order of the fold: what undo and redo touch */
    uint32_t node, parent;
    uint32_t prev_parent;
    bool applied; /* not skipped */
    struct fold_move *move;
    struct fold_move *prev; /* applied: what it replaced; NULL: base or birth */
};
struct fold_place { /* where a node is now; the other part that undo and redo touch */
    uint32_t parent;
    uint32_t epoch;        /* of the last call that touched it */
    struct fold_move *at;  /* the move in effect; NULL: base or birth */
    struct fold_move *was; /* before the call of `epoch` */
};
struct fold_node {
    struct oid oid;
    bool has_birth;
    bool has_base;
    bool is_target; /* some birth or move has it as parent: others may be below it */
    uint32_t birth_parent;
    uint32_t base_parent;
    struct slice birth_name; /* owned */
    struct position base;    /* its name is owned */
};
struct fold {
    struct fold_node *nodes;
    struct fold_place *places; /* by node */
    uint32_t count, cap;
    uint32_t *table; /* oid -> node + 1, open addressing */
    uint32_t mask;
    struct fold_step *steps; /* by (stamp, dot, oid) */
    uint32_t step_count, step_cap;
    uint32_t *touched; /* nodes whose position may have changed in this call */
    uint32_t touched_count, touched_cap;
    uint32_t epoch;
    bool stale; /* a birth came after moves that walked over it */
};

/* ---- nodes ---- */

static uint32_t oid_hash(struct oid o)
{
    uint64_t a;
    uint64_t b;
    memcpy(&a, o.b, 8);
    memcpy(&b, o.b + 8, 8);
    a = (a ^ b * 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;
    return (uint32_t)(a >> 32);
}

static void table_grow(struct fold *f)
{
    uint32_t size = f->table == NULL ? 1024 : (f->mask + 1) * 2;
    mem_free(f->table);
    f->table = mem_calloc(size, sizeof *f->table);
    f->mask = size - 1;
    for (uint32_t n = 0; n < f->count; n++) {
        uint32_t i = oid_hash(f->nodes[n].oid) & f->mask;
        while (f->table[i] != 0)
            i = (i + 1) & f->mask;
        f->table[i] = n + 1;
    }
}

/* The place in the table of an oid; holds 0 when it is not there. */
static uint32_t *table_find(struct fold *f, struct oid oid)
{
    uint32_t i = oid_hash(oid) & f->mask;
    while (f->table[i] != 0 && !oid_equal(f->nodes[f->table[i] - 1].oid, oid))
        i = (i + 1) & f->mask;
    return &f->table[i];
}

static uint32_t node_new(struct fold *f, struct oid oid)
{
    if (f->table == NULL || f->count * 2 > f->mask)
        table_grow(f);
    if (f->count == f->cap) {
        f->cap = f->cap == 0 ? 256 : f->cap * 2;
        f->nodes = mem_realloc(f->nodes, f->cap * sizeof *f->nodes);
        f->places = mem_realloc(f->places, f->cap * sizeof *f->places);
    }
    uint32_t n = f->count++;
    f->nodes[n] = (struct fold_node){.oid = oid};
    f->places[n] = (struct fold_place){.parent = FOLD_ROOT};
    *table_find(f, oid) = n + 1;
    return n;
}

static struct slice own(struct slice s)
{
    return slice_of(mem_dup(s.ptr, s.len), s.len);
}

static void disown(struct slice *s)
{
    union {
        const uint8_t *in;
        void *out;
    } ptr = {.in = s->ptr};
    mem_free(ptr.out);
    *s = slice_of(NULL, 0);
}

static uint32_t node_of(struct merge *m, struct oid oid);

/* Where a node is without the moves in memory. */
static uint32_t node_home(const struct fold_node *n)
{
    return n->has_base ? n->base_parent : n->birth_parent;
}

/* Births form a tree because an oid is a hash over its parent's; a peer could lie, and the walks
 * below must end all the same. */
static bool home_is_below(const struct fold *f, uint32_t parent, uint32_t n)
{
    while (parent != FOLD_ROOT && parent != n)
        parent = node_home(&f->nodes[parent]);
    return parent == n;
}

static void node_set_birth(struct merge *m, uint32_t n, const struct birth *b)
{
    struct slice name = own(b->name);
    uint32_t parent = node_of(m, b->parent);
    struct fold_node *node = &m->fold->nodes[n]; /* node_of may have moved them */
    if (home_is_below(m->fold, parent, n))
        parent = FOLD_ROOT;
    node->has_birth = true;
    node->birth_parent = parent;
    node->birth_name = name;
    m->fold->nodes[parent].is_target = true;
    if (m->fold->places[n].at == NULL)
        m->fold->places[n].parent = node_home(node);
}

static void node_load(struct merge *m, uint32_t n)
{
    struct oid oid = m->fold->nodes[n].oid;
    struct birth birth = {.oid = oid};
    struct position base;
    struct slice value;
    int rc = 0;
    if (state_get(m->state, key_oid(m, KEY_BIRTH, oid), &value)) {
        struct slice copy = own(value);
        rc = birth_decode(copy, &birth);
        if (rc == 0)
            node_set_birth(m, n, &birth);
        disown(&copy);
    }
    if (rc == 0 && state_get(m->state, key_oid(m, KEY_BASE, oid), &value)) {
        struct slice copy = own(value);
        rc = position_decode(copy, &base);
        if (rc == 0) {
            uint32_t parent = node_of(m, base.parent);
            struct fold_node *node = &m->fold->nodes[n];
            node->has_base = true;
            node->base = base;
            node->base.name = own(base.name);
            node->base_parent = parent;
            m->fold->nodes[parent].is_target = true;
            m->fold->places[n].parent = parent;
        }
        disown(&copy);
    }
    if (rc != 0 && m->rc == 0)
        m->rc = rc;
}

/* The node of an oid, read from the state when it is new in memory. A birth chain is at most
 * LIMIT_LINEAGE deep, and so is this recursion. */
static uint32_t node_of(struct merge *m, struct oid oid)
{
    struct fold *f = m->fold;
    uint32_t found = *table_find(f, oid);
    if (found != 0)
        return found - 1;
    uint32_t n = node_new(f, oid);
    node_load(m, n);
    return n;
}

static void touch(struct fold *f, uint32_t n)
{
    struct fold_place *place = &f->places[n];
    if (place->epoch == f->epoch)
        return;
    place->epoch = f->epoch;
    place->was = place->at;
    if (f->touched_count == f->touched_cap) {
        f->touched_cap = f->touched_cap == 0 ? 64 : f->touched_cap * 2;
        f->touched = mem_realloc(f->touched, f->touched_cap * sizeof *f->touched);
    }
    f->touched[f->touched_count++] = n;
}

/* ---- moves ---- */

static int move_cmp(const struct fold *f,
                    const struct fold_move *a,
                    struct stamp stamp,
                    struct dot dot,
                    struct oid oid)
{
    int order = stamp_cmp(a->stamp, stamp);
    if (order == 0)
        order = dot_cmp(a->dot, dot);
    return order != 0 ? order : oid_cmp(f->nodes[a->node].oid, oid);
}

static void step_undo(struct fold *f, const struct fold_step *s)
{
    if (!s->applied)
        return;
    touch(f, s->node);
    f->places[s->node].at = s->prev;
    f->places[s->node].parent = s->prev_parent;
}

static void step_redo(struct fold *f, struct fold_step *s)
{
    const struct fold_place *places = f->places;
    uint32_t x = s->parent;
    for (uint32_t hops = 0; x != FOLD_ROOT && x != s->node; x = places[x].parent)
        if (PLANTED(5) && hops++ > f->count) /* there is a cycle already, which is to be found */
            break;
    s->applied = PLANTED(5) || x != s->node;
    if (!s->applied)
        return;
    touch(f, s->node);
    struct fold_place *place = &f->places[s->node];
    s->prev = place->at;
    s->prev_parent = place->parent;
    place->at = s->move;
    place->parent = s->parent;
}

static struct fold_step *steps_insert(struct fold *f, uint32_t at, struct fold_move *mv)
{
    if (f->step_count == f->step_cap) {
        f->step_cap = f->step_cap == 0 ? 256 : f->step_cap * 2;
        f->steps = mem_realloc(f->steps, f->step_cap * sizeof *f->steps);
    }
    memmove(&f->steps[at + 1], &f->steps[at], (f->step_count - at) * sizeof *f->steps);
    f->steps[at] = (struct fold_step){.node = mv->node, .parent = mv->parent, .move = mv};
    f->step_count++;
    return &f->steps[at];
}

static void move_free(struct fold_move *mv)
{
    disown(&mv->name);
    mem_free(mv);
}

/* The index of the first move not below (stamp, dot, oid). */
static uint32_t steps_find(const struct fold *f, struct stamp stamp, struct dot dot, struct oid oid)
{
    uint32_t low = 0;
    uint32_t high = f->step_count;
    if (high > 0 && (PLANTED(50) || move_cmp(f, f->steps[high - 1].move, stamp, dot, oid) < 0))
        return high; /* in order: the usual case */
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (move_cmp(f, f->steps[mid].move, stamp, dot, oid) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static void undo_from(struct fold *f, uint32_t first)
{
    for (uint32_t i = f->step_count; i-- > first;)
        step_undo(f, &f->steps[i]);
}

/* ---- conflict records ---- */

static void conflict_fill(const struct fold *f,
                          struct conflict *c,
                          const struct fold_move *winner,
                          const struct fold_move *loser)
{
    c->oid = f->nodes[loser->node].oid;
    c->parent = f->nodes[loser->parent].oid;
    c->name = loser->name;
    c->loser = loser->dot.site;
    c->loser_stamp = loser->stamp;
    c->loser_dot = loser->dot;
    c->stamp = loser->stamp;
    struct buf what = {.ptr = NULL};
    enc_oid(&what, c->oid);
    enc_dot(&what, loser->dot);
    conflict_id(c, 5, buf_slice(&what));
    buf_deinit(&what);
    if (winner == NULL)
        return;
    c->other_name = winner->name;
    c->winner = winner->dot.site;
    c->winner_stamp = winner->stamp;
    c->winner_dot = winner->dot;
    if (stamp_cmp(winner->stamp, c->stamp) > 0)
        c->stamp = winner->stamp;
}

static void
conflict_report(struct merge *m, const struct fold_move *winner, const struct fold_move *loser)
{
    struct conflict c = {.rule = 5};
    conflict_fill(m->fold, &c, winner, loser);
    conflict_add(m, &c);
}

/* Reports two moves of one directory in a row that did not know of each other. */
static void report_rivals(struct merge *m, const struct fold_step *s)
{
    const struct fold_move *mv = s->move;
    const struct fold_move *prev = s->prev;
    if (prev != NULL && (mv->fresh || prev->fresh) && !dot_equal(mv->saw, prev->dot) &&
        mv->dot.site != prev->dot.site)
        conflict_report(m, mv, prev);
}

/* Redoes one move and reports what rule 5 decided anew. */
static void redo_report(struct merge *m, struct fold_step *s)
{
    bool was_applied = s->applied || s->move->fresh;
    step_redo(m->fold, s);
    if (s->applied)
        report_rivals(m, s);
    else if (was_applied)
        conflict_report(m, NULL, s->move);
}

/* ---- an operation's moves ---- */

static void births_learn(struct merge *m, const struct effect *e)
{
    for (uint32_t i = 0; i < e->lineage_count; i++) {
        const struct birth *b = &e->lineage[i];
        uint32_t n = node_of(m, b->oid);
        if (m->fold->nodes[n].has_birth)
            continue;
        buf_clear(&m->value);
        birth_encode(b, &m->value);
        work_put(m, key_oid(m, KEY_BIRTH, b->oid), buf_slice(&m->value));
        /* A directory that moves walked over without knowing where it is. */
        m->fold->stale |= m->fold->step_count > 0;
        node_set_birth(m, n, b);
    }
}

static void be_put(uint8_t *at, uint64_t v, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--, v >>= 8)
        at[i] = (uint8_t)v;
}

static uint64_t be_get(const uint8_t *at, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v = v << 8 | at[i];
    return v;
}

static struct slice move_key(struct merge *m, struct stamp stamp, struct dot dot, struct oid oid)
{
    buf_clear(&m->key);
    buf_reserve(&m->key, MOVE_KEY_BYTES);
    uint8_t *at = m->key.ptr;
    at[0] = KEY_MOVE;
    be_put(at + 1, stamp.hlc, 8);
    be_put(at + 9, stamp.site, 4);
    be_put(at + 13, dot.shard, 2);
    be_put(at + 15, dot.site, 4);
    be_put(at + 19, dot.seq, 8);
    memcpy(at + 27, oid.b, sizeof oid.b);
    m->key.len = MOVE_KEY_BYTES;
    return buf_slice(&m->key);
}

static void move_put(struct merge *m, const struct fold_move *mv)
{
    const struct fold *f = m->fold;
    m->collect_goal = MAX(m->collect_goal, mv->stamp.hlc);
    struct position p = {.parent = f->nodes[mv->parent].oid, .name = mv->name, .ns = mv->ns};
    p.stamp = mv->stamp;
    buf_clear(&m->value);
    enc_dot(&m->value, mv->saw);
    position_encode(&p, &m->value);
    work_put(m, move_key(m, mv->stamp, mv->dot, f->nodes[mv->node].oid), buf_slice(&m->value));
}

static struct fold_move *move_new(struct merge *m, const struct op *op, const struct effect *e)
{
    struct fold_move *mv = mem_calloc(1, sizeof *mv);
    mv->stamp = op->stamp;
    mv->dot = op->dot;
    mv->ns = op->time_ns;
    mv->node = node_of(m, e->oid);
    mv->parent = node_of(m, e->parent);
    mv->name = own(e->name);
    mv->fresh = true;
    if (e->dot_count > 0)
        mv->saw = e->dots[0];
    return mv;
}

/* Puts one move in its place, with the moves from `first` undone. One operation may name a
 * directory twice; the later effect counts. */
static void move_insert(struct merge *m, uint32_t first, struct fold_move *mv)
{
    struct fold *f = m->fold;
    struct oid oid = f->nodes[mv->node].oid;
    uint32_t at = steps_find(f, mv->stamp, mv->dot, oid);
    ASSERT(at >= first);
    f->nodes[mv->parent].is_target = true;
    if (at < f->step_count && move_cmp(f, f->steps[at].move, mv->stamp, mv->dot, oid) == 0) {
        move_free(f->steps[at].move);
        f->steps[at] = (struct fold_step){.node = mv->node, .parent = mv->parent, .move = mv};
    } else {
        (void)steps_insert(f, at, mv);
    }
    move_put(m, mv);
}

/* A late move of a directory that nothing was ever below: no other move's walk can meet it, so only
 * its own moves are looked at. */
static void leaf_insert(struct merge *m, uint32_t first, struct fold_move *mv)
{
    struct fold *f = m->fold;
    uint32_t later = first;
    f->nodes[mv->parent].is_target = true;
    while (later < f->step_count && !(f->steps[later].node == mv->node && f->steps[later].applied))
        later++;
    struct fold_step *s = steps_insert(f, first, mv);
    struct fold_place *place = &f->places[mv->node];
    s->applied = true;
    if (later + 1 < f->step_count) {
        struct fold_step *next = &f->steps[later + 1];
        s->prev = next->prev;
        s->prev_parent = next->prev_parent;
        next->prev = mv;
        next->prev_parent = mv->parent;
        report_rivals(m, next);
    } else {
        touch(f, mv->node);
        s->prev = place->at;
        s->prev_parent = place->parent;
        place->at = mv;
        place->parent = mv->parent;
    }
    report_rivals(m, s);
    move_put(m, mv);
}

static void send_position(struct merge *m, uint32_t n)
{
    const struct fold *f = m->fold;
    const struct fold_node *node = &f->nodes[n];
    const struct fold_move *at = f->places[n].at;
    struct derived *d = op_alloc(&m->work.arena, sizeof *d);
    d->kind = DERIVED_POS;
    d->oid = node->oid;
    d->to = oid_shard(node->oid);
    d->version = m->applied;
    if (at != NULL) {
        d->pos.parent = f->nodes[at->parent].oid;
        d->pos.name = op_dup(&m->work.arena, at->name);
        d->pos.stamp = at->stamp;
        d->pos.ns = at->ns;
    } else if (node->has_base) {
        d->pos = node->base;
        d->pos.name = op_dup(&m->work.arena, node->base.name);
    } else {
        d->at_birth = true;
        d->pos.name = slice_of(NULL, 0);
    }
    place_send(m, d);
}

static void touched_send(struct merge *m)
{
    struct fold *f = m->fold;
    for (uint32_t i = 0; i < f->touched_count; i++) {
        uint32_t n = f->touched[i];
        if (f->places[n].at != f->places[n].was)
            send_position(m, n);
    }
    f->touched_count = 0;
    f->epoch++;
}

/* All moves of one operation, with the suffix of the fold behind them undone and redone. */
static void fold_replay(struct merge *m, const struct op *op, uint32_t first)
{
    struct fold *f = m->fold;
    uint32_t end = first;
    undo_from(f, first);
    for (uint32_t n = 0; f->stale && n < f->count; n++)
        f->places[n].parent = node_home(&f->nodes[n]);
    f->stale = false;
    for (uint32_t i = 0; i < op->effect_count; i++)
        if (op->effects[i].kind == EFFECT_MOVE)
            move_insert(m, first, move_new(m, op, &op->effects[i]));
    for (uint32_t i = first; i < f->step_count; i++) {
        redo_report(m, &f->steps[i]);
        if (f->steps[i].move->fresh)
            end = i + 1;
    }
    for (uint32_t i = first; i < end; i++)
        f->steps[i].move->fresh = false;
}

void fold_apply(struct merge *m, const struct op *op)
{
    struct fold *f = m->fold;
    const struct effect *lowest = NULL;
    uint32_t moves = 0;
    for (uint32_t i = 0; i < op->effect_count; i++) {
        const struct effect *e = &op->effects[i];
        if (e->kind != EFFECT_MOVE)
            continue;
        births_learn(m, e);
        if (moves++ == 0 || oid_cmp(e->oid, lowest->oid) < 0)
            lowest = e;
    }
    if (moves == 0)
        return;
    uint32_t first = f->stale ? 0 : steps_find(f, op->stamp, op->dot, lowest->oid);
    uint32_t node = node_of(m, lowest->oid);
    bool leaf = moves == 1 && !f->stale && !f->nodes[node].is_target &&
                !oid_equal(lowest->oid, lowest->parent);
    if (leaf && first < f->step_count) {
        struct fold_move *mv = move_new(m, op, lowest);
        leaf_insert(m, first, mv);
        mv->fresh = false;
    } else {
        fold_replay(m, op, first);
    }
    touched_send(m);
}

/* ---- opening ---- */

static int move_load(struct merge *m, struct slice key, struct slice value)
{
    struct fold *f = m->fold;
    struct position p;
    struct oid oid;
    if (key.len != MOVE_KEY_BYTES)
        return ERR_CORRUPT;
    struct fold_move *mv = mem_calloc(1, sizeof *mv);
    mv->stamp.hlc = be_get(key.ptr + 1, 8);
    mv->stamp.site = (site_id_t)be_get(key.ptr + 9, 4);
    mv->dot.shard = (shard_id_t)be_get(key.ptr + 13, 2);
    mv->dot.site = (site_id_t)be_get(key.ptr + 15, 4);
    mv->dot.seq = be_get(key.ptr + 19, 8);
    memcpy(oid.b, key.ptr + 27, sizeof oid.b);
    struct dec d = dec_of(value);
    mv->saw = dec_dot(&d);
    int rc = d.rc == 0 ? position_decode(slice_of(d.at, dec_left(&d)), &p) : ERR_CORRUPT;
    if (rc != 0) {
        mem_free(mv);
        return rc;
    }
    mv->name = own(p.name);
    mv->ns = p.ns;
    mv->node = node_of(m, oid);
    mv->parent = node_of(m, p.parent);
    f->nodes[mv->parent].is_target = true;
    (void)steps_insert(f, f->step_count, mv);
    return 0;
}

int fold_open(struct merge *m)
{
    struct fold *f = m->fold = mem_calloc(1, sizeof *f);
    f->epoch = 1;
    (void)node_new(f, OID_ROOT);
    uint8_t type = KEY_MOVE;
    struct state_scan it;
    struct buf key = {.ptr = NULL};
    struct buf value = {.ptr = NULL};
    int rc = 0;
    state_scan_begin(m->state, &it, slice_of(&type, 1), slice_of(NULL, 0));
    while (rc == 0 && state_scan_next(&it)) {
        buf_clear(&key);
        buf_clear(&value);
        buf_append(&key, it.key.ptr, it.key.len);
        buf_append(&value, it.value.ptr, it.value.len);
        rc = move_load(m, buf_slice(&key), buf_slice(&value));
    }
    state_scan_end(&it);
    buf_deinit(&key);
    buf_deinit(&value);
    if (rc == 0)
        rc = work_health(m);
    for (uint32_t i = 0; rc == 0 && i < f->step_count; i++)
        step_redo(f, &f->steps[i]);
    f->touched_count = 0;
    f->epoch++;
    return rc;
}

void fold_free(struct merge *m)
{
    struct fold *f = m->fold;
    if (f == NULL)
        return;
    for (uint32_t i = 0; i < f->step_count; i++)
        move_free(f->steps[i].move);
    for (uint32_t n = 0; n < f->count; n++) {
        disown(&f->nodes[n].birth_name);
        if (f->nodes[n].has_base)
            disown(&f->nodes[n].base.name);
    }
    mem_free(f->nodes);
    mem_free(f->places);
    mem_free(f->table);
    mem_free(f->steps);
    mem_free(f->touched);
    mem_free(f);
    m->fold = NULL;
}

/* ---- questions ---- */

bool fold_seen_move(struct merge *m, struct oid oid, struct dot *ret)
{
    if (m->fold == NULL)
        return false;
    uint32_t n = node_of(m, oid);
    const struct fold_move *at = m->fold->places[n].at;
    if (at == NULL)
        return false;
    *ret = at->dot;
    return true;
}

/* ---- the stable prefix ---- */

/* Makes an applied move, redone with nothing of its node before it, the base of its node. */
static void move_to_base(struct merge *m, const struct fold_move *mv)
{
    struct fold *f = m->fold;
    struct fold_node *node = &f->nodes[mv->node];
    if (node->has_base)
        disown(&node->base.name);
    node->has_base = true;
    node->base_parent = mv->parent;
    node->base = (struct position){.parent = f->nodes[mv->parent].oid,
                                   .name = own(mv->name),
                                   .stamp = mv->stamp,
                                   .ns = mv->ns};
    f->places[mv->node].at = NULL;
    buf_clear(&m->value);
    position_encode(&node->base, &m->value);
    work_put(m, key_oid(m, KEY_BASE, node->oid), buf_slice(&m->value));
}

/* Makes the moves at or below the stable point the base: none can arrive below it any more. */
uint32_t fold_collect(struct merge *m, uint64_t stable_hlc, uint32_t budget)
{
    struct fold *f = m->fold;
    uint32_t count = 0;
    while (count < f->step_count && count < budget && f->steps[count].move->stamp.hlc <= stable_hlc)
        count++;
    if (count == 0)
        return 0;
    undo_from(f, 0);
    for (uint32_t i = 0; i < count; i++) {
        struct fold_move *mv = f->steps[i].move;
        step_redo(f, &f->steps[i]);
        work_del(m, move_key(m, mv->stamp, mv->dot, f->nodes[mv->node].oid));
        if (f->steps[i].applied)
            move_to_base(m, mv);
    }
    for (uint32_t i = 0; i < count; i++)
        move_free(f->steps[i].move);
    f->step_count -= count;
    memmove(f->steps, f->steps + count, f->step_count * sizeof *f->steps);
    for (uint32_t i = 0; i < f->step_count; i++)
        step_redo(f, &f->steps[i]);
    f->touched_count = 0; /* positions are what they were */
    f->epoch++;
    return count;
}

uint32_t fold_steps(const struct merge *m)
{
    return m->fold == NULL ? 0 : m->fold->step_count;
}

bool fold_due(const struct merge *m, uint64_t stable_hlc)
{
    return fold_steps(m) > 0 && m->fold->steps[0].move->stamp.hlc <= stable_hlc;
}

/* P6: no cycle; the fold from scratch gives the positions that are told. */
void fold_check(struct merge *m, void (*fn)(void *ctx, const char *what), void *ctx)
{
    struct fold *f = m->fold;
    if (f == NULL)
        return;
    for (uint32_t n = 0; n < f->count; n++) {
        uint32_t x = n;
        uint32_t hops = 0;
        for (; x != FOLD_ROOT && hops <= f->count; hops++)
            x = f->places[x].parent;
        if (hops > f->count) {
            fn(ctx, "M5: the fold of directory moves has a cycle");
            return;
        }
    }
    f->epoch++;
    undo_from(f, 0);
    for (uint32_t n = 0; n < f->count; n++)
        if (f->places[n].at != NULL || f->places[n].parent != node_home(&f->nodes[n]))
            fn(ctx, "M5: undoing all directory moves does not lead back to the births");
    for (uint32_t i = 0; i < f->step_count; i++)
        step_redo(f, &f->steps[i]);
    for (uint32_t i = 0; i < f->touched_count; i++)
        if (f->places[f->touched[i]].at != f->places[f->touched[i]].was)
            fn(ctx, "M5: the fold of directory moves gives another position than the one in use");
    f->touched_count = 0;
    f->epoch++;
}
