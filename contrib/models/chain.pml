/*
 * chain.pml - the log in the object store: take-over, fence, barrier, appends in a window, floor,
 * collection.
 *
 * Checks that a segment which was acknowledged is read by everybody for ever, and that no reader
 * ever meets a segment that does not continue the one before it.  Slots are filled once, by
 * create-only requests; one that was sent is carried out at any later time, also when its
 * sender is long deposed, and its answer may come at any time after that.  A leader may stall
 * between any two steps.  What src/objectlog and src/leadership do is the model without flags;
 * each flag takes one decisive line away and must be found out:
 *
 *   NOFENCE    no fence is put                       (take.c: put_fence)
 *   SECOND     the fence is put behind the first free slot
 *   NOLOOK     the manifest is not read again        (take.c: look_again)
 *   NOFREEZE   ... nor is the term put into it       (take.c: freeze_manifest)
 *   LISTLATE   the slots are listed after that       (take.c: freeze_manifest)
 *   ASSUME     a lost condition on a retry is taken for our own success  (store.c: put id)
 *   GCFENCE    fences are collected, too
 *   EARLY      acknowledged before the segment is stored (upload.c: uploaded)
 *   ATONCE     the window is open right behind the fence  (take.c: settled_from)
 *   SHORT      ... one slot too early
 *   SILENT     the barrier is not announced in the manifest  (take.c: put_barrier)
 *   ANYACK     acknowledged in any order             (append.c: objectlog_append_wait)
 *   DROP       a refused segment's successor is acknowledged
 *
 * WIN is how many segments a leader may have in flight, and the WMAX of the format, too.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TERMS
#define TERMS 3
#endif
#ifndef SLOTS
#define SLOTS 6
#endif
#ifndef WIN
#define WIN 2
#endif
#ifndef AHEAD
#define AHEAD WIN /* of the barrier */
#endif
#ifdef NOFREEZE
#define MAY_MOVE true
#else
#define MAY_MOVE leading == manifest_term
#endif
#define ID(term, number) ((term) * 16 + (number))

byte own[SLOTS];      /* term of what stands in a slot; 0: free */
byte num[SLOTS];      /* its place among the segments of its term, from 1 on; 0: a fence */
byte basis[TERMS + 1];/* by term: the segment that its first one continues */
bit acked[SLOTS];     /* ghost: somebody was told that this slot's segment is safe ... */
byte by[SLOTS];       /* ... of this term */
byte archived[SLOTS]; /* ghost: term of the segment that was below the floor when it moved */
byte lock_term;       /* leader-lock */
byte manifest_term, floor_slot, floor_term, floor_last, barrier_slot; /* manifest/latest */
byte leading;         /* ghost: highest term whose take-over is complete */
byte sure;            /* ... and up to which slot that leader knows what the slots hold */

/*
 * The reader's rule, up to the first missing slot: every segment that it accepts continues the
 * one before, and every acknowledged one is among them.  `below`: gives the last one accepted
 * below this slot, nothing of which may be missing.
 */
inline read_all(below, found) {
  d_step {
    t = floor_term; last = floor_last; k = 0; found = last;
    do
    :: k < SLOTS ->
       if
       :: k < floor_slot -> assert(!acked[k] || archived[k] == by[k])
       :: k >= floor_slot && open ->
          if
          :: own[k] == 0 -> open = 0; assert(!acked[k]); assert(k >= below)
          :: own[k] != 0 && own[k] < t -> assert(!acked[k])
          :: own[k] != 0 && own[k] >= t ->
             t = own[k];
             if
             :: num[k] == 0 -> assert(!acked[k])
             :: num[k] == 1 -> assert(basis[t] == last); last = ID(t, 1)
             :: else -> assert(last == ID(t, num[k] - 1)); last = ID(t, num[k])
             fi;
             assert(!acked[k] || own[k] == by[k])
          fi
       :: else -> assert(!acked[k])
       fi;
       k++;
       if :: k == below -> found = last :: else fi
    :: else -> break
    od;
    open = 1; t = 0; k = 0; last = 0
  }
}

/* First slot from `from` on that is not there. */
inline list(from, free) {
  free = from;
  do :: free < SLOTS && own[free] != 0 -> free++ :: else -> break od
}

inline acknowledge(slot) {
  acked[slot] = 1; by[slot] = me;
  if :: leading == me && sure <= slot -> sure = slot + 1 :: else fi
}

/* The oldest, or the one behind it, is no longer in flight. */
inline shift(i) {
#if WIN > 1
  if :: i == 0 -> os[0] = os[1]; on[0] = on[1] :: else fi;
#endif
#if WIN > 2
  os[1] = os[2]; on[1] = on[2];
#endif
#if WIN > 3
  os[2] = os[3]; on[2] = on[3];
#endif
  count--; os[count] = 0; on[count] = 0
}

inline carried_out(i) {
  atomic { count > i && own[os[i]] == 0 -> own[os[i]] = me; num[os[i]] = on[i];
           read_all(0, found); found = 0 }
}

/* Deposed: what is in flight may still be carried out, nothing else is done. */
inline die() { dead = 1; next = 0; settled = 0; number = 0 }

proctype Leader() {
  byte me, n, t, k, last, found, settled, version, base, wall;
  bit open = 1, dead = 0, announced = 0, done = 0;
  byte os[WIN], on[WIN], count, next, number; /* in flight, oldest first: slot, number */

  atomic { lock_term < TERMS -> lock_term++; me = lock_term };      /* take_lock */
  do                                                                 /* freeze_manifest */
  :: dead || done -> break
  :: !dead && !done ->
     d_step {                                            /* GET of the manifest, LIST */
       version = manifest_term; base = floor_slot; wall = barrier_slot; list(base, n);
       if :: version > me -> dead = 1 :: else fi };
#ifdef NOFREEZE
     done = 1
#else
     atomic { if
              :: dead -> skip
              :: !dead && manifest_term == version && floor_slot == base &&
                 barrier_slot == wall -> manifest_term = me; done = 1
              :: else -> skip                                        /* somebody was faster */
              fi }
#endif
  od;
  version = 0; wall = 0; done = 0;
#ifdef LISTLATE
  d_step { list(base, n) };
#endif
  base = 0;
#ifdef SECOND
  n++;
#endif
#ifndef NOFENCE
  do                                                                 /* put_fence */
  :: dead || done || n >= SLOTS -> break
  :: !dead && !done && n < SLOTS ->
     if
     :: atomic { own[n] == 0 -> own[n] = me; num[n] = 0;
                 if :: done = 1 :: skip fi }                         /* answer lost: again */
     :: atomic { own[n] != 0 && own[n] < me -> n++ }
     :: atomic { own[n] == me -> done = 1 }                          /* ours, by its put id */
     :: atomic { own[n] > me -> dead = 1 }
     :: atomic { !announced && own[n] != 0 ->                        /* put_barrier */
                 list(n, k);
                 if
                 :: k + AHEAD < SLOTS -> wall = k + AHEAD; announced = 1; k = 0
                 :: else -> k = 0
                 fi };
        if
        :: wall != 0 ->
#ifndef SILENT
           atomic { if
                    :: manifest_term == me ->
                       if :: barrier_slot < wall -> barrier_slot = wall :: else fi;
                       n = wall - AHEAD
                    :: else -> dead = 1
                    fi };
#endif
           if
           :: atomic { !dead && own[wall] == 0 -> own[wall] = me; num[wall] = 0 }
           :: atomic { !dead && own[wall] != 0 && own[wall] < me -> skip }
           :: atomic { !dead && own[wall] > me -> dead = 1 }
           :: dead -> skip
           fi;
           wall = 0
        :: else
        fi
     fi
  od;
#endif
  done = 0; announced = 0;
#ifndef NOLOOK
#ifndef NOFREEZE
  if :: !dead && manifest_term != me -> dead = 1 :: else fi;         /* look_again */
#endif
#endif
  if
  :: !dead && n < SLOTS ->
     atomic {
       if :: leading < me -> leading = me; if :: sure <= n -> sure = n + 1 :: else fi :: else fi;
       read_all(n, found); basis[me] = found; found = 0;             /* objectlog_read */
       settled = n + WIN;
#ifdef SHORT
       settled--;
#endif
       if :: barrier_slot >= settled -> settled = barrier_slot + 1 :: else fi;
#ifdef ATONCE
       settled = 0;
#endif
       next = n;
#ifndef NOFENCE
       next++;
#endif
       number = 1; n = 0 }
  :: else -> dead = 1; n = 0
  fi;
  do                                                                 /* append.c */
  :: atomic { !dead && next < SLOTS && count < WIN && (count == 0 || os[0] >= settled) ->
              os[count] = next; on[count] = number; count++; number++; next++;
#ifdef EARLY
              acknowledge(next - 1);
#endif
              skip }
     /* one in flight is carried out, also when this leader is deposed */
  :: carried_out(0)
#if WIN > 1
  :: carried_out(1)
#endif
#if WIN > 2
  :: carried_out(2)
#endif
#if WIN > 3
  :: carried_out(3)
#endif
     /* what has become of the oldest */
  :: atomic { !dead && count > 0 && own[os[0]] == me && num[os[0]] == on[0] ->
              acknowledge(os[0]); read_all(0, found); found = 0; shift(0) }
  :: atomic { !dead && count > 0 && own[os[0]] != 0 && next < SLOTS &&
              (own[os[0]] < me || (own[os[0]] == me && num[os[0]] == 0)) ->
              os[0] = next; next++ }                                 /* the next slot */
  :: atomic { !dead && count > 0 && own[os[0]] > me ->
#ifdef ASSUME
              if :: acknowledge(os[0]); read_all(0, found); found = 0; shift(0) :: die() fi
#else
#ifdef DROP
              if :: count > 1 -> shift(0) :: else -> die() fi
#else
              die()
#endif
#endif
            }
#ifdef ANYACK
  :: atomic { !dead && count > 1 && own[os[1]] == me && num[os[1]] == on[1] ->
              acknowledge(os[1]); read_all(0, found); found = 0; shift(1) }
#endif
  od
}

/* Archiving of what the leader that the manifest names is sure of, and collection. */
proctype Collector() {
  byte g = 0;

  do
  :: atomic { floor_slot < sure && floor_slot < SLOTS - 1 && MAY_MOVE ->
              if
                 :: own[floor_slot] >= floor_term ->
                    floor_term = own[floor_slot];
                    if
                    :: num[floor_slot] != 0 ->
                       archived[floor_slot] = own[floor_slot];
                       floor_last = ID(own[floor_slot], num[floor_slot])
                    :: else
                    fi
                 :: else
                 fi;
                 floor_slot++ }
  :: atomic { g < floor_slot ->
              if
#ifdef GCFENCE
              :: own[g] != 0 -> own[g] = 0
#else
              :: own[g] != 0 && num[g] != 0 && archived[g] == own[g] -> own[g] = 0; num[g] = 0
#endif
              :: else
              fi;
              g++ }
  :: break
  od
}

init { atomic { byte i = 0; do :: i < TERMS -> run Leader(); i++ :: else -> break od;
                run Collector() } }
