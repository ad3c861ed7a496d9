/* The coordinator of a one-node site: records in local files. See coordinator.h. */
#include "site/coordinator.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/codec.h"
#include "site/settings.h"

/* magic 4 | version, epoch, primary, lease_ns, stamp_max 8 each | count 4 | in_sync 8 each |
 * checksum 8. Format 1 had the lease's end by the wall clock for lease_ns, and no stamp_max. */
#define RECORD_MAGIC_1 0x31524343u /* "CCR1" */
#define RECORD_MAGIC 0x32524343u   /* "CCR2" */
#define RECORD_BYTES_1 (4u + 8u * 4u + 4u + 8u * COORDINATOR_REPLICAS_MAX + 8u)
#define RECORD_BYTES (RECORD_BYTES_1 + 8u)

struct coordinator {
    char *dir;
};

int coordinator_open_local(struct coordinator **ret, const char *dir, struct err_detail *d)
{
    char *path = mem_printf("%s/coordinator", dir);
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        err_detail_set(d, "cannot make %s: %s", path, strerror(errno));
        mem_free(path);
        return err_from_errno(errno);
    }
    struct coordinator *c = mem_calloc(1, sizeof *c);
    c->dir = path;
    *ret = c;
    return 0;
}

void coordinator_close(struct coordinator *c)
{
    if (c != NULL)
        mem_free(c->dir);
    mem_free(c);
}

static void file_name(shard_id_t shard, char out[24])
{
    static const char digits[] = "0123456789";
    memcpy(out, "shard-000", 10);
    for (int i = 8; i >= 6; i--, shard = (shard_id_t)(shard / 10))
        out[i] = digits[shard % 10];
}

static int record_decode_file(struct slice bytes, struct shard_record *ret)
{
    struct dec in = dec_of(bytes);
    struct shard_record r = {0};
    bool first = dec_u32(&in) == RECORD_MAGIC_1;
    r.version = dec_u64(&in);
    r.epoch = dec_u64(&in);
    r.primary = dec_u64(&in);
    r.lease_ns = dec_u64(&in);
    if (first)
        r.lease_ns = 0;
    else
        r.stamp_max = dec_u64(&in);
    r.in_sync_count = dec_u32(&in);
    for (unsigned i = 0; i < COORDINATOR_REPLICAS_MAX; i++)
        r.in_sync[i] = dec_u64(&in);
    if (dec_u64(&in) != fnv1a(slice_of(bytes.ptr, bytes.len - 8)) || dec_end(&in) != 0 ||
        r.in_sync_count > COORDINATOR_REPLICAS_MAX)
        return ERR_CORRUPT;
    *ret = r;
    return 0;
}

int coordinator_get(struct coordinator *c,
                    shard_id_t shard,
                    struct shard_record *ret,
                    struct err_detail *d)
{
    static const uint8_t magics[2][4] = {"CCR2", "CCR1"};
    static const size_t sizes[2] = {RECORD_BYTES, RECORD_BYTES_1};
    char name[24];
    uint8_t bytes[RECORD_BYTES];
    file_name(shard, name);
    char *path = mem_printf("%s/%s", c->dir, name);
    bool there = access(path, F_OK) == 0;
    mem_free(path);
    if (!there) {
        *ret = (struct shard_record){0}; /* nobody has led it yet */
        return 0;
    }
    int rc = ERR_CORRUPT;
    for (unsigned i = 0; i < 2 && rc == ERR_CORRUPT; i++) {
        rc = dir_file_read(c->dir, name, bytes, sizes[i], d);
        if (rc == 0 && memcmp(bytes, magics[i], sizeof magics[i]) != 0)
            rc = ERR_CORRUPT;
        if (rc == 0)
            rc = record_decode_file(slice_of(bytes, sizes[i]), ret);
    }
    if (rc == ERR_CORRUPT)
        err_detail_set(d,
                       "%s/%s is damaged: remove it while the daemon is stopped; the epoch then "
                       "goes on from the journal's",
                       c->dir, name);
    return rc;
}

int coordinator_swap(struct coordinator *c,
                     shard_id_t shard,
                     uint64_t expected,
                     const struct shard_record *record,
                     struct err_detail *d)
{
    struct shard_record now;
    struct buf b = {0};
    char name[24];
    int rc = coordinator_get(c, shard, &now, d);
    if (rc != 0)
        return rc;
    if (now.version != expected)
        return ERR_STALE_BASE;
    file_name(shard, name);
    enc_u32(&b, RECORD_MAGIC);
    enc_u64(&b, expected + 1);
    enc_u64(&b, record->epoch);
    enc_u64(&b, record->primary);
    enc_u64(&b, record->lease_ns);
    enc_u64(&b, record->stamp_max);
    enc_u32(&b, record->in_sync_count);
    for (unsigned i = 0; i < COORDINATOR_REPLICAS_MAX; i++)
        enc_u64(&b, record->in_sync[i]);
    enc_u64(&b, fnv1a(buf_slice(&b)));
    ASSERT(b.len == RECORD_BYTES);
    rc = dir_file_write(c->dir, name, b.ptr, b.len, d);
    buf_deinit(&b);
    return rc;
}
