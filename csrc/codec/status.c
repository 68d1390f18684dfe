/* SPDX-License-Identifier: MIT */
/* The table of statuses: name, text, and the A-ABORT reason that a peer gets (PS3.8 table 9-26). */
#include "items.h"

/* Reasons of PS3.8 table 9-26. */
enum {
    NOT_SPECIFIED = 0,
    UNRECOGNIZED_PDU = 1,
    UNEXPECTED_PDU = 2,
    UNEXPECTED_PARAMETER = 5,
    INVALID_VALUE = 6
};

/* clang-format off */
#define STATUS_MAP(ROW) \
    ROW(LTDIC_OK, "ok", NOT_SPECIFIED, "done") \
    ROW(LTDIC_NEED_MORE, "need_more", NOT_SPECIFIED, "more is needed") \
    ROW(LTDIC_ERR_BAD_PDU_TYPE, "bad_pdu_type", UNRECOGNIZED_PDU, "this is no DICOM PDU type") \
    ROW(LTDIC_ERR_BAD_LENGTH, "bad_length", INVALID_VALUE, "a length field has a value its type cannot have") \
    ROW(LTDIC_ERR_ITEM_OVERRUN, "item_overrun", INVALID_VALUE, "a field runs past what contains it") \
    ROW(LTDIC_ERR_BAD_VALUE, "bad_value", INVALID_VALUE, "a value is not legal") \
    ROW(LTDIC_ERR_MISSING_ITEM, "missing_item", INVALID_VALUE, "a required item is absent") \
    ROW(LTDIC_ERR_DUPLICATE_ITEM, "duplicate_item", INVALID_VALUE, "a second item where one is allowed") \
    ROW(LTDIC_ERR_BAD_ORDER, "bad_order", INVALID_VALUE, "an item is out of order") \
    ROW(LTDIC_ERR_TRAILING_BYTES, "trailing_bytes", INVALID_VALUE, "bytes are left after the last field") \
    ROW(LTDIC_ERR_UNEXPECTED_ITEM, "bad_value", UNEXPECTED_PARAMETER, "an item that does not belong here") \
    ROW(LTDIC_ERR_TOO_LARGE, "too_large", INVALID_VALUE, "larger than the limit set for it") \
    ROW(LTDIC_ERR_ROOM, "room", NOT_SPECIFIED, "the memory given is too small") \
    ROW(LTDIC_ERR_WRONG_STATE, "wrong_state", NOT_SPECIFIED, "not possible in this state") \
    ROW(LTDIC_ERR_UNEXPECTED_PDU, "unexpected_pdu", UNEXPECTED_PDU, "the peer sent a PDU out of turn") \
    ROW(LTDIC_ERR_UNEXPECTED_PDV, "unexpected_pdv", UNEXPECTED_PARAMETER, "the peer sent data out of turn, or of a context that was not accepted") \
    ROW(LTDIC_ERR_ADDRESS, "address", NOT_SPECIFIED, "the address cannot be resolved or used") \
    ROW(LTDIC_ERR_CONNECT, "connect", NOT_SPECIFIED, "the peer cannot be reached or refused the connection") \
    ROW(LTDIC_ERR_CLOSED, "closed", NOT_SPECIFIED, "the connection was lost") \
    ROW(LTDIC_ERR_TIMEOUT, "timeout", NOT_SPECIFIED, "the time is up") \
    ROW(LTDIC_ERR_ABORTED, "aborted", NOT_SPECIFIED, "the peer aborted the association") \
    ROW(LTDIC_ERR_INTERRUPTED, "interrupted", NOT_SPECIFIED, "a signal ended the wait") \
    ROW(LTDIC_ERR_SYSTEM, "system", NOT_SPECIFIED, "the operating system refused") \
    ROW(LTDIC_ERR_CONGESTION, "congestion", NOT_SPECIFIED, "too many bytes of unfinished requests waited") \
    ROW(LTDIC_ERR_MEMORY, "memory", NOT_SPECIFIED, "out of memory")
/* clang-format on */

/* No default in the switches: a status without a row does not compile. */
#define STATUS_SWITCH(status, ROW, otherwise) \
    switch ((ltdic_status)(status)) { \
        STATUS_MAP(ROW) \
    } \
    return otherwise

#define NAME_ROW(code, name, reason, text) \
    case code: \
        return name;
#define TEXT_ROW(code, name, reason, text) \
    case code: \
        return text;
#define REASON_ROW(code, name, reason, text) \
    case code: \
        return reason;

const char *ltdic_status_name(int status)
{
    STATUS_SWITCH(status, NAME_ROW, "unknown");
}

const char *ltdic_status_text(int status)
{
    STATUS_SWITCH(status, TEXT_ROW, "unknown status");
}

uint8_t ltdic_abort_reason(int status)
{
    STATUS_SWITCH(status, REASON_ROW, NOT_SPECIFIED);
}

const char *ltdic_version(void)
{
    return LTDIC_VERSION;
}

const char *ltdic_class_uid(void)
{
    return IMPLEMENTATION_CLASS_UID;
}
