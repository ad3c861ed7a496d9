/* claudefs serve: the daemon of one node, in the foreground, logging to stderr, or in the
 * background. It says READY=1 to the service manager when mounts and other sites can connect, and
 * ends on SIGTERM or SIGINT. */
#include "client/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "client/background.h"
#include "client/dash.h"
#include "site/node_return.h"
#include "wan/wan.h"

#define RETAINED_BYTES (64u * MIB) /* of chunks on their way */
#define LOG_MODE 0640              /* in the background */

/* Between two runs there is no node; then the signal is kept. */
static struct node *volatile signal_node;
static volatile sig_atomic_t stop_asked;

static void on_signal(int number)
{
    (void)number;
    int saved = errno;
    stop_asked = 1;
    if (signal_node != NULL)
        node_stop(signal_node);
    errno = saved;
}

/* The protocol of sd_notify(3): a datagram to the socket in NOTIFY_SOCKET, '@' for an abstract one.
 */
static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || len >= sizeof(to.sun_path) || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(to.sun_path, path, len);
    if (path[0] == '@')
        to.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to, size) < 0)
        log_debug(LOG_CLIENT, "notify", "error=%s", strerror(errno)); /* it may have gone */
    (void)close(fd); /* nothing is buffered in it */
}

/* RocksDB and segments hold many files open; the usual soft limit of 1024 is for select(2) only. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* as it was will do for small sites */
    }
}

static void catch_signals(struct node *n)
{
    struct sigaction stop = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    signal_node = n;
    (void)sigemptyset(&stop.sa_mask); /* cannot fail, as sigaction with these signals */
    (void)sigaction(SIGTERM, &stop, NULL);
    (void)sigaction(SIGINT, &stop, NULL);
    (void)sigaction(SIGPIPE, &ignore, NULL);
    (void)sigaction(SIGHUP, &ignore, NULL);
}

/* What the directory lacks is no negative answer here: there is no site. */
static int open_error(int rc, const struct err_detail *d)
{
    return cli_error(rc == ERR_NOT_FOUND ? CLI_DIR : cli_exit_of(rc), "serve: %s",
                     d->text[0] ? d->text : err_text(rc));
}

/* *ret_again: the site has changed under its feet (node_return.h) and is to be opened anew. */
static int run(const char *dir, int *ready_fd, bool *ret_again)
{
    struct node *n = NULL;
    struct wan *w = NULL;
    struct dash *dash = NULL;
    struct err_detail d = {{0}};
    int code = CLI_OK;
    const struct node_config config = {.dir = dir, .clock = &clock_os};
    *ret_again = false;
    int rc = node_return_prepare(&config, &d);
    if (rc == 0)
        rc = node_open(&n, &config, &d);
    if (rc != 0)
        return open_error(rc, &d);
    catch_signals(n);
    if (stop_asked)
        node_stop(n);
    rc = wan_start(&w, n, &d);
    if (rc == 0)
        rc = dash_start(&dash, n, &d);
    if (rc == 0)
        rc = node_start(n, &d);
    if (rc != 0) {
        dash_stop(dash);
        wan_stop(w);
        node_close(n);
        wan_free(w);
        code = open_error(rc, &d);
        node_free(n);
        dash_free(dash);
        return code;
    }
    log_info(LOG_SITE, "serving", "site=%s dir=%s pid=%d", node_settings(n)->name, dir,
             (int)getpid());
    notify("READY=1");
    background_ready(ready_fd);
    rc = node_run(n);
    *ret_again = rc == 0 && !stop_asked && node_wants_reopen(n);
    if (!*ret_again)
        notify("STOPPING=1");
    signal_node = NULL; /* it is about to go, and its loop runs once more to its end */
    dash_stop(dash);
    wan_stop(w);
    node_close(n);
    wan_free(w);
    if (rc != 0)
        code = cli_error(cli_exit_of(rc), "serve: site %s stopped: %s: see the log above",
                         node_settings(n)->name, err_text(rc));
    else
        log_info(LOG_SITE, "stopped", "site=%s", node_settings(n)->name);
    node_free(n);
    dash_free(dash);
    return code;
}

/* Returns in the daemon alone, with its ready_fd; whoever started it ends here. */
static int go_into_background(const char *dir, const char *log)
{
    char *path = log != NULL ? mem_strdup(log) : mem_printf("%s/serve.log", dir);
    struct background b = {.command = "serve", .log = path};
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, LOG_MODE);
    if (fd < 0)
        exit(cli_error(CLI_DIR, "serve: the log %s cannot be written: %s", path, strerror(errno)));
    (void)close(fd);
    int code = CLI_OK;
    bool daemon = background_start(&b, &code);
    if (daemon)
        background_redirect(path, LOG_MODE);
    else if (code == CLI_OK)
        printf("%s is served by process %d, its log is %s\n", dir, (int)b.child, path);
    mem_free(path);
    if (!daemon)
        exit(code);
    return b.ready_fd;
}

int cmd_serve(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs serve [--log LEVELS] [--background [--log-file FILE]] --dir DIR\n"
        "\n"
        "Runs the daemon of the site in DIR, in the foreground, with its log on stderr; or in the\n"
        "background, with its log in DIR/serve.log or FILE, and returns when it can be used. Ends\n"
        "on SIGTERM and SIGINT. LEVELS as in 'claudefs log-level'.\n";
    const char *dir = NULL, *levels = NULL, *log = NULL;
    bool background = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--log", CLI_TEXT, &levels, 0, 0},
        {"--background", CLI_FLAG, &background, 0, 0},
        {"--log-file", CLI_TEXT, &log, 0, 0},
    };
    const struct cli_syntax syntax = {"serve", usage, options, ARRAY_COUNT(options), NULL, 0, 0};
    int code, ready_fd = -1;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    if (levels && log_levels_parse(levels) != 0)
        return cli_error(CLI_USAGE,
                         "serve: '%s' are no log levels: error, warn, info or debug, or "
                         "for each part as in 'wan=debug,site=warn'",
                         levels);
    if (log && !background)
        return cli_error(CLI_USAGE, "serve: --log-file is for --background: in the foreground the "
                                    "log is on stderr");
    if (background)
        ready_fd = go_into_background(dir, log);
    raise_file_limit();
    mem_retain(RETAINED_BYTES);
    bool again = true;
    while (again)
        code = run(dir, &ready_fd, &again);
    return code;
}
