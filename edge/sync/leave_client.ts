/** `leaveHub`: tells the hub that this device is no member any more, proved with the device key. */
import { EdgeError } from "../errors.ts";
import { TrustedClock } from "./clock.ts";
import { makeSigner } from "./ed25519.ts";
import { formatEndpoint, parseEndpoint } from "./endpoint.ts";
import { HttpConnection } from "./http.ts";
import { leaveMessageOf } from "./messages.ts";
import { decodeMsgpack, encodeMsgpack } from "./msgpack.ts";
import { pinOfCa } from "./pin.ts";
import { connectTls, resolveEndpoint } from "./tls.ts";

const MSGPACK = "application/msgpack";

export interface LeaveOptions {
  /** `host:port` of the hub, tried in turn */
  readonly endpoints: readonly string[];
  readonly caPem: string;
  /** Ed25519 seed (32 octets) or secret key (64) */
  readonly deviceSecretKey: Uint8Array;
  /** for each step at each address */
  readonly timeoutMs: number;
  readonly clock?: TrustedClock;
}

/**
 * Leaves. A device that is no member gets the same yes.
 * @throws EdgeError EDGE_HUB_UNREACHABLE, EDGE_HUB_UNTRUSTED or EDGE_HUB_REFUSED
 */
export async function leaveHub(options: LeaveOptions): Promise<void> {
  let failure: unknown = new EdgeError("EDGE_HUB_UNREACHABLE", "Cannot leave the hub: no endpoint is known");
  for (const text of options.endpoints) {
    const endpoint = parseEndpoint(text);
    if (endpoint === undefined) continue;
    try {
      for (const address of await resolveEndpoint(endpoint)) {
        try {
          return await leaveAt(address, options);
        } catch (error) {
          failure = error;
        }
      }
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

async function leaveAt(address: { host: string; port: number }, options: LeaveOptions): Promise<void> {
  const where = formatEndpoint(address);
  const { caPem, timeoutMs, clock = new TrustedClock() } = options;
  const caPin = pinOfCa(caPem);
  if (caPin === undefined) throw new EdgeError("EDGE_STATE_INVALID", "Cannot read the hub's CA certificate: damaged");
  const connection = new HttpConnection(await connectTls(address, { trust: { caPem, clock }, timeoutMs }), where);
  const post = (path: string, value: unknown) =>
    connection.request({
      method: "POST",
      path,
      headers: { "content-type": MSGPACK, accept: MSGPACK },
      body: encodeMsgpack(value),
    }, timeoutMs);
  try {
    const given = await post("/v1/leave/challenge", {});
    const challenge = (decodeMsgpack(given.body) as Record<string, unknown> | undefined)?.["challenge"];
    if (given.status !== 200 || !(challenge instanceof Uint8Array) || challenge.length !== 32) {
      throw new EdgeError("EDGE_PROTOCOL", `Cannot leave hub "${where}": it gave no challenge (HTTP ${given.status})`);
    }
    const device = makeSigner(options.deviceSecretKey);
    const signature = device.sign(leaveMessageOf(challenge, caPin));
    const { status } = await post("/v1/leave", { challenge, deviceKey: device.publicKey, signature });
    if (status !== 200) throw new EdgeError("EDGE_HUB_REFUSED", `Cannot leave hub "${where}": HTTP ${status}`);
  } finally {
    connection.close();
  }
}
