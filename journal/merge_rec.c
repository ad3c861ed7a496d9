/* Records of the engine to bytes and back. Each begins with a byte of flags; reserved flags are
 * refused. Decoded slices borrow from the input, arrays live in the arena. */
#include "journal/merge_int.h"

#include <endian.h>

enum {
    FILE_BORN = 1,
    FILE_OWED = 2,
    FILE_LAST = 4,
    FILE_PERM = 8,
    FILE_ATIME = 16,
    FILE_MTIME = 32,
    FILE_QUEUED = 64,
    FILE_EARLY = 128,

    DIR_BIRTH = 1,
    DIR_OWED = 2,
    DIR_MOVED = 4,
    DIR_PERM = 8,
    DIR_ATIME = 16,
    DIR_DEATH = 32,
    DIR_QUEUED = 64,
    DIR_FLAGS = 127,

    PLACED_HERE = 1,
    LWW_PRESENT = 1
};

/* Writers into a buffer that has room already: each encoder reserves what it may need, once. */
static inline void put_u8(struct buf *b, uint8_t v)
{
    b->ptr[b->len++] = v;
}

static inline void put_raw(struct buf *b, const void *ptr, size_t len)
{
    if (len > 0)
        memcpy(b->ptr + b->len, ptr, len);
    b->len += len;
}

static inline void put_u16(struct buf *b, uint16_t v)
{
    v = htole16(v);
    put_raw(b, &v, sizeof v);
}

static inline void put_u32(struct buf *b, uint32_t v)
{
    v = htole32(v);
    put_raw(b, &v, sizeof v);
}

static inline void put_u64(struct buf *b, uint64_t v)
{
    v = htole64(v);
    put_raw(b, &v, sizeof v);
}

static inline void put_varint(struct buf *b, uint64_t v)
{
    while (v >= 0x80) {
        b->ptr[b->len++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    b->ptr[b->len++] = (uint8_t)v;
}

static inline void put_bytes(struct buf *b, struct slice s)
{
    put_varint(b, s.len);
    put_raw(b, s.ptr, s.len);
}

static inline void put_oid(struct buf *b, struct oid o)
{
    put_raw(b, o.b, sizeof o.b);
}

static inline void put_dot(struct buf *b, struct dot d)
{
    put_varint(b, d.shard);
    put_varint(b, d.site);
    put_varint(b, d.seq);
}

static inline void put_stamp(struct buf *b, struct stamp s)
{
    put_u64(b, s.hlc);
    put_u32(b, s.site);
}

enum {
    /* More than any field or small group of fields takes, without names and values. */
    ROOM_FIELDS = 512,
    ROOM_NAME = LIMIT_NAME_BYTES + 2,
    ROOM_DOT = 24,
    ROOM_VERSION = ROOM_DOT + 12 + 8 + 80,
    ROOM_ENTRY = ROOM_DOT + 16 + 12
};

static int finish(const struct dec *d)
{
    return dec_end(d) == 0 ? 0 : ERR_CORRUPT;
}

/* A count whose elements take at least min_bytes each. */
static uint32_t dec_count(struct dec *d, size_t min_bytes)
{
    uint64_t count = dec_varint(d);
    if (count <= dec_left(d) / min_bytes)
        return (uint32_t)count;
    dec_fail(d, ERR_TRUNCATED);
    return 0;
}

static void put_when(struct buf *b, const struct when *w)
{
    put_stamp(b, w->stamp);
    put_u64(b, (uint64_t)w->ns);
}

static struct when dec_when(struct dec *d)
{
    struct when w = {.stamp = dec_stamp(d)};
    w.ns = (int64_t)dec_u64(d);
    return w;
}

static void put_dots(struct buf *b, const struct dots *s)
{
    put_varint(b, s->count);
    for (uint32_t i = 0; i < s->count; i++)
        put_dot(b, s->at[i]);
}

static struct dots dec_dots(struct dec *d, struct op_arena *a)
{
    struct dots s = {.count = dec_count(d, 3)};
    if (s.count == 0)
        return s;
    struct dot *at = op_alloc(a, s.count * sizeof *at);
    for (uint32_t i = 0; i < s.count; i++)
        at[i] = dec_dot(d);
    s.at = at;
    return s;
}

static void put_content(struct buf *b, const struct content *c)
{
    put_u8(b, (uint8_t)c->kind);
    put_varint(b, c->size);
    if (c->kind == CONTENT_INLINE) {
        put_bytes(b, c->bytes);
        return;
    }
    put_u32(b, c->block_bytes);
    put_raw(b, c->root, sizeof c->root);
    put_varint(b, c->data_blocks);
}

static struct content dec_content(struct dec *d)
{
    struct content c = {.kind = CONTENT_INLINE};
    uint8_t kind = dec_u8(d);
    c.size = dec_varint(d);
    if (kind == CONTENT_INLINE) {
        c.bytes = dec_bytes(d, LIMIT_INLINE_BYTES);
    } else {
        c.kind = (enum content_kind)kind;
        c.block_bytes = dec_u32(d);
        dec_raw(d, c.root, sizeof c.root);
        c.data_blocks = dec_varint(d);
    }
    if (!content_valid(&c))
        dec_fail(d, ERR_MALFORMED);
    return c;
}

void content_encode(const struct content *c, struct buf *out)
{
    buf_reserve(out, ROOM_FIELDS + c->bytes.len);
    put_content(out, c);
}

struct content content_decode(struct dec *d)
{
    return dec_content(d);
}

static void put_lww(struct buf *b, const struct lww *r)
{
    put_stamp(b, r->stamp);
    put_u8(b, r->present ? LWW_PRESENT : 0);
    put_bytes(b, r->value);
}

static struct lww dec_lww(struct dec *d)
{
    struct lww r = {.stamp = dec_stamp(d)};
    uint8_t flags = dec_u8(d);
    r.present = flags == LWW_PRESENT;
    r.value = dec_bytes(d, LIMIT_OP_BYTES);
    if (flags > LWW_PRESENT)
        dec_fail(d, ERR_MALFORMED);
    return r;
}

/* ---- files ---- */

static uint8_t file_flags(const struct file_rec *f)
{
    unsigned flags = 0;
    flags |= f->born ? FILE_BORN : 0;
    flags |= f->owed ? FILE_OWED : 0;
    flags |= stamp_is_none(f->last_stamp) ? 0 : FILE_LAST;
    flags |= stamp_is_none(f->perm.stamp) ? 0 : FILE_PERM;
    flags |= stamp_is_none(f->atime.stamp) ? 0 : FILE_ATIME;
    flags |= stamp_is_none(f->mtime.stamp) ? 0 : FILE_MTIME;
    flags |= f->queued ? FILE_QUEUED : 0;
    flags |= f->early.count > 0 ? FILE_EARLY : 0;
    return (uint8_t)flags;
}

static size_t file_room(const struct file_rec *f)
{
    size_t room = ROOM_FIELDS + 2 * ROOM_NAME + f->perm.value.len;
    room += (size_t)(f->seen.count + f->early.count) * ROOM_DOT;
    room += (size_t)f->ver_count * ROOM_VERSION;
    for (uint32_t i = 0; i < f->ver_count; i++)
        room += f->vers[i].content.bytes.len;
    for (uint32_t i = 0; i < f->ref_count; i++)
        room += ROOM_DOT + 16 + 4 + f->refs[i].name.len;
    return room;
}

void file_encode(const struct file_rec *f, struct buf *out)
{
    uint8_t flags = file_flags(f);
    buf_reserve(out, file_room(f));
    put_u8(out, flags);
    put_when(out, &f->ctime);
    put_when(out, &f->btime);
    put_varint(out, f->ver_count);
    for (uint32_t i = 0; i < f->ver_count; i++) {
        put_dot(out, f->vers[i].dot);
        put_stamp(out, f->vers[i].stamp);
        put_u64(out, (uint64_t)f->vers[i].mtime_ns);
        put_content(out, &f->vers[i].content);
    }
    put_dots(out, &f->seen);
    put_varint(out, f->ref_count);
    for (uint32_t i = 0; i < f->ref_count; i++) {
        put_dot(out, f->refs[i].dot);
        put_oid(out, f->refs[i].parent);
        put_bytes(out, f->refs[i].name);
    }
    if (flags & FILE_LAST) {
        put_stamp(out, f->last_stamp);
        put_oid(out, f->last_parent);
        put_bytes(out, f->last_name);
    }
    if (flags & FILE_PERM)
        put_lww(out, &f->perm);
    if (flags & FILE_ATIME)
        put_when(out, &f->atime);
    if (flags & FILE_MTIME)
        put_when(out, &f->mtime);
    if (flags & FILE_EARLY)
        put_dots(out, &f->early);
}

static void file_decode_arrays(struct dec *d, struct op_arena *a, struct file_rec *f)
{
    f->ver_count = f->ver_cap = dec_count(d, 3 + 12 + 8 + 3);
    f->vers = op_alloc(a, f->ver_count * sizeof *f->vers);
    for (uint32_t i = 0; i < f->ver_count; i++) {
        f->vers[i].dot = dec_dot(d);
        f->vers[i].stamp = dec_stamp(d);
        f->vers[i].mtime_ns = (int64_t)dec_u64(d);
        f->vers[i].content = dec_content(d);
    }
    f->seen = dec_dots(d, a);
    f->ref_count = f->ref_cap = dec_count(d, 3 + 16 + 1);
    f->refs = op_alloc(a, f->ref_count * sizeof *f->refs);
    for (uint32_t i = 0; i < f->ref_count; i++) {
        f->refs[i].dot = dec_dot(d);
        f->refs[i].parent = dec_oid(d);
        f->refs[i].name = dec_bytes(d, LIMIT_NAME_BYTES);
    }
}

int file_decode(struct slice s, struct op_arena *a, struct file_rec *ret)
{
    struct dec d = dec_of(s);
    struct file_rec f = {.oid = ret->oid, .known = true};
    uint8_t flags = dec_u8(&d);
    f.born = flags & FILE_BORN;
    f.owed = flags & FILE_OWED;
    f.queued = flags & FILE_QUEUED;
    f.ctime = dec_when(&d);
    f.btime = dec_when(&d);
    file_decode_arrays(&d, a, &f);
    if (flags & FILE_LAST) {
        f.last_stamp = dec_stamp(&d);
        f.last_parent = dec_oid(&d);
        f.last_name = dec_bytes(&d, LIMIT_NAME_BYTES);
    }
    if (flags & FILE_PERM)
        f.perm = dec_lww(&d);
    if (flags & FILE_ATIME)
        f.atime = dec_when(&d);
    if (flags & FILE_MTIME)
        f.mtime = dec_when(&d);
    if (flags & FILE_EARLY)
        f.early = dec_dots(&d, a);
    int rc = finish(&d);
    if (rc == 0)
        *ret = f;
    return rc;
}

/* ---- directories ---- */

static void put_birth(struct buf *out, const struct birth *b)
{
    put_oid(out, b->parent);
    put_bytes(out, b->name);
    put_varint(out, b->gen);
    put_varint(out, b->uid);
    put_varint(out, b->gid);
    put_u16(out, b->mode);
}

void birth_encode(const struct birth *b, struct buf *out)
{
    buf_reserve(out, ROOM_FIELDS + ROOM_NAME);
    put_birth(out, b);
}

static struct birth dec_birth(struct dec *d, struct oid oid)
{
    struct birth b = {.oid = oid, .parent = dec_oid(d)};
    b.name = dec_bytes(d, LIMIT_NAME_BYTES);
    b.gen = (uint32_t)dec_varint(d);
    b.uid = (uint32_t)dec_varint(d);
    b.gid = (uint32_t)dec_varint(d);
    b.mode = dec_u16(d);
    return b;
}

int birth_decode(struct slice s, struct birth *ret)
{
    struct dec d = dec_of(s);
    struct birth b = dec_birth(&d, ret->oid);
    int rc = finish(&d);
    if (rc == 0)
        *ret = b;
    return rc;
}

static void put_position(struct buf *b, const struct position *p)
{
    put_oid(b, p->parent);
    put_bytes(b, p->name);
    put_stamp(b, p->stamp);
    put_u64(b, (uint64_t)p->ns);
}

static struct position dec_position(struct dec *d)
{
    struct position p = {.parent = dec_oid(d)};
    p.name = dec_bytes(d, LIMIT_NAME_BYTES);
    p.stamp = dec_stamp(d);
    p.ns = (int64_t)dec_u64(d);
    return p;
}

void position_encode(const struct position *p, struct buf *out)
{
    buf_reserve(out, ROOM_FIELDS + ROOM_NAME);
    put_position(out, p);
}

int position_decode(struct slice s, struct position *ret)
{
    struct dec d = dec_of(s);
    struct position p = dec_position(&d);
    int rc = finish(&d);
    if (rc == 0)
        *ret = p;
    return rc;
}

static uint8_t dir_flags(const struct dir_rec *d)
{
    unsigned flags = 0;
    flags |= d->has_birth ? DIR_BIRTH : 0;
    flags |= d->owed ? DIR_OWED : 0;
    flags |= d->has_moved ? DIR_MOVED : 0;
    flags |= stamp_is_none(d->perm.stamp) ? 0 : DIR_PERM;
    flags |= stamp_is_none(d->atime.stamp) ? 0 : DIR_ATIME;
    flags |= stamp_is_none(d->death) ? 0 : DIR_DEATH;
    flags |= d->queued ? DIR_QUEUED : 0;
    return (uint8_t)flags;
}

void dir_encode(const struct dir_rec *d, struct buf *out)
{
    uint8_t flags = dir_flags(d);
    size_t room = ROOM_FIELDS + 2 * ROOM_NAME + d->perm.value.len + d->life.count * ROOM_DOT;
    buf_reserve(out, room);
    put_u8(out, flags);
    put_varint(out, d->entries);
    put_varint(out, d->subdirs);
    put_varint(out, d->contested);
    put_varint(out, d->pos_version);
    put_varint(out, d->place_version);
    put_varint(out, d->index_hlc);
    put_when(out, &d->mtime);
    put_when(out, &d->ctime);
    put_dots(out, &d->life);
    if (flags & DIR_BIRTH) {
        put_birth(out, &d->birth);
        put_when(out, &d->born);
    }
    if (flags & DIR_MOVED)
        put_position(out, &d->moved);
    if (flags & DIR_PERM)
        put_lww(out, &d->perm);
    if (flags & DIR_ATIME)
        put_when(out, &d->atime);
    if (flags & DIR_DEATH)
        put_stamp(out, d->death);
}

int dir_decode(struct slice s, struct op_arena *a, struct dir_rec *ret)
{
    struct dec d = dec_of(s);
    struct dir_rec r = {.oid = ret->oid, .known = true};
    uint8_t flags = dec_u8(&d);
    if (flags & ~DIR_FLAGS)
        dec_fail(&d, ERR_MALFORMED);
    r.has_birth = flags & DIR_BIRTH;
    r.owed = flags & DIR_OWED;
    r.has_moved = flags & DIR_MOVED;
    r.queued = flags & DIR_QUEUED;
    r.entries = dec_varint(&d);
    r.subdirs = (uint32_t)dec_varint(&d);
    r.contested = dec_varint(&d);
    r.pos_version = dec_varint(&d);
    r.place_version = dec_varint(&d);
    r.index_hlc = dec_varint(&d);
    r.mtime = dec_when(&d);
    r.ctime = dec_when(&d);
    r.life = dec_dots(&d, a);
    if (flags & DIR_BIRTH) {
        r.birth = dec_birth(&d, ret->oid);
        r.born = dec_when(&d);
    }
    if (flags & DIR_MOVED)
        r.moved = dec_position(&d);
    if (flags & DIR_PERM)
        r.perm = dec_lww(&d);
    if (flags & DIR_ATIME)
        r.atime = dec_when(&d);
    if (flags & DIR_DEATH)
        r.death = dec_stamp(&d);
    int rc = finish(&d);
    if (rc == 0)
        *ret = r;
    return rc;
}

/* ---- slots ---- */

void slot_encode(const struct slot *s, struct buf *out)
{
    size_t room = ROOM_FIELDS + (size_t)(s->entry_count + s->dir_count) * ROOM_ENTRY;
    for (uint32_t i = 0; i < s->dir_count; i++)
        room += s->dirs[i].site_count * 5u;
    buf_reserve(out, room);
    put_varint(out, s->entry_count);
    for (uint32_t i = 0; i < s->entry_count; i++) {
        put_dot(out, s->entries[i].dot);
        put_oid(out, s->entries[i].oid);
        put_stamp(out, s->entries[i].stamp);
    }
    put_varint(out, s->dir_count);
    for (uint32_t i = 0; i < s->dir_count; i++) {
        const struct indexed *d = &s->dirs[i];
        put_oid(out, d->oid);
        put_stamp(out, d->stamp);
        put_varint(out, d->site_count);
        for (uint32_t k = 0; k < d->site_count; k++)
            put_varint(out, d->sites[k]);
    }
}

static site_id_t *dec_sites(struct dec *d, struct op_arena *a, uint32_t *ret_count)
{
    uint32_t count = dec_count(d, 1);
    site_id_t *sites = op_alloc(a, count * sizeof *sites);
    for (uint32_t k = 0; k < count; k++)
        sites[k] = (site_id_t)dec_varint(d);
    *ret_count = count;
    return sites;
}

int slot_decode(struct slice bytes, struct op_arena *a, struct slot *ret)
{
    struct dec d = dec_of(bytes);
    struct slot s = {.parent = ret->parent, .name = ret->name};
    s.entry_count = s.entry_cap = dec_count(&d, 3 + 16 + 12);
    s.entries = op_alloc(a, s.entry_count * sizeof *s.entries);
    for (uint32_t i = 0; i < s.entry_count; i++) {
        s.entries[i].dot = dec_dot(&d);
        s.entries[i].oid = dec_oid(&d);
        s.entries[i].stamp = dec_stamp(&d);
    }
    s.dir_count = s.dir_cap = dec_count(&d, 16 + 12 + 1);
    s.dirs = op_alloc(a, s.dir_count * sizeof *s.dirs);
    for (uint32_t i = 0; i < s.dir_count; i++) {
        s.dirs[i].oid = dec_oid(&d);
        s.dirs[i].stamp = dec_stamp(&d);
        s.dirs[i].sites = dec_sites(&d, a, &s.dirs[i].site_count);
    }
    int rc = finish(&d);
    if (rc == 0)
        *ret = s;
    return rc;
}

void placed_encode(const struct placed *p, struct buf *out)
{
    buf_reserve(out, ROOM_FIELDS + ROOM_NAME);
    put_u8(out, p->here ? PLACED_HERE : 0);
    put_varint(out, p->version);
    if (p->here) {
        put_oid(out, p->parent);
        put_bytes(out, p->name);
    }
}

int placed_decode(struct slice s, struct placed *ret)
{
    struct dec d = dec_of(s);
    struct placed p = {.oid = ret->oid, .known = true};
    uint8_t flags = dec_u8(&d);
    p.here = flags == PLACED_HERE;
    p.version = dec_varint(&d);
    if (p.here) {
        p.parent = dec_oid(&d);
        p.name = dec_bytes(&d, LIMIT_NAME_BYTES);
    }
    if (flags > PLACED_HERE)
        dec_fail(&d, ERR_MALFORMED);
    int rc = finish(&d);
    if (rc == 0)
        *ret = p;
    return rc;
}

void lww_encode(const struct lww *r, struct buf *out)
{
    buf_reserve(out, ROOM_FIELDS + r->value.len);
    put_lww(out, r);
}

int lww_decode(struct slice s, struct lww *ret)
{
    struct dec d = dec_of(s);
    struct lww r = dec_lww(&d);
    int rc = finish(&d);
    if (rc == 0)
        *ret = r;
    return rc;
}

/* ---- derived messages ---- */

enum {
    DERIVED_AT_BIRTH = 1,
    DERIVED_HAS_OLD = 2,
    DERIVED_FLAGS = 3
};

void derived_encode(const struct derived *m, struct buf *out)
{
    unsigned flags = (m->at_birth ? DERIVED_AT_BIRTH : 0u) | (m->has_old ? DERIVED_HAS_OLD : 0u);
    buf_reserve(out, ROOM_FIELDS + 2 * ROOM_NAME + m->site_count * 5u);
    put_u8(out, (uint8_t)m->kind);
    put_u8(out, (uint8_t)flags);
    put_oid(out, m->oid);
    put_varint(out, m->version);
    put_position(out, &m->pos);
    put_varint(out, m->site_count);
    for (uint32_t i = 0; i < m->site_count; i++)
        put_varint(out, m->sites[i]);
    if (m->has_old) {
        put_oid(out, m->old_parent);
        put_bytes(out, m->old_name);
    }
}

int derived_decode(struct slice s, struct op_arena *a, struct derived *ret)
{
    struct dec d = dec_of(s);
    struct derived m = {.next = NULL};
    uint8_t kind = dec_u8(&d);
    uint8_t flags = dec_u8(&d);
    m.kind = (enum derived_kind)kind;
    m.at_birth = flags & DERIVED_AT_BIRTH;
    m.has_old = flags & DERIVED_HAS_OLD;
    m.oid = dec_oid(&d);
    m.version = dec_varint(&d);
    m.pos = dec_position(&d);
    m.sites = dec_sites(&d, a, &m.site_count);
    if (m.has_old) {
        m.old_parent = dec_oid(&d);
        m.old_name = dec_bytes(&d, LIMIT_NAME_BYTES);
    }
    if (kind < DERIVED_POS || kind > DERIVED_UNPLACE || (flags & ~DERIVED_FLAGS) ||
        !oid_is_dir(m.oid) || oid_is_root(m.oid))
        dec_fail(&d, ERR_MALFORMED);
    if (dec_end(&d) != 0)
        return dec_end(&d);
    *ret = m;
    return 0;
}

/* ---- conflict records ---- */

void conflict_encode(const struct conflict *c, struct buf *out)
{
    buf_reserve(out, ROOM_FIELDS + 2 * ROOM_NAME);
    put_u8(out, c->rule);
    put_u8(out, c->resolved);
    put_raw(out, c->id, sizeof c->id);
    put_stamp(out, c->stamp);
    put_oid(out, c->oid);
    put_oid(out, c->other);
    put_oid(out, c->parent);
    put_bytes(out, c->name);
    put_bytes(out, c->other_name);
    put_u32(out, c->winner);
    put_u32(out, c->loser);
    put_stamp(out, c->winner_stamp);
    put_stamp(out, c->loser_stamp);
    put_dot(out, c->winner_dot);
    put_dot(out, c->loser_dot);
}

int conflict_decode(struct slice s, struct conflict *ret)
{
    struct dec d = dec_of(s);
    struct conflict c = {.rule = dec_u8(&d)};
    c.resolved = dec_u8(&d) != 0;
    dec_raw(&d, c.id, sizeof c.id);
    c.stamp = dec_stamp(&d);
    c.oid = dec_oid(&d);
    c.other = dec_oid(&d);
    c.parent = dec_oid(&d);
    c.name = dec_bytes(&d, LIMIT_NAME_BYTES);
    c.other_name = dec_bytes(&d, LIMIT_NAME_BYTES);
    c.winner = dec_u32(&d);
    c.loser = dec_u32(&d);
    c.winner_stamp = dec_stamp(&d);
    c.loser_stamp = dec_stamp(&d);
    c.winner_dot = dec_dot(&d);
    c.loser_dot = dec_dot(&d);
    int rc = finish(&d);
    if (rc == 0)
        *ret = c;
    return rc;
}
