/* POSIX ACLs in the form of the Linux system.posix_acl_* attributes: a 32-bit version (2), then
 * entries of tag (16), permissions (16), id (32), little endian, sorted by tag. The rules
 * are those of POSIX.1e draft 17 as acl(5) tells them. */
#include "base/codec.h"
#include "site/call.h"

#define ACL_VERSION 2u
#define ACL_ENTRY_BYTES 8u
#define ACL_UNDEFINED 0xffffffffu
#define ACL_ENTRIES_MAX 8000u

enum acl_tag {
    TAG_USER_OBJ = 1,
    TAG_USER = 2,
    TAG_GROUP_OBJ = 4,
    TAG_GROUP = 8,
    TAG_MASK = 16,
    TAG_OTHER = 32
};
struct acl_entry {
    uint16_t tag, perm;
    uint32_t id;
};

static size_t entry_count(struct slice acl)
{
    return acl.len < 4 ? 0 : (acl.len - 4) / ACL_ENTRY_BYTES;
}

static struct acl_entry entry_at(struct slice acl, size_t i)
{
    struct dec d = dec_of(slice_of(acl.ptr + 4 + i * ACL_ENTRY_BYTES, ACL_ENTRY_BYTES));
    struct acl_entry e;
    e.tag = dec_u16(&d);
    e.perm = dec_u16(&d);
    e.id = dec_u32(&d);
    return e;
}

static void entry_put(struct buf *b, struct acl_entry e)
{
    enc_u16(b, e.tag);
    enc_u16(b, e.perm);
    enc_u32(b, e.id);
}

bool acl_valid(struct slice acl)
{
    struct dec d = dec_of(acl);
    unsigned seen = 0, last = 0;
    bool named = false;
    if (acl.len < 4 || (acl.len - 4) % ACL_ENTRY_BYTES != 0 || dec_u32(&d) != ACL_VERSION)
        return false;
    if (entry_count(acl) > ACL_ENTRIES_MAX)
        return false;
    for (size_t i = 0; i < entry_count(acl); i++) {
        struct acl_entry e = entry_at(acl, i);
        bool is_named = e.tag == TAG_USER || e.tag == TAG_GROUP;
        if (e.perm > 7 || e.tag < last || (e.tag & (e.tag - 1)) != 0 || e.tag == 0 ||
            e.tag > TAG_OTHER)
            return false;
        if (!is_named && (seen & e.tag) != 0)
            return false;
        if (is_named && e.id == ACL_UNDEFINED)
            return false;
        named = named || is_named;
        seen |= e.tag;
        last = e.tag;
    }
    unsigned base = TAG_USER_OBJ | TAG_GROUP_OBJ | TAG_OTHER;
    return (seen & base) == base && (!named || (seen & TAG_MASK) != 0);
}

void acl_mode(struct slice acl, uint16_t *mode, bool *ret_minimal)
{
    unsigned bits = *mode & 07000u, group = 0, mask = 0;
    bool has_mask = false, minimal = true;
    for (size_t i = 0; i < entry_count(acl); i++) {
        struct acl_entry e = entry_at(acl, i);
        if (e.tag == TAG_USER_OBJ)
            bits |= (unsigned)e.perm << 6;
        else if (e.tag == TAG_OTHER)
            bits |= e.perm;
        else if (e.tag == TAG_GROUP_OBJ)
            group = e.perm;
        else if (e.tag == TAG_MASK) {
            mask = e.perm;
            has_mask = true;
            minimal = false;
        } else
            minimal = false;
    }
    bits |= (has_mask ? mask : group) << 3;
    *mode = (uint16_t)bits;
    *ret_minimal = minimal;
}

void acl_chmod(struct slice acl, uint16_t mode, struct buf *ret)
{
    bool has_mask = false;
    for (size_t i = 0; i < entry_count(acl); i++)
        has_mask = has_mask || entry_at(acl, i).tag == TAG_MASK;
    buf_clear(ret);
    enc_u32(ret, ACL_VERSION);
    for (size_t i = 0; i < entry_count(acl); i++) {
        struct acl_entry e = entry_at(acl, i);
        if (e.tag == TAG_USER_OBJ)
            e.perm = mode >> 6 & 7;
        else if (e.tag == TAG_OTHER)
            e.perm = mode & 7;
        else if (e.tag == (has_mask ? TAG_MASK : TAG_GROUP_OBJ))
            e.perm = mode >> 3 & 7;
        entry_put(ret, e);
    }
}

void acl_inherit(struct slice default_acl, uint16_t *mode, struct buf *ret_access)
{
    bool has_mask = false, minimal = true;
    unsigned bits = *mode;
    for (size_t i = 0; i < entry_count(default_acl); i++)
        has_mask = has_mask || entry_at(default_acl, i).tag == TAG_MASK;
    buf_clear(ret_access);
    enc_u32(ret_access, ACL_VERSION);
    for (size_t i = 0; i < entry_count(default_acl); i++) {
        struct acl_entry e = entry_at(default_acl, i);
        unsigned shift = e.tag == TAG_USER_OBJ ? 6u : e.tag == TAG_OTHER ? 0u : 3u;
        bool is_class = e.tag == TAG_USER_OBJ || e.tag == TAG_OTHER ||
                        e.tag == (has_mask ? TAG_MASK : TAG_GROUP_OBJ);
        if (is_class) {
            e.perm &= (uint16_t)(bits >> shift & 7);
            bits = (bits & ~(7u << shift)) | (unsigned)e.perm << shift;
        }
        if (e.tag != TAG_USER_OBJ && e.tag != TAG_GROUP_OBJ && e.tag != TAG_OTHER)
            minimal = false;
        entry_put(ret_access, e);
    }
    *mode = (uint16_t)bits;
    if (minimal)
        buf_clear(ret_access); /* the mode says it all */
}
