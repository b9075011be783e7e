/* SPDX-License-Identifier: MIT */
#ifndef SPK_CHANNEL_EXPORTER_H
#define SPK_CHANNEL_EXPORTER_H

#include "protocols/channel/port.h"

struct spk_exporter {
    struct spk_ports ports;
    spoke_exporter_config config; /* without zeros */
    struct spk_link peers, listeners;
    int connections; /* peers that have not ended */
};

/* A connection, and who is at the other end. */
struct spk_peer {
    struct spk_link link;
    struct spk_exporter *ex;
    struct spk_session *ss; /* NULL: it has ended */
    struct spk_task task;
    struct spk_link undecided; /* imports that the user's function is to be asked about */
    int undecided_count, imports, failures;
    uint32_t callers; /* bindings too */
    bool is_known;    /* it has introduced itself */
    char address[256];
};

/* ---- exporter.c ---- */
int spk_exporter_enter(const void *handle, struct spk_exporter **ex);

/* ---- serve.c ---- */
void spk_exporter_close_listeners(struct spk_link *listeners);
void spk_exporter_forget_listeners(struct spk_exporter *ex);
void spk_exporter_name_peer(struct spk_ports *ps, const struct spk_binding *b, char *text,
                            size_t size);
void spk_exporter_released(struct spk_binding *b);
/* Where the user's functions may be called. */
void spk_exporter_ask_user(struct spk_ports *ps);
void spk_peer_let_go(struct spk_peer *peer);

#endif
