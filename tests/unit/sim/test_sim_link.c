/* sim/link_line.h and sim/link_model.h: what a link is told, and what it then does to bytes, to the
 * nanosecond. The sockets around them are tested by tests/e2e/test_link.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sim/link_model.h"

#define MS NS_PER_MS

static struct link_command parsed(const char *line)
{
    struct link_command c;
    struct err_detail d = {.text = ""};
    if (link_line_parse(slice_str(line), &c, &d) != 0)
        fail_msg("\"%s\": %s", line, d.text);
    return c;
}

/* The sentence must name what is wrong. */
static void refused(const char *line, const char *part)
{
    struct link_command c = {.value = 7};
    struct err_detail d = {.text = ""};
    assert_int_equal(link_line_parse(slice_str(line), &c, &d), ERR_INVALID);
    if (strstr(d.text, part) == NULL)
        fail_msg("\"%s\": \"%s\" does not say \"%s\"", line, d.text, part);
    assert_int_equal(c.value, 7);
}

static void test_line_numbers_are_exact(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        enum link_verb verb;
        uint64_t value;
    } good[] = {
        {"set latency 40ms", LINK_SET_LATENCY, 40 * MS},
        {"set latency 0", LINK_SET_LATENCY, 0},
        {"  set\tlatency 1.5s \r", LINK_SET_LATENCY, 1500 * MS},
        {"set latency 0.000001ms", LINK_SET_LATENCY, 1},
        {"set jitter 250us", LINK_SET_JITTER, 250000},
        {"set bandwidth 100Mbit/s", LINK_SET_BANDWIDTH, 12500000},
        {"set bandwidth 1.5MiB/s", LINK_SET_BANDWIDTH, 1572864},
        {"set bandwidth off", LINK_SET_BANDWIDTH, 0},
        {"set queue 256KiB", LINK_SET_QUEUE, 262144},
        {"set loss 0.1%", LINK_SET_LOSS, 1000},
        {"set loss 100%", LINK_SET_LOSS, 1000000},
        {"set damage 300kB", LINK_SET_DAMAGE, 300000},
        {"set resets 1.5min", LINK_SET_RESETS, 90 * NS_PER_SEC},
        {"cut", LINK_CUT_STALL, 0},
        {"cut stall", LINK_CUT_STALL, 0},
        {"cut reset", LINK_CUT_RESET, 0},
        {"heal", LINK_HEAL, 0},
        {"reset", LINK_RESET, 0},
        {"stats", LINK_STATS, 0},
    };
    for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
        struct link_command c = parsed(good[i].line);
        assert_int_equal(c.verb, good[i].verb);
        assert_int_equal(c.value, good[i].value);
        assert_true(c.way[LINK_TO] && c.way[LINK_FROM]);
    }
}

static void test_line_directions(void **state)
{
    (void)state;
    struct link_command c = parsed("set latency 1ms to");
    assert_true(c.way[LINK_TO] && !c.way[LINK_FROM]);
    c = parsed("cut from");
    assert_true(c.verb == LINK_CUT_STALL && c.way[LINK_FROM] && !c.way[LINK_TO]);
    c = parsed("cut stall to");
    assert_true(c.way[LINK_TO] && !c.way[LINK_FROM]);
}

static void test_line_addresses(void **state)
{
    char host[LINK_ADDRESS_MAX];
    uint16_t port;
    struct err_detail d;
    (void)state;
    assert_string_equal(parsed("set target 127.0.0.1:7000").address, "127.0.0.1:7000");
    assert_int_equal(link_address_split("[::1]:65535", host, &port, &d), 0);
    assert_string_equal(host, "::1");
    assert_int_equal(port, 65535);
    refused("set target ::1:7000", "HOST:PORT");
    refused("set target :7000", "HOST:PORT");
    refused("set target []:7000", "HOST:PORT");
    refused("set target host", "HOST:PORT");
    refused("set target host:", "no port");
    refused("set target host:65536", "no port");
    refused("set target host:123456", "no port");
    refused("set target host:7x", "no port");
    refused("set target a\"b:7", "HOST:PORT");
}

static void test_line_mistakes_are_named(void **state)
{
    char longest[LINK_LINE_MAX + 2];
    (void)state;
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    refused("", "no command");
    refused("jump", "\"jump\"");
    refused("set", "set what");
    refused("set color 5", "set what");
    refused("set latency", "needs a value");
    refused("set latency 40", "a unit");
    refused("set latency ms", "a unit");
    refused("set latency -1ms", "\"-1ms\"");
    refused("set latency 1.ms", "\"1.ms\"");
    refused("set latency 61s", "too large");
    refused("set latency 999999999min", "\"999999999min\" is no latency");
    refused("set latency 9999999999ms", "is no latency");
    refused("set latency off", "\"off\"");
    refused("set bandwidth 0", "too small");
    refused("set loss 101%", "too large");
    refused("set latency 1ms up", "\"up\" is no direction");
    refused("set latency 1ms to from", "\"from\" is not expected");
    refused("set resets 1s to", "no direction");
    refused("cut sideways", "\"sideways\"");
    refused("cut reset to", "takes no direction");
    refused("heal now", "\"now\"");
    refused("set latency 1ms to and on", "too many words");
    refused("he\001al", "byte 3");
    refused(longest, "257 bytes");
}

/* A link that was told these lines. */
static struct link_model link_with(const char *const *lines)
{
    struct link_model m;
    link_model_init(&m, 1);
    for (; *lines != NULL; lines++) {
        struct link_command c = parsed(*lines);
        link_model_obey(&m, &c);
    }
    return m;
}
#define LINK(...) link_with((const char *const[]){__VA_ARGS__, NULL})

static uint64_t due(struct link_model *m, struct link_stream *s, uint64_t now, size_t len)
{
    uint64_t ret;
    assert_true(link_model_carry(m, LINK_TO, s, now, len, &ret));
    return ret;
}

static void test_latency_is_one_way_and_exact(void **state)
{
    (void)state;
    struct link_model m = LINK("set latency 40ms to", "set latency 10ms from");
    struct link_stream s[LINK_DIRECTIONS];
    link_model_begin(&m, 1000 * MS, s);
    /* the handshake: there, back, and there again with the first bytes */
    assert_int_equal(due(&m, &s[LINK_TO], 1000 * MS, 100), 1090 * MS);
    assert_int_equal(due(&m, &s[LINK_TO], 2000 * MS, 100), 2040 * MS);
    assert_int_equal(due(&m, &s[LINK_TO], 2001 * MS, 1000000), 2041 * MS);
}

static void test_bytes_never_overtake(void **state)
{
    (void)state;
    struct link_model m = LINK("set latency 40ms", "set jitter 30ms");
    struct link_command faster = parsed("set latency 1ms");
    struct link_stream s = {0};
    uint64_t last = 0, spread = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t now = i * 100 * MS, at = due(&m, &s, now, 1);
        assert_true(at >= last && at >= now + 40 * MS && at <= now + 70 * MS);
        spread = MAX(spread, at - now);
        last = at;
    }
    assert_true(spread > 65 * MS); /* it was drawn, not left out */
    link_model_obey(&m, &faster);
    assert_true(due(&m, &s, 99900 * MS + 1, 1) >= last);
}

static void test_bandwidth_is_shared_and_queue_is_bounded(void **state)
{
    uint64_t wait;
    (void)state;
    struct link_model m = LINK("set bandwidth 1MB/s", "set queue 20kB", "set latency 40ms");
    struct link_stream one = {0}, other = {0};
    assert_int_equal(link_model_room(&m, LINK_TO, 0, &wait), 5000); /* 5 ms of it */
    assert_int_equal(due(&m, &one, 0, 10000), 50 * MS);
    assert_int_equal(due(&m, &other, 0, 10000), 60 * MS); /* behind those of the first */
    assert_int_equal(link_model_room(&m, LINK_TO, 0, &wait), 0);
    assert_int_equal(wait, 1);
    assert_true(link_model_room(&m, LINK_TO, wait, &wait) > 0);
    assert_true(link_model_room(&m, LINK_FROM, 0, &wait) > 0); /* the other way is free */
    assert_int_equal(due(&m, &one, 100 * MS, 1000), 141 * MS);
}

static void test_loss_stalls_what_is_behind(void **state)
{
    (void)state;
    struct link_model m = LINK("set latency 40ms", "set loss 1%");
    struct link_stream s = {0};
    uint64_t fast = 0, slow = 0;
    for (uint64_t i = 1; i <= 20000; i++) {
        uint64_t now = i * 100000 * MS; /* apart: nothing waits for an older loss */
        uint64_t at = due(&m, &s, now, i % 2 == 0 ? LINK_PACKET_BYTES : 20 * LINK_PACKET_BYTES);
        fast += at - now == 120 * MS; /* a round trip later */
        slow += at - now >= 320 * MS; /* a time-out later: the round trip and 200 ms */
        assert_true(at - now == 40 * MS || at - now == 120 * MS || at - now >= 320 * MS);
    }
    /* 10000 lone packets and as many trains of 20, of which the last three have too few behind */
    assert_in_range(slow, 300, 600);
    assert_in_range(fast, 1200, 1900);
    assert_in_range(m.way[LINK_TO].packets_lost, 1900, 2400);
}

static void test_loss_of_everything_breaks(void **state)
{
    uint64_t at;
    (void)state;
    struct link_model m = LINK("set loss 100%");
    struct link_stream s = {0};
    assert_false(link_model_carry(&m, LINK_TO, &s, 0, 1, &at));
    assert_in_range(at, 600 * NS_PER_SEC, 3000 * NS_PER_SEC);  /* as Linux: a quarter of an hour */
    assert_true(link_model_carry(&m, LINK_TO, &s, 0, 0, &at)); /* an end is no packet of ours */
}

static void test_damage_is_one_bit_here_and_there(void **state)
{
    static uint8_t bytes[1000000];
    uint64_t bits = 0;
    (void)state;
    struct link_model m = LINK("set damage 1kB to");
    memset(bytes, 0, sizeof bytes);
    for (size_t at = 0; at < sizeof bytes; at += 7000)
        link_model_emit(&m, LINK_TO, bytes + at, MIN(sizeof bytes - at, 7000));
    for (size_t i = 0; i < sizeof bytes; i++)
        bits += (uint64_t)__builtin_popcount(bytes[i]);
    assert_int_equal(bits, m.way[LINK_TO].bits_flipped);
    assert_in_range(bits, 800, 1200);
    assert_int_equal(m.way[LINK_TO].bytes, sizeof bytes);
    memset(bytes, 0, sizeof bytes);
    link_model_emit(&m, LINK_FROM, bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++)
        assert_int_equal(bytes[i], 0);
}

static void test_cuts_and_lives(void **state)
{
    (void)state;
    struct link_model m = LINK("cut to");
    assert_true(link_model_is_cut(&m) && m.way[LINK_TO].cut && !m.way[LINK_FROM].cut);
    m = LINK("cut to", "cut reset", "heal");
    assert_true(!link_model_is_cut(&m) && !m.refusing);
    m = LINK("cut reset");
    assert_true(!link_model_is_cut(&m) && m.refusing); /* nothing is kept: it breaks */
    assert_true(link_model_life_ns(&m) == UINT64_MAX);
    m = LINK("set resets 2s");
    uint64_t sum = 0;
    for (int i = 0; i < 1000; i++)
        sum += link_model_life_ns(&m);
    assert_in_range(sum / 1000, 1800 * MS, 2200 * MS);
}

/* The same seed does the same. */
static void test_chance_is_replayed(void **state)
{
    (void)state;
    struct link_model a = LINK("set jitter 5ms", "set loss 5%"), b = a;
    struct link_stream sa = {0}, sb = {0};
    for (uint64_t i = 0; i < 200; i++)
        assert_int_equal(due(&a, &sa, i * MS, 9000), due(&b, &sb, i * MS, 9000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line_numbers_are_exact),
        cmocka_unit_test(test_line_directions),
        cmocka_unit_test(test_line_addresses),
        cmocka_unit_test(test_line_mistakes_are_named),
        cmocka_unit_test(test_latency_is_one_way_and_exact),
        cmocka_unit_test(test_bytes_never_overtake),
        cmocka_unit_test(test_bandwidth_is_shared_and_queue_is_bounded),
        cmocka_unit_test(test_loss_stalls_what_is_behind),
        cmocka_unit_test(test_loss_of_everything_breaks),
        cmocka_unit_test(test_damage_is_one_bit_here_and_there),
        cmocka_unit_test(test_cuts_and_lives),
        cmocka_unit_test(test_chance_is_replayed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
