/**
 * MessagePack of plain data: null, booleans, numbers, text, octet strings, arrays and maps with text keys. msgpackr does the work;
 * in front of it stands a reader of our own that walks the bytes without building anything, because a header of five octets may
 * claim four thousand million elements, and extensions may ask for objects that nobody wants from a network.
 */
import { Packr, Unpackr } from "msgpackr";

/** How deep arrays and maps may nest. A Kubernetes object has about 10. */
const MAX_DEPTH = 32;

const packr = new Packr({ useRecords: false, encodeUndefinedAsNil: true, variableMapSize: true });
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: "number" });

/** The bytes of plain data, the caller's own. `undefined` is written as null. */
export function encodeMsgpack(value: unknown): Uint8Array {
  // msgpackr hands out a part of a shared buffer.
  return new Uint8Array(packr.pack(value));
}

/**
 * Reads exactly one value of plain data. `undefined` for anything else: cut short, octets left over, an extension, too deep, a map
 * whose key is not text. Octet strings in the answer are parts of `bytes`: they must not be changed afterwards.
 */
export function decodeMsgpack(bytes: Uint8Array): unknown {
  if (!isPlainMsgpack(bytes)) return undefined;
  try {
    return unpackr.unpack(bytes);
  } catch {
    return undefined;
  }
}

// What stands at each first octet: how many octets the length or value takes.
const TEXT = 1, OCTETS = 2, ARRAY = 3, MAP = 4, SCALAR = 5, NEVER = 0;

/** Whether the bytes are exactly one value of plain data. Allocates nothing that depends on what they claim. */
export function isPlainMsgpack(bytes: Uint8Array): boolean {
  // values still to come at each depth; at a map the keys count too, and `isMap` tells whose turn it is
  const left = new Float64Array(MAX_DEPTH + 1);
  const isMap = new Uint8Array(MAX_DEPTH + 1);
  const end = bytes.length;
  let depth = 0;
  let at = 0;
  left[0] = 1;
  for (;;) {
    while (left[depth] === 0) {
      if (depth === 0) return at === end;
      depth--;
    }
    if (at >= end) return false;
    const isKey = isMap[depth] === 1 && left[depth]! % 2 === 0;
    left[depth]!--;
    const first = bytes[at++]!;
    const kind = kindOf(first);
    if (kind === NEVER || (isKey && kind !== TEXT)) return false;
    const sizeBytes = sizeBytesOf(first);
    if (at + sizeBytes > end) return false;
    if (kind === SCALAR) {
      at += sizeBytes;
      continue;
    }
    const count = sizeBytes === 0 ? inlineCount(first) : readCount(bytes, at, sizeBytes);
    at += sizeBytes;
    if (count > end - at) return false; // every element takes an octet at least
    if (kind === TEXT || kind === OCTETS) {
      at += count;
      continue;
    }
    if (depth === MAX_DEPTH) return false;
    depth++;
    left[depth] = kind === MAP ? 2 * count : count;
    isMap[depth] = kind === MAP ? 1 : 0;
  }
}

function kindOf(first: number): number {
  if (first <= 0x7f || first >= 0xe0) return SCALAR;
  if (first <= 0x8f) return MAP;
  if (first <= 0x9f) return ARRAY;
  if (first <= 0xbf) return TEXT;
  if (first === 0xc0 || first === 0xc2 || first === 0xc3) return SCALAR;
  if (first >= 0xc4 && first <= 0xc6) return OCTETS;
  if (first >= 0xca && first <= 0xd3) return SCALAR;
  if (first >= 0xd9 && first <= 0xdb) return TEXT;
  if (first === 0xdc || first === 0xdd) return ARRAY;
  if (first === 0xde || first === 0xdf) return MAP;
  return NEVER; // 0xc1 and the extensions
}

/** Octets of the length that follows, or of the value for a scalar. */
function sizeBytesOf(first: number): number {
  switch (first) {
    case 0xcc:
    case 0xd0:
    case 0xc4:
    case 0xd9:
      return 1;
    case 0xcd:
    case 0xd1:
    case 0xc5:
    case 0xda:
    case 0xdc:
    case 0xde:
      return 2;
    case 0xca:
    case 0xce:
    case 0xd2:
    case 0xc6:
    case 0xdb:
    case 0xdd:
    case 0xdf:
      return 4;
    case 0xcb:
    case 0xcf:
    case 0xd3:
      return 8;
    default:
      return 0;
  }
}

function inlineCount(first: number): number {
  return first >= 0xa0 ? first & 0x1f : first & 0x0f;
}

function readCount(bytes: Uint8Array, at: number, sizeBytes: number): number {
  let count = 0;
  for (let i = 0; i < sizeBytes; i++) count = count * 256 + bytes[at + i]!;
  return count;
}
