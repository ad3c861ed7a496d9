/* See trio.h. */
#include "tests/unit/site/trio.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <sodium.h>

#define SITE 7u
#define POLL_NS (2 * NS_PER_MS)
#define PATIENCE_NS (60 * NS_PER_SEC)

/* ---- the network ---- */

struct carrier {
    struct loop_msg msg;
    struct trio_packet *packet;
};

static struct trio_node *node_of(struct trio_end *end)
{
    return CONTAINER_OF(end, struct trio_node, end);
}

static void carrier_run(struct loop_msg *msg)
{
    trio_packet_arrive(CONTAINER_OF(msg, struct carrier, msg)->packet);
}

static void carry(struct trio_packet *p)
{
    struct trio *t = CONTAINER_OF(p->net, struct trio, net);
    if (p->from < TRIO_NODES && t->nodes[p->from].cut) {
        trio_packet_free(p);
        return;
    }
    struct carrier *c = mem_calloc(1, sizeof *c);
    c->msg.run = carrier_run;
    c->packet = p;
    p->carrier = c;
    loop_post(t->loop, &c->msg);
}

static bool hears(struct trio_end *e, const struct trio_packet *p)
{
    return !node_of(e)->cut && e->shards[p->shard] != NULL;
}

static void refused(const struct trio_packet *p, int rc)
{
    print_error("node %u refuses what node %u sent: %s\n", p->to, p->from, err_name(rc));
    fail();
}

/* ---- what the shards tell ---- */

static void peer_serves(void *ctx, shard_id_t shard)
{
    struct trio_node *n = node_of(ctx);
    (void)shard;
    n->serves++;
}

static void peer_leads_no_more(void *ctx, shard_id_t shard)
{
    struct trio_node *n = node_of(ctx);
    (void)shard;
    n->leads_no_more++;
}

static void on_conflict(void *ctx, const struct conflict *c)
{
    (void)ctx;
    (void)c;
}
static void on_failed(void *ctx, shard_id_t shard, int rc, const char *what)
{
    (void)ctx;
    print_error("shard %u failed: %s: %s\n", shard, err_name(rc), what);
    fail();
}
/* ---- nodes ---- */

void trio_start(struct trio_node *n)
{
    struct trio *t = n->t;
    n->end.start++;
    n->hlc.last = 0;
    for (unsigned i = 0; i < TRIO_SHARDS; i++) {
        struct err_detail d = {{0}};
        struct shard_config c = {.dir = n->dir,
                                 .id = (shard_id_t)i,
                                 .shard_count = TRIO_SHARDS,
                                 .site = SITE,
                                 .hlc = &n->hlc,
                                 .clock = &clock_os,
                                 .loop = t->loop,
                                 .pool = t->pool,
                                 .peers = &n->peers,
                                 .cache_bytes = MIB,
                                 .segment_bytes = 64 * KIB,
                                 .checkpoint_bytes = t->checkpoint_bytes,
                                 .events = {.conflict = on_conflict, .failed = on_failed},
                                 .site_name = trio_site_name};
        trio_end_events(&n->end, &c.events);
        int rc = shard_open(&n->shards[i], &c, &d);
        if (rc == 0)
            rc = shard_start(n->shards[i], &d);
        if (rc != 0)
            print_error("%s\n", d.text);
        assert_int_equal(rc, 0);
        shard_keep_from(n->shards[i], UINT64_MAX);
    }
}

static bool nothing_written(struct trio *t)
{
    bool running = false;
    for (unsigned i = 0; i < TRIO_NODES; i++)
        for (unsigned k = 0; k < TRIO_SHARDS; k++) {
            struct shard *s = t->nodes[i].shards[k];
            running = running || (s != NULL && s->stopping && s->checkpoint.running);
        }
    return !running;
}

void trio_stop(struct trio_node *n)
{
    for (unsigned i = 0; i < TRIO_SHARDS; i++)
        if (n->shards[i] != NULL)
            shard_stop(n->shards[i]);
    trio_run(n->t, nothing_written);
    for (unsigned i = 0; i < TRIO_SHARDS; i++) {
        shard_close(n->shards[i]);
        n->shards[i] = NULL;
    }
}

void trio_wipe(struct trio_node *n)
{
    char command[128];
    assert_null(n->shards[0]);
    snprintf(command, sizeof command, "rm -rf %s/*", n->dir);
    assert_int_equal(system(command), 0);
    n->peers.blank = true;
    n->peers.life = 1000 * n->end.start;
}

void trio_init(struct trio *t)
{
    struct err_detail d = {{0}};
    size_t checkpoint_bytes = t->checkpoint_bytes;
    memset(t, 0, sizeof *t);
    t->checkpoint_bytes = checkpoint_bytes != 0 ? checkpoint_bytes : MIB;
    snprintf(t->dir, sizeof t->dir, "/tmp/claudefs-trio-XXXXXX");
    assert_non_null(mkdtemp(t->dir));
    assert_int_equal(loop_new(&t->loop, 256, &clock_os, &d), 0);
    assert_int_equal(pool_new(&t->pool, 2), 0);
    t->net.carry = carry;
    t->net.hears = hears;
    t->net.refused = refused;
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        struct trio_node *n = &t->nodes[i];
        n->t = t;
        n->number = i;
        snprintf(n->dir, sizeof n->dir, "%s/%u", t->dir, i);
        assert_int_equal(mkdir(n->dir, 0700), 0);
        n->peers = (struct shard_peers){.founder = i == 0,
                                        .lease_ns = NS_PER_SEC,
                                        .beat_ns = 20 * NS_PER_MS,
                                        .silence_ns = 300 * NS_PER_MS,
                                        .answer_ns = 100 * NS_PER_MS,
                                        .serves = peer_serves,
                                        .leads_no_more = peer_leads_no_more};
        trio_end_init(&n->end, &t->net, i, n->shards, &n->peers);
        trio_start(n);
    }
}

static bool nothing_under_way(struct trio *t)
{
    return t->net.packets == NULL;
}

void trio_deinit(struct trio *t)
{
    char command[128];
    for (unsigned i = 0; i < TRIO_NODES; i++)
        trio_stop(&t->nodes[i]);
    trio_run(t, nothing_under_way);
    pool_free(t->pool);
    loop_free(t->loop);
    snprintf(command, sizeof command, "rm -rf %s", t->dir);
    assert_int_equal(system(command), 0);
}

/* ---- running ---- */

static void poll_run(struct loop_timer *timer)
{
    struct trio *t = CONTAINER_OF(timer, struct trio, poll);
    t->so = t->until(t);
    if (t->so || clock_mono_ns(&clock_os) > t->until_ns)
        loop_stop(t->loop);
    else
        loop_timer_start(t->loop, timer, loop_now_ns(t->loop) + POLL_NS);
}

void trio_run(struct trio *t, bool (*until)(struct trio *t))
{
    t->poll.fire = poll_run;
    t->until = until;
    t->until_ns = clock_mono_ns(&clock_os) + PATIENCE_NS;
    loop_timer_start(t->loop, &t->poll, 0);
    loop_run(t->loop);
    assert_true(t->so);
}

struct shard *trio_leader(struct trio *t, unsigned shard)
{
    struct shard *found = NULL;
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        struct trio_node *n = &t->nodes[i];
        if (n->shards[shard] == NULL || n->cut || !shard_serves(n->shards[shard]))
            continue;
        assert_null(found);
        found = n->shards[shard];
    }
    return found;
}

/* ---- operations ---- */

static void op_done(void *ctx, int rc)
{
    struct trio_op *o = ctx;
    assert_int_equal(o->rc, 1);
    o->rc = rc;
}

static void add_perm(struct op_builder *b, struct oid oid)
{
    struct perm p = {.mode = 0755};
    struct buf value = {0};
    uint8_t key = REG_PERM;
    perm_encode(&p, &value);
    struct effect *e = op_builder_add(b, EFFECT_SET, oid);
    e->set.key = op_dup(&b->arena, slice_of(&key, 1));
    e->set.value = op_dup(&b->arena, buf_slice(&value));
    e->set.present = true;
    buf_deinit(&value);
}

static int propose(struct trio *t, struct shard *s, struct op_builder *b, struct trio_op *o)
{
    struct proposal p = {
        .session = 1, .number = ++t->names, .result = o->oid, .committed = op_done, .ctx = o};
    o->t = t;
    o->rc = 1;
    int rc = shard_propose(s, b, &p, NULL);
    op_builder_deinit(b);
    return rc;
}

int trio_create(struct trio *t, struct shard *s, struct trio_op *o)
{
    struct op_builder b = {0};
    snprintf(o->name, sizeof o->name, "file%u", t->names);
    o->oid = shard_new_oid(s, OID_FILE);
    struct effect *e = op_builder_add(&b, EFFECT_VERSION, o->oid);
    e->content.kind = CONTENT_INLINE;
    e->content.bytes = slice_str(o->name);
    e->content.size = e->content.bytes.len;
    add_perm(&b, o->oid);
    e = op_builder_add(&b, EFFECT_ENTER, o->oid);
    e->parent = OID_ROOT;
    e->name = slice_str(o->name);
    return propose(t, s, &b, o);
}

int trio_mkdir_elsewhere(struct trio *t, struct shard *s, struct trio_op *o)
{
    static const uint8_t key[32] = {1};
    struct op_builder b = {0};
    struct birth birth = {.parent = OID_ROOT, .mode = 0755};
    for (unsigned i = 0; i == 0 || oid_shard(birth.oid) == shard_id(s); i++) {
        snprintf(o->name, sizeof o->name, "dir%u-%u", t->names, i);
        birth.name = slice_str(o->name);
        birth.gen = build_next_gen(shard_merge(s), OID_ROOT, birth.name);
        birth.oid = birth_oid(&birth, key, TRIO_SHARDS);
    }
    o->oid = birth.oid;
    op_builder_add(&b, EFFECT_BIRTH, birth.oid)->birth = birth;
    add_perm(&b, birth.oid);
    return propose(t, s, &b, o);
}

bool trio_shows(struct shard *s, const struct trio_op *o)
{
    struct shown shown;
    return merge_lookup(shard_merge(s), OID_ROOT, slice_str(o->name), &shown) == 0 &&
           oid_equal(shown.oid, o->oid);
}

/* ---- comparing ---- */

struct digest {
    uint8_t b[32];
};

static struct digest digest_of(struct shard *s)
{
    crypto_generichash_state h;
    struct state_scan it;
    struct digest d;
    (void)crypto_generichash_init(&h, NULL, 0, sizeof d.b);
    state_scan_begin(shard_state(s), &it, slice_of(NULL, 0), slice_of(NULL, 0));
    while (state_scan_next(&it)) {
        uint64_t lens[2] = {it.key.len, it.value.len};
        (void)crypto_generichash_update(&h, (const uint8_t *)lens, sizeof lens);
        (void)crypto_generichash_update(&h, it.key.ptr, it.key.len);
        (void)crypto_generichash_update(&h, it.value.ptr, it.value.len);
    }
    state_scan_end(&it);
    (void)crypto_generichash_final(&h, d.b, sizeof d.b);
    return d;
}

static bool shard_equal(struct trio *t, unsigned shard)
{
    struct digest first = {{0}};
    struct shard *leader = trio_leader(t, shard);
    if (leader == NULL || t->net.records[shard].in_sync_count < TRIO_NODES ||
        shard_outbox_count(leader) > 0 || shard_waiting_count(leader) > 0 || !shard_idle(leader))
        return false;
    uint64_t last = log_last(shard_log(leader));
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        struct shard *s = t->nodes[i].shards[shard];
        if (s == NULL || shard_is_copying(s) || shard_committed(s) != last ||
            log_durable(shard_log(s)) != last || state_index(shard_state(s)) != last)
            return false;
    }
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        struct digest d = digest_of(t->nodes[i].shards[shard]);
        if (i == 0)
            first = d;
        assert_memory_equal(&d, &first, sizeof d);
    }
    return true;
}

bool trio_equal(struct trio *t)
{
    for (unsigned i = 0; i < TRIO_SHARDS; i++)
        if (!shard_equal(t, i))
            return false;
    return true;
}

void trio_assert_equal_on_disk(struct trio *t)
{
    trio_run(t, trio_equal);
    for (unsigned i = 0; i < TRIO_NODES; i++)
        trio_stop(&t->nodes[i]);
    for (unsigned i = 0; i < TRIO_NODES; i++)
        trio_start(&t->nodes[i]);
    trio_run(t, trio_equal);
}
