/* SPDX-License-Identifier: MIT */
/* Text values: UIDs, AE titles and version names (PS3.5 6.2, PS3.8 annex F). */
#include "text.h"

enum { SPACES = 8 };

ltdic_bytes ltdic__without_spaces(ltdic_bytes text)
{
    while (text.size > 0 && text.data[0] == ' ') {
        text.data++;
        text.size--;
    }
    if (text.size > SPACES && memcmp(text.data + text.size - SPACES, "        ", SPACES) == 0) {
        text.size -= SPACES; /* most titles end in at least so many */
    }
    while (text.size > 0 && text.data[text.size - 1] == ' ') {
        text.size--;
    }
    return text;
}

ltdic_bytes ltdic__until_nul(ltdic_bytes text)
{
    const uint8_t *nul = text.size == 0 ? NULL : memchr(text.data, 0, text.size);
    if (nul != NULL) {
        text.size = (size_t)(nul - text.data);
    }
    return text;
}

ltdic_bytes ltdic__trimmed(ltdic_bytes text)
{
    return ltdic__without_spaces(ltdic__until_nul(text));
}

/* Checks a title without its spaces (PS3.5 6.2, VR AE). */
bool ltdic__title_is_legal(ltdic_bytes title)
{
    return title.size > 0 && title.size <= TITLE_SIZE && short_is_printable(title, '\\');
}

bool ltdic__version_name_is_legal(ltdic_bytes name)
{
    return name_is_legal(name);
}

bool ltdic__uid_is_legal(ltdic_bytes uid)
{
    return uid_is_legal(uid);
}

bool ltdic__short_or_long_uid_is_legal(ltdic_bytes uid)
{
    return uid.size > 0 && uid.size <= UID_MAX && bits_are_legal(uid_bits_by_byte(uid), uid.size);
}
