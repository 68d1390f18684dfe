/* SPDX-License-Identifier: MIT */
/* Injected failures of system calls and allocations, and a clock that only moves when nothing
 * happens. For a program of one file, linked with -Wl,--wrap=... for each function here.
 *
 * Time stands still while there is anything to do. A wait that finds nothing for `faults.quantum`
 * real milliseconds ends, and its whole time has passed. So no deadline passes because the machine
 * is slow, and none takes its real time. Loopback delivers at once; a quantum that is too short for
 * a busy machine makes a deadline pass early, which is a fault like any other.
 *
 * Under edge-triggered epoll a reader that got EAGAIN, or fewer bytes than it asked for, may sleep
 * until new bytes arrive. The kernel returns neither while bytes are there, so an injected one must
 * be followed by an injected edge: the rest then seems to arrive right after the call. */
#ifndef INJECT_H
#define INJECT_H

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

typedef enum function {
    NOTHING,
    ALLOCATE,
    RECV,
    SENDMSG,
    ACCEPT,
    SOCKET,
    CONNECT,
    BIND,
    LISTEN,
    GETSOCKNAME,
    GETPEERNAME,
    SETSOCKOPT,
    GETSOCKOPT,
    GETADDRINFO,
    WAIT,
    EPOLL_CTL,
    EPOLL_CREATE,
    FCNTL
} function;

enum { ONE_BYTE = -1 }; /* instead of an errno: the call moves one byte */
enum { CRUMB = 61, DESCRIPTORS = 1024 };

static struct {
    function which;
    int error;
    unsigned long at;    /* the call that fails, counted from 1; 0: none */
    int from;            /* 1: and every one after it */
    function crawl;      /* RECV or SENDMSG: each call that does not fail moves a CRUMB at most */
    unsigned long calls; /* of `which` */
    unsigned long hits;
    long blocks;            /* allocated and not freed */
    uint64_t now;           /* ms */
    int quantum;            /* ms */
    int still;              /* nothing was sent since a wait found nothing */
    int dialled;            /* the descriptor that connected last */
    int asked;              /* 1: the program asked if it is connected */
    unsigned char head[10]; /* the first bytes received there */
    size_t received;        /* number of bytes received there */
    unsigned long
        refused; /* calls of accept that the system itself refused for lack of descriptors */
} faults;

static struct {
    int poller;
    struct epoll_event event;
} registered[DESCRIPTORS];

static inline void inject(function which, int error, unsigned long at, int from)
{
    faults.which = which;
    faults.error = error;
    faults.at = at;
    faults.from = from;
    faults.calls = faults.hits = 0;
    faults.still = 0;
}

/* Tell whether this call of `which` fails; set errno, unless the call is only cut short. */
static int fails(function which)
{
    if (faults.at == 0 || which != faults.which) {
        return 0;
    }
    faults.calls++;
    if (faults.calls != faults.at && (!faults.from || faults.calls < faults.at)) {
        return 0;
    }
    faults.hits++;
    errno = faults.error == ONE_BYTE ? 0 : faults.error;
    return 1;
}

/* With --wrap the linker names the original function `__real_`. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
ssize_t __real_recv(int fd, void *data, size_t size, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
int __real_accept(int fd, struct sockaddr *address, socklen_t *size);
int __real_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags);
int __real_socket(int family, int type, int protocol);
int __real_connect(int fd, const struct sockaddr *address, socklen_t size);
int __real_bind(int fd, const struct sockaddr *address, socklen_t size);
int __real_listen(int fd, int backlog);
int __real_getsockname(int fd, struct sockaddr *address, socklen_t *size);
int __real_getpeername(int fd, struct sockaddr *address, socklen_t *size);
int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *size);
int __real_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **found);
int __real_epoll_create1(int flags);
int __real_epoll_ctl(int poller, int operation, int fd, struct epoll_event *event);
int __real_epoll_wait(int poller, struct epoll_event *events, int room, int timeout);
int __real_poll(struct pollfd *polled, nfds_t count, int timeout);
int __real_fcntl(int fd, int command, ...);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);
ssize_t __wrap_recv(int fd, void *data, size_t size, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
int __wrap_accept(int fd, struct sockaddr *address, socklen_t *size);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags);
int __wrap_socket(int family, int type, int protocol);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_bind(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_listen(int fd, int backlog);
int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *size);
int __wrap_getpeername(int fd, struct sockaddr *address, socklen_t *size);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *size);
int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **found);
int __wrap_epoll_create1(int flags);
int __wrap_epoll_ctl(int poller, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_wait(int poller, struct epoll_event *events, int room, int timeout);
int __wrap_poll(struct pollfd *polled, nfds_t count, int timeout);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);

/* ---- memory ------------------------------------------------------------------------------ */

static void *counted(void *block)
{
    faults.blocks += block != NULL;
    return block;
}

void *__wrap_malloc(size_t size)
{
    return fails(ALLOCATE) ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails(ALLOCATE) ? NULL : counted(__real_calloc(count, size));
}

void *__wrap_realloc(void *block, size_t size)
{
    if (fails(ALLOCATE)) {
        return NULL;
    }
    return block == NULL ? counted(__real_malloc(size)) : __real_realloc(block, size);
}

void __wrap_free(void *block)
{
    faults.blocks -= block != NULL;
    __real_free(block);
}

/* ---- time -------------------------------------------------------------------------------- */

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
    (void)clock;
    t->tv_sec = (time_t)(faults.now / 1000);
    t->tv_nsec = (long)(faults.now % 1000) * 1000000;
    return 0;
}

static int real_time(int timeout)
{
    const int most = faults.still ? 0 : faults.quantum;
    return timeout < most ? timeout : most;
}

static int waited(int found, int timeout)
{
    faults.still = found == 0 && (faults.still || timeout >= faults.quantum);
    faults.now += found == 0 ? (uint64_t)timeout : 0;
    return found;
}

int __wrap_epoll_wait(int poller, struct epoll_event *events, int room, int timeout)
{
    if (fails(WAIT)) {
        return -1;
    }
    return waited(__real_epoll_wait(poller, events, room, real_time(timeout)), timeout);
}

int __wrap_poll(struct pollfd *polled, nfds_t count, int timeout)
{
    if (fails(WAIT)) {
        return -1;
    }
    return waited(__real_poll(polled, count, real_time(timeout)), timeout);
}

/* ---- readiness ---------------------------------------------------------------------------- */

int __wrap_epoll_create1(int flags)
{
    return fails(EPOLL_CREATE) ? -1 : __real_epoll_create1(flags);
}

int __wrap_epoll_ctl(int poller, int operation, int fd, struct epoll_event *event)
{
    if (fails(EPOLL_CTL)) {
        return -1;
    }
    if (fd < DESCRIPTORS) {
        registered[fd].poller = operation == EPOLL_CTL_DEL ? 0 : poller;
        registered[fd].event = *event;
    }
    return __real_epoll_ctl(poller, operation, fd, event);
}

/* Make a new edge if there is something to read. */
static void rearm(int fd)
{
    if (fd < DESCRIPTORS && registered[fd].poller > 0) {
        const int poller = registered[fd].poller; /* EPOLL_CTL_MOD does not take EPOLLEXCLUSIVE */
        __real_epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
        __real_epoll_ctl(poller, EPOLL_CTL_ADD, fd, &registered[fd].event);
    }
}

/* ---- sockets ----------------------------------------------------------------------------- */

static void watch(int fd, const void *data, ssize_t size)
{
    if (fd != faults.dialled || size <= 0) {
        return;
    }
    const size_t room = sizeof faults.head;
    const size_t at = faults.received < room ? faults.received : room;
    const size_t left = room - at;
    memcpy(faults.head + at, data, (size_t)size < left ? (size_t)size : left);
    faults.received += (size_t)size;
}

ssize_t __wrap_recv(int fd, void *data, size_t size, int flags)
{
    const int failing = fails(RECV);
    if (failing && faults.error != ONE_BYTE) {
        rearm(fd);
        errno = faults.error;
        return -1;
    }
    const int cut = failing || faults.crawl == RECV;
    const size_t most = failing ? 1 : cut ? CRUMB : size;
    const ssize_t got = __real_recv(fd, data, size < most ? size : most, flags);
    const int error = errno;
    if ((flags & MSG_PEEK) == 0) {
        watch(fd, data, got);
    }
    if (cut) { /* after the read, otherwise the edge could be for this byte */
        rearm(fd);
    }
    errno = error;
    return got;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    const int failing = fails(SENDMSG);
    faults.still = 0;
    if (failing && faults.error != ONE_BYTE) {
        return -1;
    }
    if (!failing && faults.crawl != SENDMSG) {
        return __real_sendmsg(fd, message, flags);
    }
    struct iovec part = message->msg_iov[0];
    struct msghdr one = *message;
    const size_t most = failing ? 1 : CRUMB;
    part.iov_len = part.iov_len < most ? part.iov_len : most;
    one.msg_iov = &part;
    one.msg_iovlen = 1;
    return __real_sendmsg(fd, &one, flags);
}

static int accepted(int fd)
{
    faults.refused += fd < 0 && (errno == EMFILE || errno == ENFILE);
    return fd;
}

static int accept_fails(int fd)
{
    if (!fails(ACCEPT)) {
        return 0;
    }
    rearm(fd);
    errno = faults.error;
    return 1;
}

int __wrap_accept(int fd, struct sockaddr *address, socklen_t *size)
{
    return accept_fails(fd) ? -1 : accepted(__real_accept(fd, address, size));
}

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    return accept_fails(fd) ? -1 : accepted(__real_accept4(fd, address, size, flags));
}

int __wrap_socket(int family, int type, int protocol)
{
    return fails(SOCKET) ? -1 : __real_socket(family, type, protocol);
}

/* After EINTR the attempt continues (POSIX connect()). */
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    const int failing = fails(CONNECT);
    faults.still = 0;
    faults.dialled = fd;
    faults.asked = 0;
    faults.received = 0;
    if (failing && faults.error != EINTR) {
        return -1;
    }
    const int result = __real_connect(fd, address, size);
    if (!failing) {
        return result;
    }
    errno = EINTR;
    return -1;
}

int __wrap_bind(int fd, const struct sockaddr *address, socklen_t size)
{
    return fails(BIND) ? -1 : __real_bind(fd, address, size);
}

int __wrap_listen(int fd, int backlog)
{
    return fails(LISTEN) ? -1 : __real_listen(fd, backlog);
}

int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *size)
{
    return fails(GETSOCKNAME) ? -1 : __real_getsockname(fd, address, size);
}

/* If getsockopt is to fail, no connection is established at once, so that it is called. */
int __wrap_getpeername(int fd, struct sockaddr *address, socklen_t *size)
{
    if (faults.which == GETSOCKOPT && fd == faults.dialled && !faults.asked) {
        faults.asked = 1;
        errno = ENOTCONN;
        return -1;
    }
    return fails(GETPEERNAME) ? -1 : __real_getpeername(fd, address, size);
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    return fails(SETSOCKOPT) ? -1 : __real_setsockopt(fd, level, name, value, size);
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
    return fails(GETSOCKOPT) ? -1 : __real_getsockopt(fd, level, name, value, size);
}

/* getaddrinfo returns its error. */
int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **found)
{
    return fails(GETADDRINFO) ? faults.error : __real_getaddrinfo(host, service, hints, found);
}

/* Only commands with an int argument. */
int __wrap_fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    const int value = va_arg(arguments, int);
    va_end(arguments);
    return fails(FCNTL) ? -1 : __real_fcntl(fd, command, value);
}

#endif
