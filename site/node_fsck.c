/* fsck: reads every journal to its end, checks the engine's invariants in every shard, that every
 * name has its object and every object its names across shards, and then (node_verify.c) that the
 * chunks of every content are here whole. Online through the daemon, or on a directory that no
 * daemon has open. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "site/admin_int.h"
#include "site/node_verify.h"

struct fsck {
    struct node *n;
    void (*fn)(void *ctx, const char *what);
    void *ctx;
    unsigned shard;
    uint64_t problems, names, objects;
};

static void problem(struct fsck *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void problem(struct fsck *f, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    f->problems++;
    f->fn(f->ctx, text);
}

static void engine_problem(void *ctx, const char *what)
{
    struct fsck *f = ctx;
    problem(f, "shard %u: %s", f->shard, what);
}

static bool skip_record(void *ctx, const struct log_record *r)
{
    struct record rec;
    int *rc = ctx;
    *rc = record_decode(r->payload, &rec);
    return *rc == 0;
}

static void check_journal(struct fsck *f, struct shard *s)
{
    struct log *log = shard_log(s);
    uint64_t at = log_first(log), last = log_durable(log);
    while (at <= last) {
        int bad = 0;
        int rc = log_read(log, at, 8 * MIB, skip_record, &bad, &at);
        if (rc != 0 || bad != 0) {
            problem(f, "shard %u: journal record %llu: %s: restore the site from a peer", f->shard,
                    (unsigned long long)at, err_text(rc != 0 ? rc : bad));
            return;
        }
    }
}

/* Names of one directory, collected first: the engine must not be called from its callback. */
struct name_list {
    struct op_arena arena;
    struct fsck_name {
        struct slice name;
        struct oid oid;
    } * at;
    size_t count;
};

static bool add_name(void *ctx, struct slice visible, const struct shown *s)
{
    struct name_list *l = ctx;
    l->at = mem_realloc(l->at, (l->count + 1) * sizeof l->at[0]);
    l->at[l->count].name = op_dup(&l->arena, visible);
    l->at[l->count++].oid = s->oid;
    return true;
}

/* The tree, from the root: every name has its object. Directories are kept on an explicit stack. */
static int check_tree(struct fsck *f)
{
    struct oid *stack = mem_alloc(sizeof *stack);
    size_t depth = 1;
    int rc = 0;
    stack[0] = OID_ROOT;
    while (depth > 0 && rc == 0) {
        struct oid dir = stack[--depth];
        struct name_list l = {0};
        rc = merge_list(merge_of(f->n, dir), dir, slice_of(NULL, 0), add_name, &l);
        stack = mem_realloc(stack, (depth + l.count + 1) * sizeof *stack);
        for (size_t i = 0; i < l.count; i++) {
            struct fs_attr a;
            int arc = attr_get(f->n, l.at[i].oid, &a);
            f->names++;
            if (arc != 0 || a.nlink == 0) {
                struct buf path = {0};
                (void)node_path(f->n, dir, l.at[i].name, &path);
                problem(f, "%.*s: the name has no object behind it: %s", (int)path.len,
                        (const char *)path.ptr, arc != 0 ? err_text(arc) : "it is dead");
                buf_deinit(&path);
            } else if (oid_is_dir(l.at[i].oid)) {
                stack[depth++] = l.at[i].oid;
            }
        }
        mem_free(l.at);
        op_arena_deinit(&l.arena);
    }
    mem_free(stack);
    return rc;
}

static void run(struct fsck *f)
{
    for (f->shard = 0; f->shard < f->n->settings.shard_count; f->shard++) {
        struct shard *s = f->n->shards[f->shard];
        check_journal(f, s);
        int rc = merge_check(shard_merge(s), engine_problem, f);
        if (rc != 0)
            problem(f, "shard %u: the state cannot be read: %s", f->shard, err_text(rc));
        if (shard_waiting_count(s) > 0)
            problem(f, "shard %u: %llu operations wait for what they build on", f->shard,
                    (unsigned long long)shard_waiting_count(s));
    }
    int rc = check_tree(f);
    if (rc != 0)
        problem(f, "the tree cannot be read: %s", err_text(rc));
}

/* ---- through the daemon ---- */

struct fsck_online {
    struct fsck f;
    json_t *list;
    admin_reply_cb cb;
    void *ctx;
};

static void add_problem(void *ctx, const char *what)
{
    int rc = json_array_append_new(ctx, json_bytes(slice_str(what)));
    ASSERT(rc == 0);
}

static void online_problem(void *ctx, const char *what)
{
    struct fsck_online *o = ctx;
    add_problem(o->list, what);
}

static void online_done(void *ctx, int rc, const struct verify_result *v)
{
    struct fsck_online *o = ctx;
    if (rc == 0) {
        json_t *contents = json_pack("{s:I,s:I,s:I,s:I}", "chunks", (json_int_t)v->chunks, "bytes",
                                     (json_int_t)v->bytes, "elsewhere", (json_int_t)v->elsewhere,
                                     "repaired", (json_int_t)v->repaired);
        admin_reply_json(
            o->cb, o->ctx,
            json_pack("{s:b,s:I,s:o,s:o}", "clean", o->f.problems == 0 && v->problems == 0, "names",
                      (json_int_t)o->f.names, "contents", contents, "problems", o->list));
    } else {
        json_decref(o->list);
        o->cb(o->ctx, rc,
              rc == ERR_CLOSED ? "the daemon stops: check again when it runs, or without it"
                               : err_text(rc));
    }
    mem_free(o);
}

void node_fsck_online(struct node *n, bool quick, bool repair, admin_reply_cb cb, void *ctx)
{
    struct fsck_online *o = mem_calloc(1, sizeof *o);
    o->list = json_array();
    o->cb = cb;
    o->ctx = ctx;
    o->f = (struct fsck){.n = n, .fn = add_problem, .ctx = o->list};
    run(&o->f);
    struct verify_config c = {
        .quick = quick, .repair = repair, .problem = online_problem, .done = online_done, .ctx = o};
    node_verify(n, &c);
}

void admin_fsck(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    node_fsck_online(n, json_is_true(json_object_get(in, "quick")),
                     json_is_true(json_object_get(in, "repair")), cb, ctx);
}

/* ---- without a daemon ---- */

struct fsck_offline {
    struct node *n;
    void (*fn)(void *ctx, const char *what);
    void *ctx;
    int rc;
    uint64_t problems;
};

static void offline_problem(void *ctx, const char *what)
{
    struct fsck_offline *o = ctx;
    o->fn(o->ctx, what);
}

static void offline_done(void *ctx, int rc, const struct verify_result *v)
{
    struct fsck_offline *o = ctx;
    o->rc = rc;
    o->problems += v->problems;
    node_stop(o->n);
}

int node_fsck_offline(const char *dir,
                      bool quick,
                      void (*fn)(void *ctx, const char *what),
                      void *ctx,
                      struct err_detail *d)
{
    struct fsck_offline o = {.fn = fn, .ctx = ctx};
    struct node_config nc = {.dir = dir, .clock = &clock_os};
    int rc = node_open(&o.n, &nc, d);
    if (rc != 0)
        return rc;
    struct fsck f = {.n = o.n, .fn = fn, .ctx = ctx};
    run(&f);
    struct verify_config c = {
        .quick = quick, .problem = offline_problem, .done = offline_done, .ctx = &o};
    node_verify(o.n, &c);
    rc = node_run(o.n);
    rc = rc != 0 ? rc : o.rc;
    node_free(o.n);
    if (rc != 0)
        err_detail_set(d, "the contents cannot be checked: %s", err_text(rc));
    return rc != 0 ? rc : f.problems + o.problems == 0 ? 0 : ERR_CORRUPT;
}
