/* base/mp.h against itself: skipping a value and reading it piece by piece must agree on where it
 * ends, and a value read encodes to something that reads the same. */
#include "base/assert.h"
#include "base/mp.h"
#include "tests/fuzz/fuzz.h"

enum {
    COUNT_MAX = 1000
};

/* Reads one value of any type; the number of values that follow inside it. */
static uint64_t read_one(struct mp *m)
{
    struct buf out = {0};
    struct mp again;
    uint64_t inside = 0;
    enum mp_type type = mp_peek(m);
    if (type == MP_UINT) {
        uint64_t v = mp_get_uint(m, UINT64_MAX);
        mp_uint(&out, v);
        again = mp_of(buf_slice(&out));
        ASSERT(mp_get_uint(&again, UINT64_MAX) == v && mp_end(&again) == 0);
    } else if (type == MP_INT) {
        int64_t v = mp_get_int(m);
        mp_int(&out, v);
        again = mp_of(buf_slice(&out));
        ASSERT(mp_get_int(&again) == v && mp_end(&again) == 0);
    } else if (type == MP_BIN || type == MP_STR) {
        struct slice s = mp_get_bin(m, SIZE_MAX);
        mp_bin(&out, s);
        again = mp_of(buf_slice(&out));
        ASSERT(slice_equal(mp_get_bin_exact(&again, s.len), s) && mp_end(&again) == 0);
    } else if (type == MP_NIL) {
        mp_get_nil(m);
    } else if (type == MP_BOOL) {
        (void)mp_get_bool(m);
    } else if (type == MP_ARRAY) {
        inside = mp_get_array(m, COUNT_MAX);
    } else if (type == MP_MAP) {
        inside = 2 * (uint64_t)mp_get_map(m, COUNT_MAX);
    } else {
        mp_skip(m);
    }
    buf_deinit(&out);
    return inside;
}

static void check_typed(struct slice s)
{
    struct mp m = mp_of(s);
    (void)mp_get_oid(&m);
    (void)mp_get_dot(&m);
    (void)mp_get_stamp(&m);
    m = mp_of(s);
    struct dot d = mp_get_dot(&m);
    struct stamp t = mp_get_stamp(&m);
    if (m.rc != 0)
        return;
    struct buf out = {0};
    mp_dot(&out, d);
    mp_stamp(&out, t);
    m = mp_of(buf_slice(&out));
    ASSERT(dot_equal(mp_get_dot(&m), d) && stamp_cmp(mp_get_stamp(&m), t) == 0);
    ASSERT(mp_end(&m) == 0);
    buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice s = slice_of(data, size);
    struct mp skipped = mp_of(s), walked = mp_of(s);
    mp_skip(&skipped);
    uint64_t left = 1;
    while (left > 0 && walked.rc == 0)
        left = left - 1 + read_one(&walked);
    ASSERT(skipped.at <= skipped.end && walked.at <= walked.end);
    if (skipped.rc == 0 && walked.rc == 0)
        ASSERT(skipped.at == walked.at);
    check_typed(s);
    return 0;
}
