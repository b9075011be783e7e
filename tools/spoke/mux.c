/* SPDX-License-Identifier: MIT */
/* spoke mux: a port forwarder.  Two of them have one connection, and each carries what comes to its
 * addresses over it to what the other may be connected to. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "open_meta.h"
#include "relay.h"
#include "remote.h"
#include "target.h"

enum {
    OPT_LISTEN = RELAY_NEXT_ID,
    OPT_CONNECT,
    OPT_LOCAL,
    OPT_REMOTE,
    OPT_ALLOW,
    OPT_ALLOW_LISTEN
};

static const struct tool_option options[] = {
    {NULL, 0, NULL, "The carrier", 0},
    {"connect", 0, "URL", "dial it there, again when it is lost", OPT_CONNECT},
    {"listen", 0, "URL", "take it there; may be repeated, and several may come", OPT_LISTEN},
    {NULL, 0, NULL, "What is forwarded; each may be repeated", 0},
    {"local", 'L', "LISTEN=TARGET", "who comes to LISTEN here is connected to TARGET there",
     OPT_LOCAL},
    {"remote", 'R', "LISTEN=TARGET", "who comes to LISTEN there is connected to TARGET here",
     OPT_REMOTE},
    {"allow", 'A', "TARGET", "the other side may have itself connected to it; * is any", OPT_ALLOW},
    {"allow-listen", 0, "LISTEN", "the other side may have this one listen there; * is any",
     OPT_ALLOW_LISTEN},
    RELAY_MODE_OPTION,
    RELAY_RULE_OPTIONS,
    RELAY_OTHER_OPTIONS,
    {0},
};

#define FORWARDINGS_MOST 64

struct forwarder {
    struct relay relay;
    struct target_list targets, listens;
    char *texts[FORWARDINGS_MOST]; /* LISTEN=TARGET, cut up */
    int count;
};

/* ---- the command line ---- */

/* Cut LISTEN=TARGET where the second URL begins: the copy, which both lie in, or NULL after an
 * error.
 */
static char *
cut_up(const char *value, const char **target)
{
    static const char *const schemes[] = {"=tcp://", "=ipc://", "=shm://"};
    char *copy = strdup(value), *at = NULL;

    if (copy == NULL) {
        (void)tool_api_error("start", NULL, SPOKE_ENOMEM);
        return NULL;
    }
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes && at == NULL; i++)
        at = strstr(copy, schemes[i]);
    if (at == NULL || at == copy || strlen(at + 1) > OPEN_META_TEXT_MOST ||
        (size_t)(at - copy) > OPEN_META_TEXT_MOST) {
        tool_error("\"%s\" is no forwarding: write it as LISTEN=TARGET, two addresses such as "
                   "tcp://127.0.0.1:8080, each of at most %d bytes",
                   value, OPEN_META_TEXT_MOST);
        free(copy);
        return NULL;
    }
    *at = '\0';
    *target = at + 1;
    return copy;
}

/* What is to be connected to here is allowed by that. */
static bool
ask_for(struct forwarder *f, const char *listen, const char *target)
{
    if (strchr(target, '*') == NULL)
        return target_allow(&f->targets, target) && remote_add(&f->relay, listen, target);
    tool_error("%s is no target: it has a * in it: write one address", target);
    return false;
}

static bool
add_forwarding(struct forwarder *f, bool remote, const char *value)
{
    const char *listen, *target;

    if (f->count == FORWARDINGS_MOST)
        return relay_usage_error("these are too many addresses to forward");
    if ((f->texts[f->count] = cut_up(value, &target)) == NULL)
        return false;
    listen = f->texts[f->count++];
    return remote ? ask_for(f, listen, target)
                  : relay_add_front(&f->relay, FRONT_OVER, listen, target);
}

static bool
set_option(void *request, int id, const char *value)
{
    struct forwarder *f = request;

    switch (id) {
    case OPT_CONNECT: f->relay.carrier_url = value; return true;
    case OPT_LISTEN: return relay_add_front(&f->relay, FRONT_CARRIER, value, NULL);
    case OPT_LOCAL: return add_forwarding(f, false, value);
    case OPT_REMOTE: return add_forwarding(f, true, value);
    case OPT_ALLOW: return target_allow(&f->targets, value);
    case OPT_ALLOW_LISTEN: return target_allow(&f->listens, value);
    default: return relay_set_option(&f->relay, id, value);
    }
}

static bool
check(struct relay *r)
{
    struct front *f;
    bool listens = false;

    for (f = LIST_FIRST(&r->fronts); f != NULL; f = LIST_NEXT(f, of_all)) {
        listens |= f->kind == FRONT_CARRIER;
        if (f->url != NULL && strncmp(f->url, "inproc://", 9) == 0)
            return relay_usage_error("inproc:// reaches nobody outside of this program");
    }
    if (listens == (r->carrier_url != NULL))
        return relay_usage_error("give one of --connect URL and --listen URL, for the carrier");
    return r->carrier_url == NULL || strncmp(r->carrier_url, "inproc://", 9) != 0 ||
           relay_usage_error("inproc:// reaches nobody outside of this program");
}

static bool
parse(struct forwarder *f, struct tool_args *args)
{
    struct relay *r = &f->relay;

    if (!tool_obey_options(args, set_option, f) || !tool_no_operands(args))
        return false;
    tool_quiet = r->verbosity < 0;
    return relay_count_passed(r) && check(r) && relay_read_rules(r);
}

int
mux_main(int argc, char **argv)
{
    static const struct tool_page page = {
        .usage = "--connect URL [OPTION …]\n--listen URL [OPTION …]",
        .about =
            "Forward connections over one, the carrier, to another spoke mux, and from there: "
            "each side takes\nconnections at its --local addresses, and what the other side "
            "may be connected to is what it\nis told with --allow: nothing else.  The carrier may "
            "be "
            "tcp://, ipc://, shm://, tls+tcp://,\nws:// or wss://; what is connected to is tcp://, "
            "ipc:// or shm://.",
        .options = options,
        .notes =
            "Both what is asked for and the address that this comes to have to be allowed: a "
            "name with a *, such\nas tcp://*.lan:80, needs another --allow for addresses, such "
            "as tcp://10.0.0.0/8:80.\nWho reaches a carrier over tcp:// or ws:// may ask for all "
            "that is allowed, and it is not encrypted:\nover tls+tcp:// and wss:// it is, and "
            "--cacert lets in only whom that authority has signed; over\nipc:// and shm:// "
            "--allow-uid and --allow-gid do.\n\n"
            "Signals, counters, rules and systemd's sockets, which take carriers, are as those "
            "of spoke gateway.\n\n"
            "Examples:\n"
            "  spoke mux --listen tcp://10.0.0.1:7000 --allow tcp://127.0.0.1:5432\n"
            "  spoke mux --connect tcp://10.0.0.1:7000 -L "
            "tcp://127.0.0.1:5432=tcp://127.0.0.1:5432",
    };
    struct tool_args args = {.argc = argc, .argv = argv, .page = &page};
    static struct forwarder f; /* threads may still look at it at the very end */

    relay_init(&f.relay);
    f.relay.passed_kind = FRONT_CARRIER;
    f.relay.targets = &f.targets;
    f.relay.listens = &f.listens;
    if (parse(&f, &args))
        args.status = relay_run(&f.relay);
    return args.status;
}
