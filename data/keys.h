/* The keys of one file system, all derived from its 32-byte key by libsodium's KDF (BLAKE2b).
 * Every site of the file system holds the same key, so equal bytes get equal chunks everywhere.
 * Threads: any; pure. */
#ifndef DATA_KEYS_H
#define DATA_KEYS_H

#include "base/util.h"

#define FS_KEY_BYTES 32
struct fs_keys {
    uint8_t hash[32];  /* chunk ids: HMAC-SHA-256 of plaintext */
    uint8_t chunk[32]; /* master of the per-chunk encryption keys */
    uint8_t name[32];  /* directory oids: hand it to birth_oid() as its key */
};
void fs_keys_derive(const uint8_t fs_key[FS_KEY_BYTES], struct fs_keys *ret);
void fs_keys_wipe(struct fs_keys *keys); /* before the memory is released */

#endif
