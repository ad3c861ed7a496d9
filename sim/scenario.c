/* Reading a scenario, line by line: sections, keys, words. See scenario.h. */
#include "sim/scenario.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "sim/scenario_int.h"

#define SETTLE_NS (3600 * NS_PER_SEC)
#define CLIENTS_MAX 16u
#define OPERATIONS_MAX 100000000u
#define RATE_PER_DAY_MAX (UINT64_C(86400) * 100000)
#define STALL_NS (200 * NS_PER_MS)
#define LATENCY_MAX (60 * NS_PER_SEC)

enum section {
    SECTION_NONE,
    SECTION_SCENARIO,
    SECTION_SITE,
    SECTION_LINKS,
    SECTION_LINK,
    SECTION_EVENTS
};
struct parse {
    struct scan scan;
    enum section section;
    unsigned a, b; /* of the section: a site, or a link */
    bool both;
    struct {
        unsigned line, column;
    } site_at[WORLD_SITES_MAX];       /* where it is described */
    struct word words[WORDS_MAX + 1]; /* of the line; the last one has no text */
    unsigned word_count;
};

static const char *const work_names[WORLD_WORK_KIND_END] = {
    [WORLD_WORK_NONE] = "none",   [WORLD_WORK_COLLIDE] = "collide", [WORLD_WORK_HOME] = "home",
    [WORLD_WORK_BUILD] = "build", [WORLD_WORK_TRAIN] = "train",     [WORLD_WORK_RSYNC] = "rsync",
    [WORLD_WORK_LOG] = "log"};

const char *scenario_work_name(enum world_workload kind)
{
    return work_names[kind];
}

/* --- words --- */

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* `;` and `#` begin a comment, at the start of a line or after a blank. */
static struct slice without_comment(struct slice line)
{
    for (size_t i = 0; i < line.len; i++)
        if ((line.ptr[i] == ';' || line.ptr[i] == '#') && (i == 0 || is_blank(line.ptr[i - 1])))
            line.len = i;
    while (line.len > 0 && is_blank(line.ptr[line.len - 1]))
        line.len--;
    return line;
}

/* Splits line[from, to) into words; `column0` is where the line's text begins. */
static int split(struct parse *p, struct slice line, size_t from, size_t to)
{
    p->word_count = 0;
    for (size_t i = from; i < to;) {
        while (i < to && is_blank(line.ptr[i]))
            i++;
        size_t start = i;
        while (i < to && !is_blank(line.ptr[i]))
            i++;
        if (i == start)
            break;
        p->words[p->word_count] =
            (struct word){slice_of(line.ptr + start, i - start), (unsigned)start + 1};
        if (p->word_count == WORDS_MAX)
            return scan_fail(&p->scan, &p->words[p->word_count], "the end of the line");
        p->word_count++;
    }
    for (unsigned i = p->word_count; i <= WORDS_MAX; i++)
        p->words[i] = (struct word){slice_of(NULL, 0), (unsigned)to + 1};
    return 0;
}

/* --- sections --- */

static int ends_at(struct parse *p, unsigned word)
{
    return p->word_count > word ? scan_fail(&p->scan, &p->words[word], "\"]\"") : 0;
}

static int site_begin(struct parse *p)
{
    struct world_config *c = &p->scan.s->world;
    const struct word *w = &p->words[1];
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    bool good = w->text.len >= 1 && w->text.len < WORLD_NAME_BYTES;
    for (size_t i = 0; i < w->text.len && good; i++)
        good = w->text.ptr[i] != '\0' && strchr(letters, w->text.ptr[i]) != NULL;
    if (!good)
        return scan_fail(&p->scan, w, "a name for the site: 1 to 32 of letters, digits, - and _");
    for (unsigned i = 0; i < c->site_count; i++)
        if (word_is(w, c->sites[i].name))
            return scan_fail(&p->scan, w, "another name: this site is described above");
    if (c->site_count == WORLD_SITES_MAX)
        return scan_fail(&p->scan, w, "at most %u sites", WORLD_SITES_MAX);
    p->a = c->site_count++;
    memcpy(c->sites[p->a].name, w->text.ptr, w->text.len);
    c->sites[p->a].name[w->text.len] = '\0';
    c->sites[p->a].work.kind = WORLD_WORK_HOME;
    p->site_at[p->a].line = p->scan.line;
    p->site_at[p->a].column = w->column;
    p->section = SECTION_SITE;
    return ends_at(p, 2);
}

static int section_begin(struct parse *p, struct slice line, size_t from)
{
    static const struct {
        const char *name;
        enum section section;
    } plain[] = {
        {"scenario", SECTION_SCENARIO}, {"links", SECTION_LINKS}, {"events", SECTION_EVENTS}};
    bool closed = line.ptr[line.len - 1] == ']';
    int rc = split(p, line, from + 1, line.len - closed);
    if (rc == 0 && !closed) {
        struct word end = {slice_of(NULL, 0), (unsigned)line.len + 1};
        rc = scan_fail(&p->scan, &end, "\"]\" after the name of the section");
    }
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < ARRAY_COUNT(plain); i++)
        if (word_is(&p->words[0], plain[i].name)) {
            p->section = plain[i].section;
            return ends_at(p, 1);
        }
    if (word_is(&p->words[0], "site"))
        return site_begin(p);
    if (!word_is(&p->words[0], "link"))
        return scan_fail(&p->scan, &p->words[0],
                         "scenario, site NAME, links, link NAME NAME, link NAME -> NAME or events");
    rc = scan_pair(&p->scan, &p->words[1], &p->a, &p->b, &p->both);
    p->section = SECTION_LINK;
    return rc < 0 ? rc : ends_at(p, 1 + (unsigned)rc);
}

/* --- keys --- */

enum type {
    TYPE_U64,
    TYPE_U32,
    TYPE_I64,
    TYPE_I32,
    TYPE_WORK,
    TYPE_DIR,
    TYPE_TAIL,  /* two words: how often, how long */
    TYPE_NO_YES /* of what is off when true */
};
struct key {
    const char *name;
    enum type type;
    enum unit unit; /* of numbers */
    size_t offset;  /* in what the section is about */
    uint64_t min, max;
};
#define SCENARIO_AT(f) offsetof(struct scenario, f)
#define SITE_AT(f) offsetof(struct world_site, f)
#define LINK_AT(f) offsetof(struct world_link, f)
static const struct key scenario_keys[] = {
    {"duration", TYPE_U64, UNIT_TIME, SCENARIO_AT(duration_ns), NS_PER_SEC, SCENARIO_TIME_MAX},
    {"settle", TYPE_U64, UNIT_TIME, SCENARIO_AT(settle_ns), NS_PER_SEC, SCENARIO_TIME_MAX},
    {"seed", TYPE_U64, UNIT_COUNT, SCENARIO_AT(seed), 0, UINT64_MAX},
    {"shards", TYPE_U32, UNIT_COUNT, SCENARIO_AT(world.shards), 1, 8},
    {"versions", TYPE_NO_YES, UNIT_COUNT, SCENARIO_AT(world.no_versions), 0, 0},
    {NULL, TYPE_U64, UNIT_COUNT, 0, 0, 0},
};
static const struct key site_keys[] = {
    {"clock_offset", TYPE_I64, UNIT_TIME, SITE_AT(clock.offset_ns), 0, SCENARIO_TIME_MAX},
    {"clock_drift", TYPE_I32, UNIT_PPM, SITE_AT(clock.drift_ppm), 0, 100000},
    {"disk_write", TYPE_U64, UNIT_TIME, SITE_AT(disk.write.base_ns), 0, NS_PER_SEC},
    {"disk_sync", TYPE_U64, UNIT_TIME, SITE_AT(disk.sync.base_ns), 0, NS_PER_SEC},
    {"work", TYPE_WORK, UNIT_COUNT, SITE_AT(work.kind), 0, 0},
    {"operations", TYPE_U64, UNIT_COUNT, SITE_AT(work.operations), 0, OPERATIONS_MAX},
    {"clients", TYPE_U32, UNIT_COUNT, SITE_AT(work.clients), 1, CLIENTS_MAX},
    {"directory", TYPE_DIR, UNIT_COUNT, SITE_AT(work.dir), 0, 0},
    {"shared", TYPE_U32, UNIT_CHANCE, SITE_AT(work.shared_per_million), 0, 1000000},
    {"large", TYPE_U32, UNIT_CHANCE, SITE_AT(work.large_per_million), 0, 1000000},
    {NULL, TYPE_U64, UNIT_COUNT, 0, 0, 0},
};
static const struct key link_keys[] = {
    {"latency", TYPE_U64, UNIT_TIME, LINK_AT(delay.base_ns), 0, LATENCY_MAX},
    {"jitter", TYPE_U64, UNIT_TIME, LINK_AT(delay.jitter_ns), 0, LATENCY_MAX},
    {"tail", TYPE_TAIL, UNIT_CHANCE, LINK_AT(delay), 0, 1000000},
    {"bandwidth", TYPE_U64, UNIT_SPEED, LINK_AT(bytes_per_s), 125, UINT64_C(1) << 40},
    {"queue", TYPE_U64, UNIT_SIZE, LINK_AT(queue_bytes), KIB, GIB},
    {"loss", TYPE_U32, UNIT_CHANCE, LINK_AT(stall_per_million), 0, 1000000},
    {"stall", TYPE_U64, UNIT_TIME, LINK_AT(stall_ns), 0, LATENCY_MAX},
    {"resets", TYPE_U32, UNIT_CHANCE, LINK_AT(reset_per_million), 0, 1000000},
    {"direct", TYPE_NO_YES, UNIT_COUNT, LINK_AT(absent), 0, 0},
    {NULL, TYPE_U64, UNIT_COUNT, 0, 0, 0},
};

static int take_number(struct parse *p, const struct key *k, const struct word *w, void *at)
{
    uint64_t v = 0;
    int64_t i = 0;
    bool sign = k->type == TYPE_I64 || k->type == TYPE_I32;
    int rc = sign ? scan_signed(&p->scan, w, k->unit, (int64_t)k->max, &i)
                  : scan_value(&p->scan, w, k->unit, k->max, &v);
    if (rc != 0)
        return rc;
    if (!sign && v < k->min)
        return scan_fail(&p->scan, w, "more than that");
    if (k->type == TYPE_U64)
        *(uint64_t *)at = v;
    else if (k->type == TYPE_U32)
        *(uint32_t *)at = (uint32_t)v;
    else if (k->type == TYPE_I64)
        *(int64_t *)at = i;
    else
        *(int32_t *)at = (int32_t)i;
    return 0;
}

static int take_work(struct parse *p, const struct word *w, enum world_workload *at)
{
    for (int i = 0; i < WORLD_WORK_KIND_END; i++)
        if (word_is(w, work_names[i])) {
            *at = (enum world_workload)i;
            return 0;
        }
    return scan_fail(&p->scan, w, "home, build, train, rsync, log, collide or none");
}

static int take_dir(struct parse *p, const struct word *w, char *at)
{
    bool good = w->text.len >= 1 && w->text.len < sizeof((struct world_work *)0)->dir;
    for (size_t i = 0; i < w->text.len && good; i++)
        good = w->text.ptr[i] > ' ' && w->text.ptr[i] < 0x7f && w->text.ptr[i] != '/';
    if (!good || w->text.ptr[0] == '.')
        return scan_fail(&p->scan, w, "a name for a directory, without /, of at most 31 letters");
    memcpy(at, w->text.ptr, w->text.len);
    at[w->text.len] = '\0';
    return 0;
}

static int take_no_yes(struct parse *p, const struct word *w, bool *at)
{
    if (!word_is(w, "yes") && !word_is(w, "no"))
        return scan_fail(&p->scan, w, "yes or no");
    *at = word_is(w, "no");
    return 0;
}

/* `1% 300ms`: of so many messages the latency is so much longer. */
static int take_tail(struct parse *p, const struct key *k, struct world_delay *at)
{
    uint64_t share = 0;
    int rc = scan_value(&p->scan, &p->words[0], k->unit, k->max, &share);
    if (rc == 0)
        rc = scan_value(&p->scan, &p->words[1], UNIT_TIME, LATENCY_MAX, &at->tail_ns);
    if (rc == 0)
        at->tail_per_million = (uint32_t)share;
    return rc;
}

static int take_value(struct parse *p, const struct key *k, void *at)
{
    const struct word *value = &p->words[0];
    unsigned words = k->type == TYPE_TAIL ? 2 : 1;
    if (p->word_count > words)
        return scan_fail(&p->scan, &p->words[words], "the end of the line");
    switch (k->type) {
    case TYPE_U64:
    case TYPE_U32:
    case TYPE_I64:
    case TYPE_I32:
        return take_number(p, k, value, at);
    case TYPE_WORK:
        return take_work(p, value, at);
    case TYPE_DIR:
        return take_dir(p, value, at);
    case TYPE_TAIL:
        return take_tail(p, k, at);
    case TYPE_NO_YES:
        return take_no_yes(p, value, at);
    }
    UNREACHABLE();
}

static int take(struct parse *p, const struct key *keys, const struct word *key, void *base)
{
    struct buf known = {0};
    for (; keys->name != NULL; keys++) {
        if (word_is(key, keys->name)) {
            buf_deinit(&known);
            return take_value(p, keys, (char *)base + keys->offset);
        }
        buf_append(&known, ", ", known.len > 0 ? 2 : 0);
        buf_append(&known, keys->name, strlen(keys->name));
    }
    int rc =
        scan_fail(&p->scan, key, "one of the keys %.*s", (int)known.len, (const char *)known.ptr);
    buf_deinit(&known);
    return rc;
}

/* Lines of text follow each other with a blank. */
static int take_text(struct parse *p, struct slice text, char *at, size_t cap)
{
    size_t len = strlen(at), blank = len > 0;
    if (len + blank + text.len >= cap)
        return scan_fail(&p->scan, &p->words[0], "at most %zu letters", cap - 1);
    memcpy(at + len, " ", blank);
    for (size_t i = 0; i < text.len; i++)
        at[len + blank + i] = text.ptr[i] < 0x20 ? ' ' : (char)text.ptr[i];
    at[len + blank + text.len] = '\0';
    return 0;
}

static int take_rate(struct parse *p)
{
    uint64_t *rate = &p->scan.s->rate_per_day[p->a];
    int rc = scan_value(&p->scan, &p->words[0], UNIT_RATE, RATE_PER_DAY_MAX, rate);
    if (rc == 0 && *rate == 0)
        return scan_fail(&p->scan, &p->words[0], "more than that; work = none for no work at all");
    return rc == 0 && p->word_count > 1 ? scan_fail(&p->scan, &p->words[1], "the end of the line")
                                        : rc;
}

static int take_link(struct parse *p, const struct word *key)
{
    struct world_config *c = &p->scan.s->world;
    if (!p->both && word_is(key, "direct"))
        return scan_fail(&p->scan, key, "[link A B], without an arrow, before this key");
    int rc = take(p, link_keys, key, &c->links[p->a][p->b]);
    if (rc == 0 && p->both)
        rc = take(p, link_keys, key, &c->links[p->b][p->a]);
    return rc;
}

/* Of every link, also those of sites that are described further below. */
static int take_links(struct parse *p, const struct word *key)
{
    struct world_config *c = &p->scan.s->world;
    int rc = 0;
    for (unsigned a = 0; a < WORLD_SITES_MAX; a++)
        for (unsigned b = 0; b < WORLD_SITES_MAX && rc == 0; b++)
            rc = take(p, link_keys, key, &c->links[a][b]);
    return rc;
}

static int value_line(struct parse *p, const struct word *key, struct slice text)
{
    struct scenario *s = p->scan.s;
    switch (p->section) {
    case SECTION_SCENARIO:
        if (word_is(key, "title"))
            return take_text(p, text, s->title, sizeof s->title);
        if (word_is(key, "about"))
            return take_text(p, text, s->about, sizeof s->about);
        return take(p, scenario_keys, key, s);
    case SECTION_SITE:
        return word_is(key, "rate") ? take_rate(p) : take(p, site_keys, key, &s->world.sites[p->a]);
    case SECTION_LINKS:
        return take_links(p, key);
    case SECTION_LINK:
        return take_link(p, key);
    case SECTION_EVENTS:
        return scan_event(&p->scan, key, p->words);
    case SECTION_NONE:
        return scan_fail(&p->scan, key, "a section first, such as [scenario]");
    }
    UNREACHABLE();
}

static int line_parse(struct parse *p, struct slice line)
{
    size_t from = 0, equals = 0;
    line = without_comment(line);
    while (from < line.len && is_blank(line.ptr[from]))
        from++;
    if (from == line.len)
        return 0;
    if (line.ptr[from] == '[')
        return section_begin(p, line, from);
    while (equals < line.len && line.ptr[equals] != '=')
        equals++;
    int rc = split(p, line, from, equals);
    if (rc != 0)
        return rc;
    struct word key = p->words[0], end = {slice_of(NULL, 0), (unsigned)line.len + 1};
    if (key.text.len == 0)
        return scan_fail(&p->scan, &(struct word){slice_of("=", 1), (unsigned)from + 1},
                         "a key before it");
    if (p->word_count > 1)
        return scan_fail(&p->scan, &p->words[1], "\"=\" after \"%.*s\"",
                         (int)MIN(key.text.len, 40u), (const char *)key.text.ptr);
    if (equals == line.len)
        return scan_fail(&p->scan, &end, "\"=\" and a value");
    size_t value = equals + 1;
    while (value < line.len && is_blank(line.ptr[value]))
        value++;
    struct slice text = slice_of(line.ptr + value, line.len - value);
    bool is_text =
        p->section == SECTION_SCENARIO && (word_is(&key, "title") || word_is(&key, "about"));
    p->words[0] = (struct word){text, (unsigned)value + 1};
    rc = is_text ? 0 : split(p, line, value, line.len);
    return rc == 0 ? value_line(p, &key, text) : rc;
}

/* --- what only the whole file can tell --- */

static int fail_at_fault(struct parse *p, const struct scenario_fault *f, const char *expected)
{
    p->scan.line = f->line;
    return scan_fail(&p->scan, &(struct word){slice_str("event"), f->column}, "%s", expected);
}

/* Whoever joins is invited by a site that was there before. */
static int links_check(struct parse *p)
{
    const struct world_config *c = &p->scan.s->world;
    for (unsigned i = 1; i < c->site_count; i++) {
        unsigned by = 0;
        while (by < i && c->links[i][by].absent)
            by++;
        if (by < i)
            continue;
        p->scan.line = p->site_at[i].line;
        return scan_fail(&p->scan,
                         &(struct word){slice_str(c->sites[i].name), p->site_at[i].column},
                         "a link to one of the sites above it, by which it joins");
    }
    return 0;
}

/* Do direct links lead from each of these sites to each other one, by no others? */
static bool is_connected(const struct world_config *c, unsigned sites)
{
    unsigned reached = sites & (~sites + 1), before;
    do {
        before = reached;
        for (unsigned a = 0; a < c->site_count; a++)
            for (unsigned b = 0; b < c->site_count && (reached >> a & 1) != 0; b++)
                if (a != b && !c->links[a][b].absent)
                    reached |= sites & 1u << b;
    } while (reached != before);
    return reached == sites;
}

/* Whoever is left has to become equal. A site whose disk rots may be lost or not. */
static int losses_check(struct parse *p)
{
    const struct scenario *s = p->scan.s;
    const unsigned all = (1u << s->world.site_count) - 1;
    unsigned lost = 0, rotten = 0;
    for (unsigned i = 0; i < s->fault_count; i++) {
        const struct scenario_fault *f = &s->faults[i];
        if (f->begin != WORLD_LOSE && f->begin != WORLD_ROT)
            continue;
        *(f->begin == WORLD_LOSE ? &lost : &rotten) |= 1u << f->a;
        if ((lost | rotten) == all)
            return fail_at_fault(p, f,
                                 "at least one site that is not lost, and whose disk is well");
        for (unsigned some = rotten;; some = (some - 1) & rotten) {
            if (!is_connected(&s->world, all & ~(lost | some)))
                return fail_at_fault(p, f, "direct links between those that are left");
            if (some == 0)
                break;
        }
    }
    return 0;
}

static bool is_of_link(const struct scenario_fault *f)
{
    return f->begin == WORLD_CUT || f->begin == WORLD_HEAL || f->begin == WORLD_RESET ||
           f->begin == WORLD_SLOW;
}

/* The place is the end of the file, unless there is a better one. */
static int whole_check(struct parse *p)
{
    const struct scenario *s = p->scan.s;
    const struct word end = {slice_of(NULL, 0), 1};
    if (s->duration_ns == 0)
        return scan_fail(&p->scan, &end, "\"duration = 10m\", or another time, in [scenario]");
    if (s->world.site_count < 2)
        return scan_fail(&p->scan, &end, "at least two sections [site NAME]");
    int rc = links_check(p);
    for (unsigned i = 0; i < s->fault_count && rc == 0; i++) {
        const struct scenario_fault *f = &s->faults[i];
        if (MAX(f->from_ns, f->to_ns) > s->duration_ns)
            rc = fail_at_fault(p, f, "a time before the end of the scenario, its duration");
        else if (is_of_link(f) && s->world.links[f->a][f->b].absent)
            rc = fail_at_fault(p, f, "a link that is there: this one has direct = no");
    }
    return rc == 0 ? losses_check(p) : rc;
}

/* Titles go to a page and to JSON. */
static bool is_utf8(struct slice s)
{
    for (size_t i = 0; i < s.len;) {
        uint8_t c = s.ptr[i++];
        unsigned more = c < 0x80   ? 0
                        : c < 0xc2 ? 9
                        : c < 0xe0 ? 1
                        : c < 0xf0 ? 2
                        : c < 0xf5 ? 3
                                   : 9;
        if (c == 0 || more > 3 || more > s.len - i)
            return false;
        uint8_t next = more > 0 ? s.ptr[i] : 0;
        if ((c == 0xe0 && next < 0xa0) || (c == 0xed && next > 0x9f) ||
            (c == 0xf0 && next < 0x90) ||
            (c == 0xf4 && next > 0x8f)) /* too long, a surrogate, beyond the last */
            return false;
        for (; more > 0; more--)
            if ((s.ptr[i++] & 0xc0) != 0x80)
                return false;
    }
    return true;
}

static void scenario_init(struct scenario *s)
{
    memset(s, 0, sizeof *s);
    world_config_init(&s->world, WORLD_SITES_MAX, 0);
    s->world.site_count = 0;
    s->seed = 1;
    s->settle_ns = SETTLE_NS;
    for (unsigned a = 0; a < WORLD_SITES_MAX; a++)
        for (unsigned b = 0; b < WORLD_SITES_MAX; b++)
            s->world.links[a][b].stall_ns = STALL_NS;
}

int scenario_parse(struct scenario *s, struct slice text, struct scenario_error *e)
{
    struct parse p = {.scan = {.s = s, .e = e}};
    int rc = 0;
    scenario_init(s);
    for (size_t at = 0; at < text.len && rc == 0;) {
        const uint8_t *end = memchr(text.ptr + at, '\n', text.len - at);
        size_t len = end != NULL ? (size_t)(end - text.ptr) - at : text.len - at;
        struct slice line = slice_of(text.ptr + at, len);
        p.scan.line++;
        if (!is_utf8(line))
            rc = scan_fail(&p.scan, &(struct word){slice_of(NULL, 0), 1}, "text in UTF-8");
        else
            rc = line_parse(&p, line);
        at += len + 1;
    }
    p.scan.line++;
    return rc == 0 ? whole_check(&p) : rc;
}

int scenario_load(struct scenario *s, const char *path, struct err_detail *d)
{
    struct scenario_error e = {0};
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        int rc = err_from_errno(errno);
        err_detail_set(d, "%s: %s", path, strerror(errno));
        return rc;
    }
    char *text = mem_alloc(SCENARIO_BYTES_MAX + 1);
    size_t len = fread(text, 1, SCENARIO_BYTES_MAX + 1, f);
    int rc = ferror(f) != 0 ? ERR_IO : len > SCENARIO_BYTES_MAX ? ERR_TOO_BIG : 0;
    (void)fclose(f);
    if (rc != 0)
        err_detail_set(d, "%s: %s", path, rc == ERR_IO ? strerror(errno) : err_text(rc));
    else if ((rc = scenario_parse(s, slice_of(text, len), &e)) != 0)
        err_detail_set(d, "%s:%u:%u: %s", path, e.line, e.column, e.text);
    s->file = path;
    mem_free(text);
    return rc;
}
