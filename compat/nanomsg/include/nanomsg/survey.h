/* SPDX-License-Identifier: MIT */
/* SURVEYOR and RESPONDENT: a question to all, the answers that come in time. */
#ifndef SURVEY_H_INCLUDED
#define SURVEY_H_INCLUDED

#define NN_PROTO_SURVEY 6

#define NN_SURVEYOR   (NN_PROTO_SURVEY * 16 + 2)
#define NN_RESPONDENT (NN_PROTO_SURVEY * 16 + 3)

#define NN_SURVEYOR_DEADLINE 1 /* level NN_SURVEYOR: int ms, 1000 */

#endif
