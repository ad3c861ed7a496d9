/* Between sites: one thread that pairs, connects, ships the journal, fetches chunks and measures
 * lag. The node (site/node.h) is its only partner inside the site.
 *
 * Order of life: node_open, wan_start, node_run, then wan_stop, node_close, wan_free, node_free.
 *
 * Verbs it adds to the node's administration (JSON in, JSON out; all but wait answer at once or
 * when what they started is durable): peer.invite {ttl_s?, address?}     -> {token, expires_s}
 *   peer.accept {token}                -> {peer, site_id}: when the snapshot is loaded
 *   peer.list   {}                     -> {peers: [...]}, as in wan.status
 *   peer.pause, peer.resume, peer.remove {name} -> {peer, state}
 *   wan.status  {}                     -> see wan/README.md
 *   wait        {timeout_s?}           -> {in_step, peers: [{peer, state}]}; ERR_TIMEOUT and what
 * is missing
 */
#ifndef WAN_WAN_H
#define WAN_WAN_H

#include "site/node.h"

struct wan;

/* Reads or makes the site's certificate, listens (settings.wan; port 0 takes a free one), starts
 * the thread and registers with the node. On the node's loop thread, or before node_run. Errors:
 * ERR_CORRUPT, ERR_CONFIG, ERR_IO, ... with the sentence in d. The node must outlive it. */
int wan_start(struct wan **ret, struct node *n, struct err_detail *d) MUST_CHECK;
/* Ends connections and the thread. Any thread but the node's loop while that runs; idempotent. */
void wan_stop(struct wan *w);
/* After wan_stop and node_close: what was posted to the node's loop has run and refers to this no
 * more. Accepts NULL. */
void wan_free(struct wan *w);
/* How far this site is behind a peer, as measured here. WAN thread, or when that does not run: for
 * tests and the simulator. False: no such peer. */
struct wan_lag {
    bool up;
    bool held;     /* what comes is far ahead of this clock, and waits (W6) */
    bool by_clock; /* lag_is_by_clock() */
    uint64_t lag_ns, ops_to_go, bytes_to_go;
    uint64_t ops_applied; /* from its streams since the start */
};
bool wan_lag_from(const struct wan *w, site_id_t peer, struct wan_lag *ret);
/* Where it listens, 0 when it does not. Any thread. */
uint16_t wan_listen_port(const struct wan *w);

#endif
