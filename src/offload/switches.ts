/**
 * The words for offloads, as settings and status have them. What they mean is said at `OffloadSwitches`.
 */
import type { OffloadSwitches } from "../ports.ts";

export const ALL_OFFLOADS: OffloadSwitches = Object.freeze({
  tso: true,
  uso: true,
  udpGso: true,
  udpGro: true,
  tcpMerge: true,
  udpMerge: true,
});

export const NO_OFFLOADS: OffloadSwitches = Object.freeze({
  tso: false,
  uso: false,
  udpGso: false,
  udpGro: false,
  tcpMerge: false,
  udpMerge: false,
});

const KEY_OF_WORD: ReadonlyMap<string, keyof OffloadSwitches> = new Map([
  ["tso", "tso"],
  ["uso", "uso"],
  ["udp-gso", "udpGso"],
  ["udp-gro", "udpGro"],
  ["tcp-merge", "tcpMerge"],
  ["udp-merge", "udpMerge"],
]);

/** All words, in the order of `OffloadSwitches`. */
export const OFFLOAD_WORDS: readonly string[] = [...KEY_OF_WORD.keys()];

/**
 * Reads `auto` (all; also `on`, or `true` of YAML), `none` (also `off`), a list of words (these and no other), or a list of words with "no-" before each (all but these).
 * `undefined` for anything else.
 */
export function parseOffloads(text: string): OffloadSwitches | undefined {
  if (["auto", "on", "true"].includes(text)) return ALL_OFFLOADS;
  if (["none", "off", "false"].includes(text)) return NO_OFFLOADS;
  const words = text.split(",").map((word) => word.trim());
  const isExcept = words[0]!.startsWith("no-");
  const result = { ...(isExcept ? ALL_OFFLOADS : NO_OFFLOADS) };
  for (const word of words) {
    if (word.startsWith("no-") !== isExcept) return undefined;
    const key = KEY_OF_WORD.get(isExcept ? word.slice(3) : word);
    if (key === undefined) return undefined;
    result[key] = !isExcept;
  }
  return result;
}
