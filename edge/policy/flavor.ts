/**
 * Plain Kubernetes' reading of a NetworkPolicy where it is not Cilium's: a section whose type is not listed does nothing.
 * @see facts policy.md sections 1 and 2
 */

/** The document as Cilium would have to see it to do what Kubernetes says. Takes documents that were accepted. */
export function withoutInertSections(document: unknown): unknown {
  const { kind, spec } = (document ?? {}) as { kind?: unknown; spec?: Readonly<Record<string, unknown>> };
  const types = spec?.["policyTypes"];
  if (kind !== "NetworkPolicy" || !Array.isArray(types) || types.length === 0) return document;
  const kept = Object.entries(spec!).filter(([name]) =>
    (name !== "ingress" || types.includes("Ingress")) && (name !== "egress" || types.includes("Egress"))
  );
  return { ...document as Record<string, unknown>, spec: Object.fromEntries(kept) };
}
