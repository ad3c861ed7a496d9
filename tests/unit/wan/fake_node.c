/* The in-memory node: its life, its loop and its clock; see fake_node.h. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cond.h"
#include "site/node_return.h"
#include "tests/unit/wan/fake_node_int.h"
#include "tests/unit/wan/wan_test.h"

enum {
    WAIT_S = 60
};

/* libuv, which is not built with the thread sanitizer, closes descriptors behind its back; whatever
 * gets the same number next then looks like a race on it. wan_file.c shares nothing but numbers. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:wan_file.c\nrace:^socket$\nrace:^epoll_create1$\nrace:^epoll_ctl$\n"
           "race:^accept4$\n";
}

/* All waiting of test threads is on this pair. */
static pthread_mutex_t wake_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake_cond = PTHREAD_COND_INITIALIZER;

void fake_wake(void)
{
    pthread_mutex_lock(&wake_lock);
    pthread_cond_broadcast(&wake_cond);
    pthread_mutex_unlock(&wake_lock);
}

void wait_until(bool (*fn)(void *ctx), void *ctx, const char *what)
{
    uint64_t end = clock_mono_ns(&clock_os) + WAIT_S * NS_PER_SEC;
    while (!fn(ctx)) {
        if (clock_mono_ns(&clock_os) > end)
            fail_msg("waited in vain: %s", what);
        /* What the WAN thread alone knows wakes nobody: look again now and then. */
        pthread_mutex_lock(&wake_lock);
        (void)cond_wait_ns(&wake_cond, &wake_lock, 20 * NS_PER_MS);
        pthread_mutex_unlock(&wake_lock);
    }
}

static uint64_t clock_mono(void *ctx)
{
    (void)ctx;
    return clock_mono_ns(&clock_os);
}

static uint64_t clock_wall(void *ctx)
{
    struct node *n = ctx;
    return clock_wall_ns(&clock_os) + (uint64_t)__atomic_load_n(&n->shift_ns, __ATOMIC_RELAXED);
}

void fake_violated(struct node *n, const char *what)
{
    if (n->broken[0] == '\0')
        snprintf(n->broken, sizeof n->broken, "%s", what);
}

static void later_run(struct loop_msg *msg)
{
    struct later *l = CONTAINER_OF(msg, struct later, msg), **at = &l->n->laters;
    pthread_mutex_lock(&l->n->lock);
    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
    pthread_mutex_unlock(&l->n->lock);
    l->run(l);
    mem_free(l);
}

void fake_later(struct node *n, struct later what)
{
    struct later *l = mem_calloc(1, sizeof *l);
    *l = what;
    l->msg.run = later_run;
    l->n = n;
    pthread_mutex_lock(&n->lock);
    l->next = n->laters;
    n->laters = l;
    pthread_mutex_unlock(&n->lock);
    loop_post(n->loop, &l->msg);
}

static void laters_drop(struct node *n)
{
    n->commit.done = NULL;
    while (n->laters != NULL) {
        struct later *l = n->laters;
        n->laters = l->next;
        if (l->snapshot != NULL)
            node_snapshot_free(l->snapshot);
        mem_free(l);
    }
}

static void settled_run(struct later *l)
{
    l->wait->run(l->wait);
}

/* What is applied here causes nothing, unless it is said to. */
void node_settled(struct node *n, struct node_settle_wait *w)
{
    pthread_mutex_lock(&n->lock);
    bool waits = n->unsettled;
    if (waits) {
        w->next = n->settles;
        n->settles = w;
    }
    pthread_mutex_unlock(&n->lock);
    if (waits)
        fake_wake();
    else
        fake_later(n, (struct later){.run = settled_run, .wait = w});
}

void fake_unsettled(struct node *n, bool on)
{
    pthread_mutex_lock(&n->lock);
    struct node_settle_wait *w = on ? NULL : n->settles;
    n->unsettled = on;
    if (!on)
        n->settles = NULL;
    pthread_mutex_unlock(&n->lock);
    for (struct node_settle_wait *next; w != NULL; w = next) {
        next = w->next;
        fake_later(n, (struct later){.run = settled_run, .wait = w});
    }
}

bool fake_settles(struct node *n)
{
    pthread_mutex_lock(&n->lock);
    bool any = n->settles != NULL;
    pthread_mutex_unlock(&n->lock);
    return any;
}

void fake_returns(struct node *n, site_id_t id, site_id_t another)
{
    pthread_mutex_lock(&n->lock);
    n->returns = (struct fake_return){.ids = {id, another}};
    pthread_mutex_unlock(&n->lock);
}

struct fake_return fake_returned(struct node *n)
{
    pthread_mutex_lock(&n->lock);
    struct fake_return r = n->returns;
    pthread_mutex_unlock(&n->lock);
    return r;
}

/* The site's part of coming back is tested with real nodes (tests/e2e/test_return.py). */
int node_return_id(struct node *n,
                   bool rolled_back,
                   bool another,
                   site_id_t asked,
                   site_id_t *ret_id,
                   struct err_detail *d)
{
    (void)asked;
    (void)rolled_back;
    (void)d;
    pthread_mutex_lock(&n->lock);
    n->returns.drawn++;
    *ret_id = n->returns.ids[another ? 1 : 0];
    pthread_mutex_unlock(&n->lock);
    return 0;
}

int node_return_go(struct node *n, struct err_detail *d)
{
    (void)d;
    pthread_mutex_lock(&n->lock);
    n->returns.gone++;
    pthread_mutex_unlock(&n->lock);
    return 0;
}

bool node_is_returning(const struct node *n)
{
    (void)n;
    return false;
}

/* --- administration --- */

void node_admin_register(struct node *n, admin_handler h, void *hctx)
{
    n->admin = h;
    n->admin_ctx = hctx;
}

struct asking {
    struct loop_msg msg;
    struct node *n;
    const char *verb, *json;
    bool done;
    int rc;
    char *text;
};

static void asked(void *ctx, int rc, const char *text)
{
    struct asking *a = ctx;
    a->rc = rc;
    a->text = mem_strdup(text);
    __atomic_store_n(&a->done, true, __ATOMIC_RELEASE);
    fake_wake();
}

static void ask_run(struct loop_msg *msg)
{
    struct asking *a = CONTAINER_OF(msg, struct asking, msg);
    if (!a->n->admin(a->n->admin_ctx, a->verb, a->json, asked, a))
        asked(a, ERR_NOT_SUPPORTED, "not a verb");
}

static bool is_asked(void *ctx)
{
    return __atomic_load_n(&((struct asking *)ctx)->done, __ATOMIC_ACQUIRE);
}

int fake_admin(struct node *n, const char *verb, const char *json, char **ret_text)
{
    struct asking a = {.n = n, .verb = verb, .json = json};
    a.msg.run = ask_run;
    loop_post(n->loop, &a.msg);
    wait_until(is_asked, &a, verb);
    if (ret_text != NULL)
        *ret_text = a.text;
    else
        mem_free(a.text);
    return a.rc;
}

/* --- life --- */

struct loop *node_loop(struct node *n)
{
    return n->loop;
}

const struct site_settings *node_settings(const struct node *n)
{
    return &n->settings;
}

const uint8_t *node_fs_key(const struct node *n)
{
    return n->fs_key;
}

const char *node_dir(const struct node *n)
{
    return n->dir;
}

static void *loop_thread(void *arg)
{
    struct node *n = arg;
    loop_run(n->loop);
    return NULL;
}

static void loop_begin(struct node *n)
{
    assert_int_equal(loop_new(&n->loop, 64, &n->clock, NULL), 0);
    struct err_detail d = {{0}};
    int rc = wan_start(&n->wan, n, &d);
    if (rc != 0)
        fail_msg("wan_start: %s", d.text);
    assert_int_equal(pthread_create(&n->thread, NULL, loop_thread, n), 0);
}

void fake_wan_start(struct node *n)
{
    loop_begin(n);
}

void fake_wan_stop(struct node *n)
{
    loop_stop(n->loop);
    assert_int_equal(pthread_join(n->thread, NULL), 0);
    wan_stop(n->wan);
    wan_free(n->wan);
    n->wan = NULL;
    loop_free(n->loop);
    laters_drop(n);
    n->loop = NULL;
    n->members_changed = NULL;
}

void fake_become(struct node *n, site_id_t site)
{
    assert_null(n->wan);
    n->settings.site = site;
}

int fake_wan_try(struct node *n, struct wan **ret, struct err_detail *d)
{
    assert_int_equal(loop_new(&n->loop, 64, &n->clock, NULL), 0);
    int rc = wan_start(ret, n, d);
    if (rc == 0) {
        wan_stop(*ret);
        wan_free(*ret);
    }
    loop_free(n->loop);
    n->loop = NULL;
    return rc;
}

void fake_needs_snapshot(struct node *n, bool on)
{
    n->needs_snapshot = on;
}

void fake_refuse_snapshots(struct node *n, bool on)
{
    pthread_mutex_lock(&n->lock);
    n->snapshots_refused = on;
    pthread_mutex_unlock(&n->lock);
}

void fake_refuse_adopt(struct node *n, int rc)
{
    n->adopt_rc = rc;
}

uint16_t fake_port(struct node *n)
{
    return wan_listen_port(n->wan);
}

struct node *fake_new(const struct fake_options *o)
{
    const char *base = getenv("TMPDIR");
    struct node *n = mem_calloc(1, sizeof *n);
    n->clock = (struct clock){.mono_ns = clock_mono, .wall_ns = clock_wall, .ctx = n};
    assert_int_equal(pthread_mutex_init(&n->lock, NULL), 0);
    n->dir = mem_printf("%s/cfs-wan-XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(n->dir));
    n->settings = (struct site_settings){.site = o->site, .shard_count = FAKE_SHARDS};
    snprintf(n->settings.name, sizeof n->settings.name, "%s", o->name);
    snprintf(n->settings.wan, sizeof n->settings.wan, "%s", o->wan != NULL ? o->wan : "");
    snprintf(n->settings.advertise, sizeof n->settings.advertise, "%s",
             o->advertise != NULL ? o->advertise : "");
    random_bytes(n->fs_key, sizeof n->fs_key);
    for (unsigned s = 0; s < FAKE_SHARDS; s++)
        n->shards[s].first = 1;
    loop_begin(n);
    return n;
}

static int unlink_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void fake_free(struct node *n)
{
    if (n->broken[0] != '\0')
        fail_msg("%s: %s", n->settings.name, n->broken);
    fake_stall(n, false);
    if (n->wan != NULL)
        fake_wan_stop(n);
    for (unsigned s = 0; s < FAKE_SHARDS; s++) {
        while (n->shards[s].count > 0)
            buf_deinit(&n->shards[s].recs[--n->shards[s].count].op);
        mem_free(n->shards[s].recs);
    }
    while (n->chunks != NULL) {
        struct chunk *c = n->chunks;
        n->chunks = c->next;
        buf_deinit(&c->bytes);
        mem_free(c);
    }
    assert_int_equal(nftw(n->dir, unlink_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    pthread_mutex_destroy(&n->lock);
    mem_free(n->dir);
    mem_free(n);
}
