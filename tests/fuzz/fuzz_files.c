/* Small files of a site's directory, which people edit and disks damage, and access control lists,
 * which users set: site.conf, a shard's record of the local coordinator, the last garbage pass of
 * the run before, and the rules of acl.c. The first byte chooses. What is taken reads the same when
 * it is written again. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "site/call.h"
#include "site/coordinator.h"
#include "site/gc_last.h"
#include "site/settings.h"
#include "tests/fuzz/fuzz.h"

static char dir[48];

static void remove_dir(void)
{
    static const char *const names[] = {"site.conf", "coordinator/shard-000", "coordinator", ""};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        char path[96];
        (void)snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        (void)remove(path); /* what is not there need not go */
    }
}

static void make_dir(void)
{
    if (dir[0] != '\0')
        return;
    (void)snprintf(dir, sizeof dir, "%s/fuzz-files-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    ASSERT(mkdtemp(dir) != NULL);
    ASSERT(atexit(remove_dir) == 0);
}

static void put_file(const char *name, struct slice s)
{
    char path[96];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ASSERT(fd >= 0);
    ssize_t written = write(fd, s.ptr, s.len);
    ASSERT(written == (ssize_t)s.len);
    (void)close(fd); /* it is in memory, or nobody's */
}

static void check_settings(struct slice text)
{
    struct site_settings one = {.site = 0}, two = {.site = 0};
    struct err_detail d = {{0}};
    put_file("site.conf", text);
    if (site_settings_load(dir, &one, &d) != 0) {
        ASSERT(d.text[0] != '\0'); /* it says why */
        return;
    }
    int rc = site_settings_save(dir, &one, &d);
    ASSERT(rc == 0);
    rc = site_settings_load(dir, &two, &d);
    ASSERT(rc == 0);
    ASSERT(one.site == two.site && one.shard_count == two.shard_count);
    ASSERT(strcmp(one.name, two.name) == 0 && strcmp(one.wan, two.wan) == 0);
    ASSERT(strcmp(one.listen, two.listen) == 0 && strcmp(one.http, two.http) == 0);
    ASSERT(one.trusted_network == two.trusted_network);
}

/* The checksum is against accidents: here it is made right, or nothing would get past it. */
static void sum_right(uint8_t *p, size_t len)
{
    uint64_t h = fnv1a(slice_of(p, len < 8 ? 0 : len - 8));
    for (size_t i = 0; i < 8 && len >= 8; i++)
        p[len - 8 + i] = (uint8_t)(h >> (8 * i));
}

static void check_record(struct slice bytes, bool sum)
{
    uint8_t *copy = mem_dup(bytes.ptr, bytes.len);
    if (sum)
        sum_right(copy, bytes.len);
    struct coordinator *c;
    struct err_detail d = {{0}};
    struct shard_record r;
    int rc = coordinator_open_local(&c, dir, &d);
    ASSERT(rc == 0);
    put_file("coordinator/shard-000", slice_of(copy, bytes.len));
    mem_free(copy);
    rc = coordinator_get(c, 0, &r, &d);
    ASSERT(rc != 0 ? d.text[0] != '\0' : r.in_sync_count <= COORDINATOR_REPLICAS_MAX);
    coordinator_close(c);
}

static void check_acl(struct slice acl, uint16_t mode)
{
    struct buf changed = {.ptr = NULL}, inherited = {.ptr = NULL};
    bool minimal;
    if (!acl_valid(acl))
        return;
    uint16_t bits = mode, child = mode;
    acl_mode(acl, &bits, &minimal);
    acl_chmod(acl, mode & 0777, &changed);
    ASSERT(acl_valid(buf_slice(&changed)));
    acl_mode(buf_slice(&changed), &bits, &minimal);
    ASSERT((bits & 0777) == (mode & 0777));
    acl_inherit(acl, &child, &inherited);
    ASSERT((child & ~mode & 0777) == 0); /* nobody gets what was not asked for */
    ASSERT(inherited.len == 0 || acl_valid(buf_slice(&inherited)));
    buf_deinit(&changed);
    buf_deinit(&inherited);
}

static void check_last_pass(struct slice bytes)
{
    struct gc_last_pass one, two;
    struct buf b = {.ptr = NULL};
    if (gc_last_decode(bytes, &one)) {
        ASSERT(one.epoch != 0);
        gc_last_encode(&one, &b);
        bool good = gc_last_decode(buf_slice(&b), &two);
        ASSERT(good && slice_equal(buf_slice(&b), bytes));
        ASSERT(one.epoch == two.epoch && one.age_ns == two.age_ns);
    }
    buf_deinit(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    struct slice rest = slice_of(data + 3, size - 3);
    make_dir();
    if (data[0] == 0xff) {
        check_last_pass(rest);
        return 0;
    }
    switch (data[0] % 3) {
    case 0:
        check_settings(rest);
        break;
    case 1:
        check_record(rest, data[1] % 2 != 0);
        break;
    default:
        check_acl(rest, (uint16_t)(data[1] << 8 | data[2]));
    }
    return 0;
}
