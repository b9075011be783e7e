/* SPDX-License-Identifier: MIT */
/* spoke demo --web: a PUB socket that publishes what its own process does.  Its listener also
 * serves the files of the client for browsers, with the page that subscribes.  One thread. */
#include "demo_web.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "stop.h"
#include "tool.h"

#define INTERVAL (100 * SPOKE_MS)
#define TEXT_MAX 8192

struct web {
    spoke_engine *engine;
    spoke_socket *pub;
    char address[128]; /* "ws://127.0.0.1:8080/figures" */
    spoke_ns began;
};

/* ---- where it is ---- */

/* The client's directory, from where this program is: of the build, or as it was installed. */
static bool
find_client(char *path, size_t size)
{
    static const char page[] = SPOKE_CLIENT_FROM_BIN "/demo/index.html";
    char *slash;
    size_t used;

    if (!tool_own_path(path, size) || (slash = strrchr(path, '/')) == NULL) {
        tool_error("cannot find this program through /proc/self/exe: mount /proc");
        return false;
    }
    used = (size_t)(slash + 1 - path);
    if (used + sizeof page > size) {
        tool_error("the path of this program is too long");
        return false;
    }
    memcpy(slash + 1, page, sizeof page);
    if (access(path, R_OK) != 0) {
        tool_error("%s: %s: make install puts it there", path, strerror(errno));
        return false;
    }
    path[used + sizeof SPOKE_CLIENT_FROM_BIN - 1] = '\0';
    return true;
}

static int
listen_on(struct web *w, uint16_t port)
{
    char directory[4096];
    spoke_listener *l;
    int rc;

    if (!find_client(directory, sizeof directory))
        return TOOL_FILE;
    snprintf(w->address, sizeof w->address, "ws://127.0.0.1:%d/figures", port);
    if ((rc = spoke_socket_open(&w->pub, SPOKE_PUB, w->engine)) != 0 ||
        (rc = spoke_socket_set_string(w->pub, SPOKE_OPT_WS_DIRECTORY, directory)) != 0 ||
        (rc = spoke_listen(w->pub, w->address, &l, 0)) != 0 ||
        (rc = spoke_listener_get_string(l, SPOKE_OPT_ADDRESS, w->address, sizeof w->address)) != 0)
        return tool_api_error("listen on", w->address, rc);
    return TOOL_OK;
}

/* ---- the figures ---- */

struct text {
    size_t used;
    char data[TEXT_MAX];
};

__attribute__((format(printf, 2, 3))) static void
append(struct text *t, const char *format, ...)
{
    size_t room = sizeof t->data - t->used;
    va_list args;

    va_start(args, format);
    int size = vsnprintf(t->data + t->used, room, format, args);
    va_end(args);
    if (size > 0)
        t->used += (size_t)size < room ? (size_t)size : room - 1;
}

static void
append_figures(struct web *w, struct text *t)
{
    struct spoke_engine_info info = {0};
    struct spoke_stats stats = {0};
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    spoke_engine_get_info(w->engine, &info);
    spoke_socket_stats(w->pub, &stats);
    append(t, "figures {\"seconds\":%.3f,\"cpu_ms\":%.3f,\"peak_kib\":%ld",
           (double)(tool_now() - w->began) / (double)SPOKE_SECOND,
           (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 +
               (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e3,
           usage.ru_maxrss);
    append(t, ",\"engine\":{\"turns\":%" PRIu64 ",\"system_calls\":%" PRIu64 ",\"sleeps\":%" PRIu64,
           info.turns, info.enters, info.sleeps);
    append(t, "},\"socket\":{\"protocol\":%d", SPOKE_PUB);
#define STAT(name, help) append(t, ",\"" #name "\":%" PRIu64, stats.name);
#include <spoke/stats.def>
#undef STAT
    append(t, "}}");
}

static int
publish(struct web *w)
{
    struct text t = {0};

    append_figures(w, &t);
    int rc = spoke_send_bytes(w->pub, t.data, t.used, 0);
    return rc == 0 ? TOOL_OK : tool_api_error("publish", NULL, rc);
}

/* ---- all of it ---- */

static int
serve(struct web *w)
{
    spoke_ns next = tool_now(), wait;
    int rc, status, size = (int)(strrchr(w->address, '/') - w->address);

    printf("http%.*s/demo/ shows this process's figures; an interrupt (Ctrl-C) ends it.\n",
           size - 2, w->address + 2);
    status = tool_finish_output();
    while (stop_signal() == 0 && status == TOOL_OK) {
        if ((wait = next - tool_now()) <= 0) {
            status = publish(w);
            next = tool_now() + INTERVAL; /* what a busy machine has missed is not made up for */
        } else if ((rc = spoke_engine_poll(w->engine, wait)) < 0) {
            status = tool_api_error("drive the engine", NULL, rc);
        }
    }
    return status;
}

int
demo_web(uint16_t port)
{
    struct web web = {.began = tool_now()};
    int status, rc;

    if (stop_init() < 0) {
        tool_error("cannot wait for signals: %s", strerror(errno));
        return TOOL_API;
    }
    if ((rc = spoke_engine_open(&web.engine, NULL)) != 0)
        return tool_api_error("open an engine", NULL, rc);
    if ((status = listen_on(&web, port)) == TOOL_OK)
        status = serve(&web);
    spoke_engine_close(web.engine); /* and its socket */
    stop_finish();
    return status;
}
