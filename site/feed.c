/* Operations from a shard's journal. See feed.h. */
#include "site/feed.h"

#include "site/record.h"

struct feed_reader {
    shard_id_t shard;
    bool (*fn)(void *ctx, const struct feed_item *item);
    void *ctx;
    uint64_t next, last;
    int rc;
    bool stopped;
};

static bool has_move(const struct op *op)
{
    for (uint32_t i = 0; i < op->effect_count; i++)
        if (op->effects[i].kind == EFFECT_MOVE)
            return true;
    return false;
}

/* Moves are in shard 0 alone: elsewhere the head of an operation tells enough. */
static bool feed_op(struct feed_reader *fr, const struct record *r, uint64_t index, struct slice op)
{
    struct op_arena arena = {0};
    struct op decoded;
    fr->rc = fr->shard == 0 ? op_decode(op, &arena, &decoded) : op_decode_head(op, &decoded);
    bool go = false;
    if (fr->rc == 0) {
        struct feed_item item = {.shard = fr->shard,
                                 .index = index,
                                 .commit_hlc = r->commit_hlc,
                                 .dot = decoded.dot,
                                 .stamp = decoded.stamp,
                                 .barrier = has_move(&decoded),
                                 .op = op};
        go = fr->fn(fr->ctx, &item);
        fr->stopped = !go;
    }
    op_arena_deinit(&arena);
    return go;
}

static bool feed_record(void *ctx, const struct log_record *lr)
{
    struct feed_reader *fr = ctx;
    struct record r;
    bool go = true;
    if (lr->index > fr->last)
        return false;
    fr->rc = record_decode(lr->payload, &r);
    if (fr->rc != 0)
        return false;
    if (r.type == RECORD_OP)
        go = feed_op(fr, &r, lr->index, r.body);
    if (r.type == RECORD_REMOTE || r.type == RECORD_PAST) {
        struct dec d = dec_of(r.body);
        struct slice op;
        for (uint32_t i = 0; go && record_op_next(&r, i, &d, &op); i++)
            go = feed_op(fr, &r, lr->index, op);
        if (d.rc != 0)
            fr->rc = d.rc;
    }
    if (go && fr->rc == 0)
        fr->next = lr->index + 1;
    return go && fr->rc == 0;
}

int feed_read(struct log *log,
              shard_id_t shard,
              uint64_t from,
              uint64_t last,
              size_t bytes_max,
              bool (*fn)(void *ctx, const struct feed_item *item),
              void *ctx,
              uint64_t *ret_next)
{
    struct feed_reader fr = {.shard = shard, .fn = fn, .ctx = ctx, .next = from, .last = last};
    uint64_t log_next = from;
    int rc = log_read(log, from, bytes_max, feed_record, &fr, &log_next);
    if (rc == 0)
        rc = fr.rc;
    *ret_next = fr.next;
    return rc;
}
