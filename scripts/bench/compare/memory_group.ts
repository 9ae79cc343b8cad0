/** Memory cgroups of either version with a limit, for a program that must live within one. */
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const KINDS = [["/sys/fs/cgroup/memory", "memory.limit_in_bytes"], ["/sys/fs/cgroup", "memory.max"]] as const;

export class MemoryGroup {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** `undefined` when we may not make one here. */
  static make(name: string, limitBytes: number): MemoryGroup | undefined {
    for (const [base, limit] of KINDS) {
      const folder = join(base, `edgemesh-bench-${process.ppid}-${Date.now()}-${name}`);
      try {
        mkdirSync(folder);
        if (existsSync(join(folder, limit))) {
          writeFileSync(join(folder, limit), String(limitBytes));
          return new MemoryGroup(folder);
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

  /** The programs in it must have ended. */
  remove(): void {
    rmdirSync(this.folder);
  }
}
