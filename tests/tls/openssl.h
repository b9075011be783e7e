/* SPDX-License-Identifier: MIT */
/* The openssl program at one end, a PAIR on the shared engine at the other.  Main thread of a test.
 */
#ifndef TESTS_TLS_OPENSSL_H
#define TESTS_TLS_OPENSSL_H

#include <sys/types.h>

#include "tests/tls/meeting.h"

/* ---- the program ---- */

struct openssl {
    pid_t pid;
    int in[2], out[2];
    char command[1024], text[64 * 1024]; /* what it has said; '.' is NUL */
    size_t size;
};

/* `openssl` with these arguments, as the shell takes them. */
void openssl_start(struct openssl *o, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Until it has said so. */
void openssl_await(struct openssl *o, const char *wanted);
/* What it is to read. */
void openssl_write(struct openssl *o, const char *bytes, size_t size);
/* It has nothing more to read, and ends by itself. */
void openssl_finish(struct openssl *o);
void openssl_kill(struct openssl *o);

/* Lets OpenSSL offer what its own defaults forbid, behind a list of ciphers. */
#define ANY "@SECLEVEL=0"

/* ---- our end ---- */

struct end {
    spoke_socket *s;
    spoke_listener *l;
    spoke_dialer *d;
    char url[ENDPOINT_MAX];
    const char *place; /* host:port in it */
};

/* A socket with these options, and an address. */
void end_open(struct end *e, const struct spoke_tls_options *o);

/* Options of one thing each. */
void only_1_3(struct spoke_tls_options *o);
void with_alpn(struct spoke_tls_options *o);
void wants_cert(struct spoke_tls_options *o);
void no_resumption(struct spoke_tls_options *o);
void with_rsa(struct spoke_tls_options *o);  /* of a server */
void with_cert(struct spoke_tls_options *o); /* of a client */

/* Arguments: the file of the authority; "-cert … -key …". */
const char *authority_file(void);
const char *cert_files(const struct cert *c);
const struct cert *client_cert(void);

/* ---- what they say to each other ---- */

#define SP_PAIR  "\0SP\0\0\x10\0\0" /* the greetings; from us as text: */
#define OUR_PAIR ".SP..\x10.."

/* Let it send a message; the pipe that this comes from. */
spoke_pipe_id hear_hello(struct end *e, struct openssl *o);
void expect_text(struct end *e, spoke_pipe_id pipe, const char *name, const char *wanted);
bool is_resumed(struct end *e, spoke_pipe_id pipe);
/* Until no pipe is left. */
void await_end(struct end *e);

#endif
