/* SPDX-License-Identifier: MIT */
/** @file ltdic.h
 *  The DICOM Upper Layer (PS3.8) in C: codec, state machine, sockets, and the L_Dicom API.
 *
 *  Layers, each usable without those below it in this file:
 *
 *    bytes, status   types shared by all layers: byte views, status codes, faults
 *    PDUs            decode and encode (PS3.8 9.3, PS3.7 annex D): no malloc, no I/O, no clock
 *    stream          a byte stream into PDUs, and P-DATA as it comes: no malloc, no I/O, no clock
 *    upper layer     the state machine of PS3.8 table 9-10: no malloc, no I/O, no clock
 *    C-ECHO          its command sets (PS3.7 9.3.5): no malloc, no I/O, no clock
 *    association     all of the above for one connection, between its user and its transport: bytes
 *                    and time in, indications and bytes out; no I/O, no clock
 *    net             event loop and non-blocking sockets; drives any number of associations on one
 *                    thread
 *    admission       who is let in (PS3.8 7.1): a policy, and the answers it gives; no I/O
 *    server          an acceptor that keeps to an admission, with batches for its user
 *    L_Dicom         callbacks and handles, in l_dicom.h, included at the end
 *
 *  Threads: any number of objects, each used by one thread at a time. The library starts no thread.
 *  A loop and everything made from it belong to one thread at a time; only ltdic_loop_wake and
 *  ltdic_server_wake may be called from any, and in a signal handler. Several threads may use
 *  one admission at once: it has a lock.
 *
 *  Ownership: `ltdic_bytes` never owns. A function copies what it keeps, unless its comment says
 * that the memory is lent; what it hands out stays valid as long as its comment says.
 *
 *  Passcodes of user identities: each copy that the library makes is wiped before its memory is
 *  freed.
 */
#ifndef LTDIC_H
#define LTDIC_H

#include <stddef.h>
#include <stdint.h>

#define LTDIC_VERSION "0.1.0"

/* The documented name of the calling convention; between return type and name it makes a plain
 * function, as the documentation of every callback prints it. Both spellings are the same. */
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

/* [cdef] From here to [end] everything is also the declaration that the Python package reads. */

/* ---- bytes ------------------------------------------------------------------------------- */

/** A pointer and a size; never owned. `data` may be NULL where `size` is 0. */
typedef struct ltdic_bytes {
    const uint8_t *data;
    size_t size;
} ltdic_bytes;

/** Memory of the caller to write into. */
typedef struct ltdic_buffer {
    uint8_t *data;
    size_t room; /**< bytes at `data` */
    size_t size; /**< bytes written, or needed where the room was too small */
} ltdic_buffer;

/* ---- status ------------------------------------------------------------------------------ */

/** Result of a call; a negative one is an error. */
typedef enum ltdic_status {
    LTDIC_OK = 0,
    LTDIC_NEED_MORE = 1, /**< no error; more bytes or time are needed */

    LTDIC_ERR_BAD_PDU_TYPE = -1,    /**< byte 0 is not 01 to 07 */
    LTDIC_ERR_BAD_LENGTH = -2,      /**< a length field that the type cannot have */
    LTDIC_ERR_ITEM_OVERRUN = -3,    /**< an item, PDV or field runs past what contains it */
    LTDIC_ERR_BAD_VALUE = -4,       /**< strict: illegal value; encoding: value not encodable */
    LTDIC_ERR_MISSING_ITEM = -5,    /**< strict: a required item is absent */
    LTDIC_ERR_DUPLICATE_ITEM = -6,  /**< strict: a second one where one is allowed */
    LTDIC_ERR_BAD_ORDER = -7,       /**< strict: items out of order */
    LTDIC_ERR_TRAILING_BYTES = -8,  /**< strict: bytes after the last field of an item */
    LTDIC_ERR_UNEXPECTED_ITEM = -9, /**< strict: a bad_value, namely an item of the other
                                         direction, as 21 in an RQ */

    LTDIC_ERR_TOO_LARGE = -20, /**< PDU length above the limit set by the caller */
    LTDIC_ERR_ROOM = -21,      /**< the caller's memory is too small */

    LTDIC_ERR_WRONG_STATE = -40,    /**< not in this state; nothing was changed */
    LTDIC_ERR_UNEXPECTED_PDU = -41, /**< the peer sent a good PDU in the wrong state */
    LTDIC_ERR_UNEXPECTED_PDV = -42, /**< the peer sent a PDV of a context that was not accepted, or
                                         where the message before it is not at its end */

    LTDIC_ERR_ADDRESS = -60,     /**< the host or port cannot be resolved or bound */
    LTDIC_ERR_CONNECT = -61,     /**< refused or unreachable */
    LTDIC_ERR_CLOSED = -62,      /**< the peer or the network ended the connection */
    LTDIC_ERR_TIMEOUT = -63,     /**< ARTIM, or another deadline, has passed */
    LTDIC_ERR_ABORTED = -64,     /**< the peer sent A-ABORT */
    LTDIC_ERR_INTERRUPTED = -65, /**< a signal, or a call to wake, ended the wait */
    LTDIC_ERR_SYSTEM = -66,      /**< the operating system refused; errno says why */
    LTDIC_ERR_CONGESTION = -67,  /**< the requests that are not whole yet took too many bytes */

    LTDIC_ERR_MEMORY = -80 /**< out of memory; nothing was changed */
} ltdic_status;

/** A status and its place. */
typedef struct ltdic_fault {
    int status;
    uint64_t offset; /**< of the field at fault, from the first byte of the PDU */
    uint64_t need;   /**< with LTDIC_NEED_MORE: least size of the PDU worth calling again with */
} ltdic_fault;

/** The short name of a status, as `bad_length`; of an unknown one, `unknown`. */
LTDIC_API const char *ltdic_status_name(int status);
/** One English line about a status, without a full stop. */
LTDIC_API const char *ltdic_status_text(int status);
/** The reason to put into an A-ABORT of source 2 for a fault (PS3.8 9.3.8, table 9-26). */
LTDIC_API uint8_t ltdic_abort_reason(int status);
/** The version of the library, as `1.2.3`. */
LTDIC_API const char *ltdic_version(void);
/** The implementation class UID of the library (PS3.7 D.3.3.2); its version name is `LTDIC_` and
 * the version. */
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
#define LTDIC_FIXED_PDU_SIZE 10     /* of RJ, RELEASE and ABORT, header included */

/** Limits and modes of a decoder. NULL where one is taken means max_associate
 *  LTDIC_MAX_ASSOCIATE and 0 for the others; a field that `size` does not reach means the same. */
typedef struct ltdic_options {
    size_t size;            /**< sizeof(ltdic_options), as the caller was compiled */
    uint32_t max_pdata;     /**< largest PDU length of a P-DATA-TF; 0: no limit */
    uint32_t max_associate; /**< largest PDU length of an RQ or AC; 0: no limit */
    uint8_t strict;         /**< 1: refuse all that PS3.8 forbids, not only what is unsafe */
    uint8_t exact;          /**< 1: rows for every byte, so that ltdic_encode gives the same PDU */
    uint8_t reserved[6];    /**< 0 */
} ltdic_options;

/** The kinds of rows of a decoded PDU. In brackets: what `offset` and `length` cover, then the
 *  other fields that are set. Text is already trimmed (titles: spaces; UIDs: a NUL pad), but when
 *  exact it is the whole field, and a cut at the first NUL and at the spaces around is to be made.
 */
typedef enum ltdic_kind {
    LTDIC_PDU = 1,                   /**< always first [the body]; type; RQ, AC: version;
                                          RJ: result, source, reason; ABORT: source, reason */
    LTDIC_CALLED_AE = 2,             /**< RQ, AC [text] */
    LTDIC_CALLING_AE = 3,            /**< RQ, AC [text] */
    LTDIC_APPLICATION_CONTEXT = 4,   /**< item 10 [UID] */
    LTDIC_CONTEXT = 5,               /**< item 20 or 21 [sub-items]; id; 21: result */
    LTDIC_ABSTRACT_SYNTAX = 6,       /**< item 30 of the context before it [UID] */
    LTDIC_TRANSFER_SYNTAX = 7,       /**< item 40 of the context before it [UID] */
    LTDIC_USER_INFORMATION = 8,      /**< item 50 [sub-items]; all after it are in it */
    LTDIC_MAX_LENGTH = 9,            /**< item 51 [4 bytes, big endian] */
    LTDIC_CLASS_UID = 10,            /**< item 52 [UID] */
    LTDIC_ASYNC_OPERATIONS = 11,     /**< item 53 [invoked, performed: 2 bytes each, big endian] */
    LTDIC_ROLE = 12,                 /**< item 54 [UID]; scu, scp in id, result */
    LTDIC_VERSION_NAME = 13,         /**< item 55 [text] */
    LTDIC_EXTENDED = 14,             /**< item 56 [UID] */
    LTDIC_EXTENDED_INFO = 15,        /**< of the item 56 before it [bytes] */
    LTDIC_COMMON_EXTENDED = 16,      /**< item 57 [UID]; version */
    LTDIC_COMMON_SERVICE = 17,       /**< of the item 57 before it [UID] */
    LTDIC_COMMON_RELATED = 18,       /**< of the item 57 before it [UID], any number */
    LTDIC_USER_IDENTITY = 19,        /**< item 58 [primary field]; identity type in id,
                                          response requested in result */
    LTDIC_USER_IDENTITY_SECOND = 20, /**< of the item 58 before it [secondary field] */
    LTDIC_USER_IDENTITY_RESPONSE = 21, /**< item 59 [server response] */
    LTDIC_UNKNOWN_ITEM = 22,           /**< any other item of the PDU [value]; type */
    LTDIC_UNKNOWN_SUB_ITEM = 23,       /**< any other sub-item of item 50 [value]; type */
    LTDIC_PDV = 24,                    /**< P-DATA-TF [fragment]; id; control header in result */
    LTDIC_HEADER = 25, /**< exact: right after each PDU and item [its bytes up to the first value,
                            reserved ones included; of an RJ or ABORT, up to the codes] */
    LTDIC_IGNORED = 26 /**< exact [bytes that mean nothing]; id: where they are: 0 between the
                            items of the PDU, 1 in item 20, 21 or 50, 2 at the end of a sub-item */
} ltdic_kind;

/** One row: a piece of a PDU and where it lies. */
typedef struct ltdic_item {
    uint32_t offset, length; /**< of the value, from the first byte of the PDU */
    uint8_t kind;            /**< ltdic_kind */
    uint8_t type;            /**< the type byte; 0 where the standard has none */
    uint8_t id, result, source, reason;
    uint16_t version;
} ltdic_item;

/** Rows in memory of the caller. */
typedef struct ltdic_items {
    ltdic_item *items;
    size_t room; /**< rows at `items` */
    size_t
        count; /**< rows filled, or needed where LTDIC_ERR_ROOM says that the room was too small */
} ltdic_items;

/** The codes of an A-ASSOCIATE-RJ (PS3.8 table 9-21), raw. */
typedef struct ltdic_reject {
    uint8_t result, source, reason;
} ltdic_reject;

/** 1 if the combination is one of the 16 that PS3.8 defines, so that it may be sent, else 0. */
LTDIC_API int ltdic_reject_is_defined(ltdic_reject reject);

/** Find the first whole PDU in the bytes received so far, without looking into its body.
 *
 *  Nothing is copied: `*pdu` points into `in`. Call again with the same bytes and more after them
 *  when the answer is LTDIC_NEED_MORE.
 *
 *  @param[out] pdu      header and body, when LTDIC_OK
 *  @param      in       bytes not yet consumed, from a PDU boundary
 *  @param      options  NULL for the defaults
 *  @param[out] fault    status, offset, need
 *  @return LTDIC_OK, LTDIC_NEED_MORE,
 *          LTDIC_ERR_BAD_PDU_TYPE on the first byte, without waiting for more,
 *          LTDIC_ERR_BAD_LENGTH or LTDIC_ERR_TOO_LARGE on the sixth, without waiting for the body,
 *          LTDIC_ERR_TOO_LARGE too for a PDU of more than UINT32_MAX bytes, once it is there
 */
LTDIC_API int ltdic_frame(ltdic_bytes *pdu, ltdic_bytes in, const ltdic_options *options,
                          ltdic_fault *fault);

/** Decode the first PDU of `in` into rows (PS3.8 9.3, PS3.7 D.3.3), in the order of the bytes.
 *
 *  Nothing is copied: the rows say where in `in` each value lies. Time is linear in the PDU's size.
 *
 *  @param[out] out    rows, up to the fault where there is one; NULL to check only. Where the room
 *                     is too small, LTDIC_ERR_ROOM and `count` is the number of rows needed
 *  @param      in, options, fault  as of ltdic_frame
 *  @return as ltdic_frame; LTDIC_ERR_ROOM; the first fault of the body, left to right:
 *          LTDIC_ERR_BAD_LENGTH, LTDIC_ERR_ITEM_OVERRUN, and when strict LTDIC_ERR_BAD_VALUE,
 *          _MISSING_ITEM, _DUPLICATE_ITEM, _BAD_ORDER, _TRAILING_BYTES, _UNEXPECTED_ITEM
 */
LTDIC_API int ltdic_decode(ltdic_items *out, ltdic_bytes in, const ltdic_options *options,
                           ltdic_fault *fault);

/** Encode one PDU from rows such as ltdic_decode makes.
 *
 *  Rows come in the order of the PDU; offsets count from the start of `values`. Reserved bytes are
 *  zero, titles are padded with spaces, UIDs are not padded. A rejected context of an AC that has
 *  no transfer syntax gets an empty sub-item 40. Code fields take any value.
 *
 *  Rows of an exact decoding, known by the LTDIC_HEADER after LTDIC_PDU, give the bytes that were
 *  decoded, whatever lenient mode let through. A row may be pointed to another value before: the
 *  lengths are made to fit, and no text is checked but for a title's size.
 *
 *  @param[in,out] out     `size` is set to the bytes written
 *  @param         rows    the first is LTDIC_PDU
 *  @param         values  what the rows point into
 *  @param[out]    fault   `offset` is the number of the row at fault
 *  @return LTDIC_OK, LTDIC_ERR_ROOM and `out->size` needed, LTDIC_ERR_BAD_VALUE for a row that
 *          cannot be encoded (illegal title, UID or version name, a value outside `values`, a kind
 *          that has no place here), LTDIC_ERR_TOO_LARGE for an item over 65535 bytes
 */
LTDIC_API int ltdic_encode(ltdic_buffer *out, const ltdic_items *rows, ltdic_bytes values,
                           ltdic_fault *fault);

/** Encode an RJ, RELEASE or ABORT (PS3.8 9.3.4, 9.3.6 to 9.3.8) into LTDIC_FIXED_PDU_SIZE bytes;
 *  `codes` are the last three of them. */
LTDIC_API void ltdic_encode_fixed(uint8_t *out, uint8_t type, ltdic_reject codes);

/** Decode a run of A-ASSOCIATE-RJ (PS3.8 9.3.4), one right after another, as lenient mode does.
 *
 *  @param[out] out    three bytes for each: result, source, reason. What comes before a fault is
 *                     there with it
 *  @param[out] fault  offset and need count from the first byte of `in`
 *  @return LTDIC_OK when `in` is at its end; as ltdic_frame; LTDIC_ERR_UNEXPECTED_PDU at a PDU of
 *          another type; LTDIC_ERR_ROOM, and `fault->offset` is that of the PDU to go on with */
LTDIC_API int ltdic_decode_rejects(ltdic_buffer *out, ltdic_bytes in, ltdic_fault *fault);

/** A presentation data value (PS3.8 9.3.5.1), pointing into the PDU. */
typedef struct ltdic_pdv {
    uint8_t id, control;
    ltdic_bytes data;
} ltdic_pdv;

/** Take the next PDV off the body of a P-DATA-TF that ltdic_decode found good.
 *  @param[in,out] rest  the PDU without its six header bytes, then what is left of it
 *  @return LTDIC_OK, or LTDIC_NEED_MORE after the last one */
LTDIC_API int ltdic_next_pdv(ltdic_bytes *rest, ltdic_pdv *pdv);

/* ---- stream ------------------------------------------------------------------------------ */

/** A byte stream's place inside its PDUs. Lives where the caller likes, begins as all zeroes; its
 *  fields are private. */
typedef struct ltdic_stream {
    uint64_t offset;   /* of the next byte, from the first of the PDU in progress */
    uint32_t pdu_left; /* bytes of a P-DATA-TF that are to come */
    uint32_t pdv_left; /* bytes of its PDV that are to come */
    uint8_t id, control;
} ltdic_stream;

/** One piece that a stream hands out: a whole PDU, or a part of a PDV. */
typedef struct ltdic_piece {
    ltdic_bytes data; /**< the PDU, header included; or bytes of the PDV's fragment, maybe none */
    uint8_t type;     /**< PDU type; LTDIC_DATA_TF: the rest is about the PDV */
    uint8_t id, control;
    uint8_t first; /**< 1: the PDV begins here */
    uint8_t last;  /**< 1: it ends here */
    uint8_t end;   /**< 1: and so does the PDU */
} ltdic_piece;

/** Take the next piece off a stream. A P-DATA-TF is handed out as it comes, so that its size costs
 *  no memory; the bodies of other PDUs are for ltdic_decode to look into.
 *
 *  Nothing is copied: `piece->data` points into what was in `*in`.
 *
 *  @param[in,out] in       bytes as they came, then what is left of them, to be kept in front of
 *                          those that come next
 *  @param         options  as of ltdic_decode
 *  @return LTDIC_OK; LTDIC_NEED_MORE, and `fault->need` counts from the first byte of the PDU in
 *          progress, as `fault->offset` does; as ltdic_frame, and for a P-DATA-TF as ltdic_decode:
 *          then the stream is at its end */
LTDIC_API int ltdic_stream_next(ltdic_stream *stream, ltdic_piece *piece, ltdic_bytes *in,
                                const ltdic_options *options, ltdic_fault *fault);

/* ---- upper layer ------------------------------------------------------------------------- */

/** The events of PS3.8 table 9-10, by their numbers. Evt3, 4, 6, 10, 12, 13, 16 come from
 *  ltdic_ul_receive, Evt19 from ltdic_ul_fault, the others from ltdic_ul_event. */
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

/** One association's place in table 9-10. Lives where the caller likes; its fields are private. */
typedef struct ltdic_ul {
    uint8_t state;        /* 1 to 13 */
    uint8_t requestor;    /* 1 on the side that sent the A-ASSOCIATE-RQ */
    uint32_t artim;       /* length of the timer, ms */
    uint64_t deadline;    /* when ARTIM fires, ms on the caller's clock; 0: it does not run */
    ltdic_reject refusal; /* what AE-6 answers, or has answered, instead of asking the user;
                             result 0: it asks */
} ltdic_ul;

/** The actions that the caller has to do now, in this order: open or send, tell, close. */
typedef struct ltdic_effects {
    uint8_t action;     /**< ltdic_action, for whoever wants to watch */
    uint8_t open;       /**< 1: ask the transport to connect */
    uint8_t send;       /**< PDU type to send, 0 for none */
    uint8_t tell;       /**< 1: the event is for the user */
    uint8_t close;      /**< 1: close the transport */
    ltdic_reject codes; /**< of the A-ABORT to send (source, reason), or of the RJ of AE-6 */
} ltdic_effects;

/** Put a machine into Sta1, with ARTIM at `artim` milliseconds (PS3.8 9.1.5). */
LTDIC_API void ltdic_ul_init(ltdic_ul *ul, uint32_t artim);

/** An event of the local user, the transport or the timer.
 *
 *  An A-ABORT request has no cell in Sta1, Sta2 and Sta13: in Sta2 it closes the transport as AA-2
 *  does, in the other two it does nothing and is no error.
 *
 *  @param[out] effects  all zero where an error is returned
 *  @param      now      milliseconds on a clock that never goes back
 *  @return LTDIC_OK, LTDIC_ERR_WRONG_STATE where table 9-10 has no cell: nothing has changed */
LTDIC_API int ltdic_ul_event(ltdic_ul *ul, ltdic_effects *effects, ltdic_event event, uint64_t now);

/** A PDU that ltdic_decode found good.
 *  @return LTDIC_OK, LTDIC_ERR_UNEXPECTED_PDU when it was answered with an A-ABORT,
 *          LTDIC_ERR_BAD_VALUE for an AC without protocol version 1, also aborted,
 *          LTDIC_ERR_WRONG_STATE in Sta1 and Sta4, where no PDU can arrive */
LTDIC_API int ltdic_ul_receive(ltdic_ul *ul, ltdic_effects *effects, ltdic_bytes pdu, uint64_t now);

/** Bytes that are no good PDU; `status` is what the decoder said (PS3.8 table 9-10, Evt19).
 *  @return LTDIC_OK, LTDIC_ERR_WRONG_STATE in Sta1 and Sta4 */
LTDIC_API int ltdic_ul_fault(ltdic_ul *ul, ltdic_effects *effects, int status, uint64_t now);

/* ---- C-ECHO ------------------------------------------------------------------------------ */

/** Command fields (PS3.7 E.1). */
enum { LTDIC_C_ECHO_RQ = 0x0030, LTDIC_C_ECHO_RSP = 0x8030 };

#define LTDIC_ECHO_ROOM 128 /* bytes that hold any encoded C-ECHO */

/** The command set of a C-ECHO (PS3.7 9.3.5), the only one that this library reads. */
typedef struct ltdic_echo {
    uint16_t field;     /**< LTDIC_C_ECHO_RQ or LTDIC_C_ECHO_RSP; 0: this is none */
    uint16_t message;   /**< message ID; of a response, that of its request */
    uint16_t status;    /**< of a response; 0: success */
    char sop_class[65]; /**< affected SOP class UID; "" in a response that has none */
} ltdic_echo;

/** Encode, in Implicit VR Little Endian, as one fragment that is command and last.
 *  @return LTDIC_OK, LTDIC_ERR_ROOM, LTDIC_ERR_BAD_VALUE for an illegal UID or another field */
LTDIC_API int ltdic_encode_echo(ltdic_buffer *out, const ltdic_echo *echo);
/** @return LTDIC_OK, LTDIC_ERR_BAD_VALUE where `command` is no whole command set of a C-ECHO */
LTDIC_API int ltdic_decode_echo(ltdic_echo *echo, ltdic_bytes command);
/** Does a command set say that a data set follows (PS3.7 E.1)?
 *  @return 1, 0; -1 where that is not found */
LTDIC_API int ltdic_announces_data_set(ltdic_bytes command);
/** The maximum length of an A-ASSOCIATE-RQ or -AC that was decoded without a fault (PS3.8 D.1).
 *  @return 0: no limit, or none is announced */
LTDIC_API uint32_t ltdic_max_length_of(ltdic_bytes pdu);

/* ---- association ------------------------------------------------------------------------- */

/** One association between its user and its transport. Opaque.
 *
 *  The user sends; the transport hands in what was received and takes what is to be sent; whatever
 *  happens comes out of ltdic_association_next. `now` is always milliseconds on one clock that
 *  never goes back.
 *
 *  What was negotiated is kept to: what an AC accepts must have been proposed, PDVs must belong to
 *  accepted contexts and to whole messages (PS3.8 E.1), in both directions. */
typedef struct ltdic_association ltdic_association;

/** Deadlines, in milliseconds as the clock counts them: to less than one. */
typedef struct ltdic_timeouts {
    size_t size;    /**< sizeof(ltdic_timeouts), as the caller was compiled */
    uint32_t artim; /**< PS3.8 9.1.5: for an A-ASSOCIATE-RQ to be there whole, and for the peer to
                         close at the end; 0: 30000 */
    uint32_t response; /**< for a connection to be up; for an AC or RJ, and for an A-RELEASE-RP, to
                          be there whole; 0: for ever */
    uint32_t idle;     /**< established, without a byte of data in either direction; empty PDVs do
                            not count; 0: for ever */
} ltdic_timeouts;

/** Bytes of PDUs that may wait to be sent, where some wait already. */
#define LTDIC_MAX_QUEUE 1048576

typedef enum ltdic_indication_kind {
    LTDIC_RECEIVED = 1, /**< a PDU for the user, or a piece of a P-DATA-TF. With a status: what came
                             was no such thing, and was answered with an A-ABORT; LTDIC_ERR_TIMEOUT:
                             nothing came in time, and an A-ABORT was sent */
    LTDIC_SENT = 2,     /**< a PDU has been taken by the transport, or was lost (status) */
    LTDIC_CLOSED = 3,   /**< the end: close the transport, if it is still open. Status OK after
                             reject, release, or an abort of our own, else the cause;
                             LTDIC_ERR_TIMEOUT where the peer left the closing to ARTIM */
    LTDIC_CONNECTED = 4, /**< net: the connection asked for is up, or has failed (status) */
    LTDIC_PENDING = 5,   /**< net, listener: a connection waits for ltdic_net_accept */
    LTDIC_REFUSED = 6    /**< acceptor: the provider has refused an A-ASSOCIATE-RQ, with `codes`; it
                             has not been RECEIVED, and its A-ASSOCIATE-RJ goes out (PS3.8 AE-6) */
} ltdic_indication_kind;

/** One thing that happened on an association. */
typedef struct ltdic_indication {
    int kind;        /**< ltdic_indication_kind */
    int status;      /**< ltdic_status */
    uint8_t type;    /**< PDU type of RECEIVED and SENT; 0 where it is not known */
    uint64_t size;   /**< SENT: bytes of the PDU */
    uint64_t offset; /**< where a decoder's status is about the peer's bytes: of the field at fault,
                          from the first byte of its PDU */
    ltdic_reject codes; /**< REFUSED */
    ltdic_bytes pdu; /**< RECEIVED, REFUSED: the PDU as it came. Of a P-DATA-TF: what came since the
                        last piece; all of them make the PDU */
    ltdic_piece piece; /**< RECEIVED, P-DATA-TF: the data in it. `control` says "last" only with the
                            last piece of the PDV */
} ltdic_indication;

/** @return NULL when out of memory */
LTDIC_API ltdic_association *ltdic_association_new(void);
LTDIC_API void ltdic_association_free(ltdic_association *association);
/** Takes effect for what begins after it. */
LTDIC_API void ltdic_association_set_timeouts(ltdic_association *association,
                                              const ltdic_timeouts *timeouts);
#define LTDIC_MAX_ITEMS 8192 /* rows that ltdic_decode makes of an RQ or AC */
/** The largest PDU length of an A-ASSOCIATE-RQ or -AC that is waited for; a larger one is
 *  LTDIC_ERR_TOO_LARGE at its sixth byte. LTDIC_MAX_ASSOCIATE to begin with. One with more than
 *  LTDIC_MAX_ITEMS items and sub-items is LTDIC_ERR_TOO_LARGE, too, when it is there. */
LTDIC_API void ltdic_association_limit_associate(ltdic_association *association, uint32_t bytes);
/** The number (1 to 13) of the state. */
LTDIC_API int ltdic_association_state(const ltdic_association *association);

/** 1 where a PDU that has begun to come is not at its end, or the message that it belongs to is
 * not: the peer has more to send before it waits for an answer. After a command that may be
 * followed by a data set it is 1, too. */
LTDIC_API int ltdic_association_expects_more(const ltdic_association *association);

/** The transport is up: LTDIC_EVT_CONNECTED after a request, LTDIC_EVT_ACCEPTED at an acceptor.
 *  @return LTDIC_OK, LTDIC_ERR_WRONG_STATE */
LTDIC_API int ltdic_association_opened(ltdic_association *association, ltdic_event event,
                                       uint64_t now);
/** The transport is gone: LTDIC_OK where we closed it, else why it went, such as LTDIC_ERR_CLOSED.
 *  What was received before is handed in first. LTDIC_CLOSED follows. */
LTDIC_API void ltdic_association_closed(ltdic_association *association, int status, uint64_t now);

/** Send one whole PDU other than a P-DATA-TF, as the user: its type says which request or response
 *  of PS3.8 7 it is. It is copied. In an AC, bytes 10 to 73 are those of the RQ received, whatever
 *  `pdu` has there (PS3.8 9.3.3). What the RQ and AC say of maximum lengths and contexts holds from
 *  then on.
 *  @return LTDIC_OK, LTDIC_ERR_WRONG_STATE, LTDIC_ERR_ROOM when too much is waiting,
 *          LTDIC_ERR_MEMORY; LTDIC_ERR_BAD_VALUE for an AC that does not answer each context of the
 *          RQ once, or accepts what was not proposed, or for bytes that cannot be decoded */
LTDIC_API int ltdic_association_send(ltdic_association *association, ltdic_bytes pdu, uint64_t now);

/** Send a command, a data set, or a part of one, of any length: cut into P-DATA-TF of one PDV each,
 *  as large as the peer takes (PS3.8 D.1). `data->control` has bit 0 for a command, and bit 1 where
 *  `data` ends it.
 *
 *  The bytes are lent until ltdic_association_keep, and copied only where they still wait then.
 *  Each PDU is told with its own LTDIC_SENT. A part may have an odd number of bytes: its last byte
 *  is then copied, and sent in front of the next part. One byte alone makes no PDU.
 *  @return LTDIC_OK, LTDIC_ERR_WRONG_STATE also for data where a command must come, or of another
 *          context inside a message; LTDIC_ERR_BAD_VALUE where the whole command or data set has an
 *          odd number of bytes (PS3.8 E.1), or for a context that was not accepted; LTDIC_ERR_ROOM
 * where bytes wait already and these would make it more than LTDIC_MAX_QUEUE, or where LTDIC_SENT
 * has not told of 1024 calls yet; LTDIC_ERR_TOO_LARGE where the peer takes no data at all: its
 * maximum is below 8; LTDIC_ERR_MEMORY */
LTDIC_API int ltdic_association_send_data(ltdic_association *association, const ltdic_pdv *data,
                                          uint64_t now);

/** The bytes to send next, in order, for one writev. */
typedef struct ltdic_output {
    ltdic_bytes parts[64];
    size_t count;            /**< 0: nothing is */
    uint8_t headers[32][13]; /* some of the parts; private */
} ltdic_output;

/** The parts stay until anything else is called for this association. */
LTDIC_API void ltdic_association_output(const ltdic_association *association, ltdic_output *output);
/** So many bytes of the output have been taken by the transport. */
LTDIC_API void ltdic_association_sent(ltdic_association *association, size_t size, uint64_t now);
/** Both at once, for a transport that wants one stretch of bytes: as much of the output as there is
 *  room for is copied to `out`, and taken. Nothing is lent after it, where all fitted.
 *  @return bytes that still wait */
LTDIC_API size_t ltdic_association_take(ltdic_association *association, ltdic_buffer *out,
                                        uint64_t now);
/** Copy what is lent and still waits: the lender's bytes are not looked at any more.
 *  @return LTDIC_OK, LTDIC_ERR_MEMORY: the same as ltdic_association_lost */
LTDIC_API int ltdic_association_keep(ltdic_association *association);
/** End it as for an invalid PDU (AA-1, AA-8), with an A-ABORT, and look at nothing more of what the
 *  peer sends; `status` is what LTDIC_CLOSED tells then. Without a transport nothing is done. */
LTDIC_API void ltdic_association_fail(ltdic_association *association, int status, uint64_t now);
/** The transport takes nothing more, but there may be more to receive. */
LTDIC_API void ltdic_association_lost(ltdic_association *association);

/** Take the next thing that happened, or pass the time.
 *
 *  Nothing is copied: `indication->pdu` points into what was in `*in`. What was sent before the
 *  bytes in it came is told before them, what was sent later after them.
 *
 *  @param[in,out] in  bytes as they came, then what is left of them, to be kept in front of those
 *                     that come next: less than one PDU that is no P-DATA-TF
 *  @return LTDIC_OK, LTDIC_NEED_MORE when there is nothing until more is received, something is
 *          sent, or ltdic_association_deadline passes */
LTDIC_API int ltdic_association_next(ltdic_association *association, ltdic_indication *indication,
                                     ltdic_bytes *in, uint64_t now);
/** The size of the PDU whose beginning ltdic_association_next has left: it is looked at when all of
 *  it is there. 0: every byte may be of use, as in a P-DATA-TF. */
LTDIC_API uint64_t ltdic_association_needs(const ltdic_association *association, ltdic_bytes left);
/** When to call ltdic_association_next although nothing was received; 0: never. */
LTDIC_API uint64_t ltdic_association_deadline(const ltdic_association *association);

/* ---- messages ---------------------------------------------------------------------------- */

/** Finds the C-ECHO among the messages that one association receives, however they are cut into
 *  PDVs and pieces. Lives where the caller likes, begins as all zeroes; its fields are private. */
typedef struct ltdic_echo_reader {
    uint8_t *command; /* the beginning of a command set, 1024 bytes of room; or NULL */
    uint32_t size;    /* bytes in it */
    uint8_t too_long; /* 1: this command set is too long for a C-ECHO */
} ltdic_echo_reader;

/** Look at the next piece of the peer's P-DATA-TFs.
 *  @return LTDIC_OK: a command set ends here, and `echo` is what it says; LTDIC_NEED_MORE: none
 *          ends here, or it is no C-ECHO, or longer than 1024 bytes; LTDIC_ERR_MEMORY */
LTDIC_API int ltdic_echo_reader_take(ltdic_echo_reader *reader, ltdic_echo *echo,
                                     const ltdic_piece *piece);
/** Forget what has come: for the end of the association. Frees its memory. */
LTDIC_API void ltdic_echo_reader_clear(ltdic_echo_reader *reader);

/* ---- admission --------------------------------------------------------------------------- */

/** Who is let in, how many of them at once, and what they may do: what an acceptor answers to an
 *  A-ASSOCIATE-RQ without asking anybody. No I/O, no clock. Opaque.
 *
 *  One thread says what is let in. After that any number of threads may judge and leave, set limits
 *  and take rules at once: a lock is held for the time of each call.
 *
 *  A new one lets in everybody, with no context at all. Protocol version and application context
 *  are not its business: the association refuses them before (1/2/2, 1/1/2). */
typedef struct ltdic_admission ltdic_admission;

/** The decision about a request. The caller owns it until ltdic_admission_leave. */
typedef struct ltdic_answer {
    ltdic_reject refusal; /**< what to reject it with (PS3.8 table 9-21); result 0: it is let in */
    uint8_t verification[32]; /**< let in: bit `id % 8` of byte `id / 8` is 1 for each context ID of
                                   the request that proposes Verification; of several contexts with
                                   one ID the first counts */
    uint8_t admitted;         /* 1: it takes a place; private, as are the next */
    struct ltdic_tally *caller, *host;
} ltdic_answer;

#define LTDIC_ACCEPT_ROOM 24576 /* bytes that hold any AC of ltdic_admission_judge */

/** @return NULL when out of memory */
LTDIC_API ltdic_admission *ltdic_admission_new(void);
/** Answers that it gave must not be left any more. Passcodes are wiped. */
LTDIC_API void ltdic_admission_free(ltdic_admission *admission);

/* The next functions add to what is let in. Everything given is copied.
 * @return LTDIC_OK, LTDIC_ERR_BAD_VALUE for an illegal title or UID, LTDIC_ERR_MEMORY */

/** A called AE title. Where there is one, others are refused: 1/1/7. */
LTDIC_API int ltdic_admission_add_called(ltdic_admission *admission, const char *title);
/** A calling AE title. Where there is one, others are refused: 1/1/3. */
LTDIC_API int ltdic_admission_add_calling(ltdic_admission *admission, const char *title);
/** An abstract syntax; its transfer syntaxes follow. Contexts of others are answered with result 3
 *  (PS3.8 table 9-18), those without a transfer syntax of ours with 4. */
LTDIC_API int ltdic_admission_add_context(ltdic_admission *admission, const char *abstract_syntax);
/** A transfer syntax of the abstract syntax added last; the first of them that is proposed will be
 *  taken. */
LTDIC_API int ltdic_admission_add_transfer(ltdic_admission *admission, const char *transfer_syntax);
/** A user (PS3.7 D.3.3.7). Where there is one, all requests without a user name that was added, or
 *  with another passcode, are refused: 1/2/1. Where a response is asked for, the AC has one.
 *  @param passcode  NULL data: the name is enough */
LTDIC_API int ltdic_admission_add_identity(ltdic_admission *admission, ltdic_bytes name,
                                           ltdic_bytes passcode);
/** Let every abstract syntax in, with the transfer syntax that is proposed first for it. */
LTDIC_API void ltdic_admission_accept_any(ltdic_admission *admission);

/** How many associations there may be at once; 0: any number. */
typedef struct ltdic_limits {
    size_t size;           /**< sizeof(ltdic_limits), as the caller was compiled */
    uint32_t together;     /**< in all */
    uint32_t each_calling; /**< with the same calling AE title, where it has no limit of its own */
    uint32_t each_host;  /**< from the same host; those that began while this was 0 do not count */
    ltdic_reject beyond; /**< what is answered beyond them; result 0: 2/3/2 */
} ltdic_limits;

LTDIC_API void ltdic_admission_set_limits(ltdic_admission *admission, const ltdic_limits *limits);
/** The limit of one calling AE title, instead of `each_calling`; 0: any number. */
LTDIC_API int ltdic_admission_limit_calling(ltdic_admission *admission, const char *title,
                                            uint32_t most);
/** The largest P-DATA-TF that is taken (PS3.8 D.1); 0: no limit; 16384 to begin with. */
LTDIC_API void ltdic_admission_set_max_length(ltdic_admission *admission, uint32_t max_length);
/** The least maximum length that a requestor may have (PS3.8 D.1), in bytes; one with less, but not
 *  0, is refused: 1/1/1. A small one makes every byte of data many on the wire. 0: any, to begin
 *  with. */
LTDIC_API void ltdic_admission_set_least_max_length(ltdic_admission *admission, uint32_t bytes);
/** The largest PDU length of an A-ASSOCIATE-RQ that is looked at, in bytes; 0: LTDIC_MAX_ASSOCIATE,
 *  to begin with. */
LTDIC_API void ltdic_admission_set_max_associate(ltdic_admission *admission,
                                                 uint32_t max_associate);
/** Never 0. */
LTDIC_API uint32_t ltdic_admission_max_associate(const ltdic_admission *admission);

/** Let the rules of `from` hold here from now on. The places that are taken stay taken, also where
 *  they are more than its limits.
 *  @param from  has no rules any more after it, and is still the caller's
 *  @return LTDIC_OK, LTDIC_ERR_MEMORY: nothing has changed */
LTDIC_API int ltdic_admission_take_rules(ltdic_admission *admission, ltdic_admission *from);
/** 1 where ltdic_admission_judge wants to know the host. */
LTDIC_API int ltdic_admission_counts_hosts(const ltdic_admission *admission);

/** Judge an A-ASSOCIATE-RQ in which ltdic_decode has found no fault. Of several reasons to refuse
 *  it the first is told: called title, calling title, user identity, maximum length, limits.
 *
 *  Spaces around a title and NULs after it are padding; a title field that goes on after a NUL is
 *  another title than the one before the NUL, and none that was added.
 *
 *  The time it takes grows with the bytes of the request and with the number of rules, not with
 *  their product.
 *
 *  @param[out]    answer  ltdic_admission_leave is to be called with it once
 *  @param[in,out] accept  the AC to send if it is let in, and else nothing; each context of the
 *                         request is answered once: of several with one ID the first counts, even
 *                         IDs get result 2
 *  @param         host    who asks, as a text that is the same each time; may be empty
 *  @return LTDIC_OK, LTDIC_ERR_ROOM with less than LTDIC_ACCEPT_ROOM: no place is taken */
LTDIC_API int ltdic_admission_judge(ltdic_admission *admission, ltdic_answer *answer,
                                    ltdic_buffer *accept, ltdic_bytes rq, ltdic_bytes host);
/** The association is over, or was not made: its place is free. More than once does nothing. */
LTDIC_API void ltdic_admission_leave(ltdic_admission *admission, ltdic_answer *answer);

/* ---- net --------------------------------------------------------------------------------- */

/** Serves any number of endpoints on one thread. Opaque. */
typedef struct ltdic_loop ltdic_loop;
/** An endpoint: a listener, or one end of a connection with its association. Opaque. */
typedef struct ltdic_net ltdic_net;

/** Which addresses a host name may become. */
typedef enum ltdic_family {
    LTDIC_IP_ANY = 0, /**< what the system names first */
    LTDIC_IP_V4 = 1,
    LTDIC_IP_V6 = 2,
    LTDIC_IP_BOTH = 3 /**< as ANY; a listener on "*" takes both */
} ltdic_family;

/** Where to listen or connect. */
typedef struct ltdic_address {
    const char *host; /**< name or number, an IPv6 number with or without brackets, maybe with a
                         zone index; for a listener NULL or "" is this host's own name, "*" all its
                           addresses */
    uint16_t port;    /**< 0: any free port */
    uint8_t family;   /**< ltdic_family */
} ltdic_address;

/** The error of the system. */
typedef struct ltdic_cause {
    int error;    /**< a value of errno, or 0 */
    int resolver; /**< what getaddrinfo returned, or 0: EAI_AGAIN may be better later */
} ltdic_cause;
/** One line about `resolver`, in the language of the system. */
LTDIC_API const char *ltdic_resolver_text(int resolver);

/** A loop that a process has from before fork() is made anew at its first use in the child, with
 * the same listeners, which both processes then share. Connections stay the parent's: in the child
 * they are closed as if lost, without a word to the peer.
 *  @return NULL when out of memory or descriptors */
LTDIC_API ltdic_loop *ltdic_loop_new(void);
/** Frees every server and endpoint of the loop too, without indications. None may be held. */
LTDIC_API void ltdic_loop_free(ltdic_loop *loop);

/** Sleep until an endpoint may have something to tell, or for `milliseconds`, 0 or more.
 *  @return LTDIC_OK, LTDIC_NEED_MORE when the time is up, LTDIC_ERR_INTERRUPTED */
LTDIC_API int ltdic_loop_wait(ltdic_loop *loop, int milliseconds);
/** For a loop inside another one: a descriptor that is readable when ltdic_loop_wait has something
 * to find, -1 where the system has poll(2) alone; and how long the other one may sleep at most
 * until it calls ltdic_loop_wait: `milliseconds`, or fewer. They hold until the next call with the
 * loop or an endpoint of it; the descriptor, which belongs to the loop, as long as the loop does.
 */
LTDIC_API int ltdic_loop_fd(const ltdic_loop *loop);
LTDIC_API int ltdic_loop_timeout(const ltdic_loop *loop, int milliseconds);
/** Make ltdic_loop_wait return LTDIC_ERR_INTERRUPTED: the one that sleeps, else the next one. From
 *  any thread, and in a signal handler. */
LTDIC_API void ltdic_loop_wake(ltdic_loop *loop);

/** Take one indication, and whose it is. That endpoint is held until ltdic_net_done: it gives no
 *  other and `indication->pdu` stays, whatever else is called meanwhile, ltdic_net_free included.
 *  Holding several endpoints at once is fine, so this may be called again before ltdic_net_done.
 *  @return LTDIC_OK, LTDIC_NEED_MORE when there is none until the next wait */
LTDIC_API int ltdic_loop_next(ltdic_loop *loop, ltdic_net **net, ltdic_indication *indication);
LTDIC_API void ltdic_net_done(ltdic_net *net);

/** @param owner  anything; ltdic_net_owner gives it back
 *  @return NULL when out of memory */
LTDIC_API ltdic_net *ltdic_net_new(ltdic_loop *loop, void *owner);
/** Close without an indication and free, at once or, when held, at ltdic_net_done. */
LTDIC_API void ltdic_net_free(ltdic_net *net);
LTDIC_API void *ltdic_net_owner(const ltdic_net *net);

/** Set the times of its association, like ltdic_association_set_timeouts. */
LTDIC_API void ltdic_net_set_timeouts(ltdic_net *net, const ltdic_timeouts *timeouts);
/** Limit requests like ltdic_association_limit_associate. */
LTDIC_API void ltdic_net_limit_associate(ltdic_net *net, uint32_t bytes);

/** Listen. The backlog is at least 1024.
 *  @return LTDIC_OK, LTDIC_ERR_WRONG_STATE, _ADDRESS, _SYSTEM, _MEMORY */
LTDIC_API int ltdic_net_listen(ltdic_net *net, const ltdic_address *address, int backlog);

/** Listen at the socket of `other`, which listens already, maybe on another loop that another
 * thread has: a connection is accepted by whichever comes first, and waits for another one where a
 * listener leaves. Neither may be closed or freed while this runs.
 *  @return LTDIC_OK, LTDIC_ERR_WRONG_STATE, _SYSTEM, _MEMORY */
LTDIC_API int ltdic_net_share(ltdic_net *net, ltdic_net *other);

/** Connections that the listeners at one socket have accepted beyond so many are left waiting in
 *  the system's backlog; 0: any number is taken. Of several that accept at the same moment each may
 *  accept one more. To begin with, three quarters of the descriptors that the process may have when
 *  the first of them begins to listen. */
LTDIC_API void ltdic_net_limit_connections(ltdic_net *listener, uint32_t most);
#define LTDIC_MAX_UNFINISHED 67108864 /* bytes */
/** A bound for the bytes of all PDUs together that a listener's connections have begun to send and
 *  that are not whole: A-ASSOCIATE-RQ, in whatever state; of a P-DATA-TF nothing waits. Beyond it
 * the one that began first is ended with an A-ABORT, and its LTDIC_CLOSED has LTDIC_ERR_CONGESTION.
 * 0: none; LTDIC_MAX_UNFINISHED to begin with. */
LTDIC_API void ltdic_net_limit_unfinished(ltdic_net *listener, uint64_t bytes);

/** Give the connection that has waited longest at `listener` to the unused endpoint `net` (AE-5).
 *  @return LTDIC_OK, LTDIC_NEED_MORE when none waits, LTDIC_ERR_WRONG_STATE, _SYSTEM, _MEMORY */
LTDIC_API int ltdic_net_accept(ltdic_net *net, ltdic_net *listener);

/** Begin to connect; LTDIC_CONNECTED tells how it ended. A name, as opposed to a number, is
 *  resolved before this returns, by the system and at its speed. Of several addresses the next is
 *  tried beside those before it after 250 ms, or at once when one of them has failed; the first
 *  that is up is taken (RFC 8305 5).
 *  @param local  NULL, or the address to bind to; addresses of the peer of another family are not
 *                tried then
 *  @return LTDIC_OK, LTDIC_ERR_WRONG_STATE when not closed, LTDIC_ERR_ADDRESS for a name that is
 *          not known or a local address that cannot be bound, _SYSTEM, _MEMORY */
LTDIC_API int ltdic_net_connect(ltdic_net *net, const ltdic_address *peer,
                                const ltdic_address *local);
/** Why ltdic_net_listen or ltdic_net_connect failed, or the connection that it began; until the
 * next call of one of them. */
LTDIC_API ltdic_cause ltdic_net_cause(const ltdic_net *net);
/** Take over a connected stream socket that was made elsewhere, as one that was connected
 *  (LTDIC_EVT_CONNECTED) or accepted (LTDIC_EVT_ACCEPTED). No indication tells of it. The
 * descriptor belongs to the endpoint then, and never blocks.
 *  @return LTDIC_OK; LTDIC_ERR_WRONG_STATE when the endpoint is in use, or for another event;
 *          LTDIC_ERR_SYSTEM when it is no such socket, as ltdic_net_cause says: the descriptor is
 *          still the caller's */
LTDIC_API int ltdic_net_adopt(ltdic_net *net, int descriptor, ltdic_event event);
/** Give away the descriptor of a connection that is up and on which no association has begun. The
 *  endpoint is closed by that, without an indication.
 *  @return the descriptor, which never blocks, or -1 */
LTDIC_API int ltdic_net_detach(ltdic_net *net);
/** The first bytes that an accepted connection received, at most 32, until the endpoint is used
 *  again. They tell which protocol a peer speaks that sends no A-ASSOCIATE-RQ. */
LTDIC_API ltdic_bytes ltdic_net_first(const ltdic_net *net);

/** Send like ltdic_association_send and ltdic_association_send_data; bytes that the system does not
 *  take at once are copied and sent later. */
LTDIC_API int ltdic_net_send(ltdic_net *net, ltdic_bytes pdu);
LTDIC_API int ltdic_net_send_data(ltdic_net *net, const ltdic_pdv *data);

/** Hold (1) or resume (0): while held, neither data nor a release of the peer is told, and no more
 * is read than what has come already, so that the peer has to wait. An abort in what was read
 * before that data, and the end of a connection that takes nothing more, are still told. */
LTDIC_API void ltdic_net_hold(ltdic_net *net, int held);

/** Close now. A connection that was up still gives its LTDIC_CLOSED. */
LTDIC_API void ltdic_net_close(ltdic_net *net);

/** The number (1 to 13) of the association's state. */
LTDIC_API int ltdic_net_state(const ltdic_net *net);
/** 1 while the transport connection is up. */
LTDIC_API int ltdic_net_is_connected(const ltdic_net *net);

/** Numeric address and port of this end (`peer` 0) or the other (1).
 *  @return LTDIC_OK, LTDIC_ERR_WRONG_STATE when there is none, LTDIC_ERR_ROOM */
LTDIC_API int ltdic_net_name(const ltdic_net *net, int peer, ltdic_buffer *host, uint16_t *port);

/* ---- server ------------------------------------------------------------------------------ */

/** An acceptor on a loop. What an ltdic_admission can decide it does alone: it accepts
 *  connections, answers requests, C-ECHO in Verification contexts, and releases. Opaque. */
typedef struct ltdic_server ltdic_server;
/** The number of an association that it serves, from its A-ASSOCIATE-RQ until LTDIC_SERVED_ENDED
 *  has been told and the next batch begins. A number is never given twice by one server, so that
 *  the number of an association that has ended is harmless. 0 is none. */
typedef uint64_t ltdic_served_id;

/** Events that the user of a server wants to be told of, and to decide. */
enum {
    LTDIC_WANT_REQUESTS = 1, /**< whoever is admitted: the user answers, by ltdic_served_send */
    LTDIC_WANT_DATA = 2,     /**< data in other than Verification contexts, which is dropped else */
    LTDIC_WANT_ENDS = 4,     /**< the end of every request, rejected ones too, and of connections
                                  without one that sent something or waited until ARTIM. What was
                                  told of by another event has its end told anyway */
    LTDIC_WANT_VERIFICATION = 8 /**< data in Verification contexts of those that are accepted then,
                                     which the user answers */
};

typedef enum ltdic_served_kind {
    LTDIC_SERVED_REQUEST = 1,  /**< to be answered; bytes: the RQ, then the AC that the admission
                                    would answer with */
    LTDIC_SERVED_ACCEPTED = 2, /**< bytes: the RQ, then the AC that was sent */
    LTDIC_SERVED_DATA = 3,     /**< bytes: of one command or data set, as PDVs have them; id and
                                    control are those of the last PDV */
    LTDIC_SERVED_ENDED = 4,    /**< ltdic_served_report says how */
    LTDIC_SERVED_ROOM = 5 /**< after LTDIC_ERR_ROOM: at most half of LTDIC_MAX_QUEUE waits to be
                               sent. Until then no data of this peer is told */
} ltdic_served_kind;

typedef enum ltdic_phase {
    LTDIC_PHASE_NONE = 0,   /**< there is no A-ASSOCIATE-RQ that was let in */
    LTDIC_PHASE_ASKING = 1, /**< there is one, and it waits for an answer */
    LTDIC_PHASE_OPEN = 2,   /**< an A-ASSOCIATE-AC was sent */
    LTDIC_PHASE_OVER = 3    /**< rejected, released, aborted or lost; the connection may last */
} ltdic_phase;

/** One thing that happened. */
typedef struct ltdic_event_row {
    ltdic_served_id served;
    size_t offset, length; /**< of its bytes in the batch's data */
    uint8_t kind;          /**< ltdic_served_kind */
    uint8_t id, control;
} ltdic_event_row;

/** Events in order. A batch belongs to the server, and lives until the next run. */
typedef struct ltdic_batch {
    const ltdic_event_row *events;
    size_t count;
    const uint8_t *data;
} ltdic_batch;

typedef enum ltdic_outcome {
    LTDIC_OUTCOME_NONE = 0, /**< it is not over */
    LTDIC_OUTCOME_REJECTED = 1,
    LTDIC_OUTCOME_RELEASED = 2,
    LTDIC_OUTCOME_ABORTED = 3, /**< by the peer, by the user, or for what broke PS3.8 */
    LTDIC_OUTCOME_TIMED_OUT = 4,
    LTDIC_OUTCOME_LOST = 5,       /**< the connection ended without a word */
    LTDIC_OUTCOME_NO_REQUEST = 6, /**< a connection without a whole A-ASSOCIATE-RQ */
    LTDIC_OUTCOME_FAULT = 7 /**< one on which something else came: status and offset say what */
} ltdic_outcome;

/** The report of an association; text is as it came, in no particular encoding, with '?' for
 * each NUL inside a title. */
typedef struct ltdic_report {
    uint64_t received, sent; /**< bytes of PDUs */
    uint64_t milliseconds;   /**< from its A-ASSOCIATE-RQ to the end of its connection */
    int outcome;             /**< ltdic_outcome */
    int status;              /**< ltdic_status: why, as LTDIC_ERR_ABORTED by the peer */
    ltdic_reject codes;      /**< rejected: those sent; aborted: source and reason in an A-ABORT */
    uint16_t port;           /**< of the peer, as is host: numeric, where anything is wanted */
    char called[17], calling[17], host[48];
    uint64_t offset;   /**< fault: of the field at fault, from the first byte of its PDU */
    uint8_t first[32]; /**< without a request: the first bytes that came, first_size of them */
    uint8_t first_size;
} ltdic_report;

/** Counts since the server was made. Each connection that is over is in one of accepted,
 *  rejected, unaccepted, no_request and faults; each accepted association is open or in one of
 *  released, aborted, timed_out and lost. */
typedef struct ltdic_counters {
    uint64_t connections; /**< taken from the system */
    uint64_t no_request;  /**< without a whole A-ASSOCIATE-RQ */
    uint64_t faults;      /**< on which something else came than an A-ASSOCIATE-RQ */
    uint64_t unaccepted;  /**< requests that ended before an answer went out, or by an A-ABORT */
    uint64_t accepted;    /**< A-ASSOCIATE-AC sent */
    uint64_t open;        /**< associations now */
    uint64_t released, aborted, timed_out, lost;
    uint64_t rejected[2][3]
                     [8]; /**< A-ASSOCIATE-RJ sent, by result - 1, source - 1, reason; one that
                               is lost with its connection is counted until that is known */
    uint64_t rejected_undefined; /**< with codes that PS3.8 does not define */
} ltdic_counters;

/** @param loop       may have other servers and endpoints: ltdic_loop_next tells of the endpoints
 *                    that are no server's, ltdic_server_run of the events of its own server
 *  @param admission  stays the caller's, and is used until ltdic_server_free; any number of servers
 * may share it, so that its limits hold for all of them together
 *  @return NULL when out of memory */
LTDIC_API ltdic_server *ltdic_server_new(ltdic_loop *loop, ltdic_admission *admission);
/** Closes what is open, without a word. */
LTDIC_API void ltdic_server_free(ltdic_server *server);
/** For what is accepted after it; as ltdic_association_set_timeouts. */
LTDIC_API void ltdic_server_set_timeouts(ltdic_server *server, const ltdic_timeouts *timeouts);
/** Listen like ltdic_net_listen. */
LTDIC_API int ltdic_server_listen(ltdic_server *server, const ltdic_address *address, int backlog);
/** Listen at the socket of another server, like ltdic_net_share: several loops, each with a thread,
 *  serve one address. When one of them is closed, who waits is left to the others. */
LTDIC_API int ltdic_server_share(ltdic_server *server, ltdic_server *other);
/** Why ltdic_server_listen or ltdic_server_share failed. */
LTDIC_API ltdic_cause ltdic_server_cause(const ltdic_server *server);
/** Limit connections like ltdic_net_limit_connections. */
LTDIC_API void ltdic_server_limit_connections(ltdic_server *server, uint32_t most);
/** Limit unfinished requests like ltdic_net_limit_unfinished. */
LTDIC_API void ltdic_server_limit_unfinished(ltdic_server *server, uint64_t bytes);
/** Where it listens; as ltdic_net_name. */
LTDIC_API int ltdic_server_name(const ltdic_server *server, ltdic_buffer *host, uint16_t *port);

/** Serve until something wanted has happened. That the batch has been dealt with is known by the
 *  next call: releases that came after its data are answered then.
 *
 *  @param wanted  LTDIC_WANT_..., any of them
 *  @return LTDIC_OK; LTDIC_NEED_MORE when the time is up; LTDIC_ERR_INTERRUPTED after a signal or
 *          ltdic_server_wake; LTDIC_ERR_CLOSED when it was closed, and everything is over.
 *          There may be events only with LTDIC_OK. LTDIC_NEED_MORE also comes before the time is
 *          up, where another server or endpoint of the loop has something to tell */
LTDIC_API int ltdic_server_run(ltdic_server *server, ltdic_batch *batch, unsigned wanted,
                               int milliseconds);
/** The `data` of the batch just told, which is the caller's from now on. NULL when there is none,
 *  and when an A-ASSOCIATE-RQ is in it, since the server wipes those.
 *  @return to be given to ltdic_free_data */
LTDIC_API uint8_t *ltdic_server_take_data(ltdic_server *server);
LTDIC_API void ltdic_free_data(void *data);
/** Make ltdic_server_run return soon: from any thread, and in a signal handler. */
LTDIC_API void ltdic_server_wake(ltdic_server *server);

/** Send like ltdic_net_send; LTDIC_ERR_WRONG_STATE also where the association has ended. */
LTDIC_API int ltdic_served_send(ltdic_server *server, ltdic_served_id served, ltdic_bytes pdu);
/** Send data like ltdic_net_send_data; where the connection is lost it goes nowhere. After
 * LTDIC_ERR_ROOM, which also comes where others have to have their turn first, LTDIC_SERVED_ROOM
 * tells when to try again. */
LTDIC_API int ltdic_served_send_data(ltdic_server *server, ltdic_served_id served,
                                     const ltdic_pdv *data);
/** The report of an association; NULL where it is over and the batch that told so, too. */
LTDIC_API const ltdic_report *ltdic_served_report(const ltdic_server *server,
                                                  ltdic_served_id served);
/** How far it is; LTDIC_PHASE_NONE where it is not known (any more). From any thread, until
 *  ltdic_server_free. */
LTDIC_API int ltdic_served_phase(const ltdic_server *server, ltdic_served_id served);
/** Bytes that have gone to the peer's system, as far as the own system says so, else to the own
 * one: a number that grows as long as the peer takes something. 0 where it is not known (any more).
 */
LTDIC_API uint64_t ltdic_served_taken(const ltdic_server *server, ltdic_served_id served);

/** Come to an end, which ltdic_server_run reports, in so many milliseconds: no more connections are
 *  taken; requests, also of those who wait to be accepted, are rejected with 2/3/1; associations
 *  between two messages are released, the others when their data set is complete; what is left
 *  after three quarters of the time is aborted, and what is left after all of it is closed. */
LTDIC_API void ltdic_server_close(ltdic_server *server, uint32_t milliseconds);
LTDIC_API const ltdic_counters *ltdic_server_counters(const ltdic_server *server);

/* [end] */

#ifdef __cplusplus
}
#endif

#include "l_dicom.h"

#endif
