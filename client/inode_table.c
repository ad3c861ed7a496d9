#include "client/inode_table.h"

#include "base/assert.h"

#define SLOTS_MIN 1024u
#define ID_EXTRA (UINT64_C(1) << 63)
#define CROWDED_EACH 1024u /* told of again after so many more */
#define WALK_SLOTS 1024u   /* looked at with the lock held */
#define UNKNOWN_TRIES 4u   /* of the ring's hand, each time */

struct inode_table {
    pthread_mutex_t lock;
    struct inode **slots; /* chains by hash of the id */
    size_t slot_count;    /* a power of two */
    size_t count;
    uint64_t extra_next; /* node ids given out for collided numbers */
    size_t extra_count;  /* of them alive: lookups by oid scan only when there are any */
    void (*evicted)(void *ctx, struct inode *i);
    void *ctx;
    struct inode_rest rest;
    size_t limit; /* 0: none */
    void (*crowded)(void *ctx);
    void *crowded_ctx;
    struct inode_known ring; /* of records that were referred to, the hand is at the first */
    size_t ring_count;
    uint64_t attr_min; /* of records that went, the latest */
    struct names_budget names_budget;
};

/* What is to be freed when the lock is not held any more. */
struct gone {
    struct inode *inode; /* nobody knows it any more; with its record */
    struct inode_known *known[UNKNOWN_TRIES + 1];
    unsigned known_count;
    struct file *file;
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
    t->ring.next = t->ring.prev = &t->ring;
    t->evicted = evicted;
    t->ctx = ctx;
    return t;
}

void inode_table_rest(struct inode_table *t, const struct inode_rest *rest)
{
    pthread_mutex_lock(&t->lock);
    t->rest = *rest;
    pthread_mutex_unlock(&t->lock);
}

void inode_table_limit(struct inode_table *t, size_t limit, void (*crowded)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&t->lock);
    t->limit = limit;
    t->crowded = crowded;
    t->crowded_ctx = ctx;
    pthread_mutex_unlock(&t->lock);
}

/* ---- what is known ---- */

/* Somebody refers to it from now on. Lock held. */
static struct inode *ref(struct inode_table *t, struct inode *i)
{
    i->refs++;
    if (i->known != NULL)
        return i;
    struct inode_known *k = mem_calloc(1, sizeof *k);
    pthread_mutex_init(&k->lock, NULL);
    k->inode = i;
    /* What the record before this one had seen of our changes is not known any more. */
    k->attr_min = t->attr_min;
    i->known = k;
    return i;
}

static void known_free(struct inode_table *t, struct inode_known *k)
{
    ASSERT(k->file == NULL);
    inode_names_drop(&k->names, &t->names_budget);
    pthread_mutex_destroy(&k->lock);
    mem_free(k);
}

static void ring_remove(struct inode_table *t, struct inode_known *k)
{
    if (!k->listed)
        return;
    k->next->prev = k->prev;
    k->prev->next = k->next;
    k->listed = false;
    t->ring_count--;
}

static void ring_append(struct inode_table *t, struct inode_known *k)
{
    k->prev = t->ring.prev;
    k->next = &t->ring;
    k->prev->next = k;
    t->ring.prev = k;
    k->listed = true;
    t->ring_count++;
}

/* Nobody refers to its inode. Lock held. */
static void known_take(struct inode_table *t, struct inode_known *k, struct gone *gone)
{
    ring_remove(t, k);
    t->attr_min = MAX(t->attr_min, k->attr_min);
    k->inode->known = NULL;
    gone->known[gone->known_count++] = k;
}

/* Records of inodes that were not referred to for longest go. Lock held. */
static void known_trim(struct inode_table *t, struct gone *gone)
{
    for (unsigned n = 0; n < UNKNOWN_TRIES && t->ring_count > INODE_KNOWN_MAX; n++) {
        struct inode_known *k = t->ring.next;
        if (k->inode->refs == 0 && k->file == NULL && !k->used) {
            known_take(t, k, gone);
            continue;
        }
        k->used = false;
        ring_remove(t, k);
        ring_append(t, k);
    }
}

/* The last reference went, the kernel still knows it. Lock held. */
static void rest(struct inode_table *t, struct inode *i, struct gone *gone)
{
    struct inode_known *k = i->known;
    if (k->file != NULL && t->rest.may_rest != NULL && t->rest.may_rest(t->rest.ctx, i)) {
        gone->file = k->file;
        k->file = NULL;
    }
    if (k->file == NULL && k->attr_time == 0 && k->no_caps_time == 0 && k->names.since == 0) {
        known_take(t, k, gone); /* there is nothing in it */
        return;
    }
    k->used = k->listed;
    if (!k->listed)
        ring_append(t, k);
    known_trim(t, gone);
}

static void inode_free(struct inode_table *t, struct inode *i)
{
    if (t->evicted != NULL)
        t->evicted(t->ctx, i);
    if (i->known != NULL)
        known_free(t, i->known);
    mem_free(i);
}

static void free_gone(struct inode_table *t, struct gone *gone)
{
    if (gone->file != NULL)
        t->rest.rested(t->rest.ctx, gone->file);
    for (unsigned n = 0; n < gone->known_count; n++)
        known_free(t, gone->known[n]);
    if (gone->inode != NULL)
        inode_free(t, gone->inode);
}

/* ---- the table ---- */

void inode_table_free(struct inode_table *t)
{
    if (t == NULL)
        return;
    for (size_t s = 0; s < t->slot_count; s++) {
        while (t->slots[s] != NULL) {
            struct inode *i = t->slots[s];
            t->slots[s] = i->next;
            ASSERT_EQ(i->refs, 0);
            if (i->known != NULL)
                ring_remove(t, i->known);
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
    bool crowded = false;
    if (i == NULL) {
        i = add(t, oid, ino);
        crowded = t->limit > 0 && t->count > t->limit && (t->count - t->limit) % CROWDED_EACH == 1;
    }
    i->lookups += lookups;
    i->used = true;
    (void)ref(t, i);
    void (*tell)(void *ctx) = crowded ? t->crowded : NULL;
    void *ctx = t->crowded_ctx;
    pthread_mutex_unlock(&t->lock);
    if (tell != NULL)
        tell(ctx);
    return i;
}

struct inode *inode_table_get(struct inode_table *t, uint64_t id)
{
    pthread_mutex_lock(&t->lock);
    struct inode *i = find_id(t, id);
    if (i != NULL) {
        i->used = true;
        (void)ref(t, i);
    }
    pthread_mutex_unlock(&t->lock);
    return i;
}

struct inode *inode_table_find(struct inode_table *t, struct oid oid)
{
    pthread_mutex_lock(&t->lock);
    struct inode *i = find_oid(t, oid, oid_ino(oid));
    if (i != NULL)
        (void)ref(t, i);
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
            (void)ref(t, ret[k]);
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

/* Nobody refers to `i`: unlinks it when the kernel does not know it either. Lock held; the caller
 * frees what is gone without it. */
static void release(struct inode_table *t, struct inode *i, struct gone *gone)
{
    if (i->refs > 0)
        return;
    if (i->lookups > 0) {
        if (i->known != NULL)
            rest(t, i, gone);
        return;
    }
    struct inode **at = &t->slots[slot_of(t, i->id)];
    while (*at != i)
        at = &(*at)->next;
    *at = i->next;
    t->count--;
    if ((i->id & ID_EXTRA) != 0)
        t->extra_count--;
    if (i->known != NULL)
        ring_remove(t, i->known);
    if (t->rest.leaves != NULL)
        t->rest.leaves(t->rest.ctx, i->oid);
    gone->inode = i;
}

void inode_unref(struct inode_table *t, struct inode *i)
{
    struct gone gone = {0};
    if (i == NULL)
        return;
    pthread_mutex_lock(&t->lock);
    ASSERT(i->refs > 0);
    i->refs--;
    release(t, i, &gone);
    pthread_mutex_unlock(&t->lock);
    free_gone(t, &gone);
}

void inode_unref_each(struct inode_table *t, struct inode **inodes, size_t count)
{
    pthread_mutex_lock(&t->lock);
    for (size_t k = 0; k < count; k++) {
        struct gone gone = {0};
        if (inodes[k] == NULL)
            continue;
        ASSERT(inodes[k]->refs > 0);
        inodes[k]->refs--;
        release(t, inodes[k], &gone);
        if (gone.inode == NULL && gone.known_count == 0 && gone.file == NULL)
            continue;
        pthread_mutex_unlock(&t->lock);
        free_gone(t, &gone);
        pthread_mutex_lock(&t->lock);
    }
    pthread_mutex_unlock(&t->lock);
}

void inode_table_forget(struct inode_table *t, uint64_t id, uint64_t lookups)
{
    struct gone gone = {0};
    pthread_mutex_lock(&t->lock);
    struct inode *i = find_id(t, id);
    if (i != NULL) {
        i->lookups -= MIN(i->lookups, lookups);
        if (i->lookups == 0)
            release(t, i, &gone);
    }
    pthread_mutex_unlock(&t->lock);
    free_gone(t, &gone);
}

uint64_t inode_table_lookups(struct inode_table *t, struct oid oid)
{
    pthread_mutex_lock(&t->lock);
    const struct inode *i = find_oid(t, oid, oid_ino(oid));
    uint64_t lookups = i == NULL ? 0 : i->lookups;
    pthread_mutex_unlock(&t->lock);
    return lookups;
}

bool inode_table_has(struct inode_table *t, struct oid oid)
{
    pthread_mutex_lock(&t->lock);
    bool has = find_oid(t, oid, oid_ino(oid)) != NULL;
    pthread_mutex_unlock(&t->lock);
    return has;
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

/* ---- walks ---- */

static bool unused(struct inode *i)
{
    bool was_used = i->used;
    i->used = false;
    return !was_used && i->refs == 0 && i->lookups > 0 && i->id != INODE_ROOT_ID &&
           (i->known == NULL || i->known->file == NULL);
}

static bool is_dir(struct inode *i)
{
    return oid_is_dir(i->oid);
}

static bool is_no_dir(struct inode *i)
{
    return !oid_is_dir(i->oid);
}

/* The ids of slot `s`; false: they do not fit behind those that are there. */
static bool slot_ids(const struct inode_table *t,
                     size_t s,
                     bool (*wanted)(struct inode *i),
                     struct inode_ids *ids)
{
    size_t before = ids->count;
    for (struct inode *i = t->slots[s]; i != NULL; i = i->next) {
        if (!wanted(i))
            continue;
        if (ids->count == INODE_IDS_MAX) {
            ids->count = before > 0 ? before : ids->count; /* a chain of so many there is not */
            return false;
        }
        ids->at[ids->count++] = i->id;
    }
    return true;
}

/* A table that grows meanwhile puts the inodes of a slot into that one or one further up: what is
 * to be seen yet stays ahead. */
static bool
walk(struct inode_table *t, size_t *at, bool (*wanted)(struct inode *i), struct inode_ids *ret)
{
    ret->count = 0;
    pthread_mutex_lock(&t->lock);
    size_t end = MIN(*at + WALK_SLOTS, t->slot_count);
    while (*at < end && slot_ids(t, *at, wanted, ret))
        ++*at;
    bool more = *at < t->slot_count;
    pthread_mutex_unlock(&t->lock);
    return more;
}

bool inode_table_ids(struct inode_table *t,
                     size_t *at,
                     enum inode_walk which,
                     struct inode_ids *ret)
{
    return walk(t, at, which == INODE_DIRS ? is_dir : is_no_dir, ret);
}

bool inode_table_unused(struct inode_table *t, size_t *at, struct inode_ids *ret)
{
    bool more = walk(t, at, unused, ret);
    if (!more)
        *at = 0;
    return more;
}

/* ---- attributes ---- */

void inode_attr_store(struct inode *i, const struct fs_attr *a, uint64_t since)
{
    pthread_mutex_lock(&i->known->lock);
    if (since >= i->known->attr_min && since >= i->known->attr_time) {
        i->known->attr = *a;
        i->known->attr_time = since;
    }
    pthread_mutex_unlock(&i->known->lock);
}

void inode_attr_changed(struct inode *i,
                        struct inode_clock *clock,
                        const struct fs_attr *a,
                        uint64_t since)
{
    /* Answers to questions asked before now may show the object as it was before the change. */
    uint64_t now = inode_clock_tick(clock);
    pthread_mutex_lock(&i->known->lock);
    i->known->attr_min = MAX(i->known->attr_min, now);
    /* Replies to two changes of ours may come in either order; change times tell. */
    if (inode_clock_fresh(clock, i->oid, since) &&
        (i->known->attr_time == 0 || a->ctime_ns >= i->known->attr.ctime_ns)) {
        i->known->attr = *a;
        i->known->attr_time = i->known->attr_min;
    }
    pthread_mutex_unlock(&i->known->lock);
}

bool inode_attr_load(struct inode *i, struct inode_clock *clock, struct fs_attr *ret)
{
    pthread_mutex_lock(&i->known->lock);
    bool known = i->known->attr_time != 0 && i->known->attr_time >= i->known->attr_min &&
                 inode_clock_attrs_fresh(clock, i->oid, i->known->attr_time);
    if (known)
        *ret = i->known->attr;
    pthread_mutex_unlock(&i->known->lock);
    return known;
}

void inode_attr_drop(struct inode *i, struct inode_clock *clock)
{
    uint64_t now = inode_clock_tick(clock);
    pthread_mutex_lock(&i->known->lock);
    i->known->attr_min = MAX(i->known->attr_min, now);
    pthread_mutex_unlock(&i->known->lock);
}

bool inode_name_lacks(struct inode_table *t,
                      struct inode *dir,
                      struct inode_clock *clock,
                      struct slice name)
{
    uint64_t since = 0;
    pthread_mutex_lock(&dir->known->lock);
    bool lacks = inode_names_lacks(&dir->known->names, &t->names_budget, name, &since);
    if (lacks && !inode_clock_fresh(clock, dir->oid, since)) {
        inode_names_drop(&dir->known->names, &t->names_budget);
        lacks = false;
    }
    pthread_mutex_unlock(&dir->known->lock);
    return lacks;
}

void inode_name_begin(struct inode_table *t, struct inode *dir, struct slice name, bool make)
{
    pthread_mutex_lock(&dir->known->lock);
    dir->known->names_changing++;
    if (make)
        inode_names_add(&dir->known->names, &t->names_budget, name);
    pthread_mutex_unlock(&dir->known->lock);
}

void inode_name_end(
    struct inode_table *t, struct inode *dir, struct slice name, enum name_end how, struct oid oid)
{
    pthread_mutex_lock(&dir->known->lock);
    ASSERT(dir->known->names_changing > 0);
    dir->known->names_changing--;
    switch (how) {
    case NAME_UNKNOWN:
        inode_names_unlist(&dir->known->names, &t->names_budget);
        break;
    case NAME_MADE:
        inode_names_list(&dir->known->names, &t->names_budget, name, oid);
        break;
    case NAME_GONE:
        inode_names_remove(&dir->known->names, &t->names_budget, name);
        break;
    }
    pthread_mutex_unlock(&dir->known->lock);
}

struct oid inode_name_oid(struct inode *dir, struct slice name)
{
    pthread_mutex_lock(&dir->known->lock);
    struct oid oid = inode_names_oid(&dir->known->names, name);
    pthread_mutex_unlock(&dir->known->lock);
    return oid;
}

bool inode_name_all(struct inode_table *t,
                    struct inode *dir,
                    struct inode_clock *clock,
                    struct names_copy *ret,
                    uint64_t *ret_since)
{
    uint64_t now = inode_clock_now(clock), since;
    pthread_mutex_lock(&dir->known->lock);
    /* What is being changed is there or not. */
    bool known =
        dir->known->names_changing == 0 && inode_names_copy(&dir->known->names, ret, &since);
    if (known && !inode_clock_fresh(clock, dir->oid, since)) {
        inode_names_drop(&dir->known->names, &t->names_budget);
        names_copy_deinit(ret);
        known = false;
    }
    pthread_mutex_unlock(&dir->known->lock);
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
    pthread_mutex_lock(&dir->known->lock);
    /* What we changed while the question was on its way, the answer may have or not. */
    if (dir->known->names_changing == 0 && dir->known->attr_min <= since) {
        inode_names_start(&dir->known->names, &t->names_budget, since);
        for (uint32_t i = 0; i < count; i++) {
            inode_names_add(&dir->known->names, &t->names_budget, entries[i].name);
            inode_names_list(&dir->known->names, &t->names_budget, entries[i].name,
                             entries[i].attr.oid);
        }
    }
    pthread_mutex_unlock(&dir->known->lock);
}
