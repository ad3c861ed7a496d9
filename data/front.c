/* One address for the chunk stores of a node. See data/front.h. */
#include "data/front.h"

#include "base/assert.h"
#include "base/plant.h"

struct front {
    struct redundancy redundancy;
    unsigned width;
    size_t count;
    struct target *targets;
    struct store **stores;
};

int front_new(struct front **ret,
              const struct front_target *targets,
              size_t count,
              const struct redundancy *r)
{
    if (redundancy_validate(r) != 0 || redundancy_width(r) > count)
        return ERR_INVALID;
    if (r->k > 1)
        return ERR_NOT_SUPPORTED;
    struct front *f = mem_calloc(1, sizeof *f);
    f->redundancy = *r;
    f->width = redundancy_width(r);
    f->count = count;
    f->targets = mem_calloc(count, sizeof *f->targets);
    f->stores = mem_calloc(count, sizeof(struct store *));
    for (size_t i = 0; i < count; i++) {
        f->targets[i] = targets[i].target;
        f->stores[i] = targets[i].store;
    }
    *ret = f;
    return 0;
}

void front_free(struct front *f)
{
    if (f == NULL)
        return;
    mem_free(f->targets);
    mem_free(f->stores);
    mem_free(f);
}

static void
pick(const struct front *f, const struct chunk_id *id, uint32_t ret[PLACEMENT_WIDTH_MAX])
{
    int rc = placement_pick(f->targets, f->count, &f->redundancy, id, ret);
    ASSERT_EQ(rc, 0); /* front_new has checked all that it may refuse */
}

/* ---- put ---- */

struct fan_put {
    struct store_put *whole;
    uint32_t open;
    int rc;
    struct part {
        struct store_put put;
        struct fan_put *fan;
    } parts[];
};

static void part_put(struct store_put *put, int rc)
{
    struct fan_put *fan = CONTAINER_OF(put, struct part, put)->fan;
    if (fan->rc == 0 && !PLANTED(134))
        fan->rc = rc;
    if (--fan->open > 0)
        return;
    struct store_put *whole = fan->whole;
    rc = fan->rc;
    mem_free(fan);
    whole->done(whole, rc);
}

int front_put(struct front *f, struct store_put *put)
{
    uint32_t idx[PLACEMENT_WIDTH_MAX];
    pick(f, &put->id, idx);
    if (f->width == 1)
        return store_put(f->stores[idx[0]], put);
    struct fan_put *fan = mem_calloc(1, sizeof *fan + f->width * sizeof fan->parts[0]);
    fan->whole = put;
    for (unsigned i = 0; i < f->width; i++) {
        struct part *part = &fan->parts[i];
        part->fan = fan;
        part->put = (struct store_put){.id = put->id, .data = put->data, .done = part_put};
        int rc = store_put(f->stores[idx[i]], &part->put);
        if (rc != 0 && fan->rc == 0)
            fan->rc = rc;
        fan->open += rc == 0;
    }
    if (fan->open > 0)
        return 0;
    int rc = fan->rc;
    mem_free(fan);
    return rc;
}

/* ---- get ---- */

struct fan_get {
    struct store_get *whole;
    struct store_get get;
    struct front *front;
    uint32_t idx[PLACEMENT_WIDTH_MAX];
    unsigned at; /* the next to ask */
    int rc;      /* the gravest so far */
};

static int graver(int a, int b)
{
    static const int order[] = {ERR_IO, ERR_CORRUPT};
    for (size_t i = 0; i < ARRAY_COUNT(order); i++) {
        if (a == order[i] || b == order[i])
            return order[i];
    }
    return a != ERR_NOT_FOUND ? a : b;
}

/* Asks the targets left until one takes the question. */
static int fan_next(struct fan_get *fan)
{
    int rc = ERR_NOT_FOUND;
    while (fan->at < fan->front->width) {
        rc = store_get(fan->front->stores[fan->idx[fan->at++]], &fan->get);
        if (rc == 0)
            return 0;
    }
    return rc;
}

static void part_got(struct store_get *get, int rc, struct chunk_buf *data)
{
    struct fan_get *fan = CONTAINER_OF(get, struct fan_get, get);
    if (rc != 0) {
        fan->rc = graver(fan->rc, rc);
        if (fan->at < fan->front->width && !PLANTED(135) && fan_next(fan) == 0)
            return;
        rc = fan->rc;
    }
    struct store_get *whole = fan->whole;
    whole->chunk_len = fan->get.chunk_len;
    mem_free(fan);
    whole->done(whole, rc, data);
}

int front_get(struct front *f, struct store_get *get)
{
    uint32_t idx[PLACEMENT_WIDTH_MAX];
    pick(f, &get->id, idx);
    if (f->width == 1)
        return store_get(f->stores[idx[0]], get);
    struct fan_get *fan = mem_calloc(1, sizeof *fan);
    fan->whole = get;
    fan->front = f;
    fan->rc = ERR_NOT_FOUND;
    fan->get = (struct store_get){.id = get->id,
                                  .from = get->from,
                                  .len = get->len,
                                  .room = get->room,
                                  .room_len = get->room_len,
                                  .done = part_got};
    memcpy(fan->idx, idx, sizeof idx);
    int rc = fan_next(fan);
    if (rc != 0)
        mem_free(fan);
    return rc;
}

/* ---- has ---- */

/* One question per target, about the ids that belong there. */
struct fan_has {
    struct store_has *whole;
    uint32_t open;
    int rc;
    uint32_t part_count;
    struct has_part {
        struct store_has has;
        struct fan_has *fan;
        struct chunk_id *ids;
        bool *present;
        uint32_t *at; /* in the whole question */
        uint32_t count;
    } parts[];
};

static void fan_has_free(struct fan_has *fan)
{
    for (uint32_t i = 0; i < fan->part_count; i++) {
        mem_free(fan->parts[i].ids);
        mem_free(fan->parts[i].present);
        mem_free(fan->parts[i].at);
    }
    mem_free(fan);
}

static void part_has(struct store_has *has, int rc)
{
    struct has_part *part = CONTAINER_OF(has, struct has_part, has);
    struct fan_has *fan = part->fan;
    struct store_has *whole = fan->whole;
    if (fan->rc == 0)
        fan->rc = rc;
    for (uint32_t i = 0; i < part->count; i++)
        whole->present[part->at[i]] =
            (whole->present[part->at[i]] && part->present[i]) || (PLANTED(136) && part->present[i]);
    if (--fan->open > 0)
        return;
    rc = fan->rc;
    fan_has_free(fan);
    whole->done(whole, rc);
}

static void part_add(struct has_part *part, const struct chunk_id *id, uint32_t at, uint32_t cap)
{
    if (part->ids == NULL) {
        part->ids = mem_calloc(cap, sizeof *part->ids);
        part->present = mem_calloc(cap, sizeof *part->present);
        part->at = mem_calloc(cap, sizeof *part->at);
    }
    part->ids[part->count] = *id;
    part->at[part->count++] = at;
}

int front_has(struct front *f, struct store_has *has)
{
    if (f->count == 1)
        return store_has(f->stores[0], has);
    if (has->count == 0 || has->count > STORE_HAS_MAX)
        return ERR_INVALID;
    struct fan_has *fan = mem_calloc(1, sizeof *fan + f->count * sizeof fan->parts[0]);
    fan->whole = has;
    fan->part_count = (uint32_t)f->count;
    for (uint32_t i = 0; i < has->count; i++) {
        uint32_t idx[PLACEMENT_WIDTH_MAX];
        pick(f, &has->ids[i], idx);
        for (unsigned j = 0; j < f->width; j++)
            part_add(&fan->parts[idx[j]], &has->ids[i], i, has->count);
        has->present[i] = true; /* until a target says no */
    }
    for (uint32_t i = 0; i < fan->part_count; i++) {
        struct has_part *part = &fan->parts[i];
        if (part->count == 0)
            continue;
        part->fan = fan;
        part->has = (struct store_has){.ids = part->ids,
                                       .count = part->count,
                                       .keep = has->keep,
                                       .present = part->present,
                                       .done = part_has};
        int rc = store_has(f->stores[i], &part->has);
        if (rc != 0 && fan->rc == 0)
            fan->rc = rc;
        fan->open += rc == 0;
    }
    if (fan->open > 0)
        return 0;
    int rc = fan->rc;
    fan_has_free(fan);
    return rc;
}
