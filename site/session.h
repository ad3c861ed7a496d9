/* Sessions: the mounts of a site. Which of them has which object open, which of them may have what
 * in its caches, which invalidations they have not acknowledged yet, and which of them keeps
 * attributes of a new file back. A core: no I/O; time
 * is passed in (monotonic ns, never back); same calls, same results in the same order.
 *
 * Interest: a session that was told about an object (looked it up, listed or read the directory)
 * has interest in it until it forgets it. An invalidation goes to all sessions with interest in its
 * oid; for a name that is the directory. A session with more interests than its bound has interest
 * in everything from then on.
 *
 * Invalidations: session_invalidate() makes one push per session concerned. A push stays until it
 * is acknowledged or the session is removed; when all pushes of a call are gone, its ticket
 * completes. A session expires when it had no connection for the timeout, when its oldest push was
 * not acknowledged for the timeout, or when it has too many pushes. Expiring is only told: the
 * caller ends what it has to end and calls session_remove().
 *
 * Holds: a session that made a file may hold it while it has it open: others wait until the hold
 * ends, which they hasten with a recall, a push like the others. Its acknowledgement ends the hold.
 *
 * Threads: any one at a time. */
#ifndef SITE_SESSION_H
#define SITE_SESSION_H

#include "site/proto.h"

struct session_table;
struct session_config {
    uint64_t timeout_ns;
    uint32_t interest_max; /* per session; 0: LIMIT_SESSION_INTERESTS */
};
struct session_events {
    /* Runs inside session_invalidate(), session_recall() and session_resend(); must not call the
     * table. `type`: PUSH_INVALIDATE, PUSH_RECALL. The list is borrowed. */
    void (*push)(void *ctx,
                 uint64_t session,
                 uint16_t type,
                 uint64_t push_id,
                 const struct fs_inval *invals,
                 uint32_t inval_count);
    /* A ticket is complete. At the end of the call that did it; may call the table again. */
    void (*completed)(void *ctx, void *ticket);
    /* An object is no longer open at any session: an unlinked one can go. At the end of
     * session_closed() or session_remove(); may call the table again. */
    void (*last_closed)(void *ctx, struct oid oid);
    /* A hold has ended that was recalled. At the end of the call that did it; may call the table
     * again. */
    void (*unheld)(void *ctx, struct oid oid);
    void *ctx;
};

struct session_table *session_table_new(const struct session_config *config,
                                        const struct session_events *events);
void session_table_free(struct session_table *t); /* accepts NULL; no events any more */

/* id is not 0 and drawn by the caller. A new session has no connection. ERR_EXISTS, ERR_LIMIT
 * (LIMIT_SESSIONS). */
int session_new(struct session_table *t, uint64_t id, uint64_t now_ns) MUST_CHECK;
bool session_exists(const struct session_table *t, uint64_t id);
/* Everything of it goes: opens, interests, pushes (their tickets may complete). ERR_NOT_FOUND. */
int session_remove(struct session_table *t, uint64_t id);
/* Of its connections, of any kind; the timeout runs while there is none. Unknown ids: no effect. */
void session_connected(struct session_table *t, uint64_t id);
void session_disconnected(struct session_table *t, uint64_t id, uint64_t now_ns);
/* The next one that has expired by now, oldest session first; 0: none. */
uint64_t session_expired(const struct session_table *t, uint64_t now_ns);
/* When to look again; UINT64_MAX: nothing can expire. */
uint64_t session_deadline_ns(const struct session_table *t);
void session_set_user(struct session_table *t, uint64_t id, void *user);
void *session_user(const struct session_table *t, uint64_t id); /* NULL when unknown */

/* Opens are counted per session and object. session_closed: ERR_NOT_FOUND when it was not open
 * there (an old or repeated request); nothing changed then. */
int session_opened(struct session_table *t, uint64_t id, struct oid oid) MUST_CHECK;
int session_closed(struct session_table *t, uint64_t id, struct oid oid);
bool session_has_open(const struct session_table *t, uint64_t id, struct oid oid);
bool session_object_open(const struct session_table *t, struct oid oid); /* at any session */

/* The session holds the object from now on, which it has open; nobody else may. */
void session_hold(struct session_table *t, uint64_t id, struct oid oid);
uint64_t session_holder(const struct session_table *t, struct oid oid);      /* 0: nobody */
void session_hold_end(struct session_table *t, uint64_t id, struct oid oid); /* if it has one */
/* Tells the holder that somebody waits, once; unheld() follows, never from inside. */
void session_recall(struct session_table *t, struct oid oid, uint64_t now_ns);

void session_interest(struct session_table *t, uint64_t id, struct oid oid);
void session_forget(struct session_table *t, uint64_t id, struct oid oid);
bool session_has_interest(const struct session_table *t, uint64_t id, struct oid oid);

/* Tells all sessions concerned but `except` (0: none excepted); each gets the entries that concern
 * it, in order. Returns true when somebody has to acknowledge: completed(ticket) follows, never
 * from inside; false: nobody, the ticket is not used. */
bool session_invalidate(struct session_table *t,
                        uint64_t except,
                        const struct fs_inval *invals,
                        uint32_t inval_count,
                        uint64_t now_ns,
                        void *ticket) MUST_CHECK;
/* ERR_NOT_FOUND: not waiting for that (repeated, or the session is gone). */
int session_acked(struct session_table *t, uint64_t id, uint64_t push_id);
/* Every push that is not acknowledged, once more, in order: after the push connection came back. */
void session_resend(struct session_table *t, uint64_t id);

struct session_info {
    uint64_t id;
    uint32_t connections;
    uint32_t opens; /* all opens of all objects */
    uint32_t interests;
    bool everything; /* went beyond its bound */
    uint32_t pushes; /* not acknowledged */
    uint64_t created_ns;
    void *user;
};
void session_each(const struct session_table *t,
                  void (*fn)(void *ctx, const struct session_info *info),
                  void *ctx); /* oldest first; fn must not change the table */
uint32_t session_count(const struct session_table *t);
void session_table_validate(const struct session_table *t); /* asserts the invariants; for tests */

#endif
