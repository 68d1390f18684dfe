/* SPDX-License-Identifier: MIT */
/* Encodes and decodes the command sets of C-ECHO (PS3.7 9.3.5): elements of group 0000 in Implicit
 * VR Little Endian. */
#include "codec/bytes.h"
#include "codec/text.h"

enum { ELEMENT_HEADER = 8, NO_DATA_SET = 0x0101 };

/* Element numbers (PS3.7 E.1). */
enum {
    GROUP_LENGTH = 0x0000,
    SOP_CLASS = 0x0002,
    COMMAND_FIELD = 0x0100,
    MESSAGE_ID = 0x0110,
    MESSAGE_ID_ANSWERED = 0x0120,
    DATA_SET_TYPE = 0x0800,
    STATUS = 0x0900
};

static uint16_t load_le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t load_le32(const uint8_t *p)
{
    return load_le16(p) | (uint32_t)load_le16(p + 2) << 16;
}

static void put_le16(writer *w, uint32_t value)
{
    writer_u8(w, (uint8_t)value);
    writer_u8(w, (uint8_t)(value >> 8));
}

static void put_header(writer *w, uint16_t element, uint32_t length)
{
    put_le16(w, 0);
    put_le16(w, element);
    put_le16(w, length);
    put_le16(w, 0);
}

static void put_number(writer *w, uint16_t element, uint16_t value)
{
    put_header(w, element, 2);
    put_le16(w, value);
}

int ltdic_encode_echo(ltdic_buffer *out, const ltdic_echo *echo)
{
    const ltdic_bytes uid = {(const uint8_t *)echo->sop_class, strlen(echo->sop_class)};
    const uint32_t padded = (uint32_t)(uid.size + uid.size % 2);
    const bool request = echo->field == LTDIC_C_ECHO_RQ;
    if (!ltdic__uid_is_legal(uid) || (!request && echo->field != LTDIC_C_ECHO_RSP)) {
        return LTDIC_ERR_BAD_VALUE;
    }
    writer w = {out->data, out->room, 0};
    put_header(&w, GROUP_LENGTH, 4);
    put_le16(&w, ELEMENT_HEADER + padded + 3 * (ELEMENT_HEADER + 2) +
                     (request ? 0 : ELEMENT_HEADER + 2));
    put_le16(&w, 0);
    put_header(&w, SOP_CLASS, padded);
    writer_bytes(&w, uid.data, uid.size);
    writer_fill(&w, 0, padded - uid.size);
    put_number(&w, COMMAND_FIELD, echo->field);
    put_number(&w, request ? MESSAGE_ID : MESSAGE_ID_ANSWERED, echo->message);
    put_number(&w, DATA_SET_TYPE, NO_DATA_SET);
    if (!request) {
        put_number(&w, STATUS, echo->status);
    }
    out->size = w.pos;
    return w.pos <= w.room ? LTDIC_OK : LTDIC_ERR_ROOM;
}

/* Elements that a command set has. */
enum {
    SAW_CLASS = 1,
    SAW_FIELD = 2,
    SAW_MESSAGE = 4,
    SAW_ANSWERED = 8,
    SAW_STATUS = 16,
    SAW_NO_DATA = 32
};

static unsigned read_number(uint16_t *out, ltdic_bytes value, unsigned saw)
{
    if (value.size != 2) {
        return 0;
    }
    *out = load_le16(value.data);
    return saw;
}

static unsigned read_class(ltdic_echo *echo, ltdic_bytes value)
{
    const ltdic_bytes uid = ltdic__trimmed(value);
    if (uid.size == 0 || uid.size >= sizeof echo->sop_class) {
        return 0;
    }
    memcpy(echo->sop_class, uid.data, uid.size);
    echo->sop_class[uid.size] = '\0';
    return SAW_CLASS;
}

static unsigned read_element(ltdic_echo *echo, uint16_t element, ltdic_bytes value)
{
    switch (element) {
    case SOP_CLASS:
        return read_class(echo, value);
    case COMMAND_FIELD:
        return read_number(&echo->field, value, SAW_FIELD);
    case MESSAGE_ID:
        return read_number(&echo->message, value, SAW_MESSAGE);
    case MESSAGE_ID_ANSWERED:
        return read_number(&echo->message, value, SAW_ANSWERED);
    case STATUS:
        return read_number(&echo->status, value, SAW_STATUS);
    case DATA_SET_TYPE:
        return value.size == 2 && load_le16(value.data) == NO_DATA_SET ? SAW_NO_DATA : 0;
    default:
        return 0;
    }
}

int ltdic_decode_echo(ltdic_echo *echo, ltdic_bytes command)
{
    ltdic_echo found = {0};
    unsigned saw = 0;
    while (command.size >= ELEMENT_HEADER) {
        const uint8_t *p = command.data;
        const uint32_t length = load_le32(p + 4);
        if (load_le16(p) != 0 || length > command.size - ELEMENT_HEADER) {
            return LTDIC_ERR_BAD_VALUE;
        }
        saw |= read_element(&found, load_le16(p + 2), (ltdic_bytes){p + ELEMENT_HEADER, length});
        command.data += ELEMENT_HEADER + length;
        command.size -= ELEMENT_HEADER + length;
    }
    const bool request = found.field == LTDIC_C_ECHO_RQ;
    /* Only a request must have the SOP class (PS3.7 table 9.1-5). */
    const unsigned needed =
        SAW_FIELD | SAW_NO_DATA | (request ? SAW_CLASS | SAW_MESSAGE : SAW_ANSWERED | SAW_STATUS);
    if (command.size > 0 || (saw & needed) != needed ||
        (!request && found.field != LTDIC_C_ECHO_RSP)) {
        return LTDIC_ERR_BAD_VALUE;
    }
    *echo = found;
    return LTDIC_OK;
}

int ltdic_announces_data_set(ltdic_bytes command)
{
    uint32_t at = 0, least = 0; /* elements are in ascending order */
    while (command.size >= ELEMENT_HEADER && at < command.size - ELEMENT_HEADER + 1) {
        const uint8_t *p = command.data + at;
        const uint16_t element = load_le16(p + 2);
        const uint32_t length = load_le32(p + 4);
        const size_t left = command.size - at - ELEMENT_HEADER;
        if (load_le16(p) != 0 || element < least || length > left) {
            return -1;
        }
        if (element == DATA_SET_TYPE) {
            return length != 2 ? -1 : load_le16(p + ELEMENT_HEADER) != NO_DATA_SET;
        }
        least = element + 1U;
        at += ELEMENT_HEADER + length;
    }
    return -1;
}
