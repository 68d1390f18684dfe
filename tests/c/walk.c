/* SPDX-License-Identifier: MIT */
/* Count the work of reading all contexts of an associate object by index. associate.c is compiled
 * with -fsanitize-coverage=trace-pc, so that each of its basic blocks calls the function below: the
 * count is the same on every machine. The program prints a count for each two arguments: contexts,
 * and transfer syntaxes in each. It also reads objects whose items arrived in another order than
 * that of the standard. */
#include "codec/framing.h"
#include "codec/items.h"
#include "l_dicom/associate.h"

#undef NDEBUG
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void __sanitizer_cov_trace_pc(void);

static unsigned long blocks;

void __sanitizer_cov_trace_pc(void)
{
    blocks++;
}

/* ---- work -------------------------------------------------------------------------------- */

static HDICOMPDU new_request(int contexts, int transfers)
{
    HDICOMPDU pdu = L_DicomCreateAssociate(TRUE);
    assert(pdu != NULL);
    for (int context = 0; context < contexts; context++) {
        const L_UCHAR id = (L_UCHAR)(2 * context + 1);
        assert(L_DicomAddPresentation(pdu, id, 0, "1.2.3") == DICOM_SUCCESS);
        for (int i = 0; i < transfers; i++) {
            assert(L_DicomAddTransfer(pdu, id, "1.2.840.10008.1.2") == DICOM_SUCCESS);
        }
    }
    return pdu;
}

/* Read all contexts with the counts in the loop conditions, which is the common way. */
static int read_all(HDICOMPDU pdu)
{
    int read = 0;
    for (L_INT i = 0; i < L_DicomGetPresentationCount(pdu); i++) {
        const L_UCHAR id = L_DicomGetPresentation(pdu, i);
        assert(L_DicomGetAbstract(pdu, id)[0] != '\0' && L_DicomGetResult(pdu, id) == 0);
        for (L_INT j = 0; j < L_DicomGetTransferCount(pdu, id); j++) {
            read += L_DicomGetTransfer(pdu, id, j)[0] != '\0';
        }
        assert(L_DicomGetTransfer(pdu, id, L_DicomGetTransferCount(pdu, id))[0] == '\0');
    }
    return read;
}

static unsigned long work_of(int contexts, int transfers)
{
    HDICOMPDU pdu = new_request(contexts, transfers);
    blocks = 0;
    assert(read_all(pdu) == contexts * transfers);
    const unsigned long work = blocks;
    L_DicomFreeAssociate(pdu);
    return work;
}

/* ---- order ------------------------------------------------------------------------------- */

static void put_item(writer *w, uint8_t type, const char *value, size_t size)
{
    writer_u8(w, type);
    writer_u8(w, 0);
    writer_u16(w, size);
    writer_bytes(w, (const uint8_t *)value, size);
}

/* A request with its user information first; in its second context the abstract syntax stands
 * between two transfer syntaxes. */
static associate *receive_in_another_order(void)
{
    static const char first[] = "\1\0\0\0\x30\0\0\3"
                                "1.1"
                                "\x40\0\0\3"
                                "1.2";
    static const char second[] = "\3\0\0\0\x40\0\0\3"
                                 "1.3"
                                 "\x30\0\0\3"
                                 "1.4"
                                 "\x40\0\0\3"
                                 "1.5";
    uint8_t bytes[400] = {LTDIC_ASSOCIATE_RQ, 0, 0, 0, 0, 0, 0, 1};
    writer w = {bytes, sizeof bytes, 74};
    memset(bytes + 10, 'A', 32);
    put_item(&w, 0x50,
             "\x51\0\0\4\0\0\x40\0\x52\0\0\1"
             "1",
             13);
    put_item(&w, 0x20, first, sizeof first - 1);
    put_item(&w, 0x10, APPLICATION_CONTEXT, sizeof APPLICATION_CONTEXT - 1);
    put_item(&w, 0x20, second, sizeof second - 1);
    store_u32(bytes + 2, w.pos - HEADER);
    return ltdic__associate_from_pdu((ltdic_bytes){bytes, w.pos});
}

static void a_received_object_may_be_in_another_order(void)
{
    associate *received = receive_in_another_order();
    HDICOMPDU pdu = ltdic__associate_handle(received);
    assert(pdu != NULL && L_DicomGetPresentationCount(pdu) == 2);
    for (int again = 0; again < 2; again++) { /* forwards and backwards */
        assert(L_DicomGetPresentation(pdu, 1) == 3 && L_DicomGetPresentation(pdu, 0) == 1);
        assert(L_DicomGetTransferCount(pdu, 3) == 2 && L_DicomGetTransferCount(pdu, 1) == 1);
        assert(strcmp(L_DicomGetTransfer(pdu, 3, 1), "1.5") == 0);
        assert(strcmp(L_DicomGetTransfer(pdu, 3, 0), "1.3") == 0);
        assert(strcmp(L_DicomGetAbstract(pdu, 3), "1.4") == 0);
        assert(strcmp(L_DicomGetAbstract(pdu, 1), "1.1") == 0);
        assert(strcmp(L_DicomGetTransfer(pdu, 1, 0), "1.2") == 0);
        assert(L_DicomGetTransfer(pdu, 1, 1)[0] == '\0' && L_DicomGetTransferCount(pdu, 5) == 0);
    }
    L_DicomFreeAssociate(pdu); /* the library owns it */
    assert(L_DicomGetPresentationCount(pdu) == 2);
    ltdic__associate_free(received);
}

int main(int argc, char **argv)
{
    a_received_object_may_be_in_another_order();
    for (int i = 1; i + 1 < argc; i += 2) {
        printf("%lu\n", work_of(atoi(argv[i]), atoi(argv[i + 1])));
    }
    return 0;
}
