/* Planted bugs: deliberate defects that prove that the simulator's checkers find something.
 *
 * Only a build with CLAUDEFS_PLANT has them, and only the one that plant_set() names is awake;
 * everywhere else PLANTED() is a constant false and the compiler drops it. Each number is used in
 * one place (54 and 74 where the same is checked again); the list is what the defect breaks. In
 * braces: the promise, or the checker, by which it has to be found (scripts/soak --plants). */
#ifndef BASE_PLANT_H
#define BASE_PLANT_H

#include "base/util.h"

/* clang-format off */
/*
 *   1 {P4} rule 3: a delete knows of edits it never saw
 *   2 {P5} rule 3: nobody links an edited file again
 *   3 {P5} rule 2: the losing version is not forked
 *   4 {P5} rule 4: a directory with content stays dead
 *   5 {P6} rule 5: moves may close a cycle
 *   6 {P4} rule 9: the last to arrive wins a register
 *   7 {P5} rule 2: the last to arrive wins a content
 *   8 {P5} rule 6: losers of a name vanish
 *   9 {P4} rule 1: a removal takes what it did not see
 *  10 {P4} rule 9: the last to arrive wins a time
 *  11 {P4} a cursor jumps over a record at the start
 *  12 {P4} gateway: one operation too many is "had"
 *  13 {P7} gateway: shards one after the other (P7)
 *  14 {P1} replay passes over a record
 *  15 {P2} journal writes are not synced
 *  16 {P1} answered before it is durable
 *  17 {P6} the outbox is not sent after a restart
 *  18 {model} clocks do not learn from each other
 *  19 {P1} a repeated call is carried out again
 *  20 {P7} more is called durable than is
 *  21 {P4} the journal is trimmed before peers have it
 *  22 {P4} a snapshot lacks a pair
 *  23 {P1} the state claims a record it has not
 *  24 {lag} the lag shown is always nought
 *  25 {model} rule 6: the lower stamp keeps the name, at all sites alike
 *  27 {P7} a relay sends on a batch shard by shard
 *  33 {P7} a restart keeps what is on the disk of a batch that is not whole
 *  34 {P7} a shard shows and answers what is on its disk, whole or not
 *  46 {rules} rule 7: the oid of a directory is made of its site as well
 *  47 {P4} rule 8: who leaves a name that is gone takes away where others have moved it
 *  48 {model} rule 6: equal files are no twins
 *  49 {rules} rule 6: nobody makes a contested name final
 *  50 {P4} rule 5: moves are folded in the order in which they arrive
 *  51 {rules} rule 9: set-id bits hold for any content
 *  52 {P4} rule 3: what is written to a file without a name is an operation
 *  53 {P2} recovery takes a torn record for a record
 *  58 {P4} what is dead is dropped before all members know of it
 *  60 {P4} rule 9: the last to arrive wins an extended attribute
 *  61 {P6} rule 6: a name that is final now shows twice until its directory changes again
 *  63 {lag} the operations that a stream passes over are told as still to go
 *  64 {P7} nobody passes on to a site what a third one has issued
 *  65 {conflicts} the site that settles two edits of a file does not record the conflict
 *  66 {conflicts} what one site puts in the place of another thing is recorded as a conflict
 *  71 {conflicts} nothing is written to the conflict log
 * With faults of the kind in brackets (claudefs-sim soak --faults KIND --plant N):
 *  26 [line] {P7} parts of a batch have stamps of their own: a relay sends on one before another
 *  28 [tight] {P4} between shards: a message passes one that was refused
 *  29 [chunks] {P2} garbage: only what the first shard refers to is needed
 *  30 [remove] {P4} the cut is the last answer, not the highest
 *  31 [join] {P4} behind a snapshot the stream goes on one record too late
 *  32 [eio] {P2} a journal write that failed counts as done
 *  35 [crowd] {P1} an error is answered before what it tells of is durable
 *  36 [crowd] {P1} a lookup shows half of a change between shards
 *  37 [crowd] {P1} whether a name is free is looked at without its latch
 *  38 [crowd] {P1} an answer does not wait until other mounts have dropped what was there
 *  39 [crowd] {P1} a repeated create is evaluated again
 *  40 [crowd] {P1} nobody is told to drop the name that a rename has replaced
 *  41 [away] {P5} a site that comes back takes what others have changed meanwhile for known
 *  42 [away] {P2} a site that comes back says that its list is there before it is
 *  43 [away,short] {P4} most of the members that are known decide, whoever else knows them
 *  44 [away,short] {P4} a site that comes back does not bring along whom only it knew
 *  45 [join,lose] {P4} a snapshot comes without what other members may lack of it
 *  54 [rot,chunks] {P2} what a chunk holds is checked by no sum, tag or hash
 *  55 [clock] {clock} a stamp far ahead is not held
 *  56 [lose] {P4} nobody takes over repairs
 *  57 [lose] {rules} others do not wait before they take repairs over
 *  59 [space] {space} what is dead is never dropped
 *  62 [lose] {P6} others take over a repair after three times the time that is theirs
 *  70 [chunks,space] {space} chunks are never swept
 *  72 [crowd] {P3} a latch is let go and wakes nobody
 *  73 [eio] {P9} a disk that fails is told as a wrong configuration
 *  74 [chunks,lose] {P8} a block that nobody has is read as zeros
 *  75 [line,chunks] {P2} a site looks for a chunk at home and asks nobody beyond it
 *  80 [ahead] {P2} a sync is answered at once
 *  81 [ahead] {P2} what is answered ahead of the disk is told to be durable at once
 *  82 [ahead] {P2} what was answered ahead and went with the node is not made again
 *  83 [ahead] {P2} a file is made again under another oid
 *  84 [ahead] {P1} answered ahead on top of what another mount did and is not durable
 *  85 [ahead] {P1} answered ahead when it concerns several shards
 *  86 [ahead] {P2} a node gives oids once more that the one before had given ahead
 *  88 [ahead] {P1} answered ahead before other mounts have dropped what was there
 * Of the replicas inside a site, in worlds of several nodes:
 * 101 {P2} committed when one more has it, not all
 * 102 {P1} a primary's lease never ends
 * 103 {P1} a new primary does not wait the old lease out
 * 104 {P2} a replica keeps what differs from the primary's
 * 105 {crash} messages of an old epoch count
 * 106 {P2} a replica enters before it has everything
 * 107 {P2} a replica answers before its disk has it
 * 108 {P2} a replica that is to leave the record does not count any more
 * 109 {crash} a new primary serves before what it found is committed
 * 110 {P7} a new primary does not know of old promises
 * 111 {P2} a replica that is to enter the record does not count yet
 * 112 {P2} a late word makes a replica give up its copy
 * Of the shards above them:
 * 113 {P1} a follower takes for committed what is on its disk
 * 114 {P1} what was not committed stays in the state of who leads no more
 * 115 {P4} a message leaves before the record that makes it is committed
 * 116 {P1} a shard takes messages of another one with a gap
 * 117 {P1} a new leader serves before what it found in its outbox is delivered
 * 118 {P4} what is delivered leaves the leader's outbox without a record
 * Of shards that several nodes keep, among other sites (soak --nodes 3 --sites 2):
 * 119 {P4} what a peer acknowledges goes into the leader's state without a record
 * 120 {P4} a stream goes on when another node leads one of the shards
 * 121 {P7} an operation of a peer is journaled before what it names in another shard is committed
 * Of chunks on several targets of a node (soak --targets):
 * 131 {placement} two parts of a chunk lie in one domain
 * 132 {placement} a target's weight is ignored
 * 133 {placement} where a target stands in the list counts, not its id
 * 134 {placement} a put counts when one of its copies is durable
 * 135 {P2} who reads asks the first target only
 * 136 {placement} a chunk is said to be there when one target has it
 */
/* clang-format on */
#define PLANT_COUNT 88u
#define PLANT_REPLICA_FIRST 101u
#define PLANT_REPLICA_LAST 112u
#define PLANT_SITES_FIRST 119u
#define PLANT_NODES_LAST 121u
#define PLANT_TARGETS_FIRST 131u
#define PLANT_TARGETS_LAST 136u

#ifdef CLAUDEFS_PLANT
extern unsigned plant_awake;
#define PLANTED(number) (plant_awake == (number))
static inline void plant_set(unsigned number)
{
    plant_awake = number;
}
#else
#define PLANTED(number) false
static inline void plant_set(unsigned number)
{
    (void)number;
}
#endif

#endif
