/* mount.claudefs: what mount(8) runs for type claudefs, so that /etc/fstab works.
 *
 *   /var/lib/claudefs/alpha  /mnt/tree  claudefs  defaults,_netdev                  0 0
 *   alpha.example.org:7401   /mnt/tree  claudefs  key=/etc/claudefs/alpha.key,nofail 0 0
 *
 * Pure: it only turns one command line into another. */
#ifndef CLIENT_MOUNT_FSTAB_H
#define CLIENT_MOUNT_FSTAB_H

#include <stdbool.h>

#define FSTAB_ARGS_MAX 12

struct fstab_args {
    char *memory;                   /* owned; what argv points to */
    char *argv[FSTAB_ARGS_MAX + 1]; /* of `claudefs mount` */
    int argc;
    bool is_fake; /* -f: all but mounting */
};
/* "mount.claudefs SPEC DIR [-sfnvh] [-o OPTIONS]" as mount(8) calls it. SPEC with a slash is a
 * site's directory, else HOST:PORT. What the system alone cares for (x-..., comment=...) is left
 * out. NULL, or a sentence about what is wrong; fstab_args_deinit in both cases. */
const char *fstab_args_parse(int argc, char **argv, struct fstab_args *ret);
void fstab_args_deinit(struct fstab_args *a);

#endif
