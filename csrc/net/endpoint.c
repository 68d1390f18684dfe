/* SPDX-License-Identifier: MIT */
/* An endpoint: one association over one transport. It reads, sends, and asks the association for
 * its indications.
 *
 * Bytes that arrived before the end of a connection are used before the end is: a rejection
 * followed by a reset is a rejection. */
#include "system.h"

#include "net.h"

#include "codec/bytes.h"
#include "engine/outbox.h"

#include <stdlib.h>
#include <string.h>

enum {
    READ_SIZE = 262144, /* bytes of a buffer that all endpoints of a loop share */
    FIRST_ACKS = 8,
    EVERY_ACK = 255,
    STALL = 20 /* ms; a peer that was silent for so long may have waited for an acknowledgement:
                  systems delay it by 40 ms */
};

static uint64_t deadline_of(const ltdic_net *net)
{
    return net->state == CONNECTING  ? ltdic__attempt_deadline(net)
           : net->state == CONNECTED ? ltdic_association_deadline(net->association)
                                     : 0;
}

void ltdic__update_timer(ltdic_net *net)
{
    ltdic__set_timer(&net->source, deadline_of(net));
}

int ltdic__watch(ltdic_net *net)
{
    source *s = &net->source;
    const int status = ltdic__poller_add(s->loop->poller, s, net->fd, !s->can_write);
    net->watched = status == LTDIC_OK;
    return status;
}

static void stop_watching(ltdic_net *net)
{
    if (net->watched) {
        ltdic__poller_remove(net->source.loop->poller, net->fd);
        net->watched = false;
    }
}

/* Closes the descriptor. `orderly`: the transport may tell the peer first. */
static void close_transport(ltdic_net *net, bool orderly)
{
    if (net->fd >= 0 && net->transport->close != NULL) {
        net->transport->close(net->transport_state, net->fd, orderly);
    }
    ltdic__close_fd(&net->fd);
}

void ltdic__close_socket(ltdic_net *net)
{
    stop_watching(net);
    if (net->state == LISTENING) {
        ltdic__stop_listening(net);
    }
    ltdic__drop_attempts(net);
    close_transport(net, true);
    ltdic__close_fd(&net->pending_fd);
    ltdic__free_addresses(&net->addresses);
    ltdic__free_addresses(&net->local);
    ltdic__leave_listener(net);
    net->state = CLOSED;
    net->source.kind = &ltdic__endpoint_kind;
    net->pending_reported = net->source.can_read = net->source.can_write = net->source.hung_up =
        false;
    ltdic__set_timer(&net->source, 0);
}

/* ---- opening ----------------------------------------------------------------------------- */

/* Makes the poller report when the descriptor can be written again. */
static void want_write(ltdic_net *net)
{
    source *s = &net->source;
    s->can_write = false;
    if (net->watched) {
        ltdic__poller_want_write(s->loop->poller, s, net->fd);
    }
}

/* Keeps the first bytes of a TCP connection whose transport is not open. The transport has read all
 * bytes before them, since it wanted more. */
static int keep_first_raw(ltdic_net *net)
{
    size_t size;
    uint8_t *at = net->first + net->first_size;
    const size_t room = MOST_FIRST - net->first_size;
    const int result = room > 0 ? ltdic__tcp_peek(net->fd, at, room, &size) : LTDIC_TRANSPORT_DONE;
    net->first_size = (uint8_t)(net->first_size + (room > 0 ? size : 0));
    return result;
}

int ltdic__open_transport(ltdic_net *net)
{
    source *s = &net->source;
    if (net->open) {
        return LTDIC_TRANSPORT_DONE;
    }
    const bool acceptor = ltdic_association_state(net->association) == STA_AWAITING_RQ;
    int result = acceptor ? keep_first_raw(net) : LTDIC_TRANSPORT_DONE;
    if (result == LTDIC_TRANSPORT_DONE) {
        result = net->transport->open(net->transport_state, net->fd);
    }
    if (result == LTDIC_TRANSPORT_WANT_READ) {
        s->can_read = false;
    } else if (result == LTDIC_TRANSPORT_WANT_WRITE) {
        want_write(net);
    } else if (result == LTDIC_TRANSPORT_DONE) {
        net->open = s->can_read = s->can_write = true; /* perhaps: the next call tells */
        net->first_size = 0;
    }
    return result;
}

/* Does the same for a connection. */
static void open_connection(ltdic_net *net)
{
    const source *s = &net->source;
    if (net->ended != LTDIC_OK || (!s->can_read && !s->can_write)) {
        return;
    }
    const int result = ltdic__open_transport(net);
    if (result == LTDIC_TRANSPORT_END || result == LTDIC_TRANSPORT_LOST) {
        net->ended = LTDIC_ERR_CLOSED;
    } else if (result == LTDIC_TRANSPORT_AGAIN) {
        ltdic__make_ready_later(&net->source);
    }
    if (net->listener != NULL && net->transport->pending != NULL) {
        ltdic__bound_unfinished(net, net->open ? 0 : net->transport->pending(net->transport_state));
    }
}

/* ---- sending ----------------------------------------------------------------------------- */

/* Calls `send` of the transport once. Returns false if it takes no more for now, or will take
 * nothing any more. In the second case there may still be bytes of the peer to read. */
static bool send_some(ltdic_net *net, const ltdic_output *output)
{
    size_t sent = 0;
    const int result = net->transport->send(net->transport_state, net->fd, output, &sent);
    if (sent > 0) {
        ltdic_association_sent(net->association, sent, ltdic__now());
    }
    if (result == LTDIC_TRANSPORT_LOST || result == LTDIC_TRANSPORT_END) {
        ltdic_association_lost(net->association);
        net->source.can_read = true;
    } else if (result == LTDIC_TRANSPORT_WANT_WRITE) {
        want_write(net);
    } else if (result == LTDIC_TRANSPORT_AGAIN) {
        ltdic__make_ready_later(&net->source);
    }
    net->send_blocked = result == LTDIC_TRANSPORT_WANT_READ;
    return result == LTDIC_TRANSPORT_DONE;
}

static void send_all(ltdic_net *net)
{
    ltdic_output output;
    do {
        ltdic_association_output(net->association, &output);
    } while (output.count > 0 && send_some(net, &output));
}

static inline void flush(ltdic_net *net)
{
    if (net->state == CONNECTED && net->open && net->source.can_write && !net->send_blocked) {
        send_all(net);
    }
}

/* Ends the use of the memory of whoever has sent. */
static void keep(ltdic_net *net)
{
    ltdic_association_keep(net->association);
    ltdic__update_timer(net);
}

void ltdic__push(ltdic_net *net)
{
    flush(net);
    keep(net);
    ltdic__make_ready(&net->source);
}

/* ---- receiving --------------------------------------------------------------------------- */

/* Wipes a buffer that may hold an A-ASSOCIATE-RQ, and so a passcode. */
static void wipe_buffer(const ltdic_net *net)
{
    if (net->secret) {
        ltdic__wipe(net->in.data, net->in.end);
    }
}

/* Reserves room to read into. An endpoint with a small buffer, or none, gets a spare one of the
 * loop, if there is one. */
static bool take_buffer(ltdic_net *net)
{
    buffer *in = &net->in;
    if (in->room >= READ_SIZE) {
        return net->secret ? ltdic__reserve_secret(in, 1) : buffer_reserve(in, 1);
    }
    ltdic_loop *loop = net->source.loop;
    uint8_t *data = loop->spare_count > 0 ? loop->spares[--loop->spare_count] : malloc(READ_SIZE);
    if (data == NULL) {
        return false;
    }
    const size_t size = buffer_size(in);
    if (size > 0) {
        memcpy(data, in->data + in->start, size);
    }
    wipe_buffer(net);
    free(in->data);
    *in = (buffer){data, 0, size, READ_SIZE};
    return true;
}

/* Gives up a buffer without unread bytes. */
static void drop_buffer(ltdic_net *net)
{
    wipe_buffer(net);
    ltdic_loop *loop = net->source.loop;
    if (net->in.room == READ_SIZE && loop->spare_count < MOST_SPARES) {
        loop->spares[loop->spare_count++] = net->in.data;
    } else {
        free(net->in.data);
    }
    net->in = (buffer){0};
    net->secret = false;
}

/* Keeps no more memory than there are unread bytes, so that an endpoint that waits takes little. */
static void give_buffer_back(ltdic_net *net)
{
    buffer *in = &net->in;
    const size_t size = net->state == CONNECTED ? buffer_size(in) : 0;
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

/* Acknowledges at once the bytes of a message that is not complete.
 *
 * A peer with Nagle's algorithm (RFC 896) sends its next small segment only after the last one was
 * acknowledged. The system delays that (RFC 1122 4.2.3.2) unless something is sent. The first
 * FIRST_ACKS reads are acknowledged at once. A peer that was seen to wait gets it for every read;
 * for other peers the cost is saved. */
static void acknowledge(ltdic_net *net)
{
    const bool answered = ltdic__association_bytes_sent(net->association) != net->sent_then;
    if (net->quick_acks == 0 || answered || net->source.can_read ||
        !ltdic_association_expects_more(net->association)) {
        return;
    }
    if (net->quick_acks != EVERY_ACK) {
        net->quick_acks--;
    }
    net->sent_then = UINT64_MAX; /* once for each read */
    ltdic__tcp_acknowledge(net->fd);
}

/* Keeps the first bytes of a connection, until its A-ASSOCIATE-RQ is there. */
static void keep_first(ltdic_net *net, ltdic_bytes received)
{
    const size_t left = MOST_FIRST - net->first_size;
    const size_t size = received.size < left ? received.size : left;
    if (ltdic_association_state(net->association) == STA_AWAITING_RQ && size > 0) {
        memcpy(net->first + net->first_size, received.data, size);
        net->first_size = (uint8_t)(net->first_size + size);
    }
}

/* Reads from the transport. If the association is over and the peer sends on, nothing is decrypted
 * any more: only the end of the connection is of interest. */
static int receive(ltdic_net *net, uint8_t *data, size_t room, size_t *size)
{
    if (net->transport == &ltdic__tcp) {
        return ltdic_tcp_read(net->fd, data, room, size);
    }
    const bool over = ltdic_association_state(net->association) == STA_AWAITING_CLOSE;
    if (over && net->deaf) {
        const int result = ltdic_tcp_read(net->fd, data, room, size);
        *size = 0;
        return result;
    }
    const int result = net->transport->read(net->transport_state, net->fd, data, room, size);
    net->deaf = over && result == LTDIC_TRANSPORT_DONE;
    return result;
}

/* Reads once. A reset counts as an end, after the bytes that came before it. */
static void fill(ltdic_net *net, uint64_t now)
{
    if (!take_buffer(net)) {
        net->ended = LTDIC_ERR_MEMORY;
        return;
    }
    buffer *in = &net->in;
    const size_t room = in->room - in->end;
    const uint64_t before = net->read_at;
    size_t size = 0;
    net->read_at = now;
    net->sent_then = ltdic__association_bytes_sent(net->association);
    if (net->read_at - before >= STALL && ltdic_association_expects_more(net->association)) {
        net->quick_acks = EVERY_ACK;
    }
    const int result = receive(net, in->data + in->end, room, &size);
    net->read_blocked = result == LTDIC_TRANSPORT_WANT_WRITE;
    net->send_blocked = false;
    if (size > 0) {
        net->secret = net->secret || ltdic_association_state(net->association) == STA_AWAITING_RQ;
        keep_first(net, (ltdic_bytes){in->data + in->end, size});
        in->end += size;
    }
    if (result == LTDIC_TRANSPORT_DONE || result == LTDIC_TRANSPORT_AGAIN) {
        /* after a short read of TCP, the descriptor has no more */
        net->source.can_read = size == room || net->source.hung_up || net->transport != &ltdic__tcp;
    } else if (result == LTDIC_TRANSPORT_WANT_READ) {
        net->source.can_read = false;
    } else if (result == LTDIC_TRANSPORT_WANT_WRITE) {
        want_write(net);
    } else {
        net->ended = LTDIC_ERR_CLOSED;
        net->finished = result == LTDIC_TRANSPORT_END;
    }
}

bool ltdic__take(ltdic_net *net, ltdic_indication *indication, uint64_t now)
{
    ltdic_association *a = net->association;
    const size_t size = buffer_size(&net->in);
    ltdic_bytes in = {size > 0 ? net->in.data + net->in.start : NULL, size};
    int status = ltdic_association_next(a, indication, &in, now);
    const uint64_t sent = ltdic__association_bytes_sent(a);
    flush(net);
    if (status == LTDIC_NEED_MORE &&
        ltdic__association_bytes_sent(a) != sent) { /* the provider's answer was sent */
        status = ltdic_association_next(a, indication, &in, now);
    }
    net->in.start = net->in.end - in.size;
    ltdic__update_timer(net);
    const bool unfinished = net->unfinished > 0 || in.size > 0;
    if (net->listener != NULL && status == LTDIC_NEED_MORE && unfinished) {
        ltdic__bound_unfinished(net, ltdic__association_is_held(a) ? 0 : in.size);
    }
    if (status == LTDIC_OK && indication->kind == LTDIC_CLOSED && net->state == CONNECTED) {
        ltdic__close_socket(net);
        drop_buffer(net);
    }
    return status == LTDIC_OK;
}

/* Returns true if the peer has left before the requestor sent its request. Nothing is read then,
 * so that bytes that arrive early stay in order. */
static bool has_left(ltdic_net *net)
{
    uint8_t byte;
    size_t size;
    const int result = net->source.can_read ? ltdic__tcp_peek(net->fd, &byte, sizeof byte, &size)
                                            : LTDIC_TRANSPORT_DONE;
    net->source.can_read = net->source.can_read && result != LTDIC_TRANSPORT_WANT_READ;
    return result == LTDIC_TRANSPORT_END || result == LTDIC_TRANSPORT_LOST;
}

/* Returns true if bytes of the peer must wait until there is room to send. No more is read then. */
static bool waits_to_send(const ltdic_net *net)
{
    const size_t most = net->send_blocked ? READ_SIZE : 0;
    return (net->read_blocked && !net->source.can_write) ||
           (ltdic__association_is_held(net->association) && buffer_size(&net->in) > most);
}

/* Reads, or tells the association that nothing more can be read. Returns true if it has new input
 * or learned of the end. An endpoint reads once in a round, so that one peer cannot make the
 * others wait. */
static bool read_on(ltdic_net *net, uint64_t now)
{
    const int state = ltdic_association_state(net->association);
    const bool asked = state != STA_IDLE;
    if (net->finished && state == STA_AWAITING_RELEASE_ANSWER &&
        ltdic__association_is_held(net->association)) {
        return false; /* the peer may still read the answer to its release */
    }
    if (!asked && net->open && has_left(net)) {
        net->ended = LTDIC_ERR_CLOSED;
    }
    if (net->ended == LTDIC_OK && asked && ltdic__association_is_lost(net->association) &&
        !net->source.can_read) {
        net->ended = LTDIC_ERR_CLOSED; /* nothing more will arrive */
    }
    if (net->ended != LTDIC_OK) {
        ltdic_association_closed(net->association, net->ended, now);
        return true;
    }
    if (!asked || !net->open || !net->source.can_read || waits_to_send(net)) {
        return false;
    }
    if (net->source.spent) {
        ltdic__make_ready_later(&net->source);
        return false;
    }
    net->source.spent = true;
    fill(net, now);
    return true;
}

/* Reads before the next indication, in two cases. First, once in a round: a user who sends again
 * at each LTDIC_SENT must receive, too. Second, once after a deadline has passed: bytes that
 * arrived in time count, even if this thread looks at them late. */
static void read_first(ltdic_net *net, uint64_t now)
{
    const uint64_t deadline = deadline_of(net);
    const bool late = deadline != 0 && net->read_at < deadline && deadline <= now;
    const bool due = !net->source.spent && net->source.can_read &&
                     ltdic_association_state(net->association) != STA_IDLE &&
                     buffer_size(&net->in) < READ_SIZE;
    if (net->ended != LTDIC_OK || !net->open || (!late && !due) || waits_to_send(net)) {
        return;
    }
    net->source.spent = true;
    fill(net, now);
    if (late && net->ended != LTDIC_OK && buffer_size(&net->in) == 0) {
        ltdic_association_closed(net->association, net->ended, net->read_at);
    }
}

/* Makes indications until reading would block. Only then the poller has to watch the descriptor. */
static bool produce_connected(ltdic_net *net, ltdic_indication *indication)
{
    const uint64_t now = ltdic__now(); /* nothing below waits */
    if (!net->open) {
        open_connection(net);
    }
    flush(net);
    read_first(net, now);
    for (;;) {
        do {
            if (ltdic__take(net, indication, now)) {
                return true;
            }
        } while (net->state == CONNECTED && read_on(net, now));
        acknowledge(net);
        const int status = net->state != CONNECTED || net->watched ? LTDIC_OK : ltdic__watch(net);
        if (status == LTDIC_OK) {
            return false;
        }
        net->ended = status;
    }
}

/* ---- the source -------------------------------------------------------------------------- */

static bool produce(ltdic_net *net, ltdic_indication *indication)
{
    if (net->state == CONNECTED) {
        return produce_connected(net, indication);
    }
    /* indications of an old connection may be left */
    return ltdic__take(net, indication, ltdic__now()) ||
           (net->state == CONNECTING && ltdic__finish_connecting(net, indication));
}

static bool next(source *s, ltdic_indication *indication)
{
    ltdic_net *net = net_of(s);
    const bool produced = produce(net, indication);
    if (!produced) {
        give_buffer_back(net);
    }
    return produced;
}

/* Leaves the connection to the parent process. */
static void renew(source *s)
{
    ltdic_net *net = net_of(s);
    if (net->state != CONNECTED && net->state != CONNECTING) {
        return;
    }
    ltdic__drop_attempts(net);
    ltdic__free_addresses(&net->addresses);
    net->address = NULL;
    close_transport(net, false);
    net->watched = false;
    net->ended = LTDIC_ERR_CLOSED;
    net->cause = ltdic__cause_aborted();
    ltdic_association_lost(net->association);
    ltdic__make_ready(s);
}

static void free_it(source *s)
{
    ltdic_net_free(net_of(s));
}

const source_kind ltdic__endpoint_kind = {next, renew, free_it};

/* ---- life --------------------------------------------------------------------------------- */

static void destroy(ltdic_net *net)
{
    ltdic__association_clear(net->association);
    ltdic_net_set_transport(net, &ltdic__tcp, NULL);
    wipe_buffer(net);
    buffer_free(&net->in);
    free(net->last);
    free(net);
}

void ltdic_net_done(ltdic_net *net)
{
    net->source.busy = false;
    if (net->freed) {
        destroy(net);
        return;
    }
    if (buffer_size(&net->in) == 0) {
        drop_buffer(net); /* so that endpoints that are ready share one buffer */
    }
    ltdic__make_ready(&net->source);
}

ltdic_net *ltdic_net_new(ltdic_loop *loop, void *owner)
{
    return ltdic__net_new(loop, &loop->own, owner);
}

ltdic_net *ltdic__net_new(ltdic_loop *loop, queue *q, void *owner)
{
    ltdic_net *net = malloc(sizeof *net + ltdic__association_size());
    if (net == NULL) {
        return NULL;
    }
    *net = (ltdic_net){.association = (ltdic_association *)(void *)(net + 1)};
    if (!ltdic__loop_add(loop, q, &net->source)) {
        free(net);
        return NULL;
    }
    ltdic__association_init(net->association);
    net->source.kind = &ltdic__endpoint_kind;
    net->owner = owner;
    net->fd = net->pending_fd = -1;
    net->transport = &ltdic__tcp;
    net->max_unfinished = LTDIC_MAX_UNFINISHED;
    list_init(&net->begun);
    list_init(&net->member);
    return net;
}

void ltdic_net_free(ltdic_net *net)
{
    ltdic__renew(net->source.loop);
    flush(net);
    ltdic__close_socket(net);
    ltdic__loop_remove(&net->source);
    if (net->source.busy) {
        net->freed = true;
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

void ltdic__change_state(ltdic_net *net, enum net_state state)
{
    net->state = (uint8_t)state;
    net->in.start = net->in.end = 0;
    net->ended = LTDIC_OK;
    net->read_blocked = net->send_blocked = false;
    net->finished = net->deaf = net->lacks_room = false;
    net->read_at = 0;
    net->quick_acks = FIRST_ACKS;
    net->sent_then = UINT64_MAX;
    net->first_size = 0;
    ltdic__make_ready(&net->source);
}

void ltdic__use_connection(ltdic_net *net, int fd)
{
    net->fd = fd;
    net->open = net->transport->open == NULL;
    net->source.hung_up = false;
    net->source.can_read = net->source.can_write = true; /* perhaps: the next call tells */
    ltdic__change_state(net, CONNECTED);
}

void ltdic_net_set_transport(ltdic_net *net, const ltdic_transport *transport, void *state)
{
    if (net->transport->free != NULL) {
        net->transport->free(net->transport_state);
    }
    net->transport = transport;
    net->transport_state = state;
    net->open = transport->open == NULL;
}

void *ltdic__net_take_transport(ltdic_net *net)
{
    void *state = net->transport_state;
    net->transport = &ltdic__tcp;
    return state;
}

bool ltdic__net_is_open(const ltdic_net *net)
{
    return net->open;
}

int ltdic_net_adopt(ltdic_net *net, int fd, ltdic_event event)
{
    ltdic__renew(net->source.loop);
    if (net->state != CLOSED || ltdic__association_is_over(net->association) ||
        (event != LTDIC_EVT_CONNECTED && event != LTDIC_EVT_ACCEPTED)) {
        return LTDIC_ERR_WRONG_STATE;
    }
    if (!ltdic__tcp_adopt(fd, &net->cause)) {
        return LTDIC_ERR_SYSTEM;
    }
    ltdic__use_connection(net, fd);
    if (event == LTDIC_EVT_ACCEPTED) {
        ltdic_association_opened(net->association, event, ltdic__now());
    }
    ltdic__update_timer(net);
    return LTDIC_OK;
}

ltdic_bytes ltdic_net_first(const ltdic_net *net)
{
    return (ltdic_bytes){net->first, net->first_size};
}

int ltdic_net_send(ltdic_net *net, ltdic_bytes pdu)
{
    ltdic__renew(net->source.loop);
    ltdic_association *a = net->association;
    const bool request = pdu.data[0] == LTDIC_ASSOCIATE_RQ;
    const bool up = net->state == CONNECTED && !ltdic__association_is_over(a);
    if (request && !up && net->state != CONNECTING) {
        return LTDIC_ERR_WRONG_STATE;
    }
    const bool withdraws =
        ltdic_association_state(a) == STA_AWAITING_TRANSPORT && pdu.data[0] == LTDIC_ABORT;
    const int status = withdraws ? ltdic__association_withdraw(a, pdu, ltdic__now())
                                 : ltdic_association_send(a, pdu, ltdic__now());
    if (status == LTDIC_OK && request && up) { /* passes Sta4, although the transport is up */
        ltdic_association_opened(a, LTDIC_EVT_CONNECTED, ltdic__now());
    }
    if (status == LTDIC_OK && withdraws) {
        ltdic__close_socket(net);
    }
    if (status == LTDIC_OK) {
        ltdic__push(net);
    }
    return status;
}

int ltdic__net_lend(ltdic_net *net, const ltdic_pdv *data)
{
    ltdic__renew(net->source.loop);
    const int status = ltdic_association_send_data(net->association, data, ltdic__now());
    net->lacks_room = net->lacks_room || status == LTDIC_ERR_ROOM;
    if (status == LTDIC_OK) {
        flush(net);
        ltdic__make_ready(&net->source);
    }
    return status;
}

int ltdic_net_send_data(ltdic_net *net, const ltdic_pdv *data)
{
    const int status = ltdic__net_lend(net, data);
    if (status == LTDIC_OK) {
        keep(net);
    }
    return status;
}

void ltdic__net_end(ltdic_net *net, int status)
{
    ltdic__renew(net->source.loop);
    flush(net);
    if (net->state == CONNECTED && !ltdic__association_is_over(net->association)) {
        ltdic_association_closed(net->association, status, ltdic__now());
    } else if (net->state == CONNECTING) {
        ltdic__association_reset(net->association);
    }
    ltdic__close_socket(net);
    ltdic__make_ready(&net->source);
}

size_t ltdic__net_waiting(const ltdic_net *net)
{
    return ltdic__association_waiting(net->association);
}

bool ltdic__net_has_room_again(ltdic_net *net)
{
    const bool again = net->lacks_room && ltdic__association_has_room(net->association);
    net->lacks_room = net->lacks_room && !again;
    return again;
}

uint64_t ltdic_net_sent(const ltdic_net *net)
{
    return ltdic__association_bytes_sent(net->association);
}

uint64_t ltdic_net_taken(const ltdic_net *net)
{
    const uint64_t gone = ltdic__association_bytes_sent(net->association),
                   left = ltdic__tcp_unacknowledged(net->fd);
    return gone > left ? gone - left : 0;
}

const ltdic_association *ltdic__net_association(const ltdic_net *net)
{
    return net->association;
}

void ltdic_net_hold(ltdic_net *net, int held)
{
    ltdic__association_hold(net->association, held != 0);
    ltdic__make_ready(&net->source);
}

void ltdic_net_close(ltdic_net *net)
{
    ltdic__net_end(net, LTDIC_OK);
}

int ltdic_net_descriptor(const ltdic_net *net)
{
    return net->fd;
}

int ltdic_net_state(const ltdic_net *net)
{
    return ltdic_association_state(net->association);
}

int ltdic_net_is_connected(const ltdic_net *net)
{
    return net->state == CONNECTED;
}

int ltdic_net_name(const ltdic_net *net, int peer, ltdic_buffer *host, uint16_t *port)
{
    const int status = ltdic__tcp_name(net->fd, peer != 0, host, port);
    const accepted *last = net->listener == NULL ? NULL : net->listener->last;
    return status == LTDIC_ERR_WRONG_STATE && peer != 0 && last != NULL && last->by == net
               ? ltdic__tcp_name_of(&last->peer, host, port) /* it was reset already */
               : status;
}
