/* msgpack: msgpack-c's packer for writing, a cursor for reading.
 *
 * Every length is checked against the bytes that are left before it is believed, so a count read
 * here is at most the size of the input and a caller may size an array by it. */
#include "base/mp.h"

#include <endian.h>
#include <msgpack/pack.h>
#include <string.h>

#include "base/assert.h"

enum {
    MP_DEPTH_MAX = 32
};

/* --- writing --- */

static int append(void *data, const char *bytes, size_t len)
{
    buf_append(data, bytes, len);
    return 0;
}

static msgpack_packer packer(struct buf *b)
{
    msgpack_packer p;
    msgpack_packer_init(&p, b, append);
    return p;
}

/* What is written most (numbers from nought, short strings of bytes, heads of short arrays and
 * maps) is put together here, in the form that the packer gives it; the rest is the packer's. */
static void byte_append(struct buf *b, uint8_t byte)
{
    buf_reserve(b, 1);
    b->ptr[b->len++] = byte;
}

void mp_nil(struct buf *b)
{
    byte_append(b, 0xc0);
}

void mp_bool(struct buf *b, bool v)
{
    byte_append(b, v ? 0xc3 : 0xc2);
}

void mp_uint(struct buf *b, uint64_t v)
{
    buf_reserve(b, 1 + sizeof v);
    uint8_t *at = b->ptr + b->len;
    if (v < 0x80) {
        *at = (uint8_t)v;
        b->len++;
        return;
    }
    unsigned power = v > UINT32_MAX ? 3 : v > UINT16_MAX ? 2 : v > UINT8_MAX ? 1 : 0;
    size_t len = (size_t)1 << power;
    uint64_t be = htobe64(v << (64 - 8 * len));
    *at = (uint8_t)(0xcc + power);
    memcpy(at + 1, &be, sizeof be);
    b->len += 1 + len;
}

void mp_int(struct buf *b, int64_t v)
{
    if (v >= 0) {
        mp_uint(b, (uint64_t)v);
        return;
    }
    msgpack_packer p = packer(b);
    (void)msgpack_pack_int64(&p, v); /* append cannot fail, here and below */
}

void mp_bin(struct buf *b, struct slice s)
{
    if (s.len <= UINT8_MAX) {
        buf_reserve(b, 2 + s.len);
        uint8_t *at = b->ptr + b->len;
        at[0] = 0xc4;
        at[1] = (uint8_t)s.len;
        if (s.len > 0)
            memcpy(at + 2, s.ptr, s.len);
        b->len += 2 + s.len;
        return;
    }
    msgpack_packer p = packer(b);
    ASSERT(s.len <= UINT32_MAX);
    (void)msgpack_pack_bin(&p, s.len);
    buf_append(b, s.ptr, s.len);
}

void mp_str(struct buf *b, struct slice s)
{
    msgpack_packer p = packer(b);
    ASSERT(s.len <= UINT32_MAX);
    (void)msgpack_pack_str(&p, s.len);
    buf_append(b, s.ptr, s.len);
}

void mp_cstr(struct buf *b, const char *s)
{
    mp_str(b, slice_str(s));
}

void mp_array(struct buf *b, uint32_t count)
{
    if (count < 16) {
        byte_append(b, (uint8_t)(0x90 | count));
        return;
    }
    msgpack_packer p = packer(b);
    (void)msgpack_pack_array(&p, count);
}

void mp_map(struct buf *b, uint32_t count)
{
    if (count < 16) {
        byte_append(b, (uint8_t)(0x80 | count));
        return;
    }
    msgpack_packer p = packer(b);
    (void)msgpack_pack_map(&p, count);
}

void mp_oid(struct buf *b, struct oid o)
{
    mp_bin(b, slice_of(o.b, sizeof o.b));
}

void mp_dot(struct buf *b, struct dot d)
{
    mp_array(b, 3);
    mp_uint(b, d.shard);
    mp_uint(b, d.site);
    mp_uint(b, d.seq);
}

void mp_stamp(struct buf *b, struct stamp s)
{
    mp_array(b, 2);
    mp_uint(b, s.hlc);
    mp_uint(b, s.site);
}

/* --- reading --- */

/* The head of one value: its type, the bytes of the head, and what follows. */
struct head {
    enum mp_type type;
    size_t len;     /* bytes of the head itself; 0: the head is cut off */
    uint64_t value; /* the number, bool, or byte length of bin, str, ext, float; or the count */
};

static uint64_t be_get(const uint8_t *at, size_t len)
{
    uint64_t v = 0;
    if (len == sizeof v) {
        memcpy(&v, at, sizeof v);
        return be64toh(v);
    }
    for (size_t i = 0; i < len; i++)
        v = v << 8 | at[i];
    return v;
}

static struct head head_of(enum mp_type type, size_t len, uint64_t value)
{
    return (struct head){.type = type, .len = len, .value = value};
}

/* A head with `bytes` bytes of big-endian number behind the first byte, plus `extra` that only
 * count as payload (the type byte of an extension). */
static struct head head_sized(const struct mp *m, enum mp_type type, size_t bytes, uint64_t extra)
{
    if ((size_t)(m->end - m->at) < 1 + bytes)
        return head_of(MP_END, 0, 0);
    return head_of(type, 1 + bytes, be_get(m->at + 1, bytes) + extra);
}

static struct head head_signed(const struct mp *m, size_t bytes)
{
    struct head h = head_sized(m, MP_UINT, bytes, 0);
    uint64_t sign = UINT64_C(1) << (8 * bytes - 1);
    if (h.len != 0 && (h.value & sign) != 0) {
        h.type = MP_INT;
        h.value |= ~(sign - 1); /* extend the sign */
    }
    return h;
}

static struct head head_read_long(const struct mp *m, uint8_t byte)
{
    static const uint8_t sizes[] = {1, 2, 4, 8};
    switch (byte) {
    case 0xc0:
        return head_of(MP_NIL, 1, 0);
    case 0xc2:
    case 0xc3:
        return head_of(MP_BOOL, 1, byte & 1u);
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return head_sized(m, MP_BIN, sizes[byte - 0xc4], 0);
    case 0xc7:
    case 0xc8:
    case 0xc9:
        return head_sized(m, MP_OTHER, sizes[byte - 0xc7], 1);
    case 0xca:
        return head_of(MP_OTHER, 1, 4);
    case 0xcb:
        return head_of(MP_OTHER, 1, 8);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        return head_sized(m, MP_UINT, sizes[byte - 0xcc], 0);
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return head_signed(m, sizes[byte - 0xd0]);
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8: /* fixext: a type byte and 1, 2, 4, 8 or 16 bytes */
        return head_of(MP_OTHER, 1, 1 + (UINT64_C(1) << (byte - 0xd4)));
    case 0xd9:
    case 0xda:
    case 0xdb:
        return head_sized(m, MP_STR, sizes[byte - 0xd9], 0);
    case 0xdc:
    case 0xdd:
        return head_sized(m, MP_ARRAY, sizes[byte - 0xdc + 1], 0);
    case 0xde:
    case 0xdf:
        return head_sized(m, MP_MAP, sizes[byte - 0xde + 1], 0);
    default: /* 0xc1, which msgpack never uses */
        return head_of(MP_END, 1, 0);
    }
}

static struct head head_read(const struct mp *m)
{
    if (m->rc != 0 || m->at == m->end)
        return head_of(MP_END, 0, 0);
    uint8_t byte = *m->at;
    if (byte < 0x80)
        return head_of(MP_UINT, 1, byte);
    if (byte < 0x90)
        return head_of(MP_MAP, 1, byte & 15u);
    if (byte < 0xa0)
        return head_of(MP_ARRAY, 1, byte & 15u);
    if (byte < 0xc0)
        return head_of(MP_STR, 1, byte & 31u);
    if (byte >= 0xe0)
        return head_of(MP_INT, 1, (uint64_t)(int64_t)(int8_t)byte);
    return head_read_long(m, byte);
}

void mp_fail(struct mp *m, int rc)
{
    ASSERT(rc < 0);
    if (m->rc == 0)
        m->rc = rc;
}

enum mp_type mp_peek(const struct mp *m)
{
    return head_read(m).type;
}

/* Moves behind the head, which is the next, if it is of a wanted type; 0 for the value otherwise.
 */
static uint64_t head_accept(struct mp *m, struct head h, bool wanted)
{
    if (m->rc != 0)
        return 0;
    if (!wanted || h.len == 0) {
        mp_fail(m, h.len == 0 ? ERR_TRUNCATED : ERR_MALFORMED);
        return 0;
    }
    m->at += h.len;
    return h.value;
}

static uint64_t head_take(struct mp *m, enum mp_type type)
{
    struct head h = head_read(m);
    return head_accept(m, h, h.type == type);
}

void mp_get_nil(struct mp *m)
{
    (void)head_take(m, MP_NIL);
}

/* The values that come most, if the next one is such and all of it is there; false: nothing has
 * moved, and the general way says what is wrong, if anything is. */
static inline bool uint_take(struct mp *m, uint64_t *ret)
{
    if (m->rc != 0 || m->at == m->end)
        return false;
    uint8_t byte = *m->at;
    if (byte < 0x80) {
        m->at++;
        *ret = byte;
        return true;
    }
    uint64_t v;
    if ((byte & 0xfc) != 0xcc || (size_t)(m->end - m->at) < 1 + sizeof v)
        return false;
    size_t len = (size_t)1 << (byte & 3);
    memcpy(&v, m->at + 1, sizeof v);
    *ret = be64toh(v) >> (64 - 8 * len);
    m->at += 1 + len;
    return true;
}

static inline bool bin_take(struct mp *m, size_t len_max, struct slice *ret)
{
    size_t left = (size_t)(m->end - m->at);
    if (m->rc != 0 || left < 2 || m->at[0] != 0xc4 || m->at[1] > left - 2 || m->at[1] > len_max)
        return false;
    *ret = slice_of(m->at + 2, m->at[1]);
    m->at += 2 + ret->len;
    return true;
}

bool mp_get_bool(struct mp *m)
{
    return head_take(m, MP_BOOL) != 0;
}

uint64_t mp_get_uint(struct mp *m, uint64_t max)
{
    uint64_t v;
    if (!uint_take(m, &v))
        v = head_take(m, MP_UINT);
    if (v <= max)
        return v;
    mp_fail(m, ERR_MALFORMED);
    return 0;
}

int64_t mp_get_int(struct mp *m)
{
    uint64_t plain;
    const struct mp before = *m;
    if (uint_take(m, &plain)) {
        if (plain <= INT64_MAX)
            return (int64_t)plain;
        *m = before;
    }
    struct head h = head_read(m);
    uint64_t v = head_accept(m, h, h.type == MP_INT || h.type == MP_UINT);
    if (h.type == MP_INT || v <= INT64_MAX)
        return (int64_t)v;
    mp_fail(m, ERR_MALFORMED);
    return 0;
}

/* The next len bytes of payload; the caller has consumed the head. */
static struct slice payload_take(struct mp *m, uint64_t len)
{
    if (m->rc == 0 && len > (uint64_t)(m->end - m->at))
        mp_fail(m, ERR_TRUNCATED);
    if (m->rc != 0)
        return slice_of(NULL, 0);
    struct slice s = slice_of(m->at, (size_t)len);
    m->at += len;
    return s;
}

struct slice mp_get_bin(struct mp *m, size_t len_max)
{
    struct slice s;
    if (bin_take(m, len_max, &s))
        return s;
    struct head h = head_read(m);
    uint64_t len = head_accept(m, h, h.type == MP_STR || h.type == MP_BIN);
    if (len > len_max)
        mp_fail(m, ERR_MALFORMED);
    return payload_take(m, len);
}

struct slice mp_get_bin_exact(struct mp *m, size_t len)
{
    struct slice s = mp_get_bin(m, len);
    if (m->rc != 0 || s.len == len)
        return s;
    mp_fail(m, ERR_MALFORMED);
    return slice_of(NULL, 0);
}

/* Each element takes at least one byte, so a count beyond the rest of the input is a lie. */
static uint32_t count_take(struct mp *m, enum mp_type type, uint32_t count_max)
{
    uint64_t count = head_take(m, type);
    uint64_t bytes_min = type == MP_MAP ? 2 * count : count;
    if (count > count_max)
        mp_fail(m, ERR_MALFORMED);
    else if (bytes_min > (uint64_t)(m->end - m->at))
        mp_fail(m, ERR_TRUNCATED);
    return m->rc == 0 ? (uint32_t)count : 0;
}

uint32_t mp_get_array(struct mp *m, uint32_t count_max)
{
    size_t left = (size_t)(m->end - m->at);
    if (m->rc == 0 && left > 0 && (*m->at & 0xf0) == 0x90) { /* short, and all of it is there */
        uint32_t count = *m->at & 0x0f;
        if (count <= count_max && count <= left - 1) {
            m->at++;
            return count;
        }
    }
    return count_take(m, MP_ARRAY, count_max);
}

uint32_t mp_get_map(struct mp *m, uint32_t count_max)
{
    return count_take(m, MP_MAP, count_max);
}

struct oid mp_get_oid(struct mp *m)
{
    struct oid o = {.b = {0}};
    struct slice s = mp_get_bin_exact(m, sizeof o.b);
    if (m->rc != 0)
        return o;
    memcpy(o.b, s.ptr, sizeof o.b);
    if (oid_valid(o))
        return o;
    mp_fail(m, ERR_MALFORMED);
    return (struct oid){.b = {0}};
}

/* An array of exactly `count` elements. */
static void tuple_take(struct mp *m, uint32_t count)
{
    if (mp_get_array(m, count) != count)
        mp_fail(m, ERR_MALFORMED);
}

struct dot mp_get_dot(struct mp *m)
{
    tuple_take(m, 3);
    struct dot d = {0};
    d.shard = (shard_id_t)mp_get_uint(m, UINT16_MAX);
    d.site = (site_id_t)mp_get_uint(m, UINT32_MAX);
    d.seq = mp_get_uint(m, UINT64_MAX);
    return m->rc == 0 ? d : (struct dot){0};
}

struct stamp mp_get_stamp(struct mp *m)
{
    tuple_take(m, 2);
    struct stamp s = {0};
    s.hlc = mp_get_uint(m, UINT64_MAX);
    s.site = (site_id_t)mp_get_uint(m, UINT32_MAX);
    return m->rc == 0 ? s : (struct stamp){0};
}

void mp_skip(struct mp *m)
{
    uint64_t left[MP_DEPTH_MAX + 1]; /* values still to skip at each depth */
    size_t depth = 0;
    left[0] = 1;
    while (m->rc == 0) {
        while (left[depth] == 0) {
            if (depth == 0)
                return;
            depth--;
        }
        left[depth]--;
        enum mp_type type = mp_peek(m);
        uint64_t inside = head_take(m, type);
        if (type == MP_END) { /* the byte msgpack never uses */
            mp_fail(m, ERR_MALFORMED);
        } else if (type == MP_BIN || type == MP_STR || type == MP_OTHER) {
            (void)payload_take(m, inside);
        } else if (type == MP_ARRAY || type == MP_MAP) {
            if (depth == MP_DEPTH_MAX) {
                mp_fail(m, ERR_MALFORMED);
                return;
            }
            left[++depth] = type == MP_MAP ? 2 * inside : inside;
        }
    }
}

int mp_end(const struct mp *m)
{
    if (m->rc != 0)
        return m->rc;
    return m->at == m->end ? 0 : ERR_MALFORMED;
}
