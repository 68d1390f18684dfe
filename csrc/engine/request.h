/* SPDX-License-Identifier: MIT */
/* A view of an A-ASSOCIATE-RQ in which ltdic_decode found no fault: the offsets of its parts
 * (PS3.8 9.3.2). One walk over the items finds them for the admission, the negotiation and the
 * report. Internal. */
#ifndef LTDIC_REQUEST_H
#define LTDIC_REQUEST_H

#include "ltdic.h"

typedef struct request_view {
    ltdic_bytes pdu;                 /* the other fields point into it */
    ltdic_bytes called, calling;     /* titles, trimmed; NULs may be inside */
    ltdic_bytes application_context; /* trimmed; empty if there is none */
    ltdic_bytes identity; /* value of item 58 (PS3.7 D.3.3.7.1); empty if there is none */
    uint32_t max_length;  /* limit of the requestor for P-DATA-TF (PS3.8 D.1); 0: none */
    size_t count;       /* number of contexts; if several have one ID, only the first is counted */
    uint32_t *contexts; /* offset of the value of each context */
} request_view;

enum { MOST_CONTEXTS = 256 };

/* Returns the number of contexts of an RQ, also those with the same ID; at most MOST_CONTEXTS. */
size_t ltdic__count_contexts(ltdic_bytes rq);
/* Finds the parts.
 * @param contexts memory of the caller for ltdic__count_contexts numbers; the view points to it */
void ltdic__view_request(request_view *r, ltdic_bytes rq, uint32_t *contexts);
/* The same in two steps: the titles, whose place is fixed, and then the items. */
void ltdic__view_titles(request_view *r, ltdic_bytes rq);
void ltdic__view_items(request_view *r, uint32_t *contexts);
/* Returns the value of a proposed context. */
ltdic_bytes ltdic__context_at(const request_view *r, size_t index);

#endif
