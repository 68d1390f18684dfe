/* SPDX-License-Identifier: MIT */
/* A transport moves bytes for an endpoint; TCP is one. Also the sockets below it, which never
 * block. transport_tcp.c and resolve.c alone look at errno: all others get a status and a cause.
 * Internal. */
#ifndef LTDIC_TRANSPORT_H
#define LTDIC_TRANSPORT_H

#include "ltdic.h"

#include <netdb.h>
#include <stdbool.h>

typedef enum transport_result {
    TRANSPORT_DONE,       /* some bytes were moved */
    TRANSPORT_WANT_READ,  /* again when the descriptor can be read */
    TRANSPORT_WANT_WRITE, /* again when it can be written */
    TRANSPORT_END,        /* the peer has closed its end, after all that was read */
    TRANSPORT_LOST        /* a reset, or another error */
} transport_result;

typedef struct transport {
    transport_result (*read)(int fd, uint8_t *data, size_t room, size_t *size);
    transport_result (*send)(int fd, const ltdic_output *output, size_t *size);
    /* DONE: something can be read. Nothing is taken. */
    transport_result (*peek)(int fd);
    void (*shut)(int *fd); /* closes, and makes it -1 */
} transport;

extern const transport ltdic__tcp;

/* ---- errors: the last one of the system, in this thread */

int ltdic__system_status(void);        /* LTDIC_ERR_MEMORY or LTDIC_ERR_SYSTEM */
ltdic_cause ltdic__system_cause(void); /* its number */
bool ltdic__was_interrupted(void);     /* a signal came */

/* ---- descriptors */

void ltdic__close_fd(int *fd);          /* makes it -1; which is closed already */
uint32_t ltdic__most_descriptors(void); /* of this process; UINT32_MAX: any number */

/* A pipe that wakes a loop: what is written to its second end can be read at the first. */
bool ltdic__open_pipe(int ends[2]);
void ltdic__ring_pipe(int end); /* in a signal handler, too */
void ltdic__drain_pipe(int end);

/* ---- TCP */

/* Listen at an address. @return LTDIC_OK, LTDIC_ERR_ADDRESS, _SYSTEM, _MEMORY; why: `cause` */
int ltdic__tcp_listen(int *fd, const struct addrinfo *at, bool both_families, int backlog,
                      ltdic_cause *cause);
/* DONE; WANT_READ: nobody waits; LOST: no descriptor or no memory. */
transport_result ltdic__tcp_accept(int listener, int *fd);
/* Attempts beside each other; the oldest makes room for one more, after 2 s: by then the system has
 * sent a lost SYN again (RFC 6298 2.1). */
enum { MOST_ATTEMPTS = 8 };

/* Start to connect, from the address of `local` of the same family, or any where that is NULL.
 * `bound`: the local address could be had.
 * @return LTDIC_OK: it is up; LTDIC_NEED_MORE: it has started; LTDIC_ERR_SYSTEM: why, in `cause` */
int ltdic__tcp_connect(int *fd, const struct addrinfo *peer, const struct addrinfo *local,
                       bool *bound, ltdic_cause *cause);
/* For each of these that are connecting: 0 where it is up, CONNECT_PENDING while it has not ended,
 * else the system's error. False: they cannot be asked now. */
enum { CONNECT_PENDING = -1 };
bool ltdic__tcp_connected(const int *fds, size_t count, int *errors);
/* Numeric host and port of the peer's or the own end. @return LTDIC_OK, _ERR_WRONG_STATE, _ROOM */
int ltdic__tcp_name(int fd, bool peer, ltdic_buffer *host, uint16_t *port);
void ltdic__tcp_acknowledge(int fd); /* what was received, now, where the system can */
/* Bytes that were sent and that the peer's system has not acknowledged; 0: none, or not known. */
uint64_t ltdic__tcp_unacknowledged(int fd);
/* The causes that net/ has of its own. */
ltdic_cause ltdic__cause_timed_out(void);
ltdic_cause ltdic__cause_aborted(void);   /* left to the parent process */
bool ltdic__is_in_use(ltdic_cause cause); /* the address, by another socket */

/* ---- names; resolve.c */

/* @return LTDIC_OK, LTDIC_ERR_ADDRESS, _SYSTEM, _MEMORY; why: `cause` */
int ltdic__resolve(struct addrinfo **found, const ltdic_address *address, bool listening,
                   ltdic_cause *cause);
void ltdic__free_addresses(struct addrinfo **list); /* makes it NULL */

#endif
