/* Identities of sites, with wan_tls.h's interface: a certificate is a random text, its fingerprint
 * a hash of it. */
#include <sodium.h>
#include <string.h>

#include "base/buf.h"
#include "wan/wan_file.h"
#include "wan/wan_tls.h"

int wan_fingerprint_pem(struct slice pem, uint8_t ret[FINGERPRINT_BYTES])
{
    static const char head[] = "simulated certificate ";
    if (pem.len < sizeof head - 1 || memcmp(pem.ptr, head, sizeof head - 1) != 0)
        return ERR_MALFORMED;
    crypto_hash_sha256(ret, pem.ptr, pem.len);
    return 0;
}

int wan_identity_open(const char *dir,
                      const char *name,
                      struct wan_identity *ret,
                      struct err_detail *d)
{
    struct wan_identity id = {0};
    int rc = wan_file_read(dir, "wan.crt", &id.pem, d);
    if (rc == ERR_NOT_FOUND) {
        uint64_t a, b;
        randombytes_buf(&a, sizeof a);
        randombytes_buf(&b, sizeof b);
        char *text = mem_printf("simulated certificate %s %016llx%016llx\n", name,
                                (unsigned long long)a, (unsigned long long)b);
        buf_append(&id.pem, text, strlen(text));
        mem_free(text);
        rc = wan_file_write(dir, "wan.crt", 0644, buf_slice(&id.pem), d);
    }
    if (rc == 0)
        rc = wan_fingerprint_pem(buf_slice(&id.pem), id.fingerprint);
    if (rc == 0)
        *ret = id;
    else
        buf_deinit(&id.pem);
    return rc;
}

void wan_identity_deinit(struct wan_identity *id)
{
    buf_deinit(&id->pem);
}

/* Whoever knows the certificate could sign: nobody in here does but its owner. */
int wan_identity_sign(const struct wan_identity *id,
                      struct slice said,
                      uint8_t ret[SIGNATURE_BYTES])
{
    return crypto_generichash(ret, SIGNATURE_BYTES, said.ptr, said.len, id->fingerprint,
                              sizeof id->fingerprint);
}

int wan_signature_check(struct slice pem,
                        struct slice said,
                        const uint8_t signature[SIGNATURE_BYTES])
{
    struct wan_identity id = {0};
    uint8_t good[SIGNATURE_BYTES];
    int rc = wan_fingerprint_pem(pem, id.fingerprint);
    if (rc == 0)
        rc = wan_identity_sign(&id, said, good);
    return rc != 0 || memcmp(good, signature, sizeof good) == 0 ? rc : ERR_AUTH;
}

void wan_fingerprint_text(const uint8_t fp[FINGERPRINT_BYTES], char out[2 * FINGERPRINT_BYTES + 1])
{
    (void)sodium_bin2hex(out, 2 * FINGERPRINT_BYTES + 1, fp, FINGERPRINT_BYTES);
}

/* The context holds nothing but whose it is. */
int wan_tls_context(const struct wan_identity *id, SSL_CTX **ret, struct err_detail *d)
{
    (void)d;
    *ret = mem_dup(id->fingerprint, sizeof id->fingerprint);
    return 0;
}

void SSL_CTX_free(SSL_CTX *ctx)
{
    mem_free(ctx);
}
