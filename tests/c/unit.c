/* SPDX-License-Identifier: MIT */
/* Calls of the codec that Python cannot make: arbitrary rows, too little room, and claimed sizes
 * whose bytes are never read. */
#include "ltdic.h"

#undef NDEBUG
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t reject[LTDIC_FIXED_PDU_SIZE] = {3, 0, 0, 0, 0, 4, 0, 1, 1, 7};

/* ---- status ------------------------------------------------------------------------------ */

static void every_status_has_a_name_a_text_and_a_reason(void)
{
    int named = 0;
    for (int status = -100; status <= 10; status++) {
        const int known = strcmp(ltdic_status_name(status), "unknown") != 0;
        assert(known == (strcmp(ltdic_status_text(status), "unknown status") != 0));
        assert(ltdic_abort_reason(status) <= 6);
        assert(known || ltdic_abort_reason(status) == 0);
        named += known;
    }
    assert(named == 25);
    assert(ltdic_abort_reason(LTDIC_ERR_BAD_PDU_TYPE) == 1);
    assert(ltdic_abort_reason(LTDIC_ERR_UNEXPECTED_PDU) == 2);
    assert(ltdic_abort_reason(LTDIC_ERR_ITEM_OVERRUN) == 6);
    assert(strcmp(ltdic_version(), LTDIC_VERSION) == 0);
    assert(strncmp(ltdic_class_uid(), "2.25.", 5) == 0);
}

static void sixteen_rejections_are_defined(void)
{
    int defined = 0;
    for (uint32_t n = 0; n < 1 << 24; n++) {
        const ltdic_reject codes = {(uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
        defined += ltdic_reject_is_defined(codes);
    }
    assert(defined == 16);
}

/* ---- decoding ---------------------------------------------------------------------------- */

/* The size is only compared: the body is not read before its length is accepted. */
static void a_pdu_that_rows_cannot_count_is_too_large(void)
{
    const uint8_t header[6] = {4, 0, 0xFF, 0xFF, 0xFF, 0xFA};
    ltdic_bytes pdu;
    ltdic_fault fault;
    if (SIZE_MAX > UINT32_MAX) {
        const ltdic_bytes in = {header, (size_t)((uint64_t)UINT32_MAX + 1)};
        assert(ltdic_frame(&pdu, in, NULL, &fault) == LTDIC_ERR_TOO_LARGE && fault.offset == 2);
    }
    assert(ltdic_frame(&pdu, (ltdic_bytes){header, 6}, NULL, &fault) == LTDIC_NEED_MORE);
    assert(fault.need == (uint64_t)UINT32_MAX + 1);
}

static void options_of_an_older_caller_are_the_defaults(void)
{
    const ltdic_options options = {.size = offsetof(ltdic_options, strict), .strict = 1};
    const uint8_t undefined[LTDIC_FIXED_PDU_SIZE] = {3, 0, 0, 0, 0, 4, 0, 9, 9, 9};
    ltdic_fault fault;
    assert(ltdic_decode(NULL, (ltdic_bytes){undefined, sizeof undefined}, &options, &fault) ==
           LTDIC_OK);
}

static void a_row_too_few_is_asked_for(void)
{
    const uint8_t pdvs[] = {4, 0, 0, 0, 0, 12, 0, 0, 0, 2, 1, 3, 0, 0, 0, 2, 3, 0};
    ltdic_item items[3];
    ltdic_items rows = {items, 2, 0};
    ltdic_fault fault;
    const ltdic_bytes in = {pdvs, sizeof pdvs};
    assert(ltdic_decode(&rows, in, NULL, &fault) == LTDIC_ERR_ROOM && rows.count == 3);
    rows.room = 3;
    assert(ltdic_decode(&rows, in, NULL, &fault) == LTDIC_OK && rows.count == 3);
    assert(items[2].kind == LTDIC_PDV && items[2].id == 3);
    const ltdic_options strict = {.size = sizeof strict, .strict = 1};
    uint8_t even[sizeof pdvs];
    memcpy(even, pdvs, sizeof even);
    even[16] = 2;
    const ltdic_bytes bad = {even, sizeof even};
    assert(ltdic_decode(&rows, bad, &strict, &fault) == LTDIC_ERR_BAD_VALUE && rows.count == 2);
    rows.room = 1;
    assert(ltdic_decode(&rows, bad, &strict, &fault) == LTDIC_ERR_BAD_VALUE && rows.count == 1);
}

static void rejects_fill_the_room_there_is(void)
{
    uint8_t in[3 * sizeof reject + 1], out[9];
    ltdic_buffer few = {out, 8, 99}, enough = {out, 9, 0};
    ltdic_fault fault;
    for (size_t i = 0; i < 3; i++) {
        memcpy(in + i * sizeof reject, reject, sizeof reject);
    }
    in[3 * sizeof reject] = LTDIC_ASSOCIATE_RJ;
    assert(ltdic_decode_rejects(&few, (ltdic_bytes){in, 30}, &fault) == LTDIC_ERR_ROOM);
    assert(few.size == 6 && fault.offset == 20);
    assert(ltdic_decode_rejects(&enough, (ltdic_bytes){in, 30}, &fault) == LTDIC_OK);
    assert(enough.size == 9 && memcmp(out + 6, reject + 7, 3) == 0);
    assert(ltdic_decode_rejects(&enough, (ltdic_bytes){in, 31}, &fault) == LTDIC_NEED_MORE);
    assert(enough.size == 9 && fault.offset == 31 && fault.need == 36);
    in[25] = 5;
    assert(ltdic_decode_rejects(&enough, (ltdic_bytes){in, 30}, &fault) == LTDIC_ERR_BAD_LENGTH);
    assert(enough.size == 6 && fault.offset == 22);
    in[20] = LTDIC_ABORT;
    in[25] = 4;
    assert(ltdic_decode_rejects(&enough, (ltdic_bytes){in, 30}, &fault) ==
           LTDIC_ERR_UNEXPECTED_PDU);
    assert(enough.size == 6 && fault.offset == 20);
}

/* ---- stream ------------------------------------------------------------------------------ */

static int stream_strictly(const uint8_t *data, size_t size, ltdic_fault *fault)
{
    const ltdic_options options = {.size = sizeof options, .strict = 1};
    ltdic_stream stream = {0};
    ltdic_piece piece;
    ltdic_bytes in = {data, size};
    int status;
    while ((status = ltdic_stream_next(&stream, &piece, &in, &options, fault)) == LTDIC_OK) {
    }
    return status;
}

static void a_strict_stream_refuses_odd_fragments_and_even_ids(void)
{
    uint8_t pdv[] = {4, 0, 0, 0, 0, 7, 0, 0, 0, 3, 1, 3, 0};
    ltdic_fault fault;
    assert(stream_strictly(pdv, sizeof pdv, &fault) == LTDIC_ERR_BAD_VALUE && fault.offset == 6);
    pdv[5] = 6;
    pdv[9] = 2;
    assert(stream_strictly(pdv, 10, &fault) == LTDIC_NEED_MORE && fault.need == 12);
    assert(stream_strictly(pdv, 11, &fault) == LTDIC_NEED_MORE && fault.need == 12);
    pdv[10] = 2;
    assert(stream_strictly(pdv, 11, &fault) == LTDIC_ERR_BAD_VALUE && fault.offset == 10);
}

/* ---- encoding ---------------------------------------------------------------------------- */

static const uint8_t text[32] = "1.2.3 CALLED          CALLING";
static const ltdic_item request[] = {
    {.kind = LTDIC_PDU, .type = LTDIC_ASSOCIATE_RQ, .version = 1},
    {.kind = LTDIC_CALLED_AE, .offset = 6, .length = 6},
    {.kind = LTDIC_CALLING_AE, .offset = 22, .length = 7},
    {.kind = LTDIC_APPLICATION_CONTEXT, .offset = 0, .length = 5},
};
enum { REQUEST_SIZE = 74 + 4 + 5 };

static int encode(ltdic_buffer *out, const ltdic_item *rows, size_t count, ltdic_fault *fault)
{
    ltdic_item copy[8];
    memcpy(copy, rows, count * sizeof *rows);
    const ltdic_items items = {copy, count, count};
    return ltdic_encode(out, &items, (ltdic_bytes){text, sizeof text}, fault);
}

static void a_pdu_of_fixed_size_is_encoded_without_rows(void)
{
    uint8_t memory[LTDIC_FIXED_PDU_SIZE];
    ltdic_encode_fixed(memory, LTDIC_ASSOCIATE_RJ, (ltdic_reject){1, 1, 7});
    assert(memcmp(memory, reject, sizeof reject) == 0);
}

static void a_pdu_that_does_not_fit_is_not_written(void)
{
    uint8_t memory[REQUEST_SIZE];
    ltdic_fault fault;
    for (size_t room = 0; room <= REQUEST_SIZE; room++) {
        memset(memory, 0xEE, sizeof memory);
        ltdic_buffer out = {memory, room, 0};
        const int status = encode(&out, request, 4, &fault);
        assert(status == (room < REQUEST_SIZE ? LTDIC_ERR_ROOM : LTDIC_OK));
        assert(out.size == REQUEST_SIZE);
        assert(room == REQUEST_SIZE || memory[room] == 0xEE);
    }
}

/* Encode `request` with one row replaced; return the status, if the fault names that row. */
static int with_row(size_t n, ltdic_item row)
{
    ltdic_item rows[4];
    uint8_t memory[REQUEST_SIZE + 100];
    ltdic_buffer out = {memory, sizeof memory, 0};
    ltdic_fault fault;
    memcpy(rows, request, sizeof rows);
    rows[n] = row;
    const int status = encode(&out, rows, 4, &fault);
    assert(status == LTDIC_OK || fault.offset == n);
    return status;
}

static void a_row_that_cannot_be_encoded_is_named(void)
{
    ltdic_buffer none = {NULL, 0, 0};
    ltdic_fault fault;
    assert(encode(&none, request, 0, &fault) == LTDIC_ERR_BAD_VALUE && fault.offset == 0);
    assert(encode(&none, request, 1, &fault) == LTDIC_ERR_BAD_VALUE && fault.offset == 1);
    assert(with_row(3, request[3]) == LTDIC_OK);
    assert(with_row(0, (ltdic_item){.kind = LTDIC_PDV}) == LTDIC_ERR_BAD_VALUE);
    assert(with_row(0, (ltdic_item){.kind = LTDIC_PDU, .type = 8}) == LTDIC_ERR_BAD_VALUE);
    assert(with_row(0, (ltdic_item){.kind = LTDIC_PDU, .type = 0}) == LTDIC_ERR_BAD_VALUE);
    assert(with_row(1, (ltdic_item){.kind = LTDIC_CALLED_AE}) == LTDIC_ERR_BAD_VALUE);
    assert(with_row(1, (ltdic_item){.kind = LTDIC_CALLED_AE, .length = 26}) == LTDIC_ERR_BAD_VALUE);
    const ltdic_item outside = {.kind = LTDIC_APPLICATION_CONTEXT, .offset = 33};
    assert(with_row(3, outside) == LTDIC_ERR_BAD_VALUE);
    const ltdic_item beyond = {.kind = LTDIC_APPLICATION_CONTEXT, .offset = 30, .length = 3};
    assert(with_row(3, beyond) == LTDIC_ERR_BAD_VALUE);
    assert(with_row(3, (ltdic_item){.kind = 99}) == LTDIC_ERR_BAD_VALUE);
    assert(with_row(3, (ltdic_item){.kind = LTDIC_IGNORED, .length = 4}) == LTDIC_ERR_BAD_VALUE);
    assert(with_row(3, (ltdic_item){.kind = LTDIC_UNKNOWN_ITEM, .type = 0x21}) == LTDIC_OK);
    for (int known = 0; known < 3; known++) {
        static const uint8_t types[] = {0x10, 0x20, 0x50};
        const ltdic_item item = {.kind = LTDIC_UNKNOWN_ITEM, .type = types[known]};
        assert(with_row(3, item) == LTDIC_ERR_BAD_VALUE);
    }
    const ltdic_item pdvs[3] = {{.kind = LTDIC_PDU, .type = LTDIC_DATA_TF},
                                {.kind = LTDIC_PDV, .offset = 99},
                                {.kind = LTDIC_PDV}};
    assert(encode(&none, pdvs, 3, &fault) == LTDIC_ERR_BAD_VALUE && fault.offset == 1);
}

/* Encode an RQ or AC that has nothing but one sub-item in its user information. */
static int with_sub_item(uint8_t pdu, ltdic_item sub_item, ltdic_item second)
{
    ltdic_item rows[6];
    uint8_t memory[200];
    ltdic_buffer out = {memory, sizeof memory, 0};
    ltdic_fault fault;
    memcpy(rows, request, 3 * sizeof *rows);
    rows[0].type = pdu;
    rows[3] = (ltdic_item){.kind = LTDIC_USER_INFORMATION};
    rows[4] = sub_item;
    rows[5] = second;
    return encode(&out, rows, second.kind == 0 ? 5 : 6, &fault);
}

/* ---- text, against checks of single bytes ------------------------------------------------- */

/* Rules of PS3.8 annex F. */
static int is_uid(const uint8_t *text, size_t size)
{
    size_t digits = 0;
    for (size_t i = 0; i < size; i++) {
        const int zero_before = digits == 1 && text[i - 1] == '0';
        if (text[i] == '.' ? digits == 0 : text[i] < '0' || text[i] > '9' || zero_before) {
            return 0;
        }
        digits = text[i] == '.' ? 0 : digits + 1;
    }
    return digits > 0 && size <= 64;
}

/* Rules of PS3.5, VR AE. */
static int is_title(const uint8_t *text, size_t size)
{
    size_t others = 0;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < 0x20 || text[i] > 0x7E || text[i] == '\\') {
            return 0;
        }
        others += text[i] != ' ';
    }
    return others > 0;
}

/* Tell whether the encoder accepts this text, which lies at the end of readable memory. */
static int takes(uint8_t kind, const uint8_t *text, size_t size)
{
    uint8_t memory[200], *values = malloc(size + 1);
    ltdic_item rows[4] = {
        {.kind = LTDIC_PDU, .type = LTDIC_ASSOCIATE_RQ, .version = 1},
        {.kind = LTDIC_CALLED_AE, .length = 1},
        {.kind = LTDIC_CALLING_AE, .length = 1},
        {.kind = LTDIC_APPLICATION_CONTEXT, .length = 1},
    };
    ltdic_buffer out = {memory, sizeof memory, 0};
    ltdic_fault fault;
    assert(values != NULL);
    values[0] = '1';
    memcpy(values + 1, text, size);
    ltdic_item *row = &rows[kind == LTDIC_CALLED_AE ? 1 : 3];
    row->offset = 1;
    row->length = (uint32_t)size;
    const ltdic_items all = {.items = rows, .count = 4, .room = 4};
    const int status = ltdic_encode(&out, &all, (ltdic_bytes){values, size + 1}, &fault);
    free(values);
    return status == LTDIC_OK;
}

/* Texts of ones, of every length, with any three significant bytes at every place. */
static void a_uid_is_judged_as_byte_by_byte(void)
{
    static const uint8_t some[] = {'0', '1', '9', '.', '/', ':', 0x80 | '.', 0xFF};
    uint8_t text[66];
    for (size_t size = 1; size <= sizeof text; size++) {
        for (size_t at = 0; at < size; at++) {
            for (unsigned n = 0; n < 8 * 8 * 8; n++) {
                memset(text, '1', size);
                for (size_t i = 0; i < 3 && at + i < size; i++) {
                    text[at + i] = some[n >> 3 * i & 7];
                }
                assert(takes(LTDIC_APPLICATION_CONTEXT, text, size) == is_uid(text, size));
            }
        }
    }
}

static void every_byte_is_judged_the_same_everywhere(void)
{
    uint8_t text[64];
    for (size_t size = 1; size <= sizeof text; size++) {
        for (size_t at = 0; at < size; at++) {
            for (unsigned byte = 0; byte < 256; byte++) {
                memset(text, '1', size);
                text[at] = (uint8_t)byte;
                assert(takes(LTDIC_APPLICATION_CONTEXT, text, size) == is_uid(text, size));
                if (size <= 16) {
                    assert(takes(LTDIC_CALLED_AE, text, size) == is_title(text, size));
                    memset(text, ' ', size);
                    text[at] = (uint8_t)byte;
                    assert(takes(LTDIC_CALLED_AE, text, size) == is_title(text, size));
                }
            }
        }
    }
}

/* ---- items ------------------------------------------------------------------------------- */

static void a_sub_item_is_encoded_where_it_has_a_meaning(void)
{
    const ltdic_item none = {.kind = 0};
    for (unsigned type = 0; type < 256; type++) {
        const ltdic_item unknown = {.kind = LTDIC_UNKNOWN_SUB_ITEM, .type = (uint8_t)type};
        const int rq = type >= 0x51 && type <= 0x58, ac = type >= 0x51 && type <= 0x56;
        assert((with_sub_item(LTDIC_ASSOCIATE_RQ, unknown, none) == LTDIC_OK) == !rq);
        assert((with_sub_item(LTDIC_ASSOCIATE_AC, unknown, none) == LTDIC_OK) ==
               !(ac || type == 0x59));
    }
    const ltdic_item response = {.kind = LTDIC_USER_IDENTITY_RESPONSE};
    assert(with_sub_item(LTDIC_ASSOCIATE_AC, response, none) == LTDIC_OK);
    assert(with_sub_item(LTDIC_ASSOCIATE_RQ, response, none) == LTDIC_ERR_BAD_VALUE);
    const ltdic_item identity = {.kind = LTDIC_USER_IDENTITY, .id = 1};
    const ltdic_item second = {.kind = LTDIC_USER_IDENTITY_SECOND};
    assert(with_sub_item(LTDIC_ASSOCIATE_RQ, identity, second) == LTDIC_OK);
    assert(with_sub_item(LTDIC_ASSOCIATE_AC, identity, second) == LTDIC_ERR_BAD_VALUE);
    ltdic_item common = {.kind = LTDIC_COMMON_EXTENDED, .length = 5, .version = 255};
    const ltdic_item service = {.kind = LTDIC_COMMON_SERVICE, .length = 5};
    assert(with_sub_item(LTDIC_ASSOCIATE_RQ, common, service) == LTDIC_OK);
    assert(with_sub_item(LTDIC_ASSOCIATE_AC, common, service) == LTDIC_ERR_BAD_VALUE);
    common.version = 256;
    assert(with_sub_item(LTDIC_ASSOCIATE_RQ, common, service) == LTDIC_ERR_BAD_VALUE);
}

/* The values are never read, since there is no room to write them to. */
static void a_pdu_beyond_four_gibibytes_is_too_large(void)
{
    ltdic_item rows[3] = {{.kind = LTDIC_PDU, .type = LTDIC_DATA_TF}};
    const ltdic_items items = {rows, 3, 3};
    const ltdic_bytes values = {text, UINT32_MAX / 2};
    ltdic_buffer none = {NULL, 0, 0};
    ltdic_fault fault;
    rows[1] = rows[2] = (ltdic_item){.kind = LTDIC_PDV, .id = 1, .length = UINT32_MAX / 2};
    const int status = ltdic_encode(&none, &items, values, &fault);
    assert(status == (SIZE_MAX > UINT32_MAX ? LTDIC_ERR_TOO_LARGE : LTDIC_ERR_ROOM));
    assert(none.size > UINT32_MAX - 16);
}

static void a_rejected_context_keeps_the_transfer_syntax_it_is_given(void)
{
    uint8_t memory[200];
    ltdic_buffer out = {memory, sizeof memory, 0};
    ltdic_fault fault;
    ltdic_item rows[5];
    memcpy(rows, request, 3 * sizeof *rows);
    rows[0].type = LTDIC_ASSOCIATE_AC;
    rows[3] = (ltdic_item){.kind = LTDIC_CONTEXT, .id = 1, .result = 3};
    rows[4] = (ltdic_item){.kind = LTDIC_TRANSFER_SYNTAX, .length = 5};
    assert(encode(&out, rows, 5, &fault) == LTDIC_OK);
    assert(out.size == 74 + 8 + 9 && memcmp(memory + out.size - 9,
                                            "\x40\0\0\5"
                                            "1.2.3",
                                            9) == 0);
    assert(encode(&out, rows, 4, &fault) == LTDIC_OK);
    assert(out.size == 74 + 8 + 4 && memcmp(memory + out.size - 4, "\x40\0\0\0", 4) == 0);
}

static void an_exact_row_may_be_pointed_to_another_value(void)
{
    uint8_t wire[REQUEST_SIZE], memory[REQUEST_SIZE + 3];
    ltdic_buffer first = {wire, sizeof wire, 0}, out = {memory, sizeof memory, 0};
    ltdic_fault fault;
    ltdic_item items[16];
    ltdic_items rows = {items, 16, 0};
    const ltdic_options exact = {.size = sizeof exact, .exact = 1};
    assert(encode(&first, request, 4, &fault) == LTDIC_OK);
    wire[1] = wire[50] = wire[75] = 0xEE; /* reserved in the PDU, after the titles, in the item */
    assert(ltdic_decode(&rows, (ltdic_bytes){wire, sizeof wire}, &exact, &fault) == LTDIC_OK);
    const ltdic_item *last = &items[rows.count - 2];
    assert(last->kind == LTDIC_APPLICATION_CONTEXT && items[rows.count - 1].kind == LTDIC_HEADER);
    uint8_t values[REQUEST_SIZE + 8];
    memcpy(values, wire, sizeof wire);
    memcpy(values + sizeof wire, "not a UID", 8);
    items[rows.count - 2].offset = sizeof wire;
    items[rows.count - 2].length = 8;
    assert(ltdic_encode(&out, &rows, (ltdic_bytes){values, sizeof values}, &fault) == LTDIC_OK);
    assert(out.size == REQUEST_SIZE + 3 && memory[5] == wire[5] + 3 && memory[77] == 8);
    assert(memcmp(memory + 78, "not a UI", 8) == 0);
    assert(memory[1] == 0xEE && memory[50] == 0xEE && memory[75] == 0xEE);
    items[rows.count - 1].length = 3;
    assert(ltdic_encode(&out, &rows, (ltdic_bytes){values, sizeof values}, &fault) ==
           LTDIC_ERR_BAD_VALUE);
    assert(fault.offset == rows.count - 1);
}

/* ---- associate objects ------------------------------------------------------------------- */

enum { LONGEST_VALUE = 600 }; /* above the initial room for text of an object */

static void extended_information_may_be_copied_inside_an_object(void)
{
    static const L_UCHAR bytes[LONGEST_VALUE] = {7, 8, 9};
    for (L_UINT size = 0; size <= LONGEST_VALUE; size++) {
        HDICOMPDU pdu = L_DicomCreateAssociate(TRUE);
        const L_UCHAR *own;
        L_UINT own_size;
        assert(L_DicomSetExtended(pdu, "1.2.3", bytes, size) == DICOM_SUCCESS);
        assert(L_DicomGetExtended(pdu, "1.2.3", &own, &own_size));
        assert(L_DicomSetExtended(pdu, "1.2.4", own, own_size) == DICOM_SUCCESS);
        assert(L_DicomGetExtended(pdu, "1.2.4", &own, &own_size));
        assert(own_size == size && memcmp(own, bytes, size) == 0);
        L_DicomFreeAssociate(pdu);
    }
}

static void an_identity_can_be_set_to_itself(void)
{
    static const L_UCHAR name[LONGEST_VALUE] = {1, 2, 3}, code[LONGEST_VALUE] = {4, 5, 6};
    for (L_UINT size = 0; size <= LONGEST_VALUE; size++) {
        HDICOMPDU pdu = L_DicomCreateAssociate(TRUE);
        const L_UCHAR *own_name, *own_code;
        L_UINT name_size, code_size;
        L_UCHAR type;
        L_BOOL response;
        assert(L_DicomSetUserIdentity(pdu, PDU_IDENTITY_PASSCODE, TRUE, name, size, code, size) ==
               DICOM_SUCCESS);
        for (int again = 0; again < 3; again++) {
            assert(L_DicomGetUserIdentity(pdu, &type, &response, &own_name, &name_size, &own_code,
                                          &code_size));
            assert(name_size == size && memcmp(own_name, name, size) == 0);
            assert(code_size == size && memcmp(own_code, code, size) == 0);
            assert(L_DicomSetUserIdentity(pdu, type, response, own_name, name_size, own_code,
                                          code_size) == DICOM_SUCCESS);
        }
        L_DicomFreeAssociate(pdu);
    }
}

static void one_row_is_enough_for_a_pdu_of_codes(void)
{
    for (unsigned n = 0; n < 256 * 256; n++) {
        uint8_t memory[LTDIC_FIXED_PDU_SIZE];
        ltdic_item row = {.kind = (uint8_t)(n >> 8), .type = (uint8_t)n, .source = 2};
        const ltdic_items all = {.items = &row, .count = 1, .room = 1};
        ltdic_buffer out = {memory, sizeof memory, 0};
        ltdic_fault fault;
        const int status = ltdic_encode(&out, &all, (ltdic_bytes){NULL, 0}, &fault);
        const int enough = row.kind == LTDIC_PDU && row.type > LTDIC_ASSOCIATE_AC &&
                           row.type <= LTDIC_ABORT && row.type != LTDIC_DATA_TF;
        assert(status == (enough ? LTDIC_OK : LTDIC_ERR_BAD_VALUE));
    }
}

static void an_answered_context_has_no_abstract_syntax(void)
{
    uint8_t memory[200];
    const ltdic_item rows[] = {
        {.kind = LTDIC_PDU, .type = LTDIC_ASSOCIATE_AC, .version = 1},
        {.kind = LTDIC_CALLED_AE, .length = 1},
        {.kind = LTDIC_CALLING_AE, .length = 1},
        {.kind = LTDIC_CONTEXT, .id = 1},
        {.kind = LTDIC_ABSTRACT_SYNTAX, .length = 1},
    };
    ltdic_items all = {.items = (ltdic_item *)(uintptr_t)rows, .count = 5, .room = 5};
    ltdic_buffer out = {memory, sizeof memory, 0};
    ltdic_fault fault;
    const ltdic_bytes one = {(const uint8_t *)"1", 1};
    assert(ltdic_encode(&out, &all, one, &fault) == LTDIC_ERR_BAD_VALUE && fault.offset == 4);
}

static void an_object_takes_legal_texts_alone(void)
{
    HDICOMPDU pdu = L_DicomCreateAssociate(1);
    assert(pdu != NULL);
    assert(L_DicomSetCalled(pdu, "ARCHIVE") == DICOM_SUCCESS);
    assert(L_DicomSetCalled(pdu, "ARCH\\IVE") == DICOM_ERROR_PARAMETER);
    assert(L_DicomSetCalled(pdu, "ARCHIVE_ARCHIVE_1") == DICOM_ERROR_PARAMETER);
    assert(L_DicomSetCalled(pdu, "  ") == DICOM_ERROR_PARAMETER);
    assert(L_DicomSetImplementVersion(pdu, "NAME_1") == DICOM_SUCCESS);
    assert(L_DicomSetImplementVersion(pdu, "NAME\x7F") == DICOM_ERROR_PARAMETER);
    L_DicomFreeAssociate(pdu);
}

int main(void)
{
    every_status_has_a_name_a_text_and_a_reason();
    sixteen_rejections_are_defined();
    a_pdu_that_rows_cannot_count_is_too_large();
    options_of_an_older_caller_are_the_defaults();
    a_row_too_few_is_asked_for();
    rejects_fill_the_room_there_is();
    a_strict_stream_refuses_odd_fragments_and_even_ids();
    a_pdu_of_fixed_size_is_encoded_without_rows();
    a_pdu_that_does_not_fit_is_not_written();
    a_row_that_cannot_be_encoded_is_named();
    a_uid_is_judged_as_byte_by_byte();
    every_byte_is_judged_the_same_everywhere();
    a_sub_item_is_encoded_where_it_has_a_meaning();
    a_pdu_beyond_four_gibibytes_is_too_large();
    a_rejected_context_keeps_the_transfer_syntax_it_is_given();
    an_exact_row_may_be_pointed_to_another_value();
    extended_information_may_be_copied_inside_an_object();
    an_identity_can_be_set_to_itself();
    one_row_is_enough_for_a_pdu_of_codes();
    an_answered_context_has_no_abstract_syntax();
    an_object_takes_legal_texts_alone();
    printf("21 tests\n");
    return 0;
}
