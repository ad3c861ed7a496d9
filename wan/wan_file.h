/* Small files of the WAN part in the site's directory, written so that a crash leaves the old or
 * the new one. A shell; any thread. */
#ifndef WAN_WAN_FILE_H
#define WAN_WAN_FILE_H

#include "base/buf.h"
#include "base/err.h"

#define WAN_FILE_MAX (1024u * 1024u)

/* Appends the file's bytes. ERR_NOT_FOUND: there is none; ERR_TOO_BIG; ERR_IO, ERR_ACCESS, ... */
int wan_file_read(const char *dir, const char *name, struct buf *out, struct err_detail *d)
    MUST_CHECK;
int wan_file_write(const char *dir,
                   const char *name,
                   unsigned mode,
                   struct slice bytes,
                   struct err_detail *d) MUST_CHECK;
int wan_file_remove(const char *dir, const char *name, struct err_detail *d) MUST_CHECK;

#endif
