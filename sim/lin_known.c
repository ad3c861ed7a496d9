/* What mounts with caches would show: what each was told of names and attributes, until it is told
 * to forget it. The simulated mounts ask for everything themselves, so without this nobody would
 * notice an invalidation that does not come, or comes after the answer (S7). */
#include <string.h>

#include "sim/lin_int.h"

static void forget(struct lin_mount *lm, struct oid oid, bool names, uint64_t name)
{
    for (unsigned i = 0; i < LIN_KNOWN; i++) {
        struct lin_known *k = &lm->known[i];
        bool is_name = k->key.name != 0;
        if (oid_equal(k->key.oid, oid) && is_name == names && (name == 0 || k->key.name == name))
            k->key.oid = (struct oid){{0}};
    }
}

void lin_forget(const struct mount *m)
{
    if (lin != NULL)
        memset(lin->mounts[m->number].known, 0, sizeof lin->mounts[m->number].known);
}

void lin_told(const struct mount *m, const struct fs_inval *invals, uint32_t count)
{
    for (uint32_t i = 0; lin != NULL && i < count; i++) {
        struct slice name = invals[i].name;
        bool all = name.len == 1 && name.ptr[0] == '*';
        forget(&lin->mounts[m->number], invals[i].oid, name.len > 0,
               name.len == 0 || all ? 0 : lin_name_hash(name));
    }
}

static void learn(struct lin_mount *lm, struct oid oid, uint64_t name, uint64_t value)
{
    if (value == 0 && name == 0)
        return;
    forget(lm, oid, name != 0, name);
    lm->known[lm->known_next++ % LIN_KNOWN] =
        (struct lin_known){{.oid = oid, .name = name}, value, lin->order};
}

/* The mount that makes a change knows what it changes. */
static void own_change(const struct mount *m, const struct fs_reply *r)
{
    struct lin_mount *lm = &lin->mounts[m->number];
    struct oid dirs[2] = {m->req.oid, m->req.oid2};
    for (unsigned i = 0; i < 2; i++) {
        forget(lm, dirs[i], true, 0);
        forget(lm, dirs[i], false, 0);
    }
    for (uint32_t i = 0; i < r->oid_count; i++)
        forget(lm, r->oids[i], false, 0);
    for (unsigned i = 0; i < LIN_KNOWN && r->oid_count == 0; i++)
        if (lm->known[i].key.name == 0)
            lm->known[i].key.oid = (struct oid){{0}};
}

/* Nobody at the site may still show what was there before this change. */
static void others_check(const struct mount *m, const struct lin_call *c, const struct lin_key *k)
{
    struct node *n = m->process->node;
    struct slice name = m->req.name;
    if (k->name != 0 && k->name != lin_name_hash(name))
        name = m->req.name2;
    if (k->name != 0 && k->name != lin_name_hash(name))
        return;
    for (unsigned i = 0; i < lin->w->mount_count; i++) {
        const struct mount *other = &lin->w->mounts[i];
        if (other == m || other->process != m->process)
            continue;
        for (unsigned x = 0; x < LIN_KNOWN; x++) {
            const struct lin_known *e = &lin->mounts[i].known[x];
            if (!oid_equal(e->key.oid, k->oid) || e->key.name != k->name || e->order >= c->order ||
                e->value == lin_value(n, *k, name))
                continue;
            lin_fail(m, "answered, and mount %u was not told to forget what %s before", i,
                     k->name != 0 ? "the name meant" : "the attributes were");
            return;
        }
    }
}

void lin_known_answered(const struct mount *m, const struct lin_call *c, const struct fs_reply *r)
{
    struct lin_mount *lm = &lin->mounts[m->number];
    if (c->changes && r->rc == 0) {
        for (unsigned i = 0;
             c->done && i < c->key_count && lin_node(m->process->machine.site) != NULL; i++)
            others_check(m, c, &c->keys[i]);
        own_change(m, r);
    }
    if (m->type == RPC_LOOKUP && (r->rc == 0 || r->rc == ERR_NOT_FOUND))
        learn(lm, m->req.oid, lin_name_hash(m->req.name),
              r->rc == 0 ? lin_name_value(r->attr.oid) : 0);
    if (r->rc == 0 && r->has_attr)
        learn(lm, r->attr.oid, 0, lin_attr_hash(&r->attr));
}
