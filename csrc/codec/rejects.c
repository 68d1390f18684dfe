/* SPDX-License-Identifier: MIT */
/* Rejections (PS3.8 9.3.4): the defined codes, many A-ASSOCIATE-RJ decoded in one call, and PDUs of
 * fixed size encoded. */
#include "framing.h"

/* Reasons that PS3.8 table 9-21 gives a meaning: for each source, a bit for each reason. */
static const uint16_t reasons_defined[4] = {0, 0x008E, 0x0006, 0x0006};

int ltdic_reject_is_defined(ltdic_reject reject)
{
    return (reject.result == 1 || reject.result == 2) && reject.source < 4 &&
           has_bit(reasons_defined[reject.source], reject.reason);
}

/* Records why the bytes at `at` are not an A-ASSOCIATE-RJ. */
static int no_reject(ltdic_bytes in, size_t at, ltdic_fault *fault)
{
    const ltdic_bytes rest = {in.data + at, in.size - at};
    ltdic_bytes pdu;
    const int status = ltdic_frame(&pdu, rest, NULL, fault);
    if (status == LTDIC_OK) {
        return ltdic__fault_at(fault, LTDIC_ERR_UNEXPECTED_PDU, at, 0);
    }
    return ltdic__fault_at(fault, status, fault->offset + at, fault->need + at);
}

int ltdic_decode_rejects(ltdic_buffer *out, ltdic_bytes in, ltdic_fault *fault)
{
    out->size = 0;
    for (size_t at = 0; at < in.size; at += LTDIC_FIXED_PDU_SIZE) {
        const uint8_t *pdu = in.data + at;
        if (in.size - at < LTDIC_FIXED_PDU_SIZE || pdu[0] != LTDIC_ASSOCIATE_RJ ||
            load_u32(pdu + 2) != LTDIC_FIXED_PDU_SIZE - HEADER) {
            return no_reject(in, at, fault);
        }
        if (out->room - out->size < 3) {
            return ltdic__fault_at(fault, LTDIC_ERR_ROOM, at, 0);
        }
        memcpy(out->data + out->size, pdu + 7, 3);
        out->size += 3;
    }
    return ltdic__fault_at(fault, LTDIC_OK, 0, 0);
}

void ltdic_encode_fixed(uint8_t *out, uint8_t type, ltdic_reject codes)
{
    const uint8_t pdu[LTDIC_FIXED_PDU_SIZE] = {
        type, 0, 0, 0, 0, 4, 0, codes.result, codes.source, codes.reason};
    memcpy(out, pdu, sizeof pdu);
}
