/**
 * A hub and members as processes in the lab, driven through the command line alone: what a person would type. Every test file of
 * this folder starts from here.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Finished, Lab, type Running, until } from "../../scripts/lab/lab.ts";
import { Agent } from "../../scripts/lab/program.ts";

/** Node that runs the small traffic programs: they must not be the program under test's runtime. */
export const TRAFFIC = ["node", join(import.meta.dirname, "../../scripts/lab/traffic.mjs")];

export const HUB_PORT = 7443;

/** What a mesh's hub is started with beside the usual. */
export interface HubOptions {
  /** the family that members reach the hub over; IPv4 when absent */
  readonly underlay?: 4 | 6;
  readonly flags?: readonly string[];
}

export class Mesh {
  readonly lab: Lab;
  readonly hub: Agent;
  /** every token that was made: none of them may be seen anywhere else */
  readonly tokens: string[] = [];
  private readonly agents = new Map<string, Agent>();
  private readonly hubOptions: HubOptions;

  private constructor(lab: Lab, hubOptions: HubOptions) {
    this.hubOptions = hubOptions;
    this.lab = lab;
    this.hub = new Agent(lab, "hub");
    this.agents.set("hub", this.hub);
  }

  /** A hub that runs, and nodes on which nothing runs yet. */
  static async start(names: readonly string[] = ["a", "b"], hubOptions: HubOptions = {}): Promise<Mesh> {
    const mesh = new Mesh(await Lab.create(["hub", ...names]), hubOptions);
    try {
      for (const name of names) mesh.agents.set(name, new Agent(mesh.lab, name));
      mesh.startHub();
      await mesh.isUp("hub");
      return mesh;
    } catch (error) {
      await mesh.close();
      throw error;
    }
  }

  startHub(): Running {
    const { ip4, ip6 } = this.hub.node;
    const { underlay, flags } = this.hubOptions;
    return this.hub.start([
      "hub",
      "run",
      "--cluster-name",
      "edge1",
      "--cluster-id",
      "7",
      "--advertise",
      underlay === 6 ? `[${ip6}]:${HUB_PORT}` : `${ip4}:${HUB_PORT}`,
      ...(flags ?? []),
    ]);
  }

  agent(name: string): Agent {
    const agent = this.agents.get(name);
    if (!agent) throw new RangeError(`Cannot find member "${name}"`);
    return agent;
  }

  /** `edgemesh hub token create ARGS`, the token itself. */
  async token(...args: string[]): Promise<string> {
    const made = await this.hub.json(["hub", "token", "create", ...args]);
    this.tokens.push(made.token);
    return made.token;
  }

  /** Puts a token where `join @file` finds it: not in an argument list. */
  tokenFile(name: string, token: string): string {
    const file = join(this.agent(name).node.dir, `token-${this.tokens.length}`);
    writeFileSync(file, `${token}\n`, { mode: 0o600 });
    return file;
  }

  /** `edgemesh join`: enrols and goes on running. Returns at once. */
  startJoin(name: string, token: string, ...args: string[]): Running {
    return this.agent(name).start(["join", `@${this.tokenFile(name, token)}`, "--name", name, ...args]);
  }

  /** Enrols a member and waits until it is ready. */
  async join(name: string, ...args: string[]): Promise<void> {
    this.startJoin(name, await this.token(), ...args);
    await this.isUp(name);
  }

  /** `edgemesh join --enrol-only`: to its end. */
  async enrol(name: string, token: string, ...args: string[]): Promise<Finished> {
    return await this.agent(name).cli([
      "join",
      `@${this.tokenFile(name, token)}`,
      "--name",
      name,
      "--enrol-only",
      ...args,
    ]);
  }

  /** Waits until `edgemesh status --wait` says that it is ready. */
  async isUp(name: string): Promise<void> {
    const agent = this.agent(name);
    const running = agent.process!;
    await until(
      `${name} answers on its socket`,
      async () => {
        if (running.exitCode !== undefined) {
          throw new Error(
            `"${name}" ended with ${running.exitCode}:\n${running.log()}`,
          );
        }
        return (await agent.cli(["status", "-o", "json"])).code === 0;
      },
      20_000,
      () => running.log(),
    );
    const done = await agent.cli(["status", "--wait", "--timeout", "30s"]);
    if (done.code !== 0) {
      throw new Error(`"${name}" does not get ready: ${done.stderr}\n${done.stdout}\n${running.log()}`);
    }
  }

  /** The member's own record. */
  async self(name: string): Promise<{ name: string; addresses: string[]; identity: number; publicKey: string }> {
    return (await this.agent(name).json(["status"])).member;
  }

  /** Its mesh address of one family. */
  async address(name: string, family: 4 | 6 = 4): Promise<string> {
    const { addresses } = await this.self(name);
    const found = addresses.find((address) => address.includes(":") === (family === 6));
    if (!found) throw new Error(`"${name}" has no IPv${family} address: ${addresses.join(", ")}`);
    return found.split("/")[0]!;
  }

  /** `edgemesh apply -f`: on the hub. */
  async apply(yaml: string): Promise<string> {
    const file = join(this.hub.node.dir, "policy.yaml");
    writeFileSync(file, yaml);
    return await this.hub.ask(["apply", "-f", file]);
  }

  /** Whether one ping of the operating system gets through. */
  async pings(from: string, to: string, timeoutS = 2): Promise<boolean> {
    return (await this.lab.run(from, ["ping", "-c1", `-W${timeoutS}`, to])).code === 0;
  }

  /** The page that `traffic.mjs serve` gives, or undefined when nothing comes within two seconds. */
  async get(from: string, address: string, port: number): Promise<string | undefined> {
    const host = address.includes(":") ? `[${address}]` : address;
    const done = await this.lab.run(from, ["curl", "-s", "-g", "-m", "2", `http://${host}:${port}/`]);
    return done.code === 0 ? done.stdout : undefined;
  }

  async serve(name: string, port: number): Promise<Running> {
    const server = this.lab.start(name, `serve-${name}-${port}`, [
      ...TRAFFIC,
      "serve",
      String(port),
      name,
    ]);
    await server.saw(/^ready$/m);
    return server;
  }

  /** Value of one metric of a node. */
  async metric(name: string, metric: string): Promise<number> {
    const { body } = await this.agent(name).http("/metrics");
    const line = body.split("\n").find((line) => line.startsWith(`${metric} `));
    return line === undefined ? 0 : Number(line.slice(metric.length + 1));
  }

  /** Everything that any program of the lab printed. */
  logs(): string {
    return [...this.agents.values()].flatMap(({ processes }) => processes.map((process) => process.log())).join("\n");
  }

  close(): Promise<void> {
    return this.lab.close(process.env["EDGEMESH_KEEP_FILES"] ? { keepFiles: true } : {});
  }
}

/** A NetworkPolicy that lets `from` reach `port` of `to`, and nothing else reach it. */
export function allowOnly(to: string, from: string, port: number): string {
  return `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: only, namespace: default }
spec:
  podSelector: { matchLabels: { app: ${to} } }
  ingress:
    - from: [{ podSelector: { matchLabels: { app: ${from} } } }]
      ports: [{ port: ${port}, protocol: TCP }]
`;
}
