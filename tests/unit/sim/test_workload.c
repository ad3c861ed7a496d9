/* What mounts do: that the workloads are the sequences which they are said to be, call by call, and
 * that files which lose their last name while they are open stay. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "sim/soak.h"
#include "sim/workload.h"
#include "sim/world_int.h"

#define CALLS_MAX 60000u

/* Every call that was answered, in order; of all mounts. */
struct told {
    unsigned mount;
    bool own; /* in its private directory */
    enum rpc_type type;
    struct oid oid, oid2, made; /* made: what the answer is about */
    uint32_t set, flags, nlink;
    bool chunks;
    char name[64], name2[64];
    size_t size;
    uint8_t head[64]; /* of the content, behind its number */
    int32_t rc;
};
static struct told *told;
static unsigned told_count;

static void text(struct slice s, char out[64])
{
    size_t len = MIN(s.len, 63u);
    if (len > 0)
        memcpy(out, s.ptr, len);
    out[len] = '\0';
}

void __real_workload_done(struct mount *m, const struct fs_reply *r);
void __wrap_workload_done(struct mount *m, const struct fs_reply *r);
void __wrap_workload_done(struct mount *m, const struct fs_reply *r)
{
    if (r != NULL && told_count < CALLS_MAX) {
        struct told *t = &told[told_count++];
        const struct content *c = &m->req.content;
        *t = (struct told){.mount = m->number,
                           .own = m->in_own,
                           .type = m->type,
                           .oid = m->req.oid,
                           .oid2 = m->req.oid2,
                           .set = m->req.set,
                           .flags = m->req.flags,
                           .chunks = m->req.has_content && c->kind == CONTENT_MANIFEST,
                           .size = m->req.has_content ? (size_t)c->size : 0,
                           .rc = r->rc};
        if (r->has_attr) {
            t->made = r->attr.oid;
            t->nlink = r->attr.nlink;
        }
        text(m->req.name, t->name);
        text(m->req.name2, t->name2);
        if (m->req.has_content && c->kind == CONTENT_INLINE && c->bytes.len > LEDGER_HEAD_BYTES)
            memcpy(t->head, c->bytes.ptr + LEDGER_HEAD_BYTES,
                   MIN(c->bytes.len - LEDGER_HEAD_BYTES, sizeof t->head));
    }
    __real_workload_done(m, r);
}

static void run(enum world_workload kind, bool faults, uint64_t seed)
{
    static struct world_config c;
    const struct soak_options o = {.sites = 2, .operations = 4000, .faults = faults, .work = kind};
    struct soak_edit e;
    struct soak_result r;
    told_count = 0;
    soak_edit_init(&e);
    soak_describe(&o, seed, &e, &c);
    soak_run(&c, false, &r);
    assert_string_equal(r.failure, "");
    assert_true(told_count > 3500);
}

/* The last successful call of that mount before this one that is about that object. */
static const struct told *before(const struct told *t, struct oid oid)
{
    for (const struct told *b = t; b-- > told;)
        if (b->mount == t->mount && b->rc == 0 && !b->own &&
            (oid_equal(b->oid, oid) || oid_equal(b->made, oid)))
            return b;
    return NULL;
}

/* What this rename moved: the last file that the mount made under that name. */
static const struct told *made_of(const struct told *t)
{
    for (const struct told *b = t; b-- > told;)
        if (b->mount == t->mount && b->type == RPC_CREATE && b->rc == 0 && !b->own &&
            oid_equal(b->oid, t->oid) && strcmp(b->name, t->name) == 0)
            return b;
    return NULL;
}

static unsigned count(enum rpc_type type)
{
    unsigned n = 0;
    for (unsigned i = 0; i < told_count; i++)
        n += told[i].type == type && told[i].rc == 0 && !told[i].own;
    return n;
}

/* People and programs look before they ask: few of their calls fail. */
static void test_few_calls_fail(void **state)
{
    (void)state;
    for (int k = WORLD_WORK_HOME; k < WORLD_WORK_KIND_END; k++) {
        unsigned failed = 0;
        run((enum world_workload)k, false, 1);
        for (unsigned i = 0; i < told_count; i++)
            failed += told[i].rc != 0;
        if (failed * 10 >= told_count)
            fail_msg("kind %d: %u of %u calls failed", k, failed, told_count);
        assert_true(count(RPC_COMMIT) * 10 > told_count);
    }
}

/* Temporary file, content, times, rename: each of its renames comes after these, in this order. */
static void test_rsync_renames_what_has_its_times(void **state)
{
    unsigned renames = 0;
    (void)state;
    run(WORLD_WORK_RSYNC, false, 2);
    for (unsigned i = 0; i < told_count; i++) {
        const struct told *t = &told[i];
        if (t->type != RPC_RENAME || t->rc != 0 || t->own)
            continue;
        const struct told *made = made_of(t);
        assert_non_null(made);
        assert_int_equal(made->name[0], '.');
        const struct told *times = before(t, made->made);
        assert_non_null(times);
        assert_int_equal(times->type, RPC_SETATTR);
        assert_int_equal(times->set, SET_MTIME | SET_MODE);
        const struct told *content = before(times, made->made);
        assert_int_equal(content->type, RPC_COMMIT);
        assert_ptr_equal(before(content, made->made), made);
        renames++;
    }
    assert_true(renames * 10 > told_count);
    assert_true(count(RPC_READDIR) > 0 && count(RPC_UNLINK) > 0);
}

/* A saved file was written beside its name; mail goes from one directory to another; and a program
 * that has the old one open writes to what has no name any more. */
static void test_home_saves_beside_and_writes_to_what_has_no_name(void **state)
{
    unsigned saved = 0, moved = 0, nameless = 0;
    (void)state;
    run(WORLD_WORK_HOME, false, 3);
    for (unsigned i = 0; i < told_count; i++) {
        const struct told *t = &told[i];
        if (t->rc != 0 || t->own)
            continue;
        nameless += t->type == RPC_COMMIT && t->nlink == 0;
        if (t->type != RPC_RENAME || t->name[0] != '.')
            continue;
        const struct told *made = made_of(t);
        assert_non_null(made);
        assert_true(before(t, made->made)->type == RPC_COMMIT ||
                    before(t, made->made)->type == RPC_SETATTR);
        saved += oid_equal(t->oid, t->oid2);
        moved += !oid_equal(t->oid, t->oid2);
    }
    assert_true(saved > 50 && moved > 20 && nameless > 20);
}

static void test_build_writes_objects_and_cleans(void **state)
{
    unsigned programs = 0, objects = 0, cleaned = 0;
    (void)state;
    run(WORLD_WORK_BUILD, false, 4);
    for (unsigned i = 0; i < told_count; i++) {
        const struct told *t = &told[i];
        if (t->rc != 0 || t->own)
            continue;
        programs += t->type == RPC_RENAME && strcmp(t->name2, "prog") == 0;
        cleaned += t->type == RPC_UNLINK;
        if (t->type == RPC_COMMIT) { /* to what it has open */
            const struct told *o = before(t, t->oid);
            assert_non_null(o);
            assert_true(o->type == RPC_OPEN ||
                        (o->type == RPC_CREATE && (o->flags & O_CREAT) != 0));
            objects++;
        }
    }
    assert_true(programs > 20 && objects > 5 * programs && cleaned > programs / 2);
}

/* Checkpoints grow, are made of chunks, and take the place of an old one when they are whole. */
static void test_train_writes_chunks(void **state)
{
    unsigned chunks = 0, renames = 0;
    (void)state;
    run(WORLD_WORK_TRAIN, false, 5);
    for (unsigned i = 0; i < told_count; i++) {
        const struct told *t = &told[i];
        if (t->rc != 0 || t->own)
            continue;
        if (t->type == RPC_COMMIT) {
            assert_true(t->chunks && t->size > LIMIT_INLINE_BYTES);
            chunks++;
        }
        renames += t->type == RPC_RENAME;
    }
    assert_true(renames > 100 && chunks >= 3 * renames);
    assert_true(count(RPC_OPEN) > 20);
}

/* Each write has the lines of the one before and one more; a large one is renamed, and gets a line
 * all the same. */
static void test_log_appends_and_rotates(void **state)
{
    unsigned appended = 0, rotated = 0, late = 0;
    (void)state;
    run(WORLD_WORK_LOG, false, 6);
    for (unsigned i = 0; i < told_count; i++) {
        const struct told *t = &told[i];
        if (t->rc != 0 || t->own)
            continue;
        size_t len = strlen(t->name);
        if (t->type == RPC_RENAME && strncmp(t->name, t->name2, len) == 0 &&
            strcmp(t->name2 + len, ".1") == 0)
            rotated++;
        const struct told *b = t->type == RPC_COMMIT ? before(t, t->oid) : NULL;
        if (b == NULL || b->type != RPC_COMMIT || b->size <= LEDGER_HEAD_BYTES)
            continue;
        if (t->size > b->size && memcmp(t->head, b->head, sizeof t->head) == 0)
            appended++;
        late += b->size > 2000;
    }
    assert_true(appended > told_count / 2);
    assert_true(rotated > 20 && late > 10);
}

/* With nodes that die and links that break: what is open stays, at whichever run of the node
 * (checked by the world, and it would be told by soak_run). */
static void test_open_files_outlive_the_node(void **state)
{
    unsigned nameless = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        run(seed % 2 == 0 ? WORLD_WORK_COLLIDE : WORLD_WORK_HOME, true, seed);
        for (unsigned i = 0; i < told_count; i++)
            nameless += told[i].type == RPC_COMMIT && told[i].rc == 0 && told[i].nlink == 0;
    }
    assert_true(nameless > 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_few_calls_fail),
        cmocka_unit_test(test_rsync_renames_what_has_its_times),
        cmocka_unit_test(test_home_saves_beside_and_writes_to_what_has_no_name),
        cmocka_unit_test(test_build_writes_objects_and_cleans),
        cmocka_unit_test(test_train_writes_chunks),
        cmocka_unit_test(test_log_appends_and_rotates),
        cmocka_unit_test(test_open_files_outlive_the_node),
    };
    for (int i = 0; i < LOG_AREA_COUNT; i++)
        log_levels[i] = -1; /* before any thread */
    told = mem_calloc(CALLS_MAX, sizeof *told);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    mem_free(told);
    return rc;
}
