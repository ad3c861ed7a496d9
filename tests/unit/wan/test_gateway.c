/* The merge: whatever way the shards' journals grow and are read, operations leave in the order of
 * their commits across shards, each once, none above the safe point (W1); what the peer has is
 * passed over (W2); moves go alone (W4); a cursor never passes an operation that was not sent (W3).
 */
#include "tests/unit/wan/wan_test.h"
#include "wan/gateway.h"

enum {
    SHARDS = 4,
    RECORDS = 400,
    SELF = 100,
    PEER = 200,
    THIRD = 300
};
struct rec {
    uint64_t hlc;
    uint32_t ops; /* 0: this site's own business */
    struct dot dots[3];
    bool barrier;
};
struct journal {
    struct rec recs[SHARDS][RECORDS]; /* index = position + 1 */
    uint64_t count[SHARDS];
    uint64_t seqs[SHARDS][3];
    uint64_t hlc, safe;
    struct rng rng;
};

static void journal_grow(struct journal *j)
{
    shard_id_t s = (shard_id_t)rng_below(&j->rng, SHARDS);
    if (j->count[s] == RECORDS)
        return;
    static const site_id_t sites[] = {SELF, PEER, THIRD};
    struct rec *r = &j->recs[s][j->count[s]++];
    j->hlc += 1 + rng_below(&j->rng, 3);
    *r = (struct rec){.hlc = j->hlc, .ops = (uint32_t)rng_below(&j->rng, 4)};
    for (uint32_t i = 0; i < r->ops; i++) {
        size_t site = rng_below(&j->rng, 3);
        r->dots[i] = (struct dot){.seq = ++j->seqs[s][site], .site = sites[site], .shard = s};
    }
    r->barrier = r->ops == 1 && rng_below(&j->rng, 5) == 0;
}

static void journal_state(struct journal *j, struct feed_state *ret)
{
    *ret = (struct feed_state){.shard_count = SHARDS, .safe_hlc = j->safe};
    for (int s = 0; s < SHARDS; s++) {
        ret->durable[s] = j->count[s];
        ret->first[s] = 1;
    }
}

/* Reads a few records of a shard into the gateway. */
static void journal_read(struct journal *j, struct gateway *g, shard_id_t s, uint64_t from)
{
    uint64_t next = from, limit = 1 + rng_below(&j->rng, 6);
    for (; next <= j->count[s] && next < from + limit; next++) {
        const struct rec *r = &j->recs[s][next - 1];
        for (uint32_t i = 0; i < r->ops; i++) {
            struct buf op = {0};
            test_op(r->dots[i], 1, 1, slice_str("body"), &op);
            struct feed_item item = {.shard = s,
                                     .index = next,
                                     .commit_hlc = r->hlc,
                                     .dot = r->dots[i],
                                     .barrier = r->barrier,
                                     .op = buf_slice(&op)};
            gateway_add(g, &item);
            buf_deinit(&op);
        }
    }
    gateway_read_done(g, s, next);
}

/* What the receiver of the stream sees and demands. */
struct sink {
    uint64_t seqs[SHARDS][3];
    uint64_t last_hlc, cursor[SHARDS], ops, number;
    uint64_t had[SHARDS]; /* operations of THIRD that the peer had from the start */
};

static uint64_t hlc_of(const struct journal *j, struct dot d, uint64_t *ret_index)
{
    for (uint64_t i = 0; i < j->count[d.shard]; i++)
        for (uint32_t k = 0; k < j->recs[d.shard][i].ops; k++)
            if (dot_equal(j->recs[d.shard][i].dots[k], d)) {
                *ret_index = i + 1;
                return j->recs[d.shard][i].hlc;
            }
    fail();
    return 0;
}

static void sink_take(struct sink *k, const struct journal *j, const struct batch *b)
{
    assert_int_equal(b->number, ++k->number);
    for (uint32_t i = 0; i < b->count; i++) {
        struct dot d = b->items[i].dot;
        size_t site = d.site == SELF ? 0 : d.site == PEER ? 1 : 2;
        uint64_t index = 0, hlc = hlc_of(j, d, &index);
        assert_true(hlc >= k->last_hlc && hlc <= j->safe);
        k->last_hlc = hlc;
        assert_int_not_equal(d.site, PEER);
        if (site == 2)
            assert_true(d.seq > k->had[d.shard]);
        assert_true(d.seq > k->seqs[d.shard][site]);
        k->seqs[d.shard][site] = d.seq;
        bool barrier = j->recs[d.shard][index - 1].barrier;
        assert_int_equal(barrier, b->barrier);
        if (barrier)
            assert_int_equal(b->count, 1);
        k->ops++;
    }
    for (int s = 0; s < SHARDS; s++) {
        if (b->cursor[s] == 0)
            continue;
        assert_true(b->cursor[s] > k->cursor[s]);
        k->cursor[s] = b->cursor[s];
        /* All below the cursor was sent, or is not for this peer. */
        for (uint64_t i = 0; i + 1 < b->cursor[s]; i++)
            for (uint32_t n = 0; n < j->recs[s][i].ops; n++) {
                struct dot d = j->recs[s][i].dots[n];
                if (d.site == SELF)
                    assert_true(d.seq <= k->seqs[s][0]);
                if (d.site == THIRD)
                    assert_true(d.seq <= MAX(k->seqs[s][2], k->had[s]));
            }
    }
}

static void pump(struct journal *j, struct gateway *g, struct sink *k, bool flush)
{
    struct feed_state st;
    struct batch b;
    shard_id_t s;
    uint64_t from;
    journal_state(j, &st);
    gateway_see_state(g, &st);
    for (;;) {
        while (gateway_wants(g, &s, &from))
            journal_read(j, g, s, from);
        if (!gateway_batch(g, flush, &b))
            return;
        sink_take(k, j, &b);
    }
}

static void test_gateway_batch_any_growth_keeps_the_order(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct journal *j = mem_calloc(1, sizeof *j);
        struct sink k = {0};
        struct vv have[SHARDS] = {{0}};
        uint64_t next[SHARDS] = {1, 1, 1, 1};
        rng_seed(&j->rng, seed);
        j->hlc = j->safe = test_hlc(1000, 0);
        for (int s = 0; s < SHARDS; s++) {
            k.had[s] = rng_below(&j->rng, 50);
            assert_int_equal(vv_set(&have[s], THIRD, k.had[s]), 0);
        }
        struct gateway *g = gateway_new(SHARDS, PEER, next, have);
        for (int turn = 0; turn < 300; turn++) {
            for (uint64_t n = rng_below(&j->rng, 8); n > 0; n--)
                journal_grow(j);
            if (rng_below(&j->rng, 3) == 0)
                j->safe = j->safe + rng_below(&j->rng, j->hlc - j->safe + 1);
            pump(j, g, &k, rng_below(&j->rng, 2) == 0);
        }
        j->safe = j->hlc;
        pump(j, g, &k, true);
        struct gateway_progress p;
        gateway_progress(g, &p);
        assert_int_equal(p.ops_to_go, 0);
        assert_int_equal(p.ops_sent, k.ops);
        assert_int_equal(p.sent_hlc, j->safe);
        for (int s = 0; s < SHARDS; s++) {
            assert_int_equal(k.seqs[s][0], j->seqs[s][0]);
            assert_int_equal(MAX(k.seqs[s][2], k.had[s]), MAX(j->seqs[s][2], k.had[s]));
        }
        gateway_free(g);
        mem_free(j);
    }
}

/* The parts of a batch that this site relays, one in each shard, have one commit stamp; they leave
 * in the order of their own stamps, also when a batch must end between them because one shard has
 * not been read so far yet. */
static void test_gateway_batch_parts_of_one_commit_go_by_their_stamps(void **state)
{
    (void)state;
    const struct {
        shard_id_t shard;
        uint64_t seq, stamp;
    } parts[] = {{0, 1, 1}, {0, 2, 4}, {1, 1, 2}, {1, 2, 3}};
    uint64_t next[SHARDS] = {1, 1, 1, 1}, want = 1;
    struct vv have[SHARDS] = {{0}};
    struct gateway *g = gateway_new(SHARDS, PEER, next, have);
    /* Behind its part the first shard has a record more, which is not read yet. */
    struct feed_state st = {.shard_count = SHARDS, .durable = {2, 1, 0, 0}, .safe_hlc = 100};
    gateway_see_state(g, &st);
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        struct dot dot = {.seq = parts[i].seq, .site = THIRD, .shard = parts[i].shard};
        struct buf op = {0};
        test_op(dot, 1, 1, slice_str("body"), &op);
        struct feed_item item = {.shard = parts[i].shard,
                                 .index = 1,
                                 .commit_hlc = 50,
                                 .dot = dot,
                                 .stamp = {.hlc = parts[i].stamp, .site = THIRD},
                                 .op = buf_slice(&op)};
        gateway_add(g, &item);
        buf_deinit(&op);
    }
    gateway_read_done(g, 0, 2);
    gateway_read_done(g, 1, 2);
    struct batch b;
    for (int turn = 0; turn < 2; turn++) {
        assert_int_equal(gateway_batch(g, false, &b), want < 5);
        for (uint32_t i = 0; i < b.count; i++, want++) {
            size_t at = 0;
            while (parts[at].stamp != want)
                at++;
            assert_int_equal(b.items[i].shard, parts[at].shard);
            assert_int_equal(b.items[i].dot.seq, parts[at].seq);
        }
        gateway_read_done(g, 0, 3);
    }
    assert_int_equal(want, 5);
    gateway_free(g);
}

/* An idle link stays idle: records that are nobody else's business make no batch. */
static void test_gateway_batch_own_business_makes_no_traffic(void **state)
{
    (void)state;
    uint64_t next[SHARDS] = {1, 1, 1, 1};
    struct vv have[SHARDS] = {{0}};
    struct gateway *g = gateway_new(SHARDS, PEER, next, have);
    struct feed_state st = {.shard_count = SHARDS, .durable = {5, 0, 0, 0}, .safe_hlc = 100};
    struct batch b;
    shard_id_t s;
    uint64_t from;
    gateway_see_state(g, &st);
    assert_true(gateway_wants(g, &s, &from));
    assert_int_equal(s, 0);
    gateway_read_done(g, 0, 6);
    assert_false(gateway_wants(g, &s, &from));
    assert_false(gateway_batch(g, true, &b));
    gateway_free(g);
}

static void test_gateway_batch_ends_when_full(void **state)
{
    (void)state;
    enum {
        BIG = 100000
    };
    uint64_t next[SHARDS] = {1, 1, 1, 1};
    struct vv have[SHARDS] = {{0}};
    struct gateway *g = gateway_new(SHARDS, PEER, next, have);
    struct feed_state st = {.shard_count = SHARDS, .durable = {10, 0, 0, 0}, .safe_hlc = 100};
    uint8_t *body = mem_calloc(1, BIG);
    struct buf op = {0};
    struct batch b;
    uint64_t sent = 0;
    gateway_see_state(g, &st);
    for (uint64_t i = 1; i <= 10; i++) {
        struct dot dot = {.seq = i, .site = SELF, .shard = 0};
        buf_clear(&op);
        test_op(dot, 1, 1, slice_of(body, BIG), &op);
        struct feed_item item = {
            .shard = 0, .index = i, .commit_hlc = i, .dot = dot, .op = buf_slice(&op)};
        gateway_add(g, &item);
    }
    gateway_read_done(g, 0, 11);
    while (gateway_batch(g, false, &b)) {
        size_t bytes = 0;
        for (uint32_t i = 0; i < b.count; i++)
            bytes += b.items[i].op.len;
        assert_true(bytes <= GATEWAY_BATCH_BYTES + BIG + 100);
        sent += b.count;
        assert_int_equal(b.cursor[0], sent + 1);
    }
    assert_int_equal(sent, 10);
    buf_deinit(&op);
    mem_free(body);
    gateway_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gateway_batch_any_growth_keeps_the_order),
        cmocka_unit_test(test_gateway_batch_parts_of_one_commit_go_by_their_stamps),
        cmocka_unit_test(test_gateway_batch_own_business_makes_no_traffic),
        cmocka_unit_test(test_gateway_batch_ends_when_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
