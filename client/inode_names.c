/* An open hash of hashes: 0 is free, 1 was removed. Lists are in the order of the names, as the
 * site lists them, so that numbers of entries mean the same whoever lists. */
#include "client/inode_names.h"

#include <sodium.h>

#include "base/assert.h"

#define SLOTS_MIN 16u
#define FREE 0u
#define REMOVED 1u

void names_budget_init(struct names_budget *b)
{
    _Static_assert(sizeof b->key == crypto_shorthash_KEYBYTES, "one key");
    *b = (struct names_budget){0};
    pthread_mutex_init(&b->lock, NULL);
    randombytes_buf(b->key, sizeof b->key);
}

void names_budget_deinit(struct names_budget *b)
{
    pthread_mutex_destroy(&b->lock);
}

static bool budget_take(struct names_budget *b, uint64_t slots)
{
    pthread_mutex_lock(&b->lock);
    bool fits = b->used + slots <= 2 * (uint64_t)INODE_NAMES_MAX;
    if (fits)
        b->used += slots;
    pthread_mutex_unlock(&b->lock);
    return fits;
}

static void budget_give(struct names_budget *b, uint64_t slots)
{
    pthread_mutex_lock(&b->lock);
    ASSERT(slots <= b->used);
    b->used -= slots;
    pthread_mutex_unlock(&b->lock);
}

static bool budget_take_bytes(struct names_budget *b, size_t bytes)
{
    pthread_mutex_lock(&b->lock);
    bool fits = b->listed_bytes + bytes <= INODE_LISTED_BYTES_MAX;
    if (fits)
        b->listed_bytes += bytes;
    pthread_mutex_unlock(&b->lock);
    return fits;
}

static void budget_give_bytes(struct names_budget *b, size_t bytes)
{
    pthread_mutex_lock(&b->lock);
    ASSERT(bytes <= b->listed_bytes);
    b->listed_bytes -= bytes;
    pthread_mutex_unlock(&b->lock);
}

static uint64_t hash_of(const struct names_budget *b, struct slice name)
{
    uint64_t h;
    crypto_shorthash((unsigned char *)&h, name.ptr, name.len, b->key);
    return h > REMOVED ? h : h + 2;
}

/* Where `h` is, or the free slot that ends the search. */
static uint64_t *find(const struct inode_names *n, uint64_t h)
{
    uint32_t mask = n->slot_count - 1, at = (uint32_t)h & mask;
    while (n->slots[at] != FREE && n->slots[at] != h)
        at = (at + 1) & mask;
    return &n->slots[at];
}

/* ---- the list ---- */

/* What counts of an entry: also the room for it that grew with others. */
static size_t entry_bytes(size_t name_len)
{
    return 2 * sizeof(struct names_entry) + name_len + 1;
}

void inode_names_unlist(struct inode_names *n, struct names_budget *b)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < n->entry_count; i++) {
        bytes += entry_bytes(n->entries[i].len);
        mem_free(n->entries[i].name);
    }
    if (bytes > 0)
        budget_give_bytes(b, bytes);
    mem_free(n->entries);
    n->entries = NULL;
    n->entry_count = n->entry_cap = 0;
    n->listed = false;
}

/* Where `name` is or would be; false: it is not there. */
static bool entry_find(const struct inode_names *n, struct slice name, uint32_t *ret_at)
{
    uint32_t low = 0, high = n->entry_count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        const struct names_entry *e = &n->entries[mid];
        int order = slice_cmp(slice_of(e->name, e->len), name);
        if (order == 0) {
            *ret_at = mid;
            return true;
        }
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *ret_at = low;
    return false;
}

void inode_names_list(struct inode_names *n,
                      struct names_budget *b,
                      struct slice name,
                      struct oid oid)
{
    if (!n->listed)
        return;
    uint32_t at;
    if (entry_find(n, name, &at)) {
        n->entries[at].oid = oid;
        return;
    }
    if (n->entry_count == INODE_LISTED_MAX || !budget_take_bytes(b, entry_bytes(name.len))) {
        inode_names_unlist(n, b);
        return;
    }
    if (n->entry_count == n->entry_cap) {
        n->entry_cap = MAX(8u, n->entry_cap * 2);
        n->entries = mem_realloc(n->entries, n->entry_cap * sizeof *n->entries);
    }
    char *copy = mem_alloc(name.len + 1);
    memcpy(copy, name.ptr, name.len);
    copy[name.len] = '\0';
    memmove(&n->entries[at + 1], &n->entries[at], (n->entry_count - at) * sizeof *n->entries);
    n->entries[at] = (struct names_entry){.oid = oid, .name = copy, .len = name.len};
    n->entry_count++;
}

static void unlist_one(struct inode_names *n, struct names_budget *b, struct slice name)
{
    uint32_t at;
    if (!entry_find(n, name, &at))
        return;
    budget_give_bytes(b, entry_bytes(n->entries[at].len));
    mem_free(n->entries[at].name);
    n->entry_count--;
    memmove(&n->entries[at], &n->entries[at + 1], (n->entry_count - at) * sizeof *n->entries);
}

struct oid inode_names_oid(const struct inode_names *n, struct slice name)
{
    uint32_t at;
    return entry_find(n, name, &at) ? n->entries[at].oid : (struct oid){0};
}

bool inode_names_copy(const struct inode_names *n, struct names_copy *ret, uint64_t *ret_since)
{
    if (!n->listed)
        return false;
    size_t bytes = 0;
    for (uint32_t i = 0; i < n->entry_count; i++)
        bytes += n->entries[i].len + 1;
    /* One piece: what is read first, and what needs the strictest alignment, goes first. */
    *ret = (struct names_copy){.count = n->entry_count};
    ret->names = mem_alloc(n->entry_count * (sizeof(char *) + sizeof(struct oid)) + bytes + 1);
    ret->oids = (struct oid *)(ret->names + n->entry_count);
    char *text = (char *)(ret->oids + n->entry_count);
    for (uint32_t i = 0; i < n->entry_count; i++) {
        const struct names_entry *e = &n->entries[i];
        ret->oids[i] = e->oid;
        ret->names[i] = text;
        memcpy(text, e->name, e->len + 1);
        text += e->len + 1;
    }
    *ret_since = n->since;
    return true;
}

void names_copy_deinit(struct names_copy *c)
{
    mem_free(c->names);
    *c = (struct names_copy){0};
}

/* ---- the set ---- */

void inode_names_drop(struct inode_names *n, struct names_budget *b)
{
    inode_names_unlist(n, b);
    if (n->slot_count > 0)
        budget_give(b, n->slot_count);
    mem_free(n->slots);
    n->slots = NULL;
    n->slot_count = n->count = 0;
    n->since = 0;
}

void inode_names_start(struct inode_names *n, struct names_budget *b, uint64_t since)
{
    ASSERT(since != 0);
    inode_names_drop(n, b);
    n->since = since;
    n->listed = true;
}

/* Room for one more; false: the budget is used up. */
static bool reserve(struct inode_names *n, struct names_budget *b)
{
    if (n->slot_count > 0 && n->count < n->slot_count / 4 * 3)
        return true;
    uint32_t live = 0, size = SLOTS_MIN;
    for (uint32_t i = 0; i < n->slot_count; i++)
        live += n->slots[i] > REMOVED;
    while (live + 1 > size / 2)
        size *= 2;
    if (!budget_take(b, size))
        return false;
    struct inode_names old = *n;
    n->slots = mem_calloc(size, sizeof *n->slots);
    n->slot_count = size;
    n->count = live;
    for (uint32_t i = 0; i < old.slot_count; i++)
        if (old.slots[i] > REMOVED)
            *find(n, old.slots[i]) = old.slots[i];
    if (old.slot_count > 0)
        budget_give(b, old.slot_count);
    mem_free(old.slots);
    return true;
}

void inode_names_add(struct inode_names *n, struct names_budget *b, struct slice name)
{
    if (n->since == 0)
        return;
    uint64_t h = hash_of(b, name);
    if (n->slot_count > 0 && *find(n, h) == h)
        return;
    if (!reserve(n, b)) {
        inode_names_drop(n, b);
        return;
    }
    *find(n, h) = h;
    n->count++;
}

void inode_names_remove(struct inode_names *n, struct names_budget *b, struct slice name)
{
    unlist_one(n, b, name);
    if (n->slot_count == 0)
        return;
    uint64_t h = hash_of(b, name), *slot = find(n, h);
    if (*slot == h)
        *slot = REMOVED;
}

bool inode_names_lacks(const struct inode_names *n,
                       const struct names_budget *b,
                       struct slice name,
                       uint64_t *ret_since)
{
    if (n->since == 0)
        return false;
    *ret_since = n->since;
    return n->slot_count == 0 || *find(n, hash_of(b, name)) == FREE;
}
