import { describe, expect, it } from "vitest";
import fc from "fast-check";
import { readMessageType, writeTransportHeader } from "../../../src/wire/wg_message.ts";
import { toHex } from "../../../src/bytes/text.ts";
import { transcript } from "../../fakes/wireguard_vectors.ts";

const GENUINE = [
  ["msg1_initiation", 1],
  ["msg1_with_mac2", 1],
  ["msg2_response", 2],
  ["msg3_cookie_reply", 3],
  ["msg4_keepalive_i_ctr0", 4],
  ["msg4_data_i_ctr1", 4],
] as const;

describe("readMessageType", () => {
  it.each(GENUINE)("knows %s", (name, type) => {
    const message = transcript(name);
    expect(readMessageType(message, 0, message.length)).toBe(type);
    const inside = new Uint8Array(message.length + 9);
    inside.set(message, 5);
    expect(readMessageType(inside, 5, 5 + message.length)).toBe(type);
  });

  it.each([[1, [147, 149]], [2, [91, 93]], [3, [63, 65]], [4, [31, 16, 0]]])(
    "refuses type %i of any other length",
    (type, lengths) => {
      for (const length of lengths) {
        const message = new Uint8Array(256);
        message[0] = type;
        expect(readMessageType(message, 0, length)).toBe(0);
      }
    },
  );

  it("refuses a type octet with a reserved octet that is not zero", () => {
    for (const [name] of GENUINE) {
      for (let at = 1; at < 4; at++) {
        const message = transcript(name);
        message[at] = 1;
        expect(readMessageType(message, 0, message.length)).toBe(0);
      }
    }
  });

  it("answers 0 to 4 to anything, and never reads outside", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      expect([0, 1, 2, 3, 4]).toContain(readMessageType(bytes, 0, bytes.length));
    }));
  });
});

describe("writeTransportHeader", () => {
  it("writes type, receiver and a counter of 53 bits, little endian", () => {
    const bytes = new Uint8Array(18).fill(0xee);
    writeTransportHeader(bytes, 1, 0xfedc_ba98, 2 ** 53 - 1);
    expect(toHex(bytes)).toBe("ee" + "04000000" + "98badcfe" + "ffffffffffff1f00" + "ee");
  });
});
