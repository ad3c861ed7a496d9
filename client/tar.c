#include "client/tar.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"

#define BLOCK_BYTES 512u

/* Where the fields of a header are. */
enum {
    AT_NAME = 0,
    AT_MODE = 100,
    AT_UID = 108,
    AT_GID = 116,
    AT_SIZE = 124,
    AT_MTIME = 136,
    AT_SUM = 148,
    AT_TYPE = 156,
    AT_MAGIC = 257
};

static void put_octal(uint8_t *at, size_t width, uint64_t value)
{
    for (size_t i = width - 1; i-- > 0; value /= 8)
        at[i] = (uint8_t)('0' + value % 8);
}

void tar_add(struct buf *tar, const char *name, struct slice data, uint64_t mtime_s)
{
    uint8_t head[BLOCK_BYTES] = {0};
    static const uint8_t zeros[BLOCK_BYTES];
    unsigned sum = 0;
    ASSERT(strlen(name) < AT_MODE && name[0] != '/');
    memcpy(head + AT_NAME, name, strlen(name));
    put_octal(head + AT_MODE, 8, 0644);
    put_octal(head + AT_UID, 8, 0);
    put_octal(head + AT_GID, 8, 0);
    put_octal(head + AT_SIZE, 12, data.len);
    put_octal(head + AT_MTIME, 12, mtime_s);
    head[AT_TYPE] = '0';
    memcpy(head + AT_MAGIC, "ustar\00000", 8);
    memset(head + AT_SUM, ' ', 8);
    for (size_t i = 0; i < sizeof head; i++)
        sum += head[i];
    put_octal(head + AT_SUM, 7, sum);
    head[AT_SUM + 6] = 0;
    buf_append(tar, head, sizeof head);
    buf_append(tar, data.ptr, data.len);
    if (data.len % BLOCK_BYTES != 0)
        buf_append(tar, zeros, BLOCK_BYTES - data.len % BLOCK_BYTES);
}

void tar_end(struct buf *tar)
{
    static const uint8_t zeros[2 * BLOCK_BYTES];
    buf_append(tar, zeros, sizeof zeros);
}
