/* SPDX-License-Identifier: MIT */
/* TCP, the transport that an endpoint has unless its user gives it another one, and non-blocking
 * sockets. Only transport_tcp.c and resolve.c read errno: other files get a status and a cause.
 * Internal. */
#ifndef LTDIC_TRANSPORT_H
#define LTDIC_TRANSPORT_H

#include "ltdic.h"

#include <netdb.h>
#include <stdbool.h>

extern const ltdic_transport ltdic__tcp;

/* ---- errors of the last system call in this thread */

int ltdic__system_status(void);        /* LTDIC_ERR_MEMORY or LTDIC_ERR_SYSTEM */
ltdic_cause ltdic__system_cause(void); /* errno */
bool ltdic__was_interrupted(void);     /* by a signal */

/* ---- descriptors */

/* Opens another descriptor of the same socket. @return LTDIC_OK, LTDIC_ERR_SYSTEM, and the cause */
int ltdic__copy_fd(int fd, int *copy, ltdic_cause *cause);
void ltdic__close_fd(int *fd);          /* sets it to -1; does nothing with -1 */
uint32_t ltdic__most_descriptors(void); /* the limit of this process; UINT32_MAX: none */

/* Opens a pipe that wakes a loop: bytes written to ends[1] are read from ends[0]. Returns false if
 * there is no descriptor. */
bool ltdic__open_pipe(int ends[2]);
void ltdic__ring_pipe(int end); /* writes a byte; may be called in a signal handler */
void ltdic__drain_pipe(int end);

/* ---- TCP */

/* Listens at an address. `both_families`: an IPv6 address accepts IPv4, too. `cause` is set with
 * each error. @return LTDIC_OK, LTDIC_ERR_ADDRESS, LTDIC_ERR_SYSTEM, LTDIC_ERR_MEMORY */
int ltdic__tcp_listen(int *fd, const struct addrinfo *at, bool both_families, int backlog,
                      ltdic_cause *cause);
/* A numeric address and a port. */
typedef struct tcp_name {
    uint8_t address[28]; /* a sockaddr_in or sockaddr_in6 */
    uint8_t size;
} tcp_name;
/* Accepts a connection; `peer` is its other end. @return LTDIC_TRANSPORT_DONE; _WANT_READ: none is
 * pending; _LOST: no descriptor or no memory */
ltdic_transport_result ltdic__tcp_accept(int listener, int *fd, tcp_name *peer);
/* Makes a descriptor that listens already fit for a loop. Returns false if it does not, and `cause`
 * says why. */
bool ltdic__tcp_may_listen(int fd, ltdic_cause *cause);
/* Makes a descriptor that is a connected stream fit for a loop. Returns false if it is none, and
 * `cause` says why; it is unchanged then. */
bool ltdic__tcp_adopt(int fd, ltdic_cause *cause);
/* Attempts to connect that run in parallel. One more replaces the oldest, after 2 s: by then the
 * system has sent a lost SYN again (RFC 6298 2.1). */
enum { MOST_ATTEMPTS = 8 };

/* Starts to connect, from the address in `local` of the same family; NULL: any. Sets `bound` if the
 * local address could be used, and `cause` with an error.
 * @return LTDIC_OK: connected; LTDIC_NEED_MORE: started; LTDIC_ERR_SYSTEM */
int ltdic__tcp_connect(int *fd, const struct addrinfo *peer, const struct addrinfo *local,
                       bool *bound, ltdic_cause *cause);
enum { CONNECT_PENDING = -1 };
/* Fills `errors` for descriptors that are connecting: 0 if connected, CONNECT_PENDING if neither
 * connected nor failed, else errno. Returns false if the system cannot be asked now. */
bool ltdic__tcp_connected(const int *fds, size_t count, int *errors);
/* Writes the numeric host and the port of the peer's or the own end.
 * @return LTDIC_OK, LTDIC_ERR_WRONG_STATE, LTDIC_ERR_ROOM */
int ltdic__tcp_name(int fd, bool peer, ltdic_buffer *host, uint16_t *port);
/* Writes a name that was returned before. @return LTDIC_OK, LTDIC_ERR_ROOM */
int ltdic__tcp_name_of(const tcp_name *name, ltdic_buffer *host, uint16_t *port);
/* Reads bytes that stay unread. @return as the `read` of a transport */
int ltdic__tcp_peek(int fd, uint8_t *data, size_t room, size_t *size);
void ltdic__tcp_acknowledge(int fd); /* acknowledges received bytes now, if the system can */
/* Returns how many bytes sent the peer's system has not acknowledged; 0: none, or unknown. */
uint64_t ltdic__tcp_unacknowledged(int fd);
/* Causes that net/ reports without an error of the system. */
ltdic_cause ltdic__cause_timed_out(void);
ltdic_cause ltdic__cause_aborted(void);   /* in a child process: only its parent continues */
bool ltdic__is_in_use(ltdic_cause cause); /* another socket uses the address */

/* ---- names: resolve.c */

/* Looks up an address. The caller frees `found` with ltdic__free_addresses. `cause` is set with
 * each error. @return LTDIC_OK, LTDIC_ERR_ADDRESS, LTDIC_ERR_SYSTEM, LTDIC_ERR_MEMORY */
int ltdic__resolve(struct addrinfo **found, const ltdic_address *address, bool listening,
                   ltdic_cause *cause);
void ltdic__free_addresses(struct addrinfo **list); /* sets it to NULL */

#endif
