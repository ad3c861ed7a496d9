/* Sealing ahead: whole blocks of a file that is written from one end to the other are hashed,
 * sealed and put by the workers while the program writes on, so that the commit finds them done.
 *
 *   write leaves a whole block -> WAITS -> RUNS -> DONE: the commit takes its id
 *                                \--------\-----\--> VOID when bytes of it change: the commit
 *                                                    stores it like any other
 *
 * Nothing else is different: the content changes by the commit only, and what nobody refers to is
 * garbage (P2). A block is sealed ahead once for each commit, so who writes the same place over and
 * over costs no more than twice. A worker reads the segments where they lie; they are pinned
 * meanwhile, and a writer who comes back to them goes on with a copy. */
#include "base/assert.h"
#include "client/fileio_int.h"

/* So much is sealed: the file is committed, and the writer goes on in the memory that this frees.
 */
#define RIPE_BYTES (16u * MIB)

enum seal_state {
    SEAL_WAITS,
    SEAL_RUNS,
    SEAL_DONE, /* durable at the site */
    SEAL_VOID
};
struct seal_block {
    uint64_t block;
    enum seal_state state;
    struct chunk_id id; /* SEAL_DONE */
};
/* Of one dirty layer; under its file's lock. */
struct sealing {
    unsigned refs; /* the file's, and its tasks' */
    unsigned task_count, running;
    uint32_t block_bytes;
    uint64_t looked_to;    /* blocks before this one are not looked at again */
    uint64_t sealed_bytes; /* of blocks that were DONE, some of which may be VOID again */
    struct seal_block *at; /* ascending */
    size_t count, cap;
    size_t first_waits; /* none before waits */
};
struct seal_task {
    struct io_task task;
    struct file *f; /* its inode is referenced */
    struct sealing *s;
};

static void sealing_unref(struct sealing *s)
{
    ASSERT(s->refs > 0);
    if (--s->refs > 0)
        return;
    ASSERT_EQ(s->running, 0);
    mem_free(s->at);
    mem_free(s);
}

void seal_drop(struct sealing **s)
{
    if (*s != NULL)
        sealing_unref(*s);
    *s = NULL;
}

/* Index of the first one at or behind `block`. */
static size_t seal_find(const struct sealing *s, uint64_t block)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (s->at[mid].block < block)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static void void_range(struct sealing *s, uint64_t from, uint64_t to)
{
    uint64_t last = (to - 1) / s->block_bytes;
    for (size_t i = seal_find(s, from / s->block_bytes); i < s->count && s->at[i].block <= last;
         i++)
        s->at[i].state = SEAL_VOID;
}

/* The next one to be sealed, or s->count. */
static size_t next_waiting(struct sealing *s)
{
    while (s->first_waits < s->count && s->at[s->first_waits].state != SEAL_WAITS)
        s->first_waits++;
    return s->first_waits;
}

/* ---- the workers' side ---- */

static void ripen(struct file *f, struct sealing *s)
{
    s->sealed_bytes += s->block_bytes;
    if (f->sealing != s || f->frozen_busy || s->sealed_bytes < RIPE_BYTES)
        return;
    pthread_mutex_lock(&f->io->lock);
    f->ripe = true;
    pthread_cond_signal(&f->io->flush);
    pthread_mutex_unlock(&f->io->lock);
}

/* One block, if there is one; file lock held, and again on return. */
static void seal_one(struct file *f, struct sealing *s)
{
    struct chunk_pieces plain = {.len = s->block_bytes};
    struct dirty_pins pins;
    struct riders none = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct chunk_id id;
    size_t i = next_waiting(s);
    if (f->sealing != s || i == s->count)
        return;
    uint64_t from = s->at[i].block * s->block_bytes;
    if (!dirty_pin(&f->dirty, from, from + s->block_bytes, plain.at, &pins)) {
        s->at[i].state = SEAL_VOID;
        return;
    }
    s->at[i].state = SEAL_RUNS;
    s->running++;
    pthread_mutex_unlock(&f->lock);
    /* What goes wrong is met again, and reported, by the commit. */
    int rc = chunk_store(f->io, &plain, &none, &id);
    pthread_mutex_lock(&f->lock);
    dirty_unpin(&pins);
    if (s->at[i].state == SEAL_RUNS) {
        s->at[i].state = rc == 0 ? SEAL_DONE : SEAL_VOID;
        s->at[i].id = id;
        if (rc == 0)
            ripen(f, s);
    }
    if (--s->running == 0)
        pthread_cond_broadcast(&f->moved);
}

static void seal_run(struct io_task *task)
{
    struct seal_task *t = CONTAINER_OF(task, struct seal_task, task);
    struct file *f = t->f;
    struct sealing *s = t->s;
    pthread_mutex_lock(&f->lock);
    seal_one(f, s);
    /* One at a time, so that who waits for a worker gets one. */
    if (f->sealing == s && next_waiting(s) < s->count && io_submit(f->io, task)) {
        pthread_mutex_unlock(&f->lock);
        return;
    }
    s->task_count--;
    sealing_unref(s);
    pthread_mutex_unlock(&f->lock);
    inode_unref(f->io->config.inodes, f->inode);
    mem_free(t);
}

static void seal_start(struct file *f, struct sealing *s)
{
    struct seal_task *t = mem_calloc(1, sizeof *t);
    *t = (struct seal_task){.task.run = seal_run, .f = f, .s = s};
    (void)inode_ref(f->io->config.inodes, f->inode);
    s->refs++;
    s->task_count++;
    if (io_submit(f->io, &t->task))
        return;
    /* What waits is tried again with the next block, or left to the commit. */
    s->task_count--;
    s->refs--;
    inode_unref(f->io->config.inodes, f->inode); /* never the last: the caller has one */
    mem_free(t);
}

/* ---- the writer's side ---- */

/* Of the blocks that a commit would make of what is written now. */
static uint32_t block_bytes_now(const struct file *f)
{
    if (f->frozen_busy && f->frozen_sealing != NULL)
        return f->frozen_sealing->block_bytes;
    return content_block_bytes(f->base, &f->dirty, file_wants_small_blocks(f, f->base));
}

void seal_written(struct file *f, uint64_t from, uint64_t to)
{
    struct sealing *s = f->sealing;
    if (s != NULL)
        void_range(s, from, to);
    /* Small blocks ride with the commit, or are soon made. */
    uint64_t run = dirty_run_start(&f->dirty, to);
    if (to - run <= MANIFEST_BLOCK_BYTES_MIN)
        return;
    uint32_t bb = block_bytes_now(f);
    if (bb <= MANIFEST_BLOCK_BYTES_MIN)
        return;
    if (s != NULL && s->block_bytes != bb) {
        seal_drop(&f->sealing);
        s = NULL;
    }
    /* The block that was written last is left: who syncs now lets it ride with the commit. */
    uint64_t block = (run + bb - 1) / bb, end = (to - 1) / bb;
    if (s != NULL)
        block = MAX(block, s->looked_to);
    if (block >= end)
        return;
    if (s == NULL) {
        s = f->sealing = mem_calloc(1, sizeof *s);
        *s = (struct sealing){.refs = 1, .block_bytes = bb};
    }
    for (; block < end; block++) {
        if (s->count == s->cap) {
            s->cap = MAX(64u, s->cap * 2);
            s->at = mem_realloc(s->at, s->cap * sizeof *s->at);
        }
        s->at[s->count++] = (struct seal_block){.block = block, .state = SEAL_WAITS};
        if (s->task_count < f->io->config.worker_count)
            seal_start(f, s);
    }
    s->looked_to = end;
}

/* ---- the commit's side ---- */

bool seal_fits(const struct sealing *s, uint32_t block_bytes)
{
    return s != NULL && s->block_bytes == block_bytes;
}

enum seal_answer seal_look(const struct sealing *s, uint64_t block, struct chunk_id *ret_id)
{
    size_t i = seal_find(s, block);
    if (i == s->count || s->at[i].block != block)
        return SEAL_IS_NOT;
    if (s->at[i].state == SEAL_DONE)
        *ret_id = s->at[i].id;
    return s->at[i].state == SEAL_DONE   ? SEAL_IS_DONE
           : s->at[i].state == SEAL_RUNS ? SEAL_IS_UNDER_WAY
                                         : SEAL_IS_NOT;
}

void seal_settle(struct file *f, const struct sealing *s)
{
    while (s->running > 0)
        pthread_cond_wait(&f->moved, &f->lock);
}
