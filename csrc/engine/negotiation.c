/* SPDX-License-Identifier: MIT */
/* Computes the agreement of an A-ASSOCIATE-RQ and its A-ASSOCIATE-AC (PS3.8 7.1.1, D.1). Both PDUs
 * were decoded without a fault. Contexts are matched by ID, never by position. */
#include "negotiation.h"

#include "codec/text.h"
#include "walk.h"

/* Compares two UIDs. The first is trimmed by the caller, since it is compared with many and its
 * padding may have 64 KiB. */
static bool is_same_uid(ltdic_bytes trimmed, ltdic_bytes uid)
{
    uid = ltdic__trimmed(uid);
    return uid.size == trimmed.size && uid.size > 0 &&
           memcmp(uid.data, trimmed.data, uid.size) == 0;
}

/* Returns true if the transfer syntax of an accepted context was proposed for it. */
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

int ltdic__agree(agreement *out, const request_view *rq, ltdic_bytes ac, bool ours)
{
    ltdic_bytes rest = ltdic__items_of(ac), context;
    uint16_t indices[256] = {0}; /* index of the context with this ID, plus 1; 0: not proposed */
    uint8_t answered[32] = {0};
    size_t unanswered = rq->count;
    for (size_t i = 0; i < rq->count; i++) {
        indices[ltdic__context_at(rq, i).data[0]] = (uint16_t)(i + 1);
    }
    *out = (agreement){.requestor_max = rq->max_length, .acceptor_max = ltdic_max_length_of(ac)};
    while (ltdic__next_item(&rest, ANSWERED, &context)) {
        const uint8_t id = context.data[0], result = context.data[2];
        const bool counts = indices[id] != 0 && ltdic__set_bit(answered, id);
        if (ours && !counts) {
            return LTDIC_ERR_BAD_VALUE;
        }
        if (counts && result == 0 &&
            !was_proposed(context, ltdic__context_at(rq, indices[id] - 1U))) {
            return LTDIC_ERR_BAD_VALUE;
        }
        if (counts && result == 0) {
            ltdic__set_bit(out->accepted, id);
        }
        unanswered -= counts;
    }
    return ours && unanswered > 0 ? LTDIC_ERR_BAD_VALUE : LTDIC_OK;
}
