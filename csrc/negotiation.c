/* SPDX-License-Identifier: MIT */
/* What an A-ASSOCIATE-RQ and its answer come to (PS3.8 7.1.1, D.1). It reads PDUs in which
 * ltdic_decode has found no fault, and goes by ID, never by place. */
#include "association.h"
#include "bytes.h"

/* Spaces around a title and NULs after it are padding. A NUL before anything else is not: whoever
 * puts bytes behind a known title has another one. */
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

bool ltdic__next_item(ltdic_bytes *rest, uint8_t type, ltdic_bytes *value)
{
    while (rest->size >= ITEM_HEADER) {
        const uint8_t *item = rest->data;
        const size_t length = load_u16(item + 2);
        rest->data += ITEM_HEADER + length;
        rest->size -= ITEM_HEADER + length;
        if (item[0] == type) {
            *value = (ltdic_bytes){item + ITEM_HEADER, length};
            return true;
        }
    }
    return false;
}

/* The first one is trimmed already: it is compared with many, and may be padded with 64 KiB. */
static bool is_same_uid(ltdic_bytes trimmed, ltdic_bytes uid)
{
    uid = ltdic__trimmed(uid);
    return uid.size == trimmed.size && uid.size > 0 &&
           memcmp(uid.data, trimmed.data, uid.size) == 0;
}

bool ltdic__has_application_context(ltdic_bytes rq)
{
    static const char dicom[] = APPLICATION_CONTEXT;
    ltdic_bytes rest = ltdic__items_of(rq), name;
    return ltdic__next_item(&rest, APPLICATION_CONTEXT_ITEM, &name) &&
           is_same_uid((ltdic_bytes){(const uint8_t *)dicom, sizeof dicom - 1}, name);
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

/* Is what an AC accepts with this context one of the transfer syntaxes of its proposal? */
static bool was_proposed(ltdic_bytes answer, ltdic_bytes proposal)
{
    ltdic_bytes chosen, offered, given = ltdic__sub_items_of(answer),
                                 rest = ltdic__sub_items_of(proposal);
    if (!ltdic__next_item(&given, TRANSFER_SYNTAX, &chosen)) {
        return false;
    }
    chosen = ltdic__trimmed(chosen);
    while (ltdic__next_item(&rest, TRANSFER_SYNTAX, &offered)) {
        if (is_same_uid(chosen, offered)) {
            return true;
        }
    }
    return false;
}

bool ltdic__take_bit(uint8_t *bits, uint8_t id)
{
    const uint8_t bit = (uint8_t)(1U << id % 8);
    const bool was_set = (bits[id / 8] & bit) != 0;
    bits[id / 8] |= bit;
    return !was_set;
}

int ltdic__agree(agreement *out, ltdic_bytes rq, ltdic_bytes ac, bool ours)
{
    ltdic_bytes proposals[256] = {{NULL, 0}}, rest, context;
    uint8_t answered[32] = {0};
    size_t unanswered = 0;
    *out = (agreement){.requestor_max = ltdic_max_length_of(rq),
                       .acceptor_max = ltdic_max_length_of(ac)};
    for (rest = ltdic__items_of(rq); ltdic__next_item(&rest, PROPOSED, &context);) {
        if (proposals[context.data[0]].data == NULL) { /* of the same ID, the first counts */
            proposals[context.data[0]] = context;
            unanswered++;
        }
    }
    for (rest = ltdic__items_of(ac); ltdic__next_item(&rest, ANSWERED, &context);) {
        const uint8_t id = context.data[0], result = context.data[2];
        const bool counts = proposals[id].data != NULL && ltdic__take_bit(answered, id);
        if (ours && !counts) {
            return LTDIC_ERR_BAD_VALUE;
        }
        if (counts && result == 0 && !was_proposed(context, proposals[id])) {
            return LTDIC_ERR_BAD_VALUE;
        }
        if (counts && result == 0) {
            ltdic__take_bit(out->accepted, id);
        }
        unanswered -= counts;
    }
    return ours && unanswered > 0 ? LTDIC_ERR_BAD_VALUE : LTDIC_OK;
}
