/* Every bound in one place. Relations between bounds are asserted here with their argument. */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

#include "base/util.h"

#define LIMIT_NAME_BYTES 255u                   /* NAME_MAX: POSIX and every local file system */
#define LIMIT_PATH_BYTES 4096u                  /* PATH_MAX; also the longest symlink target */
#define LIMIT_XATTR_NAME_BYTES 255u             /* XATTR_NAME_MAX */
#define LIMIT_XATTR_VALUE_BYTES 65536u          /* XATTR_SIZE_MAX */
#define LIMIT_XATTR_TOTAL_BYTES 65536u          /* XATTR_LIST_MAX for the names of one object */
#define LIMIT_INLINE_BYTES 8192u                /* contents up to this ride in the operation */
#define LIMIT_OP_BYTES (1024u * 1024u)          /* one encoded operation */
#define LIMIT_EFFECTS 4096u                     /* effects of one operation */
#define LIMIT_DOTS 65536u                       /* dots named by one effect */
#define LIMIT_LINEAGE 4096u                     /* births carried by one directory move */
#define LIMIT_RECORD_BYTES (4u * 1024u * 1024u) /* one journal record */
#define LIMIT_BATCH_BYTES (2u * 1024u * 1024u)  /* one batch of the stream between sites */
#define LIMIT_CHUNK_BYTES (4u * 1024u * 1024u)  /* plaintext of one chunk */
#define LIMIT_CHUNK_SEALED_BYTES (LIMIT_CHUNK_BYTES + 8192u)  /* with header, lengths, tags */
#define LIMIT_FRAME_BYTES (LIMIT_CHUNK_SEALED_BYTES + 65536u) /* one RPC frame with its bulk */
#define LIMIT_FILE_BYTES ((uint64_t)1 << 62) /* largest file; fits loff_t with room */
#define LIMIT_LINKS 65000u                   /* names of one file */
#define LIMIT_SYMLINK_BYTES 4095u
#define LIMIT_SESSIONS 1024u                    /* mounts of one site */
#define LIMIT_SESSION_INTERESTS (1024u * 1024u) /* objects one mount is told about one by one */
#define LIMIT_SESSION_PUSHES 4096u              /* invalidations one mount has not acknowledged */
#define LIMIT_LOCKS_FILE 8192u                  /* advisory locks held on one file */
#define LIMIT_LOCKS (256u * 1024u)              /* and at a site */
#define LIMIT_LOCK_WAITERS 8192u                /* requests of a site that wait for a lock */

/* A batch must hold any operation, a record any batch, or a stream could get stuck. */
_Static_assert(LIMIT_OP_BYTES < LIMIT_BATCH_BYTES, "an operation fits a batch");
_Static_assert(LIMIT_BATCH_BYTES < LIMIT_RECORD_BYTES, "a batch fits a record");
/* The largest attribute and the largest inline content fit one operation with names to spare. */
_Static_assert(LIMIT_XATTR_VALUE_BYTES + LIMIT_INLINE_BYTES < LIMIT_OP_BYTES / 2, "fits");

#endif
