/* Vectors one after the other, and the sum. */
#include <stdio.h>

#include "base/util.h"
#include "tests/vectors/vector.h"

static int run_file(const struct vector_program *p, const char *path, uint64_t number)
{
    struct vector v;
    int bad = vector_load(&v, path);
    if (bad != 0)
        return bad;
    bad = p->run(&v, number);
    if (bad != 0)
        (void)fprintf(stderr, "%s: seed %lld: %s\n", path,
                      (long long)json_integer_value(json_object_get(v.root, "seed")), p->what);
    vector_free(&v);
    return bad == 0 ? 0 : 1;
}

int vector_main(const struct vector_program *p, int argc, char **argv)
{
    int bad = 0;
    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s FILE...\n", p->name);
        return 2;
    }
    for (int i = 1; i < argc; i++)
        bad += run_file(p, argv[i], (uint64_t)i);
    (void)printf("%d vectors, %d wrong\n", argc - 1, bad);
    return bad == 0 ? 0 : 1;
}
