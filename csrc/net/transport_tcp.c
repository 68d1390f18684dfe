/* SPDX-License-Identifier: MIT */
/* TCP over non-blocking sockets, and the pipe that wakes a loop. */
#include "system.h"

#include "transport.h"

#include "engine/outbox.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* such systems have SO_NOSIGPIPE */
#endif

/* Makes a non-blocking socket in one system call, if the system can. The poll build takes two, so
 * that its tests run that code. */
#if defined(SOCK_NONBLOCK) && POLLER == EPOLL
#define ONE_CALL 1
#else
#define ONE_CALL 0
#endif

/* ---- errors ------------------------------------------------------------------------------- */

int ltdic__system_status(void)
{
    return errno == ENOMEM ? LTDIC_ERR_MEMORY : LTDIC_ERR_SYSTEM;
}

ltdic_cause ltdic__system_cause(void)
{
    return (ltdic_cause){errno, 0};
}

bool ltdic__was_interrupted(void)
{
    return errno == EINTR;
}

ltdic_cause ltdic__cause_timed_out(void)
{
    return (ltdic_cause){ETIMEDOUT, 0};
}

ltdic_cause ltdic__cause_aborted(void)
{
    return (ltdic_cause){ECONNABORTED, 0};
}

bool ltdic__is_in_use(ltdic_cause cause)
{
    return cause.error == EADDRINUSE;
}

static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK;
}

/* ---- descriptors -------------------------------------------------------------------------- */

void ltdic__close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

uint32_t ltdic__most_descriptors(void)
{
    struct rlimit limit;
    const bool known = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    return known && limit.rlim_cur < UINT32_MAX ? (uint32_t)limit.rlim_cur : UINT32_MAX;
}

static int nonblocking(int fd)
{
    if (fd >= 0 && (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)) {
        ltdic__close_fd(&fd);
    }
    return fd;
}

int ltdic__copy_fd(int fd, int *copy, ltdic_cause *cause)
{
    *copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (*copy < 0) {
        *cause = ltdic__system_cause();
    }
    return *copy < 0 ? LTDIC_ERR_SYSTEM : LTDIC_OK;
}

bool ltdic__open_pipe(int ends[2])
{
    if (pipe(ends) != 0) {
        ends[0] = ends[1] = -1;
    }
    ends[0] = nonblocking(ends[0]);
    ends[1] = nonblocking(ends[1]);
    if (ends[0] >= 0 && ends[1] >= 0) {
        return true;
    }
    ltdic__close_fd(&ends[0]);
    ltdic__close_fd(&ends[1]);
    return false;
}

void ltdic__ring_pipe(int end)
{
    const uint8_t byte = 0;
    const int error = errno;
    if (write(end, &byte, sizeof byte) < 0) {
        errno = error; /* the pipe is full: the loop wakes anyway */
    }
}

void ltdic__drain_pipe(int end)
{
    uint8_t bytes[64];
    while (read(end, bytes, sizeof bytes) > 0) {
    }
}

static int open_socket(int family)
{
#if ONE_CALL
    return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
#else
    return nonblocking(socket(family, SOCK_STREAM, 0));
#endif
}

/* Sets options of a connection. It works without them, so errors are ignored. */
static void tune(int fd)
{
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
#ifdef SO_NOSIGPIPE
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
}

/* ---- listening, accepting ------------------------------------------------------------------ */

static int listen_at(int fd, const struct addrinfo *at, bool both_families, int backlog)
{
    const int on = 1, off = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    tune(fd);
    if (at->ai_family == AF_INET6) {
        const int *only = both_families ? &off : &on;
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, only, sizeof *only);
    }
    return bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, backlog) == 0
               ? LTDIC_OK
               : LTDIC_ERR_ADDRESS;
}

int ltdic__tcp_listen(int *fd, const struct addrinfo *at, bool both_families, int backlog,
                      ltdic_cause *cause)
{
    *fd = open_socket(at->ai_family);
    const int status = *fd >= 0                ? listen_at(*fd, at, both_families, backlog)
                       : errno == EAFNOSUPPORT ? LTDIC_ERR_ADDRESS
                                               : ltdic__system_status();
    if (status != LTDIC_OK) {
        *cause = ltdic__system_cause();
        ltdic__close_fd(fd);
    }
    return status;
}

ltdic_transport_result ltdic__tcp_accept(int listener, int *fd, tcp_name *peer)
{
    struct sockaddr *name = (struct sockaddr *)(void *)peer->address;
    socklen_t size;
    do {
        size = sizeof peer->address;
#if ONE_CALL
        *fd = accept4(listener, name, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
        *fd = nonblocking(accept(listener, name, &size));
#endif
    } while (*fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (*fd < 0) {
        return would_block() ? LTDIC_TRANSPORT_WANT_READ : LTDIC_TRANSPORT_LOST;
    }
    peer->size = (uint8_t)size;
#ifndef __linux__
    tune(*fd); /* on Linux it inherits the options of its listener */
#endif
    return LTDIC_TRANSPORT_DONE;
}

/* ---- connecting --------------------------------------------------------------------------- */

/* Binds to a local address of this family. Returns false if there is none or it cannot be used. */
static bool bind_local(int fd, const struct addrinfo *local, int family)
{
    if (local == NULL) {
        return true;
    }
    while (local != NULL && local->ai_family != family) {
        local = local->ai_next;
    }
    if (local == NULL) {
        errno = EAFNOSUPPORT;
        return false;
    }
    return bind(fd, local->ai_addr, local->ai_addrlen) == 0;
}

/* Returns true if connect() has already completed; false means unknown. */
static bool is_up(int fd)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    return getpeername(fd, (struct sockaddr *)&peer, &size) == 0;
}

int ltdic__tcp_connect(int *fd, const struct addrinfo *peer, const struct addrinfo *local,
                       bool *bound, ltdic_cause *cause)
{
    *fd = open_socket(peer->ai_family);
    if (*fd >= 0) {
        tune(*fd);
    }
    const bool ready = *fd >= 0 && bind_local(*fd, local, peer->ai_family);
    *bound = *bound || ready;
    if (!ready || (connect(*fd, peer->ai_addr, peer->ai_addrlen) != 0 && errno != EINPROGRESS &&
                   errno != EINTR)) {
        *cause = ltdic__system_cause();
        ltdic__close_fd(fd);
        return LTDIC_ERR_SYSTEM;
    }
    return is_up(*fd) ? LTDIC_OK : LTDIC_NEED_MORE;
}

/* Returns 0 if the connection is up, or was: bytes that the peer sent before it left can be read.
 */
static int connect_error(int fd)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error == ECONNRESET || error == EPIPE ? 0
           : error == EINPROGRESS                ? CONNECT_PENDING
                                                 : error;
}

bool ltdic__tcp_connected(const int *fds, size_t count, int *errors)
{
    struct pollfd asked[MOST_ATTEMPTS];
    for (size_t i = 0; i < count; i++) {
        asked[i] = (struct pollfd){.fd = fds[i], .events = POLLOUT};
    }
    if (count > 0 && poll(asked, (nfds_t)count, 0) < 0) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        errors[i] = asked[i].revents != 0 ? connect_error(fds[i]) : CONNECT_PENDING;
    }
    return true;
}

bool ltdic__tcp_may_listen(int fd, ltdic_cause *cause)
{
    int listens = 0;
    socklen_t size = sizeof listens;
    bool good = getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0;
    if (good && listens == 0) {
        errno = EINVAL;
        good = false;
    }
    good = good && fcntl(fd, F_SETFL, O_NONBLOCK) == 0;
    if (!good) {
        *cause = ltdic__system_cause();
    }
    return good;
}

bool ltdic__tcp_adopt(int fd, ltdic_cause *cause)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer, int_size = sizeof(int);
    int type = 0;
    bool good = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &int_size) == 0;
    if (good && type != SOCK_STREAM) {
        errno = EPROTOTYPE;
        good = false;
    }
    good = good && getpeername(fd, (struct sockaddr *)&peer, &size) == 0 &&
           fcntl(fd, F_SETFL, O_NONBLOCK) == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
    if (good) {
        tune(fd);
    } else {
        *cause = ltdic__system_cause();
    }
    return good;
}

/* ---- an open connection ------------------------------------------------------------------- */

static int receive(int fd, uint8_t *data, size_t room, int flags, size_t *size)
{
    ssize_t got;
    do {
        got = recv(fd, data, room, flags);
    } while (got < 0 && errno == EINTR);
    *size = got > 0 ? (size_t)got : 0;
    return got > 0         ? LTDIC_TRANSPORT_DONE
           : got == 0      ? LTDIC_TRANSPORT_END
           : would_block() ? LTDIC_TRANSPORT_WANT_READ
                           : LTDIC_TRANSPORT_LOST;
}

int ltdic__tcp_peek(int fd, uint8_t *data, size_t room, size_t *size)
{
    return receive(fd, data, room, MSG_PEEK, size);
}

static int tcp_read(void *state, int fd, uint8_t *data, size_t room, size_t *size)
{
    (void)state;
    return receive(fd, data, room, 0, size);
}

static int tcp_send(void *state, int fd, const ltdic_output *output, size_t *size)
{
    struct iovec parts[sizeof output->parts / sizeof *output->parts];
    struct msghdr all = {.msg_iov = parts};
    (void)state;
    for (size_t i = 0; i < output->count; i++) {
        parts[i].iov_base = (void *)(uintptr_t)output->parts[i].data; /* sendmsg only reads it */
        parts[i].iov_len = output->parts[i].size;
    }
    all.msg_iovlen = output->count;
    ssize_t sent;
    do {
        sent = sendmsg(fd, &all, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    *size = sent > 0 ? (size_t)sent : 0;
    return sent < 0 && !would_block()           ? LTDIC_TRANSPORT_LOST
           : *size < ltdic__output_size(output) ? LTDIC_TRANSPORT_WANT_WRITE
                                                : LTDIC_TRANSPORT_DONE;
}

int ltdic_tcp_read(int descriptor, uint8_t *data, size_t room, size_t *size)
{
    return receive(descriptor, data, room, 0, size);
}

int ltdic_tcp_send(int descriptor, ltdic_bytes bytes, size_t *size)
{
    ltdic_output output;
    output.count = 1;
    output.parts[0] = bytes;
    return tcp_send(NULL, descriptor, &output, size);
}

const ltdic_transport ltdic__tcp = {sizeof ltdic__tcp, NULL, tcp_read, tcp_send, NULL, NULL, NULL};

static int write_name(const struct sockaddr *a, socklen_t size, ltdic_buffer *host, uint16_t *port)
{
    char digits[8];
    if (host->room == 0) {
        return LTDIC_ERR_ROOM;
    }
    if (getnameinfo(a, size, (char *)host->data, (socklen_t)host->room, digits, sizeof digits,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return LTDIC_ERR_ROOM;
    }
    host->size = strlen((const char *)host->data);
    *port = (uint16_t)strtoul(digits, NULL, 10);
    return LTDIC_OK;
}

int ltdic__tcp_name(int fd, bool peer, ltdic_buffer *host, uint16_t *port)
{
    struct sockaddr_storage address;
    struct sockaddr *a = (struct sockaddr *)&address;
    socklen_t size = sizeof address;
    return fd < 0 || (peer ? getpeername(fd, a, &size) : getsockname(fd, a, &size)) != 0
               ? LTDIC_ERR_WRONG_STATE
               : write_name(a, size, host, port);
}

int ltdic__tcp_name_of(const tcp_name *name, ltdic_buffer *host, uint16_t *port)
{
    struct sockaddr_storage address;
    memcpy(&address, name->address, sizeof name->address);
    return write_name((const struct sockaddr *)&address, name->size, host, port);
}

void ltdic__tcp_acknowledge(int fd)
{
#ifdef TCP_QUICKACK
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on); /* not permanent: see tcp(7) */
#else
    (void)fd;
#endif
}

uint64_t ltdic__tcp_unacknowledged(int fd)
{
    int bytes = 0;
#ifdef TIOCOUTQ
    if (fd < 0 || ioctl(fd, TIOCOUTQ, &bytes) != 0) {
        bytes = 0;
    }
#else
    (void)fd;
#endif
    return bytes > 0 ? (uint64_t)bytes : 0;
}
