/* SPDX-License-Identifier: MIT */
/* Fuzzes the URL parser.  The first byte says whether to listen or to dial, the rest is the text.
 * What is understood must keep its promises: everything that a transport reads is there, and within
 * its limits. */
/* Covers: runtime/core/url.c */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <spoke/error.h>

#include "runtime/core/transport.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(bool holds)
{
    if (!holds)
        abort();
}

static void
check_host(const struct spk_url *url, bool listen)
{
    require(url->has_port && (url->path == NULL || strlen(url->path) == url->path_size));
    for (const char *c = url->path; c != NULL && *c != '\0'; c++) /* it can be asked for */
        require(*c > ' ' && *c <= '~' && *c != '#' && (c > url->path || *c == '/' || *c == '?'));
    require(url->wildcard == (url->host == NULL));
    require(listen || (!url->wildcard && url->port > 0));
    require(!listen || url->local == NULL);
    if (url->host != NULL)
        require(url->host[0] != '\0' && strlen(url->host) <= 255 && strchr(url->host, ';') == NULL);
    if (url->local != NULL)
        require(url->local[0] != '\0');
}

static void
check_path(const struct spk_url *url)
{
    require(url->path != NULL && url->path_size > 0 && url->path[url->path_size] == '\0');
    require(url->host == NULL && url->local == NULL && !url->wildcard && !url->has_port);
    if (strcmp(url->transport->scheme, "ipc") == 0)
        require(url->path_size <= SPK_UNIX_PATH_MAX);
    if (!url->abstract)
        require(strlen(url->path) == url->path_size);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct spk_url url;
    bool listen = size > 0 && data[0] % 2 == 1;
    char *text = calloc(1, size + 1);

    if (text == NULL)
        return 0;
    if (size > 1)
        memcpy(text, data + 1, size - 1);
    int rc = spk_url_parse(&url, text, listen);
    if (rc == 0) {
        require(strcmp(url.text, text) == 0);
        if ((url.transport->options & SPK_OPTIONS_TCP) != 0)
            check_host(&url, listen);
        else
            check_path(&url);
    } else {
        require(rc == SPOKE_EURL || rc == SPOKE_ESCHEME || rc == SPOKE_ENAMETOOLONG);
        require(url.text == NULL);
    }
    spk_url_fini(&url);
    free(text);
    return 0;
}
