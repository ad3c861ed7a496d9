/* The difference of two texts, line by line, for people: the longest common subsequence, with three
 * lines of context. Pure. */
#ifndef CLIENT_TEXT_DIFF_H
#define CLIENT_TEXT_DIFF_H

#include "base/buf.h"

/* Appends lines "  both", "- only in a", "+ only in b", and "..." for what is left out. A part
 * with more than a thousand differences is given as a whole. Equal texts give nothing. */
void text_diff(struct slice a, struct slice b, struct buf *ret);

#endif
