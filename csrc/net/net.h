/* SPDX-License-Identifier: MIT */
/* The inside of an ltdic_net, for the files of net/ alone: endpoint.c (an open connection),
 * connecting.c (attempts to get one) and listener.c. Internal. */
#ifndef LTDIC_NET_H
#define LTDIC_NET_H

#include "codec/buffer.h"
#include "endpoint.h"
#include "engine/association.h"
#include "loop.h"
#include "transport.h"

enum net_state { CLOSED = 0, CONNECTING, CONNECTED, LISTENING };

enum { MOST_FIRST = 32 }; /* bytes that are kept of what came first */

typedef struct listening listening; /* listener.c */

struct ltdic_net {
    source source; /* first: a source of the loop is an ltdic_net */
    void *owner;
    uint8_t state; /* net_state */
    bool watched;  /* by the poller, which is asked only where there is something to wait for */
    bool freed;    /* freed while an indication is out */
    int fd;
    ltdic_cause cause;              /* why the last call to listen or connect failed */
    ltdic_association *association; /* in the same memory, behind this */

    /* open */
    const transport *transport;
    buffer in;
    bool secret;        /* in `in` there may be an A-ASSOCIATE-RQ, and a passcode in that */
    int ended;          /* why nothing more will be read, once everything that was has been used */
    uint64_t read_at;   /* when this was last read from */
    uint64_t sent_then; /* bytes that the association had sent then */
    uint8_t quick_acks; /* how often to acknowledge at once; EVERY_ACK: always */
    uint8_t first[MOST_FIRST]; /* what an acceptor has received first */
    uint8_t first_size;

    /* connecting */
    struct addrinfo *addresses, *address; /* all, and the next to try */
    struct addrinfo *local;
    uint64_t connect_deadline, next_attempt;
    int attempts[MOST_ATTEMPTS]; /* descriptors that are connecting; the first that is up wins */
    uint8_t attempt_count;
    bool bound; /* an attempt has begun: the local address could be had */

    /* listening */
    int pending_fd;           /* accepted from the system, not yet by the user */
    bool pending_reported;    /* the user knows of pending_fd */
    listening *listening;     /* NULL: it does not listen */
    node member;              /* in the list of those that listen at its socket */
    uint32_t max_connections; /* when it begins to listen; 0: any number */
    bool limited;             /* by the user */
    uint64_t max_unfinished;  /* 0: any number */

    /* accepted, while its listener counts it; and the same sum and list at the listener */
    ltdic_net *listener;
    uint64_t unfinished; /* bytes of its PDU that is not whole; at a listener: of all of them */
    node begun;          /* connections with such a PDU; at a listener: the list, oldest first */
};

static inline ltdic_net *net_of(source *s)
{
    return CONTAINER_OF(s, ltdic_net, source);
}

/* ---- endpoint.c */

extern const source_kind ltdic__endpoint_kind;
/* Set the timer after a step that may have changed state or deadline. */
void ltdic__update_timer(ltdic_net *net);
/* Send as much as is possible now of what the user has just given; the rest is kept. */
void ltdic__push(ltdic_net *net);
/* Take the association's next indication from what has been received. */
bool ltdic__take(ltdic_net *net, ltdic_indication *indication);
/* Enter a state, and forget what the last connection left behind but for what is still to be told
 * of it. */
void ltdic__change_state(ltdic_net *net, enum net_state state);
void ltdic__close_socket(ltdic_net *net);
/* Begin with a connection that is up. */
void ltdic__use_connection(ltdic_net *net, int fd);
/* Have the poller watch it. @return as ltdic__poller_add */
int ltdic__watch(ltdic_net *net);

/* ---- connecting.c */

bool ltdic__finish_connecting(ltdic_net *net, ltdic_indication *indication);
void ltdic__drop_attempts(ltdic_net *net);
/* When to look at the attempts although the poller has told of none; 0: never. */
uint64_t ltdic__attempt_deadline(const ltdic_net *net);

/* ---- listener.c */

extern const source_kind ltdic__listener_kind;
void ltdic__leave_listener(ltdic_net *net); /* of one that was accepted */
void ltdic__stop_listening(ltdic_net *listener);
/* Nothing more can be used of what this has received: count it, and end the oldest connections
 * with a PDU that is not whole as far as the listener may not keep so much. */
void ltdic__bound_unfinished(ltdic_net *net);

#endif
