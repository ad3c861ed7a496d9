/* The conflict records of all sites, when all have everything: one id says the same everywhere,
 * what is recorded collided, and whatever shows under a conflict name is on record.
 *
 * Records of names and of removals are a site's own: one that never saw the two sides together has
 * none (journal/merge_conflict.c). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "sim/tree.h"
#include "sim/watch_int.h"
#include "site/call.h"

#define NAME_KEPT 48u

struct record_of {
    unsigned site;
    struct conflict c; /* without what it borrows */
    char name[NAME_KEPT];
};
struct records {
    struct record_of *at;
    size_t count, cap;
    unsigned site;
};

static bool record_add(void *ctx, const struct conflict *c)
{
    struct records *r = ctx;
    if (r->count == r->cap) {
        r->cap = r->cap * 2 + 256;
        r->at = mem_realloc(r->at, r->cap * sizeof r->at[0]);
    }
    r->at[r->count] = (struct record_of){.site = r->site, .c = *c};
    memcpy(r->at[r->count].name, c->name.ptr, MIN(c->name.len, NAME_KEPT - 1));
    r->at[r->count].c.name = r->at[r->count].c.other_name = (struct slice){0};
    r->count++;
    return true;
}

static int record_cmp(const void *a, const void *b)
{
    const struct record_of *x = a, *y = b;
    int order = memcmp(x->c.id, y->c.id, sizeof x->c.id);
    return order != 0 ? order : (int)x->site - (int)y->site;
}

static void record_fail(struct world *w, const struct record_of *r, const char *why)
{
    char a[OID_TEXT_LEN + 1], b[OID_TEXT_LEN + 1];
    oid_to_text(r->c.oid, a);
    oid_to_text(r->c.other, b);
    world_fail(w, "conflicts",
               "site %s has a record of rule %u, of %s and %s (sites %08x, %08x): %s",
               w->config.sites[r->site].name, r->c.rule, a, b, r->c.winner, r->c.loser, why);
}

static bool same_pair(const struct conflict *a, const struct conflict *b)
{
    return (oid_equal(a->oid, b->oid) && oid_equal(a->other, b->other)) ||
           (oid_equal(a->oid, b->other) && oid_equal(a->other, b->oid));
}

/* The operation of one side; false: nobody knows. */
static bool side_find(const struct world *w, struct dot dot, struct stamp stamp, struct dot *ret)
{
    const struct watch *t = w->watcher;
    *ret = dot;
    if (!dot_is_none(dot))
        return true;
    for (unsigned k = 0; k < t->life_count; k++)
        if (t->lives[k].id == stamp.site && !t->lives[k].order.gap)
            return watch_find(w, k, stamp.hlc, ret);
    return false;
}

/* What shows when a version is forked may be a later one than that with which it collided (rule 2).
 * A removal may have been the other side of two others' (rule 3). And a directory has the stamp of
 * who gave it its place, whoever has revived it (rule 6). */
static bool may_be_alone(const struct conflict *c)
{
    return c->rule == 2 || c->rule == 3 ||
           (c->rule == 6 && (oid_is_dir(c->oid) || oid_is_dir(c->other)));
}

/* Two sites did something, and who lost had not seen the other one. Who won may know a third one's
 * side of it; what holds a name may have lost it and come back, so that of names nothing follows.
 */
static void cause_look(struct world *w, const struct record_of *r)
{
    const struct conflict *c = &r->c;
    if (c->winner != 0 && c->winner == c->loser && !may_be_alone(c))
        record_fail(w, r, "one site, which knows what it does");
    struct dot winner, loser;
    if (!side_find(w, c->winner_dot, c->winner_stamp, &winner) ||
        !side_find(w, c->loser_dot, c->loser_stamp, &loser))
        return;
    if (c->rule != 3 && c->rule != 6 && cause_knew(w, loser, winner))
        record_fail(w, r, "who lost had seen the other one");
}

static void records_look(struct world *w, const struct records *all, unsigned counting)
{
    for (size_t i = 0, next; i < all->count; i = next) {
        const struct record_of *r = &all->at[i];
        for (next = i; next < all->count && memcmp(all->at[next].c.id, r->c.id, 8) == 0; next++) {
            const struct conflict *c = &all->at[next].c;
            if (next > i && all->at[next].site == all->at[next - 1].site)
                record_fail(w, r, "it is there twice");
            if (c->rule != r->c.rule || !same_pair(c, &r->c))
                record_fail(w, r, "another site says something else of it");
        }
        /* A version that became a file of its own did so at every site. */
        if (r->c.rule == 2 && next - i < counting)
            record_fail(w, r, "another site has none of it");
        cause_look(w, r);
    }
}

/* --- what shows under a conflict name --- */

/* `a.conflict-s0-0123abcd-1.txt` is of `a.txt`. */
static void plain_name(const char *name, char out[NAME_KEPT])
{
    const char *mark = strstr(name, ".conflict-"), *rest = strchr(mark + 1, '.');
    (void)snprintf(out, NAME_KEPT, "%.*s%s", (int)MIN((size_t)(mark - name), NAME_KEPT - 1u), name,
                   rest != NULL ? rest : ""); /* cut, as what it is compared with */
}

/* Who lost a name to another thing of the same site, which that one's repair or a move that was
 * undone has brought back, has no record of his own: that of the other one tells why. */
static bool is_on_record(const struct records *all, const char *name, const char *oid)
{
    char a[OID_TEXT_LEN + 1], b[OID_TEXT_LEN + 1], plain[NAME_KEPT];
    plain_name(name, plain);
    for (size_t i = 0; i < all->count; i++) {
        const struct record_of *r = &all->at[i];
        oid_to_text(r->c.oid, a);
        oid_to_text(r->c.other, b);
        bool named = r->c.rule == 2 || r->c.rule == 6;
        if (named ? strcmp(a, oid) == 0 || strcmp(b, oid) == 0 : strcmp(r->name, plain) == 0)
            return true;
    }
    return false;
}

/* Lines of tree_oids(): path, oid, content. */
static void names_look(struct world *w, const struct records *all, unsigned site)
{
    struct buf text = {0};
    tree_oids(w->sites[site].node, &text);
    buf_append(&text, "", 1);
    for (char *at = (char *)text.ptr, *end; *at != '\0'; at = end + 1) {
        end = strchr(at, '\n');
        ASSERT(end != NULL);
        *end = '\0';
        char *content = strrchr(at, ' ');
        ASSERT(content != NULL);
        *content = '\0';
        char *oid = strrchr(at, ' ');
        ASSERT(oid != NULL);
        *oid++ = '\0';
        const char *name = strrchr(at, '/');
        if (name != NULL && strstr(name, ".conflict-") != NULL && !is_on_record(all, name + 1, oid))
            world_fail(w, "conflicts", "%s shows %.100s, %s, and there is no record why",
                       w->config.sites[site].name, at, oid);
    }
    buf_deinit(&text);
}

void world_check_conflicts(struct world *w)
{
    struct records all = {.at = NULL};
    unsigned counting = 0, first = 0;
    /* What a return puts under a conflict name is known to the site that came back alone. */
    bool returned = w->watcher->life_count > w->config.site_count;
    for (unsigned i = w->config.site_count; i-- > 0;) {
        if (!world_counts(w, i) || w->sites[i].node == NULL)
            continue;
        first = i;
        counting++;
        all.site = i;
        for (unsigned s = 0; s < w->config.shards; s++)
            if (merge_conflicts(shard_merge(node_shard(w->sites[i].node, (shard_id_t)s)),
                                record_add, &all) != 0)
                world_fail(w, "conflicts", "site %s cannot read them", w->config.sites[i].name);
    }
    if (all.count > 0)
        qsort(all.at, all.count, sizeof all.at[0], record_cmp);
    if (!returned)
        records_look(w, &all, counting);
    if (!returned && counting == w->config.site_count) /* who is gone may have had the record */
        names_look(w, &all, first);
    mem_free(all.at);
}
