/** The kinds of Kubernetes objects that a hub keeps, and what people call them on a command line. */

export interface ObjectKind {
  readonly kind: string;
  /** lower case, as `kubectl` knows them; plurals of the kind's own name need no entry */
  readonly shortNames: readonly string[];
  readonly isNamespaced: boolean;
}

export const OBJECT_KINDS: readonly ObjectKind[] = [
  { kind: "NetworkPolicy", shortNames: ["netpol"], isNamespaced: true },
  { kind: "CiliumNetworkPolicy", shortNames: ["cnp", "ciliumnp"], isNamespaced: true },
  { kind: "CiliumClusterwideNetworkPolicy", shortNames: ["ccnp"], isNamespaced: false },
  { kind: "ClusterNetworkPolicy", shortNames: [], isNamespaced: false },
  { kind: "AdminNetworkPolicy", shortNames: ["anp"], isNamespaced: false },
  { kind: "BaselineAdminNetworkPolicy", shortNames: ["banp"], isNamespaced: false },
  { kind: "CiliumCIDRGroup", shortNames: ["cidrgroup", "cidrgroups", "ccg"], isNamespaced: false },
  { kind: "Service", shortNames: ["svc"], isNamespaced: true },
  { kind: "EndpointSlice", shortNames: [], isNamespaced: true },
  { kind: "Namespace", shortNames: ["ns"], isNamespaced: false },
];

/** The kind that a word means: its name, a plural, or a short name, in any case; the word itself for one that nobody knows. */
export function kindOf(word: string): string {
  const lower = word.toLowerCase();
  const found = OBJECT_KINDS.find(({ kind, shortNames }) =>
    shortNames.includes(lower) ||
    [kind, `${kind}s`, kind.replace(/y$/, "ies")].some((form) => form.toLowerCase() === lower)
  );
  return found?.kind ?? word;
}

/** Whether objects of a kind live in a namespace; unknown kinds do. */
export function isNamespaced(kind: string): boolean {
  return OBJECT_KINDS.find((known) => known.kind === kind)?.isNamespaced ?? true;
}
