/* See federation_test.h. */
#include "tests/unit/site/federation_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- snapshot ---- */

struct snap {
    struct node *n;
    struct node_snapshot *s;
    int rc;
};

static void snap_ready(void *ctx, int rc, struct node_snapshot *s)
{
    struct snap *w = ctx;
    w->rc = rc;
    w->s = s;
    node_stop(w->n);
}

unsigned load_pages(struct node_test *from, struct node_test *to, unsigned pages)
{
    struct snap w = {.n = from->n};
    struct buf page = {0};
    struct err_detail d = {{0}};
    bool done = false;
    unsigned empty = 0;
    node_snapshot_begin(from->n, node_site(to->n), snap_ready, &w);
    assert_int_equal(node_run(from->n), 0);
    from->n->stopping = false;
    assert_int_equal(w.rc, 0);
    while (!done && pages-- > 0) {
        buf_clear(&page);
        assert_int_equal(node_snapshot_next_page(w.s, 512, &page, &done), 0);
        if (page.len > 0)
            assert_int_equal(node_snapshot_load(to->n, buf_slice(&page), &d), 0);
        else
            empty++;
    }
    node_snapshot_free(w.s);
    buf_deinit(&page);
    return empty;
}

static void committed(void *ctx, int rc, const struct err_detail *d)
{
    struct node_test *t = ctx;
    if (rc != 0)
        print_error("commit: %s\n", d->text);
    assert_int_equal(rc, 0);
    node_stop(t->n);
}

void commit_begin(struct node_test *from, struct node_test *to)
{
    node_snapshot_commit(to->n, node_site(from->n), committed, to);
}

void commit_wait(struct node_test *t)
{
    assert_int_equal(node_run(t->n), 0);
    t->n->stopping = false;
}

void bootstrap(struct node_test *from, struct node_test *to)
{
    load_pages(from, to, UINT32_MAX);
    commit_begin(from, to);
    commit_wait(to);
}

void member_done(void *ctx, int rc)
{
    struct node_test *t = ctx;
    assert_int_equal(rc, 0);
    node_stop(t->n);
}

/* Enters a site as a member at the first one, as pairing does. */
void add_member(struct node_test *t, site_id_t site, unsigned number)
{
    struct member m = {
        .site = site, .cert_sha256 = {(uint8_t)(1 + number)}, .cert = slice_str("cert")};
    snprintf(m.name, sizeof m.name, "s%u", number);
    if (site == node_site(t->n))
        node_member_set(t->n, &m, member_done, t);
    else
        node_member_enter(t->n, &m, member_done, t);
    assert_int_equal(node_run(t->n), 0);
    t->n->stopping = false;
}

void world_adopt(struct world *w, unsigned inviter)
{
    struct err_detail d = {{0}};
    unsigned i = w->count;
    node_test_init(&w->sites[i], 3);
    add_member(&w->sites[inviter], node_site(w->sites[i].n), i);
    assert_int_equal(node_adopt(w->sites[i].n, node_fs_key(w->sites[inviter].n), w->shards, &d), 0);
}

void world_join(struct world *w, unsigned inviter)
{
    world_adopt(w, inviter);
    bootstrap(&w->sites[inviter], &w->sites[w->count]);
    w->count++;
}

void world_init(struct world *w, unsigned count, unsigned shards, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    rng_seed(&w->rng, seed);
    w->count = 1;
    w->shards = shards;
    node_test_init(&w->sites[0], shards);
    add_member(&w->sites[0], node_site(w->sites[0].n), 0);
    while (w->count < count)
        world_join(w, 0);
}

void world_deinit(struct world *w)
{
    for (unsigned i = 0; i < w->count; i++)
        node_test_deinit(&w->sites[i]);
}

/* ---- shipping ---- */

struct pull {
    struct node_test *to;
    struct op_arena arena;
    struct apply_batch b;
    struct apply_item items[64];
    uint64_t hlcs[64];
    uint32_t max;
};

static bool take(void *ctx, const struct feed_item *item)
{
    struct pull *p = ctx;
    struct vv have;
    shard_durable_vv(p->to->n->shards[item->dot.shard], &have);
    if (vv_get(&have, item->dot.site) >= item->dot.seq)
        return true; /* W2: what the receiver has is passed over */
    if (p->b.item_count == p->max)
        return false;
    p->hlcs[p->b.item_count] = item->commit_hlc;
    p->items[p->b.item_count].shard = item->shard;
    p->items[p->b.item_count++].op = op_dup(&p->arena, item->op);
    return true;
}

static void applied(struct apply_batch *b, int rc, const struct err_detail *d)
{
    struct pull *p = CONTAINER_OF(b, struct pull, b);
    if (rc != 0)
        print_error("apply: %s\n", d->text);
    assert_int_equal(rc, 0);
    node_stop(p->to->n);
}

/* Lets repairs and writes settle: a request that waits for durability turns the loop. */
void settle(struct world *w, unsigned site)
{
    struct fs_request q = {0};
    assert_int_equal(node_test_call(&w->sites[site], RPC_SYNC, &q), 0);
    assert_int_equal(node_test_call(&w->sites[site], RPC_SYNC, &q), 0);
}

/* Takes the record with the lowest commit stamp among all shards, again and again, as the gateway
 * would; one record a batch. Returns false when there was nothing. */
bool pull_one(struct world *w, unsigned to, unsigned from)
{
    struct node *src = w->sites[from].n, *dst = w->sites[to].n;
    uint64_t cursors[SHARD_COUNT_MAX] = {0}, best_hlc = UINT64_MAX;
    struct feed_state f;
    struct pull *best = NULL;
    unsigned best_shard = 0;
    node_feed_state(src, &f);
    node_cursors(dst, node_site(src), cursors);
    for (unsigned i = 0; i < w->shards; i++) {
        struct pull *p = mem_calloc(1, sizeof *p);
        uint64_t next = MAX(MAX(cursors[i], w->next[to][from][i]), f.first[i]), start = next;
        /* What is gone of the journal the receiver has: else a gap would be refused below. */
        p->to = &w->sites[to];
        p->max = 1;
        p->b.peer = node_site(src);
        p->b.items = p->items;
        p->b.done = applied;
        while (next <= f.durable[i] && p->b.item_count == 0) {
            start = next;
            assert_int_equal(node_feed_read(src, (shard_id_t)i, next, 1, take, p, &next), 0);
        }
        w->next[to][from][i] = p->b.item_count > 0 ? start : next; /* nothing before it */
        if (p->b.item_count > 0 && next == start) {
            /* A record with several operations: all of them in one batch. */
            p->b.item_count = 0;
            p->max = 64;
            assert_int_equal(node_feed_read(src, (shard_id_t)i, start, 1, take, p, &next), 0);
        }
        if (p->b.item_count > 0 && p->hlcs[0] < best_hlc) {
            best_hlc = p->hlcs[0];
            memset(p->b.cursor, 0, sizeof p->b.cursor);
            p->b.cursor[i] = next;
            best_shard = i;
            struct pull *t = best;
            best = p;
            p = t;
        }
        if (p != NULL)
            op_arena_deinit(&p->arena);
        mem_free(p);
    }
    if (best == NULL)
        return false;
    node_apply(dst, &best->b);
    assert_int_equal(node_run(dst), 0);
    dst->stopping = false;
    w->next[to][from][best_shard] = best->b.cursor[best_shard];
    op_arena_deinit(&best->arena);
    mem_free(best);
    return true;
}

void drain(struct world *w)
{
    bool moved = true;
    for (unsigned rounds = 0; moved; rounds++) {
        assert_true(rounds < 1000);
        moved = false;
        for (unsigned i = 0; i < w->count; i++)
            for (unsigned k = 0; k < w->count; k++) {
                settle(w, k);
                while (i != k && !w->left[i] && !w->left[k] && pull_one(w, i, k))
                    moved = true;
                settle(w, i);
            }
    }
}

/* ---- users ---- */

static void random_path(struct world *w, char out[64])
{
    unsigned depth = 1 + (unsigned)rng_below(&w->rng, 3);
    size_t len = 0;
    for (unsigned i = 0; i < depth; i++) {
        out[len++] = '/';
        out[len++] = (char)('a' + rng_below(&w->rng, 3));
    }
    out[len] = '\0';
}

void user_write(struct node_test *t, struct oid oid, uint64_t tag)
{
    struct fs_request q = {.oid = oid};
    if (oid_kind(oid) != OID_FILE || node_test_call(t, RPC_GETATTR, &q) != 0)
        return;
    char text[32];
    snprintf(text, sizeof text, "%llx", (unsigned long long)tag);
    q.base = t->attr.version;
    q.has_content = true;
    q.content.kind = CONTENT_INLINE;
    q.content.bytes = slice_str(text);
    q.content.size = q.content.bytes.len;
    int rc = node_test_call(t, RPC_COMMIT, &q);
    assert_true(rc == 0 || rc == ERR_STALE);
}

void user_step(struct world *w, unsigned site)
{
    struct node_test *t = &w->sites[site];
    char a[64], b[64];
    struct oid parent, to, oid;
    struct slice name, to_name;
    struct fs_request q = {.mode = 0755, .kind = OID_FILE, .flags = O_CREAT | O_EXCL};
    random_path(w, a);
    random_path(w, b);
    unsigned what = (unsigned)rng_below(&w->rng, 9);
    if (node_test_parent(t, a, &parent, &name) != 0)
        return;
    q.oid = parent;
    q.name = name;
    if (what <= 1) {
        (void)node_test_call(t, RPC_CREATE, &q); /* any answer: the trees are compared at the end */
    } else if (what == 2) {
        (void)node_test_call(t, RPC_MKDIR, &q);
    } else if (what == 3) {
        (void)node_test_call(t, RPC_UNLINK, &q);
    } else if (what == 4) {
        (void)node_test_call(t, RPC_RMDIR, &q);
    } else if (what == 5 && node_test_walk(t, a, &oid) == 0) {
        user_write(t, oid, rng_next(&w->rng));
    } else if (what == 6 && node_test_walk(t, a, &oid) == 0 &&
               node_test_parent(t, b, &to, &to_name) == 0) {
        q = (struct fs_request){.oid = oid, .oid2 = to, .name = to_name};
        (void)node_test_call(t, RPC_LINK, &q);
    } else if (node_test_parent(t, b, &to, &to_name) == 0) {
        q = (struct fs_request){.oid = parent, .name = name, .oid2 = to, .name2 = to_name};
        q.flags = rng_below(&w->rng, 4) == 0 ? 2 : 0;
        (void)node_test_call(t, RPC_RENAME, &q);
    }
}

/* ---- comparing ---- */

static void tree_text(struct node_test *t, struct oid dir, unsigned depth, struct buf *out)
{
    struct fs_request q = {.oid = dir, .count = 4000};
    struct buf names = {0};
    assert_true(depth < 64);
    assert_int_equal(node_test_call(t, RPC_READDIR, &q), 0);
    buf_append(&names, t->data.ptr, t->data.len);
    for (size_t at = 0; at < names.len;) {
        const char *name = (const char *)names.ptr + at;
        char line[700];
        q = (struct fs_request){.oid = dir, .name = slice_str(name)};
        assert_int_equal(node_test_call(t, RPC_LOOKUP, &q), 0);
        struct fs_attr attr = t->attr;
        snprintf(line, sizeof line, "%*s%.300s mode %o nlink %u size %llu\n", (int)depth, "", name,
                 attr.mode, attr.nlink, (unsigned long long)attr.size);
        buf_append(out, line, strlen(line));
        if (oid_is_dir(attr.oid)) {
            tree_text(t, attr.oid, depth + 1, out);
        } else {
            q = (struct fs_request){.oid = attr.oid};
            assert_int_equal(node_test_call(t, RPC_CONTENT, &q), 0);
            buf_append(out, t->data.ptr, t->data.len);
            buf_append(out, "\n", 1);
        }
        at += strlen(name) + 1;
    }
    buf_deinit(&names);
}

static void fsck_reply(void *ctx, int rc, const char *text)
{
    node_stop(ctx);
    assert_int_equal(rc, 0);
    if (strstr(text, "\"clean\":true") == NULL)
        print_error("fsck: %s\n", text);
    assert_non_null(strstr(text, "\"clean\":true"));
}

void check_equal(struct world *w, uint64_t seed)
{
    struct buf first = {0}, other = {0};
    unsigned lowest = 0;
    while (w->left[lowest])
        lowest++;
    tree_text(&w->sites[lowest], OID_ROOT, 0, &first);
    for (unsigned i = lowest + 1; i < w->count; i++) {
        if (w->left[i])
            continue;
        buf_clear(&other);
        tree_text(&w->sites[i], OID_ROOT, 0, &other);
        if (!slice_equal(buf_slice(&first), buf_slice(&other)))
            print_error("seed %llu: site %u shows\n%.*s\nsite %u shows\n%.*s\n",
                        (unsigned long long)seed, lowest, (int)first.len, (const char *)first.ptr,
                        i, (int)other.len, (const char *)other.ptr);
        assert_true(slice_equal(buf_slice(&first), buf_slice(&other)));
    }
    for (unsigned i = 0; i < w->count; i++) {
        struct node *n = w->sites[i].n;
        if (w->left[i])
            continue; /* it may wait for a cut that it will not hear of */
        node_fsck_online(n, false, false, fsck_reply, n);
        assert_int_equal(node_run(n), 0);
        n->stopping = false;
    }
    buf_deinit(&first);
    buf_deinit(&other);
}

/* ---- causal stability ---- */

struct settled {
    struct node_settle_wait wait;
    struct node *n;
};

static void settled_run(struct node_settle_wait *w)
{
    node_stop(CONTAINER_OF(w, struct settled, wait)->n);
}

/* Turns the site's loop until what was applied there has had its consequences. */
void wait_settled(struct world *w, unsigned site)
{
    struct settled s = {.wait = {.run = settled_run}, .n = w->sites[site].n};
    node_settled(s.n, &s.wait);
    assert_int_equal(node_run(s.n), 0);
    s.n->stopping = false;
}

/* The site gives its word, if that helps, and drops what its stable point allows. */
void collect(struct world *w, unsigned site)
{
    struct node *n = w->sites[site].n;
    node_stable_tick(n, true);
    wait_settled(w, site);
    settle(w, site);
    (void)node_collect(n); /* what it leaves, the next word lets go */
}

/* Keys of what only waits to be dropped, or may be dropped one day, in all shards. */
static uint64_t garbage(struct world *w, unsigned site)
{
    static const uint8_t kinds[] = {'z', 'm'};
    uint64_t count = 0;
    for (unsigned i = 0; i < w->shards; i++)
        for (unsigned k = 0; k < ARRAY_COUNT(kinds); k++) {
            struct state_scan it;
            state_scan_begin(shard_state(w->sites[site].n->shards[i]), &it, slice_of(&kinds[k], 1),
                             slice_of(NULL, 0));
            /* A directory may wait for a stable point that others ask for. */
            while (state_scan_next(&it))
                count += kinds[k] == 'm' || it.key.len != 25 || it.key.ptr[11] != OID_DIR;
            state_scan_end(&it);
        }
    return count;
}

uint64_t collect_all(struct world *w)
{
    uint64_t left = 0;
    for (unsigned i = 0; i < w->count; i++)
        if (!w->left[i]) {
            collect(w, i);
            left += garbage(w, i);
        }
    drain(w);
    return left;
}

/* When all is exchanged and nobody works, a few rounds of words let all dead files and moves go
 * (what changed after it died needs two more); and then nobody says another word. */
void call_path(struct world *w, unsigned site, enum rpc_type type, const char *path)
{
    struct fs_request q = {.mode = 0755, .kind = OID_FILE, .flags = O_CREAT | O_EXCL};
    assert_int_equal(node_test_parent(&w->sites[site], path, &q.oid, &q.name), 0);
    assert_int_equal(node_test_call(&w->sites[site], type, &q), 0);
}

/* ---- what tests do again and again ---- */

void check_collected(struct world *w)
{
    uint64_t seq[SITES_MAX], left = 1;
    for (unsigned round = 0; left > 0 && round < 12; round++)
        left = collect_all(w);
    assert_int_equal(left, 0);
    for (unsigned round = 0; round < 4; round++) /* who has not what the others have says it */
        (void)collect_all(w);
    for (unsigned i = 0; i < w->count; i++)
        seq[i] = shard_next_seq(w->sites[i].n->shards[0]);
    assert_int_equal(collect_all(w), 0);
    for (unsigned i = 0; i < w->count; i++)
        assert_int_equal(shard_next_seq(w->sites[i].n->shards[0]), seq[i]);
}

void reopen(struct world *w, unsigned site)
{
    node_test_close(&w->sites[site]);
    memset(w->next[site], 0, sizeof w->next[site]);
    node_test_open(&w->sites[site]);
}

void random_step(struct world *w)
{
    unsigned site = (unsigned)rng_below(&w->rng, w->count);
    user_step(w, site);
    if (rng_below(&w->rng, 8) == 0) {
        unsigned from = (unsigned)rng_below(&w->rng, w->count);
        for (uint64_t k = rng_below(&w->rng, 20); k > 0 && from != site; k--)
            if (!pull_one(w, site, from))
                break;
    }
    if (w->collects && rng_below(&w->rng, 6) == 0)
        collect(w, (unsigned)rng_below(&w->rng, w->count));
    if (rng_below(&w->rng, 60) == 0)
        reopen(w, site);
}
