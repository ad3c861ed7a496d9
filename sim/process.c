/* Starting and killing daemons. See process.h. */
#include "sim/process.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "sim/net.h"
#include "sim/rpc_sim.h"
#include "site/node_return.h"

#define EPOCH_NS (UINT64_C(1700000000) * NS_PER_SEC)

static uint64_t drifted(const struct process *p)
{
    int64_t now = (int64_t)sched->now_ns;
    return (uint64_t)(now + now / 1000000 * p->config.drift_ppm);
}

static uint64_t mono_ns(void *ctx)
{
    return drifted(ctx);
}

static uint64_t wall_ns(void *ctx)
{
    const struct process *p = ctx;
    return EPOCH_NS + (uint64_t)((int64_t)drifted(p) + p->config.offset_ns);
}

uint64_t process_true_ns(const struct process *p, uint64_t shown_ns)
{
    int64_t ns = (int64_t)(shown_ns - MIN(shown_ns, EPOCH_NS)) - p->config.offset_ns;
    ns = MAX(ns, 0);
    return (uint64_t)(ns - ns / 1000000 * p->config.drift_ppm);
}

void process_init(struct process *p, unsigned site, const struct world_site *config)
{
    memset(p, 0, sizeof *p);
    (void)snprintf(p->dir, sizeof p->dir, DISK_PREFIX "%u", site); /* fits */
    p->config = config->clock;
    p->clock = (struct clock){.mono_ns = mono_ns, .wall_ns = wall_ns, .ctx = p};
    p->segment_bytes = config->segment_bytes;
    p->checkpoint_bytes = config->checkpoint_bytes;
    p->garbage_ns = config->garbage_ns;
    p->machine.clock = &p->clock;
    p->machine.site = site;
    p->machine.disk = disk_new(p->dir, &config->disk);
}

void process_deinit(struct process *p)
{
    if (p->node != NULL)
        process_crash(p, false);
    disk_free(p->machine.disk);
    p->machine.disk = NULL;
}

int process_create(struct process *p, const struct site_settings *settings, struct err_detail *d)
{
    return site_create(p->dir, settings, NULL, d);
}

/* Each part, unless power has gone. */
static int daemon_start(struct process *p, const struct node_config *nc, struct err_detail *d)
{
    const struct disk *disk = p->machine.disk;
    int rc = node_return_prepare(nc, d);
    if (rc == 0 && !disk_power_is_off(disk))
        rc = node_open(&p->node, nc, d);
    if (rc == 0 && !disk_power_is_off(disk))
        rc = node_start(p->node, d);
    if (rc == 0 && !disk_power_is_off(disk))
        rc = wan_start(&p->wan, p->node, d);
    return rc;
}

/* With its machine as the current one. */
static void daemon_free(struct process *p)
{
    if (p->wan != NULL)
        wan_stop(p->wan);
    node_close(p->node);
    if (p->wan != NULL)
        wan_free(p->wan);
    node_free(p->node);
    machine_current = NULL;
    p->machine.net = NULL;
    p->wan = NULL;
    p->node = NULL;
}

int process_start(struct process *p, struct err_detail *d)
{
    struct node_config nc = {.dir = p->dir,
                             .clock = &p->clock,
                             .journal_segment_bytes = p->segment_bytes,
                             .checkpoint_bytes = (size_t)p->checkpoint_bytes,
                             .garbage_ns = p->garbage_ns};
    ASSERT(p->node == NULL && !p->lost);
    sched_note("start", p->machine.site, 0);
    net_power(p->machine.site, true);
    machine_current = &p->machine;
    int rc = daemon_start(p, &nc, d);
    bool off = disk_power_is_off(p->machine.disk); /* what was done since then, nobody saw */
    if (off)
        net_power(p->machine.site, false);
    if (off && p->machine.loop != NULL)
        loop_lose(p->machine.loop, true);
    if (rc != 0 || off)
        daemon_free(p);
    machine_current = NULL;
    p->machine.ghost = false;
    disk_power_off_in(p->machine.disk, &p->machine, 0, false);
    p->crashes += off;
    return off ? ERR_CLOSED : rc;
}

void process_crash(struct process *p, bool power)
{
    if (p->node == NULL)
        return;
    sched_note("crash", p->machine.site, power);
    rpc_sim_break(&p->machine);
    if (power)
        net_power(p->machine.site, false);
    loop_lose(node_loop(p->node), power);
    if (!p->machine.ghost) /* else its power went before */
        disk_crash(p->machine.disk, power);
    /* What is left of it gives back its memory; nobody sees what it does. */
    p->machine.ghost = true;
    machine_current = &p->machine;
    daemon_free(p);
    p->machine.ghost = false;
    disk_power_off_in(p->machine.disk, &p->machine, 0, false);
    p->crashes++;
}

void process_close(struct process *p)
{
    sched_note("close", p->machine.site, 0);
    machine_current = &p->machine;
    disk_power_off_in(p->machine.disk, &p->machine, 0, false);
    (void)node_run(p->node); /* ends at once: its loop was stopped, and is not any more */
    daemon_free(p);
}

bool process_serves(const struct process *p)
{
    return p->node != NULL && !loop_stopped(node_loop(p->node));
}

const char *process_ended(const struct process *p)
{
    if (p->node == NULL || !loop_stopped(node_loop(p->node)))
        return NULL;
    return node_exit_detail(p->node);
}
