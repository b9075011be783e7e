/* SPDX-License-Identifier: MIT */
/* Options: each mistake has its own error and changes nothing; what is set can be read. */
#include <errno.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/world.h"

struct row {
    const char *name;
    enum spoke_type type;
    int64_t standard;  /* the default */
    int64_t good, bad; /* bad: out of range; the default again if there is no such value */
    bool late;         /* may change after the first dial or listen */
};

static const struct row rows[] = {
    {SPOKE_OPT_RECV_TIMEOUT, SPOKE_DURATION, SPOKE_FOREVER, 5, -1, true},
    {SPOKE_OPT_SEND_TIMEOUT, SPOKE_DURATION, SPOKE_FOREVER, 5, -1, true},
    {SPOKE_OPT_SEND_EXPIRY, SPOKE_DURATION, 0, 5, -1, true},
    {SPOKE_OPT_BEST_EFFORT, SPOKE_BOOL, false, true, false, true},
    {SPOKE_OPT_FAIL_NO_PEERS, SPOKE_BOOL, false, true, false, true},
    {SPOKE_OPT_LINGER, SPOKE_DURATION, SPOKE_SECOND, 0, -1, true},
    {SPOKE_OPT_SEND_QUEUE, SPOKE_INT, 128, 0, -1, false},
    {SPOKE_OPT_RECV_QUEUE, SPOKE_INT, 128, 1, -1, false},
    {SPOKE_OPT_SEND_QUEUE_BYTES, SPOKE_SIZE, 8 << 20, 1, 8 << 20, true},
    {SPOKE_OPT_RECV_QUEUE_BYTES, SPOKE_SIZE, 8 << 20, 1, 8 << 20, true},
    {SPOKE_OPT_MAX_RECV_SIZE, SPOKE_SIZE, 1 << 20, 0, 1 << 20, true},
    {SPOKE_OPT_RECONNECT, SPOKE_DURATION, 100 * SPOKE_MS, SPOKE_MS, -1, true},
    {SPOKE_OPT_RECONNECT_MAX, SPOKE_DURATION, 0, SPOKE_SECOND, -1, true},
    {SPOKE_OPT_HANDSHAKE_TIME, SPOKE_DURATION, 10 * SPOKE_SECOND, SPOKE_SECOND, -1, true},
    {SPOKE_OPT_IDLE_TIMEOUT, SPOKE_DURATION, 0, SPOKE_SECOND, -1, true},
    {SPOKE_OPT_MAX_PIPES, SPOKE_INT, 0, 7, -1, true},
    {SPOKE_OPT_INTERRUPTIBLE, SPOKE_BOOL, false, true, false, true},
    {SPOKE_OPT_CLOSE_PIPES, SPOKE_BOOL, false, true, false, true},
    {SPOKE_OPT_TCP_NODELAY, SPOKE_BOOL, true, false, true, true},
    {SPOKE_OPT_TCP_KEEPALIVE, SPOKE_BOOL, true, false, true, true},
    {SPOKE_OPT_TCP_KEEPALIVE_TIME, SPOKE_DURATION, 15 * SPOKE_SECOND, 32767 * SPOKE_SECOND,
     32768 * SPOKE_SECOND, true},
    {SPOKE_OPT_TCP_USER_TIMEOUT, SPOKE_DURATION, 0, INT32_MAX *SPOKE_MS, INT32_MAX *SPOKE_MS + 1,
     true},
    {SPOKE_OPT_DIAL_ASYNC, SPOKE_BOOL, true, false, true, true},
    {SPOKE_OPT_SHM_SEGMENT, SPOKE_SIZE, 256 << 20, 0, ((int64_t)1 << 36) + 1, false},
    {SPOKE_OPT_SHM_HUGE_PAGES, SPOKE_BOOL, false, true, false, false},
    {SPOKE_OPT_SHM_NUMA_NODE, SPOKE_INT, -1, -1, -2, false}, /* which others there are is below */
    {SPOKE_OPT_IPC_MODE, SPOKE_INT, -1, 0600, 01000, true},
    {SPOKE_OPT_IPC_OWNER, SPOKE_INT, -1, 12, -2, true},
    {SPOKE_OPT_IPC_GROUP, SPOKE_INT, -1, 12, -2, true},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

union value {
    bool boolean;
    int integer;
    size_t size;
    spoke_ns duration;
};

static size_t
value_of(union value *value, enum spoke_type type, int64_t number)
{
    switch (type) {
    case SPOKE_BOOL: value->boolean = number != 0; return sizeof value->boolean;
    case SPOKE_INT: value->integer = (int)number; return sizeof value->integer;
    case SPOKE_SIZE: value->size = (size_t)number; return sizeof value->size;
    default: value->duration = number; return sizeof value->duration;
    }
}

static int
set_number(spoke_socket *s, const struct row *row, int64_t number)
{
    union value value;
    size_t size = value_of(&value, row->type, number);

    return spoke_socket_set(s, row->name, row->type, &value, size);
}

static int64_t
get_number(spoke_socket *s, const struct row *row)
{
    union value value = {0};
    size_t size = sizeof value;
    int rc = spoke_socket_get(s, row->name, row->type, &value, &size);

    cr_assert_eq(rc, 0, "%s: %s", row->name, spoke_error_name(rc));
    switch (row->type) {
    case SPOKE_BOOL: cr_assert_eq(size, sizeof value.boolean); return value.boolean;
    case SPOKE_INT: cr_assert_eq(size, sizeof value.integer); return value.integer;
    case SPOKE_SIZE: cr_assert_eq(size, sizeof value.size); return (int64_t)value.size;
    default: cr_assert_eq(size, sizeof value.duration); return value.duration;
    }
}

static spoke_socket *s;

static void
open_pair(void)
{
    scratch_dir();
    cr_assert_eq(spoke_socket_open(&s, SPOKE_PAIR, NULL), 0);
}

static void
close_pair(void)
{
    spoke_socket_close(s);
}

TestSuite(options, .init = open_pair, .fini = close_pair);

Test(options, have_the_documented_defaults)
{
    for (int i = 0; i < ROWS; i++)
        cr_expect_eq(get_number(s, &rows[i]), rows[i].standard, "%s: %lld", rows[i].name,
                     (long long)get_number(s, &rows[i]));
}

Test(options, what_is_set_is_read)
{
    for (int i = 0; i < ROWS; i++) {
        int rc = set_number(s, &rows[i], rows[i].good);
        cr_expect_eq(rc, 0, "%s: %s", rows[i].name, spoke_error_name(rc));
        cr_expect_eq(get_number(s, &rows[i]), rows[i].good, "%s", rows[i].name);
    }
}

Test(options, out_of_range_is_refused_and_changes_nothing)
{
    for (int i = 0; i < ROWS; i++) {
        if (rows[i].bad == rows[i].standard)
            continue;
        int rc = set_number(s, &rows[i], rows[i].bad);
        cr_expect_eq(rc, SPOKE_ERANGE, "%s: %s", rows[i].name, spoke_error_name(rc));
        cr_expect_eq(get_number(s, &rows[i]), rows[i].standard, "%s", rows[i].name);
    }
}

Test(options, another_type_is_refused_and_changes_nothing)
{
    const union value zero = {0};

    for (int i = 0; i < ROWS; i++) {
        for (int type = SPOKE_BOOL; type <= SPOKE_POINTER; type++) {
            union value value = {0};
            size_t size = sizeof value;
            if (type == (int)rows[i].type)
                continue;
            int rc = spoke_socket_set(s, rows[i].name, (enum spoke_type)type, &zero, sizeof zero);
            cr_expect_eq(rc, SPOKE_ETYPE, "%s as %d: %s", rows[i].name, type, spoke_error_name(rc));
            rc = spoke_socket_get(s, rows[i].name, (enum spoke_type)type, &value, &size);
            cr_expect_eq(rc, SPOKE_ETYPE, "%s as %d: %s", rows[i].name, type, spoke_error_name(rc));
        }
        cr_expect_eq(get_number(s, &rows[i]), rows[i].standard, "%s", rows[i].name);
    }
}

Test(options, the_right_type_of_the_wrong_size_is_refused)
{
    const union value zero = {0};

    for (int i = 0; i < ROWS; i++) {
        union value right;
        size_t size = value_of(&right, rows[i].type, rows[i].good);
        cr_expect_lt(spoke_socket_set(s, rows[i].name, rows[i].type, &zero, size + 1), 0, "%s",
                     rows[i].name);
        cr_expect_lt(spoke_socket_set(s, rows[i].name, rows[i].type, &zero, 0), 0, "%s",
                     rows[i].name);
        cr_expect_eq(get_number(s, &rows[i]), rows[i].standard, "%s", rows[i].name);
    }
}

Test(options, unknown_names_are_refused)
{
    static const char *const names[] = {"",      "nothing", "Linger", "linger ", "recv-timeoutx",
                                        "recv-", "url",     "address"};
    int value = 0;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int rc = spoke_socket_set_int(s, names[i], 1);
        cr_expect_eq(rc, SPOKE_EOPTION, "\"%s\": %s", names[i], spoke_error_name(rc));
        rc = spoke_socket_get_int(s, names[i], &value);
        cr_expect_eq(rc, SPOKE_EOPTION, "\"%s\": %s", names[i], spoke_error_name(rc));
    }
    cr_expect_lt(spoke_socket_set_int(s, NULL, 1), 0);
}

Test(options, of_another_pattern_are_unknown)
{
    cr_expect_eq(spoke_socket_set_duration(s, SPOKE_OPT_RETRY_TIME, SPOKE_SECOND), SPOKE_EOPTION);
    spoke_socket *req;
    cr_assert_eq(spoke_socket_open(&req, SPOKE_REQ, NULL), 0);
    spoke_ns retry = 0;
    cr_expect_eq(spoke_socket_get_duration(req, SPOKE_OPT_RETRY_TIME, &retry), 0);
    cr_expect_eq(retry, 60 * SPOKE_SECOND);
    cr_expect_eq(spoke_socket_set_duration(req, SPOKE_OPT_RETRY_TIME, -1), SPOKE_ERANGE);
    cr_expect_eq(spoke_socket_set_duration(req, SPOKE_OPT_RETRY_TIME, 0), 0);
    cr_assert_eq(spoke_socket_close(req), 0);
}

Test(options, ttl_is_from_1_to_255)
{
    static const int bad[] = {0, -1, 256, 1000};
    spoke_socket *rep;
    int ttl = 0;

    cr_assert_eq(spoke_socket_open(&rep, SPOKE_REP, NULL), 0);
    cr_expect_eq(spoke_socket_get_int(rep, SPOKE_OPT_TTL, &ttl), 0);
    cr_expect_eq(ttl, 8);
    for (int i = 0; i < 4; i++)
        cr_expect_eq(spoke_socket_set_int(rep, SPOKE_OPT_TTL, bad[i]), SPOKE_ERANGE);
    cr_expect_eq(spoke_socket_set_int(rep, SPOKE_OPT_TTL, 1), 0);
    cr_expect_eq(spoke_socket_set_int(rep, SPOKE_OPT_TTL, 255), 0);
    cr_expect_eq(spoke_socket_get_int(rep, SPOKE_OPT_TTL, &ttl), 0);
    cr_expect_eq(ttl, 255);
    cr_assert_eq(spoke_socket_close(rep), 0);
}

/* 0, or why the kernel may not be asked where memory is to lie: it is asked itself, as what the
 * library makes of it is what is tested. */
static int
numa_is_denied(void)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int error;

    cr_assert_neq(page, MAP_FAILED);
    error = syscall(SYS_mbind, page, size, MPOL_DEFAULT, NULL, 0, 0) == 0 ? 0 : errno;
    munmap(page, size);
    return error;
}

Test(options, numa_nodes_are_those_of_the_machine)
{
    static const int none[] = {-2, 1023, 1024, INT32_MAX, INT32_MIN};
    int node = 7, rc = spoke_socket_set_int(s, SPOKE_OPT_SHM_NUMA_NODE, 0);
    int denied = numa_is_denied();

    if (denied != 0) {
        bool forbidden = denied == EPERM || denied == EACCES;

        cr_assert_eq(rc, forbidden ? SPOKE_EPERM : SPOKE_ENOTSUP, "%s", spoke_error_name(rc));
        cr_skip("the kernel may not be asked for NUMA nodes: %s", spoke_strerror(rc));
    }
    if (rc == 0) { /* a process may be kept from node 0 */
        cr_expect_eq(spoke_socket_get_int(s, SPOKE_OPT_SHM_NUMA_NODE, &node), 0);
        cr_expect_eq(node, 0);
    } else {
        cr_expect_eq(rc, SPOKE_ERANGE);
    }
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SHM_NUMA_NODE, -1), 0);
    for (int i = 0; i < 5; i++) {
        rc = spoke_socket_set_int(s, SPOKE_OPT_SHM_NUMA_NODE, none[i]);
        cr_expect_eq(rc, SPOKE_ERANGE, "%d: %s", none[i], spoke_error_name(rc));
        cr_expect_eq(spoke_socket_get_int(s, SPOKE_OPT_SHM_NUMA_NODE, &node), 0);
        cr_expect_eq(node, -1);
    }
}

Test(options, of_the_segment_are_too_late_once_there_is_a_loan)
{
    size_t size = 0;
    spoke_msg *m;

    cr_assert_eq(spoke_loan(s, 1 << 16, &m), 0);
    cr_expect_eq(spoke_socket_set_size(s, SPOKE_OPT_SHM_SEGMENT, 1 << 20), SPOKE_ETOOLATE);
    cr_expect_eq(spoke_socket_set_bool(s, SPOKE_OPT_SHM_HUGE_PAGES, true), SPOKE_ETOOLATE);
    cr_expect_eq(spoke_socket_set_int(s, SPOKE_OPT_SHM_NUMA_NODE, 0), SPOKE_ETOOLATE);
    cr_expect_eq(spoke_socket_get_size(s, SPOKE_OPT_SHM_SEGMENT, &size), 0);
    cr_expect_eq(size, 256 << 20);
    cr_expect_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, 5), 0);
    cr_expect_eq(spoke_socket_set_size(s, SPOKE_OPT_SHM_RING, 1 << 16), 0); /* of endpoints */
    spoke_msg_free(m);
}

Test(options, read_only_ones_tell_and_refuse)
{
    static const struct {
        const char *name;
        int pattern, value;
    } numbers[] = {{SPOKE_OPT_PROTOCOL, SPOKE_PAIR, 16}, {SPOKE_OPT_PEER, SPOKE_PAIR, 16},
                   {SPOKE_OPT_PROTOCOL, SPOKE_REQ, 48},  {SPOKE_OPT_PEER, SPOKE_REQ, 49},
                   {SPOKE_OPT_PROTOCOL, SPOKE_REP, 49},  {SPOKE_OPT_PEER, SPOKE_REP, 48}};
    char name[32];

    for (int i = 0; i < 6; i++) {
        spoke_socket *other;
        int value = 0;
        cr_assert_eq(spoke_socket_open(&other, numbers[i].pattern, NULL), 0);
        cr_expect_eq(spoke_socket_get_int(other, numbers[i].name, &value), 0);
        cr_expect_eq(value, numbers[i].value);
        cr_expect_eq(spoke_socket_set_int(other, numbers[i].name, 1), SPOKE_EREADONLY);
        cr_assert_eq(spoke_socket_close(other), 0);
    }
    cr_expect_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_FD, 1), SPOKE_EREADONLY);
    cr_expect_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_FD, 1), SPOKE_EREADONLY);
    cr_expect_eq(spoke_socket_set_string(s, SPOKE_OPT_PROTOCOL_NAME, "x"), SPOKE_EREADONLY);
    cr_expect_eq(spoke_socket_get_string(s, SPOKE_OPT_PROTOCOL_NAME, name, sizeof name), 0);
    cr_expect_str_eq(name, "pair");
}

Test(options, some_are_too_late_once_the_socket_is_at_work)
{
    char url[ENDPOINT_MAX];

    endpoint_fresh(url, INPROC);
    cr_assert_eq(spoke_listen(s, url, NULL, 0), 0);
    for (int i = 0; i < ROWS; i++) {
        int rc = set_number(s, &rows[i], rows[i].good);
        cr_expect_eq(rc, rows[i].late ? 0 : SPOKE_ETOOLATE, "%s: %s", rows[i].name,
                     spoke_error_name(rc));
        cr_expect_eq(get_number(s, &rows[i]), rows[i].late ? rows[i].good : rows[i].standard, "%s",
                     rows[i].name);
    }
    cr_expect_eq(spoke_socket_set_bool(s, SPOKE_OPT_RAW, true), SPOKE_ETOOLATE);
}

Test(options, raw_can_be_chosen_before)
{
    bool raw = true;

    cr_expect_eq(spoke_socket_get_bool(s, SPOKE_OPT_RAW, &raw), 0);
    cr_expect_not(raw);
    cr_expect_eq(spoke_socket_set_bool(s, SPOKE_OPT_RAW, true), 0);
    cr_expect_eq(spoke_socket_get_bool(s, SPOKE_OPT_RAW, &raw), 0);
    cr_expect(raw);
}

/* Undefined behaviour once, which the sanitizer run sees. */
Test(options, no_string_is_an_empty_one)
{
    char name[80];

    cr_assert_eq(spoke_socket_set_string(s, SPOKE_OPT_NAME, NULL), 0);
    cr_assert_eq(spoke_socket_get_string(s, SPOKE_OPT_NAME, name, sizeof name), 0);
    cr_expect_str_eq(name, "");
}

Test(options, the_name_is_a_short_string)
{
    char longest[65], name[80];
    size_t size;

    cr_assert_eq(spoke_socket_get_string(s, SPOKE_OPT_NAME, name, sizeof name), 0);
    cr_expect_eq(strncmp(name, "pair", 4), 0, "the default: \"%s\"", name);
    memset(longest, 'n', sizeof longest);
    longest[64] = '\0';
    int rc = spoke_socket_set_string(s, SPOKE_OPT_NAME, longest);
    cr_expect_eq(rc, SPOKE_ERANGE, "64 bytes: %s", spoke_error_name(rc));
    longest[63] = '\0';
    cr_expect_eq(spoke_socket_set_string(s, SPOKE_OPT_NAME, longest), 0);
    cr_expect_eq(spoke_socket_get_string(s, SPOKE_OPT_NAME, name, sizeof name), 0);
    cr_expect_str_eq(name, longest);

    /* A short buffer gets a cut string, and the whole size. */
    cr_expect_eq(spoke_socket_set_string(s, SPOKE_OPT_NAME, "clerk"), 0);
    memset(name, '.', sizeof name);
    size = 4;
    rc = spoke_socket_get(s, SPOKE_OPT_NAME, SPOKE_STRING, name, &size);
    cr_expect_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_expect_eq(size, 6);
    cr_expect_arr_eq(name, "cle\0.", 5);
}

Test(options, a_socket_holds_the_defaults_of_its_dialers_and_listeners)
{
    char url[ENDPOINT_MAX];
    spoke_dialer *d;
    spoke_listener *l;
    spoke_ns wait = 0;
    size_t limit = 0;
    int mode = 0;

    endpoint_fresh(url, IPC);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECONNECT, 33), 0);
    cr_assert_eq(spoke_socket_set_size(s, SPOKE_OPT_MAX_RECV_SIZE, 44), 0);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_IPC_MODE, 0640), 0);
    cr_assert_eq(spoke_dialer_create(&d, s, url), 0);
    cr_assert_eq(spoke_listener_create(&l, s, url), 0);
    cr_expect_eq(spoke_dialer_get_duration(d, SPOKE_OPT_RECONNECT, &wait), 0);
    cr_expect_eq(wait, 33);
    cr_expect_eq(spoke_dialer_get_size(d, SPOKE_OPT_MAX_RECV_SIZE, &limit), 0);
    cr_expect_eq(limit, 44);
    cr_expect_eq(spoke_listener_get_int(l, SPOKE_OPT_IPC_MODE, &mode), 0);
    cr_expect_eq(mode, 0640);

    /* One of them differs, the socket and the other do not. */
    cr_expect_eq(spoke_dialer_set_size(d, SPOKE_OPT_MAX_RECV_SIZE, 55), 0);
    cr_expect_eq(spoke_listener_get_size(l, SPOKE_OPT_MAX_RECV_SIZE, &limit), 0);
    cr_expect_eq(limit, 44);
    cr_expect_eq(spoke_socket_get_size(s, SPOKE_OPT_MAX_RECV_SIZE, &limit), 0);
    cr_expect_eq(limit, 44);

    /* What is not theirs. */
    cr_expect_eq(spoke_dialer_set_int(d, SPOKE_OPT_SEND_QUEUE, 1), SPOKE_EOPTION);
    cr_expect_eq(spoke_listener_set_duration(l, SPOKE_OPT_RECONNECT, 1), SPOKE_EOPTION);
    cr_expect_eq(spoke_dialer_set_string(d, SPOKE_OPT_URL, url), SPOKE_EREADONLY);
    cr_expect_eq(spoke_listener_set_string(l, SPOKE_OPT_ADDRESS, url), SPOKE_EREADONLY);
}

Test(options, of_another_transport_are_unknown)
{
    char url[ENDPOINT_MAX];

    for (int i = INPROC; i <= LAST_TRANSPORT; i++) {
        enum transport transport = (enum transport)i;
        bool file = transport == IPC || transport == SHM;
        int tcp = transport_is_on_tcp(transport) ? 0 : SPOKE_EOPTION,
            ws = transport_is_ws(transport) ? 0 : SPOKE_EOPTION, ipc = file ? 0 : SPOKE_EOPTION;
        spoke_dialer *d;
        spoke_listener *l;
        bool flag;
        int mode, tls = transport_has_tls(transport) ? 0 : SPOKE_EOPTION;
        endpoint_fresh(url, transport);
        cr_assert_eq(spoke_dialer_create(&d, s, url), 0);
        cr_assert_eq(spoke_listener_create(&l, s, url), 0);
        cr_expect_eq(spoke_dialer_set_bool(d, SPOKE_OPT_TCP_NODELAY, false), tcp, "%s", url);
        cr_expect_eq(spoke_dialer_get_bool(d, SPOKE_OPT_TCP_KEEPALIVE, &flag), tcp, "%s", url);
        cr_expect_eq(spoke_listener_set_duration(l, SPOKE_OPT_TCP_KEEPALIVE_TIME, SPOKE_SECOND),
                     tcp, "%s", url);
        cr_expect_eq(spoke_listener_set_int(l, SPOKE_OPT_IPC_MODE, 0600), ipc, "%s", url);
        cr_expect_eq(spoke_listener_set_tls(l, NULL), tls, "%s", url);
        cr_expect_eq(spoke_dialer_set_tls(d, NULL), tls, "%s", url);
        cr_expect_eq(spoke_listener_get_int(l, SPOKE_OPT_IPC_OWNER, &mode), ipc, "%s", url);
        cr_expect_eq(spoke_dialer_set_int(d, SPOKE_OPT_IPC_MODE, 0600), SPOKE_EOPTION, "%s", url);
        cr_expect_eq(spoke_dialer_set_size(d, SPOKE_OPT_WS_FRAME_SIZE, 65536), ws, "%s", url);
        cr_expect_eq(spoke_listener_set_bool(l, SPOKE_OPT_WS_CHECK_ORIGIN, false), ws, "%s", url);
        cr_expect_eq(spoke_listener_set_bool(l, SPOKE_OPT_DIAL_ASYNC, false), SPOKE_EOPTION);
    }
}

/* What has had its effect is not changed in silence. */
Test(options, rights_of_a_socket_file_are_too_late_once_it_is_there)
{
    char url[ENDPOINT_MAX];
    spoke_listener *l;
    int mode = 0;

    endpoint_fresh(url, IPC);
    cr_assert_eq(spoke_listener_create(&l, s, url), 0);
    cr_expect_eq(spoke_listener_set_int(l, SPOKE_OPT_IPC_MODE, 0600), 0);
    cr_assert_eq(spoke_listener_start(l, 0), 0);
    cr_expect_eq(spoke_listener_set_int(l, SPOKE_OPT_IPC_MODE, 0666), SPOKE_ETOOLATE);
    cr_expect_eq(spoke_listener_set_int(l, SPOKE_OPT_IPC_OWNER, 1), SPOKE_ETOOLATE);
    cr_expect_eq(spoke_listener_set_int(l, SPOKE_OPT_IPC_GROUP, 1), SPOKE_ETOOLATE);
    cr_expect_eq(spoke_listener_get_int(l, SPOKE_OPT_IPC_MODE, &mode), 0);
    cr_expect_eq(mode, 0600);
    cr_expect_eq(spoke_listener_set_size(l, SPOKE_OPT_MAX_RECV_SIZE, 5), 0, "of the next pipes");
}

Test(options, a_requester_has_no_hop_limit)
{
    spoke_socket *req;
    int ttl = 0;

    cr_assert_eq(spoke_socket_open(&req, SPOKE_REQ, NULL), 0);
    cr_expect_eq(spoke_socket_set_int(req, SPOKE_OPT_TTL, 8), SPOKE_EOPTION);
    cr_expect_eq(spoke_socket_get_int(req, SPOKE_OPT_TTL, &ttl), SPOKE_EOPTION);
    cr_assert_eq(spoke_socket_close(req), 0);
}

Test(options, nothing_named_and_nothing_given_are_invalid_arguments)
{
    int value = 0;
    size_t size = sizeof value;

    cr_expect_eq(spoke_socket_set(s, NULL, SPOKE_INT, &value, size), SPOKE_EINVAL);
    cr_expect_eq(spoke_socket_set(s, SPOKE_OPT_MAX_PIPES, SPOKE_INT, NULL, size), SPOKE_EINVAL);
    cr_expect_eq(spoke_socket_get(s, SPOKE_OPT_MAX_PIPES, SPOKE_INT, &value, NULL), SPOKE_EINVAL);
    cr_expect_eq(spoke_socket_get(s, SPOKE_OPT_MAX_PIPES, SPOKE_INT, NULL, &size), SPOKE_EINVAL);
    cr_expect_eq(spoke_socket_set_string(s, SPOKE_OPT_NAME, NULL), 0, "the empty name");
}
