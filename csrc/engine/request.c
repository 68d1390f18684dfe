/* SPDX-License-Identifier: MIT */
/* Finds the parts of an A-ASSOCIATE-RQ. */
#include "request.h"

#include "codec/bytes.h"
#include "codec/text.h"
#include "walk.h"

/* Reads the sub-items that a request_view needs. The first one of each type is used. */
static void read_user_information(request_view *r, ltdic_bytes information)
{
    bool has_length = false;
    while (information.size >= ITEM_HEADER) {
        uint8_t type;
        const ltdic_bytes value = ltdic__take_item(&information, &type);
        if (type == MAX_LENGTH && !has_length) {
            has_length = true;
            r->max_length = load_u32(value.data);
        } else if (type == USER_IDENTITY && r->identity.size == 0) {
            r->identity = value;
        }
    }
}

void ltdic__view_titles(request_view *r, ltdic_bytes rq)
{
    *r = (request_view){.pdu = rq,
                        .called = ltdic__title_at(rq, CALLED_AT),
                        .calling = ltdic__title_at(rq, CALLING_AT)};
}

void ltdic__view_items(request_view *r, uint32_t *contexts)
{
    const ltdic_bytes rq = r->pdu;
    ltdic_bytes rest = ltdic__items_of(rq);
    uint8_t seen[32] = {0};
    r->contexts = contexts;
    while (rest.size >= ITEM_HEADER) {
        uint8_t type;
        const ltdic_bytes value = ltdic__take_item(&rest, &type);
        if (type == PROPOSED && ltdic__set_bit(seen, value.data[0])) {
            contexts[r->count++] = (uint32_t)(value.data - rq.data);
        } else if (type == USER_INFORMATION) {
            read_user_information(r, value);
        } else if (type == APPLICATION_CONTEXT_ITEM && r->application_context.size == 0) {
            r->application_context = ltdic__trimmed(value);
        }
    }
}

void ltdic__view_request(request_view *r, ltdic_bytes rq, uint32_t *contexts)
{
    ltdic__view_titles(r, rq);
    ltdic__view_items(r, contexts);
}

ltdic_bytes ltdic__context_at(const request_view *r, size_t index)
{
    const uint8_t *value = r->pdu.data + r->contexts[index];
    return (ltdic_bytes){value, load_u16(value - 2)};
}

size_t ltdic__count_contexts(ltdic_bytes rq)
{
    ltdic_bytes rest = ltdic__items_of(rq), context;
    size_t count = 0;
    while (count < MOST_CONTEXTS && ltdic__next_item(&rest, PROPOSED, &context)) {
        count++;
    }
    return count;
}
