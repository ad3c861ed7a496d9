/* What peers have acknowledged of a shard's journal, which bounds what is kept of it. */
#include "base/plant.h"
#include "site/shard_int.h"

void shard_peer_acked(struct shard *s, site_id_t peer, uint64_t index)
{
    struct buf key = {0}, value = {0};
    if (s->cfg.peers != NULL && !PLANTED(119)) {
        shard_inbox_acked(s, peer, index);
        return;
    }
    if (index > shard_peer_ack(s, peer)) {
        row_number_key(&key, SHARD_KEY_ACKED, peer);
        row_number_value(&value, index);
        state_put(s->state, buf_slice(&key), buf_slice(&value));
        buf_deinit(&key);
        buf_deinit(&value);
    }
}

uint64_t shard_peer_ack(struct shard *s, site_id_t peer)
{
    struct buf key = {0};
    struct slice got;
    uint64_t index = 0;
    row_number_key(&key, SHARD_KEY_ACKED, peer);
    if (state_get(s->state, buf_slice(&key), &got))
        (void)row_number_decode(buf_slice(&key), got, &peer, &index); /* else 0 */
    buf_deinit(&key);
    return index;
}

void shard_keep_from(struct shard *s, uint64_t index)
{
    s->keep_from = index;
}
