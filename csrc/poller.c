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

static bool poller_ctl(ltdic_net *net, int operation, bool writing)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET,
                            .data = {.ptr = net}};
    if (writing) {
        e.events |= EPOLLOUT;
    }
    return epoll_ctl(net->loop->poller, operation, net->fd, &e) == 0;
}

bool ltdic__poller_add(ltdic_net *net)
{
    return poller_ctl(net, EPOLL_CTL_ADD, !net->can_write);
}

void ltdic__poller_want_write(ltdic_net *net)
{
    poller_ctl(net, EPOLL_CTL_MOD, true);
}

/* Needed although close() follows: a child process may hold a copy of the descriptor. */
void ltdic__poller_remove(ltdic_net *net)
{
    poller_ctl(net, EPOLL_CTL_DEL, false);
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

bool ltdic__poller_add(ltdic_net *net)
{
    (void)net;
    return true;
}

void ltdic__poller_want_write(ltdic_net *net)
{
    (void)net;
}

void ltdic__poller_remove(ltdic_net *net)
{
    (void)net;
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

/* Ask only for what is not known already, and for the alarm first. Where there is no memory to ask
 * for all, `*all` is false. */
static size_t poller_collect(ltdic_loop *loop, bool *all)
{
    size_t count = 1;
    *all = poller_reserve(loop, count);
    if (!*all) {
        return 0;
    }
    loop->polled[0] = (struct pollfd){.fd = loop->alarm[0], .events = POLLIN};
    for (node *l = loop->all.next; l != &loop->all; l = l->next) {
        ltdic_net *net = NET_OF(l, all);
        const bool write = !net->can_write && net->transport != LISTENING;
        if (net->fd < 0 || (net->can_read && !write)) {
            continue;
        }
        if (!poller_reserve(loop, count + 1)) {
            *all = false;
            break;
        }
        const short events = (short)((net->can_read ? 0 : POLLIN) | (write ? POLLOUT : 0));
        loop->polled[count] = (struct pollfd){.fd = net->fd, .events = events};
        loop->polled_nets[count] = net;
        count++;
    }
    return count;
}

int ltdic__poller_wait(ltdic_loop *loop, int milliseconds)
{
    bool all;
    const size_t count = poller_collect(loop, &all);
    const int most = all || milliseconds < RETRY ? milliseconds : RETRY;
    const int found = poll(loop->polled, (nfds_t)count, most);
    loop->woken = found > 0 && count > 0 && loop->polled[0].revents != 0;
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
