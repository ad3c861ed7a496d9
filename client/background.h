/* A command that goes on in the background once it is ready, as daemon(3) would do it if daemon(3)
 * waited: whoever starts it learns how the start ended. Shell; before the first thread is made. */
#ifndef CLIENT_BACKGROUND_H
#define CLIENT_BACKGROUND_H

#include <stdbool.h>
#include <sys/types.h>

struct background {
    const char *command; /* for messages */
    const char *log;     /* or NULL. A file in which the child says why it ended */
    pid_t child;         /* the starter's, after background_start */
    int ready_fd;        /* where the child says that it is ready; -1: nobody waits */
};

/* Forks. True in the child, which has a session of its own and goes on. False in the starter, when
 * the child is ready (CLI_OK), or has ended, or there is none: *ret_code is what to exit with. What
 * the child has added to the log until then is printed if it failed. */
bool background_start(struct background *b, int *ret_code);

/* The child is ready. Once; with ready_fd -1 nothing happens. Threads: any one. */
void background_ready(int *ready_fd);

/* Nothing on stdin and stdout, stderr at the end of `log` (NULL: nowhere), which is made with
 * `mode` if there is none; nowhere, too, if it cannot be opened. */
void background_redirect(const char *log, mode_t mode);

#endif
