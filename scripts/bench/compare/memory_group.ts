/** Memory cgroups of either version with a limit, for a program that must live within one. */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pause } from "../../lab/lab.ts";

/** where they are, what holds the limit, and what counts those that the kernel killed for it */
const KINDS = [
  ["/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"],
  ["/sys/fs/cgroup", "memory.max", "memory.events"],
] as const;
/** a group is in use for a moment longer than its last program */
const REMOVE_MS = 2_000;

export class MemoryGroup {
  readonly folder: string;

  private readonly events: string;

  private constructor(folder: string, events: string) {
    this.folder = folder;
    this.events = join(folder, events);
  }

  /** `undefined` when we may not make one here. */
  static make(name: string, limitBytes: number): MemoryGroup | undefined {
    for (const [base, limit, events] of KINDS) {
      const folder = join(base, `edgemesh-bench-${process.ppid}-${Date.now()}-${name}`);
      try {
        mkdirSync(folder);
        if (existsSync(join(folder, limit))) {
          writeFileSync(join(folder, limit), String(limitBytes));
          return new MemoryGroup(folder, events);
        }
        rmdirSync(folder);
      } catch {
        // not ours to make
      }
    }
    return undefined;
  }

  /** What to put before a command, so that it runs inside. */
  get prefix(): readonly string[] {
    return ["sh", "-c", `echo $$ >${this.folder}/cgroup.procs && exec "$@"`, "in-group"];
  }

  /** How many programs in it the kernel has killed because they wanted more. */
  get kills(): number {
    return Number(/^oom_kill (\d+)$/m.exec(readFileSync(this.events, "utf8"))?.[1] ?? 0);
  }

  /** The programs in it must have ended. @throws Error when it is still in use after two seconds */
  async remove(): Promise<void> {
    const endsAt = performance.now() + REMOVE_MS;
    for (;;) {
      try {
        return rmdirSync(this.folder);
      } catch (error) {
        if (performance.now() > endsAt) throw error;
        await pause(50);
      }
    }
  }
}
