/* SPDX-License-Identifier: MIT */
/* From the kernel's error numbers to ours. */
#include <errno.h>

#include <spoke/error.h>

#include "runtime/engine/engine.h"

int
spk_error_from_errno(int error)
{
    switch (error) {
    case 0: return 0;
    case EPIPE:
    case ECONNRESET:
    case ECONNABORTED:
    case ENOTCONN: return SPOKE_ECONNRESET;
    case ECONNREFUSED: return SPOKE_ECONNREFUSED;
    case ETIMEDOUT: return SPOKE_ETIMEDOUT;
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN: return SPOKE_ENETUNREACH;
    case EADDRINUSE: return SPOKE_EADDRINUSE;
    case EAFNOSUPPORT:
    case EADDRNOTAVAIL: return SPOKE_EADDRNOTAVAIL;
    case ENODEV:
    case ENXIO: return SPOKE_ENODEV;
    case ENOENT:
    case ENOTDIR: return SPOKE_ENOENT;
    case ENAMETOOLONG: return SPOKE_ENAMETOOLONG;
    case ENOTSOCK:
    case EISDIR: return SPOKE_ENOTSOCK;
    case EACCES:
    case EROFS: return SPOKE_EACCES;
    case EPERM: return SPOKE_EPERM;
    case ENFILE:
    case EMFILE: return SPOKE_EMFILE;
    case ENOMEM: return SPOKE_ENOMEM;
    case ENOBUFS: return SPOKE_ENOBUFS;
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
        return SPOKE_EAGAIN;
    case EINVAL: return SPOKE_EINVAL;
    case EMSGSIZE: return SPOKE_EMSGSIZE;
    case ECANCELED: return SPOKE_ECANCELED;
    case EBUSY: return SPOKE_EBUSY;
    case ENOSYS:
    case EOPNOTSUPP:
    case EPROTONOSUPPORT: return SPOKE_ENOTSUP;
    default: return SPOKE_EIO;
    }
}
