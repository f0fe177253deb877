/*
 * lease.pml - the leadership lease in leader-lock: a linearizable read is never old.
 *
 * One leader renews by compare-and-swap while it serves reads; one candidate takes the lock when
 * it has seen it unchanged for WAIT.  Both have clocks of their own; the leader's may run slower
 * by up to a fifth.  Time is bounded.  The model without flags is src/leadership: upload.c:
 * renew, acquire.c: wait_for_turn, leadership.c: leadership_is_proven.  Flags that must be found
 * out:
 *
 *   FROMRESP    the lease counts from the answer, not from the sending
 *   SHORT       the candidate waits for less than the lease
 *   SAMEBODY    a renewal leaves the lock's tag as it is
 *   NOLEASE     reads are answered without looking at the lease
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define LEASE 4
#ifdef NOLEASE
#define LEASE_HOLDS true
#else
#define LEASE_HOLDS leader_clock < until
#endif
#ifdef SHORT
#define WAIT 3
#else
#define WAIT 5 /* 1.25 times */
#endif
#ifndef END
#define END 12
#endif

byte leader_clock, candidate_clock, since_skip = 4;
byte tag = 1;      /* changes with each compare-and-swap */
byte holder = 1;   /* 1 the leader, 2 the candidate */
bit written;       /* ghost: the candidate has acknowledged a write */

/* The leader's clock may stand still for one of any five ticks. */
active proctype Clock() {
  do
  :: candidate_clock < END ->
     atomic { candidate_clock++;
              if :: leader_clock++; if :: since_skip < 4 -> since_skip++ :: else fi
                 :: since_skip == 4 -> since_skip = 0
              fi }
  :: else -> break
  od
}

active proctype Leader() {
  byte sent, until = 0, expected = 1, last = 255;
  bit seen, ok;

  do
  :: candidate_clock >= END -> break
  :: leader_clock != last -> sent = leader_clock; last = sent; /* before it is sent */
     atomic { ok = (holder == 1 && tag == expected);
#ifndef SAMEBODY
              if :: ok -> tag++; expected = tag :: else fi
#endif
            };
     /* the answer may take any time */
     if
     :: ok ->
#ifdef FROMRESP
        until = leader_clock + LEASE
#else
        until = sent + LEASE
#endif
     :: else -> break
     fi
  :: seen = written;                            /* the read begins: its snapshot */
     atomic { if :: LEASE_HOLDS -> assert(!seen) :: else fi } /* ... and is answered */
  od
}

active proctype Candidate() {
  byte seen_tag = 0, since = 0;

  do
  :: candidate_clock >= END -> break
  :: atomic { tag != seen_tag -> seen_tag = tag; since = candidate_clock }
  :: atomic { seen_tag == tag && candidate_clock - since >= WAIT -> holder = 2; tag++ };
     written = 1; break
  od
}
