/* SPDX-License-Identifier: MIT */
/* A poller that is one descriptor: epoll and kqueue. Internal. */
#ifndef LTDIC_POLLER_FD_H
#define LTDIC_POLLER_FD_H

#include "poller.h"

enum { EVENTS_PER_WAIT = 256 };

struct poller {
    int fd;
};

/* Makes a poller that owns `fd`. Returns NULL if `fd` is -1 or there is no memory; `fd` is closed
 * then. */
poller *ltdic__poller_of(int fd);

#endif
