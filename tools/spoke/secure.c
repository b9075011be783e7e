/* SPDX-License-Identifier: MIT */
/* Options about TLS.  Main thread. */
#include "secure.h"

#include <stdio.h>

#define SAID_SIZE ((size_t)1024)

bool
secure_option(struct secure *s, int id, const char *value)
{
    switch (id) {
    case SECURE_CERT: s->cert = value; return true;
    case SECURE_KEY: s->key = value; return true;
    case SECURE_CACERT: s->cacert = value; return true;
    case SECURE_INSECURE: s->insecure = true; return true;
    default: return false;
    }
}

static void
on_log(void *ctx, enum spoke_log_level level, const char *text)
{
    (void)level;
    snprintf(ctx, SAID_SIZE, "%s", text);
}

int
secure_config(const struct secure *s, spoke_tls_config **out)
{
    struct spoke_tls_options o;
    char said[SAID_SIZE] = ""; /* which file, and why */
    int rc;

    *out = NULL;
    if (s->cert == NULL && s->key == NULL && s->cacert == NULL && !s->insecure)
        return TOOL_OK;
    if (s->key != NULL && s->cert == NULL) {
        tool_error("--key is the key of a certificate: give --cert, too");
        return TOOL_USAGE;
    }
    spoke_tls_options_init(&o);
    o.cert_file = s->cert;
    o.key_file = s->key;
    o.ca_file = s->cacert;
    if (s->insecure)
        o.verify = SPOKE_TLS_VERIFY_NONE;
    else if (s->cacert != NULL)
        o.verify = SPOKE_TLS_VERIFY_REQUIRED;
    spoke_set_log(on_log, said, SPOKE_LOG_ERROR);
    rc = spoke_tls_config_new(out, &o);
    spoke_set_log(NULL, NULL, SPOKE_LOG_ERROR);
    if (rc == 0)
        return TOOL_OK;
    if (said[0] != '\0')
        tool_error("%s: look at the files of --cert, --key and --cacert", said);
    else
        (void)tool_api_error("use the files of --cert, --key and --cacert", NULL, rc);
    return TOOL_FILE;
}
