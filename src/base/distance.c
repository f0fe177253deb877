/*
 * distance.c - Levenshtein's distance, by one row of the table.  See distance.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "base/distance.h"

#include <string.h>

size_t
word_distance(const char *a, const char *b)
{
    size_t row[DISTANCE_WORD_MAX + 1], n = strnlen(b, DISTANCE_WORD_MAX);

    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; *a != '\0' && i <= DISTANCE_WORD_MAX; a++, i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t replace = diagonal + (*a != b[j - 1]);
            size_t other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;

            diagonal = row[j];
            row[j] = replace < other ? replace : other;
        }
    }
    return row[n];
}
