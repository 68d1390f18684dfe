/* SPDX-License-Identifier: MIT */
/* The struct of an ltdic_net, for the files of net/ alone: endpoint.c (a connection), connecting.c
 * (attempts to connect) and listener.c. Internal. */
#ifndef LTDIC_NET_H
#define LTDIC_NET_H

#include "codec/buffer.h"
#include "endpoint.h"
#include "engine/association.h"
#include "loop.h"
#include "transport.h"

enum net_state { CLOSED = 0, CONNECTING, CONNECTED, LISTENING };

enum { MOST_FIRST = 32 }; /* bytes kept from the start of a connection */

typedef struct listening listening; /* listener.c */

/* A connection of a listener. Its name is known here even if the peer has already reset it. */
typedef struct accepted {
    tcp_name peer;
    const ltdic_net *by; /* the endpoint that has it, which may be gone; NULL: still pending */
} accepted;

struct ltdic_net {
    source source; /* must be the first member: a source of the loop is cast to ltdic_net */
    void *owner;
    uint8_t state; /* net_state */
    bool watched;  /* the poller watches the descriptor: from the first call that would block */
    bool freed;    /* ltdic_net_free was called while an indication is in use */
    int fd;
    ltdic_cause cause;              /* why the last call to listen or connect failed */
    ltdic_association *association; /* in the same block of memory, after this struct */

    /* connected */
    const ltdic_transport *transport;
    void *transport_state; /* belongs to the endpoint */
    bool read_blocked;     /* the transport has to write before it reads */
    bool send_blocked;     /* the transport has to read before it writes */
    bool deaf;             /* see receive() in endpoint.c */
    bool open;             /* the transport is open: until then, only `open` of it is called */
    buffer in;
    bool secret;        /* `in` may hold an A-ASSOCIATE-RQ, and so a passcode */
    bool lacks_room;    /* the user has more to send than there was room for */
    bool finished;      /* `ended`: the peer has closed its side, but may still read */
    int ended;          /* why nothing more will be read; reported after all input was used */
    uint64_t read_at;   /* time of the last read */
    uint64_t sent_then; /* bytes that the association had sent at that time */
    uint8_t quick_acks; /* reads that are acknowledged at once; EVERY_ACK: all */
    uint8_t first[MOST_FIRST]; /* first bytes that an acceptor received */
    uint8_t first_size;

    /* connecting */
    struct addrinfo *addresses, *address; /* all addresses of the peer; the next one to try */
    struct addrinfo *local;
    uint64_t connect_deadline, next_attempt;
    int attempts[MOST_ATTEMPTS]; /* descriptors that are connecting; the first to connect is used */
    uint8_t attempt_count;
    bool bound; /* an attempt was started, so the local address is usable */

    /* listening */
    int pending_fd;        /* accepted from the system, not yet by the user */
    accepted *last;        /* the connection that was accepted last; NULL: none yet, or no memory */
    bool pending_reported; /* LTDIC_PENDING was returned for pending_fd */
    listening *listening;  /* NULL: it does not listen */
    node member;           /* in the list of listeners at its socket */
    uint32_t max_connections; /* used when it begins to listen; 0: no limit */
    bool lacking;             /* a connection waits that could not be accepted */
    uint32_t lacks;           /* how often that has begun */
    bool limited;             /* the user has set max_connections */
    uint64_t max_unfinished;  /* 0: no limit */

    /* accepted, while the listener counts it; a listener uses the last two for sum and list */
    ltdic_net *listener;
    uint64_t unfinished; /* bytes of its incomplete PDU; listener: of all connections */
    node begun;          /* connections with an incomplete PDU; listener: the list, oldest first */
};

static inline ltdic_net *net_of(source *s)
{
    return CONTAINER_OF(s, ltdic_net, source);
}

/* ---- endpoint.c */

extern const source_kind ltdic__endpoint_kind;
/* Sets the timer after a step that may have changed state or deadline. */
void ltdic__update_timer(ltdic_net *net);
/* Returns the next indication of the association, which gets the input. Returns false if there is
 * none. */
bool ltdic__take(ltdic_net *net, ltdic_indication *indication, uint64_t now);
/* Changes the state, and forgets the last connection, but not its indications. */
void ltdic__change_state(ltdic_net *net, enum net_state state);
void ltdic__close_socket(ltdic_net *net);
/* Continues to open the transport. @return an ltdic_transport_result */
int ltdic__open_transport(ltdic_net *net);
/* Begins to use a descriptor that is connected. */
void ltdic__use_connection(ltdic_net *net, int fd);
/* Makes the poller watch the descriptor.
 * @return as ltdic__poller_add */
int ltdic__watch(ltdic_net *net);

/* ---- connecting.c */

bool ltdic__finish_connecting(ltdic_net *net, ltdic_indication *indication);
void ltdic__drop_attempts(ltdic_net *net);
/* Returns when to look at the attempts even if the poller has reported none; 0: never. */
uint64_t ltdic__attempt_deadline(const ltdic_net *net);

/* ---- listener.c */

extern const source_kind ltdic__listener_kind;
void ltdic__leave_listener(ltdic_net *net); /* for a connection that was accepted */
void ltdic__stop_listening(ltdic_net *listener);
/* Counts input that is not a whole PDU. If the listener's limit is exceeded, ends the oldest
 * connections that have such input. */
void ltdic__bound_unfinished(ltdic_net *net, size_t size);

#endif
