/* SPDX-License-Identifier: MIT */
/* The event loop, as the sources on it see it. A loop belongs to one thread; ltdic_loop_wake alone
 * may be called from others. It goes in rounds: ltdic_loop_wait begins one, and in each a source
 * that is ready has a limited number of indications. Internal. */
#ifndef LTDIC_LOOP_H
#define LTDIC_LOOP_H

#include "poller.h"
#include "source.h"
#include "timers.h"

#include <stdatomic.h>

/* The sources of one user of a loop that may have an indication: those of a server, or all
 * endpoints that ltdic_loop_next is for. */
struct queue {
    node all;          /* in the loop's list of queues */
    node ready, later; /* of sources; `later`: ready in the next round */
};

struct ltdic_loop {
    node all; /* of sources */
    node queues;
    node
        shared; /* sources that look again when the loop is woken: another listener may have left */
    queue own;  /* of the endpoints that are no server's */
    timers timers;
    poller *poller;
    size_t count;   /* of sources that may have a timer */
    uint8_t *spare; /* a READ_SIZE buffer that no endpoint uses now; endpoint.c */
    unsigned round;
    unsigned forks;        /* of this process, when the poller was made */
    int spins, spin_pause; /* how often to look before sleeping, and when to try that again */
    bool starved;          /* a listener found no descriptor to accept with */
    atomic_bool woken;     /* ltdic_loop_wake was called */
    int wake_pipe[2];      /* a pipe: a byte written to its second end wakes who waits */
    source wake;           /* its first end */
};

/* Milliseconds on a clock that never goes back. */
uint64_t ltdic__now(void);

void ltdic__queue_add(ltdic_loop *loop, queue *q);
void ltdic__queue_remove(queue *q); /* its sources are no longer on the loop */

/* Put a source on a loop, which has a place for it in its timers, and into a queue of that loop.
 * False when out of memory. */
bool ltdic__loop_add(ltdic_loop *loop, queue *q, source *s);
void ltdic__loop_remove(source *s);

/* The source may have an indication: it gets a turn. */
static inline void ltdic__make_ready(source *s)
{
    if (!s->busy && list_empty(&s->ready)) {
        list_insert_before(&s->queue->ready, &s->ready);
    }
}

/* The same in the next round, for one that was just taken off the list of this one. */
static inline void ltdic__make_ready_later(source *s)
{
    if (list_empty(&s->ready)) {
        list_insert_before(&s->queue->later, &s->ready);
    }
}

/* The next indication of the sources of a queue; as ltdic_loop_next. */
int ltdic__queue_next(ltdic_loop *loop, queue *q, ltdic_net **net, ltdic_indication *indication);

/* Forget what the source did in earlier rounds. */
static inline void ltdic__begin_round(source *s)
{
    if (s->round != s->loop->round) {
        s->round = s->loop->round;
        s->indications = 0;
        s->spent = false;
    }
}

/* Set, move or, with 0, stop the timer of a source. */
static inline void ltdic__set_timer(source *s, uint64_t when)
{
    if (when != (s->timer == 0 ? 0 : s->wakes)) {
        ltdic__timers_set(&s->loop->timers, s, when);
    }
}

extern atomic_uint ltdic__forks; /* how many lie between this process and its first loop */
void ltdic__renew_now(ltdic_loop *loop);

/* Call before a loop is used: a child process makes what it shares with its parent anew. */
static inline void ltdic__renew(ltdic_loop *loop)
{
    if (loop->forks != atomic_load_explicit(&ltdic__forks, memory_order_relaxed)) {
        ltdic__renew_now(loop);
    }
}

#endif
