/* How far a site that leaves is followed (node_leave.c says why). A limit is a record of the
 * shard's journal, so replay takes and refuses the same operations as the first time. */
#include <string.h>

#include "site/shard_int.h"

static uint32_t limit_find(const struct shard *s, site_id_t site)
{
    uint32_t i = 0;
    while (i < s->limit_count && s->limits[i].site != site)
        i++;
    return i;
}

enum shard_limit shard_limit(const struct shard *s, site_id_t site, uint64_t *ret_seq)
{
    uint32_t i = limit_find(s, site);
    if (i == s->limit_count)
        return LIMIT_NONE;
    *ret_seq = s->limits[i].seq;
    return s->limits[i].limit;
}

void shard_limits_seen(struct shard *s, struct slice key, struct slice value)
{
    struct row_limit r;
    if (!row_limit_decode(key, value, &r))
        return; /* of a newer version */
    uint32_t i = limit_find(s, r.site);
    if (i == SITE_COUNT_MAX)
        return; /* the engine refuses so many sites */
    s->limits[i].site = r.site;
    s->limits[i].seq = r.seq;
    s->limits[i].limit = r.limit;
    s->limit_count = MAX(s->limit_count, i + 1);
    s->held_back = 0; /* to be looked at again */
}

void shard_limits_load(struct shard *s)
{
    struct buf prefix = {0};
    struct state_scan it;
    s->limit_count = 0;
    key_begin(&prefix, SHARD_KEY_LIMIT);
    state_scan_begin(s->state, &it, buf_slice(&prefix), slice_of(NULL, 0));
    while (state_scan_next(&it))
        shard_limits_seen(s, it.key, it.value);
    state_scan_end(&it);
    s->behind_count = 0;
    key_begin(&prefix, SHARD_KEY_BEHIND);
    state_scan_begin(s->state, &it, buf_slice(&prefix), slice_of(NULL, 0));
    while (state_scan_next(&it))
        shard_behind_seen(s, it.key, it.value);
    state_scan_end(&it);
    buf_deinit(&prefix);
    s->held_back = 0;
}

int shard_limit_set(struct shard *s,
                    site_id_t site,
                    enum shard_limit limit,
                    uint64_t seq,
                    void (*committed)(void *ctx, int rc),
                    void *ctx)
{
    struct buf key = {0}, value = {0};
    ASSERT(limit != LIMIT_NONE && site != s->cfg.site);
    row_limit_encode(&(struct row_limit){.site = site, .seq = seq, .limit = limit}, &key, &value);
    struct local_pair pair = {.key = buf_slice(&key), .value = buf_slice(&value)};
    int rc = shard_local(s, &pair, 1, committed, ctx);
    buf_deinit(&key);
    buf_deinit(&value);
    return rc;
}

/* Operations that had waited beyond a limit and were let go or dropped when it was replaced: what
 * counts as being here is what was applied. */
void shard_limits_settle(struct shard *s)
{
    if (!shard_idle(s))
        return;
    for (uint32_t i = 0; i < s->limit_count; i++) {
        site_id_t site = s->limits[i].site;
        uint64_t seen = merge_seen(s->merge, s->cfg.id, site);
        if (s->limits[i].limit == LIMIT_CUT && vv_get(&s->durable_vv, site) != seen &&
            vv_set(&s->durable_vv, site, seen) != 0)
            log_warn(LOG_SITE, "too_many_sites", "shard=%u site=%08x", s->cfg.id, site);
    }
}

bool shard_holds(const struct shard *s)
{
    for (uint32_t i = 0; i < s->limit_count; i++)
        if (s->limits[i].limit == LIMIT_HOLD)
            return true;
    return false;
}

/* ---- behind what waits (L6) ---- */

static uint32_t behind_find(const struct shard *s, site_id_t site)
{
    uint32_t i = 0;
    while (i < s->behind_count && s->behind[i].site != site)
        i++;
    return i;
}

bool shard_is_behind(const struct shard *s, site_id_t site)
{
    return behind_find(s, site) < s->behind_count;
}

site_id_t shard_behind_at(const struct shard *s, uint32_t i)
{
    return i < s->behind_count ? s->behind[i].site : 0;
}

bool shard_is_held_back(const struct shard *s, const struct op *op)
{
    uint64_t last = UINT64_MAX;
    if (op->dot.shard != s->cfg.id)
        return false;
    uint32_t i = behind_find(s, op->dot.site);
    return (i < s->behind_count && op->dot.seq > s->behind[i].seq) ||
           (shard_limit(s, op->dot.site, &last) == LIMIT_HOLD && op->dot.seq > last);
}

void shard_behind_seen(struct shard *s, struct slice key, struct slice value)
{
    if (key.len != 5 || (value.ptr != NULL && value.len != 8))
        return; /* of a newer version */
    site_id_t site = (site_id_t)be_get(key.ptr + 1, 4);
    uint32_t i = behind_find(s, site);
    s->held_back = 0;
    if (value.ptr == NULL && i < s->behind_count) {
        s->behind_count--;
        memmove(&s->behind[i], &s->behind[i + 1], (s->behind_count - i) * sizeof s->behind[0]);
    } else if (value.ptr != NULL && i < SITE_COUNT_MAX) { /* the engine refuses so many sites */
        s->behind[i].site = site;
        s->behind[i].seq = be_get(value.ptr, 8);
        s->behind[i].since_hlc = 1;
        s->behind_count = MAX(s->behind_count, i + 1);
    }
}

uint64_t shard_behind_since(const struct shard *s, site_id_t site)
{
    uint32_t i = behind_find(s, site);
    return i < s->behind_count ? s->behind[i].since_hlc : 0;
}

int shard_behind_set(struct shard *s, site_id_t site, uint64_t since_hlc)
{
    struct buf key = {0}, value = {0};
    ASSERT(site != s->cfg.site && s->cfg.peers == NULL);
    key_begin(&key, SHARD_KEY_BEHIND);
    key_be(&key, site, 4);
    key_be(&value, merge_seen(s->merge, s->cfg.id, site), 8);
    struct local_pair pair = {.key = buf_slice(&key),
                              .value = since_hlc != 0 ? buf_slice(&value) : slice_of(NULL, 0)};
    int rc = shard_local(s, &pair, 1, NULL, NULL);
    uint32_t i = behind_find(s, site);
    if (i < s->behind_count && rc == 0)
        s->behind[i].since_hlc = since_hlc;
    buf_deinit(&key);
    buf_deinit(&value);
    return rc;
}
