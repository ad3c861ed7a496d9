/* A generated history of one site: what a user's programs do, as operations. Create, write, chmod,
 * rename, unlink; nine of ten touch what was used lately, the others anything. Two sites can go on
 * from one history (history_fork), each by itself. */
#ifndef BENCH_HISTORY_H
#define BENCH_HISTORY_H

#include "journal/op.h"

enum {
    HISTORY_DIRS = 1000
};

struct history {
    struct op *ops; /* since history_forget */
    uint32_t count, cap;
    uint64_t effects;      /* of them */
    bool uniform;          /* set it at will: no locality */
    struct op_arena arena; /* behind ops */
    struct op_arena kept;  /* names of directories */
    site_id_t site;
    uint64_t seq, hlc, rng;
    struct file *files; /* what lives, by place in the list */
    uint32_t file_count, file_cap;
    uint32_t dir_count;
    struct oid dirs[HISTORY_DIRS];
    struct birth births[HISTORY_DIRS];
};
void history_init(struct history *h, site_id_t site, uint64_t hlc);
void history_deinit(struct history *h);
/* Makes the directories, by as many operations. */
void history_make_dirs(struct history *h);
void history_step(struct history *h);                  /* one more operation */
void history_steps(struct history *h, uint32_t count); /* and forgets those before */
void history_move(struct history *h);                  /* of a directory */
void history_forget(struct history *h);                /* the operations so far */
/* Another site that knows what h knows now. h must outlive it. */
void history_fork(const struct history *h, site_id_t site, struct history *ret);

#endif
