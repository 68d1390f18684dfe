/* SPDX-License-Identifier: MIT */
/* What decoding and encoding PDUs have in common: header, limits, codes, text (PS3.8 9.3). */
#include "bytes.h"
#include "internal.h"

enum { FIXED_FIELDS = 68 };

/* ---- codes ------------------------------------------------------------------------------- */

/* Reasons of PS3.8 table 9-21 by source, as bits: those with a meaning, and those listed at all. */
static const uint16_t reasons_defined[4] = {0, 0x008E, 0x0006, 0x0006};
static const uint16_t reasons_listed[4] = {0, 0x07FE, 0x0006, 0x00FF};

static bool has_bit(uint16_t set, uint8_t bit)
{
    return bit < 16 && (set >> bit & 1) != 0;
}

/* Strict decoding takes these, too. */
bool ltdic__reason_is_listed(uint8_t source, uint8_t reason)
{
    return source < 4 && has_bit(reasons_listed[source], reason);
}

int ltdic_reject_is_defined(ltdic_reject reject)
{
    return (reject.result == 1 || reject.result == 2) && reject.source < 4 &&
           has_bit(reasons_defined[reject.source], reject.reason);
}

/* ---- header ------------------------------------------------------------------------------ */

ltdic_options ltdic__effective(const ltdic_options *given)
{
    ltdic_options options = {.size = sizeof options, .max_associate = LTDIC_MAX_ASSOCIATE};
    if (given != NULL) {
        const size_t size = given->size < sizeof options ? given->size : sizeof options;
        memcpy(&options, given, size);
    }
    return options;
}

size_t ltdic__values_start(uint8_t type)
{
    static const uint8_t starts[] = {0, 10, 10, 7, HEADER, 10, 10, 8};
    return starts[type];
}

static int header_status(uint8_t type, uint32_t length, const ltdic_options *options)
{
    uint32_t limit = 0;
    switch (type) {
    case LTDIC_ASSOCIATE_RQ:
    case LTDIC_ASSOCIATE_AC:
        if (length < FIXED_FIELDS) {
            return LTDIC_ERR_BAD_LENGTH;
        }
        limit = options->max_associate;
        break;
    case LTDIC_DATA_TF:
        if (length < 6) {
            return LTDIC_ERR_BAD_LENGTH;
        }
        limit = options->max_pdata;
        break;
    default:
        if (length != 4) {
            return LTDIC_ERR_BAD_LENGTH;
        }
    }
    return limit != 0 && length > limit ? LTDIC_ERR_TOO_LARGE : LTDIC_OK;
}

int ltdic__fault_at(ltdic_fault *fault, int status, uint64_t offset, uint64_t need)
{
    fault->status = status;
    fault->offset = offset;
    fault->need = need;
    return status;
}

/* Can these bytes start a PDU? With LTDIC_OK `fault->need` is its whole size. */
int ltdic__header(ltdic_bytes in, const ltdic_options *options, ltdic_fault *fault)
{
    if (in.size > 0 && (in.data[0] < LTDIC_ASSOCIATE_RQ || in.data[0] > LTDIC_ABORT)) {
        return ltdic__fault_at(fault, LTDIC_ERR_BAD_PDU_TYPE, 0, 0);
    }
    if (in.size < HEADER) {
        return ltdic__fault_at(fault, LTDIC_NEED_MORE, in.size, HEADER);
    }
    const uint32_t length = load_u32(in.data + 2);
    const int status = header_status(in.data[0], length, options);
    if (status != LTDIC_OK) {
        return ltdic__fault_at(fault, status, 2, 0);
    }
    return ltdic__fault_at(fault, LTDIC_OK, 0, (uint64_t)length + HEADER);
}

int ltdic__frame(ltdic_bytes *pdu, ltdic_bytes in, const ltdic_options *options, ltdic_fault *fault)
{
    const int status = ltdic__header(in, options, fault);
    if (status != LTDIC_OK) {
        return status;
    }
    const uint64_t total = fault->need;
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

int ltdic_frame(ltdic_bytes *pdu, ltdic_bytes in, const ltdic_options *options, ltdic_fault *fault)
{
    const ltdic_options effect = ltdic__effective(options);
    return ltdic__frame(pdu, in, &effect, fault);
}

/* ---- text -------------------------------------------------------------------------------- */

static bool all_printable(ltdic_bytes text, bool backslash)
{
    for (size_t i = 0; i < text.size; i++) {
        const uint8_t byte = text.data[i];
        if (byte < 0x20 || byte > 0x7E || (byte == '\\' && !backslash)) {
            return false;
        }
    }
    return true;
}

ltdic_bytes ltdic__without_spaces(ltdic_bytes text)
{
    while (text.size > 0 && text.data[0] == ' ') {
        text.data++;
        text.size--;
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
    return title.size > 0 && title.size <= TITLE_SIZE && all_printable(title, false);
}

bool ltdic__version_name_is_legal(ltdic_bytes name)
{
    return name.size > 0 && name.size <= 16 && all_printable(name, true);
}

/* The characters and components of PS3.8 annex F; the length is another matter. */
bool ltdic__uid_is_spelled_right(ltdic_bytes uid)
{
    uint8_t before = '.';
    bool zero_alone = false; /* the component so far is a single 0 */
    for (size_t i = 0; i < uid.size; i++) {
        const uint8_t byte = uid.data[i];
        if (byte == '.' ? before == '.' : byte < '0' || byte > '9' || zero_alone) {
            return false;
        }
        zero_alone = byte == '0' && before == '.';
        before = byte;
    }
    return before != '.';
}

bool ltdic__uid_is_legal(ltdic_bytes uid)
{
    return uid.size > 0 && uid.size <= UID_MAX && ltdic__uid_is_spelled_right(uid);
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
