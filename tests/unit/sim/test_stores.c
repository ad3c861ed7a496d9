/* The twin of the state's store against an array: random writes, looked at through keys, through
 * iterators from anywhere, and through iterators that began before later writes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "journal/state.h"
#include "sim/disk.h"
#include "sim/sched.h"

#define KEYS 3000u

struct model {
    uint32_t value[KEYS]; /* 0: the key is not there */
};
struct batch {
    const struct model *before, *after;
    uint32_t at;
    char key[8], value[16];
};

static struct slice key_of(uint32_t i, char to[8])
{
    int len = snprintf(to, 8, "k%05u", i);
    return slice_of(to, (size_t)len);
}

static bool batch_next(void *ctx, struct slice *key, struct slice *value, bool *is_delete)
{
    struct batch *b = ctx;
    while (b->at < KEYS && b->before->value[b->at] == b->after->value[b->at])
        b->at++;
    if (b->at == KEYS)
        return false;
    uint32_t v = b->after->value[b->at];
    *key = key_of(b->at++, b->key);
    *value = slice_of(b->value, (size_t)snprintf(b->value, sizeof b->value, "%u", v));
    *is_delete = v == 0;
    return true;
}

static void
check_iter(const struct state_store *s, void *iter, const struct model *m, uint32_t from)
{
    char key[8], text[16];
    struct slice k, v;
    for (uint32_t i = from; i < KEYS; i++) {
        if (m->value[i] == 0)
            continue;
        assert_true(s->ops->iter_at(iter, &k, &v));
        assert_true(slice_equal(k, key_of(i, key)));
        (void)snprintf(text, sizeof text, "%u", m->value[i]); /* fits */
        assert_true(slice_equal(v, slice_str(text)));
        s->ops->iter_next(iter);
    }
    assert_false(s->ops->iter_at(iter, &k, &v));
    assert_int_equal(s->ops->iter_free(iter), 0);
}

static void check_gets(const struct state_store *s, const struct model *m)
{
    struct buf value = {0};
    char key[8], text[16];
    for (uint32_t i = 0; i < KEYS; i++) {
        bool found;
        assert_int_equal(s->ops->get(s->ctx, key_of(i, key), &value, &found), 0);
        assert_int_equal(found, m->value[i] != 0);
        (void)snprintf(text, sizeof text, "%u", m->value[i]); /* fits */
        if (found)
            assert_true(slice_equal(buf_slice(&value), slice_str(text)));
    }
    buf_deinit(&value);
}

/* A few keys, many keys, a range, or nothing; sometimes all of them go. */
static void draw(struct rng *rng, struct model *m)
{
    uint64_t kind = rng_below(rng, 6);
    uint32_t from = (uint32_t)rng_below(rng, KEYS);
    uint32_t count = kind == 0 ? 0 : kind < 3 ? 5 : kind == 3 ? 400 : KEYS;
    if (kind == 5 && rng_below(rng, 4) == 0)
        memset(m, 0, sizeof *m);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = kind == 3 ? (from + i) % KEYS : (uint32_t)rng_below(rng, KEYS);
        m->value[at] = rng_below(rng, 3) == 0 ? 0 : 1 + (uint32_t)rng_below(rng, 1000);
    }
}

static void test_store_holds_what_an_array_holds(void **state)
{
    static struct model now, next;
    static struct model before;
    const struct world_disk config = {.capacity_bytes = 0};
    struct sched world;
    struct err_detail d;
    struct state_store s;
    struct rng rng;
    char key[8];
    (void)state;
    sched_init(&world, 1);
    sched = &world;
    struct disk *disk = disk_new(DISK_PREFIX "0", &config);
    assert_int_equal(state_store_rocks_open(&s, DISK_PREFIX "0/state", 0, &d), 0);
    rng_seed(&rng, 5);
    for (uint64_t round = 1; round <= 150; round++) {
        before = next = now;
        void *old = s.ops->iter_new(s.ctx, slice_of("", 0), slice_of(NULL, 0));
        draw(&rng, &next);
        struct batch b = {.before = &now, .after = &next};
        assert_int_equal(s.ops->write(s.ctx, round, batch_next, &b, &d), 0);
        now = next;
        assert_int_equal(s.ops->index(s.ctx), round);
        check_iter(&s, old, &before, 0);
        uint32_t from = (uint32_t)rng_below(&rng, KEYS);
        check_iter(&s, s.ops->iter_new(s.ctx, key_of(from, key), slice_of(NULL, 0)), &now, from);
        check_gets(&s, &now);
    }
    s.ops->close(s.ctx);
    disk_free(disk);
    sched_deinit(&world);
    sched = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_holds_what_an_array_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
