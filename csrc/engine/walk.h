/* SPDX-License-Identifier: MIT */
/* Walks over the items of an A-ASSOCIATE-RQ or -AC in which ltdic_decode has found no fault.
 * Internal. */
#ifndef LTDIC_WALK_H
#define LTDIC_WALK_H

#include "codec/items.h"

#include <stdbool.h>

ltdic_bytes ltdic__title_at(ltdic_bytes rq, size_t offset); /* trimmed; NULs may be inside */
ltdic_bytes ltdic__items_of(ltdic_bytes pdu);
ltdic_bytes ltdic__sub_items_of(ltdic_bytes context);
/* The value and type of the next item, where there is one: at least ITEM_HEADER bytes are left. */
ltdic_bytes ltdic__take_item(ltdic_bytes *rest, uint8_t *type);
/* The value of the next item of this type; false after the last one. */
bool ltdic__next_item(ltdic_bytes *rest, uint8_t type, ltdic_bytes *value);
/* Set the bit of a context ID, of 256; false where it was set before. */
bool ltdic__set_bit(uint8_t *bits, uint8_t id);

#endif
