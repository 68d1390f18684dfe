/* SPDX-License-Identifier: MIT */
/* Functions of endpoints that service/ and l_dicom/ use beside those of ltdic.h. Internal. */
#ifndef LTDIC_ENDPOINT_H
#define LTDIC_ENDPOINT_H

#include "loop.h"

#include <stdbool.h>

/* An endpoint like ltdic_net_new, whose indications ltdic__queue_next takes. */
ltdic_net *ltdic__net_new(ltdic_loop *loop, queue *q, void *owner);
/* Close like ltdic_net_close; LTDIC_CLOSED has this status. */
void ltdic__net_end(ltdic_net *net, int status);
/* Others listen at the same socket. */
bool ltdic__net_is_shared(const ltdic_net *listener);
/* Bytes that the peer's system has taken, as far as that is known. */
uint64_t ltdic__net_bytes_delivered(const ltdic_net *net);
/* The association of an endpoint, for engine/association.h. It belongs to the endpoint. */
const ltdic_association *ltdic__net_association(const ltdic_net *net);

#endif
