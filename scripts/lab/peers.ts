/**
 * The two sides of an interop test or a benchmark: edgemesh from a mesh file, and a node made of Debian's wireguard-go with the Geneve
 * endpoint of `geneve_endpoint.py` behind it.
 *
 *   10.9.0.1  edgemesh0 [edgemesh] UDP 51871 ===== WireGuard ===== wireguard-go [wgN 172.31.0.2] UDP 6081 geneve_endpoint.py 10.9.0.2
 *
 * The underlay addresses 172.31.0.N exist inside WireGuard only; between the machines run the lab's own addresses.
 */
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Agent } from "./program.ts";
import { type Lab, type LabNode, type Running, until } from "./lab.ts";

/** One end: everything that the other end must be told. */
export interface End {
  readonly number: number;
  readonly name: string;
  readonly privateKey: string;
  readonly publicKey: string;
  readonly underlay: string;
  readonly mesh4: string;
  readonly mesh6: string;
  readonly identity: number;
  readonly port: number;
}

export const PYTHON = "/usr/bin/python3";

/** Keys as `wg genkey` prints them; the numbers follow from `number`. */
export async function makeEnd(lab: Lab, name: string, number: number): Promise<End> {
  const privateKey = (await lab.run(name, ["wg", "genkey"])).stdout.trim();
  const publicKey = (await lab.run(name, ["wg", "pubkey"], { input: privateKey })).stdout.trim();
  return {
    number,
    name,
    privateKey,
    publicKey,
    underlay: `172.31.0.${number}`,
    mesh4: `10.9.0.${number}`,
    mesh6: `fd09::${number}`,
    identity: 65536 + number,
    port: 51871,
  };
}

export async function makePsk(lab: Lab): Promise<string> {
  return (await lab.run("router", ["wg", "genpsk"])).stdout.trim();
}

/** A peer as our mesh file names it. */
export interface MeshPeer {
  readonly end: End;
  readonly psk?: string;
  /** left out: learned when it speaks first */
  readonly endpoint?: string;
  readonly persistentKeepalive?: number;
}

function writeSecret(file: string, text: string): void {
  writeFileSync(file, `${text}\n`);
  chmodSync(file, 0o600);
}

/** Writes a mesh file into the node's folder and starts `edgemesh run --mesh` on it. */
export async function startFromMesh(
  lab: Lab,
  self: End,
  peers: readonly MeshPeer[],
  options: {
    readonly flags?: readonly string[];
    readonly policies?: readonly string[];
    readonly env?: Readonly<Record<string, string>>;
    /** what all nodes of the file announce for transport data beside WireGuard's own */
    readonly aeads?: readonly string[];
    /** `routing` of the mesh file */
    readonly routing?: string;
    /** starts the program; by default the form under test */
    readonly command?: readonly string[];
  } = {},
): Promise<Agent> {
  const agent = new Agent(lab, self.name, options.command);
  const { dir } = agent.node;
  const aeads = options.aeads ?? [];
  writeSecret(join(dir, "own.key"), self.privateKey);
  const lines = [
    "node:",
    `  name: ${self.name}`,
    "  cluster: { name: edge1, id: 1 }",
    "  privateKeyFile: own.key",
    `  addresses: [${self.mesh4}/32, "${self.mesh6}/128"]`,
    `  underlay: "${self.underlay}"`,
    `  listenPort: ${self.port}`,
    `  identity: ${self.identity}`,
    `  labels: { app: ${self.name} }`,
    `  aeads: [${aeads.join(", ")}]`,
    "peers:",
  ];
  for (const { end, psk, endpoint, persistentKeepalive } of peers) {
    lines.push(
      `  - name: ${end.name}`,
      "    cluster: { name: edge1, id: 1 }",
      `    underlay: "${end.underlay}"`,
      `    publicKey: ${end.publicKey}`,
      `    addresses: [${end.mesh4}/32, "${end.mesh6}/128"]`,
      `    identity: ${end.identity}`,
      `    labels: { app: ${end.name} }`,
      `    aeads: [${aeads.join(", ")}]`,
    );
    if (psk !== undefined) {
      writeSecret(join(dir, `${end.name}.psk`), psk);
      lines.push(`    presharedKeyFile: ${end.name}.psk`);
    }
    if (endpoint !== undefined) lines.push(`    endpoint: "${endpoint}"`);
    if (persistentKeepalive !== undefined) lines.push(`    persistentKeepalive: ${persistentKeepalive}`);
  }
  if (options.routing !== undefined) lines.push(`routing: { ${options.routing} }`);
  if (options.policies && options.policies.length > 0) lines.push(`policies: [${options.policies.join(", ")}]`);
  writeFileSync(join(dir, "mesh.yaml"), `${lines.join("\n")}\n`);
  const running = agent.start(["run", "--mesh", join(dir, "mesh.yaml"), ...(options.flags ?? [])], options.env);
  await until(
    "edgemesh has its addresses",
    async () => {
      if (running.exitCode !== undefined) throw new Error(`edgemesh ended with ${running.exitCode}:\n${running.log()}`);
      return (await lab.run(self.name, ["ip", "addr", "show", "dev", "edgemesh0"])).stdout.includes(self.mesh4);
    },
    20_000,
    () => running.log(),
  );
  return agent;
}

/** A node of Debian's wireguard-go and our Geneve endpoint. */
export class WireguardGo {
  readonly lab: Lab;
  readonly node: LabNode;
  readonly self: End;
  readonly device: string;
  private daemon: Running | undefined;
  geneve: Running | undefined;

  constructor(lab: Lab, self: End) {
    this.lab = lab;
    this.node = lab.node(self.name);
    this.self = self;
    this.device = `wg${self.number}`;
  }

  /** Starts both programs; `peer.endpoint` left out means that the other side speaks first. */
  async start(peer: MeshPeer): Promise<void> {
    const { lab, self, device } = this;
    this.daemon = lab.start(self.name, `wireguard-go-${self.number}`, ["wireguard-go", "-f", device], {
      env: { LOG_LEVEL: "verbose" },
    });
    await until("wireguard-go has its device", async () => (await this.wg("show")).includes("interface"), 10_000);
    writeSecret(join(this.node.dir, "own.key"), self.privateKey);
    writeSecret(join(this.node.dir, "psk"), peer.psk ?? "");
    await this.wg("set", "listen-port", String(self.port), "private-key", join(this.node.dir, "own.key"));
    await this.wg(
      "set",
      ...["peer", peer.end.publicKey, "allowed-ips", `${peer.end.underlay}/32`],
      ...(peer.psk === undefined ? [] : ["preshared-key", join(this.node.dir, "psk")]),
      ...(peer.endpoint === undefined ? [] : ["endpoint", peer.endpoint]),
      ...(peer.persistentKeepalive === undefined ? [] : ["persistent-keepalive", String(peer.persistentKeepalive)]),
    );
    await this.ip("addr", "add", `${self.underlay}/32`, "dev", device);
    await this.ip("link", "set", device, "mtu", "1420", "up");
    await this.ip("route", "add", `${peer.end.underlay}/32`, "dev", device);
    this.geneve = lab.start(self.name, `geneve-${self.number}`, [
      ...[PYTHON, join(import.meta.dirname, "geneve_endpoint.py"), "--tun", "mesh0"],
      ...["--local", self.underlay, "--remote", peer.end.underlay],
      ...["--vni", String(self.identity), "--expect-vni", String(peer.end.identity)],
      ...["--address", `${self.mesh4}/32`, "--address", `${self.mesh6}/128`],
      ...["--route", `${peer.end.mesh4}/32`, "--route", `${peer.end.mesh6}/128`],
    ]);
    await this.geneve.saw(/^ready$/m);
  }

  /** `wg show DEVICE ...` and `wg set DEVICE ...` */
  async wg(verb: "show" | "set", ...args: string[]): Promise<string> {
    const done = await this.lab.run(this.self.name, ["wg", verb, this.device, ...args]);
    if (done.code !== 0 && verb === "set") throw new Error(`Cannot run wg set ${args.join(" ")}: ${done.stderr}`);
    return done.stdout;
  }

  /** Unix seconds of the last handshake, 0 when there was none. */
  async lastHandshake(): Promise<number> {
    return Number((await this.wg("show", "latest-handshakes")).trim().split(/\s+/)[1]);
  }

  /** Octets received from and sent to the peer. */
  async transfer(): Promise<{ readonly received: number; readonly sent: number }> {
    const [, received, sent] = (await this.wg("show", "transfer")).trim().split(/\s+/);
    return { received: Number(received), sent: Number(sent) };
  }

  async ip(...args: string[]): Promise<void> {
    const done = await this.lab.run(this.self.name, ["ip", ...args]);
    if (done.code !== 0) throw new Error(`Cannot run ip ${args.join(" ")}: ${done.stderr}`);
  }

  /** Ends both programs and gives what the Geneve endpoint counted. */
  async stop(): Promise<{ received: number; sent: number; faults: number; largest: number }> {
    await this.geneve?.stop();
    await this.daemon?.stop();
    return JSON.parse(/^counts: (.*)$/m.exec(this.geneve?.log() ?? "")?.[1] ?? "{}");
  }
}

/** Pings until one is answered: the first packet may wait for a handshake. */
export async function reaches(lab: Lab, from: string, to: string, timeoutMs = 15_000): Promise<void> {
  await until(
    `${from} reaches ${to}`,
    async () => (await lab.run(from, ["ping", "-c1", "-W1", to])).code === 0,
    timeoutMs,
  );
}

/** How many of `count` pings are answered, sent `intervalS` apart. */
export async function answered(lab: Lab, from: string, to: string, count: number, intervalS = 0.2): Promise<number> {
  const done = await lab.run(from, ["ping", "-c", String(count), "-i", String(intervalS), "-W", "2", to], {
    timeoutMs: count * intervalS * 1_000 + 20_000,
  });
  return Number(/(\d+) received/.exec(done.stdout)?.[1] ?? 0);
}
