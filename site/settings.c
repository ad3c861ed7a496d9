/* The site's directory: settings (site.conf), keys, and making a new one.
 *
 *   DIR/site.conf   name, site id, shards, addresses (INI, for people)
 *   DIR/fs.key      32 bytes: the file-system key; DIR/site.key: 32 bytes: what mounts prove
 *   DIR/shard-N/    journal/ and state/ of shard N;  DIR/chunks/  the chunk store
 *   DIR/sock        the Unix socket while the daemon runs;  DIR/lock  held by the daemon */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/plant.h"
#include "site/settings.h"

#define CONF_BYTES_MAX (64u * KIB)

bool site_settings_name_ok(const char *name)
{
    size_t len = strlen(name);
    if (len < 1 || len > 32)
        return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == len;
}

static bool address_ok(const char *a)
{
    const char *colon = strrchr(a, ':');
    char *end;
    if (a[0] == '\0')
        return true;
    if (colon == NULL || colon == a || colon[1] == '\0')
        return false;
    long port = strtol(colon + 1, &end, 10);
    return *end == '\0' && port >= 0 && port <= 65535;
}

int site_settings_check(const struct site_settings *s, struct err_detail *d)
{
    if (!site_settings_name_ok(s->name)) {
        err_detail_set(d, "site name \"%s\": use 1 to 32 of letters, digits, '-' and '_'", s->name);
        return ERR_CONFIG;
    }
    if (s->shard_count < 1 || s->shard_count > SHARD_COUNT_MAX) {
        err_detail_set(d, "shards = %u: use 1 to %u", s->shard_count, SHARD_COUNT_MAX);
        return ERR_CONFIG;
    }
    const char *const addresses[4] = {s->listen, s->wan, s->http, s->advertise};
    for (int i = 0; i < 4; i++)
        if (!address_ok(addresses[i]) && !(i == 2 && strcmp(s->http, "off") == 0)) {
            err_detail_set(d, "address \"%s\": use HOST:PORT", addresses[i]);
            return ERR_CONFIG;
        }
    return 0;
}

int dir_file_write(
    const char *dir, const char *name, const void *bytes, size_t len, struct err_detail *d)
{
    char *path = mem_printf("%s/%s", dir, name), *tmp = mem_printf("%s/.%s.new", dir, name);
    int rc = 0, fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write(fd, bytes, len) == (ssize_t)len && fsync(fd) == 0;
    ok = ok && rename(tmp, path) == 0;
    if (!ok) {
        rc = err_from_errno(errno != 0 ? errno : EIO);
        err_detail_set(d, "cannot write %s: %s", path, strerror(errno));
    }
    if (fd >= 0)
        close(fd);
    int dfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dfd >= 0) {
        if (ok && fsync(dfd) != 0)
            rc = err_from_errno(errno);
        close(dfd);
    }
    mem_free(path);
    mem_free(tmp);
    return rc;
}

int dir_file_remove(const char *dir, const char *name)
{
    char *path = mem_printf("%s/%s", dir, name);
    int rc = unlink(path) == 0 || errno == ENOENT ? 0 : err_from_errno(errno);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rc == 0 && (fd < 0 || fsync(fd) != 0))
        rc = err_from_errno(errno);
    if (fd >= 0)
        close(fd);
    mem_free(path);
    return rc;
}

int dir_file_read(const char *dir, const char *name, void *out, size_t len, struct err_detail *d)
{
    char *path = mem_printf("%s/%s", dir, name);
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t extra;
    if (fd < 0) {
        rc = err_from_errno(errno);
        err_detail_set(d, "cannot read %s: %s", path, strerror(errno));
    } else {
        ssize_t got = read(fd, out, len);
        ssize_t more = got == (ssize_t)len ? read(fd, &extra, 1) : 0;
        if (got < 0 || more < 0) {
            rc = err_from_errno(errno);
            err_detail_set(d, "cannot read %s: %s", path, strerror(errno));
        } else if (got != (ssize_t)len || more != 0) {
            rc = ERR_CORRUPT;
            err_detail_set(d, "%s: expected exactly %zu bytes: restore it from a backup", path,
                           len);
        }
    }
    if (fd >= 0)
        close(fd);
    mem_free(path);
    return rc;
}

int dir_remove(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *e;
    int rc = 0;
    if (dir == NULL)
        return errno == ENOENT ? 0 : err_from_errno(errno);
    while ((e = readdir(dir)) != NULL && rc == 0) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        char *child = mem_printf("%s/%s", path, e->d_name);
        if (lstat(child, &st) != 0)
            rc = err_from_errno(errno);
        else if (S_ISDIR(st.st_mode))
            rc = dir_remove(child);
        else if (unlink(child) != 0)
            rc = err_from_errno(errno);
        mem_free(child);
    }
    closedir(dir);
    if (rc == 0 && rmdir(path) != 0)
        rc = err_from_errno(errno);
    return rc;
}

int site_settings_save(const char *dir, const struct site_settings *s, struct err_detail *d)
{
    int rc = site_settings_check(s, d);
    if (rc != 0)
        return rc;
    char *text =
        mem_printf("; A ClaudeFS site. Change addresses here and restart the daemon;\n"
                   "; id and shards are fixed for life.\n"
                   "[site]\nname = %s\nid = %08x\nshards = %u\n"
                   "; where mounts connect over TCP (empty: Unix socket only)\nlisten = %s\n"
                   "; where other sites connect\nwan = %s\n"
                   "; what they are told to dial, when that is another address\n"
                   "advertise = %s\n"
                   "; metrics and dashboard\nhttp = %s\n"
                   "; yes: frames between mounts and this node are not sealed\n"
                   "trusted_network = %s\n",
                   s->name, s->site, s->shard_count, s->listen, s->wan, s->advertise, s->http,
                   s->trusted_network ? "yes" : "no");
    rc = dir_file_write(dir, "site.conf", text, strlen(text), d);
    mem_free(text);
    return rc;
}

struct parse {
    struct site_settings *s;
    char what[160];
};

static int copy_text(char *to, size_t cap, const char *value)
{
    if (strlen(value) >= cap)
        return 0;
    memcpy(to, value, strlen(value) + 1);
    return 1;
}

static int on_value(void *user, const char *section, const char *name, const char *value)
{
    struct parse *p = user;
    struct site_settings *s = p->s;
    char *end;
    int ok = 0;
    if (strcmp(section, "site") != 0)
        ok = 0;
    else if (strcmp(name, "name") == 0)
        ok = copy_text(s->name, sizeof s->name, value);
    else if (strcmp(name, "listen") == 0)
        ok = copy_text(s->listen, sizeof s->listen, value);
    else if (strcmp(name, "wan") == 0)
        ok = copy_text(s->wan, sizeof s->wan, value);
    else if (strcmp(name, "advertise") == 0)
        ok = copy_text(s->advertise, sizeof s->advertise, value);
    else if (strcmp(name, "http") == 0)
        ok = copy_text(s->http, sizeof s->http, value);
    else if (strcmp(name, "id") == 0) {
        s->site = (site_id_t)strtoul(value, &end, 16);
        ok = *end == '\0' && s->site != 0;
    } else if (strcmp(name, "shards") == 0) {
        unsigned long v = strtoul(value, &end, 10);
        s->shard_count = v > SHARD_COUNT_MAX ? 0 : (unsigned)v;
        ok = *end == '\0' && s->shard_count > 0;
    } else if (strcmp(name, "trusted_network") == 0) {
        s->trusted_network = strcmp(value, "yes") == 0;
        ok = s->trusted_network || strcmp(value, "no") == 0;
    }
    if (!ok)
        snprintf(p->what, sizeof p->what, "[%.30s] %.40s = %.60s", section, name, value);
    return ok;
}

/* The file's text, with a NUL behind it; 0, or errno. Read here and not by the parser's library,
 * which takes an error for the end of the file. */
static int conf_read(const char *path, char *text, size_t cap)
{
    size_t len = 0;
    ssize_t got = 1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    while (got > 0 && len < cap - 1) {
        got = read(fd, text + len, cap - 1 - len);
        len += (size_t)MAX(got, 0);
    }
    int num = got < 0 ? errno : len == cap - 1 ? EFBIG : 0;
    close(fd);
    text[len] = '\0';
    return num;
}

int site_settings_load(const char *dir, struct site_settings *ret, struct err_detail *d)
{
    struct site_settings s = {0};
    struct parse p = {.s = &s};
    char *path = mem_printf("%s/site.conf", dir), *text = mem_alloc(CONF_BYTES_MAX);
    int num = conf_read(path, text, CONF_BYTES_MAX), line = 0, rc = 0;
    if (num == 0)
        line = ini_parse_string(text, on_value, &p);
    if (num != 0 && num != ENOENT && num != ENOTDIR) {
        rc = PLANTED(73) ? ERR_CONFIG : err_from_errno(num);
        err_detail_set(d, "%s cannot be read: %s", path, strerror(num));
    } else if (num != 0) {
        rc = ERR_NOT_FOUND;
        err_detail_set(d, "%s is not there: is %s a site? Make one with: claudefs site create",
                       path, dir);
    } else if (line != 0) {
        rc = ERR_CONFIG;
        err_detail_set(d, "%s, line %d: %s: not understood", path, line, p.what);
    } else {
        struct err_detail why;
        rc = site_settings_check(&s, &why);
        if (rc != 0) {
            err_detail_set(d, "%s: %s", path, why.text);
        } else if (s.site == 0) {
            rc = ERR_CONFIG;
            err_detail_set(d, "%s: id is missing", path);
        }
    }
    mem_free(path);
    mem_free(text);
    if (rc == 0)
        *ret = s;
    return rc;
}

int site_create(const char *dir,
                const struct site_settings *settings,
                const uint8_t *fs_key,
                struct err_detail *d)
{
    struct site_settings s = *settings;
    uint8_t key[32];
    char *conf = mem_printf("%s/site.conf", dir);
    int rc = 0;
    while (s.site == 0 || s.site == UINT32_MAX)
        s.site = (site_id_t)random_u64();
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
        rc = err_from_errno(errno);
        err_detail_set(d, "cannot make %s: %s", dir, strerror(errno));
    } else if (access(conf, F_OK) == 0) {
        rc = ERR_EXISTS;
        err_detail_set(d, "%s holds a site already: choose another directory", dir);
    }
    mem_free(conf);
    if (rc == 0)
        rc = site_settings_check(&s, d);
    if (rc == 0) {
        random_bytes(key, sizeof key);
        rc = dir_file_write(dir, "site.key", key, sizeof key, d);
    }
    if (rc == 0) {
        if (fs_key != NULL)
            memcpy(key, fs_key, sizeof key);
        else
            random_bytes(key, sizeof key);
        rc = dir_file_write(dir, "fs.key", key, sizeof key, d);
    }
    if (rc == 0 && fs_key != NULL)
        rc = dir_file_write(dir, "joining", "", 0, d);
    if (rc == 0)
        rc = site_settings_save(dir, &s, d); /* last: its presence makes the site */
    return rc;
}
