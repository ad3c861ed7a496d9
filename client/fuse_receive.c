/* Requests as they come from the kernel: the head goes where libfuse looks for it, the bytes of a
 * WRITE straight into buffers that a dirty layer can take over, so that they are not copied again.
 *
 * What a request is, is known when it has been read only; so all are read in this way, and what is
 * behind the head of any other is put where it belongs. Each thread holds buffers for one request,
 * whose memory is made when something is first read into it. */
#include <pthread.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "client/fuse_ops.h"

#include <linux/fuse.h>

#include "base/assert.h"
#include "client/cache_pages.h"

#define HEAD_BYTES (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
#define PAGES_COUNT (SESSION_WRITE_BYTES_MAX / PAGES_BYTES)

struct received {
    bool kill_priv;
    bool in_pages; /* the bytes of a WRITE */
    uint8_t *at[PAGES_COUNT];
};

static pthread_key_t received_key;
static pthread_once_t received_once = PTHREAD_ONCE_INIT;
static uint32_t init_flags_offered; /* by the kernel; written once, before any other request */

static void received_gone(void *arg)
{
    struct received *r = arg;
    for (size_t i = 0; i < PAGES_COUNT; i++)
        if (r->at[i] != NULL)
            pages_put(r->at[i]);
    mem_free(r);
}

static void received_key_make(void)
{
    int rc = pthread_key_create(&received_key, received_gone);
    ASSERT_EQ(rc, 0);
}

/* Of the calling thread. */
static struct received *received(void)
{
    static __thread struct received *mine;
    if (mine != NULL)
        return mine;
    pthread_once(&received_once, received_key_make);
    mine = mem_calloc(1, sizeof *mine);
    int rc = pthread_setspecific(received_key, mine);
    ASSERT_EQ(rc, 0);
    for (size_t i = 0; i < PAGES_COUNT; i++)
        mine->at[i] = pages_later();
    return mine;
}

bool session_kill_priv(void)
{
    return received()->kill_priv;
}

uint32_t session_init_flags(void)
{
    return init_flags_offered;
}

uint8_t **session_pages(void)
{
    struct received *r = received();
    return r->in_pages ? r->at : NULL;
}

static bool wants_kill(const struct fuse_in_header *h, const uint8_t *arg, size_t len)
{
    if (h->opcode == FUSE_WRITE && len >= sizeof(struct fuse_write_in)) {
        struct fuse_write_in in;
        memcpy(&in, arg, sizeof in);
        return (in.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
    }
    if (h->opcode == FUSE_OPEN && len >= sizeof(struct fuse_open_in)) {
        struct fuse_open_in in;
        memcpy(&in, arg, sizeof in);
        return (in.open_flags & FUSE_OPEN_KILL_SUIDGID) != 0;
    }
    if (h->opcode == FUSE_SETATTR && len >= sizeof(struct fuse_setattr_in)) {
        struct fuse_setattr_in in;
        memcpy(&in, arg, sizeof in);
        return (in.valid & FATTR_KILL_SUIDGID) != 0;
    }
    return false;
}

/* Head and the rest apart. */
static ssize_t read_apart(struct received *r, int fd, uint8_t *buf)
{
    struct iovec at[1 + PAGES_COUNT] = {{.iov_base = buf, .iov_len = HEAD_BYTES}};
    for (size_t i = 0; i < PAGES_COUNT; i++) {
        if (r->at[i] == NULL) /* taken over */
            r->at[i] = pages_get();
        at[1 + i] = (struct iovec){.iov_base = r->at[i], .iov_len = PAGES_BYTES};
    }
    return readv(fd, at, 1 + PAGES_COUNT);
}

/* What is not a WRITE is put together. */
static void join(struct received *r, uint8_t *buf, size_t len)
{
    struct fuse_in_header h;
    struct fuse_write_in in;
    size_t rest = len > HEAD_BYTES ? len - HEAD_BYTES : 0;
    memcpy(&h, buf, sizeof h);
    memcpy(&in, buf + sizeof h, sizeof in); /* of another request it is whatever */
    r->in_pages = h.opcode == FUSE_WRITE && len >= HEAD_BYTES && in.size == rest;
    if (r->in_pages)
        return;
    for (size_t i = 0, n; rest > 0; i++, rest -= n) {
        n = MIN(rest, PAGES_BYTES);
        memcpy(buf + HEAD_BYTES + i * PAGES_BYTES, r->at[i], n);
    }
}

ssize_t session_read(int fd, void *buf, size_t len, void *userdata)
{
    (void)userdata;
    struct received *r = received();
    bool apart = len >= HEAD_BYTES + SESSION_WRITE_BYTES_MAX;
    ssize_t n = apart ? read_apart(r, fd, buf) : read(fd, buf, len);
    struct fuse_in_header h;
    r->kill_priv = r->in_pages = false;
    if (n < (ssize_t)sizeof h)
        return n;
    if (apart)
        join(r, buf, (size_t)n);
    memcpy(&h, buf, sizeof h);
    const uint8_t *arg = (const uint8_t *)buf + sizeof h;
    size_t arg_len = (size_t)n - sizeof h;
    if (h.opcode == FUSE_INIT && arg_len >= 16) {
        struct fuse_init_in in = {0};
        memcpy(&in, arg, MIN(arg_len, sizeof in));
        init_flags_offered = in.flags;
    }
    r->kill_priv = wants_kill(&h, arg, arg_len);
    return n;
}
