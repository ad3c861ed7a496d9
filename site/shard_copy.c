/* A replica fetches a copy of a shard's state, because what it lacks of the journal is trimmed.
 *
 * Normal path: the follower gives up what it has (its file says so first: half a copy is none),
 * asks for page after page, writes them down as one state at one journal index, and tells the core
 * where its empty journal begins; the records up to that index come through the journal as well,
 * because a peer may need them, and are not applied again. The leader lends what its store holds at
 * one moment (an iterator) to one follower at a time. Failure path: no page for a while, or the
 * leader has no such copy: the follower is left with nothing, tells the core, and is asked to copy
 * again.
 *
 * message  magic "RC" 2 | version 1 | kind 1 | last 1 | zero 3 | id, page, index, first 8 each |
 *          count 4 | count times: key, value, each varint length and bytes      (little endian) */
#include <string.h>

#include "base/codec.h"
#include "base/limits.h"
#include "site/settings.h"
#include "site/shard_int.h"
#include "site/shard_peers.h"

#define MAGIC 0x4352u /* "RC" */
#define VERSION 1u
#define PAGE_BYTES ((size_t)(256u * KIB)) /* unless one pair is larger */
#define ASK_NS (500 * NS_PER_MS)
#define GIVE_UP_NS (10 * NS_PER_SEC)

/* ---- messages ---- */

void shard_copy_encode(struct buf *b, const struct shard_copy_msg *m)
{
    enc_u16(b, MAGIC);
    enc_u8(b, VERSION);
    enc_u8(b, m->kind);
    enc_u8(b, m->last);
    enc_raw(b, "\0\0", 3);
    enc_u64(b, m->id);
    enc_u64(b, m->page);
    enc_u64(b, m->index);
    enc_u64(b, m->first);
    enc_u32(b, m->count);
    enc_raw(b, m->pairs.ptr, m->pairs.len);
}

int shard_copy_decode(struct slice s, struct shard_copy_msg *ret)
{
    struct dec d = dec_of(s);
    struct shard_copy_msg m = {0};
    uint8_t zero[3];
    bool known = dec_u16(&d) == MAGIC && dec_u8(&d) == VERSION;
    m.kind = dec_u8(&d);
    uint8_t last = dec_u8(&d);
    dec_raw(&d, zero, sizeof zero);
    m.last = last == 1;
    m.id = dec_u64(&d);
    m.page = dec_u64(&d);
    m.index = dec_u64(&d);
    m.first = dec_u64(&d);
    m.count = dec_u32(&d);
    if (d.rc != 0)
        return d.rc;
    bool page = m.kind == SHARD_COPY_PAGE;
    if (!known || m.kind == 0 || m.kind >= SHARD_COPY_KIND_END || last > 1 ||
        (zero[0] | zero[1] | zero[2]) != 0 || (!page && (m.count > 0 || m.last)) ||
        (page && (m.first == 0 || m.first - 1 > m.index || m.index == UINT64_MAX)))
        return ERR_MALFORMED;
    m.pairs = slice_of(d.at, dec_left(&d));
    for (uint32_t i = 0; i < m.count && d.rc == 0; i++) {
        struct slice key = dec_bytes(&d, s.len);
        (void)dec_bytes(&d, s.len);
        if (d.rc == 0 &&
            (key.len == 0 || (key.len >= 2 && key.ptr[0] == 0xff && key.ptr[1] == 0xff)))
            return ERR_MALFORMED;
    }
    *ret = m;
    return dec_end(&d);
}

void shard_copy_next(struct slice *at, struct slice *ret_key, struct slice *ret_value)
{
    struct dec d = dec_of(*at);
    *ret_key = dec_bytes(&d, at->len);
    *ret_value = dec_bytes(&d, at->len);
    *at = slice_of(d.at, dec_left(&d));
}

static void send_msg(struct shard *s, uint64_t node, const struct shard_copy_msg *m)
{
    struct buf b = {0};
    shard_copy_encode(&b, m);
    s->cfg.peers->send(s->cfg.peers->ctx, s->cfg.id, node, buf_slice(&b));
    buf_deinit(&b);
}

/* ---- the follower ---- */

/* Nothing is left: an empty state, an empty journal. */
int shard_copy_wipe(struct shard *s, struct err_detail *d)
{
    char *path = mem_printf("%s/state", s->role.dir);
    merge_free(s->merge);
    s->merge = NULL;
    state_free(s->state);
    s->state = NULL;
    int rc = dir_remove(path);
    if (rc != 0)
        err_detail_set(d, "cannot remove %s: %s", path, err_text(rc));
    mem_free(path);
    if (rc == 0)
        rc = shard_state_open(s, s->role.dir, d);
    if (rc == 0 && (rc = log_reset(s->log, 1)) != 0)
        err_detail_set(d, "shard %u: the journal cannot begin anew: %s", s->cfg.id, err_text(rc));
    return rc;
}

static void fetch(struct shard *s)
{
    s->role.copy.asked_ns = clock_mono_ns(s->cfg.clock);
    send_msg(s, s->role.copy.from,
             &(struct shard_copy_msg){
                 .kind = SHARD_COPY_FETCH, .id = s->role.copy.id, .page = s->role.copy.page});
}

void shard_copy_begin(struct shard *s)
{
    struct err_detail d = {{0}};
    s->role.copy.from = s->role.copy_due;
    s->role.copy_due = 0;
    s->role.copying = true;
    s->role.copy.id = ++s->role.life;
    int rc = shard_roles_save(s);
    if (rc != 0)
        return;
    rc = shard_copy_wipe(s, &d);
    if (rc != 0) {
        shard_fail(s, rc, d.text);
        return;
    }
    s->role.copy.running = true;
    s->role.copy.page = 1;
    s->role.copy.heard_ns = clock_mono_ns(s->cfg.clock);
    fetch(s);
}

/* `first`: where the journal begins. */
static void copy_end(struct shard *s, uint64_t first, int rc, const char *what)
{
    s->role.copy.running = false;
    s->committed = first - 1;
    if (rc == 0 && (rc = shard_reload(s)) != 0)
        what = "the state that was copied cannot be read";
    if (rc == 0 && (rc = log_reset(s->log, first)) != 0)
        what = "the journal cannot begin anew";
    if (rc != 0)
        shard_fail(s, rc, what);
    else
        shard_replica_copied(s, first, s->role.copy.id);
}

static void give_up(struct shard *s)
{
    struct err_detail d = {{0}};
    int rc = shard_copy_wipe(s, &d);
    copy_end(s, 1, rc, d.text);
}

static int write_down(struct shard *s, struct err_detail *d)
{
    bool frozen = state_freeze(s->state);
    ASSERT(frozen);
    int rc = state_write_frozen(s->state, d);
    if (rc == 0)
        state_thaw(s->state);
    return rc;
}

static void take_page(struct shard *s, const struct shard_copy_msg *m)
{
    struct err_detail d = {{0}};
    struct slice at = m->pairs, key, value;
    int rc = 0;
    s->role.copy.heard_ns = clock_mono_ns(s->cfg.clock);
    s->role.copy.page++;
    for (uint32_t i = 0; i < m->count; i++) {
        shard_copy_next(&at, &key, &value);
        state_put(s->state, key, value);
    }
    if (m->last)
        state_advance(s->state, m->index);
    if (m->last || state_active_bytes(s->state) > s->cfg.checkpoint_bytes)
        rc = write_down(s, &d);
    if (rc != 0)
        shard_fail(s, rc, d.text);
    else if (m->last)
        copy_end(s, m->first, 0, NULL);
    else
        fetch(s);
}

void shard_copy_tick(struct shard *s)
{
    uint64_t now = clock_mono_ns(s->cfg.clock);
    if (!s->role.copy.running)
        return;
    if (now - s->role.copy.heard_ns > GIVE_UP_NS)
        give_up(s);
    else if (now - s->role.copy.asked_ns > ASK_NS)
        fetch(s);
}

/* ---- the leader ---- */

void shard_copy_lend_end(struct shard *s)
{
    (void)state_iter_free(s->role.lend.it);
    buf_deinit(&s->role.lend.bytes);
    memset(&s->role.lend, 0, sizeof s->role.lend);
}

/* Builds the next page into lend.bytes. An iterator that cannot be read is at its end. */
static int next_page(struct shard *s)
{
    struct shard_copy_msg m = {.kind = SHARD_COPY_PAGE,
                               .id = s->role.lend.id,
                               .page = ++s->role.lend.page,
                               .index = s->role.lend.index,
                               .first = s->role.lend.first};
    struct buf pairs = {0};
    struct slice key, value;
    size_t bytes = MIN(PAGE_BYTES, s->cfg.checkpoint_bytes);
    bool more;
    while ((more = state_iter_at(s->role.lend.it, &key, &value)) && pairs.len < bytes) {
        enc_bytes(&pairs, key);
        enc_bytes(&pairs, value);
        m.count++;
        state_iter_next(s->role.lend.it);
    }
    int rc = 0;
    if (!more) {
        rc = state_iter_free(s->role.lend.it);
        s->role.lend.it = NULL;
        m.last = true;
    }
    m.pairs = buf_slice(&pairs);
    buf_clear(&s->role.lend.bytes);
    shard_copy_encode(&s->role.lend.bytes, &m);
    buf_deinit(&pairs);
    return rc;
}

static void send_page(struct shard *s)
{
    s->role.lend.used_ns = clock_mono_ns(s->cfg.clock);
    s->cfg.peers->send(s->cfg.peers->ctx, s->cfg.id, s->role.lend.node,
                       buf_slice(&s->role.lend.bytes));
}

static void advance(struct shard *s)
{
    int rc = next_page(s);
    if (rc == 0)
        send_page(s);
    else
        shard_fail(s, rc, "the state cannot be read");
}

static void lend_begin(void *ctx, struct shard *s, struct state_iter *it, uint64_t index)
{
    (void)ctx;
    s->role.lend.waits = false;
    s->role.lend.it = it;
    s->role.lend.index = index;
    s->role.lend.first = MAX(log_first(s->log), MIN(index, MAX(s->keep_from, 1)));
    shard_replica_served(s, s->role.lend.node, s->role.lend.first);
    if (s->role.lend.it != NULL) /* it may have stepped down at that */
        advance(s);
}

static void lend(struct shard *s, uint64_t node, const struct shard_copy_msg *m)
{
    uint64_t now = clock_mono_ns(s->cfg.clock);
    bool same = s->role.lend.node == node && s->role.lend.id == m->id;
    bool busy = s->role.lend.node != 0 && now - s->role.lend.used_ns < GIVE_UP_NS;
    if (!shard_leads(s) || (!same && m->page != 1)) {
        send_msg(s, node, &(struct shard_copy_msg){.kind = SHARD_COPY_GONE, .id = m->id});
        return;
    }
    if (!same) {
        bool other = busy && s->role.lend.node != node;
        if (other || !shard_can_freeze(s) || s->snapshot_cb != NULL)
            return; /* it asks again */
        shard_copy_lend_end(s);
        s->role.lend.node = node;
        s->role.lend.id = m->id;
        s->role.lend.used_ns = now;
        s->role.lend.waits = true;
        shard_snapshot(s, lend_begin, NULL);
        return;
    }
    if (s->role.lend.waits)
        return;
    if (m->page == s->role.lend.page)
        send_page(s);
    else if (m->page == s->role.lend.page + 1 && s->role.lend.it != NULL)
        advance(s);
    else
        send_msg(s, node, &(struct shard_copy_msg){.kind = SHARD_COPY_GONE, .id = m->id});
}

int shard_copy_message(struct shard *s, uint64_t node, struct slice bytes)
{
    struct shard_copy_msg m;
    int rc = shard_copy_decode(bytes, &m);
    if (rc != 0)
        return rc;
    bool ours = s->role.copy.running && s->role.copy.from == node && s->role.copy.id == m.id;
    if (m.kind == SHARD_COPY_FETCH)
        lend(s, node, &m);
    else if (ours && m.kind == SHARD_COPY_GONE)
        give_up(s);
    else if (ours && m.page == s->role.copy.page)
        take_page(s, &m);
    return 0;
}
