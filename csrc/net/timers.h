/* SPDX-License-Identifier: MIT */
/* The timers of a loop: a heap with at most one for each source. Internal. */
#ifndef LTDIC_TIMERS_H
#define LTDIC_TIMERS_H

#include "source.h"

typedef struct timers {
    source **heap; /* heap[place - 1]; place / 2 is the parent, which fires no later */
    size_t count, room;
} timers;

/* Makes room for the timers of so many sources. Returns false if there is no memory. */
bool ltdic__timers_reserve(timers *t, size_t sources);
void ltdic__timers_free(timers *t);

/* Sets the timer of a source to a time of ltdic__now; 0 stops it. It cannot fail, as room is
 * reserved. */
void ltdic__timers_set(timers *t, source *s, uint64_t when);

/* Returns when the first timer fires; 0 if there is none. */
uint64_t ltdic__timers_first(const timers *t);
/* Stops the first timer if it has fired by now, and returns its source; else returns NULL. */
source *ltdic__timers_take(timers *t, uint64_t now);

#endif
