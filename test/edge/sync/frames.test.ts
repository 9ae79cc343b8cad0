import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeFrame, FrameReader } from "../../../edge/sync/frames.ts";
import { decodeMsgpack, encodeMsgpack, isPlainMsgpack } from "../../../edge/sync/msgpack.ts";

const plain = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    fc.integer(),
    fc.double({ noNaN: true }),
    fc.string(),
    fc.boolean(),
    fc.constant(null),
    fc.uint8Array(),
    fc.array(tie("value")),
    fc.dictionary(fc.string().filter((key) => key !== "__proto__"), tie("value")),
  ),
})).value;

function readAll(
  chunks: readonly Uint8Array[],
  maxBytes = 1 << 20,
): { messages: unknown[]; fault: string | undefined } {
  const messages: unknown[] = [];
  const reader = new FrameReader(maxBytes, (message) => messages.push(message));
  let fault: string | undefined;
  for (const chunk of chunks) fault ??= reader.push(chunk);
  return { messages, fault };
}

function split(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  return [...places, bytes.length].map((end, i) => bytes.slice(places[i - 1] ?? 0, end));
}

describe("FrameReader", () => {
  it("gives back every message, wherever the stream was cut", () => {
    fc.assert(fc.property(fc.array(plain.filter((v) => v !== null)), fc.array(fc.nat()), (sent, cuts) => {
      const frames = sent.map(encodeFrame);
      const stream = new Uint8Array(Buffer.concat(frames));
      const { messages, fault } = readAll(split(stream, cuts));
      expect(fault).toBeUndefined();
      expect(messages.map(encodeMsgpack)).toEqual(sent.map(encodeMsgpack));
    }));
  });

  it("refuses a length above its limit before any of the body came", () => {
    expect(readAll([new Uint8Array([0xff, 0xff, 0xff, 0xff])]).fault).toBe("frame-too-long");
    expect(readAll([new Uint8Array([0, 0, 0, 9])], 8).fault).toBe("frame-too-long");
  });

  it("refuses an empty frame and one that is no value", () => {
    expect(readAll([new Uint8Array(4)]).fault).toBe("frame-empty");
    expect(readAll([new Uint8Array([0, 0, 0, 1, 0xc1])]).fault).toBe("frame-malformed");
    expect(readAll([new Uint8Array([0, 0, 0, 2, 1, 2])]).fault).toBe("frame-malformed");
  });

  it("takes any octets without throwing, and nothing after a fault", () => {
    fc.assert(fc.property(fc.array(fc.uint8Array({ maxLength: 64 })), (chunks) => {
      const messages: unknown[] = [];
      const reader = new FrameReader(64, (message) => messages.push(message));
      let faults = 0;
      for (const chunk of chunks) {
        const before = messages.length;
        const hadFault = faults > 0;
        if (reader.push(chunk) !== undefined) faults++;
        if (hadFault) expect(messages.length).toBe(before);
      }
      expect(faults).toBeLessThanOrEqual(1);
    }));
  });

  it("stops inside a chunk when it is told to", () => {
    const seen: unknown[] = [];
    const reader: FrameReader = new FrameReader(64, (message) => {
      seen.push(message);
      reader.stop();
    });
    expect(reader.push(new Uint8Array([...encodeFrame(1), ...encodeFrame(2)]))).toBeUndefined();
    expect(seen).toEqual([1]);
  });

  it("keeps octet strings when the chunk they came in is reused", () => {
    const chunk = encodeFrame({ key: new Uint8Array([1, 2, 3]) });
    const { messages } = readAll([chunk]);
    chunk.fill(0xee);
    expect([...(messages[0] as { key: Uint8Array }).key]).toEqual([1, 2, 3]);
  });
});

describe("decodeMsgpack", () => {
  it("never throws, and reads only what isPlainMsgpack lets through", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const value = decodeMsgpack(bytes);
        if (!isPlainMsgpack(bytes)) expect(value).toBeUndefined();
      }),
      { numRuns: 2000 },
    );
  });

  it.each([
    ["an array of 4294967295 elements", [0xdd, 0xff, 0xff, 0xff, 0xff]],
    ["a map of 4294967295 pairs", [0xdf, 0xff, 0xff, 0xff, 0xff]],
    ["a text of 4294967295 octets", [0xdb, 0xff, 0xff, 0xff, 0xff, 0x41]],
    ["an extension", [0xd4, 0x00, 0x00]],
    ["a timestamp", [0xd6, 0xff, 0, 0, 0, 0]],
    ["a map with a number for a key", [0x81, 0x01, 0x01]],
    ["a map without its last value", [0x81, 0xa1, 0x61]],
    ["two values", [0x01, 0x01]],
    ["nothing", []],
    ["100 nested arrays", [...new Array(100).fill(0x91), 0x01]],
  ])("refuses %s", (_name, bytes) => {
    expect(decodeMsgpack(new Uint8Array(bytes))).toBeUndefined();
  });

  it("takes what encodeMsgpack writes", () => {
    fc.assert(fc.property(plain, (value) => {
      expect(isPlainMsgpack(encodeMsgpack(value))).toBe(true);
    }));
    expect(decodeMsgpack(encodeMsgpack({ a: undefined }))).toEqual({ a: null });
    expect(decodeMsgpack(encodeMsgpack(1_764_000_000_000))).toBe(1_764_000_000_000);
  });
});
