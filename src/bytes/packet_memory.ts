/**
 * Memory for packets that vector instructions can work on: the two loops of the packet path that JavaScript has no fast way to
 * write, the Internet checksum's sum (RFC 1071) and comparing headers. A WebAssembly module of some 300 octets, put together here
 * from the instructions below, reads the packets where they are: so their arena has to be the memory of that module.
 *
 * (Sum of 1408 octets, AMD EPYC: 24 ns on Bun and 25 on Deno, where the lanes of `checksum.ts` take 98 and 104. Bench:
 * `scripts/bench/micro.ts`, stages "checksum" and "merge".)
 *
 * @see WebAssembly Core Specification 2.0, §5 (binary format); the opcodes' names are those of its text format
 */

/** Functions over the octets of one packet memory. Offsets count from the start of its buffer; ranges must be inside. */
export interface VectorCode {
  /** Folded sum of `[at, end)` as 16-bit big-endian words, as if `at` were even; an odd last octet is padded. 128 KiB at most. */
  sum(at: number, end: number): number;
  /**
   * Whether as many octets from `a` and from `b` on are the same, of each of them the bits that are set in the mask.
   * @param octets a multiple of 16, at least 16
   * @returns 1 or 0
   */
  isSame(a: number, b: number, mask: number, octets: number): number;
}

const PAGE_BYTES = 65_536;
const memories = new WeakMap<ArrayBufferLike, WebAssembly.Memory>();
const codes = new WeakMap<WebAssembly.Memory, VectorCode | undefined>();

/**
 * Makes zeroed octets that `vectorCodeOf` knows, given by the system page by page as they are touched. Where there can be no such
 * memory (no WebAssembly, no address space for it), octets as usual.
 *
 * @param bytes    1 to 2^31 - 8; rounded up to a multiple of 8
 * @param isShared for several threads; the others have the octets, but not the code
 */
export function makePacketMemory(bytes: number, isShared: boolean = false): Uint8Array {
  if (!Number.isInteger(bytes) || bytes <= 0 || bytes > 0x7fff_fff8) {
    throw new RangeError(`Cannot make an arena of ${bytes} octets: not between 1 and 2^31 - 8`);
  }
  const length = (bytes + 7) & ~7;
  try {
    const pages = Math.ceil(length / PAGE_BYTES);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: isShared });
    memories.set(memory.buffer, memory);
    return new Uint8Array(memory.buffer, 0, length);
  } catch {
    return new Uint8Array(isShared ? new SharedArrayBuffer(length) : new ArrayBuffer(length));
  }
}

/** The code for octets of `makePacketMemory`, made when first asked for; undefined for any other octets, and without an engine for it. */
export function vectorCodeOf(buffer: ArrayBufferLike): VectorCode | undefined {
  const memory = memories.get(buffer);
  if (memory === undefined) return undefined;
  if (!codes.has(memory)) codes.set(memory, instantiate(memory));
  return codes.get(memory);
}

function instantiate(memory: WebAssembly.Memory): VectorCode | undefined {
  try {
    const isShared = !(memory.buffer instanceof ArrayBuffer);
    const module = new WebAssembly.Module(moduleBytes(memory.buffer.byteLength / PAGE_BYTES, isShared));
    return new WebAssembly.Instance(module, { host: { memory } }).exports as unknown as VectorCode;
  } catch {
    return undefined;
  }
}

type Code = readonly number[];

// instructions (binary format §5.4)
const BLOCK = 0x02;
const LOOP = 0x03;
const IF = 0x04;
const END = 0x0b;
const BR = 0x0c;
const BR_IF = 0x0d;
const NO_RESULT = 0x40;
const I32_CONST = 0x41;
const I32_EQZ = 0x45;
const I32_GT_U = 0x4b;
const I32_ADD = 0x6a;
const I32_SUB = 0x6b;
const I32_AND = 0x71;
const I32_OR = 0x72;
const I32_SHL = 0x74;
const I32_SHR_U = 0x76;
const I32_LOAD8_U: Code = [0x2d, 0, 0];
const I32_LOAD16_U: Code = [0x2f, 0, 0];
const VECTOR = 0xfd;
const V128_AND: Code = [VECTOR, 0x4e];
const V128_OR: Code = [VECTOR, 0x50];
const V128_XOR: Code = [VECTOR, 0x51];
const V128_ANY_TRUE: Code = [VECTOR, 0x53];
const I32X4_EXTADD_PAIRWISE_I16X8_U: Code = [VECTOR, 0x7f];
const I32X4_ADD: Code = [VECTOR, 0xae, 0x01];
const I32X4_EXTRACT_LANE: Code = [VECTOR, 0x1b];

// value types
const I32 = 0x7f;
const V128 = 0x7b;

// parameters and locals of the sum
const AT = 0;
const END_AT = 1;
const TOTAL = 2;
const EVEN = 3;
const ODD = 4;

const get = (local: number): Code => [0x20, local];
const set = (local: number): Code => [0x21, local];
const tee = (local: number): Code => [0x22, local];
const constant = (value: number): Code => [I32_CONST, ...signed(value)];
const vectorLoad = (offset: number): Code => [VECTOR, 0x00, 0, ...unsigned(offset)];
const advance = (bytes: number): Code => [...get(AT), ...constant(bytes), I32_ADD, ...set(AT)];

/** `accumulator += ` the eight words at `AT + offset`, in the CPU's order, two to a lane */
const addWords = (accumulator: number, offset: number): Code => [
  ...[...get(AT), ...vectorLoad(offset), ...I32X4_EXTADD_PAIRWISE_I16X8_U],
  ...[...get(accumulator), ...I32X4_ADD, ...set(accumulator)],
];

/** Runs `body` as long as `bytes` octets are left. It has to advance. */
const whileLeft = (bytes: number, body: Code): Code => [
  ...[BLOCK, NO_RESULT, LOOP, NO_RESULT],
  ...[...constant(bytes), ...get(END_AT), ...get(AT), I32_SUB, I32_GT_U, BR_IF, 1],
  ...[...body, BR, 0, END, END],
];

const addLane = (lane: number): Code => [...get(EVEN), ...I32X4_EXTRACT_LANE, lane, I32_ADD];

/** `TOTAL = (TOTAL & 0xffff) + (TOTAL >>> 16)` */
const foldOnce: Code = [
  ...[...get(TOTAL), ...constant(0xffff), I32_AND],
  ...[...get(TOTAL), ...constant(16), I32_SHR_U, I32_ADD, ...set(TOTAL)],
];

/** Two accumulators take turns, so that additions need not wait for each other. */
const SUM: Code = [
  ...[2, 1, I32, 2, V128], // locals: TOTAL; EVEN and ODD
  ...whileLeft(64, [
    ...[...addWords(EVEN, 0), ...addWords(ODD, 16), ...addWords(EVEN, 32), ...addWords(ODD, 48)],
    ...advance(64),
  ]),
  ...whileLeft(16, [...addWords(EVEN, 0), ...advance(16)]),
  ...[...get(EVEN), ...get(ODD), ...I32X4_ADD, ...set(EVEN)],
  ...whileLeft(2, [...get(TOTAL), ...get(AT), ...I32_LOAD16_U, I32_ADD, ...set(TOTAL), ...advance(2)]),
  // an odd octet is the first of its word: the low half, as WebAssembly is little endian
  ...[...get(END_AT), ...get(AT), I32_SUB, IF, NO_RESULT],
  ...[...get(TOTAL), ...get(AT), ...I32_LOAD8_U, I32_ADD, ...set(TOTAL), END],
  // a lane holds up to 2^30 of 128 KiB: folded one after another
  ...[...get(TOTAL), ...addLane(0), ...set(TOTAL), ...foldOnce, ...get(TOTAL), ...addLane(1), ...set(TOTAL)],
  ...[...foldOnce, ...get(TOTAL), ...addLane(2), ...set(TOTAL), ...foldOnce, ...get(TOTAL), ...addLane(3)],
  ...[...set(TOTAL), ...foldOnce, ...foldOnce],
  // network order
  ...[...get(TOTAL), ...constant(8), I32_SHL, ...constant(0xff00), I32_AND],
  ...[...get(TOTAL), ...constant(8), I32_SHR_U, I32_OR, END],
];

// parameters and local of the comparison
const A = 0;
const B = 1;
const MASK = 2;
const LEFT = 3;
const DIFFERENCE = 4;

const loadAt = (local: number): Code => [...get(local), ...vectorLoad(0)];
const move = (local: number, by: number): Code => [...get(local), ...constant(by), I32_ADD, ...set(local)];

const IS_SAME: Code = [
  ...[1, 1, V128], // local: DIFFERENCE
  ...[LOOP, NO_RESULT],
  ...[...get(DIFFERENCE), ...loadAt(A), ...loadAt(B), ...V128_XOR, ...loadAt(MASK), ...V128_AND, ...V128_OR],
  ...[...set(DIFFERENCE), ...move(A, 16), ...move(B, 16), ...move(MASK, 16)],
  ...[...get(LEFT), ...constant(16), I32_SUB, ...tee(LEFT), BR_IF, 0, END],
  ...[...get(DIFFERENCE), ...V128_ANY_TRUE, I32_EQZ, END],
];

/** The module: two types, the imported memory, two functions, their exports. @param pages of the memory, which never grows */
function moduleBytes(pages: number, isShared: boolean): Uint8Array<ArrayBuffer> {
  const limits: Code = [isShared ? 3 : 1, ...unsigned(pages), ...unsigned(pages)];
  return Uint8Array.from([
    ...[0, ...ascii("asm"), 1, 0, 0, 0],
    ...section(1, [2, ...[0x60, 2, I32, I32, 1, I32], ...[0x60, 4, I32, I32, I32, I32, 1, I32]]),
    ...section(2, [1, ...name("host"), ...name("memory"), 2, ...limits]),
    ...section(3, [2, 0, 1]),
    ...section(7, [2, ...name("sum"), 0, 0, ...name("isSame"), 0, 1]),
    ...section(10, [2, ...unsigned(SUM.length), ...SUM, ...unsigned(IS_SAME.length), ...IS_SAME]),
  ]);
}

function section(id: number, content: Code): Code {
  return [id, ...unsigned(content.length), ...content];
}

function name(text: string): Code {
  return [text.length, ...ascii(text)];
}

function ascii(text: string): Code {
  return [...text].map((letter) => letter.charCodeAt(0));
}

/** LEB128 of an unsigned number below 2^32. */
function unsigned(value: number): Code {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)];
}

/** LEB128 of a number from 0 to 2^31 - 1 as a signed one: the highest bit that is written must be 0. */
function signed(value: number): Code {
  return value < 0x40 ? [value] : [(value & 0x7f) | 0x80, ...signed(value >>> 7)];
}
