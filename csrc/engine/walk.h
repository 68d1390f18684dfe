/* SPDX-License-Identifier: MIT */
/* Walks over the items of an A-ASSOCIATE-RQ or -AC in which ltdic_decode has found no fault.
 * Internal. */
#ifndef LTDIC_WALK_H
#define LTDIC_WALK_H

#include "codec/items.h"

#include <stdbool.h>
#include <string.h>

ltdic_bytes ltdic__title_at(ltdic_bytes rq, size_t offset); /* trimmed; NULs may be inside */
ltdic_bytes ltdic__items_of(ltdic_bytes pdu);
ltdic_bytes ltdic__sub_items_of(ltdic_bytes context);
/* Takes the next item: returns its value and sets its type. At least ITEM_HEADER bytes must be
 * left. */
ltdic_bytes ltdic__take_item(ltdic_bytes *rest, uint8_t *type);
/* Finds the next item of this type. Returns false if there is none. */
bool ltdic__next_item(ltdic_bytes *rest, uint8_t type, ltdic_bytes *value);
/* Sets the bit of a context ID, in 32 bytes. Returns false if it was set already. */
bool ltdic__set_bit(uint8_t *bits, uint8_t id);

static inline bool same_bytes(ltdic_bytes a, ltdic_bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

#endif
