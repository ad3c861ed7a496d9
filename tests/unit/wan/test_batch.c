/* The batch codec: random streams come out as they went in, heads shrink, and no truncation or
 * flipped bit does worse than an error or another well-formed batch. */
#include "tests/unit/wan/wan_test.h"
#include "wan/batch.h"
#include "wan/zstream.h"

enum {
    SHARDS = 8,
    OPS = 60
};
struct world {
    struct rng rng;
    uint64_t seqs[SHARDS][3];
    uint64_t cursor[SHARDS];
    uint64_t ms, number;
    struct batch batch;
    struct batch_item items[OPS];
    struct buf ops[OPS];
};

static void world_init(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    rng_seed(&w->rng, seed);
    w->ms = 1750000000000;
}

static void world_deinit(struct world *w)
{
    for (int i = 0; i < OPS; i++)
        buf_deinit(&w->ops[i]);
}

static void op_make(struct world *w, struct buf *out, shard_id_t shard)
{
    static const site_id_t sites[] = {0x11111111, 0x22222222, 0xffffffff};
    size_t site = rng_below(&w->rng, 3);
    uint8_t body[90];
    size_t len = rng_below(&w->rng, sizeof body);
    test_noise(&w->rng, body, len);
    w->seqs[shard][site] += rng_below(&w->rng, 10) == 0 ? rng_below(&w->rng, 100) : 1;
    w->ms += rng_below(&w->rng, 3);
    uint64_t ms = rng_below(&w->rng, 8) == 0 ? w->ms - rng_below(&w->rng, 100000) : w->ms;
    struct dot dot = {.seq = w->seqs[shard][site], .site = sites[site], .shard = shard};
    int64_t time_ns = (int64_t)(ms * NS_PER_MS + rng_below(&w->rng, NS_PER_MS));
    buf_clear(out);
    if (rng_below(&w->rng, 20) == 0)
        buf_append(out, body, len); /* not an operation at all: travels as it is */
    else
        test_op(dot, test_hlc(ms, rng_below(&w->rng, 5)), time_ns, slice_of(body, len), out);
}

static void batch_make(struct world *w)
{
    w->batch = (struct batch){.number = ++w->number,
                              .hlc = test_hlc(w->ms, 7),
                              .barrier = rng_below(&w->rng, 10) == 0,
                              .items = w->items,
                              .count = (uint32_t)rng_below(&w->rng, OPS)};
    for (uint32_t i = 0; i < w->batch.count; i++) {
        shard_id_t shard = (shard_id_t)rng_below(&w->rng, SHARDS);
        op_make(w, &w->ops[i], shard);
        w->items[i] = (struct batch_item){.shard = shard, .op = buf_slice(&w->ops[i])};
        w->cursor[shard]++;
    }
    for (int s = 0; s < SHARDS; s++)
        if (w->cursor[s] > 0 && rng_below(&w->rng, 2) == 0)
            w->batch.cursor[s] = w->cursor[s];
}

static void assert_same(const struct batch *a, const struct batch *b)
{
    assert_int_equal(a->number, b->number);
    assert_int_equal(a->hlc, b->hlc);
    assert_int_equal(a->barrier, b->barrier);
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->cursor, b->cursor, sizeof a->cursor);
    for (uint32_t i = 0; i < a->count; i++) {
        assert_int_equal(a->items[i].shard, b->items[i].shard);
        assert_true(slice_equal(a->items[i].op, b->items[i].op));
    }
}

static void test_batch_decode_random_streams_round_trip(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct world w;
        struct batch_memory there, here;
        struct batch_decoded got = {0};
        struct buf wire = {0};
        world_init(&w, seed);
        batch_memory_init(&there, SHARDS);
        batch_memory_init(&here, SHARDS);
        for (int i = 0; i < 20; i++) {
            batch_make(&w);
            buf_clear(&wire);
            batch_encode(&there, &w.batch, &wire);
            assert_int_equal(batch_decode(&here, buf_slice(&wire), &got), 0);
            assert_same(&w.batch, &got.batch);
        }
        batch_decoded_deinit(&got);
        batch_memory_deinit(&there);
        batch_memory_deinit(&here);
        buf_deinit(&wire);
        world_deinit(&w);
    }
}

static void test_batch_decode_head_is_told(void **state)
{
    (void)state;
    struct batch_memory there, here;
    struct batch_decoded got = {0};
    struct buf op = {0}, wire = {0};
    struct dot dot = {.seq = 9, .site = 5, .shard = 2};
    batch_memory_init(&there, SHARDS);
    batch_memory_init(&here, SHARDS);
    test_op(dot, test_hlc(1000, 3), 1, slice_str("x"), &op);
    struct batch_item item = {.shard = 2, .op = buf_slice(&op)};
    batch_encode(&there, &(struct batch){.number = 1, .items = &item, .count = 1}, &wire);
    assert_int_equal(batch_decode(&here, buf_slice(&wire), &got), 0);
    assert_true(dot_equal(got.batch.items[0].dot, dot));
    assert_int_equal(got.batch.items[0].hlc, test_hlc(1000, 3));
    batch_decoded_deinit(&got);
    batch_memory_deinit(&there);
    batch_memory_deinit(&here);
    buf_deinit(&op);
    buf_deinit(&wire);
}

static void test_batch_decode_truncation_is_an_error(void **state)
{
    (void)state;
    struct world w;
    struct batch_memory there;
    struct buf wire = {0};
    world_init(&w, 77);
    batch_memory_init(&there, SHARDS);
    do
        batch_make(&w);
    while (w.batch.count < 20);
    batch_encode(&there, &w.batch, &wire);
    for (size_t len = 0; len < wire.len; len++) {
        struct batch_memory here;
        struct batch_decoded got = {0};
        uint8_t *copy = mem_dup(wire.ptr, MAX(len, 1u)); /* so that overreads are seen */
        batch_memory_init(&here, SHARDS);
        assert_int_not_equal(batch_decode(&here, slice_of(copy, len), &got), 0);
        assert_int_equal(got.batch.count, 0);
        batch_decoded_deinit(&got);
        batch_memory_deinit(&here);
        mem_free(copy);
    }
    batch_memory_deinit(&there);
    buf_deinit(&wire);
    world_deinit(&w);
}

static void test_batch_decode_bit_flips_stay_within_bounds(void **state)
{
    (void)state;
    struct world w;
    struct batch_memory there;
    struct buf wire = {0};
    world_init(&w, 78);
    batch_memory_init(&there, SHARDS);
    do
        batch_make(&w);
    while (w.batch.count < 10);
    batch_encode(&there, &w.batch, &wire);
    for (size_t bit = 0; bit < 8 * wire.len; bit++) {
        struct batch_memory here;
        struct batch_decoded got = {0};
        batch_memory_init(&here, SHARDS);
        wire.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (batch_decode(&here, buf_slice(&wire), &got) == 0)
            for (uint32_t i = 0; i < got.batch.count; i++)
                assert_true(got.batch.items[i].shard < SHARDS);
        wire.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        batch_decoded_deinit(&got);
        batch_memory_deinit(&here);
    }
    batch_memory_deinit(&there);
    buf_deinit(&wire);
    world_deinit(&w);
}

/* What the wire costs: heads of a run of operations, with bodies of no information. */
static void test_batch_encode_heads_cost_few_bytes(void **state)
{
    (void)state;
    enum {
        BATCHES = 50,
        PER_BATCH = 50
    };
    struct batch_memory there;
    struct zpack *z = zpack_new();
    struct rng rng;
    size_t wire_bytes = 0;
    uint64_t ms = 1750000000000, seqs[SHARDS] = {0};
    rng_seed(&rng, 9);
    batch_memory_init(&there, SHARDS);
    for (int b = 0; b < BATCHES; b++) {
        struct buf ops[PER_BATCH] = {{0}}, plain = {0}, packed = {0};
        struct batch_item items[PER_BATCH];
        for (int i = 0; i < PER_BATCH; i++) {
            shard_id_t shard = (shard_id_t)rng_below(&rng, SHARDS);
            struct dot dot = {.seq = ++seqs[shard], .site = 77, .shard = shard};
            ms += rng_below(&rng, 2);
            test_op(dot, test_hlc(ms, 0), (int64_t)(ms * NS_PER_MS + rng_below(&rng, NS_PER_MS)),
                    slice_str("body"), &ops[i]);
            items[i] = (struct batch_item){.shard = shard, .op = buf_slice(&ops[i])};
        }
        struct batch batch = {
            .number = (uint64_t)b + 1, .hlc = test_hlc(ms, 0), .items = items, .count = PER_BATCH};
        batch_encode(&there, &batch, &plain);
        zpack_add(z, buf_slice(&plain), &packed);
        wire_bytes += packed.len;
        for (int i = 0; i < PER_BATCH; i++)
            buf_deinit(&ops[i]);
        buf_deinit(&plain);
        buf_deinit(&packed);
    }
    print_message("%.1f bytes an operation\n", (double)wire_bytes / (BATCHES * PER_BATCH));
    assert_true(wire_bytes < 8 * BATCHES * PER_BATCH);
    zpack_free(z);
    batch_memory_deinit(&there);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch_decode_random_streams_round_trip),
        cmocka_unit_test(test_batch_decode_head_is_told),
        cmocka_unit_test(test_batch_decode_truncation_is_an_error),
        cmocka_unit_test(test_batch_decode_bit_flips_stay_within_bounds),
        cmocka_unit_test(test_batch_encode_heads_cost_few_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
