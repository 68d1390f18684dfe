/* SPDX-License-Identifier: MIT */
/* A source: one thing that a loop waits for. Endpoints, listeners and the wake-up are kinds of it.
 *
 * Readiness is remembered (can_read, can_write) until the system says that there is no more, so
 * each descriptor is registered once. Internal. */
#ifndef LTDIC_SOURCE_H
#define LTDIC_SOURCE_H

#include "ltdic.h"

#include <stdbool.h>
#include <stddef.h>

/* ---- lists: an element that is in no list is linked to itself */

typedef struct node {
    struct node *prev, *next;
} node;

static inline void list_init(node *l)
{
    l->prev = l->next = l;
}

static inline bool list_empty(const node *l)
{
    return l->next == l;
}

static inline void list_remove(node *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    list_init(l);
}

static inline void list_insert_before(node *place, node *l)
{
    l->prev = place->prev;
    l->next = place;
    place->prev->next = l;
    place->prev = l;
}

static inline void list_splice(node *to, node *from)
{
    while (!list_empty(from)) {
        node *l = from->next;
        list_remove(l);
        list_insert_before(to, l);
    }
}

/* The structure of this type that has a node, or a source, as its member. */
#define CONTAINER_OF(pointer, type, member) \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* ---- sources */

typedef struct source source;

typedef struct source_kind {
    /* The next indication; false when there is none without waiting. */
    bool (*next)(source *s, ltdic_indication *indication);
    /* Give up what a child process shares with its parent (after fork). */
    void (*renew)(source *s);
    void (*free)(source *s); /* with its loop */
} source_kind;

struct source {
    const source_kind *kind; /* NULL: the wake-up, which has no indications */
    node all, ready;         /* in the loop's lists */
    ltdic_loop *loop;
    size_t timer;   /* place among the loop's timers, plus 1; 0: it has none */
    uint64_t wakes; /* when that timer fires, in ms of ltdic__now */
    bool can_read, can_write;
    bool hung_up;   /* the peer has, or sent urgent data: a short read is then not the last */
    bool held;      /* an indication is out: no turn until it is done with */
    bool starved;   /* a listener that found no descriptor: it tries again in the next round */
    bool spent;     /* it has read in this round, or failed to start connecting: no more of that */
    unsigned round; /* of the loop, when this last had a turn */
    unsigned turns; /* indications given in that round */
};

#endif
