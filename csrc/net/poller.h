/* SPDX-License-Identifier: MIT */
/* A poller finds the sources that can read or write. It fills an array and has no callbacks. It is
 * epoll on Linux, kqueue on macOS and the BSDs, poll elsewhere or with LTDIC_POLL. Internal. */
#ifndef LTDIC_POLLER_H
#define LTDIC_POLLER_H

#include "source.h"

typedef struct poller poller;

typedef struct readiness {
    source *source;
    bool read, write, hung_up; /* can_read, can_write and hung_up of the source */
} readiness;

/* Makes a poller. Returns NULL if there is no memory or no descriptor. */
poller *ltdic__poller_new(void);
void ltdic__poller_free(poller *p); /* does nothing with NULL */
/* Returns the descriptor that is readable while a source is ready; -1 if this poller has none. */
int ltdic__poller_fd(const poller *p);

/* Watches a descriptor of a source. Only changes are reported: one that is still readable or
 * writable is not reported again. `writing`: room to write is reported, too.
 * @return LTDIC_OK, LTDIC_ERR_MEMORY, LTDIC_ERR_SYSTEM */
int ltdic__poller_add(poller *p, source *s, int fd, bool writing);
/* Reports room to write, too, for a descriptor that was added without. */
void ltdic__poller_want_write(poller *p, source *s, int fd);
/* Stops watching. Call it before the descriptor is closed: a child process may hold a copy of it,
 * which would stay watched. */
void ltdic__poller_remove(poller *p, int fd);

/* Waits up to `milliseconds` for a source to be ready. `ready` has room for `most`.
 * @return how many are in `ready`; -1 if a signal ended the wait */
int ltdic__poller_wait(poller *p, readiness *ready, int most, int milliseconds);

#endif
