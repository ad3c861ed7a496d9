/* Token codec; see token.h. */
#include "wan/token.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/codec.h"

#define PREFIX "cfs1."
enum {
    TOKEN_VERSION = 1,
    CHECKSUM_BYTES = 4,
    TOKEN_BYTES_MAX = 1 + 8 + 32 + 16 + 1 + 127 + CHECKSUM_BYTES
};
_Static_assert(sizeof PREFIX + (TOKEN_BYTES_MAX + 2) / 3 * 4 < TOKEN_TEXT_MAX, "fits");

static void checksum(struct slice s, uint8_t out[CHECKSUM_BYTES])
{
    uint8_t hash[crypto_generichash_BYTES];
    int rc = crypto_generichash(hash, sizeof hash, s.ptr, s.len, NULL, 0);
    ASSERT(rc == 0);
    memcpy(out, hash, CHECKSUM_BYTES);
}

void token_to_text(const struct token *t, char out[TOKEN_TEXT_MAX])
{
    size_t address_len = strnlen(t->address, sizeof t->address);
    ASSERT(address_len > 0 && address_len <= TOKEN_ADDRESS_MAX);
    struct buf b = {0};
    uint8_t sum[CHECKSUM_BYTES];
    enc_u8(&b, TOKEN_VERSION);
    enc_u64(&b, t->expires_s);
    enc_raw(&b, t->fingerprint, sizeof t->fingerprint);
    enc_raw(&b, t->secret, sizeof t->secret);
    enc_u8(&b, (uint8_t)address_len);
    enc_raw(&b, t->address, address_len);
    checksum(buf_slice(&b), sum);
    enc_raw(&b, sum, sizeof sum);
    memcpy(out, PREFIX, sizeof PREFIX);
    (void)sodium_bin2base64(out + sizeof PREFIX - 1, TOKEN_TEXT_MAX - sizeof PREFIX, b.ptr, b.len,
                            sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    sodium_memzero(b.ptr, b.len);
    buf_deinit(&b);
}

static int token_bytes(const char *text, uint8_t *out, size_t *ret_len, struct err_detail *d)
{
    text += strspn(text, " \t\r\n");
    size_t len = strcspn(text, " \t\r\n");
    if (text[len + strspn(text + len, " \t\r\n")] != '\0') {
        err_detail_set(d, "the token is not valid: there is something behind it: "
                          "copy exactly what `peer invite` printed");
        return ERR_INVALID;
    }
    if (len < sizeof PREFIX - 1 || memcmp(text, PREFIX, sizeof PREFIX - 1) != 0) {
        err_detail_set(d, "the token is not valid: it does not begin with " PREFIX ": "
                          "copy exactly what `peer invite` printed");
        return ERR_INVALID;
    }
    text += sizeof PREFIX - 1;
    len -= sizeof PREFIX - 1;
    const char *end = NULL;
    if (sodium_base642bin(out, TOKEN_BYTES_MAX, text, len, NULL, ret_len, &end,
                          sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0 ||
        end != text + len) {
        err_detail_set(d, "the token is not valid: it holds characters that no token has, or is "
                          "too long: copy exactly what `peer invite` printed");
        return ERR_INVALID;
    }
    return 0;
}

static int bad(struct err_detail *d)
{
    err_detail_set(d, "the token is not valid: it is cut short or mistyped: "
                      "copy exactly what `peer invite` printed");
    return ERR_INVALID;
}

int token_from_text(const char *text, struct token *ret, struct err_detail *d)
{
    uint8_t bytes[TOKEN_BYTES_MAX], want[CHECKSUM_BYTES];
    size_t len = 0;
    int rc = token_bytes(text, bytes, &len, d);
    if (rc != 0)
        return rc;
    if (len < CHECKSUM_BYTES)
        return bad(d);
    len -= CHECKSUM_BYTES;
    checksum(slice_of(bytes, len), want);
    if (memcmp(bytes + len, want, sizeof want) != 0)
        return bad(d);
    struct dec dec = dec_of(slice_of(bytes, len));
    uint8_t version = dec_u8(&dec);
    if (dec.rc == 0 && version != TOKEN_VERSION) {
        err_detail_set(d, "the token has version %u, this program reads %d: update this site",
                       version, TOKEN_VERSION);
        return ERR_VERSION;
    }
    struct token t = {.expires_s = dec_u64(&dec)};
    dec_raw(&dec, t.fingerprint, sizeof t.fingerprint);
    dec_raw(&dec, t.secret, sizeof t.secret);
    uint8_t address_len = dec_u8(&dec);
    if (address_len == 0 || address_len > TOKEN_ADDRESS_MAX)
        dec_fail(&dec, ERR_MALFORMED);
    else
        dec_raw(&dec, t.address, address_len);
    if (dec_end(&dec) != 0 || strlen(t.address) != address_len)
        return bad(d);
    *ret = t;
    return 0;
}
