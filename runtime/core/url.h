/* SPDX-License-Identifier: MIT */
/* Addresses, taken apart.  Pure: nothing is looked up, nothing is touched.  Any thread.
 *
 * Each transport says what its addresses begin with and what follows "://": a function of its own
 * or one of those below. */
#ifndef SPK_CORE_URL_H
#define SPK_CORE_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct spoke_transport;

#define SPK_URL_MAX       ((size_t)4096) /* bytes of text */
#define SPK_UNIX_PATH_MAX ((size_t)107)  /* bytes: what fits into sun_path with its NUL */

struct spk_url {
    char *text; /* as it was given; the other strings lie in the same memory */
    const struct spoke_transport *transport;
    int family; /* AF_INET, AF_INET6; 0: either */
    char *host; /* without brackets; NULL: wildcard, or the scheme has no hosts */
    bool wildcard;
    uint16_t port;
    bool has_port;
    char *local;      /* address or interface to dial from, without brackets; NULL: any */
    char *path;       /* or name; NULL: the scheme has none */
    bool abstract;    /* the path is a name without its leading NUL, and may hold NULs */
    size_t path_size; /* without the NUL that always follows */
};

/* Take `text` apart, to listen on it or to dial it.
 * Errors: SPOKE_EINVAL no text at all; SPOKE_EURL; SPOKE_ESCHEME; SPOKE_ENAMETOOLONG the text or
 * the path; SPOKE_ENOMEM.  Then *out is empty. */
int spk_url_parse(struct spk_url *out, const char *text, bool listen);

/* Cut `rest` up into the parts of `url`, which is zero apart from its text and what its form says.
 * Errors: SPOKE_EURL; SPOKE_ENAMETOOLONG the path. */
typedef int spk_url_syntax_f(struct spk_url *url, char *rest, bool listen);

/* PREFIX://… */
struct spk_url_form {
    const char *prefix;
    spk_url_syntax_f *parse;
    int family;    /* AF_INET, AF_INET6: of this version of IP only; 0: either */
    uint16_t port; /* spk_url_web(): if none is given */
};

/* host:port: a name, a v4 literal, [v6] or [v6%interface]; to listen also * or nothing, and port 0.
 * local;host:port: to dial from a local address or interface. */
int spk_url_host_and_port(struct spk_url *url, char *rest, bool listen);
/* host[:port][/path][?query], or host[:port] behind local;.  Without a port it is that of the form,
 * without a path "/"; url->path is both, path and query, as they are written. */
int spk_url_web(struct spk_url *url, char *rest, bool listen);
/* The path of a socket file, relative or absolute; @name is one in the abstract namespace. */
int spk_url_unix_path(struct spk_url *url, char *rest, bool listen);
/* The latter without the @, but with %xx escapes, which may stand for any byte. */
int spk_url_unix_name(struct spk_url *url, char *rest, bool listen);
/* Anything but nothing. */
int spk_url_any_name(struct spk_url *url, char *rest, bool listen);

/* Harmless on an empty or zeroed one. */
void spk_url_fini(struct spk_url *url);

#endif
