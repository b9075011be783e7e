/* SPDX-License-Identifier: MIT */
/* A listener and a dialer of PAIR over tls+tcp, on one engine of the test's thread.  Main thread of
 * a test. */
#ifndef TESTS_TLS_MEETING_H
#define TESTS_TLS_MEETING_H

#include <spoke/spoke.h>

#include "tests/support/certs.h"
#include "tests/support/endpoints.h"
#include "tests/support/test.h"

#define PATIENCE (20 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

struct meeting {
    spoke_engine *e;
    spoke_socket *a, *b; /* the first listens */
    spoke_listener *l;
    spoke_dialer *d;
    spoke_pipe_id pipes[2]; /* of a and b, once they have talked */
    char url[ENDPOINT_MAX];
};

/* Options for either end: what a good server and a client that trusts it have. */
void server_options(struct spoke_tls_options *o);
void client_options(struct spoke_tls_options *o);
/* A certificate and its key, for `o`. */
void present(struct spoke_tls_options *o, const struct cert *c);
spoke_tls_config *config_of(const struct spoke_tls_options *o);

/* Listen, with a configuration of these options. */
void meeting_open(struct meeting *m, const struct spoke_tls_options *server);
/* Dial once, with one of these: what it comes to. */
int meeting_dial(struct meeting *m, const struct spoke_tls_options *client);
void meeting_hang_up(struct meeting *m);
/* Send one message each way. */
void meeting_talk(struct meeting *m);
/* What has become of the last connection, once it is other than 0, at the dialer and the listener.
 */
int meeting_dialer_error(struct meeting *m);
int meeting_listener_error(struct meeting *m);
void meeting_close(struct meeting *m);
/* A property of the pipe: 0 of the listener's, 1 of the dialer's. */
void pipe_text(const struct meeting *m, int side, const char *name, char text[512]);
bool pipe_flag(const struct meeting *m, int side, const char *name);

#define expect_rc(Call, Wanted)                                                                    \
    do {                                                                                           \
        int got_rc_ = (Call);                                                                      \
        cr_assert_eq(got_rc_, (Wanted), "%s gives %s, not %s", #Call, spoke_error_name(got_rc_),   \
                     spoke_error_name(Wanted));                                                    \
    } while (0)

#endif
