/** The WireGuard vectors as octets. `test/vectors/README.wireguard.md` says where they come from. */
import { fromHex } from "../../src/bytes/text.ts";
import vectors from "../vectors/wireguard.json" with { type: "json" };

export { vectors };

/** Hexadecimal of the vectors as octets. */
export function octets(hex: string): Uint8Array {
  const bytes = fromHex(hex);
  if (bytes === undefined) throw new SyntaxError(`Vector is no hexadecimal: "${hex}"`);
  return bytes;
}

/** A value of the full transcript, as fresh octets. */
export function transcript(name: keyof typeof vectors.transcript): Uint8Array {
  return octets(vectors.transcript[name]);
}
