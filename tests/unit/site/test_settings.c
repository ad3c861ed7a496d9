/* Reading a site's directory: what is not there, cannot be read, and is wrong are three things. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "site/settings.h"

/* A file that can be opened and whose first byte cannot be read: EIO. */
#define UNREADABLE "/proc/self/mem"

struct fixture {
    char dir[64];
    struct site_settings s;
    struct err_detail d;
};

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    memcpy(f->dir, "/tmp/claudefs-settings-XXXXXX", 30);
    assert_non_null(mkdtemp(f->dir));
}

static void teardown(struct fixture *f)
{
    char *command = mem_printf("rm -r %s", f->dir);
    assert_int_equal(system(command), 0);
    mem_free(command);
}

static void file_put(const struct fixture *f, const char *name, const char *text)
{
    char *path = mem_printf("%s/%s", f->dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
    mem_free(path);
}

static void file_unreadable(const struct fixture *f, const char *name)
{
    char *path = mem_printf("%s/%s", f->dir, name);
    assert_int_equal(symlink(UNREADABLE, path), 0);
    mem_free(path);
}

static void test_load_reads_what_was_saved(void **state)
{
    struct fixture f;
    struct site_settings s = {.name = "alpha", .site = 7, .shard_count = 3, .listen = "h:1"};
    (void)state;
    setup(&f);
    assert_int_equal(site_settings_save(f.dir, &s, &f.d), 0);
    assert_int_equal(site_settings_load(f.dir, &f.s, &f.d), 0);
    assert_string_equal(f.s.name, "alpha");
    assert_string_equal(f.s.listen, "h:1");
    assert_int_equal(f.s.site, 7);
    assert_int_equal(f.s.shard_count, 3);
    teardown(&f);
}

static void test_load_without_file_says_so(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    assert_int_equal(site_settings_load(f.dir, &f.s, &f.d), ERR_NOT_FOUND);
    assert_non_null(strstr(f.d.text, "is not there"));
    teardown(&f);
}

/* The configuration may be right: an operator who is told otherwise looks in the wrong place. */
static void test_load_of_unreadable_file_is_no_wrong_configuration(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    file_unreadable(&f, "site.conf");
    assert_int_equal(site_settings_load(f.dir, &f.s, &f.d), ERR_IO);
    assert_non_null(strstr(f.d.text, "cannot be read"));
    teardown(&f);
}

static void test_load_of_wrong_line_names_it(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    file_put(&f, "site.conf", "[site]\nname = a\nshards = many\n");
    assert_int_equal(site_settings_load(f.dir, &f.s, &f.d), ERR_CONFIG);
    assert_non_null(strstr(f.d.text, "line 3"));
    teardown(&f);
}

static void test_key_that_cannot_be_read_is_not_damaged(void **state)
{
    struct fixture f;
    uint8_t key[32];
    (void)state;
    setup(&f);
    file_unreadable(&f, "fs.key");
    assert_int_equal(dir_file_read(f.dir, "fs.key", key, sizeof key, &f.d), ERR_IO);
    file_put(&f, "site.key", "short");
    assert_int_equal(dir_file_read(f.dir, "site.key", key, sizeof key, &f.d), ERR_CORRUPT);
    assert_int_equal(dir_file_read(f.dir, "none", key, sizeof key, &f.d), ERR_NOT_FOUND);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_reads_what_was_saved),
        cmocka_unit_test(test_load_without_file_says_so),
        cmocka_unit_test(test_load_of_unreadable_file_is_no_wrong_configuration),
        cmocka_unit_test(test_load_of_wrong_line_names_it),
        cmocka_unit_test(test_key_that_cannot_be_read_is_not_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
