/* Insides of simulated disks, shared by disk*.c. */
#ifndef SIM_DISK_INT_H
#define SIM_DISK_INT_H

#include "sim/disk.h"

#define PAGE ((size_t)4096)
#define SECTOR ((size_t)512)
#define DISKS_MAX (3 * WORLD_SITES_MAX) /* of sites of three nodes, too */
#define FDS_MAX 16384
#define DISK_NAME_HINTS 1024u /* a power of two */

/* What is in a page, up to the last byte that is not zero, more or less: journals pad their blocks,
 * and a long run writes millions of them. */
struct bytes {
    uint8_t *at; /* NULL: all zeros */
    uint16_t len;
};
struct page {
    struct bytes cur;    /* what is read */
    struct bytes stable; /* while dirty: what a loss of power leaves */
    bool dirty;
};
struct inode {
    uint32_t refs; /* names, descriptors, undo records */
    bool dir;
    uint64_t number, size, stable_size;
    struct page *pages;
    size_t page_count;
    bool dirty;
};
struct name {
    char *path;
    uint64_t hash; /* of the path: most names differ here already */
    struct inode *inode;
};
struct undo { /* one change of a directory that is not synced */
    char *dir;
    struct {
        char *path;
        struct inode *old; /* NULL: it was not there */
    } at[2];
    unsigned count;
    struct undo *prev; /* older */
};
struct disk {
    char *root;
    struct world_disk config;
    enum disk_room room;
    unsigned failing; /* calls, enum disk_call */
    uint32_t failing_count;
    uint64_t failures;
    unsigned power_calls; /* until power goes; 0: it does not */
    bool power_few;       /* of those that change more than what is in a file */
    bool power_off;
    struct machine *machine; /* whose power it is */
    struct name *names;
    size_t name_count, name_cap;
    uint32_t name_hints[DISK_NAME_HINTS]; /* by hash: where a name was found last */
    struct undo *undos;                   /* newest first */
    struct disk_blob *blobs;
    uint64_t number;
};
struct fd {
    struct disk *disk; /* NULL: free */
    struct inode *inode;
    char *path;
    uint64_t pos;
    bool ghost;
};

struct disk_blob *disk_blobs(struct disk *d); /* the first */
struct fd *disk_fd(int fd);                   /* an open one */

void disk_inode_unref(struct inode *n); /* NULL: nothing */
void disk_inode_write(
    struct inode *n, uint64_t offset, const uint8_t *data, size_t len, bool durable);
size_t disk_inode_read(const struct inode *n, uint64_t offset, uint8_t *to, size_t len);
void disk_inode_sync(struct inode *n);
void disk_inode_truncate(struct inode *n, uint64_t size);
void disk_bytes_clear(struct bytes *b);
void disk_bytes_grow(struct bytes *b, size_t len);
void disk_bytes_put(struct bytes *b, size_t from, const uint8_t *data, size_t len);
void disk_bytes_get(const struct bytes *b, size_t from, uint8_t *to, size_t len);

#endif
