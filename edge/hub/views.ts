/**
 * What members are sent, and when. Changes are noted as they happen and go out in batches: for each batch one delta is made for
 * each pair of (view before, view now), and the same frame object goes to all members that have that pair.
 *
 * A log of what was touched lets a member that was away, or paused, continue with a delta; the views of classes at earlier
 * revisions (`view_index.ts`) say what it had. Where that is not known any more it gets a snapshot.
 */
import type { DeltaFrame, EntryValue, MeshSettings, SnapshotFrame, StateFrame } from "../../src/mesh/entries.ts";
import type { HubModel, ModelChange } from "./model.ts";
import type { ResumePoint, Subscription } from "./state_types.ts";
import { type ClassState, identityEntryKey, type View, viewAt, ViewIndex } from "./view_index.ts";

/** Touched keys that are remembered, over all batches. */
const MAX_LOGGED_KEYS = 20_000;
/** A batch waits this long for company: longer with many subscribers, so that a thousand joins do not make a thousand batches. */
const MIN_WAIT_MS = 5;
const MAX_WAIT_MS = 250;
const WAIT_MS_PER_SUBSCRIBER = 0.25;

/** How an entry stood before it was changed: enough to tell who may have it. */
interface Touch {
  readonly slot: number;
  readonly isForAll: boolean;
}

interface Batch {
  readonly revision: number;
  /** for each key all states before its changes: a snapshot may have been taken in each of them */
  readonly touches: ReadonlyMap<string, readonly Touch[]>;
}

interface Subscriber {
  readonly name: string;
  readonly send: (frame: StateFrame) => void;
  readonly onGone: (reason: "revoked" | "removed") => void;
  isPaused: boolean;
  /** what it was last brought up to; no view: it needs a snapshot */
  view: View | undefined;
  revision: number;
}

export interface ViewsOptions {
  readonly model: HubModel;
  readonly settings: MeshSettings;
  readonly epoch: string;
  /** revision that the model shows */
  readonly revision: () => number;
  /** nothing that members are sent has changed after this revision, at the time of opening */
  readonly logStart: number;
  readonly schedule: (task: () => void, ms: number) => () => void;
}

export class Views {
  readonly #options: ViewsOptions;
  readonly #index: ViewIndex;
  readonly #subscribers = new Map<string, Set<Subscriber>>();
  readonly #log: Batch[] = [];
  #touches = new Map<string, Touch[]>();
  #loggedKeys = 0;
  #logStart: number;
  #flushed: number;
  #count = 0;
  #version = 0;
  #cancelTimer: (() => void) | undefined;

  constructor(options: ViewsOptions) {
    const { model, logStart } = options;
    this.#options = options;
    this.#logStart = logStart;
    this.#flushed = options.revision();
    this.#index = new ViewIndex(model, options.settings);
    for (const name of model.members.keys()) this.#index.putMember(name, logStart);
    for (const name of model.policies.keys()) this.#index.putPolicy(name);
    for (const name of model.namespaces.keys()) this.#index.putNamespace(name);
    for (const name of model.cidrGroups.keys()) this.#index.putCidrGroup(name);
    for (const name of model.services.keys()) this.#index.putService(name);
    this.#index.refresh(logStart);
  }

  /** Takes over a change of the model. */
  note(change: ModelChange, revision: number): void {
    switch (change.kind) {
      case "member":
        this.#noteMember(change.name, change.device, revision);
        break;
      case "policy":
        this.#touch(this.#index.putPolicy(change.name), { slot: -1, isForAll: false });
        break;
      case "namespace":
        this.#touch(this.#index.putNamespace(change.name), { slot: -1, isForAll: false });
        break;
      case "cidrgroup":
        this.#touchShared(this.#index.putCidrGroup(change.name));
        break;
      case "services":
        for (const name of change.names) this.#touchShared(this.#index.putService(name));
        break;
      default:
        return;
    }
    this.#version++;
    this.#cancelTimer ??= this.#options.schedule(() => this.flush(), this.#waitMs());
  }

  #noteMember(name: string, device: string, revision: number): void {
    const before = this.#identityTouch(name);
    const { key, oldSlot, wasForAll } = this.#index.putMember(name, revision);
    this.#touch(key, { slot: oldSlot, isForAll: wasForAll });
    const after = this.#identityTouch(name);
    if (before !== undefined) this.#touch(before.key, before.touch);
    if (after !== undefined && after.key !== before?.key) this.#touch(after.key, { slot: -1, isForAll: false });
    if (this.#index.classOf(name) === undefined) this.#dismiss(name, this.#options.model.revoked.has(device));
  }

  #identityTouch(name: string): { key: string; touch: Touch } | undefined {
    const state = this.#index.classOf(name)?.state;
    if (state === undefined || state.members.size > 1 && state.hubMembers === 0) return undefined;
    return {
      key: identityEntryKey(state.identity),
      touch: { slot: state.slot, isForAll: state.hubMembers > 0 },
    };
  }

  #touchShared({ key, wasThere }: { readonly key: string; readonly wasThere: boolean }): void {
    this.#touch(key, { slot: -1, isForAll: wasThere });
  }

  #touch(key: string, touch: Touch): void {
    const touches = this.#touches.get(key);
    if (touches === undefined) this.#touches.set(key, [touch]);
    else if (!touches.some((known) => known.slot === touch.slot && known.isForAll === touch.isForAll)) {
      touches.push(touch);
    }
  }

  #dismiss(name: string, isRevoked: boolean): void {
    const subscribers = this.#subscribers.get(name);
    if (subscribers === undefined) return;
    this.#subscribers.delete(name);
    this.#count -= subscribers.size;
    for (const subscriber of subscribers) subscriber.onGone(isRevoked ? "revoked" : "removed");
  }

  #waitMs(): number {
    return Math.min(MAX_WAIT_MS, Math.max(MIN_WAIT_MS, this.#count * WAIT_MS_PER_SUBSCRIBER));
  }

  /** Sends what was noted since the last time. */
  flush(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    if (this.#touches.size === 0) return;
    const revision = this.#options.revision();
    this.#index.refresh(revision);
    const batch = { revision, touches: this.#touches };
    this.#touches = new Map();
    this.#remember(batch);
    const before = this.#flushed;
    this.#flushed = revision;
    const deltas = new DeltaCache(this.#index, [batch], revision);
    for (const subscribers of this.#subscribers.values()) {
      for (const subscriber of subscribers) {
        if (subscriber.isPaused) continue;
        if (subscriber.view !== undefined && subscriber.revision === before) this.#advance(subscriber, deltas);
        else this.#catchUp(subscriber);
      }
    }
    if (this.#index.isSparse) this.#renumber(revision);
  }

  #remember(batch: Batch): void {
    this.#log.push(batch);
    this.#loggedKeys += batch.touches.size;
    while (this.#loggedKeys > MAX_LOGGED_KEYS && this.#log.length > 1) {
      const oldest = this.#log.shift()!;
      this.#loggedKeys -= oldest.touches.size;
      this.#logStart = oldest.revision;
    }
  }

  /** Positions of classes are given out anew: history ends here, subscribers that are up to date stay so. */
  #renumber(revision: number): void {
    this.#index.renumber(revision);
    this.#log.length = 0;
    this.#loggedKeys = 0;
    this.#logStart = revision;
    for (const subscribers of this.#subscribers.values()) {
      for (const subscriber of subscribers) {
        subscriber.view = subscriber.revision === revision ? this.#stateOf(subscriber.name)?.view : undefined;
      }
    }
  }

  #stateOf(name: string): ClassState | undefined {
    const found = this.#index.classOf(name);
    return found?.isHub ? this.#index.hub : found?.state;
  }

  #advance(subscriber: Subscriber, deltas: DeltaCache, isFirst = false): void {
    const view = this.#stateOf(subscriber.name)?.view;
    if (view === undefined) return;
    const frame = this.#withOwn(deltas.between(subscriber.view!, view), subscriber.name, view, deltas);
    subscriber.view = view;
    subscriber.revision = deltas.revision;
    if (isFirst || frame.puts.length > 0 || frame.deletes.length > 0) subscriber.send(frame);
  }

  /** Brings a subscriber up to the last flush from wherever it stands. The first frame is sent even when it is empty. */
  #catchUp(subscriber: Subscriber, isFirst = false): void {
    const view = this.#stateOf(subscriber.name)?.view;
    if (view === undefined) return;
    if (subscriber.view === undefined || subscriber.revision < this.#logStart) {
      subscriber.view = view;
      subscriber.revision = this.#flushed;
      subscriber.send(this.#snapshot(view, subscriber.name));
      return;
    }
    const batches = this.#log.filter((batch) => batch.revision > subscriber.revision);
    this.#advance(subscriber, new DeltaCache(this.#index, batches, this.#flushed), isFirst);
  }

  #snapshot(view: View, name: string): SnapshotFrame {
    const { epoch } = this.#options;
    if (view.snapshot?.version !== this.#version || view.snapshot.frame.revision !== this.#flushed) {
      const entries = [];
      for (const info of this.#index.infos.values()) if (this.#index.isIn(view, info)) entries.push(info.entry);
      const frame: SnapshotFrame = { t: "snapshot", epoch, revision: this.#flushed, entries };
      view.snapshot = { version: this.#version, frame };
    }
    const { frame } = view.snapshot;
    const own = this.#index.infos.get(this.#index.memberKey(name));
    if (own === undefined || this.#index.isIn(view, own)) return frame;
    return { ...frame, entries: [...frame.entries, own.entry] };
  }

  /** A member always has its own record, also where it may not talk to others of its class. */
  #withOwn(frame: DeltaFrame, name: string, view: View, deltas: DeltaCache): DeltaFrame {
    const key = this.#index.memberKey(name);
    const own = this.#index.infos.get(key);
    if (own === undefined || this.#index.isIn(view, own)) return frame;
    const deletes = frame.deletes.includes(key) ? frame.deletes.filter((other) => other !== key) : frame.deletes;
    if (!deltas.isTouched(key)) return deletes === frame.deletes ? frame : { ...frame, deletes };
    return { ...frame, puts: [...frame.puts, own.entry], deletes };
  }

  /** See `HubState.subscribe`. @throws RangeError when there is no such active member */
  subscribe(
    name: string,
    resume: ResumePoint | undefined,
    send: (frame: StateFrame) => void,
    onGone: (reason: "revoked" | "removed") => void,
  ): Subscription {
    if (this.#index.classOf(name) === undefined) throw new RangeError(`No active member "${name}"`);
    if (this.#stateOf(name)?.view === undefined) this.#index.refreshNew(this.#flushed);
    const start = resume && this.#resumeView(name, resume);
    const subscriber: Subscriber = {
      name,
      send,
      onGone,
      isPaused: false,
      view: start,
      revision: start === undefined ? 0 : resume!.revision,
    };
    const subscribers = this.#subscribers.get(name) ?? new Set();
    this.#subscribers.set(name, subscribers.add(subscriber));
    this.#count++;
    this.#catchUp(subscriber, true);
    return this.#handleOf(subscriber);
  }

  /** What a member had at the revision it names, if the log still leads from there to now. */
  #resumeView(name: string, resume: ResumePoint): View | undefined {
    const found = this.#index.classOf(name);
    const { epoch } = this.#options;
    if (found === undefined || resume.epoch !== epoch || resume.revision < this.#logStart) return undefined;
    if (resume.revision > this.#flushed || resume.revision < found.since) return undefined;
    return viewAt(this.#stateOf(name)!, resume.revision);
  }

  #handleOf(subscriber: Subscriber): Subscription {
    const end = () => {
      const subscribers = this.#subscribers.get(subscriber.name);
      if (!subscribers?.delete(subscriber)) return;
      this.#count--;
      if (subscribers.size === 0) this.#subscribers.delete(subscriber.name);
    };
    const resume = () => {
      if (!subscriber.isPaused) return;
      subscriber.isPaused = false;
      const isCurrent = subscriber.view !== undefined && subscriber.revision === this.#flushed;
      if (!isCurrent && this.#subscribers.get(subscriber.name)?.has(subscriber)) this.#catchUp(subscriber);
    };
    return Object.assign(end, { pause: () => void (subscriber.isPaused = true), resume });
  }

  close(): void {
    this.#cancelTimer?.();
    this.#subscribers.clear();
    this.#count = 0;
  }
}

/** Deltas over the same batches, one for each pair of views. */
class DeltaCache {
  readonly revision: number;
  readonly #index: ViewIndex;
  /** how each touched entry stood before the batches, and in between */
  readonly #touched = new Map<string, readonly Touch[]>();
  readonly #frames = new Map<View, Map<View, DeltaFrame>>();

  constructor(index: ViewIndex, batches: readonly Batch[], revision: number) {
    this.#index = index;
    this.revision = revision;
    for (const batch of batches) {
      for (const [key, touches] of batch.touches) {
        const known = this.#touched.get(key);
        this.#touched.set(key, known === undefined ? touches : [...known, ...touches]);
      }
    }
  }

  isTouched(key: string): boolean {
    return this.#touched.has(key);
  }

  between(from: View, to: View): DeltaFrame {
    const byTarget = this.#frames.get(from) ?? new Map<View, DeltaFrame>();
    this.#frames.set(from, byTarget);
    let frame = byTarget.get(to);
    if (frame === undefined) {
      frame = this.#make(from, to);
      byTarget.set(to, frame);
    }
    return frame;
  }

  #make(from: View, to: View): DeltaFrame {
    const puts: (readonly [string, EntryValue])[] = [];
    const deletes: string[] = [];
    for (const [key, touches] of this.#touched) {
      const info = this.#index.infos.get(key);
      if (info !== undefined && this.#index.isIn(to, info)) puts.push(info.entry);
      else if (touches.some((touch) => hadEntry(from, key, touch)) || (info && hadEntry(from, key, info))) {
        deletes.push(key);
      }
    }
    if (from !== to) this.#moveTo(from, to, puts, deletes);
    return { t: "delta", revision: this.revision, puts, deletes };
  }

  /** Untouched entries that only one of the two views holds. */
  #moveTo(from: View, to: View, puts: (readonly [string, EntryValue])[], deletes: string[]): void {
    for (const [key, info] of this.#index.infos) {
      if (this.#touched.has(key)) continue;
      const had = this.#index.isIn(from, info);
      const has = this.#index.isIn(to, info);
      if (has && !had) puts.push(info.entry);
      else if (had && !has) deletes.push(key);
    }
  }
}

/** Whether a view held an entry that stood so. */
function hadEntry(view: View, key: string, touch: Touch): boolean {
  if (touch.isForAll) return true;
  if (key.startsWith("policy/")) return view.policySet.has(key.slice("policy/".length));
  if (key.startsWith("namespace/")) return view.namespaces?.has(key.slice("namespace/".length)) ?? true;
  if (touch.slot < 0) return false;
  const slots = key.startsWith("identity/") ? view.identities : view.peers;
  return slots === undefined || slots.has(touch.slot);
}
