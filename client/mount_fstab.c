#include "client/mount_fstab.h"

#include <string.h>

#include "base/assert.h"
#include "base/util.h"

/* Of interest to mount(8), systemd and people only. */
static bool is_for_others(const char *word)
{
    static const char *const words[] = {"users", "group", "owner", "nouser", "nousers", "loud"};
    for (size_t i = 0; i < ARRAY_COUNT(words); i++)
        if (strcmp(word, words[i]) == 0)
            return true;
    return strncmp(word, "x-", 2) == 0 || strncmp(word, "X-", 2) == 0 ||
           strncmp(word, "comment=", 8) == 0;
}

static void add(struct fstab_args *a, char *word)
{
    ASSERT(a->argc < FSTAB_ARGS_MAX);
    a->argv[a->argc++] = word;
}

/* Takes key= out of the list, and what is not for the mount; the rest stays in `list`. */
static char *options_split(char *list)
{
    char *rest = list, *word, *to = list, *key = NULL;
    while ((word = strsep(&rest, ",")) != NULL) {
        size_t len = strlen(word);
        if (len == 0 || is_for_others(word))
            continue;
        if (strncmp(word, "key=", 4) == 0) {
            mem_free(key); /* the last one counts */
            key = mem_strdup(word + 4);
            continue;
        }
        if (to != list)
            *to++ = ',';
        memmove(to, word, len);
        to += len;
    }
    *to = '\0';
    return key;
}

const char *fstab_args_parse(int argc, char **argv, struct fstab_args *ret)
{
    static char name[] = "mount", dir[] = "--dir", site[] = "--site", key_word[] = "--key",
                o[] = "-o", end[] = "--";
    char *words[2] = {NULL, NULL}, *list = NULL, *key = NULL;
    int count = 0;
    memset(ret, 0, sizeof *ret);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-o") == 0 && i + 1 < argc)
            list = argv[++i];
        else if (strcmp(argv[i], "-t") == 0 && i + 1 < argc)
            i++; /* the type: it is ours */
        else if (argv[i][0] == '-' && argv[i][1] != '\0' &&
                 strspn(argv[i] + 1, "sfnvw") == strlen(argv[i] + 1))
            ret->is_fake = ret->is_fake || strchr(argv[i], 'f') != NULL;
        else if (argv[i][0] == '-' || count == 2)
            return "usage: mount.claudefs SITE MOUNTPOINT [-sfnv] [-o OPTIONS]";
        else
            words[count++] = argv[i];
    }
    if (count < 2)
        return "usage: mount.claudefs SITE MOUNTPOINT [-sfnv] [-o OPTIONS]";
    char *options = mem_strdup(list ? list : "");
    key = options_split(options);
    size_t options_len = strlen(options) + 1, key_len = key ? strlen(key) + 1 : 0;
    ret->memory = mem_calloc(1, options_len + key_len);
    memcpy(ret->memory, options, options_len);
    if (key)
        memcpy(ret->memory + options_len, key, key_len);
    add(ret, name);
    add(ret, strchr(words[0], '/') ? dir : site);
    add(ret, words[0]);
    if (key) {
        add(ret, key_word);
        add(ret, ret->memory + options_len);
    }
    if (ret->memory[0] != '\0') {
        add(ret, o);
        add(ret, ret->memory);
    }
    add(ret, end);
    add(ret, words[1]);
    mem_free(options);
    mem_free(key);
    return NULL;
}

void fstab_args_deinit(struct fstab_args *a)
{
    mem_free(a->memory);
    memset(a, 0, sizeof *a);
}
