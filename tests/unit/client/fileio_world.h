/* A small site in memory, and two mounts of it, each with its own caches. */
#ifndef TESTS_FILEIO_WORLD_H
#define TESTS_FILEIO_WORLD_H

#include "base/clock.h"
#include "client/fileio.h"
#include "data/chunk_id.h"

#define FILES_MAX 4u

struct site_file {
    uint64_t seq;
    struct content content; /* inline bytes owned */
    int64_t mtime_ns;
    unsigned opens;
};
struct site {
    pthread_mutex_t lock;
    pthread_cond_t was_put;
    struct site_file files[FILES_MAX];
    struct id_map chunks; /* id -> index + 1 */
    struct buf *sealed;
    size_t sealed_count, sealed_cap;
    uint64_t commits, stale, puts, rides, requests;
    uint64_t served;  /* bytes of chunks */
    int fail_commits; /* so many fail with NO_SPACE */
    bool spoil;       /* what is given of a chunk in part is damaged */
    int fail_puts;    /* so many fail with NO_SPACE */
    struct {
        bool (*fn)(void *ctx); /* asked at each put of a chunk, in the thread that puts; or NULL */
        void *ctx;
        unsigned yes, no; /* answers */
    } at_put;
};
struct client {
    struct conn *conn;
    struct inode_table *inodes;
    struct inode_clock clock;
    struct flight flight;
    struct fileio *io;
    unsigned pages_changed; /* not exact under threads; only for single-threaded tests */
};
struct fixture {
    struct site site;
    struct client a, b;
};

int setup(void **state);       /* *state: struct fixture */
int setup_roomy(void **state); /* with as much memory as a mount has */
int teardown(void **state);
struct oid oid_of(uint64_t n);
/* A client's handle of file `n`; and its end. */
struct open_file *open_nth(struct client *c, uint64_t n);
void done(struct client *c, struct open_file *h);
void put(struct client *c, struct open_file *h, uint64_t at, const void *p, size_t len);
/* The same in buffers, as the kernel's requests come; at most 1 MiB. */
void put_pages(struct client *c, struct open_file *h, uint64_t at, const uint8_t *p, size_t len);
void check(struct client *c, struct open_file *h, uint64_t at, const void *p, size_t len);
/* The site tells this mount that file `n` changed. */
void told(struct client *c, uint64_t n);
uint8_t *make_bytes(size_t len, bool compressible); /* mem_free */

#endif
