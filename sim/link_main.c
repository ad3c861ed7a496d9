/* claudefs-sim-link: what `claudefs-sim link` starts. A program of its own, because the simulated
 * world takes libuv's names for its twins, and this one talks to real daemons. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "sim/link_proxy.h"

#define LINES_MAX 32u

struct options {
    const char *listen, *target, *control;
    const char *lines[LINES_MAX];
    size_t line_count;
    uint64_t seed;
};
struct running {
    uv_signal_t end[2];
    struct link_proxy *proxy;
    struct link_control *control;
};

static int usage(FILE *to)
{
    fprintf(
        to,
        "usage: claudefs-sim link LISTEN TARGET [--control SOCKET] [--seed N] [--do LINE]...\n"
        "\n"
        "A TCP link between real daemons: listens on LISTEN, forwards to TARGET (both HOST:PORT,\n"
        "port 0 of LISTEN: a free one, which is printed), and does to the bytes what it is told.\n"
        "\n"
        "  --control SOCKET   take lines from a Unix socket made there, and answer each\n"
        "  --do LINE          such a line before the first connection; again for more\n"
        "  --seed N           for jitter, loss and damage (0)\n"
        "\n"
        "Lines:\n%s\n"
        "\"to\" is the way from whoever connects to TARGET, \"from\" the way back; without a word "
        "both.\n",
        link_line_help);
    return to == stdout ? 0 : 2;
}

static int wrong(const char *what, const char *why)
{
    fprintf(stderr, "claudefs-sim link: %s: %s\n", what, why);
    return 2;
}

/* One option and its value; 0, or an exit status. */
static int option_read(struct options *o, const char *name, const char *value)
{
    char *end;
    if (strcmp(name, "--control") != 0 && strcmp(name, "--do") != 0 && strcmp(name, "--seed") != 0)
        return wrong(name, "there is no such option; --help lists them");
    if (value == NULL)
        return wrong(name, "a value is missing");
    if (strcmp(name, "--control") == 0) {
        o->control = value;
    } else if (strcmp(name, "--do") == 0) {
        if (o->line_count == LINES_MAX)
            return wrong(value, "too many lines");
        o->lines[o->line_count++] = value;
    } else {
        o->seed = strtoull(value, &end, 10);
        if (value[0] < '0' || value[0] > '9' || *end != '\0')
            return wrong(value, "the seed is no number");
    }
    return 0;
}

/* -1: go on; else the exit status. */
static int options_read(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int rc = 0;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return usage(stdout);
        if (argv[i][0] == '-') {
            rc = option_read(o, argv[i], argv[i + 1]);
            i++;
        } else if (o->listen == NULL) {
            o->listen = argv[i];
        } else if (o->target == NULL) {
            o->target = argv[i];
        } else {
            rc = wrong(argv[i], "one word too many");
        }
        if (rc != 0)
            return rc;
    }
    return o->target == NULL ? usage(stderr) : -1;
}

static void ended(uv_signal_t *h, int number)
{
    struct running *r = h->data;
    (void)number;
    for (size_t i = 0; i < ARRAY_COUNT(r->end); i++)
        if (!uv_is_closing((uv_handle_t *)&r->end[i]))
            uv_close((uv_handle_t *)&r->end[i], NULL);
    link_control_close(r->control);
    link_proxy_close(r->proxy);
}

static void watch(struct running *r, uv_loop_t *loop)
{
    static const int numbers[] = {SIGINT, SIGTERM};
    for (size_t i = 0; i < ARRAY_COUNT(r->end); i++) {
        int rc = uv_signal_init(loop, &r->end[i]);
        ASSERT(rc == 0);
        r->end[i].data = r;
        rc = uv_signal_start(&r->end[i], ended, numbers[i]);
        ASSERT(rc == 0);
    }
}

/* The lines of the command line; 0, or an exit status. */
static int lines_do(struct link_proxy *p, const struct options *o)
{
    for (size_t i = 0; i < o->line_count; i++) {
        struct buf answer = {0};
        int rc = link_proxy_line(p, slice_str(o->lines[i]), &answer);
        if (rc != 0)
            fprintf(stderr, "claudefs-sim link: --do \"%s\": %.*s", o->lines[i], (int)answer.len,
                    (const char *)answer.ptr);
        buf_deinit(&answer);
        if (rc != 0)
            return 2;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct options o = {0};
    struct running r = {0};
    struct err_detail d;
    uv_loop_t *loop = uv_default_loop();
    int status = options_read(&o, argc, argv);
    if (status >= 0)
        return status;
    (void)signal(SIGPIPE, SIG_IGN);
    int rc = link_proxy_open(loop, o.listen, o.target, o.seed, &r.proxy, &d);
    if (rc != 0) {
        fprintf(stderr, "claudefs-sim link: %s\n", d.text);
        return rc == ERR_INVALID ? 2 : 1;
    }
    watch(&r, loop);
    status = lines_do(r.proxy, &o);
    if (status == 0 && o.control != NULL &&
        link_control_open(r.proxy, loop, o.control, &r.control, &d) != 0) {
        fprintf(stderr, "claudefs-sim link: %s\n", d.text);
        status = 1;
    }
    if (status != 0)
        ended(&r.end[0], 0);
    else
        printf("listening on %s\n", link_proxy_address(r.proxy));
    (void)fflush(stdout);
    (void)uv_run(loop, UV_RUN_DEFAULT); /* until there is nothing left to wait for */
    return status;
}
