/* SPDX-License-Identifier: MIT */
/* Who is let in (PS3.8 table 9-21, PS3.7 D.3.3.7.3), and the A-ASSOCIATE-AC that says so. */
#include "association.h"
#include "bytes.h"

#include <stdlib.h>

enum { BUCKETS = 256, DEFAULT_MAX_LENGTH = 16384, MAX_LENGTH_SIZE = 4 };

/* Results of a context (PS3.8 table 9-18). */
enum { ACCEPTED = 0, NO_REASON = 2, NO_ABSTRACT_SYNTAX = 3, NO_TRANSFER_SYNTAX = 4 };

/* A title; an abstract syntax with its transfer syntaxes inside; a name with its passcode. */
typedef struct entry {
    struct entry *next, *inside;
    size_t size;
    uint8_t value[];
} entry;

/* A calling title, and how many associations it has. */
typedef struct ltdic_caller {
    struct ltdic_caller *next;
    uint8_t title[TITLE_SIZE]; /* padded with spaces */
    uint32_t count, most;
    bool named; /* it has a limit of its own, and so stays */
} caller;

struct ltdic_admission {
    entry *called, *calling, *contexts, *identities;
    caller *callers[BUCKETS];
    uint32_t count, most, most_each; /* most: 0: any number */
    bool counts_callers;
    uint32_t max_length;
};

/* ---- what is let in ----------------------------------------------------------------------- */

ltdic_admission *ltdic_admission_new(void)
{
    ltdic_admission *a = calloc(1, sizeof *a);
    if (a != NULL) {
        a->max_length = DEFAULT_MAX_LENGTH;
    }
    return a;
}

/* A passcode may be in it. */
static void free_entries(entry *e)
{
    while (e != NULL) {
        entry *next = e->next;
        volatile uint8_t *value = e->value;
        for (size_t i = 0; i < e->size; i++) {
            value[i] = 0;
        }
        free_entries(e->inside);
        free(e);
        e = next;
    }
}

void ltdic_admission_free(ltdic_admission *admission)
{
    if (admission == NULL) {
        return;
    }
    free_entries(admission->called);
    free_entries(admission->calling);
    free_entries(admission->contexts);
    free_entries(admission->identities);
    for (size_t i = 0; i < BUCKETS; i++) {
        while (admission->callers[i] != NULL) {
            caller *first = admission->callers[i];
            admission->callers[i] = first->next;
            free(first);
        }
    }
    free(admission);
}

static ltdic_bytes value_of(const entry *e)
{
    return (ltdic_bytes){e->value, e->size};
}

static ltdic_bytes text_of(const char *text)
{
    return (ltdic_bytes){(const uint8_t *)text, strlen(text)};
}

/* The last place of a list. */
static entry **end_of(entry **list)
{
    while (*list != NULL) {
        list = &(*list)->next;
    }
    return list;
}

static int add(entry **list, ltdic_bytes value)
{
    entry *e = malloc(sizeof *e + value.size);
    if (e == NULL) {
        return LTDIC_ERR_MEMORY;
    }
    e->next = e->inside = NULL;
    e->size = value.size;
    if (value.size > 0) {
        memcpy(e->value, value.data, value.size);
    }
    *end_of(list) = e;
    return LTDIC_OK;
}

static int add_title(entry **list, const char *title)
{
    const ltdic_bytes trimmed = ltdic__without_spaces(text_of(title));
    return ltdic__title_is_legal(trimmed) ? add(list, trimmed) : LTDIC_ERR_BAD_VALUE;
}

int ltdic_admission_add_called(ltdic_admission *admission, const char *title)
{
    return add_title(&admission->called, title);
}

int ltdic_admission_add_calling(ltdic_admission *admission, const char *title)
{
    return add_title(&admission->calling, title);
}

int ltdic_admission_add_context(ltdic_admission *admission, const char *abstract_syntax)
{
    const ltdic_bytes uid = text_of(abstract_syntax);
    return ltdic__uid_is_legal(uid) ? add(&admission->contexts, uid) : LTDIC_ERR_BAD_VALUE;
}

int ltdic_admission_add_transfer(ltdic_admission *admission, const char *transfer_syntax)
{
    const ltdic_bytes uid = text_of(transfer_syntax);
    entry *last = admission->contexts;
    while (last != NULL && last->next != NULL) {
        last = last->next;
    }
    const bool good = last != NULL && ltdic__uid_is_legal(uid);
    return good ? add(&last->inside, uid) : LTDIC_ERR_BAD_VALUE;
}

int ltdic_admission_add_identity(ltdic_admission *admission, ltdic_bytes name, ltdic_bytes passcode)
{
    entry **place = end_of(&admission->identities);
    const int status = add(place, name);
    if (status != LTDIC_OK || passcode.data == NULL) {
        return status;
    }
    if (add(&(*place)->inside, passcode) != LTDIC_OK) { /* never without its passcode */
        free_entries(*place);
        *place = NULL;
        return LTDIC_ERR_MEMORY;
    }
    return LTDIC_OK;
}

void ltdic_admission_set_max_length(ltdic_admission *admission, uint32_t max_length)
{
    admission->max_length = max_length;
}

/* ---- places ------------------------------------------------------------------------------- */

static caller **bucket_of(ltdic_admission *a, const uint8_t *title)
{
    uint32_t hash = 2166136261U; /* FNV-1a */
    for (size_t i = 0; i < TITLE_SIZE; i++) {
        hash = (hash ^ title[i]) * 16777619U;
    }
    return &a->callers[(hash ^ hash >> 8 ^ hash >> 16) % BUCKETS];
}

/* What has this title, if need be a new one; NULL when out of memory. */
static caller *caller_of(ltdic_admission *a, ltdic_bytes trimmed)
{
    uint8_t title[TITLE_SIZE];
    memset(title, ' ', sizeof title);
    if (trimmed.size > 0) {
        memcpy(title, trimmed.data, trimmed.size);
    }
    caller **bucket = bucket_of(a, title);
    for (caller *c = *bucket; c != NULL; c = c->next) {
        if (memcmp(c->title, title, sizeof title) == 0) {
            return c;
        }
    }
    caller *c = calloc(1, sizeof *c);
    if (c != NULL) {
        memcpy(c->title, title, sizeof title);
        c->next = *bucket;
        *bucket = c;
    }
    return c;
}

static void drop_caller(ltdic_admission *a, caller *c)
{
    if (c->count > 0 || c->named) {
        return;
    }
    caller **place = bucket_of(a, c->title);
    while (*place != c) {
        place = &(*place)->next;
    }
    *place = c->next;
    free(c);
}

void ltdic_admission_set_limits(ltdic_admission *admission, uint32_t together, uint32_t each)
{
    admission->most = together;
    admission->most_each = each;
    admission->counts_callers = admission->counts_callers || each != 0;
}

int ltdic_admission_limit_calling(ltdic_admission *admission, const char *title, uint32_t most)
{
    const ltdic_bytes trimmed = ltdic__without_spaces(text_of(title));
    if (!ltdic__title_is_legal(trimmed)) {
        return LTDIC_ERR_BAD_VALUE;
    }
    caller *c = caller_of(admission, trimmed);
    if (c == NULL) {
        return LTDIC_ERR_MEMORY;
    }
    c->named = true;
    c->most = most;
    admission->counts_callers = true;
    return LTDIC_OK;
}

static bool reached(uint32_t count, uint32_t most)
{
    return most != 0 && count >= most;
}

static const ltdic_reject limit_exceeded = {2, 3, 2}, congestion = {2, 3, 1};

/* A place for one more of this title, or why there is none. */
static ltdic_reject take_place(ltdic_admission *a, ltdic_answer *answer, ltdic_bytes calling)
{
    if (reached(a->count, a->most)) {
        return limit_exceeded;
    }
    if (a->counts_callers) {
        caller *c = caller_of(a, calling);
        if (c == NULL) {
            return congestion;
        }
        if (reached(c->count, c->named ? c->most : a->most_each)) {
            return limit_exceeded;
        }
        c->count++;
        answer->caller = c;
    }
    a->count++;
    answer->admitted = 1;
    return (ltdic_reject){0, 0, 0};
}

void ltdic_admission_leave(ltdic_admission *admission, ltdic_answer *answer)
{
    caller *c = answer->caller;
    if (answer->admitted) {
        admission->count--;
    }
    if (c != NULL) {
        c->count--;
        drop_caller(admission, c);
    }
    answer->admitted = 0;
    answer->caller = NULL;
}

/* ---- an A-ASSOCIATE-RQ --------------------------------------------------------------------- */

static bool is_one_of(const entry *list, ltdic_bytes value)
{
    for (; list != NULL; list = list->next) {
        if (list->size == value.size && memcmp(list->value, value.data, value.size) == 0) {
            return true;
        }
    }
    return false;
}

/* The fields of item 58 (PS3.7 D.3.3.7.1), or false where there is none. */
typedef struct identity {
    uint8_t type;
    bool response; /* is wanted */
    ltdic_bytes primary, secondary;
} identity;

static bool find_identity(identity *found, ltdic_bytes rq)
{
    ltdic_bytes rest = ltdic__items_of(rq), information, item;
    while (ltdic__next_item(&rest, USER_INFORMATION, &information)) {
        if (ltdic__next_item(&information, USER_IDENTITY, &item)) {
            const uint8_t *p = item.data;
            const size_t size = load_u16(p + 2);
            found->type = p[0];
            found->response = p[1] != 0;
            found->primary = (ltdic_bytes){p + 4, size};
            found->secondary = (ltdic_bytes){p + 6 + size, load_u16(p + 4 + size)};
            return true;
        }
    }
    return false;
}

/* In a time that does not tell how much of it is right. */
static bool same_secret(ltdic_bytes a, ltdic_bytes b)
{
    uint8_t difference = a.size == b.size ? 0 : 1;
    for (size_t i = 0; i < a.size && i < b.size; i++) {
        difference |= a.data[i] ^ b.data[i];
    }
    return difference == 0;
}

/* All entries are looked at, for the same reason. */
static bool knows(const entry *identities, const identity *who)
{
    enum { NAME = 1, PASSCODE = 2 };
    bool known = false;
    for (const entry *e = identities; e != NULL; e = e->next) {
        const bool right = e->inside == NULL || (who->type == PASSCODE &&
                                                 same_secret(value_of(e->inside), who->secondary));
        known |= same_secret(value_of(e), who->primary) & right;
    }
    return known && (who->type == NAME || who->type == PASSCODE);
}

/* Result 0 where nothing speaks against it. What will not change is said first. */
static ltdic_reject refusal(ltdic_admission *a, ltdic_answer *answer, ltdic_bytes rq, bool known)
{
    const ltdic_bytes calling = ltdic__title_at(rq, CALLING_AT);
    if (a->called != NULL && !is_one_of(a->called, ltdic__title_at(rq, CALLED_AT))) {
        return (ltdic_reject){1, 1, 7};
    }
    if (a->calling != NULL && !is_one_of(a->calling, calling)) {
        return (ltdic_reject){1, 1, 3};
    }
    if (!known) {
        return (ltdic_reject){1, 2, 1};
    }
    return take_place(a, answer, calling);
}

/* The first of our transfer syntaxes that is proposed; NULL where none is. */
static const entry *choose(const entry *ours, ltdic_bytes proposal)
{
    for (; ours != NULL; ours = ours->next) {
        ltdic_bytes rest = ltdic__sub_items_of(proposal), theirs;
        while (ltdic__next_item(&rest, TRANSFER_SYNTAX, &theirs)) {
            if (ltdic__same_uid(value_of(ours), theirs)) {
                return ours;
            }
        }
    }
    return NULL;
}

/* Result of a context, and the transfer syntax where it is accepted. */
static uint8_t judge_context(const ltdic_admission *a, ltdic_bytes proposal, const entry **chosen)
{
    ltdic_bytes rest = ltdic__sub_items_of(proposal), abstract;
    if (proposal.data[0] % 2 == 0) {
        return NO_REASON;
    }
    if (!ltdic__next_item(&rest, ABSTRACT_SYNTAX, &abstract)) {
        return NO_ABSTRACT_SYNTAX;
    }
    uint8_t result = NO_ABSTRACT_SYNTAX;
    for (const entry *e = a->contexts; e != NULL && result != ACCEPTED; e = e->next) {
        if (ltdic__same_uid(value_of(e), abstract)) { /* it may have been added twice */
            *chosen = choose(e->inside, proposal);
            result = *chosen != NULL ? ACCEPTED : NO_TRANSFER_SYNTAX;
        }
    }
    return result;
}

/* ---- the A-ASSOCIATE-AC -------------------------------------------------------------------- */

static void put_item(writer *w, uint8_t type, ltdic_bytes value)
{
    writer_u8(w, type);
    writer_u8(w, 0);
    writer_u16(w, value.size);
    writer_bytes(w, value.data, value.size);
}

/* What a refused context is answered with: the first syntax it proposed (PS3.8 table 9-18 leaves it
 * without a meaning), or an empty one. */
static ltdic_bytes echoed(ltdic_bytes proposal)
{
    ltdic_bytes rest = ltdic__sub_items_of(proposal), uid;
    const bool good =
        ltdic__next_item(&rest, TRANSFER_SYNTAX, &uid) && ltdic__uid_is_legal(ltdic__trimmed(uid));
    return good ? ltdic__trimmed(uid) : (ltdic_bytes){NULL, 0};
}

static void put_context(writer *w, const ltdic_admission *a, ltdic_bytes proposal)
{
    const entry *chosen = NULL;
    const uint8_t result = judge_context(a, proposal, &chosen);
    const uint8_t head[] = {proposal.data[0], 0, result, 0};
    const ltdic_bytes syntax = chosen != NULL ? value_of(chosen) : echoed(proposal);
    writer_u8(w, ANSWERED);
    writer_u8(w, 0);
    writer_u16(w, sizeof head + ITEM_HEADER + syntax.size);
    writer_bytes(w, head, sizeof head);
    put_item(w, TRANSFER_SYNTAX, syntax);
}

/* Each ID once: of several with the same, the first counts. */
static void put_contexts(writer *w, const ltdic_admission *a, ltdic_bytes rq)
{
    uint8_t seen[32] = {0};
    ltdic_bytes rest = ltdic__items_of(rq), proposal;
    while (ltdic__next_item(&rest, PROPOSED, &proposal)) {
        if (ltdic__take_bit(seen, proposal.data[0])) {
            put_context(w, a, proposal);
        }
    }
}

static void put_user_information(writer *w, const ltdic_admission *a, bool response)
{
    static const uint8_t no_response[] = {0, 0};
    uint8_t max_length[MAX_LENGTH_SIZE];
    store_u32(max_length, a->max_length);
    writer_u8(w, USER_INFORMATION);
    writer_u8(w, 0);
    const size_t length_at = w->pos;
    writer_u16(w, 0);
    put_item(w, MAX_LENGTH, (ltdic_bytes){max_length, sizeof max_length});
    put_item(w, CLASS_UID, text_of(IMPLEMENTATION_CLASS_UID));
    put_item(w, VERSION_NAME, text_of(IMPLEMENTATION_VERSION_NAME));
    if (response) {
        put_item(w, USER_IDENTITY_RESPONSE, (ltdic_bytes){no_response, sizeof no_response});
    }
    writer_close_u16(w, length_at);
}

static int put_accept(ltdic_buffer *out, const ltdic_admission *a, ltdic_bytes rq, bool response)
{
    static const uint8_t head[] = {LTDIC_ASSOCIATE_AC, 0, 0, 0, 0, 0, 0, 1, 0, 0};
    writer w = {out->data, out->room, 0};
    writer_bytes(&w, head, sizeof head);
    writer_bytes(&w, rq.data + sizeof head, ITEMS_START - sizeof head); /* PS3.8 9.3.3 */
    put_item(&w, APPLICATION_CONTEXT_ITEM, text_of(APPLICATION_CONTEXT));
    put_contexts(&w, a, rq);
    put_user_information(&w, a, response);
    out->size = w.pos;
    if (w.pos > w.room) {
        return LTDIC_ERR_ROOM;
    }
    store_u32(out->data + 2, w.pos - HEADER);
    return LTDIC_OK;
}

int ltdic_admission_judge(ltdic_admission *admission, ltdic_answer *answer, ltdic_buffer *accept,
                          ltdic_bytes rq)
{
    identity who = {.type = 0};
    const bool asks = find_identity(&who, rq), matters = admission->identities != NULL;
    const bool known = !matters || (asks && knows(admission->identities, &who));
    *answer = (ltdic_answer){.admitted = 0};
    const int status = put_accept(accept, admission, rq, matters && asks && who.response);
    if (status == LTDIC_OK) {
        answer->refusal = refusal(admission, answer, rq, known);
    }
    return status;
}
