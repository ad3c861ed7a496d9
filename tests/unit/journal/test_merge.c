/* The engine's calls one by one: what is refused, attributes, names of losers, the conflict log,
 * causal stability, failures of the state. Rules and convergence have tests of their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/assert.h"
#include "base/codec.h"
#include "journal/merge_int.h"

/* ---- one shard, driven by hand ---- */

struct shard {
    struct state *state;
    struct merge *merge;
    unsigned id, count;
    uint64_t seq[8]; /* by site */
    uint64_t hlc;
    struct op_builder b;
    uint32_t names_changed, objects_changed, sent, conflicts;
    struct buf last_sent;
    shard_id_t last_to;
};

static void letter(void *ctx, site_id_t site, char out[33])
{
    (void)ctx;
    out[0] = (char)('A' + site - 1);
    out[1] = '\0';
}

static void on_name(void *ctx, struct oid parent, struct slice name)
{
    struct shard *s = ctx;
    (void)parent;
    (void)name;
    s->names_changed++;
}

static void on_object(void *ctx, struct oid oid, bool content_changed)
{
    struct shard *s = ctx;
    (void)oid;
    (void)content_changed;
    s->objects_changed++;
}

static void on_send(void *ctx, shard_id_t to, struct slice derived)
{
    struct shard *s = ctx;
    s->sent++;
    s->last_to = to;
    buf_clear(&s->last_sent);
    buf_append(&s->last_sent, derived.ptr, derived.len);
}

static void on_conflict(void *ctx, const struct conflict *c)
{
    struct shard *s = ctx;
    (void)c;
    s->conflicts++;
}

static void shard_attach(struct shard *s)
{
    struct merge_config c = {.shard = (shard_id_t)s->id,
                             .shard_count = s->count,
                             .site = 1,
                             .state = s->state,
                             .site_name = letter,
                             .events = {.name_changed = on_name,
                                        .object_changed = on_object,
                                        .send = on_send,
                                        .conflict = on_conflict,
                                        .ctx = s}};
    assert_int_equal(merge_open(&s->merge, &c), 0);
}

static struct shard *shard_new(unsigned id, unsigned count, struct state_store *store)
{
    struct shard *s = mem_calloc(1, sizeof *s);
    s->id = id;
    s->count = count;
    s->hlc = 100;
    assert_int_equal(state_open(&s->state, store), 0);
    shard_attach(s);
    return s;
}

static void shard_free(struct shard *s)
{
    merge_free(s->merge);
    state_free(s->state);
    op_builder_deinit(&s->b);
    buf_deinit(&s->last_sent);
    mem_free(s);
}

static void shard_reopen(struct shard *s)
{
    merge_free(s->merge);
    shard_attach(s);
}

/* The operation of what was built, by a site, from a home shard. */
static struct op make(struct shard *s, unsigned home, site_id_t site)
{
    s->hlc++;
    return (struct op){.dot = {.shard = (shard_id_t)home, .site = site, .seq = ++s->seq[site]},
                       .stamp = {.hlc = s->hlc, .site = site},
                       .time_ns = (int64_t)s->hlc * 10,
                       .effects = s->b.effects,
                       .effect_count = s->b.count};
}

static struct dot issue(struct shard *s, site_id_t site)
{
    struct op op = make(s, s->id, site);
    assert_int_equal(merge_apply(s->merge, &op), 0);
    op_builder_deinit(&s->b);
    return op.dot;
}

static struct effect *add(struct shard *s, enum effect_kind kind, struct oid oid)
{
    return op_builder_add(&s->b, kind, oid);
}

static void add_enter(struct shard *s, struct oid oid, struct oid parent, const char *name)
{
    struct effect *e = add(s, EFFECT_ENTER, oid);
    e->parent = parent;
    e->name = slice_str(name);
}

static const struct dot *dup_dot(struct shard *s, struct dot d)
{
    struct dot *copy = op_alloc(&s->b.arena, sizeof *copy);
    *copy = d;
    return copy;
}

static void add_version(struct shard *s, struct oid oid, struct dot base, const char *data)
{
    struct effect *e = add(s, EFFECT_VERSION, oid);
    e->content = (struct content){.kind = CONTENT_INLINE, .bytes = slice_str(data)};
    e->content.size = e->content.bytes.len;
    e->mtime_ns = 5;
    e->dots = dup_dot(s, base);
    e->dot_count = dot_is_none(base) ? 0 : 1;
}

static void add_leave(struct shard *s, struct oid oid, const char *name, struct dot entry)
{
    struct effect *e = add(s, EFFECT_LEAVE, oid);
    e->parent = OID_ROOT;
    e->name = slice_str(name);
    e->dots = dup_dot(s, entry);
    e->dot_count = 1;
}

static void add_reg(struct shard *s, struct oid oid, const char *key, struct slice value)
{
    struct effect *e = add(s, EFFECT_SET, oid);
    e->set = (struct reg){.key = slice_str(key), .present = value.ptr != NULL, .value = value};
}

static void add_time(struct shard *s, struct oid oid, const char *key, uint64_t ns)
{
    struct buf b = {.ptr = NULL};
    enc_u64(&b, ns);
    add_reg(s, oid, key, op_dup(&s->b.arena, buf_slice(&b)));
    buf_deinit(&b);
}

static void add_perm(struct shard *s, struct oid oid, const struct perm *p)
{
    struct buf b = {.ptr = NULL};
    perm_encode(p, &b);
    add_reg(s, oid, "p", op_dup(&s->b.arena, buf_slice(&b)));
    buf_deinit(&b);
}

static struct oid file(unsigned shard, uint64_t n)
{
    return oid_file((shard_id_t)shard, OID_FILE, 1, n);
}

/* A file by site 1 in the root, in shard 0. */
static struct dot create(struct shard *s, struct oid oid, const char *name, const char *data)
{
    add_version(s, oid, (struct dot){.seq = 0}, data);
    add_enter(s, oid, OID_ROOT, name);
    return issue(s, 1);
}

static const struct dot NO_DOT = {.seq = 0};

/* ---- what is refused ---- */

static void test_apply_checks_the_sequence(void **state)
{
    (void)state;
    struct shard *s = shard_new(0, 2, NULL);
    add_version(s, file(0, 1), NO_DOT, "a");
    struct op op = make(s, 0, 1);
    assert_int_equal(merge_apply(s->merge, &op), 0);
    assert_int_equal(merge_apply(s->merge, &op), 0); /* again: skipped */
    assert_int_equal(merge_seen(s->merge, 0, 1), 1);
    op.dot.seq = 3;
    assert_int_equal(merge_apply(s->merge, &op), ERR_MALFORMED); /* a gap */
    op.dot = (struct dot){.shard = 1, .site = 1, .seq = 7};
    assert_int_equal(merge_apply(s->merge, &op), 0); /* another home: only what concerns us */
    assert_int_equal(merge_seen(s->merge, 1, 1), 7);
    op.dot = (struct dot){.shard = 2, .site = 1, .seq = 1};
    assert_int_equal(merge_apply(s->merge, &op), ERR_MALFORMED); /* no such shard */
    op.dot = (struct dot){.shard = 0, .site = 1, .seq = 2};
    op.effects[0].oid = file(5, 1);
    assert_int_equal(merge_apply(s->merge, &op), ERR_MALFORMED);
    struct vv vv;
    merge_vv(s->merge, &vv);
    assert_int_equal(vv_get(&vv, 1), 1);
    assert_int_equal(merge_hlc_max(s->merge), s->hlc);
    shard_reopen(s);
    assert_int_equal(merge_seen(s->merge, 1, 1), 7);
    assert_int_equal(merge_hlc_max(s->merge), s->hlc);
    shard_free(s);
}

static void test_ready_names_what_is_missing(void **state)
{
    (void)state;
    struct shard *s = shard_new(0, 2, NULL);
    struct dot v = {.shard = 1, .site = 2, .seq = 4};
    struct dot missing = NO_DOT;
    add_version(s, file(0, 1), v, "b");
    struct op op = make(s, 0, 1);
    assert_false(merge_ready(s->merge, &op, &missing));
    assert_true(dot_equal(missing, v));
    op.effects[0].oid = file(1, 1); /* a part of the other shard: not for us to wait */
    assert_true(merge_ready(s->merge, &op, NULL));
    shard_free(s);
}

/* `ln a b; rm a` must not read as the removal of the last name when the link comes later. */
static void test_ready_leave_waits_for_the_name_that_stays(void **state)
{
    (void)state;
    struct shard *s = shard_new(0, 2, NULL);
    struct dot a = create(s, file(0, 1), "a", "x");
    struct dot link = {.shard = 1, .site = 2, .seq = 1};
    add_leave(s, file(0, 1), "a", a);
    s->b.effects[0].stays = link;
    struct op op = make(s, 0, 2);
    assert_false(merge_ready(s->merge, &op, NULL));
    struct op_builder b = {.effects = NULL};
    struct effect *e = op_builder_add(&b, EFFECT_ENTER, file(0, 1));
    uint8_t hash[12] = {1};
    e->parent = oid_dir(1, hash);
    e->name = slice_str("b");
    struct op enter = {.dot = link, .stamp = {.hlc = 1, .site = 2}, .effects = b.effects};
    enter.effect_count = 1;
    assert_int_equal(merge_apply(s->merge, &enter), 0);
    assert_true(merge_ready(s->merge, &op, NULL));
    assert_int_equal(merge_apply(s->merge, &op), 0);
    struct repair_due due = {.due_before_hlc = UINT64_MAX};
    op_builder_deinit(&b);
    assert_false(merge_repair(s->merge, &due, &b, NULL));
    shard_free(s);
}

static void test_derived_malformed_is_refused(void **state)
{
    (void)state;
    struct shard *s = shard_new(0, 2, NULL);
    uint8_t bytes[64] = {9};
    for (size_t len = 0; len < sizeof bytes; len++)
        assert_int_not_equal(merge_apply_derived(s->merge, slice_of(bytes, len)), 0);
    shard_free(s);
}

/* ---- across shards ---- */

static void test_birth_then_move_sends_place_and_unplace(void **state)
{
    (void)state;
    struct shard *own = shard_new(1, 3, NULL);
    uint8_t hash[12] = {7};
    struct oid dir = oid_dir(1, hash);
    struct effect *e = add(own, EFFECT_BIRTH, dir);
    e->birth = (struct birth){.oid = dir, .parent = OID_ROOT, .name = slice_str("d")};
    struct op birth = make(own, 0, 1);
    assert_int_equal(merge_apply(own->merge, &birth), 0);
    assert_int_equal(own->sent, 0); /* the parent's shard has placed it by itself */
    /* Shard 0 says it moved below a directory of shard 2. */
    hash[0] = 8;
    struct derived pos = {.kind = DERIVED_POS, .oid = dir, .version = 5};
    pos.pos = (struct position){.parent = oid_dir(2, hash), .name = slice_str("e")};
    pos.pos.stamp = (struct stamp){.hlc = 900, .site = 1};
    struct buf b = {.ptr = NULL};
    derived_encode(&pos, &b);
    assert_int_equal(merge_apply_derived(own->merge, buf_slice(&b)), 0);
    assert_int_equal(own->sent, 1);
    assert_int_equal(own->last_to, 2);
    assert_int_equal(merge_apply_derived(own->merge, buf_slice(&b)), 0);
    assert_int_equal(own->sent, 1); /* it came twice */
    /* The new parent's shard shows it, then has the old one forget it. */
    struct shard *parent = shard_new(2, 3, NULL);
    struct shown shown;
    assert_int_equal(merge_apply_derived(parent->merge, buf_slice(&own->last_sent)), 0);
    assert_int_equal(merge_lookup(parent->merge, pos.pos.parent, slice_str("e"), &shown), 0);
    assert_true(oid_equal(shown.oid, dir));
    assert_int_equal(parent->last_to, 0);
    struct shard *old = shard_new(0, 3, NULL);
    assert_int_equal(merge_apply(old->merge, &birth), 0);
    assert_int_equal(merge_lookup(old->merge, OID_ROOT, slice_str("d"), &shown), 0);
    assert_int_equal(merge_apply_derived(old->merge, buf_slice(&parent->last_sent)), 0);
    assert_int_equal(merge_lookup(old->merge, OID_ROOT, slice_str("d"), &shown), ERR_NOT_FOUND);
    buf_deinit(&b);
    shard_free(own);
    shard_free(parent);
    shard_free(old);
}

/* The unplace may overtake the birth. */
static void test_birth_after_unplace_does_not_place(void **state)
{
    (void)state;
    struct shard *s = shard_new(0, 2, NULL);
    uint8_t hash[12] = {7};
    struct oid dir = oid_dir(1, hash);
    struct derived msg = {.kind = DERIVED_UNPLACE, .oid = dir, .version = 2};
    msg.pos = (struct position){.parent = OID_ROOT, .name = slice_str("d")};
    struct buf b = {.ptr = NULL};
    struct shown shown;
    derived_encode(&msg, &b);
    assert_int_equal(merge_apply_derived(s->merge, buf_slice(&b)), 0);
    struct effect *e = add(s, EFFECT_BIRTH, dir);
    e->birth = (struct birth){.oid = dir, .parent = OID_ROOT, .name = slice_str("d")};
    (void)issue(s, 1);
    assert_int_equal(merge_lookup(s->merge, OID_ROOT, slice_str("d"), &shown), ERR_NOT_FOUND);
    assert_int_equal(build_next_gen(s->merge, OID_ROOT, slice_str("d")), 1);
    buf_deinit(&b);
    shard_free(s);
}

/* A write to a fork's file, journaled elsewhere, gets here before the fork. */
static void test_fork_after_a_write_to_its_file_keeps_only_the_write(void **state)
{
    (void)state;
    struct shard *s = shard_new(0, 2, NULL);
    struct oid oid = file(0, 1);
    struct dot first = create(s, oid, "a", "0");
    add_version(s, oid, first, "1");
    struct dot loser = issue(s, 1);
    add_version(s, oid, first, "2");
    (void)issue(s, 2);
    struct oid to = fork_oid(oid, loser);
    add_version(s, to, loser, "edited");
    struct op write = make(s, 1, 3);
    assert_true(merge_ready(s->merge, &write, NULL));
    assert_int_equal(merge_apply(s->merge, &write), 0);
    op_builder_deinit(&s->b);
    struct repair_due due = {.due_before_hlc = 0};
    assert_true(merge_repair(s->merge, &due, &s->b, NULL));
    assert_true(oid_equal(s->b.effects[0].to, to));
    (void)issue(s, 1);
    struct file_view v;
    assert_int_equal(merge_file(s->merge, to, &v), 0);
    assert_int_equal(v.version_count, 1);
    assert_true(slice_equal(v.content.bytes, slice_str("edited")));
    shard_free(s);
}

/* ---- attributes ---- */

static void test_file_times_follow_the_highest_stamp(void **state)
{
    (void)state;
    struct shard *s = shard_new(0, 1, NULL);
    struct oid oid = file(0, 1);
    struct file_view v;
    struct dir_view root;
    assert_int_equal(merge_file(s->merge, oid, &v), ERR_NOT_FOUND);
    struct dot version = create(s, oid, "a", "x");
    int64_t made_ns = (int64_t)s->hlc * 10;
    assert_int_equal(merge_file(s->merge, oid, &v), 0);
    assert_int_equal(v.mtime_ns, 5);
    assert_int_equal(v.btime_ns, made_ns);
    assert_int_equal(v.ctime_ns, made_ns);
    assert_int_equal(v.names, 1);
    assert_int_equal(merge_dir(s->merge, OID_ROOT, &root), 0);
    assert_int_equal(root.mtime_ns, made_ns);
    assert_int_equal(root.entries, 1);
    add_time(s, oid, "m", 77);
    add_time(s, oid, "a", 78);
    (void)issue(s, 1);
    assert_int_equal(merge_file(s->merge, oid, &v), 0);
    assert_int_equal(v.mtime_ns, 77); /* set after the version */
    assert_int_equal(v.atime_ns, 78);
    add_version(s, oid, version, "y");
    (void)issue(s, 1);
    assert_int_equal(merge_file(s->merge, oid, &v), 0);
    assert_int_equal(v.mtime_ns, 5); /* written after it was set */
    assert_int_equal(v.btime_ns, made_ns);
    add_enter(s, oid, OID_ROOT, "b");
    (void)issue(s, 1);
    assert_int_equal(merge_file(s->merge, oid, &v), 0);
    assert_int_equal(v.names, 2);
    assert_int_equal(v.ctime_ns, (int64_t)s->hlc * 10); /* the link count changed */
    shard_free(s);
}

static void test_file_set_id_bits_hold_for_the_version_seen(void **state)
{
    (void)state;
    struct shard *s = shard_new(0, 1, NULL);
    struct oid oid = file(0, 1);
    struct file_view v;
    struct perm p = {.mode = 06755, .caps = slice_str("caps")};
    struct dot version = create(s, oid, "a", "x");
    p.setid_seen = version;
    add_perm(s, oid, &p);
    (void)issue(s, 1);
    assert_int_equal(merge_file(s->merge, oid, &v), 0);
    assert_int_equal(v.perm.mode, 06755);
    assert_int_equal(v.perm.caps.len, 4);
    add_version(s, oid, version, "evil");
    (void)issue(s, 2);
    assert_int_equal(merge_file(s->merge, oid, &v), 0);
    assert_int_equal(v.perm.mode, 0755);
    assert_int_equal(v.perm.caps.len, 0);
    p = (struct perm){.mode = 02644}; /* mandatory locking, not set-group-id */
    p.setid_seen = version;
    add_perm(s, oid, &p);
    (void)issue(s, 1);
    assert_int_equal(merge_file(s->merge, oid, &v), 0);
    assert_int_equal(v.perm.mode, 02644);
    shard_free(s);
}

struct regs_seen {
    char keys[256];
};

static bool see_reg(void *ctx, const struct reg *r)
{
    struct regs_seen *seen = ctx;
    strncat(seen->keys, (const char *)r->key.ptr, r->key.len);
    strncat(seen->keys, " ", 2);
    return true;
}

static void test_regs_by_class(void **state)
{
    (void)state;
    struct shard *s = shard_new(0, 1, NULL);
    struct oid oid = file(0, 1);
    struct reg r;
    struct regs_seen seen = {.keys = ""};
    (void)create(s, oid, "a", "x");
    add_reg(s, oid, "xuser.b", slice_str("2"));
    add_reg(s, oid, "xuser.a", slice_str("1"));
    add_reg(s, oid, "Mine", slice_str("3"));
    (void)issue(s, 1);
    assert_int_equal(merge_regs(s->merge, oid, REG_XATTR, see_reg, &seen), 0);
    assert_string_equal(seen.keys, "xuser.a xuser.b ");
    assert_int_equal(merge_reg(s->merge, oid, slice_str("xuser.b"), &r), 0);
    assert_true(slice_equal(r.value, slice_str("2")));
    add_reg(s, oid, "xuser.b", slice_of(NULL, 0));
    (void)issue(s, 1);
    assert_int_equal(merge_reg(s->merge, oid, slice_str("xuser.b"), &r), ERR_NO_DATA);
    seen.keys[0] = '\0';
    assert_int_equal(merge_regs(s->merge, oid, REG_XATTR, see_reg, &seen), 0);
    assert_string_equal(seen.keys, "xuser.a ");
    seen.keys[0] = '\0';
    assert_int_equal(merge_regs(s->merge, oid, 'M', see_reg, &seen), 0);
    assert_string_equal(seen.keys, "Mine ");
    assert_int_equal(merge_reg(s->merge, oid, slice_str("p"), &r), ERR_NO_DATA);
    shard_free(s);
}

/* ---- names ---- */

struct listed {
    char names[512];
    uint32_t stop_after;
};

static bool list_name(void *ctx, struct slice visible, const struct shown *s)
{
    struct listed *l = ctx;
    (void)s;
    strncat(l->names, (const char *)visible.ptr, visible.len);
    strncat(l->names, " ", 2);
    return l->stop_after == 0 || --l->stop_after > 0;
}

static void test_list_resumes_after_any_name(void **state)
{
    (void)state;
    struct shard *s = shard_new(0, 1, NULL);
    for (uint64_t i = 0; i < 4; i++) {
        char name[2] = {(char)('d' - i), '\0'};
        add_version(s, file(0, i + 1), NO_DOT, name);
        add_enter(s, file(0, i + 1), OID_ROOT, name);
        (void)issue(s, 1);
    }
    struct listed l = {.stop_after = 2};
    assert_int_equal(merge_list(s->merge, OID_ROOT, slice_of(NULL, 0), list_name, &l), 0);
    assert_string_equal(l.names, "a b ");
    l = (struct listed){.stop_after = 0};
    assert_int_equal(merge_list(s->merge, OID_ROOT, slice_str("b"), list_name, &l), 0);
    assert_string_equal(l.names, "c d ");
    l = (struct listed){.stop_after = 0};
    assert_int_equal(merge_list(s->merge, OID_ROOT, slice_str("bb"), list_name, &l), 0);
    assert_string_equal(l.names, "c d ");
    /* With names of losers in between. */
    add_version(s, file(0, 9), NO_DOT, "other");
    add_enter(s, file(0, 9), OID_ROOT, "b");
    (void)issue(s, 2);
    l = (struct listed){.stop_after = 0};
    assert_int_equal(merge_list(s->merge, OID_ROOT, slice_str("a"), list_name, &l), 0);
    assert_string_equal(l.names, "b b.conflict-A-00000003 c d ");
    l = (struct listed){.stop_after = 0};
    assert_int_equal(
        merge_list(s->merge, OID_ROOT, slice_str("b.conflict-A-00000003"), list_name, &l), 0);
    assert_string_equal(l.names, "c d ");
    shard_free(s);
}

static void test_events_tell_what_may_show_differently(void **state)
{
    (void)state;
    struct shard *s = shard_new(0, 1, NULL);
    struct dot a = create(s, file(0, 1), "a", "x");
    assert_int_equal(s->names_changed, 1);
    assert_int_equal(s->objects_changed, 2); /* the file and the root */
    add_version(s, file(0, 1), a, "y");
    (void)issue(s, 1);
    assert_int_equal(s->names_changed, 1);
    assert_int_equal(s->objects_changed, 3);
    add_version(s, file(0, 2), NO_DOT, "y"); /* a twin */
    add_enter(s, file(0, 2), OID_ROOT, "a");
    (void)issue(s, 2);
    assert_true(s->names_changed > 1);
    uint32_t before = s->names_changed;
    add_version(s, file(0, 2), NO_DOT, "z"); /* no longer one: names of losers appear */
    (void)issue(s, 2);
    assert_true(s->names_changed > before);
    shard_free(s);
}

/* ---- the conflict log ---- */

struct log_seen {
    uint32_t count;
    uint64_t last_hlc;
    struct conflict last;
    uint8_t ids[8][8];
};

static bool see_conflict(void *ctx, const struct conflict *c)
{
    struct log_seen *l = ctx;
    assert_true(l->count == 0 || c->stamp.hlc <= l->last_hlc); /* the newest first */
    l->last_hlc = c->stamp.hlc;
    l->last = *c;
    memcpy(l->ids[l->count++ % 8], c->id, 8);
    return true;
}

static void test_conflicts_are_stored_once_and_resolved(void **state)
{
    (void)state;
    struct shard *s = shard_new(0, 1, NULL);
    (void)create(s, file(0, 1), "a", "1");
    add_version(s, file(0, 2), NO_DOT, "2");
    add_enter(s, file(0, 2), OID_ROOT, "a");
    (void)issue(s, 2);
    (void)create(s, file(0, 3), "b", "1");
    add_version(s, file(0, 4), NO_DOT, "2");
    add_enter(s, file(0, 4), OID_ROOT, "b");
    (void)issue(s, 2);
    add_enter(s, file(0, 4), OID_ROOT, "b"); /* once more: the same two objects */
    (void)issue(s, 3);
    assert_int_equal(s->conflicts, 2);
    shard_reopen(s);
    struct log_seen l = {.count = 0};
    assert_int_equal(merge_conflicts(s->merge, see_conflict, &l), 0);
    assert_int_equal(l.count, 2);
    assert_int_equal(l.last.rule, 6);
    assert_false(l.last.resolved);
    assert_int_equal(l.last.winner, 2);
    assert_int_equal(l.last.loser, 1);
    assert_true(oid_equal(l.last.other, file(0, 1)));
    assert_int_equal(merge_conflict_resolved(s->merge, l.ids[1], true), 0);
    l.count = 0;
    assert_int_equal(merge_conflicts(s->merge, see_conflict, &l), 0);
    assert_true(l.last.resolved);
    uint8_t none[8] = {0};
    assert_int_equal(merge_conflict_resolved(s->merge, none, true), ERR_NOT_FOUND);
    shard_free(s);
}

/* ---- repairs and stability ---- */

static void test_repair_survives_a_restart(void **state)
{
    (void)state;
    struct shard *s = shard_new(0, 1, NULL);
    struct dot first = create(s, file(0, 1), "a", "0");
    add_version(s, file(0, 1), first, "1");
    (void)issue(s, 1);
    add_version(s, file(0, 1), first, "2");
    (void)issue(s, 2);
    shard_reopen(s);
    struct repair_due due = {.due_before_hlc = 0};
    assert_true(merge_repair(s->merge, &due, &s->b, NULL));
    assert_int_equal(s->b.effects[0].kind, EFFECT_FORK);
    (void)issue(s, 1);
    assert_false(merge_repair(s->merge, &due, &s->b, NULL));
    shard_reopen(s);
    assert_false(merge_repair(s->merge, &due, &s->b, NULL));
    shard_free(s);
}

static bool pin_first(void *ctx, struct oid oid)
{
    (void)ctx;
    return oid_equal(oid, file(0, 1));
}

struct contents_seen {
    uint32_t count;
};

static bool see_content(void *ctx, struct oid oid, const struct content *c)
{
    struct contents_seen *seen = ctx;
    (void)oid;
    (void)c;
    seen->count++;
    return true;
}

static uint32_t count_contents(struct shard *s, uint32_t budget)
{
    struct buf cursor = {.ptr = NULL};
    struct contents_seen seen = {.count = 0};
    do
        assert_int_equal(merge_contents(s->merge, &cursor, budget, see_content, &seen), 0);
    while (cursor.len > 0);
    buf_deinit(&cursor);
    return seen.count;
}

static void test_collect_drops_dead_files_when_stable(void **state)
{
    (void)state;
    struct shard *s = shard_new(0, 1, NULL);
    struct file_view v;
    for (uint64_t i = 1; i <= 3; i++) {
        struct dot made = create(s, file(0, i), "a", "x");
        add_reg(s, file(0, i), "xuser.a", slice_str("1"));
        (void)issue(s, 1);
        add_leave(s, file(0, i), "a", made);
        s->b.effects[0].seen = s->b.effects[0].dots;
        s->b.effects[0].seen_count = 1;
        (void)issue(s, 1);
    }
    assert_int_equal(count_contents(s, 2), 3);
    uint64_t last = s->hlc;
    assert_int_equal(merge_collect(s->merge, last - 1, 100, pin_first, NULL), 1);
    assert_int_equal(merge_file(s->merge, file(0, 2), &v), ERR_NOT_FOUND);
    assert_int_equal(merge_file(s->merge, file(0, 3), &v), 0); /* not stable yet */
    assert_int_equal(merge_file(s->merge, file(0, 1), &v), 0); /* open */
    assert_int_equal(merge_collect(s->merge, last + 1, 100, NULL, NULL), 2);
    assert_int_equal(merge_file(s->merge, file(0, 1), &v), ERR_NOT_FOUND);
    assert_int_equal(count_contents(s, 100), 0);
    struct state_scan it; /* nothing of them is left */
    state_scan_begin(s->state, &it, slice_str("x"), slice_of(NULL, 0));
    assert_false(state_scan_next(&it));
    state_scan_end(&it);
    shard_free(s);
}

/* ---- a state that cannot be read ---- */

struct broken {
    uint32_t gets, fail_at;
};

static int broken_get(void *ctx, struct slice key, struct buf *ret_value, bool *ret_found)
{
    struct broken *b = ctx;
    (void)key;
    (void)ret_value;
    *ret_found = false;
    return ++b->gets == b->fail_at ? ERR_IO : 0;
}

static void *broken_iter_new(void *ctx, struct slice seek, struct slice end)
{
    (void)seek;
    (void)end;
    return ctx;
}

static bool broken_iter_at(void *iter, struct slice *ret_key, struct slice *ret_value)
{
    (void)iter;
    (void)ret_key;
    (void)ret_value;
    return false;
}

static void broken_iter_next(void *iter)
{
    (void)iter;
}

static int broken_iter_free(void *iter)
{
    (void)iter;
    return 0;
}

static uint64_t broken_index(void *ctx)
{
    (void)ctx;
    return 0;
}

static void broken_close(void *ctx)
{
    (void)ctx;
}

/* The n-th read fails, for every n that an operation makes: nothing of it is written. */
static void test_apply_with_a_failing_read_writes_nothing(void **state)
{
    (void)state;
    static const struct state_store_ops ops = {.get = broken_get,
                                               .iter_new = broken_iter_new,
                                               .iter_at = broken_iter_at,
                                               .iter_next = broken_iter_next,
                                               .iter_free = broken_iter_free,
                                               .index = broken_index,
                                               .close = broken_close};
    uint32_t failures = 0;
    for (uint32_t n = 1;; n++) {
        struct broken b = {.fail_at = 0};
        struct state_store store = {.ops = &ops, .ctx = &b};
        struct shard *s = shard_new(0, 1, &store);
        b = (struct broken){.fail_at = n}; /* opening reads, too */
        size_t before = state_active_bytes(s->state);
        add_version(s, file(0, 1), NO_DOT, "x");
        add_enter(s, file(0, 1), OID_ROOT, "a");
        struct op op = make(s, 0, 1);
        int rc = merge_apply(s->merge, &op);
        if (rc == 0) {
            shard_free(s);
            break;
        }
        failures++;
        assert_int_equal(rc, ERR_IO);
        assert_int_equal(state_active_bytes(s->state), before);
        struct shown shown; /* and the engine stays stopped */
        assert_int_equal(merge_lookup(s->merge, OID_ROOT, slice_str("a"), &shown), ERR_IO);
        shard_free(s);
    }
    assert_true(failures >= 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_apply_checks_the_sequence),
        cmocka_unit_test(test_ready_names_what_is_missing),
        cmocka_unit_test(test_ready_leave_waits_for_the_name_that_stays),
        cmocka_unit_test(test_derived_malformed_is_refused),
        cmocka_unit_test(test_birth_then_move_sends_place_and_unplace),
        cmocka_unit_test(test_birth_after_unplace_does_not_place),
        cmocka_unit_test(test_fork_after_a_write_to_its_file_keeps_only_the_write),
        cmocka_unit_test(test_file_times_follow_the_highest_stamp),
        cmocka_unit_test(test_file_set_id_bits_hold_for_the_version_seen),
        cmocka_unit_test(test_regs_by_class),
        cmocka_unit_test(test_list_resumes_after_any_name),
        cmocka_unit_test(test_events_tell_what_may_show_differently),
        cmocka_unit_test(test_conflicts_are_stored_once_and_resolved),
        cmocka_unit_test(test_repair_survives_a_restart),
        cmocka_unit_test(test_collect_drops_dead_files_when_stable),
        cmocka_unit_test(test_apply_with_a_failing_read_writes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
