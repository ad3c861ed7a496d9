/* Private to site/: what is in the small files of a site that comes back: its plan
 * (DIR/return.json) and the lines of what is made already (DIR/return.progress). Core. See
 * node_return.c. */
#ifndef SITE_RETURN_FILE_H
#define SITE_RETURN_FILE_H

#include <jansson.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"

/* DIR/return.json; see node_return.c for the phases. */
enum return_phase {
    RETURN_NONE,
    RETURN_ASKING,     /* a new id was drawn; the others are asked */
    RETURN_COLLECTING, /* they agreed: at the next start the list is made */
    RETURN_ADOPTING,   /* the list is there: the site changes its id and empties its shards */
    RETURN_APPLYING,   /* the others' tree comes, then the list is carried out on it */
    RETURN_PHASES
};
struct return_plan {
    enum return_phase phase;
    site_id_t before, after;
    site_id_t asked;  /* to whom `after` was shown; 0: to nobody, or it is not known */
    bool rolled_back; /* the old id may have named other operations with the same numbers */
};
int return_plan_parse(struct slice text, struct return_plan *ret) MUST_CHECK; /* ERR_CORRUPT */
json_t *return_plan_json(const struct return_plan *p);

/* A conflict that was noted. */
struct return_note {
    uint8_t rule;
    struct oid oid, other, parent;
    struct slice name, other_name;
    site_id_t winner;
    struct stamp winner_stamp, loser_stamp;
};

enum {
    RETURN_NOTE_BYTES = 1024 /* of its binary form, at most */
};
/* What a line says; what it does not, or not so that it can be read, is false. */
struct return_line {
    bool has_note;
    struct return_note note; /* borrows from bytes */
    bool is_made;            /* `before` of the list is `now` in the others' tree */
    bool is_dir;
    struct oid before, now;
    uint8_t bytes[RETURN_NOTE_BYTES];
};
void return_line_parse(struct slice text, unsigned shard_count, struct return_line *ret);
/* Lines to be written. */
json_t *return_made_json(bool is_dir, struct oid before, struct oid now);
json_t *return_note_json(const struct return_note *note);

#endif
