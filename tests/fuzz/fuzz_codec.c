/* base/codec.h: the input is a script; each byte picks a getter that runs on the rest. Checked: the
 * cursor stays inside, the error sticks, and what was read encodes back to the bytes it came from.
 */
#include "base/assert.h"
#include "base/codec.h"
#include "tests/fuzz/fuzz.h"

static void read_one(struct dec *d, uint8_t op, struct buf *again)
{
    uint8_t raw[7];
    switch (op % 9) {
    case 0:
        enc_u8(again, dec_u8(d));
        break;
    case 1:
        enc_u16(again, dec_u16(d));
        break;
    case 2:
        enc_u32(again, dec_u32(d));
        break;
    case 3:
        enc_u64(again, dec_u64(d));
        break;
    case 4:
        enc_varint(again, dec_varint(d));
        break;
    case 5:
        enc_bytes(again, dec_bytes(d, 100));
        break;
    case 6:
        enc_oid(again, dec_oid(d));
        break;
    case 7:
        enc_dot(again, dec_dot(d));
        break;
    default:
        dec_raw(d, raw, sizeof raw);
        enc_raw(again, raw, sizeof raw);
        enc_stamp(again, dec_stamp(d));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dec d = dec_of(slice_of(data, size));
    struct buf again = {0};
    while (d.rc == 0 && dec_left(&d) > 0) {
        uint8_t op = dec_u8(&d);
        const uint8_t *from = d.at;
        buf_clear(&again);
        read_one(&d, op, &again);
        ASSERT(d.at >= from && d.at <= d.end);
        if (d.rc == 0)
            ASSERT(slice_equal(buf_slice(&again), slice_of(from, (size_t)(d.at - from))));
        else
            ASSERT(dec_u64(&d) == 0 && dec_end(&d) == d.rc);
    }
    buf_deinit(&again);
    return 0;
}
