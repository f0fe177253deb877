/*
 * chain.pml - the log in the object store: take-over, fence, barrier, append, floor, collection.
 *
 * Checks that a segment which was acknowledged is read by everybody for ever.  Slots are filled
 * once, by create-only requests whose answer may be lost; a leader may stall between any two
 * steps.  What src/objectlog and src/leadership do is the model without flags; each flag takes
 * one decisive line away and must be found out:
 *
 *   NOFENCE    no fence is put                       (take.c: put_fence)
 *   SECOND     the fence is put behind the first free slot
 *   NOLOOK     the manifest is not read again        (take.c: look_again)
 *   NOFREEZE   ... nor is the term put into it       (take.c: freeze_manifest)
 *   ASSUME     a lost condition on a retry is taken for our own success  (store.c: put id)
 *   GCFENCE    fences are collected, too
 *   EARLY      acknowledged before the segment is stored (upload.c: uploaded)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TERMS
#define TERMS 3
#endif
#ifndef SLOTS
#define SLOTS 5
#endif
#ifdef NOFREEZE
#define MAY_MOVE true
#else
#define MAY_MOVE leading == manifest_term
#endif

byte own[SLOTS];      /* term of what stands in a slot; 0: free */
bit fence[SLOTS];
bit acked[SLOTS];     /* ghost: somebody was told that this slot's segment is safe ... */
byte by[SLOTS];       /* ... of this term */
byte archived[SLOTS]; /* ghost: term of the segment that was below the floor when it moved */
byte lock_term;       /* leader-lock */
byte manifest_term, floor_slot, floor_term; /* manifest/latest */
byte leading;         /* ghost: highest term whose take-over is complete */

/* The reader's rule; every acknowledged segment must be among what it accepts. */
inline check_all() {
  d_step {
    t = floor_term; k = 0;
    do
    :: k < SLOTS ->
       if
       :: k < floor_slot -> assert(!acked[k] || archived[k] == by[k])
       :: k >= floor_slot && open ->
          if
          :: own[k] == 0 -> open = 0; assert(!acked[k])
          :: own[k] != 0 && own[k] < t -> assert(!acked[k])
          :: own[k] != 0 && own[k] >= t -> t = own[k];
             assert(!acked[k] || (own[k] == by[k] && !fence[k]))
          fi
       :: else -> assert(!acked[k])
       fi;
       k++
    :: else -> break
    od;
    open = 1; t = 0; k = 0
  }
}

proctype Leader() {
  byte me, n, base, t, k, behind;
  bit open = 1, retry = 0, dead = 0, barrier = 0, done = 0;

  atomic { lock_term < TERMS -> lock_term++; me = lock_term };      /* take_lock */
#ifndef NOFREEZE
  atomic { if :: manifest_term < me -> manifest_term = me :: else -> dead = 1 fi;
           base = floor_slot };                                      /* freeze_manifest */
#else
  base = floor_slot;
#endif
  d_step { n = base; do :: n < SLOTS && own[n] != 0 -> n++ :: else -> break od }; /* LIST */
#ifdef SECOND
  n++;
#endif
#ifndef NOFENCE
  do                                                                 /* put_fence */
  :: dead || done || n >= SLOTS -> break
  :: !dead && !done && n < SLOTS ->
     if
     :: atomic { own[n] == 0 -> own[n] = me; fence[n] = 1;
                 if :: done = 1 :: retry = 1 fi }                    /* answer lost: again */
     :: atomic { own[n] != 0 && own[n] < me -> n++ }
     :: atomic { own[n] == me -> done = 1 }                          /* ours, by its put id */
     :: atomic { own[n] > me -> dead = 1 }
     :: atomic { !barrier && own[n] != 0 && n + 2 < SLOTS && own[n + 2] == 0 ->
                 own[n + 2] = me; fence[n + 2] = 1; barrier = 1 }    /* the barrier */
     fi
  od;
#endif
#ifndef NOLOOK
#ifndef NOFREEZE
  if :: !dead && manifest_term != me -> dead = 1 :: else fi;         /* look_again */
#endif
#endif
  retry = 0;
  if :: !dead && n < SLOTS -> atomic { if :: leading < me -> leading = me :: else fi; check_all() }
     :: else
  fi;
  do                                                                 /* put_segment */
  :: dead || n >= SLOTS -> break
  :: !dead && n < SLOTS ->
     if
     :: atomic { own[n] == 0 ->
#ifdef EARLY
                 acked[n] = 1; by[n] = me;
#endif
                 skip };
        atomic { if
                 :: own[n] == 0 -> own[n] = me; fence[n] = 0;
                    if
                    :: acked[n] = 1; by[n] = me; check_all(); n++; retry = 0
                    :: retry = 1                                     /* stored, answer lost */
                    fi
                 :: else -> skip
                 fi }
     :: atomic { own[n] == me && !fence[n] ->                        /* put id: our own */
                 acked[n] = 1; by[n] = me; check_all(); n++; retry = 0 }
     :: atomic { own[n] == me && fence[n] -> n++ }                   /* our barrier, or fence */
     :: atomic { own[n] != 0 && own[n] < me -> n++ }
     :: atomic { own[n] > me ->
#ifdef ASSUME
                 if :: retry -> acked[n] = 1; by[n] = me; check_all(); n++; retry = 0
                    :: else -> dead = 1 fi
#else
                 dead = 1
#endif
               }
     :: retry = 1                                                    /* request lost */
     fi
  od
}

/* Archiving and collection, by the leader that the manifest names. */
proctype Collector() {
  byte g = 0;

  do
  :: atomic { floor_slot < SLOTS - 1 && own[floor_slot] != 0 && MAY_MOVE ->
              if
                 :: own[floor_slot] >= floor_term ->
                    floor_term = own[floor_slot];
                    if :: !fence[floor_slot] -> archived[floor_slot] = own[floor_slot] :: else fi
                 :: else
                 fi;
                 floor_slot++ }
  :: atomic { g < floor_slot ->
              if
#ifdef GCFENCE
              :: own[g] != 0 -> own[g] = 0
#else
              :: own[g] != 0 && !fence[g] && archived[g] == own[g] -> own[g] = 0
#endif
              :: else
              fi;
              g++ }
  :: break
  od
}

init { atomic { byte i = 0; do :: i < TERMS -> run Leader(); i++ :: else -> break od;
                run Collector() } }
