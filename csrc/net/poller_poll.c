/* SPDX-License-Identifier: MIT */
/* The poller of all other systems: poll(2). It asks only for readiness that a source does not have
 * already, so that, like the other pollers, it reports changes only. */
#include "system.h"

#include "poller.h"

#if POLLER == POLL

#include "transport.h"

#include <poll.h>
#include <stdlib.h>

typedef struct watched {
    source *source;
    int fd;
} watched;

struct poller {
    watched *all;
    struct pollfd *asked;
    size_t count, room;
};

poller *ltdic__poller_new(void)
{
    return calloc(1, sizeof(poller));
}

void ltdic__poller_free(poller *p)
{
    if (p != NULL) {
        free(p->all);
        free(p->asked);
        free(p);
    }
}

int ltdic__poller_fd(const poller *p)
{
    (void)p;
    return -1;
}

static bool reserve(poller *p)
{
    if (p->count < p->room) {
        return true;
    }
    const size_t room = p->room == 0 ? 16 : 2 * p->room;
    watched *all = realloc(p->all, room * sizeof *all);
    p->all = all != NULL ? all : p->all;
    struct pollfd *asked = realloc(p->asked, room * sizeof *asked);
    p->asked = asked != NULL ? asked : p->asked;
    p->room = all != NULL && asked != NULL ? room : p->room;
    return p->count < p->room;
}

int ltdic__poller_add(poller *p, source *s, int fd, bool writing)
{
    (void)writing; /* ask_all() asks for all that the source is not ready for */
    if (!reserve(p)) {
        return LTDIC_ERR_MEMORY;
    }
    p->all[p->count++] = (watched){s, fd};
    return LTDIC_OK;
}

void ltdic__poller_want_write(poller *p, source *s, int fd)
{
    (void)p, (void)s, (void)fd;
}

void ltdic__poller_remove(poller *p, int fd)
{
    for (size_t i = p->count; i-- > 0;) {
        if (p->all[i].fd == fd) {
            p->all[i] = p->all[--p->count];
            return;
        }
    }
}

/* Fills the array for poll(2), which skips negative descriptors. */
static void ask_all(poller *p)
{
    for (size_t i = 0; i < p->count; i++) {
        const source *s = p->all[i].source;
        const short events = (short)((s->can_read ? 0 : POLLIN) | (s->can_write ? 0 : POLLOUT));
        p->asked[i] = (struct pollfd){events == 0 ? -1 : p->all[i].fd, events, 0};
    }
}

int ltdic__poller_wait(poller *p, readiness *ready, int most, int milliseconds)
{
    int count = 0;
    ask_all(p);
    const int found = poll(p->asked, (nfds_t)p->count, milliseconds);
    for (size_t i = 0; found > 0 && i < p->count && count < most; i++) {
        const short flags = p->asked[i].revents;
        if (flags != 0) {
            ready[count++] = (readiness){.source = p->all[i].source,
                                         .read = (flags & (POLLIN | POLLHUP | POLLERR)) != 0,
                                         .write = (flags & (POLLOUT | POLLHUP | POLLERR)) != 0,
                                         .hung_up = (flags & (POLLHUP | POLLERR)) != 0};
        }
    }
    return found >= 0 ? count : ltdic__was_interrupted() ? -1 : 0;
}

#endif
