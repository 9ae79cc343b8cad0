/**
 * One direction of the datapath's policy table.
 *
 *     identity --(open addressing)--> class --> block of segments --(binary search)--> decision
 *
 * A class is what all identities share that match the same rules. Its segments part the whole key space (protocol, port) without
 * gaps: pairs of (first key, decision), sorted, the first key 0. An identity that is not listed has class 0, the rules for
 * everybody. Changes arrive as `DirectionUpdate`s; blocks are placed here, so that an update holds no addresses.
 *
 * Hot file (bench: `scripts/bench/policy.ts`): `find` does not allocate.
 */
/** Changes of one direction. Plain typed arrays: structured clone carries it. */
export interface DirectionUpdate {
  /** what no rule allows is dropped */
  readonly isEnforced: boolean;
  /** pairs (identity, class); class 0 takes the identity out */
  readonly identities: Int32Array;
  /** pairs (class, number of segments); 0 segments frees the class */
  readonly classes: Int32Array;
  /** the segments of those classes, in their order: pairs (first key, decision) */
  readonly segments: Uint32Array;
}

const FIRST_SLOTS = 64;
/** words of a class record: offset of its block, segments in use, segments it has room for (offsets in segments) */
const CLASS_WORDS = 3;

export class DirectionTable {
  isEnforced = false;
  /** pairs (identity, class); identity 0 marks a free slot */
  #slots = new Int32Array(2 * FIRST_SLOTS);
  #mask = FIRST_SLOTS - 1;
  #identities = 0;
  #classes = new Int32Array(CLASS_WORDS * 16);
  #classCount = 0;
  /** pairs (first key, decision) */
  #segments = new Uint32Array(2 * 64);
  /** segments handed out, with those of blocks that were given up */
  #used = 0;
  /** segments of classes */
  #live = 0;

  /**
   * The decision for a key.
   * @param identity any 32-bit number; 0 is nobody's
   * @param key      0 to 2^24 - 1
   */
  find(identity: number, key: number): number {
    const slots = this.#slots;
    const mask = this.#mask;
    let slot = hash(identity) & mask;
    let seen = slots[2 * slot]!;
    while (seen !== identity && seen !== 0) {
      slot = (slot + 1) & mask;
      seen = slots[2 * slot]!;
    }
    // Identity 0 stops at a free slot, whose class is 0 as well.
    const record = CLASS_WORDS * slots[2 * slot + 1]!;
    let low = this.#classes[record]!;
    let high = low + this.#classes[record + 1]!;
    const segments = this.#segments;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (segments[2 * middle]! <= key) low = middle;
      else high = middle;
    }
    return segments[2 * low + 1]!;
  }

  /** Applies a change; a full one into a new table only. */
  apply(update: DirectionUpdate): void {
    this.isEnforced = update.isEnforced;
    let from = 0;
    for (let i = 0; i < update.classes.length; i += 2) {
      const count = update.classes[i + 1]!;
      this.#putClass(update.classes[i]!, update.segments, from, count);
      from += count;
    }
    for (let i = 0; i < update.identities.length; i += 2) {
      const identity = update.identities[i]!;
      const classNumber = update.identities[i + 1]!;
      if (classNumber === 0) this.#removeIdentity(identity);
      else this.#putIdentity(identity, classNumber);
    }
    if (this.#used > 1024 && this.#used > 2 * this.#live) this.#moveSegments(0);
  }

  get sizes(): TableSizes {
    return {
      identities: this.#identities,
      classes: this.#classCount,
      segments: this.#live,
      bytes: this.#slots.byteLength + this.#classes.byteLength + this.#segments.byteLength,
    };
  }

  // Classes

  #putClass(classNumber: number, from: Uint32Array, fromAt: number, count: number): void {
    const record = CLASS_WORDS * classNumber;
    if (record >= this.#classes.length) this.#classes = grown(this.#classes, record + CLASS_WORDS);
    const classes = this.#classes;
    const before = classes[record + 1]!;
    this.#live -= before;
    classes[record + 1] = 0;
    if (classes[record + 2]! < count) this.#placeBlock(record, count);
    const to = 2 * classes[record]!;
    for (let i = 0; i < 2 * count; i++) this.#segments[to + i] = from[2 * fromAt + i]!;
    classes[record + 1] = count;
    if (count === 0) classes[record + 2] = 0;
    this.#live += count;
    this.#classCount += (count > 0 ? 1 : 0) - (before > 0 ? 1 : 0);
  }

  /** Gives a class a block of `count` segments at the end; its old one is given up. */
  #placeBlock(record: number, count: number): void {
    this.#classes[record + 2] = 0;
    if (2 * (this.#used + count) > this.#segments.length) this.#moveSegments(count);
    this.#classes[record] = this.#used;
    this.#classes[record + 2] = count;
    this.#used += count;
  }

  /** Packs the blocks into a new pool with room for `more` segments and a quarter. */
  #moveSegments(more: number): void {
    const room = Math.max(64, Math.ceil((this.#live + more) * 1.25));
    const segments = new Uint32Array(2 * room);
    const classes = this.#classes;
    let used = 0;
    for (let record = 0; record < classes.length; record += CLASS_WORDS) {
      const count = classes[record + 1]!;
      if (count > 0) {
        segments.set(this.#segments.subarray(2 * classes[record]!, 2 * (classes[record]! + count)), 2 * used);
      }
      classes[record] = used;
      classes[record + 2] = count;
      used += count;
    }
    this.#segments = segments;
    this.#used = used;
  }

  // Identities

  #putIdentity(identity: number, classNumber: number): void {
    if (3 * (this.#identities + 1) > 2 * (this.#mask + 1)) this.#rehash(2 * (this.#mask + 1));
    const slot = this.#slotOf(identity);
    if (this.#slots[2 * slot] === 0) this.#identities++;
    this.#slots[2 * slot] = identity;
    this.#slots[2 * slot + 1] = classNumber;
  }

  /** Takes an identity out and moves later ones of its run back, so that no run has a gap. */
  #removeIdentity(identity: number): void {
    const slots = this.#slots;
    const mask = this.#mask;
    let gap = this.#slotOf(identity);
    if (slots[2 * gap] === 0) return;
    this.#identities--;
    for (let slot = (gap + 1) & mask; slots[2 * slot] !== 0; slot = (slot + 1) & mask) {
      const home = hash(slots[2 * slot]!) & mask;
      if (((slot - home) & mask) < ((slot - gap) & mask)) continue; // its home is behind the gap: it may not move before it
      slots[2 * gap] = slots[2 * slot]!;
      slots[2 * gap + 1] = slots[2 * slot + 1]!;
      gap = slot;
    }
    slots[2 * gap] = 0;
    slots[2 * gap + 1] = 0;
  }

  /** The identity's slot, or the free one where it would go. */
  #slotOf(identity: number): number {
    let slot = hash(identity) & this.#mask;
    while (this.#slots[2 * slot] !== identity && this.#slots[2 * slot] !== 0) slot = (slot + 1) & this.#mask;
    return slot;
  }

  #rehash(count: number): void {
    const before = this.#slots;
    this.#slots = new Int32Array(2 * count);
    this.#mask = count - 1;
    for (let i = 0; i < before.length; i += 2) {
      if (before[i] === 0) continue;
      const slot = this.#slotOf(before[i]!);
      this.#slots[2 * slot] = before[i]!;
      this.#slots[2 * slot + 1] = before[i + 1]!;
    }
  }
}

/** Entries and octets of one direction. */
export interface TableSizes {
  readonly identities: number;
  readonly classes: number;
  readonly segments: number;
  readonly bytes: number;
}

/** Identities of a cluster are consecutive: a multiplication spreads them, and the high half is the better one. */
function hash(identity: number): number {
  const mixed = Math.imul(identity, 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}

function grown(from: Int32Array<ArrayBuffer>, least: number): Int32Array<ArrayBuffer> {
  const to = new Int32Array(Math.max(least, 2 * from.length));
  to.set(from);
  return to;
}
