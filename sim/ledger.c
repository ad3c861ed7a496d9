/* Numbers in contents. See ledger.h. */
#include "sim/ledger.h"

#include <string.h>

#define MAGIC UINT64_C(0x746e65746e6f6373)

uint64_t ledger_new(struct ledger *l, unsigned site, struct oid oid)
{
    if (l->count == l->cap) {
        l->cap = l->cap * 2 + 256;
        l->at = mem_realloc(l->at, l->cap * sizeof l->at[0]);
    }
    l->at[l->count++] = (struct ledger_entry){.site = site, .oid = oid};
    return l->count;
}

struct ledger_entry *ledger_get(struct ledger *l, uint64_t number)
{
    return number == 0 || number > l->count ? NULL : &l->at[number - 1];
}

uint64_t ledger_number(struct slice content)
{
    uint64_t head[2];
    if (content.len < sizeof head)
        return 0;
    memcpy(head, content.ptr, sizeof head);
    return head[0] == MAGIC ? head[1] : 0;
}

void ledger_write(uint64_t number, uint8_t out[LEDGER_HEAD_BYTES])
{
    const uint64_t head[2] = {MAGIC, number};
    memcpy(out, head, sizeof head);
}

void ledger_deinit(struct ledger *l)
{
    mem_free(l->at);
    memset(l, 0, sizeof *l);
}
