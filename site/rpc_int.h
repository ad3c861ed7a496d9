/* Private to rpc*.c: the handshake and the framing, which server and client share. Pure but for the
 * randomness that sealing draws. */
#ifndef SITE_RPC_INT_H
#define SITE_RPC_INT_H

#include <sodium.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/limits.h"
#include "site/rpc.h"

/* --- handshake ---
 *
 *   client -> server   hello
 *   server -> client   hello, proof, seal header
 *   client -> server   proof, seal header; requests may follow at once
 *
 * hello: magic (4, one per role), version (2), flags (2), random (32), ephemeral X25519 key (32).
 * master = BLAKE2b-512(key = site key, "claudefs rpc 1" | hello of client | hello of server |
 * shared secret); proofs and the keys of both directions are BLAKE2b-256(key = master, label). A
 * party with the wrong site key still sends its proof, so that the other side learns why it failed.
 */
#define RPC_HELLO_BYTES 72u
#define RPC_HELLO_RANDOM_BYTES 64u
#define RPC_PROOF_BYTES 32u
#define RPC_SEAL_HEADER_BYTES crypto_secretstream_xchacha20poly1305_HEADERBYTES
#define RPC_PROVE_BYTES (RPC_PROOF_BYTES + RPC_SEAL_HEADER_BYTES)

enum rpc_role {
    RPC_CLIENT,
    RPC_SERVER
};
struct rpc_handshake {
    enum rpc_role role;
    uint8_t hello[RPC_HELLO_BYTES]; /* to send */
    uint8_t secret[32];             /* of the ephemeral key; wiped by rpc_handshake_finish */
};
struct rpc_keys {
    bool sealed; /* not both ends may do without */
    uint8_t proof_out[RPC_PROOF_BYTES], proof_in[RPC_PROOF_BYTES];
    uint8_t key_out[32], key_in[32];
};
/* clear_ok: this end may do without sealing (Unix socket, trusted network). `random` is fresh. */
void rpc_handshake_init(struct rpc_handshake *h,
                        enum rpc_role role,
                        bool clear_ok,
                        const uint8_t random[RPC_HELLO_RANDOM_BYTES]);
/* ERR_MALFORMED: not a hello at all; ERR_VERSION; ERR_AUTH: a key that fixes the secret. */
int rpc_handshake_finish(struct rpc_handshake *h,
                         const uint8_t peer_hello[RPC_HELLO_BYTES],
                         const uint8_t site_key[32],
                         struct rpc_keys *ret) MUST_CHECK;

/* --- sealing and framing ---
 *
 * A unit is what travels as one: a frame, or, sealed, its length (4) and the ciphertext. */
struct rpc_seal {
    bool on;
    crypto_secretstream_xchacha20poly1305_state out, in;
};
/* Starts the outgoing direction and writes proof and seal header. */
void rpc_seal_start(struct rpc_seal *s, const struct rpc_keys *keys, uint8_t out[RPC_PROVE_BYTES]);
/* Checks the peer's proof and starts the incoming direction. ERR_AUTH. */
int rpc_seal_check(struct rpc_seal *s,
                   const struct rpc_keys *keys,
                   const uint8_t in[RPC_PROVE_BYTES]) MUST_CHECK;

/* The bytes of the unit that starts at `at`; 0 in *ret when too few are there to know. */
int rpc_unit_bytes(const struct rpc_seal *s, const uint8_t *at, size_t len, size_t *ret) MUST_CHECK;
/* A whole unit. The frame's slices point into it, or into `plain` (overwritten) when sealed.
 * ERR_AUTH: the ciphertext was changed. */
int rpc_unit_open(struct rpc_seal *s,
                  const uint8_t *at,
                  size_t len,
                  struct buf *plain,
                  struct rpc_frame *ret) MUST_CHECK;
/* Appends the unit of a frame within bounds; `scratch` is overwritten when sealing. */
void rpc_unit_append(struct rpc_seal *s,
                     const struct rpc_frame *f,
                     struct buf *scratch,
                     struct buf *out);
static inline bool rpc_frame_fits(size_t body_len, size_t bulk_len)
{
    return body_len <= LIMIT_FRAME_BYTES && bulk_len <= LIMIT_FRAME_BYTES - body_len;
}

/* --- addresses --- */

/* A path of any length: beyond sun_path it goes through /proc/self/fd of its folder, which
 * *ret_dir_fd keeps open (-1: not needed). */
int rpc_unix_address(const char *path, struct sockaddr_un *ret, int *ret_dir_fd) MUST_CHECK;
/* No delay, and a peer that vanished is noticed. Failures do not matter. */
void rpc_tcp_tune(int fd);

#endif
