/* See replica_one.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/replica_one.h"

void one_step(struct one *f, struct replica_event e, int expected)
{
    e.now_ns = f->now_ns;
    e.stamp = f->stamp;
    assert_int_equal(replica_step(f->core, &e, &f->effects), expected);
    for (uint32_t i = 0; i < f->effects.count; i++) {
        const struct replica_effect *x = &f->effects.at[i];
        if (x->kind == REPLICA_ASK || x->kind == REPLICA_SWAP) {
            f->request = x->request;
            f->swap = x->kind == REPLICA_SWAP;
            f->wanted = x->record;
        }
    }
    replica_validate(f->core);
}

void one_tick(struct one *f, uint64_t in_ns)
{
    f->now_ns += in_ns;
    one_step(f, (struct replica_event){.kind = REPLICA_TICK}, 0);
}

const struct replica_effect *one_found(const struct one *f, enum replica_effect_kind kind)
{
    for (uint32_t i = 0; i < f->effects.count; i++)
        if (f->effects.at[i].kind == kind)
            return &f->effects.at[i];
    return NULL;
}

bool one_sent(const struct one *f, uint64_t node, struct replica_msg *ret)
{
    for (uint32_t i = 0; i < f->effects.count; i++)
        if (f->effects.at[i].kind == REPLICA_SEND && f->effects.at[i].node == node) {
            assert_int_equal(replica_msg_decode(f->effects.at[i].bytes, ret), 0);
            return true;
        }
    return false;
}

void one_open(struct one *f, struct replica_config c)
{
    memset(f, 0, sizeof *f);
    c.node = 1;
    c.nodes[0] = 1;
    c.nodes[1] = 2;
    c.nodes[2] = 3;
    c.node_count = c.node_count != 0 ? c.node_count : 3;
    c.life = 1;
    f->core = replica_new(&c);
    f->now_ns = 100 * NS_PER_SEC;
    f->stamp = 1000;
}

void one_close(struct one *f)
{
    replica_free(f->core);
    replica_effects_deinit(&f->effects);
}

void one_answer(struct one *f)
{
    struct replica_event e = {.kind = f->swap ? REPLICA_SWAPPED : REPLICA_RECORD,
                              .request = f->request,
                              .record = &f->record};
    if (f->swap && f->wanted.version == f->record.version) {
        f->record = f->wanted;
        f->record.version++;
    } else if (f->swap) {
        e.rc = ERR_STALE_BASE;
    }
    one_step(f, e, 0);
}

void one_message(struct one *f, struct replica_msg m, int expected)
{
    struct buf b = {0};
    replica_msg_encode(&b, &m);
    one_step(
        f, (struct replica_event){.kind = REPLICA_MESSAGE, .node = m.node, .bytes = buf_slice(&b)},
        expected);
    /* What APPEND borrowed is compared before the next step only. */
    buf_deinit(&b);
}

void one_reply(struct one *f, uint64_t node, uint64_t index)
{
    one_message(f,
                (struct replica_msg){.kind = REPLICA_MSG_REPLY,
                                     .flags = REPLICA_FLAG_MATCH,
                                     .node = node,
                                     .epoch = replica_epoch(f->core),
                                     .life = 1,
                                     .seq = ++f->seq,
                                     .index = index,
                                     .last = index},
                0);
}

void one_append(struct one *f,
                uint64_t epoch,
                uint64_t index,
                uint64_t index_epoch,
                uint64_t base,
                uint32_t count)
{
    struct buf records = {0};
    for (uint32_t i = 0; i < count; i++)
        assert_true(replica_records_add(&records, index + i + 1 > base ? epoch : index_epoch,
                                        slice_str("record")));
    one_message(f,
                (struct replica_msg){.kind = REPLICA_MSG_APPEND,
                                     .node = 2,
                                     .epoch = epoch,
                                     .index = index,
                                     .index_epoch = index_epoch,
                                     .last = base,
                                     .count = count,
                                     .records = buf_slice(&records)},
                0);
    buf_deinit(&records);
}

void one_propose(struct one *f, uint64_t index)
{
    one_step(f,
             (struct replica_event){
                 .kind = REPLICA_APPENDED, .index = index, .bytes = slice_str("mine")},
             0);
}

void one_durable(struct one *f, uint64_t index)
{
    one_step(f, (struct replica_event){.kind = REPLICA_DURABLE, .index = index}, 0);
}

static const struct replica_run epoch_one = {.first = 1, .epoch = 1};

/* The coordinator is asked, and answers with this: all three are in sync. */
static void found_record(struct one *f, uint64_t version, uint64_t epoch, uint32_t primary)
{
    f->record = (struct shard_record){.version = version,
                                      .epoch = epoch,
                                      .primary = primary,
                                      .lease_ns = 6 * NS_PER_SEC,
                                      .stamp_max = 5000,
                                      .in_sync_count = 3,
                                      .in_sync = {1, 2, 3}};
    one_tick(f, 0);
    one_answer(f);
}

void one_lead(struct one *f)
{
    one_open(f, (struct replica_config){.last = 5, .runs = &epoch_one, .run_count = 1});
    found_record(f, 7, 1, 1);
    assert_true(f->swap);
    one_answer(f);
    assert_non_null(one_found(f, REPLICA_LEAD));
    assert_int_equal(replica_role(f->core), REPLICA_RECOVER);
}

void one_serve(struct one *f)
{
    one_lead(f);
    one_reply(f, 2, 5);
    one_reply(f, 3, 5);
    assert_int_equal(replica_role(f->core), REPLICA_PRIMARY);
}

void one_follow(struct one *f)
{
    one_open(f,
             (struct replica_config){.last = 5, .commit = 3, .runs = &epoch_one, .run_count = 1});
    found_record(f, 9, 3, 2);
    assert_false(f->swap);
}
