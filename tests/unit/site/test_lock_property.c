/* site/lock.h against a model that keeps, for every byte, who has locked it how, and searches
 * deadlocks by trying every chain. Random requests on a few small files; the last byte stands for
 * everything from there on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "site/lock.h"

enum {
    OWNERS = 5, /* owner o belongs to session 1 + o / 2 */
    FILES = 3,
    BYTES = 12,
    WAITERS = 32,
    STEPS = 3000,
    NONE = 2
};

struct want {
    uint64_t number;
    size_t owner, file, first, last;
    uint8_t type;
    bool flock, patient;
};
struct model {
    uint8_t at[2][FILES][OWNERS][BYTES]; /* [flock]; NONE, or the type */
    struct want waiting[WAITERS];        /* oldest first */
    size_t waiting_count;
    bool grace;
    struct {
        uint64_t number;
        int rc;
    } granted[WAITERS];
    size_t granted_count;
};
struct seen {
    uint64_t number[WAITERS];
    int rc[WAITERS];
    size_t count;
};

/* --- the model --- */

static bool byte_blocks(const struct model *m, const struct want *w, size_t owner, size_t byte)
{
    uint8_t held = m->at[w->flock][w->file][owner][byte];
    return owner != w->owner && held != NONE && (held == 1 || w->type == 1);
}

static bool blocked_by(const struct model *m, const struct want *w, size_t owner)
{
    for (size_t b = w->first; b <= w->last; b++)
        if (byte_blocks(m, w, owner, b))
            return true;
    return false;
}

static bool blocked(const struct model *m, const struct want *w)
{
    for (size_t o = 0; o < OWNERS; o++)
        if (blocked_by(m, w, o))
            return true;
    return false;
}

static bool holds(const struct model *m, size_t owner, bool flock)
{
    for (size_t f = 0; f < FILES; f++)
        for (size_t b = 0; b < BYTES; b++)
            if (m->at[flock][f][owner][b] != NONE)
                return true;
    return false;
}

static size_t waits(const struct model *m, size_t owner, bool flock)
{
    size_t count = 0;
    for (size_t i = 0; i < m->waiting_count; i++)
        count += m->waiting[i].owner == owner && m->waiting[i].flock == flock ? 1 : 0;
    return count;
}

static bool wants_conflict(const struct want *a, const struct want *b)
{
    return a->owner != b->owner && a->file == b->file && a->flock == b->flock &&
           (a->type == 1 || b->type == 1) && a->first <= b->last && b->first <= a->last;
}

static bool behind_somebody(const struct model *m, const struct want *w, size_t before)
{
    for (size_t i = 0; i < before; i++)
        if (wants_conflict(&m->waiting[i], w))
            return true;
    return false;
}

/* Does `owner` wait, through any chain of record locks that are held, for `target`? */
static bool chain(const struct model *m, size_t owner, size_t target, size_t depth)
{
    if (depth > OWNERS)
        return false;
    for (size_t i = 0; i < m->waiting_count; i++) {
        const struct want *w = &m->waiting[i];
        for (size_t o = 0; w->owner == owner && !w->flock && o < OWNERS; o++)
            if (blocked_by(m, w, o) && (o == target || chain(m, o, target, depth + 1)))
                return true;
    }
    return false;
}

static bool deadlock(const struct model *m, const struct want *w)
{
    for (size_t o = 0; o < OWNERS; o++)
        if (blocked_by(m, w, o) && chain(m, o, w->owner, 0))
            return true;
    return false;
}

static void assign(struct model *m, const struct want *w)
{
    memset(&m->at[w->flock][w->file][w->owner][w->first], w->type, w->last - w->first + 1);
}

static void waiting_drop(struct model *m, size_t at)
{
    memmove(&m->waiting[at], &m->waiting[at + 1],
            (m->waiting_count - at - 1) * sizeof m->waiting[0]);
    m->waiting_count--;
}

static void impatience(struct model *m)
{
    for (size_t i = 0; i < m->waiting_count; i++) {
        struct want *w = &m->waiting[i];
        if (holds(m, w->owner, w->flock) || waits(m, w->owner, w->flock) > 1)
            w->patient = false;
    }
}

static void tell(struct model *m, uint64_t number, int rc)
{
    m->granted[m->granted_count].number = number;
    m->granted[m->granted_count++].rc = rc;
}

/* The order between files is the implementation's; within a file it is that of the queue. */
static void settle_file(struct model *m, size_t file, bool flock)
{
    for (size_t i = 0; i < m->waiting_count && !m->grace; i++) {
        struct want w = m->waiting[i];
        if (w.file != file || w.flock != flock || blocked(m, &w) ||
            (w.patient && behind_somebody(m, &w, i)))
            continue;
        waiting_drop(m, i);
        assign(m, &w);
        impatience(m);
        tell(m, w.number, 0);
        i = (size_t)-1; /* from the front again */
    }
}

static void settle(struct model *m)
{
    size_t before;
    do {
        before = m->granted_count;
        for (size_t f = 0; f < FILES; f++) {
            settle_file(m, f, false);
            settle_file(m, f, true);
        }
    } while (m->granted_count != before);
}

static int model_set(struct model *m, struct want w, bool wait, bool reclaim)
{
    bool take = w.type != NONE;
    bool held_back = m->grace && !reclaim && take;
    bool may_wait = wait && !reclaim && take;
    if (held_back && !may_wait)
        return ERR_AGAIN;
    if (w.flock && !held_back && w.type == 1 && blocked(m, &w) && m->at[1][w.file][w.owner][0] == 0)
        memset(m->at[1][w.file][w.owner], NONE, BYTES);
    bool busy = holds(m, w.owner, w.flock) || waits(m, w.owner, w.flock) > 0;
    if (!held_back && (!take || !blocked(m, &w)) &&
        (!may_wait || busy || !behind_somebody(m, &w, m->waiting_count))) {
        assign(m, &w);
        impatience(m);
        return 0;
    }
    if (!may_wait)
        return ERR_WOULD_BLOCK;
    if (!held_back && !w.flock && deadlock(m, &w))
        return ERR_DEADLOCK;
    w.patient = true;
    m->waiting[m->waiting_count++] = w;
    impatience(m);
    return LOCK_QUEUED;
}

static void model_grace_end(struct model *m)
{
    m->grace = false;
    for (size_t i = 0; i < m->waiting_count;) {
        struct want w = m->waiting[i];
        bool goes_on = !blocked(m, &w) && !(w.patient && behind_somebody(m, &w, i));
        if (w.flock || goes_on || !deadlock(m, &w)) {
            i++;
            continue;
        }
        tell(m, w.number, ERR_DEADLOCK);
        waiting_drop(m, i);
    }
}

/* --- comparing --- */

static uint64_t session_of(size_t owner)
{
    return 1 + owner / 2;
}

static struct oid file_of(size_t f)
{
    return oid_file(0, OID_FILE, 1, f + 1);
}

static void on_granted(void *ctx, uint64_t session, uint64_t number, int rc)
{
    struct seen *s = ctx;
    (void)session;
    s->number[s->count] = number;
    s->rc[s->count++] = rc;
}

static struct lock_request request_of(const struct want *w)
{
    return (struct lock_request){
        .oid = file_of(w->file),
        .session = session_of(w->owner),
        .number = w->number,
        .lock = {.owner = w->owner,
                 .start = w->first,
                 .end = w->last == BYTES - 1 ? UINT64_MAX : w->last,
                 .type = w->type},
        .flock = w->flock,
    };
}

static void paint(void *ctx, const struct lock_held *h)
{
    struct model *m = ctx;
    size_t file = h->oid.b[15] - 1u;
    uint64_t last = h->lock.end == UINT64_MAX ? BYTES - 1 : h->lock.end;
    assert_int_equal(h->session, session_of(h->lock.owner));
    for (uint64_t b = h->lock.start; b <= last; b++)
        m->at[h->flock][file][h->lock.owner][b] = h->lock.type;
}

static int number_order(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static void compare(const struct lock_table *t, const struct model *m, const struct seen *seen)
{
    static struct model painted;
    memset(painted.at, NONE, sizeof painted.at);
    lock_each(t, paint, &painted);
    assert_memory_equal(painted.at, m->at, sizeof m->at);
    assert_int_equal(lock_waiter_count(t), m->waiting_count);
    /* The same were told the same; the order between files is not compared. */
    uint64_t a[WAITERS], b[WAITERS];
    assert_int_equal(seen->count, m->granted_count);
    for (size_t i = 0; i < seen->count; i++) {
        a[i] = seen->number[i] << 8 | (uint8_t)seen->rc[i];
        b[i] = m->granted[i].number << 8 | (uint8_t)m->granted[i].rc;
    }
    qsort(a, seen->count, sizeof a[0], number_order);
    qsort(b, seen->count, sizeof b[0], number_order);
    assert_memory_equal(a, b, seen->count * sizeof a[0]);
}

static void compare_test(const struct lock_table *t, const struct model *m, const struct want *w)
{
    const struct lock_request r = request_of(w);
    struct fs_lock got;
    lock_test(t, &r, &got);
    if (w->type == NONE || !blocked(m, w)) {
        assert_int_equal(got.type, NONE);
        return;
    }
    assert_int_equal(m->at[w->flock][w->file][got.owner][got.start], got.type);
    assert_true(blocked_by(m, w, got.owner));
    for (size_t o = 0; o < OWNERS; o++) /* nothing before it blocks */
        for (size_t b = w->first; b < got.start && b <= w->last; b++)
            assert_false(byte_blocks(m, w, o, b));
}

static struct want random_want(struct rng *r, uint64_t number)
{
    struct want w = {.number = number,
                     .owner = rng_below(r, OWNERS),
                     .file = rng_below(r, FILES),
                     .first = rng_below(r, BYTES),
                     .type = (uint8_t)rng_below(r, 3),
                     .flock = rng_below(r, 5) == 0};
    w.last = w.first + rng_below(r, BYTES - w.first);
    if (rng_below(r, 6) == 0 || w.flock) {
        w.first = 0;
        w.last = BYTES - 1;
    }
    return w;
}

static void step_release(struct lock_table *t, struct model *m, struct rng *r)
{
    size_t owner = rng_below(r, OWNERS), file = rng_below(r, FILES);
    if (rng_below(r, 3) > 0) {
        bool flock = rng_below(r, 3) == 0;
        lock_release_owner(t, file_of(file), flock, session_of(owner), owner);
        memset(m->at[flock][file][owner], NONE, BYTES);
        return;
    }
    uint64_t session = session_of(owner);
    lock_release_session(t, session);
    for (size_t i = m->waiting_count; i > 0; i--)
        if (session_of(m->waiting[i - 1].owner) == session)
            waiting_drop(m, i - 1);
    for (size_t o = 0; o < OWNERS; o++)
        for (size_t f = 0; session_of(o) == session && f < FILES; f++) {
            memset(m->at[0][f][o], NONE, BYTES);
            memset(m->at[1][f][o], NONE, BYTES);
        }
}

static void step(struct lock_table *t, struct model *m, struct rng *r, uint64_t number)
{
    struct want w = random_want(r, number);
    uint64_t what = rng_below(r, 40);
    if (what == 0) {
        lock_grace_begin(t);
        m->grace = true;
    } else if (what <= 3) {
        lock_grace_end(t);
        model_grace_end(m);
    } else if (what <= 6) {
        step_release(t, m, r);
    } else if (what <= 8 && m->waiting_count > 0) {
        size_t at = rng_below(r, m->waiting_count);
        assert_int_equal(lock_cancel(t, session_of(m->waiting[at].owner), m->waiting[at].number),
                         0);
        waiting_drop(m, at);
    } else if (what <= 10) {
        compare_test(t, m, &w);
    } else {
        struct lock_request q = request_of(&w);
        q.wait = rng_below(r, 2) == 0 && m->waiting_count < WAITERS / 2;
        q.reclaim = rng_below(r, m->grace ? 2 : 20) == 0;
        int expected = model_set(m, w, q.wait, q.reclaim);
        settle(m);
        for (size_t i = 0; i < m->granted_count && expected == LOCK_QUEUED; i++) {
            if (m->granted[i].number == number) { /* others made room at once */
                expected = m->granted[i].rc;
                m->granted[i] = m->granted[--m->granted_count];
            }
        }
        assert_int_equal(lock_set(t, &q), expected);
    }
    settle(m);
}

static void run(uint64_t seed)
{
    static struct model m;
    static struct seen seen;
    struct rng r;
    memset(&m, 0, sizeof m);
    memset(m.at, NONE, sizeof m.at);
    rng_seed(&r, seed);
    const struct lock_events events = {.granted = on_granted, .ctx = &seen};
    struct lock_table *t = lock_table_new(&events);
    for (uint64_t number = 1; number <= STEPS; number++) {
        m.granted_count = seen.count = 0;
        step(t, &m, &r, number);
        lock_table_validate(t);
        compare(t, &m, &seen);
    }
    lock_table_free(t);
}

static void test_random_requests_agree_with_bytes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++)
        run(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_requests_agree_with_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
