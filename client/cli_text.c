/* Text for people from the daemon's JSON. The daemon decides what there is to say; this only gives
 * values their units and sets columns, so a newer daemon's fields show up without a newer program.
 */
#include "client/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"

#define COLUMNS_MAX 24u

void cli_print_json(const json_t *json)
{
    (void)json_dumpf(json, stdout,
                     JSON_INDENT(2) | JSON_ENCODE_ANY); /* a closed pipe is no error */
    fputc('\n', stdout);
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && memcmp(text + len - end_len, end, end_len + 1) == 0;
}

static char *bytes_text(double value)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    while ((value >= 1024 || value <= -1024) && unit + 1 < ARRAY_COUNT(units)) {
        value /= 1024;
        unit++;
    }
    return unit == 0 ? mem_printf("%.0f B", value) : mem_printf("%.1f %s", value, units[unit]);
}

static char *duration_text(double seconds)
{
    double size = seconds < 0 ? -seconds : seconds;
    if (size == 0)
        return mem_strdup("0 s");
    if (size < 0.001)
        return mem_printf("%.1f us", seconds * 1e6);
    if (size < 1)
        return mem_printf("%.1f ms", seconds * 1e3);
    if (size < 120)
        return mem_printf("%.1f s", seconds);
    if (size < 2 * 3600)
        return mem_printf("%.1f min", seconds / 60);
    if (size < 2 * 86400)
        return mem_printf("%.1f h", seconds / 3600);
    return mem_printf("%.1f days", seconds / 86400);
}

/* Local time with milliseconds; 0 is "never". */
static char *moment_text(int64_t ms)
{
    if (ms == 0)
        return mem_strdup("never");
    time_t seconds = (time_t)(ms / 1000);
    struct tm parts;
    char text[64];
    if (!localtime_r(&seconds, &parts) || strftime(text, sizeof(text), "%F %T", &parts) == 0)
        return mem_printf("%" PRId64 " ms", ms);
    return mem_printf("%s.%03d", text, (int)(ms % 1000 < 0 ? -(ms % 1000) : ms % 1000));
}

/* A point in time comes as nanoseconds, milliseconds or seconds since 1970. Today's values differ
 * by factors of a million, so the size tells the unit. */
static char *time_text(int64_t value)
{
    if (value > INT64_C(100000000000000000))
        return moment_text(value / 1000000);
    return moment_text(value > INT64_C(100000000000) ? value : value * 1000);
}

static bool is_moment(const char *key)
{
    return strcmp(key, "time") == 0 || ends_with(key, "_time") || strcmp(key, "time_ns") == 0 ||
           strcmp(key, "time_ms") == 0 || ends_with(key, "_at") || ends_with(key, "_at_ns");
}

static char *number_text(const char *key, const json_t *value)
{
    double number = json_number_value(value);
    int64_t whole = json_is_integer(value) ? json_integer_value(value) : (int64_t)number;
    if (is_moment(key))
        return time_text(whole);
    if (ends_with(key, "hlc") && json_is_integer(value))
        return moment_text((int64_t)((uint64_t)whole >> 16));
    if (ends_with(key, "bytes"))
        return bytes_text(number);
    if (ends_with(key, "_ns"))
        return duration_text(number / 1e9);
    if (ends_with(key, "_ms"))
        return duration_text(number / 1e3);
    if (ends_with(key, "_s") || ends_with(key, "seconds"))
        return duration_text(number);
    return json_is_integer(value) ? mem_printf("%" PRId64, whole) : mem_printf("%g", number);
}

/* Names come from users: what a terminal would obey instead of show becomes '?'. */
static char *plain_text(const char *text)
{
    char *copy = mem_strdup(text);
    for (char *c = copy; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return copy;
}

char *cli_value_text(const char *key, const json_t *value)
{
    if (json_is_number(value))
        return number_text(key, value);
    if (json_is_string(value))
        return plain_text(json_string_value(value));
    if (json_is_boolean(value))
        return mem_strdup(json_is_true(value) ? "yes" : "no");
    if (json_is_array(value) || json_is_object(value)) {
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        return text ? text : mem_strdup("?");
    }
    return mem_strdup("-");
}

/* "lag_bytes" reads "lag": the unit is in the value. */
static char *title_text(const char *key)
{
    static const char *const units[] = {"_bytes", "_ns", "_ms", "_s"};
    size_t len = strlen(key);
    for (size_t i = 0; i < ARRAY_COUNT(units); i++)
        if (ends_with(key, units[i]) && len > strlen(units[i]))
            len -= strlen(units[i]);
    char *title = mem_printf("%.*s", (int)len, key);
    for (char *c = title; *c; c++)
        if (*c == '_')
            *c = ' ';
    return title;
}

/* Width on a terminal of UTF-8 text: its characters, not its bytes. */
static size_t text_width(const char *text)
{
    size_t width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

static void print_padded(const char *text, size_t width)
{
    fputs(text, stdout);
    for (size_t at = text_width(text); at < width; at++)
        fputc(' ', stdout);
}

/* Members of any row that are not tables themselves, in order of appearance. */
static size_t find_columns(json_t *array, const char *ret[COLUMNS_MAX])
{
    size_t count = 0, idx;
    json_t *row;
    json_array_foreach (array, idx, row) {
        void *it = json_object_iter(row);
        for (; it && count < COLUMNS_MAX; it = json_object_iter_next(row, it)) {
            const char *key = json_object_iter_key(it);
            bool known = false;
            for (size_t i = 0; i < count; i++)
                known = known || strcmp(ret[i], key) == 0;
            if (!known)
                ret[count++] = key;
        }
    }
    return count;
}

static void print_row(json_t *row, const char *const *columns, const size_t *widths, size_t count)
{
    fputs("  ", stdout);
    for (size_t i = 0; i < count; i++) {
        char *text = row ? cli_value_text(columns[i], json_object_get(row, columns[i]))
                         : title_text(columns[i]);
        print_padded(text, i + 1 < count ? widths[i] + 2 : 0);
        mem_free(text);
    }
    fputc('\n', stdout);
}

void cli_print_table(json_t *array, const char *const *columns)
{
    const char *found[COLUMNS_MAX];
    size_t count = 0, idx;
    if (!columns)
        count = find_columns(array, found);
    else
        for (; count < COLUMNS_MAX && columns[count]; count++)
            found[count] = columns[count];
    if (json_array_size(array) == 0 || count == 0) {
        fputs("  none\n", stdout);
        return;
    }
    size_t widths[COLUMNS_MAX] = {0};
    json_t *row;
    for (size_t i = 0; i < count; i++) {
        char *title = title_text(found[i]);
        widths[i] = text_width(title);
        mem_free(title);
        json_array_foreach (array, idx, row) {
            char *text = cli_value_text(found[i], json_object_get(row, found[i]));
            widths[i] = MAX(widths[i], text_width(text));
            mem_free(text);
        }
    }
    print_row(NULL, found, widths, count);
    json_array_foreach (array, idx, row) {
        print_row(row, found, widths, count);
    }
}

static bool is_table(const json_t *value)
{
    return json_is_array(value) &&
           (json_array_size(value) == 0 || json_is_object(json_array_get(value, 0)));
}

/* Lines for the scalars below `object`, their keys led by `prefix`. */
static void print_scalars(json_t *object, const char *prefix)
{
    void *it = json_object_iter(object);
    for (; it; it = json_object_iter_next(object, it)) {
        const char *key = json_object_iter_key(it);
        json_t *value = json_object_iter_value(it);
        char *full = mem_printf("%s%s%s", prefix, prefix[0] ? " " : "", key);
        if (json_is_object(value)) {
            print_scalars(value, full);
        } else if (!is_table(value)) {
            char *title = title_text(full);
            char *text = cli_value_text(key, value);
            print_padded(title, 18);
            printf("  %s\n", text);
            mem_free(title);
            mem_free(text);
        }
        mem_free(full);
    }
}

void cli_print_object(json_t *object)
{
    if (!json_is_object(object)) {
        cli_print_json(object);
        return;
    }
    print_scalars(object, "");
    void *it = json_object_iter(object);
    for (; it; it = json_object_iter_next(object, it)) {
        json_t *value = json_object_iter_value(it);
        if (is_table(value)) {
            printf("%s\n", json_object_iter_key(it));
            cli_print_table(value, NULL);
        }
    }
}

json_t *cli_array_of(json_t *json, const char *name)
{
    json_t *named = json_object_get(json, name);
    if (json_is_array(named))
        return named;
    if (json_is_array(json))
        return json;
    void *it = json_object_iter(json);
    for (; it; it = json_object_iter_next(json, it))
        if (json_is_array(json_object_iter_value(it)))
            return json_object_iter_value(it);
    return NULL;
}
