/* How much the files of a shard hold: sums over the versions that show, kept with the state.
 *
 * They change in the batch that changes the file (M10), so they are right after a crash, and move
 * to a new site with its snapshot. A state of before this was kept is counted once, when it is
 * opened. */
#include "journal/merge_int.h"

/* Of a version: holes are no data, as far as somebody has counted the blocks. */
static uint64_t content_data_bytes(const struct content *c)
{
    static const uint8_t hole[sizeof c->root];
    if (c->kind == CONTENT_INLINE)
        return c->bytes.len;
    if (memcmp(c->root, hole, sizeof hole) == 0)
        return 0;
    return c->data_blocks == 0 ? c->size : MIN(c->size, c->data_blocks * c->block_bytes);
}

struct merge_usage file_usage(const struct file_rec *f)
{
    const struct ver *v = f->ref_count > 0 ? file_shown(f) : NULL;
    struct merge_usage u = {.bytes = 0};
    if (v == NULL)
        return u;
    u.bytes = content_data_bytes(&v->content);
    u.inline_bytes = v->content.kind == CONTENT_INLINE ? u.bytes : 0;
    return u;
}

static void usage_write(struct merge *m)
{
    uint8_t key = KEY_USAGE;
    buf_clear(&m->value);
    enc_varint(&m->value, m->usage.bytes);
    enc_varint(&m->value, m->usage.inline_bytes);
    state_put(m->state, slice_of(&key, 1), buf_slice(&m->value));
}

void usage_follow(struct merge *m)
{
    struct merge_usage u = m->usage;
    for (const struct file_rec *f = m->work.files; f != NULL; f = f->next) {
        if (!f->dirty)
            continue;
        struct merge_usage now = file_usage(f); /* differences may wrap; sums do not */
        u.bytes += now.bytes - f->before.bytes;
        u.inline_bytes += now.inline_bytes - f->before.inline_bytes;
    }
    if (u.bytes == m->usage.bytes && u.inline_bytes == m->usage.inline_bytes)
        return;
    m->usage = u;
    usage_write(m);
}

int usage_count(struct merge *m, struct merge_usage *ret)
{
    uint8_t type = KEY_FILE;
    struct state_scan it;
    struct op_arena arena = {.head = NULL};
    int rc = 0;
    *ret = (struct merge_usage){.bytes = 0};
    state_scan_begin(m->state, &it, slice_of(&type, 1), slice_of(NULL, 0));
    while (rc == 0 && state_scan_next(&it)) {
        struct file_rec f = {.known = false};
        op_arena_reset(&arena);
        rc = file_decode(it.value, &arena, &f);
        struct merge_usage u = rc == 0 ? file_usage(&f) : (struct merge_usage){.bytes = 0};
        ret->bytes += u.bytes;
        ret->inline_bytes += u.inline_bytes;
    }
    state_scan_end(&it);
    op_arena_deinit(&arena);
    return rc;
}

int usage_load(struct merge *m)
{
    uint8_t key = KEY_USAGE;
    struct slice value;
    if (state_get(m->state, slice_of(&key, 1), &value)) {
        struct dec d = dec_of(value);
        m->usage.bytes = dec_varint(&d);
        m->usage.inline_bytes = dec_varint(&d);
        return dec_end(&d) == 0 ? 0 : ERR_CORRUPT;
    }
    int rc = usage_count(m, &m->usage);
    if (rc == 0)
        usage_write(m);
    return rc;
}

void merge_usage(const struct merge *m, struct merge_usage *ret)
{
    *ret = m->usage;
}
