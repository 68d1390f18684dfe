/* SPDX-License-Identifier: MIT */
/* Sockets that turn the crank of associations, on POSIX.
 *
 * Readiness is remembered (can_read, can_write) until the system says "no more", so each descriptor
 * is registered once. What was received before the end of a connection is always looked at first:
 * a rejection followed by a reset is a rejection. */
#include "net.h"

#include "codec/bytes.h"
#include "engine/outbox.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_SIZE = 262144, /* of one buffer that all share */
    LEAST_BACKLOG = 1024,
    ACCEPTS_PER_ROUND = 64, /* so that a flood of callers does not starve those who are in */
    TURNS_PER_ROUND = 256,  /* nor one whose user sends on whenever something has gone */
    STARVED_RETRY = 100,    /* ms until accepting is tried again when descriptors ran out */
    LOOKS = 64,             /* at most, before sleeping: some 20 us */
    SHORT_SLEEP = 100000,   /* ns */
    REST = 16,              /* short sleeps until it is tried again whether looking pays */
    LEAST_UNFINISHED = 64,  /* bytes of a PDU that is not whole, from which on they are counted */
    FIRST_ACKS = 8,
    EVERY_ACK = 255,
    STALL = 20,         /* ms; systems delay acknowledgements by 40 */
    ATTEMPT_DELAY = 250 /* ms until the next address is tried, too (RFC 8305 5) */
};

/* ---- ready lists, clock ------------------------------------------------------------------- */

static uint64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t ltdic__now(void)
{
    return nanoseconds() / 1000000;
}

void ltdic__make_ready(ltdic_net *net)
{
    if (!net->held && list_empty(&net->ready)) {
        list_insert_before(&net->loop->ready, &net->ready);
    }
}

static void begin_round(ltdic_net *net)
{
    if (net->round != net->loop->round) {
        net->round = net->loop->round;
        net->turns = 0;
        net->spent = false;
    }
}

/* In the next round; the endpoint was just taken off the list of this one. */
static void make_ready_later(ltdic_net *net)
{
    if (list_empty(&net->ready)) {
        list_insert_before(&net->loop->later, &net->ready);
    }
}

/* ---- timers: a heap ----------------------------------------------------------------------- */

static void put_timer(ltdic_loop *loop, size_t place, ltdic_net *net)
{
    loop->timers[place - 1] = net;
    net->timer = place;
}

/* From a place that is free, up to where it belongs. */
static void rise(ltdic_loop *loop, size_t place, ltdic_net *net)
{
    while (place > 1 && loop->timers[place / 2 - 1]->wakes > net->wakes) {
        put_timer(loop, place, loop->timers[place / 2 - 1]);
        place /= 2;
    }
    put_timer(loop, place, net);
}

static void sink(ltdic_loop *loop, size_t place, ltdic_net *net)
{
    for (;;) {
        size_t next = 2 * place;
        if (next < loop->timer_count && loop->timers[next]->wakes < loop->timers[next - 1]->wakes) {
            next++;
        }
        if (next > loop->timer_count || loop->timers[next - 1]->wakes >= net->wakes) {
            break;
        }
        put_timer(loop, place, loop->timers[next - 1]);
        place = next;
    }
    rise(loop, place, net);
}

static void stop_timer(ltdic_net *net)
{
    ltdic_loop *loop = net->loop;
    const size_t place = net->timer;
    if (place == 0) {
        return;
    }
    ltdic_net *last = loop->timers[--loop->timer_count];
    net->timer = 0;
    if (last != net) {
        sink(loop, place, last);
    }
}

static void set_timer(ltdic_net *net, uint64_t deadline)
{
    if (net->timer != 0 && net->wakes == deadline) {
        return;
    }
    stop_timer(net);
    if (deadline != 0) {
        net->wakes = deadline;
        rise(net->loop, ++net->loop->timer_count, net);
    }
}

/* There is always room for a timer of each endpoint. */
static bool reserve_timer(ltdic_loop *loop)
{
    if (loop->count < loop->timer_room) {
        return true;
    }
    const size_t room = loop->timer_room == 0 ? 16 : 2 * loop->timer_room;
    ltdic_net **timers = realloc(loop->timers, room * sizeof(ltdic_net *));
    if (timers == NULL) {
        return false;
    }
    loop->timers = timers;
    loop->timer_room = room;
    return true;
}

/* ---- what an endpoint owes to the loop and to its listener --------------------------------- */

/* When to look at the attempts to connect, although none has told of anything. */
static uint64_t attempt_deadline(const ltdic_net *net)
{
    const uint64_t end = net->connect_deadline;
    const bool more = net->address != NULL && (end == 0 || net->next_attempt < end);
    return more ? net->next_attempt : end;
}

static uint64_t deadline_of(const ltdic_net *net)
{
    return net->transport == CONNECTING ? attempt_deadline(net)
           : net->transport == OPEN     ? ltdic_association_deadline(net->association)
                                        : 0;
}

static void count_association(ltdic_net *net)
{
    const int state = ltdic_association_state(net->association);
    const bool associated = state >= 3 && state <= 12;
    ltdic_net *listener = net->listener;
    if (listener == NULL || associated == net->associated) {
        return;
    }
    net->associated = associated;
    if (associated) {
        listener->associations++;
    } else {
        listener->associations--;
    }
}

/* What its listener counts of a PDU that is not whole. */
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

/* After whatever may have changed state or deadline. */
static void settle(ltdic_net *net)
{
    set_timer(net, deadline_of(net));
    count_association(net);
}

static void leave_listener(ltdic_net *net)
{
    ltdic_net *listener = net->listener;
    if (listener == NULL) {
        return;
    }
    count_unfinished(net, 0);
    listener->associations -= net->associated;
    listener->connections--;
    net->listener = NULL;
    net->associated = false;
    ltdic__make_ready(listener); /* it may have been full */
}

static void leave_children(ltdic_net *listener)
{
    for (node *l = listener->loop->all.next; l != &listener->loop->all; l = l->next) {
        if (NET_OF(l, all)->listener == listener) {
            leave_listener(NET_OF(l, all));
        }
    }
}

static bool watch(ltdic_net *net)
{
    net->watched = ltdic__poller_add(net, net->fd, !net->can_write);
    return net->watched;
}

static void stop_watching(ltdic_net *net)
{
    if (net->watched) {
        ltdic__poller_remove(net, net->fd);
        net->watched = false;
    }
}

/* Close an attempt to connect; the others stay in the order in which they began. */
static void drop_attempt(ltdic_net *net, size_t i)
{
    ltdic__poller_remove(net, net->attempts[i]);
    ltdic__close_fd(&net->attempts[i]);
    for (net->attempt_count--; i < net->attempt_count; i++) {
        net->attempts[i] = net->attempts[i + 1];
    }
}

static void drop_attempts(ltdic_net *net)
{
    while (net->attempt_count > 0) {
        drop_attempt(net, net->attempt_count - 1U);
    }
}

static void close_socket(ltdic_net *net)
{
    stop_watching(net);
    if (net->transport == LISTENING) {
        leave_children(net);
    }
    drop_attempts(net);
    ltdic__close_fd(&net->fd);
    ltdic__close_fd(&net->pending_fd);
    ltdic__free_addresses(&net->addresses);
    ltdic__free_addresses(&net->local);
    leave_listener(net);
    net->transport = CLOSED;
    net->told = net->can_read = net->can_write = net->hung_up = false;
    stop_timer(net);
}

/* ---- sending ----------------------------------------------------------------------------- */

/* One system call. False when the system takes no more for now, or nothing any more: then what the
 * peer said before it went away may still be unread. */
static bool send_some(ltdic_net *net, const ltdic_output *output)
{
    const ptrdiff_t sent = ltdic__send_parts(net->fd, output);
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
        ltdic_association_lost(net->association);
        net->can_read = true;
        return false;
    }
    if (sent > 0) {
        ltdic_association_sent(net->association, (size_t)sent, ltdic__now());
    }
    if (sent < 0 || (size_t)sent < ltdic__output_size(output)) {
        net->can_write = false;
        if (net->watched) {
            ltdic__poller_want_write(net);
        }
        return false;
    }
    return true;
}

static void flush(ltdic_net *net)
{
    ltdic_output output;
    while (net->transport == OPEN && net->can_write) {
        ltdic_association_output(net->association, &output);
        if (output.count == 0 || !send_some(net, &output)) {
            return;
        }
    }
}

/* What the user has just given, as far as possible now, and the rest later. */
static void push(ltdic_net *net)
{
    flush(net);
    ltdic_association_keep(net->association);
    settle(net);
    ltdic__make_ready(net);
}

/* Nothing more can be used of what has been received: count it. Of the connections that have such
 * bytes end those that began first, as far as they have more than the listener may keep. */
static void bound_unfinished(ltdic_net *net)
{
    ltdic_net *listener = net->listener;
    const size_t size = ltdic__association_is_held(net->association) ? 0 : buffer_size(&net->in);
    count_unfinished(net, size > LEAST_UNFINISHED ? size : 0);
    while (listener->max_unfinished != 0 && listener->unfinished > listener->max_unfinished) {
        ltdic_net *first = NET_OF(listener->begun.next, begun);
        count_unfinished(first, 0);
        ltdic_association_fail(first->association, LTDIC_ERR_CONGESTION, ltdic__now());
        push(first);
    }
}

/* ---- receiving --------------------------------------------------------------------------- */

/* What an acceptor's connection has received first may have a passcode in it. */
static void wipe_buffer(const ltdic_net *net)
{
    if (net->secret) {
        ltdic__wipe(net->in.data, net->in.end);
    }
}

/* Room to read into: the loop's spare buffer where this endpoint has none or only a small one. */
static bool take_buffer(ltdic_net *net)
{
    buffer *in = &net->in;
    if (in->room >= READ_SIZE) {
        return net->secret ? ltdic__reserve_secret(in, 1) : buffer_reserve(in, 1);
    }
    uint8_t *data = net->loop->spare != NULL ? net->loop->spare : malloc(READ_SIZE);
    if (data == NULL) {
        return false;
    }
    net->loop->spare = NULL;
    const size_t size = buffer_size(in);
    if (size > 0) {
        memcpy(data, in->data + in->start, size);
    }
    wipe_buffer(net);
    free(in->data);
    *in = (buffer){data, 0, size, READ_SIZE};
    return true;
}

/* Where all in it has been read. */
static void drop_buffer(ltdic_net *net)
{
    wipe_buffer(net);
    if (net->in.room == READ_SIZE && net->loop->spare == NULL) {
        net->loop->spare = net->in.data;
    } else {
        free(net->in.data);
    }
    net->in = (buffer){0};
    net->secret = false;
}

/* Keep no more than what is unread: an endpoint that waits costs what it has received. */
static void give_buffer_back(ltdic_net *net)
{
    buffer *in = &net->in;
    const size_t size = net->transport == OPEN ? buffer_size(in) : 0;
    const bool secret = net->secret;
    if (size > 0 && (in->room < READ_SIZE || size > in->room / 2)) {
        return;
    }
    uint8_t *small = size > 0 ? malloc(size) : NULL;
    if (size > 0 && small == NULL) {
        return;
    }
    if (size > 0) {
        memcpy(small, in->data + in->start, size);
    }
    drop_buffer(net);
    *in = (buffer){small, 0, size, size};
    net->secret = secret && size > 0;
}

/* A peer that leaves Nagle's algorithm on (RFC 896) holds its next small segment back until the one
 * before it is acknowledged, which the system delays (RFC 1122 4.2.3.2) unless something is sent.
 * So what leaves a message unfinished is acknowledged at once: in the beginning, and for good where
 * the peer has been seen to wait. Others need not pay for it. */
static void acknowledge(ltdic_net *net)
{
    const bool answered = ltdic__association_bytes_sent(net->association) != net->sent_then;
    if (net->quick_acks == 0 || answered || net->can_read ||
        !ltdic_association_expects_more(net->association)) {
        return;
    }
    if (net->quick_acks != EVERY_ACK) {
        net->quick_acks--;
    }
    net->sent_then = UINT64_MAX; /* once for each read */
    ltdic__acknowledge(net->fd);
}

/* Before there is an A-ASSOCIATE-RQ. */
static void keep_first(ltdic_net *net, ltdic_bytes received)
{
    const size_t left = MOST_FIRST - net->first_size;
    const size_t size = received.size < left ? received.size : left;
    if (ltdic_association_state(net->association) == 2 && size > 0) {
        memcpy(net->first + net->first_size, received.data, size);
        net->first_size = (uint8_t)(net->first_size + size);
    }
}

/* One read. A reset counts as an end, after what came before it. */
static void fill(ltdic_net *net)
{
    if (!take_buffer(net)) {
        net->ended = LTDIC_ERR_MEMORY;
        return;
    }
    buffer *in = &net->in;
    const size_t room = in->room - in->end;
    const uint64_t before = net->read_at;
    ssize_t size;
    net->read_at = ltdic__now();
    net->sent_then = ltdic__association_bytes_sent(net->association);
    if (net->read_at - before >= STALL && ltdic_association_expects_more(net->association)) {
        net->quick_acks = EVERY_ACK;
    }
    do {
        size = recv(net->fd, in->data + in->end, room, 0);
    } while (size < 0 && errno == EINTR);
    if (size > 0) {
        net->secret = net->secret || ltdic_association_state(net->association) == 2;
        keep_first(net, (ltdic_bytes){in->data + in->end, (size_t)size});
        in->end += (size_t)size;
        net->can_read = (size_t)size == room || net->hung_up;
    } else if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        net->can_read = false;
    } else {
        net->ended = LTDIC_ERR_CLOSED;
    }
}

/* The association's next indication, from what has been received. */
static bool take(ltdic_net *net, ltdic_indication *indication)
{
    const ltdic_net *l = net->listener;
    ltdic_association *a = net->association;
    const size_t size = buffer_size(&net->in);
    ltdic_bytes in = {size > 0 ? net->in.data + net->in.start : NULL, size};
    const bool full =
        l != NULL && l->max_associations != 0 && l->associations >= l->max_associations;
    ltdic__association_refuse_next(a, full ? (ltdic_reject){2, 3, 2} : (ltdic_reject){0, 0, 0});
    int status = ltdic_association_next(a, indication, &in, ltdic__now());
    const uint64_t sent = ltdic__association_bytes_sent(a);
    flush(net);
    if (status == LTDIC_NEED_MORE &&
        ltdic__association_bytes_sent(a) != sent) { /* the provider's answer has gone */
        status = ltdic_association_next(a, indication, &in, ltdic__now());
    }
    net->in.start = net->in.end - in.size;
    settle(net);
    if (net->listener != NULL && status == LTDIC_NEED_MORE) {
        bound_unfinished(net);
    }
    if (status == LTDIC_OK && indication->kind == LTDIC_CLOSED && net->transport == OPEN) {
        close_socket(net);
        drop_buffer(net);
    }
    return status == LTDIC_OK;
}

/* A requestor that has not asked yet: nothing is read, so that an early answer is kept in order,
 * but a peer that left is noticed. */
static bool has_left(ltdic_net *net)
{
    uint8_t byte;
    const ssize_t size = net->can_read ? recv(net->fd, &byte, 1, MSG_PEEK) : 1;
    const bool none = size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    net->can_read = net->can_read && !none;
    return size == 0 || (size < 0 && !none && errno != EINTR);
}

/* It has data that is not looked at until there is room to send: nothing is read behind that. */
static bool waits_to_send(const ltdic_net *net)
{
    return ltdic__association_is_held(net->association) && buffer_size(&net->in) > 0;
}

/* Is there more to read? At most one read in a round, so that one peer cannot keep the others
 * waiting. Where there will never be any more, the association learns it. */
static bool read_on(ltdic_net *net)
{
    const bool asked = ltdic_association_state(net->association) != 1;
    if (!asked && has_left(net)) {
        net->ended = LTDIC_ERR_CLOSED;
    }
    if (net->ended == LTDIC_OK && asked && ltdic__association_is_lost(net->association) &&
        !net->can_read) {
        net->ended = LTDIC_ERR_CLOSED; /* nothing more will come of it */
    }
    if (net->ended != LTDIC_OK) {
        ltdic_association_closed(net->association, net->ended, ltdic__now());
        return true;
    }
    if (!asked || !net->can_read || waits_to_send(net)) {
        return false;
    }
    if (net->spent) {
        make_ready_later(net);
        return false;
    }
    net->spent = true;
    fill(net);
    return true;
}

/* Read before anything is told: once in a round, since one who sends on whenever something has gone
 * must hear the peer too; and once after a deadline has passed, since what came before it counts,
 * also where this thread is late to look at it. */
static void read_first(ltdic_net *net)
{
    const uint64_t deadline = deadline_of(net);
    const bool late = deadline != 0 && net->read_at < deadline && deadline <= ltdic__now();
    const bool due = !net->spent && net->can_read &&
                     ltdic_association_state(net->association) != 1 &&
                     buffer_size(&net->in) < READ_SIZE;
    if (net->ended != LTDIC_OK || (!late && !due) || waits_to_send(net)) {
        return;
    }
    net->spent = true;
    fill(net);
    if (late && net->ended != LTDIC_OK && buffer_size(&net->in) == 0) {
        ltdic_association_closed(net->association, net->ended, net->read_at);
    }
}

static int system_status(void)
{
    return errno == ENOMEM ? LTDIC_ERR_MEMORY : LTDIC_ERR_SYSTEM;
}

/* It is watched from when there is nothing more to be had without waiting. */
static bool produce_open(ltdic_net *net, ltdic_indication *indication)
{
    flush(net);
    read_first(net);
    for (;;) {
        do {
            if (take(net, indication)) {
                return true;
            }
        } while (net->transport == OPEN && read_on(net));
        acknowledge(net);
        if (net->transport != OPEN || net->watched || watch(net)) {
            return false;
        }
        net->ended = system_status();
    }
}

/* ---- connecting and accepting ------------------------------------------------------------- */

/* Bind to a local address of this family: false where there is none, or it cannot be had. */
static bool bind_local(ltdic_net *net, int fd, int family)
{
    const struct addrinfo *local = net->local;
    while (local != NULL && local->ai_family != family) {
        local = local->ai_next;
    }
    if (local == NULL && net->local != NULL) {
        errno = EAFNOSUPPORT;
    }
    return net->local == NULL ||
           (local != NULL && bind(fd, local->ai_addr, local->ai_addrlen) == 0);
}

static void use_attempt(ltdic_net *net, int fd, bool watched)
{
    net->fd = fd;
    net->watched = watched;
    net->can_read = net->can_write = true; /* perhaps: the system knows */
}

/* Begin an attempt. False, with errno, where the system will have none of it. */
static bool begin_attempt(ltdic_net *net, int fd, const struct addrinfo *a)
{
    ltdic__tune_socket(fd);
    if (!bind_local(net, fd, a->ai_family)) {
        return false;
    }
    net->tried = true;
    if (connect(fd, a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS && errno != EINTR) {
        return false;
    }
    if (ltdic__is_connected(fd)) {
        drop_attempts(net);
        use_attempt(net, fd, false);
        return true;
    }
    if (!ltdic__poller_add(net, fd, true)) {
        return false;
    }
    if (net->attempt_count == MOST_ATTEMPTS) {
        drop_attempt(net, 0);
    }
    net->attempts[net->attempt_count++] = fd;
    return true;
}

/* Begin with the next address that takes a beginning. False when there is none left. */
static bool try_next_address(ltdic_net *net)
{
    while (net->address != NULL) {
        const struct addrinfo *a = net->address;
        int fd = ltdic__open_socket(a->ai_family);
        net->address = a->ai_next;
        if (fd >= 0 && begin_attempt(net, fd, a)) {
            net->next_attempt = ltdic__now() + ATTEMPT_DELAY;
            return true;
        }
        net->cause = (ltdic_cause){errno, 0};
        ltdic__close_fd(&fd);
    }
    return false;
}

/* What the system says of an attempt that has ended, 0 when the connection is up. */
static int connect_error(int fd)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    /* Where it was up, what the peer said before it left can still be read. */
    return error == ECONNRESET || error == EPIPE ? 0 : error;
}

/* Look which attempts have ended, and drop those that have failed. True where one is up, which is
 * then the endpoint's own. */
static bool look_at_attempts(ltdic_net *net, bool *failed)
{
    struct pollfd asked[MOST_ATTEMPTS];
    for (size_t i = 0; i < net->attempt_count; i++) {
        asked[i] = (struct pollfd){.fd = net->attempts[i], .events = POLLOUT};
    }
    if (net->attempt_count > 0 && poll(asked, net->attempt_count, 0) < 0) {
        make_ready_later(net);
        return false;
    }
    net->can_read = net->can_write = net->hung_up = false;
    for (size_t i = net->attempt_count; i-- > 0;) {
        const int error = asked[i].revents != 0 ? connect_error(asked[i].fd) : EINPROGRESS;
        if (error == 0) {
            net->attempts[i] = net->attempts[--net->attempt_count];
            drop_attempts(net);
            use_attempt(net, asked[i].fd, true);
            return true;
        }
        if (error != EINPROGRESS) {
            net->cause = (ltdic_cause){error, 0};
            drop_attempt(net, i);
            *failed = true;
        }
    }
    return false;
}

static void connected(ltdic_net *net)
{
    net->transport = OPEN;
    net->cause = (ltdic_cause){0, 0};
    ltdic__free_addresses(&net->addresses);
    ltdic__free_addresses(&net->local);
    if (ltdic_association_state(net->association) == 4) {
        ltdic_association_opened(net->association, LTDIC_EVT_CONNECTED, ltdic__now());
    }
    settle(net);
}

static void not_connected(ltdic_net *net)
{
    close_socket(net);
    ltdic__association_reset(net->association);
    ltdic__make_ready(net);
}

/* Has connecting ended? True with the indication that says how. */
static bool finish_connect(ltdic_net *net, ltdic_indication *indication)
{
    const uint64_t now = ltdic__now();
    const bool late = net->connect_deadline != 0 && net->connect_deadline <= now;
    const bool told = net->can_read || net->can_write || net->hung_up; /* by the poller */
    bool next = net->attempt_count == 0 || (net->address != NULL && net->next_attempt <= now);
    *indication = (ltdic_indication){.kind = LTDIC_CONNECTED};
    if (net->fd < 0 && net->attempt_count == 0 &&
        net->spent) { /* failed at once: not told at once */
        make_ready_later(net);
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
        settle(net);
        return false;
    }
    indication->status = late ? LTDIC_ERR_TIMEOUT : LTDIC_ERR_CONNECT;
    net->cause = late ? (ltdic_cause){ETIMEDOUT, 0} : net->cause;
    not_connected(net);
    return true;
}

/* Fetch the connection that has waited longest, if there is one and the place is free. */
static void fetch_pending(ltdic_net *net)
{
    if (net->pending_fd >= 0 || !net->can_read) {
        return;
    }
    net->pending_fd = ltdic__accept_socket(net->fd);
    net->told = false;
    if (net->pending_fd < 0) {
        const bool none = errno == EAGAIN || errno == EWOULDBLOCK;
        net->can_read = !none;
        net->loop->starved = net->loop->starved || !none;
    }
}

static bool is_full(const ltdic_net *listener)
{
    return listener->max_connections != 0 && listener->connections >= listener->max_connections;
}

static bool report_pending(ltdic_net *net, ltdic_indication *indication)
{
    if (is_full(net)) {
        return false;
    }
    if (net->turns >= ACCEPTS_PER_ROUND) {
        make_ready_later(net);
        return false;
    }
    fetch_pending(net);
    if (net->pending_fd < 0 || net->told) {
        return false;
    }
    net->told = true;
    *indication = (ltdic_indication){.kind = LTDIC_PENDING};
    return true;
}

/* ---- after fork ---------------------------------------------------------------------------- */

/* Leave a connection to the parent. */
static void lose(ltdic_net *net)
{
    drop_attempts(net);
    ltdic__free_addresses(&net->addresses);
    net->address = NULL;
    ltdic__close_fd(&net->fd);
    net->watched = false;
    net->ended = LTDIC_ERR_CLOSED;
    net->cause = (ltdic_cause){ECONNABORTED, 0};
    ltdic_association_lost(net->association);
    ltdic__make_ready(net);
}

/* What a child process shares with its parent, a poller and a pipe, neither can use alone. */
static void renew(ltdic_loop *loop)
{
    ltdic__poller_close(loop);
    ltdic__close_fd(&loop->alarm[0]);
    ltdic__close_fd(&loop->alarm[1]);
    ltdic__open_pipe(loop->alarm);
    ltdic__poller_open(loop);
    for (node *l = loop->all.next; l != &loop->all; l = l->next) {
        ltdic_net *net = NET_OF(l, all);
        ltdic__close_fd(&net->pending_fd);
        if (net->transport == OPEN || net->transport == CONNECTING) {
            lose(net);
        } else if (net->watched) {
            watch(net);
        }
    }
}

void ltdic__renew(ltdic_loop *loop)
{
    const unsigned forks = ltdic__forks();
    if (loop->forks != forks) {
        renew(loop);
        loop->forks = forks;
    }
}

/* ---- the loop ---------------------------------------------------------------------------- */

static void close_alarm(ltdic_loop *loop)
{
    ltdic__close_fd(&loop->alarm[0]);
    ltdic__close_fd(&loop->alarm[1]);
}

ltdic_loop *ltdic_loop_new(void)
{
    ltdic_loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL) {
        return NULL;
    }
    list_init(&loop->all);
    list_init(&loop->ready);
    list_init(&loop->later);
    ltdic__count_forks();
    loop->forks = ltdic__forks();
    if (!ltdic__open_pipe(loop->alarm)) {
        free(loop);
        return NULL;
    }
    if (!ltdic__poller_open(loop)) {
        close_alarm(loop);
        free(loop);
        return NULL;
    }
    return loop;
}

void ltdic_loop_wake(ltdic_loop *loop)
{
    const uint8_t byte = 0;
    const int error = errno;
    if (loop->forks != ltdic__forks()) { /* the pipe is the parent's, too */
        loop->woken = true;
    } else if (write(loop->alarm[1], &byte, sizeof byte) < 0) {
        errno = error; /* the pipe is full: who waits will wake */
    }
}

void ltdic_loop_free(ltdic_loop *loop)
{
    for (node *n = loop->all.next, *next; n != &loop->all; n = next) {
        next = n->next;
        ltdic_net_free(NET_OF(n, all));
    }
    ltdic__poller_close(loop);
    close_alarm(loop);
    free(loop->timers);
    free(loop->spare);
    free(loop);
}

static void wake_starved(ltdic_loop *loop)
{
    loop->starved = false;
    for (node *l = loop->all.next; l != &loop->all; l = l->next) {
        ltdic_net *net = NET_OF(l, all);
        if (net->transport == LISTENING && net->can_read) {
            ltdic__make_ready(net);
        }
    }
}

/* How long the system may sleep. */
static int sleep_time(const ltdic_loop *loop, int milliseconds)
{
    if (loop->woken || !list_empty(&loop->ready)) {
        return 0;
    }
    if (loop->starved && milliseconds > STARVED_RETRY) {
        milliseconds = STARVED_RETRY;
    }
    if (loop->timer_count > 0) {
        const uint64_t deadline = loop->timers[0]->wakes;
        const uint64_t now = ltdic__now();
        const uint64_t left = deadline > now ? deadline - now : 0;
        return left < (uint64_t)milliseconds ? (int)left : milliseconds;
    }
    return milliseconds;
}

/* Stop what has expired: an endpoint that is held is not looked at until it is done. */
static void expire(ltdic_loop *loop)
{
    const uint64_t now = loop->timer_count == 0 ? 0 : ltdic__now();
    while (loop->timer_count > 0 && loop->timers[0]->wakes <= now) {
        ltdic_net *net = loop->timers[0];
        stop_timer(net);
        ltdic__make_ready(net);
    }
}

/* Looking has failed, or has not been tried: is it worth a try next time? */
static void learn_from_sleep(ltdic_loop *loop, uint64_t slept)
{
    if (loop->looks > 0) {
        loop->looks /= 2;
        loop->rest = REST;
    } else if (slept < SHORT_SLEEP && loop->rest-- <= 0) {
        loop->looks = LOOKS;
    }
}

/* To sleep and be woken takes longer than most peers take to answer. So where sleeps have been
 * short look for a while first, as long as that finds something. */
static int wait_for_events(ltdic_loop *loop, int milliseconds)
{
    int found = 0;
    for (int i = 0; i < loop->looks && found == 0 && milliseconds > 0; i++) {
        found = ltdic__poller_wait(loop, 0);
    }
    if (found == 0) {
        const uint64_t start = nanoseconds();
        found = ltdic__poller_wait(loop, milliseconds);
        if (milliseconds > 0) {
            learn_from_sleep(loop, nanoseconds() - start);
        }
    } else {
        loop->looks = LOOKS;
    }
    return found;
}

int ltdic_loop_wait(ltdic_loop *loop, int milliseconds)
{
    ltdic__renew(loop);
    loop->round++;
    list_splice(&loop->ready, &loop->later);
    const int found = wait_for_events(loop, sleep_time(loop, milliseconds));
    const bool interrupted = found < 0 && errno == EINTR;
    if (loop->starved) {
        wake_starved(loop);
    }
    expire(loop);
    if (loop->woken) {
        loop->woken = false;
        ltdic__drain_pipe(loop->alarm[0]);
        return LTDIC_ERR_INTERRUPTED;
    }
    if (!list_empty(&loop->ready)) {
        return LTDIC_OK;
    }
    return interrupted ? LTDIC_ERR_INTERRUPTED : LTDIC_NEED_MORE;
}

/* The next indication of an endpoint; what is left to tell of an old connection comes first. */
static bool produce(ltdic_net *net, ltdic_indication *indication)
{
    if (net->transport == OPEN) {
        return produce_open(net, indication);
    }
    if (take(net, indication)) {
        return true;
    }
    if (net->transport == LISTENING) {
        return report_pending(net, indication);
    }
    if (net->transport == CONNECTING) {
        return finish_connect(net, indication);
    }
    return false;
}

/* The turn of one that was ready. */
static bool take_turn(ltdic_net *net, ltdic_indication *indication)
{
    begin_round(net);
    if (net->turns == TURNS_PER_ROUND) {
        make_ready_later(net);
        return false;
    }
    if (!produce(net, indication)) {
        give_buffer_back(net);
        return false;
    }
    net->turns++;
    net->held = true;
    list_remove(&net->ready);
    return true;
}

int ltdic_loop_next(ltdic_loop *loop, ltdic_net **net, ltdic_indication *indication)
{
    ltdic__renew(loop);
    while (!list_empty(&loop->ready)) {
        *net = NET_OF(loop->ready.next, ready);
        list_remove(&(*net)->ready);
        if (take_turn(*net, indication)) {
            return LTDIC_OK;
        }
    }
    return LTDIC_NEED_MORE;
}

static void destroy(ltdic_net *net)
{
    ltdic_association_free(net->association);
    wipe_buffer(net);
    buffer_free(&net->in);
    free(net);
}

void ltdic_net_done(ltdic_net *net)
{
    net->held = false;
    if (net->dead) {
        destroy(net);
        return;
    }
    if (buffer_size(&net->in) == 0) { /* else each of those that are ready has one of its own */
        drop_buffer(net);
    }
    ltdic__make_ready(net);
}

/* ---- endpoints --------------------------------------------------------------------------- */

ltdic_net *ltdic_net_new(ltdic_loop *loop, void *owner)
{
    ltdic_net *net = reserve_timer(loop) ? calloc(1, sizeof *net) : NULL;
    ltdic_association *association = net != NULL ? ltdic_association_new() : NULL;
    if (association == NULL) {
        free(net);
        return NULL;
    }
    loop->count++;
    net->loop = loop;
    net->owner = owner;
    net->fd = net->pending_fd = -1;
    net->association = association;
    net->max_unfinished = LTDIC_MAX_UNFINISHED;
    list_insert_before(&loop->all, &net->all);
    list_init(&net->ready);
    list_init(&net->begun);
    return net;
}

void ltdic_net_free(ltdic_net *net)
{
    ltdic__renew(net->loop);
    flush(net);
    close_socket(net);
    list_remove(&net->all);
    list_remove(&net->ready);
    net->loop->count--;
    if (net->held) {
        net->dead = true;
    } else {
        destroy(net);
    }
}

void *ltdic_net_owner(const ltdic_net *net)
{
    return net->owner;
}

void ltdic_net_set_timeouts(ltdic_net *net, const ltdic_timeouts *timeouts)
{
    ltdic_association_set_timeouts(net->association, timeouts);
}

void ltdic_net_limit_associate(ltdic_net *net, uint32_t bytes)
{
    ltdic_association_limit_associate(net->association, bytes);
}

void ltdic_net_limit_unfinished(ltdic_net *listener, uint64_t bytes)
{
    listener->max_unfinished = bytes;
}

void ltdic_net_set_limits(ltdic_net *listener, uint32_t associations, uint32_t connections)
{
    listener->max_associations = associations;
    listener->max_connections = connections;
    listener->limited = true;
    ltdic__make_ready(listener);
}

/* Forget what the last connection left behind, but for what is still to be told of it. */
static void begin(ltdic_net *net, uint8_t transport)
{
    net->transport = transport;
    net->in.start = net->in.end = 0;
    net->ended = LTDIC_OK;
    net->read_at = 0;
    net->quick_acks = FIRST_ACKS;
    net->sent_then = UINT64_MAX;
    net->first_size = 0;
    ltdic__make_ready(net);
}

static int listen_at(ltdic_net *net, const struct addrinfo *a, uint8_t family, int backlog)
{
    const int on = 1, off = 0;
    net->fd = ltdic__open_socket(a->ai_family);
    if (net->fd < 0) {
        return errno == EAFNOSUPPORT ? LTDIC_ERR_ADDRESS : system_status();
    }
    setsockopt(net->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    ltdic__tune_socket(net->fd);
    if (a->ai_family == AF_INET6) {
        const int *only = family == LTDIC_IP_BOTH ? &off : &on;
        setsockopt(net->fd, IPPROTO_IPV6, IPV6_V6ONLY, only, sizeof *only);
    }
    net->can_read = net->hung_up = false;
    net->can_write = true; /* nothing to wait for there */
    int status = LTDIC_OK;
    if (bind(net->fd, a->ai_addr, a->ai_addrlen) != 0 || listen(net->fd, backlog) != 0) {
        status = LTDIC_ERR_ADDRESS;
    } else if (!watch(net)) {
        status = system_status();
    }
    if (status != LTDIC_OK) {
        ltdic__close_fd(&net->fd);
    }
    return status;
}

/* The rest of the process needs descriptors, too. */
static void set_default_limit(ltdic_net *listener)
{
    const uint32_t most = ltdic__most_descriptors();
    if (!listener->limited) {
        listener->max_connections = most == UINT32_MAX ? 0 : most - most / 4;
    }
}

int ltdic_net_listen(ltdic_net *net, const ltdic_address *address, int backlog)
{
    ltdic__renew(net->loop);
    if (net->transport != CLOSED || ltdic__association_is_over(net->association)) {
        return LTDIC_ERR_WRONG_STATE;
    }
    struct addrinfo *found;
    const int most = backlog > LEAST_BACKLOG ? backlog : LEAST_BACKLOG;
    int status = ltdic__resolve(&found, address, true, &net->cause);
    for (const struct addrinfo *a = found; a != NULL; a = a->ai_next) {
        status = listen_at(net, a, address->family, most);
        if (status == LTDIC_OK) {
            break;
        }
        net->cause = (ltdic_cause){errno, 0};
    }
    const bool taken = net->cause.error == EADDRINUSE;
    ltdic__free_addresses(&found);
    if (status != LTDIC_OK && address->family == LTDIC_IP_BOTH && !taken) { /* without IPv6 */
        const ltdic_address v4 = {address->host, address->port, LTDIC_IP_V4};
        return ltdic_net_listen(net, &v4, backlog);
    }
    if (status == LTDIC_OK) {
        net->cause = (ltdic_cause){0, 0};
        set_default_limit(net);
        begin(net, LISTENING);
    }
    return status;
}

/* The connection that waits at a listener, as far as there is one and it may be taken. */
static int take_pending(ltdic_net *listener)
{
    if (is_full(listener)) {
        return LTDIC_NEED_MORE;
    }
    if (listener->pending_fd < 0) {
        listener->can_read = true; /* perhaps; the system knows */
        fetch_pending(listener);
    }
    ltdic__make_ready(listener);
    if (listener->pending_fd < 0) {
        return listener->can_read ? system_status() : LTDIC_NEED_MORE;
    }
    return LTDIC_OK;
}

int ltdic_net_accept(ltdic_net *net, ltdic_net *listener)
{
    ltdic__renew(net->loop);
    if (listener->transport != LISTENING || net->transport != CLOSED ||
        ltdic__association_is_over(net->association)) {
        return LTDIC_ERR_WRONG_STATE;
    }
    const int status = take_pending(listener);
    if (status != LTDIC_OK) {
        return status;
    }
    net->fd = listener->pending_fd;
    listener->pending_fd = -1;
    ltdic__tune_accepted(net->fd);
    net->hung_up = false;
    net->can_read = true; /* perhaps: most requestors do not wait */
    net->can_write = true;
    begin(net, OPEN);
    net->listener = listener;
    listener->connections++;
    ltdic_association_opened(net->association, LTDIC_EVT_ACCEPTED, ltdic__now());
    settle(net);
    return LTDIC_OK;
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
    ltdic__renew(net->loop);
    if (net->transport == OPEN && ltdic__association_is_over(net->association)) {
        close_socket(net); /* the user has just been told of what ended it */
    }
    if (net->transport != CLOSED) {
        return LTDIC_ERR_WRONG_STATE;
    }
    const uint32_t patience = ltdic__association_response_time(net->association);
    int status = resolve_both(net, peer, local);
    net->address = net->addresses;
    net->tried = net->can_read = net->can_write = net->hung_up = false;
    net->connect_deadline = patience == 0 ? 0 : ltdic__now() + patience;
    const bool begun = status == LTDIC_OK && try_next_address(net);
    if (status == LTDIC_OK && !begun && local != NULL && !net->tried) {
        status = LTDIC_ERR_ADDRESS;
    }
    if (status != LTDIC_OK) {
        ltdic__free_addresses(&net->addresses);
        ltdic__free_addresses(&net->local);
        return status;
    }
    begin(net, CONNECTING);
    if (!begun) {
        begin_round(net);
        net->spent = true;
    }
    settle(net);
    return LTDIC_OK;
}

ltdic_cause ltdic_net_cause(const ltdic_net *net)
{
    return net->cause;
}

int ltdic_net_detach(ltdic_net *net)
{
    ltdic__renew(net->loop);
    if (net->fd < 0 || net->transport != OPEN || ltdic_association_state(net->association) != 1 ||
        ltdic__association_is_over(net->association)) {
        return -1;
    }
    const int fd = net->fd;
    stop_watching(net);
    net->fd = -1;
    close_socket(net);
    return fd;
}

ltdic_bytes ltdic_net_first(const ltdic_net *net)
{
    return (ltdic_bytes){net->first, net->first_size};
}

int ltdic_net_send(ltdic_net *net, ltdic_bytes pdu)
{
    ltdic__renew(net->loop);
    ltdic_association *a = net->association;
    const bool request = pdu.data[0] == LTDIC_ASSOCIATE_RQ;
    const bool up = net->transport == OPEN && !ltdic__association_is_over(a);
    if (request && !up && net->transport != CONNECTING) {
        return LTDIC_ERR_WRONG_STATE;
    }
    const bool withdraws = ltdic_association_state(a) == 4 && pdu.data[0] == LTDIC_ABORT;
    const int status = withdraws ? ltdic__association_withdraw(a, pdu, ltdic__now())
                                 : ltdic_association_send(a, pdu, ltdic__now());
    if (status == LTDIC_OK && request && up) { /* through Sta4, although the transport is there */
        ltdic_association_opened(a, LTDIC_EVT_CONNECTED, ltdic__now());
    }
    if (status == LTDIC_OK && withdraws) {
        close_socket(net);
    }
    if (status == LTDIC_OK) {
        push(net);
    }
    return status;
}

int ltdic_net_send_data(ltdic_net *net, const ltdic_pdv *data)
{
    ltdic__renew(net->loop);
    const int status = ltdic_association_send_data(net->association, data, ltdic__now());
    if (status == LTDIC_OK) {
        push(net);
    }
    return status;
}

void ltdic__net_end(ltdic_net *net, int status)
{
    ltdic__renew(net->loop);
    flush(net);
    if (net->transport == OPEN && !ltdic__association_is_over(net->association)) {
        ltdic_association_closed(net->association, status, ltdic__now());
    } else if (net->transport == CONNECTING) {
        ltdic__association_reset(net->association);
    }
    close_socket(net);
    ltdic__make_ready(net);
}

uint64_t ltdic__net_taken(const ltdic_net *net)
{
    const uint64_t gone = ltdic__association_bytes_sent(net->association),
                   left = ltdic__unacknowledged(net->fd);
    return gone > left ? gone - left : 0;
}

bool ltdic__net_has_room(const ltdic_net *net)
{
    return ltdic__association_has_room(net->association);
}

uint32_t ltdic__net_fragment_size(const ltdic_net *net)
{
    return ltdic__fragment_size(net->association);
}

void ltdic__net_hold(ltdic_net *net, bool held)
{
    ltdic__association_hold(net->association, held);
    ltdic__make_ready(net);
}

void ltdic_net_close(ltdic_net *net)
{
    ltdic__net_end(net, LTDIC_OK);
}

int ltdic_net_state(const ltdic_net *net)
{
    return ltdic_association_state(net->association);
}

int ltdic_net_is_connected(const ltdic_net *net)
{
    return net->transport == OPEN;
}

int ltdic_net_name(const ltdic_net *net, int peer, ltdic_buffer *host, uint16_t *port)
{
    struct sockaddr_storage address;
    struct sockaddr *a = (struct sockaddr *)&address;
    socklen_t size = sizeof address;
    char digits[8];
    if (host->room == 0) {
        return LTDIC_ERR_ROOM;
    }
    if (net->fd < 0 ||
        (peer ? getpeername(net->fd, a, &size) : getsockname(net->fd, a, &size)) != 0) {
        return LTDIC_ERR_WRONG_STATE;
    }
    if (getnameinfo(a, size, (char *)host->data, (socklen_t)host->room, digits, sizeof digits,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return LTDIC_ERR_ROOM;
    }
    host->size = strlen((const char *)host->data);
    *port = (uint16_t)strtoul(digits, NULL, 10);
    return LTDIC_OK;
}
