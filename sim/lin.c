/* Calls under way, the moments they saw, and their answers. See lin.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "sim/disk.h"
#include "sim/lin_int.h"

struct lin *lin;
static struct lin_stats stats;

void lin_new(struct world *w)
{
    ASSERT(lin == NULL);
    lin = mem_calloc(1, sizeof *lin);
    lin->w = w;
}

void lin_free(void)
{
    for (unsigned i = 0; lin != NULL && i < WORLD_MOUNTS_MAX; i++)
        mem_free(lin->mounts[i].told);
    mem_free(lin);
    lin = NULL;
}

struct lin_stats lin_stats(void)
{
    return stats;
}

static struct lin_mount *of(const struct mount *m)
{
    return lin != NULL ? &lin->mounts[m->number] : NULL;
}

static unsigned site_of(const struct mount *m)
{
    return m->process->machine.site;
}

struct node *lin_node(unsigned site)
{
    const struct process *p = &lin->w->sites[site];
    return p->machine.ghost || !process_serves(p) ? NULL : p->node;
}

void lin_fail(const struct mount *m, const char *fmt, ...)
{
    char why[200];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(why, sizeof why, fmt, args); /* cut if need be */
    va_end(args);
    world_fail(lin->w, "P1", "mount %u at %s, call %llu (type %u, %.*s): %s", m->number,
               lin->w->config.sites[site_of(m)].name, (unsigned long long)m->req.number, m->type,
               (int)MIN(m->req.name.len, 20u), (const char *)m->req.name.ptr, why);
}

/* --- what is not durable yet --- */

bool lin_is_durable_at(unsigned site, shard_id_t shard, uint64_t index)
{
    struct node *n = lin_node(site);
    return n != NULL && index <= shard_committed(node_shard(n, shard));
}

static void fresh_prune(unsigned site)
{
    struct lin_site *s = &lin->sites[site];
    while (s->fresh_count > 0) {
        const struct lin_fresh *f = &s->fresh[s->fresh_first];
        if (s->fresh_count < LIN_FRESH && !lin_is_durable_at(site, f->shard, f->index))
            return;
        s->fresh_first = (s->fresh_first + 1) % LIN_FRESH;
        s->fresh_count--;
    }
}

static void fresh_add(unsigned site, struct lin_key key, shard_id_t shard, uint64_t index)
{
    struct lin_site *s = &lin->sites[site];
    if (s->fresh_count == LIN_FRESH)
        fresh_prune(site);
    s->fresh[(s->fresh_first + s->fresh_count++) % LIN_FRESH] =
        (struct lin_fresh){.key = key, .shard = shard, .index = index, .by = lin->by};
}

/* Names count for what their directory shows of itself. */
static bool concerns(const struct lin_key *change, const struct lin_key *seen)
{
    return oid_equal(change->oid, seen->oid) &&
           (seen->name == 0 || change->name == seen->name || change->name == LIN_ANY_NAME);
}

struct lin_need lin_need_of(unsigned site, const struct lin_key *key)
{
    const struct lin_site *s = &lin->sites[site];
    struct lin_need need = {.shard = oid_shard(key->oid)};
    for (unsigned i = s->fresh_count; i > 0; i--) {
        const struct lin_fresh *f = &s->fresh[(s->fresh_first + i - 1) % LIN_FRESH];
        if (f->shard == need.shard && concerns(&f->key, key)) {
            need.index = f->index;
            need.by = f->by;
            break;
        }
    }
    return need;
}

/* --- moments --- */

static bool same_moment(const struct lin_state *a, const struct lin_state *b)
{
    bool same = a->may_count == b->may_count && oid_equal(a->oid, b->oid) &&
                oid_equal(a->other, b->other) && a->attr == b->attr && a->list == b->list &&
                a->dirs[0] == b->dirs[0] && a->dirs[1] == b->dirs[1] && a->nothing == b->nothing;
    for (unsigned i = 0; same && i < a->may_count; i++)
        same = a->may[i].rc == b->may[i].rc;
    return same;
}

/* The same was so before, and perhaps told by what is durable sooner. */
static bool known_moment(struct lin_call *c, const struct lin_state *st)
{
    for (unsigned i = c->state_count; i > 0; i--) {
        struct lin_state *had = &c->states[i - 1];
        if (!same_moment(had, st))
            continue;
        for (unsigned k = 0; k < st->may_count; k++)
            for (unsigned x = 0; x < st->may[k].because_count; x++)
                if (had->may[k].needs[x].index > st->may[k].needs[x].index)
                    had->may[k].needs[x] = st->may[k].needs[x];
        c->now = i - 1;
        return true;
    }
    return false;
}

void lin_look(const struct mount *m)
{
    struct lin_call *c = &of(m)->call;
    struct node *n = lin_node(site_of(m));
    struct lin_state st;
    if (c->blind || c->proposing || n == NULL)
        return;
    bool calm = disk_calm;
    disk_calm = true;
    bool good = lin_model(n, m, c, &st);
    disk_calm = calm;
    if (!good) {
        c->blind = true;
        return;
    }
    for (unsigned i = 0; i < st.may_count; i++)
        for (unsigned k = 0; k < st.may[i].because_count; k++)
            st.may[i].needs[k] = lin_need_of(site_of(m), &st.may[i].because[k]);
    c->shown = c->shown || st.shows;
    if (known_moment(c, &st))
        return;
    if (c->state_count == LIN_STATES)
        c->blind = true;
    else
        c->states[c->now = c->state_count++] = st;
}

const struct lin_state *lin_now(const struct mount *m)
{
    static struct lin_state st;
    struct node *n = lin_node(site_of(m));
    bool calm = disk_calm;
    disk_calm = true;
    bool good = n != NULL && lin_model(n, m, &of(m)->call, &st);
    disk_calm = calm;
    return good ? &st : NULL;
}

/* Moves of directories and listings depend on more than what they name. */
static bool may_concern(const struct mount *m,
                        const struct lin_call *c,
                        const struct lin_key *keys,
                        unsigned count)
{
    if (m->type == RPC_RENAME || m->type == RPC_READDIR || count == 0)
        return true;
    const struct lin_state *last = c->state_count > 0 ? &c->states[c->now] : NULL;
    for (unsigned i = 0; i < count; i++)
        if (oid_equal(keys[i].oid, m->req.oid) || oid_equal(keys[i].oid, m->req.oid2) ||
            (c->done && oid_equal(keys[i].oid, c->result)) ||
            (last != NULL &&
             (oid_equal(keys[i].oid, last->oid) || oid_equal(keys[i].oid, last->other))))
            return true;
    return false;
}

void lin_fresh(unsigned site, shard_id_t shard, const struct lin_key *keys, unsigned count)
{
    struct node *n = lin_node(site);
    uint64_t index = n != NULL ? log_last(shard_log(node_shard(n, shard))) : 0;
    for (unsigned i = 0; n != NULL && i < count; i++)
        fresh_add(site, keys[i], shard, index);
}

void lin_changed(unsigned site, const struct lin_key *keys, unsigned count)
{
    lin->order++;
    for (unsigned i = 0; i < lin->w->mount_count && lin->sites[site].busy > 0; i++) {
        const struct mount *m = &lin->w->mounts[i];
        const struct lin_call *c = &lin->mounts[i].call;
        if (c->busy && site_of(m) == site && may_concern(m, c, keys, count))
            lin_look(m);
    }
}

/* --- the life of a call --- */

bool lin_is_change(enum rpc_type t)
{
    return t != RPC_LOOKUP && t != RPC_GETATTR && t != RPC_READDIR && t != RPC_OPEN &&
           t != RPC_CLOSE;
}

static void call_end(const struct mount *m)
{
    struct lin_mount *lm = of(m);
    if (lm->call.busy)
        lin->sites[site_of(m)].busy--;
    lm->call.busy = false;
    lm->session = m->session;
    lm->answered = MAX(lm->answered, m->req.number);
}

void lin_begin(const struct mount *m)
{
    struct lin_mount *lm = of(m);
    if (lm == NULL)
        return;
    call_end(m);
    struct lin_call *c = &lm->call;
    memset(c, 0, offsetof(struct lin_call, states));
    c->state_count = 0;
    c->busy = true;
    c->changes = lin_is_change(m->type);
    lm->session = m->session;
    lm->answered = MAX(lm->answered, m->req.number - 1);
    lin->sites[site_of(m)].busy++;
    fresh_prune(site_of(m));
    lin_look(m);
}

void lin_gone(const struct mount *m)
{
    if (of(m) != NULL)
        call_end(m);
}

/* Answers that say something of what there is; others are of the node and its disk. */
static bool is_judged(int32_t rc)
{
    return rc == 0 || rc == ERR_STALE_BASE ||
           (err_class(rc) == ERR_CLASS_USER && rc != ERR_NOT_SUPPORTED && rc != ERR_CONFIG);
}

static bool
needs_met(const struct mount *m, const struct lin_state *st, unsigned i, const struct fs_reply *r)
{
    for (unsigned k = 0; k < st->may[i].because_count; k++)
        if (!lin_may_tell(m, &st->may[i].needs[k], r))
            return false;
    return true;
}

void lin_tell(unsigned site, shard_id_t shard, uint64_t index)
{
    uint64_t *told = &lin->sites[site].told[shard % LIN_SHARDS];
    if (lin_is_durable_at(site, shard, index))
        *told = MAX(*told, index);
}

static void needs_told(unsigned site, const struct lin_state *st, unsigned i)
{
    for (unsigned k = 0; k < st->may[i].because_count; k++)
        lin_tell(site, st->may[i].needs[k].shard, st->may[i].needs[k].index);
}

static bool
explains(const struct mount *m, const struct lin_state *st, const struct fs_reply *r, unsigned *ret)
{
    unsigned i = 0;
    while (i < st->may_count && st->may[i].rc != r->rc)
        i++;
    *ret = i;
    if (i == st->may_count || (lin_is_change(m->type) && r->rc == 0 && !st->nothing))
        return false;
    if (m->type == RPC_READDIR)
        return st->list == lin_list_hash(r->entries, r->entry_count);
    return !r->has_attr || st->attr == 0 || st->attr == lin_attr_hash(&r->attr);
}

/* A nameless file was written: no operation of the site, but its content shows. */
static bool
judge_nameless(const struct mount *m, const struct lin_call *c, const struct fs_reply *r)
{
    bool could = false, found = false;
    for (unsigned i = 0; i < c->state_count; i++)
        could = could || c->states[i].nothing;
    if (m->type != RPC_COMMIT || r->rc != 0 || !could || !r->has_attr)
        return false;
    for (unsigned i = 0; i < c->state_count; i++) {
        if (c->states[i].attr != lin_attr_hash(&r->attr))
            continue;
        found = true;
        if (!needs_met(m, &c->states[i], 0, r))
            continue;
        needs_told(site_of(m), &c->states[i], 0);
        return true;
    }
    lin_fail(m, found ? "what it wrote to a nameless file is not durable"
                      : "answered with attributes that the nameless file never had");
    return true;
}

static void fail_needs(const struct mount *m, const struct lin_call *c, const struct fs_reply *r)
{
    struct lin_need first = {0};
    struct lin_key key = {.name = 0};
    unsigned at;
    for (unsigned i = 0; i < c->state_count; i++)
        for (unsigned k = 0; explains(m, &c->states[i], r, &at) && k < 2; k++)
            if (!lin_may_tell(m, &c->states[i].may[at].needs[k], r)) {
                first = c->states[i].may[at].needs[k];
                key = c->states[i].may[at].because[k];
            }
    char oid[OID_TEXT_LEN + 1];
    oid_to_text(key.oid, oid);
    lin_fail(m, "%s tells of a change that is not durable: %s of %s, record %llu of shard %u",
             r->rc == 0 ? "good" : err_name(r->rc), key.name != 0 ? "a name" : "attributes", oid,
             (unsigned long long)first.index, first.shard);
}

/* One moment says all of this answer, and what it tells stays. */
static void judge_seen(const struct mount *m, const struct lin_call *c, const struct fs_reply *r)
{
    bool found = false;
    unsigned at;
    if (judge_nameless(m, c, r))
        return;
    for (unsigned i = 0; i < c->state_count; i++) {
        if (!explains(m, &c->states[i], r, &at))
            continue;
        found = true;
        if (!needs_met(m, &c->states[i], at, r))
            continue;
        needs_told(site_of(m), &c->states[i], at);
        return;
    }
    if (found)
        fail_needs(m, c, r);
    else if (c->changes && r->rc == 0)
        lin_fail(m, "answered good, and nothing was done");
    else
        lin_fail(m, "%s, which was so at none of %u moments between call and answer",
                 r->rc == 0 ? "good" : err_name(r->rc), c->state_count);
}

static bool attr_was(const struct lin_call *c, const struct fs_attr *a, int which)
{
    uint64_t h = lin_attr_hash(a);
    for (unsigned i = 0; i < c->state_count; i++)
        if ((which < 0 ? c->states[i].attr : c->states[i].dirs[which]) == h)
            return true;
    return false;
}

/* A directory that the site had not heard of is as it was made until its own shard has it, together
 * with what others may have done to it by then. */
static bool just_made(const struct mount *m, const struct lin_call *c, const struct fs_reply *r)
{
    const struct fs_attr *a = &r->attr;
    return m->type == RPC_MKDIR && (r->flags & REPLY_NEW) != 0 && c->state_count > 0 &&
           c->states[0].attr == 0 && a->nlink == 2 &&
           (a->mode & ~(uint32_t)S_ISGID) == (S_IFDIR | m->req.mode) && /* the parent's, perhaps */
           a->atime_ns == a->mtime_ns && a->mtime_ns == a->ctime_ns;
}

static void judge_change(const struct mount *m, struct lin_call *c, const struct fs_reply *r)
{
    unsigned site = site_of(m);
    enum err_class k = err_class(r->rc);
    stats.changes++;
    if (c->again)
        lin_fail(m, "carried out twice");
    if (r->rc != 0) {
        if ((k != ERR_CLASS_ENV && k != ERR_CLASS_FATAL) || r->rc == ERR_NO_SPACE)
            lin_fail(m, "answered %s, and was carried out", err_name(r->rc));
        return;
    }
    lin_told_answered(m, c, r);
    lin_tell(site, c->dot.shard, c->index);
    if (c->blind)
        return;
    /* What another shard's disk refuses of it waits there: RESULTS.md, "Open". */
    if (!c->shown && !world_parts_held(lin->w, site))
        lin_fail(m, "answered good, and what it did never showed");
    if (r->has_attr && !oid_equal(r->attr.oid, c->result))
        lin_fail(m, "answered with another object than it made");
    else if (r->has_attr && !attr_was(c, &r->attr, -1) && !just_made(m, c, r))
        lin_fail(m, "answered with attributes that its object never had");
    if ((r->has_dir && !attr_was(c, &r->dir, 0)) || (r->has_dir2 && !attr_was(c, &r->dir2, 1)))
        lin_fail(m, "answered with attributes that the directory never had");
}

void lin_answered(const struct mount *m, const struct fs_reply *r)
{
    struct lin_mount *lm = of(m);
    if (lm == NULL || !lm->call.busy)
        return;
    struct lin_call *c = &lm->call;
    stats.answers++;
    lin->order++;
    bool up = lin_node(site_of(m)) != NULL;
    /* Attributes that cannot be read are not in a listing; such a node is about to end. */
    c->blind = c->blind || !up || !world_can_read(lin->w, site_of(m));
    if (up && c->done)
        judge_change(m, c, r);
    else if (up && is_judged(r->rc) && !c->blind)
        judge_seen(m, c, r);
    if (r->rc != 0 || !c->done)
        lin_told_over(m);
    stats.blind += c->blind;
    lin_known_answered(m, c, r);
    call_end(m);
}

/* --- the site was down --- */

/* What the start itself has issued may have the number of an operation that was lost. */
bool lin_has_survived(struct node *n, struct dot dot)
{
    struct shard *s = node_shard(n, dot.shard);
    return merge_seen(shard_merge(s), dot.shard, dot.site) >= dot.seq &&
           (dot.site != node_settings(n)->site || dot.seq < shard_first_seq(s));
}

static void survived(struct node *n, struct lin_call *c)
{
    struct shard *s = node_shard(n, c->dot.shard);
    bool is = lin_has_survived(n, c->dot);
    if (is && c->maybe)
        c->index = log_last(shard_log(s));
    if (!is)
        c->again = c->shown = false;
    c->done = is;
    c->maybe = false;
}

void lin_restarted(unsigned site)
{
    struct node *n = lin != NULL ? lin_node(site) : NULL;
    if (n == NULL)
        return;
    struct lin_site *s = &lin->sites[site];
    s->fresh_count = 0;
    for (unsigned k = 0; k < lin->w->config.shards; k++)
        if (log_last(shard_log(node_shard(n, (shard_id_t)k))) < s->told[k % LIN_SHARDS])
            world_fail(lin->w, "P1",
                       "site %s is back without record %llu of shard %u, of which an "
                       "answer has told",
                       lin->w->config.sites[site].name, (unsigned long long)s->told[k % LIN_SHARDS],
                       k);
    lin_told_restarted(site, n);
    for (unsigned i = 0; i < lin->w->mount_count; i++) {
        struct lin_call *c = &lin->mounts[i].call;
        if (!c->busy || site_of(&lin->w->mounts[i]) != site)
            continue;
        /* What was not durable has never been, and no answer of before can come any more. */
        if (c->done || c->maybe)
            survived(n, c);
        c->state_count = 0;
        c->blind = c->done && c->blind; /* nobody could say then what it removes */
        c->proposing = false;
        lin_look(&lin->w->mounts[i]);
    }
}

void lin_renewed(unsigned site)
{
    if (lin == NULL)
        return;
    for (unsigned i = 0; i < lin->w->mount_count; i++) {
        const struct mount *m = &lin->w->mounts[i];
        if (site_of(m) != site)
            continue;
        call_end(m);
        lin_forget(m);
    }
    memset(&lin->sites[site], 0, sizeof lin->sites[site]);
}
