#include "client/cache_block.h"

#include <pthread.h>

#include "base/assert.h"

#define SLOT_COUNT 16384u
/* What was read to its end: a little is kept for who comes to it again at once. */
#define OUT_SHARE 32u
/* Memory of blocks that went, for those that come. */
#define SPARE_MAX 8u
#define SPARE_SHARE 16u
#define SPARE_BYTES_MIN (64u * 1024u)

struct block_list {
    struct block *newest, *oldest;
};
struct spare {
    uint8_t *ptr;
    size_t len;
};
struct block_cache {
    pthread_mutex_t lock;
    pthread_cond_t loaded; /* some block left the state BLOCK_LOADING */
    struct block *slots[SLOT_COUNT];
    struct block_list used, out; /* all that are not loading; out: that were read to their end */
    size_t bytes, bytes_max;
    size_t out_bytes;
    struct spare spares[SPARE_MAX]; /* the last one was given back last */
    size_t spare_count, spare_bytes;
};

struct block_cache *block_cache_new(size_t bytes_max)
{
    struct block_cache *c = mem_calloc(1, sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->loaded, NULL);
    c->bytes_max = bytes_max;
    return c;
}

static struct block **slot_of(struct block_cache *c, const struct chunk_id *id, uint32_t part)
{
    uint32_t h;
    memcpy(&h, id->b, sizeof h); /* ids are uniformly random */
    return &c->slots[(h + part) % SLOT_COUNT];
}

static struct block *find(struct block_cache *c, const struct chunk_id *id, uint32_t part)
{
    struct block *b = *slot_of(c, id, part);
    while (b != NULL && (b->part != part || !chunk_id_equal(&b->id, id)))
        b = b->next;
    return b;
}

static struct block_list *list_of(struct block_cache *c, const struct block *b)
{
    return b->out ? &c->out : &c->used;
}

static void lru_remove(struct block_cache *c, struct block *b)
{
    struct block_list *l = list_of(c, b);
    *(b->newer == NULL ? &l->newest : &b->newer->older) = b->older;
    *(b->older == NULL ? &l->oldest : &b->older->newer) = b->newer;
    b->newer = b->older = NULL;
    c->out_bytes -= b->out ? b->len : 0;
}

static void lru_add(struct block_cache *c, struct block *b)
{
    struct block_list *l = list_of(c, b);
    b->older = l->newest;
    b->newer = NULL;
    *(l->newest == NULL ? &l->oldest : &l->newest->newer) = b;
    l->newest = b;
    c->out_bytes += b->out ? b->len : 0;
}

/* Used: to the front; and one that was read to its end stays from now on. */
static void lru_touch(struct block_cache *c, struct block *b)
{
    lru_remove(c, b);
    b->again = b->again || b->out;
    b->out = false;
    lru_add(c, b);
}

static void unhash(struct block_cache *c, struct block *b)
{
    struct block **at = slot_of(c, &b->id, b->part);
    while (*at != b)
        at = &(*at)->next;
    *at = b->next;
}

/* Keeps the memory for another block if there is room for it. */
static void data_free(struct block_cache *c, const uint8_t *data, size_t len)
{
    union {
        const uint8_t *in;
        uint8_t *out;
    } ptr = {.in = data}; /* it was ours all the time */
    if (len < SPARE_BYTES_MIN || c->spare_count == SPARE_MAX ||
        c->spare_bytes + len > c->bytes_max / SPARE_SHARE) {
        mem_free(ptr.out);
        return;
    }
    c->spares[c->spare_count++] = (struct spare){.ptr = ptr.out, .len = len};
    c->spare_bytes += len;
}

static void destroy(struct block_cache *c, struct block *b)
{
    ASSERT_EQ(b->refs, 0);
    c->bytes -= b->len;
    data_free(c, b->data, b->len);
    mem_free(b);
}

static void trim_list(struct block_cache *c, struct block *b, const size_t *bytes, size_t max)
{
    while (b != NULL && *bytes > max) {
        struct block *newer = b->newer;
        if (b->refs == 0) {
            lru_remove(c, b);
            unhash(c, b);
            destroy(c, b);
        }
        b = newer;
    }
}

static void trim(struct block_cache *c)
{
    trim_list(c, c->out.oldest, &c->out_bytes, c->bytes_max / OUT_SHARE);
    trim_list(c, c->out.oldest, &c->bytes, c->bytes_max);
    trim_list(c, c->used.oldest, &c->bytes, c->bytes_max);
}

/* Memory of another length is of no use to whoever reads now. */
static uint8_t *spare_take(struct block_cache *c, size_t len)
{
    while (c->spare_count > 0) {
        struct spare s = c->spares[--c->spare_count];
        c->spare_bytes -= s.len;
        if (s.len == len)
            return s.ptr;
        mem_free(s.ptr);
    }
    return NULL;
}

uint8_t *block_cache_room(struct block_cache *c, size_t len)
{
    uint8_t *data = NULL;
    if (len < SPARE_BYTES_MIN)
        return mem_alloc(len);
    pthread_mutex_lock(&c->lock);
    data = spare_take(c, len);
    pthread_mutex_unlock(&c->lock);
    return data != NULL ? data : mem_mapped(len);
}

void block_cache_free(struct block_cache *c)
{
    if (c == NULL)
        return;
    c->bytes_max = 0;
    trim(c);
    ASSERT(c->used.newest == NULL && c->out.newest == NULL);
    (void)spare_take(c, 0); /* frees them, for none is so short */
    pthread_cond_destroy(&c->loaded);
    pthread_mutex_destroy(&c->lock);
    mem_free(c);
}

static struct block *
make(struct block_cache *c, const struct chunk_id *id, uint32_t part, enum block_state state)
{
    struct block *b = mem_calloc(1, sizeof *b);
    b->id = *id;
    b->part = part;
    b->state = (uint8_t)state;
    struct block **slot = slot_of(c, id, part);
    b->next = *slot;
    *slot = b;
    return b;
}

struct block *
block_cache_get(struct block_cache *c, const struct chunk_id *id, enum block_state *ret_state)
{
    pthread_mutex_lock(&c->lock);
    struct block *b = find(c, id, BLOCK_WHOLE);
    if (b == NULL) {
        b = make(c, id, BLOCK_WHOLE, BLOCK_LOADING);
        *ret_state = BLOCK_MISSING;
    } else {
        *ret_state = (enum block_state)b->state;
        if (b->state == BLOCK_READY)
            lru_touch(c, b);
    }
    b->refs++;
    pthread_mutex_unlock(&c->lock);
    return b;
}

bool block_cache_has(struct block_cache *c, const struct chunk_id *id)
{
    pthread_mutex_lock(&c->lock);
    bool has = find(c, id, BLOCK_WHOLE) != NULL;
    pthread_mutex_unlock(&c->lock);
    return has;
}

struct block *block_cache_part(struct block_cache *c, const struct chunk_id *id, uint32_t part)
{
    pthread_mutex_lock(&c->lock);
    struct block *b = find(c, id, part);
    if (b != NULL) {
        lru_touch(c, b);
        b->refs++;
    }
    pthread_mutex_unlock(&c->lock);
    return b;
}

void block_cache_loaded(struct block_cache *c, struct block *b, int rc, uint8_t *data, size_t len)
{
    pthread_mutex_lock(&c->lock);
    ASSERT(b->state == BLOCK_LOADING);
    b->state = BLOCK_READY;
    b->rc = rc;
    if (rc == 0) {
        b->data = data;
        b->len = len;
        c->bytes += len;
        lru_add(c, b);
        trim(c);
    } else {
        unhash(c, b); /* lives until the last who waits has seen the error */
    }
    pthread_cond_broadcast(&c->loaded);
    pthread_mutex_unlock(&c->lock);
}

int block_cache_wait(struct block_cache *c, struct block *b)
{
    pthread_mutex_lock(&c->lock);
    while (b->state == BLOCK_LOADING)
        pthread_cond_wait(&c->loaded, &c->lock);
    int rc = b->rc;
    pthread_mutex_unlock(&c->lock);
    return rc;
}

static void unref_locked(struct block_cache *c, struct block *b)
{
    ASSERT(b->refs > 0);
    b->refs--;
    if (b->refs == 0 && b->rc != 0)
        destroy(c, b);
    else
        trim(c);
}

void block_cache_unref(struct block_cache *c, struct block *b)
{
    pthread_mutex_lock(&c->lock);
    unref_locked(c, b);
    pthread_mutex_unlock(&c->lock);
}

void block_cache_read_out(struct block_cache *c, struct block *b)
{
    pthread_mutex_lock(&c->lock);
    if (b->rc == 0 && !b->again && !b->out) {
        lru_remove(c, b);
        b->out = true;
        lru_add(c, b);
    }
    unref_locked(c, b);
    pthread_mutex_unlock(&c->lock);
}

void block_cache_insert(
    struct block_cache *c, const struct chunk_id *id, uint32_t part, uint8_t *data, size_t len)
{
    pthread_mutex_lock(&c->lock);
    if (find(c, id, part) != NULL) {
        mem_free(data);
    } else {
        struct block *b = make(c, id, part, BLOCK_READY);
        b->data = data;
        b->len = len;
        c->bytes += len;
        lru_add(c, b);
        trim(c);
    }
    pthread_mutex_unlock(&c->lock);
}

void block_cache_limit(struct block_cache *c, size_t bytes_max)
{
    pthread_mutex_lock(&c->lock);
    c->bytes_max = bytes_max;
    trim(c);
    pthread_mutex_unlock(&c->lock);
}

size_t block_cache_bytes(struct block_cache *c)
{
    pthread_mutex_lock(&c->lock);
    size_t bytes = c->bytes;
    pthread_mutex_unlock(&c->lock);
    return bytes;
}
