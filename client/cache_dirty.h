/* What was changed in a file and is not committed yet: a layer over a lower content.
 *
 * A layer knows bytes written, ranges zeroed (punched holes), the lowest length the file was cut to
 * and its new length. Reading goes from the upper layer to the lower: each fills what it knows and
 * leaves gaps for the next. A file has at most two layers: one being committed, frozen, and one
 * that takes new writes.
 *
 * Data written at the end by O_APPEND moves along when the lower content turns out to have another
 * length (dirty_rebase), so that appends of two mounts are both kept; all else stays at its offset.
 *
 * Pure; threads: under the owner's lock. */
#ifndef CLIENT_CACHE_DIRTY_H
#define CLIENT_CACHE_DIRTY_H

#include "client/cache_spans.h"

#define DIRTY_SEGMENT_BYTES 65536u
#define DIRTY_PINS_MAX 64u

struct dirty_segment;
struct dirty_layer {
    /* Read-only. */
    uint64_t size;      /* of the file as this layer shows it */
    uint64_t start;     /* of the lower content when the layer was made, or rebased */
    uint64_t cut;       /* lower bytes from here on read as zeros; UINT64_MAX: not cut */
    uint64_t reach;     /* with size_fixed, not cut: the length is at least this */
    bool size_fixed;    /* the length was changed by something else than an append */
    struct spans data;  /* written */
    struct spans zeros; /* zeroed, below data */
    size_t bytes;       /* memory held */
    /* Private. */
    struct dirty_segment *segments; /* by index, ascending */
    size_t segment_count, segment_cap;
};
enum dirty_write_kind {
    DIRTY_WRITE_AT,
    DIRTY_WRITE_APPEND /* offset must be l->size */
};
void dirty_init(struct dirty_layer *l, uint64_t lower_size);
void dirty_deinit(struct dirty_layer *l); /* accepts zeroed */
bool dirty_is_clean(const struct dirty_layer *l);
void dirty_write(struct dirty_layer *l,
                 uint64_t offset,
                 struct slice data,
                 enum dirty_write_kind kind);
/* The same of bytes that lie in buffers of cache_pages.h, full ones and the last what is left.
 * Those that the layer took over are NULL afterwards. */
void dirty_write_pages(struct dirty_layer *l,
                       uint64_t offset,
                       uint8_t **pages,
                       size_t len,
                       enum dirty_write_kind kind);
void dirty_truncate(struct dirty_layer *l, uint64_t size);          /* shorter or longer */
void dirty_extend(struct dirty_layer *l, uint64_t size);            /* only longer */
void dirty_zero(struct dirty_layer *l, uint64_t from, uint64_t to); /* the length stays */
/* Copies what the layer knows of `gaps` to out, where out[0] is the byte at `base`, and takes it
 * off the gaps. */
void dirty_read(const struct dirty_layer *l, uint64_t base, uint8_t *out, struct spans *gaps);
/* True when the layer alone says all of [from, to): no lower byte is needed. */
bool dirty_covers(const struct dirty_layer *l, uint64_t from, uint64_t to);
/* Where these bytes lie, if the layer has them all and none is zeroed: pieces of
 * DIRTY_SEGMENT_BYTES, `from` is a multiple of it. They stay until the layer changes. */
bool dirty_pieces(const struct dirty_layer *l, uint64_t from, uint64_t to, const uint8_t **ret);
/* The same, and they stay as they are whatever the layer does, even its end: who writes there gets
 * a copy. Released by dirty_unpin, under the layer owner's lock, too. */
struct dirty_data;
struct dirty_pins {
    struct dirty_data *at[DIRTY_PINS_MAX];
    size_t count;
};
bool dirty_pin(const struct dirty_layer *l,
               uint64_t from,
               uint64_t to, /* at most DIRTY_PINS_MAX pieces */
               const uint8_t **ret,
               struct dirty_pins *ret_pins);
void dirty_unpin(struct dirty_pins *pins);
/* Where the written bytes before `to` begin, without a gap: `to` itself when there are none. */
uint64_t dirty_run_start(const struct dirty_layer *l, uint64_t to);
/* The lower content has this length now. */
void dirty_rebase(struct dirty_layer *l, uint64_t lower_size);
/* `upper` was written on top of `lower`: both become `lower`; `upper` becomes empty (zeroed). */
void dirty_merge(struct dirty_layer *lower, struct dirty_layer *upper);

#endif
