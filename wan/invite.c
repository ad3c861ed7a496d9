/* Invitations; see invite.h. */
#include "wan/invite.h"

#include <jansson.h>
#include <sodium.h>

#include "base/assert.h"

static bool is_old(const struct invite *i, uint64_t now_s)
{
    uint64_t ended_s = i->used_s != 0 ? i->used_s : i->expires_s;
    return ended_s + INVITE_MEMORY_S < now_s;
}

static bool is_good(const struct invite *i, uint64_t now_s)
{
    return i->used_s == 0 && i->expires_s > now_s;
}

/* Room for one more: old ones go, then the one of the used and expired that ended first. */
static void room_make(struct invites *v, uint64_t now_s)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < v->count; i++)
        if (!is_old(&v->at[i], now_s))
            v->at[kept++] = v->at[i];
    v->count = kept;
    if (v->count < INVITES_MAX)
        return;
    for (uint32_t i = 0; i < v->count; i++) {
        if (is_good(&v->at[i], now_s))
            continue;
        memmove(&v->at[i], &v->at[i + 1], (v->count - i - 1) * sizeof v->at[0]);
        v->count--;
        return;
    }
}

int invites_add(struct invites *v, const struct invite *i, uint64_t now_s)
{
    room_make(v, now_s);
    if (v->count == INVITES_MAX)
        return ERR_LIMIT;
    v->at[v->count++] = *i;
    return 0;
}

int invites_find(struct invites *v,
                 const uint8_t id[INVITE_ID_BYTES],
                 const uint8_t joiner[FINGERPRINT_BYTES],
                 uint64_t now_s,
                 struct invite **ret,
                 struct err_detail *d)
{
    for (uint32_t i = 0; i < v->count; i++) {
        struct invite *inv = &v->at[i];
        if (sodium_memcmp(inv->key.id, id, INVITE_ID_BYTES) != 0)
            continue;
        if (inv->used_s != 0 && memcmp(inv->used_by, joiner, FINGERPRINT_BYTES) != 0) {
            err_detail_set(d, "the token has been used already: a token pairs one site once: "
                              "make another with `peer invite`");
            return ERR_STALE;
        }
        if (inv->expires_s <= now_s) {
            err_detail_set(d, "the token has expired %llu s ago: make another with `peer invite`",
                           (unsigned long long)(now_s - inv->expires_s));
            return ERR_TIMEOUT;
        }
        *ret = inv;
        return 0;
    }
    err_detail_set(d, "the token is not one of this site's: it was made by another site or long "
                      "ago: make another with `peer invite`");
    return ERR_AUTH;
}

/* --- text form --- */

static void hex_set(json_t *o, const char *key, const uint8_t *bytes, size_t len)
{
    char text[2 * 32 + 1];
    ASSERT(len <= 32);
    (void)sodium_bin2hex(text, sizeof text, bytes, len);
    int rc = json_object_set_new(o, key, json_string(text));
    ASSERT(rc == 0);
}

static bool hex_get(const json_t *o, const char *key, uint8_t *bytes, size_t len)
{
    const char *text = json_string_value(json_object_get(o, key));
    size_t got = 0;
    const char *end = NULL;
    return text != NULL && strlen(text) == 2 * len &&
           sodium_hex2bin(bytes, len, text, 2 * len, NULL, &got, &end) == 0 && got == len &&
           *end == '\0';
}

static bool number_get(const json_t *o, const char *key, uint64_t *ret)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *ret = (uint64_t)json_integer_value(v);
    return true;
}

char *invites_to_json(const struct invites *v)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < v->count; i++) {
        const struct invite *inv = &v->at[i];
        json_t *o = json_object();
        hex_set(o, "id", inv->key.id, sizeof inv->key.id);
        hex_set(o, "sign", inv->key.sign_pk, sizeof inv->key.sign_pk);
        hex_set(o, "box", inv->key.box_pk, sizeof inv->key.box_pk);
        hex_set(o, "used_by", inv->used_by, sizeof inv->used_by);
        int rc = json_object_set_new(o, "expires", json_integer((json_int_t)inv->expires_s));
        ASSERT(rc == 0);
        rc = json_object_set_new(o, "used", json_integer((json_int_t)inv->used_s));
        ASSERT(rc == 0);
        rc = json_array_append_new(list, o);
        ASSERT(rc == 0);
    }
    json_t *root = json_pack("{s:i, s:o}", "version", 1, "invites", list);
    ASSERT(root != NULL);
    char *dump = json_dumps(root, JSON_INDENT(1));
    ASSERT(dump != NULL);
    char *text = mem_printf("%s\n", dump);
    free(dump); /* lint-allow(memory): jansson made it */
    json_decref(root);
    return text;
}

static int invite_from_json(const json_t *o, struct invite *ret)
{
    bool good = hex_get(o, "id", ret->key.id, sizeof ret->key.id) &&
                hex_get(o, "sign", ret->key.sign_pk, sizeof ret->key.sign_pk) &&
                hex_get(o, "box", ret->key.box_pk, sizeof ret->key.box_pk) &&
                hex_get(o, "used_by", ret->used_by, sizeof ret->used_by) &&
                number_get(o, "expires", &ret->expires_s) && number_get(o, "used", &ret->used_s);
    return good ? 0 : ERR_CORRUPT;
}

int invites_from_json(struct slice s, struct invites *ret, struct err_detail *d)
{
    json_error_t why;
    json_t *root = json_loadb((const char *)s.ptr, s.len, JSON_REJECT_DUPLICATES, &why);
    const json_t *list = json_object_get(root, "invites");
    struct invites v = {0};
    int rc = json_is_array(list) && json_array_size(list) <= INVITES_MAX ? 0 : ERR_CORRUPT;
    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++)
        rc = invite_from_json(json_array_get(list, i), &v.at[v.count++]);
    if (rc == 0)
        *ret = v;
    else
        err_detail_set(d,
                       "the list of invitations cannot be read: %s: remove the file and "
                       "invite again",
                       root == NULL ? why.text : "it has another form");
    json_decref(root);
    return rc;
}

/* --- attempts --- */

static void window_move(struct attempts *a, uint64_t now_ns)
{
    if (now_ns - a->window_ns < 60 * NS_PER_SEC && a->window_ns != 0)
        return;
    *a = (struct attempts){.window_ns = MAX(now_ns, 1u)};
}

bool attempts_allow(struct attempts *a, uint64_t source, uint64_t now_ns)
{
    window_move(a, now_ns);
    if (a->total >= 10 * ATTEMPTS_MAX)
        return false;
    for (uint32_t i = 0; i < a->count; i++)
        if (a->at[i].source == source)
            return a->at[i].failures < ATTEMPTS_MAX;
    return true;
}

void attempts_fail(struct attempts *a, uint64_t source, uint64_t now_ns)
{
    window_move(a, now_ns);
    a->total++;
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->at[i].source == source) {
            a->at[i].failures++;
            return;
        }
    }
    if (a->count == ATTEMPT_SOURCES_MAX)
        return; /* the total still counts it */
    a->at[a->count].source = source;
    a->at[a->count++].failures = 1;
}
