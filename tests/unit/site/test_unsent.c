/* The list of what only this site has: what goes in comes out, and nothing else is taken for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <sodium.h>
#include <string.h>

#include <cmocka.h>

#include "site/node.h"
#include "site/unsent.h"

#define OTHER 77u

static struct oid a_dir(uint8_t tag)
{
    return (struct oid){.b = {0, 1, OID_DIR, 0, tag, 9}};
}

static void fill(struct unsent *u)
{
    static const struct unsent_known known[] = {{{{0, 1, OID_FILE, 0, 7}}, {3, OTHER, 1}},
                                                {{{0, 1, OID_FILE, 0, 8}}, {0}}};
    static const struct unsent_version chain[] = {{{6, 5, 1}, 1234}, {{7, 5, 1}, UINT64_MAX}};
    static struct reg regs[1];
    regs[0] = (struct reg){.key = slice_str("xuser.note"),
                           .stamp = {900, 5},
                           .present = true,
                           .value = slice_str("by hand")};
    struct unsent_dir *d = unsent_dir(u, a_dir(1));
    d->parent = OID_ROOT;
    d->name = slice_str("d");
    d->alive = d->moved = true;
    d->last = (struct dot){8, 5, 1};
    d->perm_stamp = (struct stamp){800, 5};
    d->regs = regs;
    d->reg_count = 1;
    struct unsent_name *n = unsent_name(u, a_dir(1), slice_str("gone"));
    n->known = known;
    n->known_count = 2;
    n->last = (struct dot){9, 5, 1};
    n->order = 12345;
    struct unsent_file *f = unsent_file(u, oid_file(1, OID_FILE, 5, 9));
    f->there = f->born = f->written = true;
    f->version = (struct dot){7, 5, 1};
    f->stamp = (struct stamp){850, 5};
    f->content = (struct content){.kind = CONTENT_INLINE, .size = 5, .bytes = slice_str("hello")};
    f->mtime_ns = -3;
    f->chain = chain;
    f->chain_count = 2;
    u->sent[0] = 7;
    u->sent[1] = UINT64_MAX;
    u->sent_count = 2;
    static struct unsent_member members[2];
    members[0] = (struct unsent_member){.site = OTHER,
                                        .record = slice_str("its record"),
                                        .why = LEAVES_REMOVED,
                                        .left = {7, OTHER}};
    members[1] = (struct unsent_member){.site = UINT32_MAX, .record = slice_str("")};
    u->members = members;
    u->member_count = 2;
}

static void test_decode_of_encode_is_the_same(void **state)
{
    struct unsent u = {.dirs = NULL}, v;
    struct buf b = {0}, again = {0};
    (void)state;
    fill(&u);
    unsent_encode(&u, &b);
    assert_int_equal(unsent_decode(buf_slice(&b), &v), 0);
    const struct unsent_dir *d = unsent_dir_find(&v, a_dir(1));
    assert_non_null(d);
    assert_true(d->alive && d->moved && d->last.seq == 8 && d->perm_stamp.hlc == 800);
    assert_true(d->reg_count == 1 && slice_equal(d->regs[0].value, slice_str("by hand")));
    const struct unsent_name *n = unsent_name_find(&v, a_dir(1), slice_str("gone"));
    assert_non_null(n);
    assert_true(oid_is_none(n->ours) && n->known_count == 2 && n->order == 12345);
    assert_true(n->known[0].version.site == OTHER && dot_is_none(n->known[1].version));
    const struct unsent_file *f = unsent_file_find(&v, oid_file(1, OID_FILE, 5, 9));
    assert_non_null(f);
    assert_true(f->there && f->born && f->written && dot_is_none(f->base) && f->mtime_ns == -3);
    assert_true(f->chain_count == 2 && f->chain[1].digest == UINT64_MAX);
    assert_true(slice_equal(f->content.bytes, slice_str("hello")));
    assert_null(unsent_file_find(&v, a_dir(1)));
    assert_true(v.sent_count == 2 && v.sent[0] == 7 && v.sent[1] == UINT64_MAX);
    assert_true(v.member_count == 2 && v.members[0].site == OTHER);
    assert_true(slice_equal(v.members[0].record, slice_str("its record")));
    assert_true(v.members[0].why == LEAVES_REMOVED);
    assert_true(v.members[0].left.hlc == 7 && v.members[0].left.site == OTHER);
    assert_true(v.members[1].site == UINT32_MAX && v.members[1].record.len == 0);
    assert_true(v.members[1].why == LEAVES_NOT && v.members[1].left.site == 0);
    unsent_encode(&v, &again);
    assert_true(slice_equal(buf_slice(&b), buf_slice(&again)));
    unsent_deinit(&u);
    unsent_deinit(&v);
    buf_deinit(&b);
    buf_deinit(&again);
}

enum {
    MAGIC_BYTES = 8,
    HASH_BYTES = 16
};

/* The file as it was written when there were `lists` lists, of six; those behind are empty, but
 * that there is something, of two bytes, for each member. */
static void encode_as_before(const struct unsent *u, unsigned lists, struct buf *out)
{
    uint8_t hash[HASH_BYTES];
    unsent_encode(u, out);
    assert_true(lists == 5 || u->member_count == 0);
    out->len -= HASH_BYTES + 6 - lists + 2 * u->member_count;
    assert_int_equal(out->ptr[MAGIC_BYTES], 0x96); /* an array of six */
    for (unsigned i = 0; i < 6 - lists; i++)
        assert_int_equal(out->ptr[out->len + i], 0x90 | 2 * u->member_count);
    out->ptr[MAGIC_BYTES] = (uint8_t)(0x90 | lists);
    assert_int_equal(crypto_generichash(hash, sizeof hash, out->ptr, out->len, NULL, 0), 0);
    buf_append(out, hash, sizeof hash);
}

/* A site that was on its way when its program became a newer one. */
static void test_decode_of_what_was_written_before_there_were_members(void **state)
{
    struct unsent u = {.dirs = NULL}, v;
    struct buf b = {0};
    (void)state;
    fill(&u);
    memset(&u.members[0].left, 0, sizeof u.members[0].left);
    encode_as_before(&u, 5, &b);
    assert_int_equal(unsent_decode(buf_slice(&b), &v), 0);
    assert_true(v.member_count == 2 && v.members[0].site == OTHER);
    assert_true(v.members[0].why == LEAVES_NOT);
    unsent_deinit(&v);
    buf_clear(&b);
    u.member_count = 0;
    encode_as_before(&u, 4, &b);
    assert_int_equal(unsent_decode(buf_slice(&b), &v), 0);
    assert_int_equal(v.member_count, 0);
    assert_true(v.sent_count == 2 && v.sent[1] == UINT64_MAX);
    assert_true(v.dir_count == 1 && v.name_count == 1 && v.file_count == 1);
    unsent_deinit(&v);
    buf_clear(&b);
    u.sent_count = 0;
    encode_as_before(&u, 3, &b);
    assert_int_equal(unsent_decode(buf_slice(&b), &v), 0);
    assert_int_equal(v.member_count, 0);
    assert_int_equal(v.sent_count, 0);
    assert_true(v.dir_count == 1 && v.name_count == 1 && v.file_count == 1);
    unsent_deinit(&v);
    unsent_deinit(&u);
    buf_deinit(&b);
}

static void test_decode_of_a_damaged_file_is_refused(void **state)
{
    struct unsent u = {.dirs = NULL}, v;
    struct buf b = {0};
    (void)state;
    fill(&u);
    unsent_encode(&u, &b);
    for (size_t i = 0; i < b.len; i++) {
        b.ptr[i] ^= 1;
        assert_int_equal(unsent_decode(buf_slice(&b), &v), ERR_CORRUPT);
        unsent_deinit(&v);
        b.ptr[i] ^= 1;
        assert_int_not_equal(unsent_decode(slice_of(b.ptr, i), &v), 0);
        unsent_deinit(&v);
    }
    unsent_deinit(&u);
    buf_deinit(&b);
}

/* Contents are told apart by their digests, whatever their kind. */
static void test_digest_tells_contents_apart(void **state)
{
    struct content a = {.kind = CONTENT_INLINE, .size = 1, .bytes = slice_str("a")};
    struct content b = a, c = {.kind = CONTENT_MANIFEST, .size = 1, .block_bytes = 65536};
    (void)state;
    assert_true(unsent_digest(&a) == unsent_digest(&b));
    b.bytes = slice_str("b");
    assert_true(unsent_digest(&a) != unsent_digest(&b));
    assert_true(unsent_digest(&a) != unsent_digest(&c));
    b = c;
    b.root[31] = 1;
    assert_true(unsent_digest(&c) != unsent_digest(&b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_of_encode_is_the_same),
        cmocka_unit_test(test_decode_of_what_was_written_before_there_were_members),
        cmocka_unit_test(test_decode_of_a_damaged_file_is_refused),
        cmocka_unit_test(test_digest_tells_contents_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
