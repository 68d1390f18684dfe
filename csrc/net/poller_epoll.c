/* SPDX-License-Identifier: MIT */
/* The poller of Linux: epoll(7), edge-triggered. */
#include "system.h"

#include "poller.h"

#if POLLER == EPOLL

#include "poller_fd.h"
#include "transport.h"

#include <sys/epoll.h>

poller *ltdic__poller_new(void)
{
    return ltdic__poller_of(epoll_create1(EPOLL_CLOEXEC));
}

static int control(const poller *p, source *s, int fd, int operation, bool writing)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET,
                            .data = {.ptr = s}};
    if (writing) {
        e.events |= EPOLLOUT;
    }
    if (s != NULL && s->exclusive) {
        e.events = EPOLLIN | EPOLLET | EPOLLEXCLUSIVE;
    }
    return epoll_ctl(p->fd, operation, fd, &e) == 0 ? LTDIC_OK : ltdic__system_status();
}

int ltdic__poller_add(poller *p, source *s, int fd, bool writing)
{
    return control(p, s, fd, EPOLL_CTL_ADD, writing);
}

void ltdic__poller_want_write(poller *p, source *s, int fd)
{
    control(p, s, fd, EPOLL_CTL_MOD, true);
}

void ltdic__poller_remove(poller *p, int fd)
{
    control(p, NULL, fd, EPOLL_CTL_DEL, false);
}

int ltdic__poller_wait(poller *p, readiness *ready, int most, int milliseconds)
{
    struct epoll_event events[EVENTS_PER_WAIT];
    const int room = most < EVENTS_PER_WAIT ? most : EVENTS_PER_WAIT;
    const int count = epoll_wait(p->fd, events, room, milliseconds);
    for (int i = 0; i < count; i++) {
        const uint32_t flags = events[i].events;
        ready[i] =
            (readiness){.source = events[i].data.ptr,
                        .read = (flags & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0,
                        .write = (flags & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0,
                        .hung_up = (flags & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0};
    }
    return count >= 0 ? count : ltdic__was_interrupted() ? -1 : 0;
}

#endif
