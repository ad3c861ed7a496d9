/* The stream between two sites without sites: what its parts take on one core, in processor time.
 *
 *     bench_stream [-n OPS] [-d DIR]    DIR: for a certificate
 *
 *   gather   the gateway: the journals of all shards in one order
 *   encode   batches: differences, shapes, columns
 *   pack     zstd
 *   line     frame, TLS 1.3 and HTTP/2 over loopback, both ends
 *   unpack, decode
 *   read     operations out of their bytes
 *   apply    the engine, in memory
 *
 * Each is printed as operations per second by itself; `stream.sender` and `stream.receiver` are
 * what one site has to do (the line counts for both), `stream.alone` is all of it, apply included,
 * on one core. `limit` is the goal. SLICES samples of a history of one site (history.h), in order.
 */
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/hlc.h"
#include "bench/common.h"
#include "bench/history.h"
#include "journal/merge.h"
#include "wan/frame.h"
#include "wan/gateway.h"
#include "wan/wan_h2.h"
#include "wan/zstream.h"

enum {
    SLICES = 10,
    SITE = 7,
    PEER = 8,
    CHUNK = 512 /* operations read from the journal at a time */
};
#define GOAL 400000.0 /* operations a second of the stream alone */

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* cannot fail with this clock */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- the line: two ends of one connection on one loop ---- */

struct line {
    uv_loop_t loop;
    uv_tcp_t listener;
    struct h2_net net;
    SSL_CTX *tls;
    struct wan_identity identity;
    struct h2_conn *client;
    struct h2_stream *from, *to; /* the sender's end, the receiver's */
    struct frame_reader frames;
    bool open;
};

static void line_data(struct h2_stream *s, const uint8_t *ptr, size_t len)
{
    struct line *l = h2_stream_user(s);
    h2_consume(s, len);
    if (s == l->to)
        frame_reader_add(&l->frames, ptr, len);
}

static void line_response(struct h2_stream *s, int status)
{
    struct line *l = h2_stream_user(s);
    ASSERT(status == 200);
    l->open = true;
}

static void line_stream_closed(struct h2_stream *s, int rc)
{
    (void)s;
    (void)rc;
}

static const struct h2_stream_events stream_events = {
    .response = line_response, .data = line_data, .closed = line_stream_closed};

static void
line_request(struct h2_conn *c, struct h2_stream *s, const char *method, const char *path)
{
    struct line *l = h2_user(c);
    (void)method;
    (void)path;
    l->from = s;
    h2_follow(s, &stream_events, l);
    h2_respond(s, 200);
}

static bool line_ready(struct h2_conn *c)
{
    struct line *l = h2_user(c);
    if (c == l->client) {
        l->to = h2_request(c, "POST", "/v1/stream", &stream_events, l);
        ASSERT(l->to != NULL);
    }
    return true;
}

static void line_closed(struct h2_conn *c, int rc, const char *why)
{
    if (rc != ERR_CLOSED)
        bench_die("connection %p: %s", (void *)c, why);
}

static const struct h2_conn_events conn_events = {
    .ready = line_ready, .request = line_request, .closed = line_closed};

static void line_accept(uv_stream_t *listener, int status)
{
    struct line *l = listener->data;
    ASSERT(status == 0);
    ASSERT(h2_accept(&l->net, listener, &conn_events, l) != NULL);
}

static void line_open(struct line *l, const char *dir)
{
    struct err_detail d = {.text = ""};
    struct sockaddr_in at;
    int len = sizeof at;
    memset(l, 0, sizeof *l);
    int rc = wan_identity_open(dir, "alpha", &l->identity, &d);
    if (rc == 0)
        rc = wan_tls_context(&l->identity, &l->tls, &d);
    if (rc != 0)
        bench_die("certificate: %s", d.text);
    rc = uv_loop_init(&l->loop) | uv_tcp_init(&l->loop, &l->listener) |
         uv_ip4_addr("127.0.0.1", 0, &at);
    ASSERT(rc == 0);
    l->listener.data = l;
    rc = uv_tcp_bind(&l->listener, (struct sockaddr *)&at, 0) |
         uv_listen((uv_stream_t *)&l->listener, 1, line_accept) |
         uv_tcp_getsockname(&l->listener, (struct sockaddr *)&at, &len);
    if (rc != 0)
        bench_die("loopback");
    h2_net_init(&l->net, &l->loop, l->tls, &clock_os);
    char *address = mem_printf("127.0.0.1:%u", (unsigned)ntohs(at.sin_port));
    l->client = h2_dial(&l->net, address, H2_ASKS, l->identity.fingerprint, &conn_events, l);
    while (!l->open)
        (void)uv_run(&l->loop, UV_RUN_ONCE);
    mem_free(address);
}

static void handle_close(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void line_close(struct line *l)
{
    for (struct h2_conn *c = l->net.conns; c != NULL; c = h2_next(c))
        h2_close(c, ERR_CLOSED, "done");
    while (l->net.conns != NULL)
        (void)uv_run(&l->loop, UV_RUN_ONCE);
    uv_walk(&l->loop, handle_close, NULL);
    (void)uv_run(&l->loop, UV_RUN_DEFAULT);
    int rc = uv_loop_close(&l->loop);
    ASSERT(rc == 0);
    h2_net_deinit(&l->net);
    frame_reader_deinit(&l->frames);
    SSL_CTX_free(l->tls);
    wan_identity_deinit(&l->identity);
}

/* One frame from end to end; borrowed until the next. */
static struct slice line_send(struct line *l, const struct buf *payload)
{
    struct buf frame = {.ptr = NULL};
    struct frame f;
    bool got = false;
    frame_encode(&frame, FRAME_BATCH, buf_slice(payload));
    h2_write(l->from, frame.ptr, frame.len);
    buf_deinit(&frame);
    for (;;) {
        int rc = frame_reader_next(&l->frames, &f, &got);
        ASSERT(rc == 0);
        if (got)
            return f.payload;
        (void)uv_run(&l->loop, UV_RUN_ONCE);
    }
}

/* ---- the parts ---- */

enum part {
    GATHER,
    ENCODE,
    PACK,
    LINE,
    UNPACK,
    DECODE,
    READ,
    APPLY,
    PART_COUNT
};
static const char *const part_names[PART_COUNT] = {
    [GATHER] = "gather", [ENCODE] = "encode", [PACK] = "pack", [LINE] = "line",
    [UNPACK] = "unpack", [DECODE] = "decode", [READ] = "read", [APPLY] = "apply"};

struct stream {
    struct line line;
    struct gateway *gateway;
    struct batch_memory there, here;
    struct zpack *pack;
    struct zunpack *unpack;
    struct batch_decoded got;
    struct state *state;
    struct merge *merge;
    uint64_t index;
    double part_s[PART_COUNT];
    uint64_t ops, wire_bytes;
};

static void site_hex(void *ctx, site_id_t site, char out[33])
{
    (void)ctx;
    (void)snprintf(out, 33, "site%u", site);
}

static void stream_open(struct stream *s, const char *dir)
{
    static const uint64_t next[1] = {1};
    static const struct vv have[1];
    memset(s, 0, sizeof *s);
    line_open(&s->line, dir);
    s->gateway = gateway_new(1, PEER, next, have);
    batch_memory_init(&s->there, 1);
    batch_memory_init(&s->here, 1);
    s->pack = zpack_new();
    s->unpack = zunpack_new();
    int rc = state_open(&s->state, NULL);
    ASSERT(rc == 0);
    struct merge_config c = {
        .shard_count = 1, .site = PEER, .state = s->state, .site_name = site_hex};
    rc = merge_open(&s->merge, &c);
    ASSERT(rc == 0);
}

static void stream_close(struct stream *s)
{
    merge_free(s->merge);
    state_free(s->state);
    zpack_free(s->pack);
    zunpack_free(s->unpack);
    batch_decoded_deinit(&s->got);
    batch_memory_deinit(&s->there);
    batch_memory_deinit(&s->here);
    gateway_free(s->gateway);
    line_close(&s->line);
}

/* Adds the time since *from to a part. */
static void lap(struct stream *s, enum part part, double *from)
{
    double t = now();
    s->part_s[part] += t - *from;
    *from = t;
}

static void batch_arrive(struct stream *s, struct slice payload)
{
    struct dec d = dec_of(payload);
    struct buf plain = {.ptr = NULL};
    struct op_arena arena = {.head = NULL};
    double t = now();
    struct slice noise = dec_bytes(&d, payload.len);
    int rc = zunpack_next(s->unpack, slice_of(d.at, dec_left(&d)), FRAME_PAYLOAD_MAX, &plain);
    ASSERT(rc == 0);
    lap(s, UNPACK, &t);
    rc = batch_decode(&s->here, buf_slice(&plain), noise, &s->got);
    ASSERT(rc == 0);
    lap(s, DECODE, &t);
    struct op *ops = mem_alloc(s->got.batch.count * sizeof *ops);
    for (uint32_t i = 0; i < s->got.batch.count; i++) {
        rc = op_decode(s->got.batch.items[i].op, &arena, &ops[i]);
        ASSERT(rc == 0);
    }
    lap(s, READ, &t);
    for (uint32_t i = 0; i < s->got.batch.count; i++) {
        rc = merge_apply(s->merge, &ops[i]);
        ASSERT(rc == 0);
    }
    lap(s, APPLY, &t);
    s->ops += s->got.batch.count;
    mem_free(ops);
    op_arena_deinit(&arena);
    buf_deinit(&plain);
}

/* One batch through everything; false: there is none. */
static bool batch_pass(struct stream *s)
{
    struct batch b;
    struct buf plain = {.ptr = NULL}, noise = {.ptr = NULL}, packed = {.ptr = NULL};
    double t = now();
    bool got = gateway_batch(s->gateway, false, &b);
    lap(s, GATHER, &t);
    if (!got)
        return false;
    batch_encode(&s->there, &b, &plain, &noise);
    lap(s, ENCODE, &t);
    enc_bytes(&packed, buf_slice(&noise));
    zpack_add(s->pack, buf_slice(&plain), &packed);
    lap(s, PACK, &t);
    struct slice payload = line_send(&s->line, &packed);
    lap(s, LINE, &t);
    s->wire_bytes += FRAME_HEADER_BYTES + packed.len;
    batch_arrive(s, payload);
    buf_deinit(&plain);
    buf_deinit(&noise);
    buf_deinit(&packed);
    return true;
}

/* As the journal would hand them out: encoded, a piece at a time. */
static void feed(struct stream *s, const struct history *h)
{
    struct buf bytes = {.ptr = NULL};
    for (uint32_t i = 0; i < h->count;) {
        double t = 0;
        for (uint32_t end = MIN(i + CHUNK, h->count); i < end; i++) {
            buf_clear(&bytes);
            op_encode(&h->ops[i], &bytes);
            struct feed_item item = {.index = ++s->index,
                                     .commit_hlc = h->ops[i].stamp.hlc,
                                     .dot = h->ops[i].dot,
                                     .stamp = h->ops[i].stamp,
                                     .op = buf_slice(&bytes)};
            t = now();
            gateway_add(s->gateway, &item);
            lap(s, GATHER, &t);
        }
        struct feed_state state = {.shard_count = 1, .safe_hlc = h->ops[i - 1].stamp.hlc};
        state.durable[0] = s->index;
        gateway_read_done(s->gateway, 0, s->index + 1);
        gateway_see_state(s->gateway, &state);
        while (batch_pass(s))
            continue;
    }
    buf_deinit(&bytes);
}

/* ---- figures ---- */

struct figures {
    struct samples parts[PART_COUNT], sender, receiver, alone, applied, wire;
};

static void figures_add(struct figures *f, const struct stream *s, double ops)
{
    double all = 0, sender = s->part_s[LINE] / 2;
    for (int p = 0; p < PART_COUNT; p++) {
        samples_add(&f->parts[p], ops / s->part_s[p]);
        all += s->part_s[p];
        if (p < LINE)
            sender += s->part_s[p];
    }
    samples_add(&f->sender, ops / sender);
    double alone = all - s->part_s[READ] - s->part_s[APPLY];
    samples_add(&f->receiver, ops / (alone - sender));
    samples_add(&f->alone, ops / alone);
    samples_add(&f->applied, ops / all);
    samples_add(&f->wire, (double)s->wire_bytes / ops);
}

static void figures_print(const struct figures *f)
{
    struct samples goal = {.v = {GOAL}, .count = 1};
    for (int p = 0; p < PART_COUNT; p++) {
        char *name = mem_printf("stream.%s", part_names[p]);
        figure_print(name, "1/s", MORE_IS_BETTER, &f->parts[p], NULL);
        mem_free(name);
    }
    figure_print("stream.sender", "1/s", MORE_IS_BETTER, &f->sender, &goal);
    figure_print("stream.receiver", "1/s", MORE_IS_BETTER, &f->receiver, &goal);
    figure_print("stream.alone", "1/s", MORE_IS_BETTER, &f->alone, &goal);
    figure_print("stream.applied", "1/s", MORE_IS_BETTER, &f->applied, NULL);
    figure_print("stream.bytes", "B", LESS_IS_BETTER, &f->wire, NULL);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int main(int argc, char **argv)
{
    static struct stream s;
    static struct history h;
    static struct figures f;
    uint32_t count = 500000;
    const char *base = "/tmp";
    for (int c; (c = getopt(argc, argv, "n:d:")) != -1;) {
        if (c == 'n')
            count = (uint32_t)number_of(optarg);
        else if (c == 'd')
            base = optarg;
        else
            return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN); /* one end of the line closes before the other: no error here */
    char *dir = mem_printf("%s/bench-stream-XXXXXX", base);
    if (mkdtemp(dir) == NULL)
        bench_die("%s", dir);
    stream_open(&s, dir);
    history_init(&h, SITE, hlc_from_wall(clock_wall_ns(&clock_os)));
    history_make_dirs(&h);
    feed(&s, &h);
    for (int i = 0; i < SLICES; i++) {
        memset(s.part_s, 0, sizeof s.part_s);
        s.ops = s.wire_bytes = 0;
        history_steps(&h, count / SLICES);
        feed(&s, &h);
        ASSERT(s.ops == h.count);
        figures_add(&f, &s, (double)s.ops);
    }
    figures_print(&f);
    stream_close(&s);
    history_deinit(&h);
    if (nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        bench_die("%s", dir);
    mem_free(dir);
    return 0;
}
