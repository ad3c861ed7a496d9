/* Private to site/node_admin*.c: verbs of the command line. Each replies once, on the loop. */
#ifndef SITE_ADMIN_INT_H
#define SITE_ADMIN_INT_H

#include <jansson.h>
#include <stdlib.h>

#include "site/node_int.h"

void admin_reply_json(admin_reply_cb cb, void *ctx, json_t *o /* taken */);
void admin_conflicts_list(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
void admin_conflicts_explain(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
void admin_conflicts_show(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
void admin_conflicts_resolve(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
void admin_conflicts_undo(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
void admin_journal_show(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
void admin_journal_tail(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
void admin_restore(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
void admin_journal_keep(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
void admin_versions_keep(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
void admin_gc(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
void admin_gc_status(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
void admin_contents(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
void admin_fsck(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
json_t *node_sessions_json(const struct node *n); /* of status; oldest first */
json_t *json_bytes(struct slice s);               /* as UTF-8; other bytes as U+FFFD */

#endif
