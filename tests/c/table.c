/* SPDX-License-Identifier: MIT */
/* White-box test of the table of handles: no memory for a segment, and threads that take and free
 * places concurrently. The table never dereferences objects, so any pointer will do. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

static int no_memory;

static void *allocate(size_t count, size_t size)
{
    return no_memory ? NULL : calloc(count, size);
}

#define calloc allocate
#include "l_dicom/handles.c"

#undef NDEBUG
#include <assert.h>
#include <stdio.h>

enum { THREADS = 4, HELD = 3, MANY = 3 * SEGMENT, ROUNDS = 200000 };

static associate *object_number(uintptr_t n)
{
    return (associate *)(n + 1);
}

static void without_memory_for_a_segment_there_is_no_handle(void)
{
    static HDICOMPDU handles[MANY];
    size_t made = 0;
    no_memory = 1;
    while ((handles[made] = ltdic__handle_for(object_number(made))) != NULL) {
        made++;
    }
    assert(made == SEGMENT - 1); /* place 0 is not used */
    ltdic__forget_handle(handles[5]);
    handles[5] = ltdic__handle_for(object_number(5));
    assert(handles[5] != NULL && ltdic__handle_for(object_number(made)) == NULL);
    no_memory = 0;
    for (; made < MANY; made++) {
        handles[made] = ltdic__handle_for(object_number(made));
        assert(handles[made] != NULL);
    }
    for (size_t i = 0; i < MANY; i++) {
        assert(ltdic__associate_of(handles[i]) == object_number(i));
        ltdic__forget_handle(handles[i]);
        assert(ltdic__associate_of(handles[i]) == NULL);
    }
}

static void a_place_is_used_again_and_its_handle_is_not(void)
{
    const size_t used = atomic_load(&last_used);
    HDICOMPDU last = NULL;
    for (uintptr_t i = 0; i < ROUNDS; i++) {
        HDICOMPDU handle = ltdic__handle_for(object_number(i));
        assert(handle != NULL && handle != last && ltdic__associate_of(last) == NULL);
        ltdic__forget_handle(handle);
        last = handle;
    }
    assert(atomic_load(&last_used) == used);
}

/* ---- threads ------------------------------------------------------------------------------ */

static void *take_and_give_back(void *argument)
{
    const uintptr_t first = *(uintptr_t *)argument;
    HDICOMPDU held[HELD] = {NULL};
    for (uintptr_t i = 0; i < ROUNDS; i++) {
        HDICOMPDU *handle = &held[i % HELD];
        if (*handle != NULL) {
            assert(ltdic__associate_of(*handle) == object_number(first + i - HELD));
            ltdic__forget_handle(*handle);
            assert(ltdic__associate_of(*handle) == NULL);
        }
        *handle = ltdic__handle_for(object_number(first + i));
        assert(*handle != NULL);
    }
    for (int i = 0; i < HELD; i++) {
        ltdic__forget_handle(held[i]);
    }
    return NULL;
}

static void *take_many(void *argument)
{
    const uintptr_t first = *(uintptr_t *)argument;
    HDICOMPDU *handles = malloc(MANY * sizeof *handles);
    assert(handles != NULL);
    for (uintptr_t i = 0; i < MANY; i++) {
        handles[i] = ltdic__handle_for(object_number(first + i));
        assert(handles[i] != NULL);
    }
    for (uintptr_t i = 0; i < MANY; i++) {
        assert(ltdic__associate_of(handles[i]) == object_number(first + i));
        ltdic__forget_handle(handles[i]);
    }
    free(handles);
    return NULL;
}

static void run_threads(void *(*function)(void *))
{
    pthread_t threads[THREADS];
    uintptr_t first[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) {
        first[i] = i * (ROUNDS + MANY);
        assert(pthread_create(&threads[i], NULL, function, &first[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert(pthread_join(threads[i], NULL) == 0);
    }
}

/* Every used place except 0 is free, and none is in the list twice. */
static void every_place_is_free_once(void)
{
    size_t count = 0, place = atomic_load(&free_places) & PLACE_MASK;
    for (; place != 0 && count <= PLACE_MASK; count++) {
        assert(atomic_load(&slot_at(place)->handle) == 0);
        place = atomic_load(&slot_at(place)->next_free);
    }
    assert(count == atomic_load(&last_used));
}

static void threads_take_and_give_back_places_and_none_is_lost(void)
{
    run_threads(take_many);
    every_place_is_free_once();
    const size_t used = atomic_load(&last_used);
    assert(used <= (size_t)THREADS * MANY);
    run_threads(take_and_give_back);
    every_place_is_free_once();
    assert(atomic_load(&last_used) == used);
}

int main(void)
{
    without_memory_for_a_segment_there_is_no_handle();
    a_place_is_used_again_and_its_handle_is_not();
    threads_take_and_give_back_places_and_none_is_lost();
    printf("3 tests\n");
    return 0;
}
