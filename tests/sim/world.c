/* SPDX-License-Identifier: MIT */
/* The simulated world itself: the same seed is the same run, time is virtual, every fault happens,
 * what is left is found. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/engine/sim_world.h"
#include "tests/sim/echo.h"
#include "tests/support/test.h"

static struct echo x;

static spoke_sim_config
calm(uint64_t seed)
{
    spoke_sim_config config;

    spoke_sim_config_init(&config);
    config.seed = seed;
    return config;
}

/* Everything that may happen, often. */
static spoke_sim_config
stormy(uint64_t seed)
{
    spoke_sim_config config = calm(seed);

    config.short_read = config.short_write = 300;
    config.reset = 2;
    config.refuse = config.delay = config.enobufs = config.emfile = config.overflow = 50;
    config.cancel_race = 500;
    return config;
}

/* ---- chance and time ---- */

Test(sim, the_same_seed_gives_the_same_run)
{
    for (uint64_t seed = 1; seed <= 100; seed++) {
        spoke_sim_config config = stormy(seed);

        cr_assert_eq(echo_whole_run(&config, 4, 3000), echo_whole_run(&config, 4, 3000), "seed %d",
                     (int)seed);
    }
}

Test(sim, another_seed_gives_another_run)
{
    uint64_t digests[50];

    for (int i = 0; i < 50; i++) {
        spoke_sim_config config = calm((uint64_t)i);

        digests[i] = echo_whole_run(&config, 2, 500);
        for (int j = 0; j < i; j++)
            cr_assert_neq(digests[i], digests[j], "seeds %d and %d", i, j);
    }
}

/* Goal: nothing of a process gets into its runs.  Method: a child whose memory is laid out
 * otherwise. */
Test(sim, the_same_seed_gives_the_same_run_in_another_process)
{
    spoke_sim_config config = stormy(4711);
    uint64_t here, there = 0;
    int ends[2], status;
    pid_t child;

    cr_assert_eq(pipe(ends), 0);
    if ((child = fork()) == 0) {
        volatile char *moved = malloc(12345);

        there = moved != NULL ? echo_whole_run(&config, 4, 3000) : 0;
        _exit(write(ends[1], &there, sizeof there) == sizeof there ? 0 : 1);
    }
    here = echo_whole_run(&config, 4, 3000);
    close(ends[1]);
    cr_assert_eq(read(ends[0], &there, sizeof there), (ssize_t)sizeof there);
    close(ends[0]);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(here, there);
}

Test(sim, bytes_arrive_complete_and_in_order_whatever_happens)
{
    for (uint64_t seed = 1; seed <= 300; seed++) {
        spoke_sim_config config = stormy(seed);

        config.buffer_bytes = 1 + (uint32_t)(seed * 37 % 700);
        echo_whole_run(&config, 1 + (int)(seed % ECHO_CLIENTS), 2000);
    }
}

Test(sim, a_transfer_takes_its_latency_and_no_more)
{
    spoke_sim_config config = calm(1);
    spoke_ns took;

    config.latency_min_ns = config.latency_max_ns = 10 * SPOKE_MS;
    echo_open(&x, &config, 1, 100);
    cr_assert_eq(spoke_sim_now(x.w), 0);
    cr_assert(echo_run(&x, SPOKE_FOREVER));
    took = spoke_sim_now(x.w);
    cr_assert_eq(took, 40 * SPOKE_MS, "connect there and back, bytes there and back: %lld ns",
                 (long long)took);
    cr_assert_eq(echo_close(&x, NULL, NULL), 0);
}

static void
set_flag(void *ctx)
{
    *(bool *)ctx = true;
}

static bool
is_set(void *ctx)
{
    return *(bool *)ctx;
}

Test(sim, an_hour_of_virtual_time_takes_none)
{
    bool flag = false;
    spoke_sim *w;
    spoke_engine *e;

    cr_assert_eq(spoke_sim_open(&w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(w, &e), 0);
    cr_assert_eq(spoke_engine_after(e, 3600 * SPOKE_SECOND, set_flag, &flag, NULL), 0);
    cr_assert_eq(spoke_sim_run(w, is_set, &flag, 3599 * SPOKE_SECOND), 0, "not before its time");
    cr_assert_eq(spoke_sim_now(w), 3599 * SPOKE_SECOND);
    cr_assert_eq(spoke_sim_run(w, is_set, &flag, 1 * SPOKE_SECOND), 1);
    cr_assert_eq(spoke_sim_now(w), 3600 * SPOKE_SECOND);
    cr_assert_eq(spoke_engine_now(e), 3600 * SPOKE_SECOND);
    cr_assert_eq(spoke_sim_step(w), 0, "nothing is left");
    cr_assert_eq(spoke_sim_close(w, NULL), 0);
}

/* ---- waiting ---- */

Test(sim, waiting_for_what_cannot_come_is_a_deadlock)
{
    spoke_sim *w;
    spoke_engine *e;

    cr_assert_eq(spoke_sim_open(&w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(w, &e), 0);
    cr_assert_eq(spoke_engine_poll(e, SPOKE_FOREVER), SPOKE_EDEADLK);
    cr_assert_eq(spoke_engine_run(e), SPOKE_EDEADLK);
    cr_assert_eq(spoke_engine_poll(e, 5 * SPOKE_MS), 0, "with a limit it is a wait");
    cr_assert_eq(spoke_sim_now(w), 5 * SPOKE_MS);
    cr_assert_eq(spoke_sim_close(w, NULL), 0);
}

static void
post_flag(void *ctx)
{
    spoke_engine *e = *(spoke_engine **)ctx;
    static bool flag;

    spoke_engine_post(e, set_flag, &flag);
}

Test(sim, a_wait_runs_the_other_machines_and_notices_what_they_do)
{
    spoke_sim *w;
    spoke_engine *waiting, *other;

    cr_assert_eq(spoke_sim_open(&w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(w, &waiting), 0);
    cr_assert_eq(spoke_sim_engine(w, &other), 0);
    cr_assert_eq(spoke_engine_after(other, 7 * SPOKE_MS, post_flag, &waiting, NULL), 0);
    cr_assert_eq(spoke_engine_poll(waiting, SPOKE_FOREVER), 1);
    cr_assert_eq(spoke_sim_now(w), 7 * SPOKE_MS);
    cr_assert_eq(spoke_sim_close(w, NULL), 0);
}

static void *
call_from_elsewhere(void *ctx)
{
    spoke_sim **w = ctx;
    spoke_engine *e;

    if (spoke_sim_step(*w) == SPOKE_EWRONGTHREAD &&
        spoke_sim_engine(*w, &e) == SPOKE_EWRONGTHREAD &&
        spoke_sim_run(*w, NULL, NULL, 1) == SPOKE_EWRONGTHREAD &&
        spoke_sim_close(*w, NULL) == SPOKE_EWRONGTHREAD)
        *w = NULL;
    return NULL;
}

Test(sim, a_world_belongs_to_its_thread)
{
    spoke_sim *w, *seen;
    pthread_t thread;

    cr_assert_eq(spoke_sim_open(&w, NULL), 0);
    seen = w;
    cr_assert_eq(pthread_create(&thread, NULL, call_from_elsewhere, &seen), 0);
    pthread_join(thread, NULL);
    cr_assert_null(seen);
    cr_assert_eq(spoke_sim_close(w, NULL), 0);
}

static void
close_world(void *ctx)
{
    void **args = ctx;

    *(int *)args[1] = spoke_sim_close(args[0], NULL);
}

Test(sim, a_world_is_not_closed_by_what_runs_in_it)
{
    spoke_sim *w;
    spoke_engine *e;
    int rc = 0;
    void *args[2];

    cr_assert_eq(spoke_sim_open(&w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(w, &e), 0);
    args[0] = w;
    args[1] = &rc;
    cr_assert_eq(spoke_engine_post(e, close_world, args), 0);
    cr_assert_eq(spoke_sim_step(w), 1);
    cr_assert_eq(rc, SPOKE_EDEADLK);
    cr_assert_eq(spoke_sim_close(w, NULL), 0);
}

Test(sim, nonsense_is_refused)
{
    spoke_sim_config config = calm(1);
    spoke_sim *w;
    spoke_engine *e;

    config.reset = 1001;
    cr_assert_eq(spoke_sim_open(&w, &config), SPOKE_EINVAL);
    cr_assert_null(w);
    config = calm(1);
    config.latency_min_ns = config.latency_max_ns + 1;
    cr_assert_eq(spoke_sim_open(&w, &config), SPOKE_EINVAL);
    cr_assert_eq(spoke_sim_open(NULL, NULL), SPOKE_EINVAL);
    cr_assert_eq(spoke_sim_engine(NULL, &e), SPOKE_EINVAL);
    cr_assert_eq(spoke_sim_open(&w, NULL), 0);
    cr_assert_eq(spoke_sim_run(w, NULL, NULL, -1), SPOKE_EINVAL);
    cr_assert_eq(spoke_sim_engine(w, &e), 0);
    cr_assert_eq(spoke_sim_cut(w, e, e, true), SPOKE_EINVAL);
    cr_assert_eq(spoke_engine_fd(e), SPOKE_ENOTSUP);
    cr_assert_str_eq(spoke_engine_backend(e), "sim");
    cr_assert_eq(spoke_engine_close(e), 0);
    cr_assert_eq(spoke_sim_kill(w, e), SPOKE_ECLOSED);
    cr_assert_eq(spoke_sim_close(w, NULL), 0);
}

/* ---- faults: each shows when it is on, and none when it is off ---- */

/* Run until all is done; with faults that may last, several seeds' worth. */
static void
run_with(const spoke_sim_config *config)
{
    echo_open(&x, config, 4, 5000);
    cr_assert(echo_run(&x, SPOKE_FOREVER));
    cr_assert_eq(x.wrong_bytes, 0);
    cr_assert_eq(echo_close(&x, NULL, NULL), 0);
}

Test(sim, without_faults_nothing_goes_wrong)
{
    spoke_sim_config config = calm(3);

    run_with(&config);
    cr_assert_eq(x.refused + x.resets + x.no_buffers + x.no_memory + x.no_descriptors, 0);
    cr_assert_eq(x.connects, 4);
}

Test(sim, reads_and_writes_can_be_short)
{
    spoke_sim_config config = calm(3);

    config.short_read = config.short_write = 1000;
    config.buffer_bytes = 100;
    run_with(&config);
    cr_assert_lt(x.least_recv, 10u);
    cr_assert_lt(x.least_send, 10u);
}

Test(sim, connections_can_be_reset)
{
    spoke_sim_config config = calm(3);

    config.reset = 20;
    run_with(&config);
    cr_assert_gt(x.resets, 0);
    cr_assert_gt(x.connects, 4);
}

Test(sim, connects_can_be_refused)
{
    spoke_sim_config config = calm(3);

    config.refuse = 600;
    run_with(&config);
    cr_assert_gt(x.refused, 0);
    cr_assert_eq(x.resets, 0);
}

Test(sim, transfers_can_be_late)
{
    spoke_sim_config config = calm(3);
    spoke_ns calm_time;

    echo_open(&x, &config, 4, 5000);
    cr_assert(echo_run(&x, SPOKE_FOREVER));
    calm_time = spoke_sim_now(x.w);
    cr_assert_eq(echo_close(&x, NULL, NULL), 0);
    config.delay = 500;
    echo_open(&x, &config, 4, 5000);
    cr_assert(echo_run(&x, SPOKE_FOREVER));
    cr_assert_gt(spoke_sim_now(x.w), 5 * calm_time);
    cr_assert_eq(echo_close(&x, NULL, NULL), 0);
}

Test(sim, buffers_can_be_short)
{
    spoke_sim_config config = calm(3);

    config.enobufs = 1000;
    run_with(&config);
    cr_assert_gt(x.no_buffers, 10);
}

Test(sim, descriptors_can_be_short)
{
    spoke_sim_config config = calm(3);

    config.emfile = 1000;
    run_with(&config);
    cr_assert_geq(x.no_descriptors, 4 + 1 + 4, "each socket() and each accept, once");
}

Test(sim, the_completion_queue_can_overflow)
{
    spoke_sim_config config = calm(3);

    config.overflow = 300;
    run_with(&config);
    cr_assert_gt(x.accepts_ended, 4, "multishots end");
    cr_assert_gt(x.no_buffers, 0);
}

static int
failures_of(uint32_t per_1000)
{
    spoke_sim_config config = calm(3);
    spoke_sim *w;
    int failures = 0;

    config.enomem = per_1000;
    cr_assert_eq(spoke_sim_open(&w, &config), 0);
    for (int i = 0; i < 1000; i++) {
        spoke_msg *m;
        int rc = spoke_msg_new(&m, 10);

        cr_assert(rc == 0 || rc == SPOKE_ENOMEM);
        failures += rc != 0;
        if (rc == 0)
            spoke_msg_free(m);
    }
    cr_assert_eq(spoke_sim_close(w, NULL), 0);
    return failures;
}

Test(sim, memory_can_be_short)
{
    spoke_msg *m;
    int failures = failures_of(100);

    cr_assert(failures > 50 && failures < 200, "%d", failures);
    cr_assert_eq(failures_of(100), failures, "the same seed");
    cr_assert_eq(failures_of(1000), 1000);
    cr_assert_eq(spoke_msg_new(&m, 10), 0, "not after the world has gone");
    spoke_msg_free(m);
}

struct race {
    struct spk_op connect, recv;
    uint8_t in[16];
    int result;
};

static void
on_race_recv(struct spk_op *op, int result)
{
    SPK_OWNER(op, struct race, recv)->result = result;
}

static void
on_race_connect(struct spk_op *op, int result)
{
    SPK_OWNER(op, struct race, connect)->result = result;
}

static void
run_until_quiet(void)
{
    while (spoke_sim_step(x.w))
        ;
}

/* A receive is cancelled when its bytes have come, and before it was told.  True: it got them. */
static bool
wins_race(void)
{
    const struct spk_backend *b = x.client->backend;
    struct iovec iov = {(char[]){"0123456789"}, 10};
    struct race race;
    int handle;

    cr_assert_eq(b->socket(x.client, AF_INET, &handle), 0);
    spk_op_init(&race.connect, on_race_connect);
    spk_op_connect(x.client, &race.connect, handle, (struct sockaddr *)&x.address,
                   sizeof x.address);
    run_until_quiet();
    cr_assert_eq(race.result, 0);
    spk_op_init(&race.recv, on_race_recv);
    spk_op_recv(x.client, &race.recv, handle, race.in, sizeof race.in);
    run_until_quiet();
    cr_assert_eq(b->send_now(x.server, x.conns[x.conn_count - 1]->handle, &iov, 1), 10);
    cr_assert_eq(spoke_sim_step(x.w), 1);
    spk_op_cancel(x.client, &race.recv);
    run_until_quiet();
    cr_assert_not(spk_op_busy(&race.recv));
    b->close_handle(x.client, handle);
    run_until_quiet();
    cr_assert(race.result == 10 || race.result == SPOKE_ECANCELED, "%d", race.result);
    return race.result == 10;
}

static int
races_won(uint32_t per_1000)
{
    spoke_sim_config config = calm(3);
    int won = 0;

    config.cancel_race = per_1000;
    echo_open(&x, &config, 0, 0);
    for (int i = 0; i < 100; i++)
        won += wins_race();
    cr_assert_eq(echo_close(&x, NULL, NULL), 0);
    return won;
}

Test(sim, a_cancelled_operation_can_complete_with_its_result)
{
    int some = races_won(500);

    cr_assert_eq(races_won(0), 0);
    cr_assert(some > 20 && some < 80, "%d of 100", some);
    cr_assert_eq(races_won(1000), 100);
}

/* ---- death and cuts ---- */

Test(sim, a_killed_machine_resets_its_connections)
{
    spoke_sim_config config = calm(5);
    int resets;

    echo_open(&x, &config, 3, 100000);
    cr_assert_not(echo_run(&x, SPOKE_MS), "in the middle of it");
    cr_assert_eq(x.connects, 3);
    x.stopping = true; /* nobody dials again */
    cr_assert_eq(spoke_sim_kill(x.w, x.server_engine), 0);
    cr_assert_null(spoke_engine_backend(x.server_engine));
    resets = x.resets; /* the killed ends' own */
    run_until_quiet();
    for (int i = 0; i < x.conn_count; i++)
        cr_assert_eq(x.conns[i]->handle, -1);
    cr_assert_geq(x.resets - resets, 3);
    cr_assert_eq(spoke_sim_kill(x.w, x.server_engine), SPOKE_ECLOSED);
    cr_assert_eq(spoke_sim_close(x.w, NULL), 0);
}

Test(sim, nobody_listens_on_a_killed_machine)
{
    spoke_sim_config config = calm(5);
    struct race race;
    int handle;

    echo_open(&x, &config, 0, 0);
    x.stopping = true;
    cr_assert_eq(spoke_sim_kill(x.w, x.server_engine), 0);
    cr_assert_eq(x.client->backend->socket(x.client, AF_INET, &handle), 0);
    spk_op_init(&race.connect, on_race_connect);
    spk_op_connect(x.client, &race.connect, handle, (struct sockaddr *)&x.address,
                   sizeof x.address);
    run_until_quiet();
    cr_assert_eq(race.result, SPOKE_ECONNREFUSED);
    x.client->backend->close_handle(x.client, handle);
    cr_assert_eq(spoke_sim_close(x.w, NULL), 0);
}

Test(sim, a_cut_network_loses_nothing)
{
    spoke_sim_config config = calm(5);

    echo_open(&x, &config, 3, 5000);
    cr_assert_not(echo_run(&x, 200 * SPOKE_US));
    cr_assert_eq(spoke_sim_cut(x.w, x.client_engine, x.server_engine, true), 0);
    cr_assert_not(echo_run(&x, SPOKE_SECOND), "nothing passes");
    cr_assert_eq(spoke_sim_step(x.w), 0, "nothing can happen");
    cr_assert_eq(spoke_sim_cut(x.w, x.client_engine, x.server_engine, false), 0);
    cr_assert(echo_run(&x, SPOKE_SECOND));
    cr_assert_eq(x.wrong_bytes + x.resets, 0);
    cr_assert_eq(x.connects, 3);
    cr_assert_eq(echo_close(&x, NULL, NULL), 0);
}

/* Goal: the news of a death gets through although nobody can mend a dead machine's cuts. */
Test(sim, a_machine_that_dies_is_cut_off_no_more)
{
    spoke_sim_config config = calm(5);

    echo_open(&x, &config, 3, 100000);
    cr_assert_not(echo_run(&x, SPOKE_MS));
    x.stopping = true;
    cr_assert_eq(spoke_sim_cut(x.w, x.client_engine, x.server_engine, true), 0);
    cr_assert_eq(spoke_sim_kill(x.w, x.server_engine), 0);
    run_until_quiet();
    for (int i = 0; i < x.conn_count; i++)
        cr_assert_eq(x.conns[i]->handle, -1);
    cr_assert_eq(spoke_sim_close(x.w, NULL), 0);
}

/* ---- addresses ---- */

static int
bind_at(int family, const void *address, socklen_t size, int *handle)
{
    const struct spk_backend *b = x.server->backend;
    int rc;

    cr_assert_eq(b->socket(x.server, family, handle), 0);
    if ((rc = b->bind(x.server, *handle, address, size)) != 0)
        b->close_handle(x.server, *handle);
    return rc;
}

Test(sim, an_address_has_one_listener)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/run/a"};
    struct sockaddr_in in;
    spoke_sim_config config = calm(1);
    int first, second;

    echo_open(&x, &config, 0, 0);
    in = x.address;
    cr_assert_eq(bind_at(AF_INET, &in, sizeof in, &second), SPOKE_EADDRINUSE);
    in.sin_addr.s_addr = htonl(INADDR_ANY);
    cr_assert_eq(bind_at(AF_INET, &in, sizeof in, &second), SPOKE_EADDRINUSE, "any includes it");
    cr_assert_eq(bind_at(AF_UNIX, &un, sizeof un, &first), 0);
    cr_assert_eq(bind_at(AF_UNIX, &un, offsetof(struct sockaddr_un, sun_path) + 6, &second),
                 SPOKE_EADDRINUSE, "the same path, not padded");
    un.sun_path[0] = '\0';
    cr_assert_eq(bind_at(AF_UNIX, &un, offsetof(struct sockaddr_un, sun_path) + 6, &second), 0,
                 "an abstract name is another one");
    x.server->backend->close_handle(x.server, second);
    x.server->backend->close_handle(x.server, first);
    cr_assert_eq(echo_close(&x, NULL, NULL), 0);
}

Test(sim, port_0_gives_a_free_port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_storage one, other;
    socklen_t size;
    spoke_sim_config config = calm(1);
    int first, second;

    echo_open(&x, &config, 0, 0);
    cr_assert_eq(bind_at(AF_INET, &in, sizeof in, &first), 0);
    cr_assert_eq(bind_at(AF_INET, &in, sizeof in, &second), 0);
    cr_assert_eq(x.server->backend->local_address(x.server, first, &one, &size), 0);
    cr_assert_eq(size, sizeof in);
    cr_assert_eq(x.server->backend->local_address(x.server, second, &other, &size), 0);
    cr_assert_neq(((struct sockaddr_in *)&one)->sin_port, 0);
    cr_assert_neq(((struct sockaddr_in *)&one)->sin_port, ((struct sockaddr_in *)&other)->sin_port);
    x.server->backend->close_handle(x.server, second);
    x.server->backend->close_handle(x.server, first);
    cr_assert_eq(echo_close(&x, NULL, NULL), 0);
}

Test(sim, a_full_backlog_makes_dialers_wait)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/run/b"};
    spoke_sim_config config = calm(1);
    struct race races[3];
    int listener, handles[3];

    echo_open(&x, &config, 0, 0);
    cr_assert_eq(bind_at(AF_UNIX, &un, sizeof un, &listener), 0);
    cr_assert_eq(x.server->backend->listen(x.server, listener, 2), 0);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(x.client->backend->socket(x.client, AF_UNIX, &handles[i]), 0);
        spk_op_init(&races[i].connect, on_race_connect);
        spk_op_connect(x.client, &races[i].connect, handles[i], (struct sockaddr *)&un, sizeof un);
    }
    run_until_quiet();
    cr_assert_eq(spk_op_busy(&races[0].connect) + spk_op_busy(&races[1].connect) +
                     spk_op_busy(&races[2].connect),
                 1);
    x.server->backend->close_handle(x.server, listener);
    run_until_quiet();
    for (int i = 0; i < 3; i++) {
        cr_assert_not(spk_op_busy(&races[i].connect));
        x.client->backend->close_handle(x.client, handles[i]);
    }
    cr_assert_eq(races[0].result + races[1].result + races[2].result, SPOKE_ECONNREFUSED);
    cr_assert_eq(echo_close(&x, NULL, NULL), 0);
}

Test(sim, both_ends_know_who_the_other_one_is)
{
    struct sockaddr_storage near_end, far_end;
    struct spk_credentials who;
    spoke_sim_config config = calm(1);
    socklen_t near_size, far_size;

    echo_open(&x, &config, 1, 1000000);
    cr_assert_not(echo_run(&x, SPOKE_MS));
    cr_assert_eq(x.conn_count, 2);
    cr_assert_eq(
        x.client->backend->local_address(x.client, x.conns[0]->handle, &near_end, &near_size), 0);
    cr_assert_eq(x.server->backend->peer_address(x.server, x.conns[1]->handle, &far_end, &far_size),
                 0);
    cr_assert_eq(near_size, far_size);
    cr_assert_eq(memcmp(&near_end, &far_end, near_size), 0);
    cr_assert_eq(x.client->backend->peer_address(x.client, x.conns[0]->handle, &far_end, &far_size),
                 0);
    cr_assert_eq(memcmp(&far_end, &x.address, sizeof x.address), 0);
    cr_assert_eq(x.server->backend->credentials(x.server, x.conns[1]->handle, &who), 0);
    cr_assert_eq(who.pid, 2, "the second machine of the world");
    cr_assert_eq(echo_close(&x, NULL, NULL), 0);
}

/* ---- what must never be ---- */

Test(sim, a_descriptor_that_is_left_is_found)
{
    struct spoke_sim_report report;
    spoke_sim_config config = calm(1);
    int handle;

    echo_open(&x, &config, 1, 100);
    cr_assert(echo_run(&x, SPOKE_FOREVER));
    cr_assert_eq(x.client->backend->socket(x.client, AF_UNIX, &handle), 0);
    cr_assert_eq(echo_close(&x, &report, NULL), SPOKE_EBUSY);
    cr_assert_eq(report.handles_left, 1);
    cr_assert_eq(report.ops_left, 0);
    cr_assert_gt(report.events, 0);
}

Test(sim, an_operation_that_is_left_is_found)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/run/c"};
    static struct race race;
    struct spoke_sim_report report;
    spoke_sim_config config = calm(1);
    int listener;

    echo_open(&x, &config, 0, 0);
    cr_assert_eq(bind_at(AF_UNIX, &un, sizeof un, &listener), 0);
    cr_assert_eq(x.server->backend->listen(x.server, listener, 1), 0);
    spk_op_init(&race.recv, on_race_recv);
    spk_op_accept(x.server, &race.recv, listener);
    run_until_quiet();
    cr_assert_eq(echo_close(&x, &report, NULL), SPOKE_EBUSY);
    cr_assert_eq(report.ops_left, 1);
    cr_assert_eq(report.handles_left, 1);
    cr_assert_eq(report.double_completions, 0);
}

Test(sim, an_operation_that_is_used_again_in_flight_is_found)
{
    static struct race race;
    struct spoke_sim_report report;
    spoke_sim_config config = calm(1);
    int handle;

    echo_open(&x, &config, 0, 0);
    cr_assert_eq(x.client->backend->socket(x.client, AF_INET, &handle), 0);
    spk_op_init(&race.connect, on_race_connect);
    spk_op_connect(x.client, &race.connect, handle, (struct sockaddr *)&x.address,
                   sizeof x.address);
    cr_assert_eq(spoke_sim_step(x.w), 1);
    while (race.connect.state != SPK_OP_IN_FLIGHT)
        cr_assert_eq(spoke_sim_step(x.w), 1);
    spk_op_init(&race.connect, on_race_connect); /* forgets that it is in flight */
    x.client->ops_in_flight--;
    run_until_quiet();
    x.client->backend->close_handle(x.client, handle);
    cr_assert_eq(echo_close(&x, &report, NULL), SPOKE_EBUSY);
    cr_assert_eq(report.double_completions, 1);
}

Test(sim, a_closed_descriptor_is_recognised)
{
    spoke_sim_config config = calm(1);
    uint8_t byte;
    int handle;

    echo_open(&x, &config, 0, 0);
    cr_assert_eq(x.client->backend->socket(x.client, AF_UNIX, &handle), 0);
    x.client->backend->close_handle(x.client, handle);
    cr_assert_eq(x.w->misuses, 0);
    cr_assert_eq(x.client->backend->recv_now(x.client, handle, &byte, 1), SPOKE_EINVAL);
    x.client->backend->close_handle(x.client, handle);
    cr_assert_eq(x.w->misuses, 2);
    cr_assert_eq(echo_close(&x, NULL, NULL), 0);
}
