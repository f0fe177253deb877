/*
 * pin.pml - removal of objects against whoever comes to need them.
 *
 * X is an object that the manifest's list reaches; the leader may take it off.  Y is one that the
 * leader stores for a checkpoint in the making (a fold), and names by a later manifest.  Two rounds of
 * removal run at any time and may stall before each deletion for ever, so a deposed leader's round
 * is among them.  A pinner (a branch, a restore) wants X kept.
 *
 * Says: what is listed exists, and what is pinned exists.
 *
 * The lines, and where they are: read_list, read_pins, delete: src/checkpoint/collect.c, collect();
 * take_off: retire.c, list_retire(); put_y, name_y: publish.c, publish_fold() and publish().  The
 * pinner comes with branches.
 *
 * Wrong variants, each of which must be found out:
 *  -DEXIST     the pinner looks whether the object is there, not whether the list reaches it
 *  -DPINFIRST  a round reads the pins before the list
 *  -DREUSE     a new manifest names an object that it finds there, although the one before did not
 *              reach it
 *  -DNAMED     an object in the making carries the newest checkpoint's index, not a higher one
 *  -DBETWEEN   another checkpoint is published while a fold is being written
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define NEWEST_MAX 3
#ifdef BETWEEN
#define MAY_PUBLISH true
#else
#define MAY_PUBLISH (!y_made || y_listed)
#endif

bit listed = 1, exists = 1;                      /* X */
bit y_made = 0, y_listed = 0, y_exists = 0;      /* Y */
byte y_index = 0, newest = 1;                    /* of checkpoints */
bit pin = 0, pinned = 0;

proctype Collector()
{
    bit seen, seen_y, found_y, p;
    byte n;

    do
    ::
#ifdef PINFIRST
        p = pin;
#endif
        atomic { seen = listed; seen_y = y_listed; n = newest }; /* read_list: one object */
        found_y = y_exists;                                      /* the listing of the store */
#ifndef PINFIRST
        p = pin;                                                 /* read_pins */
#endif
        if
        :: !p && !seen -> exists = 0                             /* delete, however late */
        :: else
        fi;
        if
        :: !p && found_y && !seen_y && y_index <= n -> y_exists = 0
        :: else
        fi
    :: break
    od
}

proctype Leader()
{
    do
    :: atomic { listed -> listed = 0 }                           /* take_off */
    :: atomic {                                                  /* put_y */
        !y_made -> y_made = 1; y_exists = 1;
#ifdef NAMED
        y_index = newest
#else
        y_index = newest + 1
#endif
       }
    :: atomic {                                                  /* name_y */
        y_made && !y_listed && newest < NEWEST_MAX -> y_listed = 1; newest = newest + 1
       }
    :: atomic {                                                  /* another checkpoint */
        newest < NEWEST_MAX && MAY_PUBLISH -> newest = newest + 1
       }
#ifdef REUSE
    :: atomic { !listed && exists -> listed = 1 }
#endif
    :: break
    od
}

proctype Pinner()
{
    bit r;

    do
    :: pin = 1;
#ifdef EXIST
       r = exists;
#else
       r = listed;
#endif
       if
       :: r -> pinned = 1; break
       :: else -> pin = 0; break
       fi
    :: break
    od
}

active proctype Watch()
{
    atomic {
        (pinned && !exists) || (listed && !exists) || (y_listed && !y_exists) -> assert(0)
    }
}

init {
    atomic { run Collector(); run Collector(); run Leader(); run Pinner() }
}
