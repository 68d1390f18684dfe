/* SPDX-License-Identifier: MIT */
/* Makes and frees a poller that is one descriptor. */
#include "system.h"

#include "poller_fd.h"

#if POLLER != POLL

#include <stdlib.h>
#include <unistd.h>

poller *ltdic__poller_of(int fd)
{
    poller *p = fd >= 0 ? malloc(sizeof *p) : NULL;
    if (p != NULL) {
        p->fd = fd;
    } else if (fd >= 0) {
        close(fd);
    }
    return p;
}

void ltdic__poller_free(poller *p)
{
    if (p != NULL) {
        close(p->fd);
        free(p);
    }
}

int ltdic__poller_fd(const poller *p)
{
    return p->fd;
}

#endif
