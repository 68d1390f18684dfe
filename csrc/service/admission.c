/* SPDX-License-Identifier: MIT */
/* The admission: which requests are accepted (PS3.8 table 9-21, PS3.7 D.3.3.7.3), and the
 * A-ASSOCIATE-AC for them. */
#include "admission.h"

#include "codec/buffer.h"
#include "codec/framing.h"
#include "codec/items.h"
#include "codec/text.h"
#include "engine/walk.h"
#include "net/loop.h"

#include <pthread.h>

#include <stdlib.h>

enum { BUCKETS = 256, DEFAULT_MAX_LENGTH = 16384, MAX_LENGTH_SIZE = 4 };

/* Results of a context (PS3.8 table 9-18). */
enum { ACCEPTED = 0, NO_REASON = 2, NO_ABSTRACT_SYNTAX = 3, NO_TRANSFER_SYNTAX = 4 };

/* An AE title, or a user name whose `inside` is its passcode. */
typedef struct entry {
    struct entry *next, *inside;
    size_t size;
    uint8_t value[];
} entry;

/* An abstract syntax, or a transfer syntax that is accepted for one. */
typedef struct syntax {
    const struct syntax *of; /* transfer syntax: its abstract syntax; abstract syntax: NULL */
    uint32_t rank;  /* transfer syntax: from 0; the lowest rank that is proposed is chosen */
    uint32_t count; /* abstract syntax: number of its transfer syntaxes */
    uint32_t hash;
    size_t size;
    uint8_t value[];
} syntax;

/* A hash table of all syntaxes, with open addressing. Each syntax that a peer proposes is looked
 * up once, however many are accepted. A peer cannot add to it. */
typedef struct syntaxes {
    syntax **slots; /* at least half of them are NULL */
    size_t room;    /* number of slots: a power of 2, or 0 */
    size_t count;
    syntax *last; /* the abstract syntax that was added last */
} syntaxes;

/* A calling title or a host, and the number of its associations. */
typedef struct ltdic_tally {
    struct ltdic_tally *next;
    uint32_t count, most;
    bool named; /* has a limit of its own, and is kept without associations */
    size_t size;
    uint8_t key[];
} tally;

typedef struct tallies {
    tally *buckets[BUCKETS];
    _Atomic uint32_t each; /* limit for tallies that are not named; 0: none */
} tallies;

static const ltdic_reject local_limit = {2, 3, 2};

struct ltdic_admission {
    pthread_mutex_t lock; /* protects all members that are not atomic */
    unsigned forks;       /* ltdic__forks when the lock was made */
    entry *called, *calling, *identities;
    syntaxes contexts;
    bool any_context;
    tallies callers, hosts;
    uint32_t count, most; /* most: limit of `count`; 0: none */
    ltdic_reject beyond;  /* codes of a rejection beyond a limit */
    uint32_t max_length;
    uint32_t least_max_length;      /* least value that a requestor may send; 0: any */
    _Atomic uint32_t max_associate; /* 0: LTDIC_MAX_ASSOCIATE */
};

/* ---- the lock ------------------------------------------------------------------------------ */

/* Locks. In a child process the lock is made anew first, since a thread of the parent may have
 * held it. */
static void lock(ltdic_admission *a)
{
    const unsigned forks = atomic_load_explicit(&ltdic__forks, memory_order_relaxed);
    if (a->forks != forks) {
        a->forks = forks;
        pthread_mutex_init(&a->lock, NULL);
    }
    pthread_mutex_lock(&a->lock);
}

static void unlock(ltdic_admission *a)
{
    pthread_mutex_unlock(&a->lock);
}

/* ---- rules ------------------------------------------------------------------------------- */

ltdic_admission *ltdic_admission_new(void)
{
    ltdic_admission *a = calloc(1, sizeof *a);
    if (a != NULL) {
        pthread_mutex_init(&a->lock, NULL);
        a->forks = atomic_load(&ltdic__forks);
        a->max_length = DEFAULT_MAX_LENGTH;
        a->beyond = local_limit;
    }
    return a;
}

/* Wipes values, since some are passcodes. */
static void free_entries(entry *e)
{
    while (e != NULL) {
        entry *next = e->next;
        ltdic__wipe(e->value, e->size);
        free_entries(e->inside);
        free(e);
        e = next;
    }
}

static void free_syntaxes(syntaxes *all)
{
    for (size_t i = 0; i < all->room; i++) {
        free(all->slots[i]);
    }
    free(all->slots);
}

static void free_rules(ltdic_admission *admission)
{
    free_entries(admission->called);
    free_entries(admission->calling);
    free_syntaxes(&admission->contexts);
    free_entries(admission->identities);
}

static void free_tallies(tallies *all)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        while (all->buckets[i] != NULL) {
            tally *first = all->buckets[i];
            all->buckets[i] = first->next;
            free(first);
        }
    }
}

void ltdic_admission_free(ltdic_admission *admission)
{
    if (admission != NULL) {
        free_rules(admission);
        free_tallies(&admission->callers);
        free_tallies(&admission->hosts);
        pthread_mutex_destroy(&admission->lock);
        free(admission);
    }
}

static ltdic_bytes value_of(const entry *e)
{
    return (ltdic_bytes){e->value, e->size};
}

static ltdic_bytes text_of(const char *text)
{
    return (ltdic_bytes){(const uint8_t *)text, strlen(text)};
}

/* Returns the link at the end of a list. */
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

void ltdic_admission_accept_any(ltdic_admission *admission)
{
    admission->any_context = true;
}

int ltdic_admission_add_identity(ltdic_admission *admission, ltdic_bytes name, ltdic_bytes passcode)
{
    entry **link = end_of(&admission->identities);
    const int status = add(link, name);
    if (status != LTDIC_OK || passcode.data == NULL) {
        return status;
    }
    if (add(&(*link)->inside, passcode) != LTDIC_OK) {
        free_entries(*link); /* a name is never kept without its passcode */
        *link = NULL;
        return LTDIC_ERR_MEMORY;
    }
    return LTDIC_OK;
}

void ltdic_admission_set_max_length(ltdic_admission *admission, uint32_t max_length)
{
    admission->max_length = max_length;
}

void ltdic_admission_set_least_max_length(ltdic_admission *admission, uint32_t bytes)
{
    admission->least_max_length = bytes;
}

void ltdic_admission_set_max_associate(ltdic_admission *admission, uint32_t max_associate)
{
    admission->max_associate = max_associate;
}

uint32_t ltdic_admission_max_associate(const ltdic_admission *admission)
{
    const uint32_t most = admission->max_associate;
    return most != 0 ? most : LTDIC_MAX_ASSOCIATE;
}

/* ---- syntaxes ------------------------------------------------------------------------------ */

/* Mixes a word into a hash. Each bit of the word also changes the lower half. */
static uint64_t mixed(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9E3779B97F4A7C15U;
    return hash ^ hash >> 32;
}

/* Returns the hash of a UID, made from eight bytes at a time. `of` is as in syntax. */
static uint32_t hash_of(const syntax *of, ltdic_bytes uid)
{
    uint64_t hash = (of != NULL ? of->hash : 0) ^ uid.size, word;
    for (; uid.size >= sizeof word; uid.data += sizeof word, uid.size -= sizeof word) {
        memcpy(&word, uid.data, sizeof word);
        hash = mixed(hash, word);
    }
    for (word = 0; uid.size > 0; uid.size--) {
        word = word << 8 | uid.data[uid.size - 1];
    }
    return (uint32_t)mixed(mixed(hash, word), 0);
}

/* Returns the slot of a syntax, or the empty slot where it belongs. */
static syntax **slot_of(const syntaxes *all, const syntax *of, ltdic_bytes uid, uint32_t hash)
{
    const size_t mask = all->room - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        const syntax *s = all->slots[i];
        if (s == NULL || (s->hash == hash && s->of == of && s->size == uid.size &&
                          memcmp(s->value, uid.data, uid.size) == 0)) {
            return &all->slots[i];
        }
    }
}

static const syntax *find_syntax(const syntaxes *all, const syntax *of, ltdic_bytes uid)
{
    const bool possible = all->room > 0 && uid.size > 0 && uid.size <= UID_MAX;
    return possible ? *slot_of(all, of, uid, hash_of(of, uid)) : NULL;
}

/* Reserves a slot. Returns false if there is no memory. */
static bool reserve_slot(syntaxes *all)
{
    enum { FIRST_ROOM = 16 };
    if (2 * (all->count + 1) <= all->room) {
        return true;
    }
    syntaxes larger = *all;
    larger.room = all->room > 0 ? 2 * all->room : FIRST_ROOM;
    larger.slots = calloc(larger.room, sizeof(syntax *));
    if (larger.slots == NULL) {
        return false;
    }
    for (size_t i = 0; i < all->room; i++) {
        syntax *s = all->slots[i];
        if (s != NULL) {
            *slot_of(&larger, s->of, (ltdic_bytes){s->value, s->size}, s->hash) = s;
        }
    }
    free(all->slots);
    *all = larger;
    return true;
}

/* Adds a syntax unless the table has it. */
static int add_syntax(syntaxes *all, syntax *of, ltdic_bytes uid, syntax **added)
{
    if (!ltdic__uid_is_legal(uid)) {
        return LTDIC_ERR_BAD_VALUE;
    }
    if (!reserve_slot(all)) {
        return LTDIC_ERR_MEMORY;
    }
    const uint32_t hash = hash_of(of, uid);
    syntax **slot = slot_of(all, of, uid, hash);
    if (*slot == NULL) {
        *slot = malloc(sizeof **slot + uid.size);
        if (*slot == NULL) {
            return LTDIC_ERR_MEMORY;
        }
        **slot = (syntax){.of = of, .hash = hash, .size = uid.size};
        (*slot)->rank = of != NULL ? of->count++ : 0;
        memcpy((*slot)->value, uid.data, uid.size);
        all->count++;
    }
    *added = *slot;
    return LTDIC_OK;
}

int ltdic_admission_add_context(ltdic_admission *admission, const char *abstract_syntax)
{
    syntaxes *all = &admission->contexts;
    return add_syntax(all, NULL, text_of(abstract_syntax), &all->last);
}

int ltdic_admission_add_transfer(ltdic_admission *admission, const char *transfer_syntax)
{
    syntaxes *all = &admission->contexts;
    syntax *added;
    return all->last == NULL ? LTDIC_ERR_BAD_VALUE
                             : add_syntax(all, all->last, text_of(transfer_syntax), &added);
}

/* ---- associations ------------------------------------------------------------------------ */

static tally **bucket_of(tallies *all, ltdic_bytes key)
{
    uint32_t hash = 2166136261U; /* FNV-1a hash */
    for (size_t i = 0; i < key.size; i++) {
        hash = (hash ^ key.data[i]) * 16777619U;
    }
    return &all->buckets[(hash ^ hash >> 8 ^ hash >> 16) % BUCKETS];
}

/* Returns the tally of this key, and makes it if there is none. Returns NULL if there is no
 * memory. */
static tally *tally_of(tallies *all, ltdic_bytes key)
{
    tally **bucket = bucket_of(all, key);
    for (tally *t = *bucket; t != NULL; t = t->next) {
        if (t->size == key.size && memcmp(t->key, key.data, key.size) == 0) {
            return t;
        }
    }
    tally *t = calloc(1, sizeof *t + key.size);
    if (t != NULL) {
        t->size = key.size;
        memcpy(t->key, key.data, key.size);
        t->next = *bucket;
        *bucket = t;
    }
    return t;
}

/* Frees a tally without associations and without a limit of its own. */
static void drop_tally(tallies *all, tally *t)
{
    if (t == NULL || t->count > 0 || t->named) {
        return;
    }
    tally **link = bucket_of(all, (ltdic_bytes){t->key, t->size});
    while (*link != t) {
        link = &(*link)->next;
    }
    *link = t->next;
    free(t);
}

void ltdic_admission_set_limits(ltdic_admission *admission, const ltdic_limits *limits)
{
    ltdic_limits l = {0};
    memcpy(&l, limits, limits->size < sizeof l ? limits->size : sizeof l);
    lock(admission);
    admission->most = l.together;
    admission->callers.each = l.each_calling;
    admission->hosts.each = l.each_host;
    admission->beyond = l.beyond.result != 0 ? l.beyond : local_limit;
    unlock(admission);
}

int ltdic_admission_limit_calling(ltdic_admission *admission, const char *title, uint32_t most)
{
    const ltdic_bytes trimmed = ltdic__without_spaces(text_of(title));
    if (!ltdic__title_is_legal(trimmed)) {
        return LTDIC_ERR_BAD_VALUE;
    }
    lock(admission);
    tally *t = tally_of(&admission->callers, trimmed);
    if (t != NULL) {
        t->named = true;
        t->most = most;
    }
    unlock(admission);
    return t != NULL ? LTDIC_OK : LTDIC_ERR_MEMORY;
}

int ltdic_admission_counts_hosts(const ltdic_admission *admission)
{
    return admission->hosts.each != 0;
}

static bool reached(uint32_t count, uint32_t most)
{
    return most != 0 && count >= most;
}

static bool is_full(const tallies *all, const tally *t)
{
    return t != NULL && reached(t->count, t->named ? t->most : all->each);
}

static const ltdic_reject let_in = {0, 0, 0}, congestion = {2, 3, 1};

/* Counts an association of this title and host, or returns the codes of a rejection. Call it with
 * the lock. */
static ltdic_reject enter(ltdic_admission *a, ltdic_answer *answer, ltdic_bytes calling,
                          ltdic_bytes host)
{
    if (reached(a->count, a->most)) {
        return a->beyond;
    }
    const bool by_host = a->hosts.each != 0;
    tally *c = tally_of(&a->callers, calling), *h = by_host ? tally_of(&a->hosts, host) : NULL;
    const bool no_memory = c == NULL || (by_host && h == NULL);
    if (no_memory || is_full(&a->callers, c) || is_full(&a->hosts, h)) {
        drop_tally(&a->callers, c);
        drop_tally(&a->hosts, h);
        return no_memory ? congestion : a->beyond;
    }
    c->count++;
    if (h != NULL) {
        h->count++;
    }
    a->count++;
    *answer = (ltdic_answer){.admitted = 1, .caller = c, .host = h};
    return let_in;
}

ltdic_reject ltdic__admission_enter(ltdic_admission *admission, ltdic_answer *answer,
                                    ltdic_bytes calling, ltdic_bytes host)
{
    lock(admission);
    const ltdic_reject refusal = enter(admission, answer, calling, host);
    unlock(admission);
    return refusal;
}

static void leave_tally(tallies *all, tally *t)
{
    if (t != NULL) {
        t->count--;
        drop_tally(all, t);
    }
}

static void leave(ltdic_admission *a, ltdic_answer *answer)
{
    a->count -= answer->admitted;
    leave_tally(&a->callers, answer->caller);
    leave_tally(&a->hosts, answer->host);
    answer->admitted = 0;
    answer->caller = answer->host = NULL;
}

void ltdic_admission_leave(ltdic_admission *admission, ltdic_answer *answer)
{
    if (answer->admitted) {
        lock(admission);
        leave(admission, answer);
        unlock(admission);
    }
}

/* ---- exchange of the rules --------------------------------------------------------------- */

/* Makes a tally here for each one there, so that take_names cannot fail. */
static bool reserve_names(tallies *here, const tallies *there)
{
    bool all = true;
    for (size_t i = 0; i < BUCKETS && all; i++) {
        for (const tally *t = there->buckets[i]; t != NULL && all; t = t->next) {
            all = tally_of(here, (ltdic_bytes){t->key, t->size}) != NULL;
        }
    }
    return all;
}

static void take_names(tallies *here, const tallies *there)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        for (tally *t = here->buckets[i]; t != NULL; t = t->next) {
            t->named = false;
        }
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        for (const tally *t = there->buckets[i]; t != NULL; t = t->next) {
            tally *own = tally_of(here, (ltdic_bytes){t->key, t->size});
            own->named = t->named;
            own->most = t->most;
        }
    }
    here->each = there->each;
}

static void drop_unused(tallies *all)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        for (tally *t = all->buckets[i], *next; t != NULL; t = next) {
            next = t->next;
            drop_tally(all, t);
        }
    }
}

static int take_rules(ltdic_admission *a, ltdic_admission *from)
{
    const bool reserved = reserve_names(&a->callers, &from->callers);
    if (reserved) {
        take_names(&a->callers, &from->callers);
    }
    drop_unused(&a->callers);
    if (!reserved) {
        return LTDIC_ERR_MEMORY;
    }
    free_rules(a);
    a->hosts.each = from->hosts.each;
    a->called = from->called;
    a->calling = from->calling;
    a->contexts = from->contexts;
    a->identities = from->identities;
    a->any_context = from->any_context;
    a->most = from->most;
    a->beyond = from->beyond;
    a->max_length = from->max_length;
    a->least_max_length = from->least_max_length;
    a->max_associate = from->max_associate;
    from->called = from->calling = from->identities = NULL;
    from->contexts = (syntaxes){0};
    return LTDIC_OK;
}

int ltdic_admission_take_rules(ltdic_admission *admission, ltdic_admission *from)
{
    lock(admission);
    const int status = take_rules(admission, from);
    unlock(admission);
    return status;
}

/* ---- an A-ASSOCIATE-RQ --------------------------------------------------------------------- */

static bool is_one_of(const entry *list, ltdic_bytes value)
{
    for (; list != NULL; list = list->next) {
        if (same_bytes(value_of(list), value)) {
            return true;
        }
    }
    return false;
}

/* The fields of item 58 (PS3.7 D.3.3.7.1). */
typedef struct identity {
    uint8_t type;
    bool response; /* a response is requested */
    ltdic_bytes primary, secondary;
} identity;

static bool find_identity(identity *found, const request_view *rq)
{
    if (rq->identity.size == 0) {
        return false;
    }
    const uint8_t *p = rq->identity.data;
    const size_t size = load_u16(p + 2);
    found->type = p[0];
    found->response = p[1] != 0;
    found->primary = (ltdic_bytes){p + 4, size};
    found->secondary = (ltdic_bytes){p + 6 + size, load_u16(p + 4 + size)};
    return true;
}

/* Compares two secrets in a time that does not depend on the number of equal bytes. */
static bool same_secret(ltdic_bytes a, ltdic_bytes b)
{
    uint8_t difference = a.size == b.size ? 0 : 1;
    for (size_t i = 0; i < a.size && i < b.size; i++) {
        difference |= a.data[i] ^ b.data[i];
    }
    return difference == 0;
}

/* Compares with all entries, so that the time tells nothing about them. */
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

static ltdic_reject refusal_by_title(const ltdic_admission *a, const request_view *rq)
{
    return a->called != NULL && !is_one_of(a->called, rq->called)      ? (ltdic_reject){1, 1, 7}
           : a->calling != NULL && !is_one_of(a->calling, rq->calling) ? (ltdic_reject){1, 1, 3}
                                                                       : let_in;
}

/* Returns the first reason to refuse, or let_in. Permanent reasons are reported before transient
 * ones: called title, calling title, user identity, maximum length. */
static ltdic_reject refusal(const ltdic_admission *a, const request_view *rq, identity *who)
{
    const ltdic_reject by_title = refusal_by_title(a, rq);
    if (by_title.result != 0) {
        return by_title;
    }
    if (a->identities != NULL && !(find_identity(who, rq) && knows(a->identities, who))) {
        return (ltdic_reject){1, 2, 1};
    }
    const bool too_small = rq->max_length != 0 && rq->max_length < a->least_max_length;
    return too_small ? (ltdic_reject){1, 1, 1} : let_in;
}

/* Returns the abstract syntax of a proposed context, trimmed. Its data is NULL if there is none. */
static ltdic_bytes abstract_of(ltdic_bytes proposal)
{
    ltdic_bytes rest = ltdic__sub_items_of(proposal), uid;
    const bool found = ltdic__next_item(&rest, ABSTRACT_SYNTAX, &uid);
    return found ? ltdic__trimmed(uid) : (ltdic_bytes){NULL, 0};
}

/* Returns the transfer syntax of ours with the lowest rank that is proposed; NULL if there is
 * none. */
static const syntax *choose(const syntaxes *ours, const syntax *of, ltdic_bytes proposal)
{
    const syntax *best = NULL;
    ltdic_bytes rest = ltdic__sub_items_of(proposal), uid;
    while ((best == NULL || best->rank > 0) && ltdic__next_item(&rest, TRANSFER_SYNTAX, &uid)) {
        const syntax *found = find_syntax(ours, of, ltdic__trimmed(uid));
        if (found != NULL && (best == NULL || found->rank < best->rank)) {
            best = found;
        }
    }
    return best;
}

/* Returns the transfer syntax that is proposed first; empty if it is not legal. */
static ltdic_bytes first_syntax(ltdic_bytes proposal)
{
    ltdic_bytes rest = ltdic__sub_items_of(proposal), uid;
    const bool good =
        ltdic__next_item(&rest, TRANSFER_SYNTAX, &uid) && ltdic__uid_is_legal(ltdic__trimmed(uid));
    return good ? ltdic__trimmed(uid) : (ltdic_bytes){NULL, 0};
}

/* Returns the result of a context, and sets the transfer syntax if it is accepted. */
static uint8_t judge_context(const ltdic_admission *a, ltdic_bytes proposal, ltdic_bytes abstract,
                             ltdic_bytes *chosen)
{
    if (proposal.data[0] % 2 == 0) {
        return NO_REASON;
    }
    if (abstract.data == NULL) {
        return NO_ABSTRACT_SYNTAX;
    }
    if (a->any_context) {
        *chosen = first_syntax(proposal);
        return chosen->size > 0 ? ACCEPTED : NO_TRANSFER_SYNTAX;
    }
    const syntax *ours = find_syntax(&a->contexts, NULL, abstract);
    if (ours == NULL) {
        return NO_ABSTRACT_SYNTAX;
    }
    const syntax *first = choose(&a->contexts, ours, proposal);
    if (first == NULL) {
        return NO_TRANSFER_SYNTAX;
    }
    *chosen = (ltdic_bytes){first->value, first->size};
    return ACCEPTED;
}

/* ---- the A-ASSOCIATE-AC -------------------------------------------------------------------- */

static void put_item(writer *w, uint8_t type, ltdic_bytes value)
{
    writer_u8(w, type);
    writer_u8(w, 0);
    writer_u16(w, value.size);
    writer_bytes(w, value.data, value.size);
}

static void put_context(writer *w, const ltdic_admission *a, ltdic_bytes proposal,
                        ltdic_bytes abstract)
{
    ltdic_bytes chosen = {NULL, 0};
    const uint8_t result = judge_context(a, proposal, abstract, &chosen);
    const uint8_t head[] = {proposal.data[0], 0, result, 0};
    /* The transfer syntax of a refused context has no meaning (PS3.8 table 9-18). */
    const ltdic_bytes uid = result == ACCEPTED ? chosen : first_syntax(proposal);
    writer_u8(w, ANSWERED);
    writer_u8(w, 0);
    writer_u16(w, sizeof head + ITEM_HEADER + uid.size);
    writer_bytes(w, head, sizeof head);
    put_item(w, TRANSFER_SYNTAX, uid);
}

static void put_contexts(writer *w, const ltdic_admission *a, const request_view *rq,
                         uint8_t *verification)
{
    for (size_t i = 0; i < rq->count; i++) {
        const ltdic_bytes proposal = ltdic__context_at(rq, i), abstract = abstract_of(proposal);
        if (same_bytes(abstract, text_of(VERIFICATION))) {
            ltdic__set_bit(verification, proposal.data[0]);
        }
        put_context(w, a, proposal, abstract);
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

static int put_accept(ltdic_buffer *out, ltdic_answer *answer, const ltdic_admission *a,
                      const request_view *rq, bool response)
{
    static const uint8_t head[] = {LTDIC_ASSOCIATE_AC, 0, 0, 0, 0, 0, 0, 1, 0, 0};
    writer w = {out->data, out->room, 0};
    writer_bytes(&w, head, sizeof head);
    writer_bytes(&w, rq->pdu.data + sizeof head, ITEMS_START - sizeof head); /* PS3.8 9.3.3 */
    put_item(&w, APPLICATION_CONTEXT_ITEM, text_of(APPLICATION_CONTEXT));
    put_contexts(&w, a, rq, answer->verification);
    put_user_information(&w, a, response);
    out->size = w.pos;
    if (w.pos > w.room) {
        return LTDIC_ERR_ROOM;
    }
    store_u32(out->data + 2, w.pos - HEADER);
    return LTDIC_OK;
}

static int judge(ltdic_admission *a, ltdic_answer *answer, ltdic_buffer *accept,
                 const request_view *rq, ltdic_bytes host)
{
    identity who = {.type = 0};
    *answer = (ltdic_answer){.refusal = refusal(a, rq, &who)};
    accept->size = 0;
    if (answer->refusal.result == 0) {
        answer->refusal = enter(a, answer, rq->calling, host);
    }
    if (answer->refusal.result != 0) {
        return LTDIC_OK;
    }
    const int status = put_accept(accept, answer, a, rq, who.response);
    if (status != LTDIC_OK) {
        leave(a, answer);
    }
    return status;
}

int ltdic__admission_judge(ltdic_admission *admission, ltdic_answer *answer, ltdic_buffer *accept,
                           const request_view *rq, ltdic_bytes host)
{
    lock(admission);
    const int status = judge(admission, answer, accept, rq, host);
    unlock(admission);
    return status;
}

int ltdic_admission_judge(ltdic_admission *admission, ltdic_answer *answer, ltdic_buffer *accept,
                          ltdic_bytes rq, ltdic_bytes host)
{
    request_view parts;
    uint32_t contexts[MOST_CONTEXTS];
    ltdic__view_titles(&parts, rq);
    lock(admission);
    if (refusal_by_title(admission, &parts).result == 0) { /* else the items do not matter */
        ltdic__view_items(&parts, contexts);
    }
    const int status = judge(admission, answer, accept, &parts, host);
    unlock(admission);
    return status;
}
