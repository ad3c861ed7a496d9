/* The dashboard's side on the node's loop: collecting, rates, history, publishing. See dash.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "base/assert.h"
#include "base/log.h"
#include "client/dash_int.h"
#include "client/status_text.h"

#define COLLECT_WATCHED_NS (500 * NS_PER_MS) /* while somebody looks */
#define COLLECT_CROWD_NS NS_PER_SEC          /* while many do */
#define CROWD 50u
#define COLLECT_IDLE_NS (2 * NS_PER_SEC)
#define WAKE_EVERY_NS (40 * NS_PER_MS)
#define WAKE_SLICES 10u                  /* all have the news before the next one comes */
#define WATCHED_FOR_NS (10 * NS_PER_SEC) /* after the last request */
#define SAVE_EVERY_NS (60 * NS_PER_SEC)
#define LAG_MAX_S 10.0
#define CONFLICTS_SHOWN 30u
#define HISTORY_FILE "http.history"
#define HISTORY_BYTES_MAX ((size_t)(16u * MIB))

static void collect_start(struct dash *d);

/* ---- rates ---- */

static struct dash_peer *peer_of(struct dash *d, const char *name)
{
    for (uint32_t i = 0; i < d->peer_count; i++)
        if (strcmp(d->peers[i].name, name) == 0)
            return &d->peers[i];
    if (d->peer_count == DASH_PEERS_MAX)
        return NULL;
    struct dash_peer *p = &d->peers[d->peer_count++];
    (void)snprintf(p->name, sizeof p->name, "%s", name); /* fits: names are 32 at most */
    return p;
}

static void set_left(json_t *peer, const char *key, double left_s)
{
    (void)json_object_set_new(peer, key, left_s < 0 ? json_null() : json_real(left_s));
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void peer_see(struct dash *d, json_t *peer, double now_s, uint64_t wall_s)
{
    const char *name = json_string_value(json_object_get(peer, "name"));
    struct dash_peer *p = name != NULL ? peer_of(d, name) : NULL;
    if (p == NULL || json_object_get(peer, "in_ops") == NULL)
        return;
    dash_rate_see(&p->in, now_s, number(peer, "in_ops"), number(peer, "in_ops_to_go"));
    dash_rate_see(&p->out, now_s, number(peer, "out_ops"), number(peer, "out_ops_to_go"));
    double in_per_s = dash_rate_per_s(&p->in), out_per_s = dash_rate_per_s(&p->out);
    (void)json_object_set_new(peer, "in_ops_per_s", json_real(in_per_s));
    (void)json_object_set_new(peer, "out_ops_per_s", json_real(out_per_s));
    set_left(peer, "in_left_s", dash_rate_left_s(&p->in));
    set_left(peer, "out_left_s", dash_rate_left_s(&p->out));
    struct dash_sample s = {.v = {[DASH_LAG_IN] = (float)number(peer, "lag_in_s"),
                                  [DASH_LAG_OUT] = (float)number(peer, "lag_out_s"),
                                  [DASH_TO_GO_IN] = (float)number(peer, "in_ops_to_go"),
                                  [DASH_TO_GO_OUT] = (float)number(peer, "out_ops_to_go"),
                                  [DASH_RATE_IN] = (float)in_per_s,
                                  [DASH_RATE_OUT] = (float)out_per_s}};
    (void)pthread_mutex_lock(&d->lock);
    dash_history_add(d->history, name, wall_s, &s);
    (void)pthread_mutex_unlock(&d->lock);
}

/* ---- the history's file ---- */

static void history_save(struct dash *d)
{
    struct buf b = {0};
    (void)pthread_mutex_lock(&d->lock);
    dash_history_encode(d->history, &b);
    (void)pthread_mutex_unlock(&d->lock);
    char *path = mem_printf("%s/%s", node_dir(d->n), HISTORY_FILE);
    char *temporary = mem_printf("%s.new", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write(fd, b.ptr, b.len) == (ssize_t)b.len;
    if (fd >= 0)
        (void)close(fd); /* a damaged file is noticed when it is read */
    if (!ok || rename(temporary, path) != 0)
        log_warn(LOG_CLIENT, "history_not_written", "file=%s why=\"%s\"", path, strerror(errno));
    mem_free(temporary);
    mem_free(path);
    buf_deinit(&b);
}

static void history_load(struct dash *d)
{
    char *path = mem_printf("%s/%s", node_dir(d->n), HISTORY_FILE);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0) {
        size_t len = (size_t)MIN((uint64_t)st.st_size, HISTORY_BYTES_MAX);
        uint8_t *bytes = mem_alloc(MAX(len, 1u));
        ssize_t got = read(fd, bytes, len);
        int rc = got < 0 ? ERR_IO : dash_history_decode(d->history, slice_of(bytes, (size_t)got));
        if (rc != 0)
            log_warn(LOG_CLIENT, "history_begins_anew", "file=%s why=\"%s\"", path, err_text(rc));
        mem_free(bytes);
    }
    if (fd >= 0)
        (void)close(fd);
    mem_free(path);
}

/* ---- collecting: three questions, one after the other ---- */

static uint64_t now_ns(const struct dash *d)
{
    return loop_now_ns(node_loop(d->n));
}

/* Viewers get the news in slices: that of hundreds at once would hold up the operations of mounts
 * that share the processor for some milliseconds, twice a second. */
static void wake_fire(struct loop_timer *t)
{
    struct dash *d = CONTAINER_OF(t, struct dash, wake_timer);
    (void)pthread_mutex_lock(&d->lock);
    bool more = dash_wake(d, d->stream_count / WAKE_SLICES + 1);
    (void)pthread_mutex_unlock(&d->lock);
    if (more)
        loop_timer_start(node_loop(d->n), &d->wake_timer, now_ns(d) + WAKE_EVERY_NS);
}

static void publish(struct dash *d, json_t *status)
{
    char *dump = json_dumps(status, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (dump == NULL)
        return;
    struct dash_text *t = mem_calloc(1, sizeof *t);
    t->json = mem_strdup(dump);
    t->len = strlen(dump);
    t->refs = 1;
    free(dump); /* lint-allow(memory): jansson made it */
    (void)pthread_mutex_lock(&d->lock);
    struct dash_text *old = d->text;
    t->version = old != NULL ? old->version + 1 : 1;
    d->text = t;
    (void)pthread_mutex_unlock(&d->lock);
    wake_fire(&d->wake_timer);
    if (old != NULL)
        dash_text_unref(d, old);
}

static void collect_end(struct dash *d)
{
    json_t *status = d->status, *peer;
    size_t idx;
    d->status = NULL;
    d->asking = false;
    if (d->ended) {
        json_decref(status);
        return;
    }
    uint64_t wall_ns = clock_wall_ns(loop_clock(node_loop(d->n)));
    json_array_foreach (json_object_get(status, "peers"), idx, peer)
        peer_see(d, peer, (double)now_ns(d) / 1e9, wall_ns / NS_PER_SEC);
    (void)json_object_set_new(status, "time_ms", json_integer((json_int_t)(wall_ns / NS_PER_MS)));
    (void)json_object_set_new(status, "health",
                              json_string(status_health_text(status_health(status, LAG_MAX_S))));
    publish(d, status);
    json_decref(status);
    if (now_ns(d) - d->saved_ns > SAVE_EVERY_NS) {
        d->saved_ns = now_ns(d);
        history_save(d);
    }
}

/* Without an answer, or when the dashboard has ended and those who answer may be gone. */
static bool given_up(struct dash *d)
{
    if (json_is_object(d->status) && !d->ended)
        return false;
    json_decref(d->status);
    d->status = NULL;
    d->asking = false;
    return true;
}

static void got_conflicts(void *ctx, int rc, const char *text)
{
    struct dash *d = ctx;
    json_t *answer = rc == 0 ? json_loads(text, 0, NULL) : NULL;
    json_t *all = json_object_get(answer, "conflicts"), *some = json_array();
    for (size_t i = 0; i < json_array_size(all) && i < CONFLICTS_SHOWN; i++)
        (void)json_array_append(some, json_array_get(all, i));
    (void)json_object_set_new(d->status, "conflicts", some);
    json_decref(answer);
    collect_end(d);
}

static void got_wan(void *ctx, int rc, const char *text)
{
    struct dash *d = ctx;
    json_t *wan = rc == 0 ? json_loads(text, 0, NULL) : NULL;
    if (json_is_object(wan))
        (void)json_object_update_missing(d->status, wan);
    json_decref(wan);
    if (given_up(d))
        return;
    node_admin_ask(d->n, "conflicts.list", got_conflicts, d);
}

static void got_status(void *ctx, int rc, const char *text)
{
    struct dash *d = ctx;
    d->status = rc == 0 ? json_loads(text, 0, NULL) : NULL;
    if (given_up(d))
        return;
    node_admin_ask(d->n, "wan.status", got_wan, d);
}

static uint64_t collect_every_ns(struct dash *d)
{
    (void)pthread_mutex_lock(&d->lock);
    bool watched = d->stream_count > 0 || now_ns(d) < d->asked_ns + WATCHED_FOR_NS;
    uint64_t ns = !watched                  ? COLLECT_IDLE_NS
                  : d->stream_count > CROWD ? COLLECT_CROWD_NS
                                            : COLLECT_WATCHED_NS;
    (void)pthread_mutex_unlock(&d->lock);
    return ns;
}

static void collect_fire(struct loop_timer *t)
{
    struct dash *d = CONTAINER_OF(t, struct dash, timer);
    if (!d->asking) {
        d->asking = true;
        node_admin_ask(d->n, "status", got_status, d);
    }
    collect_start(d);
}

static void collect_start(struct dash *d)
{
    loop_timer_start(node_loop(d->n), &d->timer, now_ns(d) + collect_every_ns(d));
}

/* ---- life ---- */

static int token_load(struct dash *d, struct err_detail *detail)
{
    char *path = mem_printf("%s/%s", node_dir(d->n), DASH_TOKEN_FILE);
    char text[DASH_TOKEN_LEN + 2] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
    ssize_t got = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        (void)close(fd);
    text[got > 0 ? strcspn(text, "\n") : 0] = '\0';
    if (strlen(text) == DASH_TOKEN_LEN) {
        d->token = mem_strdup(text);
    } else {
        err_detail_set(detail,
                       "%s: the dashboard is to listen on %s, where others can reach it, and there "
                       "is no token: run 'claudefs dashboard token' first",
                       path, node_settings(d->n)->http);
        rc = ERR_CONFIG;
    }
    mem_free(path);
    return rc;
}

int dash_start(struct dash **ret, struct node *n, struct err_detail *detail)
{
    const char *http = node_settings(n)->http;
    *ret = NULL;
    if (strcmp(http, "off") == 0)
        return 0;
    struct dash *d = mem_calloc(1, sizeof *d);
    d->n = n;
    d->listen_fd = -1;
    d->history = dash_history_new();
    d->timer.fire = collect_fire;
    d->wake_timer.fire = wake_fire;
    (void)pthread_mutex_init(&d->lock, NULL);
    int rc = http[0] != '\0' && !dash_is_loopback(http) ? token_load(d, detail) : 0;
    if (rc == 0) {
        history_load(d); /* before anybody can ask for it */
        rc = dash_http_start(d, detail);
    }
    if (rc != 0) {
        d->ended = true;
        dash_free(d);
        return rc;
    }
    d->saved_ns = now_ns(d);
    loop_timer_start(node_loop(n), &d->timer, now_ns(d));
    *ret = d;
    return 0;
}

void dash_stop(struct dash *d)
{
    if (d == NULL)
        return;
    d->ended = true;
    loop_timer_stop(node_loop(d->n), &d->timer);
    loop_timer_stop(node_loop(d->n), &d->wake_timer);
    dash_http_stop(d);
    history_save(d);
}

void dash_free(struct dash *d)
{
    if (d == NULL)
        return;
    dash_http_stop(d);
    json_decref(d->status);
    if (d->text != NULL)
        dash_text_unref(d, d->text);
    dash_history_free(d->history);
    (void)pthread_mutex_destroy(&d->lock);
    if (d->token != NULL)
        sodium_memzero(d->token, strlen(d->token));
    mem_free(d->token);
    mem_free(d);
}
