/* SPDX-License-Identifier: MIT */
/* The parser works on a copy that it cuts into the parts: one allocation holds the text and all of
 * them. */
#include "runtime/core/url.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <string.h>
#include <sys/un.h>

#include "runtime/core/core.h"

#define HOST_MAX  255u
#define LABEL_MAX 63u

_Static_assert(SPK_UNIX_PATH_MAX + 1 == sizeof((struct sockaddr_un *)NULL)->sun_path,
               "the limit is the kernel's");

/* ---- hosts and ports ---- */

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool
is_host_character(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-';
}

/* Labels of 1 to 63 letters, digits and hyphens, with a dot between them.  Includes v4 literals. */
static bool
is_host_name(const char *name)
{
    size_t label = 0;

    if (name[0] == '-' || strnlen(name, HOST_MAX + 1) > HOST_MAX)
        return false;
    for (; *name != '\0'; name++) {
        if (*name == '.' ? label == 0 : !is_host_character(*name))
            return false;
        label = *name == '.' ? 0 : label + 1;
        if (label > LABEL_MAX)
            return false;
    }
    return label > 0;
}

/* What the kernel takes for the name of an interface. */
static bool
is_interface(const char *name)
{
    size_t size = strnlen(name, IF_NAMESIZE);

    return size > 0 && size < IF_NAMESIZE && strpbrk(name, "/: \t\n\v\f\r") == NULL &&
           strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* A v6 literal, perhaps with a scope. */
static bool
is_ipv6(const char *literal)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr ignored;
    size_t size = strcspn(literal, "%");

    if (size >= sizeof address || (literal[size] == '%' && !is_interface(literal + size + 1)))
        return false;
    memcpy(address, literal, size);
    address[size] = '\0';
    return inet_pton(AF_INET6, address, &ignored) == 1;
}

/* Take the brackets away; NULL if there are none. */
static char *
unwrap(char *text)
{
    size_t size = strlen(text);

    if (size < 2 || text[0] != '[' || text[size - 1] != ']')
        return NULL;
    text[size - 1] = '\0';
    return text + 1;
}

static int
parse_port(struct spk_url *url, const char *text, bool listen)
{
    uint32_t port = 0;

    if (*text == '\0')
        return SPOKE_EURL;
    for (; *text != '\0'; text++) {
        if (!is_digit(*text))
            return SPOKE_EURL;
        port = port * 10 + (uint32_t)(*text - '0');
        if (port > UINT16_MAX)
            return SPOKE_EURL;
    }
    if (port == 0 && !listen)
        return SPOKE_EURL;
    url->port = (uint16_t)port;
    url->has_port = true;
    return 0;
}

static int
parse_host(struct spk_url *url, char *text, bool listen)
{
    if (*text == '\0' || strcmp(text, "*") == 0) {
        url->wildcard = true;
        return listen ? 0 : SPOKE_EURL;
    }
    char *inner = unwrap(text);
    url->host = inner != NULL ? inner : text;
    if (inner != NULL ? is_ipv6(inner) : is_host_name(text))
        return 0;
    return SPOKE_EURL;
}

static int
parse_local(struct spk_url *url, char *text, bool listen)
{
    if (listen)
        return SPOKE_EURL;
    if (strcmp(text, "*") == 0)
        return 0;
    char *inner = unwrap(text);
    url->local = inner != NULL ? inner : text;
    if (is_ipv6(url->local) ||
        (inner == NULL && is_interface(text))) /* the latter: v4 literals too */
        return 0;
    return SPOKE_EURL;
}

int
spk_url_host_and_port(struct spk_url *url, char *rest, bool listen)
{
    char *semicolon = strchr(rest, ';');

    if (semicolon != NULL) {
        *semicolon = '\0';
        int rc = parse_local(url, rest, listen);
        if (rc != 0)
            return rc;
        rest = semicolon + 1;
    }
    char *colon = strrchr(rest, ':');
    if (colon == NULL)
        return SPOKE_EURL;
    *colon = '\0';
    int rc = parse_port(url, colon + 1, listen);
    return rc != 0 ? rc : parse_host(url, rest, listen);
}

/* What may stand in the first line of a request. */
static bool
is_web_path(const char *path)
{
    for (; *path != '\0'; path++)
        if (*path <= ' ' || *path > '~' || *path == '#')
            return false;
    return true;
}

/* The colon in front of a port, not one within brackets. */
static char *
port_colon(char *place)
{
    char *bracket = strrchr(place, ']');

    return strrchr(bracket != NULL ? bracket : place, ':');
}

int
spk_url_web(struct spk_url *url, char *rest, bool listen)
{
    size_t size = strcspn(rest, "/?#");
    char *place = rest - 1; /* the slash in front makes room for a NUL */
    int rc = SPOKE_EURL;

    if (!is_web_path(rest + size))
        return rc;
    if (rest[size] != '\0') {
        url->path = rest + size;
        url->path_size = strlen(url->path);
    }
    memmove(place, rest, size);
    place[size] = '\0';
    if (port_colon(place) != NULL)
        return spk_url_host_and_port(url, place, listen);
    url->has_port = true; /* that of the form */
    char *semicolon = strchr(place, ';');
    if (semicolon != NULL) {
        *semicolon = '\0';
        if ((rc = parse_local(url, place, listen)) != 0)
            return rc;
        place = semicolon + 1;
    }
    return parse_host(url, place, listen);
}

/* ---- paths and names ---- */

static int
set_unix_path(struct spk_url *url, char *path, size_t size)
{
    if (size == 0)
        return SPOKE_EURL;
    if (size > SPK_UNIX_PATH_MAX)
        return SPOKE_ENAMETOOLONG;
    url->path = path;
    url->path_size = size;
    return 0;
}

int
spk_url_unix_path(struct spk_url *url, char *rest, bool listen)
{
    (void)listen;
    url->abstract = rest[0] == '@';
    char *path = url->abstract ? rest + 1 : rest;
    return set_unix_path(url, path, strlen(path));
}

/* The value of a hexadecimal digit, -1 if it is none. */
static int
hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    const char *found = c == '\0' ? NULL : strchr(digits, c);

    return found == NULL ? -1 : (int)(found - digits) % 16;
}

int
spk_url_unix_name(struct spk_url *url, char *rest, bool listen)
{
    char *to = rest;

    (void)listen;
    for (const char *from = rest; *from != '\0'; from++) {
        char c = *from;
        if (c == '%') {
            int high = hex_digit(from[1]), low = high < 0 ? -1 : hex_digit(from[2]);
            if (low < 0)
                return SPOKE_EURL;
            c = (char)(high * 16 + low);
            from += 2;
        }
        *to++ = c;
    }
    *to = '\0';
    url->abstract = true;
    return set_unix_path(url, rest, (size_t)(to - rest));
}

int
spk_url_any_name(struct spk_url *url, char *rest, bool listen)
{
    (void)listen;
    url->path = rest;
    url->path_size = strlen(rest);
    return url->path_size > 0 ? 0 : SPOKE_EURL;
}

/* ---- the whole ---- */

static int
parse_parts(struct spk_url *url, char *text, bool listen)
{
    char *end = strstr(text, "://");
    const struct spk_url_form *form;

    if (end == NULL || end == text)
        return SPOKE_EURL;
    *end = '\0';
    if ((url->transport = spk_find_transport(text, &form)) == NULL)
        return SPOKE_ESCHEME;
    url->family = form->family;
    url->port = form->port;
    return form->parse(url, end + strlen("://"), listen);
}

int
spk_url_parse(struct spk_url *out, const char *text, bool listen)
{
    *out = (struct spk_url){0};
    if (text == NULL)
        return SPOKE_EINVAL;
    size_t size = strnlen(text, SPK_URL_MAX + 1) + 1;
    if (size > SPK_URL_MAX + 1)
        return SPOKE_ENAMETOOLONG;
    out->text = spk_zalloc(2 * size);
    if (out->text == NULL)
        return SPOKE_ENOMEM;
    memcpy(out->text, text, size);
    memcpy(out->text + size, text, size);
    int rc = parse_parts(out, out->text + size, listen);
    if (rc != 0)
        spk_url_fini(out);
    return rc;
}

void
spk_url_fini(struct spk_url *url)
{
    spk_free(url->text);
    *url = (struct spk_url){0};
}
