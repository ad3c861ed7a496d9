/* Operations that decode but make no sense: the engine of two shards takes whatever a peer may say
 * (P9), keeps its invariants, finds an end to its own repairs, and says the same after a restart.
 * The input is a script; every operation goes through the encoder and the decoder first. */
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/codec.h"
#include "journal/merge.h"
#include "tests/fuzz/fuzz.h"

enum {
    SHARDS = 2,
    SITES = 3,
    QUEUE_MAX = 4096
};

struct world {
    const uint8_t *at, *end;
    struct state *states[SHARDS];
    struct merge *shards[SHARDS];
    struct port {
        struct world *world;
        unsigned from;
    } ports[SHARDS];
    struct buf queue[QUEUE_MAX]; /* derived messages, in order */
    uint8_t queue_to[QUEUE_MAX];
    uint32_t queued, handled;
    uint64_t hlc;
    struct op_arena arena;
};

static uint8_t next(struct world *w)
{
    return w->at < w->end ? *w->at++ : 0;
}

static void letter(void *ctx, site_id_t site, char out[33])
{
    (void)ctx;
    out[0] = (char)('A' + site % 26);
    out[1] = '\0';
}

static void on_send(void *ctx, shard_id_t to, struct slice derived)
{
    struct port *p = ctx;
    struct world *w = p->world;
    if (w->queued == QUEUE_MAX)
        return;
    buf_append(&w->queue[w->queued], derived.ptr, derived.len);
    w->queue_to[w->queued++] = (uint8_t)to;
}

static void attach(struct world *w, unsigned i)
{
    w->ports[i] = (struct port){.world = w, .from = i};
    struct merge_config c = {.shard = (shard_id_t)i,
                             .shard_count = SHARDS,
                             .site = 1,
                             .state = w->states[i],
                             .site_name = letter,
                             .events = {.send = on_send, .ctx = &w->ports[i]}};
    int rc = merge_open(&w->shards[i], &c);
    ASSERT(rc == 0);
}

static struct oid draw_file(struct world *w)
{
    uint8_t b = next(w);
    return oid_file(b % SHARDS, OID_FILE, 1 + b / 2 % 2, b / 4 % 3);
}

static struct oid draw_dir(struct world *w)
{
    uint8_t b = next(w);
    uint8_t hash[12] = {(uint8_t)(1 + b / 2 % 4)};
    return b % 5 == 0 ? OID_ROOT : oid_dir(b % SHARDS, hash);
}

static struct slice draw_name(struct world *w)
{
    static const char *const names[] = {"a", "b", "a.conflict-B-00000001", "c.txt"};
    return slice_str(names[next(w) % 4]);
}

static const struct dot *draw_dots(struct world *w, uint32_t *ret_count)
{
    uint32_t count = next(w) % 3;
    struct dot *dots = op_alloc(&w->arena, count * sizeof *dots);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t b = next(w);
        dots[i] = (struct dot){.shard = b % SHARDS, .site = 1 + b / 2 % SITES, .seq = 1};
        dots[i].seq += next(w) % 16;
    }
    *ret_count = count;
    return dots;
}

static struct reg draw_reg(struct world *w)
{
    static const uint8_t keys[] = "pamxA";
    static const uint8_t named[] = "xuser.a";
    struct reg r = {.present = true, .stamp = {.hlc = next(w), .site = next(w) % SITES}};
    struct buf b = {.ptr = NULL};
    uint8_t kind = next(w) % 4;
    r.key = kind == 3 ? slice_of(named, 7) : slice_of(keys + kind, 1);
    if (kind == 0) {
        struct perm p = {.mode = next(w) & 0777};
        perm_encode(&p, &b);
    } else {
        enc_u64(&b, next(w));
    }
    r.value = op_dup(&w->arena, buf_slice(&b));
    buf_deinit(&b);
    return r;
}

static struct content draw_content(struct world *w)
{
    struct content c = {.kind = CONTENT_INLINE, .size = next(w) % 3, .bytes = {.len = 0}};
    return c;
}

static void draw_move(struct world *w, struct effect *e)
{
    struct birth *births = op_alloc(&w->arena, 3 * sizeof *births);
    e->lineage_count = next(w) % 4;
    for (uint32_t i = 0; i < e->lineage_count; i++) {
        births[i] = (struct birth){.oid = draw_dir(w), .parent = draw_dir(w)};
        births[i].name = draw_name(w);
    }
    e->lineage = births;
}

static void draw_effect(struct world *w, struct effect *e)
{
    e->kind = (enum effect_kind)(EFFECT_ENTER + next(w) % (EFFECT_KIND_END - EFFECT_ENTER));
    bool dir = e->kind == EFFECT_BIRTH || e->kind == EFFECT_REVIVE || e->kind == EFFECT_BURY ||
               e->kind == EFFECT_MOVE || (e->kind == EFFECT_SET && next(w) % 2);
    e->oid = dir ? draw_dir(w) : draw_file(w);
    e->parent = draw_dir(w);
    e->name = draw_name(w);
    e->dots = draw_dots(w, &e->dot_count);
    e->content = draw_content(w);
    e->set = draw_reg(w);
    if (e->kind == EFFECT_LEAVE)
        e->seen = draw_dots(w, &e->seen_count);
    if (e->kind == EFFECT_BIRTH)
        e->birth = (struct birth){.oid = e->oid, .parent = e->parent, .name = e->name};
    if (e->kind == EFFECT_MOVE)
        draw_move(w, e);
    if (e->kind == EFFECT_FORK) {
        uint32_t count;
        const struct dot *dots = draw_dots(w, &count);
        e->loser = count > 0 ? dots[0] : (struct dot){.shard = 0, .site = 1, .seq = 1};
        e->loser_stamp = (struct stamp){.hlc = next(w), .site = 1};
        if (next(w) % 2)
            e->to = oid_file(oid_shard(e->oid), OID_FILE, 2, next(w) % 4u);
    }
}

static void on_violation(void *ctx, const char *what)
{
    (void)ctx;
    (void)fprintf(stderr, "violated: %s\n", what);
    abort();
}

/* Derived messages are not lost while there is room for them. */
static void handle_derived(struct world *w)
{
    while (w->handled < w->queued) {
        uint32_t i = w->handled++;
        int rc = merge_apply_derived(w->shards[w->queue_to[i]], buf_slice(&w->queue[i]));
        ASSERT(rc == 0);
    }
}

static void apply(struct world *w, const struct op *op)
{
    struct shard_set set;
    op_shards(op, &set);
    for (unsigned i = 0; i < SHARDS; i++)
        if (!merge_ready(w->shards[i], op, NULL))
            return;
    for (unsigned i = 0; i < SHARDS; i++) {
        if (!shard_set_has(&set, (shard_id_t)i))
            continue;
        int rc = merge_apply(w->shards[i], op);
        ASSERT(rc == 0);
    }
}

static void draw_op(struct world *w)
{
    struct effect effects[3] = {{.kind = EFFECT_ENTER}};
    uint8_t b = next(w);
    struct op op = {.stamp = {.hlc = ++w->hlc, .site = 1 + b / 2 % SITES}, .effects = effects};
    op.dot = (struct dot){.shard = b % SHARDS, .site = op.stamp.site};
    op.dot.seq = merge_seen(w->shards[op.dot.shard], op.dot.shard, op.dot.site) + 1;
    op.effect_count = 1 + b / 8 % 3;
    if (b >= 128)
        op.stamp.hlc = w->hlc / 2; /* a late one */
    for (uint32_t i = 0; i < op.effect_count; i++)
        draw_effect(w, &effects[i]);
    struct buf bytes = {.ptr = NULL};
    struct op back;
    op_encode(&op, &bytes);
    if (op_decode(buf_slice(&bytes), &w->arena, &back) == 0)
        apply(w, &back);
    buf_deinit(&bytes);
    handle_derived(w);
}

static void run_repairs(struct world *w)
{
    struct repair_due due = {.due_before_hlc = UINT64_MAX};
    uint32_t rounds = 0;
    for (unsigned i = 0; i < SHARDS; i++) {
        struct op_builder b = {.effects = NULL};
        while (merge_repair(w->shards[i], &due, &b, NULL)) {
            struct op op = {.dot = {.shard = (shard_id_t)i, .site = 1},
                            .stamp = {.hlc = ++w->hlc, .site = 1},
                            .effects = b.effects,
                            .effect_count = b.count};
            op.dot.seq = merge_seen(w->shards[i], (shard_id_t)i, 1) + 1;
            apply(w, &op);
            op_builder_deinit(&b);
            handle_derived(w);
            ASSERT(++rounds < 10000);
        }
        op_builder_deinit(&b);
    }
}

static bool list_name(void *ctx, struct slice visible, const struct shown *s)
{
    uint32_t *count = ctx;
    (void)s;
    ASSERT(visible.len > 0);
    ++*count;
    return true;
}

static void look(struct world *w)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < SHARDS; i++) {
        int rc = merge_check(w->shards[i], on_violation, NULL);
        ASSERT(rc == 0);
    }
    int rc = merge_list(w->shards[0], OID_ROOT, slice_of(NULL, 0), list_name, &count);
    ASSERT(rc == 0);
    ASSERT(merge_dir_empty(w->shards[0], OID_ROOT) == (count == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world *w = mem_calloc(1, sizeof *w);
    w->at = data;
    w->end = data + size;
    for (unsigned i = 0; i < SHARDS; i++) {
        int rc = state_open(&w->states[i], NULL);
        ASSERT(rc == 0);
        attach(w, i);
    }
    for (int ops = 0; w->at < w->end && ops < 200; ops++) {
        draw_op(w);
        if (next(w) % 16 == 0)
            run_repairs(w);
        if (next(w) % 32 == 0)
            (void)merge_collect(w->shards[next(w) % SHARDS], w->hlc / 2, 8, NULL, NULL);
    }
    run_repairs(w);
    look(w);
    for (unsigned i = 0; i < SHARDS; i++) {
        merge_free(w->shards[i]);
        attach(w, i);
    }
    look(w);
    for (unsigned i = 0; i < SHARDS; i++) {
        merge_free(w->shards[i]);
        state_free(w->states[i]);
    }
    for (uint32_t i = 0; i < w->queued; i++)
        buf_deinit(&w->queue[i]);
    op_arena_deinit(&w->arena);
    mem_free(w);
    return 0;
}
