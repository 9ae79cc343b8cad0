/** Loads the engine for regular expressions (RE2) only where policies may hold one: it is large. */
import type { PolicyFeatures } from "../src/policy/features.ts";

/** What readers of these documents need. Documents may be anything. */
export async function featuresFor(documents: readonly unknown[]): Promise<PolicyFeatures> {
  if (!documents.some(mayHoldRegex)) return {};
  const { checkRegex } = await import("../src/l7/regex.ts");
  return { checkRegex };
}

/** May be true without need, never false with: expressions stand in `rules.http` only. */
function mayHoldRegex(document: unknown): boolean {
  try {
    return (JSON.stringify(document) ?? "").includes('"http"');
  } catch {
    return false; // a cycle, a bigint: no reader takes it
  }
}
