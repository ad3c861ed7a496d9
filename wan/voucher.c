/* What a member says of another one. See voucher.h. */
#include "wan/voucher.h"

#include <string.h>

#include "base/mp.h"
#include "base/util.h"

enum {
    VOUCHER_FIELDS = 9,
    REQUEST_FIELDS = 3
};

static void fields_encode(const struct voucher *v, struct buf *out)
{
    mp_array(out, VOUCHER_FIELDS);
    mp_uint(out, VOUCHER_VERSION);
    mp_bin(out, slice_of(v->fs_id, sizeof v->fs_id));
    mp_uint(out, v->by);
    mp_uint(out, v->at_ms);
    mp_uint(out, v->site);
    mp_cstr(out, v->name);
    mp_cstr(out, v->address);
    mp_bin(out, slice_of(v->fingerprint, sizeof v->fingerprint));
}

void voucher_said(const struct voucher *v, struct buf *out)
{
    static const char what[] = "claudefs voucher 1"; /* the key signs nothing else that begins so */
    buf_append(out, what, sizeof what);
    fields_encode(v, out);
}

void voucher_encode(const struct voucher *v,
                    const uint8_t signature[SIGNATURE_BYTES],
                    struct buf *out)
{
    fields_encode(v, out);
    mp_bin(out, slice_of(signature, SIGNATURE_BYTES));
}

static int voucher_decode(struct slice s, struct voucher *ret, uint8_t signature[SIGNATURE_BYTES])
{
    struct voucher v = {.by = 0};
    struct mp m = mp_of(s);
    uint32_t fields = mp_get_array(&m, 64);
    uint64_t version = mp_get_uint(&m, UINT32_MAX);
    if (m.rc == 0 && version != VOUCHER_VERSION)
        return ERR_VERSION;
    if (fields != VOUCHER_FIELDS)
        mp_fail(&m, ERR_MALFORMED);
    struct slice fs_id = mp_get_bin_exact(&m, sizeof v.fs_id);
    v.by = (site_id_t)mp_get_uint(&m, UINT32_MAX);
    v.at_ms = mp_get_uint(&m, UINT64_MAX / NS_PER_MS);
    v.site = (site_id_t)mp_get_uint(&m, UINT32_MAX - 1);
    pair_text_decode(&m, v.name, PAIR_NAME_MAX);
    pair_text_decode(&m, v.address, TOKEN_ADDRESS_MAX);
    struct slice fingerprint = mp_get_bin_exact(&m, sizeof v.fingerprint);
    struct slice signed_with = mp_get_bin_exact(&m, SIGNATURE_BYTES);
    if (m.rc == 0 && (v.site == 0 || v.by == v.site || !pair_name_valid(v.name)))
        mp_fail(&m, ERR_MALFORMED);
    int rc = mp_end(&m);
    if (rc != 0)
        return rc;
    memcpy(v.fs_id, fs_id.ptr, sizeof v.fs_id);
    memcpy(v.fingerprint, fingerprint.ptr, sizeof v.fingerprint);
    memcpy(signature, signed_with.ptr, SIGNATURE_BYTES);
    *ret = v;
    return 0;
}

void voucher_request_encode(struct slice voucher, struct slice pem, struct buf *out)
{
    mp_array(out, REQUEST_FIELDS);
    mp_uint(out, VOUCHER_VERSION);
    mp_bin(out, voucher);
    mp_bin(out, pem);
}

int voucher_request_decode(struct slice s,
                           struct voucher *ret,
                           uint8_t ret_signature[SIGNATURE_BYTES],
                           struct slice *ret_pem)
{
    struct mp m = mp_of(s);
    uint32_t fields = mp_get_array(&m, 64);
    uint64_t version = mp_get_uint(&m, UINT32_MAX);
    if (m.rc == 0 && version != VOUCHER_VERSION)
        return ERR_VERSION;
    if (fields != REQUEST_FIELDS)
        mp_fail(&m, ERR_MALFORMED);
    struct slice voucher = mp_get_bin(&m, VOUCHER_MAX);
    struct slice pem = mp_get_bin(&m, PAIR_CERT_MAX);
    int rc = mp_end(&m);
    if (rc == 0)
        rc = voucher_decode(voucher, ret, ret_signature);
    if (rc == 0)
        *ret_pem = pem;
    return rc;
}
