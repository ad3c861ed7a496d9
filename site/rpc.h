/* Remote procedure calls inside a site: framed requests and replies over a Unix or TCP socket.
 *
 * Frame: header of 32 bytes, little endian: magic "CFR1" (4), type (2), flags (2), id (8), body_len
 * (4), bulk_len (4), hlc (8); then body (msgpack, see site/proto.h) and bulk (raw bytes). hlc is
 * the sender's hybrid logical clock and rides on everything. After the handshake, frames on TCP are
 * sealed with libsodium's secretstream (one message per frame) unless both ends were told that the
 * network is trusted; on a Unix socket they are not.
 *
 * Handshake: both sides send 32 bytes of ephemeral X25519 key and a random nonce, derive the
 * session from the exchange and the site key, and prove knowledge of it with a MAC over the
 * transcript; a wrong key is ERR_AUTH on both sides, before anything else is parsed. Then the
 * client's first request is RPC_HELLO (proto.h) which joins the connection to its session.
 *
 * Server side: one loop thread, io_uring (multishot where the kernel has it), replies written in
 * one send per turn, reading from a connection stops while it has more than a bounded number of
 * requests or reply bytes outstanding. Client side: blocking, one connection per thread (no hop
 * between threads), see struct rpc_client. */
#ifndef SITE_RPC_H
#define SITE_RPC_H

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"

#define RPC_HEADER_BYTES 32u
#define RPC_FLAG_REPLY 1u
#define RPC_FLAG_PUSH 2u /* from server to client, no reply expected */

struct rpc_frame {
    uint16_t type, flags;
    uint64_t id;
    uint64_t hlc;
    struct slice body, bulk; /* borrowed */
};
/* ERR_MALFORMED for a bad magic, ERR_TOO_BIG beyond LIMIT_FRAME_BYTES; checks the header only. */
int rpc_header_decode(const uint8_t in[RPC_HEADER_BYTES],
                      struct rpc_frame *ret,
                      uint32_t *ret_body_len,
                      uint32_t *ret_bulk_len) MUST_CHECK;
void rpc_header_encode(const struct rpc_frame *f, uint8_t out[RPC_HEADER_BYTES]);

struct rpc_auth {
    uint8_t site_key[32];
    bool trusted_network; /* TCP frames not sealed; both ends must say so */
};

/* ---- server ---- */
struct rpc_server;
struct rpc_conn; /* one accepted connection; owned by the server */
struct rpc_server_events {
    void (*opened)(void *ctx, struct rpc_conn *c); /* after the handshake */
    void (*request)(void *ctx, struct rpc_conn *c, const struct rpc_frame *f);
    /* Once for each opened(): the last use of c but for unref. rc 0: rpc_conn_close; ERR_CLOSED:
     * the peer went away; otherwise what was wrong with it (already logged). */
    void (*closed)(void *ctx, struct rpc_conn *c, int rc);
    uint64_t (*hlc)(void *ctx); /* to stamp outgoing frames */
    void (*hlc_seen)(void *ctx, uint64_t hlc);
    void *ctx;
};
int rpc_server_new(struct rpc_server **ret,
                   struct loop *loop,
                   const struct rpc_auth *auth,
                   const struct rpc_server_events *events) MUST_CHECK;
/* Removes a stale socket file. *ret_port (may be NULL) = the port taken when port was 0. */
int rpc_server_listen_unix(struct rpc_server *s, const char *path, struct err_detail *d) MUST_CHECK;
int rpc_server_listen_tcp(struct rpc_server *s,
                          const char *host,
                          uint16_t port,
                          uint16_t *ret_port,
                          struct err_detail *d) MUST_CHECK;
/* Bounds the handshake and, when closing, the writing of what is queued; 5000 unless told. */
void rpc_server_set_patience_ms(struct rpc_server *s, uint32_t ms);
/* Stops accepting, closes every connection as rpc_conn_close does; stopped() runs on the loop after
 * the last closed(). Requests may still be in flight: their replies say ERR_CLOSED. */
void rpc_server_stop(struct rpc_server *s, void (*stopped)(void *ctx), void *ctx);
/* In or after stopped(), or when nothing ever listened. Accepts NULL. Connections that are still
 * referred to outlive it. */
void rpc_server_free(struct rpc_server *s);

/* Loop thread. Copies what it is given; may be called after the peer went away (no effect until
 * closed was called). Reply with the request's type and id. ERR_CLOSED, or 0. */
int rpc_reply(struct rpc_conn *c, uint16_t type, uint64_t id, struct slice body, struct slice bulk);
/* As rpc_reply, for bulk that need not be copied: takes `storage` over (it is empty afterwards,
 * whatever the result); bulk lies within it. */
int rpc_reply_move(struct rpc_conn *c,
                   uint16_t type,
                   uint64_t id,
                   struct slice body,
                   struct buf *storage,
                   struct slice bulk);
/* Memory that this connection and its client have in common: answers the request with its
 * descriptor and its length in the body that the caller made. Only over a Unix socket, once for a
 * connection, and while fewer than RPC_SHARES_MAX have some: ERR_NOT_SUPPORTED, ERR_LIMIT. It is
 * there until the last reference to the connection is gone. The client may write to it at any
 * time: whatever is read there is to be read once, and checked afterwards. */
#define RPC_SHARES_MAX 32u
int rpc_share_make(struct rpc_conn *c, size_t bytes) MUST_CHECK;
void rpc_share_reply(struct rpc_conn *c, uint16_t type, uint64_t id, struct slice body);
uint8_t *rpc_share(const struct rpc_conn *c, size_t *ret_len); /* NULL: none */
/* A peer that lets pushes pile up beyond a bound is closed. */
int rpc_push(struct rpc_conn *c, uint16_t type, uint64_t id, struct slice body);
/* Inside request() only: makes the frame outlive the call. *storage (empty or reused) owns the
 * bytes afterwards, *ret_frame points into it; a large frame is handed over without a copy. f stays
 * valid until request() returns. */
void rpc_request_take(struct rpc_conn *c,
                      const struct rpc_frame *f,
                      struct buf *storage,
                      struct rpc_frame *ret_frame);
/* What is queued still goes out; nothing more is read. closed() follows, never from inside. */
void rpc_conn_close(struct rpc_conn *c);
void rpc_conn_set_user(struct rpc_conn *c, void *user);
void *rpc_conn_user(const struct rpc_conn *c);
/* Requests that are being worked on keep a connection's memory alive; reading stops while more than
 * a bounded number of references are held. A request of more than 64 KiB must be replied to: until
 * then its bytes count against what the connection may have outstanding. */
void rpc_conn_ref(struct rpc_conn *c);
void rpc_conn_unref(struct rpc_conn *c);
bool rpc_conn_is_open(const struct rpc_conn *c);
bool rpc_conn_is_unix(const struct rpc_conn *c);
const char *rpc_conn_text(const struct rpc_conn *c); /* "unix pid 123" / "tcp 127.0.0.1:4711" */

/* ---- client: blocking; one thread at a time per connection ---- */
struct rpc_client;
struct rpc_target {
    const char *unix_path; /* or NULL */
    const char *host;      /* TCP */
    uint16_t port;
};
struct rpc_reply {
    struct rpc_frame frame; /* slices into `storage` */
    struct buf storage;     /* owned by the caller, reused between calls; buf_deinit at the end */
};
int rpc_client_connect(struct rpc_client **ret,
                       const struct rpc_target *target,
                       const struct rpc_auth *auth,
                       uint32_t timeout_ms,
                       struct err_detail *d) MUST_CHECK;
void rpc_client_close(struct rpc_client *c); /* accepts NULL */
/* Sends and waits for the reply with this id. timeout_ms 0 = for ever. ERR_TOO_BIG: nothing was
 * sent. ERR_PEER: it sent something impossible; unusable afterwards. ERR_UNREACHABLE when the
 * connection broke (whether the request was carried out is then unknown: retry with the same
 * number, see proto.h), ERR_TIMEOUT (connection unusable afterwards). */
int rpc_client_call(struct rpc_client *c,
                    uint16_t type,
                    uint64_t id,
                    uint64_t hlc,
                    struct slice body,
                    struct slice bulk,
                    uint32_t timeout_ms,
                    struct rpc_reply *reply) MUST_CHECK;
/* A call whose answer may bring memory that both ends have in common: mapped at *ret, of *ret_len
 * bytes; munmap it. It brought none: NULL and 0. Errors as of rpc_client_call, or of mapping it. */
int rpc_client_share(struct rpc_client *c,
                     uint16_t type,
                     uint64_t id,
                     struct slice body,
                     struct rpc_reply *reply,
                     uint8_t **ret,
                     size_t *ret_len) MUST_CHECK;
/* For the push connection: waits for the next frame. ERR_TIMEOUT leaves the connection usable
 * unless part of a large frame had arrived. A push that comes in during a call is kept for this. */
int rpc_client_recv(struct rpc_client *c, uint32_t timeout_ms, struct rpc_reply *reply) MUST_CHECK;
/* Sends and does not wait: for requests that have no reply (one that comes nevertheless is dropped
 * by the next call). */
int rpc_client_send(
    struct rpc_client *c, uint16_t type, uint64_t id, uint64_t hlc, struct slice body) MUST_CHECK;
int rpc_client_fd(const struct rpc_client *c); /* for poll and shutdown(2) from elsewhere */

#endif
