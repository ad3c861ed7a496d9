/* Inodes of the simulated file system: pages, and what of them is durable. */
#include <string.h>

#include "sim/disk_int.h"

void disk_inode_unref(struct inode *n)
{
    if (n == NULL || --n->refs > 0)
        return;
    for (size_t i = 0; i < n->page_count; i++) {
        mem_free(n->pages[i].cur.at);
        mem_free(n->pages[i].stable.at);
    }
    mem_free(n->pages);
    mem_free(n);
}

static bool all_zero(const uint8_t *p, size_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

void disk_bytes_clear(struct bytes *b)
{
    mem_free(b->at);
    *b = (struct bytes){0};
}

void disk_bytes_grow(struct bytes *b, size_t len)
{
    if (len <= b->len)
        return;
    b->at = mem_realloc(b->at, len);
    memset(b->at + b->len, 0, len - b->len);
    b->len = (uint16_t)len;
}

void disk_bytes_put(struct bytes *b, size_t from, const uint8_t *data, size_t len)
{
    size_t needs = len; /* zeros beyond the end are there already */
    for (uint64_t word; needs >= sizeof word && from + needs > b->len; needs -= sizeof word) {
        memcpy(&word, data + needs - sizeof word, sizeof word);
        if (word != 0)
            break;
    }
    while (needs > 0 && from + needs > b->len && data[needs - 1] == 0)
        needs--;
    if (needs > 0)
        disk_bytes_grow(b, from + needs);
    if (from < b->len)
        memcpy(b->at + from, data, MIN(len, b->len - from));
}

void disk_bytes_get(const struct bytes *b, size_t from, uint8_t *to, size_t len)
{
    size_t there = from < b->len ? MIN(len, b->len - from) : 0;
    if (there > 0)
        memcpy(to, b->at + from, there);
    memset(to + there, 0, len - there);
}

static struct page *page_for(struct inode *n, size_t idx)
{
    if (idx >= n->page_count) {
        size_t count = MAX(idx + 1, n->page_count * 3 / 2);
        n->pages = mem_realloc(n->pages, count * sizeof n->pages[0]);
        memset(n->pages + n->page_count, 0, (count - n->page_count) * sizeof n->pages[0]);
        n->page_count = count;
    }
    return &n->pages[idx];
}

static void page_write(struct page *p, size_t from, const uint8_t *data, size_t len, bool durable)
{
    if (p->cur.at == NULL && all_zero(data, len) && (!durable || !p->dirty))
        return;
    if (!p->dirty && !durable) {
        p->dirty = true;
        if (p->cur.at != NULL)
            disk_bytes_put(&p->stable, 0, p->cur.at, p->cur.len);
    }
    disk_bytes_put(&p->cur, from, data, len);
    if (durable && p->dirty) /* these bytes only */
        disk_bytes_put(&p->stable, from, data, len);
}

void disk_inode_write(
    struct inode *n, uint64_t offset, const uint8_t *data, size_t len, bool durable)
{
    n->dirty |= !durable;
    n->size = MAX(n->size, offset + len);
    if (durable)
        n->stable_size = MAX(n->stable_size, offset + len);
    while (len > 0) {
        size_t in = (size_t)(offset % PAGE), step = MIN(len, PAGE - in);
        page_write(page_for(n, (size_t)(offset / PAGE)), in, data, step, durable);
        offset += step;
        data += step;
        len -= step;
    }
}

size_t disk_inode_read(const struct inode *n, uint64_t offset, uint8_t *to, size_t len)
{
    if (offset >= n->size)
        return 0;
    len = (size_t)MIN((uint64_t)len, n->size - offset);
    for (size_t left = len; left > 0;) {
        size_t in = (size_t)(offset % PAGE), step = MIN(left, PAGE - in);
        size_t idx = (size_t)(offset / PAGE);
        if (idx < n->page_count)
            disk_bytes_get(&n->pages[idx].cur, in, to, step);
        else
            memset(to, 0, step);
        offset += step;
        to += step;
        left -= step;
    }
    return len;
}

void disk_inode_sync(struct inode *n)
{
    for (size_t i = 0; n->dirty && i < n->page_count; i++)
        if (n->pages[i].dirty) {
            disk_bytes_clear(&n->pages[i].stable);
            n->pages[i].dirty = false;
        }
    n->dirty = false;
    n->stable_size = n->size;
}

void disk_inode_truncate(struct inode *n, uint64_t size)
{
    for (uint64_t at = size; at < n->size;) { /* what is cut off reads as zeros if it grows again */
        static const uint8_t zeros[PAGE];
        size_t in = (size_t)(at % PAGE), step = (size_t)MIN(PAGE - in, n->size - at);
        size_t idx = (size_t)(at / PAGE);
        if (idx < n->page_count && n->pages[idx].cur.at != NULL)
            page_write(&n->pages[idx], in, zeros, step, false);
        at += step;
    }
    n->dirty = true;
    n->size = size;
}
