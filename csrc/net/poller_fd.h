/* SPDX-License-Identifier: MIT */
/* A poller that is a descriptor of the system, as epoll and kqueue have it. Internal. */
#ifndef LTDIC_POLLER_FD_H
#define LTDIC_POLLER_FD_H

#include "poller.h"

enum { EVENTS_PER_WAIT = 256 };

struct poller {
    int fd;
};

/* Take over a descriptor that was just made. NULL: there is none (-1), or no memory. */
poller *ltdic__poller_of(int fd);

#endif
