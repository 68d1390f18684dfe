/* SPDX-License-Identifier: MIT */
/* A binary heap of timers: see timers.h. */
#include "timers.h"

#include <stdlib.h>

static void put(timers *t, size_t place, source *s)
{
    t->heap[place - 1] = s;
    s->timer = place;
}

/* Moves a source from a free place up to its place in the heap. */
static void rise(timers *t, size_t place, source *s)
{
    while (place > 1 && t->heap[place / 2 - 1]->wakes > s->wakes) {
        put(t, place, t->heap[place / 2 - 1]);
        place /= 2;
    }
    put(t, place, s);
}

static void sink(timers *t, size_t place, source *s)
{
    for (;;) {
        size_t next = 2 * place;
        if (next < t->count && t->heap[next]->wakes < t->heap[next - 1]->wakes) {
            next++;
        }
        if (next > t->count || t->heap[next - 1]->wakes >= s->wakes) {
            break;
        }
        put(t, place, t->heap[next - 1]);
        place = next;
    }
    rise(t, place, s);
}

static void stop(timers *t, source *s)
{
    const size_t place = s->timer;
    if (place == 0) {
        return;
    }
    source *last = t->heap[--t->count];
    s->timer = 0;
    if (last != s) {
        sink(t, place, last);
    }
}

void ltdic__timers_set(timers *t, source *s, uint64_t when)
{
    stop(t, s);
    if (when != 0) {
        s->wakes = when;
        rise(t, ++t->count, s);
    }
}

bool ltdic__timers_reserve(timers *t, size_t sources)
{
    if (sources <= t->room) {
        return true;
    }
    const size_t room = t->room == 0 ? 16 : 2 * t->room;
    source **heap = realloc(t->heap, room * sizeof(source *));
    if (heap == NULL) {
        return false;
    }
    t->heap = heap;
    t->room = room;
    return true;
}

void ltdic__timers_free(timers *t)
{
    free(t->heap);
}

uint64_t ltdic__timers_first(const timers *t)
{
    return t->count == 0 ? 0 : t->heap[0]->wakes;
}

source *ltdic__timers_take(timers *t, uint64_t now)
{
    source *first = t->count == 0 || t->heap[0]->wakes > now ? NULL : t->heap[0];
    if (first != NULL) {
        stop(t, first);
    }
    return first;
}
