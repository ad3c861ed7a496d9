/* Planted bugs: deliberate defects that prove that the simulator's checkers find something.
 *
 * Only a build with CLAUDEFS_PLANT has them, and only the one that plant_set() names is awake;
 * everywhere else PLANTED() is a constant false and the compiler drops it. Each number is used in
 * one place; the list is what the defect breaks. */
#ifndef BASE_PLANT_H
#define BASE_PLANT_H

#include "base/util.h"

#define PLANT_COUNT 24u

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
