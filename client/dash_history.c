/* The dashboard's history. Format, little endian: "CFSHIST1", peers u32; for each its name (length
 * u8, bytes) and for each grain the number of its newest step u64, a count u32, and count times
 * DASH_VALUES floats, oldest first; at the end CRC32C of all before. */
#include "client/dash_history.h"

#include <math.h>
#include <string.h>

#include <isa-l.h>

#include "base/assert.h"
#include "base/codec.h"

static const char MAGIC[8] = {'C', 'F', 'S', 'H', 'I', 'S', 'T', '1'};
#define NAME_MAX_LEN 32u

static const struct {
    uint32_t step_s, count;
} grains[DASH_GRAINS] = {
    {5, 720},    /* an hour */
    {60, 1440},  /* a day */
    {900, 2880}, /* thirty days */
};

struct ring {
    struct dash_sample *at; /* by step number modulo count */
    uint64_t newest;        /* step number; 0: none */
    uint32_t used;          /* steps up to the newest that are there, gaps among them */
    uint32_t merged;        /* samples in the newest */
};
struct peer {
    char name[NAME_MAX_LEN + 1];
    struct ring rings[DASH_GRAINS];
};
struct dash_history {
    struct peer *peers[DASH_PEERS_MAX];
    uint32_t count;
};

static struct peer *peer_new(const char *name, size_t len)
{
    struct peer *p = mem_calloc(1, sizeof *p);
    memcpy(p->name, name, len);
    for (unsigned g = 0; g < DASH_GRAINS; g++)
        p->rings[g].at = mem_calloc(grains[g].count, sizeof *p->rings[g].at);
    return p;
}

static void peer_free(struct peer *p)
{
    for (unsigned g = 0; g < DASH_GRAINS; g++)
        mem_free(p->rings[g].at);
    mem_free(p);
}

struct dash_history *dash_history_new(void)
{
    return mem_calloc(1, sizeof(struct dash_history));
}

static void clear(struct dash_history *h)
{
    for (uint32_t i = 0; i < h->count; i++)
        peer_free(h->peers[i]);
    h->count = 0;
}

void dash_history_free(struct dash_history *h)
{
    if (h == NULL)
        return;
    clear(h);
    mem_free(h);
}

static struct peer *peer_find(const struct dash_history *h, const char *name)
{
    for (uint32_t i = 0; i < h->count; i++)
        if (strcmp(h->peers[i]->name, name) == 0)
            return h->peers[i];
    return NULL;
}

static void ring_gap(struct ring *r, uint32_t cap, uint64_t step)
{
    struct dash_sample *s = &r->at[step % cap];
    for (unsigned i = 0; i < DASH_VALUES; i++)
        s->v[i] = NAN;
}

static void ring_move(struct ring *r, uint32_t cap, uint64_t step)
{
    uint64_t gaps = r->newest == 0 ? 1 : MIN(step - r->newest, cap);
    if (r->newest == 0)
        r->used = 0;
    for (uint64_t i = 0; i < gaps; i++)
        ring_gap(r, cap, step - i);
    r->used = (uint32_t)MIN(r->used + gaps, cap);
    r->newest = step;
    r->merged = 0;
}

static void ring_add(struct ring *r, unsigned grain, uint64_t wall_s, const struct dash_sample *s)
{
    uint32_t cap = grains[grain].count;
    uint64_t step = wall_s / grains[grain].step_s;
    if (step > r->newest)
        ring_move(r, cap, step);
    struct dash_sample *to = &r->at[r->newest % cap];
    for (unsigned i = 0; i < DASH_VALUES; i++) {
        float mean = (to->v[i] * (float)r->merged + s->v[i]) / (float)(r->merged + 1);
        bool is_rate = i == DASH_RATE_IN || i == DASH_RATE_OUT;
        if (r->merged == 0 || isnan(to->v[i]))
            to->v[i] = s->v[i];
        else
            to->v[i] = is_rate ? mean : fmaxf(to->v[i], s->v[i]);
    }
    r->merged++;
}

void dash_history_add(struct dash_history *h,
                      const char *peer,
                      uint64_t wall_s,
                      const struct dash_sample *s)
{
    struct peer *p = peer_find(h, peer);
    size_t len = strlen(peer);
    if (p == NULL) {
        if (h->count == DASH_PEERS_MAX || len == 0 || len > NAME_MAX_LEN || wall_s == 0)
            return;
        p = h->peers[h->count++] = peer_new(peer, len);
    }
    for (unsigned g = 0; g < DASH_GRAINS; g++)
        ring_add(&p->rings[g], g, wall_s, s);
}

bool dash_history_series(const struct dash_history *h,
                         const char *peer,
                         unsigned grain,
                         struct dash_series *ret)
{
    const struct peer *p = peer_find(h, peer);
    if (p == NULL || grain >= DASH_GRAINS || p->rings[grain].used == 0)
        return false;
    const struct ring *r = &p->rings[grain];
    *ret = (struct dash_series){.step_s = grains[grain].step_s,
                                .count = r->used,
                                .first_s = (r->newest - (r->used - 1)) * grains[grain].step_s};
    return true;
}

float dash_history_value(const struct dash_history *h,
                         const char *peer,
                         unsigned grain,
                         uint32_t idx,
                         enum dash_value value)
{
    const struct peer *p = peer_find(h, peer);
    ASSERT(p != NULL && grain < DASH_GRAINS && idx < p->rings[grain].used);
    const struct ring *r = &p->rings[grain];
    return r->at[(r->newest - (r->used - 1) + idx) % grains[grain].count].v[value];
}

/* ---- bytes ---- */

static uint32_t crc(const uint8_t *ptr, size_t len)
{
    union {
        const void *in;
        unsigned char *out; /* isa-l's prototype lacks the const; it only reads */
    } bytes = {.in = ptr};
    return crc32_iscsi(bytes.out, (int)len, ~0u);
}

static void enc_float(struct buf *out, float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    enc_u32(out, bits);
}

static float dec_float(struct dec *d)
{
    uint32_t bits = dec_u32(d);
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

void dash_history_encode(const struct dash_history *h, struct buf *out)
{
    size_t start = out->len;
    enc_raw(out, MAGIC, sizeof MAGIC);
    enc_u32(out, h->count);
    for (uint32_t i = 0; i < h->count; i++) {
        const struct peer *p = h->peers[i];
        enc_u8(out, (uint8_t)strlen(p->name));
        enc_raw(out, p->name, strlen(p->name));
        for (unsigned g = 0; g < DASH_GRAINS; g++) {
            const struct ring *r = &p->rings[g];
            enc_u64(out, r->newest);
            enc_u32(out, r->used);
            for (uint32_t k = 0; k < r->used; k++)
                for (unsigned v = 0; v < DASH_VALUES; v++)
                    enc_float(out, r->at[(r->newest - (r->used - 1) + k) % grains[g].count].v[v]);
        }
    }
    enc_u32(out, crc(out->ptr + start, out->len - start));
}

static int ring_decode(struct dec *d, struct ring *r, unsigned grain)
{
    r->newest = dec_u64(d);
    r->used = dec_u32(d);
    if (d->rc != 0 || r->used > grains[grain].count || r->used > r->newest)
        return ERR_CORRUPT;
    for (uint32_t k = 0; k < r->used; k++)
        for (unsigned v = 0; v < DASH_VALUES; v++)
            r->at[(r->newest - (r->used - 1) + k) % grains[grain].count].v[v] = dec_float(d);
    r->merged = 1; /* the newest step may go on */
    return d->rc;
}

static int peer_decode(struct dec *d, struct dash_history *h)
{
    char name[NAME_MAX_LEN + 1] = {0};
    uint8_t len = dec_u8(d);
    if (d->rc != 0 || len == 0 || len > NAME_MAX_LEN)
        return ERR_CORRUPT;
    dec_raw(d, name, len);
    if (d->rc != 0 || strlen(name) != len || peer_find(h, name) != NULL)
        return ERR_CORRUPT;
    struct peer *p = h->peers[h->count++] = peer_new(name, len);
    int rc = 0;
    for (unsigned g = 0; g < DASH_GRAINS && rc == 0; g++)
        rc = ring_decode(d, &p->rings[g], g);
    return rc;
}

int dash_history_decode(struct dash_history *h, struct slice in)
{
    char magic[sizeof MAGIC];
    struct dash_history new = {.count = 0};
    if (in.len < sizeof MAGIC + 8)
        return ERR_TRUNCATED;
    struct dec tail = dec_of(slice_of(in.ptr + in.len - 4, 4));
    if (in.len > INT32_MAX || dec_u32(&tail) != crc(in.ptr, in.len - 4))
        return ERR_CORRUPT;
    struct dec d = dec_of(slice_of(in.ptr, in.len - 4));
    dec_raw(&d, magic, sizeof magic);
    if (memcmp(magic, MAGIC, sizeof magic) != 0)
        return ERR_VERSION;
    uint32_t count = dec_u32(&d);
    int rc = count > DASH_PEERS_MAX ? ERR_CORRUPT : 0;
    for (uint32_t i = 0; i < count && rc == 0; i++)
        rc = peer_decode(&d, &new);
    if (rc == 0)
        rc = dec_end(&d);
    if (rc == 0) {
        clear(h);
        *h = new;
    } else {
        clear(&new);
    }
    return rc;
}
