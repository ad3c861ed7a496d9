/* Addresses of sockets. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "site/rpc_int.h"

enum {
    TCP_PATIENCE_MS = 30000 /* unacknowledged bytes for this long: the peer is gone */
};

int rpc_unix_address(const char *path, struct sockaddr_un *ret, int *ret_dir_fd)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    *ret_dir_fd = -1;
    if (len == 0)
        return ERR_INVALID;
    if (len < sizeof addr.sun_path) {
        memcpy(addr.sun_path, path, len);
        *ret = addr;
        return 0;
    }
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return ERR_NAME_TOO_LONG;
    char *dir = mem_printf("%.*s/", (int)(slash - path), path);
    int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? err_from_errno(errno) : 0;
    mem_free(dir);
    if (rc != 0)
        return rc;
    int need = snprintf(addr.sun_path, sizeof addr.sun_path, "/proc/self/fd/%d/%s", fd, slash + 1);
    if (need < 0 || (size_t)need >= sizeof addr.sun_path) {
        (void)close(fd);
        return ERR_NAME_TOO_LONG;
    }
    *ret = addr;
    *ret_dir_fd = fd;
    return 0;
}

void rpc_tcp_tune(int fd)
{
    const int one = 1;
    const unsigned patience_ms = TCP_PATIENCE_MS;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience_ms, sizeof patience_ms);
}
