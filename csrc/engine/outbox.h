/* SPDX-License-Identifier: MIT */
/* The bytes that wait to be sent on one association, and the PDUs for which LTDIC_SENT has not been
 * reported yet.
 *
 * PDUs are copied into a queue of chunks. Data is lent: it is sent from its sender's memory, and
 * only the part that the transport does not take at once is copied (ltdic__outbox_keep). A mark
 * stands for consecutive PDUs of one size: it holds where they are in the stream of all bytes, so
 * that LTDIC_SENT can be reported for each. Internal. */
#ifndef LTDIC_OUTBOX_H
#define LTDIC_OUTBOX_H

#include "codec/buffer.h"
#include "codec/items.h"
#include "ltdic.h"

enum { DATA_HEADER = 12 }; /* bytes of a P-DATA-TF before the data of its only PDV */

/* A PDU, or the rest of one, in memory of its own. */
typedef struct chunk {
    struct chunk *next;
    size_t start, end; /* the part of data that has not been sent */
    uint8_t data[];
} chunk;

/* The last byte of the data before, kept back because a fragment is even (PS3.8 E.1). */
typedef struct odd_byte {
    uint8_t value;
    uint8_t count; /* 1, or 0 if there is none */
} odd_byte;

/* Data in its sender's memory, to be sent as P-DATA-TF. */
typedef struct loan {
    odd_byte before; /* sent before `data`: a copy */
    ltdic_bytes data;
    uint64_t size, done; /* bytes of its PDUs: all, and those sent or kept */
    uint32_t fragment;   /* bytes of data in each PDU but the last */
    uint8_t id, control;
} loan;

typedef struct outbox {
    loan lent;
    buffer marks;
    chunk *queue, *queue_last;
    size_t queued;            /* bytes in the queue */
    uint64_t submitted, sent; /* bytes in total */
    bool lost;                /* nothing more can be sent */
} outbox;

void ltdic__outbox_clear(outbox *o);
/* Discards all that waits. LTDIC_SENT of those PDUs has the status LTDIC_ERR_CLOSED. */
void ltdic__outbox_drop(outbox *o);
/* Does the same, and for all that is submitted later. */
void ltdic__outbox_lose(outbox *o);

size_t ltdic__outbox_size(const outbox *o);  /* bytes that wait */
bool ltdic__outbox_is_full(const outbox *o); /* no mark may be added */
bool ltdic__outbox_reserve_mark(outbox *o);  /* false: no memory */

/* Copies a PDU for ltdic__outbox_send, which takes ownership, and reserves its mark. Does
 * ltdic__outbox_keep first. Returns NULL if there is no memory. */
chunk *ltdic__outbox_copy(outbox *o, ltdic_bytes pdu);
void ltdic__outbox_send(outbox *o, chunk *copy);
void ltdic__outbox_discard(chunk *copy); /* frees a copy that is not sent */

/* Submits data as `pdus` PDUs. Before the call, ltdic__outbox_keep must have copied the loan
 * before, if any, and a mark must be reserved. The sender's memory is used until
 * ltdic__outbox_keep. */
void ltdic__outbox_lend(outbox *o, const loan *lent, uint64_t pdus);
/* Copies the part of the loan that has not been sent. Without memory it does ltdic__outbox_lose and
 * returns LTDIC_ERR_MEMORY. */
int ltdic__outbox_keep(outbox *o);

/* Fills `output` with the next bytes to send, in as many parts as it has room for. */
void ltdic__outbox_next(const outbox *o, ltdic_output *output);
/* Removes the first `size` of these bytes, which were sent. */
void ltdic__outbox_sent(outbox *o, size_t size);

/* Makes LTDIC_SENT for the next PDU that was sent or never will be, among those that begin before
 * `horizon` in the stream of all bytes. Returns false if there is none. */
bool ltdic__outbox_report(outbox *o, ltdic_indication *indication, uint64_t horizon);

size_t ltdic__output_size(const ltdic_output *output); /* bytes */

#endif
