/* msgpack codec. Writing uses msgpack-c's packer into a struct buf. Reading is a bounded cursor of
 * our own: msgpack-c only builds whole object trees, whose allocations the sender decides.
 * The reader never allocates and never recurses; errors are sticky as in base/codec.h. */
#ifndef BASE_MP_H
#define BASE_MP_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"

void mp_nil(struct buf *b);
void mp_bool(struct buf *b, bool v);
void mp_uint(struct buf *b, uint64_t v);
void mp_int(struct buf *b, int64_t v);
void mp_bin(struct buf *b, struct slice s);
void mp_str(struct buf *b, struct slice s);
void mp_cstr(struct buf *b, const char *s);
void mp_array(struct buf *b, uint32_t count);
void mp_map(struct buf *b, uint32_t count);
void mp_oid(struct buf *b, struct oid o);     /* bin of 16 */
void mp_dot(struct buf *b, struct dot d);     /* array of 3: shard, site, seq */
void mp_stamp(struct buf *b, struct stamp s); /* array of 2: hlc, site */

enum mp_type {
    MP_NIL,
    MP_BOOL,
    MP_UINT,
    MP_INT, /* negative */
    MP_BIN,
    MP_STR,
    MP_ARRAY,
    MP_MAP,
    MP_OTHER, /* float, ext: valid msgpack that nothing here uses */
    MP_END    /* nothing left, or the reader has failed */
};
struct mp {
    const uint8_t *at, *end;
    int rc;
};
static inline struct mp mp_of(struct slice s)
{
    /* Adding 0 to a null pointer is undefined. */
    return (struct mp){.at = s.ptr, .end = s.len == 0 ? s.ptr : s.ptr + s.len, .rc = 0};
}
enum mp_type mp_peek(const struct mp *m);
void mp_get_nil(struct mp *m);
bool mp_get_bool(struct mp *m);
uint64_t mp_get_uint(struct mp *m, uint64_t max); /* ERR_MALFORMED above max */
int64_t mp_get_int(struct mp *m);
struct slice mp_get_bin(struct mp *m, size_t len_max); /* bin or str; borrowed from the input */
struct slice mp_get_bin_exact(struct mp *m, size_t len);
uint32_t mp_get_array(struct mp *m, uint32_t count_max); /* the count; the elements follow */
uint32_t mp_get_map(struct mp *m, uint32_t count_max);
struct oid mp_get_oid(struct mp *m); /* oid_valid: none is refused */
struct dot mp_get_dot(struct mp *m);
struct stamp mp_get_stamp(struct mp *m);
void mp_skip(struct mp *m); /* one value with all inside, depth <= 32 */
void mp_fail(struct mp *m, int rc);
int mp_end(const struct mp *m) MUST_CHECK;

#endif
