/* The arena of operations: blocks in a list, the newest first; memory is given back as a whole. */
#include "journal/op.h"

#include "base/assert.h"

struct op_arena_block {
    struct op_arena_block *next;
    size_t cap;
    /* Data follows, aligned to 16 because the header is. */
};
_Static_assert(sizeof(struct op_arena_block) % 16 == 0, "data behind the header is aligned");

enum {
    ARENA_BLOCK_BYTES = 16 * 1024
};

static struct op_arena_block *block_new(size_t len)
{
    size_t cap = MAX(len, (size_t)ARENA_BLOCK_BYTES);
    struct op_arena_block *b = mem_alloc(sizeof *b + cap);
    b->cap = cap;
    b->next = NULL;
    return b;
}

/* As op_alloc, not zeroed. */
static inline uint8_t *arena_take(struct op_arena *a, size_t len)
{
    ASSERT(len <= SIZE_MAX / 2);
    len = (len + 7) & ~(size_t)7;
    if (a->head == NULL || a->head->cap - a->used < len) {
        struct op_arena_block *b = block_new(len);
        b->next = a->head;
        a->head = b;
        a->used = 0;
    }
    uint8_t *at = (uint8_t *)(a->head + 1) + a->used;
    a->used += len;
    return at;
}

void *op_alloc(struct op_arena *a, size_t len)
{
    uint8_t *at = arena_take(a, len);
    if (len > 0)
        memset(at, 0, len);
    return at;
}

struct slice op_dup(struct op_arena *a, struct slice s)
{
    if (s.len == 0)
        return slice_of(NULL, 0);
    uint8_t *copy = arena_take(a, s.len);
    memcpy(copy, s.ptr, s.len);
    return slice_of(copy, s.len);
}

static void blocks_free(struct op_arena_block *b)
{
    while (b != NULL) {
        struct op_arena_block *next = b->next;
        mem_free(b);
        b = next;
    }
}

void op_arena_reset(struct op_arena *a)
{
    if (a->head != NULL) {
        blocks_free(a->head->next);
        a->head->next = NULL;
        /* One unusually large operation must not pin its memory. */
        if (a->head->cap > 64 * (size_t)ARENA_BLOCK_BYTES) {
            mem_free(a->head);
            a->head = NULL;
        }
    }
    a->used = 0;
}

void op_arena_deinit(struct op_arena *a)
{
    blocks_free(a->head);
    *a = (struct op_arena){.head = NULL};
}
