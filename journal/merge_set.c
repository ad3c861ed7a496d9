/* Small sets, registers and the questions rules ask of one record. */
#include "journal/merge_int.h"
#include "base/plant.h"

void *array_grow(struct op_arena *a, void *at, uint32_t count, uint32_t *cap, size_t size)
{
    if (count < *cap)
        return at;
    *cap = *cap < 2 ? 4 : *cap * 2;
    void *bigger = op_alloc(a, *cap * size);
    if (count > 0)
        memcpy(bigger, at, count * size);
    return bigger;
}

static uint32_t dots_find(const struct dots *s, struct dot d)
{
    uint32_t low = 0;
    uint32_t high = s->count;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (dot_cmp(s->at[mid], d) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

bool dots_has(const struct dots *s, struct dot d)
{
    uint32_t i = dots_find(s, d);
    return i < s->count && dot_equal(s->at[i], d);
}

static void dots_copy(struct dot *to, const struct dots *from, uint32_t first, uint32_t count)
{
    if (count > 0)
        memcpy(to, from->at + first, count * sizeof *to);
}

/* Copies on write: dir_rec.told keeps the array it was given. */
void dots_add(struct dots *s, struct op_arena *a, struct dot d)
{
    uint32_t i = dots_find(s, d);
    if (i < s->count && dot_equal(s->at[i], d))
        return;
    struct dot *at = op_alloc(a, (s->count + 1) * sizeof *at);
    dots_copy(at, s, 0, i);
    at[i] = d;
    dots_copy(at + i + 1, s, i, s->count - i);
    s->at = at;
    s->count++;
}

void dots_drop(struct dots *s, struct op_arena *a, struct dot d)
{
    uint32_t i = dots_find(s, d);
    if (i == s->count || !dot_equal(s->at[i], d))
        return;
    struct dot *at = op_alloc(a, s->count * sizeof *at);
    dots_copy(at, s, 0, i);
    dots_copy(at + i, s, i + 1, s->count - i - 1);
    s->at = at;
    s->count--;
}

static int when_cmp(const struct when *w, struct stamp stamp, int64_t ns)
{
    int order = stamp_cmp(w->stamp, stamp);
    /* Stamps of one site may be equal in two shards; the time decides then, at every site. */
    if (order == 0)
        order = w->ns < ns ? -1 : w->ns > ns;
    return order;
}

void when_raise(struct when *w, struct stamp stamp, int64_t ns)
{
    if (PLANTED(10) || when_cmp(w, stamp, ns) < 0)
        *w = (struct when){.stamp = stamp, .ns = ns};
}

void when_lower(struct when *w, struct stamp stamp, int64_t ns)
{
    if (stamp_is_none(w->stamp) || when_cmp(w, stamp, ns) > 0)
        *w = (struct when){.stamp = stamp, .ns = ns};
}

/* Rule 9: the higher stamp wins; equal stamps (two shards of one site) are decided by the value. */
bool lww_set(struct lww *r, const struct reg *value, struct op_arena *a)
{
    int order = stamp_cmp(r->stamp, value->stamp);
    if (order == 0)
        order = r->present != value->present ? (r->present ? 1 : -1)
                                             : slice_cmp(r->value, value->value);
    bool plant = PLANTED(6) || (PLANTED(60) && value->key.len > 1);
    if (order >= 0 && !plant)
        return false;
    r->stamp = value->stamp;
    r->present = value->present;
    r->value = op_dup(a, value->present ? value->value : slice_of(NULL, 0));
    return true;
}

bool file_unseen(const struct file_rec *f, uint32_t i)
{
    return !dots_has(&f->seen, f->vers[i].dot);
}

static bool any_unseen(const struct file_rec *f)
{
    for (uint32_t i = 0; i < f->ver_count; i++)
        if (file_unseen(f, i))
            return true;
    return false;
}

uint32_t file_versions(const struct file_rec *f, struct op_arena *a, const struct ver ***ret)
{
    bool unseen = any_unseen(f);
    uint32_t count = 0;
    const struct ver **list = op_alloc(a, f->ver_count * sizeof *list);
    for (uint32_t i = 0; i < f->ver_count; i++)
        if (!unseen || file_unseen(f, i))
            list[count++] = &f->vers[i];
    *ret = list;
    return count;
}

const struct ver *file_shown(const struct file_rec *f)
{
    for (uint32_t i = f->ver_count; i-- > 0;)
        if (file_unseen(f, i))
            return &f->vers[i];
    return f->ver_count == 0 ? NULL : &f->vers[f->ver_count - 1];
}

uint32_t file_names(const struct file_rec *f)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < f->ref_count; i++)
        count += i == 0 || !oid_equal(f->refs[i].parent, f->refs[i - 1].parent) ||
                 !slice_equal(f->refs[i].name, f->refs[i - 1].name);
    return count;
}

/* What was deleted and replaced can never come back, so only dots of versions that are here need
 * to be remembered; a file whose fork has not arrived keeps all. */
void file_prune_seen(struct file_rec *f, struct op_arena *a)
{
    if (!f->born || f->seen.count == 0)
        return;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < f->ver_count; i++)
        kept += !file_unseen(f, i);
    if (kept == f->seen.count)
        return;
    struct dots seen = {.at = NULL};
    for (uint32_t i = 0; i < f->ver_count; i++)
        if (!file_unseen(f, i))
            dots_add(&seen, a, f->vers[i].dot);
    f->seen = seen;
}

bool file_owes_relink(const struct file_rec *f)
{
    return !PLANTED(2) && f->ref_count == 0 && !stamp_is_none(f->last_stamp) && any_unseen(f);
}

bool file_owes_fork(const struct file_rec *f)
{
    if (f->ref_count == 0 || f->ver_count < 2 || PLANTED(3))
        return false;
    uint32_t unseen = 0;
    for (uint32_t i = 0; i < f->ver_count; i++)
        unseen += file_unseen(f, i);
    return unseen != 1;
}

bool file_is_dead(const struct file_rec *f)
{
    return f->ref_count == 0 && !stamp_is_none(f->last_stamp) && f->early.count == 0;
}

bool dir_alive(const struct dir_rec *d)
{
    return oid_is_root(d->oid) || d->life.count > 0;
}

bool dir_owes_revive(const struct dir_rec *d)
{
    return !PLANTED(4) && d->has_birth && !dir_alive(d) && d->entries > 0;
}

struct position dir_position(const struct dir_rec *d)
{
    if (d->has_moved)
        return d->moved;
    return (struct position){
        .parent = d->birth.parent, .name = d->birth.name, .stamp = d->born.stamp, .ns = d->born.ns};
}

static int entry_cmp(const struct entry *a, const struct entry *b)
{
    int order = dot_cmp(a->dot, b->dot);
    return order != 0 ? order : oid_cmp(a->oid, b->oid);
}

void slot_add_entry(struct slot *s, struct op_arena *a, const struct entry *e)
{
    uint32_t i = 0;
    while (i < s->entry_count && entry_cmp(&s->entries[i], e) < 0)
        i++;
    if (i < s->entry_count && entry_cmp(&s->entries[i], e) == 0)
        return;
    s->entries = array_grow(a, s->entries, s->entry_count, &s->entry_cap, sizeof *e);
    memmove(&s->entries[i + 1], &s->entries[i], (s->entry_count - i) * sizeof *e);
    s->entries[i] = *e;
    s->entry_count++;
    s->dirty = true;
}

void slot_drop_entry(struct slot *s, struct oid oid, struct dot dot)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->entry_count; i++)
        if ((!PLANTED(9) && !dot_equal(s->entries[i].dot, dot)) ||
            !oid_equal(s->entries[i].oid, oid))
            s->entries[kept++] = s->entries[i];
    if (kept == s->entry_count)
        return;
    s->entry_count = kept;
    s->dirty = true;
}

void slot_put_dir(struct slot *s, struct op_arena *a, const struct indexed *d)
{
    uint32_t i = 0;
    while (i < s->dir_count && oid_cmp(s->dirs[i].oid, d->oid) < 0)
        i++;
    if (i == s->dir_count || !oid_equal(s->dirs[i].oid, d->oid)) {
        s->dirs = array_grow(a, s->dirs, s->dir_count, &s->dir_cap, sizeof *d);
        memmove(&s->dirs[i + 1], &s->dirs[i], (s->dir_count - i) * sizeof *d);
        s->dir_count++;
    }
    s->dirs[i] = *d;
    s->dirty = true;
}

void slot_drop_dir(struct slot *s, struct oid oid)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->dir_count; i++)
        if (!oid_equal(s->dirs[i].oid, oid))
            s->dirs[kept++] = s->dirs[i];
    if (kept == s->dir_count)
        return;
    s->dir_count = kept;
    s->dirty = true;
}

static int ref_cmp(const struct ref *a, const struct ref *b)
{
    int order = oid_cmp(a->parent, b->parent);
    if (order == 0)
        order = slice_cmp(a->name, b->name);
    return order != 0 ? order : dot_cmp(a->dot, b->dot);
}

static uint32_t ref_find(const struct file_rec *f, const struct ref *r)
{
    uint32_t low = 0;
    uint32_t high = f->ref_count;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (ref_cmp(&f->refs[mid], r) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

void file_add_ref(struct file_rec *f, struct op_arena *a, const struct ref *r)
{
    uint32_t i = ref_find(f, r);
    if (i < f->ref_count && ref_cmp(&f->refs[i], r) == 0)
        return;
    f->refs = array_grow(a, f->refs, f->ref_count, &f->ref_cap, sizeof *r);
    memmove(&f->refs[i + 1], &f->refs[i], (f->ref_count - i) * sizeof *r);
    f->refs[i] = *r;
    f->ref_count++;
}

bool file_drop_ref(struct file_rec *f, const struct ref *r)
{
    uint32_t i = ref_find(f, r);
    if (i == f->ref_count || ref_cmp(&f->refs[i], r) != 0)
        return false;
    f->ref_count--;
    memmove(&f->refs[i], &f->refs[i + 1], (f->ref_count - i) * sizeof *r);
    return true;
}

static int ver_cmp(const struct ver *a, const struct ver *b)
{
    int order = stamp_cmp(a->stamp, b->stamp);
    return order != 0 ? order : dot_cmp(a->dot, b->dot);
}

void file_add_version(struct file_rec *f, struct op_arena *a, const struct ver *v)
{
    uint32_t i = f->ver_count;
    while (i > 0 && ver_cmp(&f->vers[i - 1], v) > 0)
        i--;
    if (i > 0 && dot_equal(f->vers[i - 1].dot, v->dot))
        return;
    f->vers = array_grow(a, f->vers, f->ver_count, &f->ver_cap, sizeof *v);
    memmove(&f->vers[i + 1], &f->vers[i], (f->ver_count - i) * sizeof *v);
    f->vers[i] = *v;
    f->ver_count++;
}

bool file_drop_version(struct file_rec *f, struct dot dot)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < f->ver_count; i++)
        if (!dot_equal(f->vers[i].dot, dot))
            f->vers[kept++] = f->vers[i];
    bool dropped = kept < f->ver_count;
    f->ver_count = kept;
    return dropped;
}

const site_id_t *dots_sites(const struct dots *s, struct op_arena *a, uint32_t *ret_count)
{
    site_id_t *sites = op_alloc(a, s->count * sizeof *sites);
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        uint32_t k = 0;
        while (k < count && sites[k] < s->at[i].site)
            k++;
        if (k < count && sites[k] == s->at[i].site)
            continue;
        memmove(&sites[k + 1], &sites[k], (count - k) * sizeof *sites);
        sites[k] = s->at[i].site;
        count++;
    }
    *ret_count = count;
    return sites;
}
