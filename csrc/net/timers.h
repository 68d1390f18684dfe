/* SPDX-License-Identifier: MIT */
/* The timers of a loop: a heap with at most one for each source. Internal. */
#ifndef LTDIC_TIMERS_H
#define LTDIC_TIMERS_H

#include "source.h"

typedef struct timers {
    source **heap; /* each wakes no earlier than the one at half its place */
    size_t count, room;
} timers;

/* Make room for the timers of so many sources. False when out of memory. */
bool ltdic__timers_reserve(timers *t, size_t sources);
void ltdic__timers_free(timers *t);

/* Set, move or, with 0, stop the timer of a source. It never fails: room is reserved. */
void ltdic__timers_set(timers *t, source *s, uint64_t when);

/* When the first timer fires; 0: there is none. */
uint64_t ltdic__timers_first(const timers *t);
/* Stop the first timer, if it has fired by now, and return its source; else NULL. */
source *ltdic__timers_take(timers *t, uint64_t now);

#endif
