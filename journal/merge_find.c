/* Finding a directory by a range of oids: inode numbers of directories are a prefix of theirs. */
#include "journal/merge_int.h"

#include <string.h>

int merge_find_dir(struct merge *m, struct oid first, struct oid last, struct oid *ret)
{
    uint8_t prefix = KEY_DIR, start[1 + sizeof first.b] = {KEY_DIR};
    struct state_scan it;
    bool found = false;
    memcpy(start + 1, first.b, sizeof first.b);
    state_scan_begin(m->state, &it, slice_of(&prefix, 1), slice_of(start, sizeof start));
    if (state_scan_next(&it) && it.key.len == sizeof start &&
        memcmp(it.key.ptr + 1, last.b, sizeof last.b) <= 0) {
        memcpy(ret->b, it.key.ptr + 1, sizeof ret->b);
        found = true;
    }
    state_scan_end(&it);
    int rc = state_health(m->state);
    return rc != 0 ? rc : found ? 0 : ERR_NOT_FOUND;
}
