/* Control lines: words apart by blanks; numbers with units, in whole numbers of the smallest one.
 */
#include "sim/link_line.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#define WORDS_MAX 5u
#define WHOLE_DIGITS_MAX 9u /* with the largest unit the value stays below 2^64 */
#define PART_DIGITS_MAX 6u

const char link_line_help[] =
    "  set latency DURATION [to|from]      one way: 40ms, 1.5s, 250us\n"
    "  set jitter DURATION [to|from]       up to so much more, drawn for each read\n"
    "  set bandwidth RATE|off [to|from]    10MB/s, 512KiB/s, 100Mbit/s; all connections together\n"
    "  set queue SIZE [to|from]            what may wait for the bandwidth: 256KiB\n"
    "  set loss PERCENT|off [to|from]      packets lost: 0.5%; TCP sends them again, later\n"
    "  set damage SIZE|off [to|from]       one bit flipped about every 300kB\n"
    "  set resets DURATION|off             how long a connection lives on average\n"
    "  set target HOST:PORT                for connections from now on\n"
    "  cut [stall|reset] [to|from]         stall: nothing arrives, and is kept (the default);\n"
    "                                      reset: connections break, new ones are refused\n"
    "  heal                                the end of every cut\n"
    "  reset                               all connections break, once\n"
    "  stats                               settings and counts, as JSON\n";

struct unit {
    const char *name;
    uint64_t factor;
};
static const struct unit durations[] = {
    {"ns", 1}, {"us", 1000}, {"ms", NS_PER_MS}, {"s", NS_PER_SEC}, {"min", 60 * NS_PER_SEC}, {0}};
static const struct unit sizes[] = {{"B", 1},     {"kB", 1000}, {"MB", 1000000}, {"GB", 1000000000},
                                    {"KiB", KIB}, {"MiB", MIB}, {"GiB", GIB},    {0}};
static const struct unit rates[] = {{"B/s", 1},
                                    {"kB/s", 1000},
                                    {"MB/s", 1000000},
                                    {"GB/s", 1000000000},
                                    {"KiB/s", KIB},
                                    {"MiB/s", MIB},
                                    {"GiB/s", GIB},
                                    {"kbit/s", 125},
                                    {"Mbit/s", 125000},
                                    {"Gbit/s", 125000000},
                                    {0}};
static const struct unit shares[] = {{"%", 10000}, {0}};

static const struct setting {
    const char *name;
    enum link_verb verb;
    const struct unit *units; /* NULL: an address */
    uint64_t min, max;
    bool may_be_off, each_way;
    const char *example;
} settings[] = {
    {"latency", LINK_SET_LATENCY, durations, 0, 60 * NS_PER_SEC, false, true, "40ms"},
    {"jitter", LINK_SET_JITTER, durations, 0, 60 * NS_PER_SEC, false, true, "5ms"},
    {"bandwidth", LINK_SET_BANDWIDTH, rates, 1, 1000 * GIB, true, true, "10MB/s, 100Mbit/s"},
    {"queue", LINK_SET_QUEUE, sizes, 1, GIB, false, true, "256KiB"},
    {"loss", LINK_SET_LOSS, shares, 0, 1000000, true, true, "0.5%"},
    {"damage", LINK_SET_DAMAGE, sizes, 1, 1000 * GIB, true, true, "300kB"},
    {"resets", LINK_SET_RESETS, durations, NS_PER_MS, 86400 * NS_PER_SEC, true, false, "1.5s"},
    {"target", LINK_SET_TARGET, NULL, 0, 0, false, false, "127.0.0.1:7000"},
};

/* --- words --- */

struct words {
    char text[LINK_LINE_MAX + 1]; /* the line, its blanks turned into terminators */
    const char *word[WORDS_MAX];
    size_t count;
};

static int words_split(struct words *w, struct slice line, struct err_detail *d)
{
    w->count = 0;
    if (line.len > LINK_LINE_MAX) {
        err_detail_set(d, "the line has %zu bytes, at most %u are taken", line.len, LINK_LINE_MAX);
        return ERR_INVALID;
    }
    if (line.len > 0)
        memcpy(w->text, line.ptr, line.len);
    w->text[line.len] = '\0';
    bool inside = false;
    for (size_t i = 0; i < line.len; i++) {
        char c = w->text[i];
        if (c == ' ' || c == '\t' || c == '\r') {
            w->text[i] = '\0';
            inside = false;
        } else if (c < ' ' || c > '~') {
            err_detail_set(d, "byte %zu is no printable ASCII", i + 1);
            return ERR_INVALID;
        } else if (!inside) {
            if (w->count == WORDS_MAX) {
                err_detail_set(d, "too many words: \"%s\" is not expected", &w->text[i]);
                return ERR_INVALID;
            }
            w->word[w->count++] = &w->text[i];
            inside = true;
        }
    }
    return 0;
}

/* --- numbers --- */

static uint64_t digits_read(const char **at, size_t max, size_t *ret_count)
{
    uint64_t v = 0;
    for (*ret_count = 0; **at >= '0' && **at <= '9' && *ret_count < max; (*at)++, (*ret_count)++)
        v = v * 10 + (uint64_t)(**at - '0');
    return v;
}

/* "1.5" and a unit: 1.5 units. No floating point: 0.1% is a thousandth, and nothing beside it. */
static bool number_read(const char *text, const struct unit *units, uint64_t *ret)
{
    size_t whole_digits, part_digits = 0;
    uint64_t whole = digits_read(&text, WHOLE_DIGITS_MAX, &whole_digits), part = 0, scale = 1;
    if (*text == '.') {
        text++;
        part = digits_read(&text, PART_DIGITS_MAX, &part_digits);
        if (part_digits == 0)
            return false;
    }
    for (size_t i = 0; i < part_digits; i++)
        scale *= 10;
    if (whole_digits == 0)
        return false;
    if (*text == '\0' && whole == 0 && part == 0) { /* nothing needs no unit */
        *ret = 0;
        return true;
    }
    for (; units->name != NULL; units++)
        if (strcmp(text, units->name) == 0) {
            uint64_t value;
            if (__builtin_mul_overflow(whole, units->factor, &value))
                return false;
            *ret = value + part * units->factor / scale;
            return *ret >= value;
        }
    return false;
}

/* --- addresses --- */

int link_address_split(const char *address,
                       char ret_host[LINK_ADDRESS_MAX],
                       uint16_t *ret_port,
                       struct err_detail *d)
{
    const char *colon = strrchr(address, ':'), *host = address;
    size_t len = colon != NULL ? (size_t)(colon - address) : 0;
    bool brackets = len >= 2 && host[0] == '[' && host[len - 1] == ']';
    if (brackets) {
        host++;
        len -= 2;
    }
    if (len == 0 || len >= LINK_ADDRESS_MAX || (!brackets && memchr(host, ':', len) != NULL) ||
        memchr(host, '"', len) != NULL || memchr(host, '\\', len) != NULL) {
        err_detail_set(d, "\"%.60s\" is no HOST:PORT", address);
        return ERR_INVALID;
    }
    const char *digits = colon + 1;
    size_t count;
    uint64_t port = digits_read(&digits, 5, &count);
    if (count == 0 || *digits != '\0' || port > UINT16_MAX) {
        err_detail_set(d, "\"%.20s\" is no port: use a number up to 65535", colon + 1);
        return ERR_INVALID;
    }
    memcpy(ret_host, host, len);
    ret_host[len] = '\0';
    *ret_port = (uint16_t)port;
    return 0;
}

static int address_read(const char *text, struct link_command *c, struct err_detail *d)
{
    char host[LINK_ADDRESS_MAX];
    uint16_t port;
    if (strlen(text) >= sizeof c->address) {
        err_detail_set(d, "an address has at most %zu bytes", sizeof c->address - 1);
        return ERR_INVALID;
    }
    int rc = link_address_split(text, host, &port, d);
    if (rc == 0)
        (void)snprintf(c->address, sizeof c->address, "%s", text);
    return rc;
}

/* --- commands --- */

static int
direction_read(const struct words *w, size_t at, struct link_command *c, struct err_detail *d)
{
    c->way[LINK_TO] = c->way[LINK_FROM] = true;
    if (at == w->count)
        return 0;
    if (strcmp(w->word[at], "to") == 0) {
        c->way[LINK_FROM] = false;
    } else if (strcmp(w->word[at], "from") == 0) {
        c->way[LINK_TO] = false;
    } else {
        err_detail_set(d, "\"%.60s\" is no direction: to, from, or nothing for both", w->word[at]);
        return ERR_INVALID;
    }
    if (at + 1 < w->count) {
        err_detail_set(d, "\"%.60s\" is not expected", w->word[at + 1]);
        return ERR_INVALID;
    }
    return 0;
}

static int
value_read(const struct setting *s, const char *text, uint64_t *ret, struct err_detail *d)
{
    uint64_t v;
    if (s->may_be_off && strcmp(text, "off") == 0) {
        *ret = 0;
        return 0;
    }
    if (!number_read(text, s->units, &v)) {
        err_detail_set(d, "\"%.60s\" is no %s: use a number with a unit%s, as in %s", text, s->name,
                       s->may_be_off ? ", or off" : "", s->example);
        return ERR_INVALID;
    }
    if (v < s->min || v > s->max) {
        err_detail_set(d, "%s %.60s is too %s", s->name, text, v < s->min ? "small" : "large");
        return ERR_INVALID;
    }
    *ret = v;
    return 0;
}

static int set_read(const struct words *w, struct link_command *c, struct err_detail *d)
{
    for (size_t i = 0; w->count >= 2 && i < ARRAY_COUNT(settings); i++) {
        const struct setting *s = &settings[i];
        if (strcmp(w->word[1], s->name) != 0)
            continue;
        if (w->count < 3) {
            err_detail_set(d, "set %s needs a value, as in %s", s->name, s->example);
            return ERR_INVALID;
        }
        c->verb = s->verb;
        if (!s->each_way && w->count > 3) {
            err_detail_set(d, "\"%.60s\" is not expected: %s has no direction", w->word[3],
                           s->name);
            return ERR_INVALID;
        }
        int rc = direction_read(w, 3, c, d);
        if (rc != 0)
            return rc;
        return s->units == NULL ? address_read(w->word[2], c, d)
                                : value_read(s, w->word[2], &c->value, d);
    }
    err_detail_set(d,
                   "set what? latency, jitter, bandwidth, queue, loss, damage, resets or target");
    return ERR_INVALID;
}

static int cut_read(const struct words *w, struct link_command *c, struct err_detail *d)
{
    size_t at = 1;
    c->verb = LINK_CUT_STALL;
    if (w->count > 1 && (strcmp(w->word[1], "stall") == 0 || strcmp(w->word[1], "reset") == 0)) {
        c->verb = w->word[1][0] == 's' ? LINK_CUT_STALL : LINK_CUT_RESET;
        at = 2;
    }
    int rc = direction_read(w, at, c, d);
    if (rc == 0 && c->verb == LINK_CUT_RESET && !(c->way[LINK_TO] && c->way[LINK_FROM])) {
        err_detail_set(d, "a reset is seen from both ends: cut reset takes no direction");
        return ERR_INVALID;
    }
    return rc;
}

int link_line_parse(struct slice line, struct link_command *ret, struct err_detail *d)
{
    static const struct {
        const char *name;
        enum link_verb verb;
    } bare[] = {{"heal", LINK_HEAL}, {"reset", LINK_RESET}, {"stats", LINK_STATS}};
    struct words w;
    struct link_command c = {.way = {true, true}};
    int rc = words_split(&w, line, d);
    if (rc != 0)
        return rc;
    const char *verb = w.count > 0 ? w.word[0] : "";
    if (strcmp(verb, "set") == 0) {
        rc = set_read(&w, &c, d);
    } else if (strcmp(verb, "cut") == 0) {
        rc = cut_read(&w, &c, d);
    } else {
        size_t i = 0;
        while (i < ARRAY_COUNT(bare) && strcmp(verb, bare[i].name) != 0)
            i++;
        if (i == ARRAY_COUNT(bare)) {
            err_detail_set(d, "\"%.60s\" is no command: set, cut, heal, reset or stats", verb);
            return ERR_INVALID;
        }
        if (w.count > 1) {
            err_detail_set(d, "%s takes no more words, \"%.60s\" is not expected", verb, w.word[1]);
            return ERR_INVALID;
        }
        c.verb = bare[i].verb;
    }
    if (rc == 0)
        *ret = c;
    return rc;
}
