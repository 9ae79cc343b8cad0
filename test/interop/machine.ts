/**
 * A whole arm64 machine behind a node of the lab: Debian's kernel under qemu (`kernel/machine`), reached through a tap.
 *
 *   router ---- 10.71.N.2 k  tap0 10.71.100.1 ==== eth0 10.71.100.2 [the machine]         and fd71:0:0:100::1, ::2
 *
 * A folder is shared with it (/share there); files in it are how both sides tell each other how far they are.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Lab, type Running, tail, until } from "../../scripts/lab/lab.ts";

const PROGRAM = join(import.meta.dirname, "kernel/machine");
export const MACHINE_ADDRESS = "10.71.100.2";
export const MACHINE_ADDRESS6 = "fd71:0:0:100::2";
/** Emulated, a program takes its time to start. */
const PATIENCE_MS = 150_000;

const NETWORK = `
set -eu
ip addr add ${MACHINE_ADDRESS}/24 dev eth0
ip link set eth0 up
ip route add default via 10.71.100.1
ip addr add ${MACHINE_ADDRESS6}/64 dev eth0 nodad
ip route add default via fd71:0:0:100::1
`;

export class Machine {
  readonly share: string;
  private readonly lab: Lab;
  private running: Running | undefined;

  /** Makes tap and routes on node `k`. */
  static async create(lab: Lab): Promise<Machine> {
    await lab.shell(`
      ip -n k tuntap add tap0 mode tap
      ip -n k addr add 10.71.100.1/24 dev tap0
      ip -n k link set tap0 up
      ip -n k addr add fd71:0:0:100::1/64 dev tap0 nodad
      nsenter --net=/run/netns/k sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
      ip -n router route add 10.71.100.0/24 via ${lab.node("k").ip4}
      ip -n router route add fd71:0:0:100::/64 via ${lab.node("k").ip6}
    `);
    return new Machine(lab);
  }

  private constructor(lab: Lab) {
    this.lab = lab;
    this.share = join(lab.node("k").dir, "share");
    mkdirSync(this.share);
  }

  /** Boots it with a script that runs as root once the network is up; in it a line that fails ends the machine. */
  boot(script: string, limitS = 280): void {
    const file = join(this.share, "guest.sh");
    writeFileSync(file, `${NETWORK}${script}`);
    this.running = this.lab.start("k", "machine", [
      ...[
        PROGRAM,
        "run",
        "--tap",
        "tap0",
        "--share",
        this.share,
        "--memory",
        "1024",
        "--timeout",
        String(limitS),
        file,
      ],
    ], { env: { EDGEMESH_CACHE: process.env["EDGEMESH_CACHE"] ?? "" } });
  }

  /** Waits until the machine has made a file in the shared folder; its text. */
  async appears(name: string, timeoutMs = PATIENCE_MS): Promise<string> {
    const file = join(this.share, name);
    await until(
      `the machine writes "${name}"`,
      () => {
        if (this.running?.exitCode !== undefined) {
          throw new Error(
            `the machine ended with ${this.running.exitCode}:\n${this.evidence()}`,
          );
        }
        return existsSync(file);
      },
      timeoutMs,
      () => this.evidence(),
    );
    return readFileSync(file, "utf8").trim();
  }

  /** Lets the script go on behind its `until [ -e /share/done ]`, and waits for its end. */
  async finish(): Promise<{ readonly code: number; readonly output: string }> {
    writeFileSync(join(this.share, "done"), "");
    const code = await this.running!.ended;
    return { code, output: this.running!.log() };
  }

  private evidence(): string {
    const log = join(this.share, "agent.log");
    return `${tail(this.running?.log() ?? "")}\n${existsSync(log) ? tail(readFileSync(log, "utf8")) : ""}`;
  }
}
