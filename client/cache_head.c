#include "client/cache_head.h"

#include <pthread.h>

#include "base/assert.h"

#define SLOT_COUNT 4096u

struct slot {
    struct chunk_id id; /* the hole: free */
    uint32_t parts;     /* fetched one by one */
    struct chunk_head head;
};
struct head_cache {
    pthread_mutex_t lock;
    struct slot slots[SLOT_COUNT]; /* a new head takes the place of who has it */
};

struct head_cache *head_cache_new(void)
{
    struct head_cache *c = mem_calloc(1, sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

void head_cache_free(struct head_cache *c)
{
    if (c == NULL)
        return;
    pthread_mutex_destroy(&c->lock);
    mem_free(c);
}

static struct slot *slot_of(struct head_cache *c, const struct chunk_id *id)
{
    uint32_t h;
    ASSERT(!chunk_id_is_hole(id));
    memcpy(&h, id->b, sizeof h); /* ids are uniformly random */
    return &c->slots[h % SLOT_COUNT];
}

bool head_cache_get(struct head_cache *c, const struct chunk_id *id, struct chunk_head *ret)
{
    pthread_mutex_lock(&c->lock);
    const struct slot *s = slot_of(c, id);
    bool found = chunk_id_equal(&s->id, id);
    if (found)
        *ret = s->head;
    pthread_mutex_unlock(&c->lock);
    return found;
}

void head_cache_put(struct head_cache *c, const struct chunk_id *id, const struct chunk_head *h)
{
    pthread_mutex_lock(&c->lock);
    *slot_of(c, id) = (struct slot){.id = *id, .head = *h};
    pthread_mutex_unlock(&c->lock);
}

void head_cache_drop(struct head_cache *c, const struct chunk_id *id)
{
    pthread_mutex_lock(&c->lock);
    struct slot *s = slot_of(c, id);
    if (chunk_id_equal(&s->id, id))
        s->id = CHUNK_ID_HOLE;
    pthread_mutex_unlock(&c->lock);
}

bool head_cache_often(struct head_cache *c, const struct chunk_id *id, uint32_t parts)
{
    pthread_mutex_lock(&c->lock);
    struct slot *s = slot_of(c, id);
    bool often = false;
    if (chunk_id_equal(&s->id, id)) {
        s->parts += parts;
        often = s->parts > s->head.info.part_count / 2;
    }
    pthread_mutex_unlock(&c->lock);
    return often;
}
