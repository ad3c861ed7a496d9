/* Decisions of the dashboard's HTTP server: what a request asks for, and whether it may. Pure:
 * every byte may be hostile. Threads: any. */
#ifndef CLIENT_DASH_ROUTE_H
#define CLIENT_DASH_ROUTE_H

#include "base/err.h"
#include "base/util.h"

#define DASH_TOKEN_LEN 64u /* hex digits */
#define DASH_COOKIE "claudefs_token"

enum dash_route {
    DASH_PAGE,    /* / */
    DASH_EVENTS,  /* /events: server-sent events */
    DASH_STATUS,  /* /api/status */
    DASH_HISTORY, /* /api/history?peer=NAME&grain=0..2 */
    DASH_METRICS, /* /metrics */
    DASH_HEALTH,  /* /healthz */
    DASH_NOT_FOUND,
    DASH_BAD_METHOD /* only GET and HEAD: it is read-only */
};
enum dash_route dash_route_of(const char *method, const char *path);

/* What came with a request; NULL: not there. */
struct dash_credentials {
    const char *authorization; /* the header */
    const char *cookie;        /* the header */
    const char *query_token;   /* ?token= */
    const char *host;          /* the header */
};
enum dash_access {
    DASH_ALLOWED,
    DASH_ALLOWED_BY_QUERY, /* the page answers with a cookie and without the token in its address */
    DASH_TOKEN_NEEDED,
    DASH_TOKEN_WRONG,
    DASH_HOST_WRONG /* a loopback server asked under another machine's name: some other page's
                       script (DNS rebinding) */
};
/* token: DASH_TOKEN_LEN hex digits, or NULL when the server listens on loopback and needs none.
 * Compared in constant time. */
enum dash_access dash_access_of(const char *token, const struct dash_credentials *c);
/* The value of one cookie in a Cookie header; false when it is not there. Borrowed. */
bool dash_cookie(const char *header, const char *name, struct slice *ret);
/* HOST:PORT, [V6]:PORT; is the host a loopback address or localhost? */
bool dash_is_loopback(const char *address);

#endif
