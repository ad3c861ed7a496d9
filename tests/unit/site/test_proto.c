/* site/proto.h: what is written is read back, foreign fields are skipped, nonsense is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mp.h"
#include "site/proto.h"

static struct oid file_oid(uint64_t counter)
{
    return oid_file(3, OID_FILE, 0x9f00aa12u, counter);
}

/* Every field different from zero and from its neighbours. */
static struct fs_request request_full(const struct oid *oids)
{
    return (struct fs_request){
        .session = 1ull << 63 | 1,
        .number = 2,
        .acked = 300,
        .oid = file_oid(4),
        .oid2 = OID_ROOT,
        .name = slice_str("name"),
        .name2 = slice_str("other\xff"),
        .flags = 5,
        .set = SET_CTIME,
        .mode = 0100644,
        .umask = 022,
        .uid = UINT32_MAX,
        .gid = 6,
        .pid = 7,
        .count = 8,
        .kind = OID_FIFO,
        .rdev = 1ull << 40,
        .size = LIMIT_FILE_BYTES,
        .number2 = UINT64_MAX,
        .atime_ns = -1,
        .mtime_ns = INT64_MIN,
        .data = slice_str("data"),
        .base = {.seq = 9, .site = 10, .shard = 11},
        .has_content = true,
        .content = {.kind = CONTENT_MANIFEST, .size = 12, .block_bytes = 65536, .root = {13}},
        .lock = {.owner = 14, .start = 15, .end = UINT64_MAX, .pid = 16, .type = 2},
        .chunk = {17},
        .has_chunk = true,
        .oids = oids,
        .oid_count = 2,
        .kept = {.set = SET_KEPT,
                 .mode = 01755,
                 .uid = 18,
                 .gid = 19,
                 .atime_ns = -20,
                 .mtime_ns = 21,
                 .ctime_ns = 22},
    };
}

static void assert_slice_equal(struct slice a, struct slice b)
{
    assert_true(slice_equal(a, b));
}

static void test_request_round_trip(void **state)
{
    (void)state;
    const struct oid oids[] = {file_oid(20), OID_ROOT};
    struct fs_request in = request_full(oids), out;
    struct buf b = {0}, again = {0};
    struct op_arena arena = {0};
    fs_request_encode(&in, &b);
    assert_int_equal(fs_request_decode(buf_slice(&b), &arena, &out), 0);
    assert_int_equal(out.session, in.session);
    assert_int_equal(out.number, 2);
    assert_int_equal(out.acked, 300);
    assert_true(oid_equal(out.oid, in.oid) && oid_is_root(out.oid2));
    assert_slice_equal(out.name, in.name);
    assert_slice_equal(out.name2, in.name2);
    assert_int_equal(out.mode, 0100644);
    assert_int_equal(out.uid, UINT32_MAX);
    assert_int_equal(out.kind, OID_FIFO);
    assert_int_equal(out.number2, UINT64_MAX);
    assert_true(out.atime_ns == -1 && out.mtime_ns == INT64_MIN);
    assert_true(dot_equal(out.base, in.base));
    assert_true(out.has_content && out.content.kind == CONTENT_MANIFEST);
    assert_int_equal(out.content.root[0], 13);
    assert_int_equal(out.lock.end, UINT64_MAX);
    assert_true(out.has_chunk && out.chunk[0] == 17);
    assert_int_equal(out.oid_count, 2);
    assert_int_equal(out.kept.set, SET_KEPT);
    assert_int_equal(out.kept.mode, 01755);
    assert_true(out.kept.atime_ns == -20 && out.kept.ctime_ns == 22);
    assert_true(oid_equal(out.oids[0], oids[0]) && oid_is_root(out.oids[1]));
    /* The fields not named above: encoding what was read gives the same bytes. */
    fs_request_encode(&out, &again);
    assert_slice_equal(buf_slice(&b), buf_slice(&again));
    buf_deinit(&b);
    buf_deinit(&again);
    op_arena_deinit(&arena);
}

/* What rides in a commit is checked where it is read: rights with rules of their own stay out. */
static void test_kept_attributes_that_may_not_ride(void **state)
{
    (void)state;
    const struct fs_set bad[] = {{.set = SET_MODE, .mode = 04755},
                                 {.set = SET_MODE, .mode = 02755},
                                 {.set = SET_MODE, .mode = 0100644},
                                 {.set = SET_SIZE},
                                 {.set = SET_KEPT | SET_MTIME_NOW}};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct fs_request in = {.oid = file_oid(1), .kept = bad[i]}, out;
        struct buf b = {0};
        struct op_arena arena = {0};
        fs_request_encode(&in, &b);
        assert_int_equal(fs_request_decode(buf_slice(&b), &arena, &out), ERR_MALFORMED);
        buf_deinit(&b);
        op_arena_deinit(&arena);
    }
}

static struct fs_attr attr_full(uint64_t counter)
{
    struct oid oid = file_oid(counter);
    return (struct fs_attr){.oid = oid,
                            .ino = oid_ino(oid),
                            .mode = 0100755,
                            .nlink = 1,
                            .uid = 2,
                            .gid = 3,
                            .rdev = 4,
                            .size = 5,
                            .blocks = 6,
                            .atime_ns = 7,
                            .mtime_ns = -8,
                            .ctime_ns = 9,
                            .btime_ns = 10,
                            .version = {.seq = 11, .site = 12, .shard = 3},
                            .change = 13,
                            .has_acl = true,
                            .has_xattr = true};
}

static void test_reply_round_trip(void **state)
{
    (void)state;
    const struct fs_entry entries[] = {
        {.name = slice_str("a"), .attr = attr_full(1), .has_attr = true},
        {.name = slice_str("b"), .attr = {.oid = file_oid(2), .ino = 77}},
    };
    const struct fs_inval invals[] = {
        {.oid = OID_ROOT, .name = slice_str("*")},
        {.oid = file_oid(3), .content = true},
    };
    const struct oid oids[] = {file_oid(5), OID_ROOT};
    struct fs_reply in = {
        .rc = ERR_STALE_BASE,
        .detail = slice_str("a sentence"),
        .session = 1,
        .number2 = 2,
        .flags = REPLY_QUEUED,
        .shard_count = 4,
        .site = 0xffffffffu,
        .name = slice_str("alpha"),
        .has_attr = true,
        .attr = attr_full(9),
        .has_content = true,
        .content = {.kind = CONTENT_INLINE, .size = 10, .bytes = slice_str("0123")},
        .data = slice_of("a\0b", 4),
        .has_lock = true,
        .lock = {.type = 1},
        .has_statfs = true,
        .statfs = {1, 2, 3, 4, 5, 6},
        .entries = entries,
        .entry_count = 2,
        .more = true,
        .invals = invals,
        .inval_count = 2,
        .has_dir = true,
        .dir = attr_full(3),
        .has_dir2 = true,
        .dir2 = attr_full(4),
        .oids = oids,
        .oid_count = 2,
    };
    struct fs_reply out;
    struct buf b = {0}, again = {0};
    struct op_arena arena = {0};
    fs_reply_encode(&in, &b);
    assert_int_equal(fs_reply_decode(buf_slice(&b), &arena, &out), 0);
    assert_int_equal(out.rc, ERR_STALE_BASE);
    assert_int_equal(out.site, 0xffffffffu);
    assert_true(out.has_attr && out.attr.mtime_ns == -8 && out.attr.has_xattr);
    assert_slice_equal(out.content.bytes, slice_str("0123"));
    assert_true(out.has_lock && out.lock.type == 1 && out.lock.start == 0);
    assert_true(out.has_statfs && out.statfs.files_free == 6);
    assert_int_equal(out.entry_count, 2);
    assert_true(out.entries[0].has_attr && !out.entries[1].has_attr);
    assert_int_equal(out.entries[1].attr.ino, 77);
    assert_true(out.more);
    assert_int_equal(out.inval_count, 2);
    assert_slice_equal(out.invals[0].name, slice_str("*"));
    assert_true(out.invals[1].content);
    assert_true(out.has_dir && oid_equal(out.dir.oid, in.dir.oid));
    assert_true(out.has_dir2 && oid_equal(out.dir2.oid, in.dir2.oid));
    assert_true(out.oid_count == 2 && oid_is_root(out.oids[1]));
    fs_reply_encode(&out, &again);
    assert_slice_equal(buf_slice(&b), buf_slice(&again));
    buf_deinit(&b);
    buf_deinit(&again);
    op_arena_deinit(&arena);
}

/* The wire form is a promise to other versions. */
static void test_request_encode_golden(void **state)
{
    (void)state;
    static const uint8_t golden[] = {0xde, 0, 3, 1, 5, 2, 0xcd, 1, 0, 6, 0xc4, 2, 'a', 'b'};
    struct fs_request r = {.session = 5, .number = 256, .name = slice_str("ab")};
    struct buf b = {0};
    fs_request_encode(&r, &b);
    assert_int_equal(b.len, sizeof golden);
    assert_memory_equal(b.ptr, golden, sizeof golden);
    buf_deinit(&b);
}

static void test_decode_every_truncation_fails(void **state)
{
    (void)state;
    const struct oid oids[] = {file_oid(20), OID_ROOT};
    struct fs_request in = request_full(oids), out;
    struct buf b = {0};
    struct op_arena arena = {0};
    fs_request_encode(&in, &b);
    for (size_t len = 0; len < b.len; len++) {
        int rc = fs_request_decode(slice_of(b.ptr, len), &arena, &out);
        assert_int_equal(err_class(rc), ERR_CLASS_CORRUPT);
    }
    buf_append(&b, "", 1);
    assert_int_equal(fs_request_decode(buf_slice(&b), &arena, &out), ERR_MALFORMED);
    buf_deinit(&b);
    op_arena_deinit(&arena);
}

static int decode_request(const struct buf *b)
{
    struct op_arena arena = {0};
    struct fs_request r;
    int rc = fs_request_decode(buf_slice(b), &arena, &r);
    op_arena_deinit(&arena);
    return rc;
}

static void test_decode_unknown_tags_are_skipped(void **state)
{
    (void)state;
    struct buf b = {0};
    struct op_arena arena = {0};
    struct fs_request r;
    mp_map(&b, 4);
    mp_uint(&b, 0);
    mp_nil(&b);
    mp_uint(&b, 63);
    mp_array(&b, 1);
    mp_cstr(&b, "later");
    mp_uint(&b, UINT32_MAX);
    mp_map(&b, 0);
    mp_uint(&b, 2);
    mp_uint(&b, 99);
    assert_int_equal(fs_request_decode(buf_slice(&b), &arena, &r), 0);
    assert_int_equal(r.number, 99);
    assert_int_equal(r.session, 0);
    buf_deinit(&b);
    op_arena_deinit(&arena);
}

static void test_decode_tag_twice_fails(void **state)
{
    (void)state;
    struct buf b = {0};
    mp_map(&b, 2);
    for (int i = 0; i < 2; i++) {
        mp_uint(&b, 2);
        mp_uint(&b, 1);
    }
    assert_int_equal(decode_request(&b), ERR_MALFORMED);
    buf_deinit(&b);
}

static void test_decode_out_of_bounds_fails(void **state)
{
    (void)state;
    static const uint8_t long_name[LIMIT_PATH_BYTES + 1];
    const struct fs_request bad[] = {
        {.name = {long_name, sizeof long_name}},
        {.has_content = true, .content = {.kind = CONTENT_INLINE, .size = LIMIT_FILE_BYTES + 1}},
        {.has_content = true, .content = {.kind = CONTENT_INLINE, .bytes = {long_name, 1}}},
        {.has_content = true, .content = {.kind = CONTENT_MANIFEST, .block_bytes = 65536 + 1}},
        {.has_content = true, .content = {.kind = CONTENT_MANIFEST, .block_bytes = 32768}},
        {.has_content = true, .content = {.kind = CONTENT_MANIFEST, .block_bytes = 8u << 20}},
        {.has_content = true},
        {.lock = {.type = 3}},
        {.lock = {.start = 2, .end = 1}},
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct buf b = {0};
        fs_request_encode(&bad[i], &b);
        assert_int_equal(decode_request(&b), ERR_MALFORMED);
        buf_deinit(&b);
    }
}

static void test_decode_array_beyond_bound_fails(void **state)
{
    (void)state;
    struct buf b = {0};
    struct op_arena arena = {0};
    struct fs_reply r;
    mp_map(&b, 1);
    mp_uint(&b, 14);
    mp_array(&b, FS_ENTRIES_MAX + 1);
    for (uint32_t i = 0; i <= FS_ENTRIES_MAX; i++)
        mp_map(&b, 0);
    assert_int_equal(fs_reply_decode(buf_slice(&b), &arena, &r), ERR_MALFORMED);
    buf_deinit(&b);
    op_arena_deinit(&arena);
}

static void test_riders_round_trip_and_every_truncation_fails(void **state)
{
    (void)state;
    static const uint8_t ids[2][32] = {{1}, {2}};
    struct rider got[RIDERS_MAX];
    uint32_t count;
    struct buf bulk = {0};
    assert_int_equal(riders_decode(buf_slice(&bulk), got, &count), 0);
    assert_int_equal(count, 0);
    rider_append(&bulk, ids[0], slice_str("block"));
    size_t first = bulk.len;
    rider_append(&bulk, ids[1], slice_str("node"));
    assert_int_equal(riders_decode(buf_slice(&bulk), got, &count), 0);
    assert_int_equal(count, 2);
    assert_memory_equal(got[1].id, ids[1], 32);
    assert_true(slice_equal(got[0].sealed, slice_str("block")));
    assert_true(slice_equal(got[1].sealed, slice_str("node")));
    for (size_t len = 1; len < bulk.len; len++)
        if (len != first)
            assert_int_equal(riders_decode(slice_of(bulk.ptr, len), got, &count), ERR_TRUNCATED);
    buf_clear(&bulk);
    rider_append(&bulk, ids[0], slice_of(NULL, 0));
    assert_int_equal(riders_decode(buf_slice(&bulk), got, &count), ERR_MALFORMED);
    buf_clear(&bulk);
    for (unsigned i = 0; i <= RIDERS_MAX; i++)
        rider_append(&bulk, ids[0], slice_str("x"));
    assert_int_equal(riders_decode(buf_slice(&bulk), got, &count), ERR_LIMIT);
    buf_deinit(&bulk);
}

static void test_ino_files_lead_back(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 1);
    for (int i = 0; i < 2000; i++) {
        static const enum oid_kind kinds[] = {OID_FILE,   OID_SYMLINK, OID_FIFO,
                                              OID_SOCKET, OID_CHAR,    OID_BLOCK};
        site_id_t site = (site_id_t)rng_next(&rng) | 1u;
        uint64_t counter = 1 + rng_below(&rng, UINT64_C(1) << (1 + rng_below(&rng, 44)));
        counter &= (UINT64_C(1) << 44) - 1;
        struct oid oid = oid_file((shard_id_t)rng_below(&rng, SHARD_COUNT_MAX),
                                  kinds[rng_below(&rng, ARRAY_COUNT(kinds))], site, counter);
        uint64_t ino = oid_ino(oid);
        struct oid found[INO_OIDS_MAX];
        unsigned count = ino_file_oids(ino, site, found);
        bool hit = false;
        for (unsigned j = 0; j < count; j++) {
            assert_int_equal(oid_ino(found[j]), ino);
            hit = hit || oid_equal(found[j], oid);
        }
        struct oid first, last;
        assert_true(hit);
        assert_int_equal(ino >> 62, 0);
        assert_true(ino > 1);
        assert_false(ino_dir_range(ino, &first, &last));
    }
}

static void test_ino_directories_lead_back(void **state)
{
    (void)state;
    struct rng rng;
    struct oid first, last, found[INO_OIDS_MAX];
    rng_seed(&rng, 2);
    for (int i = 0; i < 2000; i++) {
        uint8_t hash[12];
        for (size_t j = 0; j < sizeof hash; j++)
            hash[j] = (uint8_t)rng_next(&rng);
        struct oid oid = oid_dir((shard_id_t)rng_below(&rng, SHARD_COUNT_MAX), hash);
        uint64_t ino = oid_ino(oid);
        assert_int_equal(ino >> 62, 1);
        assert_true(ino_dir_range(ino, &first, &last));
        assert_true(oid_cmp(first, oid) <= 0 && oid_cmp(oid, last) <= 0);
        assert_true(oid_ino(first) == ino && oid_ino(last) == ino);
        assert_int_equal(ino_file_oids(ino, 1, found), 0);
    }
    assert_int_equal(oid_ino(OID_ROOT), 1);
    assert_true(ino_dir_range(1, &first, &last) && oid_is_root(first) && oid_is_root(last));
    assert_int_equal(ino_file_oids(1, 1, found), 0);
    assert_false(ino_dir_range(UINT64_MAX, &first, &last));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_round_trip),
        cmocka_unit_test(test_kept_attributes_that_may_not_ride),
        cmocka_unit_test(test_reply_round_trip),
        cmocka_unit_test(test_request_encode_golden),
        cmocka_unit_test(test_decode_every_truncation_fails),
        cmocka_unit_test(test_decode_unknown_tags_are_skipped),
        cmocka_unit_test(test_decode_tag_twice_fails),
        cmocka_unit_test(test_decode_out_of_bounds_fails),
        cmocka_unit_test(test_decode_array_beyond_bound_fails),
        cmocka_unit_test(test_riders_round_trip_and_every_truncation_fails),
        cmocka_unit_test(test_ino_files_lead_back),
        cmocka_unit_test(test_ino_directories_lead_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
