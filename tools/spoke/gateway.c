/* SPDX-License-Identifier: MIT */
/* spoke gateway: whoever connects to one address is carried to another, byte by byte, whatever
 * their schemes; between two gateways all of them may be streams of one connection. */
#include <string.h>
#include <unistd.h>

#include "relay.h"

enum { OPT_LISTEN = RELAY_NEXT_ID, OPT_CONNECT, OPT_MUX };

static const struct tool_option options[] = {
    {NULL, 0, NULL, "Addresses, in place of LISTEN and CONNECT", 0},
    {"listen", 0, "URL", "take connections at URL; may be repeated", OPT_LISTEN},
    {"connect", 0, "URL", "carry them to URL", OPT_CONNECT},
    {"mux", 0, NULL, "the URL before it is a carrier's: many connections over one", OPT_MUX},
    RELAY_MODE_OPTION,
    RELAY_RULE_OPTIONS,
    RELAY_OTHER_OPTIONS,
    {0},
};

struct gateway {
    struct relay relay;
    int last;        /* option that gave an address */
    bool mux_passed; /* --mux in front of all of them */
};

/* ---- the command line ---- */

/* "mux+" in front of an address says the same as --mux behind it. */
static bool
is_carrier(const char **url)
{
    if (strncmp(*url, "mux+", 4) != 0)
        return false;
    *url += 4;
    return true;
}

static bool
add_listen(struct relay *r, const char *url)
{
    enum front_kind kind = is_carrier(&url) ? FRONT_CARRIER : FRONT_DIRECT;

    return relay_add_front(r, kind, url, NULL);
}

static void
set_connect(struct relay *r, const char *url)
{
    bool carrier = is_carrier(&url);

    r->target = carrier ? NULL : url;
    r->carrier_url = carrier ? url : NULL;
}

/* It belongs to the address that was given last; before there is one, to the sockets that are
 * passed on. */
static void
set_mux(struct gateway *g)
{
    struct relay *r = &g->relay;

    if (g->last == OPT_LISTEN) {
        relay_last_front(r)->kind = FRONT_CARRIER;
    } else if (g->last == 0) {
        r->passed_kind = FRONT_CARRIER;
        g->mux_passed = true;
    } else if (r->target != NULL) {
        r->carrier_url = r->target;
        r->target = NULL;
    }
}

static bool
set_option(void *request, int id, const char *value)
{
    struct gateway *g = request;

    if (id == OPT_MUX) {
        set_mux(g);
        return true;
    }
    if (id != OPT_LISTEN && id != OPT_CONNECT)
        return relay_set_option(&g->relay, id, value);
    g->last = id;
    if (id == OPT_LISTEN)
        return add_listen(&g->relay, value);
    set_connect(&g->relay, value);
    return true;
}

static bool
is_inproc(const char *url)
{
    return strncmp(url, "inproc://", 9) == 0;
}

static bool
check_fronts(struct relay *r, const char *connect)
{
    struct front *f;

    for (f = LIST_FIRST(&r->fronts); f != NULL; f = LIST_NEXT(f, of_all)) {
        if (f->url != NULL && strcmp(f->url, connect) == 0)
            return relay_usage_error("it would connect to itself");
        if (f->url != NULL && is_inproc(f->url))
            return relay_usage_error("inproc:// reaches nobody outside of this program");
        if (f->kind == FRONT_CARRIER && r->carrier_url != NULL)
            return relay_usage_error("only one of the two sides can be a carrier");
        if (r->carrier_url != NULL)
            f->kind = FRONT_OVER;
    }
    return true;
}

static bool
check_addresses(struct gateway *g)
{
    struct relay *r = &g->relay;
    const char *connect = r->target != NULL ? r->target : r->carrier_url;

    if (g->mux_passed && r->passed_count == 0)
        return relay_usage_error("write --mux behind --listen URL or --connect URL, or mux+ in "
                                 "front of an address");
    if (connect == NULL || LIST_EMPTY(&r->fronts))
        return relay_usage_error("give two addresses, where to listen and where to connect to");
    if (is_inproc(connect))
        return relay_usage_error("inproc:// reaches nobody outside of this program");
    return check_fronts(r, connect);
}

static bool
parse(struct gateway *g, struct tool_args *args)
{
    struct relay *r = &g->relay;

    if (!tool_obey_options(args, set_option, g))
        return false;
    for (int i = optind; i < args->argc; i++) {
        if (i + 1 == args->argc && r->target == NULL && r->carrier_url == NULL)
            set_connect(r, args->argv[i]);
        else if (!add_listen(r, args->argv[i]))
            return false;
    }
    tool_quiet = r->verbosity < 0;
    return relay_count_passed(r) && check_addresses(g) && relay_read_rules(r);
}

int
gateway_main(int argc, char **argv)
{
    static const struct tool_page page = {
        .usage = "LISTEN CONNECT [OPTION …]",
        .about =
            "Take connections at LISTEN and carry them to CONNECT, byte by byte: tcp:// and "
            "ipc:// are any\nprogram's, shm:// is another gateway's, or a spoke_stream's.  With "
            "mux+ in front of one of the two,\nthat is another gateway's (or a spoke_mux's), "
            "and all are streams of one connection there.",
        .options = options,
        .notes = "SIGTERM ends it when its connections have, a second one at once; SIGHUP reads "
                 "the rules again;\nSIGUSR1 prints counters, which are also printed at the end.  "
                 "Sockets that systemd passes on\nare listened on, too; then CONNECT is "
                 "enough.\n\n"
                 "Examples:\n"
                 "  spoke gateway tcp://127.0.0.1:6379 ipc:///run/redis/redis.sock\n"
                 "  spoke gateway shm:///run/redis.shm tcp://127.0.0.1:6379\n"
                 "  spoke gateway tcp://127.0.0.1:6380 shm:///run/redis.shm\n"
                 "  spoke gateway mux+tcp://10.0.0.1:7000 tcp://127.0.0.1:6379\n"
                 "  spoke gateway tcp://127.0.0.1:6380 mux+tcp://10.0.0.1:7000",
    };
    struct tool_args args = {.argc = argc, .argv = argv, .page = &page};
    static struct gateway g; /* the signal thread may still look at it at the very end */

    relay_init(&g.relay);
    if (parse(&g, &args))
        args.status = relay_run(&g.relay);
    return args.status;
}
