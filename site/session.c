/* Sessions, what they hold open and what they may have cached. Pushes are in session_push.c.
 *
 * An object that any session has to do with has a record; a link joins record and session. Events
 * are gathered and run when a call has finished changing the table, since they may call it again.
 */
#include "site/session_int.h"

#include "base/assert.h"
#include "base/limits.h"

/* --- finding --- */

struct session *session_find(const struct session_table *t, uint64_t id)
{
    struct session *s;
    HASH_FIND(hh, t->by_id, &id, sizeof id, s);
    return s;
}

struct session_object *session_object_find(const struct session_table *t, struct oid oid)
{
    struct session_object *o;
    HASH_FIND(hh, t->objects, &oid, sizeof oid, o);
    return o;
}

static struct session_link *link_find(const struct session_object *o, const struct session *s)
{
    for (struct session_link *l = o == NULL ? NULL : o->links; l != NULL; l = l->next_of_object)
        if (l->session == s)
            return l;
    return NULL;
}

static struct session_link *link_get(struct session_table *t, struct session *s, struct oid oid)
{
    struct session_object *o = session_object_find(t, oid);
    if (o == NULL) {
        o = mem_calloc(1, sizeof *o);
        o->oid = oid;
        HASH_ADD(hh, t->objects, oid, sizeof oid, o);
    }
    struct session_link *found = link_find(o, s);
    if (found != NULL)
        return found;
    struct session_link *l = mem_calloc(1, sizeof *l);
    *l = (struct session_link){.session = s, .object = o, .prev_of_session = s->links_last};
    if (s->links_last != NULL)
        s->links_last->next_of_session = l;
    else
        s->links = l;
    s->links_last = l;
    struct session_link **end = &o->links;
    while (*end != NULL)
        end = &(*end)->next_of_object;
    *end = l;
    return l;
}

/* Drops a link that says nothing any more, and a record without links. */
static void link_settle(struct session_table *t, struct session_link *l)
{
    struct session *s = l->session;
    struct session_object *o = l->object;
    if (l->opens > 0 || l->interest)
        return;
    if (l->prev_of_session != NULL)
        l->prev_of_session->next_of_session = l->next_of_session;
    else
        s->links = l->next_of_session;
    if (l->next_of_session != NULL)
        l->next_of_session->prev_of_session = l->prev_of_session;
    else
        s->links_last = l->prev_of_session;
    struct session_link **at = &o->links;
    while (*at != l)
        at = &(*at)->next_of_object;
    *at = l->next_of_object;
    mem_free(l);
    if (o->links == NULL) {
        ASSERT(o->opens == 0);
        HASH_DEL(t->objects, o);
        mem_free(o);
    }
}

/* --- events --- */

void session_events_run(struct session_table *t)
{
    /* They may call the table and so add events: those run in the inner call. */
    void **completed = t->completed;
    struct oid *closed = t->last_closed;
    struct oid *unheld = t->unheld;
    uint32_t completed_count = t->completed_count, closed_count = t->last_closed_count;
    uint32_t unheld_count = t->unheld_count;
    t->completed = NULL;
    t->last_closed = t->unheld = NULL;
    t->completed_count = t->completed_cap = 0;
    t->last_closed_count = t->last_closed_cap = 0;
    t->unheld_count = t->unheld_cap = 0;
    for (uint32_t i = 0; i < completed_count; i++)
        t->events.completed(t->events.ctx, completed[i]);
    for (uint32_t i = 0; i < closed_count; i++)
        t->events.last_closed(t->events.ctx, closed[i]);
    for (uint32_t i = 0; i < unheld_count; i++)
        t->events.unheld(t->events.ctx, unheld[i]);
    mem_free(completed);
    mem_free(closed);
    mem_free(unheld);
}

static void oid_add(struct oid **list, uint32_t *count, uint32_t *cap, struct oid oid)
{
    if (*count == *cap) {
        *cap = MAX(8u, 2 * *cap);
        *list = mem_realloc(*list, *cap * sizeof **list);
    }
    (*list)[(*count)++] = oid;
}

static void last_closed_add(struct session_table *t, struct oid oid)
{
    oid_add(&t->last_closed, &t->last_closed_count, &t->last_closed_cap, oid);
}

void session_link_hold_end(struct session_table *t, struct session_link *l)
{
    if (l->recalled)
        oid_add(&t->unheld, &t->unheld_count, &t->unheld_cap, l->object->oid);
    l->holds = l->recalled = false;
}

/* --- the table --- */

struct session_table *session_table_new(const struct session_config *config,
                                        const struct session_events *events)
{
    ASSERT(config->timeout_ns > 0);
    ASSERT(events->push != NULL && events->completed != NULL && events->last_closed != NULL);
    ASSERT(events->unheld != NULL);
    struct session_table *t = mem_calloc(1, sizeof *t);
    t->config = *config;
    t->events = *events;
    if (t->config.interest_max == 0)
        t->config.interest_max = LIMIT_SESSION_INTERESTS;
    return t;
}

/* All links of a session; its opens end. */
static void links_drop(struct session_table *t, struct session *s)
{
    while (s->links != NULL) {
        struct session_link *l = s->links;
        struct session_object *o = l->object;
        o->opens -= l->opens;
        if (l->opens > 0 && o->opens == 0)
            last_closed_add(t, o->oid);
        session_link_hold_end(t, l);
        l->opens = 0;
        l->interest = false;
        link_settle(t, l);
    }
    s->opens = s->interests = 0;
}

static void session_drop(struct session_table *t, struct session *s)
{
    links_drop(t, s);
    session_pushes_drop(t, s);
    if (s->prev != NULL)
        s->prev->next = s->next;
    else
        t->first = s->next;
    if (s->next != NULL)
        s->next->prev = s->prev;
    else
        t->last = s->prev;
    HASH_DEL(t->by_id, s);
    t->count--;
    mem_free(s);
}

void session_table_free(struct session_table *t)
{
    if (t == NULL)
        return;
    while (t->first != NULL)
        session_drop(t, t->first);
    ASSERT(t->objects == NULL && t->by_id == NULL && t->ticket_count == 0);
    mem_free(t->completed);
    mem_free(t->last_closed);
    mem_free(t->unheld);
    mem_free(t);
}

int session_new(struct session_table *t, uint64_t id, uint64_t now_ns)
{
    ASSERT(id != 0);
    if (session_find(t, id) != NULL)
        return ERR_EXISTS;
    if (t->count >= LIMIT_SESSIONS)
        return ERR_LIMIT;
    struct session *s = mem_calloc(1, sizeof *s);
    s->id = id;
    s->created_ns = s->lost_ns = now_ns;
    s->pushes_last = &s->pushes;
    s->prev = t->last;
    if (t->last != NULL)
        t->last->next = s;
    else
        t->first = s;
    t->last = s;
    HASH_ADD(hh, t->by_id, id, sizeof s->id, s);
    t->count++;
    return 0;
}

bool session_exists(const struct session_table *t, uint64_t id)
{
    return session_find(t, id) != NULL;
}

int session_remove(struct session_table *t, uint64_t id)
{
    struct session *s = session_find(t, id);
    if (s == NULL)
        return ERR_NOT_FOUND;
    session_drop(t, s);
    session_events_run(t);
    return 0;
}

void session_set_user(struct session_table *t, uint64_t id, void *user)
{
    struct session *s = session_find(t, id);
    if (s != NULL)
        s->user = user;
}

void *session_user(const struct session_table *t, uint64_t id)
{
    const struct session *s = session_find(t, id);
    return s == NULL ? NULL : s->user;
}

uint32_t session_count(const struct session_table *t)
{
    return t->count;
}

/* --- expiry --- */

void session_connected(struct session_table *t, uint64_t id)
{
    struct session *s = session_find(t, id);
    if (s != NULL)
        s->connections++;
}

void session_disconnected(struct session_table *t, uint64_t id, uint64_t now_ns)
{
    struct session *s = session_find(t, id);
    if (s == NULL || !DEFEND(s->connections > 0))
        return;
    if (--s->connections == 0)
        s->lost_ns = now_ns;
}

static uint64_t deadline_of(const struct session_table *t, const struct session *s)
{
    if (s->push_count >= LIMIT_SESSION_PUSHES)
        return 0;
    uint64_t since_ns = UINT64_MAX;
    if (s->connections == 0)
        since_ns = s->lost_ns;
    if (s->pushes != NULL)
        since_ns = MIN(since_ns, s->pushes->sent_ns);
    return since_ns > UINT64_MAX - t->config.timeout_ns ? UINT64_MAX
                                                        : since_ns + t->config.timeout_ns;
}

uint64_t session_expired(const struct session_table *t, uint64_t now_ns)
{
    for (const struct session *s = t->first; s != NULL; s = s->next)
        if (deadline_of(t, s) <= now_ns)
            return s->id;
    return 0;
}

uint64_t session_deadline_ns(const struct session_table *t)
{
    uint64_t deadline_ns = UINT64_MAX;
    for (const struct session *s = t->first; s != NULL; s = s->next)
        deadline_ns = MIN(deadline_ns, deadline_of(t, s));
    return deadline_ns;
}

/* --- opens --- */

int session_opened(struct session_table *t, uint64_t id, struct oid oid)
{
    struct session *s = session_find(t, id);
    if (s == NULL)
        return ERR_NOT_FOUND;
    struct session_link *l = link_get(t, s, oid);
    l->opens++;
    l->object->opens++;
    s->opens++;
    return 0;
}

int session_closed(struct session_table *t, uint64_t id, struct oid oid)
{
    const struct session *s = session_find(t, id);
    struct session_object *o = session_object_find(t, oid);
    struct session_link *l = s == NULL ? NULL : link_find(o, s);
    if (l == NULL || l->opens == 0)
        return ERR_NOT_FOUND;
    l->session->opens--;
    if (--l->opens == 0)
        session_link_hold_end(t, l);
    if (--o->opens == 0)
        last_closed_add(t, oid);
    link_settle(t, l);
    session_events_run(t);
    return 0;
}

bool session_has_open(const struct session_table *t, uint64_t id, struct oid oid)
{
    const struct session *s = session_find(t, id);
    const struct session_link *l = s == NULL ? NULL : link_find(session_object_find(t, oid), s);
    return l != NULL && l->opens > 0;
}

bool session_object_open(const struct session_table *t, struct oid oid)
{
    const struct session_object *o = session_object_find(t, oid);
    return o != NULL && o->opens > 0;
}

/* --- holds --- */

static struct session_link *holder_find(const struct session_table *t, struct oid oid)
{
    const struct session_object *o = session_object_find(t, oid);
    for (struct session_link *l = o == NULL ? NULL : o->links; l != NULL; l = l->next_of_object)
        if (l->holds)
            return l;
    return NULL;
}

void session_hold(struct session_table *t, uint64_t id, struct oid oid)
{
    const struct session *s = session_find(t, id);
    struct session_link *l = s == NULL ? NULL : link_find(session_object_find(t, oid), s);
    if (l == NULL || l->opens == 0 || !DEFEND(holder_find(t, oid) == NULL))
        return;
    l->holds = true;
}

uint64_t session_holder(const struct session_table *t, struct oid oid)
{
    const struct session_link *l = holder_find(t, oid);
    return l == NULL ? 0 : l->session->id;
}

void session_hold_end(struct session_table *t, uint64_t id, struct oid oid)
{
    struct session_link *l = holder_find(t, oid);
    if (l == NULL || l->session->id != id)
        return;
    session_link_hold_end(t, l);
    session_events_run(t);
}

void session_recall(struct session_table *t, struct oid oid, uint64_t now_ns)
{
    struct session_link *l = holder_find(t, oid);
    if (l == NULL || l->recalled)
        return;
    l->recalled = true;
    session_recall_push(t, l->session, oid, now_ns);
}

/* --- interest --- */

/* Too many to remember: from now on the session hears of everything. */
static void interests_give_up(struct session_table *t, struct session *s)
{
    s->everything = true;
    for (struct session_link *l = s->links, *next; l != NULL; l = next) {
        next = l->next_of_session;
        l->interest = false;
        link_settle(t, l);
    }
    s->interests = 0;
}

void session_interest(struct session_table *t, uint64_t id, struct oid oid)
{
    struct session *s = session_find(t, id);
    if (s == NULL || s->everything)
        return;
    struct session_link *l = link_get(t, s, oid);
    if (l->interest)
        return;
    l->interest = true;
    if (++s->interests > t->config.interest_max)
        interests_give_up(t, s);
}

void session_forget(struct session_table *t, uint64_t id, struct oid oid)
{
    const struct session *s = session_find(t, id);
    struct session_link *l = s == NULL ? NULL : link_find(session_object_find(t, oid), s);
    if (l == NULL || !l->interest)
        return;
    l->interest = false;
    l->session->interests--;
    link_settle(t, l);
}

bool session_has_interest(const struct session_table *t, uint64_t id, struct oid oid)
{
    const struct session *s = session_find(t, id);
    if (s == NULL)
        return false;
    const struct session_link *l = link_find(session_object_find(t, oid), s);
    return s->everything || (l != NULL && l->interest);
}

/* --- looking at it --- */

void session_each(const struct session_table *t,
                  void (*fn)(void *ctx, const struct session_info *info),
                  void *ctx)
{
    for (const struct session *s = t->first; s != NULL; s = s->next) {
        const struct session_info info = {.id = s->id,
                                          .connections = s->connections,
                                          .opens = s->opens,
                                          .interests = s->interests,
                                          .everything = s->everything,
                                          .pushes = s->push_count,
                                          .created_ns = s->created_ns,
                                          .user = s->user};
        fn(ctx, &info);
    }
}

static void session_validate(const struct session_table *t, const struct session *s)
{
    uint32_t opens = 0, interests = 0, pushes = 0;
    uint64_t push_id = 0;
    const struct session_link *last = NULL;
    for (const struct session_link *l = s->links; l != NULL; l = l->next_of_session) {
        ASSERT(l->session == s && l->prev_of_session == last);
        ASSERT(l->opens > 0 || (l->interest && !l->holds));
        ASSERT(l->holds || !l->recalled);
        ASSERT(link_find(l->object, s) == l);
        opens += l->opens;
        interests += l->interest ? 1 : 0;
        last = l;
    }
    ASSERT(last == s->links_last);
    for (const struct session_push *p = s->pushes; p != NULL; p = p->next) {
        ASSERT(p->id > push_id && p->ticket->pending > 0 && p->inval_count > 0);
        push_id = p->id;
        pushes++;
    }
    ASSERT_EQ(opens, s->opens);
    ASSERT_EQ(interests, s->interests);
    ASSERT_EQ(pushes, s->push_count);
    ASSERT(interests <= t->config.interest_max && (!s->everything || interests == 0));
    ASSERT(push_id <= s->push_id && session_find(t, s->id) == s);
}

void session_table_validate(const struct session_table *t)
{
    uint32_t count = 0;
    for (const struct session *s = t->first; s != NULL; s = s->next) {
        session_validate(t, s);
        count++;
    }
    ASSERT_EQ(count, t->count);
    ASSERT_EQ(count, HASH_COUNT(t->by_id));
    for (const struct session_object *o = t->objects; o != NULL; o = o->hh.next) {
        uint32_t opens = 0, holders = 0;
        ASSERT(o->links != NULL);
        for (const struct session_link *l = o->links; l != NULL; l = l->next_of_object) {
            ASSERT(l->object == o);
            opens += l->opens;
            holders += l->holds ? 1 : 0;
        }
        ASSERT(holders <= 1);
        ASSERT_EQ(opens, o->opens);
    }
}
