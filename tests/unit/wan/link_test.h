/* What the tests of links share: sites, pairing, questions. */
#ifndef TESTS_UNIT_WAN_LINK_TEST_H
#define TESTS_UNIT_WAN_LINK_TEST_H

#include <jansson.h>

#include "tests/unit/wan/fake_node.h"
#include "tests/unit/wan/wan_test.h"

static inline struct node *site_new(const char *name, site_id_t site, bool listens)
{
    struct fake_options o = {.name = name, .site = site, .wan = listens ? "127.0.0.1:0" : NULL};
    return fake_new(&o);
}

/* Others reach it by the proxy, whatever port it listens on. */
static inline struct node *site_behind(struct proxy *p, const char *name, site_id_t site)
{
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", proxy_port(p));
    struct fake_options o = {
        .name = name, .site = site, .wan = "127.0.0.1:0", .advertise = address};
    struct node *n = fake_new(&o);
    proxy_aim(p, fake_port(n));
    return n;
}

/* A token of a site; mem_free. */
static inline char *token_new(struct node *n, const char *json)
{
    char *text;
    int rc = fake_admin(n, "peer.invite", json, &text);
    if (rc != 0)
        fail_msg("peer.invite: %s", text);
    json_t *o = json_loads(text, 0, NULL);
    char *token = mem_strdup(json_string_value(json_object_get(o, "token")));
    json_decref(o);
    mem_free(text);
    return token;
}

static inline int token_accept(struct node *n, const char *token, char **ret_text)
{
    char *json = mem_printf("{\"token\":\"%s\"}", token);
    int rc = fake_admin(n, "peer.accept", json, ret_text);
    mem_free(json);
    return rc;
}

static inline void pair_sites(struct node *inviter, struct node *joiner)
{
    char *token = token_new(inviter, "{}"), *text;
    int rc = token_accept(joiner, token, &text);
    if (rc != 0)
        fail_msg("peer.accept: %s", text);
    mem_free(text);
    mem_free(token);
}

/* A field of one peer in the status. New reference. */
static inline json_t *peer_field(struct node *n, const char *peer, const char *field)
{
    char *text;
    assert_int_equal(fake_admin(n, "wan.status", "{}", &text), 0);
    json_t *o = json_loads(text, 0, NULL), *list = json_object_get(o, "peers"), *found = NULL;
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *at = json_array_get(list, i);
        if (strcmp(json_string_value(json_object_get(at, "name")), peer) != 0)
            continue;
        json_decref(found); /* of another id of that name */
        found = json_incref(json_object_get(at, field));
    }
    json_decref(o);
    mem_free(text);
    return found;
}

struct state_wish {
    struct node *n;
    const char *peer, *state;
};
static inline bool has_state(void *ctx)
{
    const struct state_wish *w = ctx;
    json_t *state = peer_field(w->n, w->peer, "state");
    bool same = state != NULL && strcmp(json_string_value(state), w->state) == 0;
    json_decref(state);
    return same;
}
static inline void wait_state(struct node *n, const char *peer, const char *state)
{
    struct state_wish w = {n, peer, state};
    wait_until(has_state, &w, state);
}

static inline bool knows_removal(void *ctx)
{
    struct state_wish heard = {ctx, "alpha", "refused"}, told = {ctx, "alpha", "removed_there"};
    return has_state(&heard) || has_state(&told);
}

struct same_wish {
    struct node *a, *b;
};
static inline bool is_same(void *ctx)
{
    const struct same_wish *w = ctx;
    if (fake_broken(w->a) != NULL || fake_broken(w->b) != NULL)
        fail_msg("%s", fake_broken(w->a) != NULL ? fake_broken(w->a) : fake_broken(w->b));
    return fake_same(w->a, w->b);
}
static inline void wait_same(struct node *a, struct node *b)
{
    struct same_wish w = {a, b};
    wait_until(is_same, &w, "the same operations on both sides");
}

/* alpha, and beta, which it has let in. */
static inline void two_sites(struct node **a, struct node **b, bool b_listens)
{
    *a = site_new("alpha", 11, true);
    *b = site_new("beta", 22, b_listens);
    pair_sites(*a, *b);
    wait_same(*a, *b);
}

static inline void wait_connected(struct node *a, struct node *b)
{
    wait_state(a, "beta", "connected");
    wait_state(b, "alpha", "connected");
}

#endif
