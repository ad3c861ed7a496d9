/* Paths for people: from objects to paths and back. */
#include <string.h>

#include "base/limits.h"
#include "site/node_int.h"

int node_dir_path(struct node *n, struct oid dir, struct buf *out)
{
    struct slice parts[256];
    struct op_arena arena = {0};
    unsigned count = 0;
    int rc = 0;
    while (!oid_is_root(dir) && count < ARRAY_COUNT(parts)) {
        struct dir_view v;
        rc = oid_is_dir(dir) ? merge_dir(merge_of(n, dir), dir, &v) : ERR_NOT_FOUND;
        if (rc != 0)
            break;
        parts[count++] = op_dup(&arena, v.name);
        dir = v.parent;
    }
    if (rc != 0)
        buf_append(out, "?", 1);
    while (count > 0) {
        count--;
        buf_append(out, "/", 1);
        buf_append(out, parts[count].ptr, parts[count].len);
    }
    op_arena_deinit(&arena);
    return rc;
}

int node_path(struct node *n, struct oid parent, struct slice name, struct buf *out)
{
    int rc = node_dir_path(n, parent, out);
    buf_append(out, "/", 1);
    buf_append(out, name.ptr, name.len);
    return rc;
}

int node_resolve_path(struct node *n,
                      const char *path,
                      struct oid *ret,
                      struct oid *ret_parent,
                      struct slice *ret_name)
{
    struct oid at = OID_ROOT, parent = OID_ROOT;
    *ret_name = slice_of(NULL, 0);
    while (*path != '\0') {
        while (*path == '/')
            path++;
        size_t len = strcspn(path, "/");
        if (len == 0)
            break;
        struct shown s;
        if (!oid_is_dir(at))
            return ERR_NOT_DIR;
        parent = at;
        *ret_name = slice_of(path, len);
        int rc = merge_lookup(merge_of(n, at), at, *ret_name, &s);
        if (rc != 0)
            return rc;
        at = s.oid;
        path += len;
    }
    *ret = at;
    *ret_parent = parent;
    return 0;
}
