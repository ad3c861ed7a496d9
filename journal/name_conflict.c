/* Names of losers (rule 6): `a.txt` -> `a.conflict-<site>-<8 hex of the oid>.txt`. */
#include <stdio.h>

#include "base/limits.h"
#include "journal/merge_int.h"

static const char MARK[] = ".conflict-";

enum {
    MARK_LEN = sizeof MARK - 1,
    HEX_LEN = 8
};

static bool is_hex(struct slice s, size_t at)
{
    if (at + HEX_LEN > s.len)
        return false;
    for (size_t i = at; i < at + HEX_LEN; i++) {
        uint8_t c = s.ptr[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
    }
    return true;
}

/* The length of `.conflict-<no dots>-<8 hex>[-<digits>]` at `at`, the longest that fits; 0: none.
 */
static size_t mark_len(struct slice s, size_t at)
{
    if (s.len - at < MARK_LEN || memcmp(s.ptr + at, MARK, MARK_LEN) != 0)
        return 0;
    size_t from = at + MARK_LEN;
    size_t run = from;
    while (run < s.len && s.ptr[run] != '.')
        run++;
    for (size_t dash = run; dash-- > from;) {
        if (s.ptr[dash] != '-' || !is_hex(s, dash + 1))
            continue;
        size_t end = dash + 1 + HEX_LEN;
        size_t digits = end + 1;
        while (digits < s.len && s.ptr[digits] >= '0' && s.ptr[digits] <= '9')
            digits++;
        if (end < s.len && s.ptr[end] == '-' && digits > end + 1)
            end = digits;
        return end - at;
    }
    return 0;
}

bool name_is_derived_form(struct slice name)
{
    for (size_t i = 0; i + MARK_LEN <= name.len; i++)
        if (name.ptr[i] == '.' && mark_len(name, i) > 0)
            return true;
    return false;
}

/* The name without conflict marks. */
static size_t strip(struct slice name, uint8_t out[LIMIT_NAME_BYTES])
{
    size_t len = 0;
    for (size_t i = 0; i < name.len;) {
        size_t mark = name.ptr[i] == '.' ? mark_len(name, i) : 0;
        if (mark > 0)
            i += mark;
        else
            out[len++] = name.ptr[i++];
    }
    return len;
}

/* The longest prefix of at most `max` bytes that does not end inside a UTF-8 sequence. */
static size_t cut_utf8(const uint8_t *text, size_t len, size_t max)
{
    if (len <= max)
        return len;
    size_t start = max;
    while (start > 0 && (text[start] & 0xc0) == 0x80)
        start--;
    return max - start < 4 ? start : max; /* not UTF-8 at all: any byte will do */
}

void conflict_name(
    struct slice name, const char *site_name, struct oid oid, uint32_t k, struct buf *ret)
{
    uint8_t plain[LIMIT_NAME_BYTES];
    char tail[96];
    size_t len = strip(slice_of(name.ptr, MIN(name.len, (size_t)LIMIT_NAME_BYTES)), plain);
    size_t stem = len;
    for (size_t i = len; i-- > 1;)
        if (plain[i] == '.') {
            stem = i;
            break;
        }
    int tail_len = snprintf(tail, sizeof tail, "%s%.32s-%08x", MARK, site_name, oid_short(oid));
    if (k > 0)
        tail_len += snprintf(tail + tail_len, sizeof tail - (size_t)tail_len, "-%u", k);
    ASSERT(tail_len > 0 && (size_t)tail_len < sizeof tail);
    size_t ext = len - stem;
    if ((size_t)tail_len + ext >= LIMIT_NAME_BYTES) {
        stem = len; /* what comes after so early a dot is no extension */
        ext = 0;
    }
    size_t kept = cut_utf8(plain, stem, LIMIT_NAME_BYTES - (size_t)tail_len - ext);
    buf_clear(ret);
    buf_append(ret, plain, kept);
    buf_append(ret, tail, (size_t)tail_len);
    buf_append(ret, plain + stem, ext);
}
