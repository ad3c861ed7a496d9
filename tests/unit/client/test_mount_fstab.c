/* Lines of /etc/fstab, as mount(8) hands them over, to the words of `claudefs mount`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "client/mount_fstab.h"

/* `line` and the result are words joined by blanks. */
static void expect(const char *line, const char *want)
{
    char copy[512], got[512] = "", *rest = copy, *word, *argv[32];
    int argc = 0;
    struct fstab_args a;
    (void)snprintf(copy, sizeof copy, "%s", line);
    while ((word = strsep(&rest, " ")) != NULL)
        argv[argc++] = word;
    const char *why = fstab_args_parse(argc, argv, &a);
    for (int i = 0; i < a.argc && !why; i++)
        (void)snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", i > 0 ? " " : "",
                       a.argv[i]);
    if (want)
        assert_string_equal(got, want);
    else
        assert_non_null(why);
    if (!why)
        assert_null(a.argv[a.argc]);
    fstab_args_deinit(&a);
}

static void test_fstab_lines(void **state)
{
    (void)state;
    expect("mount.claudefs /var/lib/claudefs/alpha /mnt",
           "mount --dir /var/lib/claudefs/alpha -- /mnt");
    expect("mount.claudefs /a /mnt -o rw", "mount --dir /a -o rw -- /mnt");
    expect(
        "mount.claudefs /a /mnt -n -v -o rw,_netdev,x-systemd.automount,comment=hello,cache_mb=64",
        "mount --dir /a -o rw,_netdev,cache_mb=64 -- /mnt");
    expect("mount.claudefs h:7401 /mnt -o key=/etc/k,ro,users",
           "mount --site h:7401 --key /etc/k -o ro -- /mnt");
    expect("mount.claudefs -o key=/k h:1 /mnt", "mount --site h:1 --key /k -- /mnt");
    expect("mount.claudefs h:1 -sv /mnt -t claudefs", "mount --site h:1 -- /mnt");
    expect("mount.claudefs h:1 /mnt -o ,,x-a,,", "mount --site h:1 -- /mnt");
    /* Not understood, so not ignored. */
    expect("mount.claudefs /a", NULL);
    expect("mount.claudefs /a /b /c", NULL);
    expect("mount.claudefs /a /b --dir /c", NULL);
    expect("mount.claudefs /a /b -o", NULL);
    expect("mount.claudefs", NULL);
}

static void test_fstab_fake(void **state)
{
    (void)state;
    char name[] = "mount.claudefs", dir[] = "/a", at[] = "/mnt", f[] = "-fv";
    char *argv[] = {name, dir, at, f};
    struct fstab_args a;
    assert_null(fstab_args_parse(4, argv, &a));
    assert_true(a.is_fake);
    fstab_args_deinit(&a);
    assert_null(fstab_args_parse(3, argv, &a));
    assert_false(a.is_fake);
    fstab_args_deinit(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fstab_lines),
        cmocka_unit_test(test_fstab_fake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
