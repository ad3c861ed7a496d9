/* Key derivation: one subkey per purpose, numbered for ever. */
#include "data/keys.h"

#include <sodium.h>

#include "base/assert.h"

enum {
    KEY_HASH = 1,
    KEY_CHUNK = 2,
    KEY_NAME = 3
};
_Static_assert(crypto_kdf_KEYBYTES == FS_KEY_BYTES, "the file-system key is a KDF key");
static const char kdf_context[crypto_kdf_CONTEXTBYTES] = "claudefs";

void fs_keys_derive(const uint8_t fs_key[FS_KEY_BYTES], struct fs_keys *ret)
{
    int rc = crypto_kdf_derive_from_key(ret->hash, sizeof ret->hash, KEY_HASH, kdf_context, fs_key);
    ASSERT(rc == 0);
    rc = crypto_kdf_derive_from_key(ret->chunk, sizeof ret->chunk, KEY_CHUNK, kdf_context, fs_key);
    ASSERT(rc == 0);
    rc = crypto_kdf_derive_from_key(ret->name, sizeof ret->name, KEY_NAME, kdf_context, fs_key);
    ASSERT(rc == 0);
}

void fs_keys_wipe(struct fs_keys *keys)
{
    sodium_memzero(keys, sizeof *keys);
}
