/* SPDX-License-Identifier: MIT */
/* Associate objects (HDICOMPDU) for l_dicom.c. Internal. */
#ifndef LTDIC_ASSOCIATE_H
#define LTDIC_ASSOCIATE_H

#include "handles.h"

#include <stdbool.h>

/* Associate objects count their references: a new one has 1, ltdic__associate_keep adds 1, and
 * ltdic__associate_free takes 1 away. Those made here belong to the library: L_DicomFreeAssociate
 * does nothing to them. NULL and false mean: no memory. ltdic__associate_from_pdu also returns NULL
 * if the PDU cannot be decoded. */
associate *ltdic__associate_from_pdu(ltdic_bytes pdu);
associate *ltdic__associate_copy(const associate *from);
associate *ltdic__associate_keep(associate *a);
void ltdic__associate_free(associate *a);              /* does nothing with NULL */
HDICOMPDU ltdic__associate_handle(const associate *a); /* returns NULL for NULL */
bool ltdic__associate_is_request(const associate *a);
/* Adds to `accept` each context of the request that it lacks, with user-rejection as its result. */
bool ltdic__associate_answer(const associate *request, associate *accept);
/* Makes `accept` the agreement: adds the abstract syntaxes of the request, and removes contexts
 * that the request does not have. */
bool ltdic__associate_agree(associate *request, associate *accept);
/* Encodes the PDU; the caller frees its data, which is NULL if there is no memory. `wrong`: the
 * object cannot be encoded. */
ltdic_buffer ltdic__associate_encode(const associate *a, bool *wrong);

#endif
