/* SPDX-License-Identifier: MIT */
/* Errors by number, and the version.  Any thread. */
#include <spoke/error.h>

#include <stddef.h>

struct error_text {
    const char *name, *text;
};

static const struct error_text errors[] = {
    {"SPOKE_OK", "success"},
#define ERROR(name, number, text) [number] = {"SPOKE_" #name, text},
#include <spoke/errors.def>
#undef ERROR
};

static const struct error_text *
find_error(int error)
{
    static const struct error_text unknown = {"SPOKE_E?", "unknown error"};
    const int count = (int)(sizeof errors / sizeof errors[0]);

    if (error > 0 || error <= -count || errors[-error].name == NULL)
        return &unknown;
    return &errors[-error];
}

const char *
spoke_strerror(int error)
{
    return find_error(error)->text;
}

const char *
spoke_error_name(int error)
{
    return find_error(error)->name;
}

const char *
spoke_version(void)
{
    return SPOKE_VERSION;
}
