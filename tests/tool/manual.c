/* SPDX-License-Identifier: MIT */
/* The manual against what it describes: nothing public is missing from it, and its examples
 * compile. */
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <spoke/spoke.h>

#include "tests/support/test.h"
#include "tests/tool/program.h"

TestSuite(manual, .init = test_directory_make, .fini = test_directory_remove);

/* All files that match, one after the other; the caller frees. */
static char *
read_files(const char *pattern)
{
    char path[4200], *text = NULL;
    size_t used = 0;
    glob_t found;

    snprintf(path, sizeof path, "%s/%s", SPOKE_SOURCE_DIR, pattern);
    cr_assert_eq(glob(path, 0, NULL, &found), 0, "%s", path);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        FILE *file = fopen(found.gl_pathv[i], "re");
        size_t got;
        cr_assert_not_null(file);
        do {
            text = realloc(text, used + 65537);
            cr_assert_not_null(text);
            used += got = fread(text + used, 1, 65536, file);
        } while (got > 0);
        fclose(file);
    }
    globfree(&found);
    cr_assert_not_null(text);
    text[used] = '\0';
    return text;
}

static bool
is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* True if `word` is in `text` as a whole word. */
static bool
has_word(const char *text, const char *word)
{
    size_t size = strlen(word);

    for (const char *at = text; (at = strstr(at, word)) != NULL; at += size) {
        if ((at == text || !is_letter(at[-1])) && !is_letter(at[size]))
            return true;
    }
    return false;
}

/* The next word of `*at` that begins with `prefix`; false at the end. */
static bool
next_word(const char **at, const char *prefix, char word[64])
{
    size_t size = 0;

    if ((*at = strstr(*at, prefix)) == NULL)
        return false;
    while (is_letter((*at)[size]) && size < 63)
        size++;
    memcpy(word, *at, size);
    word[size] = '\0';
    *at += size;
    return true;
}

Test(manual, explains_every_error_and_counter)
{
    static const char *const names[] = {
#define ERROR(name, number, text) "SPOKE_" #name,
#include <spoke/errors.def>
#undef ERROR
#define STAT(name, help) #name,
#include <spoke/stats.def>
#undef STAT
#define PIPE_STAT(name, help) #name,
#include <spoke/pipe_stats.def>
#undef PIPE_STAT
#define DIALER_STAT(type, name, help) #name,
#include <spoke/dialer_stats.def>
#undef DIALER_STAT
#define LISTENER_STAT(type, name, help) #name,
#include <spoke/listener_stats.def>
#undef LISTENER_STAT
    };
    char *pages = read_files("docs/man/*.3");

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        cr_expect(has_word(pages, names[i]), "%s", names[i]);
    free(pages);
}

Test(manual, explains_every_option_of_the_library)
{
    char *pages = read_files("docs/man/spoke_option.3"),
         *header = read_files("include/spoke/option.h");
    const char *at = header;
    char word[64];
    int count = 0;

    for (; next_word(&at, "SPOKE_OPT_", word); count++)
        cr_expect(has_word(pages, word), "%s", word);
    cr_assert_gt(count, 20);
    free(header);
    free(pages);
}

Test(manual, names_every_call)
{
    char *pages = read_files("docs/man/*.[37]"), *headers = read_files("include/spoke/*.h");
    char word[64];
    int count = 0;

    for (const char *at = headers; (at = strstr(at, "\nSPOKE_API ")) != NULL; count++) {
        /* The call is the first such word with a bracket behind it. */
        at++;
        while (next_word(&at, "spoke_", word) && *at != '(')
            continue;
        cr_expect(has_word(pages, word), "%s", word);
    }
    cr_assert_gt(count, 60);
    free(headers);
    free(pages);
}

/* What --help lists is in the command's page. */
static void
check_options(const char *command)
{
    char *page, path[64], *name;
    struct program p;

    snprintf(path, sizeof path, "docs/man/spoke-%s.1", command);
    page = read_files(path);
    program_run_argv(&p, PROGRAM_ARGV(SPOKE_TOOL, command, "--help"));
    cr_assert_eq(p.status, 0);
    for (char *line = strtok(p.out, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char option[64] = "Fl Fl ";
        if (strncmp(line, "  ", 2) != 0 || (name = strstr(line, "--")) == NULL || name > line + 6)
            continue;
        sscanf(name + 2, "%40[a-z-]", option + 6);
        if (strcmp(option + 6, "help") != 0 && strcmp(option + 6, "version") != 0)
            cr_expect(has_word(page, option), "%s --%s", command, option + 6);
    }
    program_clear(&p);
    free(page);
}

Test(manual, explains_every_option_of_the_tool)
{
    check_options("bench");
    check_options("cat");
    check_options("demo");
    check_options("device");
    check_options("doctor");
    check_options("gateway");
}

Test(manual, first_example_compiles)
{
    char *page = read_files("docs/man/spoke.7"), *from, *to, command[8500];
    struct program p;
    FILE *file;

    if (!is_installed("cc"))
        cr_skip_test("there is no cc");
    cr_assert_not_null(from = strstr(page, "#include <spoke/spoke.h>"));
    cr_assert_not_null(to = strstr(from, "\n.Ed"));
    cr_assert_not_null(file = fopen(in_directory("example.c"), "we"));
    cr_assert_eq(fwrite(from, 1, (size_t)(to - from), file), (size_t)(to - from));
    fputc('\n', file);
    fclose(file);
    snprintf(command, sizeof command,
             "cc -std=c11 -Wall -Werror -fsyntax-only -I'%s/include' $DIR/example.c",
             SPOKE_SOURCE_DIR);
    shell(&p, command);
    cr_assert_eq(p.status, 0, "%s", p.err);
    program_clear(&p);
    free(page);
}

Test(manual, formats_without_a_warning)
{
    char command[8500];
    struct program p;

    if (!is_installed("man") || !is_installed("groff"))
        cr_skip_test("man or groff is not installed");
    snprintf(command, sizeof command,
             "for page in '%s'/docs/man/*.[1-9]; do LC_ALL=C.UTF-8 man --warnings -E UTF-8 -l "
             "\"$page\" >/dev/null; done",
             SPOKE_SOURCE_DIR);
    shell(&p, command);
    cr_assert_eq(p.status, 0);
    cr_assert_str_empty(p.err);
    program_clear(&p);
}
