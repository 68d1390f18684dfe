/* SPDX-License-Identifier: MIT */
/* A source: one thing that a loop waits for. Endpoints, listeners and the wake-up are kinds of it.
 *
 * can_read and can_write stay true until a system call would block, so each descriptor is
 * registered with the poller once. Internal. */
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

static inline void list_insert_before(node *next, node *l)
{
    l->prev = next->prev;
    l->next = next;
    next->prev->next = l;
    next->prev = l;
}

static inline void list_splice(node *to, node *from)
{
    while (!list_empty(from)) {
        node *l = from->next;
        list_remove(l);
        list_insert_before(to, l);
    }
}

/* Gives the structure of this type from a pointer to its member. */
#define CONTAINER_OF(pointer, type, member) \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* ---- sources */

typedef struct source source;
typedef struct queue queue;

typedef struct source_kind {
    /* Makes the next indication. Returns false if there is none without waiting. */
    bool (*next)(source *s, ltdic_indication *indication);
    /* Runs in a child process after fork: gives up what belongs to the parent. */
    void (*renew)(source *s);
    void (*free)(source *s); /* called when its loop is freed */
} source_kind;

struct source {
    const source_kind *kind; /* NULL: the wake-up, which has no indications */
    node all, ready;         /* in the loop's lists */
    node shared;             /* in the loop's list of listeners that share their socket */
    ltdic_loop *loop;
    queue *queue;   /* where it is put when it is ready */
    size_t timer;   /* place among the loop's timers, from 1; 0: it has none */
    uint64_t wakes; /* when that timer fires, in ms of ltdic__now */
    bool can_read, can_write;
    bool exclusive; /* several loops may wait for its descriptor: the system need not wake them all
                     */
    bool hung_up;   /* closed by the peer, or urgent data: after a short read, more may come */
    bool busy;      /* ltdic_net_done is due: until then it makes no indication */
    bool starved;   /* a listener found no descriptor: it tries again in the next round */
    bool spent;     /* it has read in this round, or failed to start connecting: it waits */
    unsigned round; /* the last round of the loop in which it was asked for an indication */
    unsigned indications; /* indications that it made in that round */
};

#endif
