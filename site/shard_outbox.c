/* Messages to other shards of the site: kept in the state until the receiver has them durably.
 *
 * Normal path: made while a record is applied, sent when that may leave the shard (shard_apply.c),
 * taken out when the receiver says that it is durable there. After a crash what is left is sent
 * again; receivers skip what they have.
 *
 * Failure path: the receiver's journal refuses a message (no room for a segment, say). Receivers
 * tell what they have by the highest number of an operation, so whatever came behind it first would
 * make them take it for known: it and all that may leave after it are held, in that order, until
 * shard_resend() gets them across (S19). Whoever waits for the operation waits for that, too.
 *
 * Messages of one destination are numbered in the order in which they were made. That is not quite
 * the order in which they leave: those of a local operation wait until it is durable (S2), those
 * of a peer's do not. Receivers do not mind, for the two come from different sites. */
#include <string.h>

#include "base/assert.h"
#include "base/plant.h"
#include "site/shard_int.h"

/* ---- lists of messages ---- */

void message_push(struct message_list *l, struct message *m)
{
    if (l->tail == NULL || l->head == NULL)
        l->tail = &l->head;
    m->next = NULL;
    *l->tail = m;
    l->tail = &m->next;
}

struct message *message_pop(struct message_list *l)
{
    struct message *m = l->head;
    if (m != NULL) {
        l->head = m->next;
        if (l->head == NULL)
            l->tail = &l->head;
    }
    return m;
}

void message_free(struct message *m)
{
    buf_deinit(&m->bytes);
    mem_free(m);
}

/* ---- numbers that are not durable at their destination, ascending ---- */

static void numbers_add(struct outbox *o, uint64_t number)
{
    ASSERT(o->count == o->first || o->numbers[o->count - 1] < number);
    if (o->count == o->cap && o->first > o->cap / 2) {
        memmove(o->numbers, o->numbers + o->first, (o->count - o->first) * sizeof o->numbers[0]);
        o->count -= o->first;
        o->first = 0;
    } else if (o->count == o->cap) {
        o->cap = MAX(o->cap * 2, 16u);
        o->numbers = mem_realloc(o->numbers, o->cap * sizeof o->numbers[0]);
    }
    o->numbers[o->count++] = number;
}

/* Mostly the first, or one near it. */
static void numbers_remove(struct outbox *o, uint64_t number)
{
    size_t at = o->first;
    while (at < o->count && o->numbers[at] < number)
        at++;
    if (at == o->count || o->numbers[at] != number)
        return;
    memmove(o->numbers + o->first + 1, o->numbers + o->first,
            (at - o->first) * sizeof o->numbers[0]);
    o->first++;
}

/* ---- making and sending ---- */

static struct message *message_new(struct shard *s, const struct row_outbox *r)
{
    struct message *m = mem_calloc(1, sizeof *m);
    m->to = r->to;
    m->type = r->type;
    m->number = r->number;
    m->batch = s->batch;
    buf_append(&m->bytes, r->bytes.ptr, r->bytes.len);
    return m;
}

uint64_t shard_outbox_next(struct shard *s, shard_id_t to)
{
    struct buf key = {0};
    struct slice got;
    uint32_t of;
    uint64_t next = 1;
    row_number_key(&key, SHARD_KEY_OUT_NEXT, to);
    if (state_get(s->state, buf_slice(&key), &got))
        (void)row_number_decode(buf_slice(&key), got, &of, &next); /* else 1 */
    buf_deinit(&key);
    return next;
}

void shard_outbox_put(struct shard *s, shard_id_t to, enum record_type type, struct slice bytes)
{
    struct buf key = {0}, value = {0};
    if (to >= s->cfg.shard_count)
        return; /* a peer's move to where nothing can be: no shard has to know */
    uint64_t number = shard_outbox_next(s, to);
    row_number_key(&key, SHARD_KEY_OUT_NEXT, to);
    row_number_value(&value, number + 1);
    state_put(s->state, buf_slice(&key), buf_slice(&value));
    row_outbox_key(&key, to, number);
    row_outbox_value(&value, type, bytes);
    state_put(s->state, buf_slice(&key), buf_slice(&value));
    s->outbox_count++;
    s->outbox[to].last = number;
    if (s->live) {
        if (s->cfg.peers == NULL)
            numbers_add(&s->outbox[to], number);
        message_push(s->collect != NULL ? &s->collect->out : &s->out,
                     message_new(s, &(struct row_outbox){to, number, type, bytes}));
    }
    buf_deinit(&key);
    buf_deinit(&value);
}

static int hand_over(struct shard *s, const struct message *m)
{
    const struct shard_message out = {.from = s->cfg.id,
                                      .to = m->to,
                                      .type = m->type,
                                      .number = m->number,
                                      .batch = m->batch,
                                      .bytes = buf_slice(&m->bytes)};
    return s->cfg.events.deliver(s->cfg.events.ctx, &out);
}

void shard_outbox_send(struct shard *s, struct message *m, struct pending *of)
{
    struct outbox *o = &s->outbox[m->to];
    bool waits = o->held.head != NULL && !PLANTED(28);
    /* Over a network nothing is refused at once; who does not hear of it sends again (N3). */
    if (!waits && (hand_over(s, m) == 0 || s->cfg.peers != NULL)) {
        message_free(m);
        return;
    }
    m->of = of;
    if (of != NULL)
        of->held++;
    message_push(&o->held, m);
}

static void send_held(struct shard *s, struct message_list *held)
{
    while (held->head != NULL) {
        struct message *m = held->head;
        struct pending *of = m->of;
        s->cfg.events.on_behalf(s->cfg.events.ctx, of != NULL && of->is_call ? of->ctx : NULL);
        int rc = hand_over(s, m);
        s->cfg.events.on_behalf(s->cfg.events.ctx, NULL);
        if (rc != 0)
            return; /* what follows stays behind it */
        m = message_pop(held);
        message_free(m);
        if (of != NULL && --of->held == 0)
            shard_pending_done(of);
    }
}

/* Several nodes: all that has left and was not confirmed. */
static void send_unconfirmed(struct shard *s)
{
    struct message_list again = {0};
    struct message *m;
    struct buf prefix = {0};
    struct state_scan it;
    key_begin(&prefix, SHARD_KEY_OUTBOX);
    state_scan_begin(s->state, &it, buf_slice(&prefix), slice_of(NULL, 0));
    while (state_scan_next(&it)) {
        struct row_outbox r;
        if (row_outbox_decode(it.key, it.value, &r) && shard_inbox_resends(s, r.to, r.number))
            message_push(&again, message_new(s, &r));
    }
    state_scan_end(&it);
    buf_deinit(&prefix);
    while ((m = message_pop(&again)) != NULL) {
        (void)hand_over(s, m); /* it may get lost, and is sent again then */
        message_free(m);
    }
}

void shard_resend(struct shard *s)
{
    if (s->cfg.peers != NULL)
        send_unconfirmed(s);
    else
        for (unsigned to = 0; to < s->cfg.shard_count; to++)
            send_held(s, &s->outbox[to].held);
}

/* Of those that were noted none is under way any more. */
static bool has_passed(const struct shard *s, const struct outbox *o)
{
    if (s->cfg.peers != NULL)
        return o->delivered >= o->noted;
    return o->first == o->count || o->numbers[o->first] > o->noted;
}

void shard_delivered(struct shard *s, shard_id_t to, uint64_t number)
{
    struct buf key = {0};
    struct slice old;
    if (to >= s->cfg.shard_count || (s->cfg.peers != NULL && !shard_inbox_sent(s, to, number)))
        return; /* said to another leader */
    struct outbox *o = &s->outbox[to];
    if (s->cfg.peers != NULL)
        o->delivered = MAX(o->delivered, number);
    else
        numbers_remove(o, number);
    if (o->noted != 0 && has_passed(s, o)) {
        o->noted = 0;
        s->outbox_noted--;
    }
    if (s->cfg.peers != NULL) {
        shard_inbox_delivered(s);
        if (!PLANTED(118))
            return; /* a record takes it out: N6 */
    }
    row_outbox_key(&key, to, number);
    if (state_get(s->state, buf_slice(&key), &old)) {
        state_del(s->state, buf_slice(&key));
        s->outbox_count--;
    }
    buf_deinit(&key);
}

/* ---- opening and closing ---- */

void shard_outbox_drop(struct shard *s)
{
    for (unsigned i = 0; i < ARRAY_COUNT(s->outbox); i++) {
        struct outbox *o = &s->outbox[i];
        struct message *m;
        while ((m = message_pop(&o->held)) != NULL) {
            if (m->of != NULL && --m->of->held == 0)
                shard_pending_free(m->of);
            message_free(m);
        }
        mem_free(o->numbers);
        *o = (struct outbox){.noted = 0};
    }
    s->outbox_count = 0;
    s->outbox_noted = 0;
}

/* All of it is durable: it may leave, when the other shards are there. */
static void load_one(struct shard *s, struct slice key, struct slice value)
{
    struct row_outbox r;
    if (!row_outbox_decode(key, value, &r) || r.to >= s->cfg.shard_count)
        return; /* nobody could take it, so nobody waits for it */
    struct outbox *o = &s->outbox[r.to];
    s->outbox_count++;
    if (o->last == 0)
        o->delivered = r.number - 1;
    o->last = r.number;
    if (s->cfg.peers != NULL)
        return; /* shard_inbox_load() says what has left */
    numbers_add(o, r.number);
    if (!PLANTED(17))
        message_push(&o->held, message_new(s, &r));
}

void shard_outbox_load(struct shard *s)
{
    struct buf prefix = {0};
    struct state_scan it;
    shard_outbox_drop(s);
    key_begin(&prefix, SHARD_KEY_OUTBOX);
    state_scan_begin(s->state, &it, buf_slice(&prefix), slice_of(NULL, 0));
    while (state_scan_next(&it))
        load_one(s, it.key, it.value);
    state_scan_end(&it);
    buf_deinit(&prefix);
}

/* ---- looking ---- */

uint64_t shard_outbox_count(struct shard *s)
{
    return s->outbox_count;
}

bool shard_messages_held(const struct shard *s)
{
    for (unsigned i = 0; i < s->cfg.shard_count && s->outbox_count > 0; i++)
        if (s->outbox[i].held.head != NULL)
            return true;
    return false;
}

void shard_outbox_note(struct shard *s)
{
    s->outbox_noted = 0;
    for (unsigned i = 0; i < s->cfg.shard_count; i++) {
        struct outbox *o = &s->outbox[i];
        bool alone = s->cfg.peers == NULL;
        bool under_way = alone ? o->first < o->count : o->delivered < o->last;
        o->noted = !under_way ? 0 : alone ? o->numbers[o->count - 1] : o->last;
        s->outbox_noted += under_way;
    }
}

bool shard_outbox_passed(const struct shard *s)
{
    return s->outbox_noted == 0;
}
