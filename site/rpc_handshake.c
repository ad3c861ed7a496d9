/* The handshake of rpc_int.h: who knows the site key, and which keys seal the connection. */
#include <string.h>

#include "base/assert.h"
#include "site/rpc_int.h"

#define HELLO_VERSION 1u
#define HELLO_CLEAR_OK 1u /* flags: this end may do without sealing */

static const uint8_t hello_magic[2][4] = {
    [RPC_CLIENT] = {'C', 'F', 'H', 'c'}, [RPC_SERVER] = {'C', 'F', 'H', 's'}};

void rpc_handshake_init(struct rpc_handshake *h,
                        enum rpc_role role,
                        bool clear_ok,
                        const uint8_t random[RPC_HELLO_RANDOM_BYTES])
{
    *h = (struct rpc_handshake){.role = role};
    memcpy(h->hello, hello_magic[role], 4);
    h->hello[4] = HELLO_VERSION;
    h->hello[6] = clear_ok ? HELLO_CLEAR_OK : 0;
    memcpy(h->hello + 8, random, 32);
    memcpy(h->secret, random + 32, sizeof h->secret);
    int rc = crypto_scalarmult_base(h->hello + 40, h->secret);
    ASSERT(rc == 0);
}

static int hello_check(const struct rpc_handshake *h, const uint8_t peer[RPC_HELLO_BYTES])
{
    enum rpc_role other = h->role == RPC_CLIENT ? RPC_SERVER : RPC_CLIENT;
    if (memcmp(peer, hello_magic[other], 4) != 0)
        return ERR_MALFORMED;
    if (peer[4] != HELLO_VERSION || peer[5] != 0)
        return ERR_VERSION;
    return (peer[6] & ~HELLO_CLEAR_OK) == 0 && peer[7] == 0 ? 0 : ERR_MALFORMED;
}

static void derive(uint8_t out[32], const uint8_t master[64], const char *label)
{
    struct slice text = slice_str(label);
    int rc = crypto_generichash(out, 32, text.ptr, text.len, master, 64);
    ASSERT(rc == 0);
}

static void master_derive(uint8_t master[64],
                          const uint8_t site_key[32],
                          const uint8_t *hello_client,
                          const uint8_t *hello_server,
                          const uint8_t shared[32])
{
    static const uint8_t label[] = "claudefs rpc 1";
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, site_key, 32, 64); /* fails only for bad lengths */
    (void)crypto_generichash_update(&state, label, sizeof label - 1);
    (void)crypto_generichash_update(&state, hello_client, RPC_HELLO_BYTES);
    (void)crypto_generichash_update(&state, hello_server, RPC_HELLO_BYTES);
    (void)crypto_generichash_update(&state, shared, 32);
    (void)crypto_generichash_final(&state, master, 64);
    sodium_memzero(&state, sizeof state);
}

int rpc_handshake_finish(struct rpc_handshake *h,
                         const uint8_t peer_hello[RPC_HELLO_BYTES],
                         const uint8_t site_key[32],
                         struct rpc_keys *ret)
{
    uint8_t shared[32], master[64];
    int rc = hello_check(h, peer_hello);
    if (rc == 0 && crypto_scalarmult(shared, h->secret, peer_hello + 40) != 0)
        rc = ERR_AUTH;
    sodium_memzero(h->secret, sizeof h->secret);
    if (rc != 0)
        return rc;
    bool client = h->role == RPC_CLIENT;
    master_derive(master, site_key, client ? h->hello : peer_hello, client ? peer_hello : h->hello,
                  shared);
    ret->sealed = (h->hello[6] & peer_hello[6] & HELLO_CLEAR_OK) == 0;
    derive(client ? ret->proof_out : ret->proof_in, master, "client proof");
    derive(client ? ret->proof_in : ret->proof_out, master, "server proof");
    derive(client ? ret->key_out : ret->key_in, master, "client to server");
    derive(client ? ret->key_in : ret->key_out, master, "server to client");
    sodium_memzero(shared, sizeof shared);
    sodium_memzero(master, sizeof master);
    return 0;
}

void rpc_seal_start(struct rpc_seal *s, const struct rpc_keys *keys, uint8_t out[RPC_PROVE_BYTES])
{
    memcpy(out, keys->proof_out, RPC_PROOF_BYTES);
    int rc = crypto_secretstream_xchacha20poly1305_init_push(&s->out, out + RPC_PROOF_BYTES,
                                                             keys->key_out);
    ASSERT(rc == 0);
}

int rpc_seal_check(struct rpc_seal *s,
                   const struct rpc_keys *keys,
                   const uint8_t in[RPC_PROVE_BYTES])
{
    if (sodium_memcmp(in, keys->proof_in, RPC_PROOF_BYTES) != 0)
        return ERR_AUTH;
    int rc =
        crypto_secretstream_xchacha20poly1305_init_pull(&s->in, in + RPC_PROOF_BYTES, keys->key_in);
    ASSERT(rc == 0);
    s->on = keys->sealed;
    return 0;
}
