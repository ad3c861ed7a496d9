/* Pairing, chunks and strangers over real TLS and HTTP/2 on loopback. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/wan/link_test.h"
#include "wan/token.h"

static void assert_refused(struct node *n, const char *token, int rc, const char *word)
{
    char *text;
    int got = token_accept(n, token, &text);
    if (got != rc || strstr(text, word) == NULL)
        fail_msg("expected %s and \"%s\": %s: %s", err_name(rc), word, err_name(got), text);
    mem_free(text);
}

static void test_accept_used_token_is_refused(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, false);
    struct node *c = site_new("gamma", 33, false);
    char *token = token_new(a, "{}");
    assert_int_equal(token_accept(b, token, NULL), 0);
    assert_refused(c, token, ERR_STALE, "used");
    mem_free(token);
    pair_sites(a, c); /* which does not spoil a fresh one */
    fake_free(a);
    fake_free(b);
    fake_free(c);
}

static void test_accept_expired_token_is_refused(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, false);
    char *token = token_new(a, "{\"ttl_s\":100}");
    /* By the joiner's clock, and, when that one is slow, by the inviter's. */
    fake_clock_shift(b, (int64_t)(200 * NS_PER_SEC));
    assert_refused(b, token, ERR_TIMEOUT, "expired");
    fake_clock_shift(b, 0);
    fake_clock_shift(a, (int64_t)(200 * NS_PER_SEC));
    assert_refused(b, token, ERR_TIMEOUT, "expired");
    mem_free(token);
    fake_free(a);
    fake_free(b);
}

/* Somebody else answers at the address: nothing is said to him. */
static void test_accept_wrong_certificate_is_refused(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, false);
    struct err_detail d;
    struct token t;
    char *token = token_new(a, "{}"), text[TOKEN_TEXT_MAX];
    assert_int_equal(token_from_text(token, &t, &d), 0);
    t.fingerprint[5] ^= 1;
    token_to_text(&t, text);
    assert_refused(b, text, ERR_AUTH, "certificate");
    mem_free(token);
    fake_free(a);
    fake_free(b);
}

static void test_accept_unknown_and_malformed_tokens_are_refused(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, false);
    struct err_detail d;
    struct token t;
    char *token = token_new(a, "{}"), text[TOKEN_TEXT_MAX];
    assert_refused(a, token, ERR_INVALID, "this very site");
    assert_int_equal(token_from_text(token, &t, &d), 0);
    t.secret[0] ^= 1; /* well formed, but never given out */
    token_to_text(&t, text);
    assert_refused(b, text, ERR_AUTH, "not one of this site's");
    assert_refused(b, "", ERR_INVALID, "token");
    assert_refused(b, "cfs1.AAAA", ERR_INVALID, "token");
    assert_int_equal(fake_admin(b, "peer.accept", "no json at all", NULL), ERR_INVALID);
    memcpy(t.address, "127.0.0.1:1", sizeof "127.0.0.1:1");
    token_to_text(&t, text);
    assert_refused(b, text, ERR_UNREACHABLE, "127.0.0.1:1");
    mem_free(token);
    fake_free(a);
    fake_free(b);
}

static void test_accept_attempts_are_limited(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, false);
    struct err_detail d;
    struct token t;
    char *token = token_new(a, "{}"), text[TOKEN_TEXT_MAX];
    assert_int_equal(token_from_text(token, &t, &d), 0);
    int rc = 0;
    t.secret[0] ^= 1; /* never the right one */
    for (int i = 0; i < 12 && rc != ERR_AGAIN; i++) {
        t.secret[1] = (uint8_t)(i + 1);
        token_to_text(&t, text);
        rc = token_accept(b, text, NULL);
        assert_int_not_equal(rc, 0);
    }
    assert_int_equal(rc, ERR_AGAIN);
    mem_free(token);
    fake_free(a);
    fake_free(b);
}

static void test_accept_site_with_data_is_refused(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, false);
    char *token = token_new(a, "{}");
    fake_write(b, 0, 1, 10);
    assert_refused(b, token, ERR_NOT_EMPTY, "data");
    mem_free(token);
    fake_free(a);
    fake_free(b);
}

static void test_accept_second_site_of_a_name_is_refused(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, false);
    struct node *c = site_new("beta", 33, false);
    pair_sites(a, b);
    char *token = token_new(a, "{}");
    assert_refused(c, token, ERR_EXISTS, "name");
    mem_free(token);
    fake_free(a);
    fake_free(b);
    fake_free(c);
}

static void test_invite_needs_an_address(void **state)
{
    (void)state;
    struct node *b = site_new("beta", 22, false);
    char *text;
    assert_int_equal(fake_admin(b, "peer.invite", "{}", &text), ERR_CONFIG);
    mem_free(text);
    assert_int_equal(fake_admin(b, "peer.invite", "{\"address\":\"nonsense\"}", &text),
                     ERR_INVALID);
    mem_free(text);
    assert_int_equal(fake_admin(b, "peer.invite", "{\"ttl_s\":-4}", &text), ERR_INVALID);
    mem_free(text);
    fake_free(b);
}

/* A new site with much to load: the snapshot has many pages. */
static void test_accept_snapshot_of_many_pages(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, false);
    for (shard_id_t s = 0; s < FAKE_SHARDS; s++)
        fake_write(a, s, 400, 4000);
    pair_sites(a, b);
    wait_same(a, b);
    assert_int_equal(fake_duplicates(b), 0);
    fake_free(a);
    fake_free(b);
}

/* The site that lets it in is of an older version, which knows a state alone: that is asked for at
 * once, and the token's answer is not that there was an error. */
static void test_accept_snapshot_of_an_older_program(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    fake_older(a, FAKE_ASKS_OLD | FAKE_KNOWS_OLD);
    fake_write(a, 1, 50, 100);
    pair_sites(a, b);
    wait_same(a, b);
    fake_free(a);
    fake_free(b);
}

/* The link breaks in the middle of the snapshot, again and again: it starts over, and ends. */
static void test_accept_snapshot_starts_over_after_cuts(void **state)
{
    (void)state;
    struct proxy *p = proxy_new(0);
    struct node *a = site_behind(p, "alpha", 11), *b = site_new("beta", 22, false);
    for (shard_id_t s = 0; s < FAKE_SHARDS; s++)
        fake_write(a, s, 200, 4000);
    char *token = token_new(a, "{}");
    proxy_cut_after(p, 1500000); /* past the pairing, within the pages */
    int rc = token_accept(b, token, NULL);
    assert_true(rc == 0 || rc == ERR_CLOSED || rc == ERR_UNREACHABLE);
    wait_state(b, "alpha", "connected");
    wait_same(a, b);
    mem_free(token);
    fake_free(b);
    proxy_free(p);
    fake_free(a);
}

struct breaking {
    struct node *joins;
    struct proxy *p;
};

static bool commits(void *ctx)
{
    return fake_commits(ctx);
}

static void *break_at_commit(void *ctx)
{
    struct breaking *b = ctx;
    wait_until(commits, b->joins, "all pages");
    proxy_cut(b->p);
    return NULL;
}

/* The link breaks when all pages are here, while they are made durable: nothing is asked for again.
 */
static void test_accept_ends_without_the_link_once_all_is_here(void **state)
{
    (void)state;
    struct breaking k = {.p = proxy_new(0)};
    pthread_t thread;
    struct node *a = site_behind(k.p, "alpha", 11), *b = site_new("beta", 22, false);
    k.joins = b;
    fake_write(a, 0, 10, 100);
    char *token = token_new(a, "{}");
    fake_stall(b, true);
    assert_int_equal(pthread_create(&thread, NULL, break_at_commit, &k), 0);
    assert_int_not_equal(token_accept(b, token, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    fake_stall(b, false);
    wait_state(b, "alpha", "connected");
    wait_same(a, b);
    mem_free(token);
    fake_free(b);
    proxy_free(k.p);
    fake_free(a);
}

/* --- chunks --- */

static void test_chunk_fetch(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    uint8_t small[32] = {1}, large[32] = {2}, missing[32] = {3};
    const size_t large_len = 4u << 20;
    uint8_t *bytes = mem_calloc(1, large_len);
    struct rng rng;
    struct buf got = {0};
    rng_seed(&rng, 8);
    test_noise(&rng, bytes, large_len);
    assert_int_equal(fake_fetch(b, small, &got), ERR_UNREACHABLE); /* no peers at all */
    pair_sites(a, b);
    wait_state(b, "alpha", "connected");
    fake_chunk_add(a, small, slice_str("tiny"));
    fake_chunk_add(a, large, slice_of(bytes, large_len));
    assert_int_equal(fake_fetch(b, small, &got), 0);
    assert_true(slice_equal(buf_slice(&got), slice_str("tiny")));
    assert_int_equal(fake_fetch(b, large, &got), 0);
    assert_true(slice_equal(buf_slice(&got), slice_of(bytes, large_len)));
    assert_int_equal(fake_fetch(b, missing, &got), ERR_NOT_FOUND);
    buf_deinit(&got);
    mem_free(bytes);
    fake_free(a);
    fake_free(b);
}

/* Who has it is asked after who has not. */
/* The site that joins asks for its snapshot at once: it is known by then, although the members have
 * not been read again. */
static void test_joiner_is_known_when_it_is_told_so(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    fake_members_hide(a, true);
    pair_sites(a, b);
    wait_state(b, "alpha", "connected");
    fake_members_hide(a, false);
    fake_free(a);
    fake_free(b);
}

static void test_chunk_fetch_asks_the_next_peer(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    struct node *c = site_new("gamma", 33, true);
    uint8_t only_a[32] = {1}, only_b[32] = {2};
    struct buf got = {0};
    pair_sites(a, b);
    pair_sites(a, c);
    wait_state(c, "alpha", "connected");
    wait_state(c, "beta", "connected");
    fake_chunk_add(a, only_a, slice_str("from a"));
    fake_chunk_add(b, only_b, slice_str("from b"));
    assert_int_equal(fake_fetch(c, only_a, &got), 0);
    assert_true(slice_equal(buf_slice(&got), slice_str("from a")));
    assert_int_equal(fake_fetch(c, only_b, &got), 0);
    assert_true(slice_equal(buf_slice(&got), slice_str("from b")));
    buf_deinit(&got);
    fake_free(a);
    fake_free(b);
    fake_free(c);
}

/* --- strangers --- */

static int tcp_dial(uint16_t port)
{
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

static void test_port_garbage_is_survived(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, false);
    struct rng rng;
    uint8_t noise[4000];
    rng_seed(&rng, 21);
    for (int i = 0; i < 40; i++) {
        int fd = tcp_dial(fake_port(a));
        test_noise(&rng, noise, sizeof noise);
        if (i % 3 == 0)
            memcpy(noise, "GET / HTTP/1.1\r\n\r\n", 18);
        if (i % 3 == 1)
            memcpy(noise, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11); /* a client hello */
        (void)!send(fd, noise, 1 + rng_below(&rng, sizeof noise), MSG_NOSIGNAL);
        if (i % 2 == 0) { /* wait for the end; the other half just goes */
            shutdown(fd, SHUT_WR);
            while (read(fd, noise, sizeof noise) > 0)
                continue;
        }
        close(fd);
    }
    pair_sites(a, b);
    wait_same(a, b);
    fake_free(a);
    fake_free(b);
}

/* A damaged file of ours is an error that names it, not a new identity. */
static void test_start_damaged_files_are_said(void **state)
{
    (void)state;
    static const char *const names[] = {"wan.key", "wan.crt", "invites.json", "wan.json",
                                        "wan_boot.json"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, false);
        struct wan *w = NULL;
        struct err_detail d = {{0}};
        pair_sites(a, b);
        assert_int_equal(fake_admin(a, "peer.pause", "{\"name\":\"beta\"}", NULL), 0);
        fake_needs_snapshot(a, true); /* or the last one would only be left over */
        fake_wan_stop(a);
        char *path = mem_printf("%s/%s", node_dir(a), names[i]);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_int_equal(write(fd, "{damaged", 8), 8);
        close(fd);
        int rc = fake_wan_try(a, &w, &d);
        if (rc != ERR_CORRUPT)
            fail_msg("%s: %s %s", names[i], err_name(rc), d.text);
        if (strcmp(names[i], "invites.json") != 0) /* it is told apart by its words */
            assert_non_null(strstr(d.text, "wan"));
        mem_free(path);
        fake_free(a);
        fake_free(b);
    }
}

/* ---- joining one file system, then another ---- */

struct others {
    struct node *a, *b, *c; /* two file systems, and a site that joins the first */
};

/* What a waits for never comes: that is the moment in which an operator takes b's token. */
static void others_begin(struct others *o)
{
    char *token, *text;
    o->a = site_new("alpha", 11, true);
    o->b = site_new("beta", 22, true);
    o->c = site_new("gamma", 33, false);
    fake_write(o->a, 0, 7, 10);
    fake_write(o->b, 1, 5, 10);
    fake_refuse_snapshots(o->a, true);
    token = token_new(o->a, "{}");
    assert_int_not_equal(token_accept(o->c, token, &text), 0);
    assert_non_null(strstr(text, "paired with alpha"));
    mem_free(text);
    mem_free(token);
}

static void others_end(struct others *o)
{
    fake_free(o->a);
    fake_free(o->b);
    fake_free(o->c);
}

struct take_wish {
    struct node *n;
    const char *token;
    int rc;
};
static bool is_taken(void *ctx)
{
    struct take_wish *w = ctx;
    w->rc = token_accept(w->n, w->token, NULL);
    return w->rc != ERR_BUSY && w->rc != ERR_AGAIN;
}

/* At a moment in which no connection to a is there. */
static int take_token(struct node *c, const char *token)
{
    struct take_wish w = {.n = c, .token = token};
    wait_until(is_taken, &w, "an answer to the token");
    return w.rc;
}

/* The token of another file system begins anew, there. */
static void test_accept_of_another_file_system_while_joining_joins_that(void **state)
{
    (void)state;
    struct others o;
    others_begin(&o);
    char *token = token_new(o.b, "{}");
    assert_int_equal(take_token(o.c, token), 0);
    fake_refuse_snapshots(o.a, false);
    wait_same(o.b, o.c);
    assert_memory_equal(node_fs_key(o.b), node_fs_key(o.c), 32);
    mem_free(token);
    others_end(&o);
}

/* It dies when it has taken the other key, and nothing of the other tree is here. */
static void test_death_after_the_other_key_is_there_joins_the_other(void **state)
{
    (void)state;
    struct others o;
    others_begin(&o);
    fake_refuse_snapshots(o.b, true);
    char *token = token_new(o.b, "{}");
    assert_int_not_equal(take_token(o.c, token), 0);
    assert_memory_equal(node_fs_key(o.b), node_fs_key(o.c), 32);
    fake_wan_stop(o.c);
    fake_refuse_snapshots(o.a, false);
    fake_refuse_snapshots(o.b, false);
    fake_wan_start(o.c);
    wait_same(o.b, o.c);
    mem_free(token);
    others_end(&o);
}

/* Its files say whom to ask for b's tree, and it has a's key: it asks a, for a's. */
static void test_death_before_the_other_key_is_there_goes_on_joining(void **state)
{
    (void)state;
    struct others o;
    others_begin(&o);
    fake_refuse_adopt(o.c, ERR_IO);
    char *token = token_new(o.b, "{}");
    assert_int_equal(take_token(o.c, token), ERR_IO);
    fake_wan_stop(o.c);
    fake_refuse_snapshots(o.a, false);
    fake_wan_start(o.c);
    wait_same(o.a, o.c);
    assert_memory_equal(node_fs_key(o.a), node_fs_key(o.c), 32);
    mem_free(token);
    others_end(&o);
}

/* The same, and it lives. */
static void test_accept_that_is_not_adopted_goes_on_joining(void **state)
{
    (void)state;
    struct others o;
    others_begin(&o);
    fake_refuse_adopt(o.c, ERR_IO);
    char *token = token_new(o.b, "{}");
    assert_int_equal(take_token(o.c, token), ERR_IO);
    fake_refuse_snapshots(o.a, false);
    wait_same(o.a, o.c);
    mem_free(token);
    others_end(&o);
}

/* A file of neither file system is not used; one that does not say which is, as it always was. */
static void test_start_whom_to_ask_is_of_the_file_system(void **state)
{
    (void)state;
    static const uint8_t other[32] = {1};
    struct others o;
    struct err_detail d = {{0}};
    struct wan *w = NULL;
    others_begin(&o);
    fake_wan_stop(o.c);
    uint8_t key[32];
    memcpy(key, node_fs_key(o.c), sizeof key);
    assert_int_equal(node_adopt(o.c, other, FAKE_SHARDS, &d), 0);
    assert_int_equal(fake_wan_try(o.c, &w, &d), ERR_CORRUPT);
    assert_non_null(strstr(d.text, "wan_boot.json: it tells of another file system"));
    assert_int_equal(node_adopt(o.c, key, FAKE_SHARDS, &d), 0);
    char *path = mem_printf("%s/wan_boot.json", node_dir(o.c));
    json_t *file = json_load_file(path, 0, NULL);
    assert_int_equal(json_object_del(file, "file_system"), 0);
    assert_int_equal(json_dump_file(file, path, 0), 0);
    json_decref(file);
    mem_free(path);
    fake_refuse_snapshots(o.a, false);
    fake_wan_start(o.c);
    wait_same(o.a, o.c);
    others_end(&o);
}

static void test_start_key_is_private(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true);
    struct stat st;
    char *path = mem_printf("%s/wan.key", node_dir(a));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    mem_free(path);
    mem_free(token_new(a, "{}"));
    path = mem_printf("%s/invites.json", node_dir(a));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    mem_free(path);
    fake_free(a);
}

int main(void)
{
    if (sodium_init() < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accept_used_token_is_refused),
        cmocka_unit_test(test_accept_expired_token_is_refused),
        cmocka_unit_test(test_accept_wrong_certificate_is_refused),
        cmocka_unit_test(test_accept_unknown_and_malformed_tokens_are_refused),
        cmocka_unit_test(test_accept_attempts_are_limited),
        cmocka_unit_test(test_accept_site_with_data_is_refused),
        cmocka_unit_test(test_accept_second_site_of_a_name_is_refused),
        cmocka_unit_test(test_invite_needs_an_address),
        cmocka_unit_test(test_accept_snapshot_of_many_pages),
        cmocka_unit_test(test_accept_snapshot_of_an_older_program),
        cmocka_unit_test(test_accept_snapshot_starts_over_after_cuts),
        cmocka_unit_test(test_accept_ends_without_the_link_once_all_is_here),
        cmocka_unit_test(test_chunk_fetch),
        cmocka_unit_test(test_joiner_is_known_when_it_is_told_so),
        cmocka_unit_test(test_chunk_fetch_asks_the_next_peer),
        cmocka_unit_test(test_port_garbage_is_survived),
        cmocka_unit_test(test_start_damaged_files_are_said),
        cmocka_unit_test(test_start_key_is_private),
        cmocka_unit_test(test_accept_of_another_file_system_while_joining_joins_that),
        cmocka_unit_test(test_death_after_the_other_key_is_there_joins_the_other),
        cmocka_unit_test(test_death_before_the_other_key_is_there_goes_on_joining),
        cmocka_unit_test(test_accept_that_is_not_adopted_goes_on_joining),
        cmocka_unit_test(test_start_whom_to_ask_is_of_the_file_system),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
