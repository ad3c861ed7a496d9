/* sim/scenario.h: files that people write. What is understood is a world that can be made; what is
 * not has a place inside the file. */
#include <string.h>

#include "base/assert.h"
#include "sim/scenario.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct scenario s;
    static struct world_config c;
    struct scenario_error e = {0};
    unsigned lines = 2;
    for (size_t i = 0; i < size; i++)
        lines += data[i] == '\n';
    int rc = scenario_parse(&s, slice_of(data, size), &e);
    if (rc != 0) {
        ASSERT(rc == ERR_CONFIG && strstr(e.text, "expected ") != NULL);
        ASSERT(e.line >= 1 && e.line <= lines && e.column >= 1 && e.column <= size + 1);
        return 0;
    }
    ASSERT(s.world.site_count >= 2 && s.world.site_count <= WORLD_SITES_MAX);
    rc = scenario_world(&s, 1, 1 + size % 100, &c, &e);
    for (uint32_t i = 0; rc == 0 && i < c.event_count; i++) {
        ASSERT(c.events[i].a < c.site_count && c.events[i].b < c.site_count);
        ASSERT(c.events[i].at_ns <= c.work_until_ns);
        ASSERT(i == 0 || c.events[i - 1].at_ns <= c.events[i].at_ns);
    }
    return 0;
}
