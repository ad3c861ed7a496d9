/* Messages of a stream; see msg.h. */
#include "wan/msg.h"

#include <sodium.h>
#include <string.h>

#include "base/assert.h"
#include "base/mp.h"

enum {
    TEXT_MAX = 400
};

void fs_id_make(const uint8_t fs_key[32], uint8_t ret[FS_ID_BYTES])
{
    static const uint8_t what[] = "claudefs file system id";
    int rc = crypto_generichash(ret, FS_ID_BYTES, what, sizeof what - 1, fs_key, 32);
    ASSERT(rc == 0);
}

static void extra_skip(struct mp *m, uint32_t count, uint32_t known)
{
    for (uint32_t i = known; i < count && m->rc == 0; i++)
        mp_skip(m);
}

/* The count of an array of at least `known` elements. */
static uint32_t array_begin(struct mp *m, uint32_t known)
{
    uint32_t count = mp_get_array(m, 64);
    if (count < known)
        mp_fail(m, ERR_MALFORMED);
    return count;
}

static void vvs_encode(const struct vv *vvs, unsigned shard_count, struct buf *out)
{
    mp_array(out, shard_count);
    for (unsigned s = 0; s < shard_count; s++) {
        mp_array(out, 2 * vvs[s].count);
        for (uint32_t i = 0; i < vvs[s].count; i++) {
            mp_uint(out, vvs[s].at[i].site);
            mp_uint(out, vvs[s].at[i].seq);
        }
    }
}

static void vvs_decode(struct mp *m, unsigned shard_count, struct vv *ret)
{
    if (mp_get_array(m, SHARD_COUNT_MAX) != shard_count)
        mp_fail(m, ERR_MALFORMED);
    for (unsigned s = 0; s < shard_count && m->rc == 0; s++) {
        ret[s].count = 0;
        uint32_t count = mp_get_array(m, 2 * SITE_COUNT_MAX);
        if (count % 2 != 0)
            mp_fail(m, ERR_MALFORMED);
        for (uint32_t i = 0; i + 1 < count && m->rc == 0; i += 2) {
            site_id_t site = (site_id_t)mp_get_uint(m, UINT32_MAX);
            uint64_t seq = mp_get_uint(m, UINT64_MAX);
            if (m->rc == 0 && (site == 0 || vv_set(&ret[s], site, seq) != 0))
                mp_fail(m, ERR_MALFORMED);
        }
    }
}

static void numbers_encode(const uint64_t *v, unsigned count, struct buf *out)
{
    mp_array(out, count);
    for (unsigned i = 0; i < count; i++)
        mp_uint(out, v[i]);
}

static unsigned numbers_decode(struct mp *m, uint64_t *ret)
{
    uint32_t count = mp_get_array(m, SHARD_COUNT_MAX);
    for (uint32_t i = 0; i < count; i++)
        ret[i] = mp_get_uint(m, UINT64_MAX);
    return count;
}

static void last_encode(const struct last_op *v, unsigned shard_count, struct buf *out)
{
    mp_array(out, 2 * shard_count);
    for (unsigned i = 0; i < shard_count; i++) {
        mp_uint(out, v[i].seq);
        mp_uint(out, v[i].hlc);
    }
}

/* There: a peer of the version before does not say it. */
static void last_decode(struct mp *m, bool there, unsigned shard_count, struct last_op *ret)
{
    if (there && mp_get_array(m, 2 * SHARD_COUNT_MAX) != 2 * shard_count)
        mp_fail(m, ERR_MALFORMED);
    for (unsigned i = 0; i < shard_count; i++) {
        ret[i].seq = there ? mp_get_uint(m, UINT64_MAX) : 0;
        ret[i].hlc = there ? mp_get_uint(m, UINT64_MAX) : 0;
    }
}

void msg_hello_encode(const struct msg_hello *h, struct buf *out)
{
    mp_array(out, 10);
    mp_uint(out, h->version);
    mp_bin(out, slice_of(h->fs_id, sizeof h->fs_id));
    mp_uint(out, h->site);
    mp_uint(out, h->shard_count);
    numbers_encode(h->next, h->shard_count, out);
    vvs_encode(h->vvs, h->shard_count, out);
    mp_uint(out, h->wall_ns);
    mp_uint(out, h->hlc);
    last_encode(h->last, h->shard_count, out);
    mp_uint(out, h->to);
}

int msg_hello_decode(struct slice s, struct msg_hello *ret)
{
    struct mp m = mp_of(s);
    uint32_t count = array_begin(&m, 8);
    ret->version = (uint32_t)mp_get_uint(&m, UINT32_MAX);
    struct slice id = mp_get_bin_exact(&m, FS_ID_BYTES);
    if (m.rc == 0)
        memcpy(ret->fs_id, id.ptr, FS_ID_BYTES);
    ret->site = (site_id_t)mp_get_uint(&m, UINT32_MAX);
    ret->shard_count = (unsigned)mp_get_uint(&m, SHARD_COUNT_MAX);
    if (ret->shard_count == 0 || ret->site == 0)
        mp_fail(&m, ERR_MALFORMED);
    if (numbers_decode(&m, ret->next) != ret->shard_count)
        mp_fail(&m, ERR_MALFORMED);
    vvs_decode(&m, ret->shard_count, ret->vvs);
    ret->wall_ns = mp_get_uint(&m, UINT64_MAX);
    ret->hlc = mp_get_uint(&m, UINT64_MAX);
    last_decode(&m, count >= 9, ret->shard_count, ret->last);
    ret->to = count >= 10 ? (site_id_t)mp_get_uint(&m, UINT32_MAX) : 0;
    extra_skip(&m, count, 10);
    return mp_end(&m);
}

void msg_welcome_encode(const struct msg_welcome *w, struct buf *out)
{
    mp_array(out, 6);
    mp_uint(out, w->version);
    mp_uint(out, w->site);
    numbers_encode(w->yours, w->shard_count, out);
    mp_uint(out, w->wall_ns);
    mp_uint(out, w->hlc);
    last_encode(w->last, w->shard_count, out);
}

int msg_welcome_decode(struct slice s, struct msg_welcome *ret)
{
    struct mp m = mp_of(s);
    uint32_t count = array_begin(&m, 5);
    ret->version = (uint32_t)mp_get_uint(&m, UINT32_MAX);
    ret->site = (site_id_t)mp_get_uint(&m, UINT32_MAX);
    ret->shard_count = numbers_decode(&m, ret->yours);
    ret->wall_ns = mp_get_uint(&m, UINT64_MAX);
    ret->hlc = mp_get_uint(&m, UINT64_MAX);
    last_decode(&m, count >= 6, ret->shard_count, ret->last);
    extra_skip(&m, count, 6);
    return mp_end(&m);
}

enum {
    HEARTBEAT_FIELDS_OLD = 10, /* what comes behind them may be missing */
    HEARTBEAT_FIELDS = 11
};

void msg_heartbeat_encode(const struct msg_heartbeat *h, struct buf *out)
{
    const uint64_t v[HEARTBEAT_FIELDS] = {h->sent_hlc,   h->head_hlc,    h->ops_sent, h->bytes_sent,
                                          h->ops_to_go,  h->bytes_to_go, h->wall_ns,  h->echo_ns,
                                          h->echo_at_ns, h->hlc,         h->safe_hlc};
    numbers_encode(v, HEARTBEAT_FIELDS, out);
}

int msg_heartbeat_decode(struct slice s, struct msg_heartbeat *ret)
{
    struct mp m = mp_of(s);
    uint32_t count = array_begin(&m, HEARTBEAT_FIELDS_OLD);
    uint64_t v[HEARTBEAT_FIELDS] = {0};
    for (unsigned i = 0; i < MIN(count, (uint32_t)HEARTBEAT_FIELDS); i++)
        v[i] = mp_get_uint(&m, UINT64_MAX);
    extra_skip(&m, count, HEARTBEAT_FIELDS);
    *ret = (struct msg_heartbeat){
        .sent_hlc = v[0],
        .head_hlc = v[1],
        .ops_sent = v[2],
        .bytes_sent = v[3],
        .ops_to_go = v[4],
        .bytes_to_go = v[5],
        .wall_ns = v[6],
        .echo_ns = v[7],
        .echo_at_ns = v[8],
        .hlc = v[9],
        .safe_hlc = count > HEARTBEAT_FIELDS_OLD ? v[10] : v[1],
    };
    return mp_end(&m);
}

void msg_ack_encode(const struct msg_ack *a, struct buf *out)
{
    mp_array(out, 5);
    mp_uint(out, a->wall_ns);
    mp_uint(out, a->hlc);
    mp_uint(out, a->applied_hlc);
    mp_array(out, 2 * a->next_count);
    for (uint32_t i = 0; i < a->next_count; i++) {
        mp_uint(out, a->next[i].shard);
        mp_uint(out, a->next[i].next);
    }
    mp_array(out, 3 * a->seq_count);
    for (uint32_t i = 0; i < a->seq_count; i++) {
        mp_uint(out, a->seqs[i].shard);
        mp_uint(out, a->seqs[i].site);
        mp_uint(out, a->seqs[i].seq);
    }
}

int msg_ack_decode(struct slice s, unsigned shard_count, struct msg_ack *ret)
{
    struct mp m = mp_of(s);
    struct msg_ack a = {0};
    uint32_t count = array_begin(&m, 5);
    a.wall_ns = mp_get_uint(&m, UINT64_MAX);
    a.hlc = mp_get_uint(&m, UINT64_MAX);
    a.applied_hlc = mp_get_uint(&m, UINT64_MAX);
    uint32_t nexts = mp_get_array(&m, 2 * shard_count);
    if (nexts % 2 != 0)
        mp_fail(&m, ERR_MALFORMED);
    a.next_count = nexts / 2;
    for (uint32_t i = 0; i < a.next_count && m.rc == 0; i++) {
        a.next[i].shard = (shard_id_t)mp_get_uint(&m, shard_count - 1);
        a.next[i].next = mp_get_uint(&m, UINT64_MAX);
    }
    uint32_t seqs = mp_get_array(&m, 3 * SITE_COUNT_MAX * shard_count);
    if (seqs % 3 != 0)
        mp_fail(&m, ERR_MALFORMED);
    if (m.rc == 0 && seqs > 0)
        a.seqs = mem_calloc(seqs / 3, sizeof a.seqs[0]);
    for (uint32_t i = 0; a.seqs != NULL && i < seqs / 3; i++) {
        shard_id_t shard = (shard_id_t)mp_get_uint(&m, shard_count - 1);
        site_id_t site = (site_id_t)mp_get_uint(&m, UINT32_MAX);
        uint64_t seq = mp_get_uint(&m, UINT64_MAX);
        if (site == 0)
            mp_fail(&m, ERR_MALFORMED);
        a.seqs[a.seq_count++] = (struct dot){.seq = seq, .site = site, .shard = shard};
    }
    extra_skip(&m, count, 5);
    int rc = mp_end(&m);
    if (rc != 0)
        msg_ack_deinit(&a);
    else
        *ret = a;
    return rc;
}

void msg_ack_deinit(struct msg_ack *a)
{
    mem_free(a->seqs);
    *a = (struct msg_ack){0};
}

void msg_probe_encode(uint64_t id, struct buf *out)
{
    mp_array(out, 1);
    mp_uint(out, id);
}

int msg_probe_decode(struct slice s, uint64_t *ret_id)
{
    struct mp m = mp_of(s);
    uint32_t count = array_begin(&m, 1);
    uint64_t id = mp_get_uint(&m, UINT64_MAX);
    extra_skip(&m, count, 1);
    int rc = mp_end(&m);
    if (rc == 0)
        *ret_id = id;
    return rc;
}

void msg_probe_reply_encode(uint64_t id,
                            const struct vv *vvs,
                            unsigned shard_count,
                            struct buf *out)
{
    mp_array(out, 2);
    mp_uint(out, id);
    vvs_encode(vvs, shard_count, out);
}

int msg_probe_reply_decode(struct slice s, unsigned shard_count, uint64_t *ret_id, struct vv *vvs)
{
    struct mp m = mp_of(s);
    uint32_t count = array_begin(&m, 2);
    uint64_t id = mp_get_uint(&m, UINT64_MAX);
    vvs_decode(&m, shard_count, vvs);
    extra_skip(&m, count, 2);
    int rc = mp_end(&m);
    if (rc == 0)
        *ret_id = id;
    return rc;
}

void msg_return_encode(const struct msg_return *r, struct buf *out)
{
    mp_array(out, 4);
    mp_uint(out, MSG_RETURN_VERSION);
    mp_bin(out, slice_of(r->fs_id, sizeof r->fs_id));
    mp_uint(out, r->before);
    mp_uint(out, r->after);
}

int msg_return_decode(struct slice s, struct msg_return *ret)
{
    struct mp m = mp_of(s);
    if (s.len > MSG_RETURN_MAX)
        return ERR_TOO_BIG;
    if (mp_get_array(&m, 4) != 4)
        mp_fail(&m, ERR_MALFORMED);
    (void)mp_get_uint(&m, MSG_RETURN_VERSION);
    struct slice fs_id = mp_get_bin_exact(&m, FS_ID_BYTES);
    site_id_t before = (site_id_t)mp_get_uint(&m, UINT32_MAX);
    site_id_t after = (site_id_t)mp_get_uint(&m, UINT32_MAX - 1);
    int rc = mp_end(&m);
    if (rc != 0)
        return rc;
    if (after == 0 || after == before)
        return ERR_MALFORMED;
    memcpy(ret->fs_id, fs_id.ptr, sizeof ret->fs_id);
    ret->before = before;
    ret->after = after;
    return 0;
}

void msg_error_encode(int rc, const char *text, struct buf *out)
{
    ASSERT(rc < 0);
    mp_array(out, 2);
    mp_uint(out, (uint64_t)-rc);
    mp_str(out, slice_of(text, strnlen(text, TEXT_MAX)));
}

int msg_error_decode(struct slice s, struct err_detail *d)
{
    struct mp m = mp_of(s);
    uint32_t count = array_begin(&m, 2);
    int rc = -(int)mp_get_uint(&m, ERR_IDX_COUNT - 1);
    struct slice text = mp_get_bin(&m, TEXT_MAX);
    extra_skip(&m, count, 2);
    if (mp_end(&m) != 0 || rc == 0) {
        err_detail_set(d, "the other side gave up without a readable reason");
        return ERR_PEER;
    }
    char clean[TEXT_MAX + 1];
    for (size_t i = 0; i < text.len; i++)
        clean[i] = text.ptr[i] >= 0x20 && text.ptr[i] < 0x7f ? (char)text.ptr[i] : '?';
    clean[text.len] = '\0';
    err_detail_set(d, "%s", text.len > 0 ? clean : err_text(rc));
    return rc;
}

void msg_absent_encode(const struct msg_absent *a, const char *text, struct buf *out)
{
    ASSERT(a->rc < 0 && a->link_count <= SITE_COUNT_MAX);
    mp_array(out, 4);
    mp_uint(out, (uint64_t)-a->rc);
    mp_str(out, slice_of(text, strnlen(text, TEXT_MAX)));
    mp_uint(out, a->site);
    mp_array(out, a->link_count);
    for (uint32_t i = 0; i < a->link_count; i++)
        mp_uint(out, a->links[i]);
}

void msg_absent_decode(struct slice s, struct msg_absent *ret)
{
    struct mp m = mp_of(s);
    uint32_t count = array_begin(&m, 2);
    *ret = (struct msg_absent){.rc = -(int)mp_get_uint(&m, ERR_IDX_COUNT - 1)};
    (void)mp_get_bin(&m, TEXT_MAX);
    if (count >= 4) {
        ret->site = (site_id_t)mp_get_uint(&m, UINT32_MAX);
        ret->link_count = mp_get_array(&m, SITE_COUNT_MAX);
        for (uint32_t i = 0; i < ret->link_count; i++)
            ret->links[i] = (site_id_t)mp_get_uint(&m, UINT32_MAX);
        extra_skip(&m, count, 4);
    } else {
        extra_skip(&m, count, 2);
    }
    if (mp_end(&m) != 0 || ret->rc == 0)
        *ret = (struct msg_absent){.rc = ERR_PEER};
}
