/* SPDX-License-Identifier: MIT */
/* The header of a PDU: type, length, limits (PS3.8 9.3.1); and how a fault is recorded. Internal.
 */
#ifndef LTDIC_FRAMING_H
#define LTDIC_FRAMING_H

#include "bytes.h"

enum {
    HEADER = 6,       /* bytes: type, reserved, length */
    FIXED_FIELDS = 68 /* bytes of an RQ or AC between the header and the first item */
};

/* Fills `room` with the fields that `given` has and the defaults of the others, and returns it. */
const ltdic_options *ltdic__completed(const ltdic_options *given, ltdic_options *room);
size_t ltdic__values_start(uint8_t type); /* offset of the first value of a PDU */

static inline int ltdic__fault_at(ltdic_fault *fault, int status, uint64_t offset, uint64_t need)
{
    fault->status = status;
    fault->offset = offset;
    fault->need = need;
    return status;
}

/* Returns the options in force. They are copied to `room` and completed there if the caller gave
 * NULL or was compiled with fewer fields. */
static inline const ltdic_options *ltdic__effective(const ltdic_options *given, ltdic_options *room)
{
    return given != NULL && given->size >= sizeof *given ? given : ltdic__completed(given, room);
}

/* Checks the length field of a PDU against its type and the limits. */
static inline int length_status(uint8_t type, uint32_t length, const ltdic_options *options)
{
    uint32_t least = 6, limit = options->max_pdata;
    if (type <= LTDIC_ASSOCIATE_AC) {
        least = FIXED_FIELDS;
        limit = options->max_associate;
    } else if (type != LTDIC_DATA_TF) {
        return length == LTDIC_FIXED_PDU_SIZE - HEADER ? LTDIC_OK : LTDIC_ERR_BAD_LENGTH;
    }
    return length < least                 ? LTDIC_ERR_BAD_LENGTH
           : limit != 0 && length > limit ? LTDIC_ERR_TOO_LARGE
                                          : LTDIC_OK;
}

/* Checks the first bytes of a PDU. Returns LTDIC_OK if the header is complete and legal. */
static inline int frame_header(ltdic_bytes in, const ltdic_options *options, ltdic_fault *fault)
{
    if (in.size > 0 && (in.data[0] < LTDIC_ASSOCIATE_RQ || in.data[0] > LTDIC_ABORT)) {
        return ltdic__fault_at(fault, LTDIC_ERR_BAD_PDU_TYPE, 0, 0);
    }
    if (in.size < HEADER) {
        return ltdic__fault_at(fault, LTDIC_NEED_MORE, in.size, HEADER);
    }
    const int status = length_status(in.data[0], load_u32(in.data + 2), options);
    return status == LTDIC_OK ? LTDIC_OK : ltdic__fault_at(fault, status, 2, 0);
}

/* Finds the PDU at the start of `in`. Returns LTDIC_NEED_MORE if it is not complete. */
static inline int frame(ltdic_bytes *pdu, ltdic_bytes in, const ltdic_options *options,
                        ltdic_fault *fault)
{
    const int status = frame_header(in, options, fault);
    if (status != LTDIC_OK) {
        return status;
    }
    const uint64_t total = (uint64_t)load_u32(in.data + 2) + HEADER;
    if (in.size < total) {
        return ltdic__fault_at(fault, LTDIC_NEED_MORE, in.size, total);
    }
    if (total > UINT32_MAX) { /* rows count in 32 bits */
        return ltdic__fault_at(fault, LTDIC_ERR_TOO_LARGE, 2, 0);
    }
    pdu->data = in.data;
    pdu->size = (size_t)total;
    return ltdic__fault_at(fault, LTDIC_OK, 0, 0);
}

#endif
