/* Names of files and directories, when a site comes back: they mean what they meant there, whatever
 * the order they are carried out in; and nothing gets a conflict name without a conflict. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/return_test.h"

#define ROW 60u

/* ---- names that show under other ones ---- */

/* The one name in the root that begins so; the buffer ends it. */
static void name_like(struct node_test *t, const char *begin, struct buf *ret)
{
    struct fs_request q = {.oid = OID_ROOT, .count = 100};
    assert_int_equal(node_test_call(t, RPC_READDIR, &q), 0);
    for (size_t at = 0; at < t->data.len; at += strlen((char *)t->data.ptr + at) + 1) {
        const char *name = (char *)t->data.ptr + at;
        if (strncmp(name, begin, strlen(begin)) == 0 && strlen(name) > strlen(begin))
            buf_append(ret, name, strlen(name));
    }
    assert_true(ret->len > 0);
}

static void test_a_file_that_lost_its_name_to_a_directory_is_renamed(void **state)
{
    struct world w;
    struct buf name = {0};
    struct oid dir, file, now;
    (void)state;
    world_init(&w, 2, 4, 1);
    call_path(&w, STAYS, RPC_MKDIR, "/c");
    call_path(&w, BACK, RPC_CREATE, "/c");
    drain(&w);
    assert_int_equal(node_test_walk(&w.sites[BACK], "/c", &dir), 0);
    assert_true(oid_is_dir(dir));
    name_like(&w.sites[BACK], "c", &name);
    acknowledge(&w, BACK, STAYS);
    rename_in_root(&w.sites[BACK], buf_slice(&name), "d");
    assert_int_equal(node_test_walk(&w.sites[BACK], "/d", &file), 0);
    comes_back(&w);
    assert_int_equal(node_test_walk(&w.sites[STAYS], "/c", &now), 0);
    assert_true(oid_equal(now, dir));
    assert_int_equal(node_test_walk(&w.sites[STAYS], "/d", &now), 0);
    assert_true(oid_equal(now, file));
    buf_deinit(&name);
    world_deinit(&w);
}

/* Two directories under one name: both were moved there. */
static void two_moved(struct world *w, struct buf *ret_name, struct oid *ret_winner)
{
    world_init(w, 2, 4, 1);
    call_path(w, STAYS, RPC_MKDIR, "/a");
    call_path(w, STAYS, RPC_MKDIR, "/b");
    drain(w);
    rename_in_root(&w->sites[STAYS], slice_str("a"), "x");
    rename_in_root(&w->sites[BACK], slice_str("b"), "x");
    drain(w);
    assert_int_equal(node_test_walk(&w->sites[BACK], "/x", ret_winner), 0);
    name_like(&w->sites[BACK], "x", ret_name);
    acknowledge(w, BACK, STAYS);
}

static void test_a_directory_that_lost_its_name_to_another_is_moved(void **state)
{
    struct world w;
    struct buf name = {0};
    struct oid winner, loser, now;
    (void)state;
    two_moved(&w, &name, &winner);
    rename_in_root(&w.sites[BACK], buf_slice(&name), "y");
    assert_int_equal(node_test_walk(&w.sites[BACK], "/y", &loser), 0);
    comes_back(&w);
    assert_int_equal(node_test_walk(&w.sites[STAYS], "/x", &now), 0);
    assert_true(oid_equal(now, winner));
    assert_int_equal(node_test_walk(&w.sites[STAYS], "/y", &now), 0);
    assert_true(oid_equal(now, loser));
    buf_deinit(&name);
    world_deinit(&w);
}

static void test_a_directory_that_lost_its_name_to_another_is_removed(void **state)
{
    struct world w;
    struct buf name = {0};
    struct oid winner, now;
    (void)state;
    two_moved(&w, &name, &winner);
    struct fs_request q = {.oid = OID_ROOT, .name = buf_slice(&name)};
    assert_int_equal(node_test_call(&w.sites[BACK], RPC_RMDIR, &q), 0);
    comes_back(&w);
    assert_int_equal(node_test_walk(&w.sites[STAYS], "/x", &now), 0);
    assert_true(oid_equal(now, winner));
    q.name = buf_slice(&name);
    assert_int_equal(node_test_call(&w.sites[STAYS], RPC_LOOKUP, &q), ERR_NOT_FOUND);
    buf_deinit(&name);
    world_deinit(&w);
}

/* A directory takes the name of a file, and the file goes into it. */
static void test_a_file_goes_into_the_directory_that_takes_its_name(void **state)
{
    struct world w;
    struct oid file, dir, now;
    (void)state;
    world_init(&w, 2, 4, 1);
    call_path(&w, STAYS, RPC_CREATE, "/c");
    drain(&w);
    assert_int_equal(node_test_walk(&w.sites[BACK], "/c", &file), 0);
    acknowledge(&w, BACK, STAYS);
    rename_in_root(&w.sites[BACK], slice_str("c"), "t");
    call_path(&w, BACK, RPC_MKDIR, "/c");
    assert_int_equal(node_test_walk(&w.sites[BACK], "/c", &dir), 0);
    struct fs_request q = {
        .oid = OID_ROOT, .name = slice_str("t"), .oid2 = dir, .name2 = slice_str("f")};
    assert_int_equal(node_test_call(&w.sites[BACK], RPC_RENAME, &q), 0);
    comes_back(&w);
    assert_int_equal(node_test_walk(&w.sites[STAYS], "/c/f", &now), 0);
    assert_true(oid_equal(now, file));
    q = (struct fs_request){.oid = file};
    assert_int_equal(node_test_call(&w.sites[STAYS], RPC_GETATTR, &q), 0);
    assert_int_equal(w.sites[STAYS].attr.nlink, 1);
    world_deinit(&w);
}

/* A file was moved away, and another one with the same content has its name. */
static void test_a_file_like_the_one_that_went_is_another(void **state)
{
    struct world w;
    struct oid file, now;
    (void)state;
    world_init(&w, 2, 4, 1);
    call_path(&w, STAYS, RPC_CREATE, "/p");
    drain(&w);
    assert_int_equal(node_test_walk(&w.sites[BACK], "/p", &file), 0);
    acknowledge(&w, BACK, STAYS);
    rename_in_root(&w.sites[BACK], slice_str("p"), "r");
    call_path(&w, BACK, RPC_CREATE, "/p");
    rename_in_root(&w.sites[BACK], slice_str("r"), "q"); /* the later of the names that are left */
    comes_back(&w);
    assert_int_equal(node_test_walk(&w.sites[STAYS], "/q", &now), 0);
    assert_true(oid_equal(now, file));
    assert_int_equal(node_test_walk(&w.sites[STAYS], "/p", &now), 0);
    assert_false(oid_equal(now, file));
    world_deinit(&w);
}

/* ---- names that stand in each other's way ---- */

static void check_at(struct world *w, const char *path, struct oid oid)
{
    assert_true(oid_equal(at_path(w, STAYS, path), oid));
}

static unsigned names_in(struct node_test *t, struct oid dir)
{
    struct fs_request q = {.oid = dir, .count = 100};
    unsigned count = 0;
    assert_int_equal(node_test_call(t, RPC_READDIR, &q), 0);
    for (size_t at = 0; at < t->data.len; at += strlen((char *)t->data.ptr + at) + 1)
        count++;
    return count;
}

/* Files /p0 ... that both know. */
static void world_of_files(struct world *w, unsigned count, struct oid *ret)
{
    char path[16];
    world_init(w, 2, 4, 1);
    for (unsigned i = 0; i < count; i++) {
        snprintf(path, sizeof path, "/p%u", i);
        call_path(w, STAYS, RPC_CREATE, path);
    }
    drain(w);
    acknowledge(w, BACK, STAYS);
    for (unsigned i = 0; i < count; i++) {
        snprintf(path, sizeof path, "/p%u", i);
        ret[i] = at_path(w, BACK, path);
    }
}

static struct oid new_file(struct world *w, const char *path, uint64_t tag)
{
    call_path(w, BACK, RPC_CREATE, path);
    struct oid oid = at_path(w, BACK, path);
    user_write(&w->sites[BACK], oid, tag);
    return oid;
}

static void check_new(struct world *w, const char *path, const char *text)
{
    struct node_test *t = &w->sites[STAYS];
    struct fs_request q = {.oid = at_path(w, STAYS, path)};
    assert_int_equal(node_test_call(t, RPC_CONTENT, &q), 0);
    assert_true(slice_equal(buf_slice(&t->data), slice_str(text)));
}

/* The name of the new file comes first in the list: the file that has it there has to go to one
 * that another file has there, which was removed. */
static void test_a_new_file_has_the_name_of_one_that_took_anothers(void **state)
{
    struct world w;
    struct oid p[4];
    (void)state;
    world_of_files(&w, 4, p);
    rename_in_root(&w.sites[BACK], slice_str("p3"), "t");
    (void)new_file(&w, "/p3", 0xa);
    call_path(&w, BACK, RPC_UNLINK, "/p0");
    rename_in_root(&w.sites[BACK], slice_str("t"), "p0");
    comes_back(&w);
    check_at(&w, "/p0", p[3]);
    check_new(&w, "/p3", "a");
    assert_int_equal(names_in(&w.sites[STAYS], OID_ROOT), 4); /* none is a conflict name */
    world_deinit(&w);
}

/* The same, where that other one has to go to a third one's, and so on; they are more than are
 * looked through, and than an item is tried. */
static void test_files_in_a_row_make_way(void **state)
{
    struct world w;
    struct oid p[ROW];
    char name[16];
    (void)state;
    world_of_files(&w, ROW, p);
    struct node_test *t = &w.sites[BACK];
    rename_in_root(t, slice_str("p0"), "t0");
    (void)new_file(&w, "/p0", 0xa);
    for (unsigned i = 1; i < ROW; i++) {
        char here[16], aside[16];
        snprintf(here, sizeof here, "p%u", i);
        snprintf(aside, sizeof aside, "t%u", i);
        if (i < ROW - 1)
            rename_in_root(t, slice_str(here), aside); /* or its file is removed by the next one */
        snprintf(name, sizeof name, "t%u", i - 1);
        rename_in_root(t, slice_str(name), here);
    }
    comes_back(&w);
    check_new(&w, "/p0", "a");
    for (unsigned i = 1; i < ROW; i++) {
        snprintf(name, sizeof name, "/p%u", i);
        check_at(&w, name, p[i - 1]);
    }
    assert_int_equal(names_in(&w.sites[STAYS], OID_ROOT), ROW); /* none is a conflict name */
    world_deinit(&w);
}

static void test_two_files_exchange_their_names_and_a_new_one_has_a_thirds(void **state)
{
    struct world w;
    struct oid p[3];
    (void)state;
    world_of_files(&w, 3, p);
    rename_in_root(&w.sites[BACK], slice_str("p2"), "t");
    (void)new_file(&w, "/p2", 0xa);
    rename_in_root(&w.sites[BACK], slice_str("p0"), "u");
    rename_in_root(&w.sites[BACK], slice_str("p1"), "p0");
    rename_in_root(&w.sites[BACK], slice_str("u"), "p1");
    rename_in_root(&w.sites[BACK], slice_str("t"), "p3");
    comes_back(&w);
    check_at(&w, "/p0", p[1]);
    check_at(&w, "/p1", p[0]);
    check_new(&w, "/p2", "a");
    check_at(&w, "/p3", p[2]);
    assert_int_equal(names_in(&w.sites[STAYS], OID_ROOT), 4);
    world_deinit(&w);
}

/* One file goes to the place of another, which by that has the name of a new one for a while. */
static void test_a_new_file_has_the_name_that_another_gets_on_its_way(void **state)
{
    struct world w;
    struct oid p[4];
    (void)state;
    world_of_files(&w, 4, p);
    rename_in_root(&w.sites[BACK], slice_str("p2"), "t");
    rename_in_root(&w.sites[BACK], slice_str("p3"), "p2");
    (void)new_file(&w, "/p3", 0xa);
    rename_in_root(&w.sites[BACK], slice_str("t"), "p1");
    comes_back(&w);
    check_at(&w, "/p1", p[2]);
    check_at(&w, "/p2", p[3]);
    check_new(&w, "/p3", "a");
    assert_int_equal(names_in(&w.sites[STAYS], OID_ROOT), 4); /* none is a conflict name */
    world_deinit(&w);
}

/* ---- what nobody else touched ---- */

#define DIRS 24u  /* each with a history of its own */
#define FILES 4u  /* in each, at first */
#define PLACES 6u /* names that are used */
#define DIR_STEPS 10u

static void any_place(struct world *w, char out[16])
{
    snprintf(out, 16, "p%u", (unsigned)rng_below(&w->rng, PLACES));
}

/* Names of a directory change at random, as a user might change them. */
static void names_step(struct world *w, struct oid dir, uint64_t tag)
{
    struct node_test *t = &w->sites[BACK];
    char a[16], b[16];
    any_place(w, a);
    any_place(w, b);
    struct fs_request q = {.oid = dir,
                           .name = slice_str(a),
                           .oid2 = dir,
                           .name2 = slice_str(b),
                           .mode = 0644,
                           .kind = OID_FILE};
    switch (rng_below(&w->rng, 5)) {
    case 0:
        (void)node_test_call(t, RPC_UNLINK, &q); /* any answer */
        break;
    case 1:
        q.flags = O_CREAT | O_EXCL;
        if (node_test_call(t, RPC_CREATE, &q) == 0)
            user_write(t, t->attr.oid, tag);
        break;
    case 2:
        q.flags = 2; /* RENAME_EXCHANGE */
        (void)node_test_call(t, RPC_RENAME, &q);
        break;
    default:
        (void)node_test_call(t, RPC_RENAME, &q);
    }
}

/* Every name and what it means; a file that is new is its content. */
static void names_text(struct node_test *t, struct oid dir, struct buf *out)
{
    struct fs_request q = {.oid = dir, .count = 100};
    struct buf names = {0};
    assert_int_equal(node_test_call(t, RPC_READDIR, &q), 0);
    buf_append(&names, t->data.ptr, t->data.len);
    for (size_t at = 0; at < names.len; at += strlen((char *)names.ptr + at) + 1) {
        const char *name = (char *)names.ptr + at;
        q = (struct fs_request){.oid = dir, .name = slice_str(name)};
        assert_int_equal(node_test_call(t, RPC_LOOKUP, &q), 0);
        q = (struct fs_request){.oid = t->attr.oid};
        assert_int_equal(node_test_call(t, RPC_CONTENT, &q), 0);
        buf_append(out, name, strlen(name));
        buf_append(out, "=", 1);
        buf_append(out, t->data.ptr, t->data.len);
        buf_append(out, " ", 1);
    }
    buf_deinit(&names);
}

/* As no other site changed anything, all is as it was here, and nothing under another name. */
static void run_names(uint64_t seed)
{
    struct world w;
    struct oid dirs[DIRS];
    struct buf before[DIRS] = {{0}}, after = {0};
    unsigned wrong = 0;
    world_init(&w, 2, 4, seed);
    for (unsigned i = 0; i < DIRS; i++) {
        char path[24];
        snprintf(path, sizeof path, "/d%u", i);
        call_path(&w, BACK, RPC_MKDIR, path);
        for (unsigned k = 0; k < FILES; k++) {
            snprintf(path, sizeof path, "/d%u/p%u", i, k);
            (void)new_file(&w, path, 16 * i + k);
        }
        snprintf(path, sizeof path, "/d%u", i);
        dirs[i] = at_path(&w, BACK, path);
    }
    drain(&w);
    acknowledge(&w, BACK, STAYS);
    for (unsigned k = 0; k < DIR_STEPS; k++)
        for (unsigned i = 0; i < DIRS; i++)
            names_step(&w, dirs[i], 0x10000 + DIRS * k + i);
    for (unsigned i = 0; i < DIRS; i++)
        names_text(&w.sites[BACK], dirs[i], &before[i]);
    comes_back(&w);
    for (unsigned i = 0; i < DIRS; i++) {
        buf_clear(&after);
        names_text(&w.sites[STAYS], dirs[i], &after);
        bool same = slice_equal(buf_slice(&before[i]), buf_slice(&after));
        wrong += !same;
        if (!same)
            print_error("seed %llu: d%u was %.*s and is %.*s\n", (unsigned long long)seed, i,
                        (int)before[i].len, (const char *)before[i].ptr, (int)after.len,
                        (const char *)after.ptr);
        buf_deinit(&before[i]);
    }
    assert_int_equal(wrong, 0);
    buf_deinit(&after);
    world_deinit(&w);
}

static void test_names_that_nobody_else_touched_are_as_they_were(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++)
        run_names(seed);
}

/* ---- names in a directory that is gone ---- */

/* A third site has put a file into a directory that the one that stays removes, and is to bring
 * it back; the one that comes back has moved the file out again. */
static void test_a_name_in_a_dead_directory_stays_there(void **state)
{
    struct world w;
    struct unsent u = {.dirs = NULL};
    struct oid file, dir;
    const unsigned third = 2;
    (void)state;
    world_init(&w, 3, 4, 1);
    call_path(&w, STAYS, RPC_CREATE, "/f");
    call_path(&w, STAYS, RPC_MKDIR, "/d");
    drain(&w);
    acknowledge(&w, BACK, STAYS);
    file = at_path(&w, STAYS, "/f");
    dir = at_path(&w, STAYS, "/d");
    struct fs_request q = {
        .oid = OID_ROOT, .name = slice_str("f"), .oid2 = dir, .name2 = slice_str("f")};
    assert_int_equal(node_test_call(&w.sites[third], RPC_RENAME, &q), 0);
    call_path(&w, STAYS, RPC_RMDIR, "/d");
    settle(&w, third);
    while (pull_one(&w, BACK, third))
        settle(&w, BACK);
    while (pull_one(&w, STAYS, third))
        settle(&w, STAYS);
    q = (struct fs_request){
        .oid = dir, .name = slice_str("f"), .oid2 = OID_ROOT, .name2 = slice_str("g")};
    assert_int_equal(node_test_call(&w.sites[BACK], RPC_RENAME, &q), 0);
    settle(&w, BACK);
    assert_true(oid_is_none(at_path(&w, STAYS, "/d"))); /* the third site has not heard of it */
    assert_int_equal(return_collect(w.sites[BACK].n, false, &u), 0);
    carry_out(&w, &u);
    check_at(&w, "/g", file);
    w.left[BACK] = true;
    drain(&w);
    check_equal(&w, 0);
    check_at(&w, "/g", file);
    assert_true(oid_equal(at_path(&w, STAYS, "/d"), dir));
    unsent_deinit(&u);
    world_deinit(&w);
}

/* ---- names of contents that are elsewhere ---- */

struct elsewhere { /* what the other sites say of a chunk */
    int rc;
    unsigned asked, reachable_after;
};

static void fetch_elsewhere(void *fctx, const uint8_t id[32], chunk_got_cb cb, void *cctx)
{
    struct elsewhere *e = fctx;
    struct buf bytes = {0};
    (void)id;
    int rc = ++e->asked <= e->reachable_after ? ERR_UNREACHABLE : e->rc;
    if (rc == 0)
        buf_append(&bytes, "chunk", 5); /* sealed: no node of a site looks inside a block */
    cb(cctx, rc, &bytes);
    buf_deinit(&bytes);
}

/* A file of a third site's, of which nobody here has read anything. Others remove it; who comes
 * back had given it another name, in the place of a file that is there still. */
static void renamed_and_removed(struct world *w, struct elsewhere *e)
{
    struct unsent u = {.dirs = NULL};
    struct content c = {.kind = CONTENT_MANIFEST, .size = 5, .block_bytes = 64 * KIB};
    memset(c.root, 7, sizeof c.root);
    world_init(w, 2, 4, 1);
    call_path(w, STAYS, RPC_CREATE, "/f");
    call_path(w, STAYS, RPC_CREATE, "/g");
    struct fs_request q = {.oid = at_path(w, STAYS, "/f")};
    assert_int_equal(node_test_call(&w->sites[STAYS], RPC_GETATTR, &q), 0);
    q.base = w->sites[STAYS].attr.version;
    q.has_content = true;
    q.content = c;
    assert_int_equal(node_test_call(&w->sites[STAYS], RPC_COMMIT, &q), 0);
    drain(w);
    acknowledge(w, BACK, STAYS);
    node_set_fetcher(w->sites[STAYS].n, fetch_elsewhere, e);
    call_path(w, STAYS, RPC_UNLINK, "/f");
    rename_in_root(&w->sites[BACK], slice_str("f"), "g");
    settle(w, BACK);
    assert_int_equal(return_collect(w->sites[BACK].n, false, &u), 0);
    carry_out(w, &u);
    unsent_deinit(&u);
}

/* What no site has any more is not made again under a name that nobody could read. */
static void test_a_name_of_a_content_that_is_nowhere_stays_away(void **state)
{
    struct world w;
    struct elsewhere e = {.rc = ERR_NOT_FOUND};
    (void)state;
    renamed_and_removed(&w, &e);
    assert_int_equal(e.asked, 1);
    assert_true(oid_is_none(at_path(&w, STAYS, "/f")));
    assert_false(oid_is_none(at_path(&w, STAYS, "/g"))); /* as the others have it */
    world_deinit(&w);
}

/* It is brought here before others drop it; who has it may be out of reach for a while. */
static void test_a_content_that_is_elsewhere_is_brought(void **state)
{
    struct world w;
    struct elsewhere e = {.reachable_after = 1};
    struct store_stats st;
    struct file_view v;
    (void)state;
    renamed_and_removed(&w, &e);
    assert_int_equal(e.asked, 2);
    struct oid g = at_path(&w, STAYS, "/g");
    assert_int_equal(merge_file(merge_of(w.sites[STAYS].n, g), g, &v), 0);
    assert_int_equal(v.content.kind, CONTENT_MANIFEST);
    node_store_stats(w.sites[STAYS].n, &st);
    assert_int_equal(st.chunks, 1);
    world_deinit(&w);
}

static uint64_t asked;

static void test_asked(void **state)
{
    (void)state;
    run_names(asked);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_file_that_lost_its_name_to_a_directory_is_renamed),
        cmocka_unit_test(test_a_directory_that_lost_its_name_to_another_is_moved),
        cmocka_unit_test(test_a_directory_that_lost_its_name_to_another_is_removed),
        cmocka_unit_test(test_a_file_goes_into_the_directory_that_takes_its_name),
        cmocka_unit_test(test_a_file_like_the_one_that_went_is_another),
        cmocka_unit_test(test_a_new_file_has_the_name_of_one_that_took_anothers),
        cmocka_unit_test(test_files_in_a_row_make_way),
        cmocka_unit_test(test_two_files_exchange_their_names_and_a_new_one_has_a_thirds),
        cmocka_unit_test(test_a_new_file_has_the_name_that_another_gets_on_its_way),
        cmocka_unit_test(test_names_that_nobody_else_touched_are_as_they_were),
        cmocka_unit_test(test_a_name_in_a_dead_directory_stays_there),
        cmocka_unit_test(test_a_name_of_a_content_that_is_nowhere_stays_away),
        cmocka_unit_test(test_a_content_that_is_elsewhere_is_brought),
    };
    if (argc > 1) { /* a seed: to replay one */
        const struct CMUnitTest one[] = {cmocka_unit_test(test_asked)};
        asked = strtoull(argv[1], NULL, 10);
        return cmocka_run_group_tests(one, NULL, NULL);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
