/* SPDX-License-Identifier: MIT */
/* The state machine of PS3.8 9.2: table 9-10 and the actions of tables 9-6 to 9-9, both as data.
 * It is the same for requestor and acceptor; only AR-8 depends on the role. */
#include "codec/bytes.h"

enum { S1 = 1, S2, S3, S4, S5, S6, S7, S8, S9, S10, S11, S12, S13, STATES };

enum { EVENTS = LTDIC_EVT_INVALID_PDU + 1 };

/* clang-format off */
/* Names of the actions as in PS3.8. */
enum {
    AE_1 = LTDIC_AE_1, AE_2, AE_3, AE_4, AE_5, AE_6, AE_7, AE_8,
    DT_1, DT_2,
    AR_1, AR_2, AR_3, AR_4, AR_5, AR_6, AR_7, AR_8, AR_9, AR_10,
    AA_1, AA_2, AA_3, AA_4, AA_5, AA_6, AA_7, AA_8,
    ACTIONS
};

/* Row: event, from Evt1; column: state, from Sta1; 0: no action in this state. PS3.8 has no action
 * for an A-ABORT request in Sta2; AA-2 here closes a connection that has no association. */
static const uint8_t table_9_10[EVENTS][STATES] = {
    [ 1] = {0, AE_1,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0}, /* request */
    [ 2] = {0,    0,    0,    0, AE_2,    0,    0,    0,    0,    0,    0,    0,    0,    0}, /* connected */
    [ 3] = {0,    0, AA_1, AA_8,    0, AE_3, AA_8, AA_8, AA_8, AA_8, AA_8, AA_8, AA_8, AA_6}, /* ac received */
    [ 4] = {0,    0, AA_1, AA_8,    0, AE_4, AA_8, AA_8, AA_8, AA_8, AA_8, AA_8, AA_8, AA_6}, /* rj received */
    [ 5] = {0, AE_5,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0}, /* accepted */
    [ 6] = {0,    0, AE_6, AA_8,    0, AA_8, AA_8, AA_8, AA_8, AA_8, AA_8, AA_8, AA_8, AA_7}, /* rq received */
    [ 7] = {0,    0,    0, AE_7,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0}, /* accept */
    [ 8] = {0,    0,    0, AE_8,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0}, /* reject */
    [ 9] = {0,    0,    0,    0,    0,    0, DT_1,    0, AR_7,    0,    0,    0,    0,    0}, /* data */
    [10] = {0,    0, AA_1, AA_8,    0, AA_8, DT_2, AR_6, AA_8, AA_8, AA_8, AA_8, AA_8, AA_6}, /* data received */
    [11] = {0,    0,    0,    0,    0,    0, AR_1,    0,    0,    0,    0,    0,    0,    0}, /* release */
    [12] = {0,    0, AA_1, AA_8,    0, AA_8, AR_2, AR_8, AA_8, AA_8, AA_8, AA_8, AA_8, AA_6}, /* release rq received */
    [13] = {0,    0, AA_1, AA_8,    0, AA_8, AA_8, AR_3, AA_8, AA_8,AR_10, AR_3, AA_8, AA_6}, /* release rp received */
    [14] = {0,    0,    0,    0,    0,    0,    0,    0, AR_4, AR_9,    0,    0, AR_4,    0}, /* release response */
    [15] = {0,    0, AA_2, AA_1, AA_2, AA_1, AA_1, AA_1, AA_1, AA_1, AA_1, AA_1, AA_1,    0}, /* abort */
    [16] = {0,    0, AA_2, AA_3,    0, AA_3, AA_3, AA_3, AA_3, AA_3, AA_3, AA_3, AA_3, AA_2}, /* abort received */
    [17] = {0,    0, AA_5, AA_4, AA_4, AA_4, AA_4, AA_4, AA_4, AA_4, AA_4, AA_4, AA_4, AR_5}, /* closed */
    [18] = {0,    0, AA_2,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0, AA_2}, /* artim */
    [19] = {0,    0, AA_1, AA_8,    0, AA_8, AA_8, AA_8, AA_8, AA_8, AA_8, AA_8, AA_8, AA_7}, /* invalid pdu */
};
/* clang-format on */

enum { ARTIM_KEEP = 0, ARTIM_START, ARTIM_STOP };

typedef struct action {
    uint8_t next, send, artim, open, tell, close;
} action;

/* AE-6 and AR-8 have two next states each. The table has that of a request that is not refused, and
 * that of the acceptor. */
static const action actions[ACTIONS] = {
    [AE_1] = {.next = S4, .open = 1},
    [AE_2] = {.next = S5, .send = LTDIC_ASSOCIATE_RQ},
    [AE_3] = {.next = S6, .tell = 1},
    [AE_4] = {.next = S1, .tell = 1, .close = 1},
    [AE_5] = {.next = S2, .artim = ARTIM_START},
    [AE_6] = {.next = S3, .tell = 1, .artim = ARTIM_STOP},
    [AE_7] = {.next = S6, .send = LTDIC_ASSOCIATE_AC},
    [AE_8] = {.next = S13, .send = LTDIC_ASSOCIATE_RJ, .artim = ARTIM_START},
    [DT_1] = {.next = S6, .send = LTDIC_DATA_TF},
    [DT_2] = {.next = S6, .tell = 1},
    [AR_1] = {.next = S7, .send = LTDIC_RELEASE_RQ},
    [AR_2] = {.next = S8, .tell = 1},
    [AR_3] = {.next = S1, .tell = 1, .close = 1},
    [AR_4] = {.next = S13, .send = LTDIC_RELEASE_RP, .artim = ARTIM_START},
    [AR_5] = {.next = S1, .artim = ARTIM_STOP},
    [AR_6] = {.next = S7, .tell = 1},
    [AR_7] = {.next = S8, .send = LTDIC_DATA_TF},
    [AR_8] = {.next = S10, .tell = 1},
    [AR_9] = {.next = S11, .send = LTDIC_RELEASE_RP},
    [AR_10] = {.next = S12, .tell = 1},
    [AA_1] = {.next = S13, .send = LTDIC_ABORT, .artim = ARTIM_START},
    [AA_2] = {.next = S1, .close = 1, .artim = ARTIM_STOP},
    [AA_3] = {.next = S1, .tell = 1, .close = 1},
    [AA_4] = {.next = S1, .tell = 1},
    [AA_5] = {.next = S1, .artim = ARTIM_STOP},
    [AA_6] = {.next = S13},
    [AA_7] = {.next = S13, .send = LTDIC_ABORT},
    [AA_8] = {.next = S13, .send = LTDIC_ABORT, .tell = 1, .artim = ARTIM_START},
};

static void set_artim(ltdic_ul *ul, uint8_t what, uint64_t now)
{
    if (what == ARTIM_START) {
        ul->deadline = now + ul->artim > 0 ? now + ul->artim : 1;
    } else if (what == ARTIM_STOP) {
        ul->deadline = 0;
    }
}

void ltdic_ul_init(ltdic_ul *ul, uint32_t artim)
{
    *ul = (ltdic_ul){.state = S1, .artim = artim};
}

/* Does the action for an event. `reason` is sent in the A-ABORT of AA-7 and AA-8. */
static int step(ltdic_ul *ul, ltdic_effects *effects, ltdic_event event, uint8_t reason,
                uint64_t now)
{
    const uint8_t name = table_9_10[event][ul->state];
    *effects = (ltdic_effects){.action = name};
    if (name == 0) {
        return LTDIC_ERR_WRONG_STATE;
    }
    const action *a = &actions[name];
    effects->open = a->open;
    effects->send = a->send;
    effects->tell = a->tell;
    effects->close = a->close;
    if (name == AA_7 || name == AA_8) {
        effects->codes = (ltdic_reject){0, 2, reason};
    }
    set_artim(ul, a->artim, now);
    ul->state = name == AR_8 && ul->requestor ? S9 : a->next;
    return LTDIC_OK;
}

int ltdic_ul_event(ltdic_ul *ul, ltdic_effects *effects, ltdic_event event, uint64_t now)
{
    if (event == LTDIC_EVT_ABORT && (ul->state == S1 || ul->state == S13)) {
        *effects = (ltdic_effects){0};
        return LTDIC_OK;
    }
    const int status = step(ul, effects, event, 0, now);
    if (effects->action == AE_1 || effects->action == AE_5) {
        ul->requestor = effects->action == AE_1;
    }
    return status;
}

/* Does AE-6 for a request that the provider refuses: the user gets no indication. */
static void refuse(ltdic_ul *ul, ltdic_effects *effects, ltdic_reject codes, uint64_t now)
{
    effects->tell = 0;
    effects->send = LTDIC_ASSOCIATE_RJ;
    effects->codes = ul->refusal = codes;
    ul->state = S13;
    set_artim(ul, ARTIM_START, now);
}

int ltdic_ul_receive(ltdic_ul *ul, ltdic_effects *effects, ltdic_bytes pdu, uint64_t now)
{
    static const uint8_t events[] = {
        [LTDIC_ASSOCIATE_RQ] = LTDIC_EVT_RQ_RECEIVED,
        [LTDIC_ASSOCIATE_AC] = LTDIC_EVT_AC_RECEIVED,
        [LTDIC_ASSOCIATE_RJ] = LTDIC_EVT_RJ_RECEIVED,
        [LTDIC_DATA_TF] = LTDIC_EVT_DATA_RECEIVED,
        [LTDIC_RELEASE_RQ] = LTDIC_EVT_RELEASE_RQ_RECEIVED,
        [LTDIC_RELEASE_RP] = LTDIC_EVT_RELEASE_RP_RECEIVED,
        [LTDIC_ABORT] = LTDIC_EVT_ABORT_RECEIVED,
    };
    const uint8_t type = pdu.data[0];
    const bool associate = type == LTDIC_ASSOCIATE_RQ || type == LTDIC_ASSOCIATE_AC;
    const bool version_1 = !associate || (pdu.data[7] & 1) != 0;
    if (type == LTDIC_ASSOCIATE_AC && ul->state == S5 && !version_1) {
        ltdic_ul_fault(ul, effects, LTDIC_ERR_BAD_VALUE, now);
        return LTDIC_ERR_BAD_VALUE;
    }
    const uint8_t unexpected = ltdic_abort_reason(LTDIC_ERR_UNEXPECTED_PDU);
    const int status = step(ul, effects, (ltdic_event)events[type], unexpected, now);
    if (effects->action == AE_6 && !version_1) {
        /* permanent, service-provider (ACSE), protocol-version-not-supported (PS3.8 table 9-21) */
        refuse(ul, effects, (ltdic_reject){1, 2, 2}, now);
    } else if (effects->action == AE_6 && ul->refusal.result != 0) {
        refuse(ul, effects, ul->refusal, now);
    }
    return effects->send == LTDIC_ABORT ? LTDIC_ERR_UNEXPECTED_PDU : status;
}

int ltdic_ul_fault(ltdic_ul *ul, ltdic_effects *effects, int status, uint64_t now)
{
    return step(ul, effects, LTDIC_EVT_INVALID_PDU, ltdic_abort_reason(status), now);
}
