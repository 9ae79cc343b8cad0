/**
 * Identities of a mesh file: those that it lists, and those of its nodes. A node without a number gets that of a listed identity
 * with its labels, or one computed from the labels, so that boxes with the same file lines agree without talking.
 */
import { blake2s } from "../../src/bytes/blake2s.ts";
import { formatLabelList, type Labels } from "../../src/identity/labels.ts";
import { clusterRange } from "../../src/identity/ranges.ts";

/** Numbers and their labels, one to one. */
export class IdentityBook {
  readonly #labelsOfId = new Map<number, Labels>();
  readonly #idOfLabels = new Map<string, number>();

  /** Every identity known. */
  get all(): ReadonlyMap<number, Labels> {
    return this.#labelsOfId;
  }

  /** Notes a listed identity. @returns what is wrong with it */
  add(id: number, labels: Labels): string | undefined {
    if (this.#labelsOfId.has(id)) return "is the number of another identity too";
    this.#labelsOfId.set(id, labels);
    this.#idOfLabels.set(formatLabelList(labels), id);
    return undefined;
  }

  /**
   * The identity of a node.
   * @param wanted number that the file gives it; undefined: find or compute one
   * @returns the number, or what is wrong
   */
  identityOf(labels: Labels, wanted: number | undefined, clusterId: number): number | string {
    const text = formatLabelList(labels);
    const listed = this.#idOfLabels.get(text);
    const id = wanted ?? listed ?? computed(text, clusterId);
    const known = this.#labelsOfId.get(id);
    // a listed identity with a node's number describes that node: its labels count
    if (known !== undefined && wanted !== undefined) return id;
    if (known !== undefined && formatLabelList(known) !== text) {
      return `must be given: the number ${id}, computed from the labels, belongs to other labels`;
    }
    this.#labelsOfId.set(id, labels);
    this.#idOfLabels.set(text, id);
    return id;
  }
}

function computed(labels: string, clusterId: number): number {
  const { first, last } = clusterRange(clusterId);
  const digest = blake2s(4, undefined, new TextEncoder().encode(labels));
  const number = ((digest[0]! << 24) | (digest[1]! << 16) | (digest[2]! << 8) | digest[3]!) >>> 0;
  return first + (number % (last - first + 1));
}
