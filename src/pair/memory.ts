/**
 * The memory in which the two Workers of a datapath meet, beside the arena.
 *
 *     main Worker ("datapath")                      cipher Worker
 *     sessions, policy, conntrack, TUN              sockets, seal, open
 *
 *       plaintext  ──  send parts of the arena  ──>  seals in place, sends        (send_ring.ts)
 *       datagrams  <─  receive batches          ──   received, opened in place    (receive_ring.ts)
 *       keys       ──  key table, index cache   ──>  makes keys of its own        (key_table.ts, index_cache.ts)
 *
 * Who owns what: a send part is the main Worker's until it is published, then the cipher Worker's until it is done; a receive
 * batch is the cipher Worker's until it is published, then the main Worker's until it is returned. Each word below has one
 * writer (but `ASLEEP` and `IS_ARMED`, which are exchanged), and what is published before a word is seen by whoever reads it after:
 * the words are read and written with Atomics, what they hand over need not be. Numbers count up and wrap; only differences count.
 *
 * Pages are given as they are touched: a member without traffic pays for little of it.
 */

/** Send parts and their descriptors, a power of two: one is filled while others are sealed and sent. */
export const SEND_PARTS = 4;
/** Messages of one part that the cipher Worker seals; more are sealed by the main Worker. */
export const MAX_JOBS = 512;
/** Runs of one part before it must be sent. */
export const MAX_RUNS = 256;
/** Receive batches, a power of two. */
export const RECEIVE_BATCHES = 4;
/** Most runs of a batch. */
export const MAX_BATCH_RUNS = 64;
/** Receipts of a run: what a kernel merges. Datagrams past them are not tried. */
export const MAX_RECEIPTS = 64;
/** Keys in the table, a power of two. What finds no room is sealed and opened by the main Worker. */
export const KEY_SLOTS = 16_384;
/** Sets of the index cache, a power of two, and entries of a set. */
export const INDEX_SETS = 4096;
export const INDEX_WAYS = 4;
/** errno 0 to 255; the last counts those beyond */
export const ERRNOS = 256;

// words of the state, by writer: the main Worker's
export const WANTS_END = 0;
export const SENT = 1;
export const RETURNED = 2;
export const WIPES = 3;
export const SWITCHES = 4;
export const SWITCH_BITS = 5;
// the cipher Worker's
export const STATE = 8;
export const DONE = 9;
export const RECEIVED = 10;
export const SWITCHED = 11;
export const OFFLOAD_CHANGES = 12;
export const MAX_SEGMENTS = 13;
export const SEND_ERRORS = 14;
export const WAKE_FD = 15;
/** it sleeps, and cannot receive before a batch is returned */
export const IS_STALLED = 16;
// both
export const ASLEEP = 24;
/** the main Worker wants to be told of the next batch */
export const IS_ARMED = 25;

// values of STATE
export const STARTING = 0;
export const RUNNING = 1;
export const ENDED = 2;

// a send descriptor: counts, then jobs, then runs
export const JOB_COUNT = 0;
export const RUN_COUNT = 1;
/** runs with an outcome */
export const OUTCOMES = 2;
export const JOBS = 4;
/** key id, counter (low and high half), at, end of the plaintext */
export const JOB_WORDS = 5;
export const RUNS = JOBS + MAX_JOBS * JOB_WORDS;
/** at, end, segment octets, address record of the sender, traffic class, outcome */
export const RUN_WORDS = 6;
export const SEND_WORDS = RUNS + MAX_RUNS * RUN_WORDS;
// bits of an outcome
export const OUTCOME_TOO_BIG = 1;
export const OUTCOME_FORGOT_OWN = 2;

// a receive descriptor: the count, then runs with their receipts
export const BATCH_RUNS = 4;
/** at, end, segment octets, address record, ECN, whether it is cut short, two spare, receipts */
export const RECEIPTS = 8;
export const BATCH_RUN_WORDS = RECEIPTS + MAX_RECEIPTS;
export const BATCH_WORDS = BATCH_RUNS + MAX_BATCH_RUNS * BATCH_RUN_WORDS;

// a key: id, AEAD, octets
export const KEY_WORDS = 12;
export const KEY_OCTETS = 4;

// regions, in words
export const AT_ERRNOS = 64;
export const AT_SEND = AT_ERRNOS + ERRNOS;
export const AT_BATCHES = AT_SEND + SEND_PARTS * SEND_WORDS;
export const AT_INDEXES = AT_BATCHES + RECEIVE_BATCHES * BATCH_WORDS;
export const AT_KEYS = AT_INDEXES + INDEX_SETS * INDEX_WAYS * 2;
export const PAIR_WORDS = AT_KEYS + KEY_SLOTS * KEY_WORDS;

/** Both Workers' view of it. */
export interface PairMemory {
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly bytes: Uint8Array<SharedArrayBuffer>;
}

/** Octets of the shared buffer. */
export const PAIR_BYTES = PAIR_WORDS * 4;

/** @param buffer PAIR_BYTES octets, zero at first */
export function pairMemory(buffer: SharedArrayBuffer): PairMemory {
  return { words: new Int32Array(buffer), bytes: new Uint8Array(buffer) };
}

/** Where the pair's regions of the arena lie. */
export interface PairRoom {
  /** send parts, one after another: what is sealed in there is the cipher Worker's work */
  readonly sendAt: number;
  readonly sendEnd: number;
  /** copies of destinations, `pairAddressBytes()` octets */
  readonly addressesAt: number;
}
