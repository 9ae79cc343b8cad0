/** The numbers of the WireGuard protocol (paper §6, and the kernel's), apart from our own tuning. All times in milliseconds. */

// Protocol
export const REKEY_AFTER_MS = 120_000;
export const REJECT_AFTER_MS = 180_000;
/** Smallest gap between two initiations to one peer; a retry comes after this and a jitter. */
export const REKEY_TIMEOUT_MS = 5_000;
export const REKEY_JITTER_MS = 334;
export const KEEPALIVE_TIMEOUT_MS = 10_000;
/** The initiator of a session that receives but does not send makes a new one at this age, once. */
export const REKEY_ON_RECEIVE_MS = REJECT_AFTER_MS - KEEPALIVE_TIMEOUT_MS - REKEY_TIMEOUT_MS;
/** Data went out and nothing came back for so long: try a new handshake. */
export const NEW_HANDSHAKE_MS = KEEPALIVE_TIMEOUT_MS + REKEY_TIMEOUT_MS;
export const ZERO_KEYS_MS = 3 * REJECT_AFTER_MS;
/** REKEY_ATTEMPT_TIME / REKEY_TIMEOUT. Tested before it is raised, so 20 initiations go out, as the kernel's do. */
export const MAX_HANDSHAKE_RETRIES = 18;
/** Smallest gap between two initiations that are accepted from one peer: 50 per second. */
export const INITIATION_GAP_MS = 20;
/** RFC 6479 window: counters up to this far behind the highest are told apart. */
export const REPLAY_WINDOW = 8128;

// Our own limits on counters: lower than the paper's (2^60, and 2^64 - 2^13 - 1), so that a counter is a number. At 10 million
// packets a second 2^50 messages take three years; a session lives three minutes.
export const REKEY_AFTER_MESSAGES = 2 ** 50;
/** One batch may pass this limit: 2^13 is larger than any. */
export const REJECT_AFTER_MESSAGES = 2 ** 53 - 2 ** 13 - 1;
/** A received counter whose high word is at least this is 2^53 or more: dropped. Stricter than the paper. */
export const COUNTER_HIGH_LIMIT = 0x20_0000;

// Under load. wireguard-go calls it load when 128 handshakes wait in its queue. We have no queue, so one is imagined: every
// handshake message with a right mac1 joins it, and 256 a second leave, which is about a quarter of a small board's core.
export const LOAD_QUEUE_THRESHOLD = 128;
export const LOAD_DRAIN_PER_SECOND = 256;
/** It stays "under load" for this long after the queue was last too long. */
export const LOAD_AFTER_MS = 1_000;

// Rate limit per source while under load.
export const RATE_PER_SECOND = 20;
export const RATE_BURST = 5;
/** Sources that are remembered at once; more are refused. */
export const RATE_MAX_SOURCES = 16_384;

/** Address records behind those of the peers, for cookie replies of one batch; more are not answered. */
export const SPARE_ADDRESSES = 16;
