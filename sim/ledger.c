/* Numbers in contents. See ledger.h. */
#include "sim/ledger.h"

#include <string.h>

#define MAGIC UINT64_C(0x746e65746e6f6373)

static uint64_t *head_of(const struct ledger *l, struct oid oid)
{
    uint64_t h = fnv1a(slice_of(oid.b, sizeof oid.b));
    size_t i = (size_t)(h ^ h >> 32) & (l->head_cap - 1);
    while (l->heads[i] != 0 && !oid_equal(l->at[l->heads[i] - 1].oid, oid))
        i = (i + 1) & (l->head_cap - 1);
    return &l->heads[i];
}

static void heads_grow(struct ledger *l)
{
    struct ledger old = *l;
    l->head_cap = old.head_cap == 0 ? 256 : 2 * old.head_cap;
    l->heads = mem_calloc(l->head_cap, sizeof l->heads[0]);
    for (size_t i = 0; i < old.head_cap; i++)
        if (old.heads[i] != 0)
            *head_of(l, l->at[old.heads[i] - 1].oid) = old.heads[i];
    mem_free(old.heads);
}

uint64_t ledger_newest(const struct ledger *l, struct oid oid)
{
    return l->head_cap == 0 ? 0 : *head_of(l, oid);
}

uint64_t ledger_new(struct ledger *l, unsigned site, struct oid oid)
{
    if (2 * l->head_count >= l->head_cap)
        heads_grow(l);
    if (l->count == l->cap) {
        l->cap = l->cap * 2 + 256;
        l->at = mem_realloc(l->at, l->cap * sizeof l->at[0]);
    }
    uint64_t *head = head_of(l, oid);
    l->head_count += *head == 0;
    l->at[l->count++] = (struct ledger_entry){.site = site, .oid = oid, .before = *head};
    *head = l->count;
    return l->count;
}

struct ledger_entry *ledger_get(struct ledger *l, uint64_t number)
{
    return number == 0 || number > l->count ? NULL : &l->at[number - 1];
}

uint64_t ledger_number(const struct ledger *l, const struct content *c)
{
    uint64_t head[2];
    if (c->kind == CONTENT_MANIFEST) {
        const struct large_row *row = large_find(&l->large, c->root);
        return row != NULL ? row->number : 0;
    }
    if (c->bytes.len < sizeof head)
        return 0;
    memcpy(head, c->bytes.ptr, sizeof head);
    return head[0] == MAGIC ? head[1] : 0;
}

void ledger_write(uint64_t number, uint8_t out[LEDGER_HEAD_BYTES])
{
    const uint64_t head[2] = {MAGIC, number};
    memcpy(out, head, sizeof head);
}

void ledger_deinit(struct ledger *l)
{
    large_deinit(&l->large);
    mem_free(l->at);
    mem_free(l->heads);
    memset(l, 0, sizeof *l);
}
