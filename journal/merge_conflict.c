/* The conflict log: a record for each decision that a user may care about. A record's id is made of
 * what collided, so that every site names it alike and stores it once. Records are local: a site
 * that never saw the two sides together has none. */
#include <sodium.h>

#include "base/plant.h"
#include "journal/merge_int.h"

enum {
    ORDER_BYTES = 12 /* of a stamp, so that scans give the newest first */
};

void conflict_id(struct conflict *c, uint8_t rule, struct slice what)
{
    uint8_t hash[16];
    int rc = crypto_generichash(hash, sizeof hash, what.ptr, what.len, NULL, 0);
    ASSERT(rc == 0);
    c->rule = rule;
    memcpy(c->id, hash, sizeof c->id);
    c->id[0] = (uint8_t)(c->id[0] ^ rule);
}

static void order_bytes(struct stamp s, uint8_t out[ORDER_BYTES])
{
    for (int i = 7; i >= 0; i--, s.hlc >>= 8)
        out[i] = (uint8_t)~s.hlc;
    for (int i = ORDER_BYTES - 1; i >= 8; i--, s.site >>= 8)
        out[i] = (uint8_t)~s.site;
}

static struct slice id_key(struct merge *m, const uint8_t id[8])
{
    buf_clear(&m->key);
    enc_u8(&m->key, KEY_CONFLICT_ID);
    enc_raw(&m->key, id, 8);
    return buf_slice(&m->key);
}

static struct slice
record_key(struct merge *m, const uint8_t order[ORDER_BYTES], const uint8_t id[8])
{
    buf_clear(&m->key);
    enc_u8(&m->key, KEY_CONFLICT);
    enc_raw(&m->key, order, ORDER_BYTES);
    enc_raw(&m->key, id, 8);
    return buf_slice(&m->key);
}

static bool in_this_call(const struct merge *m, const uint8_t id[8])
{
    for (const struct work_conflict *c = m->work.conflicts; c != NULL; c = c->next)
        if (memcmp(c->c.id, id, sizeof c->c.id) == 0)
            return true;
    return false;
}

void conflict_add(struct merge *m, struct conflict *c)
{
    struct op_arena *a = &m->work.arena;
    uint8_t order[ORDER_BYTES];
    if (PLANTED(71) || in_this_call(m, c->id) || state_has(m, id_key(m, c->id)))
        return;
    struct work_conflict *w = op_alloc(a, sizeof *w);
    w->c = *c;
    w->c.name = op_dup(a, c->name);
    w->c.other_name = op_dup(a, c->other_name);
    *m->work.conflicts_tail = w;
    m->work.conflicts_tail = &w->next;
    order_bytes(c->stamp, order);
    work_put(m, id_key(m, c->id), slice_of(order, sizeof order));
    buf_clear(&m->value);
    conflict_encode(c, &m->value);
    work_put(m, record_key(m, order, c->id), buf_slice(&m->value));
}

/* ---- rule 6 ---- */

static bool was_there(const struct slot *s, struct oid oid)
{
    for (uint32_t i = 0; i < s->before_count; i++)
        if (oid_equal(s->before[i].oid, oid))
            return true;
    return false;
}

/* The name that the loser will show, as far as plain names go. */
static void loser_name(struct merge *m, const struct slot *s, const struct cand *c, struct buf *ret)
{
    char site[33];
    m->config.site_name(m->config.name_ctx, c->stamp.site, site);
    for (uint32_t k = 0; k < 16; k++) {
        conflict_name(s->name, site, c->oid, k, ret);
        if (!state_has(m, key_name(m, KEY_SLOT, s->parent, buf_slice(ret))))
            return;
    }
}

static void name_conflict(struct merge *m,
                          const struct slot *s,
                          const struct cand *winner,
                          const struct cand *loser)
{
    struct conflict c = {.oid = winner->oid, .other = loser->oid, .parent = s->parent};
    struct buf what = {.ptr = NULL};
    bool swap = oid_cmp(winner->oid, loser->oid) > 0;
    enc_oid(&what, s->parent);
    enc_bytes(&what, s->name);
    enc_oid(&what, swap ? loser->oid : winner->oid);
    enc_oid(&what, swap ? winner->oid : loser->oid);
    conflict_id(&c, 6, buf_slice(&what));
    loser_name(m, s, loser, &what);
    c.name = s->name;
    c.other_name = buf_slice(&what);
    c.winner = winner->stamp.site;
    c.loser = loser->stamp.site;
    c.winner_stamp = winner->stamp;
    c.loser_stamp = loser->stamp;
    c.stamp = stamp_cmp(winner->stamp, loser->stamp) > 0 ? winner->stamp : loser->stamp;
    conflict_add(m, &c);
    buf_deinit(&what);
}

/* Does somebody else hold the directory than who gave it its place? He has revived it (rule 4). */
static bool is_revived(const struct slot *s, const struct cand *c)
{
    for (uint32_t i = 0; i < s->dir_count; i++) {
        const struct indexed *d = &s->dirs[i];
        if (!oid_equal(d->oid, c->oid))
            continue;
        for (uint32_t k = 0; k < d->site_count; k++)
            if (d->sites[k] == c->stamp.site)
                return false;
        return d->site_count > 0;
    }
    return false;
}

/* What comes to a name behind what is younger had lost it, and has it again: a move was undone. */
static bool is_back(const struct slot *s, const struct cand *c, const struct cand *other)
{
    return !was_there(s, c->oid) && was_there(s, other->oid) &&
           stamp_cmp(c->stamp, other->stamp) < 0;
}

/* One site never gives two objects one name: what looks so is a rename on its way. */
static bool is_passing(const struct slot *s, const struct cand *a, const struct cand *b)
{
    if (a->stamp.site != b->stamp.site || PLANTED(66))
        return false;
    return !is_revived(s, a) && !is_revived(s, b) && !is_back(s, a, b) && !is_back(s, b, a);
}

void conflict_of_slot(struct merge *m, const struct slot *s)
{
    struct resolved r;
    slot_resolve(m, s, &r);
    for (uint32_t i = 1; i < r.count; i++) {
        bool known = was_there(s, r.cands[0].oid) && was_there(s, r.cands[i].oid);
        if (!r.twin[i] && !known && !is_passing(s, &r.cands[0], &r.cands[i]))
            name_conflict(m, s, &r.cands[0], &r.cands[i]);
    }
}

/* Twins that are rivals from now on, each under a name of his own. */
void conflict_of_file(struct merge *m, const struct file_rec *f)
{
    for (uint32_t k = 0; k < f->ref_count && m->contested_any; k++) {
        struct resolved r;
        if (oid_shard(f->refs[k].parent) != m->shard ||
            !state_has(m, key_name(m, KEY_CONTESTED, f->refs[k].parent, f->refs[k].name)))
            continue;
        const struct slot *s = work_slot(m, f->refs[k].parent, f->refs[k].name);
        slot_resolve(m, s, &r);
        for (uint32_t i = 1; i < r.count; i++) {
            bool of_it = oid_equal(r.cands[0].oid, f->oid) || oid_equal(r.cands[i].oid, f->oid);
            if (of_it && !r.twin[i] && !is_passing(s, &r.cands[0], &r.cands[i]))
                name_conflict(m, s, &r.cands[0], &r.cands[i]);
        }
    }
}

/* ---- rules 2, 3, 4, 8 ---- */

static void id_of(struct conflict *c, uint8_t rule, struct oid oid, struct dot dot)
{
    struct buf what = {.ptr = NULL};
    enc_oid(&what, oid);
    enc_dot(&what, dot);
    conflict_id(c, rule, buf_slice(&what));
    buf_deinit(&what);
}

void conflict_of_fork(struct merge *m, const struct op *op, const struct effect *e)
{
    const struct file_rec *f = work_file(m, e->oid);
    const struct ver *shown = file_shown(f);
    if (PLANTED(65) && op->dot.site == m->config.site)
        return;
    struct conflict c = {.oid = e->oid, .other = e->to, .loser = e->loser.site};
    c.loser_stamp = c.stamp = e->loser_stamp;
    c.loser_dot = e->loser;
    if (shown != NULL) {
        c.winner = shown->dot.site;
        c.winner_stamp = shown->stamp;
        c.winner_dot = shown->dot;
        if (stamp_cmp(shown->stamp, c.stamp) > 0)
            c.stamp = shown->stamp;
    }
    /* Without a name, which it had last: it may have been removed before this was heard of. */
    c.parent = f->ref_count > 0 ? f->refs[0].parent : f->last_parent;
    c.name = f->ref_count > 0 ? f->refs[0].name : f->last_name;
    for (uint32_t i = 0; i < op->effect_count; i++) {
        const struct effect *enter = &op->effects[i];
        if (enter->kind == EFFECT_ENTER && oid_equal(enter->oid, e->to))
            c.other_name = enter->name;
    }
    id_of(&c, 2, e->oid, e->loser);
    conflict_add(m, &c);
}

void conflict_of_relink(struct merge *m, const struct file_rec *f)
{
    const struct ver *kept = file_shown(f);
    struct conflict c = {.oid = f->oid, .parent = f->last_parent, .name = f->last_name};
    c.winner = kept->dot.site;
    c.winner_stamp = kept->stamp;
    c.winner_dot = kept->dot;
    c.loser = f->last_stamp.site;
    c.loser_stamp = f->last_stamp;
    c.stamp = stamp_cmp(kept->stamp, f->last_stamp) > 0 ? kept->stamp : f->last_stamp;
    id_of(&c, 3, f->oid, kept->dot);
    conflict_add(m, &c);
}

void conflict_of_revive(struct merge *m, const struct dir_rec *d)
{
    struct position pos = dir_position(d);
    struct conflict c = {.oid = d->oid, .parent = pos.parent, .name = pos.name};
    c.loser = d->death.site;
    c.loser_stamp = c.stamp = d->death;
    id_of(&c, 4, d->oid, (struct dot){.site = d->death.site, .seq = d->death.hlc});
    conflict_add(m, &c);
}

static const struct effect *enter_of(const struct op *op, struct oid oid)
{
    for (uint32_t i = 0; i < op->effect_count; i++)
        if (op->effects[i].kind == EFFECT_ENTER && oid_equal(op->effects[i].oid, oid))
            return &op->effects[i];
    return NULL;
}

/* The name that the other rename gave it: the newest of the site that took the old one away, or of
 * whoever has moved it on. NULL: it has none any more. */
static const struct ref *other_name(const struct op *op,
                                    const struct effect *enter,
                                    const struct file_rec *f,
                                    struct stamp other)
{
    const struct ref *best = NULL;
    for (uint32_t i = 0; i < f->ref_count; i++) {
        const struct ref *r = &f->refs[i];
        bool same = oid_equal(r->parent, enter->parent) && slice_equal(r->name, enter->name);
        if (same || r->dot.site == op->dot.site)
            continue;
        bool his = r->dot.site == other.site,
             best_his = best != NULL && best->dot.site == other.site;
        if (best == NULL || (his && !best_his) ||
            (his == best_his && dot_cmp(r->dot, best->dot) > 0))
            best = r;
    }
    return best;
}

/* A rename whose old name another rename had taken away: both new names stay. */
void conflict_of_rename(struct merge *m,
                        const struct op *op,
                        const struct effect *leave,
                        const struct file_rec *f,
                        struct stamp other)
{
    const struct effect *enter = enter_of(op, f->oid);
    const struct ref *r = enter != NULL ? other_name(op, enter, f, other) : NULL;
    if (r == NULL)
        return;
    struct conflict c = {.oid = f->oid, .other = f->oid, .parent = enter->parent};
    c.name = enter->name;
    c.other_name = r->name;
    c.winner = op->dot.site;
    c.winner_dot = op->dot;
    c.winner_stamp = op->stamp;
    c.loser = r->dot.site;
    c.loser_dot = r->dot;
    c.loser_stamp = other;
    c.stamp = stamp_cmp(op->stamp, other) > 0 ? op->stamp : other;
    id_of(&c, 8, f->oid, leave->dots[0]);
    conflict_add(m, &c);
}

/* ---- reading ---- */

int merge_conflicts(struct merge *m, bool (*fn)(void *ctx, const struct conflict *c), void *ctx)
{
    uint8_t type = KEY_CONFLICT;
    struct state_scan it;
    bool more = true;
    int rc = 0;
    work_begin(m);
    state_scan_begin(m->state, &it, slice_of(&type, 1), slice_of(NULL, 0));
    while (more && rc == 0 && state_scan_next(&it)) {
        struct conflict c;
        rc = conflict_decode(it.value, &c);
        if (rc == 0)
            more = fn(ctx, &c);
    }
    state_scan_end(&it);
    return rc != 0 ? rc : work_health(m);
}

int merge_conflict_note(struct merge *m, struct conflict *c, bool *ret_new)
{
    uint8_t order[ORDER_BYTES];
    struct buf what = {.ptr = NULL};
    work_begin(m);
    enc_oid(&what, c->oid);
    enc_oid(&what, c->other);
    enc_oid(&what, c->parent);
    enc_bytes(&what, c->name);
    conflict_id(c, c->rule, buf_slice(&what));
    buf_deinit(&what);
    *ret_new = !state_has(m, id_key(m, c->id));
    if (*ret_new) {
        order_bytes(c->stamp, order);
        buf_clear(&m->value);
        conflict_encode(c, &m->value);
        state_put(m->state, record_key(m, order, c->id), buf_slice(&m->value));
        state_put(m->state, id_key(m, c->id), slice_of(order, sizeof order));
    }
    return work_health(m);
}

int merge_conflict_resolved(struct merge *m, const uint8_t id[8], bool resolved)
{
    struct slice value;
    uint8_t order[ORDER_BYTES];
    struct conflict c;
    work_begin(m);
    if (!state_get(m->state, id_key(m, id), &value)) {
        int rc = work_health(m);
        return rc != 0 ? rc : ERR_NOT_FOUND;
    }
    if (value.len != sizeof order)
        return ERR_CORRUPT;
    memcpy(order, value.ptr, sizeof order);
    if (!state_get(m->state, record_key(m, order, id), &value))
        return ERR_CORRUPT;
    int rc = conflict_decode(op_dup(&m->work.arena, value), &c);
    if (rc != 0)
        return rc;
    c.resolved = resolved;
    buf_clear(&m->value);
    conflict_encode(&c, &m->value);
    state_put(m->state, record_key(m, order, id), buf_slice(&m->value));
    return work_health(m);
}
