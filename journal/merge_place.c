/* Derived messages: how the index of names in parents' shards follows the directories.
 *
 *   shard 0 --POS--> directory's shard --PLACE--> new parent's shard --UNPLACE--> old parent's
 *                                      --UNPLACE (it died)--> parent's shard
 *
 * The directory's shard numbers what it sends; a parent's shard remembers for each directory the
 * highest number it has handled, so late and repeated messages change nothing. A birth counts as
 * message 1, which the parent's shard makes up itself. */
#include "journal/merge_int.h"

void dir_told(struct dir_rec *d)
{
    d->told.alive = d->has_birth && dir_alive(d);
    d->told.pos = dir_position(d);
    d->told.life = d->life;
}

void place_send(struct merge *m, struct derived *d)
{
    struct work *w = &m->work;
    d->next = NULL;
    if (d->to == m->shard) {
        *w->queue_tail = d;
        w->queue_tail = &d->next;
    } else {
        *w->out_tail = d;
        w->out_tail = &d->next;
    }
}

static struct derived *
derived_new(struct merge *m, enum derived_kind kind, struct oid oid, uint64_t version)
{
    struct derived *d = op_alloc(&m->work.arena, sizeof *d);
    d->kind = kind;
    d->oid = oid;
    d->version = version;
    return d;
}

static bool same_place(const struct position *a, const struct position *b)
{
    return oid_equal(a->parent, b->parent) && slice_equal(a->name, b->name);
}

static bool same_sites(struct merge *m, const struct dots *a, const struct dots *b)
{
    if (a->at == b->at && a->count == b->count)
        return true;
    uint32_t an;
    uint32_t bn;
    const site_id_t *as = dots_sites(a, &m->work.arena, &an);
    const site_id_t *bs = dots_sites(b, &m->work.arena, &bn);
    return an == bn && memcmp(as, bs, an * sizeof *as) == 0;
}

/* Sends what the parents' shards do not know yet about one directory. */
static void dir_tell(struct merge *m, struct dir_rec *d)
{
    struct placement *told = &d->told;
    bool alive = d->has_birth && dir_alive(d);
    struct position pos = dir_position(d);
    if (!alive && !told->alive)
        return;
    bool stays = told->alive && alive && same_place(&told->pos, &pos);
    if (stays && stamp_cmp(told->pos.stamp, pos.stamp) == 0 && same_sites(m, &told->life, &d->life))
        return;
    struct derived *msg =
        derived_new(m, alive ? DERIVED_PLACE : DERIVED_UNPLACE, d->oid, ++d->place_version);
    msg->pos = alive ? pos : told->pos;
    msg->to = oid_shard(msg->pos.parent);
    if (alive) {
        msg->sites = dots_sites(&d->life, &m->work.arena, &msg->site_count);
        msg->has_old = told->alive && !stays;
        msg->old_parent = told->pos.parent;
        msg->old_name = told->pos.name;
    }
    place_send(m, msg);
    d->told = (struct placement){.alive = alive, .pos = pos, .life = d->life};
}

static void index_put(struct merge *m, struct placed *p, const struct derived *msg)
{
    struct op_arena *a = &m->work.arena;
    bool same =
        p->here && oid_equal(p->parent, msg->pos.parent) && slice_equal(p->name, msg->pos.name);
    struct indexed entry = {
        .oid = msg->oid, .stamp = msg->pos.stamp, .site_count = msg->site_count};
    entry.sites = msg->sites;
    slot_put_dir(work_slot(m, msg->pos.parent, msg->pos.name), a, &entry);
    if (p->here && !same)
        slot_drop_dir(work_slot(m, p->parent, p->name), p->oid);
    p->here = true;
    p->parent = msg->pos.parent;
    p->name = msg->pos.name;
}

static void handle_place(struct merge *m, const struct derived *msg)
{
    struct placed *p = work_placed(m, msg->oid);
    if (!p->known || msg->version > p->version) {
        index_put(m, p, msg);
        p->version = msg->version;
        p->known = p->dirty = true;
    }
    if (!msg->has_old || oid_shard(msg->old_parent) == m->shard)
        return;
    struct derived *drop = derived_new(m, DERIVED_UNPLACE, msg->oid, msg->version);
    drop->pos.parent = msg->old_parent;
    drop->pos.name = msg->old_name;
    drop->to = oid_shard(msg->old_parent);
    place_send(m, drop);
}

static void handle_unplace(struct merge *m, const struct derived *msg)
{
    struct placed *p = work_placed(m, msg->oid);
    if (p->known && msg->version <= p->version)
        return;
    if (p->here)
        slot_drop_dir(work_slot(m, p->parent, p->name), p->oid);
    p->here = false;
    p->version = msg->version;
    p->known = p->dirty = true;
}

static void handle_pos(struct merge *m, const struct derived *msg)
{
    struct dir_rec *d = work_dir(m, msg->oid);
    if (msg->version <= d->pos_version)
        return;
    d->pos_version = msg->version;
    d->has_moved = !msg->at_birth;
    d->moved = msg->at_birth ? (struct position){.ns = 0} : msg->pos;
    d->known = d->dirty = true;
}

static void queue_handle(struct merge *m)
{
    struct work *w = &m->work;
    while (w->queue != NULL) {
        struct derived *msg = w->queue;
        w->queue = msg->next;
        if (w->queue == NULL)
            w->queue_tail = &w->queue;
        switch (msg->kind) {
        case DERIVED_POS:
            handle_pos(m, msg);
            continue;
        case DERIVED_PLACE:
            handle_place(m, msg);
            continue;
        case DERIVED_UNPLACE:
            handle_unplace(m, msg);
            continue;
        }
        UNREACHABLE();
    }
}

void place_settle(struct merge *m)
{
    do {
        queue_handle(m);
        for (struct dir_rec *d = m->work.dirs; d != NULL; d = d->next)
            if (d->dirty && !oid_is_root(d->oid))
                dir_tell(m, d);
    } while (m->work.queue != NULL);
}

static void birth_in_parent(struct merge *m, const struct op *op, const struct birth *b)
{
    struct op_arena *a = &m->work.arena;
    struct dir_rec *parent = work_dir(m, b->parent);
    when_raise(&parent->mtime, op->stamp, op->time_ns);
    when_raise(&parent->ctime, op->stamp, op->time_ns);
    parent->known = parent->dirty = true;

    struct slice highest;
    struct slice key = key_name(m, KEY_GENERATION, b->parent, b->name);
    uint64_t gen = 0;
    bool known = state_get(m->state, key, &highest);
    if (known) {
        struct dec dec = dec_of(highest);
        gen = dec_varint(&dec);
    }
    if (!known || gen < b->gen) {
        buf_clear(&m->value);
        enc_varint(&m->value, b->gen);
        work_put(m, key, buf_slice(&m->value));
    }

    struct placed *p = work_placed(m, b->oid);
    if (p->known)
        return;
    struct derived msg = {.kind = DERIVED_PLACE, .oid = b->oid, .version = 1};
    site_id_t *site = op_alloc(a, sizeof *site);
    *site = op->dot.site;
    msg.pos = (struct position){
        .parent = b->parent, .name = b->name, .stamp = op->stamp, .ns = op->time_ns};
    msg.sites = site;
    msg.site_count = 1;
    handle_place(m, &msg);
}

static void birth_in_own(struct merge *m, const struct op *op, const struct birth *b)
{
    struct op_arena *a = &m->work.arena;
    struct dir_rec *d = work_dir(m, b->oid);
    bool first = !d->has_birth;
    d->known = d->dirty = d->has_birth = true;
    if (first)
        d->birth = *b;
    when_lower(&d->born, op->stamp, op->time_ns);
    when_raise(&d->ctime, op->stamp, op->time_ns);
    when_raise(&d->mtime, op->stamp, op->time_ns);
    dots_add(&d->life, a, op->dot);
    if (!first)
        return;
    /* The parent's shard has placed it by itself, or will, exactly like this. */
    struct dots life = {.at = NULL};
    dots_add(&life, a, op->dot);
    d->place_version = 1;
    d->told.alive = true;
    d->told.life = life;
    d->told.pos = (struct position){
        .parent = b->parent, .name = b->name, .stamp = op->stamp, .ns = op->time_ns};
}

void place_birth(struct merge *m, const struct op *op, const struct effect *e)
{
    if (oid_shard(e->birth.parent) == m->shard)
        birth_in_parent(m, op, &e->birth);
    if (oid_shard(e->oid) == m->shard)
        birth_in_own(m, op, &e->birth);
}

int merge_apply_derived(struct merge *m, struct slice bytes)
{
    int rc = work_health(m);
    if (rc != 0)
        return rc;
    work_begin(m);
    struct derived *msg = op_alloc(&m->work.arena, sizeof *msg);
    rc = derived_decode(op_dup(&m->work.arena, bytes), &m->work.arena, msg);
    if (rc != 0)
        return rc;
    struct oid at = msg->kind == DERIVED_POS ? msg->oid : msg->pos.parent;
    if (oid_shard(at) != m->shard)
        return ERR_MALFORMED;
    msg->to = m->shard;
    place_send(m, msg);
    return work_finish(m);
}
