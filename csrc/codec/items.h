/* SPDX-License-Identifier: MIT */
/* Items of an A-ASSOCIATE-RQ and -AC (PS3.8 9.3.2, 9.3.3, annex D; PS3.7 D.3.3): types, sizes,
 * offsets; and the UIDs that the library itself uses. Internal. */
#ifndef LTDIC_ITEMS_H
#define LTDIC_ITEMS_H

#include "ltdic.h"

enum { ITEM_HEADER = 4, CONTEXT_HEADER = 8 }; /* bytes before the value */
enum { ITEMS_START = 74 };                    /* offset of the first item in the PDU */
enum { TITLES_RESERVED = 32 };                /* bytes after the titles (PS3.8 table 9-11) */

/* Places of ignored bytes: the `id` of an LTDIC_IGNORED row. */
enum { IN_PDU = 0, IN_ITEM = 1, IN_SUB_ITEM = 2 };

/* Bits of a message control header (PS3.8 E.2). */
enum { COMMAND = 1, LAST = 2 };

/* Offsets of the titles in an RQ (PS3.8 table 9-11). */
enum { CALLED_AT = 10, CALLING_AT = 26 };

/* Types of the items and sub-items of an RQ or AC (PS3.8 9.3.2, 9.3.3; PS3.7 D.3.3). PROPOSED and
 * ANSWERED are presentation contexts; MAX_LENGTH and those after it are sub-items of
 * USER_INFORMATION. */
enum {
    APPLICATION_CONTEXT_ITEM = 0x10,
    PROPOSED = 0x20,
    ANSWERED = 0x21,
    ABSTRACT_SYNTAX = 0x30,
    TRANSFER_SYNTAX = 0x40,
    USER_INFORMATION = 0x50,
    MAX_LENGTH = 0x51,
    CLASS_UID = 0x52,
    ASYNC_OPERATIONS = 0x53,
    ROLE = 0x54,
    VERSION_NAME = 0x55,
    EXTENDED = 0x56,
    COMMON_EXTENDED = 0x57,
    USER_IDENTITY = 0x58,
    USER_IDENTITY_RESPONSE = 0x59
};

#define APPLICATION_CONTEXT \
    "1.2.840.10008.3.1.1.1" /* the only one that DICOM defines (PS3.7 A.2.1) */
/* The implementation class UID of ltdic (PS3.7 D.3.3.2), made from a UUID (PS3.5 B.2). */
#define IMPLEMENTATION_CLASS_UID "2.25.241763158246035163327937512061234408329"
#define IMPLEMENTATION_VERSION_NAME "LTDIC_" LTDIC_VERSION
#define VERIFICATION "1.2.840.10008.1.1" /* the SOP class of C-ECHO (PS3.4 A.4) */

#endif
