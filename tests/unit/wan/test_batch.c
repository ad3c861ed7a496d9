/* The batch codec: random streams come out as they went in, heads shrink, and no truncation or
 * flipped bit does worse than an error or another well-formed batch. */
#include <endian.h>

#include "base/mp.h"
#include "journal/op.h"
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

/* Values of every kind, some of them again and again. */
static void body_make(struct world *w, struct dot dot, int64_t time_ns, struct buf *out)
{
    uint8_t bytes[40];
    for (uint64_t i = rng_below(&w->rng, 12); i > 0; i--) {
        uint64_t small = rng_below(&w->rng, 3);
        test_noise(&w->rng, bytes, sizeof bytes);
        switch (rng_below(&w->rng, 14)) {
        case 0:
            mp_array(out, (uint32_t)(rng_below(&w->rng, 3) * 9000));
            break;
        case 1:
            mp_uint(out, rng_next(&w->rng) >> rng_below(&w->rng, 64));
            break;
        case 2:
            mp_int(out, (int64_t)(rng_next(&w->rng) >> rng_below(&w->rng, 64)));
            break;
        case 3:
            mp_oid(out, oid_file(dot.shard, OID_FILE, dot.site, dot.seq - small));
            break;
        case 4:
            mp_oid(out, oid_dir((shard_id_t)small, (const uint8_t[12]){(uint8_t)small}));
            break;
        case 5:
            mp_dot(out, (struct dot){.seq = dot.seq - small, .site = dot.site, .shard = 1});
            break;
        case 6:
            mp_bin(out, slice_of(bytes, rng_below(&w->rng, sizeof bytes)));
            break;
        case 7:
            mp_bin(out, slice_of(bytes, 32));
            break;
        case 8:
            mp_bin(out, slice_of("abcdefghijklmnopqrstuvwxyzabcdefghijkl", 30 + small));
            break;
        case 9: {
            uint64_t ns = small == 0 ? (uint64_t)time_ns + i : rng_next(&w->rng);
            ns = htole64(small == 1 ? ns / NS_PER_SEC * NS_PER_SEC : ns);
            mp_bin(out, slice_of(&ns, sizeof ns));
            break;
        }
        case 10:
            mp_int(out, time_ns);
            break;
        case 11:
            mp_uint(out, UINT64_C(1) << rng_below(&w->rng, 64));
            break;
        case 12:
            mp_nil(out);
            break;
        default:
            mp_bool(out, small == 0);
        }
    }
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
    struct buf values = {0};
    buf_clear(out);
    body_make(w, dot, time_ns, &values);
    if (rng_below(&w->rng, 2) == 0) {
        mp_array(out, 6);
        mp_uint(out, dot.shard);
        mp_uint(out, dot.site);
        mp_uint(out, dot.seq);
        mp_uint(out, test_hlc(ms, rng_below(&w->rng, 5)));
        mp_int(out, time_ns);
        buf_append(out, values.ptr, values.len);
    } else if (rng_below(&w->rng, 20) == 0)
        buf_append(out, body, len); /* not an operation at all: travels as it is */
    else
        test_op(dot, test_hlc(ms, rng_below(&w->rng, 5)), time_ns, slice_of(body, len), out);
    buf_deinit(&values);
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
        struct buf wire = {0}, noise = {0};
        world_init(&w, seed);
        batch_memory_init(&there, SHARDS);
        batch_memory_init(&here, SHARDS);
        for (int i = 0; i < 20; i++) {
            batch_make(&w);
            buf_clear(&wire);
            buf_clear(&noise);
            batch_encode(&there, &w.batch, &wire, &noise);
            assert_int_equal(batch_decode(&here, buf_slice(&wire), buf_slice(&noise), &got), 0);
            assert_same(&w.batch, &got.batch);
        }
        batch_decoded_deinit(&got);
        batch_memory_deinit(&there);
        batch_memory_deinit(&here);
        buf_deinit(&wire);
        buf_deinit(&noise);
        world_deinit(&w);
    }
}

static void test_batch_decode_head_is_told(void **state)
{
    (void)state;
    struct batch_memory there, here;
    struct batch_decoded got = {0};
    struct buf op = {0}, wire = {0}, noise = {0};
    struct dot dot = {.seq = 9, .site = 5, .shard = 2};
    batch_memory_init(&there, SHARDS);
    batch_memory_init(&here, SHARDS);
    test_op(dot, test_hlc(1000, 3), 1, slice_str("x"), &op);
    struct batch_item item = {.shard = 2, .op = buf_slice(&op)};
    batch_encode(&there, &(struct batch){.number = 1, .items = &item, .count = 1}, &wire, &noise);
    assert_int_equal(batch_decode(&here, buf_slice(&wire), buf_slice(&noise), &got), 0);
    assert_true(dot_equal(got.batch.items[0].dot, dot));
    assert_int_equal(got.batch.items[0].hlc, test_hlc(1000, 3));
    batch_decoded_deinit(&got);
    batch_memory_deinit(&there);
    batch_memory_deinit(&here);
    buf_deinit(&op);
    buf_deinit(&wire);
    buf_deinit(&noise);
}

static void test_batch_decode_truncation_is_an_error(void **state)
{
    (void)state;
    struct world w;
    struct batch_memory there;
    struct buf wire = {0}, noise = {0};
    world_init(&w, 77);
    batch_memory_init(&there, SHARDS);
    do
        batch_make(&w);
    while (w.batch.count < 20);
    batch_encode(&there, &w.batch, &wire, &noise);
    for (size_t len = 0; len < wire.len; len++) {
        struct batch_memory here;
        struct batch_decoded got = {0};
        uint8_t *copy = mem_dup(wire.ptr, MAX(len, 1u)); /* so that overreads are seen */
        batch_memory_init(&here, SHARDS);
        assert_int_not_equal(batch_decode(&here, slice_of(copy, len), buf_slice(&noise), &got), 0);
        assert_int_equal(got.batch.count, 0);
        batch_decoded_deinit(&got);
        batch_memory_deinit(&here);
        mem_free(copy);
    }
    batch_memory_deinit(&there);
    buf_deinit(&wire);
    buf_deinit(&noise);
    world_deinit(&w);
}

static void test_batch_decode_bit_flips_stay_within_bounds(void **state)
{
    (void)state;
    struct world w;
    struct batch_memory there;
    struct buf wire = {0}, noise = {0};
    world_init(&w, 78);
    batch_memory_init(&there, SHARDS);
    do
        batch_make(&w);
    while (w.batch.count < 10);
    batch_encode(&there, &w.batch, &wire, &noise);
    for (size_t bit = 0; bit < 8 * wire.len; bit++) {
        struct batch_memory here;
        struct batch_decoded got = {0};
        batch_memory_init(&here, SHARDS);
        wire.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (batch_decode(&here, buf_slice(&wire), buf_slice(&noise), &got) == 0)
            for (uint32_t i = 0; i < got.batch.count; i++)
                assert_true(got.batch.items[i].shard < SHARDS);
        wire.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        batch_decoded_deinit(&got);
        batch_memory_deinit(&here);
    }
    batch_memory_deinit(&there);
    buf_deinit(&wire);
    buf_deinit(&noise);
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
        struct buf ops[PER_BATCH] = {{0}}, plain = {0}, noise = {0}, packed = {0};
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
        batch_encode(&there, &batch, &plain, &noise);
        zpack_add(z, buf_slice(&plain), &packed);
        wire_bytes += packed.len;
        for (int i = 0; i < PER_BATCH; i++)
            buf_deinit(&ops[i]);
        buf_deinit(&plain);
        buf_deinit(&noise);
        buf_deinit(&packed);
    }
    print_message("%.1f bytes an operation\n", (double)wire_bytes / (BATCHES * PER_BATCH));
    assert_true(wire_bytes < 8 * BATCHES * PER_BATCH);
    zpack_free(z);
    batch_memory_deinit(&there);
}

/* The three operations that unpacking a file is: made, written, its time set. */
static void unpack_make(struct rng *rng, struct op *op, uint64_t step, struct effect effects[3])
{
    static char name[40];
    static uint8_t time[8];
    static struct dot made;
    struct oid dir = oid_dir(0, (const uint8_t[12]){(uint8_t)(step / 90)});
    uint64_t second = htole64((1700000000 + rng_below(rng, 1000000)) * NS_PER_SEC);
    if (step % 3 == 0)
        made = op->dot;
    struct oid oid = oid_file(0, OID_FILE, made.site, made.seq);
    effects[0] = (struct effect){.kind = EFFECT_VERSION, .oid = oid, .mtime_ns = op->time_ns};
    effects[0].content = (struct content){.kind = CONTENT_INLINE};
    op->effects = effects;
    op->effect_count = 1;
    if (step % 3 == 0) {
        int len = snprintf(name, sizeof name, "%s_%s%02u.c", rng_below(rng, 2) ? "node" : "merge",
                           rng_below(rng, 2) ? "index" : "list", (unsigned)rng_below(rng, 100));
        effects[1] = (struct effect){.kind = EFFECT_SET, .oid = oid};
        effects[1].set = (struct reg){.key = slice_str("p"), .present = true};
        effects[1].set.value = slice_of("\0\0\xa4\1\0\0\0\0\0", 10);
        effects[2] = (struct effect){.kind = EFFECT_ENTER, .oid = oid, .parent = dir};
        effects[2].name = slice_of(name, (size_t)len);
        op->effect_count = 3;
    } else if (step % 3 == 1) {
        effects[0].dots = &made;
        effects[0].dot_count = 1;
        effects[0].content = (struct content){
            .kind = CONTENT_MANIFEST, .size = 9000 + rng_below(rng, 90000), .block_bytes = 65536};
        test_noise(rng, effects[0].content.root, sizeof effects[0].content.root);
    } else {
        memcpy(time, &second, sizeof time);
        effects[0] = (struct effect){.kind = EFFECT_SET, .oid = oid};
        effects[0].set = (struct reg){.key = slice_str("m"), .present = true};
        effects[0].set.value = slice_of(time, sizeof time);
    }
}

/* An unpacked tree, names and hashes of contents included, sent as it is made. */
static void test_batch_encode_an_unpacked_tree_costs_few_bytes(void **state)
{
    (void)state;
    enum {
        BATCHES = 300,
        PER_BATCH = 10
    };
    struct batch_memory there, here;
    struct batch_decoded got = {0};
    struct zpack *z = zpack_new();
    struct rng rng;
    size_t wire_bytes = 0;
    uint64_t ns = UINT64_C(1750000000000) * NS_PER_MS, seq = 5000;
    rng_seed(&rng, 9);
    batch_memory_init(&there, SHARDS);
    batch_memory_init(&here, SHARDS);
    for (uint64_t b = 0; b < BATCHES; b++) {
        struct buf ops[PER_BATCH] = {{0}}, plain = {0}, noise = {0}, packed = {0};
        struct batch_item items[PER_BATCH];
        for (uint64_t i = 0; i < PER_BATCH; i++) {
            struct effect effects[3];
            ns += 100000 + rng_below(&rng, 100000);
            struct op op = {.dot = {.seq = ++seq, .site = 0x77777777}, .time_ns = (int64_t)ns};
            op.stamp = (struct stamp){.hlc = test_hlc(ns / NS_PER_MS, 0), .site = op.dot.site};
            unpack_make(&rng, &op, b * PER_BATCH + i, effects);
            op_encode(&op, &ops[i]);
            items[i] = (struct batch_item){.op = buf_slice(&ops[i])};
        }
        struct batch batch = {.number = b + 1, .items = items, .count = PER_BATCH};
        batch_encode(&there, &batch, &plain, &noise);
        assert_int_equal(batch_decode(&here, buf_slice(&plain), buf_slice(&noise), &got), 0);
        assert_same(&batch, &got.batch);
        zpack_add(z, buf_slice(&plain), &packed);
        wire_bytes += noise.len + packed.len;
        for (int i = 0; i < PER_BATCH; i++)
            buf_deinit(&ops[i]);
        buf_deinit(&plain);
        buf_deinit(&noise);
        buf_deinit(&packed);
    }
    print_message("%.1f bytes an operation\n", (double)wire_bytes / (BATCHES * PER_BATCH));
    assert_true(wire_bytes < 24 * BATCHES * PER_BATCH);
    zpack_free(z);
    batch_decoded_deinit(&got);
    batch_memory_deinit(&there);
    batch_memory_deinit(&here);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch_decode_random_streams_round_trip),
        cmocka_unit_test(test_batch_decode_head_is_told),
        cmocka_unit_test(test_batch_decode_truncation_is_an_error),
        cmocka_unit_test(test_batch_decode_bit_flips_stay_within_bounds),
        cmocka_unit_test(test_batch_encode_heads_cost_few_bytes),
        cmocka_unit_test(test_batch_encode_an_unpacked_tree_costs_few_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
