/**
 * Sealed messages on their way out: collected back to back, so that messages of one size to one peer leave as one run (UDP GSO).
 *
 * Hot file. A run closes when a message is of another peer, larger than the first, or follows a shorter one (only the last
 * datagram of a run may be shorter), or when the run is full.
 */
import type { Underlay } from "../ports.ts";

/** Most octets of one UDP_SEGMENT send over IPv4: 65507; a little less, to be the same for both families. */
const MAX_RUN_BYTES = 65_000;

export class SealedRuns {
  readonly #underlay: Underlay;
  readonly #startAt: number;
  readonly #endAt: number;
  readonly #partBytes: number;
  #partAt: number;
  #limit: number;
  /** where the next message is to be written */
  at: number;
  /** octets of all messages since start */
  sentBytes = 0;
  #runAt: number;
  #runCount = 0;
  #runSegmentBytes = 0;
  #runToAt = 0;
  #runTrafficClass = 0;
  #isShort = false;

  /**
   * @param startAt, endAt region of the arena that messages are written to
   * @param parts equal parts of it that are filled in turn: after a flush, the underlay may go on with the part before
   */
  constructor(underlay: Underlay, startAt: number, endAt: number, parts = 1) {
    this.#underlay = underlay;
    this.#startAt = startAt;
    this.#endAt = endAt;
    this.#partBytes = Math.floor((endAt - startAt) / parts);
    this.#partAt = startAt;
    this.#limit = startAt + this.#partBytes;
    this.at = startAt;
    this.#runAt = startAt;
  }

  /** Makes sure that `bytes` octets fit at `at`: sends everything first when they would not. */
  reserve(bytes: number): void {
    if (this.at + bytes > this.#limit) this.flush();
  }

  /**
   * Takes the message that was written at `at`. `toAt` is the address record of its destination.
   * @param trafficClass DSCP and ECN of the outer header
   */
  add(end: number, toAt: number, trafficClass: number): void {
    const messageBytes = end - this.at;
    if (this.#runCount > 0 && !this.#accepts(messageBytes, toAt, trafficClass, end)) this.#close();
    if (this.#runCount === 0) {
      this.#runAt = this.at;
      this.#runSegmentBytes = messageBytes;
      this.#runToAt = toAt;
      this.#runTrafficClass = trafficClass;
    }
    this.#runCount++;
    this.#isShort = messageBytes < this.#runSegmentBytes;
    this.sentBytes += messageBytes;
    this.at = end;
  }

  /** Sends everything collected. The region, or the next part of it, is free again. */
  flush(): void {
    if (this.#runCount > 0) this.#close();
    this.#underlay.flush();
    if (this.at === this.#partAt) return;
    const next = this.#limit;
    this.#partAt = next + this.#partBytes > this.#endAt ? this.#startAt : next;
    this.#limit = this.#partAt + this.#partBytes;
    this.at = this.#partAt;
  }

  #accepts(messageBytes: number, toAt: number, trafficClass: number, end: number): boolean {
    return !this.#isShort && messageBytes <= this.#runSegmentBytes && toAt === this.#runToAt &&
      trafficClass === this.#runTrafficClass && this.#runCount < this.#underlay.maxSegments &&
      end - this.#runAt <= MAX_RUN_BYTES;
  }

  #close(): void {
    this.#underlay.queue(this.#runAt, this.at, this.#runSegmentBytes, this.#runToAt, this.#runTrafficClass);
    this.#runCount = 0;
  }
}
