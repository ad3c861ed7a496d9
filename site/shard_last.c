/* The last operation of each site in a shard's home, with its stamp. Numbers are given by the site
 * that issues, so one that was put back to an older state gives them a second time; stamps tell
 * such two operations apart (wan/wan_history.c).
 *
 * Kept in memory, and put into the state once a record, so that all who apply it have the same. */
#include "site/shard_int.h"

static struct last *last_of(struct shard *s, site_id_t site)
{
    for (uint32_t i = 0; i < s->last_count; i++)
        if (s->last[i].site == site)
            return &s->last[i];
    if (s->last_count == SITE_COUNT_MAX)
        return NULL; /* the engine refuses so many sites */
    s->last[s->last_count] = (struct last){.site = site};
    return &s->last[s->last_count++];
}

void shard_last_see(struct shard *s, const struct op *op)
{
    struct last *l = last_of(s, op->dot.site);
    if (l == NULL || op->dot.seq <= l->op.seq)
        return;
    l->op = (struct last_op){.seq = op->dot.seq, .hlc = op->stamp.hlc};
    l->stored = false;
}

void shard_last_put(struct shard *s)
{
    struct buf key = {0}, value = {0};
    for (uint32_t i = 0; i < s->last_count; i++) {
        struct last *l = &s->last[i];
        if (l->stored)
            continue;
        row_last_encode(l->site, l->op, &key, &value);
        state_put(s->state, buf_slice(&key), buf_slice(&value));
        l->stored = true;
    }
    buf_deinit(&key);
    buf_deinit(&value);
}

void shard_last_load(struct shard *s)
{
    struct buf prefix = {0};
    struct state_scan it;
    s->last_count = 0;
    key_begin(&prefix, SHARD_KEY_LAST);
    state_scan_begin(s->state, &it, buf_slice(&prefix), slice_of(NULL, 0));
    while (state_scan_next(&it)) {
        site_id_t site;
        struct last_op op;
        if (!row_last_decode(it.key, it.value, &site, &op))
            continue; /* of a newer version */
        struct last *l = last_of(s, site);
        if (l == NULL)
            break;
        l->op = op;
        l->stored = true;
    }
    state_scan_end(&it);
    buf_deinit(&prefix);
}

struct last_op shard_last(const struct shard *s, site_id_t site)
{
    for (uint32_t i = 0; i < s->last_count; i++)
        if (s->last[i].site == site)
            return s->last[i].op;
    return (struct last_op){0};
}
