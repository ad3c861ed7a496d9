/* The subcommands of claudefs-sim. argv[0] is the command's name; the result is the exit status:
 * 0, 1 when something was found wrong, 2 for wrong usage or input. */
#ifndef SIM_CMD_H
#define SIM_CMD_H

int cmd_run(int argc, char **argv);
int cmd_soak(int argc, char **argv);
int cmd_replay(int argc, char **argv);
int cmd_shrink(int argc, char **argv);
int cmd_link(int argc, char **argv);

#endif
