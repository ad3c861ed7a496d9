/* Routes and access of the dashboard. */
#include "client/dash_route.h"

#include <string.h>
#include <strings.h>

#include <sodium.h>

enum dash_route dash_route_of(const char *method, const char *path)
{
    static const struct {
        const char *path;
        enum dash_route route;
    } routes[] = {{"/", DASH_PAGE},
                  {"/events", DASH_EVENTS},
                  {"/api/status", DASH_STATUS},
                  {"/api/history", DASH_HISTORY},
                  {"/metrics", DASH_METRICS},
                  {"/healthz", DASH_HEALTH}};
    for (size_t i = 0; i < ARRAY_COUNT(routes); i++)
        if (strcmp(path, routes[i].path) == 0)
            return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 ? routes[i].route
                                                                             : DASH_BAD_METHOD;
    return DASH_NOT_FOUND;
}

static bool token_is(const char *token, struct slice given)
{
    return given.len == DASH_TOKEN_LEN && sodium_memcmp(token, given.ptr, DASH_TOKEN_LEN) == 0;
}

bool dash_cookie(const char *header, const char *name, struct slice *ret)
{
    size_t len = strlen(name);
    while (header != NULL && *header != '\0') {
        header += strspn(header, " ;");
        size_t part = strcspn(header, ";");
        if (part > len && strncmp(header, name, len) == 0 && header[len] == '=') {
            *ret = slice_of(header + len + 1, part - len - 1);
            return true;
        }
        header += part;
    }
    return false;
}

bool dash_is_loopback(const char *address)
{
    const char *end = strrchr(address, ':');
    size_t len = address[0] == '[' ? strcspn(address, "]") + 1
                 : end != NULL     ? (size_t)(end - address)
                                   : strlen(address);
    if (len == 9 && strncasecmp(address, "localhost", len) == 0)
        return true;
    if (len == 5 && strncmp(address, "[::1]", len) == 0)
        return true;
    /* 127.0.0.0/8, digits and dots only: 127.evil.example is not it. */
    return len > 4 && strncmp(address, "127.", 4) == 0 && strspn(address, "0123456789.") >= len &&
           address[len - 1] != '.';
}

enum dash_access dash_access_of(const char *token, const struct dash_credentials *c)
{
    static const char bearer[] = "Bearer ";
    struct slice given;
    if (token == NULL)
        return c->host == NULL || dash_is_loopback(c->host) ? DASH_ALLOWED : DASH_HOST_WRONG;
    bool tried = false;
    if (c->authorization != NULL) {
        tried = true;
        if (strncmp(c->authorization, bearer, sizeof bearer - 1) == 0 &&
            token_is(token, slice_str(c->authorization + sizeof bearer - 1)))
            return DASH_ALLOWED;
    }
    if (dash_cookie(c->cookie, DASH_COOKIE, &given)) {
        tried = true;
        if (token_is(token, given))
            return DASH_ALLOWED;
    }
    if (c->query_token != NULL) {
        tried = true;
        if (token_is(token, slice_str(c->query_token)))
            return DASH_ALLOWED_BY_QUERY;
    }
    return tried ? DASH_TOKEN_WRONG : DASH_TOKEN_NEEDED;
}
