/* Applying a vector on one shard or several, and comparing what shows with the model's tree. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "tests/vectors/vector.h"

struct message {
    struct message *next;
    const struct op *op; /* or a derived one: */
    struct buf derived;
};
struct queue {
    struct message *head, *tail;
};
struct world {
    struct vector *v;
    uint32_t site;
    unsigned shard_count;
    struct state *states[SHARD_COUNT_MAX];
    struct merge *shards[SHARD_COUNT_MAX];
    struct world_port {
        struct world *world;
        shard_id_t from;
    } ports[SHARD_COUNT_MAX];
    /* 0: this site's journal to the home, by (home, site); 1: operations by (home, to, site);
     * 2: derived by (from, to). */
    struct queue *queues[3];
    size_t queue_counts[3];
    uint64_t rng;
    uint64_t waiting;
    int errors;
};

static uint64_t draw(struct world *w)
{
    w->rng ^= w->rng << 13;
    w->rng ^= w->rng >> 7;
    w->rng ^= w->rng << 17;
    return w->rng;
}

static void site_letter(void *ctx, site_id_t site, char out[33])
{
    (void)ctx;
    out[0] = (char)site;
    out[1] = '\0';
}

static void push(struct world *w, struct queue *q, const struct op *op, struct slice derived)
{
    struct message *m = mem_calloc(1, sizeof *m);
    m->op = op;
    buf_append(&m->derived, derived.ptr, derived.len);
    if (q->tail != NULL)
        q->tail->next = m;
    else
        q->head = m;
    q->tail = m;
    w->waiting++;
}

static void pop(struct world *w, struct queue *q)
{
    struct message *m = q->head;
    q->head = m->next;
    if (q->head == NULL)
        q->tail = NULL;
    buf_deinit(&m->derived);
    mem_free(m);
    w->waiting--;
}

static void on_send(void *ctx, shard_id_t to, struct slice derived)
{
    struct world_port *port = ctx;
    struct world *w = port->world;
    ASSERT(to < w->shard_count && to != port->from);
    push(w, &w->queues[2][port->from * w->shard_count + to], NULL, derived);
}

static int complain(struct world *w, const char *what, const char *path)
{
    if (w->errors++ < 10)
        (void)fprintf(stderr, "  site %c, %u shards: %s: %s\n", w->v->sites[w->site].name,
                      w->shard_count, what, path);
    return 1;
}

/* ---- the tree ---- */

struct walk {
    struct world *w;
    struct oid dir;
    char **names;
    struct shown *shown;
    uint32_t count, cap;
};

static bool walk_name(void *ctx, struct slice visible, const struct shown *s)
{
    struct walk *k = ctx;
    if (k->count == k->cap) {
        k->cap = k->cap == 0 ? 16 : k->cap * 2;
        k->names = mem_realloc(k->names, k->cap * sizeof *k->names);
        k->shown = mem_realloc(k->shown, k->cap * sizeof *k->shown);
    }
    k->names[k->count] = mem_printf("%.*s", (int)visible.len, (const char *)visible.ptr);
    k->shown[k->count++] = *s;
    return true;
}

static void check_file(struct world *w, const char *path, struct oid oid, const json_t *want)
{
    struct file_view f;
    int rc = merge_file(w->shards[oid_shard(oid)], oid, &f);
    const char *data = json_string_value(json_array_get(want, 2));
    if (rc != 0 || data == NULL || f.content.kind != CONTENT_INLINE)
        (void)complain(w, "is no file", path);
    else if (f.perm.mode != json_integer_value(json_array_get(want, 1)))
        (void)complain(w, "has other rights", path);
    else if (!slice_equal(f.content.bytes, slice_str(data)))
        (void)complain(w, "has another content", path);
    else if (f.version_count != 1)
        (void)complain(w, "has hidden versions", path);
}

static uint32_t walk_dir(struct world *w, const char *path, struct oid dir);

static uint32_t walk_entry(struct world *w, const char *path, const struct shown *s)
{
    const json_t *want = json_object_get(w->v->tree, path);
    const char *kind = json_string_value(json_array_get(want, 0));
    bool dir = oid_is_dir(s->oid);
    if (kind == NULL || dir != (strcmp(kind, "dir") == 0)) {
        (void)complain(w, kind == NULL ? "should not be there" : "is of another kind", path);
        return 1;
    }
    if (!dir) {
        check_file(w, path, s->oid, want);
        return 1;
    }
    struct dir_view d;
    int rc = merge_dir(w->shards[oid_shard(s->oid)], s->oid, &d);
    if (rc != 0 || !d.alive || d.perm.mode != json_integer_value(json_array_get(want, 1)))
        (void)complain(w, "is another directory", path);
    return 1 + walk_dir(w, path, s->oid);
}

/* A lookup of each listed name must say the same. */
static void check_lookup(struct world *w, struct oid dir, const char *name, const struct shown *s)
{
    struct shown again;
    int rc = merge_lookup(w->shards[oid_shard(dir)], dir, slice_str(name), &again);
    if (rc != 0 || !oid_equal(again.oid, s->oid) || again.twin_count != s->twin_count)
        (void)complain(w, "a lookup disagrees with the listing", name);
}

static uint32_t walk_dir(struct world *w, const char *path, struct oid dir)
{
    struct walk k = {.w = w, .dir = dir};
    uint32_t count = 0;
    int rc = merge_list(w->shards[oid_shard(dir)], dir, slice_of(NULL, 0), walk_name, &k);
    if (rc != 0)
        (void)complain(w, "cannot be listed", path);
    for (uint32_t i = 0; i < k.count; i++) {
        char *full = mem_printf("%s/%s", path, k.names[i]);
        for (uint32_t t = 0; t < k.shown[i].twin_count && w->shard_count == 1; t++) {
            struct vector_oid *a = vector_find_oid(w->v, k.shown[i].oid);
            vector_join(w->v, a, vector_find_oid(w->v, k.shown[i].twins[t]));
            vector_join(w->v, a, vector_find_oid(w->v, dir));
        }
        check_lookup(w, dir, k.names[i], &k.shown[i]);
        count += walk_entry(w, full, &k.shown[i]);
        mem_free(full);
        mem_free(k.names[i]);
    }
    mem_free(k.names);
    mem_free(k.shown);
    return count;
}

static void on_violation(void *ctx, const char *what)
{
    (void)complain(ctx, "invariant", what);
}

static int compare(struct world *w)
{
    uint32_t count = walk_dir(w, "", OID_ROOT);
    if (count != json_object_size(w->v->tree))
        (void)complain(w, "names are missing", "tree");
    for (unsigned s = 0; s < w->shard_count; s++)
        if (merge_check(w->shards[s], on_violation, w) != 0)
            (void)complain(w, "cannot be checked", "state");
    return w->errors == 0 ? 0 : 1;
}

/* ---- worlds ---- */

static void shard_open(struct world *w, unsigned s, struct state_store *store)
{
    int rc = state_open(&w->states[s], store);
    ASSERT(rc == 0);
    w->ports[s] = (struct world_port){.world = w, .from = (shard_id_t)s};
    struct merge_config c = {.shard = (shard_id_t)s,
                             .shard_count = w->shard_count,
                             .site = (site_id_t)w->v->sites[w->site].name,
                             .state = w->states[s],
                             .events = {.send = on_send, .ctx = &w->ports[s]},
                             .site_name = site_letter};
    rc = merge_open(&w->shards[s], &c);
    ASSERT(rc == 0);
}

static void shard_close(struct world *w, unsigned s)
{
    merge_free(w->shards[s]);
    state_free(w->states[s]);
    w->shards[s] = NULL;
    w->states[s] = NULL;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void on_disk_open(struct world *w, const char *dir)
{
    struct state_store store;
    struct err_detail detail = {.text = ""};
    int rc = state_store_rocks_open(&store, dir, 1 << 20, &detail);
    if (rc != 0)
        (void)fprintf(stderr, "%s\n", detail.text);
    ASSERT(rc == 0);
    shard_open(w, 0, &store);
}

static void write_down(struct world *w, uint64_t index)
{
    state_advance(w->states[0], index);
    if (!state_freeze(w->states[0]))
        return;
    int rc = state_write_frozen(w->states[0], NULL);
    ASSERT(rc == 0);
    state_thaw(w->states[0]);
}

int vector_run_one(struct vector *v, uint32_t site, bool on_disk)
{
    struct world w = {.v = v, .site = site, .shard_count = 1};
    const struct vector_site *s = &v->sites[site];
    /* What is asked is what the state holds, not whether it outlasts a loss of power: where files
     * are in memory it is asked ten times as fast. */
    char dir[32] = "/dev/shm/merge-vectors-XXXXXX";
    if (access("/dev/shm", W_OK) != 0)
        (void)snprintf(dir, sizeof dir, "/tmp/merge-vectors-XXXXXX");
    if (on_disk) {
        char *made = mkdtemp(dir);
        ASSERT(made != NULL);
        on_disk_open(&w, dir);
    } else {
        shard_open(&w, 0, NULL);
    }
    for (uint32_t i = 0; i < s->count; i++) {
        int rc = merge_apply(w.shards[0], &v->ops[s->order[i]].op);
        ASSERT(rc == 0);
        if (on_disk && (i == s->count / 3 || i == s->count / 2))
            write_down(&w, i + 1);
        if (on_disk && i == s->count / 2) { /* as after a restart */
            shard_close(&w, 0);
            on_disk_open(&w, dir);
        }
    }
    int bad = compare(&w);
    shard_close(&w, 0);
    if (on_disk && nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        (void)fprintf(stderr, "cannot remove %s\n", dir);
    return bad;
}

static struct queue *op_queue(struct world *w, const struct op *op, shard_id_t to)
{
    size_t pair = (size_t)op->dot.shard * w->shard_count + to;
    return &w->queues[1][pair * 256 + (op->dot.site & 255)];
}

/* Applies the head of a queue if it is ready. */
static bool deliver(struct world *w, struct queue *q, shard_id_t to, bool first)
{
    struct merge *shard = w->shards[to];
    const struct op *op = q->head->op;
    if (!merge_ready(shard, op, NULL))
        return false;
    int rc = merge_apply(shard, op);
    ASSERT(rc == 0);
    struct shard_set set;
    op_shards(op, &set);
    for (unsigned s = 0; first && s < w->shard_count; s++)
        if (s != to && shard_set_has(&set, (shard_id_t)s))
            push(w, op_queue(w, op, (shard_id_t)s), op, slice_of(NULL, 0));
    pop(w, q);
    return true;
}

static bool deliver_derived(struct world *w, struct queue *q, shard_id_t to)
{
    int rc = merge_apply_derived(w->shards[to], buf_slice(&q->head->derived));
    ASSERT(rc == 0);
    if (draw(w) % 8 != 0) /* else it comes once more, as after a crash */
        pop(w, q);
    return true;
}

static bool try_queue(struct world *w, unsigned kind, size_t i)
{
    struct queue *q = &w->queues[kind][i];
    if (q->head == NULL)
        return false;
    if (kind == 0)
        return deliver(w, q, q->head->op->dot.shard, true);
    if (kind == 1)
        return deliver(w, q, (shard_id_t)(i / 256 % w->shard_count), false);
    return deliver_derived(w, q, (shard_id_t)(i % w->shard_count));
}

/* One delivery from a random place; the order of queues gives each a fair chance. */
static bool step(struct world *w)
{
    unsigned kind = (unsigned)(draw(w) % 3);
    for (unsigned t = 0; t < 3; t++, kind = (kind + 1) % 3) {
        size_t count = w->queue_counts[kind];
        size_t start = draw(w) % count;
        for (size_t i = 0; i < count; i++)
            if (try_queue(w, kind, (start + i) % count))
                return true;
    }
    return false;
}

int vector_run_sharded(struct vector *v, uint32_t site, unsigned shard_count, uint64_t seed)
{
    struct world w = {.v = v, .site = site, .shard_count = shard_count, .rng = seed * 2 + 1};
    const struct vector_site *s = &v->sites[site];
    w.queue_counts[0] = (size_t)shard_count * 256;
    w.queue_counts[1] = (size_t)shard_count * shard_count * 256;
    w.queue_counts[2] = (size_t)shard_count * shard_count;
    for (int k = 0; k < 3; k++)
        w.queues[k] = mem_calloc(w.queue_counts[k], sizeof(struct queue));
    for (unsigned i = 0; i < shard_count; i++)
        shard_open(&w, i, NULL);
    for (uint32_t i = 0; i < s->count; i++) {
        const struct op *op = &v->ops[s->order[i]].op;
        push(&w, &w.queues[0][op->dot.shard * 256u + (op->dot.site & 255)], op, slice_of(NULL, 0));
    }
    while (w.waiting > 0)
        if (!step(&w)) {
            (void)complain(&w, "deliveries wait for each other", "queues");
            break;
        }
    int bad = compare(&w);
    for (unsigned i = 0; i < shard_count; i++)
        shard_close(&w, i);
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < w.queue_counts[k]; i++)
            while (w.queues[k][i].head != NULL)
                pop(&w, &w.queues[k][i]);
        mem_free(w.queues[k]);
    }
    return bad;
}
