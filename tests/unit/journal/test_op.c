/* Operations: round trip of every effect, truncation at every byte, refusal of everything that a
 * peer must not say, shard parts, registers, births. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/mp.h"
#include "journal/op.h"

static struct dot dot(unsigned shard, site_id_t site, uint64_t seq)
{
    return (struct dot){.shard = (shard_id_t)shard, .site = site, .seq = seq};
}

static struct oid file(unsigned shard, uint64_t n)
{
    return oid_file((shard_id_t)shard, OID_FILE, 7, n);
}

static struct oid dir(unsigned shard, uint8_t n)
{
    uint8_t hash[12] = {n};
    return oid_dir((shard_id_t)shard, hash);
}

static struct slice dup_perm(struct op_arena *a, uint16_t mode)
{
    struct buf b = {.ptr = NULL};
    struct perm p = {.uid = 1000, .gid = 100, .mode = mode, .caps = slice_str("cap")};
    p.setid_seen = dot(3, 9, 4);
    perm_encode(&p, &b);
    struct slice s = op_dup(a, buf_slice(&b));
    buf_deinit(&b);
    return s;
}

static struct birth birth_of(struct oid oid, struct oid parent)
{
    return (struct birth){.oid = oid,
                          .parent = parent,
                          .name = slice_str("dir"),
                          .gen = 2,
                          .uid = 1,
                          .gid = 2,
                          .mode = 0755};
}

enum {
    FULL_EFFECTS = 12
};

/* One operation with every kind of effect and every optional part both ways. */
static struct op full_op(struct op_arena *a)
{
    struct op op = {.dot = dot(3, 9, 77), .stamp = {.hlc = 1234567, .site = 9}, .time_ns = -5};
    struct effect *e = op_alloc(a, FULL_EFFECTS * sizeof *e);
    struct dot *dots = op_alloc(a, 2 * sizeof *dots);
    dots[0] = dot(3, 9, 5);
    dots[1] = dot(4, 8, 6);
    op.effects = e;
    op.effect_count = FULL_EFFECTS;
    e[0] = (struct effect){.kind = EFFECT_ENTER, .oid = file(3, 1), .parent = dir(3, 1)};
    e[0].name = slice_str("name");
    e[1] = (struct effect){.kind = EFFECT_LEAVE, .oid = file(4, 1), .parent = OID_ROOT};
    e[1].name = slice_str("old");
    e[1].dots = dots;
    e[1].dot_count = 2;
    e[1].seen = dots;
    e[1].seen_count = 1;
    e[1].stays = dot(5, 1, 1);
    e[2] = (struct effect){.kind = EFFECT_VERSION, .oid = file(3, 1), .mtime_ns = -1};
    e[2].content = (struct content){.kind = CONTENT_INLINE, .size = 9, .bytes = slice_str("abc")};
    e[3] = (struct effect){.kind = EFFECT_VERSION, .oid = file(3, 1), .mtime_ns = 1};
    e[3].content = (struct content){
        .kind = CONTENT_MANIFEST, .size = 1 << 20, .block_bytes = 65536, .root = {1, 2}};
    e[3].dots = dots;
    e[3].dot_count = 1;
    e[4] = (struct effect){.kind = EFFECT_FORK, .oid = file(3, 1), .loser = dot(4, 8, 6)};
    e[4].loser_stamp = (struct stamp){.hlc = 4, .site = 8};
    e[5] = e[4];
    e[5].to = file(3, 99);
    e[5].content = e[2].content;
    struct reg *regs = op_alloc(a, 2 * sizeof *regs);
    regs[0] = (struct reg){.key = slice_str("p"), .stamp = {3, 4}, .present = true};
    regs[0].value = dup_perm(a, 0644);
    regs[1] = (struct reg){.key = slice_str("xuser.a"), .stamp = {5, 6}};
    e[5].regs = regs;
    e[5].reg_count = 2;
    e[6] = (struct effect){.kind = EFFECT_BIRTH, .oid = dir(6, 2)};
    e[6].birth = birth_of(e[6].oid, OID_ROOT);
    e[7] = (struct effect){.kind = EFFECT_REVIVE, .oid = dir(6, 2)};
    e[8] = (struct effect){.kind = EFFECT_BURY, .oid = dir(6, 2), .dots = dots, .dot_count = 2};
    e[9] = (struct effect){.kind = EFFECT_MOVE, .oid = dir(6, 2), .parent = dir(1, 3)};
    e[9].name = slice_str("to");
    struct birth *births = op_alloc(a, 2 * sizeof *births);
    births[0] = birth_of(dir(6, 2), OID_ROOT);
    births[1] = birth_of(dir(1, 3), dir(3, 1));
    e[9].lineage = births;
    e[9].lineage_count = 2;
    e[9].dots = dots + 1;
    e[9].dot_count = 1;
    e[10] = (struct effect){.kind = EFFECT_SET, .oid = file(3, 1)};
    e[10].set = (struct reg){.key = slice_str("p"), .present = true, .value = dup_perm(a, 0600)};
    e[11] = (struct effect){.kind = EFFECT_SET, .oid = OID_ROOT};
    e[11].set = (struct reg){.key = slice_str("xuser.b")};
    return op;
}

static void test_op_encode_then_decode_gives_the_same_bytes(void **state)
{
    (void)state;
    struct op_arena a = {.head = NULL};
    struct op_arena b = {.head = NULL};
    struct buf once = {.ptr = NULL};
    struct buf twice = {.ptr = NULL};
    struct op op = full_op(&a);
    struct op back;
    struct op copy;
    op_encode(&op, &once);
    assert_int_equal(op_decode(buf_slice(&once), &b, &back), 0);
    op_copy(&back, &a, &copy);
    buf_move(&twice, &(struct buf){.ptr = NULL});
    op_encode(&copy, &twice);
    assert_int_equal(once.len, twice.len);
    assert_memory_equal(once.ptr, twice.ptr, once.len);
    assert_int_equal(back.effect_count, FULL_EFFECTS);
    assert_true(dot_equal(back.effects[1].stays, op.effects[1].stays));
    assert_true(dot_equal(back.effects[1].dots[1], dot(4, 8, 6)));
    assert_int_equal(back.effects[5].reg_count, 2);
    assert_false(back.effects[5].regs[1].present);
    assert_int_equal(back.effects[9].lineage_count, 2);
    assert_int_equal(back.time_ns, -5);
    /* The copy owns its memory: it still encodes the same after the input is gone. */
    memset(once.ptr, 0xee, once.len);
    struct buf third = {.ptr = NULL};
    op_encode(&copy, &third);
    assert_memory_equal(third.ptr, twice.ptr, twice.len);
    buf_deinit(&once);
    buf_deinit(&twice);
    buf_deinit(&third);
    op_arena_deinit(&a);
    op_arena_deinit(&b);
}

/* Of dot, stamp and time, behind the first byte. */
static size_t head_bytes(const struct op *op)
{
    struct buf b = {.ptr = NULL};
    mp_uint(&b, op->dot.shard);
    mp_uint(&b, op->dot.site);
    mp_uint(&b, op->dot.seq);
    mp_uint(&b, op->stamp.hlc);
    mp_int(&b, op->time_ns);
    size_t len = b.len;
    buf_deinit(&b);
    return len;
}

static void test_op_decode_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct op_arena a = {.head = NULL};
    struct op_arena b = {.head = NULL};
    struct buf bytes = {.ptr = NULL};
    struct op op = full_op(&a);
    op_encode(&op, &bytes);
    for (size_t len = 0; len < bytes.len; len++) {
        /* An own allocation, so that a read beyond the end is caught by the sanitizer. */
        uint8_t *cut = mem_dup(bytes.ptr, len);
        struct op back;
        int rc = op_decode(slice_of(cut, len), &b, &back);
        assert_true(rc == ERR_TRUNCATED || rc == ERR_MALFORMED);
        /* The head alone is all of it, or none. */
        rc = op_decode_head(slice_of(cut, len), &back);
        assert_int_equal(rc, len < 1 + head_bytes(&op) ? ERR_TRUNCATED : 0);
        if (rc == 0) {
            assert_true(dot_equal(back.dot, op.dot) && stamp_cmp(back.stamp, op.stamp) == 0);
            assert_int_equal(back.time_ns, op.time_ns);
            assert_int_equal(back.effect_count, 0);
        }
        mem_free(cut);
        op_arena_reset(&b);
    }
    buf_append(&bytes, "x", 1);
    struct op back;
    assert_int_equal(op_decode(buf_slice(&bytes), &b, &back), ERR_MALFORMED);
    buf_deinit(&bytes);
    op_arena_deinit(&a);
    op_arena_deinit(&b);
}

/* Encodes an operation of one effect and says what the decoder makes of it. */
static int decode_one(struct effect e)
{
    struct op op = {.dot = dot(3, 9, 77), .stamp = {.hlc = 1, .site = 9}};
    struct op_arena a = {.head = NULL};
    struct buf bytes = {.ptr = NULL};
    struct op back;
    op.effects = &e;
    op.effect_count = 1;
    op_encode(&op, &bytes);
    int rc = op_decode(buf_slice(&bytes), &a, &back);
    buf_deinit(&bytes);
    op_arena_deinit(&a);
    return rc;
}

static void test_op_decode_bad_names_are_refused(void **state)
{
    (void)state;
    struct effect e = {.kind = EFFECT_ENTER, .oid = file(0, 1), .parent = OID_ROOT};
    char big[LIMIT_NAME_BYTES + 2];
    memset(big, 'n', sizeof big);
    e.name = slice_of(big, LIMIT_NAME_BYTES);
    assert_int_equal(decode_one(e), 0);
    e.name = slice_of(big, LIMIT_NAME_BYTES + 1);
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    static const char *const bad[] = {"", ".", "..", "a/b", "/"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        e.name = slice_str(bad[i]);
        assert_int_equal(decode_one(e), ERR_MALFORMED);
    }
    e.name = slice_of("a\0b", 3);
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e.name = slice_str("...");
    assert_int_equal(decode_one(e), 0);
}

static void test_op_decode_wrong_kinds_are_refused(void **state)
{
    (void)state;
    struct effect e = {.kind = EFFECT_ENTER, .parent = OID_ROOT, .name = slice_str("n")};
    e.oid = dir(0, 1); /* a directory as an entry */
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e.oid = file(0, 1);
    e.parent = file(0, 2); /* a file as a parent */
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e = (struct effect){.kind = EFFECT_BURY, .oid = OID_ROOT}; /* the root does not die */
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e = (struct effect){.kind = EFFECT_REVIVE, .oid = file(0, 1)};
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e = (struct effect){.kind = EFFECT_MOVE, .oid = dir(0, 1), .parent = dir(0, 1)};
    e.name = slice_str("n"); /* into itself */
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e = (struct effect){.kind = EFFECT_FORK, .oid = file(0, 1), .loser = dot(0, 1, 1)};
    e.content.kind = CONTENT_INLINE;
    e.to = file(1, 1); /* another shard */
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e.to = oid_file(0, OID_SYMLINK, 7, 2);
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e.to = file(0, 2);
    assert_int_equal(decode_one(e), 0);
    e.oid.b[3] = 1; /* the reserved byte */
    assert_int_equal(decode_one(e), ERR_MALFORMED);
}

static void test_op_decode_bad_contents_are_refused(void **state)
{
    (void)state;
    static uint8_t zeros[LIMIT_INLINE_BYTES + 1];
    struct effect e = {.kind = EFFECT_VERSION, .oid = file(0, 1)};
    e.content = (struct content){.kind = CONTENT_INLINE, .size = 2, .bytes = slice_str("abc")};
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e.content.size = sizeof zeros;
    e.content.bytes = slice_of(zeros, sizeof zeros);
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e.content.bytes.len--;
    assert_int_equal(decode_one(e), 0);
    e.content = (struct content){.kind = CONTENT_MANIFEST, .size = 2, .block_bytes = 65537};
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e.content.block_bytes = 32768;
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e.content.block_bytes = 8u << 20;
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e.content.block_bytes = 4u << 20;
    assert_int_equal(decode_one(e), 0);
    e.content.size = LIMIT_FILE_BYTES + 1;
    assert_int_equal(decode_one(e), ERR_MALFORMED);
}

static void test_op_decode_bad_registers_are_refused(void **state)
{
    (void)state;
    struct op_arena a = {.head = NULL};
    struct effect e = {.kind = EFFECT_SET, .oid = file(0, 1)};
    e.set = (struct reg){.key = slice_str("q"), .present = true, .value = slice_str("v")};
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e.set.key = slice_str("x"); /* an attribute without a name */
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e.set.key = slice_str("xuser.a");
    assert_int_equal(decode_one(e), 0);
    e.set.key = slice_str("a");
    assert_int_equal(decode_one(e), ERR_MALFORMED); /* not eight bytes */
    e.set.value = slice_str("12345678");
    assert_int_equal(decode_one(e), 0);
    e.set.key = slice_str("p");
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    e.set.value = dup_perm(&a, 0644);
    assert_int_equal(decode_one(e), 0);
    e.set.present = false; /* rights cannot be removed */
    assert_int_equal(decode_one(e), ERR_MALFORMED);
    op_arena_deinit(&a);
}

/* A count that promises far more than the input holds must not be believed. */
static void test_op_decode_lying_count_allocates_nothing(void **state)
{
    (void)state;
    struct buf b = {.ptr = NULL};
    struct op_arena a = {.head = NULL};
    struct op back;
    mp_array(&b, 6);
    mp_uint(&b, 0);
    mp_uint(&b, 1);
    mp_uint(&b, 1);
    mp_uint(&b, 1);
    mp_uint(&b, 1);
    mp_array(&b, LIMIT_EFFECTS);
    for (int i = 0; i < 5000; i++)
        mp_nil(&b);
    assert_int_equal(op_decode(buf_slice(&b), &a, &back), ERR_TRUNCATED);
    assert_null(a.head);
    buf_deinit(&b);
    op_arena_deinit(&a);
}

static void test_op_shards_names_every_part(void **state)
{
    (void)state;
    struct op_arena a = {.head = NULL};
    struct op op = full_op(&a);
    struct shard_set set;
    op_shards(&op, &set);
    static const unsigned want[] = {0, 3, 4, 6};
    unsigned found = 0;
    for (unsigned s = 0; s < SHARD_COUNT_MAX; s++)
        found += shard_set_has(&set, (shard_id_t)s);
    for (size_t i = 0; i < ARRAY_COUNT(want); i++)
        assert_true(shard_set_has(&set, (shard_id_t)want[i]));
    assert_int_equal(found, ARRAY_COUNT(want));
    op_arena_deinit(&a);
}

static void test_content_equal_inline_ignores_zeros_at_the_end(void **state)
{
    (void)state;
    struct content a = {.kind = CONTENT_INLINE, .size = 5, .bytes = slice_of("ab\0\0", 4)};
    struct content b = {.kind = CONTENT_INLINE, .size = 5, .bytes = slice_str("ab")};
    assert_true(content_equal(&a, &b));
    b.size = 4;
    assert_false(content_equal(&a, &b));
    b = (struct content){.kind = CONTENT_INLINE, .size = 5, .bytes = slice_str("abc")};
    assert_false(content_equal(&a, &b));
    a.bytes = slice_of(NULL, 0);
    b.bytes = slice_of("\0\0", 2);
    assert_true(content_equal(&a, &b));
}

static void test_perm_encode_then_decode_and_compare(void **state)
{
    (void)state;
    struct perm p = {.uid = 70000, .gid = 1, .mode = 06755, .acl_access = slice_str("acl")};
    struct perm q;
    struct buf b = {.ptr = NULL};
    p.setid_seen = dot(1, 2, 3);
    perm_encode(&p, &b);
    assert_int_equal(perm_decode(buf_slice(&b), &q), 0);
    assert_true(perm_same_rights(&p, &q));
    assert_true(dot_equal(p.setid_seen, q.setid_seen));
    q.setid_seen = dot(1, 2, 4);
    assert_true(perm_same_rights(&p, &q));
    q.mode = 0755;
    assert_false(perm_same_rights(&p, &q));
    for (size_t len = 0; len < b.len; len++)
        assert_int_equal(perm_decode(slice_of(b.ptr, len), &q), ERR_TRUNCATED);
    buf_deinit(&b);
}

static void test_birth_oid_depends_on_every_field(void **state)
{
    (void)state;
    uint8_t key[32] = {1};
    struct birth b = birth_of(OID_ROOT, OID_ROOT);
    struct oid first = birth_oid(&b, key, 8);
    assert_true(oid_is_dir(first) && oid_shard(first) < 8);
    assert_true(oid_equal(first, birth_oid(&b, key, 8)));
    struct birth other = b;
    other.gen++;
    assert_false(oid_equal(first, birth_oid(&other, key, 8)));
    other = b;
    other.mode = 0700;
    assert_false(oid_equal(first, birth_oid(&other, key, 8)));
    other = b;
    other.name = slice_str("dir2");
    assert_false(oid_equal(first, birth_oid(&other, key, 8)));
    key[31] = 1;
    assert_false(oid_equal(first, birth_oid(&b, key, 8)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_op_encode_then_decode_gives_the_same_bytes),
        cmocka_unit_test(test_op_decode_cut_anywhere_is_refused),
        cmocka_unit_test(test_op_decode_bad_names_are_refused),
        cmocka_unit_test(test_op_decode_wrong_kinds_are_refused),
        cmocka_unit_test(test_op_decode_bad_contents_are_refused),
        cmocka_unit_test(test_op_decode_bad_registers_are_refused),
        cmocka_unit_test(test_op_decode_lying_count_allocates_nothing),
        cmocka_unit_test(test_op_shards_names_every_part),
        cmocka_unit_test(test_content_equal_inline_ignores_zeros_at_the_end),
        cmocka_unit_test(test_perm_encode_then_decode_and_compare),
        cmocka_unit_test(test_birth_oid_depends_on_every_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
