/* DIR/garbage. See gc_last.h. */
#include "site/gc_last.h"

#include "base/assert.h"
#include "base/codec.h"

#define MAGIC 0x31424743u /* "CGB1" */

void gc_last_encode(const struct gc_last_pass *p, struct buf *out)
{
    buf_clear(out);
    enc_u32(out, MAGIC);
    enc_u64(out, p->epoch);
    enc_u64(out, p->age_ns);
    enc_u64(out, fnv1a(buf_slice(out)));
    ASSERT_EQ(out->len, GC_LAST_BYTES);
}

bool gc_last_decode(struct slice bytes, struct gc_last_pass *ret)
{
    struct dec d = dec_of(bytes);
    uint32_t magic = dec_u32(&d);
    struct gc_last_pass p = {.epoch = dec_u64(&d)};
    p.age_ns = dec_u64(&d);
    uint64_t sum = dec_u64(&d);
    if (dec_end(&d) != 0 || magic != MAGIC || p.epoch == 0 ||
        sum != fnv1a(slice_of(bytes.ptr, GC_LAST_BYTES - 8)))
        return false;
    *ret = p;
    return true;
}
