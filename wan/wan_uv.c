/* The WAN thread: start, stop, the messages between it and the node's loop, its clock tick.
 *
 * The thread runs a uv loop. Messages from the node's loop come through a lock-free queue and one
 * uv_async; the feed's movements through another, because they need no message. */
#include "wan/wan.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "wan/wan_int.h"

/* --- messages --- */

void wan_push(struct wan *w, struct wan_msg *m)
{
    if (mpsc_push(&w->inbox, &m->link)) {
        int rc = uv_async_send(&w->wake);
        ASSERT(rc == 0); /* the handle lives until wan_free */
    }
}

static void inbox_run(uv_async_t *wake)
{
    struct wan *w = CONTAINER_OF(wake, struct wan, wake);
    struct mpsc_link *at = mpsc_take(&w->inbox);
    while (at != NULL) {
        struct wan_msg *m = CONTAINER_OF(at, struct wan_msg, link);
        at = at->next;
        m->run(w, m);
    }
}

static void call_there(struct loop_msg *msg)
{
    struct wan_call *c = CONTAINER_OF(msg, struct wan_call, there);
    c->on_loop(c);
}

static void call_unlink(struct wan_call *c)
{
    struct wan *w = c->wan;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        w->calls = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
}

static void call_free(struct wan_call *c)
{
    call_unlink(c);
    if (c->release != NULL)
        c->release(c);
    mem_free(c);
}

static void call_back(struct wan *w, struct wan_msg *m)
{
    struct wan_call *c = CONTAINER_OF(m, struct wan_call, back);
    if (!w->stopping)
        c->done(c);
    call_free(c);
}

void wan_call_track(struct wan *w, struct wan_call *c)
{
    c->wan = w;
    c->back.run = call_back;
    c->back.drop = NULL; /* freed with the list of calls */
    c->prev = NULL;
    c->next = w->calls;
    if (c->next != NULL)
        c->next->prev = c;
    w->calls = c;
}

void wan_call_start(struct wan *w, struct wan_call *c)
{
    wan_call_track(w, c);
    c->there.run = call_there;
    loop_post(w->loop, &c->there);
}

void wan_call_return(struct wan_call *c)
{
    wan_push(c->wan, &c->back);
}

/* --- settings --- */

void wan_settings_copy(struct wan *w, struct wan_settings_copy *ret)
{
    ret->me = *node_settings(w->node);
    memcpy(ret->fs_key, node_fs_key(w->node), sizeof ret->fs_key);
}

/* An address that others can dial: the one they are to be told, or where this site listens; a
 * wildcard becomes this machine's name. */
static void address_make(struct wan *w)
{
    char host[128], port[8], name[100] = "localhost";
    size_t name_len = sizeof name;
    w->address[0] = '\0';
    if (w->port != 0 && w->me.advertise[0] != '\0') {
        memcpy(w->address, w->me.advertise, sizeof w->address);
        return;
    }
    if (w->port == 0 || wan_address_split(w->me.wan, host, port) != 0)
        return;
    if (strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0) {
        (void)uv_os_gethostname(name, &name_len); /* localhost, then */
        (void)snprintf(host, sizeof host, "%s", name);
    }
    bool v6 = strchr(host, ':') != NULL;
    int len = snprintf(w->address, sizeof w->address, "%s%s%s:%u", v6 ? "[" : "", host,
                       v6 ? "]" : "", w->port);
    if (len < 0 || len >= (int)sizeof w->address)
        w->address[0] = '\0'; /* nobody could be told */
}

void wan_settings_use(struct wan *w, const struct wan_settings_copy *s)
{
    w->me = s->me;
    memcpy(w->fs_key, s->fs_key, sizeof w->fs_key);
    fs_id_make(w->fs_key, w->fs_id);
    mem_free(w->vvs);
    w->vvs = mem_calloc(w->me.shard_count, sizeof w->vvs[0]);
    address_make(w);
}

/* --- time and the feed --- */

static void tick(uv_timer_t *t)
{
    struct wan *w = CONTAINER_OF(t, struct wan, tick);
    uint64_t now = wan_now_ns(w);
    h2_net_tick(&w->net);
    wan_link_tick(w);
    for (struct wan_peer *p = w->peers; p != NULL; p = p->next) {
        wan_recv_tick(p, now);
        if (p->send != NULL)
            wan_send_tick(p->send, now);
    }
    wan_fetch_tick(w, now);
    wan_pass_tick(w, now);
    wan_wait_check(w);
}

static void feed_changed(void *ctx)
{
    struct wan *w = ctx; /* loop thread */
    int rc = uv_async_send(&w->feed_moved);
    ASSERT(rc == 0); /* the handle lives until wan_free */
}

static void feed_pump(struct wan *w)
{
    w->pumped_ns = wan_now_ns(w);
    w->pump_moves = 0;
    for (struct wan_peer *p = w->peers; p != NULL; p = p->next)
        if (p->send != NULL)
            wan_send_pump(p->send);
    wan_pull(w);
}

static void feed_pump_late(uv_timer_t *t)
{
    struct wan *w = CONTAINER_OF(t, struct wan, pump_timer);
    bool busy = w->pump_run == WAN_PUMP_RUN;
    /* Somebody who waits for each file at the other site moves it once or twice in this time. */
    w->pump_run = busy && w->pump_moves < WAN_PUMP_MOVES ? 0 : MIN(w->pump_run + 1, WAN_PUMP_RUN);
    feed_pump(w);
}

/* The first operation after a while leaves at once. While more come, a batch of its own for each
 * would cost both sites many times what the operation does, and twice its bytes; while they do not
 * end, larger batches do the same again, and what they take in time nobody sees who makes so many.
 */
static void feed_run(uv_async_t *async)
{
    struct wan *w = CONTAINER_OF(async, struct wan, feed_moved);
    uint64_t gap_ms = w->pump_run < WAN_PUMP_RUN ? WAN_PUMP_MS : WAN_PUMP_BUSY_MS;
    uint64_t past_ms = (wan_now_ns(w) - w->pumped_ns) / NS_PER_MS;
    w->pump_moves++;
    if (uv_is_active((uv_handle_t *)&w->pump_timer))
        return;
    if (past_ms >= gap_ms) {
        w->pump_run = 0;
        feed_pump(w);
        return;
    }
    int rc = uv_timer_start(&w->pump_timer, feed_pump_late, gap_ms - past_ms, 0);
    ASSERT(rc == 0);
}

/* --- life --- */

static void thread_run(void *arg)
{
    struct wan *w = arg;
    sigset_t pipe;
    (void)sigemptyset(&pipe); /* never fails, nor does the next */
    (void)sigaddset(&pipe, SIGPIPE);
    int rc = pthread_sigmask(SIG_BLOCK, &pipe, NULL); /* a broken link is an error, not a signal */
    ASSERT(rc == 0);
    rc = uv_timer_start(&w->tick, tick, WAN_TICK_MS, WAN_TICK_MS);
    ASSERT(rc == 0);
    wan_members_fetch(w);
    wan_boot_begin(w, NULL, NULL);
    (void)uv_run(&w->uv, UV_RUN_DEFAULT); /* until stop_run */
    w->stopping = true;
    for (struct wan_peer *p = w->peers; p != NULL; p = p->next)
        if (p->redial_open)
            (void)uv_timer_stop(&p->redial); /* never fails */
    (void)uv_timer_stop(&w->tick);
    (void)uv_timer_stop(&w->pull_timer);
    (void)uv_timer_stop(&w->pump_timer);
    for (struct h2_conn *c = w->net.conns; c != NULL; c = w->net.conns) {
        for (; c != NULL; c = h2_next(c))
            h2_close(c, ERR_CLOSED, "this site stops");
        (void)uv_run(&w->uv, UV_RUN_ONCE);
    }
}

static void stop_run(struct wan *w, struct wan_msg *m)
{
    mem_free(m);
    uv_stop(&w->uv);
}

static void stop_drop(struct wan_msg *m)
{
    mem_free(m);
}

void wan_stop(struct wan *w)
{
    if (w == NULL || !w->thread_runs)
        return;
    struct wan_msg *m = mem_calloc(1, sizeof *m);
    m->run = stop_run;
    m->drop = stop_drop;
    wan_push(w, m);
    int rc = uv_thread_join(&w->thread);
    ASSERT(rc == 0);
    w->thread_runs = false;
}

static void handle_close(uv_handle_t *h, void *arg)
{
    (void)arg;
    if (!uv_is_closing(h))
        uv_close(h, NULL);
}

void wan_free(struct wan *w)
{
    if (w == NULL)
        return;
    ASSERT(!w->thread_runs);
    node_feed_watch(w->node, NULL, NULL);
    w->stopping = true;
    struct mpsc_link *at = mpsc_take(&w->inbox);
    while (at != NULL) {
        struct wan_msg *m = CONTAINER_OF(at, struct wan_msg, link);
        at = at->next;
        if (m->drop != NULL)
            m->drop(m);
    }
    while (w->calls != NULL)
        call_free(w->calls);
    wan_wait_free(w);
    wan_fetch_free(w);
    wan_pass_free(w);
    wan_pairing_free(w);
    wan_return_free(w);
    wan_boot_free(w);
    uv_walk(&w->uv, handle_close, NULL);
    (void)uv_run(&w->uv, UV_RUN_DEFAULT); /* close callbacks */
    int rc = uv_loop_close(&w->uv);
    ASSERT(rc == 0);
    wan_peers_free(w);
    h2_net_deinit(&w->net);
    SSL_CTX_free(w->tls);
    buf_deinit(&w->voucher);
    wan_identity_deinit(&w->identity);
    json_decref(w->paused);
    mem_free(w->vvs);
    mem_free(w->dir);
    explicit_bzero(w->fs_key, sizeof w->fs_key);
    mem_free(w);
}

uint16_t wan_listen_port(const struct wan *w)
{
    return w->port;
}

static void uv_make(struct wan *w)
{
    int rc = uv_loop_init(&w->uv);
    ASSERT(rc == 0); /* descriptors for epoll and a wake-up: nothing runs without them */
    rc = uv_async_init(&w->uv, &w->wake, inbox_run) |
         uv_async_init(&w->uv, &w->feed_moved, feed_run) | uv_timer_init(&w->uv, &w->tick) |
         uv_timer_init(&w->uv, &w->pull_timer) | uv_timer_init(&w->uv, &w->pump_timer);
    ASSERT(rc == 0);
    h2_net_init(&w->net, &w->uv, w->tls, w->clock);
}

static int wan_files_load(struct wan *w, struct err_detail *d)
{
    int rc = wan_identity_open(w->dir, w->me.name, &w->identity, d);
    if (rc == 0)
        rc = wan_tls_context(&w->identity, &w->tls, d);
    if (rc == 0)
        rc = wan_paused_load(w, d);
    if (rc == 0)
        rc = wan_invites_load(w, d);
    if (rc == 0)
        rc = wan_voucher_load(w, d);
    if (rc == 0)
        rc = wan_boot_load(w, d);
    return rc;
}

static int wan_go(struct wan *w, struct err_detail *d)
{
    node_members_watch(w->node, wan_members_changed, w);
    node_set_fetcher(w->node, wan_chunk_fetch, w);
    node_admin_register(w->node, wan_admin, w);
    node_feed_watch(w->node, feed_changed, w);
    int rc = uv_thread_create(&w->thread, thread_run, w);
    if (rc != 0) {
        err_detail_set(d, "cannot start the thread for links between sites: %s", uv_strerror(rc));
        return ERR_NO_MEMORY;
    }
    w->thread_runs = true;
    char fp[2 * FINGERPRINT_BYTES + 1];
    wan_fingerprint_text(w->identity.fingerprint, fp);
    log_info(LOG_WAN, "started", "site=%s address=%s certificate=%s", w->me.name,
             w->address[0] != '\0' ? w->address : "none", fp);
    return 0;
}

int wan_start(struct wan **ret, struct node *n, struct err_detail *d)
{
    struct wan *w = mem_calloc(1, sizeof *w);
    struct wan_settings_copy settings;
    w->node = n;
    w->loop = node_loop(n);
    w->clock = loop_clock(w->loop);
    w->dir = mem_strdup(node_dir(n));
    rng_seed(&w->rng, random_u64());
    wan_settings_copy(w, &settings);
    wan_settings_use(w, &settings);
    int rc = wan_files_load(w, d);
    uv_make(w);
    if (rc == 0)
        rc = wan_listen(w, d);
    if (rc == 0) {
        wan_settings_use(w, &settings); /* now with the port */
        rc = wan_go(w, d);
    }
    if (rc == 0)
        *ret = w;
    else
        wan_free(w);
    return rc;
}
