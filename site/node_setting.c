/* Settings of the file system: registers of the root directory (class 'S' and a name), so that they
 * travel in the stream like members; the higher stamp wins. Value: a number, little endian. */
#include <string.h>

#include "site/member_codec.h"
#include "site/node_int.h"

#define NAME_MAX_BYTES 32u

static struct slice setting_key(const char *name, uint8_t out[1 + NAME_MAX_BYTES])
{
    size_t len = MIN(strlen(name), NAME_MAX_BYTES);
    out[0] = REG_SETTING;
    memcpy(out + 1, name, len);
    return slice_of(out, 1 + len);
}

uint64_t node_setting(struct node *n, const char *name, uint64_t otherwise)
{
    uint8_t key[1 + NAME_MAX_BYTES];
    struct reg r;
    if (n->needs_snapshot ||
        merge_reg(shard_merge(n->shards[0]), OID_ROOT, setting_key(name, key), &r) != 0)
        return otherwise;
    uint64_t value;
    return setting_decode(&r, &value) ? value : otherwise;
}

struct setting_set {
    void (*done)(void *ctx, int rc);
    void *ctx;
};

static void setting_committed(void *ctx, int rc)
{
    struct setting_set *s = ctx;
    s->done(s->ctx, rc);
    mem_free(s);
}

void node_setting_set(
    struct node *n, const char *name, uint64_t value, void (*done)(void *ctx, int rc), void *ctx)
{
    struct op_builder b = {0};
    struct buf bytes = {0};
    uint8_t key[1 + NAME_MAX_BYTES];
    struct setting_set *s = mem_calloc(1, sizeof *s);
    s->done = done;
    s->ctx = ctx;
    setting_encode(value, &bytes);
    op_builder_init(&b);
    struct effect *e = op_builder_add(&b, EFFECT_SET, OID_ROOT);
    e->set.key = setting_key(name, key);
    e->set.value = buf_slice(&bytes);
    e->set.present = true;
    struct proposal p = {.committed = setting_committed, .ctx = s};
    int rc = n->needs_snapshot ? ERR_AGAIN : shard_propose(n->shards[0], &b, &p, NULL);
    op_builder_deinit(&b);
    buf_deinit(&bytes);
    if (rc != 0) {
        done(ctx, rc);
        mem_free(s);
    }
}
