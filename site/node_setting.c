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

void node_setting_set(
    struct node *n, const char *name, uint64_t value, void (*done)(void *ctx, int rc), void *ctx)
{
    struct buf bytes = {0};
    uint8_t key[1 + NAME_MAX_BYTES];
    if (n->needs_snapshot) {
        done(ctx, ERR_AGAIN);
        return;
    }
    setting_encode(value, &bytes);
    node_root_set(n, setting_key(name, key), &bytes, done, ctx);
    buf_deinit(&bytes);
}
