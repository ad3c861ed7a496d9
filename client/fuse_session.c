/* The FUSE session: what is agreed with the kernel, and the hooks for what libfuse 3.14 does not
 * know. libfuse reads (fuse_receive.c) and writes through functions of ours: they let us agree on
 * HANDLE_KILLPRIV_V2 (without it the kernel asks for security.capability at every write), see the
 * flag that says whether a writer may keep set-id bits, and take what is written from where the
 * kernel puts it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "client/fuse_ops.h"

#include <linux/fuse.h>

#include "base/log.h"
#include "client/background.h"

#define READ_AHEAD_BYTES (1u << 20)
#define BACKGROUND_MAX 64u

static bool init_answered;

static ssize_t hook_writev(int fd, struct iovec *iov, int count, void *userdata)
{
    (void)userdata;
    /* The first answer is that to INIT. */
    if (!init_answered && count == 2 && iov[1].iov_len >= sizeof(struct fuse_init_out)) {
        struct fuse_out_header h;
        memcpy(&h, iov[0].iov_base, sizeof h);
        if (h.error == 0 && h.unique != 0) {
            struct fuse_init_out out;
            memcpy(&out, iov[1].iov_base, sizeof out);
            out.flags |= session_init_flags() & FUSE_HANDLE_KILLPRIV_V2;
            memcpy(iov[1].iov_base, &out, sizeof out);
            init_answered = true;
        }
    }
    return writev(fd, iov, count);
}

static void op_init(void *userdata, struct fuse_conn_info *c)
{
    struct mount *m = userdata;
    unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_ATOMIC_O_TRUNC |
                    FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_DONT_MASK | FUSE_CAP_FLOCK_LOCKS |
                    FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO |
                    FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_POSIX_ACL | FUSE_CAP_CACHE_SYMLINKS |
                    FUSE_CAP_EXPLICIT_INVAL_DATA;
    c->want = c->capable & want; /* no splice, no writeback cache: measured to be slower here */
    c->max_write = SESSION_WRITE_BYTES_MAX;
    c->max_readahead = READ_AHEAD_BYTES;
    c->max_background = BACKGROUND_MAX;
    c->congestion_threshold = BACKGROUND_MAX * 3 / 4;
    c->time_gran = 1;
    background_ready(&m->ready_fd);
}

static const struct fuse_lowlevel_ops ops = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .readlink = op_readlink,
    .statfs = op_statfs,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .symlink = op_symlink,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .rename = op_rename,
    .link = op_link,
    .create = op_create,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .releasedir = op_releasedir,
    .fsyncdir = op_fsyncdir,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .release = op_release,
    .fsync = op_fsync,
    .fallocate = op_fallocate,
    .lseek = op_lseek,
    .copy_file_range = op_copy_file_range,
    .ioctl = op_ioctl,
    .getlk = op_getlk,
    .setlk = op_setlk,
    .flock = op_flock,
    .setxattr = op_setxattr,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .removexattr = op_removexattr,
};

/* The kernel reads 128 KiB ahead unless told otherwise, which takes root; whoever is not goes on
 * with that. Our own attributes are not asked for: nobody answers yet. */
static void read_ahead_set(const struct mount *m)
{
    struct statx st;
    char path[64], text[16];
    if (statx(AT_FDCWD, m->options.mountpoint, AT_STATX_DONT_SYNC, STATX_TYPE, &st) != 0)
        return;
    (void)snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb",
                   (unsigned)st.stx_dev_major, (unsigned)st.stx_dev_minor);
    int len = snprintf(text, sizeof text, "%u", READ_AHEAD_BYTES / 1024u);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, text, (size_t)len) != len)
        log_debug(LOG_CLIENT, "read_ahead_not_set", "path=%s errno=%d", path, errno);
    (void)close(fd); /* nothing is buffered */
}

int session_mount(struct mount *m, struct err_detail *d)
{
    static const struct fuse_custom_io io = {.writev = hook_writev, .read = session_read};
    char name[] = "claudefs";
    char *argv[] = {name, m->options.fuse_args, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(2, argv);
    m->session = fuse_session_new(&args, &ops, sizeof ops, m);
    fuse_opt_free_args(&args);
    if (m->session == NULL) {
        err_detail_set(d, "libfuse refused the options %s", m->options.fuse_args);
        return ERR_CONFIG;
    }
    if (fuse_session_mount(m->session, m->options.mountpoint) != 0) {
        err_detail_set(d, "cannot mount on %s: is /dev/fuse there, and are you allowed to?",
                       m->options.mountpoint);
        fuse_session_destroy(m->session);
        m->session = NULL;
        return ERR_NOT_PERMITTED;
    }
    int rc = fuse_session_custom_io(m->session, &io, fuse_session_fd(m->session));
    if (rc != 0)
        log_warn(LOG_CLIENT, "no_custom_io", "rc=%d: set-id bits are left to the kernel", rc);
    read_ahead_set(m);
    notifier_probe(m->notifier);
    return 0;
}

int session_loop(struct mount *m)
{
    if (fuse_set_signal_handlers(m->session) != 0)
        return ERR_FATAL;
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    fuse_loop_cfg_set_clone_fd(config, 1);
    fuse_loop_cfg_set_max_threads(config, (unsigned)m->options.threads_max);
    fuse_loop_cfg_set_idle_threads(config, (unsigned)m->options.threads_max);
    int rc = fuse_session_loop_mt(m->session, config);
    fuse_loop_cfg_destroy(config);
    fuse_remove_signal_handlers(m->session);
    notifier_mute(m->notifier); /* or it wrote to whatever gets the number of the descriptor */
    fuse_session_unmount(m->session);
    notifier_kernel_gone(m->notifier);
    return rc < 0 ? err_from_errno(-rc) : 0; /* > 0: the signal that ended it */
}

void session_free(struct mount *m)
{
    if (m->session != NULL)
        fuse_session_destroy(m->session);
    m->session = NULL;
}
