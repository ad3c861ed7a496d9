/* What the RPC tests share: a server on a thread of its own with a few kinds of requests, and a raw
 * peer that does the handshake and then sends whatever a test wants. */
#ifndef TESTS_UNIT_SITE_RPC_TEST_H
#define TESTS_UNIT_SITE_RPC_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <pthread.h>
#include <semaphore.h>

#include <cmocka.h>

#include "site/rpc_int.h"

enum test_request {
    TEST_ECHO = 1, /* body and bulk come back */
    TEST_BULK,     /* body: number of bytes of bulk to send, 4, little endian; moved, not copied */
    TEST_HOLD,     /* kept until TEST_RELEASE, or for good */
    TEST_RELEASE,  /* every held request is echoed, then this one is replied to */
    TEST_BATCH,    /* as TEST_HOLD; all are released when RPC_OUTSTANDING_MAX or `id` == 0 came */
    TEST_PUSH,     /* body: count, as TEST_BULK: so many pushes, numbered by id, then the reply */
    TEST_CLOSE,    /* a reply, then the server closes */
    TEST_SILENT,   /* no reply */
    TEST_SHARE,    /* body: bytes, as TEST_BULK; memory in common, or body: rc, 4 bytes */
    TEST_FLIP      /* all bytes of the memory in common are inverted */
};

struct held {
    struct held *next;
    struct rpc_conn *conn;
    struct rpc_frame frame;
    struct buf storage;
};

struct rig {
    char dir[64];
    char path[128];
    uint16_t port, port_trusted;
    struct loop *loop;
    struct rpc_server *server, *server_trusted;
    struct rpc_auth auth, auth_trusted; /* of the servers, and of honest clients */
    pthread_t thread;
    struct loop_msg stop_msg;
    struct loop_defer release;
    uint32_t stopped_count;
    struct held *held; /* loop thread, as the next two */
    uint32_t held_count, held_max;
    size_t unsent_max; /* unsent reply bytes when a request came in */
    atomic_uint opened, closed, requests;
    atomic_int closed_rc;     /* of the latest */
    atomic_int late_reply_rc; /* of replies to held requests at the end */
    atomic_ullong hlc_seen;
    sem_t holding; /* posted for each held request */
};

#define TEST_HLC UINT64_C(0x1234567890)

void rig_start(struct rig *r, uint32_t patience_ms); /* 0: default */
void rig_stop(struct rig *r);                        /* also asserts opened == closed */

struct rpc_target rig_unix(const struct rig *r);
struct rpc_target rig_tcp(const struct rig *r);
struct rpc_target rig_tcp_trusted(const struct rig *r);
struct rpc_client *rig_connect(const struct rpc_target *t, const struct rpc_auth *auth);
/* An echo of body and bulk must come back. */
void rig_echo(struct rpc_client *c, uint64_t id, struct slice body, struct slice bulk);
int rig_call_number(struct rpc_client *c,
                    uint16_t type,
                    uint64_t id,
                    uint32_t number,
                    uint32_t timeout_ms,
                    struct rpc_reply *reply);
/* Bytes that differ from place to place. Free with mem_free. */
uint8_t *rig_pattern(size_t len, uint8_t seed);
void rig_wait_held(struct rig *r, uint32_t count); /* so many more were held */
int64_t rig_refused(void);                         /* connections refused so far, by all servers */

struct raw {
    int fd;
    struct rpc_seal seal;
    uint8_t hello[RPC_HELLO_BYTES], prove[RPC_PROVE_BYTES]; /* what was sent */
};
int raw_connect(const struct rpc_target *t); /* a socket, nothing sent */
void raw_open(struct raw *raw, const struct rpc_target *t, const struct rpc_auth *auth);
void raw_write(int fd, const void *ptr, size_t len); /* all of it, or until the peer closed */
void raw_read(int fd, void *ptr, size_t len);        /* all of it */
void raw_expect_end(int fd);                         /* reads until the peer closed, then closes */

#endif
