/* SPDX-License-Identifier: MIT */
/* What the subcommands share: their table, options, errors for people, numbers, files.
 * Everything here runs on the main thread; tool_error() may be called from any thread. */
#ifndef TOOLS_SPOKE_TOOL_H
#define TOOLS_SPOKE_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <spoke/spoke.h>

/* Exit codes, nanocat's. */
enum tool_status { TOOL_OK = 0, TOOL_USAGE = 1, TOOL_FILE = 2, TOOL_API = 3 };

/* The subcommands, one file each.  argv[0] is the subcommand's name; they return the exit code. */
int bench_main(int argc, char **argv);
int cat_main(int argc, char **argv);
int demo_main(int argc, char **argv);
int device_main(int argc, char **argv);
int doctor_main(int argc, char **argv);
int gateway_main(int argc, char **argv);
int mux_main(int argc, char **argv);

#define TOOL_FIRST_ID 256 /* below it are letters */

/* One line of an option table.  A line without a name is a heading of --help; a line of zeros ends
 * the table. */
struct tool_option {
    const char *name;     /* long name, without dashes */
    char letter;          /* short name, or 0 */
    const char *argument; /* what --help calls the value; NULL: takes none */
    const char *help;     /* NULL: works, but --help does not show it */
    int id;               /* what tool_next_option() gives, TOOL_FIRST_ID or more */
};

/* A command's page of --help. */
struct tool_page {
    const char *usage; /* one call a line, after the name of the command */
    const char *about; /* what it does */
    const struct tool_option *options;
    const char *notes; /* after the options, or NULL */
};

struct tool_args {
    int argc;
    char **argv;
    const struct tool_page *page;
    const char *value; /* of the option just given, or NULL */
    int status;        /* the exit code to end with, when tool_next_option() gave -1 */
};

/* Give the next option's id; 0 after the last one (operands start at argv[optind]); -1 if the
 * command is to end with args->status: after --help or --version, which every command has, or after
 * an error that has been printed.  Long names may be cut to a unique prefix; values follow as
 * --name=value, --name value, -nvalue or -n value. */
int tool_next_option(struct tool_args *args);

/* What to do about an option.  False after an error, which has been printed. */
typedef bool tool_option_f(void *request, int id, const char *value);

/* Obey all options.  False: end with args->status; else that is TOOL_USAGE, for what is wrong with
 * all of it. */
bool tool_obey_options(struct tool_args *args, tool_option_f *obey, void *request);

/* An option that names a socket type; part of each entry of a command's table of them. */
struct tool_type {
    const char *name, *help;
};

/* Fill `all` with a heading and an option for each of `count` types, the first of which is given
 * and the next `stride` bytes on, with ids from `first_id` on.  Gives the place behind them. */
struct tool_option *tool_list_types(struct tool_option *all, const char *heading,
                                    const struct tool_type *type, size_t count, size_t stride,
                                    int first_id);

/* Options that give an address, and what comes of one. */
enum {
    TOOL_BIND = TOOL_FIRST_ID,
    TOOL_CONNECT,
    TOOL_BIND_IPC, /* a path */
    TOOL_CONNECT_IPC,
    TOOL_BIND_LOCAL, /* a port */
    TOOL_CONNECT_LOCAL,
    TOOL_NEXT_ID /* the first of a command's own */
};

struct tool_address {
    char *url; /* free() it */
    bool bind;
};

/* False after an error, which has been printed. */
bool tool_make_address(struct tool_address *address, int id, const char *value);

/* Listen there, or dial it.  Gives an exit code. */
int tool_start_address(const struct tool_address *address, spoke_socket *s);

/* Refuse operands: true if there are none, else prints the error. */
bool tool_no_operands(const struct tool_args *args);

/* The name in front of every error: "spoke cat". */
extern const char *tool_name;
extern bool tool_quiet; /* errors are not printed: the exit code is enough */

/* Print "spoke cat: …" and a newline to standard error.  The sentence says what happened, where,
 * and what to do, with colons in between. */
void tool_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Print "cannot WHAT WHERE: the error: the advice", and give TOOL_API.  `where` is a URL, or NULL.
 */
int tool_api_error(const char *what, const char *where, int error);

/* End printing to standard output: gives TOOL_OK, or TOOL_FILE after saying what went wrong. */
int tool_finish_output(void);

/* Say that standard output failed, and give TOOL_FILE. */
int tool_output_error(int error);

/* What to do about an error of the library, one clause; NULL if there is nothing to say. */
const char *tool_advice(int error, const char *url);

/* Numbers.  False, and an error naming `option` is printed, if `text` is no number or out of range.
 */
bool tool_seconds(const char *option, const char *text, spoke_ns *out); /* "1.5"; 0 or more */
bool tool_number(const char *option, const char *text, uint64_t max, uint64_t *out);

/* CLOCK_MONOTONIC; and the moment `after_ns` from now, SPOKE_FOREVER staying what it is. */
spoke_ns tool_now(void);
spoke_ns tool_deadline(spoke_ns after_ns);

/* What poll() wants for a wait until `deadline`: milliseconds, rounded up; -1 for ever. */
int tool_poll_ms(spoke_ns deadline);

/* The path of the running program.  False if /proc does not tell. */
bool tool_own_path(char *path, size_t size);

#endif
