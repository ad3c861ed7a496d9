/* The command line's side of RPC_ADMIN: connect to the daemon's Unix socket with the site's key,
 * HELLO_ADMIN, one request, one answer. Every way this can fail has its own sentence. */
#include "client/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "site/proto.h"
#include "site/rpc.h"

#define CONNECT_MS 10000u

static int key_load(const char *dir, const char *command, uint8_t ret[32])
{
    char *path = mem_printf("%s/site.key", dir);
    int code = CLI_OK;
    ssize_t len = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        uint8_t bytes[33];
        len = read(fd, bytes, sizeof(bytes));
        if (len == 32)
            memcpy(ret, bytes, 32);
        explicit_bzero(bytes, sizeof(bytes));
    }
    if (fd < 0 && (errno == EACCES || errno == EPERM))
        code = cli_error(CLI_DENIED, "%s: cannot read %s: %s: run it as the user of the daemon",
                         command, path, strerror(errno));
    else if (fd < 0)
        code = cli_error(CLI_DIR,
                         "%s: %s is not a site's directory: %s: %s: make a site with 'claudefs "
                         "site create NAME --dir DIR'",
                         command, dir, path, strerror(errno));
    else if (len != 32)
        code = cli_error(CLI_DIR, "%s: %s is damaged: not 32 bytes: restore it from a copy",
                         command, path);
    if (fd >= 0)
        (void)close(fd); /* only read */
    mem_free(path);
    return code;
}

/* One request and its decoded reply. `arena` and `raw` own what *ret points to. */
static int call(struct rpc_client *c,
                uint16_t type,
                const struct fs_request *request,
                uint32_t timeout_ms,
                struct op_arena *arena,
                struct rpc_reply *raw,
                struct fs_reply *ret)
{
    struct buf body = {0};
    fs_request_encode(request, &body);
    int rc =
        rpc_client_call(c, type, type, 0, buf_slice(&body), slice_of(NULL, 0), timeout_ms, raw);
    buf_deinit(&body);
    if (rc == 0)
        rc = fs_reply_decode(raw->frame.body, arena, ret);
    return rc;
}

static int
connect_to(const char *dir, const char *command, enum cli_ask_mode mode, struct rpc_client **ret)
{
    struct rpc_auth auth = {0};
    int code = key_load(dir, command, auth.site_key);
    if (code != CLI_OK)
        return code;
    char *path = mem_printf("%s/sock", dir);
    struct err_detail d = {{0}};
    int rc =
        rpc_client_connect(ret, &(struct rpc_target){.unix_path = path}, &auth, CONNECT_MS, &d);
    explicit_bzero(&auth, sizeof(auth));
    if (rc == ERR_AUTH || rc == ERR_ACCESS)
        code = cli_error(CLI_DENIED,
                         "%s: the daemon of %s refused the connection: %s: run it as "
                         "the user of the daemon",
                         command, dir, d.text[0] ? d.text : err_text(rc));
    else if (rc != 0 && mode == CLI_ASK_QUIET)
        code = CLI_UNREACHABLE;
    else if (rc != 0)
        code = cli_error(CLI_UNREACHABLE,
                         "%s: the daemon of %s does not answer: %s: start it with 'claudefs serve "
                         "--dir %s'",
                         command, dir, d.text[0] ? d.text : err_text(rc), dir);
    mem_free(path);
    return code;
}

/* A refusal's sentence: the detail, or the text that came as data, or that of the code. */
static char *refusal_text(const struct fs_reply *r)
{
    struct slice text = r->detail.len > 0 ? r->detail : r->data;
    if (text.len == 0)
        text = slice_str(err_text(r->rc));
    return mem_printf("%.*s", (int)MIN(text.len, 4096), (const char *)text.ptr);
}

static int exchange(struct rpc_client *c,
                    const char *command,
                    const char *request,
                    uint32_t timeout_ms,
                    struct cli_answer *ret)
{
    struct op_arena arena = {0};
    struct rpc_reply raw = {0};
    struct fs_reply reply = {0};
    int code = CLI_OK;
    int rc = call(c, RPC_HELLO, &(struct fs_request){.flags = HELLO_ADMIN}, CONNECT_MS, &arena,
                  &raw, &reply);
    if (rc == 0 && reply.rc == 0) {
        struct fs_request admin = {.data = slice_str(request)};
        reply = (struct fs_reply){0};
        rc = call(c, RPC_ADMIN, &admin, timeout_ms, &arena, &raw, &reply);
    }
    if (rc != 0) {
        code = cli_error(CLI_UNREACHABLE, "%s: no answer from the daemon: %s: see its log", command,
                         err_text(rc));
    } else if (reply.rc != 0) {
        ret->rc = reply.rc;
        ret->sentence = refusal_text(&reply);
    } else {
        json_error_t why;
        ret->json = json_loadb((const char *)reply.data.ptr, reply.data.len, JSON_DECODE_ANY, &why);
        if (!ret->json)
            code = cli_error(CLI_FAILED,
                             "%s: the daemon's answer is not JSON: %s: are both of one "
                             "version?",
                             command, why.text);
    }
    buf_deinit(&raw.storage);
    op_arena_deinit(&arena);
    return code;
}

int cli_ask(const char *dir,
            const char *command,
            json_t *request,
            uint32_t timeout_ms,
            enum cli_ask_mode mode,
            struct cli_answer *ret)
{
    *ret = (struct cli_answer){0};
    struct rpc_client *c = NULL;
    char *text = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    int code = text
                   ? CLI_OK
                   : cli_error(CLI_USAGE, "%s: not UTF-8: the words of a command must be", command);
    if (code == CLI_OK)
        code = connect_to(dir, command, mode, &c);
    if (code == CLI_OK)
        code = exchange(c, command, text, timeout_ms, ret);
    rpc_client_close(c);
    mem_free(text); /* jansson allocates with malloc, as mem_ does */
    return code;
}

void cli_answer_deinit(struct cli_answer *a)
{
    mem_free(a->sentence);
    json_decref(a->json);
    *a = (struct cli_answer){0};
}

int cli_request(
    const char *dir, const char *command, json_t *request, uint32_t timeout_ms, json_t **ret)
{
    struct cli_answer answer;
    int code = cli_ask(dir, command, request, timeout_ms, CLI_ASK_LOUD, &answer);
    if (code == CLI_OK && answer.rc != 0)
        code = cli_error(cli_exit_of(answer.rc), "%s: %s", command, answer.sentence);
    if (code == CLI_OK) {
        *ret = answer.json;
        answer.json = NULL;
    }
    cli_answer_deinit(&answer);
    return code;
}

int cli_show(const char *dir,
             const char *command,
             json_t *request,
             uint32_t timeout_ms,
             bool json,
             void (*print)(json_t *answer))
{
    json_t *answer = NULL;
    int code = cli_request(dir, command, request, timeout_ms, &answer);
    if (code == CLI_OK && json)
        cli_print_json(answer);
    else if (code == CLI_OK && print)
        print(answer);
    json_decref(answer);
    return code;
}
