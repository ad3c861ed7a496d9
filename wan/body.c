/* Bodies of operations in columns; the marks are in body.h. The encoder is asked first
 * whether a body is canonical, so that one that is not changes nothing of the memory. */
#include "wan/body.h"

#include <endian.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/mp.h"

enum {
    MARK_ID_RECENT = 0xa0,
    MARK_ID_OWN = 0xa0, /* plus the kind, from 1 */
    MARK_ID_NEW = 0xa8,
    MARK_SITE = 0xa9,
    MARK_SEQ_BACK = 0xaa,
    MARK_TIME = 0xab,
    MARK_NUMBER = 0xac,
    MARK_POWER = 0xad,
    MARK_BYTES = 0xae,
    MARK_NOISE = 0xaf,
    MARK_NONE = 0xb0,
    MARK_BYTE = 0xb1,
    MARK_BYTES_RECENT = 0xb2,
    MARK_SECOND = 0xb3,
    MARK_NEAR = 0xb4,

    SHAPE_NEW = 0,
    SHAPE_ONCE = 1,
    SHAPE_KNOWN = 2,
    NOISE_BYTES = 32
};
#define NEAR_NS (UINT64_C(1) << 40) /* 18 minutes */

_Static_assert(MARK_ID_OWN + OID_KIND_COUNT == MARK_ID_NEW, "a mark for each kind of file");

void body_memory_deinit(struct body_memory *m)
{
    for (uint32_t i = 0; i < BODY_SHAPES; i++)
        buf_deinit(&m->shapes[i]);
    buf_deinit(&m->marks);
    *m = (struct body_memory){.id_count = 0};
}

/* --- values of msgpack --- */

enum value_type {
    VALUE_AS_IS,  /* its bytes are its mark */
    VALUE_NUMBER, /* above 127 */
    VALUE_BYTES
};
struct value {
    enum value_type type;
    size_t len; /* of all of it */
    uint64_t number;
    struct slice bytes;
};

/* Bytes behind the first, for values whose bytes are their marks; SIZE_MAX: it is none of them. */
static size_t as_is_tail(uint8_t first)
{
    if (first < 0xa0 || first == 0xc0 || first == 0xc2 || first == 0xc3 || first >= 0xe0)
        return first >= 0x80 && first < 0x90 ? SIZE_MAX : 0; /* no maps */
    switch (first) {
    case 0xd0:
        return 1;
    case 0xd1:
    case 0xdc:
        return 2;
    case 0xd2:
    case 0xdd:
        return 4;
    case 0xd3:
        return 8;
    default:
        return SIZE_MAX;
    }
}

static uint64_t number_be(const uint8_t *at, size_t bytes)
{
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v = v << 8 | at[i];
    return v;
}

/* The value at the beginning of `in`; false: not in the one form that mp_uint, mp_bin and so on
 * give it, or cut off. */
static bool value_read(struct slice in, struct value *ret)
{
    uint8_t first = in.ptr[0];
    size_t tail = as_is_tail(first);
    if (tail != SIZE_MAX) {
        *ret = (struct value){.type = VALUE_AS_IS, .len = 1 + tail};
        return ret->len <= in.len;
    }
    bool number = first >= 0xcc && first <= 0xcf, bytes = first >= 0xc4 && first <= 0xc6;
    if (!number && !bytes)
        return false;
    unsigned log = number ? first - 0xccu : first - 0xc4u;
    size_t width = (size_t)1 << log;
    if (in.len < 1 + width)
        return false;
    uint64_t v = number_be(in.ptr + 1, width);
    uint64_t least = log == 0 ? (number ? 0x80 : 0) : UINT64_C(1) << 4 * width;
    if (v < least)
        return false;
    *ret = (struct value){.type = VALUE_NUMBER, .len = 1 + width, .number = v};
    if (number)
        return true;
    ret->type = VALUE_BYTES;
    ret->bytes = slice_of(in.ptr + 1 + width, (size_t)v);
    ret->len += (size_t)v;
    return v <= in.len - 1 - width;
}

bool body_is_canonical(struct slice body)
{
    struct value v;
    if (body.len > LIMIT_OP_BYTES)
        return false;
    for (size_t at = 0; at < body.len; at += v.len)
        if (!value_read(slice_of(body.ptr + at, body.len - at), &v))
            return false;
    return true;
}

/* --- the memory --- */

static void id_use(struct body_memory *m, struct oid id, uint32_t place)
{
    memmove(&m->ids[1], &m->ids[0], place * sizeof m->ids[0]);
    m->ids[0] = id;
}

static void id_add(struct body_memory *m, struct oid id)
{
    m->id_count = MIN(m->id_count + 1, BODY_IDS);
    id_use(m, id, m->id_count - 1);
}

static uint32_t id_find(const struct body_memory *m, struct oid id)
{
    uint64_t want[2], have[2];
    uint32_t i = 0;
    memcpy(want, id.b, sizeof want);
    for (; i < m->id_count; i++) {
        memcpy(have, m->ids[i].b, sizeof have);
        if (((want[0] ^ have[0]) | (want[1] ^ have[1])) == 0)
            break;
    }
    return i;
}

static void bytes_use(struct body_memory *m, const struct body_bytes *b, uint32_t place)
{
    struct body_bytes copy = *b; /* it may be in the list */
    memmove(&m->bytes[1], &m->bytes[0], place * sizeof m->bytes[0]);
    m->bytes[0] = copy;
}

static void bytes_add(struct body_memory *m, struct slice s)
{
    struct body_bytes b = {.len = (uint8_t)s.len};
    if (s.len > BODY_BYTES_MAX)
        return;
    memcpy(b.at, s.ptr, s.len);
    m->bytes_count = MIN(m->bytes_count + 1, BODY_BYTES);
    bytes_use(m, &b, m->bytes_count - 1);
}

static uint32_t bytes_find(const struct body_memory *m, struct slice s)
{
    for (uint32_t i = 0; i < m->bytes_count; i++)
        if (m->bytes[i].len == s.len && memcmp(m->bytes[i].at, s.ptr, s.len) == 0)
            return i;
    return m->bytes_count;
}

static void shape_add(struct body_memory *m, struct slice marks)
{
    struct buf *b = &m->shapes[m->shape_next % BODY_SHAPES];
    m->shape_next = m->shape_next + 1 < 2 * BODY_SHAPES ? m->shape_next + 1 : BODY_SHAPES;
    buf_clear(b);
    buf_append(b, marks.ptr, marks.len);
}

static struct oid id_own(const struct op_head *h, enum oid_kind kind)
{
    return oid_file((shard_id_t)h->shard, kind, (site_id_t)h->site, h->seq);
}

/* --- encoding --- */

static void
number_encode(const struct op_head *h, uint64_t v, struct buf *marks, struct body_out *out)
{
    if (v == h->site) {
        enc_u8(marks, MARK_SITE);
    } else if (v == (uint64_t)h->time_ns) {
        enc_u8(marks, MARK_TIME);
    } else if ((v & (v - 1)) == 0) {
        enc_u8(marks, MARK_POWER);
        enc_u8(marks, (uint8_t)__builtin_ctzll(v));
    } else if (v <= h->seq && h->seq - v < v) {
        enc_u8(marks, MARK_SEQ_BACK);
        enc_varint(&out->nums, h->seq - v);
    } else {
        enc_u8(marks, MARK_NUMBER);
        enc_varint(&out->nums, v);
    }
}

static void id_encode(struct body_memory *m,
                      const struct op_head *h,
                      struct oid id,
                      struct buf *marks,
                      struct body_out *out)
{
    uint32_t place = id_find(m, id);
    enum oid_kind kind = oid_kind(id);
    if (kind != OID_DIR && oid_equal(id, id_own(h, kind))) {
        enc_u8(marks, (uint8_t)(MARK_ID_OWN + kind));
    } else if (place < m->id_count) {
        enc_u8(marks, MARK_ID_RECENT);
        enc_varint(&out->nums, place);
    } else {
        enc_u8(marks, MARK_ID_NEW);
        enc_raw(&out->noise, id.b, sizeof id.b);
    }
    if (place < m->id_count)
        id_use(m, id, place);
    else
        id_add(m, id);
}

/* 8 bytes that are a time, little endian. */
static bool time_encode(struct body_memory *m,
                        const struct op_head *h,
                        struct slice s,
                        struct buf *marks,
                        struct body_out *out)
{
    uint64_t v;
    if (s.len != sizeof v)
        return false;
    memcpy(&v, s.ptr, sizeof v);
    v = le64toh(v);
    if (v % NS_PER_SEC == 0) {
        enc_u8(marks, MARK_SECOND);
        enc_varint(&out->nums, zigzag(m->second, v / NS_PER_SEC));
        m->second = v / NS_PER_SEC;
        return true;
    }
    uint64_t diff = zigzag((uint64_t)h->time_ns, v);
    if (diff >= NEAR_NS)
        return false;
    enc_u8(marks, MARK_NEAR);
    enc_varint(&out->nums, diff);
    return true;
}

/* A hash, not a name that is as long as one. */
static bool is_noise(struct slice s)
{
    bool binary = false;
    for (size_t i = 0; i < s.len; i++)
        binary |= s.ptr[i] < ' ' || s.ptr[i] > '~';
    return s.len == NOISE_BYTES && binary;
}

static void bytes_encode(struct body_memory *m,
                         const struct op_head *h,
                         struct slice s,
                         struct buf *marks,
                         struct body_out *out)
{
    struct oid id;
    if (s.len == sizeof id.b) {
        memcpy(id.b, s.ptr, sizeof id.b);
        if (oid_valid(id)) {
            id_encode(m, h, id, marks, out);
            return;
        }
    }
    if (s.len < 2) {
        enc_u8(marks, s.len == 0 ? MARK_NONE : MARK_BYTE);
        enc_raw(marks, s.ptr, s.len);
        return;
    }
    if (time_encode(m, h, s, marks, out))
        return;
    uint32_t place = bytes_find(m, s);
    if (place < m->bytes_count) {
        enc_u8(marks, MARK_BYTES_RECENT);
        enc_varint(&out->nums, place);
        bytes_use(m, &m->bytes[place], place);
    } else if (is_noise(s)) {
        enc_u8(marks, MARK_NOISE);
        enc_raw(&out->noise, s.ptr, s.len);
    } else {
        enc_u8(marks, MARK_BYTES);
        enc_varint(&out->nums, s.len);
        enc_raw(&out->text, s.ptr, s.len);
        bytes_add(m, s);
    }
}

static uint32_t shape_hash(struct slice marks)
{
    uint32_t h = (uint32_t)marks.len;
    for (size_t i = 0; i < marks.len; i++)
        h = (h ^ marks.ptr[i]) * UINT32_C(0x9e3779b1);
    return h;
}

static void shape_encode(struct body_memory *m, struct slice marks, struct buf *out)
{
    uint32_t hash = shape_hash(marks);
    for (uint32_t i = 0; i < MIN(m->shape_next, BODY_SHAPES); i++)
        if (m->shape_hashes[i] == hash && slice_equal(buf_slice(&m->shapes[i]), marks)) {
            enc_varint(out, SHAPE_KNOWN + i);
            return;
        }
    bool kept = marks.len <= BODY_SHAPE_MAX;
    enc_varint(out, kept ? SHAPE_NEW : SHAPE_ONCE);
    enc_bytes(out, marks);
    if (!kept)
        return;
    m->shape_hashes[m->shape_next % BODY_SHAPES] = hash;
    shape_add(m, marks);
}

void body_encode(struct body_memory *m,
                 const struct op_head *h,
                 struct slice body,
                 struct body_out *out)
{
    struct buf *marks = &m->marks;
    struct value v;
    buf_clear(marks);
    for (size_t at = 0; at < body.len; at += v.len) {
        bool read = value_read(slice_of(body.ptr + at, body.len - at), &v);
        ASSERT(read);
        switch (v.type) {
        case VALUE_AS_IS:
            enc_raw(marks, body.ptr + at, v.len);
            break;
        case VALUE_NUMBER:
            number_encode(h, v.number, marks, out);
            break;
        case VALUE_BYTES:
            bytes_encode(m, h, v.bytes, marks, out);
            break;
        }
    }
    shape_encode(m, buf_slice(marks), &out->shapes);
}

/* --- decoding --- */

static struct slice shape_decode(struct body_memory *m, struct dec *d)
{
    uint64_t which = dec_varint(d);
    if (which >= SHAPE_KNOWN) {
        if (which - SHAPE_KNOWN >= MIN(m->shape_next, BODY_SHAPES)) {
            dec_fail(d, ERR_MALFORMED);
            return slice_of(NULL, 0);
        }
        return buf_slice(&m->shapes[which - SHAPE_KNOWN]);
    }
    struct slice marks = dec_bytes(d, which == SHAPE_NEW ? BODY_SHAPE_MAX : LIMIT_OP_BYTES);
    if (d->rc == 0 && which == SHAPE_NEW)
        shape_add(m, marks);
    return marks;
}

static void put_time(struct buf *out, uint64_t v)
{
    v = htole64(v);
    mp_bin(out, slice_of(&v, sizeof v));
}

/* A remembered place; fails beyond `count`. */
static uint32_t place_decode(struct body_in *in, uint32_t count)
{
    uint64_t place = dec_varint(&in->nums);
    if (place >= count)
        dec_fail(&in->nums, ERR_MALFORMED);
    return in->nums.rc == 0 ? (uint32_t)place : 0;
}

static void id_decode(struct body_memory *m,
                      const struct op_head *h,
                      uint8_t mark,
                      struct body_in *in,
                      struct buf *out)
{
    struct oid id = {.b = {0}};
    uint32_t place = m->id_count;
    if (mark == MARK_ID_RECENT) {
        place = place_decode(in, m->id_count);
        id = m->ids[place];
    } else if (mark == MARK_ID_NEW) {
        dec_raw(&in->noise, id.b, sizeof id.b);
    } else if (mark == MARK_ID_OWN + OID_DIR) {
        dec_fail(&in->shapes, ERR_MALFORMED); /* directories' ids are hashes */
    } else {
        id = id_own(h, (enum oid_kind)(mark - MARK_ID_OWN));
        place = id_find(m, id);
    }
    if (in->shapes.rc != 0 || in->nums.rc != 0 || in->noise.rc != 0)
        return;
    if (place < m->id_count)
        id_use(m, id, place);
    else
        id_add(m, id);
    mp_bin(out, slice_of(id.b, sizeof id.b));
}

static void
bytes_decode(struct body_memory *m, uint8_t mark, struct body_in *in, size_t room, struct buf *out)
{
    if (mark == MARK_NOISE) {
        uint8_t noise[NOISE_BYTES];
        dec_raw(&in->noise, noise, sizeof noise);
        mp_bin(out, slice_of(noise, sizeof noise));
        return;
    }
    if (mark == MARK_BYTES_RECENT) {
        uint32_t place = place_decode(in, m->bytes_count);
        if (in->nums.rc != 0)
            return;
        bytes_use(m, &m->bytes[place], place);
        mp_bin(out, slice_of(m->bytes[0].at, m->bytes[0].len));
        return;
    }
    uint64_t len = dec_varint(&in->nums);
    if (len > dec_left(&in->text))
        dec_fail(&in->text, ERR_TRUNCATED);
    if (len > room)
        dec_fail(&in->text, ERR_TOO_BIG);
    if (in->nums.rc != 0 || in->text.rc != 0)
        return;
    struct slice s = slice_of(in->text.at, (size_t)len);
    in->text.at += len;
    mp_bin(out, s);
    if (len >= 2)
        bytes_add(m, s);
}

/* One mark that is not the byte itself; those that carry a byte have it in `next`. */
static void mark_decode(struct body_memory *m,
                        const struct op_head *h,
                        uint8_t mark,
                        uint8_t next,
                        struct body_in *in,
                        struct buf *out)
{
    switch (mark) {
    case MARK_SITE:
        mp_uint(out, h->site);
        return;
    case MARK_SEQ_BACK:
        mp_uint(out, h->seq - dec_varint(&in->nums));
        return;
    case MARK_TIME:
        mp_uint(out, (uint64_t)h->time_ns);
        return;
    case MARK_NUMBER:
        mp_uint(out, dec_varint(&in->nums));
        return;
    case MARK_POWER:
        if (next < 64)
            mp_uint(out, UINT64_C(1) << next);
        else
            dec_fail(&in->shapes, ERR_MALFORMED);
        return;
    case MARK_NONE:
        mp_bin(out, slice_of(NULL, 0));
        return;
    case MARK_BYTE:
        mp_bin(out, slice_of(&next, 1));
        return;
    case MARK_SECOND:
        m->second = unzigzag(m->second, dec_varint(&in->nums));
        put_time(out, m->second * NS_PER_SEC);
        return;
    case MARK_NEAR:
        put_time(out, unzigzag((uint64_t)h->time_ns, dec_varint(&in->nums)));
        return;
    default:
        dec_fail(&in->shapes, ERR_MALFORMED);
    }
}

static int rc_of(const struct body_in *in)
{
    if (in->shapes.rc != 0)
        return in->shapes.rc;
    if (in->nums.rc != 0)
        return in->nums.rc;
    return in->text.rc != 0 ? in->text.rc : in->noise.rc;
}

int body_decode(struct body_memory *m,
                const struct op_head *h,
                struct body_in *in,
                size_t len_max,
                struct buf *out)
{
    size_t start = out->len;
    struct slice marks = shape_decode(m, &in->shapes);
    for (size_t at = 0; at < marks.len && rc_of(in) == 0;) {
        uint8_t mark = marks.ptr[at++];
        size_t tail = as_is_tail(mark);
        bool has_next = mark == MARK_POWER || mark == MARK_BYTE;
        if ((tail == SIZE_MAX ? has_next : tail) > marks.len - at) {
            dec_fail(&in->shapes, ERR_MALFORMED);
        } else if (tail != SIZE_MAX) {
            buf_append(out, marks.ptr + at - 1, 1 + tail);
            at += tail;
        } else if (mark >= MARK_ID_RECENT && mark <= MARK_ID_NEW) {
            id_decode(m, h, mark, in, out);
        } else if (mark == MARK_BYTES || mark == MARK_NOISE || mark == MARK_BYTES_RECENT) {
            bytes_decode(m, mark, in, len_max, out);
        } else {
            mark_decode(m, h, mark, has_next ? marks.ptr[at] : 0, in, out);
            at += has_next;
        }
        if (out->len - start > len_max)
            dec_fail(&in->shapes, ERR_TOO_BIG);
    }
    return rc_of(in);
}
