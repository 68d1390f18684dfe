/* SPDX-License-Identifier: MIT */
/* Splits a byte stream into PDUs (PS3.8 9.3.1). A P-DATA-TF is returned in pieces as its bytes
 * arrive (PS3.8 9.3.5). Its PDVs get the checks of pdu_decode.c, each as soon as the bytes have
 * arrived. */
#include "framing.h"

enum { PDV_LENGTH = 4, PDV_HEADER = 6 };

static void consume(ltdic_stream *s, ltdic_bytes *in, size_t size)
{
    in->data += size;
    in->size -= size;
    s->offset += size;
}

static int need_more(const ltdic_stream *s, ltdic_bytes in, size_t more, ltdic_fault *fault)
{
    return ltdic__fault_at(fault, LTDIC_NEED_MORE, s->offset + in.size, s->offset + more);
}

/* Checks the length of the PDV that starts here. */
static int check_length(const ltdic_stream *s, ltdic_bytes in, const ltdic_options *options,
                        ltdic_fault *fault)
{
    if (s->pdu_left < PDV_LENGTH) {
        return ltdic__fault_at(fault, LTDIC_ERR_ITEM_OVERRUN, s->offset, 0);
    }
    if (in.size < PDV_LENGTH) {
        return need_more(s, in, PDV_LENGTH, fault);
    }
    const uint32_t length = load_u32(in.data);
    if (length > s->pdu_left - PDV_LENGTH) {
        return ltdic__fault_at(fault, LTDIC_ERR_ITEM_OVERRUN, s->offset, 0);
    }
    if (length < 2) {
        return ltdic__fault_at(fault, LTDIC_ERR_BAD_LENGTH, s->offset, 0);
    }
    if (options->strict && length % 2 != 0) {
        return ltdic__fault_at(fault, LTDIC_ERR_BAD_VALUE, s->offset, 0);
    }
    return LTDIC_OK;
}

static int begin_pdv(ltdic_stream *s, ltdic_bytes *in, const ltdic_options *options,
                     ltdic_fault *fault)
{
    const int status = check_length(s, *in, options, fault);
    if (status != LTDIC_OK) {
        return status;
    }
    if (options->strict && in->size > PDV_LENGTH && in->data[PDV_LENGTH] % 2 == 0) {
        return ltdic__fault_at(fault, LTDIC_ERR_BAD_VALUE, s->offset + PDV_LENGTH, 0);
    }
    if (in->size < PDV_HEADER) {
        return need_more(s, *in, PDV_HEADER, fault);
    }
    s->pdv_left = load_u32(in->data) - 2;
    s->id = in->data[4];
    s->control = in->data[5];
    s->pdu_left -= PDV_HEADER;
    consume(s, in, PDV_HEADER);
    return LTDIC_OK;
}

/* Returns the part of the current PDV that has arrived. */
static int take_slice(ltdic_stream *s, ltdic_piece *piece, ltdic_bytes *in, bool first,
                      ltdic_fault *fault)
{
    const size_t size = in->size < s->pdv_left ? in->size : s->pdv_left;
    if (size == 0 && s->pdv_left > 0 && !first) {
        return need_more(s, *in, 1, fault);
    }
    s->pdv_left -= (uint32_t)size;
    s->pdu_left -= (uint32_t)size;
    *piece = (ltdic_piece){
        .data = {in->data, size},
        .type = LTDIC_DATA_TF,
        .id = s->id,
        .control = s->control,
        .first = first,
        .last = s->pdv_left == 0,
        .end = s->pdu_left == 0,
    };
    consume(s, in, size);
    if (s->pdu_left == 0) {
        s->offset = 0;
    }
    return ltdic__fault_at(fault, LTDIC_OK, 0, 0);
}

int ltdic_stream_next(ltdic_stream *stream, ltdic_piece *piece, ltdic_bytes *in,
                      const ltdic_options *options, ltdic_fault *fault)
{
    ltdic_options room;
    const ltdic_options *effect = ltdic__effective(options, &room);
    int status = LTDIC_OK;
    if (stream->pdu_left == 0) {
        status = frame_header(*in, effect, fault);
        if (status != LTDIC_OK) {
            return status;
        }
        if (in->data[0] != LTDIC_DATA_TF) {
            status = frame(&piece->data, *in, effect, fault);
            if (status == LTDIC_OK) {
                *piece = (ltdic_piece){.data = piece->data, .type = in->data[0], .end = 1};
                in->data += piece->data.size;
                in->size -= piece->data.size;
            }
            return status;
        }
        stream->pdu_left = load_u32(in->data + 2);
        consume(stream, in, HEADER);
    }
    const bool first = stream->pdv_left == 0;
    if (first) {
        status = begin_pdv(stream, in, effect, fault);
    }
    return status == LTDIC_OK ? take_slice(stream, piece, in, first, fault) : status;
}
