/* Retention: what is kept of the journals for members that lack it, and for how long.
 *
 * For each member and shard there is a place: the lowest index with an operation that the member
 * may lack. It follows what the member acknowledges, and passes over what the member has anyhow:
 * records of this site's own business, operations it issued itself, and what its last word says
 * that it has (node_stable.c), so that a member which is reached through others holds nothing back.
 * Below the lowest place of all the journal is not needed (W8).
 *
 * How long that may be so is a setting of the file system, as an age and as a size; retain.h says
 * how the two make the time that is left. When nothing is left a member is given up: it leaves,
 * with a cut (node_leave.c), and nothing more is kept for it. Who is cut off must not do that to
 * all the others, so a site does it only as part of a majority of the members (of halves, the one
 * with the lowest id; who counts: quorum.h) that it has been in contact with for a while; that
 * while is also the time in which it would have heard of a member that others reach. */
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/plant.h"
#include "site/admin_int.h"
#include "site/retain.h"

#define SCAN_BYTES (64u * KIB) /* of a journal, looked at in one turn */
#define CONTACT_NS (10 * NS_PER_SEC)
#define AGE_SETTING "journal_age_s"
#define AGE_DEFAULT_S (30u * 86400u)
#define AGE_MAX_S (100u * 366u * 86400u)
#define BYTES_SETTING "journal_bytes"
#define BYTES_AUTO 0u

/* What is known of a member, since this site was started. */
struct node_retain {
    site_id_t site;
    uint64_t seen_hlc;  /* its last word, when the places were looked for */
    uint64_t heard_ms;  /* wall: the last proof that it lives; 0: none since the start */
    uint64_t began_ms;  /* wall: when this was made */
    uint64_t heard_ns;  /* mono: the same, or when this was made */
    uint64_t oldest_ms; /* wall: commit of the oldest operation it lacks; 0: it lacks none */
    uint64_t bytes;     /* of journals, from its places on; 0 when it lacks nothing */
    uint64_t need[SHARD_COUNT_MAX];       /* its places */
    uint64_t commit_hlc[SHARD_COUNT_MAX]; /* of the operation there; 0: it lacks none, or is not
                                             looked at yet */
};

static struct node_retain *retain_of(struct node *n, site_id_t site)
{
    for (uint32_t i = 0; i < n->retain.count; i++)
        if (n->retain.at[i]->site == site)
            return n->retain.at[i];
    struct node_retain *r = mem_calloc(1, sizeof *r);
    r->site = site;
    r->heard_ns = loop_now_ns(n->loop);
    r->began_ms = clock_wall_ns(n->clock) / NS_PER_MS;
    n->retain.at = mem_realloc(n->retain.at, (n->retain.count + 1) * sizeof n->retain.at[0]);
    n->retain.at[n->retain.count++] = r;
    return r;
}

void node_retain_forget(struct node *n)
{
    for (uint32_t i = 0; i < n->retain.count; i++)
        mem_free(n->retain.at[i]);
    mem_free(n->retain.at);
    n->retain.at = NULL;
    n->retain.count = 0;
}

/* ---- places ---- */

struct lacking {
    const struct node_retain *r;
    uint64_t commit_hlc;
};

static bool lacks(void *ctx, const struct feed_item *item)
{
    struct lacking *l = ctx;
    if (item->dot.site == l->r->site || item->stamp.hlc <= l->r->seen_hlc)
        return true;
    l->commit_hlc = item->commit_hlc;
    return false;
}

static void place_find(struct node *n, struct node_retain *r, unsigned shard)
{
    struct log *log = shard_log(n->shards[shard]);
    uint64_t next = MAX(shard_peer_ack(n->shards[shard], r->site) + 1, log_first(log));
    if (next <= r->need[shard] && r->commit_hlc[shard] != 0)
        return; /* it still lacks that one */
    struct lacking l = {.r = r};
    next = MAX(next, r->need[shard]);
    if (next <= node_feed_last(n, (shard_id_t)shard) &&
        node_feed_read(n, (shard_id_t)shard, next, SCAN_BYTES, lacks, &l, &next) != 0)
        return; /* who serves it says so, or the trim was faster */
    r->need[shard] = next;
    r->commit_hlc[shard] = l.commit_hlc;
}

static void places_find(struct node *n, struct node_retain *r)
{
    uint64_t seen = node_stable_seen(n, r->site), oldest = UINT64_MAX;
    if (seen != r->seen_hlc) /* it may have what it lacked */
        memset(r->commit_hlc, 0, sizeof r->commit_hlc);
    r->seen_hlc = seen;
    r->bytes = 0;
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        place_find(n, r, i);
        if (r->commit_hlc[i] == 0)
            continue;
        oldest = MIN(oldest, r->commit_hlc[i]);
        r->bytes += log_bytes_from(shard_log(n->shards[i]), r->need[i]);
    }
    r->oldest_ms = oldest == UINT64_MAX ? 0 : hlc_ms(oldest);
}

static bool is_kept_for(const struct node *n, const struct member *m)
{
    return m->site != n->settings.site && m->status == MEMBER_IS;
}

void node_retention(struct node *n)
{
    for (uint32_t k = 0; k < n->member_count && !n->needs_snapshot; k++)
        if (is_kept_for(n, &n->members[k].m))
            places_find(n, retain_of(n, n->members[k].m.site));
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        uint64_t keep = n->needs_snapshot ? 1 : UINT64_MAX;
        for (uint32_t k = 0; k < n->member_count && !n->needs_snapshot; k++)
            if (is_kept_for(n, &n->members[k].m) && !PLANTED(21))
                keep = MIN(keep, retain_of(n, n->members[k].m.site)->need[i]);
        shard_keep_from(n->shards[i], keep);
    }
}

uint64_t node_retain_lacked(struct node *n, site_id_t but, shard_id_t shard)
{
    uint64_t lowest = UINT64_MAX;
    for (uint32_t k = 0; k < n->member_count; k++)
        if (is_kept_for(n, &n->members[k].m) && n->members[k].m.site != but)
            lowest = MIN(lowest, retain_of(n, n->members[k].m.site)->need[shard]);
    return lowest;
}

void node_peer_places(struct node *n, site_id_t peer, struct node_place *ret_by_shard)
{
    const struct node_retain *r = retain_of(n, peer);
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        ret_by_shard[i].acked = shard_peer_ack(n->shards[i], peer);
        ret_by_shard[i].need = MAX(ret_by_shard[i].acked + 1, r->need[i]);
    }
}

/* ---- proofs of life ---- */

struct peer_heard {
    struct loop_msg msg;
    struct node *n;
    site_id_t peer;
};

static void peer_heard_run(struct loop_msg *msg)
{
    struct peer_heard *h = CONTAINER_OF(msg, struct peer_heard, msg);
    struct node_retain *r = retain_of(h->n, h->peer);
    r->heard_ns = loop_now_ns(h->n->loop);
    r->heard_ms = clock_wall_ns(h->n->clock) / NS_PER_MS;
    mem_free(h);
}

void node_peer_heard(struct node *n, site_id_t peer)
{
    struct peer_heard *h = mem_calloc(1, sizeof *h);
    h->msg.run = peer_heard_run;
    h->n = n;
    h->peer = peer;
    loop_post(n->loop, &h->msg);
}

/* ---- limits ---- */

static uint64_t kept_bytes(const struct node *n)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        bytes += log_bytes(shard_log(n->shards[i]));
    return bytes;
}

/* By itself the size follows the disk: journals may become as large as what is left beside them. */
static uint64_t bytes_limit(struct node *n)
{
    uint64_t bytes = node_setting(n, BYTES_SETTING, BYTES_AUTO);
    struct store_stats st;
    if (bytes != BYTES_AUTO)
        return bytes;
    store_stats(n->store, &st);
    return (st.free_bytes + kept_bytes(n)) / 2;
}

static void limits_load(struct node *n, struct retain_limits *ret)
{
    uint64_t age_s = node_setting(n, AGE_SETTING, AGE_DEFAULT_S);
    ret->age_ms = age_s > AGE_MAX_S ? RETAIN_NO_LIMIT : age_s * 1000;
    ret->bytes = bytes_limit(n);
}

static void backlog_of(struct node *n, const struct node_retain *r, struct retain_backlog *ret)
{
    uint64_t now_ms = clock_wall_ns(n->clock) / NS_PER_MS;
    uint64_t alive_ms = MAX(r->heard_ms, hlc_ms(node_stable_clock(n, r->site)));
    for (uint32_t i = 0; i < n->member_count; i++)
        if (n->members[i].m.site == r->site) /* who has just come has all the time there is */
            alive_ms = MAX(alive_ms, hlc_ms(n->members[i].entered.hlc));
    ret->age_ms = r->oldest_ms != 0 && now_ms > r->oldest_ms ? now_ms - r->oldest_ms : 0;
    ret->silence_ms = now_ms > alive_ms ? now_ms - alive_ms : 0;
    ret->bytes = r->bytes;
}

static bool in_contact(const struct node *n, const struct node_retain *r)
{
    return r->heard_ms != 0 && loop_now_ns(n->loop) - r->heard_ns < CONTACT_NS;
}

/* ---- giving up ---- */

/* So much silence is none. */
static uint64_t contact_ns(const struct retain_limits *limits)
{
    return MIN(CONTACT_NS, retain_hold_ms(limits) * NS_PER_MS / 2);
}

static bool reaches_most(struct node *n, const struct retain_limits *limits)
{
    struct quorum_member at[SITE_COUNT_MAX];
    uint64_t within_ns = contact_ns(limits);
    uint32_t count = node_quorum(n, at);
    for (uint32_t i = 0; i < count; i++) {
        if (at[i].reached || at[i].leaves)
            continue;
        const struct node_retain *r = retain_of(n, at[i].site);
        at[i].reached = r->heard_ms != 0 && loop_now_ns(n->loop) - r->heard_ns < within_ns;
    }
    return quorum_is_reached(at, count);
}

static void given_up(void *ctx, int rc)
{
    (void)ctx;
    if (rc != 0) /* it is tried again */
        log_warn(LOG_SITE, "not_given_up", "why=\"%s\"", err_text(rc));
}

void node_away_tick(struct node *n)
{
    struct retain_limits limits;
    uint64_t now_ns = loop_now_ns(n->loop);
    if (n->needs_snapshot || n->stopping || n->broken || node_self_leaves(n))
        return;
    limits_load(n, &limits);
    uint64_t hold_ns = retain_hold_ms(&limits) * NS_PER_MS;
    if (!reaches_most(n, &limits))
        n->retain.most_since_ns = now_ns;
    if (now_ns - n->retain.most_since_ns < hold_ns)
        return;
    for (uint32_t i = 0; i < n->member_count; i++) {
        struct retain_backlog b;
        const struct member *m = &n->members[i].m;
        if (!is_kept_for(n, m))
            continue;
        const struct node_retain *r = retain_of(n, m->site);
        backlog_of(n, r, &b);
        if (r->oldest_ms == 0 || now_ns - r->heard_ns < hold_ns || retain_left_ms(&limits, &b) > 0)
            continue;
        node_member_remove(n, m->site, LEAVES_AWAY, given_up, NULL);
        return; /* the list may have changed */
    }
}

/* Does some member see this one only through others? Then its word has to say that it lives. */
bool node_word_is_due(struct node *n, uint64_t own_clock, uint64_t newest_clock)
{
    struct retain_limits limits;
    limits_load(n, &limits);
    uint64_t every_ms = retain_hold_ms(&limits) / 2;
    uint64_t now_ms = clock_wall_ns(n->clock) / NS_PER_MS, own_ms = hlc_ms(own_clock);
    if (now_ms < own_ms + every_ms)
        return false;
    if (hlc_ms(newest_clock) > own_ms + every_ms / 2)
        return true; /* somebody asks for a round: what everybody has is known together */
    for (uint32_t i = 0; i < n->member_count; i++)
        if (is_kept_for(n, &n->members[i].m) &&
            loop_now_ns(n->loop) - retain_of(n, n->members[i].m.site)->heard_ns >=
                contact_ns(&limits))
            return true;
    return false;
}

uint32_t node_backlogs(struct node *n, struct node_backlog ret[SITE_COUNT_MAX])
{
    struct retain_limits limits;
    uint32_t count = 0;
    if (n->needs_snapshot)
        return 0;
    limits_load(n, &limits);
    for (uint32_t i = 0; i < n->member_count; i++) {
        struct retain_backlog b;
        if (!is_kept_for(n, &n->members[i].m))
            continue;
        const struct node_retain *r = retain_of(n, n->members[i].m.site);
        backlog_of(n, r, &b);
        bool runs = r->oldest_ms != 0 && !in_contact(n, r);
        uint64_t left_ms = runs ? retain_left_ms(&limits, &b) : RETAIN_NO_LIMIT;
        ret[count++] = (struct node_backlog){.site = r->site,
                                             .bytes = r->bytes,
                                             .runs_out = left_ms != RETAIN_NO_LIMIT,
                                             .left_ms = left_ms};
    }
    return count;
}

/* ---- the setting ---- */

struct limits_set {
    struct node *n;
    uint64_t bytes;
    bool bytes_too;
    admin_reply_cb cb;
    void *ctx;
};

static json_t *limit_json(uint64_t limit)
{
    return limit == RETAIN_NO_LIMIT ? json_null() : json_integer((json_int_t)limit);
}

static json_t *limits_json(struct node *n)
{
    struct retain_limits l;
    limits_load(n, &l);
    return json_pack("{s:o,s:o,s:b,s:I}", "age_s",
                     limit_json(l.age_ms == RETAIN_NO_LIMIT ? l.age_ms : l.age_ms / 1000),
                     "limit_bytes", limit_json(l.bytes), "limit_from_disk",
                     node_setting(n, BYTES_SETTING, BYTES_AUTO) == BYTES_AUTO, "journal_bytes",
                     (json_int_t)kept_bytes(n));
}

static void limit_done(void *ctx, int rc)
{
    struct limits_set *s = ctx;
    bool more = s->bytes_too;
    s->bytes_too = false;
    if (rc == 0 && more) {
        node_setting_set(s->n, BYTES_SETTING, s->bytes, limit_done, s);
        return;
    }
    if (rc == 0)
        admin_reply_json(s->cb, s->ctx, limits_json(s->n));
    else
        s->cb(s->ctx, rc, err_text(rc));
    mem_free(s);
}

/* A number, "none", or absent; false: something else. */
static bool limit_read(const json_t *in, const char *key, uint64_t max, uint64_t *ret, bool *given)
{
    const json_t *v = json_object_get(in, key);
    const char *word = json_string_value(v);
    *given = v != NULL;
    *ret = RETAIN_NO_LIMIT;
    if (v == NULL || (word != NULL && strcmp(word, "none") == 0))
        return true;
    *ret = (uint64_t)json_integer_value(v);
    return json_is_integer(v) && json_integer_value(v) >= 0 && *ret <= max;
}

void admin_journal_keep(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    uint64_t age_s, bytes;
    bool with_age, with_bytes;
    if (!limit_read(in, "age_s", AGE_MAX_S, &age_s, &with_age) || (with_age && age_s == 0) ||
        !limit_read(in, "bytes", INT64_MAX, &bytes, &with_bytes)) {
        cb(ctx, ERR_INVALID, "age_s: seconds up to 100 years, bytes: a number, or \"none\"");
        return;
    }
    if (!with_age && !with_bytes) {
        admin_reply_json(cb, ctx, limits_json(n));
        return;
    }
    struct limits_set *s = mem_calloc(1, sizeof *s);
    *s = (struct limits_set){
        .n = n, .bytes = bytes, .bytes_too = with_age && with_bytes, .cb = cb, .ctx = ctx};
    if (with_age)
        node_setting_set(n, AGE_SETTING, age_s, limit_done, s);
    else
        node_setting_set(n, BYTES_SETTING, bytes, limit_done, s);
}
