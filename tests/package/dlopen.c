/* SPDX-License-Identifier: MIT */
/* dlopen LIBRARY: loads it at run time, as interpreters do, and opens and closes a socket. */
#include <dlfcn.h>
#include <stdio.h>

#include <spoke/spoke.h>

static void *
find(void *library, const char *name)
{
    void *found = dlsym(library, name);

    if (found == NULL)
        fprintf(stderr, "dlopen: %s\n", dlerror());
    return found;
}

int
main(int argc, char **argv)
{
    void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
    int (*open_socket)(spoke_socket **, int, spoke_engine *);
    int (*close_socket)(spoke_socket *);
    spoke_socket *s;

    if (library == NULL) {
        fprintf(stderr, "dlopen: %s\n", dlerror());
        return 1;
    }
    *(void **)(void *)&open_socket = find(library, "spoke_socket_open");
    *(void **)(void *)&close_socket = find(library, "spoke_socket_close");
    if (open_socket == NULL || close_socket == NULL)
        return 1;
    return open_socket(&s, SPOKE_PAIR, NULL) == 0 && close_socket(s) == 0 ? 0 : 1;
}
