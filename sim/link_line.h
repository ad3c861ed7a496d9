/* The words of `claudefs-sim link`: one line of its control socket, or of its command line, as a
 * command. Pure; any thread. The lines come from people and scripts: whatever is not understood is
 * an error that says what was expected. */
#ifndef SIM_LINK_LINE_H
#define SIM_LINK_LINE_H

#include "base/err.h"
#include "base/util.h"

#define LINK_LINE_MAX 256u    /* bytes of a line, without its newline */
#define LINK_ADDRESS_MAX 128u /* bytes of HOST:PORT with the terminator */

/* Which way bytes go: from whoever connected to the target, or back. */
enum link_direction {
    LINK_TO,
    LINK_FROM,
    LINK_DIRECTIONS
};

enum link_verb {
    LINK_SET_LATENCY,   /* value: ns, one way */
    LINK_SET_JITTER,    /* value: ns, at most so much more */
    LINK_SET_BANDWIDTH, /* value: bytes a second; 0: no bound */
    LINK_SET_QUEUE,     /* value: bytes that may wait for the bandwidth */
    LINK_SET_LOSS,      /* value: packets lost of a million */
    LINK_SET_DAMAGE,    /* value: bytes between two flipped bits, on average; 0: none */
    LINK_SET_RESETS,    /* value: ns that a connection lives, on average; 0: for ever */
    LINK_SET_TARGET,    /* address */
    LINK_CUT_STALL,     /* nothing arrives, nothing is refused */
    LINK_CUT_RESET,     /* connections break, new ones are refused */
    LINK_HEAL,
    LINK_RESET, /* every connection breaks once */
    LINK_STATS
};

struct link_command {
    enum link_verb verb;
    bool way[LINK_DIRECTIONS]; /* which directions are meant: both, unless the line names one */
    uint64_t value;
    char address[LINK_ADDRESS_MAX]; /* HOST:PORT, with "[...]" around an IPv6 address */
};

/* ERR_INVALID with a sentence in d; *ret is untouched then. `line` may hold any bytes. */
int link_line_parse(struct slice line, struct link_command *ret, struct err_detail *d) MUST_CHECK;
/* "HOST:PORT", "[HOST]:PORT": the parts, without brackets. ERR_INVALID as above. */
int link_address_split(const char *address,
                       char ret_host[LINK_ADDRESS_MAX],
                       uint16_t *ret_port,
                       struct err_detail *d) MUST_CHECK;
extern const char link_line_help[]; /* what may be said, for people */

#endif
