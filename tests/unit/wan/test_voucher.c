/* A site that is a member, and a stranger to another member, because the one that let it in is
 * lost. Real certificates and keys, real TLS; the file is changed where somebody lies. */
#include <fcntl.h>
#include <sodium.h>
#include <unistd.h>

#include "tests/unit/wan/link_test.h"
#include "wan/voucher.h"
#include "wan/wan_file.h"
#include "wan/wan_tls.h"

/* alpha invites gamma, and, while gamma is down, beta; then alpha is lost. */
struct world {
    struct node *alpha, *beta, *gamma;
    struct proxy *way; /* to gamma */
};

static bool alpha_has_all(void *ctx)
{
    struct world *w = ctx;
    return fake_same(w->alpha, w->beta);
}

static void world_init(struct world *w)
{
    w->way = proxy_new(0);
    w->alpha = site_new("alpha", 11, true);
    w->gamma = site_behind(w->way, "gamma", 33);
    w->beta = site_new("beta", 22, false);
    pair_sites(w->alpha, w->gamma);
    wait_same(w->alpha, w->gamma);
    fake_wan_stop(w->gamma);
    fake_write(w->alpha, 1, 5, 10);
    pair_sites(w->alpha, w->beta);
    fake_write(w->beta, 2, 5, 10);
    wait_until(alpha_has_all, w, "alpha has all of beta");
    fake_wan_stop(w->alpha);
}

/* gamma comes back. */
static void world_meet(struct world *w)
{
    fake_wan_start(w->gamma);
    proxy_aim(w->way, fake_port(w->gamma));
}

static void world_deinit(struct world *w)
{
    fake_free(w->alpha);
    fake_free(w->beta);
    fake_free(w->gamma);
    proxy_free(w->way);
}

struct trouble_wish {
    struct node *n;
    const char *peer, *word;
};

static bool is_told(void *ctx)
{
    const struct trouble_wish *w = ctx;
    json_t *why = peer_field(w->n, w->peer, "error");
    bool told = why != NULL && strstr(json_string_value(why), w->word) != NULL;
    json_decref(why);
    return told;
}

/* At first it is only a stranger there. */
static void assert_trouble(struct node *n, const char *peer, const char *word)
{
    struct trouble_wish w = {n, peer, word};
    wait_until(is_told, &w, word);
    wait_state(n, peer, "refused");
}

/* What alpha did, and gamma lacked, comes from beta, whom gamma had never heard of. */
static void test_a_stranger_that_a_lost_member_let_in_is_let_in(void **state)
{
    struct world w;
    (void)state;
    world_init(&w);
    assert_false(fake_same(w.beta, w.gamma));
    world_meet(&w);
    wait_state(w.beta, "gamma", "connected");
    wait_same(w.beta, w.gamma);
    world_deinit(&w);
}

static void change_voucher(struct node *n, const uint8_t *ptr, size_t len)
{
    struct err_detail d;
    fake_wan_stop(n);
    assert_int_equal(wan_file_write(node_dir(n), "wan_voucher", 0600, slice_of(ptr, len), &d), 0);
    fake_wan_start(n);
}

static void test_a_voucher_that_nobody_signed_lets_nobody_in(void **state)
{
    struct world w;
    struct buf b = {0};
    struct err_detail d;
    (void)state;
    world_init(&w);
    assert_int_equal(wan_file_read(node_dir(w.beta), "wan_voucher", &b, &d), 0);
    b.ptr[b.len - 1] ^= 1;
    change_voucher(w.beta, b.ptr, b.len);
    world_meet(&w);
    assert_trouble(w.beta, "gamma", "did not sign");
    b.ptr[b.len - 1] ^= 1;
    change_voucher(w.beta, b.ptr, b.len); /* it was that bit */
    wait_state(w.beta, "gamma", "connected");
    buf_deinit(&b);
    world_deinit(&w);
}

static void test_a_voucher_of_another_site_lets_nobody_in(void **state)
{
    struct world w;
    struct buf b = {0};
    struct err_detail d;
    struct node *delta = site_new("delta", 44, false);
    (void)state;
    world_init(&w);
    fake_wan_start(w.alpha);
    pair_sites(w.alpha, delta);
    fake_wan_stop(w.alpha);
    assert_int_equal(wan_file_read(node_dir(w.beta), "wan_voucher", &b, &d), 0);
    change_voucher(delta, b.ptr, b.len);
    fake_wan_stop(w.beta);
    world_meet(&w);
    assert_trouble(delta, "gamma", "another site's");
    fake_wan_start(w.beta);
    buf_deinit(&b);
    fake_free(delta);
    world_deinit(&w);
}

static void test_the_word_of_a_removed_site_lets_nobody_in(void **state)
{
    struct world w;
    (void)state;
    world_init(&w);
    fake_wan_start(w.gamma); /* where nobody finds it yet */
    wait_state(w.gamma, "alpha", "unreachable");
    assert_int_equal(fake_admin(w.gamma, "peer.remove", "{\"name\":\"alpha\"}", NULL), 0);
    proxy_aim(w.way, fake_port(w.gamma));
    assert_trouble(w.beta, "gamma", "readmit");
    /* As one that was away alpha could come back by itself: so beta may, and not as a member. */
    assert_int_equal(fake_admin(w.gamma, "peer.readmit", "{\"name\":\"alpha\"}", NULL), 0);
    wait_state(w.beta, "gamma", "removed_there");
    world_deinit(&w);
}

struct print {
    const char *name;
    uint8_t sha256[32];
};
static bool take_print(void *ctx, const struct member *m)
{
    struct print *p = ctx;
    if (strcmp(m->name, p->name) == 0)
        memcpy(p->sha256, m->cert_sha256, sizeof p->sha256);
    return true;
}

static void ignore(void *ctx, int rc)
{
    (void)ctx;
    (void)rc;
}

static bool removes_alpha(void *ctx)
{
    return fake_admin(ctx, "peer.remove", "{\"name\":\"alpha\"}", NULL) == 0;
}

/* It was given up, came back, and was removed under its new id: with its old one it can sign still.
 */
static void test_the_word_of_an_id_before_the_removed_one_lets_nobody_in(void **state)
{
    struct world w;
    struct print p = {.name = "alpha"};
    (void)state;
    world_init(&w);
    fake_wan_start(w.gamma); /* where nobody finds it yet */
    node_member_remove(w.gamma, 11, LEAVES_AWAY, ignore, NULL);
    wait_state(w.gamma, "alpha", "removed");
    assert_int_equal(node_members(w.gamma, take_print, &p), 0);
    node_member_returns(w.gamma, 11, p.sha256, 12, ignore, NULL);
    wait_until(removes_alpha, w.gamma, "alpha is removed again");
    proxy_aim(w.way, fake_port(w.gamma));
    assert_trouble(w.beta, "gamma", "readmit");
    assert_int_equal(fake_admin(w.gamma, "peer.readmit", "{\"name\":\"alpha\"}", NULL), 0);
    wait_state(w.beta, "gamma", "removed_there");
    world_deinit(&w);
}

static void test_a_signature_is_of_one_text_by_one_key(void **state)
{
    char dir[] = "/tmp/cfs-voucher-XXXXXX";
    struct wan_identity a = {0}, b = {0};
    struct err_detail d;
    uint8_t signature[SIGNATURE_BYTES];
    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(wan_identity_open(dir, "alpha", &a, &d), 0);
    assert_int_equal(wan_file_remove(dir, "wan.key", &d), 0);
    assert_int_equal(wan_file_remove(dir, "wan.crt", &d), 0);
    assert_int_equal(wan_identity_open(dir, "beta", &b, &d), 0);
    assert_int_equal(wan_identity_sign(&a, slice_str("said"), signature), 0);
    assert_int_equal(wan_signature_check(buf_slice(&a.pem), slice_str("said"), signature), 0);
    assert_int_equal(wan_signature_check(buf_slice(&a.pem), slice_str("sald"), signature),
                     ERR_AUTH);
    assert_int_equal(wan_signature_check(buf_slice(&b.pem), slice_str("said"), signature),
                     ERR_AUTH);
    assert_int_equal(wan_signature_check(slice_str("no"), slice_str("said"), signature),
                     ERR_MALFORMED);
    assert_int_equal(wan_file_remove(dir, "wan.key", &d), 0);
    assert_int_equal(wan_file_remove(dir, "wan.crt", &d), 0);
    assert_int_equal(rmdir(dir), 0);
    wan_identity_deinit(&a);
    wan_identity_deinit(&b);
}

/* All that can be wrong with the bytes, and what two vouchers differ in is signed. */
static void test_a_request_is_read_as_it_was_written(void **state)
{
    struct voucher v = {.by = 11, .at_ms = 7, .site = 22, .name = "beta", .address = "b:1"}, got;
    uint8_t signature[SIGNATURE_BYTES] = {7}, again[SIGNATURE_BYTES];
    struct buf voucher = {0}, request = {0}, said = {0}, other = {0};
    struct slice pem;
    (void)state;
    voucher_encode(&v, signature, &voucher);
    voucher_request_encode(buf_slice(&voucher), slice_str("pem"), &request);
    assert_int_equal(voucher_request_decode(buf_slice(&request), &got, again, &pem), 0);
    assert_int_equal(got.by, 11);
    assert_int_equal(got.at_ms, 7);
    assert_int_equal(got.site, 22);
    assert_string_equal(got.name, "beta");
    assert_string_equal(got.address, "b:1");
    assert_memory_equal(again, signature, sizeof again);
    assert_true(slice_equal(pem, slice_str("pem")));
    for (size_t len = 0; len < request.len; len++)
        assert_int_not_equal(voucher_request_decode(slice_of(request.ptr, len), &got, again, &pem),
                             0);
    voucher_said(&v, &said);
    v.site = 23;
    voucher_said(&v, &other);
    assert_false(slice_equal(buf_slice(&said), buf_slice(&other)));
    v.site = v.by; /* nobody lets itself in */
    buf_clear(&voucher);
    buf_clear(&request);
    voucher_encode(&v, signature, &voucher);
    voucher_request_encode(buf_slice(&voucher), slice_str("pem"), &request);
    assert_int_equal(voucher_request_decode(buf_slice(&request), &got, again, &pem), ERR_MALFORMED);
    buf_deinit(&voucher);
    buf_deinit(&request);
    buf_deinit(&said);
    buf_deinit(&other);
}

int main(void)
{
    if (sodium_init() < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stranger_that_a_lost_member_let_in_is_let_in),
        cmocka_unit_test(test_a_voucher_that_nobody_signed_lets_nobody_in),
        cmocka_unit_test(test_a_voucher_of_another_site_lets_nobody_in),
        cmocka_unit_test(test_the_word_of_a_removed_site_lets_nobody_in),
        cmocka_unit_test(test_the_word_of_an_id_before_the_removed_one_lets_nobody_in),
        cmocka_unit_test(test_a_signature_is_of_one_text_by_one_key),
        cmocka_unit_test(test_a_request_is_read_as_it_was_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
