/* SPDX-License-Identifier: MIT */
/* Listeners, and the limits on the connections that they accepted. */
#include "system.h"

#include "net.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    LEAST_BACKLOG = 1024,
    ACCEPTS_PER_ROUND = 64, /* so that many new connections do not delay those that are accepted */
    LEAST_UNFINISHED = 64   /* bytes of an incomplete PDU from which on they are counted */
};

/* One listening socket. Each of its listeners is on a loop that may have a thread of its own. */
struct listening {
    atomic_uint connections; /* accepted by all its listeners */
    atomic_uint most;        /* limit of `connections`; 0: none */
    atomic_uint count;       /* number of its listeners */
    pthread_mutex_t lock;    /* protects `members` */
    node members;
};

/* ---- counts ------------------------------------------------------------------------------ */

static bool is_full(const ltdic_net *listener)
{
    const listening *l = listener->listening;
    const unsigned most = atomic_load(&l->most);
    return most != 0 && atomic_load(&l->connections) >= most;
}

static void count_unfinished(ltdic_net *net, uint64_t size)
{
    if (net->listener == NULL || size == net->unfinished) {
        return;
    }
    net->listener->unfinished += size - net->unfinished;
    net->unfinished = size;
    if (size == 0) {
        list_remove(&net->begun);
    } else if (list_empty(&net->begun)) {
        list_insert_before(&net->listener->begun, &net->begun);
    }
}

static void end_for_congestion(ltdic_net *net)
{
    if (!net->open) {
        ltdic__net_end(net, LTDIC_ERR_CONGESTION);
        return;
    }
    ltdic_association_fail(net->association, LTDIC_ERR_CONGESTION, ltdic__now());
    ltdic__push(net);
}

void ltdic__bound_unfinished(ltdic_net *net, size_t size)
{
    ltdic_net *listener = net->listener;
    count_unfinished(net, size > LEAST_UNFINISHED ? size : 0);
    while (listener->max_unfinished != 0 && listener->unfinished > listener->max_unfinished) {
        ltdic_net *first = CONTAINER_OF(listener->begun.next, ltdic_net, begun);
        count_unfinished(first, 0);
        end_for_congestion(first);
    }
}

void ltdic__leave_listener(ltdic_net *net)
{
    ltdic_net *listener = net->listener;
    if (listener == NULL) {
        return;
    }
    count_unfinished(net, 0);
    net->listener = NULL;
    const unsigned most = atomic_load(&listener->listening->most);
    if (atomic_fetch_sub(&listener->listening->connections, 1) >= most && most != 0) {
        listener->source.can_read = true; /* perhaps: at the limit none was accepted */
    }
    ltdic__make_ready(&listener->source);
}

static void leave_children(ltdic_net *listener)
{
    const node *all = &listener->source.loop->all;
    for (node *l = all->next; l != all; l = l->next) {
        source *s = CONTAINER_OF(l, source, all);
        if (s->kind == &ltdic__endpoint_kind && net_of(s)->listener == listener) {
            ltdic__leave_listener(net_of(s));
        }
    }
}

/* ---- pending connections ----------------------------------------------------------------- */

/* Accepts the connection that has waited longest, unless one is pending already.
 * @return LTDIC_OK, also if none waits; LTDIC_ERR_MEMORY, LTDIC_ERR_SYSTEM */
static int fetch_pending(ltdic_net *net)
{
    source *s = &net->source;
    if (net->pending_fd >= 0 || !s->can_read) {
        return LTDIC_OK;
    }
    tcp_name unused;
    tcp_name *name = net->last != NULL ? &net->last->peer : &unused;
    const ltdic_transport_result result = ltdic__tcp_accept(net->fd, &net->pending_fd, name);
    net->pending_reported = false;
    s->can_read = result != LTDIC_TRANSPORT_WANT_READ;
    if (result == LTDIC_TRANSPORT_DONE && net->last != NULL) {
        net->last->by = NULL;
    }
    if (result != LTDIC_TRANSPORT_LOST) {
        net->lacking = net->lacking && result == LTDIC_TRANSPORT_DONE; /* until none waits */
        return LTDIC_OK;
    }
    net->lacks += !net->lacking;
    net->lacking = true;
    net->cause = ltdic__system_cause();
    s->starved = s->loop->starved = true;
    return ltdic__system_status();
}

static bool report_pending(ltdic_net *net, ltdic_indication *indication)
{
    if (is_full(net)) {
        return false;
    }
    if (net->source.indications >= ACCEPTS_PER_ROUND) {
        ltdic__make_ready_later(&net->source);
        return false;
    }
    fetch_pending(net);
    if (net->pending_fd < 0 || net->pending_reported) {
        return false;
    }
    net->pending_reported = true;
    *indication = (ltdic_indication){.kind = LTDIC_PENDING};
    return true;
}

/* Indications of an earlier connection of this endpoint come first. */
static bool next(source *s, ltdic_indication *indication)
{
    ltdic_net *net = net_of(s);
    return ltdic__take(net, indication, ltdic__now()) || report_pending(net, indication);
}

/* Renews what a child process needs: both processes listen from now on. The mutex is made anew,
 * since a thread of the parent may have locked it. */
static void renew(source *s)
{
    ltdic_net *net = net_of(s);
    pthread_mutex_init(&net->listening->lock, NULL);
    ltdic__close_fd(&net->pending_fd);
    if (net->watched) {
        ltdic__watch(net);
    }
}

static void free_it(source *s)
{
    ltdic_net_free(net_of(s));
}

const source_kind ltdic__listener_kind = {next, renew, free_it};

/* ---- life --------------------------------------------------------------------------------- */

void ltdic_net_limit_unfinished(ltdic_net *listener, uint64_t bytes)
{
    listener->max_unfinished = bytes;
}

void ltdic_net_limit_connections(ltdic_net *listener, uint32_t most)
{
    listener->max_connections = most;
    listener->limited = true;
    if (listener->listening != NULL) {
        atomic_store(&listener->listening->most, most);
        listener->source.can_read = true; /* perhaps: at the limit none was accepted */
    }
    ltdic__make_ready(&listener->source);
}

/* Leaves descriptors to the rest of the process. */
static uint32_t default_limit(void)
{
    const uint32_t most = ltdic__most_descriptors();
    return most == UINT32_MAX ? 0 : most - most / 4;
}

/* Returns NULL if there is no memory. */
static listening *new_listening(const ltdic_net *net)
{
    listening *l = malloc(sizeof *l);
    if (l != NULL) {
        atomic_init(&l->connections, 0);
        atomic_init(&l->most, net->limited ? net->max_connections : default_limit());
        atomic_init(&l->count, 0);
        pthread_mutex_init(&l->lock, NULL);
        list_init(&l->members);
    }
    return l;
}

static void free_listening(listening *l)
{
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static void join(ltdic_net *net, listening *l)
{
    net->listening = l;
    pthread_mutex_lock(&l->lock);
    list_insert_before(&l->members, &net->member);
    atomic_fetch_add(&l->count, 1);
    pthread_mutex_unlock(&l->lock);
}

/* Stops using the socket, and wakes another listener of it: the system may have reported a
 * connection that waits to this one alone. */
static void leave(ltdic_net *net)
{
    listening *l = net->listening;
    net->listening = NULL;
    pthread_mutex_lock(&l->lock);
    list_remove(&net->member);
    const bool last = atomic_fetch_sub(&l->count, 1) == 1;
    if (!last) {
        ltdic_loop_wake(CONTAINER_OF(l->members.next, ltdic_net, member)->source.loop);
    }
    pthread_mutex_unlock(&l->lock);
    if (last) {
        free_listening(l);
    }
}

uint32_t ltdic__net_lacks(const ltdic_net *listener)
{
    return listener->lacks;
}

bool ltdic__net_is_shared(const ltdic_net *listener)
{
    return listener->listening != NULL && atomic_load(&listener->listening->count) > 1;
}

void ltdic__stop_listening(ltdic_net *listener)
{
    leave_children(listener);
    list_remove(&listener->source.shared);
    listener->source.exclusive = false;
    leave(listener);
}

static void begin_listening(ltdic_net *net, listening *l)
{
    net->cause = (ltdic_cause){0, 0};
    net->source.kind = &ltdic__listener_kind;
    if (net->last == NULL) { /* without memory, the name is asked for later */
        net->last = calloc(1, sizeof *net->last);
    }
    join(net, l);
    list_insert_before(&net->source.loop->shared, &net->source.shared);
    ltdic__change_state(net, LISTENING);
}

/* Watches net->fd for connections. If that fails, it is closed. */
static int watch(ltdic_net *net)
{
    net->source.can_read = net->source.hung_up = false;
    net->source.can_write = true; /* a listener never writes */
    net->source.exclusive = true;
    const int status = ltdic__watch(net);
    if (status != LTDIC_OK) {
        net->cause = ltdic__system_cause();
        net->source.exclusive = false;
        ltdic__close_fd(&net->fd);
    }
    return status;
}

static int listen_at(ltdic_net *net, const struct addrinfo *at, uint8_t family, int backlog)
{
    const bool both = family == LTDIC_IP_BOTH;
    const int status = ltdic__tcp_listen(&net->fd, at, both, backlog, &net->cause);
    return status == LTDIC_OK ? watch(net) : status;
}

/* Listens at the first address of the list at which that succeeds. */
static int listen_at_any(ltdic_net *net, const ltdic_address *address, int backlog)
{
    struct addrinfo *found;
    const int most = backlog > LEAST_BACKLOG ? backlog : LEAST_BACKLOG;
    int status = ltdic__resolve(&found, address, true, &net->cause);
    for (const struct addrinfo *a = found; a != NULL; a = a->ai_next) {
        status = listen_at(net, a, address->family, most);
        if (status == LTDIC_OK) {
            break;
        }
    }
    ltdic__free_addresses(&found);
    if (status != LTDIC_OK && address->family == LTDIC_IP_BOTH &&
        !ltdic__is_in_use(net->cause)) { /* the system has no IPv6 */
        const ltdic_address v4 = {address->host, address->port, LTDIC_IP_V4};
        return listen_at_any(net, &v4, backlog);
    }
    return status;
}

static bool is_unused(const ltdic_net *net)
{
    return net->state == CLOSED && !ltdic__association_is_over(net->association);
}

int ltdic_net_listen(ltdic_net *net, const ltdic_address *address, int backlog)
{
    ltdic__renew(net->source.loop);
    if (!is_unused(net)) {
        return LTDIC_ERR_WRONG_STATE;
    }
    listening *l = new_listening(net);
    const int status = l == NULL ? LTDIC_ERR_MEMORY : listen_at_any(net, address, backlog);
    if (status == LTDIC_OK) {
        begin_listening(net, l);
    } else if (l != NULL) {
        free_listening(l);
    }
    return status;
}

/* Listens at a copy of a descriptor that listens already. */
static int listen_at_copy(ltdic_net *net, int descriptor, listening *l)
{
    int status = ltdic__copy_fd(descriptor, &net->fd, &net->cause);
    if (status == LTDIC_OK) {
        status = watch(net);
    }
    if (status == LTDIC_OK) {
        begin_listening(net, l);
        net->source.can_read = true; /* perhaps: the system reported it to others alone */
    }
    return status;
}

int ltdic_net_listen_on(ltdic_net *net, int descriptor)
{
    ltdic__renew(net->source.loop);
    if (!is_unused(net)) {
        return LTDIC_ERR_WRONG_STATE;
    }
    if (!ltdic__tcp_may_listen(descriptor, &net->cause)) {
        return LTDIC_ERR_SYSTEM;
    }
    listening *l = new_listening(net);
    const int status = l == NULL ? LTDIC_ERR_MEMORY : listen_at_copy(net, descriptor, l);
    if (status != LTDIC_OK && l != NULL) {
        free_listening(l);
    }
    return status;
}

int ltdic_net_share(ltdic_net *net, ltdic_net *listener)
{
    ltdic__renew(net->source.loop);
    return !is_unused(net) || listener->state != LISTENING
               ? LTDIC_ERR_WRONG_STATE
               : listen_at_copy(net, listener->fd, listener->listening);
}

bool ltdic__net_has_pending(const ltdic_net *listener)
{
    return listener->pending_fd >= 0;
}

/* Makes sure that a connection is pending.
 * @return LTDIC_OK; LTDIC_NEED_MORE if none waits or the limit is reached; LTDIC_ERR_MEMORY,
 * LTDIC_ERR_SYSTEM */
static int take_pending(ltdic_net *listener)
{
    int status = LTDIC_OK;
    if (is_full(listener)) {
        return LTDIC_NEED_MORE;
    }
    if (listener->pending_fd < 0) {
        listener->source.can_read = true; /* perhaps: the next call tells */
        status = fetch_pending(listener);
    }
    ltdic__make_ready(&listener->source);
    return listener->pending_fd >= 0 ? LTDIC_OK : status == LTDIC_OK ? LTDIC_NEED_MORE : status;
}

int ltdic_net_accept(ltdic_net *net, ltdic_net *listener)
{
    ltdic__renew(net->source.loop);
    if (listener->state != LISTENING || !is_unused(net)) {
        return LTDIC_ERR_WRONG_STATE;
    }
    const int status = take_pending(listener);
    if (status != LTDIC_OK) {
        return status;
    }
    ltdic__use_connection(net, listener->pending_fd);
    listener->pending_fd = -1;
    net->listener = listener;
    if (listener->last != NULL) {
        listener->last->by = net;
    }
    atomic_fetch_add(&listener->listening->connections, 1);
    ltdic_association_opened(net->association, LTDIC_EVT_ACCEPTED, ltdic__now());
    ltdic__update_timer(net);
    return LTDIC_OK;
}
