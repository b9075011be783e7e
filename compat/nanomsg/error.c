/* SPDX-License-Identifier: MIT */
/* Errors: spoke's as errno, and their texts. */
#include "internal.h"

#include <string.h>

int
compat_fail(int error)
{
    errno = error;
    return -1;
}

static int
errno_of(int spoke_error)
{
    switch (spoke_error) {
    case SPOKE_ENOMEM: return ENOMEM;
    case SPOKE_EAGAIN: return EAGAIN;
    case SPOKE_ETIMEDOUT: return ETIMEDOUT;
    case SPOKE_ECLOSED:
    case SPOKE_EFORKED: return EBADF;
    case SPOKE_ESTATE: return EFSM;
    case SPOKE_ENOTSUP: return ENOTSUP;
    case SPOKE_EOPTION:
    case SPOKE_EREADONLY:
    case SPOKE_EWRITEONLY: return ENOPROTOOPT;
    case SPOKE_ESCHEME: return EPROTONOSUPPORT;
    case SPOKE_EHOST:
    case SPOKE_ENODEV: return ENODEV;
    case SPOKE_ENAMETOOLONG: return ENAMETOOLONG;
    case SPOKE_EADDRINUSE:
    case SPOKE_ENOTSOCK: return EADDRINUSE;
    case SPOKE_EADDRNOTAVAIL: return EADDRNOTAVAIL;
    case SPOKE_ENOENT: return ENOENT;
    case SPOKE_EACCES: return EACCES;
    case SPOKE_EPERM: return EPERM;
    case SPOKE_ECONNREFUSED: return ECONNREFUSED;
    case SPOKE_ECONNRESET: return ECONNRESET;
    case SPOKE_ENETUNREACH: return ENETUNREACH;
    case SPOKE_EPROTO: return EPROTO;
    case SPOKE_EMSGSIZE: return EMSGSIZE;
    case SPOKE_EMFILE:
    case SPOKE_ELIMIT: return EMFILE;
    case SPOKE_ENOBUFS: return ENOBUFS;
    case SPOKE_EINTR: return EINTR;
    case SPOKE_EIO: return EIO;
    default: return EINVAL;
    }
}

int
compat_fail_as(int spoke_error)
{
    return compat_fail(errno_of(spoke_error));
}

int
nn_errno(void)
{
    return errno;
}

const char *
nn_strerror(int errnum)
{
    switch (errnum) {
    case ETERM: return "Nanomsg library was terminated";
    case EFSM: return "Operation cannot be performed in this state";
    default: return strerror(errnum);
    }
}
