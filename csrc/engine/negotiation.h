/* SPDX-License-Identifier: MIT */
/* The outcome of an A-ASSOCIATE-RQ and its A-ASSOCIATE-AC (PS3.8 7.1.1, D.1). Internal. */
#ifndef LTDIC_NEGOTIATION_H
#define LTDIC_NEGOTIATION_H

#include "request.h"

#include <stdbool.h>

/* The part of a negotiation that data must keep to. */
typedef struct agreement {
    uint32_t requestor_max, acceptor_max; /* PDU length that each side takes; 0: any */
    uint8_t accepted[32];                 /* a bit for each context ID */
} agreement;

/* Compute the agreement of an RQ and its AC, which was decoded without a fault; `ours`: we are to
 * send the AC.
 * @return LTDIC_OK, LTDIC_ERR_BAD_VALUE (upper-layer faults of an AC) */
int ltdic__agree(agreement *out, const request_view *rq, ltdic_bytes ac, bool ours);

#endif
