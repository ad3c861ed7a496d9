/* Reading directories: numbered entries to the kernel, of names that are known here or of pages
 * from the site. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "client/fuse_ops.h"

#include "base/limits.h"
#include "client/fuse_dirpos.h"

#define PAGE_ENTRIES 1024u
#define FIRST_ENTRY 2u /* numbers 0 and 1 are "." and ".." */
/* Of so many entries the attributes of one are asked for alone, rather than all of the page. */
#define ENTRIES_PER_QUESTION 64u

_Static_assert(INODE_LISTED_MAX <= PAGE_ENTRIES, "an open directory holds no more than a page");

struct dir_handle {
    pthread_mutex_t lock;
    struct inode *dir; /* referenced */
    bool copied;       /* all of the directory is in: */
    struct names_copy copy;
    struct inode **inodes; /* of the copy's; referenced; NULL: not known here */
    struct dirpos pos;
    struct conn_call page; /* else the page at hand: its reply's entries */
    bool loaded;
    uint64_t first; /* number of the page's first entry, without "." and ".." */
    uint64_t since; /* of the page or the copy */
};

/* What one request fills. */
struct listing {
    fuse_req_t req;
    struct mount *m;
    struct dir_handle *h;
    bool plus;
    char *out;
    size_t len, size;
    uint64_t *counted; /* node ids whose lookups this answer counts */
    size_t counted_count;
};

static struct dir_handle *handle(const struct fuse_file_info *fi)
{
    return (struct dir_handle *)(uintptr_t)fi->fh;
}

void op_opendir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
    struct mount *m = op_begin(req);
    struct inode *i = op_inode(req, m, id);
    if (i == NULL)
        return;
    struct dir_handle *h = mem_calloc(1, sizeof *h);
    pthread_mutex_init(&h->lock, NULL);
    h->dir = i;
    fi->fh = (uint64_t)(uintptr_t)h;
    conn_thread_interrupt(NULL, NULL);
    (void)fuse_reply_open(req, fi); /* not taken: the kernel releases it */
}

static void page_drop(struct dir_handle *h)
{
    if (h->loaded)
        conn_call_deinit(&h->page);
    h->loaded = false;
}

static void copy_drop(struct mount *m, struct dir_handle *h)
{
    if (h->inodes != NULL)
        inode_unref_each(m->inodes, h->inodes, h->copy.count);
    mem_free(h->inodes);
    h->inodes = NULL;
    names_copy_deinit(&h->copy);
    h->copied = false;
}

/* True: all attributes are known, after asking for a few. Which are not any more is often chance:
 * hits of the clock on other objects. */
static bool copy_attrs(struct mount *m, const struct dir_handle *h)
{
    struct fs_attr a;
    uint32_t unknown = 0, most = 1 + h->copy.count / ENTRIES_PER_QUESTION;
    for (uint32_t k = 0; k < h->copy.count; k++) {
        if (h->inodes[k] == NULL)
            return false;
        unknown += !inode_attr_load(h->inodes[k], &m->clock, &a);
    }
    for (uint32_t k = 0; k < h->copy.count && unknown > 0 && unknown <= most; k++)
        if (!inode_attr_load(h->inodes[k], &m->clock, &a) && op_attr(m, h->inodes[k], &a) != 0)
            return false; /* the site says more about it */
    return unknown <= most;
}

/* The directory as this mount knows it. `plus`: with the attributes, since the kernel would ask for
 * each that is missing. */
static void copy_take(struct mount *m, struct dir_handle *h, bool plus)
{
    if (!inode_name_all(m->inodes, h->dir, &m->clock, &h->copy, &h->since))
        return;
    h->inodes = mem_calloc(h->copy.count + 1, sizeof(struct inode *));
    inode_table_find_each(m->inodes, h->copy.oids, h->copy.count, h->inodes);
    h->copied = true;
    if (plus && !copy_attrs(m, h))
        copy_drop(m, h);
}

void op_releasedir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
    struct mount *m = op_begin(req);
    struct dir_handle *h = handle(fi);
    (void)id;
    page_drop(h);
    copy_drop(m, h);
    dirpos_deinit(&h->pos);
    pthread_mutex_destroy(&h->lock);
    op_unref(m, h->dir);
    mem_free(h);
    op_reply(req, 0);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t id, int datasync, struct fuse_file_info *fi)
{
    struct mount *m = op_begin(req);
    (void)id;
    (void)datasync;
    op_reply(req, op_simple(m, RPC_SYNC, handle(fi)->dir->oid));
}

/* Makes the page that holds entry `number`, or lies before it, the one at hand. */
static int page_load(struct mount *m, struct dir_handle *h, uint64_t number)
{
    uint64_t first;
    const char *after = dirpos_find(&h->pos, number, &first);
    page_drop(h);
    conn_call_init(&h->page, RPC_READDIR);
    h->loaded = true;
    h->first = first;
    h->since = inode_clock_now(&m->clock);
    h->page.req.oid = h->dir->oid;
    h->page.req.name = op_name(after);
    h->page.req.count = PAGE_ENTRIES;
    int rc = conn_call_run(m->conn, &h->page);
    if (rc != 0) {
        page_drop(h);
        return rc;
    }
    uint32_t n = h->page.reply.entry_count;
    if (first == 0 && !h->page.reply.more)
        inode_names_known(m->inodes, h->dir, h->since, h->page.reply.entries, n);
    if (n > 0)
        dirpos_add(&h->pos, first, n, h->page.reply.entries[n - 1].name);
    return 0;
}

/* Entry `number`; NULL: the end, or *ret_rc. */
static const struct fs_entry *
entry_at(struct mount *m, struct dir_handle *h, uint64_t number, int *ret_rc)
{
    for (;;) {
        if (h->loaded && number >= h->first) {
            uint64_t in = number - h->first;
            if (in < h->page.reply.entry_count)
                return &h->page.reply.entries[in];
            if (!h->page.reply.more || h->page.reply.entry_count == 0)
                return NULL;
        }
        uint64_t before = h->first, first;
        (void)dirpos_find(&h->pos, number, &first);
        if (h->loaded && first == before)
            return NULL; /* a number that was never handed out */
        *ret_rc = page_load(m, h, number);
        if (*ret_rc != 0)
            return NULL;
    }
}

/* True when the page's entries may become the kernel's: no name changed since it was read. */
static bool page_fresh(struct mount *m, struct dir_handle *h)
{
    pthread_mutex_lock(&h->dir->known->lock);
    bool fresh = h->dir->known->attr_min <= h->since;
    pthread_mutex_unlock(&h->dir->known->lock);
    return fresh && inode_clock_fresh(&m->clock, h->dir->oid, h->since);
}

static mode_t type_of(struct oid oid)
{
    static const mode_t types[OID_KIND_COUNT] = {
        [OID_FILE] = S_IFREG, [OID_DIR] = S_IFDIR,     [OID_SYMLINK] = S_IFLNK,
        [OID_FIFO] = S_IFIFO, [OID_SOCKET] = S_IFSOCK, [OID_CHAR] = S_IFCHR,
        [OID_BLOCK] = S_IFBLK};
    enum oid_kind kind = oid_kind(oid);
    return kind < OID_KIND_COUNT ? types[kind] : 0;
}

/* False: no room left. */
static bool add_plain(struct listing *l, const char *name, uint64_t ino, mode_t type, off_t next)
{
    size_t room = l->size - l->len, need;
    struct stat st = {.st_ino = ino, .st_mode = type};
    if (l->plus) {
        struct fuse_entry_param e = {.attr = st}; /* ino 0: a name, nothing to remember */
        need = fuse_add_direntry_plus(l->req, l->out + l->len, room, name, &e, next);
    } else {
        need = fuse_add_direntry(l->req, l->out + l->len, room, name, &st, next);
    }
    if (need > room)
        return false;
    l->len += need;
    return true;
}

/* With all that the kernel may know of it. */
static bool add_whole(struct listing *l, const char *name, const struct fs_attr *a, off_t next)
{
    size_t room = l->size - l->len;
    if (fuse_add_direntry_plus(l->req, NULL, 0, name, NULL, 0) > room)
        return false;
    struct fuse_entry_param p;
    struct op_entry how = {.parent = l->h->dir, .since = l->h->since};
    struct inode *i = op_enter(l->m, a, &how, 1, &p);
    l->len += fuse_add_direntry_plus(l->req, l->out + l->len, room, name, &p, next);
    l->counted[l->counted_count++] = i->id;
    op_unref(l->m, i);
    return true;
}

static bool add_entry(struct listing *l, const struct fs_entry *e, off_t next)
{
    char name[LIMIT_NAME_BYTES + 1];
    size_t len = MIN(e->name.len, LIMIT_NAME_BYTES);
    memcpy(name, e->name.ptr, len);
    name[len] = '\0';
    if (l->plus && e->has_attr && page_fresh(l->m, l->h))
        return add_whole(l, name, &e->attr, next);
    struct inode *known = inode_table_find(l->m->inodes, e->attr.oid);
    uint64_t ino = known != NULL ? known->id : e->attr.ino;
    op_unref(l->m, known);
    return add_plain(l, name, ino, type_of(e->attr.oid), next);
}

static bool add_copied(struct listing *l, uint64_t number, off_t next)
{
    const struct dir_handle *h = l->h;
    const char *name = h->copy.names[number];
    struct oid oid = h->copy.oids[number];
    struct inode *i = h->inodes[number];
    struct fs_attr a;
    if (l->plus && i != NULL && page_fresh(l->m, l->h) && inode_attr_load(i, &l->m->clock, &a))
        return add_whole(l, name, &a, next);
    return add_plain(l, name, i != NULL ? i->id : oid_ino(oid), type_of(oid), next);
}

static int list(struct listing *l, uint64_t offset)
{
    struct dir_handle *h = l->h;
    int rc = 0;
    if (offset == 0) { /* from the start, as it is now */
        page_drop(h);
        copy_drop(l->m, h);
        dirpos_clear(&h->pos);
        copy_take(l->m, h, l->plus);
    }
    for (;; offset++) {
        off_t next = (off_t)offset + 1;
        bool added;
        if (offset == 0) {
            added = add_plain(l, ".", h->dir->id, S_IFDIR, next);
        } else if (offset == 1) {
            pthread_mutex_lock(&h->dir->known->lock);
            uint64_t up = h->dir->parent_id != 0 ? h->dir->parent_id : h->dir->id;
            pthread_mutex_unlock(&h->dir->known->lock);
            added = add_plain(l, "..", up, S_IFDIR, next);
        } else if (h->copied) {
            if (offset - FIRST_ENTRY >= h->copy.count)
                return 0;
            added = add_copied(l, offset - FIRST_ENTRY, next);
        } else {
            const struct fs_entry *e = entry_at(l->m, h, offset - FIRST_ENTRY, &rc);
            if (e == NULL)
                return l->len > 0 ? 0 : rc;
            added = add_entry(l, e, next);
        }
        if (!added)
            return 0;
    }
}

static void
read_dir(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi, bool plus)
{
    struct mount *m = op_begin(req);
    struct dir_handle *h = handle(fi);
    struct listing l = {.req = req, .m = m, .h = h, .plus = plus, .size = size};
    l.out = mem_alloc(size);
    l.counted = mem_calloc(size / sizeof(struct dirent) + size / 128 + 1, sizeof *l.counted);
    pthread_mutex_lock(&h->lock);
    int rc = list(&l, (uint64_t)offset);
    pthread_mutex_unlock(&h->lock);
    if (rc != 0) {
        op_reply(req, rc);
    } else {
        conn_thread_interrupt(NULL, NULL);
        if (fuse_reply_buf(req, l.out, l.len) != 0) /* the kernel did not take it */
            for (size_t i = 0; i < l.counted_count; i++)
                inode_table_forget(m->inodes, l.counted[i], 1);
    }
    mem_free(l.counted);
    mem_free(l.out);
}

void op_readdir(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi)
{
    (void)id;
    read_dir(req, size, offset, fi, false);
}

void op_readdirplus(
    fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi)
{
    (void)id;
    read_dir(req, size, offset, fi, true);
}
