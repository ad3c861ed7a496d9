/* wan/token.h, wan/pair.h and wan/invite.h: what people paste and what strangers and files say. */
#include <string.h>

#include "base/assert.h"
#include "tests/fuzz/fuzz.h"
#include "wan/invite.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err_detail d;
    struct token t, again;
    char *text = mem_alloc(size + 1), out[TOKEN_TEXT_MAX];
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    if (token_from_text(text, &t, &d) == 0) {
        token_to_text(&t, out);
        ASSERT(token_from_text(out, &again, &d) == 0);
        ASSERT(memcmp(&t.secret, &again.secret, sizeof t.secret) == 0);
        ASSERT(strcmp(t.address, again.address) == 0);
    }
    mem_free(text);

    struct slice s = slice_of(data, size);
    uint8_t id[INVITE_ID_BYTES];
    struct pair_site site;
    struct pair_channel channel = {.exporter = {1}};
    struct invite_key key;
    const uint8_t secret[TOKEN_SECRET_BYTES] = {7};
    if (pair_request_decode(s, id, &site) == 0)
        ASSERT(pair_name_valid(site.name) && site.cert.len <= PAIR_CERT_MAX);
    if (size < PAIR_REQUEST_MAX) {
        pair_key_make(secret, &key);
        ASSERT(pair_request_verify(s, &key, &channel) != 0); /* nobody guesses a signature */
    }
    struct invites v;
    if (invites_from_json(s, &v, &d) == 0)
        ASSERT(v.count <= INVITES_MAX);
    return 0;
}
