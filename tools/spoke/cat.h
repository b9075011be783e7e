/* SPDX-License-Identifier: MIT */
/* `spoke cat` between its two halves: cat.c reads the command line into this, cat_roles.c runs it.
 */
#ifndef TOOLS_SPOKE_CAT_H
#define TOOLS_SPOKE_CAT_H

#include <stdbool.h>
#include <stdint.h>

#include <spoke/spoke.h>

#include "format.h"
#include "lines.h"
#include "tool.h"

struct cat;

/* What a socket type does.  Returns when there is nothing more to do, a signal arrived or something
 * failed: then c->status is set and the error printed. */
typedef void cat_role_f(struct cat *c);

cat_role_f cat_print;  /* print what arrives */
cat_role_f cat_talk;   /* send, then print what arrives */
cat_role_f cat_ask;    /* send, print the replies to it; again, if asked to */
cat_role_f cat_survey; /* the same, once somebody is there to be asked */
cat_role_f cat_answer; /* print a request, reply, again */
cat_role_f cat_give;   /* send; again, if asked to */

/* One line is one socket type: --NAME, and a link called nn_NAME. */
struct cat_pattern {
    struct tool_type type;
    int number;
    cat_role_f *with_data;    /* NULL: it cannot send */
    cat_role_f *without_data; /* NULL: it must send */
};

struct cat {
    /* From the command line. */
    const struct cat_pattern *pattern;
    enum format format;
    spoke_msg *data; /* what to send each time; NULL: nothing, or lines */
    bool use_lines;  /* send these, one a message */
    struct lines lines;
    spoke_ns delay_ns;
    spoke_ns interval_ns; /* SPOKE_FOREVER: do not repeat */
    spoke_ns recv_timeout_ns;
    spoke_ns send_timeout_ns;
    uint64_t count; /* rounds; 0: no limit */

    /* While it runs. */
    spoke_socket *socket;
    int stop_fd;     /* readable once a signal arrived */
    int attached_fd; /* readable once a peer was attached */
    int recv_fd;     /* readable while a receive would not wait */
    int send_fd;
    int output_errno; /* why standard output failed, 0: it has not */
    int status;       /* the exit code; not 0 as soon as something failed */
};

#endif
