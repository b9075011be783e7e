/* SPDX-License-Identifier: MIT */
/* Addresses, taken apart.  Pure: nothing is looked up, nothing is touched.  Any thread.
 *
 *   tcp://host:port           a name, a v4 literal, [v6] or [v6%interface]; to listen also * or
 * nothing, and port 0 tcp://local;host:port     to dial from a local address or interface
 *   ipc://path, unix://path   relative or absolute; @name is a name in the abstract namespace
 *   abstract://name           the same, with %xx escapes, which may stand for any byte
 *   inproc://name             anything */
#ifndef SPK_CORE_URL_H
#define SPK_CORE_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPK_URL_MAX      ((size_t)4096) /* bytes of text */
#define SPK_IPC_PATH_MAX ((size_t)107)  /* bytes: what fits into sun_path with its NUL */

struct spk_url {
    char *text;      /* as it was given; the other strings lie in the same memory */
    char scheme[16]; /* "ipc" for unix:// and abstract:// too */
    char *host;      /* without brackets; NULL: wildcard, or the scheme has no hosts */
    bool wildcard;
    uint16_t port;
    bool has_port;
    char *local;      /* address or interface to dial from, without brackets; NULL: any */
    char *path;       /* of ipc and inproc; NULL: the scheme has none */
    bool abstract;    /* the path is a name without its leading NUL, and may hold NULs */
    size_t path_size; /* without the NUL that always follows */
};

/* Take `text` apart, to listen on it or to dial it.
 * Errors: SPOKE_EINVAL no text at all; SPOKE_EURL; SPOKE_ESCHEME; SPOKE_ENAMETOOLONG the text or
 * the path; SPOKE_ENOMEM.  Then *out is empty. */
int spk_url_parse(struct spk_url *out, const char *text, bool listen);

/* Harmless on an empty or zeroed one. */
void spk_url_fini(struct spk_url *url);

#endif
