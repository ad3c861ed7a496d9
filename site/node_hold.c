/* New files of which a mount keeps attributes back until it commits them (site/session.h, holds):
 * requests of other mounts that need such a file recall it, wait, and are evaluated again when the
 * hold has ended. What ends it has been applied by then, so they see it. */
#include "site/node_int.h"

void node_hold(struct call *c, struct oid oid)
{
    session_hold(c->n->sessions, c->req.session, oid);
}

void node_hold_end(struct call *c, struct oid oid)
{
    session_hold_end(c->n->sessions, c->req.session, oid);
}

bool node_held_elsewhere(const struct call *c, struct oid oid)
{
    /* What the node asks for itself is no user's question. */
    uint64_t holder = c->req.session == 0 ? 0 : session_holder(c->n->sessions, oid);
    return holder != 0 && holder != c->req.session;
}

int call_await_holder(struct call *c, struct oid oid)
{
    struct node *n = c->n;
    if (!node_held_elsewhere(c, oid))
        return 0;
    struct call **last = &n->held_waits;
    while (*last != NULL)
        last = &(*last)->next;
    *last = c;
    c->next = NULL;
    c->awaited = oid;
    session_recall(n->sessions, oid, loop_now_ns(n->loop));
    return CALL_PARKED;
}

void node_unheld(void *ctx, struct oid oid)
{
    struct node *n = ctx;
    for (struct call **at = &n->held_waits; *at != NULL;) {
        struct call *c = *at;
        if (!oid_equal(c->awaited, oid)) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        node_run_later(n, c);
    }
}
