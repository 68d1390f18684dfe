/* SPDX-License-Identifier: MIT */
/* The agreement of an A-ASSOCIATE-RQ and its A-ASSOCIATE-AC (PS3.8 7.1.1, D.1). Internal. */
#ifndef LTDIC_NEGOTIATION_H
#define LTDIC_NEGOTIATION_H

#include "request.h"

#include <stdbool.h>

/* The results of the negotiation that restrict data. */
typedef struct agreement {
    uint32_t requestor_max, acceptor_max; /* largest PDU length that each accepts; 0: no limit */
    uint8_t accepted[32];                 /* one bit for each context ID */
} agreement;

/* Computes the agreement of an RQ and its AC, which was decoded without a fault. `ours`: the AC is
 * one that we send.
 * @return LTDIC_OK; LTDIC_ERR_BAD_VALUE: the AC does not fit the RQ */
int ltdic__agree(agreement *out, const request_view *rq, ltdic_bytes ac, bool ours);

#endif
