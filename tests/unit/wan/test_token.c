/* Tokens, the proof of their secret, the sealed answer, and the list of invitations. */
#include <sodium.h>

#include "tests/unit/wan/wan_test.h"
#include "wan/invite.h"

static struct token token_make(uint64_t seed)
{
    struct token t = {.expires_s = 1750000000};
    struct rng rng;
    rng_seed(&rng, seed);
    test_noise(&rng, t.fingerprint, sizeof t.fingerprint);
    test_noise(&rng, t.secret, sizeof t.secret);
    snprintf(t.address, sizeof t.address, "host-%u.example.org:4711", (unsigned)seed);
    return t;
}

static void test_token_round_trip(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct token t = token_make(seed), got;
        char text[TOKEN_TEXT_MAX], spaced[TOKEN_TEXT_MAX + 8];
        struct err_detail d;
        token_to_text(&t, text);
        assert_int_equal(token_from_text(text, &got, &d), 0);
        assert_memory_equal(got.secret, t.secret, sizeof t.secret);
        assert_memory_equal(got.fingerprint, t.fingerprint, sizeof t.fingerprint);
        assert_string_equal(got.address, t.address);
        assert_int_equal(got.expires_s, t.expires_s);
        snprintf(spaced, sizeof spaced, " %s\r\n", text);
        assert_int_equal(token_from_text(spaced, &got, &d), 0);
    }
}

static void test_token_any_slip_is_an_error(void **state)
{
    (void)state;
    struct token t = token_make(7), got;
    char text[TOKEN_TEXT_MAX], bad[TOKEN_TEXT_MAX];
    struct err_detail d;
    token_to_text(&t, text);
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        memcpy(bad, text, len + 1);
        bad[i] = bad[i] == 'A' ? 'B' : 'A';
        int rc = token_from_text(bad, &got, &d);
        assert_true(rc == ERR_INVALID || rc == ERR_VERSION);
        assert_true(strlen(d.text) > 20);
        memcpy(bad, text, i);
        bad[i] = '\0';
        assert_int_equal(token_from_text(bad, &got, &d), ERR_INVALID);
    }
    snprintf(bad, sizeof bad, "%.100s %.10s", text, text);
    assert_int_equal(token_from_text(bad, &got, &d), ERR_INVALID);
    assert_int_equal(token_from_text("", &got, &d), ERR_INVALID);
    assert_int_equal(token_from_text("cfs1.", &got, &d), ERR_INVALID);
    assert_int_equal(token_from_text("cfs1.%%%%", &got, &d), ERR_INVALID);
}

/* --- pairing --- */

struct pairing {
    struct token token;
    struct invite_key key;
    struct pair_channel channel;
    struct pair_site joiner;
    struct buf request;
};

static int pairing_setup(void **state)
{
    struct pairing *p = mem_calloc(1, sizeof *p);
    struct rng rng;
    rng_seed(&rng, 3);
    p->token = token_make(3);
    pair_key_make(p->token.secret, &p->key);
    test_noise(&rng, (uint8_t *)&p->channel, sizeof p->channel);
    p->joiner = (struct pair_site){.site = 42, .name = "beta", .address = "b:1"};
    p->joiner.cert = slice_str("certificate");
    pair_request_encode(p->token.secret, &p->channel, &p->joiner, &p->request);
    *state = p;
    return 0;
}

static int pairing_teardown(void **state)
{
    struct pairing *p = *state;
    buf_deinit(&p->request);
    mem_free(p);
    return 0;
}

static void test_pair_request_is_proven(void **state)
{
    struct pairing *p = *state;
    uint8_t id[INVITE_ID_BYTES];
    struct pair_site got;
    assert_int_equal(pair_request_decode(buf_slice(&p->request), id, &got), 0);
    assert_memory_equal(id, p->key.id, sizeof id);
    assert_int_equal(got.site, 42);
    assert_string_equal(got.name, "beta");
    assert_true(slice_equal(got.cert, p->joiner.cert));
    assert_int_equal(pair_request_verify(buf_slice(&p->request), &p->key, &p->channel), 0);
}

/* Another secret, another channel, another word: no proof. */
static void test_pair_request_verify_refuses_everything_else(void **state)
{
    struct pairing *p = *state;
    struct pair_channel other = p->channel;
    other.exporter[0] ^= 1;
    assert_int_equal(pair_request_verify(buf_slice(&p->request), &p->key, &other), ERR_AUTH);
    other = p->channel;
    other.joiner[31] ^= 1;
    assert_int_equal(pair_request_verify(buf_slice(&p->request), &p->key, &other), ERR_AUTH);
    struct token t = token_make(4);
    struct invite_key key;
    pair_key_make(t.secret, &key);
    assert_int_equal(pair_request_verify(buf_slice(&p->request), &key, &p->channel), ERR_AUTH);
    for (size_t bit = 0; bit < 8 * p->request.len; bit++) {
        p->request.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(pair_request_verify(buf_slice(&p->request), &p->key, &p->channel), 0);
        p->request.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t len = 0; len < p->request.len; len++)
        assert_int_not_equal(
            pair_request_verify(slice_of(p->request.ptr, len), &p->key, &p->channel), 0);
}

static void test_pair_grant_only_the_secret_opens_it(void **state)
{
    struct pairing *p = *state;
    struct pair_grant g = {.shard_count = 8, .fs_key = {1, 2, 3}}, got;
    struct buf sealed = {0}, plain = {0};
    g.inviter = (struct pair_site){.site = 7, .name = "alpha", .cert = slice_str("pem")};
    pair_grant_seal(&g, &p->key, &sealed);
    assert_int_equal(pair_grant_open(buf_slice(&sealed), p->token.secret, &plain, &got), 0);
    assert_memory_equal(got.fs_key, g.fs_key, sizeof g.fs_key);
    assert_int_equal(got.shard_count, 8);
    assert_string_equal(got.inviter.name, "alpha");
    struct token other = token_make(9);
    assert_int_equal(pair_grant_open(buf_slice(&sealed), other.secret, &plain, &got), ERR_AUTH);
    sealed.ptr[40] ^= 1;
    assert_int_equal(pair_grant_open(buf_slice(&sealed), p->token.secret, &plain, &got), ERR_AUTH);
    assert_int_equal(pair_grant_open(slice_of(sealed.ptr, 10), p->token.secret, &plain, &got),
                     ERR_MALFORMED);
    buf_deinit(&sealed);
    buf_deinit(&plain);
}

static void test_pair_request_decode_names_are_checked(void **state)
{
    (void)state;
    assert_true(pair_name_valid("a-Z_9"));
    assert_false(pair_name_valid(""));
    assert_false(pair_name_valid("a b"));
    assert_false(pair_name_valid("../../etc"));
    assert_false(pair_name_valid("123456789012345678901234567890123"));
}

/* --- invitations --- */

static void test_invites_find_says_used_expired_unknown(void **state)
{
    (void)state;
    struct invites v = {0};
    struct invite i = {.expires_s = 1000}, *found = NULL;
    uint8_t joiner[FINGERPRINT_BYTES] = {1}, other[FINGERPRINT_BYTES] = {2};
    struct err_detail d;
    memset(i.key.id, 7, sizeof i.key.id);
    assert_int_equal(invites_add(&v, &i, 10), 0);
    assert_int_equal(invites_find(&v, i.key.id, joiner, 999, &found, &d), 0);
    assert_int_equal(invites_find(&v, i.key.id, joiner, 1000, &found, &d), ERR_TIMEOUT);
    assert_non_null(strstr(d.text, "expired"));
    found->used_s = 20;
    memcpy(found->used_by, joiner, sizeof joiner);
    assert_int_equal(invites_find(&v, i.key.id, other, 30, &found, &d), ERR_STALE);
    assert_non_null(strstr(d.text, "used"));
    /* Its answer was lost: the same site may ask again. */
    assert_int_equal(invites_find(&v, i.key.id, joiner, 30, &found, &d), 0);
    uint8_t unknown[INVITE_ID_BYTES] = {9};
    assert_int_equal(invites_find(&v, unknown, joiner, 30, &found, &d), ERR_AUTH);
}

static void test_invites_json_round_trip_and_damage(void **state)
{
    (void)state;
    struct invites v = {0}, got = {0};
    struct err_detail d;
    for (uint8_t n = 0; n < 3; n++) {
        struct invite i = {.expires_s = 1000u + n, .used_s = n};
        pair_key_make((const uint8_t[TOKEN_SECRET_BYTES]){n}, &i.key);
        assert_int_equal(invites_add(&v, &i, 10), 0);
    }
    char *text = invites_to_json(&v);
    assert_int_equal(invites_from_json(slice_str(text), &got, &d), 0);
    assert_memory_equal(&got, &v, sizeof v);
    for (size_t len = 0; len + 3 < strlen(text);
         len += 7) /* the last bytes are a brace and a line */
        assert_int_equal(invites_from_json(slice_of(text, len), &got, &d), ERR_CORRUPT);
    assert_true(strlen(d.text) > 20);
    mem_free(text);
}

static void test_invites_add_is_bounded_and_forgets(void **state)
{
    (void)state;
    struct invites v = {0};
    struct invite i = {.expires_s = 1000};
    for (uint32_t n = 0; n < INVITES_MAX; n++)
        assert_int_equal(invites_add(&v, &i, 10), 0);
    assert_int_equal(invites_add(&v, &i, 10), ERR_LIMIT);
    i.expires_s = 5000000;
    assert_int_equal(invites_add(&v, &i, 2000), 0); /* an expired one makes room */
    assert_int_equal(v.count, INVITES_MAX);
    assert_int_equal(invites_add(&v, &i, 2000 + INVITE_MEMORY_S), 0); /* old ones are forgotten */
    assert_int_equal(v.count, 2);
}

static void test_attempts_are_limited_by_source_and_in_all(void **state)
{
    (void)state;
    struct attempts a = {0};
    uint64_t now = 5 * NS_PER_SEC;
    for (uint32_t n = 0; n < ATTEMPTS_MAX; n++) {
        assert_true(attempts_allow(&a, 1, now));
        attempts_fail(&a, 1, now);
    }
    assert_false(attempts_allow(&a, 1, now));
    assert_true(attempts_allow(&a, 2, now));
    assert_true(attempts_allow(&a, 1, now + 61 * NS_PER_SEC));
    for (uint64_t n = 0; n < 10 * ATTEMPTS_MAX; n++)
        attempts_fail(&a, 100 + n, now + 61 * NS_PER_SEC);
    assert_false(attempts_allow(&a, 7, now + 61 * NS_PER_SEC));
}

int main(void)
{
    if (sodium_init() < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_token_round_trip),
        cmocka_unit_test(test_token_any_slip_is_an_error),
        cmocka_unit_test_setup_teardown(test_pair_request_is_proven, pairing_setup,
                                        pairing_teardown),
        cmocka_unit_test_setup_teardown(test_pair_request_verify_refuses_everything_else,
                                        pairing_setup, pairing_teardown),
        cmocka_unit_test_setup_teardown(test_pair_grant_only_the_secret_opens_it, pairing_setup,
                                        pairing_teardown),
        cmocka_unit_test(test_pair_request_decode_names_are_checked),
        cmocka_unit_test(test_invites_find_says_used_expired_unknown),
        cmocka_unit_test(test_invites_json_round_trip_and_damage),
        cmocka_unit_test(test_invites_add_is_bounded_and_forgets),
        cmocka_unit_test(test_attempts_are_limited_by_source_and_in_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
