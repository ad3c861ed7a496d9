/* Checking contents: every chunk that a file refers to is read here and opened, which proves it
 * against its id (P8). Part of fsck.
 *
 * Normal path: the shards' contents are taken a batch at a time; each manifest is walked, blocks
 * that were not seen before are read a window at a time; nodes are read as the walk needs them and
 * kept for it. All of it is steps on the loop between other work, so a site can be checked while it
 * is used. A chunk that may be at another site is counted, not read; one that no site has is a
 * problem, as far as that is known: of contents that are wanted here all were asked. Failure paths:
 * a damaged chunk is a problem that names the file, and is fetched from a peer when that is asked
 * for; of a file whose node cannot be had the rest is not reached, and said so by the same line. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "site/node_verify.h"

#define VERIFY_WINDOW 16u  /* chunks being read at a time */
#define VERIFY_WANTED 512u /* found by one walk; one question to the store in quick mode */
#define VERIFY_BATCH 64u   /* contents taken from a shard at a time */
#define VERIFY_NODE_BYTES (32u * MIB)

struct verify_file {
    struct oid oid;
    struct manifest m;
};
struct verify {
    struct node *n;
    struct verify_config config;
    struct verify_result result;
    struct pipeline *pipeline;
    struct node_cache *cache;
    struct id_map seen;
    unsigned shard;
    struct buf cursor;
    struct verify_file files[VERIFY_BATCH];
    uint32_t file_count, file_at;
    uint64_t block; /* of files[file_at], next to visit */
    struct chunk_ids wanted, missing;
    size_t wanted_at;
    bool wanted_is_node; /* wanted is one node that the walk needs */
    uint32_t open;
    int rc;
    struct store_has has;
    bool present[VERIFY_WANTED];
    struct loop_defer step;
};
struct verify_read {
    struct verify *v;
    struct chunk_id id;
};

static void problem(struct verify *v, const struct chunk_id *id, const char *what)
{
    char text[CHUNK_ID_TEXT_LEN + 1];
    struct buf path = {0};
    struct file_view f;
    struct oid oid = v->files[v->file_at].oid;
    chunk_id_to_text(id, text);
    if (merge_file(merge_of(v->n, oid), oid, &f) == 0 && f.names > 0) {
        struct buf name = {0};
        buf_append(&name, f.ref_name.ptr, f.ref_name.len); /* the engine is asked again below */
        (void)node_path(v->n, f.ref_parent, buf_slice(&name), &path); /* "?" where unknown */
        buf_deinit(&name);
    } else {
        buf_append(&path, "a removed file", 14);
    }
    char *line =
        mem_printf("%.*s: chunk %.16s: %s", (int)path.len, (const char *)path.ptr, text, what);
    v->result.problems++;
    v->config.problem(v->config.ctx, line);
    mem_free(line);
    buf_deinit(&path);
}

static void verify_end(struct verify *v)
{
    ASSERT(v->open == 0);
    loop_undefer(v->n->loop, &v->step);
    v->config.done(v->config.ctx, v->rc, &v->result);
    pipeline_free(v->pipeline);
    node_cache_free(v->cache);
    id_map_deinit(&v->seen);
    buf_deinit(&v->cursor);
    chunk_ids_deinit(&v->wanted);
    chunk_ids_deinit(&v->missing);
    mem_free(v);
}

/* ---- one chunk ---- */

/* Of a node that cannot be had nothing below is reached. */
static void read_over(struct verify *v, bool good)
{
    v->open--;
    if (v->wanted_is_node && !good) {
        v->file_at++;
        v->block = 0;
    }
    loop_defer(v->n->loop, &v->step);
}

static int chunk_check(struct verify *v, const struct chunk_id *id, const struct buf *sealed)
{
    struct buf plain = {0};
    int rc = chunk_open(v->pipeline, id, buf_slice(sealed), &plain);
    if (rc == 0 && v->wanted_is_node)
        rc = node_cache_put(v->cache, id, buf_slice(&plain));
    if (rc == 0) {
        v->result.chunks++;
        v->result.bytes += plain.len;
    }
    buf_deinit(&plain);
    return rc;
}

static void read_fetched(void *ctx, int rc, struct buf *sealed)
{
    struct verify_read *r = ctx;
    struct verify *v = r->v;
    if (rc == 0)
        rc = chunk_check(v, &r->id, sealed);
    if (rc == 0)
        v->result.repaired++;
    else
        problem(v, &r->id, "damaged here, and no other site could give it");
    mem_free(r);
    read_over(v, rc == 0);
}

static void read_damaged(struct verify_read *r)
{
    struct verify *v = r->v;
    if (v->config.repair && !v->n->stopping) {
        node_chunk_fetch(v->n, r->id.b, read_fetched, r);
        return;
    }
    problem(v, &r->id, "damaged: with --repair it is fetched from another site");
    mem_free(r);
    read_over(v, false);
}

/* Members that may have it: all but this site. */
static bool may_be_elsewhere(const struct node *n)
{
    return n->member_count > 1;
}

static void chunk_absent(struct verify *v, const struct chunk_id *id)
{
    const struct verify_file *f = &v->files[v->file_at];
    if (may_be_elsewhere(v->n) && node_content_lost(v->n, f->oid, &f->m))
        problem(v, id, "missing, and no site has it: all were asked");
    else if (may_be_elsewhere(v->n))
        v->result.elsewhere++;
    else
        problem(v, id, "missing, and there is no other site to have it");
}

static void read_done(void *ctx, int rc, struct buf *sealed)
{
    struct verify_read *r = ctx;
    struct verify *v = r->v;
    if (rc == 0)
        rc = chunk_check(v, &r->id, sealed);
    if (rc == ERR_CLOSED || rc == ERR_LIMIT || rc == ERR_IO) {
        v->rc = v->rc != 0 ? v->rc : rc; /* ends the check, and says why */
    } else if (rc == ERR_NOT_FOUND) {
        chunk_absent(v, &r->id);
    } else if (rc != 0) {
        read_damaged(r);
        return;
    }
    mem_free(r);
    read_over(v, rc == 0);
}

static void read_start(struct verify *v, const struct chunk_id *id)
{
    struct verify_read *r = mem_calloc(1, sizeof *r);
    r->v = v;
    r->id = *id;
    v->open++;
    node_chunk_get_local(v->n, id->b, read_done, r);
}

static void has_done(struct store_has *has, int rc)
{
    struct verify *v = CONTAINER_OF(has, struct verify, has);
    for (uint32_t i = 0; i < has->count && rc == 0; i++)
        if (!v->present[i])
            chunk_absent(v, &v->wanted.at[i]);
        else
            v->result.chunks++;
    v->rc = v->rc != 0 ? v->rc : rc;
    read_over(v, rc == 0);
}

static void ask_store(struct verify *v)
{
    v->has = (struct store_has){.ids = v->wanted.at,
                                .count = (uint32_t)v->wanted.count,
                                .present = v->present,
                                .done = has_done};
    v->wanted_at = v->wanted.count;
    v->rc = front_has(v->n->front, &v->has);
    v->open += v->rc == 0;
}

/* ---- which chunks ---- */

static bool take_content(void *ctx, struct oid oid, const struct content *c)
{
    struct verify *v = ctx;
    if (c->kind != CONTENT_MANIFEST)
        return true;
    struct verify_file *f = &v->files[v->file_count];
    *f = (struct verify_file){
        .oid = oid,
        .m = {.root = chunk_id_of(c->root), .size = c->size, .block_bytes = c->block_bytes}};
    if (manifest_validate(&f->m) != 0) {
        v->file_at = v->file_count;
        problem(v, &f->m.root, "its size and block size contradict each other");
        v->file_at = 0;
    } else if (!chunk_id_is_hole(&f->m.root)) {
        v->file_count++;
    }
    return v->file_count < VERIFY_BATCH;
}

static int load_files(struct verify *v)
{
    v->file_count = v->file_at = 0;
    v->block = 0;
    while (v->file_count == 0 && v->shard < v->n->settings.shard_count) {
        struct merge *m = shard_merge(v->n->shards[v->shard]);
        int rc = merge_contents(m, &v->cursor, VERIFY_BATCH, take_content, v);
        if (rc != 0)
            return rc;
        v->shard += v->cursor.len == 0;
    }
    return 0;
}

static enum manifest_visit
visit(void *ctx, const struct chunk_id *id, unsigned level, uint64_t block)
{
    struct verify *v = ctx;
    (void)block;
    if (level > 0 || id_map_get(&v->seen, id) != NULL)
        return MANIFEST_VISIT_GO;
    if (v->wanted.count == VERIFY_WANTED)
        return MANIFEST_VISIT_STOP;
    (void)id_map_set(&v->seen, id, 1); /* where it is does not matter */
    chunk_ids_add(&v->wanted, id);
    return MANIFEST_VISIT_GO;
}

static void walk(struct verify *v)
{
    struct verify_file *f = &v->files[v->file_at];
    chunk_ids_clear(&v->wanted);
    v->wanted_at = 0;
    v->wanted_is_node = false;
    int rc = manifest_walk(v->cache, &f->m, &v->block, 1, visit, v, &v->missing);
    if (rc == 0 && v->block < manifest_blocks(&f->m))
        return; /* the window is full */
    if (rc == ERR_AGAIN && v->wanted.count > 0)
        return; /* blocks first; the walk comes back to the node */
    if (rc == ERR_AGAIN) {
        ASSERT(v->missing.count > 0);
        v->wanted_is_node = true;
        chunk_ids_add(&v->wanted, &v->missing.at[0]);
        return;
    }
    if (rc != 0)
        problem(v, &f->m.root, "its list of chunks contradicts itself");
    if (v->wanted.count > 0 && rc == 0)
        return; /* read first: problems are told by the file; the next walk finds it done */
    node_cache_trim(v->cache, VERIFY_NODE_BYTES);
    v->file_at++;
    v->block = 0;
}

/* One step; false: there is nothing to do before an answer comes, or all is done. */
static bool verify_go(struct verify *v)
{
    if (v->n->stopping && v->rc == 0)
        v->rc = ERR_CLOSED;
    if (v->rc != 0)
        return false;
    if (v->wanted_at < v->wanted.count && v->config.quick && !v->wanted_is_node) {
        ask_store(v);
        return false;
    }
    while (v->wanted_at < v->wanted.count && v->open < VERIFY_WINDOW)
        read_start(v, &v->wanted.at[v->wanted_at++]);
    if (v->open > 0)
        return false;
    if (v->file_at == v->file_count)
        v->rc = load_files(v);
    if (v->rc != 0 || v->file_count == 0)
        return false;
    walk(v);
    return true;
}

static void verify_step(struct loop_defer *d)
{
    struct verify *v = CONTAINER_OF(d, struct verify, step);
    bool more = verify_go(v);
    if (more)
        loop_defer(v->n->loop, &v->step);
    else if (v->open == 0)
        verify_end(v);
}

void node_verify(struct node *n, const struct verify_config *config)
{
    struct verify *v = mem_calloc(1, sizeof *v);
    v->n = n;
    v->config = *config;
    v->step.run = verify_step;
    v->rc = pipeline_new(&v->pipeline, &n->keys, CHUNK_CIPHER_AUTO);
    if (v->rc == 0)
        v->rc = node_cache_new(&v->cache);
    loop_defer(n->loop, &v->step);
}
