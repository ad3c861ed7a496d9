/* Private to wan/: what is in its small files: from whom the first snapshot comes
 * (DIR/wan_boot.json) and which peers are paused here (DIR/wan.json). Core. */
#ifndef WAN_STATE_FILE_H
#define WAN_STATE_FILE_H

#include <jansson.h>

#include "site/node.h"
#include "wan/msg.h"

struct boot_from {
    struct member from; /* site, name, address and fingerprint */
    bool fs_known;      /* false: a program of before wrote it, and it is the one being joined */
    uint8_t fs_id[FS_ID_BYTES];
};
/* The site's key and this file are not written at once. So while another one is about to take the
 * place of whoever was asked before, both are in there: the key says which of them it is. */
struct boot_file {
    struct boot_from now, before;
    bool has_before;
};
int boot_file_parse(struct slice text, struct boot_file *ret) MUST_CHECK; /* ERR_CORRUPT */
json_t *boot_file_json(const struct boot_file *f);
/* Whom to ask for the snapshot of this file system; within f, or NULL: it is of other ones. */
const struct boot_from *boot_file_of(const struct boot_file *f, const uint8_t fs_id[FS_ID_BYTES]);

/* An object, to be decref'd, whose keys are site ids in hexadecimal; NULL: damaged. */
json_t *paused_file_parse(struct slice text);
json_t *paused_file_json(json_t *paused /* kept */);

/* Freed with free(). */
char *state_file_text(json_t *root /* taken */);

#endif
