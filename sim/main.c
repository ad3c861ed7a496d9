/* claudefs-sim: the simulated world as a program. Each subcommand lives in its own file. */
#include <stdio.h>
#include <string.h>

#include "sim/cmd.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} commands[] = {
    {"run", cmd_run, "runs a described world, and tells what became of it"},
    {"soak", cmd_soak, "searches seeds for broken promises"},
    {"replay", cmd_replay, "runs one seed again, and can tell every event"},
    {"shrink", cmd_shrink, "finds the shortest history that still fails"},
    {"link", cmd_link, "a TCP link with latency, loss and cuts, between real daemons"},
};

static int usage(FILE *to)
{
    fprintf(to, "usage: claudefs-sim COMMAND [ARGUMENT]...\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].what);
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return usage(stderr);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return usage(stdout);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "claudefs-sim: there is no command \"%s\"\n", argv[1]);
    return usage(stderr);
}
