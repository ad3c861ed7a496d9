/* Evaluating requests: waiting for what is latched or not durable, latching, proposing. */
#include "site/call.h"

#include <string.h>

#include "base/assert.h"
#include "base/plant.h"
#include "site/node_int.h"

struct merge *merge_of(struct node *n, struct oid oid)
{
    return shard_merge(shard_of(n, oid));
}

static void parked_run(struct shard_wait *w)
{
    struct call *c = CONTAINER_OF(w, struct call, wait);
    node_run_later(c->n, c);
}

/* One index a shard will do: the highest. */
static void saw(struct call *c, struct shard *s, uint64_t index)
{
    uint32_t i = 0;
    while (i < c->saw_count && c->saw[i].shard != s)
        i++;
    if (index == 0)
        return;
    if (i == CALL_SAW_MAX) { /* too many to remember: it has to be durable now */
        call_hold_durable(c, s, index);
        return;
    }
    c->saw_count = MAX(c->saw_count, i + 1);
    c->saw[i].index = c->saw[i].shard == s ? MAX(c->saw[i].index, index) : index;
    c->saw[i].shard = s;
}

void call_saw(struct call *c, struct oid oid, struct slice name)
{
    struct shard *s = shard_of(c->n, oid);
    saw(c, s, shard_mark(s, touch_key(oid, name)));
    if (name.len > 0)
        saw(c, s, shard_mark(s, touch_key(oid, SHARD_ANY_NAME)));
}

void call_show_error(struct call *c)
{
    for (uint32_t i = 0; i < c->saw_count && !PLANTED(35); i++)
        call_hold_durable(c, c->saw[i].shard, c->saw[i].index);
}

static int need(struct call *c, struct shard *home, struct shard *s, uint64_t key)
{
    c->wait.run = parked_run;
    saw(c, s, shard_mark(s, key));
    c->foreign = c->foreign || !shard_mark_is_of(s, key, c->req.session);
    if (shard_latched(s, key)) {
        shard_wait_latch(s, key, &c->wait);
        return CALL_PARKED;
    }
    uint64_t index = s == home ? 0 : shard_mark(s, key);
    if (index != 0) {
        shard_wait_durable(s, index, &c->wait);
        return CALL_PARKED;
    }
    return 0;
}

int call_need_name(struct call *c, struct shard *home, struct oid parent, struct slice name)
{
    struct shard *s = shard_of(c->n, parent);
    int rc = need(c, home, s, touch_key(parent, name));
    return rc != 0 ? rc : need(c, home, s, touch_key(parent, SHARD_ANY_NAME));
}

int call_need_object(struct call *c, struct shard *home, struct oid oid)
{
    int rc = call_await_holder(c, oid);
    return rc != 0 ? rc : need(c, home, shard_of(c->n, oid), touch_key(oid, slice_of(NULL, 0)));
}

static void word_came(struct call *c)
{
    for (unsigned i = 0; i < ARRAY_COUNT(c->words); i++) {
        if (c->words[i].shard != NULL)
            shard_wait_applied_cancel(c->words[i].shard, &c->words[i].wait);
        c->words[i].shard = NULL;
    }
    node_run_later(c->n, c);
}

static void first_word_came(struct shard_wait *w)
{
    word_came(CONTAINER_OF(w, struct call, words[0].wait));
}

static void second_word_came(struct shard_wait *w)
{
    word_came(CONTAINER_OF(w, struct call, words[1].wait));
}

int call_await_word(struct call *c, struct shard *first, struct shard *second)
{
    c->words[0].wait.run = first_word_came;
    c->words[1].wait.run = second_word_came;
    c->words[0].shard = first;
    c->words[1].shard = second != first ? second : NULL;
    for (unsigned i = 0; i < ARRAY_COUNT(c->words); i++)
        if (c->words[i].shard != NULL)
            shard_wait_applied(c->words[i].shard, &c->words[i].wait);
    return CALL_PARKED;
}

void call_hold(struct call *c)
{
    c->holds++;
}

void call_release(struct call *c)
{
    ASSERT(c->holds > 0);
    c->holds--;
    if (!c->evaluated)
        return;
    if (c->holds == 0)
        node_call_finish(c);
    else if (call_may_go_ahead(c))
        node_call_ahead(c);
}

struct durable_hold {
    struct shard_wait wait;
    struct call *call;
};

static void durable_hold_run(struct shard_wait *w)
{
    struct durable_hold *h = CONTAINER_OF(w, struct durable_hold, wait);
    struct call *c = h->call;
    mem_free(h);
    c->durable_holds--;
    call_release(c);
}

static void show(struct call *c, struct shard *s, uint64_t key)
{
    c->foreign = c->foreign || !shard_mark_is_of(s, key, c->req.session);
    call_hold_durable(c, s, shard_mark(s, key));
}

void call_show(struct call *c, struct oid oid, struct slice name)
{
    struct shard *s = shard_of(c->n, oid);
    show(c, s, touch_key(oid, name));
    if (name.len > 0)
        show(c, s, touch_key(oid, SHARD_ANY_NAME));
}

void call_hold_durable(struct call *c, struct shard *s, uint64_t index)
{
    if (index <= shard_committed(s))
        return;
    struct durable_hold *h = mem_calloc(1, sizeof *h);
    h->call = c;
    h->wait.run = durable_hold_run;
    call_hold(c);
    c->durable_holds++;
    shard_wait_durable(s, index, &h->wait);
}

bool call_may_go_ahead(const struct call *c)
{
    return c->req.ahead && (!c->foreign || PLANTED(84)) && !c->told && c->reply.rc == 0 &&
           (c->latch_count == 0 || PLANTED(85)) && (c->holds == c->durable_holds || PLANTED(88)) &&
           c->req.session != 0;
}

void call_latch(struct call *c, struct shard *s, uint64_t key)
{
    for (uint32_t i = 0; i < c->latch_count; i++)
        if (c->latches[i].shard == s && c->latches[i].key == key)
            return;
    ASSERT(c->latch_count < CALL_LATCHES_MAX);
    shard_latch(s, key);
    c->latches[c->latch_count].shard = s;
    c->latches[c->latch_count++].key = key;
}

/* One part of an effect: first all are checked (waiting while holding a latch could deadlock), then
 * all are latched, which cannot fail. */
static int
latch_part(struct call *c, struct shard *home, struct oid oid, struct slice name, bool check)
{
    struct shard *s = shard_of(c->n, oid);
    uint64_t key = touch_key(oid, name);
    /* What the change takes along unasked, twins and losers of a name, counts as read. */
    if (s == home && check)
        c->foreign =
            c->foreign || !shard_mark_is_of(s, key, c->req.session) ||
            (name.len > 0 && !shard_mark_is_of(s, touch_key(oid, SHARD_ANY_NAME), c->req.session));
    if (s == home)
        return 0;
    for (uint32_t i = 0; i < c->latch_count; i++)
        if (c->latches[i].shard == s && c->latches[i].key == key)
            return 0;
    if (check)
        return need(c, home, s, key);
    if (c->latch_count == CALL_LATCHES_MAX)
        return ERR_LIMIT;
    call_latch(c, s, key);
    return 0;
}

static void unlatch_all(struct call *c)
{
    while (c->latch_count > 0) {
        c->latch_count--;
        shard_unlatch(c->latches[c->latch_count].shard, c->latches[c->latch_count].key);
    }
}

static int latch_effect(struct call *c, struct shard *home, const struct effect *e, bool check)
{
    struct slice none = {0};
    int rc;
    switch (e->kind) {
    case EFFECT_ENTER:
    case EFFECT_LEAVE:
        rc = latch_part(c, home, e->parent, e->name, check);
        return rc != 0 ? rc : latch_part(c, home, e->oid, none, check);
    case EFFECT_MOVE:
        return latch_part(c, home, e->parent, e->name, check);
    case EFFECT_BIRTH: /* nobody knows it yet */
        return 0;
    case EFFECT_VERSION:
    case EFFECT_FORK:
    case EFFECT_REVIVE:
    case EFFECT_BURY:
    case EFFECT_SET:
        return latch_part(c, home, e->oid, none, check);
    case EFFECT_KIND_END:
        break;
    }
    UNREACHABLE();
}

int call_latch_effects(struct call *c, struct shard *home)
{
    int rc = 0;
    for (uint32_t i = 0; i < c->b.count && rc == 0; i++)
        rc = latch_effect(c, home, &c->b.effects[i], true);
    for (uint32_t i = 0; i < c->b.count && rc == 0; i++)
        rc = latch_effect(c, home, &c->b.effects[i], false);
    if (rc != 0)
        unlatch_all(c);
    return rc;
}

static void committed(void *ctx, int rc)
{
    struct call *c = ctx;
    c->committed_rc = rc;
    node_inval_flush(c->n, c); /* what the deliveries changed */
    unlatch_all(c);
    c->durable_holds--;
    call_release(c);
}

int call_propose(struct call *c, struct shard *home, struct oid result, struct op *ret_op)
{
    struct proposal p = {.session = c->req.session,
                         .number = c->req.number,
                         .result = result,
                         .committed = committed,
                         .is_call = true,
                         .time_ns = c->now_ns,
                         .ctx = c};
    int rc = call_latch_effects(c, home);
    if (rc != 0)
        return rc;
    node_effects_begin(c->n, c);
    call_hold(c);
    c->durable_holds++;
    rc = shard_propose(home, &c->b, &p, ret_op);
    node_effects_end(c->n, c);
    if (rc != 0) {
        c->holds--;
        c->durable_holds--;
        unlatch_all(c);
    }
    return rc;
}

struct slice call_keep(struct call *c, struct slice s)
{
    return op_dup(&c->arena, s);
}
