/* SPDX-License-Identifier: MIT */
/* Functions of endpoints for service/ and l_dicom/, beside those of ltdic.h. Internal. */
#ifndef LTDIC_ENDPOINT_H
#define LTDIC_ENDPOINT_H

#include "loop.h"

#include <stdbool.h>

/* Makes an endpoint like ltdic_net_new. ltdic__queue_next of its queue returns its indications. */
ltdic_net *ltdic__net_new(ltdic_loop *loop, queue *q, void *owner);
/* Closes like ltdic_net_close, but LTDIC_CLOSED has this status. */
void ltdic__net_end(ltdic_net *net, int status);
/* Returns how often connections had to wait, as ltdic_server_lacks does. */
uint32_t ltdic__net_lacks(const ltdic_net *listener);
/* Returns true if a connection was accepted from the system, and not by the user. */
bool ltdic__net_has_pending(const ltdic_net *listener);
/* Returns true if other listeners use the same socket. */
bool ltdic__net_is_shared(const ltdic_net *listener);
/* Returns true if the transport of a connection is open. After LTDIC_CLOSED: if it was. */
bool ltdic__net_is_open(const ltdic_net *net);
/* Gives the state of the transport to the caller. The endpoint must be closed. Returns NULL if it
 * has none. */
void *ltdic__net_take_transport(ltdic_net *net);
/* Sends data like ltdic_net_send_data, but what is not sent at once stays in its sender's memory
 * until ltdic__push. */
int ltdic__net_lend(ltdic_net *net, const ltdic_pdv *data);
/* Sends as much as the transport takes now of what the user has submitted, and copies the rest. */
void ltdic__push(ltdic_net *net);
size_t ltdic__net_waiting(const ltdic_net *net); /* bytes that wait to be sent */
/* Returns true once when there is room after LTDIC_ERR_ROOM. */
bool ltdic__net_has_room_again(ltdic_net *net);
/* Returns the association of an endpoint, for functions of engine/association.h. It belongs to the
 * endpoint. */
const ltdic_association *ltdic__net_association(const ltdic_net *net);

#endif
