/* What a site has has its causes, whichever leader is lost (N8, S6). See trio.h.
 *
 * Each committed operation is looked at once: what it names in other shards has to be
 * committed there when that shard is led the next time. Later would not do: with the leader goes
 * what was under way. */
#include "base/assert.h"
#include "base/codec.h"
#include "sim/trio_int.h"
#include "site/record.h"

struct named {
    struct trio *w;
    shard_id_t home;
};

static bool name_one(void *ctx, struct dot d)
{
    const struct named *n = ctx;
    struct trio_causes *c = &n->w->causes;
    if (d.shard == n->home || d.shard >= n->w->shard_count)
        return true;
    if (c->count == c->cap) {
        c->cap = c->cap * 2 + 64;
        c->named = mem_realloc(c->named, c->cap * sizeof c->named[0]);
    }
    c->named[c->count++] = d;
    return true;
}

static void op_see(struct trio *w, unsigned shard, struct slice encoded)
{
    struct op_arena arena = {0};
    struct named n = {.w = w, .home = (shard_id_t)shard};
    struct op op;
    if (op_decode(encoded, &arena, &op) == 0 && op.dot.shard == shard) {
        struct vv *have = &w->causes.have[shard];
        if (vv_get(have, op.dot.site) < op.dot.seq && vv_set(have, op.dot.site, op.dot.seq) != 0)
            trio_fail(w, "setup", "too many sites");
        (void)op_dots_applied(&op, name_one, &n, NULL); /* only gathers */
    }
    op_arena_deinit(&arena);
}

void trio_cause_see(struct trio *w, unsigned shard, struct slice payload)
{
    struct record r;
    if (w->all->site_count == 1 || record_decode(payload, &r) != 0)
        return;
    struct dec d = dec_of(r.body);
    struct slice op;
    if (r.type == RECORD_OP)
        op_see(w, shard, r.body);
    for (uint32_t i = 0; record_op_next(&r, i, &d, &op); i++)
        op_see(w, shard, op);
}

void trio_cause_check(struct trio *w, unsigned shard)
{
    struct trio_causes *c = &w->causes;
    size_t kept = 0;
    for (size_t i = 0; i < c->count; i++) {
        struct dot d = c->named[i];
        if (d.shard != shard)
            c->named[kept++] = d;
        else if (vv_get(&c->have[shard], d.site) < d.seq)
            trio_fail(w, "P7", "operation %llu of %08x in shard %u is named by another one here",
                      (unsigned long long)d.seq, d.site, shard);
    }
    c->count = kept;
}
