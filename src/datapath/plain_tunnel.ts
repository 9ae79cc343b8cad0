/**
 * The tunnel without encryption, for a mesh whose underlay is trusted (`encryption: none`): the same Geneve or VXLAN as inside
 * WireGuard, as the payload of ordinary datagrams.
 *
 *     | outer IP, UDP: made by the kernel | Geneve or VXLAN 8 | Ethernet 14 | inner packet |
 *
 * The socket is bound to this node's underlay address, so that peers see the source that they expect, and to the tunnel's own
 * port. It is opened when the mesh asks for it, never before. When the mesh turns encryption on again it stays, and what still
 * comes on it is dropped with a reason: so it can be seen who has not heard yet.
 */
import { equalRange } from "../bytes/compare.ts";
import type { IpAddress } from "../ip/address.ts";
import { UNDERLAY_ADDR_BYTES, type UnderlayAddr, writeUnderlayAddr } from "../ip/underlay_addr.ts";
import type { OffloadSwitches, Underlay } from "../ports.ts";
import { GENEVE_PORT, VXLAN_PORT } from "../wire/numbers.ts";
import type { ArenaLayout } from "./arena.ts";
import type { SetSelf } from "./control.ts";
import { PLAIN_ENVELOPE_BYTES, writePlainTemplate } from "./encapsulation.ts";
import { SealedRuns } from "./sealed_run.ts";

/**
 * Opens the socket. It replaces the one opened before, which is closed by then.
 * @throws Error when the port is taken or the address is not this machine's: the datapath cannot go on then
 */
export type OpenPlain = (local: UnderlayAddr) => Underlay;

export class PlainTunnel {
  /** the mesh does without encryption: everything is sent here */
  isOn = false;
  /** absent until it was needed for the first time */
  underlay: Underlay | undefined = undefined;
  /** datagrams on their way out; there when `underlay` is */
  runs: SealedRuns | undefined = undefined;
  /** refusals of the socket that were counted */
  countedSendErrors = 0;
  /** what stands before the inner packet: the same for all peers, as the identity in it is ours */
  readonly template = new Uint8Array(PLAIN_ENVELOPE_BYTES);
  readonly #arena: Uint8Array;
  readonly #layout: ArenaLayout;
  readonly #open: OpenPlain | undefined;
  #local: UnderlayAddr | undefined;
  /** for a socket that is opened later; absent: as it is opened */
  #switches: OffloadSwitches | undefined;
  /** of sockets that are closed */
  #changesBefore = 0;
  #port = GENEVE_PORT;
  readonly #peers: (IpAddress | undefined)[] = [];
  /** by peer slot: an address record of it stands in the arena */
  readonly #isKnown: Uint8Array;

  constructor(arena: Uint8Array, layout: ArenaLayout, open: OpenPlain | undefined) {
    this.#arena = arena;
    this.#layout = layout;
    this.#open = open;
    this.#isKnown = new Uint8Array(layout.maxPeers);
  }

  /** @throws Error when the socket is needed and cannot be opened */
  setSelf(self: SetSelf): void {
    this.isOn = self.encryption === "none";
    writePlainTemplate(this.template, self.tunnelProtocol, self.identity);
    this.#port = self.tunnelProtocol === "geneve" ? GENEVE_PORT : VXLAN_PORT;
    for (let slot = 0; slot < this.#peers.length; slot++) this.putPeer(slot, this.#peers[slot]);
    if (this.isOn && self.plain !== undefined) this.#listen(self.plain);
  }

  /** Takes where a peer's tunnel listens; `undefined`: nothing is sent to it. */
  putPeer(slot: number, to: IpAddress | undefined): void {
    this.#peers[slot] = to;
    this.#isKnown[slot] = to === undefined ? 0 : 1;
    if (to !== undefined) {
      writeUnderlayAddr(this.#arena, this.addressAt(slot), { address: to, port: this.#port, scope: 0 });
    }
  }

  /** Whether it is known where to send to a peer. */
  isKnown(slot: number): boolean {
    return this.#isKnown[slot] === 1;
  }

  /** Arena offset of the address record of a peer. */
  addressAt(slot: number): number {
    return this.#layout.plainAddressesAt + slot * UNDERLAY_ADDR_BYTES;
  }

  /** As `Underlay.switchOffload`. */
  switchOffload(switches: OffloadSwitches): void {
    this.#switches = switches;
    this.underlay?.switchOffload(switches);
  }

  /** As `Underlay.offloadChanges`. */
  get offloadChanges(): number {
    return this.#changesBefore + (this.underlay === undefined ? 0 : this.underlay.offloadChanges);
  }

  flush(): void {
    if (this.runs !== undefined) this.runs.flush();
  }

  #listen(address: IpAddress): void {
    const local = { address, port: this.#port, scope: 0 };
    if (this.underlay !== undefined && isSame(local, this.#local)) return;
    if (this.#open === undefined) throw new Error("Cannot open the unencrypted tunnel: there is no socket for it");
    this.#changesBefore = this.offloadChanges + 1;
    this.underlay?.close();
    this.underlay = undefined;
    this.runs = undefined;
    this.underlay = this.#open(local);
    if (this.#switches !== undefined) this.underlay.switchOffload(this.#switches);
    this.countedSendErrors = this.underlay.sendErrorCount;
    this.runs = new SealedRuns(this.underlay, this.#layout.plainAt, this.#layout.plainEnd);
    this.#local = local;
  }
}

function isSame(a: UnderlayAddr, b: UnderlayAddr | undefined): boolean {
  return b !== undefined && a.port === b.port && a.address.length === b.address.length &&
    equalRange(a.address, 0, b.address, 0, a.address.length);
}
