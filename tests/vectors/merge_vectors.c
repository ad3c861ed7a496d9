/* merge-vectors FILE...: applies the histories of merge_model.py and compares the trees. Each
 * site's order goes through one shard in memory, one on RocksDB with a restart, and eight shards in
 * memory with random interleavings. Exit status 0: all agree. */
#include "base/util.h"
#include "tests/vectors/vector.h"

enum {
    SHARDS = 8
};

static int run(struct vector *v, uint64_t number)
{
    int bad = 0;
    vector_build(v, 1);
    for (uint32_t i = 0; i < v->site_count; i++) {
        bad += vector_run_one(v, i, false);
        bad += vector_run_one(v, i, true);
    }
    vector_build(v, SHARDS);
    for (uint32_t i = 0; i < v->site_count; i++)
        bad += vector_run_sharded(v, i, SHARDS, number * VECTOR_SITES_MAX + i);
    return bad;
}

int main(int argc, char **argv)
{
    const struct vector_program p = {"merge-vectors", "the engine shows another tree", run};
    return vector_main(&p, argc, argv);
}
