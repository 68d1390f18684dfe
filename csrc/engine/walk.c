/* SPDX-License-Identifier: MIT */
/* Walks over the items of an A-ASSOCIATE-RQ or -AC (PS3.8 9.3.2, 9.3.3). */
#include "walk.h"

#include "codec/text.h"

/* Removes the padding of a title: spaces at both ends, and NULs after it. A NUL before other bytes
 * is not padding, so that a known title with bytes added after a NUL is another title. */
ltdic_bytes ltdic__title_at(ltdic_bytes rq, size_t offset)
{
    const ltdic_bytes field = {rq.data + offset, TITLE_SIZE};
    ltdic_bytes title = ltdic__without_spaces(field);
    while (title.size > 0 &&
           (title.data[title.size - 1] == 0 || title.data[title.size - 1] == ' ')) {
        title.size--;
    }
    return title;
}

ltdic_bytes ltdic__items_of(ltdic_bytes pdu)
{
    return (ltdic_bytes){pdu.data + ITEMS_START, pdu.size - ITEMS_START};
}

ltdic_bytes ltdic__sub_items_of(ltdic_bytes context)
{
    return (ltdic_bytes){context.data + 4, context.size - 4};
}

ltdic_bytes ltdic__take_item(ltdic_bytes *rest, uint8_t *type)
{
    const uint8_t *item = rest->data;
    const size_t length = load_u16(item + 2);
    *type = item[0];
    rest->data += ITEM_HEADER + length;
    rest->size -= ITEM_HEADER + length;
    return (ltdic_bytes){item + ITEM_HEADER, length};
}

bool ltdic__next_item(ltdic_bytes *rest, uint8_t type, ltdic_bytes *value)
{
    while (rest->size >= ITEM_HEADER) {
        uint8_t found;
        *value = ltdic__take_item(rest, &found);
        if (found == type) {
            return true;
        }
    }
    return false;
}

bool ltdic__set_bit(uint8_t *bits, uint8_t id)
{
    const uint8_t bit = (uint8_t)(1U << id % 8);
    const bool was_set = (bits[id / 8] & bit) != 0;
    bits[id / 8] |= bit;
    return !was_set;
}

uint32_t ltdic_max_length_of(ltdic_bytes pdu)
{
    ltdic_bytes rest = ltdic__items_of(pdu), information, value;
    while (ltdic__next_item(&rest, USER_INFORMATION, &information)) {
        if (ltdic__next_item(&information, MAX_LENGTH, &value)) {
            return load_u32(value.data);
        }
    }
    return 0;
}
