/* SPDX-License-Identifier: MIT */
/* News for whoever wants it: a publisher says everything to everybody, each subscriber hears what
 * it asked for.  One that falls behind gets the latest of each topic instead of all of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <spoke/spoke.h>

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "pubsub: %s\n", spoke_strerror(rc));
    exit(1);
}

static spoke_socket *
subscribe(const char *topic)
{
    spoke_socket *s;

    check(spoke_socket_open(&s, SPOKE_SUB, NULL));
    check(spoke_socket_set_string(s, SPOKE_OPT_SUBSCRIBE, topic)); /* … and others, if you like */
    check(spoke_dial(s, "inproc://news", NULL, SPOKE_WAIT_FIRST));
    return s;
}

static void
hear(spoke_socket *s, const char *who, int count)
{
    for (char text[64]; count > 0; count--) {
        size_t size = sizeof text;
        check(spoke_recv_bytes(s, text, &size, 0));
        printf("%s: %.*s\n", who, (int)size, text);
    }
}

int
main(void)
{
    static const char *const news[] = {"weather.dover: gale", "sport: nil all",
                                       "weather.wight: calm"};
    spoke_socket *pub;

    check(spoke_socket_open(&pub, SPOKE_PUB, NULL));
    check(spoke_socket_set_int(pub, SPOKE_OPT_LOSS, SPOKE_LOSS_CONFLATE));
    check(spoke_socket_set_size(pub, SPOKE_OPT_TOPIC_SIZE, SIZE_MAX)); /* a topic may be long … */
    check(spoke_socket_set_int(pub, SPOKE_OPT_TOPIC_END, ':'));        /* … and ends with this */
    check(spoke_listen(pub, "inproc://news", NULL, 0));
    spoke_socket *sailor = subscribe("weather."), *reader = subscribe("");
    for (int i = 0; i < 3; i++)
        check(spoke_send_bytes(pub, news[i], strlen(news[i]), 0));
    hear(sailor, "sailor", 2); /* not the sport */
    hear(reader, "reader", 3);
    return spoke_socket_close(sailor) | spoke_socket_close(reader) | spoke_socket_close(pub);
}
