/** From the records of an answer to the addresses of the name that was asked for. */
import type { DnsAnswer, DnsQuestion } from "./message.ts";

/** Addresses that an answer gives to the name that was asked for. */
export interface Resolution {
  /** text, in the order of the answer */
  readonly addresses: readonly string[];
  /** the lowest of the addresses and of every alias on the way */
  readonly ttlSeconds: number;
}

/**
 * Follows the aliases from the name that was asked for to its addresses. They belong to that name alone, as Cilium has it: the
 * aliases' targets on the way get nothing. Records of any other name are left out, wherever they stand.
 *
 * @returns undefined when no address comes of it
 * @see Cilium, pkg/fqdn/dnsproxy, ExtractMsgDetails
 */
export function resolve(question: DnsQuestion, answers: readonly DnsAnswer[]): Resolution | undefined {
  const aliases = new Map<string, DnsAnswer>();
  for (const answer of answers) {
    if (answer.target !== undefined && !aliases.has(lower(answer.name))) aliases.set(lower(answer.name), answer);
  }
  let name = lower(question.name);
  let ttlSeconds = Infinity;
  // each alias is used once: a circle ends where it began, without addresses
  for (let alias = aliases.get(name); alias !== undefined; alias = aliases.get(name)) {
    aliases.delete(name);
    ttlSeconds = Math.min(ttlSeconds, alias.ttlSeconds);
    name = lower(alias.target!);
  }
  const found = answers.filter((answer) => answer.address !== undefined && lower(answer.name) === name);
  if (found.length === 0) return undefined;
  return {
    addresses: found.map((answer) => answer.address!),
    ttlSeconds: Math.min(ttlSeconds, ...found.map((answer) => answer.ttlSeconds)),
  };
}

/** Names are ASCII here: other octets are escaped. */
function lower(name: string): string {
  return name.toLowerCase();
}
