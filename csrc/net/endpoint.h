/* SPDX-License-Identifier: MIT */
/* What service/ and l_dicom/ may do with an endpoint beside the functions of ltdic.h. Internal. */
#ifndef LTDIC_ENDPOINT_H
#define LTDIC_ENDPOINT_H

#include "ltdic.h"

#include <stdbool.h>

/* As ltdic_net_close, and LTDIC_CLOSED says why. */
void ltdic__net_end(ltdic_net *net, int status);
/* As ltdic__association_hold: look at no data and no release of the peer. */
void ltdic__net_hold(ltdic_net *net, bool held);
/* Bytes that the peer's system has taken, as far as that is known. */
uint64_t ltdic__net_taken(const ltdic_net *net);
/* The association of an endpoint, for engine/association.h. It belongs to the endpoint. */
const ltdic_association *ltdic__net_association(const ltdic_net *net);

#endif
