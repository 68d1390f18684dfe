/* SPDX-License-Identifier: MIT */
/* A poller says which sources can read and write. It fills an array and calls nobody: epoll on
 * Linux, kqueue on macOS and the BSDs, poll elsewhere or with LTDIC_POLL. Internal. */
#ifndef LTDIC_POLLER_H
#define LTDIC_POLLER_H

#include "source.h"

typedef struct poller poller;

typedef struct readiness {
    source *source;
    bool read, write, hung_up; /* as the flags of a source */
} readiness;

/* NULL: no memory, or no descriptor. */
poller *ltdic__poller_new(void);
void ltdic__poller_free(poller *p); /* NULL is nothing */
/* The descriptor that is readable when a source is ready; -1: this poller has none. */
int ltdic__poller_fd(const poller *p);

/* Watch a descriptor of a source. It tells of changes only: what can be read or written already is
 * not told again. `writing`: also of room to write.
 * @return LTDIC_OK, LTDIC_ERR_MEMORY, LTDIC_ERR_SYSTEM */
int ltdic__poller_add(poller *p, source *s, int fd, bool writing);
/* Tell of room to write, too, of one that was added. */
void ltdic__poller_want_write(poller *p, source *s, int fd);
/* Before it is closed: a child process may hold a copy of the descriptor. */
void ltdic__poller_remove(poller *p, int fd);

/* Wait at most so many milliseconds for at most so many.
 * @return how many are in `ready`; -1: a signal came */
int ltdic__poller_wait(poller *p, readiness *ready, int most, int milliseconds);

#endif
