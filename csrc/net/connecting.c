/* SPDX-License-Identifier: MIT */
/* Connecting: attempts at every address of the peer, started one after the other and
 * continued in parallel (RFC 8305). The first that is up is used. */
#include "system.h"

#include "net.h"

enum { ATTEMPT_DELAY = 250 }; /* ms until the next address is tried, too (RFC 8305 5) */

uint64_t ltdic__attempt_deadline(const ltdic_net *net)
{
    const uint64_t end = net->connect_deadline;
    const bool more = net->address != NULL && (end == 0 || net->next_attempt < end);
    return more ? net->next_attempt : end;
}

/* Close an attempt; the others stay in the order in which they began. */
static void drop_attempt(ltdic_net *net, size_t i)
{
    ltdic__poller_remove(net->source.loop->poller, net->attempts[i]);
    ltdic__close_fd(&net->attempts[i]);
    for (net->attempt_count--; i < net->attempt_count; i++) {
        net->attempts[i] = net->attempts[i + 1];
    }
}

void ltdic__drop_attempts(ltdic_net *net)
{
    while (net->attempt_count > 0) {
        drop_attempt(net, net->attempt_count - 1U);
    }
}

static void use_attempt(ltdic_net *net, int fd, bool watched)
{
    net->fd = fd;
    net->watched = watched;
    net->source.can_read = net->source.can_write = true; /* perhaps: the system knows */
}

/* Start an attempt. False where the system will have none of it; `cause` says why. */
static bool start_attempt(ltdic_net *net, const struct addrinfo *a)
{
    int fd;
    const int status = ltdic__tcp_connect(&fd, a, net->local, &net->bound, &net->cause);
    if (status == LTDIC_OK) {
        ltdic__drop_attempts(net);
        use_attempt(net, fd, false);
        return true;
    }
    if (status != LTDIC_NEED_MORE) {
        return false;
    }
    if (ltdic__poller_add(net->source.loop->poller, &net->source, fd, true) != LTDIC_OK) {
        net->cause = ltdic__system_cause();
        ltdic__close_fd(&fd);
        return false;
    }
    if (net->attempt_count == MOST_ATTEMPTS) {
        drop_attempt(net, 0);
    }
    net->attempts[net->attempt_count++] = fd;
    return true;
}

/* Start with the next address that takes a start. False when there is none left. */
static bool try_next_address(ltdic_net *net)
{
    while (net->address != NULL) {
        const struct addrinfo *a = net->address;
        net->address = a->ai_next;
        if (start_attempt(net, a)) {
            net->next_attempt = ltdic__now() + ATTEMPT_DELAY;
            return true;
        }
    }
    return false;
}

/* Look which attempts have ended, and drop those that have failed. True where one is up, which is
 * then the endpoint's own. */
static bool look_at_attempts(ltdic_net *net, bool *failed)
{
    int errors[MOST_ATTEMPTS];
    if (!ltdic__tcp_connected(net->attempts, net->attempt_count, errors)) {
        ltdic__make_ready_later(&net->source);
        return false;
    }
    net->source.can_read = net->source.can_write = net->source.hung_up = false;
    for (size_t i = net->attempt_count; i-- > 0;) {
        if (errors[i] == 0) {
            const int fd = net->attempts[i];
            net->attempts[i] = net->attempts[--net->attempt_count];
            ltdic__drop_attempts(net);
            use_attempt(net, fd, true);
            return true;
        }
        if (errors[i] != CONNECT_PENDING) {
            net->cause = (ltdic_cause){errors[i], 0};
            drop_attempt(net, i);
            *failed = true;
        }
    }
    return false;
}

static void connected(ltdic_net *net)
{
    net->state = OPEN;
    net->cause = (ltdic_cause){0, 0};
    ltdic__free_addresses(&net->addresses);
    ltdic__free_addresses(&net->local);
    if (ltdic_association_state(net->association) == 4) {
        ltdic_association_opened(net->association, LTDIC_EVT_CONNECTED, ltdic__now());
    }
    ltdic__settle(net);
}

static void not_connected(ltdic_net *net)
{
    ltdic__close_socket(net);
    ltdic__association_reset(net->association);
    ltdic__make_ready(&net->source);
}

bool ltdic__finish_connecting(ltdic_net *net, ltdic_indication *indication)
{
    source *s = &net->source;
    const uint64_t now = ltdic__now();
    const bool late = net->connect_deadline != 0 && net->connect_deadline <= now;
    const bool told = s->can_read || s->can_write || s->hung_up; /* by the poller */
    bool next = net->attempt_count == 0 || (net->address != NULL && net->next_attempt <= now);
    *indication = (ltdic_indication){.kind = LTDIC_CONNECTED};
    if (net->fd < 0 && net->attempt_count == 0 && s->spent) { /* told in the next round */
        ltdic__make_ready_later(s);
        return false;
    }
    if (net->attempt_count > 0 && !told && !next && !late) {
        return false;
    }
    if (net->fd >= 0 || look_at_attempts(net, &next)) {
        connected(net);
        return true;
    }
    if (!late && next && try_next_address(net) && net->fd >= 0) {
        connected(net);
        return true;
    }
    if (!late && net->attempt_count > 0) {
        ltdic__settle(net);
        return false;
    }
    indication->status = late ? LTDIC_ERR_TIMEOUT : LTDIC_ERR_CONNECT;
    net->cause = late ? ltdic__cause_timed_out() : net->cause;
    not_connected(net);
    return true;
}

static int resolve_both(ltdic_net *net, const ltdic_address *peer, const ltdic_address *local)
{
    int status = ltdic__resolve(&net->addresses, peer, false, &net->cause);
    if (status == LTDIC_OK && local != NULL) {
        status = ltdic__resolve(&net->local, local, true, &net->cause);
    }
    return status;
}

int ltdic_net_connect(ltdic_net *net, const ltdic_address *peer, const ltdic_address *local)
{
    source *s = &net->source;
    ltdic__renew(s->loop);
    if (net->state == OPEN && ltdic__association_is_over(net->association)) {
        ltdic__close_socket(net); /* the user has just been told of what ended it */
    }
    if (net->state != CLOSED) {
        return LTDIC_ERR_WRONG_STATE;
    }
    const uint32_t patience = ltdic__association_response_time(net->association);
    int status = resolve_both(net, peer, local);
    net->address = net->addresses;
    net->bound = s->can_read = s->can_write = s->hung_up = false;
    net->connect_deadline = patience == 0 ? 0 : ltdic__now() + patience;
    const bool started = status == LTDIC_OK && try_next_address(net);
    if (status == LTDIC_OK && !started && local != NULL && !net->bound) {
        status = LTDIC_ERR_ADDRESS;
    }
    if (status != LTDIC_OK) {
        ltdic__free_addresses(&net->addresses);
        ltdic__free_addresses(&net->local);
        return status;
    }
    ltdic__enter(net, CONNECTING);
    if (!started) {
        ltdic__begin_round(s);
        s->spent = true;
    }
    ltdic__settle(net);
    return LTDIC_OK;
}

ltdic_cause ltdic_net_cause(const ltdic_net *net)
{
    return net->cause;
}
