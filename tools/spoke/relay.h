/* SPDX-License-Identifier: MIT */
/* What carries connections on: the common part of `spoke gateway` and `spoke mux`.
 *
 *   relay.c        connections: from one stream to another, limits, counters
 *   relay_run.c    where they come from, signals, the end
 *   carrier.c      muxes: those that are dialled and kept, those that are accepted, their streams
 *   remote.c       listening on the other side of one
 *
 * Everything happens in callbacks on one engine, which the main thread runs; a second thread waits
 * for signals, and more look names up (target.c). */
#ifndef TOOLS_SPOKE_RELAY_H
#define TOOLS_SPOKE_RELAY_H

#include <signal.h>
#include <sys/queue.h>

#include "gateway_rules.h"
#include "secure.h"
#include "tool.h"

#define RELAY_FRONTS_MOST 16
#define RELAY_LINGER      (10 * SPOKE_SECOND)

struct relay;
struct carrier;
struct target_list;
struct target_lookup;
struct request;

/* What becomes of those who come. */
enum front_kind {
    FRONT_DIRECT, /* they are connected to relay.target */
    FRONT_OVER,   /* each is a stream of the carrier */
    FRONT_CARRIER /* each carries streams */
};

/* Where somebody may come in. */
struct front {
    LIST_ENTRY(front) of_all;
    struct relay *r;
    const char *url; /* NULL: a socket that was passed on, `fd` */
    int fd;
    enum front_kind kind;
    const char *target; /* FRONT_OVER: what the other side is to connect to; NULL: it knows that */
    struct carrier *over; /* which one; NULL: whichever is there.  Then the other side has asked, */
    spoke_stream *control; /* … with this stream, which lasts as long as it is wanted */
    char *texts;           /* … and these are `url` and `target` */
    spoke_stream_listener *listener;
};

enum link_state {
    LINK_WAITS,  /* for a carrier, or a place on it */
    LINK_LOOKS,  /* its target's address up */
    LINK_DIALS,  /* `out` */
    LINK_JOINED, /* bytes go through */
    LINK_ENDING  /* both ways are over; at most until `since` what was written leaves */
};

/* One connection. */
struct link {
    LIST_ENTRY(link) of_all;
    TAILQ_ENTRY(link) of_waiting;
    struct relay *r;
    uint64_t number;
    enum link_state state;
    struct front *front;    /* through which it came, if that is still there */
    bool is_stream;         /* `in` is, of a carrier */
    bool is_over;           /* `out` is, or is to be, of a carrier */
    spoke_stream *in, *out; /* out NULL: there is none yet */
    struct target_lookup *lookup;
    char *target;        /* that the other side has asked for, or NULL */
    uint64_t bytes_seen; /* at the last look */
    spoke_ns since;      /* … when there were as many */
    spoke_ns held_until; /* LINK_WAITS */
    bool cut;            /* by us */
};

/* What the other side is asked to listen on. */
struct remote {
    struct remote *next;
    const char *listen, *target;
};

/* The mux over one stream. */
struct carrier {
    LIST_ENTRY(carrier) of_all;
    struct relay *r;
    uint64_t number;
    bool dialed;          /* by us */
    bool retired;         /* it takes no more streams */
    spoke_stream *stream; /* while it dials */
    spoke_mux *mux;       /* then this: it counts */
    LIST_HEAD(request_list, request) requests;
};

struct relay {
    /* set before relay_run() */
    const char *target;          /* that all are connected to, or NULL */
    const char *carrier_url;     /* that is dialled, or NULL */
    struct target_list *targets; /* that streams of carriers may be connected to; NULL: `target` */
    struct target_list *listens; /* where the other side may have this one listen */
    struct remote *remotes;
    const char *rules_file;
    int front_count, passed_count, verbosity, mode;
    enum front_kind passed_kind;
    spoke_ns drain_ns, hold_ns;
    struct gateway_rules given, rules; /* on the command line; with what the file says */

    struct secure secure;
    const char *origins, *directory;
    spoke_engine *e;
    spoke_stream_config config;
    LIST_HEAD(front_list, front) fronts;
    LIST_HEAD(link_list, link) links;
    TAILQ_HEAD(waiting_list, link) waiting;
    LIST_HEAD(carrier_list, carrier) carriers;
    struct carrier *current; /* on which streams are opened, or NULL */
    uint64_t live, ever, refused, failed, broken, idle, cut;
    uint64_t there, back; /* bytes, of those that are gone */
    char told[512];       /* the last failure that was printed, unless one succeeded */
    uint64_t carriers_live, carriers_ever, carriers_lost, carriers_failed, carriers_refused;
    char carrier_told[512], remote_told[512];
    spoke_ns retry_ns; /* before the carrier is dialled again */
    bool retry_set, serve_set;
    bool full;          /* there is no room for more: somebody waits outside */
    bool looks_at_idle; /* from time to time */
    bool farewell;      /* all that is left are goodbyes */
    int signal;         /* that has told us to end, or 0 */
    sigset_t signals;
};

/* ---- relay.c ---- */

/* Everything is as it was before there was a command line. */
void relay_init(struct relay *r);

/* A stream that has come, which it takes. */
void relay_carry(struct front *f, spoke_stream *in);

/* The same, by a carrier: its opener has no answer yet, and asks for `target` (text of so many
 * bytes, borrowed; NULL: for none). */
void relay_carry_stream(struct relay *r, spoke_stream *in, const char *target, size_t size);

/* Its other side is dialing: `out` is there.  Takes it. */
void link_dials(struct link *k, spoke_stream *out);
/* Whom it was to be connected to could not be had.  The opener is told `code`, a plain client that
 * it is over.  `why` is NULL if that has been said. */
void link_fails(struct link *k, uint64_t code, const char *where, const char *why,
                const char *advice);
void link_remove(struct link *k);
void link_say(const struct link *k, const char *what, const char *why);
/* Both ends see an error. */
void link_cut(struct link *k);

bool relay_is_full(const struct relay *r);
void relay_print_counters(const struct relay *r);
/* Print an error once, until it is another one. */
void relay_tell(const struct relay *r, char told[512], const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Those that are idle too long are looked for from now on, if that is a rule. */
void relay_look_for_idle(struct relay *r);

/* ---- relay_run.c ---- */

/* Options that both commands have. */
enum {
    RELAY_MODE = TOOL_NEXT_ID,
    RELAY_ALLOW_UID,
    RELAY_ALLOW_GID,
    RELAY_MAX_CONNECTIONS,
    RELAY_MAX_CARRIERS,
    RELAY_MAX_STREAMS,
    RELAY_IDLE,
    RELAY_RULES,
    RELAY_ORIGINS,
    RELAY_DIRECTORY,
    RELAY_HOLD,
    RELAY_DRAIN,
    RELAY_VERBOSE,
    RELAY_SILENT,
    RELAY_NEXT_ID
};
#define RELAY_MODE_OPTION                                                                          \
    {                                                                                              \
        "mode", 0, "OCTAL", "of the socket file that ipc:// and shm:// make", RELAY_MODE           \
    }
#define RELAY_RULE_OPTIONS                                                                         \
    {NULL, 0, NULL, "Who may connect, how many, how long", 0},                                     \
        {"allow-uid", 0, "ID", "only this user, over ipc:// and shm://; may be repeated",          \
         RELAY_ALLOW_UID},                                                                         \
        {"allow-gid", 0, "ID", "only this group; a peer needs one of all these", RELAY_ALLOW_GID}, \
        {"max-connections", 0, "N", "at a time, more wait; 0, the default: no limit",              \
         RELAY_MAX_CONNECTIONS},                                                                   \
        {"max-carriers", 0, "N", "that come at a time, more wait; 0: no limit; 64",                \
         RELAY_MAX_CARRIERS},                                                                      \
        {"max-streams", 0, "N", "connections of each carrier, more wait; 1024",                    \
         RELAY_MAX_STREAMS},                                                                       \
        {"idle", 0, "SEC", "end a connection after so long without a byte; 0, the default: never", \
         RELAY_IDLE},                                                                              \
    {                                                                                              \
        "rules", 0, "FILE",                                                                        \
            "such rules from FILE, one a line, \"allow-uid 1000\"; read again at SIGHUP",          \
            RELAY_RULES                                                                            \
    }
#define RELAY_OTHER_OPTIONS                                                                        \
    SECURE_OPTIONS,                                                                                \
        {NULL, 0, NULL, "WebSocket, for addresses that are listened on and begin with ws or wss",  \
         0},                                                                                       \
        {"origins", 0, "LIST",                                                                     \
         "pages of these may come in too, not of the host itself alone: \"https://a.example "      \
         "http://b:8000\"; * is any",                                                              \
         RELAY_ORIGINS},                                                                           \
        {"directory", 0, "DIR", "answer requests for pages with its files", RELAY_DIRECTORY},      \
        {NULL, 0, NULL, "Other", 0},                                                               \
        {"hold", 0, "SEC", "clients wait so long for a carrier, or for room on it; 5",             \
         RELAY_HOLD},                                                                              \
        {"drain", 0, "SEC", "at SIGTERM wait so long for connections to end; 10", RELAY_DRAIN},    \
        {"verbose", 'v', NULL, "say what happens to each connection", RELAY_VERBOSE},              \
    {                                                                                              \
        "silent", 'q', NULL, "print no errors and no counters at the end", RELAY_SILENT            \
    }

/* These print what is wrong. */
bool relay_set_option(struct relay *r, int id, const char *value);
bool relay_usage_error(const char *text); /* false */
bool relay_add_front(struct relay *r, enum front_kind kind, const char *url, const char *target);
struct front *relay_last_front(const struct relay *r); /* NULL: there is none yet */
bool relay_count_passed(struct relay *r);
bool relay_read_rules(struct relay *r);

/* Listen, and do it all until it is told to end: the exit code. */
int relay_run(struct relay *r);

/* One front more, when it runs already. */
int front_open(struct front *f);
void front_close(struct front *f);

/* Some that wait outside may come in. */
void relay_take_waiting(struct relay *r);
/* Something is over: that may have been all. */
void relay_check_end(struct relay *r);

/* ---- carrier.c ---- */

/* Dial relay.carrier_url, and again whenever it is lost. */
void carrier_keep(struct relay *r);
/* Somebody has come who is to carry streams.  Takes it. */
void carrier_accept(struct relay *r, spoke_stream *s);
/* Make it a stream of a carrier, when there is one. */
void carrier_carry(struct link *k);
/* `k`, which dialled over one, has failed so.  True: it waits for another try. */
bool carrier_tries_again(struct link *k, const struct spoke_stream_info *info);
/* How its refusal is said, one clause. */
const char *carrier_refusal(uint64_t code);
/* Those that wait may find a place. */
void carrier_serve_waiting(struct relay *r);
/* Streams may be taken again. */
void carrier_take_streams(struct relay *r);
void carriers_go_away(struct relay *r);
void carriers_close(struct relay *r);

#endif
