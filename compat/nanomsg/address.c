/* SPDX-License-Identifier: MIT */
/* Addresses: nanomsg's rules, which are narrower than spoke's, and its errors, said in spoke's
 * words. */
#include "internal.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define HOST_MAX  255u
#define LABEL_MAX 63u

/* The parts of LOCAL;HOST:PORT/PATH.  None is longer than an address. */
struct parts {
    bool has_local, has_port;
    char local[NN_SOCKADDR_MAX], host[NN_SOCKADDR_MAX], port[NN_SOCKADDR_MAX],
        path[NN_SOCKADDR_MAX];
};

static bool
is_port(const char *text)
{
    unsigned long port = 0;

    if (*text == '\0' || strlen(text) > 10)
        return false;
    for (; *text != '\0'; text++) {
        if (!isdigit((unsigned char)*text))
            return false;
        port = port * 10 + (unsigned long)(*text - '0');
    }
    return port >= 1 && port <= UINT16_MAX;
}

/* An address in digits, v6 with or without brackets and scope. */
static bool
is_literal(const char *text, bool ipv4_only)
{
    char bare[INET6_ADDRSTRLEN];
    unsigned char ignored[sizeof(struct in6_addr)];
    size_t size = strlen(text);

    if (inet_pton(AF_INET, text, ignored) == 1)
        return true;
    if (ipv4_only)
        return false;
    if (size >= 2 && text[0] == '[' && text[size - 1] == ']') {
        text++;
        size -= 2;
    }
    if (memchr(text, '%', size) != NULL)
        size = strcspn(text, "%");
    if (size >= sizeof bare)
        return false;
    memcpy(bare, text, size);
    bare[size] = '\0';
    return inet_pton(AF_INET6, bare, ignored) == 1;
}

static bool
is_host_name(const char *text)
{
    size_t label = 0;

    if (*text == '-' || strlen(text) > HOST_MAX)
        return false;
    for (; *text != '\0'; text++) {
        if (*text == '.' ? label == 0 : !isalnum((unsigned char)*text) && *text != '-')
            return false;
        label = *text == '.' ? 0 : label + 1;
        if (label > LABEL_MAX)
            return false;
    }
    return label > 0;
}

/* v6 literals get the brackets that spoke asks for. */
static const char *
bracket(const char *host, const char *sign)
{
    return strchr(host, ':') != NULL && host[0] != '[' ? sign : "";
}

/* ---- tcp and ws ---- */

static void
cut(char part[NN_SOCKADDR_MAX], const char *from, const char *end)
{
    size_t size = (size_t)(end - from);

    memcpy(part, from, size);
    part[size] = '\0';
}

/* Only ws has a path. */
static void
split(struct parts *p, const char *rest, bool has_path)
{
    const char *end = has_path ? rest + strcspn(rest, "/") : rest + strlen(rest), *colon,
               *semicolon = memchr(rest, ';', (size_t)(end - rest));

    cut(p->path, end, end + strlen(end));
    p->has_local = semicolon != NULL;
    if (semicolon != NULL) {
        cut(p->local, rest, semicolon);
        rest = semicolon + 1;
    }
    colon = memrchr(rest, ':', (size_t)(end - rest));
    p->has_port = colon != NULL && memchr(colon, ']', (size_t)(end - colon)) == NULL;
    cut(p->host, rest, p->has_port ? colon : end);
    if (p->has_port)
        cut(p->port, colon + 1, end);
}

static int
check_bind(const struct parts *p, bool ipv4_only)
{
    if (!p->has_port || !is_port(p->port) || p->path[0] != '\0')
        return EINVAL;
    if (p->has_local || (strcmp(p->host, "*") != 0 && !is_literal(p->host, ipv4_only)))
        return ENODEV;
    return 0;
}

static int
check_connect(struct parts *p, bool ipv4_only, bool port_needed)
{
    if (p->has_port ? !is_port(p->port) : port_needed)
        return EINVAL;
    if (!is_host_name(p->host) && !is_literal(p->host, ipv4_only))
        return EINVAL;
    if (p->has_local && strcmp(p->local, "*") != 0 && !is_literal(p->local, ipv4_only))
        return ENODEV;
    if (!p->has_port)
        strcpy(p->port, "80");
    return 0;
}

static void
join(char url[COMPAT_URL_MAX], const char *scheme, const struct parts *p, bool ipv4_only)
{
    const char *host = strcmp(p->host, "*") == 0 && ipv4_only ? "0.0.0.0" : p->host;
    const char *local = p->has_local ? p->local : "";

    snprintf(url, COMPAT_URL_MAX, "%s://%s%s%s%s%s%s%s:%s%s", scheme, bracket(local, "["), local,
             bracket(local, "]"), p->has_local ? ";" : "", bracket(host, "["), host,
             bracket(host, "]"), p->port, p->path);
}

static int
net_address(char url[COMPAT_URL_MAX], const char *scheme, const char *rest, bool bind,
            bool ipv4_only)
{
    bool ws = strcmp(scheme, "ws") == 0;
    struct parts p;
    int error;

    split(&p, rest, ws);
    error = bind ? check_bind(&p, ipv4_only) : check_connect(&p, ipv4_only, !ws);
    if (error == 0)
        join(url, scheme, &p, ipv4_only);
    return error;
}

/* ---- all ---- */

int
compat_address(char url[COMPAT_URL_MAX], const char *address, bool bind, bool ipv4_only)
{
    static const char *const net[] = {"tcp", "ws"};
    const char *rest;

    if (address == NULL || address[0] == '\0')
        return EINVAL;
    if (strnlen(address, NN_SOCKADDR_MAX) >= NN_SOCKADDR_MAX)
        return ENAMETOOLONG;
    if ((rest = strstr(address, "://")) == NULL)
        return EINVAL;
    rest += strlen("://");
    for (size_t i = 0; i < sizeof net / sizeof *net; i++)
        if (strncmp(address, net[i], strlen(net[i])) == 0 &&
            address + strlen(net[i]) + strlen("://") == rest)
            return net_address(url, net[i], rest, bind, ipv4_only);
    if (strncmp(address, "inproc://", strlen("inproc://")) == 0) {
        /* nanomsg knows the name of no length too. */
        snprintf(url, COMPAT_URL_MAX, "inproc://%s", *rest != '\0' ? rest : "\x7f");
        return 0;
    }
    if (strncmp(address, "ipc://", strlen("ipc://")) != 0)
        return EPROTONOSUPPORT;
    if (*rest == '\0')
        return EINVAL;
    /* A file, whatever it begins with. */
    snprintf(url, COMPAT_URL_MAX, "ipc://%s%s", *rest == '@' ? "./" : "", rest);
    return 0;
}
