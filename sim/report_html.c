/* The report as one page: the page's own text with the JSON where {{REPORT}} stands. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "sim/report.h"
#include "sim/report_page.h"

/* Names of files come from workloads and titles from scenarios: inside a script element nothing may
 * look like its end, so "<" is written as JSON may write it. */
static void script_append(struct buf *out, const char *json)
{
    for (const char *p = json; *p != '\0';) {
        size_t plain = strcspn(p, "<");
        buf_append(out, p, plain);
        p += plain;
        if (*p == '<') {
            buf_append(out, "\\u003c", 6);
            p++;
        }
    }
}

void report_html(const json_t *report, struct buf *out)
{
    static const char mark[] = "{{REPORT}}";
    const size_t mark_len = sizeof mark - 1;
    const unsigned char *at = memmem(report_page, report_page_len, mark, mark_len);
    ASSERT(at != NULL);
    char *json = json_dumps(report, JSON_COMPACT);
    ASSERT(json != NULL);
    buf_append(out, report_page, (size_t)(at - report_page));
    script_append(out, json);
    buf_append(out, at + mark_len, report_page_len - (size_t)(at - report_page) - mark_len);
    free(json); /* lint-allow(memory): jansson's */
}
