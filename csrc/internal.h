/* SPDX-License-Identifier: MIT */
/* What more than one file of the library needs and no user sees. */
#ifndef LTDIC_INTERNAL_H
#define LTDIC_INTERNAL_H

#include "ltdic.h"

#include <stdbool.h>

/* For what is done for each of many items: as fast as a loop of its own, and in one place. (Who
 * counts branches wants it once.) */
#ifndef ALWAYS_INLINE
#ifdef __GNUC__
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE inline
#endif
#endif

enum { HEADER = 6, ITEM_HEADER = 4, CONTEXT_HEADER = 8, UID_MAX = 64, TITLE_SIZE = 16 };
enum { TITLES_RESERVED = 32 }; /* bytes after the titles (PS3.8 table 9-11) */

/* What decoding and encoding have in common; pdu.c. */
const ltdic_options *ltdic__completed(const ltdic_options *given, ltdic_options *room);
size_t ltdic__values_start(uint8_t type);            /* of a PDU: its size up to its first value */
ltdic_bytes ltdic__without_spaces(ltdic_bytes text); /* at both ends: they mean nothing there */
ltdic_bytes ltdic__until_nul(ltdic_bytes text);
ltdic_bytes ltdic__trimmed(ltdic_bytes text); /* both: what lenient mode takes a text for */
bool ltdic__title_is_legal(ltdic_bytes title);
bool ltdic__uid_is_legal(ltdic_bytes uid);
bool ltdic__short_or_long_uid_is_legal(ltdic_bytes uid); /* for text.h alone: any length */
bool ltdic__version_name_is_legal(ltdic_bytes name);

static inline int ltdic__fault_at(ltdic_fault *fault, int status, uint64_t offset, uint64_t need)
{
    fault->status = status;
    fault->offset = offset;
    fault->need = need;
    return status;
}

static inline bool has_bit(uint16_t set, uint8_t bit)
{
    return bit < 16 && (set >> bit & 1) != 0;
}

/* The options in force: those given or, from a caller who knows less of them, their like in `room`.
 */
static inline const ltdic_options *ltdic__effective(const ltdic_options *given, ltdic_options *room)
{
    return given != NULL && given->size >= sizeof *given ? given : ltdic__completed(given, room);
}

#define APPLICATION_CONTEXT \
    "1.2.840.10008.3.1.1.1" /* DICOM's, and there is no other (PS3.7 A.2.1) */
/* Ours (PS3.7 D.3.3.2): a UID from a UUID (PS3.5 B.2), nobody else's. */
#define IMPLEMENTATION_CLASS_UID "2.25.241763158246035163327937512061234408329"
#define IMPLEMENTATION_VERSION_NAME "LTDIC_" LTDIC_VERSION
#define VERIFICATION "1.2.840.10008.1.1" /* the SOP class of C-ECHO (PS3.4 A.4) */

/* Set memory that may hold a passcode to 0, in a way that no compiler removes, before it is freed;
 * wipe.c. NULL is nothing. */
void ltdic__wipe(void *data, size_t size);

/* Milliseconds on a clock that never goes back; net.c. */
uint64_t ltdic__now(void);
/* As ltdic_net_close, and LTDIC_CLOSED says why; net.c. */
void ltdic__net_end(ltdic_net *net, int status);

/* Look at no data and no release of the peer until `held` is false again: what is to be sent goes
 * first; net.c. */
void ltdic__net_hold(ltdic_net *net, bool held);
/* Bytes that the peer's system has taken, as far as that is known; net.c. */
uint64_t ltdic__net_taken(const ltdic_net *net);
/* At most half of what may wait to be sent does; net.c. */
bool ltdic__net_has_room(const ltdic_net *net);
uint32_t ltdic__net_fragment_size(const ltdic_net *net); /* as ltdic__fragment_size */

/* A handle is a serial number and, in its lowest bits, a place in a table: the handle of what was
 * freed is not found. Where pointers have 32 bits the serial number starts again after 262,143
 * handles. All kinds of handles share one count, so that a handle of one kind is never equal to one
 * of another; handles.c. */
enum { PLACE_BITS = sizeof(uintptr_t) >= 8 ? 24 : 14 };
uintptr_t ltdic__new_handle(size_t place); /* place: not 0 */

/* An associate object, which users know by its handle. */
typedef struct associate associate;

/* Handles of associate objects, on any thread; handles.c. */
HDICOMPDU ltdic__handle_for(associate *object); /* NULL: out of memory or of places */
associate *ltdic__associate_of(HDICOMPDU hPDU); /* NULL: unknown */
void ltdic__forget_handle(HDICOMPDU hPDU);

/* Associate objects as l_dicom.c sees them; associate.c. They are counted: a new one counts 1,
 * ltdic__associate_free takes 1 away. These are the library's: L_DicomFreeAssociate does nothing
 * to them. NULL and false mean out of memory. */
associate *ltdic__associate_from_pdu(ltdic_bytes pdu);
associate *ltdic__associate_copy(const associate *from);
associate *ltdic__associate_keep(associate *a);
void ltdic__associate_free(associate *a);              /* NULL is nothing */
HDICOMPDU ltdic__associate_handle(const associate *a); /* of NULL: NULL */
bool ltdic__associate_is_request(const associate *a);
/* Make `accept` answer each context of the request. */
bool ltdic__associate_answer(const associate *request, associate *accept);
/* Make `accept` what was agreed: with the abstract syntaxes, and without what was not asked. */
bool ltdic__associate_agree(associate *request, associate *accept);
/* The PDU, to be freed, or NULL data when out of memory; not encodable: `wrong`. */
ltdic_buffer ltdic__associate_encode(const associate *a, bool *wrong);

#endif
