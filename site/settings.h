/* Private to site/: files of the site's directory. See node.h for site_create and friends. */
#ifndef SITE_SETTINGS_H
#define SITE_SETTINGS_H

#include "site/node.h"

bool site_settings_name_ok(const char *name); /* of a site: [A-Za-z0-9_-]{1,32} */
int site_settings_check(const struct site_settings *s, struct err_detail *d) MUST_CHECK;
/* Whole files, replaced atomically and durably. */
int dir_file_write(const char *dir,
                   const char *name,
                   const void *bytes,
                   size_t len,
                   struct err_detail *d) MUST_CHECK;
int dir_file_read(const char *dir, const char *name, void *out, size_t len, struct err_detail *d)
    MUST_CHECK;
int dir_file_remove(const char *dir, const char *name) MUST_CHECK; /* durably; absent is fine */
int dir_remove(const char *path) MUST_CHECK; /* with all that is in it; absent is fine */

#endif
