/* SPDX-License-Identifier: MIT */
/* The codec and the admission of ltdic, by its C header. */
#include "codec.h"

#include <stdlib.h>
#include <string.h>

static const ltdic_options strictly = {
    .size = sizeof strictly, .max_associate = LTDIC_MAX_ASSOCIATE, .strict = 1};

size_t contender_decode(ltdic_items *rows, const uint8_t *data, size_t size)
{
    ltdic_fault fault;
    if (ltdic_decode(rows, (ltdic_bytes){data, size}, &strictly, &fault) != LTDIC_OK) {
        return 0;
    }
    return rows->items->length + 6;
}

size_t contender_rejects(uint8_t *out, const uint8_t *data, size_t size)
{
    ltdic_fault fault;
    ltdic_buffer into = {out, size, 0};
    ltdic_decode_rejects(&into, (ltdic_bytes){data, size}, &fault);
    return into.size / 3;
}

size_t contender_encode(uint8_t *out, size_t room, const ltdic_items *rows, const uint8_t *data,
                        size_t size)
{
    ltdic_fault fault;
    ltdic_buffer into = {out, room, 0};
    ltdic_encode(&into, rows, (ltdic_bytes){data, size}, &fault);
    return into.size;
}

/* An admission with one called title, made once and never freed. */
static ltdic_admission *policy(void)
{
    static ltdic_admission *made;
    if (made == NULL) {
        made = ltdic_admission_new();
        if (made == NULL || ltdic_admission_add_called(made, "NOBODY") != LTDIC_OK ||
            ltdic_admission_add_context(made, "1.2.840.10008.5.1.4.1.1.7") != LTDIC_OK ||
            ltdic_admission_add_transfer(made, "1.2.840.10008.1.2") != LTDIC_OK) {
            abort();
        }
    }
    return made;
}

size_t contender_refuse(uint8_t *out, const uint8_t *data, size_t size)
{
    uint8_t room[LTDIC_ACCEPT_ROOM];
    ltdic_buffer accept = {room, sizeof room, 0};
    ltdic_answer answer;
    const ltdic_bytes rq = {data, size};
    if (ltdic_admission_judge(policy(), &answer, &accept, rq, (ltdic_bytes){NULL, 0}) != LTDIC_OK) {
        return 0;
    }
    ltdic_admission_leave(policy(), &answer);
    const ltdic_reject refusal = answer.refusal;
    const uint8_t codes[3] = {refusal.result, refusal.source, refusal.reason};
    memcpy(out, codes, sizeof codes);
    return refusal.result != 0 ? sizeof codes : 0;
}
