/* An open hash of hashes: 0 is free, 1 was removed. */
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

void inode_names_drop(struct inode_names *n, struct names_budget *b)
{
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

void inode_names_remove(struct inode_names *n, const struct names_budget *b, struct slice name)
{
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
