/* TLS of the links between sites: a self-signed certificate per site, pinned by fingerprint. A
 * shell around OpenSSL; no authority signs anything, no name is checked, the certificate is the
 * identity. TLS 1.3 only, without resumption, so that a removed site cannot come back. WAN thread,
 * but for wan_identity_open. */
#ifndef WAN_WAN_TLS_H
#define WAN_WAN_TLS_H

#include <openssl/ssl.h>

#include "base/buf.h"
#include "base/err.h"
#include "wan/token.h"
#include "wan/voucher.h"

struct wan_identity {
    EVP_PKEY *key;
    X509 *cert;
    uint8_t fingerprint[FINGERPRINT_BYTES];
    struct buf pem; /* of the certificate */
};
/* DIR/wan.key (0600) and DIR/wan.crt; made when missing. A certificate that does not fit the key
 * is an error: peers have pinned it. Any thread. */
int wan_identity_open(const char *dir,
                      const char *name,
                      struct wan_identity *ret,
                      struct err_detail *d) MUST_CHECK;
void wan_identity_deinit(struct wan_identity *id); /* accepts zeroed */

int wan_fingerprint(X509 *cert, uint8_t ret[FINGERPRINT_BYTES]) MUST_CHECK;
/* Of a PEM certificate that came from elsewhere. ERR_MALFORMED. */
int wan_fingerprint_pem(struct slice pem, uint8_t ret[FINGERPRINT_BYTES]) MUST_CHECK;
void wan_fingerprint_text(const uint8_t fp[FINGERPRINT_BYTES], char out[2 * FINGERPRINT_BYTES + 1]);

/* With the certificate's key, and by it. Any thread. ERR_NO_MEMORY; ERR_AUTH: another key signed
 * that; ERR_MALFORMED: it is no such certificate. */
int wan_identity_sign(const struct wan_identity *id,
                      struct slice said,
                      uint8_t ret[SIGNATURE_BYTES]) MUST_CHECK;
int wan_signature_check(struct slice pem,
                        struct slice said,
                        const uint8_t signature[SIGNATURE_BYTES]) MUST_CHECK;

/* One context for both roles; owned by the caller. */
int wan_tls_context(const struct wan_identity *id, SSL_CTX **ret, struct err_detail *d) MUST_CHECK;

/* The bytes between TLS and the socket. */
struct wan_tls_io {
    struct slice in; /* received, not read yet; borrowed for the time of a call */
    struct buf *out; /* to send */
};
/* Who is the client in HTTP/2 is agreed on by ALPN: "h2", the one that dialled; "cfs-reverse", the
 * other one, for sites that cannot be dialled. */
enum wan_tls_role {
    TLS_ACCEPTS,       /* either */
    TLS_DIALS,         /* offers h2 */
    TLS_DIALS_TO_SERVE /* offers cfs-reverse */
};
/* expected NULL: any certificate (the caller looks at it afterwards). Both io and expected must
 * outlive the SSL. */
int wan_tls_new(SSL_CTX *ctx,
                enum wan_tls_role role,
                struct wan_tls_io *io,
                const uint8_t *expected,
                SSL **ret) MUST_CHECK;
/* After the handshake. ERR_AUTH: no certificate; ERR_VERSION: the other side does not speak h2. */
int wan_tls_peer(SSL *ssl,
                 uint8_t ret_fingerprint[FINGERPRINT_BYTES],
                 bool *ret_reverse) MUST_CHECK;
/* Why the last operation failed; clears OpenSSL's queue. ERR_AUTH for certificates, else ERR_PEER.
 */
int wan_tls_error(SSL *ssl, struct err_detail *d);
int wan_tls_exporter(SSL *ssl, uint8_t *out, size_t len) MUST_CHECK;

#endif
