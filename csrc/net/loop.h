/* SPDX-License-Identifier: MIT */
/* The event loop, for its sources. A loop belongs to one thread; other threads may call
 * ltdic_loop_wake alone. It works in rounds: ltdic_loop_wait begins one, and in each a source
 * makes a limited number of indications. Internal. */
#ifndef LTDIC_LOOP_H
#define LTDIC_LOOP_H

#include "poller.h"
#include "source.h"
#include "timers.h"

#include <stdatomic.h>

/* The sources of one user of a loop: those of a server, or all endpoints that ltdic_loop_next is
 * for. */
struct queue {
    node all;          /* in the loop's list of queues */
    node ready, later; /* lists of sources; `later`: ready in the next round */
};

enum { MOST_SPARES = 16 };

struct ltdic_loop {
    node all; /* list of all sources */
    node queues;
    node shared; /* list of listeners that share their socket: waking the loop makes them ready */
    queue own;   /* for endpoints that belong to no server */
    timers timers;
    poller *poller;
    size_t count;                 /* number of sources that may have a timer */
    uint8_t *spares[MOST_SPARES]; /* buffers of READ_SIZE that no endpoint uses; for endpoint.c */
    unsigned spare_count;
    uint64_t waited; /* time of the last wait with more than one spare buffer */
    unsigned round;
    unsigned forks;    /* ltdic__forks when the poller was made */
    int spins;         /* polls before the next sleep */
    int spin_pause;    /* short sleeps before spinning is tried again */
    bool starved;      /* a listener ran out of descriptors */
    atomic_bool woken; /* ltdic_loop_wake was called */
    int wake_pipe[2];  /* a byte written to its second end wakes the poller */
    source wake;       /* source of its first end */
};

/* Returns the time in milliseconds, on a clock that never goes back. */
uint64_t ltdic__now(void);

void ltdic__queue_add(ltdic_loop *loop, queue *q);
void ltdic__queue_remove(queue *q); /* call it after its sources were removed */

/* Adds a source to a loop, with room for a timer, and to a queue of that loop. Returns false if
 * there is no memory. */
bool ltdic__loop_add(ltdic_loop *loop, queue *q, source *s);
void ltdic__loop_remove(source *s);

/* Puts a source into its queue, since it may have an indication. */
static inline void ltdic__make_ready(source *s)
{
    if (!s->busy && list_empty(&s->ready)) {
        list_insert_before(&s->queue->ready, &s->ready);
    }
}

/* Does the same for the next round. The source was just removed from the list of this one. */
static inline void ltdic__make_ready_later(source *s)
{
    if (list_empty(&s->ready)) {
        list_insert_before(&s->queue->later, &s->ready);
    }
}

/* Returns the next indication of the sources of a queue, as ltdic_loop_next does. */
int ltdic__queue_next(ltdic_loop *loop, queue *q, ltdic_net **net, ltdic_indication *indication);
/* Waits until a source of this queue may have an indication, but not beyond `end`.
 * @return LTDIC_OK; LTDIC_NEED_MORE if the time is up, or if another queue has an indication;
 *   LTDIC_ERR_INTERRUPTED */
int ltdic__queue_wait(ltdic_loop *loop, const queue *q, uint64_t end);

/* Resets the counts of a source at its first use in a round. */
static inline void ltdic__begin_round(source *s)
{
    if (s->round != s->loop->round) {
        s->round = s->loop->round;
        s->indications = 0;
        s->spent = false;
    }
}

/* Sets the timer of a source, or stops it (0). */
static inline void ltdic__set_timer(source *s, uint64_t when)
{
    if (when != (s->timer == 0 ? 0 : s->wakes)) {
        ltdic__timers_set(&s->loop->timers, s, when);
    }
}

extern atomic_uint ltdic__forks; /* forks since the process that made the first loop */
void ltdic__renew_now(ltdic_loop *loop);

/* Call before a loop is used. In a child process it makes anew everything that the loop shares
 * with the parent. */
static inline void ltdic__renew(ltdic_loop *loop)
{
    if (loop->forks != atomic_load_explicit(&ltdic__forks, memory_order_relaxed)) {
        ltdic__renew_now(loop);
    }
}

#endif
