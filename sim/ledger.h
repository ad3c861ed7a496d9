/* The ledger of contents: each content that a mount writes carries a number, and for each number it
 * is known whether the write was acknowledged and whether something that knew of it replaced or
 * deleted it. What was acknowledged and not given up must be there in the end (P2, P5). */
#ifndef SIM_LEDGER_H
#define SIM_LEDGER_H

#include "base/id.h"
#include "base/util.h"

#define LEDGER_HEAD_BYTES 16u

struct ledger_entry {
    struct oid oid;     /* written to */
    struct dot version; /* once acknowledged */
    unsigned site;
    bool acked;
    bool given_up; /* somebody who had seen it replaced or deleted it, or may have */
    bool found;
};
struct ledger {
    struct ledger_entry *at; /* by number - 1 */
    size_t count, cap;
};

uint64_t ledger_new(struct ledger *l, unsigned site, struct oid oid);
struct ledger_entry *ledger_get(struct ledger *l, uint64_t number); /* NULL: no such number */
/* The number that a content carries, 0: none. */
uint64_t ledger_number(struct slice content);
void ledger_write(uint64_t number, uint8_t out[LEDGER_HEAD_BYTES]);
void ledger_deinit(struct ledger *l);

#endif
