/**
 * The rounds of `scripts/bench/throughput`. Both ends of a tunnel run on this machine and share its cores, so the numbers are
 * for comparing what was measured in one run, not for quoting.
 */
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Lab, pause, type Running, until } from "../lab/lab.ts";
import { type End, makeEnd, reaches, startFromMesh } from "../lab/peers.ts";
import { cpuSecondsOf, type Form, FORMS, memoryOf } from "../lab/program.ts";

interface Round {
  readonly gigabitsPerSecond: number;
  readonly cpuSecondsPerGigabyte: number;
  readonly memory: { readonly idle: Memory; readonly load: Memory };
}
type Memory = { readonly residentBytes: number; readonly anonymousBytes: number };
interface Pair {
  /** address of b inside the tunnel */
  readonly target: string;
  readonly programs: readonly Running[];
}

const IDLE_MS = 3_000;
const SAMPLE_MS = 200;
const MEGABYTE = 1 << 20;

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "5" },
    form: { type: "string", default: "binary" },
    "min-ratio": { type: "string" },
    aead: { type: "string", default: "auto" },
    "member-aead": { type: "string", default: "aegis128l,aes256gcm" },
    json: { type: "string" },
  },
});
if (!FORMS.includes(options.form as Form)) {
  throw new RangeError(`Cannot measure form "${options.form}": expected ${FORMS.join(", ")}`);
}
process.env["EDGEMESH_FORM"] = options.form;
/** edgemesh is measured with WireGuard's own AEAD, and with each of these */
const memberAeads = options["member-aead"].split(",").filter((name) => name !== "");
const rounds = Number(options.rounds);
const seconds = Number(options.seconds);

const lab = await Lab.create(["a", "b"]);
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => void lab.close().then(() => process.exit(130)));
}
let isGoodEnough = true;
try {
  isGoodEnough = await measure();
} finally {
  await lab.close();
}
process.exit(isGoodEnough ? 0 : 1);

async function measure(): Promise<boolean> {
  const a = await makeEnd(lab, "a", 1);
  const b = await makeEnd(lab, "b", 2);
  const bare = await iperf(lab.node("b").ip4, []);
  console.log(
    `${cpus()[0]?.model.trim()}, ${cpus().length} cores, ${options.form}, TCP, one stream, ${seconds} s a round`,
  );
  console.log(`no tunnel                ${bare.gigabitsPerSecond.toFixed(2).padStart(7)} Gbit/s`);
  const ours: Round[] = [];
  const theirs: Round[] = [];
  const members: Record<string, Round[]> = Object.fromEntries(memberAeads.map((name) => [name, []]));
  for (let round = 1; round <= rounds; round++) {
    ours.push(await runRound(`edgemesh, round ${round}`, () => startEdgemesh(a, b, [])));
    for (const name of memberAeads) {
      members[name]!.push(await runRound(`${name}, round ${round}`, () => startEdgemesh(a, b, [name])));
    }
    theirs.push(await runRound(`wireguard-go, round ${round}`, () => startWireguardGo(a, b)));
  }
  const speed = (of: readonly Round[]): number => median(of.map(({ gigabitsPerSecond }) => gigabitsPerSecond));
  const ratio = speed(ours) / speed(theirs);
  for (const name of memberAeads) {
    const found = speed(members[name]!);
    console.log(
      `${`${name}, members`.padEnd(24)} ${found.toFixed(2)} Gbit/s: ${
        (found / speed(theirs)).toFixed(2)
      } of wireguard-go, ` +
        `${(found / speed(ours)).toFixed(2)} of edgemesh with ChaCha20-Poly1305`,
    );
  }
  const worst = (pick: (round: Round) => number): string => `${(Math.max(...ours.map(pick)) / MEGABYTE).toFixed(1)} MB`;
  console.log(
    `median                   ${speed(ours).toFixed(2)} against ${speed(theirs).toFixed(2)} Gbit/s: ratio ${
      ratio.toFixed(2)
    }`,
  );
  console.log(
    `edgemesh's memory        idle: anonymous ${worst(({ memory }) => memory.idle.anonymousBytes)}, resident ` +
      `${worst(({ memory }) => memory.idle.residentBytes)}; under load: anonymous ${
        worst(({ memory }) => memory.load.anonymousBytes)
      }, ` +
      `resident ${worst(({ memory }) => memory.load.residentBytes)}`,
  );
  if (options.json) {
    writeFileSync(
      options.json,
      `${
        JSON.stringify(
          { form: options.form, cpu: cpus()[0]?.model, seconds, bare, ours, members, theirs, ratio },
          null,
          2,
        )
      }\n`,
    );
  }
  const wanted = Number(options["min-ratio"] ?? 0);
  if (ratio < wanted) console.error(`bench: the ratio is ${ratio.toFixed(2)}, and ${wanted} was asked for`);
  return ratio >= wanted;
}

async function runRound(name: string, start: () => Promise<Pair>): Promise<Round> {
  const { target, programs } = await start();
  try {
    await pause(IDLE_MS);
    const idle = largest(programs.map(({ pid }) => memoryOf(pid)));
    const { gigabitsPerSecond, cpuSecondsPerGigabyte, load } = await iperf(target, programs);
    console.log(
      `${name.padEnd(24)} ${gigabitsPerSecond.toFixed(2).padStart(7)} Gbit/s   ${
        cpuSecondsPerGigabyte.toFixed(2).padStart(5)
      } CPU s/GB, both ends`,
    );
    return { gigabitsPerSecond, cpuSecondsPerGigabyte, memory: { idle, load } };
  } finally {
    await Promise.all(programs.map((program) => program.stop()));
  }
}

/** @param aeads what both ends announce beside WireGuard's own AEAD */
async function startEdgemesh(a: End, b: End, aeads: readonly string[]): Promise<Pair> {
  const flags = ["--aead", options.aead];
  const [first, second] = [
    await startFromMesh(lab, a, [{ end: b, endpoint: `${lab.node("b").ip4}:51871` }], { flags, aeads }),
    await startFromMesh(lab, b, [{ end: a, endpoint: `${lab.node("a").ip4}:51871` }], { flags, aeads }),
  ];
  await reaches(lab, "a", b.mesh4);
  return { target: b.mesh4, programs: [first.process!, second.process!] };
}

/** Bare WireGuard with the MTU that it suggests: nothing in it that edgemesh does besides. */
async function startWireguardGo(a: End, b: End): Promise<Pair> {
  const programs: Running[] = [];
  for (const [self, peer] of [[a, b], [b, a]] as const) {
    const device = `wg${self.number}`;
    programs.push(lab.start(self.name, `wireguard-go-${self.number}`, ["wireguard-go", "-f", device]));
    await until(
      "wireguard-go has its device",
      async () => (await lab.run(self.name, ["wg", "show", device])).code === 0,
      10_000,
    );
    const key = join(lab.node(self.name).dir, "wg.key");
    writeFileSync(key, self.privateKey, { mode: 0o600 });
    await lab.shell(`
      ip -n ${self.name} addr add 10.8.0.${self.number}/24 dev ${device}
      ip -n ${self.name} link set ${device} mtu 1420 up
      nsenter --net=/run/netns/${self.name} wg set ${device} listen-port 51820 private-key ${key} \
        peer ${peer.publicKey} allowed-ips 10.8.0.${peer.number}/32 endpoint ${lab.node(peer.name).ip4}:51820
    `);
  }
  await reaches(lab, "a", "10.8.0.2");
  return { target: "10.8.0.2", programs };
}

/** One stream from a to b; memory and CPU time of the programs that carry it. */
async function iperf(target: string, programs: readonly Running[]): Promise<Omit<Round, "memory"> & { load: Memory }> {
  const server = lab.start("b", "iperf3-server", ["iperf3", "-s", "-1", "-p", "5201"]);
  await until("iperf3 listens", async () => (await lab.run("b", ["ss", "-ltn"])).stdout.includes(":5201"), 5_000);
  const cpuBefore = programs.reduce((sum, { pid }) => sum + cpuSecondsOf(pid), 0);
  let isDone = false;
  let load: Memory = { residentBytes: 0, anonymousBytes: 0 };
  const watching = (async () => {
    while (!isDone && programs.length > 0) {
      load = largest([load, ...programs.map(({ pid }) => memoryOf(pid))]);
      await pause(SAMPLE_MS);
    }
  })();
  const done = await lab.run("a", ["iperf3", "-c", target, "-p", "5201", "-t", String(seconds), "-O", "1", "-J"], {
    timeoutMs: (seconds + 20) * 1_000,
  });
  isDone = true;
  await watching;
  const cpuAfter = programs.reduce((sum, { pid }) => sum + cpuSecondsOf(pid), 0);
  await server.stop();
  const result = JSON.parse(done.stdout);
  if (result.error) throw new Error(`Cannot measure: iperf3: ${result.error}`);
  // CPU time counts the warming second too, and so do these octets
  const octets = result.intervals.reduce(
    (sum: number, { sum: interval }: { sum: { bytes: number } }) => sum + interval.bytes,
    0,
  );
  return {
    gigabitsPerSecond: result.end.sum_received.bits_per_second / 1e9,
    cpuSecondsPerGigabyte: (cpuAfter - cpuBefore) / (octets / 1e9),
    load,
  };
}

function largest(of: readonly Memory[]): Memory {
  return {
    residentBytes: Math.max(...of.map(({ residentBytes }) => residentBytes)),
    anonymousBytes: Math.max(...of.map(({ anonymousBytes }) => anonymousBytes)),
  };
}

function median(of: readonly number[]): number {
  const sorted = [...of].sort((x, y) => x - y);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
