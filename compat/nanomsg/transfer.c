/* SPDX-License-Identifier: MIT */
/* Sending and receiving.  The plain forms come first: they are the hot path, and take no lock of
 * this library's. */
#include "internal.h"

#include <limits.h>
#include <nanomsg/bus.h>
#include <nanomsg/reqrep.h>
#include <nanomsg/survey.h>
#include <string.h>
#include <time.h>

static int
spoke_flags(int flags)
{
    return (flags & NN_DONTWAIT) != 0 ? SPOKE_DONTWAIT : 0;
}

/* ---- messages without a copy ---- */

/* Send the message whose body the program holds; it goes on holding it if that fails. */
static int
send_chunk(spoke_socket *handle, void *body, int flags)
{
    struct compat_chunk *chunk;
    size_t size;
    int rc;

    if (body == NULL)
        return compat_fail(EFAULT);
    chunk = compat_chunk_take(body);
    size = spoke_msg_size(chunk->m);
    if ((rc = spoke_send(handle, chunk->m, spoke_flags(flags))) != 0) {
        compat_chunk_return(chunk);
        return compat_fail_as(rc);
    }
    compat_chunk_free(chunk);
    return (int)size;
}

/* ---- receiving ---- */

static spoke_ns
now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SPOKE_SECOND + now.tv_nsec;
}

/* How long may a receive that began at `begin` go on waiting?  -1: for ever. */
static int
left_ms(spoke_ns begin, int limit_ms)
{
    spoke_ns left = begin + limit_ms * SPOKE_MS - now_ns();

    if (limit_ms < 0)
        return -1;
    return left <= 0 ? 0 : (int)((left + SPOKE_MS - 1) / SPOKE_MS);
}

/* Wait for what can be received; -1 and errno. */
static int
wait_for_message(int s, spoke_ns begin)
{
    struct nn_pollfd fd = {.fd = s, .events = NN_POLLIN};
    int limit_ms, rc;
    size_t size = sizeof limit_ms;

    if (nn_getsockopt(s, NN_SOL_SOCKET, NN_RCVTIMEO, &limit_ms, &size) != 0)
        return -1;
    rc = nn_poll(&fd, 1, left_ms(begin, limit_ms));
    return rc == 0 ? compat_fail(ETIMEDOUT) : rc;
}

/* Requests and surveys are replaced by the next one. */
static bool
is_replaceable(int s)
{
    int protocol = atomic_load_explicit(&compat_sockets[s].protocol, memory_order_relaxed);

    return protocol == NN_REQ || protocol == NN_SURVEYOR;
}

/* A request that takes the place of another does not end the wait, as the next reply is as good,
 * nor does it make it longer.  -1 and errno. */
static int
receive(int s, spoke_socket *handle, spoke_msg **m, int flags)
{
    spoke_ns begin = is_replaceable(s) ? now_ns() : 0;
    int rc = spoke_recv(handle, m, spoke_flags(flags));

    if (rc == SPOKE_ECANCELED) {
        while ((rc = spoke_recv(handle, m, SPOKE_DONTWAIT)) == SPOKE_EAGAIN)
            if (wait_for_message(s, begin) < 0)
                return -1;
    }
    return rc != 0 ? compat_fail_as(rc) : 0;
}

/* Give a received message to the program, its body only. */
static int
give_chunk(spoke_msg *m, void **body)
{
    size_t size = spoke_msg_size(m), header = spoke_msg_header_size(m);
    int rc = 0;

    if (header > 0 && (rc = spoke_msg_make_unique(&m)) == 0)
        rc = spoke_msg_header_trim_back(m, header);
    if (rc != 0)
        spoke_msg_free(m);
    else
        rc = compat_chunk_new(body, m);
    return rc != 0 ? compat_fail_as(rc) : (int)size;
}

/* ---- the plain forms ---- */

int
nn_send(int s, const void *buf, size_t len, int flags)
{
    spoke_socket *handle = compat_handle(s);
    int rc;

    if (handle == NULL)
        return -1;
    if (buf == NULL && len > 0)
        return compat_fail(EFAULT);
    if (len == NN_MSG)
        return send_chunk(handle, *(void *const *)buf, flags);
    rc = spoke_send_bytes(handle, buf, len, spoke_flags(flags));
    return rc != 0 ? compat_fail_as(rc) : (int)len;
}

int
nn_recv(int s, void *buf, size_t len, int flags)
{
    spoke_socket *handle = compat_handle(s);
    size_t size;
    spoke_msg *m;

    if (handle == NULL)
        return -1;
    if (buf == NULL && len > 0)
        return compat_fail(EFAULT);
    if (receive(s, handle, &m, flags) != 0)
        return -1;
    if (len == NN_MSG)
        return give_chunk(m, buf);
    size = spoke_msg_size(m);
    if (size < len)
        len = size;
    if (len > 0)
        memcpy(buf, spoke_msg_body(m), len);
    spoke_msg_free(m);
    return (int)size;
}

/* ---- control data ---- */

/* Where the control data of `hdr` is, and how much. */
static unsigned char *
find_control(const struct nn_msghdr *hdr, size_t *size)
{
    void *control = hdr->msg_control;

    *size = 0;
    if (control == NULL)
        return NULL;
    if (hdr->msg_controllen != NN_MSG) {
        *size = hdr->msg_controllen;
        return control;
    }
    if ((control = *(void **)control) != NULL)
        *size = compat_chunk_size(control);
    return control;
}

struct nn_cmsghdr *
nn_cmsg_nxthdr_(const struct nn_msghdr *mhdr, const struct nn_cmsghdr *cmsg)
{
    size_t size, at = 0;
    unsigned char *control;
    struct nn_cmsghdr *next;

    if (mhdr == NULL || (control = find_control(mhdr, &size)) == NULL)
        return NULL;
    if (cmsg != NULL) {
        at = (size_t)((const unsigned char *)cmsg - control);
        if (at > size || cmsg->cmsg_len < sizeof *cmsg || cmsg->cmsg_len > size - at)
            return NULL;
        at += NN_CMSG_ALIGN_(cmsg->cmsg_len);
    }
    if (at > size || size - at < sizeof *next)
        return NULL;
    next = (struct nn_cmsghdr *)(void *)(control + at);
    return next->cmsg_len < sizeof *next || next->cmsg_len > size - at ? NULL : next;
}

/* A raw BUS message carries its pipe in 8 bytes there and in one word, of 4, here. */
#define BUS_NANOMSG 8u
#define BUS_SPOKE   4u

static bool
is_raw_bus(const struct compat_socket *c)
{
    return atomic_load_explicit(&c->protocol, memory_order_relaxed) == NN_BUS &&
           atomic_load_explicit(&c->domain, memory_order_relaxed) == AF_SP_RAW;
}

/* The words that the control data gives, if it gives any. */
static void
find_header(const struct nn_msghdr *hdr, const unsigned char **words, size_t *size)
{
    struct nn_cmsghdr *cmsg = NN_CMSG_FIRSTHDR(hdr);
    size_t room;

    *words = NULL;
    *size = 0;
    while (cmsg != NULL && (cmsg->cmsg_level != PROTO_SP || cmsg->cmsg_type != SP_HDR))
        cmsg = NN_CMSG_NXTHDR(hdr, cmsg);
    if (cmsg == NULL || (room = cmsg->cmsg_len - sizeof *cmsg) < sizeof *size)
        return;
    memcpy(size, NN_CMSG_DATA(cmsg), sizeof *size);
    if (*size > room - sizeof *size)
        *size = 0;
    *words = NN_CMSG_DATA(cmsg) + sizeof *size;
}

/* Put the words in front of `m`; an errno. */
static int
put_header(const struct compat_socket *c, spoke_msg *m, const struct nn_msghdr *hdr)
{
    const unsigned char *words;
    size_t size;
    int rc;

    find_header(hdr, &words, &size);
    if (is_raw_bus(c) && size != 0) {
        if (size != BUS_NANOMSG)
            return EINVAL;
        words += BUS_NANOMSG - BUS_SPOKE;
        size = BUS_SPOKE;
    }
    if (size == 0)
        return 0;
    rc = spoke_msg_header_append(m, words, size);
    return rc == 0 ? 0 : rc == SPOKE_ENOMEM ? ENOMEM : EINVAL;
}

/* Write the header of `m` as control data.  Where the caller's room is too small for it, nothing is
 * written.  False: no memory. */
static bool
give_control(const struct compat_socket *c, const spoke_msg *m, struct nn_msghdr *hdr)
{
    size_t words = spoke_msg_header_size(m), pad, count, space;
    unsigned char *to = hdr->msg_control, *data;
    struct nn_cmsghdr head;

    pad = is_raw_bus(c) && words == BUS_SPOKE ? BUS_NANOMSG - BUS_SPOKE : 0;
    count = pad + words;
    space = NN_CMSG_SPACE(count + sizeof count);
    if (hdr->msg_controllen == NN_MSG) {
        if ((to = nn_allocmsg(space, 0)) == NULL)
            return false;
        *(void **)hdr->msg_control = to;
    } else if (hdr->msg_controllen < space) {
        return true;
    }
    memset(to, 0, space);
    head = (struct nn_cmsghdr){.cmsg_len = space, .cmsg_level = PROTO_SP, .cmsg_type = SP_HDR};
    memcpy(to, &head, sizeof head);
    data = to + sizeof head;
    memcpy(data, &count, sizeof count);
    if (words > 0)
        memcpy(data + sizeof count + pad, spoke_msg_header(m), words);
    return true;
}

/* … not after all.  Leaves errno. */
static void
take_control_back(struct nn_msghdr *hdr)
{
    void **control = hdr->msg_control;
    int error = errno;

    if (control == NULL || hdr->msg_controllen != NN_MSG)
        return;
    nn_freemsg(*control);
    *control = NULL;
    errno = error;
}

/* ---- the long forms ---- */

static bool
is_one_chunk(const struct nn_msghdr *hdr)
{
    return hdr->msg_iovlen == 1 && hdr->msg_iov[0].iov_len == NN_MSG;
}

/* The size of all parts; 0 or an errno. */
static int
measure(const struct nn_msghdr *hdr, size_t *size)
{
    *size = 0;
    for (int i = 0; i < hdr->msg_iovlen; i++) {
        const struct nn_iovec *part = &hdr->msg_iov[i];

        if (part->iov_len == NN_MSG || *size + part->iov_len < *size)
            return EINVAL;
        if (part->iov_base == NULL && part->iov_len > 0)
            return EFAULT;
        *size += part->iov_len;
    }
    return 0;
}

static void
gather(spoke_msg *m, const struct nn_msghdr *hdr)
{
    unsigned char *to = spoke_msg_body(m);

    for (int i = 0; i < hdr->msg_iovlen; i++) {
        if (hdr->msg_iov[i].iov_len > 0)
            memcpy(to, hdr->msg_iov[i].iov_base, hdr->msg_iov[i].iov_len);
        to += hdr->msg_iov[i].iov_len;
    }
}

static void
scatter(const spoke_msg *m, const struct nn_msghdr *hdr)
{
    const unsigned char *from = spoke_msg_body(m);
    size_t left = spoke_msg_size(m);

    for (int i = 0; i < hdr->msg_iovlen && left > 0; i++) {
        size_t part = hdr->msg_iov[i].iov_len < left ? hdr->msg_iov[i].iov_len : left;

        if (part > 0)
            memcpy(hdr->msg_iov[i].iov_base, from, part);
        from += part;
        left -= part;
    }
}

/* A message to send: the program's own (*chunk), or one of its parts.  0 or an errno. */
static int
collect(const struct nn_msghdr *hdr, spoke_msg **m, struct compat_chunk **chunk)
{
    size_t size;
    int error;

    *chunk = NULL;
    if (is_one_chunk(hdr)) {
        void **body = hdr->msg_iov[0].iov_base;

        if (body == NULL || *body == NULL)
            return EFAULT;
        *chunk = compat_chunk_take(*body);
        *m = (*chunk)->m;
        return 0;
    }
    if ((error = measure(hdr, &size)) != 0)
        return error;
    if (spoke_msg_new(m, size) != 0)
        return size > SPOKE_MSG_MAX ? EMSGSIZE : ENOMEM;
    gather(*m, hdr);
    return 0;
}

/* The message was not sent: it is the program's again, without the words, or gone. */
static void
uncollect(spoke_msg *m, struct compat_chunk *chunk)
{
    if (chunk == NULL) {
        spoke_msg_free(m);
        return;
    }
    spoke_msg_header_trim_back(m, spoke_msg_header_size(m));
    compat_chunk_return(chunk);
}

int
nn_sendmsg(int s, const struct nn_msghdr *msghdr, int flags)
{
    spoke_socket *handle = compat_handle(s);
    struct compat_chunk *chunk;
    spoke_msg *m;
    size_t size;
    int error, rc;

    if (handle == NULL)
        return -1;
    if (msghdr == NULL)
        return compat_fail(EINVAL);
    if (msghdr->msg_iovlen < 0)
        return compat_fail(EMSGSIZE);
    if ((error = collect(msghdr, &m, &chunk)) != 0)
        return compat_fail(error);
    if ((error = put_header(&compat_sockets[s], m, msghdr)) != 0) {
        uncollect(m, chunk);
        return compat_fail(error);
    }
    size = spoke_msg_size(m);
    if ((rc = spoke_send(handle, m, spoke_flags(flags))) != 0) {
        uncollect(m, chunk);
        return compat_fail_as(rc);
    }
    if (chunk != NULL)
        compat_chunk_free(chunk);
    if (msghdr->msg_control != NULL && msghdr->msg_controllen == NN_MSG &&
        *(void **)msghdr->msg_control != NULL)
        nn_freemsg(*(void **)msghdr->msg_control);
    return (int)size;
}

int
nn_recvmsg(int s, struct nn_msghdr *msghdr, int flags)
{
    spoke_socket *handle = compat_handle(s);
    spoke_msg *m;
    size_t size;
    int error, given;

    if (handle == NULL)
        return -1;
    if (msghdr == NULL)
        return compat_fail(EINVAL);
    if (msghdr->msg_iovlen < 0)
        return compat_fail(EMSGSIZE);
    if (is_one_chunk(msghdr))
        error = msghdr->msg_iov[0].iov_base == NULL ? EFAULT : 0;
    else
        error = measure(msghdr, &size);
    if (error != 0)
        return compat_fail(error);
    if (receive(s, handle, &m, flags) != 0)
        return -1;
    if (msghdr->msg_control != NULL && !give_control(&compat_sockets[s], m, msghdr)) {
        spoke_msg_free(m);
        return compat_fail(ENOMEM);
    }
    if (is_one_chunk(msghdr)) {
        if ((given = give_chunk(m, msghdr->msg_iov[0].iov_base)) < 0)
            take_control_back(msghdr);
        return given;
    }
    scatter(m, msghdr);
    size = spoke_msg_size(m);
    spoke_msg_free(m);
    return (int)size;
}
