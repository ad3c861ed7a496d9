/* Snapshots: what a new site starts from.
 *
 * Serving: the node makes a consistent cut; its pages go out as frames, compressed along the
 * stream, a new one whenever the last has nearly gone. Loading: the site that was adopted asks the
 * inviter, hands page after page to the node, one at a time, and commits after the last. A failure
 * starts over from the first page. DIR/wan_boot.json says whom to ask, until the snapshot is
 * committed, so that a crash in between loses nothing; and for which file system, since the site
 * may be told to join another one instead (wan/state_file.h). */
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "wan/state_file.h"
#include "wan/wan_file.h"
#include "wan/wan_int.h"

#define BOOT_FILE "wan_boot.json"
enum {
    PAGE_BYTES = 256 * 1024
};

/* --- serving --- */

struct cut {
    struct wan *wan;
    struct h2_stream *stream; /* NULL: gone */
    struct node_snapshot *snapshot;
    struct zpack *pack;
    struct buf voucher; /* goes behind it; or empty */
    bool done;
    bool call_over; /* the loop has answered */
};
struct cut_call {
    struct wan_call call;
    site_id_t to;
    struct cut *cut; /* freed by whoever comes last: the stream or this call */
    int rc;
    struct node_snapshot *snapshot;
};

static void cut_free(struct cut *v)
{
    if (v->snapshot != NULL)
        node_snapshot_free(v->snapshot);
    zpack_free(v->pack);
    buf_deinit(&v->voucher);
    v->wan->snapshots_served--;
    mem_free(v);
}

static void cut_frame(struct cut *v, enum frame_type type, struct slice payload)
{
    struct buf frame = {0};
    frame_encode(&frame, type, payload);
    h2_give(v->stream, &frame);
}

static void cut_fail(struct cut *v, int rc)
{
    struct buf b = {0};
    log_error(LOG_WAN, "snapshot_not_served", "code=%s", err_name(rc));
    msg_error_encode(rc, "the snapshot cannot be read there", &b);
    cut_frame(v, FRAME_ERROR, buf_slice(&b));
    h2_end(v->stream);
    v->done = true;
    buf_deinit(&b);
}

static void cut_later(struct cut *v);

static void cut_pump(struct cut *v)
{
    while (v->snapshot != NULL && v->call_over && !v->done &&
           h2_pending(v->stream) <= H2_LOW_BYTES) {
        struct buf page = {0}, packed = {0};
        int rc = node_snapshot_next_page(v->snapshot, PAGE_BYTES, &page, &v->done);
        if (rc == 0 && page.len > LIMIT_BATCH_BYTES)
            rc = ERR_TOO_BIG;
        if (rc != 0) {
            cut_fail(v, rc);
        } else if (page.len > 0) { /* the last may bring nothing but the end */
            zpack_add(v->pack, buf_slice(&page), &packed);
            cut_frame(v, FRAME_PAGE, buf_slice(&packed));
        } else if (!v->done) {
            cut_later(v);
        }
        if (rc == 0 && v->done) {
            cut_frame(v, FRAME_END, buf_slice(&v->voucher));
            h2_end(v->stream);
        }
        buf_deinit(&page);
        buf_deinit(&packed);
    }
}

static void cut_ready(void *ctx, int rc, struct node_snapshot *s)
{
    struct cut_call *c = ctx;
    c->rc = rc;
    c->snapshot = rc == 0 ? s : NULL;
    wan_call_return(&c->call);
}

static void cut_on_loop(struct wan_call *call)
{
    struct cut_call *c = CONTAINER_OF(call, struct cut_call, call);
    node_snapshot_begin(call->wan->node, c->to, cut_ready, c);
}

/* The stream's again; NULL: that is gone, and release frees both. */
static struct cut *cut_back(struct cut_call *c)
{
    struct cut *v = c->cut;
    if (v->stream == NULL)
        return NULL;
    c->cut = NULL;
    v->call_over = true;
    return v;
}

static void cut_begun(struct wan_call *call)
{
    struct cut_call *c = CONTAINER_OF(call, struct cut_call, call);
    struct cut *v = cut_back(c);
    if (v == NULL)
        return;
    v->snapshot = c->snapshot;
    c->snapshot = NULL;
    v->pack = zpack_new();
    if (c->rc != 0)
        cut_fail(v, c->rc);
    else
        cut_pump(v);
}

static void cut_release(struct wan_call *call)
{
    struct cut_call *c = CONTAINER_OF(call, struct cut_call, call);
    if (c->snapshot != NULL)
        node_snapshot_free(c->snapshot);
    if (c->cut == NULL)
        return;
    c->cut->call_over = true;
    if (c->cut->stream == NULL)
        cut_free(c->cut);
}

static void again_on_loop(struct wan_call *call)
{
    wan_call_return(call);
}

static void again(struct wan_call *call)
{
    struct cut *v = cut_back(CONTAINER_OF(call, struct cut_call, call));
    if (v != NULL)
        cut_pump(v);
}

/* Much of a journal may have to be read before there is something to send: others have their turn
 * meanwhile, or every link would be silent for so long that it ends. */
static void cut_later(struct cut *v)
{
    struct cut_call *c = mem_calloc(1, sizeof *c);
    v->call_over = false;
    c->cut = v;
    c->call.on_loop = again_on_loop;
    c->call.done = again;
    c->call.release = cut_release;
    wan_call_start(v->wan, &c->call);
}

static void cut_data(struct h2_stream *s, const uint8_t *ptr, size_t len)
{
    (void)ptr;
    h2_consume(s, len);
}

static void cut_drained(struct h2_stream *s)
{
    cut_pump(h2_stream_user(s));
}

static void cut_closed(struct h2_stream *s, int rc)
{
    struct cut *v = h2_stream_user(s);
    (void)rc;
    v->stream = NULL;
    if (v->call_over)
        cut_free(v);
}

static const struct h2_stream_events cut_events = {
    .data = cut_data, .drained = cut_drained, .closed = cut_closed};

void wan_snapshot_serve(struct wan *w, struct h2_stream *s, const struct member *to)
{
    if (w->snapshots_served >= WAN_SERVE_SNAPSHOTS_MAX) {
        wan_respond_error(s, 503, ERR_BUSY, "too many sites are being set up at once");
        return;
    }
    struct cut *v = mem_calloc(1, sizeof *v);
    struct cut_call *c = mem_calloc(1, sizeof *c);
    w->snapshots_served++;
    v->wan = w;
    v->stream = s;
    h2_follow(s, &cut_events, v);
    h2_respond(s, 200);
    c->cut = v;
    if (to != NULL) {
        c->to = to->site;
        wan_voucher_make(w, to, &v->voucher);
    }
    c->call.on_loop = cut_on_loop;
    c->call.done = cut_begun;
    c->call.release = cut_release;
    wan_call_start(w, &c->call);
}

/* --- loading --- */

struct wan_boot {
    struct wan *wan;
    struct member from;
    uint8_t fs_id[FS_ID_BYTES]; /* the file system that it is to join, */
    struct boot_from before;    /* and whom it had asked before, for whichever */
    bool has_before;
    bool begun;
    bool refused; /* the last attempt, because this site has left */
    bool held;    /* no attempt is made */
    struct h2_conn *conn;
    struct h2_stream *stream;
    bool stream_over; /* all of it has come; frames may wait to be read */
    int status;
    bool without_past; /* who is asked, on this connection, is of an older version */
    struct buf error_body;
    struct frame_reader frames;
    struct zunpack *unpack; /* while an attempt is on */
    uint64_t generation;    /* of the attempt */
    bool loading;           /* a page, or the commit, is with the node */
    uint64_t pages;
    int rc; /* why this attempt failed, when something better is known than that
               the connection closed */
    struct err_detail detail;
    struct backoff backoff;
    uv_timer_t timer;
    wan_boot_done done;
    void *ctx;
};

static void boot_dial(struct wan_boot *b);
static void boot_frames(struct wan_boot *b);

static void boot_tell(struct wan_boot *b, int rc, const char *text)
{
    wan_boot_done done = b->done;
    b->done = NULL;
    if (done != NULL)
        done(b->ctx, rc, text);
}

static void boot_fail(struct wan_boot *b, int rc, const char *text)
{
    if (b->rc == 0) {
        b->rc = rc;
        err_detail_set(&b->detail, "%s", text);
    }
    if (b->conn != NULL)
        h2_close(b->conn, rc, text);
}

static void boot_retry(uv_timer_t *t)
{
    boot_dial(CONTAINER_OF(t, struct wan_boot, timer));
}

static void boot_reset(struct wan_boot *b)
{
    frame_reader_deinit(&b->frames);
    zunpack_free(b->unpack);
    b->unpack = NULL;
    buf_deinit(&b->error_body);
    b->status = 0;
    b->pages = 0;
    b->stream = NULL;
    b->stream_over = false;
}

static void boot_handle_closed(uv_handle_t *h)
{
    struct wan_boot *b = CONTAINER_OF(h, struct wan_boot, timer);
    mem_free(b);
}

static void boot_end(struct wan_boot *b)
{
    struct wan *w = b->wan;
    struct err_detail d;
    int rc = wan_file_remove(w->dir, BOOT_FILE, &d);
    if (rc != 0)
        log_warn(LOG_WAN, "boot_file_stays", "why=\"%s\"",
                 d.text); /* the next start sees it is over */
    log_info(LOG_WAN, "snapshot_loaded", "from=%s pages=%llu", b->from.name,
             (unsigned long long)b->pages);
    boot_tell(b, 0, "");
    w->boot = NULL;
    if (b->conn != NULL) {
        h2_set_user(b->conn, NULL);
        h2_close(b->conn, ERR_CLOSED, "the snapshot is here");
    }
    boot_reset(b);
    uv_close((uv_handle_t *)&b->timer, boot_handle_closed);
    wan_members_fetch(w);
}

/* A page on its way to the node, or the commit. */
struct load_call {
    struct wan_call call;
    uint64_t generation;
    bool commit;
    site_id_t from;
    struct buf page;
    int rc;
    struct err_detail detail;
    struct wan_settings_copy settings;
};

static void load_return(struct load_call *c)
{
    wan_settings_copy(c->call.wan, &c->settings);
    wan_call_return(&c->call);
}

static void load_committed(void *ctx, int rc, const struct err_detail *d)
{
    struct load_call *c = ctx;
    c->rc = rc;
    c->detail = *d;
    load_return(c);
}

static void load_on_loop(struct wan_call *call)
{
    struct load_call *c = CONTAINER_OF(call, struct load_call, call);
    struct node *n = call->wan->node;
    if (c->commit) {
        node_snapshot_commit(n, c->from, load_committed, c);
        return;
    }
    c->rc = node_snapshot_load(n, buf_slice(&c->page), &c->detail);
    load_return(c);
}

static void load_release(struct wan_call *call)
{
    struct load_call *c = CONTAINER_OF(call, struct load_call, call);
    explicit_bzero(&c->settings, sizeof c->settings);
    buf_deinit(&c->page);
}

static void load_done(struct wan_call *call)
{
    struct load_call *c = CONTAINER_OF(call, struct load_call, call);
    struct wan_boot *b = call->wan->boot;
    if (b == NULL)
        return;
    b->loading = false;
    if (c->commit && c->rc == 0) { /* also when the connection has broken meanwhile */
        wan_settings_use(call->wan, &c->settings);
        boot_end(b);
        return;
    }
    if (b->generation != c->generation) { /* the attempt is over; the next may begin */
        if (b->conn == NULL && !uv_is_active((uv_handle_t *)&b->timer))
            boot_dial(b);
        return;
    }
    if (c->rc != 0) {
        boot_fail(b, c->rc, c->detail.text[0] != '\0' ? c->detail.text : err_text(c->rc));
    } else {
        b->pages++;
        boot_frames(b);
    }
}

static void load_start(struct wan_boot *b, bool commit, struct buf *page)
{
    struct load_call *c = mem_calloc(1, sizeof *c);
    c->generation = b->generation;
    c->commit = commit;
    c->from = b->from.site;
    if (page != NULL)
        buf_move(&c->page, page);
    c->call.on_loop = load_on_loop;
    c->call.done = load_done;
    c->call.release = load_release;
    b->loading = true;
    wan_call_start(b->wan, &c->call);
}

static int boot_frame(struct wan_boot *b, const struct frame *f)
{
    struct buf page = {0};
    struct err_detail d;
    int rc;
    if (f->type == FRAME_ERROR) {
        rc = msg_error_decode(f->payload, &d);
        boot_fail(b, rc, d.text);
        return 0;
    }
    if (f->type == FRAME_END && b->pages > 0) {
        rc = wan_voucher_save(b->wan, f->payload, &d); /* before the site is a member that works */
        if (rc == 0)
            load_start(b, true, NULL);
        else
            boot_fail(b, rc, d.text);
        return 0;
    }
    if (f->type != FRAME_PAGE)
        return ERR_PEER;
    rc = zunpack_next(b->unpack, f->payload, FRAME_PAYLOAD_MAX, &page);
    if (rc == 0)
        load_start(b, false, &page);
    buf_deinit(&page);
    return rc;
}

static void boot_frames(struct wan_boot *b)
{
    while (!b->loading && b->unpack != NULL && b->rc == 0) {
        struct frame f;
        bool got;
        int rc = frame_reader_next(&b->frames, &f, &got);
        if (rc == 0 && !got && !b->stream_over)
            return;
        if (rc == 0 && !got)
            rc = ERR_TRUNCATED;
        if (rc == 0) {
            if (b->stream != NULL)
                h2_consume(b->stream, frame_bytes(&f));
            rc = boot_frame(b, &f);
        }
        if (rc != 0)
            boot_fail(b, rc, err_text(rc));
    }
}

static struct wan_boot *boot_of(const struct h2_stream *s)
{
    struct wan_boot *b = h2_stream_user(s);
    return b->stream == s ? b : NULL;
}

static void boot_response(struct h2_stream *s, int status)
{
    struct wan_boot *b = boot_of(s);
    if (b != NULL)
        b->status = status;
}

static void boot_data(struct h2_stream *s, const uint8_t *ptr, size_t len)
{
    struct wan_boot *b = boot_of(s);
    if (b != NULL && b->status == 200) {
        frame_reader_add(&b->frames, ptr, len);
        boot_frames(b);
        return;
    }
    if (b != NULL && b->error_body.len + len <= WAN_ERROR_BODY_MAX)
        buf_append(&b->error_body, ptr, len);
    h2_consume(s, len);
}

static bool boot_ask(struct wan_boot *b);

static void boot_ended(struct h2_stream *s)
{
    struct wan_boot *b = boot_of(s);
    struct err_detail d;
    if (b == NULL || b->status == 200)
        return; /* the last frame says whether that was all */
    int rc = wan_response_error(b->status, &b->error_body, &d);
    if (rc == ERR_NOT_SUPPORTED && !b->without_past) { /* at once: the attempt has not failed */
        b->without_past = true;
        b->status = 0;
        buf_clear(&b->error_body);
        if (boot_ask(b))
            return;
    }
    boot_fail(b, rc, d.text);
}

static void boot_stream_closed(struct h2_stream *s, int rc)
{
    struct wan_boot *b = boot_of(s);
    if (b == NULL)
        return;
    b->stream = NULL;
    b->stream_over = true;
    if (rc != 0)
        boot_fail(b, rc, "the connection was lost while the snapshot was loaded");
    else
        boot_frames(b);
}

static const struct h2_stream_events boot_stream_events = {
    .response = boot_response,
    .data = boot_data,
    .ended = boot_ended,
    .closed = boot_stream_closed,
};

static bool boot_ask(struct wan_boot *b)
{
    const char *path = b->without_past ? WAN_SNAPSHOT_PATH_OLD : WAN_SNAPSHOT_PATH;
    b->stream = h2_request(b->conn, "GET", path, &boot_stream_events, b);
    if (b->stream != NULL)
        h2_end(b->stream);
    return b->stream != NULL;
}

static bool boot_ready(struct h2_conn *c)
{
    struct wan_boot *b = h2_user(c);
    b->unpack = zunpack_new();
    b->without_past = false; /* it may have been upgraded meanwhile */
    return boot_ask(b);
}

static void boot_closed(struct h2_conn *c, int rc, const char *why)
{
    struct wan_boot *b = h2_user(c);
    if (b == NULL)
        return;
    struct wan *w = b->wan;
    b->conn = NULL;
    boot_reset(b);
    b->generation = ++w->generation;
    if (b->rc == 0) {
        b->rc = rc;
        err_detail_set(&b->detail, "%s", why);
    }
    if (!b->held)
        b->refused = b->rc == ERR_REMOVED;
    if (w->stopping)
        return;
    log_warn(LOG_WAN, "snapshot_not_loaded", "from=%s code=%s why=\"%s\"", b->from.name,
             err_name(b->rc), b->detail.text);
    boot_tell(b, b->rc, b->detail.text);
    uint64_t wait_ms = backoff_next_ns(&b->backoff, &w->rng) / NS_PER_MS;
    int rc2 = uv_timer_start(&b->timer, boot_retry, MAX(wait_ms, 1u), 0);
    ASSERT(rc2 == 0);
}

static const struct h2_conn_events boot_conn_events = {.ready = boot_ready, .closed = boot_closed};

static void boot_dial(struct wan_boot *b)
{
    if (b->wan->stopping || b->conn != NULL || b->loading || b->held)
        return; /* load_done, or wan_boot_hold, tries again */
    b->rc = 0;
    b->detail.text[0] = '\0';
    b->generation = ++b->wan->generation;
    b->conn =
        h2_dial(&b->wan->net, b->from.wan, H2_ASKS, b->from.cert_sha256, &boot_conn_events, b);
}

void wan_boot_begin(struct wan *w, wan_boot_done done, void *ctx)
{
    struct wan_boot *b = w->boot;
    if (b == NULL)
        return;
    ASSERT(!b->begun);
    b->begun = true;
    b->done = done;
    b->ctx = ctx;
    int rc = uv_timer_init(&w->uv, &b->timer);
    ASSERT(rc == 0);
    boot_dial(b);
}

void wan_boot_hold(struct wan *w, bool held)
{
    struct wan_boot *b = w->boot;
    if (b == NULL || !b->begun || b->held == held)
        return;
    b->held = held;
    if (held && b->conn != NULL)
        h2_close(b->conn, ERR_CLOSED, "another site id is asked for");
    if (!held && !uv_is_active((uv_handle_t *)&b->timer))
        boot_dial(b);
}

bool wan_boot_is_idle(const struct wan *w)
{
    return w->boot != NULL && w->boot->begun && !w->boot->loading && w->boot->status == 0;
}

bool wan_boot_is_refused(const struct wan *w)
{
    return w->boot != NULL && w->boot->refused;
}

const struct member *wan_boot_from(const struct wan *w)
{
    return w->boot != NULL ? &w->boot->from : NULL;
}

void wan_boot_free(struct wan *w)
{
    struct wan_boot *b = w->boot;
    if (b == NULL)
        return;
    w->boot = NULL;
    boot_reset(b);
    if (b->begun)
        uv_close((uv_handle_t *)&b->timer, boot_handle_closed);
    else
        mem_free(b);
}

/* --- the file --- */

static struct boot_from boot_from_of(const struct member *from, const uint8_t fs_id[FS_ID_BYTES])
{
    struct boot_from f = {.from = *from, .fs_known = true};
    f.from.cert = slice_of(NULL, 0);
    memcpy(f.fs_id, fs_id, sizeof f.fs_id);
    return f;
}

static void boot_new(struct wan *w, const struct boot_from *now, const struct boot_from *before)
{
    struct wan_boot *b = mem_calloc(1, sizeof *b);
    ASSERT(w->boot == NULL);
    b->wan = w;
    b->from = now->from;
    memcpy(b->fs_id, now->fs_id, sizeof b->fs_id);
    b->has_before = before != NULL;
    if (before != NULL)
        b->before = *before;
    w->boot = b;
}

int wan_boot_save(struct wan *w,
                  const struct member *from,
                  const uint8_t fs_id[FS_ID_BYTES],
                  struct err_detail *d)
{
    struct boot_file f = {.now = boot_from_of(from, fs_id), .has_before = w->boot != NULL};
    if (w->boot != NULL && (w->boot->conn != NULL || w->boot->loading)) {
        err_detail_set(d, "the connection to %s has not ended yet: try again", w->boot->from.name);
        return ERR_AGAIN;
    }
    if (w->boot != NULL)
        f.before = boot_from_of(&w->boot->from, w->boot->fs_id);
    char *text = state_file_text(boot_file_json(&f));
    int rc = wan_file_write(w->dir, BOOT_FILE, 0600, slice_str(text), d);
    free(text); /* lint-allow(memory): jansson made it */
    if (rc != 0)
        return rc;
    wan_boot_free(w);
    boot_new(w, &f.now, f.has_before ? &f.before : NULL);
    return 0;
}

void wan_boot_cancel(struct wan *w, bool joins)
{
    struct wan_boot *b = w->boot;
    struct err_detail d;
    int rc = 0;
    ASSERT(b != NULL && !b->begun);
    w->boot = NULL;
    if (b->has_before) { /* the file tells of both */
        boot_new(w, &b->before, NULL);
        wan_boot_begin(w, NULL, NULL);
    } else if (!joins) {
        rc = wan_file_remove(w->dir, BOOT_FILE, &d);
    }
    if (rc != 0)
        log_warn(LOG_WAN, "boot_file_stays", "why=\"%s\"", d.text); /* the next start sees it */
    mem_free(b);
}

int wan_boot_load(struct wan *w, struct err_detail *d)
{
    struct buf b = {0};
    struct boot_file f;
    int rc = wan_file_read(w->dir, BOOT_FILE, &b, d);
    if (rc == ERR_NOT_FOUND || (rc == 0 && !node_needs_snapshot(w->node))) {
        /* Not there, or left over from a crash between the commit and its removal. */
        rc = rc == 0 ? wan_file_remove(w->dir, BOOT_FILE, d) : 0;
        buf_deinit(&b);
        return rc;
    }
    if (rc == 0)
        rc = boot_file_parse(buf_slice(&b), &f);
    if (rc == ERR_CORRUPT)
        err_detail_set(d,
                       "cannot use %s/" BOOT_FILE ": it is damaged: make the site anew and pair "
                       "it again",
                       w->dir);
    const struct boot_from *from = rc == 0 ? boot_file_of(&f, w->fs_id) : NULL;
    if (from != NULL) {
        struct boot_from now = boot_from_of(&from->from, w->fs_id);
        boot_new(w, &now, NULL);
    } else if (rc == 0) {
        err_detail_set(d,
                       "cannot use %s/" BOOT_FILE ": it tells of another file system than the one "
                       "that this site joins: make the site anew and pair it again",
                       w->dir);
        rc = ERR_CORRUPT;
    }
    buf_deinit(&b);
    return rc;
}
