/*
 * distance.h - how far apart two words are, for "the nearest is ...".
 *
 * Pure; any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BASE_DISTANCE_H
#define BASE_DISTANCE_H

#include <stddef.h>

#define DISTANCE_WORD_MAX 64

/*
 * How many letters must be put in, taken out or replaced to make one of the other (Levenshtein).
 * Of longer words the first DISTANCE_WORD_MAX letters count.
 */
size_t word_distance(const char *a, const char *b);

#endif
