/* SPDX-License-Identifier: MIT */
/* The lab: lab.h. */
#include "tests/fuzz/support/lab.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include "runtime/engine/handle.h"

void
lab_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    abort();
}

/* ---- input ---- */

uint8_t
input_byte(struct input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

uint16_t
input_word(struct input *in)
{
    uint8_t high = input_byte(in);

    return (uint16_t)(high << 8 | input_byte(in));
}

const uint8_t *
input_bytes(struct input *in, size_t most, size_t *size)
{
    const uint8_t *at = in->at;

    *size = most < in->left ? most : in->left;
    in->at += *size;
    in->left -= *size;
    return at;
}

/* ---- world ---- */

void
lab_config(spoke_sim_config *config, uint8_t seed, uint32_t buffer_bytes)
{
    spoke_sim_config_init(config);
    config->seed = seed;
    config->latency_min_ns = config->latency_max_ns = 0;
    config->buffer_bytes = buffer_bytes;
}

void
lab_open(struct lab *lab, const spoke_sim_config *config)
{
    struct spk_engine *e;

    spoke_memory_stats(&lab->before);
    MUST(spoke_sim_open(&lab->w, config) == 0);
    MUST(spoke_sim_engine(lab->w, &lab->engine) == 0);
    e = spk_handle_peek(lab->engine, SPK_HANDLE_ENGINE);
    lab->node = e->backend_state;
}

void
lab_close(struct lab *lab)
{
    struct spoke_sim_report report;
    struct spoke_memory_stats after;

    MUST(lab->w->misuses == 0);
    MUST(spoke_sim_close(lab->w, &report) == 0);
    spoke_memory_stats(&after);
    MUST(after.messages == lab->before.messages);
    MUST(after.chunks == lab->before.chunks);
    MUST(after.chunk_bytes == lab->before.chunk_bytes);
}

void
lab_settle(struct lab *lab)
{
    lab_pass(lab, SPOKE_MS);
}

void
lab_pass(struct lab *lab, spoke_ns time)
{
    MUST(spoke_sim_run(lab->w, NULL, NULL, time) == 0);
}

/* ---- peers ---- */

const char *
lab_url(bool ipc)
{
    return ipc ? "ipc:///lab" : "tcp://127.0.0.1:7";
}

static const struct sockaddr *
address(bool ipc, socklen_t *size)
{
    static const struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/lab"};
    static struct sockaddr_in in;

    in = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(7), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    *size = ipc ? sizeof un : sizeof in;
    return ipc ? (const void *)&un : (const void *)&in;
}

static struct sim_handle *
new_handle(struct lab *lab, bool ipc)
{
    struct sim_handle *h;

    MUST(spk_sim_socket(lab->node, ipc ? AF_UNIX : AF_INET, &h) == 0);
    return h;
}

struct sim_handle *
lab_dial(struct lab *lab, bool ipc)
{
    struct sim_handle *h = new_handle(lab, ipc);
    socklen_t size;
    const struct sockaddr *to = address(ipc, &size);

    spk_sim_connect(h, to, size);
    lab_settle(lab);
    MUST(h->state == SIM_CONNECTED);
    return h;
}

struct sim_handle *
lab_listen(struct lab *lab, bool ipc)
{
    struct sim_handle *h = new_handle(lab, ipc);
    socklen_t size;
    const struct sockaddr *at = address(ipc, &size);

    MUST(spk_sim_bind(h, at, size) == 0);
    MUST(spk_sim_listen(h, 8) == 0);
    return h;
}

struct sim_handle *
lab_accept(struct lab *lab, struct sim_handle *listener)
{
    int number = spk_sim_accept(listener);

    return number < 0 ? NULL : spk_sim_handle(lab->w, number);
}

void
lab_hang_up(struct sim_handle *h)
{
    if (h != NULL)
        spk_sim_close_handle(h);
}

size_t
lab_write(struct sim_handle *h, const void *bytes, size_t size)
{
    size_t done = 0;

    while (done < size) {
        struct iovec iov = {(uint8_t *)(uintptr_t)bytes + done, size - done};
        int64_t n = spk_sim_write(h, &iov, 1);

        if (n > 0)
            done += (size_t)n;
        else if (n != SPOKE_ENOBUFS)
            break;
    }
    return done;
}

size_t
lab_read(struct sim_handle *h, void *bytes, size_t size)
{
    int64_t n;

    while ((n = spk_sim_read(h, bytes, size)) == SPOKE_ENOBUFS)
        ;
    if (n == SPOKE_EAGAIN)
        return 0;
    return n > 0 ? (size_t)n : LAB_ENDED;
}

void
lab_hello(uint8_t hello[HELLO_SIZE], int protocol)
{
    const uint8_t bytes[HELLO_SIZE] = {0, 'S', 'P', 0, (uint8_t)(protocol >> 8), (uint8_t)protocol,
                                       0, 0};

    memcpy(hello, bytes, sizeof bytes);
}
