/* One address for several stores: chunks are spread, or copied, by placement; a copy that is lost
 * or damaged does not matter to who reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "data/front.h"
#include "tests/unit/data/store_world.h"

#define TARGETS 3u

/* Three stores on the loop of the first world; the others lend only their folders. */
struct many {
    struct world w[TARGETS];
    struct front *front;
};

static void many_init(struct many *m, unsigned copies)
{
    struct front_target targets[TARGETS];
    for (unsigned i = 0; i < TARGETS; i++) {
        world_init(&m->w[i], NULL);
        if (i > 0) {
            pool_free(m->w[i].pool);
            loop_free(m->w[i].loop);
            m->w[i].loop = m->w[0].loop;
            m->w[i].pool = m->w[0].pool;
        }
        assert_int_equal(world_open(&m->w[i]), 0);
        targets[i] = (struct front_target){.target = {.id = 70 + i, .domain = i, .weight = 1},
                                           .store = m->w[i].store};
    }
    struct redundancy r = {.k = 1, .copies = (uint8_t)copies};
    assert_int_equal(front_new(&m->front, targets, TARGETS, &r), 0);
    r.copies = TARGETS + 1;
    struct front *none = NULL;
    assert_int_equal(front_new(&none, targets, TARGETS, &r), ERR_INVALID);
    r = (struct redundancy){.k = 2, .m = 1, .copies = 1};
    assert_int_equal(front_new(&none, targets, TARGETS, &r), ERR_NOT_SUPPORTED);
}

static void many_deinit(struct many *m)
{
    front_free(m->front);
    for (unsigned i = TARGETS; i-- > 0;) {
        world_close(&m->w[i]);
        if (i == 0) {
            world_deinit(&m->w[0]);
        } else {
            id_map_deinit(&m->w[i].damaged);
            remove_tree(m->w[i].dir);
        }
    }
}

struct asked {
    struct store_put put;
    struct store_get get;
    struct store_has has;
    struct world *w;
    struct buf want;
    int rc;
};
static void put_done(struct store_put *put, int rc)
{
    struct asked *a = CONTAINER_OF(put, struct asked, put);
    a->rc = rc;
    world_done(a->w);
}
static void get_done(struct store_get *get, int rc, struct chunk_buf *data)
{
    struct asked *a = CONTAINER_OF(get, struct asked, get);
    a->rc = rc;
    if (rc == 0)
        assert_true(slice_equal(data->data, buf_slice(&a->want)));
    world_done(a->w);
}
static void has_done(struct store_has *has, int rc)
{
    struct asked *a = CONTAINER_OF(has, struct asked, has);
    a->rc = rc;
    world_done(a->w);
}

static int put(struct many *m, uint64_t n)
{
    struct asked a = {.w = &m->w[0]};
    chunk_bytes(n, 700, &a.want);
    a.put = (struct store_put){.id = chunk_number(n), .data = buf_slice(&a.want), .done = put_done};
    m->w[0].pending++;
    assert_int_equal(front_put(m->front, &a.put), 0);
    world_run(&m->w[0]);
    buf_deinit(&a.want);
    return a.rc;
}

static int get_range(struct many *m, uint64_t n, uint32_t from, uint32_t len)
{
    struct asked a = {.w = &m->w[0]};
    struct buf all = {0};
    chunk_bytes(n, 700, &all);
    buf_append(&a.want, all.ptr + from, len == 0 ? all.len : len);
    a.get = (struct store_get){.id = chunk_number(n), .from = from, .len = len, .done = get_done};
    m->w[0].pending++;
    assert_int_equal(front_get(m->front, &a.get), 0);
    world_run(&m->w[0]);
    if (a.rc == 0)
        assert_int_equal(a.get.chunk_len, all.len);
    buf_deinit(&a.want);
    buf_deinit(&all);
    return a.rc;
}

static int get(struct many *m, uint64_t n)
{
    int rc = get_range(m, n, 0, 0);
    assert_int_equal(get_range(m, n, 100, 50), rc);
    return rc;
}

/* How many of the chunks [0, count) are there by `has`. */
static unsigned has(struct many *m, unsigned count)
{
    struct asked a = {.w = &m->w[0]};
    struct chunk_id ids[300];
    bool present[300];
    assert_true(count <= 300);
    for (unsigned i = 0; i < count; i++)
        ids[i] = chunk_number(i);
    a.has = (struct store_has){.ids = ids, .count = count, .present = present, .done = has_done};
    m->w[0].pending++;
    assert_int_equal(front_has(m->front, &a.has), 0);
    world_run(&m->w[0]);
    assert_int_equal(a.rc, 0);
    unsigned found = 0;
    for (unsigned i = 0; i < count; i++)
        found += present[i];
    return found;
}

static void test_single_copies_are_spread(void **state)
{
    (void)state;
    struct many m;
    many_init(&m, 1);
    for (uint64_t n = 0; n < 150; n++)
        assert_int_equal(put(&m, n), 0);
    uint64_t sum = 0;
    for (unsigned i = 0; i < TARGETS; i++) {
        uint64_t chunks = world_stats(&m.w[i]).chunks;
        assert_in_range(chunks, 25, 80);
        sum += chunks;
    }
    assert_int_equal(sum, 150);
    for (uint64_t n = 0; n < 150; n++)
        assert_int_equal(get(&m, n), 0);
    assert_int_equal(get(&m, 1000), ERR_NOT_FOUND);
    assert_int_equal(has(&m, 200), 150);
    many_deinit(&m);
}

static void damage_first_segment(const struct world *w)
{
    char *path = world_segment(w, 0);
    int fd = open(path, O_WRONLY);
    uint8_t junk[4096];
    memset(junk, 0xaa, sizeof junk);
    for (unsigned i = 1; i < 60; i++)
        assert_int_equal(pwrite(fd, junk, sizeof junk, i * 4096), sizeof junk);
    (void)close(fd);
    mem_free(path);
}

static void test_copies_stand_in_for_each_other(void **state)
{
    (void)state;
    struct many m;
    many_init(&m, 2);
    for (uint64_t n = 0; n < 50; n++)
        assert_int_equal(put(&m, n), 0);
    assert_int_equal(world_stats(&m.w[0]).chunks + world_stats(&m.w[1]).chunks +
                         world_stats(&m.w[2]).chunks,
                     100);
    assert_int_equal(has(&m, 60), 50);
    damage_first_segment(&m.w[1]);
    for (uint64_t n = 0; n < 50; n++)
        assert_int_equal(get(&m, n), 0);
    assert_true(world_damaged(&m.w[1]) > 0);
    assert_true(has(&m, 60) < 50); /* not with all their copies */
    for (uint64_t n = 0; n < 50; n++)
        assert_int_equal(put(&m, n), 0); /* repairs what is known to be damaged */
    assert_int_equal(has(&m, 60), 50);
    assert_int_equal(get(&m, 1000), ERR_NOT_FOUND);
    many_deinit(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single_copies_are_spread),
        cmocka_unit_test(test_copies_stand_in_for_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
