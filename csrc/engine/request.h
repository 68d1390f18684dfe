/* SPDX-License-Identifier: MIT */
/* An A-ASSOCIATE-RQ in which ltdic_decode has found no fault, and where its parts are
 * (PS3.8 9.3.2). One walk over its items finds them for the admission, the negotiation and the
 * report. Internal. */
#ifndef LTDIC_REQUEST_H
#define LTDIC_REQUEST_H

#include "ltdic.h"

typedef struct request_view {
    ltdic_bytes pdu;                 /* all the others point into it */
    ltdic_bytes called, calling;     /* titles, trimmed; NULs may be inside */
    ltdic_bytes application_context; /* trimmed; empty: there is none */
    ltdic_bytes identity;            /* value of item 58 (PS3.7 D.3.3.7.1); empty: there is none */
    uint32_t max_length;             /* of P-DATA-TF to the requestor (PS3.8 D.1); 0: any */
    size_t count;       /* of contexts: of several with one ID the first alone counts */
    uint32_t *contexts; /* offset of each one's value */
} request_view;

enum { MOST_CONTEXTS = 256 };

/* Contexts of an RQ, also those with the same ID; at most MOST_CONTEXTS. */
size_t ltdic__count_contexts(ltdic_bytes rq);
/* Find the parts. @param contexts  the caller's memory for so many */
void ltdic__view_request(request_view *r, ltdic_bytes rq, uint32_t *contexts);
/* The value of a context that was proposed. */
ltdic_bytes ltdic__context_at(const request_view *r, size_t index);

#endif
