/* SPDX-License-Identifier: MIT */
/* A requestor: opens associations on a loop, and collects what comes on them in batches. Its user
 * decides what it means. */
#include "batch.h"

#include "codec/items.h"
#include "engine/association.h"
#include "net/endpoint.h"
#include "net/loop.h"

#include <stdlib.h>

_Static_assert((int)LTDIC_REQUESTED_DATA == (int)LTDIC_SERVED_DATA, "batch.c joins data");

enum { MOST_FIRST = 32 }; /* bytes of a PDU at fault that are reported */

struct ltdic_requestor {
    source source; /* it never has an indication: the loop frees the requestor by it */
    queue queue;   /* for all its endpoints */
    ltdic_loop *loop;
    batch_memory batch;
    bool news; /* the batch has a row other than LTDIC_REQUESTED_CONNECTED */
};

static ltdic_requestor *requestor_of(source *s)
{
    return CONTAINER_OF(s, ltdic_requestor, source);
}

/* ---- life -------------------------------------------------------------------------------- */

static bool next(source *s, ltdic_indication *indication)
{
    (void)s;
    (void)indication;
    return false;
}

static void renew(source *s)
{
    (void)s; /* its endpoints are sources of their own */
}

static void free_it(source *s)
{
    ltdic_requestor_free(requestor_of(s));
}

static const source_kind kind = {next, renew, free_it};

ltdic_requestor *ltdic_requestor_new(ltdic_loop *loop)
{
    ltdic_requestor *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return NULL;
    }
    r->source.kind = &kind;
    r->loop = loop;
    if (!ltdic__loop_add(loop, &r->queue, &r->source)) {
        free(r);
        return NULL;
    }
    ltdic__queue_add(loop, &r->queue);
    return r;
}

void ltdic_requestor_free(ltdic_requestor *requestor)
{
    if (requestor == NULL) {
        return;
    }
    node *all = &requestor->loop->all;
    for (node *n = all->next, *next_node; n != all; n = next_node) {
        next_node = n->next;
        source *s = CONTAINER_OF(n, source, all);
        if (s->queue == &requestor->queue && s != &requestor->source) {
            s->kind->free(s);
        }
    }
    ltdic__loop_remove(&requestor->source);
    ltdic__queue_remove(&requestor->queue);
    ltdic__batch_clear(&requestor->batch);
    free(requestor);
}

ltdic_net *ltdic_requestor_net(ltdic_requestor *requestor, uint64_t number)
{
    return ltdic__net_new(requestor->loop, &requestor->queue, (void *)(uintptr_t)number);
}

/* ---- the batch --------------------------------------------------------------------------- */

/* Adds a row. A fragment without data has one of its own, so that the user can count them. Without
 * memory for its bytes the connection is ended, which a row without any reports. */
static void put(ltdic_requestor *r, ltdic_net *net, ltdic_event_row row, ltdic_bytes bytes)
{
    const bool joins =
        row.kind == LTDIC_REQUESTED_DATA && (bytes.size > 0 || (row.control & LAST) != 0);
    r->news = r->news || row.kind != LTDIC_REQUESTED_CONNECTED;
    if (joins ? !ltdic__batch_put_data(&r->batch, row, bytes)
              : !ltdic__batch_put(&r->batch, row, bytes)) {
        ltdic__net_end(net, LTDIC_ERR_MEMORY);
    }
}

static void connected(ltdic_requestor *r, ltdic_net *net, ltdic_event_row row)
{
    uint8_t host[48];
    uint16_t port = 0;
    ltdic_buffer out = {host, sizeof host, 0};
    row.kind = row.status == LTDIC_OK ? LTDIC_REQUESTED_CONNECTED : LTDIC_REQUESTED_FAILED;
    ltdic_net_name(net, 1, &out, &port);
    row.place = port;
    put(r, net, row, (ltdic_bytes){host, out.size});
}

static ltdic_bytes first_of(ltdic_bytes bytes)
{
    return (ltdic_bytes){bytes.data, bytes.size < MOST_FIRST ? bytes.size : MOST_FIRST};
}

static void received(ltdic_requestor *r, ltdic_net *net, ltdic_event_row row,
                     const ltdic_indication *i)
{
    const bool is_data = i->type == LTDIC_DATA_TF;
    row.wire = i->pdu.size;
    if (i->status != LTDIC_OK) {
        row.kind = LTDIC_REQUESTED_FAULT;
        row.place = i->offset;
        put(r, net, row, first_of(i->pdu));
        return;
    }
    if (i->type == LTDIC_RELEASE_RQ) {
        ltdic_net_hold(net, 1); /* if its end follows, the peer may still read the answer */
    }
    row.kind = is_data ? LTDIC_REQUESTED_DATA : LTDIC_REQUESTED_PDU;
    row.id = i->piece.id;
    row.control = i->piece.control;
    put(r, net, row, is_data ? i->piece.data : i->pdu);
}

static void handle(ltdic_requestor *r, ltdic_net *net, const ltdic_indication *i)
{
    const ltdic_bytes none = {NULL, 0};
    ltdic_event_row row = {.served = (uintptr_t)ltdic_net_owner(net), .status = i->status};
    if (i->kind == LTDIC_CONNECTED) {
        connected(r, net, row);
    } else if (i->kind == LTDIC_RECEIVED) {
        received(r, net, row, i);
    } else if (i->kind == LTDIC_CLOSED) {
        row.kind = LTDIC_REQUESTED_CLOSED;
        put(r, net, row, none);
    } else if (i->kind == LTDIC_SENT && ltdic__net_has_room_again(net)) {
        row.kind = LTDIC_REQUESTED_ROOM;
        put(r, net, row, none);
    }
}

static void take_all(ltdic_requestor *r)
{
    ltdic_indication i;
    ltdic_net *net;
    while (!ltdic__batch_is_full(&r->batch) &&
           ltdic__queue_next(r->loop, &r->queue, &net, &i) == LTDIC_OK) {
        handle(r, net, &i);
        ltdic_net_done(net);
    }
}

/* Begins a batch, and waits until it has news, or until an endpoint has sent everything. */
static int collect(ltdic_requestor *r, ltdic_batch *out, const ltdic_net *sending, int milliseconds)
{
    const uint64_t end = ltdic__now() + (uint64_t)milliseconds;
    int status = LTDIC_OK;
    take_all(r);
    while (!r->news && status == LTDIC_OK && (sending == NULL || ltdic__net_waiting(sending) > 0)) {
        status = ltdic__queue_wait(r->loop, &r->queue, end);
        take_all(r);
    }
    *out = ltdic__batch_shown(&r->batch);
    return r->news ? LTDIC_OK : status;
}

static void begin_batch(ltdic_requestor *r)
{
    ltdic__batch_begin(&r->batch);
    r->news = false;
}

int ltdic_requestor_run(ltdic_requestor *requestor, ltdic_batch *batch, int milliseconds)
{
    begin_batch(requestor);
    return collect(requestor, batch, NULL, milliseconds);
}

int ltdic_requestor_send_data(ltdic_requestor *requestor, ltdic_net *net, const ltdic_pdv *data,
                              ltdic_batch *batch, int milliseconds)
{
    begin_batch(requestor);
    *batch = ltdic__batch_shown(&requestor->batch);
    const int status = data == NULL ? LTDIC_OK : ltdic__net_lend(net, data);
    if (status != LTDIC_OK) {
        return status;
    }
    const int waited = collect(requestor, batch, net, milliseconds);
    ltdic__push(net);
    return ltdic__net_waiting(net) == 0 ? LTDIC_OK : waited == LTDIC_OK ? LTDIC_NEED_MORE : waited;
}

uint8_t *ltdic_requestor_take_data(ltdic_requestor *requestor, size_t *room)
{
    return ltdic__batch_take_data(&requestor->batch, room);
}

void ltdic_requestor_use_data(ltdic_requestor *requestor, uint8_t *data, size_t room)
{
    ltdic__batch_use_data(&requestor->batch, data, room);
}
