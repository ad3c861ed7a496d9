/* Building, checking and printing identities; version vectors. */
#include "base/id.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/err.h"

static void be_put(uint8_t *at, uint64_t v, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--, v >>= 8)
        at[i] = (uint8_t)v;
}

struct oid oid_file(shard_id_t shard, enum oid_kind kind, site_id_t site, uint64_t counter)
{
    ASSERT(kind > OID_NONE && kind < OID_KIND_COUNT && kind != OID_DIR);
    struct oid o = {.b = {0}};
    be_put(o.b, shard, 2);
    o.b[2] = (uint8_t)kind;
    be_put(o.b + 4, site, 4);
    be_put(o.b + 8, counter, 8);
    return o;
}

struct oid oid_dir(shard_id_t shard, const uint8_t hash[12])
{
    struct oid o = {.b = {0}};
    be_put(o.b, shard, 2);
    o.b[2] = OID_DIR;
    memcpy(o.b + 4, hash, 12);
    return o;
}

uint32_t oid_short(struct oid o)
{
    return (uint32_t)o.b[12] << 24 | (uint32_t)o.b[13] << 16 | (uint32_t)o.b[14] << 8 | o.b[15];
}

bool oid_valid(struct oid o)
{
    return o.b[2] > OID_NONE && o.b[2] < OID_KIND_COUNT && o.b[3] == 0;
}

void oid_to_text(struct oid o, char out[OID_TEXT_LEN + 1])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof o.b; i++) {
        out[2 * i] = digits[o.b[i] >> 4];
        out[2 * i + 1] = digits[o.b[i] & 15];
    }
    out[OID_TEXT_LEN] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int oid_from_text(const char *text, struct oid *ret)
{
    struct oid o = {.b = {0}};
    if (strlen(text) != OID_TEXT_LEN)
        return ERR_INVALID;
    for (size_t i = 0; i < OID_TEXT_LEN; i++) {
        int digit = hex_digit(text[i]);
        if (digit < 0)
            return ERR_INVALID;
        o.b[i / 2] = (uint8_t)((unsigned)o.b[i / 2] << 4 | (unsigned)digit);
    }
    if (!oid_valid(o))
        return ERR_INVALID;
    *ret = o;
    return 0;
}

void dot_to_text(struct dot d, char out[DOT_TEXT_LEN])
{
    (void)snprintf(out, DOT_TEXT_LEN, "%" PRIu16 ":%08" PRIx32 ":%" PRIu64, d.shard, d.site, d.seq);
}

/* A number in the given base up to the end character, at most max; moves *at behind it. */
static bool number_from_text(const char **at, unsigned base, char end, uint64_t max, uint64_t *ret)
{
    uint64_t v = 0;
    const char *from = *at;
    for (; **at != end; (*at)++) {
        int digit = hex_digit(**at);
        if (digit < 0 || (unsigned)digit >= base || v > (max - (unsigned)digit) / base)
            return false;
        v = v * base + (unsigned)digit;
    }
    if (*at == from)
        return false;
    if (end != '\0')
        (*at)++;
    *ret = v;
    return true;
}

int dot_from_text(const char *text, struct dot *ret)
{
    uint64_t shard, site, seq;
    if (!number_from_text(&text, 10, ':', UINT16_MAX, &shard) ||
        !number_from_text(&text, 16, ':', UINT32_MAX, &site) ||
        !number_from_text(&text, 10, '\0', UINT64_MAX, &seq))
        return ERR_INVALID;
    *ret = (struct dot){.seq = seq, .site = (site_id_t)site, .shard = (shard_id_t)shard};
    return 0;
}

/* Index of the first entry whose site is not below `site`. */
static uint32_t vv_find(const struct vv *v, site_id_t site)
{
    uint32_t i = 0;
    ASSERT(v->count <= SITE_COUNT_MAX);
    while (i < v->count && v->at[i].site < site)
        i++;
    return i;
}

uint64_t vv_get(const struct vv *v, site_id_t site)
{
    uint32_t i = vv_find(v, site);
    return i < v->count && v->at[i].site == site ? v->at[i].seq : 0;
}

int vv_set(struct vv *v, site_id_t site, uint64_t seq)
{
    uint32_t i = vv_find(v, site);
    bool found = i < v->count && v->at[i].site == site;
    if (seq == 0) { /* absent means 0: one form per value */
        if (found) {
            memmove(&v->at[i], &v->at[i + 1], (v->count - i - 1) * sizeof v->at[0]);
            v->count--;
        }
        return 0;
    }
    if (!found) {
        if (v->count == SITE_COUNT_MAX)
            return ERR_LIMIT;
        memmove(&v->at[i + 1], &v->at[i], (v->count - i) * sizeof v->at[0]);
        v->at[i].site = site;
        v->count++;
    }
    v->at[i].seq = seq;
    return 0;
}

bool vv_covers(const struct vv *a, const struct vv *b)
{
    for (uint32_t i = 0; i < b->count; i++)
        if (vv_get(a, b->at[i].site) < b->at[i].seq)
            return false;
    return true;
}
