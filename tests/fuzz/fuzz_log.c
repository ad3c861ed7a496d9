/* The journal's segment format. First byte even: the input is a segment as found on a disk. Odd: a
 * script that writes records into a segment the way the log does and then overwrites bytes; every
 * record that is still read must be the one written, and all before the first damage must be. */
#include <string.h>

#include "base/assert.h"
#include "journal/log_format_int.h"
#include "tests/fuzz/fuzz.h"

#define SEGMENT ((size_t)(64u * KIB))
#define RECORDS_MAX 256u
#define SALT 0x5a17u
#define NUMBER 9u

static void walk_raw(const uint8_t *data, size_t size)
{
    struct log_header header;
    if (size < LOG_BLOCK || log_header_decode(data, &header) != 0)
        header = (struct log_header){.salt = SALT, .number = NUMBER, .first = 1};
    struct log_chain chain = {
        .bytes = slice_of(data, size),
        .place = {.salt = header.salt, .number = header.number, .offset = LOG_BLOCK},
        .index = header.first};
    struct log_record record;
    size_t bytes;
    uint64_t index = header.first;
    while (log_chain_next(&chain, &record, &bytes) == LOG_STEP_RECORD) {
        ASSERT_EQ(record.index, index);
        ASSERT(record.payload.ptr >= data && record.payload.len <= size &&
               record.payload.ptr + record.payload.len <= data + size);
        index++;
    }
    struct log_evidence evidence;
    log_evidence_find(&chain, (header.flags & LOG_HEADER_RECYCLED) != 0, &evidence);
    ASSERT(evidence.end >= chain.place.offset);
    (void)log_break_is_damage(&chain, evidence.durable);
}

struct written {
    size_t offset, len; /* of the payload */
};
struct script {
    const uint8_t *at, *end;
};

static uint32_t draw(struct script *s, uint32_t below)
{
    uint32_t v = 0;
    for (int i = 0; i < 2 && s->at < s->end; i++)
        v = v << 8 | *s->at++;
    return v % below;
}

static uint32_t
write_records(struct script *s, uint8_t *segment, struct written *ret, size_t *ret_end)
{
    size_t offset = LOG_BLOCK;
    uint32_t count = 0, first = 1; /* of the write */
    while (count < RECORDS_MAX && s->at < s->end) {
        uint32_t pick = draw(s, 4096);
        if (pick % 4 == 0) { /* the next write */
            offset = (size_t)log_block_up(offset);
            first = count + 1;
        }
        size_t len = 1 + pick;
        if (offset + log_record_bytes(len) > SEGMENT || pick % 64 == 63)
            break;
        memset(segment + offset + LOG_RECORD_HEADER, (int)(count + 1), len);
        log_record_seal(segment + offset, len,
                        (struct log_place){.salt = SALT, .number = NUMBER, .offset = offset},
                        count + 1, 1, first - 1);
        ret[count++] = (struct written){.offset = offset + LOG_RECORD_HEADER, .len = len};
        offset += log_record_bytes(len);
    }
    *ret_end = offset;
    return count;
}

static void walk_damaged(struct script *s)
{
    static uint8_t segment[SEGMENT];
    static struct written written[RECORDS_MAX];
    size_t end, damage = SEGMENT, bytes;
    memset(segment, 0, sizeof segment);
    uint32_t count = write_records(s, segment, written, &end);
    while (s->at < s->end) {
        size_t at = LOG_BLOCK + draw(s, (uint32_t)(end - LOG_BLOCK + 1)) % (SEGMENT - LOG_BLOCK);
        uint8_t byte = (uint8_t)draw(s, 256);
        if (segment[at] != byte && at < damage)
            damage = at;
        segment[at] = byte;
    }
    struct log_chain chain = {.bytes = slice_of(segment, SEGMENT),
                              .place = {.salt = SALT, .number = NUMBER, .offset = LOG_BLOCK},
                              .index = 1};
    struct log_record record;
    while (log_chain_next(&chain, &record, &bytes) == LOG_STEP_RECORD) {
        ASSERT(record.index <= count);
        const struct written *w = &written[record.index - 1];
        ASSERT(record.payload.ptr == segment + w->offset && record.payload.len == w->len);
        for (size_t i = 0; i < w->len; i++)
            ASSERT(record.payload.ptr[i] == (uint8_t)record.index);
    }
    if (chain.index <= count) {
        const struct written *lost = &written[chain.index - 1];
        ASSERT(damage < lost->offset + lost->len + LOG_RECORD_ALIGN);
    }
    struct log_evidence evidence;
    log_evidence_find(&chain, false, &evidence);
    ASSERT(evidence.durable <= count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct script script = {.at = data + 1, .end = data + size};
    if (data[0] % 2 == 0)
        walk_raw(data + 1, size - 1);
    else
        walk_damaged(&script);
    return 0;
}
