/* SPDX-License-Identifier: MIT */
/* Functions of an admission for the library alone, beside those of ltdic.h. Internal. */
#ifndef LTDIC_ADMISSION_H
#define LTDIC_ADMISSION_H

#include "engine/request.h"

/* Counts an association of this calling title and host against the limits; other rules do not
 * matter.
 * @return result 0: it is counted, until ltdic_admission_leave is called with `answer`; else the
 * codes of a rejection */
ltdic_reject ltdic__admission_enter(ltdic_admission *admission, ltdic_answer *answer,
                                    ltdic_bytes calling, ltdic_bytes host);

/* Judges a request as ltdic_admission_judge does. */
int ltdic__admission_judge(ltdic_admission *admission, ltdic_answer *answer, ltdic_buffer *accept,
                           const request_view *rq, ltdic_bytes host);

#endif
