/* Private to data/: the values of a store's index (store_index.h has the keys). Core. Fixed-width
 * little endian:
 *
 *   entry  segment u64, epoch u64, offset u32, len u32, plain_len u32
 *   stat   end, live_bytes, live_count, plain_bytes, each u64
 *   meta   version u32, then segment, offset, epoch, next_segment, each u64, store id 16
 *
 * Version 1 had neither plain_len nor plain_bytes. */
#ifndef DATA_INDEX_VALUE_H
#define DATA_INDEX_VALUE_H

#include "base/buf.h"
#include "data/store_index.h"

/* Encoders append. Decoders: ERR_CORRUPT, with *ret as it was. */
void index_entry_encode(const struct store_entry *e, struct buf *out);
int index_entry_decode(struct slice value, struct store_entry *ret) MUST_CHECK;
void index_stat_encode(const struct segment_stat *s, struct buf *out);
int index_stat_decode(struct slice value, struct segment_stat *ret) MUST_CHECK;
void index_meta_encode(const struct index_meta *m, struct buf *out);
/* ERR_VERSION as well. */
int index_meta_decode(struct slice value, struct index_meta *ret) MUST_CHECK;

#endif
