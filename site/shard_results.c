/* Stored results: exactly-once for requests that are repeated after a lost connection. */
#include <stdlib.h>
#include <string.h>

#include "site/shard_int.h"

static struct result_session *session_of(struct shard *s, uint64_t session, bool make)
{
    struct result_session *r;
    HASH_FIND(hh, s->results, &session, sizeof session, r);
    if (r == NULL && make) {
        r = mem_calloc(1, sizeof *r);
        r->session = session;
        HASH_ADD(hh, s->results, session, sizeof r->session, r);
    }
    return r;
}

/* Kept sorted: numbers mostly rise, threads of one mount swap neighbours. */
static void remember(struct shard *s, uint64_t session, uint64_t number)
{
    struct result_session *r = session_of(s, session, true);
    if (r->count == r->cap) {
        if (r->first > r->cap / 2) {
            memmove(r->numbers, r->numbers + r->first,
                    (r->count - r->first) * sizeof r->numbers[0]);
            r->count -= r->first;
            r->first = 0;
        } else {
            r->cap = MAX(r->cap * 2, 64u);
            r->numbers = mem_realloc(r->numbers, r->cap * sizeof r->numbers[0]);
        }
    }
    size_t at = r->count++;
    while (at > r->first && r->numbers[at - 1] > number) {
        r->numbers[at] = r->numbers[at - 1];
        at--;
    }
    r->numbers[at] = number;
}

void shard_result_put(
    struct shard *s, uint64_t session, uint64_t number, int32_t rc, struct oid oid)
{
    struct buf key = {0}, value = {0};
    row_result_key(&key, session, number);
    row_result_value(&value, rc, oid);
    state_put(s->state, buf_slice(&key), buf_slice(&value));
    if (s->live)
        remember(s, session, number);
    buf_deinit(&key);
    buf_deinit(&value);
}

bool shard_result(
    struct shard *s, uint64_t session, uint64_t number, int32_t *ret_rc, struct oid *ret_oid)
{
    struct result_session *r = session_of(s, session, false);
    size_t at = r == NULL ? 0 : r->count;
    while (r != NULL && at > r->first && r->numbers[at - 1] > number)
        at--;
    if (r == NULL || at == r->first || r->numbers[at - 1] != number)
        return false; /* the usual case costs no look-up in the state */
    struct buf key = {0};
    struct slice got;
    row_result_key(&key, session, number);
    bool found =
        state_get(s->state, buf_slice(&key), &got) && row_result_decode(got, ret_rc, ret_oid);
    buf_deinit(&key);
    return found;
}

void shard_results_acked(struct shard *s, uint64_t session, uint64_t acked)
{
    struct result_session *r = session_of(s, session, false);
    if (r == NULL)
        return;
    r->acked = MAX(r->acked, acked);
    if (s->cfg.peers != NULL)
        return; /* a record takes them out: N6 */
    struct buf key = {0};
    while (r->first < r->count && r->numbers[r->first] <= acked) {
        row_result_key(&key, session, r->numbers[r->first++]);
        state_del(s->state, buf_slice(&key));
    }
    buf_deinit(&key);
}

bool shard_result_take_acked(struct shard *s, uint64_t *ret_session, uint64_t *ret_number)
{
    struct result_session *r, *tmp;
    HASH_ITER(hh, s->results, r, tmp)
    {
        if (r->first == r->count || r->numbers[r->first] > r->acked)
            continue;
        *ret_session = r->session;
        *ret_number = r->numbers[r->first++];
        return true;
    }
    return false;
}

void shard_results_load(struct shard *s)
{
    struct buf prefix = {0};
    struct state_scan it;
    key_begin(&prefix, SHARD_KEY_RESULT);
    state_scan_begin(s->state, &it, buf_slice(&prefix), slice_of(NULL, 0));
    while (state_scan_next(&it)) {
        uint64_t session, number;
        if (row_result_key_decode(it.key, &session, &number))
            remember(s, session, number);
    }
    state_scan_end(&it);
    buf_deinit(&prefix);
}

void shard_results_free(struct shard *s)
{
    struct result_session *r, *tmp;
    HASH_ITER(hh, s->results, r, tmp)
    {
        HASH_DEL(s->results, r);
        mem_free(r->numbers);
        mem_free(r);
    }
}
