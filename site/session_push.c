/* Invalidations on their way to the sessions: kept until acknowledged, and what waits for that
 * (S13). */
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "site/session_int.h"

static void completed_add(struct session_table *t, void *user)
{
    if (t->completed_count == t->completed_cap) {
        t->completed_cap = MAX(8u, 2 * t->completed_cap);
        t->completed = mem_realloc(t->completed, t->completed_cap * sizeof t->completed[0]);
    }
    t->completed[t->completed_count++] = user;
}

static void recall_answered(struct session_table *t, const struct session *s, struct oid oid)
{
    const struct session_object *o = session_object_find(t, oid);
    for (struct session_link *l = o == NULL ? NULL : o->links; l != NULL; l = l->next_of_object)
        if (l->session == s && l->holds)
            session_link_hold_end(t, l);
}

/* Takes a push off the front of `at`. */
static void push_drop(struct session_table *t, struct session *s, struct session_push **at)
{
    struct session_push *p = *at;
    *at = p->next;
    if (s->pushes_last == &p->next)
        s->pushes_last = at;
    s->push_count--;
    if (p->type == PUSH_RECALL) /* whoever holds it has nothing more to say */
        recall_answered(t, s, p->invals[0].oid);
    if (--p->ticket->pending == 0) {
        if (p->type == PUSH_INVALIDATE)
            completed_add(t, p->ticket->user);
        mem_free(p->ticket);
        t->ticket_count--;
    }
    mem_free(p);
}

void session_pushes_drop(struct session_table *t, struct session *s)
{
    while (s->pushes != NULL)
        push_drop(t, s, &s->pushes);
}

/* --- making pushes --- */

/* What is to be told, and what is known of each object: looked for once, not for each session. */
struct telling {
    const struct fs_inval *invals;
    const struct session_object **objects; /* NULL: nobody has it */
    uint32_t count;
};

static bool concerns(const struct session *s, const struct session_object *o)
{
    if (s->everything)
        return true;
    for (const struct session_link *l = o == NULL ? NULL : o->links; l != NULL;
         l = l->next_of_object)
        if (l->session == s)
            return l->interest;
    return false;
}

/* A copy of what concerns the session; NULL when nothing does. */
static struct session_push *push_make(const struct session *s, const struct telling *what)
{
    uint32_t count = 0;
    size_t name_bytes = 0;
    for (uint32_t i = 0; i < what->count; i++) {
        if (concerns(s, what->objects[i])) {
            count++;
            name_bytes += what->invals[i].name.len;
        }
    }
    if (count == 0)
        return NULL;
    struct session_push *p = mem_calloc(1, sizeof *p + count * sizeof p->invals[0] + name_bytes);
    uint8_t *names = (uint8_t *)&p->invals[count];
    for (uint32_t i = 0; i < what->count; i++) {
        if (!concerns(s, what->objects[i]))
            continue;
        struct fs_inval *copy = &p->invals[p->inval_count++];
        *copy = what->invals[i];
        if (copy->name.len > 0)
            memcpy(names, copy->name.ptr, copy->name.len);
        copy->name.ptr = copy->name.len > 0 ? names : NULL;
        names += copy->name.len;
    }
    return p;
}

static void
push_send(const struct session_table *t, const struct session *s, const struct session_push *p)
{
    t->events.push(t->events.ctx, s->id, p->type, p->id, p->invals, p->inval_count);
}

static void push_add(struct session_table *t,
                     struct session *s,
                     struct session_push *p,
                     struct session_ticket *ticket,
                     uint64_t now_ns)
{
    p->id = ++s->push_id;
    p->sent_ns = now_ns;
    p->ticket = ticket;
    ticket->pending++;
    *s->pushes_last = p;
    s->pushes_last = &p->next;
    s->push_count++;
    push_send(t, s, p);
}

void session_recall_push(struct session_table *t,
                         struct session *s,
                         struct oid oid,
                         uint64_t now_ns)
{
    struct session_push *p = mem_calloc(1, sizeof *p + sizeof p->invals[0]);
    struct session_ticket *ticket = mem_calloc(1, sizeof *ticket); /* of nobody */
    p->type = PUSH_RECALL;
    p->inval_count = 1;
    p->invals[0].oid = oid;
    t->ticket_count++;
    push_add(t, s, p, ticket, now_ns);
}

/* Does any session but `except` care? Most invalidations concern nobody else: then nothing is
 * copied and no session is looked at. */
static bool anybody(const struct session_table *t, uint64_t except, const struct telling *what)
{
    for (const struct session *s = t->first; s != NULL; s = s->next)
        if (s->everything && s->id != except)
            return true;
    for (uint32_t i = 0; i < what->count; i++) {
        const struct session_object *o = what->objects[i];
        for (const struct session_link *l = o == NULL ? NULL : o->links; l != NULL;
             l = l->next_of_object)
            if (l->interest && l->session->id != except)
                return true;
    }
    return false;
}

static bool tell(struct session_table *t,
                 uint64_t except,
                 const struct telling *what,
                 uint64_t now_ns,
                 void *ticket)
{
    if (!anybody(t, except, what))
        return false;
    struct session_ticket *made = mem_calloc(1, sizeof *made);
    made->user = ticket;
    for (struct session *s = t->first; s != NULL; s = s->next) {
        struct session_push *p = s->id == except ? NULL : push_make(s, what);
        if (p == NULL)
            continue;
        p->type = PUSH_INVALIDATE;
        push_add(t, s, p, made, now_ns);
    }
    ASSERT(made->pending > 0);
    t->ticket_count++;
    return true;
}

bool session_invalidate(struct session_table *t,
                        uint64_t except,
                        const struct fs_inval *invals,
                        uint32_t inval_count,
                        uint64_t now_ns,
                        void *ticket)
{
    const struct session_object *few[16];
    struct telling what = {.invals = invals, .objects = few, .count = inval_count};
    ASSERT(inval_count <= FS_ENTRIES_MAX);
    if (inval_count > sizeof few / sizeof few[0])
        what.objects = mem_alloc(inval_count * sizeof what.objects[0]);
    for (uint32_t i = 0; i < inval_count; i++)
        what.objects[i] = session_object_find(t, invals[i].oid);
    bool told = tell(t, except, &what, now_ns, ticket);
    if (what.objects != few)
        mem_free(what.objects);
    return told;
}

/* --- what becomes of them --- */

int session_acked(struct session_table *t, uint64_t id, uint64_t push_id)
{
    struct session *s = session_find(t, id);
    if (s == NULL)
        return ERR_NOT_FOUND;
    for (struct session_push **at = &s->pushes; *at != NULL; at = &(*at)->next) {
        if ((*at)->id == push_id) {
            push_drop(t, s, at);
            session_events_run(t);
            return 0;
        }
    }
    return ERR_NOT_FOUND;
}

void session_resend(struct session_table *t, uint64_t id)
{
    const struct session *s = session_find(t, id);
    for (const struct session_push *p = s == NULL ? NULL : s->pushes; p != NULL; p = p->next)
        push_send(t, s, p);
}
