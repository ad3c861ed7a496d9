/* Bringing here what a directory's policy wants at every site (eager, pinned), wherever it was
 * written. A site that has the names has the contents a little later, whatever happens between: it
 * does not take the first reader to bring them, who may come when the others are gone.
 *
 * What changes is looked at when it has changed (node_bring_look). All there is, is looked at in a
 * pass when something may have changed unseen: at the start (replay tells nothing), after a
 * snapshot, when the queue of changes was full, when a policy was set, when a damaged chunk could
 * not be repaired. Between two passes nothing is done.
 *
 *   queue, pass -> look: is it wanted, and are all its chunks in the store's index?
 *                   |  not all
 *                   v
 *                 lack, ready --> fetch --> here: forgotten
 *                   ^               | failed
 *                   |               v
 *                   +-- its time -- lack, later
 *                       or a link came up
 *
 * Looks and fetches are walks over a manifest: a few of its chunks are asked for in the index, what
 * is not there is fetched, or counted. All of it advances in one deferred step; answers only take
 * notes. A pass takes a few contents at a time and rests between; fetches are fewer at a time than
 * one link takes, so that what a reader waits for goes out at once. Nothing is dropped: a full list
 * of lacks holds the looks up, a full queue of changes makes a pass due (S27). */
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "site/admin_int.h"
#include "site/lacks.h"

#define EAGER_BYTES_MAX (16u * MIB)
#define LOOKS_MAX 64u    /* contents being looked at, and taken from a shard at a time */
#define FETCHES_MAX 16u  /* contents being fetched */
#define CHUNKS_MAX 12u   /* on the way for them; one link takes 16 (WAN_FETCH_PER_PEER) */
#define ASKED_CHUNKS 32u /* on the way for a content that somebody waits for */
#define STEP_IDS 64u     /* chunks that a walk asks the index for at a time */
#define QUEUE_MAX 65536u
#define LACKS_MAX 65536u
#define NODE_CACHE_BYTES (32u * MIB)
#define PASS_PAUSE_NS (2 * NS_PER_MS)
#define PASS_REST 2u /* times as long as a pass took, before the next */
#define PASS_AGAIN_NS (60 * NS_PER_SEC)
#define RETRY_NS NS_PER_SEC
#define RETRY_DOUBLINGS 6u /* 64 s */
#define LATER_PER_TICK 1024u
#define WANTED_PER_TICK 64u
#define POLICY_HOPS_MAX 64u
#define POLICY_XATTR "xuser.claudefs.policy"

struct change { /* of an object; in the queue */
    struct oid oid;
    struct change *next;
};
struct lack { /* a content that is wanted here, and not all here */
    struct oid oid;
    struct manifest m;
    uint64_t left; /* bytes of it that are not here, as far as is known */
    uint64_t retry_ns;
    uint32_t fails;
    struct lack *next;
};
struct lacks {
    struct lack *head, **tail;
    uint32_t count;
};
enum known { /* of a lack */
    KNOWN_LACK = 1,
    KNOWN_LOST /* all members were asked for what is left, and none has it */
};
enum policy {
    POLICY_DEFAULT,
    POLICY_EAGER,
    POLICY_LAZY
};
enum walk_kind {
    WALK_LOOK,
    WALK_FETCH,
    WALK_ASKED /* somebody waits for it */
};
struct walk {
    struct bring *b;
    struct walk *prev, *next; /* all there are, oldest first */
    enum walk_kind kind;
    struct oid oid;
    struct manifest m;
    struct lack *lack;               /* FETCH: owned */
    void (*done)(void *ctx, int rc); /* ASKED */
    void *ctx;
    uint64_t links; /* bring.links when it began */
    uint64_t cursor;
    bool ended; /* all of the manifest was visited */
    struct chunk_ids ids, missing;
    bool is_node[STEP_IDS], present[STEP_IDS];
    size_t at;      /* ids before have been asked for */
    bool wants_top; /* missing.at[0] is the node to go on with */
    bool asking;    /* the store, or a peer for that node */
    struct store_has has;
    uint32_t open; /* chunks on the way */
    bool lost;     /* FETCH: of some chunk it was said that no member has it */
    bool lacks;    /* LOOK: something is not here */
    uint64_t left; /* LOOK: bytes of that */
    int rc;
};
struct bring {
    struct node *n;
    struct pipeline *pipeline;
    struct node_cache *cache;
    struct walk *first, *last;
    uint32_t looking, fetching, chunks; /* walks of a kind; chunks on the way for fetches */
    struct change *head, **tail;
    uint32_t queued;
    struct lacks ready, later;
    struct id_map known; /* all lacks, by lack_key() */
    uint64_t left;       /* of all lacks */
    uint64_t links;      /* that have come up */
    bool due, passing;
    uint64_t begun_ns, not_before_ns; /* of passes */
    uint64_t slice_ns;                /* before that no more is taken from a shard */
    unsigned shard;
    struct buf cursor;
    struct oid policy_dir; /* whose policy was asked for last in this step */
    enum policy policy;
    bool policy_known;
    struct loop_defer step;
    struct loop_timer timer;
};

static void kick(struct bring *b)
{
    if (!b->n->stopping)
        loop_defer(b->n->loop, &b->step);
}

/* Other members may have what is not here, and can be asked. */
static bool may_run(const struct node *n)
{
    return n->fetch != NULL && n->member_count > 1 && !n->needs_snapshot && !n->stopping &&
           !n->broken;
}

/* ---- what is wanted ---- */

/* The nearest directory above that says user.claudefs.policy decides. */
static enum policy policy_above(struct node *n, struct oid dir)
{
    for (unsigned i = 0; i < POLICY_HOPS_MAX; i++) {
        struct reg r;
        struct dir_view v;
        if (merge_reg(merge_of(n, dir), dir, slice_str(POLICY_XATTR), &r) == 0 && r.present) {
            if (slice_equal(r.value, slice_str("eager")) ||
                slice_equal(r.value, slice_str("pinned")))
                return POLICY_EAGER;
            if (slice_equal(r.value, slice_str("lazy")))
                return POLICY_LAZY;
        }
        if (oid_is_root(dir) || merge_dir(merge_of(n, dir), dir, &v) != 0)
            break;
        dir = v.parent;
    }
    return POLICY_DEFAULT;
}

/* Files of one directory come one after the other. */
static enum policy policy_of(struct bring *b, struct oid dir)
{
    if (!b->policy_known || !oid_equal(dir, b->policy_dir)) {
        b->policy = policy_above(b->n, dir);
        b->policy_dir = dir;
        b->policy_known = true;
    }
    return b->policy;
}

static bool wants(struct bring *b, struct oid oid, struct manifest *ret)
{
    struct file_view v;
    if (merge_file(merge_of(b->n, oid), oid, &v) != 0 || v.names == 0 ||
        v.content.kind != CONTENT_MANIFEST)
        return false;
    *ret = (struct manifest){.root = chunk_id_of(v.content.root),
                             .size = v.content.size,
                             .block_bytes = v.content.block_bytes};
    if (chunk_id_is_hole(&ret->root) || manifest_validate(ret) != 0)
        return false;
    enum policy p = policy_of(b, v.ref_parent);
    return p == POLICY_EAGER || (p == POLICY_DEFAULT && ret->size <= EAGER_BYTES_MAX);
}

/* ---- lacks ---- */

static struct chunk_id lack_key(struct oid oid, const struct manifest *m)
{
    struct chunk_id key = m->root;
    _Static_assert(sizeof oid.b < sizeof key.b, "the rest keeps it from being the hole");
    for (size_t i = 0; i < sizeof oid.b; i++)
        key.b[i] ^= oid.b[i];
    return key;
}

static void lacks_put(struct lacks *l, struct lack *one)
{
    one->next = NULL;
    *l->tail = one;
    l->tail = &one->next;
    l->count++;
}

static struct lack *lacks_take(struct lacks *l)
{
    struct lack *one = l->head;
    if (one == NULL)
        return NULL;
    l->head = one->next;
    if (l->head == NULL)
        l->tail = &l->head;
    l->count--;
    return one;
}

static void lack_new(struct walk *w)
{
    struct bring *b = w->b;
    struct chunk_id key = lack_key(w->oid, &w->m);
    if (id_map_get(&b->known, &key) != NULL)
        return;
    id_map_set(&b->known, &key, KNOWN_LACK);
    struct lack *l = mem_calloc(1, sizeof *l);
    l->oid = w->oid;
    l->m = w->m;
    l->left = MIN(w->rc == 0 ? w->left : w->m.size, w->m.size);
    b->left += l->left;
    lacks_put(&b->ready, l);
}

static void lack_forget(struct bring *b, struct lack *l)
{
    struct chunk_id key = lack_key(l->oid, &l->m);
    bool known = id_map_del(&b->known, &key);
    ASSERT(known && b->left >= l->left);
    b->left -= l->left;
    mem_free(l);
}

/* It is the content that the file still has, and still wanted. */
static bool lack_counts(struct bring *b, const struct lack *l)
{
    struct manifest m;
    return wants(b, l->oid, &m) && chunk_id_equal(&m.root, &l->m.root) && m.size == l->m.size;
}

static void lack_later(struct bring *b, struct lack *l, int rc)
{
    char root[CHUNK_ID_TEXT_LEN + 1];
    chunk_id_to_text(&l->m.root, root);
    if (l->fails == 0 && rc != ERR_UNREACHABLE && rc != ERR_AGAIN && rc != ERR_CLOSED)
        log_warn(LOG_SITE, "content_not_brought", "root=%s bytes=%llu why=\"%s\"", root,
                 (unsigned long long)l->m.size,
                 rc == ERR_NOT_FOUND ? "no member has all of it" : err_text(rc));
    l->retry_ns = loop_now_ns(b->n->loop) + (RETRY_NS << MIN(l->fails, RETRY_DOUBLINGS));
    l->fails++;
    struct chunk_id key = lack_key(l->oid, &l->m);
    id_map_set(&b->known, &key, rc == ERR_NOT_FOUND ? KNOWN_LOST : KNOWN_LACK);
    lacks_put(&b->later, l);
}

/* ---- walks: what there is of a manifest ---- */

static struct walk *walk_new(struct bring *b, enum walk_kind kind, const struct manifest *m)
{
    struct walk *w = mem_calloc(1, sizeof *w);
    w->b = b;
    w->kind = kind;
    w->m = *m;
    w->links = b->links;
    w->prev = b->last;
    if (b->last != NULL)
        b->last->next = w;
    else
        b->first = w;
    b->last = w;
    b->looking += kind == WALK_LOOK;
    b->fetching += kind == WALK_FETCH;
    return w;
}

static void walk_end(struct walk *w)
{
    struct bring *b = w->b;
    ASSERT(!w->asking && w->open == 0);
    *(w->prev != NULL ? &w->prev->next : &b->first) = w->next;
    *(w->next != NULL ? &w->next->prev : &b->last) = w->prev;
    b->looking -= w->kind == WALK_LOOK;
    b->fetching -= w->kind == WALK_FETCH;
    if (w->rc == 0 && w->lost)
        w->rc = ERR_NOT_FOUND;
    if (w->kind == WALK_LOOK && (w->lacks || w->rc != 0) && w->rc != ERR_CLOSED)
        lack_new(w);
    else if (w->kind == WALK_FETCH && w->rc == 0)
        lack_forget(b, w->lack);
    else if (w->kind == WALK_FETCH && w->links != b->links) /* who it asked was another one */
        lacks_put(&b->ready, w->lack);
    else if (w->kind == WALK_FETCH)
        lack_later(b, w->lack, w->rc);
    else if (w->kind == WALK_ASKED)
        w->done(w->ctx, w->rc);
    chunk_ids_deinit(&w->ids);
    chunk_ids_deinit(&w->missing);
    mem_free(w);
    node_cache_trim(b->cache, NODE_CACHE_BYTES);
    kick(b);
}

static enum manifest_visit
visit(void *ctx, const struct chunk_id *id, unsigned level, uint64_t block)
{
    struct walk *w = ctx;
    (void)block;
    /* A node that is not known is read, which shows whether it is here; one that is known may have
     * been swept since. */
    if (level > 0 && !node_cache_has(w->b->cache, id))
        return MANIFEST_VISIT_GO;
    if (w->ids.count == STEP_IDS)
        return MANIFEST_VISIT_STOP;
    w->is_node[w->ids.count] = level > 0;
    chunk_ids_add(&w->ids, id);
    return MANIFEST_VISIT_GO;
}

static uint64_t block_bytes(const struct walk *w, size_t idx)
{
    return w->is_node[idx] ? 0 : MIN(w->m.block_bytes, w->m.size);
}

/* Of what the index has said: LOOK counts what is not here, the others keep it to ask for it. */
static void has_done(struct store_has *has, int rc)
{
    struct walk *w = CONTAINER_OF(has, struct walk, has);
    size_t kept = 0;
    w->asking = false;
    w->rc = w->rc != 0 ? w->rc : rc;
    for (size_t i = 0; i < w->ids.count && rc == 0; i++) {
        if (w->present[i])
            continue;
        w->lacks = true;
        w->left += block_bytes(w, i);
        w->is_node[kept] = w->is_node[i];
        w->ids.at[kept++] = w->ids.at[i];
    }
    w->ids.count = w->kind == WALK_LOOK ? 0 : kept;
    w->at = 0;
    kick(w->b);
}

/* The next part of the manifest, and the question what of it is here. */
static void walk_step(struct walk *w)
{
    chunk_ids_clear(&w->ids);
    w->at = 0;
    int rc = manifest_walk(w->b->cache, &w->m, &w->cursor, 1, visit, w, &w->missing);
    if (rc == ERR_AGAIN)
        ASSERT(w->missing.count > 0);
    w->wants_top = rc == ERR_AGAIN;
    w->ended = rc == 0 && w->cursor >= manifest_blocks(&w->m);
    if (rc != 0 && rc != ERR_AGAIN)
        w->rc = rc;
    if (w->rc != 0 || w->ids.count == 0)
        return;
    w->has = (struct store_has){
        .ids = w->ids.at, .count = (uint32_t)w->ids.count, .present = w->present, .done = has_done};
    w->rc = front_has(w->b->n->front, &w->has);
    w->asking = w->rc == 0;
}

static int top_keep(struct walk *w, const struct chunk_id *id, const struct buf *sealed)
{
    struct buf plain = {0};
    int rc = chunk_open(w->b->pipeline, id, buf_slice(sealed), &plain);
    if (rc == 0)
        rc = node_cache_put(w->b->cache, id, buf_slice(&plain));
    buf_deinit(&plain);
    return rc;
}

static void top_got(void *ctx, int rc, struct buf *sealed)
{
    struct walk *w = ctx;
    w->asking = false;
    if (rc == 0)
        rc = top_keep(w, &w->missing.at[0], sealed);
    w->rc = w->rc != 0 ? w->rc : rc;
    kick(w->b);
}

static void top_read(void *ctx, int rc, struct buf *sealed)
{
    struct walk *w = ctx;
    if (rc != ERR_NOT_FOUND && rc != ERR_CORRUPT) {
        top_got(w, rc, sealed);
    } else if (w->kind != WALK_LOOK) {
        node_chunk_bring(w->b->n, w->missing.at[0].b, top_got, w);
    } else { /* what is below it is not known */
        uint64_t done = w->cursor * w->m.block_bytes;
        w->asking = false;
        w->lacks = w->ended = true;
        w->left += w->m.size - MIN(done, w->m.size);
        kick(w->b);
    }
}

static void top_start(struct walk *w)
{
    w->wants_top = false;
    w->asking = true;
    node_chunk_get_local(w->b->n, w->missing.at[0].b, top_read, w);
}

/* ---- walks: fetching ---- */

struct chunk_way { /* a chunk on its way here */
    struct walk *w;
    uint64_t bytes;
};

static void chunk_here(void *ctx, int rc, struct buf *sealed)
{
    struct chunk_way *c = ctx;
    struct walk *w = c->w;
    (void)sealed; /* it is in the store now */
    w->open--;
    w->b->chunks -= w->kind == WALK_FETCH;
    if (rc == ERR_NOT_FOUND && w->kind == WALK_FETCH)
        w->lost = true; /* the rest may be had while there is time */
    else
        w->rc = w->rc != 0 ? w->rc : rc;
    if (rc == 0 && w->lack != NULL) {
        uint64_t bytes = MIN(c->bytes, w->lack->left);
        w->lack->left -= bytes;
        w->b->left -= bytes;
    }
    mem_free(c);
    kick(w->b);
}

static bool chunk_may_go(const struct walk *w)
{
    return w->kind == WALK_FETCH ? w->b->chunks < CHUNKS_MAX : w->open < ASKED_CHUNKS;
}

static void chunk_start(struct walk *w)
{
    struct chunk_way *c = mem_calloc(1, sizeof *c);
    c->w = w;
    c->bytes = block_bytes(w, w->at);
    w->open++;
    w->b->chunks += w->kind == WALK_FETCH;
    node_chunk_bring(w->b->n, w->ids.at[w->at++].b, chunk_here, c);
}

/* As far as it goes without an answer. It may be gone afterwards. */
static void walk_go(struct walk *w)
{
    while (!w->asking) {
        if (w->rc != 0 || (w->ended && w->at == w->ids.count && !w->wants_top)) {
            if (w->open == 0)
                walk_end(w);
            return;
        }
        if (w->at < w->ids.count) {
            if (!chunk_may_go(w))
                return;
            chunk_start(w);
        } else if (w->wants_top) {
            top_start(w);
        } else {
            walk_step(w);
        }
    }
}

/* ---- what to look at ---- */

static void change_add(struct bring *b, struct oid oid)
{
    struct change *c = mem_calloc(1, sizeof *c);
    c->oid = oid;
    *b->tail = c;
    b->tail = &c->next;
    b->queued++;
}

static struct oid change_take(struct bring *b)
{
    struct change *c = b->head;
    struct oid oid = c->oid;
    b->head = c->next;
    if (b->head == NULL)
        b->tail = &b->head;
    b->queued--;
    mem_free(c);
    return oid;
}

static bool pass_take(void *ctx, struct oid oid, const struct content *c)
{
    struct bring *b = ctx;
    if (c->kind == CONTENT_MANIFEST)
        change_add(b, oid);
    return true;
}

static void pass_end(struct bring *b, uint64_t rest_ns)
{
    b->passing = false;
    b->not_before_ns = loop_now_ns(b->n->loop) + rest_ns;
    buf_clear(&b->cursor);
}

/* The next few contents of a pass that is due or under way. */
static void pass_go(struct bring *b)
{
    struct node *n = b->n;
    uint64_t now = loop_now_ns(n->loop);
    if (b->due && !b->passing && now >= b->not_before_ns) {
        b->due = false;
        b->passing = true;
        b->begun_ns = now;
        b->shard = 0;
    }
    uint64_t next = b->passing ? b->slice_ns : b->due ? b->not_before_ns : now;
    if (now < next)
        loop_timer_start(n->loop, &b->timer, next);
    if (now < next || !b->passing)
        return;
    int rc = merge_contents(shard_merge(n->shards[b->shard]), &b->cursor, LOOKS_MAX, pass_take, b);
    if (rc != 0) {
        log_warn(LOG_SITE, "contents_not_looked_at", "shard=%u why=\"%s\"", b->shard, err_text(rc));
        b->due = true;
        pass_end(b, PASS_AGAIN_NS);
        return;
    }
    b->slice_ns = now + PASS_PAUSE_NS;
    b->shard += b->cursor.len == 0;
    if (b->shard == n->settings.shard_count)
        pass_end(b, PASS_REST * (now - b->begun_ns));
    kick(b);
}

/* Whether a policy was set or removed there is not remembered: that there ever was one is enough.
 */
static void look_dir(struct bring *b, struct oid dir)
{
    struct reg r;
    if (merge_reg(merge_of(b->n, dir), dir, slice_str(POLICY_XATTR), &r) == 0)
        b->due = true;
}

static void looks_start(struct bring *b)
{
    while (b->head != NULL && b->looking < LOOKS_MAX && b->known.count < LACKS_MAX) {
        struct oid oid = change_take(b);
        struct manifest m;
        if (oid_is_dir(oid)) {
            look_dir(b, oid);
        } else if (wants(b, oid, &m)) {
            struct walk *w = walk_new(b, WALK_LOOK, &m);
            w->oid = oid;
            walk_go(w);
        }
    }
    if (b->head == NULL && b->looking == 0)
        pass_go(b);
}

static void fetches_start(struct bring *b)
{
    while (b->fetching < FETCHES_MAX && b->ready.head != NULL) {
        struct lack *l = lacks_take(&b->ready);
        if (!lack_counts(b, l)) {
            lack_forget(b, l);
            continue;
        }
        struct walk *w = walk_new(b, WALK_FETCH, &l->m);
        w->oid = l->oid;
        w->lack = l;
        walk_go(w);
    }
}

static void step(struct loop_defer *d)
{
    struct bring *b = CONTAINER_OF(d, struct bring, step);
    b->policy_known = false; /* the state may have changed since */
    for (struct walk *w = b->first, *next; w != NULL; w = next) {
        next = w->next;
        walk_go(w);
    }
    if (!may_run(b->n))
        return;
    fetches_start(b);
    looks_start(b);
}

static void timer_fire(struct loop_timer *t)
{
    kick(CONTAINER_OF(t, struct bring, timer));
}

/* ---- what makes it due ---- */

void node_bring_look(struct node *n, struct oid oid)
{
    struct bring *b = n->bring;
    if (b == NULL || n->member_count < 2)
        return;
    if (b->queued >= QUEUE_MAX)
        b->due = true;
    else
        change_add(b, oid);
    kick(b);
}

void node_bring_again(struct node *n)
{
    if (n->bring == NULL)
        return;
    n->bring->due = true;
    kick(n->bring);
}

static void later_ready(struct bring *b, struct lack *l)
{
    lacks_put(&b->ready, l);
    kick(b);
}

struct link_up {
    struct loop_msg msg;
    struct node *n;
};

static void link_up_run(struct loop_msg *msg)
{
    struct link_up *u = CONTAINER_OF(msg, struct link_up, msg);
    struct bring *b = u->n->bring;
    struct lack *l;
    if (b != NULL)
        b->links++;
    while (b != NULL && (l = lacks_take(&b->later)) != NULL) {
        l->fails = MIN(l->fails, 1u); /* said once */
        later_ready(b, l);
    }
    mem_free(u);
}

void node_link_up(struct node *n)
{
    struct link_up *u = mem_calloc(1, sizeof *u);
    u->msg.run = link_up_run;
    u->n = n;
    loop_post(n->loop, &u->msg);
}

/* Lacks whose time has come; of the others, some that nobody wants any more. */
void node_bring_tick(struct node *n)
{
    struct bring *b = n->bring;
    if (b == NULL || !may_run(n))
        return;
    uint64_t now = loop_now_ns(n->loop);
    b->policy_known = false;
    for (uint32_t i = 0, count = MIN(b->later.count, LATER_PER_TICK); i < count; i++) {
        struct lack *l = lacks_take(&b->later);
        if (now >= l->retry_ns)
            later_ready(b, l);
        else if (i < WANTED_PER_TICK && !lack_counts(b, l))
            lack_forget(b, l);
        else
            lacks_put(&b->later, l);
    }
    if (b->due || b->passing || b->head != NULL) /* it may not have been allowed before */
        kick(b);
}

/* ---- from outside ---- */

void node_lacks(const struct node *n, struct node_lacks *ret)
{
    const struct bring *b = n->bring;
    *ret = (struct node_lacks){.known = n->member_count < 2 && !n->needs_snapshot};
    if (b == NULL)
        return;
    ret->contents = b->known.count;
    ret->bytes = b->left;
    ret->known =
        ret->known || (may_run(n) && !b->due && !b->passing && b->head == NULL && b->looking == 0);
}

bool node_content_lost(const struct node *n, struct oid oid, const struct manifest *m)
{
    struct chunk_id key = lack_key(oid, m);
    const uint64_t *known = n->bring == NULL ? NULL : id_map_get(&n->bring->known, &key);
    return known != NULL && *known == KNOWN_LOST;
}

void node_bring(struct node *n,
                const struct content *content,
                void (*done)(void *ctx, int rc),
                void *ctx)
{
    struct manifest m = {.root = chunk_id_of(content->root),
                         .size = content->size,
                         .block_bytes = content->block_bytes};
    bool whole = content->kind != CONTENT_MANIFEST || chunk_id_is_hole(&m.root);
    int rc = whole ? 0 : manifest_validate(&m);
    if (whole || rc != 0 || n->bring == NULL) {
        done(ctx, !whole && rc == 0 ? ERR_CLOSED : rc);
        return;
    }
    struct walk *w = walk_new(n->bring, WALK_ASKED, &m);
    w->done = done;
    w->ctx = ctx;
    kick(n->bring);
}

void admin_contents(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    struct node_lacks l;
    (void)in;
    node_lacks(n, &l);
    admin_reply_json(cb, ctx,
                     json_pack("{s:b,s:I,s:I}", "known", (int)l.known, "awaited_contents",
                               (json_int_t)l.contents, "awaited_bytes", (json_int_t)l.bytes));
}

int node_bring_open(struct node *n)
{
    struct bring *b = mem_calloc(1, sizeof *b);
    b->n = n;
    b->tail = &b->head;
    b->ready.tail = &b->ready.head;
    b->later.tail = &b->later.head;
    b->step.run = step;
    b->timer.fire = timer_fire;
    b->due = true;
    n->bring = b;
    int rc = pipeline_new(&b->pipeline, &n->keys, CHUNK_CIPHER_AUTO);
    return rc == 0 ? node_cache_new(&b->cache) : rc;
}

/* No answer is awaited any more. */
void node_bring_close(struct node *n)
{
    struct bring *b = n->bring;
    struct lack *l;
    if (b == NULL)
        return;
    while (b->first != NULL) {
        b->first->rc = ERR_CLOSED;
        walk_end(b->first);
    }
    loop_undefer(n->loop, &b->step);
    loop_timer_stop(n->loop, &b->timer);
    n->bring = NULL;
    while (b->head != NULL)
        (void)change_take(b);
    while ((l = lacks_take(&b->ready)) != NULL || (l = lacks_take(&b->later)) != NULL)
        lack_forget(b, l);
    id_map_deinit(&b->known);
    node_cache_free(b->cache);
    pipeline_free(b->pipeline);
    buf_deinit(&b->cursor);
    mem_free(b);
}
