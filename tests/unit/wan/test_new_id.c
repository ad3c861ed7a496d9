/* A site that has come back under another id, as the others see it: it, its old ids and those that
 * it never got to know are told apart. Real TLS and HTTP/2 on loopback. */
#include "tests/unit/wan/link_test.h"

struct error_wish {
    struct node *n;
    const char *peer, *words;
};
static bool has_error(void *ctx)
{
    const struct error_wish *w = ctx;
    json_t *error = peer_field(w->n, w->peer, "error");
    bool has = error != NULL && strstr(json_string_value(error), w->words) != NULL;
    json_decref(error);
    return has;
}
static void wait_error(struct node *n, const char *peer, const char *words)
{
    struct error_wish w = {n, peer, words};
    wait_until(has_error, &w, words);
}

struct print {
    site_id_t site;
    uint8_t sha256[32];
};
static bool take_print(void *ctx, const struct member *m)
{
    struct print *p = ctx;
    if (m->site == p->site)
        memcpy(p->sha256, m->cert_sha256, sizeof p->sha256);
    return true;
}

static void ignore(void *ctx, int rc)
{
    (void)ctx;
    (void)rc;
}

/* It is let in there under its new id. */
static void hears_of(struct node *n, site_id_t before, site_id_t after)
{
    struct print p = {.site = before};
    assert_int_equal(node_members(n, take_print, &p), 0);
    node_member_returns(n, before, p.sha256, after, ignore, NULL);
}

/* Who knows only that its old id has left does not take the new one for it. */
static void test_new_id_that_is_not_known_yet_was_not_removed(void **state)
{
    (void)state;
    struct node *a, *b;
    two_sites(&a, &b, true);
    assert_int_equal(fake_admin(a, "peer.remove", "{\"name\":\"beta\"}", NULL), 0);
    wait_state(a, "beta", "removed");
    fake_wan_stop(b);
    fake_become(b, 33);
    fake_wan_start(b);
    wait_error(b, "alpha", "the id of this site is not known there");
    assert_false(knows_removal(b));
    hears_of(a, 22, 33);
    wait_state(b, "alpha", "connected");
    fake_free(a);
    fake_free(b);
}

/* Somebody let it in under another id as well, which it never got to know. */
static void test_id_that_has_left_hears_so_while_another_of_its_is_a_member(void **state)
{
    (void)state;
    struct node *a, *b;
    two_sites(&a, &b, true);
    fake_wan_stop(b);
    hears_of(a, 22, 33);
    wait_state(a, "beta", "removed"); /* its old id, which is told last */
    fake_wan_start(b);
    wait_error(b, "alpha", "it can come back");
    assert_true(knows_removal(b));
    fake_free(a);
    fake_free(b);
}

/* Two members let it in, each under another id, and it knows of the one only; the other one is what
 * its certificate is looked for under. It listens, or lends a connection. */
static void test_of_two_ids_of_a_site_the_one_that_it_says_is_meant(void **state)
{
    (void)state;
    for (unsigned listens = 0; listens < 2; listens++) {
        struct node *a, *b;
        struct member m = {.site = 55, .name = "beta", .cert = slice_str("cert")};
        struct print p = {.site = 22};
        two_sites(&a, &b, listens != 0);
        assert_int_equal(node_members(a, take_print, &p), 0);
        memcpy(m.cert_sha256, p.sha256, sizeof m.cert_sha256);
        fake_wan_stop(b);
        fake_become(b, 33);
        hears_of(a, 22, 33);
        node_member_set(a, &m, ignore, NULL);
        fake_wan_start(b);
        wait_state(b, "alpha", "connected");
        fake_write(a, 1, 20, 100);
        fake_write(b, 2, 20, 100);
        wait_same(a, b);
        fake_free(a);
        fake_free(b);
    }
}

static site_id_t drawn_last(const char *text)
{
    json_t *o = json_loads(text, 0, NULL);
    site_id_t id = (site_id_t)strtoul(json_string_value(json_object_get(o, "after_id")), NULL, 16);
    json_decref(o);
    return id;
}

static bool knows_site(struct node *n, site_id_t site)
{
    static const uint8_t none[32];
    struct print p = {.site = site};
    assert_int_equal(node_members(n, take_print, &p), 0);
    return memcmp(p.sha256, none, sizeof none) != 0;
}

/* So it is told by the answer to its request, and passes nothing on. */
static void left_while_away(struct node *n, site_id_t site, struct node *there)
{
    fake_wan_stop(n);
    node_member_remove(there, site, LEAVES_AWAY, ignore, NULL);
    fake_wan_start(n);
}

/* `to` and `other` do not talk, and only the first knows that the site has left. */
static void returns_to(const char *to, const char *other)
{
    struct node *a = site_new("alpha", 11, false), *b = site_new("beta", 22, true);
    struct node *c = site_new("gamma", 33, true);
    struct node *left = strcmp(to, "beta") == 0 ? b : c, *stays = left == b ? c : b;
    char *text, *json = mem_printf("{\"name\":\"%s\"}", other);
    pair_sites(b, a);
    pair_sites(b, c);
    wait_state(b, "gamma", "connected");
    wait_state(c, "beta", "connected");
    assert_int_equal(fake_admin(left, "peer.pause", json, NULL), 0);
    wait_state(stays, to, "paused_there");
    left_while_away(a, 11, left);
    wait_state(a, to, "removed_there");
    wait_state(a, other, "connected");
    fake_returns(a, 44, 55);
    int rc = fake_admin(a, "site.return", "{}", &text);
    if (rc != 0)
        fail_msg("site.return: %s: %s", err_name(rc), text);
    assert_non_null(strstr(text, to));
    assert_int_equal(drawn_last(text), 44);
    assert_int_equal(fake_returned(a).gone, 1);
    assert_true(knows_site(left, 44));
    assert_false(knows_site(stays, 44));
    mem_free(text);
    mem_free(json);
    fake_free(a);
    fake_free(b);
    fake_free(c);
}

/* Of a federation in two parts only that one is asked that has given it up, whichever of them would
 * come first. */
static void test_return_asks_those_who_say_that_it_has_left(void **state)
{
    (void)state;
    returns_to("beta", "gamma");
    returns_to("gamma", "beta");
}

/* It was a member under this id, too, and that has left. */
static void knows_as_left(struct node *n, site_id_t site, site_id_t spent)
{
    struct print p = {.site = site};
    struct member m = {.site = spent};
    assert_int_equal(node_members(n, take_print, &p), 0);
    memcpy(m.cert_sha256, p.sha256, sizeof m.cert_sha256);
    snprintf(m.name, sizeof m.name, "alpha");
    node_member_bring(n, &m, LEAVES_AWAY, ignore, NULL);
}

static void test_return_draws_an_id_that_has_left_anew_once(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, false), *b = site_new("beta", 22, true);
    char *text;
    pair_sites(b, a);
    wait_same(a, b);
    knows_as_left(b, 11, 44);
    knows_as_left(b, 11, 55);
    wait_same(a, b);
    left_while_away(a, 11, b);
    wait_state(a, "beta", "removed_there");
    fake_returns(a, 44, 55);
    assert_int_equal(fake_admin(a, "site.return", "{}", &text), ERR_EXISTS);
    assert_non_null(strstr(text, "the new site id has left"));
    assert_int_equal(fake_returned(a).drawn, 2);
    assert_int_equal(fake_returned(a).gone, 0);
    mem_free(text);
    fake_returns(a, 44, 66);
    assert_int_equal(fake_admin(a, "site.return", "{}", &text), 0);
    assert_int_equal(drawn_last(text), 66);
    assert_int_equal(fake_returned(a).drawn, 2);
    assert_int_equal(fake_returned(a).gone, 1);
    mem_free(text);
    fake_free(a);
    fake_free(b);
}

static bool removes(void *ctx)
{
    return fake_admin(ctx, "peer.remove", "{\"name\":\"beta\"}", NULL) == 0;
}

/* It was given up once, came back, and was removed: with the directory it had then, or with an id
 * that nobody knows, it gets in no more, until an operator lets it. */
static void test_a_removed_site_does_not_return_by_another_of_its_ids(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    char *text;
    pair_sites(a, b);
    wait_same(a, b);
    left_while_away(b, 22, a);
    wait_state(b, "alpha", "removed_there");
    fake_wan_stop(b);
    hears_of(a, 22, 33);
    wait_until(removes, a, "beta is removed again");
    for (unsigned round = 0; round < 3; round++) {
        if (round == 1)
            fake_become(b, 99);
        fake_wan_start(b);
        if (round == 1)
            wait_error(b, "alpha", "the id of this site is not known there");
        else
            wait_error(b, "alpha", round == 0 ? "removed from the federation" : "known");
        fake_returns(b, 44, 66);
        int rc = fake_admin(b, "site.return", "{}", &text);
        assert_int_equal(rc, round < 2 ? ERR_REMOVED : 0);
        assert_true(knows_site(a, 44) == (round == 2));
        mem_free(text);
        if (round == 1)
            assert_int_equal(fake_admin(a, "peer.readmit", "{\"name\":\"beta\"}", NULL), 0);
        fake_wan_stop(b);
    }
    fake_wan_start(b);
    fake_free(a);
    fake_free(b);
}

/* alpha says that beta has left, and gamma says that alpha has: whoever came back to alpha would
 * have to come back once more. */
static void test_who_has_left_lets_nobody_come_back(void **state)
{
    (void)state;
    struct proxy *pa = proxy_new(0); /* for it listens on another port when it is started again */
    char *text;
    struct node *a = site_behind(pa, "alpha", 11);
    struct node *b = site_new("beta", 22, true), *c = site_new("gamma", 33, true);
    pair_sites(a, b);
    pair_sites(a, c);
    wait_state(b, "gamma", "connected");
    wait_state(c, "beta", "connected");
    assert_int_equal(fake_admin(b, "peer.pause", "{\"name\":\"gamma\"}", NULL), 0);
    fake_wan_stop(b);
    left_while_away(a, 11, c);
    proxy_aim(pa, fake_port(a));
    wait_state(a, "gamma", "removed_there");
    node_member_remove(a, 22, LEAVES_AWAY, ignore, NULL);
    fake_wan_start(b);
    wait_state(b, "alpha", "removed_there");
    fake_returns(b, 44, 55);
    assert_int_equal(fake_admin(b, "site.return", "{}", &text), ERR_BUSY);
    assert_non_null(strstr(text, "has left itself"));
    assert_false(knows_site(a, 44));
    mem_free(text);
    fake_free(a);
    fake_free(b);
    fake_free(c);
    proxy_free(pa);
}

/* What is said of its life before is not taken for what it is now. */
static void test_hello_for_the_id_before_is_no_rollback(void **state)
{
    (void)state;
    struct proxy *pa = proxy_new(0); /* for it listens on another port when it is started again */
    struct node *a = site_behind(pa, "alpha", 11);
    struct node *b = site_new("beta", 22, true);
    struct state_wish alarm = {a, "beta", "rolled_back"}, heard = {b, "alpha", "rolled_back_there"};
    pair_sites(a, b);
    fake_write(a, 0, 50, 10);
    wait_same(a, b);
    fake_wan_stop(a);
    fake_forget(a, 0); /* its tree is another one's from here on */
    fake_become(a, 44);
    fake_write(a, 0, 5, 10);
    fake_wan_start(a);
    proxy_aim(pa, fake_port(a));
    wait_error(b, "alpha", "has come back under another id");
    wait_error(a, "beta", "the id of this site is not known there");
    assert_false(has_state(&alarm) || has_state(&heard));
    assert_int_equal(fake_seq(b, 0, 44), 0); /* nothing of a site that is not known */
    assert_int_not_equal(fake_admin(a, "wait", "{\"timeout_s\":0.3}", NULL), ERR_ROLLBACK);
    fake_free(a);
    fake_free(b);
    proxy_free(pa);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_id_that_is_not_known_yet_was_not_removed),
        cmocka_unit_test(test_id_that_has_left_hears_so_while_another_of_its_is_a_member),
        cmocka_unit_test(test_of_two_ids_of_a_site_the_one_that_it_says_is_meant),
        cmocka_unit_test(test_return_asks_those_who_say_that_it_has_left),
        cmocka_unit_test(test_return_draws_an_id_that_has_left_anew_once),
        cmocka_unit_test(test_a_removed_site_does_not_return_by_another_of_its_ids),
        cmocka_unit_test(test_who_has_left_lets_nobody_come_back),
        cmocka_unit_test(test_hello_for_the_id_before_is_no_rollback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
