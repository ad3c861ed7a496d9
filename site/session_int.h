/* Private to session.c and session_push.c. */
#ifndef SITE_SESSION_INT_H
#define SITE_SESSION_INT_H

#include <string.h>

#include "base/assert.h"
#include "base/id.h"
#include "base/util.h"

/* Of a session's id or an oid, which is looked for at every change. Counters are big endian, so
 * what differs is at the upper end first. */
static inline unsigned session_hash(const void *key, size_t len)
{
    uint64_t h, more = 0;
    DCHECK(len == sizeof h || len == sizeof(struct oid));
    memcpy(&h, key, sizeof h);
    if (len > sizeof h)
        memcpy(&more, (const uint8_t *)key + sizeof h, sizeof more);
    h ^= more;
    h = (h ^ h >> 32) * UINT64_C(0xff51afd7ed558ccd);
    h = (h ^ h >> 29) * UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned)(h >> 32);
}

/* uthash walks a table in the order of insertion, so results do not depend on hashes. */
#define uthash_malloc(len) mem_alloc(len)
#define uthash_free(ptr, len) mem_free(ptr)
/* Keys are ids that are drawn at random or counted by the sites, none by a user. */
#define HASH_FUNCTION(key, len, hashv) ((hashv) = session_hash(key, len))
#include <uthash.h>

#include "site/session.h"

struct session;

/* What one session has to do with one object; gone when neither open nor interesting. */
struct session_link {
    struct session *session;
    struct session_object *object;
    struct session_link *next_of_object;                    /* oldest first */
    struct session_link *prev_of_session, *next_of_session; /* oldest first */
    uint32_t opens;
    bool interest;
    bool holds, recalled; /* the second only with the first */
};
struct session_object {
    struct oid oid;
    struct session_link *links;
    uint32_t opens; /* of all sessions */
    UT_hash_handle hh;
};

struct session_ticket {
    void *user;
    uint32_t pending; /* pushes */
};
struct session_push {
    struct session_push *next;
    uint64_t id;
    uint64_t sent_ns;
    uint16_t type;
    struct session_ticket *ticket;
    uint32_t inval_count;
    struct fs_inval invals[]; /* the names lie behind them */
};

struct session {
    uint64_t id;
    struct session *prev, *next; /* oldest first */
    void *user;
    uint64_t created_ns;
    uint32_t connections;
    uint64_t lost_ns; /* while connections == 0: since when */
    uint32_t opens, interests;
    bool everything;
    struct session_link *links, *links_last;
    struct session_push *pushes, **pushes_last; /* oldest first, ids rising */
    uint32_t push_count;
    uint64_t push_id; /* of the latest */
    UT_hash_handle hh;
};

struct session_table {
    struct session_config config;
    struct session_events events;
    struct session *by_id;        /* uthash */
    struct session *first, *last; /* oldest first */
    uint32_t count;
    struct session_object *objects; /* uthash */
    /* Told at the end of a call, when the table is consistent. */
    void **completed;
    uint32_t completed_count, completed_cap;
    struct oid *last_closed;
    uint32_t last_closed_count, last_closed_cap;
    struct oid *unheld;
    uint32_t unheld_count, unheld_cap;
    uint32_t ticket_count; /* not complete */
};

struct session *session_find(const struct session_table *t, uint64_t id);
struct session_object *session_object_find(const struct session_table *t, struct oid oid);
void session_events_run(struct session_table *t);
void session_pushes_drop(struct session_table *t, struct session *s);
void session_recall_push(struct session_table *t,
                         struct session *s,
                         struct oid oid,
                         uint64_t now_ns);
void session_link_hold_end(struct session_table *t, struct session_link *l);

#endif
