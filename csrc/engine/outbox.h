/* SPDX-License-Identifier: MIT */
/* The bytes that wait to be sent on one association, and the PDUs for which LTDIC_SENT is still
 * due.
 *
 * PDUs are copied into a queue of chunks. Data is lent: its sender's memory is sent from directly,
 * and only the part that the transport does not take at once is copied (ltdic__outbox_keep). A mark
 * for each run of PDUs remembers where they end in the stream of all bytes ever sent, so that
 * LTDIC_SENT can be told of each. Internal. */
#ifndef LTDIC_OUTBOX_H
#define LTDIC_OUTBOX_H

#include "codec/buffer.h"
#include "codec/items.h"
#include "ltdic.h"

enum { DATA_HEADER = 12 }; /* bytes of a P-DATA-TF before the data of its only PDV */

/* A PDU, or the rest of one, in memory of its own. */
typedef struct chunk {
    struct chunk *next;
    size_t start, end; /* of what has not been sent, in data */
    uint8_t data[];
} chunk;

/* One byte that is held back, since a fragment has an even number of bytes (PS3.8 E.1). */
typedef struct odd_byte {
    uint8_t value;
    uint8_t count; /* 0: there is none */
} odd_byte;

/* Data in its sender's memory, to be sent as P-DATA-TF. */
typedef struct loan {
    odd_byte before; /* sent before `data`: a copy */
    ltdic_bytes data;
    uint64_t size, done; /* bytes of PDUs: all, and those sent */
    uint32_t fragment;   /* bytes of data in each PDU but the last */
    uint8_t id, control;
} loan;

typedef struct outbox {
    loan lent;
    buffer marks;
    chunk *queue, *queue_last;
    size_t queued;            /* bytes in the queue */
    uint64_t submitted, sent; /* bytes, ever */
    bool lost;                /* the transport takes nothing more */
} outbox;

void ltdic__outbox_clear(outbox *o);
/* Nothing more of it will be sent; LTDIC_SENT will say so. */
void ltdic__outbox_drop(outbox *o);
/* The same, and of what is submitted later, too. */
void ltdic__outbox_lose(outbox *o);

size_t ltdic__outbox_size(const outbox *o);  /* bytes that wait */
bool ltdic__outbox_is_full(const outbox *o); /* too many PDUs have not been told of */
bool ltdic__outbox_reserve_mark(outbox *o);  /* false: out of memory */

/* A copy of a PDU for ltdic__outbox_send, or NULL when out of memory. */
chunk *ltdic__outbox_copy(outbox *o, ltdic_bytes pdu);
void ltdic__outbox_send(outbox *o, chunk *copy);
void ltdic__outbox_discard(chunk *copy); /* one that is not sent */

/* Send data, once what was lent before has been kept and a mark is reserved; `pdus`: how many. The
 * memory is used until ltdic__outbox_keep. */
void ltdic__outbox_lend(outbox *o, const loan *lent, uint64_t pdus);
/* Copy what is lent and has not been sent. LTDIC_ERR_MEMORY: the outbox is lost. */
int ltdic__outbox_keep(outbox *o);

/* The next bytes to send, as many parts as an output has; and how many of them were sent. */
void ltdic__outbox_next(const outbox *o, ltdic_output *output);
void ltdic__outbox_sent(outbox *o, size_t size);

/* LTDIC_SENT for the next PDU that was sent, or never will be, of those that were submitted before
 * `horizon` in the stream of all bytes. False: there is none. */
bool ltdic__outbox_report(outbox *o, ltdic_indication *indication, uint64_t horizon);

size_t ltdic__output_size(const ltdic_output *output); /* bytes */

#endif
