/** How a dry run is shown: what a change would newly drop, by which rule, and who could not be asked. */
import type { DryRunFlow, DryRunMember, DryRunReport } from "../sync/dry_run.ts";
import { clean, table } from "./output.ts";

const HEADINGS = ["MEMBER", "FLOW", "FLOWS", "NOW", "THEN", "BY"];

/** Text for people, each line with its line feed. */
export function dryRunText({ members }: DryRunReport): string {
  const answered = members.filter(({ result }) => result !== null && result.fault === undefined);
  const rows = answered.flatMap(({ name, result }) => result!.flows.map((flow) => rowOf(name, flow)));
  const total = sum(answered, (member) => member.result!.total);
  const lookedAt = sum(answered, (member) => member.result!.lookedAt);
  const toProxy = sum(answered, (member) => member.result!.toProxy);
  const lines: string[] = [];
  if (rows.length > 0) lines.push(table(HEADINGS, rows).trimEnd());
  if (total > rows.length) lines.push(`and ${total - rows.length} more that are not shown`);
  const seen = `${plural(lookedAt, "flow")} of ${plural(answered.length, "member")} looked at`;
  if (answered.length === 0 && members.length > 0) {
    lines.push("what would be newly dropped is not known: no member answered");
  } else lines.push(`${total === 0 ? "nothing" : total} would be newly dropped (${seen})`);
  if (toProxy > 0) lines.push(`${plural(toProxy, "flow")} would newly be judged by a proxy, request by request`);
  lines.push(...unheard(members));
  return lines.map((line) => `${line}\n`).join("");
}

function rowOf(member: string, flow: DryRunFlow): string[] {
  const { direction, source, destination, peer, protocol, port, count, before, after, isAudited } = flow;
  const isIcmp = protocol.startsWith("ICMP");
  const at = isIcmp ? `${protocol} type ${port}` : `${port}/${protocol}`;
  const named = (address: string, isPeer: boolean) => isPeer && peer !== null ? `${peer} (${address})` : address;
  const ends = `${named(source, direction === "ingress")} -> ${named(destination, direction === "egress")}`;
  return [
    member,
    `${direction} ${ends} ${at}`,
    String(count),
    before.verdict,
    isAudited ? `${after.verdict} (audit)` : after.verdict,
    after.rule ?? "no rule allows it",
  ].map(clean);
}

/** Members that said nothing, by the reason, so that nobody takes their silence for consent. */
function unheard(members: readonly DryRunMember[]): string[] {
  const byReason = new Map<string, string[]>();
  for (const { name, reason, state } of members) {
    if (reason === null) continue;
    const what = state === "not-asked" ? "not asked" : "no answer";
    const key = `${what}, ${clean(reason)}`;
    byReason.set(key, [...byReason.get(key) ?? [], clean(name)]);
  }
  return [...byReason].map(([reason, names]) => {
    const shown = names.slice(0, 10).join(", ");
    return `${reason}: ${shown}${names.length > 10 ? ` and ${names.length - 10} more` : ""}`;
  });
}

function sum(members: readonly DryRunMember[], of: (member: DryRunMember) => number): number {
  return members.reduce((total, member) => total + of(member), 0);
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
