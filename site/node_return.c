/* A site comes back under a new id: its files, and what happens between two starts.
 *
 *   ASKING --node_return_go--> COLLECTING --list is durable--> ADOPTING --id, no shards--> APPLYING
 *   (new id drawn)             \_________ node_return_prepare ________/   snapshot, then the list
 *
 * The phase is in DIR/return.json, replaced atomically; each step can be done again, so a crash
 * anywhere goes on where it was. COLLECTING and ADOPTING happen before the node is opened: nobody
 * can change anything between the making of the list (DIR/return.unsent) and the loss of the state
 * it was made from. In ADOPTING the id in site.conf is changed, the shards are removed, and
 * `joining` marks the site as one that waits for a snapshot; DIR/wan_boot.json says from whom. Then
 * return_apply.c carries the list out, when the cut of the old id is known and all up to it is
 * here. Until that is stored no garbage pass runs: the list's contents are in the chunk store. */
#include "site/node_return.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/plant.h"
#include "site/member_codec.h"
#include "site/return_int.h"
#include "site/settings.h"

#define PLAN_FILE "return.json"
#define LIST_FILE "return.unsent"
#define PROGRESS_FILE "return.progress"

/* ---- files ---- */

static int read_whole(const char *dir, const char *name, struct buf *ret, struct err_detail *d)
{
    char *path = mem_printf("%s/%s", dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        rc = err_from_errno(errno);
        err_detail_set(d, "cannot read %s: %s", path, strerror(errno));
    }
    while (rc == 0 && ret->len < (size_t)st.st_size) {
        buf_reserve(ret, (size_t)st.st_size - ret->len);
        ssize_t got = read(fd, ret->ptr + ret->len, (size_t)st.st_size - ret->len);
        if (got <= 0) {
            rc = got == 0 ? ERR_TRUNCATED : err_from_errno(errno);
            err_detail_set(d, "cannot read %s: %s", path, err_text(rc));
        } else {
            ret->len += (size_t)got;
        }
    }
    if (fd >= 0)
        (void)close(fd); /* only read */
    mem_free(path);
    return rc;
}

static void remove_file(const char *dir, const char *name)
{
    char *path = mem_printf("%s/%s", dir, name);
    if (unlink(path) != 0 && errno != ENOENT)
        log_warn(LOG_SITE, "file_stays", "file=%s why=\"%s\"", path, strerror(errno));
    mem_free(path);
}

static bool file_is_there(const char *dir, const char *name)
{
    char *path = mem_printf("%s/%s", dir, name);
    bool is = access(path, F_OK) == 0;
    mem_free(path);
    return is;
}

/* What was removed stays removed when power goes. */
static void sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        log_warn(LOG_SITE, "directory_not_synced", "dir=%s why=\"%s\"", dir, strerror(errno));
    if (fd >= 0)
        (void)close(fd); /* only read */
}

/* Of a list that was carried out. A list without notes of progress is one that was kept, so these
 * go when it has gone for good. */
static void files_remove(const char *dir)
{
    remove_file(dir, LIST_FILE);
    sync_dir(dir);
    remove_file(dir, PROGRESS_FILE);
    sync_dir(dir);
}

static int plan_load(const char *dir, struct return_plan *ret, struct err_detail *d)
{
    struct buf b = {0};
    *ret = (struct return_plan){.phase = RETURN_NONE};
    char *path = mem_printf("%s/" PLAN_FILE, dir);
    int rc = access(path, F_OK) != 0 ? 0 : read_whole(dir, PLAN_FILE, &b, d);
    if (rc == 0 && b.len > 0)
        rc = return_plan_parse(buf_slice(&b), ret);
    if (rc == ERR_CORRUPT)
        err_detail_set(d, "%s is damaged: the site was on its way back; ask for help", path);
    mem_free(path);
    buf_deinit(&b);
    return rc;
}

static int plan_save(const char *dir, const struct return_plan *p, struct err_detail *d)
{
    json_t *o = return_plan_json(p);
    char *text = json_dumps(o, JSON_INDENT(1));
    ASSERT(text != NULL);
    int rc = dir_file_write(dir, PLAN_FILE, text, strlen(text), d);
    free(text); /* lint-allow(memory): jansson's */
    json_decref(o);
    return rc;
}

/* ---- between two starts ---- */

static void settled(struct node_settle_wait *w)
{
    struct collecting {
        struct node_settle_wait wait;
        struct node *n;
    } *c = CONTAINER_OF(w, struct collecting, wait);
    loop_stop(c->n->loop);
}

static int collect(const struct node_config *config, bool rolled_back, struct err_detail *d)
{
    struct {
        struct node_settle_wait wait;
        struct node *n;
    } c = {.wait = {.run = settled}};
    struct unsent u = {.dirs = NULL};
    struct buf b = {0};
    int rc = node_open(&c.n, config, d);
    if (rc != 0)
        return rc;
    for (unsigned i = 0; i < c.n->settings.shard_count; i++)
        shard_resend(c.n->shards[i]);
    node_repairs_later(c.n);
    node_settled(c.n, &c.wait);
    loop_run(c.n->loop); /* until what is between the shards has arrived */
    rc = c.n->broken ? c.n->exit_rc : return_collect(c.n, rolled_back, &u);
    if (rc == 0) {
        unsent_encode(&u, &b);
        log_info(LOG_SITE, "return_collected", "names=%u files=%u directories=%u bytes=%zu",
                 u.name_count, u.file_count, u.dir_count, b.len);
        rc = dir_file_write(config->dir, LIST_FILE, b.ptr, b.len, d);
    } else {
        err_detail_set(d, "what only this site has cannot be listed: %s", err_text(rc));
    }
    buf_deinit(&b);
    unsent_deinit(&u);
    node_free(c.n);
    return rc;
}

static int adopt(const char *dir, const struct return_plan *plan, struct err_detail *d)
{
    struct site_settings s;
    int rc = site_settings_load(dir, &s, d);
    s.site = plan->after;
    if (rc == 0)
        rc = site_settings_save(dir, &s, d);
    if (rc == 0)
        rc = dir_file_write(dir, "joining", "", 0, d);
    if (rc == 0 && (rc = site_wipe(dir)) != 0)
        err_detail_set(d, "the shards in %s cannot be removed: %s", dir, err_text(rc));
    return rc;
}

int node_return_prepare(const struct node_config *config, struct err_detail *d)
{
    struct return_plan plan;
    int rc = plan_load(config->dir, &plan, d);
    if (rc == 0 && plan.phase == RETURN_COLLECTING) {
        plan.phase = RETURN_ADOPTING;
        if (PLANTED(42))
            rc = plan_save(config->dir, &plan, d);
        if (rc == 0)
            rc = collect(config, plan.rolled_back, d);
        if (rc == 0)
            rc = plan_save(config->dir, &plan, d);
    }
    if (rc == 0 && plan.phase == RETURN_ADOPTING) {
        rc = adopt(config->dir, &plan, d);
        plan.phase = RETURN_APPLYING;
        if (rc == 0)
            rc = plan_save(config->dir, &plan, d);
        if (rc == 0)
            log_info(LOG_SITE, "returns", "before=%08x after=%08x", plan.before, plan.after);
    }
    return rc;
}

/* ---- asking ---- */

static site_id_t another_id(const struct node *n, const struct return_plan *plan)
{
    site_id_t id = 0;
    while (id == 0 || id == UINT32_MAX || id == plan->before || id == n->settings.site)
        id = (site_id_t)random_u64();
    return id;
}

int node_return_id(struct node *n,
                   bool rolled_back,
                   bool another,
                   site_id_t asked,
                   site_id_t *ret_id,
                   struct err_detail *d)
{
    struct return_plan plan;
    int rc = plan_load(n->dir, &plan, d);
    if (rc != 0)
        return rc;
    if (n->returning != NULL && !n->needs_snapshot) {
        n->returning->hurries = true;
        err_detail_set(d, "what the site brought along when it came back before is carried out "
                          "first: try again when its status shows it as returning no more");
        return ERR_BUSY;
    }
    if (plan.phase == RETURN_NONE)
        plan.before = n->settings.site;
    bool asks = plan.phase == RETURN_ASKING || plan.phase == RETURN_APPLYING;
    /* Given up once more before it had anything: another id, the same list. */
    if (plan.phase == RETURN_NONE || plan.after == n->settings.site ||
        (asks && (another || (plan.asked != 0 && plan.asked != asked)))) {
        plan.after = another_id(n, &plan);
        plan.phase = plan.phase == RETURN_NONE ? RETURN_ASKING : plan.phase;
    }
    plan.asked = asked;
    plan.rolled_back = plan.rolled_back || rolled_back;
    *ret_id = plan.after;
    return plan_save(n->dir, &plan, d);
}

int node_return_go(struct node *n, struct err_detail *d)
{
    struct return_plan plan;
    int rc = plan_load(n->dir, &plan, d);
    if (rc == 0 && plan.phase != RETURN_ASKING && plan.phase != RETURN_APPLYING)
        rc = ERR_INVALID;
    plan.phase = plan.phase == RETURN_ASKING ? RETURN_COLLECTING : RETURN_ADOPTING;
    if (rc == 0)
        rc = plan_save(n->dir, &plan, d);
    if (rc != 0)
        return rc;
    n->wants_reopen = true;
    n->reopen_tick = n->tick_count + 2;
    return 0;
}

bool node_is_returning(const struct node *n)
{
    return n->returning != NULL;
}

bool node_wants_reopen(const struct node *n)
{
    return n->wants_reopen;
}

/* ---- carrying it out ---- */

static void again(struct loop_defer *d)
{
    struct returning *r = CONTAINER_OF(d, struct returning, again);
    if (!r->n->stopping && !r->n->broken)
        return_step(r);
}

int node_return_open(struct node *n, struct err_detail *d)
{
    struct return_plan plan;
    int rc = plan_load(n->dir, &plan, d);
    if (rc == 0 && plan.phase == RETURN_NONE && file_is_there(n->dir, PROGRESS_FILE))
        files_remove(n->dir); /* power went while return_finish() did */
    if (rc != 0 || plan.phase != RETURN_APPLYING)
        return rc;
    struct returning *r = mem_calloc(1, sizeof *r);
    r->n = n;
    r->plan = plan;
    r->fd = -1;
    r->again.run = again;
    n->returning = r;
    rc = read_whole(n->dir, LIST_FILE, &r->bytes, d);
    if (rc == 0 && (rc = unsent_decode(buf_slice(&r->bytes), &r->u)) != 0)
        err_detail_set(d, "%s/" LIST_FILE " cannot be used: %s", n->dir, err_text(rc));
    r->total = (uint64_t)r->u.name_count + r->u.file_count + r->u.dir_count;
    return rc;
}

void node_return_close(struct node *n)
{
    struct returning *r = n->returning;
    if (r == NULL)
        return;
    n->returning = NULL;
    if (r->fd >= 0)
        (void)close(r->fd); /* what it lacks is found out again */
    loop_undefer(n->loop, &r->again);
    unsent_deinit(&r->u);
    buf_deinit(&r->bytes);
    mem_free(r);
}

static void progress_line(struct returning *r, struct slice text)
{
    struct return_line line;
    return_line_parse(text, r->n->settings.shard_count, &line);
    if (line.has_note)
        return_note(r, &line.note);
    if (!line.is_made)
        return;
    struct unsent_file *f = line.is_dir ? NULL : unsent_file_find(&r->u, line.before);
    struct unsent_dir *d = line.is_dir ? unsent_dir_find(&r->u, line.before) : NULL;
    if (f != NULL)
        f->now = line.now;
    if (d != NULL) {
        d->now = line.now;
        d->made = true;
    }
}

/* What an earlier run has made, line by line; the last may be torn. */
static void progress_load(struct returning *r)
{
    struct buf b = {0};
    struct err_detail d;
    char *path = mem_printf("%s/" PROGRESS_FILE, r->n->dir);
    if (access(path, F_OK) == 0 && read_whole(r->n->dir, PROGRESS_FILE, &b, &d) != 0)
        log_warn(LOG_SITE, "return_progress_not_read", "why=\"%s\"", d.text);
    r->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (r->fd >= 0 && lseek(r->fd, (off_t)b.len, SEEK_SET) < 0)
        log_warn(LOG_SITE, "return_progress_not_written", "why=\"%s\"", strerror(errno));
    bool torn = b.len > 0 && b.ptr[b.len - 1] != '\n'; /* or the next line would be part of it */
    if (torn && r->fd >= 0 && write(r->fd, "\n", 1) != 1)
        log_warn(LOG_SITE, "return_progress_not_written", "why=\"%s\"", strerror(errno));
    for (size_t at = 0; at < b.len;) {
        const uint8_t *end = memchr(b.ptr + at, '\n', b.len - at);
        size_t len = end == NULL ? b.len - at : (size_t)(end - b.ptr) - at;
        progress_line(r, slice_of(b.ptr + at, len));
        at += len + 1;
    }
    mem_free(path);
    buf_deinit(&b);
}

void return_progress(struct returning *r, json_t *line)
{
    char *text = json_dumps(line, JSON_COMPACT);
    struct buf b = {0};
    ASSERT(text != NULL);
    buf_append(&b, text, strlen(text));
    buf_append(&b, "\n", 1);
    if (r->fd >= 0 && write(r->fd, b.ptr, b.len) != (ssize_t)b.len)
        log_warn(LOG_SITE, "return_progress_not_written", "why=\"%s\"", strerror(errno));
    buf_deinit(&b);
    free(text); /* lint-allow(memory): jansson's */
    json_decref(line);
}

void return_finish(struct returning *r)
{
    struct node *n = r->n;
    log_info(LOG_SITE, "returned", "items=%llu conflicts=%llu failed=%llu",
             (unsigned long long)r->done, (unsigned long long)r->conflicts,
             (unsigned long long)r->failed);
    if (r->failed > 0) { /* then it is no list that was only not removed yet */
        log_error(LOG_SITE, "return_incomplete", "items=%llu file=%s/" LIST_FILE,
                  (unsigned long long)r->failed, n->dir);
        remove_file(n->dir, PROGRESS_FILE);
    }
    remove_file(n->dir, PLAN_FILE); /* first, for good: users change what was made from now on */
    sync_dir(n->dir);
    if (r->failed == 0)
        files_remove(n->dir);
    node_return_close(n);
}

static void member_brought(void *ctx, int rc)
{
    struct node *n = ctx;
    if (n->returning != NULL)
        n->returning->bringing--;
    if (rc != 0) /* the next tick tries again */
        log_warn(LOG_SITE, "member_not_brought", "why=\"%s\"", err_text(rc));
}

/* Nobody else has heard of it: without this it could not come back itself. */
static bool unknown_bring(struct returning *r, const struct unsent_member *u)
{
    uint8_t key[MEMBER_KEY_BYTES];
    struct member m;
    member_key(REG_MEMBER, u->site, key);
    struct reg reg = {.key = slice_of(key, sizeof key), .value = u->record, .present = true};
    if (r->n->member_count == SITE_COUNT_MAX || !member_decode(&reg, &m) || PLANTED(44))
        return false;
    r->bringing++;
    node_member_bring(r->n, &m, u->why == LEAVES_REMOVED ? LEAVES_REMOVED : LEAVES_AWAY,
                      member_brought, r->n);
    return true;
}

/* An operator here has removed it, of which nobody else has heard: were this site still the one it
 * was then, all would follow that, unless one has let it back since. */
static bool removal_bring(struct returning *r, const struct unsent_member *u)
{
    struct op_builder b = {0};
    struct node *n = r->n;
    const struct node_member_cache *c = node_member_find(n, u->site);
    if (u->why != LEAVES_REMOVED || u->left.site == 0 || u->site == n->settings.site)
        return false;
    if (c->m.status != MEMBER_IS &&
        (c->m.why == LEAVES_REMOVED || stamp_cmp(c->left, u->left) >= 0))
        return false;
    log_info(LOG_SITE, "removal_brought", "name=%s site=%08x", c->m.name, u->site);
    r->bringing++;
    node_leaves_add(&b, u->site, LEAVES_REMOVED);
    node_root_propose(n, &b, member_brought, n);
    op_builder_deinit(&b);
    return true;
}

static void members_bring(struct returning *r)
{
    bool any = false;
    node_members_fresh(r->n);
    for (uint32_t i = 0; i < r->u.member_count; i++) {
        const struct unsent_member *u = &r->u.members[i];
        bool known = node_member_find(r->n, u->site) != NULL;
        any = (known ? removal_bring(r, u) : unknown_bring(r, u)) || any;
    }
    r->brought = !any;
}

void node_return_tick(struct node *n)
{
    struct returning *r = n->returning;
    if (r == NULL || n->needs_snapshot || r->issued)
        return;
    if (!r->brought && r->bringing == 0)
        members_bring(r);
    if (r->stage == STAGE_WAIT && (r->hurries || node_left(n, r->plan.before))) {
        if (!r->loaded)
            progress_load(r);
        r->loaded = true;
        r->stage = STAGE_MOVES;
    }
    return_step(r);
}

json_t *node_return_json(struct node *n)
{
    char id[12];
    const struct returning *r = n->returning;
    if (r == NULL)
        return json_null();
    (void)snprintf(id, sizeof id, "%08x", r->plan.before); /* fits */
    const char *state = n->needs_snapshot        ? "loading"
                        : r->stage == STAGE_WAIT ? "waiting"
                                                 : "applying";
    return json_pack("{s:s,s:s,s:I,s:I,s:I}", "before_id", id, "state", state, "items",
                     (json_int_t)r->total, "done", (json_int_t)r->done, "conflicts",
                     (json_int_t)r->conflicts);
}
