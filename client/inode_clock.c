#include "client/inode_clock.h"

static uint32_t slot_of(struct oid oid)
{
    uint64_t h = fnv1a(slice_of(oid.b, sizeof oid.b));
    return (uint32_t)((h ^ h >> 32) % INODE_CLOCK_SLOTS);
}

void inode_clock_init(struct inode_clock *c)
{
    memset(c, 0, sizeof *c);
    c->now = 1;
    pthread_mutex_init(&c->lock, NULL);
}

void inode_clock_deinit(struct inode_clock *c)
{
    pthread_mutex_destroy(&c->lock);
}

uint64_t inode_clock_now(struct inode_clock *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t now = c->now;
    pthread_mutex_unlock(&c->lock);
    return now;
}

uint64_t inode_clock_tick(struct inode_clock *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t now = ++c->now;
    pthread_mutex_unlock(&c->lock);
    return now;
}

void inode_clock_hit(struct inode_clock *c, struct oid oid)
{
    pthread_mutex_lock(&c->lock);
    c->slots[slot_of(oid)] = ++c->now;
    pthread_mutex_unlock(&c->lock);
}

void inode_clock_hit_all(struct inode_clock *c)
{
    pthread_mutex_lock(&c->lock);
    c->all = ++c->now;
    c->generation++;
    pthread_mutex_unlock(&c->lock);
}

uint32_t inode_clock_generation(struct inode_clock *c)
{
    pthread_mutex_lock(&c->lock);
    uint32_t generation = c->generation;
    pthread_mutex_unlock(&c->lock);
    return generation;
}

void inode_clock_hit_forgotten(struct inode_clock *c, struct oid oid)
{
    pthread_mutex_lock(&c->lock);
    c->forgotten[slot_of(oid)] = ++c->now;
    pthread_mutex_unlock(&c->lock);
}

bool inode_clock_reply_fresh(struct inode_clock *c, struct oid oid, uint64_t since)
{
    uint32_t slot = slot_of(oid);
    pthread_mutex_lock(&c->lock);
    bool fresh = c->all <= since && c->slots[slot] <= since && c->forgotten[slot] <= since;
    pthread_mutex_unlock(&c->lock);
    return fresh;
}

bool inode_clock_fresh(struct inode_clock *c, struct oid oid, uint64_t since)
{
    pthread_mutex_lock(&c->lock);
    bool fresh = c->all <= since && c->slots[slot_of(oid)] <= since;
    pthread_mutex_unlock(&c->lock);
    return fresh;
}

void inode_clock_hit_attrs(struct inode_clock *c)
{
    pthread_mutex_lock(&c->lock);
    c->attrs = ++c->now;
    pthread_mutex_unlock(&c->lock);
}

bool inode_clock_attrs_fresh(struct inode_clock *c, struct oid oid, uint64_t since)
{
    pthread_mutex_lock(&c->lock);
    bool fresh = c->all <= since && c->attrs <= since && c->slots[slot_of(oid)] <= since;
    pthread_mutex_unlock(&c->lock);
    return fresh;
}
