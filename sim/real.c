/* Sequences of calls. See real.h.
 *
 * A kind is a function that fills in the call of the step it is at; false: the sequence is over,
 * and the next one begins with the next call. An answer moves on by one step; one that was not
 * expected ends the sequence. Whatever is still open then is closed before another begins. */
#include "sim/real.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "sim/mount.h"
#include "sim/workload_int.h"
#include "site/call.h"

#define FILES 6u                   /* of a sequence that goes over several */
#define LETTERS 8u                 /* names of mail */
#define LOG_BYTES 2000u            /* then it is rotated */
#define LINE_BYTES 100u            /* of a log, at most */
#define SHARED_PER_MILLION 150000u /* of sequences, in worlds without a directory to live in */

static const struct oid none;

/* --- names --- */

static struct slice name_of(struct mount *m, int which, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static struct slice name_of(struct mount *m, int which, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf((char *)m->name[which], sizeof m->name[which], fmt, args);
    va_end(args);
    ASSERT(len > 0 && (size_t)len < sizeof m->name[which]);
    return slice_of(m->name[which], (size_t)len);
}

/* The file that the sequence is about. */
static struct slice target(struct mount *m, int which)
{
    static const struct {
        const char *stem, *suffix;
    } of[WORLD_WORK_KIND_END] = {[WORLD_WORK_HOME] = {"letter", "txt"},
                                 [WORLD_WORK_BUILD] = {"part", "o"},
                                 [WORLD_WORK_TRAIN] = {"step", "ckpt"},
                                 [WORLD_WORK_RSYNC] = {"file", "dat"},
                                 [WORLD_WORK_LOG] = {"app", "log"}};
    const struct real *r = &m->real;
    if (r->among_all)
        return workload_shared_name(m, which, r->number);
    return name_of(m, which, "%s%u.%s", of[m->work->kind].stem, r->number,
                   of[m->work->kind].suffix);
}

/* Beside it, and nobody else's. */
static struct slice beside(struct mount *m, int which)
{
    return name_of(m, which, ".%u.m%u-%llu", m->real.number, m->number,
                   (unsigned long long)m->real.begun);
}

/* --- calls --- */

static void on_name(struct mount *m, enum rpc_type type, struct oid dir, struct slice name)
{
    m->type = type;
    m->req.oid = dir;
    m->req.name = name;
    if (type == RPC_UNLINK)
        workload_dooms(m, dir, name, 0);
}

static void create(struct mount *m, struct slice name)
{
    on_name(m, RPC_CREATE, m->real.dir, name);
    m->req.kind = OID_FILE;
    m->req.mode = 0600;
    m->req.flags = O_CREAT | O_EXCL | O_RDWR;
}

static void rename_to(struct mount *m, struct slice from, struct oid dir, struct slice to)
{
    on_name(m, RPC_RENAME, m->real.dir, from);
    m->req.oid2 = dir;
    m->req.name2 = to;
    workload_dooms(m, dir, to, 0);
}

static void set_attrs(struct mount *m, struct oid oid, uint32_t set)
{
    m->type = RPC_SETATTR;
    m->req.oid = oid;
    m->req.set = set;
    m->req.mode = 0640;
    m->req.mtime_ns = (int64_t)((1 + draw(m, 1000000)) * NS_PER_SEC);
}

static void list(struct mount *m)
{
    m->type = RPC_READDIR;
    m->req.oid = m->real.dir;
    m->req.count = 100;
}

/* Something of its own in an open file. */
static void fill(struct mount *m, struct oid oid)
{
    const struct mount_open *o = opens_find(m, oid);
    ASSERT(o != NULL);
    size_t len = LEDGER_HEAD_BYTES + draw(m, draw(m, 20) == 0 ? 8000 : 400);
    memset(m->content + LEDGER_HEAD_BYTES, 'a' + (int)(m->real.begun % 26),
           len - LEDGER_HEAD_BYTES);
    workload_write(m, o, len,
                   m->work->kind == WORLD_WORK_TRAIN ||
                       draw(m, 1000000) < m->work->large_per_million);
}

/* The first two steps of what is made beside its name: it is there, and has something in it. */
static bool beside_next(struct mount *m, unsigned step)
{
    if (step == 1)
        create(m, beside(m, 0));
    else if (step == 2)
        fill(m, m->real.made);
    return step == 1 || step == 2;
}

/* The first three of what replaces a file: that is looked up, then the other one is made. */
static bool replacement_next(struct mount *m)
{
    if (m->real.step != 1)
        return beside_next(m, m->real.step - 1);
    on_name(m, RPC_LOOKUP, m->real.dir, target(m, 0));
    return true;
}

/* The file under its name, or a new one. */
static void open_target(struct mount *m)
{
    if (oid_is_none(m->real.file))
        create(m, target(m, 0));
    else
        opens_open(m, m->real.file);
}

/* Done with this one: on to the next. */
static void close_and_go_on(struct mount *m, struct oid oid)
{
    opens_close(m, oid);
    m->real.number = (m->real.number + 1) % FILES;
    m->real.round++;
    m->real.step = 0;
}

/* --- home --- */

enum home {
    HOME_SAVE,
    HOME_MAIL,
    HOME_LOOK,
    HOME_TIDY
};

static bool home_save(struct mount *m)
{
    struct real *r = &m->real;
    if (replacement_next(m))
        return true;
    switch (r->step) {
    case 4:
        set_attrs(m, r->made, SET_MODE);
        return true;
    case 5: /* another program has the old one open, and does not know yet */
        if (!oid_is_none(r->file) && draw(m, 2) == 0)
            opens_open(m, r->file);
        else
            set_attrs(m, r->made, SET_MTIME);
        return true;
    case 6:
        rename_to(m, beside(m, 0), r->dir, target(m, 1));
        return true;
    case 7:
        if (!opens_has(m, r->file))
            return false;
        fill(m, r->file);
        return true;
    default:
        return false;
    }
}

static bool home_mail(struct mount *m)
{
    struct real *r = &m->real;
    if (beside_next(m, r->step))
        return true;
    if (r->step > 3)
        return false;
    rename_to(m, beside(m, 0), r->to_dir,
              name_of(m, 1, "mail%llu.m%u", (unsigned long long)r->begun % LETTERS, m->number));
    return true;
}

/* Looks through a directory; removes one of what is too much. */
static bool home_look(struct mount *m)
{
    struct real *r = &m->real;
    if (r->step == 1) {
        list(m);
        return true;
    }
    if (r->step - 2 >= r->seen_count)
        return false;
    unsigned i = r->step - 2;
    bool last = i + 1 == r->seen_count && r->seen_count == REAL_SEEN;
    bool removes = last && !oid_is_dir(r->seen[i].oid) && draw(m, 3) == 0;
    on_name(m, removes ? RPC_UNLINK : RPC_LOOKUP, r->dir, name_of(m, 0, "%s", r->seen[i].name));
    return true;
}

/* Into a folder, which may be moved as a whole. */
static bool home_tidy(struct mount *m)
{
    struct real *r = &m->real;
    struct slice folder = name_of(m, 1, "folder%u", r->number % 2);
    switch (r->step) {
    case 1:
        on_name(m, RPC_LOOKUP, r->dir, target(m, 0));
        return true;
    case 2:
        if (oid_is_none(r->file))
            return false;
        on_name(m, RPC_LOOKUP, r->dir, folder);
        return true;
    case 3:
        if (!oid_is_none(r->made)) {
            m->type = RPC_GETATTR;
            m->req.oid = r->made;
            return true;
        }
        on_name(m, RPC_MKDIR, r->dir, folder);
        m->req.mode = 0755;
        return true;
    case 4:
        rename_to(m, target(m, 0), r->made, target(m, 1));
        return true;
    case 5:
        if (draw(m, 4) > 0 || oid_equal(r->dir, r->to_dir))
            return false;
        rename_to(m, name_of(m, 0, "folder%u", r->number % 2), r->to_dir,
                  name_of(m, 1, "folder%u.m%u-%llu", r->number % 2, m->number,
                          (unsigned long long)r->begun));
        return true;
    default:
        return false;
    }
}

static bool home_next(struct mount *m)
{
    struct real *r = &m->real;
    if (r->step == 1) {
        uint64_t d = draw(m, 20);
        r->variant = d < 9 ? HOME_SAVE : d < 12 ? HOME_MAIL : d < 18 ? HOME_LOOK : HOME_TIDY;
    }
    return r->variant == HOME_SAVE   ? home_save(m)
           : r->variant == HOME_MAIL ? home_mail(m)
           : r->variant == HOME_LOOK ? home_look(m)
                                     : home_tidy(m);
}

/* --- build --- */

/* Steps 1 to 4 for each object; then the program, and perhaps `clean`. */
static bool build_object(struct mount *m)
{
    struct real *r = &m->real;
    switch (r->step) {
    case 1:
        on_name(m, RPC_LOOKUP, r->dir, target(m, 0));
        return true;
    case 2:
        open_target(m);
        return true;
    case 3:
        fill(m, oid_is_none(r->file) ? r->made : r->file);
        return true;
    default:
        close_and_go_on(m, oid_is_none(r->file) ? r->made : r->file);
        return true;
    }
}

static bool build_link(struct mount *m)
{
    struct real *r = &m->real;
    if (beside_next(m, r->step))
        return true;
    switch (r->step) {
    case 3:
        set_attrs(m, r->made, SET_MODE);
        return true;
    case 4:
        rename_to(m, beside(m, 0), r->dir, slice_str("prog"));
        return true;
    default:
        opens_close(m, r->made);
        r->round++;
        r->step = 0;
        r->variant = draw(m, 4) == 0; /* make clean */
        return true;
    }
}

static bool build_next(struct mount *m)
{
    struct real *r = &m->real;
    if (r->round < FILES)
        return build_object(m);
    if (r->round == FILES)
        return build_link(m);
    if (r->variant == 0 || r->round > 2 * FILES)
        return false;
    on_name(m, RPC_UNLINK, r->dir, target(m, 0));
    r->number = (r->number + 1) % FILES;
    r->round++;
    return true;
}

/* --- train --- */

static bool train_write(struct mount *m)
{
    struct real *r = &m->real;
    if (r->step <= 4) /* in three pieces */
        return beside_next(m, MIN(r->step, 2u));
    if (r->step > 5)
        return false;
    rename_to(m, beside(m, 0), r->dir, draw(m, 4) == 0 ? slice_str("best.ckpt") : target(m, 1));
    return true;
}

static bool train_read(struct mount *m)
{
    struct real *r = &m->real;
    switch (r->step) {
    case 1:
        list(m);
        return true;
    case 2:
        r->file = none;
        for (unsigned i = 0; i < r->seen_count; i++)
            if (oid_kind(r->seen[i].oid) == OID_FILE)
                r->file = r->seen[i].oid;
        if (oid_is_none(r->file))
            return false;
        opens_open(m, r->file);
        return true;
    case 3:
        m->type = RPC_GETATTR;
        m->req.oid = r->file;
        return true;
    default:
        return false;
    }
}

static bool train_next(struct mount *m)
{
    if (m->real.step == 1)
        m->real.variant = draw(m, 3) == 0;
    return m->real.variant == 0 ? train_write(m) : train_read(m);
}

/* --- rsync --- */

static bool rsync_file(struct mount *m)
{
    struct real *r = &m->real;
    if (replacement_next(m))
        return true;
    switch (r->step) {
    case 4:
        set_attrs(m, r->made, SET_MTIME | SET_MODE);
        return true;
    case 5:
        rename_to(m, beside(m, 0), r->dir, target(m, 1));
        return true;
    default:
        close_and_go_on(m, r->made);
        return true;
    }
}

static bool rsync_next(struct mount *m)
{
    struct real *r = &m->real;
    if (r->round < FILES)
        return rsync_file(m);
    switch (r->step) {
    case 1:
        set_attrs(m, r->dir, SET_MTIME);
        return !oid_is_root(r->dir);
    case 2:
        list(m);
        return draw(m, 3) == 0;
    case 3: /* --delete */
        for (unsigned i = 0; i < r->seen_count; i++)
            if (!oid_is_dir(r->seen[i].oid) && !r->among_all) {
                on_name(m, RPC_UNLINK, r->dir, name_of(m, 0, "%s", r->seen[i].name));
                return true;
            }
        return false;
    default:
        return false;
    }
}

/* --- log --- */

/* The content so far, in the mount's own memory; a line is added. */
static void append(struct mount *m, struct oid oid)
{
    struct real *r = &m->real;
    const struct mount_open *o = opens_find(m, oid);
    ASSERT(o != NULL);
    r->size = MAX(r->size, (size_t)LEDGER_HEAD_BYTES);
    int len = snprintf((char *)m->content + r->size, LIMIT_INLINE_BYTES - r->size,
                       "%llu m%u: something has happened, number %llu\n",
                       (unsigned long long)(sched->now_ns / NS_PER_MS), m->number,
                       (unsigned long long)m->next_number);
    ASSERT(len > 0 && r->size + (size_t)len < LIMIT_INLINE_BYTES);
    r->size += (size_t)len;
    workload_write(m, o, r->size, false);
}

static bool log_next(struct mount *m)
{
    struct real *r = &m->real;
    switch (r->step) {
    case 1:
        on_name(m, RPC_LOOKUP, r->dir, target(m, 0));
        return true;
    case 2:
        r->size = 0;
        open_target(m);
        return true;
    case 3:
        if (oid_is_none(r->file))
            r->file = r->made;
        if (r->size < LOG_BYTES) {
            append(m, r->file);
            r->step--; /* and again */
        } else {
            struct slice name = target(m, 0);
            rename_to(m, name, r->dir,
                      name_of(m, 1, "%.*s.1", (int)name.len, (const char *)name.ptr));
        }
        return true;
    case 4: /* it has not noticed yet */
        append(m, r->file);
        return true;
    case 5:
        opens_close(m, r->file);
        r->file = r->made = none;
        if (draw(m, 2) == 0)
            r->step = 1; /* another one: there is none now */
        return true;
    default:
        return false;
    }
}

/* --- the life of a sequence --- */

/* Its own directory, and those of all who live here, are made or found first. */
static bool dirs_next(struct mount *m, unsigned i)
{
    struct real *r = &m->real;
    if (!oid_is_none(r->dirs[i]))
        return false;
    m->type = r->dir_is_there[i] ? RPC_LOOKUP : RPC_MKDIR;
    m->req.oid = m->dirs[0].oid;
    m->req.name = i == 0 ? name_of(m, 0, "user%u", m->number) : name_of(m, 0, "team%u", i);
    m->req.mode = 0755;
    return true;
}

static void begin(struct mount *m)
{
    struct real *r = &m->real;
    uint32_t shared = m->work->shared_per_million;
    bool lives_in_root = m->work->dir[0] == '\0';
    r->begun++;
    r->round = r->seen_count = 0;
    r->file = r->made = none;
    r->among_all = draw(m, 1000000) < (lives_in_root ? MAX(shared, SHARED_PER_MILLION) : shared);
    r->number = (unsigned)draw(m, FILES);
    r->dir = r->among_all ? OID_ROOT : r->dirs[draw(m, 5) < 3 ? 0 : 1 + draw(m, REAL_DIRS - 1)];
    r->to_dir = r->dirs[draw(m, REAL_DIRS)];
}

static bool kind_next(struct mount *m)
{
    switch (m->work->kind) {
    case WORLD_WORK_HOME:
        return home_next(m);
    case WORLD_WORK_BUILD:
        return build_next(m);
    case WORLD_WORK_TRAIN:
        return train_next(m);
    case WORLD_WORK_RSYNC:
        return rsync_next(m);
    case WORLD_WORK_LOG:
        return log_next(m);
    case WORLD_WORK_NONE:
    case WORLD_WORK_COLLIDE:
    case WORLD_WORK_KIND_END:
        break;
    }
    UNREACHABLE();
}

void real_next(struct mount *m)
{
    struct real *r = &m->real;
    r->call = REAL_ASIDE;
    for (unsigned i = 0; r->step == 0 && i < REAL_DIRS; i++)
        if (dirs_next(m, i))
            return;
    while (r->step == 0 || !kind_next(m)) {
        r->step = 0;
        memset(&m->req, 0, sizeof m->req);
        while (m->open_count > 0)
            opens_close(m, m->open[0].oid);
        if (m->req.oid_count > 0)
            return;
        begin(m);
        r->step = 1;
    }
    r->call = REAL_STEP;
}

/* --- answers --- */

static void dirs_done(struct mount *m, const struct fs_reply *a)
{
    struct real *r = &m->real;
    unsigned i = 0;
    if (m->type == RPC_CLOSE)
        return;
    while (i < REAL_DIRS && !oid_is_none(r->dirs[i]))
        i++;
    ASSERT(i < REAL_DIRS);
    if (a->rc == 0 && a->has_attr && oid_is_dir(a->attr.oid))
        r->dirs[i] = a->attr.oid;
    else
        r->dir_is_there[i] = a->rc == ERR_EXISTS;
}

/* What it works in is gone, or not what it was. */
static void dirs_forget(struct mount *m)
{
    struct real *r = &m->real;
    for (unsigned i = 0; i < REAL_DIRS; i++)
        if (oid_equal(r->dirs[i], m->req.oid) || oid_equal(r->dirs[i], m->req.oid2)) {
            r->dirs[i] = none;
            r->dir_is_there[i] = false;
        }
}

static void seen_learn(struct mount *m, const struct fs_reply *a)
{
    struct real *r = &m->real;
    uint32_t first = a->entry_count > 0 ? (uint32_t)draw(m, a->entry_count) : 0;
    r->seen_count = 0;
    for (uint32_t i = 0; i < a->entry_count && r->seen_count < REAL_SEEN; i++) {
        const struct fs_entry *e = &a->entries[(first + i) % a->entry_count];
        if (e->name.len >= sizeof r->seen[0].name)
            continue;
        r->seen[r->seen_count].oid = e->attr.oid;
        memcpy(r->seen[r->seen_count].name, e->name.ptr, e->name.len);
        r->seen[r->seen_count++].name[e->name.len] = '\0';
    }
}

/* What a log holds now, for the next line: an answer to an open, or to a write that was too late.
 */
static void content_learn(struct mount *m, const struct content *c)
{
    struct real *r = &m->real;
    bool fits = c->kind == CONTENT_INLINE && c->bytes.len <= LIMIT_INLINE_BYTES - 2 * LINE_BYTES;
    r->size = fits ? c->bytes.len : 0;
    if (r->size > 0)
        memcpy(m->content, c->bytes.ptr, r->size);
}

/* Is that an answer with which the sequence goes on? */
static bool goes_on(const struct mount *m, const struct fs_reply *a)
{
    bool log = m->work->kind == WORLD_WORK_LOG;
    if (a->rc == ERR_NOT_FOUND)
        return m->type == RPC_LOOKUP || m->type == RPC_UNLINK;
    if (a->rc == ERR_STALE_BASE) /* another one has written: on top of that */
        return log && a->has_content;
    bool looks = m->work->kind == WORLD_WORK_HOME && m->real.variant == HOME_LOOK;
    bool folder =
        m->work->kind == WORLD_WORK_HOME && m->real.variant == HOME_TIDY && m->real.step == 2;
    if (a->rc == 0 && m->type == RPC_LOOKUP && !looks)
        return folder ? oid_is_dir(a->attr.oid) : oid_kind(a->attr.oid) == OID_FILE;
    return a->rc == 0;
}

static void learn(struct mount *m, const struct fs_reply *a)
{
    struct real *r = &m->real;
    bool log = m->work->kind == WORLD_WORK_LOG;
    bool folder = m->work->kind == WORLD_WORK_HOME && r->variant == HOME_TIDY && r->step == 2;
    if (m->type == RPC_LOOKUP)
        *(folder ? &r->made : &r->file) = a->rc == 0 ? a->attr.oid : none;
    else if (m->type == RPC_CREATE || m->type == RPC_MKDIR)
        r->made = a->attr.oid;
    else if (m->type == RPC_READDIR)
        seen_learn(m, a);
    else if (log && (m->type == RPC_OPEN || a->rc == ERR_STALE_BASE) && a->has_content)
        content_learn(m, &a->content);
}

void real_done(struct mount *m, const struct fs_reply *a)
{
    struct real *r = &m->real;
    enum real_call call = r->call;
    r->call = REAL_NOTHING;
    if (a == NULL || call == REAL_NOTHING) {
        r->step = 0;
    } else if (call == REAL_ASIDE) {
        dirs_done(m, a);
    } else if (goes_on(m, a)) {
        learn(m, a);
        r->step++;
    } else {
        r->step = 0;
        if (a->rc == ERR_NOT_FOUND || a->rc == ERR_STALE)
            dirs_forget(m);
    }
}
