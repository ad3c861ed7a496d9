/* A shard that several nodes keep changes its role: follows, leads, leads no more. See
 * shard_peers.h.
 *
 * Normal path: shard_roles_run() after every event of the core. A follower applies what is
 * committed, from its journal, as replay does; when the core lets it serve it has applied all there
 * is and only begins to keep what a leader keeps (marks, waits, the outbox, stored results). A
 * leader settles what is committed. Failure path: a leader that steps down forgets all that, and
 * everything above the store in its state; if that is being written down right now, when it is. */
#include <string.h>

#include "base/codec.h"
#include "base/plant.h"
#include "site/settings.h"
#include "site/shard_int.h"
#include "site/shard_peers.h"

/* ---- what a node keeps beside journal and state ---- */

#define FILE_NAME "replica"

int shard_roles_save(struct shard *s)
{
    struct buf b = {0};
    struct err_detail d = {{0}};
    replica_file_encode(&(struct replica_file){s->role.life, s->role.blank, s->role.copying}, &b);
    int rc = dir_file_write(s->role.dir, FILE_NAME, b.ptr, b.len, &d);
    buf_deinit(&b);
    if (rc != 0)
        shard_fail(s, rc, d.text);
    return rc;
}

static int load(struct shard *s, struct err_detail *d)
{
    uint8_t bytes[REPLICA_FILE_BYTES];
    struct replica_file f;
    struct err_detail absent = {{0}};
    s->role.blank = s->cfg.peers->blank;
    int rc = dir_file_read(s->role.dir, FILE_NAME, bytes, sizeof bytes, &absent);
    if (rc == ERR_NOT_FOUND)
        return 0;
    if (rc != 0 || !replica_file_decode(slice_of(bytes, sizeof bytes), &f)) {
        err_detail_set(d, "shard %u: %s/%s: %s", s->cfg.id, s->role.dir, FILE_NAME,
                       rc == 0 ? "not one of ours" : absent.text);
        return rc != 0 ? rc : ERR_CORRUPT;
    }
    s->role.life = f.life;
    s->role.blank = f.blank;
    s->role.copying = f.copying;
    return 0;
}

/* Before anything is said in this life. Half a copy, or a journal that is shorter than the state
 * knows it: this copy lacks what it once called durable (R8), and is made anew from the others'. */
int shard_roles_open(struct shard *s, const char *dir, struct err_detail *d)
{
    s->role.dir = mem_strdup(dir);
    s->role.undelivered_tail = &s->role.undelivered;
    int rc = load(s, d);
    if (rc != 0)
        return rc;
    if (s->role.copying || state_stored_index(s->state) > log_last(s->log)) {
        s->role.blank = s->role.copying = true;
        if (shard_roles_save(s) == 0)
            rc = shard_copy_wipe(s, d);
        s->role.copying = false;
    }
    s->role.life = MAX(s->role.life, s->cfg.peers->life) + 1;
    if (rc == 0 && (rc = shard_roles_save(s)) != 0)
        err_detail_set(d, "shard %u: %s/%s: %s", s->cfg.id, dir, FILE_NAME, err_text(rc));
    return rc;
}

/* ---- following ---- */

static void apply(struct shard *s)
{
    struct err_detail d = {{0}};
    uint64_t last = PLANTED(113) ? log_durable(s->log) : s->committed;
    if (s->failed || s->role.reopen_due || s->role.copy.running ||
        state_index(s->state) >= s->committed)
        return;
    int rc = shard_replay(s, last, &d);
    if (rc != 0)
        shard_fail(s, rc, d.text);
    else
        shard_checkpoint(s, false);
}

/* ---- leading ---- */

static void serve(struct shard *s)
{
    s->role.serve_due = false;
    ASSERT(state_index(s->state) == s->committed && s->committed == log_last(s->log));
    s->cursor_count = 0;
    int rc = shard_reload(s);
    if (rc != 0) {
        shard_fail(s, rc, "the state cannot be read");
        return;
    }
    shard_results_free(s);
    shard_results_load(s);
    shard_inbox_load(s);
    s->first_seq = shard_next_seq(s);
    s->live = true;
    log_info(LOG_SITE, "shard_leads", "shard=%u epoch=%llu index=%llu", s->cfg.id,
             (unsigned long long)replica_epoch(s->replica), (unsigned long long)s->committed);
    shard_resend(s);
}

/* A result that is stored means that the operation is wherever it belongs: so nobody is answered
 * before that is true of all that was found here. */
static void open_doors(struct shard *s)
{
    s->role.open = true;
    s->cfg.peers->serves(s->cfg.peers->ctx, s->cfg.id);
}

static bool may_open(const struct shard *s)
{
    return s->live && !s->role.open && !s->role.down_due && !s->failed &&
           (shard_inbox_found_is_delivered(s) || PLANTED(117));
}

static void reopen(struct shard *s)
{
    s->role.reopen_due = false;
    state_forget(s->state);
    int rc = shard_reload(s);
    if (rc != 0)
        shard_fail(s, rc, "the state cannot be read");
}

static void proposals_end(struct pending *p)
{
    while (p != NULL) {
        struct pending *next = p->next;
        if (p->committed != NULL)
            p->committed(p->ctx, ERR_NOT_PRIMARY);
        shard_pending_free(p);
        p = next;
    }
}

/* What is committed is answered; the rest may become committed by the next primary, or be cut. */
static void lead_end(struct shard *s)
{
    s->role.down_due = false;
    if (!s->live)
        return;
    shard_settle(s, s->role.down_to);
    s->live = s->role.open = false;
    struct pending *under_way = s->role.undelivered, *dropped = s->pending_head;
    s->role.undelivered = NULL;
    s->role.undelivered_tail = &s->role.undelivered;
    s->pending_head = NULL;
    s->pending_tail = &s->pending_head;
    shard_waits_forget(s);
    shard_results_free(s);
    shard_copy_lend_end(s);
    s->snapshot_cb = NULL;
    memset(s->marks, 0, sizeof s->marks);
    memset(s->mark_sessions, 0, sizeof s->mark_sessions);
    log_info(LOG_SITE, "shard_leads_no_more", "shard=%u epoch=%llu index=%llu", s->cfg.id,
             (unsigned long long)replica_epoch(s->replica), (unsigned long long)s->committed);
    if (s->checkpoint.running)
        s->role.reopen_due = true; /* shard_checkpointed() */
    else if (!s->failed && !PLANTED(114))
        reopen(s);
    s->cfg.peers->leads_no_more(s->cfg.peers->ctx, s->cfg.id);
    proposals_end(under_way);
    proposals_end(dropped);
}

/* Nothing is being written down any more. */
void shard_roles_checkpointed(struct shard *s)
{
    if (s->role.reopen_due && !s->failed)
        reopen(s);
    if (s->cfg.peers != NULL)
        shard_roles_run(s);
}

/* ---- the turn of events ---- */

static bool is_due(const struct shard *s)
{
    bool behind = s->live ? s->pending_head != NULL && s->pending_head->index <= s->committed
                          : !s->failed && !s->role.reopen_due && !s->role.copy.running &&
                                state_index(s->state) < s->committed;
    bool serves = s->role.serve_due && !s->failed && !s->role.reopen_due;
    bool copies = s->role.copy_due != 0 && !s->checkpoint.running && !s->failed;
    return s->role.down_due || behind || serves || copies || may_open(s);
}

void shard_roles_run(struct shard *s)
{
    if (s->role.running || s->role.stepping || s->closing)
        return;
    s->role.running = true;
    while (is_due(s)) {
        if (s->role.down_due)
            lead_end(s);
        if (s->role.copy_due != 0 && !s->checkpoint.running && !s->failed)
            shard_copy_begin(s);
        if (s->live)
            shard_settle(s, s->committed);
        else
            apply(s);
        if (s->role.serve_due && !s->failed && !s->role.reopen_due)
            serve(s);
        if (may_open(s))
            open_doors(s);
    }
    s->role.running = false;
}

void shard_roles_tick(struct shard *s)
{
    if (s->failed)
        return;
    bool blank = replica_blank(s->replica);
    /* The journal has reached the state that was copied: it may be opened again. */
    bool whole = s->role.copying && !s->role.copy.running && s->role.copy_due == 0 &&
                 log_durable(s->log) >= state_stored_index(s->state);
    if (blank != s->role.blank || whole) {
        s->role.blank = blank;
        s->role.copying = s->role.copying && !whole;
        if (shard_roles_save(s) != 0)
            return;
    }
    shard_copy_tick(s);
    if (shard_leads(s))
        shard_inbox_tick(s);
}

bool shard_is_copying(const struct shard *s)
{
    return s->role.copying || s->role.copy.running || s->role.copy_due != 0;
}
