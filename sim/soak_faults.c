/* Faults that a world may have beyond the usual ones, by kind: `soak --faults`. */
#include <stdio.h>
#include <string.h>

#include "sim/disk.h"
#include "sim/soak_int.h"

static unsigned site_draw(struct draw *d)
{
    return (unsigned)draw_below(d, d->c->site_count);
}

/* Calls of one kind, or of all, once or for a while. */
static void eio_draw(struct draw *d)
{
    static const unsigned calls[] = {DISK_WRITE, DISK_SYNC, DISK_READ, DISK_MAKE, DISK_CALLS};
    for (uint64_t i = 1 + draw_below(d, 4); i > 0; i--) {
        unsigned a = site_draw(d), what = calls[draw_below(d, ARRAY_COUNT(calls))];
        uint64_t at = draw_below(d, d->work_ns);
        bool lasts = draw_below(d, 2) == 0;
        uint32_t count = lasts ? UINT32_MAX : 1 + (uint32_t)draw_below(d, 3);
        draw_event(d, (struct world_event){.at_ns = at,
                                           .kind = WORLD_DISK_FAIL,
                                           .a = a,
                                           .value = world_disk_fail(what, count)});
        draw_event(d, (struct world_event){.at_ns = at + draw_below(d, 5 * NS_PER_SEC),
                                           .kind = WORLD_DISK_WELL,
                                           .a = a});
    }
}

static void full_draw(struct draw *d)
{
    for (uint64_t i = 1 + draw_below(d, 3); i > 0; i--) {
        unsigned a = site_draw(d);
        uint64_t at = draw_below(d, d->work_ns);
        draw_event(
            d, (struct world_event){
                   .at_ns = at, .kind = WORLD_DISK_FULL, .a = a, .value = draw_below(d, 3) == 0});
        draw_event(d, (struct world_event){.at_ns = at + draw_below(d, d->work_ns / 2 + 1),
                                           .kind = WORLD_DISK_FREE,
                                           .a = a});
    }
}

/* A shard's journal has a segment left, and another's has none: so that one has no room for what
 * the first has to tell it, and has it again before the first has told it once more. */
static void tight_draw(struct draw *d)
{
    for (unsigned i = 0; i < d->c->site_count; i++)
        d->c->sites[i].segment_bytes = 16 * KIB;
    for (uint64_t i = 20 + draw_below(d, 40); i > 0; i--) {
        unsigned a = site_draw(d);
        uint64_t at = draw_below(d, d->work_ns);
        draw_event(d, (struct world_event){.at_ns = at, .kind = WORLD_DISK_FULL, .a = a});
        draw_event(d, (struct world_event){.at_ns = at + draw_below(d, NS_PER_SEC),
                                           .kind = WORLD_DISK_FREE,
                                           .a = a});
    }
}

/* Of all kinds that take a site away it is the same one, so that most of the others remain. In a
 * row it is an end: without one between the others would have no link to each other any more. */
static unsigned victim(const struct draw *d)
{
    struct rng rng;
    unsigned count = 0;
    if (d->c->links[0][d->c->site_count - 1].absent)
        return 0;
    while (count < d->c->site_count && !d->c->sites[count].joins_late)
        count++;
    rng_seed(&rng, d->c->seed ^ 0x71c);
    return (unsigned)rng_below(&rng, count);
}

/* Journals above all. What changed is found when it is read, so half of the times the site starts
 * again a little later. */
static void rot_draw(struct draw *d)
{
    unsigned a = victim(d);
    for (uint64_t i = 1 + draw_below(d, 8); i > 0; i--) {
        uint64_t at = draw_below(d, d->work_ns), later = at + draw_below(d, NS_PER_SEC);
        bool journal = draw_below(d, 2) == 0;
        draw_event(d,
                   (struct world_event){.at_ns = at,
                                        .kind = WORLD_ROT,
                                        .a = a,
                                        .value = journal ? WORLD_ROT_JOURNAL
                                                         : (int64_t)draw_below(d, WORLD_ROT_END)});
        if (draw_below(d, 2) == 0)
            continue;
        draw_event(d,
                   (struct world_event){.at_ns = later, .kind = WORLD_CRASH, .a = a, .value = 1});
        draw_event(
            d, (struct world_event){.at_ns = later + NS_PER_SEC, .kind = WORLD_RESTART, .a = a});
    }
}

static void lose_draw(struct draw *d)
{
    draw_event(d, (struct world_event){
                      .at_ns = draw_below(d, d->work_ns), .kind = WORLD_LOSE, .a = victim(d)});
}

static void remove_draw(struct draw *d)
{
    unsigned n = d->c->site_count, a = victim(d);
    draw_event(d, (struct world_event){.at_ns = draw_below(d, d->work_ns * 3 / 2),
                                       .kind = WORLD_REMOVE,
                                       .a = a,
                                       .b = (a + 1 + (unsigned)draw_below(d, n - 1)) % n});
}

/* The last site is made, but no member yet. */
static void join_draw(struct draw *d)
{
    unsigned a = d->c->site_count - 1;
    d->c->sites[a].joins_late = true;
    draw_event(d, (struct world_event){.at_ns = draw_below(d, d->work_ns),
                                       .kind = WORLD_JOIN,
                                       .a = a,
                                       .b = (unsigned)draw_below(d, a)});
}

static void chunks_draw(struct draw *d)
{
    d->c->no_versions = draw_below(d, 2) == 0;
    for (unsigned i = 0; i < d->c->site_count; i++) {
        d->c->sites[i].work.large_per_million = 100000 + (uint32_t)draw_below(d, 500000);
        d->c->sites[i].garbage_ns = NS_PER_SEC + draw_below(d, 15 * NS_PER_SEC);
    }
}

static void space_draw(struct draw *d)
{
    d->c->space = true;
    d->c->no_versions = true;
}

/* Every so often all mounts of all sites call at once; nodes die within these milliseconds. */
static void crowd_draw(struct draw *d)
{
    uint64_t every = 200 * NS_PER_MS + draw_below(d, 800 * NS_PER_MS), bursts = 1;
    for (unsigned i = 0; i < d->c->site_count; i++) {
        struct world_work *w = &d->c->sites[i].work;
        w->clients = 3 + (unsigned)draw_below(d, 5);
        w->burst = 4 + (unsigned)draw_below(d, 20);
        w->burst_ns = every;
        bursts = MAX(bursts, w->operations / w->clients / w->burst);
    }
    d->c->mount_reset_per_million = (uint32_t)draw_below(d, 10000);
    for (uint64_t i = draw_below(d, 6); i > 0; i--) {
        unsigned a = site_draw(d);
        uint64_t at = draw_below(d, bursts) * every + draw_below(d, 3 * NS_PER_MS);
        bool process_only = draw_below(d, 3) == 0;
        draw_event(d, (struct world_event){
                          .at_ns = at, .kind = WORLD_CRASH, .a = a, .value = process_only});
        draw_event(d, (struct world_event){
                          .at_ns = at + draw_below(d, every), .kind = WORLD_RESTART, .a = a});
    }
}

/* Somebody else gives it up: of two sites only the one with the lower id does. The limit is longer
 * than the usual faults take, so that mostly nobody but this one is given up. */
static void away_draw(struct draw *d)
{
    unsigned a = d->c->site_count == 2 ? 1 : victim(d);
    d->c->journal_age_s = 6 + (uint32_t)(d->work_ns / NS_PER_SEC / 2 + draw_below(d, 6));
    uint64_t age_ns = d->c->journal_age_s * NS_PER_SEC;
    draw_event(d, (struct world_event){.at_ns = draw_below(d, d->work_ns / 2 + 1),
                                       .kind = WORLD_AWAY,
                                       .a = a,
                                       .value = (int64_t)(age_ns + draw_below(d, 2 * age_ns))});
}

/* Then the usual faults make sites give each other up, and what collects the dead is quick. */
static void short_draw(struct draw *d)
{
    d->c->journal_age_s = 4 + (uint32_t)draw_below(d, 8);
}

/* Power goes within what else is whole: half of the times where files are made and renamed or
 * databases written, and mostly once or twice more while the site starts. */
void soak_step_draw(struct draw *d)
{
    bool few = draw_below(d, 2) == 0;
    uint32_t calls = 1 + (uint32_t)draw_below(d, few ? 8 : 120);
    uint64_t at = draw_below(d, d->work_ns);
    unsigned a = site_draw(d);
    draw_event(d,
               (struct world_event){.at_ns = at,
                                    .kind = WORLD_STEP,
                                    .a = a,
                                    .value = world_step(calls, few, (unsigned)draw_below(d, 4))});
}

static void step_draw(struct draw *d)
{
    for (uint64_t i = 4 + draw_below(d, 12); i > 0; i--)
        soak_step_draw(d);
}

/* Half of the mounts are not `-o sync`. Half of the sites have disks so slow that several answers
 * are ahead of them at a time. */
static void ahead_draw(struct draw *d)
{
    d->c->ahead_seed = 1 + draw_below(d, UINT32_MAX);
    for (unsigned i = 0; i < d->c->site_count; i++) {
        uint64_t ns = NS_PER_MS + draw_below(d, 15 * NS_PER_MS);
        if (draw_below(d, 2) == 0)
            d->c->sites[i].disk.write = (struct world_delay){.base_ns = ns, .jitter_ns = ns};
    }
}

/* No dice: so the world of a seed is what it is without, but for the links that are not there. */
static void line_draw(struct draw *d)
{
    for (unsigned a = 0; a < d->c->site_count; a++)
        for (unsigned b = 0; b < d->c->site_count; b++)
            d->c->links[a][b].absent = a + 1 != b && b + 1 != a;
}

/* A clock that is set wrong, and right again: more than ten minutes ahead, so that what others get
 * from there is held, or as far behind. */
static void clock_draw(struct draw *d)
{
    for (uint64_t i = 1 + draw_below(d, 2); i > 0; i--) {
        unsigned a = site_draw(d);
        uint64_t at = draw_below(d, d->work_ns), end = at + draw_below(d, d->work_ns / 2 + 1);
        int64_t by = (int64_t)(605 * NS_PER_SEC + draw_below(d, 120 * NS_PER_SEC));
        if (draw_below(d, 3) == 0)
            by = -by;
        draw_event(d, (struct world_event){.at_ns = at, .kind = WORLD_CLOCK, .a = a, .value = by});
        draw_event(d,
                   (struct world_event){.at_ns = end, .kind = WORLD_CLOCK, .a = a, .value = -by});
    }
}

static const struct {
    const char *name;
    unsigned kind;
    void (*draw)(struct draw *d);
    uint64_t
        salt; /* of its dice: never changes, or seeds that are named in RESULTS.md mean others */
} kinds[] = {
    /* clang-format off: a kind a line */
    {"line", SOAK_LINE, line_draw, 0}, /* who can be taken away depends on it */
    {"join", SOAK_JOIN, join_draw,
     32}, /* first: who is a member from the beginning is known then */
    {"eio", SOAK_EIO, eio_draw, 1},
    {"full", SOAK_FULL, full_draw, 2},
    {"rot", SOAK_ROT, rot_draw, 4},
    {"lose", SOAK_LOSE, lose_draw, 8},
    {"remove", SOAK_REMOVE, remove_draw, 16},
    {"chunks", SOAK_CHUNKS, chunks_draw, 64},
    {"space", SOAK_SPACE, space_draw, 128},
    {"crowd", SOAK_CROWD, crowd_draw, 256},
    {"away", SOAK_AWAY, away_draw, 256},
    {"short", SOAK_SHORT, short_draw, 512}, /* after `away`, whose limit it replaces */
    {"tight", SOAK_TIGHT, tight_draw, 4096},
    {"step", SOAK_STEP, step_draw, 8192},
    {"clock", SOAK_CLOCK, clock_draw, 16384},
    {"ahead", SOAK_AHEAD, ahead_draw, 65536},
    /* clang-format on */
};

void soak_faults_draw(uint64_t seed, unsigned wanted, uint64_t work_ns, struct world_config *c)
{
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        struct draw d = {.c = c, .work_ns = work_ns};
        if ((wanted & kinds[i].kind) == 0)
            continue;
        rng_seed(&d.rng, seed ^ (UINT64_C(0xfa17) << 32 | kinds[i].salt));
        kinds[i].draw(&d);
    }
}

bool soak_faults_parse(const char *text, unsigned *ret)
{
    *ret = 0;
    for (;;) {
        size_t len = strcspn(text, ","), i = 0;
        bool all = len == 3 && strncmp(text, "all", 3) == 0;
        while (i < ARRAY_COUNT(kinds) && !all &&
               (strlen(kinds[i].name) != len || strncmp(text, kinds[i].name, len) != 0))
            i++;
        if (i == ARRAY_COUNT(kinds))
            return false;
        for (size_t k = 0; k < ARRAY_COUNT(kinds); k++)
            if (all ? (kinds[k].kind & SOAK_ALL) != 0 : k == i)
                *ret |= kinds[k].kind;
        if (text[len] == '\0')
            return true;
        text += len + 1;
    }
}

void soak_faults_print(unsigned wanted)
{
    const char *before = " --faults ";
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++)
        if ((wanted & kinds[i].kind) != 0) {
            printf("%s%s", before, kinds[i].name);
            before = ",";
        }
}
