/* sim/link_line.h: what people and scripts say to a link; and what is understood must leave a link
 * whose bytes come out in order and in time. */
#include <string.h>

#include "base/assert.h"
#include "sim/link_model.h"
#include "tests/fuzz/fuzz.h"

static void carry_some(struct link_model *m)
{
    uint8_t bytes[3000] = {0};
    uint64_t now = NS_PER_SEC;
    struct link_stream s[LINK_DIRECTIONS];
    link_model_begin(m, now, s);
    for (int i = 0; i < 4; i++) {
        for (enum link_direction way = LINK_TO; way < LINK_DIRECTIONS; way++) {
            uint64_t due, wait, before = s[way].last_ns;
            size_t room = link_model_room(m, way, now, &wait);
            ASSERT(room <= LINK_READ_MAX && (room > 0) == (wait == 0));
            (void)link_model_carry(m, way, &s[way], now, sizeof bytes, &due);
            ASSERT(due >= before && due >= now && due == s[way].last_ns);
            link_model_emit(m, way, bytes, sizeof bytes);
        }
        now += NS_PER_MS;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err_detail d = {.text = ""};
    struct link_command c;
    struct link_model m;
    link_model_init(&m, size);
    for (size_t at = 0, len; at < size; at += len + 1) { /* as they come out of the socket */
        const uint8_t *end = memchr(data + at, '\n', size - at);
        len = end != NULL ? (size_t)(end - (data + at)) : size - at;
        if (link_line_parse(slice_of(data + at, len), &c, &d) != 0) {
            ASSERT(d.text[0] != '\0');
            continue;
        }
        ASSERT(len <= LINK_LINE_MAX && (c.way[LINK_TO] || c.way[LINK_FROM]));
        if (c.verb == LINK_SET_TARGET) {
            char host[LINK_ADDRESS_MAX];
            uint16_t port;
            ASSERT(link_address_split(c.address, host, &port, &d) == 0);
        }
        link_model_obey(&m, &c);
    }
    carry_some(&m);
    return 0;
}
