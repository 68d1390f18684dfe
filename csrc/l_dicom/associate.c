/* SPDX-License-Identifier: MIT */
/* Associate objects: the rows of a PDU, with values in a text block of the object. So encoding is
 * one call, and a received PDU becomes an object by copying. Rows are in the order of ltdic_kind,
 * which is that of the PDU; contexts stay in the order in which they were added. Each value is
 * followed by a NUL. New values are appended; if the block is full, those of the rows are copied to
 * a larger one. */
#include "associate.h"

#include "codec/buffer.h"
#include "codec/bytes.h"
#include "codec/items.h"
#include "codec/text.h"

#include <stdlib.h>

enum { FIRST_ROWS = 32, FIRST_TEXT = 512, NONE = -1 };

/* The context that was asked for last, as places of its rows. A loop over all indices continues
 * from it instead of starting at the first row. */
typedef struct current_context {
    ptrdiff_t place;    /* its first row; 0: before the first context */
    ptrdiff_t end;      /* the row after its last one */
    ptrdiff_t abstract; /* the row of its abstract syntax, or NONE */
    L_INT index;
} current_context;

struct associate {
    HDICOMPDU handle;
    unsigned count;        /* references */
    bool owned_by_library; /* L_DicomFreeAssociate does nothing to it */
    ltdic_items rows;
    current_context current;
    L_INT contexts; /* how many there are; 0: not counted since the last change */
    char *text;
    size_t text_size, text_room;
};

static const char application_context[] = APPLICATION_CONTEXT;
static const char implicit_little_endian[] = "1.2.840.10008.1.2";
static const char class_uid[] = IMPLEMENTATION_CLASS_UID;
static const char version_name[] = IMPLEMENTATION_VERSION_NAME;

/* ---- rows and text ----------------------------------------------------------------------- */

static bool reserve_rows(associate *a, size_t count)
{
    if (count <= a->rows.room) {
        return true;
    }
    const size_t room = count > 2 * a->rows.room ? count : 2 * a->rows.room;
    ltdic_item *items = realloc(a->rows.items, room * sizeof *items);
    if (items == NULL) {
        return false;
    }
    a->rows.items = items;
    a->rows.room = room;
    return true;
}

/* Wipes and frees the text, which may hold a passcode. */
static void forget_text(associate *a)
{
    ltdic__wipe(a->text, a->text_room);
    free(a->text);
    a->text = NULL;
    a->text_size = a->text_room = 0;
}

/* Copies the values of all rows, and `value` after them, to a larger block. Values that were
 * replaced or removed are not copied. Returns false if there is no memory. */
static bool move_text(associate *a, const void *value, size_t size)
{
    size_t room = size + 2;
    for (size_t i = 0; i < a->rows.count; i++) {
        room += a->rows.items[i].length + 1;
    }
    room = 2 * room > FIRST_TEXT ? 2 * room : FIRST_TEXT;
    char *text = calloc(room, 1);
    if (text == NULL) {
        return false;
    }
    size_t used = 1; /* rows without a value have offset 0, where "" is */
    for (size_t i = 0; i < a->rows.count; i++) {
        ltdic_item *row = &a->rows.items[i];
        if (row->offset != 0) {
            memcpy(text + used, a->text + row->offset, row->length);
            row->offset = (uint32_t)used;
            used += row->length + 1;
        }
    }
    if (size > 0) {
        memcpy(text + used, value, size); /* before the old text is freed: value may be in it */
    }
    forget_text(a);
    a->text = text;
    a->text_size = used;
    a->text_room = room;
    return true;
}

/* Gives `row` a copy of this value, followed by a NUL. Returns false if there is no memory. */
static bool set_value(associate *a, ltdic_item *row, const void *value, size_t size)
{
    if (size == 0) {
        row->offset = row->length = 0;
        return true;
    }
    if (size + 1 > a->text_room - a->text_size) {
        if (!move_text(a, value, size)) {
            return false;
        }
    } else {
        memcpy(a->text + a->text_size, value, size);
        a->text[a->text_size + size] = '\0';
    }
    row->offset = (uint32_t)a->text_size;
    row->length = (uint32_t)size;
    a->text_size += size + 1;
    return true;
}

static ptrdiff_t count_of(const associate *a)
{
    return (ptrdiff_t)a->rows.count;
}

/* Returns the place of the first row of this kind, or NONE. */
static ptrdiff_t find(associate *a, uint8_t kind)
{
    for (ptrdiff_t i = 0; i < count_of(a); i++) {
        if (a->rows.items[i].kind == kind) {
            return i;
        }
    }
    return NONE;
}

/* Returns the place of the first row whose kind comes after this one. */
static ptrdiff_t place_of(associate *a, uint8_t kind)
{
    ptrdiff_t i = 0;
    while (i < count_of(a) && a->rows.items[i].kind <= kind) {
        i++;
    }
    return i;
}

/* Call after rows were inserted or removed: places have changed. */
static void forget_places(associate *a)
{
    a->current = (current_context){.place = 0};
    a->contexts = 0;
}

/* Inserts a row with its value at a place. Returns false if there is no memory; the rows are
 * unchanged then. */
static bool insert(associate *a, ptrdiff_t place, ltdic_item row, const void *value, size_t size)
{
    if (!reserve_rows(a, a->rows.count + 1) || !set_value(a, &row, value, size)) {
        return false;
    }
    ltdic_item *at = a->rows.items + place;
    memmove(at + 1, at, (size_t)(count_of(a) - place) * sizeof row);
    a->rows.count++;
    *at = row;
    forget_places(a);
    return true;
}

static void remove_rows(associate *a, ptrdiff_t from, ptrdiff_t to)
{
    memmove(a->rows.items + from, a->rows.items + to,
            (size_t)(count_of(a) - to) * sizeof *a->rows.items);
    a->rows.count -= (size_t)(to - from);
    forget_places(a);
}

/* Sets the value of a kind that an object has at most once. */
static bool set_single(associate *a, uint8_t kind, const void *value, size_t size)
{
    const ptrdiff_t i = find(a, kind);
    if (i != NONE) {
        return set_value(a, &a->rows.items[i], value, size);
    }
    if (kind > LTDIC_USER_INFORMATION && find(a, LTDIC_USER_INFORMATION) == NONE &&
        !set_single(a, LTDIC_USER_INFORMATION, "", 0)) {
        return false;
    }
    return insert(a, place_of(a, kind), (ltdic_item){.kind = kind}, value, size);
}

static const char *text_at(associate *a, ptrdiff_t i)
{
    return i == NONE || a->rows.items[i].offset == 0 ? "" : a->text + a->rows.items[i].offset;
}

static const char *single(HDICOMPDU hPDU, uint8_t kind)
{
    associate *a = ltdic__associate_of(hPDU);
    return a == NULL ? "" : text_at(a, find(a, kind));
}

/* Takes NULL as "": neither is a legal argument of any function. */
static ltdic_bytes bytes_of(const char *text)
{
    return (ltdic_bytes){(const uint8_t *)text, text == NULL ? 0 : strlen(text)};
}

static L_INT memory_or_success(bool done)
{
    return done ? DICOM_SUCCESS : DICOM_ERROR_MEMORY;
}

/* Returns the code of a function that refuses: DICOM_ERROR_HANDLE for an unknown handle,
 * DICOM_ERROR_PARAMETER for NULL or another argument that is out of range. */
static L_INT refused(HDICOMPDU hPDU, const associate *a)
{
    return hPDU != NULL && a == NULL ? DICOM_ERROR_HANDLE : DICOM_ERROR_PARAMETER;
}

static L_INT set_legal(HDICOMPDU hPDU, uint8_t kind, ltdic_bytes text,
                       bool (*is_legal)(ltdic_bytes))
{
    associate *a = ltdic__associate_of(hPDU);
    if (a == NULL || !is_legal(text)) {
        return refused(hPDU, a);
    }
    return memory_or_success(set_single(a, kind, text.data, text.size));
}

static L_INT set_title(HDICOMPDU hPDU, uint8_t kind, const char *title)
{
    return set_legal(hPDU, kind, ltdic__without_spaces(bytes_of(title)), ltdic__title_is_legal);
}

/* ---- life -------------------------------------------------------------------------------- */

static void empty(associate *a, uint8_t type)
{
    static const ltdic_item rows[] = {
        {.kind = LTDIC_PDU, .version = 1}, {.kind = LTDIC_CALLED_AE}, {.kind = LTDIC_CALLING_AE}};
    memcpy(a->rows.items, rows, sizeof rows);
    a->rows.items[0].type = type;
    a->rows.count = sizeof rows / sizeof *rows;
    forget_places(a);
    forget_text(a);
}

static associate *new_object(bool request, bool owned_by_library)
{
    associate *a = calloc(1, sizeof *a);
    if (a == NULL) {
        return NULL;
    }
    a->handle = reserve_rows(a, FIRST_ROWS) ? ltdic__handle_for(a) : NULL;
    if (a->handle == NULL) {
        free(a->rows.items);
        free(a);
        return NULL;
    }
    a->count = 1;
    a->owned_by_library = owned_by_library;
    empty(a, request ? LTDIC_ASSOCIATE_RQ : LTDIC_ASSOCIATE_AC);
    return a;
}

HDICOMPDU L_DicomCreateAssociate(L_BOOL bRequest)
{
    return ltdic__associate_handle(new_object(bRequest != 0, false));
}

HDICOMPDU ltdic__associate_handle(const associate *a)
{
    return a == NULL ? NULL : a->handle;
}

associate *ltdic__associate_keep(associate *a)
{
    a->count++;
    return a;
}

void ltdic__associate_free(associate *a)
{
    if (a == NULL || --a->count > 0) {
        return;
    }
    ltdic__forget_handle(a->handle);
    forget_text(a);
    free(a->rows.items);
    free(a);
}

L_VOID L_DicomFreeAssociate(HDICOMPDU hPDU)
{
    associate *a = ltdic__associate_of(hPDU);
    if (a != NULL && !a->owned_by_library) {
        ltdic__associate_free(a);
    }
}

L_INT L_DicomResetAssociate(HDICOMPDU hPDU, L_BOOL bRequest)
{
    associate *a = ltdic__associate_of(hPDU);
    if (a == NULL) {
        return refused(hPDU, a);
    }
    empty(a, bRequest ? LTDIC_ASSOCIATE_RQ : LTDIC_ASSOCIATE_AC);
    return DICOM_SUCCESS;
}

bool ltdic__associate_is_request(const associate *a)
{
    return a->rows.items[0].type == LTDIC_ASSOCIATE_RQ;
}

static L_INT set_default(associate *a, uint8_t kind, const void *value, size_t size)
{
    const ptrdiff_t i = find(a, kind);
    const bool absent = i == NONE || a->rows.items[i].length == 0;
    return memory_or_success(!absent || set_single(a, kind, value, size));
}

L_INT L_DicomDefaultAssociate(HDICOMPDU hPDU)
{
    static const struct {
        uint8_t kind, only_in_request;
        const char *value;
        size_t size;
    } defaults[] = {
        {LTDIC_CALLED_AE, 1, "ANY-SCP", 7},
        {LTDIC_CALLING_AE, 1, "LTDIC", 5},
        {LTDIC_APPLICATION_CONTEXT, 0, application_context, sizeof application_context - 1},
        {LTDIC_MAX_LENGTH, 0, "\0\0\x40\0", 4}, /* 16384, big endian */
        {LTDIC_CLASS_UID, 0, class_uid, sizeof class_uid - 1},
        {LTDIC_VERSION_NAME, 0, version_name, sizeof version_name - 1},
    };
    associate *a = ltdic__associate_of(hPDU);
    if (a == NULL) {
        return refused(hPDU, a);
    }
    const bool request = ltdic__associate_is_request(a);
    L_INT code = DICOM_SUCCESS;
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults && code == DICOM_SUCCESS; i++) {
        if (request || !defaults[i].only_in_request) {
            code = set_default(a, defaults[i].kind, defaults[i].value, defaults[i].size);
        }
    }
    if (code == DICOM_SUCCESS && request && find(a, LTDIC_CONTEXT) == NONE) {
        code = L_DicomAddPresentation(hPDU, 1, 0, VERIFICATION);
        code = code != DICOM_SUCCESS ? code : L_DicomAddTransfer(hPDU, 1, implicit_little_endian);
    }
    return code;
}

/* ---- titles, application context, user information ---------------------------------------- */

L_INT L_DicomSetCalled(HDICOMPDU hPDU, const L_TCHAR *pszTitle)
{
    return set_title(hPDU, LTDIC_CALLED_AE, pszTitle);
}

const L_TCHAR *L_DicomGetCalled(HDICOMPDU hPDU)
{
    return single(hPDU, LTDIC_CALLED_AE);
}

L_INT L_DicomSetCalling(HDICOMPDU hPDU, const L_TCHAR *pszTitle)
{
    return set_title(hPDU, LTDIC_CALLING_AE, pszTitle);
}

const L_TCHAR *L_DicomGetCalling(HDICOMPDU hPDU)
{
    return single(hPDU, LTDIC_CALLING_AE);
}

L_INT L_DicomSetApplication(HDICOMPDU hPDU, const L_TCHAR *pszUID)
{
    return set_legal(hPDU, LTDIC_APPLICATION_CONTEXT, bytes_of(pszUID), ltdic__uid_is_legal);
}

const L_TCHAR *L_DicomGetApplication(HDICOMPDU hPDU)
{
    return single(hPDU, LTDIC_APPLICATION_CONTEXT);
}

L_INT L_DicomSetMaxLength(HDICOMPDU hPDU, L_UINT32 nMaxLength)
{
    associate *a = ltdic__associate_of(hPDU);
    uint8_t value[4];
    if (a == NULL) {
        return refused(hPDU, a);
    }
    store_u32(value, nMaxLength);
    return memory_or_success(set_single(a, LTDIC_MAX_LENGTH, value, sizeof value));
}

L_UINT32 L_DicomGetMaxLength(HDICOMPDU hPDU)
{
    associate *a = ltdic__associate_of(hPDU);
    const ptrdiff_t i = a == NULL ? NONE : find(a, LTDIC_MAX_LENGTH);
    return i == NONE ? 0 : load_u32((const uint8_t *)text_at(a, i));
}

L_INT L_DicomSetImplementClass(HDICOMPDU hPDU, const L_TCHAR *pszUID)
{
    return set_legal(hPDU, LTDIC_CLASS_UID, bytes_of(pszUID), ltdic__uid_is_legal);
}

const L_TCHAR *L_DicomGetImplementClass(HDICOMPDU hPDU)
{
    return single(hPDU, LTDIC_CLASS_UID);
}

L_INT L_DicomSetImplementVersion(HDICOMPDU hPDU, const L_TCHAR *pszName)
{
    return set_legal(hPDU, LTDIC_VERSION_NAME, bytes_of(pszName), ltdic__version_name_is_legal);
}

const L_TCHAR *L_DicomGetImplementVersion(HDICOMPDU hPDU)
{
    return single(hPDU, LTDIC_VERSION_NAME);
}

/* Returns the place of the row of this kind with this UID, or NONE. */
static ptrdiff_t find_class(associate *a, uint8_t kind, const char *uid)
{
    for (ptrdiff_t i = 0; a != NULL && uid != NULL && i < count_of(a); i++) {
        if (a->rows.items[i].kind == kind && strcmp(text_at(a, i), uid) == 0) {
            return i;
        }
    }
    return NONE;
}

/* Makes the row of item 50, if there is none: its sub-items come after it. */
static bool reserve_information(associate *a)
{
    return find(a, LTDIC_USER_INFORMATION) != NONE || set_single(a, LTDIC_USER_INFORMATION, "", 0);
}

L_INT L_DicomSetAsyncOperations(HDICOMPDU hPDU, L_UINT16 nInvoked, L_UINT16 nPerformed)
{
    associate *a = ltdic__associate_of(hPDU);
    uint8_t value[4];
    if (a == NULL) {
        return refused(hPDU, a);
    }
    store_u16(value, nInvoked);
    store_u16(value + 2, nPerformed);
    return memory_or_success(set_single(a, LTDIC_ASYNC_OPERATIONS, value, sizeof value));
}

L_BOOL L_DicomGetAsyncOperations(HDICOMPDU hPDU, L_UINT16 *pnInvoked, L_UINT16 *pnPerformed)
{
    static const uint8_t synchronous[] = {0, 1, 0, 1};
    associate *a = ltdic__associate_of(hPDU);
    const ptrdiff_t i = a == NULL ? NONE : find(a, LTDIC_ASYNC_OPERATIONS);
    const uint8_t *value = i == NONE ? synchronous : (const uint8_t *)text_at(a, i);
    *pnInvoked = (L_UINT16)load_u16(value);
    *pnPerformed = (L_UINT16)load_u16(value + 2);
    return i != NONE;
}

L_INT L_DicomSetRoleSelect(HDICOMPDU hPDU, const L_TCHAR *pszClass, L_BOOL bUser, L_BOOL bProvider)
{
    associate *a = ltdic__associate_of(hPDU);
    if (a == NULL || !ltdic__uid_is_legal(bytes_of(pszClass))) {
        return refused(hPDU, a);
    }
    const ltdic_item row = {.kind = LTDIC_ROLE, .id = bUser != 0, .result = bProvider != 0};
    const ptrdiff_t i = find_class(a, LTDIC_ROLE, pszClass);
    if (i != NONE) {
        a->rows.items[i].id = row.id;
        a->rows.items[i].result = row.result;
        return DICOM_SUCCESS;
    }
    return memory_or_success(reserve_information(a) &&
                             insert(a, place_of(a, LTDIC_ROLE), row, pszClass, strlen(pszClass)));
}

L_BOOL L_DicomGetRoleSelect(HDICOMPDU hPDU, const L_TCHAR *pszClass, L_BOOL *pbUser,
                            L_BOOL *pbProvider)
{
    associate *a = ltdic__associate_of(hPDU);
    const ptrdiff_t i = find_class(a, LTDIC_ROLE, pszClass);
    *pbUser = i == NONE || a->rows.items[i].id != 0;
    *pbProvider = i != NONE && a->rows.items[i].result != 0;
    return i != NONE;
}

/* Adds the two rows of an extended negotiation. `uid` may be in the text of `a`, which is freed
 * when it grows, so a copy of it is inserted. */
static bool add_extended(associate *a, const char *uid, const void *info, size_t size)
{
    const ltdic_item name = {.kind = LTDIC_EXTENDED}, value = {.kind = LTDIC_EXTENDED_INFO};
    const size_t length = strlen(uid);
    char copy[UID_MAX + 1];
    memcpy(copy, uid, length + 1);
    const ptrdiff_t place = place_of(a, LTDIC_EXTENDED_INFO);
    if (!insert(a, place, value, info, size)) {
        return false;
    }
    if (!insert(a, place, name, copy, length)) {
        remove_rows(a, place, place + 1);
        return false;
    }
    return true;
}

L_INT L_DicomSetExtended(HDICOMPDU hPDU, const L_TCHAR *pszClass, const L_UCHAR *pInfo,
                         L_UINT nBytes)
{
    associate *a = ltdic__associate_of(hPDU);
    if (a == NULL || !ltdic__uid_is_legal(bytes_of(pszClass)) || nBytes > UINT16_MAX ||
        (pInfo == NULL && nBytes > 0)) {
        return refused(hPDU, a);
    }
    const ptrdiff_t i = find_class(a, LTDIC_EXTENDED, pszClass);
    if (i != NONE) {
        return memory_or_success(set_value(a, &a->rows.items[i + 1], pInfo, nBytes));
    }
    return memory_or_success(reserve_information(a) && add_extended(a, pszClass, pInfo, nBytes));
}

L_BOOL L_DicomGetExtended(HDICOMPDU hPDU, const L_TCHAR *pszClass, const L_UCHAR **ppInfo,
                          L_UINT *pnBytes)
{
    associate *a = ltdic__associate_of(hPDU);
    const ptrdiff_t i = find_class(a, LTDIC_EXTENDED, pszClass);
    *ppInfo = (const L_UCHAR *)text_at(a, i == NONE ? NONE : i + 1);
    *pnBytes = i == NONE ? 0 : a->rows.items[i + 1].length;
    return i != NONE;
}

static void drop_single(associate *a, uint8_t kind)
{
    const ptrdiff_t i = find(a, kind);
    if (i != NONE) {
        remove_rows(a, i, i + 1);
    }
}

static bool replace_identity(associate *a, L_UCHAR type, L_BOOL response, ltdic_bytes primary,
                             ltdic_bytes secondary)
{
    drop_single(a, LTDIC_USER_IDENTITY);
    drop_single(a, LTDIC_USER_IDENTITY_SECOND);
    if (!set_single(a, LTDIC_USER_IDENTITY, primary.data, primary.size) ||
        !set_single(a, LTDIC_USER_IDENTITY_SECOND, secondary.data, secondary.size)) {
        drop_single(a, LTDIC_USER_IDENTITY);
        return false;
    }
    ltdic_item *row = &a->rows.items[find(a, LTDIC_USER_IDENTITY)];
    row->id = type;
    row->result = response != 0;
    return true;
}

/* Sets the user identity. Both fields may be in the text of `a`, which is freed when the first one
 * makes it grow, so a copy of the secondary field is inserted. */
static bool set_identity(associate *a, L_UCHAR type, L_BOOL response, ltdic_bytes primary,
                         ltdic_bytes secondary)
{
    if (!ltdic__associate_is_request(a)) {
        return set_single(a, LTDIC_USER_IDENTITY_RESPONSE, primary.data, primary.size);
    }
    uint8_t *copy = malloc(secondary.size + 1);
    if (copy == NULL) {
        return false;
    }
    if (secondary.size > 0) {
        memcpy(copy, secondary.data, secondary.size);
    }
    const bool done =
        replace_identity(a, type, response, primary, (ltdic_bytes){copy, secondary.size});
    ltdic__wipe(copy, secondary.size);
    free(copy);
    return done;
}

L_INT L_DicomSetUserIdentity(HDICOMPDU hPDU, L_UCHAR nType, L_BOOL bResponse,
                             const L_UCHAR *pPrimary, L_UINT nPrimary, const L_UCHAR *pSecondary,
                             L_UINT nSecondary)
{
    associate *a = ltdic__associate_of(hPDU);
    const bool missing =
        (pPrimary == NULL && nPrimary > 0) || (pSecondary == NULL && nSecondary > 0);
    const bool second_is_legal = nSecondary == 0 || nType == PDU_IDENTITY_PASSCODE;
    if (a == NULL || missing || nPrimary > UINT16_MAX || nSecondary > UINT16_MAX) {
        return refused(hPDU, a);
    }
    if (ltdic__associate_is_request(a) &&
        (nType < PDU_IDENTITY_USERNAME || nType > PDU_IDENTITY_JWT || !second_is_legal)) {
        return DICOM_ERROR_PARAMETER;
    }
    return memory_or_success(set_identity(a, nType, bResponse, (ltdic_bytes){pPrimary, nPrimary},
                                          (ltdic_bytes){pSecondary, nSecondary}));
}

static void get_bytes(associate *a, ptrdiff_t i, const L_UCHAR **data, L_UINT *size)
{
    *data = (const L_UCHAR *)text_at(a, i);
    *size = i == NONE ? 0 : a->rows.items[i].length;
}

L_BOOL L_DicomGetUserIdentity(HDICOMPDU hPDU, L_UCHAR *pnType, L_BOOL *pbResponse,
                              const L_UCHAR **ppPrimary, L_UINT *pnPrimary,
                              const L_UCHAR **ppSecondary, L_UINT *pnSecondary)
{
    associate *a = ltdic__associate_of(hPDU);
    const bool request = a != NULL && ltdic__associate_is_request(a);
    const uint8_t kind = request ? LTDIC_USER_IDENTITY : LTDIC_USER_IDENTITY_RESPONSE;
    const ptrdiff_t i = a == NULL ? NONE : find(a, kind);
    const ptrdiff_t second = request ? find(a, LTDIC_USER_IDENTITY_SECOND) : NONE;
    *pnType = i == NONE ? 0 : a->rows.items[i].id;
    *pbResponse = i != NONE && a->rows.items[i].result != 0;
    get_bytes(a, i, ppPrimary, pnPrimary);
    get_bytes(a, second, ppSecondary, pnSecondary);
    return i != NONE;
}

/* ---- presentation contexts --------------------------------------------------------------- */

/* Makes the next context the current one. After the last one it returns false, and none is current.
 */
static bool go_to_next_context(associate *a)
{
    const current_context last = a->current;
    ptrdiff_t i = last.end;
    while (i < count_of(a) && a->rows.items[i].kind != LTDIC_CONTEXT) {
        i++;
    }
    a->current = (current_context){.place = 0};
    if (i == count_of(a)) {
        return false;
    }
    current_context next = {i, i + 1, NONE, last.place == 0 ? 0 : last.index + 1};
    for (; next.end < count_of(a); next.end++) {
        const uint8_t kind = a->rows.items[next.end].kind;
        if (kind == LTDIC_ABSTRACT_SYNTAX) {
            next.abstract = next.end;
        } else if (kind != LTDIC_TRANSFER_SYNTAX) {
            break;
        }
    }
    a->current = next;
    return true;
}

/* Makes the context with this ID the current one. Returns its place, or NONE. */
static ptrdiff_t find_context(associate *a, uint8_t id)
{
    if (a == NULL) {
        return NONE;
    }
    bool from_first = a->current.place == 0;
    while (a->current.place == 0 || a->rows.items[a->current.place].id != id) {
        if (!go_to_next_context(a)) {
            if (from_first) {
                return NONE;
            }
            from_first = true;
        }
    }
    return a->current.place;
}

static void remove_context(associate *a)
{
    remove_rows(a, a->current.place, a->current.end);
}

static bool add_context(associate *a, uint8_t id, uint8_t result, const char *abstract)
{
    const ltdic_item context = {.kind = LTDIC_CONTEXT, .id = id, .result = result};
    const ptrdiff_t place = place_of(a, LTDIC_TRANSFER_SYNTAX);
    if (!insert(a, place, context, "", 0)) {
        return false;
    }
    const ltdic_item syntax = {.kind = LTDIC_ABSTRACT_SYNTAX};
    if (abstract != NULL && !insert(a, place + 1, syntax, abstract, strlen(abstract))) {
        remove_rows(a, place, place + 1);
        return false;
    }
    return true;
}

L_INT L_DicomAddPresentation(HDICOMPDU hPDU, L_UCHAR nID, L_UCHAR nResult,
                             const L_TCHAR *pszAbstract)
{
    associate *a = ltdic__associate_of(hPDU);
    if (a == NULL || nID % 2 == 0 || find_context(a, nID) != NONE || nResult > 4) {
        return refused(hPDU, a);
    }
    const bool request = ltdic__associate_is_request(a);
    if (request && !ltdic__uid_is_legal(bytes_of(pszAbstract))) {
        return DICOM_ERROR_PARAMETER;
    }
    return memory_or_success(
        add_context(a, nID, request ? 0 : nResult, request ? pszAbstract : NULL));
}

L_INT L_DicomDeletePresentation(HDICOMPDU hPDU, L_UCHAR nID)
{
    associate *a = ltdic__associate_of(hPDU);
    if (find_context(a, nID) == NONE) {
        return refused(hPDU, a);
    }
    remove_context(a);
    return DICOM_SUCCESS;
}

L_INT L_DicomGetPresentationCount(HDICOMPDU hPDU)
{
    associate *a = ltdic__associate_of(hPDU);
    if (a == NULL) {
        return 0;
    }
    if (a->contexts == 0) {
        for (ptrdiff_t i = 0; i < count_of(a); i++) {
            a->contexts += a->rows.items[i].kind == LTDIC_CONTEXT;
        }
    }
    return a->contexts;
}

L_UCHAR L_DicomGetPresentation(HDICOMPDU hPDU, L_INT nIndex)
{
    associate *a = ltdic__associate_of(hPDU);
    if (a == NULL || nIndex < 0) {
        return 0;
    }
    if (a->current.index > nIndex) {
        a->current = (current_context){.place = 0};
    }
    while (a->current.place == 0 || a->current.index < nIndex) {
        if (!go_to_next_context(a)) {
            return 0;
        }
    }
    return a->rows.items[a->current.place].id;
}

const L_TCHAR *L_DicomGetAbstract(HDICOMPDU hPDU, L_UCHAR nID)
{
    associate *a = ltdic__associate_of(hPDU);
    return find_context(a, nID) == NONE ? "" : text_at(a, a->current.abstract);
}

L_UCHAR L_DicomFindAbstract(HDICOMPDU hPDU, const L_TCHAR *pszAbstract)
{
    associate *a = ltdic__associate_of(hPDU);
    L_UCHAR id = 0;
    for (ptrdiff_t i = 0; a != NULL && pszAbstract != NULL && i < count_of(a); i++) {
        const ltdic_item *row = &a->rows.items[i];
        id = row->kind == LTDIC_CONTEXT ? row->id : id;
        if (row->kind == LTDIC_ABSTRACT_SYNTAX && strcmp(text_at(a, i), pszAbstract) == 0) {
            return id;
        }
    }
    return 0;
}

L_INT L_DicomSetResult(HDICOMPDU hPDU, L_UCHAR nID, L_UCHAR nResult)
{
    associate *a = ltdic__associate_of(hPDU);
    const ptrdiff_t i = find_context(a, nID);
    if (i == NONE || nResult > 4 || ltdic__associate_is_request(a)) {
        return refused(hPDU, a);
    }
    a->rows.items[i].result = nResult;
    return DICOM_SUCCESS;
}

L_UCHAR L_DicomGetResult(HDICOMPDU hPDU, L_UCHAR nID)
{
    associate *a = ltdic__associate_of(hPDU);
    const ptrdiff_t i = find_context(a, nID);
    return i == NONE ? 255 : a->rows.items[i].result;
}

L_INT L_DicomAddTransfer(HDICOMPDU hPDU, L_UCHAR nID, const L_TCHAR *pszTransfer)
{
    associate *a = ltdic__associate_of(hPDU);
    const ptrdiff_t i = find_context(a, nID);
    if (i == NONE || !ltdic__uid_is_legal(bytes_of(pszTransfer))) {
        return refused(hPDU, a);
    }
    const ltdic_item row = {.kind = LTDIC_TRANSFER_SYNTAX};
    return memory_or_success(insert(a, a->current.end, row, pszTransfer, strlen(pszTransfer)));
}

/* Makes the context with this ID the current one. Returns how many transfer syntaxes it has. */
static L_INT count_transfers(associate *a, uint8_t id)
{
    if (find_context(a, id) == NONE) {
        return 0;
    }
    const current_context *c = &a->current;
    return (L_INT)(c->end - c->place) - 1 - (c->abstract != NONE);
}

L_INT L_DicomGetTransferCount(HDICOMPDU hPDU, L_UCHAR nID)
{
    return count_transfers(ltdic__associate_of(hPDU), nID);
}

/* The rows of a context are its own, at most one of the abstract syntax, at any place, and those of
 * its transfer syntaxes. */
const L_TCHAR *L_DicomGetTransfer(HDICOMPDU hPDU, L_UCHAR nID, L_INT nIndex)
{
    associate *a = ltdic__associate_of(hPDU);
    if (nIndex < 0 || nIndex >= count_transfers(a, nID)) {
        return "";
    }
    const current_context *c = &a->current;
    const ptrdiff_t i = c->place + 1 + nIndex;
    return text_at(a, i + (c->abstract != NONE && c->abstract <= i));
}

/* ---- to and from PDUs -------------------------------------------------------------------- */

/* Removes rows that no function can return: unknown items, and each context whose ID an earlier one
 * has. At most 256 contexts are left. */
static void drop_unusable_rows(associate *a)
{
    uint32_t ids[8] = {0};
    bool again = false; /* in a context whose ID an earlier one has */
    size_t kept = 0;
    for (size_t i = 0; i < a->rows.count; i++) {
        const ltdic_item row = a->rows.items[i];
        const bool inside = row.kind == LTDIC_ABSTRACT_SYNTAX || row.kind == LTDIC_TRANSFER_SYNTAX;
        if (row.kind == LTDIC_CONTEXT) {
            again = (ids[row.id / 32] >> row.id % 32 & 1) != 0;
            ids[row.id / 32] |= 1U << row.id % 32;
        }
        const bool unknown = row.kind == LTDIC_UNKNOWN_ITEM || row.kind == LTDIC_UNKNOWN_SUB_ITEM;
        if (!unknown && !(again && (inside || row.kind == LTDIC_CONTEXT))) {
            a->rows.items[kept++] = row;
        }
    }
    a->rows.count = kept;
}

/* Copies the values of the rows from the PDU into the text of the object. */
static bool own_values(associate *a, ltdic_bytes pdu)
{
    size_t room = 1;
    for (size_t i = 0; i < a->rows.count; i++) {
        ltdic_item *row = &a->rows.items[i];
        const bool container = row->kind == LTDIC_PDU || row->kind == LTDIC_CONTEXT ||
                               row->kind == LTDIC_USER_INFORMATION;
        row->length = container ? 0 : row->length;
        room += row->length + 1;
    }
    a->text = calloc(room, 1);
    a->text_room = a->text == NULL ? 0 : room;
    a->text_size = 1;
    for (size_t i = 0; i < a->rows.count && a->text != NULL; i++) {
        ltdic_item *row = &a->rows.items[i];
        set_value(a, row, pdu.data + row->offset, row->length); /* there is room */
    }
    return a->text != NULL;
}

associate *ltdic__associate_from_pdu(ltdic_bytes pdu)
{
    const ltdic_options options = {.size = sizeof options};
    ltdic_fault fault;
    associate *a = new_object(true, true);
    if (a == NULL) {
        return NULL;
    }
    int status = ltdic_decode(&a->rows, pdu, &options, &fault);
    if (status == LTDIC_ERR_ROOM && reserve_rows(a, a->rows.count)) {
        status = ltdic_decode(&a->rows, pdu, &options, &fault);
    }
    if (status == LTDIC_OK) {
        drop_unusable_rows(a);
    }
    if (status != LTDIC_OK || !own_values(a, pdu)) {
        a->rows.count = 0;
        ltdic__associate_free(a);
        return NULL;
    }
    return a;
}

associate *ltdic__associate_copy(const associate *from)
{
    associate *a = new_object(true, true);
    if (a == NULL || !reserve_rows(a, from->rows.count)) {
        ltdic__associate_free(a);
        return NULL;
    }
    memcpy(a->rows.items, from->rows.items, from->rows.count * sizeof *from->rows.items);
    a->rows.count = from->rows.count;
    a->text = malloc(from->text_room + 1);
    if (a->text == NULL) {
        ltdic__associate_free(a);
        return NULL;
    }
    if (from->text_size > 0) {
        memcpy(a->text, from->text, from->text_size);
    }
    a->text_size = from->text_size;
    a->text_room = from->text_room;
    return a;
}

bool ltdic__associate_answer(const associate *request, associate *accept)
{
    for (ptrdiff_t i = 0; i < count_of(request); i++) {
        const ltdic_item *row = &request->rows.items[i];
        if (row->kind == LTDIC_CONTEXT && find_context(accept, row->id) == NONE &&
            !add_context(accept, row->id, PDU_ACCEPT_RESULT_USER_REJECT, NULL)) {
            return false;
        }
    }
    return true;
}

bool ltdic__associate_agree(associate *request, associate *accept)
{
    const ltdic_item syntax = {.kind = LTDIC_ABSTRACT_SYNTAX};
    for (ptrdiff_t i = 0; i < count_of(accept); i++) {
        const ltdic_item *row = &accept->rows.items[i];
        if (row->kind != LTDIC_CONTEXT) {
            continue;
        }
        if (find_context(request, row->id) == NONE) {
            find_context(accept, row->id);
            remove_context(accept);
            i--;
            continue;
        }
        const char *abstract = text_at(request, request->current.abstract);
        if (!insert(accept, i + 1, syntax, abstract, strlen(abstract))) {
            return false;
        }
    }
    return true;
}

ltdic_buffer ltdic__associate_encode(const associate *a, bool *wrong)
{
    const ltdic_bytes values = {(const uint8_t *)a->text, a->text_size};
    ltdic_buffer out = {NULL, 0, 0};
    ltdic_fault fault;
    *wrong = ltdic_encode(&out, &a->rows, values, &fault) != LTDIC_ERR_ROOM;
    if (*wrong) {
        return out;
    }
    out.room = out.size;
    out.data = malloc(out.room);
    if (out.data != NULL) {
        ltdic_encode(&out, &a->rows, values, &fault);
    }
    return out;
}
