/* SPDX-License-Identifier: MIT */
/* The rules of a gateway.  Main thread. */
#include "gateway_rules.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SPACES " \t\r\n"

static bool
add_id(const char *name, const char *text, int *ids, int *count)
{
    uint64_t id;

    if (!tool_number(name, text, INT32_MAX, &id))
        return false;
    if (*count == GATEWAY_IDS_MOST) {
        tool_error("there are too many of %s: at most %d", name, GATEWAY_IDS_MOST);
        return false;
    }
    ids[(*count)++] = (int)id;
    return true;
}

static bool
is_rule(const char *name)
{
    return strcmp(name, "allow-uid") == 0 || strcmp(name, "allow-gid") == 0 ||
           strcmp(name, "max-connections") == 0 || strcmp(name, "max-carriers") == 0 ||
           strcmp(name, "max-streams") == 0 || strcmp(name, "idle") == 0;
}

/* A carrier's memory is shared out among them. */
static bool
set_streams(const char *name, const char *text, uint64_t *out)
{
    uint64_t number;

    if (!tool_number(name, text, GATEWAY_STREAMS_MOST, &number))
        return false;
    if (number == 0) {
        tool_error("--%s is at least 1", name);
        return false;
    }
    *out = number;
    return true;
}

bool
gateway_rule_set(struct gateway_rules *r, const char *name, const char *value)
{
    if (strcmp(name, "allow-uid") == 0)
        return add_id(name, value, r->uids, &r->uid_count);
    if (strcmp(name, "allow-gid") == 0)
        return add_id(name, value, r->gids, &r->gid_count);
    if (strcmp(name, "idle") == 0)
        return tool_seconds(name, value, &r->idle_ns);
    if (strcmp(name, "max-carriers") == 0)
        return tool_number(name, value, 1000000, &r->carriers);
    if (strcmp(name, "max-streams") == 0)
        return set_streams(name, value, &r->streams);
    return tool_number(name, value, 1000000, &r->most);
}

/* "name value", nothing, or a comment. */
static bool
obey_line(struct gateway_rules *r, const char *path, int number, char *line)
{
    char *rest = NULL, *name, *value;

    line[strcspn(line, "#")] = '\0';
    if ((name = strtok_r(line, SPACES, &rest)) == NULL)
        return true;
    value = strtok_r(NULL, SPACES, &rest);
    if (!is_rule(name) || value == NULL || strtok_r(NULL, SPACES, &rest) != NULL) {
        tool_error("%s, line %d: allow-uid, allow-gid, max-connections, max-carriers, max-streams "
                   "and idle are rules, each with one value: mend that line",
                   path, number);
        return false;
    }
    if (gateway_rule_set(r, name, value))
        return true;
    tool_error("%s, line %d: mend that line", path, number);
    return false;
}

static bool
read_lines(struct gateway_rules *r, const char *path, FILE *file)
{
    char line[256];

    for (int number = 1; fgets(line, sizeof line, file) != NULL; number++) {
        if (strchr(line, '\n') == NULL && !feof(file)) {
            tool_error("%s, line %d: it is too long: mend that line", path, number);
            return false;
        }
        if (!obey_line(r, path, number, line))
            return false;
    }
    if (!ferror(file))
        return true;
    tool_error("cannot read the rules in %s: %s", path, strerror(errno));
    return false;
}

bool
gateway_rules_read(struct gateway_rules *r, const char *path)
{
    struct gateway_rules all = *r;
    FILE *file = fopen(path, "re");
    bool fine;

    if (file == NULL) {
        tool_error("cannot read the rules in %s: %s", path, strerror(errno));
        return false;
    }
    fine = read_lines(&all, path, file);
    fclose(file);
    if (fine)
        *r = all;
    return fine;
}

static bool
is_listed(int id, const int *ids, int count)
{
    for (int i = 0; i < count; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

bool
gateway_rules_allow(const struct gateway_rules *r, int uid, int gid)
{
    return r->uid_count + r->gid_count == 0 || is_listed(uid, r->uids, r->uid_count) ||
           is_listed(gid, r->gids, r->gid_count);
}
