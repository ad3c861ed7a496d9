/* Two and three sites without a network: nodes in this process whose feeds are handed over by the
 * test. A second site starts from a snapshot; random calls on all sides, random partial pulls;
 * after everything was exchanged all sites show the same tree, and fsck is clean everywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/node_test.h"

#define SITES_MAX 4

struct world {
    struct node_test sites[SITES_MAX];
    unsigned count, shards;
    struct rng rng;
    bool collects; /* at random moments */
    /* Next index to pull, by receiver, sender, shard: what was applied since the receiver was
     * opened, durable or not. */
    uint64_t next[SITES_MAX][SITES_MAX][SHARD_COUNT_MAX];
    bool left[SITES_MAX]; /* what is compared and drained does not include it */
};

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

static void bootstrap(struct node_test *from, struct node_test *to)
{
    struct snap w = {.n = from->n};
    struct buf page = {0};
    struct err_detail d = {{0}};
    bool done = false;
    node_snapshot_begin(from->n, snap_ready, &w);
    assert_int_equal(node_run(from->n), 0);
    from->n->stopping = false;
    assert_int_equal(w.rc, 0);
    while (!done) {
        buf_clear(&page);
        assert_int_equal(node_snapshot_next_page(w.s, 4096, &page, &done), 0);
        if (page.len > 0)
            assert_int_equal(node_snapshot_load(to->n, buf_slice(&page), &d), 0);
    }
    node_snapshot_free(w.s);
    buf_deinit(&page);
    assert_int_equal(node_snapshot_commit(to->n, node_site(from->n), &d), 0);
}

static void member_done(void *ctx, int rc)
{
    struct node_test *t = ctx;
    assert_int_equal(rc, 0);
    node_stop(t->n);
}

/* Enters a site as a member at the first one, as pairing does. */
static void add_member(struct node_test *t, site_id_t site, unsigned number)
{
    struct member m = {.site = site, .cert = slice_str("cert")};
    snprintf(m.name, sizeof m.name, "s%u", number);
    node_member_set(t->n, &m, member_done, t);
    assert_int_equal(node_run(t->n), 0);
    t->n->stopping = false;
}

static void world_init(struct world *w, unsigned count, unsigned shards, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    rng_seed(&w->rng, seed);
    w->count = count;
    w->shards = shards;
    node_test_init(&w->sites[0], shards);
    add_member(&w->sites[0], node_site(w->sites[0].n), 0);
    for (unsigned i = 1; i < count; i++) {
        struct err_detail d = {{0}};
        node_test_init(&w->sites[i], 3);
        add_member(&w->sites[0], node_site(w->sites[i].n), i);
        assert_int_equal(node_adopt(w->sites[i].n, node_fs_key(w->sites[0].n), shards, &d), 0);
        bootstrap(&w->sites[0], &w->sites[i]);
    }
}

static void world_deinit(struct world *w)
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
static void settle(struct world *w, unsigned site)
{
    struct fs_request q = {0};
    assert_int_equal(node_test_call(&w->sites[site], RPC_SYNC, &q), 0);
    assert_int_equal(node_test_call(&w->sites[site], RPC_SYNC, &q), 0);
}

/* Takes the record with the lowest commit stamp among all shards, again and again, as the gateway
 * would; one record a batch. Returns false when there was nothing. */
static bool pull_one(struct world *w, unsigned to, unsigned from)
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
        /* Retention: nothing goes that a member has not acknowledged. */
        assert_true(w->left[0] || f.first[i] <= 1);
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

static void drain(struct world *w)
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

static void user_write(struct node_test *t, struct oid oid, uint64_t tag)
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

static void user_step(struct world *w, unsigned site)
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

static void check_equal(struct world *w, uint64_t seed)
{
    struct buf first = {0}, other = {0};
    tree_text(&w->sites[0], OID_ROOT, 0, &first);
    for (unsigned i = 1; i < w->count; i++) {
        if (w->left[i])
            continue;
        buf_clear(&other);
        tree_text(&w->sites[i], OID_ROOT, 0, &other);
        if (!slice_equal(buf_slice(&first), buf_slice(&other)))
            print_error("seed %llu: site 0 shows\n%.*s\nsite %u shows\n%.*s\n",
                        (unsigned long long)seed, (int)first.len, (const char *)first.ptr, i,
                        (int)other.len, (const char *)other.ptr);
        assert_true(slice_equal(buf_slice(&first), buf_slice(&other)));
    }
    for (unsigned i = 0; i < w->count; i++) {
        struct node *n = w->sites[i].n;
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
static void wait_settled(struct world *w, unsigned site)
{
    struct settled s = {.wait = {.run = settled_run}, .n = w->sites[site].n};
    node_settled(s.n, &s.wait);
    assert_int_equal(node_run(s.n), 0);
    s.n->stopping = false;
}

/* The site gives its word, if that helps, and drops what its stable point allows. */
static void collect(struct world *w, unsigned site)
{
    struct node *n = w->sites[site].n;
    node_stable_tick(n, true);
    wait_settled(w, site);
    settle(w, site);
    node_collect(n);
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

static uint64_t collect_all(struct world *w)
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
static void check_collected(struct world *w)
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

static void reopen(struct world *w, unsigned site)
{
    node_test_close(&w->sites[site]);
    memset(w->next[site], 0, sizeof w->next[site]);
    node_test_open(&w->sites[site]);
}

static void random_step(struct world *w)
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

static void run_world(unsigned count, unsigned shards, uint64_t seed, unsigned steps)
{
    struct world w;
    world_init(&w, count, shards, seed);
    w.collects = seed % 2 == 1;
    for (unsigned i = 0; i < steps; i++)
        random_step(&w);
    drain(&w);
    if (w.collects)
        check_collected(&w);
    check_equal(&w, seed);
    for (unsigned i = 0; i < count; i++)
        reopen(&w, i);
    check_equal(&w, seed);
    world_deinit(&w);
}

static void test_two_sites_one_shard_converge(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++)
        run_world(2, 1, seed, 250);
}

static void test_two_sites_four_shards_converge(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++)
        run_world(2, 4, seed, 250);
}

static void test_three_sites_eight_shards_converge(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++)
        run_world(3, 8, seed, 250);
}

static void call_path(struct world *w, unsigned site, enum rpc_type type, const char *path)
{
    struct fs_request q = {.mode = 0755, .kind = OID_FILE, .flags = O_CREAT | O_EXCL};
    assert_int_equal(node_test_parent(&w->sites[site], path, &q.oid, &q.name), 0);
    assert_int_equal(node_test_call(&w->sites[site], type, &q), 0);
}

static uint64_t own_operations(struct world *w, unsigned site)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < w->shards; i++)
        count += shard_next_seq(w->sites[site].n->shards[i]) - 1;
    return count;
}

/* One site puts a file below directories that the other removes: reviving them goes up one shard
 * after the other, each by a repair that only the last one's message makes due. Once the batch has
 * settled all of it is there. */
static void test_settled_revives_all_the_way_up(void **state)
{
    static const char *const dirs[] = {"/a", "/a/b", "/a/b/c", "/a/b/c/d", "/a/b/c/d/e"};
    struct world w;
    struct oid oid;
    (void)state;
    world_init(&w, 2, 8, 7);
    for (unsigned i = 0; i < ARRAY_COUNT(dirs); i++)
        call_path(&w, 0, RPC_MKDIR, dirs[i]);
    drain(&w);
    for (unsigned i = ARRAY_COUNT(dirs); i-- > 0;)
        call_path(&w, 1, RPC_RMDIR, dirs[i]);
    call_path(&w, 0, RPC_CREATE, "/a/b/c/d/e/new");
    while (pull_one(&w, 0, 1))
        ;
    wait_settled(&w, 0);
    assert_int_equal(node_test_walk(&w.sites[0], "/a/b/c/d/e/new", &oid), 0);
    /* The other side sees it with what it is sent now, and owes nothing for it. */
    uint64_t own = own_operations(&w, 1);
    while (pull_one(&w, 1, 0))
        ;
    wait_settled(&w, 1);
    assert_int_equal(node_test_walk(&w.sites[1], "/a/b/c/d/e/new", &oid), 0);
    assert_int_equal(own_operations(&w, 1), own);
    check_equal(&w, 7);
    world_deinit(&w);
}

/* A file is removed here, written to while it has no name, and linked again because another site
 * had edited it meanwhile (rule 3): from then on all sites show the edit. What was written to it
 * without a name was this site's alone and is not shown any more. */
static void test_relinked_file_shows_what_others_show(void **state)
{
    struct world w;
    struct oid oid, again;
    (void)state;
    world_init(&w, 2, 1, 3);
    call_path(&w, 0, RPC_CREATE, "/f");
    drain(&w);
    assert_int_equal(node_test_walk(&w.sites[0], "/f", &oid), 0);
    user_write(&w.sites[1], oid, 2);
    call_path(&w, 0, RPC_UNLINK, "/f");
    user_write(&w.sites[0], oid, 1);
    drain(&w);
    assert_int_equal(node_test_walk(&w.sites[0], "/f", &again), 0);
    assert_true(oid_equal(oid, again));
    check_equal(&w, 3);
    user_write(&w.sites[0], oid, 4); /* and can be written to */
    drain(&w);
    check_equal(&w, 3);
    world_deinit(&w);
}

/* ---- conflicts ---- */

static void told(void *ctx, int rc, const char *json)
{
    char **ret = ctx;
    assert_int_equal(rc, 0);
    *ret = mem_strdup(json);
}

static void check_conflicts_tell(struct world *w, unsigned site, const char *verb, const char *text)
{
    char *json = NULL;
    node_admin_ask(w->sites[site].n, verb, told, &json);
    assert_non_null(json);
    if (strstr(json, text) == NULL)
        print_error("%s at site %u: %s is not in %s\n", verb, site, text, json);
    assert_non_null(strstr(json, text));
    mem_free(json);
}

/* A file that two sites have edited (rule 2) is removed by one of them before it hears that the
 * other has made its version a file of its own: the record of that is about a file without a name,
 * and tells the one that it had last. */
static void test_conflict_of_a_file_without_a_name_tells_its_last_one(void **state)
{
    struct world w;
    struct oid oid;
    (void)state;
    world_init(&w, 2, 1, 3);
    call_path(&w, 0, RPC_CREATE, "/f");
    drain(&w);
    assert_int_equal(node_test_walk(&w.sites[0], "/f", &oid), 0);
    user_write(&w.sites[1], oid, 2);
    struct merge *mine = shard_merge(w.sites[0].n->shards[0]);
    struct merge *other = shard_merge(w.sites[1].n->shards[0]);
    while (hlc_ms(merge_hlc_max(mine)) <= hlc_ms(merge_hlc_max(other)))
        user_write(&w.sites[0], oid, 1); /* the later one: it keeps the name */
    while (pull_one(&w, 1, 0))
        ;
    wait_settled(&w, 1);
    call_path(&w, 0, RPC_UNLINK, "/f");
    drain(&w);
    check_equal(&w, 3);
    for (unsigned i = 0; i < 2; i++) {
        check_conflicts_tell(&w, i, "conflicts.list", "\"path\":\"/f\"");
        check_conflicts_tell(&w, i, "conflicts.explain", "\"path\":\"/f.conflict-s1-");
    }
    world_deinit(&w);
}

/* ---- leaving ---- */

static const struct member *member_at(struct world *w, unsigned site, unsigned other)
{
    struct node *n = w->sites[site].n;
    node_members_fresh(n);
    for (uint32_t i = 0; i < n->member_count; i++)
        if (n->members[i].m.site == node_site(w->sites[other].n))
            return &n->members[i].m;
    fail();
    return NULL;
}

static void leaves_step(struct world *w, unsigned site)
{
    node_leaves_step(w->sites[site].n);
    settle(w, site);
}

static void remove_member(struct world *w, unsigned site, unsigned leaver)
{
    node_member_remove(w->sites[site].n, node_site(w->sites[leaver].n), LEAVES_REMOVED, member_done,
                       &w->sites[site]);
    assert_int_equal(node_run(w->sites[site].n), 0);
    w->sites[site].n->stopping = false;
}

static bool knows_cut(struct world *w, unsigned leaver)
{
    for (unsigned i = 0; i < w->count; i++)
        if (!w->left[i] && member_at(w, i, leaver)->status != MEMBER_REMOVED)
            return false;
    return true;
}

/* All who remain know the cut, have all up to it, and nothing beyond. */
static void check_cut(struct world *w, unsigned leaver)
{
    site_id_t site = node_site(w->sites[leaver].n);
    const uint64_t *cut = NULL;
    for (unsigned i = 0; i < w->count; i++) {
        struct node *n = w->sites[i].n;
        if (w->left[i])
            continue;
        assert_int_equal(member_at(w, i, leaver)->status, MEMBER_REMOVED);
        for (uint32_t k = 0; k < n->member_count; k++) {
            if (n->members[k].m.site != site)
                continue;
            if (cut != NULL)
                assert_memory_equal(n->members[k].cut, cut, w->shards * sizeof cut[0]);
            cut = n->members[k].cut;
        }
        for (unsigned k = 0; k < w->shards; k++) {
            struct vv durable;
            shard_durable_vv(n->shards[k], &durable);
            assert_int_equal(merge_seen(shard_merge(n->shards[k]), (shard_id_t)k, site), cut[k]);
            assert_int_equal(vv_get(&durable, site), cut[k]);
            assert_int_equal(shard_waiting_count(n->shards[k]), 0);
        }
        assert_true(node_left(n, site));
    }
}

static bool owes(struct world *w)
{
    for (unsigned i = 0; i < w->count; i++)
        for (unsigned k = 0; k < w->shards && !w->left[i]; k++)
            if (merge_owes(shard_merge(w->sites[i].n->shards[k])))
                return true;
    return false;
}

/* One site leaves in the middle of things: whoever removes it, whoever is away at that moment, and
 * though it works on and some still hear of it. */
static void run_leaving(unsigned count, unsigned shards, uint64_t seed, unsigned steps)
{
    struct world w;
    world_init(&w, count, shards, seed);
    w.collects = seed % 2 == 1;
    drain(&w); /* all know all */
    unsigned leaver = 1 + (unsigned)rng_below(&w.rng, count - 1);
    unsigned remover = (leaver + 1 + (unsigned)rng_below(&w.rng, count - 1)) % count;
    for (unsigned i = 0; i < steps; i++)
        random_step(&w);
    remove_member(&w, remover, leaver);
    for (unsigned i = 0; i < steps; i++) {
        random_step(&w);
        unsigned site = (unsigned)rng_below(&w.rng, count);
        if (rng_below(&w.rng, 4) == 0)
            leaves_step(&w, site);
    }
    w.left[leaver] = true;
    /* States are written down by threads, which a busy machine may keep waiting. */
    uint64_t end = clock_mono_ns(&clock_os) + 120 * NS_PER_SEC;
    for (unsigned round = 0; round < 8 || !knows_cut(&w, leaver); round++) {
        assert_true(clock_mono_ns(&clock_os) < end);
        drain(&w);
        for (unsigned i = 0; i < count; i++)
            leaves_step(&w, i);
    }
    /* Whatever it still sends changes nothing. */
    for (unsigned i = 0; i < count; i++)
        while (i != leaver && pull_one(&w, i, leaver))
            continue;
    drain(&w);
    check_cut(&w, leaver);
    check_equal(&w, seed);
    if (!owes(&w)) /* others take over what the leaver owed, after 30 s: nothing goes before */
        check_collected(&w);
    for (unsigned i = 0; i < count; i++)
        reopen(&w, i);
    check_cut(&w, leaver);
    check_equal(&w, seed);
    world_deinit(&w);
}

static void test_leaving_site_has_one_cut(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++)
        run_leaving(4, 4, seed, 60);
}

static unsigned long long asked[4];
static bool asked_leaving;

static void test_asked(void **state)
{
    (void)state;
    (asked_leaving ? run_leaving : run_world)((unsigned)asked[0], (unsigned)asked[1], asked[2],
                                              (unsigned)asked[3]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_sites_one_shard_converge),
        cmocka_unit_test(test_two_sites_four_shards_converge),
        cmocka_unit_test(test_three_sites_eight_shards_converge),
        cmocka_unit_test(test_settled_revives_all_the_way_up),
        cmocka_unit_test(test_relinked_file_shows_what_others_show),
        cmocka_unit_test(test_conflict_of_a_file_without_a_name_tells_its_last_one),
        cmocka_unit_test(test_leaving_site_has_one_cut),
    };
    if (argc > 4) { /* sites shards seed steps [leaving]: to replay one */
        const struct CMUnitTest one[] = {cmocka_unit_test(test_asked)};
        for (int i = 0; i < 4; i++)
            asked[i] = strtoull(argv[i + 1], NULL, 10);
        asked_leaving = argc > 5;
        return cmocka_run_group_tests(one, NULL, NULL);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
