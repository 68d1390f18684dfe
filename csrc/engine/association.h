/* SPDX-License-Identifier: MIT */
/* Functions of an association for the library alone, beside those of ltdic.h. Only association.c
 * knows its struct. Internal. */
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

/* Returns true from the A-ASSOCIATE-RQ until the association is rejected, released or aborted. */
static inline bool ltdic__is_in_progress(int state)
{
    return state >= STA_AWAITING_ANSWER && state <= STA_COLLISION_ACCEPTOR_ANSWER;
}

/* Returns true from the A-ASSOCIATE-AC until the association is released or aborted. */
static inline bool ltdic__is_associated(int state)
{
    return state >= STA_ESTABLISHED && state <= STA_COLLISION_ACCEPTOR_ANSWER;
}

/* An association in memory of its owner, which has this size and the alignment of malloc. `clear`
 * frees what the association has allocated. */
size_t ltdic__association_size(void);
void ltdic__association_init(ltdic_association *a);
void ltdic__association_clear(ltdic_association *a);

/* Starts anew. LTDIC_CLOSED of the last connection is still returned, if it has not been. */
void ltdic__association_reset(ltdic_association *a);
/* Sends the A-ABORT of a requestor in Sta4, whose connection is not up: LTDIC_CLOSED does not
 * follow.
 * @return as ltdic_association_send */
int ltdic__association_withdraw(ltdic_association *a, ltdic_bytes abort, uint64_t now);
/* Holds or resumes. While it is held, data and releases of the peer stay unread, so that the data
 * that waits is sent first. A connection that is lost is never held. */
void ltdic__association_hold(ltdic_association *a, bool held);

/* Returns the A-ASSOCIATE-RQ that was sent or received and is not answered yet, or NULL. It
 * belongs to the association. */
const request_view *ltdic__association_request(const ltdic_association *a);
bool ltdic__association_is_held(const ltdic_association *a);
bool ltdic__association_is_over(const ltdic_association *a); /* LTDIC_CLOSED is not returned yet */
bool ltdic__association_is_lost(const ltdic_association *a); /* ltdic_association_lost was called */
/* Returns true if each message that the user has begun is complete. `data_set_follows`: the last
 * command announced a data set. */
bool ltdic__association_is_between_messages(const ltdic_association *a, bool data_set_follows);
size_t ltdic__association_waiting(const ltdic_association *a);      /* bytes to be sent */
bool ltdic__association_has_room(const ltdic_association *a);       /* half of the queue is free */
uint64_t ltdic__association_bytes_sent(const ltdic_association *a); /* in total */
uint32_t ltdic__association_response_time(const ltdic_association *a); /* ms; 0: no limit */
/* Returns the bytes of data in each PDU to the peer, an even number; 0 if its maximum length is
 * too small for data. */
uint32_t ltdic__fragment_size(const ltdic_association *a);

#endif
