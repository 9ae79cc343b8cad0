/**
 * The whole packet path of two members in one process, without the kernel: what a superpacket of the TUN costs until it is one
 * write to the other TUN. `scripts/bench/run datapath [--aead auto|libsodium|libcrypto] [--member-aead aegis128l|aes256gcm]`; on
 * Deno (`BENCH_RUNTIME=deno`) it also says how many octets of heap a
 * segment leaves behind, and fails when that is more than LIMIT_OCTETS: the packet path must not allocate.
 */
import { parseArgs } from "node:util";
import { chooseAead, withTransportAead } from "../../ffi/aead.ts";
import { loadLibcrypto, type TransportAead } from "../../ffi/libcrypto.ts";
import { loadSodium } from "../../ffi/sodium.ts";
import { EGRESS, INGRESS } from "../../src/datapath/counters.ts";
import type { AeadName } from "../../src/ports.ts";
import { LOOP_MSS, makeLoopPair, move, superpacket } from "../../test/fakes/loop_members.ts";

/**
 * Octets of heap per segment that are no allocation of ours. An address is a double on Deno: where V8 does not inline the call to
 * C, it boxes two of them, 16 octets each. One `subarray` per packet would be 52 more.
 */
const LIMIT_OCTETS = 40;
const ROUNDS = 5;

const { values: options } = parseArgs({
  options: { aead: { type: "string", default: "auto" }, "member-aead": { type: "string" } },
});
const memberAead = options["member-aead"] as AeadName | undefined;
const aead = aeadNamed(options.aead);

function aeadNamed(setting: string): TransportAead {
  if (setting === "libcrypto") return loadLibcrypto();
  if (setting === "auto" || setting === "libsodium") return chooseAead(setting).aead;
  throw new RangeError(`Cannot measure "${setting}": expected auto, libsodium or libcrypto`);
}

const collect = (globalThis as { gc?: () => void }).gc;
const pair = makeLoopPair({ ciphers: withTransportAead(loadSodium(), aead), memberAead });
const [a, b] = pair;

console.log(`transport data sealed by ${aead.name}${memberAead === undefined ? "" : ` with ${memberAead}`}`);
let isLeaking = false;
for (const segments of [1, 8, 45]) {
  a.tun.packet = superpacket(segments);
  const rounds = Math.ceil(90_000 / segments);
  move(pair, Math.ceil(rounds / 2)); // warm up, and the handshake
  let bestNs = Infinity;
  let leastOctets = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    const writes = b.tun.writes;
    collect?.();
    const heap = process.memoryUsage().heapUsed;
    const start = performance.now();
    move(pair, rounds);
    bestNs = Math.min(bestNs, ((performance.now() - start) * 1e6) / (rounds * segments));
    leastOctets = Math.min(leastOctets, (process.memoryUsage().heapUsed - heap) / (rounds * segments));
    if (b.tun.writes === writes) throw new Error("nothing arrived");
  }
  const drops = [a, b].map((m) => m.counters.totalDrops(INGRESS) + m.counters.totalDrops(EGRESS));
  if (drops.some((count) => count > 0)) throw new Error(`dropped ${drops}`);
  const heap = collect ? `  ${Math.max(0, leastOctets).toFixed(2)} octets of heap per segment` : "";
  console.log(
    `TUN to TUN, ${String(segments).padStart(2)} segments of ${LOOP_MSS}  ${
      bestNs.toFixed(0).padStart(6)
    } ns per segment${heap}`,
  );
  if (collect && leastOctets > LIMIT_OCTETS) isLeaking = true;
}
if (isLeaking) {
  console.log(`more than ${LIMIT_OCTETS} octets of heap per segment: something on the packet path allocates`);
  process.exitCode = 1;
}
