/* Reading a vector and building the engine's operations from it. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/limits.h"
#include "tests/vectors/vector.h"

/* ---- objects ---- */

static int oid_text_cmp(const void *a, const void *b)
{
    const struct vector_oid *x = a;
    const struct vector_oid *y = b;
    return strcmp(x->text, y->text);
}

struct vector_oid *vector_find(struct vector *v, const char *text)
{
    struct vector_oid key = {.text = text};
    struct vector_oid *found = bsearch(&key, v->oids, v->oid_count, sizeof key, oid_text_cmp);
    ASSERT(found != NULL);
    return found;
}

struct vector_oid *vector_find_oid(struct vector *v, struct oid oid)
{
    for (uint32_t i = 0; i < v->oid_count; i++)
        if (oid_equal(v->oids[i].oid, oid))
            return &v->oids[i];
    return NULL;
}

static uint32_t group_of(struct vector *v, uint32_t i)
{
    while (v->oids[i].group != i)
        i = v->oids[i].group = v->oids[v->oids[i].group].group;
    return i;
}

void vector_join(struct vector *v, struct vector_oid *a, struct vector_oid *b)
{
    uint32_t x = group_of(v, (uint32_t)(a - v->oids));
    uint32_t y = group_of(v, (uint32_t)(b - v->oids));
    v->oids[x].group = y;
}

static void oids_collect(struct vector *v, const json_t *args, uint32_t *cap)
{
    static const char *const keys[] = {"oid", "parent", "to"};
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
        const char *text = json_string_value(json_object_get(args, keys[i]));
        if (text == NULL || (strcmp(keys[i], "to") == 0 && text[0] != 'f'))
            continue;
        if (v->oid_count == *cap) {
            *cap = *cap == 0 ? 256 : *cap * 2;
            v->oids = mem_realloc(v->oids, *cap * sizeof *v->oids);
        }
        v->oids[v->oid_count++] = (struct vector_oid){.text = text};
    }
}

/* Sorted, each once. */
static void oids_finish(struct vector *v)
{
    uint32_t kept = 0;
    qsort(v->oids, v->oid_count, sizeof *v->oids, oid_text_cmp);
    for (uint32_t i = 0; i < v->oid_count; i++)
        if (kept == 0 || strcmp(v->oids[kept - 1].text, v->oids[i].text) != 0)
            v->oids[kept++] = v->oids[i];
    v->oid_count = kept;
    for (uint32_t i = 0; i < kept; i++) {
        v->oids[i].rank = v->oids[i].group = i;
        v->oids[i].dir = v->oids[i].text[0] != 'f';
    }
}

/* ---- operations ---- */

static int op_cmp(const void *a, const void *b)
{
    const struct vector_op *x = a;
    const struct vector_op *y = b;
    if (x->site != y->site)
        return x->site < y->site ? -1 : 1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static struct vector_op op_key(const json_t *dot)
{
    return (struct vector_op){.site = json_string_value(json_array_get(dot, 0))[0],
                              .seq = (uint64_t)json_integer_value(json_array_get(dot, 1))};
}

static struct vector_op *op_find(struct vector *v, const json_t *dot)
{
    struct vector_op key = op_key(dot);
    struct vector_op *found = bsearch(&key, v->ops, v->op_count, sizeof key, op_cmp);
    ASSERT(found != NULL);
    return found;
}

static void ops_collect(struct vector *v)
{
    const char *name;
    json_t *journal;
    uint32_t cap = 0;
    size_t i;
    json_t *op;
    json_object_foreach (json_object_get(v->root, "sites"), name, journal) {
        json_array_foreach (journal, i, op) {
            if (v->op_count == cap) {
                cap = cap == 0 ? 256 : cap * 2;
                v->ops = mem_realloc(v->ops, cap * sizeof *v->ops);
            }
            v->ops[v->op_count] = op_key(json_object_get(op, "dot"));
            v->ops[v->op_count++].json = op;
        }
    }
    qsort(v->ops, v->op_count, sizeof *v->ops, op_cmp);
    uint32_t kept = 0;
    for (uint32_t k = 0; k < v->op_count; k++)
        if (kept == 0 || op_cmp(&v->ops[kept - 1], &v->ops[k]) != 0)
            v->ops[kept++] = v->ops[k];
    v->op_count = kept;
}

static void orders_collect(struct vector *v)
{
    const char *name;
    json_t *journal;
    size_t i;
    json_t *op;
    json_object_foreach (json_object_get(v->root, "sites"), name, journal) {
        struct vector_site *s = &v->sites[v->site_count++];
        ASSERT(v->site_count <= VECTOR_SITES_MAX);
        s->name = name[0];
        s->order = mem_calloc(json_array_size(journal) + 1, sizeof *s->order);
        json_array_foreach (journal, i, op)
            s->order[s->count++] = (uint32_t)(op_find(v, json_object_get(op, "dot")) - v->ops);
    }
}

static void objects_collect(struct vector *v)
{
    uint32_t cap = 0;
    for (uint32_t i = 0; i < v->op_count; i++) {
        size_t k;
        json_t *effect;
        json_array_foreach (json_object_get(v->ops[i].json, "effects"), k, effect)
            oids_collect(v, json_array_get(effect, 1), &cap);
    }
    oids_finish(v);
    for (uint32_t i = 0; i < v->op_count; i++) {
        size_t k;
        json_t *effect;
        struct vector_oid *moved = NULL;
        json_array_foreach (json_object_get(v->ops[i].json, "effects"), k, effect) {
            const char *kind = json_string_value(json_array_get(effect, 0));
            const json_t *args = json_array_get(effect, 1);
            struct vector_oid *o = vector_find(v, json_string_value(json_object_get(args, "oid")));
            if (strcmp(kind, "birth") == 0)
                o->birth = args;
            if (strcmp(kind, "fork") == 0 && json_is_string(json_object_get(args, "to")))
                vector_join(v, o, vector_find(v, json_string_value(json_object_get(args, "to"))));
            /* Moves of one operation are ordered by oid, which begins with the shard. */
            if (strcmp(kind, "move") == 0 && moved != NULL)
                vector_join(v, moved, o);
            if (strcmp(kind, "move") == 0)
                moved = o;
        }
    }
}

int vector_load(struct vector *v, const char *path)
{
    json_error_t error;
    *v = (struct vector){.root = json_load_file(path, 0, &error)};
    if (v->root == NULL) {
        (void)fprintf(stderr, "%s: line %d: %s\n", path, error.line, error.text);
        return 1;
    }
    v->tree = json_object_get(v->root, "tree");
    ops_collect(v);
    orders_collect(v);
    objects_collect(v);
    return 0;
}

void vector_free(struct vector *v)
{
    for (uint32_t i = 0; i < v->site_count; i++)
        mem_free(v->sites[i].order);
    mem_free(v->oids);
    mem_free(v->ops);
    op_arena_deinit(&v->arena);
    json_decref(v->root);
}

/* ---- building ---- */

/* The last four bytes are what the model prints in conflict names; the rank before them keeps the
 * order of the model's names. */
static struct oid make_oid(const struct vector_oid *o, unsigned shard)
{
    struct oid oid = {.b = {0}};
    uint8_t hash[8];
    char text[256];
    if (strcmp(o->text, "root") == 0)
        return OID_ROOT;
    (void)snprintf(text, sizeof text, "oid|%s", o->text);
    int rc =
        crypto_generichash_blake2b(hash, sizeof hash, (const uint8_t *)text, strlen(text), NULL, 0);
    ASSERT(rc == 0);
    oid.b[0] = (uint8_t)(shard >> 8);
    oid.b[1] = (uint8_t)shard;
    oid.b[2] = o->dir ? OID_DIR : OID_FILE;
    oid.b[4] = (uint8_t)(o->rank >> 24);
    oid.b[5] = (uint8_t)(o->rank >> 16);
    oid.b[6] = (uint8_t)(o->rank >> 8);
    oid.b[7] = (uint8_t)o->rank;
    memcpy(oid.b + 12, hash, 4);
    return oid;
}

static void oids_build(struct vector *v, unsigned shard_count)
{
    uint32_t root = group_of(v, (uint32_t)(vector_find(v, "root") - v->oids));
    for (uint32_t i = 0; i < v->oid_count; i++) {
        uint32_t group = group_of(v, i);
        unsigned shard = group == root ? 0 : (group * 2654435761u >> 16) % shard_count;
        v->oids[i].oid = make_oid(&v->oids[i], shard);
    }
}

static const char *arg_text(const json_t *args, const char *key)
{
    return json_string_value(json_object_get(args, key));
}

static struct oid arg_oid(struct vector *v, const json_t *args, const char *key)
{
    const char *text = arg_text(args, key);
    return text == NULL ? (struct oid){.b = {0}} : vector_find(v, text)->oid;
}

static struct dot *arg_dots(struct vector *v, const json_t *args, const char *key, uint32_t *count)
{
    const json_t *list = json_object_get(args, key);
    size_t i;
    json_t *dot;
    struct dot *dots = op_alloc(&v->arena, json_array_size(list) * sizeof *dots);
    json_array_foreach (list, i, dot)
        dots[i] = op_find(v, dot)->dot;
    *count = (uint32_t)json_array_size(list);
    return dots;
}

static struct content arg_content(const json_t *args)
{
    struct content c = {.kind = CONTENT_INLINE, .bytes = slice_str(arg_text(args, "data"))};
    c.size = c.bytes.len;
    return c;
}

static struct stamp make_stamp(const json_t *stamp)
{
    return (struct stamp){.hlc = (uint64_t)json_integer_value(json_array_get(stamp, 0)),
                          .site = (site_id_t)json_string_value(json_array_get(stamp, 1))[0]};
}

static struct reg perm_reg(struct vector *v, const json_t *value)
{
    struct perm p = {.mode = (uint16_t)json_integer_value(value)};
    struct buf b = {.ptr = NULL};
    struct reg r = {.key = slice_str("p"), .present = true};
    perm_encode(&p, &b);
    r.value = op_dup(&v->arena, buf_slice(&b));
    buf_deinit(&b);
    return r;
}

static struct birth make_birth(struct vector *v, const struct vector_oid *o)
{
    return (struct birth){.oid = o->oid,
                          .parent = arg_oid(v, o->birth, "parent"),
                          .name = slice_str(arg_text(o->birth, "name"))};
}

static uint32_t add_chain(struct vector *v, struct birth *at, const char *text)
{
    uint32_t count = 0;
    while (strcmp(text, "root") != 0) {
        const struct vector_oid *o = vector_find(v, text);
        at[count++] = make_birth(v, o);
        text = arg_text(o->birth, "parent");
    }
    return count;
}

static void build_lineage(struct vector *v, const json_t *args, struct effect *e)
{
    struct birth *births = op_alloc(&v->arena, 2 * (v->oid_count + 1) * sizeof *births);
    e->lineage_count = add_chain(v, births, arg_text(args, "oid"));
    e->lineage_count += add_chain(v, births + e->lineage_count, arg_text(args, "parent"));
    e->lineage = births;
}

static void build_fork(struct vector *v, const json_t *args, struct effect *e)
{
    const char *key;
    json_t *value;
    e->loser = op_find(v, json_object_get(args, "loser"))->dot;
    e->loser_stamp = make_stamp(json_object_get(args, "loser_stamp"));
    e->to = arg_oid(v, args, "to");
    e->content = arg_content(args);
    struct reg *regs = op_alloc(&v->arena, 4 * sizeof *regs);
    json_object_foreach (json_object_get(args, "attrs"), key, value) {
        ASSERT(strcmp(key, "perm") == 0);
        regs[e->reg_count] = perm_reg(v, json_array_get(value, 1));
        regs[e->reg_count++].stamp = make_stamp(json_array_get(value, 0));
    }
    e->regs = regs;
}

static void build_effect(struct vector *v, const json_t *json, struct effect *e)
{
    static const char *const kinds[EFFECT_KIND_END] = {
        [EFFECT_ENTER] = "enter", [EFFECT_LEAVE] = "leave", [EFFECT_VERSION] = "version",
        [EFFECT_FORK] = "fork",   [EFFECT_BIRTH] = "birth", [EFFECT_REVIVE] = "revive",
        [EFFECT_BURY] = "bury",   [EFFECT_MOVE] = "move",   [EFFECT_SET] = "set"};
    const char *kind = json_string_value(json_array_get(json, 0));
    const json_t *args = json_array_get(json, 1);
    *e = (struct effect){.oid = arg_oid(v, args, "oid")};
    for (int k = EFFECT_ENTER; k < EFFECT_KIND_END; k++)
        if (strcmp(kinds[k], kind) == 0)
            e->kind = (enum effect_kind)k;
    ASSERT(e->kind != 0);
    if (arg_text(args, "parent") != NULL) {
        e->parent = arg_oid(v, args, "parent");
        e->name = slice_str(arg_text(args, "name"));
    }
    if (e->kind == EFFECT_LEAVE || e->kind == EFFECT_BURY)
        e->dots = arg_dots(v, args, "dots", &e->dot_count);
    if (e->kind == EFFECT_LEAVE)
        e->seen = arg_dots(v, args, "seen", &e->seen_count);
    if (e->kind == EFFECT_VERSION) {
        e->dots = arg_dots(v, args, "base", &e->dot_count);
        e->content = arg_content(args);
    }
    if (e->kind == EFFECT_FORK)
        build_fork(v, args, e);
    if (e->kind == EFFECT_BIRTH)
        e->birth = make_birth(v, vector_find(v, arg_text(args, "oid")));
    if (e->kind == EFFECT_MOVE)
        build_lineage(v, args, e);
    if (e->kind == EFFECT_SET)
        e->set = perm_reg(v, json_object_get(args, "value"));
}

/* The shard that journals it: of the parent of the last name that it adds, 0 for directory moves,
 * else of its object. */
static shard_id_t home_of(struct vector *v, const json_t *op)
{
    size_t i;
    json_t *effect;
    shard_id_t home = 0;
    bool named = false;
    json_array_foreach (json_object_get(op, "effects"), i, effect) {
        const char *kind = json_string_value(json_array_get(effect, 0));
        const json_t *args = json_array_get(effect, 1);
        if (strcmp(kind, "move") == 0)
            return 0;
        bool names = strcmp(kind, "enter") == 0 || strcmp(kind, "birth") == 0;
        if (names)
            home = oid_shard(arg_oid(v, args, "parent"));
        else if (!named && i == 0)
            home = oid_shard(arg_oid(v, args, "oid"));
        named |= names;
    }
    return home;
}

void vector_build(struct vector *v, unsigned shard_count)
{
    uint64_t next[SHARD_COUNT_MAX] = {0};
    op_arena_reset(&v->arena);
    oids_build(v, shard_count);
    for (uint32_t i = 0; i < v->op_count; i++) { /* by site, then seq */
        struct vector_op *o = &v->ops[i];
        if (i > 0 && v->ops[i - 1].site != o->site)
            memset(next, 0, sizeof next);
        shard_id_t home = home_of(v, o->json);
        o->dot = (struct dot){.shard = home, .site = (site_id_t)o->site, .seq = ++next[home]};
    }
    for (uint32_t i = 0; i < v->op_count; i++) {
        struct vector_op *o = &v->ops[i];
        const json_t *effects = json_object_get(o->json, "effects");
        size_t k;
        json_t *effect;
        o->op = (struct op){.dot = o->dot, .stamp = make_stamp(json_object_get(o->json, "stamp"))};
        o->op.time_ns = (int64_t)o->op.stamp.hlc * 1000;
        o->op.effect_count = (uint32_t)json_array_size(effects);
        o->op.effects = op_alloc(&v->arena, o->op.effect_count * sizeof(struct effect));
        json_array_foreach (effects, k, effect)
            build_effect(v, effect, &o->op.effects[k]);
    }
}
