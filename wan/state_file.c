/* Small files of the WAN part. See wan/state_file.h. */
#include "wan/state_file.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "wan/wan_tls.h"

static bool from_hex(const char *hex, uint8_t *ret, size_t bytes)
{
    size_t len = 0;
    return sodium_hex2bin(ret, bytes, hex, strlen(hex), NULL, &len, NULL) == 0 && len == bytes;
}

static bool boot_from_parse(json_t *o, struct boot_from *ret)
{
    struct boot_from b = {.fs_known = false};
    json_int_t site = 0;
    const char *name = "", *address = "", *fp = "", *fs = NULL;
    int rc = json_unpack(o, "{s:I, s:s, s:s, s:s, s?s}", "site", &site, "name", &name, "wan",
                         &address, "certificate", &fp, "file_system", &fs);
    if (o == NULL || rc != 0 || site <= 0 || site > (json_int_t)UINT32_MAX ||
        strlen(name) >= sizeof b.from.name || strlen(address) >= sizeof b.from.wan ||
        !from_hex(fp, b.from.cert_sha256, sizeof b.from.cert_sha256) ||
        (fs != NULL && !from_hex(fs, b.fs_id, sizeof b.fs_id)))
        return false;
    b.fs_known = fs != NULL;
    b.from.site = (site_id_t)site;
    (void)snprintf(b.from.name, sizeof b.from.name, "%s", name);  /* fits */
    (void)snprintf(b.from.wan, sizeof b.from.wan, "%s", address); /* fits */
    *ret = b;
    return true;
}

int boot_file_parse(struct slice text, struct boot_file *ret)
{
    struct boot_file f = {.has_before = false};
    json_t *root = json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL);
    json_t *before = json_object_get(root, "before");
    f.has_before = before != NULL;
    bool good =
        boot_from_parse(root, &f.now) && (before == NULL || boot_from_parse(before, &f.before));
    json_decref(root);
    if (!good)
        return ERR_CORRUPT;
    *ret = f;
    return 0;
}

static json_t *boot_from_json(const struct boot_from *b)
{
    char fp[2 * FINGERPRINT_BYTES + 1], fs[2 * FS_ID_BYTES + 1];
    wan_fingerprint_text(b->from.cert_sha256, fp);
    sodium_bin2hex(fs, sizeof fs, b->fs_id, sizeof b->fs_id);
    json_t *o = json_pack("{s:I, s:s, s:s, s:s, s:s*}", "site", (json_int_t)b->from.site, "name",
                          b->from.name, "wan", b->from.wan, "certificate", fp, "file_system",
                          b->fs_known ? fs : NULL);
    ASSERT(o != NULL);
    return o;
}

json_t *boot_file_json(const struct boot_file *f)
{
    json_t *root = boot_from_json(&f->now);
    int rc = json_object_set_new(root, "version", json_integer(1));
    if (f->has_before)
        rc |= json_object_set_new(root, "before", boot_from_json(&f->before));
    ASSERT(rc == 0);
    return root;
}

const struct boot_from *boot_file_of(const struct boot_file *f, const uint8_t fs_id[FS_ID_BYTES])
{
    const struct boot_from *both[] = {&f->now, f->has_before ? &f->before : NULL};
    for (size_t i = 0; i < ARRAY_COUNT(both); i++)
        if (both[i] != NULL &&
            (!both[i]->fs_known || memcmp(both[i]->fs_id, fs_id, FS_ID_BYTES) == 0))
            return both[i];
    return NULL;
}

json_t *paused_file_parse(struct slice text)
{
    json_t *root = json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL);
    json_t *paused = json_object_get(root, "paused");
    if (json_is_object(paused))
        (void)json_incref(paused);
    else
        paused = NULL;
    json_decref(root);
    return paused;
}

json_t *paused_file_json(json_t *paused)
{
    json_t *root = json_pack("{s:i, s:O}", "version", 1, "paused", paused);
    ASSERT(root != NULL);
    return root;
}

char *state_file_text(json_t *root)
{
    char *text = json_dumps(root, JSON_INDENT(1));
    ASSERT(text != NULL);
    json_decref(root);
    return text;
}
