/* Addresses of sites as people write them. A core. */
#include <string.h>

#include "wan/wan_h2.h"

int wan_address_split(const char *address, char host[128], char port[8])
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL || colon == address)
        return ERR_INVALID;
    const char *from = address, *to = colon;
    if (*from == '[' && to[-1] == ']') {
        from++;
        to--;
    }
    size_t host_len = (size_t)(to - from), port_len = strlen(colon + 1);
    if (host_len == 0 || host_len >= 128 || port_len == 0 || port_len > 5)
        return ERR_INVALID;
    if (strspn(colon + 1, "0123456789") != port_len)
        return ERR_INVALID;
    memcpy(host, from, host_len);
    host[host_len] = '\0';
    memcpy(port, colon + 1, port_len + 1);
    return 0;
}
