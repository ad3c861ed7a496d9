/* Operations that decode but make no sense: the engine of two shards takes whatever a peer may say
 * (P9), keeps its invariants, finds an end to its own repairs, and says the same after a restart.
 * The input is a script; every operation goes through the encoder and the decoder first. */
#include "base/util.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/merge_script.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script *w = mem_calloc(1, sizeof *w);
    script_init(w, data, size);
    for (int ops = 0; w->at < w->end && ops < 200; ops++) {
        script_op(w);
        if (script_next(w) % 16 == 0)
            script_repairs(w);
        if (script_next(w) % 32 == 0)
            script_collect(w);
    }
    script_repairs(w);
    script_look(w);
    script_reopen(w);
    script_look(w);
    script_deinit(w);
    mem_free(w);
    return 0;
}
