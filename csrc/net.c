/* SPDX-License-Identifier: MIT */
/* Sockets that turn the crank of codec and state machine, on POSIX.
 *
 * Readiness is remembered (can_read, can_write) until the system says "no more", so each descriptor
 * is registered once. What was received before the end of a connection is always looked at first:
 * a rejection followed by a reset is a rejection. */
#include "net.h"

#include "bytes.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

enum {
    READ_SIZE = 65536,
    LEAST_BACKLOG = 1024,
    ACCEPTS_PER_ROUND = 64, /* so that a flood of callers does not starve those who are in */
    MARKS_FOR_US = 2,       /* kept free for the A-ABORT the machine itself may have to send */
    ECHO_AT = 10,           /* bytes of an RQ that its AC repeats (PS3.8 9.3.3) */
    ARTIM_DEFAULT = 30000,
    STARVED_RETRY = 100 /* ms until accepting is tried again when descriptors ran out */
};

/* ---- ready lists, clock, memory ----------------------------------------------------------- */

uint64_t ltdic__now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void ltdic__make_ready(ltdic_net *net)
{
    if (!net->held && list_empty(&net->ready)) {
        list_insert_before(&net->loop->ready, &net->ready);
    }
}

/* In the next round; the endpoint was just taken off the list of this one. */
static void make_ready_later(ltdic_net *net)
{
    if (list_empty(&net->ready)) {
        list_insert_before(&net->loop->later, &net->ready);
    }
}

/* Keep the list of timers in step with the machine's deadline. */
static void schedule(ltdic_net *net)
{
    list_remove(&net->timer);
    if (net->ul.deadline == 0) {
        return;
    }
    node *place =
        &net->loop->timers; /* most timers run equally long, so the place is near the end */
    while (place->prev != &net->loop->timers &&
           NET_OF(place->prev, timer)->ul.deadline > net->ul.deadline) {
        place = place->prev;
    }
    list_insert_before(place, &net->timer);
}

static size_t block_size(const block *b)
{
    return b->end - b->start;
}

static void block_free(block *b)
{
    free(b->data);
    *b = (block){0};
}

/* Make room for `size` bytes at the end. */
static bool block_reserve(block *b, size_t size)
{
    if (b->room - b->end >= size) {
        return true;
    }
    if (b->start > 0) {
        memmove(b->data, b->data + b->start, block_size(b));
        b->end -= b->start;
        b->start = 0;
    }
    if (b->room - b->end >= size) {
        return true;
    }
    const size_t room = b->room * 2 > b->end + size ? b->room * 2 : b->end + size;
    uint8_t *data = realloc(b->data, room);
    if (data == NULL) {
        return false;
    }
    b->data = data;
    b->room = room;
    return true;
}

/* ---- the end of a connection -------------------------------------------------------------- */

static void fail_marks(ltdic_net *net)
{
    for (unsigned i = 0; i < net->mark_count; i++) {
        if (net->marks[i].end > net->sent && net->marks[i].status == LTDIC_OK) {
            net->marks[i].status = LTDIC_ERR_CLOSED;
        }
    }
    net->sent = net->submitted;
    block_free(&net->out);
}

static void close_socket(ltdic_net *net)
{
    if (net->fd >= 0) {
        ltdic__poller_remove(net);
    }
    ltdic__close_fd(&net->fd);
    ltdic__close_fd(&net->pending_fd);
    ltdic__free_addresses(&net->addresses);
    ltdic__free_addresses(&net->local);
    net->transport = CLOSED;
    net->told = net->can_read = net->can_write = net->hung_up = net->closing = false;
    ltdic_ul_init(&net->ul, net->ul.artim);
    schedule(net);
    fail_marks(net);
}

/* The connection is over; the user learns it from an event. Received bytes stay for a holder. */
static void end_connection(ltdic_net *net, int cause)
{
    if (net->transport == OPEN) {
        net->over = true;
        net->over_status = cause;
    }
    close_socket(net);
    ltdic__make_ready(net);
}

/* ---- sending ----------------------------------------------------------------------------- */

/* Sending failed: what the peer said before it went away may still be unread. */
static void sending_is_lost(ltdic_net *net)
{
    net->lost = true;
    net->can_read = true;
    fail_marks(net);
    ltdic__make_ready(net);
}

static size_t send_now(ltdic_net *net, const uint8_t *data, size_t size)
{
    if (net->transport != OPEN || !net->can_write || net->lost || size == 0) {
        return 0;
    }
    ssize_t sent;
    do {
        sent = send(net->fd, data, size, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
        sending_is_lost(net);
        return 0;
    }
    if (sent < (ssize_t)size) {
        net->can_write = false;
        ltdic__poller_want_write(net);
    }
    net->sent += sent > 0 ? (uint64_t)sent : 0;
    return sent > 0 ? (size_t)sent : 0;
}

static void flush(ltdic_net *net)
{
    if (block_size(&net->out) == 0) {
        return;
    }
    const size_t done = send_now(net, net->out.data + net->out.start, block_size(&net->out));
    net->out.start += done; /* read after the call: a send that fails empties the block */
    if (block_size(&net->out) == 0) {
        block_free(&net->out);
    }
}

/* Send a PDU for which there is a mark. What the system does not take at once is copied. */
static void transmit(ltdic_net *net, const uint8_t *data, size_t size)
{
    net->submitted += size;
    mark *m = &net->marks[net->mark_count++];
    *m = (mark){.end = net->submitted, .size = (uint32_t)size, .type = data[0]};
    const size_t done = block_size(&net->out) > 0 ? 0 : send_now(net, data, size);
    if (!net->lost && done < size) {
        if (block_reserve(&net->out, size - done)) {
            memcpy(net->out.data + net->out.end, data + done, size - done);
            net->out.end += size - done;
        } else {
            sending_is_lost(net);
        }
    }
    if (net->lost) {
        fail_marks(net);
    }
    ltdic__make_ready(net);
}

static bool report_sent(ltdic_net *net, ltdic_net_event *event)
{
    if (net->mark_count == 0 || net->marks[0].end > net->sent) {
        return false;
    }
    const mark done = net->marks[0];
    net->mark_count--;
    memmove(net->marks, net->marks + 1, net->mark_count * sizeof done);
    *event = (ltdic_net_event){.net = net,
                               .kind = LTDIC_NET_SENT,
                               .status = done.status,
                               .type = done.type,
                               .pdu = {NULL, done.size}};
    return true;
}

/* ---- effects of the machine --------------------------------------------------------------- */

/* What the machine does by itself; `cause` is why, if the association ends by this. The user may
 * want to know of whom an event tells that ends the connection, so it is closed after it. */
static void apply(ltdic_net *net, const ltdic_effects *effects, int cause)
{
    if (effects->send != 0 && net->mark_count < MARKS) {
        uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
        ltdic_encode_fixed(pdu, effects->send, effects->codes);
        transmit(net, pdu, sizeof pdu);
        net->cause = cause;
    }
    schedule(net);
    if (effects->close && effects->tell) {
        net->closing = true;
        net->closing_cause = cause;
    } else if (effects->close) {
        end_connection(net, cause);
    }
}

/* ---- receiving --------------------------------------------------------------------------- */

/* Room to read into: the loop's spare buffer where this endpoint has none or only a small one. */
static bool take_buffer(ltdic_net *net)
{
    block *in = &net->in;
    if (in->room >= READ_SIZE) {
        return block_reserve(in, 1);
    }
    uint8_t *data = net->loop->spare != NULL ? net->loop->spare : malloc(READ_SIZE);
    if (data == NULL) {
        return false;
    }
    net->loop->spare = NULL;
    const size_t size = block_size(in);
    if (size > 0) {
        memcpy(data, in->data + in->start, size);
    }
    free(in->data);
    *in = (block){data, 0, size, READ_SIZE};
    return true;
}

/* Keep no more than what is unread: an endpoint that waits costs what it has received. */
static void give_buffer_back(ltdic_net *net)
{
    block *in = &net->in;
    const size_t size = net->transport == OPEN ? block_size(in) : 0;
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
    if (in->room == READ_SIZE && net->loop->spare == NULL) {
        net->loop->spare = in->data;
    } else {
        free(in->data);
    }
    *in = (block){small, 0, size, size};
}

/* One read. A reset counts as an end, after what came before it. */
static void fill(ltdic_net *net)
{
    if (!take_buffer(net)) {
        net->eof = true;
        return;
    }
    block *in = &net->in;
    const size_t room = in->room - in->end;
    ssize_t size;
    do {
        size = recv(net->fd, in->data + in->end, room, 0);
    } while (size < 0 && errno == EINTR);
    if (size > 0) {
        in->end += (size_t)size;
        net->can_read = (size_t)size == room || net->hung_up;
    } else if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        net->can_read = false;
    } else {
        net->eof = true;
    }
}

static void set_received(ltdic_net *net, ltdic_net_event *event, int status, ltdic_bytes pdu)
{
    const bool known = pdu.size > 0 && status != LTDIC_ERR_BAD_PDU_TYPE;
    *event = (ltdic_net_event){.net = net,
                               .kind = LTDIC_NET_RECEIVED,
                               .status = status,
                               .type = known ? pdu.data[0] : 0,
                               .pdu = pdu};
}

/* Turn the crank with one good PDU. True if the user is to know of it. */
static bool receive_pdu(ltdic_net *net, ltdic_net_event *event, ltdic_bytes pdu)
{
    ltdic_effects effects;
    if (pdu.data[0] == LTDIC_ASSOCIATE_RQ && net->ul.state == 2) {
        memcpy(net->echo, pdu.data + ECHO_AT, ECHO_SIZE);
    }
    const int status = ltdic_ul_receive(&net->ul, &effects, pdu, ltdic__now());
    const bool aborted = pdu.data[0] == LTDIC_ABORT && net->cause == LTDIC_OK;
    set_received(net, event, status, pdu);
    apply(net, &effects, aborted ? LTDIC_ERR_ABORTED : status != LTDIC_OK ? status : net->cause);
    return effects.tell;
}

/* Turn it with bytes that are no PDU. Where they leave no boundary, nothing after them counts. */
static bool receive_fault(ltdic_net *net, ltdic_net_event *event, ltdic_bytes bytes, int status)
{
    ltdic_effects effects;
    ltdic_ul_fault(&net->ul, &effects, status, ltdic__now());
    set_received(net, event, status, bytes);
    apply(net, &effects, status);
    return effects.tell;
}

/* One step over what has been received. False when nothing whole is left of it. */
static bool take_pdu(ltdic_net *net, ltdic_net_event *event, bool *tell)
{
    block *in = &net->in;
    const bool data_may_come = net->ul.state == 6 || net->ul.state == 7;
    const uint32_t max_pdata = data_may_come ? net->max_pdata : LTDIC_MAX_ASSOCIATE;
    const ltdic_options options = {
        .size = sizeof options, .max_pdata = max_pdata, .max_associate = LTDIC_MAX_ASSOCIATE};
    ltdic_bytes pdu;
    ltdic_fault fault;
    if (net->broken || block_size(in) == 0) {
        in->start = in->end = 0;
        return false;
    }
    const ltdic_bytes bytes = {in->data + in->start, block_size(in)};
    int status = ltdic_frame(&pdu, bytes, &options, &fault);
    if (status == LTDIC_NEED_MORE) {
        return false;
    }
    if (status != LTDIC_OK) {
        net->broken = true;
        in->start = in->end;
        *tell = receive_fault(net, event, bytes, status);
        return true;
    }
    in->start += pdu.size;
    status = ltdic_decode(NULL, pdu, &options, &fault);
    *tell =
        status == LTDIC_OK ? receive_pdu(net, event, pdu) : receive_fault(net, event, pdu, status);
    return true;
}

static bool take_pdu_to_tell(ltdic_net *net, ltdic_net_event *event)
{
    bool tell = false;
    while (net->transport == OPEN && !tell && take_pdu(net, event, &tell)) {
    }
    return tell;
}

static void connection_lost(ltdic_net *net)
{
    ltdic_effects effects;
    ltdic_ul_event(&net->ul, &effects, LTDIC_EVT_CLOSED, ltdic__now());
    end_connection(net, effects.action == LTDIC_AR_5 ? net->cause : LTDIC_ERR_CLOSED);
}

/* A requestor that has not asked yet: nothing is read, so that an early answer is kept in order,
 * but a peer that left is noticed. */
static void watch_idle(ltdic_net *net)
{
    uint8_t byte;
    const ssize_t size = net->can_read ? recv(net->fd, &byte, 1, MSG_PEEK) : 1;
    if (size == 0 || (size < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        end_connection(net, LTDIC_ERR_CLOSED);
    }
}

/* At most one read in a round, so that one peer cannot keep the others waiting. */
static bool receive(ltdic_net *net, ltdic_net_event *event)
{
    for (;;) {
        if (take_pdu_to_tell(net, event)) {
            return true;
        }
        if (net->transport != OPEN) {
            return false;
        }
        if (net->eof) {
            connection_lost(net);
            return false;
        }
        if (!net->can_read) {
            if (net->lost) { /* nothing more will come of it */
                connection_lost(net);
            }
            return false;
        }
        if (net->round == net->loop->round) {
            make_ready_later(net);
            return false;
        }
        net->round = net->loop->round;
        fill(net);
    }
}

/* ---- connecting and accepting ------------------------------------------------------------- */

static bool bind_local(int fd, const struct addrinfo *local, int family)
{
    for (; local != NULL; local = local->ai_next) {
        if (local->ai_family == family) {
            return bind(fd, local->ai_addr, local->ai_addrlen) == 0;
        }
    }
    return true;
}

/* Begin with the next address that takes a beginning. False when there is none left. */
static bool try_next_address(ltdic_net *net)
{
    for (; net->address != NULL; net->address = net->address->ai_next) {
        const struct addrinfo *a = net->address;
        net->fd = ltdic__open_socket(a->ai_family);
        if (net->fd < 0) {
            continue;
        }
        ltdic__tune_socket(net->fd);
        net->can_read = net->can_write = net->hung_up = false;
        const bool begun = bind_local(net->fd, net->local, a->ai_family) &&
                           (connect(net->fd, a->ai_addr, a->ai_addrlen) == 0 ||
                            errno == EINPROGRESS || errno == EINTR);
        if (begun && ltdic__poller_add(net)) {
            net->address = a->ai_next;
            return true;
        }
        ltdic__close_fd(&net->fd);
    }
    return false;
}

/* Has the attempt ended? True with the event that says how. */
static bool finish_connect(ltdic_net *net, ltdic_net_event *event)
{
    ltdic_effects effects;
    int error = 0;
    socklen_t size = sizeof error;
    if (net->fd >= 0 && !net->can_write) {
        return false;
    }
    if (net->fd < 0 && net->round == net->loop->round) { /* failed at once: not told at once */
        make_ready_later(net);
        return false;
    }
    if (net->fd >= 0) {
        getsockopt(net->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (error == ECONNRESET || error == EPIPE) {
        error = 0; /* it was up, and what the peer said before it left can still be read */
    }
    *event = (ltdic_net_event){.net = net, .kind = LTDIC_NET_CONNECTED};
    if (net->fd >= 0 && error == 0) {
        net->transport = OPEN;
        ltdic__free_addresses(&net->addresses);
        ltdic__free_addresses(&net->local);
        if (net->ul.state == 4) {
            ltdic_ul_event(&net->ul, &effects, LTDIC_EVT_CONNECTED, ltdic__now());
        }
        return true;
    }
    if (net->fd >= 0) {
        ltdic__poller_remove(net);
        ltdic__close_fd(&net->fd);
    }
    if (try_next_address(net)) {
        return false;
    }
    event->status = LTDIC_ERR_CONNECT;
    close_socket(net);
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

static bool report_pending(ltdic_net *net, ltdic_net_event *event)
{
    if (net->round != net->loop->round) {
        net->round = net->loop->round;
        net->turns = 0;
    }
    if (net->turns == ACCEPTS_PER_ROUND) {
        make_ready_later(net);
        return false;
    }
    fetch_pending(net);
    if (net->pending_fd < 0 || net->told) {
        return false;
    }
    net->turns++;
    net->told = true;
    *event = (ltdic_net_event){.net = net, .kind = LTDIC_NET_PENDING};
    return true;
}

/* ---- the loop ---------------------------------------------------------------------------- */

ltdic_loop *ltdic_loop_new(void)
{
    ltdic_loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL) {
        return NULL;
    }
    list_init(&loop->all);
    list_init(&loop->ready);
    list_init(&loop->later);
    list_init(&loop->timers);
    if (!ltdic__poller_open(loop)) {
        free(loop);
        return NULL;
    }
    return loop;
}

void ltdic_loop_free(ltdic_loop *loop)
{
    for (node *n = loop->all.next, *next; n != &loop->all; n = next) {
        next = n->next;
        ltdic_net_free(NET_OF(n, all));
    }
    ltdic__poller_close(loop);
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
    if (!list_empty(&loop->ready)) {
        return 0;
    }
    if (loop->starved && milliseconds > STARVED_RETRY) {
        milliseconds = STARVED_RETRY;
    }
    if (!list_empty(&loop->timers)) {
        const uint64_t deadline = NET_OF(loop->timers.next, timer)->ul.deadline;
        const uint64_t now = ltdic__now();
        const uint64_t left = deadline > now ? deadline - now : 0;
        return left < (uint64_t)milliseconds ? (int)left : milliseconds;
    }
    return milliseconds;
}

/* Off the list with what has expired: an endpoint that is held is not looked at until it is done.
 */
static void expire(ltdic_loop *loop)
{
    const uint64_t now = list_empty(&loop->timers) ? 0 : ltdic__now();
    while (!list_empty(&loop->timers)) {
        ltdic_net *net = NET_OF(loop->timers.next, timer);
        if (net->ul.deadline > now) {
            return;
        }
        list_remove(&net->timer);
        ltdic__make_ready(net);
    }
}

int ltdic_loop_wait(ltdic_loop *loop, int milliseconds)
{
    loop->round++;
    list_splice(&loop->ready, &loop->later);
    const int found = ltdic__poller_wait(loop, sleep_time(loop, milliseconds));
    const bool interrupted = found < 0 && errno == EINTR;
    if (loop->starved) {
        wake_starved(loop);
    }
    expire(loop);
    if (!list_empty(&loop->ready)) {
        return LTDIC_OK;
    }
    return interrupted ? LTDIC_ERR_INTERRUPTED : LTDIC_NEED_MORE;
}

static bool report_over(ltdic_net *net, ltdic_net_event *event)
{
    if (!net->over) {
        return false;
    }
    net->over = false;
    *event = (ltdic_net_event){.net = net, .kind = LTDIC_NET_CLOSED, .status = net->over_status};
    return true;
}

static void artim_is_up(ltdic_net *net)
{
    ltdic_effects effects;
    if (ltdic_ul_event(&net->ul, &effects, LTDIC_EVT_ARTIM, ltdic__now()) == LTDIC_OK) {
        apply(net, &effects, net->cause == LTDIC_OK ? LTDIC_ERR_TIMEOUT : net->cause);
    }
}

/* The next event of an open connection. */
static bool produce_open(ltdic_net *net, ltdic_net_event *event)
{
    flush(net);
    if (report_sent(net, event)) {
        return true;
    }
    if (net->ul.state == 1) {
        watch_idle(net);
    } else if (receive(net, event)) {
        return true;
    }
    if (net->transport == OPEN && net->ul.deadline != 0 && net->ul.deadline <= ltdic__now()) {
        artim_is_up(net);
    }
    return false;
}

/* The next event of an endpoint: what became of PDUs sent, then the end of an old connection, then
 * what is new. */
static bool produce(ltdic_net *net, ltdic_net_event *event)
{
    if (report_sent(net, event) || report_over(net, event)) {
        return true;
    }
    if (net->transport == LISTENING) {
        return report_pending(net, event);
    }
    if (net->transport == CONNECTING) {
        return finish_connect(net, event);
    }
    if (net->transport == OPEN && produce_open(net, event)) {
        return true;
    }
    return report_sent(net, event) || report_over(net, event);
}

int ltdic_loop_next(ltdic_loop *loop, ltdic_net_event *event)
{
    while (!list_empty(&loop->ready)) {
        ltdic_net *net = NET_OF(loop->ready.next, ready);
        list_remove(&net->ready);
        if (produce(net, event)) {
            list_remove(&net->ready);
            net->held = true;
            return LTDIC_OK;
        }
        give_buffer_back(net);
    }
    return LTDIC_NEED_MORE;
}

static void destroy(ltdic_net *net)
{
    block_free(&net->in);
    free(net);
}

void ltdic_net_done(ltdic_net *net)
{
    net->held = false;
    if (net->dead) {
        destroy(net);
        return;
    }
    if (net->closing) {
        end_connection(net, net->closing_cause);
    }
    ltdic__make_ready(net);
}

/* ---- endpoints --------------------------------------------------------------------------- */

ltdic_net *ltdic_net_new(ltdic_loop *loop, void *owner)
{
    ltdic_net *net = calloc(1, sizeof *net);
    if (net == NULL) {
        return NULL;
    }
    net->loop = loop;
    net->owner = owner;
    net->fd = net->pending_fd = -1;
    ltdic_ul_init(&net->ul, ARTIM_DEFAULT);
    list_insert_before(&loop->all, &net->all);
    list_init(&net->ready);
    list_init(&net->timer);
    return net;
}

void ltdic_net_free(ltdic_net *net)
{
    flush(net);
    close_socket(net);
    list_remove(&net->all);
    list_remove(&net->ready);
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

void ltdic_net_set_artim(ltdic_net *net, uint32_t milliseconds)
{
    net->ul.artim = milliseconds;
}

void ltdic_net_set_max_pdata(ltdic_net *net, uint32_t max_pdata)
{
    net->max_pdata = max_pdata;
}

/* Forget what the last connection left behind, but for the event that it is over. */
static void begin(ltdic_net *net, uint8_t transport)
{
    net->transport = transport;
    net->in.start = net->in.end = 0;
    net->eof = net->lost = net->broken = false;
    net->cause = LTDIC_OK;
    ltdic__make_ready(net);
}

static int system_status(void)
{
    return errno == ENOMEM ? LTDIC_ERR_MEMORY : LTDIC_ERR_SYSTEM;
}

static bool listen_at(ltdic_net *net, const struct addrinfo *a, uint8_t family, int backlog)
{
    const int on = 1, off = 0;
    net->fd = ltdic__open_socket(a->ai_family);
    if (net->fd < 0) {
        return false;
    }
    setsockopt(net->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->ai_family == AF_INET6) {
        const int *only = family == LTDIC_IP_BOTH ? &off : &on;
        setsockopt(net->fd, IPPROTO_IPV6, IPV6_V6ONLY, only, sizeof *only);
    }
    net->can_read = net->hung_up = false;
    net->can_write = true; /* nothing to wait for there */
    if (bind(net->fd, a->ai_addr, a->ai_addrlen) == 0 && listen(net->fd, backlog) == 0 &&
        ltdic__poller_add(net)) {
        return true;
    }
    ltdic__close_fd(&net->fd);
    return false;
}

int ltdic_net_listen(ltdic_net *net, const ltdic_address *address, int backlog)
{
    if (net->transport != CLOSED || net->over) {
        return LTDIC_ERR_WRONG_STATE;
    }
    struct addrinfo *found = ltdic__resolve(address, true);
    bool listening = false;
    for (const struct addrinfo *a = found; a != NULL && !listening; a = a->ai_next) {
        listening =
            listen_at(net, a, address->family, backlog > LEAST_BACKLOG ? backlog : LEAST_BACKLOG);
    }
    ltdic__free_addresses(&found);
    if (!listening && address->family == LTDIC_IP_BOTH) { /* a host without IPv6 has only one */
        const ltdic_address v4 = {address->host, address->port, LTDIC_IP_V4};
        return ltdic_net_listen(net, &v4, backlog);
    }
    if (!listening) {
        return LTDIC_ERR_ADDRESS;
    }
    begin(net, LISTENING);
    return LTDIC_OK;
}

int ltdic_net_accept(ltdic_net *net, ltdic_net *listener)
{
    ltdic_effects effects;
    if (listener->transport != LISTENING || net->transport != CLOSED || net->over) {
        return LTDIC_ERR_WRONG_STATE;
    }
    if (listener->pending_fd < 0) {
        listener->can_read = true; /* perhaps; the system knows */
        fetch_pending(listener);
    }
    ltdic__make_ready(listener);
    if (listener->pending_fd < 0) {
        return listener->can_read ? system_status() : LTDIC_NEED_MORE;
    }
    net->fd = listener->pending_fd;
    listener->pending_fd = -1;
    ltdic__tune_socket(net->fd);
    net->can_read = net->hung_up = false;
    net->can_write = true;
    if (!ltdic__poller_add(net)) {
        ltdic__close_fd(&net->fd);
        return system_status();
    }
    begin(net, OPEN);
    ltdic_ul_event(&net->ul, &effects, LTDIC_EVT_ACCEPTED, ltdic__now());
    schedule(net);
    return LTDIC_OK;
}

int ltdic_net_connect(ltdic_net *net, const ltdic_address *peer, const ltdic_address *local)
{
    if (net->closing) {
        end_connection(net, net->closing_cause);
    }
    if (net->transport != CLOSED) {
        return LTDIC_ERR_WRONG_STATE;
    }
    net->addresses = ltdic__resolve(peer, false);
    net->local = local == NULL ? NULL : ltdic__resolve(local, true);
    if (net->addresses == NULL || (local != NULL && net->local == NULL)) {
        ltdic__free_addresses(&net->addresses);
        ltdic__free_addresses(&net->local);
        return LTDIC_ERR_ADDRESS;
    }
    net->address = net->addresses;
    begin(net, CONNECTING);
    if (!try_next_address(net)) {
        net->round = net->loop->round;
    }
    return LTDIC_OK;
}

/* A request goes through Sta4 even where the transport is up already. */
static int send_request(ltdic_net *net, ltdic_bytes pdu)
{
    ltdic_effects effects;
    if ((net->transport != CONNECTING && net->transport != OPEN) || net->closing) {
        return LTDIC_ERR_WRONG_STATE;
    }
    const int status = ltdic_ul_event(&net->ul, &effects, LTDIC_EVT_REQUEST, ltdic__now());
    if (status != LTDIC_OK) {
        return status;
    }
    if (net->transport == OPEN) {
        ltdic_ul_event(&net->ul, &effects, LTDIC_EVT_CONNECTED, ltdic__now());
    }
    transmit(net, pdu.data, pdu.size);
    return LTDIC_OK;
}

/* A copy of an AC that repeats the RQ in the fields that are reserved in an AC. */
static uint8_t *with_echo(const ltdic_net *net, ltdic_bytes pdu)
{
    uint8_t *copy = malloc(pdu.size);
    if (copy != NULL) {
        memcpy(copy, pdu.data, pdu.size);
        memcpy(copy + ECHO_AT, net->echo, ECHO_SIZE);
    }
    return copy;
}

int ltdic_net_send(ltdic_net *net, ltdic_bytes pdu)
{
    static const uint8_t events[] = {
        [LTDIC_ASSOCIATE_RQ] = LTDIC_EVT_REQUEST, [LTDIC_ASSOCIATE_AC] = LTDIC_EVT_ACCEPT,
        [LTDIC_ASSOCIATE_RJ] = LTDIC_EVT_REJECT,  [LTDIC_DATA_TF] = LTDIC_EVT_DATA,
        [LTDIC_RELEASE_RQ] = LTDIC_EVT_RELEASE,   [LTDIC_RELEASE_RP] = LTDIC_EVT_RELEASE_RESPONSE,
        [LTDIC_ABORT] = LTDIC_EVT_ABORT,
    };
    ltdic_effects effects;
    const uint8_t type = pdu.data[0];
    const bool accept = type == LTDIC_ASSOCIATE_AC;
    assert(type >= LTDIC_ASSOCIATE_RQ && type <= LTDIC_ABORT);
    assert(pdu.size >= (accept ? ECHO_AT + ECHO_SIZE : LTDIC_FIXED_PDU_SIZE));
    if (net->mark_count >= MARKS - MARKS_FOR_US && type != LTDIC_ABORT) {
        return LTDIC_ERR_ROOM;
    }
    if (type == LTDIC_ASSOCIATE_RQ) {
        return send_request(net, pdu);
    }
    uint8_t *copy = NULL;
    if (accept) {
        copy = with_echo(net, pdu);
        if (copy == NULL) {
            return LTDIC_ERR_MEMORY;
        }
        pdu.data = copy;
    }
    const int status = ltdic_ul_event(&net->ul, &effects, (ltdic_event)events[type], ltdic__now());
    if (status == LTDIC_OK) {
        schedule(net);
    }
    if (effects.close) {
        end_connection(net, LTDIC_OK);
    }
    if (effects.send != 0) {
        transmit(net, pdu.data, pdu.size);
    }
    free(copy);
    return status;
}

void ltdic_net_close(ltdic_net *net)
{
    flush(net);
    end_connection(net, LTDIC_OK);
}

int ltdic_net_state(const ltdic_net *net)
{
    return net->ul.state;
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
