/* site/proto.h: any bytes are refused or read, and what was read is written so that it reads the
 * same. The first byte chooses between request and reply. */
#include "base/assert.h"
#include "site/proto.h"
#include "tests/fuzz/fuzz.h"

static void request_check(struct slice s, struct op_arena *arena)
{
    struct fs_request first, second;
    if (fs_request_decode(s, arena, &first) != 0)
        return;
    struct buf once = {0}, twice = {0};
    fs_request_encode(&first, &once);
    int rc = fs_request_decode(buf_slice(&once), arena, &second);
    ASSERT(rc == 0);
    fs_request_encode(&second, &twice);
    ASSERT(slice_equal(buf_slice(&once), buf_slice(&twice)));
    buf_deinit(&once);
    buf_deinit(&twice);
}

static void reply_check(struct slice s, struct op_arena *arena)
{
    struct fs_reply first, second;
    if (fs_reply_decode(s, arena, &first) != 0)
        return;
    struct buf once = {0}, twice = {0};
    fs_reply_encode(&first, &once);
    int rc = fs_reply_decode(buf_slice(&once), arena, &second);
    ASSERT(rc == 0);
    fs_reply_encode(&second, &twice);
    ASSERT(slice_equal(buf_slice(&once), buf_slice(&twice)));
    buf_deinit(&once);
    buf_deinit(&twice);
}

/* What was read of a commit's bulk lies in it, in order, and is all of it. */
static void riders_check(struct slice s)
{
    struct rider riders[RIDERS_MAX];
    uint32_t count = 0;
    if (riders_decode(s, riders, &count) != 0)
        return;
    struct buf again = {0};
    for (uint32_t i = 0; i < count; i++)
        rider_append(&again, riders[i].id, riders[i].sealed);
    ASSERT(slice_equal(buf_slice(&again), s));
    buf_deinit(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct op_arena arena = {0};
    if (size == 0)
        return 0;
    struct slice s = slice_of(data + 1, size - 1);
    if ((data[0] & 1) == 0)
        request_check(s, &arena);
    else
        reply_check(s, &arena);
    riders_check(s);
    op_arena_deinit(&arena);
    return 0;
}
