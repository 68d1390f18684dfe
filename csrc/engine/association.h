/* SPDX-License-Identifier: MIT */
/* The functions of an association that the library alone uses, beside those of ltdic.h. Its struct
 * is known to association.c alone. Internal. */
#ifndef LTDIC_ASSOCIATION_H
#define LTDIC_ASSOCIATION_H

#include "request.h"

#include <stdbool.h>

/* The states of an association (PS3.8 9.2.1), Sta1 to Sta13, named after what it waits for. In a
 * release collision both sides have sent an A-RELEASE-RQ (PS3.8 9.2.2). */
enum {
    STA_IDLE = 1,
    STA_AWAITING_RQ,                /* acceptor: an A-ASSOCIATE-RQ */
    STA_AWAITING_ANSWER,            /* acceptor: its user's answer to the A-ASSOCIATE-RQ */
    STA_AWAITING_TRANSPORT,         /* requestor: the transport connection */
    STA_AWAITING_AC,                /* requestor: an A-ASSOCIATE-AC or -RJ */
    STA_ESTABLISHED,                /* data, in both directions */
    STA_AWAITING_RELEASE_RP,        /* an A-RELEASE-RP */
    STA_AWAITING_RELEASE_ANSWER,    /* its user's answer to an A-RELEASE-RQ */
    STA_COLLISION_REQUESTOR_ANSWER, /* collision, requestor: its user's answer */
    STA_COLLISION_ACCEPTOR_RP,      /* collision, acceptor: an A-RELEASE-RP */
    STA_COLLISION_REQUESTOR_RP,     /* collision, requestor: an A-RELEASE-RP */
    STA_COLLISION_ACCEPTOR_ANSWER,  /* collision, acceptor: its user's answer */
    STA_AWAITING_CLOSE              /* the end of the transport connection */
};

static inline bool ltdic__may_send_data(int state)
{
    return state == STA_ESTABLISHED || state == STA_AWAITING_RELEASE_ANSWER;
}

static inline bool ltdic__may_receive_data(int state)
{
    return state == STA_ESTABLISHED || state == STA_AWAITING_RELEASE_RP;
}

/* Returns true while an RQ waits for an answer or an association exists: until it is rejected,
 * released or aborted. */
static inline bool ltdic__is_in_progress(int state)
{
    return state >= STA_AWAITING_ANSWER && state <= STA_COLLISION_ACCEPTOR_ANSWER;
}

/* Returns true from the A-ASSOCIATE-AC until the association is released or aborted. */
static inline bool ltdic__is_associated(int state)
{
    return state >= STA_ESTABLISHED && state <= STA_COLLISION_ACCEPTOR_ANSWER;
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
