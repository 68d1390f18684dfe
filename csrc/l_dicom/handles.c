/* SPDX-License-Identifier: MIT */
/* The handles of associate objects, for all threads of the process.
 *
 * A handle is a serial number and a place in a table. A place that is used again gets another
 * serial number, so neither the handle of a freed object nor an invented handle is found.
 *
 * The table consists of segments, which never move and are never freed, so a look-up takes no lock.
 * No other function takes one either, so a child process never finds a lock that is held. Place 0
 * is not used: as a place it means none, and NULL is not found there. */
#include "handles.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum { SEGMENT_BITS = PLACE_BITS / 2, SEGMENT = 1 << SEGMENT_BITS };
enum { SEGMENTS = 1 << (PLACE_BITS - SEGMENT_BITS), PLACE_MASK = (1 << PLACE_BITS) - 1 };

typedef struct slot {
    atomic_uintptr_t handle; /* 0: free */
    atomic_size_t next_free; /* place */
    associate *object;       /* written before the handle, and read after it */
} slot;

static slot first_segment[SEGMENT];
static _Atomic(slot *) segments[SEGMENTS] = {first_segment};
static atomic_size_t last_used; /* the highest place that was ever used */

/* The first free place and, in the higher bits, a count of changes. If a place was taken and given
 * back by other threads meanwhile, the count has changed, and compare-and-exchange fails. */
static atomic_uintptr_t free_places;

static atomic_uintptr_t serial; /* number of the last handle of any kind, on any thread */

uintptr_t ltdic__new_handle(size_t place)
{
    return (atomic_fetch_add(&serial, 1) + 1) << PLACE_BITS | place;
}

/* Returns the slot of a place whose segment exists. */
static slot *slot_at(size_t place)
{
    return &atomic_load(&segments[place >> SEGMENT_BITS])[place & (SEGMENT - 1)];
}

associate *ltdic__associate_of(HDICOMPDU hPDU)
{
    const size_t place = (uintptr_t)hPDU & PLACE_MASK;
    if (atomic_load(&segments[place >> SEGMENT_BITS]) == NULL) {
        return NULL;
    }
    const slot *s = slot_at(place);
    return atomic_load(&s->handle) == (uintptr_t)hPDU ? s->object : NULL;
}

/* Makes the segment if it does not exist; another thread may do so at the same time. Returns false
 * if there is no memory. */
static bool open_segment(size_t index)
{
    if (atomic_load(&segments[index]) != NULL) {
        return true;
    }
    slot *segment = calloc(SEGMENT, sizeof *segment), *none = NULL;
    if (segment != NULL && !atomic_compare_exchange_strong(&segments[index], &none, segment)) {
        free(segment);
        return true;
    }
    return segment != NULL;
}

/* Returns a place that was never used; 0 if there is no memory or no place. */
static size_t new_place(void)
{
    size_t last = atomic_load(&last_used);
    do {
        if (last == PLACE_MASK || !open_segment((last + 1) >> SEGMENT_BITS)) {
            return 0;
        }
    } while (!atomic_compare_exchange_weak(&last_used, &last, last + 1));
    return last + 1;
}

/* Returns the value of `free_places` that follows `head`, with this place as the first free one. */
static uintptr_t changed(uintptr_t head, size_t place)
{
    return ((head >> PLACE_BITS) + 1) << PLACE_BITS | place;
}

static size_t take_place(void)
{
    uintptr_t head = atomic_load(&free_places);
    size_t place, next;
    do {
        place = head & PLACE_MASK;
        if (place == 0) {
            return new_place();
        }
        next = atomic_load(&slot_at(place)->next_free);
    } while (!atomic_compare_exchange_weak(&free_places, &head, changed(head, next)));
    return place;
}

static void give_back_place(size_t place)
{
    slot *s = slot_at(place);
    uintptr_t head = atomic_load(&free_places);
    do {
        atomic_store(&s->next_free, head & PLACE_MASK);
    } while (!atomic_compare_exchange_weak(&free_places, &head, changed(head, place)));
}

HDICOMPDU ltdic__handle_for(associate *object)
{
    const size_t place = take_place();
    if (place == 0) {
        return NULL;
    }
    const uintptr_t handle = ltdic__new_handle(place);
    slot *s = slot_at(place);
    s->object = object;
    atomic_store(&s->handle, handle);
    return (HDICOMPDU)handle;
}

void ltdic__forget_handle(HDICOMPDU hPDU)
{
    const size_t place = (uintptr_t)hPDU & PLACE_MASK;
    atomic_store(&slot_at(place)->handle, 0);
    give_back_place(place);
}
