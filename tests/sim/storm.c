/* SPDX-License-Identifier: MIT */
/* Storms: storm.h. */
#include "tests/sim/storm.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/engine/sim_world.h"

#define STEPS_MOST 3000000 /* more than that is going round in circles */

/* ---- seeds ---- */

/* The command that runs the present seed again: complete, to be pasted anywhere. */
static char replay[1024];

static void
remember_replay(const char *test, uint64_t seed)
{
    char program[512];
    ssize_t size = readlink("/proc/self/exe", program, sizeof program - 1);

    program[size > 0 ? size : 0] = '\0';
    snprintf(replay, sizeof replay, "replay: SPOKE_SIM_SEED=%" PRIu64 " %s --filter 'sim_*/%s'\n",
             seed, program, test);
}

static void
on_crash(int number)
{
    if (write(STDERR_FILENO, replay, strlen(replay)) < 0)
        _exit(1);
    raise(number); /* the handler was for once */
}

static void
watch_crashes(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    struct sigaction action = {.sa_handler = on_crash,
                               .sa_flags = (int)(SA_RESETHAND | SA_NODEFER)};

    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
}

void
storm_failed(const struct storm *storm, const char *file, int line, const char *condition,
             const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    cr_assert(false,
              "%s:%d: %s: %s\n"
              "    step %" PRIu64 ", %lld ns\n%s",
              file, line, condition, text, storm->steps, (long long)spoke_sim_now(storm->w),
              replay);
}

static uint64_t
number_from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text != NULL && *text != '\0' ? strtoull(text, NULL, 10) : otherwise;
}

/* ---- what the weather has done ---- */

static struct spoke_sim_faults happened; /* in all seeds of this test */

static const struct {
    const char *name;
    size_t place;
} kinds[] = {
#define KIND(Name)                                                                                 \
    {                                                                                              \
#Name, offsetof(struct spoke_sim_faults, Name)                                             \
    }
    KIND(short_read), KIND(short_write), KIND(reset),  KIND(refuse),   KIND(delay),
    KIND(enobufs),    KIND(emfile),      KIND(enomem), KIND(overflow), KIND(cancel_race),
    KIND(reordered),  KIND(killed),      KIND(cut),
#undef KIND
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };
_Static_assert(KINDS * sizeof(uint64_t) == sizeof happened, "every kind of fault is counted");

static uint64_t *
count_of(struct spoke_sim_faults *faults, size_t kind)
{
    return (uint64_t *)(void *)((char *)faults + kinds[kind].place);
}

static void
add_faults(struct spoke_sim_faults *faults)
{
    for (size_t kind = 0; kind < KINDS; kind++)
        *count_of(&happened, kind) += *count_of(faults, kind);
}

/* Happens only where connections come and go. */
static bool
is_of_connecting(const char *kind)
{
    return strcmp(kind, "refuse") == 0 || strcmp(kind, "emfile") == 0 ||
           strcmp(kind, "cancel_race") == 0;
}

/* A fault that never happens tests nothing. */
static void
check_all_happened(bool connects)
{
    char text[512] = "";

    for (size_t kind = 0; kind < KINDS; kind++) {
        size_t used = strlen(text);

        snprintf(text + used, sizeof text - used, " %s %" PRIu64, kinds[kind].name,
                 *count_of(&happened, kind));
    }
    cr_log_info("faults:%s", text);
    for (size_t kind = 0; kind < KINDS; kind++) {
        if (connects || !is_of_connecting(kinds[kind].name))
            cr_assert_gt(*count_of(&happened, kind), 0, "%s never happened", kinds[kind].name);
    }
}

uint64_t
storm_each_seed(const char *test, uint64_t (*body)(const char *test, uint64_t seed))
{
    uint64_t only = number_from_environment("SPOKE_SIM_SEED", 0);
    uint64_t count = number_from_environment("SPOKE_SIM_SEEDS", STORM_SEEDS);

    watch_crashes();
    if (only != 0) {
        remember_replay(test, only);
        uint64_t digest = body(test, only);
        cr_log_info("%s: seed %" PRIu64 ": digest %016" PRIx64, test, only, digest);
        return 1;
    }
    for (uint64_t seed = 1; seed <= count; seed++) {
        remember_replay(test, seed);
        body(test, seed);
    }
    cr_log_info("%s: %" PRIu64 " seeds", test, count);
    return count;
}

void
storm_for_each_seed(const char *test, uint64_t (*body)(const char *test, uint64_t seed))
{
    if (storm_each_seed(test, body) >= STORM_SEEDS)
        check_all_happened(true);
}

void
storm_for_each_seed_connected(const char *test, uint64_t (*body)(const char *test, uint64_t seed))
{
    if (storm_each_seed(test, body) >= STORM_SEEDS)
        check_all_happened(false);
}

const char *
storm_replay(void)
{
    return replay;
}

static uint64_t
draw(struct storm *storm)
{
    uint64_t x = storm->random += 0x9e3779b97f4a7c15;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

uint64_t
storm_below(struct storm *storm, uint64_t bound)
{
    return draw(storm) % bound;
}

bool
storm_chance(struct storm *storm, uint32_t per_1000)
{
    return draw(storm) % 1000 < per_1000;
}

/* ---- the weather ---- */

/* Every other seed has it, up to `most` times in 1 000. */
static uint32_t
sometimes(struct storm *storm, uint32_t most)
{
    return storm_chance(storm, 500) ? 1 + (uint32_t)storm_below(storm, most) : 0;
}

static void
choose_faults(struct storm *storm)
{
    spoke_sim_config *c = &storm->config;

    c->seed = storm->seed;
    c->latency_min_ns = (spoke_ns)storm_below(storm, 20 * SPOKE_US);
    c->latency_max_ns = c->latency_min_ns + (spoke_ns)storm_below(storm, 500 * SPOKE_US);
    c->buffer_bytes = storm_chance(storm, 300)   ? 16 + (uint32_t)storm_below(storm, 500)
                      : storm_chance(storm, 500) ? 1024 + (uint32_t)storm_below(storm, 8192)
                                                 : 0;
    c->short_read = sometimes(storm, 600);
    c->short_write = sometimes(storm, 600);
    c->refuse = sometimes(storm, 300);
    c->delay = sometimes(storm, 50);
    c->enobufs = sometimes(storm, 200);
    c->emfile = sometimes(storm, 300);
    c->overflow = sometimes(storm, 50);
    c->cancel_race = sometimes(storm, 1000);
    c->reset = sometimes(storm, 10);
    c->enomem = sometimes(storm, 10);
    storm->kills = storm_chance(storm, 300);
    storm->cuts = storm_chance(storm, 300);
    /* A cut can outlast a handshake: one end gives up, the other one has sent already. */
    storm->lossless = c->reset == 0 && c->enomem == 0 && !storm->kills && !storm->cuts;
}

static void
choose_url(struct storm *storm)
{
    static const char *const urls[] = {"tcp://127.0.0.1:5555", "tcp://[::1]:5555",
                                       "ipc:///run/storm", "ipc://@storm", "inproc://storm"};

    snprintf(storm->url, sizeof storm->url, "%s",
             urls[storm_below(storm, sizeof urls / sizeof urls[0])]);
}

void
storm_open(struct storm *storm, const char *test, uint64_t seed)
{
    memset(storm, 0, sizeof *storm);
    storm->test = test;
    storm->seed = storm->random = seed;
    spoke_sim_config_init(&storm->config);
    choose_faults(storm);
    choose_url(storm);
    storm->storm_steps = 500 + storm_below(storm, 3000);
    spoke_memory_stats(&storm->before);
    cr_assert_eq(spoke_sim_open(&storm->w, &storm->config), 0);
}

static void
set_cut(struct storm *storm, int a, int b, bool cut)
{
    if (storm->machines[a] == NULL || storm->machines[b] == NULL || storm->cut[a][b] == cut)
        return;
    storm->cut[a][b] = cut;
    cr_assert_eq(spoke_sim_cut(storm->w, storm->machines[a], storm->machines[b], cut), 0);
}

static void
mend_all(struct storm *storm)
{
    for (int a = 0; a < storm->machine_count; a++)
        for (int b = a + 1; b < storm->machine_count; b++)
            set_cut(storm, a, b, false);
}

static void
change_weather(struct storm *storm)
{
    int a = (int)storm_below(storm, (uint64_t)storm->machine_count);
    int b = (int)storm_below(storm, (uint64_t)storm->machine_count);

    if (a < b)
        set_cut(storm, a, b, !storm->cut[a][b]);
}

void
storm_end(struct storm *storm)
{
    spoke_sim_config calm;

    spoke_sim_config_init(&calm);
    calm.latency_min_ns = storm->config.latency_min_ns;
    calm.latency_max_ns = storm->config.latency_max_ns;
    calm.buffer_bytes = storm->config.buffer_bytes;
    spoke_sim_set_faults(storm->w, &calm);
    mend_all(storm);
    storm->calm = true;
    storm->calm_since = spoke_sim_now(storm->w);
}

void
storm_again(struct storm *storm)
{
    spoke_sim_set_faults(storm->w, &storm->config);
    storm->calm_since = spoke_sim_now(storm->w); /* it is not, but what is left to do has as long */
}

void
storm_step(struct storm *storm)
{
    if (!storm->calm && ++storm->steps > storm->storm_steps)
        storm_end(storm);
    storm->steps += storm->calm;
    storm_holds(storm, storm->steps < STEPS_MOST, "it never ends");
    storm_holds(storm, !storm->calm || spoke_sim_now(storm->w) - storm->calm_since < STORM_CALM,
                "%lld s of calm were not enough", (long long)(STORM_CALM / SPOKE_SECOND));
    if (!storm->calm && storm->cuts && storm_chance(storm, 10))
        change_weather(storm);
    if (spoke_sim_step(storm->w) == 0 && !storm->calm)
        mend_all(storm); /* else it would be quiet until the end */
}

void
storm_pass(struct storm *storm, spoke_ns time)
{
    storm->steps++;
    if (!storm->calm && storm->cuts && storm_chance(storm, 50))
        change_weather(storm);
    (void)spoke_sim_run(storm->w, NULL, NULL, time);
}

/* ---- machines ---- */

int
storm_machine(struct storm *storm)
{
    int machine = storm->machine_count++;

    cr_assert_lt(machine, STORM_MACHINES);
    cr_assert_eq(spoke_sim_engine(storm->w, &storm->machines[machine]), 0);
    return machine;
}

void
storm_kill(struct storm *storm, int machine)
{
    int rc = spoke_sim_kill(storm->w, storm->machines[machine]);

    storm_holds(storm, rc == 0, "%s", spoke_strerror(rc));
    storm->machines[machine] = NULL;
}

static bool
is_shortage(int rc)
{
    return rc == SPOKE_ENOMEM || rc == SPOKE_EMFILE;
}

spoke_socket *
storm_socket(struct storm *storm, int machine, int pattern)
{
    spoke_socket *s;
    int rc;

    while ((rc = spoke_socket_open(&s, pattern, storm->machines[machine])) != 0)
        storm_holds(storm, is_shortage(rc), "%s", spoke_strerror(rc));
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECONNECT, SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECONNECT_MAX, 20 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, 2 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_SEND_TIMEOUT, 2 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 100 * SPOKE_MS), 0);
    return s;
}

uint64_t
storm_close(struct storm *storm)
{
    uint64_t digest = spoke_sim_digest(storm->w), misuses = storm->w->misuses;
    struct spoke_sim_report report;
    struct spoke_memory_stats after;
    int rc;

    storm_holds(storm, misuses == 0, "%" PRIu64 " calls on closed descriptors", misuses);
    rc = spoke_sim_close(storm->w, &report);
    cr_assert_eq(rc, 0,
                 "%" PRIu64 " operations and %" PRIu64 " descriptors left, %" PRIu64
                 " double completions\n%s",
                 report.ops_left, report.handles_left, report.double_completions, replay);
    add_faults(&report.faults);
    spoke_memory_stats(&after);
    cr_assert(after.messages == storm->before.messages && after.chunks == storm->before.chunks,
              "%" PRId64 " messages and %" PRId64 " chunks left\n%s",
              (int64_t)(after.messages - storm->before.messages),
              (int64_t)(after.chunks - storm->before.chunks), replay);
    return digest;
}

/* ---- bodies ---- */

static uint8_t
byte_of(const struct storm_label *label, size_t place)
{
    return (uint8_t)(label->kind + label->from * 31 + label->number * 7 + place * 13 + place / 256);
}

spoke_msg *
storm_message(struct storm_label label)
{
    spoke_msg *m;
    uint8_t *body;

    if (spoke_msg_new(&m, sizeof label + label.size) != 0)
        return NULL;
    body = spoke_msg_body(m);
    memcpy(body, &label, sizeof label);
    for (size_t i = 0; i < label.size; i++)
        body[sizeof label + i] = byte_of(&label, i);
    return m;
}

struct storm_label
storm_check(struct storm *storm, const spoke_msg *m)
{
    const uint8_t *body = spoke_msg_body(m);
    size_t size = spoke_msg_size(m);
    struct storm_label label;

    storm_holds(storm, size >= sizeof label, "a body of %zu bytes", size);
    storm_holds(storm, spoke_msg_header_size(m) == 0, "a header of %zu bytes",
                spoke_msg_header_size(m));
    memcpy(&label, body, sizeof label);
    storm_holds(storm, size == sizeof label + label.size, "%zu bytes instead of %zu", size,
                sizeof label + label.size);
    for (size_t i = sizeof label; i < size; i++)
        storm_holds(storm, body[i] == byte_of(&label, i - sizeof label),
                    "byte %zu of %zu of message %u from %u is wrong", i, size, label.number,
                    label.from);
    return label;
}

uint32_t
storm_size(struct storm *storm)
{
    if (storm_chance(storm, 20))
        return (uint32_t)storm_below(storm, 40000);
    return (uint32_t)storm_below(storm, storm_chance(storm, 200) ? 3000 : 100);
}
