/* SPDX-License-Identifier: MIT */
/* The options about TLS, the same for every command that meets somebody. */
#ifndef TOOLS_SPOKE_SECURE_H
#define TOOLS_SPOKE_SECURE_H

#include <stdbool.h>

#include <spoke/spoke.h>

#include "tool.h"

/* Far above the options of any command. */
enum { SECURE_CERT = TOOL_FIRST_ID + 1000, SECURE_KEY, SECURE_CACERT, SECURE_INSECURE };
#define SECURE_OPTIONS                                                                             \
    {NULL, 0, NULL, "TLS, for addresses that begin with tls+tcp or wss", 0},                       \
        {"cert", 'E', "FILE", "our certificate, PEM; who listens needs one", SECURE_CERT},         \
        {"key", 0, "FILE", "its key, if it is not in the same file", SECURE_KEY},                  \
        {"cacert", 0, "FILE",                                                                      \
         "authorities that peers' certificates must be of, in place of the system's; then "        \
         "clients need one, too",                                                                  \
         SECURE_CACERT},                                                                           \
    {                                                                                              \
        "insecure", 'k', NULL, "do not look at peers' certificates: anybody may be there",         \
            SECURE_INSECURE                                                                        \
    }

struct secure {
    const char *cert, *key, *cacert;
    bool insecure;
};

/* True if it is one of these, which is obeyed. */
bool secure_option(struct secure *s, int id, const char *value);

/* The configuration that was asked for; *out is NULL if none was.  Gives an exit code. */
int secure_config(const struct secure *s, spoke_tls_config **out);

#endif
