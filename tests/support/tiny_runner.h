/* SPDX-License-Identifier: MIT */
/* Criterion's words for builds in which Criterion cannot start: Test, TestSuite, ParameterizedTest
 * with cr_make_param_array, their .init .fini .timeout .signal .exit_code .disabled .description,
 * and the assertions below.  Tests register themselves before main(); tiny_runner.c runs each in a
 * process of its own.  As in Criterion, an assertion's arguments may be followed by a format and
 * its arguments.
 *
 * The header calls itself a system header because Criterion's are: the same test source then gives
 * the same warnings in both builds. */
#ifndef TESTS_SUPPORT_TINY_RUNNER_H
#define TESTS_SUPPORT_TINY_RUNNER_H

#pragma GCC system_header

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct criterion_test_params {
    size_t size; /* of one parameter */
    void *params;
    size_t length;
    void (*cleanup)(struct criterion_test_params *);
};

struct tiny_options {
    void (*init)(void);
    void (*fini)(void);
    int signal;    /* the test must die of it; 0: of none */
    int exit_code; /* the test must exit with it */
    bool disabled;
    const char *description;
    double timeout; /* seconds; 0: the suite's, else TEST_TIMEOUT_S */
    void *data;
    int sentinel_;
};

struct tiny_suite {
    const char *name;
    struct tiny_options options;
    struct tiny_suite *next;
};

struct tiny_test {
    const char *suite, *name;
    void (*body)(void *parameter);
    struct criterion_test_params (*parameters)(void); /* NULL: the body runs once, without one */
    struct tiny_options options;
    struct tiny_test *next;
};

void tiny_register_suite(struct tiny_suite *suite);
void tiny_register_test(struct tiny_test *test);

/* Report a check that failed; `format` may be NULL.  tiny_fatal() then runs .fini and ends the
 * process. */
void tiny_failed(const char *file, int line, const char *what, const char *format, ...);
_Noreturn void tiny_fatal(const char *file, int line, const char *what, const char *format, ...);
_Noreturn void tiny_skip(const char *format, ...);
void tiny_log(const char *level, const char *format, ...);

#define TINY_ID_(Suite, Name, Suffix) tiny_##Suite##__##Name##__##Suffix

#define TINY_REGISTER_(Suite, Name, Parameters, ...)                                               \
    static struct tiny_test TINY_ID_(Suite, Name, test) = {                                        \
        .suite = #Suite,                                                                           \
        .name = #Name,                                                                             \
        .body = TINY_ID_(Suite, Name, call),                                                       \
        .parameters = Parameters,                                                                  \
        .options = {__VA_ARGS__},                                                                  \
    };                                                                                             \
    __attribute__((constructor)) static void TINY_ID_(Suite, Name, register)(void)                 \
    {                                                                                              \
        tiny_register_test(&TINY_ID_(Suite, Name, test));                                          \
    }

#define TINY_TEST_(Suite, Name, ...)                                                               \
    static void TINY_ID_(Suite, Name, body)(void);                                                 \
    static void TINY_ID_(Suite, Name, call)(void *parameter)                                       \
    {                                                                                              \
        (void)parameter;                                                                           \
        TINY_ID_(Suite, Name, body)();                                                             \
    }                                                                                              \
    TINY_REGISTER_(Suite, Name, NULL, __VA_ARGS__)                                                 \
    static void TINY_ID_(Suite, Name, body)(void)
#define Test(...) TINY_TEST_(__VA_ARGS__, .sentinel_ = 0)

#define TINY_PARAMETERIZED_(Parameter, Suite, Name, ...)                                           \
    static void TINY_ID_(Suite, Name, body)(Parameter);                                            \
    static void TINY_ID_(Suite, Name, call)(void *parameter)                                       \
    {                                                                                              \
        TINY_ID_(Suite, Name, body)(parameter);                                                    \
    }                                                                                              \
    TINY_REGISTER_(Suite, Name, TINY_ID_(Suite, Name, parameters), __VA_ARGS__)                    \
    static void TINY_ID_(Suite, Name, body)(Parameter)
#define ParameterizedTest(...) TINY_PARAMETERIZED_(__VA_ARGS__, .sentinel_ = 0)
#define ParameterizedTestParameters(Suite, Name)                                                   \
    static struct criterion_test_params TINY_ID_(Suite, Name, parameters)(void)
#define TINY_PARAM_ARRAY_(Type, Array, ...)                                                        \
    (struct criterion_test_params)                                                                 \
    {                                                                                              \
        .size = sizeof(Type), (void *)(Array), __VA_ARGS__                                         \
    }
#define cr_make_param_array(...) TINY_PARAM_ARRAY_(__VA_ARGS__)

#define TINY_SUITE_(Name, ...)                                                                     \
    static struct tiny_suite tiny_suite_##Name = {.name = #Name, .options = {__VA_ARGS__}};        \
    __attribute__((constructor)) static void tiny_suite_##Name##_register(void)                    \
    {                                                                                              \
        tiny_register_suite(&tiny_suite_##Name);                                                   \
    }                                                                                              \
    struct tiny_suite
#define TestSuite(...) TINY_SUITE_(__VA_ARGS__, .sentinel_ = 0)

/* The NULL that ends each list of arguments is the format where the test gave none. */
#define TINY_CHECK_(Report, Holds, What, ...)                                                      \
    do {                                                                                           \
        if (!(Holds))                                                                              \
            Report(__FILE__, __LINE__, What, __VA_ARGS__);                                         \
    } while (0)
#define TINY_TRUE_(Report, Value, ...)  TINY_CHECK_(Report, Value, #Value, __VA_ARGS__)
#define TINY_FALSE_(Report, Value, ...) TINY_CHECK_(Report, !(Value), "not " #Value, __VA_ARGS__)
#define TINY_OP_(Report, Op, A, B, ...)                                                            \
    TINY_CHECK_(Report, (A)Op(B), #A " " #Op " " #B, __VA_ARGS__)
#define TINY_NULL_(Report, Op, A, ...)                                                             \
    TINY_CHECK_(Report, (A)Op NULL, #A " " #Op " NULL", __VA_ARGS__)
#define TINY_STR_(Report, Op, A, B, ...)                                                           \
    TINY_CHECK_(Report, strcmp((A), (B)) Op 0, #A " " #Op " " #B " (strings)", __VA_ARGS__)
#define TINY_EMPTY_(Report, Op, A, ...)                                                            \
    TINY_CHECK_(Report, (A)[0] Op '\0', #A " " #Op " \"\"", __VA_ARGS__)
#define TINY_ARR_(Report, Op, A, B, Size, ...)                                                     \
    TINY_CHECK_(Report, memcmp((A), (B), (Size)) Op 0, #A " " #Op " " #B " (bytes)", __VA_ARGS__)
#define TINY_FLOAT_(Report, Wanted, A, B, Epsilon, ...)                                            \
    TINY_CHECK_(Report, ((A) - (B) <= (Epsilon) && (B) - (A) <= (Epsilon)) == (Wanted),            \
                #A " and " #B " (within " #Epsilon ")", __VA_ARGS__)

#define cr_assert(...)               TINY_TRUE_(tiny_fatal, __VA_ARGS__, NULL)
#define cr_assert_not(...)           TINY_FALSE_(tiny_fatal, __VA_ARGS__, NULL)
#define cr_assert_eq(...)            TINY_OP_(tiny_fatal, ==, __VA_ARGS__, NULL)
#define cr_assert_neq(...)           TINY_OP_(tiny_fatal, !=, __VA_ARGS__, NULL)
#define cr_assert_lt(...)            TINY_OP_(tiny_fatal, <, __VA_ARGS__, NULL)
#define cr_assert_leq(...)           TINY_OP_(tiny_fatal, <=, __VA_ARGS__, NULL)
#define cr_assert_gt(...)            TINY_OP_(tiny_fatal, >, __VA_ARGS__, NULL)
#define cr_assert_geq(...)           TINY_OP_(tiny_fatal, >=, __VA_ARGS__, NULL)
#define cr_assert_null(...)          TINY_NULL_(tiny_fatal, ==, __VA_ARGS__, NULL)
#define cr_assert_not_null(...)      TINY_NULL_(tiny_fatal, !=, __VA_ARGS__, NULL)
#define cr_assert_str_eq(...)        TINY_STR_(tiny_fatal, ==, __VA_ARGS__, NULL)
#define cr_assert_str_neq(...)       TINY_STR_(tiny_fatal, !=, __VA_ARGS__, NULL)
#define cr_assert_str_empty(...)     TINY_EMPTY_(tiny_fatal, ==, __VA_ARGS__, NULL)
#define cr_assert_str_not_empty(...) TINY_EMPTY_(tiny_fatal, !=, __VA_ARGS__, NULL)
#define cr_assert_arr_eq(...)        TINY_ARR_(tiny_fatal, ==, __VA_ARGS__, NULL)
#define cr_assert_arr_neq(...)       TINY_ARR_(tiny_fatal, !=, __VA_ARGS__, NULL)
#define cr_assert_float_eq(...)      TINY_FLOAT_(tiny_fatal, true, __VA_ARGS__, NULL)
#define cr_assert_float_neq(...)     TINY_FLOAT_(tiny_fatal, false, __VA_ARGS__, NULL)
#define cr_assert_fail(...)          tiny_fatal(__FILE__, __LINE__, "failed", "" __VA_ARGS__)

#define cr_expect(...)               TINY_TRUE_(tiny_failed, __VA_ARGS__, NULL)
#define cr_expect_not(...)           TINY_FALSE_(tiny_failed, __VA_ARGS__, NULL)
#define cr_expect_eq(...)            TINY_OP_(tiny_failed, ==, __VA_ARGS__, NULL)
#define cr_expect_neq(...)           TINY_OP_(tiny_failed, !=, __VA_ARGS__, NULL)
#define cr_expect_lt(...)            TINY_OP_(tiny_failed, <, __VA_ARGS__, NULL)
#define cr_expect_leq(...)           TINY_OP_(tiny_failed, <=, __VA_ARGS__, NULL)
#define cr_expect_gt(...)            TINY_OP_(tiny_failed, >, __VA_ARGS__, NULL)
#define cr_expect_geq(...)           TINY_OP_(tiny_failed, >=, __VA_ARGS__, NULL)
#define cr_expect_null(...)          TINY_NULL_(tiny_failed, ==, __VA_ARGS__, NULL)
#define cr_expect_not_null(...)      TINY_NULL_(tiny_failed, !=, __VA_ARGS__, NULL)
#define cr_expect_str_eq(...)        TINY_STR_(tiny_failed, ==, __VA_ARGS__, NULL)
#define cr_expect_str_neq(...)       TINY_STR_(tiny_failed, !=, __VA_ARGS__, NULL)
#define cr_expect_str_empty(...)     TINY_EMPTY_(tiny_failed, ==, __VA_ARGS__, NULL)
#define cr_expect_str_not_empty(...) TINY_EMPTY_(tiny_failed, !=, __VA_ARGS__, NULL)
#define cr_expect_arr_eq(...)        TINY_ARR_(tiny_failed, ==, __VA_ARGS__, NULL)
#define cr_expect_arr_neq(...)       TINY_ARR_(tiny_failed, !=, __VA_ARGS__, NULL)
#define cr_expect_float_eq(...)      TINY_FLOAT_(tiny_failed, true, __VA_ARGS__, NULL)
#define cr_expect_float_neq(...)     TINY_FLOAT_(tiny_failed, false, __VA_ARGS__, NULL)
#define cr_expect_fail(...)          tiny_failed(__FILE__, __LINE__, "failed", "" __VA_ARGS__)

#define cr_skip(...)      tiny_skip("" __VA_ARGS__)
#define cr_skip_test(...) tiny_skip("" __VA_ARGS__)
#define cr_fatal(...)     tiny_fatal(__FILE__, __LINE__, "failed", "" __VA_ARGS__)

#define cr_log_info(...)  tiny_log("----", __VA_ARGS__)
#define cr_log_warn(...)  tiny_log("WARN", __VA_ARGS__)
#define cr_log_error(...) tiny_log("ERR ", __VA_ARGS__)

/* Parameters live in the runner's memory, which a forked test shares: malloc will do. */
#define cr_malloc  malloc
#define cr_calloc  calloc
#define cr_realloc realloc
#define cr_free    free

#endif
