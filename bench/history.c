#include "bench/history.h"

#include <stdio.h>
#include <string.h>

enum {
    RECENT_DIRS = 32, /* in use at a time */
    RECENT_FILES = 2000,
    DIR_WINDOW = 4096 /* operations before the directories in use shift by one */
};

struct file {
    struct oid oid;
    struct oid parent;
    uint32_t number;
    struct dot entry, version;
};

static uint64_t draw(struct history *h)
{
    h->rng ^= h->rng << 13;
    h->rng ^= h->rng >> 7;
    h->rng ^= h->rng << 17;
    return h->rng >> 8;
}

static struct op *op_new(struct history *h, uint32_t effects)
{
    if (h->count == h->cap) {
        h->cap = h->cap == 0 ? 1024 : h->cap * 2;
        h->ops = mem_realloc(h->ops, h->cap * sizeof *h->ops);
    }
    struct op *op = &h->ops[h->count++];
    h->hlc++;
    *op = (struct op){.dot = {.site = h->site, .seq = ++h->seq},
                      .stamp = {.hlc = h->hlc, .site = h->site},
                      .time_ns = (int64_t)h->hlc,
                      .effects = op_alloc(&h->arena, effects * sizeof(struct effect)),
                      .effect_count = effects};
    h->effects += effects;
    return op;
}

static struct slice name_of(struct op_arena *a, const char *prefix, uint32_t number)
{
    char text[64];
    int len = snprintf(text, sizeof text, "%s-%08u.dat", prefix, number);
    return op_dup(a, slice_of(text, (size_t)len));
}

static struct slice perm_of(struct history *h, uint16_t mode)
{
    struct perm p = {.uid = 1000, .gid = 1000, .mode = mode};
    struct buf b = {.ptr = NULL};
    perm_encode(&p, &b);
    struct slice s = op_dup(&h->arena, buf_slice(&b));
    buf_deinit(&b);
    return s;
}

static void set_perm(struct history *h, struct effect *e, struct oid oid)
{
    *e = (struct effect){.kind = EFFECT_SET, .oid = oid};
    e->set = (struct reg){.key = slice_str("p"), .present = true};
    e->set.value = perm_of(h, (uint16_t)(0600 + draw(h) % 64));
}

static void version(struct history *h, struct effect *e, const struct op *op, struct file *f)
{
    struct dot *base = op_alloc(&h->arena, sizeof *base);
    *base = f->version;
    *e = (struct effect){.kind = EFFECT_VERSION, .oid = f->oid, .mtime_ns = op->time_ns};
    e->dots = base;
    e->dot_count = dot_is_none(*base) ? 0 : 1;
    e->content = (struct content){
        .kind = CONTENT_MANIFEST, .size = draw(h) % (1 << 30), .block_bytes = 1 << 20};
    memcpy(e->content.root, &h->rng, sizeof h->rng);
    f->version = op->dot;
}

static void make_dir(struct history *h, struct oid parent)
{
    struct op *op = op_new(h, 2);
    struct birth b = {.parent = parent, .mode = 0755};
    static const uint8_t key[32] = {1};
    b.name = name_of(&h->kept, "dir", (uint32_t)h->seq);
    b.oid = birth_oid(&b, key, 1);
    op->effects[0] = (struct effect){.kind = EFFECT_BIRTH, .oid = b.oid, .birth = b};
    set_perm(h, &op->effects[1], b.oid);
    h->births[h->dir_count] = b;
    h->dirs[h->dir_count++] = b.oid;
}

static struct oid some_dir(struct history *h)
{
    uint64_t r = draw(h);
    if (h->uniform || h->dir_count < RECENT_DIRS || r % 10 == 0)
        return h->dirs[(r >> 8) % h->dir_count];
    return h->dirs[(h->seq / DIR_WINDOW + (r >> 8) % RECENT_DIRS) % h->dir_count];
}

static struct file *some_file(struct history *h)
{
    uint64_t r = draw(h);
    if (h->uniform || h->file_count < RECENT_FILES || r % 10 == 0)
        return &h->files[(r >> 8) % h->file_count];
    return &h->files[h->file_count - 1 - (r >> 8) % RECENT_FILES];
}

static void make_file(struct history *h)
{
    struct op *op = op_new(h, 3);
    if (h->file_count == h->file_cap) {
        h->file_cap = h->file_cap == 0 ? 1024 : h->file_cap * 2;
        h->files = mem_realloc(h->files, h->file_cap * sizeof *h->files);
    }
    struct file *f = &h->files[h->file_count++];
    *f = (struct file){.oid = oid_file(0, OID_FILE, h->site, h->seq), .parent = some_dir(h)};
    f->number = (uint32_t)h->seq;
    f->entry = op->dot;
    version(h, &op->effects[0], op, f);
    set_perm(h, &op->effects[1], f->oid);
    op->effects[2] = (struct effect){.kind = EFFECT_ENTER, .oid = f->oid, .parent = f->parent};
    op->effects[2].name = name_of(&h->arena, "file", f->number);
}

static void leave(struct history *h, struct effect *e, const struct file *f, bool final)
{
    struct dot *dots = op_alloc(&h->arena, 2 * sizeof *dots);
    dots[0] = f->entry;
    dots[1] = f->version;
    *e = (struct effect){.kind = EFFECT_LEAVE, .oid = f->oid, .parent = f->parent};
    e->name = name_of(&h->arena, "file", f->number);
    e->dots = dots;
    e->dot_count = 1;
    e->seen = dots + 1;
    e->seen_count = final ? 1 : 0;
}

void history_step(struct history *h)
{
    uint64_t r = draw(h) % 100;
    if (h->file_count < 100 || r < 45) {
        make_file(h);
        return;
    }
    struct file *f = some_file(h);
    if (r < 70) {
        struct op *op = op_new(h, 1);
        version(h, &op->effects[0], op, f);
    } else if (r < 75) {
        set_perm(h, &op_new(h, 1)->effects[0], f->oid);
    } else if (r < 85) {
        struct op *op = op_new(h, 2);
        leave(h, &op->effects[0], f, false);
        f->parent = some_dir(h);
        f->number = (uint32_t)h->seq;
        f->entry = op->dot;
        op->effects[1] = (struct effect){.kind = EFFECT_ENTER, .oid = f->oid, .parent = f->parent};
        op->effects[1].name = name_of(&h->arena, "file", f->number);
    } else {
        leave(h, &op_new(h, 1)->effects[0], f, true);
        *f = h->files[--h->file_count];
    }
}

void history_make_dirs(struct history *h)
{
    make_dir(h, OID_ROOT);
    while (h->dir_count < HISTORY_DIRS)
        make_dir(h, h->dir_count < 30 ? OID_ROOT : some_dir(h));
}

/* Births of a directory's chain, by walking what was generated. */
static uint32_t lineage(const struct history *h, struct oid dir, struct birth *at)
{
    uint32_t count = 0;
    while (!oid_is_root(dir))
        for (uint32_t i = 0; i < h->dir_count; i++)
            if (oid_equal(h->dirs[i], dir)) {
                at[count++] = h->births[i];
                dir = h->births[i].parent;
                break;
            }
    return count;
}

void history_move(struct history *h)
{
    struct op *op = op_new(h, 1);
    struct birth births[64];
    struct oid dir = some_dir(h);
    struct oid to = some_dir(h);
    if (oid_equal(dir, to))
        to = OID_ROOT;
    uint32_t count = lineage(h, dir, births);
    count += lineage(h, to, births + count);
    struct birth *kept = op_alloc(&h->arena, count * sizeof *kept);
    memcpy(kept, births, count * sizeof *kept);
    op->effects[0] = (struct effect){.kind = EFFECT_MOVE, .oid = dir, .parent = to};
    op->effects[0].name = name_of(&h->arena, "moved", (uint32_t)h->seq);
    op->effects[0].lineage = kept;
    op->effects[0].lineage_count = count;
}

void history_init(struct history *h, site_id_t site, uint64_t hlc)
{
    *h = (struct history){.site = site, .hlc = hlc, .rng = site * 88172645463325252u};
}

void history_deinit(struct history *h)
{
    mem_free(h->ops);
    mem_free(h->files);
    op_arena_deinit(&h->arena);
    op_arena_deinit(&h->kept);
}

void history_forget(struct history *h)
{
    op_arena_deinit(&h->arena);
    h->count = 0;
    h->effects = 0;
}

void history_steps(struct history *h, uint32_t count)
{
    history_forget(h);
    while (h->count < count)
        history_step(h);
}

void history_fork(const struct history *h, site_id_t site, struct history *ret)
{
    history_init(ret, site, h->hlc);
    ret->dir_count = h->dir_count;
    memcpy(ret->dirs, h->dirs, sizeof ret->dirs);
    memcpy(ret->births, h->births, sizeof ret->births);
    ret->file_count = ret->file_cap = h->file_count;
    if (h->file_count > 0)
        ret->files = mem_dup(h->files, h->file_count * sizeof *h->files);
}
