/**
 * What edgemesh must reach in one run on one machine (README, "Benchmarks"), and how far it is. Medians of all rounds, both
 * directions of a stream together; memory is the largest that was seen.
 */
import { killedIn, medianOf, ONE_STREAM, pool, type Round } from "./samples.ts";

/** What a goal needs to know of a contender. */
export interface Result {
  readonly id: string;
  readonly kind: "bare" | "edgemesh" | "peer";
  /** a peer's newest release, as opposed to a distribution's */
  readonly isNewest: boolean;
  readonly rounds: readonly Round[];
}

/** A goal, judged. */
export interface Judged {
  readonly what: string;
  /** "at least 1.25 x" */
  readonly wanted: string;
  /** "1.31 x wireguard-go: 3.20 against 2.44 Gbit/s", or why there is nothing to say */
  readonly found: string;
  /** undefined: could not be judged */
  readonly isReached: boolean | undefined;
}

/** edgemesh as it comes: Geneve inside WireGuard, sealed with ChaCha20-Poly1305. */
export const DEFAULT_ID = "edgemesh";

/** Memory at one moment, in megabytes. */
export interface MemorySample {
  readonly anonymous: number;
  readonly resident: number;
}

/**
 * Judges every goal that the results say something about.
 *
 * @param settled edgemesh's memory in a long run, without its start: counts beside what was seen in the rounds
 */
export function judge(results: readonly Result[], settled: readonly MemorySample[] = []): readonly Judged[] {
  const of = (id: string): Result | undefined => results.find((result) => result.id === id);
  const ours = of(DEFAULT_ID);
  const peers = results.filter(({ kind }) => kind === "peer");
  const newest = peers.filter(({ isNewest }) => isNewest);
  const fastest = best(newest, "more", ...ONE_STREAM);
  const members = of("edgemesh-aegis128l") ?? of("edgemesh-aes256gcm");
  return [
    ratio("TCP, one stream: Geneve in WireGuard", 1.25, "more", ours, fastest, "Gbit/s", ...ONE_STREAM),
    ratio(
      "TCP, one stream: native in WireGuard",
      1.25,
      "more",
      of("edgemesh-native"),
      fastest,
      "Gbit/s",
      ...ONE_STREAM,
    ),
    ...[["wireguard-go", "wireguard-go-debian"], ["nebula", "nebula-debian"]].map(([name, id]) =>
      ratio(`TCP, one stream: beside Debian's ${name}`, 5, "more", ours, of(id!), "Gbit/s", ...ONE_STREAM)
    ),
    ratio("TCP, one stream: AES-capable AEAD", 2.5, "more", members, fastest, "Gbit/s", ...ONE_STREAM),
    ratio(
      "TCP, one stream: unencrypted Geneve",
      0.35,
      "more",
      of("edgemesh-plain"),
      of("veth"),
      "Gbit/s",
      ...ONE_STREAM,
    ),
    ratio("UDP, 64 B, received", 1.5, "more", ours, best(peers, "more", "udp64.kpps"), "thousand/s", "udp64.kpps"),
    ratio("CPU seconds per GB", 0.8, "less", ours, fastest, "s", "tcp1.cpu"),
    ratio("round trip", 1, "less", ours, best(peers, "less", "ping.us"), "us", "ping.us"),
    ceiling("memory under load, anonymous", 40, ours, "load.anonymous", settled.map(({ anonymous }) => anonymous)),
    ceiling("memory under load, resident", 80, ours, "load.resident", settled.map(({ resident }) => resident)),
    full(ours),
  ];
}

/** The contender with the best median, among those that have one. */
export function best<T extends Result>(
  among: readonly T[],
  better: "more" | "less",
  ...keys: readonly string[]
): T | undefined {
  let found: T | undefined;
  let most: number | undefined;
  for (const result of among) {
    const value = medianOf(result.rounds, ...keys);
    if (value === undefined) continue;
    if (most === undefined || (better === "more" ? value > most : value < most)) [found, most] = [result, value];
  }
  return found;
}

function ratio(
  what: string,
  wanted: number,
  better: "more" | "less",
  ours: Result | undefined,
  theirs: Result | undefined,
  unit: string,
  ...keys: readonly string[]
): Judged {
  const words = `at ${better === "more" ? "least" : "most"} ${wanted} x`;
  const [x, y] = [ours && medianOf(ours.rounds, ...keys), theirs && medianOf(theirs.rounds, ...keys)];
  if (x === undefined || y === undefined || y === 0) {
    return { what, wanted: words, found: "not measured", isReached: undefined };
  }
  const digits = y >= 100 ? 0 : 2;
  return {
    what,
    wanted: words,
    found: `${(x / y).toFixed(2)} x ${theirs!.id}: ${x.toFixed(digits)} against ${y.toFixed(digits)} ${unit}`,
    isReached: better === "more" ? x / y >= wanted : x / y <= wanted,
  };
}

function ceiling(
  what: string,
  megabytes: number,
  ours: Result | undefined,
  key: string,
  settled: readonly number[],
): Judged {
  const values = [...(ours === undefined ? [] : pool(ours.rounds, key)), ...settled];
  const wanted = `at most ${megabytes} MB`;
  if (values.length === 0) return { what, wanted, found: "not measured", isReached: undefined };
  const most = Math.max(...values);
  return { what, wanted, found: `${most.toFixed(1)} MB`, isReached: most <= megabytes };
}

/** A tenth less is noise between rounds of one machine; a program that runs short of memory loses far more. */
const FULL_SPEED = 0.9;

function full(ours: Result | undefined): Judged {
  const [what, wanted] = ["full speed in a cgroup of 96 MB", `at least ${FULL_SPEED} x`];
  const killed = ours && killedIn(ours.rounds, "limited.killed");
  if (killed) return { what, wanted, found: killed, isReached: false };
  const limited = ours && medianOf(ours.rounds, "limited.gbps");
  const free = ours && medianOf(ours.rounds, "tcp1.up.gbps");
  if (limited === undefined || free === undefined) return { what, wanted, found: "not measured", isReached: undefined };
  const found = `${(limited / free).toFixed(2)} x itself: ${limited.toFixed(2)} against ${free.toFixed(2)} Gbit/s`;
  return { what, wanted, found, isReached: limited / free >= FULL_SPEED };
}
