/* Tokens: what `peer invite` prints and `peer accept` takes.
 *
 *   "cfs1." base64url( u8 version | u64 expiry, seconds since 1970 | 32 fingerprint | 16 secret |
 *                      u8 length, HOST:PORT | 4 checksum (BLAKE2b of all before) )
 *
 * The checksum finds slips of the pen; what keeps others out is the secret. A core. */
#ifndef WAN_TOKEN_H
#define WAN_TOKEN_H

#include "base/err.h"

#define TOKEN_SECRET_BYTES 16u
#define TOKEN_ADDRESS_MAX 127u
#define TOKEN_TEXT_MAX 320u
#define FINGERPRINT_BYTES 32u

struct token {
    uint64_t expires_s;                     /* since 1970 */
    uint8_t fingerprint[FINGERPRINT_BYTES]; /* SHA-256 of the inviter's certificate, DER */
    uint8_t secret[TOKEN_SECRET_BYTES];
    char address[TOKEN_ADDRESS_MAX + 1]; /* HOST:PORT where the inviter listens */
};
void token_to_text(const struct token *t, char out[TOKEN_TEXT_MAX]);
/* ERR_INVALID with what is wrong and what to do; ERR_VERSION. Blanks around it are accepted. */
int token_from_text(const char *text, struct token *ret, struct err_detail *d) MUST_CHECK;

#endif
