/* Values of a scenario: numbers with units, names of sites, and the sentence when they are wrong.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "sim/scenario_int.h"

#define FRACTION_DIGITS 4u /* 0.0001% is one in a million, and a day times 9999 fits */

struct suffix {
    const char *text;
    uint64_t factor;
};
static const struct unit_info {
    const char *expected;
    struct suffix suffixes[7];
} units[UNIT_KIND_END] = {
    [UNIT_TIME] = {"a time such as 80ms, 1.5s, 5m, 2h or 7d",
                   {{"us", 1000},
                    {"ms", NS_PER_MS},
                    {"s", NS_PER_SEC},
                    {"m", 60 * NS_PER_SEC},
                    {"h", 3600 * NS_PER_SEC},
                    {"d", 86400 * NS_PER_SEC}}},
    [UNIT_SPEED] = {"a bandwidth such as 100Mbit/s",
                    {{"kbit/s", 125}, {"Mbit/s", 125000}, {"Gbit/s", 125000000}}},
    [UNIT_SIZE] = {"a size such as 256KiB", {{"KiB", KIB}, {"MiB", MIB}, {"GiB", GIB}}},
    [UNIT_RATE] = {"a rate such as 20/s, 5/m or 100/h", {{"/s", 86400}, {"/m", 1440}, {"/h", 24}}},
    [UNIT_CHANCE] = {"a share such as 0.1%", {{"%", 10000}}},
    [UNIT_PPM] = {"a drift such as 50ppm", {{"ppm", 1}}},
    [UNIT_COUNT] = {"a whole number", {{"", 1}}},
    [UNIT_FACTOR] = {"a factor such as 5x", {{"x", 1}}},
};

int scan_fail(struct scan *sc, const struct word *at, const char *expected_fmt, ...)
{
    char expected[240], found[64];
    va_list args;
    va_start(args, expected_fmt);
    (void)vsnprintf(expected, sizeof expected, expected_fmt, args); /* cut if need be */
    va_end(args);
    size_t len = MIN(at->text.len, sizeof found - 1);
    for (size_t i = 0; i < len; i++) /* a terminal would obey some bytes instead of showing them */
        found[i] = at->text.ptr[i] >= 0x20 && at->text.ptr[i] < 0x7f ? (char)at->text.ptr[i] : '?';
    found[len] = '\0';
    sc->e->line = sc->line;
    sc->e->column = at->column;
    (void)snprintf(sc->e->text, sizeof sc->e->text, "%s%s%s: expected %s", len > 0 ? "\"" : "",
                   len > 0 ? found : "end of line", len > 0 ? "\"" : "", expected); /* fits */
    return ERR_CONFIG;
}

bool word_is(const struct word *w, const char *text)
{
    return slice_equal(w->text, slice_str(text));
}

/* Digits from *at on; false when there is none or they do not fit. */
static bool digits(struct slice s, size_t *at, size_t max, uint64_t *ret)
{
    uint64_t v = 0;
    size_t from = *at;
    for (; *at < s.len && s.ptr[*at] >= '0' && s.ptr[*at] <= '9'; (*at)++) {
        if (*at - from >= max || v > (UINT64_MAX - 9) / 10)
            return false;
        v = v * 10 + (uint64_t)(s.ptr[*at] - '0');
    }
    *ret = v;
    return *at > from;
}

static bool number(struct slice s, const struct unit_info *u, uint64_t *ret)
{
    uint64_t whole, part = 0, scale = 1;
    size_t at = 0;
    if (!digits(s, &at, 18, &whole))
        return false;
    bool fraction = at < s.len && s.ptr[at] == '.';
    if (fraction) {
        size_t from = ++at;
        if (!digits(s, &at, FRACTION_DIGITS, &part))
            return false;
        for (size_t i = from; i < at; i++)
            scale *= 10;
    }
    struct slice suffix = slice_of(s.ptr + at, s.len - at);
    bool zero = whole == 0 && !fraction && suffix.len == 0; /* needs no unit */
    for (unsigned i = 0; u->suffixes[i].text != NULL; i++) {
        uint64_t factor = u->suffixes[i].factor;
        if (!zero && !slice_equal(suffix, slice_str(u->suffixes[i].text)))
            continue;
        if (whole > (UINT64_MAX / factor) - 1 || part * factor % scale != 0)
            return false;
        *ret = whole * factor + part * factor / scale;
        return true;
    }
    return false;
}

int scan_value(struct scan *sc, const struct word *w, enum unit unit, uint64_t max, uint64_t *ret)
{
    const struct unit_info *u = &units[unit];
    uint64_t v;
    if (w->text.len > 1 && w->text.ptr[0] == '-')
        return scan_fail(sc, w, "%s, not a negative one", u->expected);
    if (!number(w->text, u, &v))
        return scan_fail(sc, w, "%s", u->expected);
    if (v > max)
        return scan_fail(sc, w, "%s, and not so large", u->expected);
    *ret = v;
    return 0;
}

int scan_signed(struct scan *sc, const struct word *w, enum unit unit, int64_t max, int64_t *ret)
{
    bool sign = w->text.len > 1 && (w->text.ptr[0] == '-' || w->text.ptr[0] == '+');
    struct slice rest = slice_of(w->text.ptr + sign, w->text.len - sign);
    uint64_t v;
    if (!number(rest, &units[unit], &v))
        return scan_fail(sc, w, "%s, with a sign", units[unit].expected);
    if (v > (uint64_t)max)
        return scan_fail(sc, w, "%s, and not so large", units[unit].expected);
    *ret = sign && w->text.ptr[0] == '-' ? -(int64_t)v : (int64_t)v;
    return 0;
}

int scan_site(struct scan *sc, const struct word *w, unsigned *ret)
{
    const struct world_config *c = &sc->s->world;
    struct buf known = {0};
    for (unsigned i = 0; i < c->site_count; i++) {
        if (word_is(w, c->sites[i].name)) {
            buf_deinit(&known);
            *ret = i;
            return 0;
        }
        buf_append(&known, i > 0 ? ", " : "", i > 0 ? 2 : 0);
        buf_append(&known, c->sites[i].name, strlen(c->sites[i].name));
    }
    int rc = scan_fail(sc, w, "a site that is described above: %.*s", (int)known.len,
                       known.len > 0 ? (const char *)known.ptr : "");
    buf_deinit(&known);
    return rc;
}

int scan_pair(struct scan *sc, const struct word *words, unsigned *a, unsigned *b, bool *both)
{
    bool arrow = word_is(&words[1], "->");
    int rc = scan_site(sc, &words[0], a);
    if (rc == 0)
        rc = scan_site(sc, &words[arrow ? 2 : 1], b);
    if (rc == 0 && *a == *b)
        rc = scan_fail(sc, &words[arrow ? 2 : 1], "another site than the first");
    *both = !arrow;
    return rc == 0 ? (arrow ? 3 : 2) : rc;
}
