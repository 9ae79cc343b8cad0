/** Prefixes in policies: strict text, host bits cleared, holes checked. @see facts policy.md sections 1, 5 and 13 */
import { formatPrefix, type IpPrefix, maskedPrefix, parseAddress, parsePrefix, prefixContains } from "../ip/address.ts";
import { field, joinPath, type Problems, quote } from "./fields.ts";

/** `address/length`; a bare address is refused, as Kubernetes and Cilium 1.20 do. */
export function readPrefix(value: unknown, path: string, problems: Problems): IpPrefix | undefined {
  const text = problems.text(value, path);
  if (text === undefined) return undefined;
  const prefix = parsePrefix(text);
  if (prefix !== undefined) return maskedPrefix(prefix);
  const address = parseAddress(text);
  const hint = address === undefined ? "" : `; did you mean "${text}/${address.length * 8}"?`;
  return problems.add(path, "BAD_VALUE", `${quote(text)} is no prefix (address/length)${hint}`);
}

/**
 * The holes of a prefix.
 * @param isStrict a hole as large as the prefix is refused (NetworkPolicy); else only a larger one is (Cilium)
 */
export function readExcept(
  value: unknown,
  path: string,
  prefix: IpPrefix | undefined,
  isStrict: boolean,
  problems: Problems,
): IpPrefix[] {
  const holes: IpPrefix[] = [];
  if (value === undefined) return holes;
  problems.items(value, path)?.forEach((item, i) => {
    const at = `${path}[${i}]`;
    const hole = readPrefix(item, at, problems);
    if (hole === undefined || prefix === undefined) return;
    const isInside = prefixContains(prefix, hole.address) &&
      (isStrict ? hole.length > prefix.length : hole.length >= prefix.length);
    if (isInside) holes.push(hole);
    else problems.add(at, "BAD_VALUE", `${formatPrefix(hole)} is not inside ${formatPrefix(prefix)}`);
  });
  return holes;
}

/** Holes of prefixes that are not known here: those of a CIDR group. */
export function readHoles(value: unknown, path: string, problems: Problems): IpPrefix[] {
  const holes: IpPrefix[] = [];
  if (value === undefined) return holes;
  problems.items(value, path)?.forEach((item, i) => {
    const hole = readPrefix(item, `${path}[${i}]`, problems);
    if (hole !== undefined) holes.push(hole);
  });
  return holes;
}

/** `{cidr, except}` of an ipBlock. */
export function readIpBlock(
  value: unknown,
  path: string,
  problems: Problems,
): { prefix: IpPrefix; except: IpPrefix[] } | undefined {
  const fields = problems.object(value, path, ["cidr", "except"]);
  if (fields === undefined) return undefined;
  const cidr = field(fields, "cidr");
  const prefix = cidr === undefined
    ? problems.add(joinPath(path, "cidr"), "MISSING", "ipBlock without a cidr")
    : readPrefix(cidr, joinPath(path, "cidr"), problems);
  const except = readExcept(field(fields, "except"), joinPath(path, "except"), prefix, true, problems);
  return prefix && { prefix, except };
}
