/**
 * What a call to C costs, in nanoseconds: `bun run scripts/bench/ffi.ts`, `deno run -A scripts/bench/ffi.ts`.
 * On Deno with `--v8-flags=--expose-gc` also the octets that a call leaves on the heap: about 0, or something allocates.
 *
 * Each line is the best of five rounds. Read them side by side from one run on one machine, and no other way.
 */
import { makeBootClock } from "../../ffi/clock.ts";
import { AF_INET, EFD_NONBLOCK, PR_GET_DUMPABLE, SOCK_DGRAM } from "../../ffi/constants.ts";
import { libc } from "../../ffi/libc.ts";
import { allocate } from "../../ffi/memory.ts";
import { Waiter } from "../../ffi/poll.ts";
import { runtime } from "../../ffi/runtime/index.ts";
import { loadSodium, makeArena, randomBytes, sodiumVersion } from "../../ffi/sodium.ts";
import { openUnderlay, receiveBytes } from "../../ffi/udp.ts";
import { parseAddress } from "../../src/ip/address.ts";
import { writeUnderlayAddr } from "../../src/ip/underlay_addr.ts";

const ROUNDS = 5;
const collect = (globalThis as { gc?: () => void }).gc;

/** @param work does `count` calls */
function measure(name: string, count: number, work: (count: number) => void): void {
  work(count >> 2); // let the compilers see it
  let best = Infinity;
  let octets = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    collect?.();
    const before = process.memoryUsage().heapUsed;
    const start = performance.now();
    work(count);
    best = Math.min(best, (performance.now() - start) * 1e6 / count);
    octets = Math.min(octets, Math.max(0, (process.memoryUsage().heapUsed - before) / count));
  }
  const heap = collect && runtime().name === "deno" ? `  ${octets.toFixed(2).padStart(8)} octets of heap` : "";
  console.log(`${name.padEnd(52)} ${best.toFixed(1).padStart(10)} ns${heap}`);
}

const RECEIVE_AT = 1 << 17;
const arena = makeArena(RECEIVE_AT + receiveBytes(8));
const c = libc();
console.log(`${runtime().name}, libsodium ${sodiumVersion()}, ${process.arch}`);

// the empty call: C does nothing but look at a length of 0
const empty = runtime().dlopen("libc.so.6", { memcmp: { args: ["ptr", "ptr", "size"], result: "i32" } }).memcmp;
const base = runtime().pointerOf(arena);
measure("memcmp of nothing (2 addresses, 1 size)", 2_000_000, (count) => {
  for (let i = 0; i < count; i++) empty(base + (i & 1023), base + (i & 511), 0);
});
measure("prctl(PR_GET_DUMPABLE): the least system call", 200_000, (count) => {
  for (let i = 0; i < count; i++) c.prctl(PR_GET_DUMPABLE, 0);
});
const nowMs = makeBootClock();
measure("boot clock", 500_000, (count) => {
  for (let i = 0; i < count; i++) nowMs();
});
const eventFd = c.eventfd(0, EFD_NONBLOCK);
const into = allocate(8);
measure("read that fails, errno included", 200_000, (count) => {
  for (let i = 0; i < count; i++) c.read(eventFd, into.address, 8);
});
const waiter = new Waiter({ tunFd: eventFd, underlayFds: [c.socket(AF_INET, SOCK_DGRAM, 0)] });
measure("poll of three descriptors, none ready", 200_000, (count) => {
  for (let i = 0; i < count; i++) waiter.wait(0);
});

const ciphers = loadSodium();
const packets = ciphers.packetCipher(arena);
const keyOctets = new Uint8Array(32);
randomBytes(keyOctets);
const key = ciphers.makeTransportKey(keyOctets);
for (const bytes of [0, 64, 1420]) {
  measure(`seal ${bytes} octets`, 100_000, (count) => {
    for (let i = 0; i < count; i++) packets.seal(key, i, 64 + (i & 31), 64 + (i & 31) + bytes, 4096);
  });
}
arena.fill(0, 0, 8);
packets.seal(key, 0, 64, 64 + 1420, 64);
const sealed = arena.slice(64, 64 + 1436);
measure("open 1420 octets, copied there first", 100_000, (count) => {
  for (let i = 0; i < count; i++) {
    arena.set(sealed, 64);
    packets.open(key, 0, 64, 64 + 1436);
  }
});

const underlay = openUnderlay({
  port: 0,
  arena,
  receiveAt: RECEIVE_AT,
  slots: 8,
  bufferBytes: 4 << 20,
  segmentation: true,
});
writeUnderlayAddr(arena, 0, { address: parseAddress("127.0.0.1")!, port: underlay.port, scope: 0 });
measure("underlay: nothing to receive, both families", 100_000, (count) => {
  for (let i = 0; i < count; i++) underlay.receive();
});
measure("underlay: a run of 40 x 1400, sent and received", 4000, (count) => {
  for (let i = 0; i < count; i++) {
    underlay.queue(64, 64 + 40 * 1400, 1400, 0, 1);
    underlay.flush();
    while (underlay.receive() > 0);
  }
});
measure("underlay: 8 single datagrams of 64, sent and received", 10_000, (count) => {
  for (let i = 0; i < count; i++) {
    for (let k = 0; k < 8; k++) underlay.queue(64, 128, 64, 0, 0);
    underlay.flush();
    while (underlay.receive() > 0);
  }
});
underlay.close();
waiter.close();
