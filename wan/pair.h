/* Pairing: what the two sides say to each other, and how they prove it.
 *
 * The token's secret never travels and is not stored. From it come a signature key and a box key;
 * the inviter stores the two public halves only, so that its files do not help a thief to pair. The
 * joiner signs the transcript: the TLS channel (its exporter), both certificates and all it says
 * about itself. The inviter answers with the file-system key in a box that only the secret opens.
 *
 *   request   [version, invite id, site, name, address, certificate PEM, signature]
 *   response  sealed box of [shard_count, fs_key, site, name, address, certificate PEM]
 *
 * A core, but that a sealed box draws an ephemeral key from libsodium. */
#ifndef WAN_PAIR_H
#define WAN_PAIR_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "base/mp.h"
#include "wan/token.h"

#define PAIR_VERSION 1u
#define INVITE_ID_BYTES 8u
#define PAIR_EXPORTER_BYTES 32u
#define PAIR_CERT_MAX 4096u
#define PAIR_NAME_MAX 32u
#define PAIR_REQUEST_MAX 8192u

/* What the inviter keeps of a token. */
struct invite_key {
    uint8_t id[INVITE_ID_BYTES];
    uint8_t sign_pk[32];
    uint8_t box_pk[32];
};
/* What a connection was secured with; both certificates' fingerprints and the TLS exporter. */
struct pair_channel {
    uint8_t exporter[PAIR_EXPORTER_BYTES];
    uint8_t inviter[FINGERPRINT_BYTES];
    uint8_t joiner[FINGERPRINT_BYTES];
};
struct pair_site {
    site_id_t site;
    char name[PAIR_NAME_MAX + 1];
    char address[TOKEN_ADDRESS_MAX + 1]; /* empty: it listens nowhere */
    struct slice cert;                   /* PEM; borrowed */
};
void pair_key_make(const uint8_t secret[TOKEN_SECRET_BYTES], struct invite_key *ret);
bool pair_name_valid(const char *name); /* [A-Za-z0-9_-]{1,32} */
/* Text that is shown to people. out: room for len_max and the end. */
void pair_text_decode(struct mp *m, char *out, size_t len_max);

void pair_request_encode(const uint8_t secret[TOKEN_SECRET_BYTES],
                         const struct pair_channel *channel,
                         const struct pair_site *me,
                         struct buf *out);
/* First half: whose invitation is it? Fields of *ret_joiner are borrowed from s, and not proven
 * before pair_request_verify. ERR_MALFORMED, ERR_VERSION. */
int pair_request_decode(struct slice s,
                        uint8_t ret_invite_id[INVITE_ID_BYTES],
                        struct pair_site *ret_joiner) MUST_CHECK;
/* Second half: ERR_AUTH when the request was not made with the token's secret for this channel. */
int pair_request_verify(struct slice s,
                        const struct invite_key *key,
                        const struct pair_channel *channel) MUST_CHECK;

struct pair_grant {
    unsigned shard_count;
    uint8_t fs_key[32];
    struct pair_site inviter;
};
void pair_grant_seal(const struct pair_grant *g, const struct invite_key *key, struct buf *out);
/* Slices of *ret are borrowed from *plain, which the caller frees. ERR_AUTH: not for this secret.
 */
int pair_grant_open(struct slice s,
                    const uint8_t secret[TOKEN_SECRET_BYTES],
                    struct buf *plain,
                    struct pair_grant *ret) MUST_CHECK;

#endif
