#include "client/inode_table.h"

#include "base/assert.h"

#define SLOTS_MIN 1024u
#define ID_EXTRA (UINT64_C(1) << 63)

struct inode_table {
    pthread_mutex_t lock;
    struct inode **slots; /* chains by hash of the id */
    size_t slot_count;    /* a power of two */
    size_t count;
    uint64_t extra_next; /* node ids given out for collided numbers */
    size_t extra_count;  /* of them alive: lookups by oid scan only when there are any */
    void (*evicted)(void *ctx, struct inode *i);
    void *ctx;
    struct names_budget names_budget;
};

static size_t slot_of(const struct inode_table *t, uint64_t id)
{
    uint64_t h = id * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(h >> 32) & (t->slot_count - 1);
}

struct inode_table *inode_table_new(void (*evicted)(void *ctx, struct inode *i), void *ctx)
{
    struct inode_table *t = mem_calloc(1, sizeof *t);
    pthread_mutex_init(&t->lock, NULL);
    names_budget_init(&t->names_budget);
    t->slot_count = SLOTS_MIN;
    t->slots = mem_calloc(t->slot_count, sizeof *t->slots);
    t->evicted = evicted;
    t->ctx = ctx;
    return t;
}

static void inode_free(struct inode_table *t, struct inode *i)
{
    if (t->evicted != NULL)
        t->evicted(t->ctx, i);
    ASSERT(i->file == NULL);
    inode_names_drop(&i->names, &t->names_budget);
    pthread_mutex_destroy(&i->lock);
    mem_free(i);
}

void inode_table_free(struct inode_table *t)
{
    if (t == NULL)
        return;
    for (size_t s = 0; s < t->slot_count; s++) {
        while (t->slots[s] != NULL) {
            struct inode *i = t->slots[s];
            t->slots[s] = i->next;
            ASSERT_EQ(i->refs, 0);
            inode_free(t, i);
        }
    }
    mem_free(t->slots);
    names_budget_deinit(&t->names_budget);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

static struct inode *find_id(const struct inode_table *t, uint64_t id)
{
    struct inode *i = t->slots[slot_of(t, id)];
    while (i != NULL && i->id != id)
        i = i->next;
    return i;
}

/* Collided objects are few; they are found by walking all. */
static struct inode *find_extra(const struct inode_table *t, struct oid oid)
{
    for (size_t s = 0; t->extra_count > 0 && s < t->slot_count; s++)
        for (struct inode *i = t->slots[s]; i != NULL; i = i->next)
            if ((i->id & ID_EXTRA) != 0 && oid_equal(i->oid, oid))
                return i;
    return NULL;
}

static struct inode *find_oid(const struct inode_table *t, struct oid oid, uint64_t ino)
{
    struct inode *i = find_id(t, ino);
    if (i != NULL && oid_equal(i->oid, oid))
        return i;
    return find_extra(t, oid);
}

static void grow(struct inode_table *t)
{
    struct inode **old = t->slots;
    size_t old_count = t->slot_count;
    t->slot_count *= 2;
    t->slots = mem_calloc(t->slot_count, sizeof *t->slots);
    for (size_t s = 0; s < old_count; s++) {
        while (old[s] != NULL) {
            struct inode *i = old[s];
            old[s] = i->next;
            size_t to = slot_of(t, i->id);
            i->next = t->slots[to];
            t->slots[to] = i;
        }
    }
    mem_free(old);
}

static struct inode *add(struct inode_table *t, struct oid oid, uint64_t ino)
{
    uint64_t id = ino;
    if (find_id(t, ino) != NULL) {
        id = ID_EXTRA | ++t->extra_next;
        t->extra_count++;
    }
    if (t->count >= t->slot_count)
        grow(t);
    struct inode *i = mem_calloc(1, sizeof *i);
    i->id = id;
    i->oid = oid;
    pthread_mutex_init(&i->lock, NULL);
    size_t s = slot_of(t, id);
    i->next = t->slots[s];
    t->slots[s] = i;
    t->count++;
    return i;
}

struct inode *
inode_table_enter(struct inode_table *t, struct oid oid, uint64_t ino, uint64_t lookups)
{
    ASSERT((ino & ID_EXTRA) == 0);
    pthread_mutex_lock(&t->lock);
    struct inode *i = find_oid(t, oid, ino);
    if (i == NULL)
        i = add(t, oid, ino);
    i->lookups += lookups;
    i->refs++;
    pthread_mutex_unlock(&t->lock);
    return i;
}

struct inode *inode_table_get(struct inode_table *t, uint64_t id)
{
    pthread_mutex_lock(&t->lock);
    struct inode *i = find_id(t, id);
    if (i != NULL)
        i->refs++;
    pthread_mutex_unlock(&t->lock);
    return i;
}

struct inode *inode_table_find(struct inode_table *t, struct oid oid)
{
    pthread_mutex_lock(&t->lock);
    struct inode *i = find_oid(t, oid, oid_ino(oid));
    if (i != NULL)
        i->refs++;
    pthread_mutex_unlock(&t->lock);
    return i;
}

void inode_table_find_each(struct inode_table *t,
                           const struct oid *oids,
                           size_t count,
                           struct inode **ret)
{
    pthread_mutex_lock(&t->lock);
    for (size_t k = 0; k < count; k++) {
        ret[k] = find_oid(t, oids[k], oid_ino(oids[k]));
        if (ret[k] != NULL)
            ret[k]->refs++;
    }
    pthread_mutex_unlock(&t->lock);
}

struct inode *inode_ref(struct inode_table *t, struct inode *i)
{
    pthread_mutex_lock(&t->lock);
    ASSERT(i->refs > 0);
    i->refs++;
    pthread_mutex_unlock(&t->lock);
    return i;
}

/* Unlinks `i` when nobody needs it any more; the caller then frees it without the lock. */
static bool release(struct inode_table *t, struct inode *i)
{
    if (i->refs > 0 || i->lookups > 0)
        return false;
    struct inode **at = &t->slots[slot_of(t, i->id)];
    while (*at != i)
        at = &(*at)->next;
    *at = i->next;
    t->count--;
    if ((i->id & ID_EXTRA) != 0)
        t->extra_count--;
    return true;
}

void inode_unref(struct inode_table *t, struct inode *i)
{
    if (i == NULL)
        return;
    pthread_mutex_lock(&t->lock);
    ASSERT(i->refs > 0);
    i->refs--;
    bool gone = release(t, i);
    pthread_mutex_unlock(&t->lock);
    if (gone)
        inode_free(t, i);
}

void inode_unref_each(struct inode_table *t, struct inode **inodes, size_t count)
{
    size_t gone = 0;
    pthread_mutex_lock(&t->lock);
    for (size_t k = 0; k < count; k++) {
        if (inodes[k] == NULL)
            continue;
        ASSERT(inodes[k]->refs > 0);
        inodes[k]->refs--;
        if (release(t, inodes[k]))
            inodes[gone++] = inodes[k];
    }
    pthread_mutex_unlock(&t->lock);
    for (size_t k = 0; k < gone; k++)
        inode_free(t, inodes[k]);
}

void inode_table_forget(struct inode_table *t, uint64_t id, uint64_t lookups)
{
    pthread_mutex_lock(&t->lock);
    struct inode *i = find_id(t, id);
    bool gone = false;
    if (i != NULL) {
        i->lookups -= MIN(i->lookups, lookups);
        gone = release(t, i);
    }
    pthread_mutex_unlock(&t->lock);
    if (gone)
        inode_free(t, i);
}

uint64_t inode_table_lookups(struct inode_table *t, struct oid oid)
{
    pthread_mutex_lock(&t->lock);
    const struct inode *i = find_oid(t, oid, oid_ino(oid));
    uint64_t lookups = i == NULL ? 0 : i->lookups;
    pthread_mutex_unlock(&t->lock);
    return lookups;
}

bool inode_table_referenced(struct inode_table *t)
{
    bool any = false;
    pthread_mutex_lock(&t->lock);
    for (size_t s = 0; s < t->slot_count && !any; s++)
        for (const struct inode *i = t->slots[s]; i != NULL && !any; i = i->next)
            any = i->refs > 0;
    pthread_mutex_unlock(&t->lock);
    return any;
}

size_t inode_table_count(struct inode_table *t)
{
    pthread_mutex_lock(&t->lock);
    size_t count = t->count;
    pthread_mutex_unlock(&t->lock);
    return count;
}

struct inode **inode_table_all(struct inode_table *t, size_t *ret_count)
{
    pthread_mutex_lock(&t->lock);
    struct inode **all = mem_calloc(t->count + 1, sizeof(struct inode *));
    size_t n = 0;
    for (size_t s = 0; s < t->slot_count; s++) {
        for (struct inode *i = t->slots[s]; i != NULL; i = i->next) {
            i->refs++;
            all[n++] = i;
        }
    }
    pthread_mutex_unlock(&t->lock);
    *ret_count = n;
    return all;
}

void inode_attr_store(struct inode *i, const struct fs_attr *a, uint64_t since)
{
    pthread_mutex_lock(&i->lock);
    if (since >= i->attr_min && since >= i->attr_time) {
        i->attr = *a;
        i->attr_time = since;
    }
    pthread_mutex_unlock(&i->lock);
}

void inode_attr_changed(struct inode *i,
                        struct inode_clock *clock,
                        const struct fs_attr *a,
                        uint64_t since)
{
    /* Answers to questions asked before now may show the object as it was before the change. */
    uint64_t now = inode_clock_tick(clock);
    pthread_mutex_lock(&i->lock);
    i->attr_min = MAX(i->attr_min, now);
    /* Replies to two changes of ours may come in either order; change times tell. */
    if (inode_clock_fresh(clock, i->oid, since) &&
        (i->attr_time == 0 || a->ctime_ns >= i->attr.ctime_ns)) {
        i->attr = *a;
        i->attr_time = i->attr_min;
    }
    pthread_mutex_unlock(&i->lock);
}

bool inode_attr_load(struct inode *i, struct inode_clock *clock, struct fs_attr *ret)
{
    pthread_mutex_lock(&i->lock);
    bool known = i->attr_time != 0 && i->attr_time >= i->attr_min &&
                 inode_clock_attrs_fresh(clock, i->oid, i->attr_time);
    if (known)
        *ret = i->attr;
    pthread_mutex_unlock(&i->lock);
    return known;
}

void inode_attr_drop(struct inode *i, struct inode_clock *clock)
{
    uint64_t now = inode_clock_tick(clock);
    pthread_mutex_lock(&i->lock);
    i->attr_min = MAX(i->attr_min, now);
    pthread_mutex_unlock(&i->lock);
}

bool inode_name_lacks(struct inode_table *t,
                      struct inode *dir,
                      struct inode_clock *clock,
                      struct slice name)
{
    uint64_t since = 0;
    pthread_mutex_lock(&dir->lock);
    bool lacks = inode_names_lacks(&dir->names, &t->names_budget, name, &since);
    if (lacks && !inode_clock_fresh(clock, dir->oid, since)) {
        inode_names_drop(&dir->names, &t->names_budget);
        lacks = false;
    }
    pthread_mutex_unlock(&dir->lock);
    return lacks;
}

void inode_name_begin(struct inode_table *t, struct inode *dir, struct slice name, bool make)
{
    pthread_mutex_lock(&dir->lock);
    dir->names_changing++;
    if (make)
        inode_names_add(&dir->names, &t->names_budget, name);
    pthread_mutex_unlock(&dir->lock);
}

void inode_name_end(
    struct inode_table *t, struct inode *dir, struct slice name, enum name_end how, struct oid oid)
{
    pthread_mutex_lock(&dir->lock);
    ASSERT(dir->names_changing > 0);
    dir->names_changing--;
    switch (how) {
    case NAME_UNKNOWN:
        inode_names_unlist(&dir->names, &t->names_budget);
        break;
    case NAME_MADE:
        inode_names_list(&dir->names, &t->names_budget, name, oid);
        break;
    case NAME_GONE:
        inode_names_remove(&dir->names, &t->names_budget, name);
        break;
    }
    pthread_mutex_unlock(&dir->lock);
}

struct oid inode_name_oid(struct inode *dir, struct slice name)
{
    pthread_mutex_lock(&dir->lock);
    struct oid oid = inode_names_oid(&dir->names, name);
    pthread_mutex_unlock(&dir->lock);
    return oid;
}

bool inode_name_all(struct inode_table *t,
                    struct inode *dir,
                    struct inode_clock *clock,
                    struct names_copy *ret,
                    uint64_t *ret_since)
{
    uint64_t now = inode_clock_now(clock), since;
    pthread_mutex_lock(&dir->lock);
    /* What is being changed is there or not. */
    bool known = dir->names_changing == 0 && inode_names_copy(&dir->names, ret, &since);
    if (known && !inode_clock_fresh(clock, dir->oid, since)) {
        inode_names_drop(&dir->names, &t->names_budget);
        names_copy_deinit(ret);
        known = false;
    }
    pthread_mutex_unlock(&dir->lock);
    if (known)
        *ret_since = now;
    return known;
}

void inode_names_known(struct inode_table *t,
                       struct inode *dir,
                       uint64_t since,
                       const struct fs_entry *entries,
                       uint32_t count)
{
    pthread_mutex_lock(&dir->lock);
    /* What we changed while the question was on its way, the answer may have or not. */
    if (dir->names_changing == 0 && dir->attr_min <= since) {
        inode_names_start(&dir->names, &t->names_budget, since);
        for (uint32_t i = 0; i < count; i++) {
            inode_names_add(&dir->names, &t->names_budget, entries[i].name);
            inode_names_list(&dir->names, &t->names_budget, entries[i].name, entries[i].attr.oid);
        }
    }
    pthread_mutex_unlock(&dir->lock);
}
