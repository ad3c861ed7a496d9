/* claudefs-sim link: becomes the program beside this one, see link_main.c. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "sim/cmd.h"

int cmd_link(int argc, char **argv)
{
    char self[4096];
    (void)argc;
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len > 0 ? len : 0] = '\0';
    char *slash = strrchr(self, '/');
    char *program =
        mem_printf("%.*s/claudefs-sim-link", slash != NULL ? (int)(slash - self) : 0, self);
    (void)execv(program, argv); /* returns only when it failed */
    fprintf(stderr, "claudefs-sim link: starting %s: %s: it belongs beside claudefs-sim\n", program,
            strerror(errno));
    mem_free(program);
    return 1;
}
