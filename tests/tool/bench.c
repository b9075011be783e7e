/* SPDX-License-Identifier: MIT */
/* spoke bench from the outside: what it prints, what it leaves behind, and that a wrong byte is no
 * result. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/test.h"

enum { OUTPUT_MAX = 256 * 1024, VALUE_MAX = 64 };

/* ---- running it ---- */

/* Run a shell command; its standard output goes to `out`.  Returns its exit code. */
static int
run(char *out, const char *command)
{
    FILE *f = popen(command, "re");
    size_t n;
    int status;

    cr_assert_not_null(f);
    n = fread(out, 1, OUTPUT_MAX - 1, f);
    out[n] = '\0';
    status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char output[OUTPUT_MAX];

/* The directory of the benchmark programs; the test is left out where they are not built. */
static void
need_programs(char dir[4096])
{
    char path[4200], *slash;
    const char *env = getenv("SPOKE_BENCH_DIR");

    snprintf(dir, 4096, "%s", SPOKE_TOOL);
    slash = strrchr(dir, '/');
    snprintf(slash, 4096 - (size_t)(slash - dir), "/../libexec/spoke");
    if (env != NULL)
        snprintf(dir, 4096, "%s", env);
    snprintf(path, sizeof path, "%s/bench-spoke", dir);
    if (access(path, X_OK) != 0)
        cr_skip_test("%s is not built", path);
}

/* ---- a strict reader for arrays of flat objects ---- */

struct json {
    const char *p;
    bool ok;
};

static void
skip_space(struct json *j)
{
    while (*j->p != '\0' && strchr(" \t\r\n", *j->p) != NULL)
        j->p++;
}

static bool
take(struct json *j, char c)
{
    skip_space(j);
    if (*j->p != c)
        return false;
    j->p++;
    return true;
}

static void
expect(struct json *j, char c)
{
    j->ok &= take(j, c);
}

/* A string without escapes, a number or null, as text; strings keep their quotes. */
static void
read_value(struct json *j, char value[VALUE_MAX])
{
    size_t n = 0;
    char *end;

    skip_space(j);
    if (*j->p == '"') {
        do
            value[n++] = *j->p++;
        while (*j->p != '"' && *j->p >= ' ' && *j->p != '\\' && n < VALUE_MAX - 2);
        j->ok &= *j->p == '"';
        value[n++] = '"';
        j->p += j->ok;
    } else if (strncmp(j->p, "null", 4) == 0) {
        memcpy(value, "null", n = 4);
        j->p += 4;
    } else {
        (void)strtod(j->p, &end);
        n = (size_t)(end - j->p);
        j->ok &= n > 0 && n < VALUE_MAX && (isdigit((unsigned char)*j->p) || *j->p == '-');
        n = j->ok ? n : 0;
        memcpy(value, j->p, n);
        j->p += n;
    }
    value[n] = '\0';
}

static const char *const keys[] = {"bench",
                                   "impl",
                                   "transport",
                                   "mode",
                                   "wait",
                                   "size",
                                   "metric",
                                   "unit",
                                   "median",
                                   "min",
                                   "max",
                                   "p50",
                                   "p99",
                                   "p999",
                                   "cpu_us_per_msg",
                                   "ratio_raw",
                                   "ratio_best_peer",
                                   "ratio_beside",
                                   "cpu_us_per_mib"};
enum {
    KEYS = sizeof keys / sizeof *keys,
    KEY_IMPL = 1,
    KEY_MEDIAN = 8,
    KEY_MIN,
    KEY_MAX,
    KEY_CPU = 14,
    KEY_RATIO
};

/* One object, with exactly our keys in our order. */
static void
read_object(struct json *j, char values[KEYS][VALUE_MAX])
{
    expect(j, '{');
    for (int i = 0; i < KEYS && j->ok; i++) {
        char key[VALUE_MAX], quoted[VALUE_MAX];
        if (i > 0)
            expect(j, ',');
        read_value(j, key);
        snprintf(quoted, sizeof quoted, "\"%s\"", keys[i]);
        j->ok &= strcmp(key, quoted) == 0;
        expect(j, ':');
        read_value(j, values[i]);
    }
    expect(j, '}');
}

/* Read the whole output; counts rows of the raw kernel and of spoke.  False if it is not as
 * documented. */
static bool
read_rows(const char *text, int *raw, int *spoke)
{
    struct json j = {text, true};

    *raw = *spoke = 0;
    expect(&j, '[');
    do {
        char values[KEYS][VALUE_MAX];
        double median, min, max;
        read_object(&j, values);
        if (!j.ok)
            break;
        *raw += strcmp(values[KEY_IMPL], "\"raw\"") == 0;
        *spoke += strcmp(values[KEY_IMPL], "\"spoke\"") == 0;
        median = strtod(values[KEY_MEDIAN], NULL);
        min = strtod(values[KEY_MIN], NULL);
        max = strtod(values[KEY_MAX], NULL);
        j.ok &= min > 0 && min <= median && median <= max && strtod(values[KEY_RATIO], NULL) > 0;
    } while (j.ok && take(&j, ','));
    expect(&j, ']');
    skip_space(&j);
    return j.ok && *j.p == '\0';
}

/* How often these words are there. */
static int
count_words(const char *text, const char *words)
{
    int n = 0;

    for (const char *p = text; (p = strstr(p, words)) != NULL; p++)
        n++;
    return n;
}

/* Rows with this beginning. */
static int
count_rows(const char *text, const char *bench)
{
    char begin[64];

    snprintf(begin, sizeof begin, "{\"bench\":\"%s\",", bench);
    return count_words(text, begin);
}

/* ---- tests ---- */

Test(bench, round_trips_are_written_as_json, .timeout = 200)
{
    char dir[4096];
    int raw, spoke;

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench latency --transport ipc,tcp,inproc,shm --wait block --pairs 1 "
                     "--seconds 0.1 --json -"),
                 0, "%s", output);
    cr_assert(read_rows(output, &raw, &spoke), "%s", output);
    cr_assert_eq(raw, 4);
    cr_assert_eq(spoke, 8);
    cr_assert_eq(count_words(output, "\"impl\":\"spoke-sockets\",\"transport\":\"ipc\""), 4,
                 "beside ipc and beside shm: %s", output);
}

Test(bench, streams_are_written_as_json, .timeout = 200)
{
    char dir[4096];
    int raw, spoke;

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench throughput --transport ipc,inproc,shm --wait adaptive --size 64,64K "
                     "--pairs 1 --seconds 0.1 --json -"),
                 0, "%s", output);
    cr_assert(read_rows(output, &raw, &spoke), "%s", output);
    cr_assert_eq(raw, 6);
    cr_assert_eq(spoke, 15); /* 64 B: owned, owned in batches, shared; 64 KiB: owned, shared */
    cr_assert_eq(count_words(output, "\"impl\":\"spoke-sockets\",\"transport\":\"ipc\""), 10,
                 "beside ipc and beside shm: %s", output);
}

Test(bench, fan_out_is_measured_for_each_number_of_subscribers, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(
        run(output, SPOKE_TOOL
            " bench fanout --transport inproc,ipc,tcp,shm --wait block --subscribers 1,100 "
            "--pairs 1 --seconds 0.1 --json -"),
        0, "%s", output);
    /* ipc and shm, each beside plain sockets, and tcp; owned and shared, and owned in batches. */
    cr_assert_eq(count_rows(output, "fanout-1"), 10, "%s", output);
    cr_assert_eq(count_rows(output, "fanout-1-batch"), 5, "%s", output);
    cr_assert_eq(count_rows(output, "fanout-100"), 10, "%s", output);
    cr_assert_eq(count_rows(output, "fanout-100-batch"), 5, "%s", output);
    cr_assert_null(strstr(output, "\"median\":null"), "%s", output);
}

Test(bench, pipelines_are_measured_with_small_and_lent_bodies, .timeout = 200)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench pipeline --transport ipc --wait adaptive --size 64,64K --pairs 1 "
                     "--seconds 0.1 --json -"),
                 0, "%s", output);
    cr_assert_eq(count_rows(output, "pipeline"), 8, "%s", output);
    cr_assert_eq(count_rows(output, "pipeline-batch"), 2, "%s", output);
    cr_assert_null(strstr(output, "\"median\":null"), "%s", output);
}

Test(bench, bus_and_star_are_measured, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench bus --transport inproc,ipc,tcp --wait block --pairs 1 --seconds 0.1 "
                     "--peers --json -"),
                 0, "%s", output);
    /* ipc, also by plain sockets, and tcp; owned and shared, and owned in batches. */
    cr_assert_eq(count_rows(output, "bus-10"), 6, "%s", output);
    cr_assert_eq(count_rows(output, "bus-10-batch"), 3, "%s", output);
    cr_assert_eq(count_rows(output, "star-10"), 6, "%s", output);
    cr_assert_eq(count_rows(output, "star-10-batch"), 3, "%s", output);
    cr_assert_null(strstr(output, "\"median\":null"), "%s", output);
}

Test(bench, surveys_are_measured_in_every_mode_and_wait, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench survey --transport ipc,tcp --pairs 1 --seconds 0.1 --json -"),
                 0, "%s", output);
    cr_assert_eq(count_rows(output, "survey-10"), 18, "%s", output);
    cr_assert_null(strstr(output, "\"median\":null"), "%s", output);
}

/* Whether programs made for libnanomsg can be measured on ours. */
static bool
stands_in(const char *dir)
{
    char path[4200];

    snprintf(path, sizeof path, "%s/bench-peer-nanomsg", dir);
    if (access(path, X_OK) != 0)
        return false;
    snprintf(path, sizeof path, "%s/../../lib/spoke/nanomsg/libnanomsg.so.5", dir);
    return access(path, R_OK) == 0;
}

/* The same program, once on its own library and once on ours, and the targets that compare them. */
Test(bench, a_program_made_for_nanomsg_runs_on_both_libraries, .timeout = 300)
{
    static const char *const works[][2] = {{"latency", "at most 0.5"},
                                           {"throughput", "at least 3"}};
    char dir[4096], command[512];

    need_programs(dir);
    if (!stands_in(dir))
        cr_skip_test("nanomsg, or what stands in for it, is not built");
    for (int i = 0; i < 2; i++) {
        snprintf(command, sizeof command,
                 SPOKE_TOOL " bench %s --transport ipc --wait adaptive --mode shared --size 64 "
                            "--pairs 1 --seconds 0.1 --peers --json - 2>&1",
                 works[i][0]);
        cr_assert_eq(run(output, command), 0, "%s", output);
        cr_assert_not_null(strstr(output, "\"impl\":\"nanomsg\""), "%s", output);
        cr_assert_not_null(strstr(output, "\"impl\":\"spoke-nanomsg\""), "%s", output);
        cr_assert_not_null(strstr(output, "  P16 "), "%s", output);
        cr_assert_not_null(strstr(output, works[i][1]), "%s", output);
    }
}

/* What the loader finds first is not always what its name says. */
Test(bench, a_library_under_the_name_of_another_is_noticed, .timeout = 200)
{
    char dir[4096], command[6000];

    need_programs(dir);
    if (!stands_in(dir))
        cr_skip_test("nanomsg, or what stands in for it, is not built");
    snprintf(command, sizeof command,
             "LD_LIBRARY_PATH=%s/../../lib/spoke/nanomsg " SPOKE_TOOL
             " bench latency --transport ipc --wait block --mode shared --pairs 1 --seconds 0.1 "
             "--peers 2>&1",
             dir);
    cr_assert_eq(run(output, command), 3, "%s", output);
    cr_assert_not_null(strstr(output, "bench-peer-nanomsg did not run on nanomsg"), "%s", output);
}

/* Whoever is measured must lose nothing, also where bodies are lent or the peers are many. */
Test(bench, other_libraries_have_the_patterns_too, .timeout = 300)
{
    static const char *const programs[] = {"zeromq", "nng", "nanomsg"};
    char dir[4096], path[4200];
    int peers = 0, with_pub = 0, has_zeromq = 0, has_stand_in;

    need_programs(dir);
    has_stand_in = stands_in(dir);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/bench-peer-%s", dir, programs[i]);
        if (access(path, X_OK) != 0)
            continue;
        peers++;
        with_pub += i < 2;
        has_zeromq += i == 0;
    }
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench pipeline --transport ipc --wait block --mode shared --pairs 1 "
                     "--size 64 --seconds 0.1 --peers --json -"),
                 0, "%s", output);
    cr_assert_eq(count_rows(output, "pipeline"), 2 + peers + has_stand_in, "%s", output);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench survey --transport ipc --wait block --mode shared --pairs 1 "
                     "--size 64 --seconds 0.1 --peers --json -"),
                 0, "%s", output);
    cr_assert_eq(count_rows(output, "survey-10"), 2 + peers - has_zeromq + has_stand_in, "%s",
                 output);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench fanout --transport ipc --wait block --mode shared --pairs 1 "
                     "--subscribers 10 --size 64,64K --seconds 0.1 --peers --json -"),
                 0, "%s", output);
    cr_assert_eq(count_rows(output, "fanout-10"), 2 * (2 + with_pub), "%s", output);
}

/* No pattern may be slower than the best of them: that is judged at three sizes. */
Test(bench, patterns_are_judged_beside_other_libraries, .timeout = 300)
{
    static const char *const sizes[] = {"64 B", "1 KiB", "64 KiB"};
    char dir[4096], path[4200], verdict[80];

    need_programs(dir);
    snprintf(path, sizeof path, "%s/bench-peer-zeromq", dir);
    if (access(path, X_OK) != 0)
        cr_skip_test("%s is not built", path);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench pipeline --transport ipc --wait block --mode owned --pairs 1 "
                     "--seconds 0.1 --peers"),
                 0, "%s", output);
    for (int i = 0; i < 3; i++) {
        const char *p = output;
        int found = 0;
        snprintf(verdict, sizeof verdict, "PUSH to PULL, ipc, %s, owned,", sizes[i]);
        while ((p = strstr(p, "  P18 ")) != NULL)
            found += strncmp(p++ + strlen("  P18  MISSED  "), verdict, strlen(verdict)) == 0;
        cr_assert_eq(found, i < 2 ? 2 : 1, "%s: %s", sizes[i], output);
    }
}

Test(bench, the_page_is_one_file_with_drawings_and_no_scripts, .timeout = 200)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench latency --transport ipc --wait block --pairs 1 --seconds 0.1 "
                     "--html -"),
                 0);
    cr_assert_not_null(strstr(output, "<!DOCTYPE html>"));
    cr_assert_not_null(strstr(output, "<svg "));
    cr_assert_not_null(strstr(output, "</html>"));
    cr_assert_null(strstr(output, "<script"));
    cr_assert_null(strstr(output, "http"));
    cr_assert_null(strstr(output, "nan"));
}

/* By which way a message goes: nothing moves into shared memory where it must not, everything does
 * where it should. */
Test(bench, plain_sockets_are_judged_and_what_has_moved_is_shown, .timeout = 200)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output,
                     "SPOKE_UPGRADE=off " SPOKE_TOOL
                     " bench latency --transport ipc,shm --wait block --mode owned --pairs 1 "
                     "--seconds 0.1"),
                 0, "%s", output);
    cr_assert_not_null(strstr(output, "  spoke owned "), "%s", output);
    cr_assert_not_null(strstr(output, "  spoke-sockets owned "), "%s", output);
    cr_assert_eq(count_words(output, "  P1   "), 1, "%s", output);
    cr_assert_eq(count_words(output, "  P6   "), 1, "%s", output);
    cr_assert_eq(count_words(output, "  P20  "), 1, "%s", output);
}

/* Memory that is lent must not be sent before it is written, nor taken back while it is read: every
 * message is checked. */
Test(bench, loans_are_measured_beside_small_ones, .timeout = 200)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench loan --transport ipc,shm --wait poll --pairs 1 --seconds 0.2 --json - "
                     "2>&1"),
                 0, "%s", output);
    /* owned and shared, each with 1 MiB and 64 bytes. */
    cr_assert_eq(count_rows(output, "loan"), 4, "%s", output);
    cr_assert_eq(count_words(output, "\"size\":64,"), 2, "%s", output);
    cr_assert_eq(count_words(output, "\"ratio_beside\":null"), 2, "%s", output);
    cr_assert_eq(count_words(output, "  P7   "), 1, "owned only: %s", output);
}

/* One drawing for each waiting policy. */
Test(bench, the_page_shows_from_which_size_shared_memory_pays, .timeout = 200)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench latency --transport shm --wait block,poll --mode owned --size 64,64K "
                     "--pairs 1 --seconds 0.1 --html -"),
                 0);
    cr_assert_eq(count_words(output, "round trip, block: cost of a message"), 1, "%s", output);
    cr_assert_eq(count_words(output, "round trip, poll: cost of a message"), 1, "%s", output);
    cr_assert_null(strstr(output, "nan"));
}

/* Over everything, by both kinds of engine; in memory also without copies. */
Test(bench, byte_streams_are_measured, .timeout = 300)
{
    char dir[4096];
    int raw, spoke;

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench stream --transport inproc,ipc,tcp,shm --wait block --size 64 "
                     "--pairs 1 --seconds 0.05 --json -"),
                 0, "%s", output);
    cr_assert(read_rows(output, &raw, &spoke), "%s", output);
    cr_assert_eq(raw, 8);
    cr_assert_eq(spoke, 20);
    cr_assert_eq(count_rows(output, "stream-trip"), 12, "%s", output);
    cr_assert_eq(count_rows(output, "stream-rate"), 12, "%s", output);
    cr_assert_eq(count_rows(output, "stream-rate-chunks"), 4, "%s", output);
    cr_assert_eq(count_words(output, "\"cpu_us_per_mib\":null"), 12, "round trips: %s", output);
    cr_assert_eq(count_words(output, "\"ratio_beside\":null"), 12 + 4, "and raw: %s", output);
}

/* The number before " x raw at its best" in the verdict on a mode; NAN if there is not just one. */
static double
verdict_on(const char *mode)
{
    char words[32], *p = output;
    double value = NAN;

    snprintf(words, sizeof words, ", %s, wait ", mode);
    while ((p = strstr(p, "  S2   ")) != NULL) {
        char *end = strchr(p, '\n'), *found = strstr(p, words);
        if (found != NULL && found < end) {
            if (!isnan(value))
                return NAN;
            value = strtod(strchr(found, ':') + 1, &found);
            if (strncmp(found, " x raw at its best", strlen(" x raw at its best")) != 0)
                return NAN;
        }
        p = end;
    }
    return value;
}

/* The largest ratio to raw of any row of a stream's rate in a mode. */
static double
best_ratio(const char *mode)
{
    static const char key[] = "\"ratio_raw\":";
    char begin[64], *p = output;
    double best = 0;

    snprintf(begin, sizeof begin, "\"impl\":\"spoke\",\"transport\":\"ipc\",\"mode\":\"%s\"", mode);
    while ((p = strstr(p, "{\"bench\":\"stream-rate")) != NULL) {
        char *end = strchr(p, '}'), *row = strstr(p, begin);
        if (row != NULL && row < end) {
            double ratio = strtod(strstr(row, key) + strlen(key), NULL);
            best = ratio > best ? ratio : best;
        }
        p = end;
    }
    return best;
}

/* One verdict for each mode, on its best size. */
Test(bench, a_stream_is_judged_at_its_best_size, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench stream --transport ipc --wait adaptive --size 64,64K --pairs 1 "
                     "--seconds 0.05 --json - 2>&1"),
                 0, "%s", output);
    cr_assert_eq(count_words(output, "  S1   "), 2, "only of 64 bytes: %s", output);
    cr_assert_eq(count_words(output, "  S2   "), 2, "%s", output);
    for (int i = 0; i < 2; i++) {
        const char *mode = i == 0 ? "owned" : "shared";
        double best = best_ratio(mode);
        cr_assert_gt(best, 0);
        cr_assert_lt(fabs(verdict_on(mode) - best), best / 100, "%s: %g: %s", mode, best, output);
    }
    cr_assert_eq(count_words(output, "  64 KiB    raw, "), 1, "the fastest of four: %s", output);
}

Test(bench, the_page_shows_streams_by_the_size_of_a_call, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench stream --transport shm --wait poll --mode owned --size 64,64K "
                     "--pairs 1 --seconds 0.05 --html -"),
                 0);
    cr_assert_eq(count_words(output, "shm, poll: by size of what is written in a call"), 1, "%s",
                 output);
    cr_assert_eq(count_words(output, "cost of a message in shared memory"), 0, "%s", output);
    cr_assert_null(strstr(output, "nan"));
}

/* One stream and many, and what opening and idling costs, each beside the carrier or a limit. */
Test(bench, multiplexers_are_measured_beside_their_carriers, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench mux --transport inproc,ipc --wait block --size 64K --connections 50 "
                     "--pairs 1 --seconds 0.05 --json - 2>&1"),
                 0, "%s", output);
    cr_assert_null(strstr(output, "\"median\":null"), "%s", output);
    cr_assert_eq(count_rows(output, "mux-trip"), 8, "both modes, carrier and mux: %s", output);
    cr_assert_eq(count_rows(output, "mux-open"), 4, "%s", output);
    cr_assert_eq(count_rows(output, "mux-rate"), 8, "%s", output);
    cr_assert_eq(count_rows(output, "mux-rate-chunks"), 4, "in memory: %s", output);
    cr_assert_eq(count_rows(output, "mux-1000"), 8, "rate and share: %s", output);
    cr_assert_eq(count_rows(output, "mux-opens"), 4, "%s", output);
    cr_assert_eq(count_rows(output, "mux-idle"), 4, "both ends, between processes: %s", output);
    cr_assert_eq(count_rows(output, "mux-active"), 4, "the same: %s", output);
    cr_assert_eq(count_words(output, "\"impl\":\"carrier\""), 10, "%s", output);
    /* Every target has its verdict on each row. */
    cr_assert_eq(count_words(output, "  M1   "), 6, "%s", output);
    cr_assert_eq(count_words(output, "  M2   "), 4, "%s", output);
    cr_assert_eq(count_words(output, "  M3   "), 4, "%s", output);
    cr_assert_eq(count_words(output, "  M4   "), 4, "%s", output);
    cr_assert_eq(count_words(output, "  M5   "), 4, "%s", output);
    cr_assert_eq(count_words(output, "  M6   "), 4, "%s", output);
    cr_assert_eq(count_words(output, "  M7   "), 4, "%s", output);
}

/* Beside a stream of a mux, and ports beside them. */
Test(bench, channels_are_measured_beside_streams_of_a_mux, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL " bench channel --transport inproc,ipc --wait block "
                                        "--pairs 1 --seconds 0.05 --json - 2>&1"),
                 0, "%s", output);
    cr_assert_null(strstr(output, "\"median\":null"), "%s", output);
    cr_assert_eq(count_rows(output, "channel-trip"), 8, "both modes, mux and channel: %s", output);
    cr_assert_eq(count_rows(output, "channel-rate"), 8, "%s", output);
    cr_assert_eq(count_rows(output, "port-trip"), 4, "%s", output);
    cr_assert_eq(count_rows(output, "port-rate"), 4, "%s", output);
    cr_assert_eq(count_rows(output, "channel-pair-64"), 1, "in the process: %s", output);
    cr_assert_eq(count_rows(output, "channel-pair-1024"), 1, "%s", output);
    cr_assert_eq(count_words(output, "\"ratio_raw\":null"), 2, "all but the pairs: %s", output);
    /* Every target has its verdict on each row. */
    cr_assert_eq(count_words(output, "  C1   "), 4, "%s", output);
    cr_assert_eq(count_words(output, "  C2   "), 2, "%s", output);
    cr_assert_eq(count_words(output, "  C3   "), 8, "%s", output);
}

/* Of the sizes of a call the best one is shown, and judged. */
Test(bench, a_mux_is_judged_at_its_best_size, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench mux --transport ipc --wait block --mode owned --size 64,64K "
                     "--connections 50 --pairs 1 --seconds 0.5 --json - 2>&1"),
                 0, "%s", output);
    cr_assert_eq(count_rows(output, "mux-rate"), 2, "%s", output);
    cr_assert_eq(count_words(output, "  M1   "), 1, "%s", output);
    /* However slow the machine: a call for 64 bytes costs more for each. */
    cr_assert_not_null(strstr(output, "one stream of a mux, ipc, 64 KiB, owned"), "%s", output);
}

/* What a row says of connections; 0 without it. */
static double
median_of(const char *impl, const char *metric)
{
    char begin[128], word[64];
    const char *p = output;

    snprintf(begin, sizeof begin, "{\"bench\":\"connections\",\"impl\":\"%s\",", impl);
    snprintf(word, sizeof word, "\"metric\":\"%s\"", metric);
    while ((p = strstr(p, begin)) != NULL) {
        const char *end = strchr(p, '}'), *at = strstr(p, word);
        if (at != NULL && end != NULL && at < end && (at = strstr(at, "\"median\":")) != NULL)
            return strtod(at + strlen("\"median\":"), NULL);
        p++;
    }
    return 0;
}

/* Beside a program that has only OpenSSL, and our own tcp. */
Test(bench, tls_is_measured_beside_openssl, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output,
                     SPOKE_TOOL " bench throughput --transport tls+tcp --wait block --size 64,64K "
                                "--pairs 1 --seconds 0.05 --json - 2>&1"),
                 0, "%s", output);
    cr_assert_null(strstr(output, "\"median\":null"), "%s", output);
    cr_assert_eq(count_words(output, "\"impl\":\"raw\",\"transport\":\"tls+tcp\""), 2, "%s",
                 output);
    cr_assert_eq(count_words(output, "\"impl\":\"spoke\",\"transport\":\"tls+tcp\""), 5, "%s",
                 output);
    cr_assert_eq(count_words(output, "\"impl\":\"spoke-tcp\",\"transport\":\"tcp\""), 5, "%s",
                 output);
    cr_assert_eq(count_words(output, "  N1   "), 2, "of 64 KiB, both modes: %s", output);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench latency --transport tls+tcp,wss --pairs 1 --seconds 0.05 --json - "
                     "2>&1"),
                 0, "%s", output);
    cr_assert_eq(count_words(output, "\"impl\":\"raw\",\"transport\":\"tls+tcp\""), 6,
                 "what is below wss stands for it: %s", output);
    cr_assert_eq(count_words(output, "\"impl\":\"spoke-tls\""), 6, "%s", output);
    cr_assert_eq(count_words(output, "  N2   "), 6, "each mode and wait: %s", output);
}

Test(bench, handshakes_are_measured, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL " bench handshake --pairs 1 --seconds 0.1 --json - 2>&1"),
                 0, "%s", output);
    cr_assert_null(strstr(output, "\"median\":null"), "%s", output);
    cr_assert_eq(count_rows(output, "handshake"), 3, "raw and both modes: %s", output);
    cr_assert_eq(count_rows(output, "resumption"), 3, "%s", output);
    cr_assert_eq(count_words(output, "  N3   "), 4, "%s", output);
}

/* A server that gives no tickets, and a client that counts on them. */
Test(bench, a_handshake_that_is_not_resumed_is_noticed, .timeout = 200)
{
    static const char *const programs[] = {"bench-spoke", "bench-raw-tls"};
    char dir[4096], command[20000];

    need_programs(dir);
    for (int i = 0; i < 2; i++) {
        snprintf(command, sizeof command,
                 "d=$(mktemp -d) && %s/bench-identity $d/id || exit 98; : >$d/ready; "
                 "a=\"--transport tls+tcp --identity $d/id --watchdog 20\"; "
                 "%s/%s --role server --bench handshakes --address tls+tcp://127.0.0.1:0 $a "
                 ">$d/ready 2>/dev/null & p=$!; "
                 "while ! grep -q READY $d/ready; do sleep 0.02; done; "
                 "%s/%s --role client --bench resumptions --count 3 $a --address "
                 "$(sed -n 's/^READY //p' $d/ready) 2>&1; rc=$?; kill $p; rm -r $d; exit $rc",
                 dir, dir, programs[i], dir, programs[i]);
        cr_assert_eq(run(output, command), 1, "%s: %s", programs[i], output);
        cr_assert_not_null(strstr(output, "connection 1: the session did not go on"), "%s: %s",
                           programs[i], output);
    }
}

/* A key and a certificate exist as long as the run. */
Test(bench, leaves_no_certificate_behind, .timeout = 200)
{
    char dir[4096], command[16000];

    need_programs(dir);
    snprintf(command, sizeof command,
             "d=$(mktemp -d) && ln -s %s/* $d && rm $d/bench-identity && "
             "printf '#!/bin/sh\necho $1 >'$d'/where\nexec %s/bench-identity $1\n' "
             ">$d/bench-identity && chmod +x $d/bench-identity && SPOKE_BENCH_DIR=$d " SPOKE_TOOL
             " bench latency --transport tls+tcp --wait block --mode owned --pairs 1 --seconds 0.1 "
             "2>&1; rc=$?; test -s $d/where && test ! -e $(cat $d/where) && "
             "test ! -e $(dirname $(cat $d/where)) || rc=99; rm -r $d; exit $rc",
             dir, dir);
    cr_assert_eq(run(output, command), 0, "%s", output);
}

/* Beside our own tcp, and other libraries over ws. */
Test(bench, frames_of_websocket_are_measured_beside_tcp, .timeout = 300)
{
    static const char *const programs[] = {"nng", "nanomsg"};
    char dir[4096], path[4200], peer[64];
    int peers = 0;

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench throughput --transport ws --wait block --size 64 --pairs 1 --seconds "
                     "0.05 --peers --json - 2>&1"),
                 0, "%s", output);
    cr_assert_null(strstr(output, "\"median\":null"), "%s", output);
    cr_assert_eq(count_words(output, "\"impl\":\"raw\",\"transport\":\"tcp\""), 1, "%s", output);
    cr_assert_eq(count_words(output, "\"impl\":\"spoke-tcp\",\"transport\":\"tcp\""), 3, "%s",
                 output);
    cr_assert_eq(count_words(output, "  N4   "), 3, "both modes, and batches: %s", output);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/bench-peer-%s", dir, programs[i]);
        if (access(path, X_OK) != 0)
            continue;
        peers++;
        snprintf(peer, sizeof peer, "\"impl\":\"%s\",\"transport\":\"ws\"", programs[i]);
        cr_assert_eq(count_words(output, peer), 1, "%s", output);
    }
    cr_assert_eq(count_words(output, "  N5   "), peers > 0 ? 3 : 0, "%s", output);
}

/* What a connection of wss keeps: at the very least OpenSSL's own part. */
Test(bench, growth_is_measured_over_wss, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench connections --transport wss --mode owned --connections 100 --pairs 1 "
                     "--seconds 0.1 --json - 2>&1"),
                 0, "%s", output);
    cr_assert_eq(count_rows(output, "connections"), 4, "%s", output);
    cr_assert_eq(count_rows(output, "pipes-1000"), 1, "%s", output);
    cr_assert_null(strstr(output, "\"median\":null"), "%s", output);
    cr_assert_gt(median_of("spoke", "memory_per_connection"), 4096, "%s", output);
    cr_assert_eq(count_words(output, "  N6   "), 1, "%s", output);
}

Test(bench, growth_is_measured_with_few_connections_too, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench connections --transport ipc --mode owned --connections 50 --pairs 1 "
                     "--seconds 0.1"),
                 0, "%s", output);
    cr_assert_not_null(strstr(output, "memory_per_connection"));
    cr_assert_not_null(strstr(output, "pipes-1000"));
    cr_assert_not_null(strstr(output, "cpu_growth"));
    cr_assert_not_null(strstr(output, "  P15  "), "%s", output);
    cr_assert_not_null(strstr(output, "  P19  "), "%s", output);
}

/* A connection in shared memory has a half at each end, of two pages and a first piece of its ring
 * of 16 KiB, and both count; one that is a socket has none. */
Test(bench, growth_is_measured_of_sockets_and_of_what_has_moved, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench connections --transport ipc --mode owned --connections 200 --pairs 1 "
                     "--seconds 0.1 --json -"),
                 0, "%s", output);
    cr_assert_eq(count_rows(output, "connections"), 8, "%s", output);
    cr_assert_null(strstr(output, "\"median\":null"), "%s", output);
    cr_assert_gt(median_of("spoke", "memory_per_connection"), 0, "%s", output);
    cr_assert_gt(median_of("spoke-moved", "memory_per_connection"),
                 median_of("spoke", "memory_per_connection") + 44 * 1024, "%s", output);
    cr_assert_gt(median_of("spoke-moved", "round_trip_many"), 0, "%s", output);
    cr_assert_eq(count_rows(output, "pipes-1000"), 1, "%s", output);
}

/* Their memory is in pages that two processes share, and counts. */
Test(bench, growth_is_measured_in_shared_memory, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench connections --transport shm --mode owned --connections 50 --pairs 1 "
                     "--seconds 0.1 --json -"),
                 0, "%s", output);
    cr_assert_eq(count_rows(output, "connections"), 4, "%s", output);
    cr_assert_eq(count_rows(output, "pipes-1000"), 1, "%s", output);
    cr_assert_null(strstr(output, "\"median\":null"), "%s", output);
    cr_assert_null(strstr(output, "\"median\":0,"), "%s", output);
}

Test(bench, subscriptions_cost_both_sides_something, .timeout = 300)
{
    static const char *const metrics[] = {"sub_cpu_match", "sub_cpu_miss", "pub_cpu_match",
                                          "pub_cpu_miss"};
    static const char *const names[] = {"subscriptions-1", "subscriptions-100",
                                        "subscriptions-10000", "subscriptions-100000"};
    char dir[4096], metric[64];

    need_programs(dir);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench subscriptions --transport inproc,ipc,tcp --wait block --mode owned "
                     "--pairs 1 --seconds 0.05 --json -"),
                 0, "%s", output);
    for (int i = 0; i < 4; i++) {
        const char *p = output;
        int found = 0;
        cr_assert_eq(count_rows(output, names[i]), 8, "%s", output); /* ipc and tcp */
        snprintf(metric, sizeof metric, "\"metric\":\"%s\",\"unit\":\"ns\"", metrics[i]);
        while ((p = strstr(p, metric)) != NULL)
            found += p++ != NULL;
        cr_assert_eq(found, 8, "%s: %s", metrics[i], output);
    }
    cr_assert_null(strstr(output, "\"median\":null"), "%s", output);
}

/* Those that have subscriptions get just what they want, however many they have; NNG not the most.
 */
Test(bench, other_libraries_have_subscriptions, .timeout = 500)
{
    static const char *const programs[] = {"zeromq", "nng"};
    char dir[4096], path[4200];
    int of_most = 4, of_many = 4;

    need_programs(dir);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/bench-peer-%s", dir, programs[i]);
        if (access(path, X_OK) != 0)
            continue;
        of_many += 4;
        of_most += i == 0 ? 4 : 0;
    }
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench subscriptions --transport ipc --wait block --mode shared --pairs 1 "
                     "--seconds 0.05 --peers --json -"),
                 0, "%s", output);
    cr_assert_eq(count_rows(output, "subscriptions-10000"), of_many, "%s", output);
    cr_assert_eq(count_rows(output, "subscriptions-100000"), of_most, "%s", output);
}

Test(bench, refuses_what_it_does_not_know)
{
    cr_assert_eq(run(output, SPOKE_TOOL " bench speed 2>&1"), 1);
    cr_assert_not_null(strstr(output, "speed"));
    cr_assert_eq(run(output, SPOKE_TOOL " bench --transport ipc,udp 2>&1"), 1);
    cr_assert_not_null(strstr(output, "takes inproc, ipc, tcp, shm, tls+tcp, ws and wss, with "
                                      "commas in between, not \"udp\""),
                       "%s", output);
    cr_assert_eq(run(output, SPOKE_TOOL " bench fanout --subscribers 7 2>&1"), 1);
    cr_assert_eq(run(output, SPOKE_TOOL " bench --size 7 2>&1"), 1);
    cr_assert_eq(run(output, SPOKE_TOOL " bench --pairs 0 2>&1"), 1);
    cr_assert_eq(run(output, SPOKE_TOOL " bench --json /nowhere/at/all 2>&1"), 2);
}

Test(bench, names_the_command_that_failed, .timeout = 200)
{
    char dir[4096], command[6000];

    need_programs(dir);
    snprintf(command, sizeof command,
             "d=$(mktemp -d) && cp %s/bench-raw-sockets $d && printf '#!/bin/sh\\necho it hurts "
             ">&2\\nexit 9\\n' "
             ">$d/bench-spoke && chmod +x $d/bench-spoke && SPOKE_BENCH_DIR=$d " SPOKE_TOOL
             " bench latency --transport ipc --wait block --mode owned --pairs 1 --seconds 0.1 "
             "2>&1; rc=$?; rm -r $d; "
             "exit $rc",
             dir);
    cr_assert_eq(run(output, command), 3, "%s", output);
    cr_assert_not_null(strstr(output, "ended with status 9"), "%s", output);
    cr_assert_not_null(strstr(output, "bench-spoke --role server"), "%s", output);
    cr_assert_not_null(strstr(output, "it hurts"), "%s", output);
}

/* ---- an interrupt ---- */

static void
nap_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&t, NULL);
}

/* A child of `parent` and the directory of its socket file.  False while there is none. */
static bool
find_child(pid_t parent, pid_t *child, char dir[64])
{
    char path[64], line[2048];
    const char *url;
    FILE *f;
    size_t n = 0;
    int found;

    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    if ((f = fopen(path, "re")) == NULL)
        return false;
    found = fscanf(f, "%d", child);
    fclose(f);
    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)*child);
    if (found != 1 || (f = fopen(path, "re")) == NULL)
        return false;
    n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    for (size_t i = 0; i < n; i++)
        line[i] = line[i] == '\0' ? ' ' : line[i];
    line[n] = '\0';
    url = strstr(line, "ipc:///tmp/spoke-bench-");
    if (url == NULL)
        return false;
    snprintf(dir, 64, "%.*s", (int)strlen("/tmp/spoke-bench-XXXXXX"), url + strlen("ipc://"));
    return true;
}

Test(bench, an_interrupt_leaves_no_process_and_no_file, .timeout = 200)
{
    char programs[4096], dir[64] = "";
    pid_t tool, child = 0;
    struct stat st;
    int status;

    need_programs(programs);
    tool = fork();
    cr_assert_geq(tool, 0);
    if (tool == 0) {
        cr_assert_not_null(freopen("/dev/null", "w", stdout));
        execl(SPOKE_TOOL, "spoke", "bench", "latency", "--transport", "ipc", "--seconds", "20",
              (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 3000 && !find_child(tool, &child, dir); i++)
        nap_ms(10);
    cr_assert_eq(stat(dir, &st), 0, "%s", dir);
    cr_assert_eq(kill(tool, SIGINT), 0);
    cr_assert_eq(waitpid(tool, &status, 0), tool);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGINT);
    cr_assert_neq(stat(dir, &st), 0, "%s is still there", dir);
    cr_assert(kill(child, 0) != 0 && errno == ESRCH, "%d still runs", (int)child);
}

/* ---- servers that are run by hand ---- */

/* Read until a line begins with "READY"; its rest. */
static bool
read_ready(FILE *f, char *line, size_t size)
{
    while (fgets(line, (int)size, f) != NULL)
        if (strncmp(line, "READY ", 6) == 0)
            return true;
    return false;
}

/* Start a benchmark program as a server and wait until it is ready: what it says after READY is in
 * `address`. */
static FILE *
start_server(const char *command, pid_t *pid, char *address, size_t size)
{
    char line[256], whole[6000];
    FILE *f;

    snprintf(whole, sizeof whole, "echo $$; exec %s", command);
    f = popen(whole, "re");
    cr_assert_not_null(f);
    cr_assert_not_null(fgets(line, sizeof line, f));
    *pid = (pid_t)strtol(line, NULL, 10);
    cr_assert_gt(*pid, 0);
    cr_assert(read_ready(f, line, sizeof line), "%s", command);
    line[strcspn(line, "\n")] = '\0';
    snprintf(address, size, "%s", line + strlen("READY "));
    return f;
}

/* Whether a process has our rings in its memory. */
static bool
has_rings(pid_t pid)
{
    char path[64], line[512];
    bool found = false;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        found |= strstr(line, "memfd:spoke-ring") != NULL;
    if (f != NULL)
        fclose(f);
    return found;
}

/* Read to the end; the exit status. */
static int
end_of(FILE *f)
{
    while (fgetc(f) != EOF)
        continue;
    return pclose(f);
}

/* A child that is not reaped here. */
static bool
has_ended(pid_t child)
{
    siginfo_t info = {0};

    return waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
           info.si_pid == child;
}

/* Run a client beside a server; whether their messages went through shared memory: for so long, or
 * until that has been seen, which takes what it takes. */
static bool
goes_through_memory(const char *dir, const char *transport, const char *upgrade,
                    const char *seconds)
{
    char command[5000], address[256], path[64];
    FILE *server, *client;
    bool found = false;
    pid_t pid;

    snprintf(path, sizeof path, "/tmp/spoke-way-%d", (int)getpid());
    snprintf(command, sizeof command,
             "env SPOKE_UPGRADE=%s %s/bench-spoke --role server --transport %s --address %s://%s "
             "--watchdog 60",
             upgrade, dir, transport, transport, path);
    server = start_server(command, &pid, address, sizeof address);
    snprintf(command, sizeof command,
             "SPOKE_UPGRADE=%s %s/bench-spoke --role client --transport %s --address %s "
             "--seconds %s --watchdog 60 2>/dev/null",
             upgrade, dir, transport, address, seconds);
    client = popen(command, "re");
    cr_assert_not_null(client);
    /* The client ends first; until then the server is there to be looked at. */
    while (!found && !has_ended(pid)) {
        found = has_rings(pid);
        nap_ms(5);
    }
    if (found)
        cr_assert_eq(kill(pid, SIGKILL), 0);
    cr_assert_eq(end_of(client) == 0, !found);
    cr_assert_eq(end_of(server) == 0, !found);
    unlink(path);
    return found;
}

Test(bench, ipc_moves_into_shared_memory_only_if_it_may, .timeout = 300)
{
    char dir[4096];

    need_programs(dir);
    cr_assert(goes_through_memory(dir, "shm", "off", "40"));
    cr_assert(goes_through_memory(dir, "ipc", "on", "40"));
    cr_assert(!goes_through_memory(dir, "ipc", "off", "0.5"));
}

/* What the environment of the tool says does not decide what is measured. */
Test(bench, both_ways_of_ipc_are_asked_for, .timeout = 200)
{
    char dir[4096];

    need_programs(dir);
    cr_assert_eq(run(output, "d=$(mktemp -d) && printf '#!/bin/sh\necho way: $SPOKE_UPGRADE >&2\n"
                             "exit 9\n' >$d/bench-spoke && chmod +x $d/bench-spoke && "
                             "SPOKE_UPGRADE=neither SPOKE_BENCH_DIR=$d " SPOKE_TOOL
                             " bench latency --transport ipc,shm --wait block --mode owned "
                             "--pairs 1 --seconds 0.1 2>&1; rc=$?; rm -r $d; exit $rc"),
                 3, "%s", output);
    cr_assert_eq(count_words(output, "way: on"), 1, "ipc: %s", output);
    cr_assert_eq(count_words(output, "way: off"), 2, "ipc, and beside shm: %s", output);
    cr_assert_eq(count_words(output, "way: neither"), 1, "shm: %s", output);
}

/* ---- a daemon ---- */

/* The daemon of a server that was killed. */
static bool
daemon_is_gone(const char *name)
{
    char path[128];

    snprintf(path, sizeof path, "/tmp/%s-server", name);
    return access(path, F_OK) != 0 && access("/dev/shm/iceoryx_mgmt", F_OK) != 0 &&
           access("/tmp/roudi", F_OK) != 0;
}

/* One of these at a time on this machine: a name that one process can have, and loses when it ends.
 */
static void
wait_for_the_machine(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0spoke-test-iceoryx"};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_geq(fd, 0);
    for (int i = 0; bind(fd, (struct sockaddr *)&name, sizeof name) != 0; i++) {
        cr_assert(errno == EADDRINUSE && i < 20000, "%s", strerror(errno));
        nap_ms(10);
    }
}

/* iceoryx has one daemon per machine, which the benchmark starts and ends, whatever happens to it.
 */
Test(bench, iceoryx_leaves_no_daemon_and_no_file, .timeout = 320)
{
    char dir[4096], path[4200], command[4400], line[256], name[64];
    FILE *f;
    pid_t pid;

    need_programs(dir);
    snprintf(path, sizeof path, "%s/bench-peer-iceoryx", dir);
    if (access(path, X_OK) != 0)
        cr_skip_test("%s is not built", path);
    wait_for_the_machine();
    if (access("/tmp/roudi", F_OK) == 0)
        cr_skip_test("somebody else's iox-roudi runs, and a machine has one");
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench latency --transport shm --wait block,poll --mode owned --pairs 1 "
                     "--seconds 0.1 --peers --json - 2>&1"),
                 0, "%s", output);
    cr_assert_eq(count_words(output, "\"impl\":\"iceoryx\""), 2, "%s", output);
    cr_assert_not_null(strstr(output, "x iceoryx (at most 0.25)"), "%s", output);
    cr_assert_eq(run(output, SPOKE_TOOL
                     " bench throughput --transport shm --wait block --mode owned --pairs 1 "
                     "--size 64,1M --seconds 0.1 --peers --json - 2>&1"),
                 0, "%s", output);
    cr_assert_eq(count_words(output, "\"impl\":\"iceoryx\""), 2, "%s", output);
    cr_assert_not_null(strstr(output, "  P11  "), "%s", output);

    snprintf(name, sizeof name, "spoke-iceoryx-%d", (int)getpid());
    snprintf(command, sizeof command,
             "%s --role server --transport shm --address %s --watchdog 60 2>/dev/null", path, name);
    f = start_server(command, &pid, line, sizeof line);
    cr_assert(!daemon_is_gone(name));
    cr_assert_eq(kill(pid, SIGKILL), 0);
    for (int i = 0; i < 3000 && !daemon_is_gone(name); i++)
        nap_ms(10);
    cr_assert(daemon_is_gone(name));
    pclose(f);
}

/* ---- a wrong byte ---- */

/* The first message of 64 bytes that a server expects, in which byte `damage` is flipped. */
static void
make_damaged(uint8_t body[64], size_t damage)
{
    /* The pattern of bench/common/payload.h, number 0, phase 1. */
    for (uint64_t i = 0; i < 8; i++) {
        uint64_t word = i == 0 ? UINT64_C(1) << 56 : (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
        memcpy(body + i * 8, &word, 8);
    }
    if (damage < 64)
        body[damage] ^= 1;
}

/* Connect to a server and send one such message, behind a header of zeros. */
static void
send_damaged(const char *path, size_t header, size_t damage)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    uint8_t frame[9 + 64] = {0};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    make_damaged(frame + header, damage);
    strncpy(a.sun_path, path, sizeof a.sun_path - 1);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    cr_assert_eq(write(fd, frame, header + 64), (ssize_t)header + 64);
    shutdown(fd, SHUT_WR);
    while (read(fd, frame, sizeof frame) > 0)
        continue;
    close(fd);
}

/* Who is sent a message, and what fails when there is no more. */
struct served {
    const char *program;
    const char *arguments;
    size_t header;
    const char *call;
};

/* What a server says about such a message. */
static void
serve_damaged(const char *dir, const struct served *s, size_t damage)
{
    char command[6000], path[64] = "/tmp/spoke-damage-XXXXXX", line[256], url[128];
    FILE *f;
    int fd = mkstemp(path);

    cr_assert_geq(fd, 0);
    close(fd);
    unlink(path);
    snprintf(url, sizeof url, "READY ipc://%s\n", path);
    snprintf(command, sizeof command,
             "%s/%s --role server --transport ipc --address ipc://%s %s --watchdog 30 2>&1", dir,
             s->program, path, s->arguments);
    f = popen(command, "re");
    cr_assert_not_null(f);
    cr_assert_not_null(fgets(line, sizeof line, f));
    cr_assert_str_eq(line, url);
    send_damaged(path, s->header, damage);
    cr_assert_not_null(fgets(line, sizeof line, f));
    unlink(path);
    /* The good message is answered; then the end of the connection is the complaint. */
    if (damage < 64)
        cr_assert(strstr(line, "damaged") != NULL || strstr(line, "instead of") != NULL, "%s",
                  line);
    else
        cr_assert_not_null(strstr(line, s->call), "%s", line);
    cr_assert_eq(WEXITSTATUS(pclose(f)), 1);
}

Test(bench, a_wrong_byte_fails_the_run, .timeout = 200)
{
    static const struct served raw = {"bench-raw-sockets", "", 9, "recv"};
    char dir[4096];

    need_programs(dir);
    for (size_t damage = 0; damage <= 64; damage += 8)
        serve_damaged(dir, &raw, damage);
}

Test(bench, a_wrong_byte_in_a_stream_fails_the_run, .timeout = 300)
{
    static const struct served streams[] = {
        {"bench-raw-sockets", "--pattern stream", 0, "recv"},
        {"bench-spoke", "--pattern stream --mode owned", 0, "spoke_stream_read:"},
        {"bench-spoke", "--pattern stream --mode shared", 0, "spoke_stream_read:"},
        {"bench-spoke", "--pattern chunks --bench throughput", 0, "spoke_stream_read_chunk:"}};
    char dir[4096];

    need_programs(dir);
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        for (size_t damage = 0; damage <= 64; damage += 16)
            serve_damaged(dir, &streams[i], damage);
}

/* The ring to a server of bench-raw-shm, and its first slot, as bench/raw/shm.c lays them out. */
enum { FIRST_SLOT = 3 * 64 + 128, SLOT_HEADER = 8 };

/* Write a message for a raw server into its memory, byte `damage` of 64 flipped. */
static void
store_damaged(const char *path, size_t damage)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t *memory;

    cr_assert_geq(fd, 0, "%s", path);
    memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(memory, MAP_FAILED);
    close(fd);
    make_damaged(memory + FIRST_SLOT + SLOT_HEADER, damage);
    atomic_store((_Atomic uint64_t *)(void *)(memory + FIRST_SLOT), 1);
    munmap(memory, 4096);
}

Test(bench, a_wrong_byte_in_shared_memory_fails_the_run, .timeout = 200)
{
    char dir[4096], command[5000], address[256], line[256];
    FILE *f;
    pid_t pid;

    need_programs(dir);
    for (size_t damage = 0; damage < 64; damage += 8) {
        snprintf(command, sizeof command,
                 "%s/bench-raw-shm --role server --transport shm --address shm:///x --wait poll "
                 "--watchdog 30 2>&1",
                 dir);
        f = start_server(command, &pid, address, sizeof address);
        store_damaged(address + strlen("shm://"), damage);
        cr_assert_not_null(fgets(line, sizeof line, f));
        cr_assert(strstr(line, "damaged") != NULL || strstr(line, "instead of") != NULL, "%s",
                  line);
        cr_assert_eq(WEXITSTATUS(pclose(f)), 1);
    }
}
