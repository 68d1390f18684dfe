/* SPDX-License-Identifier: MIT */
/* Descriptors that never block, and host names. */
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* SO_NOSIGPIPE is there instead */
#endif

void ltdic__close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

/* Errors here cost speed or tidiness, not correctness. */
void ltdic__tune_socket(int fd)
{
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
#ifdef SO_NOSIGPIPE
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
}

void ltdic__tune_accepted(int fd)
{
#ifdef __linux__
    (void)fd; /* it has what its listener has */
#else
    ltdic__tune_socket(fd);
#endif
}

void ltdic__acknowledge(int fd)
{
#ifdef TCP_QUICKACK
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on); /* it holds for a moment only */
#else
    (void)fd;
#endif
}

uint64_t ltdic__unacknowledged(int fd)
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

uint32_t ltdic__most_descriptors(void)
{
    struct rlimit limit;
    const bool known = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    return known && limit.rlim_cur < UINT32_MAX ? (uint32_t)limit.rlim_cur : UINT32_MAX;
}

bool ltdic__is_connected(int fd)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    return getpeername(fd, (struct sockaddr *)&peer, &size) == 0;
}

static int nonblocking(int fd)
{
    if (fd >= 0 && (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)) {
        ltdic__close_fd(&fd);
    }
    return fd;
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

void ltdic__drain_pipe(int end)
{
    uint8_t bytes[64];
    while (read(end, bytes, sizeof bytes) > 0) {
    }
}

int ltdic__open_socket(int family)
{
#if defined(SOCK_NONBLOCK) && USE_EPOLL
    return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
#else
    return nonblocking(socket(family, SOCK_STREAM, 0));
#endif
}

int ltdic__accept_socket(int listener)
{
    int fd;
    do {
#if defined(SOCK_NONBLOCK) && USE_EPOLL
        fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
        fd = nonblocking(accept(listener, NULL, NULL));
#endif
    } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    return fd;
}

ptrdiff_t ltdic__send_parts(int fd, const ltdic_output *output)
{
    struct iovec parts[sizeof output->parts / sizeof *output->parts];
    struct msghdr all = {.msg_iov = parts};
    for (size_t i = 0; i < output->count; i++) {
        parts[i].iov_base = (void *)(uintptr_t)output->parts[i].data; /* it is only read */
        parts[i].iov_len = output->parts[i].size;
    }
    all.msg_iovlen = output->count;
    ssize_t sent;
    do {
        sent = sendmsg(fd, &all, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent;
}

const char *ltdic_resolver_text(int resolver)
{
    return gai_strerror(resolver);
}

static int resolve_status(int error, ltdic_cause *cause)
{
    *cause = (ltdic_cause){.error = error == EAI_SYSTEM ? errno : 0,
                           .resolver = error == EAI_SYSTEM ? 0 : error};
    return error == 0            ? LTDIC_OK
           : error == EAI_MEMORY ? LTDIC_ERR_MEMORY
           : error == EAI_SYSTEM ? LTDIC_ERR_SYSTEM
                                 : LTDIC_ERR_ADDRESS;
}

/* The name without the brackets that an IPv6 number has in front of a port (RFC 3986 3.2.2). */
static const char *without_brackets(const char *host, char *room, size_t size)
{
    const size_t length = strlen(host);
    if (length < 2 || host[0] != '[' || host[length - 1] != ']' || length - 2 >= size) {
        return host;
    }
    memcpy(room, host + 1, length - 2);
    room[length - 2] = '\0';
    return room;
}

/* A full stop at the end makes a name absolute (RFC 1034 3.1). What is no domain name, as those of
 * /etc/hosts and numbers, is known without it, also where no resolver can be asked. */
static int look_up(const char *host, const char *port, const struct addrinfo *hints,
                   struct addrinfo **found)
{
    char room[NI_MAXHOST];
    const size_t length = host == NULL ? 0 : strlen(host);
    const int error = getaddrinfo(host, port, hints, found);
    const bool unknown = error == EAI_NONAME || error == EAI_AGAIN;
    if (!unknown || length < 2 || length > sizeof room || host[length - 1] != '.') {
        return error;
    }
    memcpy(room, host, length - 1);
    room[length - 1] = '\0';
    return getaddrinfo(room, port, hints, found);
}

int ltdic__resolve(struct addrinfo **found, const ltdic_address *address, bool listening,
                   ltdic_cause *cause)
{
    static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6, AF_UNSPEC};
    char name[NI_MAXHOST] = "", port[8];
    const char *host = address->host;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_family = families[address->family & 3],
                             .ai_flags = AI_NUMERICSERV};
    *found = NULL;
    if (host == NULL || *host == '\0') {
        gethostname(name, sizeof name - 1);
        host = name;
    } else if (listening && strcmp(host, "*") == 0) {
        host = NULL;
        hints.ai_flags |= AI_PASSIVE;
        hints.ai_family = address->family == LTDIC_IP_BOTH ? AF_INET6 : hints.ai_family;
    } else {
        host = without_brackets(host, name, sizeof name);
    }
    snprintf(port, sizeof port, "%u", (unsigned)address->port);
    return resolve_status(look_up(host, port, &hints, found), cause);
}

static atomic_uint forks;

static void count_fork(void)
{
    atomic_fetch_add(&forks, 1);
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, count_fork);
}

void ltdic__count_forks(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
}

unsigned ltdic__forks(void)
{
    return atomic_load(&forks);
}

void ltdic__free_addresses(struct addrinfo **list)
{
    if (*list != NULL) {
        freeaddrinfo(*list);
        *list = NULL;
    }
}
