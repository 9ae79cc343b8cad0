/**
 * The stages of `scripts/test`, in order, and the loop that runs them. A stage is one command; its tests are counted from
 * vitest's own report, a command without one counts as one test. To add a stage, add a row to `STAGES`.
 *
 * Started by `scripts/test`, which has set up the runtimes and packages. Exit code 0 only when nothing failed.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, openSync, readFileSync, rmSync } from "node:fs";
import { delimiter, join } from "node:path";

interface Stage {
  readonly name: string;
  readonly group: "static" | "unit" | "build" | "netns" | "interop" | "demo";
  readonly command: readonly string[];
  /** run first, with the machine's own network: what the command uses and keeps for the next time */
  readonly prepare?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** programs that must be there */
  readonly needs?: readonly string[];
  /** another reason why it cannot run here, or undefined */
  readonly obstacle?: () => string | undefined;
  /** only with --all, or when named */
  readonly isSlow?: boolean;
  /** in namespaces of its own where these can be had; it then tests more, and skips by name elsewhere */
  readonly likesNamespaces?: boolean;
  /** counted from vitest's report */
  readonly hasReport?: boolean;
  /** stopped, and failed, after this long */
  readonly limitS: number;
}

interface Outcome {
  readonly stage: Stage;
  readonly passed: number;
  readonly failed: number;
  /** full names of tests that skipped themselves, or the reason why the stage did not run */
  readonly skipped: readonly string[];
  readonly ran: ReadonlySet<string>;
  readonly seconds: number;
}

/** Bits of vitest's JSON report that are read here. */
interface Report {
  readonly success: boolean;
  readonly numTotalTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly fullName: string; readonly status: string }[];
  }[];
}

const ROOT = join(import.meta.dirname, "..");
const LOGS = join(ROOT, ".cache", "test");
const IS_CI = process.env["CI"] === "true";
const BUN = process.env["BUN"]!;
const DENO = process.env["DENO"]!;
const VITEST = ["node_modules/vitest/vitest.mjs", "run"];
const ON_NODE = ["node", ...VITEST];
const ON_BUN = [BUN, "--no-env-file", "--bun", ...VITEST];
const ON_DENO = [DENO, "run", "-A", ...VITEST];
const INSIDE = "scripts/lab/inside";
const MACHINE = "test/interop/kernel/machine";
/** Files of `test/netns` that are not left to --all. */
const EVERY_DAY = {
  binary: ["join", "tokens", "l7_http", "fqdn", "surroundings"],
  bun: ["join"],
  deno: ["join"],
} as const;
const PREPARE_LIMIT_MS = 300_000;
const NETNS_TOOLS = ["ip", "unshare", "nsenter", "ping", "curl"];

const args = process.argv.slice(2);
const isAll = IS_CI || args.includes("--all");
const chosen = args.filter((arg) => !arg.startsWith("--"));
/** With --all each unit test file has a process of its own: nothing passes for what another has left behind. */
const unitTests = isAll ? ["--isolate"] : [];
/**
 * Everyday, Bun and Deno run what differs between runtimes; the pure core is the same JavaScript, and the power cuts are the same
 * from source as compiled: they wait for --all.
 */
const runtimeTests = isAll || chosen.length > 0 ? [] : ["test/ffi", "test/edge"];

const STAGES: readonly Stage[] = [
  { name: "format", group: "static", command: [DENO, "task", "--quiet", "fmt:check"], limitS: 60 },
  { name: "lint", group: "static", command: [DENO, "task", "--quiet", "lint"], limitS: 120 },
  { name: "types", group: "static", command: [DENO, "task", "--quiet", "check"], limitS: 180 },
  { name: "docs", group: "static", command: [DENO, "task", "--quiet", "docs:check"], limitS: 60 },
  { name: "unit-node", group: "unit", command: [...ON_NODE, ...unitTests], hasReport: true, limitS: 600 },
  {
    name: "unit-bun",
    group: "unit",
    command: [...ON_BUN, ...unitTests, ...runtimeTests],
    likesNamespaces: true,
    hasReport: true,
    limitS: 600,
  },
  {
    name: "unit-deno",
    group: "unit",
    command: [...ON_DENO, ...unitTests, ...runtimeTests],
    likesNamespaces: true,
    hasReport: true,
    limitS: 600,
  },
  {
    name: "hostile-million",
    group: "unit",
    command: [...ON_NODE, "test/src/wire/hostile", "test/src/datapath/hostile"],
    env: { EDGEMESH_FUZZ: "1000000" },
    hasReport: true,
    isSlow: true,
    limitS: 300,
  },
  {
    name: "policy-hundred-thousand",
    group: "unit",
    command: [...ON_NODE, "test/src/policy/engine.property"],
    env: { POLICY_RUNS: "2000" }, // each a world of policies, asked for 60 flows
    hasReport: true,
    isSlow: true,
    limitS: 300,
  },
  { name: "build", group: "build", command: ["scripts/build", "--if-changed", "host", "arm64"], limitS: 300 },
  { name: "build-same-bytes", group: "build", command: ["scripts/build", "--check", "all"], isSlow: true, limitS: 600 },
  ...(["bun", "deno", "binary"] as const).map((form): Stage => ({
    name: `netns-${form}`,
    group: "netns",
    command: [INSIDE, ...ON_NODE, ...(isAll || chosen.length > 0 ? [] : EVERY_DAY[form])],
    env: { EDGEMESH_SUITE: "netns", EDGEMESH_FORM: form },
    needs: NETNS_TOOLS,
    obstacle: namespaceObstacle,
    hasReport: true,
    limitS: 900,
  })),
  {
    name: "policy-packets",
    group: "netns",
    command: [INSIDE, ...ON_NODE],
    env: { EDGEMESH_SUITE: "policy-packets", EDGEMESH_FORM: "binary" },
    needs: [...NETNS_TOOLS, "wg"],
    obstacle: namespaceObstacle,
    hasReport: true,
    isSlow: true,
    limitS: 400,
  },
  {
    name: "path-mtu",
    group: "netns",
    command: [INSIDE, ...ON_NODE],
    env: { EDGEMESH_SUITE: "path-mtu", EDGEMESH_FORM: "binary" },
    needs: [...NETNS_TOOLS, "nft"],
    obstacle: namespaceObstacle,
    hasReport: true,
    isSlow: true,
    limitS: 600,
  },
  interop("path-mtu-wireguard-go", "path_mtu.test.ts", { needs: ["wireguard-go", "wg", "python3", "nft"] }),
  interop("wireguard-go", "wireguard_go.test.ts", { needs: ["wireguard-go", "wg", "python3"] }),
  interop("wireguard-go-rekey", "wireguard_go_rekey.test.ts", {
    needs: ["wireguard-go", "wg", "python3"],
    isSlow: true,
  }),
  interop("outside", "outside.test.ts", { needs: ["wireguard-go", "wg", "python3", "curl"], isSlow: true }),
  interop("tshark", "tshark.test.ts", { needs: ["tshark", "tcpdump", "ethtool"] }),
  interop("arm64", "arm64.test.ts", {
    needs: ["qemu-aarch64-static", "mmdebstrap"],
    prepare: [MACHINE, "sysroot"],
    obstacle: () => namespaceObstacle() ?? imageObstacle("sysroot-arm64-1/lib"),
  }),
  ...(["member", "wireguard", "routing"] as const).map((what) =>
    interop(`kernel-${what}`, `kernel_${what}.test.ts`, {
      needs: ["qemu-system-aarch64", "mmdebstrap", "cpio", "zstd", "modprobe"],
      prepare: [MACHINE, "build"],
      isSlow: true,
      obstacle: () => namespaceObstacle() ?? imageObstacle("machine-arm64-4/initrd"),
    })
  ),
  {
    name: "demo",
    group: "demo",
    command: ["scripts/demo"],
    needs: NETNS_TOOLS,
    obstacle: namespaceObstacle,
    isSlow: true,
    limitS: 300,
  },
  {
    name: "demo-rootless",
    group: "demo",
    command: ["scripts/lab/as_nobody", "scripts/demo"],
    needs: [...NETNS_TOOLS, "setpriv"],
    obstacle: () => process.getuid?.() === 0 ? namespaceObstacle() : "not root: the other demo was rootless already",
    isSlow: true,
    limitS: 300,
  },
];

function interop(name: string, file: string, more: Partial<Stage>): Stage {
  return {
    name,
    group: "interop",
    command: [INSIDE, ...ON_NODE, `test/interop/${file}`],
    env: { EDGEMESH_SUITE: "interop", EDGEMESH_FORM: "binary" },
    hasReport: true,
    obstacle: namespaceObstacle,
    limitS: 900,
    ...more,
    ...(more.needs ? { needs: [...NETNS_TOOLS, ...more.needs] } : {}),
  };
}

/** Whether namespaces and TUN devices can be had is tried once, not guessed. */
let namespacesTried: { readonly reason: string | undefined } | undefined;
function namespaceObstacle(): string | undefined {
  if (!existsSync("/dev/net/tun")) return "no /dev/net/tun on this machine";
  namespacesTried ??= { reason: tryNamespaces() };
  return namespacesTried.reason;
}

function tryNamespaces(): string | undefined {
  const probe = Bun.spawnSync([
    join(ROOT, INSIDE),
    "sh",
    "-ec",
    "ip netns add x; ip tuntap add t mode tun; ip link add v type veth",
  ]);
  return probe.exitCode === 0
    ? undefined
    : probe.stderr.toString().trim().split("\n").at(-1) || "namespaces cannot be made here";
}

/** What `test/interop/kernel/machine` makes from Debian packages, and keeps. */
function imageObstacle(path: string): string | undefined {
  const image = join(process.env["EDGEMESH_CACHE"] ?? "", path);
  return process.getuid?.() === 0 || existsSync(image) ? undefined : "not root: the arm64 system cannot be unpacked";
}

function isThere(program: string): boolean {
  return (process.env["PATH"] ?? "").split(delimiter).some((folder) => existsSync(join(folder, program)));
}

function reasonToSkip(stage: Stage): string | undefined {
  const missing = (stage.needs ?? []).filter((program) => !isThere(program));
  if (missing.length > 0) return `needs ${missing.join(", ")}`;
  return stage.obstacle?.();
}

/** Runs one stage with its output in a log file; a stage that hangs is stopped with all it started. */
async function runStage(stage: Stage): Promise<Outcome> {
  const report = join(LOGS, `${stage.name}.json`);
  const logFile = join(LOGS, `${stage.name}.log`);
  rmSync(report, { force: true });
  const log = openSync(logFile, "w");
  const startedAt = performance.now();
  const isInside = stage.likesNamespaces === true && namespaceObstacle() === undefined;
  const [program, ...rest] = isInside ? [INSIDE, ...stage.command] : stage.command;
  if (stage.prepare !== undefined) {
    const [first, ...others] = stage.prepare;
    // a failure shows where what it should have made is missing
    spawnSync(first!, others, { cwd: ROOT, stdio: ["ignore", log, log], timeout: PREPARE_LIMIT_MS });
  }
  const child = spawn(program!, rest, {
    cwd: ROOT,
    detached: true, // a process group of its own, so that all of it can be stopped
    stdio: ["ignore", log, log],
    env: { ...process.env, ...stage.env, NO_COLOR: "1", ...(stage.hasReport ? { EDGEMESH_TEST_REPORT: report } : {}) },
  });
  let isLate = false;
  const stop = (signal: NodeJS.Signals): void => {
    try {
      process.kill(-child.pid!, signal);
    } catch {
      // it has ended already
    }
  };
  const timer = setTimeout(() => {
    isLate = true;
    stop("SIGTERM");
    setTimeout(() => stop("SIGKILL"), 5_000).unref();
  }, stage.limitS * 1_000);
  const code = await new Promise<number>((resolve) => {
    child.once("error", () => resolve(127));
    child.once("close", (code) => resolve(code ?? 1));
  });
  clearTimeout(timer);
  const seconds = (performance.now() - startedAt) / 1_000;
  const counts = stage.hasReport
    ? countReport(report, code)
    : { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: [], ran: new Set<string>() };
  const outcome = { stage, seconds, ...counts };
  show(outcome);
  if (outcome.failed > 0) {
    if (isLate) console.log(`     stopped after ${stage.limitS} s`);
    console.log(lastLines(logFile, 80).replace(/^/gm, "     | "));
  }
  return outcome;
}

function countReport(file: string, code: number): Pick<Outcome, "passed" | "failed" | "skipped" | "ran"> {
  const ran = new Set<string>();
  const skipped: string[] = [];
  if (!existsSync(file)) return { passed: 0, failed: 1, skipped, ran };
  const report = JSON.parse(readFileSync(file, "utf8")) as Report;
  let failed = 0;
  for (const testFile of report.testResults) {
    if (testFile.status === "failed" && !testFile.assertionResults.some(({ status }) => status === "failed")) failed++; // did not load
    for (const { fullName, status } of testFile.assertionResults) {
      const name = `${testFile.name.slice(ROOT.length + 1)} ${fullName}`;
      if (status === "failed") failed++;
      else if (status === "passed") ran.add(name);
      else skipped.push(name);
    }
  }
  // an error outside of any test, or no test at all, must not look like success
  if (failed === 0 && (code !== 0 || (ran.size === 0 && skipped.length === 0))) failed = 1;
  return { passed: ran.size, failed, skipped, ran };
}

function show({ stage, passed, failed, skipped, seconds }: Outcome): void {
  const mark = failed > 0 ? "FAIL" : "ok  ";
  const counts = `${passed} passed${failed > 0 ? `, ${failed} failed` : ""}${
    skipped.length > 0 ? `, ${skipped.length} not here` : ""
  }`;
  console.log(`${mark} ${stage.name.padEnd(20)} ${counts.padEnd(36)} ${seconds.toFixed(1).padStart(6)} s`);
}

function lastLines(file: string, lines: number): string {
  return readFileSync(file, "utf8").trimEnd().split("\n").slice(-lines).join("\n");
}

function isChosen(stage: Stage): boolean {
  if (chosen.length === 0) return isAll || !stage.isSlow;
  // a program that is to be tested must be built first
  if (stage.name === "build") {
    return STAGES.some((other) => other !== stage && other.env?.["EDGEMESH_FORM"] === "binary" && isChosen(other));
  }
  return chosen.some((name) =>
    name === stage.name || name === stage.group || (stage.group === "netns" && `netns-${name}` === stage.name)
  );
}

if (args.includes("--list")) {
  for (const stage of STAGES) console.log(`${stage.name.padEnd(20)} ${stage.group}${stage.isSlow ? ", slow" : ""}`);
  process.exit(0);
}
const unknown = chosen.filter((name) =>
  !STAGES.some((stage) => [stage.name, stage.group, stage.name.replace("netns-", "")].includes(name))
);
if (unknown.length > 0) {
  console.error(`test: no stage "${unknown.join('", "')}"; scripts/test --list shows them`);
  process.exit(2);
}

mkdirSync(LOGS, { recursive: true });
const outcomes: Outcome[] = [];
for (const stage of STAGES.filter(isChosen)) {
  const reason = reasonToSkip(stage);
  if (reason === undefined) {
    outcomes.push(await runStage(stage));
  } else {
    console.log(`${IS_CI ? "FAIL" : "skip"} ${stage.name.padEnd(20)} ${reason}`);
    outcomes.push({
      stage,
      passed: 0,
      failed: IS_CI ? 1 : 0,
      skipped: IS_CI ? [] : [reason],
      ran: new Set(),
      seconds: 0,
    });
  }
}

// A test that skips itself on one runtime and runs on another was not left out.
const ranSomewhere = new Set(outcomes.flatMap(({ ran }) => [...ran]));
// Nor was a file that says what this runtime has not, when another runtime ran its tests.
const ranFiles = new Set([...ranSomewhere].map((name) => name.split(" ")[0]));
const isElsewhere = (name: string): boolean =>
  ranSomewhere.has(name) || (name.includes("which this runtime has not") && ranFiles.has(name.split(" ")[0]));
const leftOut = [...new Set(outcomes.flatMap(({ skipped }) => skipped))].filter((name) => !isElsewhere(name));
for (const name of leftOut) console.log(`left out: ${name}`);
const passed = outcomes.reduce((sum, outcome) => sum + outcome.passed, 0);
const failed = outcomes.reduce((sum, outcome) => sum + outcome.failed, 0) + (IS_CI ? leftOut.length : 0);
console.log(`${(outcomes.reduce((sum, { seconds }) => sum + seconds, 0) / 60).toFixed(1)} minutes`);
console.log(`${passed} passed, ${failed} failed, ${IS_CI ? 0 : leftOut.length} skipped`);
process.exit(failed > 0 || passed === 0 ? 1 : 0);
