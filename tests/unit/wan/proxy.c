/* A TCP proxy that cuts: one thread, poll(). */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/wan/fake_node.h"
#include "tests/unit/wan/wan_test.h"

enum {
    PAIRS_MAX = 64,
    CHUNK = 16384
};
struct pair {
    int fd[2]; /* -1: free */
};
struct proxy {
    pthread_t thread;
    pthread_mutex_t lock;
    int listener, wake[2];
    uint16_t port, target;
    bool stop, cut, blocked;
    uint64_t budget; /* bytes until the next cut; 0: no limit */
    struct pair pairs[PAIRS_MAX];
};

static int tcp_dial(uint16_t port)
{
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void pair_end(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        if (p->fd[i] >= 0)
            close(p->fd[i]);
        p->fd[i] = -1;
    }
}

static void pairs_end(struct proxy *p)
{
    for (int i = 0; i < PAIRS_MAX; i++)
        pair_end(&p->pairs[i]);
}

static void proxy_accept(struct proxy *p)
{
    int fd = accept(p->listener, NULL, NULL);
    pthread_mutex_lock(&p->lock);
    bool blocked = p->blocked;
    uint16_t target = p->target;
    pthread_mutex_unlock(&p->lock);
    if (fd < 0)
        return;
    for (int i = 0; i < PAIRS_MAX && !blocked; i++) {
        if (p->pairs[i].fd[0] >= 0)
            continue;
        int there = tcp_dial(target);
        if (there < 0)
            break;
        p->pairs[i] = (struct pair){.fd = {fd, there}};
        return;
    }
    close(fd);
}

/* Writes may block for a moment: both ends are read by threads of their own. */
static bool copy(struct proxy *p, int from, int to)
{
    uint8_t bytes[CHUNK];
    ssize_t len = read(from, bytes, sizeof bytes);
    if (len <= 0)
        return false;
    for (ssize_t at = 0; at < len;) {
        ssize_t put = send(to, bytes + at, (size_t)(len - at), MSG_NOSIGNAL);
        if (put <= 0)
            return false;
        at += put;
    }
    pthread_mutex_lock(&p->lock);
    bool spent = p->budget > 0 && p->budget <= (uint64_t)len;
    if (spent)
        p->budget = 0;
    else if (p->budget > 0)
        p->budget -= (uint64_t)len;
    pthread_mutex_unlock(&p->lock);
    if (spent)
        pairs_end(p);
    return true;
}

static void *proxy_run(void *arg)
{
    struct proxy *p = arg;
    for (;;) {
        struct pollfd fds[2 + 2 * PAIRS_MAX] = {{.fd = p->listener, .events = POLLIN},
                                                {.fd = p->wake[0], .events = POLLIN}};
        for (int i = 0; i < 2 * PAIRS_MAX; i++)
            fds[2 + i] = (struct pollfd){.fd = p->pairs[i / 2].fd[i % 2], .events = POLLIN};
        if (poll(fds, ARRAY_COUNT(fds), -1) < 0)
            continue;
        if (fds[1].revents != 0) {
            char c;
            if (read(p->wake[0], &c, 1) != 1)
                continue;
            pthread_mutex_lock(&p->lock);
            bool stop = p->stop, cut = p->cut;
            p->cut = false;
            pthread_mutex_unlock(&p->lock);
            if (stop || cut)
                pairs_end(p);
            if (stop)
                return NULL;
            continue;
        }
        if (fds[0].revents != 0)
            proxy_accept(p);
        for (int i = 0; i < 2 * PAIRS_MAX; i++) {
            struct pair *pair = &p->pairs[i / 2];
            if (fds[2 + i].fd >= 0 && fds[2 + i].revents != 0 && pair->fd[i % 2] == fds[2 + i].fd &&
                !copy(p, pair->fd[i % 2], pair->fd[1 - i % 2]))
                pair_end(pair);
        }
    }
}

static void proxy_tell(struct proxy *p)
{
    assert_int_equal(write(p->wake[1], "x", 1), 1);
}

struct proxy *proxy_new(uint16_t target)
{
    struct proxy *p = mem_calloc(1, sizeof *p);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    p->target = target;
    for (int i = 0; i < PAIRS_MAX; i++)
        p->pairs[i] = (struct pair){.fd = {-1, -1}};
    assert_int_equal(pthread_mutex_init(&p->lock, NULL), 0);
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(p->listener, 16), 0);
    assert_int_equal(getsockname(p->listener, (struct sockaddr *)&sa, &len), 0);
    p->port = ntohs(sa.sin_port);
    assert_int_equal(pipe2(p->wake, O_CLOEXEC), 0);
    assert_int_equal(pthread_create(&p->thread, NULL, proxy_run, p), 0);
    return p;
}

void proxy_free(struct proxy *p)
{
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_mutex_unlock(&p->lock);
    proxy_tell(p);
    assert_int_equal(pthread_join(p->thread, NULL), 0);
    close(p->listener);
    close(p->wake[0]);
    close(p->wake[1]);
    pthread_mutex_destroy(&p->lock);
    mem_free(p);
}

uint16_t proxy_port(const struct proxy *p)
{
    return p->port;
}

void proxy_aim(struct proxy *p, uint16_t target)
{
    pthread_mutex_lock(&p->lock);
    p->target = target;
    pthread_mutex_unlock(&p->lock);
}

void proxy_cut(struct proxy *p)
{
    pthread_mutex_lock(&p->lock);
    p->cut = true;
    pthread_mutex_unlock(&p->lock);
    proxy_tell(p);
}

void proxy_block(struct proxy *p, bool on)
{
    pthread_mutex_lock(&p->lock);
    p->blocked = on;
    p->cut = p->cut || on;
    pthread_mutex_unlock(&p->lock);
    proxy_tell(p);
}

void proxy_cut_after(struct proxy *p, uint64_t bytes)
{
    pthread_mutex_lock(&p->lock);
    p->budget = bytes;
    pthread_mutex_unlock(&p->lock);
}
