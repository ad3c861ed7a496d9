/* Planted bugs: deliberate defects that prove that the simulator's checkers find something.
 *
 * Only a build with CLAUDEFS_PLANT has them, and only the one that plant_set() names is awake;
 * everywhere else PLANTED() is a constant false and the compiler drops it. Each number is used in
 * one place; the list is what the defect breaks, in braces by which checker it is to be found. */
#ifndef BASE_PLANT_H
#define BASE_PLANT_H

#include "base/util.h"

/* clang-format off */
/*
 *  1 rule 3: a delete knows of edits it never saw
 *  2 rule 3: nobody links an edited file again
 *  3 rule 2: the losing version is not forked
 *  4 rule 4: a directory with content stays dead
 *  5 rule 5: moves may close a cycle
 *  6 rule 9: the last to arrive wins a register
 *  7 rule 2: the last to arrive wins a content
 *  8 rule 6: losers of a name vanish
 *  9 rule 1: a removal takes what it did not see
 * 10 rule 9: the last to arrive wins a time
 * 11 a cursor jumps over a record at the start
 * 12 gateway: one operation too many is "had"
 * 13 gateway: shards one after the other (P7)
 * 14 replay passes over a record
 * 15 journal writes are not synced
 * 16 answered before it is durable
 * 17 the outbox is not sent after a restart
 * 18 clocks do not learn from each other
 * 19 a repeated call is carried out again
 * 20 more is called durable than is
 * 21 the journal is trimmed before peers have it
 * 22 a snapshot lacks a pair
 * 23 the state claims a record it has not
 * 24 the lag shown is always nought
 * 25 rule 6: the lower stamp keeps the name, at all sites alike
 * 27 a relay sends on a batch shard by shard
 * 33 a restart keeps what is on the disk of a batch that is not whole
 * 34 a shard shows and answers what is on its disk, whole or not
 * 60 {P4} rule 9: the last to arrive wins an extended attribute
 * 61 {P6} rule 6: a name that is final now shows twice until its directory changes again
 * 63 {lag} the operations that a stream passes over are told as still to go
 * 64 {P7} nobody passes on to a site what a third one has issued
 * 65 {conflicts} the site that settles two edits of a file does not record the conflict
 * 66 {conflicts} what one site puts in the place of another thing is recorded as a conflict
 * With faults of the kind in brackets (claudefs-sim soak --faults KIND --plant N):
 * 26 [line] the parts of a batch have stamps of their own: a relay sends on one before another
 * 28 [tight] between shards: a message passes one that was refused
 * 29 [chunks] garbage: only what the first shard refers to is needed
 * 30 [remove] the cut is the last answer, not the highest
 * 31 [join] behind a snapshot the stream goes on one record too late
 * 32 [eio] a journal write that failed counts as done
 * 35 [crowd] an error is answered before what it tells of is durable
 * 36 [crowd] a lookup shows half of a change between shards
 * 37 [crowd] whether a name is free is looked at without its latch
 * 38 [crowd] an answer does not wait until other mounts have dropped what was there
 * 39 [crowd] a repeated create is evaluated again
 * 40 [crowd] nobody is told to drop the name that a rename has replaced
 * 41 [away] a site that comes back takes what others have changed meanwhile for known
 * 42 [away] a site that comes back says that its list is there before it is
 * 43 [away,short] most of the members that are known decide, whoever else knows them
 * 44 [away,short] a site that comes back does not bring along whom only it knew
 * 45 [join,lose] a snapshot comes without what other members may lack of it
 * 62 [lose] {P6} others take over a repair after three times the time that is theirs
 * Of the replicas inside a site, in worlds of several nodes:
 * 101 committed when one more has it, not all
 * 102 a primary's lease never ends
 * 103 a new primary does not wait the old lease out
 * 104 a replica keeps what differs from the primary's
 * 105 messages of an old epoch count
 * 106 a replica enters before it has everything
 * 107 a replica answers before its disk has it
 * 108 a replica that is to leave the record does not count any more
 * 109 a new primary serves before what it found is committed
 * 110 a new primary does not know of old promises
 * 111 a replica that is to enter the record does not count yet
 * 112 a late word makes a replica give up its copy
 * Of the shards above them:
 * 113 a follower takes for committed what is on its disk
 * 114 what was not committed stays in the state of who leads no more
 * 115 a message leaves before the record that makes it is committed
 * 116 a shard takes messages of another one with a gap
 * 117 a new leader serves before what it found in its outbox is delivered
 * 118 what is delivered leaves the leader's outbox without a record
 * Of shards that several nodes keep, among other sites (soak --nodes 3 --sites 2):
 * 119 what a peer acknowledges goes into the leader's state without a record
 * 120 a stream goes on when another node leads one of the shards
 * 121 an operation of a peer is journaled before what it names in another shard is committed
 */
/* clang-format on */
#define PLANT_COUNT 66u
#define PLANT_REPLICA_FIRST 101u
#define PLANT_REPLICA_LAST 112u
#define PLANT_SITES_FIRST 119u
#define PLANT_NODES_LAST 121u

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
