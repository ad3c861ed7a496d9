/* Private to wan/: what is in its small files: from whom the first snapshot comes
 * (DIR/wan_boot.json) and which peers are paused here (DIR/wan.json). Core. */
#ifndef WAN_STATE_FILE_H
#define WAN_STATE_FILE_H

#include <jansson.h>

#include "site/node.h"

/* Site, name, address and fingerprint; ERR_CORRUPT. */
int boot_file_parse(struct slice text, struct member *ret) MUST_CHECK;
json_t *boot_file_json(const struct member *from);

/* An object, to be decref'd, whose keys are site ids in hexadecimal; NULL: damaged. */
json_t *paused_file_parse(struct slice text);
json_t *paused_file_json(json_t *paused /* kept */);

/* Freed with free(). */
char *state_file_text(json_t *root /* taken */);

#endif
