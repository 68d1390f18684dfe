/* SPDX-License-Identifier: MIT */
/* Timing and answers of a contender that makes rows of ltdic.h. */
#define _POSIX_C_SOURCE 200809L
#include "codec.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROWS = 4096, SLACK = 1 << 17 };

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

typedef struct work {
    const uint8_t *data;
    size_t size;
    ltdic_items rows;
    uint8_t *out;
    size_t room;
} work;

typedef size_t (*operation)(work *w);

static size_t decode(work *w)
{
    return contender_decode(&w->rows, w->data, w->size);
}

static size_t encode(work *w)
{
    return contender_encode(w->out, w->room, &w->rows, w->data, w->size);
}

static size_t stream(work *w)
{
    size_t at = 0, size = 1;
    while (at < w->size && size > 0) {
        size = contender_decode(&w->rows, w->data + at, w->size - at);
        at += size;
    }
    return size;
}

static size_t rejects(work *w)
{
    return contender_rejects(w->out, w->data, w->size);
}

static size_t refuse(work *w)
{
    return contender_refuse(w->out, w->data, w->size);
}

static operation find(const char *name)
{
    static const struct {
        const char *name;
        operation run;
    } all[] = {{"decode", decode},
               {"encode", encode},
               {"stream", stream},
               {"rejects", rejects},
               {"refuse", refuse}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(all[i].name, name) == 0) {
            return all[i].run;
        }
    }
    return NULL;
}

static work begin(const uint8_t *data, size_t size)
{
    work w = {.data = data, .size = size, .room = size + SLACK};
    w.rows = (ltdic_items){.items = malloc(ROWS * sizeof(ltdic_item)), .room = ROWS};
    w.out = malloc(w.room);
    if (w.rows.items == NULL || w.out == NULL) {
        abort();
    }
    return w;
}

static void end(work *w)
{
    free(w->rows.items);
    free(w->out);
}

uint64_t bench_run(const char *name, const uint8_t *data, size_t size, uint64_t count)
{
    const operation run = find(name);
    if (run == NULL) {
        return 0;
    }
    work w = begin(data, size);
    bool good = run == encode ? decode(&w) > 0 : true;
    const uint64_t start = now();
    for (uint64_t i = 0; i < count; i++) {
        good = run(&w) > 0 && good;
    }
    const uint64_t nanoseconds = now() - start;
    end(&w);
    return good ? nanoseconds : 0;
}

/* ---- answers --------------------------------------------------------------------------------- */

typedef struct text {
    char *out;
    size_t size, room;
} text;

__attribute__((format(printf, 2, 3))) static void say(text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int size = vsnprintf(t->out + t->size, t->room - t->size, format, args);
    va_end(args);
    if (size < 0 || (size_t)size >= t->room - t->size) {
        abort();
    }
    t->size += (size_t)size;
}

static const ltdic_item *find_row(const ltdic_items *rows, uint8_t kind)
{
    for (size_t i = 0; i < rows->count; i++) {
        if (rows->items[i].kind == kind) {
            return &rows->items[i];
        }
    }
    return NULL;
}

static void say_value(text *t, const char *before, const uint8_t *pdu, const ltdic_item *row)
{
    if (row != NULL) {
        say(t, "%s%.*s", before, (int)row->length, (const char *)pdu + row->offset);
    }
}

static void say_contexts(text *t, const uint8_t *pdu, const ltdic_items *rows, bool proposed)
{
    bool open = false;
    for (size_t i = 0; i < rows->count; i++) {
        const ltdic_item *row = &rows->items[i];
        if (row->kind == LTDIC_CONTEXT) {
            say(t, open ? "\ncontext %d" : "context %d", row->id);
            if (!proposed) {
                say(t, " result=%d", row->result);
            }
            open = true;
        } else if (row->kind == LTDIC_ABSTRACT_SYNTAX) {
            say_value(t, " abstract=", pdu, row);
        } else if (row->kind == LTDIC_TRANSFER_SYNTAX) {
            say_value(t, " transfer=", pdu, row);
        }
    }
    say(t, open ? "\n" : "");
}

static void say_associate(text *t, const uint8_t *pdu, const ltdic_items *rows)
{
    const bool proposed = rows->items->type == LTDIC_ASSOCIATE_RQ;
    say(t, "A-ASSOCIATE-%s version=%d", proposed ? "RQ" : "AC", rows->items->version);
    say_value(t, " called=", pdu, find_row(rows, LTDIC_CALLED_AE));
    say_value(t, " calling=", pdu, find_row(rows, LTDIC_CALLING_AE));
    say_value(t, " application=", pdu, find_row(rows, LTDIC_APPLICATION_CONTEXT));
    say(t, "\n");
    say_contexts(t, pdu, rows, proposed);
    const ltdic_item *most = find_row(rows, LTDIC_MAX_LENGTH);
    if (most != NULL) {
        const uint8_t *p = pdu + most->offset;
        say(t, "user max=%lu",
            (unsigned long)p[0] << 24 | (unsigned long)p[1] << 16 | (unsigned long)p[2] << 8 |
                p[3]);
    }
    say_value(t, "\nuser class=", pdu, find_row(rows, LTDIC_CLASS_UID));
    say_value(t, "\nuser name=", pdu, find_row(rows, LTDIC_VERSION_NAME));
    say(t, "\n");
}

static void say_data(text *t, const uint8_t *pdu, const ltdic_items *rows)
{
    say(t, "P-DATA-TF\n");
    for (size_t i = 1; i < rows->count; i++) {
        const ltdic_item *row = &rows->items[i];
        uint32_t sum = 0;
        for (size_t k = 0; k < row->length; k++) {
            sum += pdu[row->offset + k];
        }
        say(t, "pdv id=%d command=%d last=%d size=%u sum=%u\n", row->id, row->result & 1,
            row->result >> 1 & 1, row->length, sum);
    }
}

static void say_pdu(text *t, const uint8_t *pdu, const ltdic_items *rows)
{
    const ltdic_item *row = rows->items;
    switch (row->type) {
    case LTDIC_ASSOCIATE_RQ:
    case LTDIC_ASSOCIATE_AC:
        say_associate(t, pdu, rows);
        break;
    case LTDIC_ASSOCIATE_RJ:
        say(t, "A-ASSOCIATE-RJ result=%d source=%d reason=%d\n", row->result, row->source,
            row->reason);
        break;
    case LTDIC_DATA_TF:
        say_data(t, pdu, rows);
        break;
    case LTDIC_ABORT:
        say(t, "A-ABORT source=%d reason=%d\n", row->source, row->reason);
        break;
    default:
        say(t, row->type == LTDIC_RELEASE_RQ ? "A-RELEASE-RQ\n" : "A-RELEASE-RP\n");
    }
}

static void say_stream(text *t, work *w)
{
    size_t size = 1;
    for (size_t at = 0; at < w->size && size > 0; at += size) {
        size = contender_decode(&w->rows, w->data + at, w->size - at);
        if (size > 0) {
            say_pdu(t, w->data + at, &w->rows);
        }
    }
}

size_t bench_answer(const char *name, const uint8_t *data, size_t size, char *out, size_t room)
{
    const operation run = find(name);
    work w = begin(data, size);
    text t = {out, 0, room};
    if (run == decode || run == stream) {
        say_stream(&t, &w);
    } else if (run == encode && decode(&w) > 0) {
        t.size = contender_encode((uint8_t *)out, room, &w.rows, data, size);
    } else if (run == rejects) {
        t.size = 3 * contender_rejects((uint8_t *)out, data, size);
    } else if (run == refuse) {
        t.size = contender_refuse((uint8_t *)out, data, size);
    }
    end(&w);
    return t.size;
}
