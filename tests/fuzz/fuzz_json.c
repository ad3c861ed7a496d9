/* Small files in JSON that say where a site is on its way: back under a new id (its plan, and the
 * lines of what was made already) or into a federation (from whom the snapshot comes); and which
 * peers are paused. The first byte chooses. What is taken reads the same when it is written again;
 * of a plan or a sender that is refused nothing is left behind. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "journal/merge_int.h"
#include "site/return_file.h"
#include "tests/fuzz/fuzz.h"
#include "wan/state_file.h"

static void check_plan(struct slice text, unsigned shards)
{
    struct return_plan one = {.phase = RETURN_NONE}, two = {.phase = RETURN_NONE};
    (void)shards;
    if (return_plan_parse(text, &one) != 0) {
        ASSERT(one.phase == RETURN_NONE && one.before == 0 && one.after == 0);
        return;
    }
    ASSERT(one.phase > RETURN_NONE && one.phase < RETURN_PHASES);
    ASSERT(one.before != 0 && one.after != 0 && one.before != one.after);
    char *again = state_file_text(return_plan_json(&one));
    int rc = return_plan_parse(slice_str(again), &two);
    ASSERT(rc == 0);
    ASSERT(one.phase == two.phase && one.before == two.before && one.after == two.after);
    ASSERT(one.rolled_back == two.rolled_back);
    free(again); /* lint-allow(memory): jansson's */
}

static void parse_again(json_t *o, unsigned shards, struct return_line *ret)
{
    char *text = json_dumps(o, JSON_COMPACT);
    ASSERT(text != NULL && strchr(text, '\n') == NULL); /* it is a line */
    return_line_parse(slice_str(text), shards, ret);
    free(text); /* lint-allow(memory): jansson's */
    json_decref(o);
}

/* It becomes a record of the state, which has to be readable. */
static void check_recorded(const struct return_note *n)
{
    struct conflict in = {.rule = n->rule,
                          .oid = n->oid,
                          .other = n->other,
                          .parent = n->parent,
                          .name = n->name,
                          .other_name = n->other_name,
                          .winner = n->winner,
                          .winner_stamp = n->winner_stamp,
                          .loser_stamp = n->loser_stamp};
    struct conflict out;
    struct buf b = {.ptr = NULL};
    conflict_encode(&in, &b);
    int rc = conflict_decode(buf_slice(&b), &out);
    ASSERT(rc == 0);
    buf_deinit(&b);
}

static void check_note(const struct return_note *n, unsigned shards)
{
    struct return_line again;
    ASSERT(oid_shard(n->parent) < shards);
    check_recorded(n);
    parse_again(return_note_json(n), shards, &again);
    ASSERT(again.has_note && !again.is_made);
    const struct return_note *m = &again.note;
    ASSERT(n->rule == m->rule && n->winner == m->winner);
    ASSERT(oid_equal(n->oid, m->oid) && oid_equal(n->other, m->other));
    ASSERT(oid_equal(n->parent, m->parent) && slice_equal(n->name, m->name));
    ASSERT(slice_equal(n->other_name, m->other_name));
    ASSERT(stamp_cmp(n->winner_stamp, m->winner_stamp) == 0);
    ASSERT(stamp_cmp(n->loser_stamp, m->loser_stamp) == 0);
}

static void check_line(struct slice text, unsigned shards)
{
    struct return_line line, again;
    return_line_parse(text, shards, &line);
    if (line.has_note)
        check_note(&line.note, shards);
    if (!line.is_made)
        return;
    ASSERT(oid_valid(line.before) && oid_valid(line.now));
    ASSERT(oid_shard(line.now) < shards && oid_is_dir(line.now) == line.is_dir);
    parse_again(return_made_json(line.is_dir, line.before, line.now), shards, &again);
    ASSERT(again.is_made && !again.has_note && again.is_dir == line.is_dir);
    ASSERT(oid_equal(line.before, again.before) && oid_equal(line.now, again.now));
}

/* The lines of notes are hexadecimal, in which nothing would be hit: here it is put around. */
static void check_hex(struct slice bytes, unsigned shards)
{
    char *hex = mem_alloc(2 * bytes.len + 1);
    char *line = mem_printf("{\"conflict\":\"%s\"}",
                            sodium_bin2hex(hex, 2 * bytes.len + 1, bytes.ptr, bytes.len));
    check_line(slice_str(line), shards);
    mem_free(hex);
    mem_free(line);
}

static void check_boot_from(const struct boot_from *one, const struct boot_from *two)
{
    ASSERT(one->from.site != 0 && one->from.site == two->from.site);
    ASSERT(strcmp(one->from.name, two->from.name) == 0 &&
           strcmp(one->from.wan, two->from.wan) == 0);
    ASSERT(memcmp(one->from.cert_sha256, two->from.cert_sha256, sizeof one->from.cert_sha256) == 0);
    ASSERT(one->fs_known == two->fs_known);
    ASSERT(memcmp(one->fs_id, two->fs_id, sizeof one->fs_id) == 0);
}

static void check_boot(struct slice text, unsigned shards)
{
    struct boot_file one, two;
    uint8_t untouched[sizeof one];
    (void)shards;
    memset(&one, 0x5a, sizeof one);
    memset(untouched, 0x5a, sizeof untouched);
    if (boot_file_parse(text, &one) != 0) {
        ASSERT(memcmp(&one, untouched, sizeof one) == 0);
        return;
    }
    char *again = state_file_text(boot_file_json(&one));
    int rc = boot_file_parse(slice_str(again), &two);
    ASSERT(rc == 0 && one.has_before == two.has_before);
    check_boot_from(&one.now, &two.now);
    if (one.has_before)
        check_boot_from(&one.before, &two.before);
    ASSERT(boot_file_of(&one, one.now.fs_id) == &one.now);
    free(again); /* lint-allow(memory): jansson's */
}

static void check_paused(struct slice text, unsigned shards)
{
    json_t *one = paused_file_parse(text);
    (void)shards;
    if (one == NULL)
        return;
    ASSERT(json_is_object(one));
    /* As a peer is paused and goes on: others stay as they are. */
    int rc = json_object_set_new(one, "0000abcd", json_true());
    ASSERT(rc == 0);
    char *again = state_file_text(paused_file_json(one));
    json_t *two = paused_file_parse(slice_str(again));
    ASSERT(two != NULL && json_equal(one, two));
    ASSERT(json_is_true(json_object_get(two, "0000abcd")));
    json_decref(one);
    json_decref(two);
    free(again); /* lint-allow(memory): jansson's */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const checks[])(struct slice bytes, unsigned shards) = {
        check_plan, check_line, check_hex, check_boot, check_paused};
    if (size < 2)
        return 0;
    checks[data[0] % 5](slice_of(data + 2, size - 2), 1u + data[1]);
    return 0;
}
