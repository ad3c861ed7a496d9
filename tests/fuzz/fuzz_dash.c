/* client/dash_route.h and client/dash_history.h: what browsers and strangers send, what a file
 * holds. */
#include <string.h>

#include "base/assert.h"
#include "client/dash_history.h"
#include "client/dash_route.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char token[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    char *text = mem_alloc(size + 1);
    struct slice value;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    bool has_token = strstr(text, token) != NULL;
    struct dash_credentials c = {
        .authorization = text, .cookie = text, .query_token = text, .host = text};
    if (!has_token)
        ASSERT(dash_access_of(token, &c) == DASH_TOKEN_WRONG);
    (void)dash_access_of(NULL, &c); /* either answer is right; it must end */
    if (dash_cookie(text, DASH_COOKIE, &value))
        ASSERT(value.len < size);
    enum dash_route r = dash_route_of("GET", text);
    ASSERT(r != DASH_BAD_METHOD);
    mem_free(text);

    struct dash_history *h = dash_history_new();
    if (dash_history_decode(h, slice_of(data, size)) == 0) {
        struct buf out = {0};
        dash_history_encode(h, &out);
        ASSERT(out.len == size);
        buf_deinit(&out);
    }
    dash_history_free(h);
    return 0;
}
