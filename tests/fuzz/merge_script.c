#include "tests/fuzz/merge_script.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/codec.h"

uint8_t script_next(struct script *w)
{
    return w->at < w->end ? *w->at++ : 0;
}

/* An error of the engine is right only when its rows were damaged; and then nothing more is asked.
 */
static bool good(struct script *w, int rc)
{
    ASSERT(rc == 0 || w->damaged);
    w->refused = w->refused || rc != 0;
    return rc == 0;
}

static void letter(void *ctx, site_id_t site, char out[33])
{
    (void)ctx;
    out[0] = (char)('A' + site % 26);
    out[1] = '\0';
}

static void on_send(void *ctx, shard_id_t to, struct slice derived)
{
    struct script_port *p = ctx;
    struct script *w = p->script;
    if (w->queued == SCRIPT_QUEUE_MAX)
        return;
    buf_append(&w->queue[w->queued], derived.ptr, derived.len);
    w->queue_to[w->queued++] = (uint8_t)to;
}

static void attach(struct script *w, unsigned i)
{
    w->ports[i] = (struct script_port){.script = w, .from = i};
    struct merge_config c = {.shard = (shard_id_t)i,
                             .shard_count = SCRIPT_SHARDS,
                             .site = 1,
                             .state = w->states[i],
                             .site_name = letter,
                             .events = {.send = on_send, .ctx = &w->ports[i]}};
    w->shards[i] = NULL;
    (void)good(w, merge_open(&w->shards[i], &c));
}

static void detach(struct script *w)
{
    for (unsigned i = 0; i < SCRIPT_SHARDS; i++) {
        if (w->shards[i] != NULL)
            merge_free(w->shards[i]);
        w->shards[i] = NULL;
    }
}

void script_reopen(struct script *w)
{
    detach(w);
    for (unsigned i = 0; i < SCRIPT_SHARDS && !w->refused; i++)
        attach(w, i);
}

void script_init(struct script *w, const uint8_t *data, size_t size)
{
    *w = (struct script){.at = data, .end = data + size};
    for (unsigned i = 0; i < SCRIPT_SHARDS; i++) {
        int rc = state_open(&w->states[i], NULL);
        ASSERT(rc == 0);
    }
    script_reopen(w);
}

void script_deinit(struct script *w)
{
    detach(w);
    for (unsigned i = 0; i < SCRIPT_SHARDS; i++)
        state_free(w->states[i]);
    for (uint32_t i = 0; i < w->queued; i++)
        buf_deinit(&w->queue[i]);
    op_arena_deinit(&w->arena);
}

static struct oid draw_file(struct script *w)
{
    uint8_t b = script_next(w);
    return oid_file(b % SCRIPT_SHARDS, OID_FILE, 1 + b / 2 % 2, b / 4 % 3);
}

static struct oid draw_dir(struct script *w)
{
    uint8_t b = script_next(w);
    uint8_t hash[12] = {(uint8_t)(1 + b / 2 % 4)};
    return b % 5 == 0 ? OID_ROOT : oid_dir(b % SCRIPT_SHARDS, hash);
}

static struct slice draw_name(struct script *w)
{
    static const char *const names[] = {"a", "b", "a.conflict-B-00000001", "c.txt"};
    return slice_str(names[script_next(w) % 4]);
}

static const struct dot *draw_dots(struct script *w, uint32_t *ret_count)
{
    uint32_t count = script_next(w) % 3;
    struct dot *dots = op_alloc(&w->arena, count * sizeof *dots);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t b = script_next(w);
        dots[i] =
            (struct dot){.shard = b % SCRIPT_SHARDS, .site = 1 + b / 2 % SCRIPT_SITES, .seq = 1};
        dots[i].seq += script_next(w) % 16;
    }
    *ret_count = count;
    return dots;
}

static struct reg draw_reg(struct script *w)
{
    static const uint8_t keys[] = "pamxA";
    static const uint8_t named[] = "xuser.a";
    struct reg r = {.present = true,
                    .stamp = {.hlc = script_next(w), .site = script_next(w) % SCRIPT_SITES}};
    struct buf b = {.ptr = NULL};
    uint8_t kind = script_next(w) % 4;
    r.key = kind == 3 ? slice_of(named, 7) : slice_of(keys + kind, 1);
    if (kind == 0) {
        struct perm p = {.mode = script_next(w) & 0777};
        perm_encode(&p, &b);
    } else {
        enc_u64(&b, script_next(w));
    }
    r.value = op_dup(&w->arena, buf_slice(&b));
    buf_deinit(&b);
    return r;
}

static struct content draw_content(struct script *w)
{
    struct content c = {.kind = CONTENT_INLINE, .size = script_next(w) % 3, .bytes = {.len = 0}};
    return c;
}

static void draw_move(struct script *w, struct effect *e)
{
    struct birth *births = op_alloc(&w->arena, 3 * sizeof *births);
    e->lineage_count = script_next(w) % 4;
    for (uint32_t i = 0; i < e->lineage_count; i++) {
        births[i] = (struct birth){.oid = draw_dir(w), .parent = draw_dir(w)};
        births[i].name = draw_name(w);
    }
    e->lineage = births;
}

static void draw_effect(struct script *w, struct effect *e)
{
    e->kind = (enum effect_kind)(EFFECT_ENTER + script_next(w) % (EFFECT_KIND_END - EFFECT_ENTER));
    bool dir = e->kind == EFFECT_BIRTH || e->kind == EFFECT_REVIVE || e->kind == EFFECT_BURY ||
               e->kind == EFFECT_MOVE || (e->kind == EFFECT_SET && script_next(w) % 2);
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
        e->loser_stamp = (struct stamp){.hlc = script_next(w), .site = 1};
        if (script_next(w) % 2)
            e->to = oid_file(oid_shard(e->oid), OID_FILE, 2, script_next(w) % 4u);
    }
}

static void on_violation(void *ctx, const char *what)
{
    struct script *w = ctx;
    if (w->damaged)
        return;
    (void)fprintf(stderr, "violated: %s\n", what);
    abort();
}

/* Derived messages are not lost while there is room for them. */
static void handle_derived(struct script *w)
{
    while (w->handled < w->queued && !w->refused) {
        uint32_t i = w->handled++;
        (void)good(w, merge_apply_derived(w->shards[w->queue_to[i]], buf_slice(&w->queue[i])));
    }
}

static void apply(struct script *w, const struct op *op)
{
    struct shard_set set;
    op_shards(op, &set);
    for (unsigned i = 0; i < SCRIPT_SHARDS; i++)
        if (!merge_ready(w->shards[i], op, NULL))
            return;
    for (unsigned i = 0; i < SCRIPT_SHARDS && !w->refused; i++)
        if (shard_set_has(&set, (shard_id_t)i))
            (void)good(w, merge_apply(w->shards[i], op));
}

void script_op(struct script *w)
{
    struct effect effects[3] = {{.kind = EFFECT_ENTER}};
    uint8_t b = script_next(w);
    struct op op = {.stamp = {.hlc = ++w->hlc, .site = 1 + b / 2 % SCRIPT_SITES},
                    .effects = effects};
    op.dot = (struct dot){.shard = b % SCRIPT_SHARDS, .site = op.stamp.site};
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

void script_repairs(struct script *w)
{
    struct repair_due due = {.due_before_hlc = UINT64_MAX};
    uint32_t rounds = 0;
    for (unsigned i = 0; i < SCRIPT_SHARDS && !w->refused; i++) {
        struct op_builder b = {.effects = NULL};
        while (!w->refused && merge_repair(w->shards[i], &due, &b, NULL)) {
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

void script_collect(struct script *w)
{
    (void)merge_collect(w->shards[script_next(w) % SCRIPT_SHARDS], w->hlc / 2, 8, NULL, NULL);
}

static bool list_name(void *ctx, struct slice visible, const struct shown *s)
{
    uint32_t *count = ctx;
    (void)s;
    ASSERT(visible.len > 0);
    ++*count;
    return true;
}

void script_look(struct script *w)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < SCRIPT_SHARDS && !w->refused; i++)
        (void)good(w, merge_check(w->shards[i], on_violation, w));
    if (w->refused ||
        !good(w, merge_list(w->shards[0], OID_ROOT, slice_of(NULL, 0), list_name, &count)))
        return;
    bool empty = merge_dir_empty(w->shards[0], OID_ROOT);
    ASSERT(empty == (count == 0) || w->damaged);
}
