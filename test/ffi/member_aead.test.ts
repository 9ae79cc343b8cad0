import { describe, expect, it } from "vitest";
import { findMemberAeads, type MemberAeadDoors } from "../../ffi/member_aead.ts";
import { hasAesInstructions, loadSodium, sealOnce } from "../../ffi/sodium.ts";
import type { AeadName, Ciphers, TransportKey } from "../../src/ports.ts";
import { noFfi, runtimeName } from "./harness.ts";

/** Ciphers that only take time, by a clock that only packets move: milliseconds per packet and AEAD. */
function timed(milliseconds: Partial<Record<AeadName, number>>): { ciphers: Ciphers; doors: MemberAeadDoors } {
  let nowMs = 0;
  const spend = (key: TransportKey) => void (nowMs += milliseconds[key.aead] ?? 1);
  const ciphers = {
    makeTransportKey: (_key: Uint8Array, aead: AeadName = "chacha20poly1305") => ({
      aead,
      tagBytes: 16,
      wipe: () => undefined,
    }),
    packetCipher: () => ({
      seal: spend,
      open: (key: TransportKey) => {
        spend(key);
        return true;
      },
    }),
  } as unknown as Ciphers;
  return { ciphers, doors: { hasAesInstructions: () => true, sealOnce, nowMs: () => nowMs } };
}

describe.skipIf(noFfi)(`what members may be offered, on ${runtimeName}${noFfi}`, () => {
  it.skipIf(!noFfi && !hasAesInstructions())("is AEGIS-128L and AES-256-GCM on a CPU with AES instructions", () => {
    const found = findMemberAeads("auto", loadSodium());
    expect(found.aeads.every((aead) => ["aegis128l", "aes256gcm"].includes(aead))).toBe(true);
    expect(found.text).toMatch(/aegis128l .*aes256gcm /);
  });

  it("is the best first, with how much faster it is than what seals for everybody", () => {
    const { ciphers, doors } = timed({ chacha20poly1305: 7, aegis128l: 1, aes256gcm: 2 });
    expect(findMemberAeads("auto", ciphers, doors)).toEqual({
      aeads: ["aegis128l", "aes256gcm"],
      text: "aegis128l 7.0x chacha20poly1305, aes256gcm 3.5x chacha20poly1305",
    });
    expect(findMemberAeads("aes256gcm", ciphers, doors)).toEqual({
      aeads: ["aes256gcm"],
      text: "aes256gcm 3.5x chacha20poly1305",
    });
  });

  it("is not what is hardly faster", () => {
    const { ciphers, doors } = timed({ chacha20poly1305: 6, aegis128l: 3, aes256gcm: 5 });
    expect(findMemberAeads("auto", ciphers, doors)).toEqual({
      aeads: ["aegis128l"],
      text: "aegis128l 2.0x chacha20poly1305, aes256gcm is only 1.2x chacha20poly1305",
    });
    expect(findMemberAeads("aes256gcm", ciphers, doors)).toEqual({
      aeads: [],
      text: "off (aes256gcm is only 1.2x chacha20poly1305)",
    });
  });

  it("is nothing where it is forbidden, or where the CPU has no AES instructions: nothing is measured then", () => {
    const doors: MemberAeadDoors = {
      hasAesInstructions: () => false,
      sealOnce: () => expect.unreachable(),
      nowMs: () => expect.unreachable(),
    };
    const none = {} as Ciphers;
    expect(findMemberAeads("off", none, doors)).toEqual({ aeads: [], text: "off (as set)" });
    expect(findMemberAeads("auto", none, doors)).toEqual({
      aeads: [],
      text: "off (the CPU has no AES instructions)",
    });
  });

  it("is not what gives another answer than the standard's, or fails", () => {
    const { ciphers, doors } = timed({ chacha20poly1305: 7 });
    const wrong: MemberAeadDoors = {
      ...doors,
      sealOnce: (aead, ...rest) => {
        if (aead === "aes256gcm") throw new Error("out of luck");
        const sealed = sealOnce(aead, ...rest);
        sealed[3] = sealed[3]! ^ 1;
        return sealed;
      },
    };
    expect(findMemberAeads("auto", ciphers, wrong)).toEqual({
      aeads: [],
      text: "off (aegis128l failed its self-test, aes256gcm failed its self-test: out of luck)",
    });
  });

  it("is not what does not open again, nor what a clock that stands still cannot tell", () => {
    const { ciphers, doors } = timed({});
    const deaf = {
      ...ciphers,
      packetCipher: () => ({ seal: () => undefined, open: () => false }),
    } as unknown as Ciphers;
    expect(findMemberAeads("aegis128l", deaf, doors).text).toBe(
      "off (aegis128l failed its self-test: it does not open)",
    );
    expect(findMemberAeads("aegis128l", ciphers, { ...doors, nowMs: () => 5 })).toEqual({
      aeads: [],
      text: "off (aegis128l is only 0.0x chacha20poly1305)",
    });
  });
});
