/* Certificates, contexts and the BIO that lets OpenSSL read straight from the receive buffer and
 * write straight into the send buffer. */
#include "wan/wan_tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <sodium.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "wan/wan_file.h"

#define KEY_FILE "wan.key"
#define CERT_FILE "wan.crt"
enum {
    CERT_YEARS = 100 /* peers pin the certificate; its end would only be an outage */
};

static int ssl_fail(struct err_detail *d, const char *what)
{
    char text[160];
    unsigned long code = ERR_get_error();
    ERR_error_string_n(code, text, sizeof text);
    ERR_clear_error();
    err_detail_set(d, "%s: %s", what, code == 0 ? "no reason given" : text);
    return ERR_IO;
}

/* --- identity --- */

static int bio_to_buf(BIO *bio, struct buf *out)
{
    char *at = NULL;
    long len = BIO_get_mem_data(bio, &at);
    if (len <= 0)
        return ERR_IO;
    buf_append(out, at, (size_t)len);
    return 0;
}

static int key_make(const char *dir, EVP_PKEY **ret, struct err_detail *d)
{
    struct buf pem = {0};
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    BIO *bio = BIO_new(BIO_s_mem());
    int rc = 0;
    if (key == NULL || bio == NULL ||
        PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1 ||
        bio_to_buf(bio, &pem) != 0)
        rc = ssl_fail(d, "cannot make a key");
    if (rc == 0)
        rc = wan_file_write(dir, KEY_FILE, 0600, buf_slice(&pem), d);
    if (pem.ptr != NULL)
        sodium_memzero(pem.ptr, pem.len);
    buf_deinit(&pem);
    (void)BIO_free(bio); /* memory only */
    if (rc == 0)
        *ret = key;
    else
        EVP_PKEY_free(key);
    return rc;
}

static int key_open(const char *dir, EVP_PKEY **ret, struct err_detail *d)
{
    struct buf pem = {0};
    int rc = wan_file_read(dir, KEY_FILE, &pem, d);
    if (rc == ERR_NOT_FOUND) {
        buf_deinit(&pem);
        return key_make(dir, ret, d);
    }
    if (rc == 0) {
        BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
        *ret = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
        (void)BIO_free(bio); /* memory only */
        if (*ret == NULL) {
            ERR_clear_error();
            err_detail_set(d,
                           "cannot use %s/" KEY_FILE ": it is not a private key: restore it "
                           "from a backup",
                           dir);
            rc = ERR_CORRUPT;
        }
    }
    if (pem.ptr != NULL)
        sodium_memzero(pem.ptr, pem.len);
    buf_deinit(&pem);
    return rc;
}

static bool cert_fill(X509 *x, EVP_PKEY *key, const char *name)
{
    unsigned char serial[16];
    random_bytes(serial, sizeof serial);
    serial[0] = (unsigned char)((serial[0] & 0x7f) | 0x40);
    BIGNUM *bn = BN_bin2bn(serial, sizeof serial, NULL);
    X509_NAME *subject = X509_get_subject_name(x);
    bool good = bn != NULL && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(x)) != NULL &&
                X509_set_version(x, X509_VERSION_3) == 1 &&
                X509_gmtime_adj(X509_getm_notBefore(x), -86400) &&
                X509_time_adj_ex(X509_getm_notAfter(x), 365 * CERT_YEARS, 0, NULL) != NULL &&
                X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name,
                                           -1, -1, 0) == 1 &&
                X509_set_issuer_name(x, subject) == 1 && X509_set_pubkey(x, key) == 1 &&
                X509_sign(x, key, NULL) != 0;
    BN_free(bn);
    return good;
}

static int
cert_make(const char *dir, const char *name, struct wan_identity *id, struct err_detail *d)
{
    X509 *x = X509_new();
    BIO *bio = BIO_new(BIO_s_mem());
    int rc = 0;
    if (x == NULL || bio == NULL || !cert_fill(x, id->key, name) ||
        PEM_write_bio_X509(bio, x) != 1 || bio_to_buf(bio, &id->pem) != 0)
        rc = ssl_fail(d, "cannot make a certificate");
    if (rc == 0)
        rc = wan_file_write(dir, CERT_FILE, 0644, buf_slice(&id->pem), d);
    (void)BIO_free(bio); /* memory only */
    if (rc == 0)
        id->cert = x;
    else
        X509_free(x);
    return rc;
}

static X509 *cert_parse(struct slice pem)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    X509 *x = bio == NULL ? NULL : PEM_read_bio_X509(bio, NULL, NULL, NULL);
    (void)BIO_free(bio); /* memory only */
    ERR_clear_error();
    return x;
}

static int
cert_open(const char *dir, const char *name, struct wan_identity *id, struct err_detail *d)
{
    int rc = wan_file_read(dir, CERT_FILE, &id->pem, d);
    if (rc == ERR_NOT_FOUND)
        return cert_make(dir, name, id, d);
    if (rc != 0)
        return rc;
    id->cert = cert_parse(buf_slice(&id->pem));
    if (id->cert == NULL || X509_check_private_key(id->cert, id->key) != 1) {
        ERR_clear_error();
        err_detail_set(d,
                       "cannot use %s/" CERT_FILE ": it does not belong to " KEY_FILE
                       ": restore both from one backup, or remove both and pair again",
                       dir);
        return ERR_CORRUPT;
    }
    return 0;
}

int wan_identity_open(const char *dir,
                      const char *name,
                      struct wan_identity *ret,
                      struct err_detail *d)
{
    struct wan_identity id = {0};
    int rc = key_open(dir, &id.key, d);
    if (rc == 0)
        rc = cert_open(dir, name, &id, d);
    if (rc == 0)
        rc = wan_fingerprint(id.cert, id.fingerprint);
    if (rc == 0)
        *ret = id;
    else
        wan_identity_deinit(&id);
    return rc;
}

void wan_identity_deinit(struct wan_identity *id)
{
    EVP_PKEY_free(id->key);
    X509_free(id->cert);
    buf_deinit(&id->pem);
    *id = (struct wan_identity){0};
}

int wan_fingerprint(X509 *cert, uint8_t ret[FINGERPRINT_BYTES])
{
    unsigned len = 0;
    uint8_t hash[EVP_MAX_MD_SIZE];
    if (X509_digest(cert, EVP_sha256(), hash, &len) != 1 || len != FINGERPRINT_BYTES) {
        ERR_clear_error();
        return ERR_MALFORMED;
    }
    memcpy(ret, hash, FINGERPRINT_BYTES);
    return 0;
}

int wan_fingerprint_pem(struct slice pem, uint8_t ret[FINGERPRINT_BYTES])
{
    if (pem.len == 0 || pem.len > WAN_FILE_MAX)
        return ERR_MALFORMED;
    X509 *x = cert_parse(pem);
    int rc = x == NULL ? ERR_MALFORMED : wan_fingerprint(x, ret);
    X509_free(x);
    return rc;
}

int wan_identity_sign(const struct wan_identity *id,
                      struct slice said,
                      uint8_t ret[SIGNATURE_BYTES])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    size_t len = SIGNATURE_BYTES;
    bool good = ctx != NULL && EVP_DigestSignInit(ctx, NULL, NULL, NULL, id->key) == 1 &&
                EVP_DigestSign(ctx, ret, &len, said.ptr, said.len) == 1 && len == SIGNATURE_BYTES;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return good ? 0 : ERR_NO_MEMORY;
}

int wan_signature_check(struct slice pem,
                        struct slice said,
                        const uint8_t signature[SIGNATURE_BYTES])
{
    X509 *x = pem.len == 0 || pem.len > WAN_FILE_MAX ? NULL : cert_parse(pem);
    EVP_PKEY *key = x != NULL ? X509_get0_pubkey(x) : NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int rc = key == NULL || ctx == NULL ? ERR_MALFORMED : ERR_AUTH;
    if (rc == ERR_AUTH && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
        EVP_DigestVerify(ctx, signature, SIGNATURE_BYTES, said.ptr, said.len) == 1)
        rc = 0;
    EVP_MD_CTX_free(ctx);
    X509_free(x);
    ERR_clear_error();
    return rc;
}

void wan_fingerprint_text(const uint8_t fp[FINGERPRINT_BYTES], char out[2 * FINGERPRINT_BYTES + 1])
{
    (void)sodium_bin2hex(out, 2 * FINGERPRINT_BYTES + 1, fp, FINGERPRINT_BYTES);
}

/* --- contexts --- */

/* Replaces the check against authorities: the pinned fingerprint, or nothing when the caller wants
 * to look at it itself. That the other side holds the key is checked by TLS in any case. */
static int cert_verify(X509_STORE_CTX *store, void *arg)
{
    (void)arg;
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    const uint8_t *expected = SSL_get_app_data(ssl);
    uint8_t got[FINGERPRINT_BYTES];
    X509 *cert = X509_STORE_CTX_get0_cert(store);
    if (cert != NULL && wan_fingerprint(cert, got) == 0 &&
        (expected == NULL || sodium_memcmp(got, expected, sizeof got) == 0)) {
        X509_STORE_CTX_set_error(store, X509_V_OK);
        return 1;
    }
    X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
    return 0;
}

static const unsigned char alpn_both[] = "\x02h2\x0b"
                                         "cfs-reverse";
#define ALPN_H2_BYTES 3u
#define ALPN_BOTH_BYTES (sizeof alpn_both - 1)

static int alpn_select(SSL *ssl,
                       const unsigned char **out,
                       unsigned char *out_len,
                       const unsigned char *in,
                       unsigned in_len,
                       void *arg)
{
    (void)ssl;
    (void)arg;
    unsigned char *found;
    if (SSL_select_next_proto(&found, out_len, alpn_both, ALPN_BOTH_BYTES, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = found;
    return SSL_TLSEXT_ERR_OK;
}

int wan_tls_context(const struct wan_identity *id, SSL_CTX **ret, struct err_detail *d)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
        SSL_CTX_use_certificate(ctx, id->cert) != 1 || SSL_CTX_use_PrivateKey(ctx, id->key) != 1 ||
        SSL_CTX_set_num_tickets(ctx, 0) != 1) {
        SSL_CTX_free(ctx);
        return ssl_fail(d, "cannot set up TLS");
    }
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, cert_verify, NULL);
    SSL_CTX_set_alpn_select_cb(ctx, alpn_select, NULL);
    *ret = ctx;
    return 0;
}

/* --- the BIO --- */

static int io_write(BIO *bio, const char *data, size_t len, size_t *ret_done)
{
    struct wan_tls_io *io = BIO_get_data(bio);
    buf_append(io->out, data, len);
    *ret_done = len;
    return 1;
}

static int io_read(BIO *bio, char *out, size_t len, size_t *ret_done)
{
    struct wan_tls_io *io = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (io->in.len == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    size_t take = MIN(len, io->in.len);
    memcpy(out, io->in.ptr, take);
    io->in = slice_of(io->in.ptr + take, io->in.len - take);
    *ret_done = take;
    return 1;
}

static long io_ctrl(BIO *bio, int what, long arg, void *ptr)
{
    (void)bio;
    (void)arg;
    (void)ptr;
    return what == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *io_methods; /* one for the process, never freed */

static void io_methods_make(void)
{
    io_methods = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "claudefs");
    ASSERT(io_methods != NULL);
    int rc = BIO_meth_set_write_ex(io_methods, io_write) &
             BIO_meth_set_read_ex(io_methods, io_read) & BIO_meth_set_ctrl(io_methods, io_ctrl);
    ASSERT(rc == 1);
}

static const BIO_METHOD *io_method(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int rc = pthread_once(&once, io_methods_make);
    ASSERT(rc == 0);
    return io_methods;
}

int wan_tls_new(
    SSL_CTX *ctx, enum wan_tls_role role, struct wan_tls_io *io, const uint8_t *expected, SSL **ret)
{
    SSL *ssl = SSL_new(ctx);
    BIO *bio = BIO_new(io_method());
    bool reverse = role == TLS_DIALS_TO_SERVE;
    const unsigned char *alpn = alpn_both + (reverse ? ALPN_H2_BYTES : 0);
    unsigned alpn_len = reverse ? (unsigned)ALPN_BOTH_BYTES - ALPN_H2_BYTES : ALPN_H2_BYTES;
    if (ssl == NULL || bio == NULL || SSL_set_alpn_protos(ssl, alpn, alpn_len) != 0) {
        SSL_free(ssl);
        (void)BIO_free(bio); /* memory only */
        ERR_clear_error();
        return ERR_NO_MEMORY;
    }
    BIO_set_data(bio, io);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    /* The callback gets it as a plain pointer and only reads. */
    (void)SSL_set_app_data(ssl, (void *)(uintptr_t)expected);
    if (role == TLS_ACCEPTS)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    *ret = ssl;
    return 0;
}

int wan_tls_peer(SSL *ssl, uint8_t ret_fingerprint[FINGERPRINT_BYTES], bool *ret_reverse)
{
    X509 *cert = SSL_get1_peer_certificate(ssl);
    if (cert == NULL)
        return ERR_AUTH;
    int rc = wan_fingerprint(cert, ret_fingerprint);
    X509_free(cert);
    if (rc != 0)
        return ERR_AUTH;
    const unsigned char *proto = NULL;
    unsigned len = 0;
    SSL_get0_alpn_selected(ssl, &proto, &len);
    *ret_reverse = len > 2;
    return len > 0 ? 0 : ERR_VERSION; /* it is one of those offered */
}

int wan_tls_error(SSL *ssl, struct err_detail *d)
{
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_REASON(code);
    if (SSL_get_verify_result(ssl) == X509_V_ERR_CERT_REJECTED) {
        ERR_clear_error();
        err_detail_set(d, "its certificate is not the one that was exchanged at pairing: another "
                          "program answers there, or its wan.key was replaced: if that was you, "
                          "remove the site and pair again");
        return ERR_AUTH;
    }
    char text[160];
    ERR_error_string_n(code, text, sizeof text);
    ERR_clear_error();
    err_detail_set(d, "TLS failed: %s", code == 0 ? "the connection ended" : text);
    return reason == SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED ||
                   reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE
               ? ERR_AUTH
               : ERR_PEER;
}

int wan_tls_exporter(SSL *ssl, uint8_t *out, size_t len)
{
    static const char label[] = "EXPORTER-claudefs-pair";
    int rc = SSL_export_keying_material(ssl, out, len, label, sizeof label - 1, NULL, 0, 0);
    ERR_clear_error();
    return rc == 1 ? 0 : ERR_AUTH;
}
