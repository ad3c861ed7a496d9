#include "client/status_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "client/cli.h"

#define COLUMNS 7
#define CELL_BYTES 64
#define BAR_CELLS 30u

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

static double number_of(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* ---- health ---- */

static bool is_one_of(const char *word, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(word, *words) == 0)
            return true;
    return false;
}

static enum status_health peer_health(const json_t *peer, double lag_max_s)
{
    static const char *const linked[] = {
        "connected", "half_connected", "held",    "loading_snapshot",
        "paused",    "paused_there",   "removed", NULL};
    const char *state = text_of(peer, "state");
    if (!is_one_of(state, linked))
        return STATUS_UNREACHABLE;
    if (strcmp(state, "removed") == 0)
        return STATUS_IN_STEP;
    bool behind = number_of(peer, "lag_in_s") > lag_max_s ||
                  number_of(peer, "lag_out_s") > lag_max_s || strcmp(state, "held") == 0 ||
                  strcmp(state, "loading_snapshot") == 0;
    return behind ? STATUS_LAGGING : STATUS_IN_STEP;
}

enum status_health status_health(const json_t *status, double lag_max_s)
{
    const json_t *peers = json_object_get(status, "peers"), *peer;
    enum status_health worst = STATUS_IN_STEP;
    size_t idx;
    json_array_foreach (peers, idx, peer) {
        worst = MAX(worst, peer_health(peer, lag_max_s));
    }
    if (json_is_true(json_object_get(status, "joining")))
        worst = MAX(worst, STATUS_LAGGING);
    if (strcmp(text_of(status, "wan_state"), "rolled_back") == 0)
        worst = STATUS_UNREACHABLE;
    return worst;
}

const char *status_health_text(enum status_health h)
{
    switch (h) {
    case STATUS_IN_STEP:
        return "in_step";
    case STATUS_LAGGING:
        return "lagging";
    case STATUS_UNREACHABLE:
        return "unreachable";
    }
    return "";
}

/* ---- rates ---- */

void status_before_deinit(struct status_before *b)
{
    json_decref(b->status);
    *b = (struct status_before){.at_s = 0};
}

static const json_t *peer_before(const struct status_before *b, const char *name)
{
    const json_t *peer;
    size_t idx;
    json_array_foreach (json_object_get(b->status, "peers"), idx, peer) {
        if (strcmp(text_of(peer, "name"), name) == 0)
            return peer;
    }
    return NULL;
}

/* Seconds until a direction has caught up at the rate of the last interval; < 0: not known. */
static double time_left(const json_t *peer, const json_t *was, double seconds, const char *way)
{
    char to_go[32], done[32];
    (void)snprintf(to_go, sizeof to_go, "%s_ops_to_go", way); /* fits, as below */
    (void)snprintf(done, sizeof done, "%s_ops", way);
    double left = number_of(peer, to_go);
    if (left == 0)
        return 0;
    double rate = was && seconds > 0 ? (number_of(peer, done) - number_of(was, done)) / seconds : 0;
    return rate > 0 ? left / rate : -1;
}

/* ---- the screen ---- */

/* `unit`: a key whose end tells the unit. */
static void value_as(char out[CELL_BYTES], const json_t *o, const char *key, const char *unit)
{
    char *text = cli_value_text(unit, json_object_get(o, key));
    (void)snprintf(out, CELL_BYTES, "%s", text); /* cut to the cell */
    mem_free(text);
}

static void value(char out[CELL_BYTES], const json_t *o, const char *key)
{
    value_as(out, o, key, key);
}

static void seconds_text(char out[CELL_BYTES], double s)
{
    if (s < 0)
        (void)snprintf(out, CELL_BYTES, "-");
    else if (s < 100)
        (void)snprintf(out, CELL_BYTES, "%.1f s", s);
    else if (s < 6000)
        (void)snprintf(out, CELL_BYTES, "%.0f min", s / 60);
    else
        (void)snprintf(out, CELL_BYTES, "%.1f h", s / 3600);
}

static void peer_cells(const json_t *peer,
                       const struct status_before *before,
                       double seconds,
                       char cells[COLUMNS][CELL_BYTES])
{
    const json_t *was = peer_before(before, text_of(peer, "name"));
    double in = time_left(peer, was, seconds, "in"), out = time_left(peer, was, seconds, "out");
    char bytes[CELL_BYTES];
    value(cells[0], peer, "name");
    value(cells[1], peer, "state");
    seconds_text(cells[2], number_of(peer, "lag_in_s"));
    seconds_text(cells[3], number_of(peer, "lag_out_s"));
    value_as(bytes, peer, "out_bytes_to_go", "bytes");
    if (number_of(peer, "in_ops_to_go") + number_of(peer, "out_ops_to_go") == 0)
        (void)snprintf(cells[4], CELL_BYTES, "nothing");
    else
        (void)snprintf(cells[4], CELL_BYTES, "%.0f in, %.0f out (%.20s)",
                       number_of(peer, "in_ops_to_go"), number_of(peer, "out_ops_to_go"), bytes);
    seconds_text(cells[5], in < 0 || out < 0 ? -1 : MAX(in, out));
    value(cells[6], peer, "rtt_ms");
}

/* Columns on a terminal: characters, not bytes. */
static size_t columns(const char *text)
{
    size_t count = 0;
    for (; *text; text++)
        count += ((unsigned char)*text & 0xc0) != 0x80;
    return count;
}

static void add_peer_notes(const json_t *peer, struct buf *b)
{
    char left[CELL_BYTES];
    if (text_of(peer, "error")[0])
        buf_printf(b, "    %.200s\n", text_of(peer, "error"));
    if (!json_is_number(json_object_get(peer, "resync_in_seconds")))
        return;
    value(left, peer, "resync_in_seconds");
    buf_printf(
        b,
        "    it is away: journals are kept for it for another %s, then it has to come back as\n"
        "    a new site (claudefs site keep-journal)\n",
        left);
}

static void
add_peers(const json_t *status, const struct status_before *before, double seconds, struct buf *b)
{
    static const char titles[COLUMNS][CELL_BYTES] = {
        "site", "state", "behind here", "behind there", "operations to go", "time left", "rtt"};
    const json_t *peers = json_object_get(status, "peers"), *peer;
    size_t count = json_array_size(peers), idx, widths[COLUMNS];
    char(*rows)[COLUMNS][CELL_BYTES] = mem_calloc(count + 1, sizeof *rows);
    memcpy(rows[0], titles, sizeof titles);
    json_array_foreach (peers, idx, peer) {
        peer_cells(peer, before, seconds, rows[idx + 1]);
    }
    for (size_t c = 0; c < COLUMNS; c++) {
        widths[c] = 0;
        for (size_t r = 0; r <= count; r++)
            widths[c] = MAX(widths[c], columns(rows[r][c]));
    }
    for (size_t r = 0; r <= count; r++) {
        for (size_t c = 0; c < COLUMNS; c++)
            buf_printf(b, "  %s%*s", rows[r][c],
                       c + 1 < COLUMNS ? (int)(widths[c] - columns(rows[r][c])) : 0, "");
        buf_printf(b, "\n");
        if (r > 0)
            add_peer_notes(json_array_get(peers, r - 1), b);
    }
    mem_free(rows);
}

static void bytes_text(char out[CELL_BYTES], double bytes)
{
    json_t *o = json_pack("{s:I}", "bytes", (json_int_t)bytes);
    value(out, o, "bytes");
    json_decref(o);
}

static void sum_bytes(char out[CELL_BYTES], const json_t *o, const char *a, const char *b)
{
    bytes_text(out, number_of(o, a) + number_of(o, b));
}

static void add_space(const json_t *status, struct buf *b)
{
    const json_t *space = json_object_get(status, "space");
    const json_t *versions = json_object_get(status, "versions");
    char logical[CELL_BYTES], plain[CELL_BYTES], live[CELL_BYTES], free_[CELL_BYTES];
    char keep[CELL_BYTES], size[CELL_BYTES];
    value(logical, space, "logical_bytes");
    sum_bytes(plain, space, "plain_bytes", "inline_bytes");
    sum_bytes(live, space, "live_bytes", "inline_bytes");
    value(free_, space, "free_bytes");
    buf_printf(b, "  files      hold %s; deduplicated %s, compressed %s\n", logical, plain, live);
    value(live, space, "file_bytes");
    buf_printf(b, "  space      %s on disk, %s free\n", live, free_);
    bool known = !json_is_false(json_object_get(space, "awaited_known"));
    if (number_of(space, "awaited_contents") > 0) {
        value(live, space, "awaited_bytes");
        buf_printf(b, "  to come    %.0f contents, %s%s\n", number_of(space, "awaited_contents"),
                   live, known ? "" : ", or more");
    }
    if (number_of(space, "damaged") > 0)
        buf_printf(b, "  damage     %.0f chunks: see claudefs fsck\n", number_of(space, "damaged"));
    value(keep, versions, "keep_s");
    const json_t *needed = json_object_get(versions, "space_bytes");
    value(size, versions, json_is_null(needed) ? "content_bytes" : "space_bytes");
    if (json_is_null(json_object_get(versions, "count")))
        buf_printf(b, "  versions   kept for %s\n", keep);
    else
        buf_printf(b, "  versions   %.0f former, kept for %s, %s%s\n", number_of(versions, "count"),
                   keep, json_is_null(needed) ? "at most " : "", size);
}

static void add_rest(const json_t *status, struct buf *b)
{
    const json_t *shard;
    size_t idx;
    double journal = 0, waiting = 0;
    char text[CELL_BYTES];
    json_array_foreach (json_object_get(status, "shards"), idx, shard) {
        journal += number_of(shard, "journal_bytes");
        waiting += number_of(shard, "waiting");
    }
    bytes_text(text, journal);
    buf_printf(b, "  journal    %s in %zu shards\n", text,
               json_array_size(json_object_get(status, "shards")));
    buf_printf(b, "  mounts     %.0f\n", number_of(status, "sessions"));
    double conflicts = number_of(status, "conflicts_open");
    buf_printf(b, "  conflicts  %.0f open%s\n", conflicts,
               conflicts > 0 ? ": claudefs conflicts lists them" : "");
    if (number_of(status, "repairs_pending") + waiting > 0)
        buf_printf(b, "  pending    %.0f repairs, %.0f operations that wait for others\n",
                   number_of(status, "repairs_pending"), waiting);
}

static void add_summary(const json_t *status, double lag_max_s, struct buf *b)
{
    const json_t *peers = json_object_get(status, "peers"), *peer;
    size_t idx, count = json_array_size(peers), in_step = 0;
    json_array_foreach (peers, idx, peer) {
        in_step += peer_health(peer, lag_max_s) == STATUS_IN_STEP;
    }
    buf_printf(b, "%.40s (%.8s)  ", text_of(status, "name"), text_of(status, "site"));
    if (json_is_true(json_object_get(status, "joining")))
        buf_printf(b, "is joining: the other site's tree is on its way\n");
    else if (!peers)
        buf_printf(b, "the part that speaks to other sites does not answer\n");
    else if (count == 0)
        buf_printf(b, "alone: claudefs peer invite asks another site in\n");
    else if (in_step == count)
        buf_printf(b, "in step with %s%zu other site%s\n", count > 1 ? "all " : "", count,
                   count > 1 ? "s" : "");
    else
        buf_printf(b, "NOT IN STEP with %zu of %zu other site%s\n", count - in_step, count,
                   count > 1 ? "s" : "");
    if (text_of(status, "wan_error")[0])
        buf_printf(b, "  %.300s\n", text_of(status, "wan_error"));
}

/* Lines that are too long for the screen would wrap, and the next frame not fit over this one. */
static void cut_lines(struct buf *all, size_t width, struct buf *ret)
{
    size_t at = 0;
    for (size_t i = 0; i < all->len; i++) {
        uint8_t c = all->ptr[i];
        bool begins = (c & 0xc0) != 0x80;
        at = c == '\n' ? 0 : at + begins;
        if (at <= width)
            buf_append(ret, &c, 1);
    }
}

void status_text(json_t *status,
                 double lag_max_s,
                 double now_s,
                 struct status_before *before,
                 size_t width,
                 struct buf *ret)
{
    struct buf all = {0};
    double seconds = before->status ? now_s - before->at_s : 0;
    add_summary(status, lag_max_s, &all);
    buf_printf(&all, "\n");
    if (json_array_size(json_object_get(status, "peers")) > 0) {
        add_peers(status, before, seconds, &all);
        buf_printf(&all, "\n");
    }
    add_space(status, &all);
    add_rest(status, &all);
    cut_lines(&all, width, ret);
    buf_deinit(&all);
    json_decref(before->status);
    before->status = json_incref(status);
    before->at_s = now_s;
}

void progress_text(uint64_t left, uint64_t total, struct buf *ret)
{
    uint64_t done = total > left ? total - left : 0;
    uint64_t percent = total > 0 ? done * 100 / total : 100;
    uint64_t cells = percent * BAR_CELLS / 100;
    buf_append(ret, "[", 1);
    for (uint64_t i = 0; i < BAR_CELLS; i++)
        buf_append(ret, i < cells ? "#" : "-", 1);
    buf_printf(ret, "] %3" PRIu64 " %%", percent);
}
