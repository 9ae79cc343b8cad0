/**
 * What one member can send, alone: a -- router -- b, where b's kernel drops every full datagram of the tunnel, so that only a
 * works. With one and with two datapath Workers, for each cipher.
 *
 *   scripts/lab/inside scripts/bench/run one_side [--seconds S] [--form bun|deno|binary]
 *
 * The load is superpackets of UDP (UDP_SEGMENT, 1200 octets each): a program that costs little beside what is measured.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Lab } from "../lab/lab.ts";
import { makeEnd, PYTHON, reaches, startFromMesh } from "../lab/peers.ts";
import { commandOf, type Form } from "../lab/program.ts";

const { values } = parseArgs({
  options: { seconds: { type: "string", default: "4" }, form: { type: "string", default: "binary" } },
});
const seconds = Number(values.seconds);
/** CLK_TCK */
const TICKS = 100;
const WARM_MS = 3000;
const PAYLOAD_BYTES = 1200;

const SEGMENTS = 48;
/**
 * Superpackets a millisecond: half as much again as one Worker takes, so that the load costs no whole core where there are two.
 * Measured on an AMD EPYC of two cores: 0.9 million datagrams a second with ChaCha20-Poly1305, 2.5 with AEGIS-128L.
 */
const SUPERPACKETS = { chacha20poly1305: 28, aegis128l: 75 };

/** Sends superpackets until it is stopped. 17 and 103 are SOL_UDP and UDP_SEGMENT. */
const FLOOD = `
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(17, 103, ${PAYLOAD_BYTES})
s.connect((sys.argv[1], 9))
block = bytes(${PAYLOAD_BYTES} * ${SEGMENTS})
begin, sent = time.monotonic(), 0
while True:
    wanted = int((time.monotonic() - begin) * 1000 * float(sys.argv[2]))
    for _ in range(min(wanted - sent, 300)):
        try: s.send(block)
        except OSError: pass
    sent = wanted
    time.sleep(0.0005)
`;

/** CPU time of each thread of a process, ticks, by its number. */
async function ticksOf(lab: Lab, pid: number): Promise<Map<string, number>> {
  const { stdout } = await lab.run("a", ["sh", "-c", `cat /proc/${pid}/task/*/stat`]);
  return new Map(
    stdout.trim().split("\n").map((line) => {
      const fields = line.slice(line.lastIndexOf(")") + 2).split(" ");
      return [line.split(" ")[0]!, Number(fields[11]) + Number(fields[12])];
    }),
  );
}

/** MB of one line of smaps_rollup. */
function megabytes(pid: number, name: string): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  return Number(new RegExp(`^${name}: +(\\d+)`, "m").exec(text)![1]) / 1024;
}

async function measure(workers: number, aeads: readonly string[]): Promise<string> {
  const lab = await Lab.create(["a", "b"]);
  const perMs = aeads.length === 0 ? SUPERPACKETS.chacha20poly1305 : SUPERPACKETS.aegis128l;
  try {
    const [a, b] = [await makeEnd(lab, "a", 1), await makeEnd(lab, "b", 2)];
    const command = commandOf(values.form as Form);
    await startFromMesh(lab, b, [{ end: a }], { aeads, command });
    const flags = ["--datapath-workers", String(workers)];
    const peers = [{ end: b, endpoint: `${lab.node("b").ip4}:51871` }];
    const onA = await startFromMesh(lab, a, peers, { aeads, command, flags });
    await reaches(lab, "a", b.mesh4);
    const pid = onA.process!.pid;
    const idle = megabytes(pid, "Anonymous");
    const rules = "add table inet d; add chain inet d c { type filter hook prerouting priority -300; }; " +
      "add rule inet d c udp dport 51871 meta length > 1000 drop";
    const done = await lab.run("b", ["nft", rules]);
    if (done.code !== 0) throw new Error(done.stderr);
    const flood = lab.start("a", "flood", [PYTHON, "-c", FLOOD, b.mesh4, String(perMs)]);
    const sent = async () => (await onA.json(["status"])).traffic.toUnderlayDatagrams as number;
    await new Promise((resolve) => setTimeout(resolve, WARM_MS));
    const [ticksBefore, before, beginMs] = [await ticksOf(lab, pid), await sent(), performance.now()];
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    const [after, endMs, ticksAfter] = [await sent(), performance.now(), await ticksOf(lab, pid)];
    const loaded = megabytes(pid, "Anonymous");
    await flood.stop();
    const rate = (after - before) / (endMs - beginMs) * 1000;
    const cpus = [...ticksAfter].map(([thread, ticks]) =>
      (ticks - (ticksBefore.get(thread) ?? 0)) / TICKS / seconds * 100
    )
      .filter((percent) => percent >= 3).sort((x, y) => y - x).map((percent) => `${percent.toFixed(0)} %`);
    return `${(aeads[0] ?? "chacha20poly1305").padEnd(17)} ${workers} Worker${workers > 1 ? "s" : " "}  ` +
      `${(rate / 1000).toFixed(0).padStart(5)} k datagrams/s  ${
        (rate * PAYLOAD_BYTES * 8 / 1e9).toFixed(2).padStart(6)
      } Gbit/s  ` +
      `threads ${cpus.join(" ").padEnd(18)} anonymous ${idle.toFixed(1)} MB idle, ${loaded.toFixed(1)} MB loaded`;
  } finally {
    await lab.close();
  }
}

for (const aeads of [[], ["aegis128l"]]) {
  for (const workers of [1, 2, 1, 2]) console.log(await measure(workers, aeads));
}
