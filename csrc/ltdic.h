/* SPDX-License-Identifier: MIT */
/** @file ltdic.h
 *  The DICOM Upper Layer (PS3.8) in C: codec, state machine, sockets, and the L_Dicom API.
 *
 *  Layers, each usable without those below it in this file:
 *
 *    bytes, status   types shared by all layers: byte views, status codes, faults
 *    PDUs            decode and encode (PS3.8 9.3, PS3.7 annex D): no malloc, no I/O, no clock
 *    stream          divides a byte stream into PDUs, and P-DATA into the pieces that arrive: no
 *                    malloc, no I/O, no clock
 *    upper layer     the state machine of PS3.8 table 9-10: no malloc, no I/O, no clock
 *    C-ECHO          its command sets (PS3.7 9.3.5): no malloc, no I/O, no clock
 *    association     all of the above for one connection, between its user and its transport: bytes
 *                    and time in, indications and bytes out; no I/O, no clock
 *    net             event loop and non-blocking sockets; drives any number of associations on one
 *                    thread
 *    admission       the rules by which requests are accepted (PS3.8 7.1), and the answers; no I/O
 *    server          an acceptor with an admission; reports events to its user in batches
 *    L_Dicom         callbacks and handles, in l_dicom.h, included at the end
 *
 *  Threads: there may be any number of objects; one thread at a time may use each. The library
 *  starts no thread. A loop and everything made from it are used by one thread at a time; other
 *  threads and signal handlers may call ltdic_loop_wake and ltdic_server_wake alone. Several
 *  threads may use one admission at once, since it has a lock.
 *
 *  Ownership: `ltdic_bytes` never owns memory. A function copies what it keeps, unless its comment
 *  says that the memory is lent. What it returns is valid as long as its comment says.
 *
 *  Passcodes of user identities: the library wipes each copy that it makes before it frees the
 *  memory. */
#ifndef LTDIC_H
#define LTDIC_H

#include <stddef.h>
#include <stdint.h>

#define LTDIC_VERSION "0.1.0"

/* The calling convention under its documented names. Between return type and name it makes a plain
 * function, as the documentation of every callback prints it. Both spellings mean the same. */
#if defined(_WIN32) && !defined(_WIN64)
#define pEXT_CALLBACK __stdcall
#define EXT_CALLBACK __stdcall
#else
#define pEXT_CALLBACK
#define EXT_CALLBACK
#endif

#if defined(LTDIC_STATIC)
#define LTDIC_API
#elif defined(__GNUC__)
#define LTDIC_API __attribute__((visibility("default")))
#else
#define LTDIC_API
#endif
#define L_LTDIC_API LTDIC_API

#ifdef __cplusplus
extern "C" {
#endif

/* [cdef] The Python package reads everything from here to [end] as its declarations. */

/* ---- bytes ------------------------------------------------------------------------------- */

/** A pointer and a size. It never owns the memory. `data` may be NULL if `size` is 0. */
typedef struct ltdic_bytes {
    const uint8_t *data;
    size_t size;
} ltdic_bytes;

/** Memory of the caller that a function writes into. */
typedef struct ltdic_buffer {
    uint8_t *data;
    size_t room; /**< bytes at `data` */
    size_t size; /**< bytes written; if the room is too small, bytes needed */
} ltdic_buffer;

/* ---- status ------------------------------------------------------------------------------ */

/** The result of a call; a negative one is an error. */
typedef enum ltdic_status {
    LTDIC_OK = 0,
    LTDIC_NEED_MORE = 1, /**< no error; more bytes or time are needed */

    LTDIC_ERR_BAD_PDU_TYPE = -1, /**< byte 0 is not 01 to 07 */
    LTDIC_ERR_BAD_LENGTH = -2,   /**< a length field has a value that the PDU type does not allow */
    LTDIC_ERR_ITEM_OVERRUN = -3, /**< an item, PDV or field is longer than what contains it */
    LTDIC_ERR_BAD_VALUE = -4, /**< strict: an illegal value; encoding: one that cannot be encoded */
    LTDIC_ERR_MISSING_ITEM = -5,    /**< strict: a required item is missing */
    LTDIC_ERR_DUPLICATE_ITEM = -6,  /**< strict: a second item of a type that is allowed once */
    LTDIC_ERR_BAD_ORDER = -7,       /**< strict: items are out of order */
    LTDIC_ERR_TRAILING_BYTES = -8,  /**< strict: bytes after the last field of an item */
    LTDIC_ERR_UNEXPECTED_ITEM = -9, /**< strict: an item of the other direction, such as item 21 in
                                       an RQ; a kind of BAD_VALUE */

    LTDIC_ERR_TOO_LARGE = -20, /**< the PDU length is above the limit of the caller */
    LTDIC_ERR_ROOM = -21,      /**< the caller's memory is too small */

    LTDIC_ERR_WRONG_STATE = -40,    /**< not possible in this state; nothing was changed */
    LTDIC_ERR_UNEXPECTED_PDU = -41, /**< the peer sent a valid PDU in the wrong state */
    LTDIC_ERR_UNEXPECTED_PDV = -42, /**< the peer sent a PDV of a context that was not accepted, or
                                       before the current message was complete */

    LTDIC_ERR_ADDRESS = -60,     /**< the host or port cannot be resolved or used */
    LTDIC_ERR_CONNECT = -61,     /**< the peer refused the connection or cannot be reached */
    LTDIC_ERR_CLOSED = -62,      /**< the peer or the network ended the connection */
    LTDIC_ERR_TIMEOUT = -63,     /**< ARTIM or another deadline has passed */
    LTDIC_ERR_ABORTED = -64,     /**< the peer sent A-ABORT */
    LTDIC_ERR_INTERRUPTED = -65, /**< a signal or a wake call ended the wait */
    LTDIC_ERR_SYSTEM = -66,      /**< the operating system refused; errno says why */
    LTDIC_ERR_CONGESTION = -67,  /**< incomplete requests took too many bytes */

    LTDIC_ERR_MEMORY = -80 /**< out of memory; nothing was changed */
} ltdic_status;

/** A status, and the offset at which it was found. */
typedef struct ltdic_fault {
    int status;
    uint64_t offset; /**< offset of the field at fault, from the first byte of the PDU */
    uint64_t need;   /**< LTDIC_NEED_MORE: call again when this many bytes of the PDU are there */
} ltdic_fault;

/** Returns the short name of a status, such as `bad_length`; `unknown` for other numbers. */
LTDIC_API const char *ltdic_status_name(int status);
/** Returns one English line about a status, without a full stop. */
LTDIC_API const char *ltdic_status_text(int status);
/** Returns the reason for an A-ABORT of source 2 after this fault (PS3.8 9.3.8, table 9-26). */
LTDIC_API uint8_t ltdic_abort_reason(int status);
/** Returns the version of the library, such as `1.2.3`. */
LTDIC_API const char *ltdic_version(void);
/** Returns the implementation class UID of the library (PS3.7 D.3.3.2). Its implementation version
 *  name is `LTDIC_` and the version. */
LTDIC_API const char *ltdic_class_uid(void);

/* ---- PDUs -------------------------------------------------------------------------------- */

/** PDU types (PS3.8 9.3.1). */
enum {
    LTDIC_ASSOCIATE_RQ = 1,
    LTDIC_ASSOCIATE_AC = 2,
    LTDIC_ASSOCIATE_RJ = 3,
    LTDIC_DATA_TF = 4,
    LTDIC_RELEASE_RQ = 5,
    LTDIC_RELEASE_RP = 6,
    LTDIC_ABORT = 7
};

#define LTDIC_MAX_ASSOCIATE 1048576 /* default of max_associate, bytes */
#define LTDIC_FIXED_PDU_SIZE 10     /* size of an RJ, RELEASE or ABORT, with its header */

/** Limits and modes of a decoder. NULL instead of a pointer to it means: max_associate is
 *  LTDIC_MAX_ASSOCIATE, the other fields are 0. A field beyond `size` has that value, too. */
typedef struct ltdic_options {
    size_t size;            /**< sizeof(ltdic_options) when the caller was compiled */
    uint32_t max_pdata;     /**< largest PDU length of a P-DATA-TF; 0: no limit */
    uint32_t max_associate; /**< largest PDU length of an RQ or AC; 0: no limit */
    uint8_t strict;         /**< 1: reject everything that PS3.8 forbids; 0: only what is unsafe */
    uint8_t exact; /**< 1: rows for every byte, so that ltdic_encode gives the same PDU again */
    uint8_t reserved[6]; /**< must be 0 */
} ltdic_options;

/** The kinds of rows of a decoded PDU. Each comment says which item it is, in brackets what
 *  `offset` and `length` cover, and then the other fields that are set.
 *
 *  Text is trimmed: titles without spaces, UIDs without a NUL pad. In exact mode text is the whole
 *  field: the caller has to cut it at the first NUL and to remove the spaces around it. */
typedef enum ltdic_kind {
    LTDIC_PDU = 1, /**< always the first row [the body]; type; RQ, AC: version; RJ: result, source,
                      reason; ABORT: source, reason */
    LTDIC_CALLED_AE = 2,           /**< RQ, AC [text] */
    LTDIC_CALLING_AE = 3,          /**< RQ, AC [text] */
    LTDIC_APPLICATION_CONTEXT = 4, /**< item 10 [UID] */
    LTDIC_CONTEXT = 5,             /**< item 20 or 21 [sub-items]; id; 21: result */
    LTDIC_ABSTRACT_SYNTAX = 6,     /**< item 30 of the last context [UID] */
    LTDIC_TRANSFER_SYNTAX = 7,     /**< item 40 of the last context [UID] */
    LTDIC_USER_INFORMATION = 8,    /**< item 50 [sub-items]; the later rows are in it */
    LTDIC_MAX_LENGTH = 9,          /**< item 51 [4 bytes, big endian] */
    LTDIC_CLASS_UID = 10,          /**< item 52 [UID] */
    LTDIC_ASYNC_OPERATIONS = 11,   /**< item 53 [invoked, performed: 2 bytes each, big endian] */
    LTDIC_ROLE = 12,               /**< item 54 [UID]; SCU role in id, SCP role in result */
    LTDIC_VERSION_NAME = 13,       /**< item 55 [text] */
    LTDIC_EXTENDED = 14,           /**< item 56 [UID] */
    LTDIC_EXTENDED_INFO = 15,      /**< in the last item 56 [bytes] */
    LTDIC_COMMON_EXTENDED = 16,    /**< item 57 [UID]; version */
    LTDIC_COMMON_SERVICE = 17,     /**< in the last item 57 [UID] */
    LTDIC_COMMON_RELATED = 18,     /**< in the last item 57 [UID]; any number of rows */
    LTDIC_USER_IDENTITY = 19, /**< item 58 [primary field]; id: type; result: response requested */
    LTDIC_USER_IDENTITY_SECOND = 20,   /**< in the last item 58 [secondary field] */
    LTDIC_USER_IDENTITY_RESPONSE = 21, /**< item 59 [server response] */
    LTDIC_UNKNOWN_ITEM = 22,           /**< any other item of the PDU [value]; type */
    LTDIC_UNKNOWN_SUB_ITEM = 23,       /**< any other sub-item of item 50 [value]; type */
    LTDIC_PDV = 24,                    /**< P-DATA-TF [fragment]; id; control header in result */
    LTDIC_HEADER = 25, /**< exact: after the row of each PDU and item [its bytes up to the first
                          value, with reserved bytes; RJ, ABORT: up to the codes] */
    LTDIC_IGNORED = 26 /**< exact [bytes without a meaning]; id says where: 0 between the items of
                          the PDU, 1 in item 20, 21 or 50, 2 at the end of a sub-item */
} ltdic_kind;

/** One row: the kind and the position of a part of a PDU. */
typedef struct ltdic_item {
    uint32_t offset, length; /**< bytes of the value in the PDU */
    uint8_t kind;            /**< ltdic_kind */
    uint8_t type;            /**< type byte; 0 if the standard has none */
    uint8_t id, result, source, reason;
    uint16_t version;
} ltdic_item;

/** Rows in memory of the caller. */
typedef struct ltdic_items {
    ltdic_item *items;
    size_t room;  /**< rows at `items` */
    size_t count; /**< rows written; with LTDIC_ERR_ROOM, rows needed */
} ltdic_items;

/** The codes of an A-ASSOCIATE-RJ (PS3.8 table 9-21), as sent. */
typedef struct ltdic_reject {
    uint8_t result, source, reason;
} ltdic_reject;

/** Returns 1 if PS3.8 defines the combination, so that it may be sent; else 0. 16 are defined. */
LTDIC_API int ltdic_reject_is_defined(ltdic_reject reject);

/** Finds the first whole PDU in the bytes received so far. Its body is not checked.
 *
 *  Nothing is copied: `*pdu` points into `in`. After LTDIC_NEED_MORE, call again with the same
 *  bytes followed by more.
 *
 *  @param[out] pdu  header and body, with LTDIC_OK
 *  @param in  bytes that are not consumed yet, from a PDU boundary
 *  @param options  NULL for the defaults
 *  @param[out] fault  status, offset, need
 *  @return LTDIC_OK; LTDIC_NEED_MORE; LTDIC_ERR_BAD_PDU_TYPE at the first byte, without waiting
 *    for more; LTDIC_ERR_BAD_LENGTH or LTDIC_ERR_TOO_LARGE at the sixth byte, without waiting for
 *    the body; LTDIC_ERR_TOO_LARGE also for a PDU of more than UINT32_MAX bytes, after it has
 *    arrived */
LTDIC_API int ltdic_frame(ltdic_bytes *pdu, ltdic_bytes in, const ltdic_options *options,
                          ltdic_fault *fault);

/** Decodes the first PDU of `in` into rows (PS3.8 9.3, PS3.7 D.3.3), in the order of the bytes.
 *
 *  Nothing is copied: the rows hold the offset of each value in `in`. The time is linear in the
 *  size of the PDU.
 *
 *  @param[out] out  the rows before the fault, if there is one, else all; NULL to check only. With
 *    LTDIC_ERR_ROOM `count` is the number of rows needed
 *  @param in, options, fault  as in ltdic_frame
 *  @return as ltdic_frame; LTDIC_ERR_ROOM; the first fault of the body, from left to right:
 *    LTDIC_ERR_BAD_LENGTH, LTDIC_ERR_ITEM_OVERRUN, and if strict LTDIC_ERR_BAD_VALUE,
 *    _MISSING_ITEM, _DUPLICATE_ITEM, _BAD_ORDER, _TRAILING_BYTES, _UNEXPECTED_ITEM */
LTDIC_API int ltdic_decode(ltdic_items *out, ltdic_bytes in, const ltdic_options *options,
                           ltdic_fault *fault);

/** Encodes one PDU from rows such as ltdic_decode makes.
 *
 *  The rows are in the order of the PDU; offsets count from the start of `values`. Reserved bytes
 *  are zero, titles are padded with spaces, UIDs are not padded. If a rejected context of an AC
 *  has no transfer syntax, it gets an empty sub-item 40. Code fields may have any value.
 *
 *  Rows of an exact decoding have an LTDIC_HEADER after LTDIC_PDU. They give the bytes that were
 *  decoded, whatever lenient mode allowed in them. A row may be changed to point to another value:
 *  the length fields are adapted, and the text is not checked, except for the size of a title.
 *
 *  @param[in,out] out  `size` is set to the bytes written
 *  @param rows  the first is LTDIC_PDU
 *  @param values  the memory that the rows point into
 *  @param[out] fault  `offset` is the number of the row at fault
 *  @return LTDIC_OK; LTDIC_ERR_ROOM, and `out->size` is the size needed; LTDIC_ERR_BAD_VALUE for a
 *    row that cannot be encoded: an illegal title, UID or version name, a value outside `values`,
 *    or a kind that is not allowed there; LTDIC_ERR_TOO_LARGE for an item above 65535 bytes */
LTDIC_API int ltdic_encode(ltdic_buffer *out, const ltdic_items *rows, ltdic_bytes values,
                           ltdic_fault *fault);

/** Encodes an RJ, RELEASE or ABORT (PS3.8 9.3.4, 9.3.6 to 9.3.8) into LTDIC_FIXED_PDU_SIZE bytes.
 *  `codes` are the last three of them. */
LTDIC_API void ltdic_encode_fixed(uint8_t *out, uint8_t type, ltdic_reject codes);

/** Decodes consecutive A-ASSOCIATE-RJ PDUs (PS3.8 9.3.4), as lenient mode does.
 *
 *  @param[out] out  three bytes for each: result, source, reason. With a fault, the PDUs before it
 *  @param[out] fault  offset and need count from the first byte of `in`
 *  @return LTDIC_OK at the end of `in`; as ltdic_frame; LTDIC_ERR_UNEXPECTED_PDU at a PDU of
 *    another type; LTDIC_ERR_ROOM, and `fault->offset` is the offset of the PDU to continue with */
LTDIC_API int ltdic_decode_rejects(ltdic_buffer *out, ltdic_bytes in, ltdic_fault *fault);

/** A presentation data value (PS3.8 9.3.5.1). It points into the PDU. */
typedef struct ltdic_pdv {
    uint8_t id, control;
    ltdic_bytes data;
} ltdic_pdv;

/** Takes the next PDV from the body of a P-DATA-TF in which ltdic_decode found no fault.
 *  @param[in,out] rest  the PDU without its six header bytes; then the bytes that are left
 *  @return LTDIC_OK; LTDIC_NEED_MORE after the last PDV */
LTDIC_API int ltdic_next_pdv(ltdic_bytes *rest, ltdic_pdv *pdv);

/* ---- stream ------------------------------------------------------------------------------ */

/** The position of a byte stream inside its PDUs, in memory of the caller. It begins as all zeros.
 *  Its fields are private. */
typedef struct ltdic_stream {
    uint64_t offset;   /* offset of the next byte in the current PDU */
    uint32_t pdu_left; /* bytes of a P-DATA-TF that have not arrived */
    uint32_t pdv_left; /* bytes of its PDV that have not arrived */
    uint8_t id, control;
} ltdic_stream;

/** One piece of a stream: a whole PDU, or a part of a PDV. */
typedef struct ltdic_piece {
    ltdic_bytes data; /**< the PDU with its header; or bytes of the PDV's fragment, perhaps none */
    uint8_t type;     /**< PDU type; LTDIC_DATA_TF: the other fields are about the PDV */
    uint8_t id, control;
    uint8_t first; /**< 1: the PDV begins with this piece */
    uint8_t last;  /**< 1: the PDV ends with this piece */
    uint8_t end;   /**< 1: the PDU ends with this piece */
} ltdic_piece;

/** Takes the next piece from a stream. A P-DATA-TF is returned in pieces as its bytes arrive, so
 *  that its size takes no memory. Other PDUs are returned whole; ltdic_decode checks their bodies.
 *
 *  Nothing is copied: `piece->data` points into the input.
 *
 *  @param[in,out] in  bytes as received; then the bytes that are left. The next call needs these
 *    in front of the bytes that arrive next
 *  @param options  as in ltdic_decode
 *  @return LTDIC_OK; LTDIC_NEED_MORE, and `fault->need` and `fault->offset` count from the first
 *    byte of the current PDU; the errors of ltdic_frame, and for a P-DATA-TF those of
 *    ltdic_decode: after an error the stream cannot continue */
LTDIC_API int ltdic_stream_next(ltdic_stream *stream, ltdic_piece *piece, ltdic_bytes *in,
                                const ltdic_options *options, ltdic_fault *fault);

/* ---- upper layer ------------------------------------------------------------------------- */

/** The events of PS3.8 table 9-10, by number. ltdic_ul_receive makes Evt3, 4, 6, 10, 12, 13 and
 *  16, ltdic_ul_fault makes Evt19, and ltdic_ul_event the others. */
typedef enum ltdic_event {
    LTDIC_EVT_REQUEST = 1,
    LTDIC_EVT_CONNECTED = 2,
    LTDIC_EVT_AC_RECEIVED = 3,
    LTDIC_EVT_RJ_RECEIVED = 4,
    LTDIC_EVT_ACCEPTED = 5,
    LTDIC_EVT_RQ_RECEIVED = 6,
    LTDIC_EVT_ACCEPT = 7,
    LTDIC_EVT_REJECT = 8,
    LTDIC_EVT_DATA = 9,
    LTDIC_EVT_DATA_RECEIVED = 10,
    LTDIC_EVT_RELEASE = 11,
    LTDIC_EVT_RELEASE_RQ_RECEIVED = 12,
    LTDIC_EVT_RELEASE_RP_RECEIVED = 13,
    LTDIC_EVT_RELEASE_RESPONSE = 14,
    LTDIC_EVT_ABORT = 15,
    LTDIC_EVT_ABORT_RECEIVED = 16,
    LTDIC_EVT_CLOSED = 17,
    LTDIC_EVT_ARTIM = 18,
    LTDIC_EVT_INVALID_PDU = 19
} ltdic_event;

/** The actions of PS3.8 tables 9-6 to 9-9. */
typedef enum ltdic_action {
    LTDIC_NO_ACTION = 0,
    LTDIC_AE_1 = 1,
    LTDIC_AE_2 = 2,
    LTDIC_AE_3 = 3,
    LTDIC_AE_4 = 4,
    LTDIC_AE_5 = 5,
    LTDIC_AE_6 = 6,
    LTDIC_AE_7 = 7,
    LTDIC_AE_8 = 8,
    LTDIC_DT_1 = 9,
    LTDIC_DT_2 = 10,
    LTDIC_AR_1 = 11,
    LTDIC_AR_2 = 12,
    LTDIC_AR_3 = 13,
    LTDIC_AR_4 = 14,
    LTDIC_AR_5 = 15,
    LTDIC_AR_6 = 16,
    LTDIC_AR_7 = 17,
    LTDIC_AR_8 = 18,
    LTDIC_AR_9 = 19,
    LTDIC_AR_10 = 20,
    LTDIC_AA_1 = 21,
    LTDIC_AA_2 = 22,
    LTDIC_AA_3 = 23,
    LTDIC_AA_4 = 24,
    LTDIC_AA_5 = 25,
    LTDIC_AA_6 = 26,
    LTDIC_AA_7 = 27,
    LTDIC_AA_8 = 28
} ltdic_action;

/** The state of one association in table 9-10, in memory of the caller. Its fields are private. */
typedef struct ltdic_ul {
    uint8_t state;        /* 1 to 13 */
    uint8_t requestor;    /* 1 if this side sent the A-ASSOCIATE-RQ */
    uint32_t artim;       /* length of the ARTIM timer, ms */
    uint64_t deadline;    /* when ARTIM fires, ms on the caller's clock; 0: it does not run */
    ltdic_reject refusal; /* codes with which AE-6 answers, or has answered, instead of asking the
                             user; result 0: it asks */
} ltdic_ul;

/** The actions that the caller must do now, in this order: open or send, tell, close. */
typedef struct ltdic_effects {
    uint8_t action;     /**< ltdic_action, for information */
    uint8_t open;       /**< 1: ask the transport to connect */
    uint8_t send;       /**< PDU type to send; 0: none */
    uint8_t tell;       /**< 1: indicate the event to the user */
    uint8_t close;      /**< 1: close the transport */
    ltdic_reject codes; /**< for the A-ABORT to send (source, reason), or for the RJ of AE-6 */
} ltdic_effects;

/** Puts a machine into Sta1. ARTIM takes `artim` milliseconds (PS3.8 9.1.5). */
LTDIC_API void ltdic_ul_init(ltdic_ul *ul, uint32_t artim);

/** Handles an event of the local user, the transport or the timer.
 *
 *  Table 9-10 has no action for an A-ABORT request in Sta1, Sta2 and Sta13. In Sta2 it closes the
 *  transport, as AA-2 does. In the other two it does nothing and is no error.
 *
 *  @param[out] effects  all zero with an error
 *  @param now  milliseconds on a clock that never goes back
 *  @return LTDIC_OK; LTDIC_ERR_WRONG_STATE if table 9-10 has no action: nothing was changed */
LTDIC_API int ltdic_ul_event(ltdic_ul *ul, ltdic_effects *effects, ltdic_event event, uint64_t now);

/** Handles a PDU of the peer in which ltdic_decode found no fault.
 *  @return LTDIC_OK; LTDIC_ERR_UNEXPECTED_PDU if it is answered with an A-ABORT;
 *    LTDIC_ERR_BAD_VALUE for an AC without protocol version 1, which is also answered with an
 *    A-ABORT; LTDIC_ERR_WRONG_STATE in Sta1 and Sta4, in which no PDU can arrive */
LTDIC_API int ltdic_ul_receive(ltdic_ul *ul, ltdic_effects *effects, ltdic_bytes pdu, uint64_t now);

/** Handles bytes of the peer that are no valid PDU. `status` is the status of the decoder (PS3.8
 *  table 9-10, Evt19).
 *  @return LTDIC_OK; LTDIC_ERR_WRONG_STATE in Sta1 and Sta4 */
LTDIC_API int ltdic_ul_fault(ltdic_ul *ul, ltdic_effects *effects, int status, uint64_t now);

/* ---- C-ECHO ------------------------------------------------------------------------------ */

/** Command fields (PS3.7 E.1). */
enum { LTDIC_C_ECHO_RQ = 0x0030, LTDIC_C_ECHO_RSP = 0x8030 };

#define LTDIC_ECHO_ROOM 128 /* bytes that are enough for any encoded C-ECHO */

/** The command set of a C-ECHO (PS3.7 9.3.5), the only message that this library reads. */
typedef struct ltdic_echo {
    uint16_t field;     /**< LTDIC_C_ECHO_RQ or LTDIC_C_ECHO_RSP; 0: no C-ECHO */
    uint16_t message;   /**< message ID; response: the ID of its request */
    uint16_t status;    /**< response: 0 is success */
    char sop_class[65]; /**< affected SOP class UID; "" in a response without one */
} ltdic_echo;

/** Encodes a C-ECHO in Implicit VR Little Endian, as one fragment that is a whole command.
 *  @return LTDIC_OK; LTDIC_ERR_ROOM; LTDIC_ERR_BAD_VALUE for an illegal UID or another `field` */
LTDIC_API int ltdic_encode_echo(ltdic_buffer *out, const ltdic_echo *echo);
/** Decodes a C-ECHO.
 *  @return LTDIC_OK; LTDIC_ERR_BAD_VALUE if `command` is not a whole command set of a C-ECHO */
LTDIC_API int ltdic_decode_echo(ltdic_echo *echo, ltdic_bytes command);
/** Returns whether a command set announces a data set (PS3.7 E.1).
 *  @return 1: it does; 0: it does not; -1: the element was not found */
LTDIC_API int ltdic_announces_data_set(ltdic_bytes command);
/** Returns the maximum length of an A-ASSOCIATE-RQ or -AC that was decoded without a fault (PS3.8
 *  D.1).
 *  @return 0: no limit, or the PDU has none */
LTDIC_API uint32_t ltdic_max_length_of(ltdic_bytes pdu);

/* ---- association ------------------------------------------------------------------------- */

/** One association between its user and its transport. Opaque.
 *
 *  The user sends PDUs and data. The transport passes in the bytes it received, and takes the
 *  bytes to send. ltdic_association_next returns everything that the user has to know. `now` is
 *  always in milliseconds, on one clock that never goes back.
 *
 *  The association enforces what was negotiated, in both directions: an AC may only accept what
 *  was proposed; PDVs must belong to accepted contexts and form whole messages (PS3.8 E.1). */
typedef struct ltdic_association ltdic_association;

/** Deadlines in milliseconds. They are as precise as the clock of `now`: to less than 1 ms. */
typedef struct ltdic_timeouts {
    size_t size;       /**< sizeof(ltdic_timeouts) when the caller was compiled */
    uint32_t artim;    /**< PS3.8 9.1.5: time until a whole A-ASSOCIATE-RQ has arrived; at the end,
                          time until the peer has closed; 0: 30000 */
    uint32_t response; /**< time until a connection is up, until a whole AC or RJ has arrived, and
                          until a whole A-RELEASE-RP has arrived; 0: no limit */
    uint32_t idle;     /**< time on an established association without a byte of data in either
                          direction; empty PDVs do not count; 0: no limit */
} ltdic_timeouts;

/** The bytes of PDUs that may wait to be sent. A single call may exceed it if nothing waits. */
#define LTDIC_MAX_QUEUE 1048576

typedef enum ltdic_indication_kind {
    LTDIC_RECEIVED = 1,  /**< a PDU for the user, or a piece of a P-DATA-TF. With a status: the peer
                            sent something else, and an A-ABORT was the answer; LTDIC_ERR_TIMEOUT:
                            nothing arrived in time, and an A-ABORT was sent */
    LTDIC_SENT = 2,      /**< the transport has taken a PDU, or the PDU was lost (status) */
    LTDIC_CLOSED = 3,    /**< the end: close the transport if it is still up. LTDIC_OK after a
                            rejection, a release or an abort of our own; else the cause.
                            LTDIC_ERR_TIMEOUT: the peer did not close before ARTIM */
    LTDIC_CONNECTED = 4, /**< net: the connection asked for is up, or has failed (status) */
    LTDIC_PENDING = 5,   /**< net, listener: a connection waits for ltdic_net_accept */
    LTDIC_REFUSED = 6    /**< acceptor: the provider has refused an A-ASSOCIATE-RQ with `codes` and
                            sends the A-ASSOCIATE-RJ (PS3.8 AE-6). LTDIC_RECEIVED does not come */
} ltdic_indication_kind;

/** One event of an association, for its user. */
typedef struct ltdic_indication {
    int kind;        /**< ltdic_indication_kind */
    int status;      /**< ltdic_status */
    uint8_t type;    /**< RECEIVED, SENT: PDU type; 0 if it is not known */
    uint64_t size;   /**< SENT: size of the PDU in bytes */
    uint64_t offset; /**< if `status` is about the peer's bytes: offset of the field at fault, from
                        the first byte of its PDU */
    ltdic_reject codes; /**< REFUSED */
    ltdic_bytes pdu;    /**< RECEIVED, REFUSED: the PDU as received. P-DATA-TF: its bytes since the
                           last piece; all pieces together are the PDU */
    ltdic_piece piece;  /**< RECEIVED, P-DATA-TF: the data. `control` has the bit for "last" only in
                           the last piece of the PDV */
} ltdic_indication;

/** Makes an association in Sta1.
 *  @return NULL if there is no memory */
LTDIC_API ltdic_association *ltdic_association_new(void);
LTDIC_API void ltdic_association_free(ltdic_association *association);
/** Sets the deadlines that begin after this call. */
LTDIC_API void ltdic_association_set_timeouts(ltdic_association *association,
                                              const ltdic_timeouts *timeouts);
#define LTDIC_MAX_ITEMS 8192 /* rows that ltdic_decode may make of an RQ or AC, at most */
/** Sets the largest PDU length of an A-ASSOCIATE-RQ or -AC, LTDIC_MAX_ASSOCIATE by default. A
 *  larger PDU is LTDIC_ERR_TOO_LARGE at its sixth byte. A PDU with more than LTDIC_MAX_ITEMS items
 *  and sub-items is also LTDIC_ERR_TOO_LARGE, after it has arrived. */
LTDIC_API void ltdic_association_limit_associate(ltdic_association *association, uint32_t bytes);
/** Returns the number of the state, 1 to 13. */
LTDIC_API int ltdic_association_state(const ltdic_association *association);

/** Returns 1 if a PDU or a message of the peer has begun and is not complete: the peer has more to
 *  send before it waits for an answer. It is also 1 after a command that a data set may follow.
 *  Else returns 0. */
LTDIC_API int ltdic_association_expects_more(const ltdic_association *association);

/** Reports that the transport is up: LTDIC_EVT_CONNECTED to a requestor, LTDIC_EVT_ACCEPTED to an
 *  acceptor.
 *  @return LTDIC_OK; LTDIC_ERR_WRONG_STATE */
LTDIC_API int ltdic_association_opened(ltdic_association *association, ltdic_event event,
                                       uint64_t now);
/** Reports that the transport is closed. `status` is LTDIC_OK if we closed it, else the cause,
 *  such as LTDIC_ERR_CLOSED. Pass in the bytes received before it first. LTDIC_CLOSED follows. */
LTDIC_API void ltdic_association_closed(ltdic_association *association, int status, uint64_t now);

/** Sends one whole PDU for the user, but no P-DATA-TF. Its type decides which request or response
 *  of PS3.8 7 it is. The PDU is copied. In an AC, bytes 10 to 73 are replaced by those of the RQ
 *  received (PS3.8 9.3.3). The maximum lengths and contexts of the RQ and AC are in force from
 *  then on.
 *  @return LTDIC_OK; LTDIC_ERR_WRONG_STATE; LTDIC_ERR_ROOM if too much waits to be sent;
 *    LTDIC_ERR_MEMORY; LTDIC_ERR_BAD_VALUE for bytes that cannot be decoded, and for an AC that
 *    does not answer each context of the RQ once, or accepts what was not proposed */
LTDIC_API int ltdic_association_send(ltdic_association *association, ltdic_bytes pdu, uint64_t now);

/** Sends a command or data set, or a part of one, of any length. It is cut into P-DATA-TF PDUs
 *  with one PDV each, as large as the peer accepts (PS3.8 D.1). `data->control`: bit 0 is 1 for a
 *  command, bit 1 is 1 if `data` is the last part.
 *
 *  The memory is lent: the library reads it until ltdic_association_keep, which copies the bytes
 *  that still wait. LTDIC_SENT is returned for each PDU. If a part has an odd number of bytes, its
 *  last byte is copied and sent in front of the next part. A part of one byte makes no PDU.
 *  @return LTDIC_OK; LTDIC_ERR_WRONG_STATE, also for a data set where a command must come, and for
 *    another context inside a message; LTDIC_ERR_BAD_VALUE if the whole command or data set has an
 *    odd number of bytes (PS3.8 E.1), or for a context that was not accepted; LTDIC_ERR_ROOM if
 *    bytes wait already and there would be more than LTDIC_MAX_QUEUE with these, or if LTDIC_SENT
 *    of 1024 calls has not been returned yet; LTDIC_ERR_TOO_LARGE if the peer accepts no data,
 *    since its maximum length is below 8; LTDIC_ERR_MEMORY */
LTDIC_API int ltdic_association_send_data(ltdic_association *association, const ltdic_pdv *data,
                                          uint64_t now);

/** The bytes to send next, in order, for one writev. */
typedef struct ltdic_output {
    ltdic_bytes parts[64];
    size_t count;            /**< 0: nothing waits */
    uint8_t headers[32][13]; /* memory of some parts; private */
} ltdic_output;

/** Returns the next bytes to send. They are valid until any other function is called with this
 *  association. */
LTDIC_API void ltdic_association_output(const ltdic_association *association, ltdic_output *output);
/** Reports that the transport has taken this number of bytes of the output. */
LTDIC_API void ltdic_association_sent(ltdic_association *association, size_t size, uint64_t now);
/** Does ltdic_association_output and ltdic_association_sent at once, for a transport that needs
 *  the bytes in one block: copies as much of the output to `out` as it has room for, and treats it
 *  as sent. If all of it fitted, nothing is lent any more.
 *  @return bytes that still wait */
LTDIC_API size_t ltdic_association_take(ltdic_association *association, ltdic_buffer *out,
                                        uint64_t now);
/** Copies the lent bytes that still wait: the lender's memory is not used any more.
 *  @return LTDIC_OK; LTDIC_ERR_MEMORY, which has the effect of ltdic_association_lost */
LTDIC_API int ltdic_association_keep(ltdic_association *association);
/** Ends the association with an A-ABORT, as after an invalid PDU (AA-1, AA-8). All later bytes of
 *  the peer are ignored. LTDIC_CLOSED has the status `status`. Without a transport it does
 *  nothing. */
LTDIC_API void ltdic_association_fail(ltdic_association *association, int status, uint64_t now);
/** Reports that the transport takes nothing more. There may still be bytes to receive. */
LTDIC_API void ltdic_association_lost(ltdic_association *association);

/** Returns the next indication. It also handles deadlines that have passed.
 *
 *  Nothing is copied: `indication->pdu` points into the input. First comes LTDIC_SENT for PDUs
 *  that were submitted before this input arrived, then the indications of the input, then
 * LTDIC_SENT for PDUs that were submitted later.
 *
 *  @param[in,out] in  bytes as received; then the bytes that are left. The next call needs these
 *    in front of the bytes that arrive next. They are less than one PDU of a type other than
 *  P-DATA-TF
 *  @return LTDIC_OK; LTDIC_NEED_MORE if there is none until more is received, something is sent,
 *    or ltdic_association_deadline passes */
LTDIC_API int ltdic_association_next(ltdic_association *association, ltdic_indication *indication,
                                     ltdic_bytes *in, uint64_t now);
/** Returns the size of the PDU that begins in `left`, the bytes that ltdic_association_next has
 *  left: they are used when the whole PDU is there. 0: every further byte may be used, as in a
 *  P-DATA-TF. */
LTDIC_API uint64_t ltdic_association_needs(const ltdic_association *association, ltdic_bytes left);
/** Returns when to call ltdic_association_next even if nothing was received; 0: never. */
LTDIC_API uint64_t ltdic_association_deadline(const ltdic_association *association);

/* ---- messages ---------------------------------------------------------------------------- */

/** Finds C-ECHO among the messages that one association receives, however they are divided into
 *  PDVs and pieces. Its memory is the caller's and begins as all zeros. Its fields are private. */
typedef struct ltdic_echo_reader {
    uint8_t *command; /* the beginning of a command set, with room for 1024 bytes; or NULL */
    uint32_t size;    /* bytes at `command` */
    uint8_t too_long; /* 1: this command set is too long to be a C-ECHO */
} ltdic_echo_reader;

/** Reads the next piece of the peer's P-DATA-TF PDUs.
 *  @return LTDIC_OK: a C-ECHO ends with this piece, and `echo` holds it; LTDIC_NEED_MORE: no
 *    command set ends with it, or that is no C-ECHO, or it has more than 1024 bytes;
 *    LTDIC_ERR_MEMORY */
LTDIC_API int ltdic_echo_reader_take(ltdic_echo_reader *reader, ltdic_echo *echo,
                                     const ltdic_piece *piece);
/** Forgets everything and frees the memory. Call it at the end of the association. */
LTDIC_API void ltdic_echo_reader_clear(ltdic_echo_reader *reader);

/* ---- admission --------------------------------------------------------------------------- */

/** The rules by which an acceptor answers an A-ASSOCIATE-RQ: who is accepted, how many at once,
 *  and with which contexts. No I/O, no clock. Opaque.
 *
 *  One thread adds the rules first. After that any number of threads may judge, leave, set limits
 *  and take rules at the same time: each call holds a lock.
 *
 *  A new admission accepts everybody, but no context. It does not check protocol version and
 *  application context: the association refuses those before (1/2/2, 1/1/2). */
typedef struct ltdic_admission ltdic_admission;

/** The decision on a request. It belongs to the caller until ltdic_admission_leave. */
typedef struct ltdic_answer {
    ltdic_reject refusal; /**< codes of the rejection (PS3.8 table 9-21); result 0: the request is
                             accepted */
    uint8_t verification[32]; /**< if accepted: bit `id % 8` of byte `id / 8` is 1 for each context
                                 ID that proposes Verification; if several contexts have one ID, the
                                 first counts */
    uint8_t admitted;         /* 1: the association is counted; private, as are the next fields */
    struct ltdic_tally *caller, *host;
} ltdic_answer;

#define LTDIC_ACCEPT_ROOM 24576 /* bytes that are enough for any AC of ltdic_admission_judge */

/** Makes an admission.
 *  @return NULL if there is no memory */
LTDIC_API ltdic_admission *ltdic_admission_new(void);
/** Frees an admission and wipes the passcodes. After it, ltdic_admission_leave must not be called
 *  with its answers. */
LTDIC_API void ltdic_admission_free(ltdic_admission *admission);

/* The next functions add rules. They copy their arguments. @return LTDIC_OK, LTDIC_ERR_BAD_VALUE
 * for an illegal title or UID, LTDIC_ERR_MEMORY */

/** Adds a called AE title. Requests with titles that were not added are then refused: 1/1/7. */
LTDIC_API int ltdic_admission_add_called(ltdic_admission *admission, const char *title);
/** Adds a calling AE title. Requests with titles that were not added are then refused: 1/1/3. */
LTDIC_API int ltdic_admission_add_calling(ltdic_admission *admission, const char *title);
/** Adds an abstract syntax. Its transfer syntaxes are added next. A context with another abstract
 *  syntax gets result 3, one without a transfer syntax of the list gets 4 (PS3.8 table 9-18). */
LTDIC_API int ltdic_admission_add_context(ltdic_admission *admission, const char *abstract_syntax);
/** Adds a transfer syntax to the abstract syntax that was added last. Among those that a context
 *  proposes, the one that was added first is chosen. */
LTDIC_API int ltdic_admission_add_transfer(ltdic_admission *admission, const char *transfer_syntax);
/** Adds a user (PS3.7 D.3.3.7). Requests without a user name that was added, or with a wrong
 *  passcode, are then refused: 1/2/1. If a request asks for a response, the AC has one.
 *  @param passcode  NULL data: no passcode is needed */
LTDIC_API int ltdic_admission_add_identity(ltdic_admission *admission, ltdic_bytes name,
                                           ltdic_bytes passcode);
/** Accepts every abstract syntax, with the transfer syntax that is proposed first for it. */
LTDIC_API void ltdic_admission_accept_any(ltdic_admission *admission);

/** Limits on the number of associations at the same time; 0: no limit. */
typedef struct ltdic_limits {
    size_t size;           /**< sizeof(ltdic_limits) when the caller was compiled */
    uint32_t together;     /**< all associations */
    uint32_t each_calling; /**< with the same calling AE title, if it has no limit of its own */
    uint32_t each_host;  /**< those from the same host; associations that began while this was 0 are
                            not counted */
    ltdic_reject beyond; /**< codes of a rejection beyond a limit; result 0: 2/3/2 */
} ltdic_limits;

LTDIC_API void ltdic_admission_set_limits(ltdic_admission *admission, const ltdic_limits *limits);
/** Sets the limit of one calling AE title, instead of `each_calling`; 0: no limit. */
LTDIC_API int ltdic_admission_limit_calling(ltdic_admission *admission, const char *title,
                                            uint32_t most);
/** Sets the largest P-DATA-TF that is accepted (PS3.8 D.1), in bytes; 0: no limit. 16384 by
 *  default. */
LTDIC_API void ltdic_admission_set_max_length(ltdic_admission *admission, uint32_t max_length);
/** Sets the least maximum length that a requestor may send (PS3.8 D.1), in bytes. A request with a
 *  smaller one, but not 0, is refused: 1/1/1. With a small maximum length, headers take many times
 *  the bytes of the data. 0: any, the default. */
LTDIC_API void ltdic_admission_set_least_max_length(ltdic_admission *admission, uint32_t bytes);
/** Sets the largest PDU length of an A-ASSOCIATE-RQ, in bytes; 0: LTDIC_MAX_ASSOCIATE, the
 *  default. */
LTDIC_API void ltdic_admission_set_max_associate(ltdic_admission *admission,
                                                 uint32_t max_associate);
/** Returns that length, which is never 0. */
LTDIC_API uint32_t ltdic_admission_max_associate(const ltdic_admission *admission);

/** Replaces the rules by those of `from`. Associations stay counted, even if there are more than
 *  the new limits allow.
 *  @param from  has no rules after this call; it still belongs to the caller
 *  @return LTDIC_OK; LTDIC_ERR_MEMORY: nothing was changed */
LTDIC_API int ltdic_admission_take_rules(ltdic_admission *admission, ltdic_admission *from);
/** Returns 1 if ltdic_admission_judge needs the host, else 0. */
LTDIC_API int ltdic_admission_counts_hosts(const ltdic_admission *admission);

/** Judges an A-ASSOCIATE-RQ in which ltdic_decode found no fault. The first of these reasons to
 *  refuse it is returned: called title, calling title, user identity, maximum length, limits.
 *
 *  Spaces around a title and NULs after it are padding. A title field with other bytes after a NUL
 *  is a different title from the one before the NUL, and equal to none that was added.
 *
 *  The time grows with the bytes of the request and with the number of rules, but not with their
 *  product.
 *
 *  @param[out] answer  call ltdic_admission_leave with it once
 *  @param[in,out] accept  the AC to send if the request is accepted, else empty. It answers each
 *    context once: if several have one ID, the first counts; even IDs get result 2
 *  @param host  the requestor's host, as a text that is the same each time; may be empty
 *  @return LTDIC_OK; LTDIC_ERR_ROOM if `accept` has less than LTDIC_ACCEPT_ROOM: then the
 *    association is not counted */
LTDIC_API int ltdic_admission_judge(ltdic_admission *admission, ltdic_answer *answer,
                                    ltdic_buffer *accept, ltdic_bytes rq, ltdic_bytes host);
/** Stops counting an association that is over or was not made. Further calls do nothing. */
LTDIC_API void ltdic_admission_leave(ltdic_admission *admission, ltdic_answer *answer);

/* ---- net --------------------------------------------------------------------------------- */

/** An event loop: drives any number of endpoints on one thread. Opaque. */
typedef struct ltdic_loop ltdic_loop;
/** An endpoint: a listener, or one end of a connection with its association. Opaque. */
typedef struct ltdic_net ltdic_net;

/** The kinds of addresses that a host name may be resolved to. */
typedef enum ltdic_family {
    LTDIC_IP_ANY = 0, /**< the first that the system returns */
    LTDIC_IP_V4 = 1,
    LTDIC_IP_V6 = 2,
    LTDIC_IP_BOTH = 3 /**< like ANY; a listener on "*" accepts both */
} ltdic_family;

/** An address to listen at or to connect to. */
typedef struct ltdic_address {
    const char *host; /**< a name or a number. An IPv6 number may have brackets and a zone index.
                         Listener: NULL or "" is the name of this host, "*" is all its addresses */
    uint16_t port;    /**< 0: a free port */
    uint8_t family;   /**< ltdic_family */
} ltdic_address;

/** An error of the system. */
typedef struct ltdic_cause {
    int error;    /**< value of errno, or 0 */
    int resolver; /**< result of getaddrinfo, or 0; with EAI_AGAIN a later attempt may succeed */
} ltdic_cause;
/** Returns one line about `resolver`, in the language of the system. */
LTDIC_API const char *ltdic_resolver_text(int resolver);

/** Makes a loop.
 *
 *  After fork(), a loop is made anew when the child process first uses it. Its listeners are in
 *  both processes then. Connections stay with the parent; in the child they are closed as if lost,
 *  and nothing is sent to the peer.
 *  @return NULL if there is no memory or no descriptor */
LTDIC_API ltdic_loop *ltdic_loop_new(void);
/** Frees a loop with its servers and endpoints, without indications. No endpoint may be busy. */
LTDIC_API void ltdic_loop_free(ltdic_loop *loop);

/** Waits until an endpoint may have an indication, or for `milliseconds`, which is 0 or more.
 *  @return LTDIC_OK; LTDIC_NEED_MORE if the time is up; LTDIC_ERR_INTERRUPTED */
LTDIC_API int ltdic_loop_wait(ltdic_loop *loop, int milliseconds);
/** Two functions to run a loop inside another one. ltdic_loop_fd returns a descriptor that is
 *  readable when ltdic_loop_wait would find something; -1 if the system has poll(2) alone. It
 *  belongs to the loop and stays the same. ltdic_loop_timeout returns how long the other loop may
 *  sleep at most before it calls ltdic_loop_wait: `milliseconds` or less. That is valid until the
 *  next call with the loop or one of its endpoints. */
LTDIC_API int ltdic_loop_fd(const ltdic_loop *loop);
LTDIC_API int ltdic_loop_timeout(const ltdic_loop *loop, int milliseconds);
/** Makes ltdic_loop_wait return LTDIC_ERR_INTERRUPTED: the call that sleeps now, else the next
 *  one. It may be called from any thread, and in a signal handler. */
LTDIC_API void ltdic_loop_wake(ltdic_loop *loop);

/** Returns one indication and its endpoint. The endpoint is busy until ltdic_net_done: it makes no
 *  other indication, and `indication->pdu` is valid, even if ltdic_net_free is called. Several
 *  endpoints may be busy, so this may be called again before ltdic_net_done.
 *  @return LTDIC_OK; LTDIC_NEED_MORE if there is none until the next wait */
LTDIC_API int ltdic_loop_next(ltdic_loop *loop, ltdic_net **net, ltdic_indication *indication);
LTDIC_API void ltdic_net_done(ltdic_net *net);

/** Makes an endpoint.
 *  @param owner  any pointer; ltdic_net_owner returns it
 *  @return NULL if there is no memory */
LTDIC_API ltdic_net *ltdic_net_new(ltdic_loop *loop, void *owner);
/** Closes an endpoint without an indication and frees it: now or, if it is busy, in
 *  ltdic_net_done. */
LTDIC_API void ltdic_net_free(ltdic_net *net);
LTDIC_API void *ltdic_net_owner(const ltdic_net *net);

/** Sets the deadlines of its association, as ltdic_association_set_timeouts does. */
LTDIC_API void ltdic_net_set_timeouts(ltdic_net *net, const ltdic_timeouts *timeouts);
/** Limits A-ASSOCIATE-RQ and -AC, as ltdic_association_limit_associate does. */
LTDIC_API void ltdic_net_limit_associate(ltdic_net *net, uint32_t bytes);

/** Listens. The backlog is at least 1024.
 *  @return LTDIC_OK, LTDIC_ERR_WRONG_STATE, _ADDRESS, _SYSTEM, _MEMORY */
LTDIC_API int ltdic_net_listen(ltdic_net *net, const ltdic_address *address, int backlog);

/** Listens at a socket that listens already, such as one that the system or a parent process has
 *  made. The descriptor stays the caller's; it is copied, and made non-blocking.
 *  @return LTDIC_OK, LTDIC_ERR_WRONG_STATE, _MEMORY; LTDIC_ERR_SYSTEM, also if it does not listen
 */
LTDIC_API int ltdic_net_listen_on(ltdic_net *net, int descriptor);

/** Listens at the socket of `other`, a listener that may be on another loop and thread. The first
 *  listener that accepts a connection gets it. When a listener closes, connections that wait are
 *  left to the others. Neither endpoint may be closed or freed during the call.
 *  @return LTDIC_OK, LTDIC_ERR_WRONG_STATE, _SYSTEM, _MEMORY */
LTDIC_API int ltdic_net_share(ltdic_net *net, ltdic_net *other);

/** Limits the connections that the listeners at one socket have accepted together; 0: no limit.
 *  Beyond it, connections wait in the backlog of the system. Listeners that accept at the same
 *  moment may each exceed it by one. The default is three quarters of the descriptors that the
 *  process may have when the first listener begins to listen. */
LTDIC_API void ltdic_net_limit_connections(ltdic_net *listener, uint32_t most);
#define LTDIC_MAX_UNFINISHED 67108864 /* bytes */
/** Limits the memory for incomplete PDUs of all connections of a listener, in bytes; 0: no limit;
 *  LTDIC_MAX_UNFINISHED by default. They are PDUs that the peers have begun to send, such as
 *  A-ASSOCIATE-RQ, in any state. The bytes of a P-DATA-TF never wait, so they do not count. Beyond
 *  the limit, the connection whose incomplete PDU began first is ended with an A-ABORT, and its
 *  LTDIC_CLOSED has the status LTDIC_ERR_CONGESTION. */
LTDIC_API void ltdic_net_limit_unfinished(ltdic_net *listener, uint64_t bytes);

/** Accepts the connection that has waited longest at `listener`, for the unused endpoint `net`
 *  (AE-5).
 *  @return LTDIC_OK; LTDIC_NEED_MORE if none waits; LTDIC_ERR_WRONG_STATE, _SYSTEM, _MEMORY */
LTDIC_API int ltdic_net_accept(ltdic_net *net, ltdic_net *listener);

/** Begins to connect; LTDIC_CONNECTED has the result. A host name is resolved by the system before
 *  this returns, in the time that the system takes. If there are several addresses, attempts run
 *  in parallel: the next one begins after 250 ms, or at once when one has failed. The first one
 *  that connects is used (RFC 8305 5).
 *  @param local  the address to bind to, or NULL. With it, only addresses of the peer of the same
 *    family are tried
 *  @return LTDIC_OK; LTDIC_ERR_WRONG_STATE if the endpoint is not closed; LTDIC_ERR_ADDRESS for a
 *    name that is not known, or a local address that cannot be bound; LTDIC_ERR_SYSTEM, _MEMORY */
LTDIC_API int ltdic_net_connect(ltdic_net *net, const ltdic_address *peer,
                                const ltdic_address *local);
/** The addresses of a peer, looked up. Opaque. */
typedef struct ltdic_lookup ltdic_lookup;
/** Looks up what ltdic_net_connect does, on any thread, so that a loop need not wait for it.
 *  @return LTDIC_OK; LTDIC_ERR_ADDRESS, LTDIC_ERR_SYSTEM and `cause`; LTDIC_ERR_MEMORY */
LTDIC_API int ltdic_lookup_new(ltdic_lookup **lookup, const ltdic_address *peer,
                               const ltdic_address *local, ltdic_cause *cause);
LTDIC_API void ltdic_lookup_free(ltdic_lookup *lookup);
/** Connects as ltdic_net_connect does. @param lookup  can be used once */
LTDIC_API int ltdic_net_connect_to(ltdic_net *net, ltdic_lookup *lookup);
/** Returns why the last ltdic_net_listen or ltdic_net_connect failed, or the connection that it
 *  began. */
LTDIC_API ltdic_cause ltdic_net_cause(const ltdic_net *net);
/** Takes over a connected stream socket that was made elsewhere: as a connection of a requestor
 *  (LTDIC_EVT_CONNECTED) or of an acceptor (LTDIC_EVT_ACCEPTED). There is no indication of it. The
 *  descriptor then belongs to the endpoint, which makes it non-blocking.
 *  @return LTDIC_OK; LTDIC_ERR_WRONG_STATE if the endpoint is in use, or for another event;
 *    LTDIC_ERR_SYSTEM if the descriptor is no such socket, and ltdic_net_cause says why: it still
 *    belongs to the caller */
LTDIC_API int ltdic_net_adopt(ltdic_net *net, int descriptor, ltdic_event event);
/** Returns the first bytes of an accepted connection, at most 32; where its transport was not
 *  opened, those on the TCP connection. They are valid until the endpoint is used again. They show
 *  the protocol of a peer that sends no A-ASSOCIATE-RQ. */
LTDIC_API ltdic_bytes ltdic_net_first(const ltdic_net *net);

/** Result of a function of a transport. */
typedef enum ltdic_transport_result {
    LTDIC_TRANSPORT_DONE = 0,       /**< it is open, or bytes were moved */
    LTDIC_TRANSPORT_WANT_READ = 1,  /**< to be called again when the descriptor can be read */
    LTDIC_TRANSPORT_WANT_WRITE = 2, /**< to be called again when it can be written */
    LTDIC_TRANSPORT_END = 3,  /**< the peer has closed its side, and all its bytes were read */
    LTDIC_TRANSPORT_LOST = 4, /**< a reset, an alert or another error */
    LTDIC_TRANSPORT_AGAIN = 5 /**< interrupted: to be called again soon */
} ltdic_transport_result;

/** What an endpoint moves its bytes with, over a TCP connection: TLS. Without one it is TCP alone.
 *  All functions get the `state` of one connection and its descriptor, which is non-blocking and
 *  stays the endpoint's; none of them may wait, or call a function of the same loop. Those that
 *  return int return an ltdic_transport_result. */
typedef struct ltdic_transport {
    size_t size; /**< sizeof(ltdic_transport) */
    /** Continues the handshake. No other function is called before it has returned DONE. It may
     *  also return END. */
    int (*open)(void *state, int descriptor);
    /** Reads up to `room` bytes; `*size` came, whatever it returns. After DONE it is called again,
     *  without waiting for the descriptor. */
    int (*read)(void *state, int descriptor, uint8_t *data, size_t room, size_t *size);
    /** Sends bytes of the output; the first `*size` are sent, whatever it returns. After DONE it is
     *  called again if there are more. The output of the next call begins with the bytes that are
     *  not sent yet, and has no fewer of them. */
    int (*send)(void *state, int descriptor, const ltdic_output *output, size_t *size);
    /** Returns how many bytes of the peer are kept while it is not open: they count for
     *  ltdic_net_limit_unfinished. NULL: none. */
    size_t (*pending)(void *state);
    /** The endpoint closes the descriptor after this call. `orderly` 1: tell the peer first
     *  (close_notify); 0: send nothing, since the connection belongs to the parent process. */
    void (*close)(void *state, int descriptor, int orderly);
    void (*free)(void *state); /**< called last */
} ltdic_transport;

/** Two functions for transports that do not use the descriptor themselves. They read and send on
 *  the TCP connection, as `read` and `send` of an ltdic_transport. */
LTDIC_API int ltdic_tcp_read(int descriptor, uint8_t *data, size_t room, size_t *size);
LTDIC_API int ltdic_tcp_send(int descriptor, ltdic_bytes bytes, size_t *size);

/** Sets the transport of an endpoint, before it connects, or after it has accepted or adopted a
 *  connection and before anything else. It stays for later connections, each of which begins with
 *  `open`. LTDIC_CONNECTED comes when it is open. Until then, the deadlines of connecting and of
 *  ARTIM hold, and nothing else is received or sent.
 *  @param transport  must exist as long as the endpoint
 *  @param state  belongs to the endpoint, which calls `free` with it when it is freed itself, or
 *    gets another transport */
LTDIC_API void ltdic_net_set_transport(ltdic_net *net, const ltdic_transport *transport,
                                       void *state);

/** Send as ltdic_association_send and ltdic_association_send_data do. Bytes that the system does
 *  not take at once are copied and sent later. */
LTDIC_API int ltdic_net_send(ltdic_net *net, ltdic_bytes pdu);
LTDIC_API int ltdic_net_send_data(ltdic_net *net, const ltdic_pdv *data);

/** Return how many bytes the transport has taken, and how many have reached the peer's system. If
 *  the own system cannot tell, that is how many the own system has taken. The numbers grow as long
 *  as the peer takes data. */
LTDIC_API uint64_t ltdic_net_sent(const ltdic_net *net);
LTDIC_API uint64_t ltdic_net_taken(const ltdic_net *net);

/** Returns the descriptor of the connection; -1 if there is none. It stays the endpoint's. */
LTDIC_API int ltdic_net_descriptor(const ltdic_net *net);

/** Holds (1) or resumes (0) an endpoint. While it is held, data and releases of the peer are not
 *  indicated, and nothing is read beyond the bytes that have arrived already, so that the peer has
 *  to wait. An abort in front of that data is still indicated, and so is the end of a connection
 *  that takes nothing more. */
LTDIC_API void ltdic_net_hold(ltdic_net *net, int held);

/** Closes now. If a connection was up, its LTDIC_CLOSED follows. */
LTDIC_API void ltdic_net_close(ltdic_net *net);

/** Returns the number of the association's state, 1 to 13. */
LTDIC_API int ltdic_net_state(const ltdic_net *net);
/** Returns 1 while the transport connection is up, else 0. */
LTDIC_API int ltdic_net_is_connected(const ltdic_net *net);

/** Returns the numeric address and the port of this end (`peer` 0) or of the other one (1).
 *  @return LTDIC_OK; LTDIC_ERR_WRONG_STATE if there is no connection or listener; LTDIC_ERR_ROOM */
LTDIC_API int ltdic_net_name(const ltdic_net *net, int peer, ltdic_buffer *host, uint16_t *port);

/* ---- batches ----------------------------------------------------------------------------- */

/** One event of a server or a requestor. Its user is told of it once. */
typedef struct ltdic_event_row {
    uint64_t served;       /**< number of the association */
    size_t offset, length; /**< its bytes in the data of the batch */
    uint64_t wire;         /**< requestor: bytes of PDUs that have come with it */
    uint64_t place;        /**< requestor, FAULT: offset of the field at fault in its PDU */
    int32_t status;        /**< requestor: an ltdic_status */
    uint8_t kind;          /**< ltdic_served_kind, ltdic_requested_kind */
    uint8_t id, control;   /**< data: those of the last PDV */
} ltdic_event_row;

/** Events in order. A batch belongs to the server or requestor, and is valid until the next run. */
typedef struct ltdic_batch {
    const ltdic_event_row *events;
    size_t count;
    const uint8_t *data;
} ltdic_batch;

LTDIC_API void ltdic_free_data(void *data);

/* ---- requestor --------------------------------------------------------------------------- */

/** Opens associations on a loop, and collects what comes on them: many indications in one call.
 *  Opaque. */
typedef struct ltdic_requestor ltdic_requestor;

/** What a row of a requestor reports. */
typedef enum ltdic_requested_kind {
    LTDIC_REQUESTED_CONNECTED = 1, /**< bytes: the numeric host of the peer; `place`: its port */
    LTDIC_REQUESTED_FAILED = 2,    /**< there is no connection: `status`, and ltdic_net_cause */
    LTDIC_REQUESTED_DATA = 3, /**< bytes: a command or data set, or a part of it; id and control are
                                 those of the last PDV */
    LTDIC_REQUESTED_PDU = 4,  /**< bytes: a PDU other than a P-DATA-TF */
    LTDIC_REQUESTED_FAULT = 5,  /**< the peer broke PS3.8, or did not answer in time: `status`.
                                   Bytes: the first of the PDU at fault, 32 at most */
    LTDIC_REQUESTED_CLOSED = 6, /**< as LTDIC_CLOSED, with `status` */
    LTDIC_REQUESTED_ROOM = 7    /**< after LTDIC_ERR_ROOM of ltdic_net_send_data: at most half of
                                   LTDIC_MAX_QUEUE waits to be sent */
} ltdic_requested_kind;

/** Makes a requestor. ltdic_loop_next does not return indications of its endpoints.
 *  @return NULL if there is no memory */
LTDIC_API ltdic_requestor *ltdic_requestor_new(ltdic_loop *loop);
/** Frees a requestor with its endpoints. */
LTDIC_API void ltdic_requestor_free(ltdic_requestor *requestor);
/** Makes an endpoint, as ltdic_net_new does; `number` stands for it in the rows.
 *  @return NULL if there is no memory */
LTDIC_API ltdic_net *ltdic_requestor_net(ltdic_requestor *requestor, uint64_t number);
/** Waits until there are rows. LTDIC_REQUESTED_CONNECTED alone does not end the wait.
 *  @return LTDIC_OK; LTDIC_NEED_MORE if the time is up, or earlier if another user of the loop has
 *    an indication; LTDIC_ERR_INTERRUPTED after a signal or ltdic_loop_wake. There may be rows in
 *    any case */
LTDIC_API int ltdic_requestor_run(ltdic_requestor *requestor, ltdic_batch *batch, int milliseconds);
/** Sends data as ltdic_net_send_data does, but waits as ltdic_requestor_run does, until the system
 *  has taken all that is to be sent, or there are rows. Only what is left then is copied.
 *  @param data  NULL: waits for what was sent before
 *  @return LTDIC_OK: all was taken; LTDIC_NEED_MORE, LTDIC_ERR_INTERRUPTED: some is left; errors of
 *    ltdic_net_send_data: nothing was sent, and there are no rows */
LTDIC_API int ltdic_requestor_send_data(ltdic_requestor *requestor, ltdic_net *net,
                                        const ltdic_pdv *data, ltdic_batch *batch,
                                        int milliseconds);
/** Gives the `data` of the last batch to the caller, and takes such memory, as
 *  ltdic_server_take_data and ltdic_server_use_data do. */
LTDIC_API uint8_t *ltdic_requestor_take_data(ltdic_requestor *requestor, size_t *room);
LTDIC_API void ltdic_requestor_use_data(ltdic_requestor *requestor, uint8_t *data, size_t room);

/* ---- server ------------------------------------------------------------------------------ */

/** An acceptor on a loop. It accepts connections and answers requests by an ltdic_admission,
 *  without its user. It also answers C-ECHO in Verification contexts, and releases. Opaque. */
typedef struct ltdic_server ltdic_server;
/** The number of an association of a server. It is valid from the A-ASSOCIATE-RQ until the batch
 *  with LTDIC_SERVED_ENDED is over. A server never uses a number twice, so the number of an
 *  association that has ended does no harm. 0: no association. */
typedef uint64_t ltdic_served_id;

/** The events that the user of a server wants. */
enum {
    LTDIC_WANT_REQUESTS = 1, /**< admitted requests: the user answers, by ltdic_served_send */
    LTDIC_WANT_DATA = 2,     /**< data in contexts other than Verification; else it is discarded */
    LTDIC_WANT_ENDS = 4, /**< the end of every request, also a rejected one, and of each connection
                            without a request that sent something or lasted until ARTIM. The end of
                            an association with another event is always reported */
    LTDIC_WANT_VERIFICATION = 8 /**< data in the Verification contexts of associations accepted from
                                   then on: the user answers it */
};

typedef enum ltdic_served_kind {
    LTDIC_SERVED_REQUEST = 1,  /**< to be answered; bytes: the RQ, then the AC of the admission */
    LTDIC_SERVED_ACCEPTED = 2, /**< bytes: the RQ, then the AC that was sent */
    LTDIC_SERVED_DATA = 3,  /**< bytes: a command or data set, or a part of it; id and control are
                               those of the last PDV */
    LTDIC_SERVED_ENDED = 4, /**< ltdic_served_report has the outcome */
    LTDIC_SERVED_ROOM = 5   /**< after LTDIC_ERR_ROOM: at most half of LTDIC_MAX_QUEUE waits to be
                               sent. Until then no data of this peer is reported */
} ltdic_served_kind;

typedef enum ltdic_phase {
    LTDIC_PHASE_NONE = 0,   /**< no A-ASSOCIATE-RQ was admitted */
    LTDIC_PHASE_ASKING = 1, /**< an A-ASSOCIATE-RQ waits for an answer */
    LTDIC_PHASE_OPEN = 2,   /**< an A-ASSOCIATE-AC was sent */
    LTDIC_PHASE_OVER = 3 /**< rejected, released, aborted or lost; the connection may still be up */
} ltdic_phase;

typedef enum ltdic_outcome {
    LTDIC_OUTCOME_NONE = 0, /**< it is not over */
    LTDIC_OUTCOME_REJECTED = 1,
    LTDIC_OUTCOME_RELEASED = 2,
    LTDIC_OUTCOME_ABORTED = 3, /**< by the peer, by the user, or after a violation of PS3.8 */
    LTDIC_OUTCOME_TIMED_OUT = 4,
    LTDIC_OUTCOME_LOST = 5,       /**< the connection ended without a release or an abort */
    LTDIC_OUTCOME_NO_REQUEST = 6, /**< a connection without a whole A-ASSOCIATE-RQ */
    LTDIC_OUTCOME_FAULT = 7,      /**< a connection on which something else came: see `status` */
    LTDIC_OUTCOME_TLS_FAILED = 8  /**< a connection on which bytes came, but whose transport was not
                                     opened */
} ltdic_outcome;

/** The report of an association. Text is as received, in no particular encoding; each NUL inside a
 *  title is replaced by '?'. */
typedef struct ltdic_report {
    uint64_t received, sent; /**< bytes of PDUs */
    uint64_t milliseconds;   /**< from the A-ASSOCIATE-RQ to the end of the connection */
    int outcome;             /**< ltdic_outcome */
    int status;              /**< ltdic_status: the cause, such as LTDIC_ERR_ABORTED by the peer */
    ltdic_reject codes; /**< rejected: the codes sent; aborted: source and reason of the A-ABORT */
    uint16_t port;      /**< port and host of the peer, numeric; set if any event is wanted */
    char called[17], calling[17], host[48];
    uint64_t offset;   /**< fault: offset of the field at fault, from the first byte of its PDU */
    uint8_t first[32]; /**< without a request: the first bytes received, first_size of them */
    uint8_t first_size;
} ltdic_report;

/** Counts since the server was made. Each connection that is over is counted in one of accepted,
 *  rejected, unaccepted, no_request, faults and tls_failures. Each accepted association is counted
 *  in one of open, released, aborted, timed_out and lost. */
typedef struct ltdic_counters {
    uint64_t connections;  /**< accepted from the system */
    uint64_t no_request;   /**< without a whole A-ASSOCIATE-RQ */
    uint64_t faults;       /**< on which something other than an A-ASSOCIATE-RQ came */
    uint64_t tls_failures; /**< on which bytes came, but whose transport was not opened */
    uint64_t unaccepted;   /**< requests that ended before an answer was sent, or with an A-ABORT as
                              the answer */
    uint64_t accepted;     /**< A-ASSOCIATE-AC sent */
    uint64_t open;         /**< associations that are open now */
    uint64_t released, aborted, timed_out, lost;
    /** A-ASSOCIATE-RJ sent, by result - 1, source - 1, reason. One that is lost with its connection
     *  is counted until the loss is known. */
    uint64_t rejected[2][3][8];
    uint64_t rejected_undefined; /**< with codes that PS3.8 does not define */
} ltdic_counters;

/** Makes a server.
 *  @param loop  may have other servers and endpoints. ltdic_loop_next returns indications of
 *    endpoints that belong to no server, ltdic_server_run events of its own server
 *  @param admission  belongs to the caller, and must exist until ltdic_server_free. Several
 *    servers may share it: its limits then hold for all of them together
 *  @return NULL if there is no memory */
LTDIC_API ltdic_server *ltdic_server_new(ltdic_loop *loop, ltdic_admission *admission);
/** Frees a server and closes its connections, without sending anything. */
LTDIC_API void ltdic_server_free(ltdic_server *server);
/** Sets the deadlines of connections accepted after this call, as ltdic_association_set_timeouts
 *  does. */
LTDIC_API void ltdic_server_set_timeouts(ltdic_server *server, const ltdic_timeouts *timeouts);
/** Listens, as ltdic_net_listen does. */
LTDIC_API int ltdic_server_listen(ltdic_server *server, const ltdic_address *address, int backlog);
/** Listens at a socket that listens already, as ltdic_net_listen_on does. The next process may have
 *  it, too, so that a restart refuses nobody: ltdic_server_close then leaves the connections that
 *  wait to it, and answers the requests on connections that are accepted as before. */
LTDIC_API int ltdic_server_listen_on(ltdic_server *server, int descriptor);
/** Listens at the socket of another server, as ltdic_net_share does, so that several loops, each
 *  with a thread, serve one address. When one server closes, connections that wait are left to the
 *  others. */
LTDIC_API int ltdic_server_share(ltdic_server *server, ltdic_server *other);
/** Returns how often connections had to wait, since none could be accepted without descriptors or
 *  memory: each time counts once, until none waits. */
LTDIC_API uint32_t ltdic_server_lacks(const ltdic_server *server);
/** Returns why ltdic_server_listen or ltdic_server_share failed, or why connections had to wait the
 *  last time. */
LTDIC_API ltdic_cause ltdic_server_cause(const ltdic_server *server);
/** Limits connections, as ltdic_net_limit_connections does. */
LTDIC_API void ltdic_server_limit_connections(ltdic_server *server, uint32_t most);
/** Limits incomplete requests, as ltdic_net_limit_unfinished does. */
LTDIC_API void ltdic_server_limit_unfinished(ltdic_server *server, uint64_t bytes);
/** Makes the state of a transport for the connection that has this number.
 *  @return the state; NULL if there is no memory: the connection is closed then */
typedef void *(*ltdic_make_transport)(void *user, ltdic_served_id served);
/** Sets the transport of connections accepted after this call, as ltdic_net_set_transport does. The
 *  `free` of a state is called when the batch that reported the end of its association is over.
 *  @param user  any pointer, for `make` */
LTDIC_API void ltdic_server_set_transport(ltdic_server *server, const ltdic_transport *transport,
                                          ltdic_make_transport make, void *user);
/** Returns the address at which it listens, as ltdic_net_name does. */
LTDIC_API int ltdic_server_name(const ltdic_server *server, ltdic_buffer *host, uint16_t *port);

/** Serves until there is a wanted event. Calling it again confirms that the last batch was handled:
 *  releases that followed its data are answered then, not earlier.
 *
 *  @param wanted  any of LTDIC_WANT_...
 *  @return LTDIC_OK: only then there may be events; LTDIC_NEED_MORE if the time is up, or earlier
 *    if another server or endpoint of the loop has an indication; LTDIC_ERR_INTERRUPTED after a
 *    signal or ltdic_server_wake; LTDIC_ERR_CLOSED after ltdic_server_close, when everything is
 *    over */
LTDIC_API int ltdic_server_run(ltdic_server *server, ltdic_batch *batch, unsigned wanted,
                               int milliseconds);
/** Gives the `data` of the last batch to the caller, who gives it back by ltdic_server_use_data, or
 *  frees it with ltdic_free_data.
 *  @param[out] room  bytes allocated
 *  @return NULL if there is none, or if it holds an A-ASSOCIATE-RQ, which the server wipes */
LTDIC_API uint8_t *ltdic_server_take_data(ltdic_server *server, size_t *room);
/** Takes memory that ltdic_server_take_data gave, for the next batch, or frees it: the memory of
 * new pages costs more than to receive into it.
 *  @param room  as it was given */
LTDIC_API void ltdic_server_use_data(ltdic_server *server, uint8_t *data, size_t room);
/** Makes ltdic_server_run return soon. Call it from any thread, or in a signal handler. */
LTDIC_API void ltdic_server_wake(ltdic_server *server);

/** Sends as ltdic_net_send does; LTDIC_ERR_WRONG_STATE also if the association has ended. */
LTDIC_API int ltdic_served_send(ltdic_server *server, ltdic_served_id served, ltdic_bytes pdu);
/** Sends data as ltdic_net_send_data does. If the connection is lost, the data is discarded.
 *  LTDIC_ERR_ROOM also comes if other associations have to send first. After LTDIC_ERR_ROOM,
 *  LTDIC_SERVED_ROOM reports when to try again. */
LTDIC_API int ltdic_served_send_data(ltdic_server *server, ltdic_served_id served,
                                     const ltdic_pdv *data);
/** What the user of a server holds back while it works on what it has received. */
enum {
    LTDIC_HOLD_END = 1,   /**< the answer to a release, and the release after ltdic_server_close */
    LTDIC_HOLD_DATA = 2,  /**< data and releases of the peer: as by ltdic_net_hold */
    LTDIC_HOLD_BROKEN = 4 /**< a message was not sent to its end, so a release and
                             ltdic_server_close end the association by A-ABORT */
};
/** Holds back what is in `held`, LTDIC_HOLD_... together, and resumes the rest in the next run. */
LTDIC_API void ltdic_served_hold(ltdic_server *server, ltdic_served_id served, unsigned held);
/** Returns the report of an association; NULL if it has ended and the batch that reported it is
 *  over. */
LTDIC_API const ltdic_report *ltdic_served_report(const ltdic_server *server,
                                                  ltdic_served_id served);
/** Returns the ltdic_phase of an association; LTDIC_PHASE_NONE if the number is not known, or not
 *  any more. It may be called from any thread until ltdic_server_free. */
LTDIC_API int ltdic_served_phase(const ltdic_server *server, ltdic_served_id served);
/** Returns what ltdic_net_taken does; 0 if the association is not known, or not any more. */
LTDIC_API uint64_t ltdic_served_taken(const ltdic_server *server, ltdic_served_id served);

/** Begins to close; ltdic_server_run reports the end within `milliseconds`. No more connections
 *  are accepted. Requests are rejected with 2/3/1, also those of connections that wait to be
 *  accepted. Associations between two messages are released, the others when their data set is
 *  complete. After three quarters of the time the rest is aborted, and at the end all connections
 *  are closed. Calling it again can shorten the time. After ltdic_server_listen_on, nobody is
 *  rejected or released by it for half of the time. */
LTDIC_API void ltdic_server_close(ltdic_server *server, uint32_t milliseconds);
LTDIC_API const ltdic_counters *ltdic_server_counters(const ltdic_server *server);

/* [end] */

#ifdef __cplusplus
}
#endif

#include "l_dicom.h"

#endif
