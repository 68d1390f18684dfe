/* SPDX-License-Identifier: MIT */
/* Connects: starts attempts at the addresses of the peer one after the other and continues them in
 * parallel (RFC 8305). The first one that is connected is used. */
#include "system.h"

#include "net.h"

#include <stdlib.h>

enum { ATTEMPT_DELAY = 250 }; /* ms between the starts of two attempts (RFC 8305 5) */

uint64_t ltdic__attempt_deadline(const ltdic_net *net)
{
    const uint64_t end = net->connect_deadline;
    const bool more = net->address != NULL && (end == 0 || net->next_attempt < end);
    return more ? net->next_attempt : end;
}

/* Closes an attempt. The others keep the order in which they were started. */
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
    net->address = NULL; /* no other attempt begins */
    net->open = net->transport->open == NULL;
    net->watched = watched;
    net->source.can_read = net->source.can_write = true; /* until a call says otherwise */
}

/* Starts an attempt. Returns false and sets `cause` if that fails. */
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

/* Starts an attempt at the next address at which that succeeds. Returns false if none is left. */
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

/* Drops the attempts that have failed; then `failed` is true. Returns true if one is connected,
 * which the endpoint then uses. */
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
    net->state = CONNECTED;
    net->cause = (ltdic_cause){0, 0};
    ltdic__free_addresses(&net->addresses);
    ltdic__free_addresses(&net->local);
    if (ltdic_association_state(net->association) == STA_AWAITING_TRANSPORT) {
        ltdic_association_opened(net->association, LTDIC_EVT_CONNECTED, ltdic__now());
    }
    ltdic__update_timer(net);
}

static void not_connected(ltdic_net *net)
{
    ltdic__close_socket(net);
    ltdic__association_reset(net->association);
    ltdic__make_ready(&net->source);
}

/* Continues to open the transport of a connection that is up. Returns true if that is done or has
 * failed, and `status` says which. */
static bool finish_opening(ltdic_net *net, bool late, int *status)
{
    const int result = ltdic__open_transport(net);
    const bool again = result == LTDIC_TRANSPORT_AGAIN;
    const bool waits =
        again || result == LTDIC_TRANSPORT_WANT_READ || result == LTDIC_TRANSPORT_WANT_WRITE;
    if (result == LTDIC_TRANSPORT_DONE) {
        connected(net);
        return true;
    }
    if (waits && !late && (net->watched || ltdic__watch(net) == LTDIC_OK)) {
        ltdic__update_timer(net);
        if (again) {
            ltdic__make_ready_later(&net->source);
        }
        return false;
    }
    net->cause = late ? ltdic__cause_timed_out() : (ltdic_cause){0, 0};
    *status = late ? LTDIC_ERR_TIMEOUT : LTDIC_ERR_CONNECT;
    not_connected(net);
    return true;
}

bool ltdic__finish_connecting(ltdic_net *net, ltdic_indication *indication)
{
    source *s = &net->source;
    const uint64_t now = ltdic__now();
    const bool late = net->connect_deadline != 0 && net->connect_deadline <= now;
    const bool polled = s->can_read || s->can_write || s->hung_up; /* reported by the poller */
    bool next = net->attempt_count == 0 || (net->address != NULL && net->next_attempt <= now);
    *indication = (ltdic_indication){.kind = LTDIC_CONNECTED};
    if (net->fd < 0 && net->attempt_count == 0 && s->spent) { /* it fails in the next round */
        ltdic__make_ready_later(s);
        return false;
    }
    if (net->attempt_count > 0 && !polled && !next && !late) {
        return false;
    }
    if (net->fd >= 0 || look_at_attempts(net, &next) ||
        (!late && next && try_next_address(net) && net->fd >= 0)) {
        return finish_opening(net, late, &indication->status);
    }
    if (!late && net->attempt_count > 0) {
        ltdic__update_timer(net);
        return false;
    }
    indication->status = late ? LTDIC_ERR_TIMEOUT : LTDIC_ERR_CONNECT;
    net->cause = late ? ltdic__cause_timed_out() : net->cause;
    not_connected(net);
    return true;
}

struct ltdic_lookup {
    struct addrinfo *peer, *local;
};

/* Looks both addresses up. With an error nothing is left. */
static int look_up(ltdic_lookup *l, const ltdic_address *peer, const ltdic_address *local,
                   ltdic_cause *cause)
{
    *l = (ltdic_lookup){NULL, NULL};
    int status = ltdic__resolve(&l->peer, peer, false, cause);
    if (status == LTDIC_OK && local != NULL) {
        status = ltdic__resolve(&l->local, local, true, cause);
    }
    if (status != LTDIC_OK) {
        ltdic__free_addresses(&l->peer);
    }
    return status;
}

int ltdic_lookup_new(ltdic_lookup **lookup, const ltdic_address *peer, const ltdic_address *local,
                     ltdic_cause *cause)
{
    ltdic_lookup *l = malloc(sizeof *l);
    *cause = (ltdic_cause){0, 0};
    const int status = l == NULL ? LTDIC_ERR_MEMORY : look_up(l, peer, local, cause);
    *lookup = status == LTDIC_OK ? l : NULL;
    if (status != LTDIC_OK) {
        free(l);
    }
    return status;
}

void ltdic_lookup_free(ltdic_lookup *lookup)
{
    if (lookup != NULL) {
        ltdic__free_addresses(&lookup->peer);
        ltdic__free_addresses(&lookup->local);
        free(lookup);
    }
}

/* Begins to connect to these addresses, which belong to the endpoint from now on. */
static int begin(ltdic_net *net, ltdic_lookup found)
{
    source *s = &net->source;
    const uint32_t timeout = ltdic__association_response_time(net->association);
    net->address = net->addresses = found.peer;
    net->local = found.local;
    net->bound = s->can_read = s->can_write = s->hung_up = false;
    net->connect_deadline = timeout == 0 ? 0 : ltdic__now() + timeout;
    const bool started = try_next_address(net);
    if (!started && net->local != NULL && !net->bound) {
        ltdic__free_addresses(&net->addresses);
        ltdic__free_addresses(&net->local);
        return LTDIC_ERR_ADDRESS;
    }
    ltdic__change_state(net, CONNECTING);
    if (!started) {
        ltdic__begin_round(s);
        s->spent = true;
    }
    ltdic__update_timer(net);
    return LTDIC_OK;
}

/* Returns true if the endpoint can connect. */
static bool is_free(ltdic_net *net)
{
    ltdic__renew(net->source.loop);
    if (net->state == CONNECTED && ltdic__association_is_over(net->association)) {
        ltdic__close_socket(net); /* the last indication of it was its end */
    }
    return net->state == CLOSED;
}

int ltdic_net_connect_to(ltdic_net *net, ltdic_lookup *lookup)
{
    if (!is_free(net)) {
        return LTDIC_ERR_WRONG_STATE;
    }
    const ltdic_lookup found = *lookup;
    *lookup = (ltdic_lookup){NULL, NULL};
    return begin(net, found);
}

int ltdic_net_connect(ltdic_net *net, const ltdic_address *peer, const ltdic_address *local)
{
    ltdic_lookup found;
    if (!is_free(net)) {
        return LTDIC_ERR_WRONG_STATE;
    }
    const int status = look_up(&found, peer, local, &net->cause);
    return status == LTDIC_OK ? begin(net, found) : status;
}

ltdic_cause ltdic_net_cause(const ltdic_net *net)
{
    return net->cause;
}
