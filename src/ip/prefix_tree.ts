/**
 * Prefixes as a tree: what lies around a prefix, and what lies within it. For control work, where values are objects and every
 * change has to find what it touches; the packet path has `PrefixTable`.
 *
 * A binary radix tree per family with paths folded: a node for each prefix held, and one where two of them part. A question costs
 * the depth, at most the address length, and not the number of prefixes.
 */
import { readI32 } from "../bytes/integers.ts";
import type { IpAddress, IpPrefix } from "./address.ts";

/** A folded path. `a` to `d` are the words of the prefix with host bits cleared; IPv4 has `a` alone. */
interface Node<V> {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly d: number;
  readonly length: number;
  /** `undefined`: only a fork */
  value: V | undefined;
  /** by the bit after the prefix */
  zero: Node<V> | undefined;
  one: Node<V> | undefined;
}

/** Prefix -> value, for both families. Host bits of prefixes that are given are ignored. Values are never `undefined`. */
export class PrefixTree<V> {
  #v4: Node<V> | undefined;
  #v6: Node<V> | undefined;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The value of exactly this prefix. */
  get(prefix: IpPrefix): V | undefined {
    const wanted = nodeOf<V>(prefix);
    let node = this.#root(prefix.address);
    while (node !== undefined && node.length < wanted.length && holds(node, wanted)) node = next(node, wanted);
    return node !== undefined && node.length === wanted.length && holds(node, wanted) ? node.value : undefined;
  }

  /** Adds a prefix, or replaces its value. */
  set(prefix: IpPrefix, value: V): void {
    const made = nodeOf<V>(prefix);
    made.value = value;
    const root = this.#root(prefix.address);
    const after = root === undefined ? made : this.#insert(root, made);
    if (root === undefined) this.#size++;
    this.#setRoot(prefix.address, after);
  }

  /** @returns the node that stands in the place of `node` now */
  #insert(node: Node<V>, made: Node<V>): Node<V> {
    const common = commonLength(node, made);
    if (common < node.length && common < made.length) {
      const fork = cut(made, common);
      link(fork, node);
      link(fork, made);
      this.#size++;
      return fork;
    }
    if (common < node.length) { // the new one is around it
      link(made, node);
      this.#size++;
      return made;
    }
    if (node.length === made.length) {
      if (node.value === undefined) this.#size++;
      node.value = made.value;
      return node;
    }
    const below = next(node, made);
    if (below === undefined) this.#size++;
    link(node, below === undefined ? made : this.#insert(below, made));
    return node;
  }

  /** Removes exactly this prefix; whether it was there. */
  delete(prefix: IpPrefix): boolean {
    const wanted = nodeOf<V>(prefix);
    const before = this.#size;
    const root = this.#root(prefix.address);
    if (root !== undefined) this.#setRoot(prefix.address, this.#remove(root, wanted));
    return this.#size < before;
  }

  #remove(node: Node<V>, wanted: Node<V>): Node<V> | undefined {
    if (node.length > wanted.length || !holds(node, wanted)) return node;
    if (node.length === wanted.length) {
      if (node.value !== undefined) this.#size--;
      node.value = undefined;
      return folded(node);
    }
    const below = next(node, wanted);
    if (below === undefined) return node;
    const after = this.#remove(below, wanted);
    if (after === below) return node;
    if (bitAt(wanted, node.length) === 0) node.zero = after;
    else node.one = after;
    return folded(node);
  }

  /** Values of the prefixes around a prefix, itself among them, longest first. */
  around(prefix: IpPrefix): V[] {
    const wanted = nodeOf<V>(prefix);
    const found: V[] = [];
    let node = this.#root(prefix.address);
    while (node !== undefined && node.length <= wanted.length && holds(node, wanted)) {
      if (node.value !== undefined) found.push(node.value);
      node = node.length < wanted.length ? next(node, wanted) : undefined;
    }
    return found.reverse();
  }

  /** Value of the longest prefix around a prefix, itself among them. */
  longest(prefix: IpPrefix): V | undefined {
    const wanted = nodeOf<V>(prefix);
    let found: V | undefined;
    let node = this.#root(prefix.address);
    while (node !== undefined && node.length <= wanted.length && holds(node, wanted)) {
      if (node.value !== undefined) found = node.value;
      node = node.length < wanted.length ? next(node, wanted) : undefined;
    }
    return found;
  }

  /** Values of the prefixes within a prefix, itself among them, in no order that means anything. */
  within(prefix: IpPrefix): V[] {
    const wanted = nodeOf<V>(prefix);
    let node = this.#root(prefix.address);
    while (node !== undefined && node.length < wanted.length && holds(node, wanted)) node = next(node, wanted);
    return node !== undefined && node.length >= wanted.length && holds(wanted, node) ? valuesOf(node) : [];
  }

  /** All values. */
  values(): V[] {
    return [
      ...(this.#v4 === undefined ? [] : valuesOf(this.#v4)),
      ...(this.#v6 === undefined ? [] : valuesOf(this.#v6)),
    ];
  }

  #root(address: IpAddress): Node<V> | undefined {
    return address.length === 4 ? this.#v4 : this.#v6;
  }

  #setRoot(address: IpAddress, root: Node<V> | undefined): void {
    if (address.length === 4) this.#v4 = root;
    else this.#v6 = root;
  }
}

function nodeOf<V>({ address, length }: IpPrefix): Node<V> {
  const isV4 = address.length === 4;
  if (!Number.isInteger(length) || length < 0 || length > 8 * address.length || (!isV4 && address.length !== 16)) {
    throw new RangeError(`Cannot use prefix of ${address.length} octets and length ${length}: out of range`);
  }
  return {
    a: readI32(address, 0) & maskOf(length),
    b: isV4 ? 0 : readI32(address, 4) & maskOf(length - 32),
    c: isV4 ? 0 : readI32(address, 8) & maskOf(length - 64),
    d: isV4 ? 0 : readI32(address, 12) & maskOf(length - 96),
    length,
    value: undefined,
    zero: undefined,
    one: undefined,
  };
}

/** Mask of the first bits of a word; any number of bits. */
function maskOf(bits: number): number {
  return bits >= 32 ? -1 : bits <= 0 ? 0 : -1 << (32 - bits);
}

/** A fork at the first bits of a node. */
function cut<V>({ a, b, c, d }: Node<V>, length: number): Node<V> {
  return {
    a: a & maskOf(length),
    b: b & maskOf(length - 32),
    c: c & maskOf(length - 64),
    d: d & maskOf(length - 96),
    length,
    value: undefined,
    zero: undefined,
    one: undefined,
  };
}

function bitAt({ a, b, c, d }: Node<unknown>, at: number): number {
  const word = at < 32 ? a : at < 64 ? b : at < 96 ? c : d;
  return (word >>> (31 - (at & 31))) & 1;
}

/** The child on the way to another node that is longer. */
function next<V>(node: Node<V>, to: Node<V>): Node<V> | undefined {
  return bitAt(to, node.length) === 0 ? node.zero : node.one;
}

function link<V>(node: Node<V>, below: Node<V>): void {
  if (bitAt(below, node.length) === 0) node.zero = below;
  else node.one = below;
}

/** Whether the outer prefix lies around the inner one, which is as long or longer. */
function holds({ a, b, c, d, length }: Node<unknown>, inner: Node<unknown>): boolean {
  return ((a ^ inner.a) & maskOf(length)) === 0 && ((b ^ inner.b) & maskOf(length - 32)) === 0 &&
    ((c ^ inner.c) & maskOf(length - 64)) === 0 && ((d ^ inner.d) & maskOf(length - 96)) === 0;
}

/** Number of first bits that two have in common. */
function commonLength(x: Node<unknown>, y: Node<unknown>): number {
  const most = Math.min(x.length, y.length);
  let common = 0;
  for (const difference of [x.a ^ y.a, x.b ^ y.b, x.c ^ y.c, x.d ^ y.d]) {
    common += Math.clz32(difference);
    if (difference !== 0 || common >= most) break;
  }
  return Math.min(most, common);
}

/** The node, or what is left of one without a value. */
function folded<V>(node: Node<V>): Node<V> | undefined {
  if (node.value !== undefined || (node.zero !== undefined && node.one !== undefined)) return node;
  return node.zero ?? node.one;
}

function valuesOf<V>(root: Node<V>): V[] {
  const found: V[] = [];
  const waiting: Node<V>[] = [root];
  for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
    if (node.value !== undefined) found.push(node.value);
    if (node.zero !== undefined) waiting.push(node.zero);
    if (node.one !== undefined) waiting.push(node.one);
  }
  return found;
}
