/* The shell of `claudefs-sim link`: TCP connections over libuv, delayed, held and broken as the
 * model says. One thread, the loop's. */
#ifndef SIM_LINK_PROXY_H
#define SIM_LINK_PROXY_H

#include <uv.h>

#include "base/buf.h"
#include "sim/link_model.h"

struct link_proxy;

/* Listens on `listen` and forwards to `target`, both HOST:PORT; names are resolved here, which may
 * block. On failure nothing is left. The proxy lives until link_proxy_close and the loop's end. */
int link_proxy_open(uv_loop_t *loop,
                    const char *listen,
                    const char *target,
                    uint64_t seed,
                    struct link_proxy **ret,
                    struct err_detail *d) MUST_CHECK;
/* Breaks all connections and listens no more; memory is gone when the loop has run dry. */
void link_proxy_close(struct link_proxy *p);
/* Where it listens, as HOST:PORT; port 0 has become a real one. Borrowed. */
const char *link_proxy_address(const struct link_proxy *p);

/* One line, without its newline, is carried out; the answer, a line with its newline, is appended:
 * "ok", "error: ...", or JSON. 0 or ERR_INVALID, for who wants to stop at an error. */
int link_proxy_line(struct link_proxy *p, struct slice line, struct buf *answer);

/* --- link_control.c --- */

struct link_control;
/* Serves the lines of people who connect to a Unix socket made at `path`. */
int link_control_open(struct link_proxy *p,
                      uv_loop_t *loop,
                      const char *path,
                      struct link_control **ret,
                      struct err_detail *d) MUST_CHECK;
void link_control_close(struct link_control *c); /* accepts NULL; as link_proxy_close */

#endif
