/* SPDX-License-Identifier: MIT */
/* What RFC 6455 asks of the heads in front of the first frame, and what is answered.  No I/O. */
#ifndef SPK_WS_HANDSHAKE_H
#define SPK_WS_HANDSHAKE_H

#include "transports/ws/http.h"

#define WS_KEY_SIZE    24u /* characters */
#define WS_ACCEPT_SIZE 28u

/* What the answer to a key is. */
void ws_accept_key(const char *key, char accept[WS_ACCEPT_SIZE + 1]);
void ws_handshake_key(char key[WS_KEY_SIZE + 1]);

/* What a listener wants. */
struct ws_wanted {
    bool is_there;        /* somebody listens at the path that is asked for */
    const char *protocol; /* one of those offered must be this */
    bool protocol_may_lack;
    bool check_origin;
    const char *origins; /* others that may come, between spaces; may be NULL */
};
/* The status of the answer, 101 if it is as wanted.  *agreed: the protocol was offered;
 * *wrong_protocol: it was not, and nothing else is wrong. */
unsigned ws_check_request(const struct ws_http *h, const struct ws_wanted *wanted, bool *agreed,
                          bool *wrong_protocol);
/* NULL: the response opens the connection; else why it does not.  *agreed: it names the protocol.
 */
const char *ws_check_response(const struct ws_http *h, const char *key, const char *protocol,
                              bool protocol_may_lack, bool *agreed, bool *wrong_protocol);
/* A whole answer that refuses; returns its size.  `protocol`: because it is not this one; or NULL.
 */
size_t ws_put_refusal(char *text, size_t room, unsigned status, const char *protocol);

#endif
