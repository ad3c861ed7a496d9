/* See plant.h. */
#include "base/plant.h"

#ifdef CLAUDEFS_PLANT
unsigned plant_awake;
#else
_Static_assert(PLANT_COUNT > 0, "a file is not empty");
#endif
