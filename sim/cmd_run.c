/* claudefs-sim run SCENARIO: what would happen to these sites over those links. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/log.h"
#include "sim/cmd.h"
#include "sim/report.h"

#define SHORTER_MAX 1000000u

struct options {
    const char *scenario, *json, *html;
    uint64_t seed, shorter;
    bool has_seed, quiet;
};

static int usage(FILE *to)
{
    fprintf(
        to,
        "usage: claudefs-sim run SCENARIO [--seed N] [--json FILE] [--html FILE]\n"
        "                        [--shorter N] [--quiet]\n\n"
        "Runs the described sites, links, faults and work in virtual time on the real code and\n"
        "tells the lag over time, the conflicts and what became of them, the bytes over each\n"
        "link and how long it took to catch up. The same seed gives the same run.\n\n"
        "  SCENARIO     a file, or the name of one that came with the program\n"
        "  --seed N     another run of the same world (default: the scenario's own)\n"
        "  --json FILE  everything, for programs; - is the standard output\n"
        "  --html FILE  one page to look at, which needs nothing else\n"
        "  --shorter N  divides all times and numbers of operations: to try a long one\n"
        "  --quiet      no text, no progress\n");
    return to == stdout ? 0 : 2;
}

static bool number(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    char *end;
    if (text == NULL || text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    *ret = v;
    return *end == '\0' && errno == 0 && v >= min && v <= max;
}

static bool parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){.shorter = 1};
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        bool good = true, takes = true;
        if (strcmp(argv[i], "--seed") == 0) {
            good = number(next, 0, UINT64_MAX, &o->seed);
            o->has_seed = true;
        } else if (strcmp(argv[i], "--shorter") == 0) {
            good = number(next, 1, SHORTER_MAX, &o->shorter);
        } else if (strcmp(argv[i], "--json") == 0) {
            o->json = next;
        } else if (strcmp(argv[i], "--html") == 0) {
            o->html = next;
        } else {
            takes = false;
            if (strcmp(argv[i], "--quiet") == 0)
                o->quiet = true;
            else if (argv[i][0] == '-' || o->scenario != NULL)
                good = false;
            else
                o->scenario = argv[i];
        }
        if (!good || (takes && next == NULL))
            return false;
        i += takes;
    }
    return o->scenario != NULL;
}

/* A name without a slash that is no file here: the one that was installed beside the program. */
static char *scenario_path(const char *name)
{
    char exe[PATH_MAX];
    if (strchr(name, '/') != NULL || access(name, F_OK) == 0)
        return mem_strdup(name);
    ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[len > 0 ? len : 0] = '\0';
    char *slash = strrchr(exe, '/');
    if (slash != NULL)
        *slash = '\0';
    char *path = mem_printf("%s/../" CLAUDEFS_SCENARIO_DIR "/%s.ini", exe, name);
    if (access(path, F_OK) == 0)
        return path;
    mem_free(path);
    return mem_strdup(name);
}

static void progress(uint64_t now_ns, uint64_t end_ns)
{
    static unsigned told = UINT32_MAX;
    unsigned percent = (unsigned)(end_ns >= 100 ? now_ns / (end_ns / 100) : 100);
    if (percent == told)
        return;
    told = percent;
    fprintf(stderr, "\r%3u%%%s", MIN(percent, 100u), percent >= 100 ? "\r    \r" : "");
}

static bool file_write(const char *path, const void *bytes, size_t len)
{
    bool out = strcmp(path, "-") == 0;
    FILE *f = out ? stdout : fopen(path, "wb");
    bool good = f != NULL && fwrite(bytes, 1, len, f) == len;
    if (f != NULL && !out)
        good &= fclose(f) == 0;
    if (!good)
        fprintf(stderr, "claudefs-sim: %s cannot be written: %s\n", path, strerror(errno));
    return good;
}

static bool write_all(const struct options *o, const struct run *r)
{
    json_t *report = report_json(r);
    bool good = true;
    if (!o->quiet && (o->json == NULL || strcmp(o->json, "-") != 0))
        report_text(r, report, stdout);
    if (o->json != NULL) {
        char *text = json_dumps(report, JSON_INDENT(1));
        ASSERT(text != NULL);
        struct buf b = {0};
        buf_append(&b, text, strlen(text));
        buf_append(&b, "\n", 1);
        good &= file_write(o->json, b.ptr, b.len);
        buf_deinit(&b);
        free(text); /* lint-allow(memory): jansson's */
    }
    if (o->html != NULL) {
        struct buf page = {0};
        report_html(report, &page);
        good &= file_write(o->html, page.ptr, page.len);
        buf_deinit(&page);
    }
    json_decref(report);
    return good;
}

int cmd_run(int argc, char **argv)
{
    struct options o;
    struct err_detail d = {{0}};
    struct run r = {0};
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return usage(stdout);
    if (!parse(&o, argc, argv))
        return usage(stderr);
    for (int i = 0; i < LOG_AREA_COUNT; i++)
        log_levels[i] = -1; /* no thread but this one */
    char *path = scenario_path(o.scenario);
    struct scenario *s = mem_alloc(sizeof *s);
    int rc = scenario_load(s, path, &d), status = 2;
    if (rc == 0) {
        bool tells = !o.quiet && isatty(STDERR_FILENO) == 1;
        rc = run_scenario(s, o.has_seed ? o.seed : s->seed, o.shorter, tells ? progress : NULL, &r,
                          &d);
        status = rc == 0 ? 0 : rc == ERR_CONFIG ? 2 : 1;
        if (rc == 0 || rc == ERR_FATAL) {
            if (!write_all(&o, &r))
                status = 1;
        }
    }
    if (rc != 0 && d.text[0] != '\0')
        fprintf(stderr, "%s%s\n", rc == ERR_CONFIG ? "" : "claudefs-sim: ", d.text);
    run_deinit(&r);
    mem_free(s);
    mem_free(path);
    return status;
}
