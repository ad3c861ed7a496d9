/* site/replica.h: whatever comes, decoding ends with an error or a message within bounds that
 * encodes to itself; and a replica that is told it, as a follower and as a primary, keeps its
 * invariants. The first byte says how many commands follow in the stream; each has its length. */
#include <string.h>

#include "base/assert.h"
#include "base/codec.h"
#include "site/replica.h"
#include "tests/fuzz/fuzz.h"

struct twin {
    struct replica *core;
    struct replica_effects effects;
    uint64_t now_ns, last, request, swap;
    struct shard_record record;
};

static void step(struct twin *t, struct replica_event e)
{
    e.now_ns = t->now_ns += NS_PER_MS;
    int rc = replica_step(t->core, &e, &t->effects);
    ASSERT(rc <= 0);
    for (uint32_t i = 0; i < t->effects.count; i++) {
        const struct replica_effect *f = &t->effects.at[i];
        if (f->kind == REPLICA_APPEND || f->kind == REPLICA_CUT)
            t->last = f->index;
        if (f->kind == REPLICA_SWAP || f->kind == REPLICA_ASK) {
            t->request = f->request;
            t->swap = f->kind == REPLICA_SWAP;
            t->record = f->record;
        }
    }
    replica_validate(t->core);
}

static void twin_init(struct twin *t, bool lead)
{
    const struct replica_run run = {.first = 1, .epoch = 1};
    const struct replica_config c = {.node = 1,
                                     .nodes = {1, 2, 3},
                                     .node_count = 3,
                                     .life = 1,
                                     .founder = lead,
                                     .last = 5,
                                     .commit = 2,
                                     .runs = &run,
                                     .run_count = 1};
    struct shard_record none = {0};
    memset(t, 0, sizeof *t);
    t->core = replica_new(&c);
    t->now_ns = NS_PER_SEC;
    t->last = 5;
    step(t, (struct replica_event){.kind = REPLICA_TICK});
    step(t, (struct replica_event){.kind = REPLICA_RECORD, .request = t->request, .record = &none});
    if (lead)
        step(t, (struct replica_event){.kind = REPLICA_SWAPPED, .request = t->request});
}

static void check_message(struct slice s)
{
    struct replica_msg m;
    struct buf b = {0};
    if (replica_msg_decode(s, &m) != 0)
        return;
    replica_msg_encode(&b, &m);
    ASSERT(slice_equal(buf_slice(&b), s));
    buf_deinit(&b);
}

/* Turns raw bytes into a message that passes the header's checks more often than not. */
static void tell(struct twin *t, struct dec *d)
{
    struct replica_msg m = {.kind = (uint8_t)(1 + dec_u8(d) % (REPLICA_MSG_KIND_END - 1)),
                            .flags = dec_u8(d) & REPLICA_FLAGS_ALL,
                            .node = 2 + dec_u8(d) % 2,
                            .epoch = 1 + dec_u8(d) % 8,
                            .life = dec_u8(d) % 4,
                            .seq = dec_u8(d),
                            .index = dec_u8(d) % 16,
                            .index_epoch = dec_u8(d) % 8,
                            .hint = dec_u8(d) % 16,
                            .last = dec_u8(d) % 16,
                            .commit = dec_u8(d) % 16};
    struct buf records = {0}, b = {0};
    for (unsigned i = dec_u8(d) % 4; i > 0 && m.kind == REPLICA_MSG_APPEND; i--, m.count++)
        (void)replica_records_add(
            &records, m.index + m.count + 1 > m.last ? m.epoch : 1 + dec_u8(d) % m.epoch,
            slice_str("x")); /* fits */
    if (m.kind == REPLICA_MSG_APPEND && m.index > m.last)
        m.index_epoch = m.epoch;
    m.records = buf_slice(&records);
    replica_msg_encode(&b, &m);
    check_message(buf_slice(&b));
    step(t,
         (struct replica_event){.kind = REPLICA_MESSAGE, .node = m.node, .bytes = buf_slice(&b)});
    buf_deinit(&records);
    buf_deinit(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dec d = dec_of(slice_of(data, size));
    struct twin t;
    check_message(slice_of(data, size));
    twin_init(&t, (dec_u8(&d) & 1) != 0);
    while (d.rc == 0 && dec_left(&d) > 0) {
        switch (dec_u8(&d) % 8) {
        case 0:
            step(&t, (struct replica_event){.kind = REPLICA_DURABLE, .index = t.last});
            break;
        case 1:
            t.now_ns += dec_u8(&d) * 20 * NS_PER_MS;
            step(&t, (struct replica_event){.kind = REPLICA_TICK});
            break;
        case 2: /* the coordinator carries out what it was asked last */
            t.record.version += t.swap;
            step(&t, (struct replica_event){.kind = t.swap ? REPLICA_SWAPPED : REPLICA_RECORD,
                                            .request = t.request,
                                            .record = &t.record});
            break;
        case 3: {
            struct slice raw = dec_bytes(&d, 256);
            check_message(raw);
            step(&t, (struct replica_event){.kind = REPLICA_MESSAGE, .node = 2, .bytes = raw});
            break;
        }
        default:
            tell(&t, &d);
        }
    }
    replica_free(t.core);
    replica_effects_deinit(&t.effects);
    return 0;
}
