/* Shared by merge_world*.c only. */
#ifndef TESTS_UNIT_JOURNAL_MERGE_WORLD_INT_H
#define TESTS_UNIT_JOURNAL_MERGE_WORLD_INT_H

#include "tests/unit/journal/merge_world.h"

/* Stamps, journals and applies what was built; the builder is empty afterwards. */
void site_issue(struct world_site *s, struct op_builder *b);
void site_issue_at(struct world_site *s, struct op_builder *b, shard_id_t home);
/* The names of losers that the engine remembers. */
void site_check_losers(struct world_site *s);

#endif
