/* A chunk store on a loop with a pool, in a folder of its own; calls that run the loop until the
 * answer is there; and chunks that are a function of their number. */
#ifndef TESTS_STORE_WORLD_H
#define TESTS_STORE_WORLD_H

#include "base/buf.h"
#include "base/clock.h"
#include "data/store.h"

struct world {
    char dir[64]; /* of the store; removed by world_deinit if world_init made it */
    bool own_dir;
    uint64_t segment_bytes, reserve_bytes;
    uint32_t queue_max;
    struct loop *loop;
    struct pool *pool;
    struct store *store;
    struct store_recovery recovery;
    uint64_t pending;      /* what world_run waits for */
    struct id_map damaged; /* reported */
    uint64_t gets;
    void *room; /* for some of them */
};
void world_init(struct world *w, const char *dir /* NULL: a new one */);
void world_init_clock(struct world *w, const char *dir, const struct clock *clock);
void world_deinit(struct world *w);
int world_open(struct world *w);
void world_close(struct world *w);
void world_run(struct world *w);  /* until pending is 0 */
void world_done(struct world *w); /* one less pending */
uint64_t world_damaged(const struct world *w);

/* Chunk n: about `size` bytes (0: a size that depends on n, up to 20000). */
struct chunk_id chunk_number(uint64_t n);
void chunk_bytes(uint64_t n, size_t size, struct buf *out);

int world_put(struct world *w, uint64_t n, size_t size);
void world_put_many(struct world *w,
                    uint64_t from,
                    uint64_t to,
                    size_t size); /* all must succeed */
/* The get's result; when it is 0, the bytes have been compared. */
int world_get(struct world *w, uint64_t n, size_t size);
int world_get_range(struct world *w, uint64_t n, size_t size, uint32_t from, uint32_t len);
bool world_has(struct world *w, uint64_t n, bool keep);
/* Numbers for which (n % modulo == rest) survive. */
struct store_sweep world_sweep(struct world *w, uint64_t before, uint64_t modulo, uint64_t rest);
/* Full scrub; the damage of all steps. */
struct store_scrub world_scrub(struct world *w, uint64_t budget_bytes);
struct store_compact world_compact(struct world *w, int *ret_rc);
struct store_stats world_stats(const struct world *w);

/* Segment files, lowest number first; the caller frees path with mem_free. NULL: no more. */
char *world_segment(const struct world *w, unsigned idx);
void remove_tree(const char *dir);

#endif
