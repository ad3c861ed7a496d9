/* The command line: one function for each command, and what they share: exit codes, options, error
 * sentences, the connection to the daemon, and text from JSON.
 *
 * A command gets its own words only: argv[0] is its name, argc >= 1; it returns an exit code. All
 * of this runs on the main thread of a short-lived process (but for `serve`). */
#ifndef CLIENT_CLI_H
#define CLIENT_CLI_H

#include <jansson.h>

#include "base/err.h"

/* Documented in claudefs(1); scripts depend on them. */
enum cli_exit {
    CLI_OK = 0,
    CLI_NO = 1,          /* a negative answer: not in step, not clean, no such conflict, time-out */
    CLI_USAGE = 2,       /* the command line is wrong; nothing was done */
    CLI_UNREACHABLE = 3, /* the daemon does not run or does not answer */
    CLI_DENIED = 4,      /* no permission, or a key, token or certificate was not accepted */
    CLI_FAILED = 5,      /* the request was understood and could not be carried out */
    CLI_DIR = 6          /* the site's directory is missing, damaged or was rolled back */
};

int cmd_site(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_mount(int argc, char **argv); /* where libfuse3 was there to build with */
int cmd_peer(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_wait(int argc, char **argv);
int cmd_conflicts(int argc, char **argv);
int cmd_journal(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_fsck(int argc, char **argv);
int cmd_gc(int argc, char **argv);
int cmd_dashboard(int argc, char **argv);
int cmd_support_bundle(int argc, char **argv);
int cmd_log_level(int argc, char **argv);

struct cli_command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary; /* a line for the list of commands */
};
/* Runs the command that argv[1] names; `group` is what comes before it ("claudefs peer"). Without a
 * word it prints the list and returns CLI_USAGE; help, --help and -h print it and return CLI_OK. */
int cli_dispatch(
    const char *group, const struct cli_command *commands, size_t count, int argc, char **argv);

/* ---- options ---- */
enum cli_kind {
    CLI_FLAG,    /* bool *: present or not */
    CLI_TEXT,    /* const char **: borrowed from argv */
    CLI_UINT,    /* uint64_t *: decimal, min to max */
    CLI_SITE_DIR /* const char **: a text; without it what cli_dir() says, or an error */
};
struct cli_option {
    const char *name; /* "--dir" */
    enum cli_kind kind;
    void *ret;         /* left alone when the option is not given, but by CLI_SITE_DIR */
    uint64_t min, max; /* CLI_UINT */
};
struct cli_syntax {
    const char *command; /* "peer accept", for messages */
    const char *usage;   /* whole text of --help */
    const struct cli_option *options;
    size_t option_count;
    const char **words; /* room for words_max words that are not options */
    int words_min, words_max;
};
/* Options may stand anywhere, as "--name VALUE" or "--name=VALUE"; "--" ends them. Returns the
 * number of words (>= 0), or, after printing help or an error, -1 with the exit code. */
int cli_parse(const struct cli_syntax *syntax, int argc, char **argv, int *ret_exit) MUST_CHECK;
/* The site's directory: `given`, else the environment's CLAUDEFS_DIR; NULL after an error. */
const char *cli_dir(const char *given, const char *command);

/* Prints "claudefs: <sentence>" on stderr and returns `code`. Sentences read "what failed: why:
 * what to do". */
int cli_error(enum cli_exit code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
enum cli_exit cli_exit_of(int rc); /* the exit code for a code of base/err.h */

/* ---- the daemon ---- */
struct cli_answer {
    int rc;         /* of the daemon */
    char *sentence; /* when rc is not 0; owned */
    json_t *json;   /* when rc is 0; owned */
};
/* Sends {"verb": ...} (the reference to request is taken) to the daemon of `dir`. CLI_OK: it
 * answered, see *ret; otherwise nothing came and the reason was printed, unless quiet.
 * timeout_ms 0: waits for ever. */
enum cli_ask_mode {
    CLI_ASK_LOUD,
    CLI_ASK_QUIET /* an unreachable daemon is the caller's business; other errors are printed */
};
int cli_ask(const char *dir,
            const char *command,
            json_t *request,
            uint32_t timeout_ms,
            enum cli_ask_mode mode,
            struct cli_answer *ret);
void cli_answer_deinit(struct cli_answer *a);
/* cli_ask for which any rc but 0 is an error: printed. *ret is the caller's. */
int cli_request(
    const char *dir, const char *command, json_t *request, uint32_t timeout_ms, json_t **ret);
/* cli_request, and what the daemon answered printed: as JSON, or by `print` (NULL: not at all). */
int cli_show(const char *dir,
             const char *command,
             json_t *request,
             uint32_t timeout_ms,
             bool json,
             void (*print)(json_t *answer));
#define CLI_ANSWER_MS 30000u /* patience with requests that only look something up */

/* ---- text ---- */
void cli_print_json(const json_t *json); /* indented, keys in the daemon's order, newline */
/* Scalars as "key  value" lines, objects inside as "key.key", arrays of objects as titled tables.
 * Units follow from the end of a key: _bytes, _ns, _ms, _s, _hlc; "time" is a point in time. */
void cli_print_object(json_t *object);
/* A row for each object of the array. columns: NULL-terminated names, or NULL: all scalar members
 * of the objects. */
void cli_print_table(json_t *array, const char *const *columns);
/* One value as the tables show it; owned by the caller. */
char *cli_value_text(const char *key, const json_t *value);
/* The first array among the members of an object, or the value itself when it is one; or NULL. */
json_t *cli_array_of(json_t *json, const char *name);

#endif
