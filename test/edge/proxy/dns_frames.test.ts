/** Messages in a stream: however it is cut, the same messages come out. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { frameOf, FrameReader, MAX_FRAME_BYTES } from "../../../edge/proxy/dns_frames.ts";

describe("FrameReader", () => {
  it("reads what frameOf writes, however it is cut", () => {
    const messages = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 8 });
    const cuts = fc.array(fc.nat(60), { maxLength: 30 });
    fc.assert(fc.property(messages, cuts, (sent, at) => {
      const stream = Uint8Array.from(sent.flatMap((message) => [...frameOf(message)]));
      const edges = [0, ...at.filter((cut) => cut < stream.length).sort((a, b) => a - b), stream.length];
      const reader = new FrameReader(MAX_FRAME_BYTES);
      const read = edges.slice(1).flatMap((edge, i) => reader.push(stream.subarray(edges[i], edge))!);
      expect(read).toEqual(sent);
    }));
  });

  it("reads the longest message there is", () => {
    const message = new Uint8Array(MAX_FRAME_BYTES).fill(7);
    expect(new FrameReader(MAX_FRAME_BYTES).push(frameOf(message))).toEqual([message]);
  });

  it("gives the stream up at a message that is too long, before its octets come", () => {
    expect(new FrameReader(100).push(Uint8Array.from([0, 101]))).toBeUndefined();
    expect(new FrameReader(100).push(Uint8Array.from([0, 1, 9, 0, 101]))).toBeUndefined();
    expect(new FrameReader(100).push(frameOf(new Uint8Array(100)))?.length).toBe(1);
  });
});
