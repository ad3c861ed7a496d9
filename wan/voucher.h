/* Vouchers: what a site says, with its certificate's key, of one that it has let in.
 *
 * That a site is a member is an operation of the one that let it in. When that one is lost before
 * the operation is everywhere, the new member is a stranger to whoever has not got it, and the
 * operation can come from no other. So whoever gets a snapshot gets a voucher behind it, and shows
 * it to a member that does not know it (wan_voucher.c).
 *
 *   voucher  [version, file system id, who says it, when (ms since 1970), site, name, address,
 *            fingerprint, signature]
 *   request  [version, voucher, certificate PEM]
 *
 * A core: who has the key signs and checks. */
#ifndef WAN_VOUCHER_H
#define WAN_VOUCHER_H

#include "wan/msg.h"
#include "wan/pair.h"

#define VOUCHER_VERSION 1u
#define VOUCHER_MAX 512u
#define VOUCHER_REQUEST_MAX (VOUCHER_MAX + PAIR_CERT_MAX + 16u)
#define SIGNATURE_BYTES 64u

struct voucher {
    uint8_t fs_id[FS_ID_BYTES];
    site_id_t by;
    uint64_t at_ms; /* by the clock of who says it: the site can have done nothing before */
    site_id_t site;
    char name[PAIR_NAME_MAX + 1];
    char address[TOKEN_ADDRESS_MAX + 1]; /* empty: it listens nowhere */
    uint8_t fingerprint[FINGERPRINT_BYTES];
};
/* What is to be signed; then the voucher, with the signature of that. Both append. */
void voucher_said(const struct voucher *v, struct buf *out);
void voucher_encode(const struct voucher *v,
                    const uint8_t signature[SIGNATURE_BYTES],
                    struct buf *out);

void voucher_request_encode(struct slice voucher, struct slice pem, struct buf *out);
/* Nothing of it is proven. *ret_pem borrows from s. ERR_MALFORMED, ERR_VERSION. */
int voucher_request_decode(struct slice s,
                           struct voucher *ret,
                           uint8_t ret_signature[SIGNATURE_BYTES],
                           struct slice *ret_pem) MUST_CHECK;

#endif
