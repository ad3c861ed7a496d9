/* The simulated twin of wan/wan_h2*.c (tls_sim.c is wan_tls.c's): what uv_sim.c and the world tell
 * it. */
#ifndef SIM_H2_SIM_H
#define SIM_H2_SIM_H

#include <uv.h>

#include "sim/loop_sim.h"

struct machine *uv_sim_machine(const uv_loop_t *loop);
/* cb NULL: stops listening. */
void h2_sim_listen(uv_loop_t *loop, uv_stream_t *listener, uv_connection_cb cb);
/* Carries out at once what was asked of the connections of this loop: closes, above all. */
void h2_sim_finish(uv_loop_t *loop);

#endif
