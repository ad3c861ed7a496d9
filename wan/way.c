/* Ways through other sites; see way.h. */
#include "wan/way.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/err.h"

enum {
    SITE_DIGITS = 8
};

bool way_has(const struct way *w, site_id_t site)
{
    for (uint32_t i = 0; i < w->count; i++)
        if (w->at[i] == site)
            return true;
    return false;
}

bool way_beyond(const struct way *w, site_id_t over, site_id_t to, struct way *ret)
{
    struct way n = {.count = 0};
    while (n.count < w->count) {
        site_id_t at = w->at[n.count];
        n.at[n.count++] = at;
        if (at == over)
            break;
    }
    ASSERT(n.count > 0 && way_last(&n) == over);
    if (n.count == WAY_MAX || way_has(&n, to))
        return false;
    n.at[n.count++] = to;
    *ret = n;
    return true;
}

void way_request_print(const struct chunk_id *id,
                       const struct way *beyond,
                       char out[WAY_REQUEST_LEN + 1])
{
    chunk_id_to_text(id, out);
    char *at = out + CHUNK_ID_TEXT_LEN;
    ASSERT(beyond->count <= WAY_MAX);
    for (uint32_t i = 0; i < beyond->count; i++, at += 1 + SITE_DIGITS)
        (void)snprintf(at, 2 + SITE_DIGITS, "/%08x", beyond->at[i]); /* fits */
}

static site_id_t site_parse(const char *text)
{
    site_id_t site = 0;
    for (unsigned i = 0; i < SITE_DIGITS; i++) {
        static const char digits[] = "0123456789abcdef";
        const char *digit = text[i] == '\0' ? NULL : strchr(digits, text[i]);
        if (digit == NULL)
            return 0;
        site = site << 4 | (site_id_t)(digit - digits);
    }
    return site;
}

int way_request_parse(const char *text, struct chunk_id *ret_id, struct way *ret_beyond)
{
    char hex[CHUNK_ID_TEXT_LEN + 1];
    struct chunk_id id;
    struct way w = {.count = 0};
    size_t len = strnlen(text, WAY_REQUEST_LEN + 1), step = 1 + SITE_DIGITS;
    if (len < CHUNK_ID_TEXT_LEN || len > WAY_REQUEST_LEN || (len - CHUNK_ID_TEXT_LEN) % step != 0)
        return ERR_INVALID;
    memcpy(hex, text, CHUNK_ID_TEXT_LEN);
    hex[CHUNK_ID_TEXT_LEN] = '\0';
    if (chunk_id_from_text(hex, &id) != 0)
        return ERR_INVALID;
    for (size_t at = CHUNK_ID_TEXT_LEN; at < len; at += step) {
        site_id_t site = text[at] == '/' ? site_parse(text + at + 1) : 0;
        if (site == 0 || way_has(&w, site))
            return ERR_INVALID;
        w.at[w.count++] = site;
    }
    *ret_id = id;
    *ret_beyond = w;
    return 0;
}
