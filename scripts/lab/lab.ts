/**
 * A network in one process's namespaces, for the demo, the end-to-end tests and the benchmarks. `scripts/lab/inside` must
 * have made us root of a network namespace of our own; from there on everything is plain `ip` commands.
 *
 *        hub                a                  b               each node: a namespace with one Ethernet link
 *         | eth0            | eth0             | eth0          10.71.N.2/24, fd71:0:0:N::2/64
 *   ------+-----------------+------------------+------
 *         | to-hub          | to-a             | to-b          10.71.N.1/24, fd71:0:0:N::1/64
 *         +------------- router ---------------+               forwards, nothing else: no NAT, no firewall
 *
 * N counts the nodes from 1. A node reaches another through two hops, so lost packets, changed addresses and small MTUs can
 * be made in the middle. Programs are started with `start`, their output goes to a file each, and `close` ends those that
 * were started here, by process id; what it cannot end any more, `inside` does.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** A machine of the lab. */
export interface LabNode {
  readonly name: string;
  /** its addresses on the underlay, without prefix length */
  readonly ip4: string;
  readonly ip6: string;
  readonly gateway4: string;
  readonly gateway6: string;
  /** a folder of its own: state, sockets, files */
  readonly dir: string;
}

/** What a finished command left. */
export interface Finished {
  /** exit code; 128 + n after signal n, as a shell counts */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** How a command is run. */
export interface RunOptions {
  /** added to the lab's small environment */
  readonly env?: Readonly<Record<string, string>>;
  /** what it reads from standard input; nothing when absent */
  readonly input?: string;
  /** killed after this long (default 60 000); the code is then 137 */
  readonly timeoutMs?: number;
}

/** How often a condition is looked at. */
const POLL_MS = 50;
/** How long a program may take to end after SIGTERM before it is killed. */
const GRACE_MS = 5_000;
const SIGNALS: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGTERM: 15,
};

/** Set by `scripts/lab/inside`; without it `ip` would change the machine's own network. */
function isInsideLab(): boolean {
  return process.env["EDGEMESH_LAB_INSIDE"] === "yes";
}

/** A program that runs in the background. Made by `Lab.start`. */
export class Running {
  readonly name: string;
  readonly logFile: string;
  readonly child: ChildProcess;
  readonly ended: Promise<number>;
  private code: number | undefined;

  constructor(name: string, logFile: string, child: ChildProcess) {
    this.name = name;
    this.logFile = logFile;
    this.child = child;
    this.ended = new Promise((resolve) => {
      const end = (code: number | null, signal: string | null): void => {
        this.code = codeOf(code, signal);
        resolve(this.code);
      };
      child.once("exit", end);
      child.once("error", () => end(127, null));
    });
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`Cannot start "${this.name}"`);
    return this.child.pid;
  }

  /** The exit code, or undefined while it runs. */
  get exitCode(): number | undefined {
    return this.code;
  }

  /** Everything that it wrote so far, to standard output and standard error. */
  log(): string {
    return readFileSync(this.logFile, "utf8");
  }

  /** Waits until its output matches; throws with the end of the output when it ends or takes too long. */
  async saw(pattern: RegExp, timeoutMs = 20_000): Promise<RegExpExecArray> {
    let hit: RegExpExecArray | null = null;
    await until(
      `"${this.name}" prints ${pattern}`,
      () => {
        hit = pattern.exec(this.log());
        if (!hit && this.code !== undefined) {
          throw new Error(
            `"${this.name}" ended with ${this.code}:\n${tail(this.log())}`,
          );
        }
        return hit !== null;
      },
      timeoutMs,
      () => tail(this.log()),
    );
    return hit!;
  }

  /** Sends a signal; it may take effect later. */
  signal(signal: NodeJS.Signals): void {
    if (this.code === undefined) this.child.kill(signal);
  }

  /** SIGTERM, then SIGKILL for one that does not listen. Returns the exit code. */
  async stop(): Promise<number> {
    this.signal("SIGTERM");
    const timer = setTimeout(() => this.signal("SIGKILL"), GRACE_MS);
    const code = await this.ended;
    clearTimeout(timer);
    return code;
  }

  /** As a power cut ends it. */
  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.ended;
  }
}

/** The network and what runs in it. */
export class Lab {
  readonly dir: string;
  readonly nodes = new Map<string, LabNode>();
  private readonly running: Running[] = [];
  private readonly names = new Map<string, number>();
  private readonly env: Record<string, string>;

  private constructor(dir: string) {
    this.dir = dir;
    this.env = {
      PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin",
      HOME: dir,
      LANG: "C.UTF-8",
      TMPDIR: dir,
      NO_COLOR: "1",
    };
    for (const name of ["DENO_NO_UPDATE_CHECK", "DENO_DIR"]) {
      const value = process.env[name];
      if (value !== undefined) this.env[name] = value;
    }
  }

  /**
   * Makes a router and the named nodes.
   *
   * @param names  short: at most 12 octets, they name devices too
   * @throws Error when not started by `scripts/lab/inside`, or when an `ip` command fails
   */
  static async create(names: readonly string[] = ["hub", "a", "b"]): Promise<Lab> {
    if (!isInsideLab()) throw new Error("Cannot make a lab here: start it with scripts/lab/inside");
    const lab = new Lab(mkdtempSync(join(process.env["EDGEMESH_LAB_TMP"]!, "lab-")));
    try {
      await lab.shell(
        "ip netns add router && nsenter --net=/run/netns/router sh -c '" + ROUTER_SYSCTL + "; ip link set lo up'",
      );
      for (const name of names) await lab.addNode(name);
    } catch (error) {
      await lab.close();
      throw error;
    }
    return lab;
  }

  /** Adds one more machine and its link to the router. */
  async addNode(name: string): Promise<LabNode> {
    const number = this.nodes.size + 1;
    const node: LabNode = {
      name,
      ip4: `10.71.${number}.2`,
      ip6: `fd71:0:0:${number}::2`,
      gateway4: `10.71.${number}.1`,
      gateway6: `fd71:0:0:${number}::1`,
      dir: join(this.dir, name),
    };
    mkdirSync(node.dir, { mode: 0o700 });
    await this.shell(`
      ip netns add ${name}
      ip -n router link add to-${name} type veth peer name eth0 netns ${name}
      nsenter --net=/run/netns/${name} sysctl -qw ${QUIET_IPV6} net.ipv6.conf.eth0.accept_dad=0
      nsenter --net=/run/netns/router sysctl -qw net.ipv6.conf.to-${name}.accept_dad=0
      ip -n ${name} link set lo up
      ip -n ${name} link set eth0 up
      ip -n ${name} addr add ${node.ip4}/24 dev eth0
      ip -n ${name} addr add ${node.ip6}/64 dev eth0 nodad
      ip -n router link set to-${name} up
      ip -n router addr add ${node.gateway4}/24 dev to-${name}
      ip -n router addr add ${node.gateway6}/64 dev to-${name} nodad
      ip -n ${name} route add default via ${node.gateway4}
      ip -n ${name} route add default via ${node.gateway6}
    `);
    this.nodes.set(name, node);
    return node;
  }

  node(name: string): LabNode {
    const node = this.nodes.get(name);
    if (!node) throw new RangeError(`Cannot find node "${name}"`);
    return node;
  }

  /** Gives a node another IPv4 address, as a DHCP server or a new network would; the old one is gone. */
  async moveTo(name: string, ip4: string): Promise<void> {
    await this.shell(`
      ip -n ${name} -4 addr flush dev eth0
      ip -n ${name} addr add ${ip4}/24 dev eth0
      ip -n ${name} route replace default via ${this.node(name).gateway4}
    `);
  }

  /** Runs a shell script in the lab's own namespace; throws when any line of it fails. */
  async shell(script: string): Promise<string> {
    const done = await finish(spawnIn(undefined, ["sh", "-ec", script], this.env), {});
    if (done.code !== 0) throw new Error(`Cannot run "${script.trim()}": ${done.stderr.trim() || `exit ${done.code}`}`);
    return done.stdout;
  }

  /** Runs a command on a node (or "router") and waits for its end. */
  run(node: string, argv: readonly string[], options: RunOptions = {}): Promise<Finished> {
    return finish(spawnIn(node, argv, { ...this.env, ...options.env }), options);
  }

  /** Starts a program on a node. Its output goes to `<dir>/<name>.log`; a name that was used before gets a number. */
  start(node: string, wanted: string, argv: readonly string[], options: Pick<RunOptions, "env"> = {}): Running {
    const uses = (this.names.get(wanted) ?? 0) + 1;
    this.names.set(wanted, uses);
    const name = uses === 1 ? wanted : `${wanted}.${uses}`;
    const logFile = join(this.dir, `${name}.log`);
    const log = openSync(logFile, "w");
    const child = spawn("nsenter", [`--net=/run/netns/${node}`, "--", ...argv], {
      env: { ...this.env, ...options.env },
      cwd: this.node(node).dir,
      stdio: ["ignore", log, log],
    });
    closeSync(log);
    const program = new Running(name, logFile, child);
    this.running.push(program);
    if (child.pid !== undefined) {
      writeFileSync(join(process.env["EDGEMESH_LAB_TMP"]!, "pids"), `${child.pid} ${name}\n`, { flag: "a" });
    }
    return program;
  }

  /** Ends what was started here, and removes names and files. Safe to call twice. */
  async close(options: { readonly keepFiles?: boolean } = {}): Promise<void> {
    await Promise.all(this.running.map((program) => program.stop()));
    for (const name of ["router", ...this.nodes.keys()]) {
      await finish(spawnIn(undefined, ["ip", "netns", "del", name], this.env), {});
    }
    this.nodes.clear();
    if (!options.keepFiles) rmSync(this.dir, { recursive: true, force: true });
  }
}

/** No waiting for duplicate addresses and no router advertisements: addresses are there at once. */
const QUIET_IPV6 = "net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_ra=0";
const ROUTER_SYSCTL = `sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 ${QUIET_IPV6}`;

/**
 * Waits until `isTrue` says so; a condition that throws is a failure at once.
 *
 * @param what     for the message: "a has a session"
 * @param evidence what to show when time ran out
 */
export async function until(
  what: string,
  isTrue: () => boolean | Promise<boolean>,
  timeoutMs = 20_000,
  evidence: () => string = () => "",
): Promise<void> {
  const endsAt = performance.now() + timeoutMs;
  while (!(await isTrue())) {
    if (performance.now() > endsAt) throw new Error(`Waited ${timeoutMs} ms, but not: ${what}\n${evidence()}`);
    await pause(POLL_MS);
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** The last lines of a text, for messages. */
export function tail(text: string, lines = 30): string {
  return text.trimEnd().split("\n").slice(-lines).join("\n");
}

function spawnIn(
  node: string | undefined,
  argv: readonly string[],
  env: Readonly<Record<string, string>>,
): ChildProcess {
  const [program, ...args] = node === undefined ? argv : ["nsenter", `--net=/run/netns/${node}`, "--", ...argv];
  return spawn(program!, args, { env, stdio: ["pipe", "pipe", "pipe"] });
}

function finish(child: ChildProcess, options: RunOptions): Promise<Finished> {
  return new Promise((resolve) => {
    let stdout = "";
    let stderr = "";
    child.stdout!.setEncoding("utf8").on("data", (text: string) => stdout += text);
    child.stderr!.setEncoding("utf8").on("data", (text: string) => stderr += text);
    child.stdin!.on("error", () => {}); // it may not read its input
    child.stdin!.end(options.input ?? "");
    const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 60_000);
    child.once("error", (error) => {
      clearTimeout(timer);
      resolve({ code: 127, stdout, stderr: String(error) });
    });
    child.once("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code: codeOf(code, signal), stdout, stderr });
    });
  });
}

function codeOf(code: number | null, signal: string | null): number {
  return code ?? 128 + (SIGNALS[signal ?? ""] ?? 0);
}
