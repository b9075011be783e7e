/* SPDX-License-Identifier: MIT */
#ifndef SPK_CHANNEL_IMPORTER_H
#define SPK_CHANNEL_IMPORTER_H

#include "protocols/channel/port.h"

struct spk_importer {
    struct spk_ports ports;
    spoke_importer_config config; /* without zeros */
    char *url;                    /* NULL: it was given a stream */
    char address[256];
    struct spk_session *ss; /* NULL: not connected */
    struct spk_task task;
    bool is_known; /* the exporter has introduced itself, on this connection */
    int reason;    /* 0, or why there is no connection and will be none */
    int dial_error;

    /* connecting again */
    struct spk_timer timer;
    spoke_ns pause_ns;
    bool dial_due;
    spoke_stream *dialing;
    bool dialed; /* … has its outcome */

    struct spoke_port_event *errors; /* a ring */
    uint32_t error_first, error_count;
    uint64_t errors_lost;
};

/* ---- importer.c ---- */
int spk_importer_enter(const void *handle, struct spk_importer **im);
void spk_importer_let_go(struct spk_importer *im);

/* ---- bind.c ---- */
void spk_importer_init(struct spk_importer *im, struct spk_engine *e);
/* Make its session of a stream, which is taken on success, and bind all that has names. */
int spk_importer_connect(struct spk_importer *im, struct spk_conn *c);
void spk_importer_disconnect(struct spk_importer *im);
/* Ask for a name.  Errors: it cannot be asked. */
int spk_importer_bind(struct spk_importer *im, struct spk_port *p);

#endif
