/* Who has which name (rule 6): resolving slots, names of losers, lookup and listing. */
#include <stdlib.h>

#include "journal/merge_int.h"
#include "base/plant.h"

/* ---- one slot ---- */

static int cand_cmp_down(const void *a, const void *b)
{
    const struct cand *x = a;
    const struct cand *y = b;
    bool xd = oid_is_dir(x->oid);
    bool yd = oid_is_dir(y->oid);
    if (xd != yd)
        return xd ? -1 : 1;
    int order = PLANTED(25) ? stamp_cmp(x->stamp, y->stamp) : stamp_cmp(y->stamp, x->stamp);
    return order != 0 ? order : oid_cmp(y->oid, x->oid);
}

uint32_t slot_cands(const struct slot *s, struct op_arena *a, struct cand **ret, uint32_t *ret_dirs)
{
    struct cand *c = op_alloc(a, (s->entry_count + s->dir_count) * sizeof *c);
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->dir_count; i++)
        c[count++] = (struct cand){.oid = s->dirs[i].oid, .stamp = s->dirs[i].stamp};
    for (uint32_t i = 0; i < s->entry_count; i++) {
        const struct entry *e = &s->entries[i];
        uint32_t k = s->dir_count;
        while (k < count && !oid_equal(c[k].oid, e->oid))
            k++;
        if (k == count)
            c[count++] = (struct cand){.oid = e->oid, .stamp = e->stamp};
        else if (stamp_cmp(c[k].stamp, e->stamp) < 0)
            c[k].stamp = e->stamp;
    }
    if (count > 1)
        qsort(c, count, sizeof *c, cand_cmp_down);
    *ret = c;
    *ret_dirs = s->dir_count;
    if (PLANTED(8) && count > 1)
        return 1;
    return count;
}

static bool rights_of(const struct file_rec *f, struct perm *ret)
{
    *ret = (struct perm){.uid = 0};
    return !f->perm.present || perm_decode(f->perm.value, ret) == 0;
}

/* Same bytes, same rights, and both known in this shard: one file to users. */
static bool are_twins(struct merge *m, struct oid a, struct oid b)
{
    if (PLANTED(48) || oid_is_dir(a) || oid_kind(a) != oid_kind(b) || oid_shard(a) != m->shard ||
        oid_shard(b) != m->shard)
        return false;
    const struct file_rec *x = work_file(m, a);
    const struct file_rec *y = work_file(m, b);
    if (!x->known || !y->known)
        return false;
    const struct ver *v = file_shown(x);
    const struct ver *w = file_shown(y);
    if ((v == NULL) != (w == NULL) || (v != NULL && !content_equal(&v->content, &w->content)))
        return false;
    struct perm p;
    struct perm q;
    return rights_of(x, &p) && rights_of(y, &q) && perm_same_rights(&p, &q);
}

void slot_resolve(struct merge *m, const struct slot *s, struct resolved *ret)
{
    struct op_arena *a = &m->work.arena;
    uint32_t twins = 0;
    ret->count = slot_cands(s, a, &ret->cands, &ret->dir_count);
    ret->twin = op_alloc(a, ret->count * sizeof *ret->twin);
    for (uint32_t i = 1; i < ret->count && twins < SHOWN_TWINS_MAX; i++) {
        ret->twin[i] = are_twins(m, ret->cands[0].oid, ret->cands[i].oid);
        twins += ret->twin[i];
    }
}

/* ---- the names of losers in one directory ---- */

enum {
    STALE_MORE = 64 /* slots that are looked up again, beyond as many as there are losers */
};

/* Where the name is, or belongs. */
static uint32_t derived_place(const struct derived_names *names, struct slice name, bool *ret_there)
{
    uint32_t low = 0;
    uint32_t high = names->count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        int c = slice_cmp(names->at[mid].visible, name);
        if (c == 0) {
            *ret_there = true;
            return mid;
        }
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *ret_there = false;
    return low;
}

static void stale_add(struct derived_names *names, struct slice stored)
{
    for (uint32_t i = 0; i < names->stale_count; i++)
        if (slice_equal(names->stale[i], stored))
            return;
    names->stale = array_grow(&names->arena, names->stale, names->stale_count, &names->stale_cap,
                              sizeof *names->stale);
    names->stale[names->stale_count++] = op_dup(&names->arena, stored);
}

/* The losers of the slot are to be looked up again, and whoever has its name. While none has passed
 * a name, what each is called depends on nobody else; otherwise all are. */
static void derived_stale(struct derived_names *names, struct slice stored)
{
    if (names->passed_any || names->stale_count + names->patched > names->count + STALE_MORE) {
        names->valid = false;
        return;
    }
    stale_add(names, stored);
    bool there;
    uint32_t at = derived_place(names, stored, &there);
    if (there)
        stale_add(names, names->at[at].stored);
}

void derived_forget(struct merge *m, struct oid parent, struct slice stored)
{
    for (uint32_t i = 0; i < DERIVED_CACHE && m->contested_any; i++)
        if (m->derived[i].valid && oid_equal(m->derived[i].parent, parent))
            derived_stale(&m->derived[i], stored);
}

static struct slice *contested_names(struct merge *m, struct oid parent, uint32_t *ret_count)
{
    struct op_arena *a = &m->work.arena;
    struct slice *names = NULL;
    uint32_t count = 0;
    uint32_t cap = 0;
    struct state_scan it;
    state_scan_begin(m->state, &it, key_oid(m, KEY_CONTESTED, parent), slice_of(NULL, 0));
    while (state_scan_next(&it)) {
        names = array_grow(a, names, count, &cap, sizeof *names);
        names[count++] = op_dup(a, slice_of(it.key.ptr + 17, it.key.len - 17));
    }
    state_scan_end(&it);
    *ret_count = count;
    return names;
}

static void derived_insert(struct derived_names *names, uint32_t at, const struct derived_name *d)
{
    names->at = array_grow(&names->arena, names->at, names->count, &names->cap, sizeof *names->at);
    memmove(&names->at[at + 1], &names->at[at], (names->count - at) * sizeof *names->at);
    names->at[at] = *d;
    names->count++;
    names->passed_any = names->passed_any || d->passed_count > 0;
}

/* Gives a loser of slot `stored` its name: the first that nobody has. */
static void derived_add(struct merge *m,
                        struct derived_names *names,
                        struct slice stored,
                        const struct cand *loser)
{
    struct op_arena *a = &names->arena;
    char site[33];
    struct buf *text = &m->value;
    struct slice *passed = NULL;
    uint32_t passed_count = 0;
    uint32_t passed_cap = 0;
    uint32_t at;
    m->config.site_name(m->config.name_ctx, loser->stamp.site, site);
    for (uint32_t k = 0;; k++) {
        bool taken;
        conflict_name(stored, site, loser->oid, k, text);
        struct slice shown = buf_slice(text);
        at = derived_place(names, shown, &taken);
        if (!taken && !state_has(m, key_name(m, KEY_SLOT, names->parent, shown)))
            break;
        passed = array_grow(a, passed, passed_count, &passed_cap, sizeof *passed);
        passed[passed_count++] = op_dup(a, shown);
    }
    const struct derived_name d = {.visible = op_dup(a, buf_slice(text)),
                                   .stored = stored,
                                   .oid = loser->oid,
                                   .stamp = loser->stamp,
                                   .passed = passed,
                                   .passed_count = passed_count};
    derived_insert(names, at, &d);
}

/* `stored` is in the arena of the names. */
static void derived_add_slot(struct merge *m, struct derived_names *names, struct slice stored)
{
    struct resolved r;
    slot_resolve(m, work_slot(m, names->parent, stored), &r);
    for (uint32_t k = 1; k < r.count; k++)
        if (!r.twin[k])
            derived_add(m, names, stored, &r.cands[k]);
}

static void derived_build(struct merge *m, struct derived_names *names)
{
    uint32_t count;
    op_arena_reset(&names->arena);
    names->at = NULL;
    names->stale = NULL;
    names->count = names->cap = names->stale_count = names->stale_cap = names->patched = 0;
    names->passed_any = false;
    struct slice *contested = contested_names(m, names->parent, &count);
    for (uint32_t i = 0; i < count; i++)
        derived_add_slot(m, names, op_dup(&names->arena, contested[i]));
}

/* The losers of what has changed, anew. */
static void derived_patch(struct merge *m, struct derived_names *names)
{
    uint32_t kept = 0;
    ASSERT(!names->passed_any);
    for (uint32_t i = 0; i < names->count; i++) {
        const struct derived_name *d = &names->at[i];
        bool stale = false;
        for (uint32_t k = 0; k < names->stale_count && !stale; k++)
            stale = slice_equal(d->stored, names->stale[k]);
        if (!stale)
            names->at[kept++] = *d;
    }
    names->count = kept;
    for (uint32_t i = 0; i < names->stale_count; i++)
        derived_add_slot(m, names, names->stale[i]);
    names->patched += names->stale_count;
    names->stale_count = 0;
}

static void derived_refresh(struct merge *m, struct derived_names *names)
{
    if (names->stale_count == 0)
        return;
    derived_patch(m, names);
    /* Whom a new name passes, or whether it is passed itself, goes by the order of all slots. */
    if (names->passed_any)
        derived_build(m, names);
    names->valid = work_health(m) == 0;
}

const struct derived_names *derived_names(struct merge *m, struct oid parent)
{
    struct derived_names *victim = NULL;
    m->derived_clock++;
    for (uint32_t i = 0; i < DERIVED_CACHE; i++) {
        struct derived_names *names = &m->derived[i];
        if (names->valid && oid_equal(names->parent, parent)) {
            names->used = m->derived_clock;
            derived_refresh(m, names);
            return names;
        }
        if (victim == NULL || (victim->valid && (!names->valid || names->used < victim->used)))
            victim = names;
    }
    victim->parent = parent;
    victim->used = m->derived_clock;
    derived_build(m, victim);
    victim->valid = work_health(m) == 0;
    return victim;
}

static const struct derived_name *derived_find(const struct derived_names *names, struct slice name)
{
    bool there;
    uint32_t at = derived_place(names, name, &there);
    return there ? &names->at[at] : NULL;
}

/* ---- lookup ---- */

static void show_plain(struct merge *m, const struct slot *s, struct shown *ret)
{
    struct resolved r;
    slot_resolve(m, s, &r);
    *ret = (struct shown){.oid = r.cands[0].oid, .stored = s->name, .stamp = r.cands[0].stamp};
    for (uint32_t i = 1; i < r.count; i++)
        if (r.twin[i])
            ret->twins[ret->twin_count++] = r.cands[i].oid;
        else
            ret->contested = true;
}

static void show_derived(const struct derived_name *d, struct shown *ret)
{
    *ret = (struct shown){
        .oid = d->oid, .stored = d->stored, .stamp = d->stamp, .contested = true, .derived = true};
}

int merge_lookup(struct merge *m, struct oid parent, struct slice name, struct shown *ret)
{
    ASSERT(oid_shard(parent) == m->shard);
    work_begin(m);
    const struct slot *s = work_slot(m, parent, name);
    if (s->entry_count + s->dir_count > 0) {
        show_plain(m, s, ret);
        return work_health(m);
    }
    if (!m->contested_any || !name_is_derived_form(name) || work_dir(m, parent)->contested == 0) {
        int rc = work_health(m);
        return rc != 0 ? rc : ERR_NOT_FOUND;
    }
    const struct derived_name *d = derived_find(derived_names(m, parent), name);
    int rc = work_health(m);
    if (rc != 0)
        return rc;
    if (d == NULL)
        return ERR_NOT_FOUND;
    show_derived(d, ret);
    return 0;
}

bool merge_dir_empty(struct merge *m, struct oid dir)
{
    work_begin(m);
    return work_dir(m, dir)->entries == 0;
}

/* ---- listing ---- */

struct listing {
    struct merge *m;
    struct oid parent;
    const struct derived_names *names; /* NULL: no losers here */
    uint32_t next;                     /* of names */
    bool (*fn)(void *ctx, struct slice visible, const struct shown *s);
    void *ctx;
    struct buf name; /* of the slot that is shown */
    int rc;
};

/* Shows the losers' names below `limit` (ptr NULL: all). False: the caller has had enough. */
static bool list_derived(struct listing *l, struct slice limit)
{
    while (l->names != NULL && l->next < l->names->count) {
        const struct derived_name *d = &l->names->at[l->next];
        struct shown shown;
        if (limit.ptr != NULL && slice_cmp(d->visible, limit) > 0)
            return true;
        l->next++;
        show_derived(d, &shown);
        if (!l->fn(l->ctx, d->visible, &shown))
            return false;
    }
    return true;
}

static bool list_slot(struct listing *l, struct slice name, struct slice value)
{
    struct slot s = {.parent = l->parent};
    struct shown shown;
    buf_clear(&l->name);
    buf_append(&l->name, name.ptr, name.len);
    s.name = buf_slice(&l->name);
    work_begin(l->m);
    l->rc = slot_decode(op_dup(&l->m->work.arena, value), &l->m->work.arena, &s);
    if (l->rc != 0)
        return false;
    s.name = buf_slice(&l->name);
    if (!list_derived(l, s.name))
        return false;
    show_plain(l->m, &s, &shown);
    return l->fn(l->ctx, s.name, &shown);
}

int merge_list(struct merge *m,
               struct oid parent,
               struct slice after,
               bool (*fn)(void *ctx, struct slice visible, const struct shown *s),
               void *ctx)
{
    ASSERT(oid_shard(parent) == m->shard);
    struct listing l = {.m = m, .parent = parent, .fn = fn, .ctx = ctx};
    work_begin(m);
    if (m->contested_any && work_dir(m, parent)->contested > 0) {
        l.names = derived_names(m, parent);
        while (l.next < l.names->count && slice_cmp(l.names->at[l.next].visible, after) <= 0)
            l.next++;
    }
    struct buf start = {.ptr = NULL};
    struct slice key = key_name(m, KEY_SLOT, parent, after);
    buf_append(&start, key.ptr, key.len);
    struct state_scan it;
    bool more = true;
    state_scan_begin(m->state, &it, key_oid(m, KEY_SLOT, parent), buf_slice(&start));
    while (more && state_scan_next(&it)) {
        struct slice name = slice_of(it.key.ptr + 17, it.key.len - 17);
        if (after.len == 0 || slice_cmp(name, after) > 0)
            more = list_slot(&l, name, it.value);
    }
    state_scan_end(&it);
    if (more && l.rc == 0)
        (void)list_derived(&l, slice_of(NULL, 0)); /* the last thing shown: nothing to stop */
    buf_deinit(&start);
    buf_deinit(&l.name);
    return l.rc != 0 ? l.rc : work_health(m);
}
