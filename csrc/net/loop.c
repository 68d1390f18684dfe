/* SPDX-License-Identifier: MIT */
/* The event loop: waits for sources, and asks each for its indications. */
#include "system.h"

#include "loop.h"

#include "transport.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum {
    INDICATIONS_PER_ROUND = 256, /* for one source, so that it does not delay others */
    STARVED_RETRY = 100,         /* ms until accepting is tried again after descriptors ran out */
    EVENTS_PER_WAIT = 256,
    MOST_SPINS = 64,      /* polls without sleeping, at most: about 20 us */
    SHORT_SLEEP = 100000, /* ns */
    IDLE = 100,           /* ms without an event, after which a loop gives memory back */
    SPIN_PAUSE = 16       /* short sleeps before spinning is tried again */
};

/* ---- clock -------------------------------------------------------------------------------- */

static uint64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t ltdic__now(void)
{
    return nanoseconds() / 1000000;
}

/* ---- sources ------------------------------------------------------------------------------ */

void ltdic__queue_add(ltdic_loop *loop, queue *q)
{
    list_init(&q->ready);
    list_init(&q->later);
    list_insert_before(&loop->queues, &q->all);
}

void ltdic__queue_remove(queue *q)
{
    list_remove(&q->all);
}

bool ltdic__loop_add(ltdic_loop *loop, queue *q, source *s)
{
    if (!ltdic__timers_reserve(&loop->timers, loop->count + 1)) {
        return false;
    }
    loop->count++;
    s->loop = loop;
    s->queue = q;
    list_init(&s->ready);
    list_init(&s->shared);
    list_insert_before(&loop->all, &s->all);
    return true;
}

void ltdic__loop_remove(source *s)
{
    list_remove(&s->all);
    list_remove(&s->ready);
    list_remove(&s->shared);
    s->loop->count--;
}

/* ---- fork --------------------------------------------------------------------------------- */

atomic_uint ltdic__forks;

static void count_fork(void)
{
    atomic_fetch_add(&ltdic__forks, 1);
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, count_fork);
}

static void close_wake_pipe(ltdic_loop *loop)
{
    ltdic__close_fd(&loop->wake_pipe[0]);
    ltdic__close_fd(&loop->wake_pipe[1]);
}

/* Makes the poller and the pipe that wakes it. Returns false if there is no memory or no
 * descriptor. */
static bool make_poller(ltdic_loop *loop)
{
    loop->poller = NULL;
    if (!ltdic__open_pipe(loop->wake_pipe)) {
        return false;
    }
    loop->poller = ltdic__poller_new();
    if (loop->poller == NULL ||
        ltdic__poller_add(loop->poller, &loop->wake, loop->wake_pipe[0], false) != LTDIC_OK) {
        ltdic__poller_free(loop->poller);
        loop->poller = NULL;
        close_wake_pipe(loop);
        return false;
    }
    return true;
}

void ltdic__renew_now(ltdic_loop *loop)
{
    ltdic__poller_free(loop->poller);
    close_wake_pipe(loop);
    make_poller(loop);
    for (node *l = loop->all.next; l != &loop->all; l = l->next) {
        source *s = CONTAINER_OF(l, source, all);
        s->kind->renew(s);
    }
    loop->forks = atomic_load(&ltdic__forks);
}

/* Frees the spare buffers but for so many. */
static void drop_spares(ltdic_loop *loop, unsigned left)
{
    while (loop->spare_count > left) {
        free(loop->spares[--loop->spare_count]);
    }
}

/* ---- life --------------------------------------------------------------------------------- */

ltdic_loop *ltdic_loop_new(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    ltdic_loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL) {
        return NULL;
    }
    list_init(&loop->all);
    list_init(&loop->queues);
    list_init(&loop->shared);
    ltdic__queue_add(loop, &loop->own);
    pthread_once(&once, watch_forks);
    loop->forks = atomic_load(&ltdic__forks);
    loop->wake.can_write = true; /* nothing is written to this end of the pipe */
    if (!make_poller(loop)) {
        free(loop);
        return NULL;
    }
    return loop;
}

void ltdic_loop_free(ltdic_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    while (!list_empty(&loop->all)) { /* freeing a server also frees its endpoints */
        source *s = CONTAINER_OF(loop->all.next, source, all);
        s->kind->free(s);
    }
    ltdic__poller_free(loop->poller);
    close_wake_pipe(loop);
    ltdic__timers_free(&loop->timers);
    drop_spares(loop, 0);
    free(loop);
}

void ltdic_loop_wake(ltdic_loop *loop)
{
    if (loop->forks != atomic_load(&ltdic__forks)) { /* the parent has the pipe, too */
        loop->woken = true;
    } else {
        ltdic__ring_pipe(loop->wake_pipe[1]);
    }
}

int ltdic_loop_fd(const ltdic_loop *loop)
{
    return ltdic__poller_fd(loop->poller);
}

/* ---- waiting ------------------------------------------------------------------------------ */

/* Returns true if a source is ready in this round. `later`: or in the next one. */
static bool is_any_ready(const ltdic_loop *loop, bool later)
{
    for (node *n = loop->queues.next; n != &loop->queues; n = n->next) {
        const queue *q = CONTAINER_OF(n, queue, all);
        if (!list_empty(&q->ready) || (later && !list_empty(&q->later))) {
            return true;
        }
    }
    return false;
}

int ltdic_loop_timeout(const ltdic_loop *loop, int milliseconds)
{
    if (loop->woken || is_any_ready(loop, true)) {
        return 0;
    }
    const int most = loop->starved && milliseconds > STARVED_RETRY ? STARVED_RETRY : milliseconds;
    const uint64_t deadline = ltdic__timers_first(&loop->timers);
    if (deadline == 0) {
        return most;
    }
    const uint64_t now = ltdic__now();
    const uint64_t left = deadline > now ? deadline - now : 0;
    return left < (uint64_t)most ? (int)left : most;
}

/* Asks the poller once, and puts the sources that are ready into their queues.
 * @return as ltdic__poller_wait */
static int poll_once(ltdic_loop *loop, int milliseconds)
{
    readiness found[EVENTS_PER_WAIT];
    const int count = ltdic__poller_wait(loop->poller, found, EVENTS_PER_WAIT, milliseconds);
    for (int i = 0; i < count; i++) {
        source *s = found[i].source;
        if (s == &loop->wake) {
            loop->woken = true;
            continue;
        }
        s->can_read = s->can_read || found[i].read;
        s->can_write = s->can_write || found[i].write;
        s->hung_up = s->hung_up || found[i].hung_up;
        ltdic__make_ready(s);
    }
    return count;
}

/* Decides whether the next wait begins with spinning. Spinning that found nothing is halved; after
 * SPIN_PAUSE short sleeps it is tried again. */
static void learn_from_sleep(ltdic_loop *loop, uint64_t slept)
{
    if (loop->spins > 0) {
        loop->spins /= 2;
        loop->spin_pause = SPIN_PAUSE;
    } else if (slept < SHORT_SLEEP && loop->spin_pause-- <= 0) {
        loop->spins = MOST_SPINS;
    }
}

/* Waits for events. Sleeping and being woken takes longer than most peers need to answer. So after
 * short sleeps it polls without sleeping first (spinning), as long as that finds events. */
static int wait_for_events(ltdic_loop *loop, int milliseconds)
{
    int found = 0;
    for (int i = 0; i < loop->spins && found == 0 && milliseconds > 0; i++) {
        found = poll_once(loop, 0);
    }
    if (found == 0) {
        const uint64_t start = nanoseconds();
        found = poll_once(loop, milliseconds);
        if (milliseconds > 0) {
            learn_from_sleep(loop, nanoseconds() - start);
        }
    } else {
        loop->spins = MOST_SPINS;
    }
    return found;
}

/* Makes the listeners that ran out of descriptors try again: some may be free now. */
static void wake_starved(ltdic_loop *loop)
{
    loop->starved = false;
    for (node *l = loop->all.next; l != &loop->all; l = l->next) {
        source *s = CONTAINER_OF(l, source, all);
        if (s->starved) {
            s->starved = false;
            ltdic__make_ready(s);
        }
    }
}

/* Makes listeners at shared sockets ready: connections may wait that another listener has left. */
static void wake_shared(ltdic_loop *loop)
{
    for (node *l = loop->shared.next; l != &loop->shared; l = l->next) {
        source *s = CONTAINER_OF(l, source, shared);
        s->can_read = true;
        ltdic__make_ready(s);
    }
}

/* Makes sources ready whose timer has fired. A busy one becomes ready in ltdic_net_done. */
static void wake_expired(ltdic_loop *loop)
{
    const uint64_t now = ltdic__timers_first(&loop->timers) == 0 ? 0 : ltdic__now();
    for (source *s; (s = ltdic__timers_take(&loop->timers, now)) != NULL;) {
        ltdic__make_ready(s);
    }
}

static void begin_round(ltdic_loop *loop)
{
    loop->round++;
    for (node *n = loop->queues.next; n != &loop->queues; n = n->next) {
        queue *q = CONTAINER_OF(n, queue, all);
        list_splice(&q->ready, &q->later);
    }
}

/* Frees the spare buffers but one after a time without events. */
static void give_memory_back(ltdic_loop *loop)
{
    if (loop->spare_count > 1) {
        const uint64_t now = ltdic__now();
        if (now - loop->waited >= IDLE) {
            drop_spares(loop, 1);
        }
        loop->waited = now;
    }
}

int ltdic_loop_wait(ltdic_loop *loop, int milliseconds)
{
    ltdic__renew(loop);
    begin_round(loop);
    const int found = wait_for_events(loop, ltdic_loop_timeout(loop, milliseconds));
    give_memory_back(loop);
    if (loop->starved) {
        wake_starved(loop);
    }
    wake_expired(loop);
    if (loop->woken) {
        loop->woken = false;
        ltdic__drain_pipe(loop->wake_pipe[0]);
        wake_shared(loop);
        return LTDIC_ERR_INTERRUPTED;
    }
    return is_any_ready(loop, false) ? LTDIC_OK
           : found < 0               ? LTDIC_ERR_INTERRUPTED
                                     : LTDIC_NEED_MORE;
}

/* ---- indications --------------------------------------------------------------------------------
 */

/* Asks a source, which was just removed from the list of ready ones, for an indication. */
static bool ask(source *s, ltdic_indication *indication)
{
    ltdic__begin_round(s);
    if (s->indications == INDICATIONS_PER_ROUND) {
        ltdic__make_ready_later(s);
        return false;
    }
    if (!s->kind->next(s, indication)) {
        return false;
    }
    s->indications++;
    s->busy = true;
    list_remove(&s->ready);
    return true;
}

int ltdic_loop_next(ltdic_loop *loop, ltdic_net **net, ltdic_indication *indication)
{
    return ltdic__queue_next(loop, &loop->own, net, indication);
}

int ltdic__queue_next(ltdic_loop *loop, queue *q, ltdic_net **net, ltdic_indication *indication)
{
    ltdic__renew(loop);
    while (!list_empty(&q->ready)) {
        source *s = CONTAINER_OF(q->ready.next, source, ready);
        list_remove(&s->ready);
        *net = (ltdic_net *)(void *)s; /* the source is the first member */
        if (ask(s, indication)) {
            return LTDIC_OK;
        }
    }
    return LTDIC_NEED_MORE;
}

int ltdic__queue_wait(ltdic_loop *loop, const queue *q, uint64_t end)
{
    const uint64_t now = ltdic__now();
    const uint64_t left = end > now ? end - now : 0;
    const int status = ltdic_loop_wait(loop, left < INT_MAX ? (int)left : INT_MAX);
    const bool others = status == LTDIC_OK && list_empty(&q->ready);
    return status == LTDIC_ERR_INTERRUPTED ? status
           : left == 0 || others           ? LTDIC_NEED_MORE
                                           : LTDIC_OK;
}
