/* Invitations that were given out, and how often strangers may try. A core: the shell keeps the
 * text form in DIR/invites.json. */
#ifndef WAN_INVITE_H
#define WAN_INVITE_H

#include "wan/pair.h"

#define INVITES_MAX 64u
#define INVITE_TTL_DEFAULT_S 3600u
#define INVITE_TTL_MAX_S (366u * 24u * 3600u)
/* How long used and expired ones are remembered, so that the error can say which it is. */
#define INVITE_MEMORY_S (7u * 24u * 3600u)

struct invite {
    struct invite_key key;
    uint64_t expires_s;
    uint64_t used_s; /* 0: not yet */
    /* Who used it: the same site may ask again, when the answer was lost on its way. */
    uint8_t used_by[FINGERPRINT_BYTES];
};
struct invites {
    uint32_t count;
    struct invite at[INVITES_MAX];
};
/* Forgets old ones. ERR_LIMIT: too many that are still good. */
int invites_add(struct invites *v, const struct invite *i, uint64_t now_s) MUST_CHECK;
/* A good one for this joiner. ERR_AUTH: not known here; ERR_STALE: used by somebody else;
 * ERR_TIMEOUT: expired; the sentence in d. */
int invites_find(struct invites *v,
                 const uint8_t id[INVITE_ID_BYTES],
                 const uint8_t joiner[FINGERPRINT_BYTES],
                 uint64_t now_s,
                 struct invite **ret,
                 struct err_detail *d) MUST_CHECK;
char *invites_to_json(const struct invites *v); /* mem_free */
int invites_from_json(struct slice s, struct invites *ret, struct err_detail *d) MUST_CHECK;

/* At most ATTEMPTS_MAX failed attempts a minute from one address, and ten times as many from all.
 */
#define ATTEMPTS_MAX 10u
#define ATTEMPT_SOURCES_MAX 64u
struct attempts {
    uint64_t window_ns; /* mono: begin of the minute counted */
    uint32_t total, count;
    struct {
        uint64_t source; /* a hash of the address */
        uint32_t failures;
    } at[ATTEMPT_SOURCES_MAX];
};
bool attempts_allow(struct attempts *a, uint64_t source, uint64_t now_ns);
void attempts_fail(struct attempts *a, uint64_t source, uint64_t now_ns);

#endif
