/* Checkers of a world: one tree, one state, no lost update, always a tree. */
#include <stdio.h>
#include <stdlib.h>

#include "journal/merge_int.h"
#include "tests/unit/journal/merge_world_int.h"

/* ---- P4: the tree ---- */

static void tree_file(struct world_site *s, struct oid oid, struct buf *ret)
{
    struct file_view f;
    int rc = merge_file(site_shard(s, oid), oid, &f);
    WORLD_CHECK(s->world, rc == 0);
    buf_printf(ret, " file %o %u links [%.*s] m%lld c%lld b%lld", f.perm.mode, f.names,
               (int)f.content.bytes.len, (const char *)f.content.bytes.ptr, (long long)f.mtime_ns,
               (long long)f.ctime_ns, (long long)f.btime_ns);
    WORLD_CHECK(s->world, f.version_count == 1);
}

static void tree_dir(struct world_site *s, const char *path, struct oid dir, struct buf *ret)
{
    uint32_t count;
    struct dir_view d;
    int rc = merge_dir(site_shard(s, dir), dir, &d);
    WORLD_CHECK(s->world, rc == 0 && d.alive);
    buf_printf(ret, " dir %o %u subdirs m%lld c%lld\n", d.perm.mode, d.subdirs,
               (long long)d.mtime_ns, (long long)d.ctime_ns);
    struct world_name *names = site_list(s, dir, &count);
    WORLD_CHECK(s->world, merge_dir_empty(site_shard(s, dir), dir) == (count == 0));
    for (uint32_t i = 0; i < count; i++) {
        char full[800];
        struct shown again;
        const struct shown *shown = &names[i].shown;
        (void)snprintf(full, sizeof full, "%.400s/%s", path, names[i].name);
        WORLD_CHECK(s->world, site_lookup(s, dir, names[i].name, &again));
        WORLD_CHECK(s->world, oid_equal(again.oid, shown->oid));
        buf_printf(ret, "%s", full);
        if (!oid_is_dir(shown->oid)) {
            tree_file(s, shown->oid, ret);
            buf_printf(ret, "\n");
            continue;
        }
        rc = merge_dir(site_shard(s, shown->oid), shown->oid, &d);
        WORLD_CHECK(s->world, rc == 0 && d.alive && oid_equal(d.parent, dir));
        WORLD_CHECK(s->world, slice_equal(d.name, slice_str(names[i].stored)));
        tree_dir(s, full, shown->oid, ret);
    }
    mem_free(names);
}

void site_tree(struct world_site *s, struct buf *ret)
{
    buf_clear(ret);
    tree_dir(s, "", OID_ROOT, ret);
    buf_append(ret, "", 1);
}

const char *site_names(struct world_site *s, struct oid parent, char out[1024])
{
    struct buf b = {.ptr = NULL};
    uint32_t count;
    struct world_name *names = site_list(s, parent, &count);
    for (uint32_t i = 0; i < count; i++) {
        char name[256];
        struct file_view f;
        (void)snprintf(name, sizeof name, "%s", names[i].name);
        char *mark = strstr(name, ".conflict-");
        if (mark != NULL) { /* .conflict-A-01234567 */
            mark[12] = '#';
            memmove(mark + 13, mark + 20, strlen(mark + 20) + 1);
        }
        buf_printf(&b, "%s%s", i > 0 ? " " : "", name);
        if (oid_is_dir(names[i].shown.oid)) {
            buf_printf(&b, "/");
            continue;
        }
        int rc = merge_file(site_shard(s, names[i].shown.oid), names[i].shown.oid, &f);
        WORLD_CHECK(s->world, rc == 0);
        buf_printf(&b, "=%.*s", (int)f.content.bytes.len, (const char *)f.content.bytes.ptr);
    }
    mem_free(names);
    buf_append(&b, "", 1);
    ASSERT(b.len <= 1024);
    memcpy(out, b.ptr, b.len);
    buf_deinit(&b);
    return out;
}

/* ---- P4: the state behind it ---- */

/* The value without what is a site's own: versions of derived messages, queue marks, clocks. */
static bool normalise(struct slice key, struct slice value, struct op_arena *a, struct buf *out)
{
    struct oid oid = {.b = {0}};
    buf_clear(out);
    if (key.len >= 17)
        memcpy(oid.b, key.ptr + 1, sizeof oid.b);
    if (strchr("rkjzqhn", key.ptr[0]) != NULL)
        return false;
    if (key.ptr[0] == KEY_FILE) {
        struct file_rec f = {.oid = oid};
        ASSERT(file_decode(value, a, &f) == 0);
        f.queued = false;
        file_encode(&f, out);
    } else if (key.ptr[0] == KEY_DIR) {
        struct dir_rec d = {.oid = oid};
        ASSERT(dir_decode(value, a, &d) == 0);
        d.queued = false;
        d.pos_version = d.place_version = d.index_hlc = 0;
        dir_encode(&d, out);
    } else if (key.ptr[0] == KEY_SEEN) {
        struct dec d = dec_of(value);
        (void)dec_u64(&d); /* the clock */
        struct vv v = {.count = 0};
        for (uint64_t n = dec_varint(&d); n > 0; n--) {
            site_id_t site = dec_u32(&d);
            uint64_t seq = dec_varint(&d);
            ASSERT(vv_set(&v, site, seq) == 0);
        }
        buf_append(out, &v, sizeof v);
    } else {
        buf_append(out, value.ptr, value.len);
    }
    return true;
}

void state_dump(struct state *st, struct buf *ret)
{
    struct state_scan it;
    struct op_arena a = {.head = NULL};
    struct buf value = {.ptr = NULL};
    state_scan_begin(st, &it, slice_of(NULL, 0), slice_of(NULL, 0));
    while (state_scan_next(&it)) {
        op_arena_reset(&a);
        if (!normalise(it.key, it.value, &a, &value))
            continue;
        enc_bytes(ret, it.key);
        enc_bytes(ret, buf_slice(&value));
    }
    state_scan_end(&it);
    buf_deinit(&value);
    op_arena_deinit(&a);
}

/* Says which key differs first. */
static void explain(const struct world *w, struct slice a, struct slice b)
{
    struct dec x = dec_of(a);
    struct dec y = dec_of(b);
    while (dec_left(&x) > 0 && dec_left(&y) > 0) {
        struct slice k = dec_bytes(&x, SIZE_MAX);
        struct slice v = dec_bytes(&x, SIZE_MAX);
        struct slice l = dec_bytes(&y, SIZE_MAX);
        struct slice u = dec_bytes(&y, SIZE_MAX);
        if (slice_equal(k, l) && slice_equal(v, u))
            continue;
        (void)fprintf(stderr, "key %c and %c differ, at", k.ptr[0], l.ptr[0]);
        for (size_t i = 0; i < MAX(v.len, u.len); i++)
            if (i >= v.len || i >= u.len || v.ptr[i] != u.ptr[i])
                (void)fprintf(stderr, " %zu:%02x/%02x", i, i < v.len ? v.ptr[i] : 0,
                              i < u.len ? u.ptr[i] : 0);
        (void)fprintf(stderr, " of %zu and %zu\n", v.len, u.len);
        break;
    }
    (void)w;
}

static void check_states(struct world *w, struct world_site *a, struct world_site *b)
{
    struct buf x = {.ptr = NULL};
    struct buf y = {.ptr = NULL};
    for (unsigned k = 0; k < w->shard_count; k++) {
        buf_clear(&x);
        buf_clear(&y);
        state_dump(a->states[k], &x);
        state_dump(b->states[k], &y);
        if (!slice_equal(buf_slice(&x), buf_slice(&y)))
            explain(w, buf_slice(&x), buf_slice(&y));
        WORLD_CHECK(w, slice_equal(buf_slice(&x), buf_slice(&y)));
    }
    buf_deinit(&x);
    buf_deinit(&y);
}

/* ---- names of losers: what is remembered is what one would find now ---- */

static void losers_text(const struct derived_names *names, struct buf *ret)
{
    buf_clear(ret);
    for (uint32_t i = 0; i < names->count; i++) {
        const struct derived_name *d = &names->at[i];
        enc_bytes(ret, d->visible);
        enc_bytes(ret, d->stored);
        enc_oid(ret, d->oid);
        enc_stamp(ret, d->stamp);
        for (uint32_t k = 0; k < d->passed_count; k++)
            enc_bytes(ret, d->passed[k]);
    }
}

static void check_losers_of(struct world *w, struct merge *m, struct derived_names *at)
{
    struct buf remembered = {.ptr = NULL};
    struct buf found = {.ptr = NULL};
    work_begin(m);
    losers_text(derived_names(m, at->parent), &remembered);
    struct derived_names kept = *at;
    *at = (struct derived_names){.valid = false};
    work_begin(m);
    const struct derived_names *anew = derived_names(m, kept.parent);
    losers_text(anew, &found);
    WORLD_CHECK(w, slice_equal(buf_slice(&remembered), buf_slice(&found)));
    struct derived_names *other = &m->derived[anew - m->derived];
    op_arena_deinit(&other->arena);
    *other = (struct derived_names){.valid = false};
    *at = kept;
    buf_deinit(&remembered);
    buf_deinit(&found);
}

void site_check_losers(struct world_site *s)
{
    for (unsigned k = 0; k < s->world->shard_count; k++)
        for (uint32_t i = 0; i < DERIVED_CACHE; i++)
            if (s->shards[k]->derived[i].valid)
                check_losers_of(s->world, s->shards[k], &s->shards[k]->derived[i]);
}

/* ---- P5: no lost update, by version ---- */

struct dot_list {
    struct dot *at;
    uint32_t count, cap;
};

static int dot_order(const void *a, const void *b)
{
    const struct dot *x = a;
    const struct dot *y = b;
    return dot_cmp(*x, *y);
}

static void list_add(struct dot_list *l, struct dot d)
{
    if (l->count == l->cap) {
        l->cap = l->cap == 0 ? 64 : l->cap * 2;
        l->at = mem_realloc(l->at, l->cap * sizeof *l->at);
    }
    l->at[l->count++] = d;
}

static bool list_has(const struct dot_list *l, struct dot d)
{
    return l->count > 0 && bsearch(&d, l->at, l->count, sizeof d, dot_order) != NULL;
}

static void list_sort(struct dot_list *l)
{
    if (l->count > 0)
        qsort(l->at, l->count, sizeof *l->at, dot_order);
}

static void shown_versions(struct world_site *s, struct oid dir, struct dot_list *ret)
{
    uint32_t count;
    struct world_name *names = site_list(s, dir, &count);
    for (uint32_t i = 0; i < count; i++) {
        const struct shown *shown = &names[i].shown;
        if (oid_is_dir(shown->oid)) {
            shown_versions(s, shown->oid, ret);
            continue;
        }
        for (uint32_t t = 0; t <= shown->twin_count; t++) {
            struct oid oid = t == 0 ? shown->oid : shown->twins[t - 1];
            struct file_view f;
            int rc = merge_file(site_shard(s, oid), oid, &f);
            WORLD_CHECK(s->world, rc == 0 && f.version_count == 1);
            list_add(ret, f.version);
        }
    }
    mem_free(names);
}

static void known_versions(const struct op *op, struct dot_list *made, struct dot_list *known)
{
    for (uint32_t i = 0; i < op->effect_count; i++) {
        const struct effect *e = &op->effects[i];
        if (e->kind == EFFECT_VERSION) {
            list_add(made, op->dot);
            for (uint32_t k = 0; k < e->dot_count; k++)
                list_add(known, e->dots[k]);
        }
        for (uint32_t k = 0; k < e->seen_count; k++)
            list_add(known, e->seen[k]);
        if (e->kind == EFFECT_FORK && oid_is_none(e->to))
            list_add(known, e->loser);
    }
}

static void check_no_lost_update(struct world *w, struct world_site *s)
{
    struct dot_list made = {.at = NULL};
    struct dot_list known = {.at = NULL};
    struct dot_list shown = {.at = NULL};
    for (uint32_t i = 0; i < s->stream_count; i++)
        known_versions(&s->stream[i]->op, &made, &known);
    shown_versions(s, OID_ROOT, &shown);
    list_sort(&known);
    list_sort(&shown);
    for (uint32_t i = 0; i < made.count; i++)
        WORLD_CHECK(w, list_has(&known, made.at[i]) || list_has(&shown, made.at[i]));
    mem_free(made.at);
    mem_free(known.at);
    mem_free(shown.at);
}

/* ---- P6: always a tree ---- */

static uint32_t count_reachable(struct world_site *s, struct oid dir)
{
    uint32_t count;
    uint32_t dirs = 1;
    struct world_name *names = site_list(s, dir, &count);
    for (uint32_t i = 0; i < count; i++)
        if (oid_is_dir(names[i].shown.oid))
            dirs += count_reachable(s, names[i].shown.oid);
    mem_free(names);
    return dirs;
}

static void check_dirs(struct world *w, struct world_site *s)
{
    uint32_t alive = 1; /* the root */
    uint8_t type = KEY_DIR;
    for (unsigned k = 0; k < w->shard_count; k++) {
        struct state_scan it;
        struct op_arena a = {.head = NULL};
        state_scan_begin(s->states[k], &it, slice_of(&type, 1), slice_of(NULL, 0));
        while (state_scan_next(&it)) {
            struct dir_rec d = {.known = false};
            memcpy(d.oid.b, it.key.ptr + 1, sizeof d.oid.b);
            op_arena_reset(&a);
            WORLD_CHECK(w, dir_decode(it.value, &a, &d) == 0);
            WORLD_CHECK(w, d.has_birth || oid_is_root(d.oid));
            WORLD_CHECK(w, !d.owed);
            alive += !oid_is_root(d.oid) && dir_alive(&d);
        }
        state_scan_end(&it);
        op_arena_deinit(&a);
    }
    /* Every live directory shows once: so each is under a live one, and there is no cycle. */
    WORLD_CHECK(w, count_reachable(s, OID_ROOT) == alive);
}

static void on_violation(void *ctx, const char *what)
{
    world_fail(ctx, what, __FILE__, __LINE__);
}

void world_check(struct world *w)
{
    struct world_site *first = NULL;
    struct buf tree = {.ptr = NULL};
    struct buf other = {.ptr = NULL};
    for (unsigned i = 0; i < w->site_count; i++) {
        struct world_site *s = w->sites[i];
        if (s->lost)
            continue;
        for (unsigned k = 0; k < w->shard_count; k++) {
            int rc = merge_check(s->shards[k], on_violation, w);
            WORLD_CHECK(w, rc == 0);
        }
        site_tree(s, first == NULL ? &tree : &other);
        if (first != NULL) {
            if (!slice_equal(buf_slice(&tree), buf_slice(&other)))
                (void)fprintf(stderr, "--- %c\n%s--- %c\n%s", (char)first->id, (char *)tree.ptr,
                              (char)s->id, (char *)other.ptr);
            WORLD_CHECK(w, slice_equal(buf_slice(&tree), buf_slice(&other)));
            check_states(w, first, s);
        } else {
            first = s;
            check_dirs(w, s);
            check_no_lost_update(w, s);
        }
    }
    buf_deinit(&tree);
    buf_deinit(&other);
}
