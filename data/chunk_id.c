/* Chunk ids: text form, lists, and a hash map keyed by id. */
#include "data/chunk_id.h"

#include <sodium.h>

#include "base/assert.h"
#include "base/err.h"

bool chunk_id_is_hole(const struct chunk_id *id)
{
    uint64_t w[4];
    memcpy(w, id->b, sizeof w);
    return (w[0] | w[1] | w[2] | w[3]) == 0;
}

struct chunk_id chunk_id_of(const uint8_t bytes[CHUNK_ID_BYTES])
{
    struct chunk_id id;
    memcpy(id.b, bytes, CHUNK_ID_BYTES);
    return id;
}

void chunk_id_to_text(const struct chunk_id *id, char out[CHUNK_ID_TEXT_LEN + 1])
{
    (void)sodium_bin2hex(out, CHUNK_ID_TEXT_LEN + 1, id->b, CHUNK_ID_BYTES);
}

int chunk_id_from_text(const char *text, struct chunk_id *ret)
{
    struct chunk_id id;
    size_t len;
    if (strlen(text) != CHUNK_ID_TEXT_LEN ||
        sodium_hex2bin(id.b, sizeof id.b, text, CHUNK_ID_TEXT_LEN, NULL, &len, NULL) != 0 ||
        len != sizeof id.b)
        return ERR_INVALID;
    *ret = id;
    return 0;
}

void chunk_ids_deinit(struct chunk_ids *l)
{
    mem_free(l->at);
    *l = (struct chunk_ids){0};
}

void chunk_ids_add(struct chunk_ids *l, const struct chunk_id *id)
{
    if (l->count == l->cap) {
        l->cap = l->cap == 0 ? 16 : l->cap * 2;
        l->at = mem_realloc(l->at, l->cap * sizeof *l->at);
    }
    l->at[l->count++] = *id;
}

/* The map. Ids are keyed hashes, so their own bytes are the hash. Deletion shifts the following run
 * back instead of leaving tombstones, so a map that lives long does not slow down. */

static size_t home_slot(const struct id_map *m, const struct chunk_id *id)
{
    uint64_t h;
    memcpy(&h, id->b, sizeof h);
    /* Spreads ids of callers that are not hashes (tests) as well. */
    return (size_t)((h * 0x9e3779b97f4a7c15ull) >> 20) & (m->cap - 1);
}

void id_map_deinit(struct id_map *m)
{
    mem_free(m->slots);
    *m = (struct id_map){0};
}

static size_t find_slot(const struct id_map *m, const struct chunk_id *id)
{
    size_t at = home_slot(m, id);
    while (!chunk_id_is_hole(&m->slots[at].id) && !chunk_id_equal(&m->slots[at].id, id))
        at = (at + 1) & (m->cap - 1);
    return at;
}

uint64_t *id_map_get(const struct id_map *m, const struct chunk_id *id)
{
    if (m->count == 0 || chunk_id_is_hole(id))
        return NULL;
    size_t at = find_slot(m, id);
    return chunk_id_is_hole(&m->slots[at].id) ? NULL : &m->slots[at].value;
}

static void grow(struct id_map *m)
{
    struct id_map old = *m;
    m->cap = old.cap == 0 ? 16 : old.cap * 2;
    m->slots = mem_calloc(m->cap, sizeof *m->slots);
    for (size_t i = 0; i < old.cap; i++) {
        if (!chunk_id_is_hole(&old.slots[i].id))
            m->slots[find_slot(m, &old.slots[i].id)] = old.slots[i];
    }
    mem_free(old.slots);
}

uint64_t *id_map_set(struct id_map *m, const struct chunk_id *id, uint64_t value)
{
    ASSERT(!chunk_id_is_hole(id));
    /* At most three quarters full, so that a probe always ends soon. */
    if ((m->count + 1) * 4 > m->cap * 3)
        grow(m);
    size_t at = find_slot(m, id);
    if (chunk_id_is_hole(&m->slots[at].id)) {
        m->slots[at].id = *id;
        m->count++;
    }
    m->slots[at].value = value;
    return &m->slots[at].value;
}

bool id_map_del(struct id_map *m, const struct chunk_id *id)
{
    if (m->count == 0 || chunk_id_is_hole(id))
        return false;
    size_t hole = find_slot(m, id);
    if (chunk_id_is_hole(&m->slots[hole].id))
        return false;
    size_t mask = m->cap - 1;
    for (size_t at = (hole + 1) & mask; !chunk_id_is_hole(&m->slots[at].id); at = (at + 1) & mask) {
        size_t home = home_slot(m, &m->slots[at].id);
        /* May this one move back to the hole? Only if its home is not within (hole, at]. */
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            m->slots[hole] = m->slots[at];
            hole = at;
        }
    }
    m->slots[hole] = (struct id_map_slot){0};
    m->count--;
    return true;
}

void id_map_clear(struct id_map *m)
{
    if (m->count != 0)
        memset(m->slots, 0, m->cap * sizeof *m->slots);
    m->count = 0;
}

const struct id_map_slot *id_map_next(const struct id_map *m, size_t *at)
{
    while (*at < m->cap) {
        const struct id_map_slot *slot = &m->slots[(*at)++];
        if (!chunk_id_is_hole(&slot->id))
            return slot;
    }
    return NULL;
}
