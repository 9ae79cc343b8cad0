import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as integers from "../../../src/bytes/integers.ts";

const U32 = fc.integer({ min: 0, max: 0xffffffff });
const bytes = () => new Uint8Array(16).fill(0xa5);

describe("integers at an offset", () => {
  it("reads what it wrote, and what a DataView reads, and touches nothing else", () => {
    fc.assert(fc.property(U32, fc.nat(7), (value, at) => {
      const check = (
        width: number,
        write: (bytes: Uint8Array, at: number, value: number) => void,
        read: (bytes: Uint8Array, at: number) => number,
        view: (view: DataView) => number,
        expected: number,
      ) => {
        const target = bytes();
        write(target, at, value);
        expect(read(target, at)).toBe(expected);
        expect(view(new DataView(target.buffer))).toBe(expected);
        expect(target.filter((octet, i) => (i < at || i >= at + width) && octet !== 0xa5)).toHaveLength(0);
      };
      check(1, integers.writeU8, integers.readU8, (v) => v.getUint8(at), value & 0xff);
      check(2, integers.writeU16, integers.readU16, (v) => v.getUint16(at), value & 0xffff);
      check(2, integers.writeU16LE, integers.readU16LE, (v) => v.getUint16(at, true), value & 0xffff);
      check(4, integers.writeU32, integers.readU32, (v) => v.getUint32(at), value);
      check(4, integers.writeU32, integers.readI32, (v) => v.getInt32(at), value | 0);
      check(4, integers.writeU32LE, integers.readU32LE, (v) => v.getUint32(at, true), value);
      check(3, integers.writeU24, integers.readU24, (v) => v.getUint32(at) >>> 8, value & 0xffffff);
    }));
  });

  it("writes numbers up to 2^53 - 1 as 64 bits, little endian", () => {
    fc.assert(fc.property(fc.maxSafeNat(), (value) => {
      const target = bytes();
      integers.writeU53LE(target, 3, value);
      expect(new DataView(target.buffer).getBigUint64(3, true)).toBe(BigInt(value));
    }));
  });

  it("reads zero bits past the end, and loses what is written there", () => {
    const target = Uint8Array.of(1, 2, 3);
    expect(integers.readU32(target, 1)).toBe(0x02030000);
    integers.writeU32(target, 2, 0x0a0b0c0d);
    expect([...target]).toEqual([1, 2, 10]);
  });
});
