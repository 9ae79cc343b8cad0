import { describe, expect, it } from "vitest";
import { makeDeviceKeys, x25519PublicKey } from "../../../edge/agent/device_keys.ts";
import { fromHex, toHex } from "../../../src/bytes/text.ts";

describe("x25519PublicKey", () => {
  it("agrees with RFC 7748 §6.1", () => {
    const alice = fromHex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")!;
    expect(toHex(x25519PublicKey(alice))).toBe("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
  });
});

describe("makeDeviceKeys", () => {
  it("makes fresh keys, the WireGuard key as wg genkey writes it", () => {
    const [a, b] = [makeDeviceKeys(), makeDeviceKeys()];
    expect(toHex(a.deviceSeed)).not.toBe(toHex(b.deviceSeed));
    expect(toHex(a.wireguardKey)).not.toBe(toHex(b.wireguardKey));
    expect([a.deviceSeed.length, a.wireguardKey.length]).toEqual([32, 32]);
    expect([a.wireguardKey[0]! & 7, a.wireguardKey[31]! & 0xc0]).toEqual([0, 0x40]);
  });
});
