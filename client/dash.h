/* The dashboard of a node: one page, its events, JSON and Prometheus metrics over HTTP, read-only.
 *
 * Data flow: a timer on the node's loop asks the node and wan/ for their status as the command line
 * does, adds rates and the time left, remembers the numbers (dash_history.h), and publishes the
 * JSON text; the thread of libmicrohttpd serves that text and wakes the event streams. So viewers
 * cost the loop nothing, however many there are. The history is written to DIR/http.history.
 *
 * Order of life: node_open, wan_start, dash_start, node_run, dash_stop, wan_stop,
 * node_close, wan_free, node_free, dash_free. */
#ifndef CLIENT_DASH_H
#define CLIENT_DASH_H

#include "site/node.h"

struct dash;

/* Where settings.http says: HOST:PORT; "off"; empty: 127.0.0.1:7480, or any free port there when
 * that one is taken. Says where in the log and in DIR/http.address. *ret is NULL when it is off.
 * ERR_CONFIG, ERR_BUSY, ...: d has the sentence. */
int dash_start(struct dash **ret, struct node *n, struct err_detail *d) MUST_CHECK;
/* After node_run: connections end. Accepts NULL. */
void dash_stop(struct dash *d);
void dash_free(struct dash *d); /* accepts NULL */

#define DASH_TOKEN_FILE "http.token"     /* in the site's directory */
#define DASH_ADDRESS_FILE "http.address" /* URL, one line */

#endif
