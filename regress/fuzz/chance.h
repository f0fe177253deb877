/*
 * chance.h - numbers by a seed, for the fuzzers' own rounds: one sequence per program.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FUZZ_CHANCE_H
#define FUZZ_CHANCE_H

#include <stdint.h>

static uint64_t chance_state; /* set to the seed first */

/* 0 to n - 1. */
static uint64_t
chance(uint64_t n)
{
    chance_state = chance_state * 6364136223846793005u + 1442695040888963407u;
    return (chance_state >> 33) % n;
}

#endif
