/* Routes and access of the dashboard. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>

#include <cmocka.h>

#include "client/dash_route.h"

#define TOKEN "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define OTHER "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_routes(void **state)
{
    (void)state;
    assert_int_equal(dash_route_of("GET", "/"), DASH_PAGE);
    assert_int_equal(dash_route_of("HEAD", "/metrics"), DASH_METRICS);
    assert_int_equal(dash_route_of("GET", "/events"), DASH_EVENTS);
    assert_int_equal(dash_route_of("POST", "/"), DASH_BAD_METHOD);
    assert_int_equal(dash_route_of("get", "/api/status"), DASH_BAD_METHOD);
    assert_int_equal(dash_route_of("GET", "/../site.key"), DASH_NOT_FOUND);
    assert_int_equal(dash_route_of("GET", "//"), DASH_NOT_FOUND);
    assert_int_equal(dash_route_of("GET", ""), DASH_NOT_FOUND);
    assert_int_equal(dash_route_of("GET", "/api/status/"), DASH_NOT_FOUND);
}

static enum dash_access ask(const char *authorization, const char *cookie, const char *query)
{
    struct dash_credentials c = {
        .authorization = authorization, .cookie = cookie, .query_token = query};
    return dash_access_of(TOKEN, &c);
}

static void test_token_in_each_place(void **state)
{
    (void)state;
    assert_int_equal(ask(NULL, NULL, NULL), DASH_TOKEN_NEEDED);
    assert_int_equal(ask("Bearer " TOKEN, NULL, NULL), DASH_ALLOWED);
    assert_int_equal(ask("Bearer " OTHER, NULL, NULL), DASH_TOKEN_WRONG);
    assert_int_equal(ask("Bearer " TOKEN "0", NULL, NULL), DASH_TOKEN_WRONG);
    assert_int_equal(ask("Basic " TOKEN, NULL, NULL), DASH_TOKEN_WRONG);
    assert_int_equal(ask(NULL, DASH_COOKIE "=" TOKEN, NULL), DASH_ALLOWED);
    assert_int_equal(ask(NULL, "a=b; " DASH_COOKIE "=" TOKEN "; c=d", NULL), DASH_ALLOWED);
    assert_int_equal(ask(NULL, "x" DASH_COOKIE "=" TOKEN, NULL), DASH_TOKEN_NEEDED);
    assert_int_equal(ask(NULL, DASH_COOKIE "=", NULL), DASH_TOKEN_WRONG);
    assert_int_equal(ask(NULL, DASH_COOKIE "=" OTHER, TOKEN), DASH_ALLOWED_BY_QUERY);
    assert_int_equal(ask(NULL, NULL, ""), DASH_TOKEN_WRONG);
}

/* On loopback there is no token, but a page from elsewhere that was pointed here has the wrong
 * name in its requests. */
static void test_loopback_names(void **state)
{
    (void)state;
    static const char *const good[] = {"127.0.0.1:7480", "127.9.8.7", "localhost:1", "LOCALHOST",
                                       "[::1]:7480"},
                             *const bad[] = {"evil.example:7480",
                                             "127.evil.example",
                                             "127.0.0.1.",
                                             "localhost.evil.example:80",
                                             "",
                                             "[::2]:1",
                                             "10.0.0.1",
                                             "127.:80",
                                             "0.0.0.0:7480"};
    for (size_t i = 0; i < ARRAY_COUNT(good); i++)
        assert_true(dash_is_loopback(good[i]));
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_false(dash_is_loopback(bad[i]));
    struct dash_credentials c = {.host = "evil.example:7480"};
    assert_int_equal(dash_access_of(NULL, &c), DASH_HOST_WRONG);
    c.host = "localhost:7480";
    assert_int_equal(dash_access_of(NULL, &c), DASH_ALLOWED);
    c.host = NULL;
    assert_int_equal(dash_access_of(NULL, &c), DASH_ALLOWED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_token_in_each_place),
        cmocka_unit_test(test_loopback_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
