/* Majorities of members. See site/quorum.h. */
#include "site/quorum.h"

#include "base/assert.h"
#include "base/plant.h"

bool quorum_is_established(const struct quorum_member *at, uint32_t count, uint32_t i)
{
    ASSERT(i < count && count <= 64);
    if (at[i].leaves)
        return false;
    for (uint32_t k = 0; k < count && !PLANTED(43); k++)
        if (!at[k].leaves && (at[k].knows >> i & 1) == 0)
            return false;
    return true;
}

/* Do all who remain know that it leaves? Then it counts nowhere any more. */
static bool is_gone(const struct quorum_member *at, uint32_t count, uint32_t i)
{
    bool gone = at[i].leaves;
    for (uint32_t k = 0; k < count; k++)
        gone = gone && (at[k].leaves || (at[k].gone >> i & 1) != 0);
    return gone;
}

bool quorum_is_reached(const struct quorum_member *at, uint32_t count)
{
    site_id_t lowest = 0, lowest_reached = 0; /* 0 is no site's id */
    uint32_t all = 0, reached = 0;
    for (uint32_t i = 0; i < count; i++) {
        bool established = quorum_is_established(at, count, i);
        if ((at[i].reached && !at[i].leaves && !established) || is_gone(at, count, i))
            continue; /* neither for this part nor against it */
        all++;
        if (lowest == 0 || at[i].site < lowest)
            lowest = at[i].site;
        if (!at[i].reached || !established)
            continue;
        reached++;
        if (lowest_reached == 0 || at[i].site < lowest_reached)
            lowest_reached = at[i].site;
    }
    return 2 * reached > all || (reached > 0 && 2 * reached == all && lowest_reached == lowest);
}
