/* A client that has the site's key and sends requests that no mount would: every type, with
 * objects, names, numbers and contents that do not go together, JSON that means nothing, damaged
 * bodies. The node answers each or closes the connection, goes on serving, is in order, and starts
 * again (P9). */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "site/rpc.h"
#include "site/settings.h"
#include "tests/unit/site/node_test.h"

enum {
    REQUESTS = 1500,
    OIDS_MAX = 64,
    BYTES_MAX = 20000,
    ANSWER_MS = 60000,
    SHARDS = 2
};

struct hostile {
    struct node_test t;
    struct rng rng;
    pthread_t thread;
    sem_t stopped;
    struct rpc_auth auth;
    char path[96];
    struct rpc_client *client, *admin; /* NULL: not open */
    uint64_t session;                  /* one for all: nobody waits for what it had looked up */
    struct rpc_reply raw;
    struct op_arena arena;
    uint64_t number;
    struct oid oids[OIDS_MAX]; /* that were in answers */
    uint32_t oid_count;
    uint8_t bytes[BYTES_MAX];
    uint32_t answered, refused, closed;
    int run_rc; /* of the node's thread, as the next one */
    uint32_t violations;
};

static uint64_t below(struct hostile *h, uint64_t n)
{
    return rng_below(&h->rng, n);
}

/* ---- the node, in a thread of its own ---- */

static void on_violation(void *ctx, const char *what)
{
    struct hostile *h = ctx;
    print_error("violated: %s\n", what);
    h->violations++;
}

/* Runs it to its end, looks whether it is in order, and closes it. Asserting is for the test's
 * thread. */
static void *node_main(void *arg)
{
    struct hostile *h = arg;
    h->run_rc = node_run(h->t.n);
    while (sem_wait(&h->stopped) != 0) /* node_stop may still be in there */
        ;
    for (unsigned i = 0; i < SHARDS && h->run_rc == 0; i++)
        h->run_rc = merge_check(shard_merge(h->t.n->shards[i]), on_violation, h);
    node_test_close(&h->t);
    return NULL;
}

static void start(struct hostile *h)
{
    struct err_detail d;
    (void)snprintf(h->path, sizeof h->path, "%s/sock", h->t.dir);
    assert_int_equal(dir_file_read(h->t.dir, "site.key", h->auth.site_key, 32, &d), 0);
    assert_int_equal(sem_init(&h->stopped, 0, 0), 0);
    assert_int_equal(pthread_create(&h->thread, NULL, node_main, h), 0);
}

static void stop(struct hostile *h)
{
    rpc_client_close(h->client);
    rpc_client_close(h->admin);
    h->client = h->admin = NULL;
    node_stop(h->t.n);
    assert_int_equal(sem_post(&h->stopped), 0);
    assert_int_equal(pthread_join(h->thread, NULL), 0);
    assert_int_equal(sem_destroy(&h->stopped), 0);
    assert_int_equal(h->run_rc, 0);
    assert_int_equal(h->violations, 0);
}

/* ---- asking ---- */

static int ask(struct hostile *h, bool admin, uint16_t type, struct slice body, struct slice bulk)
{
    struct rpc_client *c = admin ? h->admin : h->client;
    h->number++;
    return rpc_client_call(c, type, h->number, 0, body, bulk, ANSWER_MS, &h->raw);
}

static int ask_well(
    struct hostile *h, bool admin, uint16_t type, const struct fs_request *q, struct fs_reply *r)
{
    struct buf body = {0};
    fs_request_encode(q, &body);
    int rc = ask(h, admin, type, buf_slice(&body), slice_of(NULL, 0));
    buf_deinit(&body);
    op_arena_reset(&h->arena);
    return rc == 0 ? fs_reply_decode(h->raw.frame.body, &h->arena, r) : rc;
}

static void join(struct hostile *h, bool admin)
{
    struct err_detail d = {{0}};
    struct fs_reply r = {0};
    struct rpc_target target = {.unix_path = h->path};
    struct rpc_client **c = admin ? &h->admin : &h->client;
    rpc_client_close(*c);
    assert_int_equal(rpc_client_connect(c, &target, &h->auth, ANSWER_MS, &d), 0);
    struct fs_request q = {.session = admin ? 0 : h->session, .flags = admin ? HELLO_ADMIN : 0};
    assert_int_equal(ask_well(h, admin, RPC_HELLO, &q, &r), 0);
    if (r.rc == ERR_STALE) { /* it was given up: what it was told was not acknowledged */
        q.session = 0;
        assert_int_equal(ask_well(h, admin, RPC_HELLO, &q, &r), 0);
    }
    assert_int_equal(r.rc, 0);
    if (!admin)
        h->session = r.session;
}

/* ---- drawing ---- */

static uint64_t draw_number(struct hostile *h)
{
    static const uint64_t edges[] = {0, 1, 2, 255, 4096, 65536, UINT32_MAX, INT64_MAX, UINT64_MAX};
    return below(h, 3) == 0 ? rng_next(&h->rng) >> below(h, 64)
                            : edges[below(h, ARRAY_COUNT(edges))];
}

static struct oid draw_oid(struct hostile *h)
{
    struct oid o = OID_ROOT;
    uint8_t hash[12];
    switch (below(h, 8)) {
    case 0:
        return o;
    case 1:
        for (size_t i = 0; i < sizeof o.b; i++)
            o.b[i] = (uint8_t)draw_number(h);
        return o;
    case 2:
        o = oid_file((shard_id_t)below(h, SHARDS + 1), OID_FILE, (site_id_t)draw_number(h),
                     below(h, 20));
        o.b[2] = (uint8_t)below(h, 9); /* its kind, or none */
        return o;
    case 3:
        memset(hash, (int)below(h, 3), sizeof hash);
        return oid_dir((shard_id_t)below(h, SHARDS + 1), hash);
    default:
        return h->oid_count == 0 ? o : h->oids[below(h, h->oid_count)];
    }
}

static struct slice draw_bytes(struct hostile *h, size_t max)
{
    size_t len = below(h, 2) == 0 ? below(h, 64) : below(h, max + 1);
    size_t at = below(h, BYTES_MAX - len + 1);
    return slice_of(h->bytes + at, len);
}

static struct slice draw_name(struct hostile *h)
{
    static const char *const names[] = {
        "",       "a",
        "b",      "c",
        ".",      "..",
        "a/b",    "/",
        "user.a", "system.posix_acl_access",
        "user.",  "system.posix_acl_default",
        "a.txt",  "a.conflict-alpha-00000001.txt",
        "\xff",   "user.claudefs.policy",
        "user.b", "user.claudefs.version",
        "user.c", "security.capability",
        "d",      "trusted.x",
    };
    if (below(h, 6) == 0)
        return draw_bytes(h, below(h, 2) == 0 ? 300 : 5000);
    return slice_str(names[below(h, ARRAY_COUNT(names))]);
}

/* Access control lists, nearly right. */
static struct slice draw_acl(struct hostile *h)
{
    static const uint16_t tags[] = {1, 2, 4, 8, 16, 32, 64, 0};
    struct buf b = {0};
    enc_u32(&b, below(h, 8) == 0 ? (uint32_t)draw_number(h) : 2);
    for (uint64_t n = below(h, 8); n > 0; n--) {
        enc_u16(&b, tags[below(h, ARRAY_COUNT(tags))]);
        enc_u16(&b, (uint16_t)below(h, 9));
        enc_u32(&b, below(h, 2) == 0 ? UINT32_MAX : (uint32_t)below(h, 5));
    }
    struct slice s = op_dup(&h->arena, buf_slice(&b));
    buf_deinit(&b);
    return s;
}

static struct slice draw_json(struct hostile *h)
{
    static const char *const verbs[] = {"status",         "log",
                                        "conflicts.list", "conflicts.explain",
                                        "conflicts.show", "conflicts.resolve",
                                        "conflicts.undo", "journal.show",
                                        "journal.tail",   "journal.keep",
                                        "restore",        "versions.keep",
                                        "fsck",           "gc",
                                        "gc.status",      "?"};
    static const char *const keys[] = {"levels", "id",      "quick", "repair", "path", "count",
                                       "keep_s", "version", "to",    "oid",    "keep", "bytes"};
    static const char *const values[] = {"null",
                                         "true",
                                         "-1",
                                         "9223372036854775807",
                                         "1e300",
                                         "\"\"",
                                         "\"/\"",
                                         "\"/a\"",
                                         "\"//../a/./b\"",
                                         "\"mine\"",
                                         "\"00000000\"",
                                         "\"ffffffffffffffffffffffffffffffff\"",
                                         "\"0.1.1\"",
                                         "\"wan=debug\"",
                                         "[]",
                                         "{\"a\":[1]}",
                                         "\"\\u0000\"",
                                         "7"};
    struct buf b = {0};
    char *text = mem_printf("{\"verb\":\"%s\"", verbs[below(h, ARRAY_COUNT(verbs))]);
    buf_append(&b, text, strlen(text));
    mem_free(text);
    for (uint64_t n = below(h, 5); n > 0; n--) {
        text = mem_printf(",\"%s\":%s", keys[below(h, ARRAY_COUNT(keys))],
                          values[below(h, ARRAY_COUNT(values))]);
        buf_append(&b, text, strlen(text));
        mem_free(text);
    }
    buf_append(&b, "}", below(h, 20) != 0);
    struct slice s = op_dup(&h->arena, buf_slice(&b));
    buf_deinit(&b);
    return s;
}

static void draw_content(struct hostile *h, struct fs_request *q)
{
    struct content *c = &q->content;
    q->has_content = true;
    c->kind = (enum content_kind)below(h, 4);
    if (c->kind == CONTENT_INLINE)
        c->bytes = draw_bytes(h, 9000);
    c->size = below(h, 2) == 0 ? c->bytes.len : draw_number(h);
    c->block_bytes = 1u << below(h, 32);
    c->data_blocks = below(h, 2) == 0 ? 0 : draw_number(h);
    if (below(h, 2) == 0)
        memcpy(c->root, h->bytes + below(h, 100), sizeof c->root);
}

/* What a mount may ask, so that there is something to make nonsense about. */
static void draw_sane(struct hostile *h, uint16_t type, struct fs_request *q)
{
    static const char *const names[] = {"a", "b", "c", "d", "a.txt", "user.a"};
    struct oid file = OID_ROOT, dir = OID_ROOT;
    for (int i = 0; i < 8 && h->oid_count > 0; i++) {
        struct oid o = h->oids[below(h, h->oid_count)];
        *(oid_is_dir(o) ? &dir : &file) = o;
    }
    *q = (struct fs_request){.number = h->number + 1, .oid = dir, .oid2 = dir, .mode = 0755};
    q->name = slice_str(names[below(h, ARRAY_COUNT(names))]);
    q->name2 = slice_str(names[below(h, ARRAY_COUNT(names))]);
    q->kind = OID_FILE;
    q->count = 100;
    q->data = slice_str("some bytes");
    q->ahead = below(h, 2) == 0;
    if (type != RPC_LOOKUP && type != RPC_CREATE && type != RPC_MKDIR && type != RPC_UNLINK &&
        type != RPC_RMDIR && type != RPC_RENAME && type != RPC_READDIR && below(h, 4) != 0)
        q->oid = file;
    if (type == RPC_CREATE)
        q->oid2 = (struct oid){{0}};
    if (type == RPC_COMMIT)
        q->content =
            (struct content){.kind = CONTENT_INLINE, .size = 5, .bytes = slice_str("hello")};
    q->has_content = type == RPC_COMMIT;
}

static void draw_nonsense(struct hostile *h, struct fs_request *q)
{
    struct oid *oids = op_alloc(&h->arena, 4 * sizeof *oids);
    *q = (struct fs_request){.number = draw_number(h),
                             .acked = draw_number(h),
                             .oid = draw_oid(h),
                             .oid2 = draw_oid(h),
                             .name = draw_name(h),
                             .name2 = draw_name(h),
                             .flags = (uint32_t)(below(h, 2) == 0 ? below(h, 8) : draw_number(h)),
                             .set = (uint32_t)(below(h, 2) == 0 ? below(h, 64) : draw_number(h)),
                             .mode = (uint32_t)draw_number(h),
                             .umask = (uint32_t)draw_number(h),
                             .uid = (uint32_t)draw_number(h),
                             .gid = (uint32_t)draw_number(h),
                             .count = (uint32_t)draw_number(h),
                             .kind = (uint8_t)below(h, 9),
                             .rdev = draw_number(h),
                             .size = draw_number(h),
                             .number2 = draw_number(h),
                             .atime_ns = (int64_t)draw_number(h),
                             .mtime_ns = (int64_t)draw_number(h),
                             .data = draw_bytes(h, BYTES_MAX),
                             .base = {.shard = (shard_id_t)below(h, SHARDS + 1),
                                      .site = (site_id_t)draw_number(h),
                                      .seq = draw_number(h)},
                             .lock = {.owner = below(h, 3),
                                      .start = draw_number(h),
                                      .end = draw_number(h),
                                      .type = (uint8_t)below(h, 5)},
                             .has_chunk = below(h, 2) == 0,
                             .oids = oids,
                             .oid_count = (uint32_t)below(h, 5)};
    for (uint32_t i = 0; i < q->oid_count; i++)
        oids[i] = draw_oid(h);
}

/* Sane, or sane but for a few parts, or not at all. */
static void draw_request(struct hostile *h, uint16_t type, struct fs_request *q)
{
    struct fs_request odd;
    draw_sane(h, type, q);
    draw_nonsense(h, &odd);
    uint64_t how = below(h, 4);
    if (how == 0)
        *q = odd;
    for (int i = 0; i < 2 && how == 1; i++) {
        switch (below(h, 8)) {
        case 0:
            q->oid = odd.oid;
            break;
        case 1:
            q->oid2 = odd.oid2;
            break;
        case 2:
            q->name = odd.name;
            q->name2 = odd.name2;
            break;
        case 3:
            q->flags = odd.flags;
            q->set = odd.set;
            break;
        case 4:
            q->mode = odd.mode;
            q->kind = odd.kind;
            q->rdev = odd.rdev;
            break;
        case 5:
            q->size = odd.size;
            q->count = odd.count;
            break;
        case 6:
            q->base = odd.base;
            q->mtime_ns = odd.mtime_ns;
            break;
        default:
            q->data = odd.data;
            q->lock = odd.lock;
        }
    }
    if (type == RPC_SETXATTR && below(h, 2) == 0) {
        q->name = slice_str(below(h, 2) ? "system.posix_acl_access" : "system.posix_acl_default");
        q->data = draw_acl(h);
    }
    if (type == RPC_ADMIN)
        q->data = draw_json(h);
    if (how == 0 || (how == 1 && type == RPC_COMMIT))
        draw_content(h, q);
}

/* ---- one request ---- */

static void learn(struct hostile *h)
{
    struct fs_reply r = {0};
    h->answered++;
    int rc = fs_reply_decode(h->raw.frame.body, &h->arena, &r);
    assert_int_equal(rc, 0); /* whatever was asked, the answer is well formed */
    h->refused += r.rc != 0;
    if (r.rc == 0 && r.has_attr)
        h->oids[h->oid_count < OIDS_MAX ? h->oid_count++ : below(h, OIDS_MAX)] = r.attr.oid;
}

static void damage(struct hostile *h, struct buf *b)
{
    size_t at = below(h, b->len + 1);
    if (at == b->len || below(h, 4) == 0)
        b->len = at;
    else
        b->ptr[at] ^= (uint8_t)(1u << below(h, 8));
}

static void step(struct hostile *h)
{
    struct fs_request q;
    struct buf body = {0}, bulk = {0};
    bool admin = below(h, 8) == 0;
    uint16_t type = admin ? RPC_ADMIN : (uint16_t)(1 + below(h, RPC_TYPE_END));
    if ((admin ? h->admin : h->client) == NULL || below(h, 100) == 0)
        join(h, admin);
    op_arena_reset(&h->arena);
    draw_request(h, type, &q);
    fs_request_encode(&q, &body);
    if (below(h, 10) == 0)
        damage(h, &body);
    if (below(h, 4) == 0)
        rider_append(&bulk, h->bytes, draw_bytes(h, 3000));
    if (below(h, 4) == 0)
        damage(h, &bulk);
    int rc = 0;
    bool silent = type == RPC_FORGET || type == RPC_INVAL_ACK; /* has no answer */
    if (silent)
        rc = rpc_client_send(h->client, type, ++h->number, 0, buf_slice(&body));
    else
        rc = ask(h, admin, type, buf_slice(&body), buf_slice(&bulk));
    if (rc == 0 && !silent)
        learn(h);
    if (rc != 0) {
        assert_int_equal(rc, ERR_UNREACHABLE); /* not a time-out: it closed the connection */
        rpc_client_close(admin ? h->admin : h->client);
        *(admin ? &h->admin : &h->client) = NULL;
        h->closed++;
    }
    buf_deinit(&body);
    buf_deinit(&bulk);
}

/* ---- afterwards ---- */

static void check_well(struct hostile *h)
{
    struct fs_reply r = {0};
    join(h, false);
    assert_int_equal(ask_well(h, false, RPC_GETATTR, &(struct fs_request){.oid = OID_ROOT}, &r), 0);
    assert_int_equal(r.rc, 0);
    assert_true(r.has_attr);
    stop(h);
}

static void run(uint64_t seed)
{
    struct hostile *h = mem_calloc(1, sizeof *h);
    rng_seed(&h->rng, seed);
    for (size_t i = 0; i < BYTES_MAX; i++)
        h->bytes[i] = (uint8_t)rng_next(&h->rng);
    node_test_init(&h->t, SHARDS);
    start(h);
    for (int i = 0; i < REQUESTS; i++)
        step(h);
    check_well(h);
    print_message("seed %u: %u answered, %u of them with an error, %u closed\n", (unsigned)seed,
                  h->answered, h->refused, h->closed);
    node_test_open(&h->t);
    start(h);
    check_well(h);
    node_test_deinit(&h->t);
    op_arena_deinit(&h->arena);
    buf_deinit(&h->raw.storage);
    mem_free(h);
}

static void test_requests_that_make_no_sense_are_answered(void **state)
{
    (void)state;
    assert_int_equal(log_levels_parse("error"), 0); /* it complains */
    for (uint64_t seed = 1; seed <= 3; seed++)
        run(seed);
}

/* The daemon's answer to `json`; NUL-terminated, in h->arena. */
static const char *tell(struct hostile *h, const char *json)
{
    struct fs_reply r = {0};
    assert_int_equal(
        ask_well(h, true, RPC_ADMIN, &(struct fs_request){.data = slice_str(json)}, &r), 0);
    assert_int_equal(r.rc, 0);
    struct buf b = {0};
    buf_append(&b, r.data.ptr, r.data.len);
    buf_append(&b, "", 1);
    const char *text = (const char *)op_dup(&h->arena, buf_slice(&b)).ptr;
    buf_deinit(&b);
    return text;
}

/* A mount says that it has committed all it had put, under the number that the store's next epoch
 * has: so it may have been asked by a run that ended with a crash, which gives numbers out again.
 * What it has put since is not committed. */
static void test_word_of_a_mount_that_was_not_asked_does_not_count(void **state)
{
    struct hostile *h = mem_calloc(1, sizeof *h);
    struct fs_reply r = {0};
    (void)state;
    node_test_init(&h->t, SHARDS);
    struct fs_request q = {.number2 = store_epoch(h->t.n->store) + 1};
    start(h);
    join(h, false);
    join(h, true);
    q.session = h->session;
    assert_int_equal(ask_well(h, false, RPC_FLUSHED, &q, &r), 0);
    assert_int_equal(r.rc, 0);
    (void)tell(h, "{\"verb\":\"gc\"}");
    const char *at;
    do {
        at = tell(h, "{\"verb\":\"gc.status\"}");
        assert_non_null(strstr(at, "\"result\":null"));
    } while (strstr(at, "waiting for mounts") == NULL);
    stop(h);
    node_test_deinit(&h->t);
    op_arena_deinit(&h->arena);
    buf_deinit(&h->raw.storage);
    mem_free(h);
}

/* What a journal, a peer or the state would not take back is not taken in. */
static void test_content_that_could_not_be_read_back_is_refused(void **state)
{
    struct node_test t;
    struct content manifest = {
        .kind = CONTENT_MANIFEST, .size = 3 * MIB, .block_bytes = 64 * KIB, .root = {1}};
    struct content bad[] = {manifest,
                            manifest,
                            manifest,
                            manifest,
                            {.kind = CONTENT_INLINE, .size = 1, .bytes = slice_str("longer")}};
    bad[0].data_blocks = UINT64_MAX;
    bad[1].block_bytes = 96 * KIB;
    bad[2].block_bytes = 32 * KIB;
    bad[3].kind = (enum content_kind)7;
    (void)state;
    node_test_init(&t, SHARDS);
    struct fs_request q = {.oid = OID_ROOT, .name = slice_str("f"), .mode = 0644, .kind = OID_FILE};
    assert_int_equal(node_test_call(&t, RPC_CREATE, &q), 0);
    q = (struct fs_request){.oid = t.attr.oid, .base = t.attr.version, .has_content = true};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        q.content = bad[i];
        assert_int_equal(node_test_call(&t, RPC_COMMIT, &q), ERR_INVALID);
    }
    q.content = manifest;
    q.content.size = LIMIT_FILE_BYTES + 1;
    assert_int_equal(node_test_call(&t, RPC_COMMIT, &q), ERR_FILE_TOO_BIG);
    node_test_close(&t);
    node_test_open(&t);
    assert_int_equal(node_test_call(&t, RPC_GETATTR, &(struct fs_request){.oid = q.oid}), 0);
    assert_int_equal(t.attr.size, 0);
    node_test_deinit(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_word_of_a_mount_that_was_not_asked_does_not_count),
        cmocka_unit_test(test_content_that_could_not_be_read_back_is_refused),
        cmocka_unit_test(test_requests_that_make_no_sense_are_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
