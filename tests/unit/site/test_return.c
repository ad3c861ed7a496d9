/* A site that comes back, without a network: two sites work apart; what the one has done is listed,
 * and carried out on the tree of the other. Whatever they did, everything that either had written
 * is there afterwards, and the tree is sound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "site/node_return.h"
#include "site/return_file.h"
#include "site/settings.h"
#include "tests/unit/site/return_test.h"

#define TEXTS_MAX 512u

struct texts { /* contents of files */
    struct {
        char text[32];
        bool own; /* written by the site that shows it */
    } at[TEXTS_MAX];
    unsigned count;
};

static void texts_of(struct node_test *t, struct oid dir, struct texts *ret)
{
    struct buf names = {0};
    struct fs_request q = {.oid = dir, .count = 100};
    assert_int_equal(node_test_call(t, RPC_READDIR, &q), 0);
    buf_append(&names, t->data.ptr, t->data.len);
    for (size_t at = 0; at < names.len; at += strlen((char *)names.ptr + at) + 1) {
        struct fs_request l = {.oid = dir, .name = slice_str((char *)names.ptr + at)};
        assert_int_equal(node_test_call(t, RPC_LOOKUP, &l), 0);
        struct fs_attr attr = t->attr;
        if (oid_is_dir(attr.oid)) {
            texts_of(t, attr.oid, ret);
            continue;
        }
        l = (struct fs_request){.oid = attr.oid};
        assert_int_equal(node_test_call(t, RPC_CONTENT, &l), 0);
        if (t->data.len == 0)
            continue;
        assert_true(ret->count < TEXTS_MAX);
        ret->at[ret->count].own = attr.version.site == node_site(t->n);
        snprintf(ret->at[ret->count++].text, sizeof ret->at[0].text, "%.*s", (int)t->data.len,
                 (const char *)t->data.ptr);
    }
    buf_deinit(&names);
}

static bool has_text(const struct texts *t, const char *text)
{
    for (unsigned i = 0; i < t->count; i++)
        if (strcmp(t->at[i].text, text) == 0)
            return true;
    return false;
}

/* What `site` wrote while they were apart and shows now is in `after`. */
static void check_kept(const struct texts *before,
                       const struct texts *now,
                       const struct texts *after,
                       uint64_t seed)
{
    for (unsigned i = 0; i < now->count; i++) {
        if (!now->at[i].own || has_text(before, now->at[i].text))
            continue;
        if (!has_text(after, now->at[i].text))
            print_error("seed %llu: %s is lost\n", (unsigned long long)seed, now->at[i].text);
        assert_true(has_text(after, now->at[i].text));
    }
}

static struct buf progress_seen; /* all of it, before it was removed */

static void progress_look(const char *dir)
{
    char *path = mem_printf("%s/return.progress", dir);
    int fd = open(path, O_RDONLY);
    uint8_t some[512];
    buf_clear(&progress_seen);
    for (ssize_t n; fd >= 0 && (n = read(fd, some, sizeof some)) > 0;)
        buf_append(&progress_seen, some, (size_t)n);
    if (fd >= 0)
        close(fd);
    mem_free(path);
}

static void run(uint64_t seed, unsigned steps)
{
    struct world w;
    struct unsent u = {.dirs = NULL};
    struct texts *t = mem_calloc(4, sizeof *t);
    world_init(&w, 2, 4, seed);
    for (unsigned i = 0; i < steps; i++)
        user_step(&w, (unsigned)rng_below(&w.rng, 2));
    drain(&w);
    acknowledge(&w, BACK, STAYS);
    texts_of(&w.sites[STAYS], OID_ROOT, &t[0]);
    for (unsigned i = 0; i < 3 * steps; i++)
        user_step(&w, (unsigned)rng_below(&w.rng, 2));
    settle(&w, BACK);
    settle(&w, STAYS);
    texts_of(&w.sites[BACK], OID_ROOT, &t[1]);
    texts_of(&w.sites[STAYS], OID_ROOT, &t[2]);
    assert_int_equal(return_collect(w.sites[BACK].n, false, &u), 0);
    carry_out(&w, &u);
    texts_of(&w.sites[STAYS], OID_ROOT, &t[3]);
    check_kept(&t[0], &t[1], &t[3], seed);
    check_kept(&t[0], &t[2], &t[3], seed);
    w.left[BACK] = true; /* its own tree is no more */
    check_equal(&w, seed);
    unsent_deinit(&u);
    mem_free(t);
    world_deinit(&w);
}

static void test_nothing_written_is_lost(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++)
        run(seed, 40);
}

/* ---- with others that are given up ---- */

static struct oid file_at(struct world *w, unsigned site, const char *path)
{
    struct oid oid;
    assert_int_equal(node_test_walk(&w->sites[site], path, &oid), 0);
    return oid;
}

/* A new file has the name of one that was moved over a third one: each is where it was put, and
 * nothing is beside anything. */
static void test_a_file_goes_where_it_replaced_another(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 2, 4, 1);
    call_path(&w, STAYS, RPC_CREATE, "/p");
    call_path(&w, STAYS, RPC_CREATE, "/s");
    drain(&w);
    struct oid file = file_at(&w, BACK, "/p");
    acknowledge(&w, BACK, STAYS);
    rename_in_root(&w.sites[BACK], slice_str("p"), "r");
    call_path(&w, BACK, RPC_CREATE, "/p");
    rename_in_root(&w.sites[BACK], slice_str("r"), "s");
    comes_back(&w);
    assert_true(oid_equal(file_at(&w, STAYS, "/s"), file));
    assert_false(oid_equal(file_at(&w, STAYS, "/p"), file));
    world_deinit(&w);
}

/* The same, and the third one was moved on before. */
static void test_files_that_moved_up_by_one_make_way_for_each_other(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 2, 4, 1);
    call_path(&w, STAYS, RPC_CREATE, "/p");
    call_path(&w, STAYS, RPC_CREATE, "/s");
    drain(&w);
    struct oid file = file_at(&w, BACK, "/p"), third = file_at(&w, BACK, "/s");
    acknowledge(&w, BACK, STAYS);
    rename_in_root(&w.sites[BACK], slice_str("p"), "r");
    call_path(&w, BACK, RPC_CREATE, "/p");
    rename_in_root(&w.sites[BACK], slice_str("s"), "u");
    rename_in_root(&w.sites[BACK], slice_str("r"), "s");
    comes_back(&w);
    assert_true(oid_equal(file_at(&w, STAYS, "/u"), third));
    assert_true(oid_equal(file_at(&w, STAYS, "/s"), file));
    struct oid fresh = file_at(&w, STAYS, "/p");
    assert_false(oid_equal(fresh, file) || oid_equal(fresh, third));
    world_deinit(&w);
}

static void given_up(struct world *w, unsigned leaver)
{
    struct node *n = w->sites[STAYS].n;
    node_member_remove(n, node_site(w->sites[leaver].n), LEAVES_AWAY, member_done,
                       &w->sites[STAYS]);
    assert_int_equal(node_run(n), 0);
    n->stopping = false;
    w->left[leaver] = true;
}

/* Of what it did one part came to all, one to a third site only, which is given up as well, and one
 * to nobody: of the second, too, nobody has anything. */
static void test_what_only_a_site_has_that_leaves_too_is_not_lost(void **state)
{
    struct world w;
    struct unsent u = {.dirs = NULL};
    const unsigned third = 2;
    struct oid file, now;
    (void)state;
    world_init(&w, 3, 4, 1);
    call_path(&w, BACK, RPC_CREATE, "/f");
    call_path(&w, BACK, RPC_CREATE, "/all");
    drain(&w);
    assert_int_equal(node_test_walk(&w.sites[BACK], "/f", &file), 0);
    acknowledge(&w, BACK, STAYS);
    rename_in_root(&w.sites[BACK], slice_str("f"), "g");
    call_path(&w, BACK, RPC_CREATE, "/third");
    settle(&w, BACK);
    while (pull_one(&w, third, BACK))
        settle(&w, third);
    assert_int_equal(node_test_walk(&w.sites[third], "/third", &now), 0);
    acknowledge(&w, BACK, third);
    call_path(&w, BACK, RPC_CREATE, "/nobody");
    settle(&w, BACK);
    given_up(&w, BACK);
    given_up(&w, third);
    /* Its limits are in stores, which threads write. */
    uint64_t end = clock_mono_ns(&clock_os) + 60 * NS_PER_SEC;
    while (node_cut(w.sites[STAYS].n, node_site(w.sites[BACK].n)) == NULL) {
        assert_true(clock_mono_ns(&clock_os) < end);
        node_leaves_step(w.sites[STAYS].n);
        settle(&w, STAYS);
        node_members_fresh(w.sites[STAYS].n);
    }
    assert_int_equal(return_collect(w.sites[BACK].n, false, &u), 0);
    carry_out(&w, &u);
    assert_int_equal(node_test_walk(&w.sites[STAYS], "/g", &now), 0);
    assert_true(oid_equal(now, file));
    assert_int_equal(node_test_walk(&w.sites[STAYS], "/f", &now), ERR_NOT_FOUND);
    assert_int_equal(node_test_walk(&w.sites[STAYS], "/third", &now), 0);
    assert_int_equal(node_test_walk(&w.sites[STAYS], "/nobody", &now), 0);
    assert_int_equal(node_test_walk(&w.sites[STAYS], "/all", &now), 0);
    unsent_deinit(&u);
    world_deinit(&w);
}

/* Another site had it, which may be given up later; whether it is nobody knows when the list is
 * carried out before the cut is known. */
static void test_what_another_site_has_is_not_lost_without_a_cut(void **state)
{
    struct world w;
    struct unsent u = {.dirs = NULL};
    const unsigned third = 2;
    (void)state;
    world_init(&w, 3, 4, 1);
    drain(&w);
    acknowledge(&w, BACK, STAYS);
    call_path(&w, BACK, RPC_CREATE, "/third");
    settle(&w, BACK);
    while (pull_one(&w, third, BACK))
        settle(&w, third);
    acknowledge(&w, BACK, third);
    call_path(&w, BACK, RPC_CREATE, "/nobody");
    settle(&w, BACK);
    assert_int_equal(return_collect(w.sites[BACK].n, false, &u), 0);
    bool any_sent = false;
    for (uint32_t i = 0; i < u.sent_count; i++)
        any_sent = any_sent || u.sent[i] > 0;
    assert_true(any_sent);
    assert_null(node_cut(w.sites[STAYS].n, node_site(w.sites[BACK].n)));
    carry_out(&w, &u);
    assert_false(oid_is_none(at_path(&w, STAYS, "/third")));
    assert_false(oid_is_none(at_path(&w, STAYS, "/nobody")));
    unsent_deinit(&u);
    world_deinit(&w);
}

#define ALONE 0xabc1u

/* Whom only the site that comes back has let in. */
static void lets_in_alone(struct world *w)
{
    struct member m = {.site = ALONE, .name = "s8", .cert_sha256 = {9}, .cert = slice_str("cert")};
    world_init(w, 2, 2, 1);
    drain(w);
    acknowledge(w, BACK, STAYS);
    node_member_set(w->sites[BACK].n, &m, member_done, &w->sites[BACK]);
    assert_int_equal(node_run(w->sites[BACK].n), 0);
    w->sites[BACK].n->stopping = false;
    node_members_fresh(w->sites[BACK].n);
}

static void removes(struct world *w, unsigned site, site_id_t leaver, enum member_leaves why)
{
    struct node *n = w->sites[site].n;
    uint64_t ms = clock_wall_ns(&clock_os) / NS_PER_MS;
    while (clock_wall_ns(&clock_os) / NS_PER_MS < ms + 2) { /* sites have clocks of their own */
    }
    node_member_remove(n, leaver, why, member_done, &w->sites[site]);
    assert_int_equal(node_run(n), 0);
    n->stopping = false;
    node_members_fresh(n);
}

static const struct node_member_cache *
check_leaves(struct world *w, site_id_t leaver, enum member_leaves why)
{
    node_members_fresh(w->sites[STAYS].n);
    const struct node_member_cache *c = node_member_find(w->sites[STAYS].n, leaver);
    assert_non_null(c);
    assert_int_not_equal(c->m.status, MEMBER_IS);
    assert_int_equal(c->m.why, why);
    return c;
}

static void test_members_that_only_this_site_knew_are_brought(void **state)
{
    struct world w;
    (void)state;
    lets_in_alone(&w);
    comes_back(&w);
    const struct node_member_cache *c = check_leaves(&w, ALONE, LEAVES_AWAY);
    assert_string_equal(c->m.name, "s8");
    assert_int_equal(c->m.cert_sha256[0], 9);
    for (unsigned i = 0; i < 2; i++) { /* who is known here stays what he is */
        c = node_member_find(w.sites[STAYS].n, node_site(w.sites[i].n));
        assert_non_null(c);
        assert_int_equal(c->m.status, MEMBER_IS);
    }
    world_deinit(&w);
}

/* One that it has let in while it was alone, and that its operator has put out again. */
static void test_a_member_that_was_removed_here_is_brought_as_that(void **state)
{
    struct world w;
    (void)state;
    lets_in_alone(&w);
    removes(&w, BACK, ALONE, LEAVES_REMOVED);
    comes_back(&w);
    (void)check_leaves(&w, ALONE, LEAVES_REMOVED);
    world_deinit(&w);
}

/* What an operator said at the site that comes back, of one that all know, counts as if it had been
 * a member all the time: against what was said before, not against what was said later. */
static void test_a_removal_that_nobody_heard_of_is_brought(void **state)
{
    const unsigned third = 2;
    (void)state;
    for (unsigned others = 0; others < 3;
         others++) { /* they say nothing, say it before, or after */
        struct world w;
        world_init(&w, 3, 2, 1);
        drain(&w);
        acknowledge(&w, BACK, STAYS);
        w.left[third] = true;
        site_id_t leaver = node_site(w.sites[third].n);
        if (others == 1)
            removes(&w, STAYS, leaver, LEAVES_AWAY);
        removes(&w, BACK, leaver, LEAVES_REMOVED);
        if (others == 2)
            removes(&w, STAYS, leaver, LEAVES_AWAY);
        comes_back(&w);
        (void)check_leaves(&w, leaver, others == 2 ? LEAVES_AWAY : LEAVES_REMOVED);
        world_deinit(&w);
    }
}

/* Whom the others have given up is a member still as far as this site knows, and it gives up whom
 * the others have: neither is anybody's wish. */
static void test_who_was_only_away_is_not_removed_by_who_comes_back(void **state)
{
    const unsigned third = 2;
    struct world w;
    (void)state;
    world_init(&w, 3, 2, 1);
    drain(&w);
    acknowledge(&w, BACK, STAYS);
    removes(&w, BACK, node_site(w.sites[third].n), LEAVES_AWAY);
    w.left[third] = true;
    comes_back(&w);
    struct node *n = w.sites[STAYS].n;
    node_members_fresh(n);
    assert_int_equal(node_member_find(n, node_site(w.sites[third].n))->m.status, MEMBER_IS);
    world_deinit(&w);
}

static site_id_t draws(struct node_test *t, bool another, site_id_t asked)
{
    struct err_detail d = {{0}};
    site_id_t id = 0;
    assert_int_equal(node_return_id(t->n, false, another, asked, &id, &d), 0);
    assert_true(id != 0 && id != node_site(t->n));
    return id;
}

/* Given up once more before it had the others' tree: whom it asks is shown an id of its own, and
 * the one that has left meanwhile is not shown again. */
static void test_the_id_is_drawn_anew_also_the_second_time(void **state)
{
    struct node_test t;
    struct err_detail d = {{0}};
    char plan[160];
    (void)state;
    for (unsigned second = 0; second < 2; second++) {
        node_test_init(&t, 1);
        snprintf(plan, sizeof plan,
                 "{\"phase\":\"applying\",\"before\":%u,\"after\":%u,\"rolled_back\":false,"
                 "\"asked\":7}",
                 (unsigned)node_site(t.n) ^ 1, (unsigned)node_site(t.n));
        if (second != 0)
            assert_int_equal(dir_file_write(t.dir, "return.json", plan, strlen(plan), &d), 0);
        site_id_t x = draws(&t, false, 7);
        assert_int_equal(draws(&t, false, 7), x);
        site_id_t y = draws(&t, true, 7);
        assert_int_not_equal(y, x);
        assert_int_equal(draws(&t, false, 7), y);
        site_id_t z = draws(&t, false, 8);
        assert_true(z != x && z != y);
        assert_int_equal(draws(&t, false, 8), z);
        node_test_deinit(&t);
    }
}

/* ---- files ---- */

static bool file_exists(const char *dir, const char *name)
{
    char *path = mem_printf("%s/%s", dir, name);
    bool is = access(path, F_OK) == 0;
    mem_free(path);
    return is;
}

/* What of the removals may not have got to the disk yet is lost when power goes: all since the last
 * fsync, each by itself. Linked in for the product's calls (CMakeLists.txt). */
static _Thread_local const char
    *watched;              /* a site's directory; other threads' calls are no matter */
static bool list_pending;  /* the list was removed, and its directory not synced since */
static unsigned too_early; /* the notes were removed while the list is there, or may be again */
static unsigned removed;   /* files of a return */

int __real_unlink(const char *path);
int __real_fsync(int fd);
int __wrap_unlink(const char *path);
int __wrap_fsync(int fd);

static bool is_called(const char *path, const char *name)
{
    const char *last = strrchr(path, '/');
    return last != NULL && strcmp(last + 1, name) == 0;
}

int __wrap_unlink(const char *path)
{
    bool is_list = is_called(path, "return.unsent");
    bool is_progress = is_called(path, "return.progress");
    int rc = __real_unlink(path);
    if (watched == NULL || rc != 0)
        return rc;
    removed += is_list || is_progress || is_called(path, "return.json");
    list_pending = list_pending || is_list;
    too_early += is_progress && (list_pending || file_exists(watched, "return.unsent"));
    return rc;
}

int __wrap_fsync(int fd)
{
    list_pending = list_pending && watched == NULL;
    return __real_fsync(fd);
}

static void watch(const char *dir)
{
    watched = dir;
    list_pending = false;
    removed = too_early = 0;
}

/* A list without notes of progress is one that was kept, for it was not all carried out. */
static void test_power_loss_while_files_are_removed_leaves_no_list_by_itself(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 2, 2, 1);
    drain(&w);
    acknowledge(&w, BACK, STAYS);
    call_path(&w, BACK, RPC_MKDIR, "/d");
    watch(w.sites[STAYS].dir);
    comes_back(&w);
    watched = NULL;
    assert_int_equal(removed, 3);
    assert_int_equal(too_early, 0);
    world_deinit(&w);
}

static void test_files_that_power_loss_left_are_removed(void **state)
{
    struct node_test t;
    struct err_detail d = {{0}};
    (void)state;
    node_test_init(&t, 1);
    for (unsigned list = 0; list < 2; list++)
        for (unsigned progress = 0; progress < 2; progress++) {
            if (list != 0)
                assert_int_equal(dir_file_write(t.dir, "return.unsent", "x", 1, &d), 0);
            if (progress != 0)
                assert_int_equal(dir_file_write(t.dir, "return.progress", "x", 1, &d), 0);
            node_test_close(&t);
            watch(t.dir);
            node_test_open(&t);
            watched = NULL;
            bool kept = list != 0 && progress == 0;
            assert_true(file_exists(t.dir, "return.unsent") == kept);
            assert_false(file_exists(t.dir, "return.progress"));
            assert_int_equal(removed, kept ? 0 : list + progress);
            assert_int_equal(too_early, 0);
            if (kept) {
                char *path = mem_printf("%s/return.unsent", t.dir);
                assert_int_equal(__real_unlink(path), 0);
                mem_free(path);
            }
        }
    node_test_deinit(&t);
}

static uint64_t asked[2];

/* The site died while it noted what it had made: what it notes from then on can be read. */
static void test_progress_goes_on_behind_a_torn_line(void **state)
{
    struct world w;
    struct fs_request q = {.oid = OID_ROOT, .name = slice_str("d"), .mode = 0755};
    struct unsent u = {.dirs = NULL};
    struct return_line line;
    unsigned made = 0;
    (void)state;
    world_init(&w, 2, 2, 1);
    drain(&w);
    acknowledge(&w, BACK, STAYS);
    assert_int_equal(node_test_call(&w.sites[BACK], RPC_MKDIR, &q), 0);
    settle(&w, BACK);
    assert_int_equal(return_collect(w.sites[BACK].n, false, &u), 0);
    carry_out_from(&w, &u, "{\"made\":\"di", progress_look);
    for (size_t at = 0; at < progress_seen.len;) {
        const uint8_t *begin = progress_seen.ptr + at;
        const uint8_t *end = memchr(begin, '\n', progress_seen.len - at);
        assert_non_null(end);
        return_line_parse(slice_of(begin, (size_t)(end - begin)), 2, &line);
        made += line.is_made;
        at += (size_t)(end - begin) + 1;
    }
    assert_int_equal(made, 1);
    unsent_deinit(&u);
    buf_deinit(&progress_seen);
    world_deinit(&w);
}

static void test_asked(void **state)
{
    (void)state;
    run(asked[0], (unsigned)asked[1]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_written_is_lost),
        cmocka_unit_test(test_a_file_goes_where_it_replaced_another),
        cmocka_unit_test(test_files_that_moved_up_by_one_make_way_for_each_other),
        cmocka_unit_test(test_what_only_a_site_has_that_leaves_too_is_not_lost),
        cmocka_unit_test(test_what_another_site_has_is_not_lost_without_a_cut),
        cmocka_unit_test(test_members_that_only_this_site_knew_are_brought),
        cmocka_unit_test(test_a_member_that_was_removed_here_is_brought_as_that),
        cmocka_unit_test(test_a_removal_that_nobody_heard_of_is_brought),
        cmocka_unit_test(test_who_was_only_away_is_not_removed_by_who_comes_back),
        cmocka_unit_test(test_the_id_is_drawn_anew_also_the_second_time),
        cmocka_unit_test(test_power_loss_while_files_are_removed_leaves_no_list_by_itself),
        cmocka_unit_test(test_files_that_power_loss_left_are_removed),
        cmocka_unit_test(test_progress_goes_on_behind_a_torn_line),
    };
    if (argc > 2) { /* seed steps: to replay one */
        const struct CMUnitTest one[] = {cmocka_unit_test(test_asked)};
        for (int i = 0; i < 2; i++)
            asked[i] = strtoull(argv[i + 1], NULL, 10);
        return cmocka_run_group_tests(one, NULL, NULL);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
