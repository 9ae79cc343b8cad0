/**
 * Everybody who is measured: the bare link, edgemesh in each of its modes, and the peers that `scripts/bench/peers` found. Each
 * runs with its own defaults, MTU included; nobody is tuned.
 */
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type Lab, type Running, tail, until } from "../../lab/lab.ts";
import { type End, reaches, startFromMesh } from "../../lab/peers.ts";
import { commandOf, formUnderTest } from "../../lab/program.ts";

/** Where a contender is started. */
export interface Scene {
  readonly lab: Lab;
  readonly a: End;
  readonly b: End;
  /** put before the command of the program on that node: a memory cgroup */
  readonly prefix: (node: "a" | "b") => readonly string[];
}

/** A contender that runs. */
export interface Pair {
  /** address of b inside the tunnel, reached from a */
  readonly target: string;
  /** what carries the packets, both ends */
  readonly programs: readonly Running[];
  /** the tunnel's device on b; absent when there is none */
  readonly device?: string;
  /** of the tunnel's device, or of the link */
  readonly mtuBytes: number;
}

export interface Contender {
  readonly id: string;
  readonly title: string;
  readonly kind: "bare" | "edgemesh" | "peer";
  readonly isNewest: boolean;
  /** the claims are about these: all measures in all rounds, and they are the quick run; the others get its measures, in every other round */
  readonly isMain: boolean;
  readonly version: string;
  /** why it is left out */
  readonly missing?: string;
  /** @throws Error when it cannot be had as it is named: a mode that this build or machine does not know */
  start(scene: Scene): Promise<Pair>;
}

const WIREGUARD_PORT = 51820;
const NEBULA_PORT = 4242;
const START_MS = 10_000;
const NO_PREFIX: readonly string[] = [];

/**
 * @param peerList what `scripts/bench/peers` printed
 * @param version  of edgemesh, for the record
 */
export function contenders(peerList: string, version: string): readonly Contender[] {
  return [
    { ...NOBODY, id: "veth", title: "no tunnel", kind: "bare", isMain: true, version: "", start: startBare },
    ...EDGEMESH.map(({ id, title, isMain, ...mode }): Contender => ({
      ...{ ...NOBODY, id, title, isMain, version, kind: "edgemesh" },
      start: (scene) => startEdgemesh(scene, mode),
    })),
    ...readPeers(peerList),
  ];
}

const NOBODY = { isNewest: false } as const;

interface Mode {
  /** `routing` of the mesh file */
  readonly routing?: string;
  /** announced by both ends */
  readonly aeads?: readonly string[];
  readonly flags?: readonly string[];
  /** tunnels end at the nodes' own addresses, as they must without encryption */
  readonly isPlain?: boolean;
}

const EDGEMESH: readonly (Mode & { readonly id: string; readonly title: string; readonly isMain: boolean })[] = [
  { id: "edgemesh", title: "edgemesh", isMain: true },
  { id: "edgemesh-libcrypto", title: "edgemesh --aead auto", isMain: false, flags: ["--aead", "auto"] },
  { id: "edgemesh-2-workers", title: "edgemesh 2 Workers", isMain: false, flags: ["--datapath-workers", "2"] },
  { id: "edgemesh-native", title: "edgemesh native", isMain: true, routing: "mode: native" },
  { id: "edgemesh-vxlan", title: "edgemesh VXLAN", isMain: false, routing: "tunnelProtocol: vxlan" },
  { id: "edgemesh-aegis128l", title: "edgemesh AEGIS-128L", isMain: true, aeads: ["aegis128l"] },
  {
    ...{ id: "edgemesh-aegis128l-2-workers", title: "edgemesh AEGIS 2 Workers", isMain: false },
    ...{ aeads: ["aegis128l"], flags: ["--datapath-workers", "2"] },
  },
  { id: "edgemesh-aes256gcm", title: "edgemesh AES-256-GCM", isMain: false, aeads: ["aes256gcm"] },
  {
    ...{ id: "edgemesh-aegis128l-native", title: "edgemesh AEGIS native", isMain: false, aeads: ["aegis128l"] },
    routing: "mode: native",
  },
  { id: "edgemesh-plain", title: "edgemesh plain Geneve", isMain: true, isPlain: true, routing: "encryption: none" },
  {
    ...{ id: "edgemesh-plain-vxlan", title: "edgemesh plain VXLAN", isMain: false, isPlain: true },
    routing: "encryption: none, tunnelProtocol: vxlan",
  },
];

type PeerStart = (path: string) => Contender["start"];
const PEERS: Readonly<Record<string, { title: string; isNewest: boolean; isMain: boolean; start: PeerStart }>> = {
  "wireguard-go": wireguard("wireguard-go", true, true, (path, device) => [path, "-f", device]),
  "boringtun": wireguard(
    "boringtun",
    true,
    false,
    (path, device, log) => [path, "-f", "--disable-drop-privileges", "--log", log, device],
  ),
  "gotatun": wireguard("gotatun", true, true, (path, device) => [path, device]),
  "nebula": { title: "nebula", isNewest: true, isMain: false, start: (path) => (scene) => startNebula(scene, path) },
  "wireguard-go-debian": wireguard("wireguard-go, Debian", false, false, (path, device) => [path, "-f", device]),
  "nebula-debian": {
    ...{ title: "nebula, Debian", isNewest: false, isMain: false },
    start: (path) => (scene) => startNebula(scene, path),
  },
};

/** Reads what `scripts/bench/peers` printed. */
function readPeers(list: string): readonly Contender[] {
  const found = new Map(
    list.trim().split("\n").map((line) => {
      const [name = "", path = "", text = ""] = line.split("\t");
      return [name, { path, text }];
    }),
  );
  return Object.entries(PEERS).map(([id, { title, isNewest, isMain, start }]) => {
    const { path, text } = found.get(id) ?? { path: "-", text: "not looked for" };
    const common = { id, title, kind: "peer", isNewest, isMain, start: start(path) } as const;
    return path === "-" ? { ...common, version: "", missing: text } : { ...common, version: text };
  });
}

async function startBare({ lab, b }: Scene): Promise<Pair> {
  return { target: lab.node(b.name).ip4, programs: [], mtuBytes: await mtuOf(lab, "a", "eth0") };
}

async function startEdgemesh({ lab, prefix, ...ends }: Scene, mode: Mode): Promise<Pair> {
  const at = ({ name }: End): string => lab.node(name).ip4;
  const [a, b] = [ends.a, ends.b].map((end) => mode.isPlain ? { ...end, underlay: at(end) } : end) as [End, End];
  const start = (self: End, peer: End) =>
    startFromMesh(lab, self, [{ end: peer, endpoint: `${at(peer)}:${peer.port}` }], {
      ...mode,
      command: [...prefix(self.name as "a" | "b"), ...commandOf(formUnderTest())],
    });
  const agents = [await start(a, b), await start(b, a)] as const;
  const programs = agents.map((agent) => agent.process!);
  await orStop(programs, async () => {
    await reaches(lab, "a", b.mesh4);
    if (mode.aeads) {
      const { peers } = await agents[0].json(["peers"]);
      if (peers[0]?.aead !== mode.aeads[0]) {
        throw new Error(`It seals with ${peers[0]?.aead ?? "?"}, not with ${mode.aeads[0]}`);
      }
    }
  });
  return { target: b.mesh4, programs, device: "edgemesh0", mtuBytes: await mtuOf(lab, "a", "edgemesh0") };
}

/** A program that makes a WireGuard device, configured with `wg`. */
function wireguard(
  title: string,
  isNewest: boolean,
  isMain: boolean,
  command: (path: string, device: string, log: string) => readonly string[],
): { title: string; isNewest: boolean; isMain: boolean; start: PeerStart } {
  const start: PeerStart = (path) => async ({ lab, a, b, prefix }) => {
    const programs: Running[] = [];
    await orStop(programs, async () => {
      for (const [self, peer] of [[a, b], [b, a]] as const) {
        const device = `wg${self.number}`;
        const { dir } = lab.node(self.name);
        const argv = [...prefix(self.name as "a" | "b"), ...command(path, device, join(dir, "peer.log"))];
        const program = lab.start(self.name, `${title}-${self.number}`, argv);
        programs.push(program);
        const isThere = async () => (await lab.run(self.name, ["wg", "show", device])).code === 0;
        await until(`${title} has its device`, async () => isRunning(program) && await isThere(), START_MS);
        const key = join(dir, "wg.key");
        writeFileSync(key, self.privateKey, { mode: 0o600 });
        await lab.shell(`
          ip -n ${self.name} addr add 10.8.0.${self.number}/24 dev ${device}
          ip -n ${self.name} link set ${device} mtu 1420 up
          nsenter --net=/run/netns/${self.name} wg set ${device} listen-port ${WIREGUARD_PORT} private-key ${key} \
            peer ${peer.publicKey} allowed-ips 10.8.0.${peer.number}/32 endpoint ${
          lab.node(peer.name).ip4
        }:${WIREGUARD_PORT}
        `);
      }
      await reaches(lab, "a", "10.8.0.2");
    });
    return { target: "10.8.0.2", programs, device: "wg2", mtuBytes: await mtuOf(lab, "a", "wg1") };
  };
  return { title, isNewest, isMain, start };
}

async function startNebula({ lab, a, b, prefix }: Scene, path: string): Promise<Pair> {
  const { dir } = lab;
  const cert = join(dirname(path), "nebula-cert");
  const make = async (...args: string[]): Promise<void> => {
    const done = await lab.run("a", [cert, ...args]);
    if (done.code !== 0) throw new Error(`nebula-cert: ${done.stderr || done.stdout}`);
  };
  const stamp = `nebula-${Date.now()}`;
  const file = (name: string): string => join(dir, `${stamp}-${name}`);
  await make("ca", "-name", "bench", "-out-crt", file("ca.crt"), "-out-key", file("ca.key"));
  const programs: Running[] = [];
  await orStop(programs, async () => {
    for (const [self, peer] of [[a, b], [b, a]] as const) {
      await make(
        ...["sign", "-name", self.name, "-ip", `10.10.0.${self.number}/24`],
        ...["-ca-crt", file("ca.crt"), "-ca-key", file("ca.key")],
        ...["-out-crt", file(`${self.name}.crt`), "-out-key", file(`${self.name}.key`)],
      );
      const config = {
        pki: { ca: file("ca.crt"), cert: file(`${self.name}.crt`), key: file(`${self.name}.key`) },
        static_host_map: { [`10.10.0.${peer.number}`]: [`${lab.node(peer.name).ip4}:${NEBULA_PORT}`] },
        lighthouse: { am_lighthouse: false },
        listen: { host: "0.0.0.0", port: NEBULA_PORT },
        tun: { dev: `nebula${self.number}` },
        firewall: {
          outbound: [{ port: "any", proto: "any", host: "any" }],
          inbound: [{ port: "any", proto: "any", host: "any" }],
        },
        logging: { level: "warning" },
      };
      writeFileSync(file(`${self.name}.yml`), JSON.stringify(config)); // JSON is YAML
      const argv = [...prefix(self.name as "a" | "b"), path, "-config", file(`${self.name}.yml`)];
      programs.push(lab.start(self.name, `nebula-${self.number}`, argv));
    }
    await until(
      "nebula has its devices",
      async () => {
        if (!programs.every(isRunning)) return false;
        const [first, second] = await Promise.all(["a", "b"].map((name) => lab.run(name, ["ip", "-br", "link"])));
        return first!.stdout.includes("nebula1") && second!.stdout.includes("nebula2");
      },
      START_MS,
      () => programs.map((program) => tail(program.log(), 5)).join("\n"),
    );
    await reaches(lab, "a", "10.10.0.2");
  });
  return { target: "10.10.0.2", programs, device: "nebula2", mtuBytes: await mtuOf(lab, "a", "nebula1") };
}

function isRunning(program: Running): boolean {
  if (program.exitCode === undefined) return true;
  throw new Error(`${program.name} ended with ${program.exitCode}: ${tail(program.log(), 5)}`);
}

/** Leaves nothing running when a start fails. */
async function orStop(programs: readonly Running[], start: () => Promise<void>): Promise<void> {
  try {
    await start();
  } catch (error) {
    await Promise.all(programs.map((program) => program.stop()));
    throw error;
  }
}

async function mtuOf(lab: Lab, node: string, device: string): Promise<number> {
  const { stdout } = await lab.run(node, ["ip", "link", "show", "dev", device]);
  return Number(/ mtu (\d+) /.exec(stdout)?.[1] ?? NaN);
}

/** Puts nothing before a command. */
export const free: Scene["prefix"] = () => NO_PREFIX;
