#include "client/cache_pages.h"

#include <pthread.h>

#include "base/assert.h"

static struct {
    pthread_mutex_t lock;
    size_t count, count_max;
    uint8_t *at[PAGES_KEPT_MAX]; /* the last one was given back last */
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

uint8_t *pages_get(void)
{
    uint8_t *bytes = NULL;
    pthread_mutex_lock(&kept.lock);
    if (kept.count > 0)
        bytes = kept.at[--kept.count];
    pthread_mutex_unlock(&kept.lock);
    return bytes != NULL ? bytes : mem_mapped(PAGES_BYTES);
}

uint8_t *pages_later(void)
{
    enum {
        ALIGN = 4096
    };
    return mem_aligned(ALIGN, PAGES_BYTES);
}

void pages_put(uint8_t *bytes)
{
    pthread_mutex_lock(&kept.lock);
    bool room = kept.count < kept.count_max;
    if (room)
        kept.at[kept.count++] = bytes;
    pthread_mutex_unlock(&kept.lock);
    if (!room)
        mem_free(bytes);
}

void pages_limit(size_t count_max)
{
    ASSERT(count_max <= PAGES_KEPT_MAX);
    pthread_mutex_lock(&kept.lock);
    kept.count_max = count_max;
    while (kept.count > count_max)
        mem_free(kept.at[--kept.count]);
    pthread_mutex_unlock(&kept.lock);
}
