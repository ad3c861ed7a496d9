/* Small files of a site that comes back. See site/return_file.h. */
#include "site/return_file.h"

#include <sodium.h>
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/mp.h"

#define NOTE_FIELDS 11u

static const char *const phase_text[RETURN_PHASES] = {"none", "asking", "collecting", "adopting",
                                                      "applying"};

int return_plan_parse(struct slice text, struct return_plan *ret)
{
    json_t *o = json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL);
    json_int_t before = 0, after = 0, asked = 0;
    const char *phase = "";
    int rolled_back = 0;
    int rc = json_unpack(o, "{s:s,s:I,s:I,s:b,s?I}", "phase", &phase, "before", &before, "after",
                         &after, "rolled_back", &rolled_back, "asked", &asked);
    struct return_plan p = {.before = (site_id_t)before,
                            .after = (site_id_t)after,
                            .asked = (site_id_t)asked,
                            .rolled_back = rolled_back != 0};
    for (int i = RETURN_ASKING; rc == 0 && i < RETURN_PHASES; i++)
        if (strcmp(phase, phase_text[i]) == 0)
            p.phase = (enum return_phase)i;
    json_decref(o);
    if (rc != 0 || p.phase == RETURN_NONE || before <= 0 || before > UINT32_MAX || after <= 0 ||
        after >= UINT32_MAX || before == after || asked < 0 || asked > UINT32_MAX)
        return ERR_CORRUPT;
    *ret = p;
    return 0;
}

json_t *return_plan_json(const struct return_plan *p)
{
    json_t *o = json_pack("{s:s,s:I,s:I,s:b,s:I}", "phase", phase_text[p->phase], "before",
                          (json_int_t)p->before, "after", (json_int_t)p->after, "rolled_back",
                          (int)p->rolled_back, "asked", (json_int_t)p->asked);
    ASSERT(o != NULL);
    return o;
}

/* ---- conflict records ---- */

static void stamp_put(struct buf *b, struct stamp s)
{
    mp_uint(b, s.hlc);
    mp_uint(b, s.site);
}

static void oid_put(struct buf *b, struct oid o)
{
    mp_bin(b, slice_of(o.b, sizeof o.b));
}

/* Hexadecimal: names are bytes. */
json_t *return_note_json(const struct return_note *n)
{
    struct buf b = {0};
    mp_array(&b, NOTE_FIELDS);
    mp_uint(&b, n->rule);
    oid_put(&b, n->oid);
    oid_put(&b, n->other);
    oid_put(&b, n->parent);
    mp_bin(&b, n->name);
    mp_bin(&b, n->other_name);
    mp_uint(&b, n->winner);
    stamp_put(&b, n->winner_stamp);
    stamp_put(&b, n->loser_stamp);
    ASSERT(b.len <= RETURN_NOTE_BYTES);
    char *hex = mem_alloc(2 * b.len + 1);
    (void)sodium_bin2hex(hex, 2 * b.len + 1, b.ptr, b.len); /* it fits */
    json_t *line = json_pack("{s:s}", "conflict", hex);
    ASSERT(line != NULL);
    mem_free(hex);
    buf_deinit(&b);
    return line;
}

static struct stamp stamp_get(struct mp *in)
{
    struct stamp s = {.hlc = mp_get_uint(in, UINT64_MAX)};
    s.site = (site_id_t)mp_get_uint(in, UINT32_MAX);
    return s;
}

/* One, or none. */
static struct oid oid_get(struct mp *in)
{
    struct oid o = {{0}};
    struct slice s = mp_get_bin_exact(in, sizeof o.b);
    if (in->rc == 0)
        memcpy(o.b, s.ptr, sizeof o.b);
    if (!oid_valid(o) && !oid_equal(o, (struct oid){{0}}))
        mp_fail(in, ERR_MALFORMED);
    return o;
}

static bool note_parse(const char *hex, unsigned shard_count, struct return_line *ret)
{
    size_t len = 0;
    struct return_note n = {0};
    if (sodium_hex2bin(ret->bytes, sizeof ret->bytes, hex, strlen(hex), NULL, &len, NULL) != 0)
        return false;
    struct mp in = mp_of(slice_of(ret->bytes, len));
    if (mp_get_array(&in, NOTE_FIELDS) != NOTE_FIELDS)
        return false;
    n.rule = (uint8_t)mp_get_uint(&in, 8);
    n.oid = oid_get(&in);
    n.other = oid_get(&in);
    n.parent = oid_get(&in);
    n.name = mp_get_bin(&in, LIMIT_NAME_BYTES);
    n.other_name = mp_get_bin(&in, LIMIT_NAME_BYTES);
    n.winner = (site_id_t)mp_get_uint(&in, UINT32_MAX);
    n.winner_stamp = stamp_get(&in);
    n.loser_stamp = stamp_get(&in);
    ret->note = n;
    return mp_end(&in) == 0 && oid_valid(n.parent) && oid_shard(n.parent) < shard_count;
}

/* ---- lines ---- */

json_t *return_made_json(bool is_dir, struct oid before, struct oid now)
{
    char from[OID_TEXT_LEN + 1], to[OID_TEXT_LEN + 1];
    oid_to_text(before, from);
    oid_to_text(now, to);
    json_t *line = json_pack("{s:s,s:s}", is_dir ? "dir" : "file", from, "now", to);
    ASSERT(line != NULL);
    return line;
}

void return_line_parse(struct slice text, unsigned shard_count, struct return_line *ret)
{
    json_t *o = json_loadb((const char *)text.ptr, text.len, 0, NULL);
    const char *file = json_string_value(json_object_get(o, "file"));
    const char *dir = json_string_value(json_object_get(o, "dir"));
    const char *now = json_string_value(json_object_get(o, "now"));
    const char *conflict = json_string_value(json_object_get(o, "conflict"));
    const char *before = file != NULL ? file : dir;
    ret->has_note = conflict != NULL && note_parse(conflict, shard_count, ret);
    ret->is_dir = file == NULL;
    ret->is_made = now != NULL && before != NULL && oid_from_text(now, &ret->now) == 0 &&
                   oid_from_text(before, &ret->before) == 0 && oid_shard(ret->now) < shard_count &&
                   oid_is_dir(ret->now) == ret->is_dir;
    json_decref(o);
}
