/* Writing a tar archive (POSIX ustar): regular files only, without owners. Pure. */
#ifndef CLIENT_TAR_H
#define CLIENT_TAR_H

#include "base/buf.h"

/* Appends one file. name: at most 99 bytes, relative. mtime_s: seconds since 1970. */
void tar_add(struct buf *tar, const char *name, struct slice data, uint64_t mtime_s);
void tar_end(struct buf *tar); /* the two empty blocks */

#endif
