/* The ledger of contents: each content that a mount writes carries a number, and for each number it
 * is known whether the write was acknowledged and whether something that knew of it replaced or
 * deleted it. What was acknowledged and not given up must be there in the end (P2, P5). */
#ifndef SIM_LEDGER_H
#define SIM_LEDGER_H

#include "sim/large.h"

#define LEDGER_HEAD_BYTES 16u

struct ledger_entry {
    struct oid oid;     /* written to */
    struct dot version; /* once acknowledged */
    unsigned site;
    bool acked;
    bool given_up; /* somebody who had seen it replaced or deleted it, or may have */
    bool found;
    uint64_t before; /* number of the one written to the same object before; 0: none */
};
struct ledger {
    struct ledger_entry *at; /* by number - 1 */
    size_t count, cap;
    uint64_t *heads; /* by hash of the object: number of its newest */
    size_t head_cap, head_count;
    struct large large; /* contents made of chunks */
};

uint64_t ledger_new(struct ledger *l, unsigned site, struct oid oid);
struct ledger_entry *ledger_get(struct ledger *l, uint64_t number); /* NULL: no such number */
/* The newest number written to an object; ->before leads to older ones. 0: none. */
uint64_t ledger_newest(const struct ledger *l, struct oid oid);
/* The number that a content carries, 0: none. */
uint64_t ledger_number(const struct ledger *l, const struct content *c);
void ledger_write(uint64_t number, uint8_t out[LEDGER_HEAD_BYTES]);
void ledger_deinit(struct ledger *l);

#endif
