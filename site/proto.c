/* Requests and replies as msgpack maps, driven by one table of fields per struct.
 *
 * A table is indexed by tag: a field's tag on the wire is its place in the table, so a tag is never
 * used again for something else and new fields go to the end. A field that holds zero is not
 * written; a tag beyond the table is skipped. Encoding cannot fail. Decoding checks every length
 * before it is believed and allocates only arrays, at most ARRAY_MAX elements each. */
#include "site/proto.h"

#include <string.h>

#include "base/assert.h"
#include "base/codec.h"
#include "base/limits.h"
#include "base/mp.h"

enum field_type {
    F_NONE, /* no such tag */
    F_BOOL,
    F_U8,
    F_U32,
    F_U64,
    F_I32,
    F_I64,
    F_OID,
    F_DOT,
    F_BYTES,  /* struct slice, up to `max` bytes */
    F_RAW32,  /* 32 bytes; present when `has` says so, or without `has` when any is not zero */
    F_STRUCT, /* as F_RAW32: without `has` present when anything in it is not zero */
    F_ARRAY,  /* pointer to elements of shape `sub`, the count (uint32_t) is at `has` */
    F_OIDS    /* pointer to struct oid, the count is at `has` */
};
#define HAS_NONE UINT16_MAX

struct shape;
struct field {
    enum field_type type;
    uint16_t at;  /* where the member is */
    uint16_t has; /* where the bool or the count is; HAS_NONE */
    uint32_t max; /* F_BYTES: longest accepted */
    const struct shape *sub;
};
struct shape {
    const struct field *fields; /* by tag */
    size_t field_count;
    size_t size;
    int (*check)(const void *object); /* of a decoded object; may be NULL */
};

enum {
    WIRE_NAME_MAX = LIMIT_PATH_BYTES, /* what is too long for a name is for the core to say */
    WIRE_DATA_MAX = LIMIT_FRAME_BYTES,
    WIRE_FIELDS_MAX = 256, /* of one map, unknown ones included */
    ARRAY_MAX = FS_ENTRIES_MAX,
    OIDS_MAX = 65536,
    MAP_HEAD_BYTES = 3
};

#define FIELD(type_, struct_, member_)                                                             \
    {                                                                                              \
        .type = (type_), .at = offsetof(struct struct_, member_), .has = HAS_NONE                  \
    }
#define FIELD_BYTES(struct_, member_, max_)                                                        \
    {                                                                                              \
        .type = F_BYTES, .at = offsetof(struct struct_, member_), .has = HAS_NONE, .max = (max_)   \
    }
#define FIELD_IF(type_, struct_, member_, has_, sub_)                                              \
    {                                                                                              \
        .type = (type_), .at = offsetof(struct struct_, member_),                                  \
        .has = offsetof(struct struct_, has_), .sub = (sub_)                                       \
    }

/* --- the tables --- */

_Static_assert(sizeof(enum content_kind) == sizeof(uint32_t), "read and written as F_U32");
_Static_assert(sizeof(site_id_t) == sizeof(uint32_t), "read and written as F_U32");

static const struct field content_fields[] = {
    [1] = FIELD(F_U32, content, kind),
    [2] = FIELD(F_U64, content, size),
    [3] = FIELD(F_U32, content, block_bytes),
    [4] = FIELD(F_RAW32, content, root),
    [5] = FIELD_BYTES(content, bytes, LIMIT_INLINE_BYTES),
    [6] = FIELD(F_U64, content, data_blocks),
};

static int content_check(const void *object)
{
    const struct content *c = object;
    if (c->size > LIMIT_FILE_BYTES)
        return ERR_MALFORMED;
    if (c->kind == CONTENT_INLINE)
        return c->bytes.len <= c->size && c->block_bytes == 0 ? 0 : ERR_MALFORMED;
    if (c->kind != CONTENT_MANIFEST || c->bytes.len > 0)
        return ERR_MALFORMED;
    bool power_of_two = (c->block_bytes & (c->block_bytes - 1)) == 0;
    return c->block_bytes >= 64 * KIB && c->block_bytes <= LIMIT_CHUNK_BYTES && power_of_two
               ? 0
               : ERR_MALFORMED;
}

static const struct shape content_shape = {content_fields, ARRAY_COUNT(content_fields),
                                           sizeof(struct content), content_check};

static const struct field lock_fields[] = {
    [1] = FIELD(F_U64, fs_lock, owner), [2] = FIELD(F_U64, fs_lock, start),
    [3] = FIELD(F_U64, fs_lock, end),   [4] = FIELD(F_U32, fs_lock, pid),
    [5] = FIELD(F_U8, fs_lock, type),
};

static int lock_check(const void *object)
{
    const struct fs_lock *l = object;
    return l->type <= 2 && l->start <= l->end ? 0 : ERR_MALFORMED;
}

static const struct shape lock_shape = {lock_fields, ARRAY_COUNT(lock_fields),
                                        sizeof(struct fs_lock), lock_check};

static const struct field attr_fields[] = {
    [1] = FIELD(F_OID, fs_attr, oid),         [2] = FIELD(F_U64, fs_attr, ino),
    [3] = FIELD(F_U32, fs_attr, mode),        [4] = FIELD(F_U32, fs_attr, nlink),
    [5] = FIELD(F_U32, fs_attr, uid),         [6] = FIELD(F_U32, fs_attr, gid),
    [7] = FIELD(F_U64, fs_attr, rdev),        [8] = FIELD(F_U64, fs_attr, size),
    [9] = FIELD(F_U64, fs_attr, blocks),      [10] = FIELD(F_I64, fs_attr, atime_ns),
    [11] = FIELD(F_I64, fs_attr, mtime_ns),   [12] = FIELD(F_I64, fs_attr, ctime_ns),
    [13] = FIELD(F_I64, fs_attr, btime_ns),   [14] = FIELD(F_DOT, fs_attr, version),
    [15] = FIELD(F_U64, fs_attr, change),     [16] = FIELD(F_BOOL, fs_attr, has_acl),
    [17] = FIELD(F_BOOL, fs_attr, has_xattr),
};
static const struct shape attr_shape = {attr_fields, ARRAY_COUNT(attr_fields),
                                        sizeof(struct fs_attr), NULL};

static const struct field entry_fields[] = {
    [1] = FIELD_BYTES(fs_entry, name, WIRE_NAME_MAX),
    [2] = {.type = F_STRUCT,
           .at = offsetof(struct fs_entry, attr),
           .has = HAS_NONE,
           .sub = &attr_shape},
    [3] = FIELD(F_BOOL, fs_entry, has_attr),
};
static const struct shape entry_shape = {entry_fields, ARRAY_COUNT(entry_fields),
                                         sizeof(struct fs_entry), NULL};

static const struct field inval_fields[] = {
    [1] = FIELD(F_OID, fs_inval, oid),
    [2] = FIELD_BYTES(fs_inval, name, WIRE_NAME_MAX),
    [3] = FIELD(F_BOOL, fs_inval, content),
};
static const struct shape inval_shape = {inval_fields, ARRAY_COUNT(inval_fields),
                                         sizeof(struct fs_inval), NULL};

static const struct field statfs_fields[] = {
    [1] = FIELD(F_U64, fs_statfs, block_bytes), [2] = FIELD(F_U64, fs_statfs, blocks),
    [3] = FIELD(F_U64, fs_statfs, blocks_free), [4] = FIELD(F_U64, fs_statfs, blocks_available),
    [5] = FIELD(F_U64, fs_statfs, files),       [6] = FIELD(F_U64, fs_statfs, files_free),
};
static const struct shape statfs_shape = {statfs_fields, ARRAY_COUNT(statfs_fields),
                                          sizeof(struct fs_statfs), NULL};

static const struct field set_fields[] = {
    [1] = FIELD(F_U32, fs_set, set),      [2] = FIELD(F_U32, fs_set, mode),
    [3] = FIELD(F_U32, fs_set, uid),      [4] = FIELD(F_U32, fs_set, gid),
    [5] = FIELD(F_I64, fs_set, atime_ns), [6] = FIELD(F_I64, fs_set, mtime_ns),
    [7] = FIELD(F_I64, fs_set, ctime_ns),
};

static int set_check(const void *object)
{
    const struct fs_set *s = object;
    return (s->set & ~SET_KEPT) == 0 && s->mode <= 01777 ? 0 : ERR_MALFORMED;
}

static const struct shape set_shape = {set_fields, ARRAY_COUNT(set_fields), sizeof(struct fs_set),
                                       set_check};

static const struct field request_fields[] = {
    [1] = FIELD(F_U64, fs_request, session),
    [2] = FIELD(F_U64, fs_request, number),
    [3] = FIELD(F_U64, fs_request, acked),
    [4] = FIELD(F_OID, fs_request, oid),
    [5] = FIELD(F_OID, fs_request, oid2),
    [6] = FIELD_BYTES(fs_request, name, WIRE_NAME_MAX),
    [7] = FIELD_BYTES(fs_request, name2, WIRE_NAME_MAX),
    [8] = FIELD(F_U32, fs_request, flags),
    [9] = FIELD(F_U32, fs_request, set),
    [10] = FIELD(F_U32, fs_request, mode),
    [11] = FIELD(F_U32, fs_request, umask),
    [12] = FIELD(F_U32, fs_request, uid),
    [13] = FIELD(F_U32, fs_request, gid),
    [14] = FIELD(F_U32, fs_request, pid),
    [15] = FIELD(F_U32, fs_request, count),
    [16] = FIELD(F_U8, fs_request, kind),
    [17] = FIELD(F_U64, fs_request, rdev),
    [18] = FIELD(F_U64, fs_request, size),
    [19] = FIELD(F_U64, fs_request, number2),
    [20] = FIELD(F_I64, fs_request, atime_ns),
    [21] = FIELD(F_I64, fs_request, mtime_ns),
    [22] = FIELD_BYTES(fs_request, data, WIRE_DATA_MAX),
    [23] = FIELD(F_DOT, fs_request, base),
    [24] = FIELD_IF(F_STRUCT, fs_request, content, has_content, &content_shape),
    [25] = {.type = F_STRUCT,
            .at = offsetof(struct fs_request, lock),
            .has = HAS_NONE,
            .sub = &lock_shape},
    [26] = FIELD_IF(F_RAW32, fs_request, chunk, has_chunk, NULL),
    [27] = FIELD_IF(F_OIDS, fs_request, oids, oid_count, NULL),
    [28] = FIELD(F_BOOL, fs_request, ahead),
    [29] = {.type = F_STRUCT,
            .at = offsetof(struct fs_request, kept),
            .has = HAS_NONE,
            .sub = &set_shape},
};
static const struct shape request_shape = {request_fields, ARRAY_COUNT(request_fields),
                                           sizeof(struct fs_request), NULL};

static const struct field reply_fields[] = {
    [1] = FIELD(F_I32, fs_reply, rc),
    [2] = FIELD_BYTES(fs_reply, detail, WIRE_NAME_MAX),
    [3] = FIELD(F_U64, fs_reply, session),
    [4] = FIELD(F_U64, fs_reply, number2),
    [5] = FIELD(F_U32, fs_reply, flags),
    [6] = FIELD(F_U32, fs_reply, shard_count),
    [7] = FIELD(F_U32, fs_reply, site),
    [8] = FIELD_BYTES(fs_reply, name, WIRE_NAME_MAX),
    [9] = FIELD_IF(F_STRUCT, fs_reply, attr, has_attr, &attr_shape),
    [10] = FIELD_IF(F_STRUCT, fs_reply, content, has_content, &content_shape),
    [11] = FIELD_BYTES(fs_reply, data, WIRE_DATA_MAX),
    [12] = FIELD_IF(F_STRUCT, fs_reply, lock, has_lock, &lock_shape),
    [13] = FIELD_IF(F_STRUCT, fs_reply, statfs, has_statfs, &statfs_shape),
    [14] = FIELD_IF(F_ARRAY, fs_reply, entries, entry_count, &entry_shape),
    [15] = FIELD(F_BOOL, fs_reply, more),
    [16] = FIELD_IF(F_ARRAY, fs_reply, invals, inval_count, &inval_shape),
    [17] = FIELD_IF(F_STRUCT, fs_reply, dir, has_dir, &attr_shape),
    [18] = FIELD_IF(F_STRUCT, fs_reply, dir2, has_dir2, &attr_shape),
    [19] = FIELD_IF(F_OIDS, fs_reply, oids, oid_count, NULL),
};
static const struct shape reply_shape = {reply_fields, ARRAY_COUNT(reply_fields),
                                         sizeof(struct fs_reply), NULL};

/* --- access to members ---
 * The tables give each member its true type, so these reads and writes go through it. */

static const void *member(const void *object, uint16_t at)
{
    return (const uint8_t *)object + at;
}

static bool raw32_is_zero(const uint8_t *raw)
{
    static const uint8_t zero[32];
    return memcmp(raw, zero, sizeof zero) == 0;
}

static bool any_set(const struct shape *shape, const void *object);

static bool is_set(const struct field *f, const void *object)
{
    const void *p = member(object, f->at);
    switch (f->type) {
    case F_NONE:
        return false;
    case F_BOOL:
        return *(const bool *)p;
    case F_U8:
        return *(const uint8_t *)p != 0;
    case F_U32:
        return *(const uint32_t *)p != 0;
    case F_I32:
        return *(const int32_t *)p != 0;
    case F_U64:
        return *(const uint64_t *)p != 0;
    case F_I64:
        return *(const int64_t *)p != 0;
    case F_OID:
        return !oid_is_none(*(const struct oid *)p);
    case F_DOT:
        return !dot_is_none(*(const struct dot *)p);
    case F_BYTES:
        return ((const struct slice *)p)->len != 0;
    case F_RAW32:
        return f->has == HAS_NONE ? !raw32_is_zero(p) : *(const bool *)member(object, f->has);
    case F_STRUCT:
        return f->has == HAS_NONE ? any_set(f->sub, p) : *(const bool *)member(object, f->has);
    case F_ARRAY:
    case F_OIDS:
        return *(const uint32_t *)member(object, f->has) != 0;
    }
    UNREACHABLE();
}

static bool any_set(const struct shape *shape, const void *object)
{
    for (size_t tag = 1; tag < shape->field_count; tag++)
        if (is_set(&shape->fields[tag], object))
            return true;
    return false;
}

/* --- writing --- */

static void shape_encode(const struct shape *shape, const void *object, struct buf *out);

static void array_encode(const struct field *f, const void *object, struct buf *out)
{
    uint32_t count = *(const uint32_t *)member(object, f->has);
    mp_array(out, count);
    if (f->type == F_OIDS) {
        const struct oid *oids = *(const struct oid *const *)member(object, f->at);
        for (uint32_t i = 0; i < count; i++)
            mp_oid(out, oids[i]);
        return;
    }
    const uint8_t *at;
    memcpy(&at, member(object, f->at), sizeof at); /* a pointer of any type of element */
    for (uint32_t i = 0; i < count; i++)
        shape_encode(f->sub, at + i * f->sub->size, out);
}

/* A number is written with its tag, unless it is nought. */
static inline uint32_t uint_encode(size_t tag, uint64_t v, struct buf *out)
{
    if (v == 0)
        return 0;
    mp_uint(out, tag);
    mp_uint(out, v);
    return 1;
}

static inline uint32_t int_encode(size_t tag, int64_t v, struct buf *out)
{
    if (v == 0)
        return 0;
    mp_uint(out, tag);
    mp_int(out, v);
    return 1;
}

static void long_encode(const struct field *f, const void *object, struct buf *out)
{
    const void *p = member(object, f->at);
    switch (f->type) {
    case F_OID:
        mp_oid(out, *(const struct oid *)p);
        return;
    case F_DOT:
        mp_dot(out, *(const struct dot *)p);
        return;
    case F_BYTES:
        mp_bin(out, *(const struct slice *)p);
        return;
    case F_RAW32:
        mp_bin(out, slice_of(p, 32));
        return;
    case F_STRUCT:
        shape_encode(f->sub, p, out);
        return;
    case F_ARRAY:
    case F_OIDS:
        array_encode(f, object, out);
        return;
    case F_NONE:
    case F_BOOL:
    case F_U8:
    case F_U32:
    case F_U64:
    case F_I32:
    case F_I64:
        break;
    }
    UNREACHABLE();
}

/* The tag and the value, if it is set; how many were written. */
static inline uint32_t
field_encode(const struct field *f, size_t tag, const void *object, struct buf *out)
{
    const void *p = member(object, f->at);
    switch (f->type) {
    case F_NONE:
        return 0;
    case F_BOOL:
        if (!*(const bool *)p)
            return 0;
        mp_uint(out, tag);
        mp_bool(out, true);
        return 1;
    case F_U8:
        return uint_encode(tag, *(const uint8_t *)p, out);
    case F_U32:
        return uint_encode(tag, *(const uint32_t *)p, out);
    case F_U64:
        return uint_encode(tag, *(const uint64_t *)p, out);
    case F_I32:
        return int_encode(tag, *(const int32_t *)p, out);
    case F_I64:
        return int_encode(tag, *(const int64_t *)p, out);
    case F_OID:
    case F_DOT:
    case F_BYTES:
    case F_RAW32:
    case F_STRUCT:
    case F_ARRAY:
    case F_OIDS:
        break;
    }
    if (!is_set(f, object))
        return 0;
    mp_uint(out, tag);
    long_encode(f, object, out);
    return 1;
}

static void shape_encode(const struct shape *shape, const void *object, struct buf *out)
{
    /* The count comes before the fields: leave room for a map head of fixed size. */
    size_t head_at = out->len;
    buf_reserve(out, MAP_HEAD_BYTES);
    out->len += MAP_HEAD_BYTES;
    uint32_t count = 0;
    for (size_t tag = 1; tag < shape->field_count; tag++)
        count += field_encode(&shape->fields[tag], tag, object, out);
    uint8_t *head = out->ptr + head_at;
    head[0] = 0xde;
    head[1] = (uint8_t)(count >> 8);
    head[2] = (uint8_t)count;
}

/* --- reading --- */

static void
shape_decode(const struct shape *shape, struct mp *m, struct op_arena *arena, void *ret);

static void array_decode(const struct field *f, struct mp *m, struct op_arena *arena, void *object)
{
    void *p = (uint8_t *)object + f->at;
    uint32_t *ret_count = (void *)((uint8_t *)object + f->has);
    uint32_t count = mp_get_array(m, f->type == F_OIDS ? OIDS_MAX : ARRAY_MAX);
    if (m->rc != 0 || count == 0)
        return;
    if (f->type == F_OIDS) {
        struct oid *oids = op_alloc(arena, count * sizeof oids[0]);
        for (uint32_t i = 0; i < count && m->rc == 0; i++)
            oids[i] = mp_get_oid(m);
        *(const struct oid **)p = oids;
    } else {
        uint8_t *at = op_alloc(arena, count * f->sub->size);
        for (uint32_t i = 0; i < count && m->rc == 0; i++)
            shape_decode(f->sub, m, arena, at + i * f->sub->size);
        memcpy(p, &at, sizeof at);
    }
    *ret_count = count;
}

static void raw32_decode(struct mp *m, uint8_t out[32])
{
    struct slice s = mp_get_bin_exact(m, 32);
    if (m->rc == 0)
        memcpy(out, s.ptr, 32);
}

static void field_decode(const struct field *f, struct mp *m, struct op_arena *arena, void *object)
{
    void *p = (uint8_t *)object + f->at;
    switch (f->type) {
    case F_NONE:
        mp_skip(m);
        return;
    case F_BOOL:
        *(bool *)p = mp_get_bool(m);
        return;
    case F_U8:
        *(uint8_t *)p = (uint8_t)mp_get_uint(m, UINT8_MAX);
        return;
    case F_U32:
        *(uint32_t *)p = (uint32_t)mp_get_uint(m, UINT32_MAX);
        return;
    case F_U64:
        *(uint64_t *)p = mp_get_uint(m, UINT64_MAX);
        return;
    case F_I32: {
        int64_t v = mp_get_int(m);
        if (v < INT32_MIN || v > INT32_MAX)
            mp_fail(m, ERR_MALFORMED);
        *(int32_t *)p = (int32_t)v;
        return;
    }
    case F_I64:
        *(int64_t *)p = mp_get_int(m);
        return;
    case F_OID:
        *(struct oid *)p = mp_get_oid(m);
        return;
    case F_DOT:
        *(struct dot *)p = mp_get_dot(m);
        return;
    case F_BYTES:
        *(struct slice *)p = mp_get_bin(m, f->max);
        return;
    case F_RAW32:
        raw32_decode(m, p);
        break;
    case F_STRUCT:
        shape_decode(f->sub, m, arena, p);
        break;
    case F_ARRAY:
    case F_OIDS:
        array_decode(f, m, arena, object);
        return;
    }
    if (f->has != HAS_NONE)
        *(bool *)(void *)((uint8_t *)object + f->has) = true;
}

/* Fills *ret, which is zeroed; failures stay in m->rc. A tag that comes twice is refused: the first
 * value would have been checked, the second used. */
static void shape_decode(const struct shape *shape, struct mp *m, struct op_arena *arena, void *ret)
{
    static const struct field unknown = {.type = F_NONE};
    uint64_t seen = 0;
    uint32_t count = mp_get_map(m, WIRE_FIELDS_MAX);
    for (uint32_t i = 0; i < count && m->rc == 0; i++) {
        uint64_t tag = mp_get_uint(m, UINT32_MAX);
        bool known = tag < shape->field_count;
        if (known && (seen >> tag & 1) != 0)
            mp_fail(m, ERR_MALFORMED);
        if (known)
            seen |= UINT64_C(1) << tag;
        if (m->rc == 0)
            field_decode(known ? &shape->fields[tag] : &unknown, m, arena, ret);
    }
    if (m->rc == 0 && shape->check != NULL) {
        int rc = shape->check(ret);
        if (rc != 0)
            mp_fail(m, rc);
    }
}

_Static_assert(ARRAY_COUNT(request_fields) <= 64 && ARRAY_COUNT(reply_fields) <= 64,
               "one bit a tag in shape_decode");

/* --- the four calls --- */

void fs_request_encode(const struct fs_request *r, struct buf *out)
{
    shape_encode(&request_shape, r, out);
}

int fs_request_decode(struct slice s, struct op_arena *arena, struct fs_request *ret)
{
    struct mp m = mp_of(s);
    struct fs_request r = {0};
    shape_decode(&request_shape, &m, arena, &r);
    int rc = mp_end(&m);
    if (rc == 0)
        *ret = r;
    return rc;
}

void fs_reply_encode(const struct fs_reply *r, struct buf *out)
{
    ASSERT(r->entry_count <= ARRAY_MAX && r->inval_count <= ARRAY_MAX);
    shape_encode(&reply_shape, r, out);
}

int fs_reply_decode(struct slice s, struct op_arena *arena, struct fs_reply *ret)
{
    struct mp m = mp_of(s);
    struct fs_reply r = {0};
    shape_decode(&reply_shape, &m, arena, &r);
    int rc = mp_end(&m);
    if (rc == 0)
        *ret = r;
    return rc;
}

/* --- riders --- */

void rider_append(struct buf *bulk, const uint8_t id[32], struct slice sealed)
{
    enc_raw(bulk, id, 32);
    enc_u32(bulk, (uint32_t)sealed.len);
    enc_raw(bulk, sealed.ptr, sealed.len);
}

int riders_decode(struct slice bulk, struct rider ret[RIDERS_MAX], uint32_t *ret_count)
{
    struct dec d = dec_of(bulk);
    uint32_t count = 0;
    if (bulk.len > RIDERS_BYTES_MAX)
        return ERR_LIMIT;
    while (d.rc == 0 && dec_left(&d) > 0) {
        if (count == RIDERS_MAX)
            return ERR_LIMIT;
        struct rider *r = &ret[count++];
        dec_raw(&d, r->id, sizeof r->id);
        uint32_t len = dec_u32(&d);
        if (d.rc == 0 && len == 0)
            return ERR_MALFORMED;
        if (d.rc == 0 && len > dec_left(&d))
            return ERR_TRUNCATED;
        r->sealed = slice_of(d.at, len);
        d.at += d.rc == 0 ? len : 0;
    }
    *ret_count = count;
    return d.rc;
}
