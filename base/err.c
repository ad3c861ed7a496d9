/* Lookups in the one table of err.h. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

struct err_entry {
    const char *name, *text;
    enum err_class class;
    int num;
};

static const struct err_entry entries[ERR_IDX_COUNT] = {
    [ERR_IDX_OK] = {"OK", "success", ERR_CLASS_NONE, 0},
#define X(name_, class_, num_, text_) [ERR_IDX_##name_] = {#name_, text_, ERR_CLASS_##class_, num_},
    ERR_TABLE(X)
#undef X
};

static const struct err_entry *entry_of(int rc)
{
    if (rc > 0 || rc <= -(int)ERR_IDX_COUNT)
        return &entries[ERR_IDX_FATAL];
    return &entries[-rc];
}

const char *err_name(int rc)
{
    return entry_of(rc)->name;
}

const char *err_text(int rc)
{
    return entry_of(rc)->text;
}

enum err_class err_class(int rc)
{
    return entry_of(rc)->class;
}

int err_errno(int rc)
{
    return entry_of(rc)->num;
}

/* Not the inverse of err_errno: several codes share an errno, and the kernel's meaning decides. */
static const struct {
    int num, rc;
} from_errno[] = {
    {0, ERR_OK},
    {EAGAIN, ERR_AGAIN},
    {ETIMEDOUT, ERR_TIMEOUT},
    {ETIME, ERR_TIMEOUT},
    {EPROTO, ERR_PEER},
    {ECONNREFUSED, ERR_UNREACHABLE},
    {ECONNRESET, ERR_UNREACHABLE},
    {ECONNABORTED, ERR_UNREACHABLE},
    {ENOTCONN, ERR_UNREACHABLE},
    {EPIPE, ERR_UNREACHABLE},
    {EHOSTUNREACH, ERR_UNREACHABLE},
    {EHOSTDOWN, ERR_UNREACHABLE},
    {ENETUNREACH, ERR_UNREACHABLE},
    {ENETDOWN, ERR_UNREACHABLE},
    {ENETRESET, ERR_UNREACHABLE},
    {ENOBUFS, ERR_LIMIT},
    {EMFILE, ERR_LIMIT},
    {ENFILE, ERR_LIMIT},
    {E2BIG, ERR_TOO_BIG},
    {EMSGSIZE, ERR_TOO_BIG},
    {ESHUTDOWN, ERR_CLOSED},
    {ECANCELED, ERR_CANCELLED},
    {EINTR, ERR_CANCELLED},
    {ENOMEM, ERR_NO_MEMORY},
    {EIO, ERR_IO},
    {ENOSPC, ERR_NO_SPACE},
    {EDQUOT, ERR_NO_SPACE},
    {ENOENT, ERR_NOT_FOUND},
    {EEXIST, ERR_EXISTS},
    {ENOTDIR, ERR_NOT_DIR},
    {EISDIR, ERR_IS_DIR},
    {ENOTEMPTY, ERR_NOT_EMPTY},
    {EINVAL, ERR_INVALID},
    {ENAMETOOLONG, ERR_NAME_TOO_LONG},
    {EPERM, ERR_NOT_PERMITTED},
    {EROFS, ERR_NOT_PERMITTED},
    {EACCES, ERR_ACCESS},
    {EXDEV, ERR_CROSS_DEVICE},
    {EMLINK, ERR_TOO_MANY_LINKS},
    {EFBIG, ERR_FILE_TOO_BIG},
    {ESTALE, ERR_STALE},
    {ENODATA, ERR_NO_DATA},
    {ERANGE, ERR_OUT_OF_RANGE},
    {EOVERFLOW, ERR_OUT_OF_RANGE},
    {EOPNOTSUPP, ERR_NOT_SUPPORTED},
    {ENOSYS, ERR_NOT_SUPPORTED},
    {EBUSY, ERR_BUSY},
    {EADDRINUSE, ERR_BUSY},
    {ETXTBSY, ERR_BUSY},
    {EDEADLK, ERR_DEADLOCK},
    {ENOLCK, ERR_NO_LOCKS},
    {ENXIO, ERR_NO_SUCH_OFFSET},
};

int err_from_errno(int errnum)
{
    for (size_t i = 0; i < ARRAY_COUNT(from_errno); i++)
        if (from_errno[i].num == errnum)
            return from_errno[i].rc;
    return ERR_IO;
}

void err_detail_set(struct err_detail *d, const char *fmt, ...)
{
    if (d == NULL)
        return;
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(d->text, sizeof d->text, fmt, args);
    va_end(args);
}
