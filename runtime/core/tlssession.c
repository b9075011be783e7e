/* SPDX-License-Identifier: MIT */
/* Sessions that dialers come back with.  Each is used once, so that nobody who looks on can tell by
 * its ticket that it is the same one again. */
#include <string.h>

#include "runtime/core/tls.h"

static void
forget(struct spk_tls_session *s)
{
    spk_free(s->url);
    SSL_SESSION_free(s->session);
    *s = (struct spk_tls_session){0};
}

static struct spk_tls_session *
find(struct spk_tls_setup *setup, const char *url)
{
    for (unsigned i = 0; i < SPK_TLS_SESSIONS; i++) {
        struct spk_tls_session *s = &setup->sessions[i];

        if (s->url != NULL && strcmp(s->url, url) == 0)
            return s;
    }
    return NULL;
}

void
spk_tls_keep_session(struct spk_tls_setup *setup, const char *url, SSL_SESSION *session)
{
    struct spk_tls_session *s;

    pthread_mutex_lock(&setup->lock);
    if ((s = find(setup, url)) == NULL)
        s = &setup->sessions[setup->next_session++ % SPK_TLS_SESSIONS];
    forget(s);
    s->url = spk_zalloc(strlen(url) + 1);
    if (s->url != NULL) {
        strcpy(s->url, url);
        s->session = session;
        session = NULL;
    }
    pthread_mutex_unlock(&setup->lock);
    SSL_SESSION_free(session);
}

SSL_SESSION *
spk_tls_take_session(struct spk_tls_setup *setup, const char *url)
{
    SSL_SESSION *session = NULL;
    struct spk_tls_session *s;

    pthread_mutex_lock(&setup->lock);
    if ((s = find(setup, url)) != NULL) {
        session = s->session;
        s->session = NULL;
        forget(s);
    }
    pthread_mutex_unlock(&setup->lock);
    return session;
}
