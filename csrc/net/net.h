/* SPDX-License-Identifier: MIT */
/* What net.c shares with its two helpers, and nobody else sees: endpoints, loops, and what
 * poller.c and socket.c do for them. Include it first: it chooses what the system's headers offer.
 */
#ifndef LTDIC_NET_H
#define LTDIC_NET_H

#if !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#if !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE
#endif
#if defined(__linux__) && !defined(LTDIC_POLL)
#define USE_EPOLL 1
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#else
#define USE_EPOLL 0
#endif

#include "codec/buffer.h"
#include "engine/association.h"

#include <netdb.h>
#include <stdatomic.h>

enum { CLOSED = 0, CONNECTING, OPEN, LISTENING };

enum {
    MOST_ATTEMPTS = 8, /* to connect, beside each other; the oldest makes room for one more, after
                          2 s: by then the system has sent a lost SYN again (RFC 6298 2.1) */
    MOST_FIRST = 32    /* bytes that are kept of what came first */
};

typedef struct node {
    struct node *prev, *next;
} node;

struct ltdic_net {
    node all, ready; /* in the loop's lists; linked to itself when in none */
    ltdic_loop *loop;
    void *owner;
    ltdic_net *listener; /* that accepted it, while that counts it */
    node begun; /* place among the connections with a PDU that is not whole; at a listener: the
                   list, the one that began first in front */
    uint64_t unfinished;     /* bytes of that PDU; at a listener: of all of them */
    uint64_t max_unfinished; /* listener: 0: any number */
    size_t timer;            /* place among the loop's timers, plus 1; 0: it has none */
    uint64_t wakes;          /* when that timer fires: not later than its deadline */
    int fd, pending_fd;      /* pending: accepted from the system, not yet taken by the user */
    uint8_t transport;
    bool told; /* the user knows of pending_fd */
    bool held; /* an indication is out */
    bool dead; /* freed while held */
    bool can_read, can_write;
    bool watched;    /* by the poller, which is asked only where there is something to wait for */
    bool hung_up;    /* the peer has, or sent urgent data: a short read is then not the last */
    bool associated; /* and counted as that by the listener */
    int ended;       /* why nothing more will be read, once everything that was has been used */
    unsigned round;  /* of the loop, when this last had a turn */
    unsigned turns;  /* indications given in that round */
    bool secret;     /* in `in` there may be an A-ASSOCIATE-RQ, and a passcode in that */
    bool spent;      /* in that round this has read, or begun to connect in vain */
    uint32_t connections, associations;         /* listener: how many there are */
    uint32_t max_connections, max_associations; /* 0: any number */
    bool limited;                               /* by the user */
    uint64_t connect_deadline, next_attempt;
    int attempts[MOST_ATTEMPTS]; /* descriptors that are connecting; the first that is up wins */
    uint8_t attempt_count;
    bool tried;                /* an attempt has begun: the local address could be bound */
    ltdic_cause cause;         /* why the last call to listen or connect failed */
    uint64_t read_at;          /* when this was last read from */
    uint64_t sent_then;        /* bytes that the association had sent then */
    uint8_t first[MOST_FIRST]; /* what an acceptor has received first */
    uint8_t first_size;
    uint8_t quick_acks;                   /* how often to acknowledge at once; EVERY_ACK: always */
    struct addrinfo *addresses, *address; /* all, and the next to try */
    struct addrinfo *local;
    buffer in;
    ltdic_association *association;
};

struct ltdic_loop {
    node all, ready, later;
    ltdic_net **timers; /* a heap: each wakes no earlier than the one at half its place */
    size_t timer_count, timer_room, count;
    uint8_t *spare; /* a READ_SIZE buffer that nobody uses */
    unsigned round;
    unsigned forks;    /* of this process, when the poller was made */
    int looks, rest;   /* how often to look before sleeping, and when to try that again */
    bool starved;      /* a listener found no descriptor to accept with */
    atomic_bool woken; /* ltdic_loop_wake was called */
    int alarm[2];      /* a pipe: what is written to its second end wakes who waits */
#if USE_EPOLL
    int poller;
#else
    struct pollfd *polled;
    ltdic_net **polled_nets;
    size_t polled_room;
#endif
};

#define NET_OF(pointer, member) \
    ((ltdic_net *)(void *)((char *)(pointer)-offsetof(ltdic_net, member)))

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

/* Milliseconds on a clock that never goes back */
uint64_t ltdic__now(void);
/* As ltdic_net_close, and LTDIC_CLOSED says why */
void ltdic__net_end(ltdic_net *net, int status);

/* Look at no data and no release of the peer until `held` is false again: what is to be sent goes
 * first */
void ltdic__net_hold(ltdic_net *net, bool held);
/* Bytes that the peer's system has taken, as far as that is known */
uint64_t ltdic__net_taken(const ltdic_net *net);
/* At most half of what may wait to be sent does */
bool ltdic__net_has_room(const ltdic_net *net);
uint32_t ltdic__net_fragment_size(const ltdic_net *net); /* as ltdic__fragment_size */

/* The endpoint may have an event: it gets its turn. net.c. */
void ltdic__make_ready(ltdic_net *net);

/* Make what a child process shares with its parent anew; before anything is used. net.c. */
void ltdic__renew(ltdic_loop *loop);

/* Which endpoints can read and write; poller.c. */
bool ltdic__poller_open(ltdic_loop *loop); /* the alarm's pipe is there */
void ltdic__poller_close(ltdic_loop *loop);
/* A descriptor of the endpoint: its own, or one that connects. */
bool ltdic__poller_add(ltdic_net *net, int fd, bool writing);
/* These of one that was added. */
void ltdic__poller_want_write(ltdic_net *net);
void ltdic__poller_remove(ltdic_net *net, int fd);
/* How many are ready; -1 as the system says it. */
int ltdic__poller_wait(ltdic_loop *loop, int milliseconds);

/* Descriptors, which never block, and names; socket.c. */
bool ltdic__open_pipe(int ends[2]);
void ltdic__drain_pipe(int end);
int ltdic__open_socket(int family);
int ltdic__accept_socket(int listener);
/* How many bytes have gone; -1 as the system says it. */
ptrdiff_t ltdic__send_parts(int fd, const ltdic_output *output);
void ltdic__tune_socket(int fd);
void ltdic__tune_accepted(int fd);
/* Have what was received acknowledged now, where the system can. */
void ltdic__acknowledge(int fd);
/* Bytes that were sent and that the peer's system has not acknowledged; 0 where that is not known.
 */
uint64_t ltdic__unacknowledged(int fd);
/* Descriptors that the process may have; UINT32_MAX: any number. */
uint32_t ltdic__most_descriptors(void);
/* At once, as it is over loopback; false tells nothing. */
bool ltdic__is_connected(int fd);
void ltdic__close_fd(int *fd);
/* LTDIC_OK, LTDIC_ERR_ADDRESS, _SYSTEM, _MEMORY; why: `cause`. */
int ltdic__resolve(struct addrinfo **found, const ltdic_address *address, bool listening,
                   ltdic_cause *cause);
/* How many fork() lie between this process and the first ltdic__count_forks. */
void ltdic__count_forks(void);
unsigned ltdic__forks(void);
void ltdic__free_addresses(struct addrinfo **list);

#endif
