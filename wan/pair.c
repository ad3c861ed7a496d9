/* Pairing messages and proofs; see pair.h. */
#include "wan/pair.h"

#include <sodium.h>

#include "base/assert.h"
#include "base/mp.h"

#define REQUEST_FIELDS 7u
#define GRANT_FIELDS 6u

static void
derive(const uint8_t secret[TOKEN_SECRET_BYTES], const char *what, uint8_t *out, size_t len)
{
    int rc = crypto_generichash(out, len, (const uint8_t *)what, strlen(what), secret,
                                TOKEN_SECRET_BYTES);
    ASSERT(rc == 0);
}

struct secret_keys {
    uint8_t sign_pk[crypto_sign_PUBLICKEYBYTES], sign_sk[crypto_sign_SECRETKEYBYTES];
    uint8_t box_pk[crypto_box_PUBLICKEYBYTES], box_sk[crypto_box_SECRETKEYBYTES];
};

static void keys_make(const uint8_t secret[TOKEN_SECRET_BYTES], struct secret_keys *k)
{
    _Static_assert(crypto_sign_SEEDBYTES == 32 && crypto_box_SEEDBYTES == 32, "one seed size");
    uint8_t seed[32];
    derive(secret, "claudefs pair sign", seed, sizeof seed);
    int rc = crypto_sign_seed_keypair(k->sign_pk, k->sign_sk, seed);
    ASSERT(rc == 0);
    derive(secret, "claudefs pair box", seed, sizeof seed);
    rc = crypto_box_seed_keypair(k->box_pk, k->box_sk, seed);
    ASSERT(rc == 0);
    sodium_memzero(seed, sizeof seed);
}

void pair_key_make(const uint8_t secret[TOKEN_SECRET_BYTES], struct invite_key *ret)
{
    struct secret_keys k;
    keys_make(secret, &k);
    uint8_t id[16];
    derive(secret, "claudefs pair id", id, sizeof id);
    memcpy(ret->id, id, sizeof ret->id);
    memcpy(ret->sign_pk, k.sign_pk, sizeof ret->sign_pk);
    memcpy(ret->box_pk, k.box_pk, sizeof ret->box_pk);
    sodium_memzero(&k, sizeof k);
}

bool pair_name_valid(const char *name)
{
    static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    size_t len = strlen(name);
    return len > 0 && len <= PAIR_NAME_MAX && strspn(name, good) == len;
}

static void site_encode(const struct pair_site *p, struct buf *out)
{
    mp_uint(out, p->site);
    mp_cstr(out, p->name);
    mp_cstr(out, p->address);
    mp_bin(out, p->cert);
}

void pair_text_decode(struct mp *m, char *out, size_t len_max)
{
    struct slice s = mp_get_bin(m, len_max);
    if (m->rc != 0)
        return;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < 0x21 || s.ptr[i] > 0x7e) /* also shown to people */
            mp_fail(m, ERR_MALFORMED);
        out[i] = (char)s.ptr[i];
    }
    out[s.len] = '\0';
}

static void site_decode(struct mp *m, struct pair_site *ret)
{
    *ret = (struct pair_site){.site = (site_id_t)mp_get_uint(m, UINT32_MAX)};
    pair_text_decode(m, ret->name, PAIR_NAME_MAX);
    pair_text_decode(m, ret->address, TOKEN_ADDRESS_MAX);
    ret->cert = mp_get_bin(m, PAIR_CERT_MAX);
    if (m->rc == 0 && (ret->site == 0 || !pair_name_valid(ret->name)))
        mp_fail(m, ERR_MALFORMED);
}

/* What is signed: the channel, and the request's bytes before the signature. */
static void transcript_make(const struct pair_channel *c,
                            struct slice said,
                            uint8_t out[crypto_generichash_BYTES])
{
    static const uint8_t what[] = "claudefs pair transcript 1";
    crypto_generichash_state st;
    (void)crypto_generichash_init(&st, NULL, 0, crypto_generichash_BYTES); /* all always 0 */
    (void)crypto_generichash_update(&st, what, sizeof what);
    (void)crypto_generichash_update(&st, c->exporter, sizeof c->exporter);
    (void)crypto_generichash_update(&st, c->inviter, sizeof c->inviter);
    (void)crypto_generichash_update(&st, c->joiner, sizeof c->joiner);
    (void)crypto_generichash_update(&st, said.ptr, said.len);
    (void)crypto_generichash_final(&st, out, crypto_generichash_BYTES);
}

void pair_request_encode(const uint8_t secret[TOKEN_SECRET_BYTES],
                         const struct pair_channel *channel,
                         const struct pair_site *me,
                         struct buf *out)
{
    struct invite_key key;
    struct secret_keys k;
    uint8_t transcript[crypto_generichash_BYTES], sig[crypto_sign_BYTES];
    pair_key_make(secret, &key);
    keys_make(secret, &k);
    size_t start = out->len;
    mp_array(out, REQUEST_FIELDS);
    mp_uint(out, PAIR_VERSION);
    mp_bin(out, slice_of(key.id, sizeof key.id));
    site_encode(me, out);
    transcript_make(channel, slice_of(out->ptr + start, out->len - start), transcript);
    (void)crypto_sign_detached(sig, NULL, transcript, sizeof transcript, k.sign_sk); /* always 0 */
    mp_bin(out, slice_of(sig, sizeof sig));
    sodium_memzero(&k, sizeof k);
}

/* Reads a request; *ret_said = its bytes before the signature. */
static int request_read(struct slice s,
                        uint8_t id[INVITE_ID_BYTES],
                        struct pair_site *joiner,
                        struct slice *ret_said,
                        struct slice *ret_sig)
{
    struct mp m = mp_of(s);
    uint32_t fields = mp_get_array(&m, 64);
    uint64_t version = mp_get_uint(&m, UINT32_MAX);
    if (m.rc == 0 && version != PAIR_VERSION)
        return ERR_VERSION;
    if (fields != REQUEST_FIELDS)
        mp_fail(&m, ERR_MALFORMED);
    struct slice got = mp_get_bin_exact(&m, INVITE_ID_BYTES);
    if (m.rc == 0)
        memcpy(id, got.ptr, INVITE_ID_BYTES);
    site_decode(&m, joiner);
    if (m.rc == 0)
        *ret_said = slice_of(s.ptr, (size_t)(m.at - s.ptr));
    *ret_sig = mp_get_bin_exact(&m, crypto_sign_BYTES);
    return mp_end(&m);
}

int pair_request_decode(struct slice s,
                        uint8_t ret_invite_id[INVITE_ID_BYTES],
                        struct pair_site *ret_joiner)
{
    struct slice said, sig;
    return request_read(s, ret_invite_id, ret_joiner, &said, &sig);
}

int pair_request_verify(struct slice s,
                        const struct invite_key *key,
                        const struct pair_channel *channel)
{
    uint8_t id[INVITE_ID_BYTES], transcript[crypto_generichash_BYTES];
    struct pair_site joiner;
    struct slice said, sig;
    int rc = request_read(s, id, &joiner, &said, &sig);
    if (rc != 0)
        return rc;
    transcript_make(channel, said, transcript);
    bool good =
        sodium_memcmp(id, key->id, sizeof id) == 0 &&
        crypto_sign_verify_detached(sig.ptr, transcript, sizeof transcript, key->sign_pk) == 0;
    return good ? 0 : ERR_AUTH;
}

void pair_grant_seal(const struct pair_grant *g, const struct invite_key *key, struct buf *out)
{
    struct buf plain = {0};
    mp_array(&plain, GRANT_FIELDS);
    mp_uint(&plain, g->shard_count);
    mp_bin(&plain, slice_of(g->fs_key, sizeof g->fs_key));
    site_encode(&g->inviter, &plain);
    buf_reserve(out, plain.len + crypto_box_SEALBYTES);
    int rc = crypto_box_seal(out->ptr + out->len, plain.ptr, plain.len, key->box_pk);
    ASSERT(rc == 0);
    out->len += plain.len + crypto_box_SEALBYTES;
    sodium_memzero(plain.ptr, plain.len);
    buf_deinit(&plain);
}

int pair_grant_open(struct slice s,
                    const uint8_t secret[TOKEN_SECRET_BYTES],
                    struct buf *plain,
                    struct pair_grant *ret)
{
    if (s.len < crypto_box_SEALBYTES || s.len > PAIR_REQUEST_MAX)
        return ERR_MALFORMED;
    struct secret_keys k;
    keys_make(secret, &k);
    buf_clear(plain);
    buf_reserve(plain, s.len);
    int rc = crypto_box_seal_open(plain->ptr, s.ptr, s.len, k.box_pk, k.box_sk);
    sodium_memzero(&k, sizeof k);
    if (rc != 0)
        return ERR_AUTH;
    plain->len = s.len - crypto_box_SEALBYTES;
    struct mp m = mp_of(buf_slice(plain));
    if (mp_get_array(&m, 64) != GRANT_FIELDS)
        mp_fail(&m, ERR_MALFORMED);
    struct pair_grant g = {.shard_count = (unsigned)mp_get_uint(&m, SHARD_COUNT_MAX)};
    struct slice key = mp_get_bin_exact(&m, sizeof g.fs_key);
    if (m.rc == 0)
        memcpy(g.fs_key, key.ptr, sizeof g.fs_key);
    site_decode(&m, &g.inviter);
    if (g.shard_count == 0)
        mp_fail(&m, ERR_MALFORMED);
    rc = mp_end(&m);
    if (rc == 0)
        *ret = g;
    sodium_memzero(&g, sizeof g);
    return rc;
}
