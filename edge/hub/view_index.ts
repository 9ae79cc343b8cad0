/**
 * What there is to send: every entry with the class that it hangs on, and for every class its view. A view says which entries
 * its members get; classes that need the same share one view object, so that frames are made once for all of them.
 */
import type { JsonObject } from "../../src/hub/json.ts";
import { type ClassView, computeViews } from "../../src/hub/visibility.ts";
import { KEY_NAMESPACE } from "../../src/identity/labels.ts";
import type { EntryValue, MeshSettings, SnapshotFrame } from "../../src/mesh/entries.ts";
import type { FrameEntry } from "./frames.ts";
import type { HubModel } from "./model.ts";

/** An entry that some member may get. */
export interface Info {
  readonly entry: FrameEntry;
  readonly kind: "settings" | "member" | "identity" | "namespace" | "policy" | "shared";
  /** member and identity: position of the class; else -1 */
  readonly slot: number;
  /** every member gets it: the settings, the hub's record and identity, and what any policy may refer to (shared) */
  readonly isForAll: boolean;
  /** policy: its key; namespace: its name; else "" */
  readonly name: string;
}

export interface View extends ClassView {
  readonly policySet: ReadonlySet<string>;
  /** namespaces of the identities in it; `undefined` = all */
  readonly namespaces: ReadonlySet<string> | undefined;
  /** newest snapshot, and the state that it shows */
  snapshot: { readonly version: number; readonly frame: SnapshotFrame } | undefined;
}

/** All members of one identity. */
export interface ClassState {
  readonly identity: number;
  readonly slot: number;
  readonly members: Set<string>;
  hubMembers: number;
  view: View | undefined;
  /** its views since the log begins, with the revision each began at; newest last */
  readonly history: { readonly since: number; readonly view: View }[];
}

/** How many of a class's past views are kept for members that resume. */
const MAX_HISTORY = 16;

export class ViewIndex {
  readonly infos = new Map<string, Info>();
  readonly classes = new Map<number, ClassState>();
  /** what hubs get: everything, and the policies of their own class */
  hub: ClassState = hubClass();
  readonly #model: HubModel;
  readonly #settings: MeshSettings;
  readonly #slots: (ClassState | undefined)[] = [];
  readonly #classOfMember = new Map<string, { state: ClassState; isHub: boolean; since: number }>();
  #views = new Map<string, View>();
  /** policies or classes have changed since the views were computed */
  #isStale = true;

  constructor(model: HubModel, settings: MeshSettings) {
    this.#model = model;
    this.#settings = settings;
    this.#set({ entry: ["settings", settings], kind: "settings", slot: -1, isForAll: true, name: "" });
  }

  memberKey(name: string): string {
    return `member/${this.#settings.cluster.name}/${name}`;
  }

  /** Class and rank of an active member; `since` = revision from which it is in this class. */
  classOf(member: string): { readonly state: ClassState; readonly isHub: boolean; readonly since: number } | undefined {
    return this.#classOfMember.get(member);
  }

  /** Takes over a member's row. @returns its key and the position of the class it was in, -1 for none */
  putMember(
    name: string,
    revision: number,
  ): { readonly key: string; readonly oldSlot: number; readonly wasForAll: boolean } {
    const key = this.memberKey(name);
    const old = this.infos.get(key);
    const row = this.#model.members.get(name);
    const isShown = row?.state === "active";
    const before = this.#classOfMember.get(name);
    if (before !== undefined && (!isShown || before.state.identity !== row.identity || before.isHub !== row.isHub)) {
      this.#leaveClass(name, before);
    }
    if (isShown) {
      const state = this.#enterClass(name, row.identity, row.isHub, revision);
      const value = { record: row.record, signature: row.signature };
      this.#set({ entry: [key, value], kind: "member", slot: state.slot, isForAll: row.isHub, name: "" });
    } else this.infos.delete(key);
    return { key, oldSlot: old?.slot ?? -1, wasForAll: old?.isForAll ?? false };
  }

  /** Takes over a policy as it is now. @returns its key */
  putPolicy(name: string): string {
    this.#isStale = true;
    const key = `policy/${name}`;
    this.#putObject(key, "policy", name, this.#model.policies.get(name)?.document);
    return key;
  }

  putNamespace(name: string): string {
    const key = `namespace/${name}`;
    const value = this.#model.namespaces.has(name) ? { labels: this.#model.namespaceLabels(name) } : undefined;
    this.#putObject(key, "namespace", name, value);
    return key;
  }

  /** Takes over a CIDR group. @returns its key, and whether members have it so far */
  putCidrGroup(name: string): { readonly key: string; readonly wasThere: boolean } {
    return this.#putShared(`cidrgroup/${name}`, this.#model.cidrGroups.get(name));
  }

  /** Takes over a service, `<namespace>/<name>`. */
  putService(name: string): { readonly key: string; readonly wasThere: boolean } {
    return this.#putShared(`service/${name}`, this.#model.serviceEntry(name));
  }

  /** All members get it: a CIDR group or a service is small, and any policy may come to refer to it. */
  #putShared(key: string, value: EntryValue | undefined): { readonly key: string; readonly wasThere: boolean } {
    const wasThere = this.infos.has(key);
    if (value === undefined) this.infos.delete(key);
    else this.#set({ entry: [key, value], kind: "shared", slot: -1, isForAll: true, name: "" });
    return { key, wasThere };
  }

  #putObject(key: string, kind: "policy" | "namespace", name: string, value: JsonObject | undefined): void {
    if (value === undefined) this.infos.delete(key);
    else this.#set({ entry: [key, value as EntryValue], kind, slot: -1, isForAll: false, name });
  }

  #set(info: Info): void {
    this.infos.set(info.entry[0], info);
  }

  #enterClass(name: string, identity: number, isHub: boolean, revision: number): ClassState {
    const known = this.#classOfMember.get(name);
    if (known !== undefined) return known.state;
    let state = this.classes.get(identity);
    if (state === undefined) {
      const slot = this.#slots.length;
      state = { identity, slot, members: new Set(), hubMembers: 0, view: undefined, history: [] };
      this.#slots.push(state);
      this.classes.set(identity, state);
      this.#isStale = true;
    }
    state.members.add(name);
    if (isHub) state.hubMembers++;
    this.#classOfMember.set(name, { state, isHub, since: revision });
    this.#putIdentity(state);
    return state;
  }

  #leaveClass(name: string, { state, isHub }: { readonly state: ClassState; readonly isHub: boolean }): void {
    this.#classOfMember.delete(name);
    state.members.delete(name);
    if (isHub) state.hubMembers--;
    if (state.members.size > 0) return this.#putIdentity(state);
    this.classes.delete(state.identity);
    this.#slots[state.slot] = undefined;
    this.infos.delete(identityEntryKey(state.identity));
    this.#isStale = true;
  }

  #putIdentity(state: ClassState): void {
    const key = identityEntryKey(state.identity);
    const isForAll = state.hubMembers > 0;
    if (this.infos.get(key)?.slot === state.slot && this.infos.get(key)?.isForAll === isForAll) return;
    const labels = this.#model.identities.get(state.identity) ?? {};
    this.#set({ entry: [key, { labels }], kind: "identity", slot: state.slot, isForAll, name: "" });
  }

  /** Whether most positions belong to classes that are gone. */
  get isSparse(): boolean {
    return this.#slots.length > 2 * this.classes.size + 64;
  }

  /** Numbers the classes anew. Positions and views from before mean nothing afterwards. */
  renumber(revision: number): void {
    const members = [...this.#classOfMember.keys()];
    this.classes.clear();
    this.#classOfMember.clear();
    this.#slots.length = 0;
    this.#views.clear();
    this.hub = hubClass();
    for (const [key, info] of this.infos) if (info.kind === "identity") this.infos.delete(key);
    for (const name of members) this.putMember(name, revision);
    this.#isStale = true;
    this.refresh(revision);
  }

  /** Computes the views anew if anything that they depend on has changed; what is equal stays the same object. */
  refresh(revision: number): void {
    if (!this.#isStale) return;
    this.#isStale = false;
    const views = this.#compute();
    const interned = new Map<string, View>();
    this.#slots.forEach((state, slot) => {
      if (state !== undefined) setView(state, this.#intern(views[slot]!, interned), revision);
    });
    const hubSlots = this.#slots.filter((state) => state !== undefined && state.hubMembers > 0);
    const hubPolicies = new Set(hubSlots.flatMap((state) => views[state!.slot]!.policies));
    const everything = { peers: undefined, identities: undefined, policies: [...hubPolicies].sort() };
    setView(this.hub, this.#intern(everything, interned), revision);
    this.#views = interned;
  }

  /** Gives classes that have no view yet theirs, and leaves the others for the next `refresh`. */
  refreshNew(revision: number): void {
    const views = this.#compute();
    this.#slots.forEach((state, slot) => {
      if (state !== undefined && state.view === undefined) {
        setView(state, this.#intern(views[slot]!, this.#views), revision);
      }
    });
  }

  #compute(): ClassView[] {
    const labelsOf = (state: ClassState | undefined) => state && this.#model.identities.get(state.identity);
    const classes = this.#slots.map((state) => ({ identity: state?.identity ?? 0, labels: labelsOf(state) ?? {} }));
    const policies = Array.from(this.#model.policies.values(), ({ policy }) => policy);
    return computeViews(classes, policies, this.#settings.policy, this.#settings.cluster.name);
  }

  #intern(view: ClassView, interned: Map<string, View>): View {
    const key = `${view.peers?.toKey() ?? "*"}\n${view.identities?.toKey() ?? "*"}\n${view.policies.join(" ")}`;
    const same = interned.get(key) ?? this.#views.get(key) ?? this.#makeView(view);
    interned.set(key, same);
    return same;
  }

  #makeView(view: ClassView): View {
    const namespaces = view.identities && new Set<string>();
    if (view.identities !== undefined) {
      for (const state of this.classes.values()) {
        const namespace = this.#model.identities.get(state.identity)?.[`k8s:${KEY_NAMESPACE}`];
        if (namespace !== undefined && view.identities.has(state.slot)) namespaces!.add(namespace);
      }
    }
    return { ...view, policySet: new Set(view.policies), namespaces, snapshot: undefined };
  }

  /** Whether a view holds an entry. */
  isIn(view: View, info: Info): boolean {
    switch (info.kind) {
      case "settings":
      case "shared":
        return true;
      case "member":
        return info.isForAll || view.peers === undefined || view.peers.has(info.slot);
      case "identity":
        return info.isForAll || view.identities === undefined || view.identities.has(info.slot);
      case "namespace":
        return view.namespaces === undefined || view.namespaces.has(info.name);
      case "policy":
        return view.policySet.has(info.name);
    }
  }
}

export function identityEntryKey(identity: number): string {
  return `identity/${identity}`;
}

/** The view that a class had at a revision; `undefined` when that is not known any more. */
export function viewAt(state: ClassState, revision: number): View | undefined {
  return state.history.findLast(({ since }) => since <= revision)?.view;
}

function setView(state: ClassState, view: View, revision: number): void {
  if (state.view === view) return;
  state.view = view;
  state.history.push({ since: revision, view });
  if (state.history.length > MAX_HISTORY) state.history.shift();
}

function hubClass(): ClassState {
  return { identity: 0, slot: -1, members: new Set(), hubMembers: 0, view: undefined, history: [] };
}
