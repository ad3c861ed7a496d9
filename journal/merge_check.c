/* The engine's own invariants, checked by reading everything (fsck, tests). */
#include <stdarg.h>
#include <stdio.h>

#include "journal/merge_int.h"

struct check {
    struct merge *m;
    void (*fn)(void *ctx, const char *what);
    void *ctx;
    struct op_arena arena; /* of the record at hand */
    int rc;
};

__attribute__((format(printf, 3, 4))) static void
bad(struct check *c, struct oid oid, const char *fmt, ...)
{
    char what[160];
    char text[OID_TEXT_LEN + 1];
    char line[256];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(what, sizeof what, fmt, args); /* cut when too long: it is for people */
    va_end(args);
    oid_to_text(oid, text);
    (void)snprintf(line, sizeof line, "%s: %s", text, what);
    c->fn(c->ctx, line);
}

static struct oid key_oid_of(struct slice key)
{
    struct oid oid;
    memcpy(oid.b, key.ptr + 1, sizeof oid.b);
    return oid;
}

static void scan_type(struct check *c,
                      enum key_type type,
                      void (*each)(struct check *c, struct slice key, struct slice value))
{
    uint8_t byte = (uint8_t)type;
    struct state_scan it;
    struct buf key = {.ptr = NULL};
    struct buf value = {.ptr = NULL};
    state_scan_begin(c->m->state, &it, slice_of(&byte, 1), slice_of(NULL, 0));
    while (c->rc == 0 && state_scan_next(&it)) {
        buf_clear(&key);
        buf_clear(&value);
        buf_append(&key, it.key.ptr, it.key.len);
        buf_append(&value, it.value.ptr, it.value.len);
        op_arena_reset(&c->arena);
        work_begin(c->m);
        if (key.len < 1 + sizeof(struct oid))
            c->rc = ERR_CORRUPT;
        else
            each(c, buf_slice(&key), buf_slice(&value));
    }
    state_scan_end(&it);
    buf_deinit(&key);
    buf_deinit(&value);
}

/* M3: counters and marks are what the slots say. */
static void check_dir(struct check *c, struct slice key, struct slice value)
{
    struct merge *m = c->m;
    struct dir_rec d = {.oid = key_oid_of(key)};
    uint64_t entries = 0;
    uint64_t subdirs = 0;
    uint64_t contested = 0;
    struct state_scan it;
    c->rc = dir_decode(value, &c->arena, &d);
    if (c->rc != 0)
        return;
    state_scan_begin(m->state, &it, key_oid(m, KEY_SLOT, d.oid), slice_of(NULL, 0));
    while (c->rc == 0 && state_scan_next(&it)) {
        struct slot s = {.parent = d.oid};
        struct cand *cands;
        uint32_t dirs;
        work_begin(m);
        c->rc = slot_decode(op_dup(&m->work.arena, it.value), &m->work.arena, &s);
        uint32_t count = slot_cands(&s, &m->work.arena, &cands, &dirs);
        entries += count;
        subdirs += dirs;
        contested += count > 1;
    }
    state_scan_end(&it);
    if (entries != d.entries || subdirs != d.subdirs || contested != d.contested)
        bad(c, d.oid, "counts %u entries, %u directories, %u contested; has %u, %u, %u",
            (unsigned)d.entries, (unsigned)d.subdirs, (unsigned)d.contested, (unsigned)entries,
            (unsigned)subdirs, (unsigned)contested);
    if (d.owed != dir_owes_revive(&d) || d.owed != state_has(m, key_oid(m, KEY_REPAIR, d.oid)))
        bad(c, d.oid, "M4: the queue of repairs disagrees with the directory");
}

static bool has_ref(const struct file_rec *f, struct oid parent, struct slice name, struct dot dot)
{
    for (uint32_t i = 0; i < f->ref_count; i++)
        if (dot_equal(f->refs[i].dot, dot) && oid_equal(f->refs[i].parent, parent) &&
            slice_equal(f->refs[i].name, name))
            return true;
    return false;
}

/* M1: an entry and its reference stand for each other. M2: the index says where directories are. */
static void check_slot(struct check *c, struct slice key, struct slice value)
{
    struct merge *m = c->m;
    struct slot s = {.parent = key_oid_of(key), .name = slice_of(key.ptr + 17, key.len - 17)};
    c->rc = slot_decode(value, &c->arena, &s);
    if (c->rc != 0)
        return;
    for (uint32_t i = 0; i < s.entry_count; i++)
        if (oid_shard(s.entries[i].oid) == m->shard &&
            !has_ref(work_file(m, s.entries[i].oid), s.parent, s.name, s.entries[i].dot))
            bad(c, s.entries[i].oid, "M1: a name without a reference: %.*s", (int)s.name.len,
                (const char *)s.name.ptr);
    for (uint32_t i = 0; i < s.dir_count; i++) {
        const struct placed *p = work_placed(m, s.dirs[i].oid);
        if (!p->here || !oid_equal(p->parent, s.parent) || !slice_equal(p->name, s.name))
            bad(c, s.dirs[i].oid, "M2: the index shows a directory that is not placed here");
    }
    struct cand *cands;
    uint32_t dirs;
    uint32_t count = slot_cands(&s, &c->arena, &cands, &dirs);
    if (count == 0)
        bad(c, s.parent, "an empty slot is stored: %.*s", (int)s.name.len,
            (const char *)s.name.ptr);
    if ((count > 1) != state_has(m, key_name(m, KEY_CONTESTED, s.parent, s.name)))
        bad(c, s.parent, "M3: the mark of a contested name is wrong: %.*s", (int)s.name.len,
            (const char *)s.name.ptr);
}

static bool slot_has_entry(const struct slot *s, struct oid oid, struct dot dot)
{
    for (uint32_t i = 0; i < s->entry_count; i++)
        if (oid_equal(s->entries[i].oid, oid) && dot_equal(s->entries[i].dot, dot))
            return true;
    return false;
}

static void check_file(struct check *c, struct slice key, struct slice value)
{
    struct merge *m = c->m;
    struct file_rec f = {.oid = key_oid_of(key)};
    c->rc = file_decode(value, &c->arena, &f);
    if (c->rc != 0)
        return;
    for (uint32_t i = 0; i < f.ref_count; i++) {
        const struct ref *r = &f.refs[i];
        if (oid_shard(r->parent) == m->shard &&
            !slot_has_entry(work_slot(m, r->parent, r->name), f.oid, r->dot))
            bad(c, f.oid, "M1: a reference without a name: %.*s", (int)r->name.len,
                (const char *)r->name.ptr);
    }
    bool owes = file_owes_relink(&f) || file_owes_fork(&f);
    if (f.owed != owes || f.owed != state_has(m, key_oid(m, KEY_REPAIR, f.oid)))
        bad(c, f.oid, "M4: the queue of repairs disagrees with the file");
}

/* M10 */
static void check_usage(struct check *c)
{
    struct merge_usage u;
    if (c->rc == 0)
        c->rc = usage_count(c->m, &u);
    if (c->rc == 0 && (u.bytes != c->m->usage.bytes || u.inline_bytes != c->m->usage.inline_bytes))
        bad(c, OID_ROOT, "M10: counts %llu bytes in files, %llu inline; has %llu, %llu",
            (unsigned long long)c->m->usage.bytes, (unsigned long long)c->m->usage.inline_bytes,
            (unsigned long long)u.bytes, (unsigned long long)u.inline_bytes);
}

int merge_check(struct merge *m, void (*fn)(void *ctx, const char *what), void *ctx)
{
    struct check c = {.m = m, .fn = fn, .ctx = ctx, .rc = work_health(m)};
    scan_type(&c, KEY_DIR, check_dir);
    scan_type(&c, KEY_SLOT, check_slot);
    scan_type(&c, KEY_FILE, check_file);
    check_usage(&c);
    op_arena_deinit(&c.arena);
    fold_check(m, fn, ctx);
    return c.rc != 0 ? c.rc : work_health(m);
}
