/* merge-vectors FILE...: applies the histories of merge_model.py and compares the trees. Each
 * site's order goes through one shard in memory, one on RocksDB with a restart, and eight shards in
 * memory with random interleavings. Exit status 0: all agree. */
#include <stdio.h>

#include "base/util.h"
#include "tests/vectors/vector.h"

enum {
    SHARDS = 8
};

static int run_file(const char *path, uint64_t number)
{
    struct vector v;
    int bad = vector_load(&v, path);
    if (bad != 0)
        return bad;
    vector_build(&v, 1);
    for (uint32_t i = 0; i < v.site_count; i++) {
        bad += vector_run_one(&v, i, false);
        bad += vector_run_one(&v, i, true);
    }
    vector_build(&v, SHARDS);
    for (uint32_t i = 0; i < v.site_count; i++)
        bad += vector_run_sharded(&v, i, SHARDS, number * VECTOR_SITES_MAX + i);
    if (bad != 0)
        (void)fprintf(stderr, "%s: seed %lld: the engine shows another tree\n", path,
                      (long long)json_integer_value(json_object_get(v.root, "seed")));
    vector_free(&v);
    return bad == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    int bad = 0;
    if (argc < 2) {
        (void)fprintf(stderr, "usage: merge-vectors FILE...\n");
        return 2;
    }
    for (int i = 1; i < argc; i++)
        bad += run_file(argv[i], (uint64_t)i);
    (void)printf("%d vectors, %d wrong\n", argc - 1, bad);
    return bad == 0 ? 0 : 1;
}
