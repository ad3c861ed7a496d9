/* Registers that members write. See site/member_codec.h. */
#include "site/member_codec.h"

#include <jansson.h>
#include <string.h>

#include "base/assert.h"
#include "base/codec.h"
#include "base/mp.h"
#include "site/settings.h"

#define CERT_BYTES_MAX 8192u

static void site_put(uint8_t *out, site_id_t site)
{
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(site >> (8 * (3 - i)));
}

static site_id_t site_get(const uint8_t *in)
{
    return (site_id_t)in[0] << 24 | (site_id_t)in[1] << 16 | (site_id_t)in[2] << 8 | in[3];
}

void member_key(uint8_t key_class, site_id_t site, uint8_t out[MEMBER_KEY_BYTES])
{
    out[0] = key_class;
    site_put(out + 1, site);
}

/* ---- who belongs to the federation ---- */

void member_encode(const struct member *m, struct buf *out)
{
    mp_array(out, 5);
    mp_cstr(out, m->name);
    mp_cstr(out, m->wan);
    mp_bin(out, slice_of(m->cert_sha256, sizeof m->cert_sha256));
    mp_bin(out, m->cert);
    mp_uint(out, 0);
}

/* It is shown to people and, in JSON, to programs. */
static bool is_text(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < ' ' || s.ptr[i] == 0x7f)
            return false;
    json_t *o = json_stringn((const char *)s.ptr, s.len); /* NULL: not UTF-8 */
    json_decref(o);
    return o != NULL;
}

bool member_decode(const struct reg *r, struct member *ret)
{
    struct mp in = mp_of(r->value);
    memset(ret, 0, sizeof *ret);
    if (r->key.len != MEMBER_KEY_BYTES || !r->present)
        return false;
    ret->site = site_get(r->key.ptr + 1);
    if (mp_get_array(&in, 5) != 5)
        return false;
    struct slice name = mp_get_bin(&in, sizeof ret->name - 1);
    struct slice wan = mp_get_bin(&in, sizeof ret->wan - 1);
    struct slice print = mp_get_bin_exact(&in, sizeof ret->cert_sha256);
    ret->cert = mp_get_bin(&in, CERT_BYTES_MAX);
    ret->status = MEMBER_IS;
    (void)mp_get_uint(&in, 2); /* was the status */
    if (mp_end(&in) != 0 || ret->site == 0 || !is_text(name) || !is_text(wan))
        return false;
    memcpy(ret->name, name.ptr, name.len);
    memcpy(ret->wan, wan.ptr, wan.len);
    memcpy(ret->cert_sha256, print.ptr, print.len);
    return site_settings_name_ok(ret->name); /* it becomes part of files' names, too */
}

/* ---- who leaves ---- */

void leaves_encode(enum member_leaves why, struct buf *out)
{
    mp_array(out, 1);
    mp_uint(out, why);
}

bool leaves_decode(const struct reg *r, site_id_t *ret_site, enum member_leaves *ret_why)
{
    struct mp in = mp_of(r->value);
    if (r->key.len != MEMBER_KEY_BYTES)
        return false;
    if (mp_get_array(&in, 1) != 1)
        return false;
    uint64_t why = mp_get_uint(&in, LEAVES_AWAY);
    *ret_site = site_get(r->key.ptr + 1);
    *ret_why = why == LEAVES_AWAY ? LEAVES_AWAY : LEAVES_REMOVED;
    return mp_end(&in) == 0;
}

void cut_key(site_id_t leaver, site_id_t from, uint8_t out[CUT_KEY_BYTES])
{
    out[0] = REG_CUT;
    site_put(out + 1, leaver);
    site_put(out + 5, from);
}

void cut_encode(const struct cut_answer *a, unsigned shards, struct buf *out)
{
    ASSERT(shards <= SHARD_COUNT_MAX && a->other_count <= SITE_COUNT_MAX);
    mp_array(out, shards + a->other_count);
    for (unsigned i = 0; i < shards; i++)
        mp_uint(out, a->seqs[i]);
    for (uint32_t i = 0; i < a->other_count; i++)
        mp_uint(out, a->others[i]);
}

bool cut_decode(const struct reg *r, unsigned shards, struct cut_answer *ret)
{
    struct mp in = mp_of(r->value);
    if (r->key.len != CUT_KEY_BYTES)
        return false;
    uint32_t count = mp_get_array(&in, shards + SITE_COUNT_MAX);
    if (count < shards)
        return false;
    ret->leaver = site_get(r->key.ptr + 1);
    ret->from = site_get(r->key.ptr + 5);
    ret->other_count = count - shards;
    for (unsigned i = 0; i < shards; i++)
        ret->seqs[i] = mp_get_uint(&in, UINT64_MAX - 1);
    for (uint32_t i = 0; i < ret->other_count; i++)
        ret->others[i] = (site_id_t)mp_get_uint(&in, UINT32_MAX);
    return mp_end(&in) == 0;
}

/* ---- whom a member knows ---- */

static void sites_put(struct buf *out, const site_id_t *sites, uint32_t count)
{
    mp_array(out, count);
    for (uint32_t i = 0; i < count; i++)
        mp_uint(out, sites[i]);
}

static uint32_t sites_get(struct mp *in, site_id_t *ret)
{
    uint32_t count = mp_get_array(in, SITE_COUNT_MAX);
    for (uint32_t i = 0; i < count; i++)
        ret[i] = (site_id_t)mp_get_uint(in, UINT32_MAX);
    return count;
}

void knows_encode(const struct known_members *k, struct buf *out)
{
    ASSERT(k->count <= SITE_COUNT_MAX && k->leaver_count <= SITE_COUNT_MAX);
    mp_array(out, 2);
    sites_put(out, k->sites, k->count);
    sites_put(out, k->leavers, k->leaver_count);
}

bool knows_decode(const struct reg *r, struct known_members *ret)
{
    struct mp in = mp_of(r->value);
    if (r->key.len != MEMBER_KEY_BYTES)
        return false;
    ret->from = site_get(r->key.ptr + 1);
    if (mp_get_array(&in, 2) != 2)
        return false;
    ret->count = sites_get(&in, ret->sites);
    ret->leaver_count = sites_get(&in, ret->leavers);
    return mp_end(&in) == 0;
}

/* ---- how far a member has everything ---- */

void stable_encode(const struct stable_word *w, unsigned shards, struct buf *out)
{
    ASSERT(shards <= SHARD_COUNT_MAX);
    mp_array(out, 3 + shards);
    mp_uint(out, w->clock);
    mp_uint(out, w->seen);
    mp_uint(out, w->goal);
    for (unsigned i = 0; i < shards; i++)
        mp_uint(out, w->seqs[i]);
}

bool stable_decode(const struct reg *r, unsigned shards, struct stable_word *ret)
{
    struct mp in = mp_of(r->value);
    if (r->key.len != MEMBER_KEY_BYTES)
        return false;
    ret->site = site_get(r->key.ptr + 1);
    if (mp_get_array(&in, 3 + shards) != 3 + shards)
        return false;
    ret->clock = mp_get_uint(&in, UINT64_MAX);
    ret->seen = mp_get_uint(&in, UINT64_MAX);
    ret->goal = mp_get_uint(&in, UINT64_MAX);
    for (unsigned i = 0; i < shards; i++)
        ret->seqs[i] = mp_get_uint(&in, UINT64_MAX);
    return mp_end(&in) == 0;
}

/* ---- settings of the file system ---- */

void setting_encode(uint64_t value, struct buf *out)
{
    enc_u64(out, value);
}

bool setting_decode(const struct reg *r, uint64_t *ret)
{
    struct dec d = dec_of(r->value);
    uint64_t value = dec_u64(&d);
    if (!r->present || dec_end(&d) != 0)
        return false;
    *ret = value;
    return true;
}
