/* SPDX-License-Identifier: MIT */
/* Handles of HDICOMNET and HDICOMPDU objects. Internal. */
#ifndef LTDIC_HANDLES_H
#define LTDIC_HANDLES_H

#include "ltdic.h"

/* A handle is a serial number and, in its lowest bits, a place in a table: the handle of a freed
 * object is not found. With pointers of 32 bits the serial number starts again after 262,143
 * handles. All kinds of handles share one count, so that a handle of one kind is never equal to one
 * of another. */
enum { PLACE_BITS = sizeof(uintptr_t) >= 8 ? 24 : 14 };
uintptr_t ltdic__new_handle(size_t place); /* place: not 0 */

/* An associate object; users have only its handle. */
typedef struct associate associate;

/* Handles of associate objects, on any thread. */
HDICOMPDU ltdic__handle_for(associate *object); /* NULL: no memory or no place */
associate *ltdic__associate_of(HDICOMPDU hPDU); /* NULL: unknown */
void ltdic__forget_handle(HDICOMPDU hPDU);

#endif
