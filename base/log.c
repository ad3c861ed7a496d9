/* One line per event, written with one write(2) so that lines of several threads do not mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/err.h"

enum {
    LOG_LINE_BYTES = 2048
};

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char *const area_names[LOG_AREA_COUNT] = {"base", "journal", "data", "site",
                                                       "wan",  "client",  "sim"};

int log_levels[LOG_AREA_COUNT] = {LOG_INFO, LOG_INFO, LOG_INFO, LOG_INFO,
                                  LOG_INFO, LOG_INFO, LOG_INFO};

void log_level_set(enum log_area area, enum log_level level)
{
    ASSERT((unsigned)area < LOG_AREA_COUNT && (unsigned)level < ARRAY_COUNT(level_names));
    __atomic_store_n(&log_levels[area], (int)level, __ATOMIC_RELAXED);
}

enum log_level log_level_get(enum log_area area)
{
    ASSERT((unsigned)area < LOG_AREA_COUNT);
    return (enum log_level)__atomic_load_n(&log_levels[area], __ATOMIC_RELAXED);
}

const char *log_level_name(enum log_level level)
{
    ASSERT((unsigned)level < ARRAY_COUNT(level_names));
    return level_names[level];
}

const char *log_area_name(enum log_area area)
{
    ASSERT((unsigned)area < LOG_AREA_COUNT);
    return area_names[area];
}

static int name_find(const char *const *names, size_t count, const char *text, size_t len)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(names[i]) == len && memcmp(names[i], text, len) == 0)
            return (int)i;
    return -1;
}

int log_levels_parse(const char *text)
{
    int wanted[LOG_AREA_COUNT];
    for (size_t i = 0; i < LOG_AREA_COUNT; i++)
        wanted[i] = -1;
    for (;;) {
        size_t len = strcspn(text, ",");
        const char *eq = memchr(text, '=', len);
        const char *level_at = eq == NULL ? text : eq + 1;
        int level = name_find(level_names, ARRAY_COUNT(level_names), level_at,
                              len - (size_t)(level_at - text));
        if (level < 0)
            return ERR_INVALID;
        if (eq == NULL) {
            for (size_t i = 0; i < LOG_AREA_COUNT; i++)
                wanted[i] = level;
        } else {
            int area = name_find(area_names, LOG_AREA_COUNT, text, (size_t)(eq - text));
            if (area < 0)
                return ERR_INVALID;
            wanted[area] = level;
        }
        if (text[len] == '\0')
            break;
        text += len + 1;
    }
    for (size_t i = 0; i < LOG_AREA_COUNT; i++)
        if (wanted[i] >= 0)
            log_level_set((enum log_area)i, (enum log_level)wanted[i]);
    return 0;
}

void log_write(enum log_level level, enum log_area area, const char *event, const char *fmt, ...)
{
    char line[LOG_LINE_BYTES];
    struct timespec now;
    struct tm tm;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &tm);
    size_t len = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
    int head = snprintf(line + len, sizeof line - len, ".%03ldZ %s %s %s ", now.tv_nsec / 1000000,
                        level_names[level], area_names[area], event);
    ASSERT(head > 0);
    len = MIN(len + (size_t)head, sizeof line - 2);
    va_list args;
    va_start(args, fmt);
    int body = vsnprintf(line + len, sizeof line - 1 - len, fmt, args);
    va_end(args);
    if (body > 0)
        len = MIN(len + (size_t)body, sizeof line - 2);
    while (len > 0 && line[len - 1] == ' ')
        len--;
    /* File names come from users: a line break in one must not forge a line of the log. */
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    line[len++] = '\n';
    /* A log that cannot be written has nobody to be told. */
    (void)!write(STDERR_FILENO, line, len);
}
