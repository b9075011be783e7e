/* SPDX-License-Identifier: MIT */
/* Work between one sender, the server, and several receivers, all in the client: PUB to many SUB
 * (fanout) and PUSH to one PULL (pipeline), one way; SURVEYOR and many RESPONDENT (survey), from
 * the question to the last answer.  Two processes, one thread each. */
#ifndef BENCH_FAN_H
#define BENCH_FAN_H

#include "program.h"

/* Whether that is the work. */
bool bench_is_fan(const struct bench_options *o);

/* The whole program: exit status. */
int bench_fan_run(const struct bench_adapter *a, const struct bench_options *o);

/* For bench_ready(): listen for what the receivers of the sender at `address` report.  Exits if
 * that is impossible. */
void bench_fan_listen(const char *address);

#endif
