/* Batches whose parts are not all on the disk, in the order they were written; see parts.h. */
#include "site/parts.h"

#include "base/assert.h"
#include "base/plant.h"
#include "base/util.h"

struct batch {
    uint32_t left; /* parts that are not on the disk */
    struct parts_place one;
};
struct parts {
    uint64_t whole;   /* all up to here are */
    struct batch *at; /* [first..first + count): the batches whole + 1 and on */
    size_t first, count, cap;
};

struct parts *parts_new(void)
{
    return mem_calloc(1, sizeof(struct parts));
}

void parts_free(struct parts *p)
{
    if (p != NULL)
        mem_free(p->at);
    mem_free(p);
}

static struct batch *batch_of(const struct parts *p, uint64_t number)
{
    ASSERT(number > p->whole && number - p->whole <= p->count);
    return &p->at[p->first + (size_t)(number - p->whole - 1)];
}

uint64_t parts_begin(struct parts *p, uint32_t count, struct parts_place one)
{
    ASSERT(count > 0);
    if (p->first + p->count == p->cap) {
        /* At least half of it is free, or it grows: so moving costs little. */
        if (p->first <= p->cap / 2) {
            p->cap = MAX(p->cap * 2, 16u);
            p->at = mem_realloc(p->at, p->cap * sizeof p->at[0]);
        }
        for (size_t i = 0; i < p->count; i++)
            p->at[i] = p->at[p->first + i];
        p->first = 0;
    }
    p->at[p->first + p->count++] = (struct batch){.left = count, .one = one};
    return p->whole + p->count;
}

uint64_t parts_last(const struct parts *p)
{
    return p->whole + p->count;
}

bool parts_whole(const struct parts *p, uint64_t number)
{
    return number <= p->whole || PLANTED(34);
}

void parts_name(const struct parts *p, uint64_t number, struct parts_named *to)
{
    if (number <= p->whole)
        return;
    ASSERT(to->count < PARTS_NAMED_MAX);
    to->at[to->count++] = batch_of(p, number)->one;
}

bool parts_durable(struct parts *p, uint64_t number)
{
    struct batch *b = batch_of(p, number);
    uint64_t whole = p->whole;
    ASSERT(b->left > 0);
    b->left--;
    while (p->count > 0 && p->at[p->first].left == 0) {
        p->first++;
        p->count--;
        p->whole++;
    }
    return p->whole > whole;
}

void parts_cut(const struct parts_need *needs, size_t count, uint64_t *last)
{
    bool again = !PLANTED(33);
    while (again) {
        again = false;
        for (size_t i = 0; i < count; i++) {
            const struct parts_need *n = &needs[i];
            if (n->record.index > last[n->record.shard] || n->named.index <= last[n->named.shard])
                continue;
            last[n->record.shard] = n->record.index - 1;
            again = true;
        }
    }
}
