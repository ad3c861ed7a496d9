/* A program of before the paths that say more: `/v1/stream` and `/v1/snapshot` are what it asks
 * for, and all that it knows. And one that asks for what nobody does. It stands between wan/ and
 * HTTP/2: the linker leads h2_request, h2_accept and h2_dial here. */
#include <string.h>

#include "tests/unit/wan/fake_node_int.h"
#include "tests/unit/wan/wan_test.h"
#include "wan/wan_h2_int.h"
#include "wan/wan_int.h"

struct h2_stream *__real_h2_request(struct h2_conn *c,
                                    const char *method,
                                    const char *path,
                                    const struct h2_stream_events *events,
                                    void *user);
struct h2_stream *__wrap_h2_request(struct h2_conn *c,
                                    const char *method,
                                    const char *path,
                                    const struct h2_stream_events *events,
                                    void *user);
struct h2_conn *__real_h2_accept(struct h2_net *net,
                                 uv_stream_t *listener,
                                 const struct h2_conn_events *events,
                                 void *user);
struct h2_conn *__wrap_h2_accept(struct h2_net *net,
                                 uv_stream_t *listener,
                                 const struct h2_conn_events *events,
                                 void *user);
struct h2_conn *__real_h2_dial(struct h2_net *net,
                               const char *address,
                               enum h2_purpose purpose,
                               const uint8_t *expected,
                               const struct h2_conn_events *events,
                               void *user);
struct h2_conn *__wrap_h2_dial(struct h2_net *net,
                               const char *address,
                               enum h2_purpose purpose,
                               const uint8_t *expected,
                               const struct h2_conn_events *events,
                               void *user);

void fake_older(struct node *n, unsigned what)
{
    __atomic_store_n(&n->older, what, __ATOMIC_RELAXED);
}

unsigned fake_asked_new(struct node *n)
{
    return __atomic_load_n(&n->asked_new, __ATOMIC_RELAXED);
}

unsigned fake_asked_return(struct node *n)
{
    return __atomic_load_n(&n->asked_return, __ATOMIC_RELAXED);
}

static struct node *node_of(struct h2_net *net)
{
    return CONTAINER_OF(net, struct wan, net)->node;
}

unsigned fake_asked_again(struct node *n)
{
    return __atomic_load_n(&n->asked_again, __ATOMIC_RELAXED);
}

static bool is_older(struct h2_conn *c, enum fake_older what)
{
    return (__atomic_load_n(&node_of(c->net)->older, __ATOMIC_RELAXED) & what) != 0;
}

/* What an older program has instead of a path, or NULL: it has the same. */
static const char *older_path(const char *path)
{
    if (strncmp(path, "/v1/stream/", 11) == 0)
        return "/v1/stream";
    return strcmp(path, "/v1/snapshot/past") == 0 ? "/v1/snapshot" : NULL;
}

struct h2_stream *__wrap_h2_request(struct h2_conn *c,
                                    const char *method,
                                    const char *path,
                                    const struct h2_stream_events *events,
                                    void *user)
{
    const char *older = is_older(c, FAKE_ASKS_RETURN) ? "/v1/return"
                        : is_older(c, FAKE_ASKS_OLD)  ? older_path(path)
                                                      : NULL;
    return __real_h2_request(c, method, older != NULL ? older : path, events, user);
}

static void note_stream(struct node *n, const struct h2_conn *c)
{
    if (n->asked_conn == c && n->asked_conn_ns == c->began_ns)
        __atomic_add_fetch(&n->asked_again, 1, __ATOMIC_RELAXED);
    n->asked_conn = c;
    n->asked_conn_ns = c->began_ns;
}

static void
older_request(struct h2_conn *c, struct h2_stream *s, const char *method, const char *path)
{
    struct node *n = node_of(c->net);
    bool is_new = older_path(path) != NULL;
    if (is_new)
        __atomic_add_fetch(&n->asked_new, 1, __ATOMIC_RELAXED);
    if (strcmp(path, "/v1/return") == 0)
        __atomic_add_fetch(&n->asked_return, 1, __ATOMIC_RELAXED);
    if (strncmp(path, "/v1/stream/", 11) == 0)
        note_stream(n, c);
    if (is_new && is_older(c, FAKE_KNOWS_OLD))
        wan_respond_error(s, 404, ERR_NOT_SUPPORTED, "no such request here");
    else
        n->serve_request(c, s, method, path);
}

/* The same handlers, but for requests. */
static const struct h2_conn_events *
older_events(struct h2_net *net, struct h2_conn_events *at, const struct h2_conn_events *events)
{
    struct node *n = node_of(net);
    n->serve_request = events->request; /* accepted or lent, they are served alike */
    *at = *events;
    at->request = older_request;
    return at;
}

struct h2_conn *__wrap_h2_accept(struct h2_net *net,
                                 uv_stream_t *listener,
                                 const struct h2_conn_events *events,
                                 void *user)
{
    struct node *n = node_of(net);
    return __real_h2_accept(net, listener, older_events(net, &n->accepted_events, events), user);
}

struct h2_conn *__wrap_h2_dial(struct h2_net *net,
                               const char *address,
                               enum h2_purpose purpose,
                               const uint8_t *expected,
                               const struct h2_conn_events *events,
                               void *user)
{
    struct node *n = node_of(net);
    if (purpose == H2_SERVES)
        events = older_events(net, &n->lent_events, events);
    return __real_h2_dial(net, address, purpose, expected, events, user);
}
