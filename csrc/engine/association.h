/* SPDX-License-Identifier: MIT */
/* The inside of an association, so that an endpoint can hold one. Internal. */
#ifndef LTDIC_ASSOCIATION_H
#define LTDIC_ASSOCIATION_H

#include "codec/buffer.h"
#include "codec/bytes.h"
#include "negotiation.h"

/* Where a direction is in its messages (PS3.8 E.1); after a command a data set may follow. */
enum { BETWEEN = 0, IN_COMMAND, AFTER_COMMAND, IN_DATA };

typedef struct message {
    uint8_t id;
    uint8_t place;
} message;

/* PDUs, or the rest of some, that wait to be sent: a chunk each time something has to wait, so that
 * no byte is copied twice. */
typedef struct chunk {
    struct chunk *next;
    size_t start, end;
    uint8_t data[];
} chunk;

/* A byte that was left over, since a fragment has an even number of bytes (PS3.8 E.1). */
typedef struct odd_byte {
    uint8_t value;
    uint8_t count; /* 0: there is none */
} odd_byte;

/* A stretch of data that its sender lends, as P-DATA-TF. */
typedef struct loan {
    odd_byte before; /* sent before `data`: a copy */
    ltdic_bytes data;
    uint64_t size, done; /* bytes of PDUs: all, and those taken */
    uint32_t fragment;   /* bytes of data in each PDU but the last */
    uint8_t id, control;
} loan;

struct ltdic_association {
    ltdic_ul ul;
    ltdic_stream stream;
    agreement agreed;
    uint32_t max_associate;  /* largest PDU length of an RQ or AC that is taken */
    uint32_t response, idle; /* ms; 0: for ever */
    uint64_t response_deadline, idle_deadline;
    message sending, receiving;
    odd_byte odd; /* of the command or data set being sent */
    loan lent;
    buffer proposal; /* the RQ, until it is answered; one that the provider refused, longer */
    buffer command;  /* of the message being received, where it comes in pieces */
    buffer marks;    /* a mark for each stretch of PDUs whose end has not been told */
    chunk *queue, *queue_last;
    size_t queued;            /* bytes in it */
    uint64_t submitted, sent; /* bytes, ever */
    uint64_t horizon;         /* submitted, when the last bytes of the peer came */
    size_t heard;             /* bytes of the peer that were left over the last time */
    int cause;                /* why the association will end, if that is known */
    uint64_t cause_offset;    /* of the field at fault in its PDU */
    int over_status;
    uint64_t over_offset;
    bool over;    /* LTDIC_CLOSED is to be told */
    bool lost;    /* the transport takes nothing more */
    bool broken;  /* what comes has no PDU boundaries any more */
    bool held;    /* neither data nor a release is looked at: what waits to be sent goes first */
    bool no_echo; /* the command being received is too long for one */
};

void ltdic__association_init(ltdic_association *a);
/* Begin anew, but tell first what is still to be told of the last time. */
void ltdic__association_reset(ltdic_association *a);
void ltdic__association_clear(ltdic_association *a);
bool ltdic__association_has_room(const ltdic_association *a); /* half of it, to send */
/* Bytes of data in a PDU to the peer: an even number; 0 where its maximum leaves no room. */
uint32_t ltdic__fragment_size(const ltdic_association *a);
size_t ltdic__output_size(const ltdic_output *output); /* bytes */

#endif
