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

#include "site/member_codec.h"
#include "site/shard_int.h"
#include "tests/unit/site/federation_test.h"

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

/* Two sites that both have "/f", which the second has edited since. */
static struct oid edited_elsewhere(struct world *w)
{
    struct oid oid;
    world_init(w, 2, 1, 3);
    call_path(w, 0, RPC_CREATE, "/f");
    drain(w);
    assert_int_equal(node_test_walk(&w->sites[0], "/f", &oid), 0);
    user_write(&w->sites[1], oid, 2);
    return oid;
}

/* A file is removed here, written to while it has no name, and linked again because another site
 * had edited it meanwhile (rule 3): from then on all sites show the edit. What was written to it
 * without a name was this site's alone and is not shown any more. */
static void test_relinked_file_shows_what_others_show(void **state)
{
    struct world w;
    struct oid again;
    (void)state;
    struct oid oid = edited_elsewhere(&w);
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

static void check_content(struct node_test *t, struct oid oid, const char *text)
{
    assert_int_equal(node_test_call(t, RPC_CONTENT, &(struct fs_request){.oid = oid}), 0);
    assert_int_equal(t->data.len, strlen(text));
    assert_memory_equal(t->data.ptr, text, t->data.len);
}

static uint32_t contents_without_a_name(struct node_test *t)
{
    struct oid oids[4];
    return node_open_orphans(t->n, 0, NULL, oids, ARRAY_COUNT(oids));
}

/* The same, and the file is written to under its new name and loses that, too: what it had without
 * a name the first time is over, and nobody takes anything of now for it. */
static void test_content_without_a_name_is_over_with_the_next_name(void **state)
{
    struct world w;
    (void)state;
    struct oid oid = edited_elsewhere(&w);
    struct node_test *t = &w.sites[0];
    call_path(&w, 0, RPC_UNLINK, "/f");
    user_write(t, oid, 1);
    check_content(t, oid, "1");
    const struct dot first = t->attr.version;
    assert_int_equal(contents_without_a_name(t), 1);
    drain(&w);
    check_content(t, oid, "2"); /* the edit */
    assert_int_equal(contents_without_a_name(t), 0);
    user_write(t, oid, 4);
    call_path(&w, 0, RPC_UNLINK, "/f");
    check_content(t, oid, "4");
    user_write(t, oid, 5);
    check_content(t, oid, "5");
    assert_false(dot_equal(t->attr.version, first));
    drain(&w);
    reopen(&w, 0); /* nobody has it open, and the journal is replayed */
    assert_int_equal(contents_without_a_name(t), 0);
    check_content(t, oid, "4");
    world_deinit(&w);
}

/* The last operation of each site, as each site says it. */
static void check_last_ops(struct world *w)
{
    for (unsigned i = 0; i < w->count; i++)
        for (unsigned k = 0; k < w->count; k++) {
            struct last_op own[SHARD_COUNT_MAX], seen[SHARD_COUNT_MAX];
            node_last_ops(w->sites[k].n, node_site(w->sites[k].n), own);
            node_last_ops(w->sites[i].n, node_site(w->sites[k].n), seen);
            assert_memory_equal(own, seen, w->shards * sizeof own[0]);
            for (unsigned s = 0; s < w->shards; s++)
                assert_int_equal(own[s].seq, shard_next_seq(w->sites[k].n->shards[s]) - 1);
        }
}

static void reopen_after_work(struct world *w, unsigned site)
{
    struct shard **shards = w->sites[site].n->shards;
    for (unsigned s = 0; s < w->shards; s++)
        shard_checkpoint(shards[s], true);
    settle(w, site);
    user_step(w, site);
    reopen(w, site);
}

/* What a site is asked for when it meets another (W11) outlasts restarts, and is in a snapshot. */
static void test_last_operations_are_known_with_their_stamps(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 3, 4, 11); /* the others begin with a snapshot */
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 40; i++)
            user_step(&w, i % 3);
        drain(&w);
        check_last_ops(&w);
        for (unsigned i = 0; i < 3; i++)
            reopen_after_work(&w, i);
        drain(&w);
        check_last_ops(&w);
    }
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
    (void)state;
    struct oid oid = edited_elsewhere(&w);
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

static unsigned long long asked[4];

/* ---- retention ---- */

static const struct node_backlog *backlog_at(struct world *w, struct node_backlog *all)
{
    node_retention(w->sites[0].n);
    assert_int_equal(node_backlogs(w->sites[0].n, all), 1);
    assert_int_equal(all[0].site, node_site(w->sites[1].n));
    return &all[0];
}

static void user_creates(struct node_test *t, const char *name)
{
    struct fs_request q = {
        .oid = OID_ROOT, .name = slice_str(name), .kind = OID_FILE, .mode = 0644};
    assert_int_equal(node_test_call(t, RPC_CREATE, &q), 0);
}

/* Journals are kept for what a member lacks; what it issued itself, or says that it has, is not
 * that, whether it ever acknowledged anything here or not. */
static void test_backlog_is_what_is_lacked(void **state)
{
    struct world w;
    struct node_backlog all[SITE_COUNT_MAX];
    (void)state;
    world_init(&w, 2, 4, 7);
    drain(&w);
    uint64_t acked[SHARD_COUNT_MAX];
    for (unsigned i = 0; i < w.shards; i++)
        acked[i] = log_durable(shard_log(w.sites[0].n->shards[i]));
    node_peer_acked(w.sites[0].n, node_site(w.sites[1].n), acked);
    settle(&w, 0);
    assert_false(backlog_at(&w, all)->runs_out);
    assert_int_equal(all[0].bytes, 0);
    user_creates(&w.sites[1], "theirs");
    drain(&w);
    assert_int_equal(backlog_at(&w, all)->bytes, 0);
    assert_false(all[0].runs_out);
    user_creates(&w.sites[0], "ours");
    assert_true(backlog_at(&w, all)->bytes > 0);
    assert_true(all[0].runs_out && all[0].left_ms > 0);
    node_peer_heard(w.sites[0].n, node_site(w.sites[1].n));
    settle(&w, 0);
    assert_false(backlog_at(&w, all)->runs_out);
    assert_true(all[0].bytes > 0);
    /* Its word comes by whatever way. */
    drain(&w);
    struct fs_request q = {.oid = OID_ROOT, .name = slice_str("ours")};
    assert_int_equal(node_test_call(&w.sites[0], RPC_UNLINK, &q), 0);
    uint64_t index = log_durable(shard_log(w.sites[0].n->shards[0]));
    drain(&w);
    (void)backlog_at(&w, all);
    assert_true(w.sites[0].n->shards[0]->keep_from <= index);
    for (unsigned round = 0; round < 4; round++)
        (void)collect_all(&w);
    (void)backlog_at(&w, all);
    assert_true(w.sites[0].n->shards[0]->keep_from > index);
    world_deinit(&w);
}

static void test_asked(void **state)
{
    (void)state;
    run_world((unsigned)asked[0], (unsigned)asked[1], asked[2], (unsigned)asked[3]);
}

/* ---- a death while it joins ---- */

/* A site that took over the file system of another, and died before what it had in this file
 * before was replaced. */
static void join_dies(struct node_test *alpha, struct node_test *beta, const char *file)
{
    char cmd[256];
    struct err_detail d = {{0}};
    node_test_init(alpha, 5);
    node_test_init(beta, 3);
    snprintf(cmd, sizeof cmd, "cp %s/%s %s/before", beta->dir, file, beta->dir);
    assert_int_equal(system(cmd), 0);
    assert_int_equal(node_adopt(beta->n, node_fs_key(alpha->n), 5, &d), 0);
    node_test_close(beta);
    snprintf(cmd, sizeof cmd, "mv %s/before %s/%s", beta->dir, beta->dir, file);
    assert_int_equal(system(cmd), 0);
    node_test_open(beta);
}

static void check_joins_anyway(const char *file)
{
    struct node_test alpha, beta;
    join_dies(&alpha, &beta, file);
    assert_true(node_needs_snapshot(beta.n));
    assert_memory_equal(node_fs_key(beta.n), node_fs_key(alpha.n), 32);
    assert_int_equal(node_settings(beta.n)->shard_count, 5);
    bootstrap(&alpha, &beta);
    node_test_close(&beta);
    node_test_open(&beta);
    assert_false(node_needs_snapshot(beta.n));
    assert_memory_equal(node_fs_key(beta.n), node_fs_key(alpha.n), 32);
    node_test_deinit(&alpha);
    node_test_deinit(&beta);
}

/* It would load the snapshot under a key of its own, with which it reads nothing of the others,
 * who refuse it for ever. */
static void test_death_before_the_key_is_there_joins_the_same_file_system(void **state)
{
    (void)state;
    check_joins_anyway("fs.key");
}

static void test_death_before_the_shards_are_known_joins_the_same_file_system(void **state)
{
    (void)state;
    check_joins_anyway("site.conf");
}

/* A new site that cannot write this file, and so cannot take over the file system of another. */
static void join_fails(struct node_test *alpha, struct node_test *beta, const char *file)
{
    struct err_detail d = {{0}};
    char cmd[128];
    node_test_init(alpha, 3);
    node_test_init(beta, 3);
    snprintf(cmd, sizeof cmd, "mkdir %s/.%s.new", beta->dir, file);
    assert_int_equal(system(cmd), 0);
    assert_int_not_equal(node_adopt(beta->n, node_fs_key(alpha->n), 3, &d), 0);
}

/* The disk is full, say: what is then created here must be here after a restart. */
static void test_join_that_could_not_begin_leaves_the_site_its_own(void **state)
{
    (void)state;
    struct node_test alpha, beta;
    join_fails(&alpha, &beta, "joining");
    user_creates(&beta, "kept");
    node_test_close(&beta);
    node_test_open(&beta);
    assert_false(node_needs_snapshot(beta.n));
    assert_memory_not_equal(node_fs_key(beta.n), node_fs_key(alpha.n), 32);
    struct oid found;
    assert_int_equal(node_test_walk(&beta, "kept", &found), 0);
    node_test_deinit(&alpha);
    node_test_deinit(&beta);
}

/* What it had is gone by then, so nothing may be made here until the next start, which would wipe
 * it: that one goes on with joining. */
static void test_join_that_could_not_end_goes_on_at_the_next_start(void **state)
{
    (void)state;
    struct node_test alpha, beta;
    char cmd[128];
    join_fails(&alpha, &beta, "fs.key");
    assert_int_not_equal(node_run(beta.n), 0);
    node_test_close(&beta);
    snprintf(cmd, sizeof cmd, "rmdir %s/.fs.key.new", beta.dir);
    assert_int_equal(system(cmd), 0);
    node_test_open(&beta);
    assert_true(node_needs_snapshot(beta.n));
    assert_memory_equal(node_fs_key(beta.n), node_fs_key(alpha.n), 32);
    bootstrap(&alpha, &beta);
    node_test_deinit(&alpha);
    node_test_deinit(&beta);
}

/* A file is removed while a mount has it open. When it is closed it goes, though nothing dies any
 * more, so that nobody gives another word. */
static void test_what_was_open_goes_when_it_is_closed(void **state)
{
    struct world w;
    struct oid oid;
    struct file_view v;
    const uint64_t mount = 7;
    (void)state;
    world_init(&w, 2, 2, 5);
    struct node_test *t = &w.sites[0];
    call_path(&w, 0, RPC_CREATE, "/f");
    assert_int_equal(node_test_walk(t, "/f", &oid), 0);
    assert_int_equal(session_new(t->n->sessions, mount, loop_now_ns(t->n->loop)), 0);
    session_connected(t->n->sessions, mount); /* so that it does not expire */
    assert_int_equal(session_opened(t->n->sessions, mount, oid), 0);
    call_path(&w, 0, RPC_UNLINK, "/f");
    drain(&w);
    for (unsigned round = 0; round < 12; round++)
        (void)collect_all(&w);
    assert_int_equal(merge_file(shard_merge(shard_of(t->n, oid)), oid, &v), 0);
    assert_int_equal(merge_file(shard_merge(shard_of(w.sites[1].n, oid)), oid, &v), ERR_NOT_FOUND);
    assert_true(node_collect(t->n));                            /* nothing more comes of waiting */
    assert_int_equal(session_remove(t->n->sessions, mount), 0); /* which closes it */
    uint64_t stable = node_stable_hlc(t->n);
    assert_true(node_collect(t->n));
    assert_int_equal(node_stable_hlc(t->n), stable);
    assert_int_equal(merge_file(shard_merge(shard_of(t->n, oid)), oid, &v), ERR_NOT_FOUND);
    world_deinit(&w);
}

/* All of one tree is here when its operator takes the token of another file system, which has fewer
 * shards: nothing of the first is left. */
static void test_join_of_another_file_system_begins_anew(void **state)
{
    (void)state;
    struct node_test alpha, beta, gamma;
    struct err_detail d = {{0}};
    struct oid oid;
    node_test_init(&alpha, 5);
    node_test_init(&beta, 3);
    node_test_init(&gamma, 2);
    user_creates(&alpha, "of-alpha");
    user_creates(&gamma, "of-gamma");
    assert_int_equal(node_adopt(beta.n, node_fs_key(alpha.n), 5, &d), 0);
    load_pages(&alpha, &beta, UINT32_MAX);
    assert_int_equal(node_adopt(beta.n, node_fs_key(gamma.n), 2, &d), 0);
    for (unsigned round = 0; round < 2; round++) { /* also when it dies meanwhile */
        assert_true(node_needs_snapshot(beta.n));
        assert_memory_equal(node_fs_key(beta.n), node_fs_key(gamma.n), 32);
        assert_int_equal(node_settings(beta.n)->shard_count, 2);
        load_pages(&gamma, &beta, UINT32_MAX);
        node_test_close(&beta);
        node_test_open(&beta);
    }
    bootstrap(&gamma, &beta);
    assert_int_equal(node_test_walk(&beta, "/of-gamma", &oid), 0);
    assert_int_equal(node_test_walk(&beta, "/of-alpha", &oid), ERR_NOT_FOUND);
    node_test_deinit(&alpha);
    node_test_deinit(&beta);
    node_test_deinit(&gamma);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_sites_one_shard_converge),
        cmocka_unit_test(test_two_sites_four_shards_converge),
        cmocka_unit_test(test_three_sites_eight_shards_converge),
        cmocka_unit_test(test_settled_revives_all_the_way_up),
        cmocka_unit_test(test_relinked_file_shows_what_others_show),
        cmocka_unit_test(test_content_without_a_name_is_over_with_the_next_name),
        cmocka_unit_test(test_conflict_of_a_file_without_a_name_tells_its_last_one),
        cmocka_unit_test(test_last_operations_are_known_with_their_stamps),
        cmocka_unit_test(test_what_was_open_goes_when_it_is_closed),
        cmocka_unit_test(test_backlog_is_what_is_lacked),
        cmocka_unit_test(test_death_before_the_key_is_there_joins_the_same_file_system),
        cmocka_unit_test(test_death_before_the_shards_are_known_joins_the_same_file_system),
        cmocka_unit_test(test_join_that_could_not_begin_leaves_the_site_its_own),
        cmocka_unit_test(test_join_that_could_not_end_goes_on_at_the_next_start),
        cmocka_unit_test(test_join_of_another_file_system_begins_anew),
    };
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    if (argc > 4) { /* sites shards seed steps: to replay one */
        const struct CMUnitTest one[] = {cmocka_unit_test(test_asked)};
        for (int i = 0; i < 4; i++)
            asked[i] = strtoull(argv[i + 1], NULL, 10);
        return cmocka_run_group_tests(one, NULL, NULL);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
