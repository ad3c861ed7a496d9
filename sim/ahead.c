/* Mounts whose changes are answered ahead of the disk. See ahead.h. */
#include "sim/ahead.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/codec.h"
#include "sim/lin.h"
#include "sim/opens.h"
#include "sim/workload_int.h"
#include "sim/world_int.h"

#define AGAIN_NS (10 * NS_PER_MS) /* until a node that was not ready is asked again */
#define BACK_NS (2 * NS_PER_SEC)  /* a node that was struck is back within this */
#define AGAIN_STRIKE_NS (NS_PER_MS / 2)

static uint64_t draw_ahead(struct mount *m, uint64_t n)
{
    return rng_below(&m->ahead.rng, n);
}

void ahead_init(struct mount *m)
{
    conn_seq_init(&m->ahead.seq);
    conn_ahead_init(&m->ahead.kept, &m->ahead.seq);
}

void ahead_choose(struct mount *m, uint64_t seed, uint64_t window_ns)
{
    struct ahead *a = &m->ahead;
    rng_seed(&a->rng, seed ^ (UINT64_C(0xa4ead) << 32 | m->number));
    a->on = draw_ahead(m, 2) == 0;
    a->window_ns = window_ns;
    a->strikes_left = 2 + (unsigned)draw_ahead(m, 6);
}

static void number_end(struct mount *m)
{
    struct ahead *a = &m->ahead;
    if (a->numbered)
        conn_seq_end(&a->seq, &a->number);
    a->numbered = false;
}

void ahead_deinit(struct mount *m)
{
    struct ahead *a = &m->ahead;
    sched_cancel(&a->event);
    number_end(m);
    conn_ahead_deinit(&a->kept);
    conn_seq_deinit(&a->seq);
    buf_deinit(&a->e.body);
    op_arena_deinit(&a->arena);
}

/* --- strikes --- */

static void strike_run(struct sched_event *e)
{
    struct mount *m = CONTAINER_OF(e, struct mount, ahead.event);
    struct ahead *a = &m->ahead;
    if (sched->now_ns >= m->until_ns) /* faults are over */
        return;
    a->strikes_left--;
    sched_note("strike", m->number, a->strike);
    if (a->strike == AHEAD_STRIKE_MOUNT || a->strike == AHEAD_STRIKE_BOTH)
        mount_dies(m, 100 * NS_PER_MS + draw_ahead(m, 2 * NS_PER_SEC));
    if (a->strike != AHEAD_STRIKE_MOUNT)
        world_strike(m->process->machine.site, a->strike != AHEAD_STRIKE_PROCESS,
                     draw_ahead(m, BACK_NS));
}

/* In one of `rarely` cases, within `within_ns`. */
static void strike_draw(struct mount *m, uint64_t rarely, uint64_t within_ns)
{
    static const enum ahead_strike kinds[] = {
        AHEAD_STRIKE_POWER, AHEAD_STRIKE_POWER, AHEAD_STRIKE_POWER,   AHEAD_STRIKE_BOTH,
        AHEAD_STRIKE_BOTH,  AHEAD_STRIKE_MOUNT, AHEAD_STRIKE_PROCESS, AHEAD_STRIKE_POWER};
    struct ahead *a = &m->ahead;
    if (a->strikes_left == 0 || sched_waits(&a->event) || draw_ahead(m, rarely) > 0)
        return;
    a->strike = kinds[draw_ahead(m, ARRAY_COUNT(kinds))];
    a->event.run = strike_run;
    sched_in(&a->event, draw_ahead(m, within_ns + 1));
}

/* --- calls --- */

bool ahead_sync_next(struct mount *m)
{
    if (!m->ahead.on || draw_ahead(m, 16) > 0)
        return false;
    m->type = RPC_SYNC;
    m->in_own = m->again = false;
    if (m->open_count > 0 && draw_ahead(m, 2) == 0)
        m->req.oid = m->open[draw_ahead(m, m->open_count)].oid;
    return true;
}

void ahead_begin(struct mount *m)
{
    struct ahead *a = &m->ahead;
    conn_seq_begin(&a->seq, &a->number);
    a->numbered = true;
    m->req.number = m->next_number = a->number.number;
    m->req.acked = conn_seq_acked(&a->seq);
    if (!a->on)
        return;
    a->fsync = m->type == RPC_COMMIT && draw_ahead(m, 4) == 0;
    m->req.ahead = !a->fsync && conn_ahead_may(&a->kept, (uint16_t)m->type);
}

static bool is_question(unsigned type)
{
    return type == RPC_GETATTR || type == RPC_OPEN;
}

void ahead_encoded(struct mount *m)
{
    struct ahead *a = &m->ahead;
    if (m->req.ahead && !is_question(m->type))
        a->sent = conn_ahead_begin(&a->kept, (uint16_t)m->type, m->req.oid, m->req.number,
                                   buf_slice(&m->body));
}

static void synced(struct mount *m)
{
    m->ahead.synced = m->req.number;
    lin_synced(m);
    strike_draw(m, 5, 0);
}

void ahead_answered(struct mount *m, const struct fs_reply *r)
{
    struct ahead *a = &m->ahead;
    bool told = r->rc == 0 && (r->flags & REPLY_AHEAD) != 0;
    if (told && a->sent == NULL && m->failure[0] == '\0')
        (void)snprintf(m->failure, sizeof m->failure,
                       "call %llu: answered ahead of the disk, and had not asked for it",
                       (unsigned long long)m->req.number); /* fits */
    bool kept = a->sent != NULL && conn_ahead_end(&a->kept, a->sent, told ? r : NULL, &a->number);
    a->sent = NULL;
    if (kept)
        a->numbered = false; /* it goes on with what is kept */
    number_end(m);
    if (r->rc == 0 && m->type == RPC_SYNC)
        synced(m);
    else if (r->rc == 0 && a->on && m->type == RPC_COMMIT && a->fsync)
        strike_draw(m, 5, 0);
    else if (kept)
        strike_draw(m, 24, a->window_ns);
}

void ahead_no_answer(struct mount *m)
{
    struct ahead *a = &m->ahead;
    if (a->sent != NULL)
        (void)conn_ahead_end(&a->kept, a->sent, NULL, NULL); /* not kept */
    a->sent = NULL;
    number_end(m);
}

bool ahead_hurries(struct mount *m)
{
    return m->ahead.on && draw_ahead(m, 4) > 0;
}

/* --- made again --- */

static void aside_put(struct mount *m)
{
    struct ahead *a = &m->ahead;
    a->aside.type = m->type;
    a->aside.req = m->req;
    a->aside.writes = m->writes;
    a->aside.in_own = m->in_own;
    a->aside.again = m->again;
    lin_aside(m);
}

static void aside_take(struct mount *m)
{
    struct ahead *a = &m->ahead;
    m->type = a->aside.type;
    m->req = a->aside.req;
    m->writes = a->aside.writes;
    m->in_own = a->aside.in_own;
    m->again = a->aside.again;
    lin_aside_over(m);
}

static void send_again(struct mount *m)
{
    struct ahead *a = &m->ahead;
    rpc_sim_send(&m->main, a->e.type, a->e.id, buf_slice(&a->e.body), slice_of(NULL, 0));
}

/* The next of what is kept; false: there is none any more. */
static bool next_again(struct mount *m)
{
    struct ahead *a = &m->ahead;
    if (!conn_ahead_next(&a->kept, a->done, &a->e))
        return false;
    op_arena_reset(&a->arena);
    int rc = fs_request_decode(buf_slice(&a->e.body), &a->arena, &m->req);
    ASSERT(rc == 0);
    m->type = a->e.type;
    m->writes = m->req.has_content ? ledger_number(m->ledger, &m->req.content) : 0;
    m->in_own = false;
    m->again = true;
    a->was_there = lin_is_there(m, a->e.id);
    sched_note("made again", (uint64_t)m->number << 32 | a->e.id,
               (uint64_t)a->was_there << 16 | a->e.type);
    lin_begin_again(m);
    send_again(m);
    return true;
}

static void again_over(struct mount *m)
{
    struct ahead *a = &m->ahead;
    a->again = a->behind = a->renewed = false;
    lin_all_made_again(m);
    m->own.version++;
    aside_take(m);
    mount_resume(m);
}

void ahead_joined(struct mount *m, bool new_session)
{
    struct ahead *a = &m->ahead;
    a->renewed = a->renewed || new_session;
    a->behind = a->on && conn_ahead_any(&a->kept);
    if (!a->behind) {
        a->renewed = false;
        mount_resume(m);
        return;
    }
    a->again = true;
    a->done = 0;
    a->wrote = (struct fs_attr){.size = 0};
    aside_put(m);
    strike_draw(m, 8, AGAIN_STRIKE_NS);
    if (!next_again(m))
        again_over(m);
}

void ahead_go_on(struct mount *m)
{
    send_again(m);
}

void ahead_left(struct mount *m)
{
    struct ahead *a = &m->ahead;
    a->behind = a->on && conn_ahead_any(&a->kept);
    if (!a->again)
        return;
    a->again = false;
    aside_take(m);
}

/* It was answered, and is not so. The real mount says so in its log, and whoever has the file open
 * gets an error: what another one did in between is in the way, or the session was lost. */
static void lost(struct mount *m, const struct fs_reply *r)
{
    struct ahead *a = &m->ahead;
    int32_t rc = r->rc;
    struct ledger_entry *l = ledger_get(m->ledger, m->writes);
    if (l != NULL)
        l->given_up = true;
    opens_lost(m, (uint16_t)m->type, a->e.oid);
    bool says = err_class(rc) == ERR_CLASS_USER || rc == ERR_STALE_BASE;
    if (private_unsure(m, m->type, &m->req) && says && !a->renewed && m->failure[0] == '\0')
        (void)snprintf(m->failure, sizeof m->failure,
                       "call %llu (type %u) in its own directory was answered ahead of the disk, "
                       "and cannot be made again: %s",
                       (unsigned long long)a->e.id, m->type, err_name(rc)); /* fits */
    bool alone = r->has_attr && rc == ERR_STALE_BASE && oid_equal(a->wrote.oid, r->attr.oid) &&
                 dot_equal(a->wrote.version, r->attr.version);
    if (alone && m->failure[0] == '\0')
        (void)snprintf(
            m->failure, sizeof m->failure,
            "call %llu: a write that was answered ahead of the disk cannot be made again, "
            "and nobody but this mount has written to the file since",
            (unsigned long long)a->e.id); /* fits */
}

static void made(struct mount *m, const struct fs_reply *r)
{
    struct ahead *a = &m->ahead;
    struct ledger_entry *l = ledger_get(m->ledger, m->writes);
    if (l != NULL && !a->was_there)
        l->version = r->attr.version;
    if (l != NULL && r->has_attr && r->attr.nlink == 0)
        l->given_up = true;
    if (r->has_attr)
        opens_made_again(m, r);
    if (m->type == RPC_COMMIT)
        a->wrote = r->attr;
}

bool ahead_frame(struct mount *m, uint64_t id, const struct fs_reply *r)
{
    struct ahead *a = &m->ahead;
    if (!a->again || id != a->e.id)
        return false;
    enum ahead_again became = conn_ahead_sent_again(&a->kept, &a->e, r->rc, r);
    if (became == AHEAD_WAITS) {
        sched_in(&m->next, AGAIN_NS);
        return true;
    }
    lin_answered(m, r);
    a->done = a->e.id;
    if (became == AHEAD_LOST)
        lost(m, r);
    else
        made(m, r);
    if (!next_again(m))
        again_over(m);
    return true;
}

void ahead_told_durable(struct mount *m, struct slice numbers)
{
    struct dec d = dec_of(numbers);
    while (d.rc == 0 && dec_left(&d) >= 8) {
        uint64_t number = dec_u64(&d);
        lin_told_durable(m, number);
        conn_ahead_durable(&m->ahead.kept, number);
    }
}

/* --- the mount dies --- */

void ahead_dies(struct mount *m)
{
    struct ahead *a = &m->ahead;
    struct ahead_entry e = {0};
    struct op_arena arena = {0};
    struct fs_request q;
    ahead_left(m);
    ahead_no_answer(m);
    for (uint64_t at = 0; conn_ahead_next(&a->kept, at, &e); at = e.id) {
        bool stays = e.id <= a->synced || lin_is_durable(m, e.id);
        int rc = fs_request_decode(buf_slice(&e.body), &arena, &q);
        ASSERT(rc == 0);
        struct ledger_entry *l =
            q.has_content ? ledger_get(m->ledger, ledger_number(m->ledger, &q.content)) : NULL;
        if (!stays && l != NULL)
            l->given_up = true;
        if (!stays)
            (void)private_unsure(m, e.type, &q);
        conn_ahead_answered_again(&a->kept, e.id, NULL, false); /* nobody keeps it any more */
        op_arena_reset(&arena);
    }
    buf_deinit(&e.body);
    op_arena_deinit(&arena);
    a->behind = a->renewed = false;
    lin_forgets_kept(m);
}
