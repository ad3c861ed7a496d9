/* Nodes of the ordered map: searching and changing one sorted set of keys, and the memory of the
 * records. Pure. */
#include "journal/state_map_node_int.h"

#include <string.h>

#include "base/assert.h"

/* ---- memory ---- */

#define BLOCK_BYTES ((size_t)(64u * KIB))
/* A map with this many small blocks gets huge ones: it is large, and looked at all over. */
#define BLOCKS_SMALL 32u
#define NODE_ALIGN 16u

struct rec_block {
    struct rec_block *next;
    uint64_t pad; /* keeps records aligned to 16 */
};
struct rec_big {
    struct rec_big *prev, *next;
};

static size_t rec_alloc_bytes(const struct state_map_rec *rec)
{
    return sizeof *rec + rec->capacity;
}

static void *block_take(struct state_map_recs *m, size_t len)
{
    if ((size_t)(m->end - m->at) < len) {
        bool huge = m->block_count >= BLOCKS_SMALL;
        struct rec_block *block = huge ? mem_huge() : mem_alloc(BLOCK_BYTES);
        block->next = m->blocks;
        m->blocks = block;
        m->block_count++;
        m->at = (uint8_t *)(block + 1);
        m->end = (uint8_t *)block + (huge ? MEM_HUGE_BYTES : BLOCK_BYTES);
    }
    void *at = m->at;
    m->at += len;
    return at;
}

/* ---- nodes ---- */

struct node_free {
    struct node_free *next;
};

static size_t node_bytes(bool inner)
{
    size_t bytes = inner ? sizeof(struct state_map_inner) : sizeof(struct state_map_leaf);
    return (bytes + NODE_ALIGN - 1) / NODE_ALIGN * NODE_ALIGN;
}

void *state_map_node_new(struct state_map_recs *m, bool inner)
{
    struct node_free *node = m->free_nodes[inner];
    if (node != NULL)
        m->free_nodes[inner] = node->next;
    else
        node = block_take(m, node_bytes(inner));
    m->bytes += node_bytes(inner);
    return node;
}

void state_map_node_free(struct state_map_recs *m, bool inner, void *node)
{
    struct node_free *f = node;
    f->next = m->free_nodes[inner];
    m->free_nodes[inner] = f;
    m->bytes -= node_bytes(inner);
}

/* ---- records ---- */

static struct state_map_rec *rec_small(struct state_map_recs *m, size_t len)
{
    size_t class = len / REC_STEP;
    struct state_map_rec *rec = m->free[class];
    if (rec != NULL) {
        memcpy(&m->free[class], rec + 1, sizeof(void *));
        return rec;
    }
    return block_take(m, len);
}

static struct state_map_rec *rec_big(struct state_map_recs *m, size_t len)
{
    struct rec_big *big = mem_alloc(sizeof *big + len);
    big->prev = NULL;
    big->next = m->big;
    if (m->big != NULL)
        m->big->prev = big;
    m->big = big;
    return (void *)(big + 1);
}

struct state_map_rec *
state_map_rec_new(struct state_map_recs *m, struct slice key, size_t value_len)
{
    ASSERT(key.len < UINT32_MAX / 4 && value_len < UINT32_MAX / 4);
    size_t need = sizeof(struct state_map_rec) + key.len + value_len;
    /* A freed record holds the list's pointer behind its header. */
    need = MAX(need, sizeof(struct state_map_rec) + sizeof(void *));
    size_t len = (need + REC_STEP - 1) / REC_STEP * REC_STEP;
    struct state_map_rec *rec = len <= REC_SMALL_MAX ? rec_small(m, len) : rec_big(m, len);
    rec->key_len = (uint32_t)key.len;
    rec->value_len = 0;
    rec->capacity = (uint32_t)(len - sizeof *rec);
    if (key.len > 0)
        memcpy(rec + 1, key.ptr, key.len);
    m->bytes += len;
    return rec;
}

void state_map_rec_free(struct state_map_recs *m, struct state_map_rec *rec)
{
    size_t len = rec_alloc_bytes(rec);
    m->bytes -= len;
    if (len <= REC_SMALL_MAX) {
        memcpy(rec + 1, &m->free[len / REC_STEP], sizeof(void *));
        m->free[len / REC_STEP] = rec;
        return;
    }
    struct rec_big *big = (struct rec_big *)(void *)rec - 1;
    if (big->prev != NULL)
        big->prev->next = big->next;
    else
        m->big = big->next;
    if (big->next != NULL)
        big->next->prev = big->prev;
    mem_free(big);
}

void state_map_recs_deinit(struct state_map_recs *m)
{
    while (m->blocks != NULL) {
        struct rec_block *block = m->blocks;
        m->blocks = block->next;
        mem_free(block);
    }
    while (m->big != NULL) {
        struct rec_big *big = m->big;
        m->big = big->next;
        mem_free(big);
    }
    *m = (struct state_map_recs){0};
}

/* ---- keys of one node ---- */

static uint64_t head_of(struct slice key, size_t skip)
{
    uint64_t head = 0;
    if (key.len >= skip + sizeof head) {
        memcpy(&head, key.ptr + skip, sizeof head);
        return __builtin_bswap64(head);
    }
    for (size_t i = 0; i < sizeof head; i++)
        head = head << 8 | (skip + i < key.len ? key.ptr[skip + i] : 0);
    return head;
}

static size_t common_len(struct slice a, struct slice b)
{
    size_t len = MIN(a.len, b.len);
    size_t i = 0;
    while (i < len && a.ptr[i] == b.ptr[i])
        i++;
    return i;
}

/* Compares what lies behind a prefix both are known to share. */
static int tail_cmp(struct slice a, struct slice b, size_t skip)
{
    size_t len = MIN(a.len, b.len);
    int c = len > skip ? memcmp(a.ptr + skip, b.ptr + skip, len - skip) : 0;
    if (c != 0)
        return c;
    return a.len < b.len ? -1 : a.len > b.len;
}

/* The first position, from `low` on, whose head is not below `head`. Branchless. */
static uint32_t heads_below(const struct state_map_keys *k, uint32_t low, uint64_t head)
{
    const uint64_t *base = k->heads + low;
    uint32_t n = k->count - low;
    while (n > 1) {
        uint32_t half = n / 2;
        base += base[half - 1] < head ? half : 0;
        n -= half;
    }
    return (uint32_t)(base - k->heads) + (n == 1 && *base < head);
}

uint32_t state_map_keys_find(const struct state_map_keys *k, struct slice key, bool *ret_equal)
{
    *ret_equal = false;
    /* The search below would meet the node's cache lines one after the other. */
    for (uint32_t i = 0; i < k->count; i += 64 / sizeof k->heads[0])
        __builtin_prefetch(&k->heads[i]);
    size_t plen = k->prefix_len;
    if (plen > 0) {
        size_t len = MIN(plen, key.len);
        int c = len > 0 ? memcmp(key.ptr, k->prefix, len) : 0;
        if (c > 0)
            return k->count;
        if (c < 0 || key.len < plen)
            return 0;
    }
    uint64_t head = head_of(key, plen);
    uint32_t low = heads_below(k, 0, head);
    uint32_t high = low + (low < k->count && k->heads[low] == head);
    /* Names of one directory often have equal heads. */
    if (high > low && high < k->count && k->heads[high] == head)
        high = head == UINT64_MAX ? k->count : heads_below(k, low, head + 1);
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        int c = tail_cmp(state_map_key(k->recs[mid]), key, plen);
        if (c == 0) {
            *ret_equal = true;
            return mid;
        }
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Sets the prefix to the first `len` bytes of the first key and computes the heads. */
static void keys_set_prefix(struct state_map_keys *k, size_t len)
{
    k->prefix_len = (uint16_t)len;
    if (len > 0)
        memcpy(k->prefix, state_map_key(k->recs[0]).ptr, len);
    for (uint32_t i = 0; i < k->count; i++)
        k->heads[i] = head_of(state_map_key(k->recs[i]), len);
}

static void keys_grow_prefix(struct state_map_keys *k)
{
    if (k->count == 0) {
        k->prefix_len = 0;
        return;
    }
    size_t len = common_len(state_map_key(k->recs[0]), state_map_key(k->recs[k->count - 1]));
    len = MIN(len, NODE_PREFIX);
    if (len != k->prefix_len)
        keys_set_prefix(k, len);
}

void state_map_keys_insert(struct state_map_keys *k, uint32_t at, struct state_map_rec *rec)
{
    ASSERT(k->count < NODE_KEYS && at <= k->count);
    struct slice key = state_map_key(rec);
    size_t tail = k->count - at;
    memmove(&k->recs[at + 1], &k->recs[at], tail * sizeof k->recs[0]);
    memmove(&k->heads[at + 1], &k->heads[at], tail * sizeof k->heads[0]);
    k->recs[at] = rec;
    k->count++;
    size_t shared = k->count == 1 ? MIN(key.len, NODE_PREFIX)
                                  : common_len(key, slice_of(k->prefix, k->prefix_len));
    if (k->count == 1 || shared < k->prefix_len)
        keys_set_prefix(k, shared);
    else
        k->heads[at] = head_of(key, k->prefix_len);
}

void state_map_keys_remove(struct state_map_keys *k, uint32_t at)
{
    ASSERT(at < k->count);
    size_t tail = k->count - at - 1u;
    memmove(&k->recs[at], &k->recs[at + 1], tail * sizeof k->recs[0]);
    memmove(&k->heads[at], &k->heads[at + 1], tail * sizeof k->heads[0]);
    k->count--;
}

uint32_t state_map_keys_middle(const struct state_map_keys *k)
{
    uint32_t middle = k->count / 2u;
    for (uint32_t off = 0; off < middle / 2; off++) {
        if (k->heads[middle - off - 1] != k->heads[middle - off])
            return middle - off;
        if (k->heads[middle + off - 1] != k->heads[middle + off])
            return middle + off;
    }
    return middle;
}

void state_map_keys_split(struct state_map_keys *k, uint32_t at, struct state_map_keys *to)
{
    ASSERT(at <= k->count);
    size_t moved = k->count - at;
    memcpy(to->recs, &k->recs[at], moved * sizeof k->recs[0]);
    memcpy(to->heads, &k->heads[at], moved * sizeof k->heads[0]);
    memcpy(to->prefix, k->prefix, k->prefix_len);
    to->prefix_len = k->prefix_len;
    to->count = (uint16_t)moved;
    k->count = (uint16_t)at;
    keys_grow_prefix(k);
    keys_grow_prefix(to);
}

void state_map_keys_join(struct state_map_keys *k, const struct state_map_keys *tail)
{
    ASSERT(k->count + tail->count <= NODE_KEYS);
    memcpy(&k->recs[k->count], tail->recs, tail->count * sizeof k->recs[0]);
    k->count = (uint16_t)(k->count + tail->count);
    if (k->count == 0)
        return;
    size_t len = common_len(state_map_key(k->recs[0]), state_map_key(k->recs[k->count - 1]));
    keys_set_prefix(k, MIN(len, NODE_PREFIX));
}

void state_map_keys_validate(const struct state_map_keys *k)
{
    ASSERT(k->count <= NODE_KEYS && k->prefix_len <= NODE_PREFIX);
    for (uint32_t i = 0; i < k->count; i++) {
        struct slice key = state_map_key(k->recs[i]);
        ASSERT(key.len >= k->prefix_len);
        ASSERT(k->prefix_len == 0 || memcmp(key.ptr, k->prefix, k->prefix_len) == 0);
        ASSERT(k->heads[i] == head_of(key, k->prefix_len));
        if (i > 0)
            ASSERT(slice_cmp(state_map_key(k->recs[i - 1]), key) < 0);
    }
}
