/* Structured log: one line "time level folder event key=value ..." to stderr. Level per folder,
 * changeable at run time. base and cores never log; the layer that decides logs, once.
 * Threads: any. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/util.h"

enum log_level {
    LOG_ERROR,
    LOG_WARN,
    LOG_INFO,
    LOG_DEBUG
};
enum log_area {
    LOG_BASE,
    LOG_JOURNAL,
    LOG_DATA,
    LOG_SITE,
    LOG_WAN,
    LOG_CLIENT,
    LOG_SIM,
    LOG_AREA_COUNT
};
extern int log_levels[LOG_AREA_COUNT]; /* read without a lock; see log_level_set */
void log_level_set(enum log_area area, enum log_level level);
enum log_level log_level_get(enum log_area area);
const char *log_level_name(enum log_level level); /* as log_levels_parse takes it */
const char *log_area_name(enum log_area area);
/* "info", or "wan=debug,site=warn": ERR_INVALID names nothing changed. */
int log_levels_parse(const char *text) MUST_CHECK;
void log_write(enum log_level level, enum log_area area, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#define LOG_AT(level, area, event, ...)                                                            \
    do {                                                                                           \
        if ((int)(level) <= __atomic_load_n(&log_levels[area], __ATOMIC_RELAXED))                  \
            log_write(level, area, event, __VA_ARGS__);                                            \
    } while (0)
#define log_error(area, event, ...) LOG_AT(LOG_ERROR, area, event, __VA_ARGS__)
#define log_warn(area, event, ...) LOG_AT(LOG_WARN, area, event, __VA_ARGS__)
#define log_info(area, event, ...) LOG_AT(LOG_INFO, area, event, __VA_ARGS__)
#define log_debug(area, event, ...) LOG_AT(LOG_DEBUG, area, event, __VA_ARGS__)

#endif
