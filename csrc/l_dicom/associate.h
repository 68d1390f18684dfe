/* SPDX-License-Identifier: MIT */
/* Associate objects (HDICOMPDU) for l_dicom.c. Internal. */
#ifndef LTDIC_ASSOCIATE_H
#define LTDIC_ASSOCIATE_H

#include "handles.h"

#include <stdbool.h>

/* Associate objects are counted: a new one counts 1,
 * ltdic__associate_free takes 1 away. These are the library's: L_DicomFreeAssociate does nothing
 * to them. NULL and false mean out of memory. */
associate *ltdic__associate_from_pdu(ltdic_bytes pdu);
associate *ltdic__associate_copy(const associate *from);
associate *ltdic__associate_keep(associate *a);
void ltdic__associate_free(associate *a);              /* NULL is nothing */
HDICOMPDU ltdic__associate_handle(const associate *a); /* of NULL: NULL */
bool ltdic__associate_is_request(const associate *a);
/* Make `accept` answer each context of the request. */
bool ltdic__associate_answer(const associate *request, associate *accept);
/* Make `accept` what was agreed: with the abstract syntaxes, and without what was not asked. */
bool ltdic__associate_agree(associate *request, associate *accept);
/* The PDU, to be freed, or NULL data when out of memory; not encodable: `wrong`. */
ltdic_buffer ltdic__associate_encode(const associate *a, bool *wrong);

#endif
