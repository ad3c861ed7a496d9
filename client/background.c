#include "client/background.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/cli.h"

/* A log that is not there yet has nothing in it. */
static off_t log_end(const char *log)
{
    struct stat st;
    return log != NULL && stat(log, &st) == 0 ? st.st_size : 0;
}

static void log_show(const char *log, off_t from)
{
    char part[4096];
    int fd = log != NULL ? open(log, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    ssize_t len;
    while ((len = pread(fd, part, sizeof(part), from)) > 0) {
        (void)fwrite(part, 1, (size_t)len, stderr); /* there is nobody else to tell */
        from += len;
    }
    (void)close(fd);
}

static int starter_wait(struct background *b, int fd, off_t log_from)
{
    char byte;
    ssize_t n;
    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n == 1)
        return CLI_OK;
    int status = 0; /* it ended; it has said why */
    pid_t got = waitpid(b->child, &status, 0);
    log_show(b->log, log_from);
    if (got == b->child && WIFEXITED(status) && WEXITSTATUS(status) != 0)
        return WEXITSTATUS(status);
    return cli_error(CLI_FAILED, "%s: the process in the background ended before it was ready",
                     b->command);
}

bool background_start(struct background *b, int *ret_code)
{
    int fds[2];
    off_t log_from = log_end(b->log);
    b->ready_fd = -1;
    if (pipe2(fds, O_CLOEXEC) != 0) {
        *ret_code = cli_error(CLI_FAILED, "%s: pipe: %s", b->command, strerror(errno));
        return false;
    }
    (void)fflush(NULL); /* or what is buffered is printed twice */
    b->child = fork();
    if (b->child == 0) {
        (void)close(fds[0]);
        (void)setsid(); /* a new process always can */
        b->ready_fd = fds[1];
        return true;
    }
    if (b->child < 0)
        *ret_code = cli_error(CLI_FAILED, "%s: fork: %s", b->command, strerror(errno));
    (void)close(fds[1]);
    if (b->child > 0)
        *ret_code = starter_wait(b, fds[0], log_from);
    (void)close(fds[0]);
    return false;
}

void background_ready(int *ready_fd)
{
    if (*ready_fd < 0)
        return;
    ssize_t n;
    do
        n = write(*ready_fd, "", 1);
    while (n < 0 && errno == EINTR); /* a starter that has gone does not wait */
    (void)close(*ready_fd);
    *ready_fd = -1;
}

void background_redirect(const char *log, mode_t mode)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int fd = log != NULL ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, mode) : -1;
    if (null >= 0) {
        (void)dup2(null, STDIN_FILENO); /* what stays open is only untidy */
        (void)dup2(null, STDOUT_FILENO);
        (void)dup2(fd >= 0 ? fd : null, STDERR_FILENO);
    }
    if (fd > STDERR_FILENO)
        (void)close(fd);
    if (null > STDERR_FILENO)
        (void)close(null);
}
