/* Names: every byte, every length, unicode, long paths, deep trees. */
#include <dirent.h>
#include <sys/syscall.h>

#include "tests/posix/posix.h"

/* One name through every call that takes one, and back out of readdir byte for byte. */
static bool name_works(const char *name)
{
    char renamed[300];
    snprintf(renamed, sizeof(renamed), "%.250s", name);
    size_t len = strlen(renamed);
    renamed[len - 1] = renamed[len - 1] == 'Q' ? 'q' : 'Q';
    bool good = mkdir("d", 0755) == 0 && chdir("d") == 0;
    good = good && open_close(name, O_CREAT | O_EXCL | O_WRONLY, 0644) == 0 && exists(name);
    DIR *d = opendir(".");
    bool seen = false;
    for (struct dirent *e = d == NULL ? NULL : readdir(d); e != NULL; e = readdir(d)) {
        seen = seen || strcmp(e->d_name, name) == 0;
    }
    if (d != NULL) {
        closedir(d);
    }
    good = good && seen && rename(name, renamed) == 0 && !exists(name) && exists(renamed);
    good = good && link(renamed, name) == 0 && unlink(name) == 0 && unlink(renamed) == 0;
    good = good && mkdir(name, 0755) == 0 && rmdir(name) == 0;
    good = good && symlink(name, name) == 0 && unlink(name) == 0;
    good = good && count_entries(".") == 0;
    return chdir("..") == 0 && rmdir("d") == 0 && good;
}

static void test_bytes(void)
{
    for (int c = 1; c < 256; c++) {
        char name[8] = {(char)c, 'x', 0};
        note("names with byte 0x%02x", (unsigned)c);
        if (c != '/') {
            HOLDS_AS("at the beginning", name_works(name));
            char alone[4] = {(char)c, 0};
            char end[8] = {'x', (char)c, 'y', 0};
            HOLDS_AS("in the middle", name_works(end));
            if (c != '.') {
                HOLDS_AS("alone", open_close(alone, O_CREAT | O_EXCL | O_WRONLY, 0644) == 0 &&
                                      exists(alone) && unlink(alone) == 0);
            }
        }
    }
}

static void test_odd(void)
{
    static const char *const names[] = {
        "...",
        "....",
        " ",
        "  ",
        " a ",
        "a.",
        "a..",
        ".a",
        "-",
        "--",
        "-rf",
        "~",
        "*",
        "?",
        "\\",
        "a\\b",
        "C:",
        "CON",
        "NUL",
        "a:b",
        "\"",
        "'",
        "`",
        "$HOME",
        "%s%n",
        "\n",
        "\t",
        "a\nb",
        "\r",
        "\x7f",
        "\x1b[31m",
        "\xff",
        "\xff\xfe",
        "\x80",
        "\xc0\xaf",
        "\xed\xa0\x80",
        "\xf8\x88",
        "\xc3\xa9",
        "e\xcc\x81",
        "\xe2\x84\xab",
        "\xf0\x9f\x98\x80",
        "\xe2\x80\xae"
        "abc",
        "\xe6\x97\xa5\xe6\x9c\xac",
        "\xef\xbb\xbf"
        "bom",
        "x.conflict-site-0a1b2c3d.txt",
        ".fuse_hidden0000000100000001",
        ".nfs0001",
        "lost+found",
        "core",
        "a~",
        "#a#",
        ".claudefs",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        note("name %zu", i);
        HOLDS(name_works(names[i]));
    }
}

/* Names that other systems take for one are several. */
static void test_distinct(void)
{
    static const char *const names[] = {
        "name",
        "Name",
        "NAME",
        "name ",
        " name",
        "name.",
        "\xc3\xa9",
        "e\xcc\x81",
        "E\xcc\x81",
        "\xe2\x84\xab",
        "\xc3\x85",
        "A\xcc\x8a",
        "stra\xc3\x9f"
        "e",
        "strasse",
        "\xef\xac\x81",
        "fi",
        "\xff",
        "\xfe",
    };
    int count = (int)(sizeof(names) / sizeof(names[0]));
    for (int i = 0; i < count; i++) {
        note("name %d", i);
        OK(open_close(names[i], O_CREAT | O_EXCL | O_WRONLY, 0644));
    }
    EQ(count, count_entries("."));
    for (int i = 0; i < count; i++) {
        OK(unlink(names[i]));
        EQ(count - i - 1, count_entries("."));
    }
}

static void test_lengths(void)
{
    char name[300];
    static const size_t lens[] = {1, 2, 15, 16, 63, 64, 100, 127, 128, 143, 200, 254, 255};
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        note("a name of %zu bytes", lens[i]);
        name_of_len(name, lens[i], 'n');
        OK(open_close(name, O_CREAT | O_EXCL | O_WRONLY, 0644));
        HOLDS(exists(name));
        EQ(1, count_entries("."));
        OK(unlink(name));
        OK(mkdir(name, 0755));
        OK(rmdir(name));
        OK(symlink("x", name));
        OK(unlink(name));
    }
    note("255 bytes, renamed to 255 other bytes, and 256 refused");
    char other[300];
    name_of_len(name, 255, 'n');
    name_of_len(other, 255, 'o');
    make_file(name, 0644, "");
    OK(rename(name, other));
    OK(link(other, name));
    OK(unlink(other));
    name_of_len(other, 256, 'o');
    FAILS(ENAMETOOLONG, rename(name, other));
    FAILS(ENAMETOOLONG, link(name, other));
    FAILS(ENAMETOOLONG, symlink(name, other));
    HOLDS(exists(name));
    note("255 bytes that are 85 characters");
    for (size_t i = 0; i < 255; i += 3) {
        memcpy(other + i, "\xe6\x97\xa5", 3);
    }
    other[255] = 0;
    OK(rename(name, other));
    HOLDS(exists(other));
    note("names that differ in the last of 255 bytes only");
    name_of_len(name, 255, 'n');
    for (char c = 'a'; c < 'k'; c++) {
        name[254] = c;
        OK(open_close(name, O_CREAT | O_EXCL | O_WRONLY, 0644));
    }
    EQ(11, count_entries("."));
}

/* A tree deeper than the longest path, walked one step at a time. */
static void test_deep(void)
{
    enum {
        DEPTH = 60
    };
    char name[101], path[5000];
    name_of_len(name, 100, 'd');
    int home = open(".", O_RDONLY);
    for (int i = 0; i < DEPTH; i++) {
        OK_AS("mkdir", mkdir(name, 0755));
        OK_AS("chdir", chdir(name));
    }
    note("%d directories down", DEPTH);
    make_file("f", 0644, "deep");
    HOLDS(content_is("f", "deep", 4));
    FAILS(ENAMETOOLONG, syscall(SYS_getcwd, path, 4096));
    ino_t here = st_of(".").st_ino;
    OK(mkdir("s", 0755));
    EQ(here, st_of("s/..").st_ino);
    OK(rmdir("s"));
    OK(unlink("f"));
    for (int i = 0; i < DEPTH; i++) {
        OK_AS("chdir", chdir(".."));
        OK_AS("rmdir", rmdir(name));
    }
    struct stat st;
    OK(fstat(home, &st));
    EQ(st.st_ino, st_of(".").st_ino);
    close(home);
}

/* Paths up to 4095 bytes work in every position. */
static void test_long_path(void)
{
    static char path[5000], other[5000];
    char name[201];
    name_of_len(name, 200, 'p');
    size_t len = 0;
    int home = open(".", O_RDONLY);
    while (len + 201 < 4095) {
        OK_AS("mkdir", mkdir(name, 0755));
        OK_AS("chdir", chdir(name));
        memcpy(path + len, name, 200);
        path[len + 200] = '/';
        len += 201;
    }
    OK(fchdir(home));
    memset(path + len, 'f', 4095 - len);
    path[4095] = 0;
    memcpy(other, path, sizeof(other));
    other[4094] = 'g';
    OK(open_close(path, O_CREAT | O_EXCL | O_WRONLY, 0644));
    HOLDS(exists(path));
    OK(rename(path, other));
    OK(link(other, path));
    EQ(2, nlink_of(path));
    OK(unlink(path));
    OK(symlink("x", path));
    char got[4];
    EQ(1, readlink(path, got, sizeof(got)));
    OK(unlink(path));
    OK(unlink(other));
    path[4095] = 'f';
    path[4096] = 0;
    FAILS(ENAMETOOLONG, open(path, O_CREAT | O_WRONLY, 0644));
    close(home);
}

const struct posix_group name_groups[] = {
    {"name-bytes", test_bytes, false},
    {"name-odd", test_odd, false},
    {"name-distinct", test_distinct, false},
    {"name-length", test_lengths, false},
    {"name-deep", test_deep, false},
    {"name-long-path", test_long_path, false},
    {0},
};
