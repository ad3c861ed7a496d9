/* Opening and closing one shard's engine; what has been applied. */
#include "journal/merge_int.h"

static int seen_load_row(struct merge *m, struct slice key, struct slice value)
{
    if (key.len != 3)
        return ERR_CORRUPT;
    unsigned home = (unsigned)key.ptr[1] << 8 | key.ptr[2];
    struct dec d = dec_of(value);
    uint64_t hlc = dec_u64(&d);
    uint64_t count = dec_varint(&d);
    if (home >= m->config.shard_count || count > SITE_COUNT_MAX)
        return ERR_CORRUPT;
    for (uint64_t i = 0; i < count; i++) {
        site_id_t site = dec_u32(&d);
        uint64_t seq = dec_varint(&d);
        if (d.rc != 0 || vv_set(&m->seen[home], site, seq) != 0)
            return ERR_CORRUPT;
        m->applied += seq;
    }
    m->hlc_max = MAX(m->hlc_max, hlc);
    return dec_end(&d) == 0 ? 0 : ERR_CORRUPT;
}

static int seen_load(struct merge *m)
{
    uint8_t type = KEY_SEEN;
    struct state_scan it;
    int rc = 0;
    state_scan_begin(m->state, &it, slice_of(&type, 1), slice_of(NULL, 0));
    while (rc == 0 && state_scan_next(&it))
        rc = seen_load_row(m, it.key, it.value);
    state_scan_end(&it);
    return rc;
}

static bool contested_load(struct merge *m)
{
    uint8_t type = KEY_CONTESTED;
    struct state_scan it;
    state_scan_begin(m->state, &it, slice_of(&type, 1), slice_of(NULL, 0));
    bool any = state_scan_next(&it);
    state_scan_end(&it);
    return any;
}

int merge_open(struct merge **ret, const struct merge_config *config)
{
    ASSERT(config->shard_count > 0 && config->shard_count <= SHARD_COUNT_MAX);
    ASSERT(config->shard < config->shard_count && config->site != 0);
    ASSERT(config->state != NULL && config->site_name != NULL);
    struct merge *m = mem_calloc(1, sizeof *m);
    m->config = *config;
    m->state = config->state;
    m->shard = config->shard;
    m->seen = mem_calloc(config->shard_count, sizeof *m->seen);
    work_begin(m);
    int rc = seen_load(m);
    m->contested_any = contested_load(m);
    owed_load(m);
    if (rc == 0)
        rc = usage_load(m);
    if (rc == 0 && m->shard == 0)
        rc = fold_open(m);
    if (rc == 0)
        collect_load(m);
    if (rc == 0)
        rc = work_health(m);
    if (rc != 0) {
        merge_free(m);
        return rc;
    }
    *ret = m;
    return 0;
}

void merge_free(struct merge *m)
{
    if (m == NULL)
        return;
    fold_free(m);
    owed_free(m);
    for (uint32_t i = 0; i < DERIVED_CACHE; i++)
        op_arena_deinit(&m->derived[i].arena);
    op_arena_deinit(&m->work.arena);
    buf_deinit(&m->key);
    buf_deinit(&m->value);
    mem_free(m->seen);
    mem_free(m);
}

uint64_t merge_seen(struct merge *m, shard_id_t home, site_id_t site)
{
    ASSERT(home < m->config.shard_count);
    return vv_get(&m->seen[home], site);
}

void merge_vv(struct merge *m, struct vv *ret)
{
    *ret = m->seen[m->shard];
}

uint64_t merge_hlc_max(struct merge *m)
{
    return m->hlc_max;
}
