/** What people call record types and answer codes: in flow records, on pages, in logs. @see IANA, DNS parameters */

const TYPE_NAMES: ReadonlyMap<number, string> = new Map([
  [1, "A"],
  [2, "NS"],
  [5, "CNAME"],
  [6, "SOA"],
  [12, "PTR"],
  [13, "HINFO"],
  [15, "MX"],
  [16, "TXT"],
  [28, "AAAA"],
  [29, "LOC"],
  [33, "SRV"],
  [35, "NAPTR"],
  [39, "DNAME"],
  [43, "DS"],
  [46, "RRSIG"],
  [47, "NSEC"],
  [48, "DNSKEY"],
  [50, "NSEC3"],
  [52, "TLSA"],
  [64, "SVCB"],
  [65, "HTTPS"],
  [251, "IXFR"],
  [252, "AXFR"],
  [255, "ANY"],
  [257, "CAA"],
]);

const RCODE_NAMES = [
  "NOERROR",
  "FORMERR",
  "SERVFAIL",
  "NXDOMAIN",
  "NOTIMP",
  "REFUSED",
  "YXDOMAIN",
  "YXRRSET",
  "NXRRSET",
  "NOTAUTH",
  "NOTZONE",
];

/** `A`, `AAAA`, ...; `TYPE<n>` for what has no name here (RFC 3597 §5). */
export function nameOfType(type: number): string {
  return TYPE_NAMES.get(type) ?? `TYPE${type}`;
}

/** `NOERROR`, `NXDOMAIN`, ...; `RCODE<n>` for what has no name here. */
export function nameOfRcode(rcode: number): string {
  return RCODE_NAMES[rcode] ?? `RCODE${rcode}`;
}
