/* Extended attributes: one register each; ACLs and file capabilities live in the permission
 * register with owner and mode (rule 9); user.claudefs.* tells what the system knows. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/assert.h"
#include "base/limits.h"
#include "site/call.h"
#include "site/node_int.h"
#include "site/posix_int.h"

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"
#define CAPS "security.capability"
#define VIRTUAL "user.claudefs."

static bool is(struct slice name, const char *text)
{
    return slice_equal(name, slice_str(text));
}
static bool begins(struct slice name, const char *text)
{
    size_t len = strlen(text);
    return name.len >= len && memcmp(name.ptr, text, len) == 0;
}

static int check_name(struct slice name)
{
    if (name.len == 0 || name.len > LIMIT_XATTR_NAME_BYTES)
        return ERR_OUT_OF_RANGE;
    if (memchr(name.ptr, 0, name.len) != NULL || name.ptr[name.len - 1] == '.')
        return ERR_INVALID;
    if (begins(name, "user.") || begins(name, "trusted.") || begins(name, "security.") ||
        is(name, ACL_ACCESS) || is(name, ACL_DEFAULT))
        return 0;
    return ERR_NOT_SUPPORTED;
}

static struct slice reg_key(struct call *c, struct slice name)
{
    uint8_t *key = op_alloc(&c->arena, 1 + name.len);
    key[0] = REG_XATTR;
    memcpy(key + 1, name.ptr, name.len);
    return slice_of(key, 1 + name.len);
}

/* The value in `*ret`, kept by the call. ERR_NO_DATA. */
static int value_get(struct call *c, struct slice name, struct slice *ret)
{
    struct perm p;
    struct dot version;
    struct reg reg;
    bool special = is(name, ACL_ACCESS) || is(name, ACL_DEFAULT) || is(name, CAPS);
    int rc = posix_perm(c, c->req.oid, &p, &version);
    if (rc != 0)
        return rc;
    if (special) {
        *ret = is(name, ACL_ACCESS) ? p.acl_access : is(name, CAPS) ? p.caps : p.acl_default;
        return ret->len > 0 ? 0 : ERR_NO_DATA;
    }
    rc = merge_reg(merge_of(c->n, c->req.oid), c->req.oid, reg_key(c, name), &reg);
    if (rc == ERR_NOT_FOUND || rc == ERR_NO_DATA || (rc == 0 && !reg.present))
        return ERR_NO_DATA;
    if (rc == 0)
        *ret = call_keep(c, reg.value);
    return rc;
}

static int virtual_get(struct call *c, struct slice name, struct slice *ret)
{
    struct oid oid = c->req.oid;
    char text[160];
    if (is(name, VIRTUAL "oid")) {
        oid_to_text(oid, text);
    } else if (is(name, VIRTUAL "version") || is(name, VIRTUAL "origin")) {
        struct content content;
        struct dot version;
        int64_t mtime;
        if (oid_is_dir(oid))
            return ERR_NO_DATA;
        int rc = content_get(c->n, oid, &content, &version, &mtime);
        if (rc != 0)
            return rc;
        if (is(name, VIRTUAL "version"))
            dot_to_text(version, text);
        else
            node_site_name(c->n, version.site == UINT32_MAX ? node_site(c->n) : version.site, text);
    } else if (is(name, VIRTUAL "placement")) {
        snprintf(text, sizeof text, "shard=%u copies=1", (unsigned)oid_shard(oid));
    } else {
        return value_get(c, name, ret); /* user.claudefs.policy is an ordinary one */
    }
    *ret = call_keep(c, slice_str(text));
    return 0;
}

int call_getxattr(struct call *c)
{
    int rc = check_name(c->req.name);
    if (rc != 0)
        return rc == ERR_NOT_SUPPORTED ? rc : ERR_NO_DATA;
    call_show(c, c->req.oid, slice_of(NULL, 0));
    if (begins(c->req.name, VIRTUAL))
        return virtual_get(c, c->req.name, &c->reply.data);
    return value_get(c, c->req.name, &c->reply.data);
}

static bool list_one(void *ctx, const struct reg *r)
{
    struct buf *out = ctx;
    if (r->present && r->key.len > 1) {
        buf_append(out, r->key.ptr + 1, r->key.len - 1);
        enc_u8(out, 0);
    }
    return true;
}

int call_listxattr(struct call *c)
{
    struct perm p;
    struct dot version;
    int rc = posix_perm(c, c->req.oid, &p, &version);
    if (rc != 0)
        return rc;
    call_show(c, c->req.oid, slice_of(NULL, 0));
    buf_clear(&c->keep[0]);
    rc = merge_regs(merge_of(c->n, c->req.oid), c->req.oid, REG_XATTR, list_one, &c->keep[0]);
    if (p.acl_access.len > 0)
        buf_append(&c->keep[0], ACL_ACCESS, sizeof ACL_ACCESS);
    if (p.acl_default.len > 0)
        buf_append(&c->keep[0], ACL_DEFAULT, sizeof ACL_DEFAULT);
    if (p.caps.len > 0)
        buf_append(&c->keep[0], CAPS, sizeof CAPS);
    c->reply.data = buf_slice(&c->keep[0]);
    return rc;
}

static int set_in_perm(struct call *c, struct slice name, struct slice value)
{
    struct oid oid = c->req.oid;
    struct perm p;
    struct dot version;
    int rc = posix_perm(c, oid, &p, &version);
    if (rc != 0)
        return rc;
    if (is(name, CAPS)) {
        p.caps = value;
    } else if (value.len > 0 && !acl_valid(value)) {
        return ERR_INVALID;
    } else if (is(name, ACL_DEFAULT)) {
        if (!oid_is_dir(oid))
            return value.len == 0 ? 0 : ERR_ACCESS;
        p.acl_default = value;
    } else {
        bool minimal = true;
        if (oid_kind(oid) == OID_SYMLINK)
            return ERR_NOT_SUPPORTED;
        if (value.len > 0)
            acl_mode(value, &p.mode, &minimal);
        p.acl_access = minimal ? slice_of(NULL, 0) : value;
    }
    posix_set_perm(c, oid, &p, version);
    return 0;
}

struct total {
    size_t bytes;
};
static bool count_one(void *ctx, const struct reg *r)
{
    struct total *t = ctx;
    if (r->present)
        t->bytes += r->key.len;
    return true;
}

static int propose_set(struct call *c, bool present)
{
    struct shard *home = shard_of(c->n, c->req.oid);
    struct slice name = c->req.name, value = present ? c->req.data : slice_of(NULL, 0);
    int rc = posix_touch(c, c->req.oid);
    if (rc != 0)
        return rc;
    if (is(name, ACL_ACCESS) || is(name, ACL_DEFAULT) || is(name, CAPS))
        rc = set_in_perm(c, name, value);
    else
        posix_set(c, c->req.oid, REG_XATTR, name, present, value);
    if (rc == 0 && c->b.count > 0)
        rc = call_propose(c, home, c->req.oid, NULL);
    return rc;
}

static int check_exists(struct call *c)
{
    struct slice old;
    struct shard *home = shard_of(c->n, c->req.oid);
    int rc = call_need_object(c, home, c->req.oid);
    return rc != 0 ? rc : value_get(c, c->req.name, &old);
}

/* What the system says itself nobody sets or takes away; the rest of the names are kept for it. */
static bool is_virtual(struct slice name)
{
    return begins(name, VIRTUAL) && !is(name, VIRTUAL "policy");
}

/* A word that nobody knows would be passed over when data is to go somewhere (node_gc.c). */
static bool is_policy(struct slice value)
{
    return is(value, "eager") || is(value, "pinned") || is(value, "lazy");
}

int call_setxattr(struct call *c)
{
    const struct fs_request *r = &c->req;
    int rc = check_name(r->name);
    if (rc != 0)
        return rc;
    if (r->data.len > LIMIT_XATTR_VALUE_BYTES)
        return ERR_TOO_BIG;
    if (is_virtual(r->name))
        return ERR_NOT_PERMITTED;
    /* The node's own are what a site that comes back had, be it from before this was looked at. */
    if (r->session != 0 && is(r->name, VIRTUAL "policy") && !is_policy(r->data))
        return ERR_INVALID;
    rc = check_exists(c);
    if (rc != 0 && rc != ERR_NO_DATA)
        return rc;
    if (rc == 0 && (r->flags & XATTR_CREATE) != 0)
        return ERR_EXISTS;
    if (rc == ERR_NO_DATA && (r->flags & XATTR_REPLACE) != 0)
        return ERR_NO_DATA;
    struct total total = {0};
    rc = merge_regs(merge_of(c->n, r->oid), r->oid, REG_XATTR, count_one, &total);
    if (rc == 0 && total.bytes + r->name.len + 1 > LIMIT_XATTR_TOTAL_BYTES)
        rc = ERR_NO_SPACE;
    return rc != 0 ? rc : propose_set(c, true);
}

int call_removexattr(struct call *c)
{
    int rc = check_name(c->req.name);
    if (rc != 0)
        return rc == ERR_NOT_SUPPORTED ? rc : ERR_NO_DATA;
    if (is_virtual(c->req.name))
        return ERR_NOT_PERMITTED;
    rc = check_exists(c);
    return rc != 0 ? rc : propose_set(c, false);
}
