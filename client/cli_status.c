/* claudefs status, wait and log-level. */
#include "client/cli.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cond.h"
#include "client/status_text.h"

#define WATCH_MS 1000
#define PROGRESS_MS 250
#define WAIT_SLACK_MS 10000u /* what the daemon may take beyond the time-out it was given */

/* The part that speaks to other sites answers for itself; what it says joins the rest. Without it
 * (it is starting, say) the rest is still worth showing. */
static void add_wan_status(const char *dir, json_t *status)
{
    struct cli_answer wan;
    if (cli_ask(dir, "status", json_pack("{s:s}", "verb", "wan.status"), CLI_ANSWER_MS,
                CLI_ASK_QUIET, &wan) != CLI_OK)
        return;
    if (json_is_object(wan.json))
        (void)json_object_update_missing(status, wan.json); /* fails without memory only */
    cli_answer_deinit(&wan);
}

struct watch {
    const char *dir;
    bool json, in_place;
    uint64_t lag_max_s;
    struct status_before before;
};

static double now_seconds(void)
{
    return (double)clock_mono_ns(&clock_os) / 1e9;
}

static size_t screen_width(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 512; /* no terminal: nothing is cut */
}

/* Over the last frame: each line is cleared behind its end, and all below the last. */
static void print_frame(struct slice text, bool in_place)
{
    if (in_place)
        fputs("\033[H", stdout);
    for (size_t i = 0; i < text.len; i++) {
        if (in_place && text.ptr[i] == '\n')
            fputs("\033[K", stdout);
        putchar(text.ptr[i]);
    }
    if (in_place)
        fputs("\033[J", stdout);
    fflush(stdout);
}

static int status_print(struct watch *w)
{
    json_t *answer = NULL;
    double lag_max_s = (double)w->lag_max_s;
    int code =
        cli_request(w->dir, "status", json_pack("{s:s}", "verb", "status"), CLI_ANSWER_MS, &answer);
    if (code != CLI_OK)
        return code;
    add_wan_status(w->dir, answer);
    enum status_health health = status_health(answer, lag_max_s);
    if (w->json) {
        (void)json_object_set_new(answer, "health", json_string(status_health_text(health)));
        cli_print_json(answer);
    } else {
        struct buf text = {0};
        status_text(answer, lag_max_s, now_seconds(), &w->before, screen_width(), &text);
        print_frame(buf_slice(&text), w->in_place);
        buf_deinit(&text);
    }
    json_decref(answer);
    return (int)health;
}

int cmd_status(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs status [--watch] [--max-lag S] [--json] --dir DIR\n"
        "\n"
        "Says how the site is: for each other site whether it is reached and how far behind it "
        "is,\n"
        "space, mounts, conflicts. --watch shows it again every second, in place on a terminal,\n"
        "until interrupted, also over a restart of the daemon.\n"
        "\n"
        "Exit status 0: in step; 1: some site is more than S seconds (10 unless told) behind; 2:\n"
        "some site is not reached, or replication with it has stopped; from 3 on: no answer.\n";
    struct watch w = {.lag_max_s = 10};
    bool watch = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &w.dir, 0, 0},
        {"--watch", CLI_FLAG, &watch, 0, 0},
        {"--max-lag", CLI_UINT, &w.lag_max_s, 0, 1000000000},
        {"--json", CLI_FLAG, &w.json, 0, 0},
    };
    const struct cli_syntax syntax = {"status", usage, options, ARRAY_COUNT(options), NULL, 0, 0};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    w.in_place = watch && !w.json && isatty(STDOUT_FILENO);
    if (w.in_place)
        fputs("\033[2J", stdout);
    do {
        code = status_print(&w);
        fflush(stdout);
        if (watch)
            (void)poll(NULL, 0, WATCH_MS); /* a time-out is the point */
    } while (watch && !ferror(stdout) && code <= CLI_UNREACHABLE);
    status_before_deinit(&w.before);
    return code;
}

/* ---- wait ---- */

/* Draws how far it is while the main thread waits for the answer. */
struct progress {
    const char *dir;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool stop; /* guarded by mutex */
};

static uint64_t operations_to_go(const char *dir)
{
    struct cli_answer wan;
    const json_t *peer;
    size_t idx;
    uint64_t sum = 0;
    if (cli_ask(dir, "wait", json_pack("{s:s}", "verb", "wan.status"), CLI_ANSWER_MS, CLI_ASK_QUIET,
                &wan) != CLI_OK)
        return 0;
    json_array_foreach (json_object_get(wan.json, "peers"), idx, peer) {
        if (json_is_true(json_object_get(peer, "paused")))
            continue;
        sum += (uint64_t)json_integer_value(json_object_get(peer, "in_ops_to_go"));
        sum += (uint64_t)json_integer_value(json_object_get(peer, "out_ops_to_go"));
    }
    cli_answer_deinit(&wan);
    return sum;
}

static bool progress_pause(struct progress *p)
{
    pthread_mutex_lock(&p->mutex);
    if (!p->stop)
        (void)cond_wait_ns(&p->cond, &p->mutex, PROGRESS_MS * NS_PER_MS); /* a pause */
    bool stop = p->stop;
    pthread_mutex_unlock(&p->mutex);
    return !stop;
}

static void *progress_run(void *arg)
{
    struct progress *p = arg;
    uint64_t total = 0;
    while (progress_pause(p)) {
        struct buf text = {0};
        uint64_t left = operations_to_go(p->dir);
        total = MAX(total, left);
        progress_text(left, total, &text);
        fprintf(stderr, "\r%.*s  %llu operations to go\033[K", (int)text.len,
                (const char *)text.ptr, (unsigned long long)left);
        buf_deinit(&text);
    }
    fputs("\r\033[K", stderr);
    return NULL;
}

static bool progress_begin(struct progress *p, const char *dir)
{
    *p = (struct progress){.dir = dir};
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->cond, NULL);
    return isatty(STDERR_FILENO) && pthread_create(&p->thread, NULL, progress_run, p) == 0;
}

static void progress_end(struct progress *p)
{
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_signal(&p->cond);
    pthread_mutex_unlock(&p->mutex);
    (void)pthread_join(p->thread, NULL); /* it was made */
}

/* What is missing, a line each. The daemon names it in "missing", as sentences or as objects. */
static void print_missing(const json_t *answer)
{
    const json_t *missing = json_object_get(answer, "missing"), *one;
    size_t idx;
    json_array_foreach (missing, idx, one) {
        char *text = cli_value_text("missing", one);
        fprintf(stderr, "  %s\n", text);
        mem_free(text);
    }
}

/* In step is what names and small contents are; the rest comes by itself. Into *answer. */
static int wait_contents(const char *dir, double until_s, json_t *answer)
{
    bool known = false;
    json_int_t contents = 0, bytes = 0;
    for (;;) {
        json_t *now = NULL;
        int code =
            cli_request(dir, "wait", json_pack("{s:s}", "verb", "contents"), CLI_ANSWER_MS, &now);
        if (code != CLI_OK)
            return code;
        known = json_is_true(json_object_get(now, "known"));
        contents = json_integer_value(json_object_get(now, "awaited_contents"));
        bytes = json_integer_value(json_object_get(now, "awaited_bytes"));
        json_decref(now);
        if ((known && contents == 0) || now_seconds() >= until_s)
            break;
        (void)poll(NULL, 0, PROGRESS_MS); /* a time-out is the point */
    }
    (void)json_object_set_new(answer, "awaited_contents", json_integer(contents));
    (void)json_object_set_new(answer, "awaited_bytes", json_integer(bytes));
    if (known && contents == 0)
        return CLI_OK;
    return cli_error(CLI_NO, "wait: in step, but %lld contents (%lld bytes)%s are not here yet",
                     (long long)contents, (long long)bytes, known ? "" : " or more");
}

int cmd_wait(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs wait [--contents] [--timeout S] [--json] --dir DIR\n"
        "\n"
        "Returns when every reachable site has applied all that happened here up to now, and this\n"
        "site all that happened there. Exit status 1 after S seconds (60 unless told), with what\n"
        "is missing. On a terminal it shows how much is to go. --contents also waits until all\n"
        "contents are at this site that are to be here without being read: those of up to 16 MiB,\n"
        "and what is in eager or pinned directories.\n";
    const char *dir = NULL;
    uint64_t timeout_s = 60;
    bool json = false, contents = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--contents", CLI_FLAG, &contents, 0, 0},
        {"--timeout", CLI_UINT, &timeout_s, 0, 1000000},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {"wait", usage, options, ARRAY_COUNT(options), NULL, 0, 0};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    struct cli_answer answer;
    struct progress progress;
    double until_s = now_seconds() + (double)timeout_s;
    bool drawn = progress_begin(&progress, dir);
    code = cli_ask(dir, "wait",
                   json_pack("{s:s,s:I}", "verb", "wait", "timeout_s", (json_int_t)timeout_s),
                   (uint32_t)timeout_s * 1000u + WAIT_SLACK_MS, CLI_ASK_LOUD, &answer);
    if (drawn)
        progress_end(&progress);
    if (code != CLI_OK)
        return code;
    const json_t *in_step = json_object_get(answer.json, "in_step");
    if (contents && answer.rc == 0 && json_is_true(in_step))
        code = wait_contents(dir, until_s, answer.json);
    if (json && answer.json)
        cli_print_json(answer.json);
    if (answer.rc != 0) {
        code = cli_error(cli_exit_of(answer.rc), "wait: %s", answer.sentence);
    } else if (json_is_false(in_step)) {
        code = cli_error(CLI_NO, "wait: not in step after %llu s: still missing:",
                         (unsigned long long)timeout_s);
        print_missing(answer.json);
    }
    cli_answer_deinit(&answer);
    return code;
}

static void print_levels(json_t *answer)
{
    cli_print_object(json_object_get(answer, "levels"));
}

int cmd_log_level(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs log-level [LEVELS] [--json] --dir DIR\n"
        "\n"
        "Changes what the running daemon logs. LEVELS is error, warn, info or debug, for all its\n"
        "parts or for each: 'wan=debug,site=warn'. Parts: base, journal, data, site, wan. Without\n"
        "LEVELS it prints what they are.\n";
    const char *words[1] = {NULL}, *dir = NULL;
    bool json = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {"log-level", usage, options, ARRAY_COUNT(options),
                                      words,       0,     1};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    return cli_show(dir, "log-level", json_pack("{s:s,s:s*}", "verb", "log", "levels", words[0]),
                    CLI_ANSWER_MS, json, print_levels);
}
