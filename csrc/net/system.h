/* SPDX-License-Identifier: MIT */
/* Sets the feature macros of the system's headers and chooses the poller. The files of net/ include
 * it first. Internal. */
#ifndef LTDIC_SYSTEM_H
#define LTDIC_SYSTEM_H

#if !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#if !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE
#endif
#if defined(__APPLE__)
#define _DARWIN_C_SOURCE
#elif defined(__NetBSD__)
#define _NETBSD_SOURCE
#elif defined(__OpenBSD__)
#define _BSD_SOURCE
#endif

#define EPOLL 1
#define KQUEUE 2
#define POLL 3

/* LTDIC_POLL selects poll(2) on every system. */
#if defined(LTDIC_POLL)
#define POLLER POLL
#elif defined(__linux__)
#define POLLER EPOLL
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__)
#define POLLER KQUEUE
#else
#define POLLER POLL
#endif

#endif
