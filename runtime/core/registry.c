/* SPDX-License-Identifier: MIT */
/* What is built in: modules.def, expanded to the lists and checked once. */
#include <string.h>

#include "runtime/core/core.h"

#define TRANSPORT(name) extern const struct spoke_transport spoke_transport_##name;
#define PROTOCOL(name)  extern const struct spoke_protocol spoke_protocol_##name;
#include "runtime/core/modules.def"
#undef TRANSPORT
#undef PROTOCOL

static const struct spoke_transport *const transports[] = {
#define TRANSPORT(name) &spoke_transport_##name,
#define PROTOCOL(name)
#include "runtime/core/modules.def"
#undef TRANSPORT
#undef PROTOCOL
};

static const struct spoke_protocol *const protocols[] = {
#define TRANSPORT(name)
#define PROTOCOL(name) &spoke_protocol_##name,
#include "runtime/core/modules.def"
#undef TRANSPORT
#undef PROTOCOL
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* A module that was built for another version, or that lacks what it must have, is as good as
 * absent. */
static bool
transport_is_sound(const struct spoke_transport *t)
{
    return t->abi == SPOKE_TRANSPORT_ABI && t->scheme != NULL && t->addresses[0].parse != NULL &&
           t->dial != NULL && t->dial_cancel != NULL && t->listen != NULL &&
           t->listen_close != NULL && t->listen_address != NULL;
}

static bool
protocol_is_sound(const struct spoke_protocol *p)
{
    bool as_it_comes = p->receives && p->recv == NULL;

    return p->abi == SPOKE_PROTOCOL_ABI && p->name != NULL && p->ready != NULL &&
           (p->received != NULL || as_it_comes) && (!p->sends || p->send != NULL) &&
           (p->context_size == 0 ||
            (p->context_send != NULL && p->context_recv != NULL && p->context_ready != NULL));
}

const struct spoke_protocol *
spk_find_protocol(int number)
{
    for (size_t i = 0; i < COUNT(protocols); i++)
        if (protocols[i]->number == number && protocol_is_sound(protocols[i]))
            return protocols[i];
    return NULL;
}

static const struct spk_url_form *
find_form(const struct spoke_transport *t, const char *prefix)
{
    for (size_t i = 0; i < SPK_ADDRESS_FORMS && t->addresses[i].prefix != NULL; i++)
        if (strcmp(t->addresses[i].prefix, prefix) == 0)
            return &t->addresses[i];
    return NULL;
}

const struct spoke_transport *
spk_find_transport(const char *prefix, const struct spk_url_form **form)
{
    for (size_t i = 0; i < COUNT(transports); i++)
        if (transport_is_sound(transports[i]) && (*form = find_form(transports[i], prefix)) != NULL)
            return transports[i];
    return NULL;
}
