/**
 * TAI64N timestamps of handshake initiations: 8 octets of seconds (2^62 + 10 + Unix seconds), 4 of nanoseconds, big endian.
 *
 * A peer refuses an initiation whose stamp is not greater than the last one it accepted, also after we restarted. So stamps
 * never run back, whatever the clock does: a board without a battery clock starts in 1970 and goes on from the saved floor.
 * @see WireGuard paper §5.1, §5.4.2
 */
import { readU32, writeU32 } from "../bytes/integers.ts";
import { STAMP_BYTES } from "../wire/wg_message.ts";

/** High word of the seconds up to the year 2106; 2^62 is TAI64's epoch. */
const EPOCH_HIGH = 0x4000_0000;
/** TAI was 10 s ahead of UTC in 1970; leap seconds are ignored, as every implementation does. */
const EPOCH_OFFSET_SECONDS = 10;
const TWO_32 = 0x1_0000_0000;
/**
 * Stamps move in steps of 2^24 ns (16.8 ms), so that the precise clock is not told to others, which would help attacks on
 * timing. The low 24 bits are zero.
 */
const STEP_NANOSECONDS = 0x100_0000;
const SECOND_NANOSECONDS = 1_000_000_000;

/** Makes the stamps of one device. */
export class StampClock {
  #seconds = 0;
  #nanoseconds = 0;

  /**
   * @param floor the greatest stamp that may have been sent in an earlier life
   * @throws RangeError when it is no TAI64N stamp
   */
  constructor(floor?: Uint8Array) {
    if (floor === undefined) return;
    const seconds = floor.length === STAMP_BYTES ? secondsOf(floor) : NaN;
    const nanoseconds = readU32(floor, 8);
    if (!(seconds >= 0 && seconds < 2 ** 40) || nanoseconds >= SECOND_NANOSECONDS) {
      throw new RangeError("Timestamp floor is not TAI64N: expected 12 octets of a time after 1970");
    }
    this.#seconds = seconds;
    this.#nanoseconds = nanoseconds;
  }

  /** The next stamp, 12 octets: the clock's, or one step above the last one when the clock is not past it. */
  next(unixMs: number): Uint8Array {
    const clockMs = Math.max(0, unixMs);
    const seconds = Math.floor(clockMs / 1000);
    const nanoseconds = whiten(Math.floor((clockMs - seconds * 1000) * 1e6));
    if (seconds > this.#seconds || (seconds === this.#seconds && nanoseconds > this.#nanoseconds)) {
      this.#seconds = seconds;
      this.#nanoseconds = nanoseconds;
    } else this.#step();
    return this.floor;
  }

  /** The last stamp given out, or the floor it began with: a copy to be saved. */
  get floor(): Uint8Array {
    return writeStamp(this.#seconds, this.#nanoseconds);
  }

  #step(): void {
    this.#nanoseconds = whiten(this.#nanoseconds) + STEP_NANOSECONDS;
    if (this.#nanoseconds < SECOND_NANOSECONDS) return;
    this.#seconds++;
    this.#nanoseconds = 0;
  }
}

/**
 * A stamp some seconds after another one. Saved as the floor, it covers what will be sent until the next save, so that few
 * writes are needed and a power cut in between does no harm.
 */
export function stampAfter(stamp: Uint8Array, seconds: number): Uint8Array {
  return writeStamp(secondsOf(stamp) + seconds, readU32(stamp, 8));
}

/** Whether stamp `a` is greater than `b`: as octets, so that any 24 octets compare. */
export function isLaterStamp(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < STAMP_BYTES; i++) if (a[i] !== b[i]) return a[i]! > b[i]!;
  return false;
}

function secondsOf(stamp: Uint8Array): number {
  return (readU32(stamp, 0) - EPOCH_HIGH) * TWO_32 + readU32(stamp, 4) - EPOCH_OFFSET_SECONDS;
}

function writeStamp(seconds: number, nanoseconds: number): Uint8Array {
  const stamp = new Uint8Array(STAMP_BYTES);
  const fromEpoch = seconds + EPOCH_OFFSET_SECONDS;
  writeU32(stamp, 0, EPOCH_HIGH + Math.floor(fromEpoch / TWO_32));
  writeU32(stamp, 4, fromEpoch % TWO_32);
  writeU32(stamp, 8, nanoseconds);
  return stamp;
}

function whiten(nanoseconds: number): number {
  return nanoseconds - (nanoseconds % STEP_NANOSECONDS);
}
