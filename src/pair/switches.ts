/** Offload switches as bits, for a word of shared memory. */
import type { OffloadSwitches } from "../ports.ts";

const NAMES = ["tso", "uso", "udpGso", "udpGro", "tcpMerge", "udpMerge"] as const;

export function packSwitches(switches: OffloadSwitches): number {
  return NAMES.reduce((bits, name, i) => switches[name] ? bits | 1 << i : bits, 0);
}

export function unpackSwitches(bits: number): OffloadSwitches {
  const isOn = (name: typeof NAMES[number]) => (bits >> NAMES.indexOf(name) & 1) === 1;
  return {
    tso: isOn("tso"),
    uso: isOn("uso"),
    udpGso: isOn("udpGso"),
    udpGro: isOn("udpGro"),
    tcpMerge: isOn("tcpMerge"),
    udpMerge: isOn("udpMerge"),
  };
}
