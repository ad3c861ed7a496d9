/* wan/msg.h: every message of a stream, from any bytes; what decodes encodes to an equal one. And
 * what a member says of another (wan/voucher.h), which a stranger shows. */
#include <string.h>

#include "base/assert.h"
#include "tests/fuzz/fuzz.h"
#include "wan/msg.h"
#include "wan/voucher.h"

enum {
    SHARDS = 3
};

static void check_hello(struct slice s)
{
    struct msg_hello *h = mem_calloc(1, sizeof *h), *again = mem_calloc(1, sizeof *again);
    struct buf out = {0};
    if (msg_hello_decode(s, h) == 0) {
        ASSERT(h->shard_count > 0 && h->shard_count <= SHARD_COUNT_MAX);
        msg_hello_encode(h, &out);
        ASSERT(msg_hello_decode(buf_slice(&out), again) == 0);
        ASSERT(memcmp(h->next, again->next, sizeof h->next) == 0);
        ASSERT(memcmp(h->last, again->last, sizeof h->last) == 0);
        ASSERT(h->to == again->to);
    }
    buf_deinit(&out);
    mem_free(h);
    mem_free(again);
}

static void check_welcome(struct slice s)
{
    struct msg_welcome *w = mem_calloc(1, sizeof *w), *again = mem_calloc(1, sizeof *again);
    struct buf out = {0};
    if (msg_welcome_decode(s, w) == 0) {
        ASSERT(w->shard_count <= SHARD_COUNT_MAX);
        msg_welcome_encode(w, &out);
        ASSERT(msg_welcome_decode(buf_slice(&out), again) == 0);
        ASSERT(memcmp(w->yours, again->yours, sizeof w->yours) == 0);
        ASSERT(memcmp(w->last, again->last, sizeof w->last) == 0);
    }
    buf_deinit(&out);
    mem_free(w);
    mem_free(again);
}

static void check_ack(struct slice s)
{
    struct msg_ack a;
    if (msg_ack_decode(s, SHARDS, &a) != 0)
        return;
    for (uint32_t i = 0; i < a.next_count; i++)
        ASSERT(a.next[i].shard < SHARDS);
    for (uint32_t i = 0; i < a.seq_count; i++)
        ASSERT(a.seqs[i].shard < SHARDS && a.seqs[i].site != 0);
    msg_ack_deinit(&a);
}

static void check_absent(struct slice s)
{
    struct msg_absent one, two;
    struct err_detail d;
    struct buf out = {0};
    msg_absent_decode(s, &one);
    ASSERT(one.rc < 0 && one.link_count <= SITE_COUNT_MAX);
    msg_absent_encode(&one, err_text(one.rc), &out);
    msg_absent_decode(buf_slice(&out), &two);
    ASSERT(two.rc == one.rc && two.site == one.site && two.link_count == one.link_count);
    ASSERT(memcmp(two.links, one.links, one.link_count * sizeof one.links[0]) == 0);
    ASSERT(msg_error_decode(buf_slice(&out), &d) == one.rc);
    buf_deinit(&out);
}

static void check_return(struct slice s)
{
    struct msg_return one, two;
    struct buf out = {0};
    if (msg_return_decode(s, &one) != 0)
        return;
    ASSERT(one.after != 0 && one.after != one.before && one.after != UINT32_MAX);
    msg_return_encode(&one, &out);
    int rc = msg_return_decode(buf_slice(&out), &two);
    ASSERT(rc == 0 && out.len <= s.len && out.len <= MSG_RETURN_MAX);
    ASSERT(one.before == two.before && one.after == two.after);
    ASSERT(memcmp(one.fs_id, two.fs_id, sizeof one.fs_id) == 0);
    buf_deinit(&out);
}

static void check_voucher(struct slice s)
{
    struct voucher one, two;
    uint8_t signature[SIGNATURE_BYTES], again[SIGNATURE_BYTES];
    struct buf voucher = {0}, request = {0};
    struct slice pem, same;
    if (voucher_request_decode(s, &one, signature, &pem) != 0)
        return;
    ASSERT(one.site != 0 && one.site != one.by && pair_name_valid(one.name));
    ASSERT(pem.len == 0 || (pem.ptr > s.ptr && pem.ptr + pem.len <= s.ptr + s.len));
    voucher_encode(&one, signature, &voucher);
    voucher_request_encode(buf_slice(&voucher), pem, &request);
    ASSERT(voucher.len <= VOUCHER_MAX && request.len <= VOUCHER_REQUEST_MAX);
    int rc = voucher_request_decode(buf_slice(&request), &two, again, &same);
    ASSERT(rc == 0 && slice_equal(pem, same) && memcmp(again, signature, sizeof again) == 0);
    ASSERT(one.by == two.by && one.at_ms == two.at_ms && one.site == two.site &&
           strcmp(one.address, two.address) == 0);
    ASSERT(memcmp(one.fingerprint, two.fingerprint, sizeof one.fingerprint) == 0);
    buf_deinit(&voucher);
    buf_deinit(&request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice s = slice_of(data, size);
    struct msg_heartbeat h;
    struct err_detail d;
    struct vv vvs[SHARDS];
    uint64_t id;
    check_hello(s);
    check_welcome(s);
    check_ack(s);
    check_absent(s);
    check_return(s);
    check_voucher(s);
    int rc = msg_heartbeat_decode(s, &h);
    rc |= msg_probe_decode(s, &id);
    rc |= msg_probe_reply_decode(s, SHARDS, &id, vvs);
    (void)rc; /* any answer will do that is not a crash */
    ASSERT(msg_error_decode(s, &d) < 0 && d.text[0] != '\0');
    return 0;
}
