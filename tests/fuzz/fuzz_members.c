/* Registers of the root directory that members write, and every site reads of every other: who is a
 * member, who leaves, up to where a leaver counts, how far a member has everything, settings, whom
 * a member knows. The first two bytes choose the class and the number of shards; then length and
 * bytes of the key; the rest is the value. What is taken reads the same when it is written again,
 * and that is no longer. */
#include <jansson.h>
#include <string.h>

#include "base/assert.h"
#include "site/member_codec.h"
#include "tests/fuzz/fuzz.h"

/* People and programs are shown it, in JSON. */
static void check_text(const char *text)
{
    json_t *o = json_string(text);
    ASSERT(o != NULL);
    json_decref(o);
    for (; *text != '\0'; text++)
        ASSERT((uint8_t)*text >= ' ' && *text != 0x7f);
}

static void check_member(const struct reg *r, unsigned shards)
{
    struct member one, two;
    struct buf b = {.ptr = NULL};
    uint8_t key[MEMBER_KEY_BYTES];
    (void)shards;
    if (!member_decode(r, &one))
        return;
    check_text(one.name);
    check_text(one.wan);
    ASSERT(one.name[0] != '\0' && strchr(one.name, '/') == NULL); /* part of names of files */
    ASSERT(one.site != 0 && one.status == MEMBER_IS);
    member_key(r->key.ptr[0], one.site, key);
    member_encode(&one, &b);
    struct reg again = {.key = slice_of(key, sizeof key), .present = true, .value = buf_slice(&b)};
    bool good = member_decode(&again, &two);
    ASSERT(good && slice_equal(again.key, r->key) && b.len <= r->value.len);
    ASSERT(one.site == two.site && strcmp(one.name, two.name) == 0);
    ASSERT(strcmp(one.wan, two.wan) == 0 && slice_equal(one.cert, two.cert));
    ASSERT(memcmp(one.cert_sha256, two.cert_sha256, sizeof one.cert_sha256) == 0);
    buf_deinit(&b);
}

static void check_leaves(const struct reg *r, unsigned shards)
{
    enum member_leaves why, why_again;
    site_id_t site, site_again;
    struct buf b = {.ptr = NULL};
    uint8_t key[MEMBER_KEY_BYTES];
    (void)shards;
    if (!leaves_decode(r, &site, &why))
        return;
    ASSERT(why == LEAVES_REMOVED || why == LEAVES_AWAY);
    member_key(r->key.ptr[0], site, key);
    leaves_encode(why, &b);
    struct reg again = {.key = slice_of(key, sizeof key), .value = buf_slice(&b)};
    bool good = leaves_decode(&again, &site_again, &why_again);
    ASSERT(good && slice_equal(again.key, r->key) && b.len <= r->value.len);
    ASSERT(site == site_again && why == why_again);
    buf_deinit(&b);
}

static void check_cut(const struct reg *r, unsigned shards)
{
    struct cut_answer one, two;
    struct buf b = {.ptr = NULL};
    uint8_t key[CUT_KEY_BYTES];
    if (!cut_decode(r, shards, &one))
        return;
    ASSERT(one.other_count <= SITE_COUNT_MAX);
    cut_key(one.leaver, one.from, key);
    cut_encode(&one, shards, &b);
    struct reg again = {.key = slice_of(key, sizeof key), .value = buf_slice(&b)};
    bool good = cut_decode(&again, shards, &two);
    ASSERT(good && memcmp(key + 1, r->key.ptr + 1, sizeof key - 1) == 0);
    ASSERT(b.len <= r->value.len);
    ASSERT(one.leaver == two.leaver && one.from == two.from);
    ASSERT(one.other_count == two.other_count);
    for (uint32_t i = 0; i < one.other_count; i++)
        ASSERT(one.others[i] == two.others[i]);
    for (unsigned i = 0; i < shards; i++)
        ASSERT(one.seqs[i] == two.seqs[i] && one.seqs[i] < UINT64_MAX); /* one more is counted */
    buf_deinit(&b);
}

static void check_stable(const struct reg *r, unsigned shards)
{
    struct stable_word one, two;
    struct buf b = {.ptr = NULL};
    uint8_t key[MEMBER_KEY_BYTES];
    if (!stable_decode(r, shards, &one))
        return;
    member_key(r->key.ptr[0], one.site, key);
    stable_encode(&one, shards, &b);
    struct reg again = {.key = slice_of(key, sizeof key), .value = buf_slice(&b)};
    bool good = stable_decode(&again, shards, &two);
    ASSERT(good && slice_equal(again.key, r->key) && b.len <= r->value.len);
    ASSERT(one.site == two.site && one.clock == two.clock);
    ASSERT(one.seen == two.seen && one.goal == two.goal);
    for (unsigned i = 0; i < shards; i++)
        ASSERT(one.seqs[i] == two.seqs[i]);
    buf_deinit(&b);
}

static void check_setting(const struct reg *r, unsigned shards)
{
    uint64_t one, two;
    struct buf b = {.ptr = NULL};
    (void)shards;
    if (!setting_decode(r, &one))
        return;
    setting_encode(one, &b);
    struct reg again = {.key = r->key, .present = true, .value = buf_slice(&b)};
    bool good = setting_decode(&again, &two);
    ASSERT(r->present && good && one == two && slice_equal(r->value, again.value));
    buf_deinit(&b);
}

static void check_knows(const struct reg *r, unsigned shards)
{
    struct known_members one, two;
    struct buf b = {.ptr = NULL};
    uint8_t key[MEMBER_KEY_BYTES];
    (void)shards;
    if (!knows_decode(r, &one))
        return;
    ASSERT(one.count <= SITE_COUNT_MAX && one.leaver_count <= SITE_COUNT_MAX);
    member_key(r->key.ptr[0], one.from, key);
    knows_encode(&one, &b);
    struct reg again = {.key = slice_of(key, sizeof key), .value = buf_slice(&b)};
    bool good = knows_decode(&again, &two);
    ASSERT(good && slice_equal(again.key, r->key) && b.len <= r->value.len);
    ASSERT(one.from == two.from && one.count == two.count);
    ASSERT(one.leaver_count == two.leaver_count);
    for (uint32_t i = 0; i < one.leaver_count; i++)
        ASSERT(one.leavers[i] == two.leavers[i]);
    for (uint32_t i = 0; i < one.count; i++)
        ASSERT(one.sites[i] == two.sites[i]);
    buf_deinit(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const checks[])(const struct reg *r, unsigned shards) = {
        check_member, check_leaves, check_cut, check_stable, check_setting, check_knows};
    if (size < 3)
        return 0;
    size_t key_len = MIN((size_t)data[2] % 16, size - 3);
    unsigned shards = data[1] < 128 ? 1u + data[1] % 8u : 1u + data[1];
    struct reg r = {.key = slice_of(data + 3, key_len),
                    .present = data[0] < 128,
                    .value = slice_of(data + 3 + key_len, size - 3 - key_len)};
    checks[data[0] % ARRAY_COUNT(checks)](&r, shards);
    return 0;
}
