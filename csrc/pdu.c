/* SPDX-License-Identifier: MIT */
/* What decoding and encoding PDUs have in common: header, limits, codes, text (PS3.8 9.3). */
#include "bytes.h"
#include "frame.h"
#include "internal.h"
#include "text.h"

enum { SPACES = 8 };

/* ---- codes ------------------------------------------------------------------------------- */

/* Reasons of PS3.8 table 9-21 that have a meaning, by source, as bits. */
static const uint16_t reasons_defined[4] = {0, 0x008E, 0x0006, 0x0006};

int ltdic_reject_is_defined(ltdic_reject reject)
{
    return (reject.result == 1 || reject.result == 2) && reject.source < 4 &&
           has_bit(reasons_defined[reject.source], reject.reason);
}

/* ---- header ------------------------------------------------------------------------------ */

const ltdic_options *ltdic__completed(const ltdic_options *given, ltdic_options *room)
{
    *room = (ltdic_options){.size = sizeof *room, .max_associate = LTDIC_MAX_ASSOCIATE};
    if (given != NULL) {
        memcpy(room, given, given->size);
    }
    return room;
}

size_t ltdic__values_start(uint8_t type)
{
    static const uint8_t starts[] = {0, 10, 10, 7, HEADER, 10, 10, 8};
    return starts[type];
}

int ltdic_frame(ltdic_bytes *pdu, ltdic_bytes in, const ltdic_options *options, ltdic_fault *fault)
{
    ltdic_options room;
    return frame(pdu, in, ltdic__effective(options, &room), fault);
}

/* ---- text -------------------------------------------------------------------------------- */

ltdic_bytes ltdic__without_spaces(ltdic_bytes text)
{
    while (text.size > 0 && text.data[0] == ' ') {
        text.data++;
        text.size--;
    }
    if (text.size > SPACES && memcmp(text.data + text.size - SPACES, "        ", SPACES) == 0) {
        text.size -= SPACES; /* most titles have so many */
    }
    while (text.size > 0 && text.data[text.size - 1] == ' ') {
        text.size--;
    }
    return text;
}

ltdic_bytes ltdic__until_nul(ltdic_bytes text)
{
    const uint8_t *nul = text.size == 0 ? NULL : memchr(text.data, 0, text.size);
    if (nul != NULL) {
        text.size = (size_t)(nul - text.data);
    }
    return text;
}

ltdic_bytes ltdic__trimmed(ltdic_bytes text)
{
    return ltdic__without_spaces(ltdic__until_nul(text));
}

/* PS3.5, VR AE, after trimming. */
bool ltdic__title_is_legal(ltdic_bytes title)
{
    return title.size > 0 && title.size <= TITLE_SIZE && short_is_printable(title, '\\');
}

bool ltdic__version_name_is_legal(ltdic_bytes name)
{
    return name_is_legal(name);
}

bool ltdic__uid_is_legal(ltdic_bytes uid)
{
    return uid_is_legal(uid);
}

bool ltdic__short_or_long_uid_is_legal(ltdic_bytes uid)
{
    return uid.size > 0 && uid.size <= UID_MAX && bits_are_legal(uid_bits_by_byte(uid), uid.size);
}

/* ---- PDUs without items ---------------------------------------------------------------------- */

int ltdic_next_pdv(ltdic_bytes *rest, ltdic_pdv *pdv)
{
    if (rest->size < 6) {
        return LTDIC_NEED_MORE;
    }
    const size_t length = load_u32(rest->data);
    pdv->id = rest->data[4];
    pdv->control = rest->data[5];
    pdv->data = (ltdic_bytes){rest->data + 6, length - 2};
    rest->data += 4 + length;
    rest->size -= 4 + length;
    return LTDIC_OK;
}

/* What is wrong with the bytes at `at`, where an RJ should be. */
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
