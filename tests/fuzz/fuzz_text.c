/* What people, scripts and other programs write as text: object ids, dots and chunk ids, the levels
 * of the log, a line of /etc/fstab, addresses of sites, requests for chunks. The first byte
 * chooses. What is taken is shown the same. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/id.h"
#include "base/log.h"
#include "client/mount_fstab.h"
#include "data/chunk_id.h"
#include "tests/fuzz/fuzz.h"
#include "wan/wan_h2.h"
#include "wan/way.h"

enum {
    WORDS_MAX = 12
};

static void check_oid(char *text)
{
    struct oid oid, again;
    char out[OID_TEXT_LEN + 1];
    if (oid_from_text(text, &oid) != 0)
        return;
    ASSERT(oid_valid(oid));
    oid_to_text(oid, out);
    int rc = oid_from_text(out, &again);
    ASSERT(rc == 0 && oid_equal(oid, again) && strlen(text) == strlen(out));
}

static void check_dot(char *text)
{
    struct dot dot, again;
    char out[DOT_TEXT_LEN];
    if (dot_from_text(text, &dot) != 0)
        return;
    dot_to_text(dot, out);
    int rc = dot_from_text(out, &again);
    ASSERT(rc == 0 && dot.shard == again.shard && dot.site == again.site && dot.seq == again.seq);
}

static void check_chunk_id(char *text)
{
    struct chunk_id id, again;
    char out[CHUNK_ID_TEXT_LEN + 1];
    if (chunk_id_from_text(text, &id) != 0)
        return;
    chunk_id_to_text(&id, out);
    int rc = chunk_id_from_text(out, &again);
    ASSERT(rc == 0 && memcmp(id.b, again.b, sizeof id.b) == 0);
}

static void check_levels(char *text)
{
    int before[LOG_AREA_COUNT];
    for (size_t i = 0; i < LOG_AREA_COUNT; i++) {
        log_level_set((enum log_area)i, LOG_INFO);
        before[i] = LOG_INFO;
    }
    bool taken = log_levels_parse(text) == 0;
    for (size_t i = 0; i < LOG_AREA_COUNT; i++) {
        int now = (int)log_level_get((enum log_area)i);
        ASSERT(taken ? now >= LOG_ERROR && now <= LOG_DEBUG : now == before[i]);
    }
}

static void check_address(char *text)
{
    char host[128], port[8], again[140];
    if (wan_address_split(text, host, port) != 0)
        return;
    ASSERT(host[0] != '\0' && strspn(port, "0123456789") == strlen(port) && port[0] != '\0');
    (void)snprintf(again, sizeof again, "[%s]:%s", host, port); /* fits */
    char host_again[128], port_again[8];
    int rc = wan_address_split(again, host_again, port_again);
    ASSERT(rc == 0 && strcmp(host, host_again) == 0 && strcmp(port, port_again) == 0);
}

static void check_chunk_request(char *text)
{
    struct chunk_id id, id_again;
    struct way way, way_again;
    char out[WAY_REQUEST_LEN + 1];
    if (way_request_parse(text, &id, &way) != 0)
        return;
    ASSERT(way.count <= WAY_MAX && !way_has(&way, 0));
    way_request_print(&id, &way, out);
    int rc = way_request_parse(out, &id_again, &way_again);
    ASSERT(rc == 0 && strlen(text) == strlen(out));
    ASSERT(chunk_id_equal(&id, &id_again) && way_equal(&way, &way_again));
}

static bool has_word(const char *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = list; at != NULL; at = strchr(at, ','), at += at != NULL)
        if (strncmp(at, word, len) == 0)
            return true;
    return false;
}

/* Lines of the text are the words. */
static void check_fstab(char *text)
{
    static char program[] = "mount.claudefs";
    char *argv[WORDS_MAX + 1] = {program}, *word;
    int argc = 1;
    struct fstab_args a;
    while (argc < WORDS_MAX && (word = strsep(&text, "\n")) != NULL)
        argv[argc++] = word;
    const char *no = fstab_args_parse(argc, argv, &a);
    ASSERT(no == NULL || no[0] != '\0'); /* it says why */
    if (no == NULL) {
        ASSERT(a.argc >= 5 && a.argc <= FSTAB_ARGS_MAX && a.argv[a.argc] == NULL);
        ASSERT(strcmp(a.argv[a.argc - 2], "--") == 0); /* a mount point is no option */
        for (int i = 0; i + 1 < a.argc; i++)
            if (strcmp(a.argv[i], "-o") == 0)
                ASSERT(!has_word(a.argv[i + 1], "x-") && !has_word(a.argv[i + 1], "key="));
    }
    fstab_args_deinit(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const checks[])(char *text) = {check_oid,          check_dot,   check_chunk_id,
                                                 check_levels,       check_fstab, check_address,
                                                 check_chunk_request};
    if (size == 0)
        return 0;
    char *text = mem_calloc(1, size);
    memcpy(text, data + 1, size - 1);
    checks[data[0] % ARRAY_COUNT(checks)](text);
    mem_free(text);
    return 0;
}
