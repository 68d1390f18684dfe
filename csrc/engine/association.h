/* SPDX-License-Identifier: MIT */
/* The functions of an association that the library alone uses, beside those of ltdic.h. Its struct
 * is known to association.c alone. Internal. */
#ifndef LTDIC_ASSOCIATION_H
#define LTDIC_ASSOCIATION_H

#include "request.h"

#include <stdbool.h>

/* States of PS3.8 table 9-10. */
static inline bool ltdic__may_send_data(int state)
{
    return state == 6 || state == 8;
}

static inline bool ltdic__may_receive_data(int state)
{
    return state == 6 || state == 7;
}

/* From the A-ASSOCIATE-RQ on until it is rejected, released or aborted. */
static inline bool ltdic__is_associated(int state)
{
    return state >= 3 && state <= 12;
}

/* An association in memory of its owner, of this size and as aligned as malloc's; clear frees what
 * it has. */
size_t ltdic__association_size(void);
void ltdic__association_init(ltdic_association *a);
void ltdic__association_clear(ltdic_association *a);

/* Begin anew. The end of the last connection is still told, if it has not been. */
void ltdic__association_reset(ltdic_association *a);
/* The A-ABORT of a requestor whose connection is not up (Sta4): it has no end that could be told.
 * @return as ltdic_association_send */
int ltdic__association_withdraw(ltdic_association *a, ltdic_bytes abort, uint64_t now);
/* While held neither data nor a release of the peer is looked at: what waits to be sent goes first.
 * A peer that takes nothing more is never held. */
void ltdic__association_hold(ltdic_association *a, bool held);

/* The A-ASSOCIATE-RQ that has been sent or received and not been answered; NULL where there is
 * none. It belongs to the association. */
const request_view *ltdic__association_request(const ltdic_association *a);
bool ltdic__association_is_held(const ltdic_association *a);
bool ltdic__association_is_over(const ltdic_association *a); /* LTDIC_CLOSED is to be told */
bool ltdic__association_is_lost(const ltdic_association *a); /* ltdic_association_lost was called */
/* The user has sent whole messages. `data_set_follows`: the last command announced a data set. */
bool ltdic__association_is_between_messages(const ltdic_association *a, bool data_set_follows);
bool ltdic__association_has_room(const ltdic_association *a);          /* half of it, to send */
uint64_t ltdic__association_bytes_sent(const ltdic_association *a);    /* ever */
uint32_t ltdic__association_response_time(const ltdic_association *a); /* ms; 0: for ever */
/* Bytes of data in a PDU to the peer: an even number; 0 where its maximum leaves no room. */
uint32_t ltdic__fragment_size(const ltdic_association *a);

#endif
