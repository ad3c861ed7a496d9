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

enum packet_kind {
    PACKET_PEER,
    PACKET_ASK,
    PACKET_SAYS,
    PACKET_DELIVER,
    PACKET_DELIVERED
};
struct packet {
    struct loop_msg msg;
    enum packet_kind kind;
    struct trio *t;
    unsigned from, to, start;
    shard_id_t shard, other;
    uint64_t number;
    bool swap;
    int rc;
    enum record_type type;
    struct shard_record record;
    struct buf bytes;
};

static void packet_run(struct loop_msg *msg);

static struct packet *packet_post(struct trio *t, const struct packet *p, struct slice bytes)
{
    struct packet *copy = mem_dup(p, sizeof *p);
    copy->t = t;
    copy->msg.run = packet_run;
    buf_append(&copy->bytes, bytes.ptr, bytes.len);
    t->packets++;
    loop_post(t->loop, &copy->msg);
    return copy;
}

static void coordinate(struct trio *t, struct packet *p)
{
    struct shard_record *r = &t->records[p->shard];
    struct packet answer = *p;
    answer.kind = PACKET_SAYS;
    answer.bytes = (struct buf){0};
    if (p->swap && p->record.version != r->version) {
        answer.rc = ERR_STALE_BASE;
    } else if (p->swap) {
        *r = p->record;
        r->version++;
    }
    answer.record = *r;
    (void)packet_post(t, &answer, slice_of(NULL, 0));
}

static void packet_carry(struct trio *t, struct packet *p)
{
    struct trio_node *n = &t->nodes[p->to];
    int rc = 0;
    switch (p->kind) {
    case PACKET_PEER:
        if (!n->cut && n->shards[p->shard] != NULL)
            rc = shard_peer_message(n->shards[p->shard], p->from + 1, buf_slice(&p->bytes));
        break;
    case PACKET_ASK:
        coordinate(t, p);
        break;
    case PACKET_SAYS:
        if (!n->cut && n->shards[p->shard] != NULL && n->start == p->start)
            shard_coordinator_says(n->shards[p->shard], p->number, p->swap, p->rc, &p->record);
        break;
    case PACKET_DELIVER: /* who does not lead does not take it */
        for (unsigned i = 0; i < TRIO_NODES; i++)
            if (t->nodes[i].shards[p->shard] != NULL && !t->nodes[i].cut)
                rc = shard_receive(t->nodes[i].shards[p->shard],
                                   &(struct shard_message){.from = p->other,
                                                           .to = p->shard,
                                                           .type = p->type,
                                                           .number = p->number,
                                                           .bytes = buf_slice(&p->bytes)});
        rc = rc == ERR_AGAIN || rc == ERR_NOT_PRIMARY ? 0 : rc;
        break;
    case PACKET_DELIVERED:
        for (unsigned i = 0; i < TRIO_NODES; i++)
            if (t->nodes[i].shards[p->shard] != NULL && !t->nodes[i].cut)
                shard_delivered(t->nodes[i].shards[p->shard], p->other, p->number);
        break;
    }
    assert_int_equal(rc, 0);
}

static void packet_run(struct loop_msg *msg)
{
    struct packet *p = CONTAINER_OF(msg, struct packet, msg);
    p->t->packets--;
    packet_carry(p->t, p);
    buf_deinit(&p->bytes);
    mem_free(p);
}

/* ---- what the shards ask for ---- */

static void peer_send(void *ctx, shard_id_t shard, uint64_t node, struct slice bytes)
{
    struct trio_node *n = ctx;
    if (!n->cut)
        (void)packet_post(
            n->t,
            &(struct packet){
                .kind = PACKET_PEER, .shard = shard, .from = n->number, .to = (unsigned)node - 1},
            bytes);
}

static void
ask(struct trio_node *n, shard_id_t shard, uint64_t request, const struct shard_record *record)
{
    struct packet p = {.kind = PACKET_ASK,
                       .shard = shard,
                       .to = n->number,
                       .start = n->start,
                       .number = request,
                       .swap = record != NULL};
    if (record != NULL)
        p.record = *record;
    if (!n->cut)
        (void)packet_post(n->t, &p, slice_of(NULL, 0));
}

static void peer_ask(void *ctx, shard_id_t shard, uint64_t request)
{
    ask(ctx, shard, request, NULL);
}

static void
peer_swap(void *ctx, shard_id_t shard, uint64_t request, const struct shard_record *record)
{
    ask(ctx, shard, request, record);
}

static void peer_serves(void *ctx, shard_id_t shard)
{
    struct trio_node *n = ctx;
    (void)shard;
    n->serves++;
}

static void peer_leads_no_more(void *ctx, shard_id_t shard)
{
    struct trio_node *n = ctx;
    (void)shard;
    n->leads_no_more++;
}

static int on_deliver(void *ctx, const struct shard_message *m)
{
    struct trio_node *n = ctx;
    if (!n->cut && !n->t->hold)
        (void)packet_post(n->t,
                          &(struct packet){.kind = PACKET_DELIVER,
                                           .shard = m->to,
                                           .other = m->from,
                                           .number = m->number,
                                           .type = m->type},
                          m->bytes);
    return 0;
}

static void on_delivered(void *ctx, shard_id_t from, shard_id_t to, uint64_t number)
{
    struct trio_node *n = ctx;
    if (!n->cut)
        (void)packet_post(
            n->t,
            &(struct packet){
                .kind = PACKET_DELIVERED, .shard = from, .other = to, .number = number},
            slice_of(NULL, 0));
}

static bool on_applied(void *ctx, struct dot d)
{
    (void)ctx;
    (void)d;
    return true;
}
static void on_behalf(void *ctx, void *proposal)
{
    (void)ctx;
    (void)proposal;
}
static void on_name(void *ctx, struct oid parent, struct slice name)
{
    (void)ctx;
    (void)parent;
    (void)name;
}
static void on_object(void *ctx, struct oid oid, bool content)
{
    (void)ctx;
    (void)oid;
    (void)content;
}
static void on_conflict(void *ctx, const struct conflict *c)
{
    (void)ctx;
    (void)c;
}
static void on_moved(void *ctx, shard_id_t shard)
{
    (void)ctx;
    (void)shard;
}
static void on_failed(void *ctx, shard_id_t shard, int rc, const char *what)
{
    (void)ctx;
    print_error("shard %u failed: %s: %s\n", shard, err_name(rc), what);
    fail();
}
static void site_name(void *ctx, site_id_t site, char out[33])
{
    (void)ctx;
    snprintf(out, 33, "s%08x", site);
}

/* ---- nodes ---- */

void trio_start(struct trio_node *n)
{
    struct trio *t = n->t;
    n->start++;
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
                                 .events = {.deliver = on_deliver,
                                            .delivered = on_delivered,
                                            .applied = on_applied,
                                            .on_behalf = on_behalf,
                                            .name_changed = on_name,
                                            .object_changed = on_object,
                                            .conflict = on_conflict,
                                            .moved = on_moved,
                                            .failed = on_failed,
                                            .ctx = n},
                                 .site_name = site_name};
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
    n->peers.life = 1000 * n->start;
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
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        struct trio_node *n = &t->nodes[i];
        n->t = t;
        n->number = i;
        snprintf(n->dir, sizeof n->dir, "%s/%u", t->dir, i);
        assert_int_equal(mkdir(n->dir, 0700), 0);
        n->peers = (struct shard_peers){.node = i + 1,
                                        .nodes = {1, 2, 3},
                                        .node_count = TRIO_NODES,
                                        .founder = i == 0,
                                        .lease_ns = NS_PER_SEC,
                                        .beat_ns = 20 * NS_PER_MS,
                                        .silence_ns = 300 * NS_PER_MS,
                                        .answer_ns = 100 * NS_PER_MS,
                                        .send = peer_send,
                                        .ask = peer_ask,
                                        .swap = peer_swap,
                                        .serves = peer_serves,
                                        .leads_no_more = peer_leads_no_more,
                                        .ctx = n};
        trio_start(n);
    }
}

static bool nothing_under_way(struct trio *t)
{
    return t->packets == 0;
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
    bool so = t->until(t);
    if (so || clock_mono_ns(&clock_os) > t->until_ns)
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
    assert_true(until(t));
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
    if (leader == NULL || t->records[shard].in_sync_count < TRIO_NODES ||
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
