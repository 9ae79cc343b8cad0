import { beforeAll, describe, expect, it } from "vitest";
import { loadSodiumWasm } from "../../edge/ciphers_wasm.ts";
import { type AeadDoors, chooseAead, describeAead, findFault, withTransportAead } from "../../ffi/aead.ts";
import type { TransportAead } from "../../ffi/libcrypto.ts";
import { makeArena } from "../../ffi/memory.ts";
import type { Ciphers, PacketCipher, TransportKey } from "../../src/ports.ts";
import { noFfi, runtimeName } from "./harness.ts";

let real: Ciphers;
beforeAll(async () => {
  real = await loadSodiumWasm();
});

/** What a fake library does with a packet, after the real one did it right. */
interface Faults {
  readonly sealed?: (arena: Uint8Array, at: number, end: number, to: number) => void;
  readonly opened?: (isGood: boolean, arena: Uint8Array, at: number, end: number) => boolean;
}

/** Milliseconds that each packet takes by a clock that only packets move. */
class Clock {
  nowMs = 0;
}

function timed(
  clock: Clock,
  packetMs: number,
  faults: Faults = {},
): Pick<Ciphers, "makeTransportKey" | "packetCipher"> {
  return {
    makeTransportKey: (key) => real.makeTransportKey(key),
    packetCipher(arena): PacketCipher {
      const cipher = real.packetCipher(arena);
      return {
        seal(key: TransportKey, counter: number, at: number, end: number, to: number): void {
          clock.nowMs += packetMs;
          cipher.seal(key, counter, at, end, to);
          faults.sealed?.(arena, at, end, to);
        },
        open(key: TransportKey, counterAt: number, at: number, end: number): boolean {
          clock.nowMs += packetMs;
          const isGood = cipher.open(key, counterAt, at, end);
          return faults.opened ? faults.opened(isGood, arena, at, end) : isGood;
        },
      };
    },
  };
}

function timedReal(): TransportAead {
  return { name: "real", ...timed(new Clock(), 0) };
}

function libcryptoOf(clock: Clock, packetMs: number, faults?: Faults): TransportAead {
  return { name: "libcrypto 3.9.9", ...timed(clock, packetMs, faults) };
}

function doorsOf(clock: Clock, loadLibcrypto: () => TransportAead): AeadDoors {
  const slow = timed(clock, 3);
  const libsodium = withTransportAead(real, { name: "", ...slow });
  return { libsodium, libsodiumName: "libsodium 1.2.3", loadLibcrypto, nowMs: () => clock.nowMs, warmUpPackets: 10 };
}

describe.skipIf(noFfi)(`the choice of AEAD on ${runtimeName}${noFfi}`, () => {
  it("auto takes libcrypto when it is faster by a tenth or more, and says by how much", () => {
    for (const [packetMs, text] of [[2, "1.50"], [3 / 1.11, "1.11"]] as const) {
      const clock = new Clock();
      const libcrypto = libcryptoOf(clock, packetMs);
      const chosen = chooseAead("auto", doorsOf(clock, () => libcrypto));
      expect(chosen.aead).toBe(libcrypto);
      expect(describeAead(chosen)).toBe(`libcrypto 3.9.9 (${text}x libsodium 1.2.3)`);
    }
  });

  it.each([[3 / 1.099, "1.09"], [3, "1.00"], [6, "0.50"]])(
    "auto stays with libsodium when libcrypto takes %d ms where libsodium takes 3",
    (packetMs, text) => {
      const clock = new Clock();
      const chosen = chooseAead("auto", doorsOf(clock, () => libcryptoOf(clock, packetMs)));
      expect(describeAead(chosen)).toBe(`libsodium 1.2.3 (libcrypto 3.9.9 is only ${text}x)`);
    },
  );

  it("a pause of the machine in some rounds does not turn the choice", () => {
    const clock = new Clock();
    let packets = 0;
    const libcrypto = libcryptoOf(clock, 2, {
      sealed: () => {
        if (++packets % 50 === 0) clock.nowMs += 500;
      },
    });
    expect(describeAead(chooseAead("auto", doorsOf(clock, () => libcrypto)))).toContain("1.50x");
  });

  it("a clock that stands still keeps libsodium", () => {
    const doors = doorsOf(new Clock(), () => libcryptoOf(new Clock(), 1));
    const chosen = chooseAead("auto", { ...doors, nowMs: () => 5 });
    expect(describeAead(chosen)).toBe("libsodium 1.2.3 (libcrypto 3.9.9 is only 1.00x)");
  });

  it("what keeps libcrypto from loading becomes the reason", () => {
    const doors = doorsOf(new Clock(), () => {
      throw new Error("libcrypto.so.3 not found");
    });
    expect(describeAead(chooseAead("auto", doors))).toBe("libsodium 1.2.3 (libcrypto.so.3 not found)");
  });

  it("libcrypto that throws in its self-test is not taken", () => {
    const clock = new Clock();
    const libcrypto = libcryptoOf(clock, 1, {
      sealed: () => {
        throw new Error("Cannot seal: libcrypto refuses");
      },
    });
    expect(describeAead(chooseAead("auto", doorsOf(clock, () => libcrypto)))).toBe(
      "libsodium 1.2.3 (Cannot seal: libcrypto refuses)",
    );
  });

  it("libsodium as set does not even load libcrypto", () => {
    const doors = doorsOf(new Clock(), () => {
      throw new Error("must not be asked for");
    });
    expect(describeAead(chooseAead("libsodium", doors))).toBe("libsodium 1.2.3 (as set)");
  });

  const faults: Readonly<Record<string, readonly [Faults, string]>> = {
    "another key stream": [{ sealed: (arena, _at, _end, to) => void arena[to]!++ }, "not the key stream of RFC 8439"],
    "a wrong tag for 15 octets": [
      { sealed: (arena, at, end, to) => void (arena[to + end - at + 15]! += end - at === 15 ? 1 : 0) },
      "15 octets in place are sealed differently",
    ],
    "an octet too many to another place": [
      { sealed: (arena, at, end, to) => void (arena[to + end - at + 16]! += to === at ? 0 : 1) },
      "0 octets to another place are sealed differently",
    ],
    "a source that is overwritten": [
      { sealed: (arena, at, end, to) => void (arena[at]! += to !== at && end > at ? 1 : 0) },
      "1 octets to another place are sealed differently",
    ],
    "long messages that end early": [
      { sealed: (arena, at, end, to) => void (arena[to + 65534]! += end - at === 65535 ? 1 : 0) },
      "65535 octets in place are sealed differently",
    ],
    "tags that are not looked at": [{ opened: () => true }, "0 octets in place open although damaged"],
    "nothing that opens": [{ opened: () => false }, "0 octets in place do not open"],
    "plaintext that is wrong": [
      { opened: (isGood, arena, at, end) => (end - at > 16 && isGood && arena[at]!++, isGood) },
      "1 octets in place are opened differently",
    ],
  };

  for (const [name, [fault, text]] of Object.entries(faults)) {
    it(`the self-test finds ${name}`, () => {
      const clock = new Clock();
      const chosen = chooseAead("auto", doorsOf(clock, () => libcryptoOf(clock, 1, fault)));
      expect(describeAead(chosen)).toBe(`libsodium 1.2.3 (libcrypto 3.9.9 failed its self-test: ${text})`);
    });
  }

  it("the self-test finds a counter that is cut to 32 bits", () => {
    const cut: TransportAead = {
      name: "cut",
      makeTransportKey: (key) => real.makeTransportKey(key),
      packetCipher(arena) {
        const cipher = real.packetCipher(arena);
        return {
          seal: (key, counter, at, end, to) => cipher.seal(key, counter >>> 0, at, end, to),
          open: (key, counterAt, at, end) => cipher.open(key, counterAt, at, end),
        };
      },
    };
    expect(findFault(cut, timedReal())).toBe("1 octets in place are sealed differently");
  });

  it("the self-test has nothing to say about libsodium itself", () => {
    expect(findFault(timedReal(), timedReal())).toBeUndefined();
  });

  it("the host's libraries give a choice that seals and opens", () => {
    const chosen = chooseAead("auto");
    expect(describeAead(chosen)).toMatch(/^lib(sodium|crypto) \d+\.\d+\.\d+\S* \(.+\)$/);
    const arena = makeArena(256);
    const ciphers = withTransportAead(real, chosen.aead);
    const cipher = ciphers.packetCipher(arena);
    const key = ciphers.makeTransportKey(new Uint8Array(32).fill(9));
    cipher.seal(key, 0, 16, 100, 16);
    expect(arena.slice(16, 116)).toEqual(
      real.seal(new Uint8Array(32).fill(9), new Uint8Array(12), new Uint8Array(84), new Uint8Array()),
    );
    expect(cipher.open(key, 0, 16, 116)).toBe(true);
    key.wipe();
  });
});
