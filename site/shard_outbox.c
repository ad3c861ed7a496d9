/* Messages to other shards of the site: kept in the state until the receiver has them durably.
 *
 * Normal path: made while a record is applied, sent when that may leave the shard (shard_apply.c),
 * taken out when the receiver says that it is durable there. After a crash what is left is sent
 * again; receivers skip what they have. Numbers rise by one for each destination, and messages of
 * one destination become durable there in that order. */
#include <string.h>

#include "site/shard_int.h"
#include "base/plant.h"

void shard_outbox_key(struct buf *key, shard_id_t to, uint64_t number)
{
    key_begin(key, SHARD_KEY_OUTBOX);
    key_be(key, to, 2);
    key_be(key, number, 8);
}

uint64_t shard_outbox_next(struct shard *s, shard_id_t to)
{
    struct buf key = {0};
    struct slice got;
    key_begin(&key, SHARD_KEY_OUT_NEXT);
    key_be(&key, to, 2);
    bool found = state_get(s->state, buf_slice(&key), &got) && got.len == 8;
    buf_deinit(&key);
    return found ? be_get(got.ptr, 8) : 1;
}

void shard_outbox_put(struct shard *s, shard_id_t to, enum record_type type, struct slice bytes)
{
    struct buf key = {0}, value = {0};
    uint64_t number = shard_outbox_next(s, to);
    key_begin(&key, SHARD_KEY_OUT_NEXT);
    key_be(&key, to, 2);
    key_be(&value, number + 1, 8);
    state_put(s->state, buf_slice(&key), buf_slice(&value));
    shard_outbox_key(&key, to, number);
    buf_clear(&value);
    enc_u8(&value, (uint8_t)type);
    enc_raw(&value, bytes.ptr, bytes.len);
    state_put(s->state, buf_slice(&key), buf_slice(&value));
    s->outbox_count++;
    if (to < SHARD_COUNT_MAX)
        s->outbox[to].last = number;
    if (s->live) {
        struct message *m = mem_calloc(1, sizeof *m);
        m->to = to;
        m->type = type;
        m->number = number;
        buf_append(&m->bytes, bytes.ptr, bytes.len);
        message_push(s->collect != NULL ? &s->collect->out : &s->out, m);
    }
    buf_deinit(&key);
    buf_deinit(&value);
}

void shard_outbox_load(struct shard *s)
{
    struct buf prefix = {0};
    struct state_scan it;
    s->outbox_count = 0;
    s->outbox_noted = 0;
    memset(s->outbox, 0, sizeof s->outbox);
    key_begin(&prefix, SHARD_KEY_OUTBOX);
    state_scan_begin(s->state, &it, buf_slice(&prefix), slice_of(NULL, 0));
    while (state_scan_next(&it)) {
        s->outbox_count++;
        uint64_t to = it.key.len == 11 ? be_get(it.key.ptr + 1, 2) : SHARD_COUNT_MAX;
        if (to >= SHARD_COUNT_MAX)
            continue;
        uint64_t number = be_get(it.key.ptr + 3, 8);
        if (s->outbox[to].last == 0)
            s->outbox[to].delivered = number - 1;
        s->outbox[to].last = number;
    }
    state_scan_end(&it);
    buf_deinit(&prefix);
}

uint64_t shard_outbox_count(struct shard *s)
{
    return s->outbox_count;
}
void shard_outbox_note(struct shard *s)
{
    s->outbox_noted = 0;
    for (unsigned i = 0; i < s->cfg.shard_count; i++) {
        bool under_way = s->outbox[i].delivered < s->outbox[i].last;
        s->outbox[i].noted = under_way ? s->outbox[i].last : 0;
        s->outbox_noted += under_way;
    }
}

bool shard_outbox_passed(const struct shard *s)
{
    return s->outbox_noted == 0;
}

/* Messages of one destination become durable there in the order they were sent in. */
static void outbox_delivered(struct shard *s, shard_id_t to, uint64_t number)
{
    if (to >= SHARD_COUNT_MAX || number <= s->outbox[to].delivered)
        return;
    s->outbox[to].delivered = number;
    if (s->outbox[to].noted != 0 && number >= s->outbox[to].noted) {
        s->outbox[to].noted = 0;
        s->outbox_noted--;
    }
}

void shard_delivered(struct shard *s, shard_id_t to, uint64_t number)
{
    struct buf key = {0};
    struct slice old;
    if (s->cfg.peers != NULL && !shard_inbox_sent(s, to, number))
        return; /* said to another leader */
    outbox_delivered(s, to, number);
    if (s->cfg.peers != NULL) {
        shard_inbox_delivered(s);
        return; /* a record takes it out: N5 */
    }
    shard_outbox_key(&key, to, number);
    if (state_get(s->state, buf_slice(&key), &old)) {
        state_del(s->state, buf_slice(&key));
        s->outbox_count--;
    }
    buf_deinit(&key);
}

void shard_resend(struct shard *s)
{
    struct message_list again = {0};
    struct message *m;
    struct buf prefix = {0};
    struct state_scan it;
    key_begin(&prefix, SHARD_KEY_OUTBOX);
    state_scan_begin(s->state, &it, buf_slice(&prefix), slice_of(NULL, 0));
    while (!PLANTED(17) && state_scan_next(&it)) {
        if (it.key.len != 11 || it.value.len < 1)
            continue;
        if (s->cfg.peers != NULL && !shard_inbox_resends(s, (shard_id_t)be_get(it.key.ptr + 1, 2),
                                                         be_get(it.key.ptr + 3, 8)))
            continue;
        m = mem_calloc(1, sizeof *m);
        m->to = (shard_id_t)be_get(it.key.ptr + 1, 2);
        m->number = be_get(it.key.ptr + 3, 8);
        m->type = (enum record_type)it.value.ptr[0];
        buf_append(&m->bytes, it.value.ptr + 1, it.value.len - 1);
        message_push(&again, m);
    }
    state_scan_end(&it);
    buf_deinit(&prefix);
    while ((m = message_pop(&again)) != NULL) {
        s->cfg.events.deliver(s->cfg.events.ctx, s->cfg.id, m->to, m->number, m->type,
                              buf_slice(&m->bytes));
        message_free(m);
    }
}
