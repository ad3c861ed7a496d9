/* What main and harness share. */
#ifndef TESTS_POSIX_POSIX_INT_H
#define TESTS_POSIX_POSIX_INT_H

#include "tests/posix/posix.h"

struct counters {
    int passed, failed, skipped; /* atomically counted, in memory shared by all children */
};
extern struct counters *counters;
extern bool verbose;
extern const char *group_name;
void remove_tree(const char *path);

#endif
