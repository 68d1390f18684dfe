/* SPDX-License-Identifier: MIT */
/* The poller of macOS and the BSDs: kqueue(2) with EV_CLEAR, which reports each change once. */
#include "system.h"

#include "poller.h"

#if POLLER == KQUEUE

#include "poller_fd.h"
#include "transport.h"

#include <sys/event.h>
#include <sys/time.h>
#include <sys/types.h>

poller *ltdic__poller_new(void)
{
    return ltdic__poller_of(kqueue());
}

static int change(const poller *p, source *s, int fd, short filter, unsigned short flags)
{
    struct kevent e;
    EV_SET(&e, (uintptr_t)fd, filter, flags, 0, 0, (void *)s);
    return kevent(p->fd, &e, 1, NULL, 0, NULL) == 0 ? LTDIC_OK : ltdic__system_status();
}

int ltdic__poller_add(poller *p, source *s, int fd, bool writing)
{
    const int status = change(p, s, fd, EVFILT_READ, EV_ADD | EV_CLEAR);
    return status == LTDIC_OK && writing ? change(p, s, fd, EVFILT_WRITE, EV_ADD | EV_CLEAR)
                                         : status;
}

void ltdic__poller_want_write(poller *p, source *s, int fd)
{
    change(p, s, fd, EVFILT_WRITE, EV_ADD | EV_CLEAR);
}

void ltdic__poller_remove(poller *p, int fd)
{
    change(p, NULL, fd, EVFILT_READ, EV_DELETE);
    change(p, NULL, fd, EVFILT_WRITE, EV_DELETE);
}

int ltdic__poller_wait(poller *p, readiness *ready, int most, int milliseconds)
{
    struct kevent events[EVENTS_PER_WAIT];
    const struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    const int room = most < EVENTS_PER_WAIT ? most : EVENTS_PER_WAIT;
    const int count = kevent(p->fd, NULL, 0, events, room, &time);
    for (int i = 0; i < count; i++) {
        const bool over = (events[i].flags & (EV_EOF | EV_ERROR)) != 0;
        ready[i] = (readiness){.source = (source *)events[i].udata,
                               .read = over || events[i].filter == EVFILT_READ,
                               .write = over || events[i].filter == EVFILT_WRITE,
                               .hung_up = over};
    }
    return count >= 0 ? count : ltdic__was_interrupted() ? -1 : 0;
}

#endif
