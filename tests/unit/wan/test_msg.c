/* The messages of a stream: round trips, every truncation an error, newer peers' extra fields. */
#include "tests/unit/wan/wan_test.h"
#include "wan/msg.h"

enum {
    SHARDS = 5
};

static void vvs_fill(struct rng *rng, struct vv *vvs)
{
    for (int s = 0; s < SHARDS; s++)
        for (uint64_t n = rng_below(rng, SITE_COUNT_MAX); n > 0; n--)
            assert_int_equal(vv_set(&vvs[s], (site_id_t)(1 + rng_below(rng, 60)), rng_next(rng)),
                             0);
}

static void test_msg_hello_round_trip_and_truncation(void **state)
{
    (void)state;
    struct rng rng;
    struct buf out = {0};
    struct msg_hello *h = mem_calloc(1, sizeof *h), *got = mem_calloc(1, sizeof *got);
    rng_seed(&rng, 1);
    *h = (struct msg_hello){
        .version = 1, .site = 9, .shard_count = SHARDS, .wall_ns = 5, .hlc = 6, .to = UINT32_MAX};
    test_noise(&rng, h->fs_id, sizeof h->fs_id);
    for (int s = 0; s < SHARDS; s++) {
        h->next[s] = rng_next(&rng);
        h->last[s] = (struct last_op){.seq = rng_next(&rng), .hlc = rng_next(&rng)};
    }
    vvs_fill(&rng, h->vvs);
    msg_hello_encode(h, &out);
    assert_int_equal(msg_hello_decode(buf_slice(&out), got), 0);
    assert_memory_equal(got->next, h->next, sizeof h->next);
    assert_memory_equal(got->fs_id, h->fs_id, sizeof h->fs_id);
    assert_memory_equal(got->last, h->last, sizeof h->last);
    assert_int_equal(got->hlc, 6);
    assert_true(got->to == UINT32_MAX);
    for (int s = 0; s < SHARDS; s++)
        assert_true(vv_covers(&got->vvs[s], &h->vvs[s]) && vv_covers(&h->vvs[s], &got->vvs[s]));
    for (size_t len = 0; len < out.len; len++)
        assert_int_not_equal(msg_hello_decode(slice_of(out.ptr, len), got), 0);
    mem_free(h);
    mem_free(got);
    buf_deinit(&out);
}

/* Of a version before: the last operations are not said, nor who is addressed. It skips them when
 * they are. */
static void test_msg_hello_and_welcome_of_the_version_before(void **state)
{
    (void)state;
    struct buf hello = {0}, welcome = {0};
    struct msg_hello *h = mem_calloc(1, sizeof *h);
    struct msg_welcome *w = mem_calloc(1, sizeof *w);
    uint8_t id[FS_ID_BYTES] = {1};
    memset(h->last, 0xee, sizeof h->last);
    h->to = 3;
    memset(w->last, 0xee, sizeof w->last);
    mp_array(&hello, 8);
    mp_uint(&hello, 2);
    mp_bin(&hello, slice_of(id, sizeof id));
    mp_uint(&hello, 9);
    mp_uint(&hello, 2);
    for (int i = 0; i < 2; i++) {
        mp_array(&hello, 2);
        for (int k = 0; k < 2; k++) {
            if (i == 0)
                mp_uint(&hello, 7);
            else
                mp_array(&hello, 0);
        }
    }
    mp_uint(&hello, 5);
    mp_uint(&hello, 6);
    assert_int_equal(msg_hello_decode(buf_slice(&hello), h), 0);
    assert_int_equal(h->last[0].seq, 0);
    assert_int_equal(h->last[1].hlc, 0);
    assert_int_equal(h->to, 0);
    assert_int_equal(hello.ptr[0], 0x98); /* an array of eight: the last operations make it nine */
    hello.ptr[0] = 0x99;
    mp_array(&hello, 4);
    for (uint64_t k = 1; k <= 4; k++)
        mp_uint(&hello, k);
    h->to = 3;
    assert_int_equal(msg_hello_decode(buf_slice(&hello), h), 0);
    assert_int_equal(h->last[1].hlc, 4);
    assert_int_equal(h->to, 0);
    mp_array(&welcome, 5);
    mp_uint(&welcome, 2);
    mp_uint(&welcome, 9);
    mp_array(&welcome, 1);
    for (int k = 0; k < 3; k++)
        mp_uint(&welcome, 7);
    assert_int_equal(msg_welcome_decode(buf_slice(&welcome), w), 0);
    assert_int_equal(w->last[0].seq, 0);
    buf_deinit(&hello);
    buf_deinit(&welcome);
    mem_free(h);
    mem_free(w);
}

static void test_msg_welcome_round_trip_and_truncation(void **state)
{
    (void)state;
    struct buf out = {0};
    struct msg_welcome *w = mem_calloc(1, sizeof *w), *got = mem_calloc(1, sizeof *got);
    *w = (struct msg_welcome){.version = 2, .site = 9, .shard_count = SHARDS, .hlc = 6};
    for (unsigned s = 0; s < SHARDS; s++) {
        w->yours[s] = 10 + s;
        w->last[s] = (struct last_op){.seq = 10 + s, .hlc = UINT64_MAX - s};
    }
    msg_welcome_encode(w, &out);
    assert_int_equal(msg_welcome_decode(buf_slice(&out), got), 0);
    assert_memory_equal(got, w, sizeof *w);
    for (size_t len = 0; len < out.len; len++)
        assert_int_not_equal(msg_welcome_decode(slice_of(out.ptr, len), got), 0);
    mem_free(w);
    mem_free(got);
    buf_deinit(&out);
}

static void test_msg_ack_round_trip_and_truncation(void **state)
{
    (void)state;
    struct dot seqs[] = {{.seq = 7, .site = 3, .shard = 4}, {.seq = 1, .site = 2, .shard = 0}};
    struct msg_ack a = {.wall_ns = 1, .hlc = 2, .applied_hlc = 3, .next_count = 1, .seq_count = 2};
    struct msg_ack got;
    struct buf out = {0};
    a.next[0] = (struct msg_ack_next){.shard = 2, .next = 99};
    a.seqs = seqs;
    msg_ack_encode(&a, &out);
    assert_int_equal(msg_ack_decode(buf_slice(&out), SHARDS, &got), 0);
    assert_int_equal(got.next[0].next, 99);
    assert_true(dot_equal(got.seqs[1], seqs[1]));
    msg_ack_deinit(&got);
    assert_int_equal(msg_ack_decode(buf_slice(&out), 4, &got), ERR_MALFORMED); /* shard 4 of 4 */
    for (size_t len = 0; len < out.len; len++)
        assert_int_not_equal(msg_ack_decode(slice_of(out.ptr, len), SHARDS, &got), 0);
    buf_deinit(&out);
}

static void test_msg_heartbeat_extra_fields_are_skipped(void **state)
{
    (void)state;
    struct msg_heartbeat h = {.sent_hlc = 1, .head_hlc = 2, .hlc = 3, .safe_hlc = 4}, got;
    struct buf out = {0};
    msg_heartbeat_encode(&h, &out);
    assert_int_equal(msg_heartbeat_decode(buf_slice(&out), &got), 0);
    assert_int_equal(got.hlc, 3);
    assert_int_equal(got.safe_hlc, 4);
    assert_int_equal(out.ptr[0], 0x9b); /* an array of eleven: make it twelve */
    out.ptr[0] = 0x9c;
    mp_cstr(&out, "from the future");
    assert_int_equal(msg_heartbeat_decode(buf_slice(&out), &got), 0);
    assert_int_equal(got.head_hlc, 2);
    buf_deinit(&out);
}

static void test_msg_heartbeat_of_the_version_before(void **state)
{
    (void)state;
    struct msg_heartbeat h = {.sent_hlc = 1, .head_hlc = 2, .hlc = 3, .safe_hlc = 4}, got;
    struct buf out = {0};
    msg_heartbeat_encode(&h, &out);
    out.ptr[0] = 0x9a;
    out.len--; /* the last field */
    assert_int_equal(msg_heartbeat_decode(buf_slice(&out), &got), 0);
    assert_int_equal(got.safe_hlc, 2);
    buf_deinit(&out);
}

static void test_msg_welcome_and_probe_round_trip(void **state)
{
    (void)state;
    struct rng rng;
    struct buf out = {0};
    struct msg_welcome w = {.version = 1, .site = 4, .shard_count = SHARDS, .yours = {1, 2, 3}}, g;
    msg_welcome_encode(&w, &out);
    assert_int_equal(msg_welcome_decode(buf_slice(&out), &g), 0);
    assert_int_equal(g.shard_count, SHARDS);
    assert_int_equal(g.yours[2], 3);
    uint64_t id;
    struct vv vvs[SHARDS] = {{0}}, back[SHARDS];
    rng_seed(&rng, 2);
    vvs_fill(&rng, vvs);
    buf_clear(&out);
    msg_probe_reply_encode(77, vvs, SHARDS, &out);
    assert_int_equal(msg_probe_reply_decode(buf_slice(&out), SHARDS, &id, back), 0);
    assert_int_equal(id, 77);
    assert_true(vv_covers(&back[3], &vvs[3]));
    assert_int_equal(msg_probe_reply_decode(buf_slice(&out), SHARDS - 1, &id, back), ERR_MALFORMED);
    buf_deinit(&out);
}

static void test_msg_error_decode_always_says_something(void **state)
{
    (void)state;
    struct err_detail d;
    struct buf out = {0};
    msg_error_encode(ERR_BUSY, "paused\n by its \x01 operator", &out);
    assert_int_equal(msg_error_decode(buf_slice(&out), &d), ERR_BUSY);
    assert_string_equal(d.text, "paused? by its ? operator");
    buf_clear(&out);
    msg_error_encode(ERR_BUSY, "", &out); /* who says nothing else says that */
    assert_int_equal(msg_error_decode(buf_slice(&out), &d), ERR_BUSY);
    assert_string_equal(d.text, err_text(ERR_BUSY));
    assert_int_equal(msg_error_decode(slice_str("garbage"), &d), ERR_PEER);
    assert_true(strlen(d.text) > 10);
    buf_deinit(&out);
}

static void test_msg_absent_is_an_error_with_more_behind_it(void **state)
{
    (void)state;
    struct err_detail d;
    struct buf out = {0};
    struct msg_absent a = {.rc = ERR_NOT_FOUND, .site = 7, .link_count = SITE_COUNT_MAX}, got;
    for (uint32_t i = 0; i < SITE_COUNT_MAX; i++)
        a.links[i] = UINT32_MAX - i;
    msg_absent_encode(&a, err_text(a.rc), &out);
    assert_true(out.len <= 1024); /* what is read of an answer */
    msg_absent_decode(buf_slice(&out), &got);
    assert_int_equal(got.rc, ERR_NOT_FOUND);
    assert_int_equal(got.site, 7);
    assert_int_equal(got.link_count, SITE_COUNT_MAX);
    assert_memory_equal(got.links, a.links, sizeof a.links);
    assert_int_equal(msg_error_decode(buf_slice(&out), &d), ERR_NOT_FOUND); /* an older program */
    for (size_t len = 0; len < out.len; len++) {
        msg_absent_decode(slice_of(out.ptr, len), &got);
        assert_int_equal(got.rc, ERR_PEER);
        assert_int_equal(got.site, 0);
        assert_int_equal(got.link_count, 0);
    }
    buf_clear(&out);
    msg_error_encode(ERR_LIMIT, "of an older program", &out);
    msg_absent_decode(buf_slice(&out), &got);
    assert_int_equal(got.rc, ERR_LIMIT);
    assert_int_equal(got.site, 0);
    assert_int_equal(got.link_count, 0);
    buf_deinit(&out);
}

static void test_fs_id_make_hides_and_tells_apart(void **state)
{
    (void)state;
    uint8_t key[32] = {1}, a[FS_ID_BYTES], b[FS_ID_BYTES];
    fs_id_make(key, a);
    fs_id_make(key, b);
    assert_memory_equal(a, b, sizeof a);
    key[31] = 1;
    fs_id_make(key, b);
    assert_memory_not_equal(a, b, sizeof a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_msg_hello_round_trip_and_truncation),
        cmocka_unit_test(test_msg_hello_and_welcome_of_the_version_before),
        cmocka_unit_test(test_msg_welcome_round_trip_and_truncation),
        cmocka_unit_test(test_msg_ack_round_trip_and_truncation),
        cmocka_unit_test(test_msg_heartbeat_extra_fields_are_skipped),
        cmocka_unit_test(test_msg_heartbeat_of_the_version_before),
        cmocka_unit_test(test_msg_welcome_and_probe_round_trip),
        cmocka_unit_test(test_msg_error_decode_always_says_something),
        cmocka_unit_test(test_msg_absent_is_an_error_with_more_behind_it),
        cmocka_unit_test(test_fs_id_make_hides_and_tells_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
