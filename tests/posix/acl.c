/* POSIX access control lists, as the kernel's xattrs carry them (acl(5)). */
#include <endian.h>
#include <sys/xattr.h>

#include "tests/posix/posix.h"

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"
#define NO_ID 0xffffffffu
#define ENTRIES_MAX 16

enum tag {
    USER_OBJ = 1,
    USER = 2,
    GROUP_OBJ = 4,
    GROUP = 8,
    MASK = 16,
    OTHER = 32
};
struct entry {
    enum tag tag;
    unsigned perm;
    unsigned id;
};
struct acl {
    struct entry e[ENTRIES_MAX];
    size_t count;
};

/* From short text: "u7 u65533:5 g4 g65500:6 m5 o0". */
static struct acl acl_of(const char *text)
{
    struct acl acl = {.count = 0};
    while (*text != 0 && acl.count < ENTRIES_MAX) {
        struct entry *e = &acl.e[acl.count++];
        char kind = *text++;
        char *end = NULL;
        unsigned long first = strtoul(text, &end, 10);
        bool named = *end == ':';
        e->id = named ? (unsigned)first : NO_ID;
        e->perm = named ? (unsigned)strtoul(end + 1, &end, 10) : (unsigned)first;
        e->tag = kind == 'u'   ? (named ? USER : USER_OBJ)
                 : kind == 'g' ? (named ? GROUP : GROUP_OBJ)
                 : kind == 'm' ? MASK
                               : OTHER;
        text = end + strspn(end, " ");
    }
    return acl;
}

static size_t encode(const struct acl *acl, unsigned char *out)
{
    uint32_t version = htole32(2);
    memcpy(out, &version, 4);
    for (size_t i = 0; i < acl->count; i++) {
        uint16_t tag = htole16((uint16_t)acl->e[i].tag), perm = htole16((uint16_t)acl->e[i].perm);
        uint32_t id = htole32(acl->e[i].id);
        memcpy(out + 4 + i * 8, &tag, 2);
        memcpy(out + 6 + i * 8, &perm, 2);
        memcpy(out + 8 + i * 8, &id, 4);
    }
    return 4 + acl->count * 8;
}

static int acl_set(const char *path, const char *name, const char *text)
{
    unsigned char value[4 + 8 * ENTRIES_MAX];
    struct acl acl = acl_of(text);
    return setxattr(path, name, value, encode(&acl, value), 0);
}

/* The list as text again; "" if there is none. */
static const char *acl_get(const char *path, const char *name)
{
    static char text[400];
    unsigned char value[4 + 8 * ENTRIES_MAX];
    ssize_t n = getxattr(path, name, value, sizeof(value));
    text[0] = 0;
    for (ssize_t at = 4; n >= 4 && at + 8 <= n; at += 8) {
        uint16_t tag = 0, perm = 0;
        uint32_t id = 0;
        memcpy(&tag, value + at, 2);
        memcpy(&perm, value + at + 2, 2);
        memcpy(&id, value + at + 4, 4);
        tag = le16toh(tag);
        size_t len = strlen(text);
        char kind = tag == USER || tag == USER_OBJ     ? 'u'
                    : tag == GROUP || tag == GROUP_OBJ ? 'g'
                    : tag == MASK                      ? 'm'
                                                       : 'o';
        if (tag == USER || tag == GROUP) {
            snprintf(text + len, sizeof(text) - len, "%s%c%u:%u", len == 0 ? "" : " ", kind,
                     le32toh(id), le16toh(perm));
        } else {
            snprintf(text + len, sizeof(text) - len, "%s%c%u", len == 0 ? "" : " ", kind,
                     le16toh(perm));
        }
    }
    return text;
}

static void test_set(void)
{
    static const char named[] = "u6 u65533:5 g4 g65500:6 m7 o0";
    make_file("f", 0640, "content");
    FAILS(ENODATA, getxattr("f", ACCESS, NULL, 0));
    OK(acl_set("f", ACCESS, named));
    TEXT(named, acl_get("f", ACCESS));
    MODE(0670, "f");
    EQ(4 + 6 * 8, getxattr("f", ACCESS, NULL, 0));
    char list[256];
    ssize_t n = listxattr("f", list, sizeof(list));
    HOLDS(n > 0 && memmem(list, (size_t)n, ACCESS, sizeof(ACCESS)) != NULL);
    note("replaced");
    OK(acl_set("f", ACCESS, "u7 u65532:1 g1 m3 o5"));
    TEXT("u7 u65532:1 g1 m3 o5", acl_get("f", ACCESS));
    MODE(0735, "f");
    note("a list that says no more than the mode becomes the mode");
    OK(acl_set("f", ACCESS, "u6 g4 o2"));
    MODE(0642, "f");
    FAILS(ENODATA, getxattr("f", ACCESS, NULL, 0));
    note("removed");
    OK(acl_set("f", ACCESS, "u6 u65533:7 g4 m6 o0"));
    MODE(0660, "f");
    OK(removexattr("f", ACCESS));
    FAILS(ENODATA, getxattr("f", ACCESS, NULL, 0));
    MODE(0660, "f");
    note("the other bits of the mode stay");
    OK(chmod("f", 06711));
    OK(acl_set("f", ACCESS, "u7 u65533:7 g5 m5 o1"));
    MODE(06751, "f");
    note("times");
    TIMES("f", T_C | T_A_ANY, acl_set("f", ACCESS, "u7 u65533:7 g5 m7 o1"));
    TIMES("f", T_C | T_A_ANY, removexattr("f", ACCESS));
    note("through a descriptor, by every name");
    OK(acl_set("f", ACCESS, "u7 u65533:7 g5 m7 o1"));
    OK(link("f", "g"));
    OK(rename("f", "h"));
    TEXT("u7 u65533:7 g5 m7 o1", acl_get("g", ACCESS));
    TEXT("u7 u65533:7 g5 m7 o1", acl_get("h", ACCESS));
    int fd = open("h", O_RDONLY);
    EQ(44, fgetxattr(fd, ACCESS, NULL, 0));
    OK(fremovexattr(fd, ACCESS));
    TEXT("", acl_get("g", ACCESS));
    close(fd);
}

static void test_invalid(void)
{
    static const char *const bad[] = {
        "u6 u65533:5 g4 o0", /* names without a mask */
        "g4 o0",             /* no owner */
        "u6 o0",             /* no group */
        "u6 g4",             /* no others */
        "u6 u6 g4 o0",       /* two owners */
        "u6 g4 m4 m4 o0",    /* two masks */
        "u9 g4 o0",          /* a right that is none */
    };
    make_file("f", 0640, "content");
    make_dir("d", 0750);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        note("\"%s\"", bad[i]);
        FAILS(EINVAL, acl_set("f", ACCESS, bad[i]));
        FAILS(EINVAL, acl_set("d", DEFAULT, bad[i]));
    }
    note("bytes that are no list");
    FAILS(EINVAL, setxattr("f", ACCESS, "\2\0\0", 3, 0));
    FAILS(EINVAL, setxattr("f", ACCESS, "\2\0\0\0\1\0", 6, 0));
    FAILS(EOPNOTSUPP, setxattr("f", ACCESS, "\1\0\0\0", 4, 0));
    MODE(0640, "f");
    TEXT("", acl_get("f", ACCESS));
    note("default lists are for directories");
    FAILS(EACCES, acl_set("f", DEFAULT, "u6 g4 o0"));
    FAILS(ENODATA, getxattr("f", DEFAULT, NULL, 0));
    note("links have none");
    OK(symlink("f", "l"));
    FAILS(EOPNOTSUPP, lgetxattr("l", ACCESS, NULL, 0));
    unsigned char value[64];
    struct acl acl = acl_of("u6 g4 o0");
    FAILS(EOPNOTSUPP, lsetxattr("l", ACCESS, value, encode(&acl, value), 0));
}

/* What the list `text` gives to the user of the process, on a file of root. */
static void gives(const char *text, uid_t who, unsigned want)
{
    note("\"%s\" for user %u", text, who);
    make_owned("f", 0600, 0, 0);
    OK(acl_set("f", ACCESS, text));
    AS(who)
    {
        HOLDS_AS("read", (open_close("f", O_RDONLY, 0) == 0) == ((want & 4) != 0));
        HOLDS_AS("write", (open_close("f", O_WRONLY, 0) == 0) == ((want & 2) != 0));
        HOLDS_AS("access X_OK", (access("f", X_OK) == 0) == ((want & 1) != 0));
        HOLDS_AS("access R_OK", (access("f", R_OK) == 0) == ((want & 4) != 0));
        HOLDS_AS("access W_OK", (access("f", W_OK) == 0) == ((want & 2) != 0));
    }
    OK(unlink("f"));
}

static void test_access(void)
{
    note("named users come before groups and others");
    gives("u6 u65533:4 g0 m7 o0", U1, 4);
    gives("u6 u65533:0 g7 m7 o7", U1, 0);
    gives("u6 u65533:0 g0 g65500:7 m7 o7", U1, 0);
    gives("u6 u65533:7 g0 m7 o0", U2, 0);
    gives("u6 u65532:7 u65533:1 g0 m7 o0", U1, 1);
    note("the mask binds names and groups, not others");
    gives("u6 u65533:7 g0 m4 o0", U1, 4);
    gives("u6 u65533:7 g0 m1 o7", U1, 1); /* Linux skips lists whose mask is 0 */
    gives("u6 u65533:7 g0 m0 o6", U2, 6);
    gives("u6 g0 g65500:7 m5 o0", U1, 5);
    note("groups: one that allows is enough, others do not help members");
    gives("u6 g0 g65500:6 m7 o0", U1, 6);
    gives("u6 g0 g65533:4 g65500:2 m7 o0", U1, 6);
    gives("u6 g7 g65500:0 m7 o7", U1, 0);
    gives("u6 g0 g65500:6 m7 o1", U2, 1);
    gives("u6 g0 g65501:7 m7 o4", U1, 4);
    note("nobody in particular");
    gives("u7 g7 m7 o5", U1, 5);
    note("the owner: not bound by the mask");
    make_owned("mine", 0600, U1, (gid_t)U1);
    OK(acl_set("mine", ACCESS, "u6 u65533:0 g0 m0 o0"));
    AS(U1)
    {
        OK(open_close("mine", O_RDWR, 0));
    }
    note("the owning group");
    make_owned("ours", 0600, 0, SHARED_GID);
    OK(acl_set("ours", ACCESS, "u6 u65532:7 g6 m4 o0"));
    AS(U1)
    {
        OK(open_close("ours", O_RDONLY, 0));
        FAILS(EACCES, open("ours", O_RDWR));
    }
}

static void test_dir_access(void)
{
    make_dir_owned("d", 0700, 0, 0);
    make_owned("d/f", 0644, 0, 0);
    OK(acl_set("d", ACCESS, "u7 u65533:7 u65532:1 g0 m7 o0"));
    AS(U1)
    {
        EQ(1, count_entries("d"));
        OK(open_close("d/new", O_CREAT | O_WRONLY, 0644));
        OK(mkdir("d/s", 0755));
        OK(rename("d/new", "d/new2"));
        OK(unlink("d/new2"));
    }
    AS(U2)
    {
        EQ(-1, count_entries("d"));
        OK(open_close("d/f", O_RDONLY, 0));
        FAILS(EACCES, open("d/new", O_CREAT | O_WRONLY, 0644));
        FAILS(EACCES, unlink("d/f"));
    }
    note("the mask takes it away");
    OK(chmod("d", 0700));
    AS(U1)
    {
        FAILS(EACCES, open("d/f", O_RDONLY));
        EQ(-1, count_entries("d"));
    }
}

static void test_chmod(void)
{
    make_file("f", 0640, "content");
    OK(acl_set("f", ACCESS, "u6 u65533:7 g4 m7 o0"));
    note("the group bits of the mode are the mask");
    OK(chmod("f", 0651));
    TEXT("u6 u65533:7 g4 m5 o1", acl_get("f", ACCESS));
    MODE(0651, "f");
    OK(chmod("f", 0707));
    TEXT("u7 u65533:7 g4 m0 o7", acl_get("f", ACCESS));
    MODE(0707, "f");
    OK(chmod("f", 0070));
    TEXT("u0 u65533:7 g4 m7 o0", acl_get("f", ACCESS));
    int fd = open("f", O_RDONLY);
    if (fd >= 0) {
        OK(fchmod(fd, 0664));
        close(fd);
        TEXT("u6 u65533:7 g4 m6 o4", acl_get("f", ACCESS));
    }
    note("without a mask they are the group's");
    OK(removexattr("f", ACCESS));
    OK(chmod("f", 0640));
    TEXT("", acl_get("f", ACCESS));
    MODE(0640, "f");
    note("set-id bits");
    OK(acl_set("f", ACCESS, "u6 u65533:7 g4 m7 o0"));
    OK(chmod("f", 04755));
    MODE(04755, "f");
    TEXT("u7 u65533:7 g4 m5 o5", acl_get("f", ACCESS));
    note("a directory's default list is left alone");
    make_dir("d", 0755);
    OK(acl_set("d", DEFAULT, "u7 u65533:7 g5 m7 o5"));
    OK(chmod("d", 0700));
    TEXT("u7 u65533:7 g5 m7 o5", acl_get("d", DEFAULT));
    MODE(0700, "d");
}

static void test_default(void)
{
    static const char list[] = "u7 u65533:7 g5 g65500:6 m7 o1";
    make_dir("d", 0755);
    OK(acl_set("d", DEFAULT, list));
    TEXT(list, acl_get("d", DEFAULT));
    TEXT("", acl_get("d", ACCESS));
    MODE(0755, "d");
    umask(077);
    note("a file: the list cut down by the mode of creation; no umask");
    OK(open_close("d/f", O_CREAT | O_WRONLY, 0664));
    TEXT("u6 u65533:7 g5 g65500:6 m6 o0", acl_get("d/f", ACCESS));
    MODE(0660, "d/f");
    FAILS2(ENODATA, EOPNOTSUPP, getxattr("d/f", DEFAULT, NULL, 0));
    OK(open_close("d/g", O_CREAT | O_WRONLY, 0777));
    TEXT(list, acl_get("d/g", ACCESS));
    MODE(0771, "d/g");
    OK(open_close("d/h", O_CREAT | O_WRONLY, 0600));
    TEXT("u6 u65533:7 g5 g65500:6 m0 o0", acl_get("d/h", ACCESS));
    MODE(0600, "d/h");
    note("a directory gets it as both");
    OK(mkdir("d/s", 0755));
    TEXT("u7 u65533:7 g5 g65500:6 m5 o1", acl_get("d/s", ACCESS));
    TEXT(list, acl_get("d/s", DEFAULT));
    MODE(0751, "d/s");
    OK(mkdir("d/s/t", 0777));
    TEXT(list, acl_get("d/s/t", ACCESS));
    TEXT(list, acl_get("d/s/t", DEFAULT));
    note("fifos too, links not");
    OK(mkfifo("d/p", 0666));
    TEXT("u6 u65533:7 g5 g65500:6 m6 o0", acl_get("d/p", ACCESS));
    OK(symlink("f", "d/l"));
    MODE(0777, "d/l");
    note("what is renamed or linked into it inherits nothing");
    make_file("plain", 0600, "");
    OK(link("plain", "d/hard"));
    OK(rename("plain", "d/moved"));
    TEXT("", acl_get("d/moved", ACCESS));
    note("removed");
    OK(removexattr("d", DEFAULT));
    FAILS(ENODATA, getxattr("d", DEFAULT, NULL, 0));
    OK(open_close("d/i", O_CREAT | O_WRONLY, 0666));
    MODE(0600, "d/i");
    TEXT("", acl_get("d/i", ACCESS));
    TEXT(list, acl_get("d/s", DEFAULT));
    umask(0);
}

static void test_default_minimal(void)
{
    make_dir("d", 0755);
    OK(acl_set("d", DEFAULT, "u7 g5 o0"));
    TEXT("u7 g5 o0", acl_get("d", DEFAULT));
    umask(0);
    OK(open_close("d/f", O_CREAT | O_WRONLY, 0666));
    MODE(0640, "d/f");
    TEXT("", acl_get("d/f", ACCESS));
    OK(mkdir("d/s", 0777));
    MODE(0750, "d/s");
    TEXT("", acl_get("d/s", ACCESS));
    TEXT("u7 g5 o0", acl_get("d/s", DEFAULT));
    umask(0777);
    OK(open_close("d/g", O_CREAT | O_WRONLY, 0666));
    MODE(0640, "d/g");
    umask(0);
    note("with a set-group-id directory");
    OK(chmod("d", 02755));
    OK(mkdir("d/t", 0777));
    MODE(02750, "d/t");
    TEXT("u7 g5 o0", acl_get("d/t", DEFAULT));
}

/* Inherited rights are real at once. */
static void test_default_access(void)
{
    make_dir_owned("d", 0777, 0, 0);
    OK(acl_set("d", DEFAULT, "u7 u65532:6 g0 m7 o0"));
    AS(U1)
    {
        OK(open_close("d/f", O_CREAT | O_WRONLY, 0666));
        OK(mkdir("d/s", 0777));
    }
    AS(U2)
    {
        OK(open_close("d/f", O_RDWR, 0));
        FAILS(EACCES, open("d/s/x", O_RDONLY));
        EQ(0, count_entries("d/s"));
    }
    EQ(U1, st_of("d/f").st_uid);
    OK(chmod("d/f", 0600));
    AS(U2)
    {
        FAILS(EACCES, open("d/f", O_RDONLY));
    }
}

static void test_rights(void)
{
    make_owned("mine", 0600, U1, (gid_t)U1);
    make_owned("open", 0666, U2, (gid_t)U2);
    make_dir_owned("dir", 0777, U2, (gid_t)U2);
    make_owned("odd", 02755, U1, OTHER_GID);
    OK(acl_set("open", ACCESS, "u6 u65533:7 g6 m7 o6"));
    AS(U1)
    {
        OK(acl_set("mine", ACCESS, "u6 u65532:4 g0 m4 o0"));
        OK(acl_set("mine", ACCESS, "u0 u65532:4 g0 m4 o0"));
        OK(acl_set("mine", ACCESS, "u6 u65532:4 g0 m4 o0"));
        FAILS(EPERM, acl_set("open", ACCESS, "u6 g6 o6"));
        FAILS(EPERM, removexattr("open", ACCESS));
        FAILS(EPERM, acl_set("dir", DEFAULT, "u6 g6 o6"));
        TEXT("u6 u65533:7 g6 m7 o6", acl_get("open", ACCESS));
        note("who is not in the group loses the set-group-id bit, as with chmod");
        OK(acl_set("odd", ACCESS, "u7 u65532:5 g5 m5 o5"));
        MODE(0755, "odd");
    }
    AS(U2)
    {
        OK(open_close("mine", O_RDONLY, 0));
        FAILS(EACCES, open("mine", O_RDWR));
        FAILS(EPERM, chmod("mine", 0666));
        FAILS(EPERM, acl_set("mine", ACCESS, "u6 g6 o6"));
    }
    note("root");
    OK(acl_set("mine", ACCESS, "u0 g0 o0"));
    MODE(0, "mine");
}

/* Each group needs lists; where the file system has none, that is said once. */
static void with_acls(void (*run)(void))
{
    if (!acl_supported()) {
        skip("the file system has no POSIX ACLs (EOPNOTSUPP)");
        return;
    }
    run();
}

#define GROUP_OF(name)                                                                             \
    static void run_##name(void)                                                                   \
    {                                                                                              \
        with_acls(test_##name);                                                                    \
    }
GROUP_OF(set)
GROUP_OF(invalid)
GROUP_OF(access)
GROUP_OF(dir_access)
GROUP_OF(chmod)
GROUP_OF(default)
GROUP_OF(default_minimal)
GROUP_OF(default_access)
GROUP_OF(rights)

const struct posix_group acl_groups[] = {
    {"acl-set", run_set, false},
    {"acl-invalid", run_invalid, false},
    {"acl-access", run_access, true},
    {"acl-dir-access", run_dir_access, true},
    {"acl-chmod", run_chmod, false},
    {"acl-default", run_default, false},
    {"acl-default-minimal", run_default_minimal, false},
    {"acl-default-access", run_default_access, true},
    {"acl-rights", run_rights, true},
    {0},
};
