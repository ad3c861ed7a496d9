/* Repairs owed (rules 2, 3, 4): which, since when, by whom, and the operation that settles one.
 *
 * Queue in memory: FRESH (whose it is has to be looked up), MINE (due at once), WAITING (another
 * site's; by age). What is owed is a property of a record, kept with it in the same write; the
 * keys `r` only add since when. */
#include <sodium.h>

#include "journal/merge_int.h"

/* ---- the queue ---- */

static uint32_t owed_hash(struct oid o)
{
    uint64_t a;
    uint64_t b;
    memcpy(&a, o.b, 8);
    memcpy(&b, o.b + 8, 8);
    return (uint32_t)(((a ^ b * 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu) >> 32);
}

static struct owed **owed_find(struct owed_queue *q, struct oid oid)
{
    struct owed **at = &q->table[owed_hash(oid) & q->mask];
    while (*at != NULL && !oid_equal((*at)->oid, oid))
        at = &(*at)->hash_next;
    return at;
}

static void owed_grow(struct owed_queue *q)
{
    uint32_t size = q->table == NULL ? 64 : (q->mask + 1) * 2;
    struct owed **old = q->table;
    uint32_t old_size = old == NULL ? 0 : q->mask + 1;
    q->table = mem_calloc(size, sizeof(struct owed *));
    q->mask = size - 1;
    for (uint32_t i = 0; i < old_size; i++)
        for (struct owed *o = old[i]; o != NULL;) {
            struct owed *next = o->hash_next;
            struct owed **at = &q->table[owed_hash(o->oid) & q->mask];
            o->hash_next = *at;
            *at = o;
            o = next;
        }
    mem_free(old);
}

static void list_remove(struct owed_queue *q, struct owed *o)
{
    struct owed_list *l = &q->lists[o->state];
    *(o->prev != NULL ? &o->prev->next : &l->head) = o->next;
    *(o->next != NULL ? &o->next->prev : &l->tail) = o->prev;
}

/* Oldest first; new ones are the youngest, so that this ends at once almost always. */
static void list_insert(struct owed_queue *q, struct owed *o, enum owed_state state)
{
    struct owed_list *l = &q->lists[state];
    struct owed *after = l->tail;
    while (after != NULL && after->since_hlc > o->since_hlc)
        after = after->prev;
    o->state = state;
    o->prev = after;
    o->next = after != NULL ? after->next : l->head;
    *(o->prev != NULL ? &o->prev->next : &l->head) = o;
    *(o->next != NULL ? &o->next->prev : &l->tail) = o;
}

void owed_touch(struct merge *m, struct oid oid, uint64_t since_hlc)
{
    struct owed_queue *q = &m->owed;
    if (q->table == NULL || q->count > q->mask)
        owed_grow(q);
    struct owed **at = owed_find(q, oid);
    struct owed *o = *at;
    if (o == NULL) {
        o = mem_calloc(1, sizeof *o);
        o->oid = oid;
        o->since_hlc = since_hlc;
        *at = o;
        q->count++;
    } else {
        list_remove(q, o);
    }
    list_insert(q, o, OWED_FRESH);
}

void owed_drop(struct merge *m, struct oid oid)
{
    struct owed_queue *q = &m->owed;
    if (q->count == 0)
        return;
    struct owed **at = owed_find(q, oid);
    struct owed *o = *at;
    if (o == NULL)
        return;
    *at = o->hash_next;
    list_remove(q, o);
    mem_free(o);
    q->count--;
}

void owed_free(struct merge *m)
{
    struct owed_queue *q = &m->owed;
    for (uint32_t i = 0; i < ARRAY_COUNT(q->lists); i++)
        for (struct owed *o = q->lists[i].head; o != NULL;) {
            struct owed *next = o->next;
            mem_free(o);
            o = next;
        }
    mem_free(q->table);
    *q = (struct owed_queue){.table = NULL};
}

void owed_load(struct merge *m)
{
    uint8_t type = KEY_REPAIR;
    struct state_scan it;
    state_scan_begin(m->state, &it, slice_of(&type, 1), slice_of(NULL, 0));
    while (state_scan_next(&it)) {
        struct oid oid;
        struct dec d = dec_of(it.value);
        uint64_t since = dec_u64(&d);
        if (it.key.len != 1 + sizeof oid.b || dec_end(&d) != 0) {
            m->rc = ERR_CORRUPT;
            break;
        }
        memcpy(oid.b, it.key.ptr + 1, sizeof oid.b);
        owed_touch(m, oid, since);
    }
    state_scan_end(&it);
}

/* ---- whose it is ---- */

static bool slot_is_mine(const struct merge *m, const struct slot *s)
{
    for (uint32_t i = 0; i < s->entry_count; i++)
        if (s->entries[i].dot.site == m->config.site)
            return true;
    for (uint32_t i = 0; i < s->dir_count; i++)
        for (uint32_t k = 0; k < s->dirs[i].site_count; k++)
            if (s->dirs[i].sites[k] == m->config.site)
                return true;
    return false;
}

static bool inside_is_mine(struct merge *m, struct oid dir)
{
    struct op_arena arena = {.head = NULL};
    struct state_scan it;
    bool mine = false;
    state_scan_begin(m->state, &it, key_oid(m, KEY_SLOT, dir), slice_of(NULL, 0));
    while (!mine && state_scan_next(&it)) {
        struct slot s = {.parent = dir};
        op_arena_reset(&arena);
        int rc = slot_decode(op_dup(&arena, it.value), &arena, &s);
        if (rc != 0 && m->rc == 0)
            m->rc = rc;
        mine = slot_is_mine(m, &s);
    }
    state_scan_end(&it);
    op_arena_deinit(&arena);
    return mine;
}

/* The version the next repair of a file is about: an unseen one that lost its last name, or the
 * lowest that loses; of this site unless any will do. NULL: none. */
static const struct ver *file_repair_version(struct merge *m, const struct file_rec *f, bool any)
{
    const struct ver **versions;
    uint32_t count = file_versions(f, &m->work.arena, &versions);
    if (!file_owes_relink(f)) {
        if (!file_owes_fork(f))
            return NULL;
        count--; /* the last one is the file */
    }
    for (uint32_t i = 0; i < count; i++)
        if (any || versions[i]->dot.site == m->config.site)
            return versions[i];
    return NULL;
}

static bool is_mine(struct merge *m, struct oid oid)
{
    if (oid_is_dir(oid))
        return inside_is_mine(m, oid);
    return file_repair_version(m, work_file(m, oid), false) != NULL;
}

/* ---- what to do ---- */

struct oid fork_oid(struct oid oid, struct dot loser)
{
    struct buf what = {.ptr = NULL};
    uint8_t hash[16];
    enc_oid(&what, oid);
    enc_dot(&what, loser);
    int rc = crypto_generichash(hash, sizeof hash, what.ptr, what.len, NULL, 0);
    ASSERT(rc == 0);
    buf_deinit(&what);
    memcpy(oid.b + 4, hash, 12);
    return oid;
}

static void build_enter(struct op_builder *b, struct oid oid, struct oid parent, struct slice name)
{
    struct slice copy = op_dup(&b->arena, name);
    struct effect *e = op_builder_add(b, EFFECT_ENTER, oid);
    e->parent = parent;
    e->name = copy;
}

static void
build_fork(struct merge *m, struct op_builder *b, const struct file_rec *f, const struct ver *loser)
{
    bool kept = !content_equal(&loser->content, &file_shown(f)->content);
    struct effect e = {.kind = EFFECT_FORK, .oid = f->oid, .loser = loser->dot};
    e.loser_stamp = loser->stamp;
    if (kept) {
        e.to = fork_oid(f->oid, loser->dot);
        e.content = loser->content;
        e.content.bytes = op_dup(&b->arena, loser->content.bytes);
        e.mtime_ns = loser->mtime_ns;
        e.regs = regs_all(m, &b->arena, f->oid, &e.reg_count);
    }
    *op_builder_add(b, EFFECT_FORK, f->oid) = e;
    if (!kept)
        return;
    char site[33];
    struct buf name = {.ptr = NULL};
    m->config.site_name(m->config.name_ctx, loser->dot.site, site);
    conflict_name(f->refs[0].name, site, e.to, 0, &name);
    build_enter(b, e.to, f->refs[0].parent, buf_slice(&name));
    buf_deinit(&name);
}

/* False: nothing is owed any more, which the queue would know. */
static bool build_repair(struct merge *m, struct op_builder *b, struct oid oid, bool any)
{
    if (oid_is_dir(oid)) {
        (void)op_builder_add(b, EFFECT_REVIVE, oid);
        return true;
    }
    const struct file_rec *f = work_file(m, oid);
    const struct ver *v = file_repair_version(m, f, any);
    if (v == NULL)
        return false;
    if (file_owes_relink(f))
        build_enter(b, oid, f->last_parent, f->last_name);
    else
        build_fork(m, b, f, v);
    return true;
}

bool merge_owes(struct merge *m)
{
    return m->owed.count > 0;
}

bool merge_owed_oldest(const struct merge *m, struct oid *ret_oid, uint64_t *ret_since_hlc)
{
    const struct owed *oldest = NULL;
    for (uint32_t i = 0; i < ARRAY_COUNT(m->owed.lists); i++) {
        const struct owed *o = m->owed.lists[i].head;
        if (o != NULL && (oldest == NULL || o->since_hlc < oldest->since_hlc))
            oldest = o;
    }
    if (oldest == NULL)
        return false;
    *ret_oid = oldest->oid;
    *ret_since_hlc = oldest->since_hlc;
    return true;
}

bool merge_owes_own(const struct merge *m)
{
    return m->owed.lists[OWED_FRESH].head != NULL || m->owed.lists[OWED_MINE].head != NULL;
}

bool merge_repair(struct merge *m,
                  const struct repair_due *due,
                  struct op_builder *b,
                  uint64_t *ret_next_hlc)
{
    struct owed_queue *q = &m->owed;
    if (ret_next_hlc != NULL)
        *ret_next_hlc = 0;
    while (q->lists[OWED_FRESH].head != NULL && q->lists[OWED_MINE].head == NULL) {
        struct owed *o = q->lists[OWED_FRESH].head;
        work_begin(m);
        enum owed_state state = is_mine(m, o->oid) ? OWED_MINE : OWED_WAITING;
        list_remove(q, o);
        list_insert(q, o, state);
    }
    work_begin(m);
    const struct owed *mine = q->lists[OWED_MINE].head;
    const struct owed *oldest = q->lists[OWED_WAITING].head;
    if (work_health(m) != 0)
        return false;
    if (mine != NULL && DEFEND(build_repair(m, b, mine->oid, false)))
        return work_health(m) == 0;
    if (oldest == NULL)
        return false;
    if (oldest->since_hlc <= due->due_before_hlc && DEFEND(build_repair(m, b, oldest->oid, true)))
        return work_health(m) == 0;
    if (ret_next_hlc != NULL)
        *ret_next_hlc = oldest->since_hlc;
    return false;
}
