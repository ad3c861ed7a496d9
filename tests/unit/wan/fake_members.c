/* The in-memory node: members, and the records they are. */
#include <string.h>

#include "base/limits.h"
#include "tests/unit/wan/fake_node_int.h"
#include "tests/unit/wan/wan_test.h"

void fake_member_apply(struct node *n, struct slice body, uint64_t hlc)
{
    struct mp m = mp_of(slice_of(body.ptr + 1, body.len - 1));
    struct fake_member f = {.hlc = hlc, .m.told_hlc = hlc};
    mp_get_array(&m, 7);
    f.m.site = (site_id_t)mp_get_uint(&m, UINT32_MAX);
    struct slice name = mp_get_bin(&m, 32), address = mp_get_bin(&m, 127);
    struct slice fp = mp_get_bin_exact(&m, 32), cert = mp_get_bin(&m, sizeof f.cert);
    f.m.status = (uint8_t)mp_get_uint(&m, 2);
    f.m.why = (uint8_t)mp_get_uint(&m, LEAVES_AWAY);
    if (mp_end(&m) != 0) {
        fake_violated(n, "a member record is damaged");
        return;
    }
    memcpy(f.m.name, name.ptr, name.len);
    if (address.len > 0)
        memcpy(f.m.wan, address.ptr, address.len);
    memcpy(f.m.cert_sha256, fp.ptr, 32);
    memcpy(f.cert, cert.ptr, cert.len);
    f.m.cert.len = cert.len;
    unsigned i = 0;
    while (i < n->member_count && n->members[i].m.site != f.m.site)
        i++;
    if (i < n->member_count && n->members[i].hlc > hlc)
        return;
    n->members[i] = f;
    n->members[i].m.cert.ptr = (uint8_t *)n->members[i].cert;
    n->member_count = MAX(n->member_count, i + 1);
    if (n->members_changed != NULL)
        n->members_changed(n->members_ctx);
}

int node_members(struct node *n, bool (*fn)(void *ctx, const struct member *m), void *ctx)
{
    pthread_mutex_lock(&n->lock);
    for (unsigned i = 0; i < n->member_count && !n->members_hidden; i++)
        if (!fn(ctx, &n->members[i].m))
            break;
    pthread_mutex_unlock(&n->lock);
    return 0;
}

void fake_members_hide(struct node *n, bool on)
{
    pthread_mutex_lock(&n->lock);
    n->members_hidden = on;
    pthread_mutex_unlock(&n->lock);
}

static void set_done_run(struct later *l)
{
    l->done(l->ctx, 0);
}

void node_member_set(struct node *n,
                     const struct member *m,
                     void (*done)(void *ctx, int rc),
                     void *ctx)
{
    struct buf body = {0};
    buf_append(&body, "M", 1);
    mp_array(&body, 7);
    mp_uint(&body, m->site);
    mp_cstr(&body, m->name);
    mp_cstr(&body, m->wan);
    mp_bin(&body, slice_of(m->cert_sha256, 32));
    mp_bin(&body, m->cert);
    mp_uint(&body, m->status);
    mp_uint(&body, m->why);
    pthread_mutex_lock(&n->lock);
    fake_op_make(n, 0, 0, buf_slice(&body));
    fake_moved(n);
    pthread_mutex_unlock(&n->lock);
    buf_deinit(&body);
    fake_later(n, (struct later){.run = set_done_run, .done = done, .ctx = ctx});
}

static struct member member_of(struct node *n, site_id_t site)
{
    struct member m = {.site = 0};
    pthread_mutex_lock(&n->lock);
    for (unsigned i = 0; i < n->member_count; i++)
        if (n->members[i].m.site == site)
            m = n->members[i].m;
    pthread_mutex_unlock(&n->lock);
    return m;
}

void node_member_enter(struct node *n,
                       const struct member *m,
                       void (*done)(void *ctx, int rc),
                       void *ctx)
{
    node_member_set(n, m, done, ctx);
}

void node_member_bring(struct node *n,
                       const struct member *m,
                       enum member_leaves why,
                       void (*done)(void *ctx, int rc),
                       void *ctx)
{
    struct member gone = *m;
    gone.status = MEMBER_REMOVED;
    gone.why = (uint8_t)why;
    node_member_set(n, &gone, done, ctx);
}

void node_member_remove(struct node *n,
                        site_id_t site,
                        enum member_leaves why,
                        void (*done)(void *ctx, int rc),
                        void *ctx)
{
    struct member m = member_of(n, site);
    m.status = MEMBER_REMOVED;
    m.why = (uint8_t)why;
    node_member_set(n, &m, done, ctx);
}

static void set_ignored(void *ctx, int rc)
{
    (void)ctx;
    (void)rc;
}

void node_member_returns(struct node *n,
                         site_id_t before,
                         const uint8_t *cert_sha256,
                         site_id_t after,
                         void (*done)(void *ctx, int rc),
                         void *ctx)
{
    struct member m = {.site = 0};
    pthread_mutex_lock(&n->lock);
    for (unsigned i = 0; i < n->member_count; i++)
        if (memcmp(n->members[i].m.cert_sha256, cert_sha256, sizeof m.cert_sha256) == 0)
            m = n->members[i].m;
    pthread_mutex_unlock(&n->lock);
    m.site = before;
    m.status = MEMBER_REMOVED;
    node_member_set(n, &m, set_ignored, NULL);
    m.site = after;
    m.status = MEMBER_IS;
    node_member_set(n, &m, done, ctx);
}

/* Of all ids of the site. */
void node_member_readmit(struct node *n, site_id_t site, void (*done)(void *ctx, int rc), void *ctx)
{
    struct member m = member_of(n, site);
    site_id_t ids[SITE_COUNT_MAX];
    unsigned count = 0;
    if (m.status == MEMBER_IS) {
        done(ctx, ERR_INVALID);
        return;
    }
    pthread_mutex_lock(&n->lock);
    for (unsigned i = 0; i < n->member_count; i++)
        if (n->members[i].m.why == LEAVES_REMOVED && n->members[i].m.site != site &&
            memcmp(n->members[i].m.cert_sha256, m.cert_sha256, sizeof m.cert_sha256) == 0)
            ids[count++] = n->members[i].m.site;
    pthread_mutex_unlock(&n->lock);
    for (unsigned i = 0; i < count; i++)
        node_member_remove(n, ids[i], LEAVES_AWAY, set_ignored, NULL);
    node_member_remove(n, site, LEAVES_AWAY, done, ctx);
}

void node_members_watch(struct node *n, void (*changed)(void *ctx), void *ctx)
{
    n->members_changed = changed;
    n->members_ctx = ctx;
}
