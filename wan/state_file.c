/* Small files of the WAN part. See wan/state_file.h. */
#include "wan/state_file.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "wan/wan_tls.h"

int boot_file_parse(struct slice text, struct member *ret)
{
    struct member m = {.site = 0};
    json_int_t site = 0;
    const char *name = "", *address = "", *fp = "";
    json_t *root = json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL);
    size_t len = 0;
    int rc = json_unpack(root, "{s:I, s:s, s:s, s:s}", "site", &site, "name", &name, "wan",
                         &address, "certificate", &fp);
    bool good = root != NULL && rc == 0 && site > 0 && site <= (json_int_t)UINT32_MAX &&
                strlen(name) < sizeof m.name && strlen(address) < sizeof m.wan &&
                sodium_hex2bin(m.cert_sha256, sizeof m.cert_sha256, fp, strlen(fp), NULL, &len,
                               NULL) == 0 &&
                len == sizeof m.cert_sha256;
    if (good) {
        m.site = (site_id_t)site;
        (void)snprintf(m.name, sizeof m.name, "%s", name);  /* fits */
        (void)snprintf(m.wan, sizeof m.wan, "%s", address); /* fits */
        *ret = m;
    }
    json_decref(root);
    return good ? 0 : ERR_CORRUPT;
}

json_t *boot_file_json(const struct member *from)
{
    char fp[2 * FINGERPRINT_BYTES + 1];
    wan_fingerprint_text(from->cert_sha256, fp);
    json_t *root =
        json_pack("{s:i, s:I, s:s, s:s, s:s}", "version", 1, "site", (json_int_t)from->site, "name",
                  from->name, "wan", from->wan, "certificate", fp);
    ASSERT(root != NULL);
    return root;
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
