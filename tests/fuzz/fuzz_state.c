/* Rows of a shard's state, from its database or from a peer whose snapshot is taken over. The first
 * byte chooses: a row of any bytes, which is refused or reads the same when it is written again; or
 * a state that a script has made, some rows of which are changed before it is opened: the engine
 * refuses, or goes on with what it finds, and ends. */
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "journal/merge_int.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/merge_script.h"

enum {
    ROWS_MAX = 4096,
    DAMAGE_MAX = 8
};

/* ---- one row ---- */

/* Whoever reads a file relies on it, and op_decode() refuses anything else. */
static void check_content(const struct content *c)
{
    if (c->kind == CONTENT_INLINE) {
        ASSERT(c->bytes.len <= c->size && c->size <= LIMIT_FILE_BYTES);
        return;
    }
    ASSERT(c->kind == CONTENT_MANIFEST && c->size <= LIMIT_FILE_BYTES);
    ASSERT(c->block_bytes >= 64 * KIB && c->block_bytes <= LIMIT_CHUNK_BYTES);
    ASSERT((c->block_bytes & (c->block_bytes - 1)) == 0 && c->data_blocks <= LIMIT_FILE_BYTES);
}

static int file_again(struct slice in, struct op_arena *a, struct buf *out)
{
    struct file_rec r = {0};
    int rc = file_decode(in, a, &r);
    for (uint32_t i = 0; rc == 0 && i < r.ver_count; i++)
        check_content(&r.vers[i].content);
    if (rc == 0)
        file_encode(&r, out);
    return rc;
}

static int dir_again(struct slice in, struct op_arena *a, struct buf *out)
{
    struct dir_rec r = {0};
    int rc = dir_decode(in, a, &r);
    if (rc == 0)
        dir_encode(&r, out);
    return rc;
}

static int slot_again(struct slice in, struct op_arena *a, struct buf *out)
{
    struct slot r = {0};
    int rc = slot_decode(in, a, &r);
    if (rc == 0)
        slot_encode(&r, out);
    return rc;
}

static int placed_again(struct slice in, struct op_arena *a, struct buf *out)
{
    struct placed r = {0};
    (void)a;
    int rc = placed_decode(in, &r);
    if (rc == 0)
        placed_encode(&r, out);
    return rc;
}

static int lww_again(struct slice in, struct op_arena *a, struct buf *out)
{
    struct lww r = {0};
    (void)a;
    int rc = lww_decode(in, &r);
    if (rc == 0)
        lww_encode(&r, out);
    return rc;
}

static int position_again(struct slice in, struct op_arena *a, struct buf *out)
{
    struct position r = {0};
    (void)a;
    int rc = position_decode(in, &r);
    if (rc == 0)
        position_encode(&r, out);
    return rc;
}

static int birth_again(struct slice in, struct op_arena *a, struct buf *out)
{
    struct birth r = {0};
    (void)a;
    int rc = birth_decode(in, &r);
    if (rc == 0)
        birth_encode(&r, out);
    return rc;
}

static int derived_again(struct slice in, struct op_arena *a, struct buf *out)
{
    struct derived r = {0};
    int rc = derived_decode(in, a, &r);
    if (rc == 0)
        derived_encode(&r, out);
    return rc;
}

static int conflict_again(struct slice in, struct op_arena *a, struct buf *out)
{
    struct conflict r = {0};
    (void)a;
    int rc = conflict_decode(in, &r);
    if (rc == 0)
        conflict_encode(&r, out);
    return rc;
}

static int (*const again[])(struct slice in, struct op_arena *a, struct buf *out) = {
    file_again,     dir_again,   slot_again,    placed_again,  lww_again,
    position_again, birth_again, derived_again, conflict_again};

/* Numbers have longer forms, which are taken and written as the shortest: so what was read is
 * written, and must read as what is written the same. */
static void check_row(unsigned kind, struct slice row)
{
    struct op_arena arena = {.head = NULL};
    struct buf one = {.ptr = NULL}, two = {.ptr = NULL};
    if (again[kind](row, &arena, &one) == 0) {
        int rc = again[kind](buf_slice(&one), &arena, &two);
        ASSERT(rc == 0);
        ASSERT(one.len == two.len && memcmp(one.ptr, two.ptr, one.len) == 0);
    }
    buf_deinit(&one);
    buf_deinit(&two);
    op_arena_deinit(&arena);
}

/* ---- a state with damaged rows ---- */

struct row {
    struct buf key, value;
};

static uint32_t rows_of(struct state *st, struct row *ret)
{
    struct state_scan it;
    uint32_t count = 0;
    state_scan_begin(st, &it, slice_of(NULL, 0), slice_of(NULL, 0));
    while (count < ROWS_MAX && state_scan_next(&it)) {
        ret[count] = (struct row){.key = {.ptr = NULL}};
        buf_append(&ret[count].key, it.key.ptr, it.key.len);
        buf_append(&ret[count++].value, it.value.ptr, it.value.len);
    }
    state_scan_end(&it);
    return count;
}

static void change_bytes(struct script *w, struct buf *b)
{
    size_t at = b->len == 0 ? 0 : script_next(w) % b->len;
    switch (script_next(w) % 4) {
    case 0:
        b->len = at;
        break;
    case 1:
        if (b->len > 0)
            b->ptr[at] = script_next(w);
        break;
    case 2:
        if (b->len > 0)
            b->ptr[at] ^= (uint8_t)(1u << script_next(w) % 8);
        break;
    default:
        buf_append(b, &(uint8_t){script_next(w)}, 1);
    }
}

/* Changes a row's value or key, takes it away, or gives it the value of another one. */
static void damage_one(struct script *w, struct state *st, struct row *rows, uint32_t count)
{
    struct row *r = &rows[(script_next(w) * 256u + script_next(w)) % count];
    switch (script_next(w) % 8) {
    case 0:
        state_del(st, buf_slice(&r->key));
        return;
    case 1:
        state_put(st, buf_slice(&r->key), buf_slice(&rows[script_next(w) % count].value));
        return;
    case 2:
        change_bytes(w, &r->key);
        break;
    default:
        change_bytes(w, &r->value);
    }
    state_put(st, buf_slice(&r->key), buf_slice(&r->value));
}

static void damage(struct script *w)
{
    struct state *st = w->states[script_next(w) % SCRIPT_SHARDS];
    struct row *rows = mem_calloc(ROWS_MAX, sizeof *rows);
    uint32_t count = rows_of(st, rows);
    for (uint32_t n = 1u + script_next(w) % DAMAGE_MAX; count > 0 && n > 0; n--)
        damage_one(w, st, rows, count);
    for (uint32_t i = 0; i < count; i++) {
        buf_deinit(&rows[i].key);
        buf_deinit(&rows[i].value);
    }
    mem_free(rows);
    w->damaged = true;
}

static void check_state(const uint8_t *data, size_t size)
{
    struct script *w = mem_calloc(1, sizeof *w);
    script_init(w, data, size);
    for (uint32_t ops = script_next(w) % 32u; ops > 0; ops--)
        script_op(w);
    damage(w);
    script_reopen(w);
    if (!w->refused)
        script_look(w);
    for (int ops = 0; !w->refused && w->at < w->end && ops < 50; ops++)
        script_op(w);
    if (!w->refused)
        script_repairs(w);
    if (!w->refused)
        script_collect(w);
    if (!w->refused)
        script_look(w);
    script_deinit(w);
    mem_free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned kinds = sizeof again / sizeof again[0];
    if (size == 0)
        return 0;
    if (data[0] % 2 == 0)
        check_row(data[0] / 2 % kinds, slice_of(data + 1, size - 1));
    else
        check_state(data + 1, size - 1);
    return 0;
}
