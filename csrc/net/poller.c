/* SPDX-License-Identifier: MIT */
/* Which endpoints can read and write: epoll on Linux, poll elsewhere or with LTDIC_POLL. */
#include "net.h"

#if USE_EPOLL
#include <sys/epoll.h>
#else
#include <poll.h>
#include <stdlib.h>
#endif
#include <unistd.h>

#if USE_EPOLL

enum { EVENTS_PER_WAIT = 256 };

bool ltdic__poller_open(ltdic_loop *loop)
{
    struct epoll_event alarm = {.events = EPOLLIN, .data = {.ptr = NULL}};
    loop->poller = epoll_create1(EPOLL_CLOEXEC);
    if (loop->poller >= 0 && epoll_ctl(loop->poller, EPOLL_CTL_ADD, loop->alarm[0], &alarm) != 0) {
        ltdic__close_fd(&loop->poller);
    }
    return loop->poller >= 0;
}

void ltdic__poller_close(ltdic_loop *loop)
{
    close(loop->poller);
}

static bool poller_ctl(ltdic_net *net, int fd, int operation, bool writing)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET,
                            .data = {.ptr = net}};
    if (writing) {
        e.events |= EPOLLOUT;
    }
    return epoll_ctl(net->loop->poller, operation, fd, &e) == 0;
}

bool ltdic__poller_add(ltdic_net *net, int fd, bool writing)
{
    return poller_ctl(net, fd, EPOLL_CTL_ADD, writing);
}

void ltdic__poller_want_write(ltdic_net *net)
{
    poller_ctl(net, net->fd, EPOLL_CTL_MOD, true);
}

/* Needed although close() follows: a child process may hold a copy of the descriptor. */
void ltdic__poller_remove(ltdic_net *net, int fd)
{
    poller_ctl(net, fd, EPOLL_CTL_DEL, false);
}

int ltdic__poller_wait(ltdic_loop *loop, int milliseconds)
{
    struct epoll_event events[EVENTS_PER_WAIT];
    const int count = epoll_wait(loop->poller, events, EVENTS_PER_WAIT, milliseconds);
    for (int i = 0; i < count; i++) {
        ltdic_net *net = events[i].data.ptr;
        const uint32_t flags = events[i].events;
        if (net == NULL) {
            loop->woken = true;
            continue;
        }
        net->can_read |= (flags & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
        net->can_write |= (flags & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0;
        net->hung_up |= (flags & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
        ltdic__make_ready(net);
    }
    return count;
}

#else

enum { RETRY = 100 }; /* ms until those are asked for whom there was no memory */

bool ltdic__poller_open(ltdic_loop *loop)
{
    loop->polled = NULL;
    loop->polled_nets = NULL;
    loop->polled_room = 0;
    return true;
}

void ltdic__poller_close(ltdic_loop *loop)
{
    free(loop->polled);
    free(loop->polled_nets);
}

bool ltdic__poller_add(ltdic_net *net, int fd, bool writing)
{
    (void)net, (void)fd, (void)writing;
    return true;
}

void ltdic__poller_want_write(ltdic_net *net)
{
    (void)net;
}

void ltdic__poller_remove(ltdic_net *net, int fd)
{
    (void)net, (void)fd;
}

static bool poller_reserve(ltdic_loop *loop, size_t count)
{
    if (count <= loop->polled_room) {
        return true;
    }
    struct pollfd *polled = realloc(loop->polled, 2 * count * sizeof *polled);
    loop->polled = polled != NULL ? polled : loop->polled;
    ltdic_net **nets = realloc(loop->polled_nets, 2 * count * sizeof *nets);
    loop->polled_nets = nets != NULL ? nets : loop->polled_nets;
    if (polled == NULL || nets == NULL) {
        return false;
    }
    loop->polled_room = 2 * count;
    return true;
}

/* False where there is no memory to ask for it. */
static bool collect(ltdic_loop *loop, size_t *count, ltdic_net *net, struct pollfd wanted)
{
    if (!poller_reserve(loop, *count + 1)) {
        return false;
    }
    loop->polled[*count] = wanted;
    loop->polled_nets[*count] = net;
    ++*count;
    return true;
}

/* Ask only for what is not known already. */
static bool collect_net(ltdic_loop *loop, size_t *count, ltdic_net *net)
{
    const bool write = !net->can_write && net->transport != LISTENING;
    const short events = (short)((net->can_read ? 0 : POLLIN) | (write ? POLLOUT : 0));
    bool all = true;
    for (size_t i = 0; i < net->attempt_count; i++) {
        all = all && collect(loop, count, net, (struct pollfd){net->attempts[i], POLLOUT, 0});
    }
    return net->fd < 0 || events == 0
               ? all
               : collect(loop, count, net, (struct pollfd){net->fd, events, 0});
}

/* The alarm first. Where there is no memory to ask for all, `*all` is false. */
static size_t poller_collect(ltdic_loop *loop, bool *all)
{
    size_t count = 0;
    *all = collect(loop, &count, NULL, (struct pollfd){loop->alarm[0], POLLIN, 0});
    for (node *l = loop->all.next; l != &loop->all && *all; l = l->next) {
        *all = collect_net(loop, &count, NET_OF(l, all));
    }
    return count;
}

int ltdic__poller_wait(ltdic_loop *loop, int milliseconds)
{
    bool all;
    const size_t count = poller_collect(loop, &all);
    const int most = all || milliseconds < RETRY ? milliseconds : RETRY;
    const int found = poll(loop->polled, (nfds_t)count, most);
    loop->woken |= found > 0 && count > 0 && loop->polled[0].revents != 0;
    for (size_t i = 1; found > 0 && i < count; i++) {
        ltdic_net *net = loop->polled_nets[i];
        const short flags = loop->polled[i].revents;
        net->can_read |= (flags & (POLLIN | POLLHUP | POLLERR)) != 0;
        net->can_write |= (flags & (POLLOUT | POLLHUP | POLLERR)) != 0;
        net->hung_up |= (flags & (POLLHUP | POLLERR)) != 0;
        if (flags != 0) {
            ltdic__make_ready(net);
        }
    }
    return found;
}

#endif
