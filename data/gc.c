/* Garbage collection: marking. See data/gc.h for the rule and why it is safe. */
#include "data/gc.h"

#include "base/assert.h"
#include "data/manifest_int.h"

#define BLOOM_BITS_PER_CHUNK 12u /* with 8 probes: about 3 in 1000 dead chunks stay for a pass */
#define BLOOM_PROBES 8u
#define BLOOM_BITS_MIN 65536u
#define VISITS_PER_CALL 4096u
#define AHEAD 32u /* nodes asked for at once */

struct gc {
    bool running;
    uint64_t epoch;       /* of the running pass */
    uint64_t epoch_swept; /* of the last one that ended; 0: none is known */
    uint64_t epoch_older; /* of the one before; or 0 */
    bool extra;           /* the running pass was asked for, */
    uint64_t before;      /* and may take what was put before this epoch */
    uint64_t settled;     /* see gc_settled; of the running pass */
    uint64_t begun_ns, begun_before_ns;
    bool begun, begun_before; /* are these set? */
    uint64_t *bloom;
    uint64_t bloom_bits;
    struct id_map nodes; /* marked with all below */
    uint64_t blocks;     /* marked for the first time */
};

int gc_new(struct gc **ret)
{
    *ret = mem_calloc(1, sizeof **ret);
    return 0;
}

static void marks_free(struct gc *g)
{
    mem_free(g->bloom);
    g->bloom = NULL;
    id_map_deinit(&g->nodes);
}

void gc_free(struct gc *g)
{
    if (g == NULL)
        return;
    marks_free(g);
    mem_free(g);
}

static void start(struct gc *g, uint64_t epoch, uint64_t chunks)
{
    ASSERT(epoch > g->epoch_swept);
    g->running = true;
    g->epoch = epoch;
    g->blocks = 0;
    g->settled = 0;
    /* A quarter more: some will be put while the pass runs. */
    g->bloom_bits = MAX(BLOOM_BITS_MIN, (chunks + chunks / 4) * BLOOM_BITS_PER_CHUNK);
    g->bloom = mem_calloc(g->bloom_bits / 64 + 1, sizeof *g->bloom);
}

static bool is_time(const struct gc *g, uint64_t now_ns, uint64_t interval_ns)
{
    return !g->begun || now_ns - g->begun_ns >= interval_ns;
}

int gc_begin(struct gc *g, uint64_t epoch, uint64_t chunks, uint64_t now_ns, uint64_t interval_ns)
{
    if (g->running)
        return ERR_BUSY;
    if (!is_time(g, now_ns, interval_ns))
        return ERR_AGAIN;
    start(g, epoch, chunks);
    g->extra = false;
    g->before = g->epoch_swept;
    g->begun_before = g->begun;
    g->begun_before_ns = g->begun_ns;
    g->begun = true;
    g->begun_ns = now_ns;
    return 0;
}

int gc_begin_extra(
    struct gc *g, uint64_t epoch, uint64_t chunks, uint64_t now_ns, uint64_t interval_ns)
{
    if (g->running)
        return ERR_BUSY;
    start(g, epoch, chunks);
    g->extra = true;
    g->before = is_time(g, now_ns, interval_ns) ? g->epoch_swept : g->epoch_older;
    return 0;
}

uint64_t gc_marked_blocks(const struct gc *g)
{
    return g->blocks;
}

bool gc_running(const struct gc *g)
{
    return g->running;
}

bool gc_last(const struct gc *g, uint64_t *ret_epoch, uint64_t *ret_begun_ns)
{
    *ret_epoch = g->epoch_swept;
    *ret_begun_ns = g->running && !g->extra ? g->begun_before_ns : g->begun_ns;
    return g->epoch_swept != 0;
}

void gc_resume(struct gc *g, uint64_t epoch, uint64_t begun_ns)
{
    ASSERT(!g->running && g->epoch_swept == 0 && epoch > 0);
    g->epoch_swept = epoch;
    g->begun = true;
    g->begun_ns = begun_ns;
}

void gc_settled(struct gc *g, uint64_t before)
{
    ASSERT(g->running && before <= g->epoch);
    g->settled = before;
}

/* ---- the filter ---- */

/* Ids are keyed hashes: their words are the hash functions, moved by the pass's epoch so that no
 * chunk is kept by chance twice in a row. */
static uint64_t probe(const struct gc *g, const struct chunk_id *id, unsigned i)
{
    uint64_t w[4];
    memcpy(w, id->b, sizeof w);
    uint64_t seed = g->epoch * 0x9e3779b97f4a7c15ull;
    uint64_t h = (w[0] ^ seed) * 0xbf58476d1ce4e5b9ull + i * (w[1] * 0x94d049bb133111ebull | 1);
    h ^= h >> 29;
    h = (h + w[2]) * 0xbf58476d1ce4e5b9ull;
    h ^= (h >> 32) ^ w[3];
    return h % g->bloom_bits;
}

void gc_mark(struct gc *g, const struct chunk_id *id)
{
    ASSERT(g->running);
    for (unsigned i = 0; i < BLOOM_PROBES; i++) {
        uint64_t bit = probe(g, id, i);
        g->bloom[bit / 64] |= (uint64_t)1 << (bit % 64);
    }
}

bool gc_keeps(const struct gc *g, const struct chunk_id *id)
{
    ASSERT(g->running);
    for (unsigned i = 0; i < BLOOM_PROBES; i++) {
        uint64_t bit = probe(g, id, i);
        if ((g->bloom[bit / 64] >> (bit % 64) & 1) == 0)
            return false;
    }
    return true;
}

/* ---- manifests ---- */

struct marking {
    struct gc *g;
    unsigned visits;
};

static enum manifest_visit
mark_enter(void *ctx, const struct chunk_id *id, unsigned level, uint64_t block)
{
    struct marking *m = ctx;
    (void)block;
    if (++m->visits > VISITS_PER_CALL)
        return MANIFEST_VISIT_STOP;
    /* Only a node that was left, not one that was merely entered, may be passed over: what is
     * below it is marked then. The filter's word would not do: it may be wrong. */
    if (level > 0 && id_map_get(&m->g->nodes, id) != NULL)
        return MANIFEST_VISIT_SKIP;
    m->g->blocks += level == 0 && !gc_keeps(m->g, id);
    gc_mark(m->g, id);
    return MANIFEST_VISIT_GO;
}

static void mark_leave(void *ctx, const struct chunk_id *id, unsigned level)
{
    struct marking *m = ctx;
    id_map_set(&m->g->nodes, id, level);
}

int gc_mark_manifest(struct gc *g,
                     struct node_cache *c,
                     const struct manifest *m,
                     struct gc_cursor *cursor,
                     struct chunk_ids *missing)
{
    ASSERT(g->running);
    struct marking marking = {.g = g};
    struct walk_fns fns = {.enter = mark_enter, .leave = mark_leave, .ctx = &marking};
    int rc = manifest_walk_fns(c, m, &cursor->block, AHEAD, &fns, missing);
    if (rc != 0)
        return rc;
    return cursor->block < manifest_blocks(m) ? ERR_AGAIN : 0;
}

/* ---- the end of a pass ---- */

uint64_t gc_sweep_before(const struct gc *g)
{
    ASSERT(g->running);
    return MAX(g->before, g->settled);
}

void gc_end(struct gc *g)
{
    ASSERT(g->running);
    g->running = false;
    if (!g->extra) {
        g->epoch_older = g->epoch_swept;
        g->epoch_swept = g->epoch;
    }
    marks_free(g);
}

void gc_cancel(struct gc *g)
{
    ASSERT(g->running);
    g->running = false;
    if (!g->extra) {
        g->begun = g->begun_before;
        g->begun_ns = g->begun_before_ns;
    }
    marks_free(g);
}
