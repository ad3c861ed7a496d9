/* site/unsent.h: the list that a site keeps while it comes back. Whatever the file holds, decoding
 * ends with an error or a list; and what was decoded encodes and decodes to itself. The input is
 * the inside: the hash around it is made here, or nothing would get past it. */
#include <sodium.h>
#include <string.h>

#include "base/assert.h"
#include "site/unsent.h"
#include "tests/fuzz/fuzz.h"

enum {
    HASH_BYTES = 16
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char magic[] = "CFSUNSE1";
    uint8_t hash[HASH_BYTES];
    struct buf file = {0}, again = {0}, third = {0};
    struct unsent u, v;
    int rc = unsent_decode(slice_of(data, size), &u);
    ASSERT(rc != 0); /* nobody guesses the hash */
    unsent_deinit(&u);
    buf_append(&file, magic, sizeof magic - 1);
    buf_append(&file, data, size);
    (void)crypto_generichash(hash, sizeof hash, file.ptr, file.len, NULL, 0); /* never fails so */
    buf_append(&file, hash, sizeof hash);
    if (unsent_decode(buf_slice(&file), &u) == 0) {
        unsent_encode(&u, &again);
        rc = unsent_decode(buf_slice(&again), &v);
        ASSERT(rc == 0);
        unsent_encode(&v, &third);
        ASSERT(slice_equal(buf_slice(&again), buf_slice(&third)));
        unsent_deinit(&v);
    }
    unsent_deinit(&u);
    buf_deinit(&file);
    buf_deinit(&again);
    buf_deinit(&third);
    return 0;
}
