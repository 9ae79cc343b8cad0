/**
 * The rooms and their arrows as a program: which folder may import which, and which names the core must not know.
 * A failure says why the arrow is forbidden and what to do instead, so that nobody has to remember the rules.
 *
 * The rules stand in `ROOMS`, `PACKAGES` and `BANNED` below; the rest reads source files as text. Start there.
 */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { describe, expect, it } from "vitest";
import { codeOf, importsOf } from "./source_text.ts";

const PURE =
  "src/ is the core: it runs on every runtime and in tests because it does no IO and reads no clock. Take it as an argument, " +
  "or declare what you need in src/ports.ts and let ffi/ or edge/ implement it";
const NO_EDGE_FROM_FFI =
  "ffi/ is a thin rim around C: it knows the doors of src/ports.ts, src/bytes and src/ip, and nothing of the mesh. Move the " +
  "decision to src/, or the wiring to edge/";
const SIDEWAYS =
  "rooms of src/ build on each other in one direction only (the room map in README.md). Move the shared thing down, into a room " +
  "that both may import";

/** What every room of src/ may name: numbers without behaviour, and the doors to the outside. */
const GROUND = ["src/bytes", "src/verdict.ts", "src/ports.ts"];

/** Room -> the rooms that it may import, beside itself. A path is in the longest room that is its prefix. */
const ROOMS: Readonly<Record<string, { readonly may: readonly string[]; readonly why: string }>> = {
  "src/verdict.ts": { may: [], why: SIDEWAYS },
  "src/ports.ts": { may: [], why: SIDEWAYS },
  "src/bytes": { may: [], why: SIDEWAYS },
  "src/ip": { may: GROUND, why: SIDEWAYS },
  "src/wire": { may: [...GROUND, "src/ip"], why: SIDEWAYS },
  "src/noise": { may: [...GROUND, "src/wire"], why: SIDEWAYS },
  "src/tunnel": { may: [...GROUND, "src/noise", "src/wire", "src/ip"], why: SIDEWAYS },
  "src/identity": { may: GROUND, why: SIDEWAYS },
  "src/ipcache": { may: [...GROUND, "src/ip", "src/identity"], why: SIDEWAYS },
  "src/policy": { may: [...GROUND, "src/ip", "src/identity", "src/fqdn"], why: SIDEWAYS },
  "src/l7": { may: [...GROUND, "src/policy (types)"], why: SIDEWAYS },
  "src/conntrack": { may: [...GROUND, "src/wire", "src/ip"], why: SIDEWAYS },
  "src/service": { may: [...GROUND, "src/conntrack", "src/wire", "src/ip"], why: SIDEWAYS },
  "src/fqdn": { may: [...GROUND, "src/ip"], why: SIDEWAYS },
  "src/dns": { may: [...GROUND, "src/wire", "src/ip", "src/service"], why: SIDEWAYS },
  "src/mesh": {
    may: [
      ...GROUND,
      "src/ip",
      "src/ipcache",
      "src/identity",
      "src/policy",
      "src/service",
      "src/datapath/control.ts (types)",
    ],
    why: SIDEWAYS,
  },
  "src/hub": { may: [...GROUND, "src/ip", "src/identity", "src/mesh", "src/policy"], why: SIDEWAYS },
  "src/offload": { may: [...GROUND, "src/wire", "src/ip"], why: SIDEWAYS },
  "src/pair": { may: [...GROUND, "src/ip"], why: SIDEWAYS },
  "src/datapath": { may: ["src"], why: SIDEWAYS },
  "ffi": { may: ["src/bytes", "src/ip", "src/ports.ts (types)"], why: NO_EDGE_FROM_FFI },
  "edge": { may: ["src", "ffi"], why: "edge/ wires the program up; only mod.ts, test/ and scripts/ may import it" },
  "edge/sync": {
    may: ["src", "edge (own files)"],
    why:
      "edge/sync is the wire between hub and member: both ends import it, so it must know neither. Pass what differs as an argument",
  },
  "edge/proxy": {
    may: ["src", "edge (own files)"],
    why:
      "a proxy is given its doors (edge/proxy/doors.ts) by the agent, and knows nothing of it; it is loaded only while a policy needs it",
  },
  "edge/agent": {
    may: ["src", "ffi", "edge (own files)", "edge/sync", "edge/proxy"],
    why:
      "a running member loads no hub and no command-line code (design D13: what is not used is not loaded). Let the hub or the " +
      "CLI import the agent, or move the shared thing to edge/sync or beside edge/main.ts",
  },
  "edge/hub": {
    may: ["src", "ffi", "edge (own files)", "edge/sync", "edge/agent"],
    why:
      "the hub is a member too, so it may import the agent, but never the command line: that imports the hub when a command needs it",
  },
  "edge/cli": { may: ["src", "ffi", "edge"], why: "the command line may import everything below it" },
  "mod.ts": { may: ["src", "edge"], why: "mod.ts re-exports; it reaches C only through edge/" },
};

/** npm packages: where each may be imported. What is not listed is imported nowhere. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  "@noble/hashes": ["src/hub"],
  "tweetnacl": ["src/hub", "edge"],
  "msgpackr": ["edge"],
  "hono": ["edge"],
  "@hono/node-server": ["edge"],
  "@logtape/logtape": ["edge"],
  "@peculiar/x509": ["edge/hub"],
  "reflect-metadata": ["edge/hub"],
  "commander": ["edge/cli"],
  "yaml": ["edge"],
  "valibot": ["edge"],
  "prom-client": ["edge"],
  "re2js": ["src/l7"],
  "libsodium-wrappers": ["test", "edge/ciphers_wasm.ts"],
};

/** What a running member must not load at start, with the reason; dynamic imports inside functions are fine. */
const HEAVY: Readonly<Record<string, string>> = {
  "yaml": "only apply, policy and --mesh read YAML",
  "commander": "the agent's process needs no help texts once it runs",
  "@peculiar/x509": "certificates are made by the hub",
  "reflect-metadata": "a companion of @peculiar/x509",
  "libsodium-wrappers": "WebAssembly libsodium is for places without FFI",
  "prom-client": "metrics are rendered when somebody asks",
  "re2js": "only HTTP rules and the reading of policies with them need it",
};

/** Names that src/ must not contain, outside comments and strings. */
const BANNED: readonly { readonly pattern: RegExp; readonly instead: string }[] = [
  { pattern: /\b(Deno|Bun)\b/, instead: "a runtime's name; the adapters are in ffi/runtime/" },
  { pattern: /\bfetch\s*\(/, instead: "network access belongs to edge/" },
  {
    pattern: /\b(setTimeout|setInterval|setImmediate|queueMicrotask)\b/,
    instead: "take nowMs as an argument and return when to be called next",
  },
  {
    pattern: /\bDate\s*\.\s*now\b|\bnew\s+Date\s*\(\s*\)/,
    instead: "take nowMs (monotonic) or unixMs (wall clock) as an argument",
  },
  { pattern: /\bperformance\s*\./, instead: "take nowMs as an argument" },
  { pattern: /\bMath\s*\.\s*random\b/, instead: "take RandomBytes of src/ports.ts" },
  {
    pattern: /\bcrypto\s*\.\s*(getRandomValues|randomUUID|subtle)\b/,
    instead: "take RandomBytes or Ciphers of src/ports.ts",
  },
  { pattern: /\bprocess\s*\.|\bglobalThis\b/, instead: "the environment is read in edge/config.ts only" },
  { pattern: /\bconsole\s*\./, instead: "take Log of src/ports.ts" },
  { pattern: /\bBuffer\s*\./, instead: "Uint8Array with the helpers of src/bytes" },
];

/** Rooms that a packet passes through: nothing there waits. */
const PACKET_PATH = [
  "src/bytes",
  "src/ip",
  "src/wire",
  "src/noise",
  "src/tunnel",
  "src/identity",
  "src/ipcache",
  "src/policy",
  "src/conntrack",
  "src/service",
  "src/offload",
  "src/pair",
  "src/datapath",
];

const ROOT = normalize(join(import.meta.dirname, ".."));
const FILES = ["src", "ffi", "edge"].flatMap((folder) => listFiles(folder));
if (existsSync(join(ROOT, "mod.ts"))) FILES.push("mod.ts");

describe("the rooms", () => {
  it("has files to look at", () => {
    expect(FILES.length).toBeGreaterThan(20);
  });

  it("puts every file of src/ into a room of the map", () => {
    const strangers = FILES.filter((file) => file.startsWith("src/") && roomOf(file) === undefined);
    expect(strangers, "a new room needs a line in ROOMS here and in README.md's room map").toEqual([]);
  });

  it("lets no import go against the arrows", () => {
    const faults: string[] = [];
    for (const file of FILES) {
      for (const { target, isType } of ownImports(file)) {
        const fault = faultOfArrow(file, target, isType);
        if (fault) faults.push(fault);
      }
    }
    expect(faults).toEqual([]);
  });

  it("imports each npm package only where its line says", () => {
    const faults: string[] = [];
    for (const file of FILES) {
      for (const name of packagesOf(file)) {
        const rooms = PACKAGES[name];
        if (!rooms) faults.push(`${file} imports "${name}", which has no line in PACKAGES (and DECISIONS.md)`);
        else if (!rooms.some((room) => isIn(file, room))) {
          faults.push(`${file} imports "${name}": only ${rooms.join(", ")} may`);
        }
      }
    }
    expect(faults).toEqual([]);
  });

  it("keeps node:, bun: and other built-in modules out of src/", () => {
    const faults = FILES.filter((file) => file.startsWith("src/")).flatMap((file) =>
      importsOf(read(file)).filter(({ from }) => /^[a-z]+:/.test(from)).map(({ from }) =>
        `${file} imports "${from}": ${PURE}`
      )
    );
    expect(faults).toEqual([]);
  });

  it("has no circle of imports between files", () => {
    expect(circles(FILES)).toEqual([]);
  });
});

describe("the core", () => {
  it("names no clock, no chance, no runtime, no console", () => {
    const faults: string[] = [];
    for (const file of FILES.filter((file) => file.startsWith("src/"))) {
      codeOf(read(file)).split("\n").forEach((line, index) => {
        for (const { pattern, instead } of BANNED) {
          const hit = pattern.exec(line);
          if (hit) faults.push(`${file}:${index + 1} names "${hit[0].trim()}": ${instead}. ${PURE}`);
        }
      });
    }
    expect(faults).toEqual([]);
  });

  it("waits nowhere on a packet's way", () => {
    const faults: string[] = [];
    for (const file of FILES.filter((file) => PACKET_PATH.some((room) => isIn(file, room)))) {
      codeOf(read(file)).split("\n").forEach((line, index) => {
        if (/\b(async|await|Promise)\b/.test(line)) {
          faults.push(
            `${file}:${index + 1} is asynchronous: a packet is handled within one call; do the waiting in edge/`,
          );
        }
      });
    }
    expect(faults).toEqual([]);
  });
});

describe("every file", () => {
  it("starts with a comment that says what it is for", () => {
    const faults = FILES.filter((file) => !/^(#!.*\n)?\s*(\/\*\*?[\s\S]{20,}?\*\/|(\/\/.*\n)+)/.test(read(file)));
    expect(faults, "what it is for, what calls it, what to read first").toEqual([]);
  });

  it("is named in snake_case", () => {
    expect(FILES.filter((file) => !/^[a-z0-9_/]+(\.d)?\.ts$/.test(file))).toEqual([]);
  });
});

describe("a running member", () => {
  it("loads at start only what it needs", () => {
    const faults: string[] = [];
    for (
      const entry of ["edge/main.ts", "edge/agent/datapath_worker.ts"].filter((file) => existsSync(join(ROOT, file)))
    ) {
      for (const [file, path] of closureOf(entry)) {
        for (const name of packagesOf(file, "static")) {
          const why = HEAVY[name];
          if (why) {
            faults.push(
              `${path.join(" -> ")} imports "${name}" at start: ${why}. Import it inside the function that needs it`,
            );
          }
        }
      }
    }
    expect(faults).toEqual([]);
  });
});

/** All TypeScript files below a folder, as paths from the root, sorted. */
function listFiles(folder: string): string[] {
  if (!existsSync(join(ROOT, folder))) return [];
  return readdirSync(join(ROOT, folder)).sort().flatMap((name) => {
    const path = `${folder}/${name}`;
    if (statSync(join(ROOT, path)).isDirectory()) return listFiles(path);
    return name.endsWith(".ts") ? [path] : [];
  });
}

function read(file: string): string {
  return readFileSync(join(ROOT, file), "utf8");
}

function isIn(file: string, room: string): boolean {
  return file === room || file.startsWith(`${room}/`);
}

function roomOf(file: string): string | undefined {
  return Object.keys(ROOMS).filter((room) => isIn(file, room)).sort((a, b) => b.length - a.length)[0];
}

/** Imports of other files of this repository, as paths from the root. */
function ownImports(file: string): { target: string; isType: boolean; isDynamic: boolean }[] {
  return importsOf(read(file)).filter(({ from }) => from.startsWith("."))
    .filter(({ from }) => from.endsWith(".ts"))
    .map(({ from, isType, isDynamic }) => ({ target: normalize(join(dirname(file), from)), isType, isDynamic }));
}

function packagesOf(file: string, kind: "all" | "static" = "all"): string[] {
  return importsOf(read(file))
    .filter(({ isType, isDynamic }) => !isType && !(kind === "static" && isDynamic))
    .map(({ from }) => /^(@[^/]+\/[^/]+|[a-z][^/:]*)(\/|$)/.exec(from)?.[1])
    .filter((name) => name !== undefined && !/^(bun|node):/.test(name)) as string[];
}

/** The sentence that explains a forbidden arrow, or undefined when the arrow is allowed. */
function faultOfArrow(file: string, target: string, isType: boolean): string | undefined {
  const room = roomOf(file);
  const targetRoom = roomOf(target);
  if (room === undefined) return undefined;
  const { may, why } = ROOMS[room]!;
  if (targetRoom === room) return undefined;
  const allowed = may.some((entry) => {
    if (entry.endsWith(" (types)")) return isType && isIn(target, entry.slice(0, -" (types)".length));
    if (entry === "edge (own files)") return targetRoom === "edge";
    return isIn(target, entry);
  });
  if (allowed) return undefined;
  // files beside edge/main.ts: the main program reaches every room of edge/
  if (room === "edge" && isIn(target, "edge")) return undefined;
  const reason = file.startsWith("src/") && !target.startsWith("src/") ? PURE : why;
  return `${file} imports ${target}: ${room} may import ${may.join(", ") || "nothing"}. Why: ${reason}`;
}

/** Every file that is loaded when `entry` is, with the way that leads to it. */
function closureOf(entry: string): Map<string, string[]> {
  const seen = new Map<string, string[]>([[entry, [entry]]]);
  for (const [file, path] of seen) {
    for (const { target, isType, isDynamic } of ownImports(file)) {
      if (isType || isDynamic || seen.has(target) || !existsSync(join(ROOT, target))) continue;
      seen.set(target, [...path, target]);
    }
  }
  return seen;
}

/** One line per circle of static imports, types left out: those are gone at run time. */
function circles(files: readonly string[]): string[] {
  const state = new Map<string, "open" | "done">();
  const found: string[] = [];
  const visit = (file: string, path: readonly string[]): void => {
    if (state.get(file) === "done") return;
    if (state.get(file) === "open") {
      found.push([...path.slice(path.indexOf(file)), file].join(" -> "));
      return;
    }
    state.set(file, "open");
    for (const { target, isType, isDynamic } of ownImports(file)) {
      if (!isType && !isDynamic && files.includes(target)) visit(target, [...path, file]);
    }
    state.set(file, "done");
  };
  for (const file of files) visit(file, []);
  return found;
}
