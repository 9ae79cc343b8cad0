/**
 * The mesh as this member knows it: takes frames of entries (`entries.ts`), checks every one, and answers with what changed, as
 * commands for the datapath and inputs for the policy engine. Pure: time comes in as an argument, signature check and record
 * decoder from outside.
 *
 * - A bad entry is refused with a reason and counted; the others of its frame are unharmed (`entry_set.ts`).
 * - A frame is one transaction: a frame that is malformed as a whole changes nothing.
 * - Tables are a function of the entries alone: however the same entries are cut into frames, they end the same (`tables.ts`).
 *
 * Fed by `edge/agent/agent.ts` from the hub's stream, from disk, and from a mesh file. Read `entries.ts` first.
 */
import type { DatapathCommand } from "../datapath/control.ts";
import type {
  EntryValue,
  IdentityEntry,
  MemberRecord,
  MeshSettings,
  NamespaceEntry,
  PolicyDocument,
  ServiceEntry,
  StateFrame,
} from "./entries.ts";
import { type Changes, type Committed, EntrySet, type EntrySetOptions } from "./entry_set.ts";
import { MeshTables, type PeerOptions } from "./tables.ts";

/** Who this member is, how records are trusted, and what peers get beyond their records. */
export interface MeshStateOptions extends EntrySetOptions {
  readonly peerOptions: (member: MemberRecord) => PeerOptions;
}

/** A frame's position in the hub's history. */
export interface Position {
  readonly epoch: string;
  readonly revision: number;
}

/** What one frame changed. Empty lists where nothing did. */
export interface MeshChange {
  /** the whole frame was refused, and why; all else is then empty */
  readonly frameRefused?: string;
  /** for the datapath, in the order in which they must be applied */
  readonly commands: readonly DatapathCommand[];
  /** entries of this frame that were refused: key and reason */
  readonly refused: readonly (readonly [key: string, reason: string])[];
  readonly isSelfChanged: boolean;
  /** a member came, went or changed, this one included */
  readonly isMembersChanged: boolean;
  readonly isSettingsChanged: boolean;
  readonly identities: Changes<number, IdentityEntry>;
  readonly namespaces: Changes<string, NamespaceEntry>;
  /** by "<kind>/<ns>/<name>" */
  readonly policies: Changes<string, PolicyDocument>;
  /** CiliumCIDRGroups, by name */
  readonly cidrGroups: Changes<string, PolicyDocument>;
  /** by "<ns>/<name>" */
  readonly services: Changes<string, ServiceEntry>;
  /** what stood before, by entry key, where a policy, a CIDR group or a service came, went or changed; undefined: nothing */
  readonly replaced: ReadonlyMap<string, PolicyDocument | ServiceEntry | undefined>;
}

const NOTHING: MeshChange = {
  commands: [],
  refused: [],
  isSelfChanged: false,
  isMembersChanged: false,
  isSettingsChanged: false,
  identities: { puts: [], deletes: [] },
  namespaces: { puts: [], deletes: [] },
  policies: { puts: [], deletes: [] },
  cidrGroups: { puts: [], deletes: [] },
  services: { puts: [], deletes: [] },
  replaced: new Map(),
};

/** The state and the tables made from it. One per running member. */
export class MeshState {
  readonly #options: MeshStateOptions;
  readonly #entries: EntrySet;
  readonly #tables = new MeshTables();
  #position: Position | undefined;
  #refusedTotal = 0;

  constructor(options: MeshStateOptions) {
    this.#options = options;
    this.#entries = new EntrySet(options);
  }

  /** Of the last frame applied; undefined before the first. */
  get position(): Position | undefined {
    return this.#position;
  }

  get settings(): MeshSettings | undefined {
    return this.#entries.settings;
  }

  /** This member's own record; undefined before the first frame, and after the hub took it back. */
  get self(): MemberRecord | undefined {
    return this.#tables.members.get(this.#options.selfName);
  }

  /** Usable members by "<cluster>/<name>", this one among them. */
  get members(): ReadonlyMap<string, MemberRecord> {
    return this.#tables.members;
  }

  get identities(): ReadonlyMap<number, IdentityEntry> {
    return this.#entries.identities;
  }

  get namespaces(): ReadonlyMap<string, NamespaceEntry> {
    return this.#entries.namespaces;
  }

  /** by "<kind>/<ns>/<name>" */
  get policies(): ReadonlyMap<string, PolicyDocument> {
    return this.#entries.policies;
  }

  /** CiliumCIDRGroups by name */
  get cidrGroups(): ReadonlyMap<string, PolicyDocument> {
    return this.#entries.cidrGroups;
  }

  /** by "<ns>/<name>" */
  get services(): ReadonlyMap<string, ServiceEntry> {
    return this.#entries.services;
  }

  /** Entries that are not used now, by key, with the reason: bad ones, losers of a claim, members that ran out. */
  get refused(): ReadonlyMap<string, string> {
    return new Map([...this.#entries.refused, ...this.#tables.conflicts]);
  }

  /** Entries and frames refused since start. */
  get refusedTotal(): number {
    return this.#refusedTotal;
  }

  /** All entries as they came, refused ones too: what goes to disk. */
  entries(): readonly (readonly [string, EntryValue])[] {
    return [...this.#entries.raw];
  }

  /** Prefixes that belong into the TUN device, in canonical text, none covered by another. */
  routes(): readonly string[] {
    return this.#tables.routes(this.#entries.settings);
  }

  /** Prefixes that are routed to a member. */
  prefixesOf(member: MemberRecord): readonly string[] {
    return this.#tables.prefixesBehind(member.publicKey);
  }

  /** Everything that the datapath must hold, for one that was started again. Policy is not among it. */
  allCommands(): readonly DatapathCommand[] {
    return this.#tables.all();
  }

  /**
   * Applies one frame. Never throws, whatever the frame holds.
   * @param trustedUnixMs time to judge validity by: never behind the newest time that the hub has vouched for
   */
  apply(frame: StateFrame, trustedUnixMs: number): MeshChange {
    const staged = this.#reasonAgainst(frame) ?? this.#entries.stage(frame);
    if (typeof staged === "string") {
      this.#refusedTotal++;
      return { ...NOTHING, frameRefused: staged };
    }
    const committed = this.#entries.commit(staged);
    this.#refusedTotal += committed.refused.length;
    const epoch = frame.t === "snapshot" ? frame.epoch : this.#position!.epoch;
    this.#position = { epoch, revision: frame.revision };
    return { ...this.#publish(committed, trustedUnixMs), ...changesOf(committed) };
  }

  /** Lets records run out; once an hour does. */
  expire(trustedUnixMs: number): MeshChange {
    const { commands, isSelfChanged } = this.#tables.update(this.#inputs(trustedUnixMs));
    return { ...NOTHING, commands, isSelfChanged, isMembersChanged: commands.length > 0 };
  }

  /** Why a frame cannot be applied to what we hold. */
  #reasonAgainst(frame: StateFrame): string | undefined {
    if (typeof frame !== "object" || frame === null) return "frame is no mapping";
    if (!Number.isSafeInteger(frame.revision) || frame.revision < 0) return "revision is no whole number";
    if (frame.t === "snapshot") {
      return typeof frame.epoch === "string" && frame.epoch !== "" ? undefined : "epoch is missing";
    }
    if (frame.t !== "delta") return "frame is neither snapshot nor delta";
    if (this.#position === undefined) return "delta before the first snapshot";
    if (frame.revision > this.#position.revision) return undefined;
    // a hub says so when nothing has changed since the revision that we resumed from
    if (frame.revision === this.#position.revision && isEmpty(frame)) return undefined;
    return `revision ${frame.revision} is not after ${this.#position.revision}`;
  }

  #publish(committed: Committed, unixMs: number): Pick<MeshChange, "commands" | "isSelfChanged"> {
    const inputs = this.#inputs(unixMs);
    if (committed.isMembersChanged || committed.isSettingsChanged) return this.#tables.update(inputs);
    return { commands: this.#tables.updateIps(committed.ips, inputs), isSelfChanged: false };
  }

  #inputs(trustedUnixMs: number) {
    const { settings, members, ips } = this.#entries;
    const { selfName, peerOptions } = this.#options;
    return { settings, members, ips, selfName, peerOptions, trustedUnixMs };
  }
}

function changesOf(committed: Committed): Omit<MeshChange, "commands" | "isSelfChanged"> {
  const { ips: _ips, ...changes } = committed;
  return changes;
}

function isEmpty(
  { puts, deletes }: { readonly puts: readonly unknown[]; readonly deletes: readonly unknown[] },
): boolean {
  return Array.isArray(puts) && puts.length === 0 && Array.isArray(deletes) && deletes.length === 0;
}
