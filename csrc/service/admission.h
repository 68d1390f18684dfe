/* SPDX-License-Identifier: MIT */
/* The functions of an admission that the library alone uses, beside those of ltdic.h. Internal. */
#ifndef LTDIC_ADMISSION_H
#define LTDIC_ADMISSION_H

#include "engine/request.h"

/* Takes a place for an association of this calling title and host, whatever it asks for.
 * @return result 0: it is taken, and ltdic_admission_leave is to be called with `answer`; else what
 *         to reject the request with */
ltdic_reject ltdic__admission_enter(ltdic_admission *admission, ltdic_answer *answer,
                                    ltdic_bytes calling, ltdic_bytes host);

/* Judges a request like ltdic_admission_judge. */
int ltdic__admission_judge(ltdic_admission *admission, ltdic_answer *answer, ltdic_buffer *accept,
                           const request_view *rq, ltdic_bytes host);

#endif
