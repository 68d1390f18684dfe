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

#include "internal.h"

#include <netdb.h>

enum { MARKS = 8, ECHO_SIZE = 64 };
enum { CLOSED = 0, CONNECTING, OPEN, LISTENING };

typedef struct node {
    struct node *prev, *next;
} node;

/* A PDU given to us to send, until the user has been told what became of it. */
typedef struct mark {
    uint64_t end; /* in the stream of all bytes sent */
    uint32_t size;
    int status;
    uint8_t type;
} mark;

typedef struct block {
    uint8_t *data;
    size_t start, end, room;
} block;

struct ltdic_net {
    node all, ready, timer; /* in the loop's lists; linked to itself when in none */
    ltdic_loop *loop;
    void *owner;
    int fd, pending_fd; /* pending: accepted from the system, not yet taken by the user */
    uint8_t transport;
    bool told; /* the user knows of pending_fd */
    bool held; /* an event is out */
    bool dead; /* freed while held */
    bool can_read, can_write;
    bool hung_up; /* the peer has, or sent urgent data: a short read is then not the last */
    bool eof;
    bool lost;    /* sending has failed; reading goes on */
    bool broken;  /* the stream has no PDU boundaries any more */
    bool closing; /* when the event that is out is done with, for closing_cause */
    int closing_cause;
    bool over; /* CLOSED is to be told, with over_status */
    int over_status;
    int cause;      /* why the association in progress will end, if that is known */
    unsigned round; /* of the loop, when this last read or accepted */
    unsigned turns; /* connections accepted in that round */
    ltdic_ul ul;
    uint32_t max_pdata;
    struct addrinfo *addresses, *address; /* all, and the next to try */
    struct addrinfo *local;
    block in, out;
    uint64_t sent;      /* bytes ever handed to the system */
    uint64_t submitted; /* bytes ever given to us */
    mark marks[MARKS];
    unsigned mark_count;
    uint8_t echo[ECHO_SIZE];
};

struct ltdic_loop {
    node all, ready, later, timers; /* timers: by deadline, soonest first */
    uint8_t *spare;                 /* a READ_SIZE buffer that nobody uses */
    unsigned round;
    bool starved; /* a listener found no descriptor to accept with */
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

/* The endpoint may have an event: it gets its turn. net.c. */
void ltdic__make_ready(ltdic_net *net);

/* Which endpoints can read and write; poller.c. */
bool ltdic__poller_open(ltdic_loop *loop);
void ltdic__poller_close(ltdic_loop *loop);
bool ltdic__poller_add(ltdic_net *net);
void ltdic__poller_want_write(ltdic_net *net);
void ltdic__poller_remove(ltdic_net *net);
/* How many are ready; -1 as the system says it. */
int ltdic__poller_wait(ltdic_loop *loop, int milliseconds);

/* Descriptors, which never block, and names; socket.c. */
int ltdic__open_socket(int family);
int ltdic__accept_socket(int listener);
void ltdic__tune_socket(int fd);
void ltdic__close_fd(int *fd);
struct addrinfo *ltdic__resolve(const ltdic_address *address, bool listening);
void ltdic__free_addresses(struct addrinfo **list);

#endif
